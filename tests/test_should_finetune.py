"""benchmarks.experiments.should_finetune: training's answer is repeatable and may be a tie."""
import json

import pytest
import torch

from benchmarks.bench import results
from benchmarks.experiments.should_finetune import Training, compare_starts, up_to
from course_lm.advice import ANSWERS
from course_lm.data import python_docs, train_tokenizer
from course_lm.models import new_model, tiny_gpt_config

SHORT = Training(n_steps=4)


@pytest.fixture(scope='module')
def small():
    tok = train_tokenizer(python_docs()[:100], 400)
    tok.model_max_length = 64
    return new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32, max_length=64)).eval(), tok


def test_compare_starts_leaves_the_model_and_is_repeatable(small):
    state = {k: v.clone() for k, v in small[0].state_dict().items()}
    docs = python_docs()
    a, b = (compare_starts(docs[:40], docs[60:70], *small, SHORT) for _ in range(2))
    assert a == b and a.best in (*ANSWERS, 'tie') and set(a.as_good) <= set(ANSWERS)
    assert list(a.scores)[0] == 'untouched' and list(a.by_rate) == list(a.rates) == list(a.scores)[1:]
    assert list(a.by_rate['fine-tuned']) == list(SHORT.rates)
    assert all(s['low'] <= s['bits_per_byte'] <= s['high'] for s in a.scores.values())
    assert all(torch.equal(v, small[0].state_dict()[k]) for k, v in state.items())
    with pytest.raises(ValueError, match='in train and in'): compare_starts(docs[:40], docs[39:45], *small)
    with pytest.raises(ValueError, match='at least 10'): compare_starts(docs[:9], docs[9:12], *small)


def test_truth_can_be_a_tie(small):
    docs = python_docs()
    wide, narrow = (compare_starts(docs[:40], docs[60:70], *small, SHORT, tie=tie) for tie in (9., 0.))
    scores = dict(narrow.scores)
    del scores['from scratch']
    assert compare_starts(docs[:40], docs[60:70], *small, SHORT, same_tokenizer=False).scores == scores
    assert wide.best == 'tie' and wide.as_good == ANSWERS[:3]
    bits = [s['bits_per_byte'] for s in scores.values()]
    assert ANSWERS[bits.index(min(bits))] in narrow.as_good and wide.scores == narrow.scores


def test_what_is_learnt_from_is_bounded():
    assert up_to(['aaa', 'bb', 'c'], 4) == ['aaa', 'bb'] and up_to(['aaa'], 0) == []


def test_the_lesson_has_its_record():
    found = json.loads((results/'should_finetune_lesson.json').read_text(encoding='utf-8'))
    assert list(found['collections']) == ['own writing', 'manual', 'made-up reviews', 'DNA']
    assert list(found['unseen']) == ['comments', 'character names', 'sums', 'imports']
    assert found['machine']['date'] and found['training']['n_steps'] == 16
    for record in (*found['collections'].values(), *found['unseen'].values()):
        assert set(record['as_good']) <= set(ANSWERS) and record['best'] in (*ANSWERS, 'tie')
        assert set(record['rates']) == set(record['by_rate']) == set(record['starts']) - {'untouched'}
        for start, rate in record['rates'].items():
            assert record['by_rate'][start][str(rate)] == record['starts'][start]['bits_per_byte']
        assert all(s['low'] <= s['bits_per_byte'] <= s['high'] for s in record['starts'].values())


def test_what_the_lesson_says_of_its_records():
    found = json.loads((results/'should_finetune_lesson.json').read_text(encoding='utf-8'))
    def bits_of(record): return {name: s['bits_per_byte'] for name, s in record['starts'].items()}
    bits = {k: bits_of(x) for k, x in found['collections'].items()}
    manual, made_up, dna = (bits[k] for k in ('manual', 'made-up reviews', 'DNA'))
    assert manual['from scratch'] > 1.1*manual['fine-tuned']
    assert manual['fine-tuned'] < .95*manual['untouched']
    assert made_up['fine-tuned'] < .8*made_up['untouched'] and min(dna.values()) > 1.28
    own = dna['from scratch, own tokenizer']
    assert own < .95*dna['fine-tuned'] < .6*dna['untouched']
    assert 'use it as it is' in found['collections']['own writing']['as_good']
    unseen = found['unseen']
    assert all(x['verdict'] in x['as_good'] for x in unseen.values())
    assert [name for name, x in unseen.items() if x['best'] == 'tie'] == ['imports']
    for name, x in {**unseen, 'DNA': found['collections']['DNA']}.items():
        own = x['starts']['from scratch, own tokenizer']['bits_per_byte']
        slow, *faster = (bits > own for bits in x['by_rate']['fine-tuned'].values())
        scratch = x['best'] == 'new tokenizer and from scratch'
        if name != 'imports': assert {slow, *faster} == {scratch} # at every rate
        else: assert slow and not all(faster)
    own = bits['own writing']
    assert own['fine-tuned'] == own['untouched'] # no rate made it better than it was
    real = json.loads((results/'should_finetune.json').read_text(encoding='utf-8'))
    assert .85 < real['home']['held-out reviews, home: own writing']['excess'] < 1.1
    careful = 'too little text to tell'
    rows = [x for x in real['rows'] if x['verdict'] not in (*x['as_good'], careful)]
    wrong = {(x['corpus'], x['characters']) for x in rows}
    assert wrong == {('made-up reviews', 15_000)}
