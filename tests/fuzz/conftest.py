"""The world of the fuzzer, made once for its tests."""
import os
from pathlib import Path

import pytest

from tests.fuzz.calls import all_calls
from tests.fuzz.world import world


@pytest.fixture(scope="package")
def w(tmp_path_factory):
    before = Path.cwd()
    folder = tmp_path_factory.mktemp("world")
    os.chdir(folder)
    yield world(folder)
    os.chdir(before)


@pytest.fixture(scope="package")
def calls(w): return all_calls(w)
