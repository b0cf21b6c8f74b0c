"""Tests of course_lm.packing: every document whole and once, and the logits of each alone."""
import numpy as np
import pytest

from course_lm.packing import pack_dataset, segment_mask

from .documents import layouts, random_docs, rng


@pytest.mark.parametrize("layout", ["documents", "batches", "slice of batches", "large_list", "picked"])
def test_every_document_is_packed_once_and_whole(layout):
    for _ in range(60):
        docs, size = random_docs(15, 30), int(rng.integers(2, 40))
        out, found = pack_dataset(layouts[layout](docs), size, pad_id=999_999), []
        for row in out:
            ids, segments, positions = (
                np.array(row[k]) for k in ("input_ids", "segment_ids", "position_ids")
            )
            assert (
                np.array_equal(row["attention_mask"], segments > 0)
                and (ids[segments == 0] == 999_999).all()
                and (positions[segments == 0] == 0).all()
            )
            for s in range(1, segments.max() + 1):
                assert np.array_equal(positions[segments == s], np.arange((segments == s).sum()))
                found.append(tuple(ids[segments == s]))
        assert sorted(found) == sorted(tuple(d[i:i+size]) for d in docs for i in range(0, len(d), size))


def test_packed_by_hand():
    packed = pack_dataset([[1, 1, 1, 1], [2, 2], [3, 3, 3], [4]], 5)
    assert packed["input_ids"] == [[1, 1, 1, 1, 4], [2, 2, 3, 3, 3]]
    assert packed["position_ids"] == [[0, 1, 2, 3, 0], [0, 1, 0, 1, 2]]
    assert packed["segment_ids"] == [[1, 1, 1, 1, 2], [1, 1, 2, 2, 2]]
    padded = pack_dataset([[1, 1, 1], [2, 2, 2]], 5, pad_id=9)["input_ids"]
    assert padded == [[1, 1, 1, 9, 9], [2, 2, 2, 9, 9]]
    assert pack_dataset([[1, 2, 3, 4, 5]], 3)["input_ids"] == [[1, 2, 3], [4, 5, 0]]
    assert pack_dataset([[1, 2, 3, 4, 5]], 3, long="truncate")["input_ids"] == [[1, 2, 3]]


def test_the_mask_allows_what_a_loop_allows():
    segments = [1, 1, 1, 2, 2, 3, 0, 0]
    for causal in (True, False):
        allowed = (segment_mask([segments], causal)[0, 0] == 0).tolist()
        assert allowed == [
            [segments[i] == segments[j] and (j <= i or not causal) for j in range(8)] for i in range(8)
        ]


def documents_and_rows(tokenizer, end, longest=100, n=25):
    import torch
    from course_lm.data import python_docs
    docs = [tokenizer(text, verbose=False)["input_ids"] + end for text in python_docs()[:60]]
    docs = [torch.tensor(doc) for doc in docs if 4 < len(doc) <= longest][:n]
    return docs, pack_dataset([doc.numpy() for doc in docs], 256, long="error").with_format("torch")[:]


def test_the_loss_of_a_trained_model_on_packed_rows_is_that_of_each_document_alone():
    import torch
    from course_lm.models import load_lm
    model, tokenizer = load_lm("tiny-gpt")
    docs, rows = documents_and_rows(tokenizer, [tokenizer.eos_token_id])
    labels = rows["input_ids"].masked_fill(rows["position_ids"] == 0, -100)
    given = dict(input_ids=rows["input_ids"], position_ids=rows["position_ids"], labels=labels)
    with torch.no_grad():
        nats = sum(model(doc[None], labels=doc[None]).loss.item() * (len(doc) - 1) for doc in docs)
        alone = nats / sum(len(doc) - 1 for doc in docs)
        packed = model(**given, attention_mask=segment_mask(rows["segment_ids"])).loss.item()
        positions_only = model(**given, attention_mask=rows["attention_mask"]).loss.item()
    assert packed == pytest.approx(alone, abs=1e-4)
    assert positions_only > alone + .5


def test_rotary_positions_need_no_restart_and_windows_need_a_mask_of_their_own():
    import torch
    from course_lm.models import load_lm
    model, tokenizer = load_lm("tiny-bert", head="masked")
    docs, rows = documents_and_rows(tokenizer, [])
    everywhere = segment_mask(rows["segment_ids"], causal=False)
    far = (torch.arange(256)[:, None] - torch.arange(256)).abs() > model.config.local_attention // 2
    near = everywhere.masked_fill(far, torch.finfo(everywhere.dtype).min)
    masks = dict(full_attention=everywhere, sliding_attention=near)
    real = rows["segment_ids"] > 0
    with torch.no_grad():
        alone = torch.zeros(*real.shape, model.config.vocab_size)
        for i, segments in enumerate(rows["segment_ids"]):
            for s in segments[segments > 0].unique():
                alone[i, segments == s] = model(rows["input_ids"][i, segments == s][None]).logits[0]
        for positions in (rows["position_ids"], torch.arange(256).expand_as(real)):
            got = model(rows["input_ids"], attention_mask=masks, position_ids=positions).logits
            torch.testing.assert_close(got[real], alone[real], atol=1e-3, rtol=1e-3)
        one = model(rows["input_ids"], attention_mask=everywhere).logits
    assert (one[real] - alone[real]).abs().max() > 1


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
