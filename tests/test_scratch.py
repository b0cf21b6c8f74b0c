"Lesson 7: tokenizers, counts of parameters and arithmetic, plans."

import math

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
    training_speed,
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


def test_copies_of_a_generator_and_of_nothing():
    assert deduplicate(['a b', 'c', 'a  b\n', 'c', '']) == ['a b', 'c', '']
    assert deduplicate(t for t in 'aba') == ['a', 'b']
    with pytest.raises(TypeError, match='put it in a list'):
        deduplicate('aba')


def test_fertility_by_hand():
    letters = train_tokenizer(['ab'], 258)
    assert fertility(letters, ['to be', 'or']) == 7 / 3
    assert [fertility(letters, ['ab\nc', 'é'], u) for u in ('line', 'char', 'byte')] == [6 / 3, 6 / 5, 1]
    with pytest.raises(ValueError, match='not one word'):
        fertility(letters, ['', ' '])
    with pytest.raises(ValueError, match="unit='page'"):
        fertility(letters, ['a'], 'page')
    with pytest.raises(TypeError, match='put it in a list'):
        fertility(letters, 'ab')


def test_bpe_is_the_same_every_time_and_wordpiece_nearly(docs):
    first, second = (train_tokenizer(docs, 600, 'bpe').get_vocab() for _ in range(2))
    assert first == second
    first, second = (set(train_tokenizer(docs, 600, 'wordpiece').get_vocab()) for _ in range(2))
    assert len(first & second) > 0.8 * len(first)


def test_special_tokens_are_one_id_or_many():
    knows = train_tokenizer(python_docs()[:50], 400)
    assert knows.encode('<|endoftext|>') == [knows.eos_token_id]
    assert len(train_tokenizer(python_docs()[:50], 400, 'wordpiece').tokenize('<|endoftext|>')) > 5


def test_a_generator_that_was_read_is_refused(docs):
    texts = (t for t in docs)
    train_tokenizer(texts, 400)
    with pytest.raises(ValueError, match='there is nothing in it'):
        train_tokenizer(texts, 400)


@pytest.mark.parametrize('make', [tiny_gpt_config, tiny_bert_config])
def test_a_new_model_guesses_and_is_the_same_twice(make):
    small = dict(n_layer=2, n_head=2, n_embd=32, max_length=48)
    ids = torch.randint(500, (4, 48), generator=torch.Generator().manual_seed(1))
    model, twin = (new_model(make(500, **small)) for _ in 'ab')
    assert abs(model(input_ids=ids, labels=ids).loss.item() - math.log(500)) < 0.5
    assert torch.equal(model(ids).logits, twin(ids).logits)


def test_shapes_that_do_not_fit_and_ids_beyond_the_table(docs):
    with pytest.raises(ValueError, match='n_embd=192 must be a multiple of twice n_head=5'):
        tiny_gpt_config(500, n_head=5)
    with pytest.raises(ValueError, match='n_layer=0'):
        tiny_bert_config(500, n_layer=0)
    tok = train_tokenizer(docs, 400)
    assert [tiny_gpt_config(tok).eos_token_id, tiny_gpt_config(500).eos_token_id] == [tok.eos_token_id, None]
    with pytest.raises(IndexError):
        new_model(tiny_gpt_config(300, n_layer=1, n_head=1, n_embd=16))(torch.tensor([[350]]))


def test_formulas_refuse_other_models_and_know_gpt2():
    from transformers import BertConfig, GPT2Config

    assert count_parameters(GPT2Config())['all'] == 124_439_808
    assert GPT2Config(n_ctx=128).n_positions == 1024
    with pytest.raises(ValueError, match="config is a 'bert'"):
        count_parameters(BertConfig())


def test_plans_by_hand_and_what_they_refuse():
    config = tiny_gpt_config(500, n_layer=2, n_head=2, n_embd=32, max_length=48)
    plan = plan_run(config, 48, tokens_per_second=1000, corpus_tokens=10_000, minutes=1)
    assert [plan.tokens, plan.epochs, plan.seconds] == [60_000, 6.0, 60.0]
    assert plan.flops == 3 * 60_000 * count_flops(config, 48)['all']
    with pytest.raises(ValueError, match='give one of the two'):
        plan_run(config, 48, 1000, 10_000)
    with pytest.raises(ValueError, match='tokens_per_second=0 must be'):
        plan_run(config, 48, 0, 10_000, tokens=1)


def test_measuring_the_speed_leaves_the_model_as_it_was():
    model = new_model(tiny_gpt_config(500, n_layer=2, n_head=2, n_embd=32, max_length=48))
    before = [p.clone() for p in model.parameters()]
    assert training_speed(model, 48, batch_size=4) > 0
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    with pytest.raises(ValueError, match='updates=0'):
        training_speed(model, updates=0)
