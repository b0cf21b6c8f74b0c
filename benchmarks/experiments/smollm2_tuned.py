"""SmolLM2, 135 million parameters, fine-tuned on a slice of real film reviews: what it gains on reviews, and
what becomes of WikiText-2.

    alias run='python -m benchmarks.experiments.smollm2_tuned'
    run films --imdb PATH --text TEST_TXT    # 50, 55
    run verdicts --imdb PATH                 # 53: all weights learn to answer the prompt of `smollm2 prompts`

PATH is a folder of IMDb as parquet with a column movie, TEST_TXT WikiText-2's test.txt. No movie is on two
sides. Rates are tried with the first seed, until the best on validation reviews has a worse one on each side;
a seed decides which reviews are read, their order, and LoRA's first A. Weights and optimizer are float32, the
arithmetic of a layer is bf16. A row is written to course_lm/records/smollm2_tuned.json when it is done, and
one that stands there is not done again.
"""
from pathlib import Path

from benchmarks import bench
from benchmarks.experiments.smollm2 import END, PROMPTS, Rows, command, cut, load, question

import numpy as np, torch

RESULTS = bench.results/'smollm2_tuned.json'
RATES = 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2
FILMS = dict(chunk=256, batch=4, tokens=16_384, more=49_152, valid=4_096, test=8_192, home=8_192, rank=8,
             last=4, seeds=[0, 1, 2], precision='bf16',
             first={'all weights': 1e-4, 'LoRA': 1e-3, 'last blocks': 3e-4})
VERDICTS = dict(labels=500, batch=8, valid=200, test=PROMPTS['reviews'], tokens=PROMPTS['tokens'],
                rates=[3e-5, 1e-4, 3e-4], seed=0, precision='bf16')


def ready(method='all weights', seed=0):
    "SmolLM2 and its tokenizer; what this method does not train is frozen, and layers compute in bf16."
    from course_lm.adapters import add_lora
    model, tokenizer = load()
    tokenizer.eos_token = END
    if method == 'LoRA': add_lora(model, rank=FILMS['rank'], seed=seed)
    if method == 'last blocks':
        model.requires_grad_(False)
        for part in (*model.model.layers[-FILMS['last']:], model.model.norm): part.requires_grad_(True)
    model.forward = torch.autocast('cpu', torch.bfloat16)(model.forward)
    return model, tokenizer


def split(path):
    "Labelled reviews, no movie on two sides: the parts of lesson 53's prompts."
    from course_lm.baselines import imdb_splits
    from course_lm.data import load_imdb
    return imdb_splits(load_imdb(path), by='movie', shares=(.8, .1, .1), seed=42)


# ---- 50, 55


class Films:
    "Rows of everything that is learnt from and scored."
    def __init__(self, imdb, text):
        from course_lm.perplexity import token_bytes
        self.parts, s = split(imdb), FILMS
        self.tokenizer = ready()[1]
        self.n_bytes = token_bytes(self.tokenizer)
        texts = {k: list(self.parts[k]['text'][:100]) for k in ('valid', 'test')}
        texts['home'] = [Path(text).read_text(encoding='utf-8')]
        self.scored = {k: self.loaders(*[self.cut(t, s[k])]*2)[1] for k, t in texts.items()}

    def cut(self, texts, tokens):
        from course_lm.chunking import chunk_dataset, tokenize_dataset
        rows = chunk_dataset(tokenize_dataset(texts, self.tokenizer), FILMS['chunk'])
        return rows.select(range(tokens//FILMS['chunk']))

    def loaders(self, train, valid, seed=0):
        from course_lm.finetuning import lm_loaders
        return lm_loaders((train, valid), self.tokenizer, batch_size=FILMS['batch'], seed=seed)

    def train(self, tokens, seed):
        rows = self.cut(list(self.parts['train'].shuffle(seed=seed).select(range(400))['text']), tokens)
        return self.loaders(rows, rows, seed)[0]

    def manual(self, tokens):
        from course_lm.data import python_docs
        docs = python_docs()
        rows, test = self.cut(docs[:-250], tokens), self.cut(docs[-249::2], 4096)
        return self.loaders(rows, test)

    def bits(self, model):
        from course_lm.perplexity import evaluate_lm
        scores = {k: evaluate_lm(model, b, n_bytes=self.n_bytes) for k, b in self.scored.items()}
        return {k: s.bits_per_byte for k, s in scores.items()} | {f'{k} nats': s.cross_entropy
                                                                  for k, s in scores.items()}


def films(args):
    from course_lm.finetuning import train_loop
    data = Films(args.imdb, args.text)
    record = Rows('films', FILMS, args.out)

    def run(method, rate, seed=0, tokens=FILMS['tokens']):
        def make():
            model = ready(method, seed)[0]
            trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
            history = train_loop(model, data.train(tokens, seed), lr=rate, seed=seed)
            done = dict(method=method, rate=rate, seed=seed, tokens=tokens, trained=trained)
            done |= dict(updates=len(history.steps), train_nats=history.train_loss(8))
            return done | data.bits(model)
        name = f'{method}, {tokens} tokens, rate {rate:g}, seed {seed}'
        record.add(name, make)
        return next(r for r in record.rows if r['name'] == name)

    def best_rate(method):
        tried, todo = {}, [FILMS['first'][method]]
        while todo:
            rate = todo.pop()
            tried[rate] = run(method, rate)['valid']
            i = RATES.index(min(tried, key=tried.get))
            todo = [r for r in RATES[max(0, i-1):i+2] if r not in tried]
        return RATES[i]

    record.add('untouched', lambda: dict(method='untouched', tokens=0, **data.bits(ready()[0])))
    rates = {m: best_rate(m) for m in ('all weights', 'LoRA')}
    for seed in FILMS['seeds'][1:]:
        for method, rate in rates.items(): run(method, rate, seed)
    best_rate('last blocks')
    for method, rate in rates.items(): run(method, rate, tokens=FILMS['more'])
    manual(data, record, rates['all weights'])
    told = [{k: r.get(k, '') for k in ('name', 'valid', 'test', 'home', 'cpu_seconds')} for r in record.rows]
    bench.show('films', told)


def manual(data, record, rate):
    "Python's manual instead, at the rate of the reviews: what lesson 53's verdict is held against."
    from course_lm.finetuning import train_loop
    from course_lm.perplexity import evaluate_lm
    def make():
        model = ready()[0]
        train, test = data.manual(FILMS['tokens'])
        before = evaluate_lm(model, test, n_bytes=data.n_bytes).bits_per_byte
        history = train_loop(model, train, lr=rate)
        after = evaluate_lm(model, test, n_bytes=data.n_bytes).bits_per_byte
        return dict(method='all weights', text='manual', rate=rate, tokens=FILMS['tokens'], before=before,
                    after=after, updates=len(history.steps))
    record.add('the manual', make)


# ---- 53


class Verdicts:
    "The prompt of `smollm2 prompts`, its answers, and who is asked."
    def __init__(self, imdb):
        self.parts, self.tokenizer = split(imdb), ready()[1]
        self.words = [self.tokenizer(w)['input_ids'][0] for w in (' negative', ' positive')]

    def prompt(self, text):
        asked = question(cut(self.tokenizer, text, VERDICTS['tokens']))
        return self.tokenizer(asked, verbose=False)['input_ids']

    def batches(self, seed):
        "Prompt and verdict, padded behind; only the verdict has a label."
        size, rows = VERDICTS['batch'], self.parts['train'].shuffle(seed=seed)
        rows = rows.select(range(VERDICTS['labels']))
        whole = [torch.tensor([*self.prompt(t), self.words[y]]) for t, y in zip(rows['text'], rows['label'])]
        return [self.batch(whole[i:i+size]) for i in range(0, len(whole), size)]

    def batch(self, ids):
        pad = self.tokenizer.pad_token_id
        x = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad)
        n, rows = torch.tensor([len(i) for i in ids]), torch.arange(len(ids))
        labels = torch.full_like(x, -100)
        labels[rows, n-1] = x[rows, n-1]
        mask = (torch.arange(x.shape[1]) < n[:, None]).long()
        return dict(input_ids=x, attention_mask=mask, labels=labels)

    @torch.no_grad()
    def odds(self, model, part):
        "log p(positive)/p(negative) behind each question; and the truth."
        model.eval()
        rows = self.parts[part].select(range(VERDICTS[part]))
        said = [model(input_ids=torch.tensor([self.prompt(t)]), logits_to_keep=1).logits[0, -1].float()
                for t in rows['text']]
        return np.array([(s[self.words[1]] - s[self.words[0]]).item() for s in said]), np.array(rows['label'])


def verdicts(args):
    "A rate is chosen on valid; test answers only to it. The seed decides which reviews, in what order."
    from course_lm.baselines import wilson_interval
    from course_lm.finetuning import train_loop
    data, s = Verdicts(args.imdb), VERDICTS
    record = Rows('verdicts', s, args.out)

    def run(rate, part):
        def make():
            model = ready()[0]
            history = train_loop(model, data.batches(s['seed']), lr=rate, seed=s['seed'])
            odds, truth = data.odds(model, part)
            n = int(((odds > 0) == truth).sum())
            return dict(rate=rate, part=part, train_nats=history.train_loss(16),
                        right=n/len(truth), interval=list(wilson_interval(n, len(truth))),
                        says_positive=float((odds > 0).mean()))
        name = f'{part}, rate {rate:g}'
        record.add(name, make)
        return next(r for r in record.rows if r['name'] == name)['right']
    run(max(s['rates'], key=lambda rate: run(rate, 'valid')), 'test')
    bench.show('verdicts', [{k: v for k,v in r.items() if k != 'interval'} for r in record.rows])


if __name__ == '__main__': command(__doc__, RESULTS, films=films, verdicts=verdicts)
