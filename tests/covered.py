"""Lines and branches of the package that pages and tests run: python tests/covered.py [pages and test files]

Each runs in a process of its own; what it ran is kept under _runs/coverage, and a call that was stopped goes on there.
Ends with a table by wing. `tests/mutants.py` asks the same files which tests run a line."""

import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from io import StringIO
import coverage
from pages import page_names, ROOT

KEPT = ROOT / '_runs' / 'coverage'
LIMIT = 3000  # seconds that one page or test file may take
LEFT_OUT = ('test_house', 'test_site', 'test_contributing', 'test_wheel', 'test_kills')  # of text, layout and the killed


def units() -> list:  # pages, then test files
    files = [path.stem for path in sorted((ROOT / 'tests').glob('test_*.py'))]
    return [*page_names(), *(name for name in files if name not in LEFT_OUT)]


def run_unit(name: str) -> str:  # '', or the end of what it printed where it failed
    "Run a page or a test file under coverage; its data and its seconds are kept."
    KEPT.mkdir(parents=True, exist_ok=True)
    environ = dict(os.environ, COVERAGE_FILE=str(KEPT / f'data.{name}'), PYTHONPATH=f'{ROOT}:{ROOT / "tests"}')
    command = [sys.executable, '-m', 'coverage', 'run', f'--context={name}']
    file, report = f'tests/{name}.py', f'--junitxml={KEPT / name}.xml'
    command += ['-m', 'pytest', '-q', report, file] if name.startswith('test_') else ['tests/pages.py', name]
    begin = time.time()
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode: return (done.stdout + done.stderr)[-2000:]
    (KEPT / f'{name}.seconds').write_text(f'{time.time() - begin:.1f}\n')
    return ''


def seconds_of_tests() -> dict:  # page, or file::function -> s
    "How long each page and each test took, over its parameters."
    spent: dict = defaultdict(float)
    for file in KEPT.glob('*.seconds'):
        if not file.stem.startswith('test_'): spent[file.stem] = float(file.read_text())
    for file in KEPT.glob('*.xml'):
        for case in ElementTree.parse(file).iter('testcase'):
            spent[f'{file.stem}::{case.get("name", "").split("[")[0]}'] += float(case.get('time', 0))
    return dict(spent)


def tests_by_line() -> dict:  # file of the package -> line -> pages and tests that run it; 'file::' at import
    "Who runs which line."
    found: dict = defaultdict(lambda: defaultdict(set))
    for path in KEPT.glob('data.*'):
        data = coverage.CoverageData(basename=str(path), no_disk=False)
        data.read()
        for file in data.measured_files():
            for line, contexts in data.contexts_by_lineno(file).items():
                found[file][line] |= {named for context in contexts if (named := _as_test(context))}
    return found


def _as_test(context):  # '03_losses' -> itself, 'test_data|test_data.test_x' -> 'test_data::test_x'
    unit, _, function = context.partition('|')
    if not unit.startswith('test_'): return unit
    return f'{unit}::{function.rsplit(".", 1)[-1]}'


def combined() -> coverage.Coverage:
    "All that was kept, as one."
    whole = coverage.Coverage(data_file=str(KEPT / 'all'), config_file=str(ROOT / 'pyproject.toml'))
    whole.combine([str(path) for path in KEPT.glob('data.*')], strict=True, keep=True)
    return whole


def wing_of(file: str) -> str:  # 'brainllm/data/trials.py' -> 'data'; a room of no wing is one itself
    parts = re.sub(r'\.py$', '', file).split('/')
    return parts[1] if len(parts) > 1 else parts[0]


def by_wing(whole: coverage.Coverage) -> dict:  # wing -> [lines, of them run, branches, of them taken]
    "Counts of lines and branches."
    into = ROOT / '_runs' / 'coverage.json'
    whole.json_report(outfile=str(into), ignore_errors=True)
    wings: dict = defaultdict(lambda: [0, 0, 0, 0])
    for file, found in json.loads(into.read_text())['files'].items():
        one = found['summary']
        names = ('num_statements', 'covered_lines', 'num_branches', 'covered_branches')
        wings[wing_of(file)] = [a + one[name] for a, name in zip(wings[wing_of(file)], names, strict=True)]
    return dict(wings)


def table(wings: dict) -> str:  # wing -> four counts
    "A line a wing, and one for all."
    wings = {**wings, 'all': [sum(column) for column in zip(*wings.values(), strict=True)]}
    out = StringIO()
    print('| wing | lines | of them run, % | branches | of them taken, % |\n|---|---|---|---|---|', file=out)
    for wing, (lines, run, branches, taken) in wings.items():
        print(f'| {wing} | {lines} | {percent(run, lines)} | {branches} | {percent(taken, branches)} |', file=out)
    return out.getvalue()


def percent(part: int, of: int) -> str:
    return f'{100 * part / of:.1f}' if of else '–'


def main(names) -> int:
    failed = []
    for name in names or units():
        if (KEPT / f'{name}.seconds').exists(): continue
        begin = time.time()
        try: wrong = run_unit(name)
        except subprocess.TimeoutExpired: wrong = f'took more than {LIMIT} s'
        print(f'{name}: {time.time() - begin:.1f} s {wrong}', flush=True)
        if wrong: failed.append(name)
    print(table(by_wing(combined())))
    if failed: print(f'failed: {", ".join(failed)}')
    return int(bool(failed))


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
