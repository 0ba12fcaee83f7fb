"A browser of trials: what it shows, that its filters filter, in Python and in Chromium, and that strangers' texts stay text."

import base64
import io
import json
import numpy as np
import pytest
from pathlib import Path
from PIL import Image
from chromium import find_chromium
from test_pages import AXE, FAULTS, LOOKS, axe_source, browser, settle, unless_silent  # noqa: F401
from brainllm.core import DataError, read_json, read_jsonl
from brainllm.data.trials import Trial
from brainllm.simulate.films import write_mp4
from brainllm.evaluate.browser import Brains, Films, browser_html, drawn_films, film_places, gather_trials
from brainllm.evaluate.browser import study_brains, study_films
from brainllm.evaluate.moments import even_steps
from brainllm.evaluate.result import Result
from brainllm.stages import open_experiment

DATA = Path(__file__).resolve().parent.parent / 'data'
FIELDS = dict(preset='invented', seed=0, simulated=True, question='What happens?')
HOSTILE = '</dd></script><script>window.hurt = 1</script><img src=x onerror="window.hurt = 1">\'&amp;'
SHOWN = "[...document.querySelectorAll('.trial:not([hidden])')].map(card => Number(card.dataset.rank))"
needs_chromium = pytest.mark.skipif(find_chromium() is None, reason='no Chromium to look at pages with')


def texts_of(n=30):
    "Of three people, some of them wrong by a word and some by all."
    said = ('A man runs at home.', 'A man sings at home.', 'Nothing of the kind.', 'A man sits at home at night.')
    rows = [dict(subject=f'{k % 3:02d}', run=1, onset=4.0 * k, clip=f'{k}.mp4', brain=said[k % 4]) for k in range(n)]
    return [
        r | dict(question=FIELDS['question'], caption='A man runs at home.', no_brain='The sky.', ridge='A man.')
        for r in rows
    ]


def films_of(n=30):
    frames = np.random.default_rng(0).integers(0, 255, (n, 3, 16, 16, 3), np.uint8)
    return Films({f'{k}.mp4': ('walk', 'sit')[k % 2] for k in range(n)}, lambda clip: frames[int(clip[:-4])])


def trials_of(n=30, **given):
    return gather_trials(Result(FIELDS, texts_of(n)), n=None, **given)


def test_a_hostile_text_is_text():
    for field in ('caption', 'brain', 'no_brain', 'ridge', 'subject', 'run', 'clip'):
        texts = texts_of(3)
        texts[1][field] = HOSTILE
        films = Films({t['clip']: HOSTILE for t in texts}, films_of().frames)
        fields = FIELDS | dict(preset=HOSTILE)
        trials = gather_trials(Result(fields, texts), films, n=None)
        trials._strips.update({t['clip']: '' for t in texts})
        shown = browser_html(trials)
        assert shown.count('<script') == 1 and '<img' not in shown and '</dd></script' not in shown, field
        assert shown.count('&lt;script&gt;window.hurt') >= 2, field


def test_filters_filter():
    trials = trials_of(films=films_of())
    assert trials.options('person') == {'00': 10, '01': 10, '02': 10} and trials.options('kind') == dict(
        sit=15, walk=15
    )
    for person in ('', '01'):
        for kind in ('', 'sit'):
            for wrong in ('', *trials.options('wrong')):
                kept = trials.select(person, kind, wrong)
                expected = [
                    r
                    for r in trials.rows
                    if person in ('', r['person']) and kind in ('', r['kind']) and wrong in ('', r['wrong'])
                ]
                assert kept == expected
    assert 0 < len(trials.select(wrong='ROUGE-L F 75 to 100')) < 30
    assert all(r['said']['brain'] == 'Nothing of the kind.' for r in trials.select(wrong='ROUGE-L F 0 to 25'))
    assert not trials.select(person='nobody')


def test_even_steps_are_taken_and_not_the_best():
    some = gather_trials(Result(FIELDS, texts_of()), n=7)
    assert [r['where'] for r in some.rows] == [r['where'] for r in even_steps(trials_of().rows, 7)]


def test_without_frames_it_still_browses():
    def torn(clip):
        raise DataError(f'{clip}: cut short')

    for films in (None, Films({}, torn), Films({f'{k}.mp4': 'walk' for k in range(30)}, torn)):
        shown = browser_html(trials_of(films=films))
        assert shown.count('class="trial"') == 30 and '<img' not in shown
    assert browser_html(trials_of(films=films_of())).count('alt="3 frames of the film: A man runs at home."') == 30


def test_nothing_to_browse_is_said():
    for empty, why in (
        (Result(FIELDS), 'no decoded texts'),
        (dict(FIELDS), 'no decoded texts'),
        (Result(FIELDS, [dict(question='another')]), 'none answers the question'),
        (Result(FIELDS, [texts_of(1)[0] | dict(brain=None)]), 'brain: found None'),
        (Result(FIELDS, [{k: v for k, v in texts_of(1)[0].items() if k != 'caption'}]), 'caption: found nothing'),
    ):
        with pytest.raises(DataError, match=why):
            gather_trials(empty)


def test_films_are_drawn_as_they_were_shown():
    from PIL import Image

    result = Result(read_json(DATA / 'results/sim-had.json'), read_jsonl(DATA / 'texts/sim-had.jsonl'))
    films, clips = drawn_films(result), {t['caption']: t['clip'] for t in result.texts}
    assert len(result.texts) == result['trials'] and set(clips.values()) <= set(films.kinds)
    kept = json.loads((DATA / 'moments/sim-had.json').read_text())['rows'][:2]
    watched = [Image.open(io.BytesIO(base64.b64decode(row['frame']))).resize((64, 64)) for row in kept]
    drawn = [Image.fromarray(films.frames(clips[row['caption']])[1]).resize((64, 64)) for row in kept]
    apart = [[np.abs(np.asarray(a, float) - np.asarray(b, float)).mean() for b in drawn] for a in watched]
    assert max(apart[0][0], apart[1][1]) < min(apart[0][1], apart[1][0]) / 3
    with pytest.raises(DataError, match='not drawn by code'):
        drawn_films(read_json(DATA / 'results/sim-urgen.json'))


def test_films_on_disk_are_read_and_torn_ones_left_out(tmp_path):
    from types import SimpleNamespace

    shades = np.repeat(np.arange(0, 240, 20, np.uint8), 64 * 64 * 3).reshape(
        12, 64, 64, 3
    )  # a film that grows brighter
    write_mp4(tmp_path / '0.mp4', shades)
    (tmp_path / '1.mp4').write_bytes((tmp_path / '0.mp4').read_bytes()[:200])
    trials = [Trial('01', 1, 0.0, 2.0, f'{k}.mp4', 1, 'walk') for k in range(2)]
    study = SimpleNamespace(trials=lambda: trials, clip_path=lambda trial: tmp_path / trial.clip)
    films = study_films(study)
    assert films.kinds == {'0.mp4': 'walk', '1.mp4': 'walk'}
    assert np.allclose(films.frames('0.mp4').mean((1, 2, 3)), shades[film_places(12), 0, 0, 0], atol=8)
    shown = trials_of(2, films=films)
    assert shown.strip(shown.rows[0]) and not shown.strip(shown.rows[1])


@needs_chromium
@unless_silent
def test_the_page_is_a_file_that_filters(browser, tmp_path):  # noqa: F811
    trials = trials_of(films=films_of())
    page = trials.write(tmp_path / 'trials.html', HOSTILE)
    browser.look(*LOOKS[0])
    browser.visit(f'file://{page}')
    ranks = [row['rank'] for row in trials.rows]
    assert browser.run(SHOWN) == even_steps(ranks, trials.at_once)
    choose = "(() => {{ const s = document.querySelector('select[name={}]'); s.value = '{}'; s.dispatchEvent(new Event('change')) }})()"
    for name, value in (('person', '01'), ('kind', 'sit'), ('wrong', next(iter(trials.options('wrong'))))):
        browser.run(choose.format(name, value))
        kept = [row['rank'] for row in trials.select(**{name: value})]
        assert browser.run(SHOWN) == even_steps(kept, trials.at_once), name
        browser.run(choose.format(name, ''))
    browser.run(choose.format('order', 'most'))
    assert browser.run(SHOWN) == sorted(ranks, reverse=True)[: trials.at_once]
    browser.run("document.querySelector('.trials button').focus()")
    for kind in ('keyDown', 'keyUp'):
        browser('Input.dispatchKeyEvent', type=kind, key='Enter', code='Enter', text='\r', windowsVirtualKeyCode=13)
    assert browser.run(SHOWN) == sorted(ranks, reverse=True)
    assert browser.run("document.querySelector('[role=status]').textContent") == '30 of 30 trials'
    assert browser.run("[...document.querySelectorAll('select')].every(s => s.labels.length === 1 && s.tabIndex === 0)")
    assert not browser.run('window.hurt') and not browser.complaints()
    for look in LOOKS:
        browser.look(*look)
        settle(browser)
        assert not browser.run(FAULTS), look


@needs_chromium
@pytest.mark.parametrize('scheme', ['light', 'dark'])
@unless_silent
def test_the_page_can_be_read(browser, tmp_path, scheme):  # noqa: F811
    trials = trials_of(6, films=films_of())
    page = tmp_path / 'trials.html'
    trials.write(page)
    page.write_text(page.read_text().replace("script-src '", "script-src 'unsafe-eval' '"))  # else axe may not come in
    browser.look(1280, scheme)
    browser.visit(f'file://{page}')
    browser.run(axe_source() + ';0')
    assert not browser.run(AXE % 'document')


def test_the_brain_beside_the_film():
    volume = np.full((4, 5, 6), np.nan, np.float32)
    volume[1:3, 1:4, 1:5] = 1

    def response(subject, run, onset):
        if subject == '02': raise DataError('nobody')
        return volume * (1 if onset else 0)

    trials = trials_of(9, films=films_of(), brains=Brains(response))
    shown = browser_html(trials)
    assert shown.count('<img') == 9 + 6
    assert shown.count('from the right, from behind and from above: person 00, run 1, 0 s"') == 1
    picture = Image.open(io.BytesIO(base64.b64decode(trials.brain(trials.rows[1]))))
    assert picture.size == (288, 96)
    assert trials_of(3, films=films_of()).brain(trials.rows[0]) == ''


def test_brains_of_a_study(tmp_path):
    study = open_experiment('tiny', 0, tmp_path).study
    trial = study.trials[-1]
    found = study_brains(study).response(trial.subject, trial.run, trial.onset)
    block = study.blocks([trial]).batch([0])[0]
    want = np.einsum('txyz,t->xyz', block, study.response)
    np.testing.assert_allclose(found[study.series.mask], want[study.series.mask], atol=1e-5)
    assert np.isnan(found[~study.series.mask]).all()
    with pytest.raises(DataError, match=r'subject 77, run 1: found no trial at 3\.5 s'):
        study_brains(study).response('77', 1, 3.5)
