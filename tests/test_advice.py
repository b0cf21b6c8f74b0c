"""Lesson 53 at its edges: tokenizers that fit or not, pairs of equal length, the rule as a pure function."""
import json
import math
import random
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from course_lm.advice import (
    AS_IT_IS, ANSWERS, FINE_TUNE, FROM_SCRATCH, TOO_LITTLE, Check, Interval, Measures, Rules, Side,
    TokenizerFit, byte_ngram_bits, fragmented_words, length_matched_pairs, measure_texts, own_tokenizer_fit,
    own_vocab_size, should_finetune, tokenizer_fit, verdict)
from course_lm.data import python_docs, train_tokenizer
from course_lm.models import load_lm, new_model, reference_texts, save_lm, tiny_bert_config, tiny_gpt_config
from course_lm.reviews import reviews

texts = st.lists(st.text(min_size=1, max_size=60).filter(str.strip), min_size=1, max_size=8)


@pytest.fixture(scope='module')
def small():
    tok = train_tokenizer(python_docs()[:100], 400)
    tok.model_max_length = 64
    return tok, new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32, max_length=64)).eval()


# ---- what a tokenizer does to a text


@settings(max_examples=60, deadline=None)
@given(texts)
def test_tokenizer_fit_laws(small, ts):
    tok, _ = small
    f = tokenizer_fit(ts, tok)
    assert f.bytes == sum(len(t.encode()) for t in ts if t.strip()) and f.unknown == 0
    assert math.isnan(f.spelt) or 0 <= f.spelt <= 1
    assert math.isnan(f.tokens_per_word) or f.tokens_per_word >= 1
    assert f.bytes_per_token > 0


def test_tokens_per_word_agrees_with_a_slow_count(small):
    tok, _ = small
    t = 'Return the value, or None if naïve_name99 has no metaclass.'
    spans = tok(t, add_special_tokens=False, return_offsets_mapping=True)['offset_mapping']
    def touches(word, token): return any(word[0] <= k < word[1] and not t[k].isspace() for k in range(*token))
    want = [sum(touches(m.span(), token) for token in spans) for m in re.finditer(r'\w+', t)]
    assert tokenizer_fit([t], tok).tokens_per_word == pytest.approx(np.mean(want))


def test_unknown_tokens_of_a_tokenizer_that_has_some():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    t = Tokenizer(models.WordLevel({'[UNK]': 0, 'the': 1, 'cat': 2}, unk_token='[UNK]'))
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    tok = PreTrainedTokenizerFast(tokenizer_object=t, unk_token='[UNK]')
    assert tokenizer_fit(['the cat the dog'], tok).unknown == .25
    assert tokenizer_fit(['[UNK] the'], tok).unknown == .75 # [, UNK and ]: letters of the text


def test_a_tokenizer_that_knows_three_words():
    whole = train_tokenizer(['the cat sat']*3, 300)
    assert tokenizer_fit(['the cat sat the cat'], whole).tokens_per_word == 1
    assert tokenizer_fit(['the zx sat'], whole).spelt == pytest.approx(2/8)
    fit = tokenizer_fit(['żółw', ''], whole)
    assert (fit.documents, fit.words, fit.bytes, fit.spelt, fit.unknown) == (1, 1, 7, 1, 0)


def test_equal_pieces_of_a_word_are_pieces_too():
    _, tok = load_lm('tiny')
    twice = fragmented_words(['qxzqxzqxz'], tok, ['a'], count=1).iloc[0]
    assert len(twice.pieces.split('|')) == twice.tokens and twice.pieces.replace('|', '') == 'qxzqxzqxz'


def test_fragmented_words_need_count_rarity_and_pieces(small):
    tok, _ = small
    mine, other = ['zyxwv qvutsr']*4, ['something else']
    found = fragmented_words(mine, tok, other)
    assert found.word.tolist() == fragmented_words(mine, tok, other, count=4).word.tolist() != []
    assert list(found) == ['word', 'count', 'documents', 'at_home', 'tokens', 'pieces']
    assert not len(fragmented_words(mine, tok, other, count=5)) and not len(fragmented_words(mine, tok, mine))
    assert not len(fragmented_words(mine, tok, ['x'], pieces=50))
    assert not len(fragmented_words(['...'], tok, other))


@settings(max_examples=40, deadline=None)
@given(texts, texts, st.integers(1, 6))
def test_pairs_are_of_one_length(a, b, n):
    x, y = length_matched_pairs(a, b, n, longest=20)
    assert len(x) == len(y) <= n and all(len(t) <= 20 for t in x+y)
    assert all(any(t.strip() in s for s in a) for t in x)


@settings(max_examples=30, deadline=None)
@given(texts, st.integers(1, 6))
def test_own_vocabulary_grows_with_the_text(ts, n):
    few, more = own_vocab_size(ts), own_vocab_size(ts*n)
    assert 300 <= few <= more <= 2000 and own_vocab_size(ts*n, most=320) == min(more, 320)
    assert own_vocab_size(ts, often=2) >= few


def test_each_entry_of_the_own_vocabulary_was_met():
    docs = python_docs()[:200]
    n = own_vocab_size(docs)
    fits, large = (train_tokenizer(docs, k) for k in (n, 2000))
    assert 300 < n < 2000 and len(fits) == n
    per = [sum(map(len, t(docs)['input_ids']))/len(t) for t in (fits, large)]
    assert per[0] > 1.5*per[1]
    assert own_vocab_size(['abcd']*4) == 300
    assert [own_vocab_size(['abcd']*k, least=1) for k in (4, 5)] == [258, 261]
    with pytest.raises(ValueError, match='most=100'): own_vocab_size(docs, most=100)
    with pytest.raises(ValueError, match='often=0 must be'): own_vocab_size(docs, often=0)
    with pytest.raises(TypeError, match='one str'): own_vocab_size('text')
    with pytest.raises(ValueError, match='not one character'): own_vocab_size([''])


def test_counters_and_own_tokenizers_on_text_that_is_known_by_construction():
    coin = [''.join('ab'[i] for i in np.random.default_rng(s).integers(2, size=400)) for s in range(40)]
    assert byte_ngram_bits(coin) == pytest.approx(1, abs=.06) and byte_ngram_bits(['abcabcabc'*9]*4) < .2
    often = ['metaclasses everywhere, metaclasses']*20
    spelt = tokenizer_fit(often, train_tokenizer(['x'], 258))
    assert own_tokenizer_fit(often, 500) > 3*spelt.bytes_per_token
    assert length_matched_pairs(['abc'], ['a'*9]) == (['abc'], ['aaa'])


def test_half_of_one_text_is_no_half():
    for measure in (byte_ngram_bits, own_tokenizer_fit):
        with pytest.raises(ValueError, match='at least 2'): measure(['one'])
        with pytest.raises(ValueError, match='at least 2'): measure(['one', ' '])


# ---- the rule


def case(pairs=100, tokens=50_000, causal=True, excess=1.5, low=1.4, high=1.6, own=3., counter=2.):
    fit = TokenizerFit(documents=9, bytes=300, words=50, tokens=100, tokens_per_word=1., bytes_per_token=3.,
                       unknown=0., spelt=0.)
    side = Side(documents=9, fit=fit, bits=Interval(3., 2.9, 3.1))
    return Measures(causal=causal, pairs=pairs, tokens=tokens, yours=side, home=side, counter=counter,
                    own_bytes_per_token=own, excess=Interval(excess, low, high))


def expected(m, r=None):
    "The rule again, from the measurements alone."
    r = r or Rules()
    teaches = m.causal and m.counter/3 <= r.teaches
    if m.pairs < r.pairs: return TOO_LITTLE
    if m.excess.high < r.excess and not teaches: return AS_IT_IS
    if not ((m.excess.low > 1 or teaches) and m.tokens >= r.tokens): return TOO_LITTLE
    scratch = m.own_bytes_per_token/3 >= r.own_tokenizer and (not m.causal or m.counter/3 <= r.counter)
    return FROM_SCRATCH if scratch else FINE_TUNE


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 50), st.integers(0, 9000), st.floats(.5, 3), st.floats(.01, .4), st.floats(.5, 4),
       st.floats(.1, 2), st.booleans())
def test_verdict_is_a_pure_function_of_its_checks(pairs, tokens, excess, wide, longer, counter, causal):
    m = case(pairs, tokens, causal, excess, excess-wide, excess+wide, 3*longer, 3*counter)
    before = json.dumps(asdict(m))
    v = verdict(m)
    assert json.dumps(asdict(m)) == before and v == verdict(replace(m)) and v.answer in ANSWERS
    assert v.answer == expected(m)
    keys = ['pairs', 'tokens', 'known', 'foreign', 'teaches', 'own_tokenizer', 'counter']
    assert [c.key for c in v.checks] == (keys if pairs >= 8 else keys[:2])


def test_what_is_shown_decides_nothing(monkeypatch):
    from course_lm import advice
    def dumb(key, text, measured, threshold, met): return Check(key, '', '', '', met)
    cases = [case(), case(pairs=3), case(excess=1., low=.97, high=1.03, counter=4.), case(own=9., counter=1.)]
    want = [verdict(m).answer for m in cases]
    assert len(set(want)) == 4
    monkeypatch.setattr(advice, 'Check', dumb)
    assert [verdict(m).answer for m in cases] == want


def test_known_text_that_a_counter_beats_is_worth_training_on():
    known = dict(excess=.9, low=.88, high=.92)
    assert [verdict(case(**known, counter=c)).answer for c in (3.1, 2.9)] == ['use it as it is', 'fine-tune']
    assert verdict(case(**known, counter=2.9, causal=False)).answer == 'use it as it is'
    assert verdict(case(**known, counter=2.9), rules=Rules(teaches=.9)).answer == 'use it as it is'
    tiny, tok = load_lm('tiny')
    r = should_finetune(list(reviews(60)['text']), tiny, tok, n=30)
    assert r.measures.excess.value < 1.1 and r.verdict.answer == 'fine-tune'


def test_verdict_errors():
    with pytest.raises(TypeError, match='luck'): Rules(luck=1)
    with pytest.raises(ValueError, match='pairs=0 must be'): Rules(pairs=0)
    with pytest.raises(TypeError, match='rules=.* must be'): verdict(case(), rules={'pairs': 3})
    with pytest.raises(TypeError, match='measures=.* must be'): verdict({'pairs': 3})
    with pytest.raises(ValueError, match='100 pairs and no excess'): verdict(replace(case(), excess=None))
    few = verdict(replace(case(pairs=1), excess=None, counter=None, own_bytes_per_token=None))
    assert few.answer == TOO_LITTLE and [c.key for c in few.checks] == ['pairs', 'tokens']


def test_thresholds_that_are_given_are_asked_and_shown():
    tiny, tok = load_lm('tiny')
    home = reference_texts(tiny)
    strict = should_finetune(python_docs()[:40], tiny, tok, home[:40], n=20, rules=Rules(excess=1.3))
    assert strict.verdict.frame().loc['known', 'threshold'] == 'all of it below 1.3'
    assert strict.verdict == verdict(strict.measures, Rules(excess=1.3))


# ---- reports


def test_more_text_of_home_is_used_as_it_is():
    tiny, tok = load_lm('tiny')
    home = reference_texts(tiny)
    r = should_finetune(home[1::2], tiny, tok, home[::2], n=40)
    assert r.verdict.answer in ('use it as it is', 'too little text to tell')
    assert abs(r.measures.excess.value-1) < .1
    assert {'question', 'measure'} == set(r.frame().index.names) and 'excess' not in repr(r.frame())
    assert r.verdict.answer in repr(r)


def test_a_tokenizer_of_another_model_is_found_out():
    model, tok = load_lm('tiny')
    home, docs = reference_texts(model), python_docs()
    with pytest.raises(ValueError, match='tokenizer is of another model'):
        measure_texts(docs[-40:], model, train_tokenizer(docs[:300], len(tok)), home)


bad = {'text': (TypeError, 'one str'), b'text': (TypeError, 'one bytes'),
       (): (ValueError, 'there is nothing in it'), ('', '\n'): (ValueError, 'not one character'),
       ('a', 3): (TypeError, r'\[1\]=3 must be a str'),
       (None,): (TypeError, r'\[0\]=None must be a str')}


@pytest.mark.parametrize('bad, error, says', [(k, *v) for k, v in bad.items()])
def test_texts_that_are_none(small, bad, error, says):
    tok, model = small
    bad = list(bad) if isinstance(bad, tuple) else bad
    calls = {'should_finetune': lambda: should_finetune(bad, model, tok, ['a', 'b']),
             'tokenizer_fit': lambda: tokenizer_fit(bad, tok),
             'byte_ngram_bits': lambda: byte_ngram_bits(bad),
             'own_tokenizer_fit': lambda: own_tokenizer_fit(bad)}
    for call in calls.values():
        with pytest.raises(error, match=says): call()


def test_models_that_cannot_be_measured(small):
    from transformers import GPT2ForTokenClassification, T5Config, T5ForConditionalGeneration
    tok, model = small
    ts = python_docs()[:20]
    with pytest.raises(ValueError, match='no home text is known'): should_finetune(ts, model, tok)
    with pytest.raises(ValueError, match='embeddings for 400 tokens'):
        should_finetune(ts, model, train_tokenizer(ts, 500), ts)
    masked = new_model(tiny_bert_config(train_tokenizer(ts, 400, masked=True), n_layer=2, n_embd=32))
    with pytest.raises(ValueError, match='mask token'): should_finetune(ts, masked, tok, ts)
    with pytest.raises(ValueError, match='no language-modelling head'):
        should_finetune(ts, GPT2ForTokenClassification(model.config), tok, ts)
    config = T5Config(vocab_size=400, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    t5 = T5ForConditionalGeneration(config)
    with pytest.raises(ValueError, match='encoder-decoder'): should_finetune(ts, t5, tok, ts)
    with pytest.raises(TypeError, match=r'order is \(model, tokenizer\)'): should_finetune(ts, tok, model, ts)
    with pytest.raises(TypeError, match='tokenizer=.* must be'): tokenizer_fit(['a'], object())


def test_few_texts_and_other_alphabets_are_no_crash():
    model, tok = load_lm('tiny')
    for ts in (['a'], ['a', 'b'], ['日本語のテキスト']*9, ['🙂🙂']*9, ['...']*9, ['ACGT'*99]*3):
        r = should_finetune(ts, model, tok, python_docs()[:30])
        assert r.verdict.answer in ANSWERS and repr(r) and len(r.frame()) >= 6


def test_masked_models_say_so():
    masked, tok = load_lm('tiny', 'masked')
    r = should_finetune(python_docs()[:30], masked, tok, python_docs()[60:120], n=8)
    assert 'pseudo-bits' in repr(r) and r.verdict.frame().loc['teaches', 'met'] is None
    assert ('surprise', 'pseudo-bits per byte') in r.frame().index


def test_measuring_changes_nothing():
    model, tok = load_lm('tiny')
    model.train()
    before, state = torch.random.get_rng_state(), {k: v.clone() for k,v in model.state_dict().items()}
    random.seed(5)
    np.random.seed(5)
    a, b = random.getstate(), np.random.get_state()[1].copy()
    measure_texts(python_docs()[:30], model, tok, python_docs()[50:90])
    assert torch.equal(before, torch.random.get_rng_state())
    assert random.getstate() == a and (np.random.get_state()[1] == b).all()
    assert model.training and all(torch.equal(v, model.state_dict()[k]) for k,v in state.items())
    model.eval()


def test_home_text_that_was_saved_with_a_model(tmp_path, small):
    tok, model = small
    m, t = load_lm(save_lm(model, tok, tmp_path/'m', reference_texts=['ein Text', 'ein änderer']))
    assert should_finetune(python_docs()[:12], m, t).measures.home.documents == 2
