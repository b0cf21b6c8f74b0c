"""Lesson 5 on real reviews: the tiny model untouched, fine-tuned on them, and trained from random weights.

    python benchmarks/finetune_reviews.py --imdb PATH      # whatever load_imdb takes, with a column movie: about three minutes on one core

Reviews for training, for choosing the round, and for the reported figures are about different movies. Settings are
fixed below. Prints a table and keeps it in benchmarks/results/finetune_reviews.json with machine, versions and date.
"""
import argparse, datetime, json, os, platform, time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('HF_DATASETS_DISABLE_PROGRESS_BARS', '1')
RESULTS = Path(__file__).parent/'results'/'finetune_reviews.json'
SPLITS = dict(train=400, valid=60, test=150)
SETTINGS = dict(chunk_size=64, bs=16, epochs=2, seed=42)
RATES = {'fine-tuned': 2e-3, 'from scratch': 3e-3}

def machine():
    import torch
    cpu = platform.processor()
    if Path('/proc/cpuinfo').exists():
        cpu = next((line.split(':')[1].strip() for line in Path('/proc/cpuinfo').read_text().splitlines() if line.startswith('model name')), cpu)
    return {'cpu': cpu, 'cores': os.cpu_count(), 'threads': torch.get_num_threads(), 'load': round(os.getloadavg()[0], 1), 'python': platform.python_version(),
            **{p: version(p) for p in ('torch', 'transformers', 'datasets', 'numpy')}, 'date': datetime.date.today().isoformat()}

def by_movie(path, seed):
    "So many reviews for each split, no movie in two of them."
    import random
    from course_lm.data import load_imdb
    data = load_imdb(path)
    rows = data['train'] if 'train' in data else data
    if 'movie' not in rows.column_names: raise SystemExit(f'--imdb needs a column movie to keep movies apart, and has only {rows.column_names}')
    movies = list(rows['movie'])
    numbers, out, i = sorted(set(movies)), {}, 0
    random.Random(seed).shuffle(numbers)
    where = {}
    for r,m in enumerate(movies): where.setdefault(m, []).append(r)
    for name,n in SPLITS.items():
        chosen = []
        while len(chosen) < n:
            chosen += where[numbers[i]]
            i += 1
        out[name] = [rows[r]['text'] for r in chosen[:n]]
    return out

def main(path):
    from course_lm.chunking import chunk_dataset, tokenize_dataset
    from course_lm.finetuning import lm_loaders, load_lm, new_lm, train_loop
    from course_lm.perplexity import evaluate_lm, token_bytes
    texts = by_movie(path, SETTINGS['seed'])
    tokenizer, tiny = load_lm('tiny')
    chunks = {k: chunk_dataset(tokenize_dataset(v, tokenizer), SETTINGS['chunk_size']) for k,v in texts.items()}
    load = lambda: lm_loaders((chunks['train'], chunks['valid']), tokenizer, bs=SETTINGS['bs'], seed=SETTINGS['seed'])
    test, n_bytes = lm_loaders((chunks['train'], chunks['test']), tokenizer, bs=SETTINGS['bs'])[1], token_bytes(tokenizer)
    def row(name, model, seconds=0., **more):
        score = evaluate_lm(model, test, n_bytes=n_bytes)
        return dict(model=name, perplexity=round(score.perplexity, 1), bits_per_byte=round(score.bits_per_byte, 3), cpu_seconds=round(seconds), **more)
    rows = [row('untouched', tiny)]
    for name,model in {'fine-tuned': load_lm('tiny')[1], 'from scratch': new_lm(tokenizer)}.items():
        began = time.process_time()
        history = train_loop(model, *load(), epochs=SETTINGS['epochs'], lr=RATES[name], keep_best=True)
        rows.append(row(name, model, time.process_time()-began, learning_rate=RATES[name], best_round=history.best['epoch']))
    out = dict(machine=machine(), settings=SETTINGS, reviews=SPLITS, tokens={k: len(v)*SETTINGS['chunk_size'] for k,v in chunks.items()}, rows=rows)
    for r in rows: print(r)
    return out

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--imdb', required=True, help='folder, csv or parquet with the columns text and movie')
    parser.add_argument('--out', default=RESULTS, help='where the JSON goes')
    args = parser.parse_args()
    out = main(args.imdb)
    Path(args.out).write_text(json.dumps(out, indent=1) + '\n')
