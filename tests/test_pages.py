"Lessons as pages: their links lead somewhere, their pictures can be read aloud."

import json, re

import nbformat
import pytest

from scripts.lessons import all_notebooks, name_of, nbs
from scripts.run_course import to_html

NOTEBOOKS = all_notebooks()


def markdown(path):
    "The Markdown of a notebook without its code blocks."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return re.sub(r"(?s)```.*?```", "", text)


def anchors(path):
    "The anchors that Jupyter and nbconvert give to headings."
    headings = re.findall(r"(?m)^#{1,6} +(.+?) *$", markdown(path))
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", re.sub(r"[`*]", "", h)) for h in headings]
    return {h.replace(" ", "-") for h in plain}


def broken_links(path):
    "Links of a notebook that lead nowhere: no such file, or no such heading in it."
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", markdown(path)):
        if re.match(r"https?:|mailto:", link): continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists(): broken.append(link)
        elif anchor and target.suffix == ".ipynb" and anchor not in anchors(target): broken.append(link)
    return broken


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_links_and_anchors_of_lessons_lead_somewhere(path):
    assert broken_links(path) == []


def test_the_check_of_links_sees_a_missing_file_and_a_missing_heading(tmp_path):
    links = "[a](#What-x-is) [b](#Elsewhere) [c](gone.ipynb) [d](n.ipynb#A-title)"
    text = f"# A title\n\n## What `x` is\n\n{links}"
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    nbformat.write(page, tmp_path / "n.ipynb")
    assert broken_links(tmp_path / "n.ipynb") == ["#Elsewhere", "gone.ipynb"]


def test_a_lesson_speaks_of_lessons_that_are_there():
    there = {p.name[0] for p in nbs.glob("[0-9][0-9]_*.ipynb")}
    named = {n: name_of(p) for p in NOTEBOOKS for n in re.findall(r"\b[Ll]esson (\d)\b", markdown(p))}
    assert {n: where for n, where in named.items() if n not in there} == {}


def test_a_page_has_the_alternative_text_of_its_picture(tmp_path):
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    shown = nbformat.v4.new_output("display_data", data={"image/png": png})
    source = "#| fig-alt: A line that falls & <rises>.\nplot()"
    cells = [nbformat.v4.new_code_cell(source, outputs=[shown]) for _ in range(2)]
    to_html(nbformat.v4.new_notebook(cells=cells), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count('alt="A line that falls &amp; &lt;rises&gt;."') == 2


def minutes_said(name):
    "Minutes of reading that a lesson gives, or those of a sheet's exercises together."
    cells = json.loads((nbs / name).read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    read = re.search(r"\*\*Reading\*\* (\d+) minutes", text)
    return int(read[1]) if read else sum(map(int, re.findall(r"^\*(\d+) minutes\*", text, re.M)))


def test_the_syllabus_for_teachers_adds_up():
    rows = re.findall(r"^\| \d+ \| (\d) (.*?)\| (\d+) \| (\d+) \| ?(\d*) ?\|$",
                      (nbs / "teaching.md").read_text(encoding="utf-8"), re.M)
    assert [row[0] for row in rows] == [*"01234567"]
    for lesson, named, core, further, homework in rows:
        main, more = (re.findall(r"\((\d\d_\w+\.ipynb)\)", part) for part in named.split("further"))
        there = sorted(p.name for p in nbs.glob(f"{lesson}?_*.ipynb"))
        assert sorted(main + more) == there, f"lesson {lesson}"
        said = sum(map(minutes_said, main)), sum(map(minutes_said, more))
        assert said == (int(core), int(further)), f"lesson {lesson}"
        if lesson != "0": assert minutes_said(f"homework/{lesson}0_homework.ipynb") == int(homework)
