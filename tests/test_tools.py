"The tools that look at the tests: pages as scripts, versions, known faults."

import runpy
import sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
FAULTS = runpy.run_path(str(ROOT / 'tools' / 'known_faults.py'))
MATRIX = runpy.run_path(str(ROOT / 'tools' / 'matrix.py'))
FINE, BAD = dict(name='a', version='1', vulns=[]), dict(name='b', version='2', vulns=[dict(id='CVE-1')])
UNKNOWN = dict(name='c', skip_reason='not found')


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.setattr(sys, 'path', [str(ROOT / 'tests'), *sys.path])
    import pages

    return pages


def test_a_page_is_its_cells_without_those_that_write_the_module(pages):
    cells = pages.cells_to_run('03_losses')
    assert len(cells) > 10 and not [cell for cell in cells if '#| export' in cell or '#| slow' in cell]
    assert pages.module_of('03_losses') == 'brainllm.losses' and pages.page_of('brainllm.losses') == '03_losses'
    assert not pages.module_of('07_results')


def test_a_page_fails_where_an_assert_does(pages, monkeypatch):
    monkeypatch.chdir(ROOT)
    pages.run_page('03_losses')
    monkeypatch.setattr('brainllm.losses.l2l1_loss', lambda z, x, alpha=0.5: z.sum() + 1)
    with pytest.raises(AssertionError): pages.run_page('03_losses')


@pytest.mark.parametrize(
    'packages, code, said',
    [
        ([FINE], 0, '1 of 1 packages were looked up'),
        ([FINE, BAD], 1, 'b 2: CVE-1'),
        ([FINE, BAD, UNKNOWN], 1, 'CVE-1'),
        ([FINE, UNKNOWN], 2, 'THE OTHERS WERE NOT CHECKED'),
        ([UNKNOWN], 2, 'NOT CHECKED: the service that answers knows 0 of 1'),
        (None, 2, 'NOT CHECKED: no service'),
    ],
)
def test_what_was_not_looked_up_is_not_called_fine(packages, code, said):
    found, lines = FAULTS['judge'](packages, 'Name or service not known\n')
    assert found == code and any(said in line for line in lines)


@pytest.mark.parametrize('wide, low', [('torch>=2.13,<3', 'torch~=2.13.0'), ('tqdm>=4.70', 'tqdm~=4.70.0')])
def test_lowest_versions(wide, low):
    assert MATRIX['lowest'](wide) == low and MATRIX['lowest']('bert-score==0.3.13') == 'bert-score==0.3.13'
    assert set(MATRIX['requirements']()) >= {'bert-score==0.3.13'}
    assert 'torch~=2.13.0' in MATRIX['wanted']('lowest') and '--upgrade' in MATRIX['wanted']('highest')


def test_no_major_version_is_taken_unseen():
    assert not [found for found in MATRIX['requirements']() if '==' not in found and ',<' not in found]
