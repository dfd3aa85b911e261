"""Finished answers: what a file, a redirect or a missing page says to a request (RFC 9110).

An answer is (status, head, body). The head is in blocks, each of whole lines, the status line first; Date and what
belongs to the connection come from whoever sends it.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from server.hosting import conditions, ranges
from server.hosting.negotiation import choose

Fields = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes that stay on the disk: `length` of them in `file` from `offset`, while the file is the one of `stamp`."""

    file: str
    offset: int
    length: int
    stamp: tuple[int, int, int]

    def slice(self, start: int, stop: int) -> "Part":
        """A half-open piece of it."""
        return Part(self.file, self.offset + start, stop - start, self.stamp)


Body = bytes | memoryview | Part
Answer = tuple[int, tuple[bytes, ...], list[Body] | Body]

ALLOW = b"allow: GET, HEAD, OPTIONS\r\n"
# Only these ask for more than a choice of encoding.
_SPECIAL = frozenset(
    {b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range", b"range"}
)
# From here on a slice of a body is not worth a copy.
_COPIED = 16 * 1024


class Entry(Protocol):
    """Something that can be asked for."""

    def respond(self, method: bytes, fields: Fields, query: bytes) -> Answer:
        """The answer. `fields` have lower-case names, several of a name joined by ", "; `query` has no "?"."""


def status_line(status: int) -> bytes:
    """The first line of a head."""
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()


def lines(fields: Mapping[str, str]) -> bytes:
    """Header fields as they go over the wire."""
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode("latin-1")


@dataclass(frozen=True, slots=True)
class Headers:
    """The blocks that all files with the same header fields share. The status is in each but `plain` and `guard`."""

    ok: bytes
    partial: bytes
    unchanged: bytes
    plain: bytes  # all but what describes a body
    guard: bytes  # of an error: what protects, and no caching
    content_type: bytes

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> "Headers":
        """From all fields that a file's answers have, `content-type` among them."""
        rest = {name: value for name, value in fields.items() if name not in ("content-type", "accept-ranges")}
        uncached = {name: value for name, value in rest.items() if name != "cache-control"}
        full, plain = lines(fields), lines(rest)
        return cls(
            ok=status_line(200) + full,
            partial=status_line(206) + full,
            unchanged=status_line(304) + plain,
            plain=plain,
            guard=lines(uncached | {"cache-control": "no-store"}),
            content_type=fields["content-type"].encode("latin-1"),
        )


@dataclass(frozen=True, slots=True)
class Representation:
    """A file in one encoding. Two blocks: its `validators`, and its `length` with its coding."""

    etag: bytes
    validators: bytes
    length: bytes
    body: bytes | Part
    size: int


@dataclass(frozen=True, slots=True)
class Resource:
    """A file. `offered` are its codings besides identity, smallest first, and `encoded` what it is in each.

    `modified` is in Unix seconds.
    """

    headers: Headers
    modified: int | None
    identity: Representation
    offered: tuple[bytes, ...]
    encoded: tuple[Representation, ...]

    def respond(self, method: bytes, fields: Fields, query: bytes) -> Answer:
        """200, 206, 304, 405, 412, 416, or 204 to OPTIONS."""
        if method not in (b"GET", b"HEAD"):
            return _other_method(method, self.headers.guard)
        if not _SPECIAL.isdisjoint(fields):
            return self._special(method, fields)
        return self._ok(method, self.chosen(fields) if self.offered else self.identity)

    def chosen(self, fields: Fields) -> Representation:
        """What the client's Accept-Encoding gets (RFC 9110 section 12.5.3)."""
        accept = fields.get(b"accept-encoding")
        if accept is None:
            return self.identity
        coding = choose(accept, self.offered)
        return self.encoded[self.offered.index(coding)] if coding in self.offered else self.identity

    def _ok(self, method: bytes, chosen: Representation) -> Answer:
        return 200, (self.headers.ok, chosen.validators, chosen.length), chosen.body if method == b"GET" else b""

    def _special(self, method: bytes, fields: Fields) -> Answer:
        asked = fields.get(b"range") if method == b"GET" else None
        found = None if asked is None else ranges.parse(asked, self.identity.size)
        # A piece is always one of the file as it is; a piece of a compressed one is of use to nobody.
        chosen = self.chosen(fields) if found is None else self.identity
        status = conditions.evaluate(fields, chosen.etag, self.modified)
        if status == 304:
            return 304, (self.headers.unchanged, chosen.validators), b""
        if status == 412:
            return refused(412, self.headers.guard, b"", b"The file is not as the request expects it.\n", method)
        if found is None or not self._range_applies(fields):
            return self._ok(method, self.chosen(fields))
        return self._partial(found)

    def _range_applies(self, fields: Fields) -> bool:
        condition = fields.get(b"if-range")
        return condition is None or conditions.same(condition, self.identity.etag, self.modified)

    def _partial(self, found: list[tuple[int, int]]) -> Answer:
        identity = self.identity
        if not found:
            total = b"content-range: bytes */%d\r\n" % identity.size
            return refused(416, self.headers.guard, total, b"There is no such range in this file.\n")
        if len(found) > 1:
            return self._multipart(found)
        start, stop = found[0]
        block = b"content-length: %d\r\ncontent-range: bytes %d-%d/%d\r\n" % (
            stop - start,
            start,
            stop - 1,
            identity.size,
        )
        return 206, (self.headers.partial, identity.validators, block), _slice(identity.body, start, stop)

    def _multipart(self, found: list[tuple[int, int]]) -> Answer:
        boundary = secrets.token_hex(16).encode()
        heads, length = ranges.multipart(found, self.identity.size, self.headers.content_type, boundary)
        block = b"content-type: multipart/byteranges; boundary=%s\r\ncontent-length: %d\r\n" % (boundary, length)
        body: list[Body] = []
        for head, (start, stop) in zip(heads, found, strict=False):
            body += [head, _slice(self.identity.body, start, stop)]
        body.append(heads[-1])
        return 206, (status_line(206), self.headers.plain, self.identity.validators, block), body


def _slice(body: bytes | Part, start: int, stop: int) -> Body:
    if isinstance(body, Part):
        return body.slice(start, stop)
    return body[start:stop] if stop - start < _COPIED else memoryview(body)[start:stop]


def _other_method(method: bytes, guard: bytes) -> Answer:
    if method == b"OPTIONS":
        return 204, (status_line(204), guard, ALLOW), b""
    return refused(405, guard, ALLOW, b"Only GET, HEAD and OPTIONS are answered here.\n")


def refused(status: int, guard: bytes, more: bytes, text: bytes, method: bytes = b"GET") -> Answer:
    """An error, in a line of text: `guard` and `more` are blocks."""
    block = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(text)
    return status, (status_line(status), guard, more, block), b"" if method == b"HEAD" else text


@dataclass(frozen=True, slots=True)
class Moved:
    """A redirect. `location` keeps the query that was asked, unless it has its own."""

    status: int
    location: bytes
    headers: bytes

    def respond(self, method: bytes, fields: Fields, query: bytes) -> Answer:
        """3xx to every method: what was asked for is elsewhere."""
        location, hash_sign, fragment = self.location.partition(b"#")
        if query and b"?" not in location:
            location += b"?" + query
        block = b"location: %s\r\ncontent-length: 0\r\n" % (location + hash_sign + fragment)
        return self.status, (status_line(self.status), self.headers, block), b""


@dataclass(frozen=True, slots=True)
class ErrorPage:
    """A page with the status of an error. No validators and no ranges: it is not what was asked for."""

    status: int
    head: bytes
    page: Resource

    @classmethod
    def of(cls, status: int, page: Resource, fields: Mapping[str, str]) -> "ErrorPage":
        """`page` with the header `fields` that answer it."""
        whole = {name: value for name, value in fields.items() if name != "accept-ranges"}
        return cls(status, status_line(status) + lines(whole), page)

    def respond(self, method: bytes, fields: Fields, query: bytes) -> Answer:
        """The same to every method."""
        chosen = self.page.chosen(fields)
        return self.status, (self.head, chosen.length), b"" if method == b"HEAD" else chosen.body
