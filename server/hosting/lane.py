"""uvicorn's HTTP protocol, with a fast lane: what is in the table is answered in the parser's callback.

Everything else goes on to uvicorn as it came. `Lane` answers only while no other answer of the connection is under way
and the client reads, so order and back-pressure are uvicorn's own. `Watch` holds what the connections share, and ends
those that keep the server waiting.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from time import perf_counter_ns
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server import log
from server.hosting.asgi import joined
from server.hosting.origin import Serving
from server.hosting.resource import Entry, Fields, Part, status_line

_log = log.get(__name__)

# Fed to the parser at a time: it cannot be stopped within, so this bounds what a client can ask for without reading.
_SLICE = 4096
# Bodies from here on are sent as they are; below, one copy is cheaper than a second buffer.
_JOINED = 32 * 1024
_HIGH_WATER = 256 * 1024
# A request with one of these has, or may have, more to come than its head.
_MORE = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})

_TIMES = [b"x-process-time: 0.%06d\r\n\r\n" % micros for micros in range(1000)]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may take: bytes of a request's head and target, and seconds."""

    head: int = 32 * 1024
    target: int = 8 * 1024
    head_seconds: float = 15
    body_seconds: float = 60
    idle_seconds: float = 75
    # In this time a client that is sent something must have taken at least so many bytes.
    stalled_seconds: float = 30
    stalled_bytes: int = 8 * 1024


class Watch:
    """What the lanes of a process share. Ticks each second while there are any."""

    def __init__(self, serving: Serving, limits: Limits | None = None) -> None:
        self.serving = serving
        self.limits = limits or Limits()
        self.date = b""
        self._lanes: set[Lane] = set()
        self._timer: asyncio.TimerHandle | None = None

    def protocol(self, **of_uvicorn: Any) -> "Lane":
        """A new connection's protocol: for uvicorn's setting `http`."""
        return Lane(self, **of_uvicorn)

    def enter(self, lane: "Lane") -> None:
        self._lanes.add(lane)
        if self._timer is None:
            self._tick(lane.loop)

    def leave(self, lane: "Lane") -> None:
        self._lanes.discard(lane)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.time()
        self.date = b"date: %s\r\n" % formatdate(now, usegmt=True).encode()
        for lane in [lane for lane in self._lanes if lane.overdue(loop.time())]:
            lane.cut_off()
        # On the second, so that the date is never behind.
        self._timer = loop.call_later(1 - now % 1, self._tick, loop) if self._lanes else None


class _Flow(FlowControl):
    """Flow control that stops the parser too: bytes may be here already when reading is paused."""

    def __init__(self, transport: asyncio.Transport, resumed: Callable[[], object]) -> None:
        super().__init__(transport)
        self._resumed = resumed

    def resume_reading(self) -> None:
        super().resume_reading()
        self._resumed()


class Lane(HttpToolsProtocol):
    """One connection."""

    # httptools calls what is there; uvicorn's builds a scope, and a hit needs none.
    on_message_begin = None  # type: ignore[assignment]

    def __init__(self, watch: Watch, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self.watch = watch
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self._open = True  # there may be more requests
        self._handed = False  # the message that is being read is uvicorn's
        self._head_size = 0
        self._held = b""  # received, and not yet for the parser
        # For the watch: was a head completed since it last looked; what was done then, since when, and what was unsent.
        self._moved = True
        self._doing = ""
        self._since = 0.0
        self._unsent = 0

    # -- the transport's callbacks ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        self.flow = _Flow(transport, self._resumed)
        self.watch.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open = False
        self._held = b""
        self.watch.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        if len(data) > _SLICE or self._held:
            self._held += data
            return self._feed_held()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            return self._unparsed(error)
        if self.url or self.headers:  # in the midst of a head, or of trailers
            self._head_size += len(data)
            if self._head_size > self.watch.limits.head:
                self.refuse(431)

    def _resumed(self) -> None:
        if self._held:
            self.loop.call_soon(self._feed_held)

    def _feed_held(self) -> None:
        held, self._held = self._held, b""
        at = 0
        while at < len(held) and self._open and not self.flow.read_paused:
            self.data_received(held[at : at + _SLICE])
            at += _SLICE
        self._held = held[at:] if self._open else b""

    def _unparsed(self, error: httptools.HttpParserError) -> None:
        if isinstance(error, httptools.HttpParserUpgrade):
            # What follows would be another protocol. None is spoken here, and the parser reads no further.
            self._open = False
            if self.cycle is not None:
                self.cycle.keep_alive = False
            return
        if isinstance(error, httptools.HttpParserCallbackError) and not _is_of_client(error.__context__):
            _log.error("request.failed", exc_info=error.__context__)
        self.refuse(400)

    # -- the parser's callbacks ------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        began = perf_counter_ns()
        self._moved = True
        target, headers = self.url, self.headers
        self.url, self.headers, self._head_size = b"", [], 0
        if not self._open:
            return
        cycle = self.cycle
        if (cycle is None or cycle.response_complete) and not self.flow.write_paused:
            fields = dict(headers)
            if len(fields) != len(headers):
                fields = joined(headers)
            if _MORE.isdisjoint(fields) and len(target) <= self.watch.limits.target:
                entry, query = self.watch.serving.published.find(target, fields)
                if entry is not None and self._answer(entry, fields, query, target, began):
                    return
        self._hand_over(target, headers)

    def on_message_complete(self) -> None:
        if self._handed:
            self._handed = False
            super().on_message_complete()

    # -- answers ---------------------------------------------------------------------------------------------------

    def _answer(self, entry: Entry, fields: Fields, query: bytes, target: bytes, began: int) -> bool:
        """Writes it; False if it is to be read from the disk, which is not for a callback to do."""
        parser = self.parser
        status, blocks, body = entry.respond(parser.get_method(), fields, query)
        whole = body.__class__ is bytes
        if not whole and any(isinstance(piece, Part) for piece in (body if isinstance(body, list) else (body,))):
            return False
        # HTTP/1.0 would have to be told that a connection stays open; it is closed instead, as uvicorn does.
        keep = parser.should_keep_alive() and (b"connection" not in fields or parser.get_http_version() != "1.0")
        took = (perf_counter_ns() - began) // 1000
        last = _TIMES[took] if took < 1000 else b"x-process-time: %.6f\r\n\r\n" % (took / 1e6)
        if not keep:
            last = b"connection: close\r\n" + last
        if whole and len(body) < _JOINED:  # type: ignore[arg-type]
            self.transport.write(b"".join((*blocks, self.watch.date, last, body)))  # type: ignore[arg-type]
        else:
            head = b"".join((*blocks, self.watch.date, last))
            self.transport.writelines([head, *(body if isinstance(body, list) else (body,))])  # type: ignore[list-item]
        self.server_state.total_requests += 1
        if self.access_log:
            self._log_access(target, status)
        if not keep:
            self._open = False
            self.transport.close()
        return True

    def _log_access(self, target: bytes, status: int) -> None:
        self.access_logger.info(
            '%s - "%s %s HTTP/%s" %d',
            ":".join(map(str, self.client or ())),
            self.parser.get_method().decode("latin-1"),
            target.decode("latin-1"),
            self.parser.get_http_version(),
            status,
        )

    def _hand_over(self, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Lets uvicorn have the request, as if it had read the head itself."""
        if len(target) > self.watch.limits.target:
            return self.refuse(414)
        self._handed = True
        super().on_message_begin()
        self.url = target
        self.headers += headers  # the list that is in the scope already
        self.expect_100_continue = any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in headers
        )
        try:
            super().on_headers_complete()
        finally:
            # Trailers come as headers too; without this they would be put to those of the request.
            self.url, self.headers = b"", []

    def refuse(self, status: int) -> None:
        """Answers what could not be read, and closes: where the next request would begin is not known."""
        self._open = False
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()  # the answers to earlier ones are not all written, so this one has no place
            return
        text = f"{HTTPStatus(status).phrase}.\n".encode()
        block = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n" % len(text)
        self.transport.write(b"".join((status_line(status), block, self.watch.date, _TIMES[0], text)))
        self.connections.discard(self)
        self.watch.leave(self)
        self.transport.set_protocol(_Lingering(self.transport, self.loop))

    # -- time ------------------------------------------------------------------------------------------------------

    def overdue(self, now: float) -> bool:
        """Whether the client has had its time. Called each second; `now` is the loop's."""
        doing, seconds = self._state()
        unsent = self.transport.get_write_buffer_size()
        taken = doing == "sending" and self._unsent - unsent >= self.watch.limits.stalled_bytes
        if self._moved or taken or doing != self._doing:
            self._moved, self._doing, self._since, self._unsent = False, doing, now, unsent
        return now - self._since > seconds

    def _state(self) -> tuple[str, float]:
        """What the connection is at, and for how many seconds it may be."""
        limits = self.watch.limits
        if self.flow.write_paused:
            return "sending", limits.stalled_seconds
        if self.cycle is not None and not self.cycle.response_complete:
            return ("body", limits.body_seconds) if self.cycle.more_body else ("working", math.inf)
        return ("head", limits.head_seconds) if self.url else ("idle", limits.idle_seconds)

    def cut_off(self) -> None:
        """Ends the connection: with an answer where one was being asked for."""
        if self._doing == "head":
            self.refuse(408)
        else:
            self.transport.abort()


class _Lingering(asyncio.Protocol):
    """Reads on for a while after the last answer: closed with bytes unread, a connection is reset, and it is lost."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(2, transport.abort)
        transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()


def _is_of_client(error: BaseException | None) -> bool:
    return isinstance(error, httptools.HttpParserError | UnicodeDecodeError)
