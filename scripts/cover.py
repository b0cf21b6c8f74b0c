"Draw README.md's picture, nbs/images/cover.png, with the course's own functions."
import sys

from scripts.lessons import nbs, prepare_environment

example = (
    "The value of an object can change while the program runs. When a function is called, its arguments are "
    "bound to the names of its parameters, and a new local namspace is created.")  # one word is misspelt


def bits(texts: list[str], test: list[str], tokenizer) -> dict[str, float]:
    "Held-out bits per byte of a uniform guess and of counting models, over the same tokens of the same text."
    import numpy as np
    from course_lm.ngram import NGramLM
    end, n_bytes = tokenizer.eos_token_id, sum(len(t.encode()) for t in test)
    train, held_out = ([tokenizer(t, add_special_tokens=False, verbose=False).input_ids for t in part]
                       for part in (texts, test))
    found = {"uniform": sum(map(len, held_out)) * np.log2(len(tokenizer)) / n_bytes}
    for n, name in enumerate(("unigram", "bigram", "trigram"), 1):
        stream = np.concatenate([[end, *doc] for doc in train] + [[end]])
        lm = NGramLM(n, vocab_size=len(tokenizer)).fit(stream)
        nats = -sum(lm.logprobs(np.asarray([end, *doc]))[1:].sum() for doc in held_out)
        found[name] = nats / np.log(2) / n_bytes
    return found


def transformers(texts: list[str], valid: list[str], test: list[str]):
    "Bits per byte of `test` by tiny-gpt, before and after tuning on `texts` (`valid` chooses the round)."
    from course_lm.chunking import lm_datasets
    from course_lm.models import load_lm
    from course_lm.finetuning import lm_loaders, train_loop
    from course_lm.scoring import score_texts
    model, tokenizer = load_lm("tiny")
    def score(): return sum(score_texts(model, tokenizer, test)).bits_per_byte
    before = score()
    train_loop(model, *lm_loaders(lm_datasets(texts, valid, tokenizer, 64), tokenizer), epochs=5, lr=1e-3,
               keep_best=True, progress=False)
    return {"GPT of film reviews": before, "GPT, tuned": score()}, tokenizer, model


def draw_text(ax, frame) -> None:
    "The tokens of a surprisal table, each on a box as red as it was surprising."
    import matplotlib as mpl
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.axis("off")
    renderer, x, y = ax.figure.canvas.get_renderer(), 0.0, 0.9
    for token, value in zip(frame.token, frame.bits):
        colour = mpl.colormaps["Reds"](min(float(value), 14) / 18 if value == value else 0)
        for i, piece in enumerate(token.split(" ")):
            if i: x += 0.012
            box = ax.text(x, y, piece, fontsize=14, family="DejaVu Sans", va="center",
                          bbox=dict(facecolor=colour, edgecolor="none", pad=1.5))
            width = box.get_window_extent(renderer).transformed(ax.transData.inverted()).width if piece else 0
            if x + width > 1:
                x, y = 0.0, y - 0.2
                box.set_position((x, y))
            x += width


def main() -> None:
    import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from course_lm.data import python_docs
    from course_lm.scoring import surprisal
    docs = python_docs()
    train, valid, test = [d for i, d in enumerate(docs) if i % 8 and i % 16 != 4], docs[4::16], docs[::8]
    neural, tokenizer, model = transformers(train, valid, test)
    scores = bits(train, test, tokenizer) | neural
    fig, (left, right) = plt.subplots(1, 2, figsize=(12.5, 3.2), width_ratios=(1, 1.35))
    bars = left.barh(list(scores), list(scores.values()), color=["#b8c4d6"] * 4 + ["#3b6fb6"] * 2)
    left.bar_label(bars, fmt="%.2f", padding=3)
    left.invert_yaxis()
    left.spines[["top", "right"]].set_visible(False)
    left.set(xlabel="bits per byte of unseen pages of Python's manual (lower is better)",
             title="What a model knows", xlim=(0, max(scores.values()) * 1.12))
    right.set_title("What surprises it")
    draw_text(right, surprisal(model, tokenizer, example).frame)
    fig.tight_layout()
    (nbs / "images").mkdir(exist_ok=True)
    fig.savefig(nbs / "images" / "cover.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    prepare_environment()
    sys.exit(main())
