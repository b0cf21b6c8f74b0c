"What lesson 5 says of SmolLM2 on film reviews holds in the record, and the record has its settings."
import json
from types import SimpleNamespace

import pytest
import torch

from benchmarks.experiments.smollm2_tuned import FILMS, RESULTS, VERDICTS, Verdicts
from benchmarks.bench import rounded

FOUND = json.loads(RESULTS.read_text(encoding="utf-8"))["films"]
ROWS = [r for r in FOUND["rows"] if "test" in r]
UNTOUCHED = ROWS[0]


def of(method, seed=0):
    return {r["rate"]: r for r in ROWS if r["method"] == method and r["seed"] == seed
            and r["tokens"] == FILMS["tokens"]}


def best(method, seed=0): return min(of(method, seed).values(), key=lambda r: r["valid"])


def test_the_record_has_the_settings_of_its_program():
    assert FOUND["settings"] == rounded(FILMS) and FOUND["settings"]["precision"] == "bf16"
    assert UNTOUCHED["method"] == "untouched" and FOUND["weights"] and FOUND["machine"]["date"]


def test_all_weights_gain_at_a_moderate_rate_and_lose_at_a_high_one():
    "50: the rate chosen on valid has a worse one on each side; home gains too; at 0.001 both are worse."
    rows, chosen = of("all weights"), best("all weights")
    assert chosen["rate"] == 3e-4 and min(rows) < 3e-4 < max(rows)
    assert chosen["test"] < UNTOUCHED["test"] and chosen["home"] < UNTOUCHED["home"]
    assert rows[1e-3]["test"] > UNTOUCHED["test"] and rows[1e-3]["home"] > UNTOUCHED["home"]


def test_lora_gains_as_much_as_all_weights_and_costs_less_at_home():
    "55: three seeds of each at its best rate, with worse ones on each side; a fiftieth of the weights."
    lora, full = ([best(method, seed) for seed in FILMS["seeds"]] for method in ("LoRA", "all weights"))
    assert {r["rate"] for r in lora} == {3e-3} and {r["rate"] for r in full} == {3e-4}
    assert min(of("LoRA")) < 3e-3 < max(of("LoRA"))
    assert max(r["test"] for r in lora) < min(r["test"] for r in full) < UNTOUCHED["test"]
    assert max(r["home"] for r in lora) < min(r["home"] for r in full) < UNTOUCHED["home"]
    assert 1/60 < lora[0]["trained"]/full[0]["trained"] < 1/50


def test_the_last_blocks_gain_less():
    chosen = best("last blocks")
    assert best("all weights")["test"] < chosen["test"] < UNTOUCHED["test"]
    assert min(of("last blocks")) < chosen["rate"] < max(of("last blocks"))


@pytest.mark.parametrize("row", ROWS[1:], ids=lambda r: r["name"])
def test_a_row_was_trained_on_what_it_says(row):
    assert row["updates"] == row["tokens"] // (FILMS["chunk"] * FILMS["batch"])
    assert (row["trained"] > 1e8) == (row["method"] == "all weights")


def test_the_manual_gains_though_the_verdict_is_to_leave_it():
    "53: training disagrees with the verdict, use it as it is."
    row = FOUND["rows"][-1] # as the lesson shows it
    assert row["text"] == "manual"
    assert row["after"] < .9*row["before"] and row["rate"] == best("all weights")["rate"]


def test_verdicts_learnt_from_500_labels_are_more_often_right_than_prompts_and_lean_no_more():
    "53: 84.5 % of the prompts' reviews, at the rate that is best on valid; half of the answers are praise."
    record = json.loads(RESULTS.read_text(encoding="utf-8"))["verdicts"]
    assert record["settings"] == rounded(VERDICTS) and record["settings"]["labels"] == 500
    *tried, row = record["rows"]
    assert [r["rate"] for r in tried] == VERDICTS["rates"] and {r["part"] for r in tried} == {"valid"}
    assert row["part"] == "test" and row["rate"] == max(tried, key=lambda r: r["right"])["rate"]
    assert round(100*row["right"], 1) == 84.5 and abs(row["says_positive"] - .5) < .01
    prompts = json.loads((RESULTS.parent/"smollm2.json").read_text(encoding="utf-8"))["prompts"]
    assert prompts["settings"]["reviews"] == VERDICTS["test"]
    assert row["right"] > max(r["right"] for r in prompts["rows"])


def test_a_batch_of_verdicts_scores_only_them():
    parts = Verdicts.__new__(Verdicts)
    parts.tokenizer = SimpleNamespace(pad_token_id=0)
    batch = parts.batch([torch.tensor([5, 6, 7]), torch.tensor([8, 9])])
    assert batch["labels"].tolist() == [[-100, -100, 7], [-100, 9, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
