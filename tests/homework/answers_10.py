"""Answers to the exercises of lesson 1, as students write them: right ones in several styles, and
each mistake in another style than the bank has it."""

import math
from collections import Counter

import numpy as np
import torch

# ---- bigram_probs


def table_of(ids, vocab_size):
    table = np.zeros((vocab_size, vocab_size))
    np.add.at(table, (np.asarray(ids)[:-1], np.asarray(ids)[1:]), 1)
    return table


def probs_counter(ids, vocab_size, k):
    ids = list(map(int, ids))
    pairs, before = Counter(zip(ids, ids[1:])), Counter(ids[:-1])
    return [
        [(pairs[a, b] + k) / (before[a] + k * vocab_size) for b in range(vocab_size)]
        for a in range(vocab_size)
    ]


def probs_numpy(ids, vocab_size, k):
    table = table_of(ids, vocab_size) + k
    return table / table.sum(1, keepdims=True)


def probs_torch(ids, vocab_size, k):
    ids = torch.as_tensor(ids)
    table = torch.full((vocab_size, vocab_size), float(k))
    for a, b in zip(ids[:-1], ids[1:]):
        table[a, b] += 1
    return table / table.sum(dim=1, keepdim=True)


def probs_bincount(ids, vocab_size, k):
    ids = np.asarray(ids)
    flat = np.bincount(ids[:-1] * vocab_size + ids[1:], minlength=vocab_size**2)
    table = flat.reshape(vocab_size, vocab_size) + k
    return [row / sum(row) for row in table]


def p_transposed(ids, vocab_size, k):
    return probs_numpy(np.asarray(ids)[::-1], vocab_size, k)


def p_columns(ids, vocab_size, k):
    table = torch.tensor(table_of(ids, vocab_size)) + k
    return table / table.sum(0, keepdim=True)


def p_across(ids, vocab_size, k):
    table = torch.tensor(table_of(ids, vocab_size)) + k
    return table / table.sum(1)


def p_joint(ids, vocab_size, k):
    table = table_of(ids, vocab_size) + k
    return table / table.sum()


def p_counts(ids, vocab_size, k):
    return (table_of(ids, vocab_size) + k).tolist()


def p_logs(ids, vocab_size, k):
    return torch.log(probs_torch(ids, vocab_size, k))


def p_unsmoothed(ids, vocab_size, k):
    table = table_of(ids, vocab_size)
    return table / np.maximum(1, table.sum(1, keepdims=True))


def p_add_one(ids, vocab_size, k):
    return probs_counter(ids, vocab_size, 1)


def p_k_above_only(ids, vocab_size, k):
    table = table_of(ids, vocab_size)
    return (table + k) / np.maximum(1e-9, table.sum(1, keepdims=True))


def p_k_once(ids, vocab_size, k):
    table = table_of(ids, vocab_size)
    return (table + k) / (table.sum(1, keepdims=True) + k)


def p_last_counted(ids, vocab_size, k):
    ids = np.asarray(ids).tolist()
    pairs, seen = Counter(zip(ids, ids[1:])), Counter(ids)
    v = range(vocab_size)
    return [[(pairs[a, b] + k) / (seen[a] + k * vocab_size) for b in v] for a in v]


def p_wrapped(ids, vocab_size, k):
    table = np.full((vocab_size, vocab_size), float(k))
    np.add.at(table, (ids, np.roll(ids, -1)), 1)
    return table / table.sum(1, keepdims=True)


def p_fancy_index(ids, vocab_size, k):
    table = torch.full((vocab_size, vocab_size), float(k))
    table[torch.as_tensor(ids[:-1]), torch.as_tensor(ids[1:])] += 1
    return table / table.sum(1, keepdim=True)


def p_every_other(ids, vocab_size, k):
    table = np.full((vocab_size, vocab_size), float(k))
    for i in range(0, len(ids) - 1, 2):
        table[ids[i], ids[i + 1]] += 1
    return table / table.sum(1, keepdims=True)


# ---- text_nats


def nats_loop(probs, ids):
    total = 0.0
    for i in range(1, len(ids)):
        total -= math.log(probs[ids[i - 1]][ids[i]])
    return total


def nats_numpy(probs, ids):
    ids = np.asarray(ids)
    return -np.log(np.asarray(probs)[ids[:-1], ids[1:]]).sum()


def nats_torch(probs, ids):
    ids = torch.as_tensor(ids)
    return torch.nn.functional.nll_loss(torch.as_tensor(probs).log()[ids[:-1]], ids[1:], reduction="sum")


def nats_bits_back(probs, ids):
    return math.fsum(-math.log2(probs[a, b]) for a, b in zip(ids, ids[1:])) * math.log(2)


def n_mean(probs, ids):
    return -np.log(np.asarray(probs)[ids[:-1], ids[1:]]).mean()


def n_bits(probs, ids):
    return sum(-math.log2(probs[a][b]) for a, b in zip(ids, ids[1:]))


def n_sign(probs, ids):
    return np.log(np.asarray(probs)[ids[:-1], ids[1:]]).sum()


def n_swapped(probs, ids):
    return nats_loop(np.transpose(probs), ids)


def n_short(probs, ids):
    total = 0.0
    for i in range(len(ids) - 2):
        total -= math.log(probs[ids[i], ids[i + 1]])
    return total


def n_round(probs, ids):
    total = 0.0
    for i in range(len(ids)):
        total -= math.log(probs[ids[i - 1], ids[i]])
    return total


def n_first(probs, ids):
    return nats_numpy(probs, ids) - math.log(1 / len(probs))


def n_perplexity(probs, ids):
    return math.prod(1 / probs[a, b] for a, b in zip(ids, ids[1:])) ** (1 / (len(ids) - 1))


def n_perplexity_torch(probs, ids):
    return torch.exp(nats_torch(probs, ids) / (len(ids) - 1))


def n_product(probs, ids):
    with np.errstate(divide="ignore"):
        return -np.log(np.prod([probs[a, b] for a, b in zip(ids, ids[1:])]))


# ---- bits_per_byte


def bpb_log2(nats, text):
    return nats * math.log2(math.e) / len(text.encode())


def bpb_numpy(nats, text):
    return np.float64(nats) / np.log(2) / np.frombuffer(text.encode("utf8"), np.uint8).size


def bpb_loop(nats, text):
    n = sum(1 + (ord(c) >= 128) + (ord(c) >= 2048) + (ord(c) >= 65536) for c in text)
    return nats / (math.log(2) * n)


def bpb_tensor(nats, text):
    return torch.tensor(nats / len(bytes(text, "utf-8"))) / torch.log(torch.tensor(2.0))


def b_characters(nats, text):
    return nats / np.log(2) / len(list(text))


def b_nats(nats, text):
    return nats / len(bytearray(text, "utf-8"))


def b_times(nats, text):
    return nats * np.log(2) / len(text.encode())


def b_words(nats, text):
    return nats / math.log(2) / (text.strip().count(" ") + 1)


def b_stripped(nats, text):
    return bpb_log2(nats, " ".join(text.strip().split(" ")))


def b_upside(nats, text):
    return len(text.encode()) * math.log(2) / nats


# ---- entropy_rate


def rate_solve(transition):
    p = np.asarray(transition, float)
    n = len(p)
    shares = np.linalg.lstsq(np.vstack([p.T - np.eye(n), np.ones(n)]), [0] * n + [1], rcond=None)[0]
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    return -(shares[:, None] * p * logs).sum()


def rate_eigen(transition):
    values, vectors = np.linalg.eig(np.transpose(transition))
    shares = vectors[:, np.argmin(abs(values - 1))].real
    shares = shares / shares.sum()
    return sum(s * sum(-q * math.log(q) for q in row if q) for s, row in zip(shares, transition))


def rate_averaged(transition):
    p = torch.as_tensor(transition, dtype=torch.float64)
    lazy = (p + torch.eye(len(p))) / 2
    shares = torch.linalg.matrix_power(lazy, 4096)[0]
    return (shares * torch.special.entr(p).sum(1)).sum()


def rate_walk(transition):
    shares, total = [1.0] + [0.0] * (len(transition) - 1), [0.0] * len(transition)
    for _ in range(60_000 // len(transition)):
        total = [t + s for t, s in zip(total, shares)]
        shares = [sum(s * row[j] for s, row in zip(shares, transition)) for j in range(len(shares))]
    whole = sum(total)
    rows = [-sum(q * math.log(q) for q in row if q > 0) for row in transition]
    return sum(t / whole * h for t, h in zip(total, rows))


def entropies(transition):
    return torch.special.entr(torch.as_tensor(transition)).sum(1)


def r_uniform(transition):
    values, vectors = np.linalg.eig(np.asarray(transition))
    shares = vectors[:, np.argmax(values.real)].real
    return float(shares / shares.sum() @ entropies(transition).numpy())


def r_first(transition):
    return entropies(transition)[0]


def r_bits(transition):
    return rate_solve(transition) / np.log(2)


def r_summed(transition):
    return entropies(transition).sum()


def r_shares(transition):
    values, vectors = np.linalg.eig(np.transpose(transition))
    shares = vectors[:, np.argmin(abs(values - 1))].real
    return torch.special.entr(torch.tensor(shares / shares.sum())).sum()


def r_sign(transition):
    return -rate_averaged(transition)


def r_perplexity(transition):
    return 2 ** (rate_eigen(transition) / math.log(2))


def r_nan(transition):
    p = torch.as_tensor(transition)
    lazy = torch.linalg.matrix_power((p + torch.eye(len(p), dtype=p.dtype)) / 2, 4096)[0]
    return -(lazy[:, None] * p * p.log()).sum()


def r_power(transition):
    shares = np.linalg.matrix_power(np.asarray(transition), 1000)[0]
    return shares @ entropies(transition).numpy()


# ---- count_bytes


def count_sum(ids, vocab):
    return sum(len(vocab[i]) for i in ids)


def count_joined(ids, vocab):
    return len(b"".join(map(vocab.__getitem__, ids)))


def count_array(ids, vocab):
    return np.array([len(piece) for piece in vocab])[ids].sum()


def count_tensor(ids, vocab):
    sizes = torch.tensor([len(piece) for piece in vocab])
    return sizes[torch.tensor(ids)].sum()


def c_decoded(ids, vocab):
    return len("".join(vocab[i].decode("utf-8", "replace") for i in ids).encode("utf-8"))


def c_characters(ids, vocab):
    return len(count_text(ids, vocab))


def count_text(ids, vocab):
    return b"".join(vocab[i] for i in ids).decode()


def c_ignored(ids, vocab):
    return sum(len(str(vocab[i], "utf-8", "ignore").encode()) for i in ids)


def c_tokens(ids, vocab):
    return np.asarray(ids).size


RIGHT = {
    "bigram_probs": [probs_counter, probs_numpy, probs_torch, probs_bincount],
    "text_nats": [nats_loop, nats_numpy, nats_torch, nats_bits_back],
    "bits_per_byte": [bpb_log2, bpb_numpy, bpb_loop, bpb_tensor],
    "entropy_rate": [rate_solve, rate_eigen, rate_averaged, rate_walk],
    "count_bytes": [count_sum, count_joined, count_array, count_tensor],
}

WRONG = {
    "bigram_probs": [
        ("transposed", p_transposed),
        ("columns-sum-to-one", p_columns),
        ("divided-across", p_across),
        ("joint", p_joint),
        ("counts", p_counts),
        ("logs", p_logs),
        ("not-smoothed", p_unsmoothed),
        ("add-one", p_add_one),
        ("k-not-in-total", p_k_above_only),
        ("k-once-in-total", p_k_once),
        ("last-counted", p_last_counted),
        ("wrapped", p_wrapped),
        ("every-other", p_every_other),
        ("repeats-once", p_fancy_index),
    ],
    "text_nats": [
        ("averaged", n_mean),
        ("bits", n_bits),
        ("positive-logs", n_sign),
        ("swapped", n_swapped),
        ("last-left-out", n_short),
        ("from-the-last", n_round),
        ("first-uniform", n_first),
        ("perplexity", n_perplexity_torch),
        ("product-first", n_product),
    ],
    "bits_per_byte": [
        ("per-character", b_characters),
        ("in-nats", b_nats),
        ("times-ln-2", b_times),
        ("per-word", b_words),
        ("stripped", b_stripped),
        ("upside-down", b_upside),
    ],
    "entropy_rate": [
        ("uniform-shares", r_uniform),
        ("first-row", r_first),
        ("bits", r_bits),
        ("summed", r_summed),
        ("of-the-shares", r_shares),
        ("positive-logs", r_sign),
        ("perplexity", r_perplexity),
        ("not-a-number", r_nan),
        ("periodic", r_power),
    ],
    "count_bytes": [
        ("one-by-one", c_decoded),
        ("characters", c_characters),
        ("broken-left-out", c_ignored),
        ("tokens", c_tokens),
    ],
}
