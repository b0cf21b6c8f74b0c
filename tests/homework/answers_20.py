"""Answers to the exercises of lesson 2, as students write them: right ones in several styles, and
each mistake in another style than the bank has it."""

import itertools, math, random

import numpy as np
import torch

# ---- chunk


def chunk_loop(docs, chunk_size, eos):
    rows, row = [], []
    for doc in docs:
        if len(doc) == 0:
            continue
        for token in [*doc, eos]:
            row.append(token)
            if len(row) == chunk_size:
                rows.append(row)
                row = []
    return rows


def chunk_arrays(docs, chunk_size, eos):
    parts = [np.append(doc, eos) for doc in docs if len(doc)]
    ids = np.concatenate(parts).astype(int) if parts else np.zeros(0, int)
    n = len(ids) // chunk_size
    return ids[: n * chunk_size].reshape(n, chunk_size)


def chunk_tensors(docs, chunk_size, eos):
    ids = torch.tensor([t for doc in docs if doc for t in doc + [eos]], dtype=torch.long)
    return list(ids.split(chunk_size))[: len(ids) // chunk_size]


def chunk_zip(docs, chunk_size, eos):
    stream = itertools.chain.from_iterable((*doc, eos) for doc in docs if doc)
    return list(zip(*[iter(stream)] * chunk_size))


def chunk_generator(docs, chunk_size, eos):
    stream = sum((list(d) + [eos] for d in docs if d), [])
    while len(stream) >= chunk_size:
        yield stream[:chunk_size]
        stream = stream[chunk_size:]


def full(ids, size):
    return [list(ids[i * size : (i + 1) * size]) for i in range(len(ids) // size)]


def each_by_itself(docs, chunk_size, eos):
    rows = []
    for doc in docs:
        if doc:
            ids = np.array(doc + [eos])
            rows.extend(ids[: len(ids) // chunk_size * chunk_size].reshape(-1, chunk_size).tolist())
    return rows


def nothing_between(docs, chunk_size, eos):
    return full(list(itertools.chain(*docs)), chunk_size)


def joined_with(docs, chunk_size, eos):
    ids = []
    for n, doc in enumerate(d for d in docs if d):
        ids += ([eos] if n else []) + doc
    return full(ids, chunk_size)


def one_row_early(docs, chunk_size, eos):
    ids = [t for d in docs if d for t in d + [eos]]
    return [ids[i : i + chunk_size] for i in range(0, len(ids) - chunk_size, chunk_size)]


def in_front(docs, chunk_size, eos):
    return full(np.concatenate([[0]] + [[eos, *d] for d in docs if d])[1:].astype(int).tolist(), chunk_size)


def empty_ones_too(docs, chunk_size, eos):
    return full([t for d in docs for t in (*d, eos)], chunk_size)


def cut_off(docs, chunk_size, eos):
    return full([t for d in docs if d for t in [*itertools.islice(d, chunk_size), eos]], chunk_size)


def truncation(docs, chunk_size, eos):
    return [np.append(doc, eos)[:chunk_size].tolist() for doc in docs if len(doc)]


def truncation_without_eos(docs, chunk_size, eos):
    return [list(itertools.islice(doc, chunk_size)) for doc in docs if doc]


def ragged(docs, chunk_size, eos):
    ids = torch.tensor([t for d in docs if d for t in d + [eos]], dtype=torch.long)
    return [part.tolist() for part in ids.split(chunk_size) if len(part)]


def filled_up(docs, chunk_size, eos):
    ids = [t for d in docs if d for t in d + [eos]]
    while len(ids) % chunk_size:
        ids.append(eos)
    return np.array(ids, dtype=int).reshape(-1, chunk_size)


def if_long_enough(docs, chunk_size, eos):
    ids = [t for d in docs if d for t in d + [eos]]
    total = len(ids)
    if total >= chunk_size:
        total = total // chunk_size * chunk_size
    return [ids[i : min(i + chunk_size, total)] for i in range(0, total, chunk_size)]


# ---- windows


def windows_while(ids, chunk_size, stride):
    rows, start = [], 0
    while start + chunk_size <= len(ids):
        rows.append(tuple(ids[start : start + chunk_size]))
        start += stride
    return rows


def windows_view(ids, chunk_size, stride):
    if len(ids) < chunk_size:
        return []
    return np.lib.stride_tricks.sliding_window_view(ids, chunk_size)[::stride]


def windows_unfold(ids, chunk_size, stride):
    ids = torch.tensor(ids)
    return ids.unfold(0, chunk_size, stride) if len(ids) >= chunk_size else ids.new_empty(0, chunk_size)


def windows_comprehension(ids, chunk_size, stride):
    starts = range(0, len(ids) - chunk_size + 1, stride)
    return [[ids[i + j] for j in range(chunk_size)] for i in starts]


def view(ids, size, step):
    return np.lib.stride_tricks.sliding_window_view(ids, size)[::step] if len(ids) >= size else []


def w_last_lost(ids, chunk_size, stride):
    rows, start = [], 0
    while start + chunk_size < len(ids):
        rows.append(ids[start : start + chunk_size])
        start += stride
    return rows


def w_short(ids, chunk_size, stride):
    return [ids[i : i + chunk_size] for i, _ in enumerate(ids) if i % stride == 0]


def w_overlap(ids, chunk_size, stride):
    return windows_comprehension(ids, chunk_size, chunk_size - stride)


def w_plus_one(ids, chunk_size, stride):
    return view(ids, chunk_size, stride + 1)


def w_side_by_side(ids, chunk_size, stride):
    return list(zip(*[iter(ids)] * chunk_size))


def w_covering(ids, chunk_size, stride):
    rows, start = [], 0
    while start + chunk_size <= len(ids):
        rows.append(ids[start : start + chunk_size])
        start += stride
    if rows and start - stride + chunk_size < len(ids):
        rows.append(ids[len(ids) - chunk_size :])
    return rows


def w_longer(ids, chunk_size, stride):
    return view(ids, chunk_size + 1, stride)


# ---- split_and_chunk


def split_first(docs, chunk_size, eos, n_valid, seed):
    return chunk_loop(docs[n_valid:], chunk_size, eos), chunk_loop(docs[:n_valid], chunk_size, eos)


def split_last(docs, chunk_size, eos, n_valid, seed):
    order = np.random.default_rng(seed).permutation(len(docs))
    train, valid = order[:-n_valid], order[-n_valid:]
    return [chunk_arrays([docs[i] for i in side], chunk_size, eos) for side in (train, valid)]


def split_sample(docs, chunk_size, eos, n_valid, seed):
    chosen = random.Random(seed).sample(range(len(docs)), n_valid)
    train = [doc for i, doc in enumerate(docs) if i not in chosen]
    return chunk_tensors(train, chunk_size, eos), chunk_tensors([docs[i] for i in chosen], chunk_size, eos)


def split_torch(docs, chunk_size, eos, n_valid, seed):
    order = torch.randperm(len(docs), generator=torch.Generator().manual_seed(seed)).tolist()
    valid = sorted(order[:n_valid])
    train = sorted(order[n_valid:])
    return chunk_zip([docs[i] for i in train], chunk_size, eos), chunk_zip(
        [docs[i] for i in valid], chunk_size, eos
    )


def s_rows(docs, chunk_size, eos, n_valid, seed):
    rows = chunk_loop(docs, chunk_size, eos)
    np.random.default_rng(seed).shuffle(rows)
    return rows[n_valid:], rows[:n_valid]


def s_all_in_train(docs, chunk_size, eos, n_valid, seed):
    valid = random.Random(seed).sample(docs, n_valid)
    return chunk_loop(docs, chunk_size, eos), chunk_loop(valid, chunk_size, eos)


def s_swapped(docs, chunk_size, eos, n_valid, seed):
    return split_last(docs, chunk_size, eos, n_valid, seed)[::-1]


def s_one_lost(docs, chunk_size, eos, n_valid, seed):
    order = np.random.RandomState(seed).permutation(len(docs))
    sides = order[n_valid + 1 :], order[:n_valid]
    return [chunk_loop([docs[i] for i in side], chunk_size, eos) for side in sides]


def s_no_seed(docs, chunk_size, eos, n_valid, seed):
    order = torch.randperm(len(docs)).tolist()
    sides = order[n_valid:], order[:n_valid]
    return [chunk_loop([docs[i] for i in side], chunk_size, eos) for side in sides]


def s_with(cut):
    def split(docs, chunk_size, eos, n_valid, seed):
        order = np.random.default_rng(seed + 5).permutation(len(docs))
        sides = order[n_valid:], order[:n_valid]
        return [cut([docs[i] for i in side], chunk_size, eos) for side in sides]

    return split


# ---- pack


def pack_ffd(lengths, chunk_size):
    order = np.argsort(lengths)[::-1]
    rows, room = [], []
    for i in order:
        for r in range(len(rows)):
            if room[r] >= lengths[i]:
                break
        else:
            rows.append([])
            room.append(chunk_size)
            r = len(rows) - 1
        rows[r].append(i)
        room[r] -= lengths[i]
    return rows


def pack_bfd(lengths, chunk_size):
    rows = []
    for n, i in sorted(((n, i) for i, n in enumerate(lengths)), reverse=True):
        fitting = [row for row in rows if sum(lengths[j] for j in row) + n <= chunk_size]
        if fitting:
            max(fitting, key=lambda row: sum(lengths[j] for j in row)).append(i)
        else:
            rows.append([i])
    return [tuple(row) for row in rows]


def pack_tensor(lengths, chunk_size):
    return [torch.tensor(row) for row in reversed(pack_bfd(lengths, chunk_size))]


def pack_search(lengths, chunk_size):
    "The fewest rows, found by trying."
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    best = [[i] for i in order]

    def place(k, rows):
        nonlocal best
        if len(rows) >= len(best) or len(best) == math.ceil(sum(lengths) / chunk_size):
            return
        if k == len(order):
            best = [list(row) for row in rows]
            return
        for row in [*rows, []]:
            if sum(lengths[j] for j in row) + lengths[order[k]] <= chunk_size:
                new = not row
                row.append(order[k])
                place(k + 1, rows + [row] if new else rows)
                row.pop()

    place(0, [])
    return best


def greedy(numbers, lengths, size, fits, only_last=False):
    rows = []
    for n in numbers:
        for row in rows[-1:] if only_last else rows:
            if fits(sum(lengths[m] for m in row) + lengths[n], size):
                row.append(n)
                break
        else:
            rows.append([n])
    return rows


def at_most(total, size):
    return total <= size


def p_unsorted(lengths, chunk_size):
    return greedy(range(len(lengths)), lengths, chunk_size, at_most)


def p_shortest(lengths, chunk_size):
    return greedy(np.argsort(lengths).tolist(), lengths, chunk_size, at_most)


def p_next_fit(lengths, chunk_size):
    rows, row, used = [], [], 0
    for i, n in enumerate(lengths):
        if used + n > chunk_size:
            rows.append(row)
            row, used = [], 0
        row.append(i)
        used += n
    return rows + [row]


def p_never_full(lengths, chunk_size):
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    return greedy(order, lengths, chunk_size, lambda total, size: total < size)


def p_too_full(lengths, chunk_size):
    rows, used = [[]], 0
    for i, n in enumerate(lengths):
        rows[-1].append(i)
        used += n
        if used >= chunk_size:
            rows.append([])
            used = 0
    return [row for row in rows if row]


def p_emptiest(lengths, chunk_size):
    rows, room = [], []
    for n in np.argsort(lengths)[::-1].tolist():
        if not room or max(room) < lengths[n]:
            rows.append([])
            room.append(chunk_size)
        i = int(np.argmax(room))
        rows[i].append(n)
        room[i] -= lengths[n]
    return rows


def p_from_one(lengths, chunk_size):
    return [np.array(row) + 1 for row in pack_bfd(lengths, chunk_size)]


def p_lengths(lengths, chunk_size):
    return [[lengths[i] for i in row] for row in pack_bfd(lengths, chunk_size)]


def p_sorted_numbers(lengths, chunk_size):
    return pack_ffd(sorted(lengths, reverse=True), chunk_size)


def p_one_each(lengths, chunk_size):
    return np.arange(len(lengths))[:, None]


def p_lost(lengths, chunk_size):
    return p_next_fit(lengths, chunk_size)[:-1]


# ---- segment_mask


def mask_tensor(segment_ids):
    s = torch.as_tensor(segment_ids)
    mask = (s[:, None] == s[None]) & (s[:, None] != 0)
    return mask.tril() | torch.eye(len(s), dtype=torch.bool)


def mask_numpy(segment_ids):
    s = np.asarray(segment_ids)
    mask = np.tril(np.equal.outer(s, s))
    mask[s == 0] = False
    np.fill_diagonal(mask, True)
    return mask


def mask_loops(segment_ids):
    s = list(segment_ids)
    return [
        [bool(i == j or (j < i and s[i] == s[j] and s[i] > 0)) for j in range(len(s))] for i in range(len(s))
    ]


def mask_blocks(segment_ids):
    s, n = [int(x) for x in segment_ids], len(segment_ids)
    mask = [[0] * n for _ in range(n)]
    for i in range(n):
        mask[i][i] = 1
        j = i
        while s[i] and j >= 0:
            mask[i][j] = int(s[i] == s[j])
            j -= 1
    return mask


def m_later(segment_ids):
    s = np.asarray(segment_ids)
    return (s[:, None] == s) & (s != 0) | np.eye(len(s), dtype=bool)


def m_upside(segment_ids):
    return mask_numpy(segment_ids).T


def m_not_itself(segment_ids):
    s = segment_ids.tolist()
    n = range(len(s))
    return [[j < i and s[i] == s[j] > 0 or i == j and s[i] == 0 for j in n] for i in n]


def m_all(segment_ids):
    s = torch.as_tensor(segment_ids)
    real = (s != 0)[:, None] & (s != 0)
    return (torch.ones(len(s), len(s)).tril().bool() & real) | torch.eye(len(s)).bool()


def m_pads(segment_ids):
    s = np.asarray(segment_ids)
    return np.tril(s[:, None] == s)


def m_blind_pads(segment_ids):
    s = np.asarray(segment_ids)
    return np.tril(s[:, None] == s) & (s > 0)[:, None]


def m_inverted(segment_ids):
    return ~mask_tensor(segment_ids)


def m_additive(segment_ids):
    mask = mask_tensor(segment_ids)
    return torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))


def m_additive_finite(segment_ids):
    return np.where(mask_numpy(segment_ids), 0.0, -1e9)


# ---- inputs_and_targets


def pairs_zip(ids, length):
    pairs = []
    for start in range(0, len(ids), length):
        x, y = ids[start : start + length], ids[start + 1 : start + 1 + length]
        if len(y) == length:
            pairs.append([x, y])
    return pairs


def pairs_arrays(ids, length):
    n = (len(ids) - 1) // length
    x = np.array(ids[: n * length]).reshape(n, length)
    y = np.array(ids[1 : n * length + 1]).reshape(n, length)
    return zip(x, y)


def pairs_tensors(ids, length):
    ids = torch.tensor(ids)
    if len(ids) <= length:
        return []
    rows = ids.unfold(0, length + 1, length)
    return [(row[:-1], row[1:]) for row in rows]


def pairs_range(ids, length):
    starts = range(0, len(ids) - length, length)
    return tuple((ids[i : i + length], [ids[j + 1] for j in range(i, i + length)]) for i in starts)


def b_step(ids, length):
    rows = []
    for start in range(0, len(ids) - length, length + 1):
        window = ids[start : start + length + 1]
        rows.append((window[:-1], window[1:]))
    return rows


def b_each(ids, length):
    windows = [ids[i : i + length + 1] for i in range(len(ids) - length)]
    return [(w[:-1], w[1:]) for w in windows]


def b_same(ids, length):
    return [(x, x) for x, _ in pairs_zip(ids, length)]


def b_last(ids, length):
    return [(x.tolist(), y.tolist()) for x, y in pairs_tensors(ids[:-1], length)]


RIGHT = {
    "chunk": [chunk_loop, chunk_arrays, chunk_tensors, chunk_zip, chunk_generator],
    "windows": [windows_while, windows_view, windows_unfold, windows_comprehension],
    "split_and_chunk": [split_first, split_last, split_sample, split_torch],
    "pack": [pack_ffd, pack_bfd, pack_tensor, pack_search],
    "segment_mask": [mask_tensor, mask_numpy, mask_loops, mask_blocks],
    "inputs_and_targets": [pairs_zip, pairs_arrays, pairs_tensors, pairs_range],
}

WRONG = {
    "chunk": [
        ("tail-per-document", each_by_itself),
        ("no-eos", nothing_between),
        ("last-row-lost or no-last-eos", joined_with),
        ("last-row-lost or no-last-eos", one_row_early),
        ("one-row-each", truncation),
        ("one-row-each", truncation_without_eos),
        ("eos-first", in_front),
        ("eos-for-empty", empty_ones_too),
        ("truncated", cut_off),
        ("tail-kept", ragged),
        ("tail-padded", filled_up),
        ("short-text-kept", if_long_enough),
    ],
    "windows": [
        ("last-window-lost", w_last_lost),
        ("short-windows", w_short),
        ("stride-as-overlap", w_overlap),
        ("stride-plus-one", w_plus_one),
        ("stride-ignored", w_side_by_side),
        ("up-to-the-end", w_covering),
        ("one-longer", w_longer),
    ],
    "split_and_chunk": [
        ("split-after-chunking", s_rows),
        ("valid-in-train", s_all_in_train),
        ("sides-swapped", s_swapped),
        ("documents-lost", s_one_lost),
        ("seed-ignored", s_no_seed),
        ("tail-per-document", s_with(each_by_itself)),
        ("no-eos", s_with(nothing_between)),
        ("tail-kept", s_with(ragged)),
        ("last-row-lost", s_with(one_row_early)),
    ],
    "pack": [
        ("unsorted", p_unsorted),
        ("shortest-first", p_shortest),
        ("next-fit", p_next_fit),
        ("never-full", p_never_full),
        ("too-full", p_too_full),
        ("lengths-for-numbers", p_lengths),
        ("numbers-after-sorting", p_sorted_numbers),
        ("one-per-row", p_one_each),
        ("emptiest-row", p_emptiest),
        ("from-one", p_from_one),
        ("documents-lost", p_lost),
    ],
    "segment_mask": [
        ("later-seen", m_later),
        ("upside-down", m_upside),
        ("not-itself", m_not_itself),
        ("all-segments", m_all),
        ("pads-see-pads", m_pads),
        ("pads-see-nothing", m_blind_pads),
        ("inverted", m_inverted),
        ("additive", m_additive),
        ("additive", m_additive_finite),
    ],
    "inputs_and_targets": [
        ("step-too-long", b_step),
        ("one-by-one", b_each),
        ("not-shifted", b_same),
        ("last-lost", b_last),
    ],
}
