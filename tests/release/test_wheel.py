"The wheel carries the models, and works where there is nothing else and no network."
import sys, zipfile

import pytest

from tests.release import try_wheel


@pytest.mark.release
def test_the_wheel_carries_the_models_and_needs_no_network(tmp_path):
    wheel = try_wheel.build(tmp_path)
    names = set(zipfile.ZipFile(wheel).namelist())
    for file in ("python_docs.txt", "python_docs.LICENSE.txt"): assert f"course_lm/texts/{file}" in names
    for model in ("tiny-gpt", "tiny-bert"):
        for file in ("model.safetensors", "config.json", "tokenizer.json", "README.md", "home.json"):
            assert f"course_lm/pretrained/{model}/{file}" in names
    assert {"course_lm/texts/python_docs.txt", "course_lm/texts/python_docs.LICENSE.txt"} <= names
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    said = try_wheel.use(sys.executable, tmp_path / "site", PYTHONPATH=str(tmp_path / "site"))
    assert "writes:" in said and "fills:" in said and "classifies" in said
