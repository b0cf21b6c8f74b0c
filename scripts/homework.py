"""What the homework checker knows: `python -m scripts.homework --table`, a line for each exercise.

    python -m scripts.homework --table            # mistakes, named alone, named in pairs, seconds of a check
    python -m scripts.homework --table chunk pack # of some exercises
    python -m scripts.homework --matrix chunk     # what each mistake and each pair of one is called
"""
import os, sys, time
from collections import Counter
from importlib.util import find_spec

from course_lm.homework import LESSONS, exercise_of, names_of
from course_lm.homework.checking import checked_function
from course_lm.homework.exercises import version, warm
from course_lm.homework.recognition import matrix


def exercises() -> list[str]:
    "The exercises whose bank is there."
    there = [n for n in LESSONS if find_spec(f"course_lm.homework.bank_{n}0")]
    return [name for n in there for name in names_of(n)]


def cpu() -> float:
    "Seconds of CPU time, of this process and of the children that have ended."
    return sum(os.times()[:4])


def seconds(exercise) -> list[tuple[float, float]]:
    "By the clock and of CPU time, of a check of the right answer and of each mistake; the exercise is warm."
    versions = [version(exercise), *(version(exercise, m.id) for m in exercise.mistakes)]
    warm(exercise)
    found = []
    for f in filter(None, versions):
        before = cpu()
        found.append((checked_function(exercise, f).seconds, cpu() - before))
    return found


def row(name: str) -> dict:
    exercise, start = exercise_of(name), time.perf_counter()
    found = matrix(exercise)
    alone, pairs = (Counter(v for k, v in found.items() if len(k) == n) for n in (1, 2))
    spent, times = time.perf_counter() - start, seconds(exercise)
    return dict(exercise=name, inputs=len(exercise.inputs), mistakes=len(exercise.mistakes), alone=alone,
                pairs=pairs, matrix=spent, times=times)


def share(count: Counter) -> str:
    "named/all, and what is not named in words."
    rest = ", ".join(f"{n} {what}" for what, n in count.items() if what != "named")
    return f"{count['named']}/{sum(count.values())}" + (f" ({rest})" if rest else "")


def spread(times: list[tuple[float, float]]) -> str:
    "The median and the longest, by the clock and of CPU time."
    return "".join(f"{sorted(x)[len(x) // 2]:{n}.2f}{max(x):8.2f}" for n, x in zip((9, 7), zip(*times)))


def table(names: list[str]) -> str:
    lines = [f"{'exercise':22}{'inputs':>7}{'mistakes':>9}  {'named alone':18}{'named in pairs':30}"
             f"{'median s':>9}{'longest':>8}{'CPU s':>7}{'longest':>8}"]
    total, times = Counter(), []
    for name in names:
        r = row(name)
        lines.append(f"{name:22}{r['inputs']:7}{r['mistakes']:9}  {share(r['alone']):18}"
                     f"{share(r['pairs']):30}{spread(r['times'])}")
        total.update(mistakes=r["mistakes"], alone=r["alone"]["named"], pairs=r["pairs"]["named"])
        total.update(all_pairs=sum(r["pairs"].values()))
        times += r["times"]
    lines.append(f"{len(names)} exercises, {total['mistakes']} mistakes, {total['alone']} named alone; "
                 f"{total['pairs']} of {total['all_pairs']} pairs named")
    for what, x in zip(("by the clock", "of CPU time"), zip(*times)):
        lines.append(f"{len(x)} checks {what}: {sum(s < .5 for s in x) / len(x):.1%} under half a second, "
                     f"{sum(s < 2 for s in x) / len(x):.1%} under two; the longest {max(x):.2f} s")
    return "\n".join(lines)


def main(words: list[str]) -> int:
    names = [w for w in words if not w.startswith("--")] or exercises()
    if "--matrix" in words:
        for name in names:
            for ids, what in matrix(exercise_of(name)).items(): print(f"{name:22} {what:8} {' + '.join(ids)}")
    elif "--table" in words: print(table(names))
    else: print(__doc__)
    return 0


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
