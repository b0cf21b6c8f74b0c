"""Lesson 6: what tiny-bert answers after 400 labels, review by review, three seeds; for comparisons.

    python -m benchmarks.experiments.answers      # about three minutes on one core

An accuracy alone can't be compared with another one in pairs, so the answers are kept: the log-odds of praise
for each synthetic review of valid and test. The rate is the one that was best on valid in classifiers.json
(transfer).
"""
import argparse, time
from pathlib import Path

from benchmarks.bench import keep, machine, prepare, results

prepare()
RESULTS = results/'answers.json'
SIZES = {'train': (400, 1), 'valid': (500, 2), 'test': (2000, 3)} # reviews, seed

def answers(seeds, epochs=6, lr=1e-3):
    from course_lm.baselines import LABELS
    from course_lm.classification import ADAMW_LINEAR, encode_reviews, predict_proba, train_classifier
    from course_lm.models import load_lm
    from course_lm.reviews import reviews
    runs, start = [], time.process_time()
    for seed in range(seeds):
        model, tokenizer = load_lm('tiny-bert', 'sequence-classification', LABELS, seed=seed)
        data = {k: encode_reviews(reviews(n, seed=s, length='short'), tokenizer, 128)
                for k,(n,s) in SIZES.items()}
        few = {**data, 'test': data['test'].select(range(50))} # it is scored below, once
        run = train_classifier(model, tokenizer, few, ADAMW_LINEAR, lr=lr, epochs=epochs, batch_size=16,
                               warmup_steps=.1, seed=seed, progress=False)
        odds = {k: predict_proba(model, tokenizer, data[k], log_odds=True).round(3).tolist()
                for k in ('valid', 'test')}
        runs.append({'name': 'tiny-bert', 'seed': seed, 'n_params': run.n_params, **odds})
        print(seed, round(run.valid_accuracy, 3), round(time.process_time()-start), 'CPU s', flush=True)
    return {'sizes': SIZES, 'epochs': epochs, 'lr': lr, 'batch_size': 16, 'runs': runs,
            'cpu_seconds': round(time.process_time()-start)}

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--out', type=Path, default=RESULTS)
    args = parser.parse_args()
    keep({**answers(args.seeds), 'machine': machine('torch', 'transformers', 'numpy')}, args.out)
