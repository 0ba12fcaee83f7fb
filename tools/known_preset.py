"""Is there such a preset, with such a seed, settings and folder? Asked before `make` builds an environment, on a bare Python.

PYTHONPATH=. python tools/known_preset.py PRESET SEED ROOT SET"""

import sys
from pathlib import Path

from brainllm.core import BrainLLMError, DataError
from brainllm.presets import as_seed, choose_study, get_preset


def check(preset: str, seed: str, root: str, settings: str):
    "Raises `BrainLLMError` for what `make reproduce` would refuse minutes later."
    as_seed(seed)
    choose_study(get_preset(preset), root=root, set=settings)
    if root and not Path(root).is_dir(): raise DataError(f"ROOT: found no folder {root}, wanted that of the study on disk")


if __name__ == '__main__':
    try:
        check(*sys.argv[1:])
    except BrainLLMError as error:
        print('brainllm:', error, file=sys.stderr)
        raise SystemExit(2) from None
