"Field types of texts, token ids, rows, batches, models and devices; long data are looked at, never walked."
import math, subprocess, sys

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, DatasetDict, IterableDataset

from course_lm.support.checks import LOOK, checked
from course_lm.support.kinds import (
    AnyTexts, Batch, Batches, Corpus, Device, Examples, FloatType, Generator, Labels, Logits, Model,
    Rows, Shaped, Splits, Texts, TokenIds, Tokenizer, WarmupSteps, check_texts)
from tests.test_checks import ODD, one, outcome, refused

A_LIST = 'must be a list of str'
IDS = 'must be one row of token ids, whole numbers of at least 0'
ROWS = 'must be rows of token ids: a Dataset with input_ids, or a list of documents'
BATCHES = 'must be batches that can be read again and again: a DataLoader or a list of dicts'
DEVICE = "must be a device such as 'cpu' or 'cuda:0'"
WARMUP = 'must be a share of all updates, below 1, or a whole number of updates'


@pytest.fixture
def ds(): return Dataset.from_dict({'text': ['a', 'b', None], 'label': [0, 1, 0]})


class Watched(list):
    "A list that counts how many of its elements are read."
    def __init__(self, *args):
        super().__init__(*args)
        self.read = 0
    def __getitem__(self, at):
        out = super().__getitem__(at)
        self.read += len(out) if isinstance(at, slice) else 1
        return out
    def __iter__(self):
        for i in range(len(self)): yield self[i]


# Texts

def test_texts(ds):
    f, whole = one(Texts), ds.select([0, 1])
    for good in (['a'], ('a', 'é'), whole['text'], ['']): assert f(good) is good
    assert f(pd.Series(['a'])) == f(np.array(['a'])) == ['a']
    assert one(AnyTexts)([]) == [] and one(AnyTexts)(['a']) == ['a']
    refused(ValueError, f'f: x=[] {A_LIST}: there is nothing in it', f, [])
    refused(ValueError, f'f: x=<Column> {A_LIST}: there is nothing in it', f, ds.select([])['text'])


@pytest.mark.parametrize('field, wanted', [(Texts, A_LIST), (AnyTexts, f'{A_LIST}, empty or not')])
def test_no_texts_say_what_to_pass_instead(ds, field, wanted):
    f = one(field)
    refused(TypeError, f"f: x='a review' {wanted}: it is one str: put it in a list", f, 'a review')
    refused(TypeError, f"f: x=b'abc' {wanted}: it is one bytes: put it in a list", f, b'abc')
    for whole in (ds, ds.to_pandas(), ds.to_iterable_dataset()):
        name = type(whole).__name__
        refused(TypeError, f"f: x=<{name}> {wanted}: it is a whole {name}: pass its column, as in ds['text']",
                f, whole)
    refused(TypeError, f'f: x=<DatasetDict> {wanted}: it is a DatasetDict of splits or columns: '
            "pass one of them, as in ds['train']['text']", f, DatasetDict(train=ds))
    refused(TypeError, f'f: x=<generator> {wanted}: it can be read only once: pass list(...)',
            f, (t for t in 'ab'))
    refused(TypeError, f"f: x={{'a'}} {wanted}: a set has no order: pass sorted(...)", f, {'a'})
    refused(TypeError, f'f: x=None {wanted}', f, None)
    refused(TypeError, f'f: x=<ndarray of shape (1, 1), <U1> {wanted}', f, np.array([['a']]))


def test_elements_that_are_no_texts():
    f = one(Texts)
    refused(TypeError, 'f: x[1]=None must be a str: leave missing texts out', f, ['a', None])
    refused(TypeError, 'f: x[1]=nan must be a str: leave missing texts out', f, ['é', math.nan])
    refused(TypeError, 'f: x[1]=nan must be a str: leave missing texts out', f, pd.Series(['a', None]))
    refused(TypeError, 'f: x[0]=3 must be a str', f, [3])
    refused(TypeError, "f: x[0]=b'a' must be a str: decode it first", f, [b'a'])
    half = 'it holds half of a surrogate pair, which is no character'
    refused(ValueError, rf"f: x[1]='x\ud800' must be a str: {half}", f, ['a', 'x\ud800'])


def test_columns_of_a_dataset(ds):
    f = one(Texts)
    refused(TypeError, 'f: x[2]=None must be a str: leave missing texts out', f, ds['text'])
    refused(TypeError, f"f: x=<Column> {A_LIST}: the column 'label' holds Value('int64')", f, ds['label'])
    rows = ds.select([1, 0])['text'] # the hole is not among the rows that were selected
    assert f(rows) is rows


def test_a_column_is_not_read(monkeypatch):
    ds = Dataset.from_dict({'text': ['a']*5000})
    def read(*args): raise AssertionError('a row was read')
    column = ds['text']
    for name in ('__getitem__', '__iter__'): monkeypatch.setattr(type(column), name, read)
    assert one(Texts)(column) is column


def test_a_long_list_is_not_walked():
    for text in ('a', 'é'):
        given = Watched([text]*(20*LOOK))
        assert one(Texts)(given) is given and 0 < given.read <= LOOK
    late = ['a']*(LOOK+5) + [None]
    assert one(Texts)(late) is late
    refused(TypeError, f'reviews[{LOOK+5}]=None must be a str: leave missing texts out',
            check_texts, late, 'reviews')


def test_check_texts(ds):
    given = ('a', '', ' \n')
    assert check_texts(given) == list(given) # blank texts are kept
    assert check_texts(ds.select([0, 1])['text'], 'train') == ['a', 'b'] == check_texts(pd.Series(['a', 'b']))
    listed = ['a']
    assert check_texts(listed) is not listed
    refused(TypeError, f"texts='a' {A_LIST}: it is one str: put it in a list", check_texts, 'a')
    refused(ValueError, f'home=[] {A_LIST}: there is nothing in it', check_texts, [], 'home')
    refused(TypeError, 'texts[1]=3 must be a str', check_texts, ['a', 3])


def test_corpus(ds):
    f = one(Corpus)
    for good in (ds, DatasetDict(train=ds), ds.to_iterable_dataset(), ['a']): assert f(good) is good
    wanted = f'{A_LIST}, or a Dataset with a column of them'
    refused(TypeError, f"f: x='a' {wanted}: it is one str: put it in a list", f, 'a')
    refused(TypeError, 'f: x[0]=3 must be a str', f, [3])
    refused(ValueError, f'f: x=[] {wanted}: there is nothing in it', f, [])


# Token ids and rows

def test_token_ids():
    f = one(TokenIds)
    assert f(np.arange(3)).dtype == np.int64 and f([1, 2]).tolist() == [1, 2] and f((1,)).tolist() == [1]
    assert f([]).dtype == np.int64 and len(f([])) == 0 and f([np.int32(1), 2]).tolist() == [1, 2]
    small = torch.tensor([1], dtype=torch.uint16)
    for same in (np.arange(3, dtype=np.uint16), torch.tensor([1]), small, pd.Series([1])):
        assert f(same) is same
    refused(ValueError, f'f: x=[1, -1] {IDS}: it holds -1', f, [1, -1])
    refused(ValueError, f'f: x=<Tensor of shape (1,), int64> {IDS}: it holds -100', f, torch.tensor([-100]))
    refused(TypeError, f'f: x=[0.5] {IDS}: it is of shape (1,), float64', f, [.5])
    refused(TypeError, f'f: x=[True] {IDS}: it holds True or False', f, [True])
    refused(TypeError, f'f: x=<Tensor of shape (2,), bool> {IDS}: it is of shape (2,), bool',
            f, torch.ones(2) > 0)
    refused(TypeError, f"f: x='abc' {IDS}: tokenize it first", f, 'abc')
    refused(TypeError, f'f: x=[[1], [1, 2]] {IDS}: it is not flat, or not of numbers', f, [[1], [1, 2]])
    refused(TypeError, f'f: x=[1, None] {IDS}: it is of shape (2,), object', f, [1, None])
    refused(ValueError, f'f: x=<ndarray of shape (2, 2), int64> {IDS}: it is of shape (2, 2), int64',
            f, np.ones((2, 2), int))
    refused(TypeError, f"f: x={{'input_ids': [1]}} {IDS}: it is a dict: pass one row of its 'input_ids'",
            f, {'input_ids': [1]})
    refused(ValueError, f'f: x=<Tensor of shape (2,), int64> {IDS}: on the meta device it has no values',
            f, torch.ones(2, dtype=torch.long, device='meta'))
    refused(TypeError, f'f: x=3 {IDS}', f, 3)


def test_of_a_long_array_both_ends_are_looked_at():
    class Counted(np.ndarray):
        read = 0
        def __getitem__(self, at):
            out = super().__getitem__(at)
            Counted.read += out.size
            return out
        def min(self, *args, **kwargs):
            assert self.size <= 64*LOOK
            return super().min(*args, **kwargs)
    big = np.zeros(10**7, np.int32).view(Counted)
    assert one(TokenIds)(big) is big and 0 < Counted.read <= 64*LOOK
    for at in (0, -1):
        wrong = np.zeros(10**6, np.int32)
        wrong[at] = -1
        for form in (np.asarray, torch.tensor, pd.Series):
            with pytest.raises(ValueError, match='it holds -1$'): one(TokenIds)(form(wrong))


def test_rows(ds):
    f, ids = one(Rows), Dataset.from_dict({'input_ids': [[1, 2], [3]]})
    for good in (ids, ids.to_iterable_dataset(), ids.data.table, [[1, 2], [3]], np.ones((2, 2), int)):
        assert f(good) is good
    assert f(DatasetDict(train=ids))['train'] is ids
    no_ids = "it has no column 'input_ids', only ['text', 'label']: see tokenize_dataset"
    refused(ValueError, f'f: x=<Dataset> {ROWS}: {no_ids}', f, ds)
    refused(ValueError, f"f: x['test']=<Dataset> {ROWS}: {no_ids}", f, DatasetDict(train=ids, test=ds))
    refused(TypeError, f'f: x[1]=[0.5] {IDS}: it is of shape (1,), float64', f, [[1], [.5]])
    refused(TypeError, f"f: x[0]='abc' {IDS}: tokenize it first", f, ['abc'])
    refused(TypeError, f"f: x='abc' {ROWS}: tokenize it first", f, 'abc')
    refused(ValueError, f'f: x=[] {ROWS}: there is nothing in it', f, [])
    refused(TypeError, f'f: x=<ndarray of shape (2,), int64> {ROWS}: it is of shape (2,), int64',
            f, np.ones(2, int))
    column = "it is a whole DataFrame: pass its column, as in ds['input_ids']"
    refused(TypeError, f'f: x=<DataFrame> {ROWS}: {column}', f, ds.to_pandas())


def test_many_rows_are_not_walked():
    given = Watched([[1, 2]]*(20*LOOK))
    assert one(Rows)(given) is given and 0 < given.read <= LOOK


# Batches, splits, tensors

def test_batch():
    f, wanted = one(Batch), "must be a dict of tensors with 'input_ids', as a collator makes it"
    batch = {'input_ids': torch.ones(2, 3, dtype=int)}
    assert f(batch) is batch
    refused(TypeError, f'f: x=[1] {wanted}', f, [1])
    refused(ValueError, f"f: x={{'ids': 1}} {wanted}: it has no 'input_ids', only ['ids']", f, {'ids': 1})
    refused(TypeError, f"f: x={{'input_ids': [1]}} {wanted}: its input_ids must be (batch, length)",
            f, {'input_ids': [1]})


def test_batches(ds):
    f, batch = one(Batches), {'input_ids': torch.ones(2, 3, dtype=int)}
    loader = torch.utils.data.DataLoader([1, 2])
    for good in ([batch], (batch,), loader): assert f(good) is good
    refused(TypeError, f'f: x=<list_iterator> {BATCHES}: it can be read only once: pass list(...)',
            f, iter([batch]))
    refused(ValueError, f'f: x=[] {BATCHES}: there is nothing in it', f, [])
    refused(TypeError, f'f: x=<Dataset> {BATCHES}: it is a Dataset: see lm_loaders', f, ds)
    refused(TypeError, f'f: x=3 {BATCHES}', f, 3)
    refused(TypeError, f"f: x='ab' {BATCHES}", f, 'ab')
    refused(TypeError, "f: x[0]=[1] must be a dict of tensors with 'input_ids', as a collator makes it",
            f, [[1]])
    with pytest.raises(TypeError, match='it is one batch: put it in a list'): f(batch)
    given = Watched([batch]*5000)
    assert f(given) is given and given.read <= 1


def test_splits(ds):
    f, wanted = one(Splits), 'must be a DatasetDict, or a dict of Datasets'
    for good in (DatasetDict(train=ds), {'train': ds}): assert f(good) is good
    refused(TypeError, f'f: x=<Dataset> {wanted}: see imdb_splits', f, ds)
    refused(TypeError, f'f: x=3 {wanted}', f, 3)
    refused(TypeError, "f: x['test']=['a'] must be a Dataset", f, {'train': ds, 'test': ['a']})


def test_shaped():
    logits, labels = torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.long)
    assert one(Logits)(logits) is logits and one(Labels)(labels) is labels
    assert one(Logits)(logits.half()).ndim == 3
    wanted = 'must be a tensor of numbers, (batch, length, vocab)'
    refused(ValueError, f'f: x=<Tensor of shape (3, 4), float32> {wanted}', one(Logits), logits[0])
    refused(TypeError, f'f: x=<Tensor of shape (2, 3, 1), int64> {wanted}', one(Logits), labels[..., None])
    wanted = 'must be a tensor of token ids or -100, (batch, length)'
    refused(TypeError, f'f: x=<Tensor of shape (2, 3), float32> {wanted}', one(Labels), logits[..., 0])
    refused(TypeError, f'f: x=<Tensor of shape (2, 3), bool> {wanted}', one(Labels), labels > 0)
    refused(TypeError, f'f: x=[[1]] {wanted}', one(Labels), [[1]])
    row = Shaped(1, True, 'a row', 'Row')
    assert repr(row) == 'Row' and row(labels[0]) is not None


# Models, tokenizers, devices, chance

def test_model_and_tokenizer():
    from course_lm.models import load_lm
    model, tokenizer = load_lm('tiny')
    @checked
    def f(model:Model, tokenizer:Tokenizer): return model, tokenizer
    assert f(model, tokenizer) == (model, tokenizer) and one(Model)(torch.nn.Linear(1, 1)).in_features == 1
    one_name, other = type(model).__name__, type(tokenizer).__name__
    order, wanted = 'the order is (model, tokenizer)', 'must be a transformers tokenizer'
    refused(TypeError, f'f: model=<{other}> must be a model: it is a tokenizer: {order}', f, tokenizer, model)
    refused(TypeError, f'f: tokenizer=<{one_name}> {wanted}: it is a model: {order}', f, model, model)
    load = 'load it first: model, tokenizer = load_lm(name)'
    refused(TypeError, f"f: model='tiny' must be a model: {load}", f, 'tiny', tokenizer)
    refused(TypeError, f"f: tokenizer='tiny' {wanted}: {load}", f, model, 'tiny')
    refused(TypeError, f'f: model=the class {one_name} must be a model', f, type(model), tokenizer)
    class Fake:
        pad_token_id = 0
        def __call__(self): pass
    assert one(Tokenizer)(Fake()) is not None
    for cls in (type(tokenizer), Fake):
        refused(TypeError, f'f: tokenizer=the class {cls.__name__} {wanted}', f, model, cls)


def test_device(monkeypatch):
    f = one(Device)
    for good in (None, 'cpu', torch.device('cpu'), 'cpu:0'): assert f(good) is good
    refused(ValueError, f"f: x='gpu' {DEVICE}", f, 'gpu')
    refused(ValueError, f"f: x='' {DEVICE}", f, '')
    refused(TypeError, f'f: x=0 {DEVICE}', f, 0)
    refused(ValueError, f"f: x='meta' {DEVICE}: on the meta device nothing has a value", f, 'meta')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    refused(ValueError, f"f: x='cuda' {DEVICE}: this machine has no CUDA device", f, 'cuda')
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: False)
    refused(ValueError, f"f: x='mps' {DEVICE}: this machine has no Apple GPU", f, 'mps')


def test_devices_that_are_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    f = one(Device)
    for good in ('cuda', 'cuda:1', torch.device('cuda', 0)): assert f(good) is good
    refused(ValueError, f"f: x='cuda:2' {DEVICE}: this machine has cuda:0, cuda:1", f, 'cuda:2')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    refused(ValueError, f"f: x='cuda:1' {DEVICE}: this machine has cuda:0", f, 'cuda:1')


def test_generator():
    f, wanted = one(Generator), 'must be a torch.Generator, a NumPy Generator or a seed'
    for good in (None, torch.Generator(), np.random.default_rng(0), 3): assert f(good) is good
    assert type(f(np.int64(3))) is int
    refused(TypeError, f"f: x='seed' {wanted}", f, 'seed')
    refused(TypeError, f'f: x=2.5 {wanted}', f, 2.5)
    refused(TypeError, f'f: x=True {wanted}', f, True)
    refused(ValueError, f'f: x=-1 {wanted}', f, -1)
    refused(TypeError, f'f: x=<generator> {wanted}', f, (i for i in 'ab'))


def test_warmup_steps():
    f = one(WarmupSteps)
    for good in (0, 1, 100, 0., .1, .99): assert f(good) == good and type(f(good)) is type(good)
    assert type(f(np.float32(.5))) is float and type(f(np.int64(5))) is int
    refused(TypeError, f'f: x=1.0 {WARMUP}: write 1', f, 1.)
    refused(TypeError, f'f: x=2.5 {WARMUP}', f, 2.5)
    refused(ValueError, f'f: x=-1 {WARMUP}', f, -1)
    refused(ValueError, f'f: x=-0.5 {WARMUP}', f, -.5)
    for bad in (math.nan, math.inf): refused(ValueError, f'f: x={bad} {WARMUP}', f, bad)
    refused(TypeError, f'f: x=True {WARMUP}: True and False are not numbers', f, True)


def test_nothing_heavy_is_imported():
    heavy = ['torch', 'transformers', 'datasets', 'fastai', 'pandas', 'pyarrow', 'fastcore']
    code = f"import sys; import course_lm.support.kinds; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == '[]'


# Every field type against every odd value

FIELDS = [
    Texts, AnyTexts, Corpus, TokenIds, Rows, Batch, Batches, Splits, Logits, Labels, Model, Tokenizer, Device,
    Generator, WarmupSteps, Model | None, Texts | Rows, list[TokenIds]]
MORE = [
    Dataset.from_dict({'text': ['a', None]}), DatasetDict(train=Dataset.from_dict({'text': ['a']})),
    IterableDataset.from_generator(lambda: iter([{'text': 'a'}])),
    Dataset.from_dict({'text': ['a', None]})['text'], pd.DataFrame({'text': ['a']}), pd.Series([None]),
    torch.ones(1, 1, 1), torch.device('meta'), 'cuda:99', {'input_ids': None}, [{'input_ids': 3}],
    torch.Generator(), np.random.default_rng(0), ['a', b'b'], [[1], None]]


@pytest.mark.parametrize('field', FIELDS, ids=str)
def test_odd_values(field):
    outcomes = [outcome(field, value) for value in [*ODD, *MORE]]
    assert outcomes.count('accepted') < len(outcomes)//3 and TypeError in outcomes


def test_examples_of_a_batch():
    f = one(Examples)
    for good in ([{'input_ids': [1]}], [[1, 2]], np.ones((2, 3), int), torch.ones(1, 2).long()):
        assert f(good) is good
    wanted = 'must be a list of examples: dicts with input_ids, or rows of token ids'
    refused(ValueError, f'f: x=[] {wanted}: a batch needs one at least', f, [])
    one_of_them = {'input_ids': [1]}
    refused(TypeError, f'f: x={one_of_them} {wanted}: it is one example: put it in a list', f, one_of_them)
    for bad in ('text', 5, iter([[1]])): assert outcome(Examples, bad) is TypeError


def test_types_of_numbers():
    f = one(FloatType)
    for good in (torch.float32, torch.bfloat16): assert f(good) is good
    for bad in (torch.int64, np.dtype('float32'), np.float32, 32): assert outcome(FloatType, bad) is TypeError
    refused(TypeError, "f: x='float32' must be a type of PyTorch's numbers, such as torch.float32: "
            'write torch.float32, the type itself', f, 'float32')
