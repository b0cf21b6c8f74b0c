"Run notebooks in fresh kernels and store their outputs: `python -m scripts.refresh nbs/20_chunking.ipynb`."
import sys
from pathlib import Path

from scripts.lessons import execute, prepare_environment, problems, root, write


def tidy(nb) -> None:
    "Drop what churns or does not render on a page: widget views and state, execution counts."
    nb.metadata.pop("widgets", None)
    for cell in nb.cells:
        if cell.cell_type != "code": continue
        cell.execution_count = None
        for out in cell.outputs:
            if "data" in out: out["data"].pop("application/vnd.jupyter.widget-view+json", None)
            if out.output_type == "execute_result": out["execution_count"] = None
        cell.outputs = [out for out in cell.outputs
                        if out.output_type not in ("display_data", "execute_result")
                        or set(out["data"]) - {"text/plain"}
                        or not widget_text(out)]


def widget_text(out) -> bool:
    "The text that stands for a widget whose view was dropped."
    text = out["data"].get("text/plain", "")
    return text.startswith(("interactive(", "VBox(", "HBox(", "Output(", "FloatProgress(", "IntProgress(",
                            "Box(", "GridBox(", "Tab(", "Accordion(")) or not out["data"]


def clean(path: Path) -> None:
    "nbdev's own cleaning, on one notebook."
    from nbdev.clean import nbdev_clean
    nbdev_clean(fname=str(path))


def refresh(path: Path) -> list[str]:
    "Run, tidy and store one notebook; nothing is written where a cell failed. Returns what is still wrong."
    def progress(i, n): print(f"\r{path.name}: cell {i} of {n} ", end="", file=sys.stderr, flush=True)
    nb, skipped, seconds = execute(path, progress)
    tidy(nb)
    write(nb, path)
    clean(path)
    print(f"\r{path.name}: {len(nb.cells)} cells, {len(skipped)} left out, {seconds:.0f} s, "
          f"{path.stat().st_size / 1e3:.0f} kB", file=sys.stderr)
    import json
    return problems(path, json.loads(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    prepare_environment()
    import os
    os.environ["TQDM_DISABLE"] = "1"
    os.chdir(root)
    wrong = [p for name in sys.argv[1:] for p in refresh(Path(name).resolve())]
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)
