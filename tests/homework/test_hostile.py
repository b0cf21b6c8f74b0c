"Whatever a function does: the check comes back with a finding, and the caller's state is what it was."
import builtins, ctypes, gc, json, os, random, signal, subprocess, sys, threading, time
from pathlib import Path

import numpy as np
import pytest
import torch

from course_lm.homework import Exercise, Mistake
from course_lm.homework import check as checker
from course_lm.homework.checking import checked_function
from course_lm.homework.exercises import arguments
from course_lm.homework.sandbox import Sandbox, ThreadSandbox

ANCHOR = "20_chunking.ipynb#Predict-first"
HINTS = "One.", "Two.", "Three."


def doubled(rows, n, *, last_left_out=False):
    return [[2*x + n for x in row] for row in rows[:len(rows) - last_left_out]]


INPUTS = [dict(rows=[[1]], n=0), dict(rows=[[1, 2], [3]], n=1), dict(rows=[[5], [7], [9]], n=2)]
LEFT_OUT = Mistake("last-left-out", "the last row is left out", "You return {got}.", HINTS, ANCHOR,
                   switch="last_left_out")
TOY = Exercise(doubled, ANCHOR, INPUTS, [LEFT_OUT], valid=lambda input: len(input["rows"]) > 0)


def right(rows, n): return [[2*x + n for x in row] for row in rows]
def stop(*args): raise KeyboardInterrupt
def raises(rows, n): return rows[10]
def says_nothing(rows, n): raise Exception
def exits(rows, n): sys.exit(0)
def quits(rows, n): quit()
def leaves(rows, n): os._exit(0)
def aborts(rows, n): os.abort()
def segfaults(rows, n): ctypes.string_at(0)
def kills_itself(rows, n): os.kill(os.getpid(), signal.SIGKILL)
def kills_its_parent(rows, n): os.kill(os.getppid(), signal.SIGKILL)
def kills_the_group(rows, n): os.killpg(os.getpgid(os.getppid()), signal.SIGKILL)
def interrupts(rows, n): raise KeyboardInterrupt
def stops(rows, n): raise GeneratorExit
def recurses(rows, n): return recurses(rows, n)


def loops(rows, n):
    while True: pass


def loops_and_catches(rows, n):
    while True:
        try: time.sleep(1)
        except BaseException: continue


def sleeps(rows, n): time.sleep(1000)


def blocks_signals(rows, n):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM): signal.signal(number, signal.SIG_IGN)
    time.sleep(1000)


def allocates(rows, n): return [0]*(10**11)
def allocates_a_tensor(rows, n): return torch.zeros(10**11)
def allocates_an_array(rows, n): return np.ones(10**11)


def grows(rows, n):
    found = []
    while True: found.append(bytearray(10**8))


def long_answer(rows, n): return [list(range(1000)) for _ in range(2000)]
def huge_number(rows, n): return 10**100_000
def huge_text(rows, n): return "x"*10**8


def endless(rows, n):
    while True: yield 1


def nested(rows, n):
    found = []
    found.append(found)
    return found


class Unfriendly:
    "Equal to everything, and raises wherever somebody looks."
    def __eq__(self, other): return True
    def __repr__(self): raise RuntimeError("no")
    def __iter__(self): raise RuntimeError("no")
    def __len__(self): raise RuntimeError("no")
    def __bool__(self): raise RuntimeError("no")
    def __getattr__(self, name): raise RuntimeError("no")


class EqualList(list):
    def __eq__(self, other): return True
    def __len__(self): return 3


class BadError(Exception):
    def __str__(self): raise RuntimeError("no")


def unfriendly(rows, n): return Unfriendly()
def list_of_unfriendly(rows, n): return [[Unfriendly()]]
def equal_list(rows, n): return EqualList([[1]])
def bad_error(rows, n): raise BadError
def its_class(rows, n): return Unfriendly
def itself(rows, n): return itself
def a_module(rows, n): return sys
def a_set(rows, n): return {1, 2}
def bytes_back(rows, n): return b"abc"
def text_back(rows, n): return str(right(rows, n))
def floats_back(rows, n): return np.array(right(rows, n)[0], dtype=float)[None]
def nan_back(rows, n): return [[float("nan")]]
def none_inside(rows, n): return [None for _ in rows]
def dict_back(rows, n): return dict(enumerate(right(rows, n)))
def a_tuple_more(rows, n): return right(rows, n), None
def a_lock(rows, n): return threading.Lock()
def an_open_file(rows, n): return open(os.devnull)
def complex_back(rows, n): return 3j
def wrong_arity(rows): return rows
def no_arguments(): return []


def closes_everything(rows, n):
    os.closerange(0, 1000)
    return right(rows, n)


def closes_streams(rows, n):
    sys.stdout.close()
    sys.stderr.close()
    print("x")
    return right(rows, n)


def garbage(rows, n):
    for fd in range(3, 300):
        try: os.write(fd, b'{"kind": "value"}\n\xff\x00 nonsense\n')
        except OSError: continue
    return [[0]]


def garbage_without_end(rows, n):
    for fd in range(3, 300):
        try:
            while True: os.write(fd, b"x"*65_536)
        except OSError: continue


def forks(rows, n):
    os.fork()
    return [[0]]


def leaves_a_process(rows, n):
    subprocess.Popen(["sleep", "1000"])
    return [[0]]


def leaves_a_thread(rows, n):
    threading.Thread(target=time.sleep, args=(1000,)).start()
    return [[0]]


def breaks_json(rows, n):
    json.dumps = json.loads = stop
    return [[0]]


def breaks_len(rows, n):
    builtins.len = builtins.isinstance = builtins.repr = stop
    return [[0]]


def breaks_os(rows, n):
    os.write = os._exit = os.read = stop
    return [[0]]


def breaks_numpy(rows, n):
    np.asarray = torch.equal = torch.Tensor.tolist = stop
    return [[0]]


def traces(rows, n):
    sys.settrace(stop)
    return [[0]]


def stops_at_gc(rows, n):
    gc.callbacks.append(stop)
    gc.collect()
    return [[0]]


def sets_an_alarm(rows, n):
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, .001)
    time.sleep(.05)
    return [[0]]


def many_prints(rows, n):
    while True: print("x"*1000)


FAILS = [f for f in list(globals().values()) if type(f).__name__ == "function"
         and f.__module__ == __name__ and f not in (doubled, right, stop)]


def state():
    "What a check must leave as it was."
    return dict(
        random=random.getstate(), numpy=np.random.get_state()[1].tolist(),
        torch=torch.get_rng_state().tolist(), here=os.getcwd(),
        out=sys.stdout, err=sys.stderr, into=sys.stdin,
        handlers=signal.getsignal(signal.SIGINT),
        threads=torch.get_num_threads(), gradients=torch.is_grad_enabled(), path=list(sys.path),
        environment={k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        recursion=sys.getrecursionlimit(), trace=sys.gettrace(),
        inputs=json.dumps(INPUTS), modules=(len, json.dumps, os.write, np.asarray),
        callbacks=list(gc.callbacks),
        code=doubled.__code__, switches=doubled.__kwdefaults__, fds=sorted(os.listdir("/proc/self/fd")))


def children():
    "Process numbers of what this process has started and not ended."
    found = Path(f"/proc/self/task/{os.getpid()}/children")
    return found.read_text().split() if found.exists() else []


@pytest.fixture(autouse=True)
def unchanged(request):
    before, running = state(), children()
    yield
    after = state()
    if "notebook" in request.node.name:  # a kernel's sockets; and nbclient puts Python's own SIGINT back
        before["fds"], before["handlers"] = after["fds"], signal.default_int_handler
    assert {k for k in before if before[k] != after[k]} == set()
    assert children() == running


def check(fn, seconds=1.):
    return checked_function(TOY, fn, seconds)


def test_a_right_function_passes():
    report = check(right)
    assert report and report.passed and report.mistake is None and report.title == "3 inputs"


@pytest.mark.parametrize("fn", FAILS, ids=lambda f: f.__name__)
def test_it_fails_with_a_finding_and_comes_back(fn):
    start = time.perf_counter()
    report = check(fn)
    assert not report and report.title and report.name == "doubled"
    assert time.perf_counter() - start < 30
    assert str(report) and "<div" in report._repr_html_()


NAMED = dict(
    raises="raises", exits="ends-the-process", leaves="ends-the-process", aborts="ends-the-process",
    segfaults="ends-the-process", kills_itself="ends-the-process", kills_its_parent="raises", loops="no-end",
    loops_and_catches="no-end", sleeps="no-end", blocks_signals="no-end", recurses="raises",
    allocates="out-of-memory", allocates_a_tensor="out-of-memory", allocates_an_array="out-of-memory",
    grows="out-of-memory", endless="wrong-form", text_back="wrong-form", floats_back="wrong-form",
    wrong_arity="raises", many_prints="no-end", its_class="wrong-form", dict_back="wrong-form")


@pytest.mark.parametrize("name", NAMED)
def test_what_it_did_has_a_name(name):
    assert check(globals()[name], 30. if name == "grows" else 1.).mistake == NAMED[name]


def test_a_function_that_waits_for_ever_is_ended_after_ten_seconds():
    start = time.perf_counter()
    assert checked_function(TOY, loops).mistake == "no-end"
    assert 10 <= time.perf_counter() - start < 24 # twice the time at most, if others have the machine


NO_FUNCTIONS = [None, 3, "chunk", [], {}, Unfriendly(), ...]


@pytest.mark.parametrize("what", NO_FUNCTIONS, ids=lambda x: type(x).__name__)
def test_what_is_no_function_is_said_to_be_none(what):
    assert check(what).mistake == "not-a-function"


# ---- what is allowed

def prints(rows, n):
    print("here", file=sys.stderr)
    return right(rows, n)


def writes_a_file(rows, n):
    Path("notes.txt").write_text("x")
    return right(rows, n)


class Callable:
    def __call__(self, rows, n): return right(rows, n)


def uses_threads(rows, n):
    found = []
    thread = threading.Thread(target=lambda: found.extend(right(rows, n)))
    thread.start()
    thread.join()
    return found


def uses_the_global_stream(rows, n):
    random.random()
    np.random.rand()
    torch.rand(1)
    return right(rows, n)


def own_generator(rows, n):
    random.Random(0).random()
    torch.rand(1, generator=torch.Generator().manual_seed(0))
    np.random.default_rng(0)
    return right(rows, n)


def puts_the_seed_back(rows, n):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
    return right(rows, n)


ALLOWED = [prints, writes_a_file, Callable(), uses_threads, uses_the_global_stream, own_generator,
           puts_the_seed_back, lambda *a: iter(right(*a)), lambda *a: map(tuple, right(*a)),
           lambda *a: [np.array(r) for r in right(*a)], lambda *a: [torch.tensor(r) for r in right(*a)]]


@pytest.mark.parametrize("fn", ALLOWED, ids=lambda f: getattr(f, "__name__", "object"))
def test_what_is_allowed_passes(fn):
    assert check(fn)


def test_printing_is_only_mentioned(capfd):
    report = check(prints)
    assert report and report.printed and "prints" in str(report) and capfd.readouterr() == ("", "")
    assert not check(right).printed


# ---- side effects that fail

def changes_a_row(rows, n):
    found = right(rows, n)
    rows[0].append(3)
    return found


def empties(rows, n): return [[2*x + n for x in rows.pop(0)] for _ in range(len(rows))]


@pytest.mark.parametrize("fn", [changes_a_row, empties])
def test_changed_arguments_fail(fn):
    assert check(fn).mistake == "changed-arguments"


def test_a_wrong_answer_with_changed_arguments_has_both():
    def both(rows, n):
        rows.pop()
        return right(rows, n)
    report = check(both)
    assert (report.mistake, report.also) == ("last-left-out", ("changed-arguments",))


SEEDS = [lambda: random.seed(3), lambda: np.random.seed(3), lambda: torch.manual_seed(3),
         lambda: torch.default_generator.manual_seed(5), lambda: random.setstate(random.Random(1).getstate())]


@pytest.mark.parametrize("seed", SEEDS, ids=["random", "numpy", "torch", "generator", "state"])
def test_a_reset_of_a_global_seed_fails(seed):
    def resets(rows, n):
        seed()
        random.random(), np.random.rand(), torch.rand(1)
        return right(rows, n)
    assert check(resets).mistake == "global-seed"


def test_what_it_remembers_is_found():
    kept = []
    def keeps(rows, n):
        kept.extend(right(rows, n))
        return kept
    assert check(keeps).mistake == "keeps-state" and kept == []


def test_what_it_started_is_ended(tmp_path):
    def starts(rows, n):
        process = subprocess.Popen(["sleep", "1000"])
        Path(tmp_path, "pid").write_text(str(process.pid))
        time.sleep(1000)
    assert check(starts).mistake == "no-end"
    pid, until = int(Path(tmp_path, "pid").read_text()), time.monotonic() + 5
    status = Path(f"/proc/{pid}/status")
    def runs(): return status.exists() and "(zombie)" not in status.read_text()
    while runs() and time.monotonic() < until: time.sleep(.05)
    assert not runs()


# ---- nothing to be read from the checker

def test_the_expected_value_is_not_in_the_child():
    def reads(rows, n):
        frame = sys._getframe()
        while frame:
            for value in frame.f_locals.values():
                if isinstance(value, Exercise): return value.reference(rows, n)
            frame = frame.f_back
        return [[0]]
    def collects(rows, n):
        for found in gc.get_objects():
            if isinstance(found, Exercise) and found.name == "doubled": return found.reference(rows, n)
    def imports(rows, n): return sys.modules[__name__].doubled(rows, n)
    for fn in (reads, collects, imports): assert not check(fn)


def test_no_answer_of_an_earlier_check_is_left():
    assert check(right)
    def searches(rows, n):
        want = right(rows, n)
        found = [x for x in gc.get_objects() if type(x) is list and x is not want and x == want]
        return found[0] if found else [[0]]
    assert not check(searches)


def test_our_own_functions_still_work_as_answers():
    import functools
    assert check(doubled)
    assert check(functools.partial(doubled, last_left_out=True)).mistake == "last-left-out"
    assert doubled([[1]], 1) == [[3]]


def imports_the_bank(nats, text):
    from course_lm.homework.bank_10 import bits_per_byte
    return bits_per_byte(nats, text)


def reloads_the_bank(nats, text):
    import importlib

    import course_lm.homework.bank_10 as bank
    return importlib.reload(bank).bits_per_byte(nats, text)


def forgets_the_bank(nats, text):
    sys.modules.pop("course_lm.homework.bank_10")
    return imports_the_bank(nats, text)


@pytest.mark.parametrize("fn", [imports_the_bank, reloads_the_bank, forgets_the_bank])
def test_the_bank_answers_for_nobody(fn):
    assert not checker.bits_per_byte(fn, verbose=False)


# ---- without fork

def test_without_fork_a_thread_does_it(monkeypatch):
    monkeypatch.delattr(os, "fork")
    assert check(right)
    assert check(lambda rows, n: right(rows[:-1], n)).mistake == "last-left-out"
    assert check(exits).mistake == "ends-the-process" and check(raises).mistake == "raises"
    assert check(changes_a_row).mistake == "changed-arguments"
    assert check(lambda rows, n: time.sleep(.5), .1).mistake == "no-end"
    time.sleep(.6)


@pytest.mark.parametrize("place", [Sandbox, ThreadSandbox])
def test_both_places_give_the_same_outcome(place):
    for fn in (right, raises, changes_a_row, prints, nan_back, text_back):
        with place(TOY, fn) as box: found = box.ask(INPUTS[1])
        with Sandbox(TOY, fn) as box: assert str(box.ask(INPUTS[1])) == str(found)


NO_FORK = """
import os, sys, time
sys.modules["resource"] = None
for name in "fork setsid setpgid killpg getppid sysconf WIFSIGNALED".split(): delattr(os, name)
from course_lm.homework import check
def right(texts): return list(dict.fromkeys(texts))
def later(texts): return [t for i, t in enumerate(texts) if t not in texts[i + 1:]]
rounds = []
def endless(texts):
    while True: rounds.append(0) if len(rounds) < 10 else rounds.pop()
def sleeps(texts): time.sleep(60)
def exits(texts): sys.exit()
reports = [check.deduplicate(f, False) for f in (right, later, exits)]
checker = check.deduplicate
reports += [checker(f, False, seconds=.5) for f in (endless, sleeps)]
print([r.mistake for r in reports], [r.passed for r in reports])
import threading
time.sleep(.5)
print(sum(t.is_alive() for t in threading.enumerate()))
"""


def test_the_path_of_windows():
    "What is not there on Windows is taken away: it passes, names a mistake, and a hang comes to its end."
    done = subprocess.run([sys.executable, "-c", NO_FORK], capture_output=True, text=True,
                          cwd=Path(__file__).parents[2])
    first, second, *_ = [*done.stdout.splitlines(), "", ""]
    wanted = [None, "last-kept", "ends-the-process", "no-end", "no-end"]
    assert first == f"{wanted} {[True, False, False, False, False]}", done.stdout + done.stderr
    assert second == "2", "the endless loop was ended; the one that sleeps is there until it wakes up"


def test_a_switch_takes_the_thread(monkeypatch):
    monkeypatch.setenv("COURSE_LM_NO_FORK", "1")
    seen = []
    assert check(lambda rows, n: seen.append(os.getpid()) or right(rows, n)) and set(seen) == {os.getpid()}


# ---- what outlives its parent

def forks_away(rows, n):
    if not os.fork():
        os.setsid()
        if not os.fork():
            open(rows, "w").write(str(os.getpid()))
            time.sleep(1000)
        os._exit(0)
    os.wait()
    return []


def starts_a_session(rows, n):
    run = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
    open(rows, "w").write(str(run.pid))


def leaves_after_it(rows, n):
    forks_away(rows, n)
    os._exit(1)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such a process lives on: the page says so")
@pytest.mark.parametrize("fn", [forks_away, starts_a_session, leaves_after_it])
def test_a_process_that_leaves_the_group_is_ended_too(fn, tmp_path):
    told = tmp_path / "pid"
    told.touch()
    def works(rows, n):
        if not told.read_text(): fn(str(told), n)
        time.sleep(.3)
        return right(rows, n)
    check(works)
    pid = int(told.read_text())
    for _ in range(20):
        if not is_running(pid): return
        time.sleep(.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("it goes on after the check")


def is_running(pid):
    try: return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError: return False


# ---- in a notebook and in a script

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from tests.homework.test_hostile import TOY, loops, exits, right
from course_lm.homework.checking import checked_function
print([checked_function(TOY, f, 1.).mistake for f in (loops, exits, right)])
"""


def test_in_a_script(tmp_path):
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(root=root)], capture_output=True, text=True,
                          cwd=tmp_path)
    assert done.stdout == "['no-end', 'ends-the-process', None]\n", done.stderr


def test_in_a_notebook(tmp_path):
    import nbformat

    from scripts.lessons import execute
    root = str(Path(__file__).parents[2])
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SCRIPT.format(root=root))])
    nbformat.write(nb, tmp_path / "n.ipynb")
    ran = execute(tmp_path / "n.ipynb")[0]
    assert ran.cells[0].outputs[0].text == "['no-end', 'ends-the-process', None]\n"


def test_arguments_are_made_afresh():
    a, b = arguments(TOY, INPUTS[1]), arguments(TOY, INPUTS[1])
    assert a == b and a[0] is not b[0] and a[0] is not INPUTS[1]["rows"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_killed_check_leaves_no_process_behind(tmp_path):
    told = tmp_path / "pid"
    script = f"""
import os, time
from course_lm.homework import check
def chunk(docs, chunk_size, eos):
    open({str(told)!r}, 'w').write(str(os.getpid()))
    while True: pass
check.chunk(chunk)
"""
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL,
                           cwd=Path(__file__).parents[2])
    for _ in range(600):
        if told.exists() and told.read_text(): break
        time.sleep(.1)
    child = int(told.read_text())
    os.kill(child, 0)
    run.kill()
    run.wait()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists(): return
        time.sleep(.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the function goes on without its check")
