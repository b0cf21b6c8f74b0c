"Every widget in JupyterLab: opened, moved once, its output seen to change. Pictures go to _run/widgets."
import re
from pathlib import Path

shots = Path(__file__).resolve().parents[2] / "_run" / "widgets"


def press(page, slider: int, key: str, times: int = 1) -> None:
    "Move a slider with the keyboard."
    handle = page.locator(".widget-slider [role=slider], .widget-slider .noUi-handle").nth(slider)
    handle.focus()
    for _ in range(times): page.keyboard.press(key)


def wait_for_change(page, selector: str, before: str) -> str:
    "The text that stands there after it has changed."
    page.wait_for_function(
        "([s, t]) => { const e = document.querySelector(s); return e && e.innerText !== t }",
        arg=[selector, before], timeout=30_000)
    return page.inner_text(selector)


def keep(page, name: str) -> None:
    shots.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=shots / f"{name}.png")


def test_chunk_explorer(open_notebook):
    page = open_notebook("chunks",
                         "from course_lm.policies import chunk_explorer\nchunk_explorer([50, 30, 90, 20, "
                         "64], chunk_size=64)")
    picture = ".jp-OutputArea-output .widget-html-content"
    page.wait_for_selector(picture)
    before = page.inner_text(picture)
    assert "chunk_size 64" in before
    press(page, 0, "ArrowLeft", 4)
    page.keyboard.press("Tab")
    after = wait_for_change(page, picture, before)
    keep(page, "chunk_explorer")
    assert "chunk_size 6" in after and after != before


def test_masking_explorer(open_notebook):
    page = open_notebook("masks",
                         "from course_lm.data import python_docs, train_tokenizer\nfrom course_lm.labels "
                         "import masking_explorer\n"
                         "tokenizer = train_tokenizer(python_docs(), 2000, "
                         "masked=True)\nmasking_explorer(python_docs()[1], tokenizer)")
    table = ".jp-OutputArea-output .jp-RenderedHTMLCommon"
    page.wait_for_selector(f"{table} span")
    before = page.inner_text(table)
    press(page, 0, "End")
    page.keyboard.press("Tab")
    after = wait_for_change(page, table, before)
    keep(page, "masking_explorer")
    assert after.count("[MASK]") > before.count("[MASK]") > 0


def test_next_word_game(open_notebook):
    page = open_notebook("game", "from course_lm.ngram import NGramLM, NextWordGame\n"
                         "text = 'the cat sat on the mat and the dog sat on the cat'.split()\nvocab = "
                         "sorted(set(text))\nids = [vocab.index(w) for w in text]\n"
                         "NextWordGame(ids, vocab, {'bigram': NGramLM(2, "
                         "vocab_size=len(vocab)).fit(ids)}).widget()")
    board = ".jp-OutputArea-output .widget-html-content"
    page.wait_for_selector(board)
    before = page.inner_text(board)
    page.locator(".widget-text input").fill("the")
    page.locator("button.jupyter-button", has_text="guess").click()
    after = wait_for_change(page, board, before)
    keep(page, "next_word_game")
    word, you, bigram, guessed = re.search(r"1\. (\w+)\s*you ([\d.]+)\s*bigram ([\d.]+)\s*(\w+)",
                                           after).groups()
    # staked half on the right word: cheaper than the model
    assert word == guessed == "the" and float(you) < float(bigram)


def test_review_box(open_notebook):
    page = open_notebook("box",
                         "from course_lm.baselines import LABELS; from course_lm.classification import "
                         "ADAM, train_classifier; from course_lm.windows import review_explorer\nfrom "
                         "course_lm.data import train_tokenizer; from course_lm.reviews import reviews\n"
                         "from course_lm.models import load_lm, new_model, tiny_bert_config\ntrain = "
                         "reviews(600, seed=1, length='short')\ntokenizer = "
                         "train_tokenizer(train['text'][:], 600, masked=True)\n"
                         "body = new_model(tiny_bert_config(tokenizer, n_layer=1, n_embd=32, "
                         "max_length=64))\nmodel, _ = load_lm((body, tokenizer), 'sequence-classification', "
                         "LABELS)\n"
                         "data = dict(train=train, valid=reviews(40, seed=2, length='short'), "
                         "test=reviews(40, seed=3, length='short'))\n"
                         "train_classifier(model, tokenizer, data, ADAM, lr=4e-3, schedule='linear', "
                         "warmup_steps=.1, progress=False)\nreview_explorer(model, tokenizer)")
    answer = ".jp-OutputArea-output .widget-html-content"
    page.wait_for_selector(answer)
    before = page.inner_text(answer)
    assert "probability" in before and "anything but good" in before
    page.locator(".widget-textarea textarea").fill(
        "I hated it. The plot was boring, and the cast is dreadful.")
    page.locator("button.jupyter-button", has_text="What is it?").click()
    after = wait_for_change(page, answer, before)
    assert "dreadful" in after and "probability" in after and "anything but good" not in after
    colours = "s => [...document.querySelectorAll(s + ' span[title]')].map(e => e.title).join()"
    hidden = page.evaluate(colours, answer)
    page.locator(".widget-dropdown select").first.select_option(label="take each token out")
    page.wait_for_function(f"([s, t]) => ({colours})(s) !== t", arg=[answer, hidden], timeout=30_000)
    shades = page.evaluate(
        "s => [...document.querySelectorAll(s + ' span[title]')].map(e => "
        "getComputedStyle(e).backgroundColor)", answer)
    keep(page, "review_explorer")
    assert len(set(shades)) > 3  # words are coloured by what they did
    page.locator(".widget-textarea textarea").fill("word " * 200)
    page.locator("button.jupyter-button", has_text="What is it?").click()
    page.wait_for_function("s => document.querySelector(s).innerText.includes('the model takes 64')",
                           arg=answer, timeout=30_000)
