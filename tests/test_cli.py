"The command line: every command answers for itself, errors are one line, and the older lines still work."

import json, os, pty, shutil, subprocess, sys
from contextlib import suppress
from functools import partial
from pathlib import Path
import pytest
import brainllm
from brainllm.cli import app, main
from brainllm.core import read_jsonl, write_jsonl
from brainllm.parts import part_packages
from brainllm.presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent
STUDY = 'root source subjects targets task space derivatives columns skip weights answers device set'
OPTIONS = {
    'reproduce': f'preset seed out processes {STUDY}',
    'table': 'preset out kept',
    'against': 'row other-row reference',
    'controls': f'preset seed out names {STUDY}',
    'confidence': f'preset seed out {STUDY}',
    'audit': 'preset seed out',
    'decode': 'events confounds ask tr out',
    'save': f'licence preset seed out {STUDY}',
    'ablation': f'preset seeds out names {STUDY}',
    'real': 'seed out root together starts parts processes set',
    'bench': 'preset out',
    'fetch': 'kind what subjects',
    'check': 'kind deep source json task space derivatives columns',
    'answer': 'clips questions out teacher set',
    'info': '',
    'doctor': 'out',
    'parts': 'names dry-run',
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


def kept_tables():  # what commands print of the results that are kept in data/, by where each comes from
    from brainllm.evaluate import ablation_table, compare_table, full_table, human_table, pair_table, table
    from brainllm.evaluate.confidence import coverage_table
    from brainllm.evaluate.words import word_score_table
    from brainllm.haxby import haxby_table, starts_table
    from brainllm.sherlock import film_score_table, film_table, question_table

    of_run = {f'{of} {ref}': partial(of_table, reference=ref)
              for of, of_table in dict(table=table, full=full_table).items() for ref in ('teacher', 'caption')}
    made = {
        'results/sim-*': of_run | dict(words=word_score_table),
        'results/sherlock-film*': dict(film=film_table, scores=film_score_table, questions=question_table),
        'compare/*': dict(compare=compare_table, pair=pair_table, words=word_score_table),
        'ablation/*': dict(ablation=ablation_table),
        'results/haxby': dict(folds=haxby_table),
        'results/haxby-weighed': dict(folds=haxby_table),
        'results/haxby-starts': dict(starts=starts_table),
        'results/human-captions': dict(human=human_table),
    }
    for pattern, tables in made.items():
        for file in sorted((ROOT / 'data').glob(f'{pattern}.json')):
            own = dict(sure=coverage_table) if file.stem.endswith('-confidence') else tables
            found = json.loads(file.read_text())
            for name, of_table in own.items():
                if file.stem == 'sherlock-film-first' and name == 'scores': continue  # kept without words
                yield f'{file.stem}: {name}', of_table(found)


def test_every_table_of_a_kept_result_fits_a_terminal_of_100_columns():
    tables = dict(kept_tables())
    assert len(tables) > 30 and any(len(str(table).splitlines()[-1]) > 200 for table in tables.values())
    for where, table in tables.items():
        said = table.fitted(100)
        assert max(map(len, said.splitlines())) <= 100, f'{where} is too wide\n{said}'
        shown = {word.strip(',.') for word in said.split()}
        lost = [name for name in table.header if not {word.strip(',.') for word in name.split()} <= shown]
        assert not lost, f'{where} loses {lost}\n{said}'


def test_a_command_prints_a_table_as_wide_as_the_terminal(tmp_path):
    (tmp_path / 'sim-had').mkdir()
    shutil.copy(ROOT / 'data/results/sim-had.json', tmp_path / 'sim-had/result.json')
    shutil.copy(ROOT / 'data/texts/sim-had.jsonl', tmp_path / 'sim-had/texts.jsonl')
    words = [sys.executable, '-m', 'brainllm', 'table', '--out', str(tmp_path)]
    whole = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    ours, theirs = pty.openpty()
    run = subprocess.Popen(words, cwd=ROOT, stdout=theirs, env=os.environ | dict(COLUMNS='100'))
    os.close(theirs)
    said = b''
    with suppress(OSError):  # the end of a terminal
        while more := os.read(ours, 65536): said += more
    assert run.wait() == 0
    lines = said.decode().splitlines()
    assert max(map(len, lines)) <= 100 < max(map(len, whole.splitlines())) and any('Folded away' in x for x in lines)
    assert 'Folded away' not in whole


WRONG = {
    'a preset': ['reproduce', '--preset', 'no-such-preset'],
    'a run': ['table', '--preset', 'no-such-run'],
    'seeds': ['ablation', '--seeds', '0;1'],
    'seeds of parts': ['real', '--parts', 'all'],
    'subjects': ['fetch', 'nowhere', '--subjects', '1-99'],
    'a study': ['check', 'no-such-folder'],
    'films': ['answer', '--clips', 'no-such-folder', '--questions', 'q.txt', '--out', 'a.jsonl'],
    'a bench': ['bench', 'no-such-bench'],
    'an audit': ['audit', '--preset', 'no-such-run'],
    'a control': ['controls', '--preset', 'no-such-preset'],
    'a setting': ['reproduce', '--preset', 'tiny', '--set', 'stage1.epoch=1'],
    'a setting of the film': ['real', 'film', '--set', 'brain.adaptor=cubic'],
    'two runs': ['against', 'no-such-run', 'no-such-run'],
    'a part': ['parts', '--names', 'no-such-package'],
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


def noted(calls, gives=None):  # a function that notes what it is called with
    def note(*args, **kw):
        calls.append((args, kw))
        return gives

    return note


def test_reproduce_hands_every_option_on(monkeypatch):
    from brainllm.evaluate import pipeline

    made, printed = [], []
    monkeypatch.setattr(pipeline, 'reproduce', noted(made))
    monkeypatch.setattr(pipeline, 'print_tables', noted(printed))
    study = dict(root='r', source='beta', subjects='01,02', targets='02', weights='w', answers='a', device='cuda')
    study |= dict(task='scan', space='T1w', derivatives='prep', columns='stim_file=stimID', skip='runs')
    words = [word for name, value in study.items() for word in (f'--{name}', value)]
    settings = ['stage1.epochs=1', 'video.llm_steps=4']
    words += [word for setting in settings for word in ('--set', setting)]
    assert called(['reproduce', '--preset', 'had', '--seed', '3', '--out', 'o', *words]) == 0
    assert made == [(('had', 3, 'o'), study | dict(set=settings))] and printed == [((['--preset', 'had', '--out', 'o'],), {})]


def test_ablation_and_controls_hand_every_option_on(monkeypatch, capsys):
    from brainllm.evaluate import ablation, comparison, words as right_words

    made = []
    monkeypatch.setattr(ablation, 'ablate', noted(made, 'changed'))
    monkeypatch.setattr(ablation, 'ablation_table', lambda result: f'table of {result}')
    monkeypatch.setattr(comparison, 'compare', noted(made, ('compared', 'ours')))
    monkeypatch.setattr(comparison, 'compare_table', lambda result: f'table of {result}')
    monkeypatch.setattr(comparison, 'pair_table', lambda result: f'pairs of {result}')
    monkeypatch.setattr(right_words, 'word_score_table', lambda result: f'words of {result}')
    words = ['--preset', 'tiny', '--out', 'o', '--names', 'as it is, none', '--root', 'r', '--set', 'stage1.epochs=1']
    where = dict(root='r', set=['stage1.epochs=1'])
    assert called(['ablation', '--seeds', '1,2', *words]) == called(['controls', '--seed', '4', *words]) == 0
    names = ['as it is', 'none']
    assert made == [(('tiny', [1, 2], 'o', names), dict(where=where)), (('tiny', 4, 'o', names), where)]
    printed = ['table of changed', 'table of compared', 'pairs of compared', 'words of compared', 'ours', '']
    assert capsys.readouterr().out.split('\n') == printed


def test_real_chooses_what_is_run(monkeypatch, capsys):
    from brainllm import haxby
    from brainllm.evaluate import ablation

    made = []
    for name in ('decode_folds', 'starts', 'fold_parts'): monkeypatch.setattr(haxby, name, noted(made, [name]))
    for name in ('haxby_table', 'starts_table'): monkeypatch.setattr(haxby, name, str)
    monkeypatch.setattr(ablation, 'ablation_table', str)
    assert called(['real', '--seed', '5', '--out', 'o']) == called(['real', '--starts', '--out', 'o']) == 0
    assert called(['real', '--parts', '0,1', '--out', 'o']) == 0
    assert made == [((PRESETS['haxby'], 5, 'o'), {}), ((), dict(out='o')), (([0, 1], 'o'), {})]
    assert capsys.readouterr().out.split('\n')[:3] == ['decode_folds', "['starts']", "['fold_parts']"]


def test_fetch_hands_every_option_on(monkeypatch):
    from brainllm.datasets import fetch

    made = []
    monkeypatch.setattr(fetch, 'fetch_had', noted(made))
    assert called(['fetch', 'root', '--what', 'betas,stimuli', '--subjects', '1-2']) == 0
    assert made == [((['betas', 'stimuli'], ['01', '02'], 'root'), {})]


def test_check_says_what_is_wrong_and_keeps_it(tmp_path, capsys):
    study, kept = tmp_path / 'study', tmp_path / 'found.json'
    for subject in ('01', '02'):
        (study / f'sub-{subject}' / 'func').mkdir(parents=True)
        events = study / f'sub-{subject}' / 'func' / f'sub-{subject}_task-action_run-1_events.tsv'
        events.write_text('onset\tduration\ttrial_type\tstim_file\n2.0\t3.0\twalk\ta.mp4\n')
    assert called(['check', str(study)]) == 1, 'neither volumes nor films'
    out = capsys.readouterr().out
    assert "found nobody's volumes" in out and 'found no folder, wanted the 1 films' in out
    (study / 'stimuli').mkdir()
    assert called(['check', str(study), '--kind', 'urgen', '--deep', '--json', str(kept)]) == 1
    assert 'a.mp4' in capsys.readouterr().out and 'a.mp4' in kept.read_text()


TEACHER = """class Echo:
    n_frames, size = 0, None

    def __init__(self, word):
        self.word, self.provenance = word, dict(name='echo', word=word)

    def answer(self, frames, fps, questions, clip='', index=None): return [f'{self.word} {q}' for q in questions]
"""


def test_answer_asks_a_teacher_once(tmp_path, capsys, monkeypatch):
    (tmp_path / 'films').mkdir()
    (tmp_path / 'films' / 'a.mp4').write_bytes(b'a film')
    (tmp_path / 'questions.txt').write_text('What is it?\nWhere is it?\n')
    (tmp_path / 'lab_teacher.py').write_text(TEACHER)
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / 'answers.jsonl'
    words = ['--clips', str(tmp_path / 'films'), '--questions', str(tmp_path / 'questions.txt'), '--out', str(out)]
    words = ['answer', *words, '--teacher', 'lab_teacher:Echo', '--set', 'word=yes']
    assert called(words) == 0 and f'{out}: 2 answers written now, 1 clips' in capsys.readouterr().out
    assert {'yes What is it?', 'yes Where is it?'} <= {row.get('answer') for row in read_jsonl(out)}
    assert called(words) == 0 and ': 0 answers written now' in capsys.readouterr().out
    assert called([*words[:-1], 'word']) == 2 and 'wanted name=value' in capsys.readouterr().err


def test_info_says_what_there_is(capsys):
    assert called(['info']) == 0
    out = capsys.readouterr().out
    assert out.startswith(f'brainllm {brainllm.__version__}, commit ') and 'threads' in out
    assert all(f'\n  {name} ' in out for name in PRESETS)
    pinned = [[package.name, package.version] for package in part_packages().values()]
    assert pinned and all(any(line.split() == part for line in out.splitlines()) for part in pinned)


@pytest.mark.parametrize('line', OLD)
def test_older_lines_still_work(line):
    room, *command = line.split()
    found = shell(f'brainllm.{room}', *command, '--help')
    assert found.returncode == 0 and found.stdout.startswith(f'usage: python -m brainllm.{room}'), found.stderr
    assert all(option in found.stdout for option in OLD[line].split())


ROOTS = ["/data/O'Brien", '/data/a b', '/data/"x"', '/data/$HOME', '/data/$(touch hacked)', '/x;touch hacked', '*']


@pytest.mark.parametrize('root', ROOTS)
def test_make_hands_on_what_was_typed(root, tmp_path):
    shutil.copy(ROOT / 'Makefile', tmp_path)
    books = [f'nbs/{name}.ipynb' for name in ('04_stage1', '05_stage2', '06_evaluate', '07_results')]
    needs = ['constraints.txt', 'parts.txt', 'settings.ini', 'setup.py', 'tools/environment.sh', 'brainllm/a.py', *books]
    for name in needs:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('')
    tools = dict(papermill='printf "[%s]" "$@" >> called; echo >> called; touch "$2"', python='true')
    (tmp_path / '.venv' / 'bin').mkdir(parents=True)
    for name, does in tools.items():
        (tmp_path / '.venv' / 'bin' / name).write_text(f'#!/bin/bash\n{does}\n')
        (tmp_path / '.venv' / 'bin' / name).chmod(0o755)
    (tmp_path / '.venv' / '.whole').write_text(str(tmp_path))
    typed = ['make', 'reproduce', 'PRESET=had-small', f'ROOT={root}']
    typed += ['COLUMNS=stim_file=stimID', 'SKIP=runs']
    shell_has = os.environ | dict(COLUMNS='80', SPACE='no')  # what other tools call so is none of ours
    make = subprocess.run(typed, cwd=tmp_path, capture_output=True, text=True, env=shell_has)
    called = (tmp_path / 'called').read_text().splitlines()
    assert make.returncode == 0 and make.stdout.count('kept as') == len(called) == 4, make.stderr
    assert all(f'[-r][root][{root}]' in line for line in called) and not (tmp_path / 'hacked').exists()
    assert all('[-r][columns][stim_file=stimID][-r][skip][runs]' in line and '[space]' not in line for line in called)


def test_make_hands_its_settings_on():
    lines = (ROOT / 'Makefile').read_text()
    preset, seed = '--preset "$$GIVEN_PRESET"', '--seed "$$GIVEN_SEED"'
    for command in (f'table {preset}', f'controls {preset} {seed}', f'real {seed}'):
        assert f'-m brainllm {command}' in lines
    assert "find brainllm -name '*.py'" in lines, 'the key of a run covers every room'
