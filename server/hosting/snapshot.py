"""A source under its mount as an immutable table from path to finished answer. What is not in it does not exist."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from server.hosting import html, media_types
from server.hosting.files import SnapshotError
from server.hosting.pages import ONE_HOUR, REVALIDATED, Page, Press, text
from server.hosting.paths import address, canonical
from server.hosting.resource import Entry, ErrorPage, Fields, Moved
from server.hosting.rules import Redirect
from server.hosting.source import Source

# Without one, a browser keeps a permanent redirect for as long as it likes.
_CACHING = {301: ONE_HOUR, 308: ONE_HOUR}
_PERMANENT = 308

_NOWHERE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Not found</title>
<h1>Not found</h1>
<p>There is no page at this address.</p>
</html>
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`entries` by target, from the host's root. `missing` has the 404 pages by folder, deepest first."""

    entries: Mapping[bytes, Entry]
    rules: "Rules"
    navigation: Entry | None
    missing: tuple[tuple[str, Entry], ...]

    def miss(self, path: str | None, fields: Fields) -> Entry:
        """What is answered where nothing is: what a rule says, the page of a single-page app, or the nearest 404 page.

        `path` is canonical, from the source's root; None stands for what is no path at all.
        """
        if path is not None:
            if (found := self.rules.answer(path)) is not None:
                return found
            if self.navigation is not None and _navigates(fields):
                return self.navigation
        return next(page for folder, page in self.missing if (path or "/").startswith(folder))


def _navigates(fields: Fields) -> bool:
    """Is it a page for a person? A script or a style that is HTML makes a white page."""
    mode = fields.get(b"sec-fetch-mode")
    return b"text/html" in fields.get(b"accept", b"").lower() if mode is None else mode == b"navigate"


@dataclass(frozen=True, slots=True)
class Mount:
    """The pages of a source, by the path of their file, where they are mounted: `base` has both its slashes."""

    press: Press
    source: Source
    pages: Mapping[str, Page]
    base: str
    _rooted: dict[str, Page] = field(default_factory=dict)

    def snapshot(self) -> Snapshot:
        """The table. Raises SnapshotError for rules that lead to no page."""
        table = [(rule, self._fixed(rule)) for rule in self.source.redirects]
        rules, forced = Rules.of(self, table), Rules.of(self, [one for one in table if one[0].force])
        found = {path: forced.answer(path) or entry for path, entry in self._own().items()}
        for rule in self.source.redirects:
            # What needs no pattern is a look-up like every other; an earlier pattern that matches comes first here too.
            literal = rule.source.literal
            if literal is not None and literal not in found and (entry := rules.answer(literal)) is not None:
                found[literal] = entry
        entries = {(self.base[:-1] + path).encode("ascii"): entry for path, entry in found.items()}
        if self.base != "/":
            entries[self.base[:-1].encode("ascii")] = self._moved(f".{self.base}")
        return Snapshot(entries, rules, self._navigation(), tuple(self._missing()))

    def page(self, target: str) -> Page | None:
        """The page that a local target names, by its file or by its address."""
        path = canonical(re.split("[?#]", target)[0]) or ""
        if path.endswith("/"):
            return self.pages.get(path + "index.html")
        return self.pages.get(path) or self.pages.get(path + ".html")

    def elsewhere(self, page: Page) -> Page:
        """The page as it is answered at other addresses than its own: there too its relative links hold."""
        if not page.is_html:
            return page
        if page.path not in self._rooted:
            folder = self.base[:-1] + page.path.rpartition("/")[0] + "/"
            self._rooted[page.path] = self.press.rewritten(page, html.rooted(text(page), folder))
        return self._rooted[page.path]

    def error(self, page: Page, status: int) -> Entry:
        """The page with an error's status: found at any depth, and asked for again each time."""
        return ErrorPage.of(status, page.resource, {**page.fields, "cache-control": REVALIDATED})

    def redirect(self, rule: Redirect, target: str) -> Entry | None:
        """What `rule` answers where its target comes out as `target`; None for a page that is not there."""
        if 300 <= rule.status < 400:
            location = self.base[:-1] + target if rule.local else target
            return self._moved(location, rule.status)
        page = self.page(target)
        if page is None or (rule.status == 200 and _is_error_page(page.path)):
            return None
        return self._answer(rule, page)

    def _answer(self, rule: Redirect, page: Page) -> Entry:
        page = self.elsewhere(page)
        return page.resource if rule.status == 200 else self.error(page, rule.status)

    def _fixed(self, rule: Redirect) -> Entry | None:
        """The answer of a rule whose target is the same for all paths."""
        if rule.depends:
            if not 300 <= rule.status < 400:  # any page may be the target, and no request shall wait for a file
                for any_page in self.pages.values():
                    self.elsewhere(any_page)
            return None
        if 300 <= rule.status < 400:
            return self.redirect(rule, rule.resolve({}))
        page = self.page(rule.resolve({}))
        if page is None:
            raise SnapshotError([f"{rule.where}: there is no page {rule.target}"])
        return self._answer(rule, page)

    def _own(self) -> dict[str, Entry]:
        """The pages at their addresses, and the ways that lead there."""
        found: dict[str, Entry] = {}
        for path, page in self.pages.items():
            if not _is_error_page(path):
                found[path if address(path) in self.pages else address(path)] = page.resource
        for path in self.pages:
            if not _is_error_page(path):
                for other, location in _detours(path):
                    found.setdefault(other, self._moved(location))
        return found

    def _moved(self, location: str, status: int = _PERMANENT) -> Moved:
        return Moved(status, location.encode("ascii"), self.press.redirected(_CACHING.get(status, REVALIDATED)))

    def _navigation(self) -> Entry | None:
        return self.elsewhere(self.pages["/index.html"]).resource if self.source.spa else None

    def _missing(self) -> Iterator[tuple[str, Entry]]:
        for path in sorted(filter(_is_error_page, self.pages), key=len, reverse=True):
            yield path.removesuffix("404.html"), self.error(self.elsewhere(self.pages[path]), 404)
        fields = self.press.fields(self.source, "/404.html", media_types.guess("404.html"))
        yield "/", self.error(self.press.made("/404.html", _NOWHERE, fields), 404)


def _is_error_page(path: str) -> bool:
    # It has no address of its own: asked for by name, it is a missing page like every other.
    return path.endswith("/404.html")


def _detours(path: str) -> Iterator[tuple[str, str]]:
    """Other ways to ask for a file, each with the relative reference that leads from there to its address."""
    folder, _, last = path.rpartition("/")
    if last == "index.html":
        yield path, "./"
        if folder:
            yield folder, f"./{folder.rpartition('/')[2]}/"
    elif address(path) != path:
        yield path, f"./{last.removesuffix('.html')}"


@dataclass(frozen=True, slots=True)
class Rules:
    """The redirects under a mount, in their order, each with its answer where that is always the same.

    `literals` are by path, `patterns` by first segment ("" for those of any): a request looks at few of them.
    """

    mount: Mount
    table: tuple[tuple[Redirect, Entry | None], ...]
    literals: Mapping[str, int]
    patterns: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, mount: Mount, table: Iterable[tuple[Redirect, Entry | None]]) -> "Rules":
        """Sorted for looking up."""
        table = tuple(table)
        literals: dict[str, int] = {}
        patterns: dict[str, list[int]] = {}
        for number, (rule, _) in enumerate(table):
            if rule.source.literal is not None:
                literals.setdefault(rule.source.literal, number)
            else:
                patterns.setdefault(_bucket(rule.source.text), []).append(number)
        return cls(mount, table, literals, {segment: tuple(found) for segment, found in patterns.items()})

    def answer(self, path: str) -> Entry | None:
        """What the first rule that matches says, and has a page for."""
        for number in self._candidates(path):
            rule, fixed = self.table[number]
            captured = _match(rule, path)
            if captured is None:
                continue
            if (entry := fixed or self.mount.redirect(rule, rule.resolve(captured))) is not None:
                return entry
        return None

    def _candidates(self, path: str) -> list[int]:
        literals = [self.literals[one] for one in (path, _other(path)) if one in self.literals]
        return sorted([*literals, *self.patterns.get(_bucket(path), ()), *self.patterns.get("", ())])


def _bucket(path: str) -> str:
    """The first segment, or "" where it may be any."""
    segment = path.split("/", 2)[1]
    return "" if ":" in segment or "*" in segment else segment


def _other(path: str) -> str:
    return path.removesuffix("/") if path.endswith("/") else path + "/"


def _match(rule: Redirect, path: str) -> dict[str, str] | None:
    """A rule for `/a` is for `/a/` too and the other way round, but not where it leads from the one to the other."""
    captured = rule.source.match(path)
    other = _other(path)
    if captured is not None or not other:
        return captured
    captured = rule.source.match(other)
    return None if captured is None or rule.resolve(captured).partition("?")[0] == path else captured
