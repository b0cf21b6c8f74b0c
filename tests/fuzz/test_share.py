"""A seeded share of the odd calls: each refusal is our own sentence, nearly all name the argument.

`FUZZ_SEED=7 python -m pytest tests/fuzz/test_share.py` draws another one; `python -m tests.fuzz --all` tries
all of them.
"""
import os

import pytest

from tests.fuzz.__main__ import table
from tests.fuzz.running import run, share
from tests.fuzz.values import KINDS


@pytest.fixture(scope="module")
def found(w, calls):
    "What came of about a tenth of all odd calls."
    return [*run(w, share(calls, int(os.environ.get("FUZZ_SEED", 0))))]


def verdict(found, *names):
    return [(r["call"], r["argument"], r["kind"], r.get("error"), r.get("message", "")[:200], r.get("where"))
            for r in found if r["verdict"] in names]


@pytest.mark.slow
def test_no_odd_call_hangs_dies_or_ends_in_an_error_that_is_not_ours(found):
    assert not verdict(found, "hang", "died", "foreign"), table(found)


@pytest.mark.slow
def test_refusals_name_the_argument(found):
    vague = verdict(found, "vague")
    assert len(vague) < .05*len(verdict(found, "named", "vague")), vague


def test_a_share_has_every_argument_and_is_drawn_by_its_seed(calls):
    some = share(calls)
    assert {(c.title, name) for c, name, _ in some} == {(c.title, name) for c in calls for name in c.args}
    assert some == share(calls) != share(calls, 1) and {kind for *_, kind in some} == {*KINDS}
