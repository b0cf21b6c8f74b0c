"The shape of the repository: who imports whom, what importing costs, what must never be committed."
import ast, json, os, re, shutil, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import nbformat, pytest

from scripts.house import House, imports, named

root = Path(__file__).resolve().parent.parent
house = House()
lessons, modules = house.ranks, sorted(house.modules)


def source_of(module: str) -> Path:
    path = (root / "course_lm").joinpath(*module.split("."))
    file = path.with_suffix(".py")
    return file if file.exists() else path / "__init__.py"


def test_a_module_per_lesson():
    assert set(modules) == set(lessons)
    assert {"data", "ngram", "chunking", "labels", "perplexity", "finetuning", "classification",
            "pretraining"} <= set(modules)


@pytest.mark.parametrize("module", modules)
def test_imports_only_from_earlier_lessons(module):
    found = {named(other, lessons) for other, _ in imports(house.modules[module], module)} - {""}
    late = {other for other in found if lessons[other] >= lessons[module]}
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
    *((f"course_lm.{m}", "torch transformers fastai datasets sklearn matplotlib ipywidgets")
      for m in modules if m.startswith("support.")),
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
    assert not calls & {"pickle.load", "pickle.loads", "torch.load", "load_learner", "joblib.load", "np.load",
                        "dill.load"}
    assert not re.search(r"^\s*warnings\.(filterwarnings|simplefilter)", source,
                         re.M), "the library sets no warning filters"


@pytest.mark.parametrize("path", [p for f in ("course_lm", "runs", "benchmarks", "scripts")
                                  for p in sorted((root / f).rglob("*.py"))], ids=lambda p: p.name)
def test_no_code_of_a_stranger_is_run(path):
    text = path.read_text(encoding="utf-8")
    calls = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)]
    loads = [n for n in calls if ast.unparse(n.func).endswith("from_pretrained")
             and "Embedding" not in ast.unparse(n.func)]
    assert not [said for said in map(ast.unparse, loads) if "trust_remote_code=False" not in said]
    assert "trust_remote_code=True" not in text


@pytest.mark.parametrize("module", modules)
def test_public_names_say_what_they_are(module):
    tree = ast.parse(source_of(module).read_text(encoding="utf-8"))
    silent = [n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))
              and not n.name.startswith("_") and not ast.get_docstring(n)]
    if ".bank_" in module: # what a wrong answer does is said by its Mistake
        text = source_of(module).read_text(encoding="utf-8")
        exercises = re.findall(r"Exercise\(\s*(?:reference=)?(\w+)", text)
        silent = [name for name in silent if name in exercises]
        assert exercises
    assert not silent, f"no docstring: {silent}"


def test_runtime_and_development_requirements_are_apart():
    cfg = ConfigParser()
    cfg.read(root / "settings.ini")
    def names(key):
        found = {re.split(r"[<>=!]", r)[0] for r in cfg["DEFAULT"][key].split()}
        return {name.lower().replace("_", "-") for name in found}
    assert not names("requirements") & {"nbdev", "execnb", "jupyter", "pytest", "trl", "nltk", "peft"}
    assert "nbdev" in names("dev_requirements")
    pinned = {line.split("==")[0].lower().replace("_", "-")
              for line in (root / "constraints.txt").read_text().splitlines() if "==" in line}
    wanted = set().union(*(names(f"{k}requirements") for k in ("", "dev_", "browser_", "bench_")))
    assert wanted <= pinned, f"not in constraints.txt: {wanted - pinned}"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "A copy of the repository to break."
    to = tmp_path_factory.mktemp("broken") / "repo"
    shutil.copytree(root, to, ignore=shutil.ignore_patterns(".git", ".venv", "_run", "__pycache__", "build",
                                                            "*.egg-info", "results"))
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
    bad = [dict(output_type="error", ename="E", evalue="", traceback=[]),
           dict(output_type="stream", name="stderr", text="warn"),
           dict(output_type="stream", name="stdout", text="saved to /" + "home/me/x"),
           dict(output_type="display_data", data={"image/png": "iVBORw0KGgo="}, metadata={})]
    for out in bad:
        assert len(problems(root / "nbs" / "index.ipynb", dict(cells=[cell(**out)], metadata={}))) == 1, out
    assert problems(root / "nbs" / "index.ipynb",
                    dict(cells=[cell(output_type="stream", name="stdout", text="fine")], metadata={})) == []


def run(copy, *command):
    "A tool of the copy, run in the copy: its return code and what it said."
    env = {**os.environ, "PYTHONPATH": str(copy), "COURSE_LM_JOBS": "1"}
    done = subprocess.run([sys.executable, "-m", *command], cwd=copy, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def notebook(path, *sources, outputs=()):
    "A notebook of these code cells; the last one has the outputs."
    def cell(i, source):
        return dict(cell_type="code", id=f"c{i}", metadata={}, source=source, outputs=[],
                    execution_count=None)
    cells = [dict(cell_type="markdown", id="t", metadata={}, source="# Title\n\n> A sentence.")]
    cells += [cell(i, source) for i, source in enumerate(sources)]
    cells[-1]["outputs"] = list(outputs)
    meta = dict(kernelspec=dict(name="python3", display_name="Python 3", language="python"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(cells=cells, metadata=meta, nbformat=4, nbformat_minor=5), indent=1)
                    + "\n")


SHEET = "#| default_exp homework.thrown_away", "#| export\ndef thrown(): return 1", "assert thrown() == 1"


@pytest.fixture
def sheet(copy):
    "A throw-away notebook in nbs/homework/: every tool has to find it."
    path = copy / "nbs" / "homework" / "29_thrown_away.ipynb"
    notebook(path, *SHEET)
    yield path
    path.unlink()
    (copy / "course_lm" / "homework" / "thrown_away.py").unlink(missing_ok=True)
    # the index of names forgets it
    subprocess.run(["nbdev_export"], cwd=copy, check=True, capture_output=True)


def test_a_new_folder_of_notebooks_is_found_by_export_clean_and_sync(copy, sheet):
    from scripts.sync import differences
    made = copy / "course_lm" / "homework" / "thrown_away.py"
    lines = {line.split(":")[0] for line in differences(copy)}
    assert {"nbs/homework/29_thrown_away.ipynb", "course_lm/homework/thrown_away.py"} <= lines
    subprocess.run(["nbdev_clean"], cwd=copy, check=True)
    subprocess.run(["nbdev_export"], cwd=copy, check=True)
    assert "def thrown()" in made.read_text() and differences(copy) == []
    dirty = json.loads(sheet.read_text())
    dirty["cells"][-1]["execution_count"] = 7
    dirty["metadata"]["somebody"] = "here"
    sheet.write_text(json.dumps(dirty))
    assert [line.split(":")[0] for line in differences(copy)] == ["nbs/homework/29_thrown_away.ipynb"]


@pytest.mark.slow
def test_a_new_folder_of_notebooks_is_found_by_tests_and_course(copy, sheet):
    code, said = run(copy, "scripts.run_tests", "29")
    assert code == 0 and "nbdev_test homework/29_thrown_away" in said
    assert said.strip().endswith("1 passed, 0 failed")
    assert run(copy, "scripts.run_course", "homework/29")[0] == 0
    assert "homework/29_thrown_away" in run(copy, "scripts.run_course", "29")[1]
    assert (copy / "_run" / "homework" / "29_thrown_away.html").exists()
    notebook(sheet, *SHEET[:2], "assert thrown() == 2")
    code, said = run(copy, "scripts.run_tests", "homework/29")
    assert code == 1 and "0 passed, 1 failed" in said and "AssertionError" in said
    code, said = run(copy, "scripts.run_course", "homework/29")
    assert code == 1 and "FAILED: homework/29_thrown_away" in said and "FAILED: CellExecutionError" in said


def test_a_new_folder_of_notebooks_is_found_by_stored_outputs_and_ruff(copy, sheet):
    error = dict(output_type="error", ename="E", evalue="", traceback=[])
    notebook(sheet, *SHEET, "import os", outputs=[error])
    code, said = run(copy, "scripts.run_tests", "--stored-outputs")
    assert code == 1 and "nbs/homework/29_thrown_away.ipynb: an error is stored" in said
    code, said = run(copy, "ruff", "check", "--output-format", "concise", "nbs/homework/29_thrown_away.ipynb")
    assert code == 1 and "29_thrown_away.ipynb:cell 5:1:8: F401" in said


def test_a_notebook_that_says_not_to_be_run_is_missed(copy, sheet):
    notebook(sheet, "---\nskip_exec: true\n---", "1/0")
    nb = json.loads(sheet.read_text())
    nb["cells"][0] = dict(nb["cells"][0], cell_type="raw", source="---\nskip_exec: true\n---")
    sheet.write_text(json.dumps(nb))
    code, said = run(copy, "scripts.run_tests", "29")
    assert code == 1 and "it did not run" in said


@pytest.fixture
def course(tmp_path, monkeypatch):
    "The course with notebooks that run in no time: a function that takes what `execute` does, and runs it."
    from scripts import lessons, run_course
    for name in ("20_chunking", "homework/20_homework", "99_command_line", "support/arrow", "index"):
        notebook(tmp_path / "nbs" / f"{name}.ipynb", "1")
    def go(execute, *words):
        monkeypatch.setattr(run_course, "execute", execute)
        monkeypatch.setattr(run_course, "root", tmp_path)
        monkeypatch.setattr(run_course, "prepare_environment", lambda: None)
        monkeypatch.setattr(lessons, "nbs", tmp_path / "nbs")
        return run_course.main(list(words))
    return go


def ran(path):
    nb = nbformat.read(path, as_version=4)
    for cell in nb.cells: cell.execution_count = 1
    return nb, [], 1.


def test_the_course_runs_every_numbered_notebook_in_order(course, capsys):
    assert course(ran) == 0
    said = capsys.readouterr()
    assert [line.split()[1] for line in said.err.splitlines()[1:]] == ["20_chunking", "homework/20_homework",
                                                                       "99_command_line"]
    assert "CPU minutes" in said.out


def test_the_course_fails_when_a_lesson_fails(course, capsys):
    def broken(path):
        if path.stem == "20_homework": raise RuntimeError("cell 3 failed")
        return ran(path)
    assert course(broken) == 1
    said = capsys.readouterr()
    assert "FAILED: RuntimeError" in said.out and "FAILED: homework/20_homework" in said.out
    assert "cell 3 failed" in said.err


def test_the_course_fails_when_a_cell_or_a_notebook_did_not_run(course, capsys, monkeypatch, tmp_path):
    from scripts import run_course
    assert course(lambda path: (nbformat.read(path, as_version=4), [], 1.)) == 1
    assert "FAILED: 1 cells did not run" in capsys.readouterr().out
    monkeypatch.setattr(run_course, "numbered", lambda: [tmp_path / "nbs" / "20_chunking.ipynb"])
    assert course(ran) == 1
    assert "NOT RUN: 99_command_line homework/20_homework" in capsys.readouterr().out


def test_the_tests_fail_when_a_notebook_did_not_run(monkeypatch, tmp_path, capsys):
    from scripts import lessons, run_tests
    for name in ("20_chunking", "homework/20_homework"): notebook(tmp_path / "nbs" / f"{name}.ipynb", "1")
    monkeypatch.setattr(lessons, "nbs", tmp_path / "nbs")
    monkeypatch.setattr(run_tests, "root", tmp_path)
    monkeypatch.setattr(run_tests, "prepare_environment", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(run_tests, "all_notebooks", lambda: [tmp_path / "nbs" / "20_chunking.ipynb"])
    done = subprocess.CompletedProcess([], 0, f"- Completed {tmp_path / 'nbs' / '20_chunking.ipynb'}", "")
    monkeypatch.setattr(run_tests.subprocess, "run", lambda *args, **kw: done)
    assert run_tests.main(["notebooks"]) == 1
    said = capsys.readouterr().out
    assert "did not run: homework/20_homework" in said and said.strip().endswith("1 passed, 1 failed")


def git(tree, *args, check=True):
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", *who, *args], cwd=tree, check=check, capture_output=True, text=True)


def test_hooks_merge_notebooks_and_leave_the_tree_clean(tmp_path):
    from scripts import hooks
    tree = tmp_path / "tree"
    notebook(tree / "nb.ipynb", "1", "2", "3")
    shutil.copy(root / ".gitattributes", tree)
    (tree / ".gitignore").write_text(".venv\n")
    (tree / "settings.ini").write_text((root / "settings.ini").read_text())
    git(tree, "init", "-q", "-b", "main")
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "first")
    (tree / ".venv").symlink_to(Path(sys.executable).parent.parent)
    assert hooks.install(tree) == hooks.install(tree) == "git merges notebooks cell by cell"
    assert git(tree, "status", "--porcelain").stdout == ""
    def change(cell, source, **more):
        nb = json.loads((tree / "nb.ipynb").read_text())
        nb["cells"][cell].update(source=source, **more)
        (tree / "nb.ipynb").write_text(json.dumps(nb, indent=1) + "\n")
    git(tree, "checkout", "-qb", "other")
    change(1, "1 + 1", execution_count=5)
    git(tree, "commit", "-qam", "theirs")
    git(tree, "checkout", "-q", "main")
    change(1, "1 + 1", execution_count=7)  # the same source, another count: text that conflicts
    git(tree, "commit", "-qam", "ours")
    merged = git(tree, "merge", "other", "-m", "both", check=False)
    cells = json.loads((tree / "nb.ipynb").read_text())["cells"]
    assert merged.returncode == 0, merged.stdout + merged.stderr
    assert ["".join(c["source"]) for c in cells[1:]] == ["1 + 1", "2", "3"]


def test_hooks_do_nothing_outside_a_checkout_and_leave_hooks_of_ones_own(tmp_path):
    from scripts import hooks
    assert hooks.install(tmp_path) == "no git checkout, no hooks"
    git(tmp_path, "init", "-q")
    (tmp_path / "inside").mkdir()
    assert hooks.install(tmp_path / "inside") == "inside somebody else's git checkout, no hooks"
    mine = tmp_path / ".git" / "hooks" / "post-merge"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("#!/bin/sh\n")
    assert "your own post-merge hook stays" in hooks.install(tmp_path) and mine.read_text() == "#!/bin/sh\n"


PAGES = [*root.glob("*.md"), *root.glob("runs/*.md"), *root.glob("course_lm/pretrained/*/README.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(root).as_posix())
def test_links_of_pages_lead_somewhere(page):
    text = re.sub(r"(?s)```.*?```", "", page.read_text(encoding="utf-8"))
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    files = [link for link in links if link and not re.match(r"https?:|mailto:", link)]
    missing = [link for link in files if not (page.parent / link).exists()]
    assert not missing, missing


def test_the_code_of_the_readme_runs():
    code = re.findall(r"(?s)```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"))
    assert code
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_commands_that_pages_name_are_there():
    "`make x`, `python -m x.y` and paths of files, in the pages that tell people what to do."
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), re.M))
    for page in (root / "README.md", root / "CONTRIBUTING.md", root / "runs" / "README.md"):
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.M)) <= targets, page
        for module in re.findall(r"-m ((?:scripts|benchmarks|runs|tests)\.[\w.]+)", text):
            assert root.joinpath(*module.split(".")).with_suffix(".py").exists(), (page, module)
        for path in re.findall(r"`((?:nbs|scripts|tests|benchmarks|runs|course_lm)/[\w/.]*)`", text):
            assert (root / path).exists() or "NN_" in path, (page, path)


def test_the_citation_names_this_version():
    cfg = ConfigParser()
    cfg.read(root / "settings.ini")
    text = (root / "CITATION.cff").read_text()
    assert f"version: {cfg['DEFAULT']['version']}\n" in text and "cff-version: 1.2.0" in text


def test_issue_templates_ask_for_the_doctor():
    templates = list((root / ".github" / "ISSUE_TEMPLATE").glob("*.md"))
    assert len(templates) == 2 and all("course_lm doctor" in p.read_text() for p in templates)


def test_the_changelog_says_where_each_name_went():
    from scripts import names
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    table = text.split(names.BEGIN)[1].split(names.END)[0]
    defined = names.new_names(house)[1]
    now = [line.split("|")[2] for line in table.splitlines() if line.startswith("| `")]
    moved = {name for cell in now for name in re.findall(r"`([\w.]+\.\w+)", cell) if named(name, lessons)}
    assert len(now) > 100 and moved - defined == set()
    known = subprocess.run(["git", "cat-file", "-e", names.OLD], cwd=root, capture_output=True)
    if known.returncode: pytest.skip("the old tree is not in this checkout")
    assert names.table(names.rows(house)) == names.BEGIN + table + names.END, "run `python -m scripts.names`"
