"""Lesson 61: tiny-bert, taught by larger or other classifiers on reviews that nobody labelled.

    alias run='python -m benchmarks.experiments.distil --imdb PATH --unlabelled PATH2'
    run                        # the teacher is NB-SVM
    run --minilm FOLDER        # its log-odds and those of what minilm_tuned left in FOLDER, in the mean
    run --labels-only          # the same student and updates, without a teacher, for comparison
    run --windows 4            # the student reads all of a review in windows of 256 tokens, trained on 4

PATH is whatever load_imdb takes, PATH2 a parquet file with the columns text and movie. The splits are those
of course_lm/records/imdb.json: by movie, seed 42. A teacher learns from train alone; it then says of every
unlabelled review (but those of valid's and test's movies) how likely it is good. The student learns these
probabilities and the labels of train, shuffled together; an epoch is chosen on valid, test is asked once.
Without --windows it reads the last 256 tokens of a review. With it, it answers by the mean of the log-odds of
windows side by side: all of them when it is asked, at most the last so many when it learns.
A run that was stopped goes on when the same command is given again (--keep), and a row that stands is not
made again.
"""
import argparse
from pathlib import Path

from benchmarks import bench

bench.prepare(threads=1)
import numpy as np, torch

from benchmarks.experiments.minilm_imdb import temperature
from benchmarks.experiments.minilm_tuned import make, tail # and attention in float32, by that name

RESULTS, SEED, SIDE, MILLION = bench.results/'distilled.json', 42, 256, 1_000_000
PACKAGES = 'torch', 'transformers', 'scikit-learn', 'numpy'


def load(args):
    "The splits, and the texts without labels whose movies are in neither valid nor test."
    import pandas as pd
    from course_lm.baselines import imdb_splits
    from course_lm.data import load_imdb
    data = imdb_splits(load_imdb(args.imdb), by='movie', shares=(.8, .1, .1), seed=SEED)
    more = pd.read_parquet(args.unlabelled)
    held = {*data['valid']['movie'], *data['test']['movie']}
    return data, more['text'][~more['movie'].isin(held)].tolist()


def log_odds(p): return np.log(p.clip(1e-7, 1-1e-7)) - np.log1p(-p.clip(1e-7, 1-1e-7))


def nbsvm(data, texts):
    "What NB-SVM, fitted to train, says of the texts: log-odds."
    from datasets import Dataset
    from course_lm.baselines import linear_baseline
    asked = dict(data, test=Dataset.from_dict(dict(text=texts, label=[i % 2 for i in range(len(texts))])))
    return log_odds(linear_baseline(asked, 'nbsvm', score_on='test').probs)


def minilm(folder, texts):
    "What a MiniLM says that `minilm_tuned` has trained, its head on the mean of its states: log-odds."
    from course_lm.classification import predict_proba
    model, tokenizer = make(folder)
    return predict_proba(model, tokenizer, tail(texts, tokenizer), log_odds=True)


def taught(args, data, texts, folder):
    """Probabilities of the teacher for the texts, made as sure as valid says that it may be. What each
    classifier says is kept, for it takes a while."""
    asked, said = [*texts, *data['valid']['text']], []
    for name in ('nbsvm', *(['minilm'] if args.minilm else [])):
        path = folder/f'{name}.npy'
        if not path.exists():
            found = nbsvm(data, asked) if name == 'nbsvm' else minilm(args.minilm, asked)
            folder.mkdir(parents=True, exist_ok=True)
            np.save(path.with_suffix('.part.npy'), found)
            path.with_suffix('.part.npy').replace(path)
        said.append(np.load(path, allow_pickle=False))
    odds, truth = np.mean(said, 0), np.array(data['valid']['label'])
    T = temperature(odds[len(texts):], truth)
    right = float(((odds[len(texts):] > 0) == truth).mean())
    return 1/(1+np.exp(-odds[:len(texts)]/T)), dict(temperature=T, teacher_valid_accuracy=right)


def soft(model):
    """The model, computing in bfloat16; labels are probabilities of the second class, in millionths. With
    `review`, the review of each row, a review's log-odds are the mean of its rows'."""
    forward = model.forward

    def asked(labels=None, review=None, **batch):
        with torch.autocast('cpu', torch.bfloat16): out = forward(**batch)
        if labels is not None:
            logits, p = out.logits.float(), labels/MILLION
            odds = logits[:, 1] - logits[:, 0]
            if review is not None:
                odds = torch.zeros(len(labels)).index_add(0, review, odds)/torch.bincount(review)
            out.loss = torch.nn.functional.binary_cross_entropy_with_logits(odds, p)
        return out
    model.forward = asked
    return model


def pieces(texts, tokenizer, most):
    "What the student reads of each text: at most so many windows, the last ones. One is filled from the end."
    from course_lm.classification import encode_reviews
    from course_lm.windows import encode_windows
    if most == 1: return [[ids] for ids in encode_reviews(texts, tokenizer, SIDE, 'left')['input_ids']]
    windows, found = encode_windows(texts, tokenizer, SIDE, SIDE-2), [[] for _ in texts]
    for review, ids in zip(windows['review'], windows['input_ids']): found[review].append(ids)
    return [ids[-most:] for ids in found]


def window_batch(examples, tokenizer):
    "The windows of some reviews, the review of each, and a label for each review."
    from course_lm.classification import review_batch
    batch = review_batch([dict(input_ids=ids) for e in examples for ids in e['windows']], tokenizer)
    batch['review'] = torch.tensor([i for i, e in enumerate(examples) for _ in e['windows']])
    return batch | dict(labels=torch.tensor([round(e['label']*MILLION) for e in examples]))


def batches(rows, labels, tokenizer, size):
    from functools import partial
    from torch.utils.data import DataLoader
    from course_lm.classification import LengthBucketedSampler
    sampler = LengthBucketedSampler([sum(map(len, r)) for r in rows], size, seed=SEED)
    rows = [dict(windows=r, label=p) for r,p in zip(rows, labels)]
    return DataLoader(rows, batch_sampler=sampler, collate_fn=partial(window_batch, tokenizer=tokenizer))


def main(args):
    from course_lm.baselines import LABELS, wilson_interval
    from course_lm.checkpoints import Checkpoints
    from course_lm.classification import ADAMW_LINEAR, encode_reviews, predict_proba
    from course_lm.finetuning import Recipe, train_loop
    from course_lm.models import load_lm
    from course_lm.windows import predict_windows
    teacher = 'NB-SVM and MiniLM' if args.minilm else 'NB-SVM'
    if args.labels_only: teacher = 'labels only'
    name = f'{teacher}, {args.epochs} epochs' + (f', {args.windows} windows' if args.windows > 1 else '')
    rows = bench.kept(args.out).get('rows', [])
    if any(r['name'] == name for r in rows): return bench.show('distilled', rows)
    data, texts = load(args)
    model, tokenizer = load_lm('tiny-bert', 'sequence-classification', LABELS, seed=SEED)
    model.drop.p = .3
    model.set_attn_implementation('float32')
    read, labels, told = list(data['train']['text']), np.array(data['train']['label'], float), {}
    if not args.labels_only:
        said, told = taught(args, data, texts, args.keep/'teachers')
        read, labels = read + texts, np.concatenate([labels, said])

    def right(part, windows=args.windows):
        if windows > 1: said = predict_windows(model, tokenizer, data[part], stride=SIDE-2)
        else: said = predict_proba(model, tokenizer, encode_reviews(data[part], tokenizer, SIDE, 'left'))
        return (said > .5) == (np.array(data[part]['label']) == 1)
    recipe = Recipe.of(ADAMW_LINEAR, lr=args.lr, epochs=args.epochs, batch_size=32, warmup_steps=.1,
                       seed=SEED, keep_best=True, schedule='linear')
    train = batches(pieces(read, tokenizer, args.windows), labels, tokenizer, 32)
    history = train_loop(soft(model), train, recipe=recipe,
                         evaluate=lambda model: dict(valid_accuracy=float(right('valid').mean())),
                         checkpoints=Checkpoints(args.keep/'-'.join(name.replace(',', '').split()),
                                                 seconds=120))
    hits = int(right('test').sum())
    row = dict(name=name, teacher=teacher, reviews=len(read), labelled=len(data['train']), epochs=args.epochs,
               lr=args.lr, windows=args.windows, **told,
               valid_accuracy=[e['valid_accuracy'] for e in history.evals][1:],
               valid_last_window=float(right('valid', 1).mean()),
               test_accuracy=hits/len(data['test']), interval=list(wilson_interval(hits, len(data['test']))))
    where = bench.machine(*PACKAGES)
    bench.keep(dict(rows=rows + [bench.rounded(row)], precision='bfloat16', machine=where), args.out)
    bench.show('distilled', [row])


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--imdb', type=Path, required=True)
    parser.add_argument('--unlabelled', type=Path, required=True)
    parser.add_argument('--minilm', type=Path)
    parser.add_argument('--labels-only', action='store_true')
    parser.add_argument('--epochs', type=int, default=2)
    parser.add_argument('--windows', type=int, default=1)
    parser.add_argument('--lr', type=float, default=5e-4)
    parser.add_argument('--keep', type=Path, default=bench.root/'work'/'distil')
    parser.add_argument('--out', type=Path, default=RESULTS)
    main(parser.parse_args())
