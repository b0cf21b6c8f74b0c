"""Everything that must hold before a change lands, offline; prints `N passed, M failed` last.

    python -m scripts.run_tests              # everything
    python -m scripts.run_tests sync 30      # the sync check and notebook 30 only
    python -m scripts.run_tests pytest       # tests/ only
    python -m scripts.run_tests ruff outputs readme notebooks

As many run at a time as there are cores, at most four, one thread each; COURSE_LM_JOBS=1 runs one at a time.
"""
import json, os, subprocess, sys, time
import xml.etree.ElementTree as xml
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

if not __package__: sys.path.insert(0, str(Path(__file__).resolve().parent.parent)) # run as a script
from scripts.lessons import (
    all_notebooks, chosen, cpu_minutes, n_jobs, name_of, not_run, number, prepare_environment, problems, root)

notebook_timeout, pytest_timeout = 900, 3000  # seconds; a lesson is meant to take about 60
python = [sys.executable, "-m"]
checks = {
    "sync": ("library in sync with the notebooks, notebooks clean", [*python, "scripts.sync"]),
    "readme": ("README.md in sync with nbs/index.ipynb", [*python, "scripts.readme", "--check"]),
    "ruff": ("ruff check, notebooks included", [*python, "ruff", "check", "--output-format", "concise"]),
    "outputs": ("stored outputs", [*python, "scripts.run_tests", "--stored-outputs"]),
    "lab": ("Run All in JupyterLab, a lesson and a sheet", [*python, "scripts.lab_test", "--share"]),
}


@dataclass
class Job:
    "Something to run in a process of its own, and what came of it."
    name: str
    command: list[str]
    timeout: int = 300
    weight: float = 0.  # seconds that it may take: long ones begin first
    report: Path | None = None  # pytest's
    notebook: Path | None = None
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.
    parts: dict = field(default_factory=dict)  # seconds of each file of tests

    def run(self) -> "Job":
        "What the process printed is shown only where it failed."
        start = time.perf_counter()
        options = dict(cwd=root, capture_output=True, text=True, timeout=self.timeout)
        try:
            done = subprocess.run(self.command, **options)
            said, code = done.stdout + done.stderr, done.returncode
        except subprocess.TimeoutExpired: said, code = f"no end after {self.timeout} s", 1
        self.seconds = time.perf_counter() - start
        if self.notebook and f"- Completed {self.notebook}" not in said:
            said, code = said + "it did not run", 1
        if self.report: self.count(code)
        else: self.passed, self.failed = int(code == 0), int(code != 0)
        name = f"{self.name}: {self.passed} passed, {self.failed} failed" if self.report else self.name
        print(f"{'FAILED' if self.failed else 'passed'}  {self.seconds:6.1f} s  {name}", flush=True)
        if self.failed: print(said[-12_000:], flush=True)
        elif said.startswith("left out: "): print(f"        {said.strip()}", flush=True)
        return self

    def count(self, code: int) -> None:
        "Passed, failed and skipped tests from pytest's report; none at all is a failure."
        if not self.report.exists():
            self.failed = 1
            return
        suite = xml.parse(self.report).getroot().find("testsuite")
        total, self.skipped = int(suite.get("tests")), int(suite.get("skipped"))
        bad = int(suite.get("failures")) + int(suite.get("errors"))
        self.passed, self.failed = total - bad - self.skipped, max(bad, int(code != 0))
        for case in suite.iter("testcase"):
            file = case.get("classname").split(".Test")[0]
            self.parts[file] = self.parts.get(file, 0.) + float(case.get("time"))


def stored_outputs() -> list[str]:
    "What is wrong with the notebooks as they are committed: errors, warnings, widget state, paths."
    found = []
    for path in all_notebooks(): found += problems(path, json.loads(path.read_text(encoding="utf-8")))
    return found


def test_files() -> list[Path]:
    "All but those that need a browser."
    return sorted(p for p in (root / "tests").rglob("test_*.py") if not {"browser", "site"} & {*p.parts})


def module(path: Path) -> str: return ".".join(path.relative_to(root).with_suffix("").parts)


def groups(files: list[Path], n: int, known: dict) -> list[tuple[list[Path], float]]:
    "The files in `n` groups that take about as long: each, longest first, to the group that has least."
    def seconds(p): return known.get(module(p)) or len(p.read_text(encoding="utf-8").splitlines()) / 20
    parts = [([], 8.) for _ in range(min(n, len(files)))]
    for p in sorted(files, key=seconds, reverse=True):
        at = min(range(len(parts)), key=lambda i: parts[i][1])
        parts[at] = (parts[at][0] + [p], parts[at][1] + seconds(p))
    return parts


def pytest_jobs(n: int, known: dict) -> list[Job]:
    "pytest in `n` processes, each with some of the files."
    found = []
    for i, (files, seconds) in enumerate(groups(test_files(), n, known), 1):
        report = root / "_run" / f"pytest-{i}.xml"
        report.unlink(missing_ok=True)
        options = ["-q", "-x" if os.environ.get("FAIL_FAST") else "--tb=short", f"--junitxml={report}"]
        command = [*python, "pytest", *options, *(str(p.relative_to(root)) for p in files)]
        found.append(Job(f"pytest, {len(files)} files", command, pytest_timeout, seconds, report))
    return found


def notebook_job(path: Path, known: dict) -> Job:
    "`nbdev_test` on one notebook; it says which it ran, and that counts."
    name = f"nbdev_test {name_of(path)}"
    guess = 10 + int(number(path)) / 3 if number(path).isdigit() else 5  # later lessons train more
    command = ["nbdev_test", "--path", str(path), "--n_workers", "0", "--do_print"]
    return Job(name, command, notebook_timeout, known.get(name) or guess, notebook=path)


def remembered() -> dict:
    "Seconds by name, from the last run here."
    file = root / "_run" / "seconds.json"
    return json.loads(file.read_text()) if file.exists() else {}


def remember(jobs: list[Job]) -> None:
    now = {j.name: j.seconds for j in jobs if j.notebook} | {k: v for j in jobs for k, v in j.parts.items()}
    (root / "_run" / "seconds.json").write_text(json.dumps(remembered() | now, indent=1))


def main(only: list[str]) -> int:
    prepare_environment()
    os.environ["OMP_NUM_THREADS"] = "1"
    (root / "_run").mkdir(exist_ok=True)
    start, n, known = time.perf_counter(), n_jobs(), remembered()
    jobs = [Job(*check) for name, check in checks.items() if not only or name in only]
    everything = not only or "notebooks" in only
    paths = all_notebooks() if everything else chosen(all_notebooks(), only)
    jobs += [notebook_job(p, known) for p in paths]
    if not only or "pytest" in only: jobs += pytest_jobs(n, known)
    if not jobs:
        sys.exit(
            f"nothing is called {' '.join(only)}; there are {' '.join(checks)} pytest notebooks, and lessons")
    jobs.sort(key=lambda job: -job.weight)
    with ThreadPoolExecutor(n) as pool: jobs = list(pool.map(Job.run, jobs))
    remember(jobs)
    passed, failed, skipped = (sum(getattr(j, k) for j in jobs) for k in ("passed", "failed", "skipped"))
    missed = not_run({j.notebook for j in jobs}) if everything else []
    if missed: print(f"FAILED  did not run: {' '.join(missed)}")
    print(f"\n{(time.perf_counter() - start) / 60:.1f} minutes, {cpu_minutes():.1f} CPU minutes, {n} at a "
          f"time")
    print(f"{passed} passed, {failed + len(missed)} failed" + f", {skipped} skipped" * bool(skipped))
    return 1 if failed or missed or not passed else 0


if __name__ == "__main__":
    if "--stored-outputs" in sys.argv: sys.exit("\n".join(stored_outputs()) or 0)
    sys.exit(main(sys.argv[1:]))
