"Three sources of brain data, one kind of block: from each of them the trial's own answer comes out of the trial's own block."

import hashlib, io, json, os, shutil
from pathlib import Path
import nibabel as nib, numpy as np, pytest
from nibabel.affines import apply_affine
from nilearn import signal
from brainllm.core import DataError
from brainllm.data.files import brain_models
from brainllm.data.clean import read_confounds
from brainllm.data.grid import mni_grid
from brainllm.data.blocks import Blocks, expected_response, RunStore
from brainllm.datasets.had import HAD, cycle_of
from brainllm.datasets.films import Urgen
from brainllm.data.files import read_cifti
from brainllm.sources.grayordinates import CORTEX, ciftify_runs, grayordinate_mm, place
from brainllm.sources.betas import check_labels, match_maps
from brainllm.sources.study import SOURCES
from brainllm.simulate.made import MADE_VERTEX
from brainllm.data.files import read_rows, series_tr
from brainllm.sources.grayordinates import store_grayordinates, subject_surfaces, voxel_of
from brainllm.sources.betas import store_betas
from brainllm.sources.study import store_study
from brainllm.simulate.made import write_made_had

MM = 5  # voxels of the stores here
REAL = Path(__file__).parent / 'data' / 'had'  # text of ds004488


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return write_made_had(tmp_path_factory.mktemp('made') / 'had')  # two people, one cycle


@pytest.fixture
def had(made, tmp_path):
    shutil.copytree(made.root, tmp_path / 'had', copy_function=os.link)
    return HAD(tmp_path / 'had')  # files to spoil; writing to one has to unlink it first


def spoil(path, data):
    path.unlink()
    path.write_bytes(data) if isinstance(data, bytes) else path.write_text(data)


def results(had, s='01'):
    return had.root / 'derivatives' / 'ciftify' / f'sub-{s}' / 'results'


def series(had, run=1, s='01'):
    return results(had, s) / f'ses-action01_task-action_run-{run}_Atlas.dtseries.nii'


def beta(had, s='01'):
    return results(had, s) / 'ses-action01_task-action_cycle-1_beta.dscalar.nii'


def label(had, s='01'):
    return results(had, s) / 'ses-action01_task-action_cycle-1_label.txt'


def points(had, s, path):
    return grayordinate_mm(read_cifti(path), subject_surfaces(had, s))


def write_volumes(
    had,
):  # the same answers as volumes in MNI space: the mean of a voxel's grayordinates, and noise in the rest of the brain
    shape, affine = mni_grid(MM)
    g = np.random.default_rng(0)
    brain = nib.Nifti1Image(np.pad(np.ones([n - 4 for n in shape], np.uint8), 2), affine)
    for s in had.subjects:
        _, places = place({s: points(had, s, series(had, 1, s))}, shape, affine)
        mask, _ = place({s: points(had, s, series(had, 1, s))}, shape, affine)
        folder = had.root / 'derivatives' / 'fmriprep' / f'sub-{s}'
        nib.save(brain, folder / f'sub-{s}_desc-brain_mask.nii.gz')
        for n, p in ciftify_runs(had, s).items():
            x = places[s].to_voxels(read_rows(p))
            box = g.normal(1000, 3, (*shape, len(x))).astype(np.float32)
            box[mask] = x.T
            stem = folder / f'sub-{s}_task-action_run-{n}_desc-preproc_bold'
            image = nib.Nifti1Image(box, affine)
            image.header.set_xyzt_units('mm', 'sec')
            image.header['pixdim'][4] = 2
            nib.save(image, f'{stem}.nii.gz')
            spoil(
                Path(f'{stem}.json'), json.dumps(dict(RepetitionTime=2, TaskName='action', Space='MNI152NLin2009cAsym'))
            )


def answers(had, store, s):  # run by run, the patch's answer in each trial's block, and what was planted
    trials = [t for t in had.trials() if t.subject == s]
    blocks = Blocks(store, trials)
    shape, affine = mni_grid(MM)
    voxel = np.unravel_index(voxel_of(points(had, s, beta(had, s))[[MADE_VERTEX]], shape, affine)[0], shape)
    seen = np.array(
        [
            expected_response(blocks.in_frames, blocks.window_start, store.tr) @ blocks[i][:, *voxel].numpy()
            for i in range(len(trials))
        ]
    )
    return [
        (seen[[t.run == n for t in trials]], np.array([t.label - 9.5 for t in trials if t.run == n]))
        for n in sorted({t.run for t in trials})
    ]


def test_every_source_gives_the_same_trials_and_blocks_and_each_block_its_own_trial(had, tmp_path):
    write_volumes(had)
    had = HAD(had.root)
    stores = {k: RunStore(store_study(had, k, tmp_path / k, voxel_mm=MM)) for k in ('volume', 'ciftify', 'beta')}
    trials = had.trials()
    shape, affine = mni_grid(MM)
    assert len(trials) == 2 * 3 * 6
    for name, store in stores.items():
        assert (
            store.shape == shape
            and np.array_equal(store.affine, affine)
            and store.tr == 2.0
            and store.kind == ('beta' if name == 'beta' else 'series')
        )
        assert {(r['subject'], r['run'], r['outliers']) for r in store.runs} == {
            (s, n, 0) for s in ('01', '02') for n in (1, 2, 3)
        }
        assert tuple(Blocks(store, trials, in_frames=4).batch(range(36)).shape) == (36, 4, *shape)
        for s in had.subjects:
            pairs = [(a - a.mean(), b - b.mean()) for a, b in answers(had, store, s)]
            assert min(np.corrcoef(a, b)[0, 1] for a, b in pairs) > 0.95, (name, s)
            late, truth = zip(*((np.roll(a, 1), b) for a, b in pairs), strict=True)
            r = np.corrcoef(np.concatenate(late), np.concatenate(truth))[0, 1]
            assert r < 0.5, 'the answer of the trial before does as well'
    for s in had.subjects:
        np.testing.assert_allclose(
            *(np.concatenate([a for a, _ in answers(had, stores[k], s)]) for k in ('volume', 'ciftify')), atol=0.02
        )  # the same voxels, through two readers


def test_every_grayordinate_has_a_voxel_and_back(made):
    shape, affine = mni_grid(3)
    mm = {s: points(made, s, series(made, 1, s)) for s in made.subjects}
    mask, places = place(mm, shape, affine)
    centre = apply_affine(affine, np.argwhere(mask))
    axis = nib.load(series(made)).header.get_axis(1)
    for s, put in places.items():
        assert put.column.shape == (91282,) and np.abs(mm[s] - centre[put.column]).max() <= 1.5 + 1e-3, (
            'farther from its voxel than half an edge'
        )
        for hemi, rows in (
            ('L', slice(0, 29696)),
            ('R', slice(29696, CORTEX)),
        ):  # vertex by vertex, as nibabel reads both files
            surface = nib.load(
                made.root
                / f'derivatives/ciftify/sub-{s}/standard_fsLR_surface/sub-{s}.{hemi}.midthickness.32k_fs_LR.surf.gii'
            ).agg_data('pointset')
            np.testing.assert_array_equal(mm[s][rows], surface[axis.vertex[rows]])
        np.testing.assert_allclose(mm[s][CORTEX:], apply_affine(axis.affine, axis.voxel[CORTEX:]))
        x = np.random.default_rng(0).standard_normal((2, 91282), dtype=np.float32)
        v = put.to_voxels(x)
        np.testing.assert_allclose(put.to_voxels(put.to_grayordinates(v)), v, atol=1e-5)
        for c in put.column[[0, MADE_VERTEX, 40000, 91281]]:
            np.testing.assert_allclose(v[:, c], x[:, put.column == c].mean(1), atol=1e-5)
    assert mask.sum() == len(set(places['01'].column) | set(places['02'].column)) > len(set(places['01'].column))


def test_what_is_stored_is_what_nibabel_and_nilearn_make_of_it(made, tmp_path):
    store = RunStore(store_grayordinates(made, tmp_path / 's', MM))
    shape, affine = mni_grid(MM)
    table = read_confounds(made.runs('02')[1].confounds, 70)
    assert len(table.columns) == 15 and store.row('02', 2)['regressors'] == list(table.columns)
    flat = voxel_of(points(made, '02', series(made, 1, '02')), shape, affine)
    total = np.zeros((np.prod(shape), 70))
    np.add.at(total, flat, nib.load(series(made, 2, '02')).get_fdata().T)
    count = np.bincount(flat, minlength=len(total))
    mine = np.flatnonzero(count)
    by_hand = signal.clean(
        (total[mine] / count[mine, None]).T,
        detrend=True,
        standardize='zscore_sample',
        confounds=table.to_numpy(float),
        t_r=2.0,
    )
    got = store.series('02', 2).astype(np.float32)
    at = np.searchsorted(store.inside, mine)
    np.testing.assert_allclose(got[:, at], by_hand, atol=5e-3)
    assert not np.delete(got, at, 1).any()  # float16; where only the other person has grayordinates, 0


def test_headers_are_parsed_once_and_read_as_nibabel_reads_them(made, tmp_path, monkeypatch):
    brain_models.cache_clear()
    parsed = []
    real = nib.cifti2.Cifti2Extension.get_object
    monkeypatch.setattr(nib.cifti2.Cifti2Extension, 'get_object', lambda self: (parsed.append(1), real(self))[1])
    store_grayordinates(made, tmp_path / 's', MM)
    assert len(parsed) == 1, 'one wording in six files'
    store_betas(made, tmp_path / 'b', MM)
    assert len(parsed) == 2
    monkeypatch.undo()
    for path in (series(made), beta(made)):
        file, image = read_cifti(path), nib.load(path)
        assert file.models == image.header.get_axis(1) and file.data.shape == image.shape
        np.testing.assert_array_equal(read_rows(path), image.get_fdata(dtype=np.float32))
    assert series_tr(read_cifti(series(made))) == 2.0
    with pytest.raises(DataError, match='rows along SCALARS, wanted a series'):
        series_tr(read_cifti(beta(made)))


def test_both_orders_of_bytes_and_milliseconds_are_read(made, tmp_path):
    raw = series(made).read_bytes()
    head = nib.Nifti2Header.from_fileobj(io.BytesIO(raw), check=False)
    at = head.get_data_offset()
    other = tmp_path / 'big.dtseries.nii'
    other.write_bytes(
        head.as_byteswapped('>').binaryblock
        + raw[540:544]
        + np.frombuffer(raw[544:552], '<i4').byteswap().tobytes()
        + raw[552:at]
        + np.frombuffer(raw[at:], '<f4').byteswap().tobytes()
    )
    np.testing.assert_array_equal(read_rows(other), read_rows(series(made)))
    assert series_tr(read_cifti(other)) == 2.0
    image = nib.load(series(made))
    image.header.matrix.get_index_map(0).series_exponent = -3
    image.header.matrix.get_index_map(0).series_step = 2000.0
    nib.save(image, tmp_path / 'ms.dtseries.nii')
    assert (
        series_tr(read_cifti(tmp_path / 'ms.dtseries.nii'))
        == nib.load(tmp_path / 'ms.dtseries.nii').header.get_axis(0).step
        == 2.0
    )


def cut(raw):
    return raw[: len(raw) // 2]


def cut_header(raw):
    return raw[:5000]


def nothing(raw):
    return b''


def noise(raw):
    return b'x' * len(raw)


def swapped_size(raw):
    return raw[:544] + raw[544:552][::-1] + raw[552:]


def other_shape(raw):
    head = nib.Nifti2Header.from_fileobj(io.BytesIO(raw), check=False)
    dims = head['dim'].copy()
    dims[6] -= 1
    head['dim'] = dims
    return head.binaryblock + raw[540:]


def fewer_rows(raw):
    head = nib.Nifti2Header.from_fileobj(io.BytesIO(raw), check=False)
    dims = head['dim'].copy()
    dims[5] -= 1
    head['dim'] = dims
    return head.binaryblock + raw[540:]


def volumes(raw):
    return nib.Nifti2Image(np.zeros((3, 3, 3), np.float32), np.eye(4)).to_bytes()


def torn_xml(raw):
    return raw.replace(b'</Matrix>', b'<Matrix/>')


def turned(raw):
    return raw.replace(b'AppliesToMatrixDimension="0"', b'AppliesToMatrixDimension="2"')


@pytest.mark.parametrize(
    'change, message',
    [
        (cut, 'truncated'),
        (cut_header, 'truncated'),
        (nothing, 'no readable CIFTI'),
        (noise, 'no readable CIFTI'),
        (swapped_size, 'no readable CIFTI'),
        (other_shape, 'found 91281 grayordinates of data, wanted 91282'),
        (fewer_rows, 'found 69 rows of data, wanted 70'),
        (volumes, 'no readable CIFTI'),
        (torn_xml, 'no readable CIFTI'),
        (turned, 'wanted rows and then brain models'),
    ],
)
def test_a_damaged_series_is_named_before_the_work(had, tmp_path, change, message):
    path = series(had, 2, '02')
    spoil(path, change(path.read_bytes()))
    with pytest.raises(DataError, match=message) as e:
        store_grayordinates(had, tmp_path / 'out', MM)
    assert str(path) in str(e.value) and not (tmp_path / 'out').exists()


def test_what_is_missing_is_named_with_the_command_that_fetches_it(had, tmp_path):
    def fails(message, source):
        with pytest.raises(DataError, match=message):
            store_study(had, source, tmp_path / 'out', MM)
        assert not (tmp_path / 'out').exists()

    surface = had.root / 'derivatives/ciftify/sub-02/standard_fsLR_surface/sub-02.R.midthickness.32k_fs_LR.surf.gii'
    kept = surface.read_bytes()
    surface.unlink()
    for source in ('ciftify', 'beta'):
        fails(r'sub-02.R.midthickness.*had --what surfaces --subjects 2', source)
    surface.write_bytes(kept)
    path = beta(had, '02')
    path.unlink()
    fails('had --what betas,surfaces --subjects 2', 'beta')
    os.symlink('absent', path)
    fails('found a link to content that is not here', 'beta')
    table = had.root / 'derivatives/fmriprep/sub-01/sub-01_task-action_run-3_desc-confounds_timeseries.tsv'
    table.unlink()
    fails('confounds_timeseries.tsv: found nothing.*--what text --subjects 1', 'ciftify')
    table.with_name('sub-01_task-action_run-3_desc-preproc_bold.json').unlink()
    fails('no .json of run 3.*--what text --subjects 1', 'ciftify')
    [p.unlink() for p in results(had).glob('*_Atlas*')]
    fails('--what grayordinates,surfaces --subjects 1', 'ciftify')


def test_a_repetition_time_that_disagrees_is_refused(had, tmp_path):
    side = had.root / 'derivatives/fmriprep/sub-01/sub-01_task-action_run-3_desc-preproc_bold.json'
    spoil(side, '{"RepetitionTime": 1.5}')
    with pytest.raises(DataError, match='found a repetition time of 2 s, wanted 1.5 s'):
        store_grayordinates(had, tmp_path / 'out', MM)
    with pytest.raises(DataError, match='found a repetition time of 2 s, wanted 1.5 s'):
        store_betas(had, tmp_path / 'out', MM)


def test_values_that_are_not_finite_leave_no_store(had, tmp_path):
    for path, store in ((series(had, 3), store_grayordinates), (beta(had), store_betas)):
        raw = path.read_bytes()
        spoil(path, raw[:-4] + np.float32(np.nan).tobytes())
        with pytest.raises(DataError, match='1 values that are not finite') as e:
            store(had, tmp_path / 'out', MM)
        assert path.name in str(e.value) and not (tmp_path / 'out' / 'meta.json').exists()
        spoil(path, raw)


def test_an_old_store_is_not_taken_for_the_new_one(had, tmp_path):
    store_betas(had, tmp_path / 'out', MM)
    path = beta(had)
    spoil(path, path.read_bytes()[:-4] + np.float32(np.nan).tobytes())
    with pytest.raises(DataError):
        store_betas(had, tmp_path / 'out', MM)
    assert not (tmp_path / 'out' / 'meta.json').exists()


def test_a_map_is_the_trial_of_its_class_z_scored_over_the_cycle(made, tmp_path):
    store = RunStore(store_betas(made, tmp_path / 'b', MM))
    shape, affine = mni_grid(MM)
    for s in made.subjects:
        maps = nib.load(beta(made, s)).get_fdata()
        column = voxel_of(points(made, s, beta(made, s)), shape, affine)
        cell = column[MADE_VERTEX]
        by_hand = maps[:, column == cell].mean(1)
        by_hand = (by_hand - by_hand.mean()) / by_hand.std(ddof=1)
        at = int(np.flatnonzero(store.inside == cell)[0])
        for n in (1, 2, 3):
            own = [t for t in made.trials() if (t.subject, t.run) == (s, n)]
            assert [t.index for t in own] == list(range(6))
            np.testing.assert_allclose(
                store.series(s, n)[:, at].astype(float), [by_hand[t.label - 1] for t in own], atol=2e-3
            )


def test_wrong_betas(had, tmp_path):
    def fails(message):
        with pytest.raises(DataError, match=message):
            store_betas(had, tmp_path / 'out', MM)
        assert not (tmp_path / 'out').exists()

    path = beta(had)
    raw = path.read_bytes()
    image = nib.load(path)
    x, (rows, axis) = image.get_fdata(dtype=np.float32), (image.header.get_axis(k) for k in (0, 1))
    path.unlink()
    nib.save(nib.Cifti2Image(x[:-1], (rows[:-1], axis)), path)
    fails('found 17 maps, wanted 18')
    path.unlink()
    nib.save(nib.Cifti2Image(x[:, :29696], (rows, axis[:29696])), path)
    fails('found 29696 grayordinates, wanted 59412')
    spoil(path, raw)
    events = had.root / 'sub-01/ses-action01/func/sub-01_ses-action01_task-action_run-03_events.tsv'
    lines = events.read_text().splitlines(True)
    spoil(events, ''.join(lines[:-1]))
    had = HAD(had.root)
    fails('found class [0-9]+ 0 times in the events of runs 1, 2, 3 of subject 01')


def test_labels_decide_nothing_but_must_agree(had, tmp_path):
    first = [t for t in had.trials() if t.subject == '01']
    text = label(had).read_text()
    lines = text.splitlines()
    spoil(label(had), text.replace(' ', '_'))
    check_labels(label(had), first)
    spoil(label(had), '\n'.join([*lines[:4], lines[5], lines[4], *lines[6:]]) + '\n')
    with pytest.raises(DataError, match=r'label.txt, line 5: found .*Class006.*, wanted .*Class005'):
        store_betas(had, tmp_path / 'out', MM)
    spoil(label(had), '\n'.join(lines[:-1]) + '\n')
    with pytest.raises(DataError, match='found 17 lines, wanted 18'):
        check_labels(label(had), first)
    label(had).unlink()
    os.symlink('absent', label(had))
    store_betas(had, tmp_path / 'link', MM)
    label(had).unlink()
    store_betas(had, tmp_path / 'none', MM)  # the events decide


@pytest.mark.parametrize(
    'cycle, sha256',
    [
        (1, '57580584483821f4e86ad8ab19441ba9c390a5560cb357c3aea1e63f803146ea'),
        (2, 'd9c357e9e8cad7ceafa141c88fd07fe31d1a2cd0a768bb93492e564809c7024d'),
    ],
)
def test_the_real_lists_of_clips_follow_from_the_real_events(tmp_path, cycle, sha256):  # sub-01, ds004488 1.1.1
    trials = [t for t in HAD(REAL, skip=True).trials() if t.subject == '01' and cycle_of(t.run) == cycle]
    maps = match_maps(trials, 180, 'beta')
    assert sorted(k for own in maps.values() for k in own) == list(range(180))
    text = ''.join(f"{t.clip.split('/')[1]}\n" for t in sorted(trials, key=lambda t: t.label))
    assert hashlib.sha256(text.encode()).hexdigest() == sha256, 'not what the authors list, by the hash of their file'
    (tmp_path / 'label.txt').write_text(text.replace(' ', '_'))
    check_labels(tmp_path / 'label.txt', trials)
    (tmp_path / 'label.txt').write_text(text.replace('BMX', 'Ballet'))
    with pytest.raises(DataError, match='line 4: found'):
        check_labels(tmp_path / 'label.txt', trials)


def test_sources_by_name(made, tmp_path):
    with pytest.raises(DataError, match="found 'cifti', wanted one of volume, ciftify, beta, mosaic"):
        store_study(made, 'cifti', tmp_path / 'out')
    with pytest.raises(DataError, match="found register=True"):
        store_study(made, 'ciftify', tmp_path / 'out', register=True)
    (tmp_path / 'study' / 'sub-01').mkdir(parents=True)
    other = Urgen(tmp_path / 'study')
    for source in SOURCES:
        if source != 'volume':
            with pytest.raises(
                DataError, match=r"found Urgen\(.*wanted a study in HAD's layout.*take the source 'volume'"
            ):
                store_study(other, source, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_native_volumes_are_refused_with_both_ways_out(made, tmp_path):
    with pytest.raises(DataError, match='native.*ciftify.*register=True'):
        store_study(made, 'volume', tmp_path / 'out')
    with pytest.raises(DataError, match='native'):
        store_study(made, 'volume', tmp_path / 'out', subjects=['01'])  # one brain alone is not in MNI space either
    assert not (tmp_path / 'out').exists()


def test_registering_what_lies_in_mni_space_is_refused(had, tmp_path):
    for s in had.subjects:
        for n in (1, 2, 3):
            spoil(
                had.root / f'derivatives/fmriprep/sub-{s}/sub-{s}_task-action_run-{n}_desc-preproc_bold.json',
                '{"RepetitionTime": 2, "Space": "MNI152NLin6Asym"}',
            )
    with pytest.raises(DataError, match='no volumes in native space .MNI152NLin6Asym.'):
        store_study(HAD(had.root), 'volume', tmp_path / 'out', register=True)
