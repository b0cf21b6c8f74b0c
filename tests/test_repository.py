"The shape of the repository: who imports whom, what importing costs, what must never be committed."
import ast, re, shutil, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
support = "checks kinds randomness arrow inputs files html machine".split()  # the basement, lowest first
lessons = {f"support.{name}": i - len(support) for i, name in enumerate(support)}
for _path in sorted((root / "nbs").glob("[0-9][0-9]_*.ipynb")):
    if _found := re.search(r"#\|\s*default_exp\s+([\w.]+)", _path.read_text(encoding="utf-8")): lessons[_found[1]] = int(_path.name[:2])
modules = sorted(".".join(p.relative_to(root / "course_lm").with_suffix("").parts)
                 for p in (root / "course_lm").rglob("*.py") if not p.stem.startswith("_"))


def source_of(module: str) -> Path: return (root / "course_lm").joinpath(*module.split(".")).with_suffix(".py")


def imported(path: Path) -> set[str]:
    "The course's own modules that a module imports, wherever in the file."
    found, package = set(), path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import): found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level: found |= {".".join([*package[:len(package) + 1 - node.level], node.module or a.name]) for a in node.names}
        elif isinstance(node, ast.ImportFrom): found |= {f"course_lm.{a.name}" if node.module == "course_lm" else node.module for a in node.names}
    return {name.removeprefix("course_lm.") for name in found if name.startswith("course_lm.")}


def test_a_module_per_lesson():
    assert set(modules) == set(lessons) and {"data", "ngram", "chunking", "labels", "perplexity", "finetuning", "classification", "pretraining"} <= set(modules)


@pytest.mark.parametrize("module", modules)
def test_imports_only_from_earlier_lessons(module):
    late = {other for other in imported(source_of(module)) if lessons[other] >= lessons[module]}
    assert not late, f"lesson {lessons[module]} ({module}) may only import from earlier lessons, not {late}"


@pytest.mark.parametrize("module, heavy", [
    ("course_lm", "numpy torch transformers fastai datasets pandas sklearn matplotlib ipywidgets"),
    ("course_lm.data", "torch transformers fastai datasets sklearn matplotlib ipywidgets"),
    ("course_lm.ngram", "torch transformers fastai datasets sklearn matplotlib ipywidgets"),
    ("course_lm.chunking", "torch transformers fastai datasets sklearn matplotlib ipywidgets"),
    ("course_lm.labels", "transformers fastai datasets sklearn matplotlib ipywidgets"),
    ("course_lm.perplexity", "transformers fastai datasets sklearn matplotlib ipywidgets"),
    ("course_lm.finetuning", "transformers fastai datasets sklearn ipywidgets"),
    ("course_lm.classification", "transformers fastai datasets sklearn ipywidgets"),
    ("course_lm.pretraining", "transformers fastai datasets sklearn ipywidgets"),
    ("course_lm.cli", "torch transformers fastai datasets sklearn ipywidgets"),
])
def test_importing_is_light(module, heavy):
    code = f"import {module}, sys; print([m for m in {heavy.split()} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("module", modules)
def test_nothing_is_unpickled_and_no_star_is_imported(module):
    source = source_of(module).read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert not any(a.name == "*" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names)
    calls = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    assert not calls & {"pickle.load", "pickle.loads", "torch.load", "load_learner", "joblib.load", "np.load", "dill.load"}
    assert not re.search(r"^\s*warnings\.(filterwarnings|simplefilter)", source, re.M), "the library sets no warning filters"


@pytest.mark.parametrize("module", modules)
def test_public_names_say_what_they_are(module):
    tree = ast.parse(source_of(module).read_text(encoding="utf-8"))
    silent = [n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_") and not ast.get_docstring(n)]
    assert not silent, f"no docstring: {silent}"


def test_runtime_and_development_requirements_are_apart():
    cfg = ConfigParser()
    cfg.read(root / "settings.ini")
    names = lambda key: {re.split(r"[<>=!]", r)[0] for r in cfg["DEFAULT"][key].split()}
    assert not names("requirements") & {"nbdev", "execnb", "jupyter", "pytest", "trl", "nltk"} and "nbdev" in names("dev_requirements")
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (root / "constraints.txt").read_text().splitlines() if "==" in line}
    wanted = set().union(*(names(f"{k}requirements") for k in ("", "dev_", "browser_", "bench_")))
    assert wanted <= pinned, f"not in constraints.txt: {wanted - pinned}"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "A copy of the repository to break."
    to = tmp_path_factory.mktemp("broken") / "repo"
    shutil.copytree(root, to, ignore=shutil.ignore_patterns(".git", ".venv", "_run", "__pycache__", "build", "*.egg-info", "results"))
    return to


def test_the_sync_check_sees_a_broken_line_and_a_stray_module(copy):
    from scripts.sync import differences
    module = copy / "course_lm" / "chunking.py"
    source = module.read_text(encoding="utf-8")
    module.write_text(source.replace("def chunk_ids(", "def chunk_ids (", 1), encoding="utf-8")
    (copy / "course_lm" / "stray.py").write_text("x = 1\n")
    found = differences(copy)
    assert [line.split(":")[0] for line in found] == ["course_lm/chunking.py", "course_lm/stray.py"], found
    module.write_text(source, encoding="utf-8")
    (copy / "course_lm" / "stray.py").unlink()
    assert differences(copy) == []


def test_the_output_check_sees_what_a_reader_must_not_meet():
    from scripts.lessons import problems
    def cell(**out): return dict(cell_type="code", id="a", source="f()", outputs=[out])
    bad = [dict(output_type="error", ename="E", evalue="", traceback=[]), dict(output_type="stream", name="stderr", text="warn"),
           dict(output_type="stream", name="stdout", text="saved to /" + "home/me/x")]
    for out in bad: assert len(problems(root / "nbs" / "index.ipynb", dict(cells=[cell(**out)], metadata={}))) == 1, out
    assert problems(root / "nbs" / "index.ipynb", dict(cells=[cell(output_type="stream", name="stdout", text="fine")], metadata={})) == []


def test_the_course_fails_when_a_lesson_fails(tmp_path, monkeypatch, capsys):
    from scripts import run_course
    def broken(path, on_cell): raise RuntimeError("cell 3 failed")
    monkeypatch.setattr(run_course, "execute", broken)
    monkeypatch.setattr(run_course, "root", tmp_path)
    assert run_course.main(["01"]) == 1
    assert "FAILED: RuntimeError" in capsys.readouterr().out
