"""Every widget in JupyterLab, inside its lesson, in both themes: opened, worked by the keyboard alone, its
output seen to change, its colours readable. Pictures go to _run/widgets."""
import json, re

import pytest

from scripts.jupyter import open_page
from scripts.lessons import nbs
from tests.browser.conftest import shots

WIDGETS = {  # lesson -> the call that shows its widget, and what is drawn without a kernel
    "11_entropy": ("played.widget()", "game"),
    "21_what_a_cut_costs": ("chunk_explorer(lengths", "show_chunks(lengths[:5], 64, 'pack')"),
    "30_causal_vs_masked_labels": ("masking_explorer(sentence", "show_batch_labels(LMCollator(bert_tok"),
    "62_long_reviews": ("review_explorer(critic", "show_importance(token_importance(critic"),
}
HTML = ".widget-html-content"
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
        box = open_lesson(name, WIDGETS[name][0])
        page = box.page
        pale = box.evaluate(PALE)
        assert not pale, f"{theme}: too pale: {pale[:5]}"
        dark = page.evaluate("document.body.dataset.jpThemeLight") == "false"
        assert dark == (theme == "Dark")
        assert set(reached(page, box)) == set(range(controls(box).count())), "not all can be reached by Tab"
        shots.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=shots / f"{name}-{theme.lower()}.png")
        return box
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


def press(box, selector: str, key: str, times: int = 1) -> None:
    "A key on a control."
    box.locator(selector).first.focus()
    for _ in range(times): box.page.keyboard.press(key)


def after_change(box, selector: str, before: str) -> str:
    "The text that stands there after it has changed."
    for _ in range(240):
        now = text_in(box, selector)
        if now and now != before: return now
        box.page.wait_for_timeout(250)
    raise AssertionError(f"nothing has changed: {before[:200]}")


def text_in(box, selector: str) -> str:
    "The same whether it is laid out already or not, unlike `all_inner_texts`."
    return "".join(box.locator(selector).all_text_contents())


def test_a_first_start_asks_nothing(lab, browser):
    page = open_page(browser, lab, "work/98_lab.ipynb")
    page.wait_for_timeout(8000)  # the question about news would come once the lab has settled
    said = page.locator(".jp-toast, .Toastify__toast, .jp-Dialog").all_inner_texts()
    page.close()
    lab.stop("work/98_lab.ipynb")
    assert said == []


def test_chunk_explorer(shown):
    box = shown("21_what_a_cut_costs")
    before = after_change(box, HTML, "")
    assert "chunk_size 64" in before
    press(box, "[role=slider]", "ArrowLeft", 4)
    box.page.keyboard.press("Tab")
    after = after_change(box, HTML, before)
    assert "chunk_size 6" in after and "chunk_size 64" not in after
    press(box, "select", "p")  # the first policy with that letter
    assert after_change(box, HTML, after) != after


def test_masking_explorer(shown):
    box = shown("30_causal_vs_masked_labels")
    table = ".jp-RenderedHTMLCommon"
    before = after_change(box, table, "")
    press(box, "[role=slider]", "End")
    box.page.keyboard.press("Tab")
    after = after_change(box, table, before)
    assert after.count("[MASK]") > 2 > before.count("[MASK]")


def test_next_word_game(shown):
    box = shown("11_entropy")
    before = after_change(box, HTML, "")
    press(box, "input[type=text]", "End")
    box.page.keyboard.insert_text("the")
    press(box, "button", "Space")
    after = after_change(box, HTML, before)
    assert re.search(r"1\. (\w+)\s*you ([\d.]+)", after)


def test_review_box(shown):
    box = shown("62_long_reviews")
    before = after_change(box, HTML, "")
    assert "probability" in before and "detective" in before
    press(box, "textarea", "Control+a")
    box.page.keyboard.insert_text("I hated it. The plot was boring, and the cast is dreadful.")
    press(box, "button", "Space")
    after = after_change(box, HTML, before)
    assert "dreadful" in after and "probability" in after and "detective" not in after
    colours = "all => all.map(e => getComputedStyle(e).backgroundColor)"
    seen = box.locator(f"{HTML} span[title]").evaluate_all(colours)
    assert len(set(seen)) > 3  # words are coloured by what they did
    press(box, "textarea", "Control+a")
    box.page.keyboard.insert_text("word " * 70)
    press(box, "button", "Space")
    assert "the model takes" in after_change(box, HTML, after)


@pytest.mark.parametrize("name", WIDGETS)
def test_beside_each_widget_is_a_picture_that_needs_no_kernel(name):
    cells = json.loads((nbs / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [(i, "".join(c["source"]), c) for i, c in enumerate(cells) if c["cell_type"] == "code"]
    widget, twin = WIDGETS[name]
    at = next(i for i, source, _ in code if widget in source)
    near = [c for i, source, c in code if abs(i - at) <= 2 and twin in source]
    assert near and any("text/html" in o.get("data", {}) for c in near for o in c["outputs"])


def test_every_widget_of_the_library_is_looked_at():
    source = "".join(p.read_text(encoding="utf-8") for p in (nbs.parent / "course_lm").glob("*.py"))
    made = set(re.findall(r"(?s)\ndef (\w+)\((?:(?!\ndef ).)*?\): # ipywidgets", source))
    unseen = {name for name in made if not any(f"{name}(" in call for call, _ in WIDGETS.values())}
    assert len(made) == len(WIDGETS) and not unseen, made
