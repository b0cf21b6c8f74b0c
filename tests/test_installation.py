"""What installing means: which Pythons, which packages, and that every import is declared."""
import ast, os, re, runpy, subprocess, sys
from configparser import ConfigParser

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from scripts.house import House, parse
from scripts.lessons import root

ini = ConfigParser()
ini.read(root / "settings.ini", encoding="utf-8")
cfg = ini["DEFAULT"]
PYTHONS = [f"3.{minor}" for minor in range(int(cfg["min_python"][2:]), int(cfg["max_python"][2:]) + 1)]
# what is imported under another name than it is installed by
DISTRIBUTIONS = {"sklearn": "scikit-learn", "IPython": "ipython", "bs4": "beautifulsoup4", "yaml": "pyyaml",
                 "axe_playwright_python": "axe-playwright-python"}
OURS = {"course_lm", "scripts", "tests", "benchmarks", "runs", "setup"}
# who imports -> the lists that have it
MAY_USE = {
    "course_lm/": [""],
    "nbs/": ["", "lessons_"],
    "scripts/site/": ["site_", "dev_", ""],
    "scripts/jupyter.py": ["browser_", "dev_", ""],
    "scripts/": ["dev_", ""],
    "tests/browser/": ["browser_", "dev_", ""],
    "tests/site/": ["browser_", "site_", "dev_", ""],
    "tests/": ["dev_", ""],
    "benchmarks/": ["bench_", "dev_", ""],
    "runs/": ["dev_", ""],
}


def requirements(*extras: str) -> set[str]:
    "Names that these lists of settings.ini have."
    lists = [cfg[f"{extra}requirements"].split() for extra in extras]
    return {Requirement(r).name.lower().replace("_", "-") for found in lists for r in found}


def third_party(source: str) -> set[str]:
    "Names of the packages that a source imports, wherever in it, but for Python's own and ours."
    found = set()
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.Import): found |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level: found.add(node.module.split(".")[0])
    names = found - set(sys.stdlib_module_names) - OURS
    return {DISTRIBUTIONS.get(name, name).lower().replace("_", "-") for name in names}


def imported() -> dict[str, set[str]]:
    "Who imports -> what: modules of the library, cells of the notebooks, other Python files."
    house, found = House(), {}
    for s in house.sources:
        place = dict(module=f"course_lm/{s.module}", file=s.room).get(s.kind, f"nbs/{s.room}")
        found.setdefault(place, set()).update(third_party(s.text))
    return found


def test_every_import_is_declared():
    wrong = []
    for place, names in imported().items():
        who = next((folder for folder in MAY_USE if place.startswith(folder)), None)
        lists = MAY_USE[who] if who else ["dev_", ""]
        wrong += [f"{place}: {name}" for name in sorted(names - requirements(*lists))]
    assert not wrong, "not in settings.ini: " + ", ".join(wrong)


def test_nothing_is_declared_that_nobody_imports():
    used = set().union(*imported().values())
    library = set().union(*(names for place, names in imported().items() if place.startswith("course_lm/")))
    # fastai needs a version of plum that can be told only by naming it
    assert requirements("") - library - {"plum-dispatch"} == set()
    assert requirements("lessons_") <= requirements("dev_") & used


def test_an_import_that_is_not_declared_is_seen():
    inside = "import os\ndef f():\n    from sklearn.svm import SVC\n    import yaml.x, course_lm.data"
    assert third_party(inside) == {"scikit-learn", "pyyaml"}
    assert third_party("!ls\nfrom .a import b\nimport numpy as np") == {"numpy"}


def setup_script(monkeypatch, version=(3, 12)):
    "What setup.py hands to setuptools, and what its functions are."
    import setuptools
    handed = {}
    monkeypatch.setattr(setuptools, "setup", lambda **kw: handed.update(kw))
    monkeypatch.setattr(sys, "version_info", version)
    return runpy.run_path(str(root / "setup.py"), run_name="__main__"), handed


def test_setup_knows_the_pythons_of_settings(monkeypatch):
    _, handed = setup_script(monkeypatch)
    allowed = SpecifierSet(handed["python_requires"])
    assert [f"3.{m}" for m in range(9, 20) if allowed.contains(f"3.{m}.1")] == PYTHONS
    named = [c.split()[-1] for c in handed["classifiers"] if re.search(r"Python :: 3\.\d+$", c)]
    assert named == PYTHONS
    assert {"lessons", "dev", "site", "browser", "bench", "real"} == set(handed["extras_require"])


@pytest.mark.parametrize("version, said", [
    ((3, 10, 2), "course_lm needs Python 3.11 or newer, and this is 3.10."),
    ((3, 15, 0), "course_lm needs Python 3.14 or older, and this is 3.15: datasets needs dill, "
                 "and dill 0.4.1 fails on Python 3.15.")])
def test_another_python_is_refused_in_a_sentence(monkeypatch, version, said):
    with pytest.raises(SystemExit, match=re.escape(said)): setup_script(monkeypatch, version)


@pytest.mark.parametrize("version", PYTHONS)
def test_constraints_pin_each_requirement_once_on_each_python(version):
    "For a Linux, a Mac and a Windows."
    lines = [line for line in (root / "constraints.txt").read_text().splitlines() if "==" in line]
    for system, platform, machine in (("posix", "linux", "x86_64"), ("posix", "darwin", "arm64"),
                                      ("nt", "win32", "AMD64")):
        env = dict(python_version=version, python_full_version=f"{version}.6", os_name=system,
                   sys_platform=platform, platform_machine=machine, implementation_name="cpython")
        pinned = [Requirement(line) for line in lines]
        names = [r.name for r in pinned if r.marker is None or r.marker.evaluate(env)]
        assert len(names) == len(set(names)), "two pins for one package"
        wanted = requirements("", "lessons_", "dev_", "browser_", "bench_", "site_")
        assert wanted <= set(names), wanted - set(names)


def test_pages_name_the_pythons_of_settings():
    span = f"Python {PYTHONS[0]} to {PYTHONS[-1]}"
    for page in ("README.md", "CONTRIBUTING.md", "constraints.txt"): assert span in (root / page).read_text()


@pytest.fixture
def ways(monkeypatch, tmp_path):
    "The commands that set-up would run where these tools are there: `ways(uv, wheels, **how)`."
    from scripts import set_up

    def go(uv, wheels, extra="dev", cpu=False, fails=0):
        ran, left = [], [1]*fails

        def run(command, **kw):
            ran.append(command)
            if "compile" in command: return subprocess.CompletedProcess(command, 0 if wheels else 1)
            failed = left.pop() if left and "install" in command else 0
            return subprocess.CompletedProcess(command, failed)
        monkeypatch.setattr(set_up.subprocess, "run", run)
        monkeypatch.setattr(set_up.shutil, "which", lambda name, path=None: uv)
        code = set_up.install(tmp_path / ".venv", extra, cpu)
        return code, [command for command in ran if "venv" not in command]
    return go


def kinds(commands): return ["uv" if c[0] == "uv" else "pip" for c in commands]


def test_uv_installs_where_it_is_and_pip_elsewhere_the_same_set(ways):
    (code, [by_uv]), (_, [by_pip]) = ways("uv", True), ways(None, True)
    assert code == 0 and kinds([by_uv, by_pip]) == ["uv", "pip"]
    for command in (by_uv, by_pip):
        assert str(root / "constraints.txt") in command and command[-1].endswith("[dev]")
        assert not any("//" in word for word in command), "no address of a registry"


def test_the_newest_versions_are_had_without_constraints(ways, monkeypatch):
    monkeypatch.setenv("NEWEST", "1")
    for uv in ("uv", None):
        _, [command] = ways(uv, True)
        assert "--constraint" not in command and command[-1].endswith("[dev]")


def test_pip_goes_on_where_uv_could_not(ways):
    code, commands = ways("uv", True, fails=1)
    assert code == 0 and kinds(commands) == ["uv", "pip"]
    code, commands = ways("uv", True, fails=2)
    assert code == 1 and kinds(commands) == ["uv", "pip"]


def test_wheels_for_cpus_where_they_can_be_had(ways, capsys):
    code, (asked, by_uv) = ways("uv", True, cpu=True)
    assert by_uv[-2:] == ["--torch-backend", "cpu"] and capsys.readouterr().out == ""
    code, (asked, by_uv) = ways("uv", False, cpu=True)
    said = capsys.readouterr().out
    assert code == 0 and "--torch-backend" not in by_uv
    assert said.count("\n") == 1 and "cannot be reached" in said


def test_uv_is_fetched_for_them_where_it_is_not_there(ways):
    code, (fetch, by_pip) = ways(None, True, cpu=True)
    assert fetch[-1] == "uv" and kinds([fetch, by_pip]) == ["pip", "pip"]
    assert by_pip[-1].endswith("[dev]")


def test_set_up_refuses_another_python():
    from scripts import set_up
    assert set_up.refusal((3, 12, 1)) == "" and "3.15: datasets needs dill" in set_up.refusal((3, 15, 0))


@pytest.mark.parametrize("script, word, said", [("run_course", "8", "no such lesson: 8"),
                                                ("set_up", "gpu", "no list 'gpu' in settings.ini")])
def test_scripts_run_by_their_path_from_anywhere(script, word, said, tmp_path):
    "As on Windows, without make."
    command = [sys.executable, str(root / "scripts" / f"{script}.py"), word]
    env = os.environ | {"PYTHONPATH": ""}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)
    assert done.returncode and said in done.stderr, done.stderr
