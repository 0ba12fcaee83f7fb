"The page of costs counts what the run builds: same parts, same parameters, same activations."

import numpy as np, pytest, torch
from brainllm.presets import get_preset
from brainllm.evaluate.costs import align_step, clear, Components, Flops, HAD_SIZE, measure_cost, Meter, peak
from brainllm.evaluate.costs import seen_tokens, TRAINED_IN
from brainllm.video.small import video_tokens
from brainllm.losses import clip_loss, l2l1_loss
from brainllm.stages.experiment import open_experiment
from brainllm.stages.stage1 import new_stage1
from brainllm.stages.stage2 import Stage2


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return open_experiment('tiny', out=tmp_path_factory.mktemp('runs'))


@pytest.fixture(scope='module')
def real(run):
    return new_stage1(run.study, run.models, run.store, run.seed)


def components(run, device='meta'):
    return Components(
        run.preset, run.study.series.mask, run.study.series.affine, n_classes=len({t.label for t in run.study.split.train}), device=device
    )


def test_parameters_are_those_of_the_run(run, real):
    found = {k: sum(p.numel() for p in ps) for k, ps in components(run).parameters().items()}

    def count(ps): return sum(p.numel() for p in ps)

    for name, ps in real.trained().items():
        assert found[name] == count(ps), name
    assert set(real.trained()) == {k for k, s in TRAINED_IN.items() if s == 'I'}
    two = Stage2(real.video.llama_proj, len({t.label for t in run.study.split.train}), real.projection.offset.detach())
    assert (found['bridge'], found['class_weight']) == (
        count(two.bridge.parameters()),
        two.class_weight.numel(),
    ) and found['bridge'] + found['class_weight'] == count(two.parameters())
    assert found['encoder'] == count(real.encoder.parameters()) - found['brain_adaptors']
    assert (
        found['qformer'] + found['video_qformer'] + found['llama_proj']
        == count(real.video.parameters()) - found['video_adaptors']
    )
    assert found['llm'] == count(run.models.llm.llm.parameters()) and sum(
        found[k] for k, s in TRAINED_IN.items() if s == 'I'
    ) + found['encoder'] + found['qformer'] + found['video_qformer'] + found['llama_proj'] == count(real.parameters())


def test_what_the_meta_device_keeps_is_what_tensors_keep(run):
    kept = {}
    for device in ('meta', 'cpu'):
        c = components(run, device)
        part = Meter(
            [t for m in (c.tokenizer, c.encoder, c.projection, c.video) for t in (*m.parameters(), *m.buffers())]
            + [c.temperature]
        )
        align_step(c, 3, part)
        part.backward()
        kept[device] = {k: (v.kept, v.forward, v.backward) for k, v in part.costs.items()}
    assert kept['meta'] == kept['cpu'] and all(v[0] > 0 for v in kept['cpu'].values())


def test_parts_together_are_the_step_and_the_models_own_code(run, real):
    c = components(run, 'cpu')
    features = torch.randn(2, *run.study.features.features.shape[1:])
    assert torch.equal(video_tokens(real.video, seen_tokens(real.video, features)), real.video(features))
    for name in ('tokenizer', 'projection'):
        assert {k: v.shape for k, v in getattr(c, name).named_parameters()} == {
            k: v.shape for k, v in getattr(real, name).named_parameters()
        }
    with Flops() as whole:
        align_step(c, 3).backward()
    clear(c)
    costs = measure_cost(components(run), 'stage1', 3)
    assert whole.total == sum(v.forward + v.backward for v in costs.values())


def test_peak_is_above_what_is_kept_and_sees_what_is_freed(run):
    c = components(run)
    assert sum(v.kept for v in measure_cost(c, 'stage1', 4).values()) < peak(c, 'stage1', 4)
    assert peak(c, 'stage1', 4) == peak(components(run, 'cpu'), 'stage1', 4)


def test_loss_of_the_page_is_the_loss_of_stage_one(run):
    c = components(run, 'cpu')
    torch.manual_seed(0)
    seen = {}

    def part(name, f, *xs):
        if name == 'losses':
            xs = [torch.randn_like(x) for x in xs]
        seen[name] = xs, f(*xs)
        return seen[name][1]

    align_step(c, 3, part)
    (z, y), loss = seen['losses']
    x = torch.zeros_like(z)
    assert torch.allclose(loss, clip_loss(z.flatten(1), y.flatten(1), 1.0) + l2l1_loss(z, x, 0.5))


def test_published_sizes_follow_the_preset():
    c = Components(get_preset('had'), np.ones((12, 12, 12), bool), np.eye(4))
    n = {k: sum(p.numel() for p in ps) for k, ps in c.parameters().items()}
    assert (
        len(c.tokenizer.index) == 8
        and n['projection'] == 8 * 1024 * 64 + 64 * 32 * 768 + 32 * 768
        and n['vit'] == 985_952_256
    )
    more = Components(
        get_preset('had'),
        np.ones((12, 12, 12), bool),
        np.eye(4),
        llm=dict(hidden_size=5120, num_hidden_layers=40, num_attention_heads=40, intermediate_size=13824),
    )
    assert sum(p.numel() for p in more.parameters()['llm']) == 13_015_864_320 and HAD_SIZE.train == 18_720
