"The pages of `_site/` in a headless Chromium: `make site-test`, after `make site`."
import functools, http.server, json, os, re, shutil, threading
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import pytest
from bs4 import BeautifulSoup

root = Path(__file__).resolve().parents[2]
site, shots = root / "_site", root / "_run" / "site"
pages = sorted(p.relative_to(site).as_posix() for p in site.rglob("*.html"))
read = [p for p in pages if p not in ("genindex.html", "search.html") and "_static" not in p]
TERMS = ["perplexity", "chunk", "collator", "masked", "tokenizer", "checkpoint", "smoothing", "entropy",
         "padding", "calibration"]


@pytest.fixture(scope="session")
def report():
    "What was asked and what axe found; kept in _run/site/report.json, beside the pictures."
    told = dict(pages=0, requests=0, outside=[], console=[], axe={})
    shots.mkdir(parents=True, exist_ok=True)
    yield told
    (shots / "report.json").write_text(json.dumps(told, indent=1))


@pytest.fixture(scope="session")
def address():
    assert pages, "there is no _site: run `make site` first"
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    handler = functools.partial(Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright
    named = os.environ.get("COURSE_LM_CHROMIUM")
    there = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    path = named or next(filter(None, there), None)
    if not path: pytest.skip("no Chromium on the path, and none named in COURSE_LM_CHROMIUM")
    with sync_playwright() as p:
        flags = ["--headless", "--no-sandbox", "--disable-gpu"]
        browser = p.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def visit(chromium, address, report):
    "Open a page at a width; what it asked of other machines, and what its console complained of."
    def go(page, width=1300, theme="light"):
        context = chromium.new_context(viewport=dict(width=width, height=900), color_scheme=theme)
        tab, outside, errors = context.new_page(), [], []
        report["pages"] += 1
        def asked(request):
            report["requests"] += 1
            if not request.url.startswith((address, "data:", "blob:")):
                outside.append(request.url)
                report["outside"].append(f"{page}: {request.url}")
        def said(message):
            if message.type == "error":
                errors.append(message.text)
                report["console"].append(f"{page}: {message.text}")
        tab.on("request", asked)
        tab.on("console", said)
        tab.on("pageerror", lambda e: errors.append(str(e)))
        tab.goto(address + page)
        tab.wait_for_load_state("load")
        return tab, outside, errors
    return go


@functools.cache
def tree(page): return BeautifulSoup((site / page).read_bytes(), "html.parser")


@functools.cache
def anchors(page):
    return {e["id"] for e in tree(page).find_all(id=True)}


def test_every_link_and_anchor_inside_the_site_lands():
    lost = []
    for page in read:
        for a in tree(page).find_all("a"):
            href = a.get("href")
            if not href or urlparse(href).scheme or href.startswith("//"): continue
            target, anchor = urldefrag(unquote(urljoin(page, href)))
            if not (site / target).exists(): lost.append(f"{page}: {href}")
            elif anchor and target.endswith(".html") and anchor not in anchors(target):
                lost.append(f"{page}: {href}")
    assert not lost, f"{len(lost)} lost: " + "\n".join(lost[:30])


def test_every_picture_has_a_text():
    lacking = [f"{page}: {i.get('src')}" for page in read for i in tree(page).find_all("img")
               if not (i.get("alt") or "").strip() or i.get("alt").startswith("../_images")]
    assert not lacking, "\n".join(lacking[:30])


@pytest.mark.parametrize("page", read)
def test_a_page_opens_without_complaint_and_asks_nobody(visit, page):
    tab, outside, errors = visit(page, width=390)
    wide = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    tab.context.close()
    assert (outside, errors) == ([], [])
    assert wide <= 0, f"{wide} pixels wider than a phone"


@pytest.mark.parametrize("term", TERMS)
def test_search_finds(visit, term):
    tab, outside, _ = visit(f"search.html?q={term}")
    tab.wait_for_function("document.querySelectorAll('#search-results li a').length > 0", timeout=20000)
    tab.context.close()
    assert not outside


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("page", ["index.html", "20_chunking.html", "40_perplexity.html",
                                  "99_command_line.html", "api/chunking.html"])
def test_no_serious_violation_of_accessibility(visit, report, page, theme):
    from axe_playwright_python.sync_playwright import Axe
    tab, *_ = visit(page, theme=theme)
    tab.screenshot(path=shots / f"{page.replace('/', '_').removesuffix('.html')}-{theme}.png")
    # preloading asks for a style sheet's imports in the wrong folder
    answer = Axe().run(tab, options={"preload": False}).response
    found = answer["violations"]
    counts = {v["id"]: f"{v['impact']}, {len(v['nodes'])}" for v in found}
    report["axe"][f"{page} {theme}"] = dict(passes=len(answer["passes"]), **counts)
    tab.context.close()
    serious = [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found
               if v["impact"] in ("serious", "critical")]
    assert not serious


def test_formulas_are_drawn(visit):
    tab, *_ = visit("40_perplexity.html")
    tab.wait_for_function("document.querySelectorAll('mjx-container').length > 0", timeout=20000)
    left = re.findall(r"\$\$|\\frac", tab.inner_text("article"))
    tab.context.close()
    assert not left
