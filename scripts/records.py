"""What was measured: each record with its command, machine and dates, and the lessons that show it.

    python -m scripts.records           # makes nbs/records.md
    python -m scripts.records --check   # exit status 1 where it is out of step
"""
import ast
import json
import re
import sys

from scripts.lessons import is_numbered, keep_page, nbs, read, root

KEPT, PAGE, COMMAND = root / "course_lm" / "records", nbs / "records.md", "python -m scripts.records"


def programs() -> dict[str, tuple]:
    "record -> (module, what it says of itself) of the programs that write one."
    found = {}
    for path in sorted((root / "benchmarks").glob("*/[a-z]*.py")):
        text = path.read_text(encoding="utf-8")
        about = " ".join(ast.get_docstring(ast.parse(text)).split("\n\n")[0].split())
        module = ".".join(path.relative_to(root / "benchmarks").with_suffix("").parts)
        written = re.findall(r"results\s*/\s*['\"](\w+)\.json", text)
        for name in written: found.setdefault(name, (module, about))
    return found


def shown() -> dict[str, list]:
    "record -> the lessons whose code reads it, or that store what it holds."
    found = {}
    for path in sorted(p for p in nbs.glob("*.ipynb") if is_numbered(p)):
        cells = [c.source for c in read(path).cells if c.cell_type == "code"]
        for name in (p.stem for p in KEPT.glob("*.json")):
            if any(_reads(cell, name) for cell in cells): found.setdefault(name, []).append(path)
    cells = json.loads((KEPT / "for_real.json").read_text(encoding="utf-8")) # of these the outputs are shown
    found["for_real"] = [nbs / f"{stem}.ipynb" for stem in sorted({key.split("#")[0] for key in cells})]
    return found


def _reads(code: str, name: str) -> bool:
    "By its name, or as one of several."
    if re.search(rf"['\"]{name}\.json['\"]|record(ed)?\(['\"]{name}['\"]", code): return True
    several = re.search(r"recorded\(name\)|\{name\}\.json", code)
    return bool(several and re.search(rf"for name in \([^)]*['\"]{name}['\"]", code))


def where(value) -> tuple[set, set]:
    "The processors and the dates that stand anywhere in a record."
    cpus, dates = set(), set()
    for key, v in value.items() if isinstance(value, dict) else enumerate(value):
        if key == "cpu": cpus.add(v)
        elif key == "machine" and isinstance(v, str): cpus.add(v.split(",")[0])
        elif key == "date": dates.add(v)
        elif isinstance(v, dict | list):
            more = where(v)
            cpus, dates = cpus | more[0], dates | more[1]
    return cpus, dates


def page() -> str:
    "The page as Markdown."
    made, seen = programs(), shown()
    lines = ["# What was measured", "",
             "> Numbers that take too long for a lesson: the command of each, the machine, the dates.", "",
             "A lesson is short. What takes longer, or needs real data or a real model, is measured by a "
             "program in [benchmarks/](https://github.com/course-lm/course_lm/tree/main/benchmarks), kept as "
             "a record in the package, and read by the lesson from there. You run `experiments.adapters` as "
             "`python -m benchmarks.experiments.adapters`, and its `--help` says what it needs.", "",
             "| Record | What it is about | Program | Machine, dates | Shown in |",
             "| --- | --- | --- | --- | --- |"]
    for path in sorted(KEPT.glob("*.json")):
        module, about = made[path.stem]
        cpus, dates = where(json.loads(path.read_text(encoding="utf-8")))
        when = min(dates) if len(dates) == 1 else f"{min(dates)} to {max(dates)}"
        lessons = ", ".join(f"[{p.name[:2]}]({p.name})" for p in seen.get(path.stem, [])) or "-"
        machine = ", ".join(re.sub(r"\((R|TM)\)| Processor", "", cpu) for cpu in sorted(cpus))
        row = f"`{path.stem}`", about, f"`{module}`", f"{machine}, {when}", lessons
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__": sys.exit(keep_page(PAGE, page(), sys.argv[1:], COMMAND))
