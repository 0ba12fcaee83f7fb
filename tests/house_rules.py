"How code is laid out here, as plain functions over syntax trees: each gives its offences, one line each."

import ast
import io
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)
HAND_WRITTEN = {  # files that no notebook exports, and why
    'brainllm/__init__.py': 'the version, and the names that people come for',
    'brainllm/__main__.py': 'python -m brainllm',
    'brainllm/evaluate/__main__.py': 'python -m brainllm.evaluate, as before there were rooms in it',
    'brainllm/datasets/__main__.py': 'python -m brainllm.datasets, as before',
    'brainllm/video/__main__.py': 'python -m brainllm.video, as before',
    'brainllm/ablation.py': 'python -m brainllm.ablation, as before',
    'brainllm/compare.py': 'python -m brainllm.compare, as before',
    'brainllm/statistics.py': 'from brainllm.statistics import score, a fixed name',
}


def modules(root=ROOT) -> list:  # paths of the package, without what nbdev writes for itself
    return [p for p in sorted((root / 'brainllm').rglob('*.py')) if p.name != '_modidx.py']


def size(node) -> int:  # syntax nodes below and with it
    return sum(1 for _ in ast.walk(node))


def wide_lines(tree) -> set:  # numbers of lines that may have 140 characters: docstrings and imports
    wide = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)): wide |= set(range(node.lineno, node.end_lineno + 1))
        if isinstance(node, (*DEFINITIONS, ast.Module)) and ast.get_docstring(node):
            wide |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return wide


def long_lines(text: str) -> list:
    wide = wide_lines(ast.parse(text))
    found = []
    for k, line in enumerate(text.splitlines(), 1):
        most = 140 if k in wide or line.startswith('# %%') or line.startswith('__all__') else 120
        if len(line) > most: found.append(f'line {k}: {len(line)} characters, at most {most}')
    return found


def semicolons(text: str) -> list:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [f'line {t.start[0]}: a semicolon' for t in tokens if t.type == tokenize.OP and t.string == ';']


def own_parts(node) -> list:  # a statement without the statements below it
    if isinstance(node, (ast.If, ast.While)): return [node.test]
    if isinstance(node, (ast.For, ast.AsyncFor)): return [node.target, node.iter]
    if isinstance(node, (ast.With, ast.AsyncWith)): return node.items
    if isinstance(node, (*DEFINITIONS, ast.Try, ast.Match)): return []
    return [node]


def is_table(node) -> bool:  # NAME = ..., in capitals; and the list that nbdev writes
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, 'target', None)]
    return all(isinstance(t, ast.Name) and (t.id.isupper() or t.id == '__all__') for t in targets)


def dense_statements(text: str, most: int = 80) -> list:
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.stmt) or (isinstance(node, (ast.Assign, ast.AnnAssign)) and is_table(node)): continue
        if isinstance(node, ast.Expr) and '__getattr__' in ast.unparse(node): continue
        n = sum(size(part) for part in own_parts(node))
        if n > most: found.append(f'line {node.lineno}: a statement of {n} syntax nodes, at most {most}')
    return found


def nested_comprehensions(text: str) -> list:
    found = []
    for node in ast.walk(ast.parse(text)):
        inner = (m for m in ast.walk(node) if m is not node) if isinstance(node, COMPREHENSIONS) else ()
        if any(isinstance(m, COMPREHENSIONS) for m in inner):
            found.append(f'line {node.lineno}: a comprehension inside a comprehension')
    return found


def long_functions(text: str, lines: int = 60, nodes: int = 400) -> list:
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, FUNCTIONS): continue
        n, s = node.end_lineno - node.lineno + 1, size(node)
        if n > lines: found.append(f'line {node.lineno}: {node.name} has {n} lines, at most {lines}')
        if s > nodes: found.append(f'line {node.lineno}: {node.name} has {s} syntax nodes, at most {nodes}')
    return found


LAYOUT = (long_lines, semicolons, dense_statements, nested_comprehensions, long_functions)


def layout(text: str) -> list:  # every offence of layout
    return [f'{rule.__name__}: {offence}' for rule in LAYOUT for offence in rule(text)]


# ---- rules about all rooms together: {'data.trials': source}; a wing's face is 'data'

ORDER = (  # from the ground up; a room imports what stands before it here, or in its own wing
    'core code ranks schemes parts store table presets optim losses paper data models weights captions datasets '
    'from_file decoder video pretrain sources simulate stages evaluate haxby sherlock doctor cli'
).split()
PACKAGE = 'brainllm'


def rooms(root=ROOT) -> dict:  # name -> source, of every room that a notebook exports; faces bear the wing's name
    found = {}
    for path in modules(root):
        name = path.relative_to(root).as_posix()
        if name in HAND_WRITTEN: continue
        parts = path.relative_to(root / PACKAGE).with_suffix('').parts
        found['.'.join(parts).removesuffix('.__init__')] = path.read_text()
    return found


def imported(room: str, text: str, known) -> list:  # (line, room or wing, name) of what it imports from the package
    "Relative, absolute, `from . import x` and `import brainllm.x` alike."
    found = []
    is_face = any(k.startswith(f'{room}.') for k in known)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for a in node.names:
                if a.name.startswith(f'{PACKAGE}.'): found.append((node.lineno, a.name.split('.', 1)[1], None))
        if not isinstance(node, ast.ImportFrom): continue
        if node.level:
            here = room.split('.') if is_face else room.split('.')[:-1]
            here = here[: len(here) - node.level + 1]
            source = '.'.join([*here, *(node.module.split('.') if node.module else [])])
        elif node.module == PACKAGE or node.module.startswith(f'{PACKAGE}.'):
            source = node.module.removeprefix(PACKAGE).lstrip('.')
        else:
            continue
        for a in node.names:
            below = f'{source}.{a.name}'.lstrip('.')
            if below in known: found.append((node.lineno, below, None))
            elif source: found.append((node.lineno, source, a.name))
    return found


def upward_imports(sources: dict, allowed=()) -> list:
    offences = []
    for room, text in sources.items():
        wing = room.split('.')[0]
        for line, other, _ in imported(room, text, sources):
            theirs = other.split('.')[0]
            if theirs == wing or (room, theirs) in allowed: continue
            if theirs not in ORDER or ORDER.index(theirs) > ORDER.index(wing):
                offences.append(f'{room}, line {line}: imports {other}, which stands above it')
    return offences


def circles(sources: dict) -> list:
    needs = {room: {o for _, o, _ in imported(room, text, sources) if o in sources} for room, text in sources.items()}
    done, offences = set(), []

    def walk(room, path):
        if room in path:
            offences.append(' -> '.join([*path[path.index(room) :], room]))
            return
        if room in done: return
        for other in sorted(needs[room]): walk(other, [*path, room])
        done.add(room)

    for room in sources: walk(room, [])
    return offences


def made_names(text: str) -> list:  # top-level names that a room defines
    names = []
    for node in ast.parse(text).body:
        if isinstance(node, DEFINITIONS): names.append(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else []
        names += [t.id for t in targets if isinstance(t, ast.Name)]
    return names


def names_made_twice(sources: dict) -> list:
    where = {}
    for room, text in sources.items():
        for name in set(made_names(text)):
            if not name.startswith('_') and '__getattr__' not in text: where.setdefault(name, []).append(room)
    return [f'{name}: in {", ".join(sorted(found))}' for name, found in sorted(where.items()) if len(found) > 1]


def private_names_across(sources: dict) -> list:
    offences = []
    for room, text in sources.items():
        found = imported(room, text, sources)
        own = {other.split('.')[-1] for _, other, name in found if name is None}
        for line, other, name in found:
            if name and name.startswith('_') and not name.startswith('__'):
                offences.append(f'{room}, line {line}: {other}.{name} is private')
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name): continue
            if node.value.id in own and node.attr.startswith('_') and not node.attr.startswith('__'):
                offences.append(f'{room}, line {node.lineno}: {node.value.id}.{node.attr} is private')
    return offences


def imports_by_string(sources: dict, allowed=('core',)) -> list:
    offences = []
    for room, text in sources.items():
        if room in allowed: continue
        for node in ast.walk(ast.parse(text)):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ''
            if called.endswith('import_module') or called == '__import__':
                offences.append(f'{room}, line {node.lineno}: {called}, which no reader of imports sees')
    return offences

if __name__ == '__main__':
    import sys

    wanted = sys.argv[1:] or ['brainllm']
    total = 0
    for path in modules():
        name = path.relative_to(ROOT).as_posix()
        if not any(name.startswith(w) for w in wanted): continue
        for offence in layout(path.read_text()):
            total += 1
            print(f'{name}: {offence}')
    print(f'{total} offences')
