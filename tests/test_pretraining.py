"""Lesson 7: what would bore a reader. The resume test really kills a process."""
import json, math, os, signal, subprocess, sys, time
from pathlib import Path

import numpy as np, pytest, torch

from course_lm.chunking import chunk_ids
from course_lm.data import python_docs, train_tokenizer
from course_lm.models import reference_texts
from course_lm.labels import BertMasking
from course_lm.data import train_tokenizer
from course_lm.models import new_model, tiny_bert_config, tiny_gpt_config
from course_lm.finetuning import decay_groups
from course_lm.scratch import count_flops, count_parameters, deduplicate, fertility, plan_run, show_tokens
from course_lm.checkpoints import Checkpoints
from course_lm.finetuning import lm_optimizer
from course_lm.pretraining import MuonAdamW, batch_indices, compression_baseline, newton_schulz, pretrain
from course_lm.models import save_lm
from course_lm.releasing import model_card, memorization

root = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures('one_thread')
from runs import train_tiny


@pytest.fixture(scope='module')
def docs(): return python_docs()[:150]


@pytest.fixture(scope='module')
def small(docs):
    tok = train_tokenizer(docs, 400)
    ids = np.concatenate([np.array([*i, tok.eos_token_id], np.uint16) for i in tok(docs)['input_ids']])
    return tok, chunk_ids(ids, 32)


def shape(tok, make=tiny_gpt_config, **kw): return make(tok, **{**dict(n_layer=2, n_head=2, n_embd=32, max_length=32, dropout=.1), **kw})


def run(small, seed=0, **kw):
    tok, chunks = small
    model = new_model(shape(tok), seed)
    return model, pretrain(model, tok, chunks[20:], chunks[:20], **{**dict(n_steps=16, batch_size=8, warmup_steps=4, progress=False), **kw})


def same(a, b): return all(torch.equal(x, y) for x,y in zip(a.state_dict().values(), b.state_dict().values()))


# tokenizers

@pytest.mark.parametrize('kind', ['bpe', 'wordpiece', 'unigram'])
def test_tokenizer_kinds(docs, kind, tmp_path):
    from transformers import AutoTokenizer
    t = train_tokenizer(iter(docs), 600, kind)
    assert 300 < len(t) <= 600 and t.pad_token_id is not None and t.pad_token_id != t.eos_token_id
    assert (t.mask_token is not None) == (kind == 'wordpiece')
    t.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(docs[0])['input_ids'] == t(docs[0])['input_ids']
    assert 0 < fertility(t, docs, 'byte') < 1 < fertility(t, docs, 'word') < fertility(t, docs, 'line')


@pytest.mark.parametrize('text', ['', ' ', 'naïve €5 …', 'a\tb\r\n  c', '日本語', '<|endoftext|>', '\U0001F600' * 3])
def test_byte_level_kinds_lose_nothing(docs, text):
    for kind in ('bpe', 'unigram'):
        t = train_tokenizer(docs, 500, kind)
        assert t.decode(t(text)['input_ids']) == text


def test_deduplicate_keeps_the_first():
    assert deduplicate(['x  y', 'x y', 'X y', 'x\ny ']) == ['x  y', 'X y']
    assert deduplicate([]) == []


def test_show_tokens_escapes_and_is_readable_in_the_dark(docs):
    html = show_tokens(train_tokenizer(docs, 400), '<script> & 日').data
    assert '<script>' not in html and '&lt;' in html and 'color:#111' in html


# shapes

@pytest.mark.parametrize('make', [tiny_gpt_config, tiny_bert_config])
@pytest.mark.parametrize('kw', [dict(n_layer=1, n_head=1, n_embd=16, max_length=8), dict(n_layer=3, n_head=3, n_embd=48, max_length=40), dict(n_layer=5, n_head=2, n_embd=64, max_length=64)])
def test_counts_by_formula(make, kw):
    config = make(321, **kw)
    assert count_parameters(config)['all'] == sum(p.numel() for p in new_model(config).parameters())
    from torch.utils.flop_counter import FlopCounterMode
    config._attn_implementation = 'eager'
    model, ids = new_model(config), torch.zeros(1, kw['max_length'], dtype=torch.long)
    with FlopCounterMode(display=False) as f: model(input_ids=ids, labels=ids).loss.backward()
    assert f.get_total_flops() == 3*kw['max_length']*count_flops(config, kw['max_length'])['all']


@pytest.mark.parametrize('make', [tiny_gpt_config, tiny_bert_config])
def test_every_parameter_is_in_one_group(make):
    model = new_model(make(300, n_layer=2, n_head=2, n_embd=32))
    groups = decay_groups(model)
    assert sum(p.numel() for g in groups.values() for _,p in g) == model.num_parameters()
    assert all(p.ndim == 2 for _,p in groups['matrix']) and all(p.ndim == 1 for _,p in groups['vector'])
    decayed = {id(p) for g in lm_optimizer(model, 1e-3).param_groups if g['weight_decay'] for p in g['params']}
    assert decayed == {id(p) for _,p in groups['matrix']} and id(model.get_output_embeddings().weight) not in decayed


def test_untied_head_is_not_decayed():
    config = tiny_gpt_config(300, n_layer=1, n_head=1, n_embd=16)
    config.tie_word_embeddings = False
    assert 'lm_head.weight' in [n for n,_ in decay_groups(new_model(config))['embedding']]


def test_frozen_parameters_stay_out():
    model = new_model(tiny_gpt_config(300, n_layer=1, n_head=1, n_embd=16))
    model.transformer.wte.requires_grad_(False)
    assert [n for n,_ in decay_groups(model)['embedding']] == ['transformer.wpe.weight']


# the run

@pytest.mark.parametrize('optimizer', ['adamw', 'muon'])
def test_resume_to_identical_weights(small, tmp_path, optimizer):
    whole, h = run(small, optimizer=optimizer, accumulate=2)
    for k,stop in enumerate((1, 6, 4, 1)): run(small, seed=k, optimizer=optimizer, accumulate=2, checkpoints=Checkpoints(tmp_path), stop_after=stop)
    resumed, h2 = run(small, seed=9, optimizer=optimizer, accumulate=2, checkpoints=Checkpoints(tmp_path))
    assert same(whole, resumed) and h.losses == h2.losses and h2.done
    assert [e['bits_per_byte'] for e in h.evals] == [e['bits_per_byte'] for e in h2.evals]


def test_masked_resume(docs, tmp_path):
    tok = train_tokenizer(docs, 400, masked=True)
    chunks = chunk_ids(np.concatenate([np.array(i) for i in tok(docs)['input_ids']]), 32)
    def go(seed, **kw):
        model = new_model(shape(tok, tiny_bert_config), seed)
        return model, pretrain(model, tok, chunks[20:], chunks[:20], n_steps=10, batch_size=8, strategy=BertMasking(.4), progress=False, **kw)
    whole, h = go(0)
    go(1, checkpoints=Checkpoints(tmp_path), stop_after=5) # weights of seed 1
    with pytest.raises(ValueError, match='belongs to another run'): pretrain(new_model(shape(tok, tiny_bert_config)), tok, chunks[20:], n_steps=10, batch_size=8, checkpoints=Checkpoints(tmp_path), progress=False)
    (tmp_path/'b').mkdir()
    go(0, checkpoints=Checkpoints(tmp_path/'b'), stop_after=5)
    resumed, h2 = go(3, checkpoints=Checkpoints(tmp_path/'b'))
    assert same(whole, resumed) and h.losses == h2.losses


def test_accumulated_gradients_weigh_tokens_alike(docs):
    from course_lm.labels import LMCollator
    tok = train_tokenizer(docs, 400, masked=True)
    chunks = chunk_ids(np.concatenate([np.array(i) for i in tok(docs)['input_ids']]), 32)
    config, mask, seed = tiny_bert_config(tok, n_layer=2, n_head=2, n_embd=32, max_length=32), BertMasking(.1), 5
    h = pretrain(new_model(config), tok, chunks, n_steps=1, batch_size=1, accumulate=3, strategy=mask, seed=seed, progress=False)
    batches = [LMCollator(tok, mask, generator=torch.Generator().manual_seed(seed*1_000_003 + i))(list(chunks[batch_indices(i, len(chunks), 1, seed)].astype(np.int64))) for i in range(3)]
    counts = [int((b['labels'] >= 0).sum()) for b in batches]
    def norm(weights):
        model = new_model(config)
        for b,w in zip(batches, weights):
            if w: (model(**b).loss * w).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm().item()
    assert len(set(counts)) > 1 and h.steps[0]['tokens'] == sum(counts)
    assert h.steps[0]['grad_norm'] == pytest.approx(norm([n/sum(counts) for n in counts]), rel=1e-4) != pytest.approx(norm([bool(n)/3 for n in counts]), rel=1e-2)


TWO = """
import sys, numpy as np, torch
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
model = new_model(make(tok, n_layer=2, n_head=2, n_embd=32, max_length=32, dropout=0.), torch.distributed.get_rank()) # other weights in each process until the checkpoint is read
try: pretrain(model, tok, chunks[4:], chunks[:4], n_steps=1, batch_size=1, progress=False)
except ValueError as e: assert 'less than the 2 processes' in str(e)
else: raise SystemExit('batch_size=1 was not refused')
history = pretrain(model, tok, chunks[4:], chunks[:4], n_steps=10, batch_size=5, accumulate=2, warmup_steps=2, optimizer='muon', progress=False, checkpoints=Checkpoints(f'{folder}/run'))
together = [torch.empty_like(model.get_input_embeddings().weight) for _ in range(2)]
torch.distributed.all_gather(together, model.get_input_embeddings().weight.detach())
assert torch.equal(*together) and history.done, 'the processes have drifted apart'
torch.distributed.destroy_process_group()
"""

@pytest.mark.parametrize('kind', ['causal', 'masked'])
def test_two_processes_take_the_steps_of_one(docs, tmp_path, kind):
    "A run begun by one process and finished by two, each with a share of every batch (3 and 2 chunks): losses and weights of one process alone."
    tok = train_tokenizer(docs, 400, masked=kind == 'masked')
    chunks = chunk_ids(np.concatenate([np.array(i) for i in tok(docs)['input_ids']]), 32)
    alone = new_model(shape(tok, tiny_bert_config if kind == 'masked' else tiny_gpt_config, dropout=0.), 0)
    kw = dict(n_steps=10, batch_size=5, accumulate=2, warmup_steps=2, optimizer='muon', progress=False)
    h = pretrain(alone, tok, chunks[4:], chunks[:4], **kw)
    begun = new_model(shape(tok, tiny_bert_config if kind == 'masked' else tiny_gpt_config, dropout=0.), 0)
    pretrain(begun, tok, chunks[4:], chunks[:4], **kw, checkpoints=Checkpoints(tmp_path/'run'), stop_after=3)
    tok.save_pretrained(tmp_path/'tok')
    np.save(tmp_path/'chunks.npy', chunks)
    (tmp_path/'two.py').write_text(TWO)
    r = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', '--', str(tmp_path/'two.py'), kind, str(tmp_path)],
                       cwd=root, env={**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True, timeout=300)
    assert r.returncode == 0, r.stderr[-3000:]
    there = Checkpoints(tmp_path/'run').read()['state']
    assert len(there['steps']) == 10 and [s['tokens'] for s in there['steps']] == [s['tokens'] for s in h.steps] and len({s['tokens'] for s in h.steps}) > (kind == 'masked')
    np.testing.assert_allclose([s['nats'] for s in there['steps']], [s['nats'] for s in h.steps], rtol=1e-4)
    from safetensors.torch import load_file
    other, own = load_file(Checkpoints(tmp_path/'run').last()/'model.safetensors'), alone.state_dict()
    for k,v in other.items(): torch.testing.assert_close(v, own[k], rtol=1e-3, atol=1e-3)


def test_half_written_checkpoint_is_not_seen(small, tmp_path):
    run(small, checkpoints=Checkpoints(tmp_path), stop_after=5)
    before = Checkpoints(tmp_path).last()
    (tmp_path/'step-00000009').mkdir()
    (tmp_path/'.part-step-00000009-0123abcd').mkdir()
    (tmp_path/'.part-step-00000009-0123abcd'/'state.json').write_text('{}')
    assert Checkpoints(tmp_path).last() == before and Checkpoints(tmp_path/'nothing').last() is None


def test_no_pickle_in_a_checkpoint(small, tmp_path):
    run(small, checkpoints=Checkpoints(tmp_path), stop_after=3, optimizer='muon')
    assert {p.suffix for p in tmp_path.rglob('*') if p.is_file()} == {'.json', '.safetensors'}


def test_the_clock_ends_a_run_and_more_time_extends_it(small, tmp_path):
    _, short = run(small, n_steps=None, minutes=.01, checkpoints=Checkpoints(tmp_path))
    assert short.done and short.decay_steps >= 1 and short.steps[-1]['lr'] < short.steps[short.decay_from-1]['lr'] * .7
    _, longer = run(small, n_steps=None, minutes=.03, checkpoints=Checkpoints(tmp_path))
    assert longer.done and len(longer.steps) > len(short.steps) and longer.losses[:short.decay_from] == short.losses[:short.decay_from]


def test_cosine_ends_at_a_tenth(small):
    _, h = run(small, schedule='cosine_with_min_lr', n_steps=40, lr=1e-2)
    rates = [s['lr'] for s in h.steps]
    assert max(rates) <= 1e-2 and 1e-3 <= rates[-1] < 1.1e-3 and rates[4:] == sorted(rates[4:], reverse=True) and h.done


def test_16_bits_are_tried_out_and_then_kept(small, tmp_path):
    _, h = run(small, bf16='auto', checkpoints=Checkpoints(tmp_path), stop_after=3)
    assert h.settings['bf16'] in (True, False)
    path = Checkpoints(tmp_path).last()/'state.json'
    path.write_text(path.read_text().replace('"bf16": false', '"bf16": true ')) # as long as before: a whole file
    _, h2 = run(small, bf16='auto', checkpoints=Checkpoints(tmp_path))
    assert h2.settings['bf16'] is True and h2.done and abs(h2.losses[-1] - run(small)[1].losses[-1]) < .2


def test_a_finished_run_does_nothing(small, tmp_path):
    a, h = run(small, checkpoints=Checkpoints(tmp_path))
    b, h2 = run(small, seed=5, checkpoints=Checkpoints(tmp_path))
    assert same(a, b) and len(h2.steps) == len(h.steps)


def test_more_updates_go_on_from_before_the_fall(small, tmp_path):
    whole, h = run(small, n_steps=30)
    run(small, checkpoints=Checkpoints(tmp_path))
    assert (tmp_path/'before-decay'/'state.json').exists()
    run(small, seed=7, n_steps=30, checkpoints=Checkpoints(tmp_path), stop_after=2)
    assert Checkpoints(tmp_path).last().name == 'step-00000015'
    longer, h2 = run(small, seed=8, n_steps=30, checkpoints=Checkpoints(tmp_path))
    assert same(whole, longer) and h.losses == h2.losses
    with pytest.raises(ValueError, match='has made .* updates already'): run(small, n_steps=5, checkpoints=Checkpoints(tmp_path))


def test_memory_mapped_16_bit_tokens_train_alike(small, tmp_path):
    tok, chunks = small
    np.save(tmp_path/'c.npy', np.ascontiguousarray(chunks))
    mapped = np.load(tmp_path/'c.npy', mmap_mode='r')
    assert run(small)[1].losses == run((tok, mapped))[1].losses == run((tok, chunks.astype(np.int64)))[1].losses


def test_the_global_random_stream_is_left_alone(small):
    torch.manual_seed(3)
    a = torch.rand(3)
    torch.manual_seed(3)
    run(small, n_steps=2)
    assert torch.equal(a, torch.rand(3))


def test_a_loss_that_is_no_number_stops_the_run(small):
    tok, chunks = small
    model = new_model(shape(tok))
    with torch.no_grad(): model.transformer.wte.weight[5:] = math.nan
    with pytest.raises(FloatingPointError, match='update 1'): pretrain(model, tok, chunks, n_steps=2, batch_size=8, progress=False)


def test_it_learns(small):
    _, h = run(small, n_steps=120, batch_size=16, lr=5e-3, optimizer='muon')
    assert h.evals[-1]['bits_per_byte'] < .75*h.evals[0]['bits_per_byte']
    assert h.frame().tokens.is_monotonic_increasing and h.tokens == 120*16*31


def test_every_chunk_once_an_epoch():
    for n,bs in ((7, 7), (10, 1), (64, 9)):
        for epoch in range(3):
            rows = np.concatenate([batch_indices(i, n, bs, 3) for i in range(epoch*(n//bs), (epoch+1)*(n//bs))])
            assert len(set(rows.tolist())) == len(rows) == n//bs*bs


def test_wsd_is_continuous_and_ends_low(small):
    _, h = run(small, n_steps=100, warmup_steps=10, lr=1e-3)
    f = [s['lr']/1e-3 for s in h.steps]
    assert max(f) == 1 and min(f[10:80]) == 1 and 0 < f[-1] < .05 and all(a >= b for a,b in zip(f[79:], f[80:]))


def test_orthogonal_of_an_orthogonal_matrix_keeps_its_directions():
    q, _ = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0)))
    out = newton_schulz(q)
    assert (out*q).sum()/(out.norm()*q.norm()) > .99


def test_muon_state_survives_a_round_trip(small):
    tok, chunks = small
    model = new_model(shape(tok))
    opt = lm_optimizer(model, 1e-3, .1, make=MuonAdamW)
    model(torch.from_numpy(chunks[:2].astype(np.int64)), labels=torch.from_numpy(chunks[:2].astype(np.int64))).loss.backward()
    opt.step()
    again = lm_optimizer(model, 1e-3, .1, make=MuonAdamW)
    again.load_state_dict(opt.state_dict())
    assert isinstance(again, MuonAdamW)
    for a,b in zip(opt.state.values(), again.state.values()): assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_bar_says_what_it_should(small, capsys):
    "Updates done of all, tokens a second, and bits per byte of the last updates."
    tok, chunks = small
    run = pretrain(new_model(shape(tok)), tok, chunks, n_steps=25, batch_size=2, progress=True)
    said = capsys.readouterr().err
    nats, n_bytes = (sum(s[k] for s in run.steps[-20:]) for k in ('nats', 'bytes'))
    assert '25/25' in said and 'tokens/s' in said and f'{nats/math.log(2)/n_bytes:.3f} bits per byte' in said
    pretrain(new_model(shape(tok)), tok, chunks, n_steps=1, batch_size=2, progress=False)
    assert not capsys.readouterr().err


# killed for real

def corpus_folder(tmp_path, docs):
    import pyarrow as pa, pyarrow.parquet as pq
    folder = tmp_path/'corpus'
    folder.mkdir(parents=True)
    texts = [f'{t} ({i})' for i,t in enumerate(docs*3)]
    movies = [f'tt{i//3:04d}' for i in range(len(texts))]
    pq.write_table(pa.table({'text': texts, 'label': [i % 2 for i in range(len(texts))], 'movie': movies}), folder/'train.parquet')
    (folder/'valid.txt').write_text('\n = One = \n\n some words here .\n = = A section = = \n more .\n = Two = \n\n the end .\n')
    (folder/'test.txt').write_text(' = Three = \n\n never to be learnt .\n')
    return folder


def options(folder, work, *more):
    return ['--corpus', str(folder), '--steps', '40', '--work', str(work), '--vocab', '400', '--layers', '2', '--heads', '2', '--width', '32', '--length', '32', '--bs', '8',
            '--accumulate', '2', '--warmup', '5', '--eval-every', '10', '--tokenizer-every', '1', '--checkpoint-every', '0', *more]


def test_killed_and_resumed_to_identical_weights(docs, tmp_path, capsys):
    from safetensors.torch import load_file
    folder, env = corpus_folder(tmp_path, docs), {**os.environ, 'OMP_NUM_THREADS': '1'}
    p = subprocess.Popen([sys.executable, '-m', 'runs.train_tiny', *options(folder, tmp_path/'killed')], env=env, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(30_000):
        found = Checkpoints(tmp_path/'killed'/'run').last()
        if p.poll() is not None or (found and int(found.name[5:]) >= 7): break
        time.sleep(.01)
    p.send_signal(signal.SIGKILL)
    p.wait()
    at = int(Checkpoints(tmp_path/'killed'/'run').last().name[5:])
    assert 7 <= at < 40, 'it was to be killed on its way'
    train_tiny.main(options(folder, tmp_path/'killed'))
    train_tiny.main(options(folder, tmp_path/'whole', '--out', str(tmp_path/'out')))
    a, b = (Checkpoints(tmp_path/w/'run').last() for w in ('whole', 'killed'))
    assert a.name == b.name == 'step-00000040'
    a, b = load_file(a/'model.safetensors'), load_file(b/'model.safetensors')
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    card = (tmp_path/'out'/'README.md').read_text()
    capsys.readouterr()
    train_tiny.main([w for w in options(folder, tmp_path/'whole', '--out', str(tmp_path/'out'), '--measure')])
    said = capsys.readouterr().out
    scores = json.loads(said[said.index('\n{')+1:] if said.startswith('{"documents') else said)
    for name,value in scores.items(): assert f'| {name} | {value:.4g} |' in card if isinstance(value, float) else f'| {name} | {value} |' in card
    assert str(tmp_path) not in card and '--corpus CORPUS' in card
    home = json.loads((tmp_path/'out'/'home.json').read_text())
    assert home and home == reference_texts(tmp_path/'out') and json.loads((tmp_path/'out'/'training.json').read_text())['evals'][-1]['step'] == 40
    train_tiny.main(options(folder, tmp_path/'whole', '--objective', 'masked', '--run', 'bert', '--steps', '4', '--home', str(tmp_path/'out'), '--out', str(tmp_path/'bert')))
    assert reference_texts(tmp_path/'bert') == home and str(tmp_path) not in (tmp_path/'bert'/'README.md').read_text()


def test_the_script_makes_a_masked_model(docs, tmp_path):
    folder = corpus_folder(tmp_path, docs)
    train_tiny.main(options(folder, tmp_path/'work', '--objective', 'masked', '--steps', '4', '--out', str(tmp_path/'out')))
    from course_lm.models import load_lm
    from course_lm.predictions import fill_mask
    model, tok = load_lm(tmp_path/'out', 'masked')
    assert len(fill_mask(model, tok, 'a [MASK] b')) == 5 and 'masked tokens guessed right' in (tmp_path/'out'/'README.md').read_text()


# the script

def test_held_out_movies_are_not_read(docs, tmp_path):
    rows = train_tiny.read_folder(corpus_folder(tmp_path, docs))
    parts, report = train_tiny.split_documents(rows)
    movie = {d['text']: d['movie'] for d in rows}
    held = {movie[t] for t in parts['valid'] + parts['test']}
    assert held and not held & {movie[t] for t in parts['train']}
    kept = train_tiny.classification_movies(rows)
    assert kept and not kept & {movie[t] for t in parts['train']}
    assert not any('never to be learnt' in t for t in parts['train']) and parts['wiki_test'] and any('some words' in t for t in parts['train'])
    again, _ = train_tiny.split_documents(rows[::-1])
    assert sorted(again['train']) == sorted(parts['train']) and report['after_deduplication']['train'] == len(parts['train'])


def test_kept_movies_are_those_of_lesson_6(docs, tmp_path):
    from datasets import Dataset
    from course_lm.baselines import imdb_splits
    rows = [d for d in train_tiny.read_folder(corpus_folder(tmp_path, docs)) if d['movie']]
    ds = Dataset.from_dict({'text': [d['text'] for d in rows], 'label': [i % 2 for i in range(len(rows))], 'movie': [d['movie'] for d in rows]})
    kept = train_tiny.classification_movies(rows)
    for shares in ((.7, .1, .2), (.8, .1, .1)):
        parts = imdb_splits(ds, by='movie', shares=shares)
        assert set(parts['valid']['movie']) | set(parts['test']['movie']) <= kept


def test_a_corpus_without_movies_is_held_out_by_text(docs):
    rows = [dict(text=t, file='a.txt', movie='', labelled=False) for t in docs]
    parts, _ = train_tiny.split_documents(rows)
    assert parts['train'] and parts['valid'] and parts['test'] and not set(parts['valid'] + parts['test']) & set(parts['train'])
    with pytest.raises(ValueError, match='leaves no text for'): train_tiny.split_documents(rows[:3])


def test_another_corpus_and_another_shape_are_refused(docs, tmp_path):
    folder = corpus_folder(tmp_path, docs)
    run = options(folder, tmp_path/'work', '--stop-after', '1')
    train_tiny.main(run)
    with pytest.raises(ValueError, match='belongs to another run'): train_tiny.main([*run, '--layers', '3'])
    (folder/'more.txt').write_text(' = Four = \n\n more to read .\n')
    with pytest.raises(SystemExit, match='tokens of another corpus'): train_tiny.main(run)


def test_a_run_begins_with_the_weights_of_another(docs, tmp_path, capsys):
    "The second run starts where the first ended, with another order and a fresh schedule; the card adds both up."
    folder, told = corpus_folder(tmp_path, docs), lambda name: json.loads((tmp_path/name/'training.json').read_text())
    train_tiny.main(options(folder, tmp_path/'work', '--out', str(tmp_path/'one')))
    more = ['--steps', '10', '--seed', '7', '--vocab', '300', '--start'] # its tokenizer comes with it, whatever --vocab says
    train_tiny.main(options(folder, tmp_path/'work', '--run', 'two', *more, str(tmp_path/'one'), '--out', str(tmp_path/'two')))
    one, two, card = told('one'), told('two'), (tmp_path/'two'/'README.md').read_text()
    assert abs(two['evals'][0]['valid_loss'] - one['evals'][-1]['valid_loss']) < .02 < one['evals'][0]['valid_loss'] - one['evals'][-1]['valid_loss'] # 16 bits on the way
    assert two['before'] == [one] and '| Updates | 50 (40 before this run, 10 in it) |' in card and f'| Tokens read | {50*16*32:,} ({40*16*32:,} before' in card
    assert '--start START' in card and 'the weights of one;' in card and str(tmp_path) not in card
    train_tiny.main(options(folder, tmp_path/'other', *more, str(tmp_path/'two'), '--out', str(tmp_path/'three'))) # a work folder of its own
    assert [len(r['evals']) for r in told('three')['before']] == [len(one['evals']), len(two['evals'])] and '(50 before this run' in (tmp_path/'three'/'README.md').read_text()
    assert (tmp_path/'other'/'causal-400'/'tokenizer'/'tokenizer.json').read_bytes() == (tmp_path/'work'/'causal-400'/'tokenizer'/'tokenizer.json').read_bytes()
    with pytest.raises(SystemExit, match='num_hidden_layers 2, asked for is 3'): train_tiny.main(options(folder, tmp_path/'work', '--run', 'x', '--layers', '3', '--start', str(tmp_path/'one')))
    for wrong,why in (['--start', str(tmp_path/'nowhere')], 'it has no config.json'), (['--start', str(tmp_path/'one'), '--out', str(tmp_path/'one')], 'are one folder'):
        with pytest.raises(SystemExit): train_tiny.main(options(folder, tmp_path/'work', *wrong))
        assert why in capsys.readouterr().err
    with pytest.raises(SystemExit, match='began with other weights'): train_tiny.main(options(folder, tmp_path/'work', '--start', str(tmp_path/'one'))) # --run forgotten
    with pytest.raises(SystemExit, match='began with other weights'): train_tiny.main(options(folder, tmp_path/'work', '--run', 'two', '--steps', '10', '--seed', '7')) # --start forgotten
    corpus_folder(tmp_path/'else', docs[::-1])
    train_tiny.main(options(tmp_path/'else'/'corpus', tmp_path/'third', '--stop-after', '1'))
    with pytest.raises(SystemExit, match='another tokenizer'): train_tiny.main(options(tmp_path/'else'/'corpus', tmp_path/'third', '--run', 'x', '--start', str(tmp_path/'one')))


def test_torchrun_and_the_script(docs, tmp_path):
    "Two processes of the script itself: one model, one card, and the card says how it was made."
    folder = corpus_folder(tmp_path, docs)
    r = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', '-m', 'runs.train_tiny',
                        *options(folder, tmp_path/'work', '--steps', '4', '--out', str(tmp_path/'out'), '--about', 'Made-up text, free for all.', '--note', 'Two sat at it.')],
                       env={**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True, timeout=300, cwd=root)
    assert r.returncode == 0, r.stderr[-3000:]
    card = (tmp_path/'out'/'README.md').read_text()
    for part in ('2 process(es) of 1 thread(s)', 'torchrun --nproc-per-node 2 -m runs.train_tiny', 'Made-up text, free for all.', 'Two sat at it.', '| Updates | 4 |'): assert part in card
    assert r.stdout.count('bits per byte, held-out') == 1 and str(tmp_path) not in card


def test_articles():
    assert [a.split()[1] for a in train_tiny.articles('\n = One = \n x\n = = Part = = \n y\n = Two = \n z\n')] == ['One', 'Two']


def test_masked_chunks_stand_between_cls_and_sep(docs):
    tok = train_tokenizer(docs, 400, masked=True)
    chunks = train_tiny.cut(train_tiny.encode(docs, tok), 16, tok)
    assert chunks.shape[1] == 16 and set(chunks[:, 0]) == {tok.cls_token_id} and set(chunks[:, -1]) == {tok.sep_token_id}


def test_own_writing_leaves_out_what_is_recited(docs):
    tok = train_tokenizer(docs, 400)
    chunks = train_tiny.cut(train_tiny.encode(docs[:4], tok), 32, tok)
    tok.model_max_length = 32
    model = new_model(tiny_gpt_config(tok, n_layer=2, n_head=2, n_embd=64, max_length=32))
    fresh, none = train_tiny.own_writing(model, tok, chunks.reshape(-1), n=6)
    assert none == 0
    pretrain(model, tok, chunks, n_steps=250, batch_size=8, lr=5e-3, warmup_steps=5, progress=False)
    kept, left_out = train_tiny.own_writing(model, tok, chunks.reshape(-1), n=6)
    assert left_out >= 3 and len(kept) <= 6 - left_out


def test_the_output_layer_is_left_out_where_nothing_is_scored(docs):
    from course_lm.labels import BertMasking, LMCollator
    from course_lm.pretraining import _only_masked
    tok = train_tokenizer(docs, 400, masked=True)
    model = new_model(tiny_bert_config(tok, n_layer=2, n_head=2, n_embd=32, max_length=32))
    batch = LMCollator(tok, BertMasking(.3), seed=0)(list(train_tiny.cut(train_tiny.encode(docs[:20], tok), 32, tok)[:8].astype(np.int64)))
    with _only_masked(model): few = model(**batch)
    all_of_them = model(**batch)
    assert few.logits.shape[0] == int((batch['labels'] >= 0).sum()) and all_of_them.logits.shape[:2] == batch['labels'].shape
    torch.testing.assert_close(few.loss, all_of_them.loss, rtol=1e-5, atol=0)
    causal = new_model(tiny_gpt_config(400, n_layer=1, n_head=1, n_embd=16))
    with _only_masked(causal): assert not hasattr(causal, 'sparse_prediction')


# shipping

def test_a_parrot_is_found_out(small):
    tok, chunks = small
    model = new_model(tiny_gpt_config(tok, n_layer=2, n_head=2, n_embd=64, max_length=48))
    pretrain(model, tok, chunks[:16], n_steps=120, batch_size=16, lr=1e-2, warmup_steps=5, progress=False)
    found = memorization(model, chunks[:16, :8], chunks[:16].reshape(-1), max_new_tokens=22, at_least=20)
    assert sum(n >= 20 for n in found) >= 8 and all(n == 0 or 20 <= n <= 22 for n in found)
    assert memorization(model, chunks[:16, :8], chunks[200:].reshape(-1), max_new_tokens=22, at_least=20) == [0]*16


def test_recitations_agree_with_a_slow_search(small):
    tok, chunks = small
    model, corpus = new_model(shape(tok, dropout=0.)), chunks.reshape(-1)[:4000].astype(np.int64)
    for k in (1, 2, 3):
        found = memorization(model, chunks[:6, :8], corpus, max_new_tokens=10, at_least=k)
        out = model.eval().generate(torch.from_numpy(chunks[:6, :8].astype(np.int64)), do_sample=False, max_new_tokens=10, min_new_tokens=10, pad_token_id=0)[:, 8:].tolist()
        stands = lambda run: any(corpus[i:i+k].tolist() == run for i in range(len(corpus)-k+1))
        for n,new in zip(found, out): assert (n > 0) == any(stands(new[i:i+k]) for i in range(10-k+1))


def test_half_folder_is_small_and_loads(small, tmp_path):
    from course_lm.models import load_lm
    tok, _ = small
    model, h = run(small, n_steps=4)
    card = model_card('x', model.config, h, 'prose', {'bits per byte': 2.5}, 'make it')
    folder = save_lm(model, tok, tmp_path/'m', dtype=torch.bfloat16, card=card)
    save_lm(model, tok, tmp_path/'m', dtype=torch.bfloat16, card=card)
    assert (folder/'README.md').read_text() == card and f'{h.tokens:,}' in card and '2.5' in card
    assert (folder/'model.safetensors').stat().st_size < 2.2*model.num_parameters() + 20_000
    back, tok2 = load_lm(folder)
    assert tok2.get_vocab() == tok.get_vocab()
    for (n,a),b in zip(model.named_parameters(), back.parameters()): torch.testing.assert_close(a, b, rtol=1/128, atol=1e-6, msg=n)
    assert next(model.parameters()).dtype == torch.float32


def test_xz_and_plan():
    assert compression_baseline('word '*1000) < .5 and compression_baseline('abc '*50, 'abc '*50) <= compression_baseline('abc '*50)
    plan = plan_run(tiny_gpt_config(500), 128, 1000., 50_000, minutes=2)
    assert plan.seconds == 120 and plan.epochs == 2.4 and 'M parameters' in repr(plan)
