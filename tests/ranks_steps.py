"""`tiny` from nothing to its table, with ten steps and more in both stages: run by test_ranks.py, alone and by two processes."""

import sys
from dataclasses import replace
from brainllm.core import show_notes
from brainllm.evaluate import reproduce
from brainllm.presets import get_preset
from brainllm.ranks import rank, ranks


def preset():
    tiny = get_preset('tiny')
    stage1 = replace(tiny.stage1, epochs=4, batch=7)
    return replace(tiny, stage1=stage1, stage2=replace(tiny.stage2, steps=10, batch=5, variant='dance'))


if __name__ == '__main__':
    show_notes()
    reproduce(preset(), 0, sys.argv[1])
    print(f'process {rank()} of {ranks()} is done')
