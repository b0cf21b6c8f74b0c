"""Tests of course_lm.policies: accounts against a program that moves every token by hand, and pictures."""

from collections import Counter

import numpy as np
import pytest

from course_lm.chunking import chunk_dataset
from course_lm.packing import pack_dataset
from course_lm.policies import (
    POLICIES, ChunkReport, _best_fit, chunk_explorer, plan_chunks, policy_table, show_chunks, split_leak)

from .documents import dataset, flat, as_list, random_docs, rng


def test_windows_by_hand():
    def windows(*args):
        plan = plan_chunks(*args)
        return tuple(zip(plan.start.tolist(), plan.stop.tolist()))
    assert windows([9], 3) == ((0, 3), (3, 6), (6, 9))
    assert windows([5, 4], 3, "per_document") == ((0, 3), (5, 8))
    assert windows([5, 4], 3, "pad") == ((0, 3), (3, 5), (5, 8), (8, 9))
    plan = plan_chunks([5, 4], 3, "per_document")
    assert [g.tolist() for g in plan.gaps()] == [[3, 8], [5, 9]]
    assert plan_chunks([5, 3], 3, tail="pad").report.padding == 1
    assert plan_chunks([5, 3], 3, "per_document").report.dropped == 2
    assert plan_chunks([5, 3], 3, stride=2).report.repeated == 2
    assert _best_fit(np.array([4, 7, 2, 6, 3]), 10)[0].tolist() == [1, 0, 2, 1, 0]


def test_a_picture_of_two_documents():
    stream = [11, 12, 13, 14, 0, 21, 22, 0]
    picture = show_chunks([5, 3], 3, tokens=stream).data
    assert picture.count(">chunk ") == 2 and picture.count("document 1, tokens") == 3
    assert "kept 6 of 8 tokens (75.0%)" in picture
    assert "padding" in show_chunks([5, 3], 4, "pad").data


def test_a_table_says_what_the_documents_say():
    lengths = rng.integers(1, 400, 500)
    table = policy_table(lengths, 128)
    whole = lengths // 128
    assert table.loc["per_document", "chunks"] == whole.sum()
    lost = 100 * (lengths % 128).sum() / lengths.sum()
    np.testing.assert_allclose(table.loc["per_document", "tokens dropped %"], lost, atol=1e-3)
    over = 100 * np.maximum(0, lengths - 128).sum() / lengths.sum()
    np.testing.assert_allclose(table.loc["truncate", "tokens dropped %"], over, atol=1e-3)
    assert table.loc["truncate", "chunks"] == 500
    assert table.loc["concatenate", "chunks"] == lengths.sum() // 128
    assert table.loc["concatenate", "tokens dropped %"] < 0.2 and table.loc["pack", "tokens dropped %"] == 0
    assert table.loc["pack", "padding %"] < table.loc["pad", "padding %"] / 2


@pytest.mark.parametrize("batch_size", [1, 2, 10, 500])
def test_per_batch_is_what_group_texts_makes(batch_size):
    docs = [rng.integers(1, 99, n).astype(np.int32) for n in rng.integers(1, 60, 50)]
    def group_texts(batch):
        joined = sum(batch["input_ids"], [])
        return {"input_ids": [joined[i : i + 16] for i in range(0, len(joined) // 16 * 16, 16)]}
    made = dataset(as_list(docs)).map(group_texts, batched=True, batch_size=batch_size)
    plan = plan_chunks(list(map(len, docs)), 16, "per_batch", batch_size=batch_size)
    stream = flat(docs)
    assert made["input_ids"][:] == [stream[a:b].tolist() for a, b in zip(plan.start, plan.stop)]


def test_a_leak_by_hand():
    assert split_leak([4] * 100, 4) == 0  # a chunk is a document: none is torn
    assert split_leak([400] * 10, 4) == 1
    assert split_leak(rng.integers(50, 400, 2000), 64) > 0.9


def slow_report(lengths, size, policy, tail, step, per):
    "Move every token by hand."
    docs = [[(d, i) for i in range(n)] for d, n in enumerate(lengths)]
    def cut(stream, tail):
        out, i = [], 0
        while i + size <= len(stream): out, i = [*out, stream[i:i+size]], i + step
        covered = i - step + size if out else 0
        return out + ([stream[i:]] if tail != "drop" and len(stream) > covered else [])
    chunks = {
        "concatenate": lambda: cut(sum(docs, []), tail),
        "per_batch": lambda: [
            c for i in range(0, len(docs), per) for c in cut(sum(docs[i : i + per], []), "drop")
        ],
        "per_document": lambda: [c for d in docs for c in cut(d, "drop")],
        "pad": lambda: [c for d in docs for c in cut(d, "pad")],
        "truncate": lambda: [d[:size] for d in docs if d],
    }[policy]()
    held, stored, real = (
        Counter(t for c in chunks for t in c),
        sum(map(len, chunks)),
        [d for d, n in enumerate(lengths) if n],
    )
    whole = [d for d in real if any(sum(t[0] == d for t in c) == lengths[d] for c in chunks)]
    reached = {t[0] for t in held}
    padding = (
        len(chunks) * size - stored
        if policy in ("pad", "truncate") or policy == "concatenate" and tail == "pad"
        else 0
    )
    return ChunkReport(
        policy,
        size,
        len(chunks),
        sum(lengths),
        len(held),
        sum(lengths) - len(held),
        stored - len(held),
        padding,
        stored + padding,
        len(real),
        len(whole),
        len(reached) - len(whole),
        len(real) - len(reached),
        sum(len({t[0] for t in c}) > 1 for c in chunks),
    )


def adds_up(r):
    assert r.kept + r.dropped == r.tokens and r.kept + r.repeated + r.padding == r.positions
    assert r.documents_whole + r.documents_split + r.documents_lost == r.documents


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "pack"])
def test_accounts_equal_those_of_the_slow_program(policy):
    for _ in range(400):
        lengths, size, tail = (
            rng.integers(0, 12, rng.integers(1, 12)).tolist(),
            int(rng.integers(2, 9)),
            ["drop", "keep", "pad"][rng.integers(3)],
        )
        if not sum(lengths): continue
        step, per = (
            int(rng.integers(1, size + 1)) if policy == "concatenate" else size,
            int(rng.integers(1, 5)),
        )
        r = plan_chunks(lengths, size, policy, tail, step, per).report
        assert r == slow_report(lengths, size, policy, tail, step, per)
        adds_up(r)


def test_accounts_are_those_of_the_chunks_themselves():
    for _ in range(50):
        docs, size = random_docs(), int(rng.integers(2, 5))
        for tail in ("drop", "keep", "pad"):
            r, out = (
                plan_chunks(list(map(len, docs)), size, tail=tail).report,
                chunk_dataset(docs, size, tail, pad_id=0),
            )
            assert r.chunks == len(out) and r.positions == sum(map(len, out["input_ids"]))
        r, out = plan_chunks(list(map(len, docs)), size, "pack").report, pack_dataset(docs, size)
        assert r.chunks == len(out) and r.kept == sum(map(sum, out["attention_mask"])) == len(flat(docs))
        adds_up(r)


def slow_best_fit(lengths, size):
    rooms = []
    for n in sorted(lengths, reverse=True):
        fits = [(room, i) for i, room in enumerate(rooms) if room >= n]
        if fits: rooms[min(fits)[1]] -= n
        else: rooms.append(size - n)
    return sorted(rooms)


def test_best_fit_decreasing_is_that_of_the_slow_program():
    for _ in range(500):
        size = int(rng.integers(2, 50))
        lengths = rng.integers(1, size + 1, rng.integers(1, 150))
        bins, n = _best_fit(lengths, size)
        assert sorted((size - np.bincount(bins, lengths, n)).astype(int)) == slow_best_fit(
            lengths.tolist(), size
        )


def test_a_picture_holds_every_chunk_and_is_safe():
    for policy in POLICIES:
        picture = show_chunks([5, 9, 2, 30], 4, policy, max_chunks=99)
        assert picture.data.count(">chunk ") == plan_chunks([5, 9, 2, 30], 4, policy).report.chunks
        assert (
            ">dropped<" in picture.data
            if plan_chunks([5, 9, 2, 30], 4, policy).report.dropped
            else ">dropped<" not in picture.data
        )
    picture = show_chunks([3], 2, tokens=["<b>", '"x"', "&"], tail="keep").data
    assert (
        "<b>" not in picture and "&lt;b&gt;" in picture and "&quot;x&quot;" in picture and "&amp;" in picture
    )
    assert "84 more" in show_chunks([200], 2).data


def test_the_explorer_redraws():
    explorer = chunk_explorer([20, 30, 5], chunk_size=8)
    (size, policy), (tail, eos), picture = (
        explorer.children[0].children,
        explorer.children[1].children,
        explorer.children[2],
    )
    seen = {picture.value}
    for control, value in ((size, 10), (tail, "pad"), (eos, False), (policy, "pack"), (policy, "truncate")):
        control.value = value
        assert picture.value not in seen
        seen.add(picture.value)


def test_what_is_no_length_and_no_policy():
    with pytest.raises(ValueError, match="policy='guess' must be 'concatenate', 'pack'"):
        plan_chunks([5, 3], 3, "guess")
    with pytest.raises(ValueError, match="not one token"): plan_chunks([], 3)
    with pytest.raises(ValueError, match="a length is negative"): plan_chunks([5, -1], 3)
    with pytest.raises(ValueError, match="valid=1.5 must be a number above 0 and below 1"):
        split_leak([5, 3], 3, valid=1.5)
    for bad in ([[1, 2], [3]], [1.5], "ab", None):
        with pytest.raises(TypeError, match="lengths="): plan_chunks(bad, 3)
    for call in (show_chunks, chunk_explorer, policy_table, split_leak):
        with pytest.raises(ValueError, match="chunk_size=1 must be"): call([5, 3], 1)


def test_lengths_of_a_data_set():
    docs = random_docs()
    ds = dataset(as_list(docs))
    assert plan_chunks(ds, 3).report == plan_chunks(list(map(len, docs)), 3).report
    assert show_chunks(ds, 3).data == show_chunks(list(map(len, docs)), 3).data
    assert policy_table(ds, 3).equals(policy_table(np.array(list(map(len, docs)), np.int32), 3))


def test_truncated_packing_keeps_the_beginnings():
    plan = plan_chunks([7, 2, 3], 4, "pack", long="truncate")
    assert plan.report.kept == 4+2+3 and plan.report.dropped == 3 and plan.report.chunks == 3


def test_leak_of_a_random_split():
    assert split_leak([1000], 10, .3) == 1
    assert split_leak([10] * 100, 10) == 0
    assert split_leak([400] * 10, 4) == 1
    assert .3 < split_leak([20] * 2000, 10, .5) < .7
