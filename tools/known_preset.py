"""Is there such a preset, with such a seed, settings and folder? Asked before `make` builds an environment, on a bare Python.

PYTHONPATH=. python tools/known_preset.py PRESET SEED ROOT SET"""

import sys
from brainllm.core import BrainLLMError
from brainllm.presets import as_seed, check_root, choose_study


def check(preset: str, seed: str, root: str, settings: str):
    "Raises `BrainLLMError` for what `make reproduce` would refuse minutes later."
    as_seed(seed)
    check_root(choose_study(preset, root=root, set=settings))


if __name__ == '__main__':
    try:
        check(*sys.argv[1:])
    except BrainLLMError as error:
        print('brainllm:', error, file=sys.stderr)
        raise SystemExit(2) from None
