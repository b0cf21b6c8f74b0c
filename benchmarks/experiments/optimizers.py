"""Lesson 71 measured: AdamW and Muon on one small model, each at several learning rates.

    python -m benchmarks.experiments.optimizers    # about a quarter of an hour on one core

The model and corpus of the lesson (Python's standard library), 150 updates, three seeds (of weights and
order of the chunks). Each run is scored on two halves of the held-out files: each optimizer's rate is chosen
on the first, and what the lesson reports is measured on the second. Kept run by run in
course_lm/records/optimizers.json with machine, versions and date; a stopped run goes on with what is
missing.
"""
import argparse
from dataclasses import asdict, dataclass

from benchmarks.bench import keep, kept, machine, prepare, results, rounded, show

prepare(threads=1)

import numpy as np
import torch

from course_lm.chunking import chunk_ids
from course_lm.data import python_source, train_tokenizer
from course_lm.labels import LMCollator
from course_lm.models import new_model, tiny_gpt_config
from course_lm.perplexity import evaluate_lm, token_bytes
from course_lm.pretraining import pretrain
from course_lm.releasing import encode
from course_lm.scratch import deduplicate

PACKAGES = 'torch', 'transformers', 'tokenizers', 'numpy'


@dataclass(frozen=True)
class Settings:
    "The same for all runs."
    files: int = 150  # to learn from
    held_out: int = 16  # files in each half of what is scored
    vocab_size: int = 2000
    chunk_size: int = 128
    n_layer: int = 2
    n_head: int = 4
    n_embd: int = 128
    batch_size: int = 8
    n_steps: int = 150
    warmup_steps: int = 20
    seeds: tuple = (0, 1, 2)
    adamw: tuple = (.0015, .003, .006, .012)
    muon: tuple = (.003, .006, .012, .024)


def corpus(settings):
    "(tokenizer, chunks to learn from, to choose on, to report on); near copies of other files are left out."
    def long_lines(text): return {line.strip() for line in text.splitlines() if len(line.strip()) > 20}
    files = deduplicate(python_source())
    order = np.random.default_rng(0).permutation(len(files))
    held, train = ([files[i] for i in part] for part in np.split(order, [len(files)//10]))
    known = set().union(*map(long_lines, train))
    held = [f for f in held if len(long_lines(f) & known) < .5*len(long_lines(f))]
    n = settings.held_out
    tokenizer = train_tokenizer(train[:settings.files], settings.vocab_size)
    parts = train[:settings.files], held[:n], held[n:2*n]
    rows, first, second = (chunk_ids(encode(part, tokenizer), settings.chunk_size) for part in parts)
    return tokenizer, rows, first[::4], second[::4]


def bits(model, rows, tokenizer):
    "Bits per byte of the scored tokens."
    collate = LMCollator(tokenizer)
    batches = [collate(list(rows[i:i+16].astype(np.int64))) for i in range(0, len(rows), 16)]
    return evaluate_lm(model, batches, n_bytes=token_bytes(tokenizer)).bits_per_byte


def run(optimizer, lr, seed, data, settings):
    "One training, and its scores on both halves."
    tokenizer, rows, first, second = data
    shape = dict(n_layer=settings.n_layer, n_head=settings.n_head, n_embd=settings.n_embd)
    model = new_model(tiny_gpt_config(tokenizer, **shape), seed)
    told = dict(optimizer=optimizer, lr=lr, seed=seed)
    history = pretrain(model, tokenizer, rows, n_steps=settings.n_steps, batch_size=settings.batch_size,
                       warmup_steps=settings.warmup_steps, progress=False, **told)
    return told | dict(seconds=history.seconds, chosen_on=bits(model, first, tokenizer),
                       reported_on=bits(model, second, tokenizer))


def main(path, settings=Settings()):
    "All runs that `path` does not hold yet."
    torch.set_num_threads(1)
    told = dict(settings=rounded(asdict(settings)), versions={p: machine(p)[p] for p in PACKAGES})
    before = kept(path)
    runs = before['runs'] if {k: before.get(k) for k in told} == told else []
    done = {(r['optimizer'], r['lr'], r['seed']) for r in runs}
    data = corpus(settings)
    todo = [(name, lr, seed) for seed in settings.seeds for name in ('adamw', 'muon')
            for lr in getattr(settings, name) if (name, lr, seed) not in done]
    for each in todo:
        runs = [*runs, rounded(run(*each, data, settings))]
        show(f'{len(runs)} runs', runs[-1:])
        keep(dict(machine=machine(*PACKAGES), **told, runs=runs), path)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', default=results/'optimizers.json', help='where the JSON goes')
    main(**{'path': parser.parse_args().out})
