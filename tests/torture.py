"""Thousands of inputs made by chance, for every reader: python tests/torture.py [examples of each format] [number]

Another number makes others. Ends by printing a table, and fails where a reader was wrong."""

import contextlib
import io
import sys
from generated import run_family, table
from generated.every import FAMILIES


def main(examples=90, number=0) -> int:
    tallies = {}
    for name in FAMILIES:
        with contextlib.redirect_stdout(io.StringIO()): tallies[name] = run_family(name, examples, number)
        found = tallies[name]
        print(f'{name}: {found.examples} examples, {sum(found.faults.values())} wrong, {found.seconds:.0f} s', flush=True)
        for fault, times in sorted(found.faults.items()): print(f'  {times} x {fault}', flush=True)
    print(table(tallies))
    return int(any(tally.faults for tally in tallies.values()))


if __name__ == '__main__':
    raise SystemExit(main(*map(int, sys.argv[1:])))
