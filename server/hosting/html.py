"""Changes to a page's text: links that hold elsewhere, an element put in at its end; and what a page includes.

Every byte that is not changed stays as it was: html.parser says where tags are, and nothing is written anew from what
it read. Knows no files and no sites.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from html import escape, unescape
from html.entities import html5
from html.parser import HTMLParser
from itertools import accumulate
from urllib.parse import urljoin

from server.hosting.paths import address, canonical

_URL = frozenset({"href", "src", "action", "formaction", "poster", "xlink:href"})
_CANDIDATES = frozenset({"srcset", "imagesrcset"})
# Elements that hold text and no tags (WHATWG HTML section 13.2.6.4). Of these html.parser of 3.11 knows two.
_TEXT_ONLY = frozenset({"script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes", "plaintext"})

_NAME = re.compile(r"<[^ \t\n\f\r/>]+")
_ATTRIBUTE = re.compile(
    r"""[ \t\n\f\r/]* (?P<name>[^ \t\n\f\r/>][^ \t\n\f\r/>=]*)
        (?:[ \t\n\f\r]* = [ \t\n\f\r]* (?P<value>"[^"]*" | '[^']*' | [^ \t\n\f\r>"'][^ \t\n\f\r>]*))?""",
    re.VERBOSE,
)
# The lengths are capped because int() refuses more than 4,300 digits.
_REFERENCE = re.compile(
    r"&(?:#[0-9]{1,99};?|#[xX][0-9A-Fa-f]{1,99};?|([A-Za-z][A-Za-z0-9]*(?:;|(?![A-Za-z0-9;=]))))",
)
_CANDIDATE = re.compile(r"[ \t\n\f\r,]*(?P<url>[^ \t\n\f\r,][^ \t\n\f\r]*)(?P<rest>[^,(]*(?:\([^)]*\)?[^,(]*)*)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_PATH = re.compile(r"[^?#]*")
_INCLUDE = re.compile(r'#include file="([^"]*)" ')
# What a URL begins and ends with in vain (WHATWG URL section 4.4).
_EDGE = "".join(map(chr, range(33)))


@dataclass(frozen=True, slots=True)
class _Tag:
    """A start tag as it stands in the page: where, and its own text with the angle brackets."""

    name: str
    at: int
    text: str


@dataclass(frozen=True, slots=True)
class Include:
    """`<!--#include file="name" -->` in a page: where it stands."""

    start: int
    end: int
    name: str


@dataclass(frozen=True, slots=True)
class _Edit:
    """What replaces a piece of a page, or of a tag, from `start` to `end`."""

    start: int
    end: int
    text: str


def includes(page: str) -> list[Include]:
    """Where other texts are to be put in. What is written otherwise is a comment like every other."""
    return _read(page).includes


def placed(part: str, path: str) -> str:
    """`part`, whose relative URLs count from the site's root, as it has to read in the page of the file at `path`.

    `path` is canonical. Relative URLs stay relative, so that they hold wherever the site is mounted. Links to that
    page itself are marked as such (WAI-ARIA `aria-current`). Left alone: what `rooted` leaves alone.
    """
    folder = path.rpartition("/")[0] + "/"

    def edits(tag: _Tag) -> Iterator[_Edit]:
        if tag.name == "a" and _leads_to(tag, address(path)):
            yield _Edit(2, 2, ' aria-current="page"')
        yield from _relinked(tag, lambda url: _relative(url, folder))

    return _edited(part, _read(part).starts, edits)


def rooted(page: str, base: str) -> str:
    """`page` with its relative URLs as absolute paths from `base` ("/", "/bikes/"): it is answered at any depth.

    Left alone: fragments alone, empty values, absolute paths, "//host" and "scheme:" URLs, and a page with a
    `<base href>` of its own. URLs in style sheets, scripts and `srcdoc` are not looked at.

    Why not a `<base>` put in: it would make "#main" a link to another page.
    """
    tags = _read(page).starts
    if any(tag.name == "base" and "href" in (name for name, _, _ in _attributes(tag.text)) for tag in tags):
        return page
    return _edited(page, tags, lambda tag: _relinked(tag, lambda url: _absolute(url, base)))


def injected(page: str, element: str) -> str:
    """`page` with `element` before its last `</body>`, one that is a tag and no text; without one, at its end."""
    at = _read(page).body_end
    return page + element if at is None else page[:at] + element + page[at:]


class _Reader(HTMLParser):
    """Notes where start tags, includes and the last `</body>` are."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)  # else a stray "&#" ends the reading
        self.starts: list[_Tag] = []
        self.includes: list[Include] = []
        self.body_end: int | None = None
        self._page = page
        self._lines = [0, *accumulate(len(line) + 1 for line in page.split("\n"))]
        self._foreign = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._note(tag)
        if tag in ("svg", "math"):
            self._foreign += 1
        elif tag in (_TEXT_ONLY if not self._foreign else ("script", "style")):
            self.set_cdata_mode(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        # Only within SVG and MathML does "/>" end an element; elsewhere <title/> goes on to </title>.
        if self._foreign or tag in ("svg", "math"):
            self._note(tag)
        else:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("svg", "math"):
            self._foreign = max(0, self._foreign - 1)
        elif tag == "body":
            self.body_end = self._at()

    def handle_comment(self, data: str) -> None:
        at, text = self._at(), f"<!--{data}-->"  # "<!x>" is a comment too, and not this one
        if (found := _INCLUDE.fullmatch(data)) and self._page.startswith(text, at):
            self.includes.append(Include(at, at + len(text), found[1]))

    def _note(self, tag: str) -> None:
        self.starts.append(_Tag(tag, self._at(), self.get_starttag_text() or ""))

    def _at(self) -> int:
        line, column = self.getpos()
        return self._lines[line - 1] + column


def _read(page: str) -> _Reader:
    reader = _Reader(page)
    # html.parser raises on "<![x" and on references of 4,300 digits. What follows stays as it is.
    with suppress(AssertionError, ValueError):
        # No close(): it would look for tags in a comment or script that the page's end cuts off.
        reader.feed(page)
    return reader


def _edited(page: str, tags: Iterable[_Tag], edits: Callable[[_Tag], Iterable[_Edit]]) -> str:
    """The page with the edits of each tag, which count from the tag's start and come in order."""
    parts, done = [], 0
    for tag in tags:
        for edit in edits(tag):
            parts += [page[done : tag.at + edit.start], edit.text]
            done = tag.at + edit.end
    return "".join([*parts, page[done:]])


def _relinked(tag: _Tag, link: Callable[[str], str]) -> Iterator[_Edit]:
    """The edits for each URL that `link` changes."""
    for name, start, value in _attributes(tag.text):
        old = _plain(value)
        if name in _URL or (tag.name, name) == ("object", "data"):
            new = link(old)
        else:
            new = _candidates(old, link) if name in _CANDIDATES else old
        if new != old:
            mark = value[0] if value[0] in "'\"" else '"'
            yield _Edit(start, start + len(value), mark + escape(new) + mark)


def _leads_to(tag: _Tag, own: str) -> bool:
    """Does a link of a part lead to the page with the address `own`, and is not marked already?"""
    values = {name: _plain(value) for name, _, value in _attributes(tag.text)}
    href = values.get("href", "")
    target = _absolute(href, "/")
    relative = target != href
    return relative and "aria-current" not in values and address(canonical(target) or "") == own


def _attributes(tag: str) -> Iterator[tuple[str, int, str]]:
    """Name in lower case, start and text of the value, with its quotes, of each attribute that has one."""
    name = _NAME.match(tag)
    at = name.end() if name else len(tag)
    while found := _ATTRIBUTE.match(tag, at):
        at = found.end()
        if found["value"] is not None:
            yield found["name"].lower(), found.start("value"), found["value"]


def _absolute(url: str, base: str) -> str:
    """`url` as an absolute path from `base`, where it is relative; else as it is."""
    # As browsers do: edges do not count, nor do line ends within, and a backslash is a slash.
    plain = re.sub(r"[\t\n\r]", "", url.strip(_EDGE))
    if not plain or plain[0] in "#/\\" or _SCHEME.match(plain):
        return url
    path = _PATH.match(plain)
    cut = path.end() if path else 0
    if not cut:
        return base + plain
    # The host is there so that ".." stops at the root, the "./" so that no path is taken for a scheme or a host;
    # the scheme is one for which urljoin does not cut at ";".
    root = "file://host"
    steps = "./" + plain[:cut].replace("\\", "/")
    return urljoin(root + base, steps).removeprefix(root) + plain[cut:]


def _relative(url: str, folder: str) -> str:
    """`url`, relative to "/", as a reference from `folder` that is relative too; else as it is."""
    absolute = _absolute(url, "/")
    if absolute == url:
        return url
    path = re.split("[?#]", absolute)[0]
    here, there = folder.split("/")[1:-1], path.split("/")[1:]
    same = 0
    while same < min(len(here), len(there) - 1) and here[same] == there[same]:
        same += 1
    steps = "../" * (len(here) - same) + "/".join(there[same:])
    # Nothing, and what looks like "scheme:", would be read as something else.
    plain = steps and ":" not in steps.split("/")[0]
    return ("" if plain else "./") + steps + absolute[len(path) :]


def _candidates(text: str, link: Callable[[str], str]) -> str:
    """`link` for each candidate of a `srcset` (WHATWG HTML section 4.8.4.2.1); a comma within a URL is its own."""
    parts, done = [], 0
    while found := _CANDIDATE.match(text, done):
        url = found["url"].rstrip(",")
        alone = url != found["url"]
        parts += [text[done : found.start("url")], link(url)]
        done = found.start("url") + len(url)
        end = found.end("url") if alone else found.end()
        parts.append(text[done:end])
        done = end
    return "".join([*parts, text[done:]])


def _plain(value: str) -> str:
    """An attribute's value without quotes and character references.

    `?a=1&copy=2` has none of those (WHATWG HTML section 13.2.5.73).
    """
    return _REFERENCE.sub(_character, value[1:-1] if value[:1] in ("'", '"') else value)


def _character(reference: re.Match[str]) -> str:
    name = reference[1]
    return unescape(reference[0]) if name is None else html5.get(name, reference[0])
