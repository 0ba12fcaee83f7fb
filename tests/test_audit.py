"What a run says of itself: an audit of its records alone, of a run as it should be and of runs that leak."

import json, os, shutil, signal
import pytest
from brainllm import optim
from brainllm.cli import main
from brainllm.core import DataError, project_root, write_json
from brainllm.data.trials import unseal
from brainllm.evaluate.ablation import measure
from brainllm.evaluate.audit import audit_run, audit_variations, say_verdict
from brainllm.evaluate.pipeline import reproduce
from brainllm.stages import study as room
from brainllm.stages.experiment import open_experiment
from brainllm.store import touch

PEOPLE = ['01', '02'], ['03', '04']  # training, targets


@pytest.fixture(scope='module')
def run(tmp_path_factory):  # a folder of runs with one that is finished and nothing else
    reproduce('tiny')  # where the pages have made it, it is there
    kept = project_root() / '_runs'
    out = tmp_path_factory.mktemp('runs')
    names = {row[0] for row in audit_run('tiny').table.rows}
    for name in names:
        place = 'parts' if (kept / 'parts' / name).is_dir() else 'tiny/artifacts'
        shutil.copytree(kept / place / name, out / place / name)
    shutil.copy(kept / 'tiny/result.json', out / 'tiny/result.json')
    return out


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / 'runs')


def artifact(out, name):
    return next((out / 'tiny/artifacts').glob(f'{name}-*'))


def called(out):  # -> exit code
    with pytest.raises(SystemExit) as end: main(['audit', '--preset', 'tiny', '--out', str(out)])
    return end.value.code or 0


def record(out, name):
    return json.loads((artifact(out, name) / 'manifest.json').read_text())['touched']


def test_a_run_as_it_should_be(run, capsys):
    assert called(run) == 0
    assert 'Nothing leaked' in capsys.readouterr().out
    trials = open_experiment('tiny', out=run).study.split
    first, last = record(run, 'stage1'), record(run, 'evaluation')
    assert sorted(first['labelled']) == PEOPLE[0] and sorted(first['sealed']) == sorted(last['sealed']) == PEOPLE[1]
    assert sum(map(len, first['labelled'].values())) == len(trials.train)
    assert sum(map(len, first['sealed'].values())) == len(trials.adapt)
    assert sum(map(len, last['sealed'].values())) == len(trials.test)
    assert sorted(record(run, 'pretrained')['windows']) == PEOPLE[0]
    assert set(record(run, 'teacher')['answers']) == {t.clip for t in trials.train}
    assert set(record(run, 'stage2')['classes']) == {t.classname for t in trials.train}
    assert sum(map(len, last['unsealed'].values())) == len(trials.adapt) + len(trials.test)


def let_in(monkeypatch, which):  # one trial of a target among the labelled ones -> that Trial
    real, found = room.split_subjects, []

    def leaky(trials, *how):
        split = real(trials, *how)
        found.append(unseal(getattr(split, which)[0], trials))
        split.train.append(found[0])
        return split

    monkeypatch.setattr(room, 'split_subjects', leaky)
    return found


def again(out, *names):  # artifacts that are made anew
    for name in names: shutil.rmtree(artifact(out, name))
    return open_experiment('tiny', out=out)


@pytest.mark.parametrize('which', ['adapt', 'test'])
def test_one_trial_of_a_target_is_named(copy, monkeypatch, capsys, which):
    with monkeypatch.context() as patch:
        found = let_in(patch, which)
        experiment = again(copy, 'stage1', 'teacher')
        assert experiment.stage1.folder.is_dir() and experiment.answers.is_dir()
    assert called(copy) == 1
    said = capsys.readouterr().out
    trial, first = found[0], artifact(copy, 'stage1').name
    assert f'WRONG {first}: touched the labelled trial {trial.subject} run {trial.run}, {trial.onset} s' in said
    assert f'of target {trial.subject} (film {trial.clip}) in the role of training labels' in said
    assert f"WRONG {artifact(copy, 'teacher').name}: touched a teacher's answer about {trial.clip}" in said
    assert 'WRONG video' not in said and 'WRONG stage2' not in said and 'Nothing leaked' not in said


def test_an_evaluated_trial_without_its_label_is_named_too(copy, monkeypatch):
    with monkeypatch.context() as patch:
        real = room.split_subjects

        def leaky(*how):
            split = real(*how)
            split.adapt.append(split.test[0])
            return split

        patch.setattr(room, 'split_subjects', leaky)
        assert again(copy, 'stage1').stage1
    [said] = audit_run('tiny', out=copy).wrong
    assert said.startswith('stage1') and 'the volumes of 03 run 2' in said and said.endswith('unlabelled adaptation')


def test_runs_of_a_target_in_pretraining_are_named(copy, monkeypatch):
    from brainllm.stages import pretrained

    with monkeypatch.context() as patch:
        real = pretrained.rest_windows
        patch.setattr(pretrained, 'rest_windows', lambda store, frames, subjects: real(store, frames, task='action'))
        assert again(copy, 'pretrained').pretrained
    said = audit_run('tiny', out=copy).wrong
    touched = record(copy, 'pretrained')['windows']
    assert len(said) == sum(len(touched.get(person, [])) for person in PEOPLE[1]) > 0
    assert all(s.startswith('pretrained') and 'of target 0' in s and s.endswith('role of pretraining') for s in said)


def without_record(folder):
    made = json.loads((folder / 'manifest.json').read_text())
    del made['touched']
    write_json(folder / 'manifest.json', made)


def without_form(folder):
    made = json.loads((folder / 'manifest.json').read_text())
    write_json(folder / 'manifest.json', made | dict(touched=dict(labelled=['01'])))


LOST = dict(
    folder=shutil.rmtree,
    manifest=lambda d: (d / 'manifest.json').unlink(),
    record=without_record,
    form=without_form,
)


@pytest.mark.parametrize('what', LOST)
@pytest.mark.parametrize('name', ['stage1', 'series', 'teacher'])
def test_a_removed_record_is_named(copy, what, name, capsys):
    folder = artifact(copy, name)
    LOST[what](folder)
    assert called(copy) == 1
    said = capsys.readouterr().out
    assert f'WRONG {folder.name}: found no record of what it touched' in said and 'Nothing leaked' not in said


def test_an_evaluation_without_its_record_proves_nothing(copy):
    without_record(artifact(copy, 'evaluation'))
    assert 'WRONG evaluation' in say_verdict(audit_run('tiny', out=copy))
    with pytest.raises(DataError, match='seed 7.*reproduce --preset tiny --seed 7'):
        audit_run('tiny', 7, copy)


def test_the_audit_touches_nothing(copy):
    before = {p: p.stat().st_mtime_ns for p in copy.rglob('*')}
    audit_run('tiny', out=copy)
    assert before == {p: p.stat().st_mtime_ns for p in copy.rglob('*')}


def stop_in_training(monkeypatch, meanwhile=lambda: None):  # at the third step; meanwhile: done at the first
    real, steps = optim.descend, []

    def descend(*how):
        steps.append(1)
        if len(steps) == 1: meanwhile()
        if len(steps) == 3: os.kill(os.getpid(), signal.SIGINT)
        return real(*how)

    monkeypatch.setattr(optim, 'descend', descend)


def test_a_training_that_was_stopped_says_all_that_it_touched(copy, monkeypatch, capsys):
    whole, weights = record(copy, 'stage1'), (artifact(copy, 'stage1') / 'model.safetensors').read_bytes()
    with monkeypatch.context() as patch:
        stop_in_training(patch)
        with pytest.raises(KeyboardInterrupt): again(copy, 'stage1').stage1
    assert list((copy / 'tiny/artifacts').glob('.stage1-*.unfinished/*.checkpoint')), 'the stop came inside of the training'
    assert open_experiment('tiny', out=copy).stage1
    assert record(copy, 'stage1') == whole and called(copy) == 0
    assert (artifact(copy, 'stage1') / 'model.safetensors').read_bytes() == weights


def test_what_leaked_before_a_stop_is_not_forgotten(copy, monkeypatch, capsys):
    item = next(iter(record(copy, 'evaluation')['sealed']['03']))
    with monkeypatch.context() as patch:
        stop_in_training(patch, lambda: touch('labelled', '03', item))
        with pytest.raises(KeyboardInterrupt): again(copy, 'stage1').stage1
    assert open_experiment('tiny', out=copy).stage1
    assert called(copy) == 1
    assert f'touched the labelled trial {item} of target 03' in capsys.readouterr().out


def test_every_measured_variation_is_audited(copy, monkeypatch, capsys):
    assert not audit_variations('tiny', copy).table.rows
    measured = measure(open_experiment('tiny', out=copy))
    [(name, learned, people, trials)] = audit_variations('tiny', copy).table.rows
    assert name == measured.name and 'stage1-' in learned and 'evaluation' not in learned and people == '03, 04'
    assert trials == sum(map(len, record(copy, 'evaluation')['sealed'].values())) and called(copy) == 0
    assert name in capsys.readouterr().out
    made = json.loads((artifact(copy, 'stage1') / 'manifest.json').read_text())
    made['touched']['labelled']['04'] = ['04 run 1, 8.0 s']
    write_json(artifact(copy, 'stage1') / 'manifest.json', made)
    assert [s for s in audit_variations('tiny', copy).wrong if '04 run 1, 8.0 s of target 04' in s and s.startswith('stage1')]
    shutil.rmtree(artifact(copy, 'evaluation'))
    assert len(audit_variations('tiny', copy).wrong) >= 1, 'a variation needs no evaluation beside it'
