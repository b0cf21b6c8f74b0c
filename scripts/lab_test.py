"""*Run All* in a real JupyterLab, offline, on the copies that a learner gets: `make lab-test`.

    python -m scripts.lab_test              # every lesson and sheet; what has passed already is not run again
    python -m scripts.lab_test 20 homework  # lesson 20 and the sheets
    python -m scripts.lab_test --share      # one lesson and one sheet; says so where there is no browser
    python -m scripts.lab_test --again 20   # although it has passed

The table is kept in _run/lab/table.md, a picture of each page beside it. Exits with 1 if one did not reach
its end.
"""
import hashlib, json, os, shutil, sys, time
from pathlib import Path

from course_lm.lab import pages, update
from scripts.jupyter import no_browser, open_chromium, open_page, run_all, running_lab, save, wait_until_idle
from scripts.lessons import left_out, root

out = root / "_run" / "lab"
SHARE = ["00", "homework/10"]
LIMIT = 1500  # seconds for a page
HEAD = "| page | code cells | ran | for a network or a GPU | seconds | result |\n" + "| --- " * 6 + "|"


def learner(folder: Path) -> Path:
    "A repository as a learner has it, made of links to this one, with a new work/ of its own."
    shutil.rmtree(folder / "work", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    for p in root.iterdir():
        if p.name in ("work", ".git", "_run") or (folder / p.name).exists(): continue
        os.symlink(p, folder / p.name)
    update(folder)
    return folder


def text_of(cell: dict) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def outcome(nb: dict) -> dict:
    "What a notebook that was run shows: cells, how many ran, the first error."
    code = [c for c in nb["cells"] if c["cell_type"] == "code" and text_of(c).strip()]
    errors = [f"cell {i + 1}: {o['ename']}: {o['evalue'].splitlines()[0][:160] if o['evalue'] else ''}"
              for i, c in enumerate(nb["cells"]) if c["cell_type"] == "code"
              for o in c["outputs"] if o["output_type"] == "error"]
    ran = sum(c["execution_count"] is not None for c in code)
    apart = [c for c in code if left_out(text_of(c)) in ("network", "gpu")]
    lines = [shown(c) for c in apart]
    talkative = [text.splitlines()[0][:80] for text in lines if text.strip().count("\n") > 1]
    wrong = list(errors)
    if ran < len(code): wrong.append(f"{len(code) - ran} cells did not run")
    if talkative: wrong.append(f"more than a line for a network cell: {talkative[0]}")
    return dict(cells=len(code), ran=ran, apart=len(apart), result=wrong[0] if wrong else "end")


def shown(cell: dict) -> str:
    "All that a cell printed."
    found = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell["outputs"]]
    return "".join(t if isinstance(t, str) else "".join(t) for t in found)


def play(browser, lab, name: str) -> dict:
    "Open a page, run all of it, save it: its row."
    path, start = f"work/{name}", time.perf_counter()
    page = open_page(browser, lab, path)
    try:
        run_all(page)
        ended = wait_until_idle(page, lab, path, LIMIT)
        row = outcome(save(page, lab.root / path))
        (out / "shots").mkdir(exist_ok=True)
        page.screenshot(path=out / "shots" / f"{Path(name).stem}.png")
        if not ended: row["result"] = f"no end after {LIMIT} s"
    finally:
        page.close()
        lab.stop(path)
    return row | dict(seconds=round(time.perf_counter() - start, 1))


def table(rows: dict) -> str:
    lines = [f"| {name} | {r['cells']} | {r['ran']} | {r['apart']} | {r['seconds']:.0f} | {r['result']} |"
             for name, r in sorted(rows.items())]
    return "\n".join([HEAD, *lines, ""])


def kept() -> dict:
    try: return json.loads((out / "rows.json").read_text())
    except (OSError, ValueError): return {}


def keep(rows: dict) -> None:
    (out / "rows.json").write_text(json.dumps(rows, indent=1))
    (out / "table.md").write_text(table(rows))


def main(words: list[str]) -> int:
    flags, words = {w for w in words if w.startswith("--")}, [w for w in words if not w.startswith("--")]
    why = no_browser()
    if why:
        print(f"left out: Run All in JupyterLab ({why})")
        return 0 if "--share" in flags else 1
    if "--share" in flags: words = words or SHARE
    out.mkdir(parents=True, exist_ok=True)
    handed = {name: data for name, data in pages(root).items() if numbered(name)}
    names = [name for name in sorted(handed) if not words or name.startswith(tuple(words))]
    if not names: sys.exit(f"no page is called {' '.join(words)}; there are {' '.join(sorted(handed))}")
    rows = {name: row for name, row in kept().items() if name in handed}
    marks = {name: hashlib.sha256(handed[name]).hexdigest()[:12] for name in names}
    todo = [n for n in names if "--again" in flags or rows.get(n, {}).get("mark") != marks[n]
            or rows[n]["result"] != "end"]
    with running_lab(learner(out / "repo"), out) as lab, open_chromium() as browser:
        for i, name in enumerate(todo, 1):
            try: row = play(browser, lab, name)
            except Exception as e:
                said = f"{type(e).__name__}: {str(e).splitlines()[0][:160]}"
                row = dict(cells=0, ran=0, apart=0, seconds=0., result=said)
            rows[name] = row | dict(mark=marks[name])
            keep(rows)
            print(f"[{i}/{len(todo)}] {name}  {row['seconds']:.0f} s  {row['result']}", flush=True)
    failed = [n for n in names if rows[n]["result"] != "end"]
    print(f"{len(names) - len(failed)} of {len(names)} reached their end: {out.relative_to(root)}/table.md")
    return int(bool(failed))


def numbered(name: str) -> bool:
    "A lesson or a sheet."
    return name.endswith(".ipynb") and Path(name).name[:2].isdigit()


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
