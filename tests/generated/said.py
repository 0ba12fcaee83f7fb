"What is said on a command line or by papermill: presets, settings, people, seeds."

from hypothesis import strategies as st
from brainllm.presets import as_names, as_seed, as_text, choose_study, get_preset, PRESETS
from brainllm.stages.experiment import open_experiment
from . import Example, family, fault_of, pick

LEAVES = {  # a setting -> values that fit it, values that do not
    'stage1__epochs': ((1, 3), (1.5, '3', None, True, [3])),
    'stage2__lr': ((0.001, 1), ('x', None, True, [], float('nan'), float('inf'), 10**400)),
    'device': (('cpu', 'cuda'), (0, None, [])),
    'simulated': ((True, False), (1, 'yes', None)),
    'study__targets': ((('01',), ()), ('01', ['01'], 7, None)),
    'video__vit': (('tiny',), (7, None, ['x'])),
}


@family('preset and its settings')
def preset(draw, folder):
    name, leaf = pick(draw, sorted(PRESETS)), pick(draw, LEAVES)
    good, bad = LEAVES[leaf]
    value = pick(draw, good)
    fault = fault_of(draw, ('a value', 'no such preset', 'no such field', 'nothing below', 'a name that is none'))
    asked = name
    if fault == 'a value': value = pick(draw, bad)
    if fault == 'no such preset': asked = pick(draw, ('had2', '', 'HAD', '../had', 'tiny '))
    if fault == 'a name that is none': asked = pick(draw, (None, 7, 1.5, [], {}, ('had',)))
    if fault == 'no such field': leaf = pick(draw, ('stage9__lr', 'stage1__lrr', 'nothing', '', '__'))
    if fault == 'nothing below': leaf = 'device__kind'

    def read():
        node = get_preset(asked, **{leaf: value})
        for part in leaf.split('__'): node = getattr(node, part)
        return node

    where = 'preset' if asked != name else name
    return Example(read, where, value, fault)


TEXTS = (('had', 'had'), (2024, '2024'), (None, ''), ('', ''), ('a b', 'a b'))
NO_TEXTS = (1.5, True, ['a'], {}, float('nan'), b'x')


@family('words by papermill')
def text(draw, folder):
    where = pick(draw, ('root', 'source', 'weights', 'answers', 'device'))
    value, want = pick(draw, TEXTS)
    fault = fault_of(draw, ('no words',))
    if fault: value = pick(draw, NO_TEXTS)
    return Example(lambda: as_text(value, where), where, want, fault)


@family('people by papermill')
def people(draw, folder):
    where = pick(draw, ('subjects', 'targets'))
    names = draw(st.lists(st.sampled_from(['01', '02', '7', 'anna', '100']), max_size=4, unique=True))
    made = pick(draw, (','.join(names), names, tuple(names), [f'sub-{n}' for n in names], f' {" , ".join(names)} ,'))
    fault = fault_of(draw, ('no names',))
    if fault: made = pick(draw, (1.5, 2e5, True, {}, float('nan'), [1.5], [None], [['01']], b'01', -4, [-1], 10**400))
    return Example(lambda: as_names(made, where), where, tuple(names), fault)


@family('seed by papermill')
def seed(draw, folder):
    number = draw(st.integers(0, 2**32 - 1))
    made = pick(draw, (number, str(number), f' {number} '))
    fault = fault_of(draw, ('no seed',))
    odd = (-1, 2**32, 1.5, 'x', '', None, True, [], {}, float('nan'), float('inf'), '1e999', 10**400, '9' * 5000)
    if fault: made = pick(draw, odd)
    return Example(lambda: as_seed(made), 'seed', number, fault)


WRONG = {
    'preset': (None, 7, 'no such', [], ''),
    'seed': (-1, 1.5, 'x', None, [], True),
    'root': ('no such folder', 7, 1.5, ['x'], True),
    'targets': ('99', 2e5, [1.5], True, {}),
    'subjects': (2e5, [None], True),
    'source': (7.5, ['x'], True, 'no such source'),
    'device': (7.5, [], True),
}


@family('a run by papermill')
def opened(draw, folder):
    asked = dict(preset='tiny-had', seed=draw(st.integers(0, 99)), root=str(folder), subjects='01,02,03', targets='02')
    asked |= dict(source=pick(draw, ('volume', 'ciftify', '')), device='cpu')
    fault = fault_of(draw, WRONG)
    if fault: asked[fault] = pick(draw, WRONG[fault])

    def read():
        made = open_experiment(**asked, out=folder / 'runs')
        return made.preset.study.subjects, made.preset.study.targets, made.preset.study.root, made.seed

    want = (('01', '02', '03'), ('02',), str(folder), asked['seed'])
    return Example(read, '', want, fault, fault)


@family('where a study lies')
def study(draw, folder):
    asked = dict(root=str(folder), subjects=['01', '02'], targets='02', source='volume')
    fault = fault_of(draw, ('a stranger', 'no such setting', 'simulated'))
    chosen = get_preset('tiny' if fault == 'simulated' else 'had')
    if fault == 'a stranger': asked['targets'] = pick(draw, ('09', '02,09', ['x']))
    if fault == 'no such setting': asked[pick(draw, ('rot', 'film'))] = 'x'

    def read():
        made = choose_study(chosen, **asked).study
        return made.root, made.subjects, made.targets, made.source

    return Example(read, '', (str(folder), ('01', '02'), ('02',), 'volume'), fault)
