"""Tests of course_lm.chunking against slow, obvious programs, on every way that Arrow may store documents."""
import json
import logging
import subprocess
import sys
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, load_from_disk

from benchmarks.bench import results
from course_lm.chunking import chunk_dataset, chunk_ids, lm_datasets, shared_documents, tokenize_dataset
from course_lm.data import train_tokenizer
from course_lm.packing import pack_dataset
from course_lm.support.arrow import document_lengths

from .documents import as_list, batches, dataset, flat, ids_of, layouts, random_docs, rng, same


@pytest.mark.parametrize("layout", layouts)
@pytest.mark.parametrize("tail", ["drop", "keep", "pad"])
def test_any_layout_gives_the_stream_cut(layout, tail):
    for _ in range(15):
        docs, size = random_docs(), int(rng.integers(2, 5))
        stride = int(rng.integers(1, size + 1))
        got = chunk_dataset(layouts[layout](docs), size, tail, stride=stride, pad_id=9)
        same(ids_of(got), list(chunk_ids(flat(docs), size, tail, stride, pad_id=9)))
        same(list(document_lengths(layouts[layout](docs))), list(map(len, docs)))
        assert ("attention_mask" in got.column_names) == (tail == "pad")


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.uint16, np.uint32])
def test_the_integers_stay_what_they_were(dtype):
    docs = random_docs(dtype=dtype)
    out = chunk_dataset(dataset(as_list(docs)), 4, eos_id=7)
    assert out.features["input_ids"].feature.dtype == np.dtype(dtype).name
    same(ids_of(out), list(chunk_ids(flat([np.append(d, 7) for d in docs if len(d)]), 4)))


def test_chunks_can_be_chunked_again():
    docs = random_docs(20)
    once = chunk_dataset(dataset(batches(docs)), 4)
    same(ids_of(chunk_dataset(once, 2)), list(chunk_ids(flat(ids_of(once)), 2)))
    same(
        ids_of(chunk_dataset(once.select(range(1, len(once))), 3)), list(chunk_ids(flat(ids_of(once)[1:]), 3))
    )


def test_long_batches_are_views_and_short_ones_are_joined():
    docs = [rng.integers(0, 99, n).astype(np.int32) for n in (70_000, 3, 50_000, 10, 90_000, 1, 1)]
    column = pa.chunked_array([as_list([d]) for d in docs])
    for size in (2, 7, 128, 1000):
        out = chunk_dataset(dataset(column), size)
        same(ids_of(out)[::97], list(chunk_ids(flat(docs), size))[::97])
        assert np.array_equal(flat(ids_of(out)), chunk_ids(flat(docs), size).ravel())
        spans = [(b.values.buffers()[1].address, b.values.buffers()[1].size) for b in column.chunks]
        views = sum(
            len(c) * size
            for c in out.data.column(0).chunks
            if any(a <= address(c.flatten()) < a + n for a, n in spans)
        )
        assert views > 200_000


def address(array): return array.to_numpy().__array_interface__["data"][0]


@pytest.mark.parametrize("stride", [1, 50, 99, 100])
def test_overlapping_chunks_of_long_batches(stride):
    docs = [rng.integers(0, 99, n).astype(np.int32) for n in (20_000, 3, 9_000, 16_000, 1)]
    for eos in (None, 7):
        out = chunk_dataset(
            dataset(pa.chunked_array([as_list([d]) for d in docs])), 100, "keep", stride=stride, eos_id=eos
        )
        same(
            ids_of(out),
            chunk_ids(
                flat(docs if eos is None else [np.append(d, eos) for d in docs]), 100, "keep", stride=stride
            ),
        )


def test_a_memory_mapped_file_stays_on_disk(tmp_path):
    dataset(batches([rng.integers(0, 99, 30_000).astype(np.int32) for _ in range(20)])).save_to_disk(tmp_path)
    ds = load_from_disk(tmp_path)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    out = chunk_dataset(ds, 128)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    tokens = 4 * 600_000
    assert pa.total_allocated_bytes() - before + peak < tokens / 10
    assert np.array_equal(flat(ids_of(out)), chunk_ids(flat(ids_of(ds)), 128).ravel())


@pytest.mark.parametrize("where", ["save", "map", "pickle", "shuffle", "torch"])
def test_what_comes_out_is_a_data_set_like_any_other(where, tmp_path):
    docs = [rng.integers(0, 99, 40_000).astype(np.int32) for _ in range(3)]
    out = chunk_dataset(dataset(pa.chunked_array([as_list([d]) for d in docs])), 100)
    want = ids_of(out)
    if where == "save":
        out.save_to_disk(tmp_path)
        same(ids_of(load_from_disk(tmp_path)), want)
    if where == "map": same(ids_of(out.map(lambda b: {"labels": b["input_ids"]}, batched=True)), want)
    if where == "pickle":
        import pickle
        again = pickle.loads(pickle.dumps(out))
        same(ids_of(again), want)
        assert len(pickle.dumps(out)) < 3 * sum(d.nbytes for d in docs)
    if where == "shuffle": assert sorted(map(tuple, ids_of(out.shuffle(seed=1)))) == sorted(map(tuple, want))
    if where == "torch": assert np.array_equal(out.with_format("torch")[5:9]["input_ids"].numpy(), want[5:9])


def test_nothing_is_copied_and_the_chunks_end_to_end_are_the_stream():
    ids = np.arange(1000)
    for chunks in (chunk_ids(ids, 128), chunk_ids(ids, 128, stride=64)): assert np.shares_memory(chunks, ids)
    np.testing.assert_array_equal(np.concatenate(chunk_ids(ids, 128, tail="keep")), ids)
    assert chunk_ids(np.arange(4), 4).shape == (1, 4)
    assert chunk_ids([7], 4, tail="pad", pad_id=0).tolist() == [[7, 0, 0, 0]]


@pytest.mark.parametrize("size", [2, 4, 7])
def test_chunks_that_share_an_edge_make_every_token_a_target_once(size):
    chunks = chunk_ids(np.arange(10 * size + 1), size + 1, stride=size)
    assert sorted(chunks[:, 1:].ravel()) == list(range(1, 10 * size + 1))


def test_by_hand_on_eight_tokens():
    stream = [11, 12, 13, 14, 0, 21, 22, 0]
    assert chunk_ids(stream, 3).tolist() == [[11, 12, 13], [14, 0, 21]]
    kept = [c.tolist() for c in chunk_ids(stream, 3, tail="keep")]
    assert kept == [[11, 12, 13], [14, 0, 21], [22, 0]]
    assert chunk_ids(stream, 3, tail="pad", pad_id=99).tolist()[2] == [22, 0, 99]


def test_group_texts_cuts_the_same_until_its_first_batch_ends():
    ds = dataset(as_list([rng.integers(1, 99, n).astype(np.int32) for n in rng.integers(1, 60, 40)]))
    def group_texts(batch):
        joined = sum(batch["input_ids"], [])
        return {"input_ids": [joined[i : i + 16] for i in range(0, len(joined) // 16 * 16, 16)]}
    ours = chunk_dataset(ds, 16)["input_ids"][:]
    assert ds.map(group_texts, batched=True, batch_size=40)["input_ids"][:] == ours
    halves = ds.map(group_texts, batched=True, batch_size=20)["input_ids"][:]
    first = int(document_lengths(ds)[:20].sum()) // 16
    assert halves[:first] == ours[:first] and len(halves) <= len(ours)


def test_specials_count_in_the_chunk_size():
    for tail in ("drop", "keep", "pad"):
        docs, specials = random_docs(), ([101, 102], [103])
        got = ids_of(chunk_dataset(docs, 8, tail, specials=specials, pad_id=0, stride=3))
        text = (
            chunk_ids(flat(docs), 5, "drop" if tail == "drop" else "keep", stride=3)
            if len(flat(docs)) >= 5 or tail != "drop"
            else []
        )
        want = [np.concatenate([[101, 102], c, [103]]) for c in text]
        if tail == "pad": want = [np.append(c, [0] * (8 - len(c))) for c in want]
        same(got, want)
    with pytest.raises(ValueError, match="too small for 3 special tokens"):
        chunk_dataset(docs, 4, specials=specials)


def test_an_attention_mask_says_where_the_tokens_are():
    docs = random_docs(20)
    out = chunk_dataset(docs, 7, "pad", pad_id=0)
    assert sum(map(sum, out["attention_mask"])) == len(flat(docs))
    assert {len(m) for m in out["attention_mask"]} == {7} and out.features[
        "attention_mask"
    ].feature.dtype == "int8"


def test_same_source_same_arguments_same_fingerprint():
    docs = random_docs(20)
    prints = {
        chunk_dataset(dataset(batches(docs)), 3, **kw)._fingerprint
        for kw in (
            {},
            {},
            dict(stride=2),
            dict(eos_id=1),
            dict(tail="keep"),
            dict(specials=([1], [])),
            dict(tail="pad", pad_id=0),
            dict(tail="pad", pad_id=1),
        )
    }
    assert len(prints) == 7
    copies = [d.copy() for d in docs]
    first, same_again, fewer = (chunk_dataset(d, 3)._fingerprint for d in (docs, copies, docs[:-1]))
    assert first == same_again and first != fewer


def test_a_dict_of_splits_keeps_its_splits():
    both = DatasetDict(train=dataset(batches(random_docs(20))), valid=dataset(batches(random_docs(20))))
    for out in (chunk_dataset(both, 4), pack_dataset(both, 4)):
        assert list(out) == ["train", "valid"] and isinstance(out, DatasetDict)


@pytest.mark.parametrize(
    "bad, error, text",
    [
        (pa.array([[1, 2], None]), ValueError, "without a value"),
        (pa.array([[1, None]]), ValueError, "without a value"),
        (pa.array([[1.0, 2.0]]), TypeError, "whole numbers"),
        (pa.array([1, 2]), TypeError, "lists of token ids"),
        (pa.array(["ab"]), TypeError, "lists of token ids"),
    ],
)
def test_bad_columns_are_named(bad, error, text):
    with pytest.raises(error, match=text): chunk_dataset(pa.table({"input_ids": bad}), 2)


def test_other_bad_input():
    ds = dataset(as_list(random_docs()))
    with pytest.raises(ValueError, match="no column 'input_ids'"):
        chunk_dataset(Dataset.from_dict({"text": ["a"]}), 2)
    with pytest.raises(TypeError, match="see chunk_stream"): chunk_dataset(ds.to_iterable_dataset(), 2)
    for bad in (0, 1, -5, 1e30, int(1e30), 10**9):
        with pytest.raises(ValueError, match="chunk_size="): chunk_dataset(ds, bad)
    for bad in (2.0, "4", None, True):
        with pytest.raises(TypeError, match="whole number"): chunk_dataset(ds, bad)
    with pytest.raises(ValueError, match="tail='cut'"): chunk_dataset(ds, 2, tail="cut")
    with pytest.raises(ValueError, match="fewer than one chunk"): chunk_dataset([[]], 2)
    with pytest.raises(ValueError, match=r"ds=\[\] must be rows of token ids"):
        chunk_dataset([], 2, tail="keep")
    with pytest.raises(ValueError, match="holds 3 tokens, fewer than one chunk of chunk_size=4"):
        chunk_ids(np.arange(3), 4)
    with pytest.raises(ValueError, match="stride=5 is more than chunk_size=4: it jumps over tokens"):
        chunk_ids(np.arange(9), 4, stride=5)
    for stride, error in ((0, ValueError), (1.5, TypeError), ("2", TypeError)):
        with pytest.raises(error, match="stride="): chunk_ids(np.arange(9), 4, stride=stride)
        with pytest.raises(error, match="stride="): chunk_dataset(ds, 4, stride=stride)
    with pytest.raises(ValueError, match="needs a pad_id"): chunk_ids(np.arange(9), 4, tail="pad")
    with pytest.raises(ValueError, match=r"ids=.* it is of shape \(2, 2\)"): chunk_ids([[1, 2], [3, 4]], 2)
    with pytest.raises(TypeError, match="ids=.*float64"): chunk_ids(np.ones(4), 2)
    with pytest.raises(ValueError, match="fewer than one chunk of chunk_size=4096"): chunk_dataset(ds, 4096)
    with pytest.raises(ValueError, match="already ends with eos_id=0"):
        chunk_dataset([[1, 0], [2, 3, 0]], 2, eos_id=0)
    with pytest.raises(ValueError, match="longer than the 64 tokens"): chunk_dataset(ds, 128, model=64)
    with pytest.raises(TypeError, match=r"ds\[0\]=.*float64"): chunk_dataset([[0.5, 1.5]], 2)
    for bad in ("auto", 3, [[1], ["a"]], [[1]]):
        with pytest.raises((TypeError, ValueError), match="specials"): chunk_dataset(ds, 8, specials=bad)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["the film was good and the end was bad", "a long and slow film"] * 5, 300)


def test_tokenising_every_kind_of_data_set(tokenizer, caplog, recwarn):
    tokenizer.model_max_length = 4
    texts = ["the film was good " * 9, "", "bad", "slow"]
    want = [
        (t := tokenizer(x, add_special_tokens=False, verbose=False)["input_ids"]) + [0] * bool(t)
        for x in texts
    ]
    ds = Dataset.from_dict({"text": texts, "label": [0, 1, 0, 1]})
    caplog.clear()
    assert tokenize_dataset(texts, tokenizer)["input_ids"] == want
    assert tokenize_dataset(ds, tokenizer, num_proc=2)["input_ids"] == want
    assert tokenize_dataset(DatasetDict(a=ds), tokenizer)["a"]["input_ids"] == want
    assert [r["input_ids"] for r in tokenize_dataset(ds.to_iterable_dataset(), tokenizer)] == want
    assert tokenize_dataset(ds, tokenizer, keep=["label"])["label"] == [0, 1, 0, 1]
    assert (
        tokenize_dataset(ds.rename_column("text", "body"), tokenizer, text_column="body")["input_ids"] == want
    )
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    tokenizer.model_max_length = int(1e30)


def test_each_document_ends_with_one_eos_and_is_its_text_again(tokenizer):
    texts = ["the film was good", "the end was bad and slow"]
    out = tokenize_dataset(texts, tokenizer)
    assert out.features["input_ids"].feature.dtype == "int32"
    for row, text in zip(out["input_ids"], texts):
        assert row.count(tokenizer.eos_token_id) == 1 and row[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(row[:-1]) == text
    bare = tokenize_dataset(texts * 9, tokenizer, add_eos=False)
    put_in = chunk_dataset(bare, 8, eos_id=tokenizer.eos_token_id)
    assert put_in[:] == chunk_dataset(tokenize_dataset(texts * 9, tokenizer), 8)[:]
    ds = Dataset.from_dict({"text": texts, "label": [0, 1]})
    assert tokenize_dataset(ds, tokenizer, keep=["label"]).column_names == ["label", "input_ids"]


def test_a_length_that_nobody_knows_and_one_that_is_too_long(tokenizer):
    from course_lm.models import new_model, tiny_gpt_config
    texts = tokenize_dataset(["the film was good " * 60], tokenizer)
    unknown = train_tokenizer(["a few words"], 300).model_max_length
    with pytest.raises(ValueError, match="choose a number such as 128"): chunk_dataset(texts, unknown)
    model = new_model(tiny_gpt_config(tokenizer, 1, 1, 8, max_length=32))
    with pytest.raises(ValueError, match="longer than the 32 tokens"): chunk_dataset(texts, 64, model=model)


def test_tokenising_bad_input(tokenizer):
    with pytest.raises(ValueError, match="no column 'text'.*'body'"):
        tokenize_dataset(Dataset.from_dict({"body": ["a"]}), tokenizer)
    with pytest.raises(TypeError, match=r"ds\[1\]=3 must be a str"): tokenize_dataset(["a", 3], tokenizer)
    with pytest.raises(TypeError, match=r"ds\['text'\]\[1\]=None must be a str: leave missing texts out"):
        tokenize_dataset(Dataset.from_dict({"text": ["a", None]}), tokenizer)
    bare = train_tokenizer(["the film was good"]*5, 300)
    bare.eos_token = None
    with pytest.raises(ValueError, match="needs a tokenizer with an eos_token"): tokenize_dataset(["a"], bare)
    assert tokenize_dataset(["a"], bare, add_eos=False)["input_ids"] == [bare("a").input_ids]
    with pytest.raises(TypeError, match="it is one str: put it in a list"): tokenize_dataset("a", tokenizer)
    with pytest.raises(TypeError, match="tokenizer=.*load it first"): tokenize_dataset(["a"], "gpt2")
    with pytest.raises(TypeError, match=r"ds\[1500\]=None must be a str"):
        tokenize_dataset(["a"] * 1500 + [None], tokenizer)
    with pytest.raises(TypeError, match="add_eos='no' must be True or False"):
        tokenize_dataset(["a"], tokenizer, add_eos="no")


def test_train_and_valid_never_mix(tokenizer):
    train, valid = [f"film {i} was good" for i in range(20)], [f"film {i} was bad" for i in range(20)]
    both = lm_datasets(train, valid, tokenizer, 8)
    assert list(both) == ["train", "valid"] and {len(r) for r in both["valid"]["input_ids"]} == {8}
    for on_shared, n in (("drop", 1), ("ignore", 0)):
        out = lm_datasets([*train, valid[3], " "], [*valid, " "], tokenizer, 8, on_shared=on_shared)
        want = chunk_dataset(tokenize_dataset([*train, " "] if n else [*train, valid[3], " "], tokenizer), 8)
        assert out["train"]["input_ids"] == want["input_ids"]
    with pytest.raises(ValueError, match="2 of the 22 documents of train are also in valid"):
        lm_datasets([*train, *valid[:2]], valid, tokenizer, 8)
    with pytest.raises(ValueError, match="on_shared='maybe'"):
        lm_datasets(train, valid, tokenizer, 8, on_shared="maybe")
    assert "attention_mask" in lm_datasets(train, valid, tokenizer, 8, tail="pad")["train"].column_names
    with pytest.raises(ValueError, match="fewer than one chunk"): lm_datasets(["a"], ["b"], tokenizer, 128)
    with pytest.raises(TypeError, match="train='a' must be a list of str"):
        lm_datasets("a", ["b"], tokenizer, 128)
    with pytest.raises(TypeError, match=r"not \['eos'\]"): lm_datasets(train, valid, tokenizer, 8, eos=True)
    short = train_tokenizer(train, 300)
    short.model_max_length = 7
    with pytest.raises(ValueError, match="longer than the 7 tokens"): lm_datasets(train, valid, short, 8)
    body = [Dataset.from_dict({"body": texts}) for texts in (train, valid)]
    other = lm_datasets(*body, tokenizer, 8, text_column="body", add_eos=False)
    assert tokenizer.eos_token_id not in sum(other["train"]["input_ids"][:], [])


def test_a_copy_with_other_white_space_is_a_copy():
    assert shared_documents(["a film", " ", "b"], ["a  film\n", " "]) == [0]
    assert shared_documents(["a", " ", "b"], ["b", " "]) == [2]
    assert (
        shared_documents(
            Dataset.from_dict({"text": ["a", None, ""]}), Dataset.from_dict({"text": [None, ""]})
        )
        == []
    )


def test_a_masked_tokenizer_dresses_every_chunk():
    masked = train_tokenizer(["the film was good"] * 3, 300, masked=True)
    both = lm_datasets(["the film was good " * 20], ["bad " * 40], masked, 16)
    for row in both["train"]["input_ids"]: assert (row[0], row[-1], row.count(2), len(row)) == (2, 3, 1, 16)
    ids = tokenize_dataset(["the film was good " * 20], masked)
    inside = np.array(chunk_dataset(ids, 16, specials=masked)["input_ids"])[:, 1:-1]
    np.testing.assert_array_equal(inside, np.array(chunk_dataset(ids, 14)["input_ids"]))
    bare = lm_datasets(["the film was good " * 20], ["bad " * 40], masked, 16, specials=None)
    assert not any(2 in row for row in bare["train"]["input_ids"])


def test_nothing_heavy_is_imported():
    heavy = "torch", "datasets", "transformers", "pandas", "matplotlib", "fastcore", "IPython"
    code = f"import course_lm.chunking, sys; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_the_recorded_runs_say_what_the_lesson_says_of_them():
    found = json.loads((results / "chunking.json").read_text(encoding="utf-8"))
    lost = {(r["chunk_size"], r["policy"]): r["tokens dropped %"] for r in found["policies"]["table"]}
    assert abs(lost[128, "per_document"] - 20) < 1 and lost[512, "per_document"] > 70
    assert lost[128, "concatenate"] < 0.01 and lost[128, "per_batch"] < 0.03
    leaks = {(r["chunk_size"], r["valid"]): r["leaked %"] for r in found["policies"]["leak"]}
    assert leaks[128, 0.1] > 99
    speed = {r["way"]: r for r in found["speed"]["table"]}
    assert speed["chunk_dataset, saved to disk"]["x run_clm"] > 20
    assert speed["chunk_dataset, EOS put in"]["x TRL wrapped"] > 3
    packed = {(r["chunk_size"], r["way"]): r["padding %"] for r in found["packing"]["table"]}
    for size, way in [k for k in packed if k[1].startswith("pack_dataset")]:
        peer = "TRL bfd" if "truncate" in way else "TRL bfd_split"
        assert packed[size, way] <= min(packed[size, peer], packed[size, f"{peer}, one batch"]) + 1e-9
