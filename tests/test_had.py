"HAD as it really is: all 30 people from text alone, in both versions of the dataset, and what is wrong in it said with its name."

import json, os, subprocess, sys, time
from pathlib import Path
import numpy as np, pytest
from brainllm.core import DataError
from brainllm.data.trials import source_video
from brainllm.datasets.had import HAD

CLASSES = json.loads((Path(__file__).parent / 'data' / 'had_classes.json').read_text())  # the 180 real names
SLOTS = [s for s in range(71) if s % 6 != 5]  # one blank after every five clips
HEADER = 'onset\tduration\ttrial_type\tresponse\tresponse_time\tstim_file\n'


def write_had(root: Path, version: int = 1, subjects: int = 30, stimuli: bool = True):
    "Text files and dangling links in HAD's layout and real size; names of films are made up, 384 of them with two clips."
    rng, used = np.random.default_rng(0), dict.fromkeys(CLASSES, 0)

    def film(i):
        "Of clip i: the last 384 are second clips of the first 384 films."
        return i if i < 21216 else i - 21216

    clips = {
        c: [f'v_{c}_id_{film(120 * n + k):011d}_start_{k}.5_label_1.mp4' for k in range(120)]
        for n, c in enumerate(CLASSES)
    }
    spell = (lambda s: s.replace(' ', '_')) if version == 2 else (lambda s: s)
    for c in CLASSES if stimuli else ():
        folder = root / 'stimuli' / spell(c)
        folder.mkdir(parents=True)
        for name in clips[c]:
            os.symlink('../../.git/annex/objects/absent', folder / spell(name))
    for s in range(1, subjects + 1):
        events = root / f'sub-{s:02d}' / 'ses-action01' / 'func'
        prep = root / 'derivatives' / 'fmriprep' / f'sub-{s:02d}'
        events.mkdir(parents=True)
        prep.mkdir(parents=True)
        for cycle in range(4):
            order = rng.permutation(180)
            for third in range(3):
                run, rows = 3 * cycle + third + 1, []
                for slot, code in zip(SLOTS, order[60 * third : 60 * third + 60], strict=True):
                    c = CLASSES[code]
                    name = clips[c][used[c]]
                    used[c] += 1
                    onset = (
                        4.0 * slot
                        + rng.uniform(0, 0.12)
                        + (0.5 if rng.random() < 0.0002 else 0)
                        + (12.0 if version == 2 else 0)
                    )
                    kind = f'{code + 1}' if (s, run) == (22, 7) else f'{code + 1}.0'
                    answer = 'n/a\tn/a' if (s, run) in ((4, 1), (4, 8), (18, 4)) else '-1.0\t0.5'
                    rows.append(f'{onset}\t2.01\t{kind}\t{answer}\t{spell(c)}/{spell(name)}\n')
                (events / f'sub-{s:02d}_ses-action01_task-action_run-{run:02d}_events.tsv').write_text(
                    HEADER + ''.join(rows)
                )
                (prep / f'sub-{s:02d}_task-action_run-{run}_desc-preproc_bold.json').write_text(
                    '{"RepetitionTime": 2, "TaskName": "action"}'
                )
                (prep / f'sub-{s:02d}_task-action_run-{run}_desc-confounds_timeseries.tsv').write_text(
                    'trans_x\n' + '0.0\n' * 156
                )
    extra = root / 'derivatives' / 'ciftify' / 'sub-03' / 'results'
    extra.mkdir(parents=True)
    for run in range(1, 13):
        os.symlink('absent', extra / f'ses-action02_task-action_run-{run}_Atlas.dtseries.nii')
    return root


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    return [write_had(tmp_path_factory.mktemp(f'v{v}'), v) for v in (1, 2)]


def test_all_of_it_from_text_under_both_versions(whole):
    begin = time.time()
    first = HAD(whole[0])
    trials = first.trials()
    seconds = time.time() - begin
    assert seconds < 20, seconds
    assert (len(first.subjects), len({(t.subject, t.run) for t in trials}), len(trials)) == (30, 360, 21600)
    assert first.class_names == CLASSES and set(np.unique([t.label for t in trials], return_counts=True)[1]) == {120}
    assert len({t.clip for t in trials}) == 21600 and len({source_video(t.clip) for t in trials}) == 21600 - 384
    assert all(12 <= t.onset < 312 for t in trials) and not first.problems
    for s in ('01', '22'):
        for c in range(4):
            assert sorted(t.label for t in trials if t.subject == s and t.run in range(3 * c + 1, 3 * c + 4)) == list(
                range(1, 181)
            )  # a cycle shows each class once
    second = HAD(whole[1]).trials()

    def bare(t):
        return t.subject, t.run, t.duration, t.label, t.classname, t.index, t.clip.replace('_', ' ')

    assert [bare(a) for a in trials] == [bare(b) for b in second] and np.allclose(
        [t.onset for t in trials], [t.onset for t in second]
    )


def test_all_of_it_in_a_gigabyte(whole):
    code = (
        "from brainllm.store import PeakMemory; from brainllm.datasets import HAD\nwith PeakMemory() as memory: n = "
        f"len(HAD({str(whole[0])!r}).trials())\nprint(n, memory.gb)"
    )  # a process of its own, torch included
    n, peak = map(
        float, subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert n == 21600 and 0 < peak < 1, peak


@pytest.fixture
def small(tmp_path):
    return write_had(tmp_path / 'had', subjects=3, stimuli=False)


def events(root, s, r):
    return (
        root / f'sub-{s:02d}' / 'ses-action01' / 'func' / f'sub-{s:02d}_ses-action01_task-action_run-{r:02d}_events.tsv'
    )


def no_events(root):
    [p.unlink() for p in (root / 'sub-02' / 'ses-action01' / 'func').iterdir()]


def outside(root):
    p = events(root, 2, 5)
    t = p.read_text().splitlines(True)
    t[3] = '\t'.join(t[3].split('\t')[:-1]) + '\t../../secret/v_x_id_00000000000_start_0.5_label_1.mp4\n'
    p.write_text(''.join(t))


def shift(p):  # a file of version 1 becomes one of version 2
    rows = [l.split('\t') for l in p.read_text().splitlines()]
    p.write_text('\n'.join('\t'.join([str(float(r[0]) + 12), *r[1:]] if i else r) for i, r in enumerate(rows)) + '\n')


def mixed_runs(root):
    shift(events(root, 2, 4))


def mixed_people(root):
    [shift(events(root, 2, r)) for r in range(1, 13)]


def twice(root):
    p = events(root, 2, 1)
    p.with_name(p.name.replace('run-01', 'run-1')).write_text(p.read_text())


def past_the_end(root):
    p = root / 'derivatives' / 'fmriprep' / 'sub-02' / 'sub-02_task-action_run-3_desc-confounds_timeseries.tsv'
    p.write_text('trans_x\n' + '0.0\n' * 100)


def other_code(root):
    p = events(root, 2, 12)
    t = p.read_text().splitlines(True)
    r = t[-1].split('\t')
    r[2] = '181.0'
    t[-1] = '\t'.join(r)
    p.write_text(''.join(t))


@pytest.mark.parametrize(
    'spoil, say',
    [
        (no_events, 'found no events of this subject'),
        (outside, 'wanted a path inside stimuli/'),
        (mixed_runs, 'fetch all text files of one version'),
        (mixed_people, 'fetched from two versions'),
        (twice, 'run 1 a second time'),
        (past_the_end, "before the run's end"),
        (other_code, 'code 181'),
    ],
    ids=lambda x: getattr(x, '__name__', ''),
)
def test_what_is_wrong_is_named_and_the_others_are_listed_when_asked(small, spoil, say):
    spoil(small)
    with pytest.raises(DataError, match='sub-02') as e:
        HAD(small).trials()
    assert say in str(e.value)
    had = HAD(small, skip=True)
    trials = had.trials()
    assert (
        {t.subject for t in trials} == {'01', '03'} == set(had.subjects)
        and len(trials) == 2 * 720
        and say in had.problems['02']
        and list(had.problems) == ['02']
    )


@pytest.mark.parametrize('broken', [(1,), (12,), (3, 12), tuple(range(1, 12))])
def test_a_broken_run_costs_the_run_where_that_is_asked(small, broken):
    paths = sorted((small / 'sub-02').rglob('*_events.tsv'))
    lost = [paths[k - 1] for k in broken]
    for path in lost: path.write_bytes(b'')
    had = HAD(small, skip='runs')
    kept = {t.run for t in had.trials() if t.subject == '02'}
    assert len(kept) == 12 - len(lost) and len(had.lost_runs) == len(lost) and not had.problems


def test_a_person_of_whom_no_run_is_whole_is_left_out(small):
    for path in (small / 'sub-02').rglob('*_events.tsv'): path.write_bytes(b'')
    had = HAD(small, skip='runs')
    assert {t.subject for t in had.trials()} == {'01', '03'} and list(had.problems) == ['02']


def test_stimuli_half_fetched_are_no_fault(small):
    before = HAD(small).trials()
    for t in before[:40]:
        (small / 'stimuli' / t.clip).parent.mkdir(parents=True, exist_ok=True)
        (small / 'stimuli' / t.clip).symlink_to('absent')
    assert HAD(small).trials() == before and HAD(small).class_names == CLASSES
    for k in range(30):
        (small / 'stimuli' / f'AAA {k}').mkdir()  # folders of something else
    with pytest.raises(DataError, match='its place in the sorted folders'):
        HAD(small).trials()


def test_a_few_runs_and_a_second_session(small):
    before = HAD(small).trials()
    for r in range(4, 13):
        events(small, 2, r).unlink()
    other = small / 'sub-03' / 'ses-action02' / 'func'
    other.mkdir(parents=True)
    (other / 'sub-03_ses-action02_task-action_run-01_events.tsv').write_text(events(small, 3, 5).read_text())
    assert HAD(small).trials() == [t for t in before if t.subject != '02' or t.run < 4]


def own_output(root, s, space, runs=range(1, 13)):  # fMRIPrep's own names under HAD's raw data
    func = root / 'derivatives' / 'fmriprep' / f'sub-{s:02d}' / 'ses-action01' / 'func'
    func.mkdir(parents=True, exist_ok=True)
    for r in runs:
        (func / f'sub-{s:02d}_ses-action01_task-action_run-{r:02d}_space-{space}_desc-preproc_bold.json').write_text(
            '{"RepetitionTime": 2.0}'
        )
    return func


def test_own_output_of_fmriprep_goes_before_the_shipped_native_volumes(small):
    before, shipped = HAD(small).trials(), HAD(small).runs('01')
    assert [(r.run, r.space) for r in shipped] == [(r, '') for r in range(1, 13)]
    func = own_output(small, 1, 'MNI152NLin2009cAsym_res-2')
    (func / 'sub-01_ses-action01_task-action_run-01_space-MNI152NLin2009cAsym_res-2_desc-brain_mask.nii.gz').touch()
    runs = HAD(small).runs('01')
    assert (
        [(r.run, r.space) for r in runs] == [(r, 'MNI152NLin2009cAsym') for r in range(1, 13)]
        and runs[0].mask
        and not runs[1].mask
    )
    assert runs[0].confounds == func / 'sub-01_ses-action01_task-action_run-01_desc-confounds_timeseries.tsv' and runs[
        0
    ].bold.name.endswith('res-2_desc-preproc_bold.nii.gz')
    assert HAD(small, space='T1w').runs('01') == shipped
    own_output(small, 1, 'MNI152NLin6Asym')
    with pytest.raises(DataError, match="name it, as in space='MNI152NLin"):
        HAD(small).runs('01')
    assert (
        HAD(small, space='MNI152NLin6Asym').runs('01')[3].space == 'MNI152NLin6Asym' and HAD(small).trials() == before
    )  # the trials need no volumes


def test_a_wrong_folder_is_said_at_once(tmp_path):
    for root, say in ((tmp_path / 'none', 'found no folder'), (tmp_path, 'found no events')):
        with pytest.raises(DataError, match=say):
            HAD(root, skip=True)
