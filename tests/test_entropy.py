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
