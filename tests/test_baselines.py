"Lesson 60: splits, leaks, intervals, what a run answered, baselines."
import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings, strategies as st

from benchmarks.experiments import lexicon
from course_lm.baselines import (
    RunResult, check_reviews, choose_best, imdb_splits, leak_report, linear_baseline, near_duplicates,
    results_table, wilson_interval)
from course_lm.reviews import reviews


@pytest.fixture(scope='module')
def data():
    return DatasetDict(train=reviews(64, seed=1, length='short'), valid=reviews(20, seed=2, length='short'),
                       test=reviews(30, seed=3, length='short'))

def refused(text): return pytest.raises((ValueError, TypeError), match=text)

def films(n=300, movies=40):
    return reviews(n, seed=5, length='short').add_column('movie', [f'm{i%movies}' for i in range(n)])

def run_of(right, n=None, name='r', **kw):
    "A run whose answers are right where `right` is true."
    right = np.asarray(right, dtype=bool)
    labels = np.arange(len(right))%2
    return RunResult(name, np.where(right==(labels==1), .9, .1), labels, **kw)


# splits

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
    unlabelled = ds.map(lambda r: {'label': -1})
    train, test = ds.select(range(200)), ds.select(range(200, 300))
    halves = DatasetDict(train=train, test=test, unsupervised=unlabelled)
    parts = imdb_splits(halves)
    assert list(parts['test']['text']) == list(halves['test']['text'])
    assert sorted([*parts['train']['text'], *parts['valid']['text']]) == sorted(halves['train']['text'])
    assert not set(parts['train']['movie']) & set(parts['valid']['movie'])
    assert list(imdb_splits(halves)['train']['text']) == list(parts['train']['text'])

def test_leak_report_counts():
    a = Dataset.from_dict({'text': ['x', 'y', 'z'], 'movie': ['1', '2', '3']})
    b = Dataset.from_dict({'text': ['x', 'w'], 'movie': ['3', '3']})
    assert leak_report({'train': a, 'test': b}, near=None)['number'].tolist() == [1, 2]

@pytest.mark.parametrize('kw, text', [
    (dict(by='film'), "by='film' must be"), (dict(by='movie', shares=(.5, .5)), r'shares=\(0.5, 0.5\)'),
    (dict(by='movie', shares=(.5, .2, .2)), 'add up to 1'),
    (dict(by='movie', seed=None), 'seed=None'), (dict(by='official'), 'needs the splits train and test')])
def test_impossible_splits(kw, text):
    with refused(text): imdb_splits(films(), **kw)

def test_sorted_file_cut_by_position_is_refused():
    ds = films()
    by_label = ds.select(np.argsort(ds['label'], kind='stable'))
    with refused('labels of'): imdb_splits(by_label, by='position', seed=None)

@pytest.mark.parametrize('label', [-1, None, .5, 'x'])
def test_labels_outside(label):
    labels = [str(x) for x in (0, 1, label)] if isinstance(label, str) else [0, 1, label]
    ds = Dataset.from_dict({'text': ['a', 'b', 'c'], 'label': labels})
    with refused('label must be 0'): check_reviews(ds, 'train')

def test_missing_text():
    with refused("train has no column 'text'"): check_reviews(Dataset.from_dict({'label': [0, 1]}), 'train')
    with refused("valid has no column 'label'"): check_reviews(Dataset.from_dict({'text': ['a']}), 'valid')
    with refused('train is empty'): check_reviews(Dataset.from_dict({'text': [], 'label': []}), 'train')


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
    back = near_duplicates(second, first)
    assert set(zip(back['second'], back['first'])) == {(7, 3), (11, 9), (5, 20), (2, 30)}

def test_near_copies_share_is_counted():
    "Runs of two words, counted by hand: b has 3 of a's 4, and 4 of its own."
    found = near_duplicates(['a b c d e'], ['a b c d x'], n=2)
    assert found['share'].tolist() == [.75]
    assert len(near_duplicates(['a b c d e'], ['a b c d x'], n=2, share=.8)) == 0

def test_near_copies_edges():
    for first, second in (([], ['a']), (['a'], []), (['a'], ['b'])):
        assert len(near_duplicates(first, second)) == 0
    assert near_duplicates(['Good.'], ['good!'])['share'].tolist() == [1.]
    assert len(near_duplicates([''], ['something else'])) == 0
    same = ['the same words in the same order over and over again']*60
    assert len(near_duplicates(same, same[:1])) == 0, 'a phrase that everybody uses says nothing'
    with refused('n=0'): near_duplicates(['a'], ['a'], n=0)

def test_leak_report_finds_near_copies():
    rng = np.random.default_rng(0)
    texts = [text_of(rng, 80) for _ in range(6)]
    a = Dataset.from_dict({'text': texts[:4], 'movie': list('1234')})
    b = Dataset.from_dict({'text': [texts[0], texts[1] + ' more', texts[5]], 'movie': list('399')})
    got = leak_report({'train': a, 'test': b}).set_index('with')['number'].to_dict()
    assert got == {'the very text': 1, 'nearly the text': 2, 'the movie': 1}
    assert 'nearly the text' not in leak_report({'train': a, 'test': b}, near=None)['with'].tolist()
    without = leak_report({'train': a.remove_columns('movie'), 'test': b})
    assert without['with'].tolist() == ['the very text', 'nearly the text']


# numbers, and what a run answered

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
    intervals = [wilson_interval(int(k), 200) for k in rng.binomial(200, .85, 2000)]
    held = [low <= .85 <= high for low, high in intervals]
    assert .93 < np.mean(held) < .97

@pytest.mark.parametrize('args, text', [
    ((5, 4), 'correct=5 of n=4 is no share'), ((-1, 4), 'correct=-1 must be'), ((0, 0), 'n=0 must be'),
    ((9, 10, 95), 'level=95 must be')])
def test_wilson_refuses(args, text):
    with refused(text): wilson_interval(*args)

def test_runs_on_other_reviews_are_not_compared():
    a, b = (RunResult(n, np.array([.9, .1]), np.array(y)) for n,y in (('a', [1, 0]), ('b', [0, 1])))
    with refused('one split for all runs'): results_table([a, b])
    with refused('there is nothing in it'): results_table([])
    assert 'seconds' not in results_table([a], seconds=False).columns

@pytest.mark.parametrize('kw, text', [
    (dict(probs=[80., 20.]), 'percentages are no probabilities'), (dict(probs=[[.1, .9]]), 'probs='),
    (dict(labels=[0, 2]), 'labels='), (dict(labels=[0, .5]), 'labels='), (dict(probs=[]), 'nothing in it'),
    (dict(seconds=-1.), 'seconds=-1'), (dict(name=None), 'name=None'),
    (dict(probs=[.1]), '1 probabilities for 2 labels')])
def test_a_run_is_made_of_probabilities_and_labels(kw, text):
    with refused(text): RunResult(**{**dict(name='r', probs=[.9, .1], labels=[1, 0]), **kw})

def test_white_space_is_no_difference_between_reviews(data):
    other = data['test'].map(lambda r: {'text': r['text'].replace(' ', '\n', 1) + ' '}, keep_in_memory=True)
    runs = [linear_baseline({'train': data['train'], 'test': ds}, 'tfidf') for ds in (data['test'], other)]
    assert runs[0].reviews == runs[1].reviews and len(RunResult.same_reviews(runs)) == 2

def test_repr_says_when_the_answer_never_changes():
    assert "always 'positive'" in repr(RunResult('r', np.full(3, .9), np.array([0, 1, 1])))

def test_same_labels_but_other_texts_are_not_one_split(data):
    texts = [t + ' Yes.' for t in data['test']['text']]
    other = Dataset.from_dict({'text': texts, 'label': data['test']['label'][:]})
    runs = [linear_baseline(splits, 'tfidf') for splits in (data, {**data, 'test': other})]
    with refused('one split for all runs'): results_table(runs)
    assert len(results_table(runs[:1])) == len(RunResult.same_reviews(runs[:1])) == 1

def test_a_run_is_not_altered_afterwards():
    import dataclasses
    run = run_of([1, 0, 1], chosen_on='valid')
    for field,value in (('chosen_on', None), ('scored_on', 'valid'), ('probs', np.ones(3))):
        with pytest.raises(dataclasses.FrozenInstanceError): setattr(run, field, value)
    with refused('scored there too'): dataclasses.replace(run, scored_on='valid')

@pytest.mark.parametrize('kw, text', [
    (dict(chosen_on='test'), 'scored there too'), (dict(chosen_on=' Test'), 'scored there too'),
    (dict(scored_on='valid', chosen_on='test'), 'no choice may see'),
    (dict(scored_on='valid', chosen_on='valid'), 'scored there too')])
def test_nothing_is_chosen_on_test(kw, text):
    with refused(text): run_of([1, 0, 1], **kw)

def test_choice_by_valid_alone(data):
    a = run_of([0, 0, 1], name='better on valid', history=[{'valid_accuracy': .9}, {'valid_accuracy': .8}])
    b = run_of([1, 1, 1], name='better on test', history=[{'valid_accuracy': .7}])
    best = choose_best([b, a])
    assert best.name == 'better on valid' and best.chosen_on == 'valid' and a.chosen_on is None
    assert a.valid_accuracy == .8
    assert run_of([1, 0], settings={'keep_best': True}, history=a.history).valid_accuracy == .9
    with refused('uses the test set up'): choose_best([a, run_of([1, 1, 1])])
    with refused('runs is empty'): choose_best([])
    assert choose_best([linear_baseline(data, 'tfidf', score_on='valid')]).chosen_on is None

def test_valid_that_is_test_is_no_choice(data):
    splits = {**data, 'valid': data['test']}
    with refused('valid and test are the same reviews'): linear_baseline(splits, 'tfidf', chosen_on='valid')
    with refused('valid and test are the same reviews'):
        RunResult.of(splits, 'test', 'valid', name='r', probs=np.zeros(30))
    with refused("score_on='dev'"): RunResult.of(splits, 'dev', name='r', probs=np.zeros(30))

def test_a_table_says_what_a_run_took(data):
    table = results_table([linear_baseline(data, 'majority')])
    assert {'an epoch', 'machine', 'parameters'} <= set(table.columns) and table.loc['majority', 'machine']


# baselines

def test_baselines(data):
    for features in ('majority', 'counts', 'tfidf', 'nbsvm'):
        run = linear_baseline(data, features)
        assert run.n == 30 and linear_baseline(data, features).probs.tolist() == run.probs.tolist()
    assert linear_baseline(data, 'tfidf', score_on='valid').scored_on == 'valid'
    one = {'train': data['train'], 'test': data['test'].select([0])}
    with refused("chosen on 'valid' and scored there too"):
        linear_baseline(data, 'nbsvm', score_on='valid', chosen_on='valid')
    with refused('labels of test'): linear_baseline(one, 'tfidf')
    with refused("features='bm25'"): linear_baseline(data, 'bm25')

def test_a_baseline_says_what_it_was():
    run = RunResult('r', [.9]*183 + [.1]*17, np.ones(200, int))
    assert repr(run).startswith('r: 91.5 % of 200 test reviews (95 %: 86.8 to 94.6)')

def test_order_of_words_is_invisible_to_a_bag(data):
    two = Dataset.from_dict({'text': ['good, not bad', 'bad, not good'], 'label': [1, 0]})
    splits = {'train': data['train'], 'test': two}
    a, b = linear_baseline(splits, 'tfidf').probs
    assert a == pytest.approx(b)

def test_baselines_that_need_no_training(data, monkeypatch):
    run = lexicon.lexicon_baseline({'test': data['test']})
    assert run.n_params == 0 and run.n == 30 and run.chosen_on is None
    assert all(w == w.lower() and -4 <= v <= 4 and v for w, v in lexicon.valences.items())
    assert 150 <= len(lexicon.valences) <= 300
    monkeypatch.setattr(lexicon, 'valences', {}) # without a word that it knows, a review is negative
    assert lexicon.lexicon_baseline({'test': data['test']}).predictions.sum() == 0

@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200))
def test_word_list_takes_any_text(text): assert np.isfinite(lexicon.lexicon_score(text))

@pytest.mark.parametrize('louder, quieter', [
    ('very good', 'good'), ('good', 'slightly good'), ('GOOD film', 'good film'), ('good!', 'good'),
    ('good', 'not good'), ('bad', 'very bad'), ('not bad', 'bad'), ("wasn't bad", 'bad'),
    ('wasn’t bad', 'bad')])
def test_word_list_rules(louder, quieter):
    score = lexicon.lexicon_score
    assert score(louder) > score(quieter)

def test_count_baseline_is_sklearns(data):
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    pipe = make_pipeline(CountVectorizer(), LogisticRegression(solver='liblinear', random_state=0))
    pipe.fit(data['train']['text'][:], data['train']['label'][:])
    theirs = pipe.predict_proba(data['test']['text'][:])[:,1]
    np.testing.assert_allclose(linear_baseline(data, 'counts').probs, theirs, atol=1e-6)


def test_reviews_whose_movie_is_not_known_are_not_one_movie():
    movies = [None]*30 + [f"m{i}" for i in range(10)]
    ds = Dataset.from_dict({"text": [f"t{i}" for i in range(40)], "label": [0, 1]*20, "movie": movies})
    parts = imdb_splits(ds, "movie", (.5, .25, .25))
    assert [len(parts[k]) for k in ("train", "valid", "test")] == [20, 10, 10]
