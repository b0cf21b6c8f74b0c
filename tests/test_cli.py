"`course_lm.cli`: a report of any machine, however broken, and the command."
import os, platform, shutil, subprocess, sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from course_lm import cli
from course_lm.cli import doctor
from course_lm.support.files import whole_folder
from course_lm.support.machine import hub_names


def test_doctor_asks_nobody(no_network):
    report = doctor()
    assert not report.value.eq("stopped").any() and report.check.is_unique
    assert {"python", "torch", "GPU"} <= set(report.check)


def test_doctor_reports_a_broken_machine(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "psutil", None)
    real = metadata.version
    def version(name):
        if name in ("accelerate", "jupyterlab"): raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "datasets" else real(name)
    monkeypatch.setattr(metadata, "version", version)
    report = doctor().set_index("check")
    hints = {"accelerate": "pip install", "threads": "torch cannot be imported", "datasets": "pip install"}
    for check, hint in hints.items():
        assert report.ok[check] is False and hint in report.hint[check], check
    assert report.ok["jupyterlab"] is None and "[dev]" in report.hint["jupyterlab"]
    assert cli.main(["doctor"]) == 1


def row(check):
    "What doctor says of one thing: value, ok, hint."
    return next((value, ok, hint) for name, value, ok, hint in cli._rows(False) if name == check)


@pytest.mark.parametrize("version, ok", [((3, 9, 18), False), ((3, 15, 2), False), ((3, 12, 1), True)])
def test_doctor_finds_a_wrong_python(monkeypatch, version, ok):
    class Ours: # what an installed course_lm says of itself
        def __getitem__(self, name): return ">=3.11,<3.15" if name == "Requires-Python" else None
    monkeypatch.setattr(metadata, "metadata", lambda name: Ours())
    monkeypatch.setattr(cli.sys, "version_info", (*version, "final", 0))
    [(name, value, found, hint)] = cli._python_check()
    assert found is ok and value == ".".join(map(str, version))
    assert "the course needs Python >=3.11, <3.15" in hint


def test_doctor_finds_packages_that_quarrel_and_pins_that_are_broken(tmp_path, monkeypatch):
    assert row("dependencies")[:2] == ("agree", True)
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.1" if name == "safetensors" else real(name))
    value, ok, hint = row("dependencies")
    assert ok is False and "needs safetensors" in value and value.endswith("found 0.1")
    assert hint.startswith('pip install "safetensors')
    lines = [f"numpy=={real('numpy')}", "pandas==0.1 ; python_version > '3'", "",
             "torch==0.1 ; python_version < '3'"]
    (tmp_path / "constraints.txt").write_text("# a set\n" + "\n".join(lines))
    monkeypatch.setattr(cli, "checkout", lambda: tmp_path)
    value, ok, hint = row("pins")
    assert (value, ok) == (f"pandas {real('pandas')}", None) and "constraints.txt" in hint
    (tmp_path / "constraints.txt").write_text(lines[0])
    assert row("pins") == ("as in constraints.txt", True, "")


@pytest.mark.parametrize("check, variable", [("temporary folder", "TMPDIR"), ("hub cache", "HF_HOME"),
                                             ("cache folder", "COURSE_LM_CACHE")])
def test_doctor_finds_a_full_disk(tmp_path, monkeypatch, check, variable):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "not" / "yet"))
    monkeypatch.setenv("COURSE_LM_CACHE", str(tmp_path / "not" / "here"))
    assert row(check)[1] is True
    full = shutil._ntuple_diskusage(9, 9, 2**29)
    monkeypatch.setattr(cli.shutil, "disk_usage", lambda place: full)
    value, ok, hint = row(check)
    assert ok is False and "0.5 GB free" in value and variable in hint
    assert not (tmp_path / "not").exists()  # looking makes nothing


def test_doctor_finds_too_many_threads(monkeypatch):
    import torch
    monkeypatch.setattr(cli, "usable_cores", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert row("threads")[1] is True
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    value, ok, hint = row("threads")
    assert value.startswith("64 on 2 of ") and ok is False and "export OMP_NUM_THREADS=2" in hint


def test_doctor_misses_a_browser(monkeypatch):
    def none(*using): raise cli.webbrowser.Error("could not locate runnable browser")
    monkeypatch.setattr(cli.webbrowser, "get", none)
    monkeypatch.setattr(cli.shutil, "which", lambda name: "/usr/bin/chromium" if name == "chromium" else None)
    monkeypatch.delenv("COURSE_LM_CHROMIUM", raising=False)
    assert row("browser") == ("chromium", True, "")
    monkeypatch.setattr(cli.shutil, "which", lambda name: None)
    value, ok, hint = row("browser")
    assert (value, ok) == ("none", None) and "prints an address" in hint and "Chromium" in hint


def test_doctor_finds_what_was_half_made(tmp_path, monkeypatch):
    hub, repository = tmp_path / "hub", tmp_path / "repository"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    monkeypatch.setenv("COURSE_LM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cli, "checkout", lambda: repository)
    assert "half-made" not in doctor().check.tolist()
    blobs, part = hub / "models--gpt2" / "blobs", repository / "models" / ".part-mine-0123abcd"
    for folder in (blobs, part): folder.mkdir(parents=True)
    (blobs / "abc.incomplete").write_bytes(b"x" * 2**20)
    (part / "model.safetensors").write_bytes(b"x" * 2**20)
    value, ok, hint = row("half-made")
    assert (value, ok) == ("2 files or folders, 2.0 MB", None)
    assert "abc.incomplete" in hint and ".part-mine-0123abcd" in hint


@pytest.mark.tree
def test_doctor_finds_two_copies_of_the_library(tmp_path, monkeypatch):
    assert "library" not in doctor().check.tolist()
    monkeypatch.setattr(cli, "checkout", lambda: tmp_path)
    assert "two copies of the library" in row("library")[2]
    monkeypatch.setattr(cli, "checkout", lambda: None)
    assert row("repository")[:2] == ("none", None) and "git clone https://" in row("repository")[2]


def test_the_command_needs_no_pandas(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert cli.main(["doctor"]) in (0, 1) and " to fix" in capsys.readouterr().out


def test_doctor_never_raises(monkeypatch):
    def broken(*args):
        raise RuntimeError("odd machine")
        yield
    for name in ("_machine_checks", "_packages", "_assets"): monkeypatch.setattr(cli, name, broken)
    assert doctor().hint.tolist() == ["RuntimeError: odd machine"] * 3
    monkeypatch.undo()
    broken.__name__ = "_memory_check"
    monkeypatch.setattr(cli, "_memory_check", broken)
    report = doctor().set_index("check")
    assert report.value["memory_check"] == "stopped" and {"hub cache", "threads"} <= set(report.index)


def test_doctor_finds_what_was_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    def look(**kw): return doctor(**kw).set_index("check").value
    model, table = "model distilbert/distilgpt2", "dataset stanfordnlp/imdb"
    folder = tmp_path / "models--distilgpt2" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert look()[model] == "not in the hub cache"  # a config without weights is an interrupted download
    (folder / "model.safetensors").write_bytes(b"x")
    (tmp_path / "datasets" / "stanfordnlp___imdb").mkdir(parents=True)
    (tmp_path / "datasets" / "stanfordnlp___imdb" / "train.arrow").write_bytes(b"x")
    assert look()[model] == look()[table] == "in the hub cache"
    monkeypatch.setattr(cli, "on_hub", lambda name: name == "Salesforce/wikitext")
    asked = look(network=True)
    assert asked["dataset Salesforce/wikitext"] == "on the hub"
    assert asked["model distilbert/distilbert-base-uncased"] == "not reachable"


def test_doctor_knows_the_real_models(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_LM_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    def look(**kw): return doctor(**kw).set_index("check").value
    assert look()["model smollm2"] == look()["model minilm"] == "not on this machine"
    monkeypatch.setattr(cli, "on_hub", lambda name: name == hub_names["smollm2"])
    assert look(network=True)["model smollm2"] == "on the hub"
    with whole_folder(tmp_path / "models" / "minilm") as new: (new / "config.json").write_text("{}")
    assert look()["model minilm"] == "on this machine" and look()["model smollm2"] == "not on this machine"


def test_command(capsys):
    assert cli.main([]) == 0 and "doctor" in capsys.readouterr().out
    assert cli.main(["doctor"]) in (0, 1) and "checks, " in capsys.readouterr().out.splitlines()[-2]
    for words, status in ((["--version"], 0), (["nonsense"], 2), (["doctor", "--nonsense"], 2)):
        with pytest.raises(SystemExit) as stop: cli.main(words)
        assert stop.value.code == status
    assert capsys.readouterr().out.startswith(f"course_lm {metadata.version('course_lm')}")


def test_a_report_for_a_bug_report(capsys):
    cli.main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1] == "```"  # as it may be pasted
    version, system, python = ([*line.split(maxsplit=2)] for line in lines[1:4])
    assert version == ["ok", "course_lm", metadata.version("course_lm")]
    assert system[1] == "platform" and platform.system() in system[2]
    assert python[1:] == ["python", platform.python_version()]
    assert not any(str(Path.home()) in line or platform.node() in line for line in lines if platform.node())


def test_a_terminal_report():
    rows = [("python", "3.11.7", True, ""), ("torch", "missing", False, 'pip install "torch>=2.9"'),
            ("GPU", "none", None, "")]
    small = pd.DataFrame(rows, columns=["check", "value", "ok", "hint"])
    text = cli.format_report(small).splitlines()
    assert text[1:3] == ["FIX       torch   missing", '          pip install "torch>=2.9"']
    assert text[-1] == "3 checks, 1 to fix, 1 optional" and len(text) == 5
    assert cli.format_report(small[:0]) == "0 checks, 0 to fix, 0 optional"
    assert cli.format_report(small.astype({"ok": object}).fillna(np.nan)).splitlines() == text
    with pytest.raises(TypeError, match="network='yes' must be True or False"): doctor(network="yes")


HELP = dict(doctor="--network", lab="homework/20", run="lesson 5", site="--open", homework="grade")


@pytest.mark.parametrize("command", HELP)
def test_each_command_has_help_and_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop: cli.main([command, "--help"])
    assert stop.value.code == 0 and HELP[command] in capsys.readouterr().out
    cli.main([])
    assert f"\n  course_lm {command} " in capsys.readouterr().out.split("examples:")[1]


def sentence(capsys, *words):
    "The only line that a command prints when it fails."
    assert cli.main([*words]) == 1
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and err.startswith(f"course_lm {words[0]}: "), (out, err)
    return err


def test_each_command_fails_in_one_sentence(monkeypatch, capsys, tmp_path):
    for command, package in (("lab", "jupyterlab"), ("run", "nbclient"), ("site", "sphinx")):
        monkeypatch.setattr(cli, "find_spec", lambda name, lacking=package: name != lacking)
        assert f'{package} is missing: pip install "course_lm[' in sentence(capsys, command)
    monkeypatch.setattr(cli, "find_spec", lambda name: True)
    assert "lesson='8' is not here; there are 00 01 " in sentence(capsys, "lab", "8")
    monkeypatch.setattr(cli, "checkout", lambda: None)  # only the wheel
    for command in ("lab", "run", "site"):
        said = sentence(capsys, command)
        assert "git clone https://" in said and f"type course_lm {command} in that folder" in said
    assert "lesson=9 has no homework" in sentence(capsys, "homework", "start", str(tmp_path), "--lesson", "9")
    for words in (("check", str(tmp_path / "none.ipynb")), ("grade", str(tmp_path / "none"))):
        sentence(capsys, "homework", *words)


@pytest.mark.parametrize("words", [["docter"], ["lab", "1", "2"], ["homework"], ["site", "--opn"]])
def test_words_it_does_not_know_are_one_line(words, capsys):
    with pytest.raises(SystemExit) as stop: cli.main(words)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1 and "--help says more" in err


def test_run_and_site_hand_over_to_the_repository(monkeypatch, capsys, tmp_path):
    calls, opened = [], []
    monkeypatch.setattr(cli, "checkout", lambda: tmp_path)
    monkeypatch.setattr(cli, "find_spec", lambda name: True)
    monkeypatch.setattr(cli.subprocess, "call", lambda words, cwd: calls.append((words[1:], cwd)) or 0)
    monkeypatch.setattr(cli.webbrowser, "open", opened.append)
    assert cli.main(["run", "20", "5"]) == 0 and cli.main(["site"]) == 0 and not opened
    assert calls == [(["-m", "scripts.run_course", "20", "5"], tmp_path),
                     (["-m", "scripts.site.build"], tmp_path)]
    assert cli.main(["site", "--open"]) == 0 and opened == [(tmp_path / "_site" / "index.html").as_uri()]


def test_stopping_is_no_traceback(monkeypatch, capsys):
    def stopped(*args): raise KeyboardInterrupt
    monkeypatch.setattr(cli, "_rows", stopped)
    assert cli.main(["doctor"]) == 130 and capsys.readouterr() == ("", "")


@pytest.mark.skipif(os.name != "posix", reason="a shell's pipe")
def test_a_reader_that_leaves_is_no_traceback():
    line = f"{sys.executable} -m course_lm doctor | true"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
@pytest.mark.parametrize("typed, found", [("la", "lab"), ("homework g", "grade"), ("doctor -", "--network")])
def test_completion(typed, found, capsys):
    assert cli.main(["completion"]) == 0
    words = ["course_lm", *typed.split()]
    ask = f'COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; _course_lm; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", f"{capsys.readouterr().out}\n{ask}"], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == (found, "")
