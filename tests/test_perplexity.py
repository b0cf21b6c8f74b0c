"course_lm.perplexity: oracles, laws over many shapes, and the models whose head is not the last thing they do."
import math, pickle, subprocess, sys, warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn

from course_lm import perplexity as P
from course_lm.support.inputs import is_causal
from course_lm.data import train_tokenizer
from course_lm.support.inputs import IGNORE_INDEX
from course_lm.perplexity import (
    LMScore, Perplexity, TokenAccuracy, chunked_nll, evaluate_lm, model_nll, token_bytes, token_nll,
    trainer_metrics)
from course_lm.scoring import (
    bootstrap_interval, compare_lms, pseudo_perplexity, score_texts, show_surprisal, sliding_perplexity,
    surprisal)

TEXTS = ['The value of the name is not defined here, and the name is not bound.', 'A café costs 3 €, naïvely.', 'Names refer to objects.',
         'The following identifiers are used as reserved words, or keywords of the language, and cannot be used as ordinary identifiers.']

@pytest.fixture(scope='module')
def tok(): return train_tokenizer(TEXTS*3, vocab_size=320)
@pytest.fixture(scope='module')
def mtok(): return train_tokenizer(TEXTS*3, vocab_size=320, masked=True)

def seeded(make):
    torch.manual_seed(0)
    model = make().eval()
    for p in model.parameters(): p.data.mul_(4) if p.dim() > 1 else p # sharper than a fresh model
    return model

def gpt2(vocab=320, n_positions=64, **kw):
    from transformers import GPT2Config, GPT2LMHeadModel
    model = seeded(lambda: GPT2LMHeadModel(GPT2Config(vocab_size=vocab, n_positions=n_positions, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0, **kw)))
    model.loss_type = 'ForCausalLM'
    return model

def bert(vocab=320, n=48):
    from transformers import BertConfig, BertForMaskedLM
    return seeded(lambda: BertForMaskedLM(BertConfig(vocab_size=vocab, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=n, pad_token_id=0)))

def padded(lengths, vocab=320, seed=0, left=False):
    g = torch.Generator().manual_seed(seed)
    L = max(lengths)
    ids, mask, labels = torch.zeros(len(lengths), L).long(), torch.zeros(len(lengths), L).long(), torch.full((len(lengths), L), IGNORE_INDEX)
    for row,n in enumerate(lengths):
        at = slice(L-n, L) if left else slice(0, n)
        ids[row, at] = torch.randint(5, vocab, (n,), generator=g)
        mask[row, at], labels[row, at] = 1, ids[row, at]
    return dict(input_ids=ids, attention_mask=mask, labels=labels)

def reference(model, batch, shift=True):
    with torch.no_grad(): logits = model(**{k: v for k,v in batch.items() if k != 'labels'}).logits.double()
    labels = batch['labels']
    if shift: logits, labels = logits[:, :-1], labels[:, 1:]
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction='none')[labels.flatten() != IGNORE_INDEX]

# ---- LMScore

@given(st.lists(st.tuples(st.floats(0, 1e4), st.integers(1, 1000), st.integers(1, 5000)), min_size=1, max_size=20), st.randoms())
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
    assert math.isfinite(LMScore(709.7, 1).perplexity) and math.isnan(LMScore(math.nan, 1).perplexity)
    assert (LMScore(1., 1, 4) + LMScore(1., 1)).bytes is None
    assert LMScore(math.log(2)*6, 3, 12).bits_per_byte == pytest.approx(.5)
    assert LMScore(1., 2) == LMScore(1., 2) and 'tokens=0' in repr(LMScore(0., 0))

# ---- token_nll

@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(2, 40), st.booleans(), st.integers(0, 99))
def test_token_nll_is_cross_entropy(batch, length, vocab, shift, seed):
    g = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(batch, length, vocab, generator=g), torch.randint(0, vocab, (batch, length), generator=g)
    labels[torch.rand(batch, length, generator=g) < .3] = IGNORE_INDEX
    x, y = (logits[:, :-1], labels[:, 1:]) if shift else (logits, labels)
    want = F.cross_entropy(x.reshape(-1, vocab), y.reshape(-1), reduction='none', ignore_index=IGNORE_INDEX)[y.reshape(-1) != IGNORE_INDEX]
    torch.testing.assert_close(token_nll(logits, labels, shift), want)

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
    with pytest.raises(ValueError, match='labels have the shape'): token_nll(logits, torch.zeros(5).long())
    with pytest.raises(ValueError, match='batch, length, vocab'): token_nll(logits[0], torch.zeros(2, 5).long())
    with pytest.raises(ValueError, match='label 7 is no token'): token_nll(logits, torch.full((2, 5), 7))
    with pytest.raises(ValueError, match='label -1 is no token'): token_nll(logits, torch.full((2, 5), -1))
    with pytest.raises(TypeError, match='whole numbers'): token_nll(logits, torch.zeros(2, 5))
    assert token_nll(logits, torch.full((2, 5), IGNORE_INDEX)).shape == (0,)
    assert token_nll(logits[:, :1], torch.zeros(2, 1).long()).shape == (0,)

def test_infinite_and_broken_logits_stay_visible():
    logits, labels = torch.zeros(1, 3, 4), torch.tensor([[0, 1, 2]])
    logits[0, 0, 1] = -math.inf
    assert Perplexity().update(logits, labels).value == math.inf
    logits[0, 0] = math.nan
    assert math.isnan(Perplexity().update(logits, labels).value)
    assert token_nll(torch.full((1, 2, 3), 1e30), torch.zeros(1, 2).long()).item() == pytest.approx(math.log(3))

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
        for b in parts: metric.update(model(input_ids=b['input_ids'], attention_mask=b['attention_mask']).logits, b['labels'])
    assert metric.value == pytest.approx(want, rel=1e-6)
    assert evaluate_lm(model, parts).perplexity == pytest.approx(want, rel=1e-6)

@pytest.mark.parametrize('size', [1, 3, 7])
def test_padding_on_the_left_changes_nothing(size):
    from course_lm.data import train_tokenizer
    from course_lm.labels import LMCollator
    tok, model, right = train_tokenizer(['a b c']*20, 300), gpt2(), padded([3, 17, 9, 2, 12, 20, 4])
    rows = [ids[mask.bool()].tolist() for ids,mask in zip(right['input_ids'], right['attention_mask'])]
    tok.padding_side = 'left'
    parts = [LMCollator(tok)(rows[i:i+size]) for i in range(0, 7, size)]
    score = evaluate_lm(model, parts)
    assert score.tokens == sum(map(len, rows)) - 7 and (size == 1 or any((b['attention_mask'][:, 0] == 0).any() for b in parts))
    assert score.perplexity == pytest.approx(math.exp(reference(model, right).mean()), rel=1e-6)

class Body(nn.Module):
    def __init__(self, model): super().__init__(); self.model = model
    def forward(self, input_ids): return self.model(input_ids=input_ids).logits

def shuffled(lengths, seed, extra_pad):
    return batches_of(padded(lengths), len(lengths), np.random.default_rng(seed).permutation(len(lengths)), extra_pad)[0]

@pytest.mark.parametrize('size, seed, extra_pad', [(1, 0, 0), (3, 1, 5), (7, 2, 2)])
def test_fastai_learner_agrees(size, seed, extra_pad):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        import fastai.callback.progress
        from fastai.data.core import DataLoaders
        from fastai.learner import Learner
        from fastai.metrics import Perplexity as Theirs
    model, batch = gpt2(), shuffled([3, 17, 9, 4, 12, 20, 2], seed, extra_pad)
    def loss(logits, labels): return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX)
    items = list(zip(batch['input_ids'], batch['labels']))
    from fastai.data.load import DataLoader
    dl = DataLoader(items, batch_size=size)
    learn = Learner(DataLoaders(dl, dl), Body(model), loss_func=loss, metrics=[Perplexity(), TokenAccuracy(), TokenAccuracy(5), Theirs()])
    with learn.no_bar(), learn.no_logging(): _, mine, acc, top5, theirs = learn.validate()
    want = math.exp(reference(model, padded([3, 17, 9, 4, 12, 20, 2])).mean())
    assert mine == pytest.approx(want, rel=1e-6)
    assert [m.name for m in learn.metrics][:3] == ['perplexity', 'accuracy', 'top5_accuracy']
    if size < 7: assert abs(theirs - want) > 1e-3 # it weights batches by their rows
    assert acc <= top5 and acc == pytest.approx(TokenAccuracy().update(model(batch['input_ids']).logits, batch['labels']).value)

def test_fastai_takes_the_class_and_pickles(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        from fastai.learner import Metric, mk_metric
    metric = Perplexity(shift=False).update(torch.zeros(1, 2, 5), torch.zeros(1, 2).long())
    assert isinstance(metric, Metric) and mk_metric(metric) is metric and isinstance(mk_metric(Perplexity), Perplexity)
    again = pickle.loads(pickle.dumps(metric))
    assert again.value == metric.value and again.shift is False and type(again) is Perplexity

@pytest.mark.parametrize('size, accumulate, per_batch', [(1, None, False), (3, 1, False), (4, None, True), (7, 2, False)])
def test_trainer_agrees(size, accumulate, per_batch, tmp_path):
    from transformers import Trainer, TrainingArguments
    model, batch = gpt2(), shuffled([3, 17, 9, 4, 12, 20, 2], size, extra_pad=size)
    rows = [dict(zip(batch, row)) for row in zip(*batch.values())]
    def collate(rows):
        b = {k: torch.stack([r[k] for r in rows]) for k in rows[0]}
        return batches_of(b, len(rows))[0]
    args = TrainingArguments(str(tmp_path), per_device_eval_batch_size=size, eval_accumulation_steps=accumulate, report_to=[], use_cpu=True,
                             dataloader_pin_memory=False, batch_eval_metrics=per_batch, disable_tqdm=True)
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
    with pytest.raises(ValueError, match='no token was scored'): evaluate_lm(gpt2(), [dict(input_ids=torch.ones(1, 3).long(), labels=labels)])
    with pytest.raises(ValueError, match='no token was scored'): evaluate_lm(gpt2(), [])
    with pytest.raises(ValueError, match="dict with 'labels'"): evaluate_lm(gpt2(), [dict(input_ids=labels)])
    with pytest.raises(ValueError, match='k must be at least 1'): TokenAccuracy(0)
    fn = trainer_metrics()
    from transformers import EvalPrediction
    with pytest.raises(ValueError, match='no token was scored'):
        fn['compute_metrics'](EvalPrediction(fn['preprocess_logits_for_metrics'](torch.zeros(1, 3, 5), labels).numpy(), labels.numpy()))

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
    small = dict(vocab_size=90, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64)
    if name == 'llama': return T.LlamaForCausalLM(T.LlamaConfig(**small, num_key_value_heads=1))
    if name == 'gemma2': return T.Gemma2ForCausalLM(T.Gemma2Config(**small, num_key_value_heads=1, head_dim=8, final_logit_softcapping=.5, query_pre_attn_scalar=8))
    if name == 'cohere': return T.CohereForCausalLM(T.CohereConfig(**small, logit_scale=.25, pad_token_id=0, bos_token_id=1, eos_token_id=2))
    if name == 'gpt_neox': return T.GPTNeoXForCausalLM(T.GPTNeoXConfig(**small))
    if name == 'opt': return T.OPTForCausalLM(T.OPTConfig(vocab_size=90, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64, word_embed_proj_dim=16, pad_token_id=1))
    if name == 'bert': return T.BertForMaskedLM(T.BertConfig(**small))
    if name == 'roberta': return T.RobertaForMaskedLM(T.RobertaConfig(**small, pad_token_id=1))
    if name == 'distilbert': return T.DistilBertForMaskedLM(T.DistilBertConfig(vocab_size=90, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=64))
    if name == 'modernbert': return T.ModernBertForMaskedLM(T.ModernBertConfig(**small, pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3))
    if name == 't5': return T.T5ForConditionalGeneration(T.T5Config(vocab_size=90, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0, pad_token_id=0))

@pytest.mark.parametrize('name, apart', [('llama', True), ('gemma2', False), ('cohere', False), ('gpt_neox', True), ('opt', True), ('bert', True),
                                         ('roberta', True), ('distilbert', True), ('modernbert', True), ('t5', True)])
def test_every_head(name, apart):
    model = seeded(lambda: build(name))
    batch = padded([9, 14, 6], vocab=90)
    masked = name in ('bert', 'roberta', 'distilbert', 'modernbert')
    assert is_causal(model) == (not masked and name != 't5')
    with torch.no_grad():
        out = model(**batch) if name == 't5' else model(input_ids=batch['input_ids'], attention_mask=batch['attention_mask'])
    want = token_nll(out.logits, batch['labels'], shift=is_causal(model)).mean().item()
    assert evaluate_lm(model, [batch]).cross_entropy == pytest.approx(want, rel=1e-5)
    with P.Scorer(model) as scorer:
        scorer({k: v for k,v in batch.items() if k != 'labels'}, batch['labels'])
        assert (scorer.head is not None) == apart

def test_any_module_and_any_function():
    torch.manual_seed(0)
    class LSTM(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.rnn, self.out = nn.Embedding(20, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 20)
        def forward(self, input_ids): return self.out(self.rnn(self.emb(input_ids))[0])
    model, batch = LSTM(), padded([8, 5], vocab=20)
    want = token_nll(model(batch['input_ids']), batch['labels']).mean().item()
    assert evaluate_lm(model, [batch]).cross_entropy == pytest.approx(want, rel=1e-6) and model.training
    assert evaluate_lm(lambda input_ids: torch.zeros(*input_ids.shape, 20), [batch]).perplexity == pytest.approx(20, rel=1e-6)
    assert sliding_perplexity(model, torch.arange(20), max_length=8, stride=4).tokens == 19
    with pytest.raises(ValueError, match='max_length is None'): sliding_perplexity(model, torch.arange(20))

def test_mode_is_given_back():
    model = gpt2().train()
    model.transformer.h[0].eval()
    batch = padded([9, 4])
    a, b = evaluate_lm(model, [batch]), evaluate_lm(model, [batch])
    assert a == b and model.training and not model.transformer.h[0].training and model.transformer.h[1].training
    with pytest.raises(ValueError): evaluate_lm(model, [dict(input_ids=batch['input_ids'], labels=batch['labels'][:, :3])])
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
            for x,y in zip(torch.autograd.grad(nats/tokens, (h, w, b)), torch.autograd.grad(want.mean(), (h, w, b))): torch.testing.assert_close(x, y, rtol=tol, atol=tol)

def test_chunked_nll_gradcheck_and_edges():
    torch.manual_seed(0)
    h, w = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True), torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 7, (2, 5))
    assert torch.autograd.gradcheck(lambda h, w: chunked_nll(h, w, labels, floats=14)[0], (h, w))
    nats, tokens = chunked_nll(h, w, torch.full((2, 5), IGNORE_INDEX))
    assert tokens == 0 and nats.item() == 0
    assert chunked_nll(h.detach(), w.detach(), labels)[0].requires_grad is False
    assert [g is None for g in torch.autograd.grad(chunked_nll(h, w.detach(), labels)[0], (h, w), allow_unused=True)] == [False, True]
    with pytest.raises(ValueError, match='label 7'): chunked_nll(h, w, torch.full((2, 5), 7))

@pytest.mark.parametrize('make, masked', [(gpt2, False), (bert, True), (lambda: seeded(lambda: build('gemma2')), False)])
def test_model_nll_trains_as_the_model_does(make, masked):
    model = make()
    batch = padded([9, 14, 6], vocab=90)
    nats, tokens = model_nll(model, batch)
    (nats/tokens).backward()
    mine = {k: p.grad.clone() for k,p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    assert (nats/tokens).item() == pytest.approx(loss.item(), rel=1e-6)
    assert mine.keys() == {k for k,p in model.named_parameters() if p.grad is not None}
    for k,p in model.named_parameters():
        if p.grad is not None: torch.testing.assert_close(mine[k], p.grad, rtol=1e-5, atol=1e-6)

# ---- windows

def docs_loop(model, ids, max_length, stride, mended):
    "The strided loop of the transformers documentation: `mended` counts the targets its loss was averaged over."
    nats, n, prev = 0., 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + max_length, len(ids))
        x = torch.as_tensor(ids[begin:end])[None]
        y = x.clone()
        y[:, :-(end - prev)] = IGNORE_INDEX
        with torch.no_grad(): loss = model(x, labels=y).loss.item()
        scored = int((y[:, 1:] != IGNORE_INDEX).sum()) if mended else int((y != IGNORE_INDEX).sum()) - 1
        if scored: nats, n = nats + loss*scored, n + scored
        prev = end
        if end == len(ids): break
    return math.exp(nats/n), n

@pytest.mark.parametrize('n', [2, 15, 16, 17, 31, 100, 129])
@pytest.mark.parametrize('stride', [1, 3, 8, 15, 16])
def test_sliding_is_the_docs_loop(n, stride):
    model, ids = gpt2(n_positions=16), torch.randint(0, 320, (n,), generator=torch.Generator().manual_seed(n))
    want, tokens = docs_loop(model, ids, 16, stride, mended=True)
    for batch_size in (1, 4):
        got = sliding_perplexity(model, ids, 16, stride, batch_size)
        assert got.tokens == tokens and got.perplexity == pytest.approx(want, rel=1e-5)
    if stride < 16: assert got.tokens == n - 1

def test_sliding_scores_each_token_once_given_its_window():
    model, ids = gpt2(n_positions=16), torch.randint(0, 320, (41,), generator=torch.Generator().manual_seed(3))
    want = 0.
    for t in range(1, 41): # with stride 1 a token sees the 15 before it
        with torch.no_grad(): want -= model(ids[None, max(0, t-15):t]).logits[0, -1].log_softmax(-1)[ids[t]].item()
    assert sliding_perplexity(model, ids, 16, 1).nats == pytest.approx(want, rel=1e-5)
    with_bos = sliding_perplexity(model, ids, 16, 15, bos_id=0)
    assert with_bos.tokens == 41
    want = -sum(model(torch.cat([torch.tensor([0]), ids[b:b+15]])[None]).logits[0].log_softmax(-1)[range(len(ids[b:b+15])), ids[b:b+15]].sum().item() for b in (0, 15, 30))
    assert with_bos.nats == pytest.approx(want, rel=1e-5)

def test_sliding_input_and_errors():
    model, ids = gpt2(n_positions=16), list(range(40))
    same = {sliding_perplexity(model, x).nats for x in (ids, np.array(ids, dtype=np.int32), torch.tensor(ids), torch.tensor([ids]))}
    assert len(same) == 1
    assert sliding_perplexity(model, ids, n_bytes=80).bits_per_byte > 0
    for kw,text in ((dict(max_length=17), 'max_length=17 is more than the 16'), (dict(stride=0), 'stride=0'), (dict(stride=17), 'between 1 and 16'), (dict(stride=16, bos_id=0), 'between 1 and 15'), (dict(max_length=1), 'max_length=1')):
        with pytest.raises(ValueError, match=text): sliding_perplexity(model, ids, **kw)
    with pytest.raises(ValueError, match='no token was scored'): sliding_perplexity(model, [3])
    with pytest.raises(ValueError, match='one text'): sliding_perplexity(model, torch.zeros(2, 8))

# ---- masked models

def brute_pll(model, tok, text):
    x = torch.tensor([tok(text)['input_ids']])
    total = []
    for t in range(1, x.shape[1]-1):
        y = x.clone()
        y[0, t] = tok.mask_token_id
        with torch.no_grad(): total.append(-model(y).logits[0, t].log_softmax(-1)[x[0, t]].item())
    return total

def test_pseudo_perplexity_one_at_a_time(mtok):
    model = bert(n=96)
    want = [n for t in TEXTS for n in brute_pll(model, mtok, t)]
    for batch_size in (1, 7, 64):
        got = pseudo_perplexity(model, mtok, TEXTS, batch_size=batch_size)
        assert got.tokens == len(want) and got.nats == pytest.approx(sum(want), rel=1e-5)
    assert got.bytes == sum(len(t.encode()) for t in TEXTS)
    each = score_texts(model, mtok, TEXTS)
    assert [s.nats for s in each] == pytest.approx([sum(brute_pll(model, mtok, t)) for t in TEXTS], rel=1e-5)
    assert pseudo_perplexity(model, mtok, TEXTS[0]).tokens == each[0].tokens

def test_pseudo_perplexity_long_and_within_word(mtok):
    model = bert(n=16)
    assert pseudo_perplexity(model, mtok, ' '.join(TEXTS)).tokens == len(mtok(' '.join(TEXTS), add_special_tokens=False)['input_ids'])
    text = 'naïvely'
    assert len(mtok.tokenize(text)) > 2
    x = torch.tensor([mtok(text)['input_ids']])
    want = 0.
    for t in range(1, x.shape[1]-1):
        y = x.clone()
        y[0, t:-1] = mtok.mask_token_id
        with torch.no_grad(): want -= model(y).logits[0, t].log_softmax(-1)[x[0, t]].item()
    assert pseudo_perplexity(model, mtok, text, within_word=True).nats == pytest.approx(want, rel=1e-5)

def test_pseudo_perplexity_refuses(tok, mtok):
    with pytest.raises(ValueError, match='is a causal model'): pseudo_perplexity(gpt2(), tok, TEXTS)
    with pytest.raises(ValueError, match='no mask token'): pseudo_perplexity(bert(), tok, TEXTS)
    with pytest.raises(ValueError, match='no token was scored'): pseudo_perplexity(bert(), mtok, [''])
    with pytest.raises(ValueError, match='texts is empty'): pseudo_perplexity(bert(), mtok, [])

# ---- bytes, intervals, comparisons

def test_token_bytes_spell_the_text(tok, mtok):
    for t in (tok, mtok):
        n = token_bytes(t)
        assert len(n) == len(t) and n[t.all_special_ids].sum() == 0
        for text in TEXTS + ['日本語 🙂\n\ttabs', ' two  spaces ']: assert n[t(text, add_special_tokens=False)['input_ids']].sum() == len(text.encode())

def test_token_bytes_sentencepiece_and_wordpiece():
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    vocab = {'<unk>': 0, **{f'<0x{i:02X}>': i+1 for i in range(256)}, '▁': 257, 'a': 258, 't': 259, 'e': 260, 's': 261}
    sp = Tokenizer(models.BPE(vocab, [], byte_fallback=True, unk_token='<unk>'))
    sp.normalizer = normalizers.Sequence([normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
    sp = PreTrainedTokenizerFast(tokenizer_object=sp, unk_token='<unk>')
    n = token_bytes(sp)
    assert n[sp('a test: é')['input_ids']].sum() == len('a test: é'.encode()) + 1 # the space that it puts in front
    wp = Tokenizer(models.WordPiece(unk_token='[UNK]'))
    wp.pre_tokenizer = pre_tokenizers.Whitespace()
    wp.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=100, special_tokens=['[UNK]'], show_progress=False))
    with pytest.raises(ValueError, match='do not spell'): token_bytes(PreTrainedTokenizerFast(tokenizer_object=wp, unk_token='[UNK]'))

def test_evaluate_counts_the_bytes_of_what_it_scores(tok):
    model = gpt2()
    ids = torch.tensor([[0] + tok(t, add_special_tokens=False)['input_ids'][:15] for t in TEXTS if len(tok.tokenize(t)) >= 15])
    score = evaluate_lm(model, [dict(input_ids=ids, labels=ids)], n_bytes=token_bytes(tok))
    assert score.bytes == sum(len(tok.decode(row[1:]).encode()) for row in ids)
    assert evaluate_lm(model, [dict(input_ids=ids, labels=ids)], n_bytes=100).bits_per_byte == pytest.approx(score.nats/math.log(2)/100)

def test_score_texts(tok):
    model = gpt2(n_positions=96)
    scores = score_texts(model, tok, TEXTS + [''])
    for t,s in zip(TEXTS, scores):
        ids = torch.tensor([[0] + tok(t, add_special_tokens=False)['input_ids']])
        with torch.no_grad(): want = token_nll(model(ids).logits, ids)
        assert s.tokens == len(want) and s.bytes == len(t.encode()) and s.nats == pytest.approx(want.sum().item(), rel=1e-5)
    assert scores[-1] == LMScore(0., 0, 0)
    for size in (1, 3): assert [s.nats for s in score_texts(model, tok, TEXTS, batch_size=size)] == pytest.approx([s.nats for s in scores[:-1]], rel=1e-5)
    short = gpt2(n_positions=16)
    assert [s.tokens for s in score_texts(short, tok, TEXTS)] == [s.tokens for s in scores[:-1]]
    with pytest.raises(TypeError, match='one string'): score_texts(model, tok, 'text')

def test_score_texts_without_bos(tok):
    plain = train_tokenizer(TEXTS*3, vocab_size=320)
    plain.bos_token = None
    for t,s in zip(TEXTS, score_texts(gpt2(n_positions=96), plain, TEXTS)):
        first = plain(t, return_offsets_mapping=True)['offset_mapping'][0][1]
        assert s.tokens == len(plain.tokenize(t)) - 1 and s.bytes == len(t[first:].encode())
    with pytest.raises(ValueError, match='only one tokenizer has a BOS'): compare_lms((gpt2(), tok), (gpt2(), plain), TEXTS)

def test_bootstrap_interval_covers():
    rng, inside = np.random.default_rng(0), 0
    for trial in range(150):
        tokens = rng.integers(5, 200, 60)
        nats = tokens * rng.normal(3, .5, 60)
        low, high = bootstrap_interval([LMScore(float(a), int(b), int(4*b)) for a,b in zip(nats, tokens)], 'cross_entropy', n_resamples=400, seed=trial)
        inside += low < 3 < high
    assert .86 < inside/150 <= 1
    scores = [LMScore(float(a), int(b), int(4*b)) for a,b in zip(nats, tokens)]
    low, high = bootstrap_interval(scores)
    assert low < sum(scores).perplexity < high and bootstrap_interval(scores) == (low, high)
    bits = bootstrap_interval(scores, 'bits_per_byte')
    assert bits[0] < sum(scores).bits_per_byte < bits[1]
    assert bootstrap_interval(scores, level=.5)[0] > low
    with pytest.raises(ValueError, match='at least 2'): bootstrap_interval(scores[:1])
    with pytest.raises(ValueError, match='what='): bootstrap_interval(scores, 'ppl')
    with pytest.raises(ValueError, match='needs its bytes'): bootstrap_interval([LMScore(1., 1)]*3, 'bits_per_byte')

def test_compare_is_paired(tok, mtok):
    model, other = gpt2(n_positions=96), gpt2(n_positions=96, layer_norm_epsilon=.5)
    same = compare_lms((model, tok), (model, tok), TEXTS)
    assert same.difference == same.low == same.high == 0 and not same.differ
    a, b = compare_lms((model, tok), (other, tok), TEXTS), compare_lms((other, tok), (model, tok), TEXTS)
    assert a.difference == pytest.approx(-b.difference) and a.difference == pytest.approx(a.b.bits_per_byte - a.a.bits_per_byte)
    assert a.low <= a.difference <= a.high and 'over 4 documents' in repr(a)
    small = train_tokenizer(TEXTS, vocab_size=270) # another tokenizer, the same bytes
    c = compare_lms((model, tok), (gpt2(270, n_positions=160), small), TEXTS)
    assert c.a.bytes == c.b.bytes and c.a.tokens < c.b.tokens
    assert compare_lms(score_texts(model, tok, TEXTS), (other, tok), TEXTS).difference == pytest.approx(a.difference)
    with pytest.raises(ValueError, match='one masked'): compare_lms((model, tok), (bert(), mtok), TEXTS)
    with pytest.raises(ValueError, match='3 texts, but'): compare_lms(score_texts(model, tok, TEXTS), (other, tok), TEXTS[:3])

def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(0)
    hard = rng.normal(300, 80, 50) # documents differ much, the two models little
    a, b = [LMScore(float(h), 100, 400) for h in hard], [LMScore(float(h - 3), 90, 400) for h in hard]
    c = compare_lms(a, b, ['x']*50)
    (la, ha), (lb, hb) = bootstrap_interval(a, 'bits_per_byte'), bootstrap_interval(b, 'bits_per_byte')
    assert c.differ and c.high < 0 and la < hb and lb < ha # paired: certain; the two intervals overlap

# ---- surprisal

def test_surprisal_frame(tok):
    model, text = gpt2(n_positions=96), TEXTS[1] + ' 🙂\n <b>'
    frame = surprisal(model, tok, text)
    ids = torch.tensor([[0] + tok(text, add_special_tokens=False)['input_ids']])
    with torch.no_grad(): want = token_nll(model(ids).logits, ids)
    np.testing.assert_allclose(frame.nats, want, rtol=1e-4)
    np.testing.assert_allclose(frame.bits, frame.nats/math.log(2))
    assert list(frame) == ['token', 'start', 'end', 'nats', 'bits']
    assert all(text[a:b] == t for t,a,b in zip(frame.token, frame.start, frame.end))
    words = surprisal(model, tok, text, by='word')
    assert list(words.token) == text.split() and words.nats.sum() == pytest.approx(frame.nats.sum())
    shown = show_surprisal(frame).data
    assert '<b>' not in shown and 'title=' in shown and '🙂' in shown
    import re
    body = shown.split('<div style="font-size')[0]
    assert re.sub('<[^>]*>', '', body).replace('&lt;', '<').replace('&gt;', '>') == text # nothing lost, nothing twice

def test_surprisal_long_and_masked_and_bare(tok, mtok):
    text = ' '.join(TEXTS*4)
    frame = surprisal(gpt2(n_positions=16), tok, text)
    assert len(frame) == len(tok.tokenize(text)) and frame.nats.notna().all()
    assert surprisal(bert(n=16), mtok, text).nats.notna().all()
    assert show_surprisal(gpt2(), tok, TEXTS[0]).data == show_surprisal(surprisal(gpt2(), tok, TEXTS[0])).data
    plain = train_tokenizer(TEXTS*3, vocab_size=320)
    plain.bos_token = None
    frame = surprisal(gpt2(n_positions=96), plain, TEXTS[0])
    assert math.isnan(frame.nats[0]) and frame.nats[1:].notna().all() and 'not scored' in show_surprisal(frame).data
    with pytest.raises(ValueError, match='text is empty'): surprisal(gpt2(), tok, '')
    with pytest.raises(ValueError, match='by='): surprisal(gpt2(), tok, 'a', by='line')
    with pytest.raises(ValueError, match='give show_surprisal a frame'): show_surprisal(gpt2())

# ---- imports

def test_import_is_light():
    heavy = ('fastai', 'transformers', 'datasets', 'sklearn', 'matplotlib', 'pandas', 'ipywidgets', 'IPython')
    code = f"import sys, course_lm.perplexity; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'
