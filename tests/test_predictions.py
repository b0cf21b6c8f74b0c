"""Lesson 03 beyond its notebook: what is drawn and what is healed, guesses, masks, and what is refused."""

import math

import pytest, torch

from course_lm.labels import BertMasking, LMCollator
from course_lm.models import load_lm, new_model, tiny_bert_config, tiny_gpt_config
from course_lm.predictions import _heal, fill_mask, generate_text, lm_predictions, show_predictions


@pytest.fixture
def lm(tok):
    return new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32))


@pytest.fixture
def masked(mtok):
    return new_model(tiny_bert_config(mtok, n_layer=2, n_embd=32))


@pytest.fixture(scope='module')
def tiny():
    return load_lm('tiny')


# Generating


def test_a_prompt_begins_as_the_tokenizer_begins_a_text(tok):
    from copy import deepcopy

    from tokenizers.processors import TemplateProcessing

    tok = deepcopy(tok)
    tok.add_special_tokens({'bos_token': '<s>'})
    specials = [('<s>', tok.bos_token_id), (tok.eos_token, tok.eos_token_id)]
    end = tok.eos_token
    tok.backend_tokenizer.post_processor = TemplateProcessing(single=f'<s> $A {end}', special_tokens=specials)
    torch.manual_seed(0)
    model = new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32)).eval()
    for p in model.parameters():
        p.data.mul_(4)
    ids = tok('if the', return_tensors='pt')['input_ids'][:, :-1]
    assert ids[0, 0] == tok.bos_token_id
    out = model.generate(ids, do_sample=False, max_new_tokens=8, pad_token_id=tok.eos_token_id)
    want = tok.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert generate_text(model, tok, 'if the', 8, temperature=0, full_text=False) == want


def test_encoder_decoders_are_named(mtok):
    from transformers import T5Config, T5ForConditionalGeneration

    t5 = T5ForConditionalGeneration(T5Config(vocab_size=300, d_model=16, d_kv=8, num_layers=1, num_heads=2))
    with pytest.raises(ValueError, match='model: T5.* is an encoder-decoder model(?!.*masked model)'):
        generate_text(t5, mtok, 'if')
    batch = dict(input_ids=torch.ones(1, 4).long(), labels=torch.ones(1, 3).long())
    with pytest.raises(ValueError, match='model: T5.* is an encoder-decoder model'):
        lm_predictions(t5, mtok, batch)


def test_generation_leaves_no_trace(lm, tok):
    lm.train()
    state, side = torch.get_rng_state(), tok.padding_side
    a = generate_text(lm, tok, ['The name', 'The value of the'], max_new_tokens=5, seed=1)
    assert torch.equal(torch.get_rng_state(), state) and tok.padding_side == side and lm.training
    assert a == generate_text(lm, tok, ['The name', 'The value of the'], max_new_tokens=5, seed=1)
    assert [t.startswith(p) for t, p in zip(a, ('The name', 'The value of the'))] == [True, True]
    assert isinstance(generate_text(lm, tok, '', max_new_tokens=3), str)
    assert (
        len({generate_text(lm, tok, 'The', max_new_tokens=5, temperature=2.0, seed=s) for s in range(4)}) > 1
    )
    assert generate_text(lm, tok, 'The', max_new_tokens=5, top_k=1, seed=1) == generate_text(
        lm, tok, 'The', max_new_tokens=5, temperature=0
    )


def test_a_batch_writes_what_each_prompt_alone_writes(tiny):
    prompts = ['The value of', 'If the', 'An exception is raised when a name cannot be', '']
    for heal in (False, True):
        how = dict(max_new_tokens=8, temperature=0, heal=heal)
        assert generate_text(*tiny, prompts, **how) == [generate_text(*tiny, p, **how) for p in prompts]
    assert len(generate_text(*tiny, prompts, max_new_tokens=4, n=2, seed=1)) == 8
    assert generate_text(*tiny, 'If', seed=1) == generate_text(*tiny, 'If', seed=1)
    rest = generate_text(*tiny, prompts, max_new_tokens=4, seed=1, full_text=False)
    assert generate_text(*tiny, prompts, max_new_tokens=4, seed=1) == [p + r for p, r in zip(prompts, rest)]


def test_what_cannot_be_written(tiny, masked, mtok):
    model, tok = tiny
    cases = [
        (dict(max_new_tokens=300), ValueError, 'more than the 256 tokens that the model can read'),
        (dict(temperature=-1), ValueError, 'temperature=-1 must be'),
        (dict(top_p=0), ValueError, 'top_p=0 must be'),
        (dict(temperature=0, n=2), ValueError, 'the same text 2 times'),
        (dict(n=0), ValueError, 'n=0 must be'),
        (dict(top_k=2.5), TypeError, 'top_k=2.5 must be'),
        (dict(heal='yes'), TypeError, "heal='yes' must be"),
        (dict(temprature=1), TypeError, 'temprature'),
    ]
    for kw, error, says in cases:
        with pytest.raises(error, match=says):
            generate_text(model, tok, 'If', **kw)
    with pytest.raises(ValueError, match='must hold a text'):
        generate_text(model, tok, [])
    with pytest.raises(ValueError, match='use fill_mask'):
        generate_text(masked, mtok, 'If')
    with pytest.raises(TypeError, match='the order is .model, tokenizer.'):
        generate_text(tok, model, 'If')
    model.train()
    with pytest.raises(ValueError):
        generate_text(model, tok, 'If', max_new_tokens=300)
    assert model.training
    model.eval()


# Healing


def test_healing_takes_back_only_what_it_must(lm, tok):
    for p in ('the', 'the name', 'a ', 'é', '<|endoftext|>a', 'The value of the obje', 'x' * 50):
        for text in (
            generate_text(lm, tok, p, max_new_tokens=3, temperature=0, heal=True),
            *generate_text(lm, tok, p, max_new_tokens=3, n=2, seed=1, heal=True),
        ):
            assert text.startswith(p), (p, text)
    assert lm.training


def test_the_tokens_that_may_come_next(tiny):
    _, tok = tiny
    kept, allowed = _heal(tok, tok('This movie is fant')['input_ids'])
    assert tok.decode(kept) == 'This movie is'
    assert {piece[:5] for piece in tok.convert_ids_to_tokens(allowed)} == {'Ġfant'}
    assert _heal(tok, []) == ([], None)
    end = tok.eos_token_id
    assert _heal(tok, [7, end]) == ([7, end], None)  # nothing is longer than a special token


def test_a_healed_word_is_the_likeliest_of_those_that_begin_so(tiny):
    model, tok = tiny
    prompt = 'I have never se'
    kept, allowed = _heal(tok, tok(prompt)['input_ids'])
    with torch.no_grad():
        logits = model(torch.tensor([kept])).logits[0, -1]
    best = allowed[int(logits[allowed].argmax())]
    assert generate_text(model, tok, prompt, max_new_tokens=1, temperature=0, heal=True) == tok.decode(
        [*kept, best]
    )
    drawn = generate_text(model, tok, prompt, max_new_tokens=1, n=20, temperature=5.0, seed=1, heal=True)
    assert {t.split()[-1] for t in drawn} <= {tok.decode([i]).strip() for i in allowed} and len(
        set(drawn)
    ) > 1
    assert len(set(generate_text(model, tok, prompt, max_new_tokens=1, n=5, top_k=1, seed=1, heal=True))) == 1


# Guesses


def test_predictions(masked, mtok):
    rows = [{'input_ids': mtok(text)['input_ids']} for text in ('a < b & the name', 'a')]
    batch = LMCollator(mtok, BertMasking(0.5), seed=1)(rows)
    frame = lm_predictions(masked, mtok, batch)
    assert (
        len(frame) == batch['attention_mask'].sum() and frame.scored.sum() == (batch['labels'] != -100).sum()
    )
    assert frame[frame.row == 0].token.str.cat() == mtok.decode(rows[0]['input_ids'])
    html = show_predictions(masked, mtok, batch).data
    assert '<·b' not in html and '&lt;' in html
    assert masked.training


def test_the_loss_is_the_mean_of_what_is_shown(tiny):
    model, tok = tiny
    batch = LMCollator(tok)([{'input_ids': tok('A film like no other.')['input_ids']}])
    frame = lm_predictions(model, tok, batch)
    asked = frame[frame.scored]
    assert -asked.p_token.map(math.log).mean() == pytest.approx(model(**batch).loss.item(), rel=1e-4)
    assert len(asked) == batch['labels'].numel() - 1 and not frame[frame.position == 0].scored.any()
    one, two = (
        show_predictions(model, tok, {k: v.repeat(2, 1) for k, v in batch.items()}, n=n).data for n in (1, 2)
    )
    assert f'0: {asked.right.sum()} of {len(asked)} right' in one and '1: ' in two and '>1: ' not in one
    del batch['attention_mask']
    assert show_predictions(model, tok, batch, n=1).data == one
    with pytest.raises(TypeError, match='batch=.* must be a dict of tensors'):
        show_predictions(model, tok, [1])


# Masks


def test_masks_are_filled(mtok):
    masked, mtok = load_lm('tiny', 'masked')
    assert len(fill_mask(masked, mtok, '[MASK] is [MASK].', top_k=3)) == 6
    assert fill_mask(masked, mtok, 'a [MASK]', top_k=9999).prob.sum() == pytest.approx(1, abs=1e-4)
    first = fill_mask(masked, mtok, 'The [MASK] was terrible.', top_k=1)
    assert first.text[0].strip() == f'The {first.token[0].strip()} was terrible.'


def test_masks_that_are_not_there(tiny, masked, mtok):
    with pytest.raises(ValueError, match=r"has no '\[MASK\]', which is the mask token"):
        fill_mask(masked, mtok, 'a <mask>')
    with pytest.raises(ValueError, match='is a causal model'):
        fill_mask(*tiny, 'a [MASK]')
    with pytest.raises(ValueError, match='more than the 128 that the model can read'):
        fill_mask(masked, mtok, 'a ' * 200 + '[MASK]')
    with pytest.raises(TypeError, match='text=3 must be a str'):
        fill_mask(masked, mtok, 3)
