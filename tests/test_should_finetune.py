"Lesson 5b at its edges: home text that the model wrote, the rule as a pure function, and bodies under other heads."
import json, math, random, string

import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st

from course_lm.data import python_docs, train_tokenizer
from course_lm.reviews import reviews
from course_lm.models import load_lm, new_model, reference_texts, save_lm, tiny_bert_config, tiny_gpt_config
from course_lm.advice import (
    ANSWERS, RULES, byte_ngram_bits, compare_starts, length_matched_pairs, js_distance, measure_texts,
    own_tokenizer_fit, own_vocab_size, should_finetune, fragmented_words, style_distance, style_symbols,
    tokenizer_fit, verdict)

texts = st.lists(st.text(min_size=1, max_size=60).filter(str.strip), min_size=1, max_size=8)

@pytest.fixture(scope='module')
def small():
    tok = train_tokenizer(python_docs()[:100], 400)
    tok.model_max_length = 64
    return tok, new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32, max_length=64)).eval()


@settings(max_examples=60, deadline=None)
@given(texts)
def test_tokenizer_fit_laws(small, ts):
    tok, _ = small
    f = tokenizer_fit(ts, tok)
    assert f['bytes'] == sum(len(t.encode()) for t in ts if t.strip()) and f['unknown'] == 0
    assert math.isnan(f['spelt']) or 0 <= f['spelt'] <= 1
    assert math.isnan(f['tokens_per_word']) or f['tokens_per_word'] >= 1
    assert f['bytes_per_token'] > 0

def test_tokens_per_word_agrees_with_a_slow_count(small):
    tok, _ = small
    t = 'Return the value, or None if naïve_name99 has no metaclass.'
    e = tok(t, add_special_tokens=False, return_offsets_mapping=True)
    import re
    want = [sum(any(a <= k < b and not t[k].isspace() for k in range(i, j)) for a,b in [m.span()] for i,j in e['offset_mapping']) for m in re.finditer(r'\w+', t)]
    assert tokenizer_fit([t], tok)['tokens_per_word'] == pytest.approx(np.mean(want))

def test_unknown_tokens_of_a_tokenizer_that_has_some():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    t = Tokenizer(models.WordLevel({'[UNK]': 0, 'the': 1, 'cat': 2}, unk_token='[UNK]'))
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    tok = PreTrainedTokenizerFast(tokenizer_object=t, unk_token='[UNK]')
    assert tokenizer_fit(['the cat the dog'], tok)['unknown'] == .25
    assert tokenizer_fit(['[UNK] the'], tok)['unknown'] == 0

def test_split_words_needs_count_rarity_and_pieces(small):
    tok, _ = small
    mine = ['zyxwv qvutsr']*4
    assert fragmented_words(mine, tok, ['something else']).word.tolist() == fragmented_words(mine, tok, ['something else'], count=4).word.tolist() != []
    assert not len(fragmented_words(mine, tok, ['something else'], count=5)) and not len(fragmented_words(mine, tok, mine)) and not len(fragmented_words(mine, tok, ['x'], pieces=50))

@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from('abcde'), st.integers(1, 9), min_size=1), st.dictionaries(st.sampled_from('abcde'), st.integers(1, 9), min_size=1))
def test_js_distance_is_a_distance(p, q):
    d = js_distance(p, q)
    assert 0 <= d <= 1 and d == pytest.approx(js_distance(q, p), abs=1e-12) and js_distance(p, p) == 0
    r = {'a': 1, 'e': 2}
    assert d <= js_distance(p, r) + js_distance(r, q) + 1e-9
    if not set(p) & set(q): assert d == pytest.approx(1)

def test_style_sees_style_and_not_topic():
    r = random.Random(0)
    word = lambda n: ''.join(r.choice(string.ascii_lowercase) for _ in range(n))
    plain = lambda: ' '.join(word(n) for n in (4, 5, 4, 8)) + '.'
    shout = lambda: ' '.join(word(n).upper() for n in (4, 5, 4, 8)) + '!!'
    home = [plain() for _ in range(40)]
    same, chance = style_distance([plain() for _ in range(40)], home)
    other, _ = style_distance([shout() for _ in range(40)], home)
    assert same.mean() < .2 and other.mean() > .8 and chance.mean() < .2
    assert style_symbols('Ab9_ 77', ()) == ['Xx9_3', '91']

@settings(max_examples=40, deadline=None)
@given(texts, texts, st.integers(1, 6))
def test_fair_pairs(a, b, n):
    x, y = length_matched_pairs(a, b, n, longest=20)
    assert len(x) == len(y) <= n and all(len(t) <= 20 for t in x+y)
    assert all(any(t.strip() in s for s in a) for t in x)

def _case(**kw): return dict(pairs=100, tokens=50_000, causal=True, excess=1.5, excess_low=1.4, excess_high=1.6, own_bytes_per_token=3., bytes_per_token=3., counter=2., bits_per_byte=3.) | kw

@settings(max_examples=150, deadline=None)
@given(st.integers(0, 50), st.integers(0, 9000), st.floats(.5, 3), st.floats(.01, .4), st.floats(.5, 4), st.floats(.1, 2), st.booleans())
def test_verdict_is_a_pure_function_that_follows_its_checks(pairs, tokens, excess, wide, longer, counter, causal):
    m = _case(pairs=pairs, tokens=tokens, excess=excess, excess_low=excess-wide, excess_high=excess+wide, own_bytes_per_token=3*longer, counter=3*counter, causal=causal)
    before = json.dumps(m)
    v = verdict(m)
    assert json.dumps(m) == before and v == verdict(json.loads(before)) and v.answer in ANSWERS
    teaches = causal and m['counter']/3 <= RULES['teaches']
    if pairs < RULES['pairs']: assert v.answer == ANSWERS[3]
    elif excess+wide < RULES['excess'] and not teaches: assert v.answer == ANSWERS[0]
    elif not ((excess-wide > 1 or teaches) and tokens >= RULES['tokens']): assert v.answer == ANSWERS[3]
    else: assert v.answer == ANSWERS[2 if m['own_bytes_per_token']/3 >= RULES['own_tokenizer'] and (not causal or m['counter']/3 <= RULES['counter']) else 1]

def test_known_text_that_a_counter_beats_is_worth_training_on():
    known = dict(excess=.9, excess_low=.88, excess_high=.92)
    assert [verdict(_case(**known, counter=c)).answer for c in (3.1, 2.9)] == ['use it as it is', 'fine-tune']
    assert verdict(_case(**known, counter=2.9, causal=False)).answer == 'use it as it is'
    assert verdict(_case(**known, counter=2.9), rules=dict(teaches=.9)).answer == 'use it as it is'
    tiny, tok = load_lm('tiny')
    r = should_finetune(reviews(60)['text'], tiny, tok, n=30)
    assert r.measures['excess'] < 1.1 and r.verdict.answer == 'fine-tune'

def test_verdict_errors():
    with pytest.raises(ValueError, match="no 'luck'"): verdict(_case(), rules={'luck': 1})
    for k in ('pairs', 'excess_low', 'counter'):
        with pytest.raises(ValueError, match=f"no '{k}'"): verdict({a: b for a,b in _case().items() if a != k})

def test_more_text_of_home_is_used_as_it_is():
    tiny, tok = load_lm('tiny')
    home = reference_texts(tiny)
    r = should_finetune(home[1::2], tiny, tok, home[::2], n=40)
    assert r.verdict.answer in ('use it as it is', 'too little text to tell') and abs(r.measures['excess']-1) < .1
    assert {'question', 'measure'} == set(r.frame().index.names) and 'excess' not in repr(r.frame()) and r.verdict.answer in repr(r)
    r.plot()

@pytest.mark.parametrize('bad, error, says', [('text', TypeError, 'one str'), (b'text', TypeError, 'one bytes'), ([], ValueError, 'there is nothing in it'), (['', '\n'], ValueError, 'not one character'),
                                              (['a', 3], TypeError, r'\[1\]=3 must be a str'), ([None], TypeError, r'\[0\]=None must be a str')])
def test_texts_that_are_none(small, bad, error, says):
    tok, model = small
    for call in (lambda: should_finetune(bad, model, tok, ['a', 'b']), lambda: tokenizer_fit(bad, tok), lambda: byte_ngram_bits(bad), lambda: own_tokenizer_fit(bad)):
        with pytest.raises(error, match=says): call()

def test_models_that_cannot_be_measured(small):
    tok, model = small
    ts = python_docs()[:20]
    with pytest.raises(ValueError, match='no home text is known'): should_finetune(ts, model, tok)
    with pytest.raises(ValueError, match='embeddings for 400 tokens'): should_finetune(ts, model, train_tokenizer(ts, 500), ts)
    with pytest.raises(ValueError, match='mask token'): should_finetune(ts, new_model(tiny_bert_config(train_tokenizer(ts, 400, masked=True), n_layer=2, n_embd=32)), tok, ts)
    from transformers import GPT2ForTokenClassification, T5Config, T5ForConditionalGeneration
    with pytest.raises(ValueError, match='no language-modelling head'): should_finetune(ts, GPT2ForTokenClassification(model.config), tok, ts)
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=400, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    with pytest.raises(ValueError, match='encoder-decoder'): should_finetune(ts, t5, tok, ts)

def test_few_texts_and_other_alphabets_are_no_crash():
    model, tok = load_lm('tiny')
    for ts in (['a'], ['a', 'b'], ['日本語のテキスト']*9, ['🙂🙂']*9, ['...']*9, ['ACGT'*99]*3):
        r = should_finetune(ts, model, tok, python_docs()[:30])
        assert r.verdict.answer in ANSWERS and repr(r) and r._repr_html_() and len(r.frame())

def test_masked_models_say_so():
    masked, tok = load_lm('tiny', 'masked')
    r = should_finetune(python_docs()[:30], masked, tok, python_docs()[60:120], n=8)
    assert 'pseudo-bits' in repr(r) and r.verdict.frame().loc['a mere counter does better', 'met'] is None

def test_measuring_changes_nothing():
    model, tok = load_lm('tiny')
    model.train()
    before, state = torch.random.get_rng_state(), {k: v.clone() for k,v in model.state_dict().items()}
    random.seed(5); np.random.seed(5)
    a, b = random.getstate(), np.random.get_state()[1].copy()
    measure_texts(python_docs()[:30], model, tok, python_docs()[50:90])
    assert torch.equal(before, torch.random.get_rng_state()) and random.getstate() == a and (np.random.get_state()[1] == b).all()
    assert model.training and all(torch.equal(v, model.state_dict()[k]) for k,v in state.items())
    model.eval()

def test_compare_starts_leaves_the_model_and_is_repeatable(small):
    tok, model = small
    state = {k: v.clone() for k,v in model.state_dict().items()}
    docs = python_docs()
    a, b = (compare_starts(docs[:40], docs[60:70], model, tok, n_steps=4) for _ in range(2))
    assert a.equals(b) and a.attrs['best'] in (*ANSWERS, 'tie') and set(a.attrs['tied']) <= set(ANSWERS) and list(a.index)[0] == 'untouched' and (a.low <= a.bits_per_byte).all() and (a.bits_per_byte <= a.high).all()
    assert all(torch.equal(v, model.state_dict()[k]) for k,v in state.items())
    with pytest.raises(ValueError, match='in train and in valid'): compare_starts(docs[:40], docs[39:45], model, tok)


def test_truth_can_be_a_tie(small):
    tok, model = small
    docs = python_docs()
    wide, narrow = (compare_starts(docs[:40], docs[60:70], model, tok, n_steps=4, tie=tie) for tie in (9., 0.))
    assert compare_starts(docs[:40], docs[60:70], model, tok, n_steps=4, same_tokenizer=False).equals(narrow.drop(index='from scratch'))
    assert wide.attrs['best'] == 'tie' and wide.attrs['tied'] == ANSWERS[:3]
    least = narrow.drop(index='from scratch').bits_per_byte
    assert ANSWERS[least.argmin()] in narrow.attrs['tied'] and wide.equals(narrow)

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
    with pytest.raises(ValueError, match='most=100'): own_vocab_size(docs, most=100)
    with pytest.raises(ValueError, match='often=0'): own_vocab_size(docs, often=0)
    with pytest.raises(TypeError, match='one str'): own_vocab_size('text')

def test_home_text_that_was_saved_with_a_model(tmp_path, small):
    tok, model = small
    m, t = load_lm(save_lm(model, tok, tmp_path/'m', reference_texts=['ein Text', 'ein änderer']))
    assert should_finetune(python_docs()[:12], m, t).measures['documents_home'] == 2
