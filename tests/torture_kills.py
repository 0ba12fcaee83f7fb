"""Runs that are killed at random moments, two at once on one store: every restart ends in the same result.

python tests/torture_kills.py 200 0    the number of kills, and a seed; ends with 1 where something was wrong"""

import hashlib, json, os, random, shutil, signal, sys, tempfile, threading, time, traceback
from functools import partial
from pathlib import Path
import numpy as np
import torch
import tqdm
from brainllm.core import read_jsonl, write_json, write_jsonl
from brainllm.data.blocks import save_series
from brainllm.decoder import BrainLLM, read_decoder, save_decoder
from brainllm.models.adaptors import AdaptorConfig, add_adaptors
from brainllm.models.encoder import BrainEncoder, encoder_from
from brainllm.models.llm import PromptedLLM
from brainllm.models.projection import Bridge, Projection
from brainllm.models.state import save_tensors
from brainllm.models.tokenizer import FMRITokenizer
from brainllm.store import hash_files, new_array, Store
from brainllm.weights import load_llm, prepare

ABOUT = dict(licence='cc-by-4.0', licences=dict(llm='none needed: random numbers'))
PASSING = ('seconds', 'peak_gb', 'commit', 'dirty')  # of a manifest: when and beside what it was made


def small_decoder(parts):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    llm = PromptedLLM(*load_llm(prepare('llm', 'tiny', parts)))
    tokenizer = FMRITokenizer(3, (9, 8, 7), 4, 24)
    encoder = encoder_from(BrainEncoder(24, 2, 2), tokenizer.coords)
    add_adaptors(encoder, AdaptorConfig(rank=3))
    projection = Projection(len(tokenizer.coords), 4, 24, 16, 8, 0.5)
    return BrainLLM(tokenizer, encoder, projection, Bridge(16, llm.dim, 12), llm, 8).eval().requires_grad_(False)


def write_study(folder):
    for person in ('01', '02', '03'):
        (folder / f'sub-{person}' / 'func').mkdir(parents=True)
        for run in (1, 2):
            file = folder / f'sub-{person}' / 'func' / f'sub-{person}_run-{run}_events.tsv'
            file.write_text('onset\tstim_file\n' + ''.join(f'{8 * k}\t{k}.mp4\n' for k in range(40)))
    write_jsonl(folder / 'captions.jsonl', [dict(clip=f'{k}.mp4', caption=f'clip {k}') for k in range(40)])


def write_series(study, folder):
    for k, file in enumerate(sorted(study.rglob('*_events.tsv'))):
        noise = np.random.default_rng(k).normal(size=(60, 300)) + len(file.read_text())
        save_series(folder / f'{file.stem}.npy', noise.astype(np.float16))
    write_json(folder / 'meta.json', dict(tr=2.0))


def write_features(study, folder):
    rows = read_jsonl(study / 'captions.jsonl')
    kept = new_array(folder / 'features.npy', np.float16, (len(rows), 500))
    for k in range(len(rows)): kept[k] = k
    kept.flush()
    write_json(folder / 'clips.json', [row['clip'] for row in rows])


def write_weights(series, features, folder):
    arrays = [np.load(file) for file in sorted(series.glob('*.npy'))]
    state = dict(a=torch.from_numpy(np.stack(arrays)).float(), b=torch.from_numpy(np.load(features / 'features.npy')))
    save_tensors(state, folder / 'model.safetensors')
    save_tensors(dict(train=state['a'][0].clone()), folder / 'tokens.safetensors')
    write_json(folder / 'log.json', [dict(loss=1 / (k + 1)) for k in range(100)])


def pipeline(root, decoder):
    "A study, what is made from it, a decoder and a table: what every run leaves, in a second."
    store = Store(root / 'small/artifacts', shared=Store(root / 'parts'))
    study = store.shared.get('study', write_study, dict(seed=1))
    series = store.get('series', partial(write_series, study), dict(study=study.name))
    features = store.get('features', partial(write_features, study), dict(study=study.name))
    inputs = dict(series=series.name, features=features.name)
    weights = store.get('stage1', partial(write_weights, series, features), inputs)
    hash_files(sorted(study.rglob('*.tsv')), root / 'parts/.hashes.json')
    save_decoder(decoder, root / 'decoder', ABOUT)
    write_jsonl(root / 'small/texts.jsonl', [dict(trial=k, text=f'text {k}') for k in range(200)])
    write_json(root / 'small/result.json', dict(stage1=weights.name, scores=list(range(100))))


def started(root, decoder):  # -> pid of a run in a process of its own
    pid = os.fork()
    if pid: return pid
    try:
        log = os.open(root.with_suffix('.log'), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        pipeline(root, decoder)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def ended(pid):  # -> exit code, or minus the signal
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def held(file):  # what has to be the same in every run
    if file.name != 'manifest.json': return hashlib.sha256(file.read_bytes()).hexdigest()
    return {k: v for k, v in json.loads(file.read_text()).items() if k not in PASSING}


def snapshot(root):
    files = [p for p in sorted(root.rglob('*')) if p.is_file() and p.name != '.hashes.json']
    return {p.relative_to(root).as_posix(): held(p) for p in files}


def leftovers(root):
    return sorted(p.relative_to(root).as_posix() for p in root.rglob('*') if p.suffix in ('.partial', '.old', '.unfinished'))


def check_whole(root):
    "Whatever can be seen is whole, also right after a kill."
    for manifest in root.glob('*/**/manifest.json'):
        if '.partial' not in str(manifest): Store(root).verify(manifest.parent)
    if (root / 'decoder').exists(): read_decoder(root / 'decoder')
    for file in root.glob('small/[a-z]*.json*'): assert file.read_text().endswith('\n'), f'{file} is cut short'


def torture(
    kills: int,
    folder: Path,
    seed: int = 0,
) -> dict:  # counts; raises AssertionError where anything went wrong
    tqdm.tqdm.set_lock(threading.RLock())  # its own is shared by forks: one killed while it holds it stops the others
    rng, decoder = random.Random(seed), small_decoder(Store(folder / 'llm'))
    assert ended(started(folder / 'first', decoder)) == 0, (folder / 'first.log').read_text()
    right = snapshot(folder / 'first')
    count = dict(kills=0, rounds=0, restarts=0, survivors=0, both=0, halves=0, absent=0, typical=1.0)
    while count['kills'] < kills:
        root = folder / f"round{count['rounds'] // 2}"  # every second round finds a finished run, whose decoder it replaces
        count['rounds'] += 1
        there = (root / 'decoder').exists()
        for _ in range(min(rng.randint(1, 6), kills - count['kills'])):
            _kill_some(root, decoder, rng, count)
            count['halves'] += bool(leftovers(root))
            if '--loud' in sys.argv: print(count, flush=True)
            count['absent'] += there and not (root / 'decoder').exists()
            check_whole(root)
        for pid in [started(root, decoder), started(root, decoder)]:
            assert ended(pid) == 0, root.with_suffix('.log').read_text()
        found = snapshot(root)
        other = sorted(k for k in found.keys() | right.keys() if found.get(k) != right.get(k))
        assert not other, f'{root}: not as without kills: {other}'
        assert not leftovers(root), f'{root}: left behind {leftovers(root)}'
        assert not count['absent'], f'{root}: a moment without the decoder that was there'
        if count['rounds'] % 2 == 0: shutil.rmtree(root)
    return count


def _kill_some(root, decoder, rng, count):  # until one was alive when it was killed
    root.parent.mkdir(exist_ok=True)
    while True:
        _want_something_new(root, rng)
        begin = time.time()
        pids = [started(root, decoder), started(root, decoder)]
        count['restarts'] += 2
        time.sleep(rng.uniform(0, count['typical']))
        doomed = pids if rng.random() < 0.3 else pids[:1]
        for pid in doomed: os.kill(pid, signal.SIGKILL)
        codes = [ended(pid) for pid in pids]
        died = codes.count(-signal.SIGKILL)
        assert set(codes) <= {0, -signal.SIGKILL}, f'ended with {codes}: ' + root.with_suffix('.log').read_text()
        if codes.count(0): count['typical'] = (count['typical'] + time.time() - begin) / 2
        count['kills'] += died
        count['survivors'] += codes.count(0)
        count['both'] += died == 2
        if died: return


def _want_something_new(root, rng):  # take away an artifact or two, so that there is something to write
    there = [p for p in root.glob('*/**/manifest.json') if '.partial' not in str(p)]
    for manifest in rng.sample(there, min(len(there), rng.randint(0, 2))): shutil.rmtree(manifest.parent)


def say(count: dict, seconds: float) -> str:
    return (
        f"{count['kills']} kills in {count['rounds']} rounds, two runs at once on one store ({count['restarts']} runs "
        f"started, {count['survivors']} beside or before a kill ended well, {count['both']} times both were killed); "
        f"{count['halves']} times something half-written was there afterwards. Every round ended in the same bytes, "
        f"nothing was left behind, and a decoder that was there was never away. {seconds:.0f} s"
    )


if __name__ == '__main__':
    begin = time.time()
    kills, seed = (*map(int, sys.argv[1:]), *(200, 0)[len(sys.argv) - 1 :])
    with tempfile.TemporaryDirectory() as made: counted = torture(kills, Path(made), seed)
    print(say(counted, time.time() - begin))
