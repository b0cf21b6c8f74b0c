"Make README.md from nbs/index.ipynb: `python -m scripts.readme`; `--check` says whether both are up to date."
import copy, re, sys

from scripts.lessons import execute, nbs, prepare_environment, read, root
from scripts.refresh import refresh, tidy


def markdown(nb) -> str:
    "The README's text: the notebook's cells and outputs, without hidden cells and directive lines."
    from nbconvert import MarkdownExporter
    from traitlets.config import Config

    nb = copy.deepcopy(nb)
    nb.cells = [c for c in nb.cells if not re.match(r"#\|\s*hide\b", c.source)]
    for cell in nb.cells:
        if cell.cell_type != "code": continue
        if re.search(r"^#\|\s*echo:\s*false", cell.source, re.M): cell.metadata["remove_input"] = True
        cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M)
        for out in cell.outputs:
            if "text/markdown" in out.get("data", {}):
                out["data"] = {"text/markdown": out["data"]["text/markdown"]}
    nb.cells = [blank(c) for c in nb.cells]
    text = MarkdownExporter(config=Config()).from_notebook_node(nb)[0]
    for here, there in {"](images/": "](nbs/images/", 'src="images/': 'src="nbs/images/',
                        "](../": "]("}.items():
        text = text.replace(here, there)
    text = re.sub(r"\]\(((?:\d\d|support/|homework/)\w*\.ipynb[^)]*)\)", r"](nbs/\1)", text)
    first = "<!-- Made from nbs/index.ipynb by `make readme`: change it there. -->"
    return f"{first}\n\n" + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def blank(cell):
    "A code cell whose source is not shown becomes the text it made."
    import nbformat
    if not cell.metadata.get("remove_input"): return cell
    shown = [o["data"]["text/markdown"] for o in cell.outputs if "text/markdown" in o.get("data", {})]
    return nbformat.v4.new_markdown_cell("\n\n".join(shown))


def check() -> list[str]:
    "What is out of date: the stored outputs of the notebook, or the README."
    now, _, _ = execute(nbs / "index.ipynb")
    tidy(now)
    stored, found = read(nbs / "index.ipynb"), []
    if markdown(now) != markdown(stored):
        found.append("nbs/index.ipynb does not show the lessons and files as they are")
    readme = root / "README.md"
    if not readme.exists() or readme.read_text(encoding="utf-8") != markdown(stored):
        found.append("README.md is not what nbs/index.ipynb makes")
    return found


def main(args: list[str]) -> int:
    prepare_environment()
    found = check() if "--check" in args else refresh(nbs / "index.ipynb")
    if "--check" not in args:
        (root / "README.md").write_text(markdown(read(nbs / "index.ipynb")), encoding="utf-8")
    for line in found: print(f"{line}; run `make readme`", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
