"`benchmarks.experiments.distil` and `reach`: the loss of soft labels, and what lessons say of the records."
import json
from types import SimpleNamespace

import numpy as np
import torch

from benchmarks.experiments import distil, reach


def test_soft_labels_cost_what_the_two_classes_cost_by_their_shares():
    logits = torch.tensor([[2., -1.], [0., 3.]])
    model = distil.soft(SimpleNamespace(forward=lambda **batch: SimpleNamespace(logits=logits)))
    p = torch.tensor([.25, .9])
    costs = -logits.log_softmax(1)
    by_hand = ((1-p)*costs[:, 0] + p*costs[:, 1]).mean()
    asked = model.forward(labels=(p*distil.MILLION).round().long(), input_ids=None)
    torch.testing.assert_close(asked.loss, by_hand)
    assert not hasattr(model.forward(input_ids=None), "loss")


def test_log_odds_undo_the_logistic_function():
    odds = np.array([-3., 0., .5, 12.])
    np.testing.assert_allclose(distil.log_odds(1/(1+np.exp(-odds))), odds, rtol=1e-4)


def test_what_lesson_61_says_of_a_taught_tiny_bert():
    row, = json.loads(distil.RESULTS.read_text(encoding="utf-8"))["rows"]
    assert (row["teacher"], row["reviews"], row["labelled"], row["epochs"]) == ("NB-SVM", 70_000, 20_000, 1)
    low, high = row["interval"]
    assert round(100*row["test_accuracy"], 1) == 89.6 and low < .8888 < high


def test_what_lesson_72_says_of_a_larger_model():
    found = json.loads(reach.RESULTS.read_text(encoding="utf-8"))
    small, large = found["models"]["tiny-gpt"], found["models"]["smollm2"]
    assert found["reviews"] == reach.N == reach.PART*len(small["nats"]) == reach.PART*len(large["nats"])
    assert round(small["bits_per_byte"], 2) == 1.45 and round(large["parameters"]/small["parameters"]) == 51
    assert .12 < 1 - large["bits_per_byte"]/small["bits_per_byte"] < .135
