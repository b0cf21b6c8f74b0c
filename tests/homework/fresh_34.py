"Answers to lessons 3 and 4, in styles of all kinds."
import itertools, math, random

import numpy as np
import torch
import torch.nn.functional as F

from tests.homework.fresh import right, wrong


# causal_labels

@right("causal_labels")
def by_where(input_ids, attention_mask):
    return torch.where(attention_mask.bool(), input_ids, torch.full_like(input_ids, -100))


@right("causal_labels")
def by_arithmetic(input_ids, attention_mask):
    m = attention_mask.to(input_ids.dtype)
    return input_ids * m - 100 * (1 - m)


@right("causal_labels")
def nested_lists(input_ids, attention_mask):
    rows = zip(input_ids.tolist(), attention_mask.tolist())
    return [[t if m else -100 for t, m in zip(*row)] for row in rows]


@right("causal_labels")
def nothing_that_is_never_read(input_ids, attention_mask):
    labels = input_ids.clone().numpy()
    mask = attention_mask.numpy()
    labels[mask == 0] = -100
    labels[:, 0] = -100
    labels[:, 1:][mask[:, :-1] == 0] = -100
    return labels


@wrong("causal_labels", "shifted")
def rolled_left(input_ids, attention_mask):
    labels = torch.roll(input_ids.masked_fill(attention_mask == 0, -100), -1, 1)
    labels[:, -1] = -100
    return labels


@wrong("causal_labels", "pads-scored")
def just_a_copy(input_ids, attention_mask): return torch.tensor(input_ids.tolist())


@wrong("causal_labels", "inverted")
def pads_kept(input_ids, attention_mask): return np.where(attention_mask.numpy(), -100, input_ids.numpy())


@wrong("causal_labels", "zeros")
def multiplied_by_the_mask(input_ids, attention_mask): return torch.mul(input_ids, attention_mask)


@wrong("causal_labels")
def last_pad_as_eos(input_ids, attention_mask):
    labels = input_ids.masked_fill(attention_mask == 0, -100)
    labels[:, 1] = -100
    return labels


# causal_loss

@right("causal_loss")
def by_nll(logits, labels):
    scores = F.log_softmax(logits[:, :-1].transpose(1, 2), dim=1)
    return F.nll_loss(scores, labels[:, 1:], ignore_index=-100)


@right("causal_loss")
def by_logsumexp_loops(logits, labels):
    found = []
    for b in range(logits.shape[0]):
        for t in range(1, logits.shape[1]):
            y = int(labels[b, t])
            if y != -100: found.append(logits[b, t - 1].logsumexp(0) - logits[b, t - 1, y])
    return torch.stack(found).mean()


@right("causal_loss")
def by_einsum(logits, labels):
    keep = (labels[..., 1:] != -100).double()
    hot = F.one_hot(labels[..., 1:].clamp(min=0), logits.shape[-1]).double()
    nats = -torch.einsum("btv,btv->bt", hot, logits[..., :-1, :].double().log_softmax(-1))
    return (nats * keep).sum() / keep.sum()


@wrong("causal_loss", "not-shifted")
def straight(logits, labels): return F.cross_entropy(logits.permute(0, 2, 1), labels)


@wrong("causal_loss", "mean-of-rows")
def row_by_row(logits, labels):
    return torch.stack([F.cross_entropy(x[:-1], y[1:]) for x, y in zip(logits, labels)]).mean()


@wrong("causal_loss", "across-rows")
def flattened_first(logits, labels):
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1])[:-1], labels.reshape(-1)[1:])


@wrong("causal_loss", "softmax-twice")
def probabilities_as_logits(logits, labels):
    p = torch.exp(logits - logits.logsumexp(-1, keepdim=True))
    return F.cross_entropy(p[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


@wrong("causal_loss", "without-gradient")
def through_numpy(logits, labels):
    return torch.tensor(float(by_nll(logits, labels)))


@wrong("causal_loss", "divided-by-all")
def over_everything(logits, labels):
    nats = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none")
    return nats.sum() / nats.numel()


@wrong("causal_loss")
def label_smoothed(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), label_smoothing=.1)


@wrong("causal_loss")
def negated(logits, labels): return -by_nll(logits, labels)


# collate

@right("collate")
def with_pad_sequence(rows, pad_token_id):
    ts = [torch.as_tensor(list(r)) for r in rows]
    def pad(xs, v): return torch.nn.utils.rnn.pad_sequence(xs, batch_first=True, padding_value=v)
    return dict(input_ids=pad(ts, pad_token_id), labels=pad(ts, -100),
                attention_mask=pad([torch.ones_like(t) for t in ts], 0))


@right("collate")
def with_zip_longest(rows, pad_token_id):
    def pad(rows, filler): return list(zip(*itertools.zip_longest(*rows, fillvalue=filler)))
    ones = [[1] * len(r) for r in rows]
    return {"input_ids": pad(rows, pad_token_id), "attention_mask": pad(ones, 0), "labels": pad(rows, -100)}


@right("collate")
def in_numpy(rows, pad_token_id):
    lengths = np.array([len(r) for r in rows])
    mask = np.arange(lengths.max())[None] < lengths[:, None]
    ids = np.full(mask.shape, pad_token_id)
    ids[mask] = np.concatenate([np.asarray(r) for r in rows])
    return dict(input_ids=ids, attention_mask=mask.astype(int), labels=np.where(mask, ids, -100))


@wrong("collate", "left-padded")
def padded_in_front(rows, pad_token_id):
    n = max(map(len, rows))
    def pad(v, r): return [v] * (n - len(r)) + list(r)
    return dict(input_ids=[pad(pad_token_id, r) for r in rows], labels=[pad(-100, r) for r in rows],
                attention_mask=[pad(0, [1] * len(r)) for r in rows])


@wrong("collate", "mask-by-id and ends-lost")
def mask_from_ids(rows, pad_token_id):
    ids = with_pad_sequence(rows, pad_token_id)["input_ids"]
    mask = torch.ne(ids, pad_token_id)
    return dict(input_ids=ids, attention_mask=mask.long(), labels=torch.where(mask, ids, -100))


@wrong("collate", "ends-lost")
def labels_from_ids(rows, pad_token_id):
    out = in_numpy(rows, pad_token_id)
    out["labels"] = np.where(out["input_ids"] == pad_token_id, -100, out["input_ids"])
    return out


@wrong("collate", "pads-scored")
def labels_are_ids(rows, pad_token_id):
    out = with_pad_sequence(rows, pad_token_id)
    return out | dict(labels=out["input_ids"].clone())


@wrong("collate")
def two_too_long(rows, pad_token_id):
    n = max(map(len, rows)) + 2
    def pad(r, v): return list(r) + [v] * (n - len(r))
    return dict(input_ids=[pad(r, pad_token_id) for r in rows], labels=[pad(r, -100) for r in rows],
                attention_mask=[pad([1] * len(r), 0) for r in rows])


@wrong("collate")
def no_labels(rows, pad_token_id):
    out = with_pad_sequence(rows, pad_token_id)
    return {k: out[k] for k in ("input_ids", "attention_mask")}


# mask_tokens

@right("mask_tokens")
def one_uniform(input_ids, special_tokens_mask, mask_token_id, vocab_size, rate, generator):
    u = torch.rand(input_ids.shape, generator=generator)
    u = u.masked_fill(special_tokens_mask.bool(), 2.) / rate
    r = torch.randint(vocab_size, input_ids.shape, generator=generator)
    hidden = torch.where(u < .8, mask_token_id, torch.where(u < .9, r, input_ids))
    return hidden, torch.where(u < 1, input_ids, -100)


@right("mask_tokens")
def exact_by_row(input_ids, special_tokens_mask, mask_token_id, vocab_size, rate, generator):
    inputs, labels = input_ids.clone(), torch.full_like(input_ids, -100)
    for b in range(len(input_ids)):
        can = [t for t in range(input_ids.shape[1]) if not special_tokens_mask[b, t]]
        order = torch.randperm(len(can), generator=generator).tolist()
        for o in order[:round(rate * len(can))]:
            t = can[o]
            labels[b, t] = input_ids[b, t]
            u = torch.rand((), generator=generator).item()
            if u < .8: inputs[b, t] = mask_token_id
            elif u < .9: inputs[b, t] = torch.randint(vocab_size, (1,), generator=generator).item()
    return inputs, labels


@right("mask_tokens")
def seeded_numpy(input_ids, special_tokens_mask, mask_token_id, vocab_size, rate, generator):
    rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    ids, special = input_ids.numpy().copy(), special_tokens_mask.numpy().astype(bool)
    chosen = (rng.random(ids.shape) < rate) & ~special
    labels = np.where(chosen, ids, -100)
    how = rng.choice(3, size=ids.shape, p=[.8, .1, .1])
    ids[chosen & (how == 0)] = mask_token_id
    swap = chosen & (how == 1)
    ids[swap] = rng.integers(0, vocab_size, swap.sum())
    return ids, labels


@wrong("mask_tokens", "specials-chosen")
def specials_too(input_ids, special_tokens_mask, mask_token_id, vocab_size, rate, generator):
    return one_uniform(input_ids, torch.zeros_like(special_tokens_mask), mask_token_id, vocab_size, rate,
                       generator)


@wrong("mask_tokens", "always-15")
def fifteen(input_ids, special_tokens_mask, mask_token_id, vocab_size, rate, generator):
    return one_uniform(input_ids, special_tokens_mask, mask_token_id, vocab_size, .15, generator)


@wrong("mask_tokens", "only-hidden")
def all_become_mask(input_ids, special_tokens_mask, mask_token_id, vocab_size, rate, generator):
    _, labels = one_uniform(input_ids, special_tokens_mask, mask_token_id, vocab_size, rate, generator)
    return torch.where(labels != -100, mask_token_id, input_ids), labels


@wrong("mask_tokens", "all-labelled")
def labels_everywhere(input_ids, special_tokens_mask, mask_token_id, vocab_size, rate, generator):
    inputs, _ = one_uniform(input_ids, special_tokens_mask, mask_token_id, vocab_size, rate, generator)
    return inputs, input_ids.clone()


@wrong("mask_tokens", "not-from-generator")
def own_stream(input_ids, special_tokens_mask, mask_token_id, vocab_size, rate, generator):
    return one_uniform(input_ids, special_tokens_mask, mask_token_id, vocab_size, rate, None)


@wrong("mask_tokens")
def half_and_half(input_ids, special_tokens_mask, mask_token_id, vocab_size, rate, generator):
    u = torch.rand(input_ids.shape, generator=generator).masked_fill(special_tokens_mask.bool(), 2.) / rate
    r = torch.randint(vocab_size, input_ids.shape, generator=generator)
    inputs = torch.where(u < .5, mask_token_id, torch.where(u < .75, r, input_ids))
    return inputs, torch.where(u < 1, input_ids, -100)


@wrong("mask_tokens")
def never_the_last(input_ids, special_tokens_mask, mask_token_id, vocab_size, rate, generator):
    special = special_tokens_mask.clone()
    special[:, special.shape[1] // 2:] = 1
    return one_uniform(input_ids, special, mask_token_id, vocab_size, rate, generator)


# whole_word_mask

@right("whole_word_mask")
def one_draw_a_word(word_ids, rate, generator):
    words = sorted({w for w in word_ids if w is not None})
    u = torch.rand(len(words), generator=generator)
    chosen = dict(zip(words, (u < rate).tolist()))
    return [chosen.get(w, False) for w in word_ids]


@right("whole_word_mask")
def drawn_on_the_way(word_ids, rate, generator):
    drawn = {None: False}
    for w in word_ids:
        if w not in drawn: drawn[w] = bool(torch.rand(1, generator=generator) < rate)
        yield drawn[w]


@right("whole_word_mask")
def bernoulli_by_index(word_ids, rate, generator):
    ids = torch.tensor([-1 if w is None else w for w in word_ids])
    hit = torch.bernoulli(torch.full((int(ids.max()) + 2,), float(rate)), generator=generator).bool()
    return hit[ids] & (ids >= 0)


@wrong("whole_word_mask", "by-piece")
def each_piece(word_ids, rate, generator):
    u = torch.rand(len(word_ids), generator=generator)
    return [w is not None and x < rate for w, x in zip(word_ids, u.tolist())]


@wrong("whole_word_mask", "first-piece")
def first_piece_only(word_ids, rate, generator):
    whole = one_draw_a_word(word_ids, rate, generator)
    return [m and (i == 0 or word_ids[i - 1] != word_ids[i]) for i, m in enumerate(whole)]


@wrong("whole_word_mask", "not-from-generator")
def from_python(word_ids, rate, generator):
    drawn = {w: random.random() < rate for w in dict.fromkeys(word_ids)}
    return [w is not None and drawn[w] for w in word_ids]


@wrong("whole_word_mask", "kept-for-hidden")
def inverse_rate(word_ids, rate, generator):
    return [not m if w is not None else False
            for m, w in zip(one_draw_a_word(word_ids, rate, generator), word_ids)]


@wrong("whole_word_mask")
def nothing_hidden(word_ids, rate, generator): return [False for _ in word_ids]


@wrong("whole_word_mask")
def twice_the_rate(word_ids, rate, generator): return one_draw_a_word(word_ids, 2 * rate, generator)


# perplexity

@right("perplexity")
def one_cat(batches):
    found = [F.cross_entropy(x[:, :-1].flatten(0, 1), y[:, 1:].flatten(), reduction="none")[
        y[:, 1:].flatten() != -100] for x, y in batches]
    return torch.cat(found).mean().exp()


@right("perplexity")
def by_hand(batches):
    nats = n = 0
    for logits, labels in batches:
        for row, ys in zip(np.asarray(logits.tolist()), labels.tolist()):
            for x, y in zip(row, ys[1:]):
                if y == -100: continue
                nats += math.log(sum(math.exp(v - max(x)) for v in x)) + max(x) - x[y]
                n += 1
    return math.e ** (nats / n)


@right("perplexity")
def running_mean(batches):
    mean, n = 0., 0
    for logits, labels in batches:
        k = int((labels[:, 1:] >= 0).sum())
        if not k: continue
        loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:]).item()
        n += k
        mean += (loss - mean) * k / n
    return np.exp(mean)


@wrong("perplexity", "mean-of-batches")
def exp_of_mean_of_means(batches):
    losses = [F.cross_entropy(x[:, :-1].transpose(1, 2), y[:, 1:]) for x, y in batches]
    return math.exp(np.mean([x.item() for x in losses]))


@wrong("perplexity", "mean-of-perplexities")
def mean_of_exps(batches):
    return np.mean([math.exp(F.cross_entropy(x[:, :-1].transpose(1, 2), y[:, 1:])) for x, y in batches])


@wrong("perplexity", "unshifted")
def aligned(batches):
    pairs = list(batches)
    nats = sum(F.cross_entropy(x.transpose(1, 2), y, reduction="sum").item() for x, y in pairs)
    return math.exp(nats / sum(int((y != -100).sum()) for _, y in pairs))


@wrong("perplexity", "no-exp")
def mean_nats(batches): return one_cat(batches).log()


@wrong("perplexity", "power-of-two")
def two_to_the_nats(batches): return 2 ** float(one_cat(batches).log())


@wrong("perplexity")
def median(batches):
    found = [F.cross_entropy(x[:, :-1].flatten(0, 1), y[:, 1:].flatten(), reduction="none")[
        y[:, 1:].flatten() != -100] for x, y in batches]
    return torch.cat(found).median().exp()


@wrong("perplexity")
def last_batch(batches): return one_cat([list(batches)[-1]])


# sliding_windows

@right("sliding_windows")
def as_in_the_loop(n_tokens, max_length, stride):
    found, done = [], 1
    for begin in range(0, n_tokens, stride):
        end = min(begin + max_length, n_tokens)
        if end > done: found.append((begin, end, end - done))
        done = max(done, end)
    return found


@right("sliding_windows")
def by_ends(n_tokens, max_length, stride):
    end, before = min(max_length, n_tokens), 1
    begin = 0
    while True:
        yield [begin, end, end - before]
        if end == n_tokens: return
        begin, before = begin + stride, end
        end = min(begin + max_length, n_tokens)


@right("sliding_windows")
def closed_form(n_tokens, max_length, stride):
    n = 1 + max(0, math.ceil((n_tokens - max_length) / stride))
    begin = np.arange(n) * stride
    end = np.minimum(begin + max_length, n_tokens)
    return np.stack([begin, end, np.diff(end, prepend=1)], 1)


@wrong("sliding_windows", "first-token-scored")
def all_of_the_first(n_tokens, max_length, stride):
    rows = [list(r) for r in as_in_the_loop(n_tokens, max_length, stride)]
    rows[0][2] += 1
    return rows


@wrong("sliding_windows", "windows-without-tokens")
def without_a_break(n_tokens, max_length, stride):
    ends = [min(b + max_length, n_tokens) for b in range(0, n_tokens, stride)]
    begins = range(0, n_tokens, stride)
    return [(b, e, e - p) for b, e, p in zip(begins, ends, [1, *ends])]


@wrong("sliding_windows", "overlap-scored-twice")
def all_of_each(n_tokens, max_length, stride):
    return [(b, e, e - b - 1) for b, e, _ in as_in_the_loop(n_tokens, max_length, stride)]


@wrong("sliding_windows", "tail-dropped")
def whole_windows(n_tokens, max_length, stride):
    rows = as_in_the_loop(n_tokens, max_length, stride)
    return [r for r in rows if r[1] - r[0] == max_length] or rows[:0]


@wrong("sliding_windows")
def one_token_each(n_tokens, max_length, stride):
    return [(max(0, t + 1 - max_length), t + 1, 1) for t in range(1, n_tokens)]


@wrong("sliding_windows")
def half_stride(n_tokens, max_length, stride):
    return as_in_the_loop(n_tokens, max_length, max(1, stride // 2))


# evaluate

def _scored(batch): return int((batch["labels"][:, 1:] != -100).sum())


@right("evaluate")
def try_finally(model, batches):
    was, nats, n = [(m, m.training) for m in model.modules()], 0., 0
    model.eval()
    try:
        with torch.inference_mode():
            for batch in batches:
                k = _scored(batch)
                if k: nats, n = nats + k * model(**batch).loss.item(), n + k
    finally:
        for m, flag in was: m.training = flag
    return nats / n


@right("evaluate")
def by_logits(model, batches):
    training = model.training
    try:
        model.train(False)
        found = []
        with torch.no_grad():
            for batch in batches:
                logits = model(**batch)["logits"][:, :-1]
                y = batch["labels"][:, 1:]
                found.append(F.cross_entropy(logits.transpose(1, 2), y, reduction="none")[y != -100])
        return torch.cat(found).double().mean()
    finally: model.train(training)


@wrong("evaluate", "left-in-eval-mode")
def never_back(model, batches):
    model.eval()
    with torch.no_grad():
        pairs = [(float(model(**b).loss), _scored(b)) for b in batches if _scored(b)]
    return sum(x * k for x, k in pairs) / sum(k for _, k in pairs)


@wrong("evaluate", "train-mode-afterwards")
def always_back_to_train(model, batches):
    try: return never_back(model, batches)
    finally: model.train()


@wrong("evaluate", "mode-lost-in-failure")
def back_if_all_goes_well(model, batches):
    before = model.training
    mean = never_back(model, batches)
    model.train(before)
    return mean


@wrong("evaluate", "mean-of-batches")
def plain_mean(model, batches):
    before = model.training
    model.eval()
    try:
        with torch.no_grad(): return np.mean([model(**b).loss.item() for b in batches if _scored(b)])
    finally: model.train(before)


@wrong("evaluate", "keeps-gradients")
def with_a_graph(model, batches):
    before, nats, n = model.training, 0, 0
    model.eval()
    try:
        for b in batches:
            if not _scored(b): continue
            nats += model(**b).loss * _scored(b)
            n += _scored(b)
    finally: model.train(before)
    return float(nats / n)


@wrong("evaluate", "nan-from-nothing")
def nan_times_zero(model, batches):
    before = model.training
    model.eval()
    try:
        with torch.no_grad(): pairs = [(model(**b).loss, _scored(b)) for b in batches]
    finally: model.train(before)
    return sum(x * k for x, k in pairs) / sum(k for _, k in pairs)


@wrong("evaluate")
def parameters_frozen(model, batches):
    for p in model.parameters(): p.requires_grad_(False)
    return try_finally(model, batches)


@wrong("evaluate")
def total_nats(model, batches):
    batches = list(batches)
    return try_finally(model, batches) * sum(map(_scored, batches))


# pseudo_nats

@right("pseudo_nats")
def one_batch(model, input_ids, special_tokens_mask, mask_token_id):
    at = (special_tokens_mask == 0).nonzero().flatten()
    rows = input_ids.repeat(len(at), 1)
    rows[torch.arange(len(at)), at] = mask_token_id
    with torch.no_grad(): logits = model(rows).logits
    return F.cross_entropy(logits[torch.arange(len(at)), at], input_ids[at], reduction="sum")


@right("pseudo_nats")
def one_by_one(model, input_ids, special_tokens_mask, mask_token_id):
    total = 0.
    for i, (t, s) in enumerate(zip(input_ids.tolist(), special_tokens_mask.tolist())):
        if s: continue
        ids = input_ids.tolist()
        ids[i] = mask_token_id
        p = model(input_ids=torch.tensor([ids]))["logits"][0, i].softmax(-1)
        total -= math.log(p[t].item())
    return total


@wrong("pseudo_nats", "all-masked-at-once")
def all_at_once(model, input_ids, special_tokens_mask, mask_token_id):
    ordinary = special_tokens_mask == 0
    logits = model(input_ids.masked_fill(ordinary, mask_token_id)[None]).logits[0]
    return F.cross_entropy(logits[ordinary], input_ids[ordinary], reduction="sum").item()


@wrong("pseudo_nats", "not-masked")
def nothing_masked(model, input_ids, special_tokens_mask, mask_token_id):
    logits = model(input_ids.unsqueeze(0)).logits.squeeze(0).log_softmax(-1)
    return -sum(logits[i, t].item() for i, t in enumerate(input_ids) if not special_tokens_mask[i])


@wrong("pseudo_nats", "masks-stay")
def one_growing_mask(model, input_ids, special_tokens_mask, mask_token_id):
    ids, total = input_ids.clone(), 0.
    for i in range(len(ids)):
        if special_tokens_mask[i]: continue
        ids[i] = mask_token_id
        total -= model(ids[None]).logits[0, i].log_softmax(0)[input_ids[i]].item()
    return total


@wrong("pseudo_nats", "mean")
def per_token(model, input_ids, special_tokens_mask, mask_token_id):
    return float(one_batch(model, input_ids, special_tokens_mask, mask_token_id)
                 / (1 - special_tokens_mask.long()).sum())


@wrong("pseudo_nats", "specials-scored")
def every_position(model, input_ids, special_tokens_mask, mask_token_id):
    return one_batch(model, input_ids, torch.zeros_like(special_tokens_mask), mask_token_id)


@wrong("pseudo_nats")
def the_masks_own_nats(model, input_ids, special_tokens_mask, mask_token_id):
    return 0.5 * float(one_batch(model, input_ids, special_tokens_mask, mask_token_id))
