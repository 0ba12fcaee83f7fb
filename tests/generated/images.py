"Volumes and series: NIfTI, plain and packed."

import gzip
import struct
import nibabel as nib
import numpy as np
from hypothesis import strategies as st
from brainllm.data.files import Run, read_image, read_series
from brainllm.data.grid import subject_mask
from . import damage, Example, family, fault_of, pick, rng_of

TYPES = ('<i2', '>i2', '<u2', '<u1', '<i1', '<i4', '<f4', '>f4', '<f8')
# in what way a header is wrong: format, place, values, and what the refusal must name
HEADERS = {
    'no orientation': ('hh', 252, (0, 0), 'qform_code and sform_code'),
    'flat affine': ('4f', 280, (0, 0, 0, 0), 'affine'),
    'two axes alike': ('8f', 280, (0, 3, 0, 0, 0, 3, 0, 0), 'affine'),
    'infinite affine': ('f', 280, (np.inf,), 'affine'),
    'affine of NaN': ('f', 292, (np.nan,), 'affine'),
    'voxels of nothing': ('12f', 280, (1e-30, 0, 0, 0, 0, 1e-30, 0, 0, 0, 0, 1e-30, 0), 'affine'),
    'origin far away': ('f', 292, (1e30,), 'affine'),
    'inter of NaN': ('ff', 112, (2, np.nan), 'scl_inter'),
    'infinite inter': ('ff', 112, (1, -np.inf), 'scl_inter'),
    'infinite slope': ('ff', 112, (np.inf, 0), 'scl_slope'),
    'slope that overflows': ('ff', 112, (3e38, 3e38), ''),
    'complex64': ('hh', 70, (32, 64), 'datatype'),
    'complex128': ('hh', 70, (1792, 128), 'datatype'),
    'colours': ('hh', 70, (128, 24), 'datatype'),
    'unknown type': ('h', 70, (77,), ''),
    'no type': ('h', 70, (0,), ''),
    'absurd size': ('hhhhh', 40, (4, 32000, 32000, 32000, 32000), ''),
    'one axis absurd': ('h', 42, (32767,), ''),
    'many volumes': ('h', 48, (32767,), ''),
    'no volumes': ('h', 48, (0,), 'dim'),
    'negative size': ('h', 42, (-3,), ''),
    'three axes': ('h', 40, (3,), ''),
    'eight axes': ('h', 40, (8,), ''),
    'negative axes': ('h', 40, (-1,), ''),
    'offset of NaN': ('f', 108, (np.nan,), ''),
    'infinite offset': ('f', 108, (np.inf,), ''),
    'offset far away': ('f', 108, (1e15,), ''),
    'negative offset': ('f', 108, (-352,), ''),
    'offset in the header': ('f', 108, (16,), ''),
    'another TR': ('f', 92, (3.3,), 'repetition time'),
    'TR of NaN': ('f', 92, (np.nan,), 'repetition time'),
    'negative TR': ('f', 92, (-2,), ''),
    'a pair of files': ('4s', 344, (b'ni1\0',), ''),
    'no magic': ('4s', 344, (b'\0\0\0\0',), ''),
    'another length of the header': ('i', 0, (540,), ''),
}
VALUES = ('a volume of NaN', 'one infinite value', 'a volume of one value', 'all volumes alike', 'swallowed by inter')
FILES = ('cut', 'more behind it', 'a bomb', 'a packed byte changed', 'packed once more', 'not packed')


def made_image(draw, axes=4) -> tuple:  # image, the values in float32, the TR in s
    rng = rng_of(draw)
    shape = tuple(draw(st.integers(2, 5)) for _ in range(3)) + ((draw(st.integers(5, 12)),) if axes == 4 else ())
    kind = np.dtype(pick(draw, TYPES))
    stored = rng.integers(-100 if kind.kind != 'u' else 0, 100, shape).astype(kind)
    if kind.kind == 'f': stored = (stored + rng.standard_normal(shape)).astype(kind)
    turn = np.zeros((4, 4))
    for row, (column, way) in enumerate(zip(rng.permutation(3), rng.choice([-1, 1], 3), strict=True)):
        turn[row, column] = way * rng.uniform(1, 5)
    turn[:, 3] = [*rng.uniform(-90, 90, 3), 1]
    image = nib.Nifti1Image(stored, turn, nib.Nifti1Header(endianness=kind.str[0] if kind.str[0] in '<>' else '<'))
    image.header.set_data_dtype(kind)
    if pick(draw, (True, False)): image.set_qform(turn, 1)
    tr = pick(draw, (0.8, 1.5, 2.0, 2.5))
    if axes == 4:
        unit, times = pick(draw, (('sec', 1), ('msec', 1000), ('unknown', 1)))
        image.header['pixdim'][4] = pick(draw, (tr * times, 0))
        image.header.set_xyzt_units('mm', unit)
    if pick(draw, (True, False, False)):
        image.header.extensions.append(nib.nifti1.Nifti1Extension('comment', b'written by somebody'))
    return image, stored, tr


def scaled(draw, raw, stored) -> tuple:  # bytes with a scale, what the values are
    order = '<' if raw[:4] == struct.pack('<i', 348) else '>'
    slope, inter = pick(draw, ((0, 0), (1, 0), (np.nan, np.nan), (0.5, 0), (2, -7), (0.01, 1000)))
    raw = put(raw, f'{order}ff', 112, slope, inter)
    if not np.isfinite(slope) or slope == 0: slope, inter = 1, 0
    return raw, stored.astype(np.float32) * np.float32(slope) + np.float32(inter)


def put(raw, form, at, *values) -> bytes:
    raw = bytearray(raw)
    struct.pack_into(form, raw, at, *values)
    return bytes(raw)


def spoil_values(image, fault):
    x = np.array(image.dataobj, np.float32) + 500
    if fault == 'a volume of NaN': x[..., 1] = np.nan
    elif fault == 'one infinite value': x[1, 1, 1, 2] = np.inf
    elif fault == 'a volume of one value': x[..., 0] = 7
    elif fault == 'all volumes alike': x[...] = x[..., :1]
    new = nib.Nifti1Image(x, image.affine)
    new.header['pixdim'][4] = image.header['pixdim'][4]
    new.header.set_xyzt_units(*image.header.get_xyzt_units())
    raw = new.to_bytes()
    return put(raw, '<ff', 112, 1, 1e11) if fault == 'swallowed by inter' else raw


def spoil_file(draw, path, raw, fault):
    packed = path.suffix == '.gz'
    if fault == 'cut': damage.cut(draw, path, 9)
    elif fault == 'more behind it': path.write_bytes(pack(raw + raw[400:] * 3, packed))
    elif fault == 'a bomb': path.write_bytes(bomb(raw, packed))
    elif fault == 'packed once more': path.write_bytes(gzip.compress(path.read_bytes()))
    elif fault == 'not packed': path.write_bytes(raw if packed else gzip.compress(raw))
    else: damage.touch(draw, path, first=20, last=None if packed else 20 + 1)


ZEROS = gzip.compress(bytes(2**24), 9)


def bomb(raw, packed) -> bytes:  # 1,000 MB of zeros behind a header that says so
    raw = put(raw, '<hhhhh', 40, 4, 1000, 1000, 500, 1)
    if not packed: return raw
    return gzip.compress(raw) + ZEROS * 60


def pack(raw, packed): return gzip.compress(raw) if packed else raw


@family('NIfTI series')
def series(draw, folder):
    path = folder / pick(draw, ('bold.nii', 'bold.nii.gz'))
    image, stored, tr = made_image(draw)
    raw, values = scaled(draw, image.to_bytes(), stored)
    order = '<' if raw[:4] == struct.pack('<i', 348) else '>'
    fault, field = fault_of(draw, (*HEADERS, *HEADERS, *VALUES, *FILES, *damage.WHOLLY)), ''
    if fault in HEADERS:
        form, at, found, field = HEADERS[fault]
        raw = put(raw, order + form, at, *found)
    if fault in VALUES: raw = spoil_values(image, fault)
    path.write_bytes(pack(raw, path.suffix == '.gz'))
    if fault in FILES: spoil_file(draw, path, raw, fault)
    if fault in damage.WHOLLY: damage.replace(draw, path, fault)
    run = Run('01', 1, 'action', path, None, tr)
    mask = np.ones(stored.shape[:3], bool)
    either = fault == 'a packed byte changed' and path.suffix != '.gz'
    want = values.reshape(-1, stored.shape[3]).T
    return Example(lambda: read_series(run, mask), path.name, want, fault, field, either)


@family('NIfTI header, a byte changed')
def touched(draw, folder):
    path = folder / 'bold.nii'
    image, stored, tr = made_image(draw)
    path.write_bytes(image.to_bytes())
    damage.touch(draw, path, last=348)
    run = Run('01', 1, 'action', path, None, tr)
    return Example(lambda: read_series(run, np.ones(stored.shape[:3], bool)), path.name, None, 'a byte', either=True)


@family('brain mask')
def mask(draw, folder):
    path = folder / pick(draw, ('mask.nii', 'mask.nii.gz'))
    image, _, _ = made_image(draw, axes=3)
    values = rng_of(draw).integers(0, 2, image.shape)
    values[0, 0, 0] = 1
    faults = ('empty mask', 'another grid', 'elsewhere', 'cut', *damage.WHOLLY)
    fault = fault_of(draw, faults)
    kind, shape, affine = pick(draw, (np.uint8, np.int16, np.float32)), values.shape, image.affine.copy()
    if fault == 'empty mask': values[...] = 0
    stored = values.astype(kind)
    if kind is np.float32: stored[values == 0] = np.nan  # as SPM writes it
    new = nib.Nifti1Image(stored, affine)
    path.write_bytes(pack(new.to_bytes(), path.suffix == '.gz'))
    if fault == 'another grid': shape = (shape[0] + 1, *shape[1:])
    if fault == 'elsewhere': affine[0, 3] += 3
    if fault == 'cut': damage.cut(draw, path, 9)
    if fault in damage.WHOLLY: damage.replace(draw, path, fault)
    run = Run('01', 1, 'action', folder / 'absent.nii.gz', None, 2.0, path)
    want = None if fault else np.asarray(values) > 0
    return Example(lambda: subject_mask(run, shape, affine), path.name, want, fault)


@family('NIfTI volume')
def volume(draw, folder):
    path = folder / pick(draw, ('t1.nii', 't1.nii.gz'))
    image, stored, _ = made_image(draw, axes=3)
    raw, values = scaled(draw, image.to_bytes(), stored)
    fault = fault_of(draw, ('cut', 'a bomb', *damage.WHOLLY))
    path.write_bytes(pack(raw, path.suffix == '.gz'))
    if fault in FILES: spoil_file(draw, path, raw, fault)
    if fault in damage.WHOLLY: damage.replace(draw, path, fault)

    def read():
        found = read_image(path)
        return found.affine, bool(np.allclose(found.get_fdata(), values, rtol=1e-5, atol=1e-3))

    return Example(read, path.name, (nib.Nifti1Image.from_bytes(raw).affine, True), fault)
