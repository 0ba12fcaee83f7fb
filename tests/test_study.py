"A study of one's own, and the command that says what is wrong with one."

import gzip, hashlib, json, os, shutil, urllib.error, urllib.request
from pathlib import Path
import nibabel as nib, numpy as np, pytest
from brainllm.core import DataError
from brainllm.datasets.had import HAD
from brainllm.datasets.films import DATASETS, Urgen
from brainllm.datasets.protocol import Dataset
from brainllm.datasets.check import check_main, check_study

HEADER = 'onset\tduration\ttrial_type\tstim_file\n'
RUNS = (1, 2, 3)


def own_study(root, subjects=('01', '02', '03')):  # one session, two runs, two films
    for k, s in enumerate(subjects):
        func = root / f'sub-{s}' / 'func'
        prep = root / 'derivatives' / 'fmriprep' / f'sub-{s}' / 'func'
        func.mkdir(parents=True)
        prep.mkdir(parents=True)
        for r in (1, 2):
            (func / f'sub-{s}_task-action_run-{r}_events.tsv').write_text(
                HEADER + '2.0\t3.0\twalk\ta.mp4\n8.0\t3.0\twave\tb/c.mp4\n'
            )
            (prep / f'sub-{s}_task-action_run-{r}_space-MNI152NLin2009cAsym_desc-preproc_bold.json').write_text(
                '{"RepetitionTime": 2.0}'
            )
            (prep / f'sub-{s}_task-action_run-{r}_desc-confounds_timeseries.tsv').write_text('trans_x\n' + '0.0\n' * 20)
    return root


def test_a_reader_in_a_file_of_its_own_is_found_by_name(tmp_path, monkeypatch):
    (tmp_path / 'lab_reader.py').write_text('from brainllm.datasets import Urgen\n\n\nclass Lab(Urgen):\n    pass\n')
    monkeypatch.syspath_prepend(tmp_path)
    study = DATASETS['lab_reader:Lab'](own_study(tmp_path / 'own'))
    assert isinstance(study, Dataset) and len(study.trials()) == 12
    assert [r.run for r in study.runs('02')] == [1, 2] and DATASETS['urgen'] is Urgen


def edit(old, new):
    return lambda root: (p := root / 'sub-02' / 'func' / 'sub-02_task-action_run-1_events.tsv').write_text(
        p.read_text().replace(old, new, 1)
    )


def no_events(root):
    [p.unlink() for p in (root / 'sub-02' / 'func').iterdir()]


def volumes_alone(root):
    (root / 'sub-02' / 'func' / 'sub-02_task-action_run-1_events.tsv').unlink()


def two_of_one(root):
    p = root / 'sub-02' / 'func' / 'sub-02_task-action_run-1_events.tsv'
    p.with_name(p.name.replace('run-1', 'run-01')).write_text(p.read_text())


@pytest.mark.parametrize(
    'spoil, say',
    [
        (edit('a.mp4', '../a.mp4'), 'wanted a path inside stimuli/'),
        (edit('a.mp4', '/a.mp4'), 'wanted a path inside stimuli/'),
        (edit('8.0', '40.0'), "the run's end at 40 s"),
        (edit('stim_file', 'film'), "column 'stim_file' is missing"),
        (edit('2.0', 'soon'), "found 'soon'"),
        (no_events, 'found no events of task'),
        (volumes_alone, 'volumes without events'),
        (two_of_one, 'a second time'),
    ],
)
def test_what_is_wrong_with_a_study_is_named_and_the_others_are_listed_when_asked(tmp_path, spoil, say):
    assert len(Urgen(own_study(tmp_path)).trials()) == 12
    spoil(tmp_path)
    with pytest.raises(DataError, match='sub-02') as e:
        Urgen(tmp_path).trials()
    assert say in str(e.value)
    study = Urgen(tmp_path, skip=True)
    assert (
        {t.subject for t in study.trials()} == {'01', '03'}
        and list(study.problems) == ['02']
        and say in study.problems['02']
    )


def test_volumes_go_with_the_events_of_their_name(tmp_path):
    root = own_study(tmp_path)
    prep = root / 'derivatives' / 'fmriprep' / 'sub-01' / 'func'
    for p in prep.glob('*run-1_*'):
        p.unlink()
    assert [(r.run, r.space) for r in Urgen(root).runs('01')] == [(2, 'MNI152NLin2009cAsym')]


def series(path, seed, rows=40, tr=2.0):  # CIFTI of a small brain: six vertices a side
    models = nib.cifti2.BrainModelAxis.from_surface(
        np.arange(6), 10, 'CortexLeft'
    ) + nib.cifti2.BrainModelAxis.from_surface(np.arange(6), 10, 'CortexRight')
    axis = nib.cifti2.SeriesAxis(0, tr, rows) if tr else nib.cifti2.ScalarAxis([f'm{k}' for k in range(rows)])
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(
        nib.Cifti2Image(np.random.default_rng(seed).normal(size=(rows, 12)).astype(np.float32), (axis, models)), path
    )


@pytest.fixture
def whole(tmp_path):  # two people in HAD's layout, three runs, every kind of file
    rng, root = np.random.default_rng(1), tmp_path / 'whole'
    for k, s in enumerate(('01', '02')):
        func = root / f'sub-{s}' / 'ses-action01' / 'func'
        prep = root / 'derivatives' / 'fmriprep' / f'sub-{s}'
        grey = root / 'derivatives' / 'ciftify' / f'sub-{s}'
        func.mkdir(parents=True)
        prep.mkdir(parents=True)
        for r in RUNS:
            clip = f'Archery/v_Archery_id_{k}{r}345678901_start_1.0_label_1.mp4'
            (root / 'stimuli' / 'Archery').mkdir(parents=True, exist_ok=True)
            (root / 'stimuli' / clip).write_bytes(b'a film')
            (func / f'sub-{s}_ses-action01_task-action_run-{r:02d}_events.tsv').write_text(
                f'{HEADER}0.1\t2.0\t1.0\t{clip}\n'
            )
            stem = f'{prep}/sub-{s}_task-action_run-{r}_desc-'
            Path(f'{stem}preproc_bold.json').write_text('{"RepetitionTime": 2}')
            Path(f'{stem}confounds_timeseries.tsv').write_text('trans_x\n' + '0.0\n' * 40)
            image = nib.Nifti1Image(rng.integers(1, 900, (4, 4, 4, 40)).astype(np.int16), np.diag([2, 2, 2, 1]))
            image.header.set_zooms((2, 2, 2, 2))
            nib.save(image, f'{stem}preproc_bold.nii.gz')
            series(grey / 'results' / f'ses-action01_task-action_run-{r}_Atlas.dtseries.nii', 10 * k + r)
        series(grey / 'results' / 'ses-action01_task-action_cycle-1_beta.dscalar.nii', 50 + k, 3, 0)
        for h in 'LR':
            (grey / 'standard_fsLR_surface').mkdir(exist_ok=True)
            nib.save(
                nib.GiftiImage(
                    darrays=[
                        nib.gifti.GiftiDataArray(rng.normal(size=(10, 3)).astype(np.float32), 'NIFTI_INTENT_POINTSET'),
                        nib.gifti.GiftiDataArray(np.array([[0, 1, 2]], np.int32), 'NIFTI_INTENT_TRIANGLE'),
                    ]
                ),
                grey / 'standard_fsLR_surface' / f'sub-{s}.{h}.midthickness.32k_fs_LR.surf.gii',
            )
    return root


def tree(root):
    return {
        str(p.relative_to(root)): os.readlink(p) if p.is_symlink() else hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob('*'))
        if p.is_symlink() or p.is_file()
    }


def results(root, s='01'):
    return root / 'derivatives' / 'ciftify' / f'sub-{s}' / 'results'


def dense(root, r, s='01'):
    return results(root, s) / f'ses-action01_task-action_run-{r}_Atlas.dtseries.nii'


def bold(root, r, s='01'):
    return root / 'derivatives' / 'fmriprep' / f'sub-{s}' / f'sub-{s}_task-action_run-{r}_desc-preproc_bold.nii.gz'


def cut(p):
    p.write_bytes(p.read_bytes()[:-20])


def link(p, to='../absent'):
    p.unlink()
    p.symlink_to(to)


def nan(p):
    image = nib.load(p)
    x = np.asarray(image.dataobj).copy()
    x[3, 4] = np.nan
    x[:, 5] = 1
    nib.save(nib.Cifti2Image(x, image.header), p)


def annexed(p):
    there = p.parent / f'SHA256E-s{p.stat().st_size + 1}--{"0" * 64}.nii'
    p.rename(there)
    p.symlink_to(there.name)


def same_key(root):
    [link(dense(root, r), f'../absent/SHA256E-s9--{"a" * 64}.nii') for r in (1, 2)]


def other_shape(root):
    image = nib.load(bold(root, 1))
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:3], image.affine, image.header), bold(root, 1))


def other_tr(root):
    image = nib.load(bold(root, 1))
    image.header.set_zooms((2, 2, 2, 1.5))
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), bold(root, 1))


def unpack(root):
    data = gzip.decompress(bold(root, 1).read_bytes())
    bold(root, 1).write_bytes(gzip.compress(data[:-64]))


@pytest.mark.parametrize(
    'source, spoil, say',
    [
        ('ciftify', lambda r: cut(dense(r, 2)), 'it was cut short'),
        ('ciftify', lambda r: link(dense(r, 2)), 'link to content that is not here'),
        ('ciftify', lambda r: dense(r, 2).unlink(), 'found nothing, wanted a file'),
        ('ciftify', lambda r: dense(r, 2, '02').write_bytes(dense(r, 2).read_bytes()), 'found the same bytes as'),
        ('ciftify', lambda r: series(dense(r, 1), 1, tr=1.5), 'found a repetition time of 1.5 s'),
        ('ciftify', lambda r: series(dense(r, 1), 1, rows=4), "trials after the run's end"),
        (
            'ciftify',
            lambda r: nan(dense(r, 1)),
            '1 grayordinates with values that are not finite and 1 that never change',
        ),
        ('ciftify', lambda r: annexed(dense(r, 1)), 'it was cut short'),
        ('ciftify', same_key, 'found the same bytes as'),
        ('ciftify', lambda r: dense(r, 1).write_text('no'), 'no readable CIFTI'),
        ('beta', lambda r: cut(results(r) / 'ses-action01_task-action_cycle-1_beta.dscalar.nii'), 'it was cut short'),
        ('beta', lambda r: next(results(r).parent.rglob('*.L.mid*')).write_text('no'), 'no readable surface'),
        ('volume', lambda r: cut(bold(r, 1)), 'truncated or damaged'),
        ('volume', unpack, 'truncated or damaged'),
        ('volume', lambda r: link(bold(r, 1)), 'link to content that is not here'),
        ('volume', other_shape, 'found grid (3, 4, 4)'),
        ('volume', other_tr, 'found a repetition time of 1.5 s'),
        ('volume', lambda r: bold(r, 1, '02').write_bytes(bold(r, 1).read_bytes()), 'found the same bytes as'),
        (
            'volume',
            lambda r: (r / 'sub-02/ses-action01/func/sub-02_ses-action01_task-action_run-02_events.tsv').unlink(),
            'found no events of runs 2',
        ),
    ],
)
def test_each_fault_is_found_where_it_is_looked_for_and_nothing_is_changed(whole, source, spoil, say, capsys):
    assert check_study(HAD(whole, skip=True)) == []
    spoil(whole)
    before = tree(whole)
    deep = ['--deep'] if 'finite' in say else []
    for look in (source, 'all'):
        assert check_main(['check', str(whole), '--source', look, *deep]) == 1 and say in capsys.readouterr().out
    other = 'beta' if source != 'beta' else 'volume'
    assert say == 'found no events of runs 2' or check_main(['check', str(whole), '--source', other]) == int(
        'surface' in say and other != 'volume'
    )
    assert tree(whole) == before


def test_the_findings_as_a_file_and_a_source_that_was_never_fetched(whole, tmp_path, capsys):
    shutil.rmtree(whole / 'derivatives' / 'ciftify')
    assert check_main(['check', str(whole)]) == 0  # nothing of it is there, nothing of it is wanted
    assert check_main(['check', str(whole), '--source', 'beta', '--json', str(tmp_path / 'f.json')]) == 1
    rows = json.loads((tmp_path / 'f.json').read_text())
    assert len(rows) == 6 and all('found nothing' in r['what'] and str(whole) not in r['what'] for r in rows)
    out = capsys.readouterr().out.splitlines()
    where = {line.index('found nothing') for line in out if 'found nothing' in line}
    assert len(where) == 1 and check_main(['check', str(whole), '--source', 'films']) == 1


def test_without_a_network_one_line_says_so(tmp_path, monkeypatch, capsys):
    def unreachable(*a, **k):
        raise urllib.error.URLError('no route to host')

    monkeypatch.setattr(urllib.request, 'urlopen', unreachable)
    assert check_main(['had', '--what', 'betas', '--subjects', '1-2', str(tmp_path)]) == 1
    out = capsys.readouterr()
    lines = out.out.splitlines()
    assert (
        len(lines) == 1
        and 'about 0.36 GB' in out.err
        and out.err.count('\n') == 1
        and lines[0].startswith('no network')
        and list(tmp_path.iterdir()) == []
    )
