"`python -m brainllm.video`, the older name of `brainllm answer`. Written by hand: no notebook exports it."

from brainllm.video.answers import answer_main

raise SystemExit(answer_main())
