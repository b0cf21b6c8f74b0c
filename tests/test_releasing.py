"Lesson 7: recitations, files of half the size, cards, and what the training script takes from the library."

import numpy as np
import pytest
import torch

from course_lm.data import train_tokenizer
from course_lm.models import new_model, save_lm, tiny_gpt_config
from course_lm.pretraining import pretrain
from course_lm.releasing import (
    articles,
    classification_movies,
    cut,
    encode,
    memorization,
    model_card,
    own_writing,
    read_folder,
    split_documents,
)
from tests.test_pretraining import run, shape
from tests.test_train_tiny import corpus_folder

pytestmark = pytest.mark.usefixtures('one_thread')


def test_held_out_movies_are_not_read(docs, tmp_path):
    rows = read_folder(corpus_folder(tmp_path, docs))
    parts, report = split_documents(rows)
    movie = {d['text']: d['movie'] for d in rows}
    held = {movie[t] for t in parts['valid'] + parts['test']}
    assert held and not held & {movie[t] for t in parts['train']}
    kept = classification_movies(rows)
    assert kept and not kept & {movie[t] for t in parts['train']}
    assert not any('never to be learnt' in t for t in parts['train']) and parts['wiki_test']
    assert any('some words' in t for t in parts['train'])
    again, _ = split_documents(rows[::-1])
    assert sorted(again['train']) == sorted(parts['train'])
    assert report['after_deduplication']['train'] == len(parts['train'])


def test_kept_movies_are_those_of_lesson_6(docs, tmp_path):
    from datasets import Dataset
    from course_lm.baselines import imdb_splits

    rows = [d for d in read_folder(corpus_folder(tmp_path, docs)) if d['movie']]
    ds = Dataset.from_dict(
        {
            'text': [d['text'] for d in rows],
            'label': [i % 2 for i in range(len(rows))],
            'movie': [d['movie'] for d in rows],
        }
    )
    kept = classification_movies(rows)
    for shares in ((0.7, 0.1, 0.2), (0.8, 0.1, 0.1)):
        parts = imdb_splits(ds, by='movie', shares=shares)
        assert set(parts['valid']['movie']) | set(parts['test']['movie']) <= kept


def test_a_corpus_without_movies_is_held_out_by_text(docs):
    rows = [dict(text=t, file='a.txt', movie='', labelled=False) for t in docs]
    parts, _ = split_documents(rows)
    assert parts['train'] and parts['valid'] and parts['test']
    assert not set(parts['valid'] + parts['test']) & set(parts['train'])
    with pytest.raises(ValueError, match='leaves no text for'):
        split_documents(rows[:3])


def test_articles():
    assert [a.split()[1] for a in articles('\n = One = \n x\n = = Part = = \n y\n = Two = \n z\n')] == [
        'One',
        'Two',
    ]


def test_masked_chunks_stand_between_cls_and_sep(docs):
    tok = train_tokenizer(docs, 400, masked=True)
    chunks = cut(encode(docs, tok), 16, tok)
    assert chunks.shape[1] == 16 and set(chunks[:, 0]) == {tok.cls_token_id}
    assert set(chunks[:, -1]) == {tok.sep_token_id}


def test_own_writing_leaves_out_what_is_recited(docs):
    tok = train_tokenizer(docs, 400)
    chunks = cut(encode(docs[:4], tok), 32, tok)
    tok.model_max_length = 32
    model = new_model(tiny_gpt_config(tok, n_layer=2, n_head=2, n_embd=64, max_length=32))
    fresh, none = own_writing(model, tok, chunks.reshape(-1), n=6)
    assert none == 0
    pretrain(model, tok, chunks, n_steps=250, batch_size=8, lr=5e-3, warmup_steps=5, progress=False)
    kept, left_out = own_writing(model, tok, chunks.reshape(-1), n=6)
    assert left_out >= 3 and len(kept) <= 6 - left_out


def test_a_parrot_is_found_out(small):
    tok, chunks = small
    model = new_model(tiny_gpt_config(tok, n_layer=2, n_head=2, n_embd=64, max_length=48))
    pretrain(model, tok, chunks[:16], n_steps=120, batch_size=16, lr=1e-2, warmup_steps=5, progress=False)
    found = memorization(model, chunks[:16, :8], chunks[:16].reshape(-1), max_new_tokens=22, at_least=20)
    assert sum(n >= 20 for n in found) >= 8 and all(n == 0 or 20 <= n <= 22 for n in found)
    assert (
        memorization(model, chunks[:16, :8], chunks[200:].reshape(-1), max_new_tokens=22, at_least=20)
        == [0] * 16
    )


def test_recitations_agree_with_a_slow_search(small):
    tok, chunks = small
    model, corpus = new_model(shape(tok, dropout=0.0)), chunks.reshape(-1)[:4000].astype(np.int64)
    for k in (1, 2, 3):
        found = memorization(model, chunks[:6, :8], corpus, max_new_tokens=10, at_least=k)
        out = (
            model.eval()
            .generate(
                torch.from_numpy(chunks[:6, :8].astype(np.int64)),
                do_sample=False,
                max_new_tokens=10,
                min_new_tokens=10,
                pad_token_id=0,
            )[:, 8:]
            .tolist()
        )
        known = [corpus[i : i + k].tolist() for i in range(len(corpus) - k + 1)]
        for n, new in zip(found, out):
            assert (n > 0) == any(new[i : i + k] in known for i in range(10 - k + 1))


def test_half_folder_is_small_and_loads(small, tmp_path):
    from course_lm.models import load_lm

    tok, _ = small
    model, h = run(small, n_steps=4)
    card = model_card('x', model.config, h, 'prose', {'bits per byte': 2.5}, 'make it')
    folder = save_lm(model, tok, tmp_path / 'm', dtype=torch.bfloat16, card=card)
    save_lm(model, tok, tmp_path / 'm', dtype=torch.bfloat16, card=card)
    assert (folder / 'README.md').read_text() == card and f'{h.tokens:,}' in card and '2.5' in card
    assert (folder / 'model.safetensors').stat().st_size < 2.2 * model.num_parameters() + 20_000
    back, tok2 = load_lm(folder)
    assert tok2.get_vocab() == tok.get_vocab()
    for (n, a), b in zip(model.named_parameters(), back.parameters()):
        torch.testing.assert_close(a, b, rtol=1 / 128, atol=1e-6, msg=n)
    assert next(model.parameters()).dtype == torch.float32
