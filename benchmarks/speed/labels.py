"""LMCollator and its strategies against transformers' DataCollatorForLanguageModeling, in one process.

    python -m benchmarks.speed.labels                # about a minute on two cores, on docstrings
    python -m benchmarks.speed.labels --imdb PATH    # on a parquet file with a text column

Prints tables and keeps them in course_lm/records/labels.json with machine, versions and date. All ways take
turns, round by round; the milliseconds are medians, and the ratio is that of the medians, to the first row of
the table. The last column is the ratio of the fastest calls: on a busy machine it tells what the code costs,
the median what the neighbours cost.
"""
import argparse
from pathlib import Path

from benchmarks.bench import interleaved, keep, machine, prepare, results

prepare()


def table(title, ways, tokens, rounds, target=None):
    found = interleaved(ways, rounds, fill=.02)
    peer = next(iter(found.values()))
    rows = [{"way": name, "ms": round(1000*t.seconds, 3), "Mtok_per_s": round(tokens/t.seconds/1e6, 2),
             "ratio": round(peer.seconds/t.seconds, 1), "ratio_of_fastest": round(peer.fastest/t.fastest, 1)}
            for name, t in found.items()]
    print(f"\n{title}" + (f" (wanted: {target}x)" if target else ""))
    for row in rows:
        print(f"  {row['way']:<70}{row['ms']:>9.3f} ms{row['Mtok_per_s']:>9.1f} Mtok/s"
              f"{row['ratio']:>8.1f}x{row['ratio_of_fastest']:>8.1f}x")
    return {"title": title, "wanted": target, "rows": rows}


def data(imdb, chunk_size, vocab_size):
    "(tokenizer, chunks, the same with special_tokens_mask, the same with offset_mapping too)"
    import numpy as np, pyarrow as pa, pyarrow.parquet
    from datasets import Dataset
    from course_lm.chunking import chunk_dataset, tokenize_dataset
    from course_lm.data import python_docstrings, train_tokenizer
    from course_lm.support.inputs import special_table
    from course_lm.denoising import word_starts
    if imdb: texts = pa.parquet.read_table(imdb, columns=["text"])["text"].to_pylist()[::10]
    else: texts = python_docstrings()
    tokenizer = train_tokenizer(texts[:2000], vocab_size, masked=True)
    chunks = chunk_dataset(tokenize_dataset(texts, tokenizer, add_eos=False), chunk_size, specials=tokenizer)
    ids = np.array(chunks.with_format("numpy")["input_ids"][:])[:512]
    chunks = chunks.select(range(len(ids)))
    special = special_table(tokenizer)[ids].astype(np.int8)
    # offsets as a tokenizer leaves them: a token goes on where the one before ended, and a word starts one
    # further (the space)
    starts = np.cumsum(4 + word_starts(ids, tokenizer, special != 0), axis=1)
    offsets = np.stack([starts, starts+4], -1).astype(np.int32)
    with_special = chunks.add_column("special_tokens_mask", pa.array(list(special)))
    with_offsets = Dataset.from_dict({"input_ids": ids, "special_tokens_mask": special,
                                      "offset_mapping": offsets})
    return tokenizer, chunks, with_special, with_offsets


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imdb", help="parquet file with a column text")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--chunk-size", type=int, default=512)
    parser.add_argument("--vocab-size", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=results/"labels.json")
    args = parser.parse_args()
    import numpy as np, torch
    from transformers import DataCollatorForLanguageModeling as Peer
    from course_lm.support.randomness import numpy_generator
    from course_lm.support.arrow import ChunkMatrix
    from course_lm.denoising import WholeWordMasking
    from course_lm.labels import BertMasking, CausalLabels, LMCollator, sample_positions
    here = machine("numpy", "torch", "pyarrow", "datasets", "transformers")
    tokenizer, chunks, with_special, with_offsets = data(args.imdb, args.chunk_size, args.vocab_size)
    order = torch.randperm(len(chunks), generator=torch.Generator().manual_seed(0))[:args.batch_size].tolist()
    rows, tokens, tables = ChunkMatrix(chunks), args.batch_size*args.chunk_size, []

    # what a DataLoader does with a Dataset
    def dataset_way(collator, ds): return lambda: collator(ds.__getitems__(order))
    # what it does with any other map-style dataset
    def matrix_way(collator): return lambda: collator([rows[i] for i in order])
    peer, size = Peer(tokenizer), f"{args.batch_size} x {args.chunk_size}"
    masking, words = BertMasking(), WholeWordMasking()
    tables.append(table(f"BERT masking, chunked dataset to batch, {size}", {
        "DataCollatorForLanguageModeling": dataset_way(peer, chunks),
        "DataCollatorForLanguageModeling, special_tokens_mask in the dataset": dataset_way(
            peer, with_special),
        "DataCollatorForLanguageModeling, dataset in torch format": dataset_way(
            peer, with_special.with_format("torch")),
        "DataCollatorForLanguageModeling, NumPy all through": dataset_way(Peer(
            tokenizer, return_tensors="np"), with_special.with_format("numpy")),
        "LMCollator(BertMasking()), the same Dataset": dataset_way(LMCollator(tokenizer, masking), chunks),
        "LMCollator(BertMasking()), ChunkMatrix": matrix_way(LMCollator(tokenizer, masking)),
        "LMCollator(BertMasking(), seed=0), ChunkMatrix": matrix_way(LMCollator(tokenizer, masking, seed=0)),
        "LMCollator(CausalLabels()), ChunkMatrix": matrix_way(LMCollator(tokenizer, CausalLabels())),
        "limit: stack the rows once as ids, copy them once as labels": lambda: np.stack([
            rows[i]["input_ids"] for i in order], dtype=np.int64).copy(),
    }, tokens, args.rounds, 30))

    ids = torch.from_numpy(np.stack([rows[i]["input_ids"] for i in order], dtype=np.int64))
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    rng, as_numpy, mask_numpy = numpy_generator(0), ids.numpy().copy(), special.numpy()
    tables.append(table(f"the masking step alone, {size}", {
        "DataCollatorForLanguageModeling.torch_mask_tokens": lambda: peer.torch_mask_tokens(
            ids.clone(), special),
        "DataCollatorForLanguageModeling.numpy_mask_tokens": lambda: peer.numpy_mask_tokens(
            as_numpy.copy(), mask_numpy),
        "BertMasking(), torch's global generator": lambda: masking(ids, special, tokenizer),
        "BertMasking(), a NumPy generator": lambda: masking(ids, special, tokenizer, rng),
        "choosing alone: one uniform draw per token": lambda: np.flatnonzero(rng.random(
            tokens, dtype=np.float32) < .15),
        "choosing alone: gaps (sample_positions)": lambda: sample_positions(tokens, .15, rng),
        "limit: a copy of ids, a row of -100": lambda: (ids.clone(), torch.full_like(ids, -100)),
    }, tokens, args.rounds, 6))

    word_peer = Peer(tokenizer, whole_word_mask=True, mask_replace_prob=1, random_replace_prob=0)
    offsets = torch.from_numpy(np.array(with_offsets.with_format("numpy")[order]["offset_mapping"]))
    tables.append(table(f"whole words, chunked dataset to batch, {size}", {
        "DataCollatorForLanguageModeling(whole_word_mask=True)": dataset_way(word_peer, with_offsets),
        "its masking step alone": lambda: word_peer.torch_mask_tokens(ids.clone(), special, offsets),
        "LMCollator(WholeWordMasking()), the same Dataset": dataset_way(LMCollator(tokenizer, words), chunks),
        "LMCollator(WholeWordMasking()), ChunkMatrix": matrix_way(LMCollator(tokenizer, words)),
        "WholeWordMasking() alone": lambda: words(ids, special, tokenizer),
    }, tokens, max(5, args.rounds//3), 50))

    report = {"machine": here, "text": "IMDb" if args.imdb else "docstrings of the standard library",
              "batch": [args.batch_size, args.chunk_size],
              "vocabulary": len(tokenizer), "tables": tables}
    keep(report, args.out)
    print(f"\n{here['cpu']}, {here['cores']} cores, load {here['load']}, Python {here['python']}, torch "
          f"{here['torch']}, transformers {here['transformers']}, {here['date']}")


if __name__ == "__main__": main()
