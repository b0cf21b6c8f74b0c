"""`course_lm.ngram` against `nltk.lm`, against a slow dictionary version, and against laws that hold for any
text.

What is proved about Kneser-Ney: with nltk's counter fed the n-grams that end inside a document (padded on the
left, so that a document's start is a neighbour like any other), `KneserNeyInterpolated` gives exactly our
probabilities for every full context once its unigram step is mixed with 1/V, as the textbook has it.
Unchanged, it gives unseen tokens the probability zero; and without the padding its probabilities do not sum
to 1 in some contexts.
"""
import math, subprocess, sys, time
from collections import Counter, defaultdict
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from course_lm.ngram import NGramLM, NextWordGame, guess_bits

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
    def C(gram): return count[gram] if len(gram) == n else len(left[gram])

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
        def off(r): return D[len(c) + 1][min(r, 3)]
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
    vocabulary = nltk_vocabulary()
    theirs = Laplace(n, vocabulary=vocabulary) if k == 1 else Lidstone(k, n, vocabulary=vocabulary)
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
    score = kneser_ney_of_nltk(n, discount, pad=True, textbook=True)
    ours = NGramLM(n, discount=discount, vocab_size=V).fit(docs)
    contexts = list(product(range(V), repeat=n - 1))
    for i in np.random.default_rng(0).permutation(len(contexts))[:40]:
        expected = [score(w, contexts[i]) for w in range(V)]
        np.testing.assert_allclose(ours.probs(contexts[i]), expected, rtol=1e-12)


def test_where_nltks_kneser_ney_differs_from_the_textbook():
    pytest.importorskip("nltk")
    score = kneser_ney_of_nltk(3, .75, pad=True, textbook=False)
    ours = NGramLM(3, discount=.75, vocab_size=V).fit(docs)
    assert score(8, (0, 1)) == 0 < ours.probs([0, 1])[8]  # a token that was never seen
    # the pair (3, 4) occurs only where the text starts: a follower of 3 by raw count only
    text = [[3, 4, 0, 3, 0, 1, 0, 3, 1]]
    unpadded = kneser_ney_of_nltk(3, .75, pad=False, textbook=False, docs=text)
    ours = NGramLM(3, discount=.75, vocab_size=V).fit(text)
    assert abs(sum(unpadded(w, (0, 3)) for w in range(V)) - 1) > .01
    assert abs(ours.probs([0, 3]).sum() - 1) < 1e-12


# ---- laws

@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_modified_kneser_ney_is_the_slow_version(n):
    long = [rng.choice(7, size, p=[.3, .2, .2, .1, .1, .05, .05]).tolist() for size in (400, 3, 150)]
    ours, slow = NGramLM(n, "modified-kneser-ney", vocab_size=V).fit(long), slow_modified(long, n, V)
    for context in [()] + [tuple(rng.integers(0, V, n - 1)) for _ in range(12)]:
        expected = [slow(w, tuple(context)) for w in range(V)]
        np.testing.assert_allclose(ours.probs(context), expected, rtol=1e-10)


some_docs = st.lists(st.lists(st.integers(0, 6), max_size=12), min_size=1, max_size=5).filter(any)


@settings(max_examples=200, deadline=None)
@given(docs=some_docs, text=st.lists(st.integers(0, 7), max_size=10), n=st.integers(1, 6),
       smoothing=st.sampled_from(NGramLM.smoothings))
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
    backwards = NGramLM(n, smoothing, vocab_size=8).fit(docs[::-1])
    np.testing.assert_allclose(backwards.logprobs(docs), lm.logprobs(docs), rtol=1e-12)


@pytest.mark.parametrize("smoothing", NGramLM.smoothings)
def test_documents_shorter_than_the_order(smoothing):
    lm = NGramLM(3, smoothing, vocab_size=8).fit([[0], [0, 1]])
    text = [0, 0, 1, 0, 1]
    np.testing.assert_allclose(np.exp(lm.logprobs(text)), [lm.probs(text[:i])[w] for i, w in enumerate(text)])


def test_any_order_and_vocabulary_without_overflow():
    large = 10**9 - 1 # six of them are far more than 64 bits hold
    ids = np.array([large, 5, large, 5, 7, large, 5])
    lm = NGramLM(6, "none", vocab_size=10**9).fit(ids)
    np.testing.assert_allclose(np.exp(lm.logprobs(ids)), [3/7, 1, 1/2, 1, 1, 1, 1])


@pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.int64])
def test_forms_of_input(dtype):
    a = np.array(docs[0], dtype)
    def scored(ids): return NGramLM(2, vocab_size=V).fit(ids).logprobs(ids)
    for form in (a, [a], (a,)): np.testing.assert_array_equal(scored(form), scored(docs[0]))
    chunks = a[:60].reshape(3, 20)  # a matrix is a list of documents
    np.testing.assert_array_equal(scored(chunks), scored(list(chunks)))


def test_fit_again_forgets_and_says_what_is_wrong():
    lm = NGramLM(2)
    with pytest.raises(ValueError, match="call fit first"): lm.probs([])
    lm.fit([0, 1, 2, 3])
    assert lm.vocab_size == 4 and lm.fit([0, 1]).vocab_size == 2
    with pytest.raises(ValueError, match="id 2 is outside the vocabulary 0..1"): lm.logprobs([2])
    with pytest.raises(ValueError, match="ids=.* it holds -1"): lm.fit([0, -1])
    with pytest.raises(TypeError, match="tokenize it first"): lm.fit("a text")
    with pytest.raises(TypeError, match="tokenize it first"): lm.fit(["a text", "another"])
    with pytest.raises(TypeError, match="float64"): lm.fit([.5])
    with pytest.raises(ValueError, match="nothing to count"): lm.fit([[], []])
    with pytest.raises(TypeError, match="generator"): NGramLM(1).fit([0]).sample(1, generator="1")
    before = lm.probs([])
    with pytest.raises(ValueError, match="ids=.* it holds -1"): lm.fit([7, -1])
    np.testing.assert_array_equal(lm.probs([]), before)  # a fit that fails leaves the model as it was
    with pytest.raises(ValueError, match="id 5 is outside the vocabulary 0..1"): lm.fit([0, 1]).logprobs([5])
    with pytest.raises(ValueError, match="id 3 is outside the .* 0..2"): NGramLM(2, vocab_size=3).fit([3])


@pytest.mark.parametrize("kw, error, message", [
    (dict(n=0), ValueError, "n=0 must be"), (dict(n=2.5), TypeError, "n=2.5 must be"),
    (dict(n="3"), TypeError, "n='3' must be"), (dict(n=2, k=0), ValueError, "k=0 must be"),
    (dict(n=2, smoothing="laplace"), ValueError, "smoothing='laplace' must be"),
    (dict(n=2, discount=1.5), ValueError, "discount=1.5 must be"),
    (dict(n=2, discount=0), ValueError, "discount=0 must be"),
    (dict(n=2, vocab_size=0), ValueError, "vocab_size=0 must be")])
def test_what_is_no_model(kw, error, message):
    with pytest.raises(error, match=message): NGramLM(**kw)


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


# ---- the game

def game():
    models = {"unigram": NGramLM(1).fit([0, 1, 2, 0]), "bigram": NGramLM(2).fit([0, 1, 2, 0])}
    return NextWordGame([0, 1, 2, 0, 1, 2], ["a", "b", "c"], models, positions=[1, 5])


def test_game_scores_reader_and_models_on_the_same_words():
    g = game()
    assert g.context == "a" and not g.over
    row = g.guess("b, zebra", sure=.8)
    p = g.models["unigram"].probs([0])[1]
    assert row["word"] == "b" and row["you"] == pytest.approx(-math.log2(.4 + .2*p))
    assert row["bigram"] == pytest.approx(-math.log2(g.models["bigram"].probs([0])[1]))
    assert " ? <" in g._repr_html_()
    assert g.context == "a b c a b" and g.guess("a", sure=1)["you"] == math.inf
    assert g.over and g.context == "a b c a b c" and list(g.table().index)[-1] == "mean"
    with pytest.raises(ValueError, match="game is over"): g.guess("a")
    assert " ? <" not in g._repr_html_() and "color:#111" in g._repr_html_()


def test_a_fair_guess_is_a_probability():
    rest = np.array([.5, .25, .25])
    for guesses, sure in [([], .7), ([0], .7), ([0, 2], .3), ([1], 0)]:
        assert sum(2**-guess_bits(w, guesses, sure, rest) for w in range(3)) == pytest.approx(1)
    with pytest.raises(ValueError, match="sure=50 must be"): guess_bits(2, [2], 50, rest)
    with pytest.raises(ValueError, match="sure=-0.1 must be"): game().guess("a", -.1)


def test_games_that_cannot_be_played():
    models = {"unigram": NGramLM(1).fit([0, 1, 2, 0])}
    with pytest.raises(ValueError, match="no word to ask for"): NextWordGame([1, 2], ["a", "b", "c"], models)
    with pytest.raises(ValueError, match="nobody to play against"): NextWordGame([0]*9, ["a", "b", "c"], {})


def test_the_game_escapes_its_words():
    g = NextWordGame([0, 1], ["<i>a</i>", "<b>"], {"<m>": NGramLM(1).fit([0, 1])}, positions=[1])
    g.guess("<script>")
    assert not [tag for tag in ("<i>", "<b>", "<m>", "<script>") if tag in g._repr_html_()]


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
    heavy = "torch pandas matplotlib ipywidgets nltk fastai transformers datasets"
    code = f"import course_lm.ngram, sys; assert not set('{heavy}'.split()) & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_neys_discount_is_estimated_at_every_order():
    # pairs: five seen once, one twice; single tokens: four continue one thing, one three
    lm = NGramLM(2).fit([0, 1, 2, 0, 3, 0, 1, 4])
    np.testing.assert_allclose([d[1:] for d in lm.discounts], [[.5]*3, [5/7]*3])
    modified = NGramLM(2, "modified-kneser-ney").fit([0, 1, 2, 0, 3, 0, 1, 4])
    np.testing.assert_allclose(modified.discounts[1][1:], [.5, 1, 1.5])


# ---- worked out by hand: lesson 1's sentences, and eight tokens in one document

EIGHT = np.array([0, 1, 2, 0, 3, 0, 1, 4])  # the cat saw the dog the cat ran


def test_eight_tokens_by_hand():
    plain, laplace = NGramLM(2, "none").fit(EIGHT), NGramLM(2, "add-k", k=1).fit(EIGHT)
    kn = NGramLM(2, discount=.75).fit(EIGHT)
    assert plain.logprobs(EIGHT).sum() == pytest.approx(-math.log(72), abs=1e-12)
    np.testing.assert_allclose(np.exp(kn.logprobs(EIGHT[:2])), [3/7, 41/84], rtol=1e-12)
    np.testing.assert_allclose(np.exp(laplace.logprobs([0, 1])), [(3+1)/(8+5), (2+1)/(3+5)], rtol=1e-12)
    assert plain.logprobs([0, 3, 4])[2] == -math.inf and np.isfinite(kn.logprobs([0, 3, 4])).all()
    nats, tokens = plain.score(EIGHT)
    assert (nats, tokens) == (pytest.approx(math.log(72)), 8)
    assert NGramLM(1, "none").fit([0, 1, 2, 3]).score([3, 3])[0] == pytest.approx(2*math.log(4))
    assert NGramLM(4).fit(EIGHT).n_ngrams == [5, 6, 6, 5]
    assert NGramLM(4).fit([EIGHT[:1], EIGHT[:2]]).n_ngrams == [2, 1]  # no document has three tokens


def test_each_different_pair_votes_once_for_the_token_it_ends_with():
    from course_lm.ngram import _continuations
    pair_rank = np.array([0, 1, 2, 3, 4, 0, 5])
    assert _continuations(pair_rank, EIGHT[1:], EIGHT[:1], 5).tolist() == [3, 1, 1, 1, 1]


SENTENCES = [[0, 1, 2, 3, 1, 4, 0], [0, 1, 2, 5, 0]]  # eos the cat saw the dog eos, eos the cat ran eos


def test_two_sentences_with_their_end_by_hand():
    kn, plain = NGramLM(2, discount=3/4).fit(SENTENCES), NGramLM(2, "none").fit(SENTENCES)
    assert kn.probs([1])[2] == pytest.approx(17/36) and kn.probs([4])[5] == pytest.approx(1/12)
    nats = -sum(plain.logprobs(s)[1:].sum() for s in SENTENCES)
    assert nats == pytest.approx(math.log(27))


@pytest.mark.parametrize("smoothing", NGramLM.smoothings)
def test_with_an_end_of_text_the_probabilities_of_all_texts_sum_to_one(smoothing):
    "By enumeration for short texts, and by powers of the transition matrix for all others."
    lm = NGramLM(2, smoothing, vocab_size=6).fit(SENTENCES)
    P = np.array([lm.probs([c]) for c in range(6)])
    of_length, state = [], P[0, 1:]
    for _ in range(300):
        of_length.append(state @ P[1:, 0])
        state = state @ P[1:, 1:]
    assert P[0, 0] + sum(of_length) == pytest.approx(1, abs=1e-9)
    for n in (1, 2, 3):
        texts = [lm.logprobs([0, *words, 0])[1:] for words in product(range(1, 6), repeat=n)]
        assert np.exp([t.sum() for t in texts]).sum() == pytest.approx(of_length[n-1])
    # without an end the texts of each length share a probability of 1, so all of them have none
    endless = NGramLM(2, smoothing, vocab_size=6).fit(np.concatenate([s[1:-1] for s in SENTENCES] * 2) - 1)
    for n in (1, 2, 3):
        total = sum(math.exp(endless.logprobs(w).sum()) for w in product(range(6), repeat=n))
        assert total == pytest.approx(1)


def test_gradient_descent_on_a_softmax_table_ends_at_the_counts():
    torch = pytest.importorskip("torch")
    x, y = torch.tensor([pair for s in SENTENCES for pair in zip(s, s[1:])]).T
    W = torch.zeros(6, 6, requires_grad=True)
    optimizer = torch.optim.Adam([W], lr=.3)
    for _ in range(300):
        loss = -W.log_softmax(-1)[x, y].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    plain = NGramLM(2, "none").fit(SENTENCES)
    assert loss.item() == pytest.approx(math.log(27)/10, abs=1e-3)
    expected = [plain.probs([c]) for c in range(6)]
    np.testing.assert_allclose(W.detach().softmax(-1), expected, atol=5e-3)


@pytest.mark.parametrize("n, D", [(1, .5), (2, .75), (3, .6), (4, .9)])
def test_kneser_ney_is_the_slow_version(n, D):
    count, left = slow_counts(docs, n)
    def C(gram): return count[gram] if len(gram) == n else len(left[gram])

    def p(word, context):
        shorter = p(word, context[1:]) if context else 1/V
        counts = [C(context + (v,)) for v in range(V)]
        if not sum(counts): return shorter
        return (max(C(context + (word,)) - D, 0) + D*sum(c > 0 for c in counts)*shorter) / sum(counts)
    lm, text = NGramLM(n, discount=D, vocab_size=V).fit(docs), rng.integers(0, V, 30).tolist()
    expected = [math.log(p(w, tuple(text[max(0, i-n+1):i]))) for i, w in enumerate(text)]
    np.testing.assert_allclose(lm.logprobs(text), expected, rtol=1e-12)


def test_a_unigram_sample_has_the_shares_of_the_counts():
    drawn = NGramLM(1, "none").fit(EIGHT).sample(20_000, 0)
    assert abs((drawn == 0).mean() - 3/8) < 5*math.sqrt(3/8 * 5/8 / 20_000)


def test_what_a_guess_costs_by_hand():
    even = np.full(4, 1/4)
    assert guess_bits(2, [], .9, even) == pytest.approx(2)  # no guess: 2 bits for one out of four
    assert guess_bits(2, [2], .5, even) == pytest.approx(-math.log2(.5 + .125))
    assert guess_bits(2, [2, 3], .5, even) == pytest.approx(-math.log2(.25 + .125))
    assert [guess_bits(2, [2], 1, even), guess_bits(2, [3], 1, even)] == [0, math.inf]
    g = game()
    row = g.guess("", 0)
    assert row["you"] == pytest.approx(row["unigram"])  # no guess costs what the first model pays


# ---- what lesson 1 says about real text: the language reference, 1,000 paragraphs to learn from

@pytest.fixture(scope="module")
def reference():
    "Ids of the training and of the held-out paragraphs, with the end of text on both sides."
    from course_lm.data import python_docs, train_tokenizer
    train, valid = python_docs()[:1000], python_docs()[1000:]
    tokenizer = train_tokenizer(train, vocab_size=1000)
    return [[[0] + ids + [0] for ids in tokenizer(texts)["input_ids"]] for texts in (train, valid)]


def predicted(lm, docs):
    return np.delete(lm.logprobs(docs), np.cumsum([0] + [len(d) for d in docs[:-1]]))


def held_out_perplexity(reference, n, **settings):
    train, valid = reference
    return math.exp(-predicted(NGramLM(n, vocab_size=1000, **settings).fit(train), valid).mean())


def test_a_longer_memory_helps_with_kneser_ney_and_hurts_with_add_k(reference):
    kn = [held_out_perplexity(reference, n) for n in (1, 2, 3, 4)]
    add = [held_out_perplexity(reference, n, smoothing="add-k", k=.01) for n in (1, 2, 3, 4)]
    assert kn == sorted(kn, reverse=True) and abs(kn[2] - 39.3) < .5
    assert add[1] < add[0] and add[1] < add[2] < add[3]
    assert held_out_perplexity(reference, 6) < kn[3]
    ones = [held_out_perplexity(reference, n, smoothing="add-k", k=1) for n in (2, 3)]
    assert ones[0] < ones[1] and kn[1] < add[1] < ones[0]


def test_on_its_training_text_every_longer_memory_looks_better(reference):
    train = reference[0]
    seen = [-predicted(NGramLM(n, vocab_size=1000).fit(train), train).mean() for n in range(1, 7)]
    assert seen == sorted(seen, reverse=True) and math.exp(seen[-1]) < 3


def test_impossible_tokens_left_out_make_the_worse_model_look_better(reference):
    train, valid = reference
    lps = {n: predicted(NGramLM(n, "none", vocab_size=1000).fit(train), valid) for n in (1, 2, 3)}
    impossible = [np.isinf(lp).mean() for lp in lps.values()]
    rest = [math.exp(-lp[np.isfinite(lp)].mean()) for lp in lps.values()]
    assert impossible == sorted(impossible) and impossible[-1] > .3
    assert rest == sorted(rest, reverse=True) and rest[-1] < 20 and np.isinf(lps[3].mean())


def test_fluent_samples_are_recited_and_score_worst(reference):
    train, _ = reference
    def grams(d): return {tuple(d[i:i+8]) for i in range(len(d)-7)}
    known = set().union(*map(grams, train))

    def recited(**settings):
        drawn = NGramLM(6, vocab_size=1000, **settings).fit(train).sample(400, generator=4, prompt=[0])
        runs = grams(drawn.tolist())
        return len(runs & known) / len(runs)
    assert recited(discount=.02) > .5 > .1 > recited()
    assert held_out_perplexity(reference, 6, discount=.02) > 1.5*held_out_perplexity(reference, 1)


def test_the_likeliest_tokens_make_a_loop(reference):
    lm, text = NGramLM(3, vocab_size=1000).fit(reference[0]), [0]
    for _ in range(100): text.append(int(lm.probs(text).argmax()))
    assert len({tuple(text[i:i+3]) for i in range(len(text)-2)}) < 20


def test_joining_documents_makes_up_trigrams_and_no_end(reference):
    train = [d[1:-1] for d in reference[0]]
    apart, glued = (NGramLM(3, vocab_size=1000).fit(x) for x in (train, np.concatenate(train)))
    assert glued.n_ngrams[2] > apart.n_ngrams[2]
    assert glued.n_ngrams[0] == apart.n_ngrams[0] and glued.probs([1])[0] < 1e-3


def test_counts_shrink_on_other_text_by_an_amount_that_grows_slowly():
    from course_lm.data import python_docs
    def pairs(docs): return Counter(p for d in docs for p in zip(d.split(), d.split()[1:]))
    one, other = pairs(python_docs()[::2]), pairs(python_docs()[1::2])
    means = {r: np.mean([other[p] for p in one if one[p] == r]) for r in range(1, 7)}
    lost = {r: r - mean for r, mean in means.items()}
    assert all(.4 < x < 2 for x in lost.values()) and lost[6] < .4*means[6] + .4 and .7 < lost[1] < .8
    unseen = sum(n for p, n in other.items() if p not in one)
    assert unseen > 10_000  # what was taken has takers


def test_ids_of_whole_ngrams_would_not_fit_into_64_bits():
    assert 50_000**4 < 2**63 < 50_000**5
