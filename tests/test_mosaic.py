"MOSAIC's betas of HAD: every map to its trial, and every disagreement named. Needs h5py."

import sys
from types import SimpleNamespace
import h5py, nibabel as nib, numpy as np, pytest
from brainllm.core import DataError
from brainllm.data.trials import Trial
from brainllm.data.files import Run
from brainllm.data.blocks import RunStore
from brainllm.data.grid import mni_grid
from brainllm.sources.grayordinates import place, Placement, to_voxels
from brainllm.sources.mosaic import clip_key, match_betas, mosaic_mm, store_mosaic

LEFT, RIGHT, RUNS, TRIALS, VERTEX = 29696, 29716, (1, 2, 10), 4, 1234
IDS = [f'{chr(97 + r)}{chr(97 + i)}3456789-_' for r in range(len(RUNS)) for i in range(TRIALS)]


def clips(subject, underscores):  # of all trials, in order
    name = [
        f'Hand car wash/v_Hand car wash_id_{subject[-1]}{k[1:]}{k[0]}_start_{65 + i}.5_label_1.mp4'
        for i, k in enumerate(IDS)
    ]
    return [n.replace(' ', '_') for n in name] if underscores else name


def study(root, underscores=False):
    trials = [
        Trial(s, n, 12.0 + 4 * i, 2.0, clips(s, underscores)[TRIALS * r + i], 1, 'Hand car wash', i)
        for s in ('01', '02')
        for r, n in enumerate(RUNS)
        for i in range(TRIALS)
    ]
    return SimpleNamespace(
        root=root,
        subjects=['01', '02'],
        trials=lambda: trials,
        runs=lambda s: [Run(s, 1, 'action', root / 'absent.nii.gz', None, 2.0)],
    )


def write_headers(root, deep=True):  # one CIFTI file and two surfaces a subject, of the real shape
    inside = np.zeros((91, 109, 91), bool)
    inside[30:62, 30:63, 20:51] = True
    inside.flat[np.flatnonzero(inside)[91282 - LEFT - RIGHT :]] = False
    axis = nib.cifti2.BrainModelAxis.from_surface(
        np.arange(LEFT), 32492, 'CortexLeft'
    ) + nib.cifti2.BrainModelAxis.from_surface(np.arange(RIGHT), 32492, 'CortexRight')
    if deep:
        axis = axis + nib.cifti2.BrainModelAxis.from_mask(
            inside, 'ThalamusLeft', np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
        )
    for s, radius in (('01', 50.0), ('02', 45.0)):
        home = root / 'derivatives' / 'ciftify' / f'sub-{s}'
        (home / 'results').mkdir(parents=True)
        (home / 'standard_fsLR_surface').mkdir()
        rows = nib.cifti2.SeriesAxis(0, 2.0, 2, unit='SECOND') if deep else nib.cifti2.ScalarAxis(['a', 'b'])
        nib.save(
            nib.Cifti2Image(np.zeros((2, len(axis)), np.float32), (rows, axis)),
            home
            / 'results'
            / (
                'ses-action01_task-action_run-1_Atlas.dtseries.nii'
                if deep
                else 'ses-action01_task-action_cycle-1_beta.dscalar.nii'
            ),
        )
        for h, x in (('L', -32), ('R', 32)):
            t = np.arange(32492) * 2.399963
            z = np.linspace(-1, 1, 32492)
            flat = np.sqrt(1 - z**2)
            points = (radius * np.stack([flat * np.cos(t) * 0.6, flat * np.sin(t), z], 1) + [x, -20, 20]).astype(
                np.float32
            )
            nib.save(
                nib.gifti.GiftiImage(
                    darrays=[
                        nib.gifti.GiftiDataArray(points, 'NIFTI_INTENT_POINTSET'),
                        nib.gifti.GiftiDataArray(np.zeros((1, 3), np.int32), 'NIFTI_INTENT_TRIANGLE'),
                    ]
                ),
                home / 'standard_fsLR_surface' / f'sub-{s}.{h}.midthickness.32k_fs_LR.surf.gii',
            )


def values(s, seed=0):  # (trials, 91282): noise, each trial's own amplitude at one vertex, one vertex without betas
    x = np.random.default_rng([seed, int(s)]).standard_normal((len(IDS), 91282))
    x[:, VERTEX] = 100 * (1 + np.arange(len(IDS)))
    x[:, 7] = np.nan
    return x


def write_mosaic(folder, s, x=None, names=None, phases=None, merged=False):
    folder.mkdir(parents=True, exist_ok=True)
    x = values(s) if x is None else x
    names = names or [n.split('/')[1] for n in clips(s, False)]
    phases = phases or ['test' if n >= 10 else 'train' for n in RUNS for _ in range(TRIALS)]
    path = folder / ('mosaic.hdf5' if merged else f'sub-{s}_HAD.hdf5')
    with h5py.File(path, 'a' if merged else 'w') as f:
        top = f.create_group(f'sub-{s}_HAD') if merged else f
        top.attrs['dataset_name'] = 'HumanActionsDataset'
        top.attrs['subjectID'] = f'sub-{s}'
        group = top.create_group('betas', track_order=True)
        for i in np.argsort(names)[::-1]:  # as in the published files, not in the order of the runs
            d = group.create_dataset(f'sub-{s}_HAD_stimulus-{names[i][:-4]}_phase-{phases[i]}_rep-0', data=x[i])
            d.attrs.update(
                phase=phases[i],
                repetition=0,
                presented_stimulus_filename=names[i],
                nan_indices=np.flatnonzero(~np.isfinite(x[i])),
            )
    return path


@pytest.fixture
def had(tmp_path):
    write_headers(tmp_path)
    [write_mosaic(tmp_path / 'derivatives' / 'mosaic', s) for s in ('01', '02')]
    return study(tmp_path)


def test_each_map_becomes_the_row_of_its_trial(had, tmp_path):
    store = RunStore(store_mosaic(had, tmp_path / 'out', voxel_mm=4))
    assert store.tr == 2.0 and len(store.runs) == 6
    shape, affine = mni_grid(4)
    _, places = place({s: mosaic_mm(had, s) for s in had.subjects}, shape, affine)
    for s in had.subjects:
        put = places[s]
        x = np.delete(values(s), 7, 1)
        keep = np.delete(put.column, 7)
        v = put.column[VERTEX]
        by_hand = x[:, keep == v].mean(1)
        by_hand /= by_hand[:8].std(ddof=1)  # runs 1 and 2 are the training maps
        got = np.concatenate([store.series(s, n)[:, v] for n in RUNS]).astype(float)
        np.testing.assert_allclose(got, by_hand, rtol=2e-3)
        assert (np.diff(got) > 0).all(), 'trial i has the i-th amplitude'
        seven = store.series(s, 1)[:, put.column[7]]
        assert np.isfinite(seven).all()
        maps = np.concatenate([store.series(s, n) for n in RUNS[:2]]).astype(np.float32)
        some = maps.std(0) > 0
        np.testing.assert_allclose(maps[:, some].std(0, ddof=1), 1, atol=2e-3)
        assert (some == np.isin(np.arange(store.n_voxels), keep)).all(), (
            'voxels without a grayordinate of this subject stay 0'
        )
    import json

    meta = json.loads((tmp_path / 'out' / 'meta.json').read_text())
    assert meta['kind'] == 'beta' and {r['outliers'] for r in meta['runs']} == {0}


def test_the_test_runs_do_not_touch_the_scale(had, tmp_path):
    a = RunStore(store_mosaic(had, tmp_path / 'a', 4, ['01']))
    x = values('01')
    x[8:] *= 50
    write_mosaic(tmp_path / 'derivatives' / 'mosaic', '01', x)
    b = RunStore(store_mosaic(had, tmp_path / 'b', 4, ['01']))
    np.testing.assert_array_equal(a.series('01', 1), b.series('01', 1))
    assert (
        np.abs(b.series('01', 10).astype(np.float32)).max() > 20 * np.abs(a.series('01', 10).astype(np.float32)).max()
    )


def test_spaces_or_underscores_and_merged_files_give_the_same(had, tmp_path):
    a = RunStore(store_mosaic(had, tmp_path / 'a', 4))
    merged = [write_mosaic(tmp_path / 'merged', s, merged=True) for s in had.subjects][0]
    b = RunStore(store_mosaic(study(tmp_path, underscores=True), tmp_path / 'b', 4, folder=merged))
    for r in a.runs:
        np.testing.assert_array_equal(a.series(r['subject'], r['run']), b.series(r['subject'], r['run']))


def test_the_cortex_alone_serves_where_only_betas_were_fetched(tmp_path):
    write_headers(tmp_path, deep=False)
    write_mosaic(tmp_path / 'derivatives' / 'mosaic', '01')
    had = study(tmp_path)
    store = RunStore(store_mosaic(had, tmp_path / 'out', 4, ['01']))
    shape, affine = mni_grid(4)
    _, places = place({'01': mosaic_mm(had, '01')}, shape, affine)
    assert len(places['01'].column) == 59412
    got = np.concatenate([store.series('01', n)[:, places['01'].column[VERTEX]] for n in RUNS]).astype(float)
    assert (np.diff(got) > 0).all()


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(names=-1), 'maps of 11 of 12 trials'),
        (dict(names='x'), 'wanted one of the 12 clips'),
        (dict(double=True), 'two maps of clip'),
        (dict(phase='test'), 'wanted the other phase'),
        (dict(shape=59412), 'wanted .91282,. of floats'),
        (dict(kind='i8'), 'of int64'),
        (dict(nan=True), 'not in the attribute nan_indices'),
        (dict(shown='v_other.mp4'), "wanted the clip in the map's name"),
        (dict(name='betas_1'), "wanted sub-01_HAD_stimulus"),
        (dict(group='response'), "wanted a group 'betas'"),
    ],
)
def test_every_disagreement_has_its_message(had, tmp_path, change, message):
    path = tmp_path / 'derivatives' / 'mosaic' / 'sub-01_HAD.hdf5'
    with h5py.File(path, 'a') as f:
        g = f['betas']
        first = next(n for n in g if 'phase-train' in n)
        d = g[first]
        if change.get('names') == -1:
            del g[first]
        if change.get('names') == 'x':
            g.move(first, first.replace('_id_', '_id_zz'))
        if change.get('double'):
            g.copy(first, first.replace('rep-0', 'rep-1'))
        if 'phase' in change:
            g.move(first, first.replace('phase-train', 'phase-test'))
        if 'shape' in change:
            del g[first]
            g[first] = np.zeros(change['shape'])
        if 'kind' in change:
            del g[first]
            g[first] = np.zeros(91282, change['kind'])
        if 'nan' in change:
            d[5] = np.nan
        if 'shown' in change:
            d.attrs['presented_stimulus_filename'] = change['shown']
        if 'name' in change:
            g.move(first, change['name'])
        if 'group' in change:
            f.move('betas', change['group'])
    with pytest.raises(DataError, match=message) as e:
        store_mosaic(had, tmp_path / 'out', 4)
    assert 'sub-01_HAD.hdf5' in str(e.value) and not (tmp_path / 'out' / 'meta.json').exists()


def test_files_that_are_missing_or_damaged(had, tmp_path, monkeypatch):
    path = tmp_path / 'derivatives' / 'mosaic' / 'sub-01_HAD.hdf5'
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match='no whole HDF5'):
        store_mosaic(had, tmp_path / 'out', 4)
    path.unlink()
    with pytest.raises(DataError, match=r"mosaic.download\(\{'HumanActionsDataset': \[1\]\}"):
        store_mosaic(had, tmp_path / 'out', 4)
    path.write_bytes(whole)
    [p.unlink() for p in tmp_path.glob('derivatives/ciftify/sub-01/results/*')]
    with pytest.raises(DataError, match='--what betas,surfaces --subjects 1'):
        store_mosaic(had, tmp_path / 'out', 4)
    monkeypatch.setitem(sys.modules, 'h5py', None)
    with pytest.raises(DataError, match='pip install h5py'):
        store_mosaic(had, tmp_path / 'out', 4)
    assert not (tmp_path / 'out').exists()


def test_the_parts_by_hand():
    assert clip_key('Hand car wash/v_Hand car wash_id_x_start_1.5_label_1.mp4') == clip_key(
        'v_Hand_car_wash_id_x_start_1.5_label_1'
    )
    put = Placement(np.array([0, 0, 1]), 3)
    np.testing.assert_allclose(
        to_voxels(put, np.array([[1.0, 3, np.nan], [np.nan, 3, 5]], np.float32)), [[2, 0, 0], [3, 5, 0]]
    )
    two = [Trial('01', 1, 0.0, 2.0, 'A/v_A_id_b.mp4', 1, 'A', i) for i in range(2)]
    with pytest.raises(DataError, match='every clip once'):
        match_betas([], two, 'f')
