"The pages that people read first: short, plain, and with no number that a file does not say."

import os, re, subprocess, sys
from pathlib import Path
import nbformat, pytest

ROOT = Path(__file__).resolve().parent.parent
READ = ('14_plain', '14a_real', '14b_your_study', '14c_your_decoder', '14d_glossary', '14e_cite')


def cells(stem):
    return nbformat.read(ROOT / 'nbs' / f'{stem}.ipynb', 4).cells


def shown(stem) -> str:  # what a reader reads: prose, and what hidden code wrote
    parts = []
    for c in cells(stem):
        if c.cell_type == 'markdown':
            parts.append(c.source)
        parts += [o.data['text/markdown'] for o in c.get('outputs', []) if 'text/markdown' in o.get('data', {})]
    return '\n\n'.join(parts)


def test_in_plain_words_takes_five_minutes():
    assert 300 < len(re.findall(r"[\w'-]+", shown('14_plain'))) <= 1000  # at 200 words a minute


@pytest.mark.parametrize('stem', READ)
def test_sentences_are_short(stem):
    text = re.sub(r'```.*?```|^\|.*?$|^#.*?$', '\n\n', shown(stem), flags=re.S | re.M)
    text = re.sub(r'\]\([^)]*\)|`[^`]*`', ' x ', text)
    sentences = re.split(r'(?<=[.!?:;])\s|\n\s*\n|\n(?=[-\d])', text)
    long = [s for s in sentences if len(re.findall(r"[\w'-]+", s)) >= 40]
    assert len(sentences) > 3 and not long


def test_numbers_of_in_plain_words_are_those_of_the_files():
    "No score is typed: prose has no digits, and what its code writes now is what is stored."
    prose = ''.join(re.sub(r'\]\([^)]*\)', '', c.source) for c in cells('14_plain') if c.cell_type == 'markdown')
    assert re.findall(r'\d+', re.sub(r'^\d\. ', '', prose, flags=re.M)) == ['2024']  # the year of the paper
    names, said = {}, 0
    for c in cells('14_plain'):
        if c.cell_type != 'code':
            continue
        before, call, after = c.source.rpartition('Markdown(f')
        exec(compile(f'{before}{"now = " if call else ""}{call}{after}', '14_plain', 'exec'), names)
        if not call:
            continue
        said += 1
        assert names['now'].data == c.outputs[0].data['text/markdown'], 'python tools/notebooks.py 14_plain'
    assert said == 3


def commands() -> list:  # of the page on a study of one's own
    text = '\n'.join(c.source for c in cells('14b_your_study') if c.cell_type == 'markdown')
    return re.search(r'```sh\n(.*?)```', text, re.S)[1].strip().split('\n')


def test_ten_commands_from_a_folder_to_text(tmp_path):
    "As they stand on the page; BOLD and EVENTS are the paths of one run."
    lines = commands()
    assert len(lines) == 10
    (tmp_path / 'bin').mkdir()
    program = tmp_path / 'bin' / 'brainllm'
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m brainllm "$@"\n')
    program.chmod(0o755)
    (tmp_path / 'data').symlink_to(ROOT / 'data')
    environment = os.environ | dict(
        PATH=f'{program.parent}:{os.environ["PATH"]}', PYTHONPATH=str(ROOT), HF_HUB_OFFLINE='1'
    )
    printed = []
    for line in lines:
        bold = min(tmp_path.glob('study/derivatives/fmriprep/sub-04/**/*task-action*desc-preproc_bold.nii.gz'), default='')
        events = min(tmp_path.glob('study/sub-04/**/*task-action*events.tsv'), default='')
        line = line.replace('study/BOLD', str(bold)).replace('study/EVENTS', str(events))
        done = subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f'{line}\n{done.stdout[-800:]}{done.stderr[-1500:]}'
        printed.append(done.stdout)
    trials = [row for row in Path(events).read_text().splitlines()[1:] if '.avi' in row]
    assert printed[-1].count('\n') == 1 + len(trials) > 1
    assert 'no brain' in printed[4] and 'no brain' in printed[5]


def test_how_to_cite_says_what_the_file_says():
    text = ''.join(o.get('text', '') for c in cells('14e_cite') for o in c.get('outputs', []))
    file = (ROOT / 'CITATION.cff').read_text()
    for key in ('version', 'title', 'repository-code'):
        value = re.search(rf'^{key}: "?(.*?)"?$', file, re.M)[1]
        assert value in text, key
    assert '2409.17987' in text and 'Zheng, Ruizhe' in text
