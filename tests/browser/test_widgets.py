"""Every widget in JupyterLab, inside its lesson, in both themes: opened, worked by the keyboard alone, its
output seen to change, its colours readable. Pictures go to _run/widgets."""
import json, re

import pytest

from scripts.lessons import nbs
from tests.browser.conftest import shots

WIDGETS = {  # lesson -> the call that shows its widget, and what is drawn without a kernel
    "11_entropy": ("played.widget()", "game"),
    "21_what_a_cut_costs": ("chunk_explorer(lengths", "show_chunks(lengths[:5], 64, 'pack')"),
    "30_causal_vs_masked_labels": ("masking_explorer(sentence", "show_batch_labels(LMCollator(bert_tok"),
    "62_long_reviews": ("review_explorer(critic", "show_importance(token_importance(critic, tokenizer, brilliant"),
}
BOX = ".jp-OutputArea-output .jupyter-widgets"
HTML = ".jp-OutputArea-output .jupyter-widgets .widget-html-content"
CONTROLS = ("[role=slider]", "select", "input[type=text]", "input[type=checkbox]", "textarea", "button")
# Text that stands out too little from what is behind it: [text, ratio], as WCAG counts it.
PALE = """root => {
  const parse = c => { const n = (c.match(/[\\d.]+/g) || []).map(Number)
    return n.length == 3 ? [...n, 1] : n }
  const light = c => { const [r, g, b] = c.map(v => { v /= 255
    return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 }); return .2126*r + .7152*g + .0722*b }
  const over = (top, below) => [0, 1, 2].map(i => top[i]*top[3] + below[i]*(1 - top[3]))
  const behind = e => { if (!e) return [255, 255, 255]
    const c = parse(getComputedStyle(e).backgroundColor)
    return c[3] == 1 ? c.slice(0, 3) : over(c, behind(e.parentElement)) }
  const found = []
  for (const e of root.querySelectorAll('*')) {
    const own = [...e.childNodes].filter(n => n.nodeType == 3).map(n => n.textContent.trim()).join('')
    const style = getComputedStyle(e)
    if (!own || !e.offsetParent || style.visibility == 'hidden' || e.closest('[disabled]')) continue
    const back = behind(e), front = over(parse(style.color), back)
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x)
    if ((a + .05) / (b + .05) < 4.5) found.push([own.slice(0, 30), ((a + .05) / (b + .05)).toFixed(1)])
  }
  return found }"""


@pytest.fixture
def shown(open_lesson, theme):
    "A function that opens a lesson at its widget; checks what holds for every widget; keeps a picture."
    def go(name: str):
        page = open_lesson(name, WIDGETS[name][0])
        box = page.locator(BOX).first
        pale = box.evaluate(PALE)
        assert not pale, f"{theme}: too pale: {pale[:5]}"
        dark = page.evaluate("document.body.dataset.jpThemeLight") == "false"
        assert dark == (theme == "Dark")
        assert set(reached(page, box)) == set(range(controls(box).count())), "not all can be reached by Tab"
        shots.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=shots / f"{name}-{theme.lower()}.png")
        return page
    return go


def controls(box): return box.locator(", ".join(f"{c}:visible:not([disabled])" for c in CONTROLS))


def reached(page, box) -> list[int]:
    "Which controls of a widget Tab comes to, from the first on."
    found, n = [0], controls(box).count()
    controls(box).first.focus()
    for _ in range(2 * n):
        page.keyboard.press("Tab")
        at = controls(box).evaluate_all("all => all.indexOf(document.activeElement)")
        if at >= 0: found.append(at)
    return found


def press(page, selector: str, key: str, times: int = 1, nth: int = 0) -> None:
    "A key on a control."
    page.locator(f"{BOX} {selector}").nth(nth).focus()
    for _ in range(times): page.keyboard.press(key)


def after_change(page, selector: str, before: str) -> str:
    "The text that stands there after it has changed."
    page.wait_for_function("([s, t]) => { const e = document.querySelector(s); return e && e.innerText !== t }",
                           arg=[selector, before], timeout=60_000)
    return page.inner_text(selector)


def test_chunk_explorer(shown):
    page = shown("21_what_a_cut_costs")
    before = page.inner_text(HTML)
    assert "chunk_size 64" in before
    press(page, "[role=slider]", "ArrowLeft", 4)
    page.keyboard.press("Tab")
    after = after_change(page, HTML, before)
    assert "chunk_size 6" in after and "chunk_size 64" not in after
    press(page, "select", "p")  # the first policy with that letter
    assert after_change(page, HTML, after) != after


def test_masking_explorer(shown):
    page = shown("30_causal_vs_masked_labels")
    table = f"{BOX} .jp-RenderedHTMLCommon"
    before = page.inner_text(table)
    press(page, "[role=slider]", "End")
    page.keyboard.press("Tab")
    after = after_change(page, table, before)
    assert after.count("[MASK]") > before.count("[MASK]") > 0


def test_next_word_game(shown):
    page = shown("11_entropy")
    before = page.inner_text(HTML)
    press(page, "input[type=text]", "End")
    page.keyboard.type("the")
    press(page, "button", "Space")
    after = after_change(page, HTML, before)
    assert re.search(r"1\. (\w+)\s*you ([\d.]+)", after)


def test_review_box(shown):
    page = shown("62_long_reviews")
    before = page.inner_text(HTML)
    assert "probability" in before and "detective" in before
    press(page, "textarea", "Control+a")
    page.keyboard.type("I hated it. The plot was boring, and the cast is dreadful.")
    press(page, "button", "Space")
    after = after_change(page, HTML, before)
    assert "dreadful" in after and "probability" in after and "detective" not in after
    colours = ("s => [...document.querySelectorAll(s + ' span[title]')].map(e => "
               "getComputedStyle(e).backgroundColor)")
    assert len(set(page.evaluate(colours, HTML))) > 3  # words are coloured by what they did
    press(page, "textarea", "Control+a")
    page.keyboard.type("word " * 70)
    press(page, "button", "Space")
    assert "the model takes" in after_change(page, HTML, after)


@pytest.mark.parametrize("name", WIDGETS)
def test_beside_each_widget_is_a_picture_that_needs_no_kernel(name):
    cells = json.loads((nbs / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [(i, "".join(c["source"]), c) for i, c in enumerate(cells) if c["cell_type"] == "code"]
    widget, twin = WIDGETS[name]
    at = next(i for i, source, _ in code if widget in source)
    near = [c for i, source, c in code if abs(i - at) <= 2 and twin in source]
    assert near and any("text/html" in o.get("data", {}) for c in near for o in c["outputs"])


def test_every_widget_of_the_library_is_looked_at():
    texts = [p.read_text(encoding="utf-8") for p in nbs.glob("*.ipynb")]
    made = {name for text in texts for name in re.findall(r"def (\w+)\((?:(?!def ).)*?\): # ipywidgets", text)}
    unseen = {name for name in made if not any(f"{name}(" in call for call, _ in WIDGETS.values())}
    assert len(made) == len(WIDGETS) and not unseen
