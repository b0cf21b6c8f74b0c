"What lesson 5 says of SmolLM2 on film reviews holds in the record, and the record has its settings."
import json

import pytest

from benchmarks.experiments.smollm2_tuned import FILMS, RESULTS
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


def test_lora_gains_less_than_all_weights_and_neither_forgets_home():
    "55: LoRA with a fiftieth of the weights; its one rate, beside the best of all weights."
    lora, full = of("LoRA")[1e-3], best("all weights")
    assert full["test"] < lora["test"] < UNTOUCHED["test"] and 1/60 < lora["trained"]/full["trained"] < 1/50
    assert max(lora["home"], full["home"]) < UNTOUCHED["home"]


@pytest.mark.parametrize("row", ROWS[1:], ids=lambda r: r["name"])
def test_a_row_was_trained_on_what_it_says(row):
    assert row["updates"] == row["tokens"] // (FILMS["chunk"] * FILMS["batch"])
    assert (row["trained"] > 1e8) == (row["method"] == "all weights")
