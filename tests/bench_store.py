"""How quickly runs of HAD's real shape come into the store and blocks out of it: `python tests/bench_store.py [folder]`.

Made data: int16 volumes of 100 x 100 x 72 x 156 in the shape of a head, a brain mask of about a quarter of the box,
a confounds table as wide as HAD's.
MB/s count the bytes of the uncompressed file (int16); as float32 they would be twice as many. The files were just
written, so the system still holds them in memory: a slow disk comes on top.
The best of two goes is printed."""

import os, sys, tempfile, time
from functools import partial
from pathlib import Path
import nibabel as nib, numpy as np, pandas as pd
from nilearn import masking, signal
from nilearn.datasets import load_mni152_brain_mask
from brainllm.data.trials import Trial
from brainllm.data.files import Run
from brainllm.data.clean import MOTION, read_confounds
from brainllm.data.grid import trilinear
from brainllm.data.blocks import Blocks, first_volume, RunStore, store_runs

SHAPE = (100, 100, 72)
T = 156
TR = 2.0
AFFINE = nib.affines.from_matvec(np.diag([2.0] * 3), [-99, -117, -62])


def head_mask() -> np.ndarray:  # (X, Y, Z) bool
    "The template's brain, 7 % smaller, as people's are."
    template = load_mni152_brain_mask(resolution=2)
    mm = nib.affines.apply_affine(AFFINE, np.argwhere(np.ones(SHAPE)))
    return (
        trilinear(mm * 1.07, template.shape, template.affine) @ template.get_fdata().ravel().astype(np.float32) >= 0.5
    ).reshape(SHAPE)


def write_confounds(path, seed, width=200):
    "As wide as a real table (184 to 227 columns), and with the outliers of a person who lies still."
    rng = np.random.default_rng(seed)
    d = dict(zip(MOTION, np.cumsum(rng.normal(0, 0.01, (6, T)), 1), strict=True))
    d |= {f'{k}_derivative1': np.r_[np.nan, np.diff(v)] for k, v in d.items()}
    d |= {f'cosine{k:02d}': np.cos(np.pi * (k + 1) * (np.arange(T) + 0.5) / T) for k in range(3)}
    d |= dict(
        framewise_displacement=np.r_[np.nan, rng.uniform(0, 0.3, T - 1)],
        std_dvars=np.r_[np.nan, rng.uniform(0.8, 1.2, T - 1)],
    )
    d['framewise_displacement'][[40, 90]] = 0.9
    d |= {f'a_comp_cor_{k:02d}': rng.normal(size=T) for k in range(width - len(d))}
    pd.DataFrame(d).to_csv(path, sep='\t', index=False, na_rep='n/a')


class Made:
    "One subject of uncompressed (or gzipped) runs."

    subjects = ['01']

    def __init__(self, folder, mask, n=2, suffix='.nii'):
        self.folder, self.all = folder, []
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), AFFINE), folder / 'mask.nii.gz')
        level = np.where(mask, 900, 40).astype(np.float32)
        for k in range(1, n + 1):
            rng = np.random.default_rng(k)
            bold = np.empty((*SHAPE, T), np.int16, order='F')
            for t in range(T):
                bold[..., t] = level + rng.standard_normal(SHAPE, np.float32) * (5 + 0.02 * level)
            image = nib.Nifti1Image(bold, AFFINE)
            image.header.set_zooms((2, 2, 2, TR))
            image.header.set_xyzt_units('mm', 'sec')
            path = folder / f'run-{k}{suffix}'
            nib.openers.Opener.default_compresslevel = 1
            nib.save(image, path)
            write_confounds(folder / f'run-{k}.tsv', k)
            self.all.append(
                Run('01', k, 'action', path, folder / f'run-{k}.tsv', TR, folder / 'mask.nii.gz', 'MNI152NLin2009cAsym')
            )

    def runs(self, subject, task='action'):
        return self.all if task == 'action' else []


def timed(f, n=1):  # (best seconds, last result)
    best = np.inf
    for _ in range(n):
        start = time.perf_counter()
        out = f()
        best = min(best, time.perf_counter() - start)
    return best, out


def through_nilearn(
    run, mask, first, in_frames=5
):  # one trial, the way without a store: load, mask, clean, cut, put back
    image = nib.load(run.bold)
    x = masking.apply_mask(image, nib.Nifti1Image(mask.astype(np.uint8), AFFINE), dtype='f')
    x = signal.clean(x, confounds=read_confounds(run.confounds, T).to_numpy(), t_r=TR, standardize='zscore_sample')
    return np.moveaxis(
        masking.unmask(x[first : first + in_frames], nib.Nifti1Image(mask.astype(np.uint8), AFFINE)).get_fdata(
            dtype=np.float32
        ),
        -1,
        0,
    )


def main(folder):
    mask, rows = head_mask(), []
    made = Made(folder, mask)
    size = made.all[0].bold.stat().st_size
    zipped = folder / 'gz'
    zipped.mkdir()
    gz = Made(zipped, mask, 1, '.nii.gz')
    print(
        f'{SHAPE} x {T} volumes, {size / 1e6:.0f} MB a run (int16; {2 * size / 1e6:.0f} MB as float32), {mask.sum()} '
        f'voxels in the brain ({mask.mean():.0%} of the box), {os.cpu_count()} processors'
    )

    def store(name, data, n, workers, **how):
        data.all, keep = data.all[:n], data.all
        seconds, out = timed(lambda: store_runs(data, folder / name.replace(' ', '_'), workers=workers, **how), 2)
        data.all = keep
        rows.append(
            (
                name,
                f'{seconds / n:.2f} s a run',
                f'{n * size / seconds / 1e6:.0f} MB/s',
                f'{2 * n * size / seconds / 1e6:.0f} MB/s as float32',
            )
        )
        return RunStore(out)

    own = store('two runs, two threads', made, 2, 2)
    store('two runs, one thread', made, 2, 1)
    store('one run, one thread', made, 1, 1)
    mni = store('two runs, two threads, onto 3 mm', made, 2, 2, voxel_mm=3)
    store('gzip: one run, one thread', gz, 1, 1)
    trials = [Trial('01', 1 + i % 2, 12.0 + 4 * (i // 2), 2.0, f'{i}.mp4', 1, 'x', i // 2) for i in range(120)]
    for name, s in (('own grid', own), ('3 mm grid', mni)):
        blocks = Blocks(s, trials)
        out = blocks.batch([0])
        order = np.random.default_rng(0).permutation(120)
        for label, cut in (
            ('', lambda i, b=blocks: b[i]),
            (', into an earlier one', lambda i, b=blocks, out=out: b.batch([i], out=out)),
            (', brain voxels alone', lambda i, b=blocks: b.voxels([i])),
        ):
            each = [timed(partial(cut, int(i)))[0] for i in order]
            rows.append(
                (
                    f'block, {name} {s.shape}, {s.n_voxels} voxels{label}',
                    f'{np.median(each) * 1e3:.2f} ms',
                    f'95 % under {np.quantile(each, 0.95) * 1e3:.2f} ms',
                    '',
                )
            )
    first = first_volume(trials[20].onset, 2.0, TR)
    run = made.all[0]
    slow, theirs = timed(lambda: through_nilearn(run, mask, first))
    raw, _ = timed(lambda: np.asarray(nib.load(run.bold).dataobj[..., first : first + 5]), 3)
    slow_gz, _ = timed(lambda: through_nilearn(gz.all[0], mask, first))
    rows += [
        ('trial through nibabel + nilearn, uncompressed', f'{slow * 1e3:.0f} ms', '', ''),
        ('trial through nibabel + nilearn, gzip', f'{slow_gz * 1e3:.0f} ms', '', ''),
        ('its five volumes through nibabel, not cleaned', f'{raw * 1e3:.1f} ms', '', ''),
    ]
    print('\n'.join(f'{a:62s}{b:>16s}  {c:>22s}  {d}' for a, b, c, d in rows))
    print(
        f'largest difference between the two ways: {np.abs(Blocks(own, trials)[20].numpy() - theirs).max():.4f} '
        '(float16 in the store)'
    )


if __name__ == '__main__':
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True)
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
