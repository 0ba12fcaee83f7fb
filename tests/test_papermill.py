"`papermill nbs/05_stage2.ipynb` by itself builds every earlier artifact, trains, decodes, and shows texts and a table."
import json, os, subprocess, sys
from pathlib import Path
import nbformat

ROOT = Path(__file__).resolve().parent.parent

def papermill(notebook, copy, out, **more):
    args = [a for k,v in (dict(preset='tiny', seed=0, out=str(out)) | more).items() for a in ('-p', k, str(v))]
    return subprocess.run([Path(sys.executable).parent/'papermill', ROOT/'nbs'/notebook, copy, '-k', 'python3', '--no-progress-bar', *args],
                          cwd=ROOT, env=os.environ | {'HF_HUB_OFFLINE': '1'}, capture_output=True, text=True)

def test_stage2_alone(tmp_path):
    out, before = tmp_path/'runs', sorted(p.name for p in (ROOT/'nbs').iterdir())
    r = papermill('05_stage2.ipynb', tmp_path/'05.ipynb', out)
    assert r.returncode==0, r.stderr[-4000:]
    nb = nbformat.read(tmp_path/'05.ipynb', 4)
    injected, = [c for c in nb.cells if 'injected-parameters' in c.metadata.get('tags', [])]
    assert 'preset = "tiny"' in injected.source
    data = [o.data for c in nb.cells if c.cell_type=='code' for o in c.outputs if 'data' in o]
    assert any('<table' in d.get('text/html', '') or '|---' in d.get('text/markdown', '') for d in data), 'no table is shown'
    manifests = list(out.rglob('manifest.json'))
    assert manifests, f'nothing was built under {out}'
    for m in manifests:
        held = json.loads(m.read_text())
        assert held['files'] and all((m.parent/f).exists() for f in held['files'])
    assert not [p for p in out.rglob('*') if 'partial' in p.name]
    assert sorted(p.name for p in (ROOT/'nbs').iterdir())==before, 'the run left something in nbs/'

def test_a_wrong_preset_is_named(tmp_path):
    r = papermill('05_stage2.ipynb', tmp_path/'05.ipynb', tmp_path/'runs', preset='huge')
    assert r.returncode!=0 and 'PresetError' in r.stderr and 'huge' in r.stderr and 'tiny' in r.stderr
