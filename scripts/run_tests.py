"""Everything that must hold before a change lands, offline; prints `N passed, M failed` last.

    python -m scripts.run_tests              # everything
    python -m scripts.run_tests sync 30      # the sync check and notebook 30 only
    python -m scripts.run_tests pytest
"""
import json, os, subprocess, sys, time
import xml.etree.ElementTree as xml
from concurrent.futures import ThreadPoolExecutor

from scripts.lessons import all_notebooks, number, prepare_environment, problems, root

notebook_timeout = 900  # seconds; a lesson is meant to take about 60


def say(ok: bool, name: str, seconds: float, why: str = "") -> bool:
    print(f"{'passed' if ok else 'FAILED'}  {seconds:6.1f} s  {name}" + (f"\n{why}" if why and not ok else ""), flush=True)
    return ok


def run(name: str, command: list[str], timeout: int, env: dict | None = None) -> bool:
    "One process; what it printed is shown only where it failed."
    start = time.perf_counter()
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=timeout, env=os.environ | (env or {}))
        ok, why = done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    except subprocess.TimeoutExpired: ok, why = False, f"no end after {timeout} s"
    return say(ok, name, time.perf_counter() - start, why)


def stored_outputs() -> bool:
    "The notebooks as they are committed: no errors, warnings, widget state or machine's paths, a picture in each lesson."
    start = time.perf_counter()
    found = [p for path in all_notebooks() for p in problems(path, json.loads(path.read_text(encoding="utf-8")))]
    return say(not found, "stored outputs", time.perf_counter() - start, "\n".join(found))


def notebooks(paths: list) -> list[bool]:
    "`nbdev_test` on each, a process each, as many at a time as there are cores, one thread each."
    def one(path):
        return run(f"nbdev_test {path.relative_to(root / 'nbs')}", ["nbdev_test", "--path", str(path), "--n_workers", "0", "--do_print"],
                   notebook_timeout, dict(OMP_NUM_THREADS="1"))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool: return list(pool.map(one, paths))


def pytest() -> tuple[int, int, int]:
    "Passed, failed and skipped tests of tests/ (but for tests/browser, which needs a browser)."
    report = root / "_run" / "pytest.xml"
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    code = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x" if os.environ.get("FAIL_FAST") else "--tb=short", "--durations=10", f"--junitxml={report}"], cwd=root, timeout=3000).returncode
    if not report.exists(): return 0, 1, 0
    suite = xml.parse(report).getroot().find("testsuite")
    total, bad, skipped = int(suite.get("tests")), int(suite.get("failures")) + int(suite.get("errors")), int(suite.get("skipped"))
    return total - bad - skipped, max(bad, int(code != 0)), skipped


def main(only: list[str]) -> int:
    prepare_environment()
    start, results, skipped = time.perf_counter(), [], 0
    def wanted(name): return not only or name in only
    if wanted("sync"): results.append(run("library in sync with the notebooks, notebooks clean", [sys.executable, "-m", "scripts.sync"], 300))
    if wanted("readme"): results.append(run("README.md in sync with nbs/index.ipynb", [sys.executable, "-m", "scripts.readme", "--check"], 300))
    if wanted("outputs"): results.append(stored_outputs())
    results += notebooks([p for p in all_notebooks() if wanted("notebooks") or wanted(p.stem) or wanted(number(p))])
    passed, failed = sum(results), len(results) - sum(results)
    if wanted("pytest"): more, bad, skipped = pytest(); passed, failed = passed + more, failed + bad
    print(f"\nall in {(time.perf_counter() - start) / 60:.1f} minutes")
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or not passed else 0


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
