"""Pages as plain scripts: what `nbdev_test` runs of a notebook, against the module that it has written.

python tests/pages.py 03_losses 01a_trials    runs these pages; without names all of them"""

import ast
import contextlib
import importlib
import json
import os
import re
import sys
import time
from functools import lru_cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = re.compile(r'^#\|\s*(default_exp|export|slow|notest|gpu|eval:\s*false)\b', re.M)
MAGIC = re.compile(r'^\s*[%!]', re.M)


def page_names() -> list:  # stems of the notebooks
    return sorted(path.stem for path in (ROOT / 'nbs').glob('[!_.]*.ipynb'))


def module_of(stem: str) -> str:  # 'brainllm.data.trials', or '' where a page writes no module
    for source in _code_cells(stem):
        found = re.search(r'^#\|\s*default_exp\s+(\S+)', source, re.M)
        if found: return f'brainllm.{found[1]}'
    return ''


def page_of(module: str) -> str:  # stem of the notebook that writes a module
    return next(stem for stem in page_names() if module_of(stem) == module)


def cells_to_run(stem: str) -> list:  # sources, from first to last
    return [source for source in _code_cells(stem) if not LEFT_OUT.search(source) and not MAGIC.search(source)]


def run_page(stem: str):
    "Run a page from the notebooks' folder."
    os.chdir(ROOT / 'nbs')
    with inside(stem) as names:
        for k, source in enumerate(cells_to_run(stem)): run_cell(source, names, f'{stem}, cell {k}')


def shown(*values):
    "Ask for the forms that a notebook asks for; one that fails is left out there too."
    for value in values:
        for form in ('__repr__', '_repr_html_', '_repr_markdown_', '_repr_svg_', '_repr_png_'):
            try:
                if not isinstance(value, type) and hasattr(value, form): getattr(value, form)()
            except Exception as error: print(f'{form}: {error}')


@contextlib.contextmanager
def inside(stem: str, show=shown):  # show: `display` in the page -> the module's names; afterwards what they were
    "The module that a page writes, as a notebook's own, so that what a cell sets is what the functions see."
    written = module_of(stem)
    module = importlib.import_module(written) if written else ModuleType('page')
    main, names = sys.modules['__main__'], vars(module)
    before = dict(names)
    sys.modules['__main__'] = module
    names |= dict(__name__='__main__', display=show)
    try:
        yield names
    finally:
        sys.modules['__main__'] = main
        names.clear()
        names |= before


def run_cell(source: str, names: dict, title: str, show=shown):  # not `display`: a page may call something so
    "One cell; what its last line gives is shown, as a notebook does."
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, title, 'exec'), names)
    if last is not None: show(eval(compile(ast.Expression(last.value), title, 'eval'), names))


@lru_cache(None)
def _code_cells(stem):  # sources
    cells = json.loads((ROOT / 'nbs' / f'{stem}.ipynb').read_text())['cells']
    return [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']


def main(names) -> int:
    for stem in names or page_names():
        begin = time.time()
        run_page(stem)
        print(f'{stem}: {time.time() - begin:.1f} s', flush=True)
    return 0


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
