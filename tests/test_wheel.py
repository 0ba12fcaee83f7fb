"The package works without its checkout: a wheel, installed in an environment of its own."

import subprocess, sys, sysconfig, venv
from pathlib import Path
import shutil

ROOT = Path(__file__).resolve().parent.parent
FILES = {'.py', '.pyi', '.typed'}


def run(*args, **kw):
    r = subprocess.run([str(a) for a in args], capture_output=True, text=True, **kw)
    assert r.returncode == 0, f'{args}: {r.stdout[-2000:]}{r.stderr[-4000:]}'
    return r.stdout


def test_wheel_in_a_fresh_environment(tmp_path):
    source, dist, fresh, elsewhere = (tmp_path / n for n in ('source', 'dist', 'fresh', 'elsewhere'))
    shutil.copytree(ROOT / 'brainllm', source / 'brainllm', ignore=shutil.ignore_patterns('__pycache__'))
    for f in ('setup.py', 'settings.ini', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / f, source)
    run(
        sys.executable,
        '-m',
        'pip',
        'wheel',
        '-q',
        '--no-deps',
        '--no-build-isolation',
        '--no-index',
        '-w',
        dist,
        source,
    )
    (wheel,) = dist.glob('brainllm-*-py3-none-any.whl')
    venv.create(fresh, with_pip=True)
    elsewhere.mkdir()
    python = fresh / 'bin' / 'python'
    run(python, '-m', 'pip', 'install', '-q', '--no-deps', '--no-index', wheel)
    site = Path(run(python, '-c', "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # The large dependencies are lent by this environment; .pth files in a lent folder are not read, so its own brainllm is not seen.
    (site / 'lent.pth').write_text(sysconfig.get_path('purelib') + '\n')
    code = """if True:
        import torch, brainllm
        from brainllm.models import FMRITokenizer
        tokens = FMRITokenizer(in_frames=5, grid=(12, 12, 12), patch=4, dim=32)(torch.zeros(2, 5, 12, 12, 12))
        print(brainllm.__file__, tuple(tokens.shape), brainllm.__version__)"""
    path, shape = run(python, '-I', '-c', code, cwd=elsewhere).strip().split(' ', 1)
    assert Path(path).resolve() == (site / 'brainllm' / '__init__.py').resolve()
    assert shape == '(2, 27, 32) 0.1.0'
    shipped = {p.relative_to(site / 'brainllm') for p in (site / 'brainllm').rglob('*') if p.suffix in FILES}
    assert shipped == {p.relative_to(ROOT / 'brainllm') for p in (ROOT / 'brainllm').rglob('*') if p.suffix in FILES}
    assert 'reproduce' in run(fresh / 'bin' / 'brainllm', '--help', cwd=elsewhere)


def test_wheel_says_what_it_needs(tmp_path):
    text = run(sys.executable, ROOT / 'setup.py', '--name', '--version', '--license', cwd=ROOT)
    assert text.split()[-3:] == ['brainllm', '0.1.0', 'Apache-2.0']
