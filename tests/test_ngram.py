"""`course_lm.ngram` against `nltk.lm`, against a slow dictionary version, and against laws that hold for any text.

What is proved about Kneser-Ney: with nltk's counter fed the n-grams that end inside a document (padded on the left, so
that a document's start is a neighbour like any other), `KneserNeyInterpolated` gives exactly our probabilities for
every full context once its unigram step is mixed with 1/V, as the textbook has it. Unchanged, it gives unseen tokens
the probability zero; and without the padding its probabilities do not sum to 1 in some contexts.
"""
import math, subprocess, sys, time
from collections import Counter, defaultdict
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from course_lm.ngram import NGramLM, NextWordGame, guess_bits
from course_lm.entropy import MarkovSource

V = 9
rng = np.random.default_rng(7)
docs = [rng.choice(7, size, p=[.3, .2, .2, .1, .1, .05, .05]).tolist() for size in (60, 35, 1, 2, 48)]


def slow_counts(docs, n):
    count, left = Counter(), defaultdict(set)
    for doc in docs:
        for i in range(len(doc)):
            for m in range(1, min(n, i + 1) + 1):
                gram = tuple(doc[i-m+1:i+1])
                count[gram] += 1
                left[gram].add(doc[i-m] if i >= m else "start")
    return count, left


def slow_modified(docs, n, V):
    "Modified Kneser-Ney, by recursion over dictionaries."
    count, left = slow_counts(docs, n)
    C = lambda gram: count[gram] if len(gram) == n else len(left[gram])

    def discount(m):
        n1, n2, n3, n4 = (sum(1 for g in list(count) if len(g) == m and C(g) == r) for r in (1, 2, 3, 4))
        if not min(n1, n2, n3, n4): return [0, .5, 1, 1.5]
        d = n1 / (n1 + 2*n2)
        out = [0, 1 - 2*d*n2/n1, 2 - 3*d*n3/n2, 3 - 4*d*n4/n3]
        return out if min(out[1:]) > 0 else [0, .5, 1, 1.5]
    D = {m: discount(m) for m in range(1, n + 1)}

    def p(w, c):
        shorter, counts = p(w, c[1:]) if c else 1/V, [C(c + (v,)) for v in range(V)]
        if not sum(counts): return shorter
        off = lambda r: D[len(c) + 1][min(r, 3)]
        return (counts[w] - off(counts[w]) + sum(map(off, counts)) * shorter) / sum(counts)
    return p


# ---- nltk

def nltk_grams(docs, n, pad):
    "N-grams of all orders that end at a token of a document; `pad`: with '<s>' in front."
    for doc in docs:
        row = ["<s>"] * (n - 1) * pad + list(map(str, doc))
        for i in range((n - 1) * pad, len(row)):
            for m in range(1, min(n, i + 1) + 1): yield tuple(row[i-m+1:i+1])


def nltk_vocabulary():
    from nltk.lm import Vocabulary
    vocabulary = Vocabulary([str(i) for i in range(V - 1)])  # and '<UNK>': V words in all, as in ours
    assert len(vocabulary) == V
    return vocabulary


class Unmasked:
    "nltk looks words up before it scores them, and our ids are all known."
    def __init__(self, model): self.model = model
    def __call__(self, w, context): return self.model.unmasked_score(str(w), tuple(map(str, context)))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("k", [1, .1])
def test_add_k_is_nltks_lidstone_and_laplace(n, k):
    pytest.importorskip("nltk")
    from nltk.lm import Laplace, Lidstone
    theirs = Laplace(n, vocabulary=nltk_vocabulary()) if k == 1 else Lidstone(k, n, vocabulary=nltk_vocabulary())
    theirs.counts.update([list(nltk_grams(docs, n, pad=False))])
    ours, score = NGramLM(n, "add-k", k=k, vocab_size=V).fit(docs), Unmasked(theirs)
    for context in product(range(V), repeat=n - 1):
        np.testing.assert_allclose(ours.probs(context), [score(w, context) for w in range(V)], rtol=1e-13)


@pytest.mark.parametrize("n", [2, 3])
def test_no_smoothing_is_nltks_mle_in_contexts_that_were_seen(n):
    pytest.importorskip("nltk")
    from nltk.lm import MLE
    theirs = MLE(n, vocabulary=nltk_vocabulary())
    theirs.counts.update([list(nltk_grams(docs, n, pad=False))])
    ours, score, seen = NGramLM(n, "none", vocab_size=V).fit(docs), Unmasked(theirs), 0
    for context in product(range(V), repeat=n - 1):
        expected = [score(w, context) for w in range(V)]
        seen += any(expected)
        np.testing.assert_allclose(ours.probs(context), expected if any(expected) else [1/V]*V, rtol=1e-13)
    assert seen > 5


def kneser_ney_of_nltk(n, discount, pad, textbook, docs=docs):
    from nltk.lm import KneserNeyInterpolated
    theirs = KneserNeyInterpolated(n, discount=discount, vocabulary=nltk_vocabulary())
    theirs.counts.update([list(nltk_grams(docs, n, pad))])
    if textbook and n > 1:
        def unigram_score(word):
            count, total = theirs.estimator._continuation_counts(word)
            kinds = sum(theirs.estimator._continuation_counts(str(w))[0] > 0 for w in range(V))
            return (max(count - discount, 0) + discount * kinds / V) / total
        theirs.estimator.unigram_score = unigram_score
    return Unmasked(theirs)


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("discount", [.1, .75])
def test_kneser_ney_is_nltks_with_the_textbooks_last_step(n, discount):
    pytest.importorskip("nltk")
    score, ours = kneser_ney_of_nltk(n, discount, pad=True, textbook=True), NGramLM(n, discount=discount, vocab_size=V).fit(docs)
    contexts = list(product(range(V), repeat=n - 1))
    for i in np.random.default_rng(0).permutation(len(contexts))[:40]:
        np.testing.assert_allclose(ours.probs(contexts[i]), [score(w, contexts[i]) for w in range(V)], rtol=1e-12)


def test_where_nltks_kneser_ney_differs_from_the_textbook():
    pytest.importorskip("nltk")
    score, ours = kneser_ney_of_nltk(3, .75, pad=True, textbook=False), NGramLM(3, discount=.75, vocab_size=V).fit(docs)
    assert score(8, (0, 1)) == 0 < ours.probs([0, 1])[8]  # a token that was never seen
    # the pair (3, 4) occurs only where the text starts: a follower of 3 by raw count, by continuation count none
    text = [[3, 4, 0, 3, 0, 1, 0, 3, 1]]
    unpadded, ours = kneser_ney_of_nltk(3, .75, pad=False, textbook=False, docs=text), NGramLM(3, discount=.75, vocab_size=V).fit(text)
    assert abs(sum(unpadded(w, (0, 3)) for w in range(V)) - 1) > .01
    assert abs(ours.probs([0, 3]).sum() - 1) < 1e-12


# ---- laws

@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_modified_kneser_ney_is_the_slow_version(n):
    long = [rng.choice(7, size, p=[.3, .2, .2, .1, .1, .05, .05]).tolist() for size in (400, 3, 150)]
    ours, slow = NGramLM(n, "modified-kneser-ney", vocab_size=V).fit(long), slow_modified(long, n, V)
    for context in [()] + [tuple(rng.integers(0, V, n - 1)) for _ in range(12)]:
        np.testing.assert_allclose(ours.probs(context), [slow(w, tuple(context)) for w in range(V)], rtol=1e-10)


some_docs = st.lists(st.lists(st.integers(0, 6), max_size=12), min_size=1, max_size=5).filter(lambda d: any(d))


@settings(max_examples=200, deadline=None)
@given(docs=some_docs, text=st.lists(st.integers(0, 7), max_size=10), n=st.integers(1, 6), smoothing=st.sampled_from(NGramLM.smoothings))
def test_probs_sum_to_one_and_agree_with_logprobs(docs, text, n, smoothing):
    lm = NGramLM(n, smoothing, k=.3, vocab_size=8).fit(docs)
    logprobs = lm.logprobs(text)
    assert logprobs.shape == (len(text),)
    for i in range(len(text) + 1):
        p = lm.probs(text[:i])
        assert p.shape == (8,) and p.min() >= 0 and abs(p.sum() - 1) < 1e-9
        if i < len(text): assert math.isclose(math.exp(logprobs[i]), p[text[i]], rel_tol=1e-9, abs_tol=1e-15)


@settings(max_examples=100, deadline=None)
@given(docs=some_docs, n=st.integers(1, 4), smoothing=st.sampled_from(NGramLM.smoothings[1:]))
def test_smoothed_models_rule_nothing_out_and_documents_are_apart(docs, n, smoothing):
    lm = NGramLM(n, smoothing, vocab_size=8).fit(docs)
    assert np.isfinite(lm.logprobs(range(8))).all()
    np.testing.assert_allclose(lm.logprobs(docs), np.concatenate([lm.logprobs(d) for d in docs]), rtol=1e-12)
    np.testing.assert_allclose(NGramLM(n, smoothing, vocab_size=8).fit(docs[::-1]).logprobs(docs), lm.logprobs(docs), rtol=1e-12)


@pytest.mark.parametrize("smoothing", NGramLM.smoothings)
def test_documents_shorter_than_the_order(smoothing):
    lm = NGramLM(3, smoothing, vocab_size=8).fit([[0], [0, 1]])
    text = [0, 0, 1, 0, 1]
    np.testing.assert_allclose(np.exp(lm.logprobs(text)), [lm.probs(text[:i])[w] for i, w in enumerate(text)])


def test_any_order_and_vocabulary_without_overflow():
    ids = np.array([2**40, 5, 2**40, 5, 7, 2**40, 5])
    lm = NGramLM(6, "none", vocab_size=2**41).fit(ids)
    np.testing.assert_allclose(np.exp(lm.logprobs(ids)), [3/7, 1, 1/2, 1, 1, 1, 1])


@pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.int64])
def test_forms_of_input(dtype):
    a = np.array(docs[0], dtype)
    expected = NGramLM(2, vocab_size=V).fit(docs[0]).logprobs(docs[0])
    np.testing.assert_array_equal(NGramLM(2, vocab_size=V).fit(a).logprobs(a), expected)
    np.testing.assert_array_equal(NGramLM(2, vocab_size=V).fit([a]).logprobs(tuple([a])), expected)
    chunks = a[:60].reshape(3, 20)  # a matrix is a list of documents
    np.testing.assert_array_equal(NGramLM(2, vocab_size=V).fit(chunks).logprobs(chunks), NGramLM(2, vocab_size=V).fit(list(chunks)).logprobs(list(chunks)))


def test_fit_again_forgets_and_says_what_is_wrong():
    lm = NGramLM(2)
    with pytest.raises(ValueError, match="call fit first"): lm.probs([])
    lm.fit([0, 1, 2, 3])
    assert lm.vocab_size == 4 and lm.fit([0, 1]).vocab_size == 2
    with pytest.raises(ValueError, match="id 2 is outside the vocabulary 0..1"): lm.logprobs([2])
    with pytest.raises(ValueError, match="id -1 is outside"): lm.fit([0, -1])
    with pytest.raises(TypeError, match="tokenize first"): lm.fit("a text")
    with pytest.raises(TypeError, match="tokenize first"): lm.fit(["a text", "another"])
    with pytest.raises(TypeError, match="float64"): lm.fit([.5])
    with pytest.raises(ValueError, match="nothing to count"): lm.fit([[], []])
    with pytest.raises(TypeError, match="generator"): NGramLM(1).fit([0]).sample(1, generator="1")
    for n in (0, 2.5, "3"):
        with pytest.raises(ValueError, match="n must be a whole number"): NGramLM(n)


def test_sample_follows_the_probabilities():
    lm = NGramLM(2, vocab_size=V).fit(docs)
    out = lm.sample(4000, generator=0, prompt=[0])
    assert out.shape == (4000,) and out.dtype == np.int64
    before = np.concatenate([[0], out[:-1]])
    for c in (0, 1, 2):
        p, drawn = lm.probs([c]), np.bincount(out[before == c], minlength=V)
        assert (np.abs(drawn - drawn.sum()*p) < 5*np.sqrt(drawn.sum()*p*(1-p)) + 1).all()
    np.testing.assert_array_equal(lm.sample(50, 3), lm.sample(50, 3))
    assert lm.sample(0).size == 0


def test_a_million_tokens_in_seconds():
    ids = np.random.default_rng(0).zipf(1.3, 1_500_000)
    ids = ids[ids <= 2000][:1_000_000] - 1
    start = time.perf_counter()
    lm = NGramLM(3, vocab_size=2000).fit(ids)
    fitted = time.perf_counter() - start
    assert len(ids) == 1_000_000 and lm.n_ngrams[2] > 100_000 and fitted < 20


# ---- the source

@pytest.mark.parametrize("order", [1, 2, 3])
def test_entropy_rate_is_what_the_source_pays(order):
    source = MarkovSource(n_states=5, order=order, seed=order)
    surprise = -source.logprobs(source.sample(30_000, generator=order))
    assert abs(surprise.mean() - source.entropy_rate) < 5*surprise.std()/math.sqrt(30_000) + 1e-3
    assert 0 <= source.entropy_rate <= math.log(5) and math.isclose(source.perplexity, math.exp(source.entropy_rate))
    texts = np.array(list(product(range(5), repeat=order + 1)))
    assert math.isclose(np.exp([source.logprobs(t).sum() for t in texts]).sum(), 1)


def test_entropy_rate_by_an_independent_route():
    "Block entropies: H(n tokens) - H(n-1 tokens) is the entropy rate of a stationary chain from n = order+1 on."
    for order in (1, 2):
        source = MarkovSource(n_states=3, order=order, seed=1, concentration=1)
        def block(n):
            logprobs = [source.logprobs(np.array(t)).sum() for t in product(range(3), repeat=n)]
            return -sum(math.exp(lp)*lp for lp in logprobs)
        for n in (order + 1, order + 2): assert math.isclose(block(n) - block(n-1), source.entropy_rate, rel_tol=1e-9)


def test_no_model_beats_the_source():
    source = MarkovSource(n_states=10, order=1, seed=4)
    weights = source.stationary[:, None] * source.transition
    for smoothing, size in product(("add-k", "kneser-ney", "modified-kneser-ney"), (100, 1000, 30_000)):
        lm = NGramLM(2, smoothing, vocab_size=10).fit(source.sample(size, generator=size))
        exact = -(weights * np.log([lm.probs([c]) for c in range(10)])).sum()  # no sampling: the expectation itself
        assert exact > source.entropy_rate
    assert exact < source.entropy_rate + .01


def test_sources_that_are_none():
    for bad, why in [(np.eye(3), "never reach"), ([[.5, .6], [.5, .5]], "sum to 1"), ([[1.5, -.5], [.5, .5]], "sum to 1"), (np.ones((2, 3)), r"\(2, 3\)")]:
        with pytest.raises(ValueError, match=why): MarkovSource(bad)
    with pytest.raises(ValueError, match="order=1"): MarkovSource(np.full((2, 2), .5), order=2)
    with pytest.raises(ValueError, match="0..1"): MarkovSource(np.full((2, 2), .5)).logprobs([2])
    with pytest.raises(ValueError, match="negative"): MarkovSource().sample(-1)
    one_way = MarkovSource([[.5, .5], [0, 1]])  # state 0 is left for good: fine, it has a long run
    np.testing.assert_allclose(one_way.stationary, [0, 1], atol=1e-12)
    assert one_way.entropy_rate == pytest.approx(0, abs=1e-12) and (one_way.sample(20, 0) == 1).all()


# ---- the game

def game(): return NextWordGame([0, 1, 2, 0, 1, 2], ["a", "b", "c"], {"unigram": NGramLM(1).fit([0, 1, 2, 0]), "bigram": NGramLM(2).fit([0, 1, 2, 0])}, positions=[1, 5])


def test_game_scores_reader_and_models_on_the_same_words():
    g = game()
    assert g.context == "a" and not g.over
    row = g.guess("b, zebra", sure=.8)
    p = g.models["unigram"].probs([0])[1]
    assert row["word"] == "b" and row["you"] == pytest.approx(-math.log2(.4 + .2*p)) and row["bigram"] == pytest.approx(-math.log2(g.models["bigram"].probs([0])[1]))
    assert g.context == "a b c a b" and g.guess("a", sure=1)["you"] == math.inf
    assert g.over and g.context == "a b c a b c" and list(g.table().index)[-1] == "mean"
    with pytest.raises(ValueError, match="game is over"): g.guess("a")
    assert " ? <" not in g._repr_html_() and "color:#111" in g._repr_html_()


def test_a_fair_guess_is_a_probability():
    rest = np.array([.5, .25, .25])
    for guesses, sure in [([], .7), ([0], .7), ([0, 2], .3), ([1], 0)]:
        assert sum(2**-guess_bits(w, guesses, sure, rest) for w in range(3)) == pytest.approx(1)


def test_widget_plays_the_game():
    g = game()
    view, words, sure, button = g.widget().children
    before = view.value
    words.value, sure.value = "b", .9
    button.click()
    assert g.rows[0]["guessed"] == "b" and view.value != before and words.value == ""
    button.click()
    assert g.over and button.disabled


def test_import_is_light():
    code = "import course_lm.ngram, sys; assert not {'torch', 'pandas', 'matplotlib', 'ipywidgets', 'nltk', 'fastai', 'transformers', 'datasets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_neys_discount_is_estimated_at_every_order():
    lm = NGramLM(2).fit([0, 1, 2, 0, 3, 0, 1, 4])  # pairs: five seen once, one twice; single tokens: four continue one thing, one three
    np.testing.assert_allclose([d[1:] for d in lm.discounts], [[.5]*3, [5/7]*3])
    np.testing.assert_allclose(NGramLM(2, "modified-kneser-ney").fit([0, 1, 2, 0, 3, 0, 1, 4]).discounts[1][1:], [.5, 1, 1.5])
