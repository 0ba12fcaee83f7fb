"The tables that a page shows are those that its cells make today."

import json
from functools import lru_cache
import pytest
from pages import ROOT, cells_to_run, inside, page_names, run_cell

LONG = ('02h_decoder', '05e_statistics', '06c_costs', '06d_audit', '06f_accelerator', '08_haxby')  # they show few
LEFT_OUT = {  # pieces of cells that train, and of cells that show what trained ones or a slow cell found
    '06a_ablation': ("'tiny'", '(some)', 'measure(run)', 'better', 'hits', 'ablation_main'),
    '06b_comparison': ("'tiny'", '(small)', 'small[', '[small'),
    '07_results': ('(result', "result['row_order']", "result['question']", "result['phases']", "result['versions']"),
}


@lru_cache
def kept_tables(stem):  # {source of a cell: [its tables, as Markdown]}
    found = {}
    for cell in json.loads((ROOT / 'nbs' / f'{stem}.ipynb').read_text())['cells']:
        forms = [''.join(output.get('data', {}).get('text/markdown', '')) for output in cell.get('outputs', [])]
        found[''.join(cell['source'])] = tables(forms)
    return found


def tables(forms): return [text for text in forms if text.startswith('|')]


def cells_of(stem):
    left_out = LEFT_OUT.get(stem, ())
    return [source for source in cells_to_run(stem) if not any(piece in source for piece in left_out)]


PAGES = [stem for stem in page_names() if stem not in LONG and any(map(kept_tables(stem).get, cells_of(stem)))]


@pytest.mark.parametrize('stem', PAGES)
def test_a_page_shows_the_tables_of_today(stem, monkeypatch):
    monkeypatch.chdir(ROOT / 'nbs')
    shown = []

    def display(*values):
        shown.extend(value._repr_markdown_() for value in values if hasattr(value, '_repr_markdown_'))

    with inside(stem) as names:
        names['display'] = display
        for k, source in enumerate(cells_of(stem)):
            shown.clear()
            run_cell(source, names, f'{stem}, cell {k}')
            assert tables(shown) == kept_tables(stem)[source], f'{source}: run the page again and keep what it shows'


def test_most_tables_are_looked_at():
    looked = [source for stem in PAGES for source in cells_of(stem) if kept_tables(stem)[source]]
    assert len(PAGES) > 15 and len(looked) > 50
