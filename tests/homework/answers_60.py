"""Answers to the exercises of lesson 6, as students write them: right ones in several styles, and each
mistake in another style than the bank has it."""

import math, random, re
from collections import Counter, defaultdict

import numpy as np
import torch

from course_lm.baselines import wilson_interval

# ---- accuracy


def acc_sums(batches):
    right = n = 0
    for logits, labels in batches:
        right += (logits.argmax(-1) == labels).sum().item()
        n += len(labels)
    return right / n


def acc_lists(batches):
    hits = []
    for logits, labels in batches:
        for row, label in zip(logits.tolist(), labels.tolist()):
            hits.append(max(range(len(row)), key=row.__getitem__) == label)
    return sum(hits) / len(hits)


def acc_numpy(batches):
    pairs = [(np.argmax(logits.numpy(), axis=1), labels.numpy()) for logits, labels in batches]
    answers, labels = (np.concatenate(side) for side in zip(*pairs))
    return np.mean(answers == labels)


def acc_tensors(batches):
    hits = [logits.softmax(-1).max(-1).indices.eq(labels) for logits, labels in batches]
    return torch.cat(hits).float().mean()


def acc_ranks(batches):
    counts = Counter()
    for logits, labels in batches:
        own = logits.gather(1, labels[:, None])
        counts.update((logits > own).any(1).tolist())
    return counts[False] / counts.total()


def a_means(batches):
    return np.mean([acc_sums([batch]) for batch in batches])


def a_per_batch(batches):
    batches = list(batches)
    return sum((x.argmax(1) == y).sum() for x, y in batches) / len(batches)


def a_two(batches):
    return acc_sums((x[:, :2], y) for x, y in batches)


def a_sign(batches):
    hits = [(x[:, 1] > 0).long() == y for x, y in batches]
    return torch.cat(hits).double().mean().item()


def a_recall(batches):
    hits = [x.argmax(1)[y == 1] == 1 for x, y in batches]
    return torch.cat(hits).sum() / max(0, len(torch.cat(hits)))


def a_percent(batches):
    return f"{100 * acc_lists(batches):.4f}"


def a_errors(batches):
    return 1 - acc_tensors(batches)


def a_first(batches):
    logits, labels = next(iter(batches))
    return (logits.argmax(-1) == labels).float().mean()


# ---- split_by_movie


def split_shuffle(movies, n_test, seed):
    names = sorted(set(movies))
    random.Random(seed).shuffle(names)
    counts, test = Counter(movies), set()
    while sum(counts[m] for m in test) < n_test:
        test.add(names.pop())
    sides = [], []
    for i, movie in enumerate(movies):
        sides[movie in test].append(i)
    return sides


def split_numpy(movies, n_test, seed):
    names, which = np.unique(movies, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    sizes = np.bincount(which)[order]
    taken = order[: int(np.searchsorted(sizes.cumsum(), n_test)) + 1]
    in_test = np.isin(which, taken)
    return np.flatnonzero(~in_test), np.flatnonzero(in_test)


def split_torch(movies, n_test, seed):
    names = list(dict.fromkeys(movies))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    test = []
    for k in order:
        if len(test) < n_test:
            test += [i for i, movie in enumerate(movies) if movie == names[k]]
    train = sorted(set(range(len(movies))) - set(test))
    return torch.tensor(train, dtype=torch.long), torch.tensor(test, dtype=torch.long)


def split_first_seen(movies, n_test, seed):
    rng, rows = random.Random(seed), defaultdict(list)
    for i, movie in enumerate(movies):
        rows[movie].append(i)
    train, test = [], []
    for movie in sorted(rows, key=lambda m: rng.random()):
        side = test if len(test) < n_test else train
        side.extend(rows[movie])
    return (tuple(train), tuple(test))


def s_reviews(movies, n_test, seed):
    order = np.random.default_rng(seed).permutation(len(movies))
    return order[n_test:], order[:n_test]


def s_cut(movies, n_test, seed):
    rows = [i for side in split_first_seen(movies, n_test, seed)[::-1] for i in side]
    return rows[n_test:], rows[:n_test]


def s_movies(movies, n_test, seed):
    names = sorted(set(movies))
    test = set(random.Random(seed).sample(names, min(n_test, len(names))))
    return [i for i, m in enumerate(movies) if m not in test], [i for i, m in enumerate(movies) if m in test]


def s_small(movies, n_test, seed):
    names, test = list(dict.fromkeys(movies)), []
    random.Random(seed).shuffle(names)
    for name in names:
        group = [i for i, m in enumerate(movies) if m == name]
        if len(test + group) > n_test:
            break
        test += group
    return np.setdiff1d(np.arange(len(movies)), test), test


def s_fixed(movies, n_test, seed):
    return split_numpy(movies, n_test, 42)


def s_global(movies, n_test, seed):
    return split_shuffle(movies, n_test, random.randrange(10**6))


def s_names(movies, n_test, seed):
    train, test = split_numpy(movies, n_test, seed)
    return [movies[i] for i in train], [movies[i] for i in test]


def s_test_train(movies, n_test, seed):
    train, test = split_shuffle(movies, n_test, seed)
    return test, train


def s_lost(movies, n_test, seed):
    train, test = split_torch(movies, n_test, seed)
    return train[: len(movies) - len(test) - 1], test


# ---- bucket_batches


def cut(order, size):
    return [order[i : i + size] for i in range(0, len(order), size)]


def buck_sorted(lengths, batch_size, seed):
    batches = cut(sorted(range(len(lengths)), key=lengths.__getitem__), batch_size)
    random.Random(seed).shuffle(batches)
    return batches


def buck_numpy(lengths, batch_size, seed):
    rng = np.random.default_rng(seed)
    order = np.argsort(-np.array(lengths) + rng.random(len(lengths)))
    batches = np.split(order, range(batch_size, len(order), batch_size))
    return [batches[i] for i in rng.permutation(len(batches))]


def buck_pools(lengths, batch_size, seed):
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(lengths), generator=g)
    batches = []
    for pool in order.split(30 * batch_size):
        pool = pool[torch.tensor(lengths)[pool].argsort()]
        batches += pool.split(batch_size)
    return [batches[i].tolist() for i in torch.randperm(len(batches), generator=g)]


def buck_noise(lengths, batch_size, seed):
    rng = random.Random(seed)
    noisy = sorted((n * rng.uniform(0.97, 1.03), i) for i, n in enumerate(lengths))
    batches = cut([i for _, i in noisy], batch_size)
    for k in rng.sample(range(len(batches)), len(batches)):
        yield batches[k]


def u_ascending(lengths, batch_size, seed):
    return cut(np.argsort(lengths).tolist(), batch_size)


def u_random(lengths, batch_size, seed):
    return cut(np.random.default_rng(seed).permutation(len(lengths)), batch_size)


def u_drop_last(lengths, batch_size, seed):
    order = np.argsort(lengths)[: len(lengths) // batch_size * batch_size]
    rows = order.reshape(-1, batch_size)
    return np.random.default_rng(seed).permutation(rows)


def u_tail_added(lengths, batch_size, seed):
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    n = max(1, len(order) // batch_size)
    batches = [order[i * batch_size : (i + 1) * batch_size] for i in range(n)]
    batches[-1].extend(order[n * batch_size :])
    random.Random(seed).shuffle(batches)
    return batches


def u_per_bucket(lengths, batch_size, seed):
    rng, buckets = random.Random(seed), defaultdict(list)
    for i, n in enumerate(lengths):
        buckets[int(math.log2(n) * 2)].append(i)
    batches = [batch for bucket in buckets.values() for batch in cut(bucket, batch_size)]
    rng.shuffle(batches)
    return batches


def u_unseeded(lengths, batch_size, seed):
    batches = u_ascending(lengths, batch_size, seed)
    random.shuffle(batches)
    return batches[::-1] if random.random() < 0.5 else [b[::-1] for b in batches]


def u_lengths(lengths, batch_size, seed):
    batches = cut(sorted(lengths), batch_size)
    random.Random(seed).shuffle(batches)
    return batches


# ---- last_token


def last_flip(hidden, attention_mask):
    last = attention_mask.shape[1] - 1 - attention_mask.flip(1).argmax(1)
    return hidden[torch.arange(len(hidden)), last]


def last_loop(hidden, attention_mask):
    found = []
    for vectors, mask in zip(hidden.tolist(), attention_mask.tolist()):
        found.append([v for v, m in zip(vectors, mask) if m][-1])
    return found


def last_numpy(hidden, attention_mask):
    places = (attention_mask.numpy() * np.arange(1, attention_mask.shape[1] + 1)).argmax(1)
    return np.take_along_axis(hidden.numpy(), places[:, None, None], 1)[:, 0]


def last_gather(hidden, attention_mask):
    left = attention_mask[:, -1].sum() == len(attention_mask)
    if left:
        return hidden[:, -1]
    index = (attention_mask.sum(1) - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])
    return hidden.gather(1, index).squeeze(1)


def last_argmin(hidden, attention_mask):
    return torch.stack([h[i] for h, i in zip(hidden, attention_mask.argmin(1) - 1)])


def t_minus_one(hidden, attention_mask):
    return hidden[:, -1, :]


def t_sum(hidden, attention_mask):
    return [h[m.sum() - 1] for h, m in zip(hidden, attention_mask)]


def t_cls(hidden, attention_mask):
    return hidden.numpy()[:, 0]


def t_before(hidden, attention_mask):
    last = attention_mask.shape[1] - 1 - attention_mask.flip(1).argmax(1)
    return hidden[range(len(hidden)), last - 1]


def t_first_row(hidden, attention_mask):
    return hidden[:, attention_mask.sum(1)[0] - 1]


def t_pooled(hidden, attention_mask):
    weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def t_max(hidden, attention_mask):
    rows = zip(hidden.numpy(), attention_mask.numpy())
    return [vectors[mask == 1].max(0) for vectors, mask in rows]


def t_unsqueezed(hidden, attention_mask):
    return torch.tensor(last_loop(hidden, attention_mask)).unsqueeze(1)


# ---- wilson


def wil_formula(correct, n, z=1.96):
    p = correct / n
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    bottom, centre = 1 + z**2 / n, p + z**2 / (2 * n)
    return (centre - half) / bottom, (centre + half) / bottom


def wil_counts(correct, n, z=1.96):
    wrong, z2 = n - correct, z * z
    centre = (correct + z2 / 2) / (n + z2)
    half = z / (n + z2) * np.sqrt(correct * wrong / n + z2 / 4)
    return np.array([centre - half, centre + half])


def wil_roots(correct, n, z=1.96):
    p, c = correct / n, z * z / n
    low, high = sorted(np.roots([1 + c, -2 * p - c, p * p]).real)
    return [low, high]


def wil_course(correct, n, z=1.96):
    from statistics import NormalDist

    return wilson_interval(correct, n, level=2 * NormalDist().cdf(z) - 1)


def wil_clipped(correct, n, z=1.96):
    low, high = wil_counts(correct, n, z)
    return torch.tensor([max(0.0, low), min(1.0, high)])


def i_wald(correct, n, z=1.96):
    p = correct / n
    error = np.sqrt(p * (1 - p) / n)
    return np.clip([p - z * error, p + z * error], 0, 1)


def i_fixed(correct, n, z=1.96):
    return wil_formula(correct, n)


def i_numerators(correct, n, z=1.96):
    p = correct / n
    middle, half = p + z * z / 2 / n, z * (p * (1 - p) / n + (z / 2 / n) ** 2) ** 0.5
    return middle - half, middle + half


def i_z(correct, n, z=1.96):
    p, q = correct / n, 1 - correct / n
    half = z * math.sqrt(p * q / n + z / 4 / n / n)
    return [(p + z / 2 / n + sign * half) / (1 + z / n) for sign in (-1, 1)]


def i_plus_minus(correct, n, z=1.96):
    low, high = wil_counts(correct, n, z)
    return (low + high) / 2, (high - low) / 2


def i_plus_four(correct, n, z=1.96):
    n_, p_ = n + z**2, (correct + z**2 / 2) / (n + z**2)
    return [p_ + s * z * math.sqrt(p_ * (1 - p_) / n_) for s in (-1, 1)]


def i_swapped(correct, n, z=1.96):
    return wil_roots(correct, n, z)[::-1]


def i_percent(correct, n, z=1.96):
    return 100 * wil_counts(correct, n, z)


# ---- leaks


def leak_sets(train_texts, test_texts):
    seen = {" ".join(text.lower().split()) for text in train_texts}
    return [i for i, text in enumerate(test_texts) if " ".join(text.lower().split()) in seen]


def leak_regex(train_texts, test_texts):
    def key(text):
        return re.sub(r"\s+", " ", text).strip().casefold()

    train = list(map(key, train_texts))
    return np.flatnonzero([train.count(key(text)) > 0 for text in test_texts])


def leak_loops(train_texts, test_texts):
    found = set()
    for text in train_texts:
        for i, other in enumerate(test_texts):
            if text.lower().split() == other.lower().split():
                found.add(i)
    return sorted(found)


def leak_words(train_texts, test_texts):
    index = defaultdict(list)
    for i, text in enumerate(test_texts):
        index[tuple(text.upper().lower().split())].append(i)
    keys = dict.fromkeys(tuple(text.lower().split()) for text in train_texts)
    return tuple(sorted(i for key in keys for i in index.get(key, [])))


def by_key(key):
    def leaks(train_texts, test_texts):
        seen = set(map(key, train_texts))
        return torch.tensor([i for i, t in enumerate(test_texts) if key(t) in seen], dtype=torch.long)

    return leaks


def k_substring(train_texts, test_texts):
    everything = "\n".join(" ".join(t.lower().split()) for t in train_texts)
    return [i for i, t in enumerate(test_texts) if " ".join(t.lower().split()) in everything]


def k_train(train_texts, test_texts):
    test = [t.lower().split() for t in test_texts]
    return [i for i, t in enumerate(train_texts) if t.lower().split() in test]


def k_texts(train_texts, test_texts):
    return [test_texts[i] for i in leak_loops(train_texts, test_texts)]


def k_once(train_texts, test_texts):
    test = [t.casefold().split() for t in test_texts]
    return sorted({test.index(t.casefold().split()) for t in train_texts if t.casefold().split() in test})


def k_one_side(train_texts, test_texts):
    clean = [" ".join(t.lower().split()) for t in test_texts]
    return [i for i in range(len(clean)) if clean[i] in set(train_texts)]


# ---- read_labels


def lab_dict(rows):
    known = {"neg": 0, "pos": 1, 1: 0, 2: 1}
    try:
        return [known[label] for label, _ in rows]
    except KeyError as e:
        raise ValueError(f"unknown label {e}") from None


def lab_cases(rows):
    labels = []
    for label, text in rows:
        if label in ("neg", 1):
            labels.append(0)
        elif label in ("pos", 2):
            labels.append(1)
        else:
            raise ValueError(label)
    return labels


def lab_lists(rows):
    for names in (["neg", "pos"], [1, 2]):
        if all(label in names for label, _ in rows):
            return np.array([float(names.index(label)) for label, _ in rows])
    raise ValueError("neither release")


def lab_index(rows):
    return torch.tensor([["neg", 1, "pos", 2].index(row[0]) // 2 for row in rows])


def f_lambda(rows):
    return [(lambda x: 1.0 if x == "pos" else 0.0)(label) for label, _ in rows]


def f_as_is(rows):
    names = {"neg": 0, "pos": 1, 1: 1, 2: 2}
    return [[names[label] for label in [row[0]] if label in names or int("unknown")][0] for row in rows]


def f_upside(rows):
    return [["neg", 2, "pos", 1].index(label) // 2 for label, _ in rows]


def f_else(rows):
    return [int(label in ("pos", 2)) for label, _ in rows]


RIGHT = {
    "accuracy": [acc_sums, acc_lists, acc_numpy, acc_tensors, acc_ranks],
    "split_by_movie": [split_shuffle, split_numpy, split_torch, split_first_seen],
    "bucket_batches": [buck_sorted, buck_numpy, buck_pools, buck_noise],
    "last_token": [last_flip, last_loop, last_numpy, last_gather, last_argmin],
    "wilson": [wil_formula, wil_counts, wil_roots, wil_course, wil_clipped],
    "leaks": [leak_sets, leak_regex, leak_loops, leak_words],
    "read_labels": [lab_dict, lab_cases, lab_lists, lab_index],
}

WRONG = {
    "accuracy": [
        ("mean-of-batches", a_means),
        ("divided-by-batches", a_per_batch),
        ("two-classes-only", a_two),
        ("above-zero", a_sign),
        ("only-ones", a_recall),
        ("percent", a_percent),
        ("errors", a_errors),
        ("first-batch-only", a_first),
    ],
    "split_by_movie": [
        ("split-by-review", s_reviews),
        ("last-movie-cut", s_cut),
        ("counts-movies", s_movies),
        ("stops-before", s_small),
        ("seed-ignored", s_fixed),
        ("not-reproducible", s_global),
        ("movies-named", s_names),
        ("test-first", s_test_train),
        ("rest-lost", s_lost),
    ],
    "bucket_batches": [
        ("in-order", u_ascending),
        ("unsorted", u_random),
        ("tail-dropped", u_drop_last),
        ("tail-merged", u_tail_added),
        ("many-short-batches", u_per_bucket),
        ("not-reproducible", u_unseeded),
        ("lengths-not-numbers", u_lengths),
    ],
    "last_token": [
        ("last-position", t_minus_one),
        ("right-padding-only", t_sum),
        ("first-position", t_cls),
        ("one-before", t_before),
        ("same-length", t_first_row),
        ("means", t_pooled),
        ("largest-numbers", t_max),
        ("extra-dimension", t_unsqueezed),
    ],
    "wilson": [
        ("plain-standard-error", i_wald),
        ("z-ignored", i_fixed),
        ("not-divided", i_numerators),
        ("z-not-squared", i_z),
        ("centre-and-half", i_plus_minus),
        ("added-successes", i_plus_four),
        ("ends-swapped", i_swapped),
        ("percent", i_percent),
    ],
    "leaks": [
        ("exact-text", by_key(str)),
        ("case-kept", by_key(lambda t: tuple(t.split()))),
        ("spaces-kept", by_key(lambda t: t.casefold().strip())),
        ("ends-kept", by_key(lambda t: tuple(re.split(r"\s+", t.upper())))),
        ("blanks-only", by_key(lambda t: re.sub("  +", " ", t).strip().lower())),
        ("spaces-removed", by_key(lambda t: "".join(c for c in t.lower() if not c.isspace()))),
        ("part-of-a-text", k_substring),
        ("numbers-of-train", k_train),
        ("texts-not-numbers", k_texts),
        ("each-text-once", k_once),
        ("one-side", k_one_side),
    ],
    "read_labels": [
        ("only-names", f_lambda),
        ("as-they-are", f_as_is),
        ("one-is-positive", f_upside),
        ("lenient", f_else),
    ],
}
