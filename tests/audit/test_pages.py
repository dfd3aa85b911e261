"""Every page in Chromium: silent, by itself, still, easy to hit, complete without JavaScript; and what axe finds."""

import pytest
from playwright.sync_api import Browser

from tests.audit import axe, contrast
from tests.audit.conftest import FULL, Board, Host, none
from tests.audit.pages import Page, pages
from tests.audit.visit import Scheme, visiting
from tests.e2e.forms import VISITS

pytestmark = [pytest.mark.e2e, pytest.mark.browser]


def _chosen() -> list[Page]:
    """All pages; in the short form each site's front door and the page with its form."""
    forms = {visit.form for visit in VISITS}
    return [page for page in pages() if FULL or not page.path or page.path in forms]


ALL = pytest.mark.parametrize("page", _chosen(), ids=str)
HOMES = pytest.mark.parametrize("page", [page for page in pages() if not page.path], ids=str)

# What a first visit to a site's front door may cost.
BYTES, REQUESTS = 60 * 1024, 8

_LOOKS: list[tuple[int, Scheme]] = [(360, "light"), (1440, "dark")]
if FULL:
    _LOOKS += [(360, "dark"), (1440, "light")]

# But for links to another state of the same page, which only a script can restore.
_SHOWN = """
() => [...document.querySelectorAll("h1, h2, h3, :is(header, main, footer) a[href]:not([href^='?']), label, legend")]
  .filter((element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true }))
  .map((element) => element.textContent.replace(/\\s+/g, " ").trim())
"""


@ALL
@pytest.mark.parametrize("own", [False, True], ids=["path", "domain"])
def test_page_is_silent_and_still(host: Host, browser: Browser, board: Board, page: Page, own: bool) -> None:
    if own and page.path and not FULL:
        pytest.skip("on its own domain each site shows its home page: the others are part of the long form")
    with visiting(browser, host.own(page) if own else host.below(page), width=1440 if own else 360) as visit:
        visit.read_on()
        none([*visit.said, *visit.failed, *visit.elsewhere])
        shift = visit.layout_shift()
        none(visit.small_targets())
        assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than the screen"
        board.note(page, KiB=f"{visit.size / 1024:.1f}", requests=str(visit.requests))
    # A machine that is busy with other tests may upset a visit: a page has three tries.
    for _ in range(2):
        if shift:
            with visiting(browser, host.below(page), width=360) as visit:
                visit.read_on()
                shift = visit.layout_shift()
    assert shift == 0


@HOMES
def test_first_load_is_light(host: Host, browser: Browser, page: Page) -> None:
    with visiting(browser, host.below(page)) as visit:
        visit.read_on()
        assert visit.size <= BYTES
        assert visit.requests <= REQUESTS


@ALL
def test_axe_finds_nothing(host: Host, browser: Browser, board: Board, page: Page) -> None:
    wrong: list[str] = []
    with visiting(browser, host.below(page), still=True) as visit:
        axe.load(visit.page)
        for width, scheme in _LOOKS:
            visit.page.set_viewport_size({"width": width, "height": 800})
            visit.page.emulate_media(color_scheme=scheme)
            found, unsure = axe.findings(visit.page)
            if FULL:  # a picture of each page takes its time
                found += contrast.pale(visit.page, unsure)
            wrong += [f"{width} px, {scheme}: {line}" for line in found]
    board.note(page, axe=str(len(wrong)))
    none(wrong)


@ALL
def test_page_is_complete_without_javascript(host: Host, browser: Browser, page: Page) -> None:
    with visiting(browser, host.below(page), still=True) as visit:
        with_script = visit.page.evaluate(_SHOWN)
    with visiting(browser, host.below(page), still=True, javascript=False) as visit:
        without = visit.page.evaluate(_SHOWN)
        none([*visit.said, *visit.failed])
    none(text for text in with_script if text not in without)
