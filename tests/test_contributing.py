"The worked examples of CONTRIBUTING.md run as they are printed, and its map names what is there."

import re, subprocess, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / 'CONTRIBUTING.md').read_text()
EXAMPLES = dict(re.findall(r'^### (.*?)\n(?:(?!^### ).)*?^```python\n(.*?)^```', TEXT, re.M | re.S))


def test_every_python_block_is_an_example():
    assert len(EXAMPLES) == TEXT.count('```python') == 5
    assert set(EXAMPLES) == {'A dataset', 'A metric', 'A teacher', 'A loss', 'A control'}


@pytest.mark.parametrize('name', EXAMPLES)
def test_example_runs(name, tmp_path):
    file = tmp_path / 'my_lab.py'
    file.write_text(EXAMPLES[name])
    run = subprocess.run([sys.executable, file], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert 'assert ' in EXAMPLES[name] and run.stdout.strip()


def test_what_is_named_is_there():
    for path in re.findall(r'`((?:nbs|tests|tools|data)/[\w./]+)`', TEXT): assert (ROOT / path).exists(), path
    for room in re.findall(r'`((?:data|models|datasets|video|stages|evaluate|simulate)\.[a-z_0-9]+)`', TEXT):
        assert (ROOT / 'brainllm' / f'{room.replace(".", "/")}.py').exists(), room
    layers = re.search(r'```\n(core .*?)```', TEXT, re.S)[1].replace('<', ' ').split()
    made = {p.stem for p in (ROOT / 'brainllm').glob('[!_]*') if p.suffix == '.py' or p.is_dir()}
    assert set(layers) == made - {'ablation', 'compare', 'statistics', 'py'} and len(layers) == len(set(layers))


def test_the_map_of_the_readme_names_every_page():
    text = (ROOT / 'README.md').read_text()
    rows = [line for line in text[text.index('## Map') :].splitlines() if line.startswith('| ')]
    named = {stem for row in rows for stem in re.findall(r'\(nbs/(\w+)\.ipynb\)', row)}
    assert named == {p.stem for p in (ROOT / 'nbs').glob('*.ipynb')} - {'index'}
