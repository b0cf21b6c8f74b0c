"""The library on families of models: each cell of the table is the model's own answer, or refused by name."""
import json
import random

import pytest
import transformers

from scripts.families import PAGE, TABLE, kept, page

from .cells import COLUMNS, families, row

ALWAYS = [('gpt2', 'causal'), ('roberta', 'causal'), ('cohere', 'causal'), ('rwkv', 'causal'),
          ('bart', 'causal'),
          ('xlnet', 'causal'), ('bert', 'masked'), ('fnet', 'masked'), ('xlm', 'masked'), ('t5', 'seq2seq'),
          ('canine', 'classifier')]
table = kept()


def share(n=12):
    "The same rows each time: those that stand for a kind, and some drawn from the others."
    others = [pair for pair in families() if pair not in ALWAYS]
    return ALWAYS + random.Random(5).sample(others, n)


@pytest.mark.slow
@pytest.mark.parametrize('model_type, head', share(), ids=str)
def test_a_row_is_right_or_refused(model_type, head):
    found = row(model_type, head)
    assert not {k: v for k, v in found.items() if v.startswith('wrong')}
    said = table['rows'].get(f'{model_type}/{head}', found)
    assert {k: v.split(':')[0] for k, v in found.items()} == {k: v.split(':')[0] for k, v in said.items()}


def test_what_is_wrong_is_called_wrong(monkeypatch):
    monkeypatch.setattr('course_lm.perplexity._sum', lambda nll: 1.0)
    assert row('gpt2', 'causal', ['evaluate right'])['evaluate right'].startswith('wrong')


def test_no_cell_is_wrong():
    for key, cells in table['rows'].items():
        assert not {k: v for k, v in cells.items() if v.startswith('wrong')}, key


def test_every_family_stands_in_the_table():
    if table.get('transformers') != transformers.__version__:
        pytest.skip('no table of this version of transformers: python -m scripts.families')
    assert list(table['rows']) == ['/'.join(pair) for pair in families()]
    for cells in table['rows'].values():
        assert list(cells) in (COLUMNS, ['built'])


def test_the_page_is_what_the_table_makes():
    if not table['rows']:
        pytest.skip('no table yet: python -m scripts.families')
    assert PAGE.read_text(encoding='utf-8') == page(json.loads(TABLE.read_text(encoding='utf-8')))
