"Lesson 6 with more than two classes: what a run answered, counted words, classifiers, comparisons."
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict
from hypothesis import given, settings, strategies as st
from sklearn.metrics import f1_score, precision_recall_fscore_support

from course_lm.baselines import (
    RunResult, check_reviews, choose_best, imdb_splits, linear_baseline, results_table)
from course_lm.classification import (
    ADAM, classify, encode_reviews, lstm_baseline, most_confident_mistakes, predict_proba, train_classifier)
from course_lm.comparing import (
    accuracy_by, calibration_curve, calibration_error, compare_seeds, mcnemar, plot_calibration)
from course_lm.data import train_tokenizer
from course_lm.reviews import review_votes, reviews
from course_lm.windows import predict_windows, token_importance

KINDS = ['negative', 'mixed', 'positive']

def refused(text, error=(ValueError, TypeError)): return pytest.raises(error, match=text)

def opinions(text): return sum({vote for _,vote in review_votes(text)} - {0}) + 1

def of_kinds(n, seed):
    texts = list(reviews(n, seed=seed, length='short')['text'])
    return Dataset.from_dict({'text': texts, 'label': [opinions(t) for t in texts]})

@pytest.fixture(scope='module')
def data():
    return DatasetDict(train=of_kinds(90, 1), valid=of_kinds(40, 2), test=of_kinds(50, 3))

@pytest.fixture(scope='module')
def tokenizer(data): return train_tokenizer(list(data['train']['text']), 400, masked=True)

def a_bert(tokenizer, *labels, **kw):
    from transformers import BertConfig, BertForSequenceClassification
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, intermediate_size=32,
        num_attention_heads=2, initializer_range=.3, hidden_dropout_prob=0.,
        pad_token_id=tokenizer.pad_token_id, id2label=dict(enumerate(labels)),
        label2id={x: i for i,x in enumerate(labels)}, **kw)).eval()

SIX = np.array([[.7, .2, .1], [.5, .3, .2], [.2, .7, .1], [.6, .3, .1], [.1, .2, .7], [.2, .5, .3]])
TRUE = np.array([0, 0, 1, 1, 2, 2]) # the answers are 0, 0, 1, 0, 2, 1

def by_hand(**kw): return RunResult('r', SIX, TRUE, **kw)

def train(model, tokenizer, data, **kw):
    return train_classifier(model, tokenizer, data, ADAM, progress=False,
                            **{**dict(lr=1e-3, epochs=1, batch_size=16), **kw})


# what a run answered

def test_six_reviews_by_hand():
    run = by_hand(names=KINDS)
    assert run.predictions.tolist() == [0, 0, 1, 0, 2, 1] and run.accuracy == 4/6
    table = run.per_class
    assert table.index.tolist() == KINDS and table['reviews'].tolist() == [2, 2, 2]
    assert table['precision'].tolist() == [2/3, 1/2, 1] and table['recall'].tolist() == [1, 1/2, 1/2]
    assert table['F1'].tolist() == pytest.approx([.8, .5, 2/3])
    assert run.macro_f1 == pytest.approx((.8 + .5 + 2/3)/3)

@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 6))
def test_scores_are_those_of_sklearn(seed, k):
    rng = np.random.default_rng(seed)
    labels, probs = np.r_[np.arange(k), rng.integers(k, size=30)], rng.dirichlet(np.ones(k), 30+k)
    run = RunResult('r', probs, labels)
    said = run.predictions
    scores = precision_recall_fscore_support(labels, said, labels=range(k), zero_division=np.nan)
    precision, recall, _, n = scores
    for column, theirs in (('precision', precision), ('recall', recall), ('reviews', n)):
        np.testing.assert_allclose(run.per_class[column], theirs)
    assert run.macro_f1 == pytest.approx(f1_score(labels, said, average='macro', zero_division=0))

def test_a_class_that_is_never_said_has_no_precision_and_an_f1_of_zero():
    run = RunResult('r', np.tile([.6, .3, .1], (3, 1)), [0, 1, 2])
    assert run.per_class['precision'].isna().tolist() == [False, True, True]
    assert run.per_class['F1'].tolist() == [.5, 0, 0] and "always '0'" in repr(run)

def test_of_two_classes_all_is_as_it_was():
    run = RunResult('r', [.9, .2, .4, .1], [1, 0, 1, 0])
    assert run.predictions.tolist() == [1, 0, 0, 0] and run.class_names == ['negative', 'positive']
    assert run.rows.tolist() == [[1-p, p] for p in (.9, .2, .4, .1)]
    assert 'macro-F1 %' not in results_table([run])
    assert run.per_class['recall'].tolist() == [1, .5]

def test_a_record_from_before_is_read():
    "The fields that a run had before classes had names, by keyword and in their order."
    old = dict(name='r', probs=[.9, .1], labels=[1, 0], scored_on='test', chosen_on='valid', n_params=3,
               seconds=1.5, history=[], losses=[.5], settings={'seed': 1}, reviews='abc', machine='m')
    for run in (RunResult(**json.loads(json.dumps(old))), RunResult(*old.values())):
        assert run.accuracy == 1 and run.names is None and run.machine == 'm' and run.reviews == 'abc'

def test_table_has_macro_f1():
    row = results_table([by_hand()]).iloc[0]
    assert row['accuracy %'] == 66.7 and row['macro-F1 %'] == 65.6

@pytest.mark.parametrize('kw, text', [
    (dict(probs=SIX[:,:1]), 'probs=.*one output is no choice'), (dict(probs=SIX*100), 'percentages are no'),
    (dict(probs=np.where(SIX > .3, .9, .1)), 'probs=.*several labels of one review'),
    (dict(probs=np.where(SIX==.7, np.nan, SIX)), 'probs='),
    (dict(labels=np.eye(3)[TRUE]), 'labels=.*several'),
    (dict(labels=TRUE+1), 'labels=.*have 3, probs 3 classes'), (dict(labels=TRUE-1), 'labels='),
    (dict(names=['a', 'b']), 'names=.*3 classes'), (dict(probs=[[.5, .5], [1.]]), 'different lengths'),
    (dict(probs=SIX[:,:2]/SIX[:,:2].sum(1, keepdims=True)), 'the second column alone')])
def test_what_is_no_answer_is_refused(kw, text):
    with refused(text): RunResult(**{**dict(name='r', probs=SIX, labels=TRUE), **kw})


# labels and splits

def test_labels_of_more_classes():
    ds = Dataset.from_dict({'text': list('abc'), 'label': [0, 2, 1]})
    assert check_reviews(ds, 'train').tolist() == [0, 2, 1]

@pytest.mark.parametrize('labels, text', [
    ([[0, 1], [1, 1], [0, 0]], 'train has several labels'), ([0, 1, 1.5], 'label must be 0'),
    (['a', 'b', 'c'], 'label must be 0'), ([2, 2, 2], "always says 2 is right")])
def test_other_labels_are_refused(labels, text):
    with refused(text): check_reviews(Dataset.from_dict({'text': list('abc'), 'label': labels}), 'train')

def test_a_class_that_train_lacks_is_named(data):
    gap = Dataset.from_dict({'text': list('abcd'), 'label': [0, 2, 0, 2]})
    with refused('no review of label 1'): linear_baseline({'train': gap, 'test': gap})
    two = data['train'].filter(lambda r: r['label'] < 2)
    with refused('train has no review of label 2'): linear_baseline({'train': two, 'test': data['test']})

def test_a_split_that_misses_a_class_is_refused():
    rare = Dataset.from_dict({'text': [f'text {i}' for i in range(40)], 'label': [2] + [0, 1]*19 + [1]})
    with refused('has no review of label 2'): imdb_splits(rare, by='position', seed=1)


# counted words

@pytest.mark.parametrize('features', ['counts', 'tfidf'])
def test_counted_words_are_a_softmax(data, features):
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    count = CountVectorizer() if features == 'counts' else TfidfVectorizer()
    x = count.fit_transform(data['train']['text'][:])
    theirs = LogisticRegression(max_iter=1000).fit(x, data['train']['label'][:])
    ours = linear_baseline(data, features)
    expected = theirs.predict_proba(count.transform(data['test']['text'][:]))
    np.testing.assert_allclose(ours.probs, expected, atol=1e-4)
    assert ours.n_params == theirs.coef_.size + 3

def test_nbsvm_takes_each_class_against_the_rest(data):
    run = linear_baseline(data, 'nbsvm')
    def against(k):
        return {name: Dataset.from_dict({'text': ds['text'][:], 'label': [int(l==k) for l in ds['label']]})
                for name,ds in data.items()}
    alone = np.stack([linear_baseline(against(k), 'nbsvm').probs for k in range(3)], 1)
    np.testing.assert_allclose(run.probs, alone/alone.sum(1, keepdims=True), atol=1e-9)

def test_majority_says_the_shares_of_train(data):
    shares = np.bincount(data['train']['label'])/90
    np.testing.assert_allclose(linear_baseline(data, 'majority').probs, np.tile(shares, (50, 1)))

def test_names_come_with_the_labels(data):
    named = {k: ds.cast_column('label', ClassLabel(names=KINDS)) for k,ds in data.items()}
    assert linear_baseline(named, 'majority').class_names == KINDS
    assert linear_baseline(data, 'majority').class_names == ['0', '1', '2']

def test_choice_by_valid(data):
    tried = [linear_baseline(data, 'counts', C=C, score_on='valid') for C in (.01, 1.)]
    assert choose_best(tried).accuracy == max(run.accuracy for run in tried)


# classifiers

def test_probabilities_are_the_softmax_in_the_order_of_id2label(tokenizer, data):
    model, texts = a_bert(tokenizer, *KINDS), list(data['test']['text'][:7])
    with torch.no_grad():
        alone = [model(**tokenizer(t, return_tensors='pt')).logits.softmax(-1)[0].numpy() for t in texts]
    p = predict_proba(model, tokenizer, texts, batch_size=3)
    np.testing.assert_allclose(p, alone, atol=1e-6)
    assert p.shape == (7, 3) and predict_proba(model, tokenizer, []).shape == (0, 3)
    table = classify(model, tokenizer, texts)
    assert table['label'].tolist() == [KINDS[k] for k in p.argmax(1)]
    assert table['probability'].tolist() == p.max(1).round(3).tolist()

def test_training_learns_three_classes(tokenizer, data):
    run = train(a_bert(tokenizer, *KINDS), tokenizer, {**data, 'test': data['train']}, epochs=25, lr=5e-3)
    assert run.accuracy > .9 and run.class_names == KINDS and run.probs.shape == (90, 3)
    assert run.history[-1]['valid_loss'] > 0 and run.valid_accuracy <= 1

def test_columns_follow_the_names_of_the_labels(tokenizer, data):
    "Labels 0, 1, 2 are named in the data set; the model has the same names in another order."
    named = {k: ds.cast_column('label', ClassLabel(names=KINDS)) for k,ds in data.items()}
    turned, straight = a_bert(tokenizer, 'positive', 'negative', 'mixed'), a_bert(tokenizer, *KINDS)
    for p,q in zip(turned.classifier.parameters(), straight.classifier.parameters()):
        q.data = p.data[[1, 2, 0]]
    a, b = (train(m, tokenizer, named) for m in (turned, straight))
    np.testing.assert_allclose(a.losses, b.losses, rtol=1e-5)
    np.testing.assert_allclose(a.probs, b.probs, atol=1e-5)
    assert a.class_names == b.class_names == KINDS
    encoded = {k: encode_reviews(ds, tokenizer, 128) for k,ds in named.items()}
    assert encoded['train'].features['label'].names == KINDS
    again = train(a_bert(tokenizer, 'positive', 'negative', 'mixed'), tokenizer, encoded)
    assert again.class_names == KINDS

def test_classes_that_are_not_those_of_the_model_are_refused(tokenizer, data):
    two = {k: Dataset.from_dict({'text': ds['text'][:], 'label': [min(l, 1) for l in ds['label']]})
           for k,ds in data.items()}
    with refused('train has 2 classes, and the model 3'): train(a_bert(tokenizer, *KINDS), tokenizer, two)
    with refused('train has 3 classes, and the model 2'): train(a_bert(tokenizer, 'a', 'b'), tokenizer, data)
    other = {k: ds.cast_column('label', ClassLabel(names=['a', 'b', 'c'])) for k,ds in data.items()}
    with refused('train calls its classes'): train(a_bert(tokenizer, *KINDS), tokenizer, other)
    turned = {k: ds.cast_column('label', ClassLabel(names=['pos', 'neg'])) for k,ds in two.items()}
    with refused("label 0 of train is 'pos'"): train(a_bert(tokenizer, 'neg', 'pos'), tokenizer, turned)
    less = data['train'].filter(lambda r: r['label'] < 2)
    with refused('train has no review of label 2, and valid has'):
        train(a_bert(tokenizer, 'a', 'b'), tokenizer, {**data, 'train': less})

def test_one_output_and_several_labels_are_refused_by_name(tokenizer, data):
    several = a_bert(tokenizer, *KINDS, problem_type='multi_label_classification')
    for model, text in ((a_bert(tokenizer, 'x'), '1 labels'), (several, '3 independent')):
        for call in (classify, predict_proba):
            with refused(f'{text}.*at least two are needed, of which one'): call(model, tokenizer, ['a film'])
        with refused(text): train(model, tokenizer, data)

def test_log_odds_are_of_two(tokenizer):
    model, text = a_bert(tokenizer, *KINDS), '3 labels, and log-odds are of two'
    with refused(text): predict_proba(model, tokenizer, ['a film'], log_odds=True)
    with refused(text): predict_windows(model, tokenizer, ['a film'])
    with refused(text): token_importance(model, tokenizer, 'a film')

def test_nan_is_an_error(tokenizer, data):
    model = a_bert(tokenizer, *KINDS)
    model.classifier.bias.data[1] = torch.nan
    for call in (classify, predict_proba):
        with refused(r'data\[0\] is nan', FloatingPointError): call(model, tokenizer, ['a film'])
    with refused('nan', FloatingPointError): train(model, tokenizer, data)

def test_lstm_has_as_many_outputs_as_there_are_classes(data):
    run = lstm_baseline(data, replace(ADAM, epochs=1), n_embd=8, n_hidden=6, progress=False)
    assert run.probs.shape == (50, 3) and run.class_names == ['0', '1', '2']

def test_mistakes_say_what_was_said():
    ds = Dataset.from_dict({'text': list('abcdef'), 'label': TRUE})
    table = most_confident_mistakes(by_hand(names=KINDS), ds)
    assert table.index.tolist() == [3, 5] and table['said'].tolist() == ['negative', 'mixed']
    assert table['truth'].tolist() == ['mixed', 'positive'] and table['probability'].tolist() == [.6, .5]


# comparisons

def test_comparisons_count_what_is_right():
    a, b = by_hand(settings={'seed': 1}), RunResult('s', SIX[::-1], TRUE, settings={'seed': 1})
    right = [(run.predictions==TRUE).tolist() for run in (a, b)]
    assert mcnemar(a, b)[:2] == (sum(x > y for x,y in zip(*right)), sum(x < y for x,y in zip(*right)))
    assert accuracy_by(a, TRUE)['accuracy %'].tolist() == [100, 50, 50]
    assert compare_seeds([a, b]).loc['s', 'difference'] == pytest.approx(100*(b.accuracy - a.accuracy))

def test_calibration_is_of_the_answer():
    "By hand: .7 three times, all right; .6 once, wrong; .5 twice, one of them right."
    table = calibration_curve(by_hand())
    assert table['reviews'].tolist() == [2, 1, 3] and table['true'].tolist() == [.5, 0, 1]
    assert table['said'].tolist() == pytest.approx([.5, .6, .7])
    assert calibration_error(by_hand()) == pytest.approx((0 + .6 + 3*.3)/6)
    assert plot_calibration([by_hand()]).get_ylabel() == 'share that is right'
