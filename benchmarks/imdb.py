"""Lesson 6 on real reviews: word counters and a tiny encoder, all on the same few training reviews.

    python benchmarks/imdb.py --imdb PATH      # whatever load_imdb takes, with a column movie: about four minutes on two cores
    python benchmarks/imdb.py --body           # does a masked language model's body help? On made-up reviews; about three minutes

Prints accuracies with 95 % intervals and keeps them in benchmarks/results/imdb.json with machine, versions and date.
No test review is about a movie that a training review is about. Nothing is chosen: settings are fixed below, the
weights are those after the last epoch, and both ends at which a review may be cut are reported.
"""
import argparse, datetime, json, os, platform, time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('HF_DATASETS_DISABLE_PROGRESS_BARS', '1')
RESULTS = Path(__file__).parent/'results'/'imdb.json'

def machine():
    import torch
    cpu = platform.processor()
    if Path('/proc/cpuinfo').exists():
        cpu = next((line.split(':')[1].strip() for line in Path('/proc/cpuinfo').read_text().splitlines() if line.startswith('model name')), cpu)
    return {'cpu': cpu, 'cores': os.cpu_count(), 'threads': torch.get_num_threads(), 'load': round(os.getloadavg()[0], 1), 'python': platform.python_version(),
            **{p: version(p) for p in ('torch', 'transformers', 'datasets', 'scikit-learn', 'numpy')}, 'date': datetime.date.today().isoformat()}

def row(run, cpu_seconds, **more):
    low, high = run.interval
    return {'run': run.name, 'accuracy': round(100*run.accuracy, 1), 'from': round(100*low, 1), 'to': round(100*high, 1), 'test_reviews': run.n,
            'trained_numbers': run.n_params, 'cpu_seconds': round(cpu_seconds, 1), **run.settings, **more}

def measured(f, *args, **kw):
    start = time.process_time()
    run = f(*args, **kw)
    r = row(run, time.process_time()-start)
    print(f"{run!r}   {r['cpu_seconds']} CPU s", flush=True)
    return r

def few_reviews(path, n_train, n_valid, n_test, seed):
    "So many reviews for each split, no movie in two of them."
    from datasets import DatasetDict, concatenate_datasets
    from course_lm.classification import imdb_splits
    from course_lm.data import load_imdb
    ds = load_imdb(path)
    ds = concatenate_datasets([ds[k] for k in ('train', 'test') if k in ds])
    parts = imdb_splits(ds, by='movie', seed=seed)
    for k,n in dict(train=n_train, valid=n_valid, test=n_test).items():
        if len(parts[k]) < n: raise SystemExit(f'{path} has {len(parts[k])} reviews for {k}, {n} are asked for')
    return DatasetDict({k: parts[k].select(range(n)) for k,n in dict(train=n_train, valid=n_valid, test=n_test).items()})

def real(args):
    from course_lm.classification import encode_reviews, leak_report, load_classifier, majority_baseline, nbsvm_baseline, tfidf_baseline, train_classifier
    from course_lm.data import train_byte_bpe
    from course_lm.finetuning import new_lm
    data = few_reviews(args.imdb, args.train, 500, args.test, args.seed)
    leaks = leak_report(data)
    print(leaks.to_string(index=False))
    if leaks.query("`with a` == 'movie'")['number'].sum(): raise SystemExit('a movie is in two splits')
    rows = [measured(f, data) for f in (majority_baseline, tfidf_baseline, nbsvm_baseline)]
    tokenizer = train_byte_bpe(data['train']['text'], 8000, masked=True)
    for side,name in (('right', 'tiny encoder, first 256 tokens'), ('left', 'tiny encoder, last 256 tokens')):
        enc = {k: encode_reviews(v, tokenizer, 256, side) for k,v in data.items()}
        _, model = load_classifier((tokenizer, new_lm(tokenizer, n_layer=2, n_embd=64, max_length=256)))
        rows.append(measured(train_classifier, model, tokenizer, enc, recipe='adamw-linear', epochs=args.epochs, lr=3e-3, batch_size=32, warmup_steps=.1, name=name, progress=False))
    return {'train_reviews': args.train, 'seed': args.seed, 'split': 'by movie', 'runs': rows}

def masked_body(args, n_unlabelled=6000, n_labelled=1000, epochs=6):
    "A body that has learnt to fill masks in 6,000 made-up reviews against one with random weights, then 1,000 labels for both."
    import torch
    from datasets import DatasetDict
    from course_lm.classification import LengthBucketedSampler, encode_reviews, load_classifier, nbsvm_baseline, tfidf_baseline, train_classifier
    from course_lm.data import reviews, train_byte_bpe
    from course_lm.finetuning import new_lm
    from course_lm.labels import BertMasking, LMCollator
    texts = reviews(n_unlabelled, seed=11, length='short')['text'][:]
    data = DatasetDict(train=reviews(n_labelled, seed=1, length='short'), valid=reviews(500, seed=2, length='short'), test=reviews(2000, seed=3, length='short'))
    tokenizer = train_byte_bpe(texts, 1200, masked=True)
    shape = dict(n_layer=2, n_embd=64, max_length=128)
    lm, enc = new_lm(tokenizer, **shape), encode_reviews(texts, tokenizer, 128)
    sampler, collate, losses = LengthBucketedSampler(enc['length'], 32), LMCollator(tokenizer, BertMasking(prob=.3), generator=torch.Generator().manual_seed(0)), []
    opt = torch.optim.AdamW(lm.parameters(), lr=4e-3)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, 4e-3, total_steps=epochs*len(sampler))
    rows, start = enc['input_ids'][:], time.process_time()
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        losses.append(0.)
        for idx in sampler:
            loss = lm(**collate([{'input_ids': rows[i]} for i in idx])).loss
            loss.backward()
            opt.step(); sched.step(); opt.zero_grad()
            losses[-1] += loss.item()/len(sampler)
        print(f'masked language model, epoch {epoch+1}: {losses[-1]:.3f} nats per masked token', flush=True)
    out = {'unlabelled_reviews': n_unlabelled, 'labelled_reviews': n_labelled, 'masked_losses': [round(l, 3) for l in losses],
           'pretraining_cpu_seconds': round(time.process_time()-start, 1), 'runs': [measured(f, data) for f in (tfidf_baseline, nbsvm_baseline)]}
    for seed in (0, 1, 2):
        for name,body,lr in (('random body', new_lm(tokenizer, seed=seed, **shape), 4e-3), ('masked body', lm, 4e-3), ('masked body, small steps', lm, 1e-3)):
            _, model = load_classifier((tokenizer, body), seed=seed)
            out['runs'].append(measured(train_classifier, model, tokenizer, data, recipe='adamw-linear', epochs=5, lr=lr, batch_size=32, warmup_steps=.1, seed=seed, name=name, progress=False))
    return out

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--imdb', help='aclImdb folder, movie_data.csv, parquet file or folder; movies must be known')
    parser.add_argument('--body', action='store_true', help='pretrain a tiny body on made-up reviews and see whether that helps')
    for name,default in dict(train=2000, test=2000, epochs=3, seed=42).items(): parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--out', type=Path, default=RESULTS)
    args = parser.parse_args()
    if not (args.imdb or args.body): parser.error('give --imdb PATH, or --body')
    out = json.loads(args.out.read_text()) if args.out.exists() else {}
    if args.imdb: out['imdb'] = {**real(args), 'machine': machine()}
    if args.body: out['body'] = {**masked_body(args), 'machine': machine()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    part = args.out.with_suffix('.part')
    part.write_text(json.dumps(out, indent=1) + '\n')
    part.replace(args.out)
    print(f'kept in {args.out}')

if __name__ == '__main__': main()
