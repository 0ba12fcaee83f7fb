"""Grayordinates into the store and blocks out of it, on a made subject of HAD's real shape.

That is 12 runs of 156 x 91,282, and confounds of 199 columns.

    python tests/bench_grayordinates.py

Prints a table. The machine's other work counts in: look at the load that it names."""

import os, resource, tempfile, time
from functools import partial
from pathlib import Path

for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
    os.environ.setdefault(name, '1')  # threads are the runs', not the sums'
import nibabel as nib, numpy as np
from nilearn.datasets import load_mni152_brain_mask
from brainllm.data.files import brain_models, read_cifti
from brainllm.data.grid import mni_grid
from brainllm.data.blocks import Blocks, RunStore
from brainllm.sources.grayordinates import CORTEX, ciftify_runs, grayordinate_mm, place, store_grayordinates
from brainllm.sources.betas import store_betas
from brainllm.simulate.made import made_models, made_surface
from brainllm.sources.grayordinates import subject_surfaces
from brainllm.simulate.made import write_made_had


def timed(f, n=1):  # s of one call, what it gave
    start = time.perf_counter()
    for _ in range(n):
        out = f()
    return (time.perf_counter() - start) / n, out


def whole_had(people=30):  # {source: voxels}, over made people as different as `made_surface` makes them
    shape, affine = mni_grid(3)
    axis = made_models()[1]
    points = {}
    deep = nib.affines.apply_affine(axis.affine, axis.voxel[CORTEX:])
    for s in range(1, people + 1):
        points[s] = np.concatenate(
            [made_surface('left', s)[axis.vertex[:29696]], made_surface('right', s)[axis.vertex[29696:CORTEX]], deep]
        )
    one, every, cortex = (
        int(place(p, shape, affine)[0].sum())
        for p in ({1: points[1]}, points, {s: mm[:CORTEX] for s, mm in points.items()})
    )
    return one, dict(
        ciftify=every, volume=int((load_mni152_brain_mask(resolution=3).get_fdata() > 0).sum()), beta=cortex
    )


def main():
    rows, say = [], lambda what, value: (rows.append(what), print(f'{what:<78} {value}'))[1]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        had = write_made_had(root / 'had', subjects=1, runs=12, per_run=60, gap=4.0, volumes=156)
        files = ciftify_runs(had, '01')
        for p in files.values():
            p.read_bytes()  # from memory, so that the disk is not what is measured
        size = 12 * 156 * 91282 * 4 / 1e6
        say('load of the machine before', f'{os.getloadavg()[0]:.2f} on {os.cpu_count()} cores')
        say('decompressed data of 12 runs', f'{size:.0f} MB')
        say('a header through nibabel', f'{1000 * timed(lambda: nib.load(files[1]).header.get_axis(1), 3)[0]:.1f} ms')
        brain_models.cache_clear()
        say(
            'a header through read_cifti, first of its wording',
            f'{1000 * timed(lambda: read_cifti(files[1]))[0]:.1f} ms',
        )
        say('a header through read_cifti, later ones', f'{1000 * timed(lambda: read_cifti(files[2]), 12)[0]:.2f} ms')
        for workers in (2, 1):
            best, cpu = np.inf, 0
            for k in range(3):
                brain_models.cache_clear()
                before = resource.getrusage(resource.RUSAGE_SELF)
                s, out = timed(partial(store_grayordinates, had, root / f'store-{workers}-{k}', workers=workers))
                after = resource.getrusage(resource.RUSAGE_SELF)
                if s < best:
                    best = s
                    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            say(
                f'12 runs into the store, headers and surfaces included, {workers} '
                f'thread{"s" if workers > 1 else ""}, best of 3',
                f'{best:.2f} s = {size / best:.0f} MB/s ({cpu:.1f} s of processor)',
            )
        store, trials = RunStore(out), had.trials()
        blocks = Blocks(store, trials)
        box = blocks.batch([0])
        order = np.random.default_rng(0).permutation(len(trials))
        [blocks.batch([i], out=box) for i in order]
        say(
            'a block (5, X, Y, Z) from the store, mean of 720 in any order',
            f'{1000 * timed(lambda: [blocks.batch([i], out=box) for i in order])[0] / len(order):.2f} ms',
        )
        mm = grayordinate_mm(read_cifti(files[1]), subject_surfaces(had, '01'))
        _, places = place({'01': mm}, *mni_grid(3))

        def through_nibabel(i):  # rows of the trial, put into the box; nothing is cleaned
            rows = np.asarray(
                nib.load(files[trials[i].run]).dataobj[blocks.starts[i][3] : blocks.starts[i][3] + 5], np.float32
            )
            out = np.zeros((5, *store.shape), np.float32)
            out.reshape(5, -1)[:, store.inside] = places['01'].to_voxels(rows)
            return out

        say(
            'the same block through nibabel, without any cleaning',
            f'{1000 * timed(lambda: [through_nibabel(i) for i in order[:10]])[0] / 10:.0f} ms',
        )
        s, betas = timed(lambda: store_betas(had, root / 'betas'))
        say('720 betas (4 x 180 x 59,412) into the store', f'{s:.2f} s = {4 * 180 * CORTEX * 4 / 1e6 / s:.0f} MB/s')
        blocks = Blocks(RunStore(betas), trials)
        box = blocks.batch([0])
        say(
            'a block from betas',
            f'{1000 * timed(lambda: [blocks.batch([i], out=box) for i in order])[0] / len(order):.2f} ms',
        )
    one, voxels = whole_had()
    say("voxels of 3 mm that one made person's grayordinates reach", one)
    for source, n in voxels.items():
        say(
            f'HAD, 360 runs, as {source} at 3 mm: {n} voxels',
            f'{2 * n * (60 if source == "beta" else 156) / 1e6:.1f} MB a run, '
            f'{360 * 2 * n * (60 if source == "beta" else 156) / 1e9:.1f} GB in all',
        )
    say('load of the machine after', f'{os.getloadavg()[0]:.2f}')


if __name__ == '__main__':
    main()
