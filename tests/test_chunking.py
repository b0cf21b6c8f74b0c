"Lesson 2 against slow, obvious programs, on random corpora and on every way that Arrow may store them."
import json, logging, subprocess, sys, tracemalloc
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, concatenate_datasets, load_from_disk
from datasets.table import InMemoryTable

from course_lm.support.arrow import document_lengths
from course_lm.chunking import chunk_dataset, chunk_ids, lm_datasets, tokenize_dataset
from course_lm.policies import ChunkReport, POLICIES, chunk_explorer, show_chunks, plan_chunks, split_leak
from course_lm.packing import pack_dataset, segment_mask
from course_lm.streaming import chunk_stream, suggest_chunk_size
from course_lm.policies import _best_fit
from course_lm.streaming import _context, _memory
from course_lm.data import train_tokenizer

rng = np.random.default_rng(0)


def random_docs(most=12, longest=40, dtype=np.int32):
    docs = [rng.integers(1, 1000, rng.integers(0, longest)).astype(dtype) for _ in range(rng.integers(1, most))]
    return [np.array([1, 2, 3, 4], dtype), *docs, *[np.zeros(0, dtype)] * rng.integers(0, 3), np.array([5], dtype)]


def flat(docs): return np.concatenate(docs)
def ids_of(ds): return [np.array(row) for row in ds.with_format("arrow")[:]["input_ids"].to_pylist()]
def same(a, b): assert len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b)), (a, b)


# Every way in which Arrow may hold the same documents

def as_list(docs, kind=pa.list_): return pa.array([d.tolist() for d in docs], kind(pa.from_numpy_dtype(docs[0].dtype)))
def dataset(column): return Dataset(InMemoryTable(pa.table({"input_ids": column})), fingerprint="0" * 16)
def batches(docs): return pa.chunked_array([as_list(docs[i:i+3]) for i in range(0, len(docs), 3)])

layouts = {
    "documents": lambda docs: docs,
    "lists": lambda docs: [d.tolist() for d in docs],
    "one batch": lambda docs: dataset(as_list(docs)),
    "batches": lambda docs: dataset(batches(docs)),
    "table": lambda docs: pa.table({"input_ids": batches(docs)}),
    "large_list": lambda docs: dataset(as_list(docs, pa.large_list)),
    "slice": lambda docs: dataset(pa.chunked_array([as_list([docs[0], *docs, docs[0]]).slice(1, len(docs))])),
    "slice of batches": lambda docs: dataset(batches([docs[-1], *docs, docs[0]])).select(range(1, len(docs) + 1)),
    "concatenated": lambda docs: concatenate_datasets([dataset(as_list([d])) for d in docs]),
    "with an empty batch": lambda docs: dataset(pa.chunked_array([as_list(docs[:1]), as_list(docs[:1])[:0], *([as_list(docs[1:])] if docs[1:] else [])])),
    "picked": lambda docs: dataset(batches(docs[::-1])).select(range(len(docs) - 1, -1, -1)),
    "formatted": lambda docs: dataset(batches(docs)).with_format("numpy"),
    "flat field": lambda docs: Dataset.from_dict({"text": ["a"] * len(docs), "input_ids": [d.tolist() for d in docs]}),
}


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
    same(ids_of(chunk_dataset(once.select(range(1, len(once))), 3)), list(chunk_ids(flat(ids_of(once)[1:]), 3)))


def test_long_batches_are_views_and_short_ones_are_joined():
    docs = [rng.integers(0, 99, n).astype(np.int32) for n in (70_000, 3, 50_000, 10, 90_000, 1, 1)]
    column = pa.chunked_array([as_list([d]) for d in docs])
    for size in (2, 7, 128, 1000):
        out = chunk_dataset(dataset(column), size)
        same(ids_of(out)[::97], list(chunk_ids(flat(docs), size))[::97])
        assert np.array_equal(flat(ids_of(out)), chunk_ids(flat(docs), size).ravel())
        spans = [(b.values.buffers()[1].address, b.values.buffers()[1].size) for b in column.chunks]
        views = sum(len(c) * size for c in out.data.column(0).chunks if any(a <= address(c.flatten()) < a + n for a, n in spans))
        assert views > 200_000


def address(array): return array.to_numpy().__array_interface__["data"][0]


@pytest.mark.parametrize("stride", [1, 50, 99, 100])
def test_overlapping_chunks_of_long_batches(stride):
    docs = [rng.integers(0, 99, n).astype(np.int32) for n in (20_000, 3, 9_000, 16_000, 1)]
    for eos in (None, 7):
        out = chunk_dataset(dataset(pa.chunked_array([as_list([d]) for d in docs])), 100, "keep", stride=stride, eos_id=eos)
        same(ids_of(out), chunk_ids(flat(docs if eos is None else [np.append(d, eos) for d in docs]), 100, "keep", stride=stride))


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


def test_specials_count_in_the_chunk_size():
    for tail in ("drop", "keep", "pad"):
        docs, specials = random_docs(), ([101, 102], [103])
        got = ids_of(chunk_dataset(docs, 8, tail, specials=specials, pad_id=0, stride=3))
        text = chunk_ids(flat(docs), 5, "drop" if tail == "drop" else "keep", stride=3) if len(flat(docs)) >= 5 or tail != "drop" else []
        want = [np.concatenate([[101, 102], c, [103]]) for c in text]
        if tail == "pad": want = [np.append(c, [0] * (8 - len(c))) for c in want]
        same(got, want)
    with pytest.raises(ValueError, match="too small for 3 special tokens"): chunk_dataset(docs, 4, specials=specials)


def test_an_attention_mask_says_where_the_tokens_are():
    docs = random_docs(20)
    out = chunk_dataset(docs, 7, "pad", pad_id=0)
    assert sum(map(sum, out["attention_mask"])) == len(flat(docs))
    assert {len(m) for m in out["attention_mask"]} == {7} and out.features["attention_mask"].feature.dtype == "int8"


def test_same_source_same_arguments_same_fingerprint():
    docs = random_docs(20)
    prints = {chunk_dataset(dataset(batches(docs)), 3, **kw)._fingerprint for kw in
              ({}, {}, dict(stride=2), dict(eos_id=1), dict(tail="keep"), dict(specials=([1], [])), dict(tail="pad", pad_id=0), dict(tail="pad", pad_id=1))}
    assert len(prints) == 7
    assert chunk_dataset(docs, 3)._fingerprint == chunk_dataset([d.copy() for d in docs], 3)._fingerprint != chunk_dataset(docs[:-1], 3)._fingerprint


def test_a_dict_of_splits_keeps_its_splits():
    both = DatasetDict(train=dataset(batches(random_docs(20))), valid=dataset(batches(random_docs(20))))
    for out in (chunk_dataset(both, 4), pack_dataset(both, 4)): assert list(out) == ["train", "valid"] and isinstance(out, DatasetDict)


@pytest.mark.parametrize("bad, error, text", [
    (pa.array([[1, 2], None]), ValueError, "without a value"), (pa.array([[1, None]]), ValueError, "without a value"),
    (pa.array([[1.0, 2.0]]), TypeError, "whole numbers"), (pa.array([1, 2]), TypeError, "lists of token ids"), (pa.array(["ab"]), TypeError, "lists of token ids"),
])
def test_bad_columns_are_named(bad, error, text):
    with pytest.raises(error, match=text): chunk_dataset(pa.table({"input_ids": bad}), 2)


def test_other_bad_input():
    ds = dataset(as_list(random_docs()))
    with pytest.raises(ValueError, match="no column 'input_ids'"): chunk_dataset(Dataset.from_dict({"text": ["a"]}), 2)
    with pytest.raises(TypeError, match="see chunk_stream"): chunk_dataset(ds.to_iterable_dataset(), 2)
    for bad in (0, 1, -5, 1e30, int(1e30), 10**9):
        with pytest.raises(ValueError, match="chunk_size="): chunk_dataset(ds, bad)
    for bad in (2.0, "4", None, True):
        with pytest.raises(TypeError, match="whole number"): chunk_dataset(ds, bad)
    with pytest.raises(ValueError, match="tail='cut'"): chunk_dataset(ds, 2, tail="cut")
    with pytest.raises(ValueError, match="fewer than one chunk"): chunk_dataset([[]], 2)
    with pytest.raises(ValueError, match="fewer than one chunk"): chunk_dataset([], 2, tail="keep")


# Accounts

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
        "per_batch": lambda: [c for i in range(0, len(docs), per) for c in cut(sum(docs[i:i+per], []), "drop")],
        "per_document": lambda: [c for d in docs for c in cut(d, "drop")],
        "pad": lambda: [c for d in docs for c in cut(d, "pad")],
        "truncate": lambda: [d[:size] for d in docs if d],
    }[policy]()
    held, stored, real = Counter(t for c in chunks for t in c), sum(map(len, chunks)), [d for d, n in enumerate(lengths) if n]
    whole = [d for d in real if any(sum(t[0] == d for t in c) == lengths[d] for c in chunks)]
    reached = {t[0] for t in held}
    padding = len(chunks) * size - stored if policy in ("pad", "truncate") or policy == "concatenate" and tail == "pad" else 0
    return ChunkReport(policy, size, len(chunks), sum(lengths), len(held), sum(lengths) - len(held), stored - len(held), padding, stored + padding,
                       len(real), len(whole), len(reached) - len(whole), len(real) - len(reached), sum(len({t[0] for t in c}) > 1 for c in chunks))


def adds_up(r):
    assert r.kept + r.dropped == r.tokens and r.kept + r.repeated + r.padding == r.positions
    assert r.documents_whole + r.documents_split + r.documents_lost == r.documents


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "pack"])
def test_accounts_equal_those_of_the_slow_program(policy):
    for _ in range(400):
        lengths, size, tail = rng.integers(0, 12, rng.integers(1, 12)).tolist(), int(rng.integers(2, 9)), ["drop", "keep", "pad"][rng.integers(3)]
        if not sum(lengths): continue
        step, per = int(rng.integers(1, size + 1)) if policy == "concatenate" else size, int(rng.integers(1, 5))
        r = plan_chunks(lengths, size, policy, tail, step, per).report
        assert r == slow_report(lengths, size, policy, tail, step, per)
        adds_up(r)


def test_accounts_are_those_of_the_chunks_themselves():
    for _ in range(50):
        docs, size = random_docs(), int(rng.integers(2, 5))
        for tail in ("drop", "keep", "pad"):
            r, out = plan_chunks(list(map(len, docs)), size, tail=tail).report, chunk_dataset(docs, size, tail, pad_id=0)
            assert r.chunks == len(out) and r.positions == sum(map(len, out["input_ids"]))
        r, out = plan_chunks(list(map(len, docs)), size, "pack").report, pack_dataset(docs, size)
        assert r.chunks == len(out) and r.kept == sum(map(sum, out["attention_mask"])) == len(flat(docs))
        adds_up(r)


# Packing

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
        assert sorted((size - np.bincount(bins, lengths, n)).astype(int)) == slow_best_fit(lengths.tolist(), size)


@pytest.mark.parametrize("layout", ["documents", "batches", "slice of batches", "large_list", "picked"])
def test_every_document_is_packed_once_and_whole(layout):
    for _ in range(60):
        docs, size = random_docs(15, 30), int(rng.integers(2, 40))
        out, found = pack_dataset(layouts[layout](docs), size, pad_id=-1), []
        for row in out:
            ids, segments, positions = (np.array(row[k]) for k in ("input_ids", "segment_ids", "position_ids"))
            assert np.array_equal(row["attention_mask"], segments > 0) and (ids[segments == 0] == -1).all() and (positions[segments == 0] == 0).all()
            for s in range(1, segments.max() + 1):
                assert np.array_equal(positions[segments == s], np.arange((segments == s).sum()))
                found.append(tuple(ids[segments == s]))
        assert sorted(found) == sorted(tuple(d[i:i+size]) for d in docs for i in range(0, len(d), size))


def test_chunks_come_in_the_order_of_their_earliest_document():
    docs = [np.full(n, i) for i, n in enumerate(rng.integers(1, 30, 300), start=1)]
    earliest = [min(i for i in row if i) for row in pack_dataset(docs, 30)["input_ids"]]
    assert earliest == sorted(earliest)


def test_truncation_keeps_the_beginning_of_each_document():
    docs = random_docs(20)
    out = pack_dataset(docs, 5, long="truncate")
    assert sum(map(sum, out["attention_mask"])) == sum(min(5, len(d)) for d in docs)
    with pytest.raises(ValueError, match="long='cut'"): pack_dataset(docs, 5, long="cut")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_packed_logits_are_those_of_each_document_alone(kind, attention):
    import torch
    from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel
    torch.manual_seed(0)
    if kind == "gpt2": model = GPT2LMHeadModel(GPT2Config(vocab_size=1000, n_layer=2, n_embd=32, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0, attn_implementation=attention))
    else: model = BertForMaskedLM(BertConfig(vocab_size=1000, num_hidden_layers=2, hidden_size=32, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64, attn_implementation=attention))
    model.eval()
    rows = pack_dataset(random_docs(25), 48).with_format("torch")[:]
    with torch.no_grad():
        got = model(rows["input_ids"], position_ids=rows["position_ids"], attention_mask=segment_mask(rows["segment_ids"], causal=kind == "gpt2")).logits
        assert got.isfinite().all()
        for i, segments in enumerate(rows["segment_ids"]):
            for s in segments[segments > 0].unique():
                alone = model(rows["input_ids"][i, segments == s][None]).logits[0]
                torch.testing.assert_close(got[i, segments == s], alone, atol=1e-5, rtol=1e-4)


# Streams

@pytest.mark.parametrize("tail", ["drop", "keep", "pad"])
@pytest.mark.parametrize("buffer", [1, 2, 7, 1000])
def test_a_stream_can_be_stopped_and_resumed_anywhere(tail, buffer):
    docs = random_docs(12)
    make = lambda: chunk_stream(docs, 4, tail, eos_id=5, pad_id=0, shuffle_buffer=buffer, seed=3)
    whole = [c["input_ids"].tolist() for c in make()]
    want = [c.tolist() for c in chunk_ids(flat([np.append(d, 5) for d in docs if len(d)]), 4, tail, pad_id=0)]
    assert sorted(whole) == sorted(want) and (buffer > 1 or whole == want)
    for cut in range(len(whole) + 1):
        stopped = make()
        begun = [next(stopped)["input_ids"].tolist() for _ in range(cut)]
        resumed = make()
        resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
        assert begun + [c["input_ids"].tolist() for c in resumed] == whole


def test_sources_of_every_kind_give_the_same_chunks():
    docs = random_docs(12)
    ds = Dataset.from_dict({"input_ids": [d.tolist() for d in docs]})
    want = chunk_ids(flat(docs), 4).tolist()
    for source in (docs, [{"input_ids": d.tolist()} for d in docs], ds, ds.to_iterable_dataset(num_shards=1), lambda: iter(docs), (d for d in docs), tuple(docs)):
        assert [c["input_ids"].tolist() for c in chunk_stream(source, 4)] == want
    mixed = ds.shuffle(seed=2)
    assert [c["input_ids"].tolist() for c in chunk_stream(mixed, 4)] == ids_as_lists(chunk_dataset(mixed, 4))


def ids_as_lists(ds): return [r.tolist() for r in ids_of(ds)]


def test_epochs_differ_and_repeat():
    stream = chunk_stream(random_docs(30), 2, shuffle_buffer=10)
    first, again = ([c["input_ids"].tolist() for c in stream] for _ in range(2))
    stream.set_epoch(1)
    other = [c["input_ids"].tolist() for c in stream]
    assert first == again != other and sorted(first) == sorted(other)


def test_an_iterator_after_its_end_stays_at_its_end():
    stream = chunk_stream([[1, 2]], 2)
    assert next(stream)["input_ids"].tolist() == [1, 2]
    for _ in range(2):
        with pytest.raises(StopIteration): next(stream)


def test_a_stream_takes_constant_memory():
    def endless():
        while True: yield np.arange(300, dtype=np.int32)
    stream = chunk_stream(endless, 128, shuffle_buffer=16)
    for _ in range(200): next(stream)
    tracemalloc.start()
    for _ in range(5000): next(stream)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_a_stream_and_resume(world):
    from datasets.distributed import split_dataset_by_node
    stream = chunk_stream(random_docs(30), 4, shuffle_buffer=5, seed=1)
    want = [c["input_ids"].tolist() for c in stream]
    found = []
    for rank in range(world):
        mine = split_dataset_by_node(stream.to_iterable_dataset(), rank, world)
        rows = [r["input_ids"] for r in mine]
        assert rows == want[rank::world]
        begun = iter(mine)
        head = [next(begun)["input_ids"] for _ in range(2)]
        state = mine.state_dict()
        fresh = split_dataset_by_node(stream.to_iterable_dataset(), rank, world)
        fresh.load_state_dict(state)
        assert head + [r["input_ids"] for r in fresh] == rows
        found += rows
    assert sorted(found) == sorted(want)


def test_a_data_loader_reads_a_stream():
    import torch
    from torch.utils.data import DataLoader
    stream = chunk_stream([d.tolist() for d in random_docs(30)], 4)
    loader = DataLoader(stream.to_iterable_dataset().with_format("torch"), batch_size=3, num_workers=1)
    rows = torch.cat([b["input_ids"] for b in loader]).tolist()
    assert rows == [c["input_ids"].tolist() for c in stream]


# Text

@pytest.fixture(scope="module")
def tokenizer(): return train_tokenizer(["the film was good and the end was bad", "a long and slow film"] * 5, 300)


def test_tokenising_every_kind_of_data_set(tokenizer, caplog, recwarn):
    tokenizer.model_max_length = 4
    texts = ["the film was good " * 9, "", "bad", "slow"]
    want = [(t := tokenizer(x, add_special_tokens=False, verbose=False)["input_ids"]) + [0] * bool(t) for x in texts]
    ds = Dataset.from_dict({"text": texts, "label": [0, 1, 0, 1]})
    caplog.clear()
    assert tokenize_dataset(texts, tokenizer)["input_ids"] == want
    assert tokenize_dataset(ds, tokenizer, num_proc=2)["input_ids"] == want
    assert tokenize_dataset(DatasetDict(a=ds), tokenizer)["a"]["input_ids"] == want
    assert [r["input_ids"] for r in tokenize_dataset(ds.to_iterable_dataset(), tokenizer)] == want
    assert tokenize_dataset(ds, tokenizer, keep=["label"])["label"] == [0, 1, 0, 1]
    assert tokenize_dataset(ds.rename_column("text", "body"), tokenizer, text_column="body")["input_ids"] == want
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    tokenizer.model_max_length = int(1e30)


def test_tokenising_bad_input(tokenizer):
    with pytest.raises(ValueError, match="no column 'text'.*'body'"): tokenize_dataset(Dataset.from_dict({"body": ["a"]}), tokenizer)
    with pytest.raises(TypeError, match="must be a str, not 3"): tokenize_dataset(["a", 3], tokenizer)
    with pytest.raises(ValueError, match="holds None"): tokenize_dataset(Dataset.from_dict({"text": ["a", None]}), tokenizer)
    class NoSeparator: eos_token_id = sep_token_id = None
    with pytest.raises(ValueError, match="needs a tokenizer with an eos_token"): tokenize_dataset(["a"], NoSeparator())


def test_train_and_valid_never_mix(tokenizer):
    train, valid = [f"film {i} was good" for i in range(20)], [f"film {i} was bad" for i in range(20)]
    both = lm_datasets(train, valid, tokenizer, 8)
    assert list(both) == ["train", "valid"] and {len(r) for r in both["valid"]["input_ids"]} == {8}
    for on_shared, n in (("drop", 1), ("ignore", 0)):
        out = lm_datasets([*train, valid[3], " "], [*valid, " "], tokenizer, 8, on_shared=on_shared)
        want = chunk_dataset(tokenize_dataset([*train, " "] if n else [*train, valid[3], " "], tokenizer), 8)
        assert out["train"]["input_ids"] == want["input_ids"]
    with pytest.raises(ValueError, match="2 of the 22 documents of train are also in valid"): lm_datasets([*train, *valid[:2]], valid, tokenizer, 8)
    with pytest.raises(ValueError, match="on_shared='maybe'"): lm_datasets(train, valid, tokenizer, 8, on_shared="maybe")
    assert "attention_mask" in lm_datasets(train, valid, tokenizer, 8, tail="pad")["train"].column_names


def test_a_masked_tokenizer_dresses_every_chunk():
    masked = train_tokenizer(["the film was good"] * 3, 300, masked=True)
    both = lm_datasets(["the film was good " * 20], ["bad " * 40], masked, 16)
    for row in both["train"]["input_ids"]: assert (row[0], row[-1], row.count(2), len(row)) == (2, 3, 1, 16)
    bare = lm_datasets(["the film was good " * 20], ["bad " * 40], masked, 16, specials=None)
    assert not any(2 in row for row in bare["train"]["input_ids"])


# Advice and pictures

def test_context_equals_a_count_by_hand():
    lengths, sizes = rng.integers(1, 30, 20), [2, 3, 8, 16]
    for size, got in zip(sizes, _context(lengths, sizes)):
        seen = [min(p, u) for n in lengths for p in range(n) for u in range(size)]
        np.testing.assert_allclose(got, np.mean(seen))


def test_memory_is_of_the_right_size():
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel
    config = GPT2Config(vocab_size=500, n_layer=2, n_embd=64, n_head=2, n_positions=128, bos_token_id=0, eos_token_id=0, attn_implementation="eager")
    model, ids, found = GPT2LMHeadModel(config).train(), torch.randint(500, (4, 128)), {}
    def note(t): found[t.data_ptr()] = max(found.get(t.data_ptr(), 0), t.nbytes); return t
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t): loss = model(ids, labels=ids).loss
    weights = {p.data_ptr() for p in model.parameters()}
    kept = sum(n for address, n in found.items() if address not in weights)
    assert .5 < _memory(128, 4, 500, config) / kept < 2.5


def test_advice_gives_reasons(tokenizer):
    lengths = rng.integers(50, 150, 500)
    free = suggest_chunk_size(lengths, tokenizer)
    assert free.reason == "documents" and free.table[-1]["share"] >= .5
    assert suggest_chunk_size(lengths, 300).chunk_size == free.chunk_size
    assert suggest_chunk_size(lengths, tokenizer, model=32).chunk_size == 32
    assert suggest_chunk_size([3], tokenizer).chunk_size >= 2
    with pytest.raises(ValueError, match="not one token"): suggest_chunk_size([0], tokenizer)


def test_a_picture_holds_every_chunk_and_is_safe():
    for policy in POLICIES:
        picture = show_chunks([5, 9, 2, 30], 4, policy, max_chunks=99)
        assert picture.data.count(">chunk ") == plan_chunks([5, 9, 2, 30], 4, policy).report.chunks
        assert ">dropped<" in picture.data if plan_chunks([5, 9, 2, 30], 4, policy).report.dropped else ">dropped<" not in picture.data
    picture = show_chunks([3], 2, tokens=["<b>", '"x"', "&"], tail="keep").data
    assert "<b>" not in picture.replace("<b>concatenate</b>", "") and "&lt;b>" in picture and "&quot;x&quot;" in picture and "&amp;" in picture
    assert "84 more" in show_chunks([200], 2).data


def test_the_explorer_redraws():
    explorer = chunk_explorer([20, 30, 5], chunk_size=8)
    (size, policy), (tail, eos), picture = explorer.children[0].children, explorer.children[1].children, explorer.children[2]
    seen = {picture.value}
    for control, value in ((size, 10), (tail, "pad"), (eos, False), (policy, "pack"), (policy, "truncate")):
        control.value = value
        assert picture.value not in seen
        seen.add(picture.value)


def test_leak_of_a_random_split():
    assert split_leak([1000], 10, .3) == 1
    assert split_leak([10] * 100, 10) == 0
    assert .3 < split_leak([20] * 2000, 10, .5) < .7


def test_nothing_heavy_is_imported():
    code = "import course_lm.chunking, sys; print([m for m in ('torch', 'datasets', 'transformers', 'pandas', 'matplotlib', 'fastcore', 'IPython') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
