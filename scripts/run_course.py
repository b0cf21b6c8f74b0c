"""Run every lesson in order, offline, each in a fresh kernel. Executed notebooks and HTML pages go to `_run/`.

    python -m scripts.run_course            # all lessons
    python -m scripts.run_course 20 5       # this one, and all of lesson 5
    python -m scripts.run_course 21         # this one

Exits with 1 if any lesson failed; the others still run.
"""
import re, sys

from scripts.lessons import directives, execute, lesson_notebooks, number, prepare_environment, root, write

colours = re.compile(r"\x1b\[[0-9;]*m")


def headline(nb) -> str:
    "What the cell marked `#| headline: ...` of a lesson came to: its label and its last line of output."
    for cell in nb.cells:
        label = directives(cell.source).get("headline") if cell.cell_type == "code" else None
        if label is None: continue
        texts = [out.get("text") or out.get("data", {}).get("text/plain", "") for out in cell.outputs]
        return f"{label}: {' '.join(t.strip().strip(chr(39)) for t in texts)}"
    return ""


def to_html(nb, path) -> None:
    from nbconvert import HTMLExporter
    exporter = HTMLExporter()
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    path.write_text(exporter.from_notebook_node(nb)[0], encoding="utf-8")


def run(path, out) -> dict:
    "One lesson: its row in the table. Whatever it made, up to the failing cell, is kept."
    tty = sys.stderr.isatty()
    def progress(i, n):
        if tty or i == 1 or i % 20 == 0: print(f"{chr(13) if tty else ''}{path.stem}: cell {i} of {n}", end="" if tty else "\n", file=sys.stderr, flush=True)
    row = dict(lesson=path.stem, seconds=float("nan"), result="failed", skipped=0)
    try: nb, skipped, row["seconds"] = execute(path, progress)
    except Exception as e:
        if tty: print(file=sys.stderr)
        print(f"{path.stem} FAILED\n{colours.sub('', str(e))[-3000:]}", file=sys.stderr)
        row["result"] = f"FAILED: {type(e).__name__}"
        return row
    if tty: print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    write(nb, out / path.name)
    to_html(nb, out / f"{path.stem}.html")
    return row | dict(result=headline(nb), skipped=len(skipped), ok=True)


def table(rows: list[dict]) -> str:
    "The rows as text; cells that need a network or a GPU are counted, not hidden."
    width = max(len(r["lesson"]) for r in rows)
    lines = [f"{'lesson':{width}}  seconds  left out  headline", "-" * (width + 60)]
    return "\n".join(lines + [f"{r['lesson']:{width}}  {r['seconds']:7.1f}  {r['skipped']:8}  {r['result']}" for r in rows])


def main(wanted: list[str]) -> int:
    prepare_environment()
    out = root / "_run"
    out.mkdir(exist_ok=True)
    paths = [p for p in lesson_notebooks() if not wanted or any(p.stem.startswith(w) for w in wanted)]
    if not paths: sys.exit(f"no such lesson: {' '.join(wanted)}; there are {' '.join(map(number, lesson_notebooks()))}")
    rows = []
    for i, path in enumerate(paths, 1):
        print(f"[{i}/{len(paths)}] {path.stem}", file=sys.stderr, flush=True)
        rows.append(run(path, out))
    print("\n" + table(rows))
    print("\n'left out' counts the cells that need a network or a GPU. Pages to read: _run/*.html")
    return 0 if all(r.get("ok") for r in rows) else 1


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
