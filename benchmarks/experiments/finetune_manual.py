"""Lesson 5 measured: tiny-gpt learns Python's manual from 30, 120 or 480 paragraphs. What does it forget?

    python -m benchmarks.experiments.finetune_manual --reviews PATH    # about nine minutes on one core

PATH is a folder of IMDb as parquet, with a column movie. Untouched, fine-tuned, and the same shape from
random weights. Each of the two gets one of several rates, the one that does best on validation paragraphs
when it learns from 120. The round is chosen on validation paragraphs, too; the manual's figures come from
test paragraphs, and what was forgotten is measured on reviews of movies that the model has not read about.
One more run mixes the model's own writing (home.json) into the paragraphs, at the rate of the fine-tuned
model. What learns from 120 paragraphs does so with three seeds: of the order of the batches, and of random
weights. Prints a table and keeps it in course_lm/records/finetune_manual.json with machine, versions, date.
"""

import argparse, time

from benchmarks.bench import keep, machine, prepare, results

prepare(threads=1)

SETTINGS = dict(
    chunk_size=64,
    batch_size=8,
    rounds={30: 10, 120: 6, 480: 4},
    rates={'fine-tuned': (1e-4, 3e-4, 1e-3, 3e-3), 'from scratch': (1e-3, 3e-3, 1e-2)}, # to choose from
    chosen_with=120, # paragraphs, and the first seed
    held_out_reviews=100,
    seeds={30: [42], 120: [42, 43, 44], 480: [42]},
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
    n_bytes, rounds, first = token_bytes(tokenizer), SETTINGS['rounds'], SETTINGS['chosen_with']
    shape = tiny_gpt_config(tokenizer, n_layer=4, n_head=6, n_embd=192, max_length=256)

    def cut(texts):
        return chunk_dataset(tokenize_dataset(texts, tokenizer), SETTINGS['chunk_size'])

    paragraphs, (_, valid, test) = {n: cut(manual(n)[0]) for n in rounds}, manual(min(rounds))
    held_out = {'manual': cut(test), 'reviews': cut(held_out_reviews(path, SETTINGS['held_out_reviews']))}
    valid = cut(valid)
    tests = {k: lm_loaders((valid, v), tokenizer, batch_size=16)[1] for k, v in held_out.items()}

    def row(name, model, **more):
        scores = {k: evaluate_lm(model, v, n_bytes=n_bytes) for k, v in tests.items()}
        found = dict(
            model=name,
            **{k: round(score.bits_per_byte, 3) for k, score in scores.items()},
            perplexity_manual=round(scores['manual'].perplexity, 1),
            **more,
        )
        print(found, flush=True)
        return found

    def train(kind, chunks, n, lr, seed):
        model = load_lm('tiny')[0] if kind == 'fine-tuned' else new_model(shape, seed=seed)
        began = time.process_time()
        loaders = lm_loaders((chunks, valid), tokenizer, batch_size=SETTINGS['batch_size'], seed=seed)
        history = train_loop(
            model, *loaders, epochs=rounds[n], lr=lr, seed=seed, keep_best=True, progress=False
        )
        return model, history.best, round(time.process_time() - began)

    def choose(kind):
        "For each rate the best loss on the validation paragraphs."
        found = {}
        for lr in SETTINGS['rates'][kind]:
            best = train(kind, paragraphs[first], first, lr, SETTINGS['seeds'][first][0])[1]
            found[lr] = round(best['valid_loss'], 4)
        print(kind, found, flush=True)
        return found

    choice = {kind: choose(kind) for kind in SETTINGS['rates']}
    rates = {kind: min(found, key=found.get) for kind, found in choice.items()}
    rows = [row('untouched', tiny, paragraphs=0)]

    def add(kind, chunks, n, seed, name=None):
        model, best, seconds = train(kind, chunks, n, rates[kind], seed)
        more = dict(paragraphs=n, seed=seed, best_round=best['epoch'], cpu_seconds=seconds)
        rows.append(row(name or kind, model, **more))

    own, wanted = [], len(paragraphs[first])
    for text in reference_texts('tiny'):
        if own and len(cut(own)) >= wanted:
            break
        own.append(text)
    mixed = cut(manual(first)[0] + own)
    for n, chunks in paragraphs.items():
        for seed in SETTINGS['seeds'][n]:
            add('fine-tuned', chunks, n, seed)
            add('from scratch', chunks, n, seed)
    for seed in SETTINGS['seeds'][first]:
        add('fine-tuned', mixed, first, seed, 'fine-tuned, own writing mixed in')
    tokens = {
        **{str(n): len(v) for n, v in paragraphs.items()},
        'own writing': len(cut(own)),
        'valid': len(valid),
        **{f'test, {k}': len(v) for k, v in held_out.items()},
    }
    return dict(
        machine=machine('torch', 'transformers', 'datasets', 'numpy'),
        settings=SETTINGS,
        choice={kind: {str(lr): loss for lr, loss in found.items()} for kind, found in choice.items()},
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
