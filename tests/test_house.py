"The house is in order: notebooks and package agree, nothing of one machine is kept, and every list names everything."

import ast, configparser, filecmp, importlib.metadata, json, os, re, runpy, shutil, subprocess, sys
from pathlib import Path
import nbformat, pytest, yaml
import house_rules
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from brainllm.parts import part_packages

ROOT = Path(__file__).resolve().parent.parent
SIDEBAR = re.findall(r'nbs/([\w-]+)\.ipynb', (ROOT / '_quarto.yml').read_text().split('sidebar:')[1])
NOTEBOOKS = sorted(p for p in (ROOT / 'nbs').glob('*.ipynb'))
CFG = configparser.ConfigParser(delimiters=['='])
CFG.read(ROOT / 'settings.ini')
CFG = CFG['DEFAULT']


@pytest.fixture(scope='module')
def books():
    return {p.stem: nbformat.read(p, 4) for p in NOTEBOOKS}


def texts(cell):
    "Everything a cell shows in words: its source and the text of its outputs."
    yield cell.source
    for o in cell.get('outputs', []):
        yield o.get('text', '')
        yield '\n'.join(o.get('traceback', []))
        for mime, data in o.get('data', {}).items():
            if mime.startswith('text/'):
                yield data


def canonical(name):
    return re.sub(r'[-_.]+', '-', name).lower()


BAR = re.compile(r'\d+%\||\d(?:it|s)/(?:s|it)\b|: done in \d+ s|^part \d+ of \d+: |parts are there already', re.M)
NOTE = re.compile(': (?:built|reused), ')


def passing(cell):
    "What a cell keeps that only whoever waited for it wanted to see."
    yield from (mime for o in cell.get('outputs', []) for mime in o.get('data', {}) if 'jupyter.widget' in mime)
    for text in list(texts(cell))[1:]: yield from (found[0] for kind in (BAR, NOTE) for found in kind.finditer(text))


def test_no_output_is_a_bar_or_a_note_of_the_store(books):
    kept = [(stem, words) for stem, nb in books.items() for c in nb.cells for words in passing(c)]
    assert not [(stem, words) for stem, words in kept if stem != '00b_store' or not NOTE.search(words)]
    widget = dict(outputs=[dict(data={'application/vnd.jupyter.widget-view+json': {}})])
    shown = ('runs: 10%|#   | 1/10 [00:01<00:09, 1.02s/it]', 'Stage I: done in 12 s', 'study: built, study-0123')
    cells = [nbformat.from_dict(dict(source='', outputs=[dict(text=text)])) for text in shown]
    assert all(list(passing(c)) for c in [*cells, nbformat.from_dict(dict(source='') | widget)])


def test_export_and_clean_change_nothing(tmp_path):
    keep = ['nbs', 'brainllm', 'settings.ini', 'setup.py', 'pyproject.toml']
    for k in keep:
        (shutil.copytree if (ROOT / k).is_dir() else shutil.copy)(ROOT / k, tmp_path / k)
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'} | {'JUPYTER_DATA_DIR': str(tmp_path / 'jupyter')}
    for command in ('nbdev_export', 'nbdev_clean'):
        r = subprocess.run(
            [Path(sys.executable).parent / command], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert r.returncode == 0, r.stderr
    names = [
        p.relative_to(tmp_path)
        for k in ('nbs', 'brainllm')
        for p in (tmp_path / k).rglob('*')
        if p.suffix in ('.ipynb', '.py')
    ]
    missing = [n for n in names if not (ROOT / n).exists()]
    changed = [
        str(n)
        for n in [*names, Path('pyproject.toml')]
        if (ROOT / n).exists() and not filecmp.cmp(ROOT / n, tmp_path / n, shallow=False)
    ]
    assert not missing and not changed, f'run nbdev_export and nbdev_clean: {missing} {changed}'


@pytest.fixture(scope='module')
def sources():
    return house_rules.rooms()


def test_every_room_is_there(books, sources):
    exported = set()
    for nb in books.values():
        for c in nb.cells:
            if m := re.search(r'^#\| default_exp ([\w.]+)', c.source, re.M): exported.add(m[1].removesuffix('.__init__'))
    assert exported == set(sources), 'a module that no notebook exports, or a notebook that was not exported'
    assert {r.split('.')[0] for r in exported} == set(house_rules.ORDER)
    assert {'index', '07_results'} <= set(books)
    written = {p.relative_to(ROOT).as_posix() for p in house_rules.modules()}
    assert set(house_rules.HAND_WRITTEN) <= written


# ---- how code is laid out, and each rule on a planted offence

EXCEPTIONS = {}  # (room, rule): why the page would be worse without

PLANTED = {
    'long_lines': f'# {"word " * 30}\nx = 1\n',
    'semicolons': 'x = 1; y = 2\n',
    'dense_statements': f'x = [{", ".join(f"f({k}, a={k})" for k in range(20))}]\n',
    'nested_comprehensions': 'x = [[j for j in range(i)] for i in range(3)]\n',
    'long_functions': 'def f(x):\n' + '    x = x + 1\n' * 61,
}
PLANTED_RUFF = {
    'E501': f'x = "{"long " * 30}"\n',
    'E702': 'x = 1; y = 2\n',
    'E731': 'f = lambda x: x\n',
    'F401': 'import os\n',
    'F841': 'def f():\n    unused = 1\n',
    'B006': 'def f(x=[]):\n    return x\n',
    'B023': 'def f(xs):\n    out = []\n    for x in xs:\n        out.append(lambda: x)\n    return out\n',
    'B905': 'def f(a, b):\n    return zip(a, b)\n',
    'C901': 'def f(x):\n' + ''.join(f'    if x == {k}:\n        return {k}\n' for k in range(13)) + '    return x\n',
}


def test_code_is_laid_out_plainly():
    offences = []
    for path in house_rules.modules():
        name = path.relative_to(ROOT).as_posix()
        for offence in house_rules.layout(path.read_text()):
            if (name, offence.split(':')[0]) not in EXCEPTIONS: offences.append(f'{name}: {offence}')
    assert not offences, '\n'.join(offences)


@pytest.mark.parametrize('rule', PLANTED)
def test_a_planted_offence_of_layout_is_found(rule):
    found = house_rules.layout(PLANTED[rule])
    assert [o for o in found if o.startswith(rule)], f'{rule} passed {PLANTED[rule]!r}'


def test_tables_in_capitals_and_wide_docstrings_are_free():
    table = PLANTED['dense_statements'].replace('x =', 'TABLE =')
    wide = f'def f():\n    "{"word " * 25}"\n'
    assert not house_rules.layout(wide) and not house_rules.dense_statements(table)


def ruff(*words, text=None):
    command = [Path(sys.executable).parent / 'ruff', 'check', '--config', ROOT / 'pyproject.toml', *words]
    return subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True)


def test_ruff_finds_nothing():
    r = ruff('brainllm', 'tests', 'tools', 'setup.py')
    assert r.returncode == 0, r.stdout


@pytest.mark.parametrize('rule', PLANTED_RUFF)
def test_a_planted_offence_is_found_by_ruff(rule):
    r = ruff('--stdin-filename', 'brainllm/planted.py', '--output-format', 'concise', '-', text=PLANTED_RUFF[rule])
    assert r.returncode == 1 and f' {rule} ' in r.stdout, r.stdout + r.stderr


def test_the_type_checker_finds_nothing():
    r = subprocess.run([sys.executable, '-m', 'mypy', 'brainllm'], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout[-3000:]


# ---- rooms together

FACES = [('models', 'decoder')]  # BrainLLM is made one floor up, and looked for in models: a fixed name


def test_rooms_import_downwards(sources):
    assert not house_rules.upward_imports(sources, FACES)
    assert not house_rules.circles(sources)


@pytest.mark.parametrize(
    'text',
    [
        'from brainllm.stages.stage1 import align\n',
        'from ..stages.stage1 import align\n',
        'from ..stages import stage1\n',
        'from .. import stages\n',
        'import brainllm.stages\n',
        'def f():\n    from brainllm import stages\n    return stages\n',
    ],
)
def test_an_arrow_that_runs_up_is_found(text):
    planted = {'data': '', 'data.planted': text, 'stages': '', 'stages.stage1': 'def align():\n    pass\n'}
    assert house_rules.upward_imports(planted)


def test_a_circle_is_found():
    planted = {'data': '', 'data.a': 'from . import b\n', 'data.b': 'from brainllm.data.a import x\n'}
    assert house_rules.circles(planted)


def test_no_public_name_is_made_twice(sources):
    assert not house_rules.names_made_twice(sources)
    assert house_rules.names_made_twice({'a': 'def f():\n    pass\n', 'b': 'f = 1\n'})


def test_private_names_stay_in_their_room(sources):
    assert not house_rules.private_names_across(sources)
    assert house_rules.private_names_across({'core': '_x = 1\n', 'store': 'from brainllm.core import _x\n'})
    assert house_rules.private_names_across({'core': '_x = 1\n', 'store': 'from . import core\nprint(core._x)\n'})


def test_nothing_is_imported_by_string(sources):
    assert not house_rules.imports_by_string(sources)
    planted = "import importlib\nimportlib.import_module('brainllm.store')\n"
    assert house_rules.imports_by_string({'models': planted}) and not house_rules.imports_by_string({'core': planted})


def test_nothing_of_one_machine(books):
    path = re.compile(r'(?<![\w.:/<])/(?:home|root|Users|tmp|mnt|opt|usr|var|work|scratch|data\d*)/[\w.-]')
    for name, nb in books.items():
        for c in nb.cells:
            for t in texts(c):
                m = path.search(t)
                assert not m, f'{name}, cell {c.id}: an absolute path: {t[max(0, m.start() - 40) : m.end() + 60]!r}'
                assert str(ROOT) not in t


def test_no_word_that_hides_work(books):
    words = re.compile(
        r'\b(TODO|FIXME|XXX)\b|globals\(\)|sys\.path\b|simplefilter|filterwarnings|^\s*#\s*(?:import|from|def|return|for) .*[:(=]',
        re.M,
    )
    for name, nb in books.items():
        for c in nb.cells:
            if c.cell_type == 'code':
                assert not (m := words.search(c.source)), f'{name}, cell {c.id}: {m[0]!r}'
            assert 'nbdev_export()' not in c.source


def test_outputs_are_kept_and_whole(books):
    for name, nb in books.items():
        code = [c for c in nb.cells if c.cell_type == 'code']
        if not code: continue
        outputs = [o for c in code for o in c.outputs]
        assert outputs, f'{name} has no outputs: make notebooks'
        errors = [o.ename for o in outputs if o.output_type == 'error']
        assert not errors, f'{name} keeps an error: {errors}'


def test_cell_ids_are_there_and_unique():
    for p in NOTEBOOKS:
        ids = [c.get('id') for c in json.loads(p.read_text())['cells']]
        assert all(ids) and len(set(ids)) == len(ids), p.name


@pytest.mark.parametrize('stem', ['04_stage1', '05_stage2', '06_evaluate', '07_results'])
def test_parameters_are_tagged_plain_and_not_exported(books, stem):
    cells = [c for c in books[stem].cells if 'parameters' in c.metadata.get('tags', [])]
    assert len(cells) == 1, f'{stem}: one cell is tagged parameters'
    assert '#| export' not in cells[0].source
    values = {t.id: ast.literal_eval(n.value) for n in ast.parse(cells[0].source).body for t in n.targets}
    assert {'preset', 'seed', 'out'} <= set(values) and values['preset'] == 'sim-had' and values['seed'] == 0
    assert all(v is None or isinstance(v, (str, int, float, bool)) for v in values.values())


def place(stem):  # the index first, then by number and letter: 2 before 10, 05 before 05a
    m = re.match(r'(\d+)([a-z]?)_', stem)
    return (int(m[1]), m[2], stem) if m else (-1, '', stem)


def test_sidebar_lists_every_notebook_in_order():
    assert sorted(SIDEBAR) == sorted(p.stem for p in NOTEBOOKS)
    rooms = [stem for stem in SIDEBAR if place(stem)[0] < 12]  # commands, clusters and pages to read stand before them
    assert rooms == sorted(rooms, key=place)
    assert yaml.safe_load((ROOT / '_quarto.yml').read_text())['project']['output-dir'] == CFG['doc_path']


def test_settings():
    assert CFG['tst_flags'].split() == ['notest', 'slow', 'gpu']
    assert CFG['allowed_cell_metadata_keys'].split() == ['tags']
    assert CFG['nbs_path'] == 'nbs' and CFG['lib_path'] == CFG['lib_name'] == 'brainllm' and CFG['min_python'] == '3.11'
    dev = CFG['dev_requirements'].split()
    assert {'nbdev==2.4.14', 'execnb<0.2', 'fastcore<2', 'ghapi<2'} <= set(dev)


def test_readme_is_the_index():
    made, pictures = runpy.run_path(str(ROOT / 'tools' / 'readme.py'))['readme']()
    assert pictures and all((ROOT / 'figures' / name).read_bytes() == data for name, data in pictures.items())
    assert made == (ROOT / 'README.md').read_text(), 'README.md is not what nbs/index.ipynb says: make readme'
    links = re.findall(r'\]\(([^)#:]+)\)', made)
    assert links and not [l for l in links if not (ROOT / l).exists()]


def constraints():
    lines = [
        l.strip() for l in (ROOT / 'constraints.txt').read_text().splitlines() if l.strip() and not l.startswith('#')
    ]
    assert all(re.fullmatch(r'[\w.-]+==[\w.]+', l) for l in lines), 'one exact version a line, no local versions'
    return {canonical(n): v for n, v in (l.split('==') for l in lines)}


def present(name: str) -> bool:
    return any(importlib.metadata.distributions(name=name))


def test_constraints_cover_every_requirement():
    pinned = constraints()
    todo = [Requirement(r) for r in CFG['requirements'].split() + CFG['dev_requirements'].split()]
    seen = set()
    while todo:
        r = todo.pop()
        name = canonical(r.name)
        assert name in pinned, f'{r} is not in constraints.txt'
        assert r.specifier.contains(pinned[name], prereleases=True), (
            f'constraints.txt has {name}=={pinned[name]}, wanted {r}'
        )
        key = (name, frozenset(r.extras))
        if key in seen: continue
        seen.add(key)
        for d in importlib.metadata.requires(r.name) or []:
            d = Requirement(d)
            if d.marker is None or any(d.marker.evaluate({'extra': e}) for e in (r.extras or {''})):
                todo.append(d)


def test_this_environment_is_the_one_of_the_constraints():
    wrong = {}
    for name, version in constraints().items():
        found = importlib.metadata.version(name).split('+')[0] if present(name) else version
        if found != version: wrong[name] = (found, version)
    assert not wrong


@pytest.mark.parametrize('python', ['3.11.0', '3.12.0', '3.13.0'])
def test_no_package_refuses_a_python_that_is_named(python):
    "Debian 12 has Python 3.11.2: a package that asks for 3.11.5 leaves no environment there."
    asks = {name: importlib.metadata.metadata(name)['Requires-Python'] for name in constraints() if present(name)}
    assert len(asks) > 100
    assert not {name: wanted for name, wanted in asks.items() if wanted and not SpecifierSet(wanted).contains(python)}


def test_parts_are_pinned():
    packages = part_packages()
    assert packages
    for name, package in packages.items():
        assert importlib.metadata.version(name) == package.version
        files = [file.locate() for file in importlib.metadata.files(name) if file.suffix != '.pyc']
        size = sum(file.stat().st_size for file in files if file.is_file())
        assert abs(size / 1e6 - package.megabytes) < 1, f'{name}: found {size / 1e6:.1f} MB'


def test_no_package_index_is_named():
    word = re.compile(
        r'index[-_]url|find[-_]links|trusted[-_]host|(?:pypi|pythonhosted|conda|npmjs)\.(?:org|io|com)', re.I
    )
    for p in [*ROOT.glob('*'), *(ROOT / 'tools').glob('*'), *(ROOT / '.ci').glob('*'), *NOTEBOOKS]:
        if p.is_file() and p.suffix != '.pyc':
            assert not word.search(p.read_text(errors='replace')), p.name
