"""Two processes give what one gives: the losses of each step, the weights, the table."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
import pytest
from brainllm.evaluate import read_result

HERE = Path(__file__).parent
ENV = os.environ | dict(OMP_NUM_THREADS='1', PYTHONPATH=str(HERE.parent))


def launch(config, processes, *more):
    words = ['-m', 'accelerate.commands.launch', '--config_file', str(HERE.parent / f'cluster/{config}.yaml')]
    return [*words, '--num_processes', str(processes), *more]


def run(out, processes, script='ranks_steps.py'):
    begin = [] if processes == 1 else launch('eight_gpus', processes)
    words = [sys.executable, *begin, str(HERE / script), str(out)]
    done = subprocess.run(words, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def hand_on(runs, others):  # what no process shares
    for name in ('parts', 'tiny/artifacts/study-*', 'tiny/artifacts/series-*'):
        for made in runs.glob(name): shutil.copytree(made, others / made.relative_to(runs))


@pytest.fixture(scope='module')
def both(tmp_path_factory):
    folders = {n: tmp_path_factory.mktemp(f'ranks{n}') for n in (1, 2)}
    said = {1: run(folders[1], 1)}
    hand_on(folders[1], folders[2])
    said[2] = run(folders[2], 2)
    assert 'process 0 of 1 is done' in said[1]
    assert all(f'process {k} of 2 is done' in said[2] for k in range(2))
    assert said[2].count('stage2: built') == 1, 'one of them speaks'
    return folders


def log(folder, stage):
    found = list((folder / 'tiny/artifacts').glob(f'{stage}-*/log.json'))
    assert len(found) == 1
    said = json.loads(found[0].read_text())
    return said['steps'] if stage == 'stage1' else said


def forget_stage2(folder):
    for name in ('stage2-*', 'evaluation-*'):
        for old in (folder / 'tiny/artifacts').glob(name): shutil.rmtree(old)
    for name in ('result.json', 'texts.jsonl'): (folder / 'tiny' / name).unlink()


@pytest.fixture(scope='module')
def begun_by_one(both, tmp_path_factory):  # two processes after Stage I of one, so that Stage II gets the same tokens
    folder = tmp_path_factory.mktemp('begun') / 'runs'
    shutil.copytree(both[1], folder)
    forget_stage2(folder)
    said = run(folder, 2)
    assert said.count('stage1: reused') == 1 and said.count('stage2: built') == 1
    return folder


@pytest.mark.parametrize('stage, names', [('stage1', {'clip', 'l2l1', 'tau'}), ('stage2', {'ce', 'nc', 'es', 'source'})])
def test_every_step_has_the_loss_of_one_process(both, begun_by_one, stage, names):
    one, two = log(both[1], stage), log(both[2] if stage == 'stage1' else begun_by_one, stage)
    assert len(one) == len(two) >= 10
    for a, b in zip(one, two, strict=True):
        assert set(a) == set(b) == names
        assert all(abs(a[k] - b[k]) < 1e-5 * max(1, abs(a[k])) for k in names), (a, b)


def test_stage_two_after_each_ones_own_stage_one(both):
    one, two = (log(both[n], 'stage2') for n in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert all(abs(a[k] - b[k]) < 1e-5 * max(1, abs(a[k])) for k in ('ce', 'nc', 'es')), (a, b)


def test_the_losses_of_the_teacher_and_of_pretraining(both):
    for name in ('video', 'pretrained'):
        files = [next((both[n] / 'tiny/artifacts').glob(f'{name}-*/losses.json')) for n in (1, 2)]
        one, two = (json.loads(file.read_text()) for file in files)
        flat = [x['align'] + x['teach'] if name == 'video' else x for x in (one, two)]
        assert len(flat[0]) == len(flat[1]) > 0
        assert all(abs(a - b) < 1e-5 * max(1, abs(a)) for a, b in zip(*flat, strict=True))


def test_the_same_table(both):
    (one, said), (two, also) = (read_result(both[n] / 'tiny') for n in (1, 2))
    assert said == also
    assert two['inputs'].items() <= one['inputs'].items(), 'which also made the study'
    for row, found in one['rows'].items():
        for place, scores in found['reference'].items():
            for subject, metrics in scores.items():
                for metric, value in metrics.items():
                    assert abs(value - two['rows'][row]['reference'][place][subject][metric]) < 1e-4


def test_what_does_not_need_each_other_is_made_side_by_side(tmp_path):
    run(tmp_path, 2, 'ranks_deal.py')
    found = [json.loads((tmp_path / f'found-by-{k}.json').read_text()) for k in range(2)]
    assert found == [[['0 of 1', '1 of 1', '0 of 1', '1 of 1', '0 of 1'], 2]] * 2
    assert len(list(tmp_path.iterdir())) == 5 + 2 and not list(tmp_path.glob('.*'))


def test_nothing_is_left_behind(both):
    for folder in both.values():
        left = [p for p in folder.rglob('.*') if p.name.endswith(('.partial', '.unfinished'))]
        assert not left


def test_one_goes_on_with_what_two_have_left(both, tmp_path):
    shutil.copytree(both[2], tmp_path / 'runs')
    forget_stage2(tmp_path / 'runs')
    said = run(tmp_path / 'runs', 1)
    assert 'stage1: reused' in said and 'stage2: built' in said
    one, two = (log(folder, 'stage2') for folder in (both[1], tmp_path / 'runs'))
    assert all(abs(a['ce'] - b['ce']) < 1e-5 for a, b in zip(one, two, strict=True))


def command(*words, **environ):
    words = [sys.executable, '-m', 'brainllm', *map(str, words)]
    return subprocess.run(words, env=ENV | environ, capture_output=True, text=True)


def test_a_command_starts_its_own_processes(both, tmp_path):
    hand_on(both[1], tmp_path)
    found = command('reproduce', '--preset', 'tiny', '--out', tmp_path, '--processes', 2)
    assert found.returncode == 0, found.stderr[-3000:]
    assert found.stderr.count('stage2: built') == 1 and 'study: reused' in found.stderr
    assert found.stdout == command('table', '--preset', 'tiny', '--out', tmp_path).stdout, 'one of them prints, and all'
    again = command('reproduce', '--preset', 'tiny', '--out', tmp_path)
    assert 'stage2: reused' in again.stderr and again.stdout == found.stdout


@pytest.mark.parametrize('words, message', [
    (('reproduce', '--preset', 'tiny', '--processes', 0), 'processes: found 0, wanted 1 or more'),
    (('reproduce', '--preset', 'big', '--processes', 2), "preset: found 'big'"),
    (('reproduce', '--preset', 'tiny', '--seed', -1, '--processes', 2), 'seed: found'),
    (('real', 'film', '--processes', 2), 'processes: found 2, wanted 1'),
    (('real', '--starts', '--processes', 2), 'processes: found 2, wanted 1'),
])
def test_what_no_process_is_started_for(words, message, tmp_path):
    found = command(*words, '--out', tmp_path)
    assert found.returncode == 2 and len(found.stderr.splitlines()) == 1 and message in found.stderr, found.stderr
    assert not list(tmp_path.iterdir())


def test_waiting_threads_sleep_unless_somebody_says_otherwise():
    code = "import brainllm, os; print(os.environ['OMP_WAIT_POLICY'])"
    env = {k: v for k, v in ENV.items() if k != 'OMP_WAIT_POLICY'}
    for given, want in (({}, 'PASSIVE'), (dict(OMP_WAIT_POLICY='ACTIVE'), 'ACTIVE')):
        said = subprocess.run([sys.executable, '-c', code], env=env | given, capture_output=True, text=True, check=True)
        assert said.stdout.strip() == want


GATHER = """
import sys
import torch
from pathlib import Path
from brainllm.ranks import gathered, mean_of, mean_over, rank, ranks, share
x = torch.arange(5.0)[:, None].requires_grad_()
y = gathered(2 * share(x), 5)
y.square().sum().backward()
mean = mean_over(mean_of(share(x).mean(), len(share(x))))
said = f'{rank()} of {ranks()}: {y.flatten().tolist()} {x.grad.flatten().tolist()} {mean:g}'
Path(sys.argv[1], f'{rank()}.txt').write_text(said)  # not to stdout, where two processes write into one line
"""


def test_every_configuration_starts(tmp_path):
    script = tmp_path / 'gather.py'
    script.write_text(GATHER)
    rows = '[0.0, 2.0, 4.0, 6.0, 8.0]'
    halves = {f'0 of 2: {rows} [0.0, 16.0, 32.0, 0.0, 0.0] 2', f'1 of 2: {rows} [0.0, 0.0, 0.0, 48.0, 64.0] 2'}
    whole = {f'0 of 1: {rows} [0.0, 8.0, 16.0, 24.0, 32.0] 2'}
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])  # nobody's: a run that was killed may still hold another
    nodes = [launch('two_nodes', 2, '--machine_rank', str(k), '--main_process_port', port) for k in (0, 1)]
    for config, starts, want in (
        ('one_gpu', [launch('one_gpu', 1)], whole),
        ('eight_gpus', [launch('eight_gpus', 2)], halves),
        ('two_nodes', nodes, halves),
    ):
        folder = tmp_path / config
        folder.mkdir()
        words = [[sys.executable, *start, str(script), str(folder)] for start in starts]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started = [subprocess.Popen(w, env=ENV, **pipes) for w in words]
        try:
            said = [p.communicate(timeout=200) for p in started]
        finally:
            for p in started: p.kill()
        assert {file.read_text() for file in folder.iterdir()} == want, (config, said)
