"""Where and when: the same head gives the same tokens however its volumes lie, and an impulse is found where it was put."""

import nibabel as nib
import numpy as np
import pytest
import torch
from nilearn.glm.first_level.hemodynamic_models import glover_hrf
from brainllm.data.blocks import Blocks, RunStore, store_runs
from brainllm.data.files import Run
from brainllm.data.trials import Trial
from brainllm.models import FMRITokenizer

SPACE = 'MNI152NLin6Asym'
T = 80


def moved(image, degrees):  # the same numbers in a frame that is turned about the vertical axis, as an oblique scan is
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ image


class Lab:  # one run of one person, without confounds
    def __init__(self, root, data, mask, affine, tr=2.0, start=0.0):
        self.root, self.subjects, self.tr, self.start = root, ['01'], tr, start
        for name, values in (('bold', data.astype(np.float32)), ('mask', mask.astype(np.uint8))):
            image = nib.Nifti1Image(values, affine)
            if values.ndim == 4: image.header.set_zooms((*image.header.get_zooms()[:3], tr))
            image.header.set_xyzt_units('mm', 'sec')
            nib.save(image, root / f'{name}.nii.gz')

    def runs(self, subject, task='action'):
        if task != 'action': return []
        bold, mask = (self.root / f'{name}.nii.gz' for name in ('bold', 'mask'))
        return [Run(subject, 1, task, bold, None, self.tr, mask, SPACE, start=self.start)]


def head(root, affine, shape):  # a smooth pattern over the head, written on any grid
    mm = nib.affines.apply_affine(affine, np.argwhere(np.ones(shape, bool)))
    course = np.random.default_rng(0).normal(size=(3, T))
    waves = [np.sin(mm[:, axis] / scale) for axis, scale in enumerate((37, 29, 41))]
    data = 1000 + 20 * np.einsum('wn,wt->nt', waves, course)
    inside = (np.abs(mm - [0, -18, 10]) < [66, 82, 62]).all(1)
    return Lab(root, data.reshape(*shape, T), inside.reshape(shape), affine)


def straight(edge, shape, corner):
    affine = np.diag([edge, edge, edge, 1.0])
    affine[:3, 3] = corner
    return affine, shape


GRIDS = dict(
    plain=straight(4, (46, 55, 46), (-90, -126, -72)),
    mirrored=(np.array([[-4.0, 0, 0, 90], [0, 4, 0, -126], [0, 0, 4, -72], [0, 0, 0, 1]]), (46, 55, 46)),
    shifted=straight(4, (47, 56, 47), (-91.3, -127.1, -73.7)),
    coarse=straight(5, (37, 44, 37), (-90, -126, -72)),
    oblique=(moved(straight(4, (64, 66, 46), (-122, -146, -72))[0], 14), (64, 66, 46)),
)


def stored(root, name):
    root.mkdir()
    return RunStore(store_runs(head(root, *GRIDS[name]), root / 'out', voxel_mm=6))


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    return stored(tmp_path_factory.mktemp('geometry') / 'plain', 'plain')


def tokens(store, mask):  # (N, D) of one block, from the voxels that two stores share
    block = Blocks(store, [Trial('01', 1, 8.0, 2.0, 'a.mp4', 1, 'a')]).batch([0])
    torch.manual_seed(0)
    tokenizer = FMRITokenizer(5, store.shape, 6, 24, mask=mask, affine=store.affine)
    with torch.no_grad(): return tokenizer(block * torch.from_numpy(mask))[0]


@pytest.mark.parametrize('name, apart', [('mirrored', 1e-6), ('shifted', 0.03), ('coarse', 0.04), ('oblique', 0.03)])
def test_the_same_head_on_another_grid_gives_the_same_tokens(plain, tmp_path, name, apart):
    other = stored(tmp_path / name, name)
    both = plain.mask & other.mask
    assert both.sum() > 0.9 * max(plain.mask.sum(), other.mask.sum())
    np.testing.assert_array_equal(plain.affine, other.affine)
    want, got = tokens(plain, both), tokens(other, both)
    assert (want - got).norm() < apart * (want - want.mean(0)).norm()
    turned = tokens(plain, both).flip(0)
    assert (want - turned).norm() > 0.5 * (want - want.mean(0)).norm(), 'or the bound says nothing'


def responses(times, onset):  # (T,), of a short stimulus
    fine = np.arange(0, 32, 0.01)
    hrf = glover_hrf(1.0, oversampling=100, time_length=32.0)
    return np.interp(times - onset, fine, hrf[: len(fine)], left=0, right=0)


@pytest.mark.parametrize('tr', [0.8, 1.0, 1.49, 2.0, 3.0])
@pytest.mark.parametrize('dropped', [0, 4])  # volumes that were cut off the front, and said so by StartTime
@pytest.mark.parametrize('slices', [0.0, 0.5])  # of a TR: the slice that slice timing takes as the reference
@pytest.mark.parametrize('onset', [16.3, 17.4])  # s from the first volume of the scanner
def test_an_impulse_peaks_in_the_volume_it_should(tmp_path, tr, dropped, slices, onset):
    n = int(300 / tr)
    start = tr * (dropped + slices)
    times = start + tr * np.arange(n)
    response = responses(times, onset)
    data = 1000 + np.random.default_rng(0).normal(0, 0.5, (4, 4, 4, n))
    data[1, 2, 1] += 100 * response / response.max()
    lab = Lab(tmp_path, data, np.ones(data.shape[:3]), np.diag([4.0, 4.0, 4.0, 1.0]), tr, start)
    store = RunStore(store_runs(lab, tmp_path / 'out'))
    window = 2.0
    blocks = Blocks(store, [Trial('01', 1, onset, 2.0, 'a.mp4', 1, 'a')], int(12 / tr), window)
    block = blocks.batch([0])[0]
    peak = np.argmax(response)
    first = np.argmin(np.abs(times - (onset + window)))
    assert int(block[:, 1, 2, 1].argmax()) == peak - first
    assert abs(times[peak] - onset - 5) <= tr, 'the canonical response peaks after about 5 s'
