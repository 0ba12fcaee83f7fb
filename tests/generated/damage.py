"What happens to any file: it is cut, emptied, replaced by something else, or one of its bytes is changed."

from hypothesis import strategies as st
from . import pick

PAGE = b'<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n'
POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n'
ANNEX = b'/annex/objects/MD5E-s1234--9f86d08.nii.gz\n'
WHOLLY = ('empty', 'a page', 'a pointer', 'an annex pointer', 'missing', 'a dangling link', 'a folder', 'noise')


def replace(draw, path, how):  # how: one of WHOLLY
    "Put something in the place of a file."
    path.unlink(missing_ok=True)
    if how == 'missing': return
    if how == 'a dangling link': return path.symlink_to('gone')
    if how == 'a folder': return path.mkdir()
    made = {'empty': b'', 'a page': PAGE, 'a pointer': POINTER, 'an annex pointer': ANNEX}
    path.write_bytes(made[how] if how in made else draw(st.binary(min_size=1, max_size=600)))


def cut(draw, path, least=1):  # least: bytes that are lost, and bytes that are left
    "Take away the end of a file."
    data = path.read_bytes()
    kept = draw(st.integers(min(least, len(data) - 1), len(data) - least))
    path.write_bytes(data[:kept])


def touch(draw, path, first=0, last=None):  # first, last: places among which one is changed
    "Change some bytes of a file, each once: the same change twice would be none."
    data, changed = bytearray(path.read_bytes()), set()
    for _ in range(pick(draw, (1, 1, 2, 8))):
        at, by = draw(st.integers(first, min(len(data), last or len(data)) - 1)), draw(st.integers(1, 255))
        if at not in changed: data[at] ^= by
        changed.add(at)
    path.write_bytes(bytes(data))
