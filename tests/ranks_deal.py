"""Artifacts that do not need each other, made by two processes side by side: run by test_ranks.py."""

import json
import os
import sys
from functools import partial
from pathlib import Path
from brainllm.ranks import deal, ranks
from brainllm.store import Store

store = Store(sys.argv[1])


def build(number, folder):
    (folder / 'who').write_text(f'{os.environ["RANK"]} of {ranks()}')


def make(number):
    return store.get(f'fold{number}', partial(build, number), dict(number=number))


if __name__ == '__main__':
    deal([1, 2, 3, 4, 5], make)
    who = [(make(number) / 'who').read_text() for number in range(1, 6)]
    Path(sys.argv[1], f'found-by-{os.environ["RANK"]}.json').write_text(json.dumps([who, ranks()]))
