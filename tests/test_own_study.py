"Studies as labs really name their files: each is read whole, or refused in a sentence that says what to type."

import json
from dataclasses import FrozenInstanceError
from pathlib import Path
import nibabel as nib, numpy as np, pytest
from brainllm.core import DataError, PresetError
from brainllm.presets import get_preset
from brainllm.datasets.films import DATASETS, open_study, Urgen
from brainllm.datasets.check import check_main
from brainllm.stages.experiment import open_experiment

MNI = 'MNI152NLin2009cAsym'
EVENTS = 'onset\tduration\ttrial_type\tstim_file\n2.0\t3.0\twalk\ta.mp4\n8.0\t3.0\twave\tb.mp4\n'


def write_run(root, name, events=EVENTS, prep='derivatives/fmriprep', spaces=(MNI,), rows=20, volumes=False):
    "One run under the BIDS name `name`: its events, and of each space the text, or the volumes too."
    subject, *parts = name.split('_')
    folder = Path(subject, *[part for part in parts if part.startswith('ses-')], 'func')
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / prep / folder).mkdir(parents=True, exist_ok=True)
    if events: (root / folder / f'{name}_events.tsv').write_text(events)
    (root / prep / folder / f'{name}_desc-confounds_timeseries.tsv').write_text('trans_x\n' + '0.0\n' * rows)
    for space in spaces:
        stem = root / prep / folder / f'{name}_space-{space}_desc-preproc_bold'
        Path(f'{stem}.json').write_text('{"RepetitionTime": 2.0}')
        if not volumes: continue
        series = np.random.default_rng(len(name)).integers(500, 1500, (5, 5, 5, rows)).astype(np.int16)
        image = nib.Nifti1Image(series, np.diag([3.0, 3, 3, 1]))
        image.header.set_zooms((3, 3, 3, 2))
        nib.save(image, f'{stem}.nii.gz')
        mask = nib.Nifti1Image(np.ones((5, 5, 5), np.uint8), np.diag([3.0, 3, 3, 1]))
        nib.save(mask, f'{stem}.nii.gz'.replace('preproc_bold', 'brain_mask'))
    return root


def write_films(root, *names, caption='A man walks.'):
    (root / 'stimuli').mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / 'stimuli' / name).parent.mkdir(parents=True, exist_ok=True)
        (root / 'stimuli' / name).write_bytes(name.encode() * 100)
    if not caption: return
    lines = [json.dumps(dict(clip=name, caption=caption)) + '\n' for name in names]
    (root / 'stimuli' / 'captions.jsonl').write_text(''.join(lines))


def several(root, *names, **how):
    for name in names: write_run(root, name, **how)
    return root


def clips(study): return [(t.subject, t.run, t.clip) for t in study.trials()]


def test_a_task_of_another_name(tmp_path):
    root = several(tmp_path, 'sub-01_task-scan_run-01', 'sub-02_task-scan_run-01')
    assert Urgen(root).task == 'scan' and len(clips(Urgen(root))) == 4, 'the only task there is'
    several(root, 'sub-01_task-flicker_run-01', 'sub-02_task-flicker_run-01')
    with pytest.raises(DataError, match='events of tasks flicker, scan.*--task flicker'): Urgen(root)
    assert len(Urgen(root, task='scan').runs('01')) == 1
    with pytest.raises(DataError, match='no events of task .walk.*some of flicker, scan.*--task NAME'):
        Urgen(root, task='walk').trials()
    both = Urgen(root, task='scan,flicker')
    assert [run.run for run in both.runs('02')] == [1, 2] and len(both.trials()) == 8
    assert [t.run for t in both.trials() if t.subject == '01'] == [1, 1, 2, 2]


def test_runs_told_apart_by_direction_and_acquisition(tmp_path):
    parts = ('dir-AP', 'dir-PA', 'acq-mb_dir-AP')
    names = [f'sub-{s}_ses-3_task-film_{part}' for s in ('01', '02') for part in parts]
    study = Urgen(several(tmp_path, *names))
    assert [run.run for run in study.runs('01')] == [1, 2, 3] and len(study.trials()) == 12
    assert ['acq-mb' in run.bold.name for run in study.runs('01')] == [False, False, True]
    shared = several(tmp_path / 'shared', *names[:2], events='')
    (shared / 'sub-01' / 'sub-01_task-film_events.tsv').write_text(EVENTS)
    assert [t.run for t in Urgen(shared).trials()] == [1, 1, 2, 2], 'events that say less are of both'
    twice = several(tmp_path / 'twice', 'sub-01_task-film_dir-AP_run-1', 'sub-01_task-film_dir-AP_run-01')
    with pytest.raises(DataError, match='a second time'): Urgen(twice).trials()


def test_derivatives_in_another_folder(tmp_path):
    root = write_run(tmp_path / 'study', 'sub-01_task-film_run-1', prep='derivatives/lab/fmriprep')
    assert Urgen(root).runs('01') == []
    assert len(Urgen(root, derivatives='derivatives/lab/fmriprep').runs('01')) == 1
    away = write_run(tmp_path / 'other', 'sub-01_task-film_run-1', prep=str(tmp_path / 'prep'))
    assert len(Urgen(away, derivatives=str(tmp_path / 'prep')).runs('01')) == 1
    with pytest.raises(DataError, match='derivatives: found no folder .*--derivatives'): Urgen(root, derivatives='prep')


def test_unpadded_names(tmp_path):
    root = several(tmp_path, *[f'sub-{s}_task-action_run-{r}' for s in (1, 2, 10) for r in (1, 2, 10)])
    study = Urgen(root)
    assert study.subjects == ['1', '10', '2'] and [run.run for run in study.runs('10')] == [1, 2, 3]
    assert study.runs('10')[2].bold.name.startswith('sub-10_task-action_run-10_')
    for path in root.glob('sub-1/func/*run-1_*'): path.rename(path.with_name(path.name.replace('run-1_', 'run-01_')))
    assert Urgen(root).runs('1') == study.runs('1'), 'events padded, volumes not'


def test_columns_of_other_names(tmp_path):
    table = 'onset\tlength\tstimID\tkind\n2.0\t3.0\t7\twalk\n8.0\t3.0\t0\trest\n12.0\t3.0\t012\twave\n'
    root = write_run(tmp_path, 'sub-01_task-film_run-1', table)
    with pytest.raises(DataError, match="column 'duration' is missing.*--columns duration=NAME"): Urgen(root).trials()
    columns = 'stim_file=stimID,duration=length,trial_type=kind'
    assert [t.clip for t in Urgen(root, columns=columns).trials()] == ['7', '012']
    write_films(root, '0007.mp4', 'x/12.avi', '12.webm')
    assert [(t.clip, t.classname) for t in Urgen(root, columns=columns).trials()] == [('0007.mp4', 'walk'), ('12.webm', 'wave')]
    write_films(root, '00012.mp4')
    with pytest.raises(DataError, match="row 3.*'012', which may be 00012.mp4 or 12.webm"): Urgen(root, columns=columns).trials()
    with pytest.raises(PresetError, match="columns: found 'film=stimID'"): Urgen(root, columns='film=stimID')
    paths = EVENTS.replace('stim_file', 'file_path').replace('a.mp4', 'stimuli/a.mp4')
    below = write_run(tmp_path / 'below', 'sub-01_task-film_run-1', paths)
    assert [t.clip for t in Urgen(below, columns='stim_file=file_path').trials()] == ['a.mp4', 'b.mp4']


def test_no_class_where_there_are_captions(tmp_path):
    table = 'onset\tduration\tstim_file\n2.0\t3.0\ta.mp4\n8.0\t3.0\tb.mp4\n'
    root = write_run(tmp_path, 'sub-01_task-film_run-1', table)
    with pytest.raises(DataError, match="'trial_type' is missing.*--columns trial_type= where stimuli/captions.jsonl"):
        Urgen(root).trials()
    write_films(root, 'a.mp4', 'b.mp4')
    assert [t.classname for t in Urgen(root).trials()] == ['a.mp4', 'b.mp4']
    numbers = write_run(tmp_path / 'numbers', 'sub-01_task-film_run-1', EVENTS.replace('walk', '2').replace('wave', '2'))
    write_films(numbers, 'a.mp4', 'b.mp4')
    assert [t.label for t in Urgen(numbers).trials()] == [1, 1]
    assert [t.label for t in Urgen(numbers, columns='trial_type=').trials()] == [1, 2]


def test_a_phantom_is_no_person_and_who_is_not_chosen_is_not_read(tmp_path):
    root = several(tmp_path, *[f'sub-{s}_task-action_run-1' for s in ('01', '02', '03')])
    for name in ('sub-phantom', 'sub-emptyroom01'): (root / name / 'func').mkdir(parents=True)
    assert Urgen(root).subjects == ['01', '02', '03'] and len(Urgen(root).trials()) == 6
    (root / 'sub-02/func/sub-02_task-action_run-1_events.tsv').write_text('broken')
    with pytest.raises(DataError, match='sub-02'): Urgen(root).trials()
    assert len(Urgen(root, subjects=('01', '03')).trials()) == 4
    with pytest.raises(DataError, match='subjects: found 3, wanted some of 01, 02, 03'): Urgen(root, subjects=('3',))


def test_a_broken_run_costs_what_was_asked(tmp_path):
    root = several(tmp_path, *[f'sub-0{s}_task-action_run-{r}' for s in (1, 2, 3) for r in (1, 2)], volumes=True)
    write_films(root, 'a.mp4', 'b.mp4')
    (root / 'sub-02/func/sub-02_task-action_run-1_events.tsv').write_text('broken')
    cut = next((root / 'derivatives/fmriprep/sub-03/func').glob('*run-2*preproc_bold.nii.gz'))
    cut.write_bytes(cut.read_bytes()[:-40])

    def kept(skip):
        study = open_experiment('urgen-small', out=tmp_path / 'runs', root=root, skip=skip, targets='01').study
        return sorted({(t.subject, t.run) for t in study.trials}), study

    with pytest.raises(DataError, match='sub-02.*run-1'): kept('')
    assert kept('people')[0] == [('01', 1), ('01', 2)]
    trials, study = kept('runs')
    assert trials == [('01', 1), ('01', 2), ('02', 2), ('03', 1)]
    assert [run.run for run in study.dataset.runs('03')] == [1] and study.brains
    with pytest.raises(PresetError, match="skip: found 'all'"): kept('all')


def test_two_spaces_are_named_with_what_to_type(tmp_path):
    root = write_run(tmp_path, 'sub-01_task-action_run-1', spaces=('T1w', f'{MNI}_res-1', f'{MNI}_res-2'))
    with pytest.raises(DataError, match=f'--space {MNI}:res-1'): Urgen(root).trials()
    assert Urgen(root, space='T1w').runs('01')[0].space == 'T1w' and len(Urgen(root, space=f'{MNI}:res-2').trials()) == 2


def test_settings_reach_their_reader_and_no_other(tmp_path):
    root = write_run(tmp_path, 'sub-01_task-action_run-1')
    assert open_study('urgen', root, task='', columns=(), subjects=('01',)).subjects == ['01']
    with pytest.raises(PresetError, match="task: found 'scan', which the reader 'had' cannot be told"):
        open_study('had', root, task='scan')
    study = get_preset('urgen-small', study__task='scan', study__columns=('stim_file=x',)).study
    assert (study.task, study.columns) == ('scan', ('stim_file=x',))


# What `check` says


def checked(root, capsys, *words):  # exit status, and the lines that were printed
    status = check_main(['check', str(root), *words])
    return status, capsys.readouterr().out.splitlines()


def test_check_sums_up(tmp_path, capsys):
    people = [f'{s:02d}' for s in range(1, 6)]
    root = several(tmp_path / 'text', *[f'sub-{s}_task-action_run-{r}' for s in people for r in (1, 2)], spaces=())
    status, lines = checked(root, capsys)
    assert status == 1 and lines[0] == 'read as Urgen; tasks with events: action (5 people); spaces: none'
    assert lines[1].startswith('first onset 2 s, last end 11 s') and lines[2] == "2 classes, from 'walk' to 'wave'"
    assert "found nobody's volumes in derivatives/fmriprep" in lines[4] and 'wanted the 2 films' in lines[5]
    several(root, *[f'sub-{s}_task-action_run-{r}' for s in people for r in (1, 2)])
    write_films(root, 'a.mp4')
    status, lines = checked(root, capsys, '--json', str(tmp_path / 'kept.json'))
    assert f'spaces: {MNI} (10 runs)' in lines[0] and '40 s long' in lines[1]
    assert len(lines) == 7 and lines[4].startswith('5 people') and 'and 9 more' in lines[4], 'a line a kind'
    kept = [tuple(row.values()) for row in json.loads((tmp_path / 'kept.json').read_text())]
    assert len(kept) == len(set(kept)) == 15 and lines[-1].endswith('15 findings')
    elsewhere = write_run(tmp_path / 'elsewhere', 'sub-01_task-action_run-1', prep='derivatives/lab')
    assert any('--derivatives derivatives/lab' in line for line in checked(elsewhere, capsys)[1])


@pytest.mark.parametrize('kind, say', [('train', "of one class, 'train'"), ('7', '1 of 2 classes are numbers')])
def test_check_says_what_is_odd_about_classes(tmp_path, capsys, kind, say):
    events = EVENTS.replace('walk', kind)
    root = write_run(tmp_path, 'sub-01_task-action_run-1', events.replace('wave', 'train'), volumes=True)
    write_films(root, 'a.mp4', 'b.mp4')
    status, lines = checked(root, capsys)
    assert status == 0 and any(line.startswith('note: ') and say in line for line in lines)


# Two public studies, made in the layout of their published trees


def moments_run(root, subject, session, task, run, films):  # 25 or 28 odd ones among the films, every four seconds
    rows, odd = [], 25 if task == 'train' else 28
    for k in range(len(films) + odd):
        clip = 'n/a\toddball' if k < odd else f'{task}/{films[k - odd]:04d}.mp4\t{task}'
        rows.append(f'{4 * k + 4}.019\t3.000\t{clip}\t0\n')
    name = f'sub-{subject}_ses-{session}_task-{task}_run-{run}'
    (root / f'sub-{subject}/ses-{session}/func').mkdir(parents=True, exist_ok=True)
    table = 'onset\tduration\tstim_file\ttrial_type\tvalue\n' + ''.join(rows)
    (root / f'sub-{subject}/ses-{session}/func/{name}_events.tsv').write_text(table)


def test_bold_moments(tmp_path):
    seen = dict(train=list(range(1, 1001)) * 3, test=list(range(1001, 1103)) * 10)
    for s in range(1, 11):
        for task, runs in (('train', 10), ('test', 3)):
            parts = np.array_split(seen[task], 4 * runs)
            for k, films in enumerate(parts): moments_run(tmp_path, f'{s:02d}', f'{2 + k // runs:02d}', task, k % runs + 1, films)
        own = tmp_path / f'sub-{s:02d}/ses-01/func/sub-{s:02d}_ses-01_task-localizer_run-1_events.tsv'
        own.parent.mkdir(parents=True)
        own.write_text('onset\tduration\ttrial_type\n0.0\t18.0\tfaces\n')
    prep = 'derivatives/versionB/fmriprep'
    write_run(tmp_path, 'sub-01_ses-02_task-test_run-3', '', prep, (MNI, 'T1w'), rows=300)
    with pytest.raises(DataError, match='derivatives/stimuli_metadata/annotations.json'):
        open_study('bold-moments', tmp_path).trials()
    said = {f'{k:04d}': dict(set='train' if k < 1001 else 'test', text_descriptions=['A man walks.'] * 5) for k in range(1, 1103)}
    (tmp_path / 'derivatives/stimuli_metadata').mkdir()
    (tmp_path / 'derivatives/stimuli_metadata/annotations.json').write_text(json.dumps(said))
    (tmp_path / 'dataset_description.json').write_text('{"DatasetDOI": "doi:10.18112/openneuro.ds005165.v1.0.3"}')
    study = open_study('', tmp_path)
    trials = study.trials()
    assert (len(study.subjects), len({t.clip for t in trials}), len(trials)) == (10, 1102, 40200)
    assert study.info.people == 10 and study.info.clips == len(study.classes) == 1102
    assert {t.run for t in trials} == set(range(1, 53)) and len([t for t in trials if t.clip == 'test/1050.mp4']) == 100
    [run] = study.runs('01')
    assert run.run == 3 and run.space == MNI and prep in str(run.bold), 'tests come before trainings'
    preset = open_experiment('bold-moments-small', out=tmp_path / 'runs', root=tmp_path, subjects='01,02', targets='02')
    assert preset.study.subjects == ['01', '02'] and len(preset.study.split.test) == 2010


def test_mind_captioning(tmp_path):
    header = 'onset\tduration\ttrial_type\tstimID\tstimLabel\n'
    films = dict(trainPerception=np.arange(73, 2181), testPerception=np.arange(1, 73))
    for s in range(1, 7):
        for task, shown in films.items():
            for k, part in enumerate(np.array_split(shown, 60 if 'train' in task else 2)):
                name = f'sub-{s:02d}_ses-{task}{1 + k // 6:02d}_task-{task}_run-{k % 6 + 1:02d}'
                rows = [f'{32 + 12 * n}\t10\t2\t{film}\t{film}\n{42 + 12 * n}\t2\t-2\t0\t0\n' for n, film in enumerate(part)]
                write_run(tmp_path, name, f'{header}0\t32\t-1\t0\t0\n' + ''.join(rows), rows=1000)
        name = f'sub-{s:02d}_ses-testImagery01_task-testImagery_run-01'
        write_run(tmp_path, name, 'onset\tduration\ttrial_type\tcueID\n0\t7\t-2\t71\n', spaces=())
    with pytest.raises(DataError, match='stimuli/caption_ck20.csv'): open_study('mind-captioning', tmp_path).trials()
    (tmp_path / 'stimuli').mkdir()
    lines = [f'{k},"A man walks."\n' for k in range(1, 2197) for _ in range(20)]
    (tmp_path / 'stimuli/caption_ck20.csv').write_text('video_id,description\n' + ''.join(lines))
    study = open_study('mind-captioning', tmp_path)
    trials = study.trials()
    assert (len(study.subjects), len({t.clip for t in trials}), len(trials)) == (6, 2180, 6 * 2180)
    assert study.info.clips == 2180 and trials[0].clip == '1' and trials[0].onset == 32
    (tmp_path / 'stimuli/0443.mp4').write_bytes(b'a film')
    few = open_study('mind-captioning', tmp_path, subjects=('03',))
    assert few.subjects == ['03'] and '0443.mp4' in {t.clip for t in few.trials()}


def test_what_each_public_study_says_of_itself():
    counts = {name: (reader.info.people, reader.info.clips, reader.info.tr) for name, reader in DATASETS.items()}
    assert counts == {
        'had': (30, 21600, 2.0),
        'urgen': (None, None, None),
        'sherlock': (17, 1, 1.5),
        'bold-moments': (10, 1102, 1.75),
        'mind-captioning': (6, 2180, 1.0),
    }
    assert 'TR in s: not known' in str(Urgen.info) and 'TR in s: 2.0' in str(DATASETS['had'].info)
    with pytest.raises(FrozenInstanceError):
        Urgen.info.people = 3
