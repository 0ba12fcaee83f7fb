"Text files: captions, answers and questions in JSON Lines, sidecars, manifests, what a run left."

import hashlib
import json
from hypothesis import strategies as st
from brainllm.captions import read_captions
from brainllm.core import read_jsonl
from brainllm.datasets.bids import find_runs
from brainllm.store import kept_json, made_by, read_manifest, Store
from brainllm.video.answers import AnswerFile, read_questions, read_setting
from . import damage, Example, family, fault_of, pick
from .tables import words

LINES = ('a torn line', 'no object', 'a field twice', 'no JSON', 'half a character', 'deep', 'latin-1', 'utf-16')
LINES += ('a zero byte', 'numbers without end', 'empty', 'a page', 'missing', 'a dangling link', 'a folder')


def write(draw, path, rows):
    text = pick(draw, ('\n', '\r\n', '\n\n')).join(json.dumps(row, ensure_ascii=pick(draw, (True, False))) for row in rows)
    path.write_bytes((pick(draw, ('', '', '\ufeff')) + text + pick(draw, ('', '\n'))).encode())


def spoil(draw, path, rows, fault):
    at = draw(st.integers(0, len(rows) - 1))
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    odd = {
        'a torn line': lines[at][: draw(st.integers(1, len(lines[at]) - 1))],
        'no object': pick(draw, ('[1, 2]', '"words"', '7', 'null', 'true', 'NaN')),
        'a field twice': lines[at][:-1] + ', ' + lines[at][1:],
        'no JSON': pick(draw, ("{'clip': 1}", '{clip: 1}', '{} {}', lines[at] + ',', '// words')),
        'half a character': lines[at][:-1] + r', "more": "\ud83d"}',
        'deep': '{"a": ' * 100_000,
        'a zero byte': lines[at].replace(' ', '\0', 1),
        'numbers without end': '{"clip": ' + '9' * 5000 + '}',
    }
    lines[at] = odd.get(fault, lines[at])
    if fault == 'latin-1': lines[at] += ' é'
    path.write_bytes('\n'.join(lines).encode(fault if fault in ('latin-1', 'utf-16') else 'utf-8', 'replace'))
    if fault in damage.WHOLLY: damage.replace(draw, path, fault)


NO_TEXT = (None, 7, '', ' ', [], {}, True, ['a'])


@family('captions, JSON Lines')
def captions(draw, folder):
    path = folder / 'captions.jsonl'
    rows = [dict(clip=f'{k}{words(draw)}.mp4', caption=words(draw)) for k in range(draw(st.integers(1, 5)))]
    if pick(draw, (True, False)): rows[0]['answers'] = {'Who?': words(draw)}
    fault = fault_of(draw, ('clip', 'caption', 'clip', 'caption', 'answers', 'a clip twice', 'a field is missing', *LINES))
    if fault in ('clip', 'caption'): rows[-1][fault] = pick(draw, NO_TEXT)
    if fault == 'answers': rows[-1][fault] = pick(draw, ([], 'x', 7, {'Who?': 7}, {'Who?': ''}, {'Who?': None}))
    if fault == 'a clip twice': rows.append(dict(clip=rows[0]['clip'], caption='another'))
    if fault == 'a field is missing': del rows[-1][pick(draw, ('clip', 'caption'))]
    if fault in LINES: spoil(draw, path, rows, fault)
    else: write(draw, path, rows)
    field = fault if fault in ('clip', 'caption', 'answers') else ''
    return Example(lambda: read_captions(path), path.name, rows, fault, field)


@family('results, JSON Lines')
def results(draw, folder):
    path = folder / 'texts.jsonl'
    rows = [dict(clip=words(draw), text=words(draw), score=pick(draw, (1, 0.5, None))) for _ in range(draw(st.integers(1, 4)))]
    fault = fault_of(draw, [line for line in LINES if line != 'empty'])  # a run that wrote nothing has no rows
    if fault: spoil(draw, path, rows, fault)
    else: write(draw, path, rows)
    return Example(lambda: read_jsonl(path), path.name, rows, fault)


TEACHER = dict(name='made', words=3)
ANSWERS = ('another teacher', 'no teacher', 'a row twice', 'a field is missing', 'a number', 'somebody else\'s words')


@family('answers, JSON Lines')
def answers(draw, folder):
    path = folder / 'answers.jsonl'
    keys = [(f'{k}.mp4', words(draw)) for k in range(draw(st.integers(1, 4)))]
    rows = []
    for clip, question in keys:
        rows.append(dict(answer=words(draw), clip=clip, clip_sha256='ab', question=question, teacher=TEACHER, commit='c'))
    fault = fault_of(draw, (*ANSWERS, *(line for line in LINES if line not in ('empty', 'missing', 'a dangling link'))))
    at = draw(st.integers(0, len(rows) - 1))
    if fault == 'another teacher': rows[at]['teacher'] = pick(draw, (dict(TEACHER, words=4), dict(TEACHER, more=1), {}))
    if fault == 'no teacher': rows[at]['teacher'] = pick(draw, (None, 7, [], 'made'))
    if fault == 'a row twice': rows.append(rows[at])
    if fault == 'a field is missing': del rows[at][pick(draw, ('answer', 'clip', 'clip_sha256', 'question', 'teacher'))]
    if fault == 'a number': rows[at][pick(draw, ('answer', 'clip', 'question'))] = pick(draw, (7, None, [], {}))
    want = {(row.get('clip'), row.get('question')): row for row in rows} if not fault else None
    if fault in LINES: spoil(draw, path, rows, fault)
    else: path.write_text(''.join(json.dumps(row, sort_keys=True) + '\n' for row in rows))
    if path.is_file():
        torn = pick(draw, ('', '{"answer": "ha', '{"an')) if not fault else '\n'
        if fault == "somebody else's words": torn = 'my notes'
        with path.open('a') as f: f.write(torn)

    def read():
        with AnswerFile(path, TEACHER) as file: return file.rows

    return Example(read, path.name, want, fault, writes=not fault)


@family('questions')
def questions(draw, folder):
    path = folder / pick(draw, ('ask.txt', 'ask.jsonl'))
    asked = [f'{k} {words(draw)}?' for k in range(draw(st.integers(1, 4)))]
    lines = path.suffix == '.jsonl'
    rows = [dict(question=q) | (dict(clip='a.mp4') if pick(draw, (True, False)) else {}) for q in asked]
    faults = ('asked twice', 'no question', 'latin-1', 'utf-16', 'empty', 'missing', 'a dangling link', 'a folder')
    fault = fault_of(draw, (*faults, 'a number', 'a clip that is a number', *LINES[:3]))
    if not lines and fault in ('a number', 'a clip that is a number', 'no question', *LINES[:3]): fault = ''
    want = [(row.get('clip') if lines else None, row['question'].strip()) for row in rows]
    if fault == 'asked twice': rows.append(rows[0])
    if fault == 'no question': rows[-1] = pick(draw, (dict(question=''), dict(question=' '), {}, dict(ask='x')))
    if fault == 'a number': rows[-1] = dict(question=7)
    if fault == 'a clip that is a number': rows[-1]['clip'] = pick(draw, (7, [], True))
    if fault in LINES and lines: spoil(draw, path, rows, fault)
    elif lines: write(draw, path, rows)
    else: path.write_text('\n'.join(row['question'] for row in rows) + '\n')
    if fault in ('latin-1', 'utf-16') and not lines: path.write_bytes('Où?\n'.encode(fault))
    if fault in damage.WHOLLY and not (lines and fault in LINES): damage.replace(draw, path, fault)
    return Example(lambda: read_questions(path), path.name, want, fault)


HUGE = 10**400
SIDECAR = {
    'RepetitionTime': (None, 0, -2, 'two', [2], {}, True, False, float('nan'), float('inf'), HUGE, 2000, 1e-9, '2'),
    'StartTime': (-1, 'x', [], True, False, float('nan'), float('inf'), HUGE, 1e9),
    'Space': (7, 0, [], {}, True, False, ['MNI']),
}


@family('sidecar, JSON')
def sidecar(draw, folder):
    stem = folder / 'derivatives' / 'sub-01' / 'func' / 'sub-01_task-action_run-2_desc-preproc_bold'
    stem.parent.mkdir(parents=True)
    path = stem.with_name(f'{stem.name}.json')
    said = dict(RepetitionTime=pick(draw, (2, 2.0, 0.8, 1.5)))
    if pick(draw, (True, False)): said['StartTime'] = pick(draw, (0, 0.5, 1.0))
    if pick(draw, (True, False)): said['Space'] = 'MNI152NLin6Asym'
    if pick(draw, (True, False)): said['Other'] = pick(draw, (float('nan'), 'words', None, [1], HUGE))
    fault = fault_of(draw, (*SIDECAR, *SIDECAR, *(line for line in LINES if line not in ('missing', 'a dangling link'))))
    fault = '' if fault == 'a folder' else fault
    want = [(float(said['RepetitionTime']), float(said.get('StartTime', 0)), said.get('Space', ''))]
    if fault in SIDECAR: said[fault] = pick(draw, SIDECAR[fault])
    if fault == 'StartTime' and said[fault] is None: fault = ''
    if fault in LINES: spoil(draw, path, [said], fault)
    else: path.write_text(pick(draw, ('', '\ufeff')) + json.dumps(said, indent=pick(draw, (None, 2))))

    def read(): return [(run.tr, run.start, run.space) for _, _, run in find_runs(folder / 'derivatives', '01', 'action', folder)]

    return Example(read, path.name, want, fault, fault if fault in SIDECAR else '')


MANIFEST = {
    'files': (None, [], 'x', 7, {'a.txt': None}, {'a.txt': 7}, {'a.txt': '0' * 64}, {'b.txt': '0' * 64}, {'..': 'x'}),
    'seconds': (None, 'x', [], {}, True, float('nan')),
    'commit': (None, 7, [], {}),
    'peak_gb': (None, 'x', [], {}, float('nan')),
}


@family('manifest of an artifact')
def manifest(draw, folder):
    store = Store(folder)
    path = folder / 'made-1'
    path.mkdir()
    (path / 'a.txt').write_text('words')
    made = dict(name='made', inputs={}, files={'a.txt': hashlib.sha256(b'words').hexdigest()})
    made |= dict(seconds=1.5, commit='abc', peak_gb=0.5)
    lines = [line for line in LINES if line not in ('a folder',)]
    fault = fault_of(draw, (*MANIFEST, *MANIFEST, 'a changed file', 'a lost file', 'a field is missing', *lines))
    if fault in MANIFEST: made[fault] = pick(draw, MANIFEST[fault])
    if fault == 'a field is missing': del made[pick(draw, MANIFEST)]
    if fault == 'a changed file': (path / 'a.txt').write_text('other')
    if fault == 'a lost file': (path / 'a.txt').unlink()
    if fault in LINES: spoil(draw, path / 'manifest.json', [made], fault)
    else: (path / 'manifest.json').write_text(json.dumps(made))

    def read():
        store.verify(path)
        return made_by([path]), read_manifest(path)['name']

    want = (dict(seconds=1.5, trained_at=['abc'], peak_gb=0.5), 'made')
    return Example(read, path.name, want, fault, fault if fault in ('seconds', 'commit', 'peak_gb') else '')


@family('result of a run, JSON')
def kept(draw, folder):
    path = folder / 'mine' / 'ablation.json'
    path.parent.mkdir()
    made = dict(preset='mine', rows=[dict(name=words(draw), score=0.5)])
    fault = fault_of(draw, [line for line in LINES if line not in ('missing', 'a dangling link', 'a folder')])
    if fault: spoil(draw, path, [made], fault)
    else: path.write_text(json.dumps(made))
    return Example(lambda: kept_json('ablation', 'mine', folder), path.name, made, fault)


@family('settings of a teacher')
def setting(draw, folder):
    value = pick(draw, ('56', '"x"', '[1, 2]', 'words', '1e3', 'null', 'a=b', '{"a": 1}'))
    fault = fault_of(draw, ('no name', 'no value', 'a name that is none', 'no sign', 'numbers without end', 'deep'))
    odd = {'no name': f'={value}', 'no value': 'size=', 'a name that is none': f'a-b={value}', 'no sign': 'size'}
    odd |= {'numbers without end': 'size=' + '9' * 5000, 'deep': 'size=' + '[' * 100_000}
    text = odd.get(fault, f'size={value}')
    either = fault in ('numbers without end', 'deep')

    def want():
        try: return json.loads(value)
        except ValueError: return value

    return Example(lambda: read_setting(text), text[:20], ('size', want()), fault, either=either)
