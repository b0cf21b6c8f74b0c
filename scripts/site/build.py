"""The course as web pages, from stored outputs: `python -m scripts.site.build`; nothing is executed, and what
comes out asks for nothing from any network. Warnings are errors. Pages go to `_site/`.
"""
import ast, json, os, re, shutil, subprocess, sys, tempfile
from pathlib import Path

from scripts.lessons import all_notebooks, directives, is_numbered, name_of, nbs, number, root
from scripts.site.api import page

here = Path(__file__).resolve().parent
source_of = "https://github.com/course-lm/course_lm/blob/main/"
extra_pages = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}


def linked(text: str, place: str) -> str:
    "Markdown whose links lead to pages of the site, or to the repository."
    text = "\n".join(line for line in text.split("\n") if "colab-badge.svg" not in line)
    up = "../" * place.count("/")
    text = re.sub(r"\]\((?:\.\./)+nbs/", f"]({up}", text).replace(f"]({source_of}nbs/", f"]({up}")
    for file, name in extra_pages.items():
        text = re.sub(rf"\]\((?:\.\./)*{re.escape(file)}", f"]({up}{name}", text)

    def outside(m): # a link that leaves nbs/
        target = (nbs / place).parent.joinpath(m.group(1)).resolve()
        inside = target.is_relative_to(nbs)
        return m.group(0) if inside else f"]({source_of}{target.relative_to(root).as_posix()}"
    return re.sub(r"\]\(((?:\.\./)+[^)#\s]*)", outside, text)


def code_cell(cell: dict, place: str, last: bool):
    "A code cell as a reader wants it, or None: no directives, a text for each picture, plumbing folded."
    source = "".join(cell["source"])
    said = directives(source)
    if "hide" in said or "default_exp" in said: return None
    shown = re.sub(r"^#\|.*\n?", "", source, flags=re.M)
    if not shown.strip(): return None
    if said.get("echo") == "false": # a part of the page that code makes: its text
        texts = ["".join(o["data"]["text/markdown"]) for o in cell["outputs"]
                 if "text/markdown" in o.get("data", {})]
        text = linked("\n\n".join(texts), place)
        return dict(cell_type="markdown", id=cell["id"], metadata={}, source=text)
    cell = dict(cell, source=shown, metadata={})
    plumbing = last and {"export", "exporti"} & set(said) or only_imports(shown)
    if plumbing: cell["metadata"]["tags"] = ["hide-input"]
    for o in cell["outputs"]: # a link that a page of Jupyter would follow
        if "text/html" in o.get("data", {}):
            shown_html = "".join(o["data"]["text/html"])
            o["data"]["text/html"] = re.sub(r'(href="[\w./]+)\.ipynb', r"\1.html", shown_html)
    if any("image/png" in o.get("data", {}) for o in cell["outputs"]):
        cell["metadata"]["mystnb"] = {"image": {"alt": said.get("fig-alt", "")}}
    return cell


def only_imports(source: str) -> bool:
    "Is there nothing in the cell to read but what is imported?"
    try: lines = ast.parse(source).body
    except SyntaxError: return False
    return all(isinstance(line, (ast.Import, ast.ImportFrom)) for line in lines) and len(lines) > 2


def copy_notebook(path: Path, out: Path) -> None:
    sheet = root / "course_lm" / "homework" / "sheets" / path.name # without the solutions
    as_read = sheet if path.parent.name == "homework" and sheet.exists() else path
    nb = json.loads(as_read.read_text(encoding="utf-8"))
    place, cells, last = path.relative_to(nbs).as_posix(), [], False
    for cell in nb["cells"]:
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            last = last or "## How the module is made" in text
            cells.append(dict(cell, source=linked(text, place)))
        elif cell["cell_type"] == "code": cells.append(code_cell(cell, place, last))
    nb["cells"] = [c for c in cells if c is not None]
    nb["metadata"] = {"kernelspec": dict(name="python3", display_name="Python 3", language="python")}
    target = out / place
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(nb), encoding="utf-8")


def title(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return re.match(r"# (.+)", "".join(cells[0]["source"])).group(1)


def contents(caption: str, lines: list[str]) -> str:
    return "\n".join([":::{toctree}", ":hidden:", f":caption: {caption}", *lines, ":::", ""])


def write_api(out: Path) -> list[str]:
    "A page for each module; their names, lessons first."
    (out / "api").mkdir()
    names = []
    made = {}
    for path in all_notebooks():
        found = re.search(r"#\| default_exp ([\w.]+)", path.read_text(encoding="utf-8"))
        if found: made[found.group(1).removesuffix(".__init__")] = path
    for module, path in made.items():
        file = root.joinpath("course_lm", *module.split(".")).with_suffix(".py")
        if not file.exists(): file = root.joinpath("course_lm", *module.split("."), "__init__.py")
        lesson = f"[{title(path)}](../{name_of(path)}.ipynb)"
        (out / "api" / f"{module}.md").write_text(page(file, f"course_lm.{module}", lesson), encoding="utf-8")
        names.append(module)
    return sorted(names, key=lambda m: (m.startswith(("support.", "homework.")), number(made[m]), m))


def prepare(out: Path) -> None:
    "Everything that Sphinx reads."
    for path in all_notebooks(): copy_notebook(path, out)
    for path in nbs.glob("*.md"):
        (out / path.name).write_text(linked(path.read_text(encoding="utf-8"), path.name), encoding="utf-8")
    for file, name in extra_pages.items():
        (out / name).write_text(linked((root / file).read_text(encoding="utf-8"), "x"), encoding="utf-8")
    shutil.copytree(nbs / "images", out / "images")
    (out / "static").mkdir()
    for name in ("course.css", "course.svg"): shutil.copy(here / name, out / "static")
    for name in ("conf.py", "slugs.py"): shutil.copy(here / name, out)
    lessons = [p for p in all_notebooks() if is_numbered(p) and p.parent == nbs]
    sheets = [p for p in all_notebooks() if is_numbered(p) and p.parent.name == "homework"]
    others = [p for p in all_notebooks() if not is_numbered(p) and p.stem != "index"]
    names = [f"{number(p)} {title(p)} <{name_of(p)}>" for p in lessons]
    parts = [contents("The course", names)]
    if sheets: parts.append(contents("Homework", [f"{title(p)} <{name_of(p)}>" for p in sheets]))
    pages = sorted(p.stem for p in out.glob("*.md"))
    parts.append(contents("Beside the lessons", pages))
    parts.append(contents("Reference", [f"api/{m}" for m in write_api(out)]))
    parts.append(contents("How it is built", [name_of(p) for p in others]))
    index = json.loads((out / "index.ipynb").read_text(encoding="utf-8"))
    index["cells"].append(dict(cell_type="markdown", id="toc", metadata={}, source="\n".join(parts)))
    (out / "index.ipynb").write_text(json.dumps(index), encoding="utf-8")


def main() -> int:
    target = root / "_site"
    with tempfile.TemporaryDirectory() as folder:
        src, made = Path(folder, "src"), Path(folder, "out")
        src.mkdir()
        prepare(src)
        sphinx = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", src, made]
        if subprocess.run(sphinx, env=os.environ | {"PYTHONPATH": str(src)}).returncode: return 1
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(made, target)
    print(f"{len(list(target.rglob('*.html')))} pages: open {target.name}/index.html")
    return 0


if __name__ == "__main__": sys.exit(main())
