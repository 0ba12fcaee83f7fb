"""The published Video-LLaMA against a reference written with other means, its files, what is refused, and answers that survive SIGKILL.

The reference is plain functions over the original names of the files (eva_vit_g.pth, blip2_pretrained_flant5xxl.pth, a
checkpoint of Video-LLaMA): attention is written with einsum and softmax, norms with means, GELU with erf."""

import json, math, os, random, signal, subprocess, sys, time
from pathlib import Path
import av, numpy as np, pytest, torch
from safetensors.torch import save_file
from transformers import Blip2QFormerConfig, Blip2VisionConfig, LlamaConfig, LlamaForCausalLM
from brainllm.core import show_notes, DataError, PartMissing, read_jsonl
from brainllm.store import Store
from brainllm.models.llm import render_prompt, tidy_answer
from brainllm.video import teachers
from brainllm.video.answers import answer_files, answer_main, AnswerFile, find_clips, read_questions
from brainllm.video.checkpoints import check_llm, check_vocabulary, load_llama, load_video_llama, read_video_llama
from brainllm.video.clips import CLIP_MEAN, CLIP_STD, clip_pixels, read_clip, timing
from brainllm.video.published import answer_clip, BLIP2, count_weights, Decoding, prompt_embeddings
from brainllm.video.published import PublishedVideoLLaMA, TRAINED_KEYS, video_llama_structure, write_answers
from brainllm.video.teachers import FileTeacher, HFTeacher, make_teacher, pooled_tokens, SmallTeacher, Teacher
from brainllm.video.teachers import VideoLLaMATeacher
from brainllm.weights import prepare

ROOT = Path(__file__).resolve().parent.parent
D = 32  # widths of ViT and Q-Formers, heads of both, the Q-Former's MLP, its layers, queries
W = 24
HEADS = 2
FFN = 48
LAYERS = 4
L = 4
VISION = Blip2VisionConfig(
    hidden_size=D, intermediate_size=64, num_hidden_layers=2, num_attention_heads=HEADS, image_size=28
)
QFORMER = Blip2QFormerConfig(
    hidden_size=W, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=FFN, encoder_hidden_size=D
)

# ---- the reference


def norm(s, k, x, eps):
    m = x.mean(-1, keepdim=True)
    return (x - m) / (((x - m) ** 2).mean(-1, keepdim=True) + eps).sqrt() * s[f'{k}.weight'] + s[f'{k}.bias']


def linear(s, k, x):
    return x @ s[f'{k}.weight'].T + s[f'{k}.bias']


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def attend(q, k, v, heads):  # (B, N, D), (B, M, D), (B, M, D)
    q, k, v = (t.unflatten(-1, (heads, -1)) for t in (q, k, v))
    a = torch.einsum('bnhd,bmhd->bhnm', q, k) / math.sqrt(q.shape[-1])
    return torch.einsum('bhnm,bmhd->bnhd', a.softmax(-1), v).flatten(2)


def vit(s, x, depth):  # (n, 3, S, S), original names -> (n, 1+P, D)
    w, b = s['patch_embed.proj.weight'], s['patch_embed.proj.bias']
    p = w.shape[-1]
    n = x.shape[-1] // p
    patches = [
        x[:, :, i * p : (i + 1) * p, j * p : (j + 1) * p].flatten(1) @ w.flatten(1).T + b
        for i in range(n)
        for j in range(n)
    ]
    h = torch.stack([s['cls_token'][0, 0].expand(len(x), -1), *patches], 1) + s['pos_embed']
    for i in range(depth):
        k = f'blocks.{i}'
        z = norm(s, f'{k}.norm1', h, 1e-6)
        wq, wk, wv = s[f'{k}.attn.qkv.weight'].chunk(3)
        h = h + linear(
            s,
            f'{k}.attn.proj',
            attend(z @ wq.T + s[f'{k}.attn.q_bias'], z @ wk.T, z @ wv.T + s[f'{k}.attn.v_bias'], HEADS),
        )
        h = h + linear(s, f'{k}.mlp.fc2', gelu(linear(s, f'{k}.mlp.fc1', norm(s, f'{k}.norm2', h, 1e-6))))
    return h


def qformer(s, p, queries, keys, layers, every):  # BERT with norms behind each step, without words
    h = norm(s, f'{p}.bert.embeddings.LayerNorm', queries, 1e-12)
    for i in range(layers):
        k = f'{p}.bert.encoder.layer.{i}'
        for name, to in [('attention', h)] + ([('crossattention', keys)] if i % every == 0 else []):
            to = h if name == 'attention' else to
            a = attend(
                linear(s, f'{k}.{name}.self.query', h),
                linear(s, f'{k}.{name}.self.key', to),
                linear(s, f'{k}.{name}.self.value', to),
                HEADS,
            )
            h = norm(s, f'{k}.{name}.output.LayerNorm', linear(s, f'{k}.{name}.output.dense', a) + h, 1e-12)
        m = linear(s, f'{k}.output_query.dense', gelu(linear(s, f'{k}.intermediate_query.dense', h)))
        h = norm(s, f'{k}.output_query.LayerNorm', m + h, 1e-12)
    return h


def reference(eva, blip2, own, pixels, eps=1e-5):  # pixels (B, 3, T, S, S) -> (B, L, W)
    out = []
    for clip in pixels:
        frames = norm(blip2, 'ln_vision', vit(eva, clip.transpose(0, 1), 2), eps)
        x = torch.cat(
            [
                qformer(blip2, 'Qformer', blip2['query_tokens'], f[None], LAYERS, 2)
                + own['video_frame_position_embedding.weight'][t]
                for t, f in enumerate(frames)
            ],
            1,
        )
        out.append(qformer(own, 'video_Qformer', own['video_query_tokens'], x, 2, 1))
    return torch.cat(out)


# ---- files in the published layout, in a small size


def bert(p, layers, every, keys, text=False):  # name -> shape
    out = {f'{p}.bert.embeddings.LayerNorm': (W,)}
    for i in range(layers):
        k = f'{p}.bert.encoder.layer.{i}'
        for name, width in [('attention', W)] + ([('crossattention', keys)] if i % every == 0 else []):
            out |= {
                f'{k}.{name}.self.query': (W, W),
                f'{k}.{name}.self.key': (W, width),
                f'{k}.{name}.self.value': (W, width),
                f'{k}.{name}.output.dense': (W, W),
                f'{k}.{name}.output.LayerNorm': (W,),
            }
        for q in ['_query'] + [''] * text:
            out |= {
                f'{k}.intermediate{q}.dense': (FFN, W),
                f'{k}.output{q}.dense': (W, FFN),
                f'{k}.output{q}.LayerNorm': (W,),
            }
    return out


def fill(shapes, g, scale=0.3):  # weights and biases, all random, norms too
    out = {}
    for k, shape in shapes.items():
        out[f'{k}.weight'] = torch.randn(shape, generator=g) * scale + (len(shape) == 1)
        out[f'{k}.bias'] = torch.randn(shape[0], generator=g) * scale
    return out


def eva_file(g, scale=0.03, blocks=3):  # one block more than is used; a small scale, so that an epsilon shows
    def r(*s):
        return torch.randn(s, generator=g) * scale
    out = dict(cls_token=r(1, 1, D) * 0.1, pos_embed=r(1, 5, D) * 0.1, **fill({'norm': (D,), 'head': (9, D)}, g)) | {
        'patch_embed.proj.weight': r(D, 3, 14, 14) * 0.01,
        'patch_embed.proj.bias': r(D) * 0.1,
    }
    for i in range(blocks):
        k = f'blocks.{i}'
        out |= fill(
            {
                f'{k}.norm1': (D,),
                f'{k}.norm2': (D,),
                f'{k}.attn.proj': (D, D),
                f'{k}.mlp.fc1': (64, D),
                f'{k}.mlp.fc2': (D, 64),
            },
            g,
            scale,
        )
        out |= {f'{k}.attn.qkv.weight': r(3 * D, D) * 10, f'{k}.attn.q_bias': r(D) * 10, f'{k}.attn.v_bias': r(D)}
        for n in ('attn.proj', 'mlp.fc2'):
            out[f'{k}.{n}.weight'] *= 0.01
            out[f'{k}.{n}.bias'] *= 0.01
    return out


def blip2_file(g, width=4096):
    out = fill(bert('Qformer', LAYERS, 2, D, text=True) | {'ln_vision': (D,), 't5_proj': (width, W)}, g)
    return out | {
        'query_tokens': torch.randn(1, L, W, generator=g),
        'Qformer.bert.embeddings.position_ids': torch.arange(512)[None],
        'Qformer.bert.embeddings.word_embeddings.weight': torch.zeros(7, W),
        'Qformer.cls.predictions.bias': torch.zeros(7),
    }


def own_file(g, llm_dim=32):
    out = fill(bert('video_Qformer', 2, 1, W) | {'llama_proj': (llm_dim, W)}, g)
    return out | {
        'video_query_tokens': torch.randn(1, L, W, generator=g),
        'video_frame_position_embedding.weight': torch.randn(32, W, generator=g),
    }


BUFFERS = {
    'video_Qformer.bert.embeddings.position_ids': torch.arange(512)[None],
    'Qformer.bert.embeddings.position_ids': torch.arange(512)[None],
} | {f'llama_model.model.layers.{i}.self_attn.rotary_emb.inv_freq': torch.ones(4) for i in range(32)}


def checkpoint(state, **more):
    return dict(
        model=state | BUFFERS,
        optimizer=dict(state={}, param_groups=[dict(lr=1e-4, params=[0])]),
        config=dict(model=dict(arch='video_llama', **more), run=dict(seed=42)),
        scaler=dict(scale=65536.0),
        epoch=3,
    )


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    d, g = tmp_path_factory.mktemp('published'), torch.Generator().manual_seed(0)
    states = eva_file(g), blip2_file(g), own_file(g)
    torch.save(states[0], d / 'eva_vit_g.pth')
    torch.save(dict(model=states[1]), d / 'blip2_pretrained_flant5xxl.pth')
    torch.save(checkpoint(states[2], end_sym='###'), d / 'finetune-vicuna7b-v2.pth')
    return d, prepare('llm', 'tiny', Store(d / 'parts')), states


def load(files, **changes):
    d, llm, _ = files
    return load_video_llama(
        **dict(
            checkpoint=d / 'finetune-vicuna7b-v2.pth',
            blip2=d / 'blip2_pretrained_flant5xxl.pth',
            vit=d / 'eva_vit_g.pth',
            llm=llm,
            dtype=torch.float32,
            vision=VISION,
            qformer=QFORMER,
        )
        | changes
    )


def clip(n=5, seed=0, size=28):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), np.uint8)


# ---- loading and parity


def test_agrees_with_the_reference(files):
    model = load(files)
    frames = np.stack([clip(seed=1), clip(seed=2)])
    found, want = model.encode(frames), reference(*files[2], clip_pixels(frames, 28))
    assert want.std() > 0.3 and (found - want).abs().max() < 1e-5
    assert (reference(*files[2], clip_pixels(frames, 28), eps=1e-6) - want).abs().max() > 1e-3, (
        'the epsilon of the norm behind the ViT must show in this test'
    )
    own = files[2][2]
    assert torch.allclose(
        model.encode(frames, project=True), found @ own['llama_proj.weight'].T + own['llama_proj.bias'], atol=1e-5
    )


def test_large_values_agree_too(tmp_path, files):  # of a ViT whose blocks do much
    g = torch.Generator().manual_seed(5)
    eva = eva_file(g, scale=1.0)
    torch.save(eva, tmp_path / 'eva_vit_g.pth')
    found = load(files, vit=tmp_path / 'eva_vit_g.pth').encode(clip())
    want = reference(eva, *files[2][1:], clip_pixels(clip(), 28))
    assert (found - want).abs().max() < 1e-5


def test_float16_vit_keeps_the_rest_in_float32(files):
    model = load(files, vit_dtype=torch.float16, dtype=torch.bfloat16)
    assert (
        model.vision_model.post_layernorm.weight.dtype == model.qformer.layernorm.weight.dtype == torch.float32
        and model.vision_model.encoder.layers[0].mlp.fc1.weight.dtype == torch.float16
    )
    x = model.encode(clip())
    assert x.dtype == torch.float32 and torch.isfinite(x).all()
    assert answer_clip(model, clip(), ['Who?'], 8.0, how=Decoding(max_new_tokens=3)), (
        'the LLM is bfloat16, the tokens are cast before they are joined'
    )


def test_huggingface_folder_gives_the_same(tmp_path, files):
    plain = load(files)
    save = {k: v.contiguous() for k, v in plain.state_dict().items() if k.startswith(BLIP2)}
    half = dict(list(save.items())[:20])
    rest = {k: v for k, v in save.items() if k not in half}
    t5 = {'language_model.shared.weight': torch.zeros(2, 2)}
    save_file(half, tmp_path / 'a.safetensors')
    save_file(
        rest | {'language_projection.bias': torch.zeros(2)}, tmp_path / 'b.safetensors'
    )  # the shard of T5 alone is not there, and not needed
    where = (
        dict.fromkeys(half, 'a.safetensors')
        | dict.fromkeys([*rest, 'language_projection.bias'], 'b.safetensors')
        | dict.fromkeys(t5, 'c.safetensors')
    )
    (tmp_path / 'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=where)))
    config = dict(
        text_config=dict(model_type='t5', d_model=4096),
        vision_config=VISION.to_dict() | dict(layer_norm_eps=1e-3),
        qformer_config=QFORMER.to_dict(),
    )
    (tmp_path / 'config.json').write_text(json.dumps(config))
    made = load(files, blip2=tmp_path, vit=None, vision=None, qformer=None)
    assert torch.equal(made.encode(clip()), plain.encode(clip())), 'also with another epsilon in config.json'
    (tmp_path / 'config.json').write_text(
        json.dumps(config | dict(text_config=dict(model_type='opt', hidden_size=2560)))
    )
    with pytest.raises(DataError, match='trained for opt of width 2560, wanted that of FLAN-T5-XXL'):
        load(files, blip2=tmp_path, vit=None)
    (tmp_path / 'config.json').write_text(json.dumps(config))
    save_file(rest | dict(odd=torch.zeros(1)), tmp_path / 'b.safetensors')
    (tmp_path / 'model.safetensors.index.json').write_text(
        json.dumps(dict(weight_map=where | dict(odd='b.safetensors')))
    )
    with pytest.raises(DataError, match='unexpected odd'):
        load(files, blip2=tmp_path, vit=None)
    (tmp_path / 'b.safetensors').write_bytes((tmp_path / 'b.safetensors').read_bytes()[:-50])
    with pytest.raises(DataError, match='b.safetensors: cannot be read'):
        load(files, blip2=tmp_path, vit=None)


def test_structure_of_the_7b_model_is_quick_and_small():
    code = '''
import re, time
start = time.time()
from brainllm.video.published import *
m = video_llama_structure()
n = count_weights
seconds = time.time() - start
peak = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]  # this process' own; ru_maxrss has its parent's
parts = [n(m, k) for k in ('vision_model.', 'qformer.', 'video_qformer.')]
print(seconds, int(peak) * 1024, *parts, n(m, *TRAINED_KEYS), n(m, 'llm.'), len(m.llm.model.layers))
'''
    out = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | dict(PYTHONPATH=str(ROOT)),
    ).stdout.split()
    assert float(out[0]) < 30 and int(out[1]) < 2e9, out
    assert [int(n) for n in out[2:]] == [985_952_256, 105_137_664, 18_905_088, 22_104_064, 6_738_415_616, 32]
    wide = video_llama_structure(
        dict(hidden_size=5120, num_attention_heads=40, num_hidden_layers=1, intermediate_size=13824)
    )
    assert count_weights(wide, *TRAINED_KEYS) == 22_891_520


def test_every_tensor_is_used_or_named(tmp_path, files):
    d, _, (_, _, own) = files
    state, told = read_video_llama(d / 'finetune-vicuna7b-v2.pth')
    assert len(state) == 58 and told == 'vicuna'
    for k in own:  # each of them missing
        torch.save(dict(model={n: v for n, v in own.items() if n != k}), tmp_path / 'c.pth')
        with pytest.raises(DataError, match='c.pth'):
            load(files, checkpoint=tmp_path / 'c.pth')
    for extra in (
        'video_Qformer.bert.encoder.layer.2.output.dense.weight',
        'Qformer.bert.encoder.layer.0.attention.self.query.weight',
        'llama_model.lm_head.weight',
    ):
        torch.save(dict(model=own | {extra: torch.zeros(1)}), tmp_path / 'c.pth')
        with pytest.raises(
            DataError,
            match=r'c\.pth.*unexpected ' + extra.replace('video_Qformer.bert', 'video_qformer').replace('.', r'\.'),
        ):
            load(files, checkpoint=tmp_path / 'c.pth')
    torch.save(own, tmp_path / 'bare.pth')
    assert torch.equal(load(files, checkpoint=tmp_path / 'bare.pth').encode(clip()), load(files).encode(clip()))


def test_each_file_is_named_when_it_is_wrong(tmp_path, files):
    _, _, (eva, blip2, own) = files
    torch.save({k: v for k, v in eva.items() if k != 'blocks.1.attn.q_bias'}, tmp_path / 'eva.pth')
    with pytest.raises(DataError, match=r'eva\.pth: missing vision_model.encoder.layers.1.self_attn.qkv.bias'):
        load(files, vit=tmp_path / 'eva.pth')
    torch.save(eva | {'blocks.0.attn.relative_position_bias_table': torch.zeros(1)}, tmp_path / 'eva.pth')
    with pytest.raises(DataError, match='unexpected vision_model.encoder.layers.0.self_attn.relative'):
        load(files, vit=tmp_path / 'eva.pth')
    torch.save(blip2 | {'itm_head.weight': torch.zeros(1)}, tmp_path / 'b.pth')
    with pytest.raises(DataError, match=r'b\.pth: .*unexpected itm_head'):
        load(files, blip2=tmp_path / 'b.pth')
    with pytest.raises(PartMissing, match='holds no ViT'):
        load(files, vit=None)
    short = tmp_path / 'short.pth'
    torch.save(own, short)
    short.write_bytes(short.read_bytes()[:1000])
    with pytest.raises(DataError, match='short.pth'):
        load(files, checkpoint=short)


# ---- what is refused, and with which sentence


def test_other_checkpoints_are_refused(tmp_path, files):
    g = torch.Generator().manual_seed(0)
    own = own_file(g)
    file = tmp_path / 'x.pth'

    def refused(state, words, **changes):
        torch.save(dict(model=state), file)
        with pytest.raises(DataError) as e:
            load(files, **dict(checkpoint=file) | changes)
        assert all(w in str(e.value) for w in ('x.pth', *words)), e.value

    refused(own_file(g, 5120), ['13B, width 5120', 'width 32', 'of one size'])
    refused(
        {k: v for k, v in own.items() if k.startswith('llama_proj')},
        ['pretrained_minigpt4.pth', 'no video_Qformer', 'finetune-vicuna7b-v2.pth'],
    )
    refused(blip2_file(g), ['image-only Q-Former', 'no video_Qformer'])
    refused({'audio_query_tokens': torch.zeros(1, 8, W), 'audio_llama_proj.bias': torch.zeros(3)}, ['audio branch'])
    refused(
        blip2_file(g, 2048),
        ['t5 of width 2048', 'FLAN-T5-XXL'],
        checkpoint=files[0] / 'finetune-vicuna7b-v2.pth',
        blip2=file,
    )
    opt = {k.replace('t5_proj', 'opt_proj'): v for k, v in blip2_file(g, 2560).items()}
    refused(
        opt,
        ['opt of width 2560', 'blip2_pretrained_flant5xxl.pth'],
        checkpoint=files[0] / 'finetune-vicuna7b-v2.pth',
        blip2=file,
    )
    refused(
        {k: v for k, v in opt.items() if not k.startswith('opt_proj')},
        ['nothing says'],
        checkpoint=files[0] / 'finetune-vicuna7b-v2.pth',
        blip2=file,
    )


def llama_folder(folder, vocab=None, name=None, template=None, scale=None, **save):
    from brainllm.weights import tiny_tokenizer

    tok = tiny_tokenizer()
    torch.manual_seed(0)
    tok.chat_template = template
    llm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab or len(tok),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
        )
    )
    if scale is not None:
        llm.model.norm.weight.data.mul_(scale)
    llm.save_pretrained(folder)
    tok.save_pretrained(folder)
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps(config | ({'_name_or_path': name} if name else {})))
    return folder, llm


def test_other_llms_are_refused(tmp_path, files):
    def refused(words, prompt=None, **how):
        folder, _ = llama_folder(tmp_path / f'm{len(list(tmp_path.iterdir()))}', **how)
        with pytest.raises(DataError) as e:
            load(files, llm=folder, prompt=prompt)
        assert all(w in str(e.value) for w in (folder.name, *words)), e.value

    refused(['v1.1', 'wanted Vicuna v0'], name='lmsys/vicuna-7b-v1.1')
    refused(['v1.5', 'wanted Vicuna v0'], name='lmsys/vicuna-7b-v1.5')
    refused(['v1.1 or later, by its chat template'], template="{{ 'USER: ' + 'x' + ' ASSISTANT:' }}")
    refused(['raw Vicuna delta', 'apply_delta'], name='lmsys/vicuna-7b-delta-v0')
    refused(['difference of two models', 'apply_delta'], scale=1e-3)
    refused(['family llama2', 'trained with vicuna'], name='meta-llama/Llama-2-7b-chat-hf')
    refused(['family vicuna', 'trained with llama2'], 'llama2', name='vicuna-7b-v0')
    refused(['rows of embeddings'], vocab=len(files[2]) + 260)
    with pytest.raises(DataError, match=r'32001 rows of embeddings and a tokenizer of 32000.*\[PAD\]'):
        check_vocabulary(32001, range(32000), 'vicuna')
    with pytest.raises(DataError, match='32000 rows'):
        check_vocabulary(32000, range(32001), 'vicuna')
    for name in ('vicuna-13b-v0', 'vicuna-13', 'vicuna-7b'):
        check_llm(llama_folder(tmp_path / name)[0], 'vicuna')
    check_vocabulary(32064, range(32000), 'padded to 64')
    with pytest.raises(PartMissing, match='config.json'):
        check_llm(tmp_path / 'nowhere', 'vicuna')


def test_llama_from_bin_files(tmp_path, files):
    folder, llm = llama_folder(tmp_path / 'vicuna-7b-v0')
    (folder / 'model.safetensors').unlink()
    state = llm.state_dict() | {'model.layers.0.self_attn.rotary_emb.inv_freq': torch.ones(8)}
    keys = sorted(state)
    torch.save({k: state[k] for k in keys[:9]}, folder / 'pytorch_model-00001-of-00002.bin')
    torch.save({k: state[k] for k in keys[9:]}, folder / 'pytorch_model-00002-of-00002.bin')
    made, tok = load_llama(folder, torch.float32)
    ids = torch.arange(6)[None]
    assert torch.equal(made(ids).logits, llm.eval()(ids).logits) and not any(p.requires_grad for p in made.parameters())
    torch.save({k: state[k] for k in keys[10:]}, folder / 'pytorch_model-00002-of-00002.bin')
    with pytest.raises(DataError, match=f'missing {keys[9]}'):
        load_llama(folder, torch.float32)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def test_no_file_can_run_code(tmp_path, files):
    mark = tmp_path / 'ran'
    for name, what in dict(checkpoint='c.pth', blip2='b.pth', vit='e.pth').items():
        torch.save(dict(model=dict(files[2][2]), config=Bomb(mark)), tmp_path / what)
        with pytest.raises(DataError, match=f'{what}: refused: it names .*system'):
            load(files, **{name: tmp_path / what})
    folder, _ = llama_folder(tmp_path / 'llm')
    (folder / 'model.safetensors').unlink()
    torch.save(dict(x=Bomb(mark)), folder / 'pytorch_model.bin')
    with pytest.raises(DataError, match='pytorch_model.bin: refused: it names .*system'):
        load_llama(folder)
    assert not mark.exists()


# ---- prompts and answers


class Chars:  # a tokenizer of single characters, whose ### is one token at the start and two elsewhere, as LLaMA's
    unk_token_id, bos_token_id, eos_token_id, pad_token_id = 0, 1, 2, None

    def __len__(self):
        return 128

    def __call__(self, text, add_special_tokens=True):
        ids = [3] + [ord(c) for c in text[3:]] if text.startswith('###') else [*map(ord, text)]
        out = []
        while ids:
            if ids[:3] == [35] * 3:
                out += [4, 5]
                ids = ids[3:]
            else:
                out.append(ids.pop(0))
        return type('Ids', (), dict(input_ids=out))

    def decode(self, ids, skip_special_tokens=False):
        return ''.join({3: '###', 4: '##', 5: '#'}.get(i, chr(i)) for i in ids if i > 2)


def chain(pairs):  # an LLM without layers: what follows a token depends on that token alone
    llm = LlamaForCausalLM(
        LlamaConfig(vocab_size=128, hidden_size=128, intermediate_size=8, num_hidden_layers=0, num_attention_heads=2)
    )
    llm.model.embed_tokens.weight.data = torch.eye(128)
    table = torch.zeros(128, 128)
    for a, b in pairs:
        table[b, a] = 1
    llm.lm_head.weight.data = table
    return llm


def test_prompt_is_cut_and_only_the_first_piece_begins():
    model = PublishedVideoLLaMA(chain([]), Chars(), VISION, QFORMER, n_query=L)
    tokens = torch.full((L, 128), 0.5)
    text = render_prompt('vicuna', 'Who?', timing([0, 3, 6], 10.0), 'Sys.')
    assert text == (
        'Sys.###Human: <Video><ImageHere></Video> The video contains 3 frames sampled at 0.0, 0.3, 0.6 seconds.  '
        'Who?###Assistant:'
    )
    x = prompt_embeddings(model, text, tokens)
    head, tail = text.split('<ImageHere>')
    ids = [1, *map(ord, 'Sys.'), 4, 5, *map(ord, 'Human: <Video>')]
    end = [*map(ord, tail.split('###')[0]), 4, 5, *map(ord, 'Assistant:')]
    assert torch.equal(x, torch.cat([torch.eye(128)[ids], tokens, torch.eye(128)[end]])) and 1 not in end
    with pytest.raises(DataError, match='mark of the video'):
        render_prompt('vicuna', 'a <ImageHere> b')


def test_each_row_stops_by_itself():
    def a(s):
        return ord(s)
    steps = [
        (a('a'), a('b')),
        (a('b'), 4),
        (4, 5),
        (5, a('x')),
        (a('x'), a('x')),
        (a('p'), a('q')),
        (a('q'), 2),
        (2, a('z')),
        (a('m'), a('n')),
        (a('n'), a('m')),
        (a('s'), 3),
        (3, a('z')),
    ]
    model = PublishedVideoLLaMA(chain(steps), Chars(), VISION, QFORMER, n_query=L)
    rows = [torch.eye(128)[[9] * k + [ord(c)]] for k, c in enumerate('apms')]
    assert write_answers(model, rows, Decoding(max_new_tokens=6)) == [
        'b',
        'q',
        'nmnmnm',
        '',
    ]  # pair of ###, end of sequence, no stop, single ###
    assert [write_answers(model, [r], Decoding(max_new_tokens=6))[0] for r in rows] == ['b', 'q', 'nmnmnm', '']
    model.llm.config.max_position_embeddings = 8
    with pytest.raises(DataError, match='context of the LLM'):
        write_answers(model, rows, Decoding(max_new_tokens=6))


def test_answers_are_tidied():
    def tidy(*ids):
        return tidy_answer(Chars(), list(ids))
    assert (
        tidy(0, 1, *map(ord, ' A dog.'), 4, 5, ord('x')) == 'A dog.'
        and tidy(*map(ord, 'Assistant: yes ')) == 'yes'
        and tidy() == ''
    )


def test_batch_and_seeds(files):
    model = load(files)
    q = ['What?', 'Who is there, and why do they look so tired?', 'Where?']
    how = Decoding(max_new_tokens=10)
    for prompt in ('vicuna', 'llama2'):
        model.prompt = prompt
        said = answer_clip(model, clip(12), q, 8.0, how=how)
        assert said == [answer_clip(model, clip(12), [x], 8.0, how=how)[0] for x in q] and said == answer_clip(
            model, clip(12), q, 8.0, how=Decoding(max_new_tokens=10, batch=2)
        )
    def draw(seed, q=q, f=clip(12)):
        return answer_clip(
            model, f, q, 8.0, how=Decoding(max_new_tokens=10, sample=True, seed=seed)
        )
    torch.manual_seed(1)
    first = draw(0)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert (
        first == draw(0)
        and first[::-1] == draw(0, q[::-1])
        and first != draw(1)
        and torch.equal(state, torch.get_rng_state())
    )


def test_frames(files):
    model = load(files)
    with pytest.raises(DataError, match='33, wanted at most 32'):
        model.encode(clip(33))
    with pytest.raises(DataError, match='1 to 32'):
        VideoLLaMATeacher(model, {}, 33)
    from PIL import Image

    wide = np.kron(clip(1, size=8), np.ones((1, 9, 7, 1), np.uint8))  # 72 x 56
    want = np.asarray(Image.fromarray(wide[0]).resize((28, 28), Image.Resampling.BICUBIC)).astype(float)
    found = clip_pixels(wide, 28)[0, :, 0].permute(1, 2, 0) * torch.tensor(CLIP_STD) + torch.tensor(CLIP_MEAN)
    assert np.abs(found.numpy() * 255 - want).max() <= 1.01


# ---- other teachers


def tiny_llava():
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        Qwen2Config,
        SiglipVisionConfig,
    )

    n = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    torch.manual_seed(0)
    text = Qwen2Config(vocab_size=130, num_key_value_heads=2, bos_token_id=None, eos_token_id=2, pad_token_id=0, **n)
    net = LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            vision_config=SiglipVisionConfig(image_size=56, patch_size=14, **n),
            text_config=text,
            video_token_index=129,
            image_token_index=128,
            vision_feature_layer=-1,
            vision_feature_select_strategy='full',
        )
    )
    for p in net.parameters():
        p.data.add_(torch.randn_like(p) * 0.1)
    return net


class StandIn:  # in place of a processor, which needs torchvision: the documented interface and nothing else
    chat_template = 'there is one'
    tokenizer = type('Tok', (), dict(padding_side='right'))()
    seen = None

    def apply_chat_template(self, talk, add_generation_prompt, tokenize, return_dict, return_tensors, processor_kwargs):
        assert (
            add_generation_prompt
            and tokenize
            and return_dict
            and return_tensors == 'pt'
            and processor_kwargs['padding']
            and not processor_kwargs['do_sample_frames']
        )
        self.seen = processor_kwargs['video_metadata']
        videos = [c['video'] for t in talk for c in t[0]['content'] if c['type'] == 'video']
        rows = [
            [129] * (len(v) * 4 + 1) + [*map(ord, c['text'])]
            for v, t in zip(videos, talk, strict=True)
            for c in t[0]['content']
            if c['type'] == 'text'
        ]
        n = max(map(len, rows))
        assert self.tokenizer.padding_side == 'left'
        ids = torch.tensor([[0] * (n - len(r)) + r for r in rows])
        return dict(input_ids=ids, attention_mask=(ids != 0).long(), **self.video_processor(videos))

    def video_processor(self, videos, **kw):
        return dict(pixel_values_videos=torch.stack([clip_pixels(v, 56)[0].transpose(0, 1) for v in videos]))

    def batch_decode(self, ids, skip_special_tokens):
        return [''.join(chr(i) for i in r if i > 2) for r in ids.tolist()]


def test_huggingface_teacher():
    t = HFTeacher(tiny_llava(), StandIn(), dict(model='tiny'), n_frames=4, max_new_tokens=6)
    q = ['What?', 'Who is that?']
    said = t.answer(clip(16), 8.0, q)
    assert (
        isinstance(t, Teacher)
        and t.tokens(clip()) is None
        and said == [t.answer(clip(16), 8.0, [x])[0] for x in q]
        and said != t.answer(clip(16, 3), 8.0, q)
    )
    assert t.processor.seen[0][0]['frames_indices'] == [0, 4, 8, 12] and t.processor.seen[0][0]['fps'] == 8.0
    x = t.pooled(clip(16))
    h = t.model.model.vision_tower(clip_pixels(clip(16)[::4], 56)[0].transpose(0, 1)).last_hidden_state
    assert (
        x.shape == (32, 32)
        and torch.allclose(x[0], h[:2, 0].mean(0), atol=1e-6)
        and torch.allclose(x[-1], h[2:, -1].mean(0), atol=1e-6)
    )
    json.dumps(t.provenance)


def test_huggingface_teacher_says_what_it_needs(monkeypatch, tmp_path):
    import transformers

    def needs(*a, **k):
        raise ImportError('LlavaOnevisionVideoProcessor requires the Torchvision library')

    monkeypatch.setattr(transformers.AutoProcessor, 'from_pretrained', needs)
    with pytest.raises(PartMissing, match='somebody/model.*install torchvision'):
        HFTeacher.load('somebody/model')


def test_pooled_tokens_are_means_of_cells():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(8, 16 * 16, 5, generator=g)
    grid = x.view(8, 16, 16, 5)
    found = pooled_tokens(x)
    want = torch.stack(
        [
            grid[4 * t : 4 * t + 4, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].reshape(-1, 5).mean(0)
            for t in range(2)
            for i in range(4)
            for j in range(4)
        ]
    )
    assert torch.allclose(found, want, atol=1e-6) and torch.allclose(
        pooled_tokens(x[:, :32], shape=(4, 8))[0], grid[:4].flatten(1, 2)[:, [0, 1]].reshape(-1, 5).mean(0), atol=1e-6
    )
    with pytest.raises(DataError, match='class token'):
        pooled_tokens(x[:, :-1])


def test_small_teacher_is_a_run_s_own(tmp_path):
    from brainllm.presets import VideoConfig
    from brainllm.models.llm import PromptedLLM
    from brainllm.video.clips import dino_tokens, keep_features
    from brainllm.video.small import answer_clips, encode, VideoLLaMA
    from brainllm.weights import load_llm, load_vit

    cfg = VideoConfig(
        vit='tiny',
        llm='tiny',
        text='tiny',
        image_size=28,
        n_frames=4,
        n_query=4,
        dim=24,
        heads=2,
        layers=2,
        video_layers=1,
        max_new_tokens=6,
    )
    parts = Store(tmp_path / 'parts')
    llm = PromptedLLM(*load_llm(prepare('llm', 'tiny', parts), torch.float32))
    vit = load_vit(prepare('vit', 'tiny', parts))
    for k, n in enumerate((16, 3)):
        film(tmp_path / f'{k}.mp4', k, n)  # the second is shorter than what is looked at
    paths = [tmp_path / f'{k}.mp4' for k in range(2)]
    features = torch.from_numpy(
        keep_features(tmp_path, paths, lambda frames: dino_tokens(vit, frames), cfg).astype(np.float32)
    )
    torch.manual_seed(0)
    video = VideoLLaMA(cfg, *features.shape[2:], llm.dim).eval()
    video.standardise(features)
    video.llama_proj.weight.data.mul_(9)
    with pytest.raises(PartMissing, match='found 0'):
        SmallTeacher.load(str(tmp_path / 'run'))
    Store(tmp_path / 'run' / 'artifacts').get(
        'video', lambda d: save_file(video.state_dict(), d / 'model.safetensors'), dict(video=cfg, dtype='float32')
    )
    t = SmallTeacher.load(str(tmp_path / 'run'))
    frames = [read_clip(p, t.n_frames, t.size)[0] for p in paths]
    x, q = encode(video, features), ['What is it?', 'Who?']
    assert torch.allclose(torch.stack([t.tokens(f) for f in frames]), x, atol=1e-4) and (x[0] - x[1]).abs().max() > 1e-2
    for k, f in enumerate(frames):
        assert t.answer(f, 8.0, q) == answer_clips(video, llm, x[[k, k]], q, 6)


# ---- the command line


def film(path, seed, n=6, size=32):
    with av.open(str(path), 'w') as f:
        s = f.add_stream('mpeg4', rate=8)
        s.width = s.height = size
        s.pix_fmt = 'yuv420p'
        for x in clip(n, seed, size):
            f.mux(s.encode(av.VideoFrame.from_ndarray(x)))
        f.mux(s.encode())


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    d = tmp_path_factory.mktemp('study')
    (d / 'clips' / 'sub').mkdir(parents=True)
    for k in range(10):
        film(d / 'clips' / ('sub' if k % 2 else '.') / f'{k}.mp4', k)
    (d / 'ask.txt').write_text('What is the main thing happening?\n\nWho is there?\nWhere?\n')
    (d / 'slow.py').write_text('''
import time, torch

class Slow:  # a recurrent net of random weights; transformers alone would take seconds to load
    n_frames, size = 4, 28

    def __init__(self, words):
        torch.manual_seed(0)
        self.net = torch.nn.GRU(3 * 28 * 28, 32, batch_first=True)
        self.out = torch.nn.Linear(32, 26)
        self.words = words
        self.provenance = dict(teacher='slow', words=words)

    def tokens(self, frames):
        return None

    @torch.no_grad()
    def answer(self, frames, fps, questions, clip='', index=None):
        time.sleep(.03)
        h = self.net(torch.from_numpy(frames).float().flatten(1)[None] / 255)[0][0, -1]
        size = self.out(h).abs().sum() * 1e4
        return [''.join(chr(97 + int((i + 1) * (len(q) + 1) * size) % 26) for i in range(self.words)) for q in questions]

def make(words:int=5):
    return Slow(words)
''')
    return d


def start(study, out, *more):  # the real command, in a process of its own
    env = os.environ | dict(PYTHONPATH=f'{ROOT}{os.pathsep}{study}', OMP_NUM_THREADS='1')
    return subprocess.Popen(
        [
            sys.executable,
            '-m',
            'brainllm.video',
            'answer',
            '--clips',
            study / 'clips',
            '--questions',
            study / 'ask.txt',
            '--out',
            out,
            '--teacher',
            'slow:make',
            *more,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
    )


def pairs(path):
    return [(r['clip'], r['question'], r['answer']) for r in read_jsonl(path)]


def test_killed_at_any_moment_it_goes_on(study, tmp_path):
    p = start(study, tmp_path / 'whole.jsonl')
    said = p.communicate(timeout=300)[0]
    assert p.returncode == 0, said
    want = pairs(tmp_path / 'whole.jsonl')
    assert len(want) == len(set(want)) == 30 and len({a for *_, a in want}) > 10
    out, rng, kills = tmp_path / 'deep' / 'broken.jsonl', random.Random(0), 0
    for goal in (0, 4, 13, 22):  # lines on the disk when it is killed, and some milliseconds more
        p = start(study, out)
        limit = time.time() + 120
        while (
            (out.read_bytes().count(b'\n') if out.exists() else -1) <= goal and p.poll() is None and time.time() < limit
        ):
            time.sleep(0.001)
        time.sleep(rng.random() * 0.03)
        p.send_signal(signal.SIGKILL)
        p.wait()
        kills += p.returncode == -signal.SIGKILL
        have = out.read_bytes()
        have = have[: have.rfind(b'\n') + 1].decode().splitlines()
        assert (
            goal < len(have) < 30
            and [tuple(json.loads(l)[k] for k in ('clip', 'question', 'answer')) for l in have] == want[: len(have)]
        )
        if goal == 4:
            out.open('ab').write(out.read_bytes()[:57])  # as if the kill had fallen into a write
    assert kills == 4
    p = start(study, out)
    said = p.communicate(timeout=300)[0]
    assert p.returncode == 0 and pairs(out) == want, said
    made = read_jsonl(out)
    assert all(
        r['teacher'] == made[0]['teacher']
        and r['teacher']['words'] == 5
        and {'commit', 'versions', 'clip_sha256'} <= r.keys()
        for r in made
    )
    before = out.read_bytes()
    p = start(study, out, '--set', 'words=6')
    said = p.communicate(timeout=300)[0]
    assert (
        p.returncode == 1
        and 'made with other settings (words: found 5, wanted 6)' in said
        and out.read_bytes() == before
    )


@pytest.mark.parametrize('cut', [1, 2, 40, -1])
def test_a_torn_line_is_cut_wherever_it_is_torn(tmp_path, cut, capsys):
    show_notes()
    file, teacher = tmp_path / 'a.jsonl', dict(name='x')
    with AnswerFile(file, teacher) as f:
        f.add('a', '1', 'q', 'é\u2028"\n')
        f.add('b', '1', 'q', 'two')
    whole = file.read_bytes()
    first = whole.index(b'\n') + 1
    file.write_bytes(whole[:first] + whole[first:][:cut])
    with AnswerFile(file, teacher) as f:
        assert list(f.rows) == [('a', 'q')]
        f.add('b', '1', 'q', 'two')
    assert [r['answer'] for r in read_jsonl(file)] == ['é\u2028"\n', 'two'] and 'torn' in capsys.readouterr().err


def test_what_an_answer_file_refuses(tmp_path):
    file, teacher = tmp_path / 'a.jsonl', dict(name='x')
    with AnswerFile(file, teacher) as f:
        f.add('a', '1', 'q', 'one')
        with pytest.raises(DataError, match='another process is writing'):
            AnswerFile(file, teacher).__enter__()
        with pytest.raises(DataError, match='of another film'):
            f.check_clip('a', '2')
    line = file.read_text()
    for text, words in (
        (line + line, 'there twice'),
        ('{"torn": \n' + line, 'line 1: not JSON'),
        (line + '{"a": 1}\n', 'line 2: not a line of answers'),
        (line + '\n[1]\n', 'line 3: found .1., wanted a JSON object'),
        (line + 'notes of somebody', 'no torn line of answers, so nothing is cut'),
        ('notes of somebody', 'no torn line of answers, so nothing is cut'),
        (line.replace('"clip": "a"', '"clip": ["a"]'), 'line 1: not a line of answers'),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=words):
            AnswerFile(file, teacher).__enter__()
        assert file.read_text() == text, 'a refused file is left as it was'


def test_questions_are_parted_by_ends_of_lines_alone(tmp_path):
    text, rows = tmp_path / 'q.txt', tmp_path / 'q.jsonl'
    text.write_bytes('\ufeffWho?\r\n\r\nWhat\u2028else? \n'.encode())
    assert read_questions(text) == [(None, 'Who?'), (None, 'What\u2028else?')]
    rows.write_text('\ufeff{"question": "Who?"}\n\n{"question": "What\u2028else?", "clip": "a.mp4"}\n\n')
    assert read_questions(rows) == [(None, 'Who?'), ('a.mp4', 'What\u2028else?')]
    for content, words in (('{"question": "Who?"}\n\n{"clip": "a"}', 'line 3: found no question'), ('[1]', 'line 1'),
                           ('{"question": "Who?", "clip": ["a"]}', 'line 1: found no question')):
        rows.write_text(content)
        with pytest.raises(DataError, match=words):
            read_questions(rows)
    text.unlink()
    text.symlink_to('nowhere')
    with pytest.raises(DataError, match='datalad get'):
        read_questions(text)


def test_clip_that_changed_is_refused(study, tmp_path):
    import shutil

    clips = tmp_path / 'clips'
    clips.mkdir()
    shutil.copy(study / 'clips' / '0.mp4', clips)
    (tmp_path / 'made.jsonl').write_text(json.dumps(dict(clip='0.mp4', question='Q?', answer='A.')) + '\n')
    t = FileTeacher(str(tmp_path / 'made.jsonl'))
    def ask():
        return answer_files(t, find_clips(clips), [(None, 'Q?')], tmp_path / 'out.jsonl')
    assert ask() == 1 and ask() == 0
    film(clips / '0.mp4', 99)
    with pytest.raises(DataError, match='of another film'):
        ask()


def test_command_line_in_words(study, tmp_path, capsys):
    (tmp_path / 'q.jsonl').write_text('{"question": "Who?", "clip": "0.mp4"}\n{"question": "Where?"}\n')
    rows = [dict(clip=c, question='Where?', answer=f'In {c}.') for c in find_clips(study / 'clips')] + [
        dict(clip='0.mp4', question='Who?', answer='Me.')
    ]
    (tmp_path / 'made.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows))
    def run(*a, q='q.jsonl'):
        return answer_main(
            [
                'answer',
                '--clips',
                str(study / 'clips'),
                '--questions',
                str(tmp_path / q),
                '--out',
                str(tmp_path / 'out.jsonl'),
                *a,
            ]
        )
    assert (
        run('--teacher', 'file', '--set', f'path={tmp_path / "made.jsonl"}') == 0
        and len(pairs(tmp_path / 'out.jsonl')) == 11
        and ('0.mp4', 'Who?', 'Me.') in pairs(tmp_path / 'out.jsonl')
    )
    for args, words in (
        (['--teacher', 'nobody'], 'no such name'),
        (['--teacher', 'no.where:x'], 'cannot be found'),
        (['--teacher', 'video-llama'], "missing a required argument: 'checkpoint'"),
        (['--teacher', 'file', '--set', 'paht=x'], 'path'),
        (['--set', 'run=nowhere'], 'name another teacher'),
    ):
        assert run(*args) == 1 and words in capsys.readouterr().out
    (tmp_path / 'none.txt').write_text('\n')
    assert run(q='none.txt') == 1 and 'found no question' in capsys.readouterr().out
    (tmp_path / 'twice.txt').write_text('Who?\nWho?\n')
    with pytest.raises(DataError, match='twice'):
        read_questions(tmp_path / 'twice.txt')
    with pytest.raises(DataError, match='found no film'):
        find_clips(tmp_path)
    assert isinstance(make_teacher('file', path=str(tmp_path / 'made.jsonl')), Teacher)


def test_hidden_files_are_no_films(tmp_path):
    for name in ('a.mp4', '._a.mp4', '.ipynb_checkpoints/a.mp4', 'sub/b.mkv', '.trash/sub/c.mp4'):
        (tmp_path / '.own' / name).parent.mkdir(parents=True, exist_ok=True)
        film(tmp_path / '.own' / name, 0)
    assert list(find_clips(tmp_path / '.own')) == ['a.mp4', 'sub/b.mkv']
    (tmp_path / '.own' / 'a.mp4').write_bytes((tmp_path / '.own' / 'a.mp4').read_bytes()[:300])
    with pytest.raises(DataError, match='does not decode as a film'):
        read_clip(tmp_path / '.own' / 'a.mp4', 4, 28)


def test_published_teacher_from_the_command_line(files, study, tmp_path, monkeypatch):
    d, llm, _ = files
    plain = load_video_llama
    monkeypatch.setattr(
        teachers, 'load_video_llama', lambda *a: plain(*a, vision=VISION, qformer=QFORMER)
    )  # the files of this test are small
    sets = dict(
        checkpoint=d / 'finetune-vicuna7b-v2.pth',
        blip2=d / 'blip2_pretrained_flant5xxl.pth',
        vit=d / 'eva_vit_g.pth',
        llm=llm,
        dtype='float32',
        max_new_tokens=4,
    )
    args = [
        'answer',
        '--clips',
        str(study / 'clips'),
        '--questions',
        str(study / 'ask.txt'),
        '--out',
        str(tmp_path / 'o.jsonl'),
        '--teacher',
        'video-llama',
        *[x for k, v in sets.items() for x in ('--set', f'{k}={v}')],
    ]
    assert answer_main(args) == 0 and len(pairs(tmp_path / 'o.jsonl')) == 30
    row = read_jsonl(tmp_path / 'o.jsonl')[0]['teacher']
    assert (
        row['files']['checkpoint'][0] == 'finetune-vicuna7b-v2.pth'
        and row['prompt'] == 'vicuna'
        and row['decoding']['sample'] is False
    )
