"""Run every numbered notebook, offline, each in a fresh kernel. Executed notebooks and pages go to `_run/`.

    python -m scripts.run_course            # all of them
    python -m scripts.run_course 20 5       # 20, and all of lesson 5
    python -m scripts.run_course homework   # the sheets

As many run at a time as there are cores, at most four, one thread each; COURSE_LM_JOBS=1 runs one at a time.
Exits with 1 if a notebook failed (the others still run), or if one did not run at all.
"""
import copy, html, re, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if not __package__: sys.path.insert(0, str(Path(__file__).resolve().parent.parent)) # run as a script
from scripts.lessons import (
    chosen, cpu_minutes, directives, execute, left_out, n_jobs, name_of, not_run, number, numbered,
    prepare_environment, root, write)

colours = re.compile(r"\x1b\[[0-9;]*m")


def headline(nb) -> str:
    "What the cell marked `#| headline: ...` of a lesson came to: its label and its last line of output."
    for cell in nb.cells:
        label = directives(cell.source).get("headline") if cell.cell_type == "code" else None
        if label is None: continue
        texts = [out.get("text") or out.get("data", {}).get("text/plain", "") for out in cell.outputs]
        return f"{label}: {' '.join(t.strip().strip(chr(39)) for t in texts)}"
    return ""


def to_html(nb, path: Path) -> None:
    from nbconvert import HTMLExporter
    exporter = HTMLExporter()
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    read = [c for c in nb.cells if not re.match(r"#\|\s*(default_exp|hide)\b", c.source)]
    nb = copy.copy(nb)
    nb.cells = read
    page = exporter.from_notebook_node(nb)[0]
    alts = iter(alternative_texts(nb))
    page = re.sub('alt="No description has been provided for this image"', lambda m: next(alts), page)
    path.write_text(page, encoding="utf-8")


def alternative_texts(nb) -> list[str]:
    "An `alt` attribute for each picture of a notebook: what the cell says after `#| fig-alt:`."
    code = [c for c in nb.cells if c.cell_type == "code"]
    drawn = [c for c in code for out in c.outputs if "image/png" in out.get("data", {})]
    return [f'alt="{html.escape(directives(c.source).get("fig-alt", ""))}"' for c in drawn]


def unrun_cells(nb) -> int:
    "Code cells that should have run and did not."
    code = [c for c in nb.cells if c.cell_type == "code" and c.source.strip() and not left_out(c.source)]
    return sum(c.execution_count is None for c in code)


def run(path: Path, out: Path) -> dict:
    "One notebook: its row in the table."
    row = dict(path=path, lesson=name_of(path), seconds=float("nan"), skipped=0, result="", why="", ok=False)
    try: nb, skipped, row["seconds"] = execute(path)
    except Exception as e:
        return row | dict(result=f"FAILED: {type(e).__name__}", why=colours.sub("", str(e))[-3000:])
    page = out / f"{row['lesson']}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    write(nb, page.with_suffix(".ipynb"))
    to_html(nb, page)
    unrun = unrun_cells(nb)
    if unrun: return row | dict(result=f"FAILED: {unrun} cells did not run")
    return row | dict(result=headline(nb), skipped=len(skipped), ok=True)


def table(rows: list[dict]) -> str:
    "The rows as text; cells that need a network or a GPU are counted, not hidden."
    width = max(len(r["lesson"]) for r in rows)
    lines = [f"{'lesson':{width}}  seconds  left out  headline", "-" * (width + 60)]
    for r in rows:
        lines.append(f"{r['lesson']:{width}}  {r['seconds']:7.1f}  {r['skipped']:8}  {r['result']}")
    return "\n".join(lines)


def main(words: list[str]) -> int:
    prepare_environment()
    start, out, there, jobs = time.perf_counter(), root / "_run", numbered(), n_jobs()
    out.mkdir(exist_ok=True)
    paths = chosen(there, words) if words else there
    if not paths: sys.exit(f"no such lesson: {' '.join(words)}; there are {' '.join(map(number, there))}")
    rows = []
    print(f"{len(paths)} notebooks, {jobs} at a time", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        for i, row in enumerate(pool.map(lambda path: run(path, out), paths), 1):
            rows.append(row)
            said = f"{row['seconds']:.0f} s" if row["ok"] else f"{row['result']}\n{row['why']}"
            print(f"[{i}/{len(paths)}] {row['lesson']}  {said}", file=sys.stderr, flush=True)
    print("\n" + table(rows))
    print("\n'left out' counts the cells that need a network or a GPU. Pages to read: _run/*.html")
    minutes = (time.perf_counter() - start) / 60
    print(f"{minutes:.1f} minutes, {cpu_minutes():.1f} CPU minutes, {jobs} at a time")
    failed = [r["lesson"] for r in rows if not r["ok"]]
    missed = [] if words else not_run({r["path"] for r in rows})
    if failed: print(f"FAILED: {' '.join(failed)}")
    if missed: print(f"NOT RUN: {' '.join(missed)}")
    return 1 if failed or missed else 0


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
