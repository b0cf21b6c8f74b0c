"""Odd calls, each in a process of its own: what becomes of them, within 20 seconds and 6 GB."""
import contextlib, io, itertools, json, os, random, re, resource, select, shutil, signal, tempfile, time
import traceback, warnings
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.values import KINDS, SHOWN

SECONDS, BYTES = 20, 6*2**30
WITH_A_COMPILER = 240  # compile=True is no odd value: it calls a C++ compiler, which takes a minute or two
OURS = {"ValueError", "TypeError", "FloatingPointError", "FileNotFoundError", "ConnectionError", "SystemExit"}
ROOT = Path(__file__).resolve().parents[2]


def tasks(calls):
    "(call, argument, kind): all odd calls."
    return [(c, name, kind) for c in calls for name in c.args for kind in KINDS]


def share(calls, seed=0, each=3):
    "Of each argument so many odd calls, drawn by the seed; one of what trains."
    rng = random.Random(seed)
    return [(c, name, kind) for c in calls for name in c.args
            for kind in rng.sample([*KINDS], 1 if c.trains else each)]


def shown(answer):
    "An answer in a line."
    if hasattr(answer, "__next__"): answer = list(itertools.islice(answer, 50))
    try: text = answer.data if type(getattr(answer, "data", None)) is str else repr(answer)
    except Exception as e: text = f"no repr: {type(e).__name__}: {e}"
    return re.sub(r"0x[0-9a-f]+", "0x", " ".join(text[:2000].split()))[:300]


def of_course_lm(frame): return "/course_lm/" in frame.filename and "/tests/" not in frame.filename


def what_happened(call, w, name, kind):
    "One odd call; nothing is judged here."
    args = {} if name is None else {name: KINDS[kind](w)}
    try: return dict(outcome="accepted", answer=shown(call(**args)))
    except BaseException as e:
        trace = traceback.extract_tb(e.__traceback__)
        last = trace[-1]
        ours = [f for f in trace if of_course_lm(f)]
        where = f"{Path(last.filename).name}:{last.lineno}"
        raised = bool(of_course_lm(last) and re.match(r"raise\b|.*: raise\b", (last.line or "")))
        from_ours = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
        told = dict(error=type(e).__name__, message=str(e)[:600], where=where, ours=from_ours)
        return dict(outcome="raised", raised=raised, **told)


def names_it(record):
    "Whether a message holds the argument's name or its value."
    text, name, kind = record["message"], record["argument"], record["kind"]
    if re.search(rf"(?<![A-Za-z_]){re.escape(name)}(?![A-Za-z_])", text): return True
    shows = SHOWN.get(kind, [kind])
    words = [re.escape(s.strip("'")) for s in shows if s.strip("'")]
    said = (re.search(rf"(?<![\w.-]){word}(?![\w.])", text) for word in words)
    return any(said) or kind in SHOWN and any(s in text for s in shows)


def judge(record):
    "accepted, named, vague, foreign, hang or died."
    if record["outcome"] != "raised": return record["outcome"]
    if not (record["raised"] and record["error"] in OURS): return "foreign"
    return "named" if names_it(record) else "vague"


# ---- a child works through tasks, and gives way to another after each call that was accepted

def _work(w, todo, pipe):
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2): os.dup2(null, fd)
    warnings.simplefilter("ignore")
    used = int(Path("/proc/self/statm").read_text().split()[0])*resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES,)*2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**30,)*2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for call, name, kind in todo:
        folder = tempfile.mkdtemp(prefix="fuzz-")
        os.chdir(folder)
        start = time.monotonic()
        told = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
            try: found = what_happened(call, w, name, kind)
            except BaseException as e: found = dict(outcome="died", message=f"the fuzzer: {e!r}")
        if found.get("error") == "SystemExit": # argparse has told why
            found |= dict(raised=True, message=told.getvalue()[-600:])
        found["seconds"] = round(time.monotonic() - start, 2)
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)
        line = json.dumps(found).encode("utf-8", "replace") + b"\n"
        while line: line = line[os.write(pipe, line):]
        broken = found["outcome"] == "accepted" or found.get("error") == "FloatingPointError"
        if call.changes and broken or found["seconds"] > 5: break
    os._exit(0)


def _child(w, todo):
    read, write = os.pipe()
    pid = os.fork()
    if pid: return os.close(write), pid, read
    try:
        os.close(read)
        _work(w, todo, write)
    finally: os._exit(3)


def run(w, todo) -> Iterator[dict]:
    "A record for each task, in their order."
    done = 0
    while done < len(todo):
        _, pid, pipe = _child(w, todo[done:])
        text, last, status = b"", time.monotonic(), None
        while True:
            compiles = done < len(todo) and todo[done][1] == "compile"
            patience = WITH_A_COMPILER if compiles else SECONDS
            if not select.select([pipe], [], [], max(0, last + patience - time.monotonic()))[0]:
                os.kill(pid, signal.SIGKILL)
                status = "hang"
                break
            part = os.read(pipe, 2**16)
            if not part: break
            text += part
            *lines, text = text.split(b"\n")
            for line in lines:
                yield record(todo[done], json.loads(line))
                done, last = done + 1, time.monotonic()
        os.close(pipe)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status or code: # the call that was under way
            yield record(todo[done], dict(outcome=status or "died", message=f"exit {code}", seconds=SECONDS))
            done += 1


def record(task, found):
    call, name, kind = task
    what = dict(call=call.title, module=call.name.split(":")[0], argument=name, kind=kind)
    found = what | dict(trains=call.trains) | found
    return found | dict(verdict=judge(found))
