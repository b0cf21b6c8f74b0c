"`benchmarks.experiments.minilm_imdb` and `minilm_tuned`: their parts, and what lessons say of the records."
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig

import course_lm
from benchmarks.experiments import minilm_imdb as frozen, minilm_tuned as tuned

records = Path(course_lm.__file__).resolve().parent/'records'


def record(name): return json.loads((records/f'{name}.json').read_text(encoding='utf-8'))


def test_windows_are_counted_from_the_end_and_lose_nothing():
    assert frozen.windows([*range(7)], 3) == [[4, 5, 6], [1, 2, 3], [0]]
    assert frozen.windows([1, 2], 3) == [[1, 2]] and frozen.windows([], 3) == [[]]


def test_accuracy_by_the_number_of_windows():
    right, n = np.array([True, True, False, True, False]), np.array([1, 1, 2, 3, 7])
    rows = frozen.by_windows(right, n)
    assert [(r['windows'], r['reviews'], r['accuracy']) for r in rows] == [
        ('one', 2, 1.), ('two', 1, 0.), ('three or more', 2, .5)]
    assert all(low <= r['accuracy'] <= high for r in rows for low, high in [r['interval']])


def test_a_temperature_undoes_a_factor():
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 2, 20_000)
    labels = (rng.random(20_000) < 1/(1 + np.exp(-odds))).astype(int)
    assert frozen.temperature(3*odds, labels) == pytest.approx(3, rel=.06)
    assert frozen.temperature(odds/2, labels) == pytest.approx(.5, rel=.06)


@pytest.fixture(scope='module')
def pooled():
    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=32, hidden_dropout_prob=0., attention_probs_dropout_prob=0.)
    model = tuned.MeanPooled(config).eval()
    model.set_attn_implementation('float32')
    return model


def test_the_head_sees_no_pad(pooled):
    ids = torch.tensor([[3, 4, 5, 6]])
    padded = dict(input_ids=torch.tensor([[3, 4, 5, 6, 0, 0]]), attention_mask=torch.tensor([[1]*4 + [0]*2]))
    with torch.no_grad():
        alone = pooled(ids, torch.ones_like(ids)).logits
        beside = pooled(**padded).logits
        states = pooled.bert(ids, torch.ones_like(ids)).last_hidden_state
    torch.testing.assert_close(alone, beside, atol=2e-3, rtol=2e-2) # 16-bit arithmetic
    torch.testing.assert_close(alone, pooled.classifier(states.mean(1)), atol=2e-3, rtol=2e-2)


def test_the_loss_trains_body_and_head_in_float32(pooled):
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])
    pooled(ids, torch.ones_like(ids), torch.tensor([0, 1])).loss.backward()
    grads = {n: p.grad for n,p in pooled.named_parameters() if 'pooler' not in n}
    assert all(g is not None and g.dtype == torch.float32 for g in grads.values())
    words = 'bert.embeddings.word_embeddings.weight'
    assert all(grads[n].abs().max() > 0 for n in ('classifier.weight', words))
    pooled.zero_grad()


def test_what_lesson_61_says_of_frozen_features():
    found = record('minilm_imdb')
    rows = {(r['labels'], r['layers'], r['window']): r['test_accuracy'] for r in found['frozen']
            if r['labels'] >= 5000}
    assert round(100*rows[20000, 'last', 'all'], 1) == 84.2
    assert round(100*rows[20000, 'every', 'all'], 1) == 88.6
    assert {r['drawn_from'] for r in found['frozen'] if r['labels'] < 20000} == {5000}
    assert found['splits'] == dict(test=2500, valid=2500, train=20000, by='movie', seed=42)


def test_what_lesson_62_says_of_long_reviews():
    rows = {(r['reads'], r['windows']): r for r in record('minilm_imdb')['long']['rows']}
    gain = {n: 100*(rows['all', n]['accuracy'] - rows['tail', n]['accuracy'])
            for n in ('one', 'two', 'three or more')}
    assert {n: round(x, 1) for n,x in gain.items()} == {'one': .8, 'two': 2.2, 'three or more': 3.1}
    assert sum(r['reviews'] for (reads, _), r in rows.items() if reads == 'all') == 2500


def test_what_lesson_61_says_of_fine_tuning():
    found = record('minilm_tuned')
    row = next(r for r in found['runs'] if r['labels'] == 20000)
    low, high = row['interval']
    assert round(100*row['test_accuracy'], 1) == 91.8 and low < row['test_accuracy'] < high
    assert row['epochs'] == 1 and row['updates']*row['batch_size'] == 20000
    assert round(row['cpu_seconds']/60) == 28
    counted = next(r for r in record('imdb')['runs'] if r['name'] == 'NB-SVM' and r['split'] == 'movie'
                   and r['train_reviews'] == 20000)
    assert row['test_accuracy'] > counted['test_accuracy']
    by_size = {n: [r['test_accuracy'] for r in found['runs'] if r['labels'] == n] for n in (100, 500, 2000)}
    nb = {r['train_reviews']: r['test_accuracy'] for r in record('imdb')['runs']
          if r['name'] == 'NB-SVM' and r['split'] == 'movie'}
    assert [len(seeds) for seeds in by_size.values()] == [3, 3, 3]
    assert all(min(by_size[n]) > nb[n] for n in (500, 2000))
    ahead = np.mean(by_size[500]) - nb[500]
    assert round(100*np.mean(by_size[500]), 1) == 86.3 and round(100*ahead, 1) == 4.2
    assert max(by_size[100]) - min(by_size[100]) > .08
    assert round(100*np.mean(by_size[2000]), 1) == 88.2
    rates = {r["lr"]: r["valid_accuracy"] for r in found["rates"]}
    assert max(rates, key=rates.get) == 5e-5 and min(rates) < 5e-5 < max(rates)
    assert {r["lr"] for r in found["runs"] if r["labels"] < 20000} == {5e-5} != {row["lr"]} == {1e-4}


def test_what_lesson_61_says_of_a_split_by_review():
    rows = {(r['run'], r['split']): 100*r['test_accuracy'] for r in record('minilm_imdb')['split']['rows']}
    assert round(rows['NB-SVM', 'review'] - rows['NB-SVM', 'movie'], 1) == 1.4
    assert round(rows['MiniLM, frozen', 'review'] - rows['MiniLM, frozen', 'movie'], 1) == -.5


def test_the_code_of_lesson_61_is_that_of_the_experiment():
    "The head that the lesson shows for a live run computes what the recorded one did."
    path = Path(course_lm.__file__).resolve().parents[1]/'nbs'/'61_imdb_classification.ipynb'
    page = json.loads(path.read_text(encoding='utf-8'))
    cell = next(''.join(c['source']) for c in page['cells'] if 'class MeanPooled' in ''.join(c['source']))
    names = dict(torch=torch, SimpleNamespace=tuned.SimpleNamespace)
    exec(cell.split('\nif at_hand')[0], names)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=32)
    live = names['MeanPooled'](config).eval()
    recorded = tuned.MeanPooled(config).eval()
    recorded.load_state_dict(live.state_dict())
    batch = dict(input_ids=torch.tensor([[3, 4, 5], [6, 7, 0]]), labels=torch.tensor([0, 1]),
                 attention_mask=torch.tensor([[1, 1, 1], [1, 1, 0]]))
    with torch.no_grad(): a, b = live(**batch), recorded(**batch)
    assert torch.equal(a.logits, b.logits) and torch.equal(a.loss, b.loss)


def test_what_lesson_63_says_of_the_two_best():
    found = record('minilm_tuned')['compared']
    nb, tuned_run, both = found['runs']
    assert [round(100*r['test_accuracy'], 1) for r in (nb, tuned_run, both)] == [90.9, 91.8, 92.6]
    gain, more = found['pairs']
    assert [round(100*gain[k], 1) for k in ('difference', 'low', 'high')] == [.9, -.3, 2.1]
    assert [round(100*more[k], 1) for k in ('difference', 'low', 'high')] == [.8, 0, 1.7]
    assert round(gain['p'], 2) == .16 and round(more['p'], 2) == .06
    assert [round(100*r[k], 1) for r in (tuned_run, nb) for k in ('calibration_error', 'after')] == [
        1.9, 1.1, 2.3, 1.3]
