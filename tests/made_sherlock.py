"A made kit in the layout of the published one (Chen et al. 2017): nothing in it is measured, nothing in it is copied."

from pathlib import Path
import nibabel as nib
import numpy as np
import pandas as pd
import scipy.io
from scipy.ndimage import gaussian_filter

KIT = 'sherlock_nifti_kit_v2_withdata'
TABLE = 'Sherlock_Segments_1000_NN_2017.xlsx'
TR = 1.5  # s
PLACES = {'Kitchen': 'Indoor', 'Park': 'Outdoor', 'Laboratory': 'Indoor', 'Street': 'Outdoor', 'Office': 'Indoor'}
PEOPLE = ('Anna', 'Ben', 'Carla')
ACTS = {'talks': 2, 'waits': 1, 'runs': 5, 'reads a letter': 2, 'looks around': 3}  # and how tense it is
LOST = 5  # volumes without data at the end of the last person's film, and at the beginning of that person's recall


def write_kit(
    folder,  # to write to
    people: int = 4,
    lengths: tuple = (30, 34),  # volumes of each scan, even numbers
    scene_volumes: int = 8,  # of a scene, about
    signal: float = 1.0,  # standard deviation of what everybody shares, that of the noise being 1
    own: float = 0.2,  # how much of the pattern is a person's own
    grid: tuple = (9, 10, 8),  # of the mask
    distinct: bool = False,  # no two descriptions are the same
    seed: int = 0,
) -> Path:  # the folder, with the kit and the transcripts of the recall
    "Write a kit: the second scan restarts, the last person lacks volumes, the first tells one scene twice."
    rng = np.random.default_rng(seed)
    root, kit = Path(folder), Path(folder) / KIT
    (kit / 'standard').mkdir(parents=True)
    (kit / 'README.txt').write_text('A made kit. Nothing in it is measured.\n')
    mask = ellipsoid(grid)
    affine = np.diag([3.0, 3, 3, 1])
    nib.save(nib.Nifti1Image(mask.astype(np.float32), affine), kit / 'standard' / 'pmc_nn.nii')
    rows, marks = describe(lengths, scene_volumes, rng)
    for one in rows if distinct else ():
        words = one['Scene Details - A Level '].strip(' .')
        one['Scene Details - A Level '] = f"{words}, moment {one['Segment Number']}. "
    film = [row for row in rows if row['Start Time (TRs, 1.5s)'] is not None]
    patterns = {name: pattern(mask, rng) for name in (*PLACES, *PEOPLE, *ACTS)}
    events = {}
    for n in range(1, people + 1):
        told = tell(marks, rng, twice=n == 1)
        mine = {name: (1 - own) * shared + own * pattern(mask, rng) for name, shared in patterns.items()}
        x = seen(film, mine, sum(lengths), signal) + noise(sum(lengths), mask, rng)
        y = retold(told, film, mine, signal) + noise(told[-1][2] + 3, mask, rng)
        if n == people: x[-LOST:], y[:LOST] = x[-LOST - 1], y[LOST]
        x = np.concatenate([standard(part) for part in np.split(x, [lengths[0]])])
        write_series(kit_file(root, n, 'movie'), x, mask)
        write_series(kit_file(root, n, 'recall'), standard(y), mask)
        events[f's{n}'] = person_events(marks, told, lengths)
        if n < people: write_words(root, n, told, marks)
    scipy.io.savemat(kit / 'subjects' / 'sherlock_allsubs_events.mat', {'ev': events})
    pd.DataFrame(rows).to_excel(kit / 'subjects' / TABLE, sheet_name='Segments', index=False)
    return root


def kit_file(root, n, task) -> Path:  # of person n; task: 'movie' or 'recall'
    return Path(root) / KIT / 'subjects' / f's{n}' / f'sherlock_{task}' / f'pmc_nn_sherlock_{task}_s{n}.mat'


def ellipsoid(grid) -> np.ndarray:  # bool
    place = np.stack(np.indices(grid), -1)
    middle = (np.array(grid) - 1) / 2
    return (((place - middle) / (middle - 0.5)) ** 2).sum(-1) <= 1


def pattern(mask, rng) -> np.ndarray:  # (V,), smooth, in the order of mask.nonzero()
    return standard(gaussian_filter(rng.standard_normal(mask.shape), 1.2)[mask])


def standard(x) -> np.ndarray:  # mean 0, standard deviation 1 along the first axis
    return (x - x.mean(0)) / x.std(0)


def noise(volumes, mask, rng) -> np.ndarray:  # (T, V), smooth in time and in space
    field = gaussian_filter(rng.standard_normal((volumes, *mask.shape)), (1, 0.8, 0.8, 0.8))
    return standard(field[:, mask])


def describe(lengths, scene_volumes, rng) -> tuple:  # rows of the table; (run, first, last) of each scene, from 1
    rows, marks = [], []
    for run, length in enumerate(lengths, 1):
        offset = 0 if run == 1 else lengths[0]
        edges = np.unique(np.linspace(0, length / 2, max(2, length // scene_volumes) + 1).astype(int)) * 2
        for first, last in zip(edges[:-1], edges[1:], strict=True):
            marks.append((run, int(first) + 1, int(last)))
            name = 'Cartoon' if first == 0 else f'Scene {len(marks)}'
            place = list(PLACES)[len(marks) % len(PLACES)]
            for volume in range(first, last, 2):
                cell = f'{len(marks)}. {name} ' if volume == first else (' ' if volume == first + 4 else None)
                timed = (int(1.5 * volume), int(1.5 * volume) + 3, volume + 1 + offset, volume + 2 + offset)
                rows.append(row(len(rows) + 1, timed, cell, place, len(marks), rng))
        if run == 1:
            for late in (0, 3):
                timed = (int(1.5 * length) + late, int(1.5 * length) + late + 3, None, None)
                rows.append(row(len(rows) + 1, timed, None, place, len(marks), rng))
    return rows, marks


def row(number, timed, cell, place, scene, rng) -> dict:  # of the table
    who, act = rng.choice(PEOPLE), rng.choice(list(ACTS))
    rated = {}
    for rater in range(1, 5):
        rated[f'Arousal - Rater {rater}'] = int(np.clip(ACTS[act] + rng.integers(-1, 2), 1, 5))
        rated[f'Valence - Rater {rater}'] = None if rater == 3 and number == 2 else rng.choice(['+', '-'])
    return {
        'Segment Number': number,
        'Start Time (s) ': timed[0],
        'End Time (s) ': timed[1],
        'Start Time (TRs, 1.5s)': timed[2],
        'End Time (TRs, 1.5s)': timed[3],
        'Scene Segments': cell,
        'Scene Details - A Level ': f'{who} {act} in the {place.lower()}. ',
        'Space-In/Outdoor': PLACES[place],
        'Name - All': 'Nobody' if number == 3 else f'{who} , Mrs.Hudson',
        'Name - Focus': None if number == 3 else who,
        'Name - Speaking': who if act == 'talks' else None,
        'Location': f'{place} ' if number % 3 else place,
        'Camera Angle': 'Long ' if number % 2 else 'Tracking , Medium',
        'Music Presence ': 'Yes' if scene % 2 else 'No',
        'Words on Screen ': 'THE END' if number == 5 else None,
        **rated,
    }


def seen(film, patterns, volumes, signal) -> np.ndarray:  # (T, V)
    x = np.zeros((volumes, len(next(iter(patterns.values())))))
    for one in film:
        who, act, place = parts(one)
        what = patterns[place] + 0.7 * patterns[who] + 0.5 * patterns[act]
        x[one['Start Time (TRs, 1.5s)'] - 1 : one['End Time (TRs, 1.5s)']] = what
    return signal * x / x.std()


def parts(one) -> tuple:  # who does what where, of a row
    text = one['Scene Details - A Level '].strip(' .')
    who = next(name for name in PEOPLE if text.startswith(name))
    act = next(act for act in ACTS if text.startswith(f'{who} {act}'))
    return who, act, one['Location'].strip()


def tell(marks, rng, twice) -> list:  # (scene, first, last), volumes of the recall from 1, by time
    scenes = list(range(2, len(marks) + 1))
    if twice: scenes.append(2)
    told, volume = [], 3 + LOST
    for scene in scenes:
        length = int(rng.integers(2, 6))
        told.append((scene, volume, volume + length - 1))
        volume += length + 1
    return told


def retold(told, film, patterns, signal) -> np.ndarray:  # (T, V)
    y = np.zeros((told[-1][2] + 3, len(next(iter(patterns.values())))))
    scene, places = 0, {}
    for one in film:
        cell = (one['Scene Segments'] or '').strip()
        if cell: scene = int(cell.split('.')[0])
        places[scene] = one['Location'].strip()
    for scene, first, last in told: y[first - 1 : last] = signal * patterns[places[scene]]
    return y


def person_events(marks, told, lengths) -> dict:  # the struct of a person
    scans = [np.array([(first, last) for r, first, last in marks if r == run]) for run in (1, 2)]
    told = sorted(told)
    said = np.array([(first, last) for _, first, last in told])
    runs = [[marks[scene - 1] for scene, *_ in told if marks[scene - 1][0] == run] for run in (1, 2)]
    shown = [np.array([mark[1:] for mark in of_run]).reshape(-1, 2) for of_run in runs]
    numbers = np.array([[scene] for scene, *_ in told], np.uint8)
    return dict(
        SL_event_num=np.arange(1, len(marks) + 1, dtype=np.uint8)[:, None],
        events=dict(freerecall=said.astype(np.uint16), freerecallnum=numbers, SL1=shown[0], SL2=shown[1]),
        SLnum=numbers.T,
        freerecall_s=TR * (said - [1, 0]),
        fullSL1=scans[0].astype(np.uint16),
        fullSL2=scans[1].astype(np.uint16),
        fullSL1_s=TR * (scans[0] - [1, 0]),
        fullSL2_s=TR * (scans[1] - [1, 0]),
    )


def write_series(path, x, mask):  # (T, V) in the order of mask.nonzero(), as MATLAB writes it: a row for each of find(mask)
    path.parent.mkdir(parents=True, exist_ok=True)
    box = np.zeros((len(x), *mask.shape), np.float32)
    box[:, mask] = x
    rows = np.stack([volume.ravel(order='F')[mask.ravel(order='F')] for volume in box], 1)
    scipy.io.savemat(path, dict(keptvox=np.ones((len(rows), 1), np.uint8), rdata=rows), do_compression=True)


def write_words(root, n, told, marks):
    (root / 'recall_transcripts').mkdir(exist_ok=True)
    words = ' '.join(f'Then comes scene {scene}.' for scene, *_ in told)
    (root / 'recall_transcripts' / f'NN{n} transcript.txt').write_bytes(f'{words} Voil\xe0.\r\n'.encode('cp1252'))


def change_table(root, change) -> Path:  # change(table) returns the new one, or None where it changed what it got
    path = Path(root) / KIT / 'subjects' / TABLE
    table = pd.read_excel(path, dtype=object)
    changed = change(table)
    (table if changed is None else changed).to_excel(path, index=False)
    return path


def change_events(root, change) -> Path:  # change(events) works on {'s1': {...}, ...}
    path = Path(root) / KIT / 'subjects' / 'sherlock_allsubs_events.mat'
    held = scipy.io.loadmat(path, simplify_cells=True)['ev']
    change(held)
    scipy.io.savemat(path, {'ev': held})
    return path


def change_series(root, n, change, task='movie', **more) -> Path:  # change(rows (V, T)) returns the new ones
    path = kit_file(root, n, task)
    held = scipy.io.loadmat(path)
    scipy.io.savemat(path, dict(rdata=change(held['rdata']), **more))
    return path


def write_repository(root, to) -> Path:  # a git repository that holds a made kit where the public ones hold theirs
    import shutil
    import subprocess

    to = Path(to)
    shutil.copytree(Path(root) / KIT, to / 'tutorials' / KIT)
    shutil.copytree(Path(root) / 'recall_transcripts', to / 'data' / 'raw')
    (to / 'tutorials' / KIT / 'code').mkdir()
    (to / 'tutorials' / KIT / 'code' / 'notes.m').write_text('% nobody asks for this\n')
    names = ['-c', 'user.name=nobody', '-c', 'user.email=nobody@example.org', '-c', 'commit.gpgsign=false']
    for words in (['init', '-q'], ['config', 'uploadpack.allowFilter', 'true'], ['add', '.']):
        subprocess.run(['git', '-C', str(to), *words], check=True)
    subprocess.run(['git', '-C', str(to), *names, 'commit', '-q', '-m', 'a made kit'], check=True)
    return to
