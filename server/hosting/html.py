"""Two changes to a page's text: links that hold at any depth, and an element put in at its end.

Every byte that is not changed stays as it was: html.parser says where tags are, and nothing is written anew from what
it read. Knows no files and no sites.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from html import escape, unescape
from html.entities import html5
from html.parser import HTMLParser
from itertools import accumulate
from urllib.parse import urljoin

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
# What a URL begins and ends with in vain (WHATWG URL section 4.4).
_EDGE = "".join(map(chr, range(33)))


@dataclass(frozen=True, slots=True)
class _Tag:
    """A start tag as it stands in the page: where, and its own text with the angle brackets."""

    name: str
    at: int
    text: str


def rooted(page: str, base: str) -> str:
    """`page` with its relative URLs as absolute paths from `base` ("/", "/bikes/"): it is answered at any depth.

    Left alone: fragments alone, empty values, absolute paths, "//host" and "scheme:" URLs, and a page with a
    `<base href>` of its own. URLs in style sheets, scripts and `srcdoc` are not looked at.

    Why not a `<base>` put in: it would make "#main" a link to another page.
    """
    tags = _read(page).starts
    if any(tag.name == "base" and "href" in (name for name, _, _ in _attributes(tag.text)) for tag in tags):
        return page
    parts, done = [], 0
    for tag in tags:
        for start, end, text in _changes(tag, base):
            parts += [page[done : tag.at + start], text]
            done = tag.at + end
    return "".join([*parts, page[done:]])


def injected(page: str, element: str) -> str:
    """`page` with `element` before its last `</body>`, one that is a tag and no text; without one, at its end."""
    at = _read(page).body_end
    return page + element if at is None else page[:at] + element + page[at:]


class _Reader(HTMLParser):
    """Notes where start tags and the last `</body>` are."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)  # else a stray "&#" ends the reading
        self.starts: list[_Tag] = []
        self.body_end: int | None = None
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


def _changes(tag: _Tag, base: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and new text of each attribute's value that changes, counted from the tag's start."""
    for name, start, value in _attributes(tag.text):
        change = _change(tag.name, name)
        quoted = value[:1] in ("'", '"')
        old = _decoded(value[1:-1] if quoted else value)
        if change is not None and (new := change(old, base)) != old:
            mark = value[0] if quoted else '"'
            yield start, start + len(value), mark + escape(new) + mark


def _change(tag: str, attribute: str) -> Callable[[str, str], str] | None:
    if attribute in _URL or (tag, attribute) == ("object", "data"):
        return _absolute
    return _absolute_candidates if attribute in _CANDIDATES else None


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


def _absolute_candidates(text: str, base: str) -> str:
    """The same for each candidate of a `srcset` (WHATWG HTML section 4.8.4.2.1); a comma within a URL is its own."""
    parts, done = [], 0
    while found := _CANDIDATE.match(text, done):
        url = found["url"].rstrip(",")
        alone = url != found["url"]
        parts += [text[done : found.start("url")], _absolute(url, base)]
        done = found.start("url") + len(url)
        end = found.end("url") if alone else found.end()
        parts.append(text[done:end])
        done = end
    return "".join([*parts, text[done:]])


def _decoded(value: str) -> str:
    """An attribute's value without character references. `?a=1&copy=2` has none (WHATWG HTML section 13.2.5.73)."""
    return _REFERENCE.sub(_character, value)


def _character(reference: re.Match[str]) -> str:
    name = reference[1]
    return unescape(reference[0]) if name is None else html5.get(name, reference[0])
