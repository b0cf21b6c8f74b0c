"""What a `DataLoader` is made of goes to worker processes that begin as new Pythons: with spawn (Windows,
macOS) and with forkserver (Linux from Python 3.14 on).

A class of the library without an entry in `things` fails here.
"""
import copy, importlib, inspect, pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from course_lm.classification import LengthBucketedSampler
from course_lm.denoising import SentencePermutation, SpanCorruption, TokenDeletion, WholeWordMasking
from course_lm.finetuning import ShuffledBatches, lm_loaders
from course_lm.labels import BertMasking, CausalLabels, LabelStrategy, LMCollator
from course_lm.streaming import chunk_stream
from course_lm.support.arrow import ChunkMatrix
from course_lm.windows import TokenBudgetSampler
from scripts.house import House
from tests.made import CAUSAL, MASKED, T5

ROWS = [np.arange(5 + i, 29 + i) for i in range(8)]
LENGTHS = [3, 9, 4, 1, 7, 7, 2, 5]
# The base classes of strategies cannot be called; the metric's batches are made in the main process.
NOT_SENT = {"LabelStrategy", "Denoising", "Scorer"}


def generator(): return torch.Generator().manual_seed(7)


class Own(LabelStrategy):
    "A strategy with a generator of its own."
    def __init__(self): self.generator = generator()

    def __call__(self, input_ids, special_tokens_mask, tokenizer, generator=None):
        return input_ids, torch.randint(9, input_ids.shape, generator=self.generator)


def strategies():
    "Each strategy with the tokenizer that it is for."
    yield CausalLabels(), CAUSAL
    yield BertMasking(), MASKED
    yield WholeWordMasking(), MASKED
    yield SpanCorruption(), T5
    yield TokenDeletion(), MASKED
    yield SentencePermutation(), MASKED


def begun():
    "A stream that has given out two chunks."
    stream = chunk_stream([row.tolist() for row in ROWS], 6)
    next(stream)
    next(stream)
    return stream


def things():
    "(class, case) -> (thing, how it is used)."
    for strategy, tokenizer in strategies():
        name = type(strategy).__name__
        for kw in (dict(generator=generator()), dict(seed=3)):
            yield (name, *kw), (LMCollator(tokenizer, strategy, **kw), collate)
    yield ("LMCollator", "NumPy"), (LMCollator(MASKED, generator=np.random.default_rng(7)), collate)
    yield ("LMCollator", "fastai"), (LMCollator(MASKED, generator=generator()).as_fastai(), collate_pair)
    yield ("LMCollator", "own"), (LMCollator(MASKED, Own(), seed=1), collate)
    yield ("LengthBucketedSampler", ""), (LengthBucketedSampler(LENGTHS, 2), list)
    yield ("TokenBudgetSampler", ""), (TokenBudgetSampler(LENGTHS, 12), list)
    yield ("ShuffledBatches", ""), (ShuffledBatches(8, 3), list)
    yield ("ChunkMatrix", ""), (ChunkMatrix(np.stack(ROWS)), list)
    yield ("ChunkStream", "new"), (chunk_stream([row.tolist() for row in ROWS], 6), list)
    yield ("ChunkStream", "begun"), (begun(), list)
    yield ("ChunkStream", "datasets"), (chunk_stream(ROWS, 6).to_iterable_dataset(), list)


def collate(thing): return [thing(ROWS[:4]), thing(ROWS[4:])]


def collate_pair(thing): return collate(thing)[1][0]


class Each:
    "A dataset whose rows are what the things make."
    def __init__(self): self.things = dict(things())
    def __len__(self): return len(self.things)

    def __getitem__(self, i):
        name, (thing, use) = list(self.things.items())[i]
        # a worker mixes its own seed into a collator's draws; here the two processes are to draw alike
        torch.utils.data._utils.worker._worker_info = None
        torch.manual_seed(0)
        return name, use(thing)


def itself(rows): return rows[0]


def equal(a, b):
    if isinstance(a, dict): return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(equal, a, b))
    return np.array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture(scope="module")
def here():
    each = Each()
    return dict(each[i] for i in range(len(each)))


@pytest.fixture(scope="module", params=["spawn", "forkserver"])
def there(request):
    "The same in a worker that begins as a new Python."
    if request.param not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {request.param}")
    loader = DataLoader(Each(), collate_fn=itself, num_workers=1, multiprocessing_context=request.param)
    return dict(loader)


def public_classes():
    "Classes of the lessons and of support.arrow that make, order or hold batches."
    for module in House().modules:
        if module.startswith(("homework", "support.")) and module != "support.arrow": continue
        of = importlib.import_module(f"course_lm.{module}")
        for name in getattr(of, "__all__", ()):
            found = getattr(of, name)
            if not inspect.isclass(found) or found.__module__ != of.__name__: continue
            if issubclass(found, (torch.nn.Module, tuple)): continue
            if any(hasattr(found, way) for way in ("__iter__", "__getitem__")) or "__call__" in dir(found):
                yield name


@pytest.mark.tree
def test_every_class_that_goes_to_workers_is_tried(here):
    tried = {name for name, _ in here}
    assert set(public_classes()) - NOT_SENT <= tried and NOT_SENT <= set(public_classes())


@pytest.mark.parametrize("case", [case for case, _ in things()], ids="-".join)
def test_a_new_process_makes_the_same(case, here, there):
    assert equal(here[case], there[case])
    assert len(here[case])


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_loaders_with_such_workers_draw_fresh_masks(method):
    if method not in torch.multiprocessing.get_all_start_methods(): pytest.skip(f"no {method} here")
    rows = ChunkMatrix(np.tile(np.arange(5, 205), (8, 1)))
    loader = lm_loaders((rows, rows), MASKED, BertMasking(), batch_size=4)[0]
    loader = DataLoader(rows, batch_sampler=loader.batch_sampler, collate_fn=loader.collate_fn,
                        num_workers=2, multiprocessing_context=method)
    first, second = [batch["labels"] for batch in loader]
    assert not torch.equal(first, second), "two workers must not draw alike"


def test_a_copy_draws_what_the_first_would_and_leaves_it_alone():
    made = LMCollator(MASKED, generator=generator())
    torch.rand(3, generator=made.generator)
    sent = pickle.loads(pickle.dumps(made))
    state = made.generator.get_state()
    assert torch.equal(sent.generator.get_state(), state) and sent.generator is not made.generator
    again = collate(sent)
    assert torch.equal(made.generator.get_state(), state) and equal(collate(copy.deepcopy(made)), again)


def test_a_stream_that_is_sent_goes_on_where_it_stood():
    stream = begun()
    sent = pickle.loads(pickle.dumps(stream))
    assert equal(list(sent), list(stream)) and len(list(stream)) > 2


@pytest.mark.tree
def test_no_lesson_gives_its_workers_a_class_of_the_notebook():
    "A new Python cannot import what a notebook defines: what workers need is imported, or there are none."
    named = [s for s in House().sources if "num_workers" in s.text and s.kind != "file"]
    workers = [(s.room, s.place) for s in named if not set_to_zero(s.text)]
    assert named and not workers


def set_to_zero(source: str) -> bool:
    "Is every `num_workers` in a cell zero, or read?"
    import ast
    from scripts.house import parse
    given = [k.value for n in ast.walk(parse(source)) if isinstance(n, ast.Call)
             for k in n.keywords if k.arg == "num_workers"]
    return all(isinstance(v, ast.Constant) and v.value == 0 for v in given)
