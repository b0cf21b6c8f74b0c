"""What lets a notebook run where it comes alone: `python -m scripts.colab` writes it into lessons and sheets.

A hidden cell installs the course on Colab, and does nothing elsewhere; a badge opens the notebook there. Both
are made from settings.ini. Twice changes nothing; `--check` says which notebooks are not in step.
"""
import json, re, sys
from configparser import ConfigParser
from pathlib import Path

from scripts.lessons import is_numbered, name_of, nbs, numbered, root, write

ID = "install-on-colab"
TITLE = "#@title On Colab, this cell installs the course; elsewhere it does nothing"
BADGE = r"(?:\[!\[[^\]]*\]\([^)]*\)\]\([^)]*\) *)+\n?"  # all badges of a line


def settings() -> dict[str, str]:
    ini = ConfigParser()
    ini.read(root / "settings.ini", encoding="utf-8")
    return dict(ini["DEFAULT"])


def cell(module: str = "") -> dict:
    "The cell that installs; a lesson's first one, which says what `module` the notebook makes."
    cfg = settings()
    first = [f"#| default_exp {module}"] if module else []
    source = [*first, "#| hide", TITLE, "import importlib.util, subprocess, sys",
              f"if 'google.colab' in sys.modules and not importlib.util.find_spec('{cfg['lib_name']}'):",
              f"    course = '{cfg['lib_name']}[lessons] @ git+{cfg['git_url']}@{cfg['branch']}'",
              "    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', course], check=True)"]
    hidden = dict(cellView="form", jupyter=dict(source_hidden=True))
    return dict(cell_type="code", execution_count=None, id=ID, metadata=hidden, outputs=[],
                source="\n".join(source).splitlines(keepends=True))


def default_exp(cell: dict) -> str:
    "The module that a notebook makes, if this cell says so."
    found = re.match(r"#\| default_exp (\S+)", "".join(cell["source"]))
    return found[1] if found else ""


def badge(path: Path) -> str:
    "The line that opens a notebook on Colab: of a sheet, the students' copy."
    cfg = settings()
    name = name_of(path)
    place = f"nbs/{name}"
    if name.startswith("homework/"): place = f"{cfg['lib_path']}/homework/sheets/{path.stem}"
    where = cfg["git_url"].removeprefix("https://github.com/") + f"/blob/{cfg['branch']}/{place}.ipynb"
    site = "https://colab.research.google.com"
    return f"[![Open in Colab]({site}/assets/colab-badge.svg)]({site}/github/{where})"


def in_step(path: Path) -> dict:
    "The notebook as it should be: the badge below the title, and then the cell that installs."
    nb = json.loads(path.read_text(encoding="utf-8"))
    module = next(filter(None, map(default_exp, nb["cells"])), "")
    cells = [c for c in nb["cells"] if c["id"] != ID and not default_exp(c)]
    below = "".join(cells[1]["source"])
    text = f"{badge(path)}\n\n" + re.sub(rf"\A{BADGE}\s*", "", below)
    cells[1] = cells[1] | dict(source=text.splitlines(keepends=True))
    return nb | dict(cells=[*cells[:2], cell(module), *cells[2:]])


def those() -> list[Path]:
    "Lessons and sheets: what a reader opens by itself, with text below its title."
    lessons = [p for p in numbered() if is_numbered(p) and (p.parent == nbs or p.stem.endswith("_homework"))]
    return [p for p in lessons if int(p.stem[:2]) < 90]


def main(words: list[str]) -> int:
    stale = [p for p in those() if in_step(p) != json.loads(p.read_text(encoding="utf-8"))]
    for path in stale:
        print("not in step:" if "--check" in words else "written:", name_of(path))
        if "--check" not in words: write(in_step(path), path)
    return int(bool(stale) and "--check" in words)


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
