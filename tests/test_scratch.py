"Lesson 7: tokenizers, counts of parameters and arithmetic, plans."

import pytest
import torch

from course_lm.data import python_docs, train_tokenizer
from course_lm.models import new_model, tiny_bert_config, tiny_gpt_config
from course_lm.scratch import (
    LEFT_OUT,
    TOKEN_COLOURS,
    count_flops,
    count_parameters,
    deduplicate,
    fertility,
    plan_run,
    show_tokens,
)


@pytest.fixture(scope='module')
def docs():
    return python_docs()[:150]


@pytest.mark.parametrize('kind', ['bpe', 'wordpiece', 'unigram'])
def test_tokenizer_kinds(docs, kind, tmp_path):
    from transformers import AutoTokenizer

    t = train_tokenizer(iter(docs), 600, kind)
    assert 300 < len(t) <= 600 and t.pad_token_id is not None and t.pad_token_id != t.eos_token_id
    assert (t.mask_token is not None) == (kind == 'wordpiece')
    t.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(docs[0])['input_ids'] == t(docs[0])['input_ids']
    assert 0 < fertility(t, docs, 'byte') < 1 < fertility(t, docs, 'word') < fertility(t, docs, 'line')


@pytest.mark.parametrize(
    'text', ['', ' ', 'naïve €5 …', 'a\tb\r\n  c', '日本語', '<|endoftext|>', '\U0001f600' * 3]
)
def test_byte_level_kinds_lose_nothing(docs, text):
    for kind in ('bpe', 'unigram'):
        t = train_tokenizer(docs, 500, kind)
        assert t.decode(t(text)['input_ids']) == text


def test_deduplicate_keeps_the_first():
    assert deduplicate(['x  y', 'x y', 'X y', 'x\ny ']) == ['x  y', 'X y']
    assert deduplicate([]) == []


def test_show_tokens_escapes_and_is_readable_in_the_dark(docs):
    html = show_tokens(train_tokenizer(docs, 400), '<script> & 日').data
    assert '<script>' not in html and '&lt;' in html and 'color:#111' in html


@pytest.mark.parametrize('make', [tiny_gpt_config, tiny_bert_config])
@pytest.mark.parametrize(
    'kw',
    [
        dict(n_layer=1, n_head=1, n_embd=16, max_length=8),
        dict(n_layer=3, n_head=3, n_embd=48, max_length=40),
        dict(n_layer=5, n_head=2, n_embd=64, max_length=64),
    ],
)
def test_counts_by_formula(make, kw):
    config = make(321, **kw)
    assert count_parameters(config)['all'] == sum(p.numel() for p in new_model(config).parameters())
    from torch.utils.flop_counter import FlopCounterMode

    config._attn_implementation = 'eager'
    model, ids = new_model(config), torch.zeros(1, kw['max_length'], dtype=torch.long)
    with FlopCounterMode(display=False) as f:
        model(input_ids=ids, labels=ids).loss.backward()
    assert f.get_total_flops() == 3 * kw['max_length'] * count_flops(config, kw['max_length'])['all']


def test_plan():
    plan = plan_run(tiny_gpt_config(500), 128, 1000.0, 50_000, minutes=2)
    assert plan.seconds == 120 and plan.epochs == 2.4 and 'M parameters' in repr(plan)


def test_each_token_has_a_box_and_what_no_token_covers_is_marked(docs):
    code = "def f(a):\n    return a < 1\n"
    tok = train_tokenizer(docs, 400)
    picture = show_tokens(tok, code).data
    assert sum(picture.count(f"background:{c}") for c in TOKEN_COLOURS) == len(tok(code)["input_ids"])
    assert LEFT_OUT not in picture and "&lt;" in picture
    assert LEFT_OUT in show_tokens(train_tokenizer(docs, 400, "wordpiece"), code).data
