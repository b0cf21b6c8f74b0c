"A JupyterLab on a loopback port and a headless Chromium, for the tests that need them."
import json, os, re, secrets, shutil, socket, subprocess, time, urllib.request
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from course_lm.lab import command, environment

chromium_flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                  "--disable-component-update", "--disable-sync", "--no-first-run"]
NOBODY = "http://127.0.0.1:9"  # nobody listens there: what asks the network through it is refused at once


def find_chromium() -> str | None:
    "The one that COURSE_LM_CHROMIUM names, or the first on the path."
    names = "chromium", "chromium-browser", "google-chrome"
    return os.environ.get("COURSE_LM_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def no_browser() -> str:
    "Why no page can be opened here, in one line; empty where one can."
    if not find_spec("playwright"): return 'no playwright: pip install ".[browser]"'
    return "" if find_chromium() else "no Chromium: install one, or name it in COURSE_LM_CHROMIUM"


@contextmanager
def open_chromium():
    "A browser, until the end of the block."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=find_chromium(), args=chromium_flags)
        try: yield browser
        finally: browser.close()


class Lab:
    "A running JupyterLab: its address, and what it answers."

    def __init__(self, address: str, token: str, root: Path):
        self.address, self.token, self.root = address, token, root

    def ask(self, path: str, method: str = "GET"):
        request = urllib.request.Request(f"{self.address}/api/{path}", method=method,
                                         headers={"Authorization": f"token {self.token}"})
        with urllib.request.urlopen(request, timeout=20) as answer: return json.loads(answer.read() or "null")

    def state(self, path: str) -> str:
        "Of a notebook's kernel: idle, busy, starting, dead; empty before there is one."
        kernels = [s["kernel"] for s in self.ask("sessions") if s["path"] == path]
        return kernels[0]["execution_state"] if kernels else ""

    def url(self, path: str) -> str:
        "A workspace of its own for a notebook."
        space = re.sub(r"\W", "-", path)
        return f"{self.address}/lab/workspaces/{space}/tree/{path}?reset&token={self.token}"

    def stop(self, path: str) -> None:
        "The kernel of a notebook."
        for s in self.ask("sessions"):
            if s["path"] == path: self.ask(f"sessions/{s['id']}", "DELETE")


def settings(folder: Path, theme: str, whole: bool) -> None:
    "A user's settings: this theme; `whole`: cells out of sight are in the page as well. No news: by the lab."
    said = {"apputils-extension/themes": {"theme": f"JupyterLab {theme}", "adaptive-theme": False}}
    if whole: said["notebook-extension/tracker"] = dict(windowingMode="none")
    for name, values in said.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


@contextmanager
def running_lab(root: Path, config: Path, page: str = "", theme: str = "Light", whole: bool = False):
    "What `course_lm lab` starts, in the folder `root`, until the end of the block; its log is in `config`."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    settings(config / "settings", theme, whole)
    token, log = secrets.token_hex(8), config / "lab.log"
    proxies = {name: NOBODY for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    env = environment(root) | proxies | dict(
        JUPYTER_CONFIG_DIR=str(config / "config"), JUPYTERLAB_SETTINGS_DIR=str(config / "settings"),
        JUPYTERLAB_WORKSPACES_DIR=str(config / "spaces"), no_proxy="127.0.0.1", NO_PROXY="127.0.0.1")
    options = ["--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={token}", "--allow-root"]
    with open(log, "w") as out:
        server = subprocess.Popen([*command(root, page, False), *options], env=env, stdout=out, stderr=out,
                                  cwd=root)
        lab = Lab(f"http://127.0.0.1:{port}", token, root)
        try:
            for _ in range(240):
                if server.poll() is not None: raise RuntimeError(log.read_text()[-3000:])
                try:
                    lab.ask("status")
                    break
                except OSError: time.sleep(.5)
            yield lab
        finally:
            server.terminate()
            server.wait(30)


def open_page(browser, lab: Lab, path: str, **options):
    "A notebook in JupyterLab, its kernel idle."
    page = browser.new_page(**dict(viewport=dict(width=1300, height=1100)) | options)
    page.set_default_timeout(300_000)
    page.goto(lab.url(path))
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    for _ in range(600):
        accept(page)
        if lab.state(path) == "idle": return page
        page.wait_for_timeout(500)
    raise RuntimeError(f"no kernel for {path}")


def accept(page) -> None:
    "JupyterLab may ask which kernel while the first is still starting."
    button = page.locator(".jp-Dialog button.jp-mod-accept")
    if button.count(): button.first.click()


def choose(page, menu: str, item: str) -> None:
    "An entry of JupyterLab's menu."
    page.get_by_role("menuitem", name=menu, exact=True).first.click()
    page.get_by_role("menuitem", name=item, exact=True).click()


def run_all(page) -> None:
    choose(page, "Run", "Run All Cells")
    page.wait_for_timeout(1000)
    accept(page)


def wait_until_idle(page, lab: Lab, path: str, limit: int) -> bool:
    """Wait until a kernel has had nothing to do for some seconds, and no cell in sight waits for it: a page
    without a processor sends its cells late. False where `limit` seconds were too few."""
    quiet, end = 0, time.monotonic() + limit
    while quiet < 3 and time.monotonic() < end:
        page.wait_for_timeout(1000)
        state, waits = lab.state(path), page.locator(".jp-InputPrompt", has_text="[*]").count()
        quiet = quiet + 1 if state == "dead" or state == "idle" and not waits else 0
    return quiet >= 3


def save(page, file: Path) -> dict:
    "The notebook as it is on the page now."
    before = file.stat().st_mtime_ns
    page.locator("[data-command='docmanager:save']").first.click()
    for _ in range(120):
        if file.stat().st_mtime_ns != before: break
        page.wait_for_timeout(250)
    page.wait_for_timeout(500)
    return json.loads(file.read_text(encoding="utf-8"))
