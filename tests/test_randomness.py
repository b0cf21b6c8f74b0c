"""Seeds, generators, streams and modes: course_lm.support.randomness."""
import json
import random

import numpy as np
import pytest
import torch
from torch import nn

from course_lm.support.randomness import (epoch_order, evaluating, numpy_generator, own_streams,
                                          random_states, seeded, set_random_states)

CPU = torch.device("cpu")


def start():
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)


def draws():
    return random.random(), np.random.random(), torch.rand(1).item()


# ---- seeds


def test_a_seed_of_a_part_is_the_number_that_recorded_runs_used():
    assert seeded(42, 3) == 42*1_000_003 + 3 and seeded(42) == 42
    assert seeded(1, 2, 3) == seeded(seeded(1, 2), 3)
    assert seeded(2**62, 1) < 2**63, "PyTorch and NumPy take seeds of 63 bits"


def test_parts_do_not_collide():
    assert len({seeded(s, a, b) for s in range(20) for a in range(20) for b in range(20)}) == 8000


def test_an_epoch_has_its_order_whatever_was_drawn_before():
    torch.manual_seed(0)
    first = epoch_order(50, seed=7, epoch=2)
    torch.rand(9)
    assert epoch_order(50, seed=7, epoch=2) == first and sorted(first) == list(range(50))
    assert epoch_order(50, seed=7, epoch=3) != first != epoch_order(50, seed=8, epoch=2)
    assert first == torch.randperm(50, generator=torch.Generator().manual_seed(7*1_000_003 + 2)).tolist()


# ---- one generator


def test_generators():
    with pytest.raises(TypeError, match="1.5"): numpy_generator(1.5)
    given_one = np.random.default_rng(0)
    assert numpy_generator(given_one) is given_one
    torch_one = torch.Generator().manual_seed(3)
    assert numpy_generator(torch_one).random() != numpy_generator(torch_one).random()


def test_a_number_is_a_seed_and_nothing_is_pytorchs_stream():
    assert numpy_generator(5).random() == numpy_generator(np.int64(5)).random() != numpy_generator(6).random()
    torch.manual_seed(1)
    first = numpy_generator().random()
    assert numpy_generator().random() != first
    torch.manual_seed(1)
    assert numpy_generator().random() == first


# ---- states


@pytest.mark.parametrize("make", [np.random.default_rng, numpy_generator,
                                  lambda seed: np.random.Generator(np.random.MT19937(seed)),
                                  lambda seed: torch.Generator().manual_seed(seed)])
def test_states_go_through_json_and_come_back(make):
    generator = make(4)
    def draw():
        if hasattr(generator, "random"): return torch.rand(1).item(), generator.random()
        return torch.rand(1).item(), torch.rand(1, generator=generator).item()
    draw()
    saved = json.dumps(random_states(CPU, [generator]))
    first = [draw() for _ in range(3)]
    set_random_states(json.loads(saved), CPU, [generator])
    assert [draw() for _ in range(3)] == first


def test_states_of_numpy_can_be_read():
    state, = random_states(CPU, [np.random.default_rng(0)])["generators"]
    assert state["bit_generator"] == "PCG64" and isinstance(state["state"]["state"], int)


def test_states_of_other_generators_are_refused_before_anything_moves():
    states, before = random_states(CPU, [numpy_generator(0)]), torch.get_rng_state()
    torch.rand(1)
    moved = torch.get_rng_state()
    with pytest.raises(ValueError, match="generators has 0, and the states are those of 1"):
        set_random_states(states, CPU, [])
    assert torch.equal(torch.get_rng_state(), moved) and not torch.equal(moved, before)


# ---- given back


@pytest.mark.parametrize("seed", [None, 0, 2**40])
def test_streams_are_the_callers_afterwards_and_after_errors(seed):
    start()
    expected = draws()
    start()
    with own_streams("cpu", seed): draws()
    with pytest.raises(KeyboardInterrupt):
        with own_streams(CPU, seed):
            draws()
            raise KeyboardInterrupt
    assert draws() == expected


def test_streams_begin_at_the_seed_or_where_the_callers_stand():
    with own_streams("cpu", seed=3): first = draws()
    with own_streams("cpu", seed=3): assert draws() == first
    with own_streams("cpu", seed=4): assert all(a != b for a, b in zip(draws(), first))
    with own_streams("cpu"): first = draws()
    assert draws() == first


def test_a_model_is_measured_without_dropout_and_each_module_keeps_its_mode():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Linear(2, 2)))
    model.train()
    model[1].eval()
    before = [m.training for m in model.modules()]
    with evaluating(model) as same:
        assert same is model and not any(m.training for m in model.modules())
    assert [m.training for m in model.modules()] == before
    with pytest.raises(KeyboardInterrupt):
        with evaluating(model): raise KeyboardInterrupt
    assert [m.training for m in model.modules()] == before


def test_what_is_refused():
    with pytest.raises(ValueError, match="n=-1 must be"): epoch_order(-1, 0, 0)
    with pytest.raises(TypeError, match="seed=1.5 must be"): epoch_order(3, 1.5, 0)
    with pytest.raises(ValueError, match="device='gpu' must be"):
        with own_streams("gpu"): pass
    with pytest.raises(ValueError, match="seed=-1 must be"):
        with own_streams("cpu", -1): pass
    with pytest.raises(TypeError, match="model=.* must be a model"):
        with evaluating("a model"): pass
