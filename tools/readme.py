"Write README.md from nbs/index.ipynb and its stored outputs: `python tools/readme.py`."

import base64
import re
from pathlib import Path
import nbformat

ROOT = Path(__file__).resolve().parent.parent
INLINE = re.compile(r'<img src="data:image/jpeg;base64,([^"]*)" alt="([^"]*)"[^>]*>')  # a README shows files alone


def shown(cell, pictures: dict) -> list:  # Markdown parts of one cell
    "Prose, code that is not hidden, and outputs that are drawings, Markdown or text; pictures go into the dict."
    if cell.cell_type == 'markdown': return [cell.source]
    if cell.cell_type != 'code' or re.search(r'^#\|\s*(hide|default_exp)\b', cell.source, re.M):
        return []
    silent = re.search(r'^#\|\s*echo:\s*false', cell.source, re.M)
    code = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M).strip()
    parts = [f'```python\n{code}\n```'] if code and not silent else []
    for out in cell.outputs:
        data = out.get('data', {})
        if 'image/svg+xml' in data:
            parts.append(drawing(data['image/svg+xml'], pictures))
        elif 'text/markdown' in data:
            parts.append(INLINE.sub(lambda found: photo(found, pictures), data['text/markdown']))
        elif 'text/plain' in data:
            parts.append(f"```\n{data['text/plain']}\n```")
        elif out.get('name') == 'stdout':
            parts.append(f"```\n{out['text'].rstrip()}\n```")
    return parts


def drawing(svg: str, pictures: dict) -> str:
    "An SVG as a file beside the README."
    name = f'readme-{len(pictures) + 1}.svg'
    pictures[name] = svg.encode()
    title = re.search('<title>(.*?)</title>', svg)
    return f'![{title[1] if title else ""}](figures/{name})'


def photo(found: re.Match, pictures: dict) -> str:
    "A picture in the text as a file beside the README."
    name = f'readme-{len(pictures) + 1}.jpg'
    pictures[name] = base64.b64decode(found[1])
    return f'<img src="figures/{name}" alt="{found[2]}">'


def readme(path=ROOT / 'nbs' / 'index.ipynb') -> tuple:  # Markdown, with links as seen from the root; {name: bytes}
    "The first page, and its pictures."
    pictures: dict = {}
    parts = [p for cell in nbformat.read(path, 4).cells for p in shown(cell, pictures)]
    text = '\n\n'.join(p.strip() for p in parts if p.strip())
    text = re.sub(r'\]\(([\w-]+\.ipynb)', r'](nbs/\1', text)
    return re.sub(r'(\]\(|src=")\.\./', r'\1', text) + '\n', pictures


def main():
    "README.md and figures/readme-*."
    text, pictures = readme()
    (ROOT / 'README.md').write_text(text)
    for old in (ROOT / 'figures').glob('readme-*'): old.unlink()
    for name, data in pictures.items(): (ROOT / 'figures' / name).write_bytes(data)
    print('README.md: written from nbs/index.ipynb')


if __name__ == '__main__': main()
