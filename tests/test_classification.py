"Lesson 61: hub-format folders, batches, training, the LSTM, and that the lesson quotes what was measured."
import json, math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import given, settings, strategies as st

import course_lm
from course_lm.baselines import LABELS, RunResult, leak_report, linear_baseline, near_duplicates
from course_lm.classification import (
    ADAM, ADAMW_LINEAR, LSTMClassifier, LengthBucketedSampler, classify, encode_reviews, lstm_baseline,
    most_confident_mistakes, predict_proba, review_batch, train_classifier)
from course_lm.data import train_tokenizer
from course_lm.models import layer_groups, load_lm, new_model, save_lm, tiny_bert_config, tiny_gpt_config
from course_lm.reviews import reviews
from course_lm.windows import (
    TokenBudgetSampler, encode_head_tail, encode_windows, predict_windows, token_importance)

from .hub_folders import distilbert_folder

root = Path(__file__).resolve().parent.parent
records = Path(course_lm.__file__).resolve().parent/'records'


@pytest.fixture(scope='module')
def data():
    return DatasetDict(train=reviews(64, seed=1, length='short'), valid=reviews(20, seed=2, length='short'),
                       test=reviews(30, seed=3, length='short'))

@pytest.fixture(scope='module')
def tokenizer(data): return train_tokenizer(data['train']['text'], 400, masked=True)

@pytest.fixture
def model(tokenizer): return tiny(tokenizer)

def classifier(name, seed=42): return load_lm(name, 'sequence-classification', LABELS, seed=seed)

def tiny(tokenizer, seed=0, n_layer=1):
    config = tiny_bert_config(tokenizer, n_layer=n_layer, n_head=2, n_embd=16)
    return classifier((new_model(config, seed), tokenizer), seed)[0]

def train(model, tokenizer, data, recipe=ADAM, **kw):
    return train_classifier(model, tokenizer, data, recipe, **dict(epochs=1, lr=1e-3, progress=False) | kw)

def refused(text, error=ValueError): return pytest.raises(error, match=text)


@pytest.fixture(scope='module')
def distilbert(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('hub')/'distilbert-base-uncased'
    return distilbert_folder(folder, data['train']['text'])


# classifiers from load_lm

def test_distilbert_folder_takes_the_same_path(distilbert, data, capfd, caplog):
    folder, lm = distilbert
    model, tokenizer = load_lm(folder, 'sequence-classification', LABELS)
    assert type(model).__name__ == 'DistilBertForSequenceClassification'
    head = [f'{name}.{kind}' for name in ('classifier', 'pre_classifier') for kind in ('bias', 'weight')]
    assert [*model.load_report.new] == head
    for k,v in lm.distilbert.state_dict().items(): assert torch.equal(model.distilbert.state_dict()[k], v), k
    assert tokenizer('A Film.')['input_ids'][0] == 2 and tokenizer.pad_token_id == 0
    report = model.load_report.frame()
    assert report.loc[('new', 'head'), 'tensors'] == 4
    assert report.loc[('left out', 'old head'), 'tensors'] == 5
    shown = capfd.readouterr()
    assert not shown.out and not shown.err and not caplog.records, 'the load report must not print'
    run = train(model, tokenizer, data, ADAMW_LINEAR, warmup_steps=.25)
    assert run.n == 30 and len(run.losses) == 4


def test_tiny_is_the_courses_own_bert():
    model, tokenizer = load_lm('tiny-bert', 'sequence-classification', LABELS)
    theirs, ours = load_lm('tiny', 'masked')[0].state_dict(), model.state_dict()
    new = [*model.load_report.new]
    assert new == ['classifier.bias', 'classifier.weight'] and set(ours) - set(new) <= set(theirs)
    assert all(torch.equal(v, theirs[k]) for k,v in ours.items() if k not in new)
    assert ours['classifier.weight'].dtype == torch.float32
    assert (len(tokenizer), tokenizer.pad_token_id) == (model.config.vocab_size, model.config.pad_token_id)
    assert model.config.id2label == {0: 'negative', 1: 'positive'}
    other = load_lm('tiny-bert', 'sequence-classification', LABELS, seed=1)[0].state_dict()
    moved = [k for k in ours if not torch.equal(ours[k], other[k])]
    assert moved == ['classifier.weight'] # the bias starts at zero
    with refused('max_length=257 is more than the 256'):
        predict_proba(model, tokenizer, ['good'], max_length=257)

def test_tiny_tells_praise_from_blame_by_reading_alone():
    "Twenty adjectives are told, twenty guessed: without a label, it has put them on two sides."
    from sklearn.linear_model import LogisticRegression
    from course_lm.reviews import CUES
    model, tokenizer = load_lm('tiny-bert', 'sequence-classification', LABELS)
    def vector(word):
        sentence = tokenizer(f'The film was {word}.', return_tensors='pt', return_token_type_ids=False)
        return model.base_model(**sentence).last_hidden_state[0].mean(0)
    with torch.no_grad(): x = torch.stack([vector(w) for w in [*CUES][:40]]).numpy()
    x, y = (x - x.mean(0))/x.std(0), np.repeat([1, 0], 20)
    told = np.r_[0:20:2, 20:40:2]
    guess = LogisticRegression(C=.01).fit(x[told], y[told])
    assert guess.score(np.delete(x, told, 0), np.delete(y, told)) >= .7


def test_gpt2_without_pad_gets_one(data, tmp_path):
    causal = train_tokenizer(data['train']['text'], 400)
    gpt = new_model(tiny_gpt_config(causal, n_layer=1, n_head=2, n_embd=16))
    gpt.config.pad_token_id = causal.pad_token = None
    model, tokenizer = load_lm((gpt, causal), 'sequence-classification', LABELS)
    assert tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id < model.get_input_embeddings().num_embeddings
    one = predict_proba(model, tokenizer, ['The plot is good.'])[0]
    two = predict_proba(model, tokenizer, ['The plot is good.', 'word '*60])
    assert two[0] == pytest.approx(one, abs=1e-5)


def test_classifier_comes_back_whole(model, tokenizer, data, tmp_path):
    save_lm(model, tokenizer, tmp_path/'c')
    again, tok = load_lm(tmp_path/'c', 'sequence-classification')
    assert again.load_report.new == {} and again.config.id2label == {0: 'negative', 1: 'positive'}
    ours, theirs = predict_proba(model, tokenizer, data['test']), predict_proba(again, tok, data['test'])
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_roberta_positions(data):
    from transformers import RobertaConfig, RobertaForSequenceClassification
    tokenizer = train_tokenizer(data['train']['text'], 400, masked=True)
    config = RobertaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32,
                           num_hidden_layers=1, num_attention_heads=2,
                           max_position_embeddings=34, pad_token_id=0)
    model = RobertaForSequenceClassification(config)
    limit = 34 - 1 # positions start at pad + 1
    assert len(predict_proba(model, tokenizer, ['word '*100])) == 1
    with refused(f'more than the {limit} tokens'):
        predict_proba(model, tokenizer, ['word'], max_length=limit+1)


def films(n=300, movies=40):
    return reviews(n, seed=5, length='short').add_column('movie', [f'm{i%movies}' for i in range(n)])


# mistakes


def test_most_confident_mistakes():
    run = RunResult('r', np.array([.9, .8, .3, .05]), np.array([0, 1, 1, 1]))
    ds = Dataset.from_dict({'text': list('abcd'), 'label': [0, 1, 1, 1]})
    assert most_confident_mistakes(run, ds)['text'].tolist() == ['d', 'a', 'c']
    assert (run.correct, run.predictions.tolist()) == (1, [1, 1, 0, 0])
    with refused('not the split of 4'): most_confident_mistakes(run, ds.select([0, 1]))


# batches

@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 500), min_size=1, max_size=300), batch_size=st.integers(1, 40),
       pool=st.one_of(st.none(), st.integers(1, 8)), shuffle=st.booleans(), epoch=st.integers(0, 3))
def test_every_review_once(lengths, batch_size, pool, shuffle, epoch):
    sampler = LengthBucketedSampler(lengths, batch_size, pool, shuffle)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert sorted(i for b in batches for i in b) == list(range(len(lengths)))
    assert len(batches) == len(sampler) and max(map(len, batches)) <= batch_size
    assert list(sampler) == batches

def test_buckets_save_padding():
    lengths = np.random.default_rng(0).lognormal(5.4, .6, 4000).astype(int).clip(10, 512)
    def cost(batches): return sum(len(b)*lengths[b].max() for b in batches)
    at_random = cost(np.split(np.random.default_rng(1).permutation(4000), 250))
    assert cost(LengthBucketedSampler(lengths, 16)) < .6*at_random

@pytest.mark.parametrize('kw, text', [
    (dict(lengths=[], batch_size=4), r'lengths=\[\] must'), (dict(lengths=[3], batch_size=0), 'batch_size=0'),
    (dict(lengths=[3], batch_size=2, pool=0), 'pool=0')])
def test_sampler_refuses(kw, text):
    with refused(text): LengthBucketedSampler(**kw)

def test_left_padding(tokenizer):
    import copy
    left = copy.deepcopy(tokenizer)
    left.padding_side = 'left'
    batch = review_batch([{'input_ids': [2, 9, 3]}], left, pad_to=4)
    assert batch['input_ids'].tolist() == [[0, 2, 9, 3]]
    assert batch['attention_mask'].tolist() == [[0, 1, 1, 1]]
    assert 'labels' not in batch

def test_no_pad_token(data):
    causal = train_tokenizer(data['train']['text'], 400)
    causal.pad_token = None
    two = [{'input_ids': [1, 2]}, {'input_ids': [1]}]
    with refused('no pad token'): review_batch(two, causal)

def test_encoding(data, tokenizer):
    enc = encode_reviews(data['train'], tokenizer, 20)
    theirs = tokenizer(list(data['train']['text']), truncation=True, max_length=20)['input_ids']
    assert [list(r) for r in enc['input_ids']] == theirs and enc['label'][:] == data['train']['label'][:]
    assert enc['length'][:] == [len(t) for t in theirs] and all(enc['truncated'])
    assert tokenizer.truncation_side == 'right'
    with refused('leaves no room'): encode_reviews(['a'], tokenizer, 2)
    with refused("truncation_side='middle'"): encode_reviews(['a'], tokenizer, 9, 'middle')
    assert len(encode_reviews([], tokenizer, 9)) == 0
    assert not any(encode_reviews(data['train'], tokenizer)['truncated'])

def test_padding_never_changes_an_answer(model, tokenizer, data):
    one = [predict_proba(model, tokenizer, [t])[0] for t in data['test']['text']]
    for size in (3, 30):
        some = predict_proba(model, tokenizer, data['test'], batch_size=size)
        np.testing.assert_allclose(some, one, atol=1e-5)
    assert predict_proba(model, tokenizer, []).shape == (0,)


# training

def test_same_seed_same_run(tokenizer, data):
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    a, b, c = (train(tiny(tokenizer), tokenizer, data, seed=s) for s in (1, 1, 2))
    assert a.losses == b.losses != c.losses
    assert torch.equal(torch.random.get_rng_state(), state)

def test_text_and_encoded_are_the_same(tokenizer, data):
    enc = {k: encode_reviews(v, tokenizer, 128) for k,v in data.items()}
    assert train(tiny(tokenizer), tokenizer, data).losses == train(tiny(tokenizer), tokenizer, enc).losses

def test_plain_loop_is_the_lectures(tokenizer, data):
    "Ten lines of PyTorch, written again."
    ours, theirs = tiny(tokenizer), tiny(tokenizer)
    order = [list(range(i, i+8)) for i in range(0, 64, 8)]
    run = train(ours, tokenizer, data, sampler=order, epochs=2)
    opt, losses = torch.optim.Adam(theirs.parameters(), lr=1e-3), []
    theirs.train()
    for _ in range(2):
        for idx in order:
            some = data['train'].select(idx)
            texts = some['text'][:]
            batch = tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors='pt')
            inputs = {k: batch[k] for k in ('input_ids', 'attention_mask')}
            loss = theirs(**inputs, labels=torch.tensor(some['label'][:])).loss
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    np.testing.assert_allclose(run.losses, losses, rtol=1e-5)

def test_best_epoch_is_kept_and_said(tokenizer, data):
    for seed in range(10): # until the last epoch is not the best one
        model = tiny(tokenizer, seed)
        run = train(model, tokenizer, data, epochs=4, lr=2e-2, keep_best=True, seed=seed)
        best = max(h['valid_accuracy'] for h in run.history)
        assert run.chosen_on == 'valid' and run.scored_on == 'test'
        p = predict_proba(model, tokenizer, data['valid'])
        assert np.mean((p > .5) == np.array(data['valid']['label'])) == best == run.valid_accuracy
        if run.history[-1]['valid_accuracy'] < best: return
    pytest.fail('the last epoch was the best one ten times: this test shows nothing')

@pytest.mark.parametrize('kw, text', [
    (dict(recipe='sgd'), "recipe='sgd'"), (dict(keep_best='worst'), "keep_best='worst'"),
    (dict(keep='best'), "keep='best'"), (dict(epochs=0), 'epochs=0'),
    (dict(recipe=ADAMW_LINEAR), 'warmup_steps=500'), (dict(max_length=500), 'max_length=500'),
    (dict(criterion='accuracy', keep_best=True), "criterion='accuracy'")])
def test_arguments_are_checked_before_work(model, tokenizer, data, kw, text):
    before = {k: v.clone() for k,v in model.state_dict().items()}
    with refused(text, (ValueError, TypeError)): train(model, tokenizer, data, **kw)
    for k,v in model.state_dict().items(): assert torch.equal(v, before[k])

def test_bad_splits(model, tokenizer, data):
    one = data['train'].select([i for i,l in enumerate(data['train']['label']) if l])
    part, none = data['test'].select(range(20)), data['test'].select([])
    for bad, text in (({**data, 'train': one}, 'all 32 labels of train are 1'),
                      ({**data, 'test': none}, 'test is empty'),
                      ({**data, 'valid': data['test']}, 'valid and test are the same'),
                      ({**data, 'valid': part}, 'valid and test are the same'),
                      ({**data, 'train': none}, 'train is empty'),
                      ({'train': data['train'], 'valid': data['valid']}, "no 'test'")):
        with refused(text): train(model, tokenizer, bad)
    with refused('splits=', TypeError): train(model, tokenizer, data['train'])
    long = {k: encode_reviews(v.map(lambda r: {'text': r['text']*9}), tokenizer, 300) for k,v in data.items()}
    with refused('the model takes 128'): train(model, tokenizer, long)

def test_larger_tokenizer_than_model(model, data):
    large = train_tokenizer(data['train']['text'], 500, masked=True)
    with refused('use the tokenizer that the model was'): predict_proba(model, large, data['test'])

def test_recipes_are_the_lectures():
    assert (ADAM.schedule, ADAM.weight_decay, ADAM.betas) == ('constant', 0, (.9, .999))
    assert ADAM.max_grad_norm == math.inf
    assert replace(ADAM, schedule='linear', warmup_steps=500, weight_decay=.01) == ADAMW_LINEAR
    assert (ADAM.lr, ADAM.epochs, ADAM.batch_size, ADAM.criterion) == (5e-5, 3, 16, 'valid_accuracy')

@pytest.mark.parametrize('recipe', [ADAM, replace(ADAMW_LINEAR, warmup_steps=.2)], ids=['adam', 'linear'])
def test_recipes_train_and_repeat(tokenizer, data, recipe):
    import random
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    def streams():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()
    before, model = streams(), tiny(tokenizer, n_layer=2)
    weights = [p.detach().clone() for p in model.parameters()]
    kw = dict(epochs=3, lr=3e-3, batch_size=8)
    run = train(model, tokenizer, data, recipe, **kw)
    assert len(run.losses) == 3*8 and [h['epoch'] for h in run.history] == [0, 1, 2, 3]
    assert run.settings['schedule'] == recipe.schedule
    assert run.n_params == sum(p.numel() for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters()) and not model.training
    assert sum(not torch.equal(p, q) for p,q in zip(model.parameters(), weights)) > .8*len(weights)
    assert run.losses == train(tiny(tokenizer, n_layer=2), tokenizer, data, recipe, **kw).losses
    assert streams() == before, "the caller's random streams are his own"

def test_without_decay_and_schedule_adamw_is_adam(tokenizer, data):
    kw = dict(epochs=2, lr=3e-3, batch_size=8)
    adam = train(tiny(tokenizer), tokenizer, data, **kw).losses
    linear = train(tiny(tokenizer), tokenizer, data, ADAMW_LINEAR, warmup_steps=.2, **kw).losses
    plain = replace(ADAMW_LINEAR, schedule='constant', warmup_steps=0, weight_decay=0.)
    same = train(tiny(tokenizer), tokenizer, data, plain, **kw)
    assert same.losses == adam != linear
    assert train(tiny(tokenizer), tokenizer, data, weight_decay=1., **kw).losses[2:] != adam[2:]

def test_what_the_user_froze_stays_frozen(tokenizer, data):
    model = tiny(tokenizer)
    for p in layer_groups(model)['embeddings']: p.requires_grad_(False)
    before = model.get_input_embeddings().weight.detach().clone()
    train(model, tokenizer, data)
    assert torch.equal(model.get_input_embeddings().weight, before)

def test_a_head_that_takes_no_part_is_found(tokenizer, data):
    model = tiny(tokenizer)
    model.out_head = torch.nn.Linear(16, 2)
    with refused('out_head.weight is trainable but took no part'): train(model, tokenizer, data)
    model.requires_grad_(False)
    with refused(r'classifier\.\w+ is new and frozen'): train(model, tokenizer, data)

def test_epochs_of_different_lengths(tokenizer, data):
    class Uneven(list):
        def set_epoch(self, epoch): self[:] = [[i] for i in range(4+epoch)]
    run = train(tiny(tokenizer), tokenizer, data, sampler=Uneven([[0]]), epochs=2)
    assert len(run.losses) == 4 + 5 and [h['step'] for h in run.history] == [0, 5, 9]

def test_a_number_of_updates_in_place_of_epochs(tokenizer, data):
    run = train(tiny(tokenizer), tokenizer, data, n_steps=7, eval_every=3, batch_size=13)
    assert len(run.losses) == 7 and [h['step'] for h in run.history] == [0, 3, 6, 7]

def test_gradients_of_several_batches_add_up(tokenizer, data):
    "Two batches of eight are one of sixteen: each review is one scored item."
    order = [list(range(i, i+8)) for i in range(0, 64, 8)]
    large = [a + b for a,b in zip(order[::2], order[1::2])]
    two = train(tiny(tokenizer), tokenizer, data, sampler=order, accumulate=2)
    one = train(tiny(tokenizer), tokenizer, data, sampler=large)
    np.testing.assert_allclose(two.losses, one.losses, rtol=1e-4)

def test_the_model_is_trained_where_it_is(tokenizer, data):
    with refused('device', TypeError): train(tiny(tokenizer), tokenizer, data, device='cpu')

def test_classify(model, tokenizer):
    out = classify(model, tokenizer, 'The plot is good.')
    assert out.shape == (1, 3) and .5 <= out['probability'][0] <= 1 and out['label'][0] in LABELS
    for bad in ('', ['good', ' ']):
        with refused('none of them empty'): classify(model, tokenizer, bad)
    with refused('texts'): classify(model, tokenizer, [])
    with refused('texts', TypeError): classify(model, tokenizer, [3])


# samplers that go on

@settings(max_examples=80, deadline=None)
@given(lengths=st.lists(st.integers(1, 500), min_size=1, max_size=300), at=st.integers(0, 100),
       epoch=st.integers(0, 2), budget=st.booleans())
def test_left_and_taken_up_again_at_the_very_batch(lengths, at, epoch, budget):
    def make():
        if budget: return TokenBudgetSampler(lengths, 600, pool=50)
        return LengthBucketedSampler(lengths, 7, pool=3)
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
    others = [LengthBucketedSampler([3, 4, 5, 6], 2), LengthBucketedSampler([3, 4, 5], 1),
              LengthBucketedSampler([3, 4, 6], 2), LengthBucketedSampler([3, 4, 5], 2, seed=1),
              TokenBudgetSampler([3, 4, 5], 10)]
    for other in others:
        with refused('state was taken from another sampler'): other.load_state_dict(state)

def test_an_interrupted_epoch_ends_in_the_same_weights(tokenizer, data):
    from torch.optim import AdamW
    enc = encode_reviews(data['train'], tokenizer, 128)
    def step(model, opt, idx):
        model(**review_batch([enc[i] for i in idx], tokenizer)).loss.backward()
        opt.step()
        opt.zero_grad()
    def make(): return LengthBucketedSampler(enc['length'], 8)
    a = tiny(tokenizer).train()
    opt = AdamW(a.parameters(), lr=1e-3)
    for idx in make(): step(a, opt, idx)
    b, sampler = tiny(tokenizer).train(), make()
    opt = AdamW(b.parameters(), lr=1e-3)
    for k,idx in enumerate(sampler):
        step(b, opt, idx)
        if k == 2: break
    weights = {k: v.clone() for k,v in b.state_dict().items()}
    saved = dict(model=weights, opt=opt.state_dict(), sampler=sampler.state_dict())
    c, sampler = tiny(tokenizer, seed=9).train(), make()
    c.load_state_dict(saved['model'])
    opt = AdamW(c.parameters(), lr=1e-3)
    opt.load_state_dict(saved['opt'])
    sampler.load_state_dict(saved['sampler'])
    for idx in sampler: step(c, opt, idx)
    for p,q in zip(a.parameters(), c.parameters()): assert torch.equal(p, q)

def test_padding_changes_no_loss(model, tokenizer, data):
    enc = encode_reviews(data['train'], tokenizer, 128)
    def losses(batches, pad_to=0):
        out = torch.zeros(len(enc))
        for idx in batches:
            batch = review_batch([enc[i] for i in idx], tokenizer, pad_to)
            y = batch.pop('labels')
            with torch.no_grad(): logits = model(**batch).logits
            out[idx] = torch.nn.functional.cross_entropy(logits, y, reduction='none')
        return out
    alone = losses([[i] for i in range(len(enc))])
    whole, buckets = [list(range(len(enc)))], LengthBucketedSampler(enc['length'], 8)
    for batches, pad_to in ((whole, 128), (buckets, 0), (TokenBudgetSampler(enc['length'], 400), 0)):
        torch.testing.assert_close(losses(batches, pad_to), alone, rtol=1e-5, atol=1e-5)


# LSTM

def lstm(data, **kw):
    tokenizer = train_tokenizer(data['train']['text'][:], kind='word', min_count=1)
    return tokenizer, LSTMClassifier(len(tokenizer), **{**dict(n_embd=8, n_hidden=6), **kw})

@pytest.mark.parametrize('kw', [
    dict(pooling='last'), dict(pooling='max'), dict(pooling='mean'), dict(pooling='last', bidirectional=True),
    dict(pooling='max', bidirectional=True)])
def test_lstm_never_reads_a_pad(data, kw):
    tokenizer, model = lstm(data, **kw)
    texts = list(data['test']['text'])
    one = [predict_proba(model, tokenizer, [t])[0] for t in texts]
    np.testing.assert_allclose(predict_proba(model, tokenizer, texts, batch_size=30), one, atol=1e-6)
    row = tokenizer(texts[0])['input_ids']
    far = model.eval()(**review_batch([{'input_ids': row}], tokenizer, pad_to=len(row)+40)).logits
    assert far.softmax(-1)[0,1].item() == pytest.approx(one[0], abs=1e-6)

def test_lstm_by_hand(data):
    "The last state, step by step, one word after the other."
    tokenizer, model = lstm(data)
    model.eval()
    row = torch.tensor([tokenizer('The plot is not good.')['input_ids']])
    state = None
    for i in range(row.shape[1]): _, state = model.lstm(model.embed(row[:,i:i+1]), state)
    torch.testing.assert_close(model(row, torch.ones_like(row)).logits, model.head(state[0][0]))

def test_unpacked_lstm_would_read_them(data):
    tokenizer, model = lstm(data)
    row = tokenizer('The plot is good.')['input_ids']
    ids = torch.tensor([row + [0]*20])
    packed = model.eval()(ids, (ids!=0).long()).logits
    read = model.head(model.lstm(model.embed(ids))[1][0][0])
    assert (packed-read).abs().max() > 1e-3

def test_lstm_baseline(data):
    kw = dict(n_embd=8, n_hidden=6, n_words=100, progress=False)
    recipe = replace(ADAM, lr=5e-3, epochs=2, batch_size=16, keep_best=True)
    a, b, c = (lstm_baseline(data, replace(recipe, seed=s), **kw) for s in (1, 1, 2))
    assert a.losses == b.losses != c.losses and len(a.history) == 3
    assert a.chosen_on == 'valid' and a.scored_on == 'test'
    assert a.valid_accuracy == max(h['valid_accuracy'] for h in a.history)
    assert all(h['seconds'] > 0 for h in a.history)
    assert a.settings['n_words'] <= 100 and a.settings['n_embd'] == 8
    with refused("pooling='first'"): lstm_baseline(data, pooling='first', progress=False)
    two = {k: data[k] for k in ('train', 'test')}
    with refused("no 'valid'"): lstm_baseline(two, progress=False)

def test_lstm_learns_by_heart(data):
    few = {'train': data['train'].select(range(24)), 'valid': data['valid'], 'test': data['test']}
    recipe = replace(ADAM, epochs=40, lr=2e-2, batch_size=8)
    assert lstm_baseline(few, recipe, dropout=0., progress=False).losses[-1] < .1


# the benchmark and the lesson

def benchmark(monkeypatch, *args):
    import sys
    from benchmarks.experiments import imdb as module
    monkeypatch.setattr(sys, 'argv', ['imdb.py', *map(str, args)])
    threads = torch.get_num_threads()
    try: module.main()
    finally: torch.set_num_threads(threads)

def test_benchmark_keeps_its_runs(tmp_path, monkeypatch, capsys):
    films(400).to_parquet(tmp_path/'train.parquet')
    out = tmp_path/'out.json'
    where = '--imdb', tmp_path/'train.parquet', '--out', out
    small = *where, '--epochs', 1, '--n-embd', 16, '--max-length', 64
    encoder = *small, '--only', 'encoder'
    benchmark(monkeypatch, *small, '--only', 'leaks,baselines,lstm')
    benchmark(monkeypatch, *small, '--only', 'baselines', '--baselines', 'majority')
    body, named = tmp_path/'body', ('--name', 'from its folder')
    benchmark(monkeypatch, *encoder, '--pretrain', .02, '--keep', body, '--vocab-size', 400)
    benchmark(monkeypatch, *encoder, '--encoder', body, *named, '--recipe', 'adam')
    got = json.loads(out.read_text())
    runs = {r['name']: r for r in got['runs']}
    names = {'majority', 'word list', 'NB-SVM', 'LSTM', 'encoder, body that has filled masks',
             'from its folder'}
    assert len(runs) == len(got['runs']) == 9 and names <= set(runs)
    for r in got['runs']:
        (low, high), accuracy = r['interval'], r['test_accuracy']
        assert accuracy == pytest.approx(r['correct']/r['test_reviews'], abs=1e-4) and low <= accuracy <= high
        assert r['chosen_on'] in (None, 'valid') and r['cpu_seconds'] >= 0
        assert r['machine']['torch'] and r['date']
    curve, settings = runs['LSTM']['curve'], runs['from its folder']['settings']
    assert len(curve) == 1 and curve[0]['minutes'] > 0 and runs['LSTM']['chosen_on'] == 'valid'
    assert settings['pretrain_tokens'] > 0 and settings['recipe'] == 'adam'
    movies = [r for r in got['leaks'][0]['rows'] if r['with'] == 'the movie']
    assert len(movies) == 3 and not any(r['number'] for r in movies)
    assert 'NB-SVM' in capsys.readouterr().out

def test_benchmark_takes_tiny_bert_and_its_random_twin(tmp_path, monkeypatch, capsys):
    films(300).to_parquet(tmp_path/'train.parquet')
    for encoder in ('tiny', 'tiny-scratch'):
        for bf16 in ((), ('--bf16',)):
            where = '--imdb', tmp_path/'train.parquet', '--out', tmp_path/f'{len(bf16)}.json'
            sizes = '--epochs', 1, '--max-length', 32, '--train', 32, '--valid', 20, '--test', 20
            benchmark(monkeypatch, *where, '--only', 'encoder', '--encoder', encoder, *sizes, *bf16)
    def kept(k): return {r['name']: r for r in json.loads((tmp_path/f'{k}.json').read_text())['runs']}
    full, half = kept(0), kept(1)
    assert set(full) == set(half) == {'tiny-bert, pretrained', 'tiny-bert, random weights'}
    for name in full:
        assert full[name]['n_params'] == half[name]['n_params']
        assert [r[name]['settings']['bf16'] for r in (full, half)] == [False, True]
        a, b = full[name]['curve'][0]['train_loss'], half[name]['curve'][0]['train_loss']
        assert a != b and a == pytest.approx(b, abs=.05) # other numbers, the same run
    assert len({r['curve'][0]['train_loss'] for r in full.values()}) == 2

def test_benchmark_takes_the_lectures_csv(tmp_path, monkeypatch, capsys):
    ds = films(300).to_pandas()
    ds = ds.rename(columns={'text': 'review', 'label': 'sentiment'})[['review', 'sentiment']]
    ds.to_csv(tmp_path/'movie_data.csv.gz', index=False)
    lecture = '--imdb', tmp_path/'movie_data.csv.gz', '--split', 'lecture'
    some = '--only', 'leaks,baselines', '--baselines', 'majority,counts', '--train', 100
    benchmark(monkeypatch, *lecture, '--out', tmp_path/'o.json', *some)
    got = json.loads((tmp_path/'o.json').read_text())
    sizes = [tuple(r[f'{k}_reviews'] for k in ('train', 'valid', 'test')) for r in got['runs']]
    assert sizes == [(100, 30, 60)]*2
    with pytest.raises(SystemExit): benchmark(monkeypatch, *lecture, '--train', 10_000)
    with pytest.raises(SystemExit): benchmark(monkeypatch, '--imdb', 'x', '--only', 'transformer')

def test_what_was_measured_holds():
    results = json.loads((records/'imdb.json').read_text())
    runs = {r['name']: r for r in results['runs'] if r['split'] == 'movie' and r['train_reviews'] == 20_000}
    assert runs['NB-SVM']['test_accuracy'] >= .90 and runs['LSTM']['test_accuracy'] >= .85
    assert runs['LSTM']['cpu_seconds'] < 30*60
    assert runs['NB-SVM']['chosen_on'] is None and all(r['chosen_on'] != 'test' for r in results['runs'])
    assert any(r['split'] == 'lecture' for r in results['runs'])

def test_what_reading_is_worth_in_labels():
    results = json.loads((records/'imdb.json').read_text())
    runs = [r for r in results['runs'] if r['split'] == 'movie' and r['seed'] == 42]
    def by_size(name): return {r['train_reviews']: r['test_accuracy'] for r in runs if r['name'] == name}
    names = 'NB-SVM', 'tiny-bert, pretrained', 'tiny-bert, random weights'
    counts, read, random = map(by_size, names)
    sizes = [100, 500, 2000, 5000, 20_000]
    assert sorted(counts) == sorted(read) == sorted(random) == sizes
    assert all(read[n] > random[n] for n in sizes)
    assert [round(100*(read[n]-random[n]), 1) for n in (100, 20_000)] == [9.1, 3.2]
    assert read[100] > counts[100] and all(counts[n] > read[n] for n in sizes[1:])

def test_what_recipes_are_worth():
    import pandas as pd
    results = json.loads((records/'classifiers.json').read_text())
    runs = pd.DataFrame(results['recipes']['runs'])
    rate = runs.groupby(['recipe', 'lr']).valid.mean().unstack().idxmax(axis=1)
    def by_seed(name):
        return 100*runs[(runs.recipe == name) & (runs.lr == rate[name])].set_index('seed').test
    def difference(name):
        d = by_seed(name) - by_seed('Adam')
        half = 2.776*d.std()/5**.5
        return [round(float(x), 1) for x in (d.mean(), d.mean()-half, d.mean()+half)]
    assert len(by_seed('Adam')) == 5 and difference('AdamW')[1:] == [-.1, 0]
    assert difference('+ falling rate')[2] < -5
    assert difference('+ warm-up') == pytest.approx([-4.9, -15.5, 5.8], abs=.11)
    assert difference('Trainer') == pytest.approx([-4, -10.6, 2.6], abs=.11)
    transfer = pd.DataFrame(results['transfer']['runs']).groupby('recipe')[['test', 'strange']].mean()
    assert transfer.loc['random weights'].tolist() == pytest.approx([.713, .555], abs=1e-3)
    assert transfer.loc['tiny-bert'].tolist() == pytest.approx([.847, .758], abs=1e-3)

def test_lesson_shows_what_was_measured():
    results = json.loads((records/'imdb.json').read_text())
    cells = [c for p in sorted((root/'nbs').glob('6*.ipynb')) for c in json.loads(p.read_text())['cells']]
    outputs = [o.get('data', {}) for c in cells for o in c.get('outputs', [])]
    shown = ' '.join(''.join(o.get('text/html', '')) for o in outputs)
    for r in results['runs']:
        if r['split'] == 'lecture' or r['train_reviews'] == 20_000:
            said = r['name'], f"{100*r['test_accuracy']:.1f}", r['date']
            assert all(s in shown for s in said), r['name']
    leaks = next(part['rows'] for part in results['leaks'] if part['split'] == 'movie')
    movies = [row['number'] for row in leaks if row['with'] == 'the movie']
    assert movies == [0, 0, 0], 'the lesson says that the reviews were split by movie'


# what the lesson's mistakes rest on

def test_batches_are_those_of_transformers(tokenizer, data):
    from transformers import DataCollatorWithPadding
    rows = [*encode_reviews(data['train'].select(range(8)), tokenizer)]
    peer = DataCollatorWithPadding(tokenizer)([{'input_ids': r['input_ids']} for r in rows])
    ours = review_batch(rows, tokenizer)
    for k in ('input_ids', 'attention_mask'): torch.testing.assert_close(ours[k], peer[k])

def test_an_optimizer_older_than_the_thaw_moves_no_body(model, tokenizer, data):
    model.base_model.requires_grad_(False)
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.base_model.requires_grad_(True)
    was = {name: p.detach().clone() for name,p in model.named_parameters()}
    rows = [*encode_reviews(data['train'].select(range(8)), tokenizer)]
    model(**review_batch(rows, tokenizer)).loss.backward()
    opt.step()
    moved = [name for name,p in model.named_parameters() if not torch.equal(p, was[name])]
    assert moved and not [name for name in moved if name.startswith(model.base_model_prefix + '.')]
    assert all(p.grad is not None for p in model.base_model.parameters())

def test_a_causal_classifier_with_the_wrong_pad_reads_pads(data):
    causal = train_tokenizer(data['train']['text'], 400)
    gpt = new_model(tiny_gpt_config(causal, n_layer=1, n_head=2, n_embd=16))
    model, tokenizer = classifier((gpt, causal))
    ids = tokenizer('The plot is good.')['input_ids']
    def logit(pad_id, pads):
        model.config.pad_token_id = pad_id
        batch = review_batch([{'input_ids': ids}], tokenizer, pad_to=len(ids)+pads)
        with torch.no_grad(): return model(**batch).logits[0, 1].item()
    right, wrong = causal.pad_token_id, causal.eos_token_id
    assert logit(right, 30) == pytest.approx(logit(right, 0), abs=1e-5)
    assert abs(logit(wrong, 30) - logit(wrong, 0)) > 1e-3


# models and reviews that people bring

def a_bert(tokenizer, **kw):
    from transformers import BertConfig, BertForSequenceClassification
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, intermediate_size=32,
                        num_attention_heads=2, initializer_range=.3,
                        pad_token_id=tokenizer.pad_token_id, **kw)
    return BertForSequenceClassification(config).eval()

def named(*labels):
    return dict(id2label=dict(enumerate(labels)), label2id={x: i for i,x in enumerate(labels)})

@pytest.mark.parametrize('labels', [('POSITIVE', 'NEGATIVE'), ('pos', 'neg'), ('Positive', 'rest')])
def test_columns_go_by_id2label(tokenizer, labels):
    "A model that calls everything positive in its column 0 (fairseq#1082, FinBERT#17)."
    model = a_bert(tokenizer, **named(*labels))
    model.classifier.bias.data = torch.tensor([4., -4.])
    assert predict_proba(model, tokenizer, ['a good film'])[0] > .99
    assert predict_proba(model, tokenizer, ['a good film'], log_odds=True)[0] > 4
    assert predict_windows(model, tokenizer, ['a good film'])[0] > .99
    assert classify(model, tokenizer, 'a good film').label[0] == labels[0]
    assert token_importance(model, tokenizer, 'a good film').label == labels[0]

def test_turned_columns_are_trained_as_they_are_named(tokenizer, data):
    model, twin = (a_bert(tokenizer, **named(*labels)) for labels in (LABELS[::-1], LABELS))
    for p,q in zip(model.classifier.parameters(), twin.classifier.parameters()): q.data = p.data.flip(0)
    a, b = (train(m, tokenizer, data) for m in (model, twin))
    np.testing.assert_allclose(a.losses, b.losses, rtol=1e-5)
    np.testing.assert_allclose(a.probs, b.probs, atol=1e-5)

@pytest.mark.parametrize('kw, text', [
    (dict(num_labels=1), '1 labels'),
    (named(*LABELS) | dict(problem_type='multi_label_classification'), '2 independent labels')])
def test_what_is_no_choice_between_classes_is_refused(tokenizer, data, kw, text):
    model = a_bert(tokenizer, **kw)
    for call in (classify, predict_proba, predict_windows, token_importance):
        one = 'a good film' if call is token_importance else ['a good film']
        with refused(f'{text}.*two are needed.*makes such a head'): call(model, tokenizer, one)
    with refused(text): train(model, tokenizer, data)

@pytest.mark.parametrize('keep_best', [False, True])
def test_nan_never_becomes_a_result(tokenizer, data, keep_best):
    "With weights that are no numbers there is no answer and no run (handson-mlp#36)."
    model = tiny(tokenizer)
    for p in model.parameters(): p.data.fill_(torch.nan)
    with refused('is nan', FloatingPointError): train(model, tokenizer, data, keep_best=keep_best)
    with refused(r'data\[0\] is nan', FloatingPointError): predict_proba(model, tokenizer, data['test'])
    with refused('is nan', FloatingPointError): classify(model, tokenizer, 'a good film')
    with refused('is nan', FloatingPointError): predict_windows(model, tokenizer, ['a good film'])
    with refused('is nan', FloatingPointError): token_importance(model, tokenizer, 'a good film')
    with refused('probs='): RunResult('x', np.full(4, np.nan), np.array([0, 1, 0, 1]))

def a_gpt2(tokenizer):
    from transformers import GPT2Config, GPT2ForSequenceClassification
    torch.manual_seed(0)
    return GPT2ForSequenceClassification(GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=2, n_head=2, num_labels=2,
        pad_token_id=tokenizer.pad_token_id, initializer_range=.3)).eval()

def an_xlnet(tokenizer):
    from transformers import XLNetConfig, XLNetForSequenceClassification
    torch.manual_seed(0)
    return XLNetForSequenceClassification(XLNetConfig(
        vocab_size=len(tokenizer), d_model=16, n_layer=1, n_head=2, d_inner=32, initializer_range=.3,
        pad_token_id=tokenizer.pad_token_id)).eval()

def a_bloom(tokenizer):
    from transformers import BloomConfig, BloomForSequenceClassification
    torch.manual_seed(0)
    return BloomForSequenceClassification(BloomConfig(
        vocab_size=len(tokenizer), hidden_size=16, n_layer=1, n_head=2, initializer_range=.3,
        pad_token_id=tokenizer.pad_token_id)).eval()

def a_bart(tokenizer):
    from transformers import BartConfig, BartForSequenceClassification
    torch.manual_seed(0)
    return BartForSequenceClassification(BartConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, init_std=.3,
        eos_token_id=tokenizer.eos_token_id, num_labels=2)).eval()

def a_t5(tokenizer):
    from transformers import T5Config, T5ForSequenceClassification
    torch.manual_seed(0)
    return T5ForSequenceClassification(T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, num_labels=2,
        decoder_start_token_id=0, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id)).eval()

def with_eos():
    "A tokenizer that ends each text with </s>, as those of BART and T5 do."
    from tokenizers import processors
    tokenizer = train_tokenizer(['a good film'], 290)
    tokenizer.add_special_tokens(dict(bos_token='<s>', eos_token='</s>', pad_token='<pad>'))
    ends = [(t, tokenizer.convert_tokens_to_ids(t)) for t in ('<s>', '</s>')]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single='<s> $A </s>', special_tokens=ends)
    return tokenizer

FILMS = ['good', 'a film can be good or bad and nobody knows why', '<s>good</s> film, in HTML']
@pytest.mark.parametrize('side', ['left', 'right'])
@pytest.mark.parametrize('make', [a_bert, a_gpt2, an_xlnet, a_bloom, a_bart, a_t5])
def test_a_batch_answers_as_one_alone(make, side):
    "Whatever side the tokenizer pads on, and with '</s>' in a text (LLMs-from-scratch#566, PiPPy#308)."
    tokenizer = with_eos()
    tokenizer.padding_side = side
    model = make(tokenizer)
    alone = [predict_proba(model, tokenizer, [t])[0] for t in FILMS]
    assert np.ptp(alone) > 1e-4
    np.testing.assert_allclose(predict_proba(model, tokenizer, FILMS), alone, atol=1e-5)
    windows = predict_windows(model, tokenizer, FILMS, max_length=60)
    np.testing.assert_allclose(windows, alone, atol=1e-5)
    assert tokenizer.padding_side == side

def test_left_padding_trains_the_same(data):
    left, right = with_eos(), with_eos()
    left.padding_side = 'left'
    short = {k: encode_reviews(v, right, 40) for k,v in data.items()}
    assert train(a_gpt2(left), left, short).losses == train(a_gpt2(right), right, short).losses

@pytest.mark.parametrize('make', [an_xlnet, a_bloom, a_t5])
def test_models_without_a_limit_take_any_length(make):
    tokenizer = with_eos()
    model, long = make(tokenizer), ['a good film '*200 + end for end in ('good', 'bad')]
    p = predict_proba(model, tokenizer, long, max_length=1024)
    assert np.isfinite(p).all() and p[0] != p[1]
    assert len(encode_reviews(long[:1], tokenizer)['input_ids'][0]) > 512

@pytest.mark.parametrize('word', ['</s>', '<s>', '<pad>'])
def test_control_tokens_in_a_review_are_text(word):
    tokenizer = with_eos()
    ids = tokenizer.convert_tokens_to_ids(['<s>', '</s>', '<pad>'])
    said = f'good {word} film'
    for enc in (encode_reviews([said], tokenizer), encode_windows([said], tokenizer, 60),
                encode_head_tail([said], tokenizer, 60)):
        row = enc['input_ids'][0]
        assert [i for i in row if i in ids] == ids[:2] and tokenizer.decode(row[1:-1]) == said
    assert tokenizer(word, add_special_tokens=False)['input_ids'] == [tokenizer.convert_tokens_to_ids(word)]

def with_row(data, row, text): # the same, with this text there in train
    some = data['train']
    texts = [text if i == row else t for i,t in enumerate(some['text'])]
    return {**data, 'train': Dataset.from_dict({'text': texts, 'label': some['label'][:]})}

def test_missing_texts_are_named(model, tokenizer, data):
    splits, hole = with_row(data, 3, None), r"\['text'\]\[3\]=None must be a str"
    ds = splits['train']
    for call in (*(lambda f=f: linear_baseline(splits, f) for f in ('counts', 'tfidf', 'nbsvm')),
                 lambda: leak_report(splits), lambda: leak_report(splits, near=None),
                 lambda: lstm_baseline(splits, progress=False), lambda: train(model, tokenizer, splits),
                 lambda: predict_proba(model, tokenizer, ds), lambda: predict_windows(model, tokenizer, ds),
                 lambda: encode_reviews(ds, tokenizer), lambda: encode_windows(ds, tokenizer, 20),
                 lambda: encode_head_tail(ds, tokenizer, 20)):
        with refused(hole, TypeError): call()
    long = ['a film']*200
    for bad in (None, math.nan, 3, b'a film'):
        for call in (lambda texts: predict_proba(model, tokenizer, texts),
                     lambda texts: encode_reviews(texts, tokenizer),
                     lambda texts: classify(model, tokenizer, texts),
                     lambda texts: near_duplicates(texts, long)):
            with refused(r'\[200\]=.* must be a str', TypeError): call([*long, bad])
    numbers = Dataset.from_dict({'text': [1., 2.], 'label': [0, 1]})
    with refused("'text' holds Value.'float64'", TypeError): predict_proba(model, tokenizer, numbers)
    with refused("train.*'text' holds", TypeError): linear_baseline({**data, 'train': numbers})

@pytest.mark.parametrize('text', ['', '   ', '<br />'])
def test_blank_reviews_are_answered_or_named_before_training(model, tokenizer, data, text):
    splits = with_row(data, 3, text)
    with refused(r'train\[3\] has no token'): lstm_baseline(splits, progress=False)
    assert np.isfinite(predict_proba(model, tokenizer, [text, 'a film'])).all()
    bare = train_tokenizer(['a good film']*3, 280)
    gpt2 = a_gpt2(bare)
    if text: assert np.isfinite(predict_proba(gpt2, bare, [text])).all()
    else:
        with refused(r'data\[1\] has no token'): predict_proba(gpt2, bare, ['a film', text])
        with refused(r'ds\[1\] has no token'): predict_windows(gpt2, bare, ['a film '*60, text])
        with refused(r'train\[3\] has no token'): train(gpt2, bare, splits)

def test_tokenizers_without_a_fast_version():
    from transformers import ByT5Tokenizer
    tokenizer, texts = ByT5Tokenizer(), ['good film', 'a very very long film', 'a</s>']
    whole = [[*(b+3 for b in t.encode()), 1] for t in texts]
    said = encode_reviews(texts, tokenizer, 12)
    assert said['truncated'][:] == [False, True, False] and said['length'][:] == [10, 12, 6]
    assert said['input_ids'][:] == [w if len(w) < 13 else [*w[:11], 1] for w in whole]
    assert encode_reviews(texts, tokenizer)['input_ids'][:] == whole
    assert encode_head_tail(texts, tokenizer, 40)['input_ids'][:] == whole
    assert encode_windows(texts, tokenizer, 40)['input_ids'][:] == whole
    model = a_t5(tokenizer)
    assert predict_proba(model, tokenizer, texts).shape == (3,)
    with refused('fast tokenizer'): token_importance(model, tokenizer, 'a film', 'delete')
