"""The same answers whatever the hash seed of the process, and whatever the number of threads."""
import os, subprocess, sys
from pathlib import Path

import pytest
import torch

from course_lm.finetuning import train_loop
from course_lm.pretraining import pretrain
from course_lm.scoring import score_texts
from tests.toys import a_model, chunks, loaders, texts, toks

root = Path(__file__).resolve().parents[1]

# Everything that counts, sorts or splits texts: words, near copies, splits, tokenizers, orders, strategies.
CODE = r"""
import hashlib
import numpy as np
from course_lm.advice import byte_ngram_bits, fragmented_words, length_matched_pairs, tokenizer_fit
from course_lm.baselines import imdb_splits, leak_report, linear_baseline, near_duplicates
from course_lm.chunking import lm_datasets, shared_documents
from course_lm.classification import LengthBucketedSampler
from course_lm.data import python_docs, train_tokenizer
from course_lm.denoising import SentencePermutation, WholeWordMasking
from course_lm.labels import BertMasking, LMCollator
from course_lm.policies import split_leak
from course_lm.releasing import split_documents
from course_lm.reviews import reviews
from course_lm.scratch import compression_baseline, deduplicate
from course_lm.streaming import chunk_stream
from course_lm.support.files import fingerprint, text_key
from course_lm.support.words import sentence_spans, words_of

docs = [d[:300] for d in python_docs()[:60]]
some = reviews(80, length='short')
tok, mtok = (train_tokenizer(docs, 400, masked=m) for m in (False, True))
parts = imdb_splits(some, by='position', shares=(.5, .25, .25), seed=1)
moved = some.add_column('movie', [f'm{i // 3}' for i in range(len(some))])
by_movie = imdb_splits(moved, by='movie', shares=(.5, .25, .25), seed=1)
rows = [mtok(d)['input_ids'][:40] for d in docs[:8]]

def show(name, value): print(name, hashlib.sha256(repr(value).encode()).hexdigest()[:16])

show('words', [words_of(d) + sentence_spans(d) for d in docs])
show('keys', [text_key(d) for d in docs] + [fingerprint({'b', 'a'}, docs)])
show('tokenizers', [t.get_vocab() == dict(sorted(t.get_vocab().items())) and sorted(t.get_vocab().items())
                    for t in (tok, mtok, train_tokenizer(docs, 400, kind='word'))])
show('deduplicate', deduplicate(docs + docs[::-1]))
show('shared', shared_documents(docs[:30] + docs[40:50], docs[30:]))
show('near', near_duplicates(docs + [d.replace('the', 'a', 1) for d in docs[:9]], docs, n=4, share=.5))
show('leaks', leak_report(parts))
show('splits', [[*s[k]['text']] for s in (parts, by_movie) for k in s])
show('documents', split_documents([dict(text=d, file='a', movie=f'm{i}', labelled=False)
                                   for i, d in enumerate(python_docs()[:400])], seed=1))
show('pairs', length_matched_pairs(docs[:30], docs[30:], n=5, longest=100, seed=1))
show('fit', [tokenizer_fit(docs, tok), byte_ngram_bits(docs, order=3, most=4000)])
show('xz', compression_baseline(docs[0]))
show('fragmented', fragmented_words(docs[:30], tok, docs[30:], pieces=2, count=1, rare=.1).to_csv())
show('chunks', lm_datasets(docs[:40], docs[40:], tok, 32)['train']['input_ids'][:])
show('stream', [c['input_ids'].tolist() for c in chunk_stream(rows, 8, shuffle_buffer=4, seed=1)])
show('leak', split_leak(np.arange(1, 60), 16))
show('sampler', list(LengthBucketedSampler(list(range(1, 40)), 4, pool=2)))
for strategy in (BertMasking(), WholeWordMasking(), SentencePermutation()):
    batch = LMCollator(mtok, strategy, seed=1)(rows)
    show(repr(strategy), {k: v.tolist() for k, v in batch.items()})
show('linear', linear_baseline(parts, 'tfidf').probs.round(6).tolist())
"""


def told(seed):
    env = {**os.environ, "PYTHONHASHSEED": str(seed), "HF_HUB_OFFLINE": "1"}
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", CODE], env=env, cwd=root, text=True,
                         capture_output=True)
    assert out.returncode == 0, out.stderr[-2000:]
    return dict(line.rsplit(" ", 1) for line in out.stdout.splitlines())


@pytest.mark.slow
def test_the_hash_seed_of_a_process_changes_nothing():
    first, second = told(1), told(2)
    assert len(first) >= 20
    assert [name for name in first if first[name] != second.get(name)] == []


def threads(n, act):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try: return act()
    finally: torch.set_num_threads(before)


RUNS = {
    "train_loop": lambda: train_loop(a_model(), loaders()[0], n_steps=4, progress=False).losses,
    "masked": lambda: train_loop(a_model(masked=True), loaders(masked=True)[0], n_steps=4,
                                 progress=False).losses,
    "pretrain": lambda: pretrain(a_model(), toks[False], torch.tensor(chunks()["train"]["input_ids"]).numpy(),
                                 n_steps=4, batch_size=4, progress=False).losses,
    "score_texts": lambda: [s.nats for s in score_texts(a_model(), toks[False], texts[:6])],
}


@pytest.mark.parametrize("name", RUNS)
def test_threads_change_the_last_bits_at_most(name):
    one, two = (threads(n, RUNS[name]) for n in (1, 2))
    assert len(one) >= 4 and one == pytest.approx(two, rel=1e-4)
    assert one == threads(1, RUNS[name]) # with the same number of threads, to the last bit
