"""Build the site in `_docs` from the committed notebooks: `python tools/docs.py`, from the root, without a network.

Copies of the notebooks are made ready to be read (`stage`), nbdev turns them into pages (`_proc`), smalldocs renders these
with the `_quarto.yml` that Quarto reads (`quarto render _proc` works on the same folder), and equations become MathML,
which browsers typeset themselves. No code is run: the outputs shown are those stored in the notebooks. A broken link,
an equation that cannot be typeset or a notebook without outputs stops the build."""

import ast, html, itertools, json, re, shutil, subprocess, sys, tempfile
from functools import cached_property, lru_cache
from pathlib import Path
import nbformat
import reference
from latex2mathml.converter import convert
from nbdev.config import get_config
from nbdev.doclinks import _nbpath2html
from nbdev.serve import proc_nbs

ROOT = Path(__file__).resolve().parent.parent
PROC, SITE = ROOT / '_proc', ROOT / '_docs'
NOTEBOOKS = 'notebooks'  # folder of the site that holds them as they are
COLAB = '//colab.research.google.com/github'  # in the place of GitHub in an address


def page_name(stem: str) -> str:  # '00_core' -> 'core', as in the links that nbdev makes
    return _nbpath2html(Path(f'{stem}.ipynb')).stem


def relink(text: str) -> str:  # links between notebooks by page name; paths are seen from the root of the site
    text = re.sub(r'\]\((?:\./|nbs/)?([\w-]+)\.ipynb', lambda m: f'](/{page_name(m[1])}.ipynb', text)
    return re.sub(r'(\]\(|src=")\.\./', r'\1', text)


def last_state(text: str) -> str:  # a stream as a terminal would show it: of a line that was rewritten, what was left
    return '\n'.join(line.rstrip('\r').rsplit('\r', 1)[-1] for line in text.split('\n'))


@lru_cache
def config():
    return get_config(path=ROOT)


class Module:
    "A module of the package and the page that it is written on."

    def __init__(self, name: str, page: str):  # 'data.blocks', 'blocks'
        self.name, self.page = name, page
        self.path = Path('brainllm', *name.split('.')).with_suffix('.py')
        self.source = (ROOT / self.path).read_text()
        self.entries, self.values = reference.read(self.source)

    def link(self, name: str) -> str:  # to a line of the repository
        return f'{config().git_url}/blob/{config().branch}/{self.path}#L{self.entries[name].line}'

    @cached_property
    def faces(self) -> dict:  # of a wing's first page: {room: its public names}
        if not self.name.endswith('__init__'):
            return {}
        for node in ast.parse(self.source).body:
            value = getattr(node, 'value', None)
            if isinstance(value, ast.Call) and ast.unparse(value.func) == 'face':
                return {k.arg: ast.literal_eval(k.value).split() for k in value.keywords if k.arg}
        return {}

    @property
    def wing(self) -> str:  # 'data.' of data.__init__
        return self.name.removesuffix('__init__')

    @property
    def said(self) -> dict:  # {public name: one line of it}
        return self.values | {n: e.doc.split('\n')[0] for n, e in self.entries.items()}


def modules(files: list) -> dict:  # {stem of a notebook: Module}
    out = {}
    for p in files:
        m = re.search(r'"#\|\s*default_exp\s+([\w.]+)', p.read_text())
        if m:
            out[p.stem] = Module(m[1], page_name(p.stem))
    return out


def symbols(found: dict) -> dict:  # {public name, also 'Class.method': 'page.html#place'}
    out = {}
    for module in found.values():
        for name, entry in module.entries.items():
            for e in (entry, *entry.methods):
                out[e.name] = f'{module.page}.html#{e.id}'
    for module in found.values():
        for name in module.values:
            out.setdefault(name, f'{module.page}.html#{name.lower()}')
    return out


def face_table(
    module: Module,  # of a wing's first page
    found: dict,  # of `modules`
) -> str:  # Markdown
    "Every public name of a wing, in one line each."
    rooms = {m.name.split('.')[-1]: m for m in found.values() if m.name.startswith(module.wing)}
    lines = ['## Every name of this wing', '', '| Name | Room | In one line |', '|---|---|---|']
    for room, names in module.faces.items():
        said = rooms[room].said
        where = f'[{room}](/{rooms[room].page}.ipynb)'
        lines += [f'| `{n}` | {where} | {reference.in_cell(said[n])} |' for n in names if n in said]
    return '\n'.join(lines)


def marks(names: list) -> str:  # places that links can point at, of what has no heading
    return ''.join(f'<span id="{n.lower()}"></span>' for n in names)


MADE = itertools.count()


def new_cell(kind: str, source: str, outputs=()):  # without nbformat's long look at each
    cell = dict(cell_type=kind, id=f'made-{next(MADE)}', metadata={}, source=source)
    return nbformat.from_dict(cell if kind == 'markdown' else cell | dict(outputs=list(outputs), execution_count=None))


def folded(code: str, summary: str):  # a code cell that opens when asked
    return new_cell('code', f'#| code-fold: true\n#| code-summary: "{summary}"\n{code}')


def symbol_cells(name: str, code: str, made: list, module: Module) -> list:
    "Heading, signature, parameters; the same of its methods; the source, folded."
    entry = module.entries[name]
    text = [reference.entry_markdown(entry, module.link(name))]
    text += [reference.entry_markdown(m, level=4) for m in entry.methods]
    headed = {name, *(m.name for m in entry.methods)}
    text.append(marks([n for n in made if n not in headed]))
    return [new_cell('markdown', '\n\n'.join(text)), folded(code, f'Source of {name}')]


def exported_cells(cell, module: Module) -> list:  # what stands on the page for a cell that the package is made of
    out = []
    for kind, code, made in reference.pieces(cell.source):
        if not kind.startswith(':'):
            out += symbol_cells(kind, code, made, module)
            continue
        if made:
            out.append(new_cell('markdown', marks(made)))
        short = kind == ':values' and len(code.splitlines()) <= reference.SHOWN
        out.append(new_cell('code', code) if short else folded(code, kind[1:].capitalize()))
    if out:
        out[-1].outputs = cell.get('outputs', [])
    return out


def apart(text: str, module: Module | None) -> str:  # headings of sections that are called as a name of the page is
    "A section and a name may not have one address: the name keeps it."

    def moved(m):
        place = re.sub(r'[^\w-]+', '-', m[2].lower()).strip('-')
        return f'{m[0]} {{#about-{place}}}' if place in taken else m[0]

    taken = {n.lower() for n in (*module.entries, *module.values)} if module else set()
    return re.sub(r'^(#{2,4}) ([^{}\n]+?)$', moved, text, flags=re.M)


def notebook_links(stem: str) -> str:  # HTML
    "Where the notebook behind a page is had, and where it can be run without installing anything here."
    file = f'{stem}.ipynb'
    there = f'{config().git_url}/blob/{config().branch}/nbs/{file}'.replace('//github.com', COLAB)
    copy = f'<a href="{NOTEBOOKS}/{file}" download="{file}">Download this notebook</a>'
    return f'<p class="notebook-links">{copy} · <a href="{there}">Open it in Colab</a></p>'


def stage(
    nb,  # a notebook, changed in place
    stem: str,  # of its file
    module: Module | None = None,  # that it becomes
    found: dict | None = None,  # of `modules`
):
    "Exported code is shown as reference; title and prose of the first cell are parted, or nbdev would drop the prose."
    cells = []
    for c in nb.cells:
        if c.cell_type == 'markdown':
            c.source = apart(relink(c.source), module)
            if not cells and (m := re.match(r'# .*?\n+(?:>.*?(?:\n+|$))?', c.source)):
                cells.append(new_cell('markdown', m[0].strip()))
                links = '' if stem == 'index' else notebook_links(stem)
                c.source = f'{links}\n\n{c.source[m.end() :]}'
        for o in c.get('outputs', []):
            if 'text/markdown' in o.get('data', {}):
                o.data['text/markdown'] = relink(o.data['text/markdown'])
            if o.output_type == 'stream':
                o.text = last_state(o.text)
        if c.cell_type == 'code' and re.search(r'^#\|\s*exports?\b', c.source, re.M):
            c.source = re.sub(r'^#\|\s*exports?\b.*\n', '', c.source, flags=re.M)
            cells += exported_cells(c, module)
        elif c.source.strip():
            cells.append(c)
    if module and module.faces:
        cells.append(new_cell('markdown', face_table(module, found)))
    nb.cells = cells


def pages(files: list, found: dict):  # found: of `modules`
    "Fill `_proc`: a page for each notebook, the config that names them, the style, and what pages link to."
    shutil.rmtree(PROC, ignore_errors=True)
    with tempfile.TemporaryDirectory() as d:
        for p in files:
            nb = nbformat.read(p, 4)
            stage(nb, p.stem, found.get(p.stem), found)
            nbformat.write(nb, Path(d) / f'{page_name(p.stem)}.ipynb')
        proc_nbs(d, n_workers=0, force=True)
    lost = new_cell(
        'markdown',
        '# No such page\n\nThis page is not there, or has moved. Look for it by the search above, or begin at '
        '[the first page](index.ipynb).',
    )
    (PROC / '404.ipynb').write_text(json.dumps(dict(cells=[lost], metadata={}, nbformat=4, nbformat_minor=5)))
    for p in PROC.glob('*.ipynb'):
        p.write_text(re.sub(r'output-file: \S+?\\n', '', p.read_text()))
    yml = re.sub(r'nbs/([\w-]+)\.ipynb', lambda m: f'{page_name(m[1])}.ipynb', (ROOT / '_quarto.yml').read_text())
    (PROC / '_quarto.yml').write_text(yml.replace('nbs/', ''))
    (PROC / NOTEBOOKS).mkdir()
    for p in files:
        shutil.copy(p, PROC / NOTEBOOKS)
    for src in (
        ROOT / 'nbs' / 'styles.css',
        ROOT / 'nbs' / 'favicon.svg',
        ROOT / 'LICENSE',
        ROOT / 'CHANGELOG.md',
        ROOT / 'figures',
        ROOT / 'data',
    ):
        if src.is_dir():
            shutil.copytree(src, PROC / src.name, ignore=shutil.ignore_patterns('*.md'))
        elif src.exists():
            shutil.copy(src, PROC)


def render():
    "`_proc` to `_docs`."
    r = subprocess.run(
        [sys.executable, '-m', 'smalldocs.cli', 'render', '--strict', str(PROC)], capture_output=True, text=True
    )
    print(r.stderr.strip())
    if r.returncode:
        raise SystemExit('[docs] the site has the faults listed above; mend them in nbs/ or _quarto.yml')
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.move(PROC / '_docs', SITE)
    shutil.copytree(PROC / NOTEBOOKS, SITE / NOTEBOOKS)  # which smalldocs takes for pages


def mathml(m) -> str:  # one equation, as MathML
    tex, block = html.unescape(m['tex']).strip()[2:-2].strip(), 'display' in m['kind']
    try:
        made = convert(tex, display='block' if block else 'inline')
    except Exception as e:
        raise SystemExit(f"[docs] this equation cannot be turned into MathML ({type(e).__name__}: {e}):\n{tex}") from e
    bars = r'<mo[^>]*>(&#x02225;|&#x02016;|‖|∥)</mo>'
    made = re.sub(bars, r'<mo stretchy="false">\1</mo>', made)  # both bars of a norm alike
    return made.replace('<math ', '<math tabindex="0" ', 1) if block else made


def link_names(text: str, places: dict, page: str) -> str:  # HTML
    "Names of the package in running text lead to where they are described; not those in links, headings and code."

    def linked(m):
        if m['skip'] or (place := places.get(html.unescape(m['name']).removesuffix('()'))) is None:
            return m[0]
        return f'<a href="{place.removeprefix(page)}">{m[0]}</a>'

    skip = r'(?P<skip><(?P<tag>a|pre|h[1-6]|script|style)\b.*?</(?P=tag)>)'
    return re.sub(skip + r'|<code>(?P<name>[\w.]+(?:\(\))?)</code>', linked, text, flags=re.S)


LABELS = {  # what a reader of the screen is told: opening tags, and what is added to them
    '<nav class="navbar': 'aria-label="Site"',
    '<nav class="quarto-secondary-nav"': 'aria-label="This page among the others"',
    '<nav id="quarto-sidebar"': 'aria-label="Pages"',
    '<nav id="TOC"': 'aria-label="On this page"',
    '<nav class="page-navigation"': 'aria-label="Page before and after"',
    '<pre': 'tabindex="0"',  # what scrolls can be reached by keys
    '<div class="cell-output cell-output-display"': 'tabindex="0"',
    '<div class="sd-table"': 'tabindex="0"',
}
ELSEWHERE = """<script>if(location.protocol!=='file:')document.write('<base href="{}/">')</script>"""  # of a 404, served anywhere
# A page opened as a file may not fetch another: there the index of the search comes as a script.
OFFLINE = """<script>if(location.protocol==='file:'){const old=window.fetch;window.fetch=(u,...a)=>!String(u).endsWith('search.json')?\
old(u,...a):new Promise(done=>{const s=document.createElement('script');s.src=String(u).replace(/json$/,'js');\
s.onload=()=>done({json:()=>window.searchIndex});document.head.append(s)})}</script>"""


def finish(page: Path, host: str, places: dict):  # places: of `symbols`
    "Equations typeset, nothing asked of a network, links within the site relative, names linked, parts labelled."
    text = link_names(page.read_text(), places, page.name)
    text = re.sub(r'<span class="(?P<kind>math \w+)">(?P<tex>.*?)</span>', mathml, text, flags=re.S)
    text = re.sub(r'<link\b[^>]*katex[^>]*>|<script\b[^>]*katex[^>]*></script>', '', text)
    text = re.sub(r'<svg alt="([^"]*)"', r'<svg role="img" aria-label="\1"', text)
    text = re.sub(r'(<a\b[^>]*data-bs-toggle="collapse"[^>]*) role="navigation"', r'\1 role="button"', text)
    for tag, label in LABELS.items():
        name = tag.split()[0]
        text = text.replace(tag, f'{name} {label}{tag[len(name) :]}')
    begin = ELSEWHERE.format(config().doc_baseurl) if page.name == '404.html' else ''
    text = text.replace('<head>', f'<head>{begin}{OFFLINE}', 1)
    page.write_text(text.replace(f'href="{host}', 'href="'))


def main():
    files = sorted((ROOT / 'nbs').glob('[!_.]*.ipynb'))
    print(f"[docs] {len(files)} notebooks -> _proc")
    found = modules(files)
    pages(files, found)
    print("[docs] _proc -> _docs")
    render()
    places = symbols(found)
    for page in SITE.rglob('*.html'):
        finish(page, f'{config().doc_host}{config().doc_baseurl}/', places)
    (SITE / 'search.js').write_text(f"window.searchIndex={(SITE / 'search.json').read_text()}")
    for style in SITE.rglob('*.css'):  # a theme's web font
        style.write_text(re.sub(r'@import\s+url\(["\']?https?:[^)]*\)[^;]*;', '', style.read_text()))
    print(f"[docs] done: open {SITE.name}/index.html")


if __name__ == '__main__':
    main()
