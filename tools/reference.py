"""The reference of public names, from the source alone: nothing is imported and no code runs.

An exported cell becomes, for each public name in it, a heading, a signature, what the docstring says, a table of
parameters (type, default, and the comment beside each, which holds shape and unit), and its source, folded."""

import ast, io, re, tokenize
from bisect import bisect_left
from functools import lru_cache
from dataclasses import dataclass, field

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)
WIDTH = 84  # of a signature, characters
SHOWN = 14  # lines of a constant that is not folded


@dataclass
class Parameter:
    "One row of a table."

    name: str
    type: str = ''
    default: str = ''
    note: str = ''  # the comment beside it


@dataclass
class Entry:
    "What is said of one public name."

    name: str  # 'Class.method' for a method
    kind: str  # 'function', 'class', 'method' or 'property'
    signature: str
    doc: str
    parameters: list
    returns: Parameter | None
    line: int  # in the source that it was read from
    methods: list = field(default_factory=list)
    fields: bool = False  # the parameters are fields of a record
    twin: bool = False  # another name of the page differs from it in capitals alone

    @property
    def id(self) -> str:
        return self.name.lower() + ('-2' if self.twin else '')


class Comments:
    "Comments of a source by line, and where the header of a definition ends."

    def __init__(self, source: str):
        self.tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
        self.starts = [t.start for t in self.tokens]
        self.lines = source.splitlines()
        self.aliases = {}  # types of a command line by name, `Annotated` with what they mean
        self.at = {t.start[0]: t.string[1:].strip() for t in self.tokens if t.type == tokenize.COMMENT}

    def meaning(self, annotation) -> tuple:  # type, and what an `Annotated` of a command line says of it
        node = self.aliases.get(_text(annotation), annotation)
        if not _text(node).startswith('Annotated['):
            return _text(annotation), ''
        kind, *said = node.slice.elts
        words = [k.value for call in said if isinstance(call, ast.Call) for k in call.keywords if k.arg == 'help']
        return _text(kind), ' '.join(w.value for w in words if isinstance(w, ast.Constant))

    def beside(self, node) -> str:  # the comment on the last line of a field, else the whole lines above it
        if node.end_lineno in self.at:
            return self.at[node.end_lineno]
        above, n = [], node.lineno - 1
        while n in self.at and self.lines[n - 1].lstrip().startswith('#'):
            above.insert(0, self.at[n])
            n -= 1
        return ' '.join(above)

    def header_end(self, node) -> int:  # line of the colon
        depth = 0
        for t in self.tokens[bisect_left(self.starts, (node.lineno, 0)) :]:
            if t.type != tokenize.OP:
                continue
            depth += (t.string in '([{') - (t.string in ')]}')
            if t.string == ':' and not depth:
                return t.start[0]
        return node.lineno


def _text(node) -> str:
    return '' if node is None else ast.unparse(node)


def _parameters(node, comments: Comments, end: int) -> list:  # of a function, `self` and `cls` aside
    a = node.args
    plain = a.posonlyargs + a.args
    defaults = [None] * (len(plain) - len(a.defaults)) + list(a.defaults)
    rows = list(zip([p.arg for p in plain], plain, defaults, strict=True))
    rows += [(f'*{a.vararg.arg}', a.vararg, None)] if a.vararg else []
    rows += [(p.arg, p, d) for p, d in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    rows += [(f'**{a.kwarg.arg}', a.kwarg, None)] if a.kwarg else []
    out = []
    for name, arg, default in rows:
        if name in ('self', 'cls') and arg is plain[0]:
            continue
        last = default if default is not None else arg
        own = last.end_lineno not in (node.lineno, end)  # on the header's first or last line a comment is of the whole
        kind, words = comments.meaning(arg.annotation)
        note = (comments.beside(last) if own else '') or words
        out.append(Parameter(name, kind, _text(default), note))
    return out


def _decorators(node) -> list:
    return [_text(d).split('(')[0].split('.')[-1] for d in node.decorator_list]


def _fields(node, comments: Comments) -> list:  # of a dataclass or named tuple
    rows = []
    for n in node.body:
        if not isinstance(n, ast.AnnAssign) or n.target.id.startswith('_'):
            continue
        if 'ClassVar' in _text(n.annotation):
            continue
        rows.append(Parameter(n.target.id, _text(n.annotation), _text(n.value), comments.beside(n)))
    return rows


def _written(name: str, parameters: list, returns: str = '') -> str:  # a signature, wrapped at WIDTH
    parts = []
    for p in parameters:
        typed = f'{p.name}: {p.type}' if p.type else p.name
        parts.append(typed + (f' = {p.default}' if p.default and p.type else f'={p.default}' if p.default else ''))
    tail = f') -> {returns}' if returns else ')'
    line = f'{name}({", ".join(parts)}{tail}'
    if len(line) <= WIDTH:
        return line
    lines = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 2 <= WIDTH:
            lines[-1] += f' {part},'
        else:
            lines.append(f'    {part},')
    return '\n'.join([f'{name}(', *lines, tail])


def _function(node, comments: Comments, owner: str = '') -> Entry:
    end = comments.header_end(node)
    parameters = _parameters(node, comments, end)
    note = comments.at.get(end, '') if node.body[0].lineno > end else ''
    returns = Parameter('returns', _text(node.returns), '', note) if node.returns or note else None
    marks = _decorators(node)
    name = f'{owner}.{node.name}' if owner else node.name
    doc = ast.get_docstring(node) or ''
    if 'property' in marks or 'cached_property' in marks:
        kind, signature = 'property', name + (f': {_text(node.returns)}' if node.returns else '')
    else:
        kind = 'method' if owner else 'function'
        signature = _written(name, parameters, _text(node.returns))
        kept = [m for m in marks if m in ('staticmethod', 'classmethod', 'contextmanager')]
        signature = ''.join(f'@{m}\n' for m in kept) + signature
    return Entry(name, kind, signature, doc, parameters, returns, node.lineno)


def _class(node, comments: Comments) -> Entry:
    made = next((n for n in node.body if isinstance(n, FUNCTIONS) and n.name == '__init__'), None)
    record = 'dataclass' in _decorators(node) or any(_text(b).endswith('NamedTuple') for b in node.bases)
    if made:
        parameters = _parameters(made, comments, comments.header_end(made))
    else:
        parameters = _fields(node, comments)
    bases = ', '.join(_text(b) for b in node.bases)
    signature = f'class {node.name}({bases})' if bases else f'class {node.name}'
    if made or record:
        signature += '\n' + _written(node.name, parameters)
    entry = Entry(node.name, 'class', signature, ast.get_docstring(node) or '', parameters, None, node.lineno)
    entry.fields = not made
    for n in node.body:
        if isinstance(n, FUNCTIONS) and not n.name.startswith('_') and _speaks(n):
            entry.methods.append(_function(n, comments, node.name))
    return entry


def _speaks(node) -> bool:  # a method that says what it does; one that only answers a base class is part of the source
    return bool(ast.get_docstring(node))


@lru_cache(None)
def read(source: str) -> tuple:  # {public name: Entry}, {public name of a value: the comment beside it}
    "What a module makes at its top, in its order."
    comments = Comments(source)
    made, values = {}, {}
    for node in ast.parse(source).body:
        if isinstance(node, DEFINITIONS):
            if not node.name.startswith('_'):
                entry = (_class if isinstance(node, ast.ClassDef) else _function)(node, comments)
                entry.twin = entry.name.lower() in {name.lower() for name in made}
                made[node.name] = entry
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            if _text(node.value).startswith('Annotated['):
                comments.aliases |= dict.fromkeys(_assigned(node), node.value)
            note = comments.at.get(node.lineno) or comments.beside(node)
            values |= {name: note for name in _assigned(node) if not name.startswith('_')}
    return made, values


def _assigned(node) -> list:  # names that an assignment gives a value
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    named = [n for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    return [n.id for n in named if isinstance(n.ctx, ast.Store)]


def as_markdown(text: str) -> str:  # prose of a docstring or comment: only backticks mean something in it
    parts = re.split(r'(`[^`\n]+`)', text)
    return ''.join(p if i % 2 else re.sub(r'([\\*_<>|$\[\]#~^@{}])', r'\\\1', p) for i, p in enumerate(parts))


def in_cell(text: str) -> str:  # prose in a cell of a Markdown table
    return as_markdown(' '.join(text.split()))


def _coded(text: str) -> str:  # code in a cell of a Markdown table
    text = ' '.join(text.split())
    if not text:
        return ''
    fence = '``' if '`' in text else '`'
    return fence + text.replace('|', '\\|') + fence


def parameter_table(entry: Entry) -> str:
    "Parameters and what comes back, as a Markdown table of the columns that say anything."
    rows = entry.parameters + ([entry.returns] if entry.returns else [])
    if not rows:
        return ''
    keys = [k for k in ('type', 'default', 'note') if any(getattr(r, k) for r in rows)]
    title = dict(type='Type', default='Default', note='What it is')
    head = ['Field' if entry.fields else 'Parameter']
    lines = [' | '.join(head + [title[k] for k in keys]), ' | '.join(['---'] * (len(keys) + 1))]
    for r in rows:
        # in HTML, since a parameter is no name that links could be made of
        name = '**Returns**' if r is entry.returns else f'<code class="parameter">{r.name.replace("*", "&#42;")}</code>'
        cells = [name] + [in_cell(r.note) if k == 'note' else _coded(getattr(r, k)) for k in keys]
        lines.append(' | '.join(cells))
    return '\n'.join(f'| {line} |' for line in lines)


def docstring(text: str) -> str:  # as Markdown: paragraphs, and what is indented as it stands
    out = []
    for paragraph in re.split(r'\n\s*\n', text.strip()):
        lines = paragraph.split('\n')
        if all(line.startswith('    ') for line in lines):
            out.append('```\n' + '\n'.join(line[4:] for line in lines) + '\n```')
        else:
            out.append(as_markdown(paragraph))
    return '\n\n'.join(out)


def entry_markdown(entry: Entry, link: str = '', level: int = 3) -> str:  # link: of the source
    "Heading, signature, docstring, parameters; then the methods that say what they do, a level deeper."
    parts = [f'{"#" * level} {as_markdown(entry.name)} {{#{entry.id} .symbol}}']
    if link:
        parts.append(f'[source]({link}){{.source-link}}')
    parts += [f'```{{.python .signature}}\n{entry.signature}\n```', docstring(entry.doc), parameter_table(entry)]
    return '\n\n'.join(p for p in parts if p)


def pieces(code: str) -> list:  # of [kind, code, names that it makes]
    "A cell in pieces: one for each public definition, its name as kind; one for what stands between two of them."
    lines = code.rstrip().split('\n')
    out, begin = [], 0
    body = ast.parse(code).body
    for i, node in enumerate(body):
        end = node.end_lineno if i + 1 < len(body) else len(lines)
        text = '\n'.join(lines[begin:end]).strip('\n')
        begin = end
        kind = _kind(node)
        if out and kind.startswith(':') and out[-1][0] == kind:
            out[-1][1] += '\n' + text
            out[-1][2] += _made(node)
        else:
            out.append([kind, text, _made(node)])
    return out


def _made(node) -> list:  # names, methods as 'Class.method'
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        return _assigned(node)
    if not isinstance(node, DEFINITIONS):
        return []
    inside = [n for n in node.body if isinstance(n, FUNCTIONS)] if isinstance(node, ast.ClassDef) else []
    return [node.name, *(f'{node.name}.{n.name}' for n in inside)]


def _kind(node) -> str:
    if isinstance(node, DEFINITIONS):
        return ':helpers' if node.name.startswith('_') else node.name
    return ':imports' if isinstance(node, (ast.Import, ast.ImportFrom)) else ':values'
