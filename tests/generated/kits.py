"The film of Chen et al. in its own kit, and the parcel series of HCP."

import shutil
import tempfile
from functools import cache
from pathlib import Path
import numpy as np
import scipy.io
from hypothesis import strategies as st
from made_sherlock import change_events, change_series, change_table, kit_file, TABLE, write_kit
from brainllm.datasets.hcp import read_parcels
from brainllm.datasets.sherlock import kit_folder, read_annotation, read_mat, read_scene_events, Sherlock
from . import damage, Example, family, fault_of, pick, rng_of

SECONDS = ('Start Time (s) ', 'End Time (s) ')
VOLUMES = ('Start Time (TRs, 1.5s)', 'End Time (TRs, 1.5s)')
CELLS = {  # column -> what is nonsense in it
    'Segment Number': (None, 'x', -1, 1.5, 99, 'inf', float('inf'), '9' * 400),
    SECONDS[0]: (None, 'x', -3, 10**6, 1.5, 'nan', 'inf'),
    SECONDS[1]: (None, 'x', -3, 10**6, 0.5),
    VOLUMES[0]: ('x', -3, 0, 10**6, 1.5, 10**30),
    VOLUMES[1]: ('x', -3, 0, 10**6, 1.5),
    'Arousal - Rater 1': ('x', 9, -1, 2.5, 'inf'),
    'Valence - Rater 2': ('x', 7),
    'Scene Segments': ('7 Scene', '0. x', '99. x'),
}
FILES = ('cut', 'empty', 'a page', 'a pointer', 'missing', 'a folder', 'noise')


@cache
def kit() -> Path:  # made once
    return write_kit(tempfile.mkdtemp(), people=2)


@cache
def annotation():
    return read_annotation(kit_folder(kit()) / 'subjects' / TABLE)


@family('annotation, xlsx')
def table(draw, folder):
    shutil.copytree(kit(), folder, dirs_exist_ok=True)
    path = kit_folder(folder) / 'subjects' / TABLE
    shapes = ('a column is missing', 'a column twice', 'no rows', 'rows swapped', 'a row less')
    fault = fault_of(draw, (*CELLS, *shapes, *FILES))
    row = draw(st.integers(1, 8))

    def change(found):
        if fault in CELLS: found.loc[row, fault] = pick(draw, CELLS[fault])
        if fault == 'a column is missing': return found.drop(columns=[pick(draw, CELLS)])
        if fault == 'no rows': return found.iloc[:0]
        if fault == 'rows swapped': found.iloc[[row, row + 1]] = found.iloc[[row + 1, row]].to_numpy()
        if fault == 'a row less': return found.drop(index=row)
        if fault == 'a column twice': return found.assign(**{' Location ': 'x'})

    if fault and fault not in FILES: change_table(folder, change)
    if fault == 'cut': damage.cut(draw, path)
    elif fault in FILES: damage.replace(draw, path, fault)

    def read():
        found = read_annotation(path)
        return found.segments == annotation().segments, found.lengths

    return Example(read, path.name, (True, (30, 34)), fault)


EVENTS = {
    'fullSL1': (np.zeros((0, 2)), np.array([[5, 2]]), np.array([[1.0, np.nan]]), 'x', 7, np.ones(3)),
    'fullSL1_s': (np.zeros((1, 2)), 'x', np.array([[np.inf, 1]])),
    'SL_event_num': (np.array([1, 1]), 'x', np.array([np.nan]), 7),
    'events': (7, 'x', np.zeros(2)),
    'freerecall_s': (np.zeros((1, 2)), 'x', np.ones(3)),
}


@family('scene events, .mat')
def events(draw, folder):
    shutil.copytree(kit(), folder, dirs_exist_ok=True)
    path = kit_folder(folder) / 'subjects' / 'sherlock_allsubs_events.mat'
    fault = fault_of(draw, (*EVENTS, 'a field is missing', 'a stranger', 'nobody', *FILES))
    who = pick(draw, ('s1', 's2'))

    def change(held):
        if fault in EVENTS: held[who][fault] = pick(draw, EVENTS[fault])
        if fault == 'a field is missing': del held[who][pick(draw, EVENTS)]
        if fault == 'a stranger': held['somebody'] = held['s1']
        if fault == 'nobody': held.clear()

    if fault and fault not in FILES: change_events(folder, change)
    if fault == 'cut': damage.cut(draw, path)
    elif fault in FILES: damage.replace(draw, path, fault)

    def read():
        found = read_scene_events(path)
        return sorted(found.recalled), sorted(set(found.runs))

    return Example(read, path.name, (['01', '02'], [1, 2]), fault)


SERIES = ('a row less', 'NaN', 'whole numbers', 'words', 'three axes', 'a volume less', 'voxels left out', 'no rdata')


@family('series of the kit, .mat')
def series(draw, folder):
    shutil.copytree(kit(), folder, dirs_exist_ok=True)
    path = kit_file(folder, 1, 'movie')
    fault = fault_of(draw, (*SERIES, *(f for f in FILES if f not in ('missing', 'a folder'))))
    held = read_mat(path, 'rdata')['rdata']
    spoilt = {
        'a row less': held[:-1],
        'NaN': np.where(np.arange(held.size).reshape(held.shape) == 5, np.nan, held),
        'whole numbers': held.astype(np.int16),
        'words': np.array(['a', 'b']),
        'three axes': held[..., None] * np.ones(2),
        'a volume less': held[:, :-1],
    }
    if fault in spoilt: change_series(folder, 1, lambda _: spoilt[fault])
    if fault == 'voxels left out': change_series(folder, 1, lambda x: x, keptvox=np.zeros((len(held), 1), np.uint8))
    if fault == 'no rdata': scipy.io.savemat(path, dict(other=held))
    if fault == 'cut': damage.cut(draw, path)
    elif fault in FILES: damage.replace(draw, path, fault)

    def read():
        found = Sherlock(folder).film('01')
        return found.shape, bool(np.isclose(np.sort(found.ravel()), np.sort(held.ravel())).all())

    return Example(read, path.name, (held.shape[::-1], True), fault)


PARCELS = ('a parcel less', 'NaN', 'complex', 'words', 'objects', 'one axis', 'no volumes', 'one volume', 'a name less')


@family('HCP parcels')
def parcels(draw, folder):
    path = folder / pick(draw, ('x.mat', 'x.npz'))
    x = rng_of(draw).standard_normal((4, draw(st.integers(20, 30))))
    fault = fault_of(draw, (*PARCELS, 'cut', *FILES[1:]))
    made = {
        'a parcel less': x[1:],
        'NaN': np.where(x == x.max(), np.nan, x),
        'complex': x + 1j,
        'words': np.full(x.shape, 'a'),
        'objects': np.full(x.shape, None, object),
        'one axis': x[:, 0],
        'no volumes': x[:, :0],
        'one volume': x[:, :1],
    }.get(fault, x)
    name = 'other' if fault == 'a name less' else 'tc' if path.suffix == '.mat' else 'arr_0'
    if path.suffix == '.npz': np.savez(path, **{name: made})
    elif fault == 'objects': scipy.io.savemat(path, {name: np.array([[1, 'a'], [2, 'b'], [3, 'c'], [4, 'd']], object)})
    else: scipy.io.savemat(path, {name: made})
    if fault == 'cut': damage.cut(draw, path, 40)
    elif fault in FILES: damage.replace(draw, path, fault)

    def read():
        found = read_parcels(path, 4)
        return found.shape, bool(np.isfinite(found).all()), bool(np.allclose(found.mean(0), 0, atol=1e-3))

    return Example(read, path.name, (x.shape[::-1], True, True), fault)
