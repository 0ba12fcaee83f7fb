"""A decoder that travels: equal to the last bit here and in another process, on its own base alone, and refused by name
when anything is wrong with it."""

import hashlib, json, math, os, shutil, signal, subprocess, sys
from dataclasses import replace
import numpy as np, pytest, torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from brainllm import decoder as room
from brainllm.models.adaptors import adaptor_layers, adaptor_parameters, AdaptorConfig, adaptors_off, add_adaptors
from brainllm.models.adaptors import count_parameters
from brainllm.core import DataError, PartMissing, project_root, write_json
from brainllm.store import digest, file_hash, Store
from brainllm.datasets.hcp import HCP_NOTICE
from brainllm.models.tokenizer import FMRITokenizer, ShapeError
from brainllm.models.encoder import BrainEncoder, encoder_from, MaskedBrainModel, VoxelEncoder
from brainllm.models.projection import Bridge, Projection
from brainllm.models.llm import PromptedLLM
from brainllm.stages.card import _licences, assemble, card_facts, check_shared, find_people
from brainllm.stages.experiment import open_experiment
from brainllm.decoder import BrainLLM, load_decoder, read_decoder, save_decoder
from brainllm.table import COLUMNS
from brainllm.weights import load_llm, load_scmbm, prepare

LICENCE = dict(licence='cc-by-4.0')


@pytest.fixture(scope='module')
def experiment(tmp_path_factory):
    return open_experiment('tiny', out=tmp_path_factory.mktemp('runs'))


@pytest.fixture(scope='module')
def decoder(experiment):
    return assemble(experiment)


@pytest.fixture(scope='module')
def bold(experiment, decoder):
    return experiment.study.blocks(experiment.study.split.test).batch([0, 1, 2])


@pytest.fixture(scope='module')
def whole(decoder, tmp_path_factory):
    return decoder.save_pretrained(tmp_path_factory.mktemp('whole') / 'decoder', LICENCE)


@pytest.fixture(scope='module')
def light(decoder, tmp_path_factory):
    return decoder.save_pretrained(tmp_path_factory.mktemp('light') / 'decoder', LICENCE, trained_only=True)


@torch.no_grad()
def out(model, bold):  # all that a decoder makes of a brain: query tokens, bridged tokens, the LLM's logits
    z = model.query_tokens(bold)
    y = model.bridge(z)
    return z, y, model.llm.answer_logits(y, ['What is happening?'] * len(bold), ['a man is jumping'] * len(bold))[0]


def equal(a, b):
    return all(x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(a, b, strict=True))


def on(
    base, llm, seed=1, dim=24, grid=(9, 8, 7), mask=None, affine=None
):  # a decoder with random trained parts, adaptors that are no longer zero
    torch.manual_seed(seed)
    tokenizer = FMRITokenizer(3, grid, 4, dim, mask, affine)
    encoder = encoder_from(base, tokenizer.coords)
    add_adaptors(encoder, AdaptorConfig(rank=3, scale=0.7))
    model = BrainLLM(
        tokenizer,
        encoder,
        Projection(len(tokenizer.coords), 4, dim, 16, 8, 0.5),
        Bridge(16, llm.dim, 12),
        llm,
        8,
        dict(LICENCE),
    )
    with torch.no_grad():
        [p.add_(0.1 * torch.randn(p.shape)) for part in (model.projection, model.bridge) for p in part.parameters()]
        [p.add_(0.1 * torch.randn(p.shape)) for p in adaptor_parameters(encoder)]
    model.projection.mean.normal_()
    model.projection.gain.fill_(1.3)
    return model.eval().requires_grad_(False), torch.randn(2, 3, *grid)


def test_equal_here_whole_and_trained_alone(experiment, decoder, bold, whole, light):
    want = out(decoder, bold)
    for made in (
        load_decoder(whole),
        load_decoder(light, llm='tiny', encoder=whole),
        load_decoder(light, llm=experiment.models.llm, encoder=experiment.pretrained[1]),
    ):
        assert equal(out(made, bold), want) and made.decode(bold, 'Who?') == decoder.decode(bold, 'Who?')
        assert count_parameters(made) == count_parameters(decoder) and list(adaptor_layers(made.encoder)) == list(
            adaptor_layers(decoder.encoder)
        )
        with adaptors_off(made), adaptors_off(decoder):
            assert equal(off := out(made, bold), out(decoder, bold)) and not equal(off, want)
        assert (
            equal(out(made, bold), want)
            and made.max_new_tokens == 8
            and not made.training
            and not any(p.requires_grad for p in made.parameters())
        )
        assert torch.equal(made.tokenizer.coords, decoder.tokenizer.coords) and torch.equal(
            made.tokenizer.mask, decoder.tokenizer.mask
        )
    drawn = torch.random.get_rng_state()
    there = load_decoder(whole, device='meta')
    assert torch.equal(torch.random.get_rng_state(), drawn) and all(p.is_meta for p in there.parameters())
    assert json.loads((whole / 'config.json').read_text())['input'] == dict(
        tr=2.0,
        window_start=2.0,
        space='MNI152NLin2009cAsym',
        values='z-scored per voxel within run',
        voxel_mm=[12.0] * 3,
    )
    assert {p.name for p in light.iterdir()} == {'config.json', 'model.safetensors', 'README.md'} and {
        p.suffix for p in (whole / 'llm').iterdir()
    } <= {'.json', '.safetensors'}
    assert not [k for k in load_file(light / 'model.safetensors') if k.startswith('encoder.') and k != 'encoder.pos']


ALONE = '''
import hashlib, json, sys
import numpy as np, torch
from brainllm.models import BrainLLM

bold = torch.from_numpy(np.load(sys.argv[1]))
question = "What is happening?"

def all_of(decoder):
    with torch.no_grad():
        z = decoder.query_tokens(bold)
        y = decoder.bridge(z)
        logits = decoder.llm.answer_logits(y, [question] * len(bold), ["a man is jumping"] * len(bold))[0]
    return [hashlib.sha256(t.numpy().tobytes()).hexdigest() for t in (z, y, logits)]

decoder = BrainLLM.from_pretrained(sys.argv[2])
said = decoder.decode(bold, question)
light = BrainLLM.from_pretrained(sys.argv[3], llm=sys.argv[2] + '/llm', encoder=sys.argv[2])
print(json.dumps([[said, *all_of(decoder)], [light.decode(bold, question), *all_of(light)]]))
'''


def process(code, *args, cwd):
    return subprocess.run(
        [sys.executable, '-c', code, *map(str, args)],
        cwd=cwd,
        env=os.environ | dict(PYTHONPATH=str(project_root()), OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
    )


def test_equal_in_another_process(decoder, bold, whole, light, tmp_path):
    np.save(tmp_path / 'bold.npy', bold.numpy())
    want = [
        decoder.decode(bold, 'What is happening?'),
        *(hashlib.sha256(t.numpy().tobytes()).hexdigest() for t in out(decoder, bold)),
    ]
    r = process(ALONE, tmp_path / 'bold.npy', whole, light, cwd=tmp_path)
    assert r.returncode == 0, r.stderr
    assert json.loads(r.stdout.splitlines()[-1]) == [want, want]


def test_smollm2_answers_with_the_same_words(tmp_path):
    "Tied embeddings, bfloat16, and a head of ours in the LLM; sentences that differ from brain to brain."
    parts = Store(project_root() / '_runs' / 'parts')
    llm = PromptedLLM(*load_llm(prepare('llm', 'smollm2', parts)))
    model, bold = on(BrainEncoder(24, 2, 2), llm)
    model.projection.gain.fill_(20.0)
    said = model.decode(bold, 'What is happening?', 12)
    assert said[0] != said[1]
    folder = save_decoder(model, tmp_path / 'd', dict(llm='smollm2'))
    light = save_decoder(model, tmp_path / 'l', dict(llm='smollm2'), whole=False)
    made = load_decoder(folder)
    assert (
        equal(out(made, bold), out(model, bold))
        and made.decode(bold, 'What is happening?', 12) == said
        and made.llm.dtype == torch.bfloat16
    )
    assert (
        count_parameters(made) == count_parameters(model)
        and 'Apache-2.0' in (folder / 'README.md').read_text()
        and ModelCard.load(folder / 'README.md').data.base_model == 'HuggingFaceTB/SmolLM2-135M-Instruct'
    )
    assert (
        sum(p.stat().st_size for p in light.rglob('*'))
        < 1e6
        < 1e8
        < sum(p.stat().st_size for p in folder.rglob('*') if p.is_file())
    )
    again = load_decoder(light, llm=folder / 'llm', encoder=folder)
    assert again.decode(bold, 'What is happening?', 12) == said
    with pytest.raises(DataError, match='llm: found one with other tensors.*smollm2'):
        load_decoder(light, llm='tiny', encoder=folder)
    with pytest.raises(DataError, match='found dtype float32, wanted bfloat16'):
        load_decoder(light, llm=PromptedLLM(*load_llm(folder / 'llm', torch.float32)), encoder=folder)


def test_on_the_published_encoder(experiment, tmp_path):
    "SC-MBM's file, a masked model, MinD-Video's blocks, a mask, no affine: every base that a decoder can stand on."
    torch.manual_seed(0)
    masked = MaskedBrainModel(64, 8, 24, 2, 2, 1.0, 16, 1, 2).eval()
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        [p.add_(0.1 * torch.randn(p.shape, generator=g)) for p in masked.parameters()]
    torch.save(
        dict(model=masked.state_dict(), config=dict(num_heads=2, decoder_num_heads=2)), tmp_path / 'checkpoint.pth'
    )
    model, bold = on(load_scmbm(tmp_path / 'checkpoint.pth'), experiment.models.llm, mask=torch.rand(9, 8, 7) > 0.4)
    folder = save_decoder(model, tmp_path / 'light', whole=False)
    for base in (tmp_path / 'checkpoint.pth', str(tmp_path), masked, encoder_from(masked)):
        assert equal(out(load_decoder(folder, experiment.models.llm, base), bold), out(model, bold))
    film = VoxelEncoder(64, 8, 24, 2, 2, temporal=True).eval()
    model, bold = on(film, experiment.models.llm, affine=np.diag([3.0, 3, 3, 1]))
    folder = save_decoder(model, tmp_path / 'film', dict(licences=dict(llm='none')))
    light = save_decoder(model, tmp_path / 'film-light', whole=False)
    for made in (load_decoder(folder), load_decoder(light, experiment.models.llm, film), load_decoder(light, folder / 'llm', folder)):
        assert equal(out(made, bold), out(model, bold)) and torch.equal(made.tokenizer.affine, model.tokenizer.affine)
    with pytest.raises(DataError, match='other tensors'):
        load_decoder(light, experiment.models.llm, masked)
    four = VoxelEncoder(64, 8, 24, 2, 4, temporal=True)
    four.load_state_dict(film.state_dict())
    with pytest.raises(DataError, match=r'blocks of \[4\] heads, wanted 2'):
        load_decoder(light, experiment.models.llm, four)


def test_several_sets_of_adaptors(experiment, tmp_path):
    model, bold = on(BrainEncoder(24, 2, 2), experiment.models.llm)
    from_one = out(model, bold)
    fresh = encoder_from(BrainEncoder(24, 2, 2))
    first = add_adaptors(fresh, AdaptorConfig(rank=2, target_modules=['mlp.fc1']), 'one')
    add_adaptors(first, AdaptorConfig(rank=5, scale=2.0), 'two')
    with torch.no_grad():
        [p.add_(0.1 * torch.randn(p.shape)) for p in adaptor_parameters(fresh)]
    fresh.pos = model.encoder.pos
    model.encoder = first
    seen = []
    for active in ('one', 'two', ['one', 'two']):
        first.set_adapter(active)
        folder = save_decoder(model, tmp_path / 'd', dict(licences=dict(llm='none')))
        made = load_decoder(folder)
        assert equal(out(made, bold), out(model, bold))
        seen.append(out(made, bold)[0])
    assert len({t.sum().item() for t in seen}) == 3 and not any(equal([t], from_one[:1]) for t in seen)
    plain, bold = on(BrainEncoder(24, 2, 2), experiment.models.llm)
    plain.encoder = BrainEncoder(24, 2, 2).eval()
    assert equal(
        out(load_decoder(save_decoder(plain, tmp_path / 'p', dict(licences=dict(llm='none')))), bold), out(plain, bold)
    )


def test_another_base_is_refused(experiment, decoder, whole, light):
    base = experiment.pretrained[1]
    with torch.no_grad():
        base.blocks[1].mlp.fc2.weight.mul_(1.1)
    with pytest.raises(DataError, match='encoder: found one with other weights.*masked modelling of the resting runs'):
        load_decoder(light, 'tiny', base)
    with pytest.raises(DataError, match='encoder: found one with other tensors'):
        load_decoder(light, 'tiny', BrainEncoder(24, 3, 2))
    with pytest.raises(DataError, match='with adaptors, wanted the bare base'):
        load_decoder(light, 'tiny', decoder.encoder)
    with pytest.raises(DataError, match='a trained part alone'):
        load_decoder(light, 'tiny', light)
    with pytest.raises(ShapeError, match='Linear'):
        load_decoder(light, 'tiny', torch.nn.Linear(2, 2))
    with pytest.raises(PartMissing, match='nowhere'):
        load_decoder(light, 'tiny', 'nowhere')
    with pytest.raises(PartMissing, match='no-such-llm'):
        load_decoder(light, 'no-such-llm', whole)
    with pytest.raises(DataError, match='cannot be read as a language model'):
        load_decoder(light, str(light), whole)
    strange = PromptedLLM(*load_llm(whole / 'llm', torch.float32))
    strange.llm.model.layers[0].mlp.up_proj.weight.mul_(1.01)
    for folder, encoder in ((light, whole), (whole, None)):
        with pytest.raises(DataError, match='llm: found one with other weights.*tiny'):
            load_decoder(folder, strange, encoder)
    for given, word in (
        (dict(), 'encoder= and llm='),
        (dict(llm='tiny'), 'give encoder='),
        (dict(encoder=whole), 'give llm='),
    ):
        with pytest.raises(PartMissing, match=word):
            load_decoder(light, **given)


def rewrite(
    folder, change, config=None
):  # other tensors under the right hash, as a program of another version might write them
    with safe_open(folder / 'model.safetensors', 'pt') as f:
        made = f.metadata()
    state = change(load_file(folder / 'model.safetensors'))
    c = json.loads((folder / 'config.json').read_text())
    if config:
        config(c)
        made = dict(settings=digest({k: v for k, v in c.items() if k != 'files'}))
    save_file(state, folder / 'model.safetensors', made)
    c['files']['model.safetensors'] = file_hash(folder / 'model.safetensors')
    write_json(folder / 'config.json', c)


def edit(folder, path, value):  # one field of the config; None takes it away
    c = node = json.loads((folder / 'config.json').read_text())
    *up, last = path.split('.')
    for k in up:
        node = node[k]
    if value is None:
        del node[last]
    else:
        node[last] = value
    write_json(folder / 'config.json', c)


def rehash(folder, name):  # a file changed with its hash
    c = json.loads((folder / 'config.json').read_text())
    c['files'][name] = file_hash(folder / name)
    write_json(folder / 'config.json', c)


def cut(folder, name, rehashed=False):
    (folder / name).write_bytes((folder / name).read_bytes()[:-100])
    if rehashed:
        rehash(folder, name)


def auto_map(folder):
    (folder / 'llm/config.json').write_text(
        json.dumps(
            json.loads((folder / 'llm/config.json').read_text())
            | dict(auto_map=dict(AutoModelForCausalLM='model.Evil'))
        )
    )
    rehash(folder, 'llm/config.json')


def listed(folder, name):
    (folder / name).write_bytes(b'1')
    rehash(folder, name)


def same(s):
    return s
def drop(*names):
    return lambda s: {k: v for k, v in s.items() if k not in names}
DAMAGE = {
    'no config': (PartMissing, 'config.json: found nothing', lambda d: (d / 'config.json').unlink()),
    'half a config': (DataError, 'config.json: not JSON', lambda d: cut(d, 'config.json')),
    'a list': (DataError, 'config.json: .*wanted a JSON object', lambda d: (d / 'config.json').write_text('[]')),
    'not ours': (
        DataError,
        'not a decoder of brainllm',
        lambda d: (d / 'config.json').write_text('{"model_type": "llama"}'),
    ),
    'another format': (
        DataError,
        'format 2, wanted .* format 1; it was saved by version 0.1.0',
        lambda d: edit(d, 'format', 2),
    ),
    'a field too few': (DataError, 'config.json, tokenizer: missing patch', lambda d: edit(d, 'tokenizer.patch', None)),
    'a field too many': (DataError, 'unexpected colour', lambda d: edit(d, 'bridge.colour', 'red')),
    'a field of another kind': (DataError, "encoder.depth: found '2'", lambda d: edit(d, 'encoder.depth', '2')),
    'a size of nothing': (DataError, 'encoder.heads: found 0', lambda d: edit(d, 'encoder.heads', 0)),
    'adaptors of another version': (
        DataError,
        'config.json, adaptors.default',
        lambda d: edit(d, 'adaptors.default.colour', 1),
    ),
    'dtype': (DataError, 'llm.dtype', lambda d: edit(d, 'llm.dtype', 'object')),
    'config against tensors': (
        DataError,
        'encoder.depth: found 3, and the tensors of model.safetensors say 2',
        lambda d: edit(d, 'encoder.depth', 3),
    ),
    'grid against mask': (DataError, 'tokenizer.grid', lambda d: edit(d, 'tokenizer.grid', [1, 2, 3])),
    'heads, which no tensor shows': (DataError, 'changed afterwards', lambda d: edit(d, 'encoder.heads', 4)),
    'scale, which no tensor shows': (DataError, 'changed afterwards', lambda d: edit(d, 'adaptors.default.scale', 2.0)),
    'licence': (DataError, 'changed afterwards', lambda d: edit(d, 'about.licence', 'mit')),
    'no tensors': (PartMissing, 'model.safetensors: found nothing', lambda d: (d / 'model.safetensors').unlink()),
    'half the tensors': (DataError, 'model.safetensors: sha256', lambda d: cut(d, 'model.safetensors')),
    'half the tensors, with their hash': (
        DataError,
        'model.safetensors: cannot be read as safetensors',
        lambda d: cut(d, 'model.safetensors', True),
    ),
    'a pickle': (
        DataError,
        'cannot be read as safetensors',
        lambda d: (torch.save({'a': 1}, d / 'model.safetensors'), rehash(d, 'model.safetensors')),
    ),
    'a tensor too few': (DataError, 'missing projection.offset', lambda d: rewrite(d, drop('projection.offset'))),
    'a block too few': (
        DataError,
        'encoder: missing blocks.1.norm1.bias',
        lambda d: rewrite(d, drop('encoder.blocks.1.norm1.bias')),
    ),
    'a tensor too many': (
        DataError,
        'bridge: missing none; unexpected extra',
        lambda d: rewrite(d, lambda s: s | {'bridge.extra': torch.zeros(2)}),
    ),
    'an adaptor too few': (
        DataError,
        'adaptors.default.*missing blocks.0.attn.qkv.adaptor_up.bias',
        lambda d: rewrite(d, drop('adaptors.default.blocks.0.attn.qkv.adaptor_up.bias')),
    ),
    'another shape': (
        DataError,
        r'bridge.up.bias \(3,\) instead of',
        lambda d: rewrite(d, lambda s: s | {'bridge.up.bias': torch.zeros(3)}),
    ),
    'a value that is no number': (
        DataError,
        'bridge.up.bias holds values that are not finite: 32 of 32',
        lambda d: rewrite(d, lambda s: s | {'bridge.up.bias': torch.full((32,), torch.nan)}),
    ),
    'whole numbers': (
        DataError,
        'bridge.up.bias holds int8, wanted floats',
        lambda d: rewrite(d, lambda s: s | {'bridge.up.bias': torch.ones(32, dtype=torch.int8)}),
    ),
    'another number of axes': (
        DataError,
        'number of axes',
        lambda d: rewrite(d, lambda s: s | {'projection.offset': torch.zeros(3)}),
    ),
    'another encoder in the file': (
        DataError,
        'encoder: found one with other weights',
        lambda d: rewrite(d, lambda s: s | {'encoder.norm.weight': s['encoder.norm.weight'] + 1}),
    ),
    'an llm file gone': (
        PartMissing,
        'generation_config.json: found nothing',
        lambda d: (d / 'llm/generation_config.json').unlink(),
    ),
    'half an llm': (DataError, 'llm/model.safetensors: sha256', lambda d: cut(d, 'llm/model.safetensors')),
    'half an llm, with its hash': (
        DataError,
        'cannot be read as a language model',
        lambda d: cut(d, 'llm/model.safetensors', True),
    ),
    'another tokenizer': (
        DataError,
        'llm/tokenizer.json: sha256',
        lambda d: (d / 'llm/tokenizer.json').write_text('{}'),
    ),
    'code beside the llm': (
        DataError,
        r'llm/modeling.py: refused',
        lambda d: (d / 'llm/modeling.py').write_text('print(1)'),
    ),
    'code that is listed': (DataError, r'llm/modeling.py: refused', lambda d: listed(d, 'llm/modeling.py')),
    'a pickled llm': (
        DataError,
        r'llm/pytorch_model.bin: refused',
        lambda d: (d / 'llm/pytorch_model.bin').write_bytes(b'1'),
    ),
    'an adapter that would be loaded': (
        DataError,
        'adapter_config.json: refused',
        lambda d: listed(d, 'llm/adapter_config.json'),
    ),
    'a file that was not saved': (
        DataError,
        'llm/more.json: refused: it was not saved',
        lambda d: (d / 'llm/more.json').write_text('{}'),
    ),
    'an llm that names code': (DataError, r'llm/config.json: refused: it names code', auto_map),
    'a path out of the folder': (
        DataError,
        r'files: found ../secret',
        lambda d: edit(d, 'files', {'model.safetensors': '', '../secret': ''}),
    ),
    'nothing there': (PartMissing, 'found nothing', lambda d: shutil.rmtree(d)),
}


@pytest.mark.parametrize('name', DAMAGE)
def test_damage_is_refused_by_name(name, whole, tmp_path):
    kind, word, change = DAMAGE[name]
    bad = shutil.copytree(whole, tmp_path / 'decoder')
    change(bad)
    with pytest.raises(kind, match=word) as e:
        load_decoder(bad)
    assert isinstance(e.value, (DataError, PartMissing))


def test_the_card_may_be_corrected(whole, decoder, bold, tmp_path):
    folder = shutil.copytree(whole, tmp_path / 'decoder')
    (folder / 'README.md').write_text('better words')
    (folder / '.gitattributes').write_text('')
    assert equal(out(load_decoder(folder), bold), out(decoder, bold))


KILLED = '''
import os, signal, sys
import torch
from brainllm import decoder as room
from brainllm.models import BrainLLM

torch.set_num_threads(1)
model, real = BrainLLM.from_pretrained(sys.argv[1]), room.save_tensors

def half(state, file, *more):
    real(state, file, *more)
    os.truncate(file, 2000)
    die()

def die(*a, **k):
    os.kill(os.getpid(), signal.SIGKILL)

for target in sys.argv[2:]:  # each save in a process of its own, killed at the step that the folder is named after
    pid = os.fork()
    if not pid:
        step = target.rsplit('/', 1)[1]
        setattr(room, step, half if step == 'save_tensors' else die)
        model.save_pretrained(target)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)  # else the next child says it again
'''


def test_killed_while_saving(whole, decoder, bold, tmp_path):
    def files(d):
        return {p.relative_to(d): file_hash(p) for p in d.rglob('*') if p.is_file()}
    targets = [tmp_path / kind / step for kind in ('new', 'old') for step in ('save_tensors', 'write_json', '_swap')]
    (tmp_path / 'new').mkdir()
    for t in targets[3:]:
        shutil.copytree(whole, t)
    r = process(KILLED, whole, *targets, cwd=tmp_path)
    assert r.stdout.split() == [str(-signal.SIGKILL)] * 6, r.stderr
    for t in targets:
        left = list(t.parent.glob(f'.{t.name}.*'))
        assert len(left) == 1 and left[0].name.endswith('.partial'), 'it was killed before it began'
        if t.name != '_swap':  # by then it is whole
            with pytest.raises((PartMissing, DataError)):
                load_decoder(left[0])
        if t.parent.name == 'old':
            assert files(t) == files(whole) and equal(out(load_decoder(t), bold), out(decoder, bold))
            continue
        assert not t.exists()
        with pytest.raises(PartMissing):
            load_decoder(t)
        assert equal(out(load_decoder(save_decoder(decoder, t, LICENCE)), bold), out(decoder, bold)), (
            'what was left is in the way'
        )


def test_what_is_not_a_decoder_is_never_replaced(decoder, whole, light, tmp_path, monkeypatch):
    (tmp_path / 'thesis').mkdir()
    (tmp_path / 'thesis/chapter.txt').write_text('words')
    (tmp_path / 'file').write_text('words')
    other = shutil.copytree(whole / 'llm', tmp_path / 'llm')
    mixed = shutil.copytree(whole, tmp_path / 'mixed')
    (mixed / 'llm/notes.md').write_text('mine')
    torn = shutil.copytree(whole, tmp_path / 'torn')
    cut(torn, 'config.json')
    for folder, word in (
        (tmp_path / 'thesis', 'chapter.txt'),
        (tmp_path / 'file', 'file'),
        (other, 'config.json'),
        (mixed, 'llm/notes.md'),
        (torn, 'config.json'),
    ):
        before = sorted(tmp_path.rglob('*'))
        with pytest.raises(DataError, match=f'{word}.*choose another folder'):
            save_decoder(decoder, folder, LICENCE)
        assert sorted(tmp_path.rglob('*')) == before
    (tmp_path / 'empty').mkdir()
    save_decoder(decoder, tmp_path / 'empty', LICENCE)
    over = shutil.copytree(whole, tmp_path / 'over')
    save_decoder(decoder, over, LICENCE, whole=False)
    assert not (over / 'llm').exists() and json.loads((over / 'config.json').read_text()) == json.loads(
        (light / 'config.json').read_text()
    )

    def full(*a, **k):
        raise OSError('no space left')

    monkeypatch.setattr(room, 'save_tensors', full)
    with pytest.raises(OSError, match='no space'):
        save_decoder(decoder, over, LICENCE)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith('.')] and read_decoder(over)


def test_what_could_not_be_rebuilt_is_not_saved(experiment, decoder, tmp_path):
    def refused(word, change):
        model, _ = on(BrainEncoder(24, 2, 2), experiment.models.llm)
        change(model)
        with pytest.raises(DataError, match=word):
            save_decoder(model, tmp_path / 'd', LICENCE, whole=False)
        assert not list(tmp_path.iterdir())

    refused('bridge: found NoneType', lambda m: setattr(m, 'bridge', None))
    refused('encoder: found Identity', lambda m: setattr(m, 'encoder', torch.nn.Identity()))
    refused('layers without settings', lambda m: setattr(m, 'encoder', encoder_from(m.encoder)))
    refused(r'blocks of \[2, 4\] heads', lambda m: setattr(m.encoder.blocks[0].attn, 'heads', 4))
    refused('max_new_tokens: found 0', lambda m: setattr(m, 'max_new_tokens', 0))
    refused('encoder', lambda m: setattr(m.encoder.blocks[0].mlp, 'fc1', torch.nn.Linear(24, 5)))


def test_about(experiment, decoder, tmp_path):
    bare = BrainLLM(decoder.tokenizer, decoder.encoder, decoder.projection, decoder.bridge, decoder.llm)
    row = dict(decoder='ours', against='caption', scores={}, two_way=50.0, p=1.0)
    for about, word in (
        ({}, 'licence: found none'),
        (dict(licence=' '), 'licence'),
        (dict(licence=3), 'licence: found 3, wanted str'),
        (LICENCE, 'whose weights are saved too'),
        (LICENCE | dict(colour=1), "found 'colour'"),
        (LICENCE | dict(scores=[row]), 'a control beside it'),
        (LICENCE | dict(scores=[{}]), 'scores: found {}'),
        (LICENCE | dict(seed=True), 'seed'),
        (LICENCE | dict(input=dict(tr=math.inf)), 'JSON'),
    ):
        with pytest.raises(DataError, match=word):
            save_decoder(bare, tmp_path / 'd', about, whole=about is LICENCE)
    with pytest.raises(DataError, match='licence: found none'):
        decoder.save_pretrained(tmp_path / 'd')
    assert not list(tmp_path.iterdir())
    card = (save_decoder(bare, tmp_path / 'd', LICENCE, whole=False) / 'README.md').read_text()
    assert (
        'measured or simulated is not stated' in card
        and 'None are stated' in card
        and '| repetition time | not stated |' in card
    )


def test_card_of_a_run(experiment, decoder, tmp_path):
    two = experiment.stage2
    labels = dict(no_brain='control: no brain', brain='decoded from the brain')
    def part(v, p):
        return dict(
            reference={k: dict(total=dict.fromkeys(COLUMNS, v)) for k in ('teacher', 'caption')},
            identification=dict(total=dict(two_way=v / 100, p=p)),
        )
    result = dict(
        inputs=dict(stage2=two.folder.name),
        rows=dict(no_brain=part(50.0, 1.0), brain=part(61.5, 0.0312)),
        row_order=['no_brain', 'brain'],
        labels=labels,
        signature=dict(bertscore='small-bert, layer 6'),
        trials=7,
    )
    assert not decoder.about.get('scores') and 'scores' not in card_facts(experiment, two)
    write_json(experiment.folder / 'result.json', result | dict(inputs=dict(stage2='another')))
    assert 'scores' not in card_facts(experiment, two), 'scores of another decoder'
    write_json(experiment.folder / 'result.json', result)
    about = card_facts(experiment, two)
    (experiment.folder / 'result.json').unlink()
    assert about == card_facts(experiment, two, result)
    with pytest.raises(DataError, match='found scores of another'):
        card_facts(experiment, two, dict(inputs=dict(stage2='another')))
    text = (save_decoder(decoder, tmp_path / 'd', about | LICENCE) / 'README.md').read_text()
    card = ModelCard(text)
    data = card.data
    assert (
        (data.license, data.library_name, data.language) == ('cc-by-4.0', 'brainllm', 'en')
        and 'simulated' in data.tags
        and data.metrics == ['accuracy', 'bertscore', 'rouge', 'sacrebleu']
    )
    assert (
        len(data.eval_results) == 2 * 7
        and data.eval_results[0].metric_value == 61.5
        and data.eval_results[0].metric_args['controls'] == {'control: no brain': 50.0}
        and [r.metric_args['p'] for r in data.eval_results if r.metric_type == 'accuracy'] == [0.0312] * 2
    )
    for word in (
        '**The brains are simulated.**',
        'BERTScore (small-bert)',
        '| decoded from the brain | 61.50 |',
        '| 61.50 | 0.0312 |',
        '| control: no brain | 50.00 |',
        'say nothing about human brains',
        '| trained part | cc-by-4.0 |',
        '7 held-out trials',
        '| people trained on | 2 |',
        '| people held out | 2 |',
        two.stage1.tokenizer.folder.name,
    ):
        assert word in card.content, word
    assert (
        str(experiment.folder) not in text
        and str(experiment.folder) not in (tmp_path / 'd/config.json').read_text()
        and load_decoder(tmp_path / 'd').about == json.loads(json.dumps(about | LICENCE))
    )
    again = load_decoder(tmp_path / 'd')
    assert again.save_pretrained(tmp_path / 'e') and sorted((tmp_path / 'e/README.md').read_text()) == sorted(text), (
        'what is known travels on'
    )
    hcp = replace(experiment.preset, pretrain=replace(experiment.preset.pretrain, source='hcp'))
    assert 'HCP Open Access Data Use Terms' in _licences(hcp)['encoder']
    text = (
        save_decoder(decoder, tmp_path / 'h', LICENCE | dict(name='A decoder', simulated=False, terms=[HCP_NOTICE]))
        / 'README.md'
    ).read_text()
    assert HCP_NOTICE in text and 'The brains were measured.' in text and 'simulated' not in ModelCard(text).data.tags


def test_from_the_hub(whole, decoder, bold, tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.chdir(tmp_path)
    asked = {}

    def fetch(name, revision=None, allow_patterns=None):
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        return str(whole)

    with pytest.raises(
        PartMissing,
        match='(?s)owner/decoder: found no such folder.*folder of a decoder.*while online.*download that repository',
    ):
        load_decoder('owner/decoder')
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', fetch)
    assert equal(out(BrainLLM.from_pretrained('owner/decoder', revision='v1'), bold), out(decoder, bold)) and (
        asked['name'],
        asked['revision'],
    ) == ('owner/decoder', 'v1')
    from fnmatch import fnmatch

    def takes(f):
        return any(fnmatch(f, p) for p in asked['patterns'])
    files = [p.relative_to(whole).as_posix() for p in whole.rglob('*') if p.is_file()]
    assert all(takes(f) for f in files) and not any(
        takes(f)
        for f in ('setup.py', 'llm/modeling.py', 'llm/pytorch_model.bin', 'checkpoint.pth', 'other.safetensors')
    )
    for name in ('no such folder', 'a/b/c', '../x', ''):
        with pytest.raises(PartMissing):
            load_decoder(name)
    with pytest.raises(DataError, match="revision: found 'v1' for the folder"):
        load_decoder(whole, revision='v1')


def test_bold_and_question_are_checked(decoder, bold):
    said = decoder.decode(bold, 'Who?')
    assert decoder.decode(bold.double().numpy(), 'Who?') == said == decoder.decode(bold, 'Who?', decoder.max_new_tokens)
    shorter = decoder.decode(bold, 'Who?', 1)
    assert all(l.startswith(s) for l, s in zip(said, shorter, strict=True))
    for wrong in (bold[:, 1:], bold[0], bold[..., 1:], bold[:0]):
        with pytest.raises(ShapeError, match='bold'):
            decoder.decode(wrong, 'Who?')
    inside = decoder.tokenizer.mask.nonzero()[11].tolist()
    for value in (math.nan, math.inf, -math.inf):
        hole = bold.clone()
        hole[2, 4, *inside] = value
        with pytest.raises(DataError, match='bold: found 1 values .* record 2, volume 4'):
            decoder.decode(hole, 'Who?')
    outside = bold.clone()
    outside[:, :, ~decoder.tokenizer.mask] = math.nan
    assert (~decoder.tokenizer.mask).any() and decoder.decode(outside, 'Who?') == said
    for question in ('', ' \n', None, ['Who?']):
        with pytest.raises(DataError, match='question: found'):
            decoder.decode(bold, question)


def test_a_shared_decoder_says_nothing_of_people(experiment, decoder, whole, light, tmp_path):
    study = experiment.study
    for folder in (whole, light): check_shared(folder, study)
    assert find_people(light, study.subjects) == []
    shown = study.trials[-1]
    caption = study.texts([shown])[0]['caption']
    told = {
        'names subject 03': dict(data='Trained without sub-03.'),
        'config.json: names subject 04': dict(notes=['04']),
        f'says {caption!r}': dict(notes=[f'It said: {caption}']),
        f'names the film {shown.clip}': dict(data=f'Shown was {shown.clip}.'),
    }
    for k, (word, about) in enumerate(told.items()):
        folder = save_decoder(decoder, tmp_path / str(k), LICENCE | about, whole=False)
        assert shown.subject == '04' and any(word in said for said in find_people(folder, ['03', '04'], [caption], [shown.clip]))
        with pytest.raises(DataError, match='to be published'):
            check_shared(folder, study)
    with pytest.raises(DataError, match='trained: found .*wanted int'):
        save_decoder(decoder, tmp_path / 'names', LICENCE | dict(trained=['01', '02']), whole=False)
    said = 'She said: "où?"'
    folder = save_decoder(decoder, tmp_path / 'escaped', LICENCE | dict(notes=[said]), whole=False)
    assert f'config.json: says {said!r}' in find_people(folder, texts=[said])
    assert find_people(light, ['KM07']) == []
    folder = save_decoder(decoder, tmp_path / 'own', LICENCE | dict(notes=['with km07']), whole=False)
    assert 'names subject KM07' in ' '.join(find_people(folder, ['KM07']))


def test_a_shared_decoder_holds_no_volumes(light, bold, tmp_path):
    folder = shutil.copytree(light, tmp_path / 'd')
    file = folder / 'model.safetensors'
    with safe_open(file, 'pt') as f: made = f.metadata()
    save_file(load_file(file) | {'volumes.first': bold}, file, made)
    config = json.loads((folder / 'config.json').read_text())
    config['files']['model.safetensors'] = file_hash(file)
    write_json(folder / 'config.json', config)
    assert find_people(folder) == ['model.safetensors: tensor volumes.first is of no part of a decoder']
