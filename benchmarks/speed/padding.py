"""Lesson 6: what padding costs, in one run: pad to 512, dynamic padding, buckets, a budget of tokens.

    python -m benchmarks.speed.padding                # drawn lengths, as IMDb has them: about two minutes
    python -m benchmarks.speed.padding --imdb PATH    # on real reviews, whatever load_imdb takes

An epoch is forward, backward and an update of a tiny encoder (ModernBERT's shape, 2 blocks, 64 wide) over a
sample of the reviews. All ways take turns, epoch by epoch, in shuffled order; seconds are medians, of wall
time and of CPU time (which a busy machine disturbs less: `speed` is the ratio of the latter, `speed_wall` of
the former). The second table holds that padding changes no review's loss: the same weights, each review once
in each way. Both go to course_lm/records/padding.json, with machine, versions and date; a run with --imdb
and one without are kept beside each other.
"""
import argparse, random
from functools import partial
from pathlib import Path

from benchmarks.bench import interleaved, keep, kept, machine, prepare, results, show

prepare()
LONGEST, BATCH = 512, 16

def drawn(n, seed, vocab_size=2000):
    """Made-up ids in lengths as published for IMDb in wordpieces: median 226, 13.9 % above 512 (a log-normal
    with these has 43 % above 256; published: 42.4 %)."""
    import numpy as np
    from course_lm.data import train_tokenizer
    from course_lm.reviews import reviews
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(np.log(226), .754, n)).astype(int).clip(10, LONGEST)
    tokenizer = train_tokenizer(reviews(300, length='short')['text'], 1000, masked=True)
    return tokenizer, [{'input_ids': rng.integers(5, len(tokenizer), k), 'label': int(rng.integers(2))}
                       for k in lengths]

def real(path, n, seed):
    import numpy as np
    from datasets import concatenate_datasets
    from course_lm.classification import encode_reviews
    from course_lm.data import load_imdb, train_tokenizer
    ds = load_imdb(path)
    ds = concatenate_datasets([ds[k] for k in ('train', 'test') if k in ds]).shuffle(seed=seed)
    tokenizer = train_tokenizer(ds.select(range(min(len(ds), 3000)))['text'], 8000, masked=True)
    enc = encode_reviews(ds.select(range(n)), tokenizer, LONGEST)
    return tokenizer, [{'input_ids': np.array(i), 'label': l} for i,l in zip(enc['input_ids'], enc['label'])]

def shuffled(n, seed):
    order = random.Random(seed).sample(range(n), n)
    return [order[i:i+BATCH] for i in range(0, n, BATCH)]

def padding_waste(lengths, batches, pad_to):
    "The share of the computed tokens that are pads."
    computed = sum(len(b)*max(pad_to, *(lengths[i] for i in b)) for b in batches)
    return 1 - sum(lengths[i] for b in batches for i in b)/computed

def ways_of(rows, tokenizer):
    "Name -> (batches of row numbers, collator)."
    from course_lm.classification import LengthBucketedSampler, review_batch
    from course_lm.windows import TokenBudgetSampler
    lengths, dynamic = [len(r['input_ids']) for r in rows], partial(review_batch, tokenizer=tokenizer)
    return lengths, {'all to 512': (shuffled(len(rows), 0), partial(dynamic, pad_to=LONGEST)),
                     'dynamic': (shuffled(len(rows), 0), dynamic),
                     'buckets': (LengthBucketedSampler(lengths, BATCH).batches(), dynamic),
                     'token budget': (TokenBudgetSampler(lengths, BATCH*LONGEST, max_reviews=64).batches(),
                                      dynamic)}

def epoch(model, opt, rows, batches, collate):
    for idx in batches:
        model(**collate([rows[i] for i in idx])).loss.backward()
        opt.step()
        opt.zero_grad()

def each_loss(model, rows, batches, collate):
    "The loss of each review, and the gradient of their sum, with these weights."
    import torch
    losses = torch.zeros(len(rows))
    model.zero_grad()
    for idx in batches:
        batch = collate([rows[i] for i in idx])
        loss = torch.nn.functional.cross_entropy(model(input_ids=batch['input_ids'],
                                                       attention_mask=batch['attention_mask']).logits,
                                                       batch['labels'], reduction='none')
        loss.sum().backward()
        losses[idx] = loss.detach()
    return losses, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

def differences(model, rows, tokenizer):
    "How far each way's losses and gradient are from those of the first way, on the same reviews."
    ways = ways_of(rows, tokenizer)[1]
    first = {name: each_loss(model, rows, *way) for name,way in ways.items()}
    loss, grad = first['all to 512']
    return {name: {'loss': float((l-loss).abs().max()), 'gradient': float((g-grad).norm()/grad.norm())}
            for name,(l,g) in first.items()}

def measure(model, rows, tokenizer, rounds):
    "A row for each way."
    import torch
    lengths, ways = ways_of(rows, tokenizer)
    far, opt = differences(model, rows[:96], tokenizer), torch.optim.AdamW(model.parameters(), lr=1e-4)
    times = interleaved({name: partial(epoch, model, opt, rows, *way) for name,way in ways.items()}, rounds)
    slow, table = times['all to 512'], []
    for name,(batches, collate) in ways.items():
        t = times[name]
        table.append({
            'way': name, 'updates': len(batches),
            'waste': round(padding_waste(lengths, batches, collate.keywords.get('pad_to', 0)), 3),
            'seconds': round(t.seconds, 2), 'cpu_seconds': round(t.cpu_seconds, 2),
            'speed': round(slow.cpu_seconds/t.cpu_seconds, 2), 'speed_wall': round(slow.seconds/t.seconds, 2),
            'slowest_round': round(min(a/b for a,b in zip(slow.cpu, t.cpu)), 2),
            'largest_loss_difference': far[name]['loss'], 'gradient_difference': far[name]['gradient']})
    return table

def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--imdb', help='aclImdb folder, movie_data.csv, parquet file or folder')
    for name,default in dict(reviews=320, rounds=5, seed=0).items():
        parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--out', type=Path, default=results/'padding.json')
    args = parser.parse_args()
    import numpy as np
    from course_lm.baselines import LABELS
    from course_lm.models import load_lm, new_model, tiny_bert_config
    tokenizer, rows = real(args.imdb, args.reviews, args.seed) if args.imdb else drawn(
        args.reviews, args.seed)
    body = new_model(tiny_bert_config(tokenizer, n_layer=2, n_embd=64, max_length=LONGEST))
    model, _ = load_lm((body, tokenizer), 'sequence-classification', LABELS)
    table = measure(model.train(), rows, tokenizer, args.rounds)
    show(f'{len(rows)} reviews', table)
    lengths = np.array([len(r['input_ids']) for r in rows])
    found = {'reviews': len(rows), 'median_length': float(np.median(lengths)),
             'mean_length': round(float(np.mean(lengths)), 1),
             'at_512': round(float(np.mean(lengths == LONGEST)), 3),
             'batch': BATCH, 'rounds': args.rounds, 'ways': table,
             'machine': machine('torch', 'transformers', 'numpy')}
    keep(kept(args.out) | {'imdb' if args.imdb else 'drawn': found}, args.out)

if __name__ == '__main__': main()
