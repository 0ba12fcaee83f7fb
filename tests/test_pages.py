"Every page as a reader sees it, in Chromium: on a wide screen and a phone, light and dark, without a network."

import functools, importlib.util, re
from pathlib import Path
import nbformat, pytest
from chromium import Browser, Silent, find_chromium
from test_site import ROOT, STEMS, page, site  # noqa: F401

pytestmark = pytest.mark.skipif(find_chromium() is None, reason='no Chromium to look at pages with')
LOOKS = [(390, 'light'), (1280, 'light'), (1280, 'dark'), (390, 'dark')]
PARTS = 8  # a browser each
# What reaches over the right edge and cannot be scrolled to; pictures that are not there; pictures without words.
FAULTS = """(() => {
  const wide = innerWidth + 1, out = [];
  if (document.documentElement.scrollWidth > wide) out.push('the page is ' + document.documentElement.scrollWidth + ' wide');
  const scrolls = e => { for (; e && e.tagName !== 'MAIN'; e = e.parentElement)
    if (['auto', 'scroll'].includes(getComputedStyle(e).overflowX)) return true; return false; };
  for (const e of document.querySelectorAll('main *')) {
    const r = e.getBoundingClientRect();
    if (r.width && r.right > wide && !scrolls(e)) out.push('cut: ' + e.outerHTML.slice(0, 90)); }
  for (const e of document.querySelectorAll('img')) {
    if (!e.complete || !e.naturalWidth) out.push('no picture: ' + e.outerHTML.slice(0, 60));
    if (!(e.alt || '').trim()) out.push('no alt: ' + e.outerHTML.slice(0, 60)); }
  for (const e of document.querySelectorAll('main svg'))
    if (e.getAttribute('role') === 'img' && !e.getAttribute('aria-label') && !e.querySelector('title')) out.push('no name: svg');
  return out.slice(0, 5); })()"""
# A word of code of a kind that has been seen in the same surroundings says nothing new, and axe looks at each one.
STILL = "document.head.insertAdjacentHTML('beforeend', '<style>* { transition: none !important }</style>')"
THIN = """(() => {
  const seen = new Set();
  for (const e of document.querySelectorAll('pre span')) {
    if (e.children.length || e.id || e.tabIndex >= 0) continue;
    let kind = '';
    for (let a = e; a.tagName !== 'MAIN' && a.parentElement; a = a.parentElement) kind += a.tagName + '.' + a.className;
    if (seen.has(kind)) e.style.visibility = 'hidden'; else seen.add(kind); } })()"""
AXE = """axe.run(%s, {resultTypes: ['violations']}).then(r => r.violations
  .filter(v => ['serious', 'critical'].includes(v.impact))
  .map(v => v.id + ' x' + v.nodes.length + ': ' + v.nodes.slice(0, 2).map(n => n.html.slice(0, 120)).join(' | ')))"""


def axe_source() -> str:
    found = importlib.util.find_spec('axe_core_python')
    assert found, 'axe-core-python is one of the dev requirements: pip install -c constraints.txt -e .[dev]'
    return (Path(found.submodule_search_locations[0]) / 'axe.min.js').read_text()


silent = []  # why no page can be judged here, once that is known


def unless_silent(test):
    "A browser that dies or says nothing judges no page: that is said once, and the tests are skipped, not failed."

    @functools.wraps(test)
    def judged(*given, **named):
        try:
            test(*given, **named)
        except Silent as said:
            silent.append(said)
            pytest.skip(f'Chromium judges nothing here: {said}')

    return judged


@pytest.fixture
def browser(tmp_path):
    if silent:
        pytest.skip(f'Chromium judges nothing here: {silent[0]}')
    try:
        one = Browser(tmp_path)
    except Silent as said:
        silent.append(said)
        pytest.skip(f'Chromium does not start here: {said}')
    yield one
    one.close()


def settle(browser):  # two frames, so that the layout is that of the new width; a tab that is not drawn has no frames
    frames = 'requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 80)))'
    browser.run(f'new Promise(done => {{ {frames}; setTimeout(done, 1000); }})')


def faults_of(browser, address: str, axe: str, judged_at: int) -> list:
    "Everything that a reader of one page would trip over; axe looks at it once, at one of the four looks."
    browser.look(*LOOKS[0])
    browser.visit(address)
    browser.run(STILL)  # else colours are on their way from one look to the next
    found = []
    for look in LOOKS:
        browser.look(*look)
        settle(browser)
        found += [f'{look}: {fault}' for fault in browser.run(FAULTS)]
    found += browser.complaints()
    browser.look(*LOOKS[judged_at])
    browser.visit(address)  # anew, so that no colour is left of the look before
    browser.run(THIN)
    settle(browser)
    browser.run(axe)
    found += [f'{LOOKS[judged_at]}: {fault}' for fault in browser.run(AXE % 'document')]
    return found + browser.complaints()


@pytest.mark.parametrize('part', range(PARTS))
@unless_silent
def test_every_page_can_be_read(site, browser, part):  # noqa: F811
    axe = axe_source() + ';0'
    pages = sorted(site.glob('*.html'))
    assert len(pages) > len(STEMS)
    found = {}
    for k, path in enumerate(pages[part::PARTS]):
        found[path.name] = faults_of(browser, f'file://{path}', axe, k % len(LOOKS))
    assert not any(found.values()), '\n'.join(f'{name}: {fault}' for name, faults in found.items() for fault in faults)


def test_a_browser_that_says_nothing_ends_the_wait(browser):
    browser.patience = 0.5
    with pytest.raises(Silent, match='Runtime.evaluate: no answer in 0.5 s'):
        browser.run('new Promise(() => 0)')
    browser.patience = 20
    with pytest.raises(Silent, match='chrome://crash: the tab has crashed'):
        browser.visit('chrome://crash')


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('words', ['own study', 'install', 'cluster', 'glossary'])
@unless_silent
def test_what_is_searched_is_found_and_can_be_read(site, browser, words, scheme):  # noqa: F811
    browser.look(1280, scheme)
    browser.visit(f'file://{site / "index.html"}')
    box = "document.querySelector('.smalldocs-search input')"
    browser.run(f"{box}.focus(); {box}.value = '{words}'; {box}.dispatchEvent(new Event('input'))")
    wait = 'new Promise(done => { const t = setInterval(() => { if (document.querySelector(".search-result, .search-none"))'
    browser.run(wait + ' { clearInterval(t); done(); } }, 50); })')
    hits = browser.run("[...document.querySelectorAll('.search-result')].map(e => e.innerText)")
    assert len(hits) > 2 and any(words.split()[-1] in h.lower() for h in hits[:3])
    browser.run(axe_source() + ';0')
    assert not browser.run(AXE % "'.smalldocs-search-results'")


def test_every_figure_has_a_caption_and_words():
    "In the notebooks, as Quarto and nbdev read them: `#| fig-cap` and `#| fig-alt` of the cell that draws."
    without = []
    for stem in STEMS:
        for c in nbformat.read(ROOT / 'nbs' / f'{stem}.ipynb', 4).cells:
            if not any('image/png' in o.get('data', {}) for o in c.get('outputs', [])):
                continue
            said = re.findall(r'^#\| (fig-cap|fig-alt): ["\']?\S.{20,}$', c.source, re.M)
            if set(said) != {'fig-cap', 'fig-alt'}:
                without.append((stem, c.id))
    assert not without
