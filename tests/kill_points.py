"""Writers killed with SIGKILL, or refused by the disk, at every step: `python -m tests.kill_points`.

Each step is one event of the file system (Python's audit events: a file opened, a folder made, a name
changed, a lock, ...), a call of fsync, or a point that the writer itself names. For each number n the writer
runs in a process of its own, which ends before its n-th step. Then somebody reads, and somebody else writes.
"""
import errno, json, os, resource, signal, sys, tempfile
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from course_lm.support import files
from course_lm.support.files import is_there, is_whole, whole_file, whole_folder

WRITES = {"os.mkdir", "fsync", "point"} # what a full disk refuses; and files opened for writing


class Steps:
    "Counts the steps of this process below `root`; at number `at` it ends, or the disk is full from then."
    def __init__(self, root, at=0, full=False):
        self.root, self.at, self.full, self.n = str(root), at, full, 0
        fsync, files.os.fsync = os.fsync, lambda fd: (self.step("fsync"), fsync(fd))[1]
        sys.addaudithook(self.hook)

    def hook(self, event, args):
        if event == "open":
            writes = isinstance(args[1], str) and any(c in args[1] for c in "wax+")
            if self.root in str(args[0]): self.step("point" if writes else "look")
        elif event.startswith(("os.", "shutil.")) and event not in ("os.scandir", "os.listdir"):
            if any(self.root in str(a) for a in args[:2]): self.step(event)
        elif event in ("fcntl.flock", "ctypes.call_function"): self.step(event)

    def step(self, event):
        self.n += 1
        if self.at and self.full and self.n >= self.at and event in WRITES:
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.n == self.at and not self.full: os.kill(os.getpid(), signal.SIGKILL)


class NoSteps:
    "For a writer that nobody stops."
    def step(self, event): pass


def in_a_child(root, act, at=0, full=False, bytes_a_file=None):
    "(how it ended, steps that it made); None for killed, an errno, 0."
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        code = 99
        try:
            steps = Steps(root, at, full)
            if bytes_a_file is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, resource.RLIM_INFINITY))
            try:
                act(steps)
                code = 0
            except OSError as e: code = e.errno or 98
            os.write(write, str(steps.n).encode())
        finally: os._exit(code)
    os.close(write)
    _, status = os.waitpid(pid, 0)
    told = os.read(read, 100)
    os.close(read)
    return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), int(told or 0)


def write_folder(path, what):
    def act(steps):
        with whole_folder(path) as new:
            for name in ("a.txt", "below/b.txt"):
                (new / name).parent.mkdir(exist_ok=True)
                with open(new / name, "w") as f:
                    for half in what[:3], what[3:]:
                        f.write(half)
                        f.flush()
                        steps.step("point")
    return act


def folder_is(path):
    if not is_there(path): return None
    said = {(path / name).read_text() for name in ("a.txt", "below/b.txt")} if is_whole(path) else {"broken"}
    return said.pop() if len(said) == 1 else "mixed"


def write_file(path, what): return lambda steps: whole_file(path, what)


def file_is(path): return path.read_text() if path.exists() else None


def without_exchange(): return patch.object(files, "_exchange", return_value=False)


@contextmanager
def place(write, old):
    "A folder with things of the user's, and perhaps what was written before."
    with tempfile.TemporaryDirectory() as root:
        root = Path(root).resolve()
        (root / ".part-notes").mkdir()
        (root / ".part-place-0123abcd").mkdir() # looks like one of ours, and holds a user's file
        for name in ("mine.txt", ".part-notes/mine.txt", ".part-place-0123abcd/mine.txt"):
            (root / name).write_text("mine")
        if old: write(root / "place", old)(NoSteps())
        yield root, root / "place"


def mine(root): return sorted(str(p.relative_to(root)) for p in root.rglob("mine.txt"))


def litter(root): return [p.name for p in root.iterdir() if p.name not in (
    "place", "mine.txt", ".part-notes", ".part-place-0123abcd")]


def campaign(write, read, old, new="new 222", full=False, sizes=None):
    "What went wrong, and how many points were tried."
    wrong, at, steps = [], 0, None
    while steps is None or at <= (steps if sizes is None else sizes):
        with place(write, old) as (root, path):
            if steps is None:
                ended, steps = in_a_child(root, write(path, new))
                if ended or read(path) != new or litter(root): wrong.append(("whole", ended, read(path)))
                continue
            limit = dict(at=at, full=full) if sizes is None else dict(bytes_a_file=at)
            ended, _ = in_a_child(root, write(path, new), **limit)
            left, found = litter(root), read(path)
            fine = found in (old, new) and (ended is None) != (full or sizes is not None or at == 0)
            if ended is not None:
                fine = found == (old if ended else new) and not left
                fine = fine and ended in (0, errno.ENOSPC, errno.EFBIG)
            if len(mine(root)) != 3: fine = False
            write(path, "next 33")(NoSteps())
            if read(path) != "next 33" or len(mine(root)) != 3 or litter(root): fine = False
            if not fine: wrong.append((at, ended, found, left, litter(root)))
        at += 1
    return dict(points=at, wrong=wrong[:5])


def main():
    found = {}
    for name, write, read in (("folder", write_folder, folder_is), ("file", write_file, file_is)):
        for old in (None, "old 111"):
            over = "over an old one" if old else "new"
            found[f"{name}, {over}, killed"] = campaign(write, read, old)
            found[f"{name}, {over}, disk full"] = campaign(write, read, old, full=True)
            found[f"{name}, {over}, files cut at a byte"] = campaign(write, read, old, sizes=150)
    with without_exchange():
        found["folder, without an exchange of names, killed"] = campaign(write_folder, folder_is, "old 111")
    print(json.dumps(found))


if __name__ == "__main__": main()
