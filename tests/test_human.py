"What one person's caption gets against another's: a made file, every way it can be wrong, and scores that are known."

import json, logging
from pathlib import Path
import numpy as np, pytest
from brainllm.core import DataError, NOTES
from brainllm.evaluate.human import caption_counts, draw_pairs, HUMAN_ROWS, human_ceiling, human_table
from brainllm.evaluate.human import read_human_captions, score_meaning, score_words
from brainllm.evaluate.scores import embed_text, rouge_l, score_text, text_similarity
from brainllm.evaluate.identify import identification
from brainllm.paper import TABLES
from brainllm.table import COLUMNS

ROOT = Path(__file__).resolve().parent.parent
HEADER = 'video_id,description'
DEEDS = (
    *('runs along the beach', 'fries three eggs', 'climbs up a rope', 'plays a red guitar', 'washes an old car'),
    *('falls off a horse', 'paints a tall fence', 'opens a birthday gift'),
)
SAID = {
    f'c{k}': [f'A woman {deed}.', f'Somebody, a lady, {deed}.', f'The person {deed} slowly.', f'She {deed}']
    for k, deed in enumerate(DEEDS)
}
QUICK = dict(draws=2, word_draws=3, samples=200)


def write(path, said, header=HEADER, encoding='utf-8-sig'):
    rows = [f'{clip},"{text}"' for clip, texts in said.items() for text in texts]
    path.write_bytes('\r\n'.join([header, *rows]).encode(encoding))
    return path


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / 'said.csv', SAID)


@pytest.fixture(scope='module')
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp('human')
    return human_ceiling(write(out / 'said.csv', SAID), out=out, **QUICK), out


# The reader


def test_what_is_written_is_read(file, tmp_path):
    assert read_human_captions(file) == SAID
    assert read_human_captions(write(tmp_path / 'plain.csv', SAID, encoding='utf-8')) == SAID
    rows = [f'"{text}",7,{clip}' for clip, texts in SAID.items() for text in texts]
    other = tmp_path / 'other.csv'
    other.write_text('\n'.join(['description,rating,video_id', *rows, '', '']))
    assert read_human_captions(other) == SAID, 'another order of columns, one more of them, blank lines at the end'


def test_rows_of_a_clip_need_not_stand_together(tmp_path):
    rows = [f'{clip},"{texts[k]}"' for k in range(4) for clip, texts in SAID.items()]
    file = tmp_path / 'mixed.csv'
    file.write_text('\n'.join([HEADER, *rows]))
    assert read_human_captions(file) == SAID


def test_the_same_words_twice_are_kept_and_counted(tmp_path):
    said = SAID | {'c0': ['A dog.', 'A dog.', 'A dog.', 'A cat.'], 'c1': ['A dog.', 'Eggs.']}
    found = read_human_captions(write(tmp_path / 'twice.csv', said))
    assert found == said
    counts = caption_counts(found)
    assert counts['repeated'] == 2 and counts['shared'] == 1
    assert (counts['clips'], counts['captions'], counts['fewest'], counts['most']) == (8, 30, 2, 4)


LINES = '\n'.join(f'c{k},"A man {deed}."\nc{k},"Someone {deed}."' for k, deed in enumerate(DEEDS))
WRONG = dict(
    column=(f'video_id,text\n{LINES}', r'line 1: found columns video_id, text, wanted .*no description'),
    no_header=(LINES, r'line 1: found columns c0, .*no video_id and no description'),
    empty_file=('', 'line 1: found columns none'),
    no_rows=(HEADER, 'captions of 0 clips, wanted three or more'),
    one_clip=(f'{HEADER}\na,x\na,y', 'captions of 1 clips, wanted three or more'),
    alone=(f'{HEADER}\n{LINES}\nlast,"A man."', r'1 clips with one caption \(last\), wanted two or more'),
    empty=(f'{HEADER}\nc0,""\n{LINES}', 'line 2, description: found an empty caption of clip c0'),
    blank=(f'{HEADER}\nc0,"  "\n{LINES}', 'line 2, description: found an empty caption of clip c0'),
    nameless=(f'{HEADER}\n,"A man."\n{LINES}', 'line 2, video_id: found nothing'),
    comma=(f'{HEADER}\nc0,A man, at last.\n{LINES}', 'line 2: found 3 cells, wanted 2; a caption with a comma'),
    short=(f'{HEADER}\n{LINES}\nc7', 'line 18: found 1 cells, wanted 2'),
    cut=(f'{HEADER}\n{LINES[:-2]}', r'line 17: not CSV \(unexpected end of data\); a quote is not closed'),
    open_quote=(f'{HEADER}\nc0,"A man\n{LINES}', r'line 3: not CSV .*a quote is not closed'),
    swallowed=(f'{HEADER}\nc0,"A man\nc0,runs"\n{LINES}', 'line 3, description: found a line break'),
)


@pytest.mark.parametrize('case', WRONG)
def test_a_wrong_file_is_refused_in_plain_words(tmp_path, case):
    text, said = WRONG[case]
    file = tmp_path / 'wrong.csv'
    file.write_text(text)
    with pytest.raises(DataError, match=f'wrong.csv.*{said}'): read_human_captions(file)


def test_other_bytes_and_no_file_are_refused(tmp_path):
    said = SAID | {'c0': ['A café.', 'A bar.']}
    with pytest.raises(DataError, match='latin.csv: not UTF-8 from byte'):
        read_human_captions(write(tmp_path / 'latin.csv', said, encoding='latin-1'))
    with pytest.raises(DataError, match='utf16.csv: not UTF-8 from byte 0'):
        read_human_captions(write(tmp_path / 'utf16.csv', said, encoding='utf-16'))
    with pytest.raises(DataError, match='none.csv: found no such file'): read_human_captions(tmp_path / 'none.csv')
    with pytest.raises(DataError, match='draws: found 0'): human_ceiling(write(tmp_path / 'x.csv', SAID), draws=0)


# Pairs


def test_pairs_are_of_two_people_and_of_two_clips():
    clips = list(SAID.values())
    for k in range(50):
        draw = draw_pairs(SAID, [3, k])
        for i, texts in enumerate(clips):
            assert draw.first[i] in texts and draw.second[i] in texts and draw.first[i] != draw.second[i]
            assert draw.first[i] not in draw.rest[i] and len(draw.rest[i]) == 3 and draw.second[i] in draw.rest[i]
            assert draw.elsewhere()[i] in clips[draw.other[i]]
        assert sorted(draw.other) == list(range(8)) and (draw.other != np.arange(8)).all()


def test_pairs_follow_the_seed_and_are_even():
    a, b, c = (draw_pairs(SAID, seed) for seed in ([0, 1], [0, 1], [1, 1]))
    assert a.first == b.first and a.second == b.second and (a.other == b.other).all()
    assert a.first != c.first
    others = np.array([draw_pairs(SAID, [0, k]).other[0] for k in range(1400)])
    firsts = [SAID['c0'].index(draw_pairs(SAID, [0, k]).first[0]) for k in range(1400)]
    assert np.bincount(others, minlength=8)[0] == 0 and abs(np.bincount(others)[1:] / 200 - 1).max() < 0.25
    assert abs(np.bincount(firsts) / 350 - 1).max() < 0.25


# Scores


def test_scores_are_those_of_the_tables():
    draw, once = draw_pairs(SAID, [0, 0]), np.ones((1, 8), int)
    words, meaning = score_words(draw, once), score_meaning(draw, once)
    for kind, refs in (('same', draw.second), ('other', draw.elsewhere())):
        plain = score_text(draw.first, refs, metrics=list(COLUMNS))
        for name in COLUMNS:
            found = (words[kind] | meaning[kind])[name][0]
            assert found == pytest.approx(plain[name]['mean'], abs=1e-4), (kind, name)
    alike = text_similarity(draw.first, draw.second)
    assert meaning['same']['two_way'][0] == pytest.approx(100 * identification(alike))
    vectors = embed_text(draw.first), embed_text(draw.elsewhere())
    assert meaning['other']['similarity'][0] == pytest.approx(100 * (vectors[0] * vectors[1]).sum(1).mean(), abs=1e-3)
    best = [rouge_l([h] * 3, rest)[:, 2].max() for h, rest in zip(draw.first, draw.rest, strict=True)]
    assert words['same']['best_rouge'][0] == pytest.approx(np.mean(best))


def test_a_sample_counts_clips_and_pairs_of_them():
    draw = draw_pairs(SAID, [0, 0])
    twice = np.array([[1] * 8, [2, 1, 0, 1, 1, 1, 1, 1]])
    found = score_words(draw, twice)
    items = np.array(score_text(draw.first, draw.second, metrics=['rougeL_f'])['rougeL_f']['items'])
    assert found['same']['rougeL_f'][1] == pytest.approx((items * twice[1]).sum() / 8)
    items = np.array(score_text(draw.first, draw.elsewhere(), metrics=['rougeL_f'])['rougeL_f']['items'])
    both = twice[1] * twice[1][draw.other]
    assert found['other']['rougeL_f'][1] == pytest.approx((items * both).sum() / both.sum())


def test_identical_captions_get_all(tmp_path):
    said = {clip: [texts[0]] * 3 for clip, texts in SAID.items()}
    found = human_ceiling(write(tmp_path / 'same.csv', said), out=tmp_path, **QUICK)
    same = found['scores']['same']
    for name in (*COLUMNS, 'similarity', 'two_way', 'best_rouge'):
        assert same[name]['value'] == pytest.approx(100, abs=1e-3), name
        assert same[name]['low'] == pytest.approx(100, abs=1e-3)
    assert found['counts']['repeated'] == 16
    assert all(found['scores']['other'][name]['value'] < 80 for name in (*COLUMNS, 'similarity', 'best_rouge'))


def test_another_clip_gets_less(result):
    scores = result[0]['scores']
    for name in (*COLUMNS, 'similarity', 'best_rouge'):
        same, other, apart = (scores[kind][name] for kind in HUMAN_ROWS)
        assert other['value'] < same['value'] < 100
        assert apart['value'] == pytest.approx(same['value'] - other['value'])
        assert apart['low'] > 0, name
        assert all(s['low'] <= s['value'] <= s['high'] for s in (same, other, apart))
    assert scores['same']['best_rouge']['value'] >= scores['same']['rougeL_f']['value']
    assert scores['same']['two_way']['value'] > 90 and set(scores['same']) - set(scores['other']) == {'two_way'}
    assert scores['same']['bertscore_f']['draws'] == 2 and scores['same']['bleu1']['draws'] == 3


# The result


def no_text_of(said, kept):
    words = {word.strip('.,').lower() for texts in said.values() for text in texts for word in text.split()}
    rare = {word for word in words if len(word) > 5}
    assert rare and not [text for texts in said.values() for text in texts if text in kept]
    assert not [word for word in rare if f'{word} ' in kept.lower().replace('"', ' ')]


def test_the_result_says_where_it_comes_from_and_no_caption(result):
    found, out = result
    kept = (out / 'human-captions.json').read_text()
    assert json.loads(kept) == found
    no_text_of(SAID, kept)
    for file in (out / 'human-captions').rglob('*'):
        if file.is_file(): no_text_of(SAID, file.read_text())
    assert {'preset', 'seed', 'commit', 'dirty', 'versions', 'signature', 'counts', 'sha256', 'draws'} <= set(found)
    assert found['preset'] == 'human-captions' and found['seed'] == 0 and found['file'] == 'said.csv'
    assert 'not redistributed' in found['source']['licence'] and 'none stated' in found['source']['licence']
    assert 'Horikawa' in found['source']['cite'][0] and 'Keltner' in found['source']['cite'][1]
    assert str(out) not in kept


def test_seeded(file, tmp_path, result):
    again = human_ceiling(file, out=tmp_path / 'a', **QUICK)
    assert again['scores'] == result[0]['scores']
    other = human_ceiling(file, seed=1, out=tmp_path / 'a', **QUICK)
    assert other['scores'] != again['scores'] and other['seed'] == 1


def test_what_was_scored_is_kept(file, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(NOTES, 'propagate', True)  # a command that ran before has turned it off
    caplog.set_level(logging.INFO, 'brainllm')
    first = human_ceiling(file, out=tmp_path, **QUICK)
    assert 'built' in caplog.text and 'reused' not in caplog.text
    assert human_ceiling(file, out=tmp_path, **QUICK) == first
    assert 'reused' in caplog.text
    write(file, SAID | {'c9': ['A bird sings.', 'A bird.']})
    assert human_ceiling(file, out=tmp_path, **QUICK)['counts']['clips'] == 9


def test_table(result):
    found = human_table(result[0])
    assert found.header[1:7] == tuple(COLUMNS.values()) and found.header[-1] == '2-way'
    assert [row[0] for row in found.rows][:3] == list(HUMAN_ROWS.values()) and len(found.rows) == 5
    value = result[0]['scores']['same']['bleu1']
    assert found.rows[0][2] == f"{value['value']:.1f} ({value['low']:.1f} to {value['high']:.1f})"
    assert found.rows[3][4] and found.rows[3][1] is None
    with_paper = human_table(result[0], paper=True).rows[5:]
    assert [row[1] for row in with_paper] == [f"{t.total()['bertscore_f']:.1f}" for t in TABLES.values()]


def test_what_is_kept_of_the_real_captions():
    kept = json.loads((ROOT / 'data/results/human-captions.json').read_text())
    assert kept['counts']['clips'] == 2196 and kept['counts']['captions'] == 43920 and not kept['dirty']
    about = 'preset simulated source counts intervals file sha256 signature commit dirty versions'
    assert set(kept) == {*about.split(), 'seed', 'draws', 'word_draws', 'samples', 'scores'}
    found = kept['scores']
    assert all(found['difference'][name]['low'] > 0 for name in (*COLUMNS, 'similarity', 'best_rouge'))
    assert all(s['spread'] < 1 for kind in found.values() for s in kind.values()), 'draws enough'
