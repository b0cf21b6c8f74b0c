"""otter-grader gives points for a student's sheet as it is: a right one, a half one, an empty one. What it
needs is made by `python -m scripts.otter`; the run itself is skipped where otter-grader is not installed."""
import json, os, shutil, subprocess
from pathlib import Path

import pytest

from course_lm.homework import names_of
from course_lm.homework.sheets import shipped, without_solution
from scripts import otter
from scripts.lessons import nbs, root

LESSON, SHEET = 2, "20_homework.ipynb"
COMMAND = os.environ.get("COURSE_LM_OTTER") or shutil.which("otter")


def solved(first: int) -> str:
    "The student's sheet with the solutions to its first exercises, filled in as a student would."
    names = names_of(LESSON)[:first]
    student = json.loads(shipped()[SHEET])
    source = json.loads((nbs / "homework" / SHEET).read_text(encoding="utf-8"))
    texts = [text for text in map(code_of, source["cells"]) if "### solution" in text]
    answers = {without_solution(text): text for text in texts}
    for cell in student["cells"]:
        text = answers.get(code_of(cell), "")
        if any(f"def {name}(" in text for name in names): cell["source"] = text
    return json.dumps(student)


def code_of(cell): return "".join(cell["source"]) if cell["cell_type"] == "code" else ""


def points(sheet: str, folder: Path) -> tuple[float, float]:
    "What otter gives for it, and the most that there is."
    (folder / SHEET).write_text(sheet, encoding="utf-8")
    zipped = otter.write(LESSON, folder / "autograder")
    env = os.environ | dict(PYTHONPATH=str(root))
    command = [COMMAND, "run", SHEET, "-a", str(zipped), "-o", ".", "--no-logo"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert (folder / SHEET).read_text(encoding="utf-8") == sheet, "the sheet was changed"
    assert (folder / "results.json").exists(), done.stdout[-2000:] + done.stderr[-2000:]
    tests = [t for t in json.loads((folder / "results.json").read_text())["tests"] if "max_score" in t]
    tests = [t for t in tests if t["max_score"]]
    return sum(t["score"] for t in tests), sum(t["max_score"] for t in tests)


@pytest.mark.slow
@pytest.mark.skipif(not COMMAND, reason="otter-grader is not installed")
@pytest.mark.parametrize("first", [6, 3, 0], ids=["right", "half", "empty"])
def test_the_sheet_gets_its_points(first, tmp_path):
    sheet = shipped()[SHEET] if first == 0 else solved(first)
    assert points(sheet, tmp_path) == (first, len(names_of(LESSON)))


def test_there_is_a_test_for_each_exercise_and_it_asks_the_checker(tmp_path):
    for lesson in range(1, 8):
        made = otter.files(lesson)
        tests = [path for path in made if path.startswith("tests/")]
        assert tests == [f"tests/{name}.py" for name in names_of(lesson)]
        for path, text in made.items():
            if path.endswith(".py"): compile(text, path, "exec")
    zipped = otter.write(1, tmp_path)
    assert zipped.exists() and (tmp_path / "tests" / "bigram_probs.py").exists()


def test_a_filled_sheet_differs_in_its_answers_only():
    empty, full = json.loads(shipped()[SHEET]), json.loads(solved(6))
    changed = [a for a, b in zip(full["cells"], empty["cells"]) if a != b]
    assert len(changed) == 6 and all("### solution" in cell["source"] for cell in changed)
