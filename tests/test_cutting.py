"""benchmarks.experiments.cutting: the same tokens for every policy; two sides differ by a leak only."""
import json

import numpy as np
import pytest

from benchmarks.bench import results
from benchmarks.experiments.cutting import (
    POLICIES, SEEDS, SETTINGS, batches, document_nats, leaky_and_clean, planned, rows_of)
from course_lm.models import new_model, tiny_gpt_config
from course_lm.perplexity import token_nll
from course_lm.policies import plan_chunks
from course_lm.support.inputs import IGNORE_INDEX

docs = [np.full(n, i + 1) for i, n in enumerate([5, 3, 9, 2, 4])]


@pytest.mark.parametrize("policy", POLICIES)
def test_rows_hold_what_the_plan_keeps_and_padding_is_never_predicted(policy):
    inputs, labels = rows_of(docs, policy, 4)
    report = plan_chunks([len(d) for d in docs], 4, policy).report
    real = labels != IGNORE_INDEX
    assert inputs.shape == (report.chunks, 4) and int(real.sum()) == report.kept
    assert (inputs[real] == labels[real]).all() and (inputs[~real] == 0).all()


def test_rows_by_hand():
    inputs, labels = rows_of(docs[:2], "pad", 4)
    assert inputs.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0], [2, 2, 2, 0]]
    assert labels.tolist() == [[1, 1, 1, 1], [1, -100, -100, -100], [2, 2, 2, -100]]


def test_every_update_predicts_about_as_many_tokens():
    _, labels = rows_of([np.ones(n, int) for n in np.random.default_rng(0).integers(2, 40, 300)], "pad", 16)
    predicted = (labels[:, 1:] != IGNORE_INDEX).sum(1).numpy()
    updates = zip(range(50), batches(labels, 60, np.random.default_rng(1)))
    drawn = [predicted[rows].sum() for _, rows in updates]
    assert abs(np.mean(drawn) - 60) < 1 and min(drawn) > 60 - 15 - 1 and max(drawn) < 60 + 15 + 1


@pytest.mark.parametrize("seed", range(5))
def test_the_clean_side_shares_no_document_and_both_are_equally_long(seed):
    many = [np.ones(n, int) for n in np.random.default_rng(seed).integers(5, 60, 200)]
    leaky, clean, valid = leaky_and_clean(many, 16, 0.1, seed)
    chunk, document, *_ = plan_chunks([len(d) for d in many], 16).fragments()
    def documents(chunks): return set(document[np.isin(chunk, chunks)])
    assert not documents(clean) & documents(valid) and documents(leaky) & documents(valid)
    assert len(leaky) == len(clean) == len(set(leaky)) and not set(valid) & {*leaky, *clean}


def test_a_document_is_scored_once_and_as_in_one_window():
    model = new_model(tiny_gpt_config(20, 1, 1, 8, 32), 0).eval()
    doc = np.random.default_rng(0).integers(0, 20, 30)
    short = document_nats(model, doc, 32, 16)
    import torch
    ids = torch.tensor(doc[None])
    torch.testing.assert_close(short, token_nll(model(input_ids=ids).logits, ids))
    long = document_nats(model, np.tile(doc, 4), 32, 16)
    assert len(long) == 4*30 - 1
    torch.testing.assert_close(long[:29], short)


def test_seeds_stand_together_and_the_order_is_shuffled():
    runs = list(planned())
    assert len(runs) == len(SEEDS) * (len(POLICIES) + 4)
    assert [r["seed"] for r in runs] == sorted(r["seed"] for r in runs)
    orders = [[r.get("policy") for r in runs if r["seed"] == s] for s in SEEDS]
    assert orders[0] != orders[1]


def test_the_record_is_whole_and_says_what_the_lesson_says():
    found = json.loads((results / "cutting.json").read_text(encoding="utf-8"))
    assert found["settings"] == SETTINGS and found["seeds"] == list(SEEDS)
    runs = {tuple(r.get(k) for k in ("policy", "corpus", "side", "seed")): r for r in found["runs"]}
    assert len(runs) == len(found["runs"]) == len(SEEDS) * (len(POLICIES) + 4)
    tokens = [r["tokens"] for r in found["runs"] if r["part"] == "policies"]
    assert max(tokens) / min(tokens) < 1.01
    for seed in SEEDS:
        of = {p: runs[p, None, None, seed] for p in POLICIES}
        gap = of["truncate"]["bits_per_byte"] - of["concatenate"]["bits_per_byte"]
        assert 0 < gap < 0.02 * of["concatenate"]["bits_per_byte"]
        assert of["truncate"]["first_31"] == min(run["first_31"] for run in of.values())
        assert of["truncate"]["late"] == max(run["late"] for run in of.values())
        assert of["per_document"]["eos"] > 2 * max(of[p]["eos"] for p in POLICIES if p != "per_document")
        for kind in ("3-gram", "6-gram", "transformer"):
            leaky, clean = (runs[None, "real", side, seed][kind] for side in ("leaky", "clean"))
            assert 0.05 < clean - leaky < 0.25
