"""Hostile texts, tokens, names and labels on every page that the library draws: nothing becomes HTML."""
from html.parser import HTMLParser

import numpy as np
import pytest
from datasets import Dataset

from course_lm.advice import Check, FinetuneReport, Verdict, fragmented_words, measure_texts, verdict
from course_lm.baselines import RunResult, results_table
from course_lm.classification import classify, most_confident_mistakes
from course_lm.comparing import accuracy_by, compare_seeds
from course_lm.data import train_tokenizer
from course_lm.labels import LMCollator, masking_explorer, show_batch_labels, show_masking
from course_lm.models import load_lm, new_model, tiny_bert_config, tiny_gpt_config
from course_lm.ngram import NextWordGame, NGramLM
from course_lm.policies import chunk_explorer, show_chunks
from course_lm.predictions import fill_mask, lm_predictions, show_predictions
from course_lm.pretraining import PretrainHistory
from course_lm.reviews import show_review
from course_lm.scoring import show_surprisal, surprisal
from course_lm.scratch import show_tokens
from course_lm.windows import review_explorer, show_importance, token_importance

BAD = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)",
       "</style><svg/onload=alert(1)>", "<b onclick=alert(1)>x</b>", "&lt;script&gt;",
       'a" style="background:url(javascript:alert(1))', "<!--", "]]>", '<iframe srcdoc="x">']
TEXT = " . ".join(BAD)
TEXTS = [f"{b} the film was good {i}" for i, b in enumerate(BAD*3)]
SPECIAL = '"><img src=x onerror=alert(2)>', "<script>2</script>"


class Find(HTMLParser):
    "Tags and attributes that none of our pages has."
    def __init__(self):
        super().__init__()
        self.bad = []
    def handle_starttag(self, tag, attrs):
        active = any(k.startswith("on") or k in ("src", "href", "srcdoc") or "javascript:" in (v or "")
                     for k, v in attrs)
        if active or tag in ("script", "img", "svg", "iframe", "b"): self.bad.append((tag, attrs))
    def handle_comment(self, text): self.bad.append(("comment", text[:40]))


def hostile(page):
    "What of a page a browser would run; a widget is all that it shows."
    find = Find()
    find.feed(page if isinstance(page, str) else " ".join(shown(page)))
    return find.bad


def shown(page):
    for look in ("data", "value"):
        text = getattr(page, look, None)
        if isinstance(text, str) and type(page).__name__ == "HTML": yield text
    if hasattr(page, "_repr_html_"): yield page._repr_html_() or ""
    for child in getattr(page, "children", ()): yield from shown(child)


def tokenizer(masked, **special):
    made = train_tokenizer(TEXTS, 420, masked=masked)
    made.add_tokens(BAD[:4])
    made.add_special_tokens({"extra_special_tokens": list(SPECIAL), **special})
    return made


EVIL = dict(pad_token='<script>alert("pad")</script>', mask_token='"><img src=x onerror=alert(3)>',
            cls_token="<script>cls</script>")
SHAPE = dict(n_layer=1, n_head=2, n_embd=16, max_length=400)


@pytest.fixture(scope="module")
def causal():
    tok = tokenizer(False)
    return new_model(tiny_gpt_config(tok, **SHAPE)), tok


@pytest.fixture(scope="module")
def masked():
    tok = tokenizer(True)
    return new_model(tiny_bert_config(tok, **SHAPE)), tok


@pytest.fixture(scope="module")
def evil():
    tok = tokenizer(True, **EVIL)
    return new_model(tiny_bert_config(tok, **SHAPE)), tok


def drawn(model, tok):
    "Pages of one model."
    text = TEXT + "".join(SPECIAL)
    batch = LMCollator(tok, seed=1)([{"input_ids": tok(x)["input_ids"]} for x in (text, *TEXTS[:2])])
    for task in (None, "causal", "masked", "encoder-decoder"):
        yield f"labels {task}", show_batch_labels(batch, tok, n=3, length=200, task=task)
    yield "predictions", show_predictions(model, tok, batch, 3)
    yield "their table", lm_predictions(model, tok, batch).head(50)
    found = surprisal(model, tok, text)
    yield from (("surprisal", show_surprisal(found)), ("its table", found.frame))
    yield "tokens", show_tokens(tok, text, title=BAD[0] + BAD[1])
    if tok.mask_token_id is not None:
        yield "masking", show_masking(text, tok)
        yield "masks filled", fill_mask(model, tok, f"{BAD[0]} {tok.mask_token} y")


@pytest.mark.parametrize("kind", ["causal", "masked", "evil"])
def test_pages_of_models(kind, request):
    pages = dict(drawn(*request.getfixturevalue(kind)))
    assert {name: hostile(page) for name, page in pages.items() if hostile(page)} == {}
    assert len(pages) >= 9 and any("alert" in " ".join(shown(p)) for p in pages.values())


def games():
    words = [*BAD, "the", "film"]
    ids = list(range(len(words)))
    models = {b: NGramLM(1, vocab_size=len(words)).fit(ids) for b in BAD[:2]}
    game = NextWordGame(ids, words, models, positions=[1, 2])
    yield "game", game._repr_html_()
    game.guess(f"{BAD[1]}, {BAD[0]}")
    yield "game, one guess", game._repr_html_()
    yield "its table", game.table()
    game.guess(BAD[2])
    yield from (("game over", game._repr_html_()), ("as a widget", game.widget()))


def cuts():
    yield "chunks", show_chunks([4]*5, 4, tokens=(BAD*2)[:20])
    yield "chunk explorer", chunk_explorer([4, 9, 3], chunk_size=4)
    for b in (*BAD, '" onmouseover="alert(1) good " . The <b>acting was good.'):
        yield f"review {b}", show_review(f"{b}. The film was good. {b}")


def tables():
    y = np.array([0, 1]*3)
    run, split = RunResult(BAD[0], 1-y.astype(float), y), Dataset.from_dict({"text": BAD[:6], "label": y})
    yield "mistakes", most_confident_mistakes(run, split)
    yield "results", results_table([run])
    yield "seeds", compare_seeds([RunResult(BAD[1], y.astype(float), y, settings=dict(seed=1))])
    yield "groups", accuracy_by(run, BAD[:6])


@pytest.mark.parametrize("make", [games, cuts, tables])
def test_pages_without_a_model(make):
    pages = dict(make())
    assert {name: hostile(page) for name, page in pages.items() if hostile(page)} == {}
    assert len(pages) >= 4


def test_pages_of_a_classifier(masked):
    clf, tok = load_lm(masked, "sequence-classification", labels=[BAD[0], BAD[1]], seed=1)
    found = [token_importance(clf, tok, f"{BAD[0]} good"), token_importance(clf, tok, TEXT, by="word")]
    pages = [classify(clf, tok, BAD[:3]), *map(show_importance, found), clf.load_report]
    box = review_explorer(clf, tok, TEXT)
    pages.append(box)
    for text in ("", (BAD[1] + " ")*200): # an error on the page
        box.children[0].value = text
        box.children[1].children[2].click()
        pages.append([*shown(box)][0])
    assert [hostile(page) for page in pages] == [[]]*len(pages)
    assert masking_explorer(TEXT, tok) is not None


def test_pages_of_the_advice():
    model, tok = load_lm("tiny")
    texts = [f"{b} {b} the film was good, {i}." for i, b in enumerate(BAD*2)]
    measures = measure_texts(texts, model, tok, n=4)
    words = fragmented_words(texts, tok, ["a film"]*3, count=1)
    by_hand = Verdict(BAD[0], (Check(BAD[1], BAD[2], BAD[0], BAD[1], True),))
    pages = [FinetuneReport(measures, v, words) for v in (verdict(measures), by_hand)]
    assert [hostile(page) for page in [*pages, words, by_hand.frame()]] == [[]]*4
    assert BAD[1] in repr(pages[1].verdict)


@pytest.mark.parametrize("name", ["cost $5 or $6", "$\\frac$", "a_b^c", "$", "%s {x}", "\\"])
def test_names_in_figures_are_text(name):
    import matplotlib.pyplot as plt
    from course_lm.comparing import plot_calibration
    run = RunResult(name, np.array([.2, .8]), np.array([0, 1]))
    history = PretrainHistory(evals=[dict(step=1, tokens=1, bits_per_byte=1.)])
    for draw in (lambda: plot_calibration([run]), lambda: history.plot(**{name: 1.})):
        draw().figure.canvas.draw()
        plt.close("all")
