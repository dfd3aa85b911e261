"""What is hosted, as an ordinary ASGI application: for any server, and for what the lane hands on."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from functools import lru_cache
from urllib.parse import quote

from starlette.types import ASGIApp, Receive, Scope, Send

from server import log
from server.hosting.origin import Serving, host_name
from server.hosting.resource import Answer, Body, Fields, Part, refused
from server.hosting.shelf import stamp

_log = log.get(__name__)

Headers = list[tuple[bytes, bytes]]

_NO_HOST = b"A request names its host, and exactly once.\n"
_GONE = b"This file is being replaced.\n"
# Bytes of a file that are in memory at a time, for each request.
PIECE = 256 * 1024
# Blocks up to this size are mostly those of many files; longer ones hold what the client has sent.
_SHARED = 2048


class Hosting:
    """Answers what is published at the time, and passes on to `app` what is not hosted."""

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self.app = app
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        published = self._serving.published
        fields = joined(scope["headers"])
        if not _names_host(fields, scope["http_version"]):
            return await _send(send, refused(400, published.guard, b"", _NO_HOST))
        entry, query = published.find(_target(scope), fields)
        if entry is None:
            return await self.app(scope, receive, send)
        method = scope["method"].encode("latin-1")
        answer = entry.respond(method, fields, query)
        if not await _is_there(answer):
            # A variant may be gone where the file is not.
            answer = entry.respond(method, {**fields, b"accept-encoding": b""}, query)
            if not await _is_there(answer):
                answer = refused(503, published.guard, b"retry-after: 30\r\n", _GONE)
        await _send(send, answer)


def _names_host(fields: Fields, version: str) -> bool:
    """One Host that is one; before HTTP/1.1 it may be missing (RFC 9112 section 3.2)."""
    host = fields.get(b"host")
    return version == "1.0" if host is None else host_name(host) is not None


def joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Header fields by name; those of one name are one list (RFC 9110 section 5.3)."""
    fields = dict(headers)
    if len(fields) != len(headers):  # type: ignore[arg-type]
        fields = {}
        for name, value in headers:
            fields[name] = fields[name] + b", " + value if name in fields else value
    return fields


def _target(scope: Scope) -> bytes:
    # Half a surrogate pair becomes what is no UTF-8, and so no path.
    raw: bytes = scope.get("raw_path") or quote(scope["path"].encode("utf-8", "surrogatepass")).encode("ascii")
    # Some servers put the query there too.
    return raw.partition(b"?")[0] + b"?" + scope["query_string"] if scope["query_string"] else raw


async def _send(send: Send, answer: Answer) -> None:
    status, blocks, body = answer
    headers: Headers = []
    for block in blocks:
        headers += fields_of(block)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if body.__class__ is not bytes:
        async for piece in _pieces(body if isinstance(body, list) else [body]):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        body = b""
    await send({"type": "http.response.body", "body": body})


def fields_of(block: bytes) -> Headers:
    """The header fields in a block of a head, without its status line."""
    return _shared(block) if len(block) < _SHARED else _parsed(block)


@lru_cache(maxsize=2048)
def _shared(block: bytes) -> Headers:
    return _parsed(block)


def _parsed(block: bytes) -> Headers:
    lines = block.split(b"\r\n")[:-1]
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines) if value]


def _parts(answer: Answer) -> list[Part]:
    bodies = answer[2] if isinstance(answer[2], list) else [answer[2]]
    return [body for body in bodies if isinstance(body, Part)]


async def _is_there(answer: Answer) -> bool:
    """Whether the files that it is to be read from are still those that were published."""
    if answer[2].__class__ is bytes:
        return True
    parts = _parts(answer)
    return not parts or await asyncio.to_thread(_unchanged, parts)


def _unchanged(parts: list[Part]) -> bool:
    try:
        changed = [part.file for part in parts if stamp(os.stat(part.file)) != part.stamp]
    except OSError as error:
        changed = [str(error.filename)]
    for file in changed:
        _log.error("hosting.file_changed", file=file, reason="it is not the one that was published; reload")
    return not changed


async def _pieces(bodies: list[Body]) -> AsyncIterator[bytes]:
    for body in bodies:
        if isinstance(body, Part):
            async for piece in _read(body):
                yield piece
        else:
            for start in range(0, len(body), PIECE):
                yield bytes(body[start : start + PIECE])


async def _read(part: Part) -> AsyncIterator[bytes]:
    """A part of a file, in pieces. Raises OSError where it has become another: the answer is cut off, and not half of
    each."""
    with await asyncio.to_thread(open, part.file, "rb") as file:
        number = file.fileno()
        for start in range(0, part.length, PIECE):
            length = min(PIECE, part.length - start)
            piece = await asyncio.to_thread(os.pread, number, length, part.offset + start)
            if len(piece) != length or stamp(os.fstat(number)) != part.stamp:
                raise OSError(f"{part.file}: has changed since it was published")
            yield piece
