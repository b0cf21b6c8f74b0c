"""Lessons 5 and 7: training, checkpoints, release."""
import copy

import torch

from course_lm.adapters import LoRA, add_lora
from course_lm.checkpoints import Checkpoints
from course_lm.finetuning import Recipe, ShuffledBatches, TrainingRun, train_loop
from course_lm.labels import CausalLabels
from course_lm.learner import lm_dataloaders, lm_learner
from course_lm.pretraining import PretrainRecipe
from tests.fuzz.calls import Call

QUIET = dict(n_bytes=100, progress=False)
CHANGES = dict(lr=1e-3, epochs=1, n_steps=2, accumulate=1, schedule="one_cycle", warmup_steps=.25, decay=.2,
               weight_decay=.01, betas=(.9, .99), max_grad_norm=1., eval_every=1, keep_best=False,
               criterion="valid_loss", seed=1)


def calls(w):
    groups = adapters, parts, histories, loops, checkpoints, pretraining, releasing
    return [call for group in groups for call in group(w)]


def adapters(w):
    linear = torch.nn.Linear(4, 3)
    rows = torch.ones(2, 4)
    beside = dict(base=linear, rank=2, alpha=4, generator=torch.Generator())
    yield Call("adapters:LoRA", beside, then=lambda made: made(torch.ones(2, made.base.in_features)))
    yield Call("adapters:LoRA.forward", dict(x=rows), on=LoRA(linear, 2))
    add = dict(model=copy.deepcopy(w.lm), rank=2, alpha=4, targets=["c_attn"], seed=1)
    yield Call("adapters:add_lora", add)
    yield Call("adapters:merge_lora", dict(model=add_lora(copy.deepcopy(w.lm))))


def parts(w):
    yield Call("finetuning:ShuffledBatches", dict(n=5, batch_size=2, seed=1), then=list)
    batches = ShuffledBatches(10, 2)
    epoch = dict(epoch=1, start=1)
    yield Call("finetuning:ShuffledBatches.set_epoch", epoch, on=batches, then=lambda _: list(batches))
    data = dict(data=w.chunks, tokenizer=w.tok, strategy=CausalLabels(), batch_size=4, seed=1)
    yield Call("finetuning:lm_loaders", data, then=lambda made: [next(iter(x)) for x in made])
    yield Call("learner:lm_dataloaders", data | dict(device="cpu"), then=lambda made: made.one_batch())
    block = dict(tokenizer=w.tok, strategy=CausalLabels(), seed=1)
    yield Call("learner:lm_block", block)
    dls = lm_dataloaders(w.chunks, w.tok, batch_size=8, device="cpu")
    learn = dict(dls=dls, model=w.lm, loss="model", metrics=None, path=None, train_bn=False)
    yield Call("learner:lm_learner", learn)
    made = lm_learner(dls, w.lm, path="out")
    yield Call("learner:LMLearner.export", dict(fname="export"), on=made)
    yield Call("learner:LMLearner.show_results", dict(ds_idx=1, dl=None, max_n=2), on=made)
    factor = dict(step=1, n_steps=10, schedule="one_cycle", warmup_steps=.25, decay=.2)
    yield Call("finetuning:lr_factor", factor)
    yield Call("finetuning:lr_factor", factor | dict(schedule="wsd", warmup_steps=2, decay=3), note="wsd")
    opt = dict(model=w.lm, lr=1e-3, weight_decay=.01, betas=(.9, .99), make=torch.optim.AdamW)
    yield Call("finetuning:lm_optimizer", opt)
    yield Call("finetuning:Recipe", dict(batch_size=16, **CHANGES))
    yield Call("finetuning:Recipe.of", dict(recipe=Recipe(), **CHANGES), on=Recipe)
    yield Call("heads:assert_same_backbone", dict(a=w.lm, b=w.lm))


def histories(w):
    h = w.history
    yield Call("finetuning:History", dict(steps=h.steps, evals=h.evals), then=lambda h: h.plot())
    yield Call("finetuning:History.train_loss", dict(last=2), on=h)
    yield Call("finetuning:History.best_by", dict(criterion="valid_loss"), on=h)
    yield Call("finetuning:History.plot", dict(ax=None), on=h)
    p = w.pretrained
    made = {k: getattr(p, k) for k in ("steps", "evals", "seconds", "settings", "decay_from", "decay_steps")}
    yield Call("pretraining:PretrainHistory", made, then=lambda h: (repr(h), h.done))
    yield Call("pretraining:PretrainHistory.plot", dict(ax=None, rival=2.), on=p)


def loops(w):
    loop = dict(model=w.lm, train=w.train, valid=w.valid, recipe=Recipe(), **QUIET, **CHANGES)
    whole = loop | dict(evaluate=None, checkpoints=Checkpoints("ck1", every=1, resume=False))
    yield Call("finetuning:train_loop", whole, trains=True)
    for engine in ("train_accelerate", "train_trainer", "train_fastai"):
        yield Call(f"engines:{engine}", loop, trains=True)
    one = dict(model=w.lm, batch=w.batch, untrained=False, n_steps=2, lr=3e-3)
    yield Call("engines:check_one_batch", one, trains=True)


def checkpoints(w):
    made = dict(folder="ck", every=1, seconds=None, resume=True)
    yield Call("checkpoints:Checkpoints", made)
    kept = Checkpoints(w.folder/"kept", every=1)
    train_loop(w.lm2, w.train, n_steps=2, checkpoints=kept, progress=False)
    yield Call("checkpoints:Checkpoints.read", dict(name=kept.last().name), on=kept)
    run = TrainingRun(w.lm2, w.train, n_steps=2)
    fresh = Checkpoints(w.folder/"fresh", every=1)
    fresh.open(run)
    yield Call("checkpoints:Checkpoints.due", dict(run=run), on=fresh)
    yield Call("checkpoints:Checkpoints.open", dict(run=run, name=None), on=fresh)
    yield Call("checkpoints:Checkpoints.save", dict(run=run, name="here"), on=fresh)


def pretraining(w):
    changes = CHANGES | dict(schedule="wsd", minutes=None, optimizer="adamw", strategy=None, bf16=False)
    yield Call("pretraining:PretrainRecipe", dict(batch_size=16, compile=False, **changes))
    yield Call("pretraining:batch_indices", dict(i=1, n=10, batch_size=3, seed=1))
    kept = Checkpoints("ck2", resume=False)
    more = dict(checkpoints=kept, stop_after=2, progress=False, batch_size=4, compile=False)
    run = dict(model=w.lm, tokenizer=w.tok, chunks=w.array, valid=w.valid_array, recipe=PretrainRecipe())
    yield Call("pretraining:pretrain", run | more | changes, trains=True)
    config = w.lm.config
    yield Call("scratch:deduplicate", dict(texts=w.texts))
    yield Call("scratch:fertility", dict(tokenizer=w.tok, texts=w.texts, unit="word"))
    yield Call("scratch:show_tokens", dict(tokenizer=w.tok, text=w.texts[0], title="T"))
    yield Call("scratch:count_parameters", dict(config=config))
    yield Call("scratch:count_flops", dict(config=config, length=16))
    speed = dict(model=w.lm, length=16, batch_size=2, updates=1, bf16=False)
    yield Call("scratch:training_speed", speed, trains=True)
    plan = dict(config=config, length=16, tokens_per_second=1000., corpus_tokens=10000)
    yield Call("scratch:plan_run", plan | dict(tokens=5000))
    yield Call("scratch:plan_run", plan | dict(minutes=1.), note="minutes")
    yield Call("scratch:compression_baseline", dict(text=w.texts[0], given=w.texts[1]))


def releasing(w):
    again = dict(openings=w.array[:2, :4], corpus=w.flat, max_new_tokens=6, at_least=3)
    yield Call("releasing:memorization", dict(model=w.lm, **again))
    card = dict(name="n", config=w.lm.config, history=w.pretrained, corpus="c", scores={"a": 1.}, command="x",
                notes="n", before=())
    yield Call("releasing:model_card", card)
    docs = [dict(text=f"text {i}", file=f"train/{i}.txt", movie=f"m{i}", labelled=True) for i in range(400)]
    yield Call("releasing:split_documents", dict(docs=docs, seed=1))
    tok = copy.deepcopy(w.tok)
    tok.model_max_length = 64
    text = w.array.ravel()
    measure = dict(train=text, test=text, n_documents=2, n_openings=2, seed=0, reference_texts=["a text"])
    yield Call("releasing:measure_model", dict(model=w.lm, tokenizer=tok, **measure), trains=True)
