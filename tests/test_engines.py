"""Lesson 5: one trajectory in four engines; the check of one batch."""
import json, math, os, random, subprocess, sys
from pathlib import Path

import numpy as np, pytest, torch

from course_lm import finetuning as ft
from course_lm.engines import check_one_batch, train_accelerate, train_fastai, train_trainer
from course_lm.labels import BertMasking, LMCollator
from course_lm.learner import lm_dataloaders
from tests.toys import a_model, chunks, loaders, same, texts, toks

pytestmark = [pytest.mark.filterwarnings(f'ignore::{kind}') for kind in ('FutureWarning', 'UserWarning')]
engines = dict(train_loop=ft.train_loop, accelerate=train_accelerate,
               trainer=train_trainer, fastai=train_fastai)

def ragged(masked=False):
    "Batches of examples of unequal lengths: the counts of scored tokens differ."
    rows = [{'input_ids': toks[masked](t[:10 + 7*(i % 6)])['input_ids']} for i,t in enumerate(texts)]
    collate = LMCollator(toks[masked], BertMasking(.4) if masked else None, seed=1)
    return [collate(rows[i:i+4]) for i in range(0, len(rows), 4)]


# Four engines

settings = {
    'plain': dict(epochs=2, lr=1e-3),
    'accumulate': dict(epochs=4, lr=3e-3, accumulate=3, schedule='linear', warmup_steps=2),
    'clipped, and stopped within an epoch': dict(
        n_steps=19, lr=1e-2, max_grad_norm=.1, schedule='cosine', betas=(.9, .999), weight_decay=.1),
    'evaluated, best kept': dict(
        n_steps=12, lr=3e-2, accumulate=2, eval_every=3, keep_best=True, schedule='constant', warmup_steps=0)}

def felt(model):
    """Every parameter that the loss feels. The keys' bias is none: it adds one number to all scores of
    a query, softmax takes it out again, and Adam blows the rounding error of its zero gradient up to full
    steps."""
    for name,p in model.named_parameters():
        if not name.endswith('c_attn.bias'): yield p
        else: yield from p.chunk(3)[::2]

@pytest.mark.parametrize('what', settings)
@pytest.mark.parametrize('masked', [False, True], ids=['causal', 'masked'])
def test_one_trajectory(masked, what):
    out, s = {}, settings[what]
    for name,f in engines.items():
        model, (train, valid) = a_model(masked), loaders(masked)
        out[name] = f(model, train, valid if 'eval_every' in s else None, progress=False, **s), model
    (ours, plain), *rest = out.values()
    assert ours.losses[-1] != ours.losses[0] and len(ours.steps) > 8
    for history,model in rest:
        np.testing.assert_allclose(history.losses, ours.losses, rtol=1e-5)
        for key in ('step', 'epoch', 'tokens', 'lr'):
            assert [x[key] for x in history.steps] == pytest.approx([x[key] for x in ours.steps])
        norms = [[x['grad_norm'] for x in h.steps] for h in (history, ours)]
        np.testing.assert_allclose(*norms, rtol=1e-3)
        assert [e['step'] for e in history.evals] == [e['step'] for e in ours.evals]
        scores = [[e['valid_loss'] for e in h.evals] for h in (history, ours)]
        np.testing.assert_allclose(*scores, rtol=1e-5)
        for a,b in zip(felt(model), felt(plain)): torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    if 'clipped' in what: assert max(x['grad_norm'] for x in ours.steps) > .1

@pytest.mark.parametrize('masked', [False, True], ids=['causal', 'masked'])
def test_unequal_counts_weigh_by_tokens(masked):
    batches = ragged(masked)
    assert len({ft.n_scored(b['labels'], not masked) for b in batches}) > 3
    same_run = dict(n_steps=9, accumulate=3, lr=3e-3, progress=False)
    runs = [f(a_model(masked), batches, **same_run) for f in engines.values()]
    for h in runs[1:]: np.testing.assert_allclose(h.losses, runs[0].losses, rtol=1e-5)

@pytest.mark.parametrize('name', list(engines)[1:])
def test_engines_leave_no_trace_and_refuse(name):
    f, model = engines[name], a_model()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    f(model, loaders()[0], n_steps=2, progress=False)
    same(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    np.testing.assert_array_equal(np.random.get_state()[1], before[2])
    with pytest.raises(TypeError, match='only train_loop keeps checkpoints'):
        f(model, loaders()[0], checkpoints='x')
    with pytest.raises(TypeError, match='learning_rate=1 is nothing that can be set'):
        f(model, loaders()[0], learning_rate=1)
    with pytest.raises(ValueError, match='epochs=0'): f(model, loaders()[0], epochs=0)
    with pytest.raises(ValueError, match='every label of this update is -100'):
        ids = torch.ones(2, 4, dtype=torch.long)
        f(model, [dict(input_ids=ids, labels=torch.full((2, 4), -100))], progress=False)
    with torch.no_grad(): model.transformer.wte.weight[5] = math.nan
    with pytest.raises(FloatingPointError, match='the loss of update 1 is nan'):
        f(model, loaders()[0], progress=False)

two_processes = '''
import json, os, torch
import torch.distributed.nn # before the group: its functions keep the group that they find, and its threads
from course_lm import finetuning as ft
from course_lm.models import new_model, tiny_gpt_config
from course_lm.engines import train_accelerate
from course_lm.data import train_tokenizer
tok = train_tokenizer(['the name is bound to the value of the object']*9, 270)
def ids(i): return torch.randint(5, 260, (6 + i % 9,), generator=torch.Generator().manual_seed(i)).tolist()
rows = [{'input_ids': ids(i)} for i in range(32)]
train, valid = ft.lm_loaders((rows, rows), tok, batch_size=4)
more = dict(accumulate=2) if os.environ.get('WORLD_SIZE', '1') == '1' else {}
engine = ft.train_loop if more else train_accelerate
model = new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32))
h = engine(model, train, valid, epochs=2, lr=3e-3, progress=False, **more)
found = [h.losses, [s['tokens'] for s in h.steps], [e['valid_loss'] for e in h.evals]]
if os.environ.get('RANK', '0') == '0': print(json.dumps(found), flush=True)
if not more: torch.distributed.destroy_process_group()
'''

@pytest.mark.slow
def test_accelerate_on_two_processes_is_accumulation_over_two_batches(tmp_path):
    (tmp_path/'run.py').write_text(two_processes)
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(Path(ft.__file__).parents[1])}
    def run(*how):
        command = [sys.executable, *how, tmp_path/'run.py']
        out = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
        assert out.returncode == 0, out.stderr
        return json.loads(out.stdout.strip().splitlines()[-1])
    one, two = run(), run('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2')
    assert one[1] == two[1] and len(one[0]) == 8
    np.testing.assert_allclose(two[0], one[0], rtol=1e-5)
    np.testing.assert_allclose(two[2], one[2], rtol=1e-5)


# The check of one batch

def wrong_rows(frame): return frame.loc[~frame.ok, 'check'].tolist()

@pytest.mark.parametrize('masked', [False, True], ids=['causal', 'masked'])
def test_a_good_batch(masked):
    model, (train, _) = a_model(masked, dropout=0.), loaders(masked)
    batch = next(iter(train))
    before, state = [p.detach().clone() for p in model.parameters()], torch.get_rng_state()
    frame = check_one_batch(model, batch, untrained=True, n_steps=80, lr=1e-2)
    assert wrong_rows(frame) == [] and len(frame) == 9, frame
    for a,b in zip(before, model.parameters()): same(a, b)
    same(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())

def test_what_is_wrong_is_named():
    batch = next(iter(loaders()[0]))
    def change(**kw): return wrong_rows(check_one_batch(a_model(dropout=0.), {**batch, **kw}, n_steps=3))
    ids, labels = batch['input_ids'], batch['labels']
    assert change(labels=labels[:, 1:]) == ['shape']
    assert change(input_ids=ids.clone().fill_(300)) == ['ids']
    long = ids.repeat(1, 20)
    assert change(input_ids=long, labels=long, attention_mask=torch.ones_like(long)) == ['length']
    assert 'scored tokens' in change(labels=torch.full_like(labels, -100))
    short = torch.cat([torch.ones_like(ids[:, 2:]), torch.zeros_like(ids[:, :2])], 1)
    assert 'scored padding' in change(attention_mask=short)
    shifted = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], -100)], 1)
    assert 'labels are the inputs' in change(labels=shifted)
    assert change() == ['learns one batch']
    frozen = a_model(dropout=0.).requires_grad_(False)
    assert wrong_rows(check_one_batch(frozen, batch)) == ['gradient']
    unused = a_model(dropout=0.)
    unused.unused = torch.nn.Parameter(torch.zeros(3))
    frame = check_one_batch(unused, batch, n_steps=3)
    assert 'gradient' in wrong_rows(frame) and 'unused' in frame.set_index('check').hint['gradient']
    far = a_model(dropout=0.)
    with torch.no_grad(): far.transformer.wte.weight.mul_(40)
    assert 'loss' in wrong_rows(check_one_batch(far, batch, n_steps=3))
    masked = next(iter(loaders(True)[0]))
    told = masked['labels'].where(masked['labels'] != -100, masked['input_ids'])
    readable = check_one_batch(a_model(True), {**masked, 'input_ids': told}, n_steps=3)
    assert 'asked tokens still readable' in wrong_rows(readable)
    dls = lm_dataloaders(chunks(), toks[False], batch_size=8, device='cpu')
    assert len(check_one_batch(a_model(dropout=0.), dls, n_steps=3)) == 9


def test_one_batch_of_an_encoder_decoder():
    from transformers import T5Config, T5ForConditionalGeneration
    from course_lm.denoising import SpanCorruption
    from .made import T5
    size = dict(d_model=16, d_kv=8, num_layers=1, num_heads=2, d_ff=32)
    ids = dict(pad_token_id=T5.pad_token_id, eos_token_id=0, decoder_start_token_id=T5.pad_token_id)
    model = T5ForConditionalGeneration(T5Config(vocab_size=len(T5), **size, **ids))
    batch = LMCollator(T5, SpanCorruption(), seed=1)([T5('the cat sat on the mat')['input_ids']]*2)
    assert batch['input_ids'].shape != batch['labels'].shape
    frame = check_one_batch(model, batch, n_steps=2).set_index('check')
    assert frame.ok['shape'] and frame.ok['scored tokens'] and frame.ok['gradient']
