"""Lessons 61, 62 and 63: all-MiniLM-L6-v2 trained whole on film reviews, its head on the mean of its states.

    alias run='python -m benchmarks.experiments.minilm_tuned --imdb PATH'
    run --rates              # four rates at 500 labels, seed 0; valid chooses, test is not asked
    run --labels 100 500     # a row for each seed (2000 and 20000 too); --lr 1e-4 in place of what was chosen
    run --compare            # 20,000 labels beside NB-SVM, on test: McNemar, interval, calibration
    run --long               # 20,000 labels, by length: the last window against the mean of all

PATH is whatever load_imdb takes. Splits and drawn reviews are those of minilm_imdb: by movie, seed 42. A
review is its last 256 tokens. Weights are float32, the arithmetic of the body is bfloat16 where autocast
allows it; attention stays float32, which was faster on a CPU with AMX, for its backward half. Dropout is 0:
with it there is no fused attention on a CPU, and an update takes half as long again. A run that was killed
goes on from its checkpoint in --keep; one that stands there is not done again.
"""
import argparse, shutil, time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from benchmarks import bench

bench.prepare(threads=1)
import numpy as np, torch
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm
from transformers import AttentionInterface, AttentionMaskInterface, BertForSequenceClassification
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from benchmarks.experiments.minilm_imdb import (
    BOTH, PACKAGES, SIZES, WINDOW, by_windows, compared, load, n_windows, nbsvm_odds, source)

RESULTS = bench.results/'minilm_tuned.json'
RATES, EPOCHS = (2e-5, 5e-5, 1e-4, 2e-4), {100: 10, 500: 4, 2000: 2, 20000: 1}
DRAWN_FROM = {20000: 20000} # else the first 5,000 training reviews, as for the frozen rows


def float32_attention(module, query, key, value, mask, **how):
    with torch.autocast(query.device.type, enabled=False):
        states = query.float(), key.float(), value.float()
        out, weights = sdpa_attention_forward(module, *states, mask, **how)
    return out.to(query.dtype), weights


AttentionInterface.register('float32', float32_attention)
AttentionMaskInterface.register('float32', sdpa_mask)


class MeanPooled(BertForSequenceClassification):
    "The head sees the mean over the real tokens. The body computes in bfloat16 where that is safe."
    def forward(self, input_ids, attention_mask, labels=None):
        with torch.autocast(input_ids.device.type, torch.bfloat16):
            states = self.bert(input_ids, attention_mask).last_hidden_state
        real = attention_mask[:, :, None]
        logits = self.classifier((states.float()*real).sum(1)/real.sum(1))
        loss = None if labels is None else cross_entropy(logits, labels)
        return SimpleNamespace(loss=loss, logits=logits)


def make(name='minilm', seed=0):
    "MeanPooled with the weights of `name`, the head new, and the tokenizer."
    from course_lm.baselines import LABELS
    from course_lm.models import load_lm
    model, tokenizer = load_lm(name, 'sequence-classification', labels=LABELS, seed=seed)
    config = model.config
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.
    pooled = MeanPooled(config)
    pooled.set_attn_implementation('float32')
    pooled.load_state_dict(model.state_dict())
    pooled.bert.pooler.requires_grad_(False) # it reads the first token, and nobody reads it
    return pooled.eval(), tokenizer


def tail(ds, tokenizer):
    from course_lm.classification import encode_reviews
    return encode_reviews(ds, tokenizer, WINDOW, 'left')


def batches(ds, tokenizer, batch_size, seed):
    from torch.utils.data import DataLoader
    from course_lm.classification import LengthBucketedSampler, review_batch
    rows = [dict(input_ids=i, label=y) for i,y in zip(ds['input_ids'], ds['label'])]
    sampler = LengthBucketedSampler(ds['length'], batch_size, seed=seed)
    return DataLoader(rows, batch_sampler=sampler, collate_fn=partial(review_batch, tokenizer=tokenizer))


def settings(labels, seed, lr):
    "ADAMW_LINEAR of lesson 61, with a rate, a warm-up and clipping of its own."
    from dataclasses import replace
    from course_lm.classification import ADAMW_LINEAR
    return replace(ADAMW_LINEAR, lr=lr, epochs=EPOCHS[labels], batch_size=16 if labels < 1000 else 32,
                   warmup_steps=.1, max_grad_norm=1., seed=seed)


def tuned(args, data, labels, seed, lr):
    "Model and tokenizer after a run, which goes on from where it stopped, and what the run came to."
    from course_lm.checkpoints import Checkpoints
    from course_lm.classification import predict_proba
    from course_lm.finetuning import train_loop
    folder, recipe = args.keep/f'{labels}-{seed}-{lr:g}', settings(labels, seed, lr)
    model, tokenizer = make(seed=seed)
    of = DRAWN_FROM.get(labels, 5000)
    chosen = np.random.default_rng(seed).permutation(of)[:labels]
    train = batches(tail(data['train'].select(chosen), tokenizer), tokenizer, recipe.batch_size, seed)
    keeper, evaluate = Checkpoints(folder/'checkpoints', seconds=120), None
    fresh, every, start = keeper.last() is None, 10**9, time.process_time()
    if labels == max(EPOCHS): # a learning curve; the end is taken, whatever it says
        valid = tail(data['valid'].shuffle(seed=0).select(range(1000)), tokenizer)
        every = len(train)//2
        def evaluate(model):
            p = predict_proba(model, tokenizer, valid)
            return dict(valid_accuracy=float(((p > .5) == np.array(valid['label'])).mean()))
    asked = {k: v for k,v in vars(recipe).items() if k not in ('batch_size', 'eval_every')}
    history = train_loop(model, train, evaluate=evaluate, checkpoints=keeper, eval_every=every, **asked)
    seconds = time.process_time()-start if fresh else None
    about = dict(labels=labels, seed=seed, lr=lr, epochs=recipe.epochs, batch_size=recipe.batch_size,
                 updates=len(history.steps), drawn_from=of, cpu_seconds=seconds)
    losses = np.array(history.losses)
    about['losses'] = [float(part.mean()) for part in np.array_split(losses, 10)]
    if evaluate:
        about['curve'] = [{k: e[k] for k in ('epoch', 'train_loss', 'valid_accuracy')} for e in history.evals]
    return model.eval(), tokenizer, about


def answers(args, data, labels, seed, lr, parts):
    "Log-odds of praise, by part, and what the run came to; kept, and not computed again."
    from course_lm.classification import predict_proba
    folder, run = args.keep/f'{labels}-{seed}-{lr:g}', None
    about = bench.kept(folder/'run.json')
    for part in parts:
        path = folder/f'{part}.npy'
        if path.exists(): continue
        run = run or tuned(args, data, labels, seed, lr)
        if not about:
            about = bench.rounded(run[2])
            bench.keep(about, folder/'run.json')
        start = time.process_time()
        odds = predict_proba(run[0], run[1], tail(data[part], run[1]), log_odds=True)
        print(f'{part}: {len(odds):,} reviews answered in {time.process_time()-start:.0f} CPU seconds')
        np.save(folder/f'{part}.part.npy', odds.astype(np.float32))
        (folder/f'{part}.part.npy').replace(path)
    return {p: answered(folder, p) for p in parts}, about, run


def answered(folder, part): return np.load(folder/f'{part}.npy', allow_pickle=False)


def share_right(odds, ds): return float(((odds > 0) == np.array(ds['label'])).mean())


def put(args, part, row, same):
    "Put a row into the results, in place of one that has the same values of `same`."
    found = bench.kept(args.out)
    rows = [r for r in found.get(part, []) if any(r[k] != row[k] for k in same)]
    rows = sorted([*rows, bench.rounded(row, 6)], key=lambda r: [r[k] for k in same])
    about = dict(window=WINDOW, precision='bfloat16 by autocast, weights float32', dropout=0., pooling='mean',
                 weights=source(), machine=bench.machine(*PACKAGES))
    bench.keep(found | {part: rows} | about, args.out)


def rates(args, data):
    for lr in tqdm(RATES, desc='rates'):
        odds, about, _ = answers(args, data, 500, 0, lr, ['valid'])
        put(args, 'rates', about | dict(valid_accuracy=share_right(odds['valid'], data['valid'])),
            ['labels', 'seed', 'lr'])
    bench.show('rates', bench.kept(args.out)['rates'])


def chosen_rate(args):
    rows = bench.kept(args.out).get('rates', [])
    if len(rows) < len(RATES): raise SystemExit('no rate is chosen yet: --rates first')
    return max(rows, key=lambda r: r['valid_accuracy'])['lr']


def rows_of(args, data, labels):
    from course_lm.baselines import wilson_interval
    from course_lm.models import save_lm
    lr, last = args.lr or chosen_rate(args), labels == max(EPOCHS)
    for seed in tqdm(range(SIZES[labels]), desc=f'{labels:,} labels'):
        odds, about, run = answers(args, data, labels, seed, lr, ['valid', 'test'] if last else ['test'])
        right = share_right(odds['test'], data['test'])
        n = len(data['test'])
        row = about | dict(lr_chosen_at=None if args.lr else 500, test_accuracy=right,
                           interval=list(wilson_interval(round(right*n), n)))
        if last: row['valid_accuracy'] = share_right(odds['valid'], data['valid'])
        put(args, 'runs', row, ['labels', 'seed'])
        if last and run: save_lm(run[0], run[1], args.keep/'tuned')
        if not last: shutil.rmtree(args.keep/f'{labels}-{seed}-{lr:g}'/'checkpoints', ignore_errors=True)
    bench.show('runs', [{k: v for k,v in r.items() if k not in ('interval', 'curve', 'valid_accuracy')}
                        for r in bench.kept(args.out)['runs']])


def most_labels(args):
    "The folder of the run with most labels, and its row."
    row = next(r for r in bench.kept(args.out)['runs'] if r['labels'] == max(EPOCHS))
    return args.keep/f"{row['labels']}-{row['seed']}-{row['lr']:g}", row


def compare(args, data):
    folder, row = most_labels(args)
    nb, tuned = nbsvm_odds(data), 'MiniLM, fine-tuned'
    odds = {'NB-SVM': nb, tuned: {k: answered(folder, k).astype(float) for k in nb}}
    odds[BOTH] = {k: sum(o[k] for o in odds.values())/2 for k in nb}
    new = dict(labels=row['labels'], **compared(data, odds, [('NB-SVM', tuned), (tuned, BOTH)]),
               machine=bench.machine(*PACKAGES))
    bench.keep(bench.kept(args.out) | {'compared': new}, args.out)


def long(args, data):
    from course_lm.windows import predict_windows
    (folder, row), test = most_labels(args), data['test']
    model, tokenizer = make(args.keep/'tuned')
    every = folder/'test_windows.npy'
    if not every.exists():
        p = predict_windows(model, tokenizer, test, max_length=WINDOW, stride=WINDOW-2)
        np.save(every, p.astype(np.float32))
    said = {'tail': answered(folder, 'test') > 0, 'all': answered(folder, 'test_windows') > .5}
    n, y = n_windows(list(test['text']), tokenizer), np.array(test['label'])
    rows = [dict(reads=which) | r for which,s in said.items() for r in by_windows(s == y, n)]
    whole = {which: float((s == y).mean()) for which,s in said.items()}
    new = dict(labels=row['labels'], rows=bench.rounded(rows), test_accuracy=whole,
               machine=bench.machine(*PACKAGES))
    bench.keep(bench.kept(args.out) | {'long': new}, args.out)
    bench.show('long', [{k: v for k,v in r.items() if k != 'interval'} for r in rows])


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--imdb', type=Path, required=True)
    what = parser.add_mutually_exclusive_group(required=True)
    for name in ('rates', 'compare', 'long'): what.add_argument(f'--{name}', action='store_true')
    what.add_argument('--labels', type=int, choices=EPOCHS, nargs='+')
    parser.add_argument('--lr', type=float, help='in place of the rate that --rates chose')
    parser.add_argument('--keep', type=Path, default=bench.root/'work'/'minilm_tuned')
    parser.add_argument('--out', type=Path, default=RESULTS)
    args = parser.parse_args()
    data = load(args.imdb)
    for f in (rates, compare, long):
        if getattr(args, f.__name__): f(args, data)
    for labels in args.labels or (): rows_of(args, data, labels)
