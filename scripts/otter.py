"""Points from otter-grader for a homework sheet: `python -m scripts.otter 20` writes otter_20/autograder.zip.

    python -m scripts.otter 20            # one test file an exercise, a point each, in otter_20/
    python -m scripts.otter 20 --to DIR   # somewhere else
    otter run ada/20_homework.ipynb -a otter_20/autograder.zip -o ada

Nothing here needs otter-grader; it reads what is written. The student's sheet stays as it is: otter runs it,
and then asks the checker about each function that the sheet asks for, in the notebook's own process.
"""
import json, sys, zipfile
from pathlib import Path

from course_lm.homework import names_of

TEST = '''from otter.test_files import test_case

OK_FORMAT = False
name = "{name}"
points = 1


@test_case(points=1)
def test_{name}(env):
    from course_lm.homework import check
    if "{name}" not in env: raise AssertionError("there is no function called {name}")
    report = check.{name}(env["{name}"], verbose=False)
    assert report, str(report)
'''


def files(lesson: int) -> dict[str, str]:
    "What an autograder holds: a test for each exercise, and what to install."
    tests = {f"tests/{name}.py": TEST.format(name=name) for name in names_of(lesson)}
    config = dict(show_stdout=True, show_hidden=True, assignment_name=None)
    return tests | {"otter_config.json": json.dumps(config), "requirements.txt": "course_lm\n"}


def write(lesson: int, folder: Path) -> Path:
    "Write the tests, and the zip file that otter and Gradescope take."
    made = files(lesson)
    for name, text in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    with zipfile.ZipFile(folder / "autograder.zip", "w") as f:
        for name, text in made.items(): f.writestr(zipfile.ZipInfo(name), text)
    return folder / "autograder.zip"


def main(words: list[str]) -> int:
    numbers = [w for w in words if w[:1].isdigit()]
    if len(numbers) != 1: return print(__doc__) or 2
    folder = Path(words[words.index("--to") + 1] if "--to" in words else f"otter_{numbers[0]}")
    print(write(int(numbers[0][0]), folder))
    return 0


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
