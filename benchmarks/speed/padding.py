"""Lesson 6: what padding costs, in one run: pad to 512, dynamic padding, buckets, a budget of tokens.

    python -m benchmarks.speed.padding                # lengths as IMDb's are, drawn at random; about two minutes on one core
    python -m benchmarks.speed.padding --imdb PATH    # so many of the real reviews, of whatever load_imdb takes

An epoch is forward, backward and an update of a tiny encoder (ModernBERT's shape, 2 blocks, 64 wide) over a sample of the
reviews. All ways take turns, epoch by epoch, in shuffled order; seconds are medians, of wall time and of CPU time (which a busy
machine disturbs less: `speed` is the ratio of the latter, `speed_wall` of the former). The second table holds that padding
changes no review's loss: the same weights, each review once in each way. Both go to benchmarks/results/padding.json, with
machine, versions and date; a run with --imdb and one without are kept beside each other.
"""
import argparse, json, os, random, statistics, time
from pathlib import Path

from benchmarks.bench import keep, machine, results

os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('HF_DATASETS_DISABLE_PROGRESS_BARS', '1')
RESULTS = results/'padding.json'
LONGEST, BATCH = 512, 16

def drawn(n, seed, vocab_size=2000):
    "Made-up ids in lengths as published for IMDb in wordpieces: median 226, 13.9 % above 512 (a log-normal with these has 43 % above 256; published: 42.4 %)."
    import numpy as np
    from course_lm.data import train_tokenizer
    from course_lm.reviews import reviews
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(np.log(226), .754, n)).astype(int).clip(10, LONGEST)
    tokenizer = train_tokenizer(reviews(300, length='short')['text'], 1000, masked=True)
    return tokenizer, [{'input_ids': rng.integers(5, len(tokenizer), k), 'label': int(rng.integers(2))} for k in lengths]

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

def ways_of(rows, tokenizer):
    "Name -> (batches of row numbers, collator)."
    from course_lm.classification import LengthBucketedSampler, ReviewCollator
    from course_lm.windows import TokenBudgetSampler
    lengths, dynamic = [len(r['input_ids']) for r in rows], ReviewCollator(tokenizer)
    return lengths, {'all to 512': (shuffled(len(rows), 0), ReviewCollator(tokenizer, pad_to=LONGEST)), 'dynamic': (shuffled(len(rows), 0), dynamic),
                     'buckets': (LengthBucketedSampler(lengths, BATCH).batches(), dynamic), 'token budget': (TokenBudgetSampler(lengths, BATCH*LONGEST, max_reviews=64).batches(), dynamic)}

def epoch(model, opt, rows, batches, collate):
    start, cpu = time.perf_counter(), time.process_time()
    for idx in batches:
        model(**collate([rows[i] for i in idx])).loss.backward()
        opt.step()
        opt.zero_grad()
    return time.perf_counter() - start, time.process_time() - cpu

def each_loss(model, rows, batches, collate):
    "The loss of each review, and the gradient of their sum, with these weights."
    import torch
    losses = torch.zeros(len(rows))
    model.zero_grad()
    for idx in batches:
        batch = collate([rows[i] for i in idx])
        loss = torch.nn.functional.cross_entropy(model(input_ids=batch['input_ids'], attention_mask=batch['attention_mask']).logits, batch['labels'], reduction='none')
        loss.sum().backward()
        losses[idx] = loss.detach()
    return losses, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--imdb', help='aclImdb folder, movie_data.csv, parquet file or folder')
    for name,default in dict(reviews=320, rounds=5, seed=0).items(): parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--out', type=Path, default=RESULTS)
    args = parser.parse_args()
    import numpy as np, torch
    from course_lm.baselines import LABELS
    from course_lm.windows import padding_waste
    from course_lm.models import load_lm, new_model, tiny_bert_config
    tokenizer, rows = real(args.imdb, args.reviews, args.seed) if args.imdb else drawn(args.reviews, args.seed)
    model = load_lm((new_model(tiny_bert_config(tokenizer, n_layer=2, n_embd=64, max_length=LONGEST)), tokenizer), 'sequence-classification', LABELS)[0].train()
    lengths, ways = ways_of(rows, tokenizer)
    first = {name: each_loss(model, rows[:96], *ways_of(rows[:96], tokenizer)[1][name]) for name in ways}
    (loss, grad), far = first['all to 512'], {}
    for name,(l,g) in first.items(): far[name] = {'loss': float((l-loss).abs().max()), 'gradient': float((g-grad).norm()/grad.norm())}
    opt, seconds = torch.optim.AdamW(model.parameters(), lr=1e-4), {name: [] for name in ways}
    for r in range(args.rounds):
        for name in random.Random(r).sample(list(ways), len(ways)): seconds[name].append(epoch(model, opt, rows, *ways[name]))
    wall, cpu = ({name: statistics.median(x[k] for x in s) for name,s in seconds.items()} for k in (0, 1))
    table = [{'way': name, 'updates': len(b), 'waste': round(padding_waste(lengths, b, c.pad_to), 3), 'seconds': round(wall[name], 2), 'cpu_seconds': round(cpu[name], 2),
              'speed': round(cpu['all to 512']/cpu[name], 2), 'speed_wall': round(wall['all to 512']/wall[name], 2),
              'slowest_round': round(min(a[1]/s[1] for a,s in zip(seconds['all to 512'], seconds[name])), 2),
              'largest_loss_difference': far[name]['loss'], 'gradient_difference': far[name]['gradient']} for name,(b,c) in ways.items()]
    for row in table: print(f"{row['way']:<14}{row['updates']:>5} updates{100*row['waste']:>7.1f} % pads{row['seconds']:>8.2f} s{row['cpu_seconds']:>8.2f} CPU s{row['speed']:>7.2f}x   loss differs by {row['largest_loss_difference']:.1e} at most, gradient by {row['gradient_difference']:.1e}")
    out = json.loads(args.out.read_text()) if args.out.exists() else {}
    out['imdb' if args.imdb else 'drawn'] = {'reviews': len(rows), 'median_length': float(np.median(lengths)), 'mean_length': round(float(np.mean(lengths)), 1), 'at_512': round(float(np.mean(np.array(lengths) == LONGEST)), 3),
                                             'batch': BATCH, 'rounds': args.rounds, 'ways': table, 'machine': machine('torch', 'transformers', 'numpy')}
    keep(out, args.out)

if __name__ == '__main__': main()
