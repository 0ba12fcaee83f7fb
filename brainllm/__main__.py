"`python -m brainllm`, the same as `brainllm`. Written by hand: no notebook exports it."

from brainllm.cli import main

main()
