"""Other Pythons and other versions of what the package needs: python tools/matrix.py [names of rows]

Each row gets an environment of its own under _runs/matrix, runs a small part of the tests, and is removed again. What came
of it is kept in _runs/matrix.json and printed as a table."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER, KEPT = ROOT / '_runs' / 'matrix', ROOT / '_runs' / 'matrix.json'
ROWS = {  # name -> Python, versions
    '3.11, as pinned': ('3.11', 'pinned'),
    '3.12, as pinned': ('3.12', 'pinned'),
    '3.13, as pinned': ('3.13', 'pinned'),
    '3.11, lowest': ('3.11', 'lowest'),
    '3.13, highest': ('3.13', 'highest'),
}
TESTS = ('tests/test_data.py', 'tests/test_headers.py')
PAGES = ('03_losses', '01_data', '01a_trials', '01b_files', '01c_clean', '01d_grid', '01e_blocks', '01f_frames')
BESIDE = ('pytest', 'fastcore<2', 'hypothesis', 'setuptools')  # what the tests need and the package does not


def requirements() -> list:  # 'torch>=2.13,<3', ...
    "As settings.ini has them."
    config = ConfigParser(delimiters=['='])
    config.read(ROOT / 'settings.ini')
    return config['DEFAULT']['requirements'].split()


def lowest(requirement: str) -> str:  # 'torch>=2.13,<3' -> 'torch~=2.13.0'
    "The lowest minor version that a requirement allows, with what was mended in it."
    found = re.fullmatch(r'([\w.-]+)>=([\d.]+)(?:,.*)?', requirement)
    if not found: return requirement
    parts = (found[2].split('.') + ['0', '0'])[:3]
    return f'{found[1]}~={".".join(parts)}'


def wanted(versions: str) -> list:  # arguments of pip
    "What to install."
    if versions == 'lowest': return [*map(lowest, requirements()), *BESIDE]
    if versions == 'highest': return ['--upgrade', *requirements(), *BESIDE]
    return ['-c', str(ROOT / 'constraints.txt'), *requirements(), *BESIDE]


def interpreter(version: str) -> str:  # its path, or ''
    "A Python of this version, on the path or among those of pyenv."
    named = shutil.which(f'python{version}')
    beside = sorted(Path.home().glob(f'.pyenv/versions/{version}.*/bin/python'))
    for path in [*beside, named]:
        if path and not subprocess.run([path, '-c', 'import venv'], capture_output=True).returncode: return str(path)
    return ''


def rooms() -> list:  # every module of the package
    files = [path.relative_to(ROOT) for path in sorted((ROOT / 'brainllm').rglob('*.py'))]
    names = [file.with_suffix('').as_posix().replace('/', '.').removesuffix('.__init__') for file in files]
    return [name for name in names if not name.endswith('__main__')]


def steps(python: Path) -> dict:  # name -> command
    "The part of the tests that a row runs."
    quiet = ['-q', '-p', 'no:cacheprovider']
    return {
        'import of every module': [python, '-c', f'import {", ".join(rooms())}'],
        'pages': [python, 'tests/pages.py', *PAGES],
        'pytest': [python, '-m', 'pytest', *quiet, *TESTS],
    }


def run_row(name: str) -> dict:  # step -> what came of it
    "Build, test, remove."
    version, versions = ROWS[name]
    python = interpreter(version)
    if not python: return {'python': f'no Python {version} here'}
    shutil.rmtree(FOLDER, ignore_errors=True)
    own = FOLDER / 'bin' / 'python'
    begin = time.time()
    pip = [own, '-m', 'pip', '--disable-pip-version-check', 'install', '--quiet', '--no-compile']
    builds = [[python, '-m', 'venv', FOLDER], [*pip, 'pip==26.3'], [*pip, *wanted(versions)]]
    builds += [[own, '-m', 'brainllm', 'parts'], [*pip, 'nbformat']]
    try:
        for build in builds:
            said = _call(build)
            if said: return {'installation': said}
        found = {'installation': f'well, {time.time() - begin:.0f} s', 'versions': _versions(own)}
        return found | {step: _call(command) or 'well' for step, command in steps(own).items()}
    finally: shutil.rmtree(FOLDER, ignore_errors=True)


def _call(command) -> str:  # '', or the end of what it said
    environ = dict(os.environ, PYTHONPATH=str(ROOT), HF_HUB_OFFLINE='1', PYTHONDONTWRITEBYTECODE='1')
    done = subprocess.run(list(map(str, command)), cwd=ROOT, env=environ, capture_output=True, text=True)
    return '' if not done.returncode else (done.stdout + done.stderr).replace(str(ROOT), '.').strip()[-1500:]


def _versions(python) -> str:
    names = [re.split(r'[<>=~]', requirement)[0] for requirement in requirements()][:14]
    code = f'from importlib.metadata import version\nprint(*(n + " " + version(n) for n in {names}), sep=", ")'
    return subprocess.run([python, '-c', code], capture_output=True, text=True).stdout.strip()


def main(names) -> int:
    unknown = set(names) - set(ROWS)
    if unknown: raise SystemExit(f'no row {sorted(unknown)}; there are {list(ROWS)}')
    KEPT.parent.mkdir(exist_ok=True)
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for name in names or ROWS:
        kept[name] = run_row(name)
        KEPT.write_text(json.dumps(kept, indent=1) + '\n')
        print(name, *(f'  {step}: {said}' for step, said in kept[name].items()), sep='\n', flush=True)
    bad = [name for name, row in kept.items() if any(said != 'well' for step, said in row.items() if step in steps(FOLDER))]
    bad += [name for name, row in kept.items() if 'pytest' not in row]
    print(f'{len(kept) - len(set(bad))} of {len(kept)} rows pass' + (f'; not {", ".join(sorted(set(bad)))}' if bad else ''))
    return int(bool(bad))


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
