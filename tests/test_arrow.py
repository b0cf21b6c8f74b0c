"Tests of course_lm.support.arrow: token columns as buffers."
import pickle
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lm.support.arrow import ChunkMatrix, document_lengths, pad_rows, pieces, runs, to_dataset

documents = st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=12)

def naive(docs, size, step, eos_id=None):
    "Whole chunks and what they leave over, with lists."
    stream = [t for d in docs for t in (d + [eos_id] if d and eos_id is not None else d)]
    starts = range(0, max(0, len(stream)-size+1), step)
    chunks = [stream[i:i+size] for i in starts]
    rest = stream[len(starts)*step:]
    return chunks, [] if chunks and len(rest) <= size-step else rest

@settings(max_examples=60, deadline=None)
@given(
    documents, st.integers(2, 6), st.integers(1, 6), st.sampled_from([None, 77]), st.booleans(), st.booleans()
)
def test_runs_against_lists(docs, size, step, eos_id, dressed, split):
    step = min(step, size)
    ds = Dataset.from_dict({'input_ids': docs}) if not split else concatenate_datasets(
        [Dataset.from_dict({'input_ids': d}) for d in (docs[:len(docs)//2], docs[len(docs)//2:]) if d])
    if not any(docs): return
    before, after = ([101], [102, 103]) if dressed else ((), ())
    *whole, rest = runs(ds, size, step, eos_id, before, after)
    got = [row.tolist() for run in whole for row in run.reshape(-1, size + len(before) + len(after))]
    chunks, left = naive(docs, size, step, eos_id)
    assert got == [[*before, *c, *after] for c in chunks] and rest.tolist() == left

def test_long_runs_are_views_and_only_the_seams_are_copied():
    halves = [Dataset.from_dict({'input_ids': [np.arange(50_000, dtype=np.int32) + i]}) for i in (0, 50_000)]
    ds = concatenate_datasets(halves)
    *whole, rest = runs(ds, 128, 128)
    assert [len(run)//128 for run in whole] == [390, 1, 390] and len(rest) == 100_000 % 128
    buffers = [values for values,_ in pieces(ds)]
    assert np.shares_memory(whole[0], buffers[0]) and np.shares_memory(whole[2], buffers[1])
    assert not any(np.shares_memory(whole[1], b) for b in buffers)
    np.testing.assert_array_equal(np.concatenate([*whole, rest]), np.arange(100_000))

def test_pieces_follow_slices_and_shuffles():
    docs = [[i]*i for i in range(30)]
    ds = Dataset.from_dict({'input_ids': docs})
    for part in (ds, ds.select(range(5, 20)), ds.shuffle(seed=3), ds.select([9, 2, 2])):
        want = [t for row in part['input_ids'] for t in row]
        assert np.concatenate([v for v,_ in pieces(part)]).tolist() == want
        assert document_lengths(part).tolist() == list(map(len, part['input_ids']))
    assert document_lengths(docs).tolist() == list(range(30)) and document_lengths(
        ds.data.table
    ).tolist() == list(range(30))
    with pytest.raises(ValueError, match="no column 'input_ids'"): pieces(Dataset.from_dict({'text': ['a']}))
    with pytest.raises(TypeError, match='whole numbers'): pieces([[.5]])
    with pytest.raises(TypeError, match='lists of token ids'): pieces(pa.table({'input_ids': [1, 2]}))
    with pytest.raises(ValueError, match='without a value'): pieces(pa.table({'input_ids': [[1], None]}))

def test_an_end_that_is_there_already():
    with pytest.raises(ValueError, match='already ends with eos_id=0'):
        list(runs([[1, 0], [], [2, 0]], 2, 2, eos_id=0))
    *_, rest = runs([[1, 0], [2]], 9, 9, eos_id=0)
    assert rest.tolist() == [1, 0, 0, 2, 0]

def test_columns_are_written_as_they_are():
    a, b = np.arange(6, dtype=np.int32), np.arange(3, dtype=np.int32)
    source = Dataset.from_dict({'input_ids': [[1]]}, split='train')
    ds = to_dataset({'input_ids': [a, b], 'segment_ids': [a, b]}, source, 'x', size=3)
    assert (
        ds['input_ids'][:] == [[0, 1, 2], [3, 4, 5], [0, 1, 2]] == ds['segment_ids'][:]
        and ds.split == 'train'
    )
    assert np.shares_memory(ds.data.column('input_ids').chunks[0].flatten().to_numpy(), a)
    last = np.array([7], np.int32)
    assert to_dataset({'input_ids': [b]}, source, size=3, last=last)['input_ids'][:] == [[0, 1, 2], [7]]
    padded = to_dataset({'input_ids': [b]}, source, size=3, last=last, pad_id=9)
    assert padded[:] == {'input_ids': [[0, 1, 2], [7, 9, 9]], 'attention_mask': [[1, 1, 1], [1, 0, 0]]}
    same, other = (to_dataset({'input_ids': [b]}, source, what, size=3)._fingerprint for what in ('x', 'y'))
    assert same == to_dataset({'input_ids': [b]}, source, 'x', size=3)._fingerprint != other

def test_padding():
    assert pad_rows([[1, 2], []], 0, 4, 'left').tolist() == [[0, 0, 1, 2], [0]*4]
    assert pad_rows([[1, 2], [3]], 0, length=4).tolist() == [[1, 2, 0, 0], [3, 0, 0, 0]]
    assert pad_rows([[1, 2]], None).tolist() == [[1, 2]] # nothing to fill
    with pytest.raises(ValueError, match='no pad token'): pad_rows([[1, 2]], None, length=3)

def test_chunk_matrix_keeps_every_column_of_whole_numbers():
    ds = Dataset.from_dict(
        {
            'input_ids': [[1, 2], [3, 4]],
            'segment_ids': [[1, 1], [1, 2]],
            'labels': [[1, -100], [3, 4]],
            'text': ['a', 'b'],
            'label': [0, 1],
            'scores': [[0.1, 0.2], [0.3, 0.4]],
        }
    )
    rows = ChunkMatrix(ds)
    assert {k: v.tolist() for k, v in rows[1].items()} == {
        'input_ids': [3, 4],
        'segment_ids': [1, 2],
        'labels': [3, 4],
    }
    with pytest.raises(ValueError, match='these have 2 in labels'):
        ChunkMatrix(Dataset.from_dict({'input_ids': [[1], [2]], 'labels': [[1], [2, 3]]}))

def test_no_torch_is_needed():
    code = (
        "import sys, numpy as np; from course_lm.support.arrow import ChunkMatrix; "
        "ChunkMatrix(np.zeros((2, 3), int))[0]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, '-c', code], check=True)

def chunks(n=10, length=8):
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "input_ids": np.arange(n * length).reshape(n, length).tolist(),
            "attention_mask": np.ones((n, length), int).tolist(),
        }
    )


def test_chunk_matrix_equals_the_dataset_however_it_is_stored():
    from datasets import concatenate_datasets
    plain = chunks()
    for ds in (
        plain,
        plain.select(range(3, 9)),
        plain.select([5, 1, 1]),
        plain.shuffle(seed=0),
        concatenate_datasets([plain, plain.select([2])]),
        plain.with_format("numpy"),
    ):
        rows = ChunkMatrix(ds)
        expected = ds.with_format(None)
        assert len(rows) == len(ds)
        for got, want in zip(rows, expected): assert {name: row.tolist() for name, row in got.items()} == want
        assert rows[-1]["input_ids"].tolist() == expected[-1]["input_ids"]
        with pytest.raises(IndexError, match="out of range"): rows[len(rows)]


def test_chunk_matrix_over_several_pieces_of_arrow():
    from datasets import concatenate_datasets
    ds = concatenate_datasets([chunks(300), chunks(400)])
    rows = ChunkMatrix(ds)
    assert [len(part) for part in rows.columns["input_ids"]] == [300, 400] and len(rows) == 700
    for i in (0, 299, 300, 301, -1): assert rows[i]["input_ids"].tolist() == ds[i]["input_ids"]


def test_chunk_matrix_copies_nothing_and_guards_the_file(tmp_path):
    from datasets import load_from_disk
    chunks().save_to_disk(tmp_path/"chunks")
    rows = ChunkMatrix(load_from_disk(tmp_path/"chunks"))
    with pytest.raises(ValueError, match="read-only"): rows[0]["input_ids"][0] = 1
    again = pickle.loads(pickle.dumps(rows))
    assert again[3]["input_ids"].tolist() == rows[3]["input_ids"].tolist()
    assert np.shares_memory(rows[0]["input_ids"], rows.columns["input_ids"][0])


def test_chunk_matrix_refuses():
    from datasets import Dataset

    with pytest.raises(ValueError, match="rows of one length, and these have 2"):
        ChunkMatrix(Dataset.from_dict({"input_ids": [[1, 2], [3]]}))
    with pytest.raises(ValueError, match="only \\['text'\\]"):
        ChunkMatrix(Dataset.from_dict({"text": ["a"]}))
    with pytest.raises(TypeError, match=re.escape("shape (5,)")): ChunkMatrix(np.arange(5))
