"""`NGramLM` against `nltk.lm` in one process, and its speed at a million tokens.

    python -m benchmarks.speed.ngram                  # against nltk, and a million tokens: about a minute
    python -m benchmarks.speed.ngram --neural 1200    # an LSTM on lesson 1's chapters, three seeds: 5 minutes
    python -m benchmarks.speed.ngram --imdb PATH  # counts against amount of text: parquet with text and movie

Prints tables and keeps them in course_lm/records/ngram.json with machine, versions and date; a section that
was not run keeps what it held. nltk is a development requirement (`pip install -e '.[dev]'`). It is fed the
same n-grams, and its Kneser-Ney has the textbook's last step (see tests/test_ngram.py), so that both give the
same numbers; that is checked here.
"""
import argparse, math, time
from functools import partial
from importlib.metadata import version

import numpy as np

from benchmarks.bench import interleaved, keep, kept, machine, prepare, results, show

from course_lm.data import python_docs, train_tokenizer
from course_lm.ngram import NGramLM

prepare()
RESULTS = results/"ngram.json"


# ---- nltk

def nltk_fit(docs, n, model):
    """Count with nltk: every n-gram of orders 1 to n that ends in a document, padded on the left as
    Kneser-Ney needs it."""
    rows = (["<s>"]*(n-1) + d for d in docs)
    model.counts.update([tuple(row[i-m+1:i+1]) for i in range(n-1, len(row)) for m in range(1, n+1)]
                        for row in rows)
    return model


def textbook(estimator, discount, vocab_size=1000):
    "Kneser-Ney's last step as the textbook has it, mixed with a uniform distribution: a function of a word."
    seen = {str(w): estimator._continuation_counts(str(w)) for w in range(vocab_size)}
    total, kinds = next(iter(seen.values()))[1], sum(c > 0 for c, _ in seen.values())
    def unigram_score(word): return (max(seen[word][0] - discount, 0) + discount*kinds/vocab_size) / total
    return unigram_score


def one_against_nltk(name, ours, make, docs, flat, repeats, discount):
    """A row: `ours` and a model of nltk's, on the same documents and then on the same tokens; the scores must
    agree."""
    n, tokens, strings = ours.n, sum(map(len, docs)), [list(map(str, d)) for d in docs]
    fit = interleaved({"ours": lambda: ours.fit(docs), "nltk": lambda: nltk_fit(strings, n, make())}, repeats)
    theirs = nltk_fit(strings, n, make())
    contexts = [tuple(map(str, flat[i-n+1:i])) for i in range(n-1, len(flat))]
    if name == "Kneser-Ney":
        theirs.estimator.unigram_score = textbook(theirs.estimator, discount)
        contexts = contexts[:max(10, 200_000 // tokens)]  # nltk takes longer the more it has counted
    def our_scores(): return ours.logprobs(flat)[n-1:]
    def their_scores(): return [theirs.unmasked_score(str(flat[i+n-1]), c) for i, c in enumerate(contexts)]
    np.testing.assert_allclose(our_scores()[:len(contexts)], np.log(their_scores()), rtol=1e-10)
    score = interleaved({"ours": our_scores, "nltk": their_scores}, repeats)
    per_ours, per_nltk = score["ours"].seconds/len(flat), score["nltk"].seconds/len(contexts)
    return {"smoothing": name, "tokens counted": tokens, "fit, nltk s": round(fit["nltk"].seconds, 3),
            "fit, ours s": round(fit["ours"].seconds, 4),
            "fit ratio": round(fit["nltk"].seconds/fit["ours"].seconds),
            "score, nltk us/token": round(1e6*per_nltk, 1), "score, ours us/token": round(1e6*per_ours, 2),
            "score ratio": round(per_nltk/per_ours, 1)}


def against_nltk(sizes=(2_000, 10_000, 50_000), n=3, scored=5_000, repeats=5, discount=.75):
    from nltk.lm import KneserNeyInterpolated, Lidstone, Vocabulary
    docs = python_docs()
    tokenizer = train_tokenizer(docs[:1000], 1000)
    ids, text = tokenizer(docs[:1000])["input_ids"], tokenizer(docs[1000:])["input_ids"]
    vocabulary = Vocabulary([str(i) for i in range(999)])  # and <UNK>: 1,000 words
    flat, total = [t for d in text for t in d][:scored], np.cumsum([len(d) for d in ids])
    ways = {
        "add-0.1": (dict(smoothing="add-k", k=.1), lambda: Lidstone(.1, n, vocabulary=vocabulary)),
        "Kneser-Ney": (dict(discount=discount),
                       lambda: KneserNeyInterpolated(n, discount=discount, vocabulary=vocabulary)),
    }
    rows = []
    for size in sizes:
        part = ids[:int(np.searchsorted(total, size)) + 1]
        for name, (settings, make) in ways.items():
            ours = NGramLM(n, vocab_size=1000, **settings)
            rows.append(one_against_nltk(name, ours, make, part, flat, repeats, discount))
    show(f"Against nltk {version('nltk')}, order {n}, the same probabilities", rows)
    return rows


def a_million(vocab_size=2000, repeats=3):
    "Zipf-distributed ids: nothing repeats as text does, so there are more different n-grams than in English."
    ids = np.random.default_rng(0).zipf(1.3, 1_500_000)
    ids = ids[ids <= vocab_size][:1_000_000] - 1
    rows = []
    for n in (2, 3, 5):
        lm = NGramLM(n, vocab_size=vocab_size)
        lm.fit(ids)
        times = interleaved({"fit": partial(lm.fit, ids), "score": partial(lm.logprobs, ids)}, repeats)
        rows.append({"order": n, "different n-grams": lm.n_ngrams[-1]}
                    | {f"{name} s": round(t.seconds, 2) for name, t in times.items()})
    show("A million tokens, Kneser-Ney", rows)
    return rows


# ---- more text, more training

def encode_whole(tokenizer, texts):
    "A token for the end of a text on both sides: in front as a start, behind to be predicted."
    return [[0] + d + [0] for d in tokenizer(texts)["input_ids"]]


def document_nats(lm, docs):
    "What each document costs, its first token aside."
    lp, first = lm.logprobs(docs), np.cumsum([0] + [len(d) for d in docs[:-1]])
    lp[first] = 0
    return -np.add.reduceat(lp, first)


def bits_per_byte(lm, docs, n_bytes): return document_nats(lm, docs).sum() / math.log(2) / n_bytes


def imdb(path, vocab_size=4000, orders=(1, 2, 3, 4, 5), sizes=(100, 1_000, 10_000), held_out=500):
    "Counts against amount of text: reviews of films that are not in the training part, modified Kneser-Ney."
    import pandas as pd
    frame = pd.read_parquet(path).sample(frac=1, random_state=0)
    films = frame.movie.drop_duplicates()
    test_films = set(films[:len(films)//20])
    test = frame[frame.movie.isin(test_films)].text.tolist()[:held_out]
    train = frame[~frame.movie.isin(test_films)].text.tolist()[:max(sizes)]
    tokenizer = train_tokenizer(train[:3000], vocab_size)
    ids, test_ids = encode_whole(tokenizer, train), encode_whole(tokenizer, test)
    n_bytes, rows = sum(len(t.encode()) for t in test), []
    for size in sizes:
        row = {"reviews": min(size, len(train)), "tokens": sum(map(len, ids[:size]))}
        for n in orders:
            start = time.perf_counter()
            lm = NGramLM(n, "modified-kneser-ney", vocab_size=vocab_size).fit(ids[:size])
            row[f"order {n}"] = round(bits_per_byte(lm, test_ids, n_bytes), 3)
        rows.append(row | {f"order {n}, fit and score s": round(time.perf_counter() - start, 1)})
    show(f"IMDb, bits per byte of {len(test)} reviews of other films", rows)
    return rows


def make_lstm(width, dropout, unigram_probs):
    "Tied input and output vectors; the output starts as the unigram model."
    import torch
    from torch import nn

    class LSTM(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(1000, width)
            self.lstm = nn.LSTM(width, width, batch_first=True)
            self.out = nn.Linear(width, 1000)
            self.drop = nn.Dropout(dropout)
            nn.init.normal_(self.embed.weight, std=.05)
            self.out.weight = self.embed.weight
            with torch.no_grad(): self.out.bias.copy_(torch.tensor(np.log(unigram_probs)))

        def forward(self, x): return self.out(self.drop(self.lstm(self.drop(self.embed(x)))[0]))
    return LSTM()


def train_lstm(ids, valid_ids, steps, seed, width=192, length=32, batch_size=16, lr=1.5e-2):
    "Nats of every held-out document, after each quarter of the steps: {step: (documents,)}."
    import torch, torch.nn.functional as F
    torch.manual_seed(seed)
    stream = np.concatenate(ids)
    model = make_lstm(width, .3, NGramLM(1, vocab_size=1000).fit(stream).probs())
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=.1)
    windows = torch.tensor(stream).unfold(0, length+1, 1)
    generator, found = torch.Generator().manual_seed(seed), {}

    @torch.no_grad()
    def score():
        model.eval()
        nats = [F.cross_entropy(model(torch.tensor([d[:-1]]))[0], torch.tensor(d[1:]), reduction="sum").item()
                for d in valid_ids]
        model.train()
        return np.array(nats)
    for step in range(1, steps+1):
        x = windows[torch.randint(len(windows), (batch_size,), generator=generator)]
        loss = F.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
        optimizer.step()
        schedule.step()
        if step % max(1, steps//4) == 0: found[step] = score()
    return found


def neural(steps, seeds=3):
    """Lesson 1's LSTM, wider, with more dropout and trained for longer, beside the counts, on lesson 1's
    held-out paragraphs: bits per byte, and the difference to the 5-gram with its interval (95 %, 2,000
    draws of paragraphs)."""
    docs = python_docs()
    train, valid = docs[:1000], docs[1000:]
    tokenizer = train_tokenizer(train, 1000)
    ids, valid_ids = encode_whole(tokenizer, train), encode_whole(tokenizer, valid)
    sizes = np.array([len(d.encode()) for d in valid])
    draws = np.random.default_rng(0).integers(0, len(valid), (2000, len(valid)))
    def bits(nats, chosen=slice(None)): return nats[chosen].sum(-1) / math.log(2) / sizes[chosen].sum(-1)
    counts = {n: document_nats(NGramLM(n, vocab_size=1000).fit(ids), valid_ids) for n in (2, 3, 5)}
    rows = [{"model": f"{n}-gram, Kneser-Ney", "bits per byte": round(float(bits(nats)), 3)}
            for n, nats in counts.items()]
    for seed in range(seeds):
        for step, nats in train_lstm(ids, valid_ids, steps, seed).items():
            low, high = np.quantile(bits(nats, draws) - bits(counts[5], draws), [.025, .975])
            rows.append({"model": f"LSTM, seed {seed}", "step": step,
                         "bits per byte": round(float(bits(nats)), 3),
                         "minus 5-gram": round(float(bits(nats) - bits(counts[5])), 3),
                         "low": round(float(low), 3), "high": round(float(high), 3)})
    show("Counts and an LSTM with more time, on lesson 1's held-out chapters", rows)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--imdb", help="parquet file with the columns text and movie")
    parser.add_argument("--neural", type=int, help="training steps of the LSTM")
    parser.add_argument("--out", default=RESULTS, help="where the JSON goes")
    args = parser.parse_args()
    parts = {}
    if args.imdb: parts["imdb"] = imdb(args.imdb)
    if args.neural: parts["neural"] = neural(args.neural)
    if not parts: parts = {"nltk": against_nltk(), "million": a_million()}
    keep(kept(args.out)
         | {k: {"machine": machine("numpy", "nltk"), "rows": rows} for k, rows in parts.items()}, args.out)


if __name__ == "__main__": main()
