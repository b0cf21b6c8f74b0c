"""Random documents, and every way in which Arrow may hold them."""
import numpy as np
import pyarrow as pa
from datasets import Dataset, concatenate_datasets
from datasets.table import InMemoryTable

rng = np.random.default_rng(0)


def random_docs(most=12, longest=40, dtype=np.int32):
    docs = [
        rng.integers(1, 1000, rng.integers(0, longest)).astype(dtype) for _ in range(rng.integers(1, most))
    ]
    return [
        np.array([1, 2, 3, 4], dtype),
        *docs,
        *[np.zeros(0, dtype)] * rng.integers(0, 3),
        np.array([5], dtype),
    ]


def flat(docs): return np.concatenate(docs)

def ids_of(ds): return [np.array(row) for row in ds.with_format("arrow")[:]["input_ids"].to_pylist()]

def same(a, b): assert len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b)), (a, b)

def as_list(docs, kind=pa.list_):
    return pa.array([d.tolist() for d in docs], kind(pa.from_numpy_dtype(docs[0].dtype)))


def dataset(column): return Dataset(InMemoryTable(pa.table({"input_ids": column})), fingerprint="0" * 16)

def batches(docs): return pa.chunked_array([as_list(docs[i:i+3]) for i in range(0, len(docs), 3)])


layouts = {
    "documents": lambda docs: docs,
    "lists": lambda docs: [d.tolist() for d in docs],
    "one batch": lambda docs: dataset(as_list(docs)),
    "batches": lambda docs: dataset(batches(docs)),
    "table": lambda docs: pa.table({"input_ids": batches(docs)}),
    "large_list": lambda docs: dataset(as_list(docs, pa.large_list)),
    "slice": lambda docs: dataset(pa.chunked_array([as_list([docs[0], *docs, docs[0]]).slice(1, len(docs))])),
    "slice of batches": lambda docs: dataset(batches([docs[-1], *docs, docs[0]])).select(
        range(1, len(docs) + 1)
    ),
    "concatenated": lambda docs: concatenate_datasets([dataset(as_list([d])) for d in docs]),
    "with an empty batch": lambda docs: dataset(
        pa.chunked_array(
            [as_list(docs[:1]), as_list(docs[:1])[:0], *([as_list(docs[1:])] if docs[1:] else [])]
        )
    ),
    "picked": lambda docs: dataset(batches(docs[::-1])).select(range(len(docs) - 1, -1, -1)),
    "formatted": lambda docs: dataset(batches(docs)).with_format("numpy"),
    "flat field": lambda docs: Dataset.from_dict(
        {"text": ["a"] * len(docs), "input_ids": [d.tolist() for d in docs]}
    ),
}
