"""Are version, changelog and tag in step? `python -m scripts.release v0.1.0` prints that release's notes.

    python -m scripts.release            # what is not in step: settings.ini, the package, CITATION.cff
    python -m scripts.release v0.1.0     # and with the tag; then the changelog's section of it

A release: set the version in settings.ini and CITATION.cff, `make export`, give "Not released yet" in
CHANGELOG.md the version and the date, commit, tag, push the tag. The workflow `publish` does the rest.
"""
import re, sys
from configparser import ConfigParser
from pathlib import Path

from scripts.lessons import root

COMING = "Not released yet"


def versions(tree: Path = root) -> dict[str, str]:
    "Who names the version, and which one."
    ini = ConfigParser()
    ini.read(tree / "settings.ini", encoding="utf-8")
    def found(pattern, *path):
        match = re.search(pattern, tree.joinpath(*path).read_text(encoding="utf-8"), re.M)
        return match[1] if match else "none"
    return {"settings.ini": ini["DEFAULT"]["version"],
            "course_lm/__init__.py": found(r'^__version__ = "(.+)"', "course_lm", "__init__.py"),
            "CITATION.cff": found(r"^version: (.+)", "CITATION.cff")}


def sections(tree: Path = root) -> dict[str, str]:
    "The changelog by its headings of the second level: `0.1.0, 3 May 2027` goes by 0.1.0."
    text = (tree / "CHANGELOG.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)\n", text, flags=re.M)[1:]
    return {head.split(",")[0]: body.strip() for head, body in zip(parts[::2], parts[1::2])}


def problems(tag: str = "", tree: Path = root) -> list[str]:
    named, logged = versions(tree), sections(tree)
    version = named["settings.ini"]
    found = [f"{who} has version {v}, settings.ini {version}" for who, v in named.items() if v != version]
    if not any(logged.get(name) for name in (COMING, version)):
        found.append(f"CHANGELOG.md has neither {COMING!r} nor {version}")
    if tag and tag != f"v{version}": found.append(f"the tag is {tag}, the version {version}")
    if tag and version not in logged: found.append(f"CHANGELOG.md has no section {version}")
    if tag and COMING in logged: found.append(f"CHANGELOG.md still has {COMING!r}")
    return found


def main(words: list[str]) -> int:
    tag = words[0] if words else ""
    found = problems(tag)
    for line in found: print(line, file=sys.stderr)
    if tag and not found: print(sections()[versions()["settings.ini"]])
    return int(bool(found))


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
