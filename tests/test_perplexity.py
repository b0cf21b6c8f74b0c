"""course_lm.perplexity: oracles, laws over many shapes, models whose head is not the last thing they do."""
import math
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn

from course_lm import perplexity as P
from course_lm.data import train_tokenizer
from course_lm.perplexity import (LMScore, Perplexity, TokenAccuracy, chunked_nll, evaluate_lm, token_bytes,
                                  token_nll, trainer_metrics)
from course_lm.support.inputs import IGNORE_INDEX, is_causal
from tests.small_models import LSTM, TEXTS, asks_for_others, bert, gpt2, padded, sharper

@pytest.fixture(scope='module')
def tok(): return train_tokenizer(TEXTS*3, vocab_size=320)
@pytest.fixture(scope='module')
def mtok(): return train_tokenizer(TEXTS*3, vocab_size=320, masked=True)

def reference(model, batch, shift=True):
    with torch.no_grad(): logits = model(**{k: v for k,v in batch.items() if k != 'labels'}).logits.double()
    labels = batch['labels']
    if shift: logits, labels = logits[:, :-1], labels[:, 1:]
    nll = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction='none')
    return nll[labels.flatten() != IGNORE_INDEX]

# ---- LMScore

parts = st.tuples(st.floats(0, 1e4), st.integers(1, 1000), st.integers(1, 5000))

@given(st.lists(parts, min_size=1, max_size=20), st.randoms())
def test_scores_add_in_any_order(parts, random):
    scores = [LMScore(*p) for p in parts]
    shuffled = random.sample(scores, len(scores))
    assert sum(scores).tokens == sum(shuffled).tokens and sum(scores).bytes == sum(shuffled).bytes
    assert sum(scores).perplexity == pytest.approx(sum(shuffled).perplexity, rel=1e-12)
    assert sum(scores).nats == pytest.approx(sum(p[0] for p in parts), rel=1e-12)

def test_score_edges():
    with pytest.raises(ValueError, match='no token was scored'): LMScore(0., 0).perplexity
    with pytest.raises(ValueError, match='bits per byte needs the length'): LMScore(1., 1).bits_per_byte
    with pytest.raises(ValueError, match='bytes is 0'): LMScore(1., 1, 0).bits_per_byte
    with pytest.raises(TypeError): LMScore(1., 1) + 3
    assert LMScore(1e6, 1).perplexity == math.inf and LMScore(math.inf, 2).perplexity == math.inf
    assert math.isfinite(LMScore(709.7, 1).perplexity)
    with pytest.raises(FloatingPointError, match='NaN nats'): LMScore(math.nan, 1)
    assert (LMScore(1., 1, 4) + LMScore(1., 1)).bytes is None
    assert LMScore(math.log(2)*6, 3, 12).bits_per_byte == pytest.approx(.5)
    assert LMScore(1., 2) == LMScore(1., 2) and 'tokens=0' in repr(LMScore(0., 0))

# ---- token_nll

@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(2, 40), st.booleans(), st.integers(0, 99))
def test_token_nll_is_cross_entropy(batch, length, vocab, shift, seed):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, length, vocab, generator=g)
    labels = torch.randint(0, vocab, (batch, length), generator=g)
    labels[torch.rand(batch, length, generator=g) < .3] = IGNORE_INDEX
    x, y = (logits[:, :-1], labels[:, 1:]) if shift else (logits, labels)
    y = y.reshape(-1)
    want = F.cross_entropy(x.reshape(-1, vocab), y, reduction='none', ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(token_nll(logits, labels, shift), want[y != IGNORE_INDEX])

def test_token_nll_in_chunks_and_backwards(monkeypatch):
    logits, labels = torch.randn(3, 11, 7, requires_grad=True), torch.randint(0, 7, (3, 11))
    whole = token_nll(logits, labels)
    g, = torch.autograd.grad(whole.sum(), logits)
    few = P._chunks
    monkeypatch.setattr(P, '_chunks', lambda n, *t: few(n, *t, floats=20))
    parts = token_nll(logits, labels)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts.sum(), logits)[0], g)

def test_token_nll_refuses():
    logits = torch.zeros(2, 5, 7)
    with pytest.raises(ValueError, match='labels have the shape'): token_nll(logits, torch.zeros(2, 4).long())
    labels, no_ids = torch.zeros(2, 5).long(), 'labels=.* must be a tensor of token ids'
    with pytest.raises(ValueError, match=no_ids): token_nll(logits, labels[0])
    with pytest.raises(ValueError, match='logits=.*batch, length, vocab'): token_nll(logits[0], labels)
    with pytest.raises(ValueError, match='label 7 is no token'): token_nll(logits, torch.full((2, 5), 7))
    with pytest.raises(ValueError, match='label -1 is no token'): token_nll(logits, torch.full((2, 5), -1))
    with pytest.raises(TypeError, match=no_ids): token_nll(logits, torch.zeros(2, 5))
    with pytest.raises(TypeError, match='token ids'): Perplexity().update(logits, torch.zeros(2, 5))
    with pytest.raises(TypeError, match="shift='yes' must be"): token_nll(logits, labels, 'yes')
    assert token_nll(logits, torch.full((2, 5), IGNORE_INDEX)).shape == (0,)
    assert token_nll(logits[:, :1], torch.zeros(2, 1).long()).shape == (0,)

def test_infinite_and_broken_logits_stay_visible():
    logits, labels = torch.zeros(1, 3, 4), torch.tensor([[0, 1, 2]])
    logits[0, 0, 1] = -math.inf
    assert Perplexity().update(logits, labels).value == math.inf
    logits[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match='NaN'): Perplexity().update(logits, labels)
    huge = torch.full((1, 2, 3), 1e30)
    assert token_nll(huge, torch.zeros(1, 2).long()).item() == pytest.approx(math.log(3))

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype):
    logits, labels = torch.randn(2, 6, 9).to(dtype), torch.randint(0, 9, (2, 6))
    got = token_nll(logits, labels)
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(got.double(), token_nll(logits.double(), labels), rtol=1e-5, atol=1e-5)

# ---- the four ways agree

def batches_of(batch, size, order=None, extra_pad=0):
    rows = list(range(len(batch['labels']))) if order is None else list(order)
    out = []
    for i in range(0, len(rows), size):
        b = {k: v[rows[i:i+size]] for k,v in batch.items()}
        keep = int(b['attention_mask'].sum(1).max())
        b = {k: v[:, :keep] for k,v in b.items()}
        fill = dict(input_ids=0, attention_mask=0, labels=IGNORE_INDEX)
        out.append({k: F.pad(v, (0, extra_pad), value=fill[k]) for k,v in b.items()})
    return out

@pytest.mark.parametrize('size, extra_pad, seed', [(1, 0, None), (3, 0, 1), (4, 5, 2), (7, 2, 3)])
def test_plain_and_evaluate_agree(size, extra_pad, seed):
    model, batch = gpt2(), padded([3, 17, 9, 1, 12, 20, 2])
    order = None if seed is None else np.random.default_rng(seed).permutation(7)
    want = math.exp(reference(model, batch).mean())
    parts = batches_of(batch, size, order, extra_pad)
    metric = Perplexity()
    with torch.no_grad():
        for b in parts:
            out = model(input_ids=b['input_ids'], attention_mask=b['attention_mask'])
            metric.update(out.logits, b['labels'])
    assert metric.value == pytest.approx(want, rel=1e-6)
    assert evaluate_lm(model, parts).perplexity == pytest.approx(want, rel=1e-6)

@pytest.mark.parametrize('size', [1, 3, 7])
def test_padding_on_the_left_changes_nothing(size):
    from course_lm.labels import LMCollator
    tok, model = train_tokenizer(['a b c']*20, 300), gpt2()
    right = padded([3, 17, 9, 2, 12, 20, 4], vocab=250)
    rows = [ids[mask.bool()].tolist() for ids,mask in zip(right['input_ids'], right['attention_mask'])]
    tok.padding_side = 'left'
    parts = [LMCollator(tok)(rows[i:i+size]) for i in range(0, 7, size)]
    score = evaluate_lm(model, parts)
    assert score.tokens == sum(map(len, rows)) - 7
    assert size == 1 or any((b['attention_mask'][:, 0] == 0).any() for b in parts)
    assert score.perplexity == pytest.approx(math.exp(reference(model, right).mean()), rel=1e-6)

class Body(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids): return self.model(input_ids=input_ids).logits

def shuffled(lengths, seed, extra_pad):
    order = np.random.default_rng(seed).permutation(len(lengths))
    return batches_of(padded(lengths), len(lengths), order, extra_pad)[0]

@pytest.mark.parametrize('size, seed, extra_pad', [(1, 0, 0), (3, 1, 5), (7, 2, 2)])
def test_fastai_learner_agrees(size, seed, extra_pad):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        import fastai.callback.progress # noqa: F401
        from fastai.data.core import DataLoaders
        from fastai.learner import Learner
        from fastai.metrics import Perplexity as Theirs
    model, batch = gpt2(), shuffled([3, 17, 9, 4, 12, 20, 2], seed, extra_pad)
    def loss(logits, labels):
        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        return F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX)
    items = list(zip(batch['input_ids'], batch['labels']))
    from fastai.data.load import DataLoader
    dl = DataLoader(items, batch_size=size)
    ours = [m.as_fastai() for m in (Perplexity(), TokenAccuracy(), TokenAccuracy(5))]
    learn = Learner(DataLoaders(dl, dl), Body(model), loss_func=loss, metrics=[*ours, Theirs()])
    with learn.no_bar(), learn.no_logging(): _, mine, acc, top5, theirs = learn.validate()
    want = math.exp(reference(model, padded([3, 17, 9, 4, 12, 20, 2])).mean())
    assert mine == pytest.approx(want, rel=1e-6)
    assert [m.name for m in learn.metrics][:3] == ['perplexity', 'accuracy', 'top5_accuracy']
    if size < 7: assert abs(theirs - want) > 1e-3 # it weights batches by their rows
    by_hand = TokenAccuracy().update(model(batch['input_ids']).logits, batch['labels']).value
    assert acc <= top5 and acc == pytest.approx(by_hand)

def test_a_fastai_metric_counts_in_ours_and_pickles():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        from fastai.learner import Metric, mk_metric
    metric = Perplexity(shift=False).update(torch.zeros(1, 2, 5), torch.zeros(1, 2).long())
    theirs = metric.as_fastai()
    assert isinstance(theirs, Metric) and mk_metric(theirs) is theirs and not isinstance(metric, Metric)
    assert theirs.value == metric.value and theirs.name == 'perplexity'
    again = pickle.loads(pickle.dumps(theirs))
    assert isinstance(again, Metric) and again.value == metric.value
    plain = pickle.loads(pickle.dumps(metric))
    assert plain.value == metric.value and plain.shift is False and type(plain) is Perplexity
    theirs.reset()
    assert metric.value is None and metric.__class__ is Perplexity

@pytest.mark.parametrize('size, accumulate, per_batch', [(1, None, False), (3, 1, False), (4, None, True),
                                                         (7, 2, False)])
def test_trainer_agrees(size, accumulate, per_batch, tmp_path):
    from transformers import Trainer, TrainingArguments
    model, batch = gpt2(), shuffled([3, 17, 9, 4, 12, 20, 2], size, extra_pad=size)
    rows = [dict(zip(batch, row)) for row in zip(*batch.values())]
    def collate(rows):
        b = {k: torch.stack([r[k] for r in rows]) for k in rows[0]}
        return batches_of(b, len(rows))[0]
    args = TrainingArguments(
        str(tmp_path), per_device_eval_batch_size=size, eval_accumulation_steps=accumulate, use_cpu=True,
        dataloader_pin_memory=False, batch_eval_metrics=per_batch, disable_tqdm=True, report_to=[])
    trainer = Trainer(model, args, data_collator=collate, eval_dataset=rows, **trainer_metrics())
    want = reference(model, batch)
    for _ in range(2): # and again: nothing is left over from the first time
        got = trainer.evaluate()
        assert got['eval_perplexity'] == pytest.approx(math.exp(want.mean()), rel=1e-6)
        assert got['eval_tokens'] == len(want)
    with torch.no_grad(): logits = model(batch['input_ids'], attention_mask=batch['attention_mask']).logits
    assert got['eval_accuracy'] == pytest.approx(TokenAccuracy().update(logits, batch['labels']).value)
    assert got['eval_top5_accuracy'] == pytest.approx(TokenAccuracy(5).update(logits, batch['labels']).value)
    assert trainer.predict(rows).predictions.shape == (7, 4) # four sums a row, no logits

def test_metrics_refuse_all_ignored():
    labels = torch.full((1, 3), IGNORE_INDEX)
    for metric in (Perplexity(), TokenAccuracy()):
        assert metric.value is None
        metric.update(torch.zeros(1, 3, 5), labels)
        with pytest.raises(ValueError, match='no token was scored'): metric.value
        assert metric.update(torch.zeros(1, 3, 5), torch.tensor([[1, 2, 0]])).value is not None
        metric.reset()
        assert metric.value is None
    empty = dict(input_ids=torch.ones(1, 3).long(), labels=labels)
    with pytest.raises(ValueError, match='no token was scored'): evaluate_lm(gpt2(), [empty])
    with pytest.raises(ValueError, match='batches=.* there is nothing in it'): evaluate_lm(gpt2(), [])
    with pytest.raises(ValueError, match="dict with 'labels'"): evaluate_lm(gpt2(), [dict(input_ids=labels)])
    with pytest.raises(ValueError, match='k=0 must be'): TokenAccuracy(0)
    with pytest.raises(TypeError, match='k=1.5 must be'): TokenAccuracy(1.5)
    with pytest.raises(TypeError, match='shift=1 must be'): Perplexity(1)
    with pytest.raises(ValueError, match='top_k.*0'): trainer_metrics(top_k=(1, 0))
    fn = trainer_metrics()
    from transformers import EvalPrediction
    with pytest.raises(ValueError, match='no token was scored'):
        sums = fn['preprocess_logits_for_metrics'](torch.zeros(1, 3, 5), labels)
        fn['compute_metrics'](EvalPrediction(sums.numpy(), labels.numpy()))

def test_accuracy_by_hand_and_ties():
    logits = torch.tensor([[[0., 3, 2, 1], [5, 0, 4, 0], [0, 0, 0, 9]]])
    labels = torch.tensor([[0, 2, 1]]) # asked: 2 after the first, 1 after the second
    assert TokenAccuracy().update(logits, labels).value == 0
    assert TokenAccuracy(2).update(logits, labels).value == .5
    assert TokenAccuracy(99).update(logits, labels).value == 1
    flat = TokenAccuracy(shift=False).update(torch.zeros(1, 1000, 10), torch.arange(1000)[None] % 10).value
    assert flat == pytest.approx(.1) # a model that cannot choose is right as often as chance, not always

# ---- many kinds of model

def build(name):
    import transformers as T
    shape = dict(vocab_size=90, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64)
    small = dict(**shape, hidden_size=16, intermediate_size=32)
    distil = dict(vocab_size=90, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=64)
    gemma = dict(num_key_value_heads=1, head_dim=8, final_logit_softcapping=.5, query_pre_attn_scalar=8)
    marks = dict(pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3)
    t5 = dict(vocab_size=90, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0,
              pad_token_id=0)
    opt = dict(**shape, hidden_size=16, ffn_dim=32, word_embed_proj_dim=16, pad_token_id=1)
    cohere = dict(**small, logit_scale=.25, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    make = {
        'llama': lambda: T.LlamaForCausalLM(T.LlamaConfig(**small, num_key_value_heads=1)),
        'gemma2': lambda: T.Gemma2ForCausalLM(T.Gemma2Config(**small, **gemma)),
        'cohere': lambda: T.CohereForCausalLM(T.CohereConfig(**cohere)),
        'gpt_neox': lambda: T.GPTNeoXForCausalLM(T.GPTNeoXConfig(**small)),
        'opt': lambda: T.OPTForCausalLM(T.OPTConfig(**opt)),
        'bert': lambda: T.BertForMaskedLM(T.BertConfig(**small)),
        'roberta': lambda: T.RobertaForMaskedLM(T.RobertaConfig(**small, pad_token_id=1)),
        'distilbert': lambda: T.DistilBertForMaskedLM(T.DistilBertConfig(**distil)),
        'modernbert': lambda: T.ModernBertForMaskedLM(T.ModernBertConfig(**small, **marks)),
        't5': lambda: T.T5ForConditionalGeneration(T.T5Config(**t5)),
    }
    return make[name]()

@pytest.mark.parametrize('name, apart', [
    ('llama', True), ('gemma2', False), ('cohere', False), ('gpt_neox', True), ('opt', True), ('bert', True),
    ('roberta', True), ('distilbert', True), ('modernbert', True), ('t5', True)])
def test_every_head(name, apart):
    model = sharper(lambda: build(name))
    batch = padded([9, 14, 6], vocab=90)
    if name not in ('t5',) and not is_causal(model): batch = asks_for_others(batch)
    masked = name in ('bert', 'roberta', 'distilbert', 'modernbert')
    assert is_causal(model) == (not masked and name != 't5')
    with torch.no_grad():
        if name == 't5': out = model(**batch)
        else: out = model(input_ids=batch['input_ids'], attention_mask=batch['attention_mask'])
    want = token_nll(out.logits, batch['labels'], shift=is_causal(model)).mean().item()
    assert evaluate_lm(model, [batch]).cross_entropy == pytest.approx(want, rel=1e-5)
    with P.Scorer(model) as scorer: assert (scorer.head is not None) == apart

def test_a_model_is_tried_once_and_what_fails_on_a_batch_is_raised():
    model, batch, calls = gpt2(), padded([9, 4]), []
    def note(module, args, kwargs): calls.append(tuple(kwargs['input_ids'].shape))
    model.register_forward_pre_hook(note, with_kwargs=True)
    evaluate_lm(model, [batch, batch])
    assert calls == [(4, 2), (2, 9), (2, 9)]
    def out_of_memory(module, args, kwargs):
        if kwargs['input_ids'].shape[1] > 2: raise torch.OutOfMemoryError('no room')
    model.register_forward_pre_hook(out_of_memory, with_kwargs=True)
    calls.clear()
    with pytest.raises(torch.OutOfMemoryError): evaluate_lm(model, [batch])
    assert calls == [(4, 2), (2, 9)], 'a batch that does not fit is not tried again with all its logits'
    assert not model.lm_head._forward_pre_hooks

def test_any_module_and_any_function():
    torch.manual_seed(0)
    model, batch = LSTM(), padded([8, 5], vocab=20)
    want = token_nll(model(batch['input_ids']), batch['labels']).mean().item()
    assert evaluate_lm(model, [batch]).cross_entropy == pytest.approx(want, rel=1e-6) and model.training
    flat = evaluate_lm(lambda input_ids: torch.zeros(*input_ids.shape, 20), [batch])
    assert flat.perplexity == pytest.approx(20, rel=1e-6)

def test_mode_is_given_back():
    model = gpt2().train()
    model.transformer.h[0].eval()
    batch = padded([9, 4])
    a, b = evaluate_lm(model, [batch]), evaluate_lm(model, [batch])
    assert a == b and model.training
    assert [block.training for block in model.transformer.h] == [False, True]
    short = dict(input_ids=batch['input_ids'], labels=batch['labels'][:, :3])
    with pytest.raises(ValueError, match='labels have the shape'): evaluate_lm(model, [short])
    assert model.training and not model.lm_head._forward_pre_hooks

# ---- the loss without the logits

def test_chunked_nll_value_and_gradient():
    torch.manual_seed(0)
    for dtype,tol in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        h, w, b = (torch.randn(*s, dtype=dtype, requires_grad=True) for s in ((3, 17, 8), (50, 8), (50,)))
        labels = torch.randint(0, 50, (3, 17))
        labels[0, 5:] = IGNORE_INDEX
        for shift in (True, False):
            want = token_nll(F.linear(h, w, b), labels, shift)
            nats, tokens = chunked_nll(h, w, labels, b, shift, floats=50*4)
            assert tokens == len(want) and nats.dtype == dtype
            torch.testing.assert_close(nats/tokens, want.mean(), rtol=tol, atol=tol)
            ours, theirs = (torch.autograd.grad(loss, (h, w, b)) for loss in (nats/tokens, want.mean()))
            for x,y in zip(ours, theirs): torch.testing.assert_close(x, y, rtol=tol, atol=tol)

def test_chunked_nll_gradcheck_and_edges():
    torch.manual_seed(0)
    h, w = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 5, 3), (7, 3)))
    labels = torch.randint(0, 7, (2, 5))
    assert torch.autograd.gradcheck(lambda h, w: chunked_nll(h, w, labels, floats=14)[0], (h, w))
    nats, tokens = chunked_nll(h, w, torch.full((2, 5), IGNORE_INDEX))
    assert tokens == 0 and nats.item() == 0
    assert chunked_nll(h.detach(), w.detach(), labels)[0].requires_grad is False
    of_hidden = torch.autograd.grad(chunked_nll(h, w.detach(), labels)[0], (h, w), allow_unused=True)
    assert [g is None for g in of_hidden] == [False, True]
    with pytest.raises(ValueError, match='label 7'): chunked_nll(h, w, torch.full((2, 5), 7))

@pytest.mark.parametrize('make', [gpt2, bert])
def test_chunked_nll_trains_as_the_model_does(make):
    model = make()
    batch, head = padded([9, 14, 6], vocab=90), model.get_output_embeddings()
    inputs = {k: v for k,v in batch.items() if k != 'labels'}
    hidden, _ = P._into_head(model, inputs, head)
    nats, tokens = chunked_nll(hidden, head.weight, batch['labels'], head.bias, shift=is_causal(model))
    (nats/tokens).backward()
    mine = {k: p.grad.clone() for k,p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    assert (nats/tokens).item() == pytest.approx(loss.item(), rel=1e-6)
    assert mine.keys() == {k for k,p in model.named_parameters() if p.grad is not None}
    for k,p in model.named_parameters():
        if p.grad is not None: torch.testing.assert_close(mine[k], p.grad, rtol=1e-5, atol=1e-6)

def test_chunked_nll_refuses():
    hidden, weight, labels = torch.zeros(2, 5, 3), torch.zeros(7, 3), torch.zeros(2, 5).long()
    with pytest.raises(ValueError, match='hidden=.* must be'): chunked_nll(hidden[0], weight, labels)
    with pytest.raises(ValueError, match='weight=.* must be'): chunked_nll(hidden, weight[0], labels)
    with pytest.raises(ValueError, match='floats=0 must be'): chunked_nll(hidden, weight, labels, floats=0)
    with pytest.raises(ValueError, match='labels have the shape'): chunked_nll(hidden, weight, labels[:, :4])

# ---- bytes

def test_token_bytes_spell_the_text(tok, mtok):
    for t in (tok, mtok):
        n = token_bytes(t)
        assert len(n) == len(t) and n[t.all_special_ids].sum() == 0
        for text in TEXTS + ['日本語 🙂\n\ttabs', ' two  spaces ']:
            assert n[t(text, add_special_tokens=False)['input_ids']].sum() == len(text.encode())

def test_token_bytes_sentencepiece_and_wordpiece():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    vocab = {'<unk>': 0, **{f'<0x{i:02X}>': i+1 for i in range(256)}}
    for piece in '▁ates': vocab[piece] = len(vocab)
    sp = Tokenizer(models.BPE(vocab, [], byte_fallback=True, unk_token='<unk>'))
    sp.normalizer = normalizers.Sequence([normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
    sp = PreTrainedTokenizerFast(tokenizer_object=sp, unk_token='<unk>')
    n = token_bytes(sp)
    text = 'a test: é'
    assert n[sp(text)['input_ids']].sum() == len(text.encode()) + 1 # the space that it puts in front
    wp = Tokenizer(models.WordPiece(unk_token='[UNK]'))
    wp.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(vocab_size=100, special_tokens=['[UNK]'], show_progress=False)
    wp.train_from_iterator(TEXTS, trainer)
    wp = PreTrainedTokenizerFast(tokenizer_object=wp, unk_token='[UNK]')
    with pytest.raises(ValueError, match='do not spell'): token_bytes(wp)

def test_evaluate_counts_the_bytes_of_what_it_scores(tok):
    model = gpt2()
    long_ones = [t for t in TEXTS if len(tok.tokenize(t)) >= 15]
    ids = torch.tensor([[0] + tok(t, add_special_tokens=False)['input_ids'][:15] for t in long_ones])
    score = evaluate_lm(model, [dict(input_ids=ids, labels=ids)], n_bytes=token_bytes(tok))
    assert score.bytes == sum(len(tok.decode(row[1:]).encode()) for row in ids)
    in_all = evaluate_lm(model, [dict(input_ids=ids, labels=ids)], n_bytes=100)
    assert in_all.bits_per_byte == pytest.approx(score.nats/math.log(2)/100)
    batches = [dict(input_ids=ids, labels=ids)]
    with pytest.raises(TypeError, match=r'pass token_bytes\(tokenizer\)'):
        evaluate_lm(model, batches, n_bytes=tok)
    with pytest.raises(TypeError, match='model=.*the order is'): evaluate_lm(tok, batches)

# ---- imports

def test_import_is_light():
    heavy = ('fastai', 'transformers', 'datasets', 'sklearn', 'matplotlib', 'pandas', 'ipywidgets', 'IPython')
    code = f"import sys, course_lm.perplexity; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == '[]'


@pytest.mark.parametrize('name', ['Flaubert', 'XLM'])
def test_a_masked_model_named_as_a_causal_one_is_scored_in_place(name):
    import transformers as T
    config = getattr(T, f'{name}Config')(vocab_size=90, emb_dim=32, n_layers=1, n_heads=2)
    model = sharper(lambda: getattr(T, f'{name}WithLMHeadModel')(config))
    batch = padded([9, 9], vocab=90)
    batch['labels'][:, 1::2] = IGNORE_INDEX
    with torch.no_grad(): own = model(**batch).loss.item()
    assert evaluate_lm(model, [batch]).cross_entropy == pytest.approx(own, rel=1e-5)

def test_a_model_that_sees_the_answers_gets_no_perplexity():
    from transformers import BertConfig, BertLMHeadModel
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    model = sharper(lambda: BertLMHeadModel(BertConfig(vocab_size=90, **sizes)))
    with pytest.raises(ValueError, match='model: BertLMHeadModel is to predict'):
        evaluate_lm(model, [padded([9], vocab=90)])
    with pytest.raises(ValueError, match='model: BertForMaskedLM is a masked model'):
        evaluate_lm(bert(), [padded([9])], shift=True)

@pytest.mark.parametrize('left', [False, True])
@pytest.mark.parametrize('name, scale', [
    ('Cohere', dict(logit_scale=.0625)), ('Granite', dict(logits_scaling=8.))])
def test_the_scale_of_the_logits_is_kept_whichever_side_is_padded(name, scale, left):
    import transformers as T
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
    sizes |= dict(intermediate_size=64, pad_token_id=0)
    config = getattr(T, f'{name}Config')(vocab_size=90, **sizes, **scale)
    model = sharper(lambda: getattr(T, f'{name}ForCausalLM')(config))
    batch = padded([4, 9], vocab=90, left=left)
    if left: batch['labels'][0, 5] = -100 # a pad is not asked for the first token of a text, as in LMCollator
    place = (batch['attention_mask'].cumsum(1) - 1).clamp(min=0)
    want = reference(model, {**batch, 'position_ids': place})
    assert evaluate_lm(model, [batch]).nats == pytest.approx(want.sum().item(), rel=1e-5)

# ---- what the lesson says of tiny-gpt, on a few paragraphs

@pytest.fixture(scope='module')
def manual():
    from course_lm.data import python_docs
    from course_lm.models import load_lm
    model, tok = load_lm('tiny-gpt')
    docs = [d for d in python_docs()[::40] if len(d) < 500]
    rows = [[tok.bos_token_id] + ids for ids in tok(docs)['input_ids']]
    return model, tok, docs, rows

def collated(tok, rows, size):
    from course_lm.labels import LMCollator
    return [LMCollator(tok)(rows[i:i+size]) for i in range(0, len(rows), size)]

def test_batch_size_moves_the_mean_of_means_only(manual):
    model, tok, _, rows = manual
    def mean_of_means(size):
        with torch.no_grad(): losses = [model(**b).loss.item() for b in collated(tok, rows, size)]
        return math.exp(np.mean(losses))
    right = evaluate_lm(model, collated(tok, rows, 4))
    assert right.tokens == sum(len(r)-1 for r in rows)
    assert evaluate_lm(model, collated(tok, rows, 7)).perplexity == pytest.approx(right.perplexity, rel=1e-5)
    of_means = [mean_of_means(size) for size in (1, 4, 16)]
    assert max(of_means) > 1.01*min(of_means)

def test_scored_padding_and_labels_shifted_twice_stand_out(manual):
    model, tok, _, rows = manual
    right = evaluate_lm(model, collated(tok, rows, 8))
    padding = evaluate_lm(model, [{**b, 'labels': b['input_ids']} for b in collated(tok, rows, 8)])
    assert padding.tokens > right.tokens and padding.perplexity > 10*right.perplexity
    def shifted(b): return {**b, 'labels': F.pad(b['labels'][:, 1:], (0, 1), value=IGNORE_INDEX)}
    assert evaluate_lm(model, [shifted(b) for b in collated(tok, rows, 8)]).perplexity > len(tok)

def test_shuffled_words_cost_more(manual):
    model, tok, docs, rows = manual
    rng = np.random.default_rng(0)
    mixed = [' '.join(rng.permutation(d.split())) for d in docs]
    mixed = [[tok.bos_token_id] + ids for ids in tok(mixed)['input_ids']]
    in_order, shuffled = (evaluate_lm(model, collated(tok, r, 8)) for r in (rows, mixed))
    assert shuffled.perplexity > 1.5*in_order.perplexity

def test_the_three_names_of_the_harness_are_one_sum(manual):
    model, tok, docs, rows = manual
    score = evaluate_lm(model, collated(tok, rows, 8), n_bytes=token_bytes(tok))
    assert score.bytes == sum(len(d.encode()) for d in docs)
    byte_perplexity = math.exp(score.nats / score.bytes)
    assert math.log2(byte_perplexity) == pytest.approx(score.bits_per_byte)
    words = sum(len(d.split()) for d in docs)
    word_perplexity = math.exp(score.nats / words)
    assert word_perplexity == pytest.approx(score.perplexity**(score.tokens / words)) and words < score.tokens

def test_by_hand():
    p = torch.tensor([1/2, 1/4, 1/16, 1/2, 1/2, 1/8, 1/64, 1/2])
    score = LMScore(-p.log().sum().item(), 8, bytes=33)
    assert score.perplexity == pytest.approx(2**2.375, rel=1e-6)
    assert score.perplexity == pytest.approx(1/p.prod().item()**(1/8), rel=1e-6)
    two = LMScore(100*math.log(10), 100) + LMScore(100*math.log(1000), 100)
    assert two.perplexity == pytest.approx(100)

def test_the_true_table_scores_the_true_perplexity():
    from course_lm.entropy import MarkovSource
    source = MarkovSource(n_states=12, concentration=.3, seed=1)
    table, shares = (torch.tensor(p).log() for p in (source.transition, source.stationary))
    text = torch.tensor(source.sample(20_000, generator=5))[None]
    assert Perplexity().update(table[text], text).value == pytest.approx(source.perplexity, rel=.02)
    assert Perplexity().update(shares.expand(*text.shape, -1), text).value > 1.5*source.perplexity
    rows = text[0, :19_968].view(-1, 64)
    parts = [dict(input_ids=r, labels=r) for r in rows.split(50)]
    score = evaluate_lm(lambda input_ids: table[input_ids], parts)
    assert score.perplexity == pytest.approx(source.perplexity, rel=.03)

def test_text_that_was_trained_on_scores_far_better(manual):
    from course_lm.models import load_lm
    _, tok, _, rows = manual
    student, _ = load_lm('tiny-gpt')
    leaked, clean = rows[:8], rows[8:16]
    def gap(): # how many times worse the clean rows are
        scores = [evaluate_lm(student, collated(tok, part, 8)).perplexity for part in (clean, leaked)]
        return scores[0] / scores[1]
    before = gap()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    for batch in collated(tok, leaked, 8)*8:
        student(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert gap() > 3*before

def test_label_smoothing_is_no_perplexity(manual):
    model, tok, _, rows = manual
    batch, = collated(tok, rows[:8], 8)
    with torch.no_grad(): logits = model(**batch).logits[:, :-1].flatten(0, 1)
    targets = batch['labels'][:, 1:].flatten()
    plain, smooth = (F.cross_entropy(logits, targets, label_smoothing=s).exp().item() for s in (0, .1))
    assert plain == pytest.approx(evaluate_lm(model, [batch]).perplexity, rel=1e-4) and smooth > 1.5*plain

def test_a_first_token_for_free_looks_better(manual):
    model, tok, _, rows = manual
    bare = [{k: v[:, 1:] for k,v in b.items()} for b in collated(tok, rows, 8)]
    score = evaluate_lm(model, bare)
    assert score.tokens == sum(len(r)-2 for r in rows)
    assert LMScore(score.nats, score.tokens + len(rows)).perplexity < .97*score.perplexity
    a_row = torch.tensor(rows[:1])
    with torch.no_grad(): out = model(a_row, labels=a_row)
    assert out.loss.item() == pytest.approx(token_nll(out.logits, a_row).mean().item(), rel=1e-5)

def test_an_untrained_model_is_nearly_uniform(manual):
    from course_lm.models import new_model, tiny_gpt_config
    model, tok, _, rows = manual
    fresh = evaluate_lm(new_model(tiny_gpt_config(tok, max_length=256)), collated(tok, rows, 8)).perplexity
    assert .8*len(tok) < fresh < 1.5*len(tok)
    assert evaluate_lm(model, collated(tok, rows, 8)).perplexity < fresh/10
    assert LMScore(8*math.log(50257), 8).perplexity == pytest.approx(50257)

def test_bytes_of_a_text_outside_ascii(manual):
    _, tok, *_ = manual
    lengths, sample = token_bytes(tok), ' naïve 中文 🙂\n'
    assert lengths[tok(sample)['input_ids']].sum().item() == len(sample.encode())
    assert lengths[tok.eos_token_id] == 0 and lengths[tok.pad_token_id] == 0
