"""An error in the middle of a call leaves models, modes, gradients and random streams as they were."""
import inspect, random
from contextlib import contextmanager

import numpy as np
import pytest
import torch


class Boom(Exception):
    "What a model raises in these tests."


def modules(args): return [x for x in args.values() if isinstance(x, torch.nn.Module)]


def state(models):
    "All that a call must give back."
    of = [(p.requires_grad, None if p.grad is None else p.grad.clone())
          for m in models for p in m.parameters()]
    modes = [part.training for m in models for part in m.modules()]
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for m in models for part in m.modules()]
    numpy = np.random.get_state()
    streams = [random.getstate(), torch.get_rng_state().tolist(), numpy[1].tolist(), numpy[2]]
    return dict(gradients=of, modes=modes, hooks=hooks, streams=streams)


def equal(a, b):
    if isinstance(a, torch.Tensor): return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@contextmanager
def breaks(model, at):
    "Its forward raises at the `at`th time."
    times, forward, signature = 0, model.forward, inspect.signature(model.forward)

    def broken(*args, **kwargs):
        nonlocal times
        times += 1
        if times >= at: raise Boom
        return forward(*args, **kwargs)
    broken.__signature__ = signature
    model.forward = broken
    try: yield
    finally: del model.forward


CHANGES = ("layer_groups", "add_tokens", "fix_pad", "lm_optimizer", "assert_same_backbone", "save_lm",
           "add_lora", "merge_lora")


# Draws from the caller's stream where no seed is given; works on a copy, with the first one's `forward`.
ON_PURPOSE = {("predictions:generate_text (heal)", "streams"), ("engines:check_one_batch", "gradients")}


def those(calls):
    "Calls that run a model."
    return [c for c in calls if modules(c.args) and not c.name.endswith((*CHANGES, ":evaluating"))]


def before(call, model):
    "One trainable parameter with a gradient, a frozen one, and a part in the other mode."
    first, second, *_ = model.parameters()
    first.grad, second.requires_grad = torch.ones_like(first), False
    model.train()
    [*model.modules()][-1].eval()


@pytest.mark.parametrize("at", [1, 2, 4])
def test_everything_is_as_it_was(calls, at):
    raised, wrong = set(), []
    for call in those(calls):
        model, = modules(call.args)[:1]
        before(call, model)
        was = state([model])
        with breaks(model, at):
            try: call()
            except Boom: raised.add(call.name)
            except Exception as e: # said in its own words, as by a probe that cannot be tried
                if isinstance(e.__cause__ or e.__context__, Boom): raised.add(call.name)
        now = state([model])
        wrong += [(call.title, what) for what in was if not equal(was[what], now[what])]
        for p in model.parameters(): p.grad, p.requires_grad = None, True
        model.eval()
    assert not {*wrong} - ON_PURPOSE
    assert len(raised) >= (12 if at == 1 else 8), raised
