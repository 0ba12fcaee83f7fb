"The command line: every command answers for itself, errors are one line, and the older lines still work."

import json, shutil, subprocess, sys
from pathlib import Path
import pytest
import brainllm
from brainllm.cli import app, main
from brainllm.core import write_jsonl
from brainllm.presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = {
    'reproduce': 'preset seed out root source subjects targets weights answers device',
    'table': 'preset out',
    'controls': 'preset seed out names',
    'ablation': 'preset seeds out names',
    'real': 'seed out starts parts',
    'fetch': 'what subjects',
    'check': 'kind deep source json',
    'answer': 'clips questions out teacher set',
    'info': '',
}
OLD = {
    'evaluate': '--preset --out',
    'ablation': '--preset --seeds --out --names',
    'compare': '--preset --seed --out --names',
    'datasets had': '--what --subjects root',
    'datasets check': 'root --kind --deep --source --json',
    'haxby': '--seed --out --starts --parts',
    'video answer': '--clips --questions --out --teacher --set',
}


def called(argv):  # -> exit code
    with pytest.raises(SystemExit) as end: main(argv)
    return end.value.code or 0


def shell(*words):
    return subprocess.run([sys.executable, '-m', *words], cwd=ROOT, capture_output=True, text=True)


def test_every_command_is_tested_here():
    assert [command.name for command in app.registered_commands] == list(OPTIONS)


@pytest.mark.parametrize('command', OPTIONS)
def test_help_names_every_option(command, capsys):
    assert called([command, '--help']) == 0
    words = capsys.readouterr().out.split()
    assert {w for w in words if w.startswith('--')} == {f'--{o}' for o in [*OPTIONS[command].split(), 'help']}
    if command in ('fetch', 'check'): assert 'ROOT' in words


def test_help_of_all_is_quick_and_lists_them():
    found = shell('brainllm', '--help')
    assert found.returncode == 0 and all(f'\n  {command} ' in found.stdout for command in OPTIONS)
    code = 'import sys\nfrom brainllm.cli import main\ntry: main(["--help"])\nexcept SystemExit: print(*sys.modules)'
    run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert not {'torch', 'numpy', 'pandas'} & set(run.stdout.splitlines()[-1].split())


WRONG = {
    'a preset': ['reproduce', '--preset', 'no-such-preset'],
    'a run': ['table', '--preset', 'no-such-run'],
    'seeds': ['ablation', '--seeds', '0;1'],
    'seeds of parts': ['real', '--parts', 'all'],
    'subjects': ['fetch', 'nowhere', '--subjects', '1-99'],
    'a study': ['check', 'no-such-folder'],
    'films': ['answer', '--clips', 'no-such-folder', '--questions', 'q.txt', '--out', 'a.jsonl'],
    'a control': ['controls', '--preset', 'no-such-preset'],
}


@pytest.mark.parametrize('what', WRONG)
def test_an_error_is_one_line_and_ends_with_2(what, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert called(WRONG[what]) == 2
    out, err = capsys.readouterr()
    assert err.startswith('brainllm: ') and err.count('\n') == 1 and not out
    assert not list(tmp_path.iterdir())


def test_a_mistyped_option_ends_with_2(capsys):
    assert called(['table', '--prest', 'tiny']) == 2 and 'No such option' in capsys.readouterr().err
    assert called(['check', 'root', '--kind', 'no-such-layout']) == 2


def test_other_exceptions_pass(monkeypatch):
    from brainllm.evaluate import pipeline

    def broken(argv): raise ZeroDivisionError('a fault of ours')

    monkeypatch.setattr(pipeline, 'print_tables', broken)
    with pytest.raises(ZeroDivisionError): main(['table'])


def test_table_prints_a_finished_run(tmp_path, capsys):
    (tmp_path / 'sim-had').mkdir()
    shutil.copy(ROOT / 'data' / 'results' / 'sim-had.json', tmp_path / 'sim-had' / 'result.json')
    result = json.loads((tmp_path / 'sim-had' / 'result.json').read_text())
    write_jsonl(tmp_path / 'sim-had' / 'texts.jsonl', [{}] * result['trials'])
    assert called(['table', '--out', str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert all(label in out for label in result['labels'].values())


def test_check_finds_what_is_wrong(tmp_path, capsys):
    (tmp_path / 'study' / 'sub-01').mkdir(parents=True)
    kept = tmp_path / 'found.json'
    assert called(['check', str(tmp_path / 'study'), '--kind', 'urgen', '--json', str(kept)]) in (1, 2)
    assert capsys.readouterr()


def test_info_says_what_there_is(capsys):
    assert called(['info']) == 0
    out = capsys.readouterr().out
    assert out.startswith(f'brainllm {brainllm.__version__}, commit ') and 'threads' in out
    assert all(f'\n  {name} ' in out for name in PRESETS)
    pinned = [line.split('==') for line in (ROOT / 'parts.txt').read_text().split()]
    assert all(any(line.split() == part for line in out.splitlines()) for part in pinned)


@pytest.mark.parametrize('line', OLD)
def test_older_lines_still_work(line):
    room, *command = line.split()
    found = shell(f'brainllm.{room}', *command, '--help')
    assert found.returncode == 0 and found.stdout.startswith(f'usage: python -m brainllm.{room}'), found.stderr
    assert all(option in found.stdout for option in OLD[line].split())


def test_make_hands_its_settings_on():
    lines = (ROOT / 'Makefile').read_text()
    for command in ('table --preset $(PRESET)', 'controls --preset $(PRESET) --seed $(SEED)', 'real --seed $(SEED)'):
        assert f'-m brainllm {command}' in lines
    assert "find brainllm -name '*.py'" in lines, 'the key of a run covers every room'
