"`python -m brainllm.compare`, the older name of `brainllm controls`. Written by hand: no notebook exports it."

from brainllm.evaluate.comparison import comparison_main

if __name__ == '__main__': raise SystemExit(comparison_main())
