"""Lesson 5 beyond what its notebook shows: interruptions, caches, odd tokenizers, laws on random input."""
import json, math, subprocess, sys
from pathlib import Path

import pytest, torch
from hypothesis import given, settings, strategies as st

from benchmarks.bench import results
from course_lm import finetuning as ft
from course_lm.models import (
    new_model, tiny_bert_config,
    tiny_gpt_config)
from course_lm.chunking import lm_datasets
from course_lm.data import train_tokenizer
from course_lm.labels import LMCollator
from course_lm.perplexity import evaluate_lm
from tests.conftest import SENTENCES as texts, same


@pytest.fixture
def lm(tok): return new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32))

@pytest.fixture(scope='module')
def data(tok): return lm_datasets(texts[:40], texts[40:], tok, 16)

def logits(model): return model.eval()(torch.arange(5, 15)[None]).logits.detach()
def fresh_copy(tokenizer, tmp_path):
    from transformers import AutoTokenizer
    tokenizer.save_pretrained(tmp_path/'tok')
    return AutoTokenizer.from_pretrained(tmp_path/'tok')


def test_import_is_light():
    heavy = 'transformers', 'fastai', 'datasets', 'pandas', 'matplotlib'
    code = f'import course_lm.finetuning, sys; print([m for m in {heavy} if m in sys.modules])'
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True,
                         cwd=Path(ft.__file__).parents[1])
    assert out.stdout.strip() == '[]'


# The loop

@given(st.lists(st.integers(2, 12), min_size=2, max_size=8), st.integers(1, 7))
@settings(max_examples=15, deadline=None)
def test_accumulation_is_the_gradient_of_all(lengths, cut):
    tok = train_tokenizer(texts, 300)
    rows = [{'input_ids': list(range(5+i, 5+i+n))} for i,n in enumerate(lengths)]
    collate = LMCollator(tok)
    def grads(batches):
        m = new_model(tiny_gpt_config(tok, n_layer=2, n_head=2, n_embd=16))
        sums = ft.gradient(m, batches, True, 'cpu')
        return sums, [p.grad for p in m.parameters()]
    parts = [collate(p) for p in (rows[:cut], rows[cut:]) if p]
    (nats, n), whole = grads([collate(rows)])
    (nats2, n2), split = grads(parts)
    assert n == n2 == sum(lengths) - len(lengths) and nats == pytest.approx(nats2, rel=1e-5)
    for a,b in zip(whole, split): torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)

SCHEDULES = ['one_cycle', 'linear', 'cosine', 'cosine_with_min_lr', 'constant', 'wsd']

@given(st.integers(1, 200), st.floats(0, .99), st.sampled_from(SCHEDULES))
def test_lr_factor_stays_between_0_and_1(n, warmup, schedule):
    f = [ft.lr_factor(i, n, schedule, warmup) for i in range(n)]
    assert all(0 <= x <= 1 + 1e-12 for x in f)
    peak = f.index(max(f))
    assert f[:peak] == sorted(f[:peak])
    if schedule != 'constant': assert f[peak:] == sorted(f[peak:], reverse=True)

@pytest.mark.parametrize('n, warmup', [(1, 0), (1, 1), (7, 3), (100, 10), (100, 25), (50, 60)])
@pytest.mark.parametrize('schedule', ['linear', 'cosine', 'cosine_with_min_lr', 'constant'])
def test_a_name_means_what_it_means_in_transformers(schedule, n, warmup):
    import transformers as t
    opt = torch.optim.SGD([torch.zeros(1)], lr=1.)
    tenth = dict(scheduler_specific_kwargs=dict(min_lr_rate=.1)) if schedule == 'cosine_with_min_lr' else {}
    name = 'constant_with_warmup' if schedule == 'constant' else schedule
    peer = t.get_scheduler(name, opt, warmup, n, **tenth).lr_lambdas[0]
    for i in range(n): assert ft.lr_factor(i, n, schedule, warmup) == pytest.approx(peer(i), abs=1e-12)

@pytest.mark.parametrize('share', [.1, .25, .3, .6])
def test_one_cycle_is_that_of_fastai(share):
    from fastai.callback.schedule import combined_cos
    theirs = combined_cos(share, 1/25, 1, 1e-5)
    for i in range(50):
        assert ft.lr_factor(i, 50, 'one_cycle', share) == pytest.approx(float(theirs(i/50)), abs=1e-6)

def test_warm_up_stable_decay():
    known = [ft.lr_factor(i, 5, 'wsd', 0, decay=3) for i in range(5)]
    assert known == pytest.approx([1, 1, .5, 1 - math.sqrt(.5), 1 - math.sqrt(.75)])
    unending = [ft.lr_factor(i, None, 'wsd', 4) for i in range(80)]
    assert unending[:6] == [.25, .5, .75, 1, 1, 1], 'no update is wasted'
    assert [ft.lr_factor(i, 100, 'wsd', 4, .2) for i in range(80)] == unending
    last = pytest.approx(1 - math.sqrt(20/21))
    assert ft.lr_factor(99, 100, 'wsd', 10, .2) == ft.lr_factor(99, 100, 'wsd', 10, 20) == last
    assert ft.lr_factor(5, 10, 'wsd', 0, decay=0) == 1

def test_lr_factor_refuses():
    with pytest.raises(ValueError, match="schedule='triangle' must be"): ft.lr_factor(0, 10, 'triangle')
    with pytest.raises(ValueError, match='n_steps=None'): ft.lr_factor(0, None, 'cosine', 3)
    with pytest.raises(ValueError, match='n_steps=None'): ft.lr_factor(0, None, 'wsd', .1)
    with pytest.raises(ValueError, match='step=-1 must be'): ft.lr_factor(-1, 10)
    assert ft.lr_factor(15, 10, 'one_cycle') == pytest.approx(1e-5), 'after the end it stays where it ended'

def test_the_order_of_an_epoch():
    batches = ft.ShuffledBatches(10, batch_size=4, seed=1)
    first, second = list(batches), list(batches)
    assert first != second and [len(b) for b in first] == [4, 4, 2] and len(batches) == 3
    batches.set_epoch(0)
    assert list(batches) == first
    batches.set_epoch(1, start=2)
    assert list(batches) == second[2:]
    with pytest.raises(ValueError, match='n=0 must be a whole number of at least 1'): ft.ShuffledBatches(0, 4)

def test_loaders_refuse(data, tok):
    import datasets
    with pytest.raises(ValueError, match=r"data=.*it has \['train'\]"):
        ft.lm_loaders({'train': data['train']}, tok)
    with pytest.raises(ValueError, match='input_ids'):
        ft.lm_loaders((datasets.Dataset.from_dict({'text': ['a']}),)*2, tok)


# The optimizer

def test_what_is_decayed(lm):
    opt = ft.lm_optimizer(lm, 1e-3, weight_decay=.1)
    groups = {g['kind']: g for g in opt.param_groups}
    assert {k: g['weight_decay'] for k,g in groups.items()} == dict(matrix=.1, embedding=0., vector=0.)
    assert {p.ndim for p in groups['vector']['params']} == {1}
    assert sum(len(g['params']) for g in groups.values()) == len(list(lm.parameters()))
    assert sum(p.numel() for g in groups.values() for p in g['params']) == lm.num_parameters()
    names = ft.decay_groups(lm)
    assert {n.split('.')[-2][:2] for n,_ in names['vector'] if n.endswith('weight')} == {'ln'}
    with pytest.raises(ValueError, match='lr=0 must be a number above 0'): ft.lm_optimizer(lm, lr=0)
    with pytest.raises(ValueError, match='everything is frozen'): ft.decay_groups(lm.requires_grad_(False))

def test_a_rule_by_name_decays_the_norms_of_gpt2(lm):
    names = [name for name,_ in ft.decay_groups(lm)['vector']]
    by_name = [n for n in names if 'bias' not in n and 'LayerNorm.weight' not in n]
    assert len(by_name) == 5 and all('.ln_' in n for n in by_name)
    groups = ft.decay_groups(lm)
    assert [n for n,_ in groups['embedding']] == ['transformer.wte.weight', 'transformer.wpe.weight']
    assert all('.attn.c_' in n or '.mlp.c_' in n for n,_ in groups['matrix']) and len(groups['matrix']) == 8

def test_another_optimizer(lm):
    class Mine(torch.optim.SGD):
        def __init__(self, groups, lr, betas): super().__init__(groups, lr=lr, momentum=betas[0])
    opt = ft.lm_optimizer(lm, .1, .2, (.8, .9), make=Mine)
    assert isinstance(opt, Mine)
    found = [(g['kind'], g['momentum'], g['weight_decay']) for g in opt.param_groups]
    assert found == [('matrix', .8, .2), ('embedding', .8, 0.), ('vector', .8, 0.)]


# The gradient

def test_a_share_of_the_gradient_and_16_bits(lm, tok):
    collate = LMCollator(tok)
    rows = [{'input_ids': list(range(5, 5+n))} for n in (4, 9, 12, 7)]
    def grads(model, *args, **kw):
        model.zero_grad()
        sums = ft.gradient(model, *args, True, 'cpu', **kw)
        return sums, [p.grad.clone() for p in model.parameters()]
    lm.eval()
    (nats, n), whole = grads(lm, [collate(rows)])
    parts = [grads(lm, [collate(part)], total=n) for part in (rows[:1], rows[1:])]
    assert [s[1] for s,_ in parts] == [n, n] and sum(s[0] for s,_ in parts) == pytest.approx(nats, rel=1e-5)
    for a,b,c in zip(whole, *(g for _,g in parts)): torch.testing.assert_close(a, b + c, rtol=1e-3, atol=1e-6)
    nothing = dict(input_ids=torch.ones(1, 3, dtype=torch.long), labels=torch.full((1, 3), -100))
    assert ft.gradient(lm, [nothing], True, 'cpu', total=8) == (0., 8), 'another process has them'
    (half, _), _ = grads(lm, [collate(rows)], bf16=True)
    assert half != nats and half == pytest.approx(nats, rel=2e-2)

def test_each_text_of_a_classifier_is_one(mtok):
    import transformers as t
    config = tiny_bert_config(mtok, n_layer=1, n_embd=16)
    torch.manual_seed(0)
    model = t.ModernBertForSequenceClassification(config).eval()
    ids = torch.randint(5, 300, (6, 8))
    labels = torch.tensor([0, 1, 1, 0, 1, 1])
    batches = [dict(input_ids=ids[:4], labels=labels[:4]), dict(input_ids=ids[4:], labels=labels[4:])]
    nats, n = ft.gradient(model, batches, False, 'cpu')
    assert n == 6 and nats == pytest.approx(sum(model(**b).loss.item()*len(b['labels']) for b in batches))
    assert ft.n_scored(batches[0]['labels'], causal=True) == 4


# Recipes

def test_a_recipe_is_looked_through_at_once():
    wrong = dict.fromkeys(('lr', 'epochs', 'n_steps', 'accumulate', 'batch_size', 'eval_every'), 0)
    for field,value in dict(wrong, warmup_steps=-1, decay=-1).items():
        with pytest.raises(ValueError, match=f'{field}={value} must be'): ft.Recipe(**{field: value})
    with pytest.raises(ValueError, match='max_grad_norm=nan'): ft.Recipe(max_grad_norm=math.nan)
    with pytest.raises(TypeError, match='keep_best=1 must be True or False'): ft.Recipe(keep_best=1)
    assert ft.Recipe(max_grad_norm=math.inf, warmup_steps=0).betas == (.9, .99)

def test_changes_of_a_recipe():
    from dataclasses import replace
    mine = ft.Recipe(lr=1e-4, epochs=3)
    assert ft.Recipe.of(mine, lr=2e-4) == replace(mine, lr=2e-4) and mine.lr == 1e-4
    assert ft.Recipe.of() == ft.Recipe()
    with pytest.raises(TypeError, match="learning_rate=1 is nothing that can be set: Recipe has lr, "):
        ft.Recipe.of(learning_rate=1)
    with pytest.raises(TypeError, match='where it is, as after model.to'): ft.Recipe.of(device='cpu')
    with pytest.raises(TypeError, match='only train_loop keeps'): ft.Recipe.of(checkpoints=3)

def test_a_recipe_and_single_fields(tok, data):
    train, _ = ft.lm_loaders(data, tok, batch_size=8)
    runs = [ft.train_loop(new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32)), train, progress=False, **kw)
            for kw in (dict(recipe=ft.Recipe(lr=2e-3, n_steps=4)), dict(lr=2e-3, n_steps=4),
                       dict(recipe=ft.Recipe(lr=1, n_steps=4), lr=2e-3))]
    assert runs[0].steps == runs[1].steps == runs[2].steps
    with pytest.raises(TypeError, match='train holds batches'):
        ft.train_loop(new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32)), train, batch_size=4)
    with pytest.raises(TypeError, match='recipe='):
        ft.train_loop(new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32)), train, recipe='adam')


# The loop itself

def ten_lines(model, batches, lr):
    "The loop of the lesson."
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.)
    losses = []
    model.train()
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses

def test_with_everything_off_ten_lines_are_left(tok, data):
    batches = list(ft.lm_loaders(data, tok, batch_size=8)[0])
    plain = ft.Recipe(schedule='constant', warmup_steps=0, weight_decay=0, betas=(.9, .999),
                      max_grad_norm=math.inf, lr=3e-3)
    one, two, three = (new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32)) for _ in range(3))
    slow = ten_lines(one, batches, lr=3e-3)
    assert ft.train_loop(two, batches, recipe=plain, progress=False).losses == pytest.approx(slow, rel=1e-5)
    for p,q in zip(one.parameters(), two.parameters()): torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)
    other = ft.train_loop(three, batches, recipe=plain, schedule='linear', progress=False).losses
    assert other != pytest.approx(slow, rel=1e-5), 'the schedule is among what was off'

def test_the_same_seed_and_batches_however_they_are_shared_out(tok, data):
    train, _ = ft.lm_loaders(data, tok, batch_size=8)
    def losses(batches, **kw):
        model = new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32, dropout=.1))
        return ft.train_loop(model, batches, progress=False, **kw).losses
    assert losses(train) == losses(train) != losses(train, seed=1)
    ragged = [{'input_ids': list(range(5, 5+n))} for n in (4, 5, 6, 7, 12, 13, 14, 15)]
    collate = LMCollator(tok)
    def without_dropout(batches, **kw):
        model = new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32))
        return ft.train_loop(model, batches*3, progress=False, **kw).losses
    at_once = without_dropout([collate(ragged)])
    in_two = without_dropout([collate(ragged[:4]), collate(ragged[4:])], accumulate=2)
    assert in_two == pytest.approx(at_once, rel=1e-4)

def test_going_on_from_the_weights_alone_is_another_run(tok, data):
    batches = list(ft.lm_loaders(data, tok, batch_size=4)[0])[:10]
    steady = dict(schedule='constant', warmup_steps=0, lr=3e-3, progress=False)
    one, two = (new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32)) for _ in range(2))
    through = ft.train_loop(one, batches, **steady).losses[5:]
    ft.train_loop(two, batches[:5], **steady)
    restarted = ft.train_loop(two, batches[5:], **steady).losses
    assert restarted[0] == pytest.approx(through[0], rel=1e-6)
    assert restarted[1:] != pytest.approx(through[1:], rel=1e-4)

def test_epochs_steps_and_evaluations(lm, tok, data):
    train, valid = ft.lm_loaders(data, tok, batch_size=8)
    h = ft.train_loop(lm, train, valid, n_steps=2*len(train)+1, eval_every=3, progress=False)
    assert [s['epoch'] for s in h.steps] == [0]*len(train) + [1]*len(train) + [2]
    n = 2*len(train) + 1
    assert [e['step'] for e in h.evals] == sorted({*range(0, n, 3), n})
    assert sum(s['tokens'] for s in h.steps[:len(train)]) == len(data['train'])*15
    nats, tokens = (sum(s[k] for s in h.steps[-2:]) for k in ('nats', 'tokens'))
    assert h.train_loss(2) == pytest.approx(nats/tokens)
    odd = ft.train_loop(lm, train, accumulate=2, progress=False)
    assert len(odd.steps) == math.ceil(len(train)/2)

def test_keep_best(lm, tok, data):
    train, valid = ft.lm_loaders(data, tok, batch_size=8)
    h = ft.train_loop(lm, train, valid, epochs=2, lr=.3, keep_best=True, progress=False)
    assert evaluate_lm(lm, valid).cross_entropy == pytest.approx(h.best['valid_loss'])
    assert min(e['valid_loss'] for e in h.evals) == h.best['valid_loss']
    with pytest.raises(ValueError, match='keep_best=True needs valid'):
        ft.train_loop(lm, train, keep_best=True)
    with pytest.raises(ValueError, match='nothing was evaluated'): ft.History().best

def test_used_up_iterators_and_frozen_models(lm, tok, data):
    train, _ = ft.lm_loaders(data, tok, batch_size=8)
    batches = list(train)
    with pytest.raises(TypeError, match='valid=.*read only once'): ft.train_loop(lm, train, iter(batches))
    with pytest.raises(ValueError, match='give n_steps'): ft.train_loop(lm, iter(batches), progress=False)
    with pytest.raises(ValueError, match='used up'):
        ft.train_loop(lm, iter(batches[:1]), n_steps=3, progress=False)
    for p in lm.parameters(): p.requires_grad = False
    with pytest.raises(ValueError, match='everything is frozen'): ft.train_loop(lm, train)
    with pytest.raises(ValueError, match="schedule='x'"): ft.train_loop(lm, train, schedule='x')

def test_what_cannot_be_trained_on(lm, tok, data):
    some = torch.randint(5, 300, (8, 64), generator=torch.Generator().manual_seed(1))
    with pytest.raises(ValueError, match='train=.* nothing in it'): ft.train_loop(lm, [], n_steps=1)
    with pytest.raises(ValueError, match="dict with 'labels'"):
        ft.train_loop(lm, [{'input_ids': some}], progress=False)
    nothing = dict(input_ids=some, labels=torch.full_like(some, -100))
    with pytest.raises(ValueError, match='every label of this update is -100'):
        ft.train_loop(lm, [nothing], progress=False)
    train, _ = ft.lm_loaders(data, tok, batch_size=8)
    with pytest.raises(ValueError, match='epochs=0'): ft.train_loop(lm, train, epochs=0)
    lm.unused = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(ValueError, match='unused is trainable but took no part in the loss'):
        ft.train_loop(lm, train, progress=False)
    del lm.unused
    with torch.no_grad(): lm.transformer.wte.weight[5] = math.nan
    with pytest.raises(FloatingPointError, match='the loss of update 1 is nan'):
        ft.train_loop(lm, train, progress=False)

class Stop(Exception): pass

@pytest.mark.parametrize('how', ['to the end', 'interrupted', 'in an evaluation'])
def test_mode_gradients_and_streams_are_as_before(how, lm, tok, data, monkeypatch):
    train, valid = ft.lm_loaders(data, tok, batch_size=8)
    lm.eval()
    lm.transformer.h[0].train()
    lm.lm_head.weight.grad = torch.ones_like(lm.lm_head.weight)
    modes = [m.training for m in lm.modules()]
    def stop(self, nats, norm): raise Stop
    def evaluate(model): raise Stop
    if how == 'interrupted': monkeypatch.setattr(ft.TrainingRun, 'check', stop)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    own = evaluate if how == 'in an evaluation' else None
    def run(): ft.train_loop(lm, train, n_steps=3, evaluate=own, progress=False)
    if how == 'to the end': run()
    else:
        with pytest.raises(Stop): run()
    assert torch.equal(torch.get_rng_state(), state) and [m.training for m in lm.modules()] == modes
    assert lm.lm_head.weight.grad.eq(1).all() and sum(p.grad is not None for p in lm.parameters()) == 1

def test_a_gradient_that_was_there_before_is_not_learnt_from(tok, data):
    train, _ = ft.lm_loaders(data, tok, batch_size=8)
    clean, dirty = (new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32)) for _ in range(2))
    for p in dirty.parameters(): p.grad = torch.ones_like(p)
    one, two = (ft.train_loop(model, train, n_steps=3, progress=False).steps for model in (clean, dirty))
    assert one == two

def test_evaluations_of_ones_own(lm, tok, data):
    train, _ = ft.lm_loaders(data, tok, batch_size=8)
    found = iter([.5, .7, .9, .9, .6])
    weights = []
    def evaluate(model):
        weights.append(model.lm_head.weight.detach().clone())
        return dict(valid_accuracy=next(found), other=1)
    own = dict(evaluate=evaluate, n_steps=4, eval_every=1, keep_best=True, progress=False)
    h = ft.train_loop(lm, train, criterion='valid_accuracy', **own)
    assert [e['valid_accuracy'] for e in h.evals] == [.5, .7, .9, .9, .6]
    assert h.evals[0].keys() == {'step', 'epoch', 'train_loss', 'valid_accuracy', 'other'}
    assert h.best_by('valid_accuracy')['step'] == 2, 'the first of the best'
    same(lm.lm_head.weight.detach(), weights[2])
    found = iter([.5])
    with pytest.raises(ValueError, match="'valid_loss' is not among what was measured: step, epoch"):
        ft.train_loop(lm, train, **own)
    two = ft.History(evals=[dict(perplexity=3), dict(perplexity=2)])
    assert two.best_by('perplexity') == dict(perplexity=2)

def test_masked_loaders_are_fresh_and_frozen(mtok):
    data = lm_datasets(texts[:40], texts[40:], mtok, 16)
    train, valid = ft.lm_loaders(data, mtok, batch_size=8)
    a, b = list(valid), list(valid)
    for x,y in zip(a, b): same(x['labels'], y['labels'])
    train.batch_sampler.set_epoch(0)
    first = [x['labels'] for x in train]
    train.batch_sampler.set_epoch(0)
    second = [x['labels'] for x in train]
    assert any(not torch.equal(x, y) for x,y in zip(first, second))
    model = new_model(tiny_bert_config(mtok, n_layer=2, n_embd=32))
    h = ft.train_loop(model, train, valid, epochs=1, progress=False)
    assert h.steps[0]['tokens'] == pytest.approx(.15*8*14, abs=25)




def test_what_lesson_50_says_of_its_record():
    found = json.loads((results / "finetune_manual.json").read_text(encoding="utf-8"))
    for kind, losses in found["choice"].items():
        assert list(losses) == [str(rate) for rate in found["settings"]["rates"][kind]]
        best = min(losses, key=losses.get)
        assert best not in (list(losses)[0], list(losses)[-1])  # no rate at the edge
    rows = {}
    for row in found["rows"]: rows.setdefault((row["model"], row["paragraphs"]), []).append(row)
    def mean(name, n, text):
        each = [row[text] for row in rows[name, n]]
        return sum(each) / len(each)
    tuned, mixed = "fine-tuned", "fine-tuned, own writing mixed in"
    assert [len(rows[name, 120]) for name in (tuned, "from scratch", mixed)] == [3, 3, 3]
    untouched = rows["untouched", 0][0]
    assert mean(tuned, 120, "manual") < .85 * untouched["manual"] < mean("from scratch", 120, "manual")
    assert mean(tuned, 480, "manual") < mean(tuned, 120, "manual") < mean(tuned, 30, "manual")
    forgot = [mean(name, 120, "reviews") - untouched["reviews"] for name in (tuned, mixed)]
    assert 0 < forgot[1] < .5 * forgot[0]
    assert mean(mixed, 120, "manual") < 1.03 * mean(tuned, 120, "manual")
