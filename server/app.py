"""The whole program on one screen: sites, routes, middleware, mounts and the lifespan that opens and closes it all."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import quote
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from fastapi import FastAPI
from starlette.middleware import Middleware

from server import __version__, hosting, signup, site
from server.hosting import Hosting, Snapshot, SnapshotError
from server.runtime import Runtime, Step, opened
from server.settings import Settings
from server.signup import Reception
from server.site import Site, SiteError
from server.web import mailbox, operate, problems
from server.web import signup as signup_routes
from server.web.middleware import BodyLimit, RequestId, SecurityHeaders, Timing, Unexpected
from server.web.pages import STATIC

BODY_LIMIT = 64 * 1024

# Outermost first: a request passes them downwards, its response upwards.
MIDDLEWARE = [
    Middleware(Timing),
    Middleware(RequestId),
    Middleware(BodyLimit, limit=BODY_LIMIT),
    Middleware(SecurityHeaders),
    Middleware(Unexpected),
]


@dataclass(frozen=True, slots=True)
class Sites:
    """Everything that comes from files, built at once and swapped as one: by slug, what a signup needs of each site;
    by first path segment, what is hosted there."""

    receptions: Mapping[str, Reception]
    mounts: Mapping[str, Snapshot]


def load_sites(settings: Settings) -> Sites:
    """Reads every site, its files and its templates. Raises SiteError with every problem of all of them."""
    found, problems = site.load_all(settings.sites_dir)
    receptions: dict[str, Reception] = {}
    mounts: dict[str, Snapshot] = {"_doorbell": hosting.of(_own_files())}
    for one in found.values():
        sender = _fallback_sender(settings, one)
        try:
            receptions[one.slug] = signup.reception(one, base_url=settings.base_url, mail_from=sender)
            mounts[one.slug] = hosting.load(one.public)
            problems += _dead_links(one, mounts[one.slug])
        except (SiteError, SnapshotError) as error:
            problems += error.problems
    if problems:
        raise SiteError(list(dict.fromkeys(problems)))
    return Sites(MappingProxyType(receptions), MappingProxyType(mounts))


def _fallback_sender(settings: Settings, one: Site) -> str | None:
    """Who a site's mail is from where its site.toml does not say."""
    if settings.mail_from or settings.smtp_url:
        return settings.mail_from
    # The built-in mailbox needs no real sender; a relay does.
    return f'"{quote(one.title)}" <noreply@localhost>'


def _dead_links(one: Site, snapshot: Snapshot) -> list[str]:
    """Pages that the site's site.toml sends visitors to, and that are not there."""
    thanks = one.signup.thanks
    if thanks is None or snapshot.look_up(thanks):
        return []
    return [f"{one.folder / 'site.toml'}: signup.thanks: there is no page {thanks} in {one.public}"]


def _own_files() -> dict[str, Path]:
    """What the server ships for pages: its own static files, and Swagger UI's from its package."""
    swagger = Path(str(files("fastapi_swagger") / "resources"))
    ours = {file.name: file for file in STATIC.iterdir()}
    return ours | {f"docs/{name}": swagger / name for name in ("swagger-ui-bundle.js", "swagger-ui.css")}


def create_app(settings: Settings) -> FastAPI:
    """The application. Nothing is opened before its lifespan begins."""
    runtime = Runtime(settings)

    def open_sites() -> None:
        app.state.sites = load_sites(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opened([Step("sites", open_sites), *runtime.steps()]):
            yield

    app = FastAPI(
        title="Doorbell",
        version=__version__,
        summary="Signups for the sites that are hosted here.",
        lifespan=lifespan,
        middleware=MIDDLEWARE,
        # The built-in ones load their assets from elsewhere, with inline script.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # A redirect of the router's would repeat the Host header.
        redirect_slashes=False,
    )
    app.state.runtime = runtime
    app.state.wake = runtime.wake
    app.state.ops = settings.ops
    app.state.index = settings.index
    for routes in (signup_routes.router, operate.router, mailbox.router):
        app.include_router(routes)
    for failure in problems.FAILURES:
        app.add_exception_handler(failure, problems.handle)
    # Whatever is no route is a page of a site, or nothing.
    app.router.default = Hosting(lambda: app.state.sites.mounts)
    return app
