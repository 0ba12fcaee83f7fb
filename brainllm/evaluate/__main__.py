"`python -m brainllm.evaluate`, the older name of `brainllm table`. Written by hand: no notebook exports it."

from brainllm.evaluate.pipeline import print_tables

print_tables()
