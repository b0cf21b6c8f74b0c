"""Answers to the exercises of lesson 7, as students write them: right ones in several styles, and
each mistake in another style than the bank has it."""

import itertools, math, re
from collections import Counter, OrderedDict

import numpy as np
import torch

# ---- bpe_merges


def counts(words):
    "Pairs of split words, a dictionary tuple of parts -> count."
    pairs = Counter()
    for parts, n in words.items():
        for a, b in zip(parts[:-1], parts[1:]):
            pairs[a, b] += n
    return pairs


def join(parts, pair):
    out = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
            out.append(None)
        else:
            if out and out[-1] is None:
                out.pop()
            out.append(part)
    return tuple(part for part in out if part is not None)


def glue(parts, pair):
    out, i = [], 0
    while i < len(parts):
        if i + 1 < len(parts) and (parts[i], parts[i + 1]) == pair:
            out.append(parts[i] + parts[i + 1])
            i += 2
        else:
            out.append(parts[i])
            i += 1
    return tuple(out)


def learn(words, n_merges, count=counts, merge=glue, best=None):
    best = best or (lambda pairs: min(pairs, key=lambda pair: (-pairs[pair], pair)))
    split = [(tuple(word), n) for word, n in words.items()]
    merges = []
    for _ in range(n_merges):
        pairs = Counter()
        for parts, n in split:
            pairs.update(count({parts: n}))
        if not pairs:
            break
        pair = best(pairs)
        merges.append(pair)
        split = [(merge(parts, pair), n) for parts, n in split]
    return merges


def merges_counter(words, n_merges):
    return learn(words, n_merges)


def merges_sorted(words, n_merges):
    tokens = {word: list(word) for word in words}
    found = []
    while len(found) < n_merges:
        table = {}
        for word, parts in tokens.items():
            for i in range(len(parts) - 1):
                pair = parts[i], parts[i + 1]
                table[pair] = table.get(pair, 0) + words[word]
        if len(table) == 0:
            return found
        pair = sorted(table.items(), key=lambda item: (-item[1], item[0]))[0][0]
        found.append(list(pair))
        tokens = {word: list(join(parts, pair)) for word, parts in tokens.items()}
    return found


def merges_regex(words, n_merges):
    "As Sennrich et al. do it: words as text, with guards on both sides."
    vocab, merges = {" ".join(word): n for word, n in words.items()}, []
    for _ in range(n_merges):
        pairs = counts({tuple(text.split()): n for text, n in vocab.items()})
        if not pairs:
            break
        most = max(pairs.values())
        pair = min(p for p in pairs if pairs[p] == most)
        pattern = re.compile(r"(?<!\S)" + re.escape(" ".join(pair)) + r"(?!\S)")
        joined = "".join(pair)
        vocab = {pattern.sub(joined, text): n for text, n in vocab.items()}
        merges.append(pair)
    return merges


def merges_ids(words, n_merges):
    "Numbers for tokens, as in minbpe."
    names = sorted({c for word in words for c in word})
    rows = [([names.index(c) for c in word], n) for word, n in words.items()]
    merges = np.empty((0, 2), dtype=object)
    for _ in range(n_merges):
        pairs = Counter()
        for ids, n in rows:
            for pair in zip(ids, ids[1:]):
                pairs[pair] += n
        if not pairs:
            break
        a, b = min(pairs, key=lambda p: (-pairs[p], names[p[0]], names[p[1]]))
        names.append(names[a] + names[b])
        merges = np.vstack([merges, [[names[a], names[b]]]])
        for ids, _ in rows:
            i = 0
            while i < len(ids) - 1:
                if ids[i] == a and ids[i + 1] == b:
                    ids[i : i + 2] = [len(names) - 1]
                i += 1
    return merges.tolist()


def m_once(words, n_merges):
    return learn(dict.fromkeys(words, 1), n_merges)


def m_most_common(words, n_merges):
    return learn(words, n_merges, best=lambda pairs: pairs.most_common(1)[0][0])


def m_max(words, n_merges):
    return learn(words, n_merges, best=lambda pairs: max((n, pair) for pair, n in pairs.items())[1])


def m_apart(words, n_merges):
    def count(split):
        pairs = Counter()
        for parts, n in split.items():
            i, last = 0, None
            while i < len(parts) - 1:
                pair = parts[i], parts[i + 1]
                if pair == last:
                    last = None
                else:
                    pairs[pair] += n
                    last = pair
                i += 1
        return pairs

    return learn(words, n_merges, count=count)


def m_right(words, n_merges):
    def merge(parts, pair):
        return tuple(part[::-1] for part in glue([p[::-1] for p in parts[::-1]], flipped(pair)))[::-1]

    def flipped(pair):
        return pair[1][::-1], pair[0][::-1]

    return learn(words, n_merges, merge=merge)


def m_first(words, n_merges):
    def merge(parts, pair):
        places = [i for i in range(len(parts) - 1) if parts[i : i + 2] == pair]
        if not places:
            return parts
        i = places[0]
        return parts[:i] + ("".join(pair),) + parts[i + 2 :]

    return learn(words, n_merges, merge=merge)


def m_replace(words, n_merges):
    def merge(parts, pair):
        return tuple("|".join(parts).replace("|".join(pair), "".join(pair)).split("|"))

    return learn(words, n_merges, merge=merge)


def m_static(words, n_merges):
    pairs = counts({tuple(word): n for word, n in words.items()})
    return sorted(pairs, key=lambda pair: (-pairs[pair], pair))[:n_merges]


def m_end(words, n_merges):
    split, merges = {(*word, "</w>"): n for word, n in words.items()}, []
    for _ in range(n_merges):
        pairs = counts(split)
        if not pairs:
            break
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        split = {glue(parts, merges[-1]): n for parts, n in split.items()}
    return merges


def m_strings(words, n_merges):
    return [a + b for a, b in merges_sorted(words, n_merges)]


def m_two(words, n_merges):
    split, merges = {tuple(word): n for word, n in words.items()}, []
    while len(merges) < n_merges:
        pairs = counts(split)
        pair = min(pairs, key=lambda p: (-pairs[p], p), default=None)
        if pair is None or pairs[pair] <= 1:
            break
        merges.append(pair)
        split = {glue(parts, pair): n for parts, n in split.items()}
    return merges


# ---- gpt2_parameters


def size_formula(n_layer, n_embd, vocab_size, max_length):
    return (vocab_size + max_length) * n_embd + n_layer * (12 * n_embd**2 + 13 * n_embd) + 2 * n_embd


def shapes(n_layer, w, vocab_size, max_length):
    block = [(w,), (w,), (w, 3 * w), (3 * w,), (w, w), (w,), (w,), (w,)]
    block += [(w, 4 * w), (4 * w,), (4 * w, w), (w,)]
    return [(vocab_size, w), (max_length, w), *block * n_layer, (w,), (w,)]


def size_shapes(n_layer, n_embd, vocab_size, max_length):
    return sum(math.prod(shape) for shape in shapes(n_layer, n_embd, vocab_size, max_length))


def size_meta(n_layer, n_embd, vocab_size, max_length):
    tensors = [torch.empty(shape, device="meta") for shape in shapes(n_layer, n_embd, vocab_size, max_length)]
    return torch.tensor([t.numel() for t in tensors]).sum()


def size_parts(n_layer, n_embd, vocab_size, max_length):
    def linear(a, b):
        return a * b + b

    w = np.int64(n_embd)
    attention = linear(w, 3 * w) + linear(w, w)
    network = linear(w, 4 * w) + linear(4 * w, w)
    norm = 2 * w
    total = vocab_size * w + max_length * w + norm
    for _ in range(n_layer):
        total += norm + attention + norm + network
    return total


def g_untied(n_layer, n_embd, vocab_size, max_length):
    return size_shapes(n_layer, n_embd, vocab_size, max_length) + n_embd * vocab_size


def g_positions(n_layer, n_embd, vocab_size, max_length):
    return size_shapes(n_layer, n_embd, vocab_size, 0)


def g_biases(n_layer, n_embd, vocab_size, max_length):
    w = n_embd
    return vocab_size * w + max_length * w + 2 * w + n_layer * (12 * w * w + 4 * w)


def g_norms(n_layer, n_embd, vocab_size, max_length):
    return (vocab_size + max_length) * n_embd + n_layer * (12 * n_embd * n_embd + 9 * n_embd)


def g_last(n_layer, n_embd, vocab_size, max_length):
    return (vocab_size + max_length + n_layer * (12 * n_embd + 13)) * n_embd


def g_one_norm(n_layer, n_embd, vocab_size, max_length):
    return n_embd * (vocab_size + max_length + 2 + n_layer * (12 * n_embd + 11))


def g_thin(n_layer, n_embd, vocab_size, max_length):
    w = n_embd
    block = 4 * w * w + 4 * w + 2 * (w * w + w) + 4 * w
    return w * (vocab_size + max_length + 2) + n_layer * block


def g_projection(n_layer, n_embd, vocab_size, max_length):
    return size_formula(n_layer, n_embd, vocab_size, max_length) - n_layer * (n_embd + 1) * n_embd


def g_one(n_layer, n_embd, vocab_size, max_length):
    return size_parts(1, n_embd, vocab_size, max_length)


def g_qkv(n_layer, n_embd, vocab_size, max_length):
    w = n_embd
    return w * (vocab_size + max_length + 2) + n_layer * (10 * w * w + 11 * w)


def g_rule(n_layer, n_embd, vocab_size, max_length):
    return n_embd * (vocab_size + 12 * n_layer * n_embd)


def g_1024(n_layer, n_embd, vocab_size, max_length):
    return size_shapes(n_layer, n_embd, vocab_size, 2**10)


# ---- deduplicate


def once_dict(texts):
    return list(dict.fromkeys(texts))


def once_set(texts):
    seen, kept = set(), []
    for text in texts:
        if text not in seen:
            seen.add(text)
            kept.append(text)
    return kept


def once_numpy(texts):
    _, first = np.unique(np.array(texts, dtype=object), return_index=True)
    return [texts[i] for i in sorted(first)]


def once_generator(texts):
    return (text for i, text in enumerate(texts) if texts.index(text) == i)


def once_ordered(texts):
    return OrderedDict((text, None) for text in texts).keys()


def d_sorted(texts):
    return np.unique(texts).tolist()


def d_set(texts):
    return list(set(texts))


def d_last(texts):
    return list(dict.fromkeys(texts[::-1]))[::-1]


def d_groupby(texts):
    return [text for text, _ in itertools.groupby(texts)]


def d_unique_only(texts):
    n = Counter(texts)
    return [text for text in texts if n[text] == 1]


def d_levelled(texts):
    kept = {}
    for text in texts:
        kept.setdefault(re.sub(r"\s+", " ", text).strip(), text)
    return list(kept.values())


def d_lower(texts):
    kept = {}
    for text in texts:
        kept.setdefault(text.casefold(), text)
    return list(kept.values())


def d_truthy(texts):
    return [text for text in once_set(texts) if text]


# ---- warmup_stable_decay


def wsd_min(step, warmup_steps, decay_steps, n_steps):
    return min(1.0, step / warmup_steps, (n_steps - step) / decay_steps)


def wsd_cases(step, warmup_steps, decay_steps, n_steps):
    if step < warmup_steps:
        return step / warmup_steps
    if step <= n_steps - decay_steps:
        return 1
    return 1 - (step - (n_steps - decay_steps)) / decay_steps


def wsd_interp(step, warmup_steps, decay_steps, n_steps):
    corners = [0, warmup_steps, n_steps - decay_steps, n_steps]
    return np.interp(step, corners, [0, 1, 1, 0])


def wsd_tensor(step, warmup_steps, decay_steps, n_steps):
    up, down = torch.tensor(step / warmup_steps), torch.tensor((n_steps - step) / decay_steps)
    return torch.clamp(torch.minimum(up, down), max=1)


def v_early(step, warmup_steps, decay_steps, n_steps):
    if step < warmup_steps:
        return float(1 + step) / warmup_steps
    return wsd_cases(step, warmup_steps, decay_steps, n_steps)


def v_late(step, warmup_steps, decay_steps, n_steps):
    if step < warmup_steps:
        return step / (1 + warmup_steps)
    return wsd_min(step, warmup_steps, decay_steps, n_steps)


def v_linear(step, warmup_steps, decay_steps, n_steps):
    return min(step / warmup_steps, (n_steps - step) / (n_steps - warmup_steps))


def v_zero(step, warmup_steps, decay_steps, n_steps):
    if step < warmup_steps:
        return step / warmup_steps
    return min(1, max(0, n_steps - 1 - step) / decay_steps)


def v_above(step, warmup_steps, decay_steps, n_steps):
    if step < warmup_steps:
        return step / warmup_steps
    return min(1, (n_steps + 1 - step) / (decay_steps + 1))


def v_flat(step, warmup_steps, decay_steps, n_steps):
    return min(step / warmup_steps, 1)


def v_jump(step, warmup_steps, decay_steps, n_steps):
    if step < warmup_steps:
        return step / warmup_steps
    return 1 if step < n_steps - decay_steps else 1 - step / n_steps


def v_cosine(step, warmup_steps, decay_steps, n_steps):
    up = min(1, step / warmup_steps)
    into = max(0, step - (n_steps - decay_steps)) / decay_steps
    return up * 0.5 * (1 + math.cos(math.pi * into))


def v_no_warmup(step, warmup_steps, decay_steps, n_steps):
    return min(1, (n_steps - step) / decay_steps)


def v_twice(step, warmup_steps, decay_steps, n_steps):
    if step < warmup_steps:
        return step / warmup_steps
    stable = n_steps - warmup_steps - decay_steps
    return max(0, min(1, 1 - (step - stable) / decay_steps))


# ---- bpe_encode


def encode_rank(word, merges):
    rank = {pair: i for i, pair in enumerate(merges)}
    parts = tuple(word)
    while len(parts) > 1:
        pair = min(zip(parts, parts[1:]), key=lambda p: rank.get(p, math.inf))
        if pair not in rank:
            break
        parts = glue(parts, pair)
    return parts


def encode_in_order(word, merges):
    parts = list(word)
    for pair in merges:
        parts = glue(parts, pair)
    return list(parts)


def encode_recursive(word, merges):
    def go(parts):
        here = [pair for pair in merges if pair in set(zip(parts, parts[1:]))]
        return go(join(parts, here[0])) if here else parts

    return go(tuple(word))


def encode_text(word, merges):
    text = " ".join(word)
    for a, b in merges:
        pattern = rf"(?<!\S){re.escape(a)} {re.escape(b)}(?!\S)"
        text = re.sub(pattern, a + b, text)
    return text.split()


def e_left(word, merges):
    parts, i = list(word), 0
    while i < len(parts) - 1:
        if (parts[i], parts[i + 1]) in merges:
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
            i = 0
        else:
            i += 1
    return parts


def e_longest(word, merges):
    parts = tuple(word)
    while True:
        here = sorted((p for p in zip(parts, parts[1:]) if p in merges), key=lambda p: -len(p[0] + p[1]))
        if not here:
            return parts
        parts = glue(parts, here[0])


def e_last(word, merges):
    return encode_recursive(word, merges[::-1])


def e_once(word, merges):
    parts = list(word)
    for pair in merges:
        if pair in zip(parts, parts[1:]):
            return list(glue(parts, pair))
    return parts


RIGHT = {
    "bpe_merges": [merges_counter, merges_sorted, merges_regex, merges_ids],
    "gpt2_parameters": [size_formula, size_shapes, size_meta, size_parts],
    "deduplicate": [once_dict, once_set, once_numpy, once_generator, once_ordered],
    "warmup_stable_decay": [wsd_min, wsd_cases, wsd_interp, wsd_tensor],
    "bpe_encode": [encode_rank, encode_in_order, encode_recursive, encode_text],
}

WRONG = {
    "bpe_merges": [
        ("each-word-once", m_once),
        ("ties-by-order", m_most_common),
        ("ties-backwards", m_max),
        ("not-overlapping", m_apart),
        ("from-the-right", m_right),
        ("first-only", m_first),
        ("by-text", m_replace),
        ("never-again", m_static),
        ("end-of-word", m_end),
        ("as-strings", m_strings),
        ("stops-at-one", m_two),
    ],
    "gpt2_parameters": [
        ("untied", g_untied),
        ("no-positions", g_positions),
        ("no-biases", g_biases),
        ("no-norms", g_norms),
        ("no-last-norm", g_last),
        ("one-norm", g_one_norm),
        ("thin", g_thin),
        ("no-projection", g_projection),
        ("one-block", g_one),
        ("one-of-three", g_qkv),
        ("only-matrices", g_rule),
        ("always-1024", g_1024),
    ],
    "deduplicate": [
        ("order-lost", d_sorted),
        ("order-lost", d_set),
        ("last-kept", d_last),
        ("neighbours-only", d_groupby),
        ("all-copies-dropped", d_unique_only),
        ("white-space-levelled", d_levelled),
        ("case-levelled", d_lower),
        ("empty-dropped", d_truthy),
    ],
    "warmup_stable_decay": [
        ("starts-early", v_early),
        ("peak-late", v_late),
        ("no-plateau", v_linear),
        ("zero-early", v_zero),
        ("above-zero", v_above),
        ("never-down", v_flat),
        ("jumps", v_jump),
        ("cosine", v_cosine),
        ("no-warmup", v_no_warmup),
        ("warmup-twice", v_twice),
    ],
    "bpe_encode": [
        ("left-to-right", e_left),
        ("longest-first", e_longest),
        ("last-first", e_last),
        ("only-once", e_once),
    ],
}
