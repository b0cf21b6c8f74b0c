"`course_lm.cli`: a report of any machine, however broken, and the command."
import platform, sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from course_lm import cli
from course_lm.cli import doctor
from course_lm.support.files import whole_folder
from course_lm.support.machine import cache_path, hub_names


def test_cache_dir_is_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_LM_CACHE", str(tmp_path / "a" / "b"))
    report = doctor().set_index("check")
    assert cache_path() == tmp_path / "a" / "b" and cache_path().is_dir() and report.ok["cache folder"]
    monkeypatch.setenv("COURSE_LM_CACHE", "")
    monkeypatch.setattr(cli.Path, "home", lambda: tmp_path)
    assert cache_path() == tmp_path / ".cache" / "course_lm"


def test_doctor_asks_nobody(no_network):
    report = doctor()
    assert not report.value.eq("stopped").any() and report.check.is_unique
    assert {"python", "torch", "GPU"} <= set(report.check)


def test_doctor_reports_a_broken_machine(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_LM_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "psutil", None)
    real = metadata.version
    def version(name):
        if name == "accelerate": raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "datasets" else real(name)
    monkeypatch.setattr(metadata, "version", version)
    report = doctor().set_index("check")
    hints = {"cache folder": "set COURSE_LM_CACHE to a folder you may write to", "accelerate": "pip install",
             "threads": "torch cannot be imported", "datasets": "pip install"}
    for check, hint in hints.items():
        assert report.ok[check] is False and hint in report.hint[check], check
    assert cli.main(["doctor"]) == 1


def test_doctor_never_raises(monkeypatch):
    def broken(*args):
        raise RuntimeError("odd machine")
        yield
    for name in ("_machine_checks", "_packages", "_assets"): monkeypatch.setattr(cli, name, broken)
    assert doctor().hint.tolist() == ["RuntimeError: odd machine"] * 3


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
    monkeypatch.setattr(cli, "_on_hub", lambda kind, name: kind == "dataset")
    asked = look(network=True)
    assert asked["dataset Salesforce/wikitext"] == "on the hub"
    assert asked["model distilbert/distilbert-base-uncased"] == "not reachable"


def test_doctor_knows_the_real_models(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_LM_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    def look(**kw): return doctor(**kw).set_index("check").value
    assert look()["model smollm2"] == look()["model minilm"] == "not on this machine"
    monkeypatch.setattr(cli, "_on_hub", lambda kind, name: name == hub_names["smollm2"])
    assert look(network=True)["model smollm2"] == "on the hub"
    with whole_folder(tmp_path / "models" / "minilm") as new: (new / "config.json").write_text("{}")
    assert look()["model minilm"] == "on this machine" and look()["model smollm2"] == "not on this machine"


def test_command(capsys):
    assert cli.main([]) == 0 and "doctor" in capsys.readouterr().out
    assert cli.main(["doctor"]) in (0, 1) and "checks, " in capsys.readouterr().out.splitlines()[-1]
    for words, status in ((["--version"], 0), (["nonsense"], 2), (["doctor", "--nonsense"], 2)):
        with pytest.raises(SystemExit) as stop: cli.main(words)
        assert stop.value.code == status
    assert capsys.readouterr().out.startswith(f"course_lm {metadata.version('course_lm')}")


def test_a_report_for_a_bug_report(capsys):
    cli.main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    version, system, python = ([*line.split(maxsplit=2)] for line in lines[:3])
    assert version == ["ok", "course_lm", metadata.version("course_lm")]
    assert system[1] == "platform" and platform.system() in system[2]
    assert python[1:] == ["python", platform.python_version()]
    assert not any(str(Path.home()) in line or platform.node() in line for line in lines if platform.node())


def test_a_terminal_report():
    rows = [("python", "3.11.7", True, ""), ("torch", "missing", False, 'pip install "torch>=2.9"'),
            ("GPU", "none", None, "")]
    small = pd.DataFrame(rows, columns=["check", "value", "ok", "hint"])
    text = cli.format_report(small).splitlines()
    assert text[1:3] == ["MISSING   torch   missing", '          pip install "torch>=2.9"']
    assert text[-1] == "3 checks, 1 missing, 1 optional" and len(text) == 5
    assert cli.format_report(small[:0]) == "0 checks, 0 missing, 0 optional"
    assert cli.format_report(small.astype({"ok": object}).fillna(np.nan)).splitlines() == text
    with pytest.raises(TypeError, match="network='yes' must be True or False"): doctor(network="yes")
