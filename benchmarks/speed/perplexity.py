"""Scoring side by side with the peers.

    python -m benchmarks.speed.perplexity            # some minutes on two cores
    python -m benchmarks.speed.perplexity --quick    # the small rows only; nothing is kept

Times are medians of repeats that alternate between ours and the peer in one process; ratios compare within
one run only. Beside wall-clock time stands the processor time of the process, which other programs on the
machine disturb less. Peak memory is measured in one fresh process per row: the high-water mark of its
resident memory above what it holds when model and data are ready (Linux only). Prints tables and writes
results/perplexity.json."""
import argparse, json, math, os, subprocess, sys, tempfile, time
from functools import partial

from benchmarks.bench import interleaved, keep, machine, prepare, results, root

prepare()

import torch
import transformers
from torch.nn import functional as F
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from course_lm.support.inputs import IGNORE_INDEX
from course_lm.perplexity import chunked_nll, evaluate_lm, trainer_metrics
from course_lm.scoring import pseudo_perplexity, sliding_perplexity

transformers.logging.set_verbosity_error()


def gpt2(vocab, n_embd, n_layer, n_head, n_positions):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=vocab, n_embd=n_embd, n_layer=n_layer, n_head=n_head,
                                       n_positions=n_positions, bos_token_id=0, eos_token_id=0)).eval()
    model.loss_type = "ForCausalLM"
    return model


def compare(what, peer, ours, repeats, said="docs", **more):
    "A row: both ways in turn, after one call of each; what they return must agree."
    want, got = peer(), ours()
    found = interleaved({"peer": peer, "ours": ours}, repeats)
    theirs, mine = found["peer"], found["ours"]
    ratio, cpu_ratio = theirs.seconds / mine.seconds, theirs.cpu_seconds / mine.cpu_seconds
    print(f"  {what:42} {said} {theirs.seconds:7.2f} s  ours {mine.seconds:7.2f} s  {ratio:5.2f}x "
          f"(processor {cpu_ratio:.2f}x)  difference {abs(got / want - 1):.0e}", flush=True)
    return {"what": what, **more, f"{said}_seconds": theirs.seconds, "ours_seconds": mine.seconds,
            "ratio": ratio,
            "cpu_ratio": cpu_ratio, "difference": abs(got / want - 1)}


def docs_loop(model, ids, max_length, stride):
    """The strided loop of the transformers documentation, each window's mean weighted by the targets it is a
    mean of."""
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
        model = gpt2(vocab, n_embd, n_layer, n_head, length)
        ids = torch.randint(0, vocab, (n,), generator=torch.Generator().manual_seed(1))
        peer = partial(docs_loop, model, ids, length, stride)
        ours = partial(sliding_score, model, ids, length, stride, batch_size)
        limit = flops(vocab, n_embd, n_layer, length, length) / flops(vocab, n_embd, n_layer, length, stride)
        rounds = min(repeats, 3) if n_layer > 4 else repeats
        rows.append(compare(name, peer, ours, rounds, max_length=length, stride=stride, tokens=n,
                            arithmetic_ratio=limit))
        if not rows[-1]["difference"] < 1e-5:
            raise SystemExit(f"{name}: ours is not the documentation's number")
    return rows


def sliding_score(*args): return sliding_perplexity(*args).perplexity


def bert(vocab, n_embd, ffn):
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(
        vocab_size=vocab, hidden_size=n_embd, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=ffn,
        max_position_embeddings=128, pad_token_id=0)).eval()


def masked(repeats, quick):
    from course_lm.data import python_docs, train_tokenizer
    docs = python_docs()
    tok, model = train_tokenizer(docs, 2000, masked=True), bert(2000, 128, 512)
    texts = [t for t in docs if len(tok(t)["input_ids"]) <= 128][: 3 if quick else 12]

    @torch.no_grad()
    def one_at_a_time():
        nats, n = 0.0, 0
        for text in texts:
            ids = torch.tensor([tok(text)["input_ids"]])
            for at in range(1, ids.shape[1] - 1):
                x = ids.clone()
                x[0, at] = tok.mask_token_id
                nats -= model(x).logits[0, at].log_softmax(-1)[ids[0, at]].item()
                n += 1
        return math.exp(nats / n)

    def ours(): return pseudo_perplexity(model, tok, texts).perplexity
    rows = [compare("pseudo-perplexity", one_at_a_time, ours, repeats, "loop")]

    large, ids = bert(30522, 256, 1024), torch.randint(5, 30522, (16, 128))
    labels = ids.masked_fill(torch.rand(ids.shape) > 0.15, IGNORE_INDEX)
    batch = dict(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)

    @torch.no_grad()
    def plain(): return math.exp(large(**batch).loss.item())
    def evaluated(): return evaluate_lm(large, [batch]).perplexity
    return rows + [compare("masked evaluation at 15 %", plain, evaluated, repeats, "loop")]


# ---- memory: one fresh process for each row

BATCH, LENGTH, VOCAB = 8, 1024, 50257


def status(key):
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith(key))


def stack(rows): return {k: torch.stack([r[k] for r in rows]) for k in rows[0]}


def measure(what):
    "In a child process: run one way of scoring and print a line of JSON."
    torch.set_num_threads(2)
    torch.manual_seed(1)
    if what.startswith("loss"):
        hidden, weight = torch.randn(BATCH, LENGTH, 256,
                                     requires_grad=True), (torch.randn(VOCAB, 256) * 0.02).requires_grad_()
        labels = torch.randint(0, VOCAB, (BATCH, LENGTH))
    else:
        model = gpt2(VOCAB, 256, 4, 4, LENGTH)
        rows = [dict(input_ids=r, labels=r) for r in torch.randint(0, VOCAB, (2 * BATCH, LENGTH))]
        with torch.no_grad(): model.transformer(stack(rows[:BATCH])["input_ids"])
    with open("/proc/self/clear_refs", "w") as f: f.write("5")
    base, start = status("VmRSS"), time.perf_counter()
    if what == "ours": result = evaluate_lm(model, [stack(rows[:BATCH]), stack(rows[BATCH:])]).cross_entropy
    elif what.startswith("Trainer"):
        with tempfile.TemporaryDirectory() as folder:
            args = TrainingArguments(folder, per_device_eval_batch_size=BATCH, report_to=[], use_cpu=True,
                                     dataloader_pin_memory=False, disable_tqdm=True)
            kept = dict(compute_metrics=lambda p: dict(accuracy=float((p.predictions[:, :-1].argmax(
                -1) == p.label_ids[:, 1:]).mean())))
            more = {"Trainer.evaluate": {}, "Trainer.evaluate, trainer_metrics()": trainer_metrics(),
                    "Trainer.evaluate, compute_metrics on logits": kept}[what]
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
    print(json.dumps(dict(what=what, result=result, base_mib=base, peak_mib=status("VmHWM"),
                          added_mib=status("VmHWM") - base, seconds=time.perf_counter() - start)))


def memory():
    def run(what):
        done = subprocess.run([sys.executable, "-m", "benchmarks.speed.perplexity", "--measure", what],
                              capture_output=True, text=True, cwd=root)
        if done.returncode: raise SystemExit(done.stderr)
        row = json.loads(done.stdout.strip().splitlines()[-1])
        print(f"  {what:46} added {row['added_mib']:6.0f} MiB  peak {row['peak_mib']:6.0f} MiB  "
              f"{row['seconds']:5.1f} s  result {row['result']:.6f}", flush=True)
        return row
    print(f"\npeak memory: {BATCH} x {LENGTH} tokens at a time, vocabulary {VOCAB}, 4 layers of 256")
    scoring = [run(w) for w in ("ours", "Trainer.evaluate", "Trainer.evaluate, trainer_metrics()",
                                "Trainer.evaluate, compute_metrics on logits")]
    training = [run(w) for w in ("loss and gradient, logits held", "loss and gradient, chunked_nll")]
    summary = dict(scoring_share=scoring[0]["added_mib"] / scoring[1]["added_mib"],
                   scoring_share_with_logits=scoring[0]["added_mib"] / scoring[3]["added_mib"],
                   scoring_share_whole_process=scoring[0]["peak_mib"] / scoring[1]["peak_mib"],
                   training_share=training[1]["added_mib"] / training[0]["added_mib"])
    for name, share in summary.items(): print(f"  {name:46} 1/{1 / share:.1f}")
    return dict(rows=scoring + training, **summary)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="the small rows only; nothing is kept")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--out", default=results / "perplexity.json", help="where the JSON goes")
    args = parser.parse_args()
    if args.measure: return measure(args.measure)
    torch.set_num_threads(2)
    print("sliding_perplexity against the documentation's loop")
    out = dict(sliding=sliding(args.repeats, args.quick))
    print("\nmasked models")
    out["masked"] = masked(args.repeats, args.quick)
    if args.quick: return
    if os.path.exists("/proc/self/clear_refs"): out["memory"] = memory()
    out["machine"] = machine("torch", "transformers")
    keep(out, args.out)
    print(f"\n{out['machine']}")


if __name__ == "__main__": main()
