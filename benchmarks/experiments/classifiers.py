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
is kept in course_lm/records/classifiers.json, each part with machine, versions and date.
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
    sizes = ('train', n_train, 1), ('valid', 400, 2), ('test', 1500, 3)
    data = {k: encode_reviews(reviews(n, seed=s, length='short'), tokenizer, 128) for k,n,s in sizes}
    return tokenizer, data

def small_encoder(tokenizer, seed, body=None, width=128):
    "A classifier of two blocks on `body`; None: from random weights."
    from course_lm.baselines import LABELS
    from course_lm.models import load_lm, new_model, tiny_bert_config
    body = body or new_model(tiny_bert_config(tokenizer, n_layer=2, n_embd=64, max_length=width), seed)
    return load_lm((body, tokenizer), 'sequence-classification', LABELS, seed=seed)[0]

def row(run, name, lr, seed, **more):
    accuracies = {'valid': round(run.valid_accuracy, 4), 'test': round(run.accuracy, 4)}
    return {'recipe': name, 'lr': lr, 'seed': seed, **accuracies, **more}

def recipes(args, epochs=3, n_train=1200, rates=(1e-3, 3e-3, 9e-3), only=None):
    "Adam, then one change after the other; the same seeds, weights and batches for all."
    from course_lm.classification import ADAM, ADAMW_LINEAR, train_classifier
    tokenizer, data = made_up(n_train)
    chain = {'Adam': ADAM, 'AdamW': replace(ADAM, weight_decay=.01),
             '+ falling rate': replace(ADAMW_LINEAR, warmup_steps=0),
             '+ warm-up': replace(ADAMW_LINEAR, warmup_steps=.1)}
    rows, start = [], time.process_time()
    def cpu(): return round(time.process_time()-start)
    for lr in rates:
        for seed in range(args.seeds):
            for name in only or chain:
                recipe = replace(chain[name], lr=lr, epochs=epochs, batch_size=32, seed=seed)
                model = small_encoder(tokenizer, seed)
                run = train_classifier(model, tokenizer, data, recipe, progress=False)
                rows.append(row(run, name, lr, seed))
            latest = {r['recipe']: r['test'] for r in rows if (r['lr'], r['seed']) == (lr, seed)}
            print(lr, seed, latest, cpu(), 'CPU s', flush=True)
    return {'train_reviews': n_train, 'test_reviews': 1500, 'epochs': epochs, 'batch_size': 32,
            'cpu_seconds': cpu(), 'runs': rows}

def longer(args): # the same, three times as long
    return recipes(args, epochs=9, rates=(3e-3,), only=('Adam', '+ falling rate', '+ warm-up'))

def masked_body(tokenizer, epochs=6):
    "A body that has filled masks in 6,000 reviews, without their labels."
    import torch
    from course_lm.classification import LengthBucketedSampler, encode_reviews
    from course_lm.reviews import reviews
    from course_lm.labels import BertMasking, LMCollator
    from course_lm.models import new_model, tiny_bert_config
    enc = encode_reviews(reviews(6000, seed=11, length='short')['text'][:], tokenizer, 128)
    lm, rows = new_model(tiny_bert_config(tokenizer, n_layer=2, n_embd=64)), enc['input_ids'][:]
    sampler, losses = LengthBucketedSampler(enc['length'], 32), []
    collate = LMCollator(tokenizer, BertMasking(prob=.3), generator=torch.Generator().manual_seed(0))
    opt = torch.optim.AdamW(lm.parameters(), lr=4e-3)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, 4e-3, total_steps=epochs*len(sampler))
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        losses.append(0.)
        for idx in sampler:
            loss = lm(**collate([{'input_ids': rows[i]} for i in idx])).loss
            loss.backward()
            opt.step()
            sched.step()
            opt.zero_grad()
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
    arms = {'random body': None, 'masked body': lm}
    recipe = replace(ADAMW_LINEAR, epochs=epochs, batch_size=32, warmup_steps=.1)
    def cpu(): return round(time.process_time()-start)
    def train(name, lr, seed):
        model = small_encoder(tokenizer, seed, arms[name])
        return train_classifier(model, tokenizer, data, recipe, lr=lr, seed=seed, progress=False)
    tuned, tuning = {}, []
    def valid(name, lr): return sum(r['valid'] for r in tuning if r['recipe'] == name and r['lr'] == lr)/2
    for name in arms:
        for lr in rates:
            tuning += [row(train(name, lr, seed), name, lr, seed) for seed in (100, 101)]
        at = {lr: valid(name, lr) for lr in rates}
        tuned[name] = max(at, key=at.get)
        print(name, at, cpu(), 'CPU s', flush=True)
    rows, pairs = [], []
    for seed in range(args.seeds):
        runs = {name: train(name, tuned[name], seed) for name in arms}
        rows += [row(r, name, tuned[name], seed) for name,r in runs.items()]
        m = mcnemar(runs['masked body'], runs['random body'])
        pairs.append({'seed': seed, 'only_masked': m.only_a, 'only_random': m.only_b, 'p': m.p})
        print({r['recipe']: r['test'] for r in rows[-len(arms):]}, pairs[-1], cpu(), 'CPU s', flush=True)
    nb = linear_baseline(data, 'nbsvm')
    return {'unlabelled_reviews': 6000, 'labelled_reviews': n_train, 'test_reviews': 1500, 'epochs': epochs,
            'masked_losses': masked_losses, 'tuning': tuning, 'lr': tuned, 'runs': rows, 'mcnemar': pairs,
            'nbsvm': round(nb.accuracy, 4), 'cpu_seconds': cpu()}

def body_longer(args): # the same, two and a half times as long
    return body(args, epochs=15, rates=(2e-3, 4e-3, 8e-3))

def swapped(ds, other=False):
    "Synthetic reviews with half of their opinion words replaced by the rest, or the other way round."
    import re
    from datasets import Dataset
    from course_lm.reviews import CUES
    cues, verbs = [*CUES][:40], [*CUES][42:]
    lists = cues[:20], cues[20:], verbs[:8:2], verbs[1:8:2], verbs[8::2], verbs[9::2]
    words = {old: new for ws in lists for old,new in zip(ws[len(ws)//2:], ws)}
    if other: words = {new: old for old,new in words.items()}
    def word(m): return words[m[0].lower()].capitalize() if m[0][0].isupper() else words[m[0].lower()]
    def article(m): return m[1] + ('n ' if m[2] in 'aeiou' else ' ')
    texts = [re.sub(rf"\b({'|'.join(words)})\b", word, t, flags=re.I) for t in ds['text']]
    texts = [re.sub(r'\b([Aa])n? (?=([a-z]))', article, t) for t in texts]
    return Dataset.from_dict({'text': texts, 'label': list(ds['label'])})

def transfer(args, n_train=400, epochs=6, rates=(5e-4, 1e-3), n_test=800):
    "A body that has read real reviews against random weights, on words that were labelled and on others."
    import numpy as np
    from benchmarks.experiments.imdb import in_bfloat16, random_twin
    from course_lm.baselines import LABELS, linear_baseline
    from course_lm.classification import ADAMW_LINEAR, encode_reviews, predict_proba, train_classifier
    from course_lm.comparing import mcnemar
    from course_lm.models import load_lm
    from course_lm.reviews import reviews
    start = time.process_time()
    def cpu(): return round(time.process_time()-start)
    def known(seed): return load_lm('tiny-bert', 'sequence-classification', LABELS, seed=seed)
    arms = {'random weights': random_twin, 'tiny-bert': known}
    sizes = ('train', n_train, 1), ('valid', 200, 2), ('test', n_test, 3)
    plain = {k: reviews(n, seed=s, length='short') for k,n,s in sizes}
    data, strange = {k: swapped(v) for k,v in plain.items()}, swapped(plain['test'], other=True)
    tokenizer = known(0)[1]
    enc = {k: encode_reviews(v, tokenizer, 128) for k,v in data.items()}
    odd, y = encode_reviews(strange, tokenizer, 128), np.array(strange['label'])
    recipe = replace(ADAMW_LINEAR, epochs=epochs, batch_size=16, warmup_steps=.1)
    few = {**enc, 'test': enc['test'].select(range(50))} # while a rate is chosen, test is not asked
    def train(name, lr, seed, data=enc):
        model, tokenizer = arms[name](seed)
        model = in_bfloat16(model)
        return model, train_classifier(model, tokenizer, data, recipe, lr=lr, seed=seed, progress=False)
    lr, tuning, rows, pairs = {}, [], [], []
    for name in arms:
        valid = {rate: round(train(name, rate, 100, few)[1].valid_accuracy, 4) for rate in rates}
        tuning += [{'recipe': name, 'lr': rate, 'seed': 100, 'valid': v} for rate,v in valid.items()]
        lr[name] = max(valid, key=valid.get)
        print(name, valid, cpu(), 'CPU s', flush=True)
    for seed in range(args.transfer_seeds):
        runs = {}
        for name in arms:
            model, runs[name] = train(name, lr[name], seed)
            odd_accuracy = float(((predict_proba(model, tokenizer, odd) > .5) == y).mean())
            rows.append(row(runs[name], name, lr[name], seed, strange=round(odd_accuracy, 4)))
        m = mcnemar(runs['tiny-bert'], runs['random weights'])
        pairs.append({'seed': seed, 'only_tiny_bert': m.only_a, 'only_random': m.only_b, 'p': m.p})
        print(rows[-2:], cpu(), 'CPU s', flush=True)
    def nbsvm(ds): return round(linear_baseline({**data, 'test': ds}, 'nbsvm').accuracy, 4)
    return {'labelled_reviews': n_train, 'test_reviews': n_test, 'epochs': epochs, 'bf16': True,
            'tuning': tuning, 'lr': lr, 'runs': rows, 'mcnemar': pairs,
            'nbsvm': {'test': nbsvm(data['test']), 'strange': nbsvm(strange)}, 'cpu_seconds': cpu()}

def by_movie(path, sizes):
    "So many reviews for each split, no movie in two of them."
    from datasets import concatenate_datasets
    from course_lm.baselines import imdb_splits
    from course_lm.data import load_imdb
    ds = load_imdb(path)
    parts = imdb_splits(concatenate_datasets([ds[k] for k in ('train', 'test') if k in ds]), by='movie')
    few = [k for k,n in sizes.items() if len(parts[k]) < n]
    if few: raise SystemExit(f'{path} has too few reviews for {few[0]}: {len(parts[few[0]])}')
    return {k: parts[k].select(range(n)) for k,n in sizes.items()}

def long(args, width=128, n_train=2000, n_test=1500):
    "Real reviews in a model of 128 tokens: which part to keep, or all of it in windows."
    import numpy as np
    from course_lm.classification import ADAMW_LINEAR, encode_reviews, train_classifier
    from course_lm.windows import encode_head_tail, encode_windows, predict_windows
    from course_lm.data import train_tokenizer
    data = by_movie(args.long, dict(train=n_train, valid=400, test=n_test))
    tokenizer = train_tokenizer(data['train']['text'], 8000, masked=True)
    lengths, y = np.array(encode_reviews(data['test'], tokenizer)['length']), np.array(data['test']['label'])
    rows, start = [], time.process_time()
    def cpu(): return round(time.process_time()-start)
    def head(ds): return encode_reviews(ds, tokenizer, width)
    def tail(ds): return encode_reviews(ds, tokenizer, width, 'left')
    def both(ds): return encode_head_tail(ds, tokenizer, width, .5)
    def windows(ds):
        w = encode_windows(ds, tokenizer, width, width-2)
        return w.add_column('label', np.array(ds['label'])[np.array(w['review'])].tolist())
    ways = {'head': head, 'tail': tail, 'head and tail': both, 'windows': windows}
    named = {'logits': 'windows, logits averaged', 'probs': 'windows, probs averaged',
             'surest': 'windows, the surest one'}
    for seed in range(args.long_seeds):
        for name,encode in ways.items():
            asked = tail if name == 'windows' else encode # of valid and test, while it is trained
            enc = {k: (encode if k == 'train' else asked)(v) for k,v in data.items()}
            model = small_encoder(tokenizer, seed, width=width)
            epochs = 2 if name == 'windows' else 3
            recipe = replace(ADAMW_LINEAR, lr=3e-3, epochs=epochs, batch_size=32, warmup_steps=.1, seed=seed)
            run = train_classifier(model, tokenizer, enc, recipe, progress=False, name=name)
            probs = {name: run.probs}
            if name == 'windows':
                probs = {said: predict_windows(model, tokenizer, data['test'], average=a)
                         for a,said in named.items()}
            for said,p in probs.items():
                right = (p > .5) == y
                some = dict(test=right, short=right[lengths <= width], long=right[lengths > width])
                share = {k: round(float(v.mean()), 4) for k,v in some.items()}
                rows.append({'way': said, 'seed': seed, **share})
                print(rows[-1], cpu(), 'CPU s', flush=True)
    return {'width': width, 'train_reviews': n_train, 'test_reviews': n_test, 'split': 'by movie',
            'runs': rows, 'test_longer': int((lengths > width).sum()), 'cpu_seconds': cpu()}

def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--recipes', action='store_true')
    parser.add_argument('--longer', action='store_true')
    parser.add_argument('--body', action='store_true')
    parser.add_argument('--body-longer', action='store_true')
    parser.add_argument('--transfer', action='store_true')
    parser.add_argument('--long', help='what load_imdb takes; movies must be known')
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--transfer-seeds', type=int, default=3)
    parser.add_argument('--long-seeds', type=int, default=1)
    parser.add_argument('--out', type=Path, default=RESULTS)
    args = parser.parse_args()
    parts = dict(recipes=recipes, longer=longer, body=body, body_longer=body_longer, transfer=transfer,
                 long=long)
    asked = [part for part in parts if getattr(args, part)]
    if not asked: parser.error('give --recipes, --longer, --body, --body-longer, --transfer or --long PATH')
    for part in asked:
        result = {**parts[part](args), 'machine': machine('torch', 'transformers', 'numpy')}
        keep({**kept(args.out), part: result}, args.out)

if __name__ == '__main__': main()
