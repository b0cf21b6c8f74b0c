"""Lesson 4 and what models say: perplexity, scores, generated text, advice."""
import torch

from course_lm.perplexity import Perplexity, Scorer, TokenAccuracy
from tests.fuzz.calls import Call


def calls(w): return [*perplexity(w), *scoring(w), *predictions(w), *advice(w)]


def perplexity(w):
    score = dict(nats=10., tokens=5, bytes=20)
    yield Call("perplexity:LMScore", score, then=lambda s: (s.perplexity, s.bits_per_byte, repr(s)))
    both = dict(logits=w.logits, labels=w.labels)
    yield Call("perplexity:token_nll", both | dict(shift=True))
    yield Call("perplexity:Perplexity", dict(shift=True), then=lambda m: m.update(**both).value)
    yield Call("perplexity:Perplexity.update", both, on=lambda: Perplexity(), then=lambda m: m.value)
    yield Call("perplexity:TokenAccuracy", dict(k=2, shift=True), then=lambda m: m.update(**both).value)
    yield Call("perplexity:TokenAccuracy.update", both, on=lambda: TokenAccuracy(), then=lambda m: m.value)
    read = {k: v for k, v in w.batch.items() if k != "labels"}
    asked = dict(batch=read, labels=w.batch["labels"])
    def used(scorer):
        with scorer: return scorer(**asked)
    yield Call("perplexity:Scorer", dict(model=w.lm, shift=None, device=None), then=used)
    def entered(): return Scorer(w.lm).__enter__()
    yield Call("perplexity:Scorer.__call__", asked, on=entered)
    evaluate = dict(model=w.lm, batches=[w.batch], shift=None, n_bytes=100, device=None, progress=False)
    yield Call("perplexity:evaluate_lm", evaluate)
    yield Call("perplexity:token_bytes", dict(tokenizer=w.tok))
    parts = dict(hidden=w.hidden, weight=w.weight, labels=w.labels, bias=torch.zeros(11), shift=True)
    yield Call("perplexity:chunked_nll", parts | dict(floats=2**10))
    def metrics(found):
        sums = found["preprocess_logits_for_metrics"](w.logits, w.labels)
        return found["compute_metrics"](type("Said", (), {"predictions": sums})())
    yield Call("perplexity:trainer_metrics", dict(shift=True, top_k=(1, 5)), then=metrics)


def scoring(w):
    sliding = dict(ids=w.flat[:100], max_length=32, stride=16, batch_size=4, bos_id=0, n_bytes=300)
    yield Call("scoring:sliding_perplexity", dict(model=w.lm, **sliding))
    windows = dict(max_length=32, stride=16, batch_size=4, within_word=False, split_special_tokens=True)
    yield Call("scoring:score_texts", dict(model=w.lm, tokenizer=w.tok, texts=w.texts[:3], **windows))
    pseudo = dict(texts=w.texts[:2], batch_size=64, within_word=False, max_length=32)
    pseudo["split_special_tokens"] = True
    yield Call("scoring:pseudo_perplexity", dict(model=w.mlm, tokenizer=w.mtok, **pseudo))
    read = dict(model=w.lm, tokenizer=w.tok, text=w.texts[0], by="word", max_length=32, batch_size=4)
    yield Call("scoring:surprisal", read | dict(split_special_tokens=True))
    yield Call("scoring:show_surprisal", dict(surprise=w.surprise, max_bits=12.))
    draw = dict(level=.95, n_resamples=50, seed=1)
    yield Call("scoring:bootstrap_interval", dict(scores=w.scores, what="perplexity", **draw))
    yield Call("scoring:bootstrap_ratio", dict(a=w.scores, b=w.scores2, **draw))
    yield Call("scoring:compare_lms", dict(a=w.scores, b=w.scores2, texts=w.texts[:6], **draw))
    pairs = dict(a=(w.lm, w.tok), b=(w.lm2, w.tok), texts=w.texts[:4], stride=8)
    yield Call("scoring:compare_lms", pairs | draw, note="models")


def predictions(w):
    draw = dict(temperature=1., top_k=5, top_p=.9, seed=1)
    yield Call("predictions:Sampling", draw, then=lambda s: s.config())
    how = dict(max_new_tokens=3, n=2, full_text=True, heal=False, split_special_tokens=True)
    told = dict(model=w.lm, tokenizer=w.tok, prompts="The name")
    yield Call("predictions:generate_text", told | how | draw)
    yield Call("predictions:generate_text", told | dict(max_new_tokens=3, heal=True), note="heal")
    yield Call("predictions:show_predictions", dict(model=w.lm, tokenizer=w.tok, batch=w.batch, n=2))
    fill = dict(model=w.mlm, tokenizer=w.mtok, text=f"The {w.mtok.mask_token} is bound", top_k=3)
    yield Call("predictions:fill_mask", fill | dict(split_special_tokens=True))


def advice(w):
    yield Call("advice:tokenizer_fit", dict(texts=w.texts, tokenizer=w.tok))
    words = dict(texts=w.english, tokenizer=w.tiny_tok, home=w.home, pieces=3, count=1, rare=.1)
    yield Call("advice:fragmented_words", words)
    yield Call("advice:length_matched_pairs", dict(texts=w.english, home=w.home, n=5, longest=100, seed=1))
    yield Call("advice:byte_ngram_bits", dict(texts=w.texts, order=3, most=1000))
    yield Call("advice:own_vocab_size", dict(texts=w.texts, often=5, least=300, most=400))
    yield Call("advice:own_tokenizer_fit", dict(texts=w.texts, vocab_size=300, most=10000))
    rules = dict(pairs=8, excess=1.05, teaches=1., tokens=2000, own_tokenizer=2., counter=.5)
    yield Call("advice:Rules", rules)
    yield Call("advice:verdict", dict(measures=w.measures, rules=None))
    both = dict(texts=w.english, model=w.tiny, tokenizer=w.tiny_tok, home=w.home, n=4, seed=1)
    yield Call("advice:measure_texts", both, trains=True)
    yield Call("advice:should_finetune", both | dict(rules=None), trains=True)
