"""Lesson 5: fastai, and groups of layers."""
import math

import datasets, pytest, torch

from course_lm import finetuning as ft
from course_lm.chunking import lm_datasets
from course_lm.learner import lm_block, lm_dataloaders, lm_learner
from course_lm.models import layer_groups, load_lm
from course_lm.perplexity import evaluate_lm
from tests.toys import a_model, chunks, loaders, same, texts, toks

pytestmark = [pytest.mark.filterwarnings(f'ignore::{kind}') for kind in ('FutureWarning', 'UserWarning')]


# Groups of layers

def shapes():
    import transformers as t
    small = dict(vocab_size=300, hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
                 intermediate_size=64, max_position_embeddings=64)
    distil = dict(vocab_size=300, dim=32, n_layers=3, n_heads=2, hidden_dim=64, max_position_embeddings=64)
    ids = dict(pad_token_id=0, bos_token_id=1, eos_token_id=1, cls_token_id=1, sep_token_id=2)
    return {'GPT2': t.GPT2Config(vocab_size=300, n_embd=32, n_layer=3, n_head=2, n_positions=64),
            'Bert': t.BertConfig(**small), 'Roberta': t.RobertaConfig(**small),
            'DistilBert': t.DistilBertConfig(**distil), 'ModernBert': t.ModernBertConfig(**small, **ids)}

@pytest.mark.parametrize('head', ['LM', 'ForSequenceClassification', 'Model'])
@pytest.mark.parametrize('shape', ['GPT2', 'Bert', 'Roberta', 'DistilBert', 'ModernBert'])
def test_layer_groups(shape, head):
    import transformers as t
    suffix = 'LMHeadModel' if shape == 'GPT2' else 'ForMaskedLM'
    if head != 'LM': suffix = head
    model = getattr(t, shape + suffix)(shapes()[shape])
    groups = layer_groups(model)
    names = {id(p): n for n,p in model.named_parameters()}
    assert list(groups)[:4] == ['embeddings', 'block 0', 'block 1', 'block 2']
    assert set(groups) <= {'embeddings', 'block 0', 'block 1', 'block 2', 'head'}
    found = [id(p) for g in groups.values() for p in g]
    assert sorted(found) == sorted(names) and len(set(found)) == len(found)
    assert any(p is model.get_input_embeddings().weight for p in groups['embeddings'])
    if head == 'LM':
        tied = model.get_output_embeddings().weight # used first at the input
        assert any(p is tied for p in groups['embeddings'])
    of_embeddings = [names[id(p)] for p in groups['embeddings']]
    assert all('mbedding' in n or n.split('.')[-2] in ('wte', 'wpe') for n in of_embeddings)
    for i in range(3):
        assert all(f'.{i}.' in names[id(p)] for p in groups[f'block {i}'])
        assert len(groups[f'block {i}']) == len(groups['block 1']) + (shape == 'ModernBert' and i == 0)*-1
    if head == 'ForSequenceClassification':
        assert any('classifier' in names[id(p)] or 'score' in names[id(p)] for p in groups['head'])
    wrapped = layer_groups(torch.nn.ModuleDict({'lm': model}))
    assert [len(g) for g in wrapped.values()] == [len(g) for g in groups.values()]

def test_models_without_blocks():
    with pytest.raises(ValueError, match='no nn.ModuleList of blocks'): layer_groups(torch.nn.Linear(2, 2))

@pytest.mark.parametrize('shape', ['GPT2', 'Bert', 'Roberta', 'DistilBert', 'ModernBert'])
def test_frozen_groups_do_not_move(shape):
    import transformers as t
    masked = shape != 'GPT2'
    torch.manual_seed(0)
    model = getattr(t, shape + ('ForMaskedLM' if masked else 'LMHeadModel'))(shapes()[shape])
    dls = lm_dataloaders(chunks(masked), toks[masked], batch_size=8, device='cpu')
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
        data = chunks(masked)
        rows, n = datasets.concatenate_datasets([data['train'], data['valid']]), len(data['train'])
        block = DataBlock(blocks=lm_block(toks[masked]), splitter=IndexSplitter(range(n, len(rows))))
        a = block.dataloaders(rows, batch_size=8, device='cpu')
        b = lm_dataloaders(data, toks[masked], batch_size=8, device='cpu')
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
        score = evaluate_lm(learn.lm, loaders(masked)[1])
        assert learn.validate()[0] == pytest.approx(score.cross_entropy, rel=1e-4)

@pytest.mark.parametrize('train_bn', [True, False])
def test_norms_of_frozen_groups_move_only_if_asked(train_bn):
    dls = lm_dataloaders(chunks(), toks[False], batch_size=8, device='cpu')
    learn = lm_learner(dls, a_model(), train_bn=train_bn)
    groups = layer_groups(learn.lm)
    before = {name: [p.detach().clone() for p in group] for name,group in groups.items()}
    learn.freeze_to(-1)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-3)
    def moved(name): return sum(not torch.equal(p, q) for p,q in zip(groups[name], before[name]))
    assert {name: moved(name) for name in groups if name != 'head'} == {
        'embeddings': 0, 'block 0': 4*train_bn, 'block 1': 4*train_bn}
    assert moved('head') == 2

def test_an_unknown_loss_is_refused():
    dls = lm_dataloaders(chunks(), toks[False], batch_size=8, device='cpu')
    with pytest.raises(ValueError, match="loss='keras'"): lm_learner(dls, a_model(), loss='keras')

def test_a_learner_exports_a_folder_without_a_pickle(tmp_path):
    dls = lm_dataloaders(chunks(), toks[False], batch_size=8, device='cpu')
    learn = lm_learner(dls, a_model(), path=tmp_path)
    folder = learn.export('lm')
    assert {p.suffix for p in folder.iterdir()} <= {'.json', '.safetensors'} and folder.parent == tmp_path
    back, _ = load_lm(folder)
    for a,b in zip(back.parameters(), learn.lm.parameters()): same(a, b)

def test_losses_and_half_precision():
    from fastai.callback.core import Callback
    dls = lm_dataloaders(chunks(), toks[False], batch_size=8, device='cpu')
    class Half(Callback): # what to_bf16 does on a GPU
        order = 10
        def before_batch(self):
            self.c = torch.autocast('cpu', torch.bfloat16)
            self.c.__enter__()
        def after_pred(self):
            from fastai.torch_core import to_float
            self.learn.pred = to_float(self.pred)
        def after_loss(self): self.c.__exit__(None, None, None)
    out = {}
    ways = {'model': dict(loss='model'), 'fastai': dict(loss='fastai'), 'half': dict(cbs=[Half()])}
    for name,kw in ways.items():
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
    def score(): return evaluate_lm(lm, ft.lm_loaders(data, tok, batch_size=8)[1]).cross_entropy
    knew, before = score(), {k: [p.detach().clone() for p in g] for k,g in groups.items()}
    assert knew < math.log(len(tok)), 'a model that has read knows something'
    learn.freeze_to(-2)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2, 1e-3)
    moved = [k for k,g in groups.items() if any(not torch.equal(a, b) for a,b in zip(g, before[k]))]
    assert moved == ['block 3', 'head']
    assert learn.recorder.values[-1][1] == pytest.approx(score(), rel=1e-4) and score() < knew


@pytest.mark.filterwarnings('ignore::FutureWarning')
def test_fastai_sees_the_same_batches_and_losses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, tok = chunks(), toks[False]
    dls = lm_dataloaders(data, tok, batch_size=8, device='cpu')
    train, valid = ft.lm_loaders(data, tok, batch_size=8)
    def run(loss, epochs=2):
        learn = lm_learner(dls, a_model(dropout=0.), loss=loss)
        with learn.no_bar(), learn.no_logging():
            learn.lr_find(num_it=3, show_plot=False)
            learn.fit(epochs, 1e-3)
        return learn
    a, b = run('model'), run('fastai')
    torch.testing.assert_close(torch.stack(a.recorder.losses), torch.stack(b.recorder.losses))
    score = evaluate_lm(a.lm, valid)
    assert a.recorder.values[-1][1] == pytest.approx(score.cross_entropy, rel=1e-4)
    assert a.recorder.values[-1][2] == pytest.approx(score.perplexity, rel=1e-4)
    assert list(tmp_path.iterdir()) == []
    for epoch in range(2):
        dls.train.epoch = epoch
        train.batch_sampler.set_epoch(epoch)
        mine, theirs = list(train), [x for x,_ in dls.train]
        assert len(mine) == len(theirs)
        for x,y in zip(mine, theirs): same(x['input_ids'], y['input_ids'])
