"Keys of artifacts follow the code: what a build uses, through every room, and nothing else."

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import pytest

from brainllm import haxby
from brainllm.code import Package, code_hash, code_parts
from brainllm.evaluate import controls
from brainllm.store import Store
from brainllm.stages.experiment import open_experiment
from brainllm.stages import pretrained, stage1, stage2, teacher

BUILDS = (teacher.build_small, pretrained.build_parcels, stage1.build_stage1, stage2.build_stage2)
PACKAGE = Path(teacher.__file__).resolve().parent.parent


@pytest.fixture
def copy(tmp_path):
    "A copy of the package, to be changed."
    folder = tmp_path / 'brainllm'
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns('__pycache__'))
    return folder


def edit(folder, room, text):
    "The source of a room, written anew; `text` takes the old one."
    file = folder / (room.replace('.', '/') + '.py')
    old = file.read_text()
    file.write_text(text(old))
    assert file.read_text() != old


def spoil(folder, room, name):
    "One statement more in a function, or in a method `Class.method`."

    def longer(source):
        tree = ast.parse(source)
        body = tree.body
        for part in name.split('.'):
            node = next(n for n in body if getattr(n, 'name', None) == part)
            body = node.body
        body.append(ast.parse('assert True').body[0]) if isinstance(body[-1], ast.If) else body.insert(-1, ast.Pass())
        return ast.unparse(tree)

    edit(folder, room, longer)


@cache
def here(build):  # the key of today
    return code_hash(build)


def changed(folder, *builds):
    "Those of the builds whose key in the copy is another."
    package = Package(folder)
    return [b for b in builds if code_hash(b, package=package) != here(b)]


def test_a_copy_has_the_same_keys(copy):
    assert not changed(copy, *BUILDS)


@pytest.mark.parametrize('step', ['cosine_lr', 'adamw', 'descend'])
def test_optimiser_and_schedule_decide_what_is_taught(copy, step):
    spoil(copy, 'optim', step)
    taught = [teacher.build_small, haxby.load_reader]
    assert changed(copy, *taught) == taught


def test_who_is_held_out_decides_the_parcels(copy):
    spoil(copy, 'stages.pretrained', 'held_out')
    assert changed(copy, pretrained.build_parcels)


def test_the_code_that_keeps_voxels_is_in_the_key_of_what_is_kept(tmp_path, monkeypatch):
    keys = []

    class Watched(Store):
        def get(self, name, build, inputs):
            path = super().get(name, build, inputs)
            keys.append(json.loads((path / 'manifest.json').read_text())['inputs']['code'])
            return path

    store = Watched(tmp_path)
    study = open_experiment('tiny', out=tmp_path / 'runs').study
    study.store = store
    controls.AwayStudy(study)
    assert keys[-1] == code_hash(partial(controls.keep_voxels, study.series, None))


@pytest.mark.parametrize('name', ['Blocks.__init__', 'first_volume', 'Windows.batch'])
def test_how_blocks_are_cut_decides_stage1(copy, name):
    spoil(copy, 'data.blocks', name)
    assert changed(copy, stage1.build_stage1)


def test_what_a_build_does_not_use_changes_nothing(copy):
    edit(copy, 'optim', lambda text: text + '\n\ndef another(x):\n    return x\n')
    edit(copy, 'presets', lambda text: text + "\n\nPRESETS['new'] = Preset('new')\n")
    spoil(copy, 'data.blocks', 'plot_block')
    assert not changed(copy, *BUILDS)


def test_layout_and_words_change_nothing(copy):
    for file in copy.rglob('*.py'):
        file.write_text('# a comment\n' + ast.unparse(ast.parse(file.read_text())))
    edit(copy, 'optim', lambda text: text.replace('One step down', 'Downhill'))
    assert not changed(copy, *BUILDS)


def test_a_function_that_moves_keeps_the_key(copy):
    tree = ast.parse((copy / 'optim.py').read_text())
    moved = next(n for n in tree.body if getattr(n, 'name', None) == 'cosine_lr')
    tree.body[tree.body.index(moved)] = ast.parse('from .losses import cosine_lr').body[0]
    edit(copy, 'optim', lambda text: ast.unparse(tree))
    edit(copy, 'losses', lambda text: f'{text}\n\nimport math\n\n{ast.unparse(moved)}\n')
    assert not changed(copy, teacher.build_small)
    assert ('losses', 'cosine_lr') in code_parts(teacher.build_small, package=Package(copy))


def test_a_room_that_becomes_a_folder_is_read_whole(copy):
    (copy / 'optim').mkdir()
    (copy / 'optim.py').rename(copy / 'optim/steps.py')
    (copy / 'optim/__init__.py').write_text('from .steps import *\n')
    text = (copy / 'optim/steps.py').read_text().replace('from .', 'from ..')
    (copy / 'optim/steps.py').write_text(text)
    assert not changed(copy, teacher.build_small)
    spoil(copy, 'optim.steps', 'descend')
    assert changed(copy, teacher.build_small)


def test_keys_are_the_same_in_another_process():
    code = 'from brainllm.code import code_hash; from brainllm.optim import adamw; print(code_hash(adamw))'
    hashes = set()
    for seed in ('1', '2'):
        env = os.environ | {'PYTHONHASHSEED': seed}
        hashes.add(subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True).stdout.strip())
    assert len(hashes) == 1 and re.fullmatch(r'[0-9a-f]{12}', hashes.pop())
