"course_lm.labels: laws, statistics and edges that would bore a reader of lesson 3."
import pickle
import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lm.support.randomness import numpy_generator
from course_lm.support.arrow import ChunkMatrix, pad_rows
from course_lm.support.inputs import IGNORE_INDEX, special_table
from course_lm.labels import (
    BertMasking, CausalLabels, Denoising, LMCollator, LabelStrategy, WholeWordMasking,
    show_batch_labels, sample_positions, label_report, masking_explorer, masking_html, ordinary_ids,
    pad_examples, word_starts, word_table)
from course_lm.denoising import SentencePermutation, SpanCorruption, TokenDeletion, sentinel_ids

TEXT = ["the cat sat on the mat. the dog, unhappily, sat on the log."]
# few examples, no deadline: the machine may be busy
quick = settings(max_examples=60, deadline=None)


def tokenizer(masked, sentinels=0):
    from course_lm.data import train_tokenizer
    made = train_tokenizer(TEXT*9, vocab_size=290, masked=masked)
    if sentinels: made.add_special_tokens({"extra_special_tokens": [f"<extra_id_{i}>" for i in range(sentinels)]})
    return made


CAUSAL, MASKED, T5 = tokenizer(False), tokenizer(True), tokenizer(False, 40)
ALL = [(CAUSAL, CausalLabels()), (MASKED, BertMasking(.4)), (MASKED, WholeWordMasking(.4)), (T5, SpanCorruption(.3)), (MASKED, TokenDeletion(.3)),
       (MASKED, SentencePermutation())]
ids_of = st.lists(st.integers(5, 280), min_size=1, max_size=40)


def within(hits, trials, p): return abs(hits - trials*p) < 5*(trials*p*(1-p))**.5


def raises(error, text):
    import re
    return pytest.raises(error, match=re.escape(text))


# ---- imports


def test_import_is_light():
    code = "import sys, course_lm.labels; heavy = {'fastai', 'transformers', 'datasets', 'IPython', 'pandas', 'pyarrow'} & set(sys.modules); assert not heavy, heavy"
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


def test_words_of_byte_level_bpe():
    from course_lm.data import train_tokenizer
    made = train_tokenizer(["Café, Café. it’s \n\tx2 (don't) self.x_1"]*9, 300, masked=True)

    def words(text):
        ids = made(text, add_special_tokens=False).input_ids
        starts = word_starts(np.array([ids]), made)[0]
        cut = np.split(ids, np.flatnonzero(starts)[1:])
        return [made.decode(word) for word in cut]
    assert words("Café, qZq.") == ["Café", ",", " qZq", "."]
    assert words("self.x_1") == ["self", ".", "x", "_", "1"]
    assert words("zq (zq)") == ["zq", " (", "zq", ")"]
    assert words("€9 zé")[-1] == " zé"  # letters of several bytes stay whole


@pytest.mark.parametrize("vocab, starts", [
    ("the un ##happ ##ily .", [1, 1, 0, 0, 1]), ("▁the ▁un happ ily .", [1, 1, 0, 0, 1]), ("the</w> un happ ily</w> .</w>", [1, 1, 0, 0, 1]),
    ("▁the ▁ happ ily ▁.", [1, 1, 0, 0, 1])])
def test_words_of_other_vocabularies(vocab, starts):
    tokens = vocab.split()
    made = word_level("[PAD] [UNK] [MASK]".split() + tokens)
    assert word_starts(np.array([range(3, 3+len(tokens))]), made)[0].tolist() == [bool(s) for s in starts]


def word_level(tokens):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    made = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", mask_token="[MASK]", pad_token="[PAD]")


def test_a_vocabulary_without_words():
    with raises(ValueError, "none of these 4 tokens has one"): word_table(word_level("[PAD] [UNK] [MASK] the".split()))
    with raises(ValueError, "use BertMasking()"): LMCollator(word_level("[PAD] [UNK] [MASK] the".split()), WholeWordMasking())


def test_a_saved_wordpiece_folder_works(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    tokens = "[PAD] [UNK] [CLS] [SEP] [MASK] the mat was un ##happ ##ily .".split()
    made = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]", pad_token="[PAD]").save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    batch = LMCollator(loaded, WholeWordMasking(.5), seed=0)([dict(loaded("the mat was unhappily."))]*50)
    asked = batch["labels"] != IGNORE_INDEX
    assert torch.equal(asked[:, 4:7].all(1), asked[:, 4:7].any(1)) and not asked[:, [0, -1]].any()


# ---- masking


@pytest.mark.parametrize("strategy", [BertMasking(), BertMasking(.3, .5, .5), BertMasking(.4, 1, 0)])
def test_rates_within_5_sigma_over_a_million_tokens(strategy):
    ids = torch.randint(5, len(MASKED), (2000, 520), generator=torch.Generator().manual_seed(0))
    spared = torch.zeros_like(ids, dtype=torch.bool)
    spared[:, 500:] = True
    out, labels = strategy(ids, spared, MASKED, 1)
    asked, luck = labels != IGNORE_INDEX, 1/len(ordinary_ids(MASKED))
    n, hidden, kept = asked.sum().item(), (asked & (out == MASKED.mask_token_id)).sum().item(), (asked & (out == labels)).sum().item()
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
    counts = (BertMasking()(ids, torch.zeros_like(ids, dtype=torch.bool), MASKED, 0)[1] != IGNORE_INDEX).sum(0).double()
    assert .4 < ((counts-3000)**2).sum()/(3000*.85)/50 < 1.8


def test_whole_words_are_asked_whole_and_at_the_rate():
    ids = torch.from_numpy(numpy_generator(0).choice(ordinary_ids(MASKED), (2000, 500)))
    out, labels = WholeWordMasking()(ids, torch.zeros_like(ids, dtype=torch.bool), MASKED, 1)
    starts = word_starts(ids.numpy(), MASKED).ravel()
    asked = (labels != IGNORE_INDEX).numpy().ravel()
    word = np.cumsum(starts) - 1
    share = np.bincount(word, asked)/np.bincount(word)
    assert set(np.unique(share)) == {0, 1}
    assert within(share.sum(), starts.sum(), .15)
    assert within((asked & (out == MASKED.mask_token_id).numpy().ravel()).sum(), asked.sum(), .8)


def test_whole_words_stop_at_what_is_spared():
    ids, spared = torch.tensor([[20, 20, 20, 20]]), torch.tensor([[False, True, False, False]])
    assert word_starts(ids.numpy(), MASKED, spared.numpy()).tolist()[0][:3] == [True]*3
    labels = WholeWordMasking(1)(ids, spared, MASKED, 0)[1]
    assert (labels != IGNORE_INDEX).tolist() == [[True, False, True, True]]


def test_agrees_with_transformers_in_distribution():
    from transformers import DataCollatorForLanguageModeling
    peer = DataCollatorForLanguageModeling(MASKED, seed=0)
    ids = torch.randint(5, len(MASKED), (1000, 500), generator=torch.Generator().manual_seed(0))
    special = torch.zeros_like(ids, dtype=torch.bool)
    theirs, ours = peer.torch_mask_tokens(ids.clone(), special), BertMasking()(ids, special, MASKED, 0)
    a, b = (label_report(dict(input_ids=i, labels=l), MASKED) for i, l in (theirs, ours))
    for name, of in (("asked", 5e5), ("hidden", 75000), ("swapped", 75000), ("kept", 75000)):
        p = (a[name] + b[name])/2
        assert abs(a[name] - b[name]) < 5*(2*p*(1-p)/of)**.5 + (.005 if name in ("swapped", "kept") else 0) # they may draw specials and the token itself


@pytest.mark.parametrize("rates, text", [((15,), "prob = 15"), ((-.1,), "prob = -0.1"), ((.15, 1.2), "mask = 1.2"), ((.15, .9, .2), "mask + random")])
def test_impossible_rates(rates, text):
    with raises(ValueError, text): BertMasking(*rates)


# ---- encoder-decoders


def restore(source, target, marks):
    spans = [span for span in np.split(target, np.flatnonzero(np.isin(target, marks))) if len(span)]
    spans = {span[0]: span[1:] for span in spans}
    return np.concatenate([spans[i] if i in spans else [i] for i in source])


@quick
@given(ids_of, st.floats(.01, .9), st.floats(1, 6), st.integers(0, 99), st.sets(st.integers(0, 39)))
def test_spans_put_back_make_the_text_again(ids, prob, mean_span, seed, specials):
    ids, spared = np.array(ids), np.isin(np.arange(len(ids)), list(specials))
    ids[spared] = 0
    strategy, marks = SpanCorruption(prob, mean_span), sentinel_ids(T5)
    n = int((~spared).sum())
    source, target = strategy.corrupt(ids, spared, T5, numpy_generator(seed))
    assert restore(source, target[:-1], marks).tolist() == ids.tolist()
    assert target[-1] == T5.eos_token_id
    removed, spans = strategy.counts(n)
    assert (~np.isin(target[:-1], marks)).sum() == removed
    assert np.isin(source, marks).sum() >= spans and (source == 0).sum() == spared.sum() # a special token inside splits a span, and stays


def test_span_sizes_follow_from_the_length():
    assert SpanCorruption().counts(568) == (85, 28)
    assert [SpanCorruption().counts(n) for n in (0, 1, 2, 5)] == [(0, 0), (0, 0), (1, 1), (1, 1)]
    ids = torch.randint(5, 280, (50, 60))
    batch = SpanCorruption()(ids, torch.zeros_like(ids, dtype=torch.bool), T5, 0)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (50, 60-9+3) and batch["labels"].shape == (50, 9+3+2)
    assert batch["attention_mask"].all() and (batch["labels"] != IGNORE_INDEX).all()


def test_span_starts_are_spread_over_the_row():
    ids = np.full(40, 9)
    gone = sum(SpanCorruption(.25).choose(40, numpy_generator(seed)).astype(int) for seed in range(2000))
    assert gone.sum() == 2000*10 and gone[0] == 0 and gone[1:].min() > 100


def test_sentinels():
    with raises(ValueError, "no <extra_id_0>"): LMCollator(CAUSAL, SpanCorruption())
    with raises(ValueError, "spans need"): SpanCorruption(.5, 1).corrupt(np.full(200, 9), np.zeros(200, bool), T5, numpy_generator(0))
    assert sentinel_ids(T5).tolist() == T5.convert_tokens_to_ids([f"<extra_id_{i}>" for i in range(40)])


@pytest.mark.parametrize("make, text", [(lambda: SpanCorruption(0), "prob = 0"), (lambda: SpanCorruption(.1, .5), "mean_span = 0.5"), (lambda: TokenDeletion(1), "prob = 1")])
def test_impossible_damage(make, text):
    with raises(ValueError, text): make()


def test_deletion_takes_its_share_and_no_special():
    ids = np.full(10**6, 9)
    ids[::10] = 2
    source, target = TokenDeletion().corrupt(ids, ids == 2, MASKED, numpy_generator(0))
    assert within(len(ids) - len(source), 900_000, .15) and (source == 2).sum() == 100_000 and target is ids
    one = np.array([9])
    assert all(len(TokenDeletion(.9).corrupt(one, one == 2, MASKED, numpy_generator(seed))[0]) == 1 for seed in range(9))


def test_sentences_move_as_wholes_inside_their_document():
    text = "the cat sat. on the mat. the dog sat."
    ids = np.array(MASKED(text).input_ids + MASKED("the log. the cat.").input_ids)
    specials = special_table(MASKED)[ids]
    seen = set()
    for seed in range(60):
        source, target = SentencePermutation().corrupt(ids, specials, MASKED, numpy_generator(seed))
        assert target.tolist() == ids.tolist() and (source[specials] == ids[specials]).all()
        first, second = MASKED.decode(source).split("[SEP]")[:2]
        assert sorted(first.removeprefix("[CLS]").replace(".", ". ").split()) == sorted(text.replace(".", ". ").split())
        assert second.count(".") == 2
        seen.add(first)
    assert len(seen) == 6


def test_own_denoising_needs_one_method():
    class Reverse(Denoising):
        def corrupt(self, ids, spared, tokenizer, rng): return ids[::-1], ids
    batch = LMCollator(CAUSAL, Reverse())([[5, 6, 7], [8]])
    assert batch["input_ids"].tolist() == [[7, 6, 5], [8, 1, 1]] and batch["labels"].tolist() == [[5, 6, 7], [8, -100, -100]]
    with raises(NotImplementedError, "Denoising needs a corrupt"): LMCollator(CAUSAL, Denoising())([[5]])
    with raises(NotImplementedError, "LabelStrategy needs a __call__"): LMCollator(CAUSAL, LabelStrategy())([[5]])


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
@given(st.lists(ids_of, min_size=2, max_size=5), st.sampled_from(["left", "right"]), st.sampled_from([None, 8]))
def test_frozen_masks_depend_on_nothing_but_the_example(rows, side, multiple):
    for made, strategy in ALL[1:]:
        padded = deepcopy(made)
        padded.padding_side = side
        alone, together = LMCollator(made, strategy, seed=1), LMCollator(padded, strategy, seed=1, pad_to_multiple_of=multiple)
        batch = together(rows[::-1])
        for row, i in zip(rows, reversed(range(len(rows)))):
            one, real = alone([row]), batch["attention_mask"][i].bool()
            assert batch["input_ids"][i][real].tolist() == one["input_ids"][0].tolist()
            asked, ours = batch["labels"][i], one["labels"][0]
            assert (asked[asked != -100].tolist() if isinstance(strategy, Denoising) else asked[real].tolist()) == \
                   (ours[ours != -100].tolist() if isinstance(strategy, Denoising) else ours.tolist())


def test_another_seed_is_another_mask():
    rows = [list(range(5, 200))]
    a, b = (LMCollator(MASKED, BertMasking(), seed=seed)(rows)["labels"] for seed in (0, 1))
    assert not torch.equal(a, b)


def test_fresh_masks_follow_torch_seed_and_generators():
    rows = [list(range(5, 200))]*4

    def two(collator): return collator(rows)["labels"], collator(rows)["labels"]
    collator = LMCollator(MASKED, BertMasking())
    torch.manual_seed(0); a, b = two(collator)
    torch.manual_seed(0); c, d = two(collator)
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
        loader = torch.utils.data.DataLoader(rows, batch_size=4, num_workers=2, collate_fn=LMCollator(MASKED, BertMasking(), **kw))
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
    asked[:, 1:] &= real[:, :-1] # a token behind padding is predicted from a pad: not asked for, no more than the first token of a row ever counts
    asked[:, 0] = real[:, 0]
    assert (batch["labels"][asked] == batch["input_ids"][asked]).all() and (batch["labels"][~asked] == IGNORE_INDEX).all()
    assert (batch["labels"] == 0).sum() == 2
    right = LMCollator(CAUSAL)([[5, 6, 0], [7, 0]])
    assert (batch["labels"][:, 1:] != IGNORE_INDEX).sum() == (right["labels"][:, 1:] != IGNORE_INDEX).sum() == 3


def test_padding_that_the_examples_bring_along():
    examples = [{"input_ids": [5, 6, 0, 0], "attention_mask": [1, 1, 0, 0]}, {"input_ids": [5, 6, 7, 0], "attention_mask": [1, 1, 1, 1]}]
    for seed in (None, 0):
        batch = LMCollator(CAUSAL, seed=seed)(examples)
        assert batch["labels"].tolist() == [[5, 6, -100, -100], [5, 6, 7, 0]] and batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def test_columns_of_the_examples():
    examples = [{"input_ids": [5, 6, 7], "special_tokens_mask": [0, 1, 0], "position_ids": [0, 1, 0], "text": "dropped"},
                {"input_ids": [8], "special_tokens_mask": [1], "position_ids": [0], "text": "too"}]
    batch = LMCollator(MASKED, BertMasking(1, 1, 0))(examples)
    assert batch["position_ids"].tolist() == [[0, 1, 0], [0, 0, 0]] and "text" not in batch and "special_tokens_mask" not in batch
    assert batch["labels"].tolist() == [[5, -100, 7], [-100]*3]
    assert [*LMCollator(MASKED)(examples)][:2] == ["input_ids", "attention_mask"]


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda row: np.array(row, np.int32)])
def test_rows_of_any_kind(kind):
    for wrap in (lambda row: row, lambda row: {"input_ids": row}):
        batch = LMCollator(CAUSAL, pad_to_multiple_of=4)([wrap(kind([5, 6, 7])), wrap(kind([8]))])
        assert batch["input_ids"].tolist() == [[5, 6, 7, 1], [8, 1, 1, 1]] and all(column.dtype == torch.int64 for column in batch.values())


def test_what_a_tokenizer_returns_is_an_example():
    batch = LMCollator(MASKED)([MASKED("the cat"), MASKED("the")])
    assert batch["input_ids"].shape == (2, 4)


@pytest.mark.parametrize("examples, text", [
    ([], "examples is empty"), ([{"text": "x"}], "these have text"), ([[[5]]], "shape (1, 1)"), ([[.5]], "not float64"), ([{"input_ids": [5], "attention_mask": [1, 1]}], "equally long"),
    ([{"input_ids": [5], "attention_mask": [1]}, {"input_ids": [5]}], "every example needs one"), ([[10**6]], "made with another one"), ([[-1]], "hold -1 to -1")])
def test_examples_that_make_no_batch(examples, text):
    with raises(ValueError, text): LMCollator(MASKED, BertMasking())(examples)


def test_arguments_that_make_no_collator():
    with raises(TypeError, "BertMasking(), not the class"): LMCollator(MASKED, BertMasking)
    with raises(TypeError, "use seed=3"): LMCollator(MASKED, BertMasking(), generator=3)
    with raises(ValueError, "give one of the two"): LMCollator(MASKED, BertMasking(), seed=1, generator=torch.Generator())
    with raises(ValueError, "needs a mask token"): LMCollator(CAUSAL, BertMasking())
    bare = deepcopy(CAUSAL)
    bare.pad_token = None
    with raises(ValueError, "tokenizer has no pad token"): LMCollator(bare)([[5], [5, 6]])
    with raises(ValueError, "tokenizer has no pad token"): LMCollator(bare, pad_to_multiple_of=4)([[5]])
    with raises(ValueError, "tokenizer has no pad token"): LMCollator(bare, TokenDeletion())
    assert LMCollator(bare)([[5], [6]])["labels"].tolist() == [[5], [6]]


def test_a_strategy_that_returns_other_shapes_is_named():
    class Moved(LabelStrategy):
        def __call__(self, input_ids, special_tokens_mask, tokenizer, generator=None): return input_ids, input_ids[:, 1:]
    with raises(ValueError, "Moved() returned input_ids (1, 2) and labels (1, 1)"): LMCollator(CAUSAL, Moved())([[5, 6]])


def test_empty_rows_are_all_padding():
    assert pad_rows([[1, 2], []], 0, 4, "left").tolist() == [[0, 0, 1, 2], [0]*4]
    for made, strategy in ALL:
        for seed in (None, 0): assert LMCollator(made, strategy, seed=seed)([[5, 6, 7], []])["attention_mask"][1].sum() == 0
    assert pad_examples([[5], []], CAUSAL)["attention_mask"].tolist() == [[1], [0]]


# ---- the shift, proved for several models


@pytest.mark.parametrize("name", ["GPT2", "Llama", "GPTNeoX"])
def test_causal_models_shift_by_themselves(name):
    import transformers
    from torch.nn.functional import cross_entropy
    torch.manual_seed(0)
    size = dict(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=32)
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


def test_t5_and_bart_take_the_batches():
    from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=len(T5), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=1, pad_token_id=1))
    bart = BartForConditionalGeneration(BartConfig(vocab_size=len(MASKED), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
                                                   encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64, pad_token_id=0, bos_token_id=2, eos_token_id=3,
                                                   decoder_start_token_id=3))
    for model, made, strategy in ((t5, T5, SpanCorruption()), (bart, MASKED, TokenDeletion()), (bart, MASKED, SentencePermutation())):
        batch = LMCollator(made, strategy)([made(text).input_ids for text in ("the cat sat. on the mat.", "the dog")])
        assert model(**batch).loss.isfinite()


# ---- rows straight from Arrow


def chunks(n=10, length=8):
    from datasets import Dataset
    return Dataset.from_dict({"input_ids": np.arange(n*length).reshape(n, length).tolist(), "attention_mask": np.ones((n, length), int).tolist()})


def test_chunk_matrix_equals_the_dataset_however_it_is_stored():
    from datasets import concatenate_datasets
    plain = chunks()
    for ds in (plain, plain.select(range(3, 9)), plain.select([5, 1, 1]), plain.shuffle(seed=0), concatenate_datasets([plain, plain.select([2])]), plain.with_format("numpy")):
        rows = ChunkMatrix(ds)
        expected = ds.with_format(None)
        assert len(rows) == len(ds)
        for got, want in zip(rows, expected): assert {name: row.tolist() for name, row in got.items()} == want
        assert rows[-1]["input_ids"].tolist() == expected[-1]["input_ids"]
        with raises(IndexError, "out of range"): rows[len(rows)]


def test_chunk_matrix_over_several_pieces_of_arrow():
    from datasets import concatenate_datasets
    ds = concatenate_datasets([chunks(300), chunks(400)])
    rows = ChunkMatrix(ds)
    assert [len(part) for part in rows.columns["input_ids"]] == [300, 400] and len(rows) == 700
    for i in (0, 299, 300, 301, -1): assert rows[i]["input_ids"].tolist() == ds[i]["input_ids"]


def test_chunk_matrix_copies_nothing_and_guards_the_file(tmp_path):
    from datasets import load_from_disk
    chunks().save_to_disk(tmp_path/"chunks")
    rows = ChunkMatrix(load_from_disk(tmp_path/"chunks"))
    with pytest.raises(ValueError, match="read-only"): rows[0]["input_ids"][0] = 1
    again = pickle.loads(pickle.dumps(rows))
    assert again[3]["input_ids"].tolist() == rows[3]["input_ids"].tolist()
    assert np.shares_memory(rows[0]["input_ids"], rows.columns["input_ids"][0])


def test_chunk_matrix_refuses():
    from datasets import Dataset
    with raises(ValueError, "rows of one length, and these have 2"): ChunkMatrix(Dataset.from_dict({"input_ids": [[1, 2], [3]]}))
    with raises(ValueError, "there is only text"): ChunkMatrix(Dataset.from_dict({"text": ["a"]}))
    with raises(ValueError, "shape (5,)"): ChunkMatrix(np.arange(5))


# ---- training loops


def test_fastai_both_ways_and_pickled():
    from fastai.data.core import DataLoaders, TfmdDL
    rows = ChunkMatrix(np.random.default_rng(0).integers(5, 280, (12, 16)))
    make = pickle.loads(pickle.dumps(LMCollator(MASKED, BertMasking(), seed=0).as_fastai()))
    want = LMCollator(MASKED, BertMasking(), seed=0)([rows[i] for i in range(4)])
    one = DataLoaders.from_dsets(rows, rows, batch_size=4, create_batch=make).valid.one_batch()
    two = TfmdDL([torch.from_numpy(row["input_ids"]) for row in rows], batch_size=4, after_batch=[make]).one_batch()
    for batch, labels in (one, two):
        assert torch.equal(labels.as_subclass(torch.Tensor), want["labels"]) and torch.equal(batch["input_ids"].as_subclass(torch.Tensor), want["input_ids"])


def test_trainer_takes_dataset_and_matrix_alike(tmp_path):
    from datasets import Dataset
    from transformers import BertConfig, BertForMaskedLM, PrinterCallback, Trainer, TrainingArguments
    ds = Dataset.from_dict({"input_ids": np.random.default_rng(0).integers(5, 280, (12, 16)).tolist(), "note": ["x"]*12})
    losses = []
    for data in (ds, ChunkMatrix(ds)):
        torch.manual_seed(0)
        model = BertForMaskedLM(BertConfig(vocab_size=len(MASKED), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=32))
        args = TrainingArguments(str(tmp_path), max_steps=2, per_device_train_batch_size=4, use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no",
                                 dataloader_pin_memory=False, seed=0)
        trainer = Trainer(model, args, train_dataset=data, data_collator=LMCollator(MASKED, BertMasking()))
        trainer.remove_callback(PrinterCallback)
        losses.append(trainer.train().training_loss)
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_accelerate_takes_the_collator():
    from accelerate import Accelerator
    rows = ChunkMatrix(np.random.default_rng(0).integers(5, 280, (12, 16)))
    collate = LMCollator(MASKED, BertMasking(), seed=0)
    here = [collate([rows[j] for j in range(i, i+4)]) for i in (0, 4, 8)]
    loader = Accelerator(cpu=True).prepare(torch.utils.data.DataLoader(rows, batch_size=4, collate_fn=collate))
    for got, want in zip(loader, here, strict=True): assert all(torch.equal(got[k], want[k]) for k in want)


# ---- pictures


def test_batch_html_says_what_is_asked():
    page = show_batch_labels(LMCollator(CAUSAL)([[5, 6, 0], [7, 0]]), CAUSAL).data
    assert "2 of 3 positions" in page and "1 of 3 positions" in page
    assert "color:#222" in page and "<script" not in page and "<style" not in page
    assert show_batch_labels(LMCollator(CAUSAL)([[5]*30]), CAUSAL, length=30, width=10).data.count("<table") == 3
    hidden = show_batch_labels(LMCollator(MASKED, BertMasking(1, 1, 0))([MASKED("the cat").input_ids]), MASKED).data
    assert "2 hidden" in hidden and "[MASK]" in hidden
    repaired = show_batch_labels(LMCollator(T5, SpanCorruption())([T5(TEXT[0]).input_ids]), T5).data
    assert "written" in repaired and "&lt;extra_id_0&gt;" in repaired


def test_batch_html_escapes_text():
    from course_lm.data import train_tokenizer
    made = train_tokenizer(["a <b> c"]*20, vocab_size=262)
    assert "<b>" not in show_batch_labels(LMCollator(made)([made("a <b> c").input_ids]), made).data


def test_the_explorer_draws_what_the_sliders_say():
    explorer = masking_explorer("the cat sat on the mat", MASKED)
    explorer.children[0].value = 1.
    assert explorer.kwargs["prob"] == 1
    page = masking_html("the cat", MASKED, prob=1, mask=1, random=1).data
    assert "2 hidden" in page
    assert masking_html("the cat", MASKED, whole_words=True, seed=4).data == masking_html("the cat", MASKED, whole_words=True, seed=4).data


def test_label_report_counts_by_hand():
    m = MASKED.mask_token_id
    batch = {"input_ids": torch.tensor([[2, m, 6, 7, 8, m, 3, 0]]), "labels": torch.tensor([[-100, 5, 6, 9, -100, -100, 3, 0]]),
             "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1, 1, 0]])}
    got = label_report(batch, MASKED)
    assert got["asked"] == 3/5 and got["hidden"] == 1/5 and got["kept"] == 3/5 and got["swapped"] == 1/5
    assert got["hidden, not asked"] == 1/5 and got["asked for [MASK]"] == 0 and got["asked for specials"] == 1/5 and got["asked for padding"] == 1/5
    late = label_report({"input_ids": torch.tensor([[5, m]]), "labels": torch.tensor([[-100, m]])}, MASKED)
    assert late["hidden"] == 1 and late["kept"] == 0 and late["asked for [MASK]"] == 1
