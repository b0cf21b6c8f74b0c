"""python -m tests.fuzz --all: every odd call; or --only REGEX: those whose target matches.

A run that was stopped goes on where it was. Results: one JSON line a call, in `_run/`. Without
`--all` and `--only` it counts what is there.
"""
import argparse, json, os, re, tempfile
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from tests.fuzz.calls import all_calls
from tests.fuzz.running import ROOT, run, tasks
from tests.fuzz.world import world

VERDICTS = "accepted", "named", "vague", "foreign", "hang", "died"


def read(path):
    if not path.exists(): return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(records):
    "Calls by module and verdict, as text."
    by = {}
    for r in records: by.setdefault(r["module"], Counter())[r["verdict"]] += 1
    by["all"] = sum(by.values(), Counter())
    lines = ["".join(f"{c:>10}" for c in ("calls", *VERDICTS)).rjust(90)]
    for module, n in by.items():
        lines.append(f"{module:20}" + "".join(f"{c:>10,}" for c in (n.total(), *(n[v] for v in VERDICTS))))
    n = by["all"]
    refused = n["named"] + n["vague"] + n["foreign"]
    share = 100*n["named"]/max(1, refused)
    lines.append(f"of {refused:,} refusals {share:.1f} % name the argument or its value")
    return "\n".join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--all", action="store_true", help="try all that has not been tried")
    parser.add_argument("--only", default="", help="a regular expression that targets match")
    parser.add_argument("--results", type=Path, default=ROOT/"_run"/"fuzz.jsonl")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results of what is tried")
    args = parser.parse_args(argv)
    path = args.results.absolute()
    before = read(path)
    if args.fresh:
        before = [r for r in before if not re.search(args.only, r["call"])]
        path.write_text("".join(json.dumps(r) + "\n" for r in before), encoding="utf-8")
    done = {(r["call"], r["argument"], r["kind"]) for r in before}
    if args.all or args.only: attempt(path, args.only, done)
    print(table(read(path)))


def attempt(path, only, done):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        w = world(Path(folder))
        calls = [c for c in all_calls(w) if re.search(only, c.title)]
        todo = [t for t in tasks(calls) if (t[0].title, t[1], t[2]) not in done]
        with open(path, "a", encoding="utf-8") as f, tqdm(total=len(todo), unit=" calls") as bar:
            for call in calls:
                own = [t for t in todo if t[0] is call]
                bar.set_postfix_str(call.title, refresh=False)
                for r in run(w, own):
                    f.write(json.dumps(r) + "\n")
                    bar.update()
                f.flush()
        os.chdir("/")


if __name__ == "__main__": main()
