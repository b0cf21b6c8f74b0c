"JupyterLab on a loopback port and a headless Chromium, once for all widget tests: `make widgets`."
import json
from pathlib import Path

import pytest

from scripts.jupyter import no_browser, open_chromium, open_page, run_all, running_lab
from scripts.lab_test import learner

shots = Path(__file__).resolve().parents[2] / "_run" / "widgets"


@pytest.fixture(scope="session")
def browser():
    if why := no_browser(): pytest.fail(why)
    with open_chromium() as chromium: yield chromium


@pytest.fixture(scope="session", params=["Light", "Dark"])
def theme(request): return request.param


@pytest.fixture(scope="session")
def lab(tmp_path_factory, theme):
    "A JupyterLab in a theme, in a repository as a learner has it."
    folder = tmp_path_factory.mktemp(theme)
    with running_lab(learner(folder / "repo"), folder, theme=theme, whole=True) as lab: yield lab


@pytest.fixture(scope="session")
def open_lesson(lab, browser, theme):
    """A function that opens a learner's copy of a lesson, without the cells behind the widget's, runs all of
    it, and returns the widget's cell, in sight; each lesson once."""
    pages = {}
    def shorten(file: Path, widget: str) -> None:
        nb = json.loads(file.read_text(encoding="utf-8"))
        last = next(i for i, c in enumerate(nb["cells"]) if widget in "".join(c["source"])
                    and c["cell_type"] == "code")
        nb["cells"] = nb["cells"][:last + 1]
        for cell in nb["cells"]:
            if cell["cell_type"] == "code": cell.update(outputs=[], execution_count=None)
        file.write_text(json.dumps(nb), encoding="utf-8")
    def go(name: str, widget: str):
        path = f"work/{name}.ipynb"
        if name not in pages:
            shorten(lab.root / path, widget)
            pages[name] = page = open_page(browser, lab, path)
            run_all(page)
        cell = pages[name].locator(".jp-CodeCell").last
        cell.locator(".jp-OutputArea-output .jupyter-widgets").first.wait_for(timeout=600_000)
        cell.scroll_into_view_if_needed()
        return cell.locator(".jp-OutputArea-output", has=pages[name].locator(".jupyter-widgets")).first
    yield go
    for page in pages.values(): page.close()
