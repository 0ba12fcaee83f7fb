"Write README.md from nbs/index.ipynb and its stored outputs: `python tools/readme.py`."

import re
from pathlib import Path
import nbformat

ROOT = Path(__file__).resolve().parent.parent


def shown(cell) -> list:  # Markdown parts of one cell
    "Prose, code that is not hidden, and outputs that are Markdown or text."
    if cell.cell_type == 'markdown': return [cell.source]
    if cell.cell_type != 'code' or re.search(r'^#\|\s*(hide|default_exp)\b', cell.source, re.M):
        return []
    silent = re.search(r'^#\|\s*echo:\s*false', cell.source, re.M)
    code = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M).strip()
    parts = [f'```python\n{code}\n```'] if code and not silent else []
    for out in cell.outputs:
        data = out.get('data', {})
        if 'text/markdown' in data:
            parts.append(data['text/markdown'])
        elif 'text/plain' in data:
            parts.append(f"```\n{data['text/plain']}\n```")
        elif out.get('name') == 'stdout':
            parts.append(f"```\n{out['text'].rstrip()}\n```")
    return parts


def readme(path=ROOT / 'nbs' / 'index.ipynb') -> str:  # Markdown, with links as seen from the root
    text = '\n\n'.join(p.strip() for cell in nbformat.read(path, 4).cells for p in shown(cell) if p.strip())
    text = re.sub(r'\]\(([\w-]+\.ipynb)', r'](nbs/\1', text)
    return re.sub(r'(\]\(|src=")\.\./', r'\1', text) + '\n'


if __name__ == '__main__':
    (ROOT / 'README.md').write_text(readme())
    print('README.md: written from nbs/index.ipynb')
