"What a release needs: versions in step, a README for anywhere, cards, workflows whose commands are there."
import ast, json, re, runpy, shutil
from urllib.error import HTTPError, URLError

import pytest, yaml

from scripts import links, release
from scripts.lessons import root
from tests.test_installation import PYTHONS, cfg

WORKFLOWS = {p.stem: yaml.safe_load(p.read_text()) for p in (root / ".github" / "workflows").glob("*.yaml")}
COMMANDS = [(f"{name}-{job}-{i}", step["run"]) for name, flow in WORKFLOWS.items()
            for job, does in flow["jobs"].items() for i, step in enumerate(does["steps"]) if "run" in step]


def test_version_and_changelog_are_in_step():
    assert release.problems() == []


@pytest.fixture
def tree(tmp_path):
    "What names the version, to break."
    (tmp_path / "course_lm").mkdir()
    for name in ("settings.ini", "CITATION.cff", "CHANGELOG.md", "course_lm/__init__.py"):
        shutil.copy(root / name, tmp_path / name)
    return tmp_path


def test_a_tag_needs_its_section_and_its_version(tree):
    found = release.problems("v9.9.9", tree)
    assert [line.split(",")[0] for line in found] == \
        ["the tag is v9.9.9", f"CHANGELOG.md has no section {cfg['version']}",
         "CHANGELOG.md still has 'Not released yet'"]
    log = tree / "CHANGELOG.md"
    log.write_text(log.read_text().replace("## Not released yet", f"## {cfg['version']}, 3 May 2027", 1))
    assert release.problems(f"v{cfg['version']}", tree) == []
    assert "Installation" in release.sections(tree)[cfg["version"]]


def test_versions_that_differ_are_named(tree):
    (tree / "CITATION.cff").write_text("version: 3\n")
    (tree / "CHANGELOG.md").write_text("# Changelog\n")
    assert release.problems(tree=tree) == [
        f"CITATION.cff has version 3, settings.ini {cfg['version']}",
        f"CHANGELOG.md has neither 'Not released yet' nor {cfg['version']}"]


def test_the_readme_of_a_package_index_has_no_link_inside():
    anywhere = runpy.run_path(str(root / "setup.py"))["anywhere"]
    text = anywhere((root / "README.md").read_text(encoding="utf-8"))
    found = re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)", text)
    assert found and all(re.match("https?:|#|mailto:", where) for _, where in found)
    ours = [where for _, where in found if where.startswith(cfg["git_url"])]
    assert len(ours) > 20
    for where in ours:
        inside = where.split(f"/{cfg['branch']}/")[1].split("#")[0]
        assert (root / inside).exists(), where
    assert all("/raw/" in where for kind, where in found if kind and where.startswith(cfg["git_url"]))


def test_cards_begin_with_what_a_hub_reads():
    for model, task in (("tiny-gpt", "text-generation"), ("tiny-bert", "fill-mask")):
        text = (root / "course_lm" / "pretrained" / model / "README.md").read_text(encoding="utf-8")
        front = yaml.safe_load(text.split("---")[1])
        assert text.startswith("---\n") and front["license"] == "apache-2.0" and front["pipeline_tag"] == task
        assert front["datasets"] == ["stanfordnlp/imdb", "Salesforce/wikitext"]


def test_the_notice_names_each_thing_that_others_made():
    text = (root / "NOTICE").read_text(encoding="utf-8")
    package = root / "course_lm"
    made = [f"pretrained/{p.parent.name}" for p in (package / "pretrained").glob("*/config.json")]
    made += [f"texts/{p.name}" for p in (package / "texts").glob("*.txt") if "LICENSE" not in p.name]
    assert len(made) > 2 and not [name for name in made if f"course_lm/{name}" not in text]


def test_workflows_run_the_pythons_of_settings():
    assert WORKFLOWS["test"]["jobs"]["test"]["strategy"]["matrix"]["python"] == PYTHONS
    systems = {job["runs-on"] for job in WORKFLOWS["test"]["jobs"].values()}
    assert systems == {"ubuntu-latest", "macos-latest", "windows-latest"}
    jobs = [job for flow in WORKFLOWS.values() for job in flow["jobs"].values()]
    used = {str(step["with"]["python-version"]) for job in jobs for step in job["steps"]
            if "setup-python" in step.get("uses", "")}
    assert used - {"${{ matrix.python }}"} <= set(PYTHONS)


@pytest.mark.parametrize("command", [run for _, run in COMMANDS], ids=[name for name, _ in COMMANDS])
def test_what_a_workflow_runs_is_there(command):
    for module in re.findall(r"-m ((?:scripts|tests)\.[\w.]+)", command):
        path = root.joinpath(*module.split("."))
        assert path.with_suffix(".py").exists() or path.is_dir()
    for path in re.findall(r"(?:^|[ =])((?:scripts|tests|\.ci)/[\w/.]+)", command):
        assert (root / path).exists(), path
    targets = re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.M)
    assert set(re.findall(r"^make ([a-z-]+)", command)) <= set(targets)
    for code in re.findall(r'-c "([^"]+)"', command): ast.parse(code)


def test_every_workflow_has_steps():
    assert set(WORKFLOWS) == {"test", "weekly", "pages", "publish"} and len(COMMANDS) > 10


def test_the_devcontainer_sets_up_by_the_script():
    told = json.loads((root / ".devcontainer" / "devcontainer.json").read_text())
    assert (root / told["postCreateCommand"].split()[1]).exists() and told["containerEnv"]["CPU"] == "1"
    base = (root / ".devcontainer" / "Dockerfile").read_text()
    assert re.match(r"FROM python:(3\.\d+)-", base)[1] in PYTHONS


class Answer:
    def __enter__(self): return self
    def __exit__(self, *error): pass


def asks(request, timeout):
    "A web with a page that is there, one that is gone, one that wants no robots, and no other site."
    where = request.full_url
    if where.endswith("/there"): return Answer()
    if where.endswith("/gone"): raise HTTPError(where, 404, "", {}, None)
    if where.endswith("/robots"): raise HTTPError(where, 403, "", {}, None)
    raise URLError("no such host")


def test_links_that_lead_nowhere_are_listed(monkeypatch, capsys):
    text = "[a](https://x.org/there#part), [b](https://x.org/gone) <https://x.org/robots>. https://y.org/z."
    monkeypatch.setattr(links, "texts", lambda: [("page", text)])
    assert links.main(asks) == 1
    assert capsys.readouterr().out.splitlines() == [
        "404: https://x.org/gone (page)", "no such host: https://y.org/z (page)", "4 links, 2 lead nowhere"]


def test_links_of_the_course_are_found():
    found = links.links(links.texts())
    assert len(found) > 100 and not [link for link in found if re.search(r"[\s)>]", link)]
