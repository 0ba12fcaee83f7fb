"""Run the notebooks in place with their own parameters and keep their outputs: `python tools/notebooks.py [names]`.

The site shows these outputs, so they come from real runs. Results are copied to `data/results/`, ablations to `data/ablation/`."""

import base64, re, shutil, sys, tempfile, time
from pathlib import Path
import nbformat
from nbclient import NotebookClient
from nbdev.clean import nbdev_clean

ROOT = Path(__file__).resolve().parent.parent
WIDGET = 'application/vnd.jupyter.widget-view+json'  # a library's live bar: nothing to see once it has run


def tidy(text: str) -> str:  # without what differs from machine to machine, and bars at their last state
    text = (
        '\n'.join(line.rstrip('\r').rsplit('\r', 1)[-1] for line in text.split('\n'))
        .replace(f'{ROOT}/', '')
        .replace(sys.prefix, '.venv')
    )
    return re.sub(re.escape(tempfile.gettempdir()) + r'/tmp\w+', 'tmp', text)


def keep_figures(nb, stem: str):  # figures/<notebook>-<n>.png
    "The pictures of a notebook, as files."
    (ROOT / 'figures').mkdir(exist_ok=True)
    for old in (ROOT / 'figures').glob(f'{stem}-*.png'):
        old.unlink()
    pictures = [
        o['data']['image/png'] for c in nb.cells for o in c.get('outputs', []) if 'image/png' in o.get('data', {})
    ]
    for k, p in enumerate(pictures, 1):
        (ROOT / 'figures' / f'{stem}-{k}.png').write_bytes(base64.b64decode(p))


def run(path: Path):
    "Run one notebook from its own folder; an error stops everything and leaves the notebook as it was."
    nb = nbformat.read(path, 4)
    NotebookClient(
        nb,
        timeout=None,
        kernel_name='python3',
        resources={'metadata': {'path': str(path.parent)}},
        coalesce_streams=True,
        store_widget_state=False,
    ).execute()
    for cell in nb.cells:
        if 'outputs' in cell:
            cell.outputs = [o for o in cell.outputs if WIDGET not in o.get('data', {})]
        for out in cell.get('outputs', []):
            if out.output_type == 'stream':
                out.text = tidy(out.text)
            for mime, data in out.get('data', {}).items():
                if mime.startswith('text/'):
                    out.data[mime] = tidy(data)
    nb.metadata.pop('language_info', None)
    nbformat.write(nb, path)
    keep_figures(nb, path.stem)


def keep_results():
    "Copy what runs left under _runs to data/, where pages read it."
    kept = {
        f'_runs/{name}/{file}.json': f'data/{to}.json'
        for name in ('sim-had', 'sim-urgen', 'sim-urgen-unseen', 'haxby')
        for file, to in dict(
            result=f'results/{name}',
            ablation=f'ablation/{name}',
            compare=f'compare/{name}',
            starts=f'results/{name}-starts',
        ).items()
    }
    for src, dst in kept.items():
        if (ROOT / src).exists():
            (ROOT / dst).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / src, ROOT / dst)


def main(names):
    books = sorted((ROOT / 'nbs').glob('[!_.]*.ipynb'), key=lambda p: (p.stem == 'index', p.stem))
    unknown = set(names) - {p.stem for p in books}
    if unknown:
        raise SystemExit(
            f"no notebook called {', '.join(sorted(unknown))}; there are {', '.join(p.stem for p in books)}"
        )
    for path in books:
        if names and path.stem not in names: continue
        begin = time.time()
        print(f'{path.stem}: running', flush=True)
        if path.stem in ('08_haxby', 'index'):
            keep_results()
        run(path)
        nbdev_clean(str(path))
        print(f'{path.stem}: {time.time() - begin:.0f} s', flush=True)


if __name__ == '__main__':
    main(sys.argv[1:])
