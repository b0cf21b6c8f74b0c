"""Tests of course_lm.streaming: stopped and resumed anywhere, constant memory, and the advice for a size."""
import json
import tracemalloc

import numpy as np
import pytest
from datasets import Dataset

from course_lm.chunking import chunk_dataset, chunk_ids
from course_lm.data import train_tokenizer
from course_lm.streaming import _context, _memory, chunk_stream, suggest_chunk_size

from .documents import flat, ids_of, random_docs, rng


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["the film was good and the end was bad", "a long and slow film"] * 5, 300)


@pytest.mark.parametrize("tail", ["drop", "keep", "pad"])
@pytest.mark.parametrize("buffer", [1, 2, 7, 1000])
def test_a_stream_can_be_stopped_and_resumed_anywhere(tail, buffer):
    docs = random_docs(12)
    def make(): return chunk_stream(docs, 4, tail, eos_id=5, pad_id=0, shuffle_buffer=buffer, seed=3)
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
    for source in (
        docs,
        [{"input_ids": d.tolist()} for d in docs],
        ds,
        ds.to_iterable_dataset(num_shards=1),
        lambda: iter(docs),
        (d for d in docs),
        tuple(docs),
    ):
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


def test_what_is_no_stream():
    for bad, error, text in (("abc", TypeError, "tokenize it first"), (3, TypeError, "docs=3")):
        with pytest.raises(error, match=text): chunk_stream(bad, 4)
    with pytest.raises(ValueError, match="shuffle_buffer=0"): chunk_stream([[1]], 4, shuffle_buffer=0)
    with pytest.raises(ValueError, match="needs a pad_id"): chunk_stream([[1]], 4, tail="pad")
    with pytest.raises(ValueError, match="less than one chunk of chunk_size=4"): list(chunk_stream([[1]], 4))
    with pytest.raises(ValueError, match=r"no 'input_ids': it has \['text'\]"):
        list(chunk_stream([{"text": "a"}], 4))
    with pytest.raises(TypeError, match="must be a row of token ids"): list(chunk_stream([[1.5]], 4))


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


def test_context_equals_a_count_by_hand():
    lengths, sizes = rng.integers(1, 30, 20), [2, 3, 8, 16]
    for size, got in zip(sizes, _context(lengths, sizes)):
        seen = [min(p, u) for n in lengths for p in range(n) for u in range(size)]
        np.testing.assert_allclose(got, np.mean(seen))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_memory_is_of_the_right_size(attention):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=500,
        n_layer=2,
        n_embd=64,
        n_head=2,
        n_positions=128,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation=attention,
    )
    model, ids, found = GPT2LMHeadModel(config).train(), torch.randint(500, (4, 128)), {}
    def note(t):
        found[t.data_ptr()] = max(found.get(t.data_ptr(), 0), t.nbytes)
        return t
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t): loss = model(ids, labels=ids).loss
    assert loss.isfinite() # and alive until here, so that no address is used twice
    weights = {p.data_ptr() for p in model.parameters()}
    kept = sum(n for address, n in found.items() if address not in weights)
    assert .5 < _memory(128, 4, 500, config) / kept < 2.5


def test_memory_counts_the_matrix_of_attention_only_where_it_is_stored():
    from transformers import GPT2Config
    def cost(size, attention):
        return _memory(size, 4096 // size, 500, GPT2Config(attn_implementation=attention))
    assert cost(64, "sdpa") == cost(1024, "sdpa") # as many tokens, as many bytes
    assert cost(1024, "eager") > 2 * cost(64, "eager") > 2 * cost(64, "sdpa")
    assert _memory(64, 64, 500, None) == 4096 * 12 * 500 # the logits alone


def test_the_picture_says_what_its_memory_is_of(tokenizer):
    from transformers import GPT2Config
    lengths, config = [100] * 20, GPT2Config(n_layer=2, n_embd=32, n_head=2, n_positions=256)
    for model, title in ((None, "the logits alone"), (config, "a training step")):
        figure = suggest_chunk_size(lengths, tokenizer, model=model).plot()
        assert figure.axes[1].get_title() == f"memory of {title}"


def test_shuffled_blocks_hold_the_same_chunks_and_a_state_fits_its_stream_only():
    docs = random_docs(40)
    def stream(**kwargs): return chunk_stream(docs, 4, **kwargs)
    whole, mixed = ([tuple(c["input_ids"]) for c in stream(shuffle_buffer=n)] for n in (1, 50))
    assert mixed != whole and sorted(mixed) == sorted(whole)
    with pytest.raises(ValueError, match="but this stream has"):
        stream(shuffle_buffer=50).load_state_dict(stream().state_dict())


def test_a_generator_that_is_used_up():
    once = chunk_stream(([i] * 4 for i in range(3)), 4)
    assert len(list(once)) == 3
    with pytest.raises(ValueError, match="a function that returns a new iterator"): list(once)
    again = chunk_stream(lambda: ([i] * 4 for i in range(3)), 4)
    assert len(list(again)) == len(list(again)) == 3


def test_advice_gives_reasons(tokenizer):
    lengths = rng.integers(50, 150, 500)
    free = suggest_chunk_size(lengths, tokenizer)
    assert free.reason == "documents" and free.table[-1]["share"] >= .5
    assert suggest_chunk_size(lengths, 300).chunk_size == free.chunk_size
    assert suggest_chunk_size(lengths, tokenizer, model=32).chunk_size == 32
    assert suggest_chunk_size([3], tokenizer).chunk_size >= 2
    with pytest.raises(ValueError, match="not one token"): suggest_chunk_size([0], tokenizer)
    with pytest.raises(TypeError, match="tokenizer='gpt2' must be a tokenizer, or the size"):
        suggest_chunk_size([3], "gpt2")
    with pytest.raises(ValueError, match="memory=1000 bytes is too little: chunk_size=8 takes"):
        suggest_chunk_size(lengths, tokenizer, memory=1000)
    assert suggest_chunk_size(lengths, tokenizer, memory=2**19).reason == "memory"
    assert suggest_chunk_size(lengths, tokenizer, model=32).reason == "model"


@pytest.mark.parametrize("state", [{}, {"setup": 1}, {"a": 1}, None, "abc"])
def test_what_is_no_state_is_named(state):
    stream = chunk_stream([[1, 2]], 2)
    with pytest.raises((TypeError, ValueError), match="state"): stream.load_state_dict(state)
    with pytest.raises(ValueError, match="epoch"): stream.set_epoch(-1)
