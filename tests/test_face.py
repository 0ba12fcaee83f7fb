"The face of the package: what `import brainllm` offers, how little it loads, and that editors see the same names."

import ast, importlib, json, subprocess, sys
from pathlib import Path
import pytest
import brainllm

ROOT = Path(__file__).resolve().parent.parent
WINGS = sorted(p.parent.name for p in (ROOT / 'brainllm').glob('*/__init__.py'))
NAMES = set(
    'FMRITokenizer BrainEncoder MaskedBrainModel BrainLLM add_adaptors AdaptorConfig clip_loss l2l1_loss nc_loss '
    'es_loss MemoryBank HAD Urgen HaxbySlice score score_text identification permutation_p reproduce get_preset '
    'PRESETS'.split()
)


def fresh(code):  # -> what the code prints last, as JSON
    "Run in a Python that has loaded nothing of ours."
    run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def loaded(code):  # -> top-level packages that are loaded after it
    return set(fresh(f"{code}\nimport json, sys; print(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"))


def public(path):  # names of a room's __all__
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '__all__':
            return set(ast.literal_eval(node.value))
    raise AssertionError(f'{path.name} has no __all__')


def rooms(wing):
    return {p.stem for p in (ROOT / 'brainllm' / wing).glob('[!_]*.py')}


def test_import_is_quick():
    code = 'import time; t = time.perf_counter()\nimport brainllm\nprint(time.perf_counter() - t)'
    assert min(fresh(code) for _ in range(3)) < 0.5  # s; the best of three, for a busy machine


def test_import_loads_nothing_large():
    large = {'torch', 'numpy', 'pandas', 'nilearn', 'transformers', 'matplotlib', 'typer', 'tqdm'}
    assert not loaded('import brainllm; dir(brainllm)') & large


def test_models_do_without_nilearn_and_peft():
    assert not loaded('import brainllm.models') & {'torch', 'nilearn', 'peft'}
    found = loaded('import brainllm; brainllm.FMRITokenizer, brainllm.BrainEncoder, brainllm.clip_loss')
    assert 'torch' in found and not found & {'nilearn', 'peft', 'transformers', 'nibabel'}


def test_names_are_shown_and_open():
    assert set(brainllm.__all__) == NAMES and NAMES <= set(dir(brainllm))
    for name in NAMES: assert getattr(brainllm, name) is not None, name
    assert brainllm.BrainLLM.__module__ == 'brainllm.decoder'
    assert brainllm.__version__ == brainllm.__dict__['__version__']


def test_every_room_is_reached_by_its_name():
    made = {p.stem for p in (ROOT / 'brainllm').glob('[!_]*.py')} - {'ablation', 'compare', 'statistics'}
    assert made | set(WINGS) == set(dir(brainllm)) - NAMES
    with pytest.raises(AttributeError, match="module 'brainllm' has no attribute 'no_such_name'"):
        brainllm.no_such_name


@pytest.mark.parametrize('wing', WINGS)
def test_a_wing_offers_what_its_rooms_make(wing):
    face = importlib.import_module(f'brainllm.{wing}')
    made = {name for room in rooms(wing) for name in public(ROOT / 'brainllm' / wing / f'{room}.py')}
    assert made == set(face.__all__) - {'BrainLLM'}, f'add to the first page of {wing}: {made ^ set(face.__all__)}'
    assert rooms(wing) <= set(dir(face))


@pytest.mark.parametrize('wing', WINGS)
def test_editors_see_the_rooms_of_a_wing(wing):
    stub = ast.parse((ROOT / 'brainllm' / wing / '__init__.pyi').read_text())
    seen = {n.module for n in stub.body if isinstance(n, ast.ImportFrom) and n.level == 1 and n.names[0].name == '*'}
    assert seen == rooms(wing), f'brainllm/{wing}/__init__.pyi: one line `from .room import *` for each room'


def test_editors_see_the_names_of_the_package():
    stub = ast.parse((ROOT / 'brainllm' / '__init__.pyi').read_text())
    seen = {a.asname or a.name for n in stub.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert seen == set(dir(brainllm))
    assert (ROOT / 'brainllm' / 'py.typed').exists()
