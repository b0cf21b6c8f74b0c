"""Do links to other sites still lead somewhere? `python -m scripts.links` asks each once, by the network.

Exits with 1 and lists those that answer "not found" or not at all. Links inside the course are held by tests.
"""
import json, re, sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from scripts.lessons import all_notebooks, root

GONE = {404, 410}  # others may be a site that does not like robots
LINK = re.compile(r"https?://[^\s)>\"'\]`\\}]+")


def texts():
    "(name, text) of every page: notebooks' Markdown, and Markdown files."
    for path in all_notebooks():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        yield path.name, "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    pages = [*root.glob("*.md"), *(root / "nbs").rglob("*.md"), *root.glob("course_lm/pretrained/*/*.md")]
    for path in pages:
        yield path.name, path.read_text(encoding="utf-8")


def links(pages) -> dict[str, set[str]]:
    "Address -> the pages that have it."
    found = defaultdict(set)
    for name, text in pages:
        for link in LINK.findall(text): found[link.split("#")[0].rstrip(".,;:*")].add(name)
    return dict(found)


def wrong(link: str, ask=urlopen) -> str:
    "Why a link leads nowhere, or nothing."
    request = Request(link, headers={"User-Agent": "Mozilla/5.0 (link check of a course)"})
    try:
        with ask(request, timeout=30): return ""
    except HTTPError as e: return f"{e.code}" if e.code in GONE else ""
    except OSError as e: return str(getattr(e, "reason", e))


def main(ask=urlopen) -> int:
    found = links(texts())
    with ThreadPoolExecutor(8) as pool:
        answers = dict(zip(found, pool.map(lambda link: wrong(link, ask), found)))
    dead = {link: why for link, why in answers.items() if why}
    for link, why in sorted(dead.items()): print(f"{why}: {link} ({', '.join(sorted(found[link]))})")
    print(f"{len(found)} links, {len(dead)} lead nowhere")
    return int(bool(dead))


if __name__ == "__main__": sys.exit(main())
