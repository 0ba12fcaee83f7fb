"Weights and what is saved: safetensors, files of torch.save, decoders, adaptors' settings, stored runs, registrations."

import copy
import functools
import json
import os
import pickle
import shutil
import struct
import tempfile
import zipfile
from pathlib import Path
import numpy as np
import torch
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from brainllm.core import write_json
from brainllm.data.blocks import RunStore
from brainllm.decoder import BrainLLM, read_decoder, save_decoder
from brainllm.models.encoder import encoder_from, MaskedBrainModel
from brainllm.models.llm import PromptedLLM
from brainllm.models.projection import Bridge, Projection
from brainllm.models.state import fill_state, read_safetensors
from brainllm.models.tokenizer import FMRITokenizer
from brainllm.sources.register import load_registration, Registration
from brainllm.store import file_hash, Store
from brainllm.video.checkpoints import check_llm
from brainllm.weights import load_llm, load_scmbm, prepare, read_pickle, refuse_code
from . import damage, Example, family, fault_of, pick, rng_of

TENSORS = ('NaN', 'infinite', 'whole numbers', 'another shape', 'a tensor less', 'a tensor more', 'true and false', 'complex')
HEADS = ('absurd shape', 'absurd offsets', 'unknown type', 'no JSON', 'a header without end', 'overlapping', 'a hole')
FILES = ('cut', 'empty', 'a page', 'a pointer', 'missing', 'a dangling link', 'a folder', 'noise')


def made_module(draw):
    torch.manual_seed(draw(st.integers(0, 2**16)))
    return nn.Sequential(nn.Linear(3, draw(st.integers(1, 4))), nn.BatchNorm1d(1))


def spoil_tensors(draw, state, fault):
    name = pick(draw, ('0.weight', '0.bias', '1.running_var'))
    tensor = state[name]
    if fault == 'NaN': tensor.view(-1)[0] = float('nan')
    if fault == 'infinite': tensor.view(-1)[-1] = float('-inf')
    if fault == 'whole numbers': state[name] = tensor.to(torch.int8)
    if fault == 'true and false': state[name] = tensor > 0
    if fault == 'complex': state[name] = tensor.to(torch.complex64)
    if fault == 'another shape': state[name] = torch.zeros(7, 7)
    if fault == 'a tensor less': del state[name]
    if fault == 'a tensor more': state['2.weight'] = torch.zeros(2)


def spoil_head(path, fault):  # of a file of safetensors
    raw = path.read_bytes()
    size = struct.unpack('<Q', raw[:8])[0]
    head = json.loads(raw[8 : 8 + size])
    first, second = sorted(name for name in head if name.startswith('0.'))
    if fault == 'absurd shape': head[first]['shape'] = [2**40, 2**20]
    if fault == 'absurd offsets': head[first]['data_offsets'] = [0, 2**60]
    if fault == 'unknown type': head[first]['dtype'] = 'F7'
    if fault == 'overlapping': head[first]['data_offsets'] = head[second]['data_offsets']
    if fault == 'a hole': raw = raw[: 8 + size] + b'\0' * 64 + raw[8 + size :]
    text = b'{' if fault == 'no JSON' else json.dumps(head).encode()
    length = 2**62 if fault == 'a header without end' else len(text)
    path.write_bytes(struct.pack('<Q', length) + text + raw[8 + size :])


@family('safetensors')
def safetensors(draw, folder):
    path, model = folder / 'model.safetensors', made_module(draw)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fault = fault_of(draw, (*TENSORS, *HEADS, *FILES))
    spoil_tensors(draw, state, fault)
    save_file(state, path)
    if fault in HEADS: spoil_head(path, fault)
    elif fault == 'cut': damage.cut(draw, path)
    elif fault in FILES: damage.replace(draw, path, fault)
    empty = copy.deepcopy(model).to('meta')

    def read(): return {k: v.numpy() for k, v in fill_state(empty, read_safetensors(path), path).state_dict().items()}

    return Example(read, path.name, {k: v.numpy() for k, v in model.state_dict().items()}, fault)


class Touch:  # what a stranger's pickle may do
    def __init__(self, call, *words):
        self.call, self.words = call, words

    def __reduce__(self):
        return self.call, self.words


PICKLES = ('runs a command', 'opens a file', 'calls a builtin', 'absurd storage', 'cut', 'deep', 'no state', *FILES[1:])


def written_by_torch(draw, path, held):
    torch.save(held, path, _use_new_zipfile_serialization=pick(draw, (True, True, False)))


def spoil_pickle(draw, path, folder, fault):
    bad = {
        'runs a command': Touch(os.system, f'touch {folder}/ran'),
        'opens a file': Touch(open, f'{folder}/ran', 'w'),
        'calls a builtin': Touch(eval, f'open({str(folder / "ran")!r}, "w")'),
    }
    if fault in bad: torch.save({'model': {'x': torch.zeros(2)}, 'more': bad[fault]}, path)
    if fault in bad and pick(draw, (True, False)): path.write_bytes(pickle.dumps(bad[fault]))
    if fault == 'deep': path.write_bytes(b'\x80\x02' + b'(' * 200_000 + b't' * 200_000 + b'.')
    if fault == 'absurd storage': forge_storage(path)
    if fault == 'cut': damage.cut(draw, path, 30)
    if fault in FILES[1:]: damage.replace(draw, path, fault)


def forge_storage(path):  # a tensor of 4 TB in a file of a kilobyte
    with zipfile.ZipFile(path) as archive: parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(n for n in parts if n.endswith('data.pkl'))
    parts[name] = parts[name].replace(b'K\x06tq', b'\x8a\x06\x00\x00\x00\x00\x00\x01tq', 1)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
        for n, data in parts.items(): archive.writestr(n, data)


@family('a file of torch.save')
def saved(draw, folder):
    path, values = folder / 'x.pth', rng_of(draw).standard_normal(6).astype(np.float32)
    held = dict(model=dict(w=torch.tensor(values)), epoch=7, note='made')
    fault = fault_of(draw, [p for p in PICKLES if p != 'no state'])
    if fault == 'absurd storage': torch.save(held, path)
    else: written_by_torch(draw, path, held)
    spoil_pickle(draw, path, folder, fault)

    def read():
        found = read_pickle(path)
        return found['model']['w'].numpy(), found['epoch'], found['note']

    return Example(read, path.name, (values, 7, 'made'), fault)


@functools.cache
def scmbm_state():
    torch.manual_seed(1)
    return MaskedBrainModel(32, 4, 8, 1, 2, 2.0, 8, 1, 2).state_dict()


CONFIGS = {
    'num_heads': (0, -1, 3, 'two', 2.0, True, None, 10**30, [2]),
    'patch_size': (0, 5, 'x', 4.0, None),
    'embed_dim': (16, '8', None, 8.5),
    'depth': (2, 0, 'x', 1.0),
    'mlp_ratio': (3.0, float('nan'), float('inf'), 'x', None, -2, 10**400),
}


@family('SC-MBM, .pth')
def scmbm(draw, folder):
    path = folder / 'checkpoint.pth'
    state = {name: tensor.clone() for name, tensor in scmbm_state().items()}
    want = {name: tensor.numpy() for name, tensor in scmbm_state().items()}
    config = dict(num_heads=2, decoder_num_heads=2, patch_size=4, embed_dim=8, depth=1, mlp_ratio=2.0)
    names = sorted(n for n in state if n.endswith(('weight', 'pos_embed')))
    odd = ('NaN', 'whole numbers', 'another shape', 'a tensor less', 'a tensor more', 'no axes', 'text for a tensor', 'empty')
    fault = fault_of(draw, (*CONFIGS, *odd, *odd, *PICKLES[:5], 'no state'))
    name = pick(draw, names)
    if fault in CONFIGS: config[fault] = pick(draw, CONFIGS[fault])
    if fault == 'NaN': state[name].view(-1)[0] = float('nan')
    if fault == 'whole numbers': state[name] = state[name].to(torch.int32)
    if fault == 'another shape': state[name] = torch.zeros(*state[name].shape, 2)
    if fault == 'no axes': state[name] = torch.tensor(1.0)
    if fault == 'empty': state[name] = torch.zeros([0] * state[name].ndim)
    if fault == 'a tensor less': del state[name]
    if fault == 'a tensor more': state['head.weight'] = torch.zeros(2)
    if fault == 'text for a tensor': state[name] = 'words'
    held = pick(draw, ([], 'x', 7, {}, {'model': []}, {'model': 'x'}, {7: torch.zeros(1)})) if fault == 'no state' else None
    torch.save(dict(model=state, config=config) if held is None else held, path)
    if fault in PICKLES[:5] and fault != 'absurd storage': spoil_pickle(draw, path, folder, fault)
    elif fault == 'absurd storage': fault = ''

    def read(): return {name: tensor.numpy() for name, tensor in load_scmbm(path).state_dict().items()}

    return Example(read, path.name, want, fault)


@functools.cache
def decoder_folder() -> Path:  # one that was saved, whole, and its LLM
    home = Path(tempfile.mkdtemp())
    words = PromptedLLM(*load_llm(prepare('llm', 'tiny', Store(home / 'parts')), torch.float32))
    torch.manual_seed(0)
    tokenizer = FMRITokenizer(3, (9, 8, 7), 4, 24)
    encoder = encoder_from(MaskedBrainModel(64, 4, 24, 1, 2, 2.0, 8, 1, 2), tokenizer.coords)
    parts = Projection(len(tokenizer.coords), 4, 24, 16, 8, 0.5), Bridge(16, words.dim, 12)
    model = BrainLLM(tokenizer, encoder, *parts, words, 8, dict(licence='cc-by-4.0', licences=dict(llm='made')))
    return save_decoder(model.eval().requires_grad_(False), home / 'decoder')


DECODER = ('a setting', 'a field is missing', 'a field more', 'a file lost', 'a file changed', 'code', 'code, escaped')
DECODER += ('cut', 'a page', 'empty', 'noise', 'missing', 'a folder', 'a torn config', 'hashes', 'NaN in a tensor', 'an adapter')
NONSENSE = (None, 0, -1, 'x', [], {}, True, 1.5, float('nan'), float('inf'), 10**400, 2**31, 10**12, [[]], '../x')


def at_random(draw, config):  # the dictionary that holds a field, and the name of the field
    held, path = config, []
    while True:
        name = pick(draw, sorted(k for k in held if k not in ('files', 'about', 'adaptors', 'active', 'input')))
        path.append(name)
        if not isinstance(held[name], dict): return held, name
        held = held[name]


@family('saved decoder')
def decoder(draw, folder):
    own = folder / 'decoder'
    shutil.copytree(decoder_folder(), own)
    config = json.loads((own / 'config.json').read_text())
    want, files = (config['kind'], len(config['files'])), sorted(config['files'])
    fault = fault_of(draw, DECODER)
    if fault == 'a setting':
        held, name = at_random(draw, config)
        held[name] = pick(draw, [value for value in NONSENSE if value != held[name] or type(value) is not type(held[name])])
    if fault == 'a field is missing':
        held, name = at_random(draw, config)
        del held[name]
    if fault == 'a field more': config['more'] = 1
    if fault == 'hashes': config['files'] = pick(draw, ([], None, {}, {'../x': 'a'}, {'model.safetensors': 7}, {'/x': 'a'}))
    write_json(own / 'config.json', config)
    changed = own / pick(draw, files if fault != 'hashes' else ['model.safetensors'])
    if fault == 'a file lost': changed.unlink()
    if fault == 'a file changed': damage.touch(draw, changed)
    if fault == 'code': (own / 'llm' / 'modeling.py').write_text('raise SystemExit')
    if fault == 'code, escaped': (own / 'llm' / 'more.json').write_text('{"auto\\u005fmap": {"AutoModel": "x.Y"}}')
    if fault == 'an adapter': (own / 'llm' / 'adapter_config.json').write_text('{}')
    target = own / pick(draw, ('config.json', 'model.safetensors'))
    if fault == 'cut': damage.cut(draw, target, 3)
    if fault in ('a page', 'empty', 'noise', 'missing', 'a folder'): damage.replace(draw, target, fault)
    if fault == 'a torn config': damage.cut(draw, own / 'config.json', 3)
    if fault == 'NaN in a tensor': spoil_saved(own, config)

    def read():
        found, _ = read_decoder(own)
        return found['kind'], len(found['files'])

    return Example(read, own.name, want, fault)


def spoil_saved(own, config):  # a NaN, with a hash that fits
    from safetensors import safe_open
    from safetensors.torch import load_file

    state = load_file(own / 'model.safetensors')
    with safe_open(own / 'model.safetensors', 'pt') as f: about = f.metadata()
    next(t for t in state.values() if t.is_floating_point()).view(-1)[0] = float('nan')
    save_file(state, own / 'model.safetensors', about)
    config['files']['model.safetensors'] = file_hash(own / 'model.safetensors')
    write_json(own / 'config.json', config)


META = {
    'tr': (None, 0, -2, 'x', True, float('nan'), float('inf'), 10**400),
    'shape': (None, [], [2, 2], [2, 2, 0], 'x', [2, 2, 2.0]),
    'voxels': (None, 0, 'x', 7.0, 10**12, True),
    'affine': (None, [], 'x', [[1, 2], [3, 4]], [[float('nan')] * 4] * 4, 7),
    'runs': (None, {}, 'x', [7], [{}], [dict(subject='01')]),
    'kind': (None, 'maps', 7, []),
    'left_out': (None, 'x', 7),
}
STORED = ('a field is missing', 'a torn meta.json', 'another mask', 'no mask', 'a mask of numbers', 'cut', 'a pickled array')
STORED += ('no series', 'another length', 'whole numbers', 'a file elsewhere', 'empty', 'a page', 'noise', 'absurd shape')


@family('stored runs')
def stored(draw, folder):
    rng, shape, T = rng_of(draw), (3, 2, 2), draw(st.integers(3, 9))
    mask = rng.random(shape) < 0.6
    mask[0, 0, 0] = True
    series = rng.standard_normal((T, mask.sum())).astype(np.float16)
    rows = [dict(subject='01', run=1, task='action', file='r.npy', volumes=T)]
    meta = dict(kind='series', tr=2.0, affine=np.eye(4).tolist(), shape=list(shape), voxels=int(mask.sum()), runs=rows)
    fault = fault_of(draw, (*META, *STORED))
    if fault in META: meta[fault] = pick(draw, META[fault])
    if fault == 'a field is missing': del meta[pick(draw, ('tr', 'shape', 'voxels', 'affine', 'runs'))]
    if fault == 'a file elsewhere': rows[0]['file'] = pick(draw, ('../r.npy', '/etc/hostname', ''))
    write_json(folder / 'meta.json', meta)
    if fault == 'another mask': mask = np.ones((2, 2, 2), bool)
    if fault == 'a mask of numbers': mask = mask.astype(np.float32) * 2
    np.save(folder / 'mask.npy', mask)
    if fault == 'another length': series = series[:-1]
    if fault == 'whole numbers': series = series.astype(np.int16)
    path = folder / pick(draw, ('r.npy', 'mask.npy'))
    np.save(folder / 'r.npy', series)
    if fault == 'a pickled array': np.save(path, np.array([Touch(os.system, f'touch {folder}/ran')], object), allow_pickle=True)
    if fault == 'no mask': (folder / 'mask.npy').unlink()
    if fault == 'no series': (folder / 'r.npy').unlink()
    if fault == 'a torn meta.json': damage.cut(draw, folder / 'meta.json', 3)
    if fault == 'cut': damage.cut(draw, path)
    if fault == 'absurd shape': path.write_bytes(path.read_bytes().replace(b"'shape': (", b"'shape': (999999999, ")[: -18])
    if fault in ('empty', 'a page', 'noise'): damage.replace(draw, path, fault)

    def read():
        store = RunStore(folder)
        return np.array(store.series('01', 1)), store.mask, store.tr

    want = (series, mask, 2.0)
    return Example(read, folder.name, want, fault, fault if fault in META else '')


REGISTRATION = ('another shape', 'NaN', 'words', 'a field less', 'no JSON', 'cut', 'an object', 'empty', 'a page', 'missing', 'noise')


@family('registration, .npz')
def registration(draw, folder):
    path, rng = folder / 'r.npz', rng_of(draw)
    r = Registration(np.eye(4), rng.standard_normal((2, 3, 2, 3)), np.eye(4), 'made', dict(cost=0.5))
    r.save(path)
    fault = fault_of(draw, (*REGISTRATION, 'a folder'))
    arrays = dict(affine=r.affine, field=r.field, grid=r.grid, source='made', report='{}')
    name = pick(draw, ('affine', 'field', 'grid'))
    if fault == 'another shape': arrays[name] = arrays[name][..., :2]
    if fault == 'NaN': arrays[name] = arrays[name] * np.nan
    if fault == 'words': arrays[name] = np.array('words')
    if fault == 'a field less': del arrays[pick(draw, sorted(arrays))]
    if fault == 'no JSON': arrays['report'] = pick(draw, ('{', '[' * 100_000, '7'))
    if fault == 'an object': arrays[name] = np.array([None], object)
    if fault in REGISTRATION[:5] + ('an object',): np.savez_compressed(path, **arrays)
    if fault == 'cut': damage.cut(draw, path)
    if fault in damage.WHOLLY: damage.replace(draw, path, fault)

    def read():
        found = load_registration(path)
        return found.affine, found.field, found.source, found.report

    return Example(read, path.name, (r.affine, r.field, 'made', r.report), fault)


@family('settings of a language model')
def llm_settings(draw, folder):
    path = folder / 'config.json'
    config = dict(model_type='llama', hidden_size=32, _name_or_path='llama-7b')
    faults = ('code', 'code deep inside', 'code, escaped', 'a torn file', 'no size', 'size of words', 'a delta', 'a later Vicuna')
    fault = fault_of(draw, (*faults, 'a list', 'a page', 'empty', 'deep', 'latin-1', 'noise'))
    if fault == 'code': config['auto_map'] = dict(AutoModel='x.Y')
    if fault == 'code deep inside': config['text_config'] = [dict(more=dict(auto_map='x'))]
    if fault == 'no size': del config['hidden_size']
    if fault == 'size of words': config['hidden_size'] = pick(draw, ('x', None, [], 1.5))
    if fault == 'a delta': config['_name_or_path'] = 'vicuna-7b-delta-v0'
    if fault == 'a later Vicuna': config['_name_or_path'] = 'vicuna-7b-v1.5'
    path.write_text(json.dumps(config if fault != 'a list' else [config]))
    if fault == 'code, escaped': path.write_text(path.read_text()[:-1] + ', "auto\\u005fmap": "x"}')
    if fault == 'a torn file': damage.cut(draw, path)
    if fault == 'deep': path.write_text('{"a": ' * 100_000)
    if fault == 'latin-1': path.write_bytes(path.read_bytes()[:-1] + ', "é": 1}'.encode('latin-1'))
    if fault in damage.WHOLLY: damage.replace(draw, path, fault)
    (folder / 'tokenizer_config.json').write_text('{}')

    def read():
        refuse_code(folder)
        return check_llm(folder, 'vicuna')

    return Example(read, folder.name, config, fault)
