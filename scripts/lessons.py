"What the other scripts know about notebooks: which there are, how to run one, what a clean one looks like."
import hashlib, json, os, re, sys, tempfile, time
from pathlib import Path

root = Path(__file__).resolve().parent.parent
nbs = root / "nbs"
flags = {"gpu", "network", "slow"}  # the same words as tst_flags in settings.ini
machine_path = re.compile(r"(?<![\w.:/])/(?:root|tmp|work|home|Users|var|opt|usr)/[^\s\"'<>]*")
offline = dict(
    HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false", MPLBACKEND="module://matplotlib_inline.backend_inline",
)


def all_notebooks() -> list[Path]:
    "Every notebook below nbs/: numbered ones in order, homework after its lesson, then the rest, index last."
    found = [p for p in nbs.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]
    def order(p): return p.stem == "index", not is_numbered(p), number(p), len(p.parts), p.name
    return sorted(found, key=order)


def is_numbered(path: Path) -> bool:
    "Two digits and an underscore: a lesson, a page of reference or a sheet of homework."
    return bool(re.match(r"\d\d_", path.name))


def numbered() -> list[Path]:
    "The notebooks that `make course` runs, in order."
    return [p for p in all_notebooks() if is_numbered(p)]


def number(path: Path) -> str:
    "20 of 20_chunking.ipynb."
    return path.stem.split("_")[0]


def name_of(path: Path) -> str:
    "20_chunking, homework/20_homework, support/arrow."
    return path.relative_to(nbs).with_suffix("").as_posix()


def chosen(paths: list[Path], words: list[str]) -> list[Path]:
    "Those whose name or path begins with one of the words: 5 is all of lesson 5, homework a folder."
    return [p for p in paths if any(p.stem.startswith(w) or name_of(p).startswith(w) for w in words)]


def not_run(ran: set[Path]) -> list[str]:
    "The numbered notebooks on the disk that are not among those that ran, whatever list they came from."
    there = [Path(folder, file) for folder, _, files in os.walk(nbs) for file in files]
    lessons = [p for p in there if re.match(r"\d\d_.*\.ipynb$", p.name)
               and ".ipynb_checkpoints" not in p.parts]
    return sorted(name_of(p) for p in lessons if p not in ran)


def n_jobs() -> int:
    "How many run at a time: COURSE_LM_JOBS, or one for each core that this process may use, at most four."
    asked = os.environ.get("COURSE_LM_JOBS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(asked) if asked.isdigit() and int(asked) else min(4, cores)


def cpu_minutes() -> float:
    "Minutes of computing by this process and by all that it has started and waited for."
    return sum(os.times()[:4]) / 60


def directives(source: str) -> dict[str, str]:
    "The `#| name: value` lines at the top of a cell."
    found = {}
    for line in source.splitlines():
        if not line.startswith("#|"): break
        name, _, value = line[2:].strip().partition(":")
        found[name.strip().split(" ")[0]] = value.strip()
    return found


def left_out(source: str) -> str:
    "Why this cell does not run by default: the name of its flag, or nothing."
    marks = directives(source)
    if marks.get("eval", "").lower() == "false": return "eval: false"
    return next((flag for flag in sorted(flags) if flag in marks), "")


def code_hash(source: str) -> str: return hashlib.sha256(source.strip().encode()).hexdigest()[:16]


def recorded(key: str, source: str) -> list:
    """What `benchmarks.experiments.for_real` saw under a cell that needs a network, below a line that says
    when and where; nothing where the cell was never run, or has changed since."""
    from nbformat import from_dict
    from nbformat.v4 import new_output
    file = root / "course_lm" / "records" / "for_real.json"
    found = json.loads(file.read_text(encoding="utf-8")).get(key, {}) if file.exists() else {}
    if found.get("code") != code_hash(source): return []
    m = found["machine"]
    head = new_output("stream", name="stdout", text=f"(run on {m['date']}, {m['cpu']}, one thread)\n")
    return [head, *map(from_dict, found["outputs"])]


def keep_page(path: Path, text: str, args: list[str], command: str) -> int:
    "Write a page that a script makes; with --check only say whether it is in step. The exit status."
    if "--check" not in args: path.write_text(text, encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != text:
        print(f"{path.name} is not in step with what it is made of; run `{command}`", file=sys.stderr)
        return 1
    return 0


def read(path: Path):
    import nbformat
    return nbformat.read(path, as_version=4)


def write(nb, path: Path) -> None:
    "Write a notebook whole or not at all; a source is a list of lines, as git compares them."
    def lines(source): return source.splitlines(keepends=True) if isinstance(source, str) else source
    whole = dict(nb, cells=[dict(cell, source=lines(cell["source"])) for cell in nb["cells"]])
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(whole, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(part, path)


def execute(path: Path, on_cell=lambda i, n: None, timeout: int = 900):
    """Run a notebook in a fresh kernel. Returns it with its outputs, the flags of the cells left out, and the
    seconds it took. Raises `nbclient.exceptions.CellExecutionError` where a cell fails."""
    from nbclient import NotebookClient
    from traitlets.config import Config

    class Client(NotebookClient):
        skipped: list = []

        async def async_execute_cell(self, cell, cell_index, **kwargs):
            on_cell(cell_index + 1, len(self.nb.cells))
            why = left_out(cell.source) if cell.cell_type == "code" else ""
            if not why: return await super().async_execute_cell(cell, cell_index, **kwargs)
            self.skipped = self.skipped + [why]
            cell.outputs, cell.execution_count = recorded(f"{path.stem}#{cell.id}", cell.source), None
            return cell

    nb, config, sockets = read(path), Config(), tempfile.TemporaryDirectory()
    # sockets in a folder instead of TCP: a kernel then needs no network interface at all
    if os.name == "posix":
        config.KernelManager.transport, config.KernelManager.ip = "ipc", f"{sockets.name}/k"
    client = Client(nb, timeout=timeout, kernel_name="python3", config=config,
                    record_timing=False, store_widget_state=True,
                    resources={"metadata": {"path": str(path.parent)}})
    start = time.perf_counter()
    with sockets: client.execute()
    return nb, client.skipped, time.perf_counter() - start


def prepare_environment() -> None:
    "What every kernel started from here inherits: no network, no bars, the repository's own library."
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.update(offline)
    # small models gain nothing by a second thread, and two kernels run at once
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in [str(root), os.environ.get("PYTHONPATH", "")] if p)
    os.environ["PATH"] = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]


def problems(path: Path, nb: dict) -> list[str]:
    "What a reader must not meet in a stored notebook: errors, warnings, bar debris, paths of a machine."
    found, name = [], path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    code = [c for c in nb["cells"] if c["cell_type"] == "code" and "".join(c["source"]).strip()]
    for i, cell in enumerate(nb["cells"]):
        if "id" not in cell: found.append(f"{name}: cell {i} has no id")
    for cell in code:
        source = "".join(cell["source"])
        if re.search(r"^\s*#\|\s*export", source, re.M) and not source.startswith("#|"):
            found.append(f"{name}: a directive below the first line of its cell is ignored: {source[:60]!r}")
        for out in cell["outputs"]:
            shown = "".join(out.get("text", "")) + "".join(
                "".join(v) if isinstance(v, list) else str(v) for k, v in out.get("data", {}).items()
                if not k.startswith("image/"))
            if out["output_type"] == "error":
                found.append(f"{name}: an error is stored under {source[:60]!r}")
            if out.get("name") == "stderr":
                found.append(f"{name}: warnings or bar debris under {source[:60]!r}: {shown[:120]!r}")
            if "application/vnd.jupyter.widget-view+json" in out.get("data", {}):
                found.append(f"{name}: widget view stored under {source[:60]!r}")
            if "image/png" in out.get("data", {}) and "fig-alt" not in directives(source):
                found.append(f"{name}: a picture without `#| fig-alt:` under {source[:60]!r}")
            if hit := machine_path.search(shown):
                found.append(f"{name}: a path of some machine: {hit.group()[:80]}")
    if "widgets" in nb["metadata"]: found.append(f"{name}: widget state stored")
    if path.parent == nbs and is_numbered(path):
        data = [out.get("data", {}) for cell in code for out in cell["outputs"]]
        if not data: found.append(f"{name}: a lesson without any stored output")
        elif not any(k in d for d in data for k in ("image/png", "image/svg+xml", "text/html")):
            found.append(f"{name}: a lesson without a picture")
    return found
