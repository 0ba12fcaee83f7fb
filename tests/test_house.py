"The house is in order: notebooks and package agree, nothing of one machine is kept, and every list names everything."

import ast, configparser, filecmp, importlib.metadata, json, os, re, runpy, shutil, subprocess, sys
from pathlib import Path
import nbformat, pytest, yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
SIDEBAR = re.findall(r'nbs/([\w-]+)\.ipynb', (ROOT / '_quarto.yml').read_text().split('sidebar:')[1])
ORDER = [
    re.sub(r'^\d+[a-z]?_', '', s) for s in SIDEBAR if s not in ('index', '07_results')
]  # rooms, from the ground up
DESIGNED = set(
    'core paper data simulate datasets models adaptors video weights losses pretrain stage1 stage2 evaluate'.split()
)
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
    stale = [p.name for p in (ROOT / 'brainllm').glob('[!_]*.py') if p.stem not in ORDER]
    assert not stale, f'modules that no notebook exports: {stale}'


def test_every_room_is_there(books):
    exported = {
        m[1] for nb in books.values() for c in nb.cells if (m := re.search(r'^#\| default_exp (\w+)', c.source, re.M))
    }
    assert exported == set(ORDER) and DESIGNED <= exported
    assert {'index', '07_results'} <= set(books)


def test_dependencies_point_down_the_list():
    for k, room in enumerate(ORDER):
        tree = ast.parse((ROOT / 'brainllm' / f'{room}.py').read_text())
        for node in ast.walk(tree):
            froms = (
                [node.module]
                if isinstance(node, ast.ImportFrom) and node.module
                else [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else []
            )
            for name in froms:
                if name == 'brainllm':
                    used = [a.name for a in node.names] if isinstance(node, ast.ImportFrom) else []
                elif name.startswith('brainllm.'):
                    used = [name.split('.')[1]]
                elif isinstance(node, ast.ImportFrom) and node.level:
                    used = [name.split('.')[0]]
                else:
                    continue
                for u in used:
                    assert u in ORDER[:k], f'{room} imports {u}, which stands below it'


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
    assert SIDEBAR == sorted((p.stem for p in NOTEBOOKS), key=place)
    assert yaml.safe_load((ROOT / '_quarto.yml').read_text())['project']['output-dir'] == CFG['doc_path']


def test_settings():
    assert CFG['tst_flags'].split() == ['notest', 'slow', 'gpu']
    assert CFG['allowed_cell_metadata_keys'].split() == ['tags']
    assert CFG['nbs_path'] == 'nbs' and CFG['lib_path'] == CFG['lib_name'] == 'brainllm' and CFG['min_python'] == '3.11'
    dev = CFG['dev_requirements'].split()
    assert {'nbdev==2.4.14', 'execnb<0.2', 'fastcore<2', 'ghapi<2'} <= set(dev)


def test_readme_is_the_index():
    made = runpy.run_path(str(ROOT / 'tools' / 'readme.py'))['readme']()
    assert made == (ROOT / 'README.md').read_text(), 'README.md is not what nbs/index.ipynb says: make readme'
    links = re.findall(r'\]\(([^)#:]+)\)', made)
    assert links and not [l for l in links if not (ROOT / l).exists()]


def constraints():
    lines = [
        l.strip() for l in (ROOT / 'constraints.txt').read_text().splitlines() if l.strip() and not l.startswith('#')
    ]
    assert all(re.fullmatch(r'[\w.-]+==[\w.]+', l) for l in lines), 'one exact version a line, no local versions'
    return {canonical(n): v for n, v in (l.split('==') for l in lines)}


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
        try:
            found = importlib.metadata.version(name).split('+')[0]
        except importlib.metadata.PackageNotFoundError:
            continue
        if found != version:
            wrong[name] = (found, version)
    assert not wrong


def test_parts_are_pinned():
    lines = (ROOT / 'parts.txt').read_text().split()
    assert lines and all(re.fullmatch(r'[\w.-]+==[\w.]+', l) for l in lines)
    for l in lines:
        assert importlib.metadata.version(l.split('==')[0]) == l.split('==')[1]


def test_no_package_index_is_named():
    word = re.compile(
        r'index[-_]url|find[-_]links|trusted[-_]host|(?:pypi|pythonhosted|conda|npmjs)\.(?:org|io|com)', re.I
    )
    for p in [*ROOT.glob('*'), *(ROOT / 'tools').glob('*'), *(ROOT / '.ci').glob('*'), *NOTEBOOKS]:
        if p.is_file() and p.suffix != '.pyc':
            assert not word.search(p.read_text(errors='replace')), p.name
