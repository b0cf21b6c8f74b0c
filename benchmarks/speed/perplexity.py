"""Scoring side by side with the peers: `python -m benchmarks.speed.perplexity [--repeats 5] [--quick]`.

Times are medians of repeats that alternate between ours and the peer in one process; ratios compare within one run only.
Beside wall-clock time stands the processor time of the process, which other programs on the machine disturb less.
Peak memory is measured in one fresh process per row: the high-water mark of its resident memory above what it holds
when model and data are ready (Linux only). Prints tables and writes results/perplexity.json."""
import argparse, json, math, os, statistics, subprocess, sys, tempfile, time

import torch
import transformers
from torch.nn import functional as F
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from benchmarks.bench import keep, machine, results

from course_lm.support.inputs import IGNORE_INDEX
from course_lm.perplexity import chunked_nll, evaluate_lm, trainer_metrics
from course_lm.scoring import pseudo_perplexity, sliding_perplexity

transformers.logging.set_verbosity_error()


def gpt2(vocab, n_embd, n_layer, n_head, n_positions):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=vocab, n_embd=n_embd, n_layer=n_layer, n_head=n_head, n_positions=n_positions, bos_token_id=0, eos_token_id=0)).eval()
    model.loss_type = "ForCausalLM"
    return model


def interleaved(repeats, *fns):
    "Median wall-clock and processor seconds of each function, called in turn, and what each returned; one round to warm up."
    wall, cpu, values = [[] for _ in fns], [[] for _ in fns], [fn() for fn in fns]
    for _ in range(repeats):
        for i, fn in enumerate(fns):
            start, start_cpu = time.perf_counter(), time.process_time()
            fn()
            wall[i].append(time.perf_counter() - start)
            cpu[i].append(time.process_time() - start_cpu)
    return [statistics.median(t) for t in wall], [statistics.median(t) for t in cpu], values


def docs_loop(model, ids, max_length, stride):
    "The strided loop of the transformers documentation, each window's mean weighted by the targets it is a mean of."
    nats, n, prev = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + max_length, len(ids))
        x = ids[None, begin:end]
        y = x.clone()
        y[:, : -(end - prev)] = IGNORE_INDEX
        with torch.no_grad(): loss = model(x, labels=y).loss
        scored = int((y[:, 1:] != IGNORE_INDEX).sum())
        nats, n, prev = nats + loss.item() * scored, n + scored, end
        if end == len(ids): break
    return math.exp(nats / n)


def flops(vocab, n_embd, n_layer, length, scored):
    "Multiply-adds of one window: the body reads all of it, the head answers for the scored positions."
    return n_layer * (24 * n_embd**2 * length + 4 * length**2 * n_embd) + 2 * n_embd * vocab * scored


def sliding(repeats, quick):
    rows = []
    for name, vocab, n_embd, n_layer, n_head, length, stride, n, batch_size in [
        ("the course's model", 2000, 128, 2, 4, 64, 32, 8000, 32),
        ("the course's model, small stride", 2000, 128, 2, 4, 64, 8, 2000, 32),
        ("50k vocabulary, small body", 50257, 256, 4, 4, 512, 256, 2560, 4),
        ("50k vocabulary, small body, small stride", 50257, 256, 4, 4, 512, 64, 1536, 4),
        ("GPT-2's shape (124M)", 50257, 768, 12, 12, 1024, 512, 2560, 2),
    ][: 2 if quick else None]:
        model, ids = gpt2(vocab, n_embd, n_layer, n_head, length), torch.randint(0, vocab, (n,), generator=torch.Generator().manual_seed(1))
        (theirs, ours), cpu, (want, got) = interleaved(min(repeats, 3) if n_layer > 4 else repeats, lambda: docs_loop(model, ids, length, stride),
                                                  lambda: sliding_perplexity(model, ids, length, stride, batch_size).perplexity)
        limit = flops(vocab, n_embd, n_layer, length, length) / flops(vocab, n_embd, n_layer, length, stride)
        rows.append(dict(what=name, max_length=length, stride=stride, tokens=n, docs_seconds=theirs, ours_seconds=ours, ratio=theirs / ours, cpu_ratio=cpu[0] / cpu[1],
                         arithmetic_ratio=limit, difference=abs(got / want - 1)))
        print(f"  {name:42} {length:5}/{stride:<4} docs {theirs:7.2f} s  ours {ours:7.2f} s  {theirs / ours:5.2f}x (processor {cpu[0] / cpu[1]:.2f}x)  (arithmetic saved: {limit:.2f}x)  "
              f"difference {abs(got / want - 1):.0e}", flush=True)
        if not abs(got / want - 1) < 1e-5: raise SystemExit(f"{name}: {got} is not the documentation's {want}")
    return rows


def masked(repeats, quick):
    from course_lm.data import python_docs, train_tokenizer
    torch.manual_seed(0)
    docs = python_docs()
    tok = train_tokenizer(docs, 2000, masked=True)
    model = BertForMaskedLM(BertConfig(vocab_size=2000, hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=512, max_position_embeddings=128, pad_token_id=0)).eval()
    texts = [t for t in docs if len(tok(t)["input_ids"]) <= 128][: 3 if quick else 12]

    def one_at_a_time():
        nats, n = 0.0, 0
        for text in texts:
            ids = torch.tensor([tok(text)["input_ids"]])
            for at in range(1, ids.shape[1] - 1):
                x = ids.clone()
                x[0, at] = tok.mask_token_id
                with torch.no_grad(): nats -= model(x).logits[0, at].log_softmax(-1)[ids[0, at]].item()
                n += 1
        return math.exp(nats / n)
    (theirs, ours), cpu, (want, got) = interleaved(repeats, one_at_a_time, lambda: pseudo_perplexity(model, tok, texts).perplexity)
    print(f"  {'pseudo-perplexity, one mask at a time':42} loop {theirs:7.2f} s  ours {ours:7.2f} s  {theirs / ours:5.2f}x (processor {cpu[0] / cpu[1]:.2f}x)  difference {abs(got / want - 1):.0e}", flush=True)
    rows = [dict(what="pseudo-perplexity", loop_seconds=theirs, ours_seconds=ours, ratio=theirs / ours, cpu_ratio=cpu[0] / cpu[1], difference=abs(got / want - 1))]

    model = BertForMaskedLM(BertConfig(vocab_size=30522, hidden_size=256, num_hidden_layers=2, num_attention_heads=4, intermediate_size=1024, max_position_embeddings=128, pad_token_id=0)).eval()
    ids = torch.randint(5, 30522, (16, 128))
    batch = dict(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids.masked_fill(torch.rand(ids.shape) > 0.15, IGNORE_INDEX))

    def plain():
        with torch.no_grad(): return math.exp(model(**batch).loss.item())
    (theirs, ours), cpu, (want, got) = interleaved(repeats, plain, lambda: evaluate_lm(model, [batch]).perplexity)
    print(f"  {'masked evaluation, 30k vocabulary, 15 %':42} loss {theirs:7.2f} s  ours {ours:7.2f} s  {theirs / ours:5.2f}x (processor {cpu[0] / cpu[1]:.2f}x)  difference {abs(got / want - 1):.0e}", flush=True)
    return rows + [dict(what="masked evaluation at 15 %", loop_seconds=theirs, ours_seconds=ours, ratio=theirs / ours, cpu_ratio=cpu[0] / cpu[1], difference=abs(got / want - 1))]


# ---- memory: one fresh process for each row

BATCH, LENGTH, VOCAB = 8, 1024, 50257


def status(key): return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith(key))


def stack(rows): return {k: torch.stack([r[k] for r in rows]) for k in rows[0]}


def measure(what):
    "In a child process: run one way of scoring and print a line of JSON."
    torch.set_num_threads(2)
    torch.manual_seed(1)
    if what.startswith("loss"):
        hidden, weight = torch.randn(BATCH, LENGTH, 256, requires_grad=True), (torch.randn(VOCAB, 256) * 0.02).requires_grad_()
        labels = torch.randint(0, VOCAB, (BATCH, LENGTH))
    else:
        model = gpt2(VOCAB, 256, 4, 4, LENGTH)
        rows = [dict(input_ids=r, labels=r) for r in torch.randint(0, VOCAB, (2 * BATCH, LENGTH))]
        with torch.no_grad(): model.transformer(stack(rows[:BATCH])["input_ids"])
    with open("/proc/self/clear_refs", "w") as f: f.write("5")
    base, start = status("VmRSS"), time.perf_counter()
    if what == "ours": result = evaluate_lm(model, [stack(rows[:BATCH]), stack(rows[BATCH:])]).cross_entropy
    elif what.startswith("Trainer"):
        import numpy as np
        with tempfile.TemporaryDirectory() as folder:
            args = TrainingArguments(folder, per_device_eval_batch_size=BATCH, report_to=[], use_cpu=True, dataloader_pin_memory=False, disable_tqdm=True)
            kept = dict(compute_metrics=lambda p: dict(accuracy=float((p.predictions[:, :-1].argmax(-1) == p.label_ids[:, 1:]).mean())))
            more = {"Trainer.evaluate": {}, "Trainer.evaluate, trainer_metrics()": trainer_metrics(), "Trainer.evaluate, compute_metrics on logits": kept}[what]
            trainer = Trainer(model, args, data_collator=stack, eval_dataset=rows, **more)
            trainer.pop_callback(transformers.PrinterCallback)
            result = trainer.evaluate()["eval_loss"]
    elif what == "loss and gradient, logits held":
        loss = F.cross_entropy(F.linear(hidden, weight)[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        result = loss.item()
    else:
        nats, tokens = chunked_nll(hidden, weight, labels)
        (nats / tokens).backward()
        result = (nats / tokens).item()
    print(json.dumps(dict(what=what, result=result, base_mib=base, peak_mib=status("VmHWM"), added_mib=status("VmHWM") - base, seconds=time.perf_counter() - start)))


def memory():
    def run(what):
        done = subprocess.run([sys.executable, "-m", "benchmarks.speed.perplexity", "--measure", what], capture_output=True, text=True, cwd=results.parents[1])
        if done.returncode: raise SystemExit(done.stderr)
        row = json.loads(done.stdout.strip().splitlines()[-1])
        print(f"  {what:46} added {row['added_mib']:6.0f} MiB  peak {row['peak_mib']:6.0f} MiB  {row['seconds']:5.1f} s  result {row['result']:.6f}", flush=True)
        return row
    print(f"\npeak memory: {BATCH} x {LENGTH} tokens at a time, vocabulary {VOCAB}, 4 layers of 256")
    scoring = [run(w) for w in ("ours", "Trainer.evaluate", "Trainer.evaluate, trainer_metrics()", "Trainer.evaluate, compute_metrics on logits")]
    training = [run(w) for w in ("loss and gradient, logits held", "loss and gradient, chunked_nll")]
    summary = dict(scoring_share=scoring[0]["added_mib"] / scoring[1]["added_mib"], scoring_share_with_logits=scoring[0]["added_mib"] / scoring[3]["added_mib"],
                   scoring_share_whole_process=scoring[0]["peak_mib"] / scoring[1]["peak_mib"], training_share=training[1]["added_mib"] / training[0]["added_mib"])
    for name, share in summary.items(): print(f"  {name:46} 1/{1 / share:.1f}")
    return dict(rows=scoring + training, **summary)


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--repeats", type=int, default=5)
    ap.add_argument("--quick", action="store_true", help="the small rows only; writes nothing")
    ap.add_argument("--measure", help=argparse.SUPPRESS)
    args = ap.parse_args()
    if args.measure:
        measure(args.measure)
        sys.exit()
    torch.set_num_threads(2)
    print("sliding_perplexity against the documentation's loop")
    out = dict(sliding=sliding(args.repeats, args.quick))
    print("\nmasked models")
    out["masked"] = masked(args.repeats, args.quick)
    if args.quick: sys.exit()
    if os.path.exists("/proc/self/clear_refs"): out["memory"] = memory()
    out["machine"] = machine("torch", "transformers")
    keep(out, results / "perplexity.json")
    print(f"\n{out['machine']}")
