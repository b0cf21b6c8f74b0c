"JupyterLab on a loopback port and a headless Chromium, once for all widget tests: `make widgets`."
import json, os, shutil, socket, subprocess, sys, time, urllib.request
from pathlib import Path

import pytest

root = Path(__file__).resolve().parents[2]
chromium_flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                  "--disable-component-update", "--disable-sync", "--no-first-run"]


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    "The address of a JupyterLab, and the folder it serves."
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = os.environ | dict(PYTHONPATH=str(root), HF_HUB_OFFLINE="1",
                            JUPYTER_CONFIG_DIR=str(folder / ".jupyter"),
                            JUPYTERLAB_SETTINGS_DIR=str(folder / ".settings"))
    settings = folder / ".settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings
     / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    log = open(folder / "lab.log", "w")
    server = subprocess.Popen([sys.executable, "-m", "jupyter", "lab", "--no-browser", f"--port={port}",
                               "--ip=127.0.0.1", "--IdentityProvider.token=", "--allow-root",
                               "--LabApp.news_url=",
                               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
                               f"--ServerApp.root_dir={folder}"],
                              env=env, stdout=log, stderr=log, cwd=folder)
    address = f"http://127.0.0.1:{port}"
    for _ in range(240):
        if server.poll() is not None: pytest.fail((folder / "lab.log").read_text()[-3000:])
        try:
            urllib.request.urlopen(f"{address}/api/status", timeout=2).read()
            break
        except OSError: time.sleep(0.5)
    yield address, folder
    server.terminate()
    server.wait(20)


@pytest.fixture(scope="session")
def browser():
    "A headless Chromium: the one that COURSE_LM_CHROMIUM names, or the first on the path."
    from playwright.sync_api import sync_playwright
    path = os.environ.get("COURSE_LM_CHROMIUM") or next(filter(None,
                                                               map(shutil.which,
                                                                   ("chromium", "chromium-browser",
                                                                    "google-chrome"))), None)
    if not path: pytest.fail("no Chromium found: install one, or name it in COURSE_LM_CHROMIUM")
    with sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=path, args=chromium_flags)
        yield chromium
        chromium.close()


@pytest.fixture
def open_notebook(lab, browser):
    """A function that writes a notebook of these cells, opens it in JupyterLab, runs it all and returns the
    page."""
    address, folder = lab
    pages = []
    def run(name: str, *sources: str):
        cells = [dict(cell_type="code", id=f"c{i}", metadata={}, source=s, outputs=[], execution_count=None)
                 for i, s in enumerate(sources)]
        meta = dict(kernelspec=dict(name="python3", display_name="Python 3", language="python"))
        (folder / f"{name}.ipynb").write_text(json.dumps(dict(cells=cells, metadata=meta, nbformat=4,
                                                              nbformat_minor=5)))
        page = browser.new_page(viewport=dict(width=1300, height=1100))
        pages.append(page)
        page.goto(f"{address}/lab/workspaces/{name}/tree/{name}.ipynb?reset", timeout=120_000)
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=120_000)
        accept = page.locator(".jp-Dialog button.jp-mod-accept")
        for _ in range(20):  # JupyterLab may ask which kernel while the first is still starting
            page.wait_for_timeout(1000)
            if accept.count(): accept.first.click()
            elif page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").count(): break
        page.wait_for_timeout(1000)
        if accept.count(): accept.first.click()
        page.get_by_role("menuitem", name="Run", exact=True).first.click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.wait_for_timeout(1000)
        if accept.count(): accept.first.click()
        page.wait_for_selector(".jp-OutputArea-output .jupyter-widgets", timeout=120_000)
        return page
    yield run
    for page in pages: page.close()
