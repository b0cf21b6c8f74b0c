"""Tests of course_lm.labels: laws, statistics and edges that would bore a reader of lesson 3."""
import pickle
import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lm.denoising import SentencePermutation, SpanCorruption, TokenDeletion, WholeWordMasking
from course_lm.labels import (
    BertMasking, CausalLabels, LMCollator, LabelStrategy, label_report, masking_explorer, ordinary_ids,
    pad_examples, row_generator, sample_positions, show_batch_labels, show_masking)
from course_lm.packing import pack_dataset
from course_lm.support.arrow import ChunkMatrix, pad_rows
from course_lm.support.inputs import IGNORE_INDEX, special_table
from course_lm.support.randomness import numpy_generator

from .made import CAUSAL, MASKED, T5, ids_of, quick, raises, within

ALL = [(CAUSAL, CausalLabels()), (MASKED, BertMasking(.4)), (MASKED, WholeWordMasking(.4)),
       (T5, SpanCorruption(.3)), (MASKED, TokenDeletion(.3)), (MASKED, SentencePermutation())]


def test_import_is_light():
    heavy = {"fastai", "transformers", "datasets", "IPython", "pandas", "pyarrow"}
    code = f"import sys, course_lm.labels; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- chance


@quick
@given(st.integers(0, 3000), st.floats(1e-12, 1), st.integers(0, 2**32))
def test_chosen_positions_rise_and_stay_inside(n, prob, seed):
    chosen = sample_positions(n, prob, numpy_generator(seed))
    assert chosen.dtype == np.int64 and (np.diff(chosen) > 0).all()
    assert not len(chosen) or (chosen[0] >= 0 and chosen[-1] < n)


@pytest.mark.parametrize("prob", [1e-5, .15, .5, .97])
def test_choosing_is_a_coin_toss_at_any_rate(prob):
    n = 10**6
    chosen = sample_positions(n, prob, numpy_generator(1))
    assert within(len(chosen), n, prob)
    assert within((np.diff(chosen) == 1).sum(), n, prob**2)  # neighbours are independent


def test_extreme_rates():
    rng = numpy_generator(0)
    assert sample_positions(5, 0, rng).tolist() == [] and sample_positions(0, .5, rng).tolist() == []
    assert sample_positions(5, 1, rng).tolist() == [0, 1, 2, 3, 4]


# ---- tables over the vocabulary


def test_tables_are_renewed_when_tokens_are_added():
    grown = deepcopy(CAUSAL)
    before = len(special_table(grown))
    grown.add_special_tokens({"extra_special_tokens": ["<|user|>"]})
    assert len(special_table(grown)) == before + 1 and special_table(grown)[-1]
    assert before not in ordinary_ids(grown)


# ---- masking


@pytest.mark.parametrize("strategy", [BertMasking(), BertMasking(.3, .5, .5), BertMasking(.4, 1, 0)])
def test_rates_within_5_sigma_over_a_million_tokens(strategy):
    ids = torch.randint(5, len(MASKED), (2000, 520), generator=torch.Generator().manual_seed(0))
    spared = torch.zeros_like(ids, dtype=torch.bool)
    spared[:, 500:] = True
    out, labels = strategy(ids, spared, MASKED, 1)
    asked, luck = labels != IGNORE_INDEX, 1/len(ordinary_ids(MASKED))
    n, hidden, kept = (
        asked.sum().item(),
        (asked & (out == MASKED.mask_token_id)).sum().item(),
        (asked & (out == labels)).sum().item(),
    )
    assert within(n, 10**6, strategy.prob) and not asked[:, 500:].any()
    assert within(hidden, n, strategy.mask) if strategy.mask < 1 else hidden == n
    assert within(kept, n, 1 - strategy.mask - strategy.random*(1-luck)) if kept else strategy.mask == 1
    assert torch.equal(out[~asked], ids[~asked]) and torch.equal(labels[asked], ids[asked])
    swapped = out[asked & (out != labels) & (out != MASKED.mask_token_id)]
    assert not special_table(MASKED)[swapped].any()
    if strategy.random and strategy.mask < .9: # every ordinary token is drawn equally often
        counts = np.bincount(swapped, minlength=len(MASKED))[ordinary_ids(MASKED)]
        assert .7 < ((counts - counts.mean())**2).sum()/counts.mean()/len(counts) < 1.4


def test_every_place_of_a_row_is_asked_equally_often():
    ids = torch.full((20000, 50), 9)
    counts = (
        (BertMasking()(ids, torch.zeros_like(ids, dtype=torch.bool), MASKED, 0)[1] != IGNORE_INDEX)
        .sum(0)
        .double()
    )
    assert .4 < ((counts-3000)**2).sum()/(3000*.85)/50 < 1.8


def test_agrees_with_transformers_in_distribution():
    from transformers import DataCollatorForLanguageModeling
    peer = DataCollatorForLanguageModeling(MASKED, seed=0)
    ids = torch.randint(5, len(MASKED), (1000, 500), generator=torch.Generator().manual_seed(0))
    special = torch.zeros_like(ids, dtype=torch.bool)
    theirs, ours = peer.torch_mask_tokens(ids.clone(), special), BertMasking()(ids, special, MASKED, 0)
    a, b = (label_report(dict(input_ids=i, labels=l), MASKED) for i, l in (theirs, ours))
    for name, of in (("asked", 5e5), ("hidden", 75000), ("swapped", 75000), ("kept", 75000)):
        p = (a[name] + b[name])/2
        assert abs(a[name] - b[name]) < 5 * (2 * p * (1 - p) / of) ** 0.5 + (
            0.005 if name in ("swapped", "kept") else 0
        )  # they may draw specials and the token itself


@pytest.mark.parametrize("rates, text", [
    ((15,), "prob=15 must be"), ((-.1,), "prob=-0.1 must be"), ((.15, 1.2), "mask=1.2 must be"),
    ((.15, .9, .2), "mask + random = 1.1"), ((float("nan"),), "prob=nan must be")])
def test_impossible_rates(rates, text):
    with raises(ValueError, text): BertMasking(*rates)


# ---- the collator


@pytest.mark.parametrize("made, strategy", ALL, ids=repr)
@pytest.mark.parametrize("seed", [None, 3])
def test_nothing_given_is_ever_changed(made, strategy, seed):
    rows = [np.array(made(text).input_ids) for text in ("the cat sat. on the mat.", "the dog")]
    for row in rows: row.flags.writeable = False
    before = [row.copy() for row in rows]
    batch = LMCollator(made, strategy, seed=seed)([{"input_ids": row} for row in rows])
    batch["input_ids"].zero_(), batch["labels"].zero_()
    assert all((row == old).all() for row, old in zip(rows, before))
    tensor = torch.from_numpy(np.stack([before[0]]*2))
    strategy(tensor, torch.zeros_like(tensor, dtype=torch.bool), made, 0)
    assert (tensor.numpy() == before[0]).all()


@quick
@given(
    st.lists(ids_of, min_size=2, max_size=5), st.sampled_from(["left", "right"]), st.sampled_from([None, 8])
)
def test_frozen_masks_depend_on_nothing_but_the_example(rows, side, multiple):
    for made, strategy in ALL[1:]:
        padded = deepcopy(made)
        padded.padding_side = side
        alone, together = (
            LMCollator(made, strategy, seed=1),
            LMCollator(padded, strategy, seed=1, pad_to_multiple_of=multiple),
        )
        batch = together(rows[::-1])
        for row, i in zip(rows, reversed(range(len(rows)))):
            one, real = alone([row]), batch["attention_mask"][i].bool()
            assert batch["input_ids"][i][real].tolist() == one["input_ids"][0].tolist()
            asked, ours = batch["labels"][i], one["labels"][0]
            assert (asked[asked != -100].tolist() if strategy.own_lengths else asked[real].tolist()) == \
                   (ours[ours != -100].tolist() if strategy.own_lengths else ours.tolist())


def test_another_seed_is_another_mask():
    rows = [list(range(5, 200))]
    a, b = (LMCollator(MASKED, BertMasking(), seed=seed)(rows)["labels"] for seed in (0, 1))
    assert not torch.equal(a, b)


def test_fresh_masks_follow_torch_seed_and_generators():
    rows = [list(range(5, 200))]*4

    def two(collator): return collator(rows)["labels"], collator(rows)["labels"]
    collator = LMCollator(MASKED, BertMasking())
    torch.manual_seed(0)
    a, b = two(collator)
    torch.manual_seed(0)
    c, d = two(collator)
    assert torch.equal(a, c) and torch.equal(b, d) and not torch.equal(a, b)
    for make in (lambda: torch.Generator().manual_seed(5), lambda: np.random.default_rng(5)):
        a, b = two(LMCollator(MASKED, BertMasking(), generator=make()))
        c, d = two(LMCollator(MASKED, BertMasking(), generator=make()))
        assert torch.equal(a, c) and torch.equal(b, d) and not torch.equal(a, b)


def test_causal_labels_draw_nothing():
    torch.manual_seed(0)
    LMCollator(CAUSAL)([[5, 6, 7]])
    after = torch.rand(())
    torch.manual_seed(0)
    assert torch.equal(torch.rand(()), after)


def test_workers():
    rows = ChunkMatrix(np.tile(np.arange(5, 205), (16, 1)))

    def labels(**kw):
        loader = torch.utils.data.DataLoader(
            rows, batch_size=4, num_workers=2, collate_fn=LMCollator(MASKED, BertMasking(), **kw)
        )
        return [[batch["labels"] for batch in loader] for epoch in range(2)]
    for kw in ({}, {"generator": torch.Generator().manual_seed(0)}):
        first, second = labels(**kw)
        assert not torch.equal(first[0], first[1]), "two workers must not draw alike"
        assert not torch.equal(first[0], second[0]), "two epochs must not draw alike"
    first, second = labels(seed=0)
    here = LMCollator(MASKED, BertMasking(), seed=0)([rows[i] for i in range(4)])["labels"]
    assert torch.equal(first[0], second[0]) and torch.equal(first[0], here)


@pytest.mark.parametrize("side", ["left", "right"])
def test_eos_is_a_target_where_pad_is_eos(side):
    made = deepcopy(CAUSAL)
    made.pad_token, made.padding_side = made.eos_token, side
    batch = LMCollator(made)([[5, 6, 0], [7, 0]])
    real = batch["attention_mask"].bool()
    asked = real.clone()
    asked[:, 1:] &= real[:, :-1] # what is behind a pad is not asked for, like the first token of a row
    asked[:, 0] = real[:, 0]
    assert (batch["labels"][asked] == batch["input_ids"][asked]).all() and (
        batch["labels"][~asked] == IGNORE_INDEX
    ).all()
    assert (batch["labels"] == 0).sum() == 2
    right = LMCollator(CAUSAL)([[5, 6, 0], [7, 0]])
    assert (
        (batch["labels"][:, 1:] != IGNORE_INDEX).sum() == (right["labels"][:, 1:] != IGNORE_INDEX).sum() == 3
    )


def test_padding_that_the_examples_bring_along():
    examples = [
        {"input_ids": [5, 6, 0, 0], "attention_mask": [1, 1, 0, 0]},
        {"input_ids": [5, 6, 7, 0], "attention_mask": [1, 1, 1, 1]},
    ]
    for seed in (None, 0):
        batch = LMCollator(CAUSAL, seed=seed)(examples)
        assert batch["labels"].tolist() == [[5, 6, -100, -100], [5, 6, 7, 0]] and batch[
            "attention_mask"
        ].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def test_columns_of_the_examples():
    examples = [
        {
            "input_ids": [5, 6, 7],
            "special_tokens_mask": [0, 1, 0],
            "position_ids": [0, 1, 0],
            "text": "dropped",
        },
        {"input_ids": [8], "special_tokens_mask": [1], "position_ids": [0], "text": "too"},
    ]
    batch = LMCollator(MASKED, BertMasking(1, 1, 0))(examples)
    assert (
        batch["position_ids"].tolist() == [[0, 1, 0], [0, 0, 0]]
        and "text" not in batch
        and "special_tokens_mask" not in batch
    )
    assert batch["labels"].tolist() == [[5, -100, 7], [-100]*3]
    assert [*LMCollator(MASKED)(examples)][:2] == ["input_ids", "attention_mask"]


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda row: np.array(row, np.int32)])
def test_rows_of_any_kind(kind):
    for wrap in (lambda row: row, lambda row: {"input_ids": row}):
        batch = LMCollator(CAUSAL, pad_to_multiple_of=4)([wrap(kind([5, 6, 7])), wrap(kind([8]))])
        assert batch["input_ids"].tolist() == [[5, 6, 7, 1], [8, 1, 1, 1]] and all(
            column.dtype == torch.int64 for column in batch.values()
        )


def test_what_a_tokenizer_returns_is_an_example():
    batch = LMCollator(MASKED)([MASKED("the cat"), MASKED("the")])
    assert batch["input_ids"].shape == (2, 4)


@pytest.mark.parametrize(
    "examples, text",
    [
        ([], "examples=[] must be a list of examples"),
        ([{"text": "x"}], "these have text"),
        ([[[5]]], "shape (1, 1)"),
        ([[0.5]], "not float64"),
        ([{"input_ids": [5], "attention_mask": [1, 1]}], "equally long"),
        ([{"input_ids": [5], "attention_mask": [1]}, {"input_ids": [5]}], "every example needs one"),
        ([[10**6]], "made with another one"),
        ([[-1]], "hold -1 to -1"),
    ],
)
def test_examples_that_make_no_batch(examples, text):
    with raises(ValueError, text): LMCollator(MASKED, BertMasking())(examples)


def test_arguments_that_make_no_collator():
    with raises(TypeError, "write BertMasking(), an object"): LMCollator(MASKED, BertMasking)
    with raises(TypeError, "strategy='' must be a label strategy"): LMCollator(MASKED, "")
    with raises(ValueError, "seed=-1 must be"): LMCollator(MASKED, seed=-1)
    with raises(TypeError, "generator='seven' must be a torch.Generator"):
        LMCollator(MASKED, generator="seven")
    with raises(TypeError, "tokenizer='gpt2' must be"): LMCollator("gpt2")
    with raises(TypeError, "use seed=3"): LMCollator(MASKED, BertMasking(), generator=3)
    with raises(ValueError, "give one of the two"):
        LMCollator(MASKED, BertMasking(), seed=1, generator=torch.Generator())
    with raises(ValueError, "needs a mask token"): LMCollator(CAUSAL, BertMasking())
    bare = deepcopy(CAUSAL)
    bare.pad_token = None
    with raises(ValueError, "tokenizer has no pad token"): LMCollator(bare)([[5], [5, 6]])
    with raises(ValueError, "tokenizer has no pad token"): LMCollator(bare, pad_to_multiple_of=4)([[5]])
    with raises(ValueError, "tokenizer has no pad token"): LMCollator(bare, TokenDeletion())
    assert LMCollator(bare)([[5], [6]])["labels"].tolist() == [[5], [6]]


def test_a_strategy_that_returns_other_shapes_is_named():
    class Moved(LabelStrategy):
        def __call__(self, input_ids, special_tokens_mask, tokenizer, generator=None):
            return input_ids, input_ids[:, 1:]

    with raises(ValueError, "Moved() returned input_ids (1, 2) and labels (1, 1)"):
        LMCollator(CAUSAL, Moved())([[5, 6]])


def test_empty_rows_are_all_padding():
    assert pad_rows([[1, 2], []], 0, 4, "left").tolist() == [[0, 0, 1, 2], [0]*4]
    for made, strategy in ALL:
        for seed in (None, 0):
            assert LMCollator(made, strategy, seed=seed)([[5, 6, 7], []])["attention_mask"][1].sum() == 0
    assert pad_examples([[5], []], CAUSAL)["attention_mask"].tolist() == [[1], [0]]


# ---- the shift, proved for several models


@pytest.mark.parametrize("name", ["GPT2", "Llama", "GPTNeoX"])
def test_causal_models_shift_by_themselves(name):
    import transformers
    from torch.nn.functional import cross_entropy
    torch.manual_seed(0)
    size = dict(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    if name == "GPT2": size = dict(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    config = getattr(transformers, f"{name}Config")(**size, bos_token_id=0, eos_token_id=0, pad_token_id=None)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    ids = torch.randint(1, 50, (3, 12), generator=torch.Generator().manual_seed(0))

    def ce(logits, targets): return cross_entropy(logits.flatten(0, 1), targets.flatten())
    moved = torch.cat([ids[:, 1:], torch.full((3, 1), IGNORE_INDEX)], 1)
    with torch.no_grad():
        out, twice = model(ids, labels=CausalLabels()(ids, ids < 0)[1]), model(ids, labels=moved).loss
    torch.testing.assert_close(out.loss, ce(out.logits[:, :-1], ids[:, 1:]), atol=1e-4, rtol=0)
    torch.testing.assert_close(twice, ce(out.logits[:, :-2], ids[:, 2:]), atol=1e-4, rtol=0)
    assert abs(out.loss - twice) > 1e-4


# ---- training loops


def test_fastai_both_ways_and_pickled():
    from fastai.data.core import DataLoaders, TfmdDL
    rows = ChunkMatrix(np.random.default_rng(0).integers(5, 280, (12, 16)))
    make = pickle.loads(pickle.dumps(LMCollator(MASKED, BertMasking(), seed=0).as_fastai()))
    want = LMCollator(MASKED, BertMasking(), seed=0)([rows[i] for i in range(4)])
    one = DataLoaders.from_dsets(rows, rows, batch_size=4, create_batch=make).valid.one_batch()
    two = TfmdDL(
        [torch.from_numpy(row["input_ids"]) for row in rows], batch_size=4, after_batch=[make]
    ).one_batch()
    for batch, labels in (one, two):
        assert torch.equal(labels.as_subclass(torch.Tensor), want["labels"]) and torch.equal(
            batch["input_ids"].as_subclass(torch.Tensor), want["input_ids"]
        )


def test_trainer_takes_dataset_and_matrix_alike(tmp_path):
    from datasets import Dataset
    from transformers import BertConfig, BertForMaskedLM, PrinterCallback, Trainer, TrainingArguments

    ds = Dataset.from_dict(
        {"input_ids": np.random.default_rng(0).integers(5, 280, (12, 16)).tolist(), "note": ["x"] * 12}
    )
    losses = []
    for data in (ds, ChunkMatrix(ds)):
        torch.manual_seed(0)
        model = BertForMaskedLM(
            BertConfig(
                vocab_size=len(MASKED),
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=32,
            )
        )
        args = TrainingArguments(
            str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=4,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            dataloader_pin_memory=False,
            seed=0,
        )
        trainer = Trainer(model, args, train_dataset=data, data_collator=LMCollator(MASKED, BertMasking()))
        trainer.remove_callback(PrinterCallback)
        losses.append(trainer.train().training_loss)
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_accelerate_takes_the_collator():
    from accelerate import Accelerator
    rows = ChunkMatrix(np.random.default_rng(0).integers(5, 280, (12, 16)))
    collate = LMCollator(MASKED, BertMasking(), seed=0)
    here = [collate([rows[j] for j in range(i, i+4)]) for i in (0, 4, 8)]
    loader = Accelerator(cpu=True).prepare(
        torch.utils.data.DataLoader(rows, batch_size=4, collate_fn=collate)
    )
    for got, want in zip(loader, here, strict=True): assert all(torch.equal(got[k], want[k]) for k in want)


# ---- pictures


def test_batch_html_says_what_is_asked():
    page = show_batch_labels(LMCollator(CAUSAL)([[5, 6, 0], [7, 0]]), CAUSAL).data
    assert "2 of 3 positions" in page and "1 of 3 positions" in page
    assert "<script" not in page and "<style" not in page
    letter = CAUSAL.decode([5])
    long = show_batch_labels(LMCollator(CAUSAL)([[5]*30]), CAUSAL, length=30).data
    assert (
        long.count(f">{letter}<") == 30 * 3 - 1 and long.count("–") == 1
    )  # read, label, asked; the last asks nothing
    assert show_batch_labels(LMCollator(CAUSAL)([[5]*30]), CAUSAL, length=4).data.count(f">{letter}<") == 4*3
    with raises(ValueError, "task='mask' must be"):
        show_batch_labels(LMCollator(CAUSAL)([[5]]), CAUSAL, task="mask")
    hidden = show_batch_labels(
        LMCollator(MASKED, BertMasking(1, 1, 0))([MASKED("the cat").input_ids]), MASKED
    ).data
    assert "2 hidden" in hidden and "[MASK]" in hidden


def test_batch_html_escapes_text():
    from course_lm.data import train_tokenizer
    made = train_tokenizer(["a <b> c"]*20, vocab_size=262)
    assert "<b>" not in show_batch_labels(LMCollator(made)([made("a <b> c").input_ids]), made).data


def test_the_explorer_draws_what_the_sliders_say():
    explorer = masking_explorer("the cat sat on the mat", MASKED)
    explorer.children[0].value = 1.
    assert explorer.kwargs["prob"] == 1
    page = show_masking("the cat", MASKED, prob=1, mask=1, random=1).data
    assert "2 hidden" in page


def test_label_report_counts_by_hand():
    m = MASKED.mask_token_id
    batch = {
        "input_ids": torch.tensor([[2, m, 6, 7, 8, m, 3, 0]]),
        "labels": torch.tensor([[-100, 5, 6, 9, -100, -100, 3, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1, 1, 0]]),
    }
    got = label_report(batch, MASKED)
    assert got["asked"] == 3/5 and got["hidden"] == 1/5 and got["kept"] == 3/5 and got["swapped"] == 1/5
    assert (
        got["hidden, not asked"] == 1 / 5
        and got["asked for [MASK]"] == 0
        and got["asked for specials"] == 1 / 5
        and got["asked for padding"] == 1 / 5
    )
    late = label_report({"input_ids": torch.tensor([[5, m]]), "labels": torch.tensor([[-100, m]])}, MASKED)
    assert late["hidden"] == 1 and late["kept"] == 0 and late["asked for [MASK]"] == 1


# ---- what is asked where nothing is said, labels of a whole row, packed rows


def test_the_tokenizer_is_asked_for_the_strategy():
    assert isinstance(LMCollator(CAUSAL).strategy, CausalLabels) and isinstance(
        LMCollator(MASKED).strategy, BertMasking
    )


def test_a_label_for_a_whole_text():
    examples = [{"input_ids": [2, 9, 3], "label": 1}, {"input_ids": [2, 3], "label": np.int64(0)}]
    batch = pad_examples(examples, MASKED, pad_to=5)
    assert batch["labels"].tolist() == [1, 0] and batch["input_ids"].shape == (2, 5)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]
    assert pad_examples(examples, MASKED, pad_to=1)["input_ids"].shape == (2, 3)
    with raises(ValueError, "example 1 has no label"): pad_examples([examples[0], {"input_ids": [2]}], MASKED)
    assert LMCollator(MASKED, BertMasking(0))(examples)["labels"].shape == (
        2,
        3,
    )  # a language model is not asked for it
    odd = [{"input_ids": [5], "label": "good"}]
    assert LMCollator(CAUSAL)(odd)["labels"].tolist() == [[5]]


def packed_rows(made, texts, size=24): return pack_dataset([made(text).input_ids for text in texts], size)


TEXTS = ["the cat sat on the mat.", "the dog", "the log sat on the dog, unhappily.", "the mat. the log."]


def test_packed_causal_rows_have_the_loss_of_the_texts_alone():
    from transformers import GPT2Config, GPT2LMHeadModel
    torch.manual_seed(0)
    tiny = dict(n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(CAUSAL), n_positions=32, **tiny)).eval()
    ds, collate = packed_rows(CAUSAL, TEXTS), LMCollator(CAUSAL)
    batch, alone = collate(list(ds)), collate([CAUSAL(text).input_ids for text in TEXTS])
    assert batch["attention_mask"].shape == (len(ds), 1, 24, 24) and len(ds) < len(TEXTS)
    assert (batch["labels"][:, 1:] != IGNORE_INDEX).sum() == (alone["labels"][:, 1:] != IGNORE_INDEX).sum()
    with torch.no_grad(): torch.testing.assert_close(model(**batch).loss, model(**alone).loss)
    for rows in (ChunkMatrix(ds), ChunkMatrix(ds.remove_columns("segment_ids"))): # the positions alone say it
        again = collate([rows[i] for i in range(len(rows))])
        assert all(torch.equal(again[k], batch[k]) for k in batch) and [*again] == [*batch]


def test_packed_masked_rows_have_the_loss_of_the_texts_alone():
    from transformers import BertConfig, BertForMaskedLM
    torch.manual_seed(0)
    size = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    model = BertForMaskedLM(BertConfig(vocab_size=len(MASKED), max_position_embeddings=32, **size)).eval()
    ds, collate = packed_rows(MASKED, TEXTS), LMCollator(MASKED, BertMasking(1, 1, 0)) # every word is asked
    batch, alone = collate(list(ds)), collate([MASKED(text).input_ids for text in TEXTS])
    assert (batch["labels"] != IGNORE_INDEX).sum() == (alone["labels"] != IGNORE_INDEX).sum() > 20
    with torch.no_grad(): torch.testing.assert_close(model(**batch).loss, model(**alone).loss)


def test_rows_that_are_not_packed_keep_their_mask():
    ds = pack_dataset([[5, 6, 7, 8], [9, 5, 6]], 4) # one text a row
    batch = LMCollator(CAUSAL)(list(ds))
    assert batch["attention_mask"].tolist() == [[1]*4, [1, 1, 1, 0]]
    assert batch["labels"].tolist() == [[5, 6, 7, 8], [9, 5, 6, -100]]
    shifted = [{"input_ids": [5, 6, 7], "position_ids": [2, 3, 4]}] # RoBERTa counts from 2
    assert LMCollator(CAUSAL)(shifted)["labels"].tolist() == [[5, 6, 7]]


def test_a_strategy_of_ones_own_may_hand_back_its_input_as_labels():
    class Same(CausalLabels):
        def __call__(self, input_ids, special_tokens_mask, tokenizer, generator=None):
            return input_ids, input_ids

    batch = LMCollator(CAUSAL, Same())(list(pack_dataset([[5, 6], [7]], 3)))
    assert batch["input_ids"].tolist() == [[5, 6, 7]] and batch["labels"].tolist() == [[5, 6, -100]]


def test_packed_batches_are_reported_shown_and_checked():
    from course_lm.engines import check_one_batch
    from course_lm.models import load_lm
    from course_lm.predictions import lm_predictions
    model, tokenizer = load_lm("tiny")
    batch = LMCollator(tokenizer)(list(pack_dataset([tokenizer(text).input_ids for text in TEXTS], 48)))
    assert batch["attention_mask"].dim() == 4
    scored = (batch["labels"][:, 1:] != IGNORE_INDEX).sum()
    assert lm_predictions(model, tokenizer, batch).scored.sum() == scored
    frame = check_one_batch(model, batch, n_steps=1).set_index("check")
    assert frame.ok["scored padding"] and frame.ok["shape"]
    report = label_report(
        LMCollator(MASKED, BertMasking(0.5), seed=1)(list(packed_rows(MASKED, TEXTS))), MASKED
    )
    assert report["asked for padding"] == report["asked for specials"] == 0 < report["asked"]


def test_evaluation_takes_packed_batches():
    from course_lm.models import load_lm
    from course_lm.perplexity import evaluate_lm
    model, tokenizer = load_lm("tiny")
    docs = [tokenizer(text).input_ids for text in TEXTS]
    collate = LMCollator(tokenizer)
    packed = evaluate_lm(model, [collate(list(pack_dataset(docs, 48)))])
    alone = evaluate_lm(model, [collate(docs)])
    assert packed.tokens == alone.tokens and packed.nats == pytest.approx(alone.nats, rel=1e-5)


@pytest.mark.parametrize("make", [LMCollator(CAUSAL), lambda rows: pad_examples(rows, CAUSAL)])
def test_labels_of_the_users_own_are_not_dropped_without_a_word(make):
    rows = [dict(input_ids=[5, 6, 7]), dict(input_ids=[5, 6, 7], labels=[IGNORE_INDEX, 6, 7])]
    with pytest.raises(ValueError, match="examples have 'labels'"): make(rows)


# ---- what lesson 30 says, held here


def test_every_outcome_of_four_tosses_has_its_probability():
    rng, n, p = numpy_generator(0), 100_000, .3
    rows = np.zeros((n, 4), int)
    rows.ravel()[sample_positions(4*n, p, rng)] = 1
    outcomes = np.bincount(rows @ [8, 4, 2, 1], minlength=16)
    for k, hits in enumerate(outcomes): assert within(hits, n, p**k.bit_count() * (1-p)**(4-k.bit_count()))


def test_what_masking_leaves_alone_whatever_chance_does():
    ids = torch.tensor([MASKED("the cat sat on the mat").input_ids])
    special, before = torch.from_numpy(special_table(MASKED)[ids]), ids.clone()
    read, labels = BertMasking(.5)(ids, special, MASKED, 3)
    chosen = labels != IGNORE_INDEX
    assert chosen.any() and torch.equal(ids, before) and torch.equal(read[~chosen], ids[~chosen])
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(BertMasking(.5)(ids, special, MASKED, 3)[0], read)
    assert (BertMasking(0)(ids, special, MASKED)[1] == IGNORE_INDEX).all()
    hidden = BertMasking(1, 1, 0)(ids, special, MASKED)[0] == MASKED.mask_token_id
    assert torch.equal(hidden, ~special)


def test_causal_labels_equal_the_ids_and_are_another_tensor():
    ids = torch.tensor([[5, 6, 7, 8]])
    read, labels = CausalLabels()(ids, torch.tensor([[False, False, True, True]]))
    assert read is ids and labels is not ids and labels.tolist() == [[5, 6, -100, -100]]


def test_a_row_s_generator_depends_on_tokens_order_and_seed_alone():
    def draw(ids, seed, kind=np.int64): return row_generator(np.array(ids, kind), seed).random()
    assert draw([1, 2], 0) == draw([1, 2], 0, np.int32)
    assert len({draw([1, 2], 0), draw([1, 2], 1), draw([2, 1], 0)}) == 3


def test_loaders_ask_anew_or_the_same():
    rows = ChunkMatrix(np.random.default_rng(0).integers(5, 280, (60, 32)))

    def labels(collate, size):
        return torch.cat([b["labels"] for b in torch.utils.data.DataLoader(rows, size, collate_fn=collate)])

    frozen, fresh = LMCollator(MASKED, seed=0), LMCollator(MASKED)
    assert torch.equal(labels(frozen, 16), labels(frozen, 16))
    assert torch.equal(labels(frozen, 16), labels(frozen, 50))
    assert not torch.equal(labels(fresh, 16), labels(fresh, 16))


def test_rows_of_a_matrix_are_those_of_the_dataset():
    from datasets import Dataset
    ds = Dataset.from_dict({"input_ids": [[1, 2], [3, 4], [5, 6]]})
    assert not ChunkMatrix(ds)[0]["input_ids"].flags.writeable
    for rows in (ds.select([2, 1]), np.array([[5, 6], [3, 4]])):
        assert ChunkMatrix(rows)[0]["input_ids"].tolist() == [5, 6]
    with raises(ValueError, "needs rows of one length"):
        ChunkMatrix(Dataset.from_dict({"input_ids": [[1], [3, 4]]}))


def small_gpt(size=32):
    from transformers import GPT2Config, GPT2LMHeadModel
    torch.manual_seed(0)
    tiny = dict(n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(CAUSAL), n_positions=size, **tiny)).eval()


def gradient_at(batch, scored):
    "Size of the gradient at each token of the first row, of a loss that scores these positions alone."
    model = small_gpt()
    labels = torch.full_like(batch["labels"], IGNORE_INDEX)
    labels[0, scored] = batch["labels"][0, scored]
    embedded = model.transformer.wte(batch["input_ids"]).detach().requires_grad_()
    rest = {k: v for k, v in batch.items() if k not in ("input_ids", "labels")}
    model(inputs_embeds=embedded, labels=labels, **rest).loss.backward()
    return embedded.grad[0].abs().sum(-1)


def test_no_gradient_crosses_from_one_packed_text_to_the_next():
    first, second = CAUSAL(TEXTS[0]).input_ids, CAUSAL(TEXTS[2]).input_ids
    n, examples = len(first), list(pack_dataset([first, second], len(first) + len(second)))
    ids = examples[0]["input_ids"]
    if list(ids[:n]) != first: n = len(second)  # best fit puts the longer one first
    batch = LMCollator(CAUSAL)(examples)
    assert batch["labels"][0, n] == IGNORE_INDEX != batch["labels"][0, n+1]
    size = gradient_at(batch, slice(n+1, None))
    assert (size[:n] == 0).all() and (size[n:-1] > 0).all()
    lost = LMCollator(CAUSAL)([{"input_ids": row["input_ids"]} for row in examples])
    assert lost["labels"][0, n] == ids[n] and (gradient_at(lost, slice(n+1, None))[:n] > 0).all()


def test_the_boundary_s_question_is_in_the_loss_only_where_positions_are_lost():
    model, docs = small_gpt(24), [CAUSAL(text).input_ids for text in TEXTS]
    examples = list(pack_dataset(docs, 24))
    packed, alone = LMCollator(CAUSAL)(examples), LMCollator(CAUSAL)(docs)
    asked = {**packed, "labels": packed["input_ids"].masked_fill(
        torch.tensor([row["attention_mask"] for row in examples]) == 0, IGNORE_INDEX)}
    with torch.no_grad(): losses = [model(**batch).loss.item() for batch in (alone, packed, asked)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6) and abs(losses[2] - losses[1]) > 1e-4


def test_four_loops_have_one_loss(tmp_path):
    from accelerate import Accelerator
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from torch.nn.functional import cross_entropy
    from transformers import BertConfig, BertForMaskedLM, PrinterCallback, Trainer, TrainingArguments
    import fastai.callback.progress  # noqa: F401, it gives a Learner its no_bar
    torch.manual_seed(0)
    size = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    model = BertForMaskedLM(BertConfig(vocab_size=len(MASKED), max_position_embeddings=32, **size)).eval()
    rows = ChunkMatrix(np.random.default_rng(0).integers(5, 280, (12, 16)))
    collate = LMCollator(MASKED, BertMasking(), seed=0)
    loader = torch.utils.data.DataLoader(rows, batch_size=4, collate_fn=collate)

    class TakesDict(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model
        def forward(self, batch): return self.model(**batch).logits

    def loss(logits, labels): return cross_entropy(logits.flatten(0, 1), labels.flatten())
    with torch.no_grad():
        plain = [model(**batch).loss.item() for batch in loader]
        shared = [model(**batch).loss.item() for batch in Accelerator(cpu=True).prepare(loader)]
    args = TrainingArguments(str(tmp_path), per_device_eval_batch_size=4, use_cpu=True, report_to=[],
                             dataloader_pin_memory=False, disable_tqdm=True)
    trainer = Trainer(model, args, data_collator=collate, eval_dataset=rows)
    trainer.remove_callback(PrinterCallback)
    dls = DataLoaders.from_dsets(rows, rows, bs=4, create_batch=collate.as_fastai())
    learn = Learner(dls, TakesDict(), loss_func=loss)
    with learn.no_bar(): fast = learn.validate()[0]
    assert shared == pytest.approx(plain, abs=1e-5)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(np.mean(plain), abs=1e-4)
    assert fast == pytest.approx(np.mean(plain), abs=1e-4)


def test_causal_labels_are_transformers_own_without_padding():
    from transformers import DataCollatorForLanguageModeling
    rows = [{"input_ids": row.tolist()} for row in np.random.default_rng(0).integers(5, 280, (4, 16))]
    theirs = DataCollatorForLanguageModeling(MASKED, mlm=False)(rows)
    ours = LMCollator(MASKED, CausalLabels())(rows)
    for name in theirs: assert torch.equal(theirs[name], ours[name])


def test_scored_padding_changes_the_loss_with_the_length_and_ours_does_not():
    model, row = small_gpt(), [CAUSAL(TEXTS[0]).input_ids]
    losses = []
    for length in (1, 16, 32):
        batch = LMCollator(CAUSAL, pad_to_multiple_of=length)(row)
        ways = [{**batch, "labels": batch[name]} for name in ("input_ids", "labels")]
        with torch.no_grad(): losses.append([model(**way).loss.item() for way in ways])
    scored, ours = zip(*losses)
    assert len({round(x, 4) for x in scored}) == 3 and ours == pytest.approx([ours[0]]*3, abs=1e-5)


def test_a_pad_token_that_the_vocabulary_or_the_model_lacks():
    bare = deepcopy(CAUSAL)
    bare.pad_token = "[PAD]"
    assert bare.pad_token_id == bare.eos_token_id and len(bare) == len(CAUSAL)
    bare.add_special_tokens({"pad_token": "[NEW]"})
    batch, model = LMCollator(bare)([[5, 6, 7], [8]]), small_gpt()
    assert batch["input_ids"][1, 1] == len(CAUSAL) == len(bare) - 1
    with raises(IndexError, "index out of range"): model(**batch)
    model.resize_token_embeddings(len(bare), mean_resizing=False)
    assert model(**batch).loss.isfinite()


def test_the_report_finds_what_each_suspect_did():
    ids = torch.randint(5, 280, (3000, 44), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, -1] = MASKED.cls_token_id, MASKED.sep_token_id
    special = torch.zeros_like(ids, dtype=torch.bool)
    special[:, [0, -1]] = True

    def report(read, labels): return label_report({"input_ids": read, "labels": labels}, MASKED)
    read, labels = BertMasking()(ids, special, MASKED, 0)
    right = report(read, labels)
    assert [*right.values()][4:] == [0]*4 and abs(right["asked"] - .15) < .005
    assert report(*BertMasking()(ids, special & False, MASKED, 0))["asked for specials"] > .03
    late = report(read, torch.where(labels != IGNORE_INDEX, read, labels))
    assert late["asked for [MASK]"] > .7
    assert report(BertMasking(1)(ids, special, MASKED, 0)[0], labels)["hidden, not asked"] > .6
    unkept = report(read, labels.masked_fill(read == labels, IGNORE_INDEX))
    assert unkept["kept"] == 0 and unkept["asked"] < .14
    assert report(read, ids)["asked"] == 1
    chosen = torch.rand(ids.shape).masked_fill(special, -1).topk(6).indices
    fixed = torch.full_like(ids, IGNORE_INDEX).scatter(1, chosen, ids.gather(1, chosen))
    fewer = report(ids.scatter(1, chosen[:, :4], MASKED.mask_token_id), fixed)
    assert fewer["swapped"] == 0 and fewer["kept"] > .3


def test_a_strategy_that_scores_answers_only():
    class AnswerOnly(CausalLabels):
        def __init__(self, separator): self.separator = separator
        def __call__(self, input_ids, special_tokens_mask, tokenizer, generator=None):
            is_separator = (input_ids == self.separator).long()
            after = is_separator.cumsum(1) - is_separator > 0
            return input_ids, input_ids.masked_fill(~after | special_tokens_mask, IGNORE_INDEX)

    batch = LMCollator(CAUSAL, AnswerOnly(9))([[5, 9, 6, 9, 7], [5, 9, 8]])
    assert batch["labels"].tolist() == [[-100, -100, 6, 9, 7], [-100, -100, 8, -100, -100]]
