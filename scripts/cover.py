"Draw README.md's picture, nbs/images/cover.png, with the course's own functions."
import sys

from scripts.lessons import nbs, prepare_environment

example = (
    "The value of an object can change while the program runs. When a function is called, its arguments are "
    "bound to the names of its parameters, and a new local namspace is created.")  # one word is misspelt
n_blocks = 3  # contiguous blocks of the manual, each held out once
grey, blue = "#888888", "#0072b2"
reds, most_bits = "OrRd", 24  # colours of words; what gets the darkest of them


def split(docs: list[str], block: int) -> tuple[list[str], list[str], list[str]]:
    """(train, valid, test): `test` is the middle half of one of `n_blocks` blocks of neighbours, so that no
    paragraph of it has a neighbour in training; `valid` is a tenth of the text, far from `test`."""
    size = len(docs) // n_blocks
    begin, tenth = block * size, len(docs) // 10
    test = docs[begin + size // 4:begin + 3 * size // 4]
    rest = docs[:begin + size // 8] + docs[begin + 7 * size // 8:]
    at = 0 if block else len(rest) - tenth
    return rest[:at] + rest[at + tenth:], rest[at:at + tenth], test


def counting(train: list[str], test: list[str], tokenizer) -> dict[str, float]:
    "Bits per byte of a uniform guess and of counting models, over the same tokens of the same text."
    import numpy as np
    from course_lm.ngram import NGramLM
    end, n_bytes = tokenizer.eos_token_id, sum(len(t.encode()) for t in test)
    train, test = ([tokenizer(t, add_special_tokens=False, verbose=False).input_ids for t in part]
                   for part in (train, test))
    found = {"uniform guess": sum(map(len, test)) * np.log2(len(tokenizer)) / n_bytes}
    stream = np.concatenate([[end, *doc] for doc in train] + [[end]])
    for n, name in enumerate(("unigram", "bigram", "trigram"), 1):
        lm = NGramLM(n, vocab_size=len(tokenizer)).fit(stream)
        nats = -sum(lm.logprobs(np.asarray([end, *doc]))[1:].sum() for doc in test)
        found[name] = nats / np.log(2) / n_bytes
    return found


def tuned(train: list[str], valid: list[str], test: list[str]):
    "Bits per byte of `test` by tiny-gpt, before and after tuning on `train` (`valid` chooses the epoch)."
    from course_lm.chunking import lm_datasets
    from course_lm.finetuning import lm_loaders, train_loop
    from course_lm.models import load_lm
    from course_lm.scoring import score_texts
    model, tokenizer = load_lm("tiny-gpt")
    def score(): return sum(score_texts(model, tokenizer, test)).bits_per_byte
    before = score()
    loaders = lm_loaders(lm_datasets(train, valid, tokenizer, 64), tokenizer)
    train_loop(model, *loaders, epochs=5, lr=1e-3, keep_best=True, progress=False)
    return {"tiny-gpt": before, "tiny-gpt, fine-tuned": score()}, model, tokenizer


def draw_bars(ax, rows: list[dict[str, float]]) -> None:
    "A bar for the mean over the blocks, a dot for each of them."
    names = list(rows[0])
    means = [sum(r[name] for r in rows) / len(rows) for name in names]
    ax.barh(names, means, color=[grey] * 4 + [blue] * 2, alpha=.45)
    for row in rows: ax.plot([row[name] for name in names], names, "o", color="black", markersize=3.5)
    for i, mean in enumerate(means):
        ax.text(max(r[names[i]] for r in rows) + .08, i, f"{mean:.2f}", va="center")
    ax.invert_yaxis()
    ax.spines[["top", "right"]].set_visible(False)
    ax.set(xlabel="bits per byte of unseen text (less is better)", title="How well each model predicts",
           xlim=(0, max(means) * 1.15))


def draw_text(ax, frame) -> None:
    "The words of a surprisal table, each on a box as red as it was surprising."
    import matplotlib as mpl
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.axis("off")
    renderer, x, y = ax.figure.canvas.get_renderer(), 0.0, 0.93
    for word, bits in zip(frame.token, frame.bits):
        colour = mpl.colormaps[reds](min(bits, most_bits) / most_bits * .75) if bits == bits else "white"
        box = ax.text(x, y, word.strip(), fontsize=13, family="DejaVu Sans", va="center",
                      bbox=dict(facecolor=colour, edgecolor="none", pad=2))
        width = box.get_window_extent(renderer).transformed(ax.transData.inverted()).width
        if x + width > 1:
            x, y = 0.0, y - 0.19
            box.set_position((x, y))
        x += width + 0.016


def draw_scale(fig, ax) -> None:
    "The colours of words, in bits."
    import matplotlib as mpl
    shades = mpl.colors.ListedColormap(mpl.colormaps[reds]([i / 255 * .75 for i in range(256)]))
    mappable = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, most_bits), shades)
    bar = fig.colorbar(mappable, cax=ax.inset_axes((0, 0, .55, .07)), orientation="horizontal", extend="max")
    bar.set_ticks(range(0, most_bits + 1, 8))
    bar.set_label("surprisal of a word, bits", fontsize=9)
    bar.outline.set_visible(False)


def main() -> None:
    import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from course_lm.data import python_docs
    from course_lm.scoring import surprisal
    docs, rows = python_docs(), []
    for block in reversed(range(n_blocks)):
        train, valid, test = split(docs, block)
        neural, model, tokenizer = tuned(train, valid, test)
        rows.append(counting(train, test, tokenizer) | neural)
    print(*rows, sep="\n")
    fig, (left, right) = plt.subplots(1, 2, figsize=(12.5, 3.4), width_ratios=(1, 1.35))
    draw_bars(left, rows)
    right.set_title("What surprises the fine-tuned model")
    draw_text(right, surprisal(model, tokenizer, example, by="word").frame)
    draw_scale(fig, right)
    fig.tight_layout()
    (nbs / "images").mkdir(exist_ok=True)
    fig.savefig(nbs / "images" / "cover.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    prepare_environment()
    sys.exit(main())
