"""Lesson 5: one trajectory in four engines; runs that are killed and go on; groups of layers; the check of one batch."""
import json, math, os, random, signal, subprocess, sys, time
from pathlib import Path

import numpy as np, pytest, torch
import datasets

from course_lm import finetuning as ft
from course_lm.models import layer_groups, load_lm, new_model, tiny_bert_config, tiny_gpt_config
from course_lm.engines import check_one_batch, train_accelerate, train_fastai, train_trainer
from course_lm.learner import lm_block, lm_dataloaders, lm_learner
from course_lm.chunking import lm_datasets
from course_lm.data import train_tokenizer
from course_lm.labels import BertMasking, LMCollator
from course_lm.perplexity import evaluate_lm

datasets.disable_progress_bars()
pytestmark = [pytest.mark.filterwarnings('ignore::FutureWarning'), pytest.mark.filterwarnings('ignore::UserWarning')]
texts = [f'The name {a} is bound to the {b} of the {c}, and not to its {d}.' for a in 'xyz' for b in ('value', 'type', 'class')
         for c in ('object', 'module', 'function') for d in ('scope', 'frame')]
toks = {masked: train_tokenizer(texts, 300, masked=masked) for masked in (False, True)}
engines = dict(train_loop=ft.train_loop, accelerate=train_accelerate, trainer=train_trainer, fastai=train_fastai)
def same(a, b): torch.testing.assert_close(a, b, rtol=0, atol=0)

def a_model(masked=False, dropout=.1, seed=42):
    config = tiny_bert_config if masked else tiny_gpt_config
    model = new_model(config(toks[masked], n_layer=2, n_embd=32), seed=seed)
    for m in model.modules():
        if isinstance(m, torch.nn.Dropout): m.p = dropout
    return model

def loaders(masked=False, batch_size=8):
    return ft.lm_loaders(lm_datasets(texts[:40], texts[40:], toks[masked], 16), toks[masked], batch_size=batch_size)

def ragged(masked=False):
    "Batches of examples of unequal lengths: the counts of scored tokens differ."
    rows = [{'input_ids': toks[masked](t[:10 + 7*(i % 6)])['input_ids']} for i,t in enumerate(texts)]
    collate = LMCollator(toks[masked], BertMasking(.4) if masked else None, seed=1)
    return [collate(rows[i:i+4]) for i in range(0, len(rows), 4)]


# Four engines

settings = {
    'plain': dict(epochs=2, lr=1e-3),
    'accumulate': dict(epochs=4, lr=3e-3, accumulate=3, schedule='linear', warmup_steps=2),
    'clipped, and stopped within an epoch': dict(n_steps=19, lr=1e-2, max_grad_norm=.1, schedule='cosine', betas=(.9, .999), weight_decay=.1),
    'evaluated, best kept': dict(n_steps=12, lr=3e-2, accumulate=2, eval_every=3, keep_best=True, schedule='constant', warmup_steps=0)}

def felt(model):
    "Every parameter that the loss feels. The keys' bias is none: it adds one number to all scores of a query, softmax takes it out again, and Adam blows the rounding error of its zero gradient up to full steps."
    for name,p in model.named_parameters():
        if name.endswith('c_attn.bias'): q, _, v = p.chunk(3); yield from (q, v)
        else: yield p

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
        for key in ('step', 'epoch', 'tokens', 'lr'): assert [x[key] for x in history.steps] == pytest.approx([x[key] for x in ours.steps])
        np.testing.assert_allclose([x['grad_norm'] for x in history.steps], [x['grad_norm'] for x in ours.steps], rtol=1e-3)
        assert [e['step'] for e in history.evals] == [e['step'] for e in ours.evals]
        np.testing.assert_allclose([e['valid_loss'] for e in history.evals], [e['valid_loss'] for e in ours.evals], rtol=1e-5)
        for a,b in zip(felt(model), felt(plain)): torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    if 'clipped' in what: assert max(x['grad_norm'] for x in ours.steps) > .1

@pytest.mark.parametrize('masked', [False, True], ids=['causal', 'masked'])
def test_unequal_counts_weigh_by_tokens(masked):
    batches = ragged(masked)
    assert len({ft._n_scored(b['labels'], not masked) for b in batches}) > 3
    runs = [f(a_model(masked), batches, n_steps=9, accumulate=3, lr=3e-3, progress=False) for f in engines.values()]
    for h in runs[1:]: np.testing.assert_allclose(h.losses, runs[0].losses, rtol=1e-5)

@pytest.mark.parametrize('name', list(engines)[1:])
def test_engines_leave_no_trace_and_refuse(name):
    f, model = engines[name], a_model()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    f(model, loaders()[0], n_steps=2, progress=False)
    same(torch.get_rng_state(), before[0]); assert random.getstate() == before[1]
    np.testing.assert_array_equal(np.random.get_state()[1], before[2])
    with pytest.raises(TypeError, match='only train_loop keeps checkpoints'): f(model, loaders()[0], checkpoint='x')
    with pytest.raises(TypeError, match='has no learning_rate'): f(model, loaders()[0], learning_rate=1)
    with pytest.raises(ValueError, match='epochs=0'): f(model, loaders()[0], epochs=0)
    with pytest.raises(ValueError, match='every label of this update is -100'):
        f(model, [dict(input_ids=torch.ones(2, 4, dtype=torch.long), labels=torch.full((2, 4), -100))], progress=False)
    with torch.no_grad(): model.transformer.wte.weight[5] = math.nan
    with pytest.raises(FloatingPointError, match='the loss of update 1 is nan'): f(model, loaders()[0], progress=False)

two_processes = '''
import json, os, torch
from course_lm import finetuning as ft
from course_lm.models import layer_groups, load_lm
from course_lm.engines import check_one_batch, train_accelerate, train_fastai, train_trainer
from course_lm.learner import lm_block, lm_dataloaders, lm_learner, transformer_splitter
from course_lm.data import train_tokenizer
tok = train_tokenizer(['the name is bound to the value of the object']*9, 270)
rows = [{'input_ids': torch.randint(5, 260, (6 + i % 9,), generator=torch.Generator().manual_seed(i)).tolist()} for i in range(32)]
train, valid = ft.lm_loaders((rows, rows), tok, batch_size=4)
more = dict(accumulate=2) if os.environ.get('WORLD_SIZE', '1') == '1' else {}
engine = ft.train_loop if more else train_accelerate
h = engine(new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32)), train, valid, epochs=2, lr=3e-3, progress=False, **more)
if os.environ.get('RANK', '0') == '0': print(json.dumps([h.losses, [s['tokens'] for s in h.steps], [e['valid_loss'] for e in h.evals]]))
'''

def test_accelerate_on_two_processes_is_accumulation_over_two_batches(tmp_path):
    (tmp_path/'run.py').write_text(two_processes)
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(Path(ft.__file__).parents[1])}
    def run(*how):
        out = subprocess.run([sys.executable, *how, tmp_path/'run.py'], capture_output=True, text=True, env=env, cwd=tmp_path)
        assert out.returncode == 0, out.stderr
        return json.loads(out.stdout.strip().splitlines()[-1])
    one, two = run(), run('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2')
    assert one[1] == two[1] and len(one[0]) == 8
    np.testing.assert_allclose(two[0], one[0], rtol=1e-5)
    np.testing.assert_allclose(two[2], one[2], rtol=1e-5)


# Checkpoints

class Killed(Exception): pass

def killed_at(step, monkeypatch, f):
    "Run `f` until so many updates were made, then stop it."
    real = ft.TrainingRun.update
    def update(self, *args):
        if self.done == step: raise Killed
        return real(self, *args)
    with monkeypatch.context() as m:
        m.setattr(ft.TrainingRun, 'update', update)
        with pytest.raises(Killed): f()

def a_run(folder=None, masked=False, model=None, train=None, valid=None, **kw):
    made = loaders(masked)
    kw = dict(n_steps=24, eval_every=5, keep_best=True, accumulate=2, lr=3e-3, progress=False, **(dict(checkpoint=folder, save_every=3) if folder else {})) | kw
    model = model or a_model(masked)
    return ft.train_loop(model, train or made[0], valid or made[1], **kw), model

def assert_same_run(one, two):
    (h, m), (k, n) = one, two
    assert h.steps == k.steps and json.dumps(h.evals) == json.dumps(k.evals)
    for a,b in zip(m.parameters(), n.parameters()): same(a, b)

@pytest.mark.parametrize('masked', [False, True], ids=['causal', 'masked'])
def test_any_step(masked, tmp_path, monkeypatch):
    whole = a_run(masked=masked)
    for stops in ([1], [4, 5], [9], [10, 23]): # within an epoch, at its end, before the first checkpoint, twice
        folder = tmp_path/str(stops[0])
        for s in stops: killed_at(s, monkeypatch, lambda: a_run(folder, masked))
        assert_same_run(whole, a_run(folder, masked))
    at_once, calls = a_run(folder, masked), []
    monkeypatch.setattr(ft.TrainingRun, 'update', lambda *args: calls.append(args))
    assert_same_run(at_once, a_run(folder, masked)); assert not calls
    assert [p.name for p in folder.iterdir()] == ['step-00000024']
    assert {p.suffix for p in (folder/'step-00000024').iterdir()} == {'.json', '.safetensors'}

@pytest.mark.parametrize('kind', ['shuffled by the global stream', 'numpy masks', 'workers', 'list', 'iterator'])
def test_other_loaders(kind, tmp_path, monkeypatch):
    masked = kind == 'numpy masks'
    rows, Loader = lm_datasets(texts[:40], texts[40:], toks[masked], 16)['train'], torch.utils.data.DataLoader
    def train():
        collate = LMCollator(toks[masked], BertMasking() if masked else None, generator=np.random.default_rng(1) if masked else None)
        if kind == 'workers': return Loader(rows, batch_sampler=ft.ShuffledBatches(len(rows), 8, 1), collate_fn=collate, num_workers=1)
        loader = Loader(rows, 8, shuffle=True, collate_fn=collate)
        if kind == 'list': return [collate(rows.select(range(i, i+8)).to_list()) for i in range(0, 40, 8)]
        return iter([collate(rows.select(range(i, i+8)).to_list()) for i in range(0, 40, 4)]) if kind == 'iterator' else loader
    n = dict(n_steps=5) if kind == 'iterator' else dict(n_steps=11)
    whole = a_run(masked=masked, train=train(), **n)
    killed_at(4, monkeypatch, lambda: a_run(tmp_path, masked, train=train(), **n))
    assert_same_run(whole, a_run(tmp_path, masked, train=train(), **n))

def test_another_run_is_refused(tmp_path, monkeypatch):
    killed_at(7, monkeypatch, lambda: a_run(tmp_path))
    other_rows = ft.lm_loaders(lm_datasets(texts[1:41], texts[41:], toks[False], 16), toks[False], batch_size=8)
    for kw,said in [(dict(lr=1e-3), r'lr=0\.003 \(now 0\.001\)'), (dict(seed=1), r'seed=42 \(now 1\)'), (dict(n_steps=25), r'n_steps=24 \(now 25\)'),
                    (dict(schedule='linear'), "schedule='one_cycle'"), (dict(accumulate=1), 'accumulate=2'), (dict(keep_best=False), 'keep_best'),
                    (dict(betas=(.9, .95)), 'betas'), (dict(train=loaders(batch_size=4)[0]), 'train='), (dict(train=other_rows[0]), 'train='), (dict(valid=other_rows[1]), 'valid='),
                    (dict(model=a_model(dropout=0.).float()), None), (dict(model=new_model(tiny_gpt_config(toks[False], n_layer=2, n_embd=16))), 'model=')]:
        if said is None: continue
        with pytest.raises(ValueError, match=said): a_run(tmp_path, **kw)
    with pytest.raises(ValueError, match='take the same settings, another folder, or resume=False'): a_run(tmp_path, lr=1e-3)
    h, _ = a_run(tmp_path, lr=1e-3, resume=False)
    assert len(h.steps) == 24 and [p.name for p in tmp_path.iterdir()] == ['step-00000024']
    (tmp_path/'file').write_text('x')
    with pytest.raises(ValueError, match='is a file'): a_run(tmp_path/'file')
    with pytest.raises(ValueError, match='save_every=0'): a_run(tmp_path, save_every=0)
    with pytest.raises(ValueError, match='needs checkpoint'): a_run(save_every=3)

def test_half_written_ones_are_passed_over(tmp_path, monkeypatch):
    whole, folder = a_run(), tmp_path/'run'
    killed_at(7, monkeypatch, lambda: a_run(folder))
    real = os.fsync
    def full(*args): raise OSError('No space left on device')
    with monkeypatch.context() as m:
        m.setattr(os, 'fsync', full)
        with pytest.raises(OSError): a_run(folder)
    names = sorted(p.name for p in folder.iterdir())
    assert [n[:6] for n in names] == ['.half-', 'step-0'] and names[1] == 'step-00000006'
    bad = folder/'step-00000099'
    import shutil
    shutil.copytree(folder/'step-00000006', bad)
    (bad/'optimizer.safetensors').write_bytes((bad/'optimizer.safetensors').read_bytes()[:-9])
    (folder/'step-00000100').mkdir()
    assert_same_run(whole, a_run(folder))
    assert [p.name for p in folder.iterdir()] == ['step-00000024']

# Groups of layers

def shapes():
    import transformers as t
    small = dict(vocab_size=300, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64)
    return {'GPT2': t.GPT2Config(vocab_size=300, n_embd=32, n_layer=3, n_head=2, n_positions=64), 'Bert': t.BertConfig(**small), 'Roberta': t.RobertaConfig(**small),
            'DistilBert': t.DistilBertConfig(vocab_size=300, dim=32, n_layers=3, n_heads=2, hidden_dim=64, max_position_embeddings=64),
            'ModernBert': t.ModernBertConfig(**small, pad_token_id=0, bos_token_id=1, eos_token_id=1, cls_token_id=1, sep_token_id=2)}

@pytest.mark.parametrize('head', ['LM', 'ForSequenceClassification', 'Model'])
@pytest.mark.parametrize('shape', ['GPT2', 'Bert', 'Roberta', 'DistilBert', 'ModernBert'])
def test_layer_groups(shape, head):
    import transformers as t
    suffix = head if head != 'LM' else 'LMHeadModel' if shape == 'GPT2' else 'ForMaskedLM'
    model = getattr(t, shape + suffix)(shapes()[shape])
    groups = layer_groups(model)
    names = {id(p): n for n,p in model.named_parameters()}
    assert list(groups)[:4] == ['embeddings', 'block 0', 'block 1', 'block 2'] and set(groups) <= {'embeddings', 'block 0', 'block 1', 'block 2', 'head'}
    found = [id(p) for g in groups.values() for p in g]
    assert sorted(found) == sorted(names) and len(set(found)) == len(found)
    assert any(p is model.get_input_embeddings().weight for p in groups['embeddings'])
    if head == 'LM': assert any(p is model.get_output_embeddings().weight for p in groups['embeddings']), 'tied: used first at the input'
    assert all('mbedding' in names[id(p)] or names[id(p)].split('.')[-2] in ('wte', 'wpe') for p in groups['embeddings'])
    for i in range(3): assert all(f'.{i}.' in names[id(p)] for p in groups[f'block {i}']) and len(groups[f'block {i}']) == len(groups['block 1']) + (shape == 'ModernBert' and i == 0)*-1
    if head == 'ForSequenceClassification': assert any('classifier' in names[id(p)] or 'score' in names[id(p)] for p in groups['head'])
    assert [len(g) for g in layer_groups(torch.nn.ModuleDict({'lm': model})).values()] == [len(g) for g in groups.values()]

def test_models_without_blocks():
    with pytest.raises(ValueError, match='no nn.ModuleList of blocks'): layer_groups(torch.nn.Linear(2, 2))

@pytest.mark.parametrize('shape', ['GPT2', 'Bert', 'Roberta', 'DistilBert', 'ModernBert'])
def test_frozen_groups_do_not_move(shape):
    import transformers as t
    masked = shape != 'GPT2'
    torch.manual_seed(0)
    model = getattr(t, shape + ('ForMaskedLM' if masked else 'LMHeadModel'))(shapes()[shape])
    dls = lm_dataloaders(lm_datasets(texts[:40], texts[40:], toks[masked], 16), toks[masked], batch_size=8, device='cpu')
    learn = lm_learner(dls, model)
    groups = list(layer_groups(model).values())
    assert len(learn.splitter(learn.model)) == len(groups)
    with learn.no_bar(), learn.no_logging():
        for n in (3, 2, 0):
            learn.freeze_to(n)
            before = [[p.detach().clone() for p in g] for g in groups]
            learn.fit_one_cycle(1, slice(1e-4, 1e-2))
            moved = [any(not torch.equal(a, b) for a,b in zip(old, g)) for old,g in zip(before, groups)]
            assert moved == [i >= n for i in range(len(groups))]
    rates = [h['lr'] for h in learn.opt.hypers]
    assert rates == sorted(rates) and rates[-1] > 50*rates[0]


# fastai

def test_the_data_block_gives_the_same_batches():
    from fastai.data.block import DataBlock
    from fastai.data.transforms import IndexSplitter
    for masked in (False, True):
        data = lm_datasets(texts[:40], texts[40:], toks[masked], 16)
        rows, n = datasets.concatenate_datasets([data['train'], data['valid']]), len(data['train'])
        block = DataBlock(blocks=lm_block(toks[masked]), splitter=IndexSplitter(range(n, len(rows))))
        a, b = block.dataloaders(rows, batch_size=8, device='cpu'), lm_dataloaders(data, toks[masked], batch_size=8, device='cpu')
        for i in (0, 1):
            one, two = list(a[i]), list(b[i])
            assert len(one) == len(two) > 2
            for (x, y), (z, w) in zip(one, two):
                for k in x: same(x[k], z[k])
                same(y, w)
        again = a[1].new()
        same(again.one_batch()[1], a[1].one_batch()[1])
        learn = lm_learner(a, a_model(masked))
        with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
        assert learn.validate()[0] == pytest.approx(evaluate_lm(learn.lm, loaders(masked)[1]).cross_entropy, rel=1e-4)

def test_a_learner_exports_a_folder_without_a_pickle(tmp_path):
    dls = lm_dataloaders(lm_datasets(texts[:40], texts[40:], toks[False], 16), toks[False], batch_size=8, device='cpu')
    learn = lm_learner(dls, a_model(), path=tmp_path)
    folder = learn.export('lm')
    assert {p.suffix for p in folder.iterdir()} <= {'.json', '.safetensors'} and folder.parent == tmp_path
    back, _ = load_lm(folder)
    for a,b in zip(back.parameters(), learn.lm.parameters()): same(a, b)

def test_losses_and_half_precision():
    from fastai.callback.core import Callback
    dls = lm_dataloaders(lm_datasets(texts[:40], texts[40:], toks[False], 16), toks[False], batch_size=8, device='cpu')
    class Half(Callback): # what to_bf16 does on a GPU
        order = 10
        def before_batch(self): self.c = torch.autocast('cpu', torch.bfloat16); self.c.__enter__()
        def after_pred(self):
            from fastai.torch_core import to_float
            self.learn.pred = to_float(self.pred)
        def after_loss(self): self.c.__exit__(None, None, None)
    out = {}
    for name,kw in {'model': dict(loss='model'), 'fastai': dict(loss='fastai'), 'half': dict(cbs=[Half()])}.items():
        learn = lm_learner(dls, a_model(dropout=0.), **kw)
        with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
        out[name] = learn.recorder.values[-1]
    assert list(out['model']) == pytest.approx(list(out['fastai']), rel=1e-4)
    assert out['half'][1] == pytest.approx(out['model'][1], rel=2e-2) and out['half'][1] != out['model'][1]

@pytest.mark.parametrize('objective', ['causal', 'masked'])
def test_the_shipped_models_in_fastai(objective):
    lm, tok = load_lm('tiny', objective)
    groups = layer_groups(lm)
    assert list(groups) == ['embeddings', 'block 0', 'block 1', 'block 2', 'block 3', 'head']
    assert sum(p.numel() for g in groups.values() for p in g) == sum(p.numel() for p in lm.parameters())
    data = lm_datasets(texts[:40], texts[40:], tok, 32)
    learn = lm_learner(lm_dataloaders(data, tok, batch_size=8, device='cpu'), lm)
    score = lambda: evaluate_lm(lm, ft.lm_loaders(data, tok, batch_size=8)[1]).cross_entropy
    knew, before = score(), {k: [p.detach().clone() for p in g] for k,g in groups.items()}
    assert knew < math.log(len(tok)), 'a model that has read knows something'
    learn.freeze_to(-2)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2, 1e-3)
    assert [k for k,g in groups.items() if any(not torch.equal(a, b) for a,b in zip(g, before[k]))] == ['block 3', 'head']
    assert learn.recorder.values[-1][1] == pytest.approx(score(), rel=1e-4) and score() < knew


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
    change = lambda **kw: wrong_rows(check_one_batch(a_model(dropout=0.), {**batch, **kw}, n_steps=3))
    ids, labels = batch['input_ids'], batch['labels']
    assert change(labels=labels[:, 1:]) == ['shape']
    assert change(input_ids=ids.clone().fill_(300)) == ['ids']
    assert change(input_ids=ids.repeat(1, 20), labels=ids.repeat(1, 20), attention_mask=torch.ones_like(ids).repeat(1, 20)) == ['length']
    assert 'scored tokens' in change(labels=torch.full_like(labels, -100))
    assert 'scored padding' in change(attention_mask=torch.cat([torch.ones_like(ids[:, 2:]), torch.zeros_like(ids[:, :2])], 1))
    assert 'labels are the inputs' in change(labels=torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], -100)], 1))
    assert change() == ['learns one batch']
    frozen = a_model(dropout=0.).requires_grad_(False)
    assert wrong_rows(check_one_batch(frozen, batch)) == ['gradient']
    unused = a_model(dropout=0.); unused.unused = torch.nn.Parameter(torch.zeros(3))
    frame = check_one_batch(unused, batch, n_steps=3)
    assert 'gradient' in wrong_rows(frame) and 'unused' in frame.set_index('check').hint['gradient']
    far = a_model(dropout=0.)
    with torch.no_grad(): far.transformer.wte.weight.mul_(40)
    assert 'loss' in wrong_rows(check_one_batch(far, batch, n_steps=3))
    masked = next(iter(loaders(True)[0]))
    told = masked['labels'].where(masked['labels'] != -100, masked['input_ids'])
    assert 'asked tokens still readable' in wrong_rows(check_one_batch(a_model(True), {**masked, 'input_ids': told}, n_steps=3))
    dls = lm_dataloaders(lm_datasets(texts[:40], texts[40:], toks[False], 16), toks[False], batch_size=8, device='cpu')
    assert len(check_one_batch(a_model(dropout=0.), dls, n_steps=3)) == 9
