"""What `app.py` puts on the application for the routes, as typed dependencies.

They are `async def`: FastAPI runs plain functions in threads, one after the other. What a signup needs is had by one
call instead: each dependency costs 15 µs, about half of what validating the form does.
"""

import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request

from server.db import Database
from server.limits import Gate
from server.runtime import Runtime
from server.signing import Keys
from server.signup import Reception
from server.site import Site
from server.web.client import Proxies
from server.web.problems import OPERATOR_ONLY, Problem

# RFC 7239, and what proxies send in its place.
_FORWARDING = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")


async def _receptions(request: Request) -> Mapping[str, Reception]:
    found: Mapping[str, Reception] = request.app.state.current.sites.receptions
    return found


async def _runtime(request: Request) -> Runtime:
    found: Runtime = request.app.state.runtime
    return found


@dataclass(frozen=True, slots=True)
class Intake:
    """What a signup needs: the sites, where to keep it, what to believe, and whom to tell."""

    receptions: Mapping[str, Reception]
    database: Database
    gate: Gate
    keys: Keys
    proxies: Proxies
    wake: Callable[[], Awaitable[None]]


def intake(request: Request) -> Intake:
    """That of the program which has the request."""
    state = request.app.state

    # As a background task too in the loop, where what it wakes waits: asyncio's events are not for threads.
    async def wake() -> None:
        state.wake()

    sites = state.current.sites.receptions
    return Intake(sites, state.runtime.database, state.gate, state.keys, state.proxies, wake)


Receptions = Annotated[Mapping[str, Reception], Depends(_receptions)]
Running = Annotated[Runtime, Depends(_runtime)]


async def operator(request: Request) -> None:
    """Lets an operator in: a loopback or private peer, without a proxy in between, that asked for a local host.

    The host is checked too, for a page elsewhere can have its own name resolve to us (DNS rebinding).
    Raises Problem 403.
    """
    if request.app.state.ops == "public":
        return
    local_peer = request.client is not None and _is_local(request.client.host)
    proxied = any(name in request.headers for name in _FORWARDING)
    if not local_peer or proxied or not _is_local(_host(request)):
        raise Problem(403, OPERATOR_ONLY)


def _host(request: Request) -> str:
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _is_local(host: str) -> bool:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        # A name without a dot is one of this network (`web` in a compose file): it cannot be anybody's domain.
        return bool(host) and ("." not in host or host.endswith(".localhost"))
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_loopback or ip.is_private


def of_host(request: Request, receptions: Mapping[str, Reception]) -> Site | None:
    """The site whose own domain was asked."""
    host = _host(request).rstrip(".")
    return next((reception.site for reception in receptions.values() if host in reception.site.hosts), None)


def home(request: Request, site: Site) -> str:
    """Where the pages of `site` begin, for whoever asked: the root of its own domain, elsewhere its path."""
    return "/" if _host(request).rstrip(".") in site.hosts else f"/{site.slug}/"


Operator = Depends(operator)
