"`python -m brainllm.datasets`, the older name of `brainllm fetch` and `brainllm check`. Written by hand."

from brainllm.datasets.check import check_main

raise SystemExit(check_main())
