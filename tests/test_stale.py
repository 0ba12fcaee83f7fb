"What was replaced on the disk is noticed, what a killed writer left is removed, and words that came as numbers are read or refused."

import json, os, signal, time
from dataclasses import replace
import nibabel as nib
import numpy as np
import pytest
from brainllm.core import DataError, PresetError
from brainllm.presets import get_preset
from brainllm.stages.experiment import open_experiment
from brainllm.stages.frozen import FrozenModels
from brainllm.store import Store

EVENTS = 'onset\tduration\ttrial_type\tstim_file\n2.0\t3.0\twalk\ta.mp4\n12.0\t3.0\twave\tb.mp4\n'
SPACE = '_space-MNI152NLin2009cAsym'


def write_study(root, subjects=('01', '02', '03')):  # one run each, in the names of BIDS and fMRIPrep; no confounds
    (root / 'stimuli').mkdir(parents=True)
    for clip in ('a.mp4', 'b.mp4'): (root / 'stimuli' / clip).write_bytes(clip.encode() * 100)
    (root / 'stimuli' / 'captions.jsonl').write_text(
        ''.join(json.dumps(dict(clip=clip, caption='A man walks.')) + '\n' for clip in ('a.mp4', 'b.mp4'))
    )
    for k, s in enumerate(subjects):
        func, prep = root / f'sub-{s}/func', root / f'derivatives/fmriprep/sub-{s}/func'
        func.mkdir(parents=True)
        prep.mkdir(parents=True)
        (func / f'sub-{s}_task-action_run-1_events.tsv').write_text(EVENTS)
        stem = f'{prep}/sub-{s}_task-action_run-1{SPACE}_desc-'
        (prep / f'sub-{s}_task-action_run-1{SPACE}_desc-preproc_bold.json').write_text('{"RepetitionTime": 2.0}')
        series = np.random.default_rng(k).integers(500, 1500, (5, 5, 5, 20)).astype(np.int16)
        nib.save(nib.Nifti1Image(series, np.diag([3.0, 3, 3, 1])), f'{stem}preproc_bold.nii')
        nib.save(nib.Nifti1Image(np.ones((5, 5, 5), np.uint8), np.diag([3.0, 3, 3, 1])), f'{stem}brain_mask.nii')
    return root


def opened(root, out, **where):
    return open_experiment('urgen-small', out=out, root=root, **where).study


def replaced(path):  # other bytes, and the same name, size and time
    before, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_numbers_where_names_belong(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path / '2024')
    write_study(tmp_path / 'unpadded', ('1', '2', '3'))
    assert len(opened(2024, 'runs').trials) == 6
    assert len(opened('2024', 2025).trials) == 6
    for people in (1, '01', [1], ['01']): assert opened('2024', 'runs', targets=people).preset.study.targets == ('01',)
    assert opened('unpadded', 'runs', targets='1').preset.study.targets == ('1',)
    with pytest.raises(DataError, match='targets: found 01.*-r targets'):
        opened('unpadded', 'runs', targets=1).split
    with pytest.raises(PresetError, match='200000.0.*-r targets'):
        opened('2024', 'runs', targets=2e5)
    with pytest.raises(DataError, match='2023.*-r root'):
        opened(2023, 'runs')
    for seed in (1, 1.0, '1'): assert open_experiment('tiny', seed, 'runs').seed == 1
    for seed in (1.5, -1, None, 'one'):
        with pytest.raises(PresetError, match='seed'):
            open_experiment('tiny', seed, 'runs')
    with pytest.raises(PresetError, match='-r out'):
        open_experiment('tiny', 0, 1.5)
    assert not list(tmp_path.rglob('artifacts')), 'nothing was built'


def test_a_replaced_file_is_another_study(tmp_path):
    root, out = write_study(tmp_path / 'study'), tmp_path / 'runs'

    def keys(**where):
        study = opened(root, out, targets='03', **where)
        return study.brains, study.identity

    time.sleep(2.1)  # so that hashes are kept
    first = keys()
    assert keys() == first and (out / 'parts/.hashes.json').is_file()
    replaced(root / 'stimuli/a.mp4')
    film = keys()
    assert film[0] == first[0] and film[1] != first[1], 'the series are not made from films'
    prep = root / 'derivatives/fmriprep/sub-01/func'
    for name in ('bold', 'mask'):
        before = keys()
        replaced(next(prep.glob(f'*{name}.nii')))
        assert not set(keys()) & set(before)
    before, few = keys(), keys(subjects='02,03')
    replaced(next(prep.glob('*bold.nii')))
    assert keys(subjects='02,03') == few and keys() != before, 'of who was not chosen nothing is read'
    (root / 'stimuli/b.mp4').unlink()
    assert keys()[1] != before[1]


def test_other_weights_in_a_folder_of_the_same_name(tmp_path):
    mine = tmp_path / 'mine'
    mine.mkdir()
    (mine / 'config.json').write_text('{}')
    (mine / 'model.safetensors').write_bytes(b'one')
    tiny = get_preset('tiny')
    preset = replace(tiny, video=replace(tiny.video, vit=str(mine), llm=str(mine)))

    def names():
        models = FrozenModels(preset, Store(tmp_path / 'parts'))
        return models.vit_name, models.llm_name, models.own_parts

    first = names()
    assert names() == first and set(first[2]) == {'vit', 'llm'}
    (mine / 'model.safetensors').write_bytes(b'two')
    assert all(a != b for a, b in zip(names(), first, strict=True))
    assert FrozenModels(tiny, Store(tmp_path / 'parts')).own_parts == {}


def slowly(folder):
    (folder / 'one').write_text('1')
    time.sleep(0.2)
    (folder / 'two').write_text('2')


def test_killed_builders_leave_nothing(tmp_path):
    for delay in (0.05, 0.1, 0.15, 0.2):
        pid = os.fork()
        if not pid:
            Store(tmp_path).get('slow', slowly, dict(n=1))
            os._exit(0)
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    (tmp_path / '.other-01.w7.partial').mkdir()
    made = Store(tmp_path).get('slow', slowly, dict(n=1))
    assert [p.name for p in tmp_path.iterdir()] == [made.name]
    assert sorted(p.name for p in made.iterdir()) == ['manifest.json', 'one', 'two']
