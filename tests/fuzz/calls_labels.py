"""Lesson 3: what a model is asked."""
import numpy as np
import torch

from course_lm.denoising import SentencePermutation, SpanCorruption, TokenDeletion, WholeWordMasking
from course_lm.labels import BertMasking, CausalLabels, LMCollator
from tests.fuzz.calls import Call


def calls(w): return [*strategies(w), *denoising(w), *collators(w), *shown(w)]


def strategies(w):
    asked = dict(input_ids=w.matrix, special_tokens_mask=w.unspared, tokenizer=w.tok, generator=None)
    yield Call("labels:CausalLabels.__call__", asked, on=CausalLabels())
    masked = asked | dict(tokenizer=w.mtok, generator=1)
    yield Call("labels:BertMasking.__call__", masked, on=BertMasking())
    yield Call("labels:sample_positions", dict(n=10, prob=.3, rng=w.rng))
    flat = dict(ids=np.array(w.matrix), spared=np.array(w.unspared), tokenizer=w.mtok, rng=w.rng)
    for module, cls in (("labels", BertMasking), ("denoising", WholeWordMasking)):
        name = f"{module}:{cls.__name__}"
        def used(strategy): return LMCollator(w.mtok, strategy, seed=1)(w.ids[:3])
        yield Call(name, dict(prob=.15, mask=.8, random=.1), then=used)
        yield Call(f"{name}.check", dict(tokenizer=w.mtok), on=cls())
        yield Call(f"{name}.choose", flat, on=cls())


def denoising(w):
    def used(strategy): return LMCollator(w.sentinels, strategy, seed=1)(w.ids[:3])
    yield Call("denoising:SpanCorruption", dict(prob=.15, mean_span=3.), then=used)
    yield Call("denoising:TokenDeletion", dict(prob=.15), then=used)
    row = dict(ids=np.array(w.ids[0]), spared=np.zeros(len(w.ids[0]), bool), tokenizer=w.sentinels, rng=w.rng)
    for cls in (SpanCorruption, TokenDeletion, SentencePermutation):
        yield Call(f"denoising:{cls.__name__}.corrupt", row, on=cls())
    yield Call("denoising:SpanCorruption.check", dict(tokenizer=w.sentinels), on=SpanCorruption())
    yield Call("denoising:SpanCorruption.counts", dict(n=20), on=SpanCorruption())
    yield Call("denoising:SpanCorruption.choose", dict(n=20, rng=w.rng), on=SpanCorruption())


def collators(w):
    examples = [{"input_ids": i} for i in w.ids[:3]]
    made = dict(tokenizer=w.mtok, strategy=BertMasking(), seed=1, generator=None, pad_to_multiple_of=8)
    yield Call("labels:LMCollator", made, then=lambda c: c(w.ids[:3]))
    drawn = dict(tokenizer=w.mtok, generator=torch.Generator())
    yield Call("labels:LMCollator", drawn, then=lambda c: c(w.ids[:3]), note="generator")
    yield Call("labels:LMCollator.__call__", dict(examples=examples), on=LMCollator(w.tok))
    masked = LMCollator(w.mtok, BertMasking(), seed=1)
    yield Call("labels:LMCollator.__call__", dict(examples=examples), on=masked, note="masked")
    yield Call("labels:pad_examples", dict(examples=examples, tokenizer=w.tok, multiple=8, pad_to=4))


def shown(w):
    show = dict(batch=w.mbatch, tokenizer=w.mtok, n=2, length=24, task="masked")
    yield Call("labels:show_batch_labels", show)
    rates = dict(prob=.15, mask=.8, random=.1, seed=0)
    yield Call("labels:show_masking", dict(text=w.texts[0], tokenizer=w.mtok, strategy=BertMasking, **rates))
    explore = dict(text=w.texts[0], tokenizer=w.mtok, strategy=BertMasking)
    yield Call("labels:masking_explorer", explore)
    yield Call("labels:label_report", dict(batch=w.mbatch, tokenizer=w.mtok))
