"`course_lm.lab`: copies to write in, that no update of the course overwrites."
import json, os, re, subprocess, sys
from pathlib import Path

import pytest

from course_lm import lab

root = Path(__file__).resolve().parent.parent
KEPT = "20_chunking.ipynb is yours and stays: the new one is"


@pytest.fixture
def course(tmp_path):
    "A repository of one lesson, one sheet and a picture, with what is not handed out."
    for name in ("nbs/20_chunking.ipynb", "nbs/00_data.ipynb", "nbs/glossary.md", "nbs/images/a.png",
                 "nbs/homework/20_homework.ipynb", "nbs/homework/bank_20.ipynb", "nbs/homework/report.ipynb",
                 "nbs/.ipynb_checkpoints/20_chunking-checkpoint.ipynb"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one")
    sheet = tmp_path / "course_lm" / "homework" / "sheets" / "20_homework.ipynb"
    sheet.parent.mkdir(parents=True)
    sheet.write_text(f"see [here]({lab.PAGES}20_chunking.ipynb#Cut)")
    (tmp_path / "settings.ini").write_text("")
    return tmp_path


def there(course):
    files = sorted(p for p in (course / "work").rglob("*") if p.is_file() and p.name[0] != ".")
    return {p.relative_to(course / "work").as_posix(): p.read_text() for p in files}


def test_what_is_copied(course):
    assert set(lab.update(course).values()) == {"copied"}
    assert there(course) == {"20_chunking.ipynb": "one", "00_data.ipynb": "one", "glossary.md": "one",
                             "images/a.png": "one", "homework/report.ipynb": "one",
                             "homework/20_homework.ipynb": "see [here](../20_chunking.ipynb#Cut)"}
    assert lab.update(course) == {}


def test_what_is_edited_stays_and_each_update_is_beside_it(course):
    lesson, mine = course / "nbs" / "20_chunking.ipynb", course / "work" / "20_chunking.ipynb"
    def update(text):
        lesson.write_text(text)
        return lab.update(course).get("20_chunking.ipynb", "")
    update("one")
    assert update("two") == "updated" and mine.read_text() == "two"
    mine.write_text("two and mine")
    assert update("two") == "" and not mine.with_name("20_chunking (new).ipynb").exists()
    for text in ("three", "four"):  # the second replaces the first: nobody has written in it
        assert update(text) == f"{KEPT} 20_chunking (new).ipynb"
        assert update(text) == ""
    new = mine.with_name("20_chunking (new).ipynb")
    assert (mine.read_text(), new.read_text()) == ("two and mine", "four")
    new.write_text("four and mine")
    assert "20_chunking (new 2).ipynb" in update("five")
    assert sorted(there(course).values())[:3] == ["five", "four and mine", "one"]
    mine.unlink()
    assert update("five") == "copied" and mine.read_text() == "five"  # links to it lead somewhere again


def test_a_file_that_nobody_remembers_is_somebodys_work(course):
    mine = course / "work" / "20_chunking.ipynb"
    mine.parent.mkdir()
    mine.write_text("mine, before the first lab")
    (course / "work" / ".course_lm.json").write_text("{broken")
    assert "(new)" in lab.update(course)["20_chunking.ipynb"] and mine.read_text().startswith("mine")
    (course / "work" / ".course_lm.json").unlink()
    assert lab.update(course) == {"20_chunking.ipynb": f"{KEPT} 20_chunking (new).ipynb"}
    assert mine.read_text().startswith("mine") and len(there(course)) == 7


def test_links_and_folders_in_the_way_stay(course, tmp_path):
    work, outside = course / "work", tmp_path / "outside.txt"
    outside.write_text("not ours")
    work.mkdir()
    (work / "20_chunking.ipynb").symlink_to(outside)
    (work / "glossary.md").mkdir()
    done = lab.update(course)
    assert outside.read_text() == "not ours" and (work / "20_chunking.ipynb").is_symlink()
    assert (work / "glossary.md").is_dir() and "glossary (new).md" in done["glossary.md"]


@pytest.mark.parametrize("at", range(6))
def test_killed_at_any_write_nothing_is_lost(course, monkeypatch, at):
    lab.update(course)
    mine = course / "work" / "20_chunking.ipynb"
    mine.write_text("mine")
    for name in ("20_chunking.ipynb", "00_data.ipynb", "glossary.md"):
        (course / "nbs" / name).write_text("two")
    real, calls = lab._write, []
    def killed(path, data):
        calls.append(path)
        if len(calls) > at: raise KeyboardInterrupt
        real(path, data)
    monkeypatch.setattr(lab, "_write", killed)
    with pytest.raises(KeyboardInterrupt): lab.update(course)
    monkeypatch.setattr(lab, "_write", real)
    lab.update(course)
    found = there(course)
    assert found["20_chunking.ipynb"] == "mine" and found["20_chunking (new).ipynb"] == "two"
    assert found["00_data.ipynb"] == found["glossary.md"] == "two"
    assert not [name for name in found if "(new" in name and "20_" not in name]
    assert not list((course / "work").rglob(".*.ipynb.*"))


def test_the_repository_is_found_from_below_and_is_not_made_up(course, monkeypatch):
    assert lab.checkout(course / "nbs" / "homework") == course and lab.checkout(course) == course
    (course / "settings.ini").unlink()
    assert lab.checkout(course) is None
    monkeypatch.chdir(root / "tests")
    assert lab.checkout() == root


def test_git_sees_nothing_of_it():
    done = subprocess.run(["git", "check-ignore", "work/20_chunking.ipynb", "work/.course_lm.json"], cwd=root,
                          capture_output=True, text=True)
    if done.returncode == 128: pytest.skip("no git repository")
    assert done.stdout.split() == ["work/20_chunking.ipynb", "work/.course_lm.json"]


def links(text):
    "Where the Markdown of a page leads to, inside the course."
    if text.startswith("{"):
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    text = re.sub(r"(?s)```.*?```|`[^`\n]*`", "", text)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [link for link in found if not re.match(r"[a-z]+:|#", link)]


@pytest.mark.tree
def test_every_link_of_the_real_copies_lands(tmp_path):
    for p in root.iterdir():
        if p.name != "work": os.symlink(p, tmp_path / p.name)
    lab.update(tmp_path)
    pages = [p for p in (tmp_path / "work").rglob("*") if p.suffix in (".ipynb", ".md")]
    lost, inside = [], 0
    for page in pages:
        for link in links(page.read_text(encoding="utf-8")):
            target = Path(os.path.normpath(page.parent / link.partition("#")[0]))
            inside += target.is_relative_to(tmp_path / "work")
            if not target.exists() or not target.is_relative_to(tmp_path):
                lost.append(f"{page.relative_to(tmp_path)}: {link}")
    assert len(pages) > 60 and inside > 200 and not lost, lost
    sheets = sorted((tmp_path / "work" / "homework").glob("*_homework.ipynb"))
    assert len(sheets) == 7
    for sheet in sheets:
        text = sheet.read_text(encoding="utf-8")
        assert "### solution" not in text and lab.PAGES not in text


def test_half_of_the_cores_for_a_kernel(course, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for cores, threads in ((1, "1"), (2, "1"), (8, "4")):
        monkeypatch.setattr(lab, "usable_cores", lambda n=cores: n)
        assert lab.environment(course)["OMP_NUM_THREADS"] == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("PYTHONPATH", "there")
    found = lab.environment(course)
    assert found["OMP_NUM_THREADS"] == "7" and found["PYTHONPATH"] == f"{course}{os.pathsep}there"


NEWS = "@jupyterlab/apputils-extension:notification"
ASK = f"""import json, sys
from jupyterlab.labapp import LabApp
from jupyterlab_server.settings_utils import _get_overrides, get_settings
app = LabApp()
found, _ = get_settings(app.app_settings_dir, app.schemas_dir, sys.argv[1], "{NEWS}",
                        overrides=_get_overrides(app.app_settings_dir)[0])
print(json.dumps([found["settings"].get(k, found["schema"]["properties"][k]["default"])
                  for k in ("fetchNews", "checkForUpdates")]))"""


@pytest.mark.tree
@pytest.mark.parametrize("ours, chosen, says", [
    (True, {}, ["false", False]), (True, {"fetchNews": "true"}, ["true", False]),
    (False, {}, ["none", True])])
def test_no_question_about_news_but_a_user_may_choose(tmp_path, monkeypatch, ours, chosen, says):
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "first start"))
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "theirs")
    file = tmp_path / "settings" / f"{NEWS.replace(':', '/')}.jupyterlab-settings"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(chosen))
    env = lab.environment(root) if ours else os.environ
    assert env["JUPYTER_CONFIG_PATH"].endswith("theirs")
    done = subprocess.run([sys.executable, "-c", ASK, str(tmp_path / "settings")], env=env, cwd=tmp_path,
                          capture_output=True, text=True)
    assert json.loads(done.stdout) == says, done.stderr


@pytest.mark.parametrize("lesson, page", [
    (None, "00_data.ipynb"), ("", "00_data.ipynb"), ("2", "20_chunking.ipynb"),
    ("homework/2", "homework/20_homework.ipynb")])
def test_the_page_that_is_meant(course, lesson, page):
    assert lab.find_page(course, lesson) == page
    with pytest.raises(ValueError, match="lesson='9' is not here; there are 00 20"):
        lab.find_page(course, "9")


def test_the_lab_opens_the_copy_and_ends_with_jupyters_status(course, monkeypatch, capsys):
    started = []
    class Jupyter:
        def __init__(self, words, env, cwd): started.append((words, env, cwd))
        def wait(self): # Ctrl+C once: JupyterLab asks; then it ends
            if len(started) == 1:
                started.append("asked")
                raise KeyboardInterrupt
            return 3
    monkeypatch.setattr(lab.subprocess, "Popen", Jupyter)
    assert lab.open_lab(course, "20", browser=False) == 3
    words, env, cwd = started[0]
    assert words[:3] == [sys.executable, "-m", "jupyterlab"] and cwd == course
    assert "--LabApp.default_url=/lab/tree/work/20_chunking.ipynb" in words
    assert "--ServerApp.open_browser=False" in words and f"--ServerApp.root_dir={course}" in words
    said = "6 files copied into work/\nwork/20_chunking.ipynb: what you change here stays\n"
    assert capsys.readouterr().out == said
    (course / "work" / "20_chunking.ipynb").write_text("mine")
    (course / "nbs" / "20_chunking.ipynb").write_text("two")
    lab.open_lab(course, "20")
    assert "the new one is 20_chunking (new).ipynb" in capsys.readouterr().out


def test_run_all_is_told_from_less():
    from scripts.lab_test import outcome
    def cell(source, count=1, **out):
        return dict(cell_type="code", source=source, execution_count=count, outputs=[out] if out else [])
    line = dict(output_type="stream", name="stdout", text="Not on this machine\n")
    text = dict(cell_type="markdown", source="a")
    fine = [cell("x = 1"), cell("#| network\nf()", **line), cell("", None), text]
    assert outcome(dict(cells=fine)) == dict(cells=2, ran=2, apart=1, result="end")
    assert outcome(dict(cells=[*fine, cell("y", None)]))["result"] == "1 cells did not run"
    error = dict(output_type="error", ename="ValueError", evalue="no\nmore", traceback=[])
    assert outcome(dict(cells=[*fine, cell("y", **error)]))["result"] == "cell 5: ValueError: no"
    long = dict(line, text="one\ntwo\nthree\n")
    assert "more than a line" in outcome(dict(cells=[cell("#| network\nf()", **long)]))["result"]
