"""Words and sentences in any script, and all that counts or moves them."""
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lm.advice import fragmented_words, tokenizer_fit
from course_lm.baselines import leak_report, linear_baseline, near_duplicates
from course_lm.data import train_tokenizer
from course_lm.denoising import SentencePermutation, WholeWordMasking, sentence_ends, word_starts
from course_lm.labels import LMCollator
from course_lm.scoring import pseudo_perplexity, surprisal
from course_lm.scratch import fertility
from course_lm.support.words import WORD, folded, sentence_spans, word_spans, words_of

# text, its words, its sentences
SCRIPTS = {
    "English": ("The cat sat. Did it? It's 3.5 m!", 10, 3),
    "Hindi": ("हिन्दी भाषा सुन्दर है। वह गया। मैं आया।", 8, 3),
    "Telugu": ("తెలుగు భాష. చాలా బాగుంది.", 4, 2),
    "Bengali": ("বাংলা ভাষা। খুব সুন্দর।", 4, 2),
    "Tamil": ("தமிழ் மொழி. அழகானது.", 3, 2),
    "Arabic, vowelled": ("اللُّغَةُ العَرَبِيَّةُ جَمِيلَةٌ. هل تذهب؟ نعم.", 6, 3),
    "Hebrew, pointed": ("שָׁלוֹם עוֹלָם. מָה שְׁלוֹמְךָ?", 4, 2),
    "Urdu": ("یہ کتاب ہے۔ وہ قلم ہے۔", 6, 2),
    "Persian, joined": ("می\u200cخواهم بروم. خوب است!", 4, 2),
    "French, NFD": ("cafe\u0301 nai\u0308f. Ou\u0300 ?", 3, 2),
    "Vietnamese, NFD": ("tie\u0302\u0301ng Vie\u0323\u0302t. Xin cha\u0300o!", 4, 2),
    "Korean": ("한국어 문장이다. 좋다!", 3, 2),
    "Amharic": ("ሰላም ዓለም። እንዴት ነህ፧", 4, 2),
    "Armenian": ("Բարեւ աշխարհ։ Ինչպես ես։", 4, 2),
    "Chinese": ("今天很好。我们去公园！你去吗？", 12, 3),
    "Japanese": ("これはペンです。あれは犬です。", 13, 2),
    "Thai": ("สวัสดีครับ วันนี้ดี", 11, 2),
    "Lao": ("ສະບາຍດີ ຂ້ອຍດີ", 10, 2),
    "Burmese": ("မင်္ဂလာပါ။ နေကောင်းလား။", 9, 2),
    "Khmer": ("សួស្តី។ អរគុណ។", 7, 2),
    "mixed": ("我用GPT-2写。Good!很好。", 8, 3),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_words_and_sentences(script):
    text, words, sentences = SCRIPTS[script]
    assert len(words_of(text)) == words and len(sentence_spans(text)) == sentences


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_spans_are_in_order_and_lose_no_letter(text):
    for found in (word_spans(text), word_spans(text, signs=True), sentence_spans(text)):
        flat = [k for span in found for k in span]
        assert flat == sorted(flat) and all(i < j <= len(text) for i, j in found)
    for spans in (word_spans(text, signs=True), sentence_spans(text)):
        assert "".join("".join(text[i:j] for i, j in spans).split()) == "".join(text.split())
    inside = {k for i, j in word_spans(text) for k in range(i, j)}
    assert all(k in inside for k, c in enumerate(text) if c.isalnum())


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(max_codepoint=0x2ff), max_size=60))
def test_words_of_latin_letters_are_those_of_python(text):
    if "\u00ad" in text: return
    assert words_of(text) == re.findall(r"\w+", text)
    assert [text[i:j] for i, j in word_spans(text, signs=True)] == text.split()


def test_the_pattern_is_the_same_in_tokenizers():
    from tokenizers import Regex, pre_tokenizers
    split = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
    for text, *_ in SCRIPTS.values():
        assert [w for w, _ in split.pre_tokenize_str(text)] == words_of(text)


def test_folded():
    assert folded("CAFÉ") == folded("cafe\u0301") and folded("ＡＢＣ") == "abc"
    assert folded("اللُّغَةُ العـربية") == folded("اللغة العربية") and folded("שָׁלוֹם") == folded("שלום")
    assert folded("हिन्दी") != folded("हनद") and folded("ที่") != folded("ท")


# what counts words


@pytest.mark.parametrize("script", ["Hindi", "Arabic, vowelled", "French, NFD", "Telugu", "Chinese", "Thai"])
def test_counts_of_words(tok, script):
    text, n, _ = SCRIPTS[script]
    assert tokenizer_fit([text], tok).words == n
    found = fragmented_words([text]*5, tok, ["The name is bound to the value"])
    assert found.word.tolist() and set(found.word) <= set(words_of(text))
    assert fertility(tok, [text]) == len(tok(text)["input_ids"])/len(word_spans(text, signs=True))
    made = train_tokenizer([text]*3, 200, "word")
    assert len([t for t in made.tokenize(text) if words_of(t)]) == n


def splits_of(texts):
    from datasets import Dataset
    ds = Dataset.from_dict(dict(text=texts, label=[k % 2 for k in range(len(texts))]))
    return dict(train=ds, valid=ds, test=ds)


@pytest.mark.parametrize("features", ["counts", "tfidf", "nbsvm"])
@pytest.mark.parametrize("good, bad", [
    ("सुन्दर हिन्दी", "सादा हिन्दी"), ("很好看", "很难看"), ("جَمِيلٌ", "قَبِيحٌ")])
def test_baselines_read_any_script(features, good, bad):
    run = linear_baseline(splits_of([bad, good]*20), features, C=100.)
    assert run.accuracy == 1


NEAR = {
    "Chinese": ("这部电影讲述了一个关于友谊和勇气的故事，演员的表演非常自然，音乐也很动听。", "和", "与"),
    "Japanese": ("この映画は友情と勇気についての物語で、俳優の演技はとても自然です。", "勇", "元"),
    "Thai": ("ภาพยนตร์เรื่องนี้เล่าเรื่องมิตรภาพและความกล้าหาญ", "กล้า", "ดี"),
    "Hindi": ("यह फ़िल्म दोस्ती और साहस की एक कहानी है जो बहुत अच्छी तरह से बनी है और सब को अच्छी लगी",
              "सब", "मुझ"),
    "Arabic, vowels left out": (
        "هَذَا الفِيلْمُ يَحْكِي قِصَّةً عَنِ الصَّدَاقَةِ وَالشَّجَاعَةِ", "[\u064b-\u0652]", ""),
    "NFC": ("le cafe\u0301 e\u0301tait tre\u0300s de\u0301licieux, la soire\u0301e e\u0301tait belle",
            "e\u0301", "é"),
    "wide letters": ("a good film with some of the best actors of all", "best", "ｂｅｓｔ"),
}


@pytest.mark.parametrize("script", NEAR)
def test_near_copies(script):
    text, old, new = NEAR[script]
    copy = re.sub(old, new, text)
    assert copy != text and len(near_duplicates([text], [copy])) == 1
    report = leak_report({"train": splits_of([text]*2)["train"], "test": splits_of([copy]*2)["test"]})
    assert report.set_index("with").number["nearly the text"] == 2
    others = [other for name, (other, *_) in NEAR.items() if name != script]
    assert not len(near_duplicates([text], others))


# what hides words and moves sentences

TOKENIZERS = {
    "bytes alone": lambda texts: train_tokenizer(texts, 262, masked=True),
    "byte-level": lambda texts: train_tokenizer(texts*5, 420, masked=True),
    "wordpiece": lambda texts: train_tokenizer(texts*5, 300, "wordpiece"),
    "unigram": lambda texts: _metaspace(texts*5),
}


SPLIT = ["Chinese", "Japanese", "Thai", "Hindi", "Arabic, vowelled", "French, NFD", "Korean", "English"]


def _metaspace(texts):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    t = Tokenizer(models.Unigram())
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "<unk>", "<mask>", "<s>", "</s>"]
    t.train_from_iterator(texts, trainers.UnigramTrainer(
        vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=t, pad_token="<pad>", unk_token="<unk>",
                                   mask_token="<mask>", bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("script", SPLIT)
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_words_from_tokens_alone(kind, script):
    text = SCRIPTS[script][0]
    made = TOKENIZERS[kind]([text])
    enc = made(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = np.array(enc["input_ids"])
    if made.unk_token_id in ids: pytest.skip("a vocabulary that lost letters")
    if (kind, script) == ("wordpiece", "Chinese"): pytest.skip("no token goes on with a word: refused")
    starts = word_starts(ids[None], made)[0]
    spans, at = word_spans(text), 0
    for k, (i, j) in enumerate(enc["offset_mapping"]):
        i = j - len(text[i:j].lstrip())
        word = next(((a, b) for a, b in spans if a <= i < b), None)
        if word is None: continue
        a, b = enc["offset_mapping"][k-1] if k else (0, 0)
        goes_on = word[0] < b or text[a:b] == " " # a lonely space belongs to the word behind it
        assert starts[k] == (not goes_on), (k, text[i:j])
        at += 1
    assert at


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("script", ["Chinese", "Japanese", "Thai"])
def test_no_row_without_spaces_is_hidden_whole(kind, script):
    made = TOKENIZERS[kind]([SCRIPTS[script][0]])
    ids = made(SCRIPTS[script][0])["input_ids"]
    try: asked = [(LMCollator(made, WholeWordMasking(), seed=s)([ids])["labels"] != -100).float().mean()
                  for s in range(100)]
    except ValueError as e:
        assert kind == "wordpiece" and "use BertMasking()" in str(e)
        return
    assert .05 < np.mean(asked) < .25 and max(asked) < .8


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_sentences_come_in_several_orders(kind, script):
    text = " ".join([SCRIPTS[script][0]]*2)
    made = TOKENIZERS[kind]([text])
    ids = made(text)["input_ids"]
    if made.unk_token_id in ids: pytest.skip("a vocabulary that lost letters")
    orders = {tuple(LMCollator(made, SentencePermutation(), seed=k)([ids])["input_ids"][0].tolist())
              for k in range(20)}
    assert len(orders) > 2 and {tuple(sorted(o)) for o in orders} == {tuple(sorted(ids))}
    ends = sentence_ends(np.array(made(text, add_special_tokens=False)["input_ids"]), made)
    assert abs(ends.sum() - len(sentence_spans(text))) <= (2 if kind == "wordpiece" else 0)


def test_a_full_stop_in_a_number_ends_no_sentence():
    made = train_tokenizer(["It costs 3.5 m. Really?!"], 262, masked=True)
    ids = np.array(made("It costs 3.5 m. Really?!", add_special_tokens=False)["input_ids"])
    assert [made.decode(part) for part in np.split(ids, np.flatnonzero(sentence_ends(ids, made)) + 1)] == [
        "It costs 3.5 m.", " Really?!", ""]


def test_words_are_hidden_together_letters_of_chinese_are_not(mtok):
    from transformers import BertConfig, BertForMaskedLM
    config = BertConfig(vocab_size=len(mtok), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=32)
    model, hidden = BertForMaskedLM(config).eval(), []

    def count(module, args, kwargs):
        hidden.extend((kwargs["input_ids"] == mtok.mask_token_id).sum(1).tolist())
    model.register_forward_pre_hook(count, with_kwargs=True)
    for text, most in (("今天很好", 3), ("हिन्दी", 18), ("ab, cd", 3)):
        hidden.clear()
        pseudo_perplexity(model, mtok, text, within_word=True)
        assert max(hidden) == most
    by_word = surprisal(model, mtok, "今天 ab, हिन्दी", by="word").frame
    assert by_word.token.tolist() == ["今", "天", "ab,", "हिन्दी"]
