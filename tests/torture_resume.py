"""Kill a run of `tiny` again and again, half of the times inside a training: `python tests/torture_resume.py [50]`.

Each restart must end in the same weights and the same table as a run that nobody stopped, and leave nothing behind.
Now and then a second run works on the same store."""

import glob
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from torture_kills import leftovers, PASSING, snapshot

HERE = Path(__file__).parent
EVERY_STEP = 'import runpy, sys, brainllm.optim; brainllm.optim.EVERY = 0.0; sys.argv = sys.argv[1:]; '
TRAINED = ('pretrained', 'video', 'stage1', 'teacher', 'stage2', 'evaluation')


def start(out, steps=HERE / 'ranks_steps.py'):
    code = EVERY_STEP + "runpy.run_path(sys.argv[0], run_name='__main__')"
    env = os.environ | dict(OMP_NUM_THREADS='1', PYTHONPATH=str(HERE.parent), TQDM_DISABLE='1')
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([sys.executable, '-c', code, str(steps), str(out)], env=env, **quiet)


def finish(process):
    said = process.communicate()[1]
    assert process.returncode == 0, said[-2000:]


def made(out):  # what training and evaluation leave, what each touched included; without when and how long
    found = snapshot(out / 'tiny/artifacts')
    for file in (out / 'tiny/artifacts').glob('evaluation-*/result.json'):
        known = json.loads(file.read_text())
        found[f'{file.parent.name}/result.json'] = {k: v for k, v in known.items() if k not in (*PASSING, 'phases')}
        found[f'{file.parent.name}/manifest.json']['files'].pop('result.json')  # of its seconds too
    return {k: v for k, v in found.items() if k.split('-')[0] in TRAINED}


def numbers(found):  # without the names of what else was made in the same process
    kept = {k: v for k, v in found.items() if not k.endswith('manifest.json')}
    return {k: v['rows'] if k.endswith('/result.json') else v for k, v in kept.items()}


def forget_training(out):
    for name in TRAINED:
        for old in (out / 'tiny/artifacts').glob(f'{name}-*'): shutil.rmtree(old)


def until_killed(out, rng, whole):  # -> 'inside a training' or 'elsewhere', or '' where it was done before
    process = start(out)
    wait = time.monotonic() + rng.uniform(0.3, 1.0) * whole
    inside = rng.random() < 0.5
    while process.poll() is None and time.monotonic() < wait + 2 * whole * inside:
        checkpoints = glob.glob(f'{out}/tiny/artifacts/.*.unfinished/*.checkpoint')  # folders may go while it looks
        if inside and checkpoints and rng.random() < 0.1: break
        time.sleep(0.02)
    if process.poll() is not None:
        finish(process)
        forget_training(out)  # so that the next one has something to do
        return ''
    process.send_signal(signal.SIGKILL if rng.random() < 0.8 else signal.SIGTERM)
    process.communicate()
    return 'inside a training' if inside else 'elsewhere'


def torture(kills, seed=0):
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as tmp:
        calm, out = Path(tmp) / 'calm', Path(tmp) / 'killed'
        finish(start(calm))
        shutil.copytree(calm, out)
        forget_training(out)
        begin = time.monotonic()
        finish(start(out))
        whole = time.monotonic() - begin
        want = made(out)
        lost = {k for k, v in numbers(made(calm)).items() if numbers(want).get(k) != v}
        assert not lost, f'not the same twice, before anybody is killed: {lost}'
        done = dict.fromkeys(('inside a training', 'elsewhere', ''), 0)
        while sum(done.values()) - done[''] < kills:
            forget_training(out)
            for _ in range(rng.randint(1, 6)):
                done[until_killed(out, rng, whole)] += 1
                print(done, flush=True)
            runs = [start(out) for _ in range(rng.choice((1, 1, 2)))]
            for process in runs: finish(process)
            found = made(out)
            other = sorted(k for k in found.keys() | want.keys() if found.get(k) != want.get(k))
            assert not other, f'another end than that of a run that nobody stopped: {other}'
            assert not leftovers(out), leftovers(out)
            print('every end the same so far', flush=True)
        print(f'{kills} kills and more, {done}; every restart ended in the same {len(want)} files; nothing is left behind')


if __name__ == '__main__': torture(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
