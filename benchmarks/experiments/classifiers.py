"""Lesson 6, in depth: recipes one change at a time, a body that has read, and reviews longer than the model.

    alias run='python -m benchmarks.experiments.classifiers'
    run --recipes        # which change did anything? Synthetic reviews; about four minutes on one core
    run --longer         # three of these recipes, three times as long; about two minutes
    run --body           # a masked language model's body against random weights; about four minutes
    run --body-longer    # the same in runs two and a half times as long; about five minutes
    run --transfer       # tiny-bert against the same network from random weights; about three minutes
    run --long PATH      # head, tail, both, windows, on real reviews with movies; about three minutes

The rows of gradual unfreezing, rates by layer, Trainer and fastai were measured when the library had engines
of its own for classifiers; they stay in the file with their date, and are not run again.

Rates are chosen on valid, over the seeds of the same comparison; test is scored once for each run. Everything
is kept in benchmarks/results/classifiers.json, each part with machine, versions and date.
"""
import argparse, time
from dataclasses import replace
from pathlib import Path

from benchmarks.bench import keep, kept, machine, prepare, results

prepare()
RESULTS = results/'classifiers.json'

def made_up(n_train):
    from course_lm.classification import encode_reviews
    from course_lm.data import train_tokenizer
    from course_lm.reviews import reviews
    tokenizer = train_tokenizer(reviews(6000, seed=11, length='short')['text'], 1200, masked=True)
    data = {k: encode_reviews(reviews(n, seed=s, length='short'), tokenizer, 128) for k,n,s in (('train', n_train, 1), ('valid', 400, 2), ('test', 1500, 3))}
    return tokenizer, data

def small_encoder(tokenizer, seed, body=None, width=128):
    "A classifier of two blocks on `body`; None: from random weights."
    from course_lm.baselines import LABELS
    from course_lm.models import load_lm, new_model, tiny_bert_config
    body = body or new_model(tiny_bert_config(tokenizer, n_layer=2, n_embd=64, max_length=width), seed)
    return load_lm((body, tokenizer), 'sequence-classification', LABELS, seed=seed)[0]

def row(run, name, lr, seed, **more): return {'recipe': name, 'lr': lr, 'seed': seed, 'valid': round(run.valid_accuracy, 4), 'test': round(run.accuracy, 4), **more}

def recipes(args, epochs=3, n_train=1200, rates=(1e-3, 3e-3, 9e-3), only=None):
    "Adam, then one change after the other; the same seeds, weights and batches for all."
    from course_lm.classification import ADAM, ADAMW_LINEAR, train_classifier
    tokenizer, data = made_up(n_train)
    chain = {'Adam': ADAM, 'AdamW': replace(ADAM, weight_decay=.01), '+ falling rate': replace(ADAMW_LINEAR, warmup_steps=0), '+ warm-up': replace(ADAMW_LINEAR, warmup_steps=.1)}
    if only: chain = {k: chain[k] for k in only}
    rows, start = [], time.process_time()
    for lr in rates:
        for seed in range(args.seeds):
            for name,recipe in chain.items():
                run = train_classifier(small_encoder(tokenizer, seed), tokenizer, data, recipe, lr=lr, epochs=epochs, batch_size=32, seed=seed, progress=False)
                rows.append(row(run, name, lr, seed))
            print(lr, seed, {r['recipe']: r['test'] for r in rows[-len(chain):]}, round(time.process_time()-start), 'CPU s', flush=True)
    return {'train_reviews': n_train, 'test_reviews': 1500, 'epochs': epochs, 'batch_size': 32, 'cpu_seconds': round(time.process_time()-start), 'runs': rows}

def longer(args): return recipes(args, epochs=9, rates=(3e-3,), only=('Adam', '+ falling rate', '+ warm-up')) # the same, three times as long

def masked_body(tokenizer, epochs=6):
    "A body that has filled masks in 6,000 reviews, without their labels."
    import torch
    from course_lm.classification import LengthBucketedSampler, encode_reviews
    from course_lm.reviews import reviews
    from course_lm.labels import BertMasking, LMCollator
    from course_lm.models import new_model, tiny_bert_config
    enc = encode_reviews(reviews(6000, seed=11, length='short')['text'][:], tokenizer, 128)
    lm, rows = new_model(tiny_bert_config(tokenizer, n_layer=2, n_embd=64)), enc['input_ids'][:]
    sampler, collate, losses = LengthBucketedSampler(enc['length'], 32), LMCollator(tokenizer, BertMasking(prob=.3), generator=torch.Generator().manual_seed(0)), []
    opt = torch.optim.AdamW(lm.parameters(), lr=4e-3)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, 4e-3, total_steps=epochs*len(sampler))
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        losses.append(0.)
        for idx in sampler:
            loss = lm(**collate([{'input_ids': rows[i]} for i in idx])).loss
            loss.backward()
            opt.step(); sched.step(); opt.zero_grad()
            losses[-1] += loss.item()/len(sampler)
    return lm, [round(l, 3) for l in losses]

def body(args, n_train=500, epochs=6, rates=(4e-3, 8e-3, 1.6e-2)):
    "Few labels: a masked body against random weights, each at the rate that is best for it on valid."
    from course_lm.baselines import linear_baseline
    from course_lm.classification import ADAMW_LINEAR, train_classifier
    from course_lm.comparing import mcnemar
    tokenizer, data = made_up(n_train)
    start = time.process_time()
    lm, masked_losses = masked_body(tokenizer)
    print('masked losses', masked_losses, round(time.process_time()-start), 'CPU s', flush=True)
    arms, recipe = {'random body': None, 'masked body': lm}, replace(ADAMW_LINEAR, epochs=epochs, batch_size=32, warmup_steps=.1)
    def train(name, lr, seed):
        return train_classifier(small_encoder(tokenizer, seed, arms[name]), tokenizer, data, recipe, lr=lr, seed=seed, progress=False)
    tuned, tuning = {}, []
    for name in arms:
        for lr in rates:
            tuning += [row(train(name, lr, seed), name, lr, seed) for seed in (100, 101)]
        at = {lr: sum(r['valid'] for r in tuning if r['recipe'] == name and r['lr'] == lr)/2 for lr in rates}
        tuned[name] = max(at, key=at.get)
        print(name, at, round(time.process_time()-start), 'CPU s', flush=True)
    rows, pairs = [], []
    for seed in range(args.seeds):
        runs = {name: train(name, tuned[name], seed) for name in arms}
        rows += [row(r, name, tuned[name], seed) for name,r in runs.items()]
        m = mcnemar(runs['masked body'], runs['random body'])
        pairs.append({'seed': seed, 'only_masked': m.only_a, 'only_random': m.only_b, 'p': m.p})
        print({r['recipe']: r['test'] for r in rows[-len(arms):]}, pairs[-1], round(time.process_time()-start), 'CPU s', flush=True)
    nb = linear_baseline(data, 'nbsvm')
    return {'unlabelled_reviews': 6000, 'labelled_reviews': n_train, 'test_reviews': 1500, 'epochs': epochs, 'masked_losses': masked_losses, 'tuning': tuning, 'lr': tuned, 'runs': rows, 'mcnemar': pairs,
            'nbsvm': round(nb.accuracy, 4), 'cpu_seconds': round(time.process_time()-start)}

def body_longer(args): return body(args, epochs=15, rates=(2e-3, 4e-3, 8e-3)) # the same, two and a half times as long

def swapped(ds, other=False):
    "Made-up reviews with half of their opinion words replaced by the rest, or the other way round: each stays praise or blame."
    import re
    from datasets import Dataset
    from course_lm.reviews import _bad, _feel, _good
    lists = [_good, _bad, *([pair[i] for pair in pairs] for pairs in _feel.values() for i in (0, 1))]
    words = {(new if other else old): (old if other else new) for ws in lists for old,new in zip(ws[len(ws)//2:], ws)}
    word = lambda m: words[m[0].lower()].capitalize() if m[0][0].isupper() else words[m[0].lower()]
    put = lambda text: re.sub(r'\b([Aa])n? (?=([a-z]))', lambda m: m[1] + ('n ' if m[2] in 'aeiou' else ' '), re.sub(rf"\b({'|'.join(words)})\b", word, text, flags=re.I))
    return Dataset.from_dict({'text': [put(t) for t in ds['text']], 'label': list(ds['label'])})

def transfer(args, n_train=400, epochs=6, rates=(5e-4, 1e-3), n_test=800):
    "A body that has read real reviews against the same network from random weights, each at the rate that is best for it on valid; tested on words that were labelled, and on others."
    import numpy as np
    from benchmarks.experiments.imdb import in_bfloat16, random_twin
    from course_lm.baselines import LABELS, linear_baseline
    from course_lm.classification import ADAMW_LINEAR, encode_reviews, predict_proba, train_classifier
    from course_lm.comparing import mcnemar
    from course_lm.models import load_lm
    from course_lm.reviews import reviews
    arms, start = {'random weights': random_twin, 'tiny-bert': lambda seed: load_lm('tiny-bert', 'sequence-classification', LABELS, seed=seed)}, time.process_time()
    plain = {k: reviews(n, seed=s, length='short') for k,n,s in (('train', n_train, 1), ('valid', 200, 2), ('test', n_test, 3))}
    data, strange = {k: swapped(v) for k,v in plain.items()}, swapped(plain['test'], other=True)
    tokenizer = load_lm('tiny-bert', 'sequence-classification', LABELS)[1]
    enc, odd, y = {k: encode_reviews(v, tokenizer, 128) for k,v in data.items()}, encode_reviews(strange, tokenizer, 128), np.array(strange['label'])
    recipe = replace(ADAMW_LINEAR, epochs=epochs, batch_size=16, warmup_steps=.1)
    few = {**enc, 'test': enc['test'].select(range(50))} # while a rate is chosen, test is not asked
    def train(name, lr, seed, data=enc):
        model, tokenizer = arms[name](seed)
        model = in_bfloat16(model)
        return model, train_classifier(model, tokenizer, data, recipe, lr=lr, seed=seed, progress=False)
    lr, tuning, rows, pairs = {}, [], [], []
    for name in arms:
        tuning += [{'recipe': name, 'lr': rate, 'seed': 100, 'valid': round(train(name, rate, 100, few)[1].valid_accuracy, 4)} for rate in rates]
        lr[name] = max((r for r in tuning if r['recipe'] == name), key=lambda r: r['valid'])['lr']
        print(name, [(r['lr'], r['valid']) for r in tuning if r['recipe'] == name], round(time.process_time()-start), 'CPU s', flush=True)
    for seed in range(args.transfer_seeds):
        runs = {}
        for name in arms:
            model, runs[name] = train(name, lr[name], seed)
            odd_accuracy = float(((predict_proba(model, tokenizer, odd) > .5) == y).mean())
            rows.append(row(runs[name], name, lr[name], seed, strange=round(odd_accuracy, 4)))
        m = mcnemar(runs['tiny-bert'], runs['random weights'])
        pairs.append({'seed': seed, 'only_tiny_bert': m.only_a, 'only_random': m.only_b, 'p': m.p})
        print(rows[-2:], round(time.process_time()-start), 'CPU s', flush=True)
    nb = {'test': linear_baseline(data, 'nbsvm').accuracy, 'strange': linear_baseline({**data, 'test': strange}, 'nbsvm').accuracy}
    return {'labelled_reviews': n_train, 'test_reviews': n_test, 'epochs': epochs, 'bf16': True, 'tuning': tuning, 'lr': lr, 'runs': rows, 'mcnemar': pairs, 'nbsvm': {k: round(v, 4) for k,v in nb.items()},
            'cpu_seconds': round(time.process_time()-start)}

def by_movie(path, sizes):
    "So many reviews for each split, no movie in two of them."
    from datasets import concatenate_datasets
    from course_lm.baselines import imdb_splits
    from course_lm.data import load_imdb
    ds = load_imdb(path)
    parts = imdb_splits(concatenate_datasets([ds[k] for k in ('train', 'test') if k in ds]), by='movie')
    if few := [k for k,n in sizes.items() if len(parts[k]) < n]: raise SystemExit(f'{path} has too few reviews for {few[0]}: {len(parts[few[0]])}')
    return {k: parts[k].select(range(n)) for k,n in sizes.items()}

def long(args, width=128, n_train=2000, n_test=1500):
    "Real reviews in a model of 128 tokens: which part to keep, or all of it in windows. A model of its own for each way."
    import numpy as np
    from course_lm.baselines import RunResult
    from course_lm.classification import ADAMW_LINEAR, encode_reviews, train_classifier
    from course_lm.windows import encode_head_tail, encode_windows, predict_windows
    from course_lm.data import train_tokenizer
    data = by_movie(args.long, dict(train=n_train, valid=400, test=n_test))
    tokenizer = train_tokenizer(data['train']['text'], 8000, masked=True)
    lengths, rows, start = np.array(encode_reviews(data['test'], tokenizer, 10_000)['length']), [], time.process_time()
    cut = {'head': lambda ds: encode_reviews(ds, tokenizer, width), 'tail': lambda ds: encode_reviews(ds, tokenizer, width, 'left'), 'head and tail': lambda ds: encode_head_tail(ds, tokenizer, width, .5)}
    def windows(ds):
        w = encode_windows(ds, tokenizer, width, width-2)
        return w.add_column('label', np.array(ds['label'])[np.array(w['review'])].tolist())
    y = np.array(data['test']['label'])
    for seed in range(args.long_seeds):
        for name,encode in {**cut, 'windows': windows}.items():
            enc = {k: (encode if k == 'train' or name != 'windows' else cut['tail'])(v) for k,v in data.items()}
            model = small_encoder(tokenizer, seed, width=width)
            recipe = replace(ADAMW_LINEAR, lr=3e-3, epochs=2 if name == 'windows' else 3, batch_size=32, warmup_steps=.1, seed=seed)
            run = train_classifier(model, tokenizer, enc, recipe, progress=False, name=name)
            runs = {name: run} if name != 'windows' else {f'windows, {a} averaged' if a != 'surest' else 'windows, the surest one': RunResult(a, predict_windows(model, tokenizer, data['test'], average=a), y) for a in ('logits', 'probs', 'surest')}
            for k,r in runs.items():
                right = r.predictions == y
                rows.append({'way': k, 'seed': seed, 'test': round(r.accuracy, 4), 'short': round(float(right[lengths <= width].mean()), 4), 'long': round(float(right[lengths > width].mean()), 4)})
                print(rows[-1], round(time.process_time()-start), 'CPU s', flush=True)
    return {'width': width, 'train_reviews': n_train, 'test_reviews': n_test, 'test_longer': int((lengths > width).sum()), 'split': 'by movie', 'runs': rows, 'cpu_seconds': round(time.process_time()-start)}

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--recipes', action='store_true')
    parser.add_argument('--longer', action='store_true')
    parser.add_argument('--body', action='store_true')
    parser.add_argument('--body-longer', action='store_true')
    parser.add_argument('--transfer', action='store_true')
    parser.add_argument('--long', help='aclImdb folder, movie_data.csv, parquet file or folder; movies must be known')
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--transfer-seeds', type=int, default=3)
    parser.add_argument('--long-seeds', type=int, default=1)
    parser.add_argument('--out', type=Path, default=RESULTS)
    args = parser.parse_args()
    if not (args.recipes or args.longer or args.body or args.body_longer or args.transfer or args.long): parser.error('give --recipes, --longer, --body, --body-longer, --transfer or --long PATH')
    for part,f in (('recipes', recipes), ('longer', longer), ('body', body), ('body_longer', body_longer), ('transfer', transfer), ('long', long)):
        if not getattr(args, part): continue
        result = {**f(args), 'machine': machine('torch', 'transformers', 'numpy')}
        keep({**kept(args.out), part: result}, args.out)

if __name__ == '__main__': main()
