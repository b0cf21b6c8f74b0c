"""Answers to the exercises of lesson 5, as students write them: right ones in several styles, and each
mistake in another style than the bank has it."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from course_lm.finetuning import decay_groups as course_groups, lr_factor

# ---- accumulate


def scored(batch):
    return (batch["labels"][:, 1:] != -100).sum().item()


def acc_weighted(model, optimizer, batches):
    batches = list(batches)
    total = sum(scored(b) for b in batches)
    optimizer.zero_grad()
    mean = 0.0
    for batch in batches:
        loss = model(**batch).loss * scored(batch) / total
        loss.backward()
        mean += loss.item()
    optimizer.step()
    return mean


def acc_divide_later(model, optimizer, batches):
    for p in model.parameters():
        p.grad = None
    nats, n = 0, 0
    for batch in batches:
        k = scored(batch)
        loss = model(**batch).loss * k
        loss.backward()
        nats, n = nats + loss.detach(), n + k
    for p in model.parameters():
        if p.grad is not None:
            p.grad /= n
    optimizer.step()
    optimizer.zero_grad()
    return nats / n


def acc_own_loss(model, optimizer, batches):
    model.train()
    parts = []
    for batch in batches:
        said = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
        losses = F.cross_entropy(said.transpose(1, 2), batch["labels"][:, 1:], reduction="none")
        parts.append(losses[batch["labels"][:, 1:] != -100])
    loss = torch.cat(parts).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def acc_autograd(model, optimizer, batches):
    batches, params = [*batches], list(model.parameters())
    total = np.array([scored(b) for b in batches])
    sums, losses = [torch.zeros_like(p) for p in params], []
    for batch, share in zip(batches, total / total.sum()):
        loss = model(**batch).loss
        losses.append(loss.item())
        for s, g in zip(sums, torch.autograd.grad(loss, params)):
            s += share * g
    for p, s in zip(params, sums):
        p.grad = s
    optimizer.step()
    return np.average(losses, weights=total)


def acc_one_sum(model, optimizer, batches):
    batches = list(batches)
    optimizer.zero_grad()
    nats = torch.stack([model(**b)[0] * scored(b) for b in batches]).sum()
    loss = nats / sum(map(scored, batches))
    loss.backward()
    optimizer.step()
    return [float(loss)][0]


def looped(weight, inside=(), before=True, step=True, told=None):
    "A loop with parts to get wrong."

    def accumulate(model, optimizer, batches):
        batches = list(batches)
        if before:
            optimizer.zero_grad()
        losses = []
        for i, batch in enumerate(batches):
            if "zero" in inside:
                optimizer.zero_grad(set_to_none=False)
            loss = model(**batch).loss
            (weight(batch, batches) * loss).backward()
            losses.append(loss.item())
            if "step" in inside:
                optimizer.step()
                optimizer.zero_grad()
        if step:
            optimizer.step()
        counts = list(map(scored, batches))
        return told(losses, counts) if told else float(np.dot(losses, counts) / sum(counts))

    return accumulate


def mean_weight(batch, batches):
    return 1 / len(batches)


def token_weight(batch, batches):
    return scored(batch) / sum(map(scored, batches))


def row_weight(batch, batches):
    return batch["labels"].shape[0] / sum(b["labels"].shape[0] for b in batches)


def label_weight(batch, batches):
    return (batch["labels"] >= 0).sum() / torch.cat([b["labels"].flatten() for b in batches]).ge(0).sum()


def mask_weight(batch, batches):
    return batch["attention_mask"].sum().item() / sum(int(b["attention_mask"].sum()) for b in batches)


def no_weight(batch, batches):
    return 1


# ---- linear_schedule


def lin_cases(step, warmup_steps, n_steps):
    if step < warmup_steps:
        return step / warmup_steps
    if step >= n_steps:
        return 0
    return (n_steps - step) / (n_steps - warmup_steps)


def lin_course(step, warmup_steps, n_steps):
    return 0.0 if step >= n_steps else lr_factor(step, n_steps, "linear", warmup_steps)


def lin_numpy(step, warmup_steps, n_steps):
    if step >= n_steps:
        return np.float32(0)
    return np.interp(step, [0, warmup_steps, n_steps], [0 if warmup_steps else 1, 1, 0])


def lin_torch(step, warmup_steps, n_steps):
    up = torch.tensor(step / max(1, warmup_steps))
    down = torch.tensor((n_steps - step) / max(1, n_steps - warmup_steps)).clamp(min=0)
    return up if step < warmup_steps else down


def lin_transformers(step, warmup_steps, n_steps):
    if step < warmup_steps:
        return float(step) / float(max(1, warmup_steps))
    return max(0.0, float(n_steps - step) / float(max(1, n_steps - warmup_steps)))


def l_ahead(step, warmup_steps, n_steps):
    return lin_cases(step + 1 if step < warmup_steps else step, warmup_steps, n_steps)


def l_from_zero(step, warmup_steps, n_steps):
    return step / warmup_steps if step < warmup_steps else max(0, 1 - step / n_steps)


def l_below(step, warmup_steps, n_steps):
    down = np.float64(n_steps - step) / np.maximum(n_steps - warmup_steps, 1)
    return step / warmup_steps if step < warmup_steps else down


def l_no_warmup(step, warmup_steps, n_steps):
    return np.clip(1 - step / n_steps, 0, None)


def l_early(step, warmup_steps, n_steps):
    last = n_steps - 1
    if step < warmup_steps:
        return step / warmup_steps
    return 0 if step >= last else (last - step) / (last - warmup_steps)


def l_cosine(step, warmup_steps, n_steps):
    if step < warmup_steps:
        return step / warmup_steps
    progress = min(1, (step - warmup_steps) / max(1, n_steps - warmup_steps))
    return 0.5 * (1 + math.cos(math.pi * progress))


def l_constant(step, warmup_steps, n_steps):
    return min(1.0, step / max(1, warmup_steps)) if warmup_steps else 1.0


def l_divides(step, warmup_steps, n_steps):
    slope = 1 / warmup_steps if step < warmup_steps else -1 / (n_steps - warmup_steps)
    return max(0, step * slope if slope > 0 else (step - n_steps) * slope)


# ---- decay_groups


def dec_dimensions(model):
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    decayed, rest = [], []
    for name, p in model.named_parameters():
        (decayed if p.ndim >= 2 and id(p) not in tables else rest).append(name)
    return decayed, rest


def dec_all_matrices(model):
    names = dict(model.named_parameters())
    decayed = {name for name, p in names.items() if p.dim() > 1}
    return decayed, names.keys() - decayed


def dec_course(model):
    groups = {kind: [n for n, _ in named] for kind, named in course_groups(model).items()}
    return groups["matrix"] + groups.get("output", []), {*groups["embedding"], *groups["vector"]}


def dec_trainer(model):
    from transformers.trainer_pt_utils import get_parameter_names

    keep = get_parameter_names(model, [nn.LayerNorm, nn.Embedding])
    keep = [n for n in keep if not n.endswith("bias") and "norm" not in n.lower()]
    names = [n for n, _ in model.named_parameters()]
    return [n for n in names if n in keep], [n for n in names if n not in keep]


def dec_modules(model):
    seen, decayed, rest = set(), [], []
    for prefix, module in model.named_modules():
        for name, p in module.named_parameters(recurse=False):
            if p in seen:
                continue
            seen.add(p)
            full = f"{prefix}.{name}" if prefix else name
            vector = len(p.shape) < 2 or "Embedding" in type(module).__name__
            (rest if vector else decayed).append(full)
    return tuple(decayed), tuple(rest)


def split_names(model, keep, **how):
    pairs = list(model.named_parameters(**how))
    return [n for n, p in pairs if keep(n, p)], [n for n, p in pairs if not keep(n, p)]


def d_hf_course(model):
    no_decay = ["bias", "LayerNorm.weight"]
    return split_names(model, lambda n, p: not any(nd in n for nd in no_decay))


def d_layer_norms(model):
    norms = [name for name, m in model.named_modules() if type(m) in (nn.LayerNorm, nn.Embedding)]
    return split_names(model, lambda n, p: "bias" not in n and n.rsplit(".", 1)[0] not in norms)


def d_linears(model):
    linears = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    return split_names(model, lambda n, p: n in linears)


def d_biases(model):
    decayed, rest = dec_dimensions(model)
    biases = [n for n in rest if n.split(".")[-1] == "bias"]
    return decayed + biases, [n for n in rest if n not in biases]


def d_all(model):
    names = [name for name, _ in model.named_parameters()]
    return names, names[:0]


def d_no_head(model):
    return split_names(model, lambda n, p: p.ndim == 2 and p.shape[0] != model.config.vocab_size)


def d_state_dict(model):
    state = model.state_dict()
    return [n for n in state if state[n].ndim == 2], [n for n in state if state[n].ndim != 2]


def d_swapped(model):
    return dec_all_matrices(model)[::-1]


def d_tensors(model):
    params = list(model.parameters())
    return [p for p in params if p.ndim > 1], [p for p in params if p.ndim < 2]


# ---- add_pad_token


def pad_plain(model, tokenizer):
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    return tokenizer.pad_token_id


def pad_add_tokens(model, tokenizer):
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.add_tokens(["[PAD]"], special_tokens=True)
        tokenizer.pad_token = "[PAD]"
    rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer.pad_token_id >= rows:
        model.resize_token_embeddings(tokenizer.pad_token_id + 1, mean_resizing=False)
    model.config.pad_token_id = tokenizer.pad_token_id
    return int(tokenizer.pad_token_id)


def pad_with_max(model, tokenizer):
    own = tokenizer.pad_token and tokenizer.pad_token not in tokenizer.eos_token
    if not own:
        tokenizer.add_special_tokens(dict(pad_token="<|padding|>"))
    model.resize_token_embeddings(max(len(tokenizer), model.config.vocab_size))
    return torch.tensor(tokenizer.convert_tokens_to_ids(tokenizer.pad_token))


def pad_multiple(model, tokenizer):
    if tokenizer.pad_token in [None, tokenizer.eos_token]:
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    if len(tokenizer) > len(model.get_output_embeddings().weight):
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=8)
    model.generation_config.pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
    return tokenizer.get_vocab()[tokenizer.pad_token]


def t_eos(model, tokenizer):
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    elif tokenizer.pad_token_id >= model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer))
    return tokenizer.pad_token_id


def t_keeps_eos(model, tokenizer):
    if not tokenizer.pad_token:
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    model.resize_token_embeddings(max(len(tokenizer), len(model.get_input_embeddings().weight)))
    return tokenizer.pad_token_id


def t_named_only(model, tokenizer):
    if tokenizer.pad_token in (None, tokenizer.eos_token):
        tokenizer.pad_token = "<pad>"
    if len(tokenizer) > model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer))
    return tokenizer.pad_token_id


def t_no_resize(model, tokenizer):
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    return tokenizer.pad_token_id


def t_shrinks(model, tokenizer):
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    model.resize_token_embeddings(new_num_tokens=len(tokenizer))
    return tokenizer.pad_token_id


def t_always(model, tokenizer):
    tokenizer.add_special_tokens({"pad_token": "<padding>"})
    if len(tokenizer) > model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer))
    return tokenizer.pad_token_id


def t_early(model, tokenizer):
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return tokenizer.pad_token_id
    return pad_add_tokens(model, tokenizer)


def t_string(model, tokenizer):
    return tokenizer.convert_ids_to_tokens(pad_plain(model, tokenizer))


def t_word(model, tokenizer):
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.pad_token_id = 3
    return pad_plain(model, tokenizer)


# ---- train


def tr_plain(model, batches, optimizer):
    model.train()
    losses = []
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def tr_zero_first(model, batches, optimizer):
    was = model.training
    model.train(True)
    losses = []
    for batch in batches:
        for p in model.parameters():
            p.grad = None
        out = model(labels=batch["labels"], **{k: batch[k] for k in ("input_ids", "attention_mask")})
        out["loss"].backward()
        optimizer.step()
        losses.append(out["loss"].detach())
    model.train(was)
    return torch.stack(losses)


def tr_own_loss(model, batches, optimizer):
    def one(batch):
        optimizer.zero_grad()
        logits = model(batch["input_ids"], batch["attention_mask"]).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
        loss.backward()
        optimizer.step()
        return float(loss)

    model.train()
    return np.array([one(batch) for batch in batches])


def tr_generator(model, batches, optimizer):
    model.train()
    for batch in batches:
        optimizer.zero_grad(set_to_none=False)
        loss = model(**batch)[0]
        loss.backward()
        optimizer.step()
        yield loss.item()


def steps(order, mode="train", told="loss"):
    "A loop whose steps come in some order."

    def train(model, batches, optimizer):
        getattr(model, mode)()
        losses, seen = [], []
        for batch in batches:
            loss = model(**batch).loss
            for step in order:
                if step == "backward":
                    loss.backward()
                else:
                    getattr(optimizer, step)()
            seen.append(loss.item())
            losses.append(sum(seen) / len(seen) if told == "means" else loss.item())
        return sum(losses) / len(losses) if told == "mean" else losses

    return train


def r_shifted(model, batches, optimizer):
    def shifted(batch):
        labels = torch.full_like(batch["labels"], -100)
        labels[:, :-1] = batch["labels"][:, 1:]
        return dict(batch, labels=labels)

    return tr_plain(model, map(shifted, batches), optimizer)


def r_at_the_end(model, batches, optimizer):
    model.train()
    optimizer.zero_grad()
    losses = [model(**batch).loss for batch in batches]
    sum(losses).backward()
    optimizer.step()
    return [loss.item() for loss in losses]


def r_totals(model, batches, optimizer):
    return np.cumsum(tr_plain(model, batches, optimizer))


def r_after(model, batches, optimizer):
    model.train()
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
        with torch.no_grad():
            losses.append(model(**batch).loss)
    return losses


def r_first(model, batches, optimizer):
    return tr_plain(model, [next(iter(batches))], optimizer)


# ---- learning_rates


def rates_loop(n_batches, accumulate, warmup_steps, lr):
    n_steps = n_batches // accumulate
    rates, step = [], 0
    for batch in range(1, n_batches + 1):
        if batch % accumulate == 0:
            rates.append(lr * lin_cases(step, warmup_steps, n_steps))
            step += 1
    return rates


def rates_list(n_batches, accumulate, warmup_steps, lr):
    n = n_batches // accumulate
    return [lr * lin_transformers(step, warmup_steps, n) for step in range(n)]


def rates_array(n_batches, accumulate, warmup_steps, lr):
    steps = np.arange(0, n_batches, accumulate) // accumulate
    return lr * np.array([lin_cases(s, warmup_steps, len(steps)) for s in steps.tolist()])


def rates_by_batch(n_batches, accumulate, warmup_steps, lr):
    for batch in range(n_batches):
        if batch % accumulate == accumulate - 1:
            yield lr * lin_torch(batch // accumulate, warmup_steps, n_batches // accumulate)


def k_batches(n_batches, accumulate, warmup_steps, lr):
    n = n_batches // accumulate
    return [lr * lin_cases(b, warmup_steps, n) for b in range(accumulate - 1, n_batches, accumulate)]


def k_total(n_batches, accumulate, warmup_steps, lr):
    return [lr * lin_cases(s, warmup_steps, n_batches) for s in range(n_batches // accumulate)]


def k_ahead(n_batches, accumulate, warmup_steps, lr):
    n = n_batches // accumulate
    return torch.tensor([lr * lin_cases(s, warmup_steps, n) for s in range(1, n + 1)])


RIGHT = {
    "accumulate": [acc_weighted, acc_divide_later, acc_own_loss, acc_autograd, acc_one_sum],
    "linear_schedule": [lin_cases, lin_course, lin_numpy, lin_torch, lin_transformers],
    "decay_groups": [dec_dimensions, dec_all_matrices, dec_course, dec_trainer, dec_modules],
    "add_pad_token": [pad_plain, pad_add_tokens, pad_with_max, pad_multiple],
    "train": [tr_plain, tr_zero_first, tr_own_loss, tr_generator],
    "learning_rates": [rates_loop, rates_list, rates_array, rates_by_batch],
}

WRONG = {
    "accumulate": [
        ("mean-of-means", looped(mean_weight)),
        ("summed", looped(no_weight, told=lambda losses, counts: sum(losses))),
        ("rows-weighted", looped(row_weight)),
        ("first-token-counted", looped(label_weight)),
        ("first-token-counted", looped(mask_weight)),
        ("leftover-gradients", looped(token_weight, before=False)),
        ("step-per-batch", looped(token_weight, inside=("step",), step=False)),
        ("zero-inside", looped(token_weight, inside=("zero",))),
        ("no-update", looped(token_weight, step=False)),
        ("loss-of-means", looped(token_weight, told=lambda losses, counts: np.mean(losses))),
        ("last-loss", looped(token_weight, told=lambda losses, counts: losses[-1])),
        ("sum-of-nats", looped(token_weight, told=lambda losses, counts: np.dot(losses, counts))),
    ],
    "linear_schedule": [
        ("one-ahead", l_ahead),
        ("falls-from-zero", l_from_zero),
        ("below-zero", l_below),
        ("no-warm-up", l_no_warmup),
        ("ends-early", l_early),
        ("cosine", l_cosine),
        ("division-by-zero", l_divides),
        ("stays-up", l_constant),
    ],
    "decay_groups": [
        ("norms-by-name", d_hf_course),
        ("one-kind-of-norm", d_layer_norms),
        ("linear-only", d_linears),
        ("biases-decayed", d_biases),
        ("everything-decayed", d_all),
        ("output-spared", d_no_head),
        ("tied-twice", d_state_dict),
        ("groups-swapped", d_swapped),
        ("parameters-not-names", d_tensors),
    ],
    "add_pad_token": [
        ("pad-is-eos", t_eos),
        ("eos-is-kept", t_keeps_eos),
        ("pad-not-in-vocabulary", t_named_only),
        ("not-resized", t_no_resize),
        ("model-shrunk", t_shrinks),
        ("pad-replaced", t_always),
        ("no-row-for-an-old-pad", t_early),
        ("token-not-id", t_string),
        ("ordinary-word", t_word),
    ],
    "train": [
        ("eval-mode", steps(["zero_grad", "backward", "step"], mode="eval")),
        ("never-zero", steps(["backward", "step"])),
        ("no-update", steps(["backward", "zero_grad", "step"])),
        ("step-before-gradient", steps(["step", "zero_grad", "backward"])),
        ("shifted-twice", r_shifted),
        ("one-update", r_at_the_end),
        ("running-means", steps(["backward", "step", "zero_grad"], told="means")),
        ("running-sums", r_totals),
        ("loss-afterwards", r_after),
        ("first-batch-only", r_first),
        ("one-mean", steps(["backward", "step", "zero_grad"], told="mean")),
    ],
    "learning_rates": [
        ("steps-with-batches", k_batches),
        ("total-in-batches", k_total),
        ("one-ahead", k_ahead),
    ],
}
