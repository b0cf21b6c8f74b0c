"Field types of numbers, words and files, and @checked: right values, refusals word by word, and what stays."
import contextlib, dataclasses, importlib, inspect, math, pickle, pkgutil, pydoc, re, subprocess, sys, types
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Protocol

import numpy as np
import pytest
import torch
from fastcore.basics import patch
from fastcore.docments import docments
from fastcore.meta import delegates

import course_lm
from course_lm.support.checks import (
    LOOK, Count, ExistingPath, Flag, Kind, Level, Natural, NewFolder, NotAll, NotNegative, Number, OneOf,
    Positive, Rate, Real, Refused, Seed, Share, SomeShare, Text, TokenId, Whole, WrongType, as_number,
    checked, is_a, kind, kind_of, short)

A_COUNT = 'must be a whole number of at least 1'
NO_STR = 'it is a str, and a str is never read as a number'


def refused(error, text, f, *args, **kwargs):
    "f refuses with this type and exactly this line."
    with pytest.raises(error) as caught: f(*args, **kwargs)
    assert type(caught.value) is error and str(caught.value) == text
    assert '\n' not in text and len(text) < 300


def one(field):
    "A checked function f(x:field) that gives x back."
    def f(x): return x
    f.__annotations__['x'] = field
    f.__qualname__ = 'f'
    return checked(f)


@checked
def cut(
    ids:list[TokenId], # one stream
    chunk_size:Count, # tokens per chunk
    tail:Literal['drop', 'keep', 'pad']='drop', # what becomes of the rest
    stride:Count=None, # None: chunk_size
    *,
    share:Share=.5, # of something
)->list: # the arguments
    "Cut a stream."
    return [ids, chunk_size, tail, stride, share]


# Numbers

ENDS = [
    (Count, [1, 10**9], [0, -1, 10**9+1]), (Natural, [0, 10**12], [-1, 10**12+1]),
    (TokenId, [0, 2**31-1], [-1, 2**31]),
    (Seed, [0, 2**63-1], [-1, 2**63]), (Share, [0, 1, .5], [-.1, 1.1]), (SomeShare, [1, .1], [0, 1.1]),
    (NotAll, [0, .9], [1, -.1]), (Level, [.5], [0, 1]), (Positive, [1e-300, 5], [0, -1]),
    (NotNegative, [0, 1], [-1]),
    (Rate, [1e-5, 1.], [0, -1e-3, 1e30]), (Number, [-1, 0.], []), (Whole(-2, 2), [-2, 2], [-3, 3]),
    (Real(-2, 2, '()'), [-1.9], [-2, 2])]
NUMBERS = [field for field, _, _ in ENDS]


@pytest.mark.parametrize('field, good, bad', ENDS, ids=repr)
def test_ends(field, good, bad):
    f = one(field)
    for v in good: assert f(v) == v and type(f(v)) is type(v)
    most = 10**9, 10**12, 2**31-1, 2**63-1
    hints = {n+1: f': the most is {n}' for n in most} | {
             1e30: ': a learning rate is small, such as 1e-3'}
    for v in bad: refused(ValueError, f'f: x={v} must be {field.wanted}{hints.get(v, "")}', f, v)


@pytest.mark.parametrize('field', NUMBERS, ids=repr)
@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf], ids=str)
def test_nan_and_infinity_are_out_of_range(field, value):
    says = rf'^f: x={value} must be {re.escape(field.wanted)}'
    with pytest.raises(ValueError, match=says): one(field)(value)


@pytest.mark.parametrize('field', NUMBERS, ids=repr)
@pytest.mark.parametrize('value', [
    '1', '', None, True, False, np.True_, [1], (), 1j, b'1', {}, np.array([1, 2]), int, object(),
    np.array('1'),
    torch.empty((), device='meta'), torch.tensor(True)], ids=short)
def test_no_number(field, value):
    says = re.escape(f'f: x={short(value)} must be {field.wanted}')
    with pytest.raises(TypeError, match=f'^{says}'): one(field)(value)


@pytest.mark.parametrize('value', [
    3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), torch.tensor([1, 3]).max()])
def test_whole_numbers_become_int(value):
    assert one(Count)(value) == 3 and type(one(Count)(value)) is int


@pytest.mark.parametrize('value', [
    .5, np.float32(.5), np.float64(.5), np.array(.5), torch.tensor(.5), torch.tensor(.5, requires_grad=True),
    Fraction(1, 2)])
def test_real_numbers_become_float(value):
    for field in (Share, SomeShare, NotAll, Level, Rate, Positive, NotNegative, Number, float):
        assert one(field)(value) == .5 and type(one(field)(value)) is float


def test_a_float_is_no_count():
    refused(TypeError, f'f: x=64.0 {A_COUNT}: write 64', one(Count), 64.)
    refused(TypeError, f'f: x=2.5 {A_COUNT}', one(Count), 2.5)
    refused(TypeError, f'f: x=2.5 {A_COUNT}', one(Count), np.float32(2.5))
    refused(TypeError, f'f: x=1e+300 {A_COUNT}', one(Count), 1e300)
    assert type(one(Share)(1)) is int


def test_texts_of_ends():
    wanted = {
        Whole(): 'a whole number', Whole(2): 'a whole number of at least 2',
        Whole(None, 5): 'a whole number of at most 5',
        Whole(1, 12): 'a whole number from 1 to 12', Share: 'a number from 0 to 1', Number: 'a finite number',
        SomeShare: 'a number above 0 and at most 1', NotAll: 'a number of at least 0 and below 1',
        Level: 'a number above 0 and below 1', Real(None, 3, '[)'): 'a number below 3',
        Real(None, 3): 'a number of at most 3'}
    assert [f.wanted for f in wanted] == list(wanted.values())
    refused(ValueError, 'value=13 must be a whole number from 1 to 12', Whole(1, 12), 13)
    deep = Whole(1, 12, hint='too deep')
    refused(ValueError, 'value=13 must be a whole number from 1 to 12: too deep', deep, 13)
    assert repr(Whole(1, 12)) == 'Whole(1, 12)' and repr(Real(0, 1)) == "Real(0, 1, '[]')"
    assert repr(Count) == 'Count'


def test_as_number():
    assert [as_number(v) for v in (3, .5, np.int8(3), True, '3', None, np.array([1]), 1j)] == [
        3, .5, 3, None, None, None, None, None]


# Words

def test_flag():
    assert one(Flag)(True) is True and one(Flag)(np.bool_(False)) is False
    assert one(bool)(np.bool_(True)) is True
    for v in (1, 0, 'no', None, [], np.array(1), torch.tensor(True)):
        refused(TypeError, f'f: x={short(v)} must be True or False', one(Flag), v)


def test_text():
    assert one(Text)('') == '' and one(str)('é') == 'é' and type(one(Text)(np.str_('a'))) is np.str_
    refused(TypeError, "f: x=b'a' must be a str: decode it first", one(Text), b'a')
    refused(TypeError, 'f: x=None must be a str', one(Text), None)
    refused(TypeError, "f: x=['a'] must be a str", one(Text), ['a'])
    half = 'it holds half of a surrogate pair, which is no character'
    refused(ValueError, rf"f: x='x\ud800' must be a str: {half}", one(Text), 'x\ud800')


def test_one_of():
    tail = one(OneOf['drop', 'keep', 'pad'])
    assert tail('keep') == 'keep' and one(OneOf['a'])('a') == 'a' and one(OneOf['a', None])(None) is None
    refused(ValueError, "f: x='dorp' must be 'drop', 'keep' or 'pad': did you mean 'drop'?", tail, 'dorp')
    refused(ValueError, "f: x='DROP' must be 'drop', 'keep' or 'pad': did you mean 'drop'?", tail, 'DROP')
    refused(ValueError, "f: x='' must be 'drop', 'keep' or 'pad'", tail, '')
    refused(TypeError, "f: x=0 must be 'drop', 'keep' or 'pad'", tail, 0)
    refused(TypeError, "f: x=['drop'] must be 'drop', 'keep' or 'pad'", tail, ['drop'])
    refused(TypeError, 'f: x=True must be 1 or 2', one(Literal[1, 2]), True)
    refused(TypeError, 'f: x=1.0 must be 1 or 2', one(Literal[1, 2]), 1.)
    assert repr(OneOf['a', 'b']) == "OneOf['a', 'b']"
    assert one(Positive | OneOf[math.inf])(math.inf) == math.inf


# Files

def test_new_folder(tmp_path):
    (tmp_path/'file').write_text('')
    f, wanted = one(NewFolder), 'must be a folder, or a place where one can be made'
    assert f(str(tmp_path/'a'/'b')) == tmp_path/'a'/'b' and not (tmp_path/'a').exists()
    assert f(tmp_path) == tmp_path and f('~/x') == Path.home()/'x' and isinstance(f('runs'), Path)
    refused(ValueError, f"f: x='' {wanted}: it is empty; for this folder, write '.'", f, '')
    refused(TypeError, f'f: x=3 {wanted}', f, 3)
    refused(TypeError, f"f: x=b'runs' {wanted}", f, b'runs')
    refused(ValueError, f"f: x='a\\x00b' {wanted}: no file can have this name", f, 'a\0b')
    with pytest.raises(ValueError, match=f'{wanted}: it is a file$'): f(tmp_path/'file')
    with pytest.raises(ValueError, match=f"{wanted}: '.*file' is a file$"): f(tmp_path/'file'/'sub')
    with pytest.raises(ValueError, match=f'^f: x=.* {wanted}: File name too long$'): f('x'*5000)


def test_existing_path(tmp_path):
    f, wanted = one(ExistingPath), 'must be a file or folder that exists'
    (tmp_path/'file').write_text('')
    assert f(tmp_path) == tmp_path and f(str(tmp_path/'file')) == tmp_path/'file'
    refused(ValueError, f"f: x='/no/such' {wanted}: there is nothing at '/no/such'", f, '/no/such')
    refused(TypeError, f'f: x=3 {wanted}', f, 3)
    refused(TypeError, f'f: x=None {wanted}', f, None)
    assert one(Path)('a/b') == Path('a/b')
    refused(TypeError, 'f: x=3 must be a path', one(Path), 3)


# Annotations

def test_plain_annotations():
    refused(TypeError, "f: x='yes' must be True or False", one(bool), 'yes')
    refused(ValueError, 'f: x=inf must be a finite number', one(float), math.inf)
    refused(TypeError, 'f: x=2.5 must be a whole number', one(int), 2.5)
    refused(TypeError, 'f: x=3 must be a dict', one(dict), 3)
    refused(TypeError, 'f: x=3 must be a dict', one(dict[str, int]), 3)
    refused(TypeError, "f: x='ab' must be a list", one(list), 'ab')
    refused(TypeError, 'f: x=3 must be a tuple', one(tuple), 3)
    refused(TypeError, 'f: x=3 must be a function', one(Callable), 3)
    refused(TypeError, 'f: x=3 must be a function', one(Callable[[int], int]), 3)
    refused(TypeError, 'f: x=3 must be None', one(None), 3)
    refused(TypeError, 'f: x=[] must be of type Tensor', one(torch.Tensor), [])
    assert one(Callable)(len) is len and one(list)(()) == ()
    assert one(torch.Tensor)(torch.ones(1)).tolist() == [1]
    assert one(Annotated[int, Count])(np.int8(3)) == 3 and one(Annotated[int, 'tokens'])(3) == 3
    refused(ValueError, f'f: x=0 {A_COUNT}', one(Annotated[int, Count]), 0)


def test_what_says_nothing_is_not_checked():
    class Reads(Protocol):
        def read(self): ...
    for note in (object, Any, 'NoSuchType', Reads, Any | None, Count | object, int | Any, 3, (int, str)):
        assert one(note)('x') == 'x'
    @checked
    def nothing_to_check(a, *args, **kwargs): return a
    assert not hasattr(nothing_to_check, '__wrapped__')


def test_unions():
    assert one(Optional[Count])(None) is None and one(Count | None)(None) is None
    assert one(None | Count)(2) == 2
    refused(ValueError, 'f: x=1.5 must be a whole number of at least 0 or a number of at least 0 and below 1',
            one(Natural | NotAll), 1.5)
    refused(ValueError, f'f: x=0 {A_COUNT} or None', one(Count | None), 0)
    refused(ValueError, "f: x='dorp' must be 'drop' or a function: did you mean 'drop'?",
            one(Literal['drop'] | Callable), 'dorp')
    refused(ValueError, f'f: x[1]=0 {A_COUNT}', one(Count | list[Count]), [1, 0])
    refused(TypeError, f'f: x[1]=None {A_COUNT}', one(tuple[Share, Share] | list[Count]), [1, None, 3])
    assert repr(Count | None) == 'Count | None' and repr(Count | dict) == 'Count | a dict'


def test_tuples_and_lists():
    assert one(tuple[NotAll, NotAll])([np.float32(.5), 0]) == (.5, 0)
    assert one(tuple[NotAll, NotAll])(np.array([.5, 0])) == (.5, 0)
    refused(ValueError, 'f: x[1]=1.0 must be a number of at least 0 and below 1',
            one(tuple[NotAll, NotAll]), (.9, 1.))
    refused(ValueError, 'f: x=(0.9,) must be (a number from 0 to 1, a number from 0 to 1): 1 in place of 2',
            one(tuple[Share, Share]), (.9,))
    refused(TypeError, 'f: x=0.9 must be (a number from 0 to 1)', one(tuple[Share]), .9)
    assert one(list[Count])([1, np.int64(2)]) == [1, 2] and one(list[Count])((1,)) == [1]
    assert one(list[Count])([]) == []
    assert one(tuple[Count, ...])([1, 2, 3]) == (1, 2, 3)
    refused(ValueError, f'f: x[1]=0 {A_COUNT}', one(list[Count]), [1, 0])
    refused(TypeError, f'f: x[1]=None {A_COUNT}', one(tuple[Count, ...]), [1, None])
    refused(TypeError, "f: x='ab' must be a list, each a str: it is one str: put it in a list",
            one(list[Text]), 'ab')
    refused(ValueError, f'f: x[0][1]=0 {A_COUNT}', one(list[list[Count]]), [[1, 0]])
    assert one(list[Any])([object]) == [object]


def test_an_element_behind_many_is_not_looked_at():
    class Watched(int):
        seen = 0
        def __index__(self):
            Watched.seen += 1
            return super().__index__()
        __int__ = __index__
    given = [Watched(1)]*(5*LOOK)
    assert len(one(list[Count])(given)) == 5*LOOK and 0 < Watched.seen <= 2*LOOK


@checked
def early(n:'Later', m:'Count'=1): return n


@checked
def late(n:'Later'): return n


Later = Whole(2, name='Later')


def test_names_that_come_later():
    refused(TypeError, f"early: m='a' {A_COUNT}: {NO_STR}", early, 2, 'a')
    refused(ValueError, 'late: n=1 must be a whole number of at least 2', late, 1)
    assert early(np.int8(2)) == 2 and late(2) == 2


# @checked

def test_one_line_names_function_argument_value_and_what_would_work():
    refused(ValueError, f'cut: chunk_size=-1 {A_COUNT}', cut, [1], -1)
    refused(TypeError, f"cut: chunk_size='5' {A_COUNT}: {NO_STR}", cut, [1], '5')
    refused(TypeError, f'cut: chunk_size=True {A_COUNT}: True and False are not numbers',
            cut, [1], chunk_size=True)
    refused(TypeError, f'cut: chunk_size=None {A_COUNT}', cut, [1], None)
    refused(ValueError, 'cut: share=nan must be a number from 0 to 1', cut, [1], 2, share=math.nan)
    refused(ValueError, f'cut: stride=0 {A_COUNT} or None', cut, [1], 2, stride=0)
    refused(ValueError, 'cut: ids[1]=-1 must be a whole number of at least 0', cut, [1, -1], 2)
    assert cut([1], 2, stride=None)[3] is None


def test_python_still_says_what_is_missing_and_unknown():
    refused(TypeError, "cut() missing 1 required positional argument: 'chunk_size'", cut, [1])
    refused(TypeError, "cut() got an unexpected keyword argument 'chunksize'", cut, [1], chunksize=3)
    refused(TypeError, "cut() got multiple values for argument 'ids'", cut, [1], 2, ids=[2])
    with pytest.raises(TypeError, match=r'^cut\(\) takes from 2 to 4 positional arguments but 5'):
        cut([1], 2, 'drop', 1, 1)


def test_what_reaches_the_function():
    given = dict(chunk_size=np.int64(3), share=np.float32(.5))
    out = cut([np.int32(1)], stride=np.uint8(2), **given)
    assert out == [[1], 3, 'drop', 2, .5] and [type(v) for v in out] == [list, int, str, int, float]
    assert type(given['chunk_size']) is np.int64 # what was passed is not changed


def test_signature_help_comments_source_and_pickle_stay():
    assert str(inspect.signature(cut)) == (
        "(ids: list[TokenId], chunk_size: Count, tail: Literal['drop', 'keep', 'pad'] = 'drop', "
        "stride: Count = None, *, share: Share = 0.5) -> list")
    assert cut.__doc__ == 'Cut a stream.' and cut.__name__ == 'cut' and cut.__module__ == __name__
    assert pickle.loads(pickle.dumps(cut)) is cut
    shown = pydoc.render_doc(cut, renderer=pydoc.plaintext)
    assert 'chunk_size: Count' in shown and 'Cut a stream.' in shown
    assert docments(cut)['chunk_size'] == 'tokens per chunk' and docments(cut)['return'] == 'the arguments'
    assert docments(cut, full=True)['chunk_size'].anno is Count
    assert 'tokens per chunk' in inspect.getsource(cut)


def test_show_doc():
    show_doc = pytest.importorskip('nbdev.showdoc').show_doc
    shown = show_doc(cut)._repr_markdown_()
    assert 'Count' in shown and 'tokens per chunk' in shown and 'Cut a stream.' in shown


def test_positional_only_keyword_only_and_var():
    @checked
    def f(a:Count, /, b:Count, *rest:Count, c:Count=1, **more:Count): return a, b, rest, c, more
    assert f(1, 2, 3, 0)[2] == (3, 0)
    assert f(1, 2, 0, c=3, a=0) == (1, 2, (0,), 3, {'a': 0}) # *rest and **more are not checked
    for call, name in ((lambda: f(0, 1), 'a'), (lambda: f(1, b=0), 'b'), (lambda: f(1, 1, c=0), 'c')):
        refused(ValueError, f'f: {name}=0 {A_COUNT}', call)


def test_the_first_wrong_argument_is_named_and_nothing_has_run():
    ran = []
    @checked
    def f(a:Count, b:Share): ran.append(1)
    refused(ValueError, f'f: a=0 {A_COUNT}', f, 0, 2)
    refused(ValueError, 'f: b=2 must be a number from 0 to 1', f, 1, 2)
    assert not ran


def test_an_error_of_the_function_itself_passes_through():
    @checked
    def f(a:Count): raise Refused('its own')
    with pytest.raises(Refused): f(1)


def test_defaults_are_checked_once_when_the_function_is_made():
    def wrong(n:Count=0): pass
    refused(ValueError, f'wrong, default: n=0 {A_COUNT}', checked, wrong)
    def unconverted(folder:NewFolder='runs'): pass
    refused(TypeError, "unconverted, default: folder='runs' must be Path('runs')", checked, unconverted)
    calls = []
    @kind
    def Watched(value):
        "anything"
        calls.append(value)
        return value
    @checked
    def right(n:Watched=1): return n
    assert right() == 1 and calls == [1] and right(2) == 2 and calls == [1, 2]


def test_methods_and_class_methods():
    class Source:
        @checked
        def __init__(self, n:Count): self.n = n
        @checked
        def sample(self, k:Natural): return k
        @classmethod
        @checked
        def of(cls, n:Count): return cls(n)
        @checked
        @staticmethod
        def one(n:Count): return n
        @checked
        @classmethod
        def two(cls, n:Count): return cls(n)
        @property
        @checked
        def half(self)->float: return self.n/2
    refused(ValueError, f'Source: n=0 {A_COUNT}', Source, 0)
    refused(ValueError, 'Source.sample: k=-1 must be a whole number of at least 0', Source(1).sample, -1)
    for name in ('of', 'one', 'two'):
        refused(ValueError, f'Source.{name}: n=0 {A_COUNT}', getattr(Source, name), n=0)
    assert Source.of(np.int64(2)).n == 2 and Source.one(3) == 3 and Source(3).half == 1.5
    refused(TypeError, '@checked is for functions and classes, not <property>: put @patch above it',
            checked, Source.half)
    refused(TypeError, '@checked is for functions and classes, not 3: put @patch above it', checked, 3)


def test_classes():
    @checked
    class Parent:
        def __init__(self, n:Count, name:Text='a'): self.n, self.name = n, name
    @checked
    class Child(Parent):
        def __init__(self, n:Count, k:Natural): super().__init__(n, name='b')
    class Plain(Parent): pass
    assert Child(1, 0).name == 'b' and str(inspect.signature(Parent)) == "(n: Count, name: Text = 'a')"
    assert isinstance(Child(1, 0), Parent)
    refused(ValueError, 'Child: k=-1 must be a whole number of at least 0', Child, 1, -1)
    refused(ValueError, f'Parent: n=0 {A_COUNT}', Plain, 0)
    class Empty: pass
    refused(TypeError, '@checked needs an __init__, and the class Empty has none', checked, Empty)


@checked
@dataclasses.dataclass(frozen=True)
class Recipe:
    lr:Rate=1e-3
    warmup_steps:Natural=0
    names:list=dataclasses.field(default_factory=list)
    betas:tuple[NotAll, NotAll]=(.9, .99)
    seen:dataclasses.InitVar[Count]=1


@checked
@dataclasses.dataclass(frozen=True)
class LongRecipe(Recipe):
    save_every:Count=None


def test_dataclasses():
    assert type(Recipe(np.float32(.5)).lr) is float and Recipe().names == []
    assert Recipe(betas=[.5, .5]).betas == (.5, .5)
    assert str(inspect.signature(Recipe)).startswith('(lr: Rate = 0.001, warmup_steps: Natural = 0')
    assert pickle.loads(pickle.dumps(Recipe(names=['a']))) == Recipe(names=['a'])
    assert Recipe().names is not Recipe().names
    refused(ValueError, 'Recipe: lr=1e+30 must be a number above 0 and at most 100: '
            'a learning rate is small, such as 1e-3', Recipe, 1e30)
    refused(ValueError, f'Recipe: seen=0 {A_COUNT}', Recipe, seen=0)
    refused(TypeError, 'Recipe: names=None must be a list', Recipe, names=None)


def test_replace_and_inheritance():
    def replace(recipe, **kwargs): return dataclasses.replace(recipe, seen=1, **kwargs)
    assert replace(Recipe(), lr=1).lr == 1 and replace(LongRecipe(), save_every=3).save_every == 3
    refused(ValueError, 'Recipe: warmup_steps=-1 must be a whole number of at least 0',
            replace, Recipe(), warmup_steps=-1)
    refused(ValueError, 'LongRecipe: lr=0 must be a number above 0 and at most 100',
            replace, LongRecipe(), lr=0)
    refused(ValueError, f'LongRecipe: save_every=0 {A_COUNT} or None', LongRecipe, save_every=0)
    assert dataclasses.asdict(LongRecipe())['betas'] == (.9, .99)
    with pytest.raises(dataclasses.FrozenInstanceError): LongRecipe().lr = 1


class Source: pass


def test_patch():
    @patch
    @checked
    def twice(self:Source, k:Count): return 2*k # the double
    assert Source().twice(np.int8(2)) == 4
    refused(ValueError, f'twice: k=0 {A_COUNT}', Source().twice, 0)


@pytest.mark.parametrize('order', [
    lambda f: checked(delegates(cut)(f)), lambda f: delegates(cut)(checked(f))], ids=['above', 'below'])
def test_delegates(order):
    def short_cut(ids, size:Count=3, **kwargs): return cut(ids, size, **kwargs)
    g = order(short_cut)
    assert 'stride' in inspect.signature(g).parameters and 'kwargs' not in inspect.signature(g).parameters
    assert g([1], stride=2)[3] == 2
    with pytest.raises(ValueError, match=f'cut: stride=0 {A_COUNT}'): g([1], stride=0)


def test_above_no_grad_and_context_managers():
    @checked
    @torch.no_grad()
    def double(x:torch.Tensor, n:'Count'=2): return n*x
    assert not double(torch.ones(1, requires_grad=True)).requires_grad
    refused(ValueError, f'double: n=0 {A_COUNT}', double, torch.ones(1), 0)
    @checked
    @contextlib.contextmanager
    def opened(n:'Count'): yield n
    with opened(np.int64(3)) as n: assert n == 3
    refused(ValueError, f'opened: n=0 {A_COUNT}', opened, 0)


def test_generators_are_checked_at_the_call():
    @checked
    def stream(n:Count): yield n
    refused(ValueError, f'stream: n=0 {A_COUNT}', stream, 0)
    assert list(stream(3)) == [3]


# A field type of one's own, and values that fight back

def test_kind():
    @kind
    def Even(value):
        "an even number"
        if not isinstance(value, int): raise WrongType
        if value % 2: raise Refused(f'{value + 1} would do')
        return value
    assert repr(Even) == Even.__name__ == 'Even' and Even.__doc__ == 'An even number.'
    assert Even(4) == 4 and isinstance(Even, Kind)
    refused(ValueError, 'value=3 must be an even number: 4 would do', Even, 3)
    refused(TypeError, "n='a' must be an even number", Even, 'a', 'n')
    refused(ValueError, 'f: x[1]=3 must be an even number: 4 would do', one(list[Even]), [2, 3])


class Weird:
    def __repr__(self): raise RuntimeError('no repr')


class Loud(list):
    def __repr__(self): return 'x\n'*10**6


def test_values_that_fight_back():
    refused(TypeError, f'f: x=<Weird> {A_COUNT}', one(Count), Weird())
    refused(TypeError, f'f: x=[<Weird>] {A_COUNT}', one(Count), [Weird()])
    refused(TypeError, f'f: x=<Loud> {A_COUNT}', one(Count), Loud())


def test_a_check_that_stumbles_refuses():
    @kind
    def Sloppy(value):
        "a or b"
        return value if value in 'ab' else 1/0
    refused(TypeError, 'f: x=3 must be a or b', one(Sloppy), 3)
    refused(TypeError, "f: x='c' must be a or b", one(Sloppy), 'c')
    with pytest.raises(TypeError) as caught: one(Sloppy)('c')
    assert type(caught.value.__cause__) is ZeroDivisionError # a mistake in a check stays visible


@pytest.mark.parametrize('value, text', [
    ('a'*10**6, None), (list(range(10**6)), '[0, 1, 2, 3, 4, 5, ...]'), ({'a': 'b'*1000}, None),
    (10**5000, '<int>'), ('a\nb', r"'a\nb'"), (np.float32(.5), '0.5'), (b'x'*1000, None), ([[[[1]]]], None),
    (np.zeros((2, 3)), '<ndarray of shape (2, 3), float64>'), (None, 'None'), (Path('a/b'), "Path('a/b')"),
    (torch.zeros(2, 3), '<Tensor of shape (2, 3), float32>'), (dict, 'the class dict'),
    (Weird, 'the class Weird'), (Weird(), '<Weird>')], ids=lambda v: '')
def test_short(value, text):
    assert '\n' not in short(value) and len(short(value)) < 200
    assert text is None or short(value) == text


def test_is_a():
    assert is_a(torch.ones(1), 'Tensor') and is_a(torch.nn.Linear(1, 1), 'Module')
    assert not is_a([], 'Tensor', 'ndarray')


def test_nothing_heavy_is_imported():
    heavy = ['torch', 'transformers', 'datasets', 'fastai', 'pandas', 'pyarrow', 'fastcore']
    code = f"import sys; import course_lm.support.checks; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == '[]'


# Every field type against every odd value

ODD = [
    None, True, False, 0, 1, -1, 3, 2**63, -2**70, 10**5000, .5, 1., -0., 1e308, math.nan, math.inf, 1j,
    '', '.', 'a', '5', 'é\ud800', 'a\nb', '\0', 'x'*10**5, b'', b'\xff', Path('a'), Path('a\nb'),
    [], [1], [None], ['a', None], [[[]]], (), (1, 2), (.5, .5), {}, {'a': 1}, {1, 2}, range(3), iter([1]),
    (i for i in 'ab'), len, int, object(), Weird(), Weird, Loud([1]), sys, ValueError('x'), NotImplemented,
    ..., np.int64(-1), np.float32('nan'), np.bool_(True), np.array(2), np.array([]), np.array([1, 2]),
    np.array('a'), np.array([object()]), np.datetime64('2026-01-01'), Fraction(1, 3), torch.device('cpu'),
    torch.tensor(2), torch.tensor(math.nan), torch.ones(2), torch.ones(2, 2, dtype=torch.long),
    torch.empty(2, device='meta'), torch.nn.Linear(1, 1)]
FIELDS = [
    *NUMBERS, Flag, Text, NewFolder, ExistingPath, OneOf['a', 'b'], Count | None, Natural | NotAll,
    list[Count], tuple[NotAll, NotAll], tuple[Count, ...], list[Text], dict, list, tuple, Callable, Path,
    torch.Tensor]


def outcome(field, value):
    "'accepted', or the type of the error; an error is one short line that begins with the argument."
    @checked
    def sample(given:field): return given
    try: sample(value)
    except (ValueError, TypeError) as e:
        line = str(e)
        assert re.match(r'sample: given(\[.+?\])*=.+ must be .+', line), line
        assert line.isprintable() and len(line) < 400, line
        return type(e)
    return 'accepted'


@pytest.mark.parametrize('field', FIELDS, ids=str)
def test_odd_values(field):
    outcomes = [outcome(field, value) for value in ODD]
    assert 0 < outcomes.count('accepted') < len(ODD)//2 and TypeError in outcomes


# Every parameter of a public function has a field type

UNCHECKED = {'cli.main': 'what a shell gives it is read and refused by argparse'}
MODULES = [m.name for m in pkgutil.walk_packages(course_lm.__path__, 'course_lm.') if not m.ispkg]
for name in ('_modidx', '__main__'): MODULES.remove(f'course_lm.{name}')
MODULES.append('course_lm.homework') # a package that learners call
# homework's banks get no other input than their own fixtures, and its engine is called by `check` alone
LESSONS = [name for name in MODULES if '.support' not in name and '.homework.' not in name]


def public(module):
    "(name, its class or None, function) for what stands in __all__: functions, constructors and methods."
    for name in module.__all__:
        found = getattr(module, name)
        if inspect.isfunction(found): yield name, None, found
        kept = type(found).__module__ == module.__name__ # an object of a class of the module, such as `check`
        if kept: found = type(found)
        if not inspect.isclass(found) or found.__module__ != module.__name__: continue
        for method,f in vars(found).items():
            f = getattr(f, '__func__', f)
            if method.startswith('_') and method not in ('__init__', '__call__'): continue
            if inspect.isfunction(f): yield f'{name}.{method}', found, f


def is_checked(f):
    return f.__code__ == cut.__code__ or hasattr(f, '__wrapped__') and is_checked(f.__wrapped__)


def fields_of(f, cls):
    "{parameter: its field type or None}; a method that overrides another takes what that one takes."
    bases = [vars(c) for c in reversed(cls.__mro__[1:-1])] if cls else []
    notes = {}
    for g in [*(base[f.__name__] for base in bases if f.__name__ in base), f]:
        g = inspect.unwrap(g)
        notes |= {name: (note, g.__globals__) for name,note in g.__annotations__.items()}
    fields = {}
    for name,p in inspect.signature(f).parameters.items():
        if name in ('self', 'cls') or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD): continue
        fields[name] = kind_of(*notes[name]) if name in notes else None
    return fields


def missing(module):
    "Parameters of a module that have no field type, and its functions and constructors that check none."
    name = module.__name__.removeprefix('course_lm.')
    for where,cls,f in public(module):
        fields, method = fields_of(f, cls), cls and not where.endswith('.__init__')
        yield from (f'{name}.{where}: {p}' for p,field in fields.items() if field is None)
        unasked = method or dataclasses.is_dataclass(cls) or f'{name}.{where}' in UNCHECKED
        if fields and not unasked and not is_checked(f): yield f'{name}.{where}: not @checked'


@pytest.mark.parametrize('name', LESSONS)
def test_every_public_parameter_of_a_lesson_has_a_field_type(name):
    assert not [*missing(importlib.import_module(name))]


@pytest.mark.parametrize('name', sorted(set(MODULES) - set(LESSONS)))
def test_what_support_checks_is_typed(name): # the rest of it is called in inner steps, with what was checked
    for where,cls,f in public(importlib.import_module(name)):
        if is_checked(f): assert None not in fields_of(f, cls).values(), where


class Base:
    def __call__(self, ids:list): pass


class Over(Base):
    def __call__(self, ids): pass
    def more(self, ids): pass
    @classmethod
    @checked
    def made(cls, n:Count, other): pass


def plain(n:Count): pass


def test_a_parameter_without_a_field_type_is_seen():
    made = types.ModuleType('made')
    made.__all__ = ['cut', 'plain', 'Over']
    made.cut, made.plain, made.Over = cut, plain, type('Over', (Over,), {**vars(Over), '__module__': 'made'})
    assert [*missing(made)] == ['made.plain: not @checked', 'made.Over.more: ids', 'made.Over.made: other']
