"What a run says of itself: an audit of its records alone, of a run as it should be and of runs that leak."

import json, os, shutil, signal
from dataclasses import replace
import pytest
from brainllm import haxby, optim
from brainllm.cli import main
from brainllm.core import DataError, project_root, write_json
from brainllm.data.trials import unseal
from brainllm.evaluate.ablation import measure
from brainllm.evaluate.audit import audit_folds, audit_run, audit_variations, say_verdict
from brainllm.evaluate.pipeline import reproduce
from brainllm.presets import get_preset
from brainllm.sherlock import decode, scores
from brainllm.stages import study as room
from brainllm.stages.experiment import open_experiment
from brainllm.store import file_hash, PART_RECORDS, read_manifest, touch
from test_haxby import SMALL
from test_sherlock import FILM, made, tiny

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


def called(out, preset='tiny'):  # -> exit code
    with pytest.raises(SystemExit) as end: main(['audit', '--preset', preset, '--out', str(out)])
    return end.value.code or 0


def record(out, name):
    return json.loads((artifact(out, name) / 'manifest.json').read_text())['touched']


def test_a_run_as_it_should_be(run, capsys):
    assert called(run) == 0
    assert 'Nothing leaked' in capsys.readouterr().out
    shown = audit_run('tiny', out=run).table.fitted(100).splitlines()
    assert len(shown) > 12 and max(map(len, shown)) <= 100
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


LEFT_OUT = 5  # run of the slice


def decode_slice(out):  # -> folder of one fold, decoded where it is not there; the result says that it was the whole
    experiment = haxby.open_haxby(get_preset('haxby', **SMALL), 0, out)
    start = experiment.pretrained[0].folder.name
    fold = haxby.load_fold(experiment, experiment.preset, start, LEFT_OUT)
    write_json(out / 'haxby/result.json', dict(seed=0, inputs={f'fold{LEFT_OUT:02d}': fold.name}))
    return fold


@pytest.fixture(scope='module')
def slice_run(tmp_path_factory):
    out = tmp_path_factory.mktemp('slice')
    decode_slice(out)
    return out


@pytest.fixture
def slice_copy(slice_run, tmp_path):
    return shutil.copytree(slice_run, tmp_path / 'slice')


def test_a_fold_of_the_slice_as_it_should_be(slice_run, capsys):
    assert called(slice_run, 'haxby') == 0
    said = capsys.readouterr().out
    assert 'Nothing leaked: of the run that is left out' in said and f'01 run {LEFT_OUT}' in said and 'reader-' in said
    parts = {p['role']: p for p in json.loads((decode_slice(slice_run) / PART_RECORDS).read_text())['parts']}
    first, last = (parts[role]['touched'] for role in ('training labels', 'evaluation'))
    assert len(first['labelled']['01']) == 11 * 72 and len(last['sealed']['01']) == 72 and 'sealed' not in first
    assert sum(map(len, first['classes'].values())) == 11 * 72 and len(first['runs']['01']) == 11


@pytest.mark.parametrize('kind', ['labelled', 'sealed'])
def test_a_trial_of_the_left_out_run_is_named(slice_copy, monkeypatch, capsys, kind):
    real = haxby.choose_window

    def leaky(experiment, train):  # it looks at one trial more
        study = experiment.study
        test = study.fold(LEFT_OUT).test[:1]
        if kind == 'labelled':
            test = unseal(test, haxby.volumes(study.trials, study.series.tr))
        study.windows(test, 0.0).voxels([0])
        return real(experiment, train)

    shutil.rmtree(decode_slice(slice_copy))
    with monkeypatch.context() as patch:
        patch.setattr(haxby, 'choose_window', leaky)
        fold = decode_slice(slice_copy)
    assert called(slice_copy, 'haxby') == 1
    said = capsys.readouterr().out
    what = dict(labelled='labelled volumes', sealed='volumes without labels')[kind]
    assert f'WRONG {fold.name}: touched {what} of 01 run {LEFT_OUT}, ' in said and 'Nothing leaked' not in said
    assert ('what sealed trials show of' in said) == (kind == 'labelled')
    assert f'volumes of object run {LEFT_OUT} of the run that is left out' in said


def change_parts(fold, change):  # change(parts) -> what is written instead, with the sum that fits
    parts = json.loads((fold / PART_RECORDS).read_text())['parts']
    write_json(fold / PART_RECORDS, dict(parts=change(parts)))
    made = json.loads((fold / 'manifest.json').read_text())
    made['files'][PART_RECORDS] = file_hash(fold / PART_RECORDS)
    write_json(fold / 'manifest.json', made)


LOST_PARTS = dict(
    fold=shutil.rmtree,
    record=lambda d: (d / PART_RECORDS).unlink(),
    bytes=lambda d: (d / PART_RECORDS).write_text((d / PART_RECORDS).read_text() + ' '),
    manifest=lambda d: (d / 'manifest.json').unlink(),
    training=lambda d: change_parts(d, lambda parts: [p for p in parts if p['role'] != 'training labels']),
    form=lambda d: change_parts(d, lambda parts: [p | dict(touched=['01']) for p in parts]),
    empty=lambda d: change_parts(d, lambda parts: []),
    number=lambda d: change_parts(d, lambda parts: [*parts, 5]),
    text=lambda d: change_parts(d, lambda parts: [*parts, 'all']),
)


@pytest.mark.parametrize('what', LOST_PARTS)
def test_a_lost_or_spoiled_record_of_a_fold_is_named(slice_copy, what, capsys):
    fold = decode_slice(slice_copy)
    LOST_PARTS[what](fold)
    assert called(slice_copy, 'haxby') == 1
    said = capsys.readouterr().out
    assert f'WRONG {fold.name}: found no record of what it touched' in said and 'Nothing leaked' not in said


def test_what_a_fold_stands_on_must_have_its_record_too(slice_copy):
    [reader] = (slice_copy / 'haxby/artifacts').glob('reader-*')
    without_record(reader)
    assert [s for s in audit_folds('haxby', 0, slice_copy).wrong if s.startswith(f'{reader.name}: found no record')]
    with pytest.raises(DataError, match='no folds of seed 7.*brainllm real pictures --seed 7'):
        audit_folds('haxby', 7, slice_copy)


def decode_films(root, out):  # -> folder of the fold in the middle
    preset = tiny()
    preset = replace(preset, data=replace(preset.data, window_start=0.0))
    preset = replace(preset, pretrain=replace(preset.pretrain, source='none'))
    scores.decode_film(preset, 0, out, root, FILM, shifts=9)
    return next((out / 'tiny/artifacts').glob('film-fold1-*'))


@pytest.fixture(scope='module')
def film_run(tmp_path_factory):
    root = tmp_path_factory.mktemp('film')
    kit = made['write_kit'](root / 'kit', people=3, lengths=(150, 160), signal=2.0, distinct=True)
    decode_films(kit, root / 'runs')
    return root


@pytest.fixture
def film_copy(film_run, tmp_path):
    return shutil.copytree(film_run, tmp_path / 'film')


def test_folds_of_film_as_they_should_be(film_run, capsys):
    assert called(film_run / 'runs') == 0
    said = capsys.readouterr().out
    assert 'Nothing leaked: nobody is decoded by' in said and said.count('film-fold') == FILM.folds
    fold = next((film_run / 'runs/tiny/artifacts').glob('film-fold1-*'))
    parts = json.loads((fold / PART_RECORDS).read_text())['parts']
    for person in ('01', '02', '03'):
        taught, tested = (
            next(p['touched'] for p in parts if (p['role'], p['of']) == (role, person))
            for role in ('training labels', 'evaluation')
        )
        assert sorted(taught['labelled']) == sorted({'01', '02', '03'} - {person})
        assert list(tested['sealed']) == [person]
    assert not [p for p in parts if 'texts' in p['touched'] and p['role'] == 'evaluation']


def with_the_target(real):  # in the place of another
    def people(study, split):
        return [study.subjects.index(split.targets[0]), *real(study, split)[1:]]

    return people


def with_held_out_words(real):
    def numbers(fold):
        return sorted({*real(fold), *fold.test[0].segments})

    return numbers


def without_gap(real):
    def fold(dataset, number, film):
        return real(dataset, number, replace(film, gap=film.gap - 4))

    return fold


FILM_LEAKS = dict(  # what is put in the place of a name of `sherlock.decode` -> what the audit says of it
    training_people=(with_the_target, 'who is left out, in the role of training labels for 02'),
    training_numbers=(with_held_out_words, 'touched the text '),
    film_fold=(without_gap, 'which is held-out film or nearer to it than the gap, in the role of training labels'),
    training_volumes=(lambda real: lambda d, fold, gap: real(d, fold, 0), 'in the role of unlabelled adaptation'),
)


@pytest.mark.parametrize('name', FILM_LEAKS)
def test_a_leak_into_a_fold_of_film_is_named(film_copy, monkeypatch, capsys, name):
    leak, wanted = FILM_LEAKS[name]
    out, before = film_copy / 'runs', audit_folds('tiny', 0, film_copy / 'runs')
    fold = next((out / 'tiny/artifacts').glob('film-fold1-*'))
    shutil.rmtree(fold)
    with monkeypatch.context() as patch:
        patch.setattr(decode, name, leak(getattr(decode, name)))
        assert decode_films(film_copy / 'kit', out) == fold
    assert not before.wrong and called(out) == 1
    wrong = [line for line in capsys.readouterr().out.splitlines() if line.startswith('WRONG')]
    assert any(wanted in line for line in wrong), wrong
    others = [n for n in ('film-fold0', 'film-fold2') if any(f'WRONG {n}' in line for line in wrong)]
    assert not others, 'the other folds are as they were'


def moved(parts, piece):  # the piece that is left out, elsewhere; '' for nowhere
    for part in parts:
        if 'held' in part['touched']: part['touched']['held'] = {'film': [piece]} if piece else {}
    return parts


def test_what_a_fold_of_film_decodes_lies_in_the_piece_that_it_leaves_out(film_copy):
    out = film_copy / 'runs'
    fold = next((out / 'tiny/artifacts').glob('film-fold1-*'))
    change_parts(fold, lambda parts: moved(parts, ''))
    wanted = f'{fold.name}: found 0 pieces of film that are left out, wanted one'
    assert wanted in audit_folds('tiny', 0, out).wrong
    change_parts(fold, lambda parts: moved(parts, 'film volumes 0 to 20'))
    assert [s for s in audit_folds('tiny', 0, out).wrong if 'for 02, wanted film that is left out' in s]


def test_the_scores_and_the_maps_of_film_must_have_their_records(film_copy):
    out = film_copy / 'runs'
    for together in (out / 'tiny/artifacts').glob('together-*'):
        shutil.rmtree(together)
    assert [s for s in audit_folds('tiny', 0, out).wrong if s.startswith('together-') and 'found no record' in s]
    [scored] = (out / 'tiny/artifacts').glob('film-scores-*')
    assert read_manifest(scored, 'touched')['touched']['texts']
    without_record(scored)
    wrong = audit_folds('tiny', 0, out).wrong
    assert [s for s in wrong if s.startswith(f'{scored.name}: found no record')]
    assert sum('found no description of what it holds out' in s for s in wrong) == FILM.folds


def test_a_variation_of_the_slice_leaves_out_one_run_after_the_other(slice_copy, capsys):
    experiment = haxby.open_haxby(get_preset('haxby', **SMALL), 0, slice_copy)
    measured = haxby.measure_tokens(experiment, left_out=(3, LEFT_OUT))
    assert called(slice_copy, 'haxby') == 0
    said = capsys.readouterr().out
    assert measured.name in said and f'01 run 3, 01 run {LEFT_OUT}' in said and 'Nothing leaked' in said
    (slice_copy / 'haxby/result.json').unlink()  # variations alone are audited too
    change_parts(measured, lambda parts: [p | dict(touched=parts[2]['touched']) if p == parts[0] else p for p in parts])
    assert called(slice_copy, 'haxby') == 1
    assert f'WRONG {measured.name}: touched labelled volumes of 01 run 3, ' in capsys.readouterr().out


def test_another_start_of_a_simulated_study_is_a_variation(tmp_path):
    haxby.start_row('tiny', get_preset('tiny').pretrain.source, 0, tmp_path)
    audit = audit_variations('tiny', tmp_path)
    [row] = audit.table.rows
    assert not audit.wrong and row[0].startswith('start-') and 'stage1-' in row[1]
