"""SC-MBM of MinD-Vis and the encoder of MinD-Video against references written with other means, and their published files.

The references are plain functions over a state dict: attention is nn.functional.multi_head_attention_forward, norms
and GELU are written out, positions come from numpy, masks from a loop."""

import builtins, json, os, pathlib, pickle, subprocess, sys, types
from contextlib import nullcontext
import numpy as np, pytest, torch
import torch.nn.functional as F
from torch import nn
from brainllm.core import DataError, PartMissing
from brainllm.models.tokenizer import FMRITokenizer, ShapeError
from brainllm.models.encoder import BrainEncoder, encoder_from, MaskedBrainModel, TemporalBlock
from brainllm.models.encoder import VoxelEncoder
from brainllm.models.encoder import voxel_encoder
from brainllm.weights import STAND_INS, load_mindvideo, load_scmbm, read_pickle, resize_positions

# ---- the reference


def norm(s, k, x):  # eps 1e-5
    m = x.mean(-1, keepdim=True)
    v = ((x - m) ** 2).mean(-1, keepdim=True)
    return (x - m) / torch.sqrt(v + 1e-5) * s[f'{k}.weight'] + s[f'{k}.bias']


def linear(s, k, x):
    return x @ s[f'{k}.weight'].T + (s[f'{k}.bias'] if f'{k}.bias' in s else 0)


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def attention(s, k, x, heads):  # (B, N, D); torch's own multi-head attention wants (N, B, D)
    t = x.transpose(0, 1)
    d = x.shape[-1]
    return F.multi_head_attention_forward(
        t,
        t,
        t,
        d,
        heads,
        s[f'{k}.qkv.weight'],
        s[f'{k}.qkv.bias'],
        None,
        None,
        False,
        0.0,
        s[f'{k}.proj.weight'],
        s[f'{k}.proj.bias'],
        training=False,
        need_weights=True,
    )[0].transpose(0, 1)


def block(s, k, x, heads, frames=None):
    x = x + attention(s, f'{k}.attn', norm(s, f'{k}.norm1', x), heads)
    if frames:
        y = torch.empty_like(x)
        for b in range(len(x) // frames):
            for n in range(x.shape[1]):
                line = x[b * frames : (b + 1) * frames, n][None]  # (1, frames, D)
                y[b * frames : (b + 1) * frames, n] = (
                    line + attention(s, f'{k}.attn_temp', norm(s, f'{k}.norm_temp', line), heads)
                )[0]
        x = y
    return x + linear(s, f'{k}.mlp.fc2', gelu(linear(s, f'{k}.mlp.fc1', norm(s, f'{k}.norm2', x))))


def patches(s, x):  # (B, V) -> (B, L, D)
    w = s['patch_embed.proj.weight'][:, 0]
    p = w.shape[1]
    L = x.shape[1] // p
    return torch.stack([x[:, i * p : (i + 1) * p] @ w.T for i in range(L)], 1) + s['patch_embed.proj.bias']


def masked_model(
    s, x, ratio, noise, depth, heads, decoder_depth, decoder_heads
):  # x (B, V), noise (B, L) -> loss, pred, mask
    p, L = s['patch_embed.proj.weight'].shape[2], noise.shape[1]
    tokens = patches(s, x) + s['pos_embed'][:, 1:]
    keep = [sorted(range(L), key=lambda i: noise[b, i].item())[: int(L * (1 - ratio))] for b in range(len(x))]
    mask = torch.tensor([[float(i not in k) for i in range(L)] for k in keep])
    h = torch.cat(
        [
            (s['cls_token'] + s['pos_embed'][:, :1]).repeat(len(x), 1, 1),
            torch.stack([tokens[b, k] for b, k in enumerate(keep)]),
        ],
        1,
    )
    for i in range(depth):
        h = block(s, f'blocks.{i}', h, heads)
    h = linear(s, 'decoder_embed', norm(s, 'norm', h))
    full = s['mask_token'].repeat(len(x), L + 1, 1)
    full[:, 0] = h[:, 0]
    for b, k in enumerate(keep):
        full[b, [1 + i for i in k]] = h[b, 1:]
    full = full + s['decoder_pos_embed']
    for i in range(decoder_depth):
        full = block(s, f'decoder_blocks.{i}', full, decoder_heads)
    pred = linear(s, 'decoder_pred', norm(s, 'decoder_norm', full))[:, 1:]
    error = ((pred - x[:, : L * p].reshape(len(x), L, p)) ** 2).mean(-1)
    return (error * mask).sum() / mask.sum(), pred, mask


def scramble(
    model, seed=0, std=0.2
):  # every tensor random, norms and biases too, so that none is left at a harmless start
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for k, p in model.named_parameters():
            p.copy_((1.0 if 'norm' in k and k.endswith('weight') else 0.0) + std * torch.randn(p.shape, generator=g))
    return model


SIZES = dict(
    num_voxels=165, patch=16, dim=48, depth=3, heads=4, mlp_ratio=1.5, decoder_dim=32, decoder_depth=2, decoder_heads=8
)


def small(**changes):
    return scramble(MaskedBrainModel(**SIZES | changes)).eval()


@pytest.fixture
def g():
    return torch.Generator().manual_seed(1)


# ---- the masked model


@pytest.mark.parametrize('ratio', [0.75, 0.5, 0.33])
def test_masked_model_equals_the_reference(g, ratio):
    model = small()
    x, noise = torch.randn(3, 1, 165, generator=g), torch.rand(3, 10, generator=g)
    with torch.no_grad():
        found = model(x, ratio, noise)
        want = masked_model(model.state_dict(), x[:, 0], ratio, noise, 3, 4, 2, 8)
    assert want[1].std() > 0.3 and torch.equal(found[2], want[2]) and found[2].sum() == 3 * (10 - int(10 * (1 - ratio)))
    for a, b in zip(found, want, strict=True):
        assert (a - b).abs().max() < 1e-5


def test_masked_model_at_the_published_width(g):
    model = scramble(MaskedBrainModel(640, 16, 1024, 2, 16, 1.0, 512, 2, 16), std=0.03).eval()
    x, noise = torch.randn(2, 1, 640, generator=g), torch.rand(2, 40, generator=g)
    with torch.no_grad():
        found = model(x, 0.75, noise)
        want = masked_model(model.state_dict(), x[:, 0], 0.75, noise, 2, 16, 2, 16)
    for a, b in zip(found, want, strict=True):
        assert (a - b).abs().max() < 1e-5 * max(1, b.abs().max())


def test_noise_is_the_first_and_only_draw(g):
    model, x = small(), torch.randn(2, 1, 160, generator=g)
    torch.manual_seed(3)
    noise = torch.rand(2, 10)
    after = torch.rand(1)
    torch.manual_seed(3)
    with torch.no_grad():
        found = model(x)
    assert torch.equal(found[1], model(x, 0.75, noise)[1]) and torch.equal(torch.rand(1), after)


def test_position_tables_are_those_of_the_paper():
    w = 1 / 10000 ** (np.arange(24) / 24.0)
    a = np.arange(10)[:, None] * w
    want = np.concatenate([np.zeros((1, 48)), np.concatenate([np.sin(a), np.cos(a)], 1)]).astype(np.float32)
    table = MaskedBrainModel(**SIZES).pos_embed
    assert not table.requires_grad and abs(table[0].numpy() - want).max() < 1e-7


def test_trailing_voxels_have_no_influence(g):
    model = small()
    x = torch.randn(2, 1, 165, generator=g)
    noise = torch.rand(2, 10, generator=g)
    other = x.clone()
    other[:, :, 160:] = 99.0
    for a, b in zip(model(x, 0.75, noise), model(other, 0.75, noise), strict=True):
        assert torch.equal(a, b)


def published_names(depth, decoder_depth, D=1024, d=512, p=16, L=250):
    names = dict(cls_token=(1, 1, D), mask_token=(1, 1, d), pos_embed=(1, L + 1, D), decoder_pos_embed=(1, L + 1, d))

    def lin(k, o, i):
        names.update({f'{k}.weight': (o, i), f'{k}.bias': (o,)})

    def ln(k, n):
        names.update({f'{k}.weight': (n,), f'{k}.bias': (n,)})

    names.update({'patch_embed.proj.weight': (D, 1, p), 'patch_embed.proj.bias': (D,)})
    for where, n, w in (('blocks', depth, D), ('decoder_blocks', decoder_depth, d)):
        for i in range(n):
            b = f'{where}.{i}'
            ln(f'{b}.norm1', w)
            ln(f'{b}.norm2', w)
            lin(f'{b}.attn.qkv', 3 * w, w)
            lin(f'{b}.attn.proj', w, w)
            lin(f'{b}.mlp.fc1', w, w)
            lin(f'{b}.mlp.fc2', w, w)
    ln('norm', D)
    ln('decoder_norm', d)
    lin('decoder_embed', d, D)
    lin('decoder_pred', p, d)
    return names


def test_published_size_has_the_published_names_and_count():
    with torch.device('meta'):
        model = MaskedBrainModel(4000, 16, 1024, 24, 16, 1.0, 512, 8, 16)
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == published_names(24, 8)
    encoder = [p.numel() for k, p in model.named_parameters() if 'decoder' not in k and k != 'mask_token']
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 164.8 and round(sum(encoder) / 1e6, 1) == 151.5


# ---- its published files


class Call:
    def __init__(self, *what):
        self.what = what

    def __reduce__(self):
        return self.what


@pytest.fixture
def foreign(monkeypatch):
    "Makes instances of classes of a module `config`, which is gone again afterwards."

    def make(name='Config_MBM_fMRI', **attributes):
        module = sys.modules.get('config') or types.ModuleType('config')
        monkeypatch.setitem(sys.modules, 'config', module)
        cls = module.__dict__.setdefault(name, type(name, (), dict(__module__='config')))
        obj = cls()
        obj.__dict__.update(attributes)
        return obj

    yield make


def settings(**changes):
    return (
        dict(
            patch_size=16,
            embed_dim=48,
            depth=3,
            num_heads=4,
            mlp_ratio=1.5,
            decoder_embed_dim=32,
            decoder_num_heads=8,
            num_voxels=165,
            lr=2.5e-4,
            roi='VC',
            include_hcp=True,
            focus_range=None,
            root_path='.',
        )
        | changes
    )


def checkpoint(file, model, config=None, legacy=False):
    optimizer = (
        torch.optim.AdamW([p for p in model.parameters() if p.requires_grad]) if isinstance(model, nn.Module) else None
    )
    held = dict(
        model=model.state_dict() if optimizer else model,
        optimizer=optimizer.state_dict() if optimizer else {},
        epoch=499,
        scaler=dict(scale=65536.0, growth_factor=2.0),
    )
    torch.save(held | ({} if config is None else dict(config=config)), file, _use_new_zipfile_serialization=not legacy)
    sys.modules.pop('config', None)
    return file


@pytest.mark.parametrize('name', ['Config_MBM_fMRI', 'Config_MAE_fMRI'])
@pytest.mark.parametrize('legacy', [False, True])
def test_a_published_file_gives_the_same_numbers(tmp_path, foreign, g, name, legacy):
    model = small()
    known = torch.serialization.get_safe_globals()
    state = torch.random.get_rng_state()
    file = checkpoint(tmp_path / 'checkpoint.pth', model, foreign(name, **settings()), legacy)
    loaded = load_scmbm(file)
    x, noise = torch.randn(3, 1, 165, generator=g), torch.rand(3, 10, generator=g)
    file.write_bytes(b'')  # the model does not hang on the file
    for a, b, c in zip(
        loaded(x, 0.75, noise),
        model(x, 0.75, noise),
        masked_model(model.state_dict(), x[:, 0], 0.75, noise, 3, 4, 2, 8),
        strict=True,
    ):
        assert torch.equal(a, b) and (a - c).abs().max() < 1e-5
    assert (
        not loaded.training
        and loaded.blocks[0].attn.heads == 4
        and loaded.decoder_blocks[0].attn.heads == 8
        and {p.dtype for p in loaded.parameters()} == {torch.float32}
    )
    assert [k for k, p in loaded.named_parameters() if not p.requires_grad] == ['pos_embed', 'decoder_pos_embed']
    assert 'config' not in sys.modules and set(torch.serialization.get_safe_globals()) == set(known)
    assert torch.equal(torch.random.get_rng_state(), state), 'loading draws nothing'


def test_mlp_ratio_comes_from_the_config_and_shapes_agree(tmp_path, foreign):
    for ratio in (1.0, 1.5, 4.0):
        loaded = load_scmbm(
            checkpoint(tmp_path / 'a.pth', small(mlp_ratio=ratio), foreign(**settings(mlp_ratio=ratio)))
        )
        assert loaded.blocks[2].mlp.fc1.out_features == int(48 * ratio) and loaded.decoder_blocks[
            1
        ].mlp.fc1.out_features == int(32 * ratio)
    with pytest.raises(DataError, match=r'a\.pth.*mlp_ratio 4\.0.*72 outputs'):
        load_scmbm(checkpoint(tmp_path / 'a.pth', small(), foreign(**settings(mlp_ratio=4.0))))
    for bad in ('1.0', None, float('inf'), True):
        with pytest.raises(DataError, match='mlp_ratio'):
            load_scmbm(checkpoint(tmp_path / 'a.pth', small(), foreign(**settings(mlp_ratio=bad))))


def test_positions_are_resized_as_published(tmp_path, foreign, g):
    model = small()
    file = checkpoint(tmp_path / 'checkpoint.pth', model, foreign(**settings()))
    for V in (165, 160, 64, 320, 331, 16):
        L, loaded = V // 16, load_scmbm(tmp_path, num_voxels=V)
        for k in ('pos_embed', 'decoder_pos_embed'):
            old, new = getattr(model, k)[0], getattr(loaded, k)[0]
            assert torch.equal(new, torch.stack([old[0]] + [old[1 + i * 10 // L] for i in range(L)]))
        assert loaded(torch.randn(2, 1, V, generator=g), 0.5)[1].shape == (2, L, 16)
    with pytest.raises(DataError, match='num_voxels'):
        load_scmbm(file, num_voxels=15)
    assert resize_positions(model.pos_embed, 10) is model.pos_embed


def test_every_key_is_accounted_for(tmp_path, foreign):
    state = small().state_dict()

    def load(s):
        return load_scmbm(checkpoint(tmp_path / 'wrong.pth', s, foreign(**settings())))

    load(
        state
        | {'nature_img_mask_token': torch.zeros(1, 1, 32), 'nature_img_decoder_blocks.1.norm1.weight': torch.zeros(32)}
    )
    for k in state:  # each single tensor is needed
        with pytest.raises(DataError, match=r'wrong\.pth'):
            load({n: v for n, v in state.items() if n != k})
    for k in ('blocks.0.attn.rel_pos', 'module.cls_token', 'decoder_pos_embed2', 'my_nature_img_x'):
        with pytest.raises(DataError, match=f'wrong.pth: missing none; unexpected {k}'):
            load(state | {k: torch.zeros(3)})
    for k in state:
        with pytest.raises(DataError, match=r'wrong\.pth'):
            load(state | {k: torch.zeros(*state[k].shape, 2)})
        with pytest.raises(DataError, match=r'wrong\.pth'):
            load(state | {k: torch.zeros(3, 5)})
    for k, v in {
        'norm.weight': torch.zeros(0),
        'patch_embed.proj.weight': torch.zeros(48, 1, 0),
        'pos_embed': torch.zeros(1, 1, 48),
        'cls_token': torch.zeros(()),
    }.items():
        with pytest.raises(DataError, match=r'wrong\.pth'):
            load(state | {k: v})
    with pytest.raises(DataError, match='blocks.7'):
        load({k.replace('blocks.1.', 'blocks.7.'): v for k, v in state.items()})


@pytest.mark.parametrize(
    'spoil, word',
    [
        (lambda v: v.index_fill(0, torch.tensor([1]), torch.nan), 'not finite: 48 of 6912'),
        (lambda v: v.index_fill(0, torch.tensor([1]), -torch.inf), 'not finite'),
        (lambda v: v.double() * 1e300, 'not finite'),
        (lambda v: (v * 127).to(torch.int8), 'holds int8, wanted floats'),
        (lambda v: v > 0, 'holds bool, wanted floats'),
        (lambda v: v.to(torch.float8_e4m3fn), 'holds float8_e4m3fn, wanted floats'),
        (lambda v: v.to(torch.complex64), 'holds complex64, wanted floats'),
        (lambda v: v.to_sparse(), 'holds packed values'),
        (lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8), 'holds packed values'),
    ],
)
def test_values_that_are_no_weights(tmp_path, spoil, word):
    state = small().state_dict()
    name = 'blocks.0.attn.qkv.weight'
    torch.save(state | {name: spoil(state[name])}, tmp_path / 'checkpoint.pth')
    with pytest.raises(DataError, match=word) as e:
        load_scmbm(tmp_path / 'checkpoint.pth', heads=4, decoder_heads=8)
    assert name in str(e.value) or 'packed' not in word


def test_without_config_the_heads_are_asked_for(tmp_path, g):
    from safetensors.torch import save_file

    model = small()
    x = torch.randn(2, 1, 160, generator=g)
    noise = torch.rand(2, 10, generator=g)
    save_file(model.state_dict(), tmp_path / 'checkpoint.safetensors')
    torch.save(model.state_dict(), tmp_path / 'bare.pth')
    for file in (tmp_path, tmp_path / 'checkpoint.safetensors', tmp_path / 'bare.pth'):
        with pytest.raises(DataError, match='heads= .16 as published'):
            load_scmbm(file)
        loaded = load_scmbm(file, heads=4, decoder_heads=8)
        assert (
            torch.equal(loaded(x, 0.75, noise)[1], model(x, 0.75, noise)[1])
            and loaded.decoder_blocks[0].mlp.fc2.in_features == 48
        )
    with pytest.raises(DataError, match='5 heads do not divide'):
        load_scmbm(tmp_path, heads=5)


def test_the_config_and_an_argument_may_not_disagree(tmp_path, foreign):
    file = checkpoint(tmp_path / 'c.pth', small(), foreign(**settings()))
    load_scmbm(file, heads=4, decoder_heads=8)
    with pytest.raises(DataError, match='num_heads is 4, and the argument says 16'):
        load_scmbm(file, heads=16)
    for k, v in dict(patch_size=8, embed_dim=1024, depth=24, decoder_embed_dim=512).items():
        with pytest.raises(DataError, match=f'{k} {v}'):
            load_scmbm(checkpoint(file, small(), foreign(**settings(**{k: v}))))


def test_files_that_are_no_checkpoint(tmp_path, foreign):
    file = checkpoint(tmp_path / 'checkpoint.pth', small(), foreign(**settings()))
    data = file.read_bytes()
    for n in (0, 10, 1000, len(data) // 2, len(data) - 100):
        (tmp_path / 'cut.pth').write_bytes(data[:n])
        with pytest.raises(DataError, match=r'cut\.pth'):
            load_scmbm(tmp_path / 'cut.pth')
    (tmp_path / 'cut.safetensors').write_bytes(b'\x10\0\0\0\0\0\0\0{"a":')
    with pytest.raises(DataError, match=r'cut\.safetensors'):
        load_scmbm(tmp_path / 'cut.safetensors')
    for held in (
        {},
        [1, 2],
        {'model': {}},
        {'model': 3},
        {'model': {'a': 3}},
        torch.zeros(3),
        {3: torch.zeros(3)},
        {'a': torch.zeros(3)},
    ):
        torch.save(held, tmp_path / 'other.pth')
        with pytest.raises(DataError, match=r'other\.pth'):
            load_scmbm(tmp_path / 'other.pth')
    for where in (tmp_path / 'none.pth', tmp_path / 'none'):
        with pytest.raises(PartMissing, match='none'):
            load_scmbm(where)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(PartMissing, match='checkpoint.pth'):
        load_scmbm(tmp_path / 'empty')


def attempts(trap, foreign):
    "What a hostile file may hold, and the word its refusal must say."
    config = type(foreign())
    yield 'system', Call(os.system, (f'touch {trap}',))
    yield 'eval', Call(builtins.eval, (f'open({trap!r}, "w")',))
    yield 'exec', Call(builtins.exec, (f'open({trap!r}, "w")',))
    yield 'getattr', Call(builtins.getattr, (torch.Tensor, 'add'))
    yield 'Popen', Call(subprocess.Popen, (['touch', trap],))
    yield 'arguments', Call(config, (f'touch {trap}',))
    yield 'state of a config', Call(config, (), [1, 2])
    yield 'state of a config', Call(config, (), (None, {'__class__': 3}))
    yield 'config.Config_MBM_finetune', foreign('Config_MBM_finetune')
    yield 'Path', pathlib.PurePosixPath('a')
    yield 'load', Call(torch.load, (str(trap),))


def test_no_file_runs_code(tmp_path, foreign):
    trap = str(tmp_path / 'trap')
    known = set(torch.serialization.get_safe_globals())
    model = small().state_dict()
    n = 0
    for word, obj in attempts(trap, foreign):
        for legacy in (False, True):
            for held in (dict(model=model, config=obj), obj, dict(model=model | {'x': obj})):
                foreign()
                torch.save(held, tmp_path / 'evil.pth', _use_new_zipfile_serialization=not legacy)
                with pytest.raises(DataError, match='refused') as e:
                    load_scmbm(tmp_path / 'evil.pth')
                assert word in str(e.value) and 'evil.pth' in str(e.value), str(e.value)
                assert set(torch.serialization.get_safe_globals()) == known and not os.path.exists(trap)
                n += 1
    assert n == 66


@pytest.mark.parametrize('protocol', [0, 1, 2, 3, 4, 5])
def test_a_plain_pickle_is_refused_by_name(tmp_path, protocol):
    (tmp_path / 'evil.pth').write_bytes(
        pickle.dumps(dict(model=Call(os.system, (f'touch {tmp_path / "trap"}',))), protocol=protocol)
    )
    said = (
        pytest.warns(UserWarning, match='Detected pickle protocol') if protocol > 2 else nullcontext()
    )  # torch says so before it refuses
    with said, pytest.raises(DataError, match=r'evil\.pth: refused: it names .*system'):
        load_scmbm(tmp_path / 'evil.pth')
    assert not (tmp_path / 'trap').exists()


def test_a_state_with_a_hook_is_a_bag_of_attributes(tmp_path, foreign):
    "A config class that had __setstate__ or __reduce__ of its own where it was written: only its attributes come here."
    config = foreign(**settings())
    type(config).__setstate__ = lambda self, s: os.abort()
    type(config).__getattr__ = lambda self, k: os.abort()
    loaded = read_pickle(checkpoint(tmp_path / 'c.pth', small(), config))['config']
    assert vars(loaded) == settings() and type(loaded).__module__ == 'brainllm.weights' and len(STAND_INS) == 2


# ---- downstream


def encoder_reference(s, x, depth, heads, pool=False, temporal=False):  # (B, window, V)
    B, T, V = x.shape
    h = patches(s, x.reshape(B * T, V)) + s['pos_embed'][:, 1:]
    for i in range(depth):
        h = block(s, f'blocks.{i}', h, heads, T if temporal else None)
    if pool: return norm(s, 'norm', h.mean(1)[:, None])
    h = norm(s, 'norm', h)
    return torch.stack([torch.cat([h[b * T + t] for t in range(T)]) for b in range(B)])


def head_reference(s, tokens):
    p = linear(s, 'proj_head.projection', torch.einsum('on,bnd->bod', s['proj_head.channel_mapper.weight'], tokens))
    out = linear(s, 'proj_head.fc', gelu(p)) + p
    return norm(s, 'proj_head.layer_norm', out) if 'proj_head.layer_norm.weight' in s else out


@pytest.mark.parametrize('pool', [False, True])
def test_mindvis_downstream_encoder(g, pool):
    model, x = small(), torch.randn(3, 1, 165, generator=g)
    encoder = voxel_encoder(model, pool)
    with torch.no_grad():
        found, want = encoder(x), encoder_reference(model.state_dict(), x, 3, 4, pool)
    assert found.shape == ((3, 1, 48) if pool else (3, 10, 48)) and (found - want).abs().max() < 1e-5
    s = {k: v.clone() for k, v in model.state_dict().items()}
    s |= {
        k: torch.full_like(v, float(k.endswith('weight')))
        for k, v in s.items()
        if k.startswith('blocks.') and '.norm' in k
    }
    assert (found - encoder_reference(s, x, 3, 4, pool)).abs().max() > 0.05, (
        'the published loader loses the norms of the blocks; ours keeps them'
    )
    with torch.no_grad():
        model.norm.weight.zero_()
    assert torch.equal(encoder(x), found), 'a copy'


@pytest.mark.parametrize(
    'window,temporal,use_norm', [(1, True, False), (2, True, True), (3, False, False), (3, True, False)]
)
def test_mindvideo_encoder(tmp_path, g, window, temporal, use_norm):
    source = scramble(
        VoxelEncoder(165, 16, 48, 2, 4, 1.5, window, temporal, head=dict(out_tokens=7, out_dim=24, norm=use_norm)),
        window,
    ).eval()
    config = dict(
        _class_name='fMRIEncoder',
        _diffusers_version='0.11',
        num_voxels=165,
        patch_size=16,
        embed_dim=48,
        depth=2,
        num_heads=4,
        mlp_ratio=1.5,
        out_channel=7,
        out_dim=24,
        use_norm=use_norm,
        dropout=0.1,
        window_size=window,
        use_temp_attn=temporal,
        logit_scale_init_value=2.0,
    )
    (tmp_path / 'config.json').write_text(json.dumps(config))
    state = source.state_dict() | dict(cls_token=torch.ones(1, 1, 48), mask_token=torch.ones(1, 1, 48))
    torch.save(state, tmp_path / 'diffusion_pytorch_model.bin')
    loaded, x = load_mindvideo(tmp_path), torch.randn(3, window, 165, generator=g)
    with torch.no_grad():
        tokens = loaded.tokens(x)
        out = loaded(x)
        want = encoder_reference(state, x, 2, 4, temporal=temporal)
    assert tokens.shape == (3, window * 10, 48) and (tokens - want).abs().max() < 1e-5
    assert (
        out.shape == (3, 7, 24)
        and (out - head_reference(state, want)).abs().max() < 1e-5
        and torch.equal(loaded.logit_scale, source.logit_scale)
    )
    torch.save({'model': state}, tmp_path / 'model.pth')
    assert torch.equal(load_mindvideo(tmp_path)(x), out)
    other = load_mindvideo(tmp_path, num_voxels=130, head=False)
    assert torch.equal(other.pos_embed, resize_positions(source.pos_embed, 8)) and other(
        torch.randn(2, window, 130)
    ).shape == (2, window * 8, 48)
    with pytest.raises(DataError, match=f'channel_mapper maps {window * 10} tokens, wanted {window * 8}'):
        load_mindvideo(tmp_path, num_voxels=130)


def mindvideo_names(L=278, window=2, D=1024, tokens=77, out=768):
    names = {k: v for k, v in published_names(24, 0, L=L).items() if 'decoder' not in k} | dict(
        mask_token=(1, 1, D), logit_scale=()
    )
    for i in range(24):
        names |= {
            f'blocks.{i}.norm_temp.weight': (D,),
            f'blocks.{i}.norm_temp.bias': (D,),
            f'blocks.{i}.attn_temp.qkv.weight': (3 * D, D),
            f'blocks.{i}.attn_temp.qkv.bias': (3 * D,),
            f'blocks.{i}.attn_temp.proj.weight': (D, D),
            f'blocks.{i}.attn_temp.proj.bias': (D,),
        }
    return names | {
        'proj_head.projection.weight': (out, D),
        'proj_head.fc.weight': (out, out),
        'proj_head.channel_mapper.weight': (tokens, window * L),
    }


def test_mindvideo_published_names():
    with torch.device('meta'):
        model = VoxelEncoder(278 * 16, 16, 1024, 24, 16, 1.0, 2, True, head=dict(out_tokens=77, out_dim=768))
    want = mindvideo_names()
    dropped = {'cls_token', 'mask_token'}
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == {
        k: v for k, v in want.items() if k not in dropped
    }


def test_mindvideo_refusals(tmp_path, foreign):
    source = VoxelEncoder(165, 16, 48, 2, 4, 1.5, 2, True, head=dict(out_tokens=7, out_dim=24))
    state = source.state_dict()
    good = dict(
        num_voxels=165,
        embed_dim=48,
        depth=2,
        num_heads=4,
        mlp_ratio=1.5,
        out_channel=7,
        out_dim=24,
        window_size=2,
        use_temp_attn=True,
    )

    def load(state=state, **changes):
        (tmp_path / 'config.json').write_text(json.dumps(good | changes))
        torch.save(state, tmp_path / 'model.pth')
        return load_mindvideo(tmp_path)

    load()
    load(state | dict(cls_token=torch.zeros(1, 1, 48)))
    for k in state:
        with pytest.raises(DataError, match=r'model\.pth'):
            load({n: v for n, v in state.items() if n != k})
        with pytest.raises(DataError, match=r'model\.pth'):
            load(state | {k: torch.zeros(*state[k].shape, 2)})
    with pytest.raises(DataError, match='unexpected proj_head.layer_norm_in.bias'):
        load(state | {'proj_head.layer_norm_in.bias': torch.zeros(48)})
    for k, v in dict(
        use_temp_attn=False,
        window_size=1,
        mlp_ratio=4.0,
        depth=3,
        depth_=10**9,
        embed_dim=64,
        out_dim=25,
        use_norm=True,
    ).items():
        with pytest.raises(DataError):
            load(**{k.strip('_'): v})
    for k, v in dict(num_heads=5, in_chans=2, patch_size=0, num_voxels='165', use_temp_attn=1).items():
        with pytest.raises(DataError, match=rf'config\.json.*{k}'):
            load(**{k: v})
    with pytest.raises(DataError, match='use load_mindvideo'):
        load_scmbm(tmp_path)
    torch.save(small().state_dict(), tmp_path / 'model.pth')
    (tmp_path / 'config.json').write_text(json.dumps(good | dict(depth=3)))
    with pytest.raises(DataError, match='use load_scmbm'):
        load_mindvideo(tmp_path)
    torch.save(Call(os.system, (f'touch {tmp_path / "trap"}',)), tmp_path / 'model.pth')
    with pytest.raises(DataError, match='system'):
        load_mindvideo(tmp_path)
    (tmp_path / 'config.json').write_text('{')
    with pytest.raises(DataError, match='not JSON'):
        load_mindvideo(tmp_path)
    (tmp_path / 'config.json').unlink()
    with pytest.raises(PartMissing, match=r'config\.json'):
        load_mindvideo(tmp_path)
    assert not (tmp_path / 'trap').exists()


def test_shapes_that_two_codes_read_differently_are_refused(g):
    one = voxel_encoder(small())
    two = VoxelEncoder(165, 16, 48, 1, 4, window=2, temporal=True)
    for model, shape in (
        (one, (3, 165)),
        (one, (3, 2, 165)),
        (one, (3, 1, 159)),
        (one, (3, 1, 176)),
        (two, (3, 1, 165)),
        (two, (2, 165)),
        (two, (165,)),
    ):
        with pytest.raises(ShapeError, match='wanted'):
            model(torch.zeros(shape))


# ---- behind our tokenizer


def test_brain_encoder_takes_the_blocks_of_either(g):
    masked = small()
    video = scramble(VoxelEncoder(165, 16, 48, 2, 4, 1.5, 2, True, head={}), 5)
    tokenizer = FMRITokenizer(3, (6, 6, 6), 3, 48)
    bold = torch.randn(2, 3, 6, 6, 6, generator=g)
    tokens = tokenizer(bold).detach()
    for source, depth, temporal in ((masked, 3, False), (voxel_encoder(masked), 3, False), (video, 2, True)):
        ours = encoder_from(source, tokenizer.coords)
        s = source.state_dict()
        assert isinstance(ours, BrainEncoder) and set(ours.state_dict()) == {
            k for k in s if k.startswith(('blocks.', 'norm.'))
        }
        h = tokens + ours.pos
        for i in range(depth):
            h = block(
                s, f'blocks.{i}', h, 4, 1 if temporal else None
            )  # one frame: its attention over frames passes the value on
        with torch.no_grad():
            assert (ours(tokens) - norm(s, 'norm', h)).abs().max() < 1e-5
        keep = torch.tensor([[0, 3, 5], [7, 1, 2]])
        assert ours(tokens.gather(1, keep[..., None].expand(-1, -1, 48)), keep).shape == (2, 3, 48)
        before = {k: v.clone() for k, v in s.items()}
        ours(tokens).square().sum().backward()
        with torch.no_grad():
            [p.add_(1.0) for p in ours.parameters()]
        assert all(torch.equal(v, before[k]) for k, v in source.state_dict().items()) and all(
            p.grad is None for p in source.parameters()
        ), 'a copy'
    assert any(isinstance(m, TemporalBlock) for m in ours.modules())
    with pytest.raises(ShapeError, match='Linear'):
        encoder_from(nn.Linear(3, 3))
    again = encoder_from(encoder_from(masked))
    assert torch.equal(again(tokens), encoder_from(masked)(tokens))


def test_models_import_without_timm():
    code = (
        "import sys; sys.modules['timm'] = None; import brainllm.models, brainllm.weights; print('timm' in [m for m "
        "in sys.modules if sys.modules[m]])"
    )
    assert (
        subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()
        == 'False'
    )
