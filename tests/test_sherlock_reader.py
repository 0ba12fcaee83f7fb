"The reader of the Sherlock kit: what it reads, and one clear error for each file that is not as it should be."

import shutil
import subprocess
from dataclasses import replace
from types import SimpleNamespace
import numpy as np
import pytest
import scipy.io
from brainllm.cli import main
from brainllm.core import DataError
from brainllm.data.blocks import Blocks, RunStore
from brainllm.datasets import DATASETS, Dataset, Sherlock, check_study, fetch_sherlock, sherlock
from brainllm.datasets.fetch import SHERLOCK_PARTS
from made_sherlock import KIT, LOST, TABLE, change_events, change_series, change_table, kit_file, write_kit, write_repository

SECONDS, VOLUMES = 'Start Time (s) ', 'Start Time (TRs, 1.5s)'


@pytest.fixture(scope='module')
def made(tmp_path_factory): return write_kit(tmp_path_factory.mktemp('made') / 'kit', people=3)


@pytest.fixture
def kit(made, tmp_path): return shutil.copytree(made, tmp_path / 'kit')


def put(row, column, value):  # a change of one cell; row: segment, from 1
    def change(table): table.loc[row - 1, column] = value

    return lambda kit: change_table(kit, change)


def write(path_of, data):  # a change of a whole file
    return lambda kit: path_of(kit).write_bytes(data)


def movie(kit): return kit_file(kit, 1, 'movie')


def table(kit): return kit / KIT / 'subjects' / TABLE


def mask(kit): return kit / KIT / 'standard' / 'pmc_nn.nii'


def events(kit): return kit / KIT / 'subjects' / 'sherlock_allsubs_events.mat'


def series(change, **more): return lambda kit: change_series(kit, 1, change, **more)


def shorten(path_of, size=3000): return lambda kit: path_of(kit).write_bytes(path_of(kit).read_bytes()[:size])


def rename(kit): scipy.io.savemat(movie(kit), dict(other=np.zeros(3)))


def spoil(x):
    x[3, 4] = np.nan
    return x


def smaller_mask(kit):
    import nibabel as nib

    image = nib.load(mask(kit))
    values = np.asarray(image.dataobj).copy()
    values[tuple(np.argwhere(values)[0])] = 0
    nib.save(nib.Nifti1Image(values, image.affine), mask(kit))


def field(change):  # a change of the first person's struct
    return lambda kit: change_events(kit, lambda held: change(held['s1']))


def set_field(name, value_of): return field(lambda person: person.update({name: value_of(person)}))


def later(rows): return np.asarray(rows) + [0, 5]


def swap(kit):
    def change(found):
        order = list(range(len(found)))
        order[3], order[6] = 6, 3
        found[[c for c in found if 'Time' in c]] = found.iloc[order][[c for c in found if 'Time' in c]].to_numpy()

    change_table(kit, change)


def unlike(kit): change_events(kit, lambda held: held['s2'].update(fullSL1=held['s2']['fullSL1'][::-1]))


FAULTS = {  # what is spoiled -> how, and what is said
    'a cut .mat': (shorten(movie), 's1.mat: found no readable MATLAB file'),
    'no rdata': (rename, "s1.mat: found other, wanted the variable 'rdata'"),
    'MATLAB 7.3': (write(movie, b'MATLAB 7.3 MAT-file, Platform: GLNXA64' + bytes(600)), 's1.mat: found a file of MATLAB 7.3'),
    'HDF5': (write(movie, b'\x89HDF\r\n\x1a\n' + bytes(600)), 's1.mat: found a file of MATLAB 7.3'),
    'an empty file': (write(movie, b''), 's1.mat: found 0 bytes'),
    'noise': (write(movie, bytes(range(256)) * 9), 's1.mat: found no readable MATLAB file'),
    'fewer voxels': (series(lambda x: x[:-1]), r's1.mat, rdata: found \(171, 64\), wanted \(172, volumes\)'),
    'text for numbers': (series(lambda x: 'none'), 's1.mat, rdata: found str'),
    'turned': (series(lambda x: x.T), r'found \(64, 172\), wanted \(172, volumes\)'),
    'NaN': (series(spoil), 'found 1 voxels with values that are not finite'),
    'a voxel not kept': (series(lambda x: x, keptvox=[[1]] * 171 + [[0]]), 'keptvox: found 171 voxels kept of 172'),
    'another film': (series(lambda x: x[:, :-4]), 'found 60 volumes, wanted 64, where segment 34'),
    'Git LFS': (write(movie, b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'), 'a pointer of Git LFS'),
    'git-annex': (write(movie, b'/annex/objects/SHA256E-s9--0.mat\n'), 'found a pointer of git-annex'),
    'a pointer for a table': (write(table, b'version https://git-lfs.github.com/spec/v1\n'), '.xlsx: found a pointer of Git LFS'),
    'a pointer for a mask': (write(mask, b'/annex/objects/SHA256E-s9--0.nii\n'), 'pmc_nn.nii: found a pointer of git-annex'),
    'a mask of fewer voxels': (smaller_mask, r'rdata: found \(172, 64\), wanted \(171, volumes\)'),
    'a cut mask': (shorten(mask, 400), 'pmc_nn.nii: found no readable NIfTI'),
    'no zip': (write(table, b'Segment Number,Start\n1,0\n'), '.xlsx: found no readable xlsx'),
    'a cut table': (shorten(table), '.xlsx: found no readable xlsx'),
    'no places': (lambda kit: change_table(kit, lambda t: t.drop(columns='Location')), "column 'Location' is missing"),
    'no rows': (lambda kit: change_table(kit, lambda t: t.iloc[:0]), 'found no rows'),
    'a row less': (lambda kit: change_table(kit, lambda t: t.drop(index=4)), "row 5, column 'Segment Number': found 6"),
    'one scan': (lambda kit: change_table(kit, lambda t: t.iloc[:15]), 'seconds that never begin anew'),
    'rows in another order': (swap, 'segment 5, column .* times out of order'),
    'volumes out of order': (put(6, VOLUMES, 3), 'segment 6.*times out of order'),
    'a volume beyond': (put(34, 'End Time (TRs, 1.5s)', 99), 'segment 34: found volumes 63 to 99'),
    'a volume far on': (put(4, 'End Time (TRs, 1.5s)', 60), 'segment 4: found volumes 7 to 60'),
    'no end': (put(4, 'End Time (TRs, 1.5s)', None), 'segment 4: found 9 to 12 s'),
    'a word for a time': (put(4, SECONDS, 'soon'), r"segment 4, column 'Start Time \(s\)': found 'soon'"),
    'half a volume': (put(4, VOLUMES, 7.5), 'segment 4, column .*found 7.5, wanted a whole number'),
    'a scene left out': (put(6, 'Scene Segments', '3. Other'), "segment 6, column 'Scene Segments': found '3. Other'"),
    'no first scene': (put(1, 'Scene Segments', ' '), "segment 1, column 'Scene Segments': found nothing"),
    'scenes elsewhere': (put(2, 'Scene Segments', '2. Soon'), 'found 8 scenes|wanted scene'),
    'no words': (put(7, 'Scene Details - A Level ', ' '), "segment 7, column 'Scene Details - A Level': found nothing"),
    'music perhaps': (put(7, 'Music Presence ', 'Perhaps'), "segment 7, column 'Music Presence': found 'Perhaps'"),
    'arousal of 9': (put(7, 'Arousal - Rater 2', 9), "segment 7, column 'Arousal - Rater 2': found 9"),
    'valence in words': (put(7, 'Valence - Rater 2', 'good'), "column 'Valence - Rater 2': found 'good'"),
    'a cut struct': (shorten(events, 900), 'events.mat: found no readable MATLAB file'),
    'another struct': (lambda kit: scipy.io.savemat(events(kit), dict(ev=dict(a=1))), 'wanted s1, s2'),
    'no struct': (lambda kit: scipy.io.savemat(events(kit), dict(ev=3)), 'wanted s1, s2'),
    'no marks': (field(lambda person: person.pop('fullSL1')), 's1.fullSL1: found no table'),
    'another film for one': (unlike, 'fullSL1'),
    'seconds of the marks': (set_field('fullSL1_s', lambda p: later(p['fullSL1_s'])), 'fullSL1_s, row 1: found seconds'),
    'seconds of the recall': (set_field('freerecall_s', lambda p: later(p['freerecall_s'])), 'freerecall_s, row 1: found sec'),
    'numbers': (field(lambda p: p['events'].update(freerecallnum=[99])), 'freerecallnum: found 1 numbers for'),
    'marks of the recalled': (field(lambda p: p['events'].update(SL1=later(p['events']['SL1']))), 'SL1 and SL2, row 1'),
    'no events': (set_field('events', lambda p: 3), 's1.events: found int'),
    'scenes of the struct': (set_field('SL_event_num', lambda p: [1, 2]), 'SL_event_num: found 2 scenes'),
}


@pytest.mark.parametrize('what', FAULTS)
def test_a_fault_is_one_clear_error(what, kit):
    change, said = FAULTS[what]
    change(kit)
    with pytest.raises(DataError, match=said) as found:
        study = Sherlock(kit)
        _ = study.segments, study.scenes, study.film('01'), study.recall('01')
    assert '\n' not in str(found.value) and str(kit) in str(found.value)


def test_another_order_of_columns_and_stray_spaces_do_no_harm(made, kit):
    change_table(kit, lambda t: t[t.columns[::-1]].rename(columns={'Location': ' Location  ', SECONDS: 'Start  Time (s)'}))
    assert Sherlock(kit).segments == Sherlock(made).segments


def test_numbers_alone_name_scenes_too(made, kit):
    change_table(kit, lambda t: t.assign(**{'Scene Segments': [bare(cell) for cell in t['Scene Segments']]}))
    study = Sherlock(kit)
    assert [s.scene for s in study.segments] == [s.scene for s in Sherlock(made).segments]
    assert {scene.name for scene in study.scenes} == {''}


def bare(cell): return int(cell.split('.')[0]) if isinstance(cell, str) and cell.strip() else cell


def test_somebody_missing_is_an_error_or_left_out(kit):
    kit_file(kit, 2, 'movie').unlink()
    with pytest.raises(DataError, match='subject 02, whom the events name: .*found nothing'): Sherlock(kit)
    study = Sherlock(kit, skip=True)
    assert study.subjects == ['01', '03'] and 'sherlock_movie_s2.mat' in study.problems['02']
    assert {trial.subject for trial in study.trials()} == {'01', '03'} and study.runs('02') == []
    with pytest.raises(DataError, match="found no subject '02', wanted one of 01, 03"): study.film('02')
    assert [finding.subject for finding in check_study(study)] == ['02']


def test_somebody_unknown_is_found(kit):
    shutil.copytree(kit / KIT / 'subjects' / 's1', kit / KIT / 'subjects' / 's9')
    assert ['whom the events do not name' in f.what for f in check_study(Sherlock(kit))] == [True]


def test_a_folder_that_is_no_kit(tmp_path):
    with pytest.raises(DataError, match='found no sherlock_nifti_kit_v2_withdata'): Sherlock(tmp_path)


def test_the_kit_itself_is_a_root_too(made):
    one, other = Sherlock(made), Sherlock(made / KIT)
    assert one.segments == other.segments and other.transcript('01') == one.transcript('01') != ''
    assert isinstance(one, Dataset) and DATASETS['sherlock'] is Sherlock


def test_lost_volumes_are_found_in_the_values(kit):
    study = Sherlock(kit)
    assert study.lost('03') == set(range(64 - LOST, 64)) and study.lost('03', 'recall') == set(range(LOST + 1))
    assert study.lost('01') == set() and study.faults(deep=True) == []

    def hold(x):
        x[:, 11:20] = x[:, 10:11]
        return x

    change_series(kit, 1, hold)
    study = Sherlock(kit)
    assert study.lost('01') == set(range(11, 20))
    assert any('subject 01, film: volumes 12 to 20 of 64, within' in note for note in study.notes)
    (finding,) = check_study(study, deep=True)
    assert finding.subject == '01' and 'one value throughout volumes 11 to 20' in finding.what


def test_voxels_come_in_the_order_of_the_store(made, tmp_path):
    study = Sherlock(made)
    rows = scipy.io.loadmat(movie(made))['rdata']
    box = np.zeros((64, *study.mask.shape), np.float32)
    box[:, study.mask] = study.film('01')
    for t in (0, 40): assert (box[t].ravel(order='F')[study.mask.ravel(order='F')] == rows[:, t]).all()
    store = RunStore(study.store(tmp_path / 'store', ['01', '03']))
    assert [(r['subject'], r['task'], r['run'], r['volumes']) for r in store.runs][:2] == [
        ('01', 'film', 1, 30),
        ('01', 'film', 2, 34),
    ]
    trial = next(t for t in study.trials() if t.run == 2 and t.onset == 12)
    block = Blocks(store, [trial], in_frames=3, window_start=0.0, task='film')[0].numpy()
    assert np.allclose(block[:, study.mask], study.film('01')[38:41], atol=2e-3)


def test_check_says_what_is_wrong_and_what_is_odd(kit, capsys):
    assert ends(['check', str(kit), '--kind', 'sherlock']) == 0
    assert '3 subjects, 96 trials, headers and text alone: no findings' in capsys.readouterr().out
    assert ends(['check', str(kit), '--kind', 'sherlock', '--deep']) == 0
    assert 'note: subject 03, film: volumes 60 to 64' in capsys.readouterr().out
    change_series(kit, 2, spoil)
    shutil.copyfile(kit_file(kit, 1, 'recall'), kit_file(kit, 3, 'recall'))
    assert ends(['check', str(kit), '--kind', 'sherlock', '--deep']) == 1
    out = capsys.readouterr().out
    assert 'not finite' in out and 'found the same bytes as' in out and 'note:' not in out and str(kit) not in out


@pytest.mark.parametrize('end, said', [(10, []), (12, []), (13, ['segment 7 ends +3 s off']), (7, ['segment 7 ends -6 s off'])])
def test_a_segment_that_ends_elsewhere_by_its_volumes(end, said):  # volumes before `end`, and 16.5 s of TR 1.5
    time = SimpleNamespace(number=7, run=1, first=0, last=end - 1, start=0.0, end=16.5)
    found = sherlock._odd_times([time], [100], 1.5)
    assert [note.split(' by')[0] for note in found if ' ends ' in note] == said


def told(subject, scenes, lost=(), words='', volumes=40):  # what `_odd_recall` asks of a person
    return SimpleNamespace(subject=subject, scenes=scenes, lost=set(lost), words=words, volumes=volumes)


def people_who(*people):
    known = {one.subject: one for one in people}
    return SimpleNamespace(
        subjects=list(known),
        recalled=lambda subject: [SimpleNamespace(scene=n, first=a, last=b) for n, a, b in known[subject].scenes],
        lost=lambda subject, task: known[subject].lost,
        transcript=lambda subject: known[subject].words,
        recall=lambda subject: range(known[subject].volumes),
    )


def test_what_is_odd_about_recall():
    once = [(1, 0, 9), (2, 12, 20)]
    plain = people_who(told('01', once, lost=[10, 11], words='a b'), told('02', once, words='a'))
    assert sherlock._odd_recall(plain) == []
    odd = people_who(
        told('01', [*once, (1, 30, 35)], words='a'),
        told('02', [(1, 0, 9), (2, 9, 20)], words='a'),
        told('03', once, lost=[20]),
    )
    repeated, overlap, silent, untold = sherlock._odd_recall(odd)
    assert 'by subjects 01: 1 pieces more' in repeated and 'overlap in time in subjects 02' in overlap
    assert 'without data in subjects 03' in silent and 'recall of subjects 03' in untold


def test_transcripts_that_are_as_long_as_the_recalls_or_not():
    def lengths(*volumes): return people_who(*(told(f'0{k}', [], words='a ' * k, volumes=v) for k, v in enumerate(volumes, 1)))

    assert 'correlate with 1.00: both seem to' in sherlock._odd_recall(lengths(10, 20, 30))[0]
    assert 'correlate with -1.00: both may not' in sherlock._odd_recall(lengths(30, 20, 10))[0]


def test_check_goes_on_without_a_table(kit, capsys):
    table(kit).write_bytes(b'')
    assert ends(['check', str(kit), '--kind', 'sherlock']) == 1
    assert 'found 0 bytes' in capsys.readouterr().out


def test_check_by_headers_finds_another_film(kit):
    change_series(kit, 1, lambda x: x[:, :50])
    change_series(kit, 2, lambda x: x[:20], task='recall')
    shorten(lambda kit: kit_file(kit, 3, 'movie'))(kit)
    said = [finding.what for finding in check_study(Sherlock(kit, skip=True))]
    assert len(said) == 3 and 'wanted (172, 64)' in said[0] and 'found shape (20,' in said[1]


def ends(words):  # the status of a command
    with pytest.raises(SystemExit) as end: main(words)
    return end.value.code


def test_fetch_offline_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    from brainllm.datasets import fetch

    monkeypatch.setattr(fetch, 'SHERLOCK_PARTS', ())
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(DataError, match='git: found no such program'): fetch_sherlock(tmp_path / 'to', SHERLOCK_PARTS)
    assert 'states no licence' in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_fetch_refuses_what_is_not_empty(tmp_path, capsys):
    (tmp_path / 'there').write_text('mine')
    assert ends(['fetch', str(tmp_path), '--kind', 'sherlock']) == 2
    assert 'wanted an empty folder or none' in capsys.readouterr().err
    assert ends(['fetch', str(tmp_path), '--kind', 'other']) == 2
    assert "--kind: found 'other', wanted one of had, sherlock" in capsys.readouterr().err
    assert (tmp_path / 'there').read_text() == 'mine'


def test_fetch_fills_an_empty_folder_with_files_alone(made, tmp_path):
    at = write_repository(made, tmp_path / 'repository')
    parts = tuple(replace(part, address=f'file://{at}', commit='HEAD') for part in SHERLOCK_PARTS)
    (tmp_path / 'to').mkdir()
    fetch_sherlock(tmp_path / 'to', parts)
    assert Sherlock(tmp_path / 'to').segments == Sherlock(made).segments
    names = {p.name for p in (tmp_path / 'to').rglob('*')}
    assert '.git' not in names and 'notes.m' not in names and 'NN1 transcript.txt' in names
    assert sorted(p.name for p in tmp_path.iterdir()) == ['repository', 'to']


def test_fetch_keeps_nothing_of_pointers(kit, tmp_path):
    FAULTS['Git LFS'][0](kit)
    at = write_repository(kit, tmp_path / 'repository')
    parts = tuple(replace(part, address=f'file://{at}', commit='HEAD') for part in SHERLOCK_PARTS)
    with pytest.raises(DataError, match='not whole, so nothing was kept: .*a pointer of Git LFS'):
        fetch_sherlock(tmp_path / 'to', parts)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['kit', 'repository']


def test_fetch_asks_git_without_a_shell(tmp_path, monkeypatch):
    asked = []

    def noted(words, **kw):
        asked.append(words)
        assert isinstance(words, list) and not kw.get('shell') and kw['env']['GIT_TERMINAL_PROMPT'] == '0'
        return subprocess.CompletedProcess(words, 128, '', 'fatal: Could not resolve host: github.com\n')

    monkeypatch.setattr(subprocess, 'run', noted)
    with pytest.raises(DataError, match='Could not resolve host.*run the same line again'): fetch_sherlock(tmp_path / 'to')
    assert asked[0][-2] == SHERLOCK_PARTS[0].address and '--filter=blob:none' in asked[0]
    assert not list(tmp_path.iterdir())
