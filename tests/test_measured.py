"""A study on disk, through every room: HAD and a BIDS study of one's own, with untrained parts.

The brains are simulated; nothing that only a simulation knows is left in the folders."""

import json, os, shutil
from dataclasses import replace
import pytest
from brainllm.core import DataError, PresetError, read_jsonl, WallError, write_jsonl
from brainllm.store import file_hash
from brainllm.presets import PRESETS, get_preset
from brainllm.captions import clip_texts
from brainllm.stages.experiment import open_experiment
from brainllm.evaluate.result import table
from brainllm.evaluate.pipeline import reproduce

TINY = PRESETS['tiny']


def bare(study, to):  # without what only a simulation knows
    shutil.copytree(study, to, ignore=shutil.ignore_patterns('simulation', 'vit', 'manifest.json'))
    return to


@pytest.fixture(scope='module')
def had(tmp_path_factory):
    out = tmp_path_factory.mktemp('had')
    return bare(open_experiment('tiny', out=out).study.root, out / 'ds004488')


@pytest.fixture(scope='module')
def own(tmp_path_factory):
    out = tmp_path_factory.mktemp('own')
    return bare(open_experiment('tiny-urgen', out=out).study.root, out / 'study')


def measured(
    name, root, **study
):  # a preset of measured studies in the size of 'tiny', on the grid of the small volumes
    return replace(
        TINY,
        name=name,
        simulated=False,
        pretrain=replace(TINY.pretrain, source='none'),
        study=replace(PRESETS[name].study, root=str(root), **(dict(source='volume', voxel_mm=0, targets=()) | study)),
    )


def test_had_on_disk_from_events_to_the_table(had, tmp_path):
    result, lines = reproduce(measured('had', had, targets=('04',)), out=tmp_path)
    assert (
        result['simulated']
        and 'ideal' not in result['rows']
        and result['ceiling_row'] == 'video'
        and set(result['row_order']) == {'brain', 'no_brain', 'shuffled', 'ridge', 'video'}
    )
    assert {l['subject'] for l in lines} == {'04'} and result['settings']['study']['root'] == 'ds004488', (
        'a result must not name folders of one machine'
    )
    classes = {t.clip: t.classname for t in open_experiment(measured('had', had), out=tmp_path).study.trials}
    assert all(
        classes[l['clip']][1:] in l['caption'] and l['caption'].startswith('The action in the video is') for l in lines
    ), 'a study without captions is described by its classes'
    assert 'SIMULATED' in table(result).caption, 'a folder says of itself that nobody was scanned'
    assert 'measured brains' in table(result | dict(simulated=False)).caption
    again, _ = reproduce(measured('had', had, targets=('04',)), out=tmp_path)
    assert again['rows'] == result['rows']


def test_a_study_of_ones_own_with_captions(own, tmp_path):
    result, lines = reproduce(measured('urgen', own), out=tmp_path)
    known = {r['clip']: r['caption'] for r in read_jsonl(own / 'stimuli/captions.jsonl')}
    assert (
        {l['subject'] for l in lines} == {'03', '04'}
        and all(l['caption'] == known[l['clip']] for l in lines)
        and result['clips'] == 15
    )


def test_other_ways_to_hold_out(had, own, tmp_path):
    run = open_experiment(measured('had', had, test_runs=(2,)), out=tmp_path)
    s = run.study.split
    assert (
        not s.adapt and {t.run for t in s.train} == {1} and {t.run for t in s.test} == {2} and s.subjects == s.targets
    )
    assert len(reproduce(run.preset, out=tmp_path)[1]) == len(s.test), 'nobody to adapt to, and still a decoder'
    name = sorted({t.classname for t in open_experiment(measured('urgen', own), out=tmp_path).study.trials})[0]
    clip = '002_M.avi'
    s = open_experiment(measured('urgen', own, hold_out=(name, clip)), out=tmp_path).study.split
    assert (
        s.train
        and s.test
        and not {t.clip for t in s.train if t.classname == name or t.clip == clip}
        and len(s.test) < 30
    )
    few = open_experiment(measured('had', had, subjects=('01', '03', '04'), targets=('03',)), out=tmp_path)
    assert (
        few.study.subjects == ['01', '03', '04']
        and few.study.split.subjects == ['01', '04']
        and {r['subject'] for r in few.study.series.runs} == {'01', '03', '04'}
    )


def test_another_split_never_gets_the_models_of_the_first(tmp_path):
    first = open_experiment('tiny-urgen', out=tmp_path)
    seen = first.stage2
    for changes in (dict(study__hold_out=('007_F.avi',)), dict(study__targets=('01', '03'))):
        run = open_experiment(get_preset('tiny-urgen', **changes), out=tmp_path)
        two = run.stage2
        assert run.study.identity != first.study.identity and not {two.folder, two.stage1.folder, two.stage1.video.folder} & {
            seen.folder,
            seen.stage1.folder,
            seen.stage1.video.folder,
        }
        assert run.study.root == first.study.root, 'the study itself is the same'


def test_what_changed_on_disk_is_built_again(had, tmp_path):
    root = tmp_path / 'copy'
    shutil.copytree(had, root)
    out = tmp_path / 'runs'
    preset = measured('had', root)
    first = open_experiment(preset, out=out)
    before = first.study.series.folder
    assert open_experiment(preset, out=out).study.series.folder == before
    bold = next((root / 'derivatives/fmriprep/sub-01').glob('*task-action_run-1_desc-preproc_bold.nii.gz'))
    other = bold.with_name(bold.name.replace('run-1', 'run-2'))
    bold.write_bytes(other.read_bytes())
    assert open_experiment(preset, out=out).study.series.folder != before
    moved = tmp_path / 'elsewhere'
    os.rename(root, moved)
    assert (
        open_experiment(measured('had', moved), out=out).study.identity
        == open_experiment(measured('had', moved), out=tmp_path / 'other').study.identity
    )


def test_a_targets_film_stays_shut(had, tmp_path):
    run = open_experiment(measured('had', had), out=tmp_path)
    with pytest.raises(WallError):
        run.study.clip_features(run.study.split.adapt[:1])
    with pytest.raises(WallError):
        run.study.texts(run.study.split.test[:1])
    run.stage1
    seen = {h for f in run.store.root.glob('features-*/clips.json') for h in json.loads(f.read_text())}
    targets = {file_hash(run.study.dataset.clip_path(t)) for t in run.study.trials if t.subject in run.study.split.targets}
    assert seen and not seen & targets, 'a target clip went through the ViT before the evaluation'


@pytest.mark.parametrize(
    'preset, error, say',
    [
        (PRESETS['had'], PresetError, 'found no root'),
        (PRESETS['urgen'], PresetError, 'found no root'),
        (measured('had', 'no/such/folder'), DataError, 'found no folder'),
    ],
    ids=['had', 'urgen', 'no folder'],
)
def test_a_study_that_is_not_there(preset, error, say, tmp_path):
    with pytest.raises(error, match=say):
        open_experiment(preset, out=tmp_path).study.trials


def test_wrong_words_for_a_study(had, own, tmp_path):
    with pytest.raises(PresetError, match='makes itself'):
        open_experiment('sim-had', out=tmp_path, root=str(had))
    with pytest.raises(DataError, match='targets: found 07, 14, 21, 28'):
        open_experiment('had', out=tmp_path, root=str(had)).study.split
    with pytest.raises(DataError, match='subjects: found 09'):
        open_experiment(measured('had', had, subjects=('01', '09')), out=tmp_path).study.trials
    with pytest.raises(PresetError, match="'moon'.*volume"):
        open_experiment(measured('had', had, source='moon'), out=tmp_path).study.series
    with pytest.raises(DataError, match='HAD'):
        open_experiment(measured('urgen', own, source='beta'), out=tmp_path).study.series


def test_captions_with_a_fault(own, tmp_path):
    root = tmp_path / 'own'
    shutil.copytree(own, root)
    file = root / 'stimuli/captions.jsonl'
    rows = read_jsonl(file)

    def run():
        return open_experiment(measured('urgen', root), out=tmp_path / 'runs')

    write_jsonl(file, rows[1:])
    with pytest.raises(DataError, match=f"no line for clip '{rows[0]['clip']}'"):
        clip_texts(root, run().study.trials)
    write_jsonl(file, [rows[0] | dict(caption=' ')] + rows[1:])
    with pytest.raises(DataError, match="line 1, field 'caption'"):
        clip_texts(root, run().study.trials)
    write_jsonl(file, [{k: v for k, v in r.items() if k != 'answers'} for r in rows])
    assert set(clip_texts(root, run().study.trials)[0]['answers'].values()) == {clip_texts(root, run().study.trials)[0]['caption']}
