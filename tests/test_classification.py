"Lesson 6 beyond the notebook: hub-format folders, property tests, dull errors, and that the lesson quotes what was measured."
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import given, settings, strategies as st

from course_lm.baselines import LABELS, RunResult
from course_lm.classification import (
    LSTMClassifier, LengthBucketedSampler, ReviewCollator, classify, encode_reviews, lstm_baseline,
    make_optimizer, most_confident_mistakes, predict_proba, train_classifier)
from course_lm.data import train_tokenizer
from course_lm.reviews import reviews
from .hub_folders import distilbert_folder
from course_lm.models import load_lm, new_model, save_lm, tiny_bert_config, tiny_gpt_config

root = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def data(): return DatasetDict(train=reviews(64, seed=1, length='short'), valid=reviews(20, seed=2, length='short'), test=reviews(30, seed=3, length='short'))

@pytest.fixture(scope='module')
def tokenizer(data): return train_tokenizer(data['train']['text'], 400, masked=True)

@pytest.fixture
def model(tokenizer): return tiny(tokenizer)

def tiny(tokenizer, seed=0): return load_lm((new_model(tiny_bert_config(tokenizer, n_layer=1, n_head=2, n_embd=16), seed=seed), tokenizer), 'sequence-classification', LABELS, seed=seed)[0]

def train(model, tokenizer, data, **kw): return train_classifier(model, tokenizer, data, **{**dict(epochs=1, lr=1e-3, progress=False), **kw})


@pytest.fixture(scope='module')
def distilbert(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('hub')/'distilbert-base-uncased'
    return distilbert_folder(folder, data['train']['text'])


# classifiers from load_lm

def test_distilbert_folder_takes_the_same_path(distilbert, data, capfd, caplog):
    folder, lm = distilbert
    model, tokenizer = load_lm(folder, 'sequence-classification', LABELS)
    assert type(model).__name__ == 'DistilBertForSequenceClassification'
    assert [*model.load_report.new] == ['classifier.bias', 'classifier.weight', 'pre_classifier.bias', 'pre_classifier.weight']
    for k,v in lm.distilbert.state_dict().items(): assert torch.equal(model.distilbert.state_dict()[k], v), k
    assert tokenizer('A Film.')['input_ids'][0] == 2 and tokenizer.pad_token_id == 0
    report = model.load_report.frame()
    assert report.loc[('new', 'head'), 'tensors'] == 4 and report.loc[('left out', 'old head'), 'tensors'] == 5
    shown = capfd.readouterr()
    assert not shown.out and not shown.err and not caplog.records, 'the load report must not print'
    run = train(model, tokenizer, data, recipe='adamw-linear', warmup_steps=.25)
    assert run.n == 30 and len(run.losses) == 4


def test_tiny_is_the_courses_own_bert():
    model, tokenizer = load_lm('tiny-bert', 'sequence-classification', LABELS)
    theirs, ours = load_lm('tiny', 'masked')[0].state_dict(), model.state_dict()
    new = [*model.load_report.new]
    assert new == ['classifier.bias', 'classifier.weight'] and set(ours) - set(new) <= set(theirs)
    assert all(torch.equal(v, theirs[k]) for k,v in ours.items() if k not in new) and ours['classifier.weight'].dtype == torch.float32
    assert len(tokenizer) == model.config.vocab_size and tokenizer.pad_token_id == model.config.pad_token_id and model.config.id2label == {0: 'negative', 1: 'positive'}
    other = load_lm('tiny-bert', 'sequence-classification', LABELS, seed=1)[0].state_dict()
    assert [k for k in ours if not torch.equal(ours[k], other[k])] == ['classifier.weight'] # the bias starts at zero
    with pytest.raises(ValueError, match='max_length=257 is more than the 256'): predict_proba(model, tokenizer, ['good'], max_length=257)

def test_tiny_tells_praise_from_blame_by_reading_alone():
    "Twenty adjectives are told, twenty guessed: without a label in its reading, it has put them on two sides."
    from sklearn.linear_model import LogisticRegression
    from course_lm.reviews import _bad, _good
    model, tokenizer = load_lm('tiny-bert', 'sequence-classification', LABELS)
    with torch.no_grad(): x = torch.stack([model.base_model(**tokenizer(f'The film was {w}.', return_tensors='pt', return_token_type_ids=False)).last_hidden_state[0].mean(0) for w in _good+_bad]).numpy()
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
    assert predict_proba(model, tokenizer, ['The plot is good.', 'word '*60])[0] == pytest.approx(one, abs=1e-5)


def test_classifier_comes_back_whole(model, tokenizer, data, tmp_path):
    save_lm(model, tokenizer, tmp_path/'c')
    again, tok = load_lm(tmp_path/'c', 'sequence-classification')
    assert again.load_report.new == {} and again.config.id2label == {0: 'negative', 1: 'positive'}
    np.testing.assert_allclose(predict_proba(again, tok, data['test']), predict_proba(model, tokenizer, data['test']), atol=1e-6)


def test_roberta_positions(data):
    from transformers import RobertaConfig, RobertaForSequenceClassification
    tokenizer = train_tokenizer(data['train']['text'], 400, masked=True)
    model = RobertaForSequenceClassification(RobertaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                                                           max_position_embeddings=34, pad_token_id=0))
    limit = 34 - 1 # positions start at pad + 1
    assert len(predict_proba(model, tokenizer, ['word '*100])) == 1
    with pytest.raises(ValueError, match=f'more than the {limit} tokens'): predict_proba(model, tokenizer, ['word'], max_length=limit+1)


def films(n=300, movies=40): return reviews(n, seed=5, length='short').add_column('movie', [f'm{i%movies}' for i in range(n)])


# mistakes


def test_most_confident_mistakes():
    run = RunResult('r', np.array([.9, .8, .3, .05]), np.array([0, 1, 1, 1]))
    ds = Dataset.from_dict({'text': list('abcd'), 'label': [0, 1, 1, 1]})
    assert most_confident_mistakes(run, ds)['text'].tolist() == ['d', 'a', 'c']
    assert (run.correct, run.predictions.tolist()) == (1, [1, 1, 0, 0])
    with pytest.raises(ValueError, match='not the split of 4'): most_confident_mistakes(run, ds.select([0, 1]))


# batches

@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 500), min_size=1, max_size=300), batch_size=st.integers(1, 40), pool=st.one_of(st.none(), st.integers(1, 8)), shuffle=st.booleans(), epoch=st.integers(0, 3))
def test_every_review_once(lengths, batch_size, pool, shuffle, epoch):
    sampler = LengthBucketedSampler(lengths, batch_size, pool, shuffle)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert sorted(i for b in batches for i in b) == list(range(len(lengths)))
    assert len(batches) == len(sampler) and max(map(len, batches)) <= batch_size
    assert list(sampler) == batches

def test_buckets_save_padding():
    lengths = np.random.default_rng(0).lognormal(5.4, .6, 4000).astype(int).clip(10, 512)
    cost = lambda batches: sum(len(b)*lengths[b].max() for b in batches)
    at_random = cost(np.split(np.random.default_rng(1).permutation(4000), 250))
    assert cost(LengthBucketedSampler(lengths, 16)) < .6*at_random

@pytest.mark.parametrize('kw, text', [(dict(lengths=[], batch_size=4), 'lengths is empty'), (dict(lengths=[3], batch_size=0), 'batch_size=0'), (dict(lengths=[3], batch_size=2, pool=0), 'pool=0')])
def test_sampler_refuses(kw, text):
    with pytest.raises(ValueError, match=text): LengthBucketedSampler(**kw)

def test_left_padding(tokenizer):
    import copy
    left = copy.deepcopy(tokenizer)
    left.padding_side = 'left'
    batch = ReviewCollator(left, pad_to=4)([{'input_ids': [2, 9, 3]}])
    assert batch['input_ids'].tolist() == [[0, 2, 9, 3]] and batch['attention_mask'].tolist() == [[0, 1, 1, 1]] and 'labels' not in batch

def test_no_pad_token(data):
    causal = train_tokenizer(data['train']['text'], 400)
    causal.pad_token = None
    with pytest.raises(ValueError, match='no pad token'): ReviewCollator(causal)

def test_encoding(data, tokenizer):
    enc = encode_reviews(data['train'], tokenizer, 20)
    theirs = tokenizer(list(data['train']['text']), truncation=True, max_length=20)['input_ids']
    assert [list(r) for r in enc['input_ids']] == theirs and list(enc['label']) == list(data['train']['label'])
    assert enc['length'][:] == [len(t) for t in theirs] and all(enc['truncated'])
    assert tokenizer.truncation_side == 'right'
    with pytest.raises(ValueError, match='leaves no room'): encode_reviews(['a'], tokenizer, 2)
    with pytest.raises(ValueError, match="truncation_side='middle'"): encode_reviews(['a'], tokenizer, 9, 'middle')
    assert len(encode_reviews([], tokenizer, 9)) == 0

def test_padding_never_changes_an_answer(model, tokenizer, data):
    one = [predict_proba(model, tokenizer, [t])[0] for t in data['test']['text']]
    for bs in (3, 30): np.testing.assert_allclose(predict_proba(model, tokenizer, data['test'], batch_size=bs), one, atol=1e-5)
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
            batch = tokenizer([data['train'][i]['text'] for i in idx], padding=True, truncation=True, max_length=128, return_tensors='pt')
            loss = theirs(input_ids=batch['input_ids'], attention_mask=batch['attention_mask'], labels=torch.tensor([data['train'][i]['label'] for i in idx])).loss
            opt.zero_grad(); loss.backward(); opt.step()
            losses.append(loss.item())
    np.testing.assert_allclose(run.losses, losses, rtol=1e-5)

def test_best_epoch_is_kept_and_said(tokenizer, data):
    for seed in range(10): # until the last epoch is not the best one
        model = tiny(tokenizer, seed)
        run = train(model, tokenizer, data, epochs=4, lr=2e-2, keep='best', seed=seed)
        best = max(h['valid_accuracy'] for h in run.history)
        assert run.chosen_on == 'valid' and run.scored_on == 'test'
        assert np.mean((predict_proba(model, tokenizer, data['valid']) > .5) == np.array(data['valid']['label'])) == best
        if run.history[-1]['valid_accuracy'] < best: return
    pytest.fail('the last epoch was the best one ten times: this test shows nothing')

@pytest.mark.parametrize('kw, text', [
    (dict(recipe='sgd'), "recipe='sgd'"), (dict(keep='worst'), "keep='worst'"), (dict(epochs=0), 'epochs=0'), (dict(recipe='adamw-linear'), 'warmup_steps=500'), (dict(max_length=500), 'max_length=500')])
def test_arguments_are_checked_before_work(model, tokenizer, data, kw, text):
    before = {k: v.clone() for k,v in model.state_dict().items()}
    with pytest.raises(ValueError, match=text): train(model, tokenizer, data, **kw)
    for k,v in model.state_dict().items(): assert torch.equal(v, before[k])

def test_bad_splits(model, tokenizer, data):
    one = data['train'].select([i for i,l in enumerate(data['train']['label']) if l])
    for bad, text in (({**data, 'train': one}, 'all 32 labels of train are 1'), ({**data, 'test': data['test'].select([])}, 'test is empty'), ({**data, 'valid': data['test']}, 'valid and test are the same'),
                      ({**data, 'valid': data['test'].select(range(20))}, 'valid and test are the same'),
                      ({'train': data['train'], 'valid': data['valid']}, "no 'test'")):
        with pytest.raises(ValueError, match=text): train(model, tokenizer, bad)
    long = {k: encode_reviews(v.map(lambda r: {'text': r['text']*9}), tokenizer, 300) for k,v in data.items()}
    with pytest.raises(ValueError, match='the model takes 128'): train(model, tokenizer, long)

def test_larger_tokenizer_than_model(model, data):
    large = train_tokenizer(data['train']['text'], 500, masked=True)
    with pytest.raises(ValueError, match='use the tokenizer that the model was trained with'): predict_proba(model, large, data['test'])

def test_recipes(model):
    opt, sched = make_optimizer(model, 'adam', 1e-3, 10)
    assert type(opt) is torch.optim.Adam and sched is None
    opt, sched = make_optimizer(model, 'adamw-linear', 1e-3, 1000)
    assert opt.defaults['weight_decay'] == .01 and sched.lr_lambdas[0](500) == 1 and sched.lr_lambdas[0](1000) == 0 == sched.lr_lambdas[0](0)

def test_classify(model, tokenizer):
    out = classify(model, tokenizer, 'The plot is good.')
    assert out.shape == (1, 3) and .5 <= out['probability'][0] <= 1 and out['label'][0] in ('negative', 'positive')
    for bad in ('', [], ['good', ' '], [3]):
        with pytest.raises(ValueError, match='none of them empty'): classify(model, tokenizer, bad)


# LSTM

def lstm(data, **kw):
    tokenizer = train_tokenizer(data['train']['text'][:], kind='word', min_count=1)
    return tokenizer, LSTMClassifier(len(tokenizer), **{**dict(n_embd=8, n_hidden=6), **kw})

@pytest.mark.parametrize('kw', [dict(pooling='last'), dict(pooling='max'), dict(pooling='mean'), dict(pooling='last', bidirectional=True), dict(pooling='max', bidirectional=True)])
def test_lstm_never_reads_a_pad(data, kw):
    tokenizer, model = lstm(data, **kw)
    texts = list(data['test']['text'])
    one = [predict_proba(model, tokenizer, [t])[0] for t in texts]
    np.testing.assert_allclose(predict_proba(model, tokenizer, texts, batch_size=30), one, atol=1e-6)
    row = tokenizer(texts[0])['input_ids']
    far = model.eval()(**ReviewCollator(tokenizer, pad_to=len(row)+40)([{'input_ids': row}])).logits.softmax(-1)[0,1].item()
    assert far == pytest.approx(one[0], abs=1e-6)

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
    kw = dict(epochs=2, n_embd=8, n_hidden=6, n_words=100, batch_size=16, progress=False)
    a, b, c = (lstm_baseline(data, seed=s, **kw) for s in (1, 1, 2))
    assert a.losses == b.losses != c.losses and len(a.history) == 2 and a.chosen_on == 'valid' and a.scored_on == 'test'
    assert a.valid_accuracy == max(h['valid_accuracy'] for h in a.history)
    assert all(h['seconds'] > 0 for h in a.history) and a.settings['n_words'] <= 100 and a.settings['n_embd'] == 8
    with pytest.raises(ValueError, match="pooling='first'"): lstm_baseline(data, pooling='first', progress=False)
    with pytest.raises(ValueError, match="no 'valid'"): lstm_baseline({k: data[k] for k in ('train', 'test')}, progress=False)

def test_lstm_learns_by_heart(data):
    few = {'train': data['train'].select(range(24)), 'valid': data['valid'], 'test': data['test']}
    assert lstm_baseline(few, epochs=40, lr=2e-2, batch_size=8, dropout=0., progress=False).losses[-1] < .1


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
    small = ('--imdb', tmp_path/'train.parquet', '--out', out, '--epochs', 1, '--n-embd', 16, '--max-length', 64)
    benchmark(monkeypatch, *small, '--only', 'leaks,baselines,lstm')
    benchmark(monkeypatch, *small, '--only', 'baselines', '--baselines', 'majority')
    benchmark(monkeypatch, *small, '--only', 'encoder', '--pretrain', .02, '--keep', tmp_path/'body', '--vocab-size', 400)
    benchmark(monkeypatch, *small, '--only', 'encoder', '--encoder', tmp_path/'body', '--name', 'from its folder', '--recipe', 'adam')
    got = json.loads(out.read_text())
    runs = {r['name']: r for r in got['runs']}
    assert len(runs) == len(got['runs']) == 9 and {'majority', 'word list', 'NB-SVM', 'LSTM', 'encoder, body that has filled masks', 'from its folder'} <= set(runs)
    for r in got['runs']:
        assert r['test_accuracy'] == pytest.approx(r['correct']/r['test_reviews'], abs=1e-4) and r['interval'][0] <= r['test_accuracy'] <= r['interval'][1]
        assert r['chosen_on'] in (None, 'valid') and r['cpu_seconds'] >= 0 and r['machine']['torch'] and r['date']
    assert len(runs['LSTM']['curve']) == 1 and runs['LSTM']['curve'][0]['minutes'] > 0 and runs['LSTM']['chosen_on'] == 'valid'
    assert runs['from its folder']['settings']['pretrain_tokens'] > 0 and runs['from its folder']['settings']['recipe'] == 'adam'
    movies = [r for r in got['leaks'][0]['rows'] if r['with'] == 'the movie']
    assert len(movies) == 3 and not any(r['number'] for r in movies)
    assert 'NB-SVM' in capsys.readouterr().out

def test_benchmark_takes_tiny_bert_and_its_random_twin(tmp_path, monkeypatch, capsys):
    films(300).to_parquet(tmp_path/'train.parquet')
    for encoder in ('tiny', 'tiny-scratch'):
        for bf16 in ((), ('--bf16',)):
            benchmark(monkeypatch, '--imdb', tmp_path/'train.parquet', '--out', tmp_path/f'{len(bf16)}.json', '--only', 'encoder', '--encoder', encoder, '--epochs', 1, '--max-length', 32, '--train', 32, '--valid', 20, '--test', 20, *bf16)
    full, half = ({r['name']: r for r in json.loads((tmp_path/f'{k}.json').read_text())['runs']} for k in (0, 1))
    assert set(full) == set(half) == {'tiny-bert, pretrained', 'tiny-bert, random weights'}
    for name in full:
        assert full[name]['n_params'] == half[name]['n_params'] and (full[name]['settings']['bf16'], half[name]['settings']['bf16']) == (False, True)
        a, b = full[name]['curve'][0]['train_loss'], half[name]['curve'][0]['train_loss']
        assert a != b and a == pytest.approx(b, abs=.05) # other numbers, the same run
    assert len({r['curve'][0]['train_loss'] for r in full.values()}) == 2

def test_benchmark_takes_the_lectures_csv(tmp_path, monkeypatch, capsys):
    ds = films(300).to_pandas()
    ds.rename(columns={'text': 'review', 'label': 'sentiment'})[['review', 'sentiment']].to_csv(tmp_path/'movie_data.csv.gz', index=False)
    benchmark(monkeypatch, '--imdb', tmp_path/'movie_data.csv.gz', '--split', 'lecture', '--out', tmp_path/'o.json', '--only', 'leaks,baselines', '--baselines', 'majority,counts', '--train', 100)
    got = json.loads((tmp_path/'o.json').read_text())
    assert [(r['train_reviews'], r['valid_reviews'], r['test_reviews']) for r in got['runs']] == [(100, 30, 60)]*2
    with pytest.raises(SystemExit): benchmark(monkeypatch, '--imdb', tmp_path/'movie_data.csv.gz', '--split', 'lecture', '--train', 10_000)
    with pytest.raises(SystemExit): benchmark(monkeypatch, '--imdb', 'x', '--only', 'transformer')

def test_what_was_measured_holds():
    results = json.loads((root/'benchmarks'/'results'/'imdb.json').read_text())
    runs = {r['name']: r for r in results['runs'] if r['split'] == 'movie' and r['train_reviews'] == 20_000}
    assert runs['NB-SVM']['test_accuracy'] >= .90 and runs['LSTM']['test_accuracy'] >= .85 and runs['LSTM']['cpu_seconds'] < 30*60
    assert runs['NB-SVM']['chosen_on'] is None and all(r['chosen_on'] != 'test' for r in results['runs'])
    assert any(r['split'] == 'lecture' for r in results['runs'])

def test_lesson_shows_what_was_measured():
    results = json.loads((root/'benchmarks'/'results'/'imdb.json').read_text())
    cells = [c for p in sorted((root/'nbs').glob('6*.ipynb')) for c in json.loads(p.read_text())['cells']]
    shown = ' '.join(''.join(v) for c in cells for o in c.get('outputs', []) for k,v in o.get('data', {}).items() if k == 'text/html')
    for r in results['runs']:
        if r['split'] == 'lecture' or r['train_reviews'] == 20_000:
            assert r['name'] in shown and f"{100*r['test_accuracy']:.1f}" in shown and r['date'] in shown, r['name']
    for row in results['leaks'][0]['rows']: assert row['with'] in shown
