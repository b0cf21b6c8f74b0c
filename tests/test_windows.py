"Lesson 62: batches by a budget of tokens, long reviews, what carried an answer."
import html, json, re
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import DatasetDict
from hypothesis import given, settings, strategies as st

import course_lm
from course_lm.baselines import LABELS
from course_lm.classification import (
    ADAMW_LINEAR, LengthBucketedSampler, encode_reviews, predict_proba, review_batch, train_classifier)
from course_lm.data import train_tokenizer
from course_lm.models import load_lm, new_model, tiny_bert_config, tiny_gpt_config
from course_lm.reviews import reviews
from course_lm.windows import (
    TokenBudgetSampler, encode_head_tail, encode_windows, predict_windows, review_explorer, show_importance,
    token_importance)

records = Path(course_lm.__file__).resolve().parent/'records'

def refused(text, error=ValueError): return pytest.raises(error, match=text)


@pytest.fixture(scope='module')
def data():
    return DatasetDict(train=reviews(52, seed=1, length='short'), valid=reviews(12, seed=2, length='short'),
                       test=reviews(20, seed=3, length='short'))

@pytest.fixture(scope='module')
def tokenizer(data): return train_tokenizer(data['train']['text'], 400, masked=True)

def classifier(config, tokenizer, seed=0):
    return load_lm((new_model(config, seed), tokenizer), 'sequence-classification', LABELS, seed=seed)[0]

def tiny(tokenizer, seed=0, max_length=128):
    config = tiny_bert_config(tokenizer, n_layer=2, n_head=2, n_embd=16, max_length=max_length)
    return classifier(config, tokenizer, seed)

@pytest.fixture(scope='module')
def model(tokenizer): return tiny(tokenizer)


# batches

lengths = st.lists(st.integers(1, 500), min_size=1, max_size=300)

@settings(max_examples=80, deadline=None)
@given(lengths=lengths, budget=st.integers(500, 4000), pool=st.one_of(st.none(), st.integers(1, 200)),
       shuffle=st.booleans(), epoch=st.integers(0, 3), most=st.one_of(st.none(), st.integers(1, 20)))
def test_token_budget(lengths, budget, pool, shuffle, epoch, most):
    sampler = TokenBudgetSampler(lengths, budget, pool, shuffle, max_reviews=most)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert sorted(i for b in batches for i in b) == list(range(len(lengths))), 'every review once'
    for b in batches: assert b and len(b)*max(lengths[i] for i in b) <= budget and len(b) <= (most or 300)
    assert len(sampler) == len(batches) and list(sampler) == batches
    again = TokenBudgetSampler(lengths, budget, pool, shuffle, max_reviews=most)
    again.set_epoch(epoch)
    assert list(again) == batches

def test_token_budget_trains(tokenizer, data):
    enc = {k: encode_reviews(v, tokenizer, 128) for k,v in data.items()}
    sampler = TokenBudgetSampler(enc['train']['length'], 300)
    settings = dict(epochs=2, lr=3e-3, warmup_steps=.2, progress=False)
    run = train_classifier(tiny(tokenizer), tokenizer, enc, ADAMW_LINEAR, sampler, **settings)
    n = 0
    for e in range(2):
        sampler.set_epoch(e)
        n += len(sampler)
    assert len(run.losses) == n

@pytest.mark.parametrize('kw, text', [
    (dict(max_tokens=40), 'less than the longest review, 50'), (dict(max_tokens=100, pool=0), 'pool=0'),
    (dict(max_tokens=100, max_reviews=0), 'max_reviews=0')])
def test_token_budget_refuses(kw, text):
    with pytest.raises(ValueError, match=text): TokenBudgetSampler([10, 50], **kw)


# long reviews

@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 60), width=st.integers(4, 30), share=st.floats(0, 1))
def test_head_and_tail(n, width, share):
    tokenizer = _tokenizer()
    text = ' '.join(f'w{i}' for i in range(n))
    ids, row = tokenizer(text)['input_ids'], encode_head_tail([text], tokenizer, width, share)[0]
    room, first = width-2, round(share*(width-2))
    assert row['length'] == len(row['input_ids']) <= width and row['truncated'] == (len(ids) > width)
    if len(ids) <= width: assert list(row['input_ids']) == ids
    else:
        assert row['length'] == width
        assert list(row['input_ids']) == ids[:1+first] + ids[len(ids)-1-(room-first):]

def test_head_tail_has_head_and_tail_as_its_ends(tokenizer, data):
    for head, side in ((1., 'right'), (0., 'left')):
        both = encode_head_tail(data['train'], tokenizer, 12, head)
        one = encode_reviews(data['train'], tokenizer, 12, side)
        assert list(both['input_ids']) == list(one['input_ids']) and both.column_names == one.column_names

_made = {}

def _tokenizer():
    if not _made: _made['t'] = train_tokenizer([' '.join(f'w{i}' for i in range(60))], 400, masked=True)
    return _made['t']

@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=4), width=st.integers(3, 20), data=st.data())
def test_windows_read_everything(sizes, width, data):
    tokenizer, room = _tokenizer(), width-2
    stride = data.draw(st.integers(1, room))
    texts = [' '.join(f'w{i}' for i in range(n)) for n in sizes]
    w = encode_windows(texts, tokenizer, width, stride)
    for k,text in enumerate(texts):
        ids, seen = tokenizer(text, add_special_tokens=False)['input_ids'], {}
        mine = [r for r in w if r['review'] == k]
        assert mine, 'an empty review has a window too'
        for r in mine:
            body = list(r['input_ids'])[1:-1]
            assert r['length'] == len(r['input_ids']) <= width and (len(body) == room or len(ids) < room)
            assert (r['input_ids'][0], r['input_ids'][-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
            seen |= {r['start']+j: t for j,t in enumerate(body)}
        assert [seen[j] for j in range(len(ids))] == ids and len(seen) == len(ids)
        starts = [r['start'] for r in mine]
        assert starts == sorted(set(starts)) and all(b-a <= stride for a,b in zip(starts, starts[1:]))

def test_one_window_is_the_plain_answer(model, tokenizer, data):
    plain = predict_proba(model, tokenizer, data['test'])
    for average in ('logits', 'probs', 'surest'):
        p = predict_windows(model, tokenizer, data['test'], average=average)
        np.testing.assert_allclose(p, plain, atol=1e-6)

def test_averages_by_hand(tokenizer, data):
    model = tiny(tokenizer, max_length=16)
    windows = encode_windows(data['test'], tokenizer, 16, 14)
    odds, review = predict_proba(model, tokenizer, windows, log_odds=True), np.array(windows['review'])
    def sure(x): return 1/(1+np.exp(-x))
    ways = dict(logits=lambda o: sure(o.mean()), probs=lambda o: sure(o).mean(),
                surest=lambda o: sure(o[np.abs(o).argmax()]))
    for k in range(5):
        for average, way in ways.items():
            p = predict_windows(model, tokenizer, data['test'], stride=14, average=average)[k]
            assert p == pytest.approx(way(odds[review==k]), rel=1e-6)

@pytest.mark.parametrize('call, text', [
    (lambda m, t, ds: encode_head_tail(ds, t, 3), 'max_length=3 is too short'),
    (lambda m, t, ds: encode_head_tail(ds, t, 8, 2.), 'head=2.0'),
    (lambda m, t, ds: encode_windows(ds, t, 8, 7), 'stride=7 must be between 1 and 6'),
    (lambda m, t, ds: encode_windows(ds, t, 8, 0), 'stride=0'),
    (lambda m, t, ds: encode_windows(ds, t, 2), 'max_length=2 is too short'),
    (lambda m, t, ds: predict_windows(m, t, ds, average='max'), "average='max'"),
    (lambda m, t, ds: predict_windows(m, t, ds, max_length=200), 'more than the 128 tokens')])
def test_long_review_errors(model, tokenizer, data, call, text):
    with refused(text): call(model, tokenizer, data['test'])

def test_no_reviews_have_no_answers(model, tokenizer):
    assert len(predict_windows(model, tokenizer, [])) == 0
    assert len(predict_proba(model, tokenizer, [], log_odds=True)) == 0

def test_log_odds_are_those_of_the_probabilities(model, tokenizer, data):
    def odds(what): return predict_proba(model, tokenizer, what, log_odds=True)
    p, ids = predict_proba(model, tokenizer, data['test']), encode_reviews(data['test'], tokenizer, 128)
    np.testing.assert_allclose(odds(data['test']), np.log(p/(1-p)), atol=1e-4)
    np.testing.assert_allclose(odds([list(i) for i in ids['input_ids']]), odds(ids), atol=1e-6)

def test_log_odds_have_no_ceiling(tokenizer):
    "In single precision the probability is 1; the difference of the logits is still told from a larger one."
    for weight in (40., 400.):
        bag = Bag(tokenizer, dict.fromkeys(range(len(tokenizer)), weight))
        assert predict_proba(bag, tokenizer, [[5]], log_odds=True)[0] == pytest.approx(weight)


# importance

class Bag(torch.nn.Module):
    "A classifier whose truth is known: the log-odds are a sum of one weight a token."
    def __init__(self, tokenizer, weights):
        super().__init__()
        self.emb = torch.nn.Embedding(len(tokenizer), 1)
        with torch.no_grad():
            self.emb.weight.zero_()
            for k, v in weights.items(): self.emb.weight[k] = v
        self.config = type('C', (), {'max_position_embeddings': 64, 'id2label': {0: 'blame', 1: 'praise'}})
    def get_input_embeddings(self): return self.emb
    def forward(self, input_ids, attention_mask):
        score = (self.emb(input_ids)[..., 0]*attention_mask).sum(-1)
        return type('O', (), {'logits': torch.stack([torch.zeros_like(score), score], -1)})

@pytest.mark.parametrize('how', ['mask', 'delete'])
def test_importance_finds_the_weights_of_a_bag(how):
    tokenizer, text = _tokenizer(), 'w7 w3 w5 w3'
    ids = tokenizer(text, add_special_tokens=False)['input_ids']
    rng = np.random.default_rng(0)
    weights = {t: float(w) for t, w in zip(sorted(set(ids)), rng.normal(size=20))}
    found = token_importance(Bag(tokenizer, weights), tokenizer, text, how)
    np.testing.assert_allclose(found.frame.change, [weights[i] for i in ids], atol=1e-5)
    assert found.frame.change.sum() == pytest.approx(found.log_odds, abs=1e-4), 'a bag is additive'
    assert (found.text, found.how, found.label) == (text, how, 'praise' if found.log_odds > 0 else 'blame')
    words = token_importance(Bag(tokenizer, weights), tokenizer, text, how, 'word').frame
    assert words.token.tolist() == ['w7', 'w3', 'w5', 'w3']
    assert words.change.sum() == pytest.approx(found.frame.change.sum(), abs=1e-4)
    assert words.change[1] == pytest.approx(words.change[3], abs=1e-5)

TEXTS = 'The plot is not bad.', '  Café, naïve!  \n\nTwo lines <b>here</b> & "there" 😀 ', 'x'

@pytest.mark.parametrize('text', TEXTS)
@pytest.mark.parametrize('by', ['token', 'word'])
def test_importance_covers_the_text(model, tokenizer, text, by):
    found = token_importance(model, tokenizer, text, by=by)
    assert np.isfinite(found.frame.change).all() and (found.frame.start <= found.frame.end).all()
    assert all(text[r.start:r.end] == r.token for r in found.frame.itertuples())
    page = show_importance(found).data
    body = re.search(r'white-space:pre-wrap;overflow-wrap:anywhere">(.*?)</div>', page, re.S)[1]
    shown = html.unescape(re.sub('<[^>]+>', '', body))
    assert shown == text, 'the whole text is shown, escaped, and nothing twice'
    assert 'color:#111' in page and 'background:#fff' in page and f'{found.label}, probability' in page

def test_importance_of_a_causal_model(data):
    causal = train_tokenizer(data['train']['text'], 400)
    gpt = classifier(tiny_gpt_config(causal, n_layer=1, n_head=2, n_embd=16), causal)
    with refused("no mask token: take how='delete'"): token_importance(gpt, causal, 'The plot is good.')
    assert len(token_importance(gpt, causal, 'The plot is good.', 'delete').frame) >= 5
    assert len(token_importance(gpt, causal, 'x', 'delete').frame) == 1

@pytest.mark.parametrize('kw, text', [
    (dict(text=' '), 'text is empty'), (dict(text='word '*300), 'the model takes 128'),
    (dict(text='x', how='swap'), "how='swap'"), (dict(text='x', by='sentence'), "by='sentence'")])
def test_importance_errors(model, tokenizer, kw, text):
    with refused(text): token_importance(model, tokenizer, **kw)

def test_only_an_importance_is_shown(model):
    with refused('found=', TypeError): show_importance(model)

def test_box(model, tokenizer):
    box = review_explorer(model, tokenizer, 'The plot is good.')
    review, row, view = box.children
    before = view.value
    assert 'probability' in before and 'plot' in before
    review.value = 'The plot is bad.'
    row.children[-1].click()
    assert view.value != before and 'bad' in view.value
    assert [value for _, value in row.children[0].options] == ['mask', 'delete']
    row.children[0].value = 'delete'
    assert 'bad' in view.value
    review.value = '<b> '*200
    row.children[-1].click()
    assert 'the model takes 128' in view.value and 'probability' not in view.value

def test_box_without_a_mask_token(data):
    causal = train_tokenizer(data['train']['text'], 400)
    gpt = classifier(tiny_gpt_config(causal, n_layer=1, n_head=2, n_embd=16), causal)
    how = review_explorer(gpt, causal).children[1].children[0]
    assert [value for _, value in how.options] == ['delete']


# what was measured

def test_padding_was_measured():
    path = records/'padding.json'
    for part, r in json.loads(path.read_text(encoding='utf-8')).items():
        way = {w['way']: w for w in r['ways']}
        assert way['buckets']['speed'] >= 1.8 and way['dynamic']['speed'] < 1.3, part
        for w in way.values(): assert w['largest_loss_difference'] < 1e-5 and w['gradient_difference'] < 1e-4
        assert r['machine']['date'] and r['machine']['torch']


# what the lesson says of batches and windows

def losses_in(model, tokenizer, enc, batches):
    "The loss of each review in its batch."
    out = torch.zeros(len(enc))
    for rows in batches:
        batch = review_batch([enc[i] for i in rows], tokenizer)
        labels = batch.pop('labels')
        with torch.no_grad(): logits = model(**batch).logits
        out[rows] = torch.nn.functional.cross_entropy(logits, labels, reduction='none')
    return out

def test_a_loss_does_not_depend_on_the_batch(model, tokenizer, data):
    enc = encode_reviews(data['train'], tokenizer, 64)
    alone = losses_in(model, tokenizer, enc, [[i] for i in range(52)])
    for sampler in (LengthBucketedSampler(enc['length'], 8), TokenBudgetSampler(enc['length'], 300)):
        torch.testing.assert_close(losses_in(model, tokenizer, enc, sampler), alone, rtol=1e-5, atol=1e-5)

def test_weighed_by_reviews_an_epoch_has_the_gradient_of_single_reviews(tokenizer, data):
    enc = encode_reviews(data['train'], tokenizer, 64)
    def gradient(batches, weigh):
        model = tiny(tokenizer)
        for rows in batches:
            loss = model(**review_batch([enc[i] for i in rows], tokenizer)).loss
            (loss*(len(rows) if weigh else 1)).backward()
        found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        return found/found.norm()
    alone = gradient([[i] for i in range(52)], True)
    uneven = TokenBudgetSampler(enc['length'], 64*3)
    assert alone @ gradient(uneven, True) > .9999 > .99 > alone @ gradient(uneven, False)

def test_windows_are_those_of_the_tokenizer(tokenizer, data):
    "But for the last one, which is full here and a remainder there."
    text, overlap = ' '.join(data['test']['text'][:8]), 20
    many = dict(truncation=True, return_overflowing_tokens=True)
    theirs = tokenizer(text, max_length=64, stride=overlap, **many)['input_ids']
    ours = [list(row) for row in encode_windows([text], tokenizer, 64, stride=62-overlap)['input_ids']]
    assert len(ours) > 3 and ours[:-1] == theirs[:-1] and ours[-1][1-len(theirs[-1]):] == theirs[-1][1:]
