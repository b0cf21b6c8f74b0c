"""Lesson 7: runs that stop and go on, several processes, what decays, what the bar says."""

import math, os, subprocess, sys
from pathlib import Path

import numpy as np
import pytest
import torch

from course_lm.checkpoints import Checkpoints
from course_lm.chunking import chunk_ids
from course_lm.data import train_tokenizer
from course_lm.finetuning import decay_groups, lm_optimizer
from course_lm.labels import BertMasking
from course_lm.models import new_model, tiny_bert_config, tiny_gpt_config
from course_lm.pretraining import MuonAdamW, batch_indices, newton_schulz, pretrain
from course_lm.scratch import compression_baseline
from course_lm.releasing import cut, encode

root = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures('one_thread')


def shape(tok, make=tiny_gpt_config, **kw):
    return make(tok, **{**dict(n_layer=2, n_head=2, n_embd=32, max_length=32, dropout=0.1), **kw})


def run(small, seed=0, **kw):
    tok, chunks = small
    model = new_model(shape(tok), seed)
    return model, pretrain(
        model,
        tok,
        chunks[20:],
        chunks[:20],
        **{**dict(n_steps=16, batch_size=8, warmup_steps=4, progress=False), **kw},
    )


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


@pytest.mark.parametrize('make', [tiny_gpt_config, tiny_bert_config])
def test_every_parameter_is_in_one_group(make):
    model = new_model(make(300, n_layer=2, n_head=2, n_embd=32))
    groups = decay_groups(model)
    assert sum(p.numel() for g in groups.values() for _, p in g) == model.num_parameters()
    assert all(p.ndim == 2 for _, p in groups['matrix']) and all(p.ndim == 1 for _, p in groups['vector'])
    decayed = {
        id(p) for g in lm_optimizer(model, 1e-3).param_groups if g['weight_decay'] for p in g['params']
    }
    assert decayed == {id(p) for _, p in groups['matrix']}
    assert id(model.get_output_embeddings().weight) not in decayed


def test_an_output_layer_of_its_own_is_decayed_and_is_not_for_muon():
    config = tiny_gpt_config(300, n_layer=1, n_head=1, n_embd=16)
    config.tie_word_embeddings = False
    model = new_model(config)
    assert [n for n, _ in decay_groups(model)['output']] == ['lm_head.weight']
    assert 'lm_head.weight' not in [n for n, _ in decay_groups(model)['matrix']]
    groups = {g['kind']: g for g in lm_optimizer(model, 1e-3, 0.1).param_groups}
    assert {k: g['weight_decay'] for k, g in groups.items()} == {
        'matrix': 0.1, 'output': 0.1, 'embedding': 0.0, 'vector': 0.0}
    opt = lm_optimizer(model, 1e-3, 0.1, make=MuonAdamW)
    model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    opt.step()
    assert 'v' in opt.state[model.lm_head.weight]  # AdamW's second moment
    assert 'v' not in opt.state[model.transformer.h[0].mlp.c_fc.weight]


def test_frozen_parameters_stay_out():
    model = new_model(tiny_gpt_config(300, n_layer=1, n_head=1, n_embd=16))
    model.transformer.wte.requires_grad_(False)
    assert [n for n, _ in decay_groups(model)['embedding']] == ['transformer.wpe.weight']


@pytest.mark.parametrize('optimizer', ['adamw', 'muon'])
def test_resume_to_identical_weights(small, tmp_path, optimizer):
    whole, h = run(small, optimizer=optimizer, accumulate=2)
    for k, stop in enumerate((1, 6, 4, 1)):
        run(
            small,
            seed=k,
            optimizer=optimizer,
            accumulate=2,
            checkpoints=Checkpoints(tmp_path),
            stop_after=stop,
        )
    resumed, h2 = run(small, seed=9, optimizer=optimizer, accumulate=2, checkpoints=Checkpoints(tmp_path))
    assert same(whole, resumed) and h.losses == h2.losses and h2.done
    assert [e['bits_per_byte'] for e in h.evals] == [e['bits_per_byte'] for e in h2.evals]


def test_masked_resume(docs, tmp_path):
    tok = train_tokenizer(docs, 400, masked=True)
    chunks = chunk_ids(np.concatenate([np.array(i) for i in tok(docs)['input_ids']]), 32)

    def go(seed, **kw):
        model = new_model(shape(tok, tiny_bert_config), seed)
        return model, pretrain(
            model,
            tok,
            chunks[20:],
            chunks[:20],
            n_steps=10,
            batch_size=8,
            strategy=BertMasking(0.4),
            progress=False,
            **kw,
        )

    whole, h = go(0)
    go(1, checkpoints=Checkpoints(tmp_path), stop_after=5)  # weights of seed 1
    with pytest.raises(ValueError, match='belongs to another run'):
        pretrain(
            new_model(shape(tok, tiny_bert_config)),
            tok,
            chunks[20:],
            n_steps=10,
            batch_size=8,
            checkpoints=Checkpoints(tmp_path),
            progress=False,
        )
    (tmp_path / 'b').mkdir()
    go(0, checkpoints=Checkpoints(tmp_path / 'b'), stop_after=5)
    resumed, h2 = go(3, checkpoints=Checkpoints(tmp_path / 'b'))
    assert same(whole, resumed) and h.losses == h2.losses


def test_accumulated_gradients_weigh_tokens_alike(docs):
    from course_lm.labels import LMCollator

    tok = train_tokenizer(docs, 400, masked=True)
    chunks = chunk_ids(np.concatenate([np.array(i) for i in tok(docs)['input_ids']]), 32)
    config, mask, seed = (
        tiny_bert_config(tok, n_layer=2, n_head=2, n_embd=32, max_length=32),
        BertMasking(0.1),
        5,
    )
    h = pretrain(
        new_model(config),
        tok,
        chunks,
        n_steps=1,
        batch_size=1,
        accumulate=3,
        strategy=mask,
        seed=seed,
        progress=False,
    )
    batches = [
        LMCollator(tok, mask, generator=torch.Generator().manual_seed(seed * 1_000_003 + i))(
            list(chunks[batch_indices(i, len(chunks), 1, seed)].astype(np.int64))
        )
        for i in range(3)
    ]
    counts = [int((b['labels'] >= 0).sum()) for b in batches]

    def norm(weights):
        model = new_model(config)
        for b, w in zip(batches, weights):
            if w:
                (model(**b).loss * w).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm().item()

    assert len(set(counts)) > 1 and h.steps[0]['tokens'] == sum(counts)
    assert (
        h.steps[0]['grad_norm']
        == pytest.approx(norm([n / sum(counts) for n in counts]), rel=1e-4)
        != pytest.approx(norm([bool(n) / 3 for n in counts]), rel=1e-2)
    )


TWO = """
import os, sys, numpy as np, torch
from transformers import AutoTokenizer
from course_lm.labels import BertMasking
from course_lm.models import new_model, tiny_bert_config, tiny_gpt_config
from course_lm.checkpoints import Checkpoints
from course_lm.pretraining import pretrain
torch.set_num_threads(1)
torch.distributed.init_process_group('gloo')
kind, folder = sys.argv[1:]
tok, chunks = AutoTokenizer.from_pretrained(f'{folder}/tok'), np.load(f'{folder}/chunks.npy')
make = tiny_gpt_config if kind == 'causal' else tiny_bert_config
config = make(tok, n_layer=2, n_head=2, n_embd=32, max_length=32, dropout=0.)
# other weights in each process until the checkpoint is read
model = new_model(config, torch.distributed.get_rank())
try: pretrain(model, tok, chunks[4:], chunks[:4], n_steps=1, batch_size=1, progress=False)
except ValueError as e: assert 'less than the 2 processes' in str(e)
else: raise SystemExit('batch_size=1 was not refused')
history = pretrain(model, tok, chunks[4:], chunks[:4], n_steps=10, batch_size=5, accumulate=2, warmup_steps=2,
                   optimizer='muon', progress=False, checkpoints=Checkpoints(f'{folder}/run'))
together = [torch.empty_like(model.get_input_embeddings().weight) for _ in range(2)]
torch.distributed.all_gather(together, model.get_input_embeddings().weight.detach())
assert torch.equal(*together) and history.done, 'the processes have drifted apart'
torch.distributed.barrier()
torch.distributed.destroy_process_group()
tasks = '/proc/self/task'
threads = [open(f'{tasks}/{t}/comm').read() for t in os.listdir(tasks)] if sys.platform == 'linux' else []
assert not any('gloo' in name for name in threads), threads # one that outlives us ends in an abort, at times
"""


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['causal', 'masked'])
def test_two_processes_take_the_steps_of_one(docs, tmp_path, kind):
    "Begun by one process and finished by two, each with a share of every batch: as by one alone."
    tok = train_tokenizer(docs, 400, masked=kind == 'masked')
    chunks = chunk_ids(np.concatenate([np.array(i) for i in tok(docs)['input_ids']]), 32)
    alone = new_model(shape(tok, tiny_bert_config if kind == 'masked' else tiny_gpt_config, dropout=0.0), 0)
    kw = dict(n_steps=10, batch_size=5, accumulate=2, warmup_steps=2, optimizer='muon', progress=False)
    h = pretrain(alone, tok, chunks[4:], chunks[:4], **kw)
    begun = new_model(shape(tok, tiny_bert_config if kind == 'masked' else tiny_gpt_config, dropout=0.0), 0)
    pretrain(
        begun, tok, chunks[4:], chunks[:4], **kw, checkpoints=Checkpoints(tmp_path / 'run'), stop_after=3
    )
    tok.save_pretrained(tmp_path / 'tok')
    np.save(tmp_path / 'chunks.npy', chunks)
    (tmp_path / 'two.py').write_text(TWO)
    r = subprocess.run(
        [
            sys.executable,
            '-m',
            'torch.distributed.run',
            '--standalone',
            '--nproc-per-node',
            '2',
            '--',
            str(tmp_path / 'two.py'),
            kind,
            str(tmp_path),
        ],
        cwd=root,
        env={**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert r.returncode == 0, r.stderr[-3000:]
    there = Checkpoints(tmp_path / 'run').read()['state']
    assert len(there['steps']) == 10
    assert [s['tokens'] for s in there['steps']] == [s['tokens'] for s in h.steps]
    assert len({s['tokens'] for s in h.steps}) > (kind == 'masked')
    np.testing.assert_allclose([s['nats'] for s in there['steps']], [s['nats'] for s in h.steps], rtol=1e-4)
    from safetensors.torch import load_file

    other, own = load_file(Checkpoints(tmp_path / 'run').last() / 'model.safetensors'), alone.state_dict()
    for k, v in other.items():
        torch.testing.assert_close(v, own[k], rtol=1e-3, atol=1e-3)


def test_half_written_checkpoint_is_not_seen(small, tmp_path):
    run(small, checkpoints=Checkpoints(tmp_path), stop_after=5)
    before = Checkpoints(tmp_path).last()
    (tmp_path / 'step-00000009').mkdir()
    (tmp_path / '.part-step-00000009-0123abcd').mkdir()
    (tmp_path / '.part-step-00000009-0123abcd' / 'state.json').write_text('{}')
    assert Checkpoints(tmp_path).last() == before and Checkpoints(tmp_path / 'nothing').last() is None


def test_no_pickle_in_a_checkpoint(small, tmp_path):
    run(small, checkpoints=Checkpoints(tmp_path), stop_after=3, optimizer='muon')
    assert {p.suffix for p in tmp_path.rglob('*') if p.is_file()} == {'.json', '.safetensors'}


def test_the_clock_ends_a_run_and_more_time_extends_it(small, tmp_path):
    _, short = run(small, n_steps=None, minutes=0.01, checkpoints=Checkpoints(tmp_path))
    assert short.done and short.decay_steps >= 1
    assert short.steps[-1]['lr'] < short.steps[short.decay_from - 1]['lr'] * 0.7
    _, longer = run(small, n_steps=None, minutes=0.03, checkpoints=Checkpoints(tmp_path))
    assert longer.done and len(longer.steps) > len(short.steps)
    assert longer.losses[: short.decay_from] == short.losses[: short.decay_from]


def test_cosine_ends_at_a_tenth(small):
    _, h = run(small, schedule='cosine_with_min_lr', n_steps=40, lr=1e-2)
    rates = [s['lr'] for s in h.steps]
    assert max(rates) <= 1e-2 and 1e-3 <= rates[-1] < 1.1e-3 and rates[4:] == sorted(rates[4:], reverse=True)
    assert h.done


def test_16_bits_are_tried_out_and_then_kept(small, tmp_path):
    _, h = run(small, bf16='auto', checkpoints=Checkpoints(tmp_path), stop_after=3)
    assert h.settings['bf16'] in (True, False)
    path = Checkpoints(tmp_path).last() / 'state.json'
    # as long as before: a whole file
    path.write_text(path.read_text().replace('"bf16": false', '"bf16": true '))
    _, h2 = run(small, bf16='auto', checkpoints=Checkpoints(tmp_path))
    assert h2.settings['bf16'] is True and h2.done and abs(h2.losses[-1] - run(small)[1].losses[-1]) < 0.2


def test_a_finished_run_does_nothing(small, tmp_path):
    a, h = run(small, checkpoints=Checkpoints(tmp_path))
    b, h2 = run(small, seed=5, checkpoints=Checkpoints(tmp_path))
    assert same(a, b) and len(h2.steps) == len(h.steps)


def test_more_updates_go_on_from_before_the_fall(small, tmp_path):
    whole, h = run(small, n_steps=30)
    run(small, checkpoints=Checkpoints(tmp_path))
    assert (tmp_path / 'before-decay' / 'state.json').exists()
    run(small, seed=7, n_steps=30, checkpoints=Checkpoints(tmp_path), stop_after=2)
    assert Checkpoints(tmp_path).last().name == 'step-00000015'
    longer, h2 = run(small, seed=8, n_steps=30, checkpoints=Checkpoints(tmp_path))
    assert same(whole, longer) and h.losses == h2.losses
    with pytest.raises(ValueError, match='has made .* updates already'):
        run(small, n_steps=5, checkpoints=Checkpoints(tmp_path))


def test_memory_mapped_16_bit_tokens_train_alike(small, tmp_path):
    tok, chunks = small
    np.save(tmp_path / 'c.npy', np.ascontiguousarray(chunks))
    mapped = np.load(tmp_path / 'c.npy', mmap_mode='r')
    assert (
        run(small)[1].losses == run((tok, mapped))[1].losses == run((tok, chunks.astype(np.int64)))[1].losses
    )


def test_the_global_random_stream_is_left_alone(small):
    torch.manual_seed(3)
    a = torch.rand(3)
    torch.manual_seed(3)
    run(small, n_steps=2)
    assert torch.equal(a, torch.rand(3))


def test_a_loss_that_is_no_number_stops_the_run(small):
    tok, chunks = small
    model = new_model(shape(tok))
    with torch.no_grad():
        model.transformer.wte.weight[5:] = math.nan
    with pytest.raises(FloatingPointError, match='update 1'):
        pretrain(model, tok, chunks, n_steps=2, batch_size=8, progress=False)


def test_it_learns(small):
    _, h = run(small, n_steps=120, batch_size=16, lr=5e-3, optimizer='muon')
    assert h.evals[-1]['bits_per_byte'] < 0.75 * h.evals[0]['bits_per_byte']
    assert h.frame().tokens.is_monotonic_increasing and h.tokens == 120 * 16 * 31


def test_every_chunk_once_an_epoch():
    for n, bs in ((7, 7), (10, 1), (64, 9)):
        for epoch in range(3):
            rows = np.concatenate(
                [batch_indices(i, n, bs, 3) for i in range(epoch * (n // bs), (epoch + 1) * (n // bs))]
            )
            assert len(set(rows.tolist())) == len(rows) == n // bs * bs


def test_wsd_is_continuous_and_ends_low(small):
    _, h = run(small, n_steps=100, warmup_steps=10, lr=1e-3)
    f = [s['lr'] / 1e-3 for s in h.steps]
    assert max(f) == 1 and min(f[10:80]) == 1 and 0 < f[-1] < 0.05
    assert all(a >= b for a, b in zip(f[79:], f[80:]))


def test_orthogonal_of_an_orthogonal_matrix_keeps_its_directions():
    q, _ = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0)))
    out = newton_schulz(q)
    assert (out * q).sum() / (out.norm() * q.norm()) > 0.99


def test_muon_state_survives_a_round_trip(small):
    tok, chunks = small
    model = new_model(shape(tok))
    opt = lm_optimizer(model, 1e-3, 0.1, make=MuonAdamW)
    model(
        torch.from_numpy(chunks[:2].astype(np.int64)), labels=torch.from_numpy(chunks[:2].astype(np.int64))
    ).loss.backward()
    opt.step()
    again = lm_optimizer(model, 1e-3, 0.1, make=MuonAdamW)
    again.load_state_dict(opt.state_dict())
    assert isinstance(again, MuonAdamW)
    for a, b in zip(opt.state.values(), again.state.values()):
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_bar_says_what_it_should(small, capsys):
    "Updates done of all, tokens a second, and bits per byte of the last updates."
    tok, chunks = small
    run = pretrain(new_model(shape(tok)), tok, chunks, n_steps=25, batch_size=2, progress=True)
    said = capsys.readouterr().err
    nats, n_bytes = (sum(s[k] for s in run.steps[-20:]) for k in ('nats', 'bytes'))
    assert (
        '25/25' in said and 'tokens/s' in said and f'{nats / math.log(2) / n_bytes:.3f} bits per byte' in said
    )
    pretrain(new_model(shape(tok)), tok, chunks, n_steps=1, batch_size=2, progress=False)
    assert not capsys.readouterr().err


def test_the_output_layer_is_left_out_where_nothing_is_scored(docs):
    from course_lm.labels import BertMasking, LMCollator
    from course_lm.pretraining import _only_masked

    tok = train_tokenizer(docs, 400, masked=True)
    model = new_model(tiny_bert_config(tok, n_layer=2, n_head=2, n_embd=32, max_length=32))
    batch = LMCollator(tok, BertMasking(0.3), seed=0)(
        list(cut(encode(docs[:20], tok), 32, tok)[:8].astype(np.int64))
    )
    with _only_masked(model):
        few = model(**batch)
    all_of_them = model(**batch)
    assert few.logits.shape[0] == int((batch['labels'] >= 0).sum())
    assert all_of_them.logits.shape[:2] == batch['labels'].shape
    torch.testing.assert_close(few.loss, all_of_them.loss, rtol=1e-5, atol=0)
    causal = new_model(tiny_gpt_config(400, n_layer=1, n_head=1, n_embd=16))
    with _only_masked(causal):
        assert not hasattr(causal, 'sparse_prediction')


def test_xz():
    assert compression_baseline('word ' * 1000) < 0.5
    assert compression_baseline('abc ' * 50, 'abc ' * 50) <= compression_baseline('abc ' * 50)


def test_nothing_to_compress():
    with pytest.raises(ValueError, match='is empty'):
        compression_baseline('')
    loop = 'for i in range: ' * 20
    assert compression_baseline(loop, given=loop) < compression_baseline(loop)


def test_batches_are_a_function_of_their_number():
    epochs = [np.concatenate([batch_indices(i, 10, 3, seed=1) for i in e]) for e in (range(3), range(3, 6))]
    assert [len(set(e.tolist())) for e in epochs] == [9, 9] and epochs[0].tolist() != epochs[1].tolist()
    np.testing.assert_array_equal(batch_indices(4, 10, 3, seed=1), epochs[1][3:6])
    with pytest.raises(ValueError, match='batch_size=5 must be between 1 and the 4 chunks'):
        batch_indices(0, 4, 5)


def test_singular_values_are_pushed_towards_one():
    draw = torch.Generator().manual_seed(0)
    g = torch.randn(48, 20, generator=draw) @ torch.diag(torch.logspace(0, -2, 20))
    before, after = torch.linalg.svdvals(g), torch.linalg.svdvals(newton_schulz(g))
    assert before[0] / before[-1] > 50 and after[0] / after[-1] < 3
    assert after.min() > 0.5 and after.max() < 1.4
    torch.testing.assert_close(newton_schulz(g.T), newton_schulz(g).T)
    u, _, v = torch.linalg.svd(g, full_matrices=False)
    step = newton_schulz(g)
    assert (step * (u @ v)).sum() > 0.9 * (u @ v).norm() * step.norm()


def three_steps(make):
    weights = torch.nn.Parameter(torch.linspace(-1, 1, 96).reshape(8, 12).sin())
    optimizer = make([weights])
    for k in range(3):
        weights.grad = ((weights.detach() + k) * 7).cos()
        optimizer.step()
    return weights.detach()


def test_both_halves_are_as_in_pytorch():
    ours = three_steps(lambda ps: MuonAdamW([dict(params=ps, weight_decay=0.1)], lr=0.01))
    theirs = three_steps(lambda ps: torch.optim.AdamW(ps, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1))
    torch.testing.assert_close(ours, theirs)
    ours = three_steps(lambda ps: MuonAdamW([dict(params=ps, kind='matrix')], lr=0.01))
    theirs = three_steps(
        lambda ps: torch.optim.Muon(
            ps, lr=0.01, weight_decay=0.0, momentum=0.95, adjust_lr_fn='match_rms_adamw'
        )
    )
    # steps of half the rate, or half as much again, would be 0.006 off; PyTorch's computes in 16 bits
    torch.testing.assert_close(ours, theirs, rtol=0, atol=4.5e-3)


def test_large_batches_and_small_ones_added_up_give_the_same_loss(small):
    tok, chunks = small
    losses = []
    for accumulate in (4, 1):
        model = new_model(shape(tok, dropout=0.0))
        h = pretrain(
            model, tok, chunks, n_steps=2, batch_size=16 // accumulate, accumulate=accumulate, progress=False
        )
        losses.append(h.losses[0])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_what_a_run_refuses(small, tmp_path):
    tok, chunks = small
    for changes, said in (
        (dict(n_steps=1, minutes=1), 'give one of the two'),
        (dict(n_steps=None, minutes=1, schedule='cosine'), 'must know its end'),
        (dict(batch_size=10_000), 'batch_size=10000 must be between 1 and'),
    ):
        with pytest.raises(ValueError, match=said):
            run(small, **changes)
    with pytest.raises(ValueError, match='embeddings for 300 tokens'):
        pretrain(new_model(tiny_gpt_config(300)), tok, chunks, n_steps=1)
    with pytest.raises(TypeError, match='chunks='):
        pretrain(new_model(shape(tok)), tok, [[1, 2]], n_steps=1)
    run(small, checkpoints=Checkpoints(tmp_path), stop_after=2, lr=3e-3)
    with pytest.raises(ValueError, match=r'lr=0.003 \(now 0.001\)'):
        run(small, checkpoints=Checkpoints(tmp_path), lr=1e-3)


def test_the_loop_of_fine_tuning_finds_the_same_losses(small):
    from course_lm.finetuning import ShuffledBatches, train_loop
    from course_lm.labels import LMCollator

    tok, chunks = small
    rows = chunks[:64]
    first, second = (new_model(shape(tok, dropout=0.0)) for _ in 'ab')
    ours = pretrain(
        first,
        tok,
        rows,
        n_steps=16,
        batch_size=8,
        lr=1e-3,
        warmup_steps=0,
        decay=0.0,
        weight_decay=0.0,
        betas=(0.9, 0.99),
        progress=False,
    )
    loader = torch.utils.data.DataLoader(
        [{'input_ids': r.astype(np.int64)} for r in rows],
        batch_sampler=ShuffledBatches(64, 8, 42),
        collate_fn=LMCollator(tok),
    )
    theirs = train_loop(
        second,
        loader,
        n_steps=16,
        lr=1e-3,
        schedule='constant',
        warmup_steps=0,
        weight_decay=0.0,
        betas=(0.9, 0.99),
        progress=False,
    )
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-5)
