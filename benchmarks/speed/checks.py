"""What `@checked` costs: a call bare and checked, and each check of something long.

    python -m benchmarks.speed.checks

Prints microseconds a call, the least of many rounds, and keeps them in course_lm/records/checks.json.
"""
import functools, subprocess, sys, timeit
from typing import Literal

import numpy as np

from benchmarks.bench import keep, machine, results
from course_lm.support.checks import Count, Natural, checked
from course_lm.support.kinds import Texts, TokenIds, WarmupSteps

def microseconds(call, rounds=30, seconds=.01):
    "The least of some rounds of about so many seconds each: what else runs on the machine only adds to it."
    number = max(1, round(seconds/timeit.timeit(call, number=1)))
    return round(min(timeit.repeat(call, number=number, repeat=rounds))/number*1e6, 2)

def with_parameters(n):
    "A function of n counts that does nothing."
    names = {'Count': Count}
    exec(f"def f({', '.join(f'a{i}:Count' for i in range(n))}): pass", names)
    return names['f']

def calls():
    "Bare and checked, by place and by keyword: microseconds a call."
    found = {}
    for n in (2, 5, 10):
        bare = with_parameters(n)
        args, kwargs = (3,)*n, {f'a{i}': 3 for i in range(n)}
        for name,f in (('bare', bare), ('checked', checked(bare))):
            by_place, by_keyword = functools.partial(f, *args), functools.partial(f, **kwargs)
            found[f'{n} parameters, {name}, by place'] = microseconds(by_place)
            found[f'{n} parameters, {name}, by keyword'] = microseconds(by_keyword)
    return found

@checked
def texts_of(x:Texts): pass

@checked
def ids_of(x:TokenIds): pass

@checked
def schedule(step:Natural, n_steps:Count, warmup_steps:WarmupSteps=.1, name:Literal['a', 'b']='a'): pass

def long_things():
    "Things whose length must not show."
    from datasets import Dataset
    column = Dataset.from_dict({'text': ['a review']*10**6})['text']
    short, long, umlauts = ['a review']*1000, ['a review']*10**6, ['é'*1000]*1000
    bare = with_parameters(5)
    few, many = np.zeros(1000, np.int32), np.zeros(10**8, np.int32)
    return {
        'a schedule of four parameters': microseconds(lambda: schedule(3, 100, .25, 'b')),
        'list of 1,000 str': microseconds(lambda: texts_of(short)),
        'list of 1,000,000 str': microseconds(lambda: texts_of(long)),
        'list of 1,000 str of 1,000 letters outside ASCII': microseconds(lambda: texts_of(umlauts)),
        'column of 1,000,000 rows': microseconds(lambda: texts_of(column)),
        'array of 1,000 ids': microseconds(lambda: ids_of(few)),
        'array of 100,000,000 ids': microseconds(lambda: ids_of(many)),
        'decorating a function of five parameters': microseconds(lambda: checked(bare))}

def importing():
    "Milliseconds that the two modules add to NumPy's import: the least of ten processes."
    code = ('import time, numpy, course_lm; start = time.perf_counter(); import course_lm.support.kinds; '
            'print(time.perf_counter() - start)')
    times = [float(subprocess.run([sys.executable, '-c', code], capture_output=True, check=True).stdout)
             for _ in range(10)]
    return round(min(times)*1000, 1)

if __name__ == '__main__':
    found = {'microseconds': {**calls(), **long_things()}, 'milliseconds to import': importing()}
    for name,value in found['microseconds'].items(): print(f'{value:10,.2f}  {name}')
    print(f'{found["milliseconds to import"]:10.1f}  milliseconds to import both modules after NumPy')
    keep({'machine': machine('numpy', 'datasets'), **found}, results/'checks.json')
