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


def test_the_log_odds_of_a_review_are_the_mean_of_its_windows():
    logits = torch.tensor([[2., -1.], [0., 3.], [1., 1.5]])
    model = distil.soft(SimpleNamespace(forward=lambda **batch: SimpleNamespace(logits=logits)))
    p, odds = torch.tensor([.25, .9]), torch.tensor([(-3. + 3.)/2, .5])
    by_hand = -(p*odds.sigmoid().log() + (1-p)*(-odds).sigmoid().log()).mean()
    asked = model.forward(labels=(p*distil.MILLION).round().long(), review=torch.tensor([0, 0, 1]))
    torch.testing.assert_close(asked.loss, by_hand)


def test_a_review_is_its_last_windows_and_its_tokens_stay_in_order():
    from course_lm.models import load_lm
    tokenizer = load_lm("tiny-bert", "masked")[1]
    texts = ["Short and good.", " ".join(f"word {i}" for i in range(300))]
    whole = tokenizer(texts)["input_ids"]
    short, long = distil.pieces(texts, tokenizer, 2)
    assert [list(ids) for ids in short] == [whole[0]] and [len(ids) for ids in long] == [distil.SIDE]*2
    assert list(long[-1])[1:] == whole[1][-distil.SIDE+1:]
    (tail,) = distil.pieces(texts, tokenizer, 1)[1]
    assert list(tail) == list(long[-1])
    batch = distil.window_batch([dict(windows=short, label=1.), dict(windows=long, label=.25)], tokenizer)
    assert batch["review"].tolist() == [0, 1, 1] and batch["labels"].tolist() == [1_000_000, 250_000]
    assert batch["input_ids"].shape == (3, distil.SIDE) and batch["attention_mask"][0].sum() == len(short[0])


def test_log_odds_undo_the_logistic_function():
    odds = np.array([-3., 0., .5, 12.])
    np.testing.assert_allclose(distil.log_odds(1/(1+np.exp(-odds))), odds, rtol=1e-4)


def test_what_lesson_61_says_of_a_taught_tiny_bert():
    by_one, by_both = json.loads(distil.RESULTS.read_text(encoding="utf-8"))["rows"]
    assert {(r["reviews"], r["labelled"]) for r in (by_one, by_both)} == {(70_000, 20_000)}
    assert (by_one["teacher"], by_one["epochs"], by_one["windows"]) == ("NB-SVM", 1, 1)
    low, high = by_one["interval"]
    assert round(100*by_one["test_accuracy"], 1) == 89.6 and low < .8888 < high


def test_taught_by_both_tiny_bert_passes_nbsvm():
    def record(name): return json.loads((distil.RESULTS.parent/f"{name}.json").read_text(encoding="utf-8"))
    row = record("distilled")["rows"][1]
    assert (row["teacher"], row["epochs"], row["windows"]) == ("NB-SVM and MiniLM", 2, 4)
    nbsvm = next(r for r in record("imdb")["runs"] if r["name"] == "NB-SVM" and r["split"] == "movie"
                 and r["train_reviews"] == row["labelled"])
    tuned = next(r for r in record("minilm_tuned")["runs"] if r["labels"] == row["labelled"])
    low, high = row["interval"]
    assert round(100*row["test_accuracy"], 1) == 91.6 and nbsvm["test_accuracy"] < row["test_accuracy"]
    assert low < tuned["test_accuracy"] < high # as good, as far as these reviews can tell
    assert max(row["valid_accuracy"]) > row["valid_last_window"] + .01


def test_what_lesson_72_says_of_a_larger_model():
    found = json.loads(reach.RESULTS.read_text(encoding="utf-8"))
    small, large = found["models"]["tiny-gpt"], found["models"]["smollm2"]
    assert found["reviews"] == reach.N == reach.PART*len(small["nats"]) == reach.PART*len(large["nats"])
    assert round(small["bits_per_byte"], 2) == 1.45 and round(large["parameters"]/small["parameters"]) == 51
    assert .12 < 1 - large["bits_per_byte"]/small["bits_per_byte"] < .135
