"Lesson 55 beyond its notebook: LoRA beside PEFT's, merged, on other models, and what is refused."
import copy, json

import numpy as np
import pytest, torch

from benchmarks.bench import results
from course_lm.adapters import LoRA, add_lora, merge_lora
from course_lm.data import python_docs, train_tokenizer
from course_lm.finetuning import train_loop
from course_lm.models import load_lm, new_model, save_lm, tiny_bert_config, tiny_gpt_config


@pytest.fixture(scope='module')
def models():
    "kind -> (model, tokenizer), random weights; GPT-2 keeps its matrices as (in, out), ModernBERT does not."
    docs = python_docs()[:100]
    tok, masked_tok = train_tokenizer(docs, 400), train_tokenizer(docs, 400, masked=True)
    gpt = new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32, max_length=64))
    bert = new_model(tiny_bert_config(masked_tok, n_layer=2, n_embd=32))
    return {'gpt': (gpt.eval(), tok), 'bert': (bert.eval(), masked_tok)}


def batch(model, rows=4, length=12):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, model.config.vocab_size, (rows, length), generator=generator)
    if model.config.model_type == 'gpt2': return dict(input_ids=ids, labels=ids)
    hidden = torch.arange(length).expand(rows, -1) % 3 == 0 # asked for, so not to be read
    return dict(input_ids=ids.masked_fill(hidden, 4), labels=ids.masked_fill(~hidden, -100))


def loras(model): return [m for m in model.modules() if isinstance(m, LoRA)]


def learnt(model, n_steps=3): # B is no longer zero
    train_loop(model, [batch(model)], n_steps=n_steps, lr=1e-2, progress=False)
    return model.eval()


NAMES = {'gpt': ['c_attn', 'c_proj', 'c_fc'], 'bert': ['Wqkv', 'Wo', 'Wi']}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', NAMES)
def test_it_is_pefts_to_the_last_digits(models, kind):
    from peft import LoraConfig, get_peft_model
    model = models[kind][0]
    ours = add_lora(copy.deepcopy(model), rank=3, alpha=6)
    config = LoraConfig(r=3, lora_alpha=6, target_modules=NAMES[kind], fan_in_fan_out=kind == 'gpt')
    theirs = get_peft_model(copy.deepcopy(model), config)
    layers = [m for m in theirs.modules() if getattr(m, 'lora_A', None)]
    for a, b in zip(loras(ours), layers, strict=True):
        assert a.A.shape == b.lora_A.default.weight.shape and a.B.shape == b.lora_B.default.weight.shape
        b.lora_A.default.weight.data.copy_(a.A)
        b.lora_B.default.weight.data.copy_(a.B)
    data, losses = batch(model), {}
    for name, one in (('ours', ours), ('theirs', theirs)):
        optimizer = torch.optim.AdamW([p for p in one.parameters() if p.requires_grad], lr=1e-2)
        losses[name] = []
        for _ in range(3):
            loss = one(**data).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[name].append(loss.item())
    torch.testing.assert_close(losses['ours'], losses['theirs'], rtol=1e-6, atol=1e-6)
    assert losses['ours'][2] < losses['ours'][0]
    with torch.no_grad(): a, b = ours(**data).logits, theirs(**data).logits
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    merged, unloaded = merge_lora(ours), theirs.merge_and_unload()
    torch.testing.assert_close(merged(**data).logits, unloaded(**data).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('kind', NAMES)
def test_it_starts_as_the_model_and_merges_into_its_shape(models, kind, tmp_path):
    model, tok = models[kind]
    one = add_lora(copy.deepcopy(model), rank=2)
    data = batch(model)
    with torch.no_grad(): assert torch.equal(one(**data).logits, model(**data).logits)
    learnt(one)
    frozen = [m.base.weight for m in loras(one)]
    with torch.no_grad(): apart = one(**data).logits
    assert not torch.allclose(apart, model(**data).logits)
    merged = merge_lora(one)
    assert not loras(merged) and merged.state_dict().keys() == model.state_dict().keys()
    assert all(p.requires_grad for p in merged.parameters()) and frozen
    with torch.no_grad(): torch.testing.assert_close(merged(**data).logits, apart, rtol=1e-4, atol=1e-5)
    head = {'gpt': 'causal', 'bert': 'masked'}[kind]
    again = load_lm(save_lm(merged, tok, tmp_path / 'merged'), head)[0]
    with torch.no_grad(): assert torch.equal(again(**data).logits, merged(**data).logits)


def test_only_the_addition_moves(models):
    model = models['gpt'][0]
    one = add_lora(copy.deepcopy(model), rank=2, targets=['c_attn'])
    assert {n.split('.')[-1] for n, p in one.named_parameters() if p.requires_grad} == {'A', 'B'}
    assert len(loras(one)) == 2 and sum(p.numel() for p in one.parameters() if p.requires_grad) == 2*2*(32+96)
    before = {n: p.clone() for n, p in one.named_parameters() if not p.requires_grad}
    learnt(one)
    after = dict(one.named_parameters())
    assert all(torch.equal(p, after[n]) for n, p in before.items())
    assert all((m.B != 0).any() for m in loras(one))


def test_a_seed_decides_a_and_no_random_state_is_touched(models):
    model = models['gpt'][0]
    state = torch.get_rng_state()
    a, same, other = (add_lora(copy.deepcopy(model), seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for x, y, z in zip(*map(loras, (a, same, other)), strict=True):
        assert torch.equal(x.A, y.A) and not torch.equal(x.A, z.A) and not x.B.any()
        assert x.A.abs().max() <= 1/x.A.shape[1]**.5 and x.scale == 2


def test_a_new_head_is_trained_and_an_old_one_is_not(models):
    model, tok = models['gpt']
    classifier, _ = load_lm((copy.deepcopy(model), tok), 'sequence-classification', labels=['bad', 'good'])
    add_lora(classifier, rank=2)
    outside = {n for n, p in classifier.named_parameters() if p.requires_grad and n[-2:] not in ('.A', '.B')}
    assert outside == {'score.weight'}
    masked = add_lora(copy.deepcopy(models['bert'][0]), rank=2)
    assert all(n[-2:] in ('.A', '.B') for n, p in masked.named_parameters() if p.requires_grad)


def test_sixteen_bits_stay_sixteen_bits(models):
    one = add_lora(copy.deepcopy(models['gpt'][0]).to(torch.bfloat16), rank=2)
    assert {p.dtype for p in one.parameters()} == {torch.bfloat16}
    assert one(**batch(one)).logits.dtype == torch.bfloat16


def test_what_is_refused(models):
    def one(): return copy.deepcopy(models['gpt'][0])
    with pytest.raises(ValueError, match='wte is no matrix of the body, which has c_attn, c_fc, c_proj'):
        add_lora(one(), targets=['c_attn', 'wte'])
    with pytest.raises(ValueError, match='LoRA layers already'): add_lora(add_lora(one()))
    with pytest.raises(ValueError, match='no LoRA layers'): merge_lora(one())
    with pytest.raises(ValueError, match='rank'): add_lora(one(), rank=0)
    with pytest.raises(ValueError, match='alpha'): add_lora(one(), alpha=0)
    with pytest.raises(TypeError, match='targets'): add_lora(one(), targets='c_attn')


@pytest.fixture(scope='module')
def record():
    return json.loads((results / 'adapters.json').read_text(encoding='utf-8'))


def chosen(record, method): return [r for r in record['runs'] if r['method'] == method
                                    and r['rate'] == record['rates'][method]]


def test_rates_of_the_record_are_chosen_on_validation_text_with_a_worse_one_on_each_side(record):
    seeds = record['settings']['seeds']
    for method, rate in record['rates'].items():
        assert [r['seed'] for r in chosen(record, method)] == seeds
        first = [r for r in record['runs'] if r['method'] == method and r['seed'] == seeds[0]]
        tried = {r['rate']: r['valid'] for r in first}
        assert rate == min(tried, key=tried.get) and min(tried) < rate < max(tried)
    assert record['machine']['date'] and record['cpu_seconds'] < 1200


def test_what_the_lesson_says_of_its_record(record):
    untouched = record['untouched']
    gain, lost = {}, {}
    for method in record['rates']:
        runs = chosen(record, method)
        gain[method] = sum(untouched['test'] - r['test'] for r in runs) / len(runs)
        lost[method] = sum(r['reviews'] - untouched['reviews'] for r in runs) / len(runs)
    ranks = [f'LoRA, rank {rank}' for rank in (1, 4, 16)]
    assert gain[ranks[0]] < gain[ranks[1]] < gain[ranks[2]] < gain['last block'] < gain['full']
    assert .65 < gain[ranks[1]] / gain['full'] < .85
    assert lost[ranks[1]] > .95*lost['full'] and lost['rehearsal'] < lost['full']
    tenfold = [round(record['rates'][rank] / record['rates']['full'], 6) for rank in ranks[1:]]
    assert tenfold == [10, 10]
    for a, b in [(a, b) for a in chosen(record, 'full') for r in ranks for b in chosen(record, r)]:
        if a['seed'] == b['seed']: assert lost_at(a['path']) < lost_at(b['path'])
    slow = {(r['method'], r['rate']): r for r in record['runs'] if r['seed'] == 0}
    assert slow['full', 1e-4]['reviews'] < slow['full', 3e-4]['reviews'] - .05
    assert slow['rehearsal', 3e-4]['reviews'] < slow['rehearsal', 1e-3]['reviews'] - .05


def lost_at(path, gain=.25):
    "Bits lost on its own writing where the gain on validation text is `gain`."
    valid, own = (np.array([now[k] for now in path]) for k in ('valid', 'own'))
    until = valid.argmin() + 1
    assert valid[0] - valid.min() >= gain
    return np.interp(gain, (valid[0] - valid)[:until], (own - own[0])[:until])
