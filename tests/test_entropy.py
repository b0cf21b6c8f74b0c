"`course_lm.entropy`: the source's perplexity against its own samples, block entropies and models that learn."
import math
from itertools import product

import numpy as np
import pytest

from course_lm.entropy import MarkovSource
from course_lm.ngram import NGramLM
from course_lm.support.randomness import numpy_generator


@pytest.mark.parametrize("order", [1, 2, 3])
def test_entropy_rate_is_what_the_source_pays(order):
    source = MarkovSource(n_states=5, order=order, seed=order)
    surprise = -source.logprobs(source.sample(30_000, generator=order))
    assert abs(surprise.mean() - source.entropy_rate) < 5*surprise.std()/math.sqrt(30_000) + 1e-3
    assert 0 <= source.entropy_rate <= math.log(5)
    assert math.isclose(source.perplexity, math.exp(source.entropy_rate))
    texts = np.array(list(product(range(5), repeat=order + 1)))
    assert math.isclose(np.exp([source.logprobs(t).sum() for t in texts]).sum(), 1)


def test_entropy_rate_by_an_independent_route():
    "Block entropies: H(n tokens) - H(n-1 tokens) is the entropy rate of a chain from n = order+1 on."
    for order in (1, 2):
        source = MarkovSource(n_states=3, order=order, seed=1, concentration=1)
        for n in (order + 1, order + 2):
            rate = block_entropy(source, n) - block_entropy(source, n-1)
            assert math.isclose(rate, source.entropy_rate, rel_tol=1e-9)


def block_entropy(source, n):
    logprobs = [source.logprobs(np.array(t)).sum() for t in product(range(3), repeat=n)]
    return -sum(math.exp(lp)*lp for lp in logprobs)


def test_no_model_beats_the_source():
    source = MarkovSource(n_states=10, order=1, seed=4)
    weights = source.stationary[:, None] * source.transition
    for smoothing, size in product(("add-k", "kneser-ney", "modified-kneser-ney"), (100, 1000, 30_000)):
        lm = NGramLM(2, smoothing, vocab_size=10).fit(source.sample(size, generator=size))
        exact = -(weights * np.log([lm.probs([c]) for c in range(10)])).sum()  # the expectation itself
        assert exact > source.entropy_rate
    assert exact < source.entropy_rate + .01


def test_sources_that_are_none():
    for bad,why in [(np.eye(2), "never reach"), (np.eye(3), "never"), ([[.5, .6], [.5, .5]], "sum to 1"),
                    ([[.9, .2], [.5, .5]], "sum to 1"), ([[1.5, -.5], [.5, .5]], "sum to 1"),
                    (np.ones((2, 3)), r"\(2, 3\)"), (np.ones(3), r"of shape \(3,\)")]:
        with pytest.raises(ValueError, match=why): MarkovSource(bad)
    with pytest.raises(ValueError, match="n_states=100 .* at most 4096"): MarkovSource(n_states=100, order=3)
    for wrong in (dict(n_states=0), dict(order=0), dict(concentration=0), dict(seed=-1)):
        with pytest.raises(ValueError, match=rf"{[*wrong][0]}=.* must be"): MarkovSource(**wrong)
    with pytest.raises(ValueError, match="order=1"): MarkovSource(np.full((2, 2), .5), order=2)
    with pytest.raises(ValueError, match="0..1"): MarkovSource(np.full((2, 2), .5)).logprobs([2])
    with pytest.raises(ValueError, match="0..5"): MarkovSource(np.full((6, 6), 1/6)).logprobs([6])
    with pytest.raises(ValueError, match="n=-1 must be"): MarkovSource().sample(-1)
    with pytest.raises(TypeError, match="generator='1'"): MarkovSource().sample(1, "1")


def test_a_state_that_is_left_for_good():
    one_way = MarkovSource([[.5, .5], [0, 1]])  # fine: it has a long run
    np.testing.assert_allclose(one_way.stationary, [0, 1], atol=1e-12)
    assert one_way.entropy_rate == pytest.approx(0, abs=1e-12) and (one_way.sample(20, 0) == 1).all()


def test_the_same_seed_gives_the_same_source_and_sample():
    a, b = (MarkovSource(n_states=4, order=2, seed=5) for _ in range(2))
    np.testing.assert_array_equal(a.transition, b.transition)
    np.testing.assert_array_equal(a.sample(50, 3), b.sample(50, numpy_generator(3)))
    assert not np.array_equal(a.transition, MarkovSource(n_states=4, order=2, seed=6).transition)
    np.testing.assert_array_equal(a.transition, numpy_generator(5).dirichlet(np.full(4, .2), (4, 4)))


def test_sources_worked_out_by_hand():
    from course_lm.entropy import _stationary
    np.testing.assert_allclose(_stationary(np.array([[.9, .1], [.5, .5]])), [5/6, 1/6], rtol=1e-12)
    weather = MarkovSource([[.9, .1], [.5, .5]])
    def entropy(*p): return -sum(q*math.log(q) for q in p)
    assert math.isclose(weather.entropy_rate, 5/6*entropy(.9, .1) + 1/6*entropy(.5, .5))
    die, clock = MarkovSource(np.full((6, 6), 1/6)), MarkovSource(np.roll(np.eye(12), 1, axis=1))
    np.testing.assert_allclose([die.perplexity, clock.perplexity], [6, 1], rtol=1e-12)
    assert clock.logprobs([3, 5]).tolist() == [pytest.approx(-math.log(12)), -math.inf]
    assert die.sample(0).size == 0
    same_twice = MarkovSource(np.broadcast_to(weather.transition, (2, 2, 2)))  # ignores its older token
    assert same_twice.order == 2 and math.isclose(same_twice.entropy_rate, weather.entropy_rate)
    for source in (weather, same_twice):
        texts = product(range(2), repeat=4)
        assert math.isclose(sum(math.exp(source.logprobs(np.array(t)).sum()) for t in texts), 1)


def test_the_gap_to_the_source_is_scipys_kullback_leibler_divergence():
    from scipy.stats import entropy
    source = MarkovSource(n_states=8, order=1, seed=2)
    lm = NGramLM(2, vocab_size=8).fit(source.sample(300, generator=0))
    q = np.array([lm.probs([c]) for c in range(8)])
    kl = source.stationary @ entropy(source.transition, q, axis=1)
    assert math.isclose(source.stationary @ entropy(source.transition, axis=1), source.entropy_rate)
    fresh = source.sample(100_000, generator=1)
    gap = source.logprobs(fresh) - lm.logprobs(fresh)
    assert kl > 0 and abs(gap.mean() - kl) < 5*gap.std()/math.sqrt(len(gap))


def test_a_weight_chosen_on_held_out_text_drops_a_useless_model():
    "Lesson 1's experiment in small: the mixture is as good as the better of its parts."
    source, other = MarkovSource(n_states=6, seed=0), MarkovSource(n_states=6, seed=9)
    own = NGramLM(2, vocab_size=6).fit(source.sample(2000, generator=0))
    wrong = NGramLM(2, vocab_size=6).fit(other.sample(5000, generator=0))
    held_out, test = source.sample(2000, generator=1), source.sample(2000, generator=2)

    def loss(w, ids):
        p = w*np.exp(wrong.logprobs(ids)) + (1-w)*np.exp(own.logprobs(ids))
        return -np.log(p).mean()
    chosen = min(np.linspace(0, 1, 101), key=lambda w: loss(w, held_out))
    assert chosen < .05 and loss(chosen, test) < loss(0, test) + .01 < loss(.5, test)


# ---- what lesson 1 says about scores

def test_a_score_below_the_source_is_a_leak():
    source = MarkovSource(n_states=12, order=2, seed=3)
    few, fresh = source.sample(2000, generator=2), source.sample(50_000, generator=3)
    leak = math.exp(-NGramLM(4, "none", vocab_size=12).fit(few).logprobs(few).mean())
    honest = math.exp(-NGramLM(3, vocab_size=12).fit(few).logprobs(fresh).mean())
    assert leak < .75*source.perplexity < source.perplexity < honest


def test_memory_that_is_too_short_stops_above_the_floor_and_little_text_favours_it():
    source = MarkovSource(n_states=12, order=2, seed=3)
    fresh = source.sample(20_000, generator=3)
    floor = -source.logprobs(fresh).mean()

    def above(n, size):
        models = [NGramLM(n, vocab_size=12).fit(source.sample(size, generator=100+i)) for i in range(3)]
        return np.mean([-lm.logprobs(fresh).mean() for lm in models]) - floor
    long = {n: above(n, 2**16) for n in (1, 2, 3)}
    assert 0 < long[3] < .02 and long[2] > .9 and long[1] > long[2]
    assert above(1, 64) < above(2, 64)


@pytest.fixture(scope="module")
def paragraphs():
    from course_lm.data import python_docs
    return python_docs()


def bits_per_byte(lm, docs, n_bytes):
    lp = np.delete(lm.logprobs(docs), np.cumsum([0] + [len(d) for d in docs[:-1]]))
    return -lp.sum()/math.log(2)/n_bytes, math.exp(-lp.mean())


def with_ends(learn, *parts):
    from course_lm.data import train_tokenizer
    tokenizer = train_tokenizer(learn, vocab_size=1000)
    return [[[0] + ids + [0] for ids in tokenizer(part)["input_ids"]] for part in (learn, *parts)]


def test_the_smaller_perplexity_may_be_the_worse_model(paragraphs):
    learn, test = paragraphs[:1000], paragraphs[1000:]
    n_bytes = sum(len(d.encode()) for d in test)
    ids, test_ids = with_ends(learn, test)
    def as_bytes(texts): return [[256, *t.encode(), 256] for t in texts]

    def by_bytes(n):
        lm = NGramLM(n, vocab_size=257).fit(as_bytes(learn))
        return bits_per_byte(lm, as_bytes(test), n_bytes)
    bits, perplexity = bits_per_byte(NGramLM(3, vocab_size=1000).fit(ids), test_ids, n_bytes)
    assert by_bytes(4)[1] < perplexity/8 and by_bytes(4)[0] > 1.1*bits
    assert by_bytes(8)[0] < bits + .02  # not the unit decides, but how much text the context holds


def test_a_random_split_flatters(paragraphs):
    "The same paragraphs, scored by a model that has read their neighbours and by one that hasn't."
    n = len(paragraphs)
    middle = range(2*n//5, 3*n//5)
    rest = [i for i in range(n) if i not in middle]
    half = list(middle)[::2]
    test = [paragraphs[i] for i in half]
    n_bytes = sum(len(d.encode()) for d in test)
    near = [paragraphs[i] for i in [*rest[len(half):], *list(middle)[1::2]]]
    far = [paragraphs[i] for i in rest]

    def score(learn):
        ids, test_ids = with_ends(learn, test)
        return bits_per_byte(NGramLM(3, vocab_size=1000).fit(ids), test_ids, n_bytes)[0]
    assert score(near) < score(far) - .1  # although it has read no more


def test_a_short_word_list_lowers_the_perplexity_and_hides_words(paragraphs):
    words = [d.split() for d in paragraphs]
    by_frequency = {}
    for w in (w for d in words[:1000] for w in d): by_frequency[w] = by_frequency.get(w, 0) + 1
    rank = {w: i for i, w in enumerate(sorted(by_frequency, key=by_frequency.get, reverse=True), start=1)}
    found = []
    for size in (50, 200, 1000):
        ids = [[rank.get(w, 0) for w in d] for d in words]
        ids = [[r if r <= size else 0 for r in d] for d in ids]
        nats, tokens = NGramLM(3, vocab_size=size+1).fit(ids[:1000]).score(ids[1000:])
        unknown = np.mean([i == 0 for d in ids[1000:] for i in d])
        found.append((math.exp(nats/tokens), unknown))
    perplexities, unknown = map(list, zip(*found))
    assert perplexities == sorted(perplexities) and unknown == sorted(unknown, reverse=True)
    assert unknown[0] > .4
