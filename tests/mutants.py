"""Rooms with one thing changed, and whether a page or a test notices: python tests/mutants.py [of each room] [rooms]

Operators are cosmic-ray's, those that keep the types, and one of our own. Of each room a sample is drawn, always the same.
Pages and tests that run the changed line (`tests/covered.py` says which) are run, the room's own page and then the fastest
first, each in a fork of a process that has imported the libraries. A mutant is killed when one fails or takes far longer
than it did. What was found is kept under _runs/mutants, a room a file; while a room's code stays, its killed ones do too."""

import ast
import contextlib
import hashlib
import importlib
import io
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names
from covered import seconds_of_tests, tests_by_line
from pages import module_of, page_names, page_of, ROOT
from scipy.stats import binomtest

WINGS = ('losses', 'data', 'datasets', 'evaluate')
KEPT = ROOT / '_runs' / 'mutants'
REASONS = ROOT / 'tests' / 'survivors.json'
NUMBERS, BITS = ('Add', 'Sub', 'Mul', 'Div', 'FloorDiv', 'Mod', 'Pow'), ('BitOr', 'BitAnd', 'BitXor')
ORDERS, SAME = ('Eq', 'NotEq', 'Lt', 'LtE', 'Gt', 'GtE'), ('Is', 'IsNot')
BUDGET = 90  # seconds of pages and tests that one mutant may cost, as they were measured
FACTOR, GRACE, LONGEST = 4, 20, 1200  # a test that takes FACTOR times what it took, and GRACE seconds more, hangs
UNKNOWN = 60  # seconds of a page that was not measured
MODULES = 'import sys, {rooms}\nprint(*[m for m in sys.modules if not m.startswith("brainllm")])'


@dataclass
class Mutant:
    "A room with one thing changed."

    room: str  # 'data.trials'
    line: int
    function: str  # its qualified name; '' outside of all
    operator: str
    before: str  # the line
    after: str
    source: str = field(repr=False, default='')  # of the room
    killed_by: str = ''  # page or test; '' where it survived
    seconds: float = 0.0

    @property
    def key(self) -> str:  # what stays the same when lines move
        return f'{self.room}.{self.function}: {self.before.strip()} -> {self.after.strip()}'


class ReturnNone(Operator):
    "Give nothing back."

    def mutation_positions(self, node):
        if node.type == 'return_stmt' and len(node.children) > 1: yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        node.children[1] = parso.python.tree.Name(' None', node.start_pos)
        return node

    @classmethod
    def examples(cls): return ()


def operators() -> dict:  # name -> Operator
    "Those whose change leaves a value of the same type, so that a test has to look at it."
    kept: dict = {'ReturnNone': ReturnNone()}
    for name in operator_names():
        short = name.partition('/')[2]
        if not short.startswith('Variable') and _keeps_types(short): kept[short] = get_operator(name)()
    return kept


def _keeps_types(name):
    pair = name.split('_')[1:]
    if name.startswith('ReplaceUnary'): return pair[0] == 'Delete'
    if len(pair) < 2: return True
    return any(set(pair) <= set(group) for group in (NUMBERS, BITS, ORDERS, SAME))


def rooms() -> list:  # 'losses', 'data.trials', ...: those that a page writes
    written = [module_of(stem).removeprefix('brainllm.') for stem in page_names()]
    return sorted(room for room in written if room.split('.')[0] in WINGS and _functions(_file(room).read_text()))


def _file(room): return ROOT / 'brainllm' / f'{room.replace(".", "/")}.py'


def places(room: str) -> list:  # for each place and kind of change, [(operator's name, operator, which of its changes)]
    "All that can be changed in a room, from its first line to its last."
    source = _file(room).read_text()
    nodes, aside, found = list(ast_nodes(get_ast(source))), _aside(source), {}
    for name, operator in operators().items():
        count = 0
        for node in nodes:
            for start, end in operator.mutation_positions(node):
                kind = name.split('_')[0]
                if not _inside(start, aside): found.setdefault((start, end, kind), []).append((name, operator, count))
                count += 1
    return sorted(found.items(), key=lambda item: item[0])


def sample(room: str, many: int) -> list:  # Mutant
    "Some mutants of a room, always the same, one for a place and a kind of change; of more, these are the first."
    source, draw, made = _file(room).read_text(), random.Random(room), []
    there = places(room)
    draw.shuffle(there)
    for (start, *_), options in there:
        if len(made) == many: break
        mutant = _made(room, source, start, draw.choice(options))
        if mutant: made.append(mutant)
    return made


def _made(room, source, start, option):  # a Mutant, or None where nothing changed or the operator cannot change it
    name, operator, count = option
    try: changed = mutate_code(source, operator, count)
    except AttributeError: return None  # an exception named with its module
    if changed is None or changed == source: return None
    old, new = source.splitlines(), changed.splitlines()
    line = next((k for k, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), len(new) - 1)
    return Mutant(room, start[0], _functions(source).get(start[0], ''), name, old[line], new[line], changed)


def _aside(source):  # (start, end) of what is no behaviour: annotations, and what is joined to a text
    found = []
    for node in ast.walk(ast.parse(source)):
        parts = [getattr(node, 'annotation', None), getattr(node, 'returns', None)]
        if isinstance(node, ast.BinOp) and _has_text(node): parts.append(node)
        found += [part for part in parts if isinstance(part, ast.expr)]
    return [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in found]


def _has_text(node):  # 'a' + b, folder / 'name'
    ends = (node.left, node.right)
    return any(isinstance(n, ast.JoinedStr) or isinstance(getattr(n, 'value', None), str) for n in ends)


def _inside(place, spans): return any(start <= place < end for start, end in spans)


def _functions(source) -> dict:  # line of a body -> qualified name of the innermost function
    found: dict = {}

    def walk(node, name):
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, ast.FunctionDef | ast.ClassDef): inner = f'{name}.{child.name}'.strip('.')
            if isinstance(child, ast.FunctionDef):
                for line in range(child.body[0].lineno, (child.end_lineno or 0) + 1): found[line] = inner
            walk(child, inner)

    walk(ast.parse(source), '')
    return found


class Choice:
    "Which pages and tests a mutant is shown: the room's own page, then the fastest first."

    def __init__(self):
        self.by_line = tests_by_line()
        self.seconds = {**dict.fromkeys(page_names(), UNKNOWN), **seconds_of_tests()}
        self.failing: set = set()  # those that fail, or cannot be run this way, without any change
        self.sound: set = {'import'}  # those that pass then

    def of(self, mutant: Mutant) -> list:  # names
        lines = self.by_line.get(f'brainllm/{mutant.room.replace(".", "/")}.py', {})
        names = lines.get(mutant.line, set()) if mutant.function else set().union(*lines.values())
        chosen, spent, own = [], 0.0, page_of(f'brainllm.{mutant.room}')
        names = {n for n in {*names, own} if n in self.seconds and n not in self.failing}
        for name in sorted(names, key=lambda n: (n != own, self.seconds[n], n)):
            spent += self.seconds[name]
            if spent > BUDGET and chosen: break
            chosen.append(name)
        return chosen

    def is_sound(self, group: str, fails: Callable) -> bool:  # fails: of the room as it is, said of a list of names
        "Whether a page or tests pass without any change; asked once, and where not, never shown again."
        if group not in self.sound | self.failing:
            (self.failing if fails(group.split(', ')) else self.sound).update([group])
        if group in self.failing: self.failing.update(group.split(', '))
        return group in self.sound


class Workshop:
    "A copy of the project in which rooms are changed."

    def __init__(self, folder: Path):
        self.root = folder / 'copy'
        files = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in files.split('\0'):
            if not (ROOT / name).is_file(): continue
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        for name in ('pages.py', 'covered.py'): shutil.copy(ROOT / 'tests' / name, self.root / 'tests' / name)
        os.environ |= dict(PYTHONPATH=f'{self.root}:{self.root / "tests"}', PYTHONDONTWRITEBYTECODE='1')
        sys.dont_write_bytecode = True
        sys.path[:0] = [str(self.root), str(self.root / 'tests')]
        sys.path.remove(str(Path(__file__).parent))
        os.chdir(self.root)

    def warm_up(self):
        "Import every library that the rooms import."
        code = MODULES.format(rooms=', '.join(f'brainllm.{room}' for room in rooms()))
        said = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
        for name in [*said.split(), 'pytest', 'hypothesis', '_pytest.junitxml', 'nbformat']:
            with contextlib.suppress(Exception): importlib.import_module(name)
        for name in ('pages', 'covered'): sys.modules.pop(name, None)
        assert not [name for name in sys.modules if name.startswith('brainllm')]

    def first_to_fail(self, room: str, source: str, names: list, seconds: dict) -> str:  # '' where none does
        "Run pages and tests while a room has another source."
        file = self.root / _file(room).relative_to(ROOT)
        own = file.read_text()
        file.write_text(source)
        try:
            if in_fork(lambda: importlib.import_module(f'brainllm.{room}'), GRACE * FACTOR): return 'import'
            for group in _groups(names):
                limit = FACTOR * sum(seconds[name] for name in group) + GRACE
                if in_fork(lambda group=group: run_tests(group), limit): return ', '.join(group)
        finally:
            file.write_text(own)
        return ''

    def fails(self, group: list) -> bool:
        "Whether pages or tests fail while no room is changed."
        return bool(in_fork(lambda: run_tests(group), LONGEST))


def _groups(names):  # pages one by one, tests of pytest five at a time
    tests = [name for name in names if '::' in name]
    groups = [[name] for name in names if '::' not in name] + [tests[k : k + 5] for k in range(0, len(tests), 5)]
    return sorted(groups, key=lambda group: names.index(group[0]))


def run_tests(names: list):
    "Pages, or tests of pytest; raises where one fails."
    if '::' not in names[0]:
        from pages import run_page

        return run_page(names[0])
    import pytest

    code = pytest.main(['-x', '-q', '-p', 'no:cacheprovider', *[f'tests/{n.replace("::", ".py::")}' for n in names]])
    if code: raise AssertionError(f'pytest ended with {code}')


def in_fork(do: Callable, limit: float) -> str:  # '' where all went well
    "Do something in a process of its own, and say what went wrong."
    ends, writes = os.pipe()
    pid = os.fork()
    if not pid: _in_child(do, writes)
    os.close(writes)
    said, until = b'', time.time() + limit
    while True:
        ready, _, _ = select.select([ends], [], [], max(0.0, until - time.time()))
        piece = os.read(ends, 65536) if ready else b''
        said += piece
        if not piece: break
    late = not ready
    with contextlib.suppress(ProcessLookupError): os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(ends)
    if late: return f'took more than {limit:.0f} s'
    return '' if said.endswith(b'well') else said.decode(errors='replace') or 'died'


def _in_child(do, writes):
    os.setpgid(0, 0)
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2): os.dup2(silent, stream)
    sys.stdout = sys.stderr = io.StringIO()
    try:
        do()
        os.write(writes, b'well')
    except BaseException:
        os.write(writes, traceback.format_exc()[-3000:].encode())
    os._exit(0)


def interval(part: int, of: int) -> tuple:  # Wilson's, 95 %
    "Bounds of a share."
    if not of: return 0.0, 1.0
    return tuple(binomtest(part, of).proportion_ci(method='wilson'))


def test_room(room: str, many: int, shop: Workshop, choice: Choice) -> list:  # Mutant
    "Make the mutants of a room and try to kill each."
    mutants, kept = sample(room, many), read_kept(room)
    for mutant in mutants:
        mutant.killed_by, mutant.seconds = kept.get((mutant.line, mutant.after), ('', 0.0))
        if mutant.killed_by: continue
        begin = time.time()
        names = choice.of(mutant)
        mutant.killed_by = shop.first_to_fail(room, mutant.source, names, choice.seconds)
        if mutant.killed_by and not choice.is_sound(mutant.killed_by, shop.fails):
            mutant.killed_by = shop.first_to_fail(room, mutant.source, choice.of(mutant), choice.seconds)
        mutant.seconds = time.time() - begin
        if not mutant.killed_by: print(f'  survived, line {mutant.line}, {mutant.operator}: {mutant.key}', flush=True)
        write_down(room, mutants[: mutants.index(mutant) + 1])
    return mutants


def read_kept(room: str) -> dict:  # (line, what it became) -> what killed it, s
    "What was found before, of the same code."
    file = KEPT / f'{room}.json'
    found = json.loads(file.read_text()) if file.exists() else {}
    if found.get('code') != _digest(room): return {}
    return {(row['line'], row['after']): (row['killed_by'], row['seconds']) for row in found['mutants']}


def _digest(room): return hashlib.sha256(_file(room).read_bytes()).hexdigest()[:12]


def write_down(room: str, mutants: list):
    KEPT.mkdir(parents=True, exist_ok=True)
    rows = [{k: v for k, v in vars(m).items() if k != 'source'} | dict(key=m.key) for m in mutants]
    kept = dict(code=_digest(room), mutants=rows)
    (KEPT / f'{room}.json').write_text(json.dumps(kept, indent=1, ensure_ascii=False) + '\n')


def table() -> str:  # a line a room that was tried, and one for all
    "Shares with their intervals; survivors without a reason."
    reasons = json.loads(REASONS.read_text()) if REASONS.exists() else {}
    lines, killed, of, open_ones = ['| room | mutants | killed | % | 95 % |', '|---|---|---|---|---|'], 0, 0, []
    for file in sorted(KEPT.glob('*.json')):
        rows = json.loads(file.read_text())['mutants']
        part = sum(bool(row['killed_by']) for row in rows)
        lines.append(_row(file.stem, part, len(rows)))
        killed, of = killed + part, of + len(rows)
        open_ones += [row['key'] for row in rows if not row['killed_by'] and row['key'] not in reasons]
    lines.append(_row('all', killed, of))
    return '\n'.join([*lines, '', *(f'survived without a reason: {key}' for key in open_ones)])


def _row(name, part, of):
    low, high = interval(part, of)
    return f'| {name} | {of} | {part} | {100 * part / max(of, 1):.0f} | {100 * low:.0f} to {100 * high:.0f} |'


def main(many=40, *names) -> int:
    chosen = names or rooms()
    choice = Choice()
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(Path(folder))
        shop.warm_up()
        for room in chosen:
            begin = time.time()
            mutants = test_room(room, int(many), shop, choice)
            write_down(room, mutants)
            part = sum(bool(m.killed_by) for m in mutants)
            print(f'{room}: {part} of {len(mutants)} killed, {time.time() - begin:.0f} s', flush=True)
    print(table())
    return 0


if __name__ == '__main__':
    raise SystemExit(main(*sys.argv[1:]))
