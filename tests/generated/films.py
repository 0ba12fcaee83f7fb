"Films, written by PyAV; few, since each takes a while."

import av
import numpy as np
from hypothesis import strategies as st
from brainllm.data.frames import film_length
from brainllm.video.clips import read_clip
from . import damage, Example, family, fault_of, pick, rng_of

FORMS = {'mp4': 'mpeg4', 'avi': 'mpeg4', 'mkv': 'mpeg4', 'mov': 'mpeg4'}
FAULTS = ('cut', 'half', 'a page', 'a pointer', 'an annex pointer', 'empty', 'noise', 'missing', 'a dangling link')
FAULTS += ('a folder', 'a picture', 'sound alone', 'a list of other files')


def write_film(path, codec, frames):  # frames (T, H, W, 3) uint8
    with av.open(str(path), 'w') as film:
        stream = film.add_stream(codec, rate=8)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = 'yuv420p'
        for frame in frames: film.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        film.mux(stream.encode())


def write_sound(path):
    with av.open(str(path), 'w') as film:
        stream = film.add_stream('aac', rate=44100)
        sound = np.zeros((1, 44100), np.float32)
        frame = av.AudioFrame.from_ndarray(sound, 'flt', 'mono')
        frame.sample_rate = 44100
        film.mux(stream.encode(frame))
        film.mux(stream.encode())


def write_picture(path):
    with av.open(str(path), 'w', 'image2', options=dict(update='1')) as picture:
        stream = picture.add_stream('png', rate=1)
        stream.height = stream.width = 32
        stream.pix_fmt = 'rgb24'
        picture.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        picture.mux(stream.encode())


@family('films')
def films(draw, folder):
    form = pick(draw, FORMS)
    path, n = folder / f'film.{form}', draw(st.integers(2, 12))
    shades = np.linspace(10, 240, n).astype(np.uint8)
    frames = np.broadcast_to(shades[:, None, None, None], (n, 32, 48, 3)).copy()
    write_film(path, FORMS[form], frames)
    fault = fault_of(draw, FAULTS)
    if fault == 'cut': damage.cut(draw, path, path.stat().st_size // 3)
    if fault == 'half': path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if fault == 'a picture': write_picture(path)
    if fault == 'sound alone': write_sound(folder / 'film.mp4')
    if fault == 'sound alone': path = folder / 'film.mp4'
    if fault == 'a list of other files': path.write_text('ffconcat version 1.0\nfile /etc/hostname\n')
    if fault in damage.WHOLLY: damage.replace(draw, path, fault)

    def read():
        found, rate, index = read_clip(path)
        near = np.abs(found.mean((1, 2, 3)) - shades).max() < 12
        return found.shape, rate, list(index), bool(near)

    return Example(read, path.name, ((n, 32, 48, 3), 8.0, list(range(n)), True), fault)


@family('films, a byte changed')
def touched(draw, folder):
    path = folder / f'film.{pick(draw, FORMS)}'
    frames = rng_of(draw).integers(0, 255, (4, 16, 16, 3)).astype(np.uint8)
    write_film(path, 'mpeg4', frames)
    damage.touch(draw, path)

    def read(): return film_length(path), read_clip(path, 2, 8)[0].shape

    return Example(read, path.name, None, 'a byte', either=True)
