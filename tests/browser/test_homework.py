"""A homework sheet worked through in JupyterLab: stub, wrong answer, report, right answer. Pictures go to
_run/homework."""
from pathlib import Path

import pytest

from scripts.jupyter import open_page

shots = Path(__file__).resolve().parents[2] / "_run" / "homework"
HEAD = """def chunk(docs, chunk_size, eos):
    "Join `docs`, with `eos` after each document, and cut the stream into rows of `chunk_size` tokens."
"""
WRONG = HEAD + """    rows = []
    for doc in docs:
        ids = [*doc, eos] if doc else []
        rows += [ids[i:i+chunk_size] for i in range(0, len(ids)-chunk_size+1, chunk_size)]
    return rows"""
RIGHT = HEAD + """    ids = [token for doc in docs if doc for token in [*doc, eos]]
    return [ids[i:i+chunk_size] for i in range(0, len(ids)-chunk_size+1, chunk_size)]"""


class Sheet:
    "A notebook in a page of JupyterLab."
    def __init__(self, page): self.page = page
    def cell(self, holds: str):
        return self.page.locator(".jp-CodeCell", has=self.page.locator(".cm-content", has_text=holds)).first
    def run(self, cell) -> None:
        "Run a cell, and wait until it has run."
        prompt = cell.locator(".jp-InputPrompt")
        before = prompt.inner_text()
        accept = self.page.locator(".jp-Dialog button.jp-mod-accept")
        for i in range(400): # a prompt is [ ]:, then [*]:, then [7]:
            now = prompt.inner_text()
            if now != before and now.strip("[]: ").isdigit(): return
            if accept.count(): accept.first.click() # which kernel?
            elif i % 50 == 0 and now == before:
                cell.locator(".cm-content").click()
                self.page.keyboard.press("Control+Enter")
            self.page.wait_for_timeout(200)
        self.page.screenshot(path=shots / "not_run.png")
        raise TimeoutError(f"the cell has not run: {now}")
    def write(self, cell, text: str) -> None:
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(text)
    def report(self, cell) -> str:
        self.run(cell)
        return cell.locator(".jp-OutputArea-output").first.inner_text()
    def keep(self, cell, name: str) -> None:
        shots.mkdir(parents=True, exist_ok=True)
        self.page.keyboard.press("Escape")
        cell.screenshot(path=shots / f"{name}.png")


@pytest.fixture
def sheet(lab, browser):
    "A learner's copy of the sheet of lesson 2, opened in the lab."
    page = open_page(browser, lab, "work/homework/20_homework.ipynb")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell .cm-content", timeout=120_000)
    yield Sheet(page)
    page.close()


def contrast(colours: list[str]) -> float:
    "WCAG's contrast ratio of two colours as CSS computes them."
    def luminance(colour):
        parts = [int(float(x)) / 255 for x in colour[colour.index("(") + 1:-1].split(",")[:3]]
        linear = [x / 12.92 if x <= .04045 else ((x + .055) / 1.055) ** 2.4 for x in parts]
        return sum(w * x for w, x in zip((.2126, .7152, .0722), linear))
    low, high = sorted(map(luminance, colours))
    return (high + .05) / (low + .05)


TEXTS = """root => [...root.querySelectorAll('*')].filter(e =>
  [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim())).map(e => {
    let back = e
    while (back && /rgba\\(0, 0, 0, 0\\)|transparent/.test(getComputedStyle(back).backgroundColor))
      back = back.parentElement
    return [e.innerText, getComputedStyle(e).color,
            back ? getComputedStyle(back).backgroundColor : 'rgb(255, 255, 255)'] })"""


def test_a_sheet_is_worked_through(sheet, theme):
    theme = theme.lower()
    sheet.run(sheet.cell("from course_lm.homework import check"))
    answer, check = sheet.cell("def chunk("), sheet.cell("check.chunk(chunk)")
    sheet.run(answer)
    assert "✗ chunk: nothing here yet" in sheet.report(check)
    sheet.keep(check, f"{theme}_1_stub")

    sheet.write(answer, WRONG)
    sheet.run(answer)
    text = sheet.report(check)
    assert "✗ chunk: the tail of every document is dropped" in text
    assert "yours" in text and "expected" in text and "Hint 1" in text
    output = check.locator(".jp-RenderedHTMLCommon").first
    assert output.locator("details[open]").count() == 0
    sheet.keep(check, f"{theme}_2_wrong")
    output.locator("summary").nth(0).click()
    output.locator("summary").nth(1).click()
    assert output.locator("details[open]").count() == 2
    sheet.keep(check, f"{theme}_3_hints")
    faint = [(t, c, b) for t, c, b in output.evaluate(TEXTS) if contrast([c, b]) < 4.5]
    assert faint == []

    sheet.write(answer, RIGHT)
    sheet.run(answer)
    assert sheet.report(check).startswith("✓ chunk")
    sheet.keep(check, f"{theme}_4_right")
    assert sheet.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_contrast_is_that_of_the_guidelines():
    assert round(contrast(["rgb(0, 0, 0)", "rgb(255, 255, 255)"]), 1) == 21
    assert round(contrast(["rgb(119, 119, 119)", "rgb(255, 255, 255)"]), 2) == 4.48
