"""Lesson 5: runs that are killed and go on; checkpoints that are refused, damaged or not ours."""
import json, math, os, shutil
from functools import partial

import numpy as np, pytest, torch

from course_lm import finetuning as ft
from course_lm.checkpoints import Checkpoints
from course_lm.labels import BertMasking, LMCollator
from course_lm.models import load_lm
from course_lm.pretraining import pretrain
from tests.toys import a_model, chunks, loaders, same, toks

pytestmark = [pytest.mark.filterwarnings(f'ignore::{kind}') for kind in ('FutureWarning', 'UserWarning')]

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

recipe = ft.Recipe(n_steps=24, eval_every=5, keep_best=True, accumulate=2, lr=3e-3)

def a_run(folder=None, masked=False, model=None, train=None, valid=None, resume=True, **changes):
    made = loaders(masked)
    model = model or a_model(masked)
    kept = Checkpoints(folder, every=3, resume=resume) if folder else None
    given = train or made[0], valid or made[1]
    history = ft.train_loop(model, *given, recipe, checkpoints=kept, progress=False, **changes)
    return history, model

def assert_same_run(one, two):
    (h, m), (k, n) = one, two
    assert h.steps == k.steps and json.dumps(h.evals) == json.dumps(k.evals)
    for a,b in zip(m.parameters(), n.parameters()): same(a, b)

@pytest.mark.parametrize('masked', [False, True], ids=['causal', 'masked'])
def test_any_step(masked, tmp_path, monkeypatch):
    whole = a_run(masked=masked)
    # within an epoch, at its end, before the first checkpoint, twice
    for stops in ([1], [4, 5], [9], [10, 23]):
        folder = tmp_path/str(stops[0])
        for s in stops: killed_at(s, monkeypatch, partial(a_run, folder, masked))
        assert_same_run(whole, a_run(folder, masked))
    at_once, calls = a_run(folder, masked), []
    monkeypatch.setattr(ft.TrainingRun, 'update', lambda *args: calls.append(args))
    assert_same_run(at_once, a_run(folder, masked))
    assert not calls
    assert [p.name for p in folder.iterdir()] == ['step-00000024']
    assert {p.suffix for p in (folder/'step-00000024').iterdir()} == {'.json', '.safetensors'}

kinds = 'shuffled by the global stream', 'numpy masks', 'workers', 'list', 'iterator'

@pytest.mark.parametrize('kind', kinds)
def test_other_loaders(kind, tmp_path, monkeypatch):
    masked = kind == 'numpy masks'
    rows, Loader = chunks(masked)['train'], torch.utils.data.DataLoader
    def train():
        collate = LMCollator(toks[False])
        if masked: collate = LMCollator(toks[True], BertMasking(), generator=np.random.default_rng(1))
        if kind == 'workers':
            order = ft.ShuffledBatches(len(rows), 8, 1)
            return Loader(rows, batch_sampler=order, collate_fn=collate, num_workers=1)
        loader = Loader(rows, 8, shuffle=True, collate_fn=collate)
        if kind == 'list': return [collate(rows.select(range(i, i+8)).to_list()) for i in range(0, 40, 8)]
        once = iter([collate(rows.select(range(i, i+8)).to_list()) for i in range(0, 40, 4)])
        return once if kind == 'iterator' else loader
    n = dict(n_steps=5) if kind == 'iterator' else dict(n_steps=11)
    whole = a_run(masked=masked, train=train(), **n)
    killed_at(4, monkeypatch, lambda: a_run(tmp_path, masked, train=train(), **n))
    assert_same_run(whole, a_run(tmp_path, masked, train=train(), **n))

@pytest.mark.parametrize('changed, said', [
    (lambda: dict(lr=1e-3), r'lr=0\.003 \(now 0\.001\)'),
    (lambda: dict(seed=1), r'seed=42 \(now 1\)'),
    (lambda: dict(schedule='linear'), "schedule='one_cycle'"),
    (lambda: dict(accumulate=1), 'accumulate=2'),
    (lambda: dict(keep_best=False), 'keep_best'),
    (lambda: dict(betas=(.9, .95)), 'betas'),
    (lambda: dict(train=loaders(batch_size=4)[0]), 'train='),
    (lambda: dict(train=ft.lm_loaders(chunks(start=1), toks[False], batch_size=8)[0]), 'train='),
    (lambda: dict(valid=ft.lm_loaders(chunks(start=1), toks[False], batch_size=8)[1]), 'valid='),
    (lambda: dict(model=a_model(dropout=0.)), 'model='),
    (lambda: dict(model=a_model(n_embd=16)), 'model=')])
def test_another_run_is_refused(changed, said, kept):
    with pytest.raises(ValueError, match=said): a_run(kept, **changed())
    with pytest.raises(ValueError, match='take the same settings, another folder, or resume=False'):
        a_run(kept, **changed())

def test_pretrain_says_that_a_checkpoint_is_of_another_loop(kept):
    with pytest.raises(ValueError, match='belongs to another run'):
        pretrain(a_model(), toks[False], np.array(chunks()['train']['input_ids']), n_steps=9, batch_size=4,
                 checkpoints=Checkpoints(kept), progress=False)

@pytest.fixture(scope='module')
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp('kept')
    with pytest.MonkeyPatch.context() as m: killed_at(7, m, lambda: a_run(folder))
    return folder

def test_a_run_begun_anew(kept, tmp_path):
    shutil.copytree(kept, tmp_path/'run')
    h, _ = a_run(tmp_path/'run', lr=1e-3, resume=False)
    assert len(h.steps) == 24 and [p.name for p in (tmp_path/'run').iterdir()] == ['step-00000024']
    assert h.steps[0]['lr'] == pytest.approx(1e-3/25)

def test_only_the_end_may_change(kept, tmp_path):
    shutil.copytree(kept, tmp_path/'run')
    longer, _ = a_run(tmp_path/'run', n_steps=27)
    assert len(longer.steps) == 27 and longer.evals[-1]['step'] == 27
    with pytest.raises(ValueError, match='n_steps=9: this run has made 27 updates already'):
        a_run(tmp_path/'run', n_steps=9)
    epochs, _ = a_run(tmp_path/'run', n_steps=None, epochs=14)
    assert len(epochs.steps) == 14*math.ceil(len(loaders()[0])/2)

def test_what_is_no_place_for_checkpoints(tmp_path):
    (tmp_path/'file').write_text('x')
    with pytest.raises(ValueError, match='it is a file'): Checkpoints(tmp_path/'file')
    with pytest.raises(ValueError, match='every=0 must be'): Checkpoints(tmp_path, every=0)
    with pytest.raises(ValueError, match='seconds=0 must be'): Checkpoints(tmp_path, seconds=0)
    with pytest.raises(ValueError, match='give one of the two'): Checkpoints(tmp_path, every=3, seconds=3)
    empty = Checkpoints(tmp_path/'none')
    assert empty.last() is None and empty.read() is None and not (tmp_path/'none').exists()

def test_half_written_ones_are_passed_over(tmp_path, monkeypatch):
    whole, folder = a_run(), tmp_path/'run'
    killed_at(7, monkeypatch, lambda: a_run(folder))
    def full(*args): raise OSError('No space left on device')
    with monkeypatch.context() as m:
        m.setattr(os, 'fsync', full)
        with pytest.raises(OSError, match='No space left'): a_run(folder)
    assert [p.name for p in folder.iterdir()] == ['step-00000006']
    bad = folder/'step-00000099'
    shutil.copytree(folder/'step-00000006', bad)
    (bad/'optimizer.safetensors').write_bytes((bad/'optimizer.safetensors').read_bytes()[:-9])
    (folder/'step-00000100').mkdir()
    (folder/'.part-step-00000009-0123abcd').mkdir() # as kill -9 leaves it
    (folder/'.part-step-00000009-0123abcd'/'model.safetensors').write_bytes(b'half')
    (folder/'.part-step-00000009-0123abcd'/'.course_lm.json').write_text('{"written_by": "course_lm"}')
    assert Checkpoints(folder).last().name == 'step-00000006'
    with pytest.warns(UserWarning, match='step-00000099.* is passed over, optimizer.safetensors has'):
        assert_same_run(whole, a_run(folder))
    assert [p.name for p in folder.iterdir()] == ['step-00000024']

def test_what_others_wrote_is_never_touched(tmp_path):
    for name in ('step-00000003', 'step-by-step', 'notes'):
        (tmp_path/name).mkdir()
        (tmp_path/name/'mine.txt').write_text('mine')
    (tmp_path/'step-00000001').symlink_to(tmp_path/'notes')
    for resume in (True, False):
        with pytest.raises(ValueError, match='holds mine.txt, which course_lm did not write'):
            a_run(tmp_path, resume=resume)
    shutil.rmtree(tmp_path/'step-00000003')
    a_run(tmp_path, resume=False)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ['notes', 'step-00000001', 'step-00000024', 'step-by-step']
    assert all((tmp_path/n/'mine.txt').read_text() == 'mine' for n in ('notes', 'step-by-step'))

def test_a_checkpoint_is_a_model_and_says_where_it_was(kept):
    model, tokenizer = load_lm(Checkpoints(kept).last())
    assert len(tokenizer) == len(toks[False]) and model.num_parameters() == a_model().num_parameters()
    told = Checkpoints(kept).read()
    assert told['settings']['lr'] == 3e-3 and len(told['state']['steps']) == 6
    assert Checkpoints(kept).read('step-00000005') is None

def test_a_named_one_stays(tmp_path):
    kept = Checkpoints(tmp_path, every=10)
    train, valid = loaders()
    class Named(Checkpoints):
        def save(self, run, name=None):
            if run.done == 10: super().save(run, 'before')
            return super().save(run, name)
    ft.train_loop(a_model(), train, valid, n_steps=20, checkpoints=Named(tmp_path, every=10), progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['before', 'step-00000020']
    assert len(kept.read('before')['state']['steps']) == 10
    class FromThere(Checkpoints):
        def open(self, run, name=None): return super().open(run, 'before')
    there = FromThere(tmp_path, every=10)
    h = ft.train_loop(a_model(), train, valid, n_steps=12, checkpoints=there, progress=False)
    assert len(h.steps) == 12

def test_by_the_clock(tmp_path, monkeypatch):
    saved, kept = [], Checkpoints(tmp_path, seconds=1e4)
    monkeypatch.setattr(Checkpoints, 'save', lambda self, run: saved.append(run.done))
    ft.train_loop(a_model(), loaders()[0], n_steps=6, checkpoints=kept, progress=False)
    assert saved == [6]
    kept = Checkpoints(tmp_path, seconds=1e-9)
    ft.train_loop(a_model(), loaders()[0], n_steps=6, checkpoints=kept, progress=False)
    assert saved == [6, *range(1, 7)]

def test_a_module_that_transformers_did_not_make(tmp_path):
    class Bigram(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(300, 300)
            self.also = self.table # shared
        def forward(self, input_ids, labels, **kw):
            logits = self.also(input_ids)[:, :-1]
            class Out: loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
            return Out
    def run(n):
        settings = dict(n_steps=n, schedule='constant', progress=False)
        return ft.train_loop(Bigram(), loaders()[0], checkpoints=Checkpoints(tmp_path), **settings)
    run(4)
    assert len(run(8).steps) == 8


def test_a_generation_config_that_is_invalid_stops_no_run(tmp_path):
    model = a_model()
    model.generation_config.temperature = .6
    a_run(tmp_path/'kept', model=model)
    model.generation_config.num_beams, model.generation_config.num_return_sequences = 2, 3
    before = model.get_input_embeddings().weight.clone()
    with pytest.raises(ValueError, match='model.generation_config cannot be saved'):
        a_run(tmp_path/'other', model=model)
    same(before, model.get_input_embeddings().weight)
