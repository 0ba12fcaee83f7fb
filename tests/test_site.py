"The site: built from the committed notebooks, whole without a network."

import ast, html, re, shutil, subprocess, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
import nbformat, pytest

ROOT = Path(__file__).resolve().parent.parent
STEMS = sorted(p.stem for p in (ROOT / 'nbs').glob('*.ipynb'))


def page(stem):
    return re.sub(r'^\d+[a-z]?_', '', stem) + '.html'


class Page(HTMLParser):
    "What a page links to, loads and says; `prose` is its text outside code."

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.ids = set()
        self.links = []
        self.loads = []
        self.tags = []
        self.inside = dict(script=0, style=0, pre=0, code=0)
        self.text = ''
        self.prose = ''
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.tags.append((tag, a))
        if tag in self.inside:
            self.inside[tag] += 1
        if a.get('id'):
            self.ids.add(a['id'])
        if tag == 'a' and a.get('href'):
            self.links.append(a['href'])
        if tag in ('img', 'script', 'source', 'video', 'iframe') and a.get('src'):
            self.loads.append(a['src'])
        if tag == 'link' and a.get('href') and a.get('rel') in ('stylesheet', 'icon', 'shortcut icon', 'preload'):
            self.loads.append(a['href'])

    def handle_endtag(self, tag):
        if tag in self.inside:
            self.inside[tag] -= 1

    def handle_data(self, data):
        if self.inside['script'] or self.inside['style']:
            return
        self.text += data
        if not (self.inside['pre'] or self.inside['code']):
            self.prose += data


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp('site')
    for k in ('nbs', 'tools', 'brainllm', 'figures', 'data'):
        if (ROOT / k).exists():
            shutil.copytree(ROOT / k, root / k, ignore=shutil.ignore_patterns('__pycache__'))
    for k in ('settings.ini', '_quarto.yml', 'LICENSE', 'CHANGELOG.md'):
        shutil.copy(ROOT / k, root)
    r = subprocess.run([sys.executable, root / 'tools' / 'docs.py'], cwd=root, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout[-3000:] + r.stderr[-3000:]
    return root / '_docs'


@pytest.fixture(scope='module')
def pages(site):
    return {p.name: Page(p) for p in site.glob('*.html')}


def test_every_notebook_has_a_page_that_is_linked(pages):
    assert {page(s) for s in STEMS} | {'404.html', 'CHANGELOG.html'} == set(pages)
    linked = {urlsplit(h).path.removeprefix('./') for h in pages['index.html'].links}
    assert set(pages) - {'index.html', '404.html'} <= linked


def test_every_page_but_the_first_leads_to_its_notebook(site, pages):
    for stem in sorted(set(STEMS) - {'index'}):
        links = pages[page(stem)].links
        assert f'notebooks/{stem}.ipynb' in links, stem
        assert any(h.startswith('https://colab.research.google.com/') and h.endswith(f'/nbs/{stem}.ipynb') for h in links)
        assert (site / 'notebooks' / f'{stem}.ipynb').read_bytes() == (ROOT / 'nbs' / f'{stem}.ipynb').read_bytes()
    assert not any('notebooks/' in href for href in pages['index.html'].links), 'the first screen shows the idea'


def test_in_plain_words_is_read_in_five_minutes():
    cells = nbformat.read(ROOT / 'nbs' / '14_plain.ipynb', 4).cells
    words = ' '.join(cell.source for cell in cells if cell.cell_type == 'markdown').split()
    assert 300 < len(words) <= 5 * 200, 'at 200 words a minute'


def test_no_link_is_broken(site, pages):
    broken = []
    for name, p in pages.items():
        for href in p.links + p.loads:
            u = urlsplit(href)
            if u.scheme or u.netloc:
                continue
            target = site / unquote(u.path) if u.path else site / name
            if target.is_dir():
                target = target / 'index.html'
            if not target.exists():
                broken.append((name, href))
            elif u.fragment and target.name in pages and unquote(u.fragment) not in pages[target.name].ids:
                broken.append((name, href))
    assert not broken


def test_nothing_is_fetched_from_elsewhere(site, pages):
    outside = [
        (n, s[:80])
        for n, p in pages.items()
        for s in p.loads
        if urlsplit(s).scheme in ('http', 'https') or s.startswith('//')
    ]
    assert not outside
    styles = [f for f in site.rglob('*.css') if re.search(r'url\(["\']?(?:https?:)?//', f.read_text())]
    assert not styles


def test_links_between_notebooks_name_files():
    "The site finds a page by its name alone; on the shelf, where notebooks are read as files, the number counts too."
    stale = []
    for s in STEMS:
        for c in nbformat.read(ROOT / 'nbs' / f'{s}.ipynb', 4).cells:
            if c.cell_type != 'markdown':
                continue
            named = re.findall(r'\]\(([^)#:]+\.ipynb)', c.source)
            stale += [(s, link) for link in named if not (ROOT / 'nbs' / link).exists()]
    assert not stale


def test_equations_are_typeset(pages):
    for s in STEMS:
        nb, p = nbformat.read(ROOT / 'nbs' / f'{s}.ipynb', 4), pages[page(s)]
        prose = re.sub(
            r'```.*?```|`[^`]*`', '', '\n'.join(c.source for c in nb.cells if c.cell_type == 'markdown'), flags=re.S
        )
        wanted = len(re.findall(r'\$\$.+?\$\$', prose, re.S))
        found = sum(t == 'math' for t, _ in p.tags)
        assert found >= wanted, f'{s}: {found} of {wanted} equations'
        assert not (m := re.search(r'\\\(|\\\[|\$\$|\\(?:frac|sum|mathrm|text|log|operatorname)\b', p.prose)), (
            f'{s}: TeX is left as text: {p.prose[max(0, m.start() - 60) : m.end() + 60]!r}'
        )
    assert any(t == 'math' for t, _ in pages['losses.html'].tags)


def test_figures_are_shown(pages):
    for s in STEMS:
        nb = nbformat.read(ROOT / 'nbs' / f'{s}.ipynb', 4)
        wanted = sum('image/png' in o.get('data', {}) for c in nb.cells if c.cell_type == 'code' for o in c.outputs)
        found = sum(t == 'img' and a.get('src', '').startswith('data:image/png') for t, a in pages[page(s)].tags)
        assert found >= wanted, f'{s}: {found} of {wanted} figures'


def test_prose_is_not_lost(pages):
    "nbdev drops what follows the title in the first cell; the site must not."
    for s in STEMS:
        first = next(c.source for c in nbformat.read(ROOT / 'nbs' / f'{s}.ipynb', 4).cells if c.cell_type == 'markdown')
        words = re.findall(r'[A-Za-z]{4,}', re.sub(r'\]\(.*?\)|`.*?`|\$.*?\$', ' ', first.split('\n')[-1]))
        assert all(w in pages[page(s)].text for w in words), s


def public_definitions():  # of (page, name, parameters, may have a table), as Python reads the package
    for path in sorted((ROOT / 'brainllm').rglob('[!_]*.py')):
        source = path.read_text()
        if not (m := re.search(r'^# AUTOGENERATED.*nbs/(\w+)\.ipynb', source, re.M)):
            continue
        for node in ast.parse(source).body:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith('_'):
                continue
            yield page(m[1]), node.name, parameters_of(node)


def parameters_of(node):  # names that a call takes
    if isinstance(node, ast.ClassDef):
        made = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == '__init__']
        if not made:
            return [n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and n.target.id[0] != '_']
        return parameters_of(made[0])[1:]
    a = node.args
    plain = [p.arg for p in a.posonlyargs + a.args + a.kwonlyargs]
    return plain + [p.arg for p in (a.vararg, a.kwarg) if p]


def said_of(text, name):  # HTML of a page -> that between the heading of a name and the next one
    m = re.search(
        rf'<section id="{name.lower()}(?:-2)?" class="level3 symbol">\s*<h3[^>]*>{name}</h3>(.*?)(?:<h[1-4]|</main>)',
        text,
        re.S,
    )
    return m and m[1]


def test_every_public_name_is_described(site):
    "Heading, signature, one line of prose, link to the source, and every parameter in a table: none is without."
    texts = {p.name: p.read_text() for p in site.glob('*.html')}
    without, seen = [], 0
    for name_of_page, name, parameters in public_definitions():
        seen += 1
        said = said_of(texts[name_of_page], name)
        if said is None:
            without.append((name, 'heading'))
            continue
        cells = [html.unescape(c) for c in re.findall(r'<td><code class="parameter">([^<]*)</code></td>', said)]
        missing = [p for p in parameters if p not in [c.lstrip('*') for c in cells]]
        lacks = dict(signature=' signature"' in said, source='class="source-link"' in said, table=not missing)
        lacks['docstring'] = bool(re.search(r'</button></div>\s*<p>', said))
        without += [(name, what) for what, there in lacks.items() if not there]
    assert seen > 1000 and not without


def test_names_of_the_package_in_prose_lead_to_their_place(site):
    "A public name in backticks is a link, wherever it stands in running text."
    names = {name for _, name, _ in public_definitions()}
    loose = []
    for path in site.glob('*.html'):
        text = re.sub(r'<(a|pre|h[1-6])\b.*?</\1>', '', path.read_text(), flags=re.S)
        loose += [(path.name, n) for n in re.findall(r'<code>(\w+)(?:\(\))?</code>', text) if n in names]
    assert not loose


@pytest.mark.skipif(
    not (shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')),
    reason='no Chromium to look at pages with',
)
@pytest.mark.parametrize('name', ['index.html', 'losses.html', 'simulate.html'])
def test_a_page_as_a_picture(site, tmp_path, name):
    from PIL import Image

    browser = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    flags = (
        '--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking '
        '--disable-component-update --disable-sync --hide-scrollbars --window-size=1200,1600'
    ).split()
    shot = tmp_path / 'page.png'
    subprocess.run(
        [browser, *flags, f'--user-data-dir={tmp_path / "profile"}', f'--screenshot={shot}', f'file://{site / name}'],
        capture_output=True,
        timeout=120,
    )
    picture = Image.open(shot).convert('L')
    columns = [picture.crop((x, 60, x + w, 1600)) for x, w in ((0, 240), (280, 640))]
    assert all(sum(c.histogram()[:128]) > 500 for c in columns), 'the sidebar or the text is blank'
