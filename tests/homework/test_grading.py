"A class is graded: a row an exercise, nothing of a notebook runs here, and a killed run goes on."
import csv, json, os, sys

import pytest

from course_lm import cli
from course_lm.homework import grading
from course_lm.homework.grading import FIELDS, class_page, grade, read_scores, submissions
from course_lm.homework.notebooks import check_notebook, exercises_of, needed
from course_lm.homework.sheets import start
from scripts.sheets import sources

RIGHT = "def windows(ids, n, step):\n    return [ids[i:i+n] for i in range(0, len(ids)-n+1, step)]"
SHORT = RIGHT.replace("len(ids)-n+1", "len(ids)")


def notebook(path, *cells, names=("windows",)):
    code = dict(cell_type="code", metadata={}, outputs=[])
    made = [dict(code, id=f"c{i}", source=c) for i, c in enumerate(cells)]
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = dict(course_lm=dict(exercises=list(names)))
    path.write_text(json.dumps(dict(cells=made, metadata=meta, nbformat=4, nbformat_minor=5)))
    return path


def test_who_handed_in_what(tmp_path):
    for name in ("ada/20_homework.ipynb", "ada/deep/30_homework.ipynb", "20_homework_bob.ipynb", "eve.ipynb",
                 "ada/.ipynb_checkpoints/20_homework.ipynb"): notebook(tmp_path / name, "")
    assert sorted(submissions(tmp_path)) == [
        ("ada", "ada/20_homework.ipynb"), ("ada", "ada/deep/30_homework.ipynb"),
        ("bob", "20_homework_bob.ipynb"), ("eve", "eve.ipynb")]


def test_a_class(tmp_path):
    mark = tmp_path / "ran"
    evil = f"open({str(mark)!r}, 'w').write('x')\nimport os\nos._exit(1)"
    notebook(tmp_path / "in" / "ada.ipynb", evil, RIGHT, "check.windows(windows)")
    notebook(tmp_path / "in" / "bob.ipynb", SHORT)
    notebook(tmp_path / "in" / "=cmd.ipynb", "x = 1")
    notebook(tmp_path / "in" / "none.ipynb", "x = 1", names=())
    (tmp_path / "in" / "odd.ipynb").write_text("{")
    out = tmp_path / "scores.csv"
    rows = {r["student"].strip("'"): r for r in grade(tmp_path / "in", out, progress=False)}
    assert rows["ada"]["passed"] == "1" and rows["ada"]["mistake"] == "" and not mark.exists()
    assert rows["bob"]["passed"] == "0" and rows["bob"]["mistake"] not in ("", "raises")
    assert [rows[s]["mistake"] for s in ("=cmd", "none", "odd")] == ["missing", "no-exercise", "unreadable"]
    assert all(float(r["seconds"]) < 60 for r in rows.values())
    page = out.with_suffix(".html").read_text()
    assert "bob" in page and rows["bob"]["mistake"] in page and "5 students" in page


def test_what_is_graded_is_not_graded_again(tmp_path, monkeypatch):
    for name in ("ada", "bob", "eve"): notebook(tmp_path / "in" / f"{name}.ipynb", RIGHT)
    out, asked = tmp_path / "scores.csv", []
    def graded(todo, jobs):
        for (student, name), path in todo.items():
            asked.append(student)
            yield [dict(dict.fromkeys(FIELDS, "0"), student=student, notebook=name,
                        version=grading.version_of(path))]
    monkeypatch.setattr(grading, "_graded", graded)
    grade(tmp_path / "in", out, progress=False)
    assert asked == ["ada", "bob", "eve"]
    text = out.read_text()
    out.write_text(text[:-5])  # killed in the middle of a line
    assert len(read_scores(out)) == 2
    notebook(tmp_path / "in" / "ada.ipynb", SHORT)  # handed in again
    assert len(grade(tmp_path / "in", out, progress=False)) == 3 and asked[3:] == ["ada", "eve"]
    (tmp_path / "in" / "bob.ipynb").unlink()
    assert len(grade(tmp_path / "in", out, progress=False)) == 2


def test_another_table_is_not_overwritten(tmp_path):
    notebook(tmp_path / "in" / "ada.ipynb", RIGHT)
    out = tmp_path / "scores.csv"
    out.write_text("name,points\nada,3\n")
    with pytest.raises(ValueError, match="is another table"): grade(tmp_path / "in", out, progress=False)
    assert out.read_text() == "name,points\nada,3\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the grader's processes are forked")
def test_a_grader_that_dies_is_a_row(tmp_path, monkeypatch):
    notebook(tmp_path / "in" / "ada.ipynb", RIGHT)
    monkeypatch.setattr(grading, "check_notebook", lambda *args: os._exit(3))
    rows = grade(tmp_path / "in", tmp_path / "scores.csv", progress=False)
    assert [r["mistake"] for r in rows] == ["grader-died"]
    monkeypatch.setattr(grading, "LONGEST", .2)
    monkeypatch.setattr(grading, "check_notebook", lambda *args: __import__("time").sleep(100))
    (tmp_path / "scores.csv").unlink()
    rows = grade(tmp_path / "in", tmp_path / "scores.csv", progress=False)
    assert [r["mistake"] for r in rows] == ["took-too-long"]


def test_a_function_gets_what_it_needs():
    cells = ["from math import *\nimport random, torch", "N = 3", "rows = []\nrows.append(1)\nrows[:3]",
             "def helper(): return N + len(rows)", "async def f(): pass",
             "def f(x): return floor(helper()) + M",
             "if True:\n    M = 4", "%%bash\nrm x", "!ls", "slow = f(2)", "class C: pass"]
    kept = [__import__("ast").unparse(node).splitlines()[0] for _, node in needed(cells, "f")]
    assert kept == ["from math import *", "N = 3", "rows = []", "rows.append(1)", "def helper():",
                    "async def f():", "def f(x):", "if True:"]
    assert needed(cells, "g") == []


def test_a_sheet_is_checked_from_outside(tmp_path, capsys):
    start(tmp_path, 2)
    sheet = tmp_path / "20_homework.ipynb"
    assert [r.mistake for r in check_notebook(sheet)] == ["nothing-here-yet"]*len(exercises_of(sheet))
    solved = next(p for p in sources() if p.name == "20_homework.ipynb")
    assert cli.main(["homework", "check", str(solved)]) == 0
    assert "6 of 6 have passed" in capsys.readouterr().out
    assert cli.main(["homework", "check", str(tmp_path / "none.ipynb")]) == 1
    assert "none.ipynb" in capsys.readouterr().err


def test_commands(tmp_path, capsys):
    folder = tmp_path / "class"
    assert cli.main(["homework", "start", str(folder / "ada"), "--lesson", "2"]) == 0
    assert capsys.readouterr().out.startswith("copied")
    assert cli.main(["homework", "start", str(folder / "ada"), "--lesson", "2"]) == 0
    assert capsys.readouterr().out.startswith("kept")
    assert cli.main(["homework", "grade", str(folder), "--out", str(tmp_path / "s.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "s.csv").open()))
    assert {r["mistake"] for r in rows} == {"nothing-here-yet"} and (tmp_path / "s.html").exists()
    assert cli.main(["homework", "grade", str(tmp_path / "nowhere")]) == 1
    for words in (["homework"], ["homework", "nonsense"]):
        with pytest.raises(SystemExit) as stop: cli.main(words)
        assert stop.value.code == 2


def test_a_page_escapes_names():
    row = dict(dict.fromkeys(FIELDS, ""), student="<script>", exercise="chunk", mistake="<b>", passed="0")
    page = class_page([row])
    assert "<script>" not in page and "<b>" not in page and "&lt;script&gt;" in page
    assert class_page([]).endswith("</html>") and sys.getsizeof(page) > 500
