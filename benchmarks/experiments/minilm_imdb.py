"""Lessons 61 and 63: a real encoder, all-MiniLM-L6-v2 (22.7 million parameters), on film reviews.

    alias run='python -m benchmarks.experiments.minilm_imdb --imdb PATH'
    run                     # frozen: every review is read once, then logistic regression on what was kept
    run --train 5000        # the same with fewer reviews to read: 20 CPU-milliseconds each
    run --compare           # beside NB-SVM, on test: McNemar, interval, calibration before and after
    run --long              # short, middle and long reviews: the last window against the mean of all
    run --split             # split by movie against a split by review

PATH is whatever load_imdb takes. The splits are those of course_lm/records/imdb.json: by movie, seed 42,
20,000, 2,500 and 2,500 reviews, so that NB-SVM and tiny-bert in that file were asked the same test. What the
encoder says of a review is kept in --keep and not computed again; a run that stands in the results is not
done again. C is chosen on valid.
Inputs are windows of 256 tokens, counted from the review's end: `tail` takes the last one, `all` the mean.
"""
import argparse, time
from pathlib import Path

from benchmarks import bench

bench.prepare(threads=1)
import numpy as np, torch
from tqdm.auto import tqdm

RESULTS = bench.results/'minilm_imdb.json'
PACKAGES = 'torch', 'transformers', 'scikit-learn', 'numpy'
SHARES, SPLIT_SEED, WINDOW, PART = (.8, .1, .1), 42, 256, 500
SIZES = {100: 3, 500: 3, 2000: 3, 5000: 1, 20000: 1} # labels: seeds, which draw the reviews
CS = .0003, .003, .03, .3


def load(path):
    from course_lm.baselines import imdb_splits
    from course_lm.data import load_imdb
    return imdb_splits(load_imdb(path), by='movie', shares=SHARES, seed=SPLIT_SEED)


# ---- what the encoder says


def windows(ids, room):
    "Pieces of at most `room` tokens, the last one first."
    return [ids[max(0, end-room):end] for end in range(len(ids), 0, -room)] or [ids]


@torch.no_grad()
def embed(model, tokenizer, texts, dtype=torch.bfloat16, batch=32):
    "(reviews, 2, layers+1, width): mean over the tokens of the last window, and of all windows, by layer."
    from course_lm.support.inputs import around
    body = model.base_model.to(dtype).eval()
    rows = tokenizer(texts, add_special_tokens=False, verbose=False)['input_ids']
    before, after = around(tokenizer)
    pieces = [(i, [*before, *w, *after]) for i,ids in enumerate(rows)
              for w in windows(ids, WINDOW-len(before)-len(after))]
    first = {}
    for k,(i,_) in enumerate(pieces): first.setdefault(i, k)
    means, counts = [None]*len(pieces), np.array([len(ids) for _,ids in pieces])
    order = counts.argsort(kind='stable')
    for at in range(0, len(order), batch):
        chosen = order[at:at+batch]
        x = tokenizer.pad({'input_ids': [pieces[k][1] for k in chosen]}, return_tensors='pt')
        mask = x['attention_mask'][:, :, None].float()
        states = body(**x, output_hidden_states=True).hidden_states
        mean = torch.stack([(h.float()*mask).sum(1)/mask.sum(1) for h in states], 1).numpy()
        for k,m in zip(chosen, mean): means[k] = m
    of, means = np.array([i for i,_ in pieces]), np.stack(means)
    found = np.empty((len(texts), 2, *means.shape[1:]), np.float32)
    for i in range(len(texts)):
        mine = of == i
        found[i] = means[first[i]], np.average(means[mine], axis=0, weights=counts[mine])
    return found


def embedded(make, texts, folder):
    "The same in parts of 500 reviews that are kept; `make` gives model and tokenizer where one is missing."
    from course_lm.support.files import fingerprint
    out, pair, start = [], None, time.process_time()
    for at in tqdm(range(0, len(texts), PART), desc=folder.name):
        part = texts[at:at+PART]
        path = folder/f'{fingerprint(WINDOW, part)}.npy'
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            pair = pair or make()
            np.save(path.with_suffix('.part.npy'), embed(*pair, part).astype(np.float16))
            path.with_suffix('.part.npy').replace(path)
        out.append(np.load(path, allow_pickle=False).astype(np.float32))
    return np.concatenate(out), time.process_time()-start


# ---- classifiers on top


def make():
    from course_lm.models import load_lm
    return load_lm('minilm', 'sequence-classification')


def fit(x, y, C):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000)).fit(x, y)


def features(x, which):
    "(reviews, numbers): the mean over the last layer, as the model's card has it, or of every layer."
    window, layers = which
    rows = x[:, ('tail', 'all').index(window)]
    return rows[:, -1] if layers == 'last' else rows.reshape(len(rows), -1)


def frozen(args):
    from course_lm.baselines import wilson_interval
    data = load(args.imdb)
    data['train'] = data['train'].select(range(args.train))
    x, y, seconds = {}, {}, {}
    for part in ('test', 'valid', 'train'):
        x[part], seconds[part] = embedded(make, list(data[part]['text']), args.keep/part)
        y[part] = np.array(data[part]['label'])
    found = bench.kept(args.out)
    rows = found.get('frozen', [])
    todo = [(n, seed, (w, layers)) for n,seeds in SIZES.items() for seed in range(seeds)
            for w in ('tail', 'all') for layers in ('last', 'every')]
    for n, seed, which in tqdm(todo, desc='classifiers'):
        n = min(n, args.train)
        key = dict(labels=n, seed=seed, window=which[0], layers=which[1])
        if any(all(r[k] == v for k,v in key.items()) for r in rows): continue
        f = {part: features(x[part], which) for part in x}
        chosen = np.random.default_rng(seed).permutation(len(y['train']))[:n]
        fits = {C: fit(f['train'][chosen], y['train'][chosen], C) for C in CS}
        right = {C: float((m.predict(f['valid']) == y['valid']).mean()) for C,m in fits.items()}
        C = max(right, key=right.get)
        hits = int((fits[C].predict(f['test']) == y['test']).sum())
        row = key | dict(drawn_from=args.train, C=C, valid_accuracy=right[C],
                         test_accuracy=hits/len(y['test']),
                         interval=list(wilson_interval(hits, len(y['test']))))
        rows.append(bench.rounded(row))
        bench.keep(bench.kept(args.out) | dict(frozen=rows, splits=dict(
            {part: len(y[part]) for part in y}, by='movie', seed=SPLIT_SEED), window=WINDOW, Cs=CS,
            precision='bfloat16', weights=source(), machine=bench.machine(*PACKAGES)), args.out)
    bench.show('frozen', [{k: v for k,v in r.items() if k != 'interval'} for r in rows])


def source():
    from course_lm.support.machine import cache_path, kept_model
    from course_lm.support.real import wheels
    kept = kept_model('minilm')
    return wheels['minilm'].asked if kept and kept.is_relative_to(cache_path()) else 'hub'


# ---- two of them, compared


def temperature(odds, labels):
    "The number that the log-odds are best divided by."
    def loss(T): return np.logaddexp(0, np.where(labels == 1, -odds, odds)/T).mean()
    return float(min(np.geomspace(.2, 10, 400), key=loss))


def nbsvm_odds(data):
    "Log-odds of NB-SVM for valid and test."
    from course_lm.baselines import linear_baseline
    def log_odds(p): return np.log(p.clip(1e-7, 1-1e-7)) - np.log1p(-p.clip(1e-7, 1-1e-7))
    return {part: log_odds(linear_baseline(data, 'nbsvm', score_on=part).probs) for part in ('valid', 'test')}


def compared(data, odds, pairs):
    "Runs of {name: log-odds by part} with their calibration, and pairs of names with their difference."
    from course_lm.baselines import RunResult
    from course_lm.comparing import calibration_error, difference_interval, mcnemar
    runs, told, tested = {}, [], []
    for name, o in odds.items():
        T = temperature(o['valid'], np.array(data['valid']['label']))
        both = (1/(1+np.exp(-x.clip(-500, 500))) for x in (o['test'], o['test']/T))
        before, after = (RunResult.of(splits=data, score_on='test', chosen_on='valid', name=name, probs=p)
                         for p in both)
        runs[name] = before
        told.append(dict(name=name, test_accuracy=before.accuracy, interval=list(before.interval),
                         temperature=T, calibration_error=calibration_error(before),
                         after=calibration_error(after)))
    for a, b in pairs:
        m, d = mcnemar(runs[a], runs[b]), difference_interval(runs[a], runs[b])
        tested.append(dict(first=a, second=b, only_first=m.only_a, only_second=m.only_b, p=m.p,
                           difference=d[0], low=d[1], high=d[2]))
    bench.show('compared', [{k: v for k,v in r.items() if k != 'interval'} for r in told])
    bench.show('pairs', tested)
    return dict(runs=bench.rounded(told), pairs=bench.rounded(tested))


BOTH = 'mean of both log-odds'


def compare(args):
    data = load(args.imdb)
    data['train'] = data['train'].select(range(args.train))
    rows = [r for r in bench.kept(args.out)['frozen'] if r['labels'] == args.train and r['seed'] == 0]
    best = max(rows, key=lambda r: r['valid_accuracy'])
    x = {part: features(embedded(make, list(data[part]['text']), args.keep/part)[0],
                        (best['window'], best['layers'])) for part in data}
    chosen = np.random.default_rng(0).permutation(args.train)
    minilm = fit(x['train'][chosen], np.array(data['train']['label'])[chosen], best['C'])
    nb, frozen = nbsvm_odds(data), 'MiniLM, frozen'
    odds = {'NB-SVM': nb, frozen: {k: minilm.decision_function(x[k]) for k in nb}}
    odds[BOTH] = {k: sum(o[k] for o in odds.values())/2 for k in nb}
    which = {k: best[k] for k in ('window', 'layers', 'C')}
    new = dict(labels=args.train, features=which, machine=bench.machine(*PACKAGES),
               **compared(data, odds, [(frozen, 'NB-SVM'), ('NB-SVM', BOTH)]))
    bench.keep(bench.kept(args.out) | {'compared': new}, args.out)


# ---- long reviews, and another split


def every_layer(args, data, window):
    "Features by part, and the C that valid chose for them at so many labels."
    C = next(r['C'] for r in bench.kept(args.out)['frozen'] if r['labels'] == args.train
             and (r['seed'], r['window'], r['layers']) == (0, window, 'every'))
    return {part: features(embedded(make, list(data[part]['text']), args.keep/part)[0], (window, 'every'))
            for part in data}, C


def n_windows(texts, tokenizer):
    from course_lm.support.inputs import around
    room = WINDOW - sum(map(len, around(tokenizer)))
    rows = tokenizer(texts, add_special_tokens=False, verbose=False)['input_ids']
    return np.array([len(windows(ids, room)) for ids in rows])


def by_windows(right, n):
    "Accuracy with its interval for reviews of one window, of two, and of more."
    from course_lm.baselines import wilson_interval
    groups = {'one': n == 1, 'two': n == 2, 'three or more': n > 2}
    return [dict(windows=name, reviews=int(mine.sum()), accuracy=float(right[mine].mean()),
                 interval=list(wilson_interval(int(right[mine].sum()), int(mine.sum()))))
            for name, mine in groups.items()]


def long(args):
    data, rows = load(args.imdb), []
    data['train'] = data['train'].select(range(args.train))
    y = {part: np.array(data[part]['label']) for part in data}
    n = n_windows(list(data['test']['text']), make()[1])
    for which in tqdm(('tail', 'all'), desc='windows'):
        x, C = every_layer(args, data, which)
        right = fit(x['train'], y['train'], C).predict(x['test']) == y['test']
        rows += [dict(reads=which) | row for row in by_windows(right, n)]
    new = dict(labels=args.train, layers='every', rows=bench.rounded(rows), machine=bench.machine(*PACKAGES))
    bench.keep(bench.kept(args.out) | {'long': new}, args.out)
    bench.show('long', [{k: v for k,v in r.items() if k != 'interval'} for r in rows])


def split(args):
    "The same 25,000 reviews cut by movie and cut by review, as many in each part."
    from course_lm.baselines import imdb_splits, linear_baseline, wilson_interval
    from course_lm.data import load_imdb
    data, rows = load(args.imdb), []
    x, C = every_layer(args, data, 'all')
    place = {text: (part, i) for part in data for i,text in enumerate(data[part]['text'])}
    other = imdb_splits(load_imdb(args.imdb), by='position', shares=SHARES, seed=SPLIT_SEED)
    for name, parts in tqdm({'movie': data, 'review': other}.items(), desc='splits'):
        z, y = {}, {part: np.array(parts[part]['label']) for part in parts}
        for part in ('train', 'test'):
            z[part] = np.stack([x[p][i] for p,i in map(place.get, parts[part]['text'])])
        frozen = fit(z['train'], y['train'], C).predict(z['test'])
        runs = {'NB-SVM': linear_baseline(parts, 'nbsvm').predictions, 'MiniLM, frozen': frozen}
        for run, said in runs.items():
            hits = int((said == y['test']).sum())
            rows.append(dict(split=name, run=run, labels=len(y['train']), test_accuracy=hits/len(y['test']),
                             interval=list(wilson_interval(hits, len(y['test'])))))
    new = dict(rows=bench.rounded(rows), seed=SPLIT_SEED, C=C, machine=bench.machine(*PACKAGES))
    bench.keep(bench.kept(args.out) | {'split': new}, args.out)
    bench.show('split', [{k: v for k,v in r.items() if k != 'interval'} for r in rows])


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--imdb', type=Path, required=True)
    parser.add_argument('--train', type=int, default=20000, help='reviews to learn from')
    what = parser.add_mutually_exclusive_group()
    for name in ('compare', 'long', 'split'): what.add_argument(f'--{name}', action='store_true')
    parser.add_argument('--keep', type=Path, default=bench.root/'work'/'minilm')
    parser.add_argument('--out', type=Path, default=RESULTS)
    args = parser.parse_args()
    asked = (f for f in (compare, long, split) if getattr(args, f.__name__))
    next(asked, frozen)(args)
