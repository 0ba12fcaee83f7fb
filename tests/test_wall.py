"The wall: a target subject's clips, classes and texts never reach training."

import shutil
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from brainllm.core import read_jsonl, WallError, write_jsonl
from brainllm.evaluate.bench import SealedBench
from brainllm.evaluate.confidence import learn_judge, score_confidence
from brainllm.stages.experiment import open_experiment


def scramble_targets(study, subjects, seed):
    "Permute what the targets are said to have seen, delete their films, and spoil the texts of these."
    rng, mine = np.random.default_rng(seed), set()
    for s in subjects:
        for path in sorted(Path(study).glob(f'sub-{s}/**/*_events.tsv')):
            events = pd.read_csv(path, sep='\t', dtype=str, keep_default_na=False)
            order = rng.permutation(len(events))
            events[['trial_type', 'stim_file']] = events[['trial_type', 'stim_file']].to_numpy()[order]
            mine |= set(events['stim_file'])
            events.to_csv(path, sep='\t', index=False)
    for clip in mine:
        (Path(study) / 'stimuli' / clip).write_bytes(b'not a film')
    file = Path(study) / 'derivatives/simulation/captions.jsonl'
    write_jsonl(
        file, [{**r, 'caption': 'scrambled', 'agent': 'nobody'} if r['clip'] in mine else r for r in read_jsonl(file)]
    )


def trained(study, out, scramble=False):
    run = open_experiment('tiny', out=out)
    copy = out / 'study'
    shutil.copytree(study, copy)
    if scramble:
        scramble_targets(copy, run_targets(run), 1)
    vars(run.study)['root'] = copy
    return run, run.stage2


def run_targets(run):
    return [f'{k:02d}' for k in range(run.preset.sim.n_train + 1, run.preset.sim.n_train + run.preset.sim.n_target + 1)]


def test_scrambled_targets_change_nothing(tmp_path):
    study = open_experiment('tiny', out=tmp_path / 'first').study.root
    (a_run, a), (b_run, b) = trained(study, tmp_path / 'a'), trained(study, tmp_path / 'b', scramble=True)

    def seen(r):
        return [(t.clip, t.classname) for t in r.study.trials if t.subject in r.study.split.targets]

    assert a_run.study.split.targets == b_run.study.split.targets == run_targets(a_run) and seen(a_run) != seen(b_run)
    for x, y in (
        (a.stage1.learned(), b.stage1.learned()),
        (a.state_dict(), b.state_dict()),
        (dict(a.stage1.video.named_parameters()), dict(b.stage1.video.named_parameters())),
    ):
        assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)
    assert a.answers.read_text() == b.answers.read_text()
    assert learn_judge(SealedBench(a_run)) == learn_judge(SealedBench(b_run))


def test_a_decoder_says_how_sure_it_is(tmp_path):
    result = score_confidence('tiny', out=tmp_path)
    assert (tmp_path / 'tiny' / 'confidence.json').exists()
    for reference in ('teacher', 'caption'):
        found = result[reference]
        assert sum(b['trials'] for b in found['reliability']) == found['coverage'][0]['trials']
        assert 0 <= found['calibration_error'] <= 1


def test_a_sealed_trial_has_nothing_to_give(tmp_path):
    run = open_experiment('tiny', out=tmp_path)
    for t in run.study.split.adapt + run.study.split.test:
        for name in ('clip', 'label', 'classname', 'caption', 'text'):
            with pytest.raises(WallError):
                getattr(t, name)
    with pytest.raises(WallError):
        run.study.clip_features(run.study.split.test[:1])
    with pytest.raises(WallError):
        run.study.texts(run.study.split.adapt[:1])
