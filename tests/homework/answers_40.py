"""Answers to the exercises of lesson 4, as students write them: right ones in several styles, and each
mistake in another style than the bank has it."""

import math
from collections import namedtuple

import numpy as np
import torch
import torch.nn.functional as F

from course_lm.perplexity import Perplexity, evaluate_lm, token_nll

# ---- perplexity


def ppl_summed(batches):
    nats = tokens = 0
    for logits, labels in batches:
        said, asked = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        nats += F.cross_entropy(said, asked, reduction="sum")
        tokens += (asked != -100).sum()
    return torch.exp(nats / tokens)


def ppl_loops(batches):
    surprisals = []
    for logits, labels in batches:
        for i in range(len(labels)):
            for t in range(1, len(labels[i])):
                if labels[i, t] >= 0:
                    p = logits[i, t - 1].softmax(0)[labels[i, t]].item()
                    surprisals.append(-math.log(p))
    return math.exp(sum(surprisals) / len(surprisals))


def ppl_numpy(batches):
    nats, n = 0.0, 0
    for logits, labels in batches:
        x, y = logits.numpy().astype(float)[:, :-1], labels.numpy()[:, 1:]
        log_probs = x - np.log(np.exp(x).sum(-1, keepdims=True))
        rows, cols = np.nonzero(y != -100)
        nats -= log_probs[rows, cols, y[rows, cols]].sum()
        n += len(rows)
    return np.exp(nats / n)


def ppl_concatenated(batches):
    losses = [token_nll(logits, labels) for logits, labels in batches]
    return torch.cat(losses).mean().exp()


def ppl_weighted_means(batches):
    total, count = torch.zeros(()), 0
    for logits, labels in batches:
        n = int((labels[..., 1:] != -100).sum())
        loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:])
        total, count = total + loss * n, count + n
    return [(total / count).exp()][0].reshape(1)


def ppl_accumulator(batches):
    metric = Perplexity()
    for logits, labels in batches:
        metric.update(logits, labels)
    return str(metric.value)


def mean_loss(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def p_means(batches):
    return np.exp(np.mean([mean_loss(*batch).item() for batch in batches]))


def p_perplexities(batches):
    return torch.stack([mean_loss(*batch).exp() for batch in batches]).mean()


def p_rows(batches):
    pairs = [(mean_loss(*batch).item(), batch[1].shape[0]) for batch in batches]
    return math.exp(np.average([p[0] for p in pairs], weights=[p[1] for p in pairs]))


def p_unshifted(batches):
    nats = tokens = 0
    for logits, labels in batches:
        nats += F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum").item()
        tokens += (labels != -100).sum().item()
    return math.exp(nats / tokens)


def p_clamped(batches):
    losses = []
    for logits, labels in batches:
        log_probs = logits[:, :-1].log_softmax(-1)
        losses.append(-log_probs.gather(-1, labels[:, 1:].clamp(min=0)[..., None]).flatten())
    return torch.cat(losses).mean().exp().item()


def p_zeros_in_the_mean(batches):
    losses = []
    for logits, labels in batches:
        said, asked = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        losses += F.cross_entropy(said, asked, reduction="none").tolist()
    return math.exp(sum(losses) / len(losses))


def p_counts_first(batches):
    nats = tokens = 0
    for logits, labels in batches:
        n = (labels[:, 1:] != -100).sum()
        nats, tokens = nats + mean_loss(logits, labels) * n, tokens + (labels > -100).sum()
    return torch.exp(nats / tokens).item()


def p_labels(batches):
    pairs = [(mean_loss(x, y).item(), int((y > -1).sum())) for x, y in batches]
    return math.exp(np.average([a for a, _ in pairs], weights=[n for _, n in pairs]))


def p_two(batches):
    return 2 ** math.log(ppl_numpy(batches))


def p_nats(batches):
    return math.log(ppl_loops(batches))


def p_first(batches):
    return mean_loss(*list(batches)[0]).exp()


# ---- sliding_windows


def win_while(n_tokens, max_length, stride):
    windows, begin, end = [], 0, 1
    while end < n_tokens:
        before, end = end, min(begin + max_length, n_tokens)
        windows.append([begin, end, end - before])
        begin += stride
    return windows


def win_arrays(n_tokens, max_length, stride):
    n = 1 + max(0, math.ceil((n_tokens - max_length) / stride))
    begin = np.arange(n) * stride
    end = np.minimum(begin + max_length, n_tokens)
    return np.stack([begin, end, np.diff(end, prepend=1)], 1)


def win_tensor(n_tokens, max_length, stride):
    return torch.tensor(win_while(n_tokens, max_length, stride))


def win_generator(n_tokens, max_length, stride):
    first = min(max_length, n_tokens)
    yield 0, first, first - 1
    begin, seen = 0, first
    while seen < n_tokens:
        begin += stride
        new = min(stride, n_tokens - seen)
        seen += new
        yield begin, seen, new


def win_sets(n_tokens, max_length, stride):
    Window = namedtuple("Window", "begin end n")
    scored, out = {0}, []
    for begin in range(0, n_tokens, stride):
        inside = set(range(begin, min(begin + max_length, n_tokens)))
        if inside - scored:
            out.append(Window(min(inside), max(inside) + 1, len(inside - scored)))
        scored |= inside
    return tuple(out)


def w_lengths(n_tokens, max_length, stride):
    out = []
    for begin, end, n in win_while(n_tokens, max_length, stride):
        out.append((begin, end, end - begin if begin else end - 1))
    return out


def w_first(n_tokens, max_length, stride):
    windows = win_while(n_tokens, max_length, stride)
    windows[0][2] += 1
    return windows


def w_all_starts(n_tokens, max_length, stride):
    out, previous_end = [], 1
    for begin_loc in range(0, n_tokens, stride):
        end_loc = min(begin_loc + max_length, n_tokens)
        out.append((begin_loc, end_loc, end_loc - previous_end))
        previous_end = end_loc
    return out


def w_blocks(n_tokens, max_length, stride):
    begins = torch.arange(0, n_tokens, max_length)
    ends = (begins + max_length).clamp(max=n_tokens)
    scored = ends - begins
    scored[0] -= 1
    return torch.stack([begins, ends, scored], 1)


def w_overlap(n_tokens, max_length, stride):
    return win_while(n_tokens, max_length, max_length - stride)


def w_full(n_tokens, max_length, stride):
    out = []
    for begin in range(0, n_tokens - max_length + 1, stride):
        out.append((begin, begin + max_length, stride if begin else max_length - 1))
    return out


def w_guide(n_tokens, max_length, stride):
    out, before = [], 0
    for begin in range(0, n_tokens, stride):
        end = min(begin + max_length, n_tokens)
        out.append([begin, end, end - before - 1])
        before = end
        if end == n_tokens:
            break
    return np.array(out)


def w_stride(n_tokens, max_length, stride):
    windows = win_arrays(n_tokens, max_length, stride)
    windows[1:, 2] = stride
    return windows


def w_past(n_tokens, max_length, stride):
    out, done = [], 1
    for begin in range(0, n_tokens, stride):
        end = begin + max_length
        out.append((begin, end, min(end, n_tokens) - done))
        done = min(end, n_tokens)
        if end >= n_tokens:
            return out


def w_moved(n_tokens, max_length, stride):
    *rest, (begin, end, n) = win_while(n_tokens, max_length, stride)
    return [*map(tuple, rest), (max(0, end - max_length), end, n)]


def w_old_guide(n_tokens, max_length, stride):
    out = []
    for i in range(0, n_tokens, stride):
        begin_loc = max(i + stride - max_length, 0)
        end_loc = min(i + stride, n_tokens)
        out.append((begin_loc, end_loc, end_loc - i - (i == 0)))
    return out


# ---- evaluate


def eval_plain(model, batches):
    training = model.training
    model.eval()
    try:
        total, n = 0, 0
        with torch.no_grad():
            for batch in batches:
                k = (batch["labels"][:, 1:] != -100).sum().item()
                if k:
                    total += k * model(**batch).loss.item()
                    n += k
        return total / n
    finally:
        model.train(training)


@torch.inference_mode()
def eval_own_loss(model, batches):
    before = [(m, m.training) for m in model.modules()]
    model.train(False)
    try:
        parts = []
        for batch in batches:
            out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            said, asked = out[0][:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()
            parts.append(F.cross_entropy(said, asked, reduction="none")[asked >= 0])
        return torch.cat(parts).double().mean()
    finally:
        for m, mode in before:
            m.training = mode


def eval_course(model, batches):
    return evaluate_lm(model, list(batches)).cross_entropy


class InEval:
    def __init__(self, model):
        self.model = model

    def __enter__(self):
        self.before, self.grad = self.model.training, torch.is_grad_enabled()
        self.model.eval()
        torch.set_grad_enabled(False)

    def __exit__(self, *error):
        self.model.train(self.before)
        torch.set_grad_enabled(self.grad)


def eval_manager(model, batches):
    sums = np.zeros(2)
    with InEval(model):
        for batch in batches:
            logits, labels = model(**batch)["logits"], batch["labels"]
            for row, asked in zip(logits.log_softmax(-1), labels.tolist()):
                for t, label in enumerate(asked[1:]):
                    if label != -100:
                        sums += [-float(row[t, label]), 1]
    return sums[0] / sums[1]


def eval_nansum(model, batches):
    was = model.training
    try:
        model.eval()
        with torch.no_grad():
            pairs = [(model(**b).loss, (b["labels"][:, 1:] != -100).sum()) for b in batches]
        losses, counts = map(torch.stack, zip(*pairs))
        return torch.nansum(losses * counts) / counts.sum()
    finally:
        if was:
            model.train()


def e_sum(model, batches, mode="eval", after=None, count=None, grad=False):
    "A loop with parts to get wrong; without a `finally`."
    if mode:
        getattr(model, mode)()
    sums = torch.zeros(2, dtype=torch.double)
    for batch in batches:
        n = (batch["labels"][:, 1:] != -100).sum()
        if n:
            with torch.set_grad_enabled(grad):
                loss = model(**batch).loss
            weight = count(batch) if count else n
            sums = sums + torch.tensor([loss.item() * weight, weight])
    if after:
        getattr(model, after)()
    return sums[0] / sums[1]


def restoring(**how):
    def evaluate(model, batches):
        was = model.training
        try:
            return e_sum(model, batches, **how)
        finally:
            model.train(was)

    return evaluate


def e_never_eval(model, batches):
    with torch.no_grad():
        return e_sum(model, batches, mode=None)


def e_left(model, batches):
    return e_sum(model, batches)


def e_train_after(model, batches):
    try:
        return e_sum(model, batches)
    finally:
        model.train()


def e_no_finally(model, batches):
    mode = "train" if model.training else "eval"
    return e_sum(model, batches, after=mode)


def e_nan(model, batches):
    was, nats, n = model.training, 0.0, 0
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                k = int(batch["labels"][:, 1:].ne(-100).sum())
                nats, n = nats + model(**batch).loss.item() * k, n + k
    finally:
        model.train(was)
    return nats / n


def e_exp(model, batches):
    return torch.exp(eval_nansum(model, batches))


def e_grad_off(model, batches):
    torch.set_grad_enabled(False)
    return eval_plain(model, batches)


def e_thaw(model, batches):
    model.requires_grad_(False)
    try:
        return restoring(grad=True)(model, batches)
    finally:
        model.requires_grad_(True)


# ---- pseudo_nats


def pn_batch(model, input_ids, special_tokens_mask, mask_token_id):
    places = torch.nonzero(special_tokens_mask == 0).flatten()
    rows = input_ids.repeat(len(places), 1)
    i = torch.arange(len(places))
    rows[i, places] = mask_token_id
    with torch.no_grad():
        logits = model(input_ids=rows, attention_mask=torch.ones_like(rows)).logits
    return F.cross_entropy(logits[i, places], input_ids[places], reduction="sum")


def pn_labels(model, input_ids, special_tokens_mask, mask_token_id):
    nats = []
    for t, special in enumerate(special_tokens_mask.tolist()):
        if not special:
            labels = torch.full_like(input_ids, -100)
            labels[t] = input_ids[t]
            row = torch.where(labels == -100, input_ids, mask_token_id)
            nats.append(model(input_ids=row[None], labels=labels[None]).loss.item())
    return math.fsum(nats)


def pn_lists(model, input_ids, special_tokens_mask, mask_token_id):
    ids, total = input_ids.tolist(), 0.0
    for t in range(len(ids)):
        if special_tokens_mask[t] == 0:
            masked = ids[:t] + [mask_token_id] + ids[t + 1 :]
            probs = model(torch.tensor([masked]))[0][0, t].softmax(-1).tolist()
            total += math.log(1 / probs[ids[t]])
    return total


def pn_put_back(model, input_ids, special_tokens_mask, mask_token_id):
    ids, nats = input_ids.clone(), torch.zeros(1)
    for t in (1 - special_tokens_mask).nonzero():
        kept = ids[t].clone()
        ids[t] = mask_token_id
        with torch.no_grad():
            nats -= model(ids.unsqueeze(0))["logits"].log_softmax(-1)[0, t, kept]
        ids[t] = kept
    return nats


def picked(model, row, t, target):
    with torch.no_grad():
        return -model(row[None]).logits[0, t].log_softmax(-1)[target].item()


def ordinary(special_tokens_mask):
    return [t for t, s in enumerate(special_tokens_mask) if not s]


def n_open(model, input_ids, special_tokens_mask, mask_token_id):
    with torch.no_grad():
        log_probs = model(input_ids[None]).logits[0].log_softmax(-1)
    each = -log_probs[torch.arange(len(input_ids)), input_ids]
    return (each * (1 - special_tokens_mask)).sum()


def n_all(model, input_ids, special_tokens_mask, mask_token_id):
    return pn_batch(model, input_ids, torch.zeros_like(special_tokens_mask), mask_token_id)


def n_pile(model, input_ids, special_tokens_mask, mask_token_id):
    row, nats = input_ids.clone(), 0
    for t in ordinary(special_tokens_mask):
        row[t] = mask_token_id
        nats += picked(model, row, t, input_ids[t])
    return nats


def n_ends(model, input_ids, special_tokens_mask, mask_token_id):
    ends = torch.ones_like(special_tokens_mask)
    ends[1:-1] = 0
    return pn_lists(model, input_ids, ends, mask_token_id)


def n_once(model, input_ids, special_tokens_mask, mask_token_id):
    row = input_ids.masked_fill(~special_tokens_mask.bool(), mask_token_id)
    return sum(picked(model, row, t, input_ids[t]) for t in ordinary(special_tokens_mask))


def n_before(model, input_ids, special_tokens_mask, mask_token_id):
    nats = 0.0
    for t in ordinary(special_tokens_mask):
        row = torch.cat([input_ids[:t], torch.tensor([mask_token_id]), input_ids[t + 1 :]])
        if t:
            nats += picked(model, row, t - 1, input_ids[t])
    return nats


def n_sign(*args):
    return math.log(math.exp(-pn_labels(*args)))


def n_mean(model, input_ids, special_tokens_mask, mask_token_id):
    return pn_batch(model, input_ids, special_tokens_mask, mask_token_id) / len(ordinary(special_tokens_mask))


# ---- strided_perplexity


def sp_weighted(model, ids, max_length, stride):
    nats = tokens = done = 0
    for begin in range(0, len(ids), stride):
        end = min(begin + max_length, len(ids))
        labels = ids[begin:end].clone()
        labels[: -(end - done)] = -100
        n = (labels[1:] != -100).sum().item()
        nats += model(ids[None, begin:end], labels=labels[None]).loss.item() * n
        tokens += n
        done = end
        if end == len(ids):
            break
    return math.exp(nats / tokens)


def sp_cat(model, ids, max_length, stride):
    losses = []
    for begin, end, n in win_while(len(ids), max_length, stride):
        with torch.no_grad():
            losses.append(token_nll(model(ids[begin:end][None]).logits, ids[None, begin:end])[-n:])
    return torch.cat(losses).mean().exp().item()


def sp_logits(model, ids, max_length, stride):
    nats = 0.0
    for begin, end, n in win_arrays(len(ids), max_length, stride):
        log_probs = model(ids[None, begin:end]).logits[0].log_softmax(-1).detach().numpy()
        nats -= sum(log_probs[t - begin - 1, ids[t]] for t in range(end - n, end))
    return np.exp(nats / (len(ids) - 1))


def sp_lists(model, ids, max_length, stride):
    means, counts = [], []
    for begin, end, n in win_generator(len(ids), max_length, stride):
        labels = torch.tensor([[-100] * (end - begin - n) + ids[end - n : end].tolist()])
        means.append(model(ids[None, begin:end], labels=labels).loss.item())
        counts.append(n)
    return math.exp(np.average(means, weights=counts))


def window_losses(model, ids, max_length, stride):
    for begin, end, n in win_while(len(ids), max_length, stride):
        with torch.no_grad():
            yield token_nll(model(ids[None, begin:end]).logits, ids[None, begin:end])[-n:], begin


def s_means(model, ids, max_length, stride):
    return math.exp(np.mean([nll.mean() for nll, _ in window_losses(model, ids, max_length, stride)]))


def s_minus_one(model, ids, max_length, stride):
    windows = window_losses(model, ids, max_length, stride)
    pairs = [(nll.mean().item(), len(nll) - bool(b)) for nll, b in windows]
    return math.exp(sum(a * b for a, b in pairs) / sum(b for _, b in pairs))


def s_plus_one(model, ids, max_length, stride):
    windows = window_losses(model, ids, max_length, stride)
    pairs = [(nll.mean().item(), len(nll) + (b == 0)) for nll, b in windows]
    return np.exp(np.dot(*map(np.array, zip(*pairs))) / sum(n for _, n in pairs))


RIGHT = {
    "perplexity": [ppl_summed, ppl_loops, ppl_numpy, ppl_concatenated, ppl_weighted_means, ppl_accumulator],
    "sliding_windows": [win_while, win_arrays, win_tensor, win_generator, win_sets],
    "evaluate": [eval_plain, eval_own_loss, eval_course, eval_manager, eval_nansum],
    "pseudo_nats": [pn_batch, pn_labels, pn_lists, pn_put_back],
    "strided_perplexity": [sp_weighted, sp_cat, sp_logits, sp_lists],
}

WRONG = {
    "perplexity": [
        ("mean-of-batches", p_means),
        ("mean-of-perplexities", p_perplexities),
        ("weighted-by-rows", p_rows),
        ("unshifted", p_unshifted),
        ("padding-as-zero", p_clamped),
        ("padding-counted", p_zeros_in_the_mean),
        ("first-token-counted", p_counts_first),
        ("weighted-by-labels", p_labels),
        ("power-of-two", p_two),
        ("no-exp", p_nats),
        ("first-batch-only", p_first),
    ],
    "sliding_windows": [
        ("overlap-scored-twice", w_lengths),
        ("first-token-scored", w_first),
        ("windows-without-tokens", w_all_starts),
        ("no-overlap", w_blocks),
        ("overlap-is-stride", w_overlap),
        ("tail-dropped", w_full),
        ("one-too-few", w_guide),
        ("last-scores-stride", w_stride),
        ("past-the-end", w_past),
        ("last-window-moved", w_moved),
        ("grows-by-stride", w_old_guide),
    ],
    "evaluate": [
        ("train-mode", e_never_eval),
        ("left-in-eval-mode", e_left),
        ("train-mode-afterwards", e_train_after),
        ("mode-lost-in-failure", e_no_finally),
        ("keeps-gradients", restoring(grad=True)),
        ("mean-of-batches", restoring(count=lambda batch: 1)),
        ("first-token-counted", restoring(count=lambda batch: (batch["labels"] > -1).sum())),
        ("weighted-by-rows", restoring(count=lambda batch: len(batch["input_ids"]))),
        ("perplexity", e_exp),
        ("nan-from-nothing", e_nan),
        ("gradients-left-off", e_grad_off),
        ("gradients-switched-on", e_thaw),
    ],
    "pseudo_nats": [
        ("not-masked", n_open),
        ("specials-scored", n_all),
        ("masks-stay", n_pile),
        ("ends-only", n_ends),
        ("all-masked-at-once", n_once),
        ("scored-before", n_before),
        ("negative", n_sign),
        ("mean", n_mean),
    ],
    "strided_perplexity": [
        ("mean-of-windows", s_means),
        ("one-less", s_minus_one),
        ("first-token-counted", s_plus_one),
    ],
}
