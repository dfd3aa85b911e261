"""uvicorn's HTTP protocol, with a fast lane: what is in the table is answered in the parser's callback, and a request
that was seen before, byte for byte, without the parser.

Everything else goes on to uvicorn as it came. The lane answers only while no other answer of the connection is under
way and the client reads, so order and back-pressure are uvicorn's own.
"""

import asyncio
import math
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from time import perf_counter_ns
from typing import Any
from urllib.parse import quote, unquote

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from server import log
from server.hosting.asgi import joined
from server.hosting.resource import Entry, Fields, Part, status_line
from server.hosting.seen import Known, process_time
from server.hosting.watch import Watch
from server.metrics import hits

if sys.platform != "win32":
    import fcntl
    import termios

_log = log.get(__name__)

# Fed to the parser at a time: it cannot be stopped within, so this bounds what a client can ask for without reading.
_SLICE = 4096
_HIGH_WATER = 256 * 1024
# A longer request is not kept with its answer.
_SEEN_BYTES = 2048
_END = b"\r\n\r\n"
# Seconds that a client has to read a refusal, after which it is cut off.
_LINGERING = 2
# A request with one of these has, or may have, more to come than its head.
_MORE = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})

# Absolute-form (RFC 9112 section 3.2.2): authority, without user information, and the rest.
_ABSOLUTE = re.compile(rb"https?://([^/?#@]+)((?:[/?][^#]*)?)", re.IGNORECASE)


def protocol(watch: Watch) -> Callable[..., "Lane"]:
    """For uvicorn's setting `http`."""
    return partial(Lane, watch)


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
        self.ws_protocol_class = None  # with one, uvicorn would leave upgrades without an answer of its own
        self.watch = watch
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self._open = True  # there may be more requests
        self._handed = False  # the message that is being read is uvicorn's
        self._running: RequestResponseCycle | None = None
        self._before = self.cycle  # the one before the last
        self._framing = b""  # of a body that the parser takes for another protocol
        self._refused = 0  # the status of the last answer, which is the lane's own
        self._lingering = False  # it is sent, and the client has some time to read it
        self._head_size = 0
        self._rests = True  # all that came was whole requests
        self._ready = False  # and the next one, if it was seen before, may be answered at once
        self._answered: Known | None = None  # with this, by the lane
        self._held = b""  # received, and not yet for the parser
        self._room = _SLICE  # more than that does not go straight to the parser; -1: nothing does
        # For the watch: was there progress since it last looked; what was done then, since when, and what was unsent.
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
        self._stop()
        # uvicorn tells only the last of them, and another one may be about to write.
        for cycle in filter(None, (self._running, *(cycle for cycle, _ in self.pipeline))):
            cycle.disconnected = True
            cycle.message_event.set()
        self._held = b""
        self.watch.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        seen = self.watch.serving.published.seen
        known = seen.get(data)
        if known is not None and self._ready:
            if known.date is not self.watch.date:
                known.renew(self.watch.date, perf_counter_ns())
            return self._write(known)
        if len(data) > self._room:
            return self._hold(data)
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            return self._unparsed(error, data)
        if self.url or self._handed:  # in the midst of a head, or of a body
            self._head_size += len(data)
            if self._head_size > self.watch.limits.head:
                self.refuse(431)
        rested, self._rests = self._rests, data.endswith(_END) and not self.url and not self._handed
        answered, self._answered = self._answered, None
        self._ready = answered is not None and self._rests and self._is_free()
        if answered is None or not self._ready:
            return
        if rested and len(data) <= _SEEN_BYTES and data.find(_END) == len(data) - len(_END):
            seen.note(data, answered)

    def pause_writing(self) -> None:
        self._ready = False
        super().pause_writing()

    def resume_writing(self) -> None:
        self._moved = True
        super().resume_writing()

    # -- what is received ------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """No more requests: what else comes is thrown away."""
        self._open = self._ready = False
        self._room = -1

    def _reads(self) -> bool:
        return (self._open or self._handed) and not self.transport.is_closing()

    def _hold(self, data: bytes) -> None:
        self._held += data
        self._feed_held()

    def _resumed(self) -> None:
        if self._held:
            self.loop.call_soon(self._feed_held)

    def _feed_held(self) -> None:
        held, self._held = self._held, b""
        at = 0
        while at < len(held) and self._reads() and not self.flow.read_paused:
            self._room = _SLICE
            self.data_received(held[at : at + _SLICE])
            at += _SLICE
        self._held = held[at:] if self._reads() else b""
        self._room = -1 if self._held or not self._open else _SLICE

    def _unparsed(self, error: Exception, data: bytes) -> None:
        if isinstance(error, httptools.HttpParserUpgrade):
            return self._not_upgraded(data[error.args[0] :])
        if isinstance(error, httptools.HttpParserCallbackError) and not _is_of_client(error.__context__):
            _log.error("request.failed", exc_info=error.__context__)
            return self.refuse(500)
        self.refuse(400)

    def _not_upgraded(self, rest: bytes) -> None:
        """The request is answered as it is, and the last one: what follows may be in another protocol."""
        if not self._open:
            return
        self._stop()
        if self.cycle is None or self.cycle.response_complete:
            return self.transport.close()  # CONNECT, which is no name of anything: answered with 405
        self.cycle.keep_alive = False
        framing, self._framing = self._framing, b""
        if framing:
            # The parser has passed over the body. With a head of ours it reads one again.
            self._room = len(framing) + len(rest) + _SLICE
            self.data_received(b"POST / HTTP/1.1\r\n%s\r\n%s" % (framing, rest))
            self._room = -1

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
        if self._is_free():
            fields = dict(headers)
            if len(fields) != len(headers):
                fields = joined(headers)
            if self._is_plain(fields) and len(target) <= self.watch.limits.target:
                entry, query = self.watch.serving.published.find(target, fields)
                if entry is not None and self._answer(entry, fields, query, target, began):
                    return
        self._hand_over(target, headers)

    def _is_free(self) -> bool:
        """Whether an answer may be written now: no other is under way, and the client reads."""
        return self._open and not self.flow.write_paused and (self.cycle is None or self.cycle.response_complete)

    def _is_plain(self, fields: Fields) -> bool:
        """Nothing follows its head, and it has a Host, which before HTTP/1.1 may be missing."""
        return _MORE.isdisjoint(fields) and (b"host" in fields or self.parser.get_http_version() == "1.0")

    def on_body(self, body: bytes) -> None:
        if self._handed:
            self._head_size = 0
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._handed and not self._framing:
            self._handed = False
            self.headers = []  # trailers: not those of the next request
            super().on_message_complete()

    # -- answers ---------------------------------------------------------------------------------------------------

    def _answer(self, entry: Entry, fields: Fields, query: bytes, target: bytes, began: int) -> bool:
        """Answers; False if that is to be read from the disk, which is not for a callback to do."""
        parser = self.parser
        status, blocks, body = entry.respond(parser.get_method(), fields, query)
        if isinstance(body, Part) or (isinstance(body, list) and any(isinstance(piece, Part) for piece in body)):
            return False
        # HTTP/1.0 would have to be told that a connection stays open; it is closed instead, as uvicorn does.
        keep = parser.should_keep_alive() and (b"connection" not in fields or parser.get_http_version() != "1.0")
        known = Known(b"".join(blocks if keep else (*blocks, b"connection: close\r\n")), body, hits(status))
        known.renew(self.watch.date, began)
        self._write(known)
        if self.access_log:
            self._log_access(target, status)
        elif not isinstance(body, list):  # one of several ranges is never the same twice
            self._answered = known
        if not keep:
            self._stop()
            self.transport.close()
        return True

    def _write(self, known: Known) -> None:
        if known.rest:
            self.transport.writelines([known.first, *known.rest])  # type: ignore[list-item]
        else:
            self.transport.write(known.first)
        self._moved = True
        known.count[0] += 1

    def _log_access(self, target: bytes, status: int) -> None:
        """A line as uvicorn writes it."""
        path, mark, query = target.decode("latin-1").partition("?")
        self.access_logger.info(
            '%s - "%s %s HTTP/%s" %d',
            ":".join(map(str, self.client or ())),
            self.parser.get_method().decode("latin-1"),
            quote(unquote(path)) + (mark + query if query else ""),
            self.parser.get_http_version(),
            status,
        )

    def _hand_over(self, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Lets uvicorn have the request, as if it had read the head itself."""
        self._answered = None  # what the lane has answered before it is not all that came
        if len(target) > self.watch.limits.target:
            return self.refuse(414)
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if not target.startswith(b"/") and (target, method) != (b"*", b"OPTIONS"):
            absolute = _ABSOLUTE.fullmatch(target)
            if absolute is None:
                return self.refuse(400)
            target, headers = _origin_form(absolute, method, version, headers)
        if self.parser.should_upgrade():
            self._framing = _framing(headers)
        super().on_message_begin()
        self.url = target
        self.headers += headers  # the list that is in the scope already
        self.expect_100_continue = version != "1.0" and any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in headers
        )
        self._before = self.cycle
        try:
            super().on_headers_complete()
            self._handed = True
        finally:
            self.url, self.headers = b"", []

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # the watch ends what is idle
        if self._refused and self.cycle.response_complete and not self.transport.is_closing():
            self._say_refused()

    def refuse(self, status: int) -> None:
        """Answers what could not be read, once what was before it is answered, and closes: where the next request
        would begin is not known."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = status
        self._stop()
        self._held = b""
        if self._handed:  # it is in the midst of its body
            if self.cycle.response_started:
                return self.transport.close()  # no place for another answer
            self._handed = False
            self._take_back()
        if self.cycle is None or self.cycle.response_complete:
            self._say_refused()

    def _take_back(self) -> None:
        """Ends the last request, which is not answered yet, as if it had never been handed over."""
        if self.pipeline:
            self.pipeline.popleft()
        else:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.cycle = self._before

    def _say_refused(self) -> None:
        """Sends the last answer, and reads on for a while: closed with bytes unread, a connection is reset, and the
        answer is lost."""
        text = f"{HTTPStatus(self._refused).phrase}.\n".encode()
        block = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n" % len(text)
        head = (status_line(self._refused), self.watch.serving.published.guard, block, self.watch.date)
        self.transport.write(b"".join((*head, process_time(perf_counter_ns()), text)))
        hits(self._refused)[0] += 1
        self.transport.write_eof()
        self.flow.resume_reading()
        self._lingering = True

    # -- time ------------------------------------------------------------------------------------------------------

    def overdue(self, now: float) -> bool:
        """Whether the client has had its time. Called each second; `now` is the loop's."""
        unsent = self.transport.get_write_buffer_size()
        if unsent:
            unsent += _queued(self.transport)
        doing, seconds = self._state(unsent)
        taken = doing == "sending" and self._unsent - unsent >= self.watch.limits.stalled_bytes
        if self._moved or taken or doing != self._doing:
            self._moved, self._doing, self._since, self._unsent = False, doing, now, unsent
        return now - self._since > seconds

    def _state(self, unsent: int) -> tuple[str, float]:
        """What the connection is at, and for how many seconds it may be."""
        limits = self.watch.limits
        working = self.cycle is not None and not self.cycle.response_complete
        if unsent and (not working or self.flow.write_paused or self.transport.is_closing()):
            return "sending", limits.stalled_seconds
        if self._lingering:
            return "lingering", _LINGERING
        if self._handed and not self.flow.read_paused:
            return "body", limits.body_seconds
        if working:
            return "working", math.inf
        return ("head", limits.head_seconds) if self.url else ("idle", limits.idle_seconds)

    def cut_off(self) -> None:
        """Ends the connection: with an answer where one was being asked for."""
        if self._doing in ("head", "body") and not self._refused:
            self.refuse(408)
        else:
            self.transport.abort()


def _origin_form(
    absolute: re.Match[bytes], method: bytes, version: str, headers: list[tuple[bytes, bytes]]
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Target and headers of a request in absolute-form: its authority is the host, whatever Host says."""
    authority, target = absolute.groups()
    if not target.startswith(b"/"):
        target = b"*" if method == b"OPTIONS" and not target else b"/" + target
    others = [header for header in headers if header[0] != b"host"]
    # Without a Host, or with two, HTTP/1.1 is out of order all the same.
    if len(headers) - len(others) == 1 or version == "1.0":
        headers = [(b"host", authority), *others]
    return target, headers


def _framing(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The lines of a head that say how long its body is."""
    names = (b"content-length", b"transfer-encoding")
    return b"".join(b"%s: %s\r\n" % (name, value) for name, value in headers if name in names)


def _queued(transport: asyncio.Transport) -> int:
    """Bytes that the kernel has taken, and the client has not: there may be megabytes, so that for long nothing seems
    to move. 0 where there is no telling."""
    if sys.platform != "win32":
        with suppress(OSError, ValueError):
            queued = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
            return int.from_bytes(queued, sys.byteorder)
    return 0


def _is_of_client(error: BaseException | None) -> bool:
    return isinstance(error, httptools.HttpParserError | UnicodeDecodeError)
