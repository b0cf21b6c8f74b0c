"Answers to lessons 1 and 2, in styles of all kinds."
import bisect, collections, functools, heapq, itertools, math, random, re

import numpy as np
import torch

from tests.homework.fresh import right, wrong


# bigram_probs

@right("bigram_probs")
def by_one_hot(ids, vocab_size, k):
    eye = torch.eye(vocab_size, dtype=torch.float64)
    x = eye[torch.as_tensor(list(ids))]
    joint = x[:-1].T @ x[1:] + k
    return joint / joint.sum(1, keepdim=True)


@right("bigram_probs")
def by_bincount(ids, vocab_size, k):
    a = np.asarray(ids)
    flat = np.bincount(a[:-1] * vocab_size + a[1:], minlength=vocab_size**2).reshape(vocab_size, -1)
    return ((flat + k).T / (flat.sum(1) + k * vocab_size)).T


@right("bigram_probs")
def generator_of_generators(ids, vocab_size, k):
    ids = [int(i) for i in ids]
    pairs = collections.Counter(zip(ids, ids[1:]))
    firsts = collections.Counter(ids[:-1])
    return ((((pairs[i, j] + k) / (firsts[i] + k * vocab_size)) for j in range(vocab_size))
            for i in range(vocab_size))


@right("bigram_probs")
def recursive_counts(ids, vocab_size, k):
    table = [[float(k)] * vocab_size for _ in range(vocab_size)]
    def walk(first, *rest):
        if not rest: return
        table[int(first)][int(rest[0])] += 1
        walk(*rest)
    walk(*ids)
    return tuple(tuple(x / math.fsum(row) for x in row) for row in table)


@wrong("bigram_probs", "transposed and columns-sum-to-one")
def einsum_turned(ids, vocab_size, k):
    x = np.eye(vocab_size)[np.array(ids)]
    joint = np.einsum("ti,tj->ij", x[:-1], x[1:]) + k
    return (joint / joint.sum(1, keepdims=True)).T


@wrong("bigram_probs", "divided-across")
def broadcast_the_other_way(ids, vocab_size, k):
    t = torch.full((vocab_size, vocab_size), float(k))
    for a, b in itertools.pairwise(ids): t[int(a), int(b)] += 1
    return t / t.sum(1)


@wrong("bigram_probs", "repeats-once")
def indexed_plus(ids, vocab_size, k):
    ids, t = torch.tensor(ids), torch.full((vocab_size, vocab_size), float(k))
    t[ids[:-1], ids[1:]] += 1
    return t / t.sum(1, keepdim=True)


@wrong("bigram_probs", "wrapped")
def rolled(ids, vocab_size, k):
    c = collections.Counter(zip(ids, np.roll(ids, -1).tolist()))
    rows = [[c[i, j] + k for j in range(vocab_size)] for i in range(vocab_size)]
    return [[x / sum(r) for x in r] for r in rows]


@wrong("bigram_probs")
def smoothed_with_k_over_v(ids, vocab_size, k):
    t = np.full((vocab_size, vocab_size), k / vocab_size)
    np.add.at(t, (np.array(ids[:-1]), np.array(ids[1:])), 1)
    return t / t.sum(1, keepdims=True)


@wrong("bigram_probs")
def seen_rows_only(ids, vocab_size, k):
    t = np.zeros((vocab_size, vocab_size))
    np.add.at(t, (np.array(ids[:-1]), np.array(ids[1:])), 1)
    seen = t.sum(1) > 0
    t[seen] = (t[seen] + k) / (t[seen] + k).sum(1, keepdims=True)
    return t


# text_nats

@right("text_nats")
def gathered(probs, ids):
    ids = torch.as_tensor(np.asarray(ids))
    return torch.as_tensor(np.asarray(probs)).log()[ids[:-1], ids[1:]].neg().sum()


@right("text_nats")
def folded(probs, ids):
    steps = zip(ids, itertools.islice(ids, 1, None))
    return functools.reduce(lambda s, t: s - math.log(float(probs[t[0]][t[1]])), steps, 0.)


@right("text_nats")
def as_an_array_of_one(probs, ids):
    p = np.asarray(probs, dtype=np.float64)
    return np.array([-sum(np.log(p[a, b]) for a, b in zip(ids[:-1], ids[1:]))])


@wrong("text_nats", "bits")
def in_log2(probs, ids):
    return -sum(math.log2(float(probs[a][b])) for a, b in itertools.pairwise(ids))


@wrong("text_nats", "swapped")
def read_backwards(probs, ids):
    p = np.asarray(probs)
    return float(-np.log(p[list(ids[1:]), list(ids[:-1])]).sum())


@wrong("text_nats", "averaged")
def torch_mean(probs, ids):
    ids = torch.tensor(list(ids))
    return -torch.tensor(np.asarray(probs)).log()[ids[:-1], ids[1:]].mean().item()


@wrong("text_nats")
def one_minus_p(probs, ids):
    return -sum(math.log(1 - float(probs[a][b]) + 1e-9) for a, b in itertools.pairwise(ids))


# bits_per_byte

@right("bits_per_byte")
def by_log2_of_e(nats, text):
    return nats * math.log2(math.e) / sum(1 for _ in bytearray(text, "utf8"))


@right("bits_per_byte")
def as_a_tensor(nats, text):
    return torch.tensor(float(nats), dtype=torch.float64).div(math.log(2) * len(str.encode(text)))


@wrong("bits_per_byte", "per-character")
def counted_letters(nats, text):
    return nats / np.log(2) / sum(1 for _ in text)


@wrong("bits_per_byte", "upside-down")
def bytes_per_bit(nats, text):
    return len(text.encode()) * math.log(2) / nats


@wrong("bits_per_byte", "times-ln-2")
def multiplied(nats, text):
    return nats * math.log(2) / len(text.encode("utf-8"))


@wrong("bits_per_byte")
def in_utf_16(nats, text):
    return nats / math.log(2) / len(text.encode("utf-16-le"))


@wrong("bits_per_byte")
def ascii_only(nats, text):
    return nats / math.log(2) / len(text.encode("ascii", "ignore") or b"x")


# entropy_rate

@right("entropy_rate")
def by_least_squares(transition):
    p = np.asarray(transition, dtype=float)
    n = len(p)
    a = np.vstack([p.T - np.eye(n), np.ones(n)])
    pi = np.linalg.lstsq(a, np.r_[np.zeros(n), 1], rcond=None)[0]
    logs = np.log(p, where=p > 0, out=np.zeros_like(p))
    return float(-(pi[:, None] * p * logs).sum())


@right("entropy_rate")
def by_lazy_power(transition):
    p = torch.as_tensor(np.asarray(transition), dtype=torch.float64)
    lazy = (p + torch.eye(len(p), dtype=p.dtype)) / 2
    for _ in range(40): lazy = lazy @ lazy
    return (lazy[0] @ torch.special.entr(p).sum(1)).item()


@right("entropy_rate")
def by_elimination(transition):
    p = [[float(x) for x in row] for row in np.asarray(transition)]
    n = len(p)
    for m in range(n - 1, 0, -1):
        s = sum(p[m][:m])
        for i in range(m): p[i][m] /= s
        for i in range(m):
            for j in range(m): p[i][j] += p[i][m] * p[m][j]
    pi = [1.] + [0.] * (n - 1)
    for m in range(1, n): pi[m] = sum(pi[i] * p[i][m] for i in range(m))
    total = sum(pi)
    rows = np.asarray(transition, dtype=float).tolist()
    return sum(w / total * -sum(x * math.log(x) for x in r if x) for w, r in zip(pi, rows))


@wrong("entropy_rate", "uniform-shares")
def mean_of_rows(transition):
    return float(torch.special.entr(torch.tensor(np.asarray(transition), dtype=torch.float64)).sum(1).mean())


@wrong("entropy_rate", "periodic")
def power_from_the_first(transition):
    p = np.asarray(transition, dtype=float)
    pi = np.eye(len(p))[0]
    for _ in range(10_000): pi = pi @ p
    with np.errstate(all="ignore"): h = -np.nansum(p * np.log(p), 1)
    return pi @ h


@wrong("entropy_rate", "of-the-shares")
def entropy_of_stationary(transition):
    w, v = np.linalg.eig(np.asarray(transition, dtype=float).T)
    pi = np.real(v[:, np.argmin(abs(w - 1))])
    pi = pi / pi.sum()
    return -sum(x * math.log(x) for x in pi if x > 1e-12)


@wrong("entropy_rate")
def of_two_steps(transition):
    p = np.asarray(transition, dtype=float)
    lazy = np.linalg.matrix_power((p + np.eye(len(p))) / 2, 2**20)[0]
    two = p @ p
    return float(lazy @ np.array([-sum(x * math.log(x) for x in r if x > 0) for r in two]))


# chunk

@right("chunk")
def by_reshape(docs, chunk_size, eos):
    flat = [t for d in docs if len(d) for t in (*d, eos)]
    n = len(flat) // chunk_size
    return torch.tensor(flat[:n * chunk_size], dtype=torch.long).reshape(n, chunk_size) if n else []


@right("chunk")
def by_zip(docs, chunk_size, eos):
    stream = itertools.chain.from_iterable([*d, eos] for d in filter(None, map(list, docs)))
    return zip(*[stream] * chunk_size)


@right("chunk")
def by_recursion(docs, chunk_size, eos, held=()):
    row, rest = held[:chunk_size], held[chunk_size:]
    if len(row) == chunk_size: return [row, *by_recursion(docs, chunk_size, eos, rest)]
    if not docs: return []
    return by_recursion(docs[1:], chunk_size, eos, (*held, *docs[0], *[eos] * bool(len(docs[0]))))


@right("chunk")
def by_deque(docs, chunk_size, eos):
    buffer = collections.deque()
    for doc in docs:
        if not len(doc): continue
        buffer.extend(doc)
        buffer.append(eos)
        while len(buffer) >= chunk_size: yield [buffer.popleft() for _ in range(chunk_size)]


@wrong("chunk", "tail-kept")
def array_split_rest(docs, chunk_size, eos):
    flat = sum(([*d, eos] for d in docs if d), [])
    rows = []
    while flat: rows, flat = [*rows, flat[:chunk_size]], flat[chunk_size:]
    return rows


@wrong("chunk", "eos-for-empty")
def reduce_all(docs, chunk_size, eos):
    flat = functools.reduce(lambda s, d: s + list(d) + [eos], docs, [])
    return list(zip(*[iter(flat)] * chunk_size))


@wrong("chunk", "no-last-eos or last-row-lost")
def joined_between(docs, chunk_size, eos):
    flat = []
    for i, d in enumerate([d for d in docs if d]): flat += ([eos] if i else []) + list(d)
    return [flat[i:i + chunk_size] for i in range(0, len(flat) // chunk_size * chunk_size, chunk_size)]


@wrong("chunk", "eos-first")
def before_each(docs, chunk_size, eos):
    flat = np.concatenate([np.r_[eos, d] for d in docs if len(d)] or [np.zeros(0)]).astype(int)
    n = len(flat) // chunk_size
    return flat[:n * chunk_size].reshape(n, chunk_size)


@wrong("chunk")
def rows_backwards(docs, chunk_size, eos):
    return list(by_zip(docs, chunk_size, eos))[::-1]


@wrong("chunk")
def drops_the_head(docs, chunk_size, eos):
    flat = [t for d in docs if d for t in [*d, eos]]
    return [flat[i:i + chunk_size] for i in range(len(flat) % chunk_size, len(flat), chunk_size)]


@wrong("chunk")
def eos_at_each_row_end(docs, chunk_size, eos):
    flat = [t for d in docs for t in d]
    m = chunk_size - 1
    return [[*flat[i:i + m], eos] for i in range(0, len(flat) - m + 1, m)] if m else []


# windows

@right("windows")
def by_unfold(ids, chunk_size, stride):
    x = torch.as_tensor(list(ids))
    return x.unfold(0, chunk_size, stride) if len(x) >= chunk_size else []


@right("windows")
def by_sliding_view(ids, chunk_size, stride):
    a = np.asarray(ids)
    if len(a) < chunk_size: return []
    return np.lib.stride_tricks.sliding_window_view(a, chunk_size)[::stride]


@right("windows")
def by_counting(ids, chunk_size, stride):
    rows, start = [], 0
    while start + chunk_size <= len(ids):
        rows.append(tuple(ids[start:start + chunk_size]))
        start += stride
    return tuple(rows)


@right("windows")
def by_takewhile(ids, chunk_size, stride):
    cut = (ids[s:s + chunk_size] for s in itertools.count(0, stride))
    return itertools.takewhile(lambda w: len(w) == chunk_size, cut)


@wrong("windows", "stride-as-overlap")
def overlapping(ids, chunk_size, stride):
    step = chunk_size - stride or 1
    return [ids[i:i + chunk_size] for i in range(0, len(ids) - chunk_size + 1, step)]


@wrong("windows", "last-window-lost")
def open_end(ids, chunk_size, stride):
    i, rows = 0, []
    while i + chunk_size < len(ids):
        rows.append(ids[i:i + chunk_size])
        i += stride
    return rows


@wrong("windows", "short-windows")
def ragged(ids, chunk_size, stride):
    return [ids[i:][:chunk_size] for i in range(len(ids)) if i % stride == 0]


@wrong("windows")
def from_the_end(ids, chunk_size, stride):
    n = len(ids)
    starts = range(n - chunk_size, -1, -stride)
    return [ids[i:i + chunk_size] for i in reversed(starts)]


# split_and_chunk

def _cut(docs, chunk_size, eos): return [list(r) for r in by_zip(docs, chunk_size, eos)]


@right("split_and_chunk")
def sampled(docs, chunk_size, eos, n_valid, seed):
    held = set(random.Random(seed).sample(range(len(docs)), n_valid))
    sides = [d for i, d in enumerate(docs) if i not in held], [d for i, d in enumerate(docs) if i in held]
    return tuple(_cut(s, chunk_size, eos) for s in sides)


@right("split_and_chunk")
def last_ones(docs, chunk_size, eos, n_valid, seed):
    cut = len(docs) - n_valid
    return [_cut(docs[:cut], chunk_size, eos), _cut(docs[cut:], chunk_size, eos)]


@right("split_and_chunk")
def torch_permuted(docs, chunk_size, eos, n_valid, seed):
    order = torch.randperm(len(docs), generator=torch.Generator().manual_seed(seed)).tolist()
    train, valid = ([docs[i] for i in numbers] for numbers in (order[n_valid:], order[:n_valid]))
    return _cut(train, chunk_size, eos), by_zip(valid, chunk_size, eos)


@wrong("split_and_chunk", "split-after-chunking")
def rows_split(docs, chunk_size, eos, n_valid, seed):
    rows = _cut(docs, chunk_size, eos)
    np.random.default_rng(seed).shuffle(rows)
    return rows[n_valid:], rows[:n_valid]


@wrong("split_and_chunk", "sides-swapped")
def wrong_way_round(docs, chunk_size, eos, n_valid, seed):
    docs = sorted(docs, key=lambda d: random.Random(f"{seed}{d}").random())
    return _cut(docs[:n_valid], chunk_size, eos), _cut(docs[n_valid:], chunk_size, eos)


@wrong("split_and_chunk", "seed-ignored")
def set_aside_at_random(docs, chunk_size, eos, n_valid, seed):
    docs = random.sample(docs, len(docs))
    return _cut(docs[n_valid:], chunk_size, eos), _cut(docs[:n_valid], chunk_size, eos)


@wrong("split_and_chunk", "valid-in-train")
def train_on_all(docs, chunk_size, eos, n_valid, seed):
    docs = random.Random(seed).sample(docs, len(docs))
    return _cut(docs, chunk_size, eos), _cut(docs[:n_valid], chunk_size, eos)


@wrong("split_and_chunk")
def one_too_many(docs, chunk_size, eos, n_valid, seed):
    docs = random.Random(seed).sample(docs, len(docs))
    return _cut(docs[n_valid + 1:], chunk_size, eos), _cut(docs[:n_valid + 1], chunk_size, eos)


@wrong("split_and_chunk")
def cut_documents_up(docs, chunk_size, eos, n_valid, seed):
    return _cut([d[1:] for d in docs[n_valid:]], chunk_size, eos), _cut(docs[:n_valid], chunk_size, eos)


# pack

@right("pack")
def best_fit_with_bisect(lengths, chunk_size):
    room, rows = [], {}
    for number in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        i = bisect.bisect_left(room, (lengths[number], -1))
        left, key = room.pop(i) if i < len(room) else (chunk_size, len(rows))
        rows.setdefault(key, []).append(number)
        bisect.insort(room, (left - lengths[number], key))
    return list(rows.values())


@right("pack")
def first_fit_numpy(lengths, chunk_size):
    left, rows = np.array([], dtype=int), []
    for i in np.argsort(lengths, kind="stable")[::-1]:
        fits = np.flatnonzero(left >= lengths[i])
        if len(fits): j = fits[0]
        else:
            j, left = len(rows), np.append(left, chunk_size)
            rows.append([])
        rows[j].append(i)
        left[j] -= lengths[i]
    return [np.array(r) for r in rows]


@right("pack")
def exact_for_few(lengths, chunk_size):
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    bins = []
    def put(i):
        for b in bins:
            if sum(lengths[j] for j in b) + lengths[i] <= chunk_size: return b.append(i)
        bins.append([i])
    for i in order: put(i)
    return (tuple(b) for b in reversed(bins))


@wrong("pack", "unsorted")
def first_fit_as_they_come(lengths, chunk_size):
    rows = []
    for i, n in enumerate(lengths):
        row = next((r for r in rows if sum(lengths[j] for j in r) + n <= chunk_size), None)
        if row is None: rows.append([i])
        else: row.append(i)
    return rows


@wrong("pack", "next-fit")
def only_the_last_row(lengths, chunk_size):
    rows, used = [], math.inf
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if used + lengths[i] > chunk_size: rows, used = [*rows, []], 0
        rows[-1].append(i)
        used += lengths[i]
    return rows


@wrong("pack", "emptiest-row")
def worst_fit_heap(lengths, chunk_size):
    heap = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        used, row = heap[0] if heap else (chunk_size, None)
        if used + lengths[i] <= chunk_size: heapq.heapreplace(heap, (used + lengths[i], [*row, i]))
        else: heapq.heappush(heap, (lengths[i], [i]))
    return [row for _, row in heap]


@wrong("pack", "one-per-row")
def alone(lengths, chunk_size): return [[i] for i, _ in enumerate(lengths)]


@wrong("pack", "from-one")
def counted_from_one(lengths, chunk_size):
    return [[i + 1 for i in row] for row in best_fit_with_bisect(lengths, chunk_size)]


@wrong("pack")
def one_row_for_all(lengths, chunk_size): return [list(range(len(lengths)))]


@wrong("pack")
def first_twice(lengths, chunk_size):
    rows = best_fit_with_bisect(lengths, chunk_size)
    return [*rows, [0]]


# segment_mask

@right("segment_mask")
def by_outer(segment_ids):
    s = np.asarray(segment_ids)
    return np.tril(np.equal.outer(s, s)) & (s > 0)[:, None] | np.eye(len(s), dtype=bool)


@right("segment_mask")
def by_lists(segment_ids):
    s = [int(x) for x in segment_ids]
    n = range(len(s))
    return [[j == i or (j < i and 0 != s[i] == s[j]) for j in n] for i in n]


@right("segment_mask")
def zeros_and_ones(segment_ids):
    s = torch.as_tensor(np.asarray(segment_ids))
    m = (s[:, None] == s) & (s != 0)
    return (m.tril().int() | torch.eye(len(s), dtype=torch.int))


@wrong("segment_mask", "pads-see-pads")
def plain_tril(segment_ids):
    s = torch.tensor(list(segment_ids))
    return torch.tril(s.unsqueeze(1).eq(s.unsqueeze(0)))


@wrong("segment_mask", "not-itself and pads-see-nothing")
def strictly_before(segment_ids):
    s = np.array(segment_ids)
    return np.array([[j < i and s[i] == s[j] != 0 for j in range(len(s))] for i in range(len(s))])


@wrong("segment_mask", "inverted")
def what_may_not(segment_ids): return ~np.array(by_lists(segment_ids))


@wrong("segment_mask", "upside-down")
def turned(segment_ids): return [list(c) for c in zip(*by_lists(segment_ids))]


@wrong("segment_mask")
def everyone_sees_the_first(segment_ids):
    m = np.array(by_lists(segment_ids))
    m[:, 0] = True
    return m


@wrong("segment_mask")
def neighbours(segment_ids):
    m = np.array(by_lists(segment_ids))
    return m & ~np.tril(np.ones_like(m), -2)


# leaks of lesson 6 share the tools here

@right("leaks")
def by_split(train_texts, test_texts):
    seen = {" ".join(t.split()).casefold() for t in train_texts}
    return [i for i, t in enumerate(test_texts) if " ".join(t.split()).casefold() in seen]


@right("leaks")
def by_regex(train_texts, test_texts):
    def key(t): return re.sub(r"\s+", " ", t).strip().lower()
    seen = frozenset(map(key, train_texts))
    return np.array([i for i in range(len(test_texts)) if key(test_texts[i]) in seen])


@right("leaks")
def by_words(train_texts, test_texts):
    train = [t.lower().split() for t in train_texts]
    return sorted(i for i, t in enumerate(test_texts) if t.lower().split() in train)


@wrong("leaks", "spaces-removed")
def no_blanks(train_texts, test_texts):
    def key(t): return "".join(t.lower().split())
    return [i for i, t in enumerate(test_texts) if any(key(t) == key(u) for u in train_texts)]


@wrong("leaks", "blanks-only")
def only_blanks(train_texts, test_texts):
    seen = {re.sub(" +", " ", t.strip(" ")).lower() for t in train_texts}
    return [i for i, t in enumerate(test_texts) if re.sub(" +", " ", t.strip(" ")).lower() in seen]


@wrong("leaks", "numbers-of-train")
def from_the_other_side(train_texts, test_texts): return by_split(test_texts, train_texts)


@wrong("leaks", "part-of-a-text")
def contained(train_texts, test_texts):
    def key(t): return " ".join(t.lower().split())
    return [i for i, t in enumerate(test_texts) if any(key(t) in key(u) for u in train_texts)]


@wrong("leaks", "texts-not-numbers")
def the_texts(train_texts, test_texts): return [test_texts[i] for i in by_words(train_texts, test_texts)]


@wrong("leaks")
def without_marks(train_texts, test_texts):
    def key(t): return tuple(re.findall(r"\w+", t.lower()))
    seen = set(map(key, train_texts))
    return [i for i, t in enumerate(test_texts) if key(t) in seen]


@wrong("leaks")
def by_bags(train_texts, test_texts):
    seen = [collections.Counter(t.lower().split()) for t in train_texts]
    return [i for i, t in enumerate(test_texts) if collections.Counter(t.lower().split()) in seen]
