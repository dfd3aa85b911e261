"""The checkers themselves: each finds the fault that was put there for it, so that their silence means something."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.audit import axe, contrast
from tests.audit.conftest import FULL
from tests.audit.lighthouse import measured
from tests.audit.links import Document, listed, styled
from tests.audit.nu import complaints
from tests.audit.visit import visiting
from tests.conftest import add_site
from tests.e2e.conftest import ForkedServer, Server

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.browser,
    pytest.mark.skipif(not FULL, reason="the checkers are checked where all pages are: make audit"),
]

GOOD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Good</title><meta name="viewport" content="width=device-width">
<meta name="description" content="A page in order."><link rel="icon" href="icon.svg"></head>
<body><main><h1>Good</h1><p>All is well.</p></main></body></html>
"""
FAULTS = {
    "inline.html": "<p style='color: red'>No.</p>",
    "script.html": "<script>document.title = 'no'</script>",
    "elsewhere.html": "<img src='http://127.0.0.2:9/x.png' alt=''>",
    "missing.html": "<img src='gone.png' alt=''>",
    "contrast.html": "<p class='pale'>Who can read this?</p>",
    "large.html": "<p class='pale large'>Who can read this?</p>",
    "small.html": "<button class='small'>×</button>",
    "link.html": "<p>Go <a href='/'>home</a>, or:</p><p><a href='/'>home</a></p>",
    "shift.html": "<p>Here.</p><script src='shift.js'></script>",
    "loud.html": "<script src='loud.js'></script>",
    "over.html": "<p class='over'>Who can read this?</p>",
    "invalid.html": "<p><div>No.</p></div>",
}
FILES = {
    "shift.js": "addEventListener('load', () => requestAnimationFrame(() => setTimeout(() => "
    "document.querySelector('p').before(Object.assign(document.createElement('h2'), { textContent: 'Hop' })), 50)));",
    "loud.js": "console.log('hello')",
    "faults.css": ".pale { color: #888; background: #fff } .large { font-size: 40px } .small { all: unset }"
    ".over { color: #767676; background: linear-gradient(#fff, #bbb) }",
    "icon.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>",
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("faulty")
    head = GOOD.replace("<link", "<link rel='stylesheet' href='faults.css'><link")
    pages = {name: head.replace("<p>All is well.</p>", fault) for name, fault in FAULTS.items()}
    add_site(root / "sites", "faulty", 'title = "Faulty"', {"good.html": head, **pages, **FILES})
    server = ForkedServer(
        {"DOORBELL_SITES_DIR": str(root / "sites"), "DOORBELL_DATA_DIR": str(root / "var")}, root / "log"
    )
    server.start()
    yield server
    assert server.end() == 0


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("good", ""),
        ("inline", "style-src"),
        ("script", "script-src"),
        ("loud", "hello"),
        ("missing", "gone.png: 404"),
        ("elsewhere", "127.0.0.2:9"),
    ],
)
def test_what_a_page_says_and_asks_is_noted(faulty: Server, browser: Browser, name: str, what: str) -> None:
    with visiting(browser, f"{faulty.url}/faulty/{name}") as visit:
        visit.read_on()
        noted = [*visit.said, *visit.failed, *visit.elsewhere]
        assert any(what in line for line in noted) if what else noted == []
        assert visit.size > 200 and visit.requests >= 2


def test_what_moves_is_noted(faulty: Server, browser: Browser) -> None:
    with visiting(browser, f"{faulty.url}/faulty/shift") as visit:
        visit.page.get_by_role("heading", name="Hop").wait_for()
        assert visit.layout_shift() > 0
    with visiting(browser, f"{faulty.url}/faulty/good") as visit:
        assert visit.layout_shift() == 0


@pytest.mark.parametrize(("name", "count"), [("good", 0), ("small", 1), ("link", 1)])
def test_small_targets_are_noted(faulty: Server, browser: Browser, name: str, count: int) -> None:
    with visiting(browser, f"{faulty.url}/faulty/{name}") as visit:
        assert len(visit.small_targets()) == count


@pytest.mark.parametrize(("name", "rule"), [("good", ""), ("contrast", "color-contrast"), ("large", "color-contrast")])
def test_axe_is_as_strict_as_it_is_meant_to_be(faulty: Server, browser: Browser, name: str, rule: str) -> None:
    with visiting(browser, f"{faulty.url}/faulty/{name}") as visit:
        axe.load(visit.page)
        wrong, _ = axe.findings(visit.page)
        assert [line.partition(":")[0] for line in wrong] == ([rule] if rule else [])


@pytest.mark.parametrize(("name", "count"), [("over", 1), ("good", 0)])
def test_contrast_is_measured_by_the_picture(faulty: Server, browser: Browser, name: str, count: int) -> None:
    with visiting(browser, f"{faulty.url}/faulty/{name}") as visit:
        before = visit.page.screenshot()
        assert len(contrast.pale(visit.page, ["p"])) == count
        assert visit.page.screenshot() == before


def test_markup_that_is_not_valid_is_named(tmp_path: Path) -> None:
    (tmp_path / "good.html").write_text(GOOD)
    (tmp_path / "bad.html").write_text(GOOD.replace("<p>All is well.</p>", FAULTS["invalid.html"]))
    (tmp_path / "bad.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><circel r='1'/></svg>")
    found = complaints([tmp_path / "good.html", tmp_path / "bad.html", tmp_path / "bad.svg"])
    named = {name for name in ("good.html", "bad.html", "bad.svg") if any(f"/{name}:" in line for line in found)}
    assert named == {"bad.html", "bad.svg"}


@pytest.mark.skipif(not FULL, reason="takes its time: part of the long form")
def test_lighthouse_sees_what_a_page_lacks(faulty: Server) -> None:
    scores = measured(f"{faulty.url}/faulty/missing")
    assert scores.of["seo"] == 100 and scores.of["best-practices"] < 100
    assert any("404" in line for line in scores.wrong)


def test_references_of_a_document() -> None:
    page = Document(
        "<link href='a.css'><img src='b.png' srcset='c.png 1x, d.png 2x' style='background: url(e.png)'><a name='f'>"
        "<form method='POST' action='/signup'><button formaction='g'></form><meta property='og:image' content='h.png'>"
        '<script type=\'application/ld+json\'>{"@context": "https://schema.org", "image": ["https://i.example"]}'
        "</script><script>https://no.example</script><p id='j'>"
    )
    assert page.references == ["a.css", "b.png", "c.png", "d.png", "e.png", "g", "h.png", "https://i.example"]
    assert (page.posts, page.places) == (["/signup"], {"", "top", "f", "j"})
    assert styled("a { src: url('k.woff2') format('woff2'), url(l.svg) }") == ["k.woff2", "l.svg"]
    assert listed({"icons": [{"src": "m.png"}], "start_url": "./"}) == ["m.png", "./"]
