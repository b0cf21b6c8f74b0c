"""Lesson 6 on the real reviews: what they share, baselines that count words, an LSTM, encoders.

    alias run='python -m benchmarks.experiments.imdb --imdb PATH'
    run                                              # baselines, LSTM, an encoder from random weights
    run --only encoder --encoder tiny --train 500    # tiny-bert: a point of its learning curve
    run --only encoder --encoder tiny-scratch --train 500        # the same network, random weights
    run --only baselines --baselines nbsvm --train 500           # what counting gets from as many
    run --only encoder --pretrain 20 --unlabelled PATH2 --keep FOLDER
    run --only encoder --encoder FOLDER_OR_HUB_NAME --recipe adam --epochs 3 --lr 5e-5
    run --split lecture                              # 70/10/20 % by position, as the lecture cuts

PATH is whatever load_imdb takes: an aclImdb folder, movie_data.csv[.gz], parquet. Every run becomes a row of
course_lm/records/imdb.json, in place of an earlier row of the same name, split, seed and number of training
reviews. An epoch is chosen on valid, never on test; test is answered once, after the last epoch.
"""

import argparse, json, math, time
from pathlib import Path

from benchmarks import bench

bench.prepare(offline=False)
RESULTS = bench.results / 'imdb.json'
# train, valid, test; official leaves its test half whole
SHARES = {'official': (0.7, 0.1, 0.2), 'movie': (0.8, 0.1, 0.1), 'lecture': (0.7, 0.1, 0.2)}

PACKAGES = ('torch', 'transformers', 'datasets', 'scikit-learn', 'numpy')


def change(path, part, new, same):
    "Put a row into a part of the results, in place of the row that has the same values of `same`."

    def key(row):
        return [row[k] for k in same]

    rows = bench.kept(path).get(part, [])
    bench.keep(bench.kept(path) | {part: [r for r in rows if key(r) != key(new)] + [new]}, path)


def row_of(run, data, args, cpu_seconds, valid_accuracy, **settings):
    low, high = run.interval
    epochs, where = run.history[1:], bench.machine(*PACKAGES)  # the first evaluation is before training
    return {
        'name': run.name,
        'split': args.split,
        'seed': args.seed,
        **{f'{k}_reviews': len(data[k]) for k in ('train', 'valid', 'test')},
        'valid_accuracy': valid_accuracy,
        'test_accuracy': run.accuracy,
        'interval': [low, high],
        'correct': run.correct,
        'n_params': run.n_params,
        'seconds': run.seconds,
        'epoch_seconds': run.epoch_seconds if epochs else None,
        'cpu_seconds': cpu_seconds,
        'chosen_on': run.chosen_on,
        'curve': [
            {
                'epoch': e['epoch'],
                'minutes': e['seconds'] / 60,
                'cpu_minutes': e['cpu_seconds'] / 60,
                'valid_accuracy': e['valid_accuracy'],
                'train_loss': e['train_loss'],
            }
            for e in epochs
        ],
        'settings': {**run.settings, **settings},
        'machine': where,
        'date': where['date'],
    }


def keep(args, row):
    row = bench.rounded(row)
    change(args.out, 'runs', row, ('name', 'split', 'seed', 'train_reviews'))
    print(
        f"{row['name']:<40} valid {100 * row['valid_accuracy']:5.2f}  test {100 * row['test_accuracy']:5.2f} "
        f"({100 * row['interval'][0]:.1f} to {100 * row['interval'][1]:.1f})"
        f"  {row['n_params']:>9,} numbers  {row['cpu_seconds']:7.1f} CPU s  chosen on "
        f"{row['chosen_on'] or '-'}",
        flush=True,
    )


def load(args):
    from course_lm.baselines import imdb_splits
    from course_lm.data import load_imdb

    ds = load_imdb(args.imdb)
    if args.split == 'official':
        data = imdb_splits(ds, by='official', shares=SHARES['official'], seed=args.seed)
    elif args.split == 'movie':
        data = imdb_splits(ds, by='movie', shares=SHARES['movie'], seed=args.seed)
    else:
        data = imdb_splits(ds, by='position', shares=SHARES['lecture'], seed=None)
    for k in data:
        n = getattr(args, k)
        if n and n > len(data[k]):
            raise SystemExit(f'{k} has {len(data[k])} reviews, --{k} asks for {n}')
        if n:
            data[k] = data[k].select(range(n))
    return data


def leaks(args, data):
    from course_lm.baselines import leak_report

    start, cpu = time.perf_counter(), time.process_time()
    table, where = leak_report(data), bench.machine(*PACKAGES)
    new = {
        'split': args.split,
        'seed': args.seed,
        **{f'{k}_reviews': len(data[k]) for k in data},
        'rows': table.to_dict('records'),
        'seconds': time.perf_counter() - start,
        'cpu_seconds': time.process_time() - cpu,
        'machine': where,
        'date': where['date'],
    }
    change(args.out, 'leaks', bench.rounded(new), ('split', 'seed', 'train_reviews'))
    print(table.to_string(index=False), f"\n{new['cpu_seconds']:.1f} CPU s", flush=True)


def baseline(data, name, split):
    "One baseline, scored on a split, and its settings."
    from benchmarks.experiments.lexicon import lexicon_baseline
    from course_lm.baselines import linear_baseline

    if name == 'words':
        return lexicon_baseline(data, split), {}
    settings = {'ngrams': (1, 2), 'C': 10.0} if name == 'tfidf2' else {}
    return linear_baseline(data, 'tfidf' if name == 'tfidf2' else name, score_on=split, **settings), settings


def baselines(args, data):
    for name in args.baselines.split(','):
        cpu = time.process_time()
        run, settings = baseline(data, name, 'test')
        cpu = time.process_time() - cpu
        keep(args, row_of(run, data, args, cpu, baseline(data, name, 'valid')[0].accuracy, **settings))


def recipe_of(args, **changes):
    "One of the lecture's two recipes; the epoch that is best on valid is kept."
    from dataclasses import replace
    from course_lm.classification import ADAM, ADAMW_LINEAR

    known = {'adam': ADAM, 'adamw-linear': replace(ADAMW_LINEAR, warmup_steps=0.1)}
    return replace(known[args.recipe], keep_best=True, seed=args.seed, **changes)


def lstm(args, data):
    from course_lm.classification import lstm_baseline

    recipe = recipe_of(args, epochs=args.epochs or 6, batch_size=args.batch_size or 64, lr=args.lr or 5e-3)
    shape = dict(
        pooling=args.pooling,
        bidirectional=args.bidirectional,
        n_embd=args.n_embd or 64,
        n_hidden=args.n_hidden,
        dropout=args.dropout,
    )
    cpu = time.process_time()
    run = lstm_baseline(
        data,
        recipe,
        max_length=args.max_length or 256,
        truncation_side=args.cut_off,
        name=args.name or 'LSTM',
        progress=False,
        **shape,
    )
    keep(args, row_of(run, data, args, time.process_time() - cpu, run.valid_accuracy, recipe=args.recipe))


def fill_masks(args, lm, tokenizer, texts):
    """Train `lm` to fill masks in `texts`, for --pretrain minutes; the learning rate follows the clock. What
    it cost, and its losses."""
    import numpy as np, torch
    from course_lm.classification import LengthBucketedSampler, encode_reviews
    from course_lm.labels import BertMasking, LMCollator

    enc = encode_reviews(texts, tokenizer, args.max_length or 256, args.cut_off)
    sampler = LengthBucketedSampler(enc['length'], 32, seed=args.seed)
    collate, rows = (
        LMCollator(
            tokenizer,
            BertMasking(prob=0.3, mask=1.0, random=0.0),
            generator=torch.Generator().manual_seed(args.seed),
        ),
        enc['input_ids'][:],
    )
    lm.sparse_prediction = True  # the large matrix to the words only where a word is asked for
    opt = torch.optim.AdamW(lm.to(args.device).parameters(), lr=1.0, betas=(0.9, 0.98), weight_decay=0.01)
    start, cpu, curve, some, tokens, epoch = time.perf_counter(), time.process_time(), [], [], 0, 0

    def gone():  # share of the allowance; on a CPU its own seconds count
        spent = time.process_time() - cpu if args.device == 'cpu' else time.perf_counter() - start
        return spent / (60 * args.pretrain)

    lm.train()
    while gone() < 1:
        sampler.set_epoch(epoch)
        epoch += 1
        for idx in sampler:
            if (t := gone()) >= 1:
                break
            opt.param_groups[0]['lr'] = args.pretrain_lr * min(1, t / 0.05) * min(1, (1 - t) / 0.5)
            batch = {k: v.to(args.device) for k, v in collate([{'input_ids': rows[i]} for i in idx]).items()}
            loss = lm(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
            opt.step()
            opt.zero_grad()
            some.append(loss.item())
            tokens += int(batch['attention_mask'].sum())
            if len(some) == 100:
                curve.append(
                    {
                        'minutes': (time.perf_counter() - start) / 60,
                        'cpu_minutes': (time.process_time() - cpu) / 60,
                        'tokens': tokens,
                        'loss': float(np.mean(some)),
                    }
                )
                some = []
                if len(curve) % 5 == 1:
                    print(
                        f"filling masks: {curve[-1]['cpu_minutes']:5.1f} CPU minutes, {tokens / 1e6:5.2f} M "
                        f"tokens, loss {curve[-1]['loss']:.3f}",
                        flush=True,
                    )
    lm.eval()
    return {
        'pretrain_cpu_seconds': time.process_time() - cpu,
        'pretrain_seconds': time.perf_counter() - start,
        'pretrain_tokens': tokens,
        'pretrain_epochs': tokens / sum(enc['length']),
        'pretrain_texts': len(texts),
        'pretrain_loss': curve[-1]['loss'] if curve else None,
        'pretrain_curve': curve[:: max(1, len(curve) // 40)],
    }


def unlabelled(args, data):
    "Texts that may be read without their labels: train, and --unlabelled but for valid's and test's movies."
    texts = list(data['train']['text'])
    if not args.unlabelled:
        return texts
    import pandas as pd

    more = pd.read_parquet(args.unlabelled)
    if 'movie' not in more or 'movie' not in data['test'].column_names:
        raise SystemExit(
            '--unlabelled needs a column movie, in it and in the reviews: without it, nobody knows what it '
            'gives away'
        )
    held = set(data['valid']['movie']) | set(data['test']['movie'])
    return texts + [t for t, m in zip(more['text'], more['movie']) if m not in held]


def random_twin(seed):
    "tiny-bert's tokenizer and shape, and random weights."
    from course_lm.baselines import LABELS
    from course_lm.models import load_lm, new_model

    known, tokenizer = load_lm('tiny-bert', 'masked')
    return load_lm((new_model(known.config, seed), tokenizer), 'sequence-classification', LABELS, seed=seed)


def in_bfloat16(model):
    "The model, computing in bfloat16 where that is safe (torch.autocast); its weights stay float32."
    import torch

    forward = model.forward

    def cast(*args, **kwargs):
        with torch.autocast(model.device.type, torch.bfloat16):
            return forward(*args, **kwargs)

    model.forward = cast
    return model


def epochs_that_fit(args, model, tokenizer, enc, batch_size):
    "How many epochs fit into --minutes, by the CPU seconds of twenty batches, at most --epochs."
    if not args.minutes:
        return args.epochs or 3
    import copy
    from course_lm.classification import LengthBucketedSampler, review_batch

    probe = copy.deepcopy(model).train()
    if args.bf16:
        probe = in_bfloat16(probe)
    batches = list(LengthBucketedSampler(enc['length'], batch_size))
    start = time.process_time()
    for idx in batches[:20]:
        probe(**review_batch([enc[i] for i in idx], tokenizer)).loss.backward()
    epoch = (time.process_time() - start) / 20 * len(batches) * 1.15
    n = max(1, min(args.epochs or 99, math.floor(60 * args.minutes / epoch)))
    print(f'an epoch takes about {epoch / 60:.1f} minutes: {n} of them', flush=True)
    return n


def encoder(args, data):
    from course_lm.baselines import LABELS
    from course_lm.classification import encode_reviews, train_classifier
    from course_lm.data import train_tokenizer
    from course_lm.models import load_lm, new_model, save_lm, tiny_bert_config

    max_length, spent = args.max_length or 256, {}
    if args.encoder == 'scratch':
        tokenizer = train_tokenizer(data['train']['text'], args.vocab_size, masked=True)
        body = new_model(
            tiny_bert_config(
                tokenizer, n_layer=args.n_layer, n_embd=args.n_embd or 128, max_length=max_length
            ),
            seed=args.seed,
        )
        name = 'encoder, random body'
        if args.pretrain:
            spent = fill_masks(args, body, tokenizer, unlabelled(args, data))
            name = 'encoder, body that has filled masks'
            if args.keep:
                save_lm(body, tokenizer, args.keep)
                (Path(args.keep) / 'pretraining.json').write_text(json.dumps(bench.rounded(spent), indent=1))
        model, tokenizer = load_lm((body, tokenizer), 'sequence-classification', LABELS, seed=args.seed)
    elif args.encoder in ('tiny', 'tiny-scratch'):
        known = args.encoder == 'tiny'
        pair = load_lm('tiny-bert', 'sequence-classification', LABELS, seed=args.seed) if known else None
        model, tokenizer = pair or random_twin(args.seed)
        name = 'tiny-bert, pretrained' if args.encoder == 'tiny' else 'tiny-bert, random weights'
    else:
        model, tokenizer = load_lm(args.encoder, 'sequence-classification', LABELS, seed=args.seed)
        name, told = f'encoder {Path(args.encoder).name}', Path(args.encoder) / 'pretraining.json'
        if told.exists():
            spent, name = json.loads(told.read_text()), 'encoder, body that has filled masks'
    if args.dropout and 'classifier_dropout' in vars(model.config):
        model.config.classifier_dropout = args.dropout
        if hasattr(model, 'drop'):
            model.drop.p = args.dropout
    if args.cut_off == 'both':
        from course_lm.windows import encode_head_tail

        enc = {k: encode_head_tail(v, tokenizer, max_length) for k, v in data.items()}
    else:
        enc = {k: encode_reviews(v, tokenizer, max_length, args.cut_off) for k, v in data.items()}
    batch_size = args.batch_size or 32
    epochs = epochs_that_fit(
        args, model, tokenizer, enc['train'].select_columns(['input_ids', 'label', 'length']), batch_size
    )
    if args.bf16:
        model = in_bfloat16(model)
    cpu = time.process_time()
    recipe = recipe_of(args, epochs=epochs, lr=args.lr or 1e-3, batch_size=batch_size)
    run = train_classifier(
        model.to(args.device), tokenizer, enc, recipe, name=args.name or name, progress=False
    )
    cpu = time.process_time() - cpu
    keep(
        args,
        row_of(
            run,
            data,
            args,
            cpu,
            run.valid_accuracy,
            recipe=args.recipe,
            encoder=Path(args.encoder).name,
            max_length=max_length,
            cut_off=args.cut_off,
            n_layer=getattr(model.config, 'num_hidden_layers', None),
            n_embd=getattr(model.config, 'hidden_size', None),
            vocab=len(tokenizer),
            dropout=args.dropout,
            bf16=args.bf16,
            **spent,
        ),
    )


def table(args):
    "All runs of the file, as lesson 6 shows them."
    import pandas as pd

    rows = json.loads(args.out.read_text())['runs']
    cols = {
        'run': 'name',
        'split': 'split',
        'train': 'train_reviews',
        'numbers': 'n_params',
        'chosen on': 'chosen_on',
    }
    out = [
        {
            **{k: r[v] or '-' for k, v in cols.items()},
            'valid %': round(100 * r['valid_accuracy'], 1),
            'test %': round(100 * r['test_accuracy'], 1),
            'from': round(100 * r['interval'][0], 1),
            'to': round(100 * r['interval'][1], 1),
            'CPU s': round(r['cpu_seconds'] + r['settings'].get('pretrain_cpu_seconds', 0)),
            'date': r['date'],
        }
        for r in rows
    ]
    print(pd.DataFrame(out).to_string(index=False))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--imdb', required=True, help='what load_imdb takes')
    add('--only', default='leaks,baselines,lstm,encoder', help='some of leaks,baselines,lstm,encoder')
    add('--baselines', default='majority,words,counts,tfidf,tfidf2,nbsvm', help='some of them')
    add('--split', choices=SHARES, default='movie')
    add(
        '--encoder',
        default='scratch',
        help="tiny: the course's own tiny-bert; tiny-scratch: the same network from random weights; a "
        "folder, a name on the hub; or scratch: a smaller one from random weights",
    )
    add('--bf16', action='store_true', help='an encoder computes in bfloat16 (torch.autocast)')
    add(
        '--recipe',
        default='adamw-linear',
        choices=('adam', 'adamw-linear'),
        help='the first or the second of the lecture',
    )
    add('--unlabelled', help='parquet file with text and movie: more to fill masks in')
    add(
        '--pretrain',
        type=float,
        default=0.0,
        help='minutes (of CPU time, or of a GPU) in which the body fills masks before it classifies',
    )
    add('--pretrain-lr', type=float, default=2e-3)
    add('--keep', help='folder for the pretrained body')
    add('--minutes', type=float, help='most minutes for the training of an encoder')
    add('--threads', type=int, default=1)
    add('--device', default='cpu')
    for k, v in dict(seed=42, n_layer=2, vocab_size=8000, n_hidden=64).items():
        add('--' + k.replace('_', '-'), type=int, default=v)
    for k in ('train', 'valid', 'test', 'epochs', 'batch_size', 'max_length', 'n_embd'):
        add('--' + k.replace('_', '-'), type=int, help='fewer reviews of that split' if k in SHARES else None)
    add('--lr', type=float)
    add('--dropout', type=float, default=0.3)
    add(
        '--cut-off',
        choices=('left', 'right', 'both'),
        default='left',
        help='the end of a long review that is cut off, or its middle (both ends stay)',
    )
    add('--pooling', choices=('last', 'max', 'mean'), default='max', help='of the LSTM')
    add('--bidirectional', action='store_true', help='the LSTM')
    add('--name', help='of the run, in tables')
    add('--out', type=Path, default=RESULTS)
    args = parser.parse_args()
    parts = {'leaks': leaks, 'baselines': baselines, 'lstm': lstm, 'encoder': encoder}
    if bad := set(args.only.split(',')) - set(parts):
        parser.error(f'--only knows {", ".join(parts)}, not {", ".join(sorted(bad))}')
    import torch

    torch.set_num_threads(args.threads)
    if Path(args.imdb).exists():
        bench.prepare(offline=True)
    data = load(args)
    print({k: len(v) for k, v in data.items()}, flush=True)
    for k in args.only.split(','):
        parts[k](args, data)
    print()
    table(args)
    print(f'kept in {args.out}')


if __name__ == '__main__':
    main()
