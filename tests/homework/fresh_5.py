"Answers to lesson 5, in styles of all kinds."
import math
from collections import defaultdict

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.homework.fresh import right, wrong


def _scored(batch): return int((batch["labels"][:, 1:] != -100).sum())


# accumulate

@right("accumulate")
def weights_first(model, optimizer, batches):
    batches = list(batches)
    total = sum(map(_scored, batches))
    optimizer.zero_grad()
    mean = 0.
    for batch in batches:
        k = _scored(batch)
        if not k: continue
        loss = model(**batch).loss * (k / total)
        loss.backward()
        mean += loss.item()
    optimizer.step()
    return mean


@right("accumulate")
def gradients_divided_at_the_end(model, optimizer, batches):
    for p in model.parameters(): p.grad = None
    nats, n = torch.zeros(()), 0
    for batch in batches:
        logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
        s = F.cross_entropy(logits[:, :-1].transpose(1, 2), batch["labels"][:, 1:], reduction="sum")
        s.backward()
        nats, n = nats + s.detach(), n + _scored(batch)
    for p in model.parameters():
        if p.grad is not None: p.grad /= n
    optimizer.step()
    return nats / n


@right("accumulate")
def one_graph(model, optimizer, batches):
    optimizer.zero_grad(set_to_none=False)
    pairs = [(model(**b)["loss"] * _scored(b), _scored(b)) for b in batches if _scored(b)]
    loss = sum(x for x, _ in pairs) / sum(n for _, n in pairs)
    loss.backward()
    optimizer.step()
    return loss


@wrong("accumulate", "mean-of-means")
def over_the_number(model, optimizer, batches):
    batches = list(batches)
    optimizer.zero_grad()
    losses = []
    for b in batches:
        loss = model(**b).loss / len(batches)
        loss.backward()
        losses.append(loss.item())
    optimizer.step()
    return sum(losses)


@wrong("accumulate", "leftover-gradients")
def no_zero(model, optimizer, batches):
    pairs = [(model(**b).loss * _scored(b), _scored(b)) for b in batches]
    loss = sum(x for x, _ in pairs) / sum(n for _, n in pairs)
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("accumulate", "step-per-batch")
def a_step_each(model, optimizer, batches):
    batches = list(batches)
    total, mean = sum(map(_scored, batches)), 0.
    for b in batches:
        optimizer.zero_grad()
        loss = model(**b).loss * _scored(b) / total
        loss.backward()
        optimizer.step()
        mean += loss.item()
    return mean


@wrong("accumulate", "no-update")
def never_a_step(model, optimizer, batches):
    optimizer.zero_grad()
    pairs = [(model(**b).loss * _scored(b), _scored(b)) for b in batches]
    loss = sum(x for x, _ in pairs) / sum(n for _, n in pairs)
    loss.backward()
    return loss.item()


@wrong("accumulate")
def doubled(model, optimizer, batches):
    optimizer.zero_grad()
    pairs = [(model(**b).loss * _scored(b), _scored(b)) for b in batches]
    loss = sum(x for x, _ in pairs) / sum(n for _, n in pairs)
    (2 * loss).backward()
    optimizer.step()
    return loss.item()


@wrong("accumulate")
def clipped(model, optimizer, batches):
    optimizer.zero_grad()
    pairs = [(model(**b).loss * _scored(b), _scored(b)) for b in batches]
    loss = sum(x for x, _ in pairs) / sum(n for _, n in pairs)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), .01)
    optimizer.step()
    return loss.item()


# linear_schedule

@right("linear_schedule")
def by_interp(step, warmup_steps, n_steps):
    if step >= n_steps: return 0.
    if step < warmup_steps: return np.interp(step, [0, warmup_steps], [0, 1])
    return np.interp(step, [warmup_steps, n_steps], [1, 0])


@right("linear_schedule")
def from_torch(step, warmup_steps, n_steps):
    opt = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.)
    def factor(s):
        if s < warmup_steps: return s / max(1, warmup_steps)
        return max(0., (n_steps - s) / max(1, n_steps - warmup_steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, factor)
    for _ in range(step):
        opt.step()
        schedule.step()
    return schedule.get_last_lr()[0]


@right("linear_schedule")
def min_of_two(step, warmup_steps, n_steps):
    if step < warmup_steps: return torch.tensor(step / warmup_steps)
    left = n_steps - warmup_steps
    return torch.tensor((n_steps - step) / left if left else 0.).clamp(0, 1)


@wrong("linear_schedule", "no-warm-up")
def only_down(step, warmup_steps, n_steps):
    if step < warmup_steps: return 1.
    return max(0, n_steps - step) / max(1, n_steps - warmup_steps)


@wrong("linear_schedule", "one-ahead")
def step_from_one(step, warmup_steps, n_steps):
    step += 1
    if step < warmup_steps: return step / warmup_steps
    return max(0, n_steps - step) / max(1, n_steps - warmup_steps)


@wrong("linear_schedule", "falls-from-zero")
def down_from_the_start(step, warmup_steps, n_steps):
    if step < warmup_steps: return step / warmup_steps
    return max(0., 1 - step / n_steps)


@wrong("linear_schedule", "stays-up")
def constant_after(step, warmup_steps, n_steps): return min(1., step / max(1, warmup_steps))


@wrong("linear_schedule", "cosine")
def cosine_down(step, warmup_steps, n_steps):
    if step < warmup_steps: return step / warmup_steps
    t = min(1, (step - warmup_steps) / max(1, n_steps - warmup_steps))
    return (math.cos(math.pi * t) + 1) / 2


@wrong("linear_schedule")
def squared(step, warmup_steps, n_steps): return float(by_interp(step, warmup_steps, n_steps)) ** 2


@wrong("linear_schedule")
def floor_of_a_tenth(step, warmup_steps, n_steps):
    return max(.1, float(by_interp(step, warmup_steps, n_steps)))


# decay_groups

@right("decay_groups")
def by_dimension(model):
    named = list(model.named_parameters())
    return [n for n, p in named if p.ndim >= 2], [n for n, p in named if p.ndim < 2]


@right("decay_groups")
def by_seen_pointers(model):
    groups, seen = ([], []), set()
    for name, p in model.named_parameters(remove_duplicate=False):
        if p.data_ptr() in seen and p.numel(): continue
        seen.add(p.data_ptr())
        groups[0 if len(p.shape) > 1 else 1].append(name)
    return groups


@right("decay_groups")
def by_modules(model):
    out = {id(m.weight) for m in [model.get_output_embeddings()] if m is not None}
    spared = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)} - out
    named = dict(model.named_parameters())
    yes = [n for n, p in named.items() if p.dim() > 1 and id(p) not in spared]
    return yes, sorted(named.keys() - set(yes))


@wrong("decay_groups", "everything-decayed")
def all_of_it(model): return [n for n, _ in model.named_parameters()], []


@wrong("decay_groups", "biases-decayed")
def norms_only_spared(model):
    named = list(model.named_parameters())
    norm = [n for n, p in named if p.ndim == 1 and not n.endswith("bias")]
    return [n for n, _ in named if n not in norm], norm


@wrong("decay_groups", "groups-swapped")
def other_order(model): return by_dimension(model)[::-1]


@wrong("decay_groups", "parameters-not-names")
def the_weights(model):
    ps = list(model.parameters())
    return [p for p in ps if p.ndim > 1], [p for p in ps if p.ndim == 1]


@wrong("decay_groups", "tied-twice")
def tied_names_too(model):
    named = list(model.named_parameters(remove_duplicate=False))
    return [n for n, p in named if p.ndim >= 2], [n for n, p in named if p.ndim < 2]


@wrong("decay_groups")
def only_frozen_left(model):
    named = list(model.named_parameters())[1:]
    return [n for n, p in named if p.ndim >= 2], [n for n, p in named if p.ndim < 2][1:]


# add_pad_token

@right("add_pad_token")
def plainly(model, tokenizer):
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": "<|padding|>"})
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.pad_token_id = tokenizer.pad_token_id
    return tokenizer.pad_token_id


@right("add_pad_token")
def as_numpy_int(model, tokenizer):
    have = tokenizer.pad_token
    if have is None or have == tokenizer.eos_token: tokenizer.add_special_tokens(dict(pad_token="[PAD]"))
    need = max(tokenizer.pad_token_id + 1, len(tokenizer))
    if model.get_input_embeddings().weight.shape[0] < need: model.resize_token_embeddings(need)
    return np.int64(tokenizer.pad_token_id)


@wrong("add_pad_token", "pad-is-eos and not-resized")
def the_usual_line(model, tokenizer):
    if not tokenizer.pad_token: tokenizer.pad_token = tokenizer.eos_token
    return tokenizer.convert_tokens_to_ids(tokenizer.pad_token)


@wrong("add_pad_token", "not-resized")
def no_row(model, tokenizer):
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        tokenizer.add_special_tokens({"pad_token": "<p>"})
    return tokenizer.pad_token_id


@wrong("add_pad_token", "token-not-id")
def the_token(model, tokenizer):
    plainly(model, tokenizer)
    return tokenizer.pad_token


@wrong("add_pad_token", "eos-is-kept")
def only_if_none(model, tokenizer):
    if tokenizer.pad_token is None: tokenizer.add_special_tokens({"pad_token": "<p>"})
    size = len(tokenizer)
    if size > model.get_input_embeddings().num_embeddings: model.resize_token_embeddings(size)
    return tokenizer.pad_token_id


@wrong("add_pad_token")
def zero(model, tokenizer): return 0


@wrong("add_pad_token")
def eos_moved(model, tokenizer):
    pad = plainly(model, tokenizer)
    tokenizer.eos_token = tokenizer.pad_token
    return pad


# train

@right("train")
def closure_style(model, batches, optimizer):
    model.train()
    def one(batch):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        return loss.detach()
    return [one(b) for b in batches]


@right("train")
def zero_after(model, batches, optimizer):
    model.zero_grad()
    optimizer.zero_grad()
    model.train(True)
    losses = torch.zeros(0)
    for batch in iter(batches):
        out = model(**batch)
        out["loss"].backward()
        optimizer.step()
        for p in model.parameters(): p.grad = None
        losses = torch.cat([losses, out["loss"].detach().reshape(1)])
    return losses


@wrong("train", "eval-mode")
def as_it_comes(model, batches, optimizer):
    for batch in batches:
        loss = model(**batch)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


@wrong("train", "never-zero")
def piling_up(model, batches, optimizer):
    model.train()
    found = []
    for batch in batches:
        found.append(model(**batch).loss)
        found[-1].backward()
        optimizer.step()
    return [float(x) for x in found]


@wrong("train", "no-update")
def zero_between(model, batches, optimizer):
    model.train()
    found = []
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        optimizer.zero_grad()
        optimizer.step()
        found.append(loss.item())
    return found


@wrong("train", "one-update")
def once_at_the_end(model, batches, optimizer):
    model.train()
    optimizer.zero_grad()
    losses = [model(**b).loss for b in batches]
    torch.stack(losses).sum().backward()
    optimizer.step()
    return [x.item() for x in losses]


@wrong("train", "running-means")
def so_far(model, batches, optimizer):
    losses = [float(x) for x in closure_style(model, batches, optimizer)]
    return np.cumsum(losses) / np.arange(1, len(losses) + 1)


@wrong("train")
def two_steps_each(model, batches, optimizer):
    model.train()
    found = []
    for batch in batches:
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.step()
        found.append(loss.item())
    return found


@wrong("train")
def every_second(model, batches, optimizer):
    return closure_style(model, [b for i, b in enumerate(batches) if i % 2 == 0], optimizer)


# last_token, by those who have just trained

@right("last_token")
def by_flip(hidden, attention_mask):
    n = attention_mask.shape[1]
    last = n - 1 - attention_mask.flip(1).argmax(1)
    return hidden[torch.arange(len(hidden)), last]


@right("last_token")
def by_weights(hidden, attention_mask):
    m = attention_mask.to(hidden.dtype)
    later = m.flip(1).cumsum(1).flip(1)
    pick = m * (later == 1)
    return torch.einsum("bt,btd->bd", pick, hidden)


@right("last_token")
def by_rows(hidden, attention_mask):
    rows = zip(hidden, attention_mask.tolist())
    return [h[max(i for i, m in enumerate(row) if m)].tolist() for h, row in rows]


@wrong("last_token", "last-position")
def minus_one(hidden, attention_mask): return hidden.select(1, -1)


@wrong("last_token", "right-padding-only")
def count_minus_one(hidden, attention_mask):
    at = attention_mask.sum(1).long() - 1
    return hidden.gather(1, at[:, None, None].expand(-1, 1, hidden.shape[-1])).squeeze(1)


@wrong("last_token", "means")
def pooled(hidden, attention_mask):
    m = attention_mask[..., None].float()
    return (hidden * m).sum(1) / m.sum(1)


@wrong("last_token", "first-position")
def cls(hidden, attention_mask): return torch.stack([h[0] for h in hidden])


@wrong("last_token")
def first_real(hidden, attention_mask):
    return hidden[torch.arange(len(hidden)), attention_mask.long().argmax(1)]


@wrong("last_token")
def sum_of_last_two(hidden, attention_mask):
    found = defaultdict(list)
    for b, row in enumerate(attention_mask.tolist()): found[b] = [t for t, m in enumerate(row) if m][-2:]
    return torch.stack([hidden[b, ts].sum(0) for b, ts in found.items()])
