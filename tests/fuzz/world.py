"""What the valid calls take: small texts, tokenizers, models, runs; made once."""
import os
from types import SimpleNamespace

os.environ.setdefault("MPLBACKEND", "agg")
for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"): os.environ[name] = "1"

import numpy as np
import pandas as pd
import torch
from datasets import Dataset, DatasetDict, disable_progress_bars

from course_lm.advice import measure_texts
from course_lm.baselines import RunResult
from course_lm.chunking import lm_datasets, tokenize_dataset
from course_lm.classification import LengthBucketedSampler, encode_reviews
from course_lm.data import python_docs, train_tokenizer
from course_lm.entropy import MarkovSource
from course_lm.finetuning import lm_loaders, train_loop
from course_lm.labels import BertMasking, LMCollator
from course_lm.models import load_lm, new_model, reference_texts, save_lm, tiny_bert_config, tiny_gpt_config
from course_lm.ngram import NextWordGame, NGramLM
from course_lm.pretraining import pretrain
from course_lm.reviews import reviews
from course_lm.scoring import score_texts, surprisal
from course_lm.support.arrow import document_lengths
from course_lm.windows import token_importance

TEXTS = [f"The name {a} is bound to the {b} of the {c}, and not to its {d}." for a in "xyz"
         for b in ("value", "type") for c in ("object", "module") for d in ("scope", "frame")]
SMALL = dict(n_layer=1, n_head=2, n_embd=16, max_length=64)


def models(w):
    "Two tokenizers and two models that fit, one of each that does not."
    w.tok, w.mtok = (train_tokenizer(TEXTS, 300, masked=masked) for masked in (False, True))
    w.sentinels = train_tokenizer(TEXTS, 300)
    w.sentinels.add_special_tokens({"extra_special_tokens": [f"<extra_id_{i}>" for i in range(20)]})
    w.other_tok = train_tokenizer([*TEXTS, *python_docs()[:300]], 500)
    w.lm, w.lm2 = (new_model(tiny_gpt_config(w.tok, **SMALL), seed=s).eval() for s in (1, 2))
    w.mlm = new_model(tiny_bert_config(w.mtok, **SMALL)).eval()
    w.other_model = torch.nn.Linear(2, 2)
    w.tiny, w.tiny_tok = load_lm("tiny")


def rows(w):
    "Documents, chunks and batches."
    w.texts = TEXTS
    w.ids = [w.tok(t)["input_ids"] for t in TEXTS]
    w.flat = np.concatenate([np.array(i) for i in w.ids])
    w.docs = Dataset.from_dict({"text": TEXTS})
    w.rows = tokenize_dataset(w.docs, w.tok)
    w.lengths = document_lengths(w.rows)
    w.chunks = lm_datasets(TEXTS[:16], TEXTS[16:], w.tok, 16)
    w.array, w.valid_array = (np.array(w.chunks[k]["input_ids"]) for k in ("train", "valid"))
    w.train, w.valid = lm_loaders(w.chunks, w.tok, batch_size=8)
    w.batch = LMCollator(w.tok)([{"input_ids": i} for i in w.ids[:3]])
    masked = [{"input_ids": w.mtok(t)["input_ids"]} for t in TEXTS[:3]]
    w.mbatch = LMCollator(w.mtok, BertMasking(), seed=1)(masked)
    w.matrix = torch.tensor([i[:6] for i in w.ids[:2]])
    w.unspared = torch.zeros(2, 6, dtype=torch.bool)
    w.rng = np.random.default_rng(0)
    w.frame = pd.DataFrame({"a": [1, 2]})
    w.other_column = Dataset.from_dict({"other": [1, 2]})
    w.with_none = Dataset.from_dict({"text": ["a", None], "label": [0, 1]})


def numbers(w):
    "Logits, hidden states, counts; an n-gram model and a source."
    g = torch.Generator().manual_seed(0)
    w.logits = torch.randn(2, 5, 11, generator=g)
    w.labels = torch.tensor([[1, 2, 3, 4, -100], [5, 6, 7, -100, -100]])
    w.hidden, w.weight = torch.randn(2, 5, 8, generator=g), torch.randn(11, 8, generator=g)
    w.segments = torch.tensor([[1, 1, 2, 0], [1, 2, 2, 2]])
    w.ngram = NGramLM(2, vocab_size=len(w.tok)).fit(w.ids)
    w.source = MarkovSource(n_states=4)
    w.words = sorted({x for t in TEXTS for x in t.split()})
    w.word_ids = [w.words.index(x) for t in TEXTS[:2] for x in t.split()]
    w.bigram = NGramLM(2, vocab_size=len(w.words)).fit(w.word_ids)
    w.game = NextWordGame(w.word_ids, w.words, {"bigram": w.bigram})
    w.scores, w.scores2 = (score_texts(m, w.tok, TEXTS[:6]) for m in (w.lm, w.lm2))
    w.surprise = surprisal(w.lm, w.tok, TEXTS[0])


def classifiers(w):
    "Reviews, a classifier, results."
    w.reviews = reviews(24, length="short")
    parts = dict(train=range(12), valid=range(12, 18), test=range(18, 24))
    w.splits = DatasetDict({k: w.reviews.select(r) for k, r in parts.items()})
    w.ctok = train_tokenizer(list(w.reviews["text"]), 320, masked=True)
    body = new_model(tiny_bert_config(w.ctok, **SMALL))
    w.clf, w.ctok = load_lm((body, w.ctok), "sequence-classification", ["negative", "positive"])
    w.encoded = encode_reviews(w.splits["train"], w.ctok, 48)
    w.sampler = LengthBucketedSampler(w.encoded["length"], 4)
    y, p = np.array([0, 1, 0, 1, 1, 0]), np.array([.2, .8, .6, .7, .4, .1])
    w.run1 = RunResult("a", p, y, settings=dict(seed=1))
    w.run2 = RunResult("b", p[::-1].copy(), y, settings=dict(seed=2))
    w.on_test = RunResult("t", p, np.array(w.splits["test"]["label"]))
    w.importance = token_importance(w.clf, w.ctok, "a good film")


def runs(w, folder):
    "Histories, measurements, and folders on the disk."
    quiet = dict(progress=False, n_steps=2)
    w.history = train_loop(new_model(tiny_gpt_config(w.tok, **SMALL)), w.train, w.valid, **quiet)
    model = new_model(tiny_gpt_config(w.tok, **SMALL))
    w.pretrained = pretrain(model, w.tok, w.array, w.valid_array, batch_size=4, **quiet)
    w.home = reference_texts("tiny")[:12]
    w.english = [d[:200] for d in python_docs()[:12]]
    w.measures = measure_texts(w.english, w.tiny, w.tiny_tok, w.home)
    w.folder = folder
    save_lm(w.lm, w.tok, folder/"lm", reference_texts=TEXTS[:3])
    named = w.reviews.to_pandas().rename(columns={"text": "review", "label": "sentiment"})
    named.to_csv(folder/"imdb.csv", index=False)
    (folder/"wiki").mkdir()
    page = " = Title = \n\n Some text .\n\n = Other = \n\n More .\n"
    for n in ("train", "valid", "test"): (folder/"wiki"/f"{n}.txt").write_text(page)


def world(folder):
    w = SimpleNamespace()
    torch.set_num_threads(1)
    disable_progress_bars()
    for make in (models, rows, numbers, classifiers): make(w)
    runs(w, folder)
    return w
