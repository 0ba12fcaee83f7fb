"The film study as a whole: another column order, files that are not whole, the wall in the split, and what is kept."

import json
import runpy
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest
from brainllm.cli import main
from brainllm.core import DataError, project_root, PresetError
from brainllm.presets import get_preset
from brainllm.sherlock.decode import FILM_ROWS, open_film
from brainllm.sherlock.scores import CEILINGS, decode_film, identify_film, VECTOR_ROWS
from brainllm.sherlock.stretches import FilmConfig, QUESTIONS_OF_FILM
from brainllm.store import kept_json

made = runpy.run_path(str(Path(__file__).with_name('made_sherlock.py')))
FILM = FilmConfig(folds=3)
KEPT = sorted((project_root() / 'data' / 'results').glob('sherlock-*.json'))


def tiny():
    preset = get_preset('tiny', study__layout='sherlock', simulated=False, data__in_frames=10)
    return replace(preset, brain=replace(preset.brain, patch=3), video=replace(preset.video, n_query=4, dim=32))


@pytest.fixture()
def kit(tmp_path):
    return made['write_kit'](tmp_path / 'kit', lengths=(150, 160), distinct=True)


def study_of(kit, tmp_path):
    return open_film(tiny(), 0, tmp_path / 'runs', kit, FILM).study


def test_another_column_order_is_the_same_study(kit, tmp_path):
    before = study_of(kit, tmp_path)
    folds = [before.fold(k) for k in range(3)]
    made['change_table'](kit, lambda table: table[table.columns[::-1]])
    after = study_of(kit, tmp_path)
    assert [after.fold(k) for k in range(3)] == folds
    assert after.segments == before.segments


def test_a_cut_file_is_refused_and_leaves_nothing(kit, tmp_path):
    path = made['kit_file'](kit, 2, 'movie')
    path.write_bytes(path.read_bytes()[:-500])
    study = study_of(kit, tmp_path)
    with pytest.raises(DataError, match='s2.mat'):
        _ = study.series
    assert not list((tmp_path / 'runs').glob('**/film-*/meta.json'))


def test_a_missing_person_is_named(kit, tmp_path):
    made['kit_file'](kit, 3, 'movie').unlink()
    with pytest.raises(DataError, match='subject 03'):
        _ = study_of(kit, tmp_path).subjects


def test_a_mask_that_does_not_fit_is_refused(kit, tmp_path):
    import nibabel as nib

    path = kit / made['KIT'] / 'standard' / 'pmc_nn.nii'
    image = nib.load(path)
    values = np.asarray(image.dataobj).copy()
    values[tuple(np.argwhere(values > 0)[0])] = 0
    nib.save(nib.Nifti1Image(values, image.affine), path)
    with pytest.raises(DataError, match='pmc_nn.nii'):
        _ = study_of(kit, tmp_path).series


def test_targets_are_sealed_and_never_in_training(kit, tmp_path):
    study = study_of(kit, tmp_path)
    for k in range(3):
        fold = study.fold(k)
        for target in study.subjects:
            split = study.split_for(fold, target)
            assert target not in {t.subject for t in split.train}
            assert {t.subject for t in [*split.adapt, *split.test]} == {target}
            assert not any(hasattr(t, 'clip_path') for t in split.test)
            held = {(t.run, t.onset) for t in split.test}
            assert not held & {(t.run, t.onset) for t in [*split.train, *split.adapt]}


def test_lost_volumes_are_nobodys(kit, tmp_path):
    study = study_of(kit, tmp_path)
    last = study.subjects[-1]
    lost = set().union(*study.lost.values())
    assert study.lost[last] and not study.lost['01']
    for k in range(3):
        fold = study.fold(k)
        assert not any(lost & set(range(s.first, s.last + 1)) for s in fold.train)
        own = study.split_for(fold, last).test
        assert not any(study.lost[last] & set(range(t.index, t.index + 10)) for t in own)


def test_a_block_of_another_length_is_refused(kit, tmp_path):
    with pytest.raises(PresetError, match='data.in_frames'):
        open_film(tiny(), 0, tmp_path, kit, replace(FILM, volumes=8))


def test_a_decoder_that_only_follows_time_is_not_above_its_null():
    rng = np.random.default_rng(0)
    rows = [dict(subject=f'{p}', fold=k // 30, first=10 * k) for p in range(4) for k in range(90)]
    drift = np.cumsum(rng.standard_normal((90, 12)), 0)  # the film's meaning wanders
    meant = np.tile(drift, (4, 1))
    other = np.cumsum(rng.standard_normal((90, 12)), 0)  # something else that wanders as slowly
    found = identify_film(np.tile(other, (4, 1)), meant, np.zeros_like(meant), rows, 300)
    assert found['within']['null'][0] <= found['within']['two_way'] <= found['within']['null'][-1]


@pytest.mark.parametrize('words', ['real film', 'real captions', 'real nothing'])
def test_the_command_says_what_it_needs(words, capsys):
    with pytest.raises(SystemExit) as end: main(words.split())
    assert end.value.code == 2
    assert capsys.readouterr().err.count('\n') == 1


def words_in(value):  # every string in a JSON value, keys too
    if isinstance(value, str): return [value]
    if isinstance(value, dict): return [w for k, v in value.items() for w in (k, *words_in(v))]
    if isinstance(value, list): return [w for v in value for w in words_in(v)]
    return []


@pytest.mark.parametrize('path', KEPT, ids=lambda path: path.stem)
def test_kept_results_hold_no_sentence_of_the_film(path):
    if path.stem == 'sherlock-kit': pytest.skip('notes about the files, in words of our own')
    assert all(len(word.split()) < 7 for word in words_in(json.loads(path.read_text())))


def test_controls_of_the_kept_film_are_inside_their_null():
    kept = kept_json('results', 'sherlock-film')
    if kept is None: pytest.skip('not run yet')
    assert not kept['simulated'] and kept['people'] == 17
    for name in ('noise', 'mean_brain', 'no_brain', 'ordinary'):
        for kind in ('within', 'all'):
            found = kept['rows'][name][kind]
            assert found['null'][0] - 1e-4 <= found['two_way'] <= found['null'][-1] + 1e-4, (name, kind)


def test_a_whole_film_is_decoded_scored_and_found_again(tmp_path):
    preset = tiny()
    preset = replace(preset, data=replace(preset.data, window_start=0.0))
    preset = replace(preset, pretrain=replace(preset.pretrain, source='none'))
    kit = made['write_kit'](tmp_path / 'kit', lengths=(150, 160), signal=2.0, distinct=True)
    settings = (preset, 0, tmp_path / 'runs', kit, FILM)
    result, rows = decode_film(*settings, shifts=99)
    assert set(result['rows']) == {*FILM_ROWS, *CEILINGS, *(f'{name}_vector' for name in VECTOR_ROWS)}
    assert result['rows']['tokens_vector']['within']['two_way'] > 0.6, 'signal in the made kit, and none found'
    assert result['people'] == len({r['subject'] for r in rows}) and set(result['questions']) < set(QUESTIONS_OF_FILM)
    folder = tmp_path / 'runs' / 'tiny'
    before = {p: p.stat().st_mtime_ns for p in (folder / 'artifacts').iterdir()}
    again, _ = decode_film(*settings, shifts=99)
    assert again == result == json.loads((folder / 'film-procrustes.json').read_text())
    assert {p: p.stat().st_mtime_ns for p in (folder / 'artifacts').iterdir()} == before
