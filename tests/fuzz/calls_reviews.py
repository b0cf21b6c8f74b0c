"""Lesson 6: reviews, classifiers, which run is better."""
import numpy as np

from course_lm.baselines import RunResult
from course_lm.classification import ADAM, LSTMClassifier
from tests.fuzz.calls import Call


def calls(w): return [*baselines(w), *classification(w), *comparing(w), *windows(w)]


def baselines(w):
    yield Call("baselines:check_reviews", dict(ds=w.reviews, name="ds"))
    yield Call("baselines:imdb_splits", dict(ds=w.reviews, by="position", shares=(.5, .25, .25), seed=1))
    near = dict(first=w.texts[:4], second=w.texts[2:], n=4, share=.5, common=50)
    yield Call("baselines:near_duplicates", near)
    yield Call("baselines:leak_report", dict(splits=w.splits, near=.5))
    yield Call("baselines:wilson_interval", dict(correct=5, n=10, level=.95))
    y, p = np.array([0, 1, 0, 1]), np.array([.2, .8, .6, .7])
    made = dict(name="a", probs=p, labels=y, scored_on="test", chosen_on="valid", n_params=5, seconds=1.)
    more = dict(history=[], losses=[.5], settings=dict(seed=1), reviews="", machine="m",
                names=["bad", "good"])
    yield Call("baselines:RunResult", made | more, then=lambda r: (r.accuracy, repr(r)))
    of = dict(splits=w.splits, score_on="test", chosen_on="valid", name="a", probs=np.full(6, .6))
    yield Call("baselines:RunResult.of", of, on=RunResult)
    yield Call("baselines:results_table", dict(runs=[w.run1, w.run2], seconds=True))
    linear = dict(splits=w.splits, features="counts", ngrams=(1, 2), C=1., score_on="test", chosen_on="valid")
    yield Call("baselines:linear_baseline", linear)
    yield Call("baselines:linear_baseline", linear | dict(features="nbsvm"), note="nbsvm")


def classification(w):
    cut = dict(tokenizer=w.ctok, max_length=20)
    left = dict(ds=w.splits["train"], truncation_side="left")
    yield Call("classification:encode_reviews", left | cut)
    lengths = list(w.encoded["length"])
    made = dict(lengths=lengths, batch_size=4, pool=2, shuffle=True, seed=1)
    name = "classification:LengthBucketedSampler"
    yield Call(name, made, then=list)
    yield Call(f"{name}.set_epoch", dict(epoch=1), on=w.sampler, then=lambda _: list(w.sampler))
    state = dict(state=w.sampler.state_dict())
    yield Call(f"{name}.load_state_dict", state, on=w.sampler, then=lambda _: list(w.sampler))
    ask = dict(model=w.clf, tokenizer=w.ctok)
    texts = list(w.reviews["text"][:4])
    proba = dict(data=texts, batch_size=2, max_length=20, log_odds=True)
    yield Call("classification:predict_proba", ask | proba)
    yield Call("classification:classify", ask | dict(texts=texts))
    train = ask | dict(splits=w.splits, recipe=ADAM, sampler=None, name="n", progress=False)
    changes = dict(epochs=1, n_steps=2, lr=1e-3, batch_size=4, seed=1)
    yield Call("classification:train_classifier", train | changes, trains=True)
    shape = dict(n_embd=8, n_hidden=8, bidirectional=False, pooling="last", dropout=.1, seed=1,
                 labels=["bad", "good"])
    net = LSTMClassifier(300, 8, 8)
    def run(model): return model(w.matrix, w.matrix > 0)
    yield Call("classification:LSTMClassifier", dict(n_words=300, **shape), then=run)
    forward = dict(input_ids=w.matrix, attention_mask=w.matrix > 0, labels=None)
    yield Call("classification:LSTMClassifier.forward", forward, on=net)
    lstm = dict(splits=w.splits, recipe=ADAM, n_words=50, max_length=10, truncation_side="left", name="L",
                progress=False, n_embd=8, n_hidden=8)
    yield Call("classification:lstm_baseline", lstm, trains=True)
    mistakes = dict(run=w.on_test, ds=w.splits["test"], n=2)
    yield Call("classification:most_confident_mistakes", mistakes)


def comparing(w):
    same_seed = RunResult("b", w.run2.probs, w.run2.labels, settings=dict(seed=1))
    yield Call("comparing:mcnemar", dict(run_a=w.run1, run_b=w.run2))
    yield Call("comparing:difference_interval", dict(run_a=w.run1, run_b=w.run2, level=.95))
    yield Call("comparing:reviews_needed", dict(difference=.01, disagree=.1, power=.8, level=.95))
    yield Call("comparing:compare_seeds", dict(runs=[w.run1, same_seed], against=None))
    yield Call("comparing:calibration_curve", dict(run=w.run1, bins=3))
    yield Call("comparing:plot_calibration", dict(runs=[w.run1], bins=3, ax=None))
    yield Call("comparing:accuracy_by", dict(run=w.run1, by=[3, 1, 2, 5, 4, 6], edges=[3]))


def windows(w):
    lengths = list(w.encoded["length"])
    made = dict(lengths=lengths, max_tokens=200, pool=3, shuffle=True, seed=1, max_reviews=3)
    yield Call("windows:TokenBudgetSampler", made, then=list)
    cut = dict(ds=w.splits["train"], tokenizer=w.ctok, max_length=20)
    yield Call("windows:encode_head_tail", cut | dict(head=.25))
    yield Call("windows:encode_windows", cut | dict(stride=5))
    ask = dict(model=w.clf, tokenizer=w.ctok)
    look = dict(ds=list(w.reviews["text"][:3]), max_length=20, stride=5, average="logits")
    yield Call("windows:predict_windows", ask | look)
    yield Call("windows:token_importance", ask | dict(text="a good film", how="mask", by="token"))
    yield Call("windows:show_importance", dict(found=w.importance, most=1.))
    yield Call("windows:review_explorer", ask | dict(text="a good film"))
