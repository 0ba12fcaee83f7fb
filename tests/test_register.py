"A brain moved by a known way is brought back to MNI space by registration. Needs dipy."

import time
from pathlib import Path
import nibabel as nib, numpy as np, pytest
from nibabel.affines import apply_affine
from scipy import ndimage
from brainllm.core import DataError
from brainllm.data.files import Run
from brainllm.data.grid import mni_grid
from brainllm.data.blocks import RunStore
from brainllm.simulate.brains import brain_grid
from brainllm.sources.register import dice, jacobian, load_registration, mutual_information, pull, register_study
from brainllm.sources.register import register_subject, Registration
from brainllm.sources.grayordinates import voxel_of
from brainllm.sources.register import repaint
from brainllm.sources.study import store_study

PERIOD, PHASE = np.array([30.0, 34.0, 38.0]), np.array([0.0, 1.0, 2.0])


class Moved:
    "A brain moved by 8 degrees, 12 mm, a scale of 1.08 and a smooth warp of up to 6 mm; knows where every MNI point went."

    def __init__(self, rough=False):
        self.grid = brain_grid(3)
        self.xyz = self.grid['xyz'].astype(float)
        a = np.deg2rad(8)
        c, s = np.cos(a), np.sin(a)
        self.affine = np.eye(4)
        self.affine[:3, :3] = 1.08 * np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        self.affine[:3, 3] = np.array([8, -7, 5.6]) * 12 / np.linalg.norm([8, -7, 5.6])
        self.gain = 6 / np.linalg.norm(self.wave(self.xyz), axis=1).max()
        self.truth = self.to_native(self.xyz)
        self.rough = rough

    def wave(self, x):
        return np.stack(
            [
                np.sin(x[:, (k + 1) % 3] / PERIOD[k] + PHASE[k]) * np.cos(x[:, (k + 2) % 3] / PERIOD[k])
                for k in range(3)
            ],
            -1,
        )

    def to_mni(self, y):
        x = apply_affine(np.linalg.inv(self.affine), y)
        return x + self.gain * self.wave(x)

    def to_native(self, x):
        u = x
        for _ in range(200):
            u = x - self.gain * self.wave(u)
        return apply_affine(self.affine, u)

    def write(self, folder, voxel=3.0, volumes=4, seed=0):
        rng = np.random.default_rng(seed)
        box = np.array([246, 288, 240])
        shape = tuple((box / voxel).astype(int))
        at = np.diag([-voxel, voxel, voxel, 1.0])
        at[:3, 3] = (123, -150, -85)  # left to the right, as HAD's scanner may have it
        x = self.to_mni(apply_affine(at, np.indices(shape).reshape(3, -1).T))
        image = np.zeros(self.grid['mask'].shape, np.float32)
        image[self.grid['mask']] = self.grid['baseline']
        mean = ndimage.map_coordinates(image, apply_affine(np.linalg.inv(self.grid['affine']), x).T, order=1).reshape(
            shape
        )
        if self.rough:  # a coil's bias field, and signal lost above the sinuses
            mean = (
                mean
                * (1 + 0.25 * np.sin(x / 60 + 1).mean(1).reshape(shape))
                * (1 - 0.8 * np.exp(-((x - [0, 42, -18]) ** 2).sum(1) / (2 * 12**2)).reshape(shape))
            )
        bold = np.where(
            mean[..., None] > 150,
            mean[..., None] + 20 * rng.standard_normal((*shape, volumes)),
            np.abs(10 * rng.standard_normal((*shape, volumes))),
        )
        path = Path(folder) / 'sub-01_task-action_run-1_desc-preproc_bold.nii.gz'
        image = nib.Nifti1Image(bold.astype(np.int16), at)
        image.header.set_xyzt_units('mm', 'sec')
        image.header.set_zooms((voxel,) * 3 + (2.0,))
        nib.save(image, path)
        return Run('01', 1, 'action', path, None, 2.0, None)

    def error(self, to_native):
        return np.linalg.norm(to_native(self.xyz) - self.truth, axis=1)  # mm


def steps(moved, r):
    straight = Registration(r.affine, np.zeros_like(r.field), r.grid, '', {})
    return {name: moved.error(f) for name, f in (('start', lambda mm: mm), ('affine', straight), ('final', r))}


@pytest.fixture(scope='module')
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp('reg')
    moved = Moved()
    run = moved.write(folder)
    t = time.perf_counter()
    r = register_subject(run, cache=folder / 'r.npz')
    print(f'\nregistered in {time.perf_counter() - t:.1f} s')
    return moved, run, r, folder


def test_the_known_move_is_found(done):
    moved, _, r, _ = done
    e = steps(moved, r)
    assert r.report['affine']['information'] > 2 * r.report['mirrored']
    for k, v in e.items():
        print(f"{k:7s} median {np.median(v):6.2f} mm, 95% {np.percentile(v, 95):6.2f}, largest {v.max():6.2f}")
    print(r.report)
    assert np.median(e['affine']) < np.median(e['start']) / 5  # 18 mm at the start
    assert np.median(e['final']) < np.median(e['affine']) and r.report['warp']['kept'] and np.median(e['final']) < 3
    assert (
        r.report['start']['dice'] < r.report['affine']['dice'] <= 1
        and r.report['start']['information'] < r.report['affine']['information'] < r.report['warp']['information']
    )


def test_a_bias_field_and_lost_signal_do_not_lead_astray(tmp_path):
    moved = Moved(rough=True)
    t = time.perf_counter()
    r = register_subject(moved.write(tmp_path, voxel=2.0))
    e = steps(moved, r)
    print(f'\n2 mm volumes: {time.perf_counter() - t:.1f} s', r.report['warp'])
    for k, v in e.items():
        print(f"{k:7s} median {np.median(v):6.2f} mm, 95% {np.percentile(v, 95):6.2f}, largest {v.max():6.2f}")
    assert np.median(e['final']) < 3 and np.median(e['final']) < np.median(e['start']) / 5


def test_it_is_kept_whole_and_taken_from_disk(done, monkeypatch):
    moved, run, r, folder = done
    again = load_registration(folder / 'r.npz')
    np.testing.assert_array_equal(again(moved.xyz), r(moved.xyz))
    assert again.report == r.report

    def never(*_):
        raise AssertionError('registered a second time')

    monkeypatch.setattr('brainllm.sources.register.find_affine', never)
    assert register_subject(run, cache=folder / 'r.npz').source == r.source
    with pytest.raises(DataError, match='Dice of 0.97, wanted 0.99'):
        register_subject(run, cache=folder / 'r.npz', min_dice=0.99)  # what is kept is judged again
    with pytest.raises(AssertionError, match='second time'):
        register_subject(run, cache=folder / 'other.npz')


@pytest.mark.parametrize('damage', ['cut', 'text', 'nan', 'shape', 'pickle', 'missing'])
def test_a_damaged_file_is_refused(done, tmp_path, damage):
    r = done[2]
    path = r.save(tmp_path / 'r.npz')
    if damage == 'cut':
        path.write_bytes(path.read_bytes()[:-200])
    if damage == 'text':
        path.write_text('no archive')
    if damage == 'nan':
        Registration(r.affine * np.nan, r.field, r.grid, '', {}).save(path)
    if damage == 'shape':
        Registration(r.affine, r.field[..., 0], r.grid, '', {}).save(path)
    if damage == 'pickle':
        np.savez(path, affine=np.array([print], dtype=object), field=r.field, grid=r.grid, source='', report='{}')
    if damage == 'missing':
        np.savez(path, affine=r.affine)
    with pytest.raises(DataError, match='register again'):
        load_registration(path)


def test_half_a_brain_is_refused(tmp_path):
    run = Moved().write(tmp_path, voxel=4.0)
    bold = nib.load(run.bold)
    half = np.asarray(bold.dataobj).copy()
    half[:, :, : len(half) // 2] = 0  # the lower half was not scanned
    nib.save(nib.Nifti1Image(half, bold.affine, bold.header), run.bold)
    with pytest.raises(DataError, match='show too little of the brain'):
        register_subject(run, voxel_mm=4, cache=tmp_path / 'r.npz')
    assert not (tmp_path / 'r.npz').exists()


def test_a_header_that_lies_about_the_orientation_is_refused(tmp_path):  # though the masks come to overlap
    run = Moved().write(tmp_path, voxel=4.0)
    bold = nib.load(run.bold)
    nib.save(nib.Nifti1Image(np.flip(np.asarray(bold.dataobj), 2).copy(), bold.affine, bold.header), run.bold)
    with pytest.raises(DataError, match='mirrored template'):
        register_subject(run, voxel_mm=4)


def test_without_dipy_the_error_says_what_to_install(done, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'dipy.align', None)
    with pytest.raises(DataError, match='pip install dipy'):
        register_subject(done[1])


def test_twice_is_the_same_and_a_study_goes_by_subject(tmp_path):
    run = Moved().write(tmp_path, voxel=4.0)

    class Study:
        subjects = ['01', '02']

        def runs(self, subject, task='action'):
            return [run] if subject == '01' else []

    one = register_subject(run, voxel_mm=4)
    two = register_study(Study(), tmp_path / 'found', ['01'], voxel_mm=4)['01']
    np.testing.assert_array_equal(one.field, two.field)
    np.testing.assert_array_equal(one.affine, two.affine)
    assert (tmp_path / 'found' / 'sub-01_registration.npz').is_file()
    with pytest.raises(DataError, match='no volumes of subject 02'):
        register_study(Study(), tmp_path)


def test_the_parts_by_hand():
    rng = np.random.default_rng(0)
    a = rng.standard_normal(20_000)
    assert mutual_information(a, -a) > 1.5 > 0.1 > mutual_information(a, rng.standard_normal(20_000))
    assert dice(np.array([1, 1, 0], bool), np.array([1, 0, 0], bool)) == pytest.approx(2 / 3)
    grid = np.diag([-2.0, 2, 2, 1])
    mm = apply_affine(grid, np.indices((6, 6, 6)).reshape(3, -1).T).reshape(6, 6, 6, 3)
    assert np.allclose(jacobian(0.1 * mm, grid), 1.1**3) and (jacobian(-1.5 * mm, grid) < 0).all()  # a scale; a fold
    moving = nib.Nifti1Image(rng.random((6, 6, 6), np.float32), grid)
    assert np.allclose(pull(lambda x: x, moving, (6, 6, 6), grid), moving.get_fdata())
    fixed = rng.random((8, 8, 8))
    assert (
        np.corrcoef(repaint(fixed, 2 - fixed, np.ones_like(fixed, bool)).ravel(), (2 - fixed).ravel())[0, 1] > 0.99
    )  # dark becomes bright


def test_volumes_that_are_not_there_are_named(tmp_path):
    with pytest.raises(DataError, match='found nothing, wanted a file'):
        register_subject(Run('01', 1, 'action', tmp_path / 'absent.nii.gz', None, 2.0))


def test_what_moves_at_a_place_of_the_native_brain_moves_at_that_place_of_the_store(tmp_path):
    moved = Moved()
    run = moved.write(tmp_path, voxel=4.0)
    bold = nib.load(run.bold)
    rng = np.random.default_rng(0)
    course, place = rng.standard_normal(60), np.array([[-28.0, -60.0, 20.0]])
    mm = apply_affine(bold.affine, np.indices(bold.shape[:3]).reshape(3, -1).T).reshape(*bold.shape[:3], 3)
    near = np.linalg.norm(mm - moved.to_native(place), axis=-1) < 10  # where the place truly went
    mean = bold.get_fdata(dtype=np.float32).mean(-1)
    x = mean[..., None] * (1 + 0.002 * rng.standard_normal((*mean.shape, 60)) + 0.02 * near[..., None] * course)
    nib.save(nib.Nifti1Image(x.astype(np.float32), bold.affine, bold.header), run.bold)

    class Study:
        subjects = ['01']

        def runs(self, subject, task='action'):
            return [run] if task == 'action' else []

    with pytest.raises(DataError, match='register=True'):
        store_study(Study(), 'volume', tmp_path / 'out', 4)
    store = RunStore(store_study(Study(), 'volume', tmp_path / 'out', 4, register=True))
    shape, affine = mni_grid(4)
    assert store.shape == shape and (tmp_path / 'out' / 'registration' / 'sub-01_registration.npz').is_file()

    def follows(at):
        voxel = np.searchsorted(store.inside, voxel_of(np.array([at], float), shape, affine)[0])
        return np.corrcoef(store.series('01', 1)[:, voxel].astype(float), course)[0, 1]

    assert follows(place[0]) > 0.9 and abs(follows([28.0, -60.0, 20.0])) < 0.5, (
        follows(place[0]),
        follows([28.0, -60.0, 20.0]),
    )  # the place itself, and its like on the other side
