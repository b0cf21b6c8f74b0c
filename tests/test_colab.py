"A notebook that comes alone, as on Colab: the cell that installs the course, and the badge that leads there."
import json, sys, types

import pytest

from scripts import colab
from scripts.lessons import name_of, nbs, root

THOSE = colab.those()


@pytest.mark.parametrize("path", THOSE, ids=name_of)
def test_lessons_and_sheets_are_in_step_with_settings(path):
    there = json.loads(path.read_text(encoding="utf-8"))
    assert colab.in_step(path) == there, "run `python -m scripts.colab`"


def test_all_lessons_and_sheets_are_among_them():
    names = {name_of(p) for p in THOSE}
    assert {"00_data", "72_releasing", "homework/10_homework"} <= names and "99_command_line" not in names
    assert {p.stem for p in (nbs / "homework").glob("*_homework.ipynb")} <= {p.stem for p in THOSE}


def test_badges_lead_to_files_of_the_repository():
    for path in THOSE:
        where = colab.badge(path).split(f"/blob/{colab.settings()['branch']}/")[1].rstrip(")")
        assert (root / where).exists(), where


def run(monkeypatch, modules, installed):
    "What the cell would install, with these modules imported."
    asked = []
    for name in modules: monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    import importlib.util, subprocess
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(subprocess, "run", lambda command, check: asked.append(command))
    exec("".join(colab.cell()["source"]), {})
    return asked


def test_the_cell_installs_on_colab_and_nowhere_else(monkeypatch):
    assert run(monkeypatch, [], False) == []
    assert run(monkeypatch, ["google.colab"], True) == []
    (command,) = run(monkeypatch, ["google.colab"], False)
    url = colab.settings()["git_url"]
    assert command[-1] == f"course_lm[lessons] @ git+{url}@main" and command[1:4] == ["-m", "pip", "install"]


def test_a_notebook_out_of_step_is_mended_once(tmp_path, monkeypatch, capsys):
    made = tmp_path / "nbs" / "10_x.ipynb"
    made.parent.mkdir()
    def text(source, id): return dict(cell_type="markdown", id=id, metadata={}, source=[source])
    before = [text("# A", "a"), text("[![Old](b.svg)](c) [![Other](d.svg)](e)\n\n**Reading** 1", "b")]
    made.write_text(json.dumps(dict(cells=before, metadata={}, nbformat=4, nbformat_minor=5)))
    monkeypatch.setattr(colab, "those", lambda: [made])
    monkeypatch.setattr(colab, "name_of", lambda path: "10_x")
    assert colab.main(["--check"]) == 1 and colab.main([]) == 0 and colab.main(["--check"]) == 0
    cells = json.loads(made.read_text())["cells"]
    assert [c["id"] for c in cells] == ["a", "b", colab.ID]
    assert "".join(cells[1]["source"]) == f"{colab.badge(made)}\n\n**Reading** 1"
    assert capsys.readouterr().out.count("written: 10_x") == 1
