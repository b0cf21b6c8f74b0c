"""NaN in a loss or a probability stops with an error, and never becomes a result."""
import math

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from course_lm import engines
from course_lm.finetuning import train_loop
from course_lm.labels import LMCollator
from course_lm.perplexity import LMScore, Perplexity, evaluate_lm, trainer_metrics
from course_lm.predictions import fill_mask, generate_text, lm_predictions
from course_lm.pretraining import pretrain
from course_lm.scoring import compare_lms, pseudo_perplexity, score_texts, sliding_perplexity, surprisal

TEXTS = ["The name x is bound", "to the value of a module"]


def gpt2(tok):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tok), n_positions=64, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.)
    return GPT2LMHeadModel(config)


def broken(model, where=0):
    with torch.no_grad(): list(model.parameters())[where].fill_(math.nan)
    return model.eval()


def batches(tok):
    collate = LMCollator(tok, seed=0 if tok.mask_token else None)
    return [collate([tok(t)["input_ids"] for t in TEXTS])]*2


MEASURES = {
    "evaluate_lm": lambda m, tok: evaluate_lm(m, batches(tok)),
    "score_texts": lambda m, tok: score_texts(m, tok, TEXTS),
    "sliding_perplexity": lambda m, tok: sliding_perplexity(m, tok(TEXTS[0])["input_ids"]),
    "surprisal": lambda m, tok: surprisal(m, tok, TEXTS[0]),
    "surprisal of words": lambda m, tok: surprisal(m, tok, TEXTS[0], by="word"),
    "compare_lms": lambda m, tok: compare_lms((m, tok), (gpt2(tok), tok), TEXTS),
    "generate_text": lambda m, tok: generate_text(m, tok, "The", 3),
    "generate_text, greedy": lambda m, tok: generate_text(m, tok, "The", 3, temperature=0),
    "generate_text, healed": lambda m, tok: generate_text(m, tok, "The", 3, heal=True, top_k=5),
    "lm_predictions": lambda m, tok: lm_predictions(m, tok, batches(tok)[0])}


@pytest.mark.parametrize("name", MEASURES)
def test_measures_of_a_causal_model(tok, name):
    MEASURES[name](gpt2(tok).eval(), tok)
    with pytest.raises(FloatingPointError, match="NaN"): MEASURES[name](broken(gpt2(tok)), tok)


@pytest.mark.parametrize("measure", [
    pseudo_perplexity, lambda m, t, x: score_texts(m, t, x), lambda m, t, x: fill_mask(m, t, "a [MASK]"),
    lambda m, t, x: surprisal(m, t, x[0]), lambda m, t, x: evaluate_lm(m, batches(t))])
def test_measures_of_a_masked_model(mtok, measure):
    config = BertConfig(vocab_size=len(mtok), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=32)
    with pytest.raises(FloatingPointError, match="NaN"): measure(broken(BertForMaskedLM(config)), mtok, TEXTS)


def test_one_token_is_enough(tok):
    model, seen = gpt2(tok).eval(), []

    def once(module, args, out):
        seen.append(1)
        out.logits[0, 2] = math.nan if len(seen) == 3 else out.logits[0, 2]
    score = evaluate_lm(model, batches(tok)*2)
    with pytest.raises(FloatingPointError, match="NaN nats"): score + LMScore(math.nan, 1)
    model.register_forward_hook(once)
    with pytest.raises(FloatingPointError, match="NaN"):
        for _ in range(4): lm_predictions(model, tok, batches(tok)[0])


def test_metrics(tok):
    logits, labels = torch.zeros(1, 3, len(tok)), torch.tensor([[1, 2, 3]])
    logits[0, 1, 5] = math.nan
    with pytest.raises(FloatingPointError): Perplexity().update(logits, labels)
    made = trainer_metrics()
    sums = made["preprocess_logits_for_metrics"](logits, labels)
    with pytest.raises(FloatingPointError): made["compute_metrics"](type("", (), dict(predictions=sums)))


ENGINES = [train_loop, engines.train_accelerate, engines.train_trainer, engines.train_fastai]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.__name__)
@pytest.mark.parametrize("where", ["weights", "gradient", "evaluation"])
@pytest.mark.filterwarnings("ignore")
def test_engines(tok, engine, where):
    model, given = gpt2(tok), dict(n_steps=3, progress=False)
    before = [p.detach().clone() for p in model.parameters()]
    if where == "weights": broken(model)
    if where == "gradient": # the loss is fine, the way back is not
        model.lm_head.register_full_backward_hook(lambda m, i, o: (torch.full_like(i[0], math.nan),))
    if where == "evaluation":
        def late(module, args, kwargs, out):
            if not torch.is_grad_enabled() and module.training is False: out.logits.fill_(math.nan)
        model.register_forward_hook(late, with_kwargs=True)
        given["valid"] = batches(tok)
    with pytest.raises(FloatingPointError, match="(?i)nan"): engine(model, batches(tok), **given)
    if where == "gradient" and engine is not engines.train_trainer: # which tells of a gradient after the step
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_own_evaluations_and_pretrain(tok):
    with pytest.raises(FloatingPointError, match="accuracy is NaN after 0 updates"):
        train_loop(gpt2(tok), batches(tok), evaluate=lambda m: dict(accuracy=np.nan), progress=False)
    chunks = np.random.default_rng(0).integers(5, 200, (8, 8))
    with pytest.raises(FloatingPointError, match="update 1"):
        pretrain(broken(gpt2(tok)), tok, chunks, n_steps=2, batch_size=4, warmup_steps=0, progress=False)
    with pytest.raises(FloatingPointError, match="NaN"):
        pretrain(broken(gpt2(tok)), tok, chunks, chunks, n_steps=2, batch_size=4, progress=False)
