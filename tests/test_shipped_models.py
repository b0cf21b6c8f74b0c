"The models inside the package: their folders, the wheel, and that they know what their cards say."

import json, re
from pathlib import Path

import pytest, torch

import course_lm
from course_lm.models import reference_texts, load_lm
from course_lm.predictions import fill_mask, generate_text
from course_lm.scoring import score_texts

folder = Path(course_lm.__file__).parent / 'pretrained'
models = {'tiny-gpt': 'causal', 'tiny-bert': 'masked'}


def card(name):
    "The card's tables: name of a row -> its text."
    return dict(
        re.findall(r'^\| (.+?) \| (.+?) \|$', (folder / name / 'README.md').read_text(encoding='utf-8'), re.M)
    )


@pytest.mark.parametrize('name', models)
def test_a_folder_holds_a_small_model_its_card_and_no_pickle(name):
    files = {p.name: p.stat().st_size for p in (folder / name).iterdir()}
    assert set(files) <= {
        '.course_lm.json',
        'README.md',
        'config.json',
        'generation_config.json',
        'home.json',
        'model.safetensors',
        'tokenizer.json',
        'tokenizer_config.json',
        'training.json',
    }
    assert sum(files.values()) < 12e6
    from safetensors import safe_open

    with safe_open(folder / name / 'model.safetensors', 'pt') as f:
        assert {f.get_slice(k).get_dtype() for k in f.keys()} <= {'BF16', 'F16'}


@pytest.mark.parametrize('name', models)
def test_the_plain_auto_classes_load_the_same_model(name):
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    theirs = (
        (AutoModelForCausalLM if models[name] == 'causal' else AutoModelForMaskedLM)
        .from_pretrained(folder / name)
        .eval()
    )
    ours, tok = load_lm('tiny', models[name])
    ids = tok('A film like no other.', return_tensors='pt')
    assert (
        theirs.dtype == torch.float32
        and AutoTokenizer.from_pretrained(folder / name)('A film')['input_ids'] == tok('A film')['input_ids']
    )
    torch.testing.assert_close(theirs(**ids).logits, ours(**ids).logits, rtol=0, atol=0)
    torch.testing.assert_close(
        AutoModel.from_pretrained(folder / name).eval()(**ids).last_hidden_state,
        ours.base_model(**ids).last_hidden_state,
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize('name', models)
def test_the_card_tells_what_it_must(name):
    rows, text = card(name), (folder / name / 'README.md').read_text(encoding='utf-8')
    assert {
        'Parameters',
        'Tokens read',
        'Tokens scored (asked for, and counted in the loss)',
        'Updates',
        'Training time, minutes',
        'Machine',
        'Date',
        'Recipe',
        'Seed',
    } <= set(rows)
    lm, tok = load_lm('tiny', models[name])
    assert int(rows['Parameters'].split()[0].replace(',', '')) == lm.num_parameters()
    assert 'scripts/train_tiny.py' in text and 'IMDb' in text and 'WikiText-2' in text and 'CC BY-SA' in text
    told = json.loads((folder / name / 'training.json').read_text())
    assert sum(run['evals'][-1]['step'] for run in [*told.get('before', []), told]) == int(
        rows['Updates'].split()[0].replace(',', '')
    )
    if models[name] == 'causal':
        at = next(k for k in rows if k.startswith('of 200 openings'))
        assert int(rows[at]) <= 10, 'it recites'
        assert (
            float(rows['bits per byte, held-out reviews'])
            < float(rows['Kneser-Ney trigram on the same training text, bits per byte'])
            < float(rows['xz, bits per byte'])
        )
    else:
        assert float(rows['masked tokens guessed right, held-out reviews, 15 % masks']) > 3 * float(
            rows['always guessing the most frequent token']
        )


def test_its_own_writing_costs_what_the_card_says():
    lm, tok = load_lm('tiny')
    value = float(
        next(v for k, v in card('tiny-gpt').items() if k.startswith('bits per byte of its own writing'))
    )
    texts = reference_texts()
    assert len(texts) > 100 and reference_texts(load_lm('tiny', 'masked')[0]) == texts
    measured = sum(score_texts(lm, tok, texts)).bits_per_byte
    assert abs(measured - value) < 0.01 * value


def test_the_causal_one_knows_english_and_reviews():
    lm, tok = load_lm('tiny')
    right = [
        'I have never seen a film as bad as this one.',
        'The acting was good, but the story was not.',
        'This is one of the best movies that I have ever seen.',
    ]
    for t in right:
        words = t[:-1].split()
        wrong = ' '.join(words[::-1]) + '.'
        a, b = (sum(score_texts(lm, tok, [x])).nats for x in (t, wrong))
        assert a < 0.7 * b, (t, a, b)
    assert generate_text(lm, tok, 'This movie is', max_new_tokens=3, temperature=0) == generate_text(
        lm, tok, 'This movie is', max_new_tokens=3, temperature=0
    )


def test_the_masked_one_fills_with_words_that_fit():
    lm, tok = load_lm('tiny', 'masked')
    found = [
        fill_mask(lm, tok, t.replace('_', tok.mask_token), top_k=20).token.str.strip().tolist()
        for t in (
            'I have never seen such a _ movie.',
            'The _ was directed by a woman.',
            'I _ this film very much.',
        )
    ]
    assert 'bad' in found[0] or 'good' in found[0]
    assert {'film', 'movie'} & set(found[1])
    assert {'liked', 'enjoyed', 'loved', 'like', 'enjoy', 'love'} & set(found[2])


def test_tiny_gpt_knows_films_better_than_manuals():
    from course_lm.data import python_docs
    from course_lm.reviews import reviews
    from course_lm.scoring import score_texts

    lm, tok = load_lm('tiny')
    films, manual = (
        sum(score_texts(lm, tok, t)).bits_per_byte for t in (list(reviews(20)['text']), python_docs()[-20:])
    )
    assert films < manual - 0.2


def test_tiny_bert_guesses_what_a_review_says():
    lm, tok = load_lm('tiny', 'masked')

    def guesses(text):
        return {t.strip() for t in fill_mask(lm, tok, text, top_k=5).token}

    assert {'film', 'movie'} <= guesses('This is a great [MASK].') and guesses('The [MASK] was terrible.') & {
        'acting',
        'movie',
        'film',
    }


def test_own_writing_costs_about_what_the_model_expects():
    "What was drawn from a model's probabilities costs it their entropy, on average."
    tiny, tok = load_lm('tiny')
    rows = [
        torch.tensor([[tok.bos_token_id, *tok(t, add_special_tokens=False)['input_ids']]])[:, :200]
        for t in reference_texts(tiny)[:40]
    ]
    cost = expected = n = 0
    with torch.no_grad():
        for row in rows:
            logp = tiny(row).logits[0, :-1].log_softmax(-1)
            cost -= float(logp.gather(1, row[0, 1:, None]).sum())
            expected -= float((logp.exp() * logp).sum())
            n += len(logp)
    assert n > 3000 and cost == pytest.approx(expected, rel=0.06)
