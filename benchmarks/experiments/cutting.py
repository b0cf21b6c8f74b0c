"""Lesson 21: what each way of cutting does to a model, and what a leak does to a score.

    python -m benchmarks.experiments.cutting --reviews FOLDER    # nine minutes on one core

FOLDER holds parquet files of reviews with the columns text and movie, as `read_folder` of lesson 72
takes them. No review is kept, only sums. Every run is written to course_lm/records/cutting.json when it
ends, and a run that is there already is not done again: stop it and start it as you like. Runs of one seed
stand together, in an order that is shuffled anew.

Policies: the same small GPT on the chunks of five policies. A seed draws the reviews, the weights and the
order; within a seed all policies get the same reviews and weights, as many updates, and as many predicted
tokens in each update. All are scored in the same way on the same reviews of other movies: each review by
itself, in windows that overlap by half, its first token not scored.

Leaks: chunks are split at random. The leaky model is trained on chunks that share reviews with the validation
chunks; the clean one on as many that share none. Both are scored on the same validation chunks.
"""
import argparse, datetime, math, os, random, time
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
from benchmarks.bench import keep, kept, machine, prepare, results, rounded

prepare(threads=1)
import numpy as np, torch
from tqdm.auto import tqdm
from course_lm.chunking import chunk_dataset, tokenize_dataset
from course_lm.data import train_tokenizer
from course_lm.finetuning import lr_factor
from course_lm.models import new_model, tiny_gpt_config
from course_lm.ngram import NGramLM
from course_lm.perplexity import token_nll
from course_lm.policies import plan_chunks, policy_table
from course_lm.releasing import read_folder
from course_lm.reviews import reviews
from course_lm.support import machine as here
from course_lm.support.inputs import IGNORE_INDEX

POLICIES = 'concatenate', 'pack', 'per_document', 'pad', 'truncate'
SEEDS = 1, 2, 3
SETTINGS = dict(
    vocab_size=1000, n_layer=2, n_head=2, n_embd=64, lr=6e-3, tokens_per_update=510, warmup_steps=.1,
    policies=dict(chunk_size=256, train_reviews=600, valid_reviews=250, n_steps=700, stride=128),
    leak=dict(chunk_size=128, n_steps=800, valid=.1, real=300, synthetic=900))


# ---- text


def by_movie(folder, n_valid):
    "Reviews to train on, and reviews of movies that none of those is about."
    docs = [d for d in read_folder(folder) if d['movie']]
    movies = sorted({d['movie'] for d in docs})
    held = set(random.Random(0).sample(movies, len(movies)//10))
    train = list(dict.fromkeys(d['text'] for d in docs if d['movie'] not in held))
    valid = list(dict.fromkeys(d['text'] for d in docs if d['movie'] in held))
    valid = [t for t in valid if t not in set(train)]
    return train, random.Random(0).sample(valid, n_valid)


def ids_of(texts, tokenizer):
    return [np.array(row) for row in tokenize_dataset(texts, tokenizer)['input_ids']]


# ---- a model, trained and scored


def rows_of(docs, policy, size):
    "The chunks of a policy as (n, size) inputs and labels; padding has the label -100."
    stream = np.concatenate(docs)
    plan = plan_chunks([len(d) for d in docs], size, policy)
    inputs = np.zeros((plan.report.chunks, size), np.int64)
    labels = np.full_like(inputs, IGNORE_INDEX)
    filled = np.zeros(len(inputs), int)
    for chunk, start, stop in zip(plan.chunk, plan.start, plan.stop):
        at = filled[chunk]
        filled[chunk] = at + stop - start
        inputs[chunk, at:filled[chunk]] = stream[start:stop]
        labels[chunk, at:filled[chunk]] = stream[start:stop]
    return torch.tensor(inputs), torch.tensor(labels)


def batches(labels, tokens, rng):
    "Rows of one update after another, without end: as many as predict at least so many tokens."
    predicted = (labels[:, 1:] != IGNORE_INDEX).sum(1).numpy()
    rows, total = [], 0
    while True:
        for row in rng.permutation(len(labels)):
            rows.append(row)
            total += predicted[row]
            if total < tokens: continue
            yield rows
            rows, total = [], total - tokens


def train(data, size, n_steps, seed):
    "A new model after so many updates; and how many tokens it has predicted, and positions computed."
    s = SETTINGS
    model = new_model(tiny_gpt_config(s['vocab_size'], s['n_layer'], s['n_head'], s['n_embd'], size), seed)
    optimizer = torch.optim.AdamW(model.parameters(), s['lr'], weight_decay=.01)
    rng, (inputs, labels) = np.random.default_rng(seed), data
    counts = dict(tokens=0, positions=0)
    for step, rows in zip(range(n_steps), batches(labels, s['tokens_per_update'], rng)):
        for group in optimizer.param_groups:
            group['lr'] = s['lr']*lr_factor(step, n_steps, warmup_steps=s['warmup_steps'])
        x, y = inputs[rows], labels[rows]
        nll = token_nll(model(input_ids=x).logits, y)
        nll.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
        optimizer.step()
        optimizer.zero_grad()
        counts = dict(tokens=counts['tokens'] + len(nll), positions=counts['positions'] + x.numel())
    counts['passes'] = counts['tokens']/int((labels[:, 1:] != IGNORE_INDEX).sum())
    return model.eval(), counts


@torch.no_grad()
def document_nats(model, doc, size, stride):
    "Nats of every token of a document but the first, in overlapping windows."
    nats, done = [], 1
    for begin in range(0, len(doc), stride):
        end = min(begin+size, len(doc))
        if end <= done: break
        window = torch.tensor(doc[None, begin:end])
        nats.append(token_nll(model(input_ids=window).logits, window)[-(end-done):])
        done = end
    return torch.cat(nats)


def score(model, docs, n_bytes, size, stride):
    "Bits per byte of the text; nats of its first 31 predicted tokens, of those after `size`, and of EOS."
    nats = [document_nats(model, d, size, stride).numpy() for d in docs]
    text = [n[:-1] for n in nats]
    late = np.concatenate([n[size:] for n in text])
    return dict(bits_per_byte=sum(n.sum() for n in text)/math.log(2)/n_bytes,
                nats_per_token=np.concatenate(text).mean(), scored=sum(map(len, text)),
                first_31=np.concatenate([n[:31] for n in text]).mean(), late=late.mean(),
                late_tokens=len(late), eos=np.mean([n[-1] for n in nats]))


# ---- the two experiments


class Policies:
    "Chunks of every policy for a seed's reviews."
    def __init__(self, train_texts, valid_texts, tokenizer):
        self.s, self.texts, self.tokenizer = SETTINGS['policies'], train_texts, tokenizer
        self.valid = ids_of(valid_texts, tokenizer)
        first = [tokenizer.decode(d[:1]) for d in self.valid] # not scored, so its bytes do not count
        self.n_bytes = sum(len(t.encode()) for t in valid_texts) - sum(len(t.encode()) for t in first)

    def docs(self, seed):
        return ids_of(random.Random(seed).sample(self.texts, self.s['train_reviews']), self.tokenizer)

    def run(self, policy, seed):
        size = self.s['chunk_size']
        model, counts = train(rows_of(self.docs(seed), policy, size), size, self.s['n_steps'], seed)
        return counts | score(model, self.valid, self.n_bytes, size, self.s['stride'])

    def table(self):
        lengths = [len(d) for d in self.docs(SEEDS[0])]
        frame = policy_table(lengths, self.s['chunk_size']).loc[list(POLICIES)]
        about = dict(documents=len(lengths), tokens=sum(lengths), median=float(np.median(lengths)))
        return about | dict(table=[dict(policy=p, **row) for p,row in frame.to_dict('index').items()])


def leaky_and_clean(docs, size, share, seed):
    "Rows for training with and without shared documents, equally many, and the rows to score."
    chunk, document, *_ = plan_chunks([len(d) for d in docs], size).fragments()
    n, rng = int(chunk.max()) + 1, np.random.default_rng(seed)
    valid = rng.permutation(n)[:round(share*n)]
    shared = np.isin(document, document[np.isin(chunk, valid)])
    siblings = np.setdiff1d(chunk[shared], valid)
    clean = np.setdiff1d(np.arange(n), np.union1d(siblings, valid))
    others = rng.permutation(clean)[:max(0, len(clean)-len(siblings))]
    leaky = np.sort(np.concatenate([rng.permutation(siblings)[:len(clean)], others]))
    return leaky, clean, np.sort(valid)


class Leaks:
    "The same validation chunks for a leaky and a clean model."
    def __init__(self, real_texts, tokenizer):
        self.s = SETTINGS['leak']
        made_up = list(reviews(self.s['synthetic'])['text'])
        own = train_tokenizer(made_up[::3], SETTINGS['vocab_size'])
        real = random.Random(99).sample(real_texts, self.s['real'])
        self.docs = {'real': ids_of(real, tokenizer), 'synthetic': ids_of(made_up, own)}

    def run(self, corpus, side, seed):
        docs, size = self.docs[corpus], self.s['chunk_size']
        parts = leaky_and_clean(docs, size, self.s['valid'], seed)
        rows = torch.tensor(np.array(chunk_dataset(docs, size)['input_ids'], np.int64))
        mine, valid = rows[parts[('leaky', 'clean').index(side)]], rows[parts[2]]
        found = dict(train_chunks=len(mine), valid_chunks=len(valid))
        for n in (3, 6):
            lm = NGramLM(n, vocab_size=SETTINGS['vocab_size']).fit(list(mine.numpy()))
            nats, tokens = lm.score(list(valid.numpy()))
            found[f'{n}-gram'] = nats/tokens
        model, counts = train((mine, mine), size, self.s['n_steps'], seed)
        with torch.no_grad(): nll = [token_nll(model(input_ids=x).logits, x) for x in valid.split(16)]
        return found | counts | dict(transformer=torch.cat(nll).mean().item())


# ---- runs, one after another


def key(row): return [row.get(k) for k in ('part', 'policy', 'corpus', 'side', 'seed')]


def planned():
    "Every run, the seeds one after another, in an order shuffled within each."
    for seed in SEEDS:
        runs = [dict(part='policies', policy=p, seed=seed) for p in POLICIES]
        runs += [dict(part='leak', corpus=c, side=s, seed=seed) for c in ('real', 'synthetic')
                 for s in ('leaky', 'clean')]
        yield from random.Random(seed).sample(runs, len(runs))


def main(folder, out, only=None):
    texts, valid = by_movie(folder, SETTINGS['policies']['valid_reviews'])
    tokenizer = train_tokenizer(random.Random(7).sample(texts, 2000), SETTINGS['vocab_size'])
    parts = dict(policies=Policies(texts, valid, tokenizer), leak=Leaks(texts, tokenizer))
    before = kept(out)
    done = before.get('runs', []) if before.get('settings') == SETTINGS else []
    record = dict(machine=here.machine(), date=datetime.date.today().isoformat(), settings=SETTINGS,
                  seeds=list(SEEDS), versions=machine('torch', 'transformers', 'tokenizers', 'numpy'),
                  cut=rounded(parts['policies'].table()), runs=done)
    runs = [r for r in planned() if key(r) not in [key(d) for d in done]]
    for run in tqdm(runs[:only]):
        began = time.process_time()
        found = parts[run['part']].run(**{k: v for k,v in run.items() if k != 'part'})
        found = {k: v.item() if hasattr(v, 'item') else v for k,v in found.items()}
        done.append(run | rounded(found | dict(cpu_seconds=round(time.process_time()-began, 1))))
        keep(record, out)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--reviews', required=True, help='folder of parquet files with text and movie')
    parser.add_argument('--out', type=Path, default=results/'cutting.json')
    parser.add_argument('--only', type=int, help='stop after so many runs')
    args = parser.parse_args()
    main(args.reviews, args.out, args.only)
