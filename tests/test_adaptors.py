"""The adaptor among peft's tools, on the two hosts of the paper at their real width: SC-MBM's blocks and the Q-Former."""

import copy, functools, json, shutil
import peft, pytest, torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel
from brainllm.core import DataError, PartMissing
from brainllm.models import adaptors
from brainllm.models.adaptors import ADAPTOR_FILES, BRAIN_TARGETS, QFORMER_TARGETS, AdaptorConfig
from brainllm.models.adaptors import AdaptorError, MergeError, adaptor_layers, adaptor_parameters, adaptor_state
from brainllm.models.adaptors import adaptors_off, load_adaptor_state
from brainllm.models.adaptors import add_adaptors, base_digest, count_parameters, load_adaptors, save_adaptors
from brainllm.models.encoder import encoder_from, MaskedBrainModel, voxel_encoder, VoxelEncoder
from brainllm.store import file_hash


def copies(f):  # building at real width takes longer than copying
    made = functools.cache(f)
    return lambda: copy.deepcopy(made())


@copies
def scmbm():
    torch.manual_seed(0)
    return voxel_encoder(MaskedBrainModel(320, 16, 1024, 2, 16, 1.0, 512, 1, 16).eval()), (torch.randn(2, 1, 320),)


@copies
def temporal():
    torch.manual_seed(0)
    return VoxelEncoder(320, 16, 1024, 2, 16, 1.0, window=2, temporal=True).eval(), (torch.randn(2, 2, 320),)


@copies
def qformer():
    torch.manual_seed(0)
    model = Blip2QFormerModel(Blip2QFormerConfig(num_hidden_layers=2, encoder_hidden_size=1408)).eval()
    return model, (torch.randn(2, 32, 768), None, None, torch.randn(2, 9, 1408))


HOSTS = dict(
    scmbm=(scmbm, BRAIN_TARGETS, 6, 1024),
    temporal=(temporal, BRAIN_TARGETS + ('attn_temp.qkv',), 8, 1024),
    qformer=(qformer, QFORMER_TARGETS, 6, 768),
)
host = pytest.mark.parametrize('name', HOSTS)


@torch.no_grad()
def out(model, x):
    if not isinstance(getattr(model, 'model', model), Blip2QFormerModel): return model(*x)
    return model(query_embeds=x[0], encoder_hidden_states=x[3]).last_hidden_state


def make(
    name, rank=16, seed=1, **kw
):  # model, its input, its output before; adapted, with branches that are no longer zero
    build, targets, n, width = HOSTS[name]
    model, x = build()
    before = out(model, x)
    tuner = add_adaptors(
        model, AdaptorConfig(rank=rank, target_modules=targets, fused_query=('attn.qkv', 'attn_temp.qkv'), **kw)
    )
    return model, x, before, train(tuner, seed)


def train(tuner, seed, name='default'):  # as after training: every number of the branch is another
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in adaptor_parameters(tuner, name):
            p.add_(0.05 * torch.randn(p.shape, generator=g))
    return tuner


@host
def test_inject_count_disable_unload(name):
    build, targets, n, D = HOSTS[name]
    model, x = build()
    before, modules = out(model, x), dict(model.named_modules())
    tuner = add_adaptors(
        model, AdaptorConfig(rank=16, target_modules=targets, fused_query=('attn.qkv', 'attn_temp.qkv'))
    )
    assert isinstance(tuner, BaseTuner) and all(isinstance(l, BaseTunerLayer) for l in adaptor_layers(tuner).values())
    assert torch.equal(out(model, x), before) and len(tuner.targeted_module_names) == n == len(adaptor_layers(model))

    def branch(i, o):
        return 16 * (i + 1) + o * 17

    want = (
        2 * (branch(D, D) + branch(D, 3072) + branch(3072, D)) if name == 'qformer' else n * branch(D, D)
    )  # of a fused qkv, the query third alone
    assert count_parameters(tuner) == dict(
        adaptor=want, base=sum(p.numel() for p in build()[0].parameters()), trainable=want
    )
    status = peft.get_model_status(tuner)
    assert (
        status.num_adapter_layers,
        status.trainable_params,
        status.available_adapters,
        status.merged_adapters,
        status.enabled,
    ) == (n, want, ['default'], [], True)
    assert [l.module_type for l in peft.get_layer_status(tuner)] == ['NonlinearAdaptorLayer'] * n
    train(tuner, 1)
    after = out(model, x)
    assert (after - before).abs().mean() > 1e-3
    with adaptors_off(tuner):
        assert torch.equal(out(model, x), before)
    tuner.disable_adapter_layers()
    assert torch.equal(out(model, x), before) and not peft.get_model_status(tuner).enabled
    tuner.enable_adapter_layers()
    assert torch.equal(out(model, x), after)
    for f in (
        tuner.merge_adapter,
        tuner.merge_and_unload,
        tuner.unmerge_adapter,
        next(iter(adaptor_layers(tuner).values())).merge,
    ):
        with pytest.raises(MergeError, match='not linear in x, so no weight can stand for it'):
            f()
    assert torch.equal(out(model, x), after)
    assert tuner.unload() is model and dict(model.named_modules()) == modules and torch.equal(out(model, x), before)


@host
def test_saved_and_reloaded_to_the_last_bit(name, tmp_path):
    model, x, before, tuner = make(name, scale=0.7)
    after = out(model, x)
    folder = save_adaptors(tuner, tmp_path / 'a')
    again = save_adaptors(model, tmp_path / 'b')  # the adapted model will do
    assert sorted(p.name for p in folder.iterdir()) == sorted(ADAPTOR_FILES)
    assert all((folder / f).read_bytes() == (again / f).read_bytes() for f in ADAPTOR_FILES)
    fresh, _ = HOSTS[name][0]()
    loaded = load_adaptors(fresh, folder)
    assert torch.equal(out(fresh, x), after) and not torch.equal(after, before)
    assert all(torch.equal(a, b) for a, b in zip(adaptor_parameters(fresh), adaptor_parameters(model), strict=True))
    assert [p.requires_grad for p in fresh.parameters()] == [p.requires_grad for p in model.parameters()]
    assert torch.equal(out(loaded.unload(), x), before)
    about = json.loads((folder / 'adapter_config.json').read_text())
    assert (
        about['version'] == '0.1.0'
        and about['config']['rank'] == 16
        and about['config']['scale'] == 0.7
        and about['base'] == dict(model=type(model).__name__, **base_digest(HOSTS[name][0]()[0]))
    )


def test_several_at_once_through_files(tmp_path):
    model, x, before, tuner = make('scmbm')
    one = out(model, x)
    add_adaptors(tuner, AdaptorConfig(rank=3, scale=0.5, target_modules=['mlp.fc2']), 'second')
    train(tuner, 2, 'second')
    tuner.set_adapter('second')
    two = out(model, x)
    tuner.set_adapter(['default', 'second'])
    both = out(model, x)
    for n in ('default', 'second'):
        save_adaptors(tuner, tmp_path / n, n)
    fresh, _ = scmbm()
    loaded = load_adaptors(fresh, tmp_path / 'second')
    assert torch.equal(out(fresh, x), two)
    load_adaptors(loaded, tmp_path / 'default', 'first')
    assert torch.equal(out(fresh, x), two), 'it waits until it is chosen'
    loaded.set_adapter('first')
    assert torch.equal(out(fresh, x), one)
    loaded.set_adapter(['first', 'second'])
    assert torch.equal(out(fresh, x), both)
    loaded.delete_adapter('first')
    loaded.set_adapter('second')
    assert torch.equal(out(fresh, x), two)
    with pytest.raises(AdaptorError, match="'second' exists already"):
        load_adaptors(loaded, tmp_path / 'second')
    with pytest.raises(AdaptorError, match="no adaptors 'third'"):
        save_adaptors(tuner, tmp_path / 'third', 'third')
    assert not (tmp_path / 'third').exists()


@pytest.mark.parametrize('name,target', [('scmbm', 'attn.qkv'), ('temporal', 'attn_temp.qkv')])
def test_query_only_touches_the_query_third_of_the_outputs(name, target):
    build = HOSTS[name][0]
    model, x = build()
    bare, _ = build()
    seen = {}
    tuner = train(
        add_adaptors(model, AdaptorConfig(rank=4, scale=2.0, target_modules=[target], fused_query=[target])), 3
    )
    layers, D = adaptor_layers(tuner), 1024
    for n, l in layers.items():
        l.register_forward_hook(lambda m, i, o, n=n: seen.update({n: (i[0], o)}))
    y = out(model, x)
    assert len(seen) == 2 and not torch.equal(y, out(bare, x))
    for n, l in layers.items():
        i, o = seen[n]
        plain = l.base_layer(i)
        down, up = l.adaptor_down['default'], l.adaptor_up['default']
        assert torch.equal(o[..., D:], plain[..., D:]) and up.out_features == D
        h = i @ down.weight.T + down.bias
        want = plain[..., :D] + 2 * (0.5 * h * (1 + torch.erf(h / 2**0.5)) @ up.weight.T + up.bias)
        assert (o[..., :D] - want).abs().max() < 1e-5 and (o[..., :D] - plain[..., :D]).abs().min(-1)[0].max() > 0
    # the same with three separate projections: only the query's is changed
    loud = peft.get_peft_model(build()[0], peft.LoraConfig(r=4, target_modules=[target], init_lora_weights=False))
    lora = next(m for n, m in loud.named_modules() if n.endswith(target))
    i = next(iter(seen.values()))[0]
    assert not torch.equal(lora(i)[..., D:], lora.base_layer(i)[..., D:]), (
        "stock LoRA changes key and value too: that is why the branch is ours"
    )


def test_temporal_branch_and_blocks_behind_our_tokenizer(tmp_path):
    model, x, before, tuner = make('temporal')
    fresh = load_adaptors(temporal()[0], save_adaptors(tuner, tmp_path / 't'))
    tokens = torch.randn(2, 20, 1024)
    ours = encoder_from(model)  # adapted blocks move with their adaptors
    theirs = encoder_from(fresh.model)
    assert (
        len(adaptor_layers(ours)) == 8
        and torch.equal(ours(tokens), theirs(tokens))
        and not torch.equal(ours(tokens), encoder_from(temporal()[0])(tokens))
    )


@host
def test_another_base_is_refused_and_untouched(name, tmp_path):
    model, x, before, tuner = make(name, rank=2)
    folder = save_adaptors(tuner, tmp_path / 'a')
    build = HOSTS[name][0]
    other, _ = build()
    with torch.no_grad():
        [p.add_(0.01) for p in other.parameters() if p.ndim > 1]
    names = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(AdaptorError, match='other weights'):
        load_adaptors(other, folder)
    wide = nn.Sequential(*(nn.Linear(3, 3) for _ in range(2)))
    with pytest.raises(AdaptorError, match='other tensors'):
        load_adaptors(wide, folder)
    assert (
        other.state_dict().keys() == names.keys()
        and all(torch.equal(v, names[k]) for k, v in other.state_dict().items())
        and all(p.requires_grad for n, p in other.named_parameters() if n != 'pos_embed')
    )
    with pytest.raises(AdaptorError, match='other weights'):
        load_adaptors(add_adaptors(other, AdaptorConfig(rank=1, target_modules=HOSTS[name][1])), folder, 'b')
    assert base_digest(tuner) == base_digest(model) == base_digest(build()[0]), 'adaptors are not part of the base'
    with pytest.raises(AdaptorError, match='meta device'):
        load_adaptors(copy.deepcopy(build()[0]).to('meta'), folder)


def test_a_damaged_folder_is_refused(tmp_path, monkeypatch):
    model, x, before, tuner = make('scmbm', rank=2)
    good = save_adaptors(tuner, tmp_path / 'good')
    tensors, settings = ADAPTOR_FILES
    fresh, n = scmbm()[0], 0

    def refused(kind, word, change):
        nonlocal n
        n += 1
        folder = shutil.copytree(good, tmp_path / f'bad{n}')
        change(folder)
        with pytest.raises(kind, match=word):
            load_adaptors(fresh, folder)
        assert not adaptor_layers(fresh)

    def edit(f, **kw):
        (f / settings).write_text(json.dumps(json.loads((good / settings).read_text()) | kw))

    config = json.loads((good / settings).read_text())['config']
    refused(PartMissing, settings, lambda f: (f / settings).unlink())
    refused(PartMissing, tensors, lambda f: (f / tensors).unlink())
    refused(DataError, 'sha256', lambda f: (f / tensors).write_bytes((good / tensors).read_bytes()[:-1]))
    refused(DataError, 'sha256', lambda f: (f / tensors).write_bytes((good / tensors).read_bytes()[:-1] + b'\1'))
    refused(
        DataError,
        'adapter_config.json: not JSON',
        lambda f: (f / settings).write_text((good / settings).read_text()[:50]),
    )
    refused(DataError, 'wanted a JSON object', lambda f: (f / settings).write_text('[]'))
    refused(DataError, 'format 2', lambda f: edit(f, format=2))
    refused(DataError, "peft_type 'LORA'", lambda f: edit(f, peft_type='LORA'))
    for change in (dict(rank=3), dict(scale=2.0), dict(target_modules=['attn.qkv']), dict(extra=1)):
        refused(DataError, 'changed afterwards', functools.partial(edit, config=config | change))

    # a run that is stopped between the two files leaves what was whole before, or something that is refused
    def stop(*a, **k):
        raise KeyboardInterrupt

    train(tuner, 9)
    monkeypatch.setattr(adaptors, 'write_json', stop)
    with pytest.raises(KeyboardInterrupt):
        save_adaptors(tuner, good)
    with pytest.raises(DataError, match='sha256'):
        load_adaptors(fresh, good)
    with pytest.raises(KeyboardInterrupt):
        save_adaptors(tuner, tmp_path / 'new')
    with pytest.raises(PartMissing):
        load_adaptors(fresh, tmp_path / 'new')
    monkeypatch.undo()
    save_adaptors(tuner, good)
    load_adaptors(fresh, good)
    assert torch.equal(out(fresh, x), out(model, x))


def test_values_that_are_no_weights(tmp_path):
    _, _, _, tuner = make('scmbm', rank=2)
    state = adaptor_state(tuner)
    name = next(k for k in state if k.endswith('adaptor_up.weight'))
    whole = state[name].to(torch.int8)
    with pytest.raises(AdaptorError, match=f'{name} holds int8'):
        load_adaptor_state(tuner, state | {name: whole})
    bad = state[name] * torch.nan
    with pytest.raises(AdaptorError, match=f'{name} holds values that are not finite'):
        load_adaptor_state(tuner, state | {name: bad})
    after = adaptor_state(tuner)
    assert all(torch.equal(v, after[k]) for k, v in state.items())
    layer = next(iter(adaptor_layers(tuner).values()))
    down = layer.adaptor_down['default']
    down.weight.data = down.weight.data.T.contiguous().T
    assert not down.weight.is_contiguous()
    save_adaptors(tuner, tmp_path / 'good')
    down.weight.data[0, 0] = torch.nan
    with pytest.raises(DataError, match='not finite'):
        save_adaptors(tuner, tmp_path / 'bad')
    assert not list((tmp_path / 'bad').iterdir())


def test_a_pickle_is_not_read(tmp_path):
    model, x, before, tuner = make('scmbm', rank=2)
    folder = save_adaptors(tuner, tmp_path / 'a')
    torch.save({'a': 1}, folder / ADAPTOR_FILES[0])
    settings = folder / ADAPTOR_FILES[1]
    settings.write_text(
        json.dumps(json.loads(settings.read_text()) | dict(sha256=file_hash(folder / ADAPTOR_FILES[0])))
    )
    with pytest.raises(DataError, match='safetensors'):
        load_adaptors(scmbm()[0], folder)


def test_peft_says_that_it_does_not_know_the_kind(tmp_path):
    "PeftModel looks methods up in a fixed list. It must refuse; that it loaded a linear LoRA under the same keys would be the worst."
    model, x, before, tuner = make('scmbm', rank=2)
    folder = save_adaptors(tuner, tmp_path / 'a')
    fresh, _ = scmbm()
    with pytest.raises(Exception) as e:
        peft.PeftModel.from_pretrained(fresh, folder)
    assert isinstance(e.value, (KeyError, ValueError)) and torch.equal(out(fresh, x), before)
    with pytest.raises((KeyError, ValueError)):
        peft.get_peft_model(fresh, AdaptorConfig(rank=2))
    assert torch.equal(out(fresh, x), before)
    from peft import mapping

    assert not any(c is AdaptorConfig for c in mapping.PEFT_TYPE_TO_CONFIG_MAPPING.values()), (
        'no dictionary of peft was edited'
    )


def test_beside_a_peft_model_both_round_trip(tmp_path):
    "One assembly may hold ours in one part and LoRA in another: each saves its part, and both come back to the last bit."
    brain, x, _, tuner = make('scmbm', rank=2)
    video, frames = temporal()

    def lora(model):
        config = peft.LoraConfig(r=2, target_modules=['attn.qkv', 'mlp.fc1'], init_lora_weights=False)
        return peft.get_peft_model(model, config)

    both = nn.ModuleDict(dict(brain=tuner, video=lora(video)))
    want = out(brain, x), out(video, frames)
    assert (
        len(adaptor_layers(both)) == 6
        and count_parameters(both)['adaptor']
        == count_parameters(tuner)['adaptor']
        < count_parameters(both)['trainable']
    )
    with adaptors_off(both):
        assert not torch.equal(out(brain, x), want[0]) and torch.equal(out(video, frames), want[1]), (
            'ours alone are off'
        )
    both.video.save_pretrained(tmp_path / 'lora')
    save_adaptors(both.brain, tmp_path / 'ours')
    with pytest.raises(AdaptorError, match='save each part'):
        save_adaptors(both, tmp_path / 'all')
    fresh, other = scmbm()[0], temporal()[0]
    load_adaptors(fresh, tmp_path / 'ours')
    peft.PeftModel.from_pretrained(other, tmp_path / 'lora')
    assert torch.equal(out(fresh, x), want[0]) and torch.equal(out(other, frames), want[1])


def test_another_method_on_the_same_model_is_named():
    model, x, before, tuner = make('scmbm', rank=2)
    with pytest.warns(UserWarning, match='a second time|Already found a `peft_config`'):
        peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=['attn.proj']))
    with pytest.raises(AdaptorError, match='LoraConfig, put over ours'):
        save_adaptors(tuner, 'nowhere')
