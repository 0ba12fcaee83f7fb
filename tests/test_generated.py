"Every reader against inputs made by chance, a few of each format and always the same; `make torture` makes thousands."

import numpy as np
import pytest
from generated import Example, judge, run_family, same
from generated.every import FAMILIES
from brainllm.core import DataError

FEW = 6  # examples of each format


@pytest.mark.parametrize('name', FAMILIES)
def test_family(name, capsys):
    tally = run_family(name, FEW)
    assert not tally.faults, '\n'.join(tally.faults)
    assert tally.examples > 0


def refuses():
    raise DataError('x.tsv, column onset: found nothing')


def asks_for_memory():
    try:
        raise MemoryError
    except MemoryError:
        raise DataError('x.tsv: too large') from None


@pytest.mark.parametrize(
    'example, said',
    [
        (Example(lambda: 7, 'x.tsv', 7), ''),
        (Example(lambda: 7, 'x.tsv', 8), 'read wrong'),
        (Example(lambda: 7, 'x.tsv', fault='torn'), 'accepted although wrong'),
        (Example(lambda: 7 / 0, 'x.tsv', fault='torn'), 'foreign exception'),
        (Example(refuses, 'x.tsv', fault='torn', field='onset'), ''),
        (Example(refuses, 'y.tsv', fault='torn'), 'does not name y.tsv'),
        (Example(refuses, 'x.tsv', 7), 'refused although right'),
        (Example(asks_for_memory, 'x.tsv', fault='large'), 'asked for more than'),
        (Example(lambda: np.ones(2**33, np.uint8), 'x.tsv', fault='large'), 'foreign exception: .*Memory'),
    ],
)
def test_the_judge_sees_it(tmp_path, example, said):
    import re

    found = judge(example, tmp_path)
    assert bool(found) == bool(said) and re.search(said, found)


def test_the_judge_stops_what_hangs_and_sees_what_is_changed(tmp_path, monkeypatch):
    monkeypatch.setattr('generated.SECONDS', 0.2)

    def hang():
        while True: pass

    assert judge(Example(hang, 'x', 7), tmp_path).startswith('hangs')
    write = Example(lambda: (tmp_path / 'x').write_text('ha'), 'x', 2)
    assert 'changed by reading' in judge(write, tmp_path)


def test_values_are_compared_to_the_last():
    one = np.array([1.0, np.nan])
    assert same(one, one.copy()) and not same(one, one[:1]) and not same(one, np.array([1.0, 2.0]))
    assert same(dict(a=[1, (one, 'x')]), dict(a=[1, (one, 'x')])) and not same(dict(a=1), dict(b=1))
