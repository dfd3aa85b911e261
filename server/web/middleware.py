"""Plain ASGI classes, each with one concern. `app.py` lists them, outermost first.

Not BaseHTTPMiddleware: it buffers, slows every request, and has cancelled background tasks.
"""

import asyncio
import re
from collections.abc import Callable
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import log, metrics, tracing
from server.i18n import Text
from server.site import RESERVED_SLUGS
from server.web.pages import language
from server.web.problems import Problem, respond

_log = log.get(__name__)

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    # Not no-referrer: with it Chromium sends `Origin: null` from a plain same-origin form.
    "referrer-policy": "strict-origin-when-cross-origin",
    "x-frame-options": "SAMEORIGIN",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
# Others are whatever a client thinks of; OpenTelemetry's conventions put one word for all of them.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
_SECURITY_FIELDS = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


def _on_start(send: Send, change: Callable[[MutableHeaders], None]) -> Send:
    """`send` that lets `change` see the headers of the response before they go."""

    async def changed(message: Message) -> None:
        if message["type"] == "http.response.start":
            change(MutableHeaders(scope=message))
        await send(message)

    return changed


class Timing:
    """X-Process-Time: seconds from here until the response began. They are counted too, by the first part of the path
    where that is the server's own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun = perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                seconds = perf_counter() - begun
                MutableHeaders(scope=message)["x-process-time"] = f"{seconds:.6f}"
                metrics.answered(_route(scope["path"]), message["status"], seconds)
            await send(message)

        await self.app(scope, receive, timed)


def _route(path: str) -> str:
    first = path[1:].partition("/")[0]
    return first if first in RESERVED_SLUGS else metrics.FILES


class RequestId:
    """X-Request-ID: in every log line of the request, and in those of the mails that it causes. A client's own is not
    believed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        with tracing.span(method, "server", tracing.incoming(Headers(scope=scope))) as span:

            async def stamped(message: Message) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message)["x-request-id"] = span.id
                    _note(span, scope, method, message["status"])
                await send(message)

            await self.app(scope, receive, stamped)


def _note(span: tracing.Span, scope: Scope, method: str, status: int) -> None:
    route: str | None = getattr(scope.get("route"), "path", None)
    if route is not None:
        span.rename(f"{method} {route}")
    span.note_http(method, route, status)
    if status >= 500:
        span.fail(str(status))


class BodyLimit:
    """413 for a request body of more than `limit` bytes, declared or counted, raised where the body is read.

    Raised there and not answered here, so that the route's own error handling gives a form its page.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        declared = Headers(scope=scope).get("content-length", "0")
        # A number too long to be one is too long for us too (int() refuses more than 4,300 digits).
        seen = 0 if re.fullmatch(r"[0-9]{1,18}", declared) and int(declared) <= self.limit else self.limit + 1

        async def counted() -> Message:
            nonlocal seen
            message: Message = {} if seen > self.limit else await receive()
            seen += len(message.get("body", b""))
            if seen > self.limit:
                raise HTTPException(
                    413, Text("The request body may have at most {limit} KiB.", limit=self.limit // 1024)
                )
            return message

        await self.app(scope, counted, send)


class SecurityHeaders:
    """Headers that every answer has unless it sets its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        def fill(headers: MutableHeaders) -> None:
            own = {name for name, _ in headers.raw}
            headers.raw.extend(field for field in _SECURITY_FIELDS if field[0] not in own)

        await self.app(scope, receive, _on_start(send, fill))


class Unexpected:
    """The last resort, innermost so that its answer has every header too: a 500 that tells nothing but its id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except ClientDisconnect:
            # Gone before its body was here: nobody's fault, and nobody is left to answer.
            _log.info("request.abandoned", method=scope["method"])
        except asyncio.CancelledError:
            # The server stops, and this request has used up its grace time. It ends here with its task.
            _log.warning("request.cut", method=scope["method"])
            if not begun:
                stopping = Problem(503, Text("The server is stopping."), headers={"retry-after": "5"})
                await respond(stopping, language(Request(scope)))(scope, receive, send)
        except Exception:
            _log.exception("request.failed", method=scope["method"])
            if begun:
                raise  # too late for an answer: the server cuts the connection, and the client sees that it is cut
            failed = Problem(500, Text("Something went wrong here. It was logged."))
            await respond(failed, language(Request(scope)))(scope, receive, send)
