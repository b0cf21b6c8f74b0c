"""Answers to the exercises of lesson 3, as students write them: right ones in several styles, and
each mistake in another style than the bank has it."""

import random

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

# ---- causal_labels


def labels_fill(input_ids, attention_mask):
    return input_ids.masked_fill(attention_mask == 0, -100)


def labels_lists(input_ids, attention_mask):
    both = zip(input_ids.tolist(), attention_mask.tolist())
    return [[token if real else -100 for token, real in zip(*pair)] for pair in both]


def labels_numpy(input_ids, attention_mask):
    return np.where(attention_mask.numpy() == 1, input_ids.numpy(), -100)


def labels_first_left_out(input_ids, attention_mask):
    labels = input_ids.clone()
    labels[~attention_mask.bool()] = -100
    for row, real in zip(labels, attention_mask):
        row[real.nonzero()[0]] = -100
    return labels


def l_rolled(input_ids, attention_mask):
    labels = torch.roll(labels_fill(input_ids, attention_mask), -1, dims=1)
    labels[:, -1] = -100
    return labels


def l_right(input_ids, attention_mask):
    labels = torch.full_like(input_ids, -100)
    labels[:, 1:] = labels_fill(input_ids, attention_mask)[:, :-1]
    return labels


def l_copy(input_ids, attention_mask):
    return [row.clone() for row in input_ids]


def l_by_id(input_ids, attention_mask):
    labels = input_ids.numpy().copy()
    if (attention_mask == 0).any():
        pad = input_ids[attention_mask == 0][0].item()
        labels[labels == pad] = -100
    return labels


def l_inverted(input_ids, attention_mask):
    return torch.where(attention_mask.bool(), -100, input_ids)


def l_zeros(input_ids, attention_mask):
    return input_ids * attention_mask


def l_minus_one(input_ids, attention_mask):
    return input_ids * attention_mask - (1 - attention_mask)


def l_one_pad(input_ids, attention_mask):
    keep = attention_mask.clone()
    keep[:, 1:] |= attention_mask[:, :-1]
    return input_ids.masked_fill(keep == 0, -100)


def l_last(input_ids, attention_mask):
    after = torch.cat([attention_mask[:, 1:], torch.zeros_like(attention_mask[:, :1])], 1)
    return input_ids.masked_fill((attention_mask & after) == 0, -100)


# ---- causal_loss


def loss_cross_entropy(logits, labels):
    return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def loss_gather(logits, labels):
    logprobs, targets = logits[:, :-1].log_softmax(-1), labels[:, 1:]
    scored = targets != -100
    nats = -logprobs.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return nats[scored].mean()


def loss_loops(logits, labels):
    nats = []
    for row, targets in zip(logits, labels):
        for t in range(1, len(targets)):
            if targets[t] != -100:
                nats.append(torch.logsumexp(row[t - 1], 0) - row[t - 1, targets[t]])
    return sum(nats) / len(nats)


def loss_sum(logits, labels):
    moved = torch.cat([labels[:, 1:], labels.new_full((len(labels), 1), -100)], 1)
    total = cross_entropy(logits.transpose(1, 2), moved, reduction="sum")
    return total / (moved != -100).sum()


def c_plain(logits, labels):
    return cross_entropy(logits.flatten(0, 1), labels.flatten())


def c_back(logits, labels):
    return cross_entropy(logits[:, 1:].transpose(1, 2), labels[:, :-1])


def c_twice(logits, labels):
    return cross_entropy(logits[:, :-2].flatten(0, 1), labels[:, 2:].flatten())


def c_flat(logits, labels):
    vocab = logits.shape[-1]
    return cross_entropy(logits.reshape(-1, vocab)[:-1], labels.reshape(-1)[1:])


def c_zero(logits, labels):
    targets = labels[:, 1:].clamp(min=0)
    return -logits[:, :-1].log_softmax(-1).gather(-1, targets[..., None]).mean()


def c_all(logits, labels):
    nats = cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")
    return nats.mean()


def c_rows(logits, labels):
    losses = [loss_cross_entropy(a[None], b[None]) for a, b in zip(logits, labels)]
    return sum(losses) / len(losses)


def c_sum(logits, labels):
    return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


def c_softmax(logits, labels):
    return loss_cross_entropy(logits.softmax(-1), labels)


def c_bits(logits, labels):
    return loss_loops(logits, labels) / np.log(2)


def c_exp(logits, labels):
    return torch.exp(loss_gather(logits, labels))


def c_item(logits, labels):
    return loss_gather(logits, labels).item()


# ---- collate


def collate_lists(rows, pad_token_id):
    n = max(len(row) for row in rows)
    return {
        "input_ids": torch.tensor([row + [pad_token_id] * (n - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (n - len(row)) for row in rows]),
        "labels": torch.tensor([row + [-100] * (n - len(row)) for row in rows]),
    }


def collate_pad_sequence(rows, pad_token_id):
    tensors = [torch.tensor(row) for row in rows]
    return dict(
        input_ids=pad_sequence(tensors, batch_first=True, padding_value=pad_token_id),
        attention_mask=pad_sequence([torch.ones_like(t) for t in tensors], batch_first=True),
        labels=pad_sequence(tensors, batch_first=True, padding_value=-100),
    )


def collate_numpy(rows, pad_token_id):
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad_token_id)
    ids[mask] = np.concatenate(rows)
    return {"input_ids": ids, "attention_mask": mask.astype(int), "labels": np.where(mask, ids, -100)}


def collate_loop(rows, pad_token_id):
    batch = {"labels": [], "attention_mask": [], "input_ids": [], "length": [len(row) for row in rows]}
    for row in rows:
        ids, labels = list(row), list(row)
        while len(ids) < max(map(len, rows)):
            ids.append(pad_token_id)
            labels.append(-100)
        labels[0] = -100
        batch["input_ids"].append(ids)
        batch["labels"].append(labels)
        batch["attention_mask"].append([i < len(row) for i in range(len(ids))])
    return batch


def k_by_id(rows, pad_token_id):
    batch = collate_lists(rows, pad_token_id)
    labels = batch["input_ids"].clone()
    labels[labels == pad_token_id] = -100
    return {**batch, "labels": labels}


def k_pads(rows, pad_token_id):
    batch = collate_numpy(rows, pad_token_id)
    return {**batch, "labels": batch["input_ids"].copy()}


def k_mask(rows, pad_token_id):
    batch = collate_pad_sequence(rows, pad_token_id)
    return {**batch, "attention_mask": (batch["input_ids"] != pad_token_id).long()}


def k_left(rows, pad_token_id):
    flipped = collate_pad_sequence([row[::-1] for row in rows], pad_token_id)
    return {name: value.flip(1) for name, value in flipped.items()}


def k_shifted(rows, pad_token_id):
    batch = collate_lists(rows, pad_token_id)
    moved = [row[1:].tolist() + [-100] for row in batch["labels"]]
    return {**batch, "labels": moved}


def k_ones(rows, pad_token_id):
    batch = collate_pad_sequence(rows, pad_token_id)
    return {**batch, "attention_mask": torch.ones_like(batch["input_ids"])}


def k_zip(rows, pad_token_id):
    ids = np.array(list(zip(*rows))).T
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": ids}


def k_zeros(rows, pad_token_id):
    batch = collate_pad_sequence(rows, pad_token_id)
    return {**batch, "labels": pad_sequence([torch.tensor(row) for row in rows], batch_first=True)}


def k_inverted(rows, pad_token_id):
    batch = collate_numpy(rows, pad_token_id)
    return {**batch, "attention_mask": 1 - batch["attention_mask"]}


# ---- mask_tokens


def mask_bernoulli(ids, special, mask_id, vocab, rate, generator):
    chosen = torch.bernoulli(torch.full(ids.shape, rate), generator=generator).bool() & ~special.bool()
    fate = torch.rand(ids.shape, generator=generator)
    read, labels = ids.clone(), ids.clone()
    labels[~chosen] = -100
    read[chosen & (fate < 0.8)] = mask_id
    swap = chosen & (fate >= 0.8) & (fate < 0.9)
    read[swap] = torch.randint(5, vocab, (int(swap.sum()),), generator=generator)
    return read, labels


def mask_halves(ids, special, mask_id, vocab, rate, generator):
    "As transformers does it: 80 %, and half of the rest."
    prob = torch.full(ids.shape, rate).masked_fill(special, 0.0)
    chosen = torch.bernoulli(prob, generator=generator).bool()
    labels = torch.where(chosen, ids, -100)
    hide = torch.bernoulli(torch.full(ids.shape, 0.8), generator=generator).bool() & chosen
    half = torch.bernoulli(torch.full(ids.shape, 0.5), generator=generator).bool()
    swap = half & chosen & ~hide
    words = torch.randint(vocab, ids.shape, generator=generator)
    return torch.where(hide, mask_id, torch.where(swap, words, ids)), labels


def exact(ids, special, rate, generator, rounding=round):
    for row, out in zip(ids, special):
        places = (~out.bool()).nonzero().flatten()
        order = torch.randperm(len(places), generator=generator)
        yield row, places[order[: rounding(rate * len(places))]].tolist()


def mask_exact(ids, special, mask_id, vocab, rate, generator):
    "An exact count for each row; a draw for each chosen token."
    read, labels = [], []
    for row, places in exact(ids, special, rate, generator):
        r, la = row.tolist(), [-100] * len(row)
        for i in places:
            la[i] = r[i]
            u = torch.rand(1, generator=generator).item()
            if u < 0.8:
                r[i] = mask_id
            elif u < 0.9:
                r[i] = int(torch.randint(vocab, (1,), generator=generator))
        read.append(r)
        labels.append(la)
    return read, labels


def mask_numpy(ids, special, mask_id, vocab, rate, generator):
    rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    a, labels = ids.numpy().copy(), np.full(ids.shape, -100)
    chosen = (rng.random(a.shape) < rate) & (special.numpy() == 0)
    labels[chosen] = a[chosen]
    fate = rng.choice(3, size=a.shape, p=[0.8, 0.1, 0.1])
    a[chosen & (fate == 0)] = mask_id
    swap = chosen & (fate == 1)
    a[swap] = rng.integers(0, vocab, swap.sum())
    return a, labels


def mask_floor(ids, special, mask_id, vocab, rate, generator):
    "An exact count for each row, rounded down."
    read, labels = ids.clone(), torch.full_like(ids, -100)
    for n, (row, places) in enumerate(exact(ids, special, rate, generator, int)):
        for i in places:
            labels[n, i] = row[i]
            u = float(torch.rand((), generator=generator))
            if u < 0.9:
                read[n, i] = mask_id if u < 0.8 else torch.randint(vocab, (), generator=generator)
    return read, labels


def t_specials(ids, special, mask_id, vocab, rate, generator):
    return mask_halves(ids, torch.zeros_like(special), mask_id, vocab, rate, generator)


def t_all_labels(ids, special, mask_id, vocab, rate, generator):
    return mask_bernoulli(ids, special, mask_id, vocab, rate, generator)[0], ids.clone()


def t_labels_late(ids, special, mask_id, vocab, rate, generator):
    read, labels = mask_bernoulli(ids, special, mask_id, vocab, rate, generator)
    return read, torch.where(labels == -100, labels, read)


def t_hide_all(ids, special, mask_id, vocab, rate, generator):
    read, labels = mask_bernoulli(ids, special, mask_id, vocab, rate, generator)
    hide = torch.rand(ids.shape, generator=generator) < 0.8
    return read.masked_fill(hide & ~special, mask_id), labels


def t_changed_only(ids, special, mask_id, vocab, rate, generator):
    read, _ = mask_halves(ids, special, mask_id, vocab, rate, generator)
    return read, torch.where(read != ids, ids, -100)


def t_mask_only(ids, special, mask_id, vocab, rate, generator):
    _, labels = mask_bernoulli(ids, special, mask_id, vocab, rate, generator)
    return ids.masked_fill(labels != -100, mask_id), labels


def t_rounded_down(ids, special, mask_id, vocab, rate, generator):
    read, labels = ids.clone(), torch.full_like(ids, -100)
    for n, (row, places) in enumerate(exact(ids, special, rate, generator)):
        labels[n, places] = row[places]
        read[n, places[: int(0.8 * len(places))]] = mask_id
    return read, labels


def t_tenth_of_rest(ids, special, mask_id, vocab, rate, generator):
    chosen = (torch.rand(ids.shape, generator=generator) < rate) & ~special
    hide = chosen & (torch.rand(ids.shape, generator=generator) < 0.8)
    swap = chosen & ~hide & (torch.rand(ids.shape, generator=generator) < 0.1)
    words = torch.randint(vocab, ids.shape, generator=generator)
    return torch.where(hide, mask_id, torch.where(swap, words, ids)), torch.where(chosen, ids, -100)


def t_15(ids, special, mask_id, vocab, rate, generator):
    return mask_halves(ids, special, mask_id, vocab, 0.15, generator)


def t_of_length(ids, special, mask_id, vocab, rate, generator):
    read, labels = ids.clone(), torch.full_like(ids, -100)
    for n, row in enumerate(ids):
        places = (special[n] == 0).nonzero().flatten()
        order = torch.randperm(len(places), generator=generator)[: round(rate * len(row))]
        for i in places[order].tolist():
            labels[n, i] = row[i]
            u = float(torch.rand((), generator=generator))
            if u < 0.9:
                read[n, i] = mask_id if u < 0.8 else torch.randint(vocab, (), generator=generator)
    return read, labels


def t_global(ids, special, mask_id, vocab, rate, generator):
    read, labels = ids.tolist(), [[-100] * len(row) for row in ids]
    for row, new, out in zip(read, labels, special.tolist()):
        for i, skip in enumerate(out):
            if skip or random.random() >= rate:
                continue
            new[i], u = row[i], random.random()
            if u < 0.9:
                row[i] = mask_id if u < 0.8 else random.randrange(vocab)
    return read, labels


def t_zero(ids, special, mask_id, vocab, rate, generator):
    read, labels = mask_halves(ids, special, mask_id, vocab, rate, generator)
    return read, labels * (labels != -100)


def t_minus_one(ids, special, mask_id, vocab, rate, generator):
    read, labels = mask_exact(ids, special, mask_id, vocab, rate, generator)
    return read, [[max(label, -1) for label in row] for row in labels]


def t_alike(ids, special, mask_id, vocab, rate, generator):
    column = torch.rand(ids.shape[1], generator=generator) < rate
    chosen = column.expand(ids.shape) & ~special
    fate = torch.rand(ids.shape, generator=generator)
    words = torch.randint(vocab, ids.shape, generator=generator)
    read = torch.where(chosen & (fate < 0.8), mask_id, ids)
    return torch.where(chosen & (fate >= 0.9), words, read), torch.where(chosen, ids, -100)


# ---- whole_word_mask


def words_dict(word_ids, rate, generator):
    toss = {}
    for word in word_ids:
        if word is not None and word not in toss:
            toss[word] = torch.rand(1, generator=generator).item() < rate
    return [word is not None and toss[word] for word in word_ids]


def words_vector(word_ids, rate, generator):
    n = 1 + max(w for w in word_ids if w is not None)
    chosen = torch.rand(n, generator=generator) < rate
    ids = torch.tensor([-1 if w is None else w for w in word_ids])
    return chosen[ids] & (ids >= 0)


def words_sample(word_ids, rate, generator):
    "An exact count."
    words = sorted({w for w in word_ids if w is not None})
    order = torch.randperm(len(words), generator=generator).tolist()
    chosen = {words[i] for i in order[: round(rate * len(words))]}
    return np.array([w in chosen for w in word_ids])


def words_neighbours(word_ids, rate, generator):
    mask, heads = [], False
    for i, word in enumerate(word_ids):
        if word is not None and word != word_ids[i - 1]:
            heads = bool(torch.bernoulli(torch.tensor(rate), generator=generator))
        mask.append(int(word is not None and heads))
    return mask


def w_pieces(word_ids, rate, generator):
    tossed = torch.rand(len(word_ids), generator=generator).tolist()
    return [u < rate and w is not None for u, w in zip(tossed, word_ids)]


def w_any(word_ids, rate, generator):
    hit = {w for w, piece in zip(word_ids, w_pieces(word_ids, rate, generator)) if piece}
    return [w in hit for w in word_ids]


def w_first(word_ids, rate, generator):
    mask = words_dict(word_ids, rate, generator)
    return [yes and w not in word_ids[:i] for i, (yes, w) in enumerate(zip(mask, word_ids))]


def w_none(word_ids, rate, generator):
    tossed = {w: torch.rand(1, generator=generator).item() < rate for w in set(word_ids)}
    return [tossed[w] for w in word_ids]


def w_inverted(word_ids, rate, generator):
    return [w is not None and not y for w, y in zip(word_ids, words_dict(word_ids, rate, generator))]


def w_15(word_ids, rate, generator):
    return words_sample(word_ids, 0.15, generator)


def w_global(word_ids, rate, generator):
    words = {w: np.random.random() < rate for w in word_ids}
    return [w is not None and words[w] for w in word_ids]


# ---- hide_words


def hide_loop(input_ids, word_ids, chosen, mask_token_id):
    read, labels = [], []
    for token, word in zip(input_ids, word_ids):
        hit = word is not None and word in chosen
        read.append(mask_token_id if hit else token)
        labels.append(token if hit else -100)
    return read, labels


def hide_numpy(input_ids, word_ids, chosen, mask_token_id):
    hit = np.isin([-1 if w is None else w for w in word_ids], chosen)
    return np.where(hit, mask_token_id, input_ids), np.where(hit, input_ids, -100)


def hide_tensor(input_ids, word_ids, chosen, mask_token_id):
    ids = torch.tensor(input_ids)
    hit = torch.tensor([w in set(chosen) for w in word_ids])
    return [ids.masked_fill(hit, mask_token_id), ids.masked_fill(~hit, -100)]


def hide_mapping(input_ids, word_ids, chosen, mask_token_id):
    places = {}
    for i, word in enumerate(word_ids):
        places.setdefault(word, []).append(i)
    read, labels = list(input_ids), [-100] * len(input_ids)
    for word in chosen:
        for i in places[word]:
            labels[i], read[i] = read[i], mask_token_id
    return read, labels


def h_unused(input_ids, word_ids, chosen, mask_token_id):
    read, _ = hide_mapping(input_ids, word_ids, chosen, mask_token_id)
    return read, list(input_ids)


def h_late(input_ids, word_ids, chosen, mask_token_id):
    read = hide_tensor(input_ids, word_ids, chosen, mask_token_id)[0]
    return read, [t if t == mask_token_id else -100 for t in read.tolist()]


def h_first(input_ids, word_ids, chosen, mask_token_id):
    read, labels = list(input_ids), [-100] * len(input_ids)
    for word in chosen:
        i = word_ids.index(word)
        labels[i], read[i] = read[i], mask_token_id
    return read, labels


def h_places(input_ids, word_ids, chosen, mask_token_id):
    read, labels = np.array(input_ids), np.full(len(input_ids), -100)
    for i in chosen:
        if word_ids[i] is not None:
            labels[i], read[i] = read[i], mask_token_id
    return read, labels


RIGHT = {
    "causal_labels": [labels_fill, labels_lists, labels_numpy, labels_first_left_out],
    "causal_loss": [loss_cross_entropy, loss_gather, loss_loops, loss_sum],
    "collate": [collate_lists, collate_pad_sequence, collate_numpy, collate_loop],
    "mask_tokens": [mask_bernoulli, mask_halves, mask_exact, mask_numpy, mask_floor],
    "whole_word_mask": [words_dict, words_vector, words_sample, words_neighbours],
    "hide_words": [hide_loop, hide_numpy, hide_tensor, hide_mapping],
}

WRONG = {
    "causal_labels": [
        ("shifted", l_rolled),
        ("shifted-right", l_right),
        ("pads-scored", l_copy),
        ("ends-lost", l_by_id),
        ("inverted", l_inverted),
        ("zeros", l_zeros),
        ("minus-one", l_minus_one),
        ("one-pad-scored", l_one_pad),
        ("last-lost", l_last),
    ],
    "causal_loss": [
        ("not-shifted", c_plain),
        ("shifted-back", c_back),
        ("shifted-twice", c_twice),
        ("across-rows", c_flat),
        ("ignored-as-zero", c_zero),
        ("divided-by-all", c_all),
        ("mean-of-rows", c_rows),
        ("summed", c_sum),
        ("softmax-twice", c_softmax),
        ("without-gradient", c_item),
        ("bits", c_bits),
        ("perplexity", c_exp),
    ],
    "collate": [
        ("ends-lost", k_by_id),
        ("pads-scored", k_pads),
        ("mask-by-id", k_mask),
        ("left-padded", k_left),
        ("shifted", k_shifted),
        ("all-seen", k_ones),
        ("cut-to-shortest", k_zip),
        ("inverted", k_inverted),
        ("zeros", k_zeros),
    ],
    "mask_tokens": [
        ("specials-chosen", t_specials),
        ("all-labelled", t_all_labels),
        ("masked-labels", t_labels_late),
        ("80-of-all", t_hide_all),
        ("kept-ignored", t_changed_only),
        ("only-hidden", t_mask_only),
        ("never-swapped", t_rounded_down),
        ("of-the-rest", t_tenth_of_rest),
        ("always-15", t_15),
        ("specials-counted", t_of_length),
        ("not-from-generator", t_global),
        ("same-in-rows", t_alike),
        ("not-minus-100", t_zero),
        ("not-minus-100", t_minus_one),
    ],
    "whole_word_mask": [
        ("by-piece", w_pieces),
        ("any-piece", w_any),
        ("first-piece", w_first),
        ("specials-chosen", w_none),
        ("kept-for-hidden", w_inverted),
        ("always-15", w_15),
        ("not-from-generator", w_global),
    ],
    "hide_words": [
        ("all-labelled", h_unused),
        ("masked-labels", h_late),
        ("first-piece", h_first),
        ("by-token", h_places),
    ],
}
