"""What several test modules share: small tokenizers, one thread, equality to the last bit.

A module of tests may have a fixture of the same name; it then uses its own.
"""
import pytest

SENTENCES = [f"The name {a} is bound to the {b} of the {c}, and not to its {d}." for a in "xyz"
             for b in ("value", "type", "class")
             for c in ("object", "module", "function") for d in ("scope", "frame")]


def same(a, b) -> None:
    "Two tensors, or lists or dictionaries of them, are equal to the last bit."
    import torch
    torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.fixture(scope="module")
def tok():
    "A causal tokenizer of 300 tokens, trained on SENTENCES."
    from course_lm.data import train_tokenizer
    return train_tokenizer(SENTENCES, 300)


@pytest.fixture(scope="module")
def mtok():
    "The same with a mask token."
    from course_lm.data import train_tokenizer
    return train_tokenizer(SENTENCES, 300, masked=True)


@pytest.fixture(scope="module")
def docs():
    "150 chapters of the manual that ships."
    from course_lm.data import python_docs
    return python_docs()[:150]


@pytest.fixture(scope="module")
def small(docs):
    "A tokenizer of 400 tokens trained on `docs`, and their ids in chunks of 32."
    import numpy as np

    from course_lm.chunking import chunk_ids
    from course_lm.data import train_tokenizer
    tok = train_tokenizer(docs, 400)
    ids = np.concatenate([np.array([*i, tok.eos_token_id], np.uint16) for i in tok(docs)["input_ids"]])
    return tok, chunk_ids(ids, 32)


@pytest.fixture
def one_thread():
    "PyTorch with one thread while a test runs: the same sums in the same order."
    import torch
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_network(monkeypatch):
    "Whoever opens a connection fails the test."
    import socket
    def refuse(*args, **kwargs): raise AssertionError("called out")
    for name in ("connect", "connect_ex"): monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"): monkeypatch.delenv(name, raising=False)
