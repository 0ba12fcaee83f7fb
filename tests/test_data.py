"""Faulty files, one by one: each must raise its own error, naming file, field, what was found, what was wanted, and what to do."""

import ast, dataclasses, gzip, json, pickle, re
from pathlib import Path
import nibabel as nib, numpy as np, pytest, torch
import brainllm
from brainllm.core import ArtifactError, DataError, WallError
from brainllm.data.blocks import Blocks, RunStore, Windows, expected_response, first_volume, rest_windows, store_runs
from brainllm.data.clean import clean_series, read_confounds
from brainllm.data.files import Run, read_series, read_table, read_volumes
from brainllm.data.grid import check_grid, check_space, mni_grid, trilinear
from brainllm.data.trials import SealedTrial, Trial, seal, source_video, split_subjects, unseal
from brainllm.datasets.had import HAD

GRID, TR, T, AFFINE = (7, 8, 6), 2.0, 48, np.diag([4.0, 4.0, 4.0, 1.0])
CLASSES = ['BMX', 'Baking cookies', 'Drum corps']
HAD_TEXT = Path(__file__).parent / 'data' / 'had'
MOTION = [f'{a}_{b}{d}' for d in ('', '_derivative1') for a in ('trans', 'rot') for b in 'xyz']


def raises(match, kind=DataError):
    return pytest.raises(kind, match=match)


def save_bold(path, data, tr=TR, affine=AFFINE):
    image = nib.Nifti1Image(data, affine)
    image.header.set_zooms((4, 4, 4, tr)[: data.ndim])
    image.header.set_xyzt_units('mm', 'sec')
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def write_tsv(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = zip(*columns.values(), strict=True)
    path.write_text('\n'.join('\t'.join(map(str, r)) for r in [tuple(columns), *rows]) + '\n')


def events(subject, run, n=6):
    codes = [i % 3 + 1 for i in range(n)]
    clips = [
        f'{c}/v_{c}_id_{f"s{subject}r{run}i{i}":_>11}_start_1.5_label_1.mp4'
        for i, k in enumerate(codes)
        for c in [CLASSES[k - 1]]
    ]
    return dict(
        onset=[0.12 + 4 * (i + i // 5) for i in range(n)],
        duration=[2.0] * n,
        trial_type=[f'{k}.0' for k in codes],
        response=['n/a'] * n,
        response_time=['n/a'] * n,
        stim_file=clips,
    )


def write_tree(root, subjects=('01', '02', '03'), runs=2, mask=True, rest=True):
    "A small study in HAD's layout, of noise."
    rng = np.random.default_rng(0)
    brain = np.zeros(GRID, np.uint8)
    brain[1:-1, 1:-1, 1:-1] = 1
    for s in subjects:
        prep = root / 'derivatives' / 'fmriprep' / f'sub-{s}'
        for task, r in [('action', r + 1) for r in range(runs)] + [('rest', 1)] * rest:
            stem = prep / f'sub-{s}_task-{task}_run-{r}_desc-'
            save_bold(
                Path(f'{stem}preproc_bold.nii.gz'),
                (1000 + rng.normal(0, 20, (*GRID, T)) * brain[..., None] + rng.normal(0, 1, (*GRID, T))).astype(
                    np.int16
                ),
            )
            Path(f'{stem}preproc_bold.json').write_text(
                json.dumps(dict(RepetitionTime=TR, Space='MNI152NLin2009cAsym'))
            )
            confounds = {m: rng.normal(size=T).round(4).tolist() for m in MOTION}
            for m in MOTION[6:]:
                confounds[m][0] = 'n/a'
            write_tsv(Path(f'{stem}confounds_timeseries.tsv'), confounds)
            if task == 'action':
                table = events(s, r)
                write_tsv(
                    root
                    / f'sub-{s}'
                    / 'ses-action01'
                    / 'func'
                    / f'sub-{s}_ses-action01_task-action_run-{r:02d}_events.tsv',
                    table,
                )
                for clip in table['stim_file']:
                    (root / 'stimuli' / clip).parent.mkdir(parents=True, exist_ok=True)
                    (root / 'stimuli' / clip).write_bytes(b'clip')
        if mask:
            save_bold(prep / f'sub-{s}_desc-brain_mask.nii.gz', brain)
    return root


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp('whole'))  # never changed by a test


@pytest.fixture(scope='module')
def store(whole, tmp_path_factory):
    return store_runs(HAD(whole), tmp_path_factory.mktemp('store') / 'runs')


@pytest.fixture
def study(tmp_path):
    return write_tree(tmp_path / 'study', subjects=('01', '02'), runs=1)  # free to break


def events_file(root, s='01', r=1):
    return root / f'sub-{s}/ses-action01/func/sub-{s}_ses-action01_task-action_run-{r:02d}_events.tsv'


def bold_file(root, s='01', r=1):
    return root / f'derivatives/fmriprep/sub-{s}/sub-{s}_task-action_run-{r}_desc-preproc_bold.nii.gz'


def confounds_file(root, s='01', r=1):
    return root / f'derivatives/fmriprep/sub-{s}/sub-{s}_task-action_run-{r}_desc-confounds_timeseries.tsv'


def edit(path, column, row, value):
    lines = [line.split('\t') for line in path.read_text().splitlines()]
    lines[row + 1][lines[0].index(column)] = value
    path.write_text('\n'.join('\t'.join(x) for x in lines) + '\n')


# a whole study


def test_whole_study_reads(whole):
    had = HAD(whole)
    trials = had.trials()
    assert had.subjects == ['01', '02', '03'] and had.class_names == CLASSES and len(trials) == 3 * 2 * 6
    first = trials[0]
    assert (first.subject, first.run, first.label, first.classname, first.index) == (
        '01',
        1,
        1,
        'BMX',
        0,
    ) and first.onset == pytest.approx(12.12)
    assert had.clip_path(first).read_bytes() == b'clip'
    assert [(r.run, r.task, r.tr) for r in had.runs('02')] == [(1, 'action', 2.0), (2, 'action', 2.0)] and [
        r.key for r in had.runs('02', 'rest')
    ] == ['sub-02_task-rest_run-01']
    assert all(r.mask and r.bold.exists() and r.confounds.exists() for r in had.runs('01'))
    assert had.runs('99') == [] and trials == sorted(trials) and len(set(trials)) == len(trials)


def test_store_is_whole(whole, store):
    meta = json.loads((store / 'meta.json').read_text())
    assert (
        len(meta['runs']) == 9
        and meta['voxels'] == 5 * 6 * 4
        and meta['mask']['rule'] == 'intersection over subjects'
        and meta['mask']['computed'] == []
    )
    assert not [p for p in store.iterdir() if 'partial' in p.name]
    s = RunStore(store)
    x = np.asarray(s.series('02', 2), np.float32)
    assert x.shape == (T, 120) and s.series('02', 2).dtype == np.float16
    assert np.abs(x.mean(0)).max() < 5e-3 and np.abs(x.std(0, ddof=1) - 1).max() < 5e-3
    motion = read_confounds(HAD(whole).runs('02')[1].confounds, T).to_numpy()
    assert np.abs(np.corrcoef(x.T, motion.T)[:120, 120:]).max() < 5e-3  # nothing linear in motion is left


def test_store_reads_no_events(whole, tmp_path):
    "Cleaning is label-free: with the events gone, the stored bytes are the same."
    had = HAD(whole)
    runs = {s: had.runs(s) for s in had.subjects}

    class NoEvents:
        subjects = ['01', '02', '03']

        def runs(self, s, task):
            return runs[s] if task == 'action' else []

    out = store_runs(NoEvents(), tmp_path / 'out', workers=1)
    again = store_runs(HAD(whole), tmp_path / 'again', tasks=['action'], workers=2)
    assert all((again / p.name).read_bytes() == p.read_bytes() for p in out.iterdir())


def test_store_some_subjects(whole, tmp_path):
    out = store_runs(HAD(whole), tmp_path / 'out', subjects=['03'], tasks=['rest'])
    assert [r['file'] for r in RunStore(out).runs] == ['sub-03_task-rest_run-01.npy']


def test_common_mask_is_the_intersection(study, tmp_path):
    path = study / 'derivatives/fmriprep/sub-02/sub-02_desc-brain_mask.nii.gz'
    m = np.asarray(nib.load(path).dataobj).copy()
    m[2] = 0
    save_bold(path, m)
    assert RunStore(store_runs(HAD(study), tmp_path / 'out')).mask.sum() == 4 * 6 * 4


def test_mask_is_computed_where_none_is_shipped(tmp_path):
    root = write_tree(tmp_path / 'study', subjects=('01',), runs=1, mask=False, rest=False)
    x, y, z = np.meshgrid(*[np.arange(16) - 7.5] * 3, indexing='ij')
    head = (x**2 + y**2 + z**2) < 36
    save_bold(
        bold_file(root),
        (head[..., None] * (1000 + np.random.default_rng(0).normal(0, 20, (16, 16, 16, T)))).astype(np.int16),
    )
    out = store_runs(HAD(root), tmp_path / 'out')
    mask = RunStore(out).mask
    assert (mask & head).sum() / (mask | head).sum() > 0.7 and json.loads((out / 'meta.json').read_text())['mask'][
        'computed'
    ] == ['01']


def test_scaled_and_uncompressed_volumes(tmp_path):
    rng = np.random.default_rng(0)
    mask = np.ones(GRID, bool)
    image = nib.Nifti1Image(rng.normal(3, 1, (*GRID, T)).astype(np.float32), AFFINE)
    image.set_data_dtype(np.int16)
    image.header.set_zooms((4, 4, 4, TR))
    for name in ('a.nii.gz', 'a.nii'):
        nib.save(image, tmp_path / name)
        got = read_series(Run('01', 1, 'action', tmp_path / name, None, TR), mask)
        assert np.allclose(got, nib.load(tmp_path / name).get_fdata()[mask].T, atol=1e-5)


def test_cleaning_is_least_squares():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(T, 9)).astype(np.float32)
    c = np.c_[rng.normal(size=(T, 2)), np.cos(np.pi * (np.arange(T) + 0.5) / T)]
    import pandas as pd

    got = clean_series(x, pd.DataFrame(c, columns=['trans_x', 'rot_z', 'cosine00']), TR)
    design = np.c_[np.ones(T), np.arange(T) / T, c]
    want = x - design @ np.linalg.lstsq(design, x.astype(float), rcond=None)[0]
    assert np.allclose(got, want / want.std(0, ddof=1), atol=1e-4)


# blocks


def test_blocks_are_cut_where_they_should_be(whole, store):
    had = HAD(whole)
    trials = had.trials()
    blocks = Blocks(store, trials, in_frames=5, window_start=2.0)
    series = np.asarray(RunStore(store).series('02', 1), np.float32)
    i = next(k for k, t in enumerate(trials) if (t.subject, t.run, t.index) == ('02', 1, 3))
    first = first_volume(trials[i].onset, 2.0, TR)
    assert first == 13 and blocks[i].shape == (5, *GRID) and blocks[i].dtype == torch.float32  # 12 + 12 + 2 = 26 s
    inside = torch.from_numpy(RunStore(store).mask)
    assert np.array_equal(blocks[i][:, inside].numpy(), series[first : first + 5]) and not blocks[i][:, ~inside].any()
    assert torch.equal(blocks.batch([i, 0])[0], blocks[i]) and torch.equal(
        blocks.voxels([0, i])[1], torch.from_numpy(series[first : first + 5])
    )
    sealed = Blocks(store, [seal(t) for t in trials])
    assert torch.equal(sealed.batch(range(4)), blocks.batch(range(4)))


def test_blocks_go_through_a_dataloader(whole, store):
    batch = next(iter(torch.utils.data.DataLoader(Blocks(store, HAD(whole).trials()), batch_size=4)))
    assert batch.shape == (4, 5, *GRID)


def test_batch_into_an_earlier_result(whole, store):
    blocks = Blocks(store, HAD(whole).trials())
    out = blocks.batch([0, 1])
    want = blocks.batch([4, 5])
    assert blocks.batch([4, 5], out=out) is out and torch.equal(out, want)
    with raises('out: found'):
        blocks.batch([1, 2, 3], out=out)


@pytest.mark.parametrize('onset, first', [(12.0, 7), (12.122, 7), (11.999, 7), (12.99, 7), (13.0, 8), (12.5, 7)])
def test_first_volume_is_the_nearest(onset, first):
    assert first_volume(onset, 2.0, 2.0) == first


def test_window_past_the_end(whole, store):
    late = dataclasses.replace(HAD(whole).trials()[0], onset=T * TR - 8)
    with raises('a window would be volumes 45 to 49, but the run has volumes 0 to 47'):
        Blocks(store, [late])
    with raises('volumes -1 to'):
        Blocks(store, [dataclasses.replace(late, onset=0.0)], window_start=-2.0)
    assert len(Windows(store, [('01', 1, 'action', T - 5)])) == 1


def test_rest_windows(store):
    w = rest_windows(store, in_frames=5, stride=3, subjects=['01', '03'])
    assert (
        len(w) == 2 * 15
        and w[0].shape == (5, *GRID)
        and {s[0] for s in w.starts} == {'01', '03'}
        and {s[2] for s in w.starts} == {'rest'}
    )
    with raises('no sleep run'):
        rest_windows(store, task='sleep')


def test_stored_run_that_is_not_there(store):
    with raises('subject 04, action run 1: found no stored series'):
        Blocks(store, [Trial('04', 1, 12.0, 2.0, 'c', 1, 'C')])


# a damaged store


def test_store_without_meta_is_not_whole(store, tmp_path):
    import shutil

    for name in ('meta.json', 'mask.npy'):
        broken = shutil.copytree(store, tmp_path / name)
        (broken / name).unlink()
        with raises('no whole store', ArtifactError):
            RunStore(broken)


def test_stored_series_cut_short(store, tmp_path):
    import shutil

    broken = shutil.copytree(store, tmp_path / 'b')
    file = broken / 'sub-01_task-action_run-01.npy'
    file.write_bytes(file.read_bytes()[:-100])
    with raises('sub-01_task-action_run-01.npy', ArtifactError):
        RunStore(broken).series('01', 1)
    np.save(file, np.zeros((T, 3), np.float16))
    with raises('wanted floats of .48, 120.', ArtifactError):
        RunStore(broken).series('01', 1)


def test_failed_store_leaves_no_meta(study, tmp_path):
    bold = bold_file(study, '02')
    bold.write_bytes(bold.read_bytes()[:-20])
    with raises('truncated'):
        store_runs(HAD(study), tmp_path / 'out')
    with raises('no whole store', ArtifactError):
        RunStore(tmp_path / 'out')


# faults of the events


def test_missing_root(tmp_path):
    with raises('found no folder'):
        HAD(tmp_path / 'nowhere')


def test_no_events(tmp_path):
    with raises('found no events, wanted sub-XX/ses-action01/func'):
        HAD(tmp_path)


@pytest.mark.parametrize('column', ['onset', 'duration', 'trial_type', 'stim_file'])
def test_missing_column(study, column):
    path = events_file(study)
    path.write_text(path.read_text().replace(column, 'other', 1))
    with raises(f"run-01_events.tsv: column '{column}' is missing; found .*; wanted onset"):
        HAD(study).trials()


@pytest.mark.parametrize(
    'column, value, message',
    [
        ('onset', 'soon', "row 3, column 'onset': found 'soon', wanted a number"),
        ('onset', 'n/a', "found 'n/a', wanted a number"),
        ('onset', 'inf', "found 'inf'"),
        ('duration', '', "column 'duration': found ''"),
        ('trial_type', 'two', "row 3, column 'trial_type': found 'two', wanted a class code"),
        ('trial_type', '0', "found '0', wanted a class code"),
        ('trial_type', '2.5', "found '2.5'"),
        ('trial_type', 'n/a', "found 'n/a'"),
        ('trial_type', '1.0', "row 3, column 'trial_type': found code 1 for 'Drum corps', wanted 3"),
        ('trial_type', '9.0', "found code 9 for 'Drum corps', wanted 3"),
        (
            'stim_file',
            'Fencing/v_Fencing_id_abcdefghijk_start_1.0_label_1.mp4',
            "found class 'Fencing', wanted one of the 3 folders",
        ),
        ('stim_file', 'film.mp4', "row 3, column 'stim_file': found 'film.mp4', wanted <Class>/v_<Class>_id_"),
        ('onset', '4.12', "found a second trial at 4.12 s"),
        (
            'onset',
            '95.',
            r"row 3, column 'onset': found a trial 107.00 s after the first volume, wanted one before the run's end at 96 s",
        ),
    ],
)
def test_faulty_row(study, column, value, message):
    edit(events_file(study), column, 2, value)
    with raises(message):
        HAD(study).trials()


def test_onsets_of_neither_version(study):
    path = events_file(study)
    lines = path.read_text().splitlines()
    path.write_text('\n'.join(lines[:1] + lines[3:]) + '\n')  # first two trials removed: 8.12 s
    with raises('found 8.12 s for the earliest trial'):
        HAD(study).trials()


def test_empty_events(study):
    path = events_file(study)
    head = path.read_text().splitlines()[0]
    path.write_text(head + '\n')
    with raises('found no rows'):
        HAD(study).trials()
    path.write_text('')
    with raises('found an empty file'):
        HAD(study).trials()
    path.write_bytes(b'\xff\xfe\x00\x01')
    with raises('not UTF-8 from byte 0'):
        HAD(study).trials()


def test_duplicated_run(study):
    path = events_file(study)
    path.with_name(path.name.replace('run-01', 'run-1')).write_text(path.read_text())
    with raises('subject 01, run 1 a second time'):
        HAD(study)


def test_duplicated_bold(study):
    path = bold_file(study)
    path.with_name(path.name.replace('run-1', 'run-01')).write_bytes(path.read_bytes())
    with raises('subject 01, run 1 a second time'):
        HAD(study).runs('01')


def test_missing_class_folder(study):
    trials = HAD(study).trials()
    (study / 'stimuli' / 'BMX').rename(study / 'elsewhere')
    assert HAD(study).trials() == trials  # half-fetched stimuli are no fault


def test_dangling_links_are_enough_for_trials(study):
    for path in [bold_file(study), *(study / 'stimuli').rglob('*.mp4')]:
        path.unlink()
        path.symlink_to('../../.git/annex/objects/gone')
    had = HAD(study)
    trials = had.trials()
    assert len(trials) == 12 and len(had.runs('01')) == 1
    with raises("found a link to content that is not here.*datalad get"):
        had.clip_path(trials[0])
    with raises("preproc_bold.nii.gz: found a link to content that is not here"):
        store_runs(had, study / 'out')


def test_absent_large_files_are_enough_for_trials(study):
    want = HAD(study).trials()
    bold_file(study).unlink()
    import shutil

    shutil.rmtree(study / 'stimuli')
    shutil.rmtree(study / 'derivatives')
    had = HAD(study)
    assert (
        had.trials() == want
        and had.classes == {1: 'BMX', 2: 'Baking cookies', 3: 'Drum corps'}
        and had.runs('01') == []
    )
    with raises('found nothing'):
        had.clip_path(want[0])
    with raises('found no runs of tasks'):
        store_runs(had, study / 'out')


def test_late_and_unsorted_rows(study):
    path = events_file(study)
    lines = path.read_text().splitlines()
    path.write_text('\n'.join(lines[:1] + lines[:0:-1]) + '\n')
    edit(path, 'onset', 2, '13.1')  # the row of 12.12, late by a second
    ours = [t for t in HAD(study).trials() if t.subject == '01']
    assert (
        [t.index for t in ours] == list(range(6))
        and ours[3].onset == pytest.approx(25.1)
        and [t.onset for t in ours] == sorted(t.onset for t in ours)
    )


# faults of the volumes and confounds


def run_of(root, s='01'):
    return HAD(root).runs(s)[0]


ALL = np.ones(GRID, bool)


@pytest.mark.parametrize('keep', [0, 100, 1000, -9, -1])
def test_truncated_volumes(study, keep):
    path = bold_file(study)
    path.write_bytes(path.read_bytes()[:keep])
    with raises('preproc_bold.nii.gz: found (a truncated or damaged file|no NIfTI-1 header)'):
        read_series(run_of(study), ALL)


def test_truncated_uncompressed(study):
    path = bold_file(study).with_suffix('')
    path.write_bytes(gzip.decompress(bold_file(study).read_bytes())[:-2])
    with raises('truncated or damaged'):
        read_series(dataclasses.replace(run_of(study), bold=path), ALL)


def test_flipped_bit(study):
    path = bold_file(study)
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)  # the checksum
    with raises('damaged'):
        read_series(run_of(study), ALL)


def test_short_volumes_inside_a_sound_gzip(study):
    path = bold_file(study)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-200]))
    with raises('truncated or damaged'):
        read_volumes(run_of(study))


def test_not_a_nifti(study):
    bold_file(study).write_bytes(gzip.compress(b'hello' * 200))
    with raises('found no NIfTI-1 header'):
        check_grid(HAD(study).runs('01'))


def test_wrong_tr(study):
    data = np.asarray(nib.load(bold_file(study)).dataobj)
    save_bold(bold_file(study), data, tr=1.5)
    with raises('found a repetition time of 1.5 s in the header, wanted 2 s'):
        read_series(run_of(study), ALL)


def test_tr_in_milliseconds_is_understood(study):
    image = nib.load(bold_file(study))
    data = np.asarray(image.dataobj)
    new = nib.Nifti1Image(data, AFFINE)
    new.header.set_zooms((4, 4, 4, 2000.0))
    new.header.set_xyzt_units('mm', 'msec')
    nib.save(new, bold_file(study))
    assert read_series(run_of(study), ALL).shape == (T, ALL.sum())


@pytest.mark.parametrize(
    'text, message',
    [
        ('{"TaskName": "action"}', 'RepetitionTime: found nothing'),
        ('{"RepetitionTime": "2 s"}', "found '2 s', wanted 0.01 to 100 seconds"),
        ('{"RepetitionTime": 0}', 'found 0'),
        ('{"RepetitionTime": true}', 'found True'),
        ('{"RepetitionTime": Infinity}', 'found inf'),
        ('{"RepetitionTime": 2000}', 'found 2000'),
        ('{"RepetitionTime": 1%s}' % ('0' * 400), 'RepetitionTime: found 1000'),
        ('{"RepetitionTime": 2, "StartTime": true}', 'StartTime: found True'),
        ('[1', 'not JSON'),
        ('[1]', 'wanted a JSON object'),
    ],
)
def test_sidecar(study, text, message):
    bold_file(study).with_name(bold_file(study).name.replace('.nii.gz', '.json')).write_text(text)
    with raises(message):
        HAD(study).runs('01')


def test_runs_of_different_tr(study):
    path = bold_file(study, '02')
    data = np.asarray(nib.load(path).dataobj)
    save_bold(path, data, tr=1.5)
    path.with_name(path.name.replace('.nii.gz', '.json')).write_text(
        '{"RepetitionTime": 1.5, "Space": "MNI152NLin2009cAsym"}'
    )
    with raises('found a repetition time of 1.5 s, wanted 2 s as in'):
        store_runs(HAD(study), study / 'out')


@pytest.mark.parametrize(
    'where, value, message',
    [
        ((2, 2, 2, 7), np.nan, 'volume 7 of 48 .*non-finite'),
        ((2, 2, 2, 0), np.inf, 'volume 0 of 48 .*non-finite'),
        ((..., 5), 3.0, 'volume 5 of 48 .1 in all.: found one constant value'),
        ((...,), 0.0, 'volume 0 of 48 .48 in all.: found one constant'),
    ],
)
def test_broken_volumes(study, where, value, message):
    data = np.asarray(nib.load(bold_file(study)).dataobj, np.float32).copy()
    data[where] = value
    save_bold(bold_file(study), data)
    with raises(message):
        store_runs(HAD(study), study / 'out')


def test_non_finite_outside_the_brain_is_no_fault(study):
    data = np.asarray(nib.load(bold_file(study)).dataobj, np.float32).copy()
    data[0] = np.nan
    save_bold(bold_file(study), data)
    out = store_runs(HAD(study), study / 'out')
    assert np.isfinite(RunStore(out).series('01', 1)).all()


def test_non_finite_without_a_mask(tmp_path):
    root = write_tree(tmp_path / 's', subjects=('01',), runs=1, mask=False, rest=False)
    data = np.asarray(nib.load(bold_file(root)).dataobj, np.float32).copy()
    data[3, 3, 3, 9] = np.nan
    save_bold(bold_file(root), data)
    with raises('no brain mask to say whether they matter'):
        store_runs(HAD(root), tmp_path / 'out')


def test_dead_voxel_stays_zero(study):
    data = np.asarray(nib.load(bold_file(study)).dataobj).copy()
    data[3, 3, 3] = 7
    save_bold(bold_file(study), data)
    out = store_runs(HAD(study), study / 'out')
    meta = json.loads((out / 'meta.json').read_text())
    store = RunStore(out)
    dead = np.ravel_multi_index((3, 3, 3), GRID) == store.inside
    assert (
        not store.series('01', 1)[:, dead].any()
        and next(r for r in meta['runs'] if r['file'] == 'sub-01_task-action_run-01.npy')['constant_voxels'] == 1
    )


def test_three_dimensions(study):
    save_bold(bold_file(study), np.zeros(GRID, np.int16))
    with raises(r'wanted \(X, Y, Z, T\)'):
        store_runs(HAD(study), study / 'out')


@pytest.mark.parametrize('change', ['shape', 'affine'])
def test_two_grids(study, change):
    data = np.asarray(nib.load(bold_file(study, '02')).dataobj)
    save_bold(
        bold_file(study, '02'),
        data[:-1] if change == 'shape' else data,
        affine=AFFINE if change == 'shape' else AFFINE + np.eye(4, k=3) * 8,
    )
    with raises(r"sub-02.*found grid .* resample all runs onto one grid .voxel_mm=3."):
        store_runs(HAD(study), study / 'out')


class Study:  # the runs of others, all in one space
    def __init__(self, dataset, space):
        self.dataset, self.space, self.subjects = dataset, space, dataset.subjects

    def runs(self, subject, task='action'):
        return [dataclasses.replace(r, space=self.space) for r in self.dataset.runs(subject, task)]


@pytest.mark.parametrize('space', ['', 'T1w'])
def test_native_space(whole, tmp_path, space):
    "Refused although the grids happen to agree; one subject alone is compared with nobody."
    native = Study(HAD(whole), space)
    with raises(
        r"native space .*one space for all 3 subjects.*native \(T1w\) space cannot be compared .* run fMRIPrep with "
        r"--output-spaces MNI152NLin2009cAsym.*ciftify.*register=True"
    ):
        store_runs(native, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    assert len(RunStore(store_runs(native, tmp_path / 'one', subjects=['02'])).runs) == 3
    with raises('wanted MNI space, to resample from'):
        store_runs(native, tmp_path / 'out', subjects=['02'], voxel_mm=8)


def test_two_spaces(whole):
    runs = HAD(whole).runs('01') + [dataclasses.replace(r, space='MNI152NLin6Asym') for r in HAD(whole).runs('02')]
    with raises('sub-02.*found space MNI152NLin6Asym, wanted MNI152NLin2009cAsym'):
        check_space([dataclasses.replace(r, space=r.space or 'MNI152NLin2009cAsym') for r in runs])


@pytest.mark.parametrize(
    'fault, message',
    [
        ('shape', r'desc-brain_mask.nii.gz: found shape \(6, 8, 6\)'),
        ('affine', r'origin \[8.0, 0.0, 0.0\] mm; wanted'),
        ('empty', 'found an empty mask'),
        ('cut', 'found no NIfTI-1 header'),
        ('dangling', 'found a link'),
    ],
)
def test_faulty_mask(study, fault, message):
    path = study / 'derivatives/fmriprep/sub-01/sub-01_desc-brain_mask.nii.gz'
    m = np.asarray(nib.load(path).dataobj)
    if fault == 'cut':
        path.write_bytes(path.read_bytes()[:40])
    elif fault == 'dangling':
        path.unlink()
        path.symlink_to('gone')
    else:
        save_bold(
            path,
            dict(shape=m[:-1], affine=m, empty=m * 0)[fault],
            affine=AFFINE + np.eye(4, k=3) * 8 * np.array([1, 0, 0, 0])[:, None] if fault == 'affine' else AFFINE,
        )
    with raises(message):
        store_runs(HAD(study), study / 'out')


def test_masks_without_overlap(study):
    for s, half in (('01', slice(None, 3)), ('02', slice(3, None))):
        m = np.zeros(GRID, np.uint8)
        m[half] = 1
        save_bold(study / f'derivatives/fmriprep/sub-{s}/sub-{s}_desc-brain_mask.nii.gz', m)
    with raises('no voxel in common'):
        store_runs(HAD(study), study / 'out')


def test_confounds_of_another_run(study):
    path = confounds_file(study)
    path.write_text('\n'.join(path.read_text().splitlines()[:-1]) + '\n')
    with raises('confounds_timeseries.tsv: found 47 rows, wanted 48'):
        store_runs(HAD(study), study / 'out')


@pytest.mark.parametrize(
    'column, row, value, message',
    [
        ('trans_x', 0, 'n/a', "row 1, column 'trans_x': found 'n/a'"),
        ('rot_z_derivative1', 5, 'n/a', "column 'rot_z_derivative1': found n/a after the first row"),
        ('rot_y', 9, 'x', "row 10, column 'rot_y': found 'x'"),
    ],
)
def test_faulty_confounds(study, column, row, value, message):
    edit(confounds_file(study), column, row, value)
    with raises(message):
        store_runs(HAD(study), study / 'out')


def test_confounds_without_motion_lack_more_than_derivatives(study):
    path = confounds_file(study)
    path.write_text('csf\n' + '0.5\n' * 48)
    with raises("column 'trans_x' is missing"):
        store_runs(HAD(study), study / 'out')


def test_missing_confounds(study):
    path = confounds_file(study)
    path.write_text(path.read_text().replace('rot_y\t', 'roll\t', 1))
    with raises("column 'rot_y' is missing"):
        store_runs(HAD(study), study / 'out')
    path.unlink()
    with raises('confounds_timeseries.tsv: found nothing'):
        store_runs(HAD(study), study / 'out')


def test_run_too_short_to_clean(tmp_path):
    write_tsv(tmp_path / 'c.tsv', {m: list(range(12)) for m in MOTION})
    with raises('found 12 regressors for 12 volumes'):
        read_confounds(tmp_path / 'c.tsv', 12)
    assert read_confounds(tmp_path / 'c.tsv', 12, derivatives=False).shape == (12, 6)


OUTLIERS = dict(framewise_displacement=['n/a'] + [0.1] * (T - 1), std_dvars=['n/a'] + [1.0] * (T - 1))


def with_columns(path, **columns):  # columns added to a table
    lines = path.read_text().splitlines()
    rows = [tuple(columns), *zip(*columns.values(), strict=True)]
    cells = (map(str, (line, *row)) for line, row in zip(lines, rows, strict=True))
    path.write_text('\n'.join(map('\t'.join, cells)) + '\n')


def test_outliers_say_nothing(study):
    fd, dvars = list(OUTLIERS['framewise_displacement']), list(OUTLIERS['std_dvars'])
    fd[7] = 0.51
    fd[20] = 3.0
    dvars[20] = 4.0
    dvars[30] = 1.51
    fd[40] = 0.5
    dvars[41] = 1.5  # two at the very limit
    with_columns(
        confounds_file(study),
        framewise_displacement=fd,
        std_dvars=dvars,
        non_steady_state_outlier00=[1.0] + [0.0] * (T - 1),
    )
    out = store_runs(HAD(study), study / 'out')
    row = RunStore(out).row('01', 1)
    x = np.asarray(RunStore(out).series('01', 1), np.float32)
    assert (
        row['outliers'] == 3
        and row['regressors'][-4:]
        == ['non_steady_state_outlier00', 'motion_outlier00', 'motion_outlier01', 'motion_outlier02']
        and row['volumes'] == T
    )
    assert np.flatnonzero(np.abs(x).max(1) < 1e-3).tolist() == [0, 7, 20, 30]
    assert (
        RunStore(out).row('02', 1)['outliers'] == 0
        and 'motion_outlier00' not in RunStore(out).row('02', 1)['regressors']
    )


def test_outliers_without_dvars_or_without_displacement(study):
    with_columns(confounds_file(study), framewise_displacement=['n/a'] + [0.1] * 9 + [0.9] * 2 + [0.1] * (T - 12))
    with_columns(confounds_file(study, '02'), std_dvars=['n/a'] + [9.0] * (T - 1))
    c, d = (read_confounds(confounds_file(study, s), T) for s in ('01', '02'))
    assert c.filter(like='outlier').to_numpy().nonzero()[0].tolist() == [10, 11] and d.filter(like='outlier').empty


@pytest.mark.parametrize(
    'bad, message', [(25, 'found 23 of 48 volumes without motion outliers .*wanted at least half'), (24, None)]
)
def test_too_many_outliers(study, bad, message):
    with_columns(confounds_file(study), framewise_displacement=['n/a'] + [2.0] * bad + [0.1] * (T - 1 - bad))
    if message is None:
        assert read_confounds(confounds_file(study), T).shape == (T, 12 + bad)
        return
    with raises(message):
        store_runs(HAD(study), study / 'out')


def test_outliers_that_leave_too_few(tmp_path):
    table = {m: np.arange(24).tolist() for m in MOTION} | dict(framewise_displacement=[0.0] * 14 + [2.0] * 10)
    write_tsv(tmp_path / 'c.tsv', table)
    with raises('found 12 regressors for 14 volumes .10 more are outliers.'):
        read_confounds(tmp_path / 'c.tsv', 24)


@pytest.mark.parametrize(
    'column, row, value, message',
    [
        ('framewise_displacement', 5, 'n/a', "column 'framewise_displacement': found n/a after the first row"),
        ('std_dvars', 9, 'x', "row 10, column 'std_dvars': found 'x'"),
    ],
)
def test_faulty_outlier_columns(study, column, row, value, message):
    with_columns(confounds_file(study), **OUTLIERS)
    edit(confounds_file(study), column, row, value)
    with raises(message):
        store_runs(HAD(study), study / 'out')


# onto the MNI grid


class Placed:
    """Two subjects whose volumes hold, at every place of MNI space, one smooth function times a time course.

    Each has a grid of their own, the second is also turned and moved into a native space."""

    TURN = nib.affines.from_matvec(
        nib.eulerangles.euler2mat(0.05, -0.08, 0.1) * 1.04, [4.0, -6.0, 5.0]
    )  # MNI mm -> native mm
    COURSE = np.sin(np.arange(T) / 3) + 0.3 * np.cos(np.arange(T) * 1.7)
    subjects = ['01', '02']

    def __init__(self, folder):
        self.grids = {
            '01': ((44, 52, 44), nib.affines.from_matvec(np.diag([4.0] * 3), [-88, -124, -70])),
            '02': ((38, 44, 38), nib.affines.from_matvec(np.diag([5.0] * 3), [-93, -128, -76])),
        }
        self.all = {}
        for s, (shape, affine) in self.grids.items():
            mm = nib.affines.apply_affine(affine, np.argwhere(np.ones(shape)))
            if s == '02':
                mm = nib.affines.apply_affine(np.linalg.inv(self.TURN), mm)
            bold = (1000 + 100 * self.pattern(mm)[:, None] * self.COURSE).reshape(*shape, T).astype(np.float32)
            path = folder / f'sub-{s}_bold.nii'
            save_bold(path, bold, affine=affine)
            save_bold(folder / f'sub-{s}_mask.nii.gz', np.ones(shape, np.uint8), affine=affine)
            self.all[s] = Run(
                s,
                1,
                'action',
                path,
                None,
                TR,
                folder / f'sub-{s}_mask.nii.gz',
                'T1w' if s == '02' else 'MNI152NLin2009cAsym',
            )

    @staticmethod
    def pattern(mm):
        return np.sin(mm[:, 0] / 30) + np.cos(mm[:, 1] / 35) * np.sin(mm[:, 2] / 25 + 1)

    def runs(self, subject, task='action'):
        return [self.all[subject]] if task == 'action' else []

    def to_native(self, mm):
        return nib.affines.apply_affine(self.TURN, mm)


@pytest.fixture(scope='module')
def placed(tmp_path_factory):
    return Placed(tmp_path_factory.mktemp('placed'))


def test_resampled_subjects_agree(placed, tmp_path):
    "Before z-scoring hides it: the amplitude at every voxel of the box is the function's own, in MNI space and through a native one."
    shape, affine = mni_grid(6)
    out = store_runs(placed, tmp_path / 'out', voxel_mm=6, to_native={'02': placed.to_native})
    s = RunStore(out)
    assert s.shape == tuple(shape) and np.allclose(s.affine, affine) and s.n_voxels > 6000
    mm = nib.affines.apply_affine(affine, np.argwhere(s.mask))
    want = placed.pattern(mm)
    for subject, (own, at) in placed.grids.items():
        points = placed.to_native(mm) if subject == '02' else mm
        x = np.asarray(nib.load(placed.all[subject].bold).dataobj)
        amplitude = trilinear(points, own, at) @ (x[..., 5] - 1000).ravel() / (100 * placed.COURSE[5])
        assert np.abs(amplitude - want).max() < 0.03
    a, b = (np.asarray(s.series(k, 1), np.float32) for k in placed.subjects)
    clear = np.abs(want) > 0.1
    assert np.median(np.abs(a - b)[:, clear]) < 2e-3 and (np.sign((a * b).sum(0))[clear] > 0).all()
    untold = store_runs(
        placed, tmp_path / 'untold', voxel_mm=6, to_native={'02': lambda mm: mm}
    )  # the control: without the way, amplitudes change their sign somewhere
    c = np.asarray(RunStore(untold).series('02', 1), np.float32)
    d = np.asarray(RunStore(untold).series('01', 1), np.float32)
    assert ((c * d).sum(0) < 0).sum() > 100


def test_resampling_needs_a_way_and_a_grid(placed, tmp_path):
    with raises('sub-02_bold.nii: found volumes in native space .T1w.'):
        store_runs(placed, tmp_path / 'out', voxel_mm=6)
    with raises('voxel_mm: found None with to_native'):
        store_runs(placed, tmp_path / 'out', to_native={'02': placed.to_native})


def test_voxels_outside_a_subject_drop_out(placed, tmp_path):
    class Cut(Placed):
        def __init__(self):  # the second subject's volumes end at z = 30 mm
            run = placed.all['01']
            image = nib.load(run.bold)
            top = 26
            path = tmp_path / 'cut.nii'
            save_bold(path, np.asarray(image.dataobj)[:, :, :top], affine=image.affine)
            save_bold(tmp_path / 'm.nii.gz', np.ones((44, 52, top), np.uint8), affine=image.affine)
            self.all = {'01': run, '02': dataclasses.replace(run, subject='02', bold=path, mask=tmp_path / 'm.nii.gz')}

    s = RunStore(store_runs(Cut(), tmp_path / 'out', voxel_mm=6))
    z = nib.affines.apply_affine(s.affine, np.argwhere(s.mask))[:, 2]
    assert (
        z.max() <= 30
        and RunStore(store_runs(Cut(), tmp_path / 'one', subjects=['01'], voxel_mm=6)).n_voxels > s.n_voxels > 1000
    )


def test_resampling_through_nilearn(placed):
    from nilearn.image import resample_img

    shape, affine = mni_grid(6)
    run = placed.all['02']
    own, at = placed.grids['02']
    mean = nib.Nifti1Image(np.asarray(nib.load(run.bold).dataobj)[..., 3], at)
    theirs = resample_img(mean, affine, shape, interpolation='linear').get_fdata().ravel()
    weights = trilinear(nib.affines.apply_affine(affine, np.argwhere(np.ones(shape))), own, at)
    inside = np.asarray(weights.sum(1)).ravel() > 0.5
    assert inside.sum() > 10000 and np.abs((weights @ mean.get_fdata().ravel() - theirs)[inside]).max() / 1000 < 1e-6


# betas


@pytest.fixture
def betas(store, tmp_path):
    meta = json.loads((store / 'meta.json').read_text())
    rng = np.random.default_rng(0)
    out = tmp_path / 'betas'
    out.mkdir()
    np.save(out / 'mask.npy', RunStore(store).mask)
    rows = [r | dict(volumes=6, outliers=0) for r in meta['runs'] if r['task'] == 'action']
    for r in rows:
        np.save(out / r['file'], rng.normal(size=(6, meta['voxels'])).astype(np.float16))
    (out / 'meta.json').write_text(json.dumps(meta | dict(kind='beta', runs=rows)))
    return out


def test_blocks_of_betas(whole, store, betas):
    trials = HAD(whole).trials()
    blocks, series = Blocks(betas, trials), Blocks(store, trials)
    i = next(k for k, t in enumerate(trials) if (t.subject, t.run, t.index) == ('02', 1, 3))
    inside = torch.from_numpy(RunStore(betas).mask)
    want = expected_response(5, 2.0, TR)[:, None] * np.asarray(RunStore(betas).series('02', 1)[3], np.float32)
    assert (
        blocks[i].shape == series[i].shape
        and np.allclose(blocks[i][:, inside].numpy(), want, atol=1e-6)
        and not blocks[i][:, ~inside].any()
    )
    assert torch.equal(blocks.voxels([i])[0], blocks[i][:, inside]) and torch.equal(
        Blocks(betas, [seal(trials[i])])[0], blocks[i]
    )
    assert RunStore(betas).kind == 'beta' and RunStore(store).kind == 'series'


def test_no_windows_in_betas(betas):
    for f in (lambda: Windows(betas, [('01', 1, 'action', 0)]), lambda: rest_windows(betas, task='action')):
        with raises('found betas, one map a trial, wanted time series'):
            f()


def test_betas_of_fewer_trials(whole, betas):
    with raises('subject 01, action run 1: found 6 maps, wanted one for trial 6'):
        Blocks(betas, [dataclasses.replace(HAD(whole).trials()[0], index=6)])


def test_unknown_kind(betas):
    meta = json.loads((betas / 'meta.json').read_text())
    (betas / 'meta.json').write_text(json.dumps(meta | dict(kind='maps')))
    with raises("field kind: found 'maps'", ArtifactError):
        RunStore(betas)


def test_stored_anew_is_whole_only_at_the_end(study):
    out = store_runs(HAD(study), study / 'out')
    bold = bold_file(study, '02')
    bold.write_bytes(bold.read_bytes()[:-20])
    with raises('truncated'):
        store_runs(HAD(study), out)
    with raises('no whole store', ArtifactError):
        RunStore(out)


# real text files of HAD


def test_real_events():
    had = HAD(HAD_TEXT)
    trials = had.trials()
    names = json.loads((HAD_TEXT.parent / 'had_classes.json').read_text())
    runs = {(t.subject, t.run) for t in trials}
    assert len(runs) == 11 and len(trials) == 660 and had.class_names == names and len(names) == 180
    assert all(t.classname == names[t.label - 1] and t.clip.startswith(f'{t.classname}/') for t in trials)
    for s, r in runs:
        onsets = [t.onset for t in trials if (t.subject, t.run) == (s, r)]
        assert len(onsets) == 60 and 12 <= onsets[0] <= 12.13 and 292 <= onsets[-1] <= 292.1
        assert set(range(71)) - {round((o - 12) / 4) for o in onsets} == set(
            range(5, 71, 6)
        )  # a blank after every five
    assert all(
        {t.label for t in trials if t.subject == '01' and t.run in c} == set(range(1, 181))
        for c in ((1, 2, 3), (4, 5, 6))
    )  # every class once a cycle
    assert len([t for t in trials if (t.subject, t.run) == ('04', 1)]) == 60  # a run without responses


def test_real_whole_number_codes():
    text = (HAD_TEXT / 'sub-22/ses-action01/func/sub-22_ses-action01_task-action_run-07_events.tsv').read_text()
    assert not re.search(r'\t\d+\.0\t', text.splitlines()[1])  # written '119', not '119.0'
    labels = [t.label for t in HAD(HAD_TEXT).trials() if t.subject == '22']
    assert labels == [int(line.split('\t')[2]) for line in text.splitlines()[1:]] and all(
        type(k) is int for k in labels
    )


@pytest.mark.parametrize('subject, run, onset', [('01', 12, 196.4), ('02', 6, 4.5)])
def test_real_late_trials(subject, run, onset):
    ours = [t.onset - 12 for t in HAD(HAD_TEXT).trials() if (t.subject, t.run) == (subject, run)]
    late = max(ours, key=lambda o: abs(o - 4 * round(o / 4)))
    assert late == pytest.approx(onset, abs=0.06) and late % 4 > 0.3


def test_real_confounds():
    path = HAD_TEXT / 'derivatives/fmriprep/sub-05/sub-05_task-action_run-1_desc-confounds_timeseries.tsv'
    c = read_confounds(path, 156)
    assert (
        c.shape[0] == 156
        and {'cosine00', 'cosine01', 'cosine02', *MOTION} <= set(c.columns)
        and c.iloc[0][MOTION[6:]].eq(0).all()
        and not c.isna().any().any()
    )
    assert len(path.open().readline().split('\t')) >= 180
    x = clean_series(np.random.default_rng(0).normal(size=(156, 20)).astype(np.float32), c, 2.0)
    assert np.abs(x.T @ c.to_numpy()).max() / np.abs(c.to_numpy()).sum(0).max() < 1e-3
    with raises('found 156 rows, wanted 155'):
        read_confounds(path, 155)
    import pandas as pd

    raw = pd.read_csv(path, sep='\t')
    bad = np.flatnonzero((raw.framewise_displacement > 0.5) | (raw.std_dvars > 1.5))
    assert (
        c.filter(like='motion_outlier').to_numpy().nonzero()[0].tolist() == bad.tolist()
        and len(bad) > 0
        and np.abs(x[bad]).max() < 1e-3
    )  # fMRIPrep's own columns say the same
    assert set(bad) == set(raw.filter(like='motion_outlier').to_numpy().nonzero()[0])


def test_real_runs_without_volumes():
    assert [(r.run, r.tr) for r in HAD(HAD_TEXT).runs('01')] == [(k, 2.0) for k in range(1, 13)]


# the wall


def test_split_holds_nothing_of_the_targets(whole):
    trials = HAD(whole).trials()
    split = split_subjects(trials, ['03'], 0.5)
    blob = pickle.dumps(split)
    assert (
        {t.subject for t in split.train} == {'01', '02'}
        and split.subjects == ['01', '02']
        and split.targets == ['03']
        and not split.dropped
    )
    assert (
        {t.run for t in split.adapt} == {1}
        and {t.run for t in split.test} == {2}
        and all(type(t) is SealedTrial for t in split.adapt + split.test)
    )
    for t in trials:
        assert (t.clip.encode() in blob) == (
            t.subject != '03'
        )  # the clips of others are there, so the search would have found them
    for t in split.adapt + split.test:
        assert set(vars(t)) == set(dataclasses.asdict(t)) == {'subject', 'run', 'onset', 'duration', 'index'}


@pytest.mark.parametrize('name', ['clip', 'label', 'classname', 'text', 'caption'])
def test_asking_a_sealed_trial(name):
    t = seal(Trial('03', 2, 12.0, 2.0, 'a/b.mp4', 7, 'Archery'))
    with raises(f'{name} of subject 03, run 2, 12.00 s: .*sealed until evaluation', WallError):
        getattr(t, name)
    with raises('sealed', WallError):
        hasattr(t, name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(t, name, 'x')


def test_clip_path_of_a_sealed_trial(whole):
    had = HAD(whole)
    with raises('sealed', WallError):
        had.clip_path(seal(had.trials()[0]))


def test_unseal(whole):
    trials = HAD(whole).trials()
    split = split_subjects(trials, ['02'], 0.5)
    assert (
        unseal(split.test, trials) == [t for t in trials if t.subject == '02' and t.run == 2]
        and unseal(split.test[0], trials).subject == '02'
    )
    with raises('not in the dataset'):
        unseal(split.test, trials[:5])


def test_only_evaluation_unseals():
    for path in Path(brainllm.__file__).parent.glob('*.py'):
        used = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)} | {
            n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)
        }
        used |= {
            a.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom) for a in n.names
        }
        assert 'unseal' not in used or path.stem in ('data', 'haxby', 'controls'), (
            f'{path.name} opens sealed trials'
        )  # the last two score; test_haxby.py and test_controls.py show that what they open trains nothing


def test_films_are_not_shared(whole):
    trials = HAD(whole).trials()
    theirs = next(t for t in trials if t.subject == '03')
    # another piece of the same film, another class
    other = f'Drum corps/v_Drum corps_id_{source_video(theirs.clip)}_start_77.0_label_1.mp4'
    trials[0] = dataclasses.replace(trials[0], clip=other)
    split = split_subjects(trials, ['03'])
    assert split.dropped == [trials[0]] and trials[0] not in split.train and len(split.train) == 23


@pytest.mark.parametrize(
    'targets, share, message',
    [
        (['09'], 0.5, 'targets: found 09, wanted some of 01, 02, 03'),
        ([], 0.5, 'targets: found none'),
        (['01', '02', '03'], 0.5, 'found all 3 subjects'),
        (['03'], 0.9, 'none to evaluation'),
        (['03'], 1.0, 'adapt_share: found 1.0'),
        (['03'], -0.1, 'adapt_share'),
    ],
)
def test_impossible_splits(whole, targets, share, message):
    with raises(message):
        split_subjects(HAD(whole).trials(), targets, share)


def test_read_table_short_row(tmp_path):
    (tmp_path / 'e.tsv').write_text('onset\tduration\n1\t2\n3\n')
    with raises('row 2: found 1 field, wanted 2'):
        read_table(tmp_path / 'e.tsv', numeric=['onset', 'duration'])
