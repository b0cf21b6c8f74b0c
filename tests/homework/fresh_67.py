"Answers to lessons 6 and 7, in styles of all kinds."
import collections, functools, itertools, math, random, statistics
from fractions import Fraction

import numpy as np
import torch

from tests.homework.fresh import right, wrong


# accuracy

@right("accuracy")
def counted(batches):
    hits = [bool(x.argmax() == y) for logits, labels in batches for x, y in zip(logits, labels)]
    return statistics.fmean(hits)


@right("accuracy")
def exact_fraction(batches):
    total = Fraction(0), 0
    for logits, labels in batches:
        best = np.argsort(np.asarray(logits), axis=1)[:, -1]
        total = total[0] + int((best == np.asarray(labels)).sum()), total[1] + len(labels)
    return total[0] / total[1]


@right("accuracy")
def one_concatenation(batches):
    logits, labels = map(torch.cat, zip(*batches))
    return torch.eq(logits.softmax(-1).max(-1).indices, labels).float().mean()


@wrong("accuracy", "mean-of-batches")
def means_of_means(batches):
    return np.mean([(np.asarray(x).argmax(1) == np.asarray(y)).mean() for x, y in batches])


@wrong("accuracy", "percent")
def times_hundred(batches): return 100 * counted(batches)


@wrong("accuracy", "errors")
def share_of_errors(batches): return 1 - float(one_concatenation(batches))


@wrong("accuracy", "two-classes-only")
def second_beats_first(batches):
    hits = [int(x[1] > x[0]) == int(y) for logits, labels in batches for x, y in zip(logits, labels)]
    return sum(hits) / len(hits)


@wrong("accuracy")
def argmin(batches):
    return np.mean([int(x.argmin() == y) for logits, labels in batches for x, y in zip(logits, labels)])


@wrong("accuracy")
def balanced(batches):
    logits, labels = map(torch.cat, zip(*batches))
    hit = (logits.argmax(1) == labels).double()
    return torch.stack([hit[labels == c].mean() for c in labels.unique()]).mean()


# split_by_movie

def _until(movies, n_test, order):
    size = collections.Counter(movies)
    chosen, n = set(), 0
    for m in order:
        if n >= n_test: break
        chosen.add(m)
        n += size[m]
    test = [i for i, m in enumerate(movies) if m in chosen]
    return [i for i, m in enumerate(movies) if m not in chosen], test


@right("split_by_movie")
def shuffled_titles(movies, n_test, seed):
    titles = sorted(set(movies))
    random.Random(seed).shuffle(titles)
    return _until(movies, n_test, titles)


@right("split_by_movie")
def permuted_with_numpy(movies, n_test, seed):
    titles = np.unique(np.asarray(movies))
    train, test = _until(list(movies), n_test, np.random.default_rng(seed).permutation(titles).tolist())
    return np.array(train), np.array(test)


@right("split_by_movie")
def grown_review_by_review(movies, n_test, seed):
    order = torch.randperm(len(movies), generator=torch.Generator().manual_seed(seed)).tolist()
    groups = collections.defaultdict(list)
    for i, m in enumerate(movies): groups[m].append(i)
    test = []
    for i in order:
        if len(test) >= n_test: break
        test += groups.pop(movies[i], [])
    return sorted(set(range(len(movies))) - set(test)), test


@wrong("split_by_movie", "split-by-review")
def by_reviews(movies, n_test, seed):
    order = np.random.default_rng(seed).permutation(len(movies))
    return order[n_test:], order[:n_test]


@wrong("split_by_movie", "seed-ignored")
def first_titles(movies, n_test, seed): return _until(movies, n_test, sorted(set(movies)))


@wrong("split_by_movie", "not-reproducible")
def global_stream(movies, n_test, seed):
    titles = sorted(set(movies))
    random.shuffle(titles)
    return _until(movies, n_test, titles)


@wrong("split_by_movie", "test-first")
def the_other_order(movies, n_test, seed): return shuffled_titles(movies, n_test, seed)[::-1]


@wrong("split_by_movie", "counts-movies")
def n_titles(movies, n_test, seed):
    titles = sorted(set(movies))
    chosen = set(random.Random(seed).sample(titles, min(n_test, len(titles))))
    return ([i for i, m in enumerate(movies) if m not in chosen],
            [i for i, m in enumerate(movies) if m in chosen])


@wrong("split_by_movie")
def nothing_held(movies, n_test, seed): return list(range(len(movies))), []


@wrong("split_by_movie")
def twice_as_many(movies, n_test, seed):
    return shuffled_titles(movies, min(len(movies), 3 * n_test), seed)


# bucket_batches

@right("bucket_batches")
def sorted_then_shuffled(lengths, batch_size, seed):
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batches = [order[i:i + batch_size] for i in range(0, len(order), batch_size)]
    random.Random(seed).shuffle(batches)
    return batches


@right("bucket_batches")
def split_with_torch(lengths, batch_size, seed):
    order = torch.as_tensor(np.asarray(lengths)).argsort(stable=True)
    rows = list(order.split(batch_size))
    mixed = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return [rows[i] for i in mixed]


@right("bucket_batches")
def ties_by_chance(lengths, batch_size, seed):
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(lengths)), lengths))
    batches = [order[i:i + batch_size].tolist() for i in range(0, len(order), batch_size)]
    return (batches[i] for i in rng.permutation(len(batches)))


@wrong("bucket_batches", "in-order")
def by_length_only(lengths, batch_size, seed):
    order = np.argsort(lengths)
    return [order[i:i + batch_size] for i in range(0, len(order), batch_size)]


@wrong("bucket_batches", "unsorted")
def plain_shuffle(lengths, batch_size, seed):
    order = random.Random(seed).sample(range(len(lengths)), len(lengths))
    return [order[i:i + batch_size] for i in range(0, len(order), batch_size)]


@wrong("bucket_batches", "tail-dropped")
def full_ones(lengths, batch_size, seed):
    order = np.argsort(lengths)[:len(lengths) // batch_size * batch_size].reshape(-1, batch_size)
    return np.random.default_rng(seed).permutation(order)


@wrong("bucket_batches", "not-reproducible")
def shuffled_somehow(lengths, batch_size, seed):
    batches = by_length_only(lengths, batch_size, seed)
    return [batches[i] for i in torch.randperm(len(batches))]


@wrong("bucket_batches")
def longest_first(lengths, batch_size, seed):
    order = np.argsort(lengths)[::-1]
    return [order[i:i + batch_size] for i in range(0, len(order), batch_size)]


@wrong("bucket_batches")
def repeats(lengths, batch_size, seed):
    batches = sorted_then_shuffled(lengths, batch_size, seed)
    return [*batches, batches[0]]


# wilson

@right("wilson")
def by_the_roots(correct, n, z=1.96):
    p = correct / n
    a, b, c = 1 + z * z / n, -(2 * p + z * z / n), p * p
    d = math.sqrt(max(0., b * b - 4 * a * c))
    return (-b - d) / (2 * a), (-b + d) / (2 * a)


@right("wilson")
def as_array(correct, n, z=1.96):
    centre = (correct + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(correct * (n - correct) / n + z**2 / 4)
    return np.array([centre - half, centre + half])


@right("wilson")
def by_bisection(correct, n, z=1.96):
    p = correct / n
    def out(q): return (p - q) ** 2 > z * z * q * (1 - q) / n
    def root(inside, outside):
        for _ in range(80):
            mid = (inside + outside) / 2
            if out(mid): outside = mid
            else: inside = mid
        return inside
    return root(p, 0.), root(p, 1.)


@wrong("wilson", "plain-standard-error")
def wald(correct, n, z=1.96):
    p = correct / n
    e = z * (p * (1 - p) / n) ** .5
    return p - e, p + e


@wrong("wilson", "z-ignored")
def fixed_z(correct, n, z=1.96): return by_the_roots(correct, n)


@wrong("wilson", "percent")
def in_percent(correct, n, z=1.96): return [100 * x for x in by_the_roots(correct, n, z)]


@wrong("wilson", "ends-swapped")
def high_low(correct, n, z=1.96): return by_the_roots(correct, n, z)[::-1]


@wrong("wilson", "added-successes")
def agresti_coull(correct, n, z=1.96):
    m = n + z * z
    p = (correct + z * z / 2) / m
    e = z * math.sqrt(p * (1 - p) / m)
    return p - e, p + e


@wrong("wilson")
def with_continuity(correct, n, z=1.96):
    low, high = by_the_roots(correct, n, z)
    return max(0, low - .5 / n), min(1, high + .5 / n)


@wrong("wilson")
def only_the_centre(correct, n, z=1.96): return sum(by_the_roots(correct, n, z)) / 2


# bpe_merges

def _merged(symbols, pair):
    out, i = [], 0
    while i < len(symbols):
        if tuple(symbols[i:i + 2]) == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


def _learn(words, n_merges, best, merged=_merged):
    split, found = {w: list(w) for w in words}, []
    while len(found) < n_merges:
        count = collections.Counter()
        for w, s in split.items():
            for pair in itertools.pairwise(s): count[pair] += words[w]
        if not count: break
        found.append(best(count))
        split = {w: merged(s, found[-1]) for w, s in split.items()}
    return found


@right("bpe_merges")
def with_min_of_negative(words, n_merges):
    return _learn(words, n_merges, lambda c: min(c, key=lambda p: (-c[p], p)))


@right("bpe_merges")
def with_sorted_items(words, n_merges):
    return [list(p) for p in _learn(words, n_merges, lambda c: sorted(sorted(c), key=c.get, reverse=True)[0])]


@right("bpe_merges")
def recursive_merge(words, n_merges, split=None):
    split = split or {w: tuple(w) for w in words}
    if n_merges < 1: return []
    def spread(w, s): return {p: 0 for p in zip(s, s[1:])}
    count = {}
    for w, s in split.items():
        for i in range(len(s) - 1): count[s[i:i + 2]] = count.get(s[i:i + 2], 0) + words[w]
    if not count: return []
    top = max(count.values())
    pair = min(p for p, n in count.items() if n == top)
    def merge(s):
        if len(s) < 2: return s
        if s[:2] == pair: return (s[0] + s[1], *merge(s[2:]))
        return (s[0], *merge(s[1:]))
    return [pair, *recursive_merge(words, n_merges - 1, {w: merge(s) for w, s in split.items()})]


@wrong("bpe_merges", "ties-by-order")
def most_common(words, n_merges): return _learn(words, n_merges, lambda c: c.most_common(1)[0][0])


@wrong("bpe_merges", "ties-backwards")
def max_of_pairs(words, n_merges):
    return _learn(words, n_merges, lambda c: max((n, p) for p, n in c.items())[1])


@wrong("bpe_merges", "each-word-once")
def types_not_tokens(words, n_merges): return with_min_of_negative({w: 1 for w in words}, n_merges)


@wrong("bpe_merges", "as-strings")
def glued(words, n_merges): return ["".join(p) for p in with_min_of_negative(words, n_merges)]


@wrong("bpe_merges")
def least_frequent(words, n_merges): return _learn(words, n_merges, lambda c: min(c, key=lambda p: (c[p], p)))


@wrong("bpe_merges")
def one_merge_too_many(words, n_merges): return with_min_of_negative(words, n_merges + 1)


# gpt2_parameters

@right("gpt2_parameters")
def from_meta_modules(n_layer, n_embd, vocab_size, max_length):
    d = n_embd
    with torch.device("meta"):
        block = torch.nn.ModuleList([torch.nn.LayerNorm(d), torch.nn.Linear(d, 3 * d), torch.nn.Linear(d, d),
                                     torch.nn.LayerNorm(d), torch.nn.Linear(d, 4 * d),
                                     torch.nn.Linear(4 * d, d)])
        rest = torch.nn.ModuleList([torch.nn.Embedding(vocab_size, d), torch.nn.Embedding(max_length, d),
                                    torch.nn.LayerNorm(d)])
    def count(m): return sum(p.numel() for p in m.parameters())
    return n_layer * count(block) + count(rest)


@right("gpt2_parameters")
def the_real_one(n_layer, n_embd, vocab_size, max_length):
    from transformers import GPT2Config, GPT2LMHeadModel
    sizes = dict(vocab_size=vocab_size, n_positions=max_length)
    config = GPT2Config(n_layer=n_layer, n_embd=n_embd, n_head=1, **sizes)
    return GPT2LMHeadModel(config).num_parameters()


@right("gpt2_parameters")
def as_a_float(n_layer, n_embd, vocab_size, max_length):
    shapes = [(vocab_size, n_embd), (max_length, n_embd), (2, n_embd)]
    for _ in range(n_layer): shapes += [(12 * n_embd, n_embd), (13, n_embd)]
    return float(sum(math.prod(s) for s in shapes))


@wrong("gpt2_parameters", "untied")
def head_of_its_own(n_layer, n_embd, vocab_size, max_length):
    return as_a_float(n_layer, n_embd, vocab_size, max_length) + vocab_size * n_embd


@wrong("gpt2_parameters", "no-biases")
def weights_only(n_layer, n_embd, vocab_size, max_length):
    d = n_embd
    outside = (vocab_size + max_length) * d + 2 * d
    return functools.reduce(lambda s, _: s + 12 * d * d + 4 * d, range(n_layer), outside)


@wrong("gpt2_parameters", "no-last-norm")
def without_ln_f(n_layer, n_embd, vocab_size, max_length):
    return int(as_a_float(n_layer, n_embd, vocab_size, max_length)) - 2 * n_embd


@wrong("gpt2_parameters", "always-1024")
def fixed_positions(n_layer, n_embd, vocab_size, max_length):
    return int(as_a_float(n_layer, n_embd, vocab_size, 1024))


@wrong("gpt2_parameters")
def twelve_d_squared(n_layer, n_embd, vocab_size, max_length): return 12 * n_layer * n_embd**2


# deduplicate

@right("deduplicate")
def by_dict(texts): return dict.fromkeys(texts).keys()


@right("deduplicate")
def by_unique_index(texts):
    texts = list(texts)
    _, first = np.unique(np.array(texts, dtype=object), return_index=True)
    return [texts[i] for i in sorted(first)]


@right("deduplicate")
def by_recursion(texts):
    return [texts[0], *by_recursion([t for t in texts[1:] if t != texts[0]])] if texts else []


@right("deduplicate")
def by_generator(texts):
    seen = set()
    for t in texts:
        if t not in seen: yield t
        seen.add(t)


@wrong("deduplicate", "neighbours-only")
def groupby(texts): return [k for k, _ in itertools.groupby(texts)]


@wrong("deduplicate", "order-lost")
def sorted_set(texts): return sorted(set(texts))


@wrong("deduplicate", "order-lost")
def plain_set(texts): return set(texts)


@wrong("deduplicate", "last-kept")
def later_ones_win(texts): return list(dict.fromkeys(reversed(texts)))[::-1]


@wrong("deduplicate", "all-copies-dropped")
def singles(texts): return [t for t, n in collections.Counter(texts).items() if n == 1]


@wrong("deduplicate", "case-levelled and last-kept")
def folded(texts): return list({t.casefold(): t for t in reversed(texts)}.values())[::-1]


@wrong("deduplicate")
def numbers(texts): return [i for i, t in enumerate(texts) if t not in texts[:i]]


@wrong("deduplicate")
def shortest_out(texts): return [t for t in dict.fromkeys(texts) if len(t) > 1]


# warmup_stable_decay

@right("warmup_stable_decay")
def interpolated(step, warmup_steps, decay_steps, n_steps):
    if step == 0: return 0.
    if step >= n_steps: return 0.
    up = step / warmup_steps if step < warmup_steps else 1.
    down = (n_steps - step) / decay_steps if step > n_steps - decay_steps else 1.
    return up if step < warmup_steps else down


@right("warmup_stable_decay")
def smallest_of_three(step, warmup_steps, decay_steps, n_steps):
    return np.clip(min(1., step / warmup_steps if warmup_steps else float(step > 0),
                       (n_steps - step) / decay_steps if decay_steps else float(step < n_steps)), 0, 1)


@wrong("warmup_stable_decay", "never-down")
def flat(step, warmup_steps, decay_steps, n_steps): return min(1., step / max(1, warmup_steps))


@wrong("warmup_stable_decay", "cosine")
def cosine_end(step, warmup_steps, decay_steps, n_steps):
    if step < warmup_steps: return step / warmup_steps
    if step < n_steps - decay_steps: return 1.
    t = min(1., (step - (n_steps - decay_steps)) / decay_steps)
    return .5 + .5 * math.cos(math.pi * t)


@wrong("warmup_stable_decay", "starts-early")
def from_one(step, warmup_steps, decay_steps, n_steps):
    return smallest_of_three(step + 1, warmup_steps, decay_steps, n_steps + 1)


@wrong("warmup_stable_decay", "no-plateau")
def triangle(step, warmup_steps, decay_steps, n_steps):
    if step < warmup_steps: return step / warmup_steps
    return max(0., (n_steps - step) / (n_steps - warmup_steps))


@wrong("warmup_stable_decay")
def root_down(step, warmup_steps, decay_steps, n_steps):
    return float(smallest_of_three(step, warmup_steps, decay_steps, n_steps)) ** .5


@wrong("warmup_stable_decay")
def to_a_tenth(step, warmup_steps, decay_steps, n_steps):
    if step < warmup_steps: return step / warmup_steps
    return max(.1, float(smallest_of_three(step, warmup_steps, decay_steps, n_steps)))
