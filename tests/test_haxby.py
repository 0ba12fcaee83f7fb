"Measured brains: what the left-out run showed reaches nothing that is trained, and a run of folds that broke off goes on."

import json, shutil
from pathlib import Path
import numpy as np, pytest, torch
from brainllm import haxby
from brainllm.core import read_jsonl
from brainllm.store import file_hash
from brainllm.data.trials import unseal
from brainllm.presets import get_preset
from brainllm.datasets.haxby import CATEGORIES, HaxbySlice
from brainllm.haxby import ROWS, decode_fold, decode_folds, open_haxby

SMALL = dict(
    video__llm='tiny',
    video__text='tiny',
    video__dim=32,
    video__llm_steps=3,
    video__max_new_tokens=4,
    brain__dim=24,
    brain__heads=2,
    brain__rank=4,
    brain__readout=8,
    stage2__steps=2,
    pretrain__source='none',
    evaluate__permutations=99,
    dtype='float32',
)


def relabelled(folder: Path, run: int) -> HaxbySlice:  # run counted from 1
    "The slice with the categories of one run moved round."
    shutil.copytree(HaxbySlice().root, folder, copy_function=shutil.copyfile)
    file = folder / 'attributes_literal.txt'
    lines = [l.split() for l in file.read_text().splitlines()]
    moved = [
        [CATEGORIES[(CATEGORIES.index(c) + 1) % 8] if c != 'rest' and int(r) == run - 1 else c, r] for c, r in lines
    ]
    assert moved != lines
    file.write_text('\n'.join(' '.join(l) for l in moved) + '\n')
    return HaxbySlice(folder)


def test_what_the_left_out_run_showed_reaches_nothing_that_is_trained(tmp_path):
    first, second = (open_haxby(get_preset('haxby', **SMALL), out=tmp_path / name) for name in ('first', 'second'))
    vars(second.study)['dataset'] = relabelled(tmp_path / 'moved', 5)
    for experiment in (first, second):
        experiment.folder.mkdir(parents=True)
        decode_fold(experiment, 5, experiment.folder)
    for file in ('model.safetensors', 'log.json', 'lean.npy'):
        assert (first.folder / file).read_bytes() == (second.folder / file).read_bytes(), file
    a, b = (read_jsonl(r.folder / 'volumes.jsonl') for r in (first, second))
    assert (
        [x['text'] for x in a] == [x['text'] for x in b]
        and [x['named'] for x in a] == [x['named'] for x in b]
        and [x['shown'] for x in a] != [x['shown'] for x in b]
    )


def test_a_label_of_a_training_run_does_reach_it(tmp_path):
    first, second = (open_haxby(get_preset('haxby', **SMALL), out=tmp_path / name) for name in ('first', 'second'))
    vars(second.study)['dataset'] = relabelled(tmp_path / 'moved', 6)
    for experiment in (first, second):
        experiment.folder.mkdir(parents=True)
        decode_fold(experiment, 5, experiment.folder)
    assert (first.folder / 'model.safetensors').read_bytes() != (second.folder / 'model.safetensors').read_bytes()


def test_voxels_choose_among_what_the_language_model_says(tmp_path, monkeypatch):
    experiment = open_haxby(get_preset('haxby', **SMALL | dict(video__text='minilm')), out=tmp_path)
    windows = haxby.fold_windows(experiment, experiment.study.fold(5), 0.0)
    decoder = haxby.TrainedFold(None, None, None, 0.0, torch.zeros(len(windows.labels), 2, 32), {})
    asked = []

    def say(experiment, decoder, z):
        asked.append(len(z))
        return ['No idea.', *map(haxby.describe, CATEGORIES), *['No idea.'] * (len(z) - 9)]

    monkeypatch.setattr(haxby, 'say', say)
    chosen = haxby.chosen_texts(experiment, decoder, windows)
    assert asked == [88], 'what is said of the blocks of eleven runs'
    assert set(chosen['volume']) <= set(map(haxby.describe, CATEGORIES))
    shown = [t.classname for t in unseal(experiment.study.fold(5).test, haxby.volumes(experiment.study.trials, 2.5))]
    right = [haxby.named(text) == c for text, c in zip(chosen['volume'], shown, strict=True)]
    blocks = [haxby.named(text) == c for text, c in zip(chosen['block'], shown[::9], strict=True)]
    assert sum(right) > 36 and sum(blocks) > 4, 'far beyond one of eight'


def test_a_run_that_broke_off_goes_on(tmp_path, monkeypatch):
    preset, done = get_preset('haxby', **SMALL), []

    def fold(experiment, k, folder):  # no training: where it breaks off is all that matters here
        if k == 4 and len(done) < 4: raise KeyboardInterrupt
        done.append(k)
        named = dict.fromkeys(ROWS, 'cat')
        for level, each in dict(volumes=9, blocks=1).items():
            (folder / f'{level}.jsonl').write_text(
                ''.join(
                    json.dumps(dict(run=k, block=b, volume=v, shown=c, text={}, named=named)) + '\n'
                    for b, c in enumerate(CATEGORIES)
                    for v in range(each)
                )
            )
        np.save(folder / 'lean.npy', np.zeros((40, 20, 1)))
        (folder / 'log.json').write_text(json.dumps(dict(window_start=0.0, penalty=1.0, explained=0.0, gain=1.0)))

    monkeypatch.setattr(haxby, 'decode_fold', fold)
    with pytest.raises(KeyboardInterrupt):
        decode_folds(preset, 0, tmp_path)
    assert done == [1, 2, 3] and not (tmp_path / 'haxby' / 'result.json').exists()
    done.append(None)
    result, volumes, blocks = decode_folds(preset, 0, tmp_path)
    assert done == [1, 2, 3, None, *range(4, 13)] and (len(volumes), len(blocks)) == (864, 96)
    assert (
        result['rows']['brain']['volume']['accuracy'] == 0.125
        and result['rows']['brain']['volume']['p'] == 1.0
        and result['simulated'] is False
    )
    assert json.loads((tmp_path / 'haxby' / 'result.json').read_text())['trials'] == dict(volume=864, block=96)


def test_the_slice_is_as_it_came_and_both_notices_are_with_it():
    root = HaxbySlice().root
    assert {f: file_hash(root / f)[:16] for f in ('bold.nii.gz', 'mask.nii.gz', 'attributes_literal.txt')} == {
        'bold.nii.gz': 'cbbd4d07803caaa9',
        'mask.nii.gz': '8d879d35aaeee3af',
        'attributes_literal.txt': '7769f235e93d3157',
    }
    assert (
        'CC BY-SA 3.0' in (root / 'README.md').read_text()
        and 'The MIT License' in (root / 'COPYING.PyMVPA').read_text()
    )
