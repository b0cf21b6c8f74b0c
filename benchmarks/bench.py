"""What the benchmarks share: the environment they run in, ways that take turns, the machine, and results that
are kept.

`prepare()` comes before torch and datasets are imported, since they read the environment then.
"""
import datetime, gc, json, math, os, platform, random, statistics, time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import course_lm
from course_lm.support.files import whole_file
from course_lm.support.machine import processor

root = Path(__file__).resolve().parent.parent
results = Path(course_lm.__file__).resolve().parent / "records"


def prepare(offline: bool = True, threads: int | None = None) -> None:
    "No bars, no warnings about forks, no network where none is needed; what the caller has set stays."
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if offline: os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if threads: os.environ.setdefault("OMP_NUM_THREADS", str(threads))


@dataclass
class Times:
    """Seconds of every call of one way: by the clock, and of this process's own work, which a busy machine
    disturbs less."""
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        "The median by the clock."
        return statistics.median(self.wall)

    @property
    def cpu_seconds(self) -> float: return statistics.median(self.cpu)

    @property
    def fastest(self) -> float: return min(self.wall)


def interleaved(ways: dict[str, Callable], rounds: int, fill: float = 0.) -> dict[str, Times]:
    """Times of each way over so many rounds. In each round every way has its turn, in an order that is
    shuffled anew.

    With `fill`, a quick way is called until so many seconds are full, at most 50 times, and each way is
    called twice before the first round."""
    calls = {name: calls_that_fill(way, fill) if fill else 1 for name, way in ways.items()}
    times = {name: Times() for name in ways}
    for i in range(rounds):
        for name in random.Random(i).sample(list(ways), len(ways)):
            gc.collect()
            for _ in range(calls[name]):
                start, start_cpu = time.perf_counter(), time.process_time()
                result = ways[name]()
                times[name].wall.append(time.perf_counter() - start)
                times[name].cpu.append(time.process_time() - start_cpu)
                del result  # not while the clock runs
    return times


def calls_that_fill(way: Callable, seconds: float) -> int:
    "How often to call it to fill so many seconds: 1 to 50."
    way()
    start = time.perf_counter()
    way()
    return max(1, min(50, int(seconds / (time.perf_counter() - start))))


def machine(*packages: str) -> dict:
    """Processor, cores, load, Python, the versions of these packages, the date; with torch, its threads and
    GPU too."""
    found = {"cpu": processor(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    found["python"] = platform.python_version()
    if "torch" in packages:
        import torch
        found["threads"] = torch.get_num_threads()
        if torch.cuda.is_available(): found["gpu"] = torch.cuda.get_device_name()
    return {**found, **{p: version(p) for p in packages}, "date": datetime.date.today().isoformat()}


def kept(path: Path) -> dict:
    "What was found before, or nothing."
    path = Path(path)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def keep(found: dict, path: Path) -> None:
    "Write what was found, as JSON, whole or not at all."
    whole_file(path, json.dumps(found, indent=1) + "\n")
    print(f"kept in {path}")


def rounded(x, digits: int = 5):
    "The same with floats rounded, inside dictionaries and lists too; what JSON has no word for is None."
    if isinstance(x, float): return round(x, digits) if math.isfinite(x) else None
    if isinstance(x, dict): return {k: rounded(v, digits) for k, v in x.items()}
    return [rounded(v, digits) for v in x] if isinstance(x, (list, tuple)) else x


def show(title: str, rows: list[dict]) -> None:
    "Rows as a table of text, numbers to the right."
    def text(x):
        if isinstance(x, float): return f"{x:.4g}"
        return f"{x:,}" if isinstance(x, int) else str(x)
    head = list(rows[0])
    cells = [[text(r[h]) for h in head] for r in rows]
    wide = [max(map(len, column)) for column in zip(head, *cells)]
    print(f"\n{title}\n" + "  ".join(h.ljust(w) for h, w in zip(head, wide)))
    for row in cells:
        print("  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, wide))))
