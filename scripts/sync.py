"""Is the library what the notebooks export, and are the notebooks clean? `python -m scripts.sync`, 0 if so.

Exports and cleans a copy of the repository from nothing and compares it with the tree, so that an edited line
or stray module, a forgotten `nbdev_clean` and a file git does not track all show; the tree is not touched.
"""
import filecmp, os, shutil, subprocess, sys, tempfile
from pathlib import Path

from scripts.lessons import root

# inside the package, made by no export
kept_by_hand = {"jupyter", "pretrained", "records", "texts", "sheets", "py.typed", "__main__.py"}
ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "*.part", "models")


def files(folder: Path) -> set[str]:
    "Every file below a folder, but for what Python, Jupyter and hand-kept folders leave there."
    found = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return {p.as_posix() for p in found
            if not ({"__pycache__", ".ipynb_checkpoints"} | kept_by_hand) & set(p.parts)}


def differences(tree: Path = root) -> list[str]:
    "What is not in sync: one line a file."
    env = dict(os.environ, PYTHONPATH="",
               PATH=str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"])
    with tempfile.TemporaryDirectory() as tmp:
        copy = Path(tmp) / "copy"
        copy.mkdir()
        shutil.copytree(tree / "nbs", copy / "nbs", ignore=ignored)
        for name in ("settings.ini", "setup.py"): shutil.copy(tree / name, copy)
        for command in ("nbdev_clean", "nbdev_export"):
            done = subprocess.run([command], cwd=copy, env=env, capture_output=True, text=True)
            if done.returncode: return [f"{command} failed: {done.stderr.strip()[-1500:]}"]
        return [line for part in ("nbs", "course_lm") for line in compare(tree / part, copy / part, part)]


def compare(here: Path, made: Path, part: str) -> list[str]:
    found = []
    for name in sorted(files(here) | files(made)):
        a, b = here / name, made / name
        if not b.exists(): found.append(f"{part}/{name}: no notebook makes this file")
        elif not a.exists(): found.append(f"{part}/{name}: missing; run `make export`")
        elif not filecmp.cmp(a, b, shallow=False):
            why = "not clean" if part == "nbs" else "not what the notebooks export; change the notebook"
            found.append(f"{part}/{name}: {why}; run `make export`")
    return found


if __name__ == "__main__":
    found = differences()
    print("\n".join(found), file=sys.stderr)
    sys.exit(1 if found else 0)
