"""A class that does not exist, graded: `python -m scripts.grade_class 30`.

Makes that many notebooks from the answers in tests/homework (right ones in several styles, known mistakes in
another style than the bank's, stubs, a loop without an end, an exit), grades them with the command, kills it
on the way, starts it again, and compares what comes out with what went in.
"""
import csv, importlib, json, os, random, signal, subprocess, sys, tempfile, time
from pathlib import Path

from course_lm.homework import names_of
from scripts.lessons import root

LESSONS = 1, 2, 4
COMMAND = "import sys; from course_lm.cli import main; sys.exit(main(sys.argv[1:]))"
ODD = {
    "nothing-here-yet": "def {name}(*args):\n    ...",
    "no-end": "def {name}(*args):\n    while True: pass",
    "ends-the-process": "import sys\ndef {name}(*args):\n    sys.exit(1)",
    "missing": "# {name}: no time",
    "raises": "def {name}(*args):\n    return undefined",
}


def answers(lesson: int) -> dict:
    "(exercise, mistake or '') -> names of functions, of the answers to a lesson."
    module = importlib.import_module(f"tests.homework.answers_{lesson}0")
    there = {f: name for name, f in vars(module).items() if type(f).__name__ == "function"}
    found = {}
    for name, fs in module.RIGHT.items(): found[name, ""] = [there[f] for f in fs if f in there]
    for name, wrong in module.WRONG.items():
        for mistake, f in wrong:
            if f in there: found.setdefault((name, mistake), []).append(there[f])
    return {key: names for key, names in found.items() if names}


def submission(lesson: int, rng: random.Random, odd: str) -> tuple[dict, dict]:
    "A notebook, and what its exercises should be called."
    known = answers(lesson)
    cells, want = [(root / "tests" / "homework" / f"answers_{lesson}0.py").read_text(encoding="utf-8")], {}
    asked = [name for name in names_of(lesson) if (name, "") in known]
    strange = rng.choice(asked) if odd else ""
    for name in asked:
        mistakes = [m for n, m in known if n == name and m]
        want[name] = rng.choice(mistakes) if mistakes and rng.random() < .5 else ""
        code = f"{name} = {rng.choice(known[name, want[name]])}"
        if name == strange: code, want[name] = ODD[odd].format(name=name), odd
        cells += [code, f"check.{name}({name})"]
    def cell(i, text): return dict(cell_type="code", id=f"c{i}", metadata={}, source=text, outputs=[])
    metadata = dict(course_lm=dict(exercises=asked))
    return dict(cells=[cell(i, c) for i, c in enumerate(cells)], metadata=metadata), want


def make(folder: Path, n: int) -> dict:
    "Write the notebooks; (student, exercise) -> mistake, or '' where it is right."
    want, rng = {}, random.Random(0)
    for i in range(n):
        lesson, odd = LESSONS[i % len(LESSONS)], list(ODD)[i // 3 % len(ODD)] if i % 3 == 0 else ""
        nb, called = submission(lesson, rng, odd)
        path = folder / f"student{i:02}" / f"{lesson}0_homework.ipynb"
        path.parent.mkdir()
        path.write_text(json.dumps(nb | dict(nbformat=4, nbformat_minor=5)), encoding="utf-8")
        want |= {(path.parent.name, name): mistake for name, mistake in called.items()}
    return want


def notebooks(out: Path) -> set[str]:
    if not out.exists(): return set()
    return {row["notebook"] for row in csv.DictReader(out.open(encoding="utf-8", newline=""))}


def run(folder: Path, out: Path, until: int | None = None) -> int:
    "Grade; with `until`, kill the command and all it has started when so many notebooks are done."
    words = ["homework", "grade", str(folder), "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-c", COMMAND, *words], cwd=root, start_new_session=True)
    while until is not None and process.poll() is None and len(notebooks(out)) < until: time.sleep(.5)
    if until is not None and process.poll() is None: os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return len(notebooks(out))


def main(words: list[str]) -> int:
    n = int(words[0]) if words else 30
    with tempfile.TemporaryDirectory() as folder:
        out, start = Path(folder) / "scores.csv", time.perf_counter()
        want = make(Path(folder), n)
        print(f"killed after {run(Path(folder), out, n // 2)} of {n} notebooks")
        run(Path(folder), out)
        spent = time.perf_counter() - start
        rows = list(csv.DictReader(out.open(encoding="utf-8", newline="")))
        got = {(r["student"], r["exercise"]): r for r in rows}
        page = out.with_suffix(".html").read_text(encoding="utf-8")
    wrong = [f"{key}: {mistake or 'right'}, called {got[key]['mistake'] or 'right'}"
             for key, mistake in want.items() if key in got and mistake != got[key]["mistake"]]
    print("\n".join(wrong))
    print(f"{n} notebooks, {len(rows)} answers of {len(want)} in {spent / 60:.1f} minutes; "
          f"{len(rows) - len(wrong)} called what they are; the page has {len(page):,} characters")
    return int(got.keys() != want.keys() or len(rows) != len(want) or len(wrong) > .05 * len(rows))


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
