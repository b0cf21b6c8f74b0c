"""Lesson 72: what the text of tiny-gpt's card costs a model fifty times as large.

    python -m benchmarks.experiments.reach --corpus CORPUS

CORPUS is the folder that runs/README.md describes. The text is that of the card: the first 500 reviews of
the held-out movies, 25 at a time; what is done is kept and not done again. SmolLM2 computes in bfloat16.
About 15 CPU minutes.
"""
import argparse, math
from pathlib import Path

from benchmarks import bench

bench.prepare(threads=1)
import torch
from tqdm.auto import tqdm

RESULTS, N, PART = bench.results/'reach.json', 500, 25


def main(args):
    from benchmarks.experiments.smollm2 import source
    from course_lm.models import load_lm
    from course_lm.releasing import read_folder, split_documents
    from course_lm.scoring import score_texts
    from course_lm.support.files import fingerprint
    docs = [d for f in args.corpus for d in read_folder(f)]
    texts = split_documents(docs)[0]['test'][:N]
    n_bytes, which = sum(len(t.encode()) for t in texts), fingerprint(texts)
    found = bench.kept(args.out)
    if found.get('texts') != which: found = dict(texts=which, reviews=len(texts), bytes=n_bytes, models={})
    for name in 'tiny-gpt', 'smollm2':
        model, tokenizer = load_lm(name)
        if name == 'smollm2': model = model.to(torch.bfloat16)
        row = found['models'].setdefault(name, dict(
            parameters=sum(p.numel() for p in model.parameters()), nats=[], tokens=0))
        for at in tqdm(range(len(row['nats'])*PART, len(texts), PART), desc=name):
            score = sum(score_texts(model, tokenizer, texts[at:at+PART], batch_size=4))
            row['nats'].append(score.nats)
            row['tokens'] += score.tokens
            nats = sum(row['nats'])
            row['bits_per_byte'] = nats/math.log(2)/sum(len(t.encode()) for t in texts[:at+PART])
            where = bench.machine('torch', 'transformers')
            bench.keep(found | dict(weights=source(), machine=where), args.out)
    rows = [dict(r, name=name) for name,r in found['models'].items()]
    bench.show('reach', [{k: v for k,v in r.items() if k != 'nats'} for r in rows])


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--corpus', nargs='+', type=Path, required=True)
    parser.add_argument('--out', type=Path, default=RESULTS)
    main(parser.parse_args())
