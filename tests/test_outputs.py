"The tables and figures that a page shows are those that its cells make today."

import base64, io, json
from functools import lru_cache
from itertools import product
import matplotlib.pyplot as plt
import numpy as np
import pytest
from IPython.core.pylabtools import print_figure
from PIL import Image
from pages import ROOT, cells_to_run, inside, page_names, run_cell

LONG = ('02h_decoder', '05e_statistics', '06c_costs', '06d_audit', '06f_accelerator', '08_haxby')  # they show few
LEFT_OUT = {  # pieces of cells that train, and of cells that show what trained ones or a slow cell found
    '06a_ablation': ("'tiny'", '(some)', 'measure(run)', 'better', 'hits', 'ablation_main'),
    '06b_comparison': ("'tiny'", '(small)', 'small[', '[small'),
    '07_results': ('(result', "result['row_order']", "result['question']", "result['phases']", "result['versions']"),
}


@lru_cache
def kept(stem):  # {source of a cell: (its tables as Markdown, its pictures as PNG)}
    found = {}
    for cell in json.loads((ROOT / 'nbs' / f'{stem}.ipynb').read_text())['cells']:
        forms = [output.get('data', {}) for output in cell.get('outputs', [])]
        pictures = [base64.b64decode(form['image/png']) for form in forms if 'image/png' in form]
        found[''.join(cell['source'])] = tables([''.join(form.get('text/markdown', '')) for form in forms]), pictures
    return found


def tables(forms): return [text for text in forms if text.startswith('|')]


def cells_of(stem):
    left_out = LEFT_OUT.get(stem, ())
    return [source for source in cells_to_run(stem) if not any(piece in source for piece in left_out)]


PAGES = [stem for stem in page_names() if stem not in LONG and any(kept(stem)[source][0] for source in cells_of(stem))]


def drawn():  # the open figures, each as two PNG: a layout settles while it is drawn, and a notebook draws once or twice
    figures = [plt.figure(number) for number in plt.get_fignums()]
    made = [[print_figure(figure, fmt='png') for _ in range(2)] for figure in figures]
    plt.close('all')
    return made


def are_alike(one, other):  # two PNG, of which one may be cut off by a pixel or two more
    first, second = (np.asarray(Image.open(io.BytesIO(picture)).convert('RGB'), float) for picture in (one, other))
    if np.abs(np.subtract(first.shape, second.shape)).max() > 2: return False
    rows, columns = np.minimum(first.shape[:2], second.shape[:2])
    cuts = [[picture[:rows, :columns], picture[-rows:, -columns:]] for picture in (first, second)]
    return min(np.abs(a - b).mean() for a, b in product(*cuts)) < 1.0


@pytest.mark.parametrize('stem', PAGES)
def test_a_page_shows_what_its_cells_make(stem, monkeypatch):
    monkeypatch.chdir(ROOT / 'nbs')
    plt.close('all')
    shown = []

    def display(*values):
        shown.extend(value._repr_markdown_() for value in values if hasattr(value, '_repr_markdown_'))

    with inside(stem, display) as names:
        for k, source in enumerate(cells_of(stem)):
            shown.clear()
            run_cell(source, names, f'{stem}, cell {k}', display)
            (wanted, pictures), made = kept(stem)[source], drawn()
            assert tables(shown) == wanted, f'{source}: run the page again and keep what it shows'
            assert len(made) == len(pictures), source
            for ways, other in zip(made, pictures, strict=True): assert any(are_alike(one, other) for one in ways), source


def test_most_are_looked_at():
    cells = [kept(stem)[source] for stem in PAGES for source in cells_of(stem)]
    assert len(PAGES) > 15 and sum(len(found[0]) for found in cells) > 50 and sum(len(found[1]) for found in cells) >= 10
