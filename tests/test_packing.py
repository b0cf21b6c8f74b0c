"""Tests of course_lm.packing: every document whole and once, and the logits of each alone."""
import numpy as np
import pytest

from course_lm.packing import pack_dataset, segment_mask

from .documents import layouts, random_docs, rng


@pytest.mark.parametrize("layout", ["documents", "batches", "slice of batches", "large_list", "picked"])
def test_every_document_is_packed_once_and_whole(layout):
    for _ in range(60):
        docs, size = random_docs(15, 30), int(rng.integers(2, 40))
        out, found = pack_dataset(layouts[layout](docs), size, pad_id=-1), []
        for row in out:
            ids, segments, positions = (
                np.array(row[k]) for k in ("input_ids", "segment_ids", "position_ids")
            )
            assert (
                np.array_equal(row["attention_mask"], segments > 0)
                and (ids[segments == 0] == -1).all()
                and (positions[segments == 0] == 0).all()
            )
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
    with pytest.raises(ValueError, match="1 of 1 documents are longer than chunk_size=3 .the longest has 5"):
        pack_dataset([[1, 2, 3, 4, 5]], 3, long="error")
    with pytest.raises(ValueError, match="not one token"): pack_dataset([[]], 3)
    with pytest.raises(ValueError, match="longer than the 4 tokens"): pack_dataset(docs, 5, model=4)
    with pytest.raises(ValueError, match=r"segment_ids=\[1, 1\] must"): segment_mask([1, 1])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_packed_logits_are_those_of_each_document_alone(kind, attention):
    import torch
    from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel
    torch.manual_seed(0)
    if kind == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=1000,
                n_layer=2,
                n_embd=32,
                n_head=2,
                n_positions=64,
                bos_token_id=0,
                eos_token_id=0,
                attn_implementation=attention,
            )
        )
    else:
        model = BertForMaskedLM(
            BertConfig(
                vocab_size=1000,
                num_hidden_layers=2,
                hidden_size=32,
                num_attention_heads=2,
                intermediate_size=64,
                max_position_embeddings=64,
                attn_implementation=attention,
            )
        )
    model.eval()
    rows = pack_dataset(random_docs(25), 48).with_format("torch")[:]
    with torch.no_grad():
        got = model(
            rows["input_ids"],
            position_ids=rows["position_ids"],
            attention_mask=segment_mask(rows["segment_ids"], causal=kind == "gpt2"),
        ).logits
        assert got.isfinite().all()
        for i, segments in enumerate(rows["segment_ids"]):
            for s in segments[segments > 0].unique():
                alone = model(rows["input_ids"][i, segments == s][None]).logits[0]
                torch.testing.assert_close(got[i, segments == s], alone, atol=1e-5, rtol=1e-4)
