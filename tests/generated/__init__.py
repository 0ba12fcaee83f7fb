"""Inputs made by chance, each with its truth: what must be read out of it, or in what way it is wrong.

A family writes one file, or one folder, and says what is true of it; `judge` lets the project read it and compares.
`tests/test_generated.py` runs a few of each family, `make torture` thousands."""

import faulthandler
import logging
import random
import resource
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any
import numpy as np
import pandas as pd
import psutil
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from brainllm.core import BrainLLMError

SECONDS = 20  # that one reading may take
MEMORY = 2 * 2**30  # bytes that one reading may ask for
logging.getLogger('nibabel').setLevel(logging.CRITICAL)  # it says what it mends in a header
FAMILIES: dict[str, Callable] = {}  # name of a format -> function of (draw, folder) that gives an Example


@dataclass
class Example:
    "What was written, and its truth."

    read: Callable  # called without arguments: the project reads it
    file: str  # name that a refusal must give
    want: Any = None  # what must come of it, where it is right
    fault: str = ''  # in what way it is wrong; '' is right
    field: str = ''  # name that a refusal must give as well
    either: bool = False  # a damage that may leave it readable: only the manner of the refusal is judged
    writes: bool = False  # the reader may change the folder


def family(name: str):
    "Register a function of (draw, folder) that gives an `Example`."

    def keep(make):
        FAMILIES[name] = make
        return make

    return keep


class TooSlow(BaseException):
    "A reading that took more than `SECONDS`."


def _stop(*_):
    raise TooSlow


class held:
    "Time and memory of a reading, limited."

    def __enter__(self):
        self.limits = resource.getrlimit(resource.RLIMIT_AS)
        most = psutil.Process().memory_info().vms + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, self.limits[1]))
        self.before = signal.signal(signal.SIGALRM, _stop)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        faulthandler.dump_traceback_later(6 * SECONDS, exit=True, file=sys.__stderr__)  # for what hangs outside of Python

    def __exit__(self, *error):
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)
        resource.setrlimit(resource.RLIMIT_AS, self.limits)


def judge(example: Example, folder: Path) -> str:  # what is wrong with the reader; '' where all is right
    "Let the project read one example."
    before = _on_disk(folder)
    try:
        with held(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            found = example.read()
    except TooSlow:
        return f'hangs: more than {SECONDS} s'
    except BrainLLMError as e:
        wrong = _judge_refusal(example, e)
    except Exception as e:
        return f'foreign exception: {type(e).__name__}: {str(e)[:200]}'
    else:
        if example.fault and not example.either: return f'accepted although wrong: {str(found)[:100]}'
        wrong = '' if example.either or same(found, example.want) else _other_value(found, example.want)
    if not wrong and not example.writes and _on_disk(folder) != before: wrong = 'the folder was changed by reading it'
    return wrong


def _judge_refusal(example, error):
    if not example.fault: return f'refused although right: {error}'
    if _asked_for_memory(error): return f'asked for more than {MEMORY} bytes: {error}'
    lacks = [word for word in (example.file, example.field) if word not in str(error)]
    return f'the refusal does not name {lacks[0]}: {error}' if lacks else ''


def _other_value(found, want):
    return f'read wrong: found {str(found)[:200]}, wanted {str(want)[:200]}'


def _asked_for_memory(error) -> bool:  # whether the limit of memory was met below a refusal
    while error is not None:
        if isinstance(error, MemoryError) or 'allocate memory' in str(error): return True
        error = error.__cause__ or error.__context__
    return False


def _on_disk(folder) -> dict:  # path -> its size and time
    files = [path for path in Path(folder).rglob('*') if path.is_file()]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def same(found, want) -> bool:
    "Whether two values are one, in every number and letter."
    if isinstance(want, np.ndarray):
        return isinstance(found, np.ndarray) and found.shape == want.shape and np.array_equal(found, want, _real(want))
    if isinstance(want, pd.DataFrame): return isinstance(found, pd.DataFrame) and found.equals(want)
    if isinstance(want, dict):
        return isinstance(found, dict) and found.keys() == want.keys() and all(same(found[k], want[k]) for k in want)
    if isinstance(want, list | tuple):
        alike = isinstance(found, list | tuple) and len(found) == len(want)
        return alike and all(same(a, b) for a, b in zip(found, want, strict=True))
    return bool(found == want)


def _real(array): return array.dtype.kind == 'f'


def rng_of(draw) -> np.random.Generator:
    "Random numbers of one example."
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def pick(draw, options):
    "One of some options."
    return draw(st.sampled_from(list(options)))


def fault_of(draw, faults) -> str:
    "'' in a third of the examples, else one of the faults."
    return pick(draw, [*faults, *[''] * (len(faults) // 2 + 1)])


@dataclass
class Tally:
    "What came of the examples of one family."

    right: int = 0  # accepted, and read as it was written
    refused: int = 0  # wrong, and refused in words
    either: int = 0  # damaged at a random place: accepted or refused in words
    seconds: float = 0.0
    faults: Counter | None = None  # what a reader did wrong -> how often

    @property
    def examples(self) -> int:
        return self.right + self.refused + self.either


def run_family(name: str, examples: int, number: int = 0) -> Tally:  # number: another one draws other examples
    "Examples of one family, each judged; the same number draws the same ones."
    tally = Tally(faults=Counter())
    checks = list(HealthCheck)
    phases = [Phase.explicit, Phase.generate]
    plain = dict(database=None, deadline=None, suppress_health_check=checks, phases=phases)

    @seed(number)
    @settings(max_examples=examples, **plain)
    @given(st.data())
    def one(data):
        with tempfile.TemporaryDirectory() as folder:
            example = FAMILIES[name](data.draw, Path(folder))
            wrong = judge(example, Path(folder)).replace(folder, '')
        if wrong: tally.faults[f'{name}, {example.fault or "right"}: {wrong}'] += 1
        elif not example.fault: tally.right += 1
        elif example.either: tally.either += 1
        else: tally.refused += 1

    start, state = perf_counter(), random.getstate()
    one()
    random.setstate(state)
    tally.seconds = perf_counter() - start
    return tally


def table(tallies: dict) -> str:  # name -> Tally
    "A line a family: examples that were accepted right, refused rightly, damaged anyhow, wrong, and the seconds."
    columns = ('format', 'accepted right', 'refused rightly', 'damaged anyhow', 'wrong', 'seconds')
    rows = [columns]
    for name, t in tallies.items():
        rows.append((name, t.right, t.refused, t.either, sum(t.faults.values()), f'{t.seconds:.1f}'))
    sums = [sum(row[k] for row in rows[1:]) for k in range(1, 5)]
    rows.append(('all', *sums, f'{sum(t.seconds for t in tallies.values()):.1f}'))
    widths = [max(len(str(row[k])) for row in rows) for k in range(len(columns))]
    lines = []
    for row in rows:
        first, *rest = (str(cell) for cell in row)
        lines.append(' '.join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]))
    return '\n'.join(lines)
