"""The one spelling of a path in the whole host, where table, rules and requests meet; and patterns of paths.

Owns which texts are paths. Knows no files and no sites. Two readings of one path are how guards are passed by, so
nothing here is repaired: what could be read in two ways is no path.
"""

import re
from dataclasses import dataclass
from unicodedata import category, normalize
from urllib.parse import quote, unquote_to_bytes

# What RFC 3986 section 3.3 lets stand in a path as it is, besides letters and digits.
PCHAR = "~!$&'()*+,;=:@-._"

# A placeholder, in patterns and in what is made of their matches.
NAME = re.compile(r":([A-Za-z][A-Za-z0-9_]*)")

_BROKEN = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SLASH = re.compile(r"%2[Ff]")


def canonical(path: str) -> str | None:
    """`path` (percent-encoded, without query) in its one spelling, or None where it is no path.

    Decoded, composed to NFC, encoded again (UTF-8, upper-case digits, PCHAR and "/" left as they are). No path has:
    "." or ".." segments, "//", a backslash, a control character, an encoded slash, a broken percent sign, or bytes
    that are not UTF-8. A character beyond ASCII in `path` counts as itself, not as a byte.
    """
    spelled = respelled(path)
    if spelled is None or "//" in spelled or any(segment in (".", "..") for segment in spelled.split("/")):
        return None
    return spelled


def respelled(text: str) -> str | None:
    """The same for a piece of a path: segments are not looked at, for the piece may begin or end inside one."""
    if _BROKEN.search(text) or _SLASH.search(text):
        return None
    try:
        plain = normalize("NFC", unquote_to_bytes(text).decode())
    except UnicodeError:  # decoding bytes that are no UTF-8, or encoding lone surrogates
        return None
    if "\\" in plain or any(category(char) == "Cc" for char in plain):
        return None
    return quote(plain, safe="/" + PCHAR)


def address(path: str) -> str:
    """Where the file at `path` is found: `/a/` for `/a/index.html`, `/a` for `/a.html`, the rest by its name."""
    folder, _, last = path.rpartition("/")
    if last == "index.html":
        return folder + "/"
    return path.removesuffix(".html") if last != ".html" else path


@dataclass(frozen=True, slots=True)
class _Segment:
    """What stands between two slashes: text, or a name for whatever stands there."""

    text: str
    named: bool = False


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern of paths from the site's root, in canonical spelling.

    `literal` is the one path that matches, where there is neither a splat nor a placeholder. Matching takes time in
    proportion to the length of the path: it splits at slashes, and no regular expression is made of a pattern.
    """

    text: str
    literal: str | None
    _head: tuple[_Segment, ...]
    _tail: tuple[_Segment, ...] = ()  # what follows the splat; nothing: there is no splat

    @property
    def names(self) -> frozenset[str]:
        """Of the pieces that a match has."""
        named = frozenset(segment.text for segment in (*self._head, *self._tail) if segment.named)
        return named | {"splat"} if self._tail else named

    def match(self, path: str) -> dict[str, str] | None:
        """What `path` (canonical, from the site's root) has for each name, still encoded; None: no match."""
        if not path.startswith("/"):
            return None
        if not self._tail:
            return _captured(self._head, path[1:].split("/", len(self._head)))
        return _around(self._head, self._tail, path[1:])


def pattern(text: str, *, anywhere: bool = False) -> Pattern:
    """The pattern that `text` is: `*` is whatever follows or nothing, `:name` one segment that is not empty.

    `anywhere`: the `*` may stand at any place, not only as the last segment. Raises ValueError, in words for users.
    """
    spelled = _path(text)
    segments = list(map(_segment, text[1:].split("/"), spelled[1:].split("/")))
    names = [segment.text for segment in segments if segment.named]
    if len({*names, "splat"}) <= len(names):
        raise ValueError(f"the path {text!r} has a name twice, or the name :splat, which is for what * stands for")
    if "*" not in text:
        return Pattern(spelled, None if names else spelled, tuple(segments))
    if not anywhere and (text.count("*") > 1 or not text.endswith("/*")):
        raise ValueError(f"in the path {text!r}: a * stands alone, as the last segment")
    if spelled.count("*") > 1:
        raise ValueError(f"the path {text!r} has more than one *")
    at = next(index for index, segment in enumerate(segments) if "*" in segment.text)
    before, _, after = segments[at].text.partition("*")
    return Pattern(spelled, None, (*segments[:at], _Segment(before)), (_Segment(after), *segments[at + 1 :]))


def _path(text: str) -> str:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", text):
        raise ValueError(f"{text!r} is an address, no path: a site's domains are `hosts` in site.toml")
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is not a path: a path begins with /")
    if "?" in text or "#" in text:
        raise ValueError(f"the path {text!r} has a ? or #: rules look at paths only, not at queries")
    return checked(text)


def checked(text: str) -> str:
    """Its canonical spelling. Raises ValueError where it is no path."""
    spelled = canonical(text)
    if spelled is None:
        raise ValueError(
            f"{text!r} can never be a path here: it has //, a . or .. segment, a backslash, an encoded slash, "
            "a control character, a broken % or bytes that are not UTF-8"
        )
    return spelled


def _segment(text: str, spelled: str) -> _Segment:
    # `text` decides, not `spelled`: in that an encoded colon is already decoded.
    if name := NAME.fullmatch(text):
        return _Segment(name[1], named=True)
    if NAME.search(text):
        raise ValueError(f"in {text!r}: a placeholder is a whole segment, as in /:name/; a colon itself is written %3A")
    return _Segment(spelled)


def _around(head: tuple[_Segment, ...], tail: tuple[_Segment, ...], path: str) -> dict[str, str] | None:
    """A match with a splat, which lies between the last segment of `head` and the first of `tail`."""
    if head[-1].text == "" and tail == (_Segment(""),) and path.count("/") == len(head) - 2:
        path += "/"  # "/a/*" is about "/a" too
    before = path.split("/", len(head) - 1)
    after = before.pop().rsplit("/", len(tail) - 1)
    splat, start, end = after[0], head[-1].text, tail[0].text
    if len(splat) < len(start) + len(end) or not (splat.startswith(start) and splat.endswith(end)):
        return None
    found = _captured((*head[:-1], *tail[1:]), [*before, *after[1:]])
    return None if found is None else {**found, "splat": splat[len(start) : len(splat) - len(end)]}


def _captured(segments: tuple[_Segment, ...], pieces: list[str]) -> dict[str, str] | None:
    if len(segments) != len(pieces):
        return None
    found = {}
    for segment, piece in zip(segments, pieces, strict=True):
        if segment.named and piece:
            found[segment.text] = piece
        elif segment.named or segment.text != piece:
            return None
    return found
