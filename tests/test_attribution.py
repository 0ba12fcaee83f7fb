"A map on the brain: the page to click on loads by itself, in a browser too."

import nibabel as nib
import numpy as np
import pytest
from brainllm.evaluate import network_addresses, view_map
from chromium import find_chromium
from test_pages import browser, unless_silent  # noqa: F401


def a_map():
    "A blob on the left, on the MNI152 box at 8 mm."
    from nilearn.datasets import load_mni152_template

    box = load_mni152_template(resolution=8)
    values = np.zeros(box.shape, np.float32)
    values[6:9, 8:11, 10:12] = 1.0
    values[15:17, 8:10, 10:12] = -0.5
    return nib.Nifti1Image(values, box.affine)


@pytest.fixture(scope='module')
def view():
    return view_map(a_map(), title='A "made" map', background_mm=8)


def test_a_view_names_no_address_and_shows_itself(view, tmp_path):
    file = view.save(tmp_path / 'map.html')
    assert file.read_text() == view.page and network_addresses(view.page) == []
    shown = view._repr_html_()
    assert shown.startswith('<iframe srcdoc="') and 'title="A &quot;made&quot; map"' in shown


@pytest.mark.skipif(find_chromium() is None, reason='no Chromium here')
@unless_silent
def test_a_browser_asks_nothing_of_the_network_for_it(view, browser, tmp_path):  # noqa: F811
    file = view.save(tmp_path / 'map.html')
    browser.visit(f'file://{file}')
    drawn = browser.run("document.querySelector('canvas').width * document.querySelectorAll('canvas').length")
    seen = [e['params']['request']['url'] for e in browser.events if e.get('method') == 'Network.requestWillBeSent']
    assert drawn > 0 and any(url.endswith('map.html') for url in seen)
    assert not browser.complaints()
