"""Every public function has a valid call."""
import pytest

from tests.fuzz.found import EXEMPT, Target, exempt, targets
from tests.fuzz.running import judge, names_it, run
from tests.fuzz.values import KINDS


def test_every_public_function_has_a_valid_call_with_all_its_arguments(calls):
    tried = {}
    for c in calls: tried.setdefault(c.name, set()).update(c.args)
    assert set(tried) <= set(targets())
    missing = {name: lacking(t, tried.get(name, ())) for name, t in targets().items()}
    assert not {name: some for name, some in missing.items() if some}
    assert len({c.title for c in calls}) == len(calls)


def lacking(target, tried):
    return [p for p, q in target.parameters.items()
            if q.kind not in (q.VAR_KEYWORD, q.VAR_POSITIONAL) and p not in tried]


def test_what_is_public_is_found():
    assert len(targets()) > 180 and len(EXEMPT) <= 5
    assert {"chunking:chunk_ids", "streaming:ChunkStream.load_state_dict"} <= set(targets())
    assert not exempt("labels:LMCollator") and exempt("support.checks:Whole")
    assert exempt("homework.bank_10:perplexity") and not exempt("homework:check.all")
    assert "homework:check.all" in targets() and "homework:ExerciseCheck.__call__" in targets()
    assert list(Target("m:f", targets).parameters) == []


def test_valid_calls_are_valid(w, calls):
    found = list(run(w, [(c, None, None) for c in calls]))
    assert not [r for r in found if r["outcome"] != "accepted"]


# ---- the test of the test

@pytest.mark.parametrize("message, argument, kind, named", [
    ("f: n=-1 must be at least 1", "n", "-1", True), ("f: it must be at least 1", "n", "-1", False),
    ("f: no such file: abc", "source", "'abc'", True), ("the 30 rows", "x", "0", False),
    ("must be a whole number, not 2.5", "x", "2.5", True), ("not like 12.5", "x", "2.5", False)])
def test_when_a_message_names_something(message, argument, kind, named):
    assert names_it(dict(message=message, argument=argument, kind=kind)) is named


def test_judgements():
    told = dict(outcome="raised", error="ValueError", raised=True, message="n=0", argument="n", kind="0")
    assert judge(told) == "named" and judge(told | dict(message="bad")) == "vague"
    assert judge(told | dict(error="KeyError")) == judge(told | dict(raised=False)) == "foreign"
    assert judge(dict(outcome="hang")) == "hang" and len(KINDS) == 37
