"What a run says of itself: an audit of its records alone, of a run as it should be and of runs that leak."

import json, shutil
import pytest
from brainllm.cli import main
from brainllm.core import DataError, project_root, write_json
from brainllm.data.trials import unseal
from brainllm.evaluate.audit import audit_run, say_verdict
from brainllm.evaluate.pipeline import reproduce
from brainllm.stages import study as room
from brainllm.stages.experiment import open_experiment

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
