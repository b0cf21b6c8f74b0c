"""Lesson 5 measured: tiny-gpt learns Python's manual from 30, 120 or 480 paragraphs. What does it forget?

    python -m benchmarks.experiments.finetune_manual --reviews PATH    # about four minutes on one core

PATH is a folder of IMDb as parquet, with a column movie. Untouched, fine-tuned, and the same shape from
random weights. The round is chosen on validation paragraphs, the manual's figures come from test paragraphs,
and what was forgotten is measured on reviews of movies that the model has not read about. One more run mixes
the model's own writing (home.json) into the paragraphs. Settings are fixed below. Prints a table and keeps it
in benchmarks/results/finetune_manual.json with machine, versions and date.
"""

import argparse, time

from benchmarks.bench import keep, machine, prepare, results

prepare(threads=1)

SETTINGS = dict(
    chunk_size=64,
    batch_size=8,
    rounds={30: 10, 120: 6, 480: 4},
    rates={'fine-tuned': 1e-3, 'from scratch': 3e-3},
    held_out_reviews=100,
    seed=42,
)


def held_out_reviews(path, n):
    "So many reviews of the movies that runs/train_tiny.py keeps for its test."
    from course_lm.releasing import read_folder, split_documents

    found = split_documents([d for d in read_folder(path) if d['movie']])[0]['test']
    if len(found) < n:
        raise SystemExit(
            f'--reviews {path} holds {len(found)} reviews of held-out movies, and {n} are needed'
        )
    return found[:: len(found) // n][:n]


def manual(n):
    """So many paragraphs to learn from, spread over the manual, and those for validation and test, as in the
    lesson."""
    from course_lm.data import python_docs

    docs = python_docs()
    pool = docs[:-250]
    return pool[:: len(pool) // n][:n], docs[-250::2], docs[-249::2]


def main(path):
    from course_lm.chunking import chunk_dataset, tokenize_dataset
    from course_lm.models import load_lm, new_model, reference_texts, tiny_gpt_config
    from course_lm.finetuning import lm_loaders, train_loop
    from course_lm.perplexity import evaluate_lm, token_bytes

    tiny, tokenizer = load_lm('tiny')
    n_bytes, rounds = token_bytes(tokenizer), SETTINGS['rounds']

    def cut(texts):
        return chunk_dataset(tokenize_dataset(texts, tokenizer), SETTINGS['chunk_size'])

    paragraphs, (_, valid, test) = {n: manual(n)[0] for n in rounds}, manual(min(rounds))
    held_out = {'manual': cut(test), 'reviews': cut(held_out_reviews(path, SETTINGS['held_out_reviews']))}
    valid = cut(valid)

    def load(chunks):
        return lm_loaders(
            (chunks, valid), tokenizer, batch_size=SETTINGS['batch_size'], seed=SETTINGS['seed']
        )

    tests = {k: lm_loaders((valid, v), tokenizer, batch_size=16)[1] for k, v in held_out.items()}

    def row(name, model, n=0, seconds=0.0, **more):
        scores = {k: evaluate_lm(model, v, n_bytes=n_bytes) for k, v in tests.items()}
        found = dict(
            model=name,
            paragraphs=n,
            manual=round(scores['manual'].bits_per_byte, 3),
            reviews=round(scores['reviews'].bits_per_byte, 3),
            perplexity_manual=round(scores['manual'].perplexity, 1),
            cpu_seconds=round(seconds),
            **more,
        )
        print(found, flush=True)
        return found

    rows = [row('untouched', tiny)]

    def train(kind, model, n, texts, name=None):
        began = time.process_time()
        history = train_loop(
            model,
            *load(cut(texts)),
            epochs=rounds[n],
            lr=SETTINGS['rates'][kind],
            keep_best=True,
            progress=False,
        )
        rows.append(
            row(name or kind, model, n, time.process_time() - began, best_round=history.best['epoch'])
        )

    for n, texts in paragraphs.items():
        train('fine-tuned', load_lm('tiny')[0], n, texts)
        train(
            'from scratch',
            new_model(tiny_gpt_config(tokenizer, n_layer=4, n_head=6, n_embd=192, max_length=256)),
            n,
            texts,
        )
    own, wanted = [], len(cut(paragraphs[120]))
    for text in reference_texts('tiny'):
        if own and len(cut(own)) >= wanted:
            break
        own.append(text)
    train('fine-tuned', load_lm('tiny')[0], 120, paragraphs[120] + own, 'fine-tuned, own writing mixed in')
    tokens = {
        **{str(n): len(cut(v)) for n, v in paragraphs.items()},
        'own writing': len(cut(own)),
        'valid': len(valid),
        **{f'test, {k}': len(v) for k, v in held_out.items()},
    }
    return dict(
        machine=machine('torch', 'transformers', 'datasets', 'numpy'),
        settings=SETTINGS,
        tokens={k: v * SETTINGS['chunk_size'] for k, v in tokens.items()},
        rows=rows,
    )


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--reviews', required=True, help='folder with IMDb as parquet files, with the columns text and movie'
    )
    parser.add_argument('--out', default=results / 'finetune_manual.json', help='where the JSON goes')
    args = parser.parse_args()
    keep(main(args.reviews), args.out)
