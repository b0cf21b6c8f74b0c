"""The students' homework sheets: `python -m scripts.sheets` makes them from nbs/homework, into the package.

    python -m scripts.sheets           # write course_lm/homework/sheets/
    python -m scripts.sheets --check   # say what is not in step; 0 if nothing
"""
import json, sys
from pathlib import Path

from course_lm.homework.sheets import as_file, student_sheet
from scripts.lessons import nbs, root

folder = root / "course_lm" / "homework" / "sheets"


def sources() -> list[Path]:
    "The sheets with solutions."
    return sorted((nbs / "homework").glob("[0-9][0-9]_*.ipynb"))


def made() -> dict[str, str]:
    "Name of each student's sheet and its text."
    return {p.name: as_file(student_sheet(json.loads(p.read_text(encoding="utf-8")))) for p in sources()}


def differences() -> list[str]:
    there = {p.name: p.read_text(encoding="utf-8") for p in folder.glob("*.ipynb")}
    want = made()
    return [name for name in sorted(there.keys() | want.keys()) if there.get(name) != want.get(name)]


def main(words: list[str]) -> int:
    if "--check" in words:
        found = differences()
        if found: print(f"not in step: {' '.join(found)}; run `python -m scripts.sheets`", file=sys.stderr)
        return int(bool(found))
    folder.mkdir(exist_ok=True)
    for name in differences():
        text = made().get(name)
        if text is None: (folder / name).unlink()
        else: (folder / name).write_text(text, encoding="utf-8")
        print("written" if text else "removed", name)
    return 0


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
