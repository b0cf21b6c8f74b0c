"""The sheets: with solutions every check passes, as a student gets them every check fails gently, and both
run to their end. The students' sheets are in step with the sources."""
import contextlib, io, json, subprocess, sys

import pytest

import course_lm.homework as homework
from course_lm.homework import known_names
from course_lm.homework.sheets import exercises_in, shipped, start, student_sheet, without_solution
from scripts import sheets
from scripts.lessons import root

SOURCES = sheets.sources()


def code(nb): return ["".join(c["source"]) for c in nb["cells"] if c["cell_type"] == "code"]


def run(sources, monkeypatch):
    "The reports of a sheet whose cells are run one after the other, in this process; magics are left out."
    found = []
    class Recorded(homework.Check):
        def __getattr__(self, name):
            checker = super().__getattr__(name)
            def record(fn, verbose=True): return found.append(checker(fn, verbose=False)) or found[-1]
            return record
    monkeypatch.setattr(homework, "check", Recorded())
    monkeypatch.setenv("MPLBACKEND", "agg")
    space = {"__name__": "sheet"}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for i, source in enumerate(sources): exec(compile(source, f"<cell {i}>", "exec"), space)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_with_solutions_every_check_passes(path, monkeypatch):
    sources = code(json.loads(path.read_text(encoding="utf-8")))
    found = run(sources, monkeypatch)
    assert [str(r) for r in found if not r] == []
    assert list(dict.fromkeys(r.name for r in found)) == exercises_in(sources)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_with_stubs_every_check_fails_gently_and_the_sheet_runs_to_its_end(path, monkeypatch):
    sources = code(student_sheet(json.loads(path.read_text(encoding="utf-8"))))
    found = run(sources, monkeypatch)
    assert [r.mistake for r in found] == ["nothing-here-yet"]*len(exercises_in(sources))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_a_sheet_asks_for_what_the_checker_knows(path):
    nb = student_sheet(json.loads(path.read_text(encoding="utf-8")))
    names = nb["metadata"]["course_lm"]["exercises"]
    assert names and set(names) <= set(known_names())
    assert set(homework.names_of(int(path.name[0]))) == set(names)
    text = json.dumps(nb)
    assert "### solution" not in text and "### end" not in text and "](../" not in text
    assert not any(c.get("outputs") for c in nb["cells"]) and all(c["id"] for c in nb["cells"])


@pytest.mark.tree
def test_the_students_sheets_are_in_step():
    assert sheets.differences() == []
    assert set(shipped()) == {p.name for p in SOURCES}


def test_a_sheet_that_is_not_in_step_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sheets, "folder", tmp_path)
    assert sheets.main(["--check"]) == 1 and sheets.main([]) == 0 and sheets.main(["--check"]) == 0
    first = tmp_path / SOURCES[0].name
    first.write_text(first.read_text(encoding="utf-8").replace("check", "chock"), encoding="utf-8")
    (tmp_path / "19_gone.ipynb").write_text("{}")
    assert sheets.differences() == sorted([SOURCES[0].name, "19_gone.ipynb"])


def test_a_solution_is_taken_out():
    source = "#| echo: false\ndef f(x):\n    'Doc.'\n"
    source += "    ### solution\n    if x:\n\n        return 1\n    ### end\n\ny = 1"
    assert without_solution(source) == "def f(x):\n    'Doc.'\n    ...\n\ny = 1"
    assert without_solution("### solution\nx = 1\n### end") == "..."
    for broken in ("### solution\nx", "x\n### end"):
        with pytest.raises(ValueError, match="without its other half"): without_solution(broken)


def test_an_edited_sheet_is_never_overwritten(tmp_path):
    name = next(iter(shipped()))
    lesson = int(name[0])
    assert start(tmp_path / "new" / "folder", lesson) == [(name, True)]
    sheet = tmp_path / "new" / "folder" / name
    sheet.write_text("mine")
    assert start(tmp_path / "new" / "folder", lesson) == [(name, False)] and sheet.read_text() == "mine"
    assert dict(start(tmp_path / "new" / "folder")) == {n: n != name for n in shipped()}
    with pytest.raises(ValueError, match="lesson=9 has no homework"): start(tmp_path, 9)
    with pytest.raises(ValueError, match="lesson=0"): start(tmp_path, 0)


LIGHT = """
import sys
import course_lm.homework
from course_lm.homework import check
dir(check)
heavy = {'torch', 'transformers', 'datasets', 'pandas', 'pyarrow', 'sklearn', 'fastai', 'IPython'}
print(sorted(heavy & set(sys.modules)), sorted(m for m in sys.modules if 'homework.bank' in m))
try: check.deduplicated
except AttributeError as e: print(e)
"""


def test_nothing_heavy_is_imported_before_a_check_needs_it():
    done = subprocess.run([sys.executable, "-c", LIGHT], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[] []", "there is no exercise called 'deduplicated'"]
