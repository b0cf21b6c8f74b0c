"Lesson 6 in depth, beyond the notebook: engines with dropout, property tests for samplers and windows, dull errors, and the recorded measurements."
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import given, settings, strategies as st

from course_lm.baselines import LABELS
from course_lm.classification import (
    ENGINES, LengthBucketedSampler, ReviewCollator, encode_reviews, fastai_engine, predict_proba,
    train_classifier, trainer_engine, unfreeze_engine, unfreezing)
from course_lm.windows import (
    TokenBudgetSampler, encode_head_tail, encode_windows, log_odds, padding_waste, predict_windows,
    review_explorer, show_importance, token_importance)
from course_lm.data import train_tokenizer
from course_lm.reviews import reviews
from course_lm.models import layer_groups, load_lm, new_model, tiny_bert_config, tiny_gpt_config

root = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.filterwarnings('ignore:`torch.jit.script` is deprecated:FutureWarning')


@pytest.fixture(scope='module')
def data(): return DatasetDict(train=reviews(52, seed=1, length='short'), valid=reviews(12, seed=2, length='short'), test=reviews(20, seed=3, length='short'))

@pytest.fixture(scope='module')
def tokenizer(data): return train_tokenizer(data['train']['text'], 400, masked=True)

def tiny(tokenizer, seed=0, n_layer=2, max_length=128): return load_lm((new_model(tiny_bert_config(tokenizer, n_layer=n_layer, n_head=2, n_embd=16, max_length=max_length), seed=seed), tokenizer), 'sequence-classification', LABELS, seed=seed)[0]

@pytest.fixture(scope='module')
def model(tokenizer): return tiny(tokenizer)

def train(model, tokenizer, data, **kw): return train_classifier(model, tokenizer, data, **{**dict(epochs=2, lr=3e-3, batch_size=8, warmup_steps=.2, weight_decay=.05, progress=False), **kw})


# engines

@pytest.fixture(params=['modernbert', 'distilbert with dropout'])
def fresh(request, tokenizer):
    "A function that makes the same untrained model again."
    if request.param == 'modernbert': return lambda: tiny(tokenizer)
    from transformers import DistilBertConfig, DistilBertForSequenceClassification
    def make():
        torch.manual_seed(3)
        return DistilBertForSequenceClassification(DistilBertConfig(vocab_size=len(tokenizer), dim=16, hidden_dim=32, n_layers=2, n_heads=2, max_position_embeddings=128, dropout=.2, pad_token_id=tokenizer.pad_token_id))
    return make

@pytest.mark.parametrize('engine', [partial(trainer_engine, same=True), partial(fastai_engine, same=True)], ids=['Trainer', 'fastai'])
def test_engines_give_the_losses_of_the_loop(fresh, tokenizer, data, engine):
    a, b = fresh(), fresh()
    ours, theirs = train(a, tokenizer, data, recipe='adamw-linear'), train(b, tokenizer, data, recipe=engine)
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-5)
    for (k,p),q in zip(a.named_parameters(), b.parameters()): torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6, msg=k)
    assert [h['valid_loss'] for h in ours.history] == pytest.approx([h['valid_loss'] for h in theirs.history], rel=1e-4)
    np.testing.assert_allclose(ours.probs, theirs.probs, atol=1e-5)

@pytest.mark.parametrize('recipe', ['adamw', 'unfreeze', 'trainer', 'fastai'])
def test_recipes_train_and_repeat(tokenizer, data, recipe):
    import random
    random.seed(1); np.random.seed(1); torch.manual_seed(1)
    streams = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state()
    model = tiny(tokenizer)
    before = [p.detach().clone() for p in model.parameters()]
    run = train(model, tokenizer, data, recipe=recipe, epochs=3)
    assert len(run.losses) == 3*7 and len(run.history) == 3 and run.settings['recipe'] == recipe and run.n_params == sum(p.numel() for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters()) and not model.training
    assert sum(not torch.equal(p, q) for p,q in zip(model.parameters(), before)) > .8*len(before)
    assert run.losses == pytest.approx(train(tiny(tokenizer), tokenizer, data, recipe=recipe, epochs=3).losses, rel=1e-5)
    assert random.getstate() == streams[0] and np.random.get_state()[1].tolist() == streams[1] and torch.equal(torch.random.get_rng_state(), streams[2]), "the caller's random streams are his own"

def test_adamw_is_the_loop_without_a_schedule(tokenizer, data):
    run = train(tiny(tokenizer), tokenizer, data, recipe='adamw')
    adam = train(tiny(tokenizer), tokenizer, data, recipe='adam')
    assert run.losses[0] == pytest.approx(adam.losses[0]) and run.losses[2:] != adam.losses[2:]
    np.testing.assert_allclose(train(tiny(tokenizer), tokenizer, data, recipe='adamw', weight_decay=0.).losses, adam.losses, rtol=1e-4)

def test_without_unfreezing_and_decay_it_is_adamw_linear(tokenizer, data):
    plain = train(tiny(tokenizer), tokenizer, data, recipe='adamw-linear').losses
    np.testing.assert_allclose(train(tiny(tokenizer), tokenizer, data, recipe=partial(unfreeze_engine, gradual=False)).losses, plain, rtol=1e-5)
    np.testing.assert_allclose(train(tiny(tokenizer), tokenizer, data, recipe='unfreeze', epochs=1).losses, train(tiny(tokenizer), tokenizer, data, recipe='adamw-linear', epochs=1).losses, rtol=1e-5)

@pytest.mark.parametrize('recipe', ['unfreeze', 'fastai'])
def test_frozen_groups_do_not_move(tokenizer, data, recipe):
    "After the first of many epochs only the head has moved."
    model = tiny(tokenizer)
    before = {k: [p.detach().clone() for p in g] for k,g in layer_groups(model).items()}
    class Enough(Exception): pass
    def stop(job):
        after = job.after_epoch
        def one(losses):
            after(losses)
            raise Enough('after one epoch')
        job.after_epoch = one
        ENGINES[recipe](job)
    with pytest.raises(Enough): train(model, tokenizer, data, recipe=stop, epochs=4)
    moved = {k: any(not torch.equal(p, q) for p,q in zip(g, before[k])) for k,g in layer_groups(model).items()}
    assert moved == {'embeddings': False, 'block 0': False, 'block 1': False, 'head': True}

def test_what_the_user_froze_stays_frozen(tokenizer, data):
    model = tiny(tokenizer)
    for p in layer_groups(model)['embeddings']: p.requires_grad_(False)
    before = model.get_input_embeddings().weight.detach().clone()
    train(model, tokenizer, data, recipe='unfreeze')
    assert torch.equal(model.get_input_embeddings().weight, before)

@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 30), epochs=st.integers(1, 40))
def test_unfreezing_laws(n, epochs):
    trained = unfreezing(n, epochs)
    assert len(trained) == epochs and trained[-1] == n and trained == sorted(trained) and (epochs == 1 or trained[0] == 1)

@pytest.mark.parametrize('args', [(0, 1), (3, 0)])
def test_unfreezing_refuses(args):
    with pytest.raises(ValueError, match='must be at least 1'): unfreezing(*args)

def test_engine_errors(tokenizer, data):
    with pytest.raises(ValueError, match='decay=0.5'): train(tiny(tokenizer), tokenizer, data, recipe=partial(unfreeze_engine, decay=.5))
    with pytest.raises(ValueError, match="'trainer'"): train(tiny(tokenizer), tokenizer, data, recipe='sgd')
    for recipe in ('unfreeze', 'trainer', partial(fastai_engine, same=True), partial(trainer_engine, same=True)):
        with pytest.raises(ValueError, match='warmup_steps=500'): train(tiny(tokenizer), tokenizer, data, recipe=recipe, warmup_steps=500)

@pytest.mark.parametrize('recipe', ['trainer', 'fastai', 'unfreeze'])
def test_a_head_that_takes_no_part_is_found(tokenizer, data, recipe):
    model = tiny(tokenizer)
    model.out_head = torch.nn.Linear(16, 2)
    with pytest.raises(ValueError, match='out_head.weight is trainable but took no part'): train(model, tokenizer, data, recipe=recipe)

def test_trainer_needs_equal_epochs(tokenizer, data):
    class Uneven(list):
        def set_epoch(self, epoch): self[:] = [[i] for i in range(4+epoch)]
    with pytest.raises(ValueError, match='is not|are not'): train(tiny(tokenizer), tokenizer, data, recipe='trainer', sampler=Uneven([[0]]))

def test_trainer_keeps_to_the_batch_that_was_asked_for(tokenizer, data):
    run = train(tiny(tokenizer), tokenizer, data, recipe='trainer', batch_size=13)
    assert len(run.losses) == 2*4

def test_keep_best_with_every_engine(tokenizer, data):
    for recipe in ENGINES: assert train(tiny(tokenizer), tokenizer, data, recipe=recipe, keep='best').chosen_on == 'valid'



# batches

lengths = st.lists(st.integers(1, 500), min_size=1, max_size=300)

@settings(max_examples=80, deadline=None)
@given(lengths=lengths, budget=st.integers(500, 4000), pool=st.one_of(st.none(), st.integers(1, 200)), shuffle=st.booleans(), epoch=st.integers(0, 3), most=st.one_of(st.none(), st.integers(1, 20)))
def test_token_budget(lengths, budget, pool, shuffle, epoch, most):
    sampler = TokenBudgetSampler(lengths, budget, pool, shuffle, max_reviews=most)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert sorted(i for b in batches for i in b) == list(range(len(lengths))), 'every review once'
    assert all(b and len(b)*max(lengths[i] for i in b) <= budget and len(b) <= (most or 300) for b in batches)
    assert len(sampler) == len(batches) and list(sampler) == batches
    again = TokenBudgetSampler(lengths, budget, pool, shuffle, max_reviews=most)
    again.set_epoch(epoch)
    assert list(again) == batches

@settings(max_examples=80, deadline=None)
@given(lengths=lengths, at=st.integers(0, 100), epoch=st.integers(0, 2), budget=st.booleans())
def test_left_and_taken_up_again_at_the_very_batch(lengths, at, epoch, budget):
    make = lambda: TokenBudgetSampler(lengths, 600, pool=50) if budget else LengthBucketedSampler(lengths, 7, pool=3)
    sampler, whole = make(), []
    for e in (epoch, epoch+1):
        sampler.set_epoch(e)
        whole.append(list(sampler))
    at %= len(whole[0]) + 1
    sampler.set_epoch(epoch)
    it = iter(sampler)
    for _ in range(at): next(it)
    state = json.loads(json.dumps(sampler.state_dict()))
    other = make()
    other.load_state_dict(state)
    other.set_epoch(epoch) # as every loop does
    assert list(other) == whole[0][at:]
    assert list(other) == whole[0], 'only the next pass is a partial one'
    other.set_epoch(epoch+1)
    assert list(other) == whole[1]

def test_state_of_other_reviews_is_refused():
    state = LengthBucketedSampler([3, 4, 5], 2).state_dict()
    for other in (LengthBucketedSampler([3, 4, 5, 6], 2), LengthBucketedSampler([3, 4, 5], 1), LengthBucketedSampler([3, 4, 6], 2), LengthBucketedSampler([3, 4, 5], 2, seed=1), TokenBudgetSampler([3, 4, 5], 10)):
        with pytest.raises(ValueError, match='state was taken from another sampler'): other.load_state_dict(state)

def test_an_interrupted_epoch_ends_in_the_same_weights(tokenizer, data):
    from torch.optim import AdamW
    enc, collate = encode_reviews(data['train'], tokenizer, 128), ReviewCollator(tokenizer)
    def step(model, opt, idx):
        loss = model(**collate([enc[i] for i in idx])).loss
        loss.backward(); opt.step(); opt.zero_grad()
    make = lambda: LengthBucketedSampler(enc['length'], 8)
    a = tiny(tokenizer).train()
    opt = AdamW(a.parameters(), lr=1e-3)
    for idx in make(): step(a, opt, idx)
    b, sampler = tiny(tokenizer).train(), make()
    opt = AdamW(b.parameters(), lr=1e-3)
    for k,idx in enumerate(sampler):
        step(b, opt, idx)
        if k == 2: break
    saved = dict(model={k: v.clone() for k,v in b.state_dict().items()}, opt=opt.state_dict(), sampler=sampler.state_dict())
    c, sampler = tiny(tokenizer, seed=9).train(), make()
    c.load_state_dict(saved['model'])
    opt = AdamW(c.parameters(), lr=1e-3)
    opt.load_state_dict(saved['opt'])
    sampler.load_state_dict(saved['sampler'])
    for idx in sampler: step(c, opt, idx)
    for p,q in zip(a.parameters(), c.parameters()): assert torch.equal(p, q)

def test_token_budget_trains(tokenizer, data):
    enc = {k: encode_reviews(v, tokenizer, 128) for k,v in data.items()}
    sampler = TokenBudgetSampler(enc['train']['length'], 300)
    run = train(tiny(tokenizer), tokenizer, enc, recipe='adamw-linear', sampler=sampler)
    n = 0
    for e in range(2):
        sampler.set_epoch(e)
        n += len(sampler)
    assert len(run.losses) == n

@pytest.mark.parametrize('kw, text', [(dict(max_tokens=40), 'less than the longest review, 50'), (dict(max_tokens=100, pool=0), 'pool=0'), (dict(max_tokens=100, max_reviews=0), 'max_reviews=0')])
def test_token_budget_refuses(kw, text):
    with pytest.raises(ValueError, match=text): TokenBudgetSampler([10, 50], **kw)

def test_padding_waste():
    assert padding_waste([2, 4], [[0, 1]]) == pytest.approx(.25) and padding_waste([2, 4], [[0], [1]]) == 0 and padding_waste([2, 4], [[0], [1]], pad_to=8) == pytest.approx(1-6/16)
    with pytest.raises(ValueError, match='batches is empty'): padding_waste([2], [])

def test_padding_changes_no_loss(model, tokenizer, data):
    enc = encode_reviews(data['train'], tokenizer, 128)
    def losses(batches, pad_to=None):
        out = torch.zeros(len(enc))
        for idx in batches:
            batch = ReviewCollator(tokenizer, pad_to)([enc[i] for i in idx])
            y = batch.pop('labels')
            with torch.no_grad(): out[idx] = torch.nn.functional.cross_entropy(model(**batch).logits, y, reduction='none')
        return out
    alone = losses([[i] for i in range(len(enc))])
    for batches, pad_to in (([list(range(len(enc)))], 128), (LengthBucketedSampler(enc['length'], 8), None), (TokenBudgetSampler(enc['length'], 400), None)):
        torch.testing.assert_close(losses(batches, pad_to), alone, rtol=1e-5, atol=1e-5)


# long reviews

@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 60), width=st.integers(4, 30), share=st.floats(0, 1))
def test_head_and_tail(n, width, share):
    tokenizer = _tokenizer()
    text = ' '.join(f'w{i}' for i in range(n))
    ids, (row,) = tokenizer(text)['input_ids'], encode_head_tail([text], tokenizer, width, share)
    room, first = width-2, round(share*(width-2))
    assert row['length'] == len(row['input_ids']) <= width and row['truncated'] == (len(ids) > width)
    if len(ids) <= width: assert list(row['input_ids']) == ids
    else: assert list(row['input_ids']) == ids[:1+first] + ids[len(ids)-1-(room-first):] and row['length'] == width

def test_head_tail_has_head_and_tail_as_its_ends(tokenizer, data):
    assert list(encode_head_tail(data['train'], tokenizer, 12, 1.)['input_ids']) == list(encode_reviews(data['train'], tokenizer, 12)['input_ids'])
    assert list(encode_head_tail(data['train'], tokenizer, 12, 0.)['input_ids']) == list(encode_reviews(data['train'], tokenizer, 12, 'left')['input_ids'])
    assert encode_head_tail(data['train'], tokenizer, 12).column_names == encode_reviews(data['train'], tokenizer, 12).column_names

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
            assert r['input_ids'][0] == tokenizer.cls_token_id and r['input_ids'][-1] == tokenizer.sep_token_id
            seen |= {r['start']+j: t for j,t in enumerate(body)}
        assert [seen[j] for j in range(len(ids))] == ids and len(seen) == len(ids)
        starts = [r['start'] for r in mine]
        assert starts == sorted(set(starts)) and all(b-a <= stride for a,b in zip(starts, starts[1:]))

def test_one_window_is_the_plain_answer(model, tokenizer, data):
    for average in ('logits', 'probs', 'surest'): np.testing.assert_allclose(predict_windows(model, tokenizer, data['test'], average=average), predict_proba(model, tokenizer, data['test']), atol=1e-6)

def test_averages_by_hand(tokenizer, data):
    model = tiny(tokenizer, max_length=16)
    windows = encode_windows(data['test'], tokenizer, 16, 14)
    odds, review = log_odds(model, tokenizer, windows), np.array(windows['review'])
    sure = lambda x: 1/(1+np.exp(-x))
    for k in range(5):
        o = odds[review==k]
        for average, p in (('logits', sure(o.mean())), ('probs', sure(o).mean()), ('surest', sure(o[np.abs(o).argmax()]))):
            assert predict_windows(model, tokenizer, data['test'], stride=14, average=average)[k] == pytest.approx(p, rel=1e-6)

def test_long_review_errors(model, tokenizer, data):
    for call, text in ((lambda: encode_head_tail(data['test'], tokenizer, 3), 'max_length=3 is too short'), (lambda: encode_head_tail(data['test'], tokenizer, 8, 2.), 'head=2.0'),
                       (lambda: encode_windows(data['test'], tokenizer, 8, 7), 'stride=7 must be between 1 and 6'), (lambda: encode_windows(data['test'], tokenizer, 2), 'max_length=2 is too short'),
                       (lambda: predict_windows(model, tokenizer, data['test'], average='max'), "average='max'"), (lambda: predict_windows(model, tokenizer, data['test'], max_length=200), 'more than the 128 tokens')):
        with pytest.raises(ValueError, match=text): call()
    assert len(predict_windows(model, tokenizer, [])) == 0 and len(log_odds(model, tokenizer, [])) == 0

def test_log_odds_are_those_of_the_probabilities(model, tokenizer, data):
    p = predict_proba(model, tokenizer, data['test'])
    np.testing.assert_allclose(log_odds(model, tokenizer, data['test']), np.log(p/(1-p)), atol=1e-4)
    ids = encode_reviews(data['test'], tokenizer, 128)
    np.testing.assert_allclose(log_odds(model, tokenizer, [list(i) for i in ids['input_ids']]), log_odds(model, tokenizer, ids), atol=1e-6)


# importance

class Bag(torch.nn.Module):
    "A classifier whose truth is known: the log-odds are a sum of one weight a token."
    def __init__(self, tokenizer, weights):
        super().__init__()
        self.emb = torch.nn.Embedding(len(tokenizer), 1)
        with torch.no_grad():
            self.emb.weight.zero_()
            for k,v in weights.items(): self.emb.weight[k] = v
        self.config = type('C', (), {'max_position_embeddings': 64})
    base_model = property(lambda self: self)
    def get_input_embeddings(self): return self.emb
    def forward(self, input_ids, attention_mask):
        score = (self.emb(input_ids)[..., 0]*attention_mask).sum(-1)
        return type('O', (), {'logits': torch.stack([torch.zeros_like(score), score], -1)})

@pytest.mark.parametrize('how', ['mask', 'delete'])
def test_importance_finds_the_weights_of_a_bag(how):
    tokenizer = _tokenizer()
    ids = tokenizer('w7 w3 w5 w3', add_special_tokens=False)['input_ids']
    rng = np.random.default_rng(0)
    weights = {t: float(w) for t,w in zip(sorted(set(ids)), rng.normal(size=20))}
    frame = token_importance(Bag(tokenizer, weights), tokenizer, 'w7 w3 w5 w3', how)
    np.testing.assert_allclose(frame.change, [weights[i] for i in ids], atol=1e-5)
    assert frame.change.sum() == pytest.approx(frame.attrs['log_odds'], abs=1e-4), 'a bag is additive'
    words = token_importance(Bag(tokenizer, weights), tokenizer, 'w7 w3 w5 w3', how, 'word')
    assert words.token.tolist() == ['w7', 'w3', 'w5', 'w3'] and words.change.sum() == pytest.approx(frame.change.sum(), abs=1e-4)
    assert words.change[1] == pytest.approx(words.change[3], abs=1e-5)

@pytest.mark.parametrize('text', ['The plot is not bad.', '  Café, naïve!  \n\nTwo lines <b>here</b> & "there" 😀 ', 'x'])
@pytest.mark.parametrize('by', ['token', 'word'])
def test_importance_covers_the_text(model, tokenizer, text, by):
    frame = token_importance(model, tokenizer, text, by=by)
    assert np.isfinite(frame.change).all() and (frame.start <= frame.end).all()
    assert all(text[r.start:r.end] == r.token for r in frame.itertuples())
    page = show_importance(frame).data
    import html, re
    body = re.search(r'white-space:pre-wrap;color:#111">(.*?)</div>', page, re.S)[1]
    assert html.unescape(re.sub('<[^>]+>', '', body)) == text, 'the whole text is shown, escaped, and nothing twice'
    assert 'color:#111' in page and 'background:#fff' in page

def test_importance_of_a_causal_model(data):
    causal = train_tokenizer(data['train']['text'], 400)
    gpt, tok = load_lm((new_model(tiny_gpt_config(causal, n_layer=1, n_head=2, n_embd=16)), causal), 'sequence-classification', LABELS)
    with pytest.raises(ValueError, match="no mask token: take how='delete'"): token_importance(gpt, tok, 'The plot is good.')
    assert len(token_importance(gpt, tok, 'The plot is good.', 'delete')) >= 5
    assert len(token_importance(gpt, tok, 'x', 'delete')) == 1

def test_importance_errors(model, tokenizer):
    for kw, text in ((dict(text=' '), 'text is empty'), (dict(text='word '*300), 'the model takes 128'), (dict(text='x', how='swap'), "how='swap'"), (dict(text='x', by='sentence'), "by='sentence'")):
        with pytest.raises(ValueError, match=text): token_importance(model, tokenizer, **kw)
    import pandas as pd
    with pytest.raises(ValueError, match='must come from token_importance'): show_importance(pd.DataFrame({'token': ['a']}))

def test_box(model, tokenizer):
    box = review_explorer(model, tokenizer, 'The plot is good.')
    review, row, view = box.children
    before = view.value
    assert 'probability' in before and 'plot' in before
    review.value = 'The plot is bad.'
    row.children[-1].click()
    assert view.value != before and 'bad' in view.value
    row.children[0].value = 'delete'
    assert 'bad' in view.value
    review.value = '<b> '*200
    row.children[-1].click()
    assert 'the model takes 128' in view.value
    assert view.value == show_message(view.value)

def show_message(v): return v if 'color:#a00' in v else None


# what was measured

def results(name): return json.loads((root/'benchmarks'/'results'/name).read_text())

def test_padding_was_measured():
    for part,r in results('padding.json').items():
        way = {w['way']: w for w in r['ways']}
        assert way['buckets']['speed'] >= 1.8 and way['dynamic']['speed'] < 1.3, part
        assert all(w['largest_loss_difference'] < 1e-5 and w['gradient_difference'] < 1e-4 for w in way.values())
        assert r['machine']['date'] and r['machine']['torch']


