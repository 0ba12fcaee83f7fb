"A saved decoder and runs of another study: other voxels, another repetition time, oblique, mirrored, raw."

import json
import warnings
import nibabel as nib
import numpy as np
import pytest
from brainllm.cli import main
from brainllm.core import DataError
from brainllm.stages.card import assemble
from brainllm.stages.experiment import open_experiment


@pytest.fixture(scope='module')
def decoder(tmp_path_factory):
    return assemble(open_experiment('tiny', out=tmp_path_factory.mktemp('runs')))


def write_run(folder, decoder, edge=10.0, tr=1.5, mirrored=False, turned=0.0, data=None, seed=0):
    "Smooth noise over the whole box of the decoder, on a grid of its own."
    folder.mkdir(parents=True, exist_ok=True)
    own = decoder.tokenizer.affine.numpy()
    corners = nib.affines.apply_affine(own, np.array([[0, 0, 0], decoder.tokenizer.grid]))
    low, high = corners.min(0) - 45, corners.max(0) + 45
    shape = tuple(np.ceil((high - low) / edge).astype(int))
    affine = np.diag([edge, edge, edge, 1.0])
    affine[:3, 3] = low
    if mirrored:
        affine[0, 0] = -edge
        affine[0, 3] = low[0] + edge * (shape[0] - 1)
    angle = np.eye(4)
    angle[:2, :2] = [[np.cos(turned), -np.sin(turned)], [np.sin(turned), np.cos(turned)]]
    affine = angle @ affine
    mm = nib.affines.apply_affine(affine, np.argwhere(np.ones(shape, bool)))
    times = tr * np.arange(int(90 / tr))
    rng = np.random.default_rng(seed)
    phases = rng.uniform(0, 6, (8, 4))
    waves = [np.outer(np.sin(mm @ rng.normal(0, 0.02, 3) + p[0]), np.sin(times / (3 + k) + p[1])) for k, p in enumerate(phases)]
    if data is None: data = 10_000 + 300 * sum(waves).reshape(*shape, -1)
    else: data = np.broadcast_to(data(rng, (*shape, len(times))), (*shape, len(times)))
    image = nib.Nifti1Image(data.astype(np.float32), affine)
    image.header.set_zooms((*image.header.get_zooms()[:3], tr))
    image.header.set_xyzt_units('mm', 'sec')
    nib.save(image, folder / 'sub-x_task-films_bold.nii.gz')
    (folder / 'sub-x_task-films_bold.json').write_text(json.dumps(dict(RepetitionTime=tr)))
    (folder / 'events.tsv').write_text('onset\tduration\ttrial_type\n8\t3\tx\n21.3\t3\ty\n40\t3\tx\n')
    return folder / 'sub-x_task-films_bold.nii.gz', folder / 'events.tsv'


def decoded(decoder, *files):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        rows = decoder.decode_file(*files)
    return rows, [str(w.message) for w in told if 'repetition' in str(w.message) or 'noise' in str(w.message)]


def test_every_trial_of_another_study_gets_its_sentence(decoder, tmp_path):
    rows, told = decoded(decoder, *write_run(tmp_path, decoder))
    assert [row.onset for row in rows] == [8, 21.3, 40] and all(isinstance(row.text, str) for row in rows)
    assert len(told) == 1 and 'interpolated in time' in told[0]


def test_the_same_head_stored_otherwise_gives_the_same_blocks(decoder, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(type(decoder), 'decode', lambda self, box, question: seen.append(box) or [''] * len(box))
    for name, how in (('plain', {}), ('mirrored', dict(mirrored=True)), ('oblique', dict(turned=0.2))):
        decoded(decoder, *write_run(tmp_path / name, decoder, edge=6.0, **how))
    inside = [box[:, :, decoder.tokenizer.mask].numpy().ravel() for box in seen]
    assert np.corrcoef(inside)[0, 1] > 0.9999
    assert np.corrcoef(inside)[0, 2] > 0.98


def test_noise_is_named_and_what_never_changes_is_refused(decoder, tmp_path):
    noise = write_run(tmp_path / 'noise', decoder, 14.0, 2.0, data=lambda rng, shape: rng.normal(1000, 10, shape))
    own = (decoder.about or {})['input']['tr']
    told = decoded(decoder, *noise)[1]
    assert any('as noise does' in words for words in told) and len(told) == 1 + (own != 2.0)
    still = write_run(tmp_path / 'still', decoder, data=lambda rng, shape: rng.normal(1000, 10, (*shape[:3], 1)))
    with pytest.raises(DataError, match='same as their neighbour'): decoder.decode_file(*still)
    zeros = write_run(tmp_path / 'zeros', decoder, data=lambda rng, shape: np.zeros(shape))
    with pytest.raises(DataError, match='one constant value'): decoder.decode_file(*zeros)


def test_by_the_command_line(decoder, tmp_path, capsys):
    saved = decoder.save_pretrained(tmp_path / 'decoder', dict(licence='cc-by-4.0'))
    bold, events = write_run(tmp_path / 'run', decoder)
    words = ['decode', str(saved), str(bold), '--events', str(events), '--ask', 'What is it?', '--out']
    with pytest.raises(SystemExit) as end: main([*words, str(tmp_path / 'texts.tsv')])
    assert not end.value.code
    lines = (tmp_path / 'texts.tsv').read_text().splitlines()
    assert lines[0].split('\t') == ['onset', 'duration', 'question', 'text', 'probability'] and len(lines) == 4
    assert lines[2].startswith('21.3\t3\tWhat is it?\t')
    with pytest.raises(SystemExit) as end: main(['decode', str(saved), str(bold), '--events', str(tmp_path / 'none.tsv')])
    assert end.value.code == 2 and 'none.tsv' in capsys.readouterr().err
