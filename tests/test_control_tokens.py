"""Control tokens written inside a text are letters of it, in every lesson; an argument says otherwise."""
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from course_lm.chunking import lm_datasets, tokenize_dataset
from course_lm.classification import encode_reviews
from course_lm.data import train_tokenizer
from course_lm.labels import show_masking
from course_lm.predictions import fill_mask, generate_text
from course_lm.scoring import pseudo_perplexity, score_texts, surprisal
from course_lm.scratch import fertility
from course_lm.support.inputs import around, encode_texts
from course_lm.windows import encode_head_tail, encode_windows

from .conftest import SENTENCES
from .test_words import _metaspace

COMMANDS = "</s> [MASK] <|endoftext|> [SEP] <pad> <mask> x < / s > [ ] M A S K | e n d o f t"
MAKERS = {"byte-level": lambda texts: train_tokenizer(texts, 300),
          "byte-level, masked": lambda texts: train_tokenizer(texts, 300, masked=True),
          "wordpiece": lambda texts: train_tokenizer(texts, 200, "wordpiece"),
          "unigram": lambda texts: train_tokenizer(texts, 320, "unigram"),
          "words": lambda texts: train_tokenizer(texts, 100, "word"),
          "sentencepiece": _metaspace}


@pytest.fixture(scope="module", params=MAKERS)
def made(request): return MAKERS[request.param]([*SENTENCES, *[COMMANDS]*3])


def control(tokenizer): return set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}


@pytest.mark.parametrize("form", ["{}", "the {} cat", "the{}cat {} {}", " {}\n"])
def test_they_are_letters(made, form):
    texts = [form.replace("{}", token) for token in made.all_special_tokens]
    rows, spans = encode_texts(made, texts, offsets=True)
    for text, ids, at in zip(texts, rows, spans):
        assert ids and control(made).isdisjoint(ids) and len(at) == len(ids)
        assert all(0 <= i <= j <= len(text) for i, j in at)
        if made.unk_token_id not in ids or made.unk_token_id == made.eos_token_id: # nothing was lost
            found, true = made.decode(ids).replace("\u2581", " "), text
            assert "".join(found.split()).lower() == "".join(true.split()).lower()
    assert all(a == b for a, b in zip(rows, encode_texts(made, texts)))
    kept = encode_texts(made, texts, split_special_tokens=False)
    assert all(set(ids) & set(made.all_special_ids) for ids in kept)


def test_what_holds_none_is_read_as_ever(made):
    assert encode_texts(made, SENTENCES[:5]) == made(SENTENCES[:5], add_special_tokens=False)["input_ids"]
    assert encode_texts(made, []) == []
    before, after = around(made)
    whole = made(SENTENCES[0])["input_ids"]
    assert [*before, *encode_texts(made, SENTENCES[:1])[0], *after] == whole


def test_every_encoder_reads_them_as_letters(made):
    texts = [f"the {token} cat" for token in made.all_special_tokens]
    before, after = around(made)
    for encode in (encode_reviews, encode_windows, encode_head_tail):
        for ids in encode(texts, made, 64)["input_ids"]:
            assert control(made).isdisjoint(ids[len(before):len(ids)-len(after)])
    for ids in tokenize_dataset(texts, made, add_eos=False)["input_ids"]: assert control(made).isdisjoint(ids)
    as_commands = tokenize_dataset(texts, made, add_eos=False, split_special_tokens=False)["input_ids"]
    assert all(set(ids) & set(made.all_special_ids) for ids in as_commands)
    assert fertility(made, texts) == pytest.approx(sum(map(len, encode_texts(made, texts)))/3/len(texts))


def test_chunks_have_an_end_where_a_text_ends_and_nowhere_else(tok):
    text = "the value <|endoftext|> of a name " * 5
    ends = []
    for split in (True, False):
        chunks = lm_datasets([text], [text + "b"], tok, 16, tail="keep", split_special_tokens=split)["train"]
        ends.append(sum(ids.count(tok.eos_token_id) for ids in chunks["input_ids"]))
    assert ends == [1, 6]
    with pytest.raises(TypeError, match="tokens, not"): lm_datasets([text], ["b"*99], tok, 8, a=1)


def test_scores_and_continuations(tok):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tok), n_positions=64, n_embd=16, n_layer=1, n_head=2)
    model = GPT2LMHeadModel(config).eval()
    text = "the value<|endoftext|>of a"
    score, = score_texts(model, tok, [text])
    assert score.tokens == len(encode_texts(tok, [text])[0]) and score.bytes == len(text)
    as_command, = score_texts(model, tok, [text], split_special_tokens=False)
    assert as_command.tokens < score.tokens
    assert "".join(surprisal(model, tok, text).frame.token) == text
    as_command = surprisal(model, tok, text, split_special_tokens=False)
    assert as_command.frame.token.tolist().count("<|endoftext|>") == 1
    read = []
    model.register_forward_pre_hook(lambda m, a, k: read.append(k["input_ids"]), with_kwargs=True)
    for split in (True, False):
        read.clear()
        generate_text(model, tok, text, 1, temperature=0, split_special_tokens=split)
        assert (tok.eos_token_id in read[0][0, 1:]) == (not split)


def test_only_the_mask_is_a_command_where_a_mask_is_filled(mtok):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(mtok), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=32)
    model, read = BertForMaskedLM(config).eval(), []
    model.register_forward_pre_hook(lambda m, a, k: read.append(k["input_ids"][0].tolist()), with_kwargs=True)
    assert len(fill_mask(model, mtok, "the [MASK] of [SEP] a", top_k=1)) == 1
    assert read[-1].count(mtok.sep_token_id) == 1
    assert mtok.decode(read[-1]) == "[CLS]the[MASK] of [SEP] a[SEP]"
    fill_mask(model, mtok, "the [MASK] of [SEP] a", split_special_tokens=False)
    assert read[-1].count(mtok.sep_token_id) == 2
    text = "the [MASK] name"
    n = len(encode_texts(mtok, [text])[0])
    assert pseudo_perplexity(model, mtok, text).tokens == n
    assert pseudo_perplexity(model, mtok, text, split_special_tokens=False).tokens < n
    assert "hidden" in show_masking("the [SEP] name is [MASK]", mtok, prob=1.).data
