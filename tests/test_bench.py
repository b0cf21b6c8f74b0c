"What the benchmarks share: ways that take turns, and results that are kept."
import json
from collections import Counter

import pytest

from benchmarks import bench


@pytest.fixture(autouse=True)
def no_garbage(monkeypatch):
    "Collecting it takes a second in a process that holds all of PyTorch."
    monkeypatch.setattr(bench.gc, "collect", lambda: None)


def test_every_way_has_its_turn_in_every_round():
    calls = []
    ways = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = bench.interleaved(ways, 5)
    rounds = [calls[i:i+3] for i in range(0, 15, 3)]
    assert len(calls) == 15 and all(sorted(r) == list("abc") for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1, "the order is shuffled"
    assert all(len(t.wall) == len(t.cpu) == 5 for t in times.values())
    calls.clear()
    bench.interleaved(ways, 5)
    assert [calls[i:i+3] for i in range(0, 15, 3)] == rounds, "the same order again"


def test_a_quick_way_is_called_more_often():
    count = Counter()
    def quick(): count["quick"] += 1
    def slow():
        count["slow"] += 1
        sum(range(200_000))
    times = bench.interleaved({"quick": quick, "slow": slow}, 2, fill=.002)
    assert len(times["quick"].wall) == 2*50 and len(times["slow"].wall) == 2
    assert count["quick"] == 2 + 100 and count["slow"] == 2 + 2, "two calls before the first round"


def test_times_are_medians():
    t = bench.Times([3., 1., 2.], [.3, .1, .9])
    assert (t.seconds, t.cpu_seconds, t.fastest) == (2., .3, 1.)


def test_what_is_kept_is_whole(tmp_path):
    path = tmp_path / "new" / "found.json"
    assert bench.kept(path) == {}
    bench.keep({"a": 1}, path)
    with pytest.raises(TypeError): bench.keep({"a": object()}, path)
    assert bench.kept(path) == {"a": 1} and [p.name for p in path.parent.iterdir()] == ["found.json"]
    assert json.loads(path.read_text()) == {"a": 1}


def test_rounded_reaches_everything():
    assert bench.rounded({"a": [1.23456789, (2, "x")], "b": 3}) == {"a": [1.23457, [2, "x"]], "b": 3}


def test_a_table_lines_up(capsys):
    bench.show("Title", [{"way": "a", "n": 1_000, "s": .123456}, {"way": "bcd", "n": 2, "s": 1.}])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines == ["Title", "way  n      s     ", "a    1,000  0.1235", "bcd      2       1"]


def test_machine_says_what_it_ran_on():
    found = bench.machine("numpy")
    assert set(found) >= {"cpu", "cores", "load", "python", "numpy", "date"} and found["cores"] >= 1


def test_what_the_caller_has_set_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    bench.prepare(offline=False, threads=1)
    import os
    assert os.environ["OMP_NUM_THREADS"] == "7" and "HF_HUB_OFFLINE" not in os.environ
