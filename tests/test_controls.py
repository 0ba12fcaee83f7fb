"Controls, baselines and ceilings: what each may see, what each changes, and that what was trained is found again."

import json, shutil
import numpy as np, pytest, torch
from types import SimpleNamespace
from brainllm.evaluate.bench import OpenBench, SealedBench
from brainllm.evaluate.controls import AwayStudy, NoiseStudy, ShuffledStudy, noise_trained, non_visual, shuffled_labels
from brainllm.evaluate.methods import METHODS
from brainllm.core import DataError, read_jsonl, WallError
from brainllm.models.llm import PromptedLLM
from brainllm.stages.experiment import open_experiment
from brainllm.simulate.brains import REGIONS
from brainllm.stages.stage1 import encoder_tokens
from test_wall import scramble_targets
from brainllm.models.ridge import choose_penalty, cross_fitted, inner_products, ridge_predict, unit_kernel
from brainllm.evaluate.bench import Given, known_answers, Method
from brainllm.evaluate.controls import cut_tokens, draw_noise, keep_voxels, mix_blocks, noise_weights, random_tokens
from brainllm.evaluate.controls import read_noise
from brainllm.evaluate.baselines import encoding_model
from brainllm.evaluate.methods import RANKS, write_controls


def spell(self, tokens, questions, max_new_tokens=32, when=None):
    "An LLM that spells out what it reads: the tiny one, untrained, says the same to everything."
    return (
        ['no tokens'] * len(questions) if tokens is None else [f'{v:.5f}' for v in tokens.double().sum((1, 2)).tolist()]
    )


@pytest.fixture(scope='module')
def worlds(tmp_path_factory):
    "The same study twice, and our own model; in the second, what the targets saw is permuted, their films deleted, their captions spoilt."
    patch, out = pytest.MonkeyPatch(), tmp_path_factory.mktemp('controls')
    patch.setattr(PromptedLLM, 'answer', spell)
    run = open_experiment('tiny', out=out / 'a')
    study = run.study.root
    run.stage2
    known_answers(run.study, run.models, run.store)
    (out / 'b').mkdir()
    shutil.copytree(out / 'a', out / 'b', dirs_exist_ok=True)
    scrambled = open_experiment('tiny', out=out / 'b')
    scramble_targets(scrambled.study.root, run.study.split.targets, 1)
    scrambled.store.verified.add(scrambled.study.root)
    assert study.name == scrambled.study.root.name
    yield SealedBench(run), SealedBench(scrambled)
    patch.undo()


@pytest.fixture(scope='module')
def texts(worlds):
    bench = worlds[0]
    opened = OpenBench(bench)
    return {n: d.write(opened if d.oracle else bench) for n, d in METHODS.items()}


def test_every_decoder_gives_a_text_for_each_trial(worlds, texts):
    for n, said in texts.items():
        assert len(said) == len(worlds[0].test) == 20 and all(isinstance(t, str) for t in said), n


def test_order_and_kinds():
    ours = ['brain', 'weighed', 'guided_answers', 'guided', 'steered_answers', 'steered']
    assert list(METHODS)[:7] == [*ours, 'medoid'] and list(METHODS)[-5:] == [
        'video',
        'bridge',
        'again',
        'again_2',
        'ideal',
    ]
    anew = [*ours[1:], 'shuffled_labels', 'noise_trained', 'non_visual', 'guided_shuffled', 'misguided']
    assert [n for n, d in METHODS.items() if d.retrained] == anew
    given = {n: d.given for n, d in METHODS.items()}
    assert {n for n, what in given.items() if what == 'film'} == {'video', 'bridge', 'again', 'again_2', 'ideal'}
    captions = {'guided', 'steered', 'guided_shuffled', 'misguided', 'mind', 'ridge', 'ridge_teacher', 'ridge_weighed', 'ridge_refined'}
    assert {n for n, what in given.items() if what == 'captions'} == captions
    assert {n for n, d in METHODS.items() if d.oracle} == {
        'class_oracle',
        'shuffled_class',
        'video',
        'bridge',
        'again',
        'again_2',
        'ideal',
    }
    with pytest.raises(DataError, match="kind: found 'guess'"):
        Method('x', 'x', 'guess', list)
    with pytest.raises(DataError, match="given: found 'all'"):
        Method('x', 'x', 'ours', list, given='all')


def test_oracles_alone_need_the_key(worlds):
    for n, d in METHODS.items():
        if d.oracle:
            with pytest.raises(WallError):
                d.write(worlds[0])
    with pytest.raises(WallError):
        worlds[0].see(worlds[0].test)


def test_what_targets_saw_changes_no_text_of_the_others(worlds, texts):
    a, b = worlds

    def seen(bench): return [t.clip for t in bench.study.trials if t.subject in bench.study.split.targets]

    assert seen(a) != seen(b) and a.study.split == b.study.split
    for n, d in METHODS.items():
        if not d.oracle:
            assert d.write(b) == texts[n], n
    assert METHODS['class_oracle'].write(OpenBench(b)) != texts['class_oracle'], (
        'the scrambling did not reach an oracle, so it tests nothing'
    )


def test_noise_has_the_moments_of_the_blocks():
    g = np.random.default_rng(0)
    x = torch.tensor(g.standard_normal((12, 2, 3)) @ np.diag([1.0, 2.0, 3.0]) + 5).float()
    blocks = type('Toy', (), dict(__len__=lambda s: 12, voxels=lambda s, i: x[i]))()
    trials = [SimpleNamespace(subject='01', run=1, onset=0.5 * k) for k in range(30000)]
    w = noise_weights(trials, 12, 0)
    drawn = mix_blocks(blocks, w).reshape(len(w), -1)
    flat = x.flatten(1).numpy().astype(float)
    want = np.cov(flat.T, bias=True)
    sd = np.sqrt(np.diag(want))
    assert np.allclose(w.sum(1), 1) and np.abs((drawn.mean(0) - flat.mean(0)) / sd).max() < 5 / np.sqrt(len(w))
    assert np.abs((np.cov(drawn.T, bias=True) - want) / np.outer(sd, sd)).max() < 5 * np.sqrt(
        2 / len(w)
    )  # five standard errors of a covariance
    assert np.array_equal(w[:3], noise_weights(trials[:3], 12, 0)) and not np.allclose(
        w[:3], noise_weights(trials[:3], 12, 1)
    )


def test_shuffled_texts_leave_their_place_and_keep_their_group(worlds, texts):
    bench = worlds[0]
    key = OpenBench(bench).key
    ours = bench.texts
    assert len(set(ours)) == 20
    for n, group in dict(
        shuffled_subject=lambda t: t.subject,
        shuffled_run=lambda t: (t.subject, t.run),
        shuffled_class=lambda t: (t.subject, t.classname),
    ).items():
        came = [key[ours.index(t)] for t in texts[n]]
        assert len(set(came)) == 20, n
        assert all(a != b and group(a) == group(b) for a, b in zip(came, key, strict=True)), n


def test_controls_without_a_brain_do_not_depend_on_the_trial(texts):
    assert {
        n: len(set(texts[n])) for n in ('medoid', 'majority', 'no_brain', 'zero_brain', 'mean_brain', 'class_oracle')
    } == dict(medoid=1, majority=1, no_brain=1, zero_brain=1, mean_brain=2, class_oracle=3)


@pytest.mark.parametrize('change', [shuffled_labels, noise_trained, non_visual])
def test_retrained_differ_and_are_found_again(worlds, texts, change):
    run = worlds[0].experiment
    two, ours = change(run).stage2, worlds[0].stage2
    assert two.stage1.folder.name != ours.stage1.folder.name and two.folder.name != ours.folder.name
    assert not torch.equal(two.stage1.tokens['train'], ours.stage1.tokens['train']) and two.answers == ours.answers
    before = {p: p.stat().st_mtime_ns for p in run.store.root.iterdir()}
    fresh = open_experiment('tiny', out=run.folder.parent)
    name = change.__name__
    assert METHODS[name].write(SealedBench(fresh)) == texts[name] != texts['brain']
    assert {p: p.stat().st_mtime_ns for p in run.store.root.iterdir()} == before and {
        how for n, how, _ in fresh.store.log if n in ('stage1', 'stage2', 'noise', 'away')
    } == {'reused'}


def test_retrained_see_no_clip_of_a_target(worlds):
    run = worlds[0].experiment
    theirs = {t.clip for t in run.study.trials if t.subject in run.study.split.targets}
    for r in (shuffled_labels(run), noise_trained(run), non_visual(run)):
        assert not theirs & {t.clip for t in r.study.split.train}
        assert all(t.subject in r.study.split.subjects for t in getattr(r.study, 'moved', {}).values())


def test_wrong_films_and_noise(worlds):
    run = worlds[0].experiment
    train, test = run.study.split.train, run.study.split.test
    shuffled, noise = ShuffledStudy(run.study, run.seed), NoiseStudy(run.study, run.seed)
    real = run.study.blocks(train).voxels(range(len(train)))
    moved = shuffled.blocks(train).voxels(range(len(train)))
    where = [next(j for j, b in enumerate(real) if torch.equal(a, b)) for a in moved]
    assert sorted(where) == list(range(len(train))) and all(
        i != j and (train[i].subject, train[i].run) == (train[j].subject, train[j].run) for i, j in enumerate(where)
    )
    assert torch.equal(shuffled.blocks(test).voxels(range(20)), run.study.blocks(test).voxels(range(20))), (
        'tested on the right brains'
    )
    drawn = Given(run.study.series, read_noise(draw_noise(run.study, run.store, test, run.seed)))
    assert torch.equal(noise.blocks(test).voxels(range(20)), drawn.voxels(range(20))) and torch.equal(
        noise.blocks(test).batch([3, 7]), drawn.batch([3, 7])
    ), 'C4 and C8 have the same noise for a trial'
    assert (
        not torch.equal(noise.blocks(train).voxels([0]), noise.blocks(train).voxels([1]))
        and tuple(drawn.batch([0]).shape[2:]) == run.study.series.shape
    )


def test_no_voxel_of_c10_is_near_vision(worlds):
    run = worlds[0].experiment
    store = AwayStudy(run.study).series
    xyz = np.argwhere(store.mask) @ store.affine[:3, :3].T + store.affine[:3, 3]
    for c, *_ in REGIONS.values():  # vision drives each of them
        for side in (1, -1):
            assert np.linalg.norm(xyz - np.array(c) * [side, 1, 1], axis=1).min() >= 25
    assert 0 < store.n_voxels == store.mask.sum() < run.study.series.n_voxels and not (store.mask & ~run.study.series.mask).any()
    row = store.runs[0]
    whole = run.study.series.series(row['subject'], row['run'], row['task'])
    assert np.array_equal(store.series(row['subject'], row['run'], row['task']), whole[:, store.mask[run.study.series.mask]])
    with pytest.raises(DataError, match='found no voxel'):
        keep_voxels(run.study.series, np.zeros_like(store.mask), None)


def test_the_whole_rank_is_ours(worlds, texts):
    full = worlds[0].experiment.preset.brain.readout
    for r in RANKS:
        assert (texts[f'rank_{r}'] == texts['brain']) == (r >= full), r
    z, projection = worlds[0].tokens, worlds[0].stage2.stage1.projection
    whole = projection.out.weight @ projection.mix.weight
    u, s, v = torch.linalg.svd(whole.double(), full_matrices=False)
    tokens = encoder_tokens(worlds[0].stage2.stage1, worlds[0].blocks)
    by_hand = projection.offset + (
        projection.gain * (projection.centred(tokens).double() @ (u[:, :3] * s[:3] @ v[:3]).T)
    ).float().view_as(z)
    assert torch.allclose(cut_tokens(z, projection, 3), by_hand, atol=1e-4 * z.abs().max().item())


def test_the_random_encoder_follows_the_seed(worlds):
    bench = worlds[0]
    run = bench.experiment
    first = random_tokens(run.study, bench.blocks, run.seed)
    assert torch.equal(first, random_tokens(run.study, bench.blocks, run.seed))
    assert not torch.equal(first, random_tokens(run.study, bench.blocks, 1))


def test_the_likelihood_is_that_of_a_gaussian():
    "Against the covariance written out and inverted."
    g = torch.Generator().manual_seed(0)

    def r(*n): return torch.randn(*n, generator=g)

    e, w = r(60, 4), r(4, 5)
    x, y, new, groups = e @ w + r(60, 5), r(7, 5), r(9, 4), ['01', '02', '03'] * 20
    got = encoding_model(e, x, y, groups, shrink=0.5)(new)
    about = e - e.mean(0)
    kernel, basis = unit_kernel(inner_products(about, about), inner_products(torch.eye(4), about))
    penalty = choose_penalty(kernel, x, groups)
    noise = x - cross_fitted(kernel, x, groups, penalty)
    noise = noise - noise.mean(0)
    sd = noise.std(0)
    cov = (torch.diag(sd**2) * 0.5 + 0.5 * noise.T @ noise / 60).double()
    mean = (x.mean(0) + (new - e.mean(0)) @ ridge_predict(kernel, basis, x, penalty)).double()
    full = torch.distributions.MultivariateNormal(mean[None], cov).log_prob(y.double()[:, None])
    assert torch.allclose(got - got[:, :1], (full - full[:, :1]).float(), atol=1e-3)


def test_controls_are_written_whole(worlds, texts):
    names = ['medoid', 'shuffled_class', 'ideal']
    rows = write_controls('tiny', out=worlds[0].experiment.folder.parent, names=names)
    made = json.loads((worlds[0].experiment.folder / 'controls.json').read_text())
    assert read_jsonl(worlds[0].experiment.folder / 'controls.jsonl') == rows and len(rows) == made['trials'] == 20
    assert (
        [d['name'] for d in made['decoders']] == names
        and {'commit', 'seed', 'preset', 'versions'} <= set(made)
        and all(d['seconds'] >= 0 for d in made['decoders'])
    )
    assert [set(r) for r in rows] == [
        {'subject', 'run', 'onset', 'clip', 'classname', 'teacher', 'caption', *names}
    ] * 20 and [r['ideal'] for r in rows] == texts['ideal']
    with pytest.raises(DataError, match="found 'nobody'"):
        write_controls('tiny', out=worlds[0].experiment.folder.parent, names=['nobody'])
