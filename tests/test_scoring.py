"""course_lm.scoring: windows, masked models, intervals, comparisons, surprisal, beside slow versions."""
import math
import re

import numpy as np
import pytest
import torch

from course_lm import scoring as S
from course_lm.data import train_tokenizer
from course_lm.perplexity import LMScore, token_nll
from course_lm.scoring import (bootstrap_interval, bootstrap_ratio, compare_lms, pseudo_perplexity,
                               score_texts, show_surprisal, sliding_perplexity, surprisal)
from course_lm.support.inputs import IGNORE_INDEX
from tests.small_models import LSTM, TEXTS, bert, gpt2, sharper

@pytest.fixture(scope='module')
def tok(): return train_tokenizer(TEXTS*3, vocab_size=320)
@pytest.fixture(scope='module')
def mtok(): return train_tokenizer(TEXTS*3, vocab_size=320, masked=True)

# ---- windows

def docs_loop(model, ids, max_length, stride, mended):
    "The strided loop of the transformers documentation: `mended` counts the targets of each loss."
    nats, n, prev = 0., 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + max_length, len(ids))
        x = torch.as_tensor(ids[begin:end])[None]
        y = x.clone()
        y[:, :-(end - prev)] = IGNORE_INDEX
        with torch.no_grad(): loss = model(x, labels=y).loss.item()
        scored = int((y[:, 1:] != IGNORE_INDEX).sum()) if mended else int((y != IGNORE_INDEX).sum()) - 1
        if scored: nats, n = nats + loss*scored, n + scored
        prev = end
        if end == len(ids): break
    return math.exp(nats/n), n

@pytest.mark.parametrize('n', [2, 15, 16, 17, 31, 100, 129])
@pytest.mark.parametrize('stride', [1, 3, 8, 15, 16])
def test_sliding_is_the_docs_loop(n, stride):
    model, ids = gpt2(n_positions=16), torch.randint(0, 320, (n,), generator=torch.Generator().manual_seed(n))
    want, tokens = docs_loop(model, ids, 16, stride, mended=True)
    for batch_size in (1, 4):
        got = sliding_perplexity(model, ids, 16, stride, batch_size)
        assert got.tokens == tokens and got.perplexity == pytest.approx(want, rel=1e-5)
    if stride < 16: assert got.tokens == n - 1

def test_sliding_scores_each_token_once_given_its_window():
    model = gpt2(n_positions=16)
    ids = torch.randint(0, 320, (41,), generator=torch.Generator().manual_seed(3))
    want = 0.
    for t in range(1, 41): # with stride 1 a token sees the 15 before it
        with torch.no_grad(): logits = model(ids[None, max(0, t-15):t]).logits[0, -1]
        want -= logits.log_softmax(-1)[ids[t]].item()
    assert sliding_perplexity(model, ids, 16, 1).nats == pytest.approx(want, rel=1e-5)
    with_bos = sliding_perplexity(model, ids, 16, 15, bos_id=0)
    assert with_bos.tokens == 41
    want = 0.
    for begin in (0, 15, 30):
        window = ids[begin:begin+15]
        with torch.no_grad(): logits = model(torch.cat([torch.tensor([0]), window])[None]).logits[0]
        want -= logits.log_softmax(-1)[range(len(window)), window].sum().item()
    assert with_bos.nats == pytest.approx(want, rel=1e-5)

def test_sliding_input_and_errors():
    model, ids = gpt2(n_positions=16), list(range(40))
    forms = ids, np.array(ids, dtype=np.int32), torch.tensor(ids), torch.tensor([ids])
    same = {sliding_perplexity(model, x).nats for x in forms}
    assert len(same) == 1
    assert sliding_perplexity(model, ids, n_bytes=80).bits_per_byte > 0
    wrong = {'max_length=17 is more than the 16': dict(max_length=17), 'stride=0 must be': dict(stride=0),
             'between 1 and 16': dict(stride=17), 'between 1 and 15': dict(stride=16, bos_id=0),
             'max_length=1': dict(max_length=1), 'batch_size=0 must be': dict(batch_size=0)}
    for text,kw in wrong.items():
        with pytest.raises(ValueError, match=text): sliding_perplexity(model, ids, **kw)
    with pytest.raises(ValueError, match='no token was scored'): sliding_perplexity(model, [3])
    with pytest.raises(ValueError, match='ids=.* must be the token ids of one text'):
        sliding_perplexity(model, torch.zeros(2, 8))
    with pytest.raises(TypeError, match='ids=.*tokenize it first'): sliding_perplexity(model, 'a text')
    assert sliding_perplexity(LSTM(), torch.arange(20), max_length=8, stride=4).tokens == 19
    with pytest.raises(ValueError, match='max_length is None'): sliding_perplexity(LSTM(), torch.arange(20))

@pytest.mark.parametrize('shape', ['roberta', 'gpt2'])
def test_windows_are_as_long_as_the_positions_that_tokens_can_use(shape):
    if shape == 'roberta': # 66 rows in its position table, the first two of them never used by a token
        from transformers import RobertaConfig, RobertaForCausalLM
        config = RobertaConfig(vocab_size=90, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                               intermediate_size=32, max_position_embeddings=66, pad_token_id=1,
                               is_decoder=True)
        model = sharper(lambda: RobertaForCausalLM(config))
    else: model = gpt2(90, n_positions=64)
    ids = torch.randint(5, 90, (150,), generator=torch.Generator().manual_seed(0))
    score = sliding_perplexity(model, ids)
    assert score.tokens == 149 and math.isfinite(score.perplexity)
    assert score == sliding_perplexity(model, ids, max_length=64)
    with pytest.raises(ValueError, match='65 is more than the 64'): sliding_perplexity(model, ids, 65)

# ---- masked models

def brute_pll(model, tok, text):
    x = torch.tensor([tok(text)['input_ids']])
    total = []
    for t in range(1, x.shape[1]-1):
        y = x.clone()
        y[0, t] = tok.mask_token_id
        with torch.no_grad(): total.append(-model(y).logits[0, t].log_softmax(-1)[x[0, t]].item())
    return total

def test_pseudo_perplexity_one_at_a_time(mtok):
    model = bert(n=96)
    want = [n for t in TEXTS for n in brute_pll(model, mtok, t)]
    for batch_size in (1, 7, 64):
        got = pseudo_perplexity(model, mtok, TEXTS, batch_size=batch_size)
        assert got.tokens == len(want) and got.nats == pytest.approx(sum(want), rel=1e-5)
    assert got.bytes == sum(len(t.encode()) for t in TEXTS)
    each = score_texts(model, mtok, TEXTS)
    assert [s.nats for s in each] == pytest.approx([sum(brute_pll(model, mtok, t)) for t in TEXTS], rel=1e-5)
    assert pseudo_perplexity(model, mtok, TEXTS[0]).tokens == each[0].tokens

def test_pseudo_perplexity_long_and_within_word(mtok):
    model = bert(n=16)
    long_one = ' '.join(TEXTS)
    ids = mtok(long_one, add_special_tokens=False)['input_ids']
    assert pseudo_perplexity(model, mtok, long_one).tokens == len(ids)
    text = 'naïvely'
    assert len(mtok.tokenize(text)) > 2
    x = torch.tensor([mtok(text)['input_ids']])
    want = 0.
    for t in range(1, x.shape[1]-1):
        y = x.clone()
        y[0, t:-1] = mtok.mask_token_id
        with torch.no_grad(): want -= model(y).logits[0, t].log_softmax(-1)[x[0, t]].item()
    assert pseudo_perplexity(model, mtok, text, within_word=True).nats == pytest.approx(want, rel=1e-5)

def test_pseudo_perplexity_refuses(tok, mtok):
    with pytest.raises(ValueError, match='is a causal model'): pseudo_perplexity(gpt2(), tok, TEXTS)
    with pytest.raises(ValueError, match='no mask token'): pseudo_perplexity(bert(), tok, TEXTS)
    with pytest.raises(ValueError, match='no token was scored'): pseudo_perplexity(bert(), mtok, [''])
    with pytest.raises(ValueError, match=r'texts=\[\] must be'): pseudo_perplexity(bert(), mtok, [])
    with pytest.raises(TypeError, match='texts=5 must be'): pseudo_perplexity(bert(), mtok, 5)

# ---- texts, intervals, comparisons

def test_score_texts(tok):
    model = gpt2(n_positions=96)
    scores = score_texts(model, tok, TEXTS + [''])
    for t,s in zip(TEXTS, scores):
        ids = torch.tensor([[0] + tok(t, add_special_tokens=False)['input_ids']])
        with torch.no_grad(): want = token_nll(model(ids).logits, ids)
        assert s.tokens == len(want) and s.bytes == len(t.encode())
        assert s.nats == pytest.approx(want.sum().item(), rel=1e-5)
    assert scores[-1] == LMScore(0., 0, 0)
    nats = [s.nats for s in scores[:-1]]
    for size in (1, 3):
        again = score_texts(model, tok, TEXTS, batch_size=size)
        assert [s.nats for s in again] == pytest.approx(nats, rel=1e-5)
    short = gpt2(n_positions=16)
    assert [s.tokens for s in score_texts(short, tok, TEXTS)] == [s.tokens for s in scores[:-1]]
    with pytest.raises(TypeError, match="texts='text' must be a list of str"): score_texts(model, tok, 'text')
    with pytest.raises(TypeError, match=r'the order is \(model, tokenizer\)'): score_texts(tok, model, TEXTS)

def test_score_texts_without_bos(tok):
    plain = train_tokenizer(TEXTS*3, vocab_size=320)
    plain.bos_token = None
    for t,s in zip(TEXTS, score_texts(gpt2(n_positions=96), plain, TEXTS)):
        first = plain(t, return_offsets_mapping=True)['offset_mapping'][0][1]
        assert s.tokens == len(plain.tokenize(t)) - 1 and s.bytes == len(t[first:].encode())
    with pytest.raises(ValueError, match='only one tokenizer has a BOS'):
        compare_lms((gpt2(), tok), (gpt2(), plain), TEXTS)

def test_bootstrap_interval_covers():
    rng, inside = np.random.default_rng(0), 0
    for trial in range(150):
        tokens = rng.integers(5, 200, 60)
        nats = tokens * rng.normal(3, .5, 60)
        scores = [LMScore(float(a), int(b), int(4*b)) for a,b in zip(nats, tokens)]
        low, high = bootstrap_interval(scores, 'cross_entropy', n_resamples=400, seed=trial)
        inside += low < 3 < high
    assert .86 < inside/150 <= 1
    low, high = bootstrap_interval(scores)
    assert low < sum(scores).perplexity < high and bootstrap_interval(scores) == (low, high)
    bits = bootstrap_interval(scores, 'bits_per_byte')
    assert bits[0] < sum(scores).bits_per_byte < bits[1]
    assert bootstrap_interval(scores, level=.5)[0] > low
    with pytest.raises(ValueError, match='at least 2'): bootstrap_interval(scores[:1])
    with pytest.raises(ValueError, match='what='): bootstrap_interval(scores, 'ppl')
    with pytest.raises(ValueError, match='needs its bytes'):
        bootstrap_interval([LMScore(1., 1)]*3, 'bits_per_byte')
    with pytest.raises(TypeError, match='put it in a list'): bootstrap_interval(scores[0])
    with pytest.raises(ValueError, match='level=1 must be'): bootstrap_interval(scores, level=1)

def test_bootstrap_ratio_is_paired():
    rng = np.random.default_rng(1)
    hard = rng.normal(300, 80, 50)
    a = [LMScore(float(1.2*h + rng.normal()), 100, 400) for h in hard]
    b = [LMScore(float(h), 90, 400) for h in hard]
    low, high = bootstrap_ratio(a, b)
    assert low < sum(a).bits_per_byte/sum(b).bits_per_byte < high and high - low < .01
    assert bootstrap_ratio(b, b) == (1, 1)
    assert bootstrap_ratio(a, b) == (low, high) != bootstrap_ratio(a, b, seed=1)
    apart = bootstrap_ratio(a, b[::-1])
    assert apart[1] - apart[0] > 5*(high - low), 'hard documents are no longer beside hard ones'
    with pytest.raises(ValueError, match='a has 50 scores and b has 49'): bootstrap_ratio(a, b[:-1])
    with pytest.raises(ValueError, match='at least 2'): bootstrap_ratio(a[:1], b[:1])

def test_compare_is_paired(tok, mtok):
    model, other = gpt2(n_positions=96), gpt2(n_positions=96, layer_norm_epsilon=.5)
    same = compare_lms((model, tok), (model, tok), TEXTS)
    assert same.difference == same.low == same.high == 0 and not same.differ
    a, b = compare_lms((model, tok), (other, tok), TEXTS), compare_lms((other, tok), (model, tok), TEXTS)
    assert a.difference == pytest.approx(-b.difference)
    assert a.difference == pytest.approx(a.b.bits_per_byte - a.a.bits_per_byte)
    assert a.low <= a.difference <= a.high and 'over 4 documents' in repr(a)
    small = train_tokenizer(TEXTS, vocab_size=270) # another tokenizer, the same bytes
    c = compare_lms((model, tok), (gpt2(270, n_positions=160), small), TEXTS)
    assert c.a.bytes == c.b.bytes and c.a.tokens < c.b.tokens
    scores = score_texts(model, tok, TEXTS)
    assert compare_lms(scores, (other, tok), TEXTS).difference == pytest.approx(a.difference)
    with pytest.raises(ValueError, match='one masked'): compare_lms((model, tok), (bert(), mtok), TEXTS)
    with pytest.raises(ValueError, match='3 texts, but'): compare_lms(scores, (other, tok), TEXTS[:3])
    with pytest.raises(TypeError, match=r'the order is \(model, tokenizer\)'):
        compare_lms((tok, model), (other, tok), TEXTS)
    with pytest.raises(TypeError, match='b=.* must be'): compare_lms(scores, model, TEXTS)

def test_two_models_as_load_lm_gives_them_are_compared():
    from course_lm.models import load_lm
    same = compare_lms(load_lm('tiny'), load_lm('tiny'), TEXTS, level=.9)
    assert same.difference == 0 and same.documents == 4 and same.level == .9

def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(0)
    hard = rng.normal(300, 80, 50) # documents differ much, the two models little
    a, b = [LMScore(float(h), 100, 400) for h in hard], [LMScore(float(h - 3), 90, 400) for h in hard]
    c = compare_lms(a, b, ['x']*50)
    (la, ha), (lb, hb) = bootstrap_interval(a, 'bits_per_byte'), bootstrap_interval(b, 'bits_per_byte')
    assert c.differ and c.high < 0 and la < hb and lb < ha # paired: certain; the two intervals overlap

# ---- surprisal

def test_surprisal_frame(tok):
    model, text = gpt2(n_positions=96), TEXTS[1] + ' 🙂\n <b>'
    tokens = surprisal(model, tok, text)
    frame = tokens.frame
    ids = torch.tensor([[0] + tok(text, add_special_tokens=False)['input_ids']])
    with torch.no_grad(): want = token_nll(model(ids).logits, ids)
    np.testing.assert_allclose(frame.nats, want, rtol=1e-4)
    np.testing.assert_allclose(frame.bits, frame.nats/math.log(2))
    assert list(frame) == ['token', 'start', 'end', 'nats', 'bits']
    assert all(text[a:b] == t for t,a,b in zip(frame.token, frame.start, frame.end))
    assert tokens.text == text and f'{len(frame)} tokens' in repr(tokens)
    words = surprisal(model, tok, text, by='word').frame
    assert list(words.token) == text.split() and words.nats.sum() == pytest.approx(frame.nats.sum())
    shown = show_surprisal(tokens).data
    assert '<b>' not in shown and 'title=' in shown and '🙂' in shown
    body = shown.split('<div style="font-size')[0]
    bare = re.sub('<[^>]*>', '', body).replace('&lt;', '<').replace('&gt;', '>')
    assert bare == text, 'nothing lost, nothing twice'

def test_surprisal_long_and_masked_and_bare(tok, mtok):
    text = ' '.join(TEXTS*4)
    frame = surprisal(gpt2(n_positions=16), tok, text).frame
    assert len(frame) == len(tok.tokenize(text)) and frame.nats.notna().all()
    assert surprisal(bert(n=16), mtok, text).frame.nats.notna().all()
    plain = train_tokenizer(TEXTS*3, vocab_size=320)
    plain.bos_token = None
    bare = surprisal(gpt2(n_positions=96), plain, TEXTS[0])
    assert math.isnan(bare.frame.nats[0]) and bare.frame.nats[1:].notna().all()
    assert 'not scored' in show_surprisal(bare).data
    with pytest.raises(ValueError, match='text is empty'): surprisal(gpt2(), tok, '')
    with pytest.raises(ValueError, match='by='): surprisal(gpt2(), tok, 'a', by='line')
    with pytest.raises(TypeError, match='surprise=.* must be'): show_surprisal(bare.frame)
    with pytest.raises(ValueError, match='max_bits=0 must be'): show_surprisal(bare, max_bits=0)



# ---- what real models and tokenizers bring

def test_a_text_longer_than_roberta(mtok):
    from transformers import RobertaConfig, RobertaForMaskedLM
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    config = RobertaConfig(vocab_size=len(mtok), max_position_embeddings=66, pad_token_id=1, **sizes)
    model, text = sharper(lambda: RobertaForMaskedLM(config)), 'xyz '*30
    n = len(mtok(text, add_special_tokens=False)['input_ids'])
    assert n > 64 and pseudo_perplexity(model, mtok, text).tokens == n
    assert score_texts(model, mtok, [text])[0].tokens == len(surprisal(model, mtok, text).frame) == n

def test_models_without_a_score_from_left_to_right_are_refused(mtok):
    from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration
    layers = dict(encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2)
    bart = BartForConditionalGeneration(BartConfig(vocab_size=320, d_model=16, **layers))
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=320, d_model=16, d_kv=8, num_layers=1, num_heads=2))
    for model in (bart, t5):
        calls = [(pseudo_perplexity, model, mtok, 'a name'), (score_texts, model, mtok, ['a']),
                 (surprisal, model, mtok, 'a name'), (sliding_perplexity, model, [5]*9, 8),
                 (compare_lms, (model, mtok), (model, mtok), ['a', 'b'])]
        for call,*given in calls:
            with pytest.raises(ValueError, match='model: .* is an encoder-decoder model'): call(*given)
    with pytest.raises(ValueError, match='model: BertForMaskedLM is a masked model'):
        sliding_perplexity(bert(), list(range(9)), 8)

@pytest.mark.parametrize('text, left_out', [('🎉 what a film', 4), ('a film', 1), ('電影 film', 3)])
def test_without_bos_a_first_letter_is_left_out_with_all_its_bytes(text, left_out):
    bytewise = train_tokenizer(['the cat sat on the mat']*3, 258)
    bytewise.bos_token = None
    n = len(text.encode())
    score = score_texts(gpt2(), bytewise, [text])[0]
    assert (score.tokens, score.bytes) == (n - left_out, n - left_out)
    score = score_texts(gpt2(), bytewise, ['abcdefgh'], max_length=4, stride=4)[0]
    assert (score.tokens, score.bytes) == (6, 6)

# ---- what the lesson says of the shipped models and of a language that is known

@pytest.fixture(scope='module')
def reader():
    from course_lm.data import python_docs
    from course_lm.models import load_lm
    model, tok = load_lm('tiny-gpt')
    return model, tok, torch.tensor(tok('\n\n'.join(python_docs()[:60]), verbose=False)['input_ids'][:2000])

def nll_of(model, window):
    with torch.no_grad(): return token_nll(model(window[None]).logits, window[None])

def test_windows_by_hand():
    assert S._windows(10, 4, 2) == [(0, 4, 0), (2, 6, 4), (4, 8, 6), (6, 10, 8)]
    assert S._windows(9, 4, 4) == [(0, 4, 0), (4, 8, 4), (8, 9, 8)]

def test_more_context_costs_less_and_half_a_window_is_most_of_it(reader):
    model, _, ids = reader
    apart, half, quarter = (sliding_perplexity(model, ids, 256, stride) for stride in (256, 128, 64))
    assert apart.perplexity > 1.03*half.perplexity
    assert apart.perplexity - half.perplexity > 2*abs(half.perplexity - quarter.perplexity)
    assert apart.tokens == len(ids) - 8 and half.tokens == quarter.tokens == len(ids) - 1
    full = torch.stack([nll_of(model, ids[b:b+256]) for b in range(0, 1792, 256)])
    assert full[:, :8].mean() > full[:, 32:].mean() + .4

def test_an_overlap_scored_twice_loses_what_it_gained(reader):
    model, _, ids = reader
    nll = torch.cat([nll_of(model, ids[b:b+256]) for b in range(0, len(ids)-255, 128)])
    once = sliding_perplexity(model, ids, 256, 128)
    assert len(nll) > 1.5*len(ids) and nll.mean().exp().item() > 1.03*once.perplexity

def test_means_of_windows_need_their_counts(reader):
    model, _, ids = reader
    ours = sliding_perplexity(model, ids, 256, 128)
    assert docs_loop(model, ids, 256, 128, mended=True) == (pytest.approx(ours.perplexity, rel=1e-5), 1999)
    printed, n = docs_loop(model, ids, 256, 128, mended=False)
    assert n == 1999 - 14 and 1e-6 < abs(printed/ours.perplexity - 1) < .01

def test_the_best_masked_model_falls_below_the_true_perplexity():
    from course_lm.entropy import MarkovSource
    source = MarkovSource(n_states=12, concentration=.3, seed=1)
    table = torch.tensor(source.transition).log()
    states = torch.tensor(source.sample(20_000, generator=9))
    before, hidden, after = states[:-2], states[1:-1], states[2:]
    log_probs = (table[before] + table[:, after].T).log_softmax(-1)
    pseudo = -log_probs.gather(1, hidden[:, None]).mean()
    assert math.exp(pseudo) < .7*source.perplexity
    assert token_nll(table[states][None], states[None]).mean().exp() > .95*source.perplexity

def test_exp_loss_of_a_masked_model_moves_with_the_mask_rate():
    from torch.utils.data import DataLoader
    from course_lm.data import python_docs
    from course_lm.labels import BertMasking, LMCollator
    from course_lm.models import load_lm
    from course_lm.perplexity import evaluate_lm
    model, tok = load_lm('tiny-bert', head='masked')
    rows = [dict(input_ids=i) for i in tok([d for d in python_docs()[::30] if len(d) < 600])['input_ids']]
    def exp_loss(rate):
        collate = LMCollator(tok, BertMasking(prob=rate, mask=1., random=0.), seed=0)
        return evaluate_lm(model, DataLoader(rows, batch_size=16, collate_fn=collate)).perplexity
    few, usual, many = map(exp_loss, (.05, .15, .6))
    assert many > 2*max(few, usual)

def test_a_misspelt_word_stands_out(reader):
    model, tok, _ = reader
    text = 'The film was a big dissapointment. The music is wonderful.'
    wrong = surprisal(model, tok, text, by='word').frame
    right = surprisal(model, tok, text.replace('dissapoint', 'disappoint'), by='word').frame
    at = wrong.bits.idxmax()
    assert wrong.token[at].startswith('dissap') and wrong.bits[at] > right.bits[at] + 5
    tokens = surprisal(model, tok, text).frame
    assert ''.join(tokens.token) == text
    assert tokens.nats.sum() == pytest.approx(wrong.nats.sum(), rel=1e-5)
    assert tokens.nats.sum() == pytest.approx(score_texts(model, tok, [text])[0].nats, rel=1e-5)

def test_the_mean_of_perplexities_errs_to_both_sides(reader):
    model, tok, _ = reader
    scores = score_texts(model, tok, ['A short one.', 'I loved this film from the first minute to the last.'])
    assert sum(s.perplexity for s in scores)/2 > 1.05*sum(scores).perplexity
    two = [LMScore(10*math.log(1.5), 10), LMScore(1000*math.log(100), 1000)]
    assert sum(s.perplexity for s in two)/2 == pytest.approx(50.75)
    assert sum(two).perplexity == pytest.approx(95.93, abs=.01)

def test_the_longer_answer_has_the_larger_sum(reader):
    model, tok, _ = reader
    short, long = score_texts(model, tok, ['I loved this film.', 'I loved this film from the first minute.'])
    assert long.nats > 1.5*short.nats and abs(long.bits_per_byte - short.bits_per_byte) < .3

class Dialects(torch.nn.Module):
    "Knows the tables of several languages, and finds out from what it has read which one a text is in."
    def __init__(self, sources):
        super().__init__()
        self.tables = torch.stack([torch.tensor(s.transition).log() for s in sources])
    def forward(self, input_ids):
        spoken = self.tables[:, input_ids[:, :-1], input_ids[:, 1:]].cumsum(-1)
        belief = torch.nn.functional.pad(spoken, (1, 0)).log_softmax(0)
        return (belief[..., None] + self.tables[:, input_ids]).logsumexp(0)

def test_small_strides_come_out_at_the_true_perplexity():
    from course_lm.entropy import MarkovSource
    dialects = [MarkovSource(n_states=12, concentration=1., seed=s) for s in range(6)]
    book, model = torch.tensor(dialects[2].sample(10_000, generator=3)), Dialects(dialects)
    apart, half, fine = (sliding_perplexity(model, book, 32, stride) for stride in (32, 16, 4))
    assert apart.perplexity > 1.02*half.perplexity > 1.02*fine.perplexity/1.02
    assert fine.perplexity == pytest.approx(dialects[2].perplexity, rel=.03)
    assert fine.tokens == half.tokens == len(book) - 1
