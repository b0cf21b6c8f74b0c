"Lesson 6 beyond the notebook: hub-format folders, property tests, dull errors, and that the lesson quotes what was measured."
import json, re
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import given, settings, strategies as st

from course_lm.baselines import (
    RunResult, anchors_table, check_reviews, choose_best, count_baseline, imdb_splits, leak_report,
    lexicon_baseline, lexicon_score, majority_baseline, nbsvm_baseline, near_duplicates, results_table,
    tfidf_baseline, wilson_interval)
from course_lm.classification import (
    LSTMClassifier, LengthBucketedSampler, ReviewCollator, classify, confusion_table, encode_reviews,
    load_classifier, lstm_baseline, make_optimizer, most_confident_mistakes, predict_proba,
    train_classifier, word_tokenizer)
from course_lm.comparing import accuracy_by, calibration_curve, calibration_error, mcnemar, seeds_table
from course_lm.data import train_byte_bpe
from course_lm.reviews import reviews
from course_lm.models import load_lm, new_lm, save_lm

root = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def data(): return DatasetDict(train=reviews(64, seed=1, length='short'), valid=reviews(20, seed=2, length='short'), test=reviews(30, seed=3, length='short'))

@pytest.fixture(scope='module')
def tokenizer(data): return train_byte_bpe(data['train']['text'], 400, masked=True)

@pytest.fixture
def model(tokenizer): return tiny(tokenizer)

def tiny(tokenizer, seed=0): return load_classifier((new_lm(tokenizer, n_layer=1, n_head=2, n_embd=16, max_length=128, seed=seed), tokenizer), seed=seed)[0]

def train(model, tokenizer, data, **kw): return train_classifier(model, tokenizer, data, **{**dict(epochs=1, lr=1e-3, progress=False), **kw})


@pytest.fixture(scope='module')
def distilbert(data, tmp_path_factory):
    "A folder as the hub has it for distilbert-base-uncased: config, weights, WordPiece vocab.txt, tokenizer.json, tokenizer_config.json."
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import DistilBertConfig, DistilBertForMaskedLM
    folder = tmp_path_factory.mktemp('hub')/'distilbert-base-uncased'
    words = sorted({w for t in data['train']['text'] for w in re.findall(r"\w+|[^\w\s]", t.lower())})
    letters = sorted({c for w in words for c in w})
    vocab = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *letters, *('##'+c for c in letters), *(w for w in words if len(w) > 1)]
    t = Tokenizer(models.WordPiece({w: i for i,w in enumerate(vocab)}, unk_token='[UNK]'))
    t.normalizer, t.pre_tokenizer, t.decoder = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    t.post_processor = processors.TemplateProcessing(single='[CLS] $A [SEP]', pair='[CLS] $A [SEP] $B:1 [SEP]:1', special_tokens=[('[CLS]', 2), ('[SEP]', 3)])
    torch.manual_seed(0)
    lm = DistilBertForMaskedLM(DistilBertConfig(vocab_size=len(vocab), dim=16, hidden_dim=32, n_layers=1, n_heads=2, max_position_embeddings=64, pad_token_id=0))
    lm.save_pretrained(folder)
    t.save(str(folder/'tokenizer.json'))
    (folder/'vocab.txt').write_text('\n'.join(vocab) + '\n')
    (folder/'tokenizer_config.json').write_text(json.dumps({'do_lower_case': True, 'model_max_length': 64, 'tokenizer_class': 'DistilBertTokenizer'}))
    return folder, lm


# load_classifier

def test_distilbert_folder_takes_the_same_path(distilbert, data, capfd, caplog):
    folder, lm = distilbert
    model, tokenizer = load_classifier(folder)
    assert type(model).__name__ == 'DistilBertForSequenceClassification'
    assert model.new_weights == ['classifier.bias', 'classifier.weight', 'pre_classifier.bias', 'pre_classifier.weight']
    for k,v in lm.distilbert.state_dict().items(): assert torch.equal(model.distilbert.state_dict()[k], v), k
    assert tokenizer('A Film.')['input_ids'][0] == 2 and tokenizer.pad_token_id == 0
    assert model.load_report.loc['new', 'tensors'] == 4 and model.load_report.loc['left behind', 'tensors'] == 5
    shown = capfd.readouterr()
    assert not shown.out and not shown.err and not caplog.records, 'the load report must not print'
    run = train(model, tokenizer, data, recipe='adamw-linear', warmup_steps=.25)
    assert run.n == 30 and len(run.losses) == 4

def test_distilbert_from_memory_is_as_from_its_folder(distilbert):
    folder, lm = distilbert
    a, tokenizer = load_classifier(folder)
    b, _ = load_classifier((lm, tokenizer))
    assert a.new_weights == b.new_weights
    for k,v in a.state_dict().items():
        if k not in a.new_weights: assert torch.equal(v, b.state_dict()[k]), k

def test_base_model_without_head(distilbert):
    folder, lm = distilbert
    _, tokenizer = load_classifier(folder)
    model, _ = load_classifier((lm.distilbert, tokenizer))
    for k,v in lm.distilbert.state_dict().items(): assert torch.equal(model.distilbert.state_dict()[k], v), k
    assert len(model.new_weights) == 4

def test_logging_level_is_left_alone(distilbert):
    from transformers.utils import logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_classifier(distilbert[0])
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before

def test_tiny_is_the_courses_own_bert():
    model, tokenizer = load_classifier('tiny')
    theirs, ours = load_lm('tiny', 'masked')[0].state_dict(), model.state_dict()
    assert model.new_weights == ['classifier.bias', 'classifier.weight'] and set(ours) - set(model.new_weights) <= set(theirs)
    assert all(torch.equal(v, theirs[k]) for k,v in ours.items() if k not in model.new_weights) and ours['classifier.weight'].dtype == torch.float32
    assert len(tokenizer) == model.config.vocab_size and tokenizer.pad_token_id == model.config.pad_token_id and model.config.id2label == {0: 'negative', 1: 'positive'}
    other = load_classifier('tiny', seed=1)[0].state_dict()
    assert [k for k in ours if not torch.equal(ours[k], other[k])] == ['classifier.weight'] # the bias starts at zero
    with pytest.raises(ValueError, match='max_length=257 is more than the 256'): predict_proba(model, tokenizer, ['good'], max_length=257)

def test_tiny_tells_praise_from_blame_by_reading_alone():
    "Twenty adjectives are told, twenty guessed: without a label in its reading, it has put them on two sides."
    from sklearn.linear_model import LogisticRegression
    from course_lm.reviews import _bad, _good
    model, tokenizer = load_classifier('tiny')
    with torch.no_grad(): x = torch.stack([model.base_model(**tokenizer(f'The film was {w}.', return_tensors='pt', return_token_type_ids=False)).last_hidden_state[0].mean(0) for w in _good+_bad]).numpy()
    x, y = (x - x.mean(0))/x.std(0), np.repeat([1, 0], 20)
    told = np.r_[0:20:2, 20:40:2]
    guess = LogisticRegression(C=.01).fit(x[told], y[told])
    assert guess.score(np.delete(x, told, 0), np.delete(y, told)) >= .7

def test_head_depends_on_seed_alone(tokenizer):
    lm = new_lm(tokenizer, n_layer=1, n_head=2, n_embd=16)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    a, b, c = (load_classifier((lm, tokenizer), seed=s)[0].classifier.weight for s in (5, 5, 6))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random state is his own"

def test_gpt2_without_pad_gets_one(data, tmp_path):
    causal = train_byte_bpe(data['train']['text'], 400)
    gpt = new_lm(causal, n_layer=1, n_head=2, n_embd=16)
    gpt.config.pad_token_id = causal.pad_token = None
    model, tokenizer = load_classifier((gpt, causal))
    assert tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id < model.get_input_embeddings().num_embeddings
    one = predict_proba(model, tokenizer, ['The plot is good.'])[0]
    assert predict_proba(model, tokenizer, ['The plot is good.', 'word '*60])[0] == pytest.approx(one, abs=1e-5)

def test_head_of_another_size_is_new(tokenizer, tmp_path):
    from transformers import ModernBertForSequenceClassification
    config = new_lm(tokenizer, n_layer=1, n_head=2, n_embd=16).config
    config.num_labels = 5
    save_lm(ModernBertForSequenceClassification(config), tokenizer, tmp_path/'five')
    model, _ = load_classifier(tmp_path/'five')
    assert model.classifier.out_features == 2 and 'classifier.weight' in model.new_weights

def test_classifier_comes_back_whole(model, tokenizer, data, tmp_path):
    save_lm(model, tokenizer, tmp_path/'c')
    again, tok = load_classifier(tmp_path/'c')
    assert again.new_weights == [] and again.config.id2label == {0: 'negative', 1: 'positive'}
    np.testing.assert_allclose(predict_proba(again, tok, data['test']), predict_proba(model, tokenizer, data['test']), atol=1e-6)

def test_nothing_to_load(tmp_path, tokenizer):
    with pytest.raises(OSError, match='neither a folder'): load_classifier(tmp_path/'no')
    tmp_path.joinpath('empty').mkdir()
    with pytest.raises(OSError, match='neither a folder'): load_classifier(tmp_path/'empty')

def test_weights_of_another_body(distilbert, tmp_path):
    import shutil
    folder, lm = distilbert
    from safetensors.torch import save_file
    shutil.copytree(folder, tmp_path/'d')
    save_file({'something.else': torch.zeros(2)}, tmp_path/'d'/'model.safetensors', metadata={'format': 'pt'})
    with pytest.raises(ValueError, match='no weight of the body'): load_classifier(tmp_path/'d')

def test_roberta_positions(data):
    from transformers import RobertaConfig, RobertaForSequenceClassification
    tokenizer = train_byte_bpe(data['train']['text'], 400, masked=True)
    model = RobertaForSequenceClassification(RobertaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                                                           max_position_embeddings=34, pad_token_id=0))
    limit = 34 - 1 # positions start at pad + 1
    assert len(predict_proba(model, tokenizer, ['word '*100])) == 1
    with pytest.raises(ValueError, match=f'more than the {limit} tokens'): predict_proba(model, tokenizer, ['word'], max_length=limit+1)


# splits

def films(n=300, movies=40): return reviews(n, seed=5, length='short').add_column('movie', [f'm{i%movies}' for i in range(n)])

@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), movies=st.integers(12, 60))
def test_by_movie_keeps_movies_together(seed, movies):
    parts = imdb_splits(films(movies=movies), by='movie', seed=seed, shares=(.5, .25, .25))
    sets = [set(p['movie']) for p in parts.values()]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    assert sum(len(p) for p in parts.values()) == 300
    assert abs(len(parts['train'])/300 - .5) < .15

def test_position_is_the_lecture():
    ds = films()
    parts = imdb_splits(ds, by='position', seed=None)
    assert [t for p in parts.values() for t in p['text']] == list(ds['text'])
    assert [len(p) for p in parts.values()] == [210, 30, 60]

def test_official_keeps_the_test_half_and_leaves_the_unlabelled_out():
    ds = films()
    halves = DatasetDict(train=ds.select(range(200)), test=ds.select(range(200, 300)), unsupervised=ds.map(lambda r: {'label': -1}))
    parts = imdb_splits(halves)
    assert list(parts['test']['text']) == list(halves['test']['text'])
    assert sorted(list(parts['train']['text']) + list(parts['valid']['text'])) == sorted(halves['train']['text'])
    assert not set(parts['train']['movie']) & set(parts['valid']['movie'])
    assert list(imdb_splits(halves)['train']['text']) == list(parts['train']['text'])

def test_leak_report_counts():
    a = Dataset.from_dict({'text': ['x', 'y', 'z'], 'movie': ['1', '2', '3']})
    b = Dataset.from_dict({'text': ['x', 'w'], 'movie': ['3', '3']})
    assert leak_report({'train': a, 'test': b}, near=None)['number'].tolist() == [1, 2]

@pytest.mark.parametrize('kw, text', [
    (dict(by='film'), "by='film' must be"), (dict(by='movie', shares=(.5, .5)), r'shares=\(0.5, 0.5\)'), (dict(by='movie', shares=(.5, .2, .2)), 'add up to 1'),
    (dict(by='movie', seed=None), 'seed=None'), (dict(by='official'), 'needs the splits train and test')])
def test_impossible_splits(kw, text):
    with pytest.raises(ValueError, match=text): imdb_splits(films(), **kw)

def test_sorted_file_cut_by_position_is_refused():
    ds = films()
    with pytest.raises(ValueError, match='labels of'): imdb_splits(ds.select(np.argsort(ds['label'], kind='stable')), by='position', seed=None)

@pytest.mark.parametrize('label', [2, -1, None])
def test_labels_outside(label):
    with pytest.raises(ValueError, match='label must be 0'): check_reviews(Dataset.from_dict({'text': ['a', 'b', 'c'], 'label': [0, 1, label]}), 'train')

def test_missing_text():
    with pytest.raises(ValueError, match="train has no column 'text'"): check_reviews(Dataset.from_dict({'label': [0, 1]}), 'train')


# numbers

@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 5000), share=st.floats(0, 1))
def test_wilson_laws(n, share):
    c = round(n*share)
    low, high = wilson_interval(c, n)
    assert 0 <= low <= c/n <= high <= 1 and low < high
    mirrored = wilson_interval(n-c, n)
    assert mirrored[0] == pytest.approx(1-high) and mirrored[1] == pytest.approx(1-low)
    wide = wilson_interval(c, n, level=.99)
    assert wide[0] <= low and high <= wide[1]

def test_wilson_covers():
    rng = np.random.default_rng(0)
    held = [low <= .85 <= high for low,high in (wilson_interval(int(k), 200) for k in rng.binomial(200, .85, 2000))]
    assert .93 < np.mean(held) < .97

@pytest.mark.parametrize('args', [(5, 4), (-1, 4), (0, 0)])
def test_wilson_refuses(args):
    with pytest.raises(ValueError, match='is no share'): wilson_interval(*args)

def test_runs_on_other_reviews_are_not_compared():
    a, b = (RunResult(n, np.array([.9, .1]), np.array(y)) for n,y in (('a', [1, 0]), ('b', [0, 1])))
    with pytest.raises(ValueError, match='one split for all runs'): results_table([a, b])
    with pytest.raises(ValueError, match='no run'): results_table([])
    assert 'seconds' not in results_table([a], seconds=False).columns

def test_mistakes_and_confusion():
    run = RunResult('r', np.array([.9, .8, .3, .05]), np.array([0, 1, 1, 1]))
    ds = Dataset.from_dict({'text': list('abcd'), 'label': [0, 1, 1, 1]})
    assert most_confident_mistakes(run, ds)['text'].tolist() == ['d', 'a', 'c']
    assert confusion_table(run).values.tolist() == [[0, 1], [2, 1]]
    with pytest.raises(ValueError, match='not the split of 4'): most_confident_mistakes(run, ds.select([0, 1]))

def test_repr_says_when_the_answer_never_changes():
    assert "always 'positive'" in repr(RunResult('r', np.full(3, .9), np.array([0, 1, 1])))


# batches

@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 500), min_size=1, max_size=300), batch_size=st.integers(1, 40), pool=st.one_of(st.none(), st.integers(1, 8)), shuffle=st.booleans(), epoch=st.integers(0, 3))
def test_every_review_once(lengths, bs, pool, shuffle, epoch):
    sampler = LengthBucketedSampler(lengths, bs, pool, shuffle)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert sorted(i for b in batches for i in b) == list(range(len(lengths)))
    assert len(batches) == len(sampler) and max(map(len, batches)) <= bs
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
    causal = train_byte_bpe(data['train']['text'], 400)
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
        best = max(h['valid accuracy'] for h in run.history)
        assert run.chosen_on == 'valid' and run.scored_on == 'test'
        assert np.mean((predict_proba(model, tokenizer, data['valid']) > .5) == np.array(data['valid']['label'])) == best
        if run.history[-1]['valid accuracy'] < best: return
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
    large = train_byte_bpe(data['train']['text'], 500, masked=True)
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


# baselines

def test_baselines(data):
    for f in (majority_baseline, tfidf_baseline, nbsvm_baseline):
        run = f(data)
        assert run.n == 30 and f(data).probs.tolist() == run.probs.tolist()
    assert tfidf_baseline(data, score_on='valid').scored_on == 'valid'
    with pytest.raises(ValueError, match="chosen on 'valid' and scored there too"): nbsvm_baseline(data, score_on='valid', chosen_on='valid')
    with pytest.raises(ValueError, match='labels of test'): tfidf_baseline({'train': data['train'], 'test': data['test'].select([0])})

def test_order_of_words_is_invisible_to_a_bag(data):
    splits = {'train': data['train'], 'test': Dataset.from_dict({'text': ['good, not bad', 'bad, not good'], 'label': [1, 0]})}
    a, b = tfidf_baseline(splits).probs
    assert a == pytest.approx(b)


def test_baselines_that_need_no_training(data):
    run = lexicon_baseline({'test': data['test']})
    assert run.n_params == 0 and run.n == 30 and run.chosen_on is None
    assert lexicon_baseline({'test': data['test']}, lexicon={}).predictions.sum() == 0
    from course_lm.baselines import VALENCES
    assert all(w == w.lower() and -4 <= v <= 4 and v for w,v in VALENCES.items()) and 150 <= len(VALENCES) <= 300

@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200))
def test_word_list_takes_any_text(text): assert np.isfinite(lexicon_score(text))

@pytest.mark.parametrize('louder, quieter', [
    ('very good', 'good'), ('good', 'slightly good'), ('GOOD film', 'good film'), ('good!', 'good'), ('good', 'not good'), ('bad', 'very bad'), ('not bad', 'bad'), ("wasn't bad", 'bad'), ('wasn’t bad', 'bad')])
def test_word_list_rules(louder, quieter): assert lexicon_score(louder) > lexicon_score(quieter)

def test_count_baseline_is_sklearns(data):
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    pipe = make_pipeline(CountVectorizer(), LogisticRegression(solver='liblinear', random_state=0)).fit(data['train']['text'][:], data['train']['label'][:])
    np.testing.assert_allclose(count_baseline(data).probs, pipe.predict_proba(data['test']['text'][:])[:,1], atol=1e-6)


# LSTM

def lstm(data, **kw):
    tokenizer = word_tokenizer(data['train']['text'][:], min_count=1)
    return tokenizer, LSTMClassifier(len(tokenizer), **{**dict(n_embd=8, n_hidden=6), **kw})

def test_word_list_comes_from_train_alone(data):
    tokenizer = word_tokenizer(data['train']['text'][:], min_count=1)
    seen = {w for t in data['train']['text'] for w in re.findall(r'\w+|[^\w\s]', t.lower())}
    assert set(tokenizer.get_vocab()) == seen | {'[PAD]', '[UNK]'}
    assert tokenizer('Zyzzyva!')['input_ids'][0] == tokenizer.unk_token_id == 1 and tokenizer.pad_token_id == 0
    assert len(word_tokenizer(data['train']['text'][:], n_words=20)) == 20
    with pytest.raises(ValueError, match='no word comes min_count=9 times'): word_tokenizer(['a b c'], min_count=9)

def test_word_list_is_the_same_every_time(data):
    a, b = (word_tokenizer(data['train']['text'][:], n_words=40).get_vocab() for _ in range(2))
    assert a == b

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
    assert a.valid_accuracy == max(h['valid accuracy'] for h in a.history)
    assert all(h['seconds'] > 0 for h in a.history) and a.settings['n_words'] <= 100 and a.settings['n_embd'] == 8
    with pytest.raises(ValueError, match="pooling='first'"): lstm_baseline(data, pooling='first', progress=False)
    with pytest.raises(ValueError, match="no 'valid'"): lstm_baseline({k: data[k] for k in ('train', 'test')}, progress=False)

def test_lstm_learns_by_heart(data):
    few = {'train': data['train'].select(range(24)), 'valid': data['valid'], 'test': data['test']}
    assert lstm_baseline(few, epochs=40, lr=2e-2, batch_size=8, dropout=0., progress=False).losses[-1] < .1


# comparing

def run_of(right, n=None, name='r', **kw):
    "A run whose answers are right where `right` is true."
    right = np.asarray(right, dtype=bool)
    labels = np.arange(len(right))%2
    return RunResult(name, np.where(right==(labels==1), .9, .1), labels, **kw)

@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=200))
def test_mcnemar_is_the_binomial_test(pairs):
    from scipy.stats import binomtest
    a, b = (run_of([p[i] for p in pairs]) for i in (0, 1))
    m = mcnemar(a, b)
    assert (m.only_a, m.only_b) == (sum(x and not y for x,y in pairs), sum(y and not x for x,y in pairs))
    assert m.p == pytest.approx(binomtest(m.only_a, m.only_a+m.only_b).pvalue if m.only_a+m.only_b else 1)
    assert mcnemar(b, a) == (m.only_b, m.only_a, m.p)

def test_mcnemar_large():
    n = 6000
    m = mcnemar(run_of(np.arange(n) < 4000), run_of(np.arange(n) >= 3000))
    assert (m.only_a, m.only_b) == (3000, 2000) and 0 < m.p < 1e-40

def test_mcnemar_refuses_other_reviews():
    a = run_of([1, 0, 1])
    for other in (run_of([1, 0]), RunResult('o', np.array([.9, .9, .1]), 1-np.asarray(a.labels)), run_of([1, 0, 1], scored_on='valid')):
        with pytest.raises(ValueError, match='one split for all runs'): mcnemar(a, other)
    with pytest.raises(ValueError, match='one split for all runs'): mcnemar(run_of([1, 0], reviews='abc'), run_of([1, 0], reviews='def'))
    assert mcnemar(run_of([1, 0], reviews='abc'), run_of([1, 0])).p == 1

def test_same_labels_but_other_texts_are_not_one_split(data):
    other = Dataset.from_dict({'text': [t + ' Yes.' for t in data['test']['text']], 'label': data['test']['label'][:]})
    with pytest.raises(ValueError, match='one split for all runs'): results_table([tfidf_baseline(data), tfidf_baseline({**data, 'test': other})])

def test_a_run_is_not_altered_afterwards():
    import dataclasses
    run = run_of([1, 0, 1], chosen_on='valid')
    for field,value in (('chosen_on', None), ('scored_on', 'valid'), ('probs', np.ones(3))):
        with pytest.raises(dataclasses.FrozenInstanceError): setattr(run, field, value)
    with pytest.raises(ValueError, match='scored there too'): dataclasses.replace(run, scored_on='valid')

@pytest.mark.parametrize('kw, text', [(dict(chosen_on='test'), 'scored there too'), (dict(scored_on='valid', chosen_on='test'), 'no choice may see'), (dict(scored_on='valid', chosen_on='valid'), 'scored there too'),
                                      (dict(chosen_on=' Test'), 'scored there too')])
def test_nothing_is_chosen_on_test(kw, text):
    with pytest.raises(ValueError, match=text): run_of([1, 0, 1], **kw)

def test_choice_by_valid_alone(data):
    a = run_of([0, 0, 1], name='better on valid', history=[{'valid accuracy': .9}, {'valid accuracy': .8}])
    b = run_of([1, 1, 1], name='better on test', history=[{'valid accuracy': .7}])
    assert choose_best([b, a]).name == 'better on valid' and choose_best([b, a]).chosen_on == 'valid' and a.chosen_on is None
    assert a.valid_accuracy == .8 and run_of([1, 0], settings={'keep': 'best'}, history=a.history).valid_accuracy == .9
    with pytest.raises(ValueError, match='uses the test set up'): choose_best([a, run_of([1, 1, 1])])
    with pytest.raises(ValueError, match='runs is empty'): choose_best([])
    assert choose_best([tfidf_baseline(data, score_on='valid')]).chosen_on is None

def test_valid_that_is_test_is_no_choice(data):
    with pytest.raises(ValueError, match='valid and test are the same reviews'): tfidf_baseline({**data, 'valid': data['test']}, chosen_on='valid')

def test_seeds():
    runs = [run_of(np.arange(100) < k, name='a', settings={'seed': s, 'lr': 1}) for s,k in enumerate((80, 84, 88))]
    t = seeds_table(runs + [run_of(np.arange(100) < 70, name='b', settings={'seed': 0})])
    assert t.loc['a'].tolist() == [3, 84., 4., 80., 88.] and t.loc['b', 'seeds'] == 1 and np.isnan(t.loc['b', 'spread'])
    with pytest.raises(ValueError, match='seed 1 twice'): seeds_table(runs + [runs[1]])
    with pytest.raises(ValueError, match="'lr'"): seeds_table([*runs, run_of(np.arange(100) < 9, name='a', settings={'seed': 9, 'lr': 2})])

@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=200), st.integers(1, 12))
def test_calibration_laws(pairs, bins):
    run = RunResult('r', np.array([p for p,_ in pairs]), np.array([y for _,y in pairs]))
    t = calibration_curve(run, bins)
    assert t['reviews'].sum() == run.n and len(t) <= bins and (t['from'] <= t['true'] + 1e-12).all() and (t['true'] <= t['to'] + 1e-12).all()
    assert 0 <= calibration_error(run, bins) <= 1
    always = RunResult('r', np.full(run.n, run.labels.mean()), run.labels)
    assert calibration_error(always, bins) == pytest.approx(0, abs=1e-9)

def test_calibration_of_honest_probabilities():
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    y = (rng.random(20_000) < p).astype(int)
    assert calibration_error(RunResult('honest', p, y)) < .02 < .1 < calibration_error(RunResult('loud', np.where(p>.5, .99, .01), y))
    with pytest.raises(ValueError, match='bins=0'): calibration_curve(RunResult('r', p, y), 0)

def test_accuracy_by_groups():
    run = run_of(np.arange(100) < 50)
    t = accuracy_by(run, np.arange(100))
    assert t['reviews'].tolist() == [25]*4 and t['accuracy %'].tolist() == [100, 100, 0, 0] and t.index[0] == '0 to 24'
    assert accuracy_by(run, np.arange(100) >= 50)['accuracy %'].to_dict() == {'False': 100, 'True': 0}
    assert accuracy_by(run, np.arange(100), edges=[9])['reviews'].tolist() == [10, 90]
    assert accuracy_by(run, np.full(100, 7))['reviews'].tolist() == [100]
    assert accuracy_by(run, ['a', 'b']*50)['accuracy %'].to_dict() == {'a': 50, 'b': 50}
    assert accuracy_by(run, np.r_[np.arange(90), np.full(10, 89)])['reviews'].sum() == 100
    with pytest.raises(ValueError, match='by has 99 values'): accuracy_by(run, range(99))

def test_anchors_stand_beside(data):
    anchors = anchors_table()
    assert {'split', 'source'} <= set(anchors.columns) and (anchors['source'] != '').all()
    both = results_table([majority_baseline(data)], anchors=True)
    assert len(both) == 1 + len(anchors) and 'DistilBERT, Adam' in both.index and 'majority' in both.index
    table = results_table([majority_baseline(data)])
    assert {'an epoch', 'machine', 'trained numbers'} <= set(table.columns) and table.loc['majority', 'machine']


# copies

WORDS = [f'w{i}' for i in range(400)]
def text_of(rng, n): return ' '.join(rng.choice(WORDS, n))

@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_near_copies_are_found_and_nothing_else(seed):
    rng = np.random.default_rng(seed)
    first = [text_of(rng, int(k)) for k in rng.integers(60, 200, 40)]
    second = [text_of(rng, int(k)) for k in rng.integers(60, 200, 40)]
    words = first[7].split()
    words[len(words)//2] = 'other'
    second[3] = ' '.join(words)                                     # a word changed
    second[9] = first[11].upper().replace(' ', ', ') + '<br /><br />' # capitals, marks, line breaks
    second[20] = text_of(rng, 30) + ' ' + first[5] + ' ' + text_of(rng, 30)   # all of it in a longer one
    second[30] = first[2] # the very text
    found = near_duplicates(first, second)
    assert set(zip(found['first'], found['second'])) == {(7, 3), (11, 9), (5, 20), (2, 30)}
    assert found['share'].is_monotonic_decreasing and found['share'].max() == 1
    assert set(zip(near_duplicates(second, first)['second'], near_duplicates(second, first)['first'])) == {(7, 3), (11, 9), (5, 20), (2, 30)}

def test_near_copies_share_is_counted():
    "Runs of two words, counted by hand: b has 3 of a's 4, and 4 of its own."
    found = near_duplicates(['a b c d e'], ['a b c d x'], n=2)
    assert found['share'].tolist() == [.75]
    assert len(near_duplicates(['a b c d e'], ['a b c d x'], n=2, share=.8)) == 0

def test_near_copies_edges():
    assert len(near_duplicates([], ['a'])) == len(near_duplicates(['a'], [])) == len(near_duplicates(['a'], ['b'])) == 0
    assert near_duplicates(['Good.'], ['good!'])['share'].tolist() == [1.]
    assert len(near_duplicates([''], ['something else'])) == 0
    same = ['the same words in the same order over and over again']*60
    assert len(near_duplicates(same, same[:1])) == 0, 'a phrase that everybody uses says nothing'
    with pytest.raises(ValueError, match='n=0'): near_duplicates(['a'], ['a'], n=0)

def test_leak_report_finds_near_copies():
    rng = np.random.default_rng(0)
    texts = [text_of(rng, 80) for _ in range(6)]
    a = Dataset.from_dict({'text': texts[:4], 'movie': list('1234')})
    b = Dataset.from_dict({'text': [texts[0], texts[1] + ' more', texts[5]], 'movie': list('399')})
    got = leak_report({'train': a, 'test': b}).set_index('with')['number'].to_dict()
    assert got == {'the very text': 1, 'nearly the text': 2, 'the movie': 1}
    assert 'nearly the text' not in leak_report({'train': a, 'test': b}, near=None)['with'].tolist()
    assert leak_report({'train': a.remove_columns('movie'), 'test': b})['with'].tolist() == ['the very text', 'nearly the text']


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
