"""Build the site in `_docs` from the committed notebooks: `python tools/docs.py`, from the root, without a network.

Copies of the notebooks are made ready to be read (`stage`), nbdev turns them into pages (`_proc`), smalldocs renders these
with the `_quarto.yml` that Quarto reads (`quarto render _proc` works on the same folder), and equations become MathML,
which browsers typeset themselves. No code is run: the outputs shown are those stored in the notebooks. A broken link,
an equation that cannot be typeset or a notebook without outputs stops the build."""

import ast, html, re, shutil, subprocess, sys, tempfile
from pathlib import Path
import nbformat
from nbformat.v4 import new_markdown_cell
from latex2mathml.converter import convert
from nbdev.config import get_config
from nbdev.doclinks import _nbpath2html
from nbdev.serve import proc_nbs

ROOT = Path(__file__).resolve().parent.parent
PROC, SITE = ROOT / '_proc', ROOT / '_docs'


def page_name(stem: str) -> str:  # '00_core' -> 'core', as in the links that nbdev makes
    return _nbpath2html(Path(f'{stem}.ipynb')).stem


def relink(text: str) -> str:  # links between notebooks by page name; paths are seen from the root of the site
    text = re.sub(r'\]\((?:\./|nbs/)?([\w-]+)\.ipynb', lambda m: f'](/{page_name(m[1])}.ipynb', text)
    return re.sub(r'(\]\(|src=")\.\./', r'\1', text)


def last_state(text: str) -> str:  # a stream as a terminal would show it: of a line that was rewritten, what was left
    return '\n'.join(line.rstrip('\r').rsplit('\r', 1)[-1] for line in text.split('\n'))


def defined(code: str) -> list:  # names a cell defines, methods as 'Class.method'
    defs = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    out = []
    for node in ast.parse(code).body:
        if not isinstance(node, defs): continue
        out.append(node.name)
        if isinstance(node, ast.ClassDef): out += [f'{node.name}.{n.name}' for n in node.body if isinstance(n, defs)]
    return out


def heading(names: list) -> str:  # Markdown above exported code: its name as a heading, or marks that links can point at
    tops = [n for n in names if '.' not in n and not n.startswith('_')]
    marks = [n for n in names if n not in tops or len(tops) > 1]
    parts = [f'### {tops[0]} {{.symbol}}'] if len(tops) == 1 else []
    if marks: parts.append(''.join(f'<span id="{n.lower()}"></span>' for n in marks))
    return '\n\n'.join(parts)


def stage(
    nb,  # a notebook, changed in place
):
    "Exported code is shown under its name; title and prose of the first cell are parted, or nbdev would drop the prose."
    cells = []
    for c in nb.cells:
        if c.cell_type == 'markdown':
            c.source = relink(c.source)
            if not cells and (m := re.match(r'# .*?\n+(?:>.*?(?:\n+|$))?', c.source)):
                cells.append(new_markdown_cell(m[0].strip()))
                c.source = c.source[m.end() :]
        if c.cell_type == 'code' and re.search(r'^#\|\s*exports?\b', c.source, re.M):
            c.source = re.sub(r'^#\|\s*exports?\b.*\n', '', c.source, flags=re.M)
            names = defined(c.source)
            if names: cells.append(new_markdown_cell(heading(names)))
            if all(n.startswith('_') for n in names) and len(c.source.splitlines()) > 12:
                c.source = '#| code-fold: true\n#| code-summary: "Helpers"\n' + c.source
        for o in c.get('outputs', []):
            if o.output_type == 'stream': o.text = last_state(o.text)
        if c.source.strip(): cells.append(c)
    nb.cells = cells


def pages(files: list):
    "Fill `_proc`: a page for each notebook, the config that names them, the style, and what pages link to."
    shutil.rmtree(PROC, ignore_errors=True)
    with tempfile.TemporaryDirectory() as d:
        for p in files:
            nb = nbformat.read(p, 4)
            stage(nb)
            nbformat.write(nb, Path(d) / f'{page_name(p.stem)}.ipynb')
        proc_nbs(d, n_workers=0, force=True)
    for p in PROC.glob('*.ipynb'):
        p.write_text(re.sub(r'output-file: \S+?\\n', '', p.read_text()))
    yml = re.sub(r'nbs/([\w-]+)\.ipynb', lambda m: f'{page_name(m[1])}.ipynb', (ROOT / '_quarto.yml').read_text())
    (PROC / '_quarto.yml').write_text(yml.replace('nbs/', ''))
    for src in (ROOT / 'nbs' / 'styles.css', ROOT / 'LICENSE', ROOT / 'figures', ROOT / 'data'):
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


def mathml(m) -> str:  # one equation, as MathML
    tex, block = html.unescape(m['tex']).strip()[2:-2].strip(), 'display' in m['kind']
    try:
        return convert(tex, display='block' if block else 'inline')
    except Exception as e:
        raise SystemExit(f"[docs] this equation cannot be turned into MathML ({type(e).__name__}: {e}):\n{tex}") from e


def finish(page: Path, host: str):
    "Equations typeset, nothing asked of a network, links within the site relative."
    text = page.read_text()
    text = re.sub(r'<span class="(?P<kind>math \w+)">(?P<tex>.*?)</span>', mathml, text, flags=re.S)
    text = re.sub(r'<link\b[^>]*katex[^>]*>|<script\b[^>]*katex[^>]*></script>', '', text)
    page.write_text(text.replace(f'href="{host}', 'href="'))


def main():
    cfg = get_config(path=ROOT)
    files = sorted((ROOT / 'nbs').glob('[!_.]*.ipynb'))
    print(f"[docs] {len(files)} notebooks -> _proc")
    pages(files)
    print("[docs] _proc -> _docs")
    render()
    for page in SITE.rglob('*.html'):
        finish(page, f"{cfg.doc_host}{cfg.doc_baseurl}/")
    for style in SITE.rglob('*.css'):  # a theme's web font
        style.write_text(re.sub(r'@import\s+url\(["\']?https?:[^)]*\)[^;]*;', '', style.read_text()))
    print(f"[docs] done: open {SITE.name}/index.html")


if __name__ == '__main__':
    main()
