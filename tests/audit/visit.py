"""A page as one visitor opens it in Chromium: what it takes, what it says, and what moves. Knows no sites."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Response

Scheme = Literal["light", "dark"]

_REPORTS = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy: ${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
});
"""
_SHIFT = """
() => new Promise((done) => {
  let sum = 0;
  const add = (list) => list.getEntries().forEach((entry) => { sum += entry.value; });
  new PerformanceObserver(add).observe({ type: "layout-shift", buffered: true });
  requestAnimationFrame(() => setTimeout(() => done(sum)));
})
"""
# What a finger must hit. A link within a line of text may be as high as the line (WCAG 2.5.8).
_SMALL = """
() => {
  const targets = document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary");
  const box = (element) => element.getBoundingClientRect();
  const small = ({ width, height }) => width < 24 || height < 24;
  const inText = (element) => element.matches("a") && getComputedStyle(element).display === "inline"
    && element.parentElement.textContent.trim() !== element.textContent.trim();
  return [...targets]
    .filter((element) => element.checkVisibility({ visibilityProperty: true }) && !element.closest("[inert]"))
    .filter((element) => !inText(element) && [element, ...(element.labels ?? [])].every((one) => small(box(one))))
    .map((element) => `${element.outerHTML.slice(0, 120)} ${box(element).width}x${box(element).height}`);
}
"""


@dataclass(slots=True)
class Visit:
    """An open page, and what was noted of it: `said` on its console, `elsewhere` what was asked of others."""

    page: Page
    requests: int = 0
    size: int = 0
    said: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def read_on(self) -> None:
        """Goes down to the end, where images come that were not needed before."""
        self.page.evaluate("scrollTo({ top: document.documentElement.scrollHeight, behavior: 'instant' })")
        self.page.wait_for_function("[...document.images].every((image) => image.complete)")
        self.page.evaluate("document.fonts.ready.then(() => true)")

    def layout_shift(self) -> float:
        """All that moved so far, hundredths of which a visitor sees."""
        shift: float = self.page.evaluate(_SHIFT)
        return shift

    def small_targets(self) -> list[str]:
        """What is less than 24 px wide or high."""
        small: list[str] = self.page.evaluate(_SMALL)
        return small


@contextmanager
def visiting(
    browser: Browser,
    url: str,
    *,
    width: int = 360,
    scheme: Scheme = "light",
    still: bool = False,
    javascript: bool = True,
) -> Iterator[Visit]:
    """Opens `url` for the first time. `still`: the visitor wants nothing to move."""
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme=scheme,
        reduced_motion="reduce" if still else "no-preference",
        java_script_enabled=javascript,
    )
    try:
        visit = Visit(context.new_page())
        _note(visit, url)
        visit.page.add_init_script(_REPORTS)
        visit.page.goto(url)
        yield visit
    finally:
        context.close()


def _note(visit: Visit, url: str) -> None:
    origin = urlsplit(url)[:2]

    def asked(event: dict[str, Any]) -> None:
        target = event["request"]["url"]
        if not target.startswith(("data:", "blob:")):
            visit.requests += 1
            if urlsplit(target)[:2] != origin:
                visit.elsewhere.append(target)

    def loaded(event: dict[str, Any]) -> None:
        visit.size += int(event["encodedDataLength"])

    session = visit.page.context.new_cdp_session(visit.page)
    session.send("Network.enable")
    session.on("Network.requestWillBeSent", asked)
    session.on("Network.loadingFinished", loaded)

    def heard(message: ConsoleMessage) -> None:
        # Of a page that is answered with 404 Chromium itself says so; the page can do nothing about it.
        if message.location["url"] != url or not message.text.startswith("Failed to load resource"):
            visit.said.append(message.text)

    def answered(reply: Response) -> None:
        if reply.status >= 400 and reply.url != url:
            visit.failed.append(f"{reply.url}: {reply.status}")

    visit.page.on("pageerror", lambda error: visit.said.append(str(error)))
    visit.page.on("requestfailed", lambda request: visit.failed.append(f"{request.url}: {request.failure}"))
    visit.page.on("console", heard)
    visit.page.on("response", answered)
