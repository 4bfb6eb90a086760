"""The rendered book in a real browser: from disk, offline, on a desktop and a phone, light and dark, by keyboard."""

from __future__ import annotations

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from netatlas.registry import chapter_papers, papers

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
IN_CI = bool(os.environ.get("CI"))
CHAPTERS = sorted(p.stem for p in (ROOT / "chapters").glob("*.py"))
PAGES = ["index", "ledger", "speed", "how_to_read", "references", "contributing", "kernels/index", "kernels/core"]
PAGES += [f"kernels/{c}" for c in CHAPTERS] + [f"chapters/{c}" for c in CHAPTERS]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.book,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(not SITE.exists() and not IN_CI, reason="build/html is not there: make book"),
]
browser_only = pytest.mark.skipif(CHROMIUM is None and not IN_CI, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, "--disable-component-update"])
        yield found
        found.close()


@pytest.fixture
def open_page(browser):
    """Open a page of the site; what it asks of the network and what it logs is kept on the page."""
    contexts = []

    def go(name, width=1280, scheme="light", query=""):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.problems = []
        page.on("console", lambda m: page.problems.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: page.problems.append(str(e)))
        page.on("requestfailed", lambda r: page.problems.append(f"failed: {r.url}"))
        local = ("file:", "data:", "blob:", "about:")
        page.on("request", lambda r: None if r.url.startswith(local) else page.problems.append(f"request: {r.url}"))
        page.goto(f"file://{SITE}/{name}.html{query}")
        page.wait_for_load_state("networkidle")
        return page

    yield go
    for context in contexts:
        context.close()


@browser_only
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_pages_are_quiet_and_fit(open_page, name, width, scheme):
    page = open_page(name, width, scheme)
    if page.locator(".math").count():
        page.wait_for_function("document.querySelectorAll('mjx-container').length > 0", timeout=20_000)
    assert page.problems == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"
    assert page.locator("mjx-merror, [data-mml-node=merror]").count() == 0
    assert page.evaluate("document.documentElement.dataset.theme") == scheme


@browser_only
@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
def test_pictures_have_words_and_no_tex_is_left_raw(open_page, name):
    page = open_page(name)
    silent = "img:not([alt]), .na-figure svg:not([role=img])"
    silent += ", svg[role=img]:not([aria-label], [aria-labelledby], [aria-hidden])"
    assert page.locator(silent).evaluate_all("found => found.map(e => e.outerHTML.slice(0, 120))") == []
    if page.locator(".math").count():
        page.wait_for_function("document.querySelectorAll('mjx-container').length > 0", timeout=20_000)
    text = page.evaluate(
        """() => { const copy = document.querySelector('article').cloneNode(true);
        copy.querySelectorAll('pre, code, mjx-container, svg').forEach(e => e.remove()); return copy.textContent; }"""
    )
    assert not re.search(r"\\\(|\\\[|\$\$|\\frac|\{glue", text)


@browser_only
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_take_their_ink_from_the_theme(open_page, scheme):
    page = open_page("chapters/merging", 1280, scheme)
    colour = page.locator(".na-figure svg").first.evaluate("e => getComputedStyle(e).color")
    channels = [int(c) for c in re.findall(r"\d+", colour)[:3]]
    assert (sum(channels) > 380) == (scheme == "dark"), colour
    ground = page.locator(".na-figure").first.evaluate(
        "e => { while (e && getComputedStyle(e).backgroundColor === 'rgba(0, 0, 0, 0)') e = e.parentElement;"
        " return e ? getComputedStyle(e).backgroundColor : 'rgb(255, 255, 255)'; }"
    )
    assert (sum(int(c) for c in re.findall(r"\d+", ground)[:3]) > 380) == (scheme == "light"), ground


@browser_only
@pytest.mark.browser
def test_the_ledger_sorts_and_filters_by_keyboard(open_page):
    page = open_page("ledger")
    rows = page.locator("#ledger tbody tr")
    total = rows.count()
    assert total >= sum(len(chapter_papers(c)) for c in CHAPTERS)
    heading = page.locator("#ledger th button").nth(1)
    heading.focus()
    for direction in ("ascending", "descending"):
        page.keyboard.press("Enter")
        assert page.locator("#ledger th").nth(1).get_attribute("aria-sort") == direction
        years = rows.locator("td:nth-child(2)").evaluate_all("cells => cells.map(c => c.dataset.sort)")
        assert years == sorted(years, reverse=direction == "descending")
    page.locator("select[data-filter=chapter]").select_option("merging")
    visible = page.locator("#ledger tbody tr:visible")
    assert visible.count() == 3 and "3 of" in page.locator(".na-filters output").inner_text()
    page.locator("input[data-filter=text]").fill("optimal transport")
    assert 1 <= visible.count() <= 3
    link = visible.first.locator("td:nth-child(2) a")
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"chapters/merging\.html#paper-"))


@browser_only
@pytest.mark.browser
@pytest.mark.parametrize("query", ["node2vec", "Leskovec", "grover2016node2vec", "Optimal Transport", "pan2023snnet"])
def test_search_finds_a_paper_by_title_author_and_key(open_page, query):
    page = open_page("search", query=f"?q={query}")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    found = page.locator("#search-results li a").evaluate_all("links => links.map(a => a.getAttribute('href'))")
    wanted = "embeddings" if "2vec" in query or query == "Leskovec" else "merging"
    assert any(wanted in href or "references" in href for href in found)
    assert page.problems == []


@browser_only
@pytest.mark.browser
def test_a_reader_gets_around_by_keyboard_and_changes_the_theme(open_page):
    page = open_page("index")
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.getAttribute('href') || document.activeElement.className"))
    assert {f"chapters/{c}.html" for c in CHAPTERS} <= seen
    before = page.evaluate("document.documentElement.dataset.theme")
    button = page.locator("button.theme-switch-button:visible").first
    button.focus()
    for _ in range(2):
        page.keyboard.press("Enter")
        page.wait_for_timeout(100)
        if page.evaluate("document.documentElement.dataset.theme") != before:
            break
    assert page.evaluate("document.documentElement.dataset.theme") != before


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.targets, self.anchors = [], set()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[k] for k in ("id", "name") if given.get(k)}
        for name in ("href", "src"):
            if given.get(name):
                self.targets.append(given[name])


def test_every_internal_link_is_alive():
    pages = {}
    for path in (p for p in SITE.rglob("*.html") if "_static" not in p.parts):
        parser = _Links()
        parser.feed(path.read_text(encoding="utf-8"))
        pages[path.resolve()] = parser
    dead = []
    for path, parser in pages.items():
        for target in parser.targets:
            if re.match(r"[a-z]+:|//", target) or target.startswith("#top") or "search.html" in target:
                continue
            file, fragment = urldefrag(target.split("?")[0])
            aim = (path.parent / unquote(file)).resolve() if file else path
            if not aim.exists():
                dead.append(f"{path.name}: {target}")
            elif fragment and aim in pages and unquote(fragment) not in pages[aim].anchors:
                dead.append(f"{path.name}: {target} has no such anchor")
    assert dead == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_each_chapter_offers_its_sources(chapter):
    text = (SITE / "chapters" / f"{chapter}.html").read_text(encoding="utf-8")
    for suffix in ("py", "ipynb"):
        assert f"_static/notebooks/{chapter}.{suffix}" in text
        assert (SITE / "_static" / "notebooks" / f"{chapter}.{suffix}").stat().st_size > 1000
    assert "make lab" in text


def test_the_ledger_is_whole_and_every_claim_is_on_its_page():
    ledger = json.loads((ROOT / "build" / "ledger.json").read_text(encoding="utf-8"))
    assert next(iter(ledger)) == "version"
    for chapter in CHAPTERS:
        keys = {e["key"] for e in ledger["claims"] if e["chapter"] == chapter}
        assert keys == {p.key for p in chapter_papers(chapter)}
        text = (SITE / "chapters" / f"{chapter}.html").read_text(encoding="utf-8")
        for key in keys:
            assert f'id="paper-{key}"' in text and f'id="claim-{key}"' in text
    for entry in ledger["claims"]:
        assert entry["conditions"] and entry["measured"] and entry["scaled"] and entry["seconds"] >= 0
        assert any(row["role"] == "control" for row in entry["measured"]), f"{entry['key']} has no control"
        assert entry["verdict"] == "reproduced" or entry["reason"], f"{entry['key']} gives no reason"


def test_the_portraits_are_on_the_landing_page():
    text = (SITE / "index.html").read_text(encoding="utf-8")
    assert text.count("na-card") >= len(CHAPTERS) and text.count('role="img"') >= len(CHAPTERS)
    order = re.findall(r'class="na-card" href="chapters/(\w+)\.html"', text)
    planned = [chapter for chapter in dict.fromkeys(p.chapter for p in papers().values()) if chapter in order]
    assert [chapter for chapter in order if chapter in planned] == planned
