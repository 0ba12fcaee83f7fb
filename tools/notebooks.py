"""Run the notebooks in place with their own parameters and keep their outputs: `python tools/notebooks.py [names] [--root FOLDER]`.

The site shows these outputs, so they come from real runs. Results are copied to `data/results/`, ablations to `data/ablation/`."""

import argparse, base64, re, shutil, sys, tempfile, time
from pathlib import Path
import nbformat
from nbclient import NotebookClient
from nbdev.clean import nbdev_clean

ROOT = Path(__file__).resolve().parent.parent
NEEDS_ROOT = ('08a_film',)  # pages of data that are not part of the project
TAKES_ROOT = (*NEEDS_ROOT, '09i_sherlock')  # and one that shows what it found before
WIDGET = 'application/vnd.jupyter.widget-view+json'  # a library's live bar: nothing to see once it has run


# What only whoever waits wants to read: a bar, what is done, how far a run is, which artifact was made or found again.
PASSING = re.compile(
    r'.*\d+%\|.*\|.*|.*: done in \d+ s|part \d+ of \d+: .*|.*: \d+ of \d+ parts are there already.*|'
    r'[\w.-]+: (built|reused), [\w.-]+-[0-9a-f]{12}(, \d+ s)?'
)
TELLS_ALL = ('00b_store',)  # the page whose subject it is


def tidy(text: str, passing: bool = False) -> str:  # without what differs from machine to machine, and what passes
    lines = [line.rstrip('\r').rsplit('\r', 1)[-1] for line in text.split('\n')]
    text = '\n'.join(line for line in lines if passing or not PASSING.fullmatch(line))
    text = text.replace(f'{ROOT}/', '').replace(sys.prefix, '.venv')
    return re.sub(re.escape(tempfile.gettempdir()) + r'/tmp\w+', 'tmp', text)


def keep_figures(nb, stem: str):  # figures/<notebook>-<n>.png
    "The pictures of a notebook, as files."
    (ROOT / 'figures').mkdir(exist_ok=True)
    for old in (ROOT / 'figures').glob(f'{stem}-*.png'): old.unlink()
    outputs = [o for c in nb.cells for o in c.get('outputs', [])]
    pictures = [o['data']['image/png'] for o in outputs if 'image/png' in o.get('data', {})]
    for k, picture in enumerate(pictures, 1):
        (ROOT / 'figures' / f'{stem}-{k}.png').write_bytes(base64.b64decode(picture))


def tidy_outputs(cell, passing: bool = False):
    "Changes a cell in place: no bars, no text that differs from machine to machine."
    if 'outputs' not in cell: return
    cell.outputs = [o for o in cell.outputs if WIDGET not in o.get('data', {})]
    for out in cell.outputs:
        if out.output_type == 'stream': out.text = tidy(out.text, passing)
        for mime, data in out.get('data', {}).items():
            if mime.startswith('text/'): out.data[mime] = tidy(data, passing=True)
    cell.outputs = [o for o in cell.outputs if o.output_type != 'stream' or o.text.strip()]


def run(path: Path, root=''):
    "Run one notebook from its own folder; an error stops everything and leaves the notebook as it was."
    nb = nbformat.read(path, 4)
    named = [c for c in nb.cells if root and 'parameters' in c.metadata.get('tags', [])]
    for cell in named: cell.source = cell.source.replace("root = ''", f'root = {root!r}')
    folder = {'metadata': {'path': str(path.parent)}}
    settings = dict(timeout=None, kernel_name='python3', coalesce_streams=True, store_widget_state=False)
    NotebookClient(nb, resources=folder, **settings).execute()
    for cell in named: cell.source = cell.source.replace(f'root = {root!r}', "root = ''")
    for cell in nb.cells: tidy_outputs(cell, path.stem in TELLS_ALL)
    nb.metadata.pop('language_info', None)
    nbformat.write(nb, path)
    keep_figures(nb, path.stem)


def keep_results():
    "Copy what runs left under _runs to data/, where pages read it."
    files = dict(result='results/{}', ablation='ablation/{}', compare='compare/{}', starts='results/{}-starts')
    files |= dict(confidence='results/{}-confidence', moments='moments/{}')
    for preset in ('sim-had', 'sim-had-seeing', 'sim-urgen', 'sim-urgen-unseen', 'haxby', 'haxby-weighed'):
        for name, place in files.items():
            keep(ROOT / '_runs' / preset / f'{name}.json', ROOT / 'data' / f'{place.format(preset)}.json')
    keep(ROOT / '_runs' / 'sim-had' / 'texts.jsonl', ROOT / 'data' / 'texts' / 'sim-had.jsonl')
    film = {'film-procrustes': 'film', 'film-anatomy': 'film-anatomy', 'film-linear': 'film-linear', 'recall': 'recall'}
    for name, place in film.items():
        keep(ROOT / '_runs' / 'sherlock' / f'{name}.json', ROOT / 'data' / 'results' / f'sherlock-{place}.json')


def keep(made: Path, kept: Path):
    "What a run has left, unless what is kept is newer."
    if not made.exists() or (kept.exists() and kept.stat().st_mtime > made.stat().st_mtime): return
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(made, kept)


def main(names, root=''):
    books = sorted((ROOT / 'nbs').glob('[!_.]*.ipynb'), key=lambda p: (p.stem == 'index', p.stem))
    unknown = set(names) - {p.stem for p in books}
    if unknown:
        there = ', '.join(p.stem for p in books)
        raise SystemExit(f"no notebook called {', '.join(sorted(unknown))}; there are {there}")
    for path in books:
        if names and path.stem not in names: continue
        begin = time.time()
        print(f'{path.stem}: running', flush=True)
        if path.stem in ('08_haxby', 'index'): keep_results()
        if path.stem in NEEDS_ROOT and not root:
            print(f'{path.stem}: left as it is, since it reads a folder of yours; name it with --root')
            continue
        run(path, root if path.stem in TAKES_ROOT else '')
        nbdev_clean(str(path))
        print(f'{path.stem}: {time.time() - begin:.0f} s', flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('names', nargs='*', help='of notebooks; all when not given')
    parser.add_argument('--root', default='', help='folder of the kit of the film')
    given = parser.parse_args()
    main(given.names, given.root)
