"""Lesson 55 measured: what six ways of training tiny-gpt gain on Python's manual, and lose on film reviews.

    nice -n 15 python -m benchmarks.experiments.adapters --reviews PATH    # a quarter of an hour on one core

PATH is a folder of IMDb as parquet, with a column movie. All of the weights, the last block alone, LoRA at
three ranks, and all of the weights with the model's own writing mixed in. Rates are tried with the first
seed, until the best of them has a worse one on each side. Rate and round are chosen on validation paragraphs,
the gain is measured on test paragraphs, the loss at home on reviews of movies that the model has not read
about. A seed decides which 120 paragraphs are learnt from, their order, and LoRA's first A. Settings are
fixed below. Each run is kept in course_lm/records/adapters.json when it ends, with machine, versions and
date; started again, the script goes on there.
"""
import argparse, time

from benchmarks.bench import keep, kept, machine, prepare, results, rounded

prepare(threads=1)

RESULTS = results/'adapters.json'
RATES = 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1
FIRST = {'full': 3e-4, 'last block': 1e-3, 'LoRA, rank 1': 3e-3, 'LoRA, rank 4': 3e-3, 'LoRA, rank 16': 1e-2,
         'rehearsal': 3e-4}
SETTINGS = dict(paragraphs=120, chunk_size=64, batch_size=8, epochs=5, schedule='constant', warmup_steps=5,
                alpha=16, seeds=[0, 1, 2], held_out_reviews=40, own_texts=24, first_rates=FIRST)



def only_last_block(model):
    model.requires_grad_(False)
    for part in (model.transformer.h[-1], model.transformer.ln_f): part.requires_grad_(True)
    return model


def prepared(method, seed):
    "tiny-gpt, ready to be trained this way."
    from course_lm.adapters import add_lora
    from course_lm.models import load_lm
    model, _ = load_lm('tiny-gpt')
    if method == 'last block': return only_last_block(model)
    if method.startswith('LoRA'):
        return add_lora(model, rank=int(method.split()[-1]), alpha=SETTINGS['alpha'], seed=seed)
    return model


class Texts:
    "Rows of everything that is learnt from and scored."
    def __init__(self, path):
        from benchmarks.experiments.finetune_manual import held_out_reviews
        from course_lm.data import python_docs
        from course_lm.models import load_lm, reference_texts
        from course_lm.perplexity import token_bytes
        self.tokenizer = load_lm('tiny-gpt')[1]
        self.n_bytes = token_bytes(self.tokenizer)
        docs, own = python_docs(), reference_texts('tiny-gpt')
        self.pool, self.own = docs[:-250], own[:-SETTINGS['own_texts']]
        self.scored = {'valid': docs[-250::2], 'test': docs[-249::2], 'own': own[-SETTINGS['own_texts']:],
                       'reviews': held_out_reviews(path, SETTINGS['held_out_reviews'])}
        self.scored = {k: self.batches([], self.cut(v))[1] for k, v in self.scored.items()}

    def cut(self, texts):
        from course_lm.chunking import chunk_dataset, tokenize_dataset
        return chunk_dataset(tokenize_dataset(texts, self.tokenizer), SETTINGS['chunk_size'])

    def batches(self, train, valid, seed=0):
        from course_lm.finetuning import lm_loaders
        size = SETTINGS['batch_size']
        return lm_loaders((train or valid, valid), self.tokenizer, batch_size=size, seed=seed)

    def train(self, method, seed):
        "Batches of the paragraphs of a seed; to rehearse, of as many rows of own writing too."
        n = SETTINGS['paragraphs']
        texts = self.pool[seed::len(self.pool)//n][:n]
        rows = self.cut(texts)
        if method == 'rehearsal':
            own = []
            while len(self.cut(own or self.own[:1])) < len(rows): own.append(self.own[len(own)])
            rows = self.cut(texts+own)
        return self.batches(rows, rows, seed)[0]

    def bits(self, model, *names):
        from course_lm.perplexity import evaluate_lm
        scores = {k: evaluate_lm(model, self.scored[k], n_bytes=self.n_bytes) for k in names}
        return {k: s.bits_per_byte for k, s in scores.items()}


def one_run(texts, method, rate, seed):
    from course_lm.finetuning import Recipe, train_loop
    began, model, train = time.process_time(), prepared(method, seed), texts.train(method, seed)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    recipe = Recipe(lr=rate, schedule='constant', warmup_steps=SETTINGS['warmup_steps'], keep_best=True,
                    epochs=SETTINGS['epochs'], criterion='valid', seed=seed)
    # criterion: the best is the highest, so bits are counted below zero
    def evaluate(model): return {k: -v for k, v in texts.bits(model, 'valid', 'own').items()}
    history = train_loop(model, train, recipe=recipe, evaluate=evaluate, progress=False)
    path = [{k: -e[k] for k in ('valid', 'own')} for e in history.evals]
    best = history.best_by('valid')
    run = dict(method=method, rate=rate, seed=seed, trained=trained, updates=len(history.steps))
    run |= dict(best_round=best['epoch'], path=path, **texts.bits(model, *texts.scored))
    return run | dict(cpu_seconds=time.process_time()-began)


class Record:
    "Runs that were made before, and those that follow."
    def __init__(self, out):
        self.out, self.found = out, kept(out)
        if self.found.get('settings') != SETTINGS: self.found = {'settings': SETTINGS}
        self.runs = self.found.setdefault('runs', [])

    def run(self, texts, method, rate, seed):
        "A run that was made before, or a new one."
        for r in self.runs:
            if (r['method'], r['rate'], r['seed']) == (method, rate, seed): return r
        self.runs.append(rounded(one_run(texts, method, rate, seed), 4))
        self.found['machine'] = machine('torch', 'transformers', 'datasets')
        self.found['cpu_seconds'] = round(sum(r['cpu_seconds'] for r in self.runs))
        print({k: v for k, v in self.runs[-1].items() if k != 'path'}, flush=True)
        keep(self.found, self.out)
        return self.runs[-1]

    def best_rate(self, texts, method, seed):
        "The rate with the fewest validation bits; both of its neighbours were tried."
        at = RATES.index(FIRST[method])
        while True:
            near = range(max(0, at-1), min(len(RATES), at+2))
            bits = {i: self.run(texts, method, RATES[i], seed)['valid'] for i in near}
            best = min(bits, key=bits.get)
            if best == at: return RATES[at]
            at = best


def main(path, out):
    from course_lm.models import load_lm
    texts, record = Texts(path), Record(out)
    untouched = texts.bits(load_lm('tiny-gpt')[0], *texts.scored)
    tokens = {k: len(v.dataset)*SETTINGS['chunk_size'] for k, v in texts.scored.items()}
    first, *others = SETTINGS['seeds']
    rates = {method: record.best_rate(texts, method, first) for method in FIRST}
    for seed in others:
        for method, rate in rates.items(): record.run(texts, method, rate, seed)
    record.found |= dict(untouched=rounded(untouched, 4), tokens=tokens, rates=rates)
    keep(record.found, out)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--reviews', required=True,
                        help='folder with IMDb as parquet files, with the columns text and movie')
    parser.add_argument('--out', default=RESULTS, help='where the JSON goes')
    args = parser.parse_args()
    main(args.reviews, args.out)
