"""Which pages may send a site's form: the Origin of a post (RFC 6454), and CORS for forms that stand elsewhere.

A preflight cannot see which site it is for: it answers for all sites, and each post is checked for its own.
"""

import re
from typing import Protocol
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.i18n import Text
from server.site import Site
from server.web.pages import language
from server.web.problems import Problem, respond

# Seconds that a browser may keep what a preflight said; Chromium keeps it no longer.
_PREFLIGHT_SECONDS = 7200
# What pages elsewhere may use.
_ENDPOINT = re.compile(r"(/signup)|/_doorbell/(?:token|challenge)/[^/]+")


def origins(site: Site) -> frozenset[str]:
    """The origins of a site besides the one that its form is sent to: its domains, and those that it allows."""
    return frozenset(site.signup.allowed_origins) | {
        f"{scheme}://{host}" for host in site.hosts for scheme in ("https", "http")
    }


def check(request: Request, site: Site) -> None:
    """Raises Problem 403 for a post from a page that is not the site's.

    Browsers say where a post is from, and no page can keep them from it. Who says nothing at all is a program, which
    could say anything. `Origin: null` is nobody's.
    """
    headers = request.headers
    origin, host = headers.get("origin"), headers.get("host", "").lower()
    if headers.get("sec-fetch-site") == "same-origin":
        return
    if origin is None and "referer" not in headers and "sec-fetch-site" not in headers:
        return
    if origin is not None and (_authority(origin) == host or origin.lower() in origins(site)):
        return
    raise Problem(403, Text("This form was sent from a page that is not one of this site's."))


def _authority(origin: str) -> str | None:
    """Host and port; None for what is no origin."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


class Sharing(Protocol):
    """What says which origins there are: those of all sites, as they are now."""

    @property
    def origins(self) -> frozenset[str]: ...


class Cors:
    """Lets pages of `sharing.origins` read what the form's endpoints answer, errors too, and answers preflights."""

    def __init__(self, app: ASGIApp, sharing: Sharing) -> None:
        self.app = app
        self._sharing = sharing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = _ENDPOINT.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None:
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        allowed = origin.lower() in self._sharing.origins

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.add_vary_header("Origin")
                if allowed:
                    answer["access-control-allow-origin"] = origin
                    answer["access-control-expose-headers"] = "Retry-After"
            await send(message)

        app = self.app
        if scope["method"] == "OPTIONS" and origin and "access-control-request-method" in headers:
            app = _preflight("POST" if endpoint[1] else "GET") if allowed else _refusal(Request(scope))
        await app(scope, receive, told)


def _refusal(request: Request) -> Response:
    return respond(Problem(403, Text("No site here has its forms on that origin.")), language(request))


def _preflight(method: str) -> Response:
    allowed = {
        "access-control-allow-methods": method,
        "access-control-allow-headers": "Content-Type, Idempotency-Key",
        "access-control-max-age": str(_PREFLIGHT_SECONDS),
    }
    return Response(status_code=204, headers=allowed)
