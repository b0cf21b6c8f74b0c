"""Chunking and packing against transformers' run_clm and TRL; and what every policy costs on IMDb.

    python -m benchmarks.speed.chunking                 # speed and memory: some three minutes on two cores
    python -m benchmarks.speed.chunking --imdb PATH     # what each policy costs: parquet with a text column
    python -m benchmarks.speed.chunking --tokens 1000000  # a quick look

Prints tables and keeps them in course_lm/records/chunking.json with machine, versions and date. The peers
are transformers' `group_texts` from examples/pytorch/language-modeling/run_clm.py, written again here after
its description (join a batch's lists, drop the rest, slice, copy ids to labels; with the attention_mask that
run_clm's tokenizer makes), and TRL's `pack_dataset`, as installed by `pip install -e '.[bench]'`.
"""
import argparse, subprocess, sys, tempfile
from itertools import chain
from pathlib import Path

from benchmarks.bench import interleaved, keep, kept, machine, prepare, results, show

prepare()
PACKAGES = 'numpy', 'pyarrow', 'datasets', 'transformers'

def corpus(folder, tokens, mean=250, seed=0):
    """Ragged documents on disk, lengths spread as those of reviews are, as a tokenizer leaves them: input_ids
    int32, attention_mask int8."""
    import numpy as np, pyarrow as pa
    from datasets import Dataset, load_from_disk
    rng = np.random.default_rng(seed)
    lengths = np.maximum(1, rng.lognormal(np.log(mean) - .28, .75, 2*tokens//mean).astype(int))
    lengths = lengths[:np.searchsorted(lengths.cumsum(), tokens)+1]
    ids, ends = rng.integers(1, 30000, lengths.sum(), dtype=np.int32), np.append(0, lengths.cumsum())
    offsets = pa.array(ends, pa.int32())
    table = pa.table({'input_ids': pa.ListArray.from_arrays(offsets, pa.array(ids)),
                      'attention_mask': pa.ListArray.from_arrays(offsets,
                                                                 pa.array(np.ones(len(ids), np.int8)))})
    Dataset(table).save_to_disk(folder)
    return load_from_disk(folder)

def group_texts(examples, block_size):
    "What run_clm does to a batch of tokenised documents."
    joined = {k: list(chain(*v)) for k,v in examples.items()}
    total = len(joined['input_ids'])//block_size*block_size
    blocks = {k: [v[i:i+block_size] for i in range(0, total, block_size)] for k,v in joined.items()}
    return {**blocks, 'labels': blocks['input_ids'].copy()}

def speed(ds, repeats, size=128):
    from trl import pack_dataset as trl_pack
    from course_lm.support.arrow import pieces
    from course_lm.chunking import chunk_dataset
    ids, fresh = ds.select_columns(['input_ids']), dict(load_from_cache_file=False)
    def saved():
        with tempfile.TemporaryDirectory() as folder: chunk_dataset(ids, size).save_to_disk(folder)
    ways = {
        "run_clm group_texts, map(batched=True)": lambda: ds.map(group_texts, batched=True,
                                                                 fn_kwargs={'block_size': size}, **fresh),
        'run_clm group_texts, ids only': lambda: ids.map(group_texts, batched=True,
                                                         fn_kwargs={'block_size': size}, **fresh),
        'TRL pack_dataset wrapped': lambda: trl_pack(ds, size, 'wrapped', fresh),
        'TRL pack_dataset wrapped, ids only': lambda: trl_pack(ids, size, 'wrapped', fresh),
        'chunk_dataset': lambda: chunk_dataset(ids, size),
        'chunk_dataset, EOS put in': lambda: chunk_dataset(ids, size, eos_id=0),
        'chunk_dataset, saved to disk': saved,
        'a plain copy of the tokens, batch by batch': lambda: [values.copy() for values,_ in pieces(ids)],
    }
    found = interleaved(ways, repeats)
    clm, _, trl, trl_ids = [t.seconds for t in found.values()][:4]
    return [{'way': k, 'seconds': t.seconds, 'cpu seconds': t.cpu_seconds, 'x run_clm': clm/t.seconds,
             'x TRL wrapped': trl/t.seconds, 'x TRL wrapped, ids only': trl_ids/t.seconds}
             for k,t in found.items()]

def memory(folder, size=128):
    """Peak resident memory that a call adds, in a process of its own, as a share of the token bytes (pages of
    the source that are read count too)."""
    code = f'''
import sys, numpy as np
from datasets import load_from_disk
from course_lm.support.arrow import document_lengths
from course_lm.chunking import chunk_dataset
def kib(key): return next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith(key))
chunk_dataset([[1]*9]*9, 4, eos_id=0)
ds = load_from_disk({str(folder)!r}).select_columns(['input_ids'])
tokens = int(document_lengths(ds).sum())
before = kib('VmRSS')
open('/proc/self/clear_refs', 'w').write('5')
out = chunk_dataset(ds, {size}, eos_id=EOS)
print((kib('VmHWM') - before)*1024/(4*tokens))
'''
    rows = []
    if not Path('/proc/self/clear_refs').exists():
        return [{'way': 'Linux alone can tell', 'added peak memory, % of the token bytes': float('nan')}]
    for name,eos in (('chunk_dataset', None), ('chunk_dataset, EOS put in', 0)):
        done = subprocess.run([sys.executable, '-c', code.replace('EOS', str(eos))], capture_output=True,
                              text=True, check=True)
        rows.append({'way': name, 'added peak memory, % of the token bytes': 100*float(done.stdout)})
    return rows

def packing_ways(ids, size):
    from trl import pack_dataset as trl_pack
    from course_lm.packing import pack_dataset
    fresh = dict(load_from_cache_file=False)
    whole = dict(fresh, batch_size=len(ids))
    return {
        'TRL bfd': lambda: trl_pack(ids, size, 'bfd', fresh),
        'TRL bfd_split': lambda: trl_pack(ids, size, 'bfd_split', fresh),
        'TRL bfd, one batch': lambda: trl_pack(ids, size, 'bfd', whole),
        'TRL bfd_split, one batch': lambda: trl_pack(ids, size, 'bfd_split', whole),
        "pack_dataset, long='truncate'": lambda: pack_dataset(ids, size, long='truncate'),
        "pack_dataset, long='split'": lambda: pack_dataset(ids, size),
    }

def packing(ds, repeats, sizes=(128, 512, 2048)):
    ids, rows = ds.select_columns(['input_ids']), []
    for size in sizes:
        ways = packing_ways(ids, size)
        found = interleaved(ways, repeats)
        for name,way in ways.items():
            out, took, peer = way(), found[name], found['TRL bfd_split' if 'split' in name else 'TRL bfd']
            tokens = sum(_tokens(batch) for batch in out.with_format('arrow').iter(10_000))
            rows.append({'chunk_size': size, 'way': name, 'seconds': took.seconds,
                         'cpu seconds': took.cpu_seconds,
                         'x TRL': peer.seconds/took.seconds, 'chunks': len(out),
                         'padding %': 100*(1 - tokens/(len(out)*size))})
    return rows

def _tokens(batch):
    import pyarrow.compute as pc
    if 'attention_mask' in batch.column_names: return pc.sum(pc.list_flatten(batch['attention_mask'])).as_py()
    return pc.sum(pc.list_value_length(batch['input_ids'])).as_py()

def policies(path, vocab_size=30_000, sizes=(128, 256, 512)):
    import numpy as np
    from datasets import Dataset
    from course_lm.support.arrow import document_lengths
    from course_lm.chunking import tokenize_dataset
    from course_lm.policies import policy_table, split_leak
    from course_lm.data import train_tokenizer
    path = Path(path)
    ds = Dataset.from_parquet(str(path/'train.parquet' if path.is_dir() else path))
    tokenizer = train_tokenizer(ds['text'], vocab_size=vocab_size)
    lengths = document_lengths(tokenize_dataset(ds, tokenizer))
    def q(p): return int(np.quantile(lengths, p))
    facts = {'documents': len(lengths), 'tokens': int(lengths.sum()), 'median': q(.5),
             'mean': float(lengths.mean()), 'longest': int(lengths.max()),
             'tokenizer': f'byte-level BPE, {vocab_size} tokens, learnt from the same reviews; EOS counted'}
    rows = [{'chunk_size': size, 'policy': p, **{k: float(v) if '%' in k else int(v) for k,v in row.items()}}
            for size in sizes for p,row in policy_table(lengths, size).iterrows()]
    leak = [{'chunk_size': size, 'valid': v, 'leaked %': 100*split_leak(lengths, size, v)} for size in sizes
            for v in (.5, .1)]
    return {'facts': facts, 'table': rows, 'leak': leak}

def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument('--imdb',
                      help='parquet file of reviews with a text column, or the folder that holds '
                           'train.parquet')
    args.add_argument('--tokens', type=int, default=10_000_000)
    args.add_argument('--repeats', type=int, default=7)
    args.add_argument('--part', choices=('all', 'speed', 'packing'), default='all')
    args.add_argument('--out', type=Path, default=results/'chunking.json')
    args = args.parse_args()
    import datasets
    datasets.disable_progress_bars()
    before = kept(args.out)
    if args.imdb:
        found = policies(args.imdb)
        print(found['facts'])
        show('What each policy costs on IMDb', found['table'])
        show('Chunks of valid that share a document with train, if chunks are split at random', found['leak'])
        before['policies'] = {'machine': machine(*PACKAGES), **found}
    else:
        with tempfile.TemporaryDirectory() as folder:
            ds = corpus(folder, args.tokens)
            print(f'{len(ds):,} documents, {args.tokens:,} tokens, in '
                  f'{len(ds.data.column("input_ids").chunks)} Arrow batches on disk')
            about = {'machine': machine(*PACKAGES, 'trl'), 'documents': len(ds), 'tokens': args.tokens}
            if args.part in ('speed', 'all'):
                before['speed'] = {**about, 'chunk_size': 128, 'repeats': args.repeats,
                                   'table': speed(ds, args.repeats), 'memory': memory(folder)}
                show('Chunking at 128, Arrow on disk in, Arrow out', before['speed']['table'])
                show('Memory', before['speed']['memory'])
            if args.part in ('packing', 'all'):
                before['packing'] = {**about, 'repeats': max(3, args.repeats//2),
                                     'table': packing(ds, max(3, args.repeats//2))}
                show('Packing', before['packing']['table'])
    keep(before, args.out)

if __name__ == '__main__': main()
