"Killed writers, two at once, and a disk that is full: whole or as before, nothing left behind, one sentence."

import os, shutil, subprocess, sys
from functools import partial
import numpy as np, pytest, torch
import torture_kills
from brainllm import decoder as room
from brainllm.core import BrainLLMError, write_json, write_jsonl
from brainllm.data.blocks import save_series
from brainllm.decoder import read_decoder, save_decoder
from brainllm.models.state import save_tensors
from brainllm.store import new_array, Store


def test_every_restart_ends_in_the_same_result():
    torture = [sys.executable, torture_kills.__file__, '6', '1']  # its own process: it forks, and this one has threads
    done = subprocess.run(torture, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kills = int(done.stdout.split(' kills')[0])
    assert 6 <= kills <= 12


@pytest.fixture(scope='module')
def decoder(tmp_path_factory):
    return torture_kills.small_decoder(Store(tmp_path_factory.mktemp('parts')))


@pytest.mark.parametrize('exchange', [True, False])
def test_a_decoder_is_replaced_without_a_moment_between(decoder, tmp_path, monkeypatch, exchange):
    if not exchange: monkeypatch.setattr(room, '_exchange', lambda new, folder: False)
    elif not room._exchange(made(tmp_path / 'a'), made(tmp_path / 'b')): pytest.skip('folders cannot be exchanged here')
    for _ in range(3): save_decoder(decoder, tmp_path / 'd', torture_kills.ABOUT)
    read_decoder(tmp_path / 'd')
    assert not [p for p in tmp_path.iterdir() if p.name.startswith('.')]


def made(folder):
    folder.mkdir()
    return folder


def test_what_was_moved_aside_comes_back(decoder, tmp_path):
    save_decoder(decoder, tmp_path / 'd', torture_kills.ABOUT)
    shutil.copytree(tmp_path / 'd', tmp_path / '.d.7.old')  # as a save that was killed after both its steps left it
    save_decoder(decoder, tmp_path / 'd', torture_kills.ABOUT)
    assert [p.name for p in tmp_path.iterdir()] == ['d']
    os.rename(tmp_path / 'd', tmp_path / '.d.7.old')  # between its steps
    with pytest.raises(BrainLLMError):  # this save is refused, and what was there is there again
        save_decoder(decoder, tmp_path / 'd', dict(licence=''))
    save_decoder(decoder, tmp_path / 'd', torture_kills.ABOUT)
    assert [p.name for p in tmp_path.iterdir()] == ['d']


@pytest.fixture
def full_disk(tmp_path):
    "A disk of three megabytes, and how to fill it."
    disk = tmp_path / 'disk'
    disk.mkdir()
    mount = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', disk], capture_output=True, text=True)
    if mount.returncode: pytest.skip(f'a small disk cannot be mounted here: {mount.stderr.strip()}')
    try:
        yield disk
    finally:
        subprocess.run(['umount', '--lazy', disk], check=True)  # an array may still be open


def fill(disk, leave=40_000):  # bytes that stay free
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / 'ballast').write_bytes(b'x' * (free - leave))


def big(kind, folder):
    many = np.ones((1000, 2000), np.float16)
    if kind == 'series': save_series(folder / 'a.npy', many)
    if kind == 'array': new_array(folder / 'a.npy', np.float16, (1000, 2000))[:] = 1
    if kind == 'tensors': save_tensors(dict(a=torch.from_numpy(many)), folder / 'a.safetensors')
    if kind == 'plain': np.save(folder / 'a.npy', many)
    if kind == 'text': (folder / 'a.txt').write_text('x' * 4_000_000)


@pytest.mark.parametrize('kind', ['series', 'array', 'tensors', 'plain', 'text'])
def test_a_full_disk_is_one_sentence(full_disk, kind):
    store = Store(full_disk / 'store')
    first = store.get('small', partial(torture_kills.write_study), dict(n=1))
    fill(full_disk)
    before = torture_kills.snapshot(full_disk / 'store')
    with pytest.raises(BrainLLMError, match='make room') as refused: store.get('large', partial(big, kind), dict(n=1))
    assert '\n' not in str(refused.value)
    assert torture_kills.snapshot(full_disk / 'store') == before and [p.name for p in store.root.iterdir()] == [first.name]
    Store(full_disk / 'store').verify(first)


def test_what_was_there_survives_a_full_disk(full_disk, decoder):
    save_decoder(decoder, full_disk / 'd', torture_kills.ABOUT, whole=False)
    rows = [dict(n=k) for k in range(10)]
    write_json(full_disk / 'a.json', rows)
    write_jsonl(full_disk / 'a.jsonl', rows)
    fill(full_disk)
    before = torture_kills.snapshot(full_disk)
    many = rows * 10_000
    for write in (
        lambda: save_decoder(decoder, full_disk / 'd', torture_kills.ABOUT),
        lambda: write_json(full_disk / 'a.json', many),
        lambda: write_jsonl(full_disk / 'a.jsonl', many),
    ):
        with pytest.raises(BrainLLMError, match='make room') as refused: write()
        assert '\n' not in str(refused.value) and torture_kills.snapshot(full_disk) == before
    assert not torture_kills.leftovers(full_disk)
    read_decoder(full_disk / 'd')
