"""Headers that say nothing, or nonsense, and volumes stored in other orientations: refused in words, or read the same."""

import base64
import dataclasses
import gzip
import json
import re
import struct
import zipfile
import zlib
import nibabel as nib
import numpy as np
import pytest
import torch
from pathlib import Path
from brainllm.core import DataError
from brainllm.data.blocks import Blocks, RunStore, rest_windows, store_runs
from brainllm.data.frames import film_frames
from brainllm.data.files import MEMORY, Run, read_cifti, read_header, read_rows, read_series, read_surface, read_volumes
from brainllm.data.grid import check_grid, check_space, subject_mask
from brainllm.data.trials import Trial
from brainllm.datasets.bids import find_runs, pick_space
from brainllm.sources.grayordinates import grayordinate_mm, one_tr
from brainllm.weights import read_pickle
from brainllm.simulate.films import write_mp4

SHAPE, T, TR = (6, 7, 5), 30, 2.0
AFFINE = np.array([[4.0, 0, 0, -10], [0, 3, 0, -8], [0, 0, 5, -6], [0, 0, 0, 1]])
ALL = np.ones(SHAPE, bool)


def noise(seed=0):
    return np.random.default_rng(seed).integers(500, 1500, (*SHAPE, T)).astype(np.int16)


def save(path, data, affine=AFFINE, tr=TR, units=('mm', 'sec')):
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, 1)
    if data.ndim == 4: image.header['pixdim'][4] = tr
    image.header.set_xyzt_units(*units)
    nib.save(image, path)


@pytest.fixture
def run(tmp_path):
    save(tmp_path / 'bold.nii.gz', noise())
    save(tmp_path / 'mask.nii.gz', np.ones(SHAPE, np.uint8))
    return Run('01', 1, 'action', tmp_path / 'bold.nii.gz', None, TR, tmp_path / 'mask.nii.gz', 'MNI152NLin6Asym')


def plain(run, raw, tmp_path):  # the run, from an uncompressed file of these bytes
    (tmp_path / 'plain.nii').write_bytes(raw)
    return dataclasses.replace(run, bold=tmp_path / 'plain.nii')


def pack(raw, *fields):  # fields: format, place, values
    raw = bytearray(raw)
    for kind, at, *values in fields: struct.pack_into('<' + kind, raw, at, *values)
    return bytes(raw)


SROW = 280
FAULTS = dict(
    orientation=([('hh', 252, 0, 0)], 'qform_code and sform_code: found 0 in both'),
    singular=([('4f', SROW, 0, 0, 0, 0)], 'affine: found .* wanted finite numbers'),
    same_axes=([('4f', SROW, 0, 3, 0, 0), ('4f', SROW + 16, 0, 3, 0, 0)], 'affine: found'),
    infinite=([('4f', SROW, np.inf, 0, 0, 0)], 'affine: found'),
    nan_origin=([('f', SROW + 12, np.nan)], 'affine: found'),
    tiny_voxels=([('f', SROW, 1e-30)], 'affine: found'),
    in_metres=([('f', SROW, 0.004), ('f', SROW + 20, 0.003), ('f', SROW + 40, 0.005)], 'affine: found'),
    far=([('f', SROW + 12, 1e30)], 'affine: found'),
    inter_nan=([('ff', 112, 2, np.nan)], 'scl_slope and scl_inter: found 2 and nan'),
    inter_inf=([('ff', 112, 1, np.inf)], 'scl_slope and scl_inter: found 1 and inf'),
    slope_inf=([('ff', 112, np.inf, 0)], 'scl_slope: found inf'),
    swallowed=([('ff', 112, 1, 1e9)], 'scl_slope and scl_inter: found values around 1e.09'),
    all_swallowed=([('ff', 112, 1, 1e20)], 'one constant value'),
    slope_nothing=([('ff', 112, 1e-38, 0)], 'scl_slope and scl_inter: found values around'),
    overflow=([('ff', 112, 3e38, 0)], 'non-finite'),
    complex64=([('hh', 70, 32, 64)], 'datatype: found complex64'),
    complex128=([('hh', 70, 1792, 128)], 'datatype: found complex128'),
    rgb=([('hh', 70, 128, 24)], 'datatype: found'),
    no_type=([('hh', 70, 0, 16)], 'found no NIfTI-1 header'),
    terabytes=([('hhhhh', 40, 4, 30000, 30000, 30000, 30000)], 'truncated or damaged file, or a false header'),
    no_volumes=([('h', 48, 0)], 'dim: found'),
    negative=([('h', 42, -6)], 'dim: found|found no NIfTI-1 header'),
    offset=([('f', 108, 1e15)], 'false header|found no NIfTI-1 header'),
    offset_nan=([('f', 108, np.nan)], 'found no NIfTI-1 header'),
    tr=([('f', 92, 1.5)], 'repetition time of 1.5 s'),
    tr_nan=([('f', 92, np.nan)], 'repetition time of nan s'),
    tr_inf=([('f', 92, np.inf)], 'repetition time of inf s'),
    tr_negative=([('f', 92, -2)], 'repetition time of -2 s|found no NIfTI-1 header'),
    fewer=([('h', 48, T - 3)], 'found more than the'),
    more=([('h', 48, T + 1)], 'found a truncated or damaged file'),
    pair=([('4s', 344, b'ni1\0')], 'found no NIfTI-1 header'),
)


@pytest.mark.parametrize('name', FAULTS)
@pytest.mark.parametrize('packed', [True, False])
def test_header_fault(run, tmp_path, name, packed):
    fields, message = FAULTS[name]
    raw = pack(gzip.decompress(run.bold.read_bytes()), *fields)
    if packed:
        run.bold.write_bytes(gzip.compress(raw))
    else:
        run = plain(run, raw, tmp_path)
    with pytest.raises(DataError, match=message) as told:
        read_series(run, ALL)
    assert str(run.bold) in str(told.value)


def test_mask_without_orientation(run):
    raw = gzip.decompress(run.mask.read_bytes())
    run.mask.write_bytes(gzip.compress(pack(raw, ('hh', 252, 0, 0))))
    with pytest.raises(DataError, match='mask.nii.gz, fields qform_code and sform_code'):
        subject_mask(run, SHAPE, AFFINE)


def test_slope_of_zero_means_none(run):
    want = read_series(run, ALL)
    raw = gzip.decompress(run.bold.read_bytes())
    for slope, inter in ((0, 0), (np.nan, np.nan), (0, 7), (1, 0)):
        run.bold.write_bytes(gzip.compress(pack(raw, ('ff', 112, slope, inter))))
        np.testing.assert_array_equal(read_series(run, ALL), want)


@pytest.mark.parametrize('kind', ['all', 'most', 'one'])
def test_volumes_that_are_all_alike(run, kind):
    data = noise()
    data[..., {'all': 0, 'most': T // 2 - 3, 'one': 0}[kind] :] = data[..., :1]
    if kind == 'one': data = data[..., :1]
    save(run.bold, data)
    with pytest.raises(DataError, match='volumes that are the same|less than the values can tell apart'):
        read_series(run, ALL)


def test_a_default_of_one_second_yields_to_the_sidecar(run):
    "fMRIPrep 23.2.0 writes it so."
    save(run.bold, noise(), tr=1)
    with pytest.warns(UserWarning, match='23.2.0'):
        assert read_header(run).get_data_shape()[3] == T


@pytest.mark.parametrize('tr, unit', [(0, 'sec'), (2000, 'msec'), (2000, 'unknown'), (2e6, 'usec'), (2.0004, 'sec')])
def test_times_that_agree(run, tr, unit):
    save(run.bold, noise(), tr=tr, units=('mm', unit))
    read_header(run)


def test_bomb_is_refused_before_it_is_unpacked(run, tmp_path):
    "A header that tells the truth about zeros without end, and one that does not."
    raw = gzip.decompress(run.bold.read_bytes())
    head = pack(raw[:352], ('hhhhh', 40, 4, 1000, 1000, 100, 20))
    zeros = gzip.compress(bytes(2**24), 9)
    run.bold.write_bytes(gzip.compress(head) + zeros * 250)
    with pytest.raises(DataError, match='false header'):
        read_volumes(run)
    run.bold.write_bytes(gzip.compress(raw) + zeros * 250)
    with pytest.raises(DataError, match='found more than the'):
        read_volumes(run)


def test_more_than_the_memory_here(run, monkeypatch):
    assert MEMORY > 1e8
    monkeypatch.setattr('brainllm.data.files.MEMORY', 1000)
    with pytest.raises(DataError, match='1000 bytes of memory here'):
        read_volumes(run)


# orientation


def as_codes(data, codes, affine=AFFINE):  # the same volumes, stored in another order and direction
    image = nib.Nifti1Image(data, affine)
    change = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
    return image.as_reoriented(change)


class Lab:  # people whose volumes may be stored in any way
    def __init__(self, root, **people):  # name -> codes
        self.root, self.subjects = root, list(people)
        brain = ALL.copy()
        brain[0, 1:3] = brain[:, -1, :2] = False
        for k, (s, codes) in enumerate(people.items()):
            for name, data in (('bold', noise(k)), ('mask', brain.astype(np.uint8))):
                image = as_codes(data, codes)
                save(root / f'{s}_{name}.nii.gz', np.asarray(image.dataobj), image.affine)

    def runs(self, subject, task='action'):
        if task != 'action': return []
        files = [self.root / f'{subject}_{name}.nii.gz' for name in ('bold', 'mask')]
        return [Run(subject, 1, task, files[0], None, TR, files[1], 'MNI152NLin6Asym')]


@pytest.mark.parametrize('voxel_mm', [None, 12])
@pytest.mark.parametrize('codes', ['LAS', 'IRP', 'PSR', 'RSA', 'LPI'])
def test_every_orientation_gives_the_same_blocks(tmp_path, codes, voxel_mm):
    stores = []
    for name, second in (('ras', 'RAS'), ('other', codes)):
        (tmp_path / name).mkdir()
        lab = Lab(tmp_path / name, one='RAS', two=second)
        stores.append(RunStore(store_runs(lab, tmp_path / name / 'out', voxel_mm=voxel_mm)))
    want, got = stores
    np.testing.assert_array_equal(want.mask, got.mask)
    np.testing.assert_allclose(want.affine, got.affine)
    trials = [Trial(s, 1, 4.0, 2.0, 'a.mp4', 1, 'a') for s in ('one', 'two')]
    np.testing.assert_array_equal(Blocks(want, trials).batch([0, 1]), Blocks(got, trials).batch([0, 1]))


def test_a_mask_may_run_the_other_way(tmp_path):
    lab = Lab(tmp_path, one='LAS')
    run = lab.runs('one')[0]
    mask = subject_mask(run, *check_grid([run])[:2])
    flipped = as_codes(np.asarray(nib.load(run.mask).dataobj), 'RAS', nib.load(run.mask).affine)
    np.testing.assert_array_equal(mask, np.asarray(flipped.dataobj) > 0)
    save(run.mask, np.asarray(flipped.dataobj), flipped.affine)
    np.testing.assert_array_equal(subject_mask(run, *check_grid([run])[:2]), mask)


# time


def write_func(folder, space='', tr=TR, task='action', run=1, **fields):
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f'sub-01_task-{task}_run-{run}{space}_desc-preproc_bold'
    Path(f'{stem}.json').write_text(json.dumps(dict(RepetitionTime=tr) | fields))
    return stem


def found(root, task='action'):
    return find_runs(root, '01', task, root)


def test_start_time_of_the_sidecar(tmp_path):
    write_func(tmp_path / 'sub-01', StartTime=0.975)
    assert [run.start for _, _, run in found(tmp_path)] == [0.975]
    write_func(tmp_path / 'sub-01')
    assert [run.start for _, _, run in found(tmp_path)] == [0.0]


@pytest.mark.parametrize('start', ['1 s', -1, 1e9, [0.5], float('nan')])
def test_nonsense_for_a_start_time(tmp_path, start):
    write_func(tmp_path / 'sub-01', StartTime=start)
    with pytest.raises(DataError, match='StartTime: found'):
        found(tmp_path)


def test_boldref_beside_t1w(tmp_path):
    write_func(tmp_path / 'sub-01')
    assert [name for _, name, _ in found(tmp_path)] == ['T1w'], 'alone, as HAD has it'
    write_func(tmp_path / 'sub-01', '_space-T1w')
    both = found(tmp_path)
    assert sorted(name for _, name, _ in both) == ['T1w', 'boldref']
    with pytest.raises(DataError, match='T1w and boldref, wanted one of them'):
        pick_space(both)
    assert [run.space for run in pick_space(both, 'T1w').values()] == ['T1w']
    write_func(tmp_path / 'sub-01', run=2)
    write_func(tmp_path / 'sub-01', '_space-T1w', run=2)
    own = list(pick_space(found(tmp_path), 'boldref').values())
    assert len(own) == 2
    with pytest.raises(DataError, match='found 2 runs in BOLD reference space'):
        check_space(own)


class Rest(Lab):  # a resting run beside it, of another repetition time
    tr = 1.5

    def runs(self, subject, task='action'):
        run = super().runs(subject)[0]
        if task == 'action': return [run]
        if task != 'rest': return []
        path = self.root / f'{subject}_rest.nii.gz'
        save(path, noise(7), tr=self.tr)
        return [dataclasses.replace(run, task='rest', bold=path, tr=self.tr)]


def test_rest_of_another_tr_is_left_out(tmp_path):
    lab = Rest(tmp_path, one='RAS', two='RAS')
    with pytest.warns(UserWarning, match='1.5 s, wanted 2 s as task action has; 2 such runs are left out'):
        store = RunStore(store_runs(lab, tmp_path / 'out'))
    assert {row['task'] for row in store.runs} == {'action'} and len(store.left_out) == 2
    with pytest.raises(DataError, match='no rest run .* left out for another repetition time sub-one_task-rest'):
        rest_windows(store)
    alone = RunStore(store_runs(lab, tmp_path / 'rest', tasks=('rest',)))
    assert alone.tr == 1.5 and not alone.left_out


def test_rest_of_the_same_tr_stays(tmp_path):
    lab = Rest(tmp_path, one='RAS')
    lab.tr = 2.0000001
    store = RunStore(store_runs(lab, tmp_path / 'out'))
    assert {row['task'] for row in store.runs} == {'action', 'rest'}


def test_tr_with_a_tolerance():
    assert one_tr({'a': 700.0 * 10**-3, 'b': 0.7}) == pytest.approx(0.7)
    with pytest.raises(DataError, match='found a repetition time of 0.72 s, wanted 0.7 s'):
        one_tr({'a': 0.72, 'b': 0.7})


# grayordinates


@pytest.fixture
def dense(tmp_path):
    axes = nib.cifti2
    ax = axes.BrainModelAxis.from_surface(np.arange(6), 10, 'CortexLeft')
    ax = ax + axes.BrainModelAxis.from_surface(np.arange(6), 10, 'CortexRight')
    values = np.random.default_rng(0).normal(size=(4, 12)).astype(np.float32)
    nib.save(axes.Cifti2Image(values, (axes.SeriesAxis(0.0, 2.0, 4), ax)), tmp_path / 'c.dtseries.nii')
    return tmp_path / 'c.dtseries.nii'


def reword(path, old, new):  # as long as before, so that the data stays in its place
    raw = path.read_bytes()
    at = re.search(old, raw)
    assert at and len(new) <= len(at[0])
    path.write_bytes(raw.replace(at[0], new.ljust(len(at[0]))))


CIFTI = {
    'no exponent': (rb' SeriesExponent="0"', b'', 'SeriesExponent: found .nothing'),
    'no step': (rb' SeriesStep="2.0"', b'', 'SeriesStep: found .nothing'),
    'step of words': (rb'SeriesStep="2.0"', b'SeriesStep="two"', "SeriesStep: found 'two'"),
    'step nan': (rb'SeriesStep="2.0"', b'SeriesStep="nan"', 'found 0, nan and 0'),
    'step 0': (rb'SeriesStep="2.0"', b'SeriesStep="0.0"', 'found 0, 0 and 0'),
    'step backwards': (rb'SeriesStep="2.0"', b'SeriesStep="-2"', 'found 0, -2 and 0'),
    'huge exponent': (rb'SeriesExponent="0" ', b'SeriesExponent="9"', 'wanted a row every'),
    'exponent of 2000': (rb'SeriesExponent="0" SeriesStart="0.0"', b'SeriesExponent="2000"', 'wanted a row every'),
    'start of words': (rb'SeriesStart="0.0"', b'SeriesStart="so"', "SeriesStart: found 'so'"),
    'start before': (rb'SeriesStart="0.0"', b'SeriesStart="-9"', 'found -9, 2 and 0'),
    'start just before': (rb'SeriesStart="0.0"', b'SeriesStart="-.5"', 'found -0.5, 2 and 0'),
    'start inf': (rb'SeriesStart="0.0"', b'SeriesStart="inf"', 'found inf, 2 and 0'),
    'no size of the surface': (rb'SurfaceNumberOfVertices=', b'SurfaceNumberOfVerticeZ=', 'found no SurfaceNumberOfVertices'),
    'terabytes of vertices': (rb'IndexCount="6" ', b'IndexCount="9"', 'found 12 grayordinates of data, wanted'),
}


@pytest.mark.parametrize('name', CIFTI)
def test_cifti_fault(dense, name):
    old, new, message = CIFTI[name]
    reword(dense, old, new)
    with pytest.raises(DataError, match=message) as told:
        read_cifti(dense)
    assert str(dense) in str(told.value)


def test_cifti_that_starts_later(dense):
    assert read_cifti(dense).start == 0
    reword(dense, rb'SeriesStart="0.0"', b'SeriesStart="10"')
    assert (read_cifti(dense).start, read_cifti(dense).step) == (10, 2)


@pytest.mark.parametrize('slope, inter, want', [(0, 0, 1), (np.nan, np.nan, 1), (2, 0, 2), (2, np.nan, None)])
def test_cifti_scale(dense, slope, inter, want):
    values = read_rows(dense)
    dense.write_bytes(pack(dense.read_bytes(), ('dd', 176, slope, inter)))
    if want is None:
        with pytest.raises(DataError, match='invalid intercept'):
            read_cifti(dense)
        return
    np.testing.assert_array_equal(read_rows(dense), want * values)


@pytest.mark.parametrize('fields', [('hh', 12, 32, 64), ('q', 56, 2**40), ('q', 168, 2**50), ('q', 56, -4)])
def test_cifti_of_nonsense(dense, fields):
    dense.write_bytes(pack(dense.read_bytes(), fields))
    with pytest.raises(DataError, match='found no readable CIFTI file|found a truncated file|found .* rows'):
        read_cifti(dense)


def test_a_cut_cifti_names_its_size(dense):
    size = dense.stat().st_size
    dense.write_bytes(dense.read_bytes()[:-1])
    with pytest.raises(DataError, match=f'truncated file of {size - 1} bytes, wanted {size} for 4 x 12;'):
        read_cifti(dense)


def test_a_cifti_that_is_cut_after_its_header_was_read(dense):
    file = read_cifti(dense)
    dense.write_bytes(dense.read_bytes()[:-1])
    with pytest.raises(DataError, match=r'found a truncated file \(.*\), wanted \(4, 12\)'):
        read_rows(dense, file)


def surface(path, points):
    arrays = [
        nib.gifti.GiftiDataArray(np.asarray(points, np.float32), 'NIFTI_INTENT_POINTSET'),
        nib.gifti.GiftiDataArray(np.array([[0, 1, 2]], np.int32), 'NIFTI_INTENT_TRIANGLE'),
    ]
    nib.save(nib.GiftiImage(darrays=arrays), path)
    return path


def test_surface_of_another_mesh(dense, tmp_path):
    names = ('CIFTI_STRUCTURE_CORTEX_LEFT', 'CIFTI_STRUCTURE_CORTEX_RIGHT')
    for n in (10, 9, 40):
        path = surface(tmp_path / f'{n}.surf.gii', np.random.default_rng(0).normal(size=(n, 3)))
        if n == 10:
            assert grayordinate_mm(read_cifti(dense), dict.fromkeys(names, path)).shape == (12, 3)
            continue
        with pytest.raises(DataError, match=f'found {n} vertices, wanted 10 .*another mesh'):
            grayordinate_mm(read_cifti(dense), dict.fromkeys(names, path))


def test_surface_that_names_another_file(tmp_path):
    secret = tmp_path / 'secret'
    secret.write_bytes(np.arange(12, dtype=np.float32).tobytes())
    path = surface(tmp_path / 's.surf.gii', np.eye(4, 3))
    text = path.read_text()
    first = text.index('<DataArray')
    tag = text[first : text.index('>', first)]
    outer = re.sub('Encoding="[^"]*"', 'Encoding="ExternalFileBinary"', tag)
    outer = re.sub('ExternalFileName="[^"]*"', f'ExternalFileName="{secret}"', outer)
    path.write_text(text.replace(tag, outer))
    with pytest.raises(DataError, match='ExternalFileName: found .*secret.* nothing else is opened'):
        read_surface(path)
    path.write_bytes(text.replace(tag, outer).replace('UTF-8', 'UTF-16').encode('utf-16'))
    with pytest.raises(DataError, match='ExternalFileName: found'):
        read_surface(path)


def test_surface_that_unpacks_to_more_than_it_says(tmp_path):
    path = surface(tmp_path / 's.surf.gii', np.eye(4, 3))
    text = path.read_text()
    bomb = base64.b64encode(zlib.compress(bytes(2**22), 9)).decode()
    path.write_text(re.sub('<Data>[^<]*</Data>', f'<Data>{bomb}</Data>', text, count=1))
    with pytest.raises(DataError, match='element DataArray: found more values'):
        read_surface(path)
    path.write_text(re.sub('Dim0="4"', 'Dim0="4000000000000"', text, count=1))
    with pytest.raises(DataError, match='no readable surface'):
        read_surface(path)


@pytest.mark.parametrize('points', [np.full((4, 3), np.nan), np.ones((4, 2)), np.ones(4)])
def test_surface_of_nonsense(tmp_path, points):
    with pytest.raises(DataError, match='found 1 sets of points|no readable surface'):
        read_surface(surface(tmp_path / 's.surf.gii', points))


def test_a_surface_says_how_many_sets_of_points_it_has(tmp_path):
    points = nib.gifti.GiftiDataArray(np.eye(4, 3, dtype=np.float32), 'NIFTI_INTENT_POINTSET')
    wide = nib.gifti.GiftiDataArray(np.ones((4, 2), np.float32), 'NIFTI_INTENT_POINTSET')
    for arrays, many in (([points, points], 2), ([wide], 1)):
        nib.save(nib.GiftiImage(darrays=arrays), tmp_path / 's.surf.gii')
        with pytest.raises(DataError, match=f'found {many} sets of points'):
            read_surface(tmp_path / 's.surf.gii')


def test_a_film_without_a_frame_names_the_first_that_lacks(tmp_path):
    path = tmp_path / 'a.mp4'
    write_mp4(path, np.zeros((4, 32, 32, 3), np.uint8))
    assert film_frames(path, [3, 0]).shape == (2, 32, 32, 3)
    with pytest.raises(DataError, match='decodes to 1 of 3 frames, wanted number 5 too'):
        film_frames(path, [0, 9, 5])


# weights


@pytest.mark.parametrize('new', [True, False])
def test_weights_that_claim_terabytes(tmp_path, new):
    path = tmp_path / 'w.pth'
    torch.save(dict(w=torch.zeros(70000), steps=2**40), path, _use_new_zipfile_serialization=new)
    assert read_pickle(path)['w'].shape == (70000,) and read_pickle(path)['steps'] == 2**40
    own, claimed = b'J' + struct.pack('<i', 70000), b'\x8a\x06' + (2**44).to_bytes(6, 'little')
    if new:
        with zipfile.ZipFile(path) as whole:
            parts = {name: whole.read(name) for name in whole.namelist()}
        with zipfile.ZipFile(path, 'w') as forged:
            for name, part in parts.items(): forged.writestr(name, part.replace(own, claimed))
    else:
        path.write_bytes(path.read_bytes().replace(own, claimed))
    with pytest.raises(DataError, match=f'w.pth: refused: it claims a tensor of {2**44} numbers'):
        read_pickle(path)


# ---- CIFTI: each place named once, inside its mesh or box; a scale that is a number


def small_cifti(path):
    cortex = nib.cifti2.BrainModelAxis.from_surface(np.arange(6), 20, 'CortexLeft')
    deep = nib.cifti2.BrainModelAxis.from_mask(np.ones((3, 2, 2), bool), 'ThalamusLeft', np.eye(4))
    rows = nib.cifti2.SeriesAxis(0.0, 2.0, 4)
    values = np.random.default_rng(0).standard_normal((4, 18)).astype(np.float32)
    nib.save(nib.cifti2.Cifti2Image(values, (rows, cortex + deep)), path)
    return path


@pytest.mark.parametrize(
    'old, new, message',
    [
        (rb'<VertexIndices>0 1', b'<VertexIndices>0 0', 'found 1 places named twice'),
        (rb'<VoxelIndicesIJK>0 0 0\s0 0 1', b'<VoxelIndicesIJK>0 0 0\n0 0 0', 'found 1 places named twice'),
        (rb'<VoxelIndicesIJK>0', b'<VoxelIndicesIJK>7', 'wanted them in a box of'),
    ],
)
def test_a_place_named_twice_or_outside(tmp_path, old, new, message):
    path = small_cifti(tmp_path / 'x.dtseries.nii')
    assert read_cifti(path).step == 2.0
    raw, found = path.read_bytes(), re.search(old, path.read_bytes())
    path.write_bytes(raw.replace(found[0], new, 1))
    with pytest.raises(DataError, match=f'x.dtseries.nii.*{message}'):
        read_cifti(path)


def test_infinite_scale_of_a_cifti(tmp_path):
    path = small_cifti(tmp_path / 'x.dtseries.nii')
    path.write_bytes(pack(path.read_bytes(), ('dd', 176, np.inf, 0)))
    with pytest.raises(DataError, match='scl_slope: found inf'):
        read_cifti(path)
