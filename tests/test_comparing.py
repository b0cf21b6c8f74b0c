"Lesson 63: two runs, several seeds, calibration, accuracy by group, and what was measured with them."
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import course_lm
from course_lm.baselines import RunResult
from course_lm.comparing import (
    accuracy_by, calibration_curve, calibration_error, compare_seeds, difference_interval, mcnemar,
    reviews_needed)

records = Path(course_lm.__file__).resolve().parent/'records'

def refused(text): return pytest.raises(ValueError, match=text)


def run_of(right, n=None, name='r', **kw):
    "A run whose answers are right where `right` is true."
    right = np.asarray(right, dtype=bool)
    labels = np.arange(len(right))%2
    return RunResult(name, np.where(right==(labels==1), .9, .1), labels, **kw)


# two runs

@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=200))
def test_mcnemar_is_the_binomial_test(pairs):
    from scipy.stats import binomtest
    a, b = (run_of([p[i] for p in pairs]) for i in (0, 1))
    m = mcnemar(a, b)
    assert (m.only_a, m.only_b) == (sum(x and not y for x,y in pairs), sum(y and not x for x,y in pairs))
    assert m.p == pytest.approx(binomtest(m.only_a, m.only_a+m.only_b).pvalue if m.only_a+m.only_b else 1)
    assert mcnemar(b, a) == (m.only_b, m.only_a, m.p)

def test_mcnemar_takes_runs():
    with pytest.raises(TypeError, match='run_b='): mcnemar(run_of([1, 0]), [1, 0])

def test_mcnemar_large():
    n = 6000
    m = mcnemar(run_of(np.arange(n) < 4000), run_of(np.arange(n) >= 3000))
    assert (m.only_a, m.only_b) == (3000, 2000) and 0 < m.p < 1e-40

def test_mcnemar_refuses_other_reviews():
    a = run_of([1, 0, 1])
    turned = RunResult('o', np.array([.9, .9, .1]), 1-np.asarray(a.labels))
    for other in (run_of([1, 0]), turned, run_of([1, 0, 1], scored_on='valid')):
        with refused('one split for all runs'): mcnemar(a, other)
    one, two = (run_of([1, 0], reviews=reviews) for reviews in ('abc', 'def'))
    with refused('one split for all runs'): mcnemar(one, two)
    assert mcnemar(run_of([1, 0], reviews='abc'), run_of([1, 0])).p == 1

def seeded(right, seed, name='a', **settings):
    "A run of a hundred answers, the first so many of them right."
    return run_of(np.arange(100) < right, name=name, settings={'seed': seed, **settings})

def test_seeds():
    runs = [seeded(right, seed, lr=1) for seed, right in enumerate((80, 84, 88))]
    t = compare_seeds([*runs, run_of(np.arange(100) < 70, name='b')])
    assert t.loc['a', ['seeds', 'mean', 'spread', 'worst', 'best']].tolist() == [3, 84., 4., 80., 88.]
    assert t.loc['b', 'seeds'] == 1 and np.isnan(t.loc['b', 'spread'])
    with refused('seed 1 twice'): compare_seeds([*runs, runs[1]])
    with refused("'lr'"): compare_seeds([*runs, seeded(9, 9, lr=2)])

def test_pairs_are_made_by_seed_not_by_place():
    ours, theirs = [seeded(80 + 4*k, k) for k in range(3)], [seeded(81 + 4*k, k, 'b') for k in (2, 0, 1)]
    row = compare_seeds([*ours, *theirs]).loc['b']
    assert row['against'] == 'a' and (row['won'], row['lost']) == (3, 0)
    assert row[['difference', 'from', 'to']].tolist() == pytest.approx([1, 1, 1]), 'one point with every seed'
    with refused('the same seeds are needed'): compare_seeds([*ours, *theirs[:2]])
    with refused('the same seeds are needed'): compare_seeds([*ours, *theirs[:2], seeded(70, 9, 'b')])

def test_a_run_without_a_seed_stands_against_all():
    ours, alone = [seeded(80 + 4*k, k) for k in range(3)], run_of(np.arange(100) < 84, name='b')
    row = compare_seeds([*ours, alone]).loc['b']
    assert (row['won'], row['lost'], row['difference']) == (1, 1, 0)

def test_seeds_of_other_reviews_are_not_compared():
    with refused('one split for all runs'): compare_seeds([seeded(80, 0), run_of([1, 0], name='b')])
    with refused('there is nothing in it'): compare_seeds([])
    with refused("'a' has no run"): compare_seeds({'a': []})

@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=200), st.integers(1, 12))
def test_calibration_laws(pairs, bins):
    run = RunResult('r', np.array([p for p,_ in pairs]), np.array([y for _,y in pairs]))
    t = calibration_curve(run, bins)
    assert t['reviews'].sum() == run.n and len(t) <= bins
    assert (t['from'] <= t['true'] + 1e-12).all() and (t['true'] <= t['to'] + 1e-12).all()
    assert 0 <= calibration_error(run, bins) <= 1
    always = RunResult('r', np.full(run.n, run.labels.mean()), run.labels)
    assert calibration_error(always, bins) == pytest.approx(0, abs=1e-9)

def test_calibration_of_honest_probabilities():
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    y = (rng.random(20_000) < p).astype(int)
    honest, loud = RunResult('honest', p, y), RunResult('loud', np.where(p>.5, .99, .01), y)
    assert calibration_error(honest) < .02 < .1 < calibration_error(loud)
    with refused('bins=0'): calibration_curve(RunResult('r', p, y), 0)

def test_accuracy_by_groups():
    run = run_of(np.arange(100) < 50)
    t = accuracy_by(run, np.arange(100))
    assert t['reviews'].tolist() == [25]*4 and t['accuracy %'].tolist() == [100, 100, 0, 0]
    assert t.index[0] == '0 to 24'
    assert accuracy_by(run, np.arange(100) >= 50)['accuracy %'].to_dict() == {'False': 100, 'True': 0}
    assert accuracy_by(run, np.arange(100), edges=[9])['reviews'].tolist() == [10, 90]
    assert accuracy_by(run, np.full(100, 7))['reviews'].tolist() == [100]
    assert accuracy_by(run, ['a', 'b']*50)['accuracy %'].to_dict() == {'a': 50, 'b': 50}
    assert accuracy_by(run, np.r_[np.arange(90), np.full(10, 89)])['reviews'].sum() == 100
    with refused('by has 99 values'): accuracy_by(run, range(99))


# several seeds

def test_compare_seeds_by_hand():
    t = compare_seeds({'a': {0: .8, 1: .7, 2: .9}, 'b': {2: .9, 1: .8, 0: .9}})
    row = t.loc['b']
    assert row.difference == pytest.approx(20/3) and (row.won, row.lost) == (2, 0) and row['p (sign)'] == .5
    d = np.array([10, 10, 0.])
    half = 4.302653*d.std(ddof=1)/3**.5
    assert (row['from'], row['to']) == pytest.approx((20/3-half, 20/3+half), abs=1e-3)
    assert np.isnan(t.loc['a', 'difference'])

def test_compare_seeds_agrees_with_scipy():
    from scipy.stats import ttest_rel
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 9))
    low, high = ttest_rel(b, a).confidence_interval()
    a_of, b_of = dict(enumerate(a)), dict(enumerate(b))
    row = compare_seeds({'a': a_of, 'b': b_of, 'c': a_of}, against='a').loc['b']
    assert (row['from'], row['to']) == pytest.approx((100*low, 100*high))

def test_compare_seeds_refuses():
    with refused(r'not a: \[0, 1\], b: \[0\]'): compare_seeds({'a': {0: .1, 1: .2}, 'b': {0: .1}})
    with refused("against='c'"): compare_seeds({'a': {0: .1}}, against='c')
    with pytest.raises(TypeError, match="'a' must hold RunResults"): compare_seeds({'a': [.1]})


# what was measured

def results(name): return json.loads((records/name).read_text())

def test_classifiers_were_measured():
    r = results('classifiers.json')
    assert {'recipes', 'body', 'long'} <= set(r)
    for part in r.values(): assert part['machine']['date'] and part['runs']
    seeds = {x['seed'] for x in r['recipes']['runs']}
    names, rates = {x['recipe'] for x in r['recipes']['runs']}, {x['lr'] for x in r['recipes']['runs']}
    n = len(names)*len(rates)*len(seeds)
    assert len(r['recipes']['runs']) == n, 'every recipe with every rate and seed'

def test_what_the_lesson_says_of_the_measurements_is_so():
    r = results('classifiers.json')
    def table(part, lr=None):
        runs = [x for x in r[part]['runs'] if lr is None or x['lr'] == lr]
        names = dict.fromkeys(x['recipe'] for x in runs)
        return compare_seeds({n: {x['seed']: x['test'] for x in runs if x['recipe'] == n} for n in names})
    at3, at9, longer = table('recipes', 3e-3), table('recipes', 9e-3), table('longer')
    assert abs(at3.loc['AdamW', 'difference']) < .2 and -9 < at3.loc['+ falling rate', 'to'] < -5
    assert abs(at3.loc['+ warm-up', 'difference']) < 1 and at9.loc['+ warm-up', 'from'] > 10
    assert at3.loc['+ gradual unfreezing', 'to'] < 0
    assert -2 < longer.loc['+ falling rate', 'difference'] < 0 < longer.loc['+ falling rate', 'to']
    short, more = table('body'), table('body_longer')
    assert short.loc['masked body', 'lost'] == 6 and short.loc['masked body', 'spread'] > 8
    assert more.loc['masked body', 'won'] == 6 and more.loc['masked body', 'from'] > 2
    assert more.loc['masked body', 'mean'] > 100*r['body_longer']['nbsvm'] > more.loc['random body', 'mean']
    way = {x['way']: x['test'] for x in r['long']['runs']}
    assert way['head'] + .02 < way['tail'] and way['windows, logits averaged'] > way['tail'] + .05


# the size of a difference

def counted(only_a, only_b, both, neither):
    "Two runs with these counts."
    a = np.repeat([1, 0, 1, 0], [only_a, only_b, both, neither])
    b = np.repeat([0, 1, 1, 0], [only_a, only_b, both, neither])
    return run_of(a), run_of(b, name='s')

def test_interval_by_hand():
    "2 and 5 alone of 20, half a review more in each of the four: (5.5 - 2.5)/22, and its standard error."
    difference, low, high = difference_interval(*counted(2, 5, 10, 3))
    middle = 3/22
    half = 1.959964*np.sqrt(8 - 22*middle**2)/22
    assert difference == pytest.approx(.15)
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=1e-6)

@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(0, 60)]*4).filter(sum))
def test_interval_laws(counts):
    a, b = counted(*counts)
    difference, low, high = difference_interval(a, b)
    assert -1 <= low < high <= 1 and low <= difference + 1e-9 and difference - 1e-9 <= high
    assert difference == pytest.approx(b.accuracy - a.accuracy)
    turned = difference_interval(b, a)
    assert turned == pytest.approx((-difference, -high, -low))
    wide = difference_interval(a, b, level=.99)
    assert wide[1] <= low and high <= wide[2]

@pytest.mark.parametrize('shares, n', [((.055, .065), 400), ((.2, .25), 60), ((0., .02), 150)])
def test_interval_covers(shares, n):
    "19 of 20 intervals hold the true difference, small tests and rare disagreements included."
    rng = np.random.default_rng(0)
    held = []
    for only_a, only_b in rng.multinomial(n, [*shares, 1-sum(shares)], 600)[:,:2].tolist():
        _, low, high = difference_interval(*counted(only_a, only_b, n - only_a - only_b, 0))
        held.append(low <= shares[1] - shares[0] <= high)
    assert .93 < np.mean(held)

def test_interval_and_bootstrap_agree():
    a, b = counted(60, 90, 700, 150)
    gain = (b.predictions==b.labels).astype(int) - (a.predictions==a.labels)
    drawn = gain[np.random.default_rng(0).integers(1000, size=(4000, 1000))].mean(1)
    assert difference_interval(a, b)[1:] == pytest.approx(np.quantile(drawn, [.025, .975]), abs=.002)

@pytest.mark.parametrize('difference, disagree, power', [(.02, .1, .8), (.05, .2, .9), (.03, .03, .8)])
def test_reviews_needed_reach_the_power(difference, disagree, power):
    n, rng = reviews_needed(difference, disagree, power), np.random.default_rng(0)
    a, b = (disagree - difference)/2, (disagree + difference)/2
    counts = rng.multinomial(n, [a, b, 1 - a - b], 4000)
    z = (counts[:,1] - counts[:,0])/np.sqrt(np.maximum(counts[:,0] + counts[:,1], 1))
    assert (np.abs(z) > 1.96).mean() == pytest.approx(power, abs=.04 if disagree > difference else .25)

def test_reviews_needed_laws():
    assert reviews_needed(.01, .12) == pytest.approx((1.96 + .8416)**2*.12/.01**2, rel=.01)
    assert reviews_needed(.005, .12) == pytest.approx(4*reviews_needed(.01, .12), rel=.01)
    assert reviews_needed(.01, .12) < reviews_needed(.01, .12, power=.9) < reviews_needed(.01, .12, .9, .99)
    for kw, text in ((dict(difference=.2, disagree=.1), 'difference=0.2 is more than disagree=0.1'),
                     (dict(difference=0., disagree=.1), 'difference=0'),
                     (dict(difference=.1, disagree=2), 'disagree=2'),
                     (dict(difference=.1, disagree=.2, power=1.), 'power=1')):
        with pytest.raises(ValueError, match=text): reviews_needed(**kw)

def test_answers_were_kept():
    "What lesson 63 compares: three seeds, all reviews of valid and test."
    r = results('answers.json')
    assert [run['seed'] for run in r['runs']] == [0, 1, 2] and r['machine']['date']
    for run in r['runs']:
        for part in ('valid', 'test'): assert len(run[part]) == r['sizes'][part][0]
