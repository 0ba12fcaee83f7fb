"Tables: events of one's own study and of HAD, confounds, captions of people, the text beside the Haxby slice."

import csv
import io
import numpy as np
from hypothesis import strategies as st
from brainllm.data.clean import MOTION, read_confounds
from brainllm.data.files import read_table
from brainllm.datasets.bids import EventRow
from brainllm.datasets.films import read_film_events
from brainllm.datasets.had import read_events
from brainllm.datasets.haxby import read_attribute
from brainllm.evaluate.human import read_human_captions
from . import damage, Example, family, fault_of, pick, rng_of

WORDS = ('run', 'Drum corps', 'Ünïcode', '日本語', 'שלום', "a'b", 'a,b', '1.0', 'x=y', '#7', 'NA', 'null', 'a\u2028b', 'a\x85b')
WORDS += ('a\u00a0b', '😀', '$HOME', '<b>', 'a;b', '%s', 'a:b', '-x', 'e\u0301', 'nan', 'a b c', '{}', '0x1', 'A' * 300)
NO_NUMBERS = ('x', 'n/a', '', 'nan', 'inf', '-inf', '1e999', '1,5', '0x10', '1_0', '1 2', '--1', '1e', 'True', '²', '१')
SHAPES = ('a field less', 'a field more', 'a quote', 'cut in a row', 'commas', 'no rows', 'a zero byte', 'latin-1', 'utf-16')
SHAPES += ('a column twice', 'a column is missing', 'empty', 'a page', 'missing', 'a dangling link', 'a folder')


def words(draw) -> str:
    return pick(draw, WORDS)


def write(draw, path, header, rows):
    end = pick(draw, ('\n', '\r\n'))
    start = pick(draw, ('', '', '\ufeff'))
    cells = [header, *rows]
    if pick(draw, (True, False, False)): cells = [[f'"{c}"' for c in row] for row in cells]
    elif pick(draw, (True, False, False)): cells = [[f' {c} ' for c in row] for row in cells]
    text = start + end.join('\t'.join(row) for row in cells) + pick(draw, ('', end, end + end))
    path.write_bytes(text.encode())


def spoil(draw, path, header, rows, fault, needed):  # needed: columns that the reader must have
    row = draw(st.integers(0, len(rows) - 1))
    rows = [list(r) for r in rows]
    if fault == 'a field less': rows[row].pop()
    elif fault == 'a field more': rows[row].append('')
    elif fault == 'a quote': rows[row][0] = '"' + rows[row][0]
    elif fault == 'no rows': rows = []
    elif fault == 'a column twice': header, rows = header + [needed], [r + ['1'] for r in rows]
    elif fault == 'a column is missing': header = [f'{h}s' if h == needed else h for h in header]
    parted = ',' if fault == 'commas' else '\t'
    text = '\n'.join(parted.join(r) for r in [header, *rows]) + '\n'
    path.write_text(text)
    if fault == 'cut in a row': path.write_text(text.rstrip('\n').rpartition('\t')[0])
    elif fault == 'a zero byte': path.write_text(text.replace('\t', '\0', 1))
    elif fault == 'latin-1': path.write_bytes(text.replace('\n', 'é\n', 2).encode('latin-1', 'replace'))
    elif fault == 'utf-16': path.write_text(text, encoding='utf-16')
    elif fault in damage.WHOLLY: damage.replace(draw, path, fault)


def shuffled(draw, header, rows, more=2):  # with columns that nobody asks for
    rng = rng_of(draw)
    names = [f'more{k}' for k in range(draw(st.integers(0, more)))]
    order = rng.permutation(len(header) + len(names)).tolist()
    header, rows = [*header, *names], [[*row, *['n/a' for _ in names]] for row in rows]
    return [header[k] for k in order], [[row[k] for k in order] for row in rows]


FILM_CELLS = {  # column -> what is wrong in it
    'onset': NO_NUMBERS,
    'duration': (*NO_NUMBERS, '0', '-1'),
    'trial_type': ('n/a', ''),
    'stim_file': ('../x.mp4', '/etc/x.mp4', 'a/../../x.mp4', '..\\x.mp4'),
}
FILM_ROWS = ('a row twice', 'two at once', 'before the run', 'after the run', 'no films')


@family('events.tsv of films')
def film_events(draw, folder):
    path, n = folder / 'sub-01_task-action_run-01_events.tsv', draw(st.integers(1, 6))
    onsets = np.cumsum(rng_of(draw).integers(1, 9, n)).tolist()
    rows = []
    for onset in onsets: rows.append([str(onset), pick(draw, ('2', '2.5', '1e0')), words(draw), f'{words(draw)}.mp4'])
    header, want = ['onset', 'duration', 'trial_type', 'stim_file'], []
    fault = fault_of(draw, (*FILM_CELLS, *FILM_CELLS, *FILM_ROWS, *SHAPES))
    field = fault if fault in FILM_CELLS else ''
    row, seconds = draw(st.integers(0, n - 1)), onsets[-1] + 4.0
    if fault in FILM_CELLS: rows[row][header.index(fault)] = pick(draw, FILM_CELLS[fault])
    if fault == 'a row twice': rows.append(rows[row])
    if fault == 'two at once': rows.append([rows[row][0], '2', 'other', 'other.mp4'])
    if fault == 'before the run': rows[0][0] = '-1'
    if fault == 'after the run': seconds = float(onsets[-1])
    if fault == 'no films': rows = [[*r[:3], 'n/a'] for r in rows]
    order = rng_of(draw).permutation(len(rows)).tolist()
    rows = [rows[k] for k in order]
    for k, (onset, duration, kind, clip) in enumerate(rows, 1):
        if not fault: want.append(EventRow(float(onset), float(duration), kind, clip, k))
    head, cells = shuffled(draw, header, rows)
    if fault in SHAPES: spoil(draw, path, head, cells, fault, pick(draw, header))
    else: write(draw, path, head, cells)
    return Example(lambda: read_film_events(path, seconds), path.name, sorted(want), fault, field)


HAD_CELLS = {
    'onset': NO_NUMBERS,
    'duration': (*NO_NUMBERS, '0', '-2'),
    'trial_type': ('x', '', 'n/a', '0', '-1', '1.5', '1e3', '9' * 12, 'nan', '٣'),
}


@family('events.tsv of HAD')
def had_events(draw, folder):
    path, n = folder / 'sub-01_ses-action01_task-action_run-01_events.tsv', draw(st.integers(1, 6))
    shift = pick(draw, (0.0, 12.0))
    onsets = [12.0 - shift + 4 * k for k in range(n)]
    header, rows = ['onset', 'duration', 'trial_type', 'stim_file'], []
    for onset in onsets: rows.append([f'{onset}', '2.0', pick(draw, ('1.0', '46', '180.0')), f'A/{words(draw)}.mp4'])
    fault = fault_of(draw, (*HAD_CELLS, *HAD_CELLS, 'a row twice', 'after the run', 'a wrong beginning', *SHAPES))
    row, seconds = draw(st.integers(0, n - 1)), 12.0 + 4 * n
    if fault in HAD_CELLS: rows[row][header.index(fault)] = pick(draw, HAD_CELLS[fault])
    if fault == 'a row twice': rows.append(rows[row])
    if fault == 'after the run': seconds = 12.0 + 4 * (n - 1)
    if fault == 'a wrong beginning': rows = [[f'{9 + 4 * k}', *r[1:]] for k, r in enumerate(rows)]
    want = []
    if not fault: want = [EventRow(float(r[0]) + shift, 2.0, int(float(r[2])), r[3], k) for k, r in enumerate(rows, 1)]
    head, cells = shuffled(draw, header, rows)
    if fault in SHAPES: spoil(draw, path, head, cells, fault, pick(draw, header))
    else: write(draw, path, head, cells)
    field = fault if fault in HAD_CELLS else ''
    return Example(lambda: read_events(path, seconds), path.name, (want, shift), fault, field)


CONFOUND_FAULTS = ('a word for motion', 'a word for drift', 'n/a later', 'rows of another run', 'too many moved')
CONFOUND_FAULTS += ('old names', 'no derivatives', 'a motion parameter is missing')


@family('confounds.tsv')
def confounds(draw, folder):
    path, T = folder / 'sub-01_task-action_desc-confounds_timeseries.tsv', 40
    rng = rng_of(draw)
    header = [*MOTION, *(f'{m}_derivative1' for m in MOTION), 'cosine00', 'framewise_displacement']
    values = rng.uniform(-0.2, 0.2, (T, len(header))).round(6)
    values[:, -1] = abs(values[:, -1])
    cells = [[f'{v}' for v in row] for row in values]
    for k in range(6, 12): cells[0][k] = 'n/a'
    cells[0][-1] = pick(draw, ('n/a', '0.0'))
    fault = fault_of(draw, (*CONFOUND_FAULTS, *SHAPES))
    n, row = T, draw(st.integers(1, T - 1))
    word = pick(draw, NO_NUMBERS)
    if fault == 'a word for motion': cells[row][draw(st.integers(0, 5))] = word
    if fault == 'a word for drift': cells[row][12] = word
    if fault == 'n/a later': cells[row][draw(st.integers(6, 11))] = pick(draw, ('n/a', ''))
    if fault == 'rows of another run': n = T + pick(draw, (-1, 1, 7))
    if fault == 'too many moved':
        for r in cells[1:30]: r[-1] = '3.5'
    if fault == 'old names': header[0] = 'RotX'
    if fault == 'no derivatives': header = [h.replace('_derivative1', '_power2') for h in header]
    if fault == 'a motion parameter is missing': header[draw(st.integers(0, 5))] = 'other'
    head, rows = shuffled(draw, header, cells)
    if fault in SHAPES: spoil(draw, path, head, rows, fault, pick(draw, [*MOTION, 'cosine00']))
    else: write(draw, path, head, rows)
    if fault == 'a column is missing' and 'cosine00s' in path.read_text(): fault = ''

    def read():
        found = read_confounds(path, n)
        return bool(np.allclose(found[MOTION], values[:, :6], atol=1e-9)), len(found), found.isna().sum().sum() == 0

    return Example(read, path.name, (True, T, True), fault)


@family('any table')
def any_table(draw, folder):
    path = folder / 'any.tsv'
    names = draw(st.lists(st.sampled_from(WORDS), min_size=2, max_size=4, unique=True))
    numbers = draw(st.lists(st.floats(-1e9, 1e9, allow_nan=False), min_size=1, max_size=5))
    rows = [[repr(value), *[words(draw) for _ in names[1:]]] for value in numbers]
    fault = fault_of(draw, ('a word', *(shape for shape in SHAPES if shape != 'no rows')))
    if fault == 'a word': rows[draw(st.integers(0, len(rows) - 1))][0] = pick(draw, NO_NUMBERS)
    if fault in SHAPES: spoil(draw, path, names, rows, fault, pick(draw, names))
    else: write(draw, path, names, rows)

    def read():
        found = read_table(path, numeric=names[:1], text=names[1:])
        return found[names[0]].tolist(), found[names[1:]].to_numpy().tolist()

    return Example(read, path.name, (numbers, [r[1:] for r in rows]), fault)


HUMAN = ('one caption', 'two clips', 'no caption', 'no clip', 'a field more', 'a quote', 'a line break', 'no column')
HUMAN += ('empty', 'missing', 'noise', 'latin-1', 'utf-16', 'a folder', 'a zero byte')


@family('captions of people, CSV')
def human(draw, folder):
    path = folder / 'captions.csv'
    clips = [f'clip{k}' for k in range(draw(st.integers(3, 5)))]
    rows = [[clip, f'{words(draw)}, {words(draw)}'] for clip in clips for _ in range(2)]
    fault = fault_of(draw, HUMAN)
    if fault == 'one caption': rows.pop()
    if fault == 'two clips': rows = rows[:4]
    if fault == 'no caption': rows[1][1] = pick(draw, ('', ' '))
    if fault == 'no clip': rows[1][0] = ''
    if fault == 'a line break': rows[1][1] = 'a\nb'
    if fault == 'a field more': rows[1].append('x')
    text = io.StringIO()
    csv.writer(text).writerows([['video_id', 'text' if fault == 'no column' else 'description'], *rows])
    made = text.getvalue()
    if fault == 'a quote': made = made.replace('clip0', '"clip0', 1)
    if fault == 'a zero byte': made = made.replace('clip1', 'clip\0', 1)
    coding = {'latin-1': 'latin-1', 'utf-16': 'utf-16'}.get(fault, pick(draw, ('utf-8', 'utf-8-sig')))
    path.write_bytes((made + 'clip0,é,\r\n' * (fault == 'latin-1')).encode(coding, 'replace'))
    if fault in damage.WHOLLY: damage.replace(draw, path, fault)
    want = {clip: [r[1] for r in rows if r[0] == clip] for clip in clips}
    return Example(lambda: read_human_captions(path), path.name, want, fault)


@family('attributes of Haxby')
def attributes(draw, folder):
    name, run = pick(draw, ('rest', 'face', 'shoe')), draw(st.integers(0, 11))
    fault = fault_of(draw, ('unknown', 'no run', 'a word', 'negative', 'a digit of another script', 'nothing'))
    lines = {
        'unknown': f'dragon {run}',
        'no run': name,
        'a word': f'{name} x',
        'negative': f'{name} -1',
        'a digit of another script': f'{name} ²',
        'nothing': '',
    }
    line = lines.get(fault, f'{name} {run}')
    return Example(lambda: read_attribute(line, 'attributes_literal.txt, line 3'), 'line 3', (name, run + 1), fault)
