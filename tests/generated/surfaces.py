"Grayordinates: CIFTI series and maps, GIFTI surfaces, MOSAIC's and HAD's betas."

import base64
import re
import struct
import zlib
from dataclasses import replace
import h5py
import nibabel as nib
import numpy as np
from hypothesis import strategies as st
from brainllm.data.files import read_cifti, read_rows, read_surface
from brainllm.data.trials import Trial
from brainllm.sources.betas import check_labels, match_maps
from brainllm.sources.mosaic import GRAYORDINATES, match_betas, mosaic_group, open_mosaic, read_map
from . import damage, Example, family, fault_of, pick, rng_of
from .images import put

ROWS = {  # attributes of the rows: name -> what is nonsense
    'SeriesExponent': ('400', '-400', '99', 'x', '0.5', ''),
    'SeriesStep': ('nan', 'inf', '0', '-2', '1e9', 'two', '1e-9', ''),
    'SeriesStart': ('nan', '-inf', '1e9', 'x', '-3'),
    'NumberOfSeriesPoints': ('0', '7777', 'x', '-1'),
}
CIFTI_HEADERS = {
    'magic': ('4s', 4, (b'n+1\0',)),
    'absurd rows': ('q', 16 + 8 * 5, (2**40,)),
    'absurd columns': ('q', 16 + 8 * 6, (2**40,)),
    'no rows': ('q', 16 + 8 * 5, (0,)),
    'negative columns': ('q', 16 + 8 * 6, (-4,)),
    'complex': ('hh', 12, (32, 64)),
    'colours': ('hh', 12, (128, 24)),
    'unknown type': ('h', 12, (77,)),
    'scale of NaN': ('dd', 176, (1.0, np.nan)),
    'infinite scale': ('dd', 176, (np.inf, 0)),
    'offset far away': ('q', 168, (2**50,)),
    'negative offset': ('q', 168, (-8,)),
    'offset in the header': ('q', 168, (16,)),
    'axes': ('q', 16, (4,)),
}


def made_cifti(draw, rows=None):  # image; rows: an axis, or None for one by chance
    rng = rng_of(draw)
    cortex = nib.cifti2.BrainModelAxis.from_surface
    n = int(rng.integers(3, 12))
    models = cortex(np.sort(rng.choice(20, n, False)), 20, 'CortexLeft')
    if pick(draw, (True, False)): models = models + cortex(np.arange(4), 20, 'CortexRight')
    if pick(draw, (True, False)):
        models = models + nib.cifti2.BrainModelAxis.from_mask(rng.random((3, 4, 2)) < 0.7, 'ThalamusLeft', np.eye(4))
    if rows is None:
        count, tr = draw(st.integers(1, 6)), pick(draw, (0.72, 1.0, 2.0))
        series = nib.cifti2.SeriesAxis(pick(draw, (0.0, 1.5)), tr, count, unit='SECOND')
        rows = pick(draw, (series, nib.cifti2.ScalarAxis([f'map {k}' for k in range(count)])))
    data = rng.standard_normal((len(rows), len(models))).astype(np.float32)
    return nib.Cifti2Image(data, (rows, models)), data


def in_xml(raw, change) -> bytes:  # change: text of the header -> another, padded to its length or refused by it
    size = struct.unpack('<i', raw[544:548])[0]
    text = raw[552 : 544 + size].rstrip(b'\0')
    new = change(text)
    room = size - 8
    if len(new) <= room: return raw[:552] + new.ljust(room, b'\0') + raw[544 + size :]
    more = -(-(len(new) - room) // 16) * 16
    head = put(raw[:544], '<q', 168, struct.unpack('<q', raw[168:176])[0] + more)
    return head + struct.pack('<ii', size + more, 32) + new.ljust(room + more, b'\0') + raw[544 + size :]


def attribute(name, value):  # a change for `in_xml`
    return lambda text: re.sub(rf'{name}="[^"]*"'.encode(), f'{name}="{value}"'.encode(), text, count=1)


def spoil_xml(draw, raw, fault):
    xml = {
        'a vertex too far': lambda t: re.sub(rb'(<VertexIndices>)\d+', rb'\g<1>9999999', t, count=1),
        'a negative vertex': lambda t: re.sub(rb'(<VertexIndices>)\d+', rb'\g<1>-1', t, count=1),
        'a vertex twice': lambda t: re.sub(rb'(<VertexIndices>)(\d+) \d+', rb'\1\2 \2', t, count=1),
        'a word for a vertex': lambda t: re.sub(rb'(<VertexIndices>)\d+', rb'\1x', t, count=1),
        'fewer vertices': lambda t: re.sub(rb'(<VertexIndices>)\d+ ', rb'\1', t, count=1),
        'a voxel twice': lambda t: re.sub(rb'(<VoxelIndicesIJK>)(\d+ \d+ \d+)\s\d+ \d+ \d+', rb'\1\2 \2', t, count=1),
        'a voxel too far': lambda t: re.sub(rb'(<VoxelIndicesIJK>)\d+', rb'\g<1>999', t, count=1),
        'a negative voxel': lambda t: re.sub(rb'(<VoxelIndicesIJK>)\d+', rb'\g<1>-2', t, count=1),
        'another count': attribute('IndexCount', 777),
        'a negative count': attribute('IndexCount', -3),
        'another offset': attribute('IndexOffset', 2),
        'another mesh': attribute('SurfaceNumberOfVertices', 3),
        'unknown structure': attribute('BrainStructure', 'CORTEX_OF_NOBODY'),
        'no models': lambda t: t.replace(b'BRAIN_MODELS', b'PARCELS'),
        'no XML': lambda t: b'<CIFTI',
        'a bomb of names': lambda t: BOMB + t.partition(b'?>')[2].lstrip().replace(b'<Matrix>', b'<Matrix>&d;', 1),
    }
    return in_xml(raw, xml[fault])


BOMB = b'<?xml version="1.0"?><!DOCTYPE CIFTI [<!ENTITY a "' + b'ha' * 500 + b'"><!ENTITY b "' + b'&a;' * 100
BOMB += b'"><!ENTITY c "' + b'&b;' * 100 + b'"><!ENTITY d "' + b'&c;' * 100 + b'">]>'
CIFTI_XML = (
    'a vertex too far',
    'a negative vertex',
    'a vertex twice',
    'a word for a vertex',
    'fewer vertices',
    'a voxel twice',
    'a voxel too far',
    'a negative voxel',
    'another count',
    'a negative count',
    'another offset',
    'another mesh',
    'unknown structure',
    'no models',
    'no XML',
    'a bomb of names',
)


@family('CIFTI')
def cifti(draw, folder):
    image, data = made_cifti(draw)
    series = isinstance(image.header.get_axis(0), nib.cifti2.SeriesAxis)
    path = folder / f'x.{"dtseries" if series else "dscalar"}.nii'
    image.to_filename(path)
    raw, field = path.read_bytes(), ''
    fault = fault_of(draw, (*CIFTI_HEADERS, *CIFTI_XML, *(ROWS if series else ()), 'cut', 'NaN', *damage.WHOLLY))
    if 'voxel' in fault and image.header.get_axis(1).volume_shape is None: fault = ''
    if fault in CIFTI_HEADERS:
        form, at, found = CIFTI_HEADERS[fault]
        path.write_bytes(put(raw, '<' + form, at, *found))
    elif fault in CIFTI_XML:
        path.write_bytes(spoil_xml(draw, raw, fault))
    elif fault in ROWS:
        path.write_bytes(in_xml(raw, attribute(fault, pick(draw, ROWS[fault]))))
        field = '' if fault == 'NumberOfSeriesPoints' else fault
    elif fault == 'cut': damage.cut(draw, path)
    elif fault == 'NaN': path.write_bytes(raw[:-4] + struct.pack('<f', np.nan))
    elif fault: damage.replace(draw, path, fault)

    def read():
        found = read_cifti(path)
        return read_rows(path, found), found.step, found.start, found.models == image.header.get_axis(1)

    rows = image.header.get_axis(0)
    want = (data, rows.step if series else None, rows.start if series else 0.0, True)
    return Example(read, path.name, want, fault, field)


@family('CIFTI, a byte changed')
def touched(draw, folder):
    image, _ = made_cifti(draw)
    path = folder / 'x.dtseries.nii'
    image.to_filename(path)
    damage.touch(draw, path)
    return Example(lambda: read_rows(path), path.name, None, 'a byte', either=True)


GIFTI = (
    'a number of NaN',
    'pairs',
    'no points',
    'two sets of points',
    'another file',
    'absurd size',
    'negative size',
    'size is no number',
    'another size',
    'a bomb',
    'not base64',
    'not packed',
    'unknown type',
    'unknown encoding',
    'unknown order of bytes',
    'letters',
    'a bomb of names',
    'cut',
    'no XML',
)


@family('GIFTI')
def gifti(draw, folder):
    path = folder / 'x.surf.gii'
    points = rng_of(draw).uniform(-90, 90, (draw(st.integers(1, 9)), 3)).astype(np.float32)
    fault = fault_of(draw, (*GIFTI, *damage.WHOLLY))
    if fault == 'a number of NaN': points[0, 1] = np.nan
    kind = 'NIFTI_INTENT_TIME_SERIES' if fault == 'no points' else 'NIFTI_INTENT_POINTSET'
    encoding = pick(draw, ('GIFTI_ENCODING_ASCII', 'GIFTI_ENCODING_B64BIN', 'GIFTI_ENCODING_B64GZ'))
    arrays = []
    for _ in range(2 if fault == 'two sets of points' else 1):
        own = points[:, :2] if fault == 'pairs' else points
        arrays.append(nib.gifti.GiftiDataArray(own, kind, 'NIFTI_TYPE_FLOAT32', encoding))
    image = nib.gifti.GiftiImage(darrays=arrays)
    path.write_bytes(image.to_xml())
    if fault == 'cut': damage.cut(draw, path, 30)
    elif fault in damage.WHOLLY: damage.replace(draw, path, fault)
    elif fault: path.write_bytes(spoil_gifti(draw, path.read_bytes(), fault))
    if encoding.endswith('ASCII') and not fault: points = read_ascii(path)
    return Example(lambda: read_surface(path), path.name, points, fault)


def read_ascii(path):  # what the text says, since it has fewer digits
    words = re.search(r'<Data>(.*?)</Data>', path.read_text(), re.S)[1].split()
    return np.array(words, np.float32).reshape(-1, 3)


ZEROS = base64.b64encode(zlib.compress(bytes(2**27), 9))


def data_of(content):  # a change of an element Data and its encoding
    def change(raw):
        raw = re.sub(rb'Encoding="[^"]*"', b'Encoding="GZipBase64Binary"', raw)
        return re.sub(rb'<Data>.*?</Data>', b'<Data>' + content + b'</Data>', raw, flags=re.S)

    return change


def spoil_gifti(draw, raw, fault) -> bytes:
    outside = b'ExternalFileName="/etc/hostname" Encoding="ExternalFileBinary"'
    changes = {
        'another file': lambda r: re.sub(rb'Encoding="[^"]*"', outside, r.replace(b'ExternalFileName=""', b'')),
        'absurd size': attribute('Dim0', 10**12),
        'negative size': attribute('Dim0', -1),
        'size is no number': attribute('Dim0', 'many'),
        'another size': attribute('Dim0', 77),
        'a bomb': data_of(ZEROS),
        'not base64': data_of(b'!!!! ???? ****'),
        'not packed': data_of(base64.b64encode(b'plain bytes')),
        'unknown type': attribute('DataType', 'NIFTI_TYPE_RGB24'),
        'unknown encoding': attribute('Encoding', 'Morse'),
        'unknown order of bytes': attribute('Endian', 'MiddleEndian'),
        'letters': lambda r: re.sub(rb'<Data>.*?</Data>', b'<Data>a b c</Data>', r, flags=re.S),
        'a bomb of names': lambda r: BOMB.replace(b'CIFTI', b'GIFTI') + r[r.index(b'<GIFTI') :].replace(b'<Data>', b'<Data>&d;'),
        'no XML': lambda r: b'GIFTI',
    }
    return changes[fault](raw) if fault in changes else raw


MOSAIC = ('another shape', 'whole numbers', 'a group', 'NaN not listed', 'another clip', 'no map', 'two maps')
MOSAIC += ('a strange clip', 'another phase', 'a strange name', 'no betas', 'attribute is text', 'cut')


def mosaic_name(trial, phase=None):
    phase = phase or ('test' if trial.run in (10, 11, 12) else 'train')
    return f'sub-01_HAD_stimulus-{trial.clip.replace(" ", "_")[:-4]}_phase-{phase}_rep-0'


@family('MOSAIC')
def mosaic(draw, folder):
    path, rng = folder / 'sub-01_HAD.hdf5', rng_of(draw)
    trials = [Trial('01', run, 12.0, 2.0, f'Hand car wash {run}.mp4', 1, 'Hand car wash', 0) for run in (1, 2, 10)]
    one = trials[pick(draw, range(3))]
    fault = fault_of(draw, (*MOSAIC, 'empty', 'a page', 'missing', 'noise'))
    maps = {mosaic_name(t): rng.standard_normal(GRAYORDINATES).astype(np.float32) for t in trials}
    name = mosaic_name(one)
    values, attrs = spoil_map(fault, maps, name, one)
    with h5py.File(path, 'w') as file:
        group = file.create_group('beta' if fault == 'no betas' else 'betas')
        for key, value in maps.items(): group.create_dataset(key, data=value)
        if name in group and fault == 'a group':
            del group[name]
            group.create_group(name)
        if name in group: group[name].attrs.update(attrs)
    if fault == 'cut': damage.cut(draw, path, 3000)
    elif fault in damage.WHOLLY: damage.replace(draw, path, fault)

    def read():
        with open_mosaic(None, '01', path) as file:
            group = mosaic_group(file, '01')
            names = match_betas(group, trials, file.filename)
            return [read_map(group, names[t]) for t in trials]

    want = [values if t is one and values is not None else maps.get(mosaic_name(t)) for t in trials]
    return Example(read, path.name, want, fault)


def spoil_map(fault, maps, name, trial):  # what is read of it, attributes
    attrs = dict(presented_stimulus_filename=trial.clip)
    if fault == 'another shape': maps[name] = maps[name][:-1]
    if fault == 'whole numbers': maps[name] = maps[name].astype(np.int32)
    if fault == 'NaN not listed': maps[name][5] = np.nan
    if fault == 'another clip': attrs['presented_stimulus_filename'] = 'Cooking.mp4'
    if fault == 'no map': del maps[name]
    if fault == 'two maps': maps[name.replace('rep-0', 'rep-1')] = maps[name]
    if fault == 'a strange clip': maps[name.replace('wash', 'dry')] = maps.pop(name)
    if fault == 'another phase': maps[mosaic_name(trial, 'train' if trial.run == 10 else 'test')] = maps.pop(name)
    if fault == 'a strange name': maps['beta 7'] = maps.pop(name)
    if fault == 'attribute is text': attrs['nan_indices'] = 'none'
    if fault: return None, attrs
    maps[name][7] = np.inf
    attrs['nan_indices'] = np.array([7])
    want = maps[name].copy()
    want[7] = np.nan
    return want, attrs


@family('labels of betas')
def labels(draw, folder):
    path = folder / 'cycle-1_label.txt'
    trials = [Trial('01', 1 + k // 2, 12.0 + 4 * (k % 2), 2.0, f'A b/v_{k}.mp4', k + 1, 'A b', k % 2) for k in range(6)]
    faults = ('a line less', 'a line more', 'two swapped', 'another clip', 'empty', 'a page', 'noise')
    fault, lines = fault_of(draw, (*faults, 'a class twice', 'a trial left out')), [f'v_{k}.mp4' for k in range(6)]
    if fault == 'a line less': lines.pop()
    if fault == 'a line more': lines.append('v_9.mp4')
    if fault == 'two swapped': lines[1], lines[2] = lines[2], lines[1]
    if fault == 'another clip': lines[3] = 'v_33.mp4'
    if fault == 'a class twice': trials[2] = replace(trials[2], label=1)
    if fault == 'a trial left out': trials.pop(0)
    path.write_text('\n'.join(lines) + pick(draw, ('', '\n')))
    if fault in damage.WHOLLY: damage.replace(draw, path, fault)

    def read():
        found = match_maps(trials, 6, path)
        check_labels(path, trials)
        return found

    return Example(read, path.name, {1: [0, 1], 2: [2, 3], 3: [4, 5]}, fault)
