"""Tests of course_lm.denoising: words, spans, deletion and permutation."""
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lm.data import train_tokenizer
from course_lm.denoising import (
    Denoising,
    SentencePermutation,
    SpanCorruption,
    TokenDeletion,
    WholeWordMasking,
    sentinel_ids,
    word_starts,
    word_table,
)
from course_lm.labels import (
    LMCollator, LabelStrategy, masking_explorer, ordinary_ids, show_batch_labels, show_masking)
from course_lm.support.inputs import IGNORE_INDEX, special_table
from course_lm.support.randomness import numpy_generator

from .made import CAUSAL, MASKED, T5, TEXT, ids_of, quick, raises, within


def test_words_of_byte_level_bpe():
    made = train_tokenizer(["Café, Café. it’s \n\tx2 (don't) self.x_1"]*9, 300, masked=True)

    def words(text):
        ids = made(text, add_special_tokens=False).input_ids
        starts = word_starts(np.array([ids]), made)[0]
        cut = np.split(ids, np.flatnonzero(starts)[1:])
        return [made.decode(word) for word in cut]
    assert words("Café, qZq.") == ["Café", ",", " qZq", "."]
    assert words("self.x_1") == ["self", ".", "x_1"]
    assert words("zq (zq)") == ["zq", " (", "zq", ")"]
    assert words("€9 zé")[-1] == " zé"  # letters of several bytes stay whole


@pytest.mark.parametrize(
    "vocab, starts",
    [
        ("the un ##happ ##ily .", [1, 1, 0, 0, 1]),
        ("▁the ▁un happ ily .", [1, 1, 0, 0, 1]),
        ("the</w> un happ ily</w> .</w>", [1, 1, 0, 0, 1]),
        ("▁the ▁ happ ily ▁.", [1, 1, 0, 0, 1]),
    ],
)
def test_words_of_other_vocabularies(vocab, starts):
    tokens = vocab.split()
    made = word_level("[PAD] [UNK] [MASK]".split() + tokens)
    assert word_starts(np.array([range(3, 3+len(tokens))]), made)[0].tolist() == [bool(s) for s in starts]


def word_level(tokens):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    made = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", mask_token="[MASK]", pad_token="[PAD]"
    )


def test_a_vocabulary_without_words():
    with raises(ValueError, "none of these 4 tokens has one"):
        word_table(word_level("[PAD] [UNK] [MASK] the".split()))
    with raises(ValueError, "use BertMasking()"):
        LMCollator(word_level("[PAD] [UNK] [MASK] the".split()), WholeWordMasking())


def test_a_saved_wordpiece_folder_works(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    tokens = "[PAD] [UNK] [CLS] [SEP] [MASK] the mat was un ##happ ##ily .".split()
    made = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        pad_token="[PAD]",
    ).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    batch = LMCollator(loaded, WholeWordMasking(.5), seed=0)([dict(loaded("the mat was unhappily."))]*50)
    asked = batch["labels"] != IGNORE_INDEX
    assert torch.equal(asked[:, 4:7].all(1), asked[:, 4:7].any(1)) and not asked[:, [0, -1]].any()


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
    assert (
        np.isin(source, marks).sum() >= spans and (source == 0).sum() == spared.sum()
    )  # a special token inside splits a span, and stays


def test_span_sizes_follow_from_the_length():
    assert SpanCorruption().counts(568) == (85, 28)
    assert [SpanCorruption().counts(n) for n in (0, 1, 2, 5)] == [(0, 0), (0, 0), (1, 1), (1, 1)]
    ids = torch.randint(5, 280, (50, 60))
    batch = SpanCorruption()(ids, torch.zeros_like(ids, dtype=torch.bool), T5, 0)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (50, 60-9+3)
    assert batch["labels"].shape == (50, 9+3+2)
    assert batch["attention_mask"].all() and (batch["labels"] != IGNORE_INDEX).all()


def test_span_starts_are_spread_over_the_row():
    gone = sum(SpanCorruption(.25).choose(40, numpy_generator(seed)).astype(int) for seed in range(2000))
    assert gone.sum() == 2000*10 and gone[0] == 0 and gone[1:].min() > 100


def test_sentinels():
    with raises(ValueError, "no <extra_id_0>"): LMCollator(CAUSAL, SpanCorruption())
    with raises(ValueError, "spans need"):
        SpanCorruption(0.5, 1).corrupt(np.full(200, 9), np.zeros(200, bool), T5, numpy_generator(0))
    assert sentinel_ids(T5).tolist() == T5.convert_tokens_to_ids([f"<extra_id_{i}>" for i in range(40)])


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: SpanCorruption(0), "prob=0"),
        (lambda: SpanCorruption(0.1, 0.5), "mean_span=0.5"),
        (lambda: TokenDeletion(1), "prob=1 must be"),
    ],
)
def test_impossible_damage(make, text):
    with raises(ValueError, text): make()


def test_deletion_takes_its_share_and_no_special():
    ids = np.full(10**6, 9)
    ids[::10] = 2
    source, target = TokenDeletion().corrupt(ids, ids == 2, MASKED, numpy_generator(0))
    assert within(len(ids) - len(source), 900_000, .15) and (source == 2).sum() == 100_000 and target is ids
    one = np.array([9])
    assert all(
        len(TokenDeletion(0.9).corrupt(one, one == 2, MASKED, numpy_generator(seed))[0]) == 1
        for seed in range(9)
    )


def test_sentences_move_as_wholes_inside_their_document():
    text = "the cat sat. on the mat. the dog sat."
    ids = np.array(MASKED(text).input_ids + MASKED("the log. the cat.").input_ids)
    specials = special_table(MASKED)[ids]
    seen = set()
    for seed in range(60):
        source, target = SentencePermutation().corrupt(ids, specials, MASKED, numpy_generator(seed))
        assert target.tolist() == ids.tolist() and (source[specials] == ids[specials]).all()
        first, second = MASKED.decode(source).split("[SEP]")[:2]
        assert sorted(first.removeprefix("[CLS]").replace(".", ". ").split()) == sorted(
            text.replace(".", ". ").split()
        )
        assert second.count(".") == 2
        seen.add(first)
    assert len(seen) == 6


def test_own_denoising_needs_one_method():
    class Reverse(Denoising):
        def corrupt(self, ids, spared, tokenizer, rng): return ids[::-1], ids
    batch = LMCollator(CAUSAL, Reverse())([[5, 6, 7], [8]])
    assert batch["input_ids"].tolist() == [[7, 6, 5], [8, 1, 1]] and batch["labels"].tolist() == [
        [5, 6, 7],
        [8, -100, -100],
    ]
    with raises(NotImplementedError, "Denoising needs a corrupt"): LMCollator(CAUSAL, Denoising())([[5]])
    with raises(NotImplementedError, "LabelStrategy needs a __call__"):
        LMCollator(CAUSAL, LabelStrategy())([[5]])


def test_t5_and_bart_take_the_batches():
    from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

    t5 = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(T5),
            d_model=16,
            d_kv=8,
            d_ff=32,
            num_layers=1,
            num_heads=2,
            decoder_start_token_id=1,
            pad_token_id=1,
        )
    )
    bart = BartForConditionalGeneration(
        BartConfig(
            vocab_size=len(MASKED),
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
            decoder_start_token_id=3,
        )
    )
    for model, made, strategy in (
        (t5, T5, SpanCorruption()),
        (bart, MASKED, TokenDeletion()),
        (bart, MASKED, SentencePermutation()),
    ):
        batch = LMCollator(made, strategy)(
            [made(text).input_ids for text in ("the cat sat. on the mat.", "the dog")]
        )
        assert model(**batch).loss.isfinite()


def test_packed_rows_are_refused():
    rows = [{"input_ids": [5, 6, 7], "position_ids": [0, 1, 0]}]
    with raises(ValueError, "cannot keep packed texts apart"): LMCollator(MASKED, TokenDeletion())(rows)
    rows[0]["position_ids"] = [0, 1, 2]
    assert LMCollator(MASKED, TokenDeletion())(rows)["labels"].tolist() == [[5, 6, 7]]


def test_pictures():
    repaired = show_batch_labels(LMCollator(T5, SpanCorruption())([T5(TEXT[0]).input_ids]), T5).data
    assert "written" in repaired and "&lt;extra_id_0&gt;" in repaired
    first, second = (show_masking("the cat", MASKED, WholeWordMasking, seed=4).data for _ in range(2))
    assert first == second
    explorer = masking_explorer("the cat sat on the mat", MASKED, WholeWordMasking)
    explorer.children[0].value = 1.
    assert explorer.kwargs["prob"] == 1


# ---- the experiment of lesson 31


def test_the_answer_stands_in_nothing_that_a_model_reads():
    from benchmarks.experiments.objectives import question
    row, at = list(range(100, 164)), 30
    for objective in ("causal", "masked", "span", "denoising"):
        made = T5_MASKED if objective == "span" else MASKED
        for both in (False, True):
            read, written, place = question(objective, row, at, made, both)
            assert row[at] not in read and row[at] not in (written or [])
            right = set(row[at+1:]) & set(read)
            assert right == (set(row[at+1:]) if both and objective != "causal" else set())
            assert not set(row[at+1:]) & set(written or []) and place < len(written or read)


def sentinels_for(made):
    from copy import deepcopy
    grown = deepcopy(made)
    grown.add_special_tokens({"extra_special_tokens": [f"<extra_id_{i}>" for i in range(40)]})
    return grown


T5_MASKED = sentinels_for(MASKED)


def test_every_objective_trains_is_kept_and_goes_on(tmp_path):
    from benchmarks.bench import kept
    from benchmarks.experiments.objectives import OBJECTIVES, Settings, main
    few = dict(reviews=40, held_out=20, places=10, probes=20, seeds=(0,))
    small = Settings(vocab_size=400, batch_size=2, n_steps=2, eval_every=2, n_layer=2, n_embd=16, **few)
    main(tmp_path/"found.json", small)
    found = kept(tmp_path/"found.json")
    assert [r["objective"] for r in found["runs"]] == [*OBJECTIVES]
    scored = {r["objective"]: r["tokens_scored_per_step"] for r in found["runs"]}
    assert scored["causal"] == 2*63 and scored["denoising"] == 2*64 and 0 < scored["masked"] < 2*64*.4
    before = (tmp_path/"found.json").read_bytes()
    main(tmp_path/"found.json", small)
    assert (tmp_path/"found.json").read_bytes() == before, "what is there is not run again"


def test_the_record_says_what_lesson_31_says():
    from benchmarks.bench import kept, results
    found = kept(results/"objectives.json")
    last = {(r["objective"], r["seed"]): r["curve"][-1] for r in found["runs"]}
    assert len(last) == 12 and {"cpu", "date", "torch"} <= set(found["machine"])
    for seed in (0, 1, 2):
        causal, masked, span, both = (last[name, seed] for name in ("causal", "masked", "span", "denoising"))
        assert causal["both_right"] == causal["left_right"] > masked["both_right"] > span["both_right"] + .3
        assert masked["both_right"] > masked["left_right"] + .15
        assert abs(both["both_right"] - both["left_right"]) < .01


def test_first_tokens_stay_and_last_ones_go_as_in_t5():
    gone = [SpanCorruption().choose(40, numpy_generator(seed)) for seed in range(100)]
    assert not any(row[0] for row in gone) and all(row[-1] for row in gone)


def test_tokens_asked_in_a_row_follow_the_binomial_law():
    from math import comb
    from course_lm.labels import BertMasking
    ids = torch.full((20_000, 126), 9)
    labels = BertMasking()(ids, torch.zeros_like(ids, dtype=torch.bool), MASKED, 0)[1]
    counts = np.bincount((labels != IGNORE_INDEX).sum(1).numpy(), minlength=127)
    for k in range(8, 32): assert within(counts[k], len(ids), comb(126, k) * .15**k * .85**(126-k))
