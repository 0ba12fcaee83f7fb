"`python -m brainllm.ablation`, the older name of `brainllm ablation`. Written by hand: no notebook exports it."

from brainllm.evaluate.ablation import ablation_main

if __name__ == '__main__': raise SystemExit(ablation_main())
