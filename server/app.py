"""The whole program on one screen: sites, routes, middleware, mounts and the lifespan that opens and closes it all."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import quote
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from fastapi import FastAPI
from starlette.middleware import Middleware

from server import __version__, hosting, log, signup, site
from server.hosting import Cache, Hosting, Published, Shelf, SnapshotError, Source, progress
from server.runtime import Runtime, Step, opened
from server.settings import Settings
from server.signup import Reception
from server.site import RESERVED_SLUGS, Site, SiteError
from server.web import mailbox, operate, problems
from server.web import signup as signup_routes
from server.web.middleware import SECURITY_HEADERS, BodyLimit, RequestId, SecurityHeaders, Timing, Unexpected
from server.web.pages import STATIC

_log = log.get(__name__)

BODY_LIMIT = 64 * 1024

# What the API answers on the host of a site too; the rest is the operator's.
PUBLIC = frozenset({"signup", "thanks", "confirm", "unsubscribe", "healthz", "_doorbell"})


@dataclass(frozen=True, slots=True)
class Sites:
    """Everything that comes from files, built at once and swapped as one: by slug, what a signup needs of each site;
    and what is hosted, by host and path."""

    receptions: Mapping[str, Reception]
    published: Published


class Current:
    """The sites that are served now. They are swapped whole, and only here: a request sees the old ones or the new."""

    sites: Sites
    published: Published

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loading = asyncio.Lock()

    async def load(self) -> None:
        """Reads them in a thread. Raises SiteError; what was served is served on."""
        cache = Cache(self._settings.data_dir / "cache")
        async with self._loading:
            self.sites = await asyncio.to_thread(load_sites, self._settings, cache)
            self.published = self.sites.published
        if cache.fault:
            _log.warning("hosting.not_compressed", reason=cache.fault)

    async def reload(self) -> None:
        """The same while they are served: an error is logged, line by line."""
        try:
            await self.load()
        except SiteError as error:
            for line in error.problems:
                _log.error("sites.kept", reason=line)
        else:
            _log.info("sites.loaded", sites=len(self.sites.receptions), bytes_in_memory=self.published.held)


def load_sites(settings: Settings, cache: Cache | None = None) -> Sites:
    """Reads every site, its files and its templates. Raises SiteError with every problem of all of them.

    Without a `cache` nothing is compressed.
    """
    found, problems = site.load_all(settings.sites_dir)
    receptions: dict[str, Reception] = {}
    sources = [_own_files()]
    for one in found.values():
        sender = _fallback_sender(settings, one)
        try:
            receptions[one.slug] = signup.reception(one, base_url=settings.base_url, mail_from=sender)
            sources.append(hosting.read(one.slug, one.public, one.hosts, one.spa))
        except (SiteError, SnapshotError) as error:
            problems += error.problems
    try:
        published = hosting.publish(
            sources,
            Shelf(cache, settings.cache_mb * 2**20, progress.on(sys.stderr)),
            defaults=SECURITY_HEADERS,
            reserved=RESERVED_SLUGS,
            public=PUBLIC,
        )
        problems += [problem for one in found.values() for problem in _dead_links(one, published)]
    except SnapshotError as error:
        problems += error.problems
    if problems:
        raise SiteError(list(dict.fromkeys(problems)))
    return Sites(MappingProxyType(receptions), published)


def _fallback_sender(settings: Settings, one: Site) -> str | None:
    """Who a site's mail is from where its site.toml does not say."""
    if settings.mail_from or settings.smtp_url:
        return settings.mail_from
    # The built-in mailbox needs no real sender; a relay does.
    return f'"{quote(one.title)}" <noreply@localhost>'


def _dead_links(one: Site, published: Published) -> list[str]:
    """Pages that the site's site.toml sends visitors to, and that are not there."""
    thanks = one.signup.thanks
    if thanks is None or f"/{one.slug}/{thanks}".encode() in published.default.entries:
        return []
    return [f"{one.folder / 'site.toml'}: signup.thanks: there is no page {thanks} in {one.public}"]


def _own_files() -> Source:
    """What the server ships for pages: its own static files, and Swagger UI's from its package."""
    swagger = Path(str(files("fastapi_swagger") / "resources"))
    ours = {file.name: file for file in STATIC.iterdir()}
    ours |= {f"docs/{name}": swagger / name for name in ("swagger-ui-bundle.js", "swagger-ui.css")}
    # After an update pages must not go on with the script of before.
    return Source("_doorbell", ours, headers=hosting.headers("/*\n  Cache-Control: no-cache", STATIC))


def create_app(settings: Settings) -> FastAPI:
    """The application. Nothing is opened before its lifespan begins."""
    runtime = Runtime(settings)
    current = Current(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opened([Step("sites", current.load), *runtime.steps()]):
            yield

    app = FastAPI(
        title="Doorbell",
        version=__version__,
        summary="Signups for the sites that are hosted here.",
        lifespan=lifespan,
        # Outermost first: a request passes them downwards, its response upwards. What is hosted needs only the first.
        middleware=[
            Middleware(Timing),
            Middleware(Hosting, serving=current),
            Middleware(RequestId),
            Middleware(BodyLimit, limit=BODY_LIMIT),
            Middleware(SecurityHeaders),
            Middleware(Unexpected),
        ],
        # The built-in ones load their assets from elsewhere, with inline script.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # A redirect of the router's would repeat the Host header.
        redirect_slashes=False,
    )
    app.state.current = current
    app.state.runtime = runtime
    app.state.wake = runtime.wake
    app.state.ops = settings.ops
    app.state.index = settings.index
    for routes in (signup_routes.router, operate.router, mailbox.router):
        app.include_router(routes)
    for failure in problems.FAILURES:
        app.add_exception_handler(failure, problems.handle)
    return app
