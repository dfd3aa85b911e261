"""The whole program on one screen: sites, routes, middleware, mounts and the lifespan that opens and closes it all."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from email.utils import quote
from importlib.resources import files
from pathlib import Path
from secrets import token_urlsafe
from types import MappingProxyType

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware import Middleware

from server import __version__, hosting, log, metrics, progress, signup, site
from server.hosting import Cache, Content, Encoded, Hosting, Published, Shelf, SnapshotError, Source, encoded
from server.limits import Gate
from server.progress import Words
from server.runtime import Courier, Runtime, Step, opened
from server.settings import Settings
from server.signing import Keys, kept
from server.signup import Reception
from server.site import RESERVED_SLUGS, Site, SiteError
from server.web import consent, live, mailbox, operate, origin, problems, script, words
from server.web import signup as signup_routes
from server.web.client import Proxies
from server.web.live import Live
from server.web.middleware import SECURITY_HEADERS, BodyLimit, RequestId, SecurityHeaders, Timing, Unexpected
from server.web.origin import Cors
from server.web.pages import STATIC

_log = log.get(__name__)

BODY_LIMIT = 64 * 1024

# FastAPI's own, which would tell paths, queries, clients' addresses and the words of errors. Ours: server/tracing.py.
NO_TELEMETRY = TelemetryConfig(tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False)

COMPRESSING = Words("Compressing", "Compressed", "files")

# What the API answers on the host of a site too; the rest is the operator's.
PUBLIC = frozenset({"signup", "thanks", "confirm", "unsubscribe", "healthz", "_doorbell"})


@dataclass(frozen=True, slots=True)
class Sites:
    """Everything that comes from files, built at once and swapped as one: by slug, what a signup needs of each site;
    and what is hosted, by host and path. `origins` are those of pages elsewhere that hold a site's form. `version`
    names the state of the files, for pages that reload."""

    receptions: Mapping[str, Reception]
    published: Published
    origins: frozenset[str]
    version: str


class Current:
    """The sites that are served now. They are swapped whole, and only here: a request sees the old ones or the new."""

    sites: Sites
    published: Published

    def __init__(self, settings: Settings, live: Live | None = None) -> None:
        self.keys: Keys | None = None
        self._settings = settings
        self._live = live
        self._cache = Cache(settings.data_dir / "cache")
        self._loading = asyncio.Lock()

    async def load(self) -> None:
        """Reads them in a thread. Raises SiteError; what was served is served on."""
        async with self._loading:
            before = self.published.contents if hasattr(self, "published") else {}
            sites = await asyncio.to_thread(self._read, before)
            self.sites, self.published = sites, sites.published
            # Not those of before: answers under way may be sent from there.
            await asyncio.to_thread(self._cache.prune, self.published.contents.keys() | before.keys())
        if self._cache.fault:
            _log.warning("hosting.not_compressed", reason=self._cache.fault)
        metrics.loaded(len(self.sites.receptions))
        self._tell()

    def _read(self, before: Mapping[str, Encoded]) -> Sites:
        # Looking for garbage among all that is made here takes longer than to make it, and stops every request.
        gc.disable()
        try:
            return load_sites(self._settings, self._cache, before, reloads=self._live is not None, keys=self.keys)
        finally:
            gc.enable()

    async def reload(self) -> None:
        """The same while they are served. Raises nothing: what is wrong is logged, line by line."""
        try:
            await self.load()
        except SiteError as error:
            metrics.kept()
            for line in error.problems:
                _log.error("sites.kept", reason=line)
            self._tell(error.problems)
        except Exception as error:
            metrics.kept()
            _log.exception("sites.kept")
            self._tell([f"{type(error).__name__}: {error}"])
        else:
            _log.info("sites.loaded", sites=len(self.sites.receptions), bytes_in_memory=self.published.held)

    @property
    def origins(self) -> frozenset[str]:
        return self.sites.origins

    def cancel(self) -> None:
        """From any thread, and for good: a load under way compresses no more."""
        self._cache.cancel()

    def _tell(self, problems: Iterable[str] = ()) -> None:
        if self._live is not None:
            self._live.tell(self.sites.version, problems)


def load_receptions(settings: Settings, keys: Keys | None = None) -> Mapping[str, Reception]:
    """What signups need of every site, by slug, and nothing of what is hosted. Raises SiteError.

    Without `keys` they are those of the settings.
    """
    found, problems = site.load_all(settings.sites_dir)
    receptions = _receptions(settings, found.values(), keys or Keys(settings.secret_key), problems)
    if problems:
        raise SiteError(problems)
    return receptions


def _receptions(settings: Settings, found: Iterable[Site], keys: Keys, problems: list[str]) -> dict[str, Reception]:
    made: dict[str, Reception] = {}
    for one in found:
        sender = _fallback_sender(settings, one)
        try:
            made[one.slug] = signup.reception(one, base_url=settings.base_url, mail_from=sender, keys=keys)
        except SiteError as error:
            problems += error.problems
    return made


def load_sites(
    settings: Settings,
    cache: Cache | None = None,
    before: Mapping[str, Encoded] = MappingProxyType({}),
    *,
    reloads: bool = False,
    keys: Keys | None = None,
) -> Sites:
    """Reads every site, its files and its templates. Raises SiteError with every problem of all of them.

    Without `keys` links are signed with what nobody knows. Without a `cache` nothing is compressed. What is among the
    contents of `before` is not held twice. With `reloads`, pages reload themselves when these are replaced.
    """
    found, problems = site.load_all(settings.sites_dir)
    receptions = _receptions(settings, found.values(), keys or Keys([token_urlsafe(32)]), problems)
    sources = []
    for one in found.values():
        try:
            sources.append(hosting.read(one.slug, one.public, one.hosts, one.spa, shared=one.parts))
        except SnapshotError as error:
            problems += error.problems
    version = _version(found.values(), sources) if reloads else ""
    if reloads:
        sources = [_reloading(source, version) for source in sources]
    try:
        published = hosting.publish(
            [_own_files(reloads), _docs_files(), *sources],
            Shelf(cache, settings.cache_mb * 2**20, progress.on(sys.stderr, COMPRESSING), before=before),
            defaults=SECURITY_HEADERS,
            reserved=RESERVED_SLUGS,
            public=PUBLIC,
        )
        problems += [problem for one in found.values() for problem in _dead_links(one, published)]
    except SnapshotError as error:
        problems += error.problems
    if problems:
        raise SiteError(list(dict.fromkeys(problems)))
    origins = frozenset[str]().union(*(origin.origins(one) for one in found.values()))
    return Sites(MappingProxyType(receptions), published, origins, version)


def _fallback_sender(settings: Settings, one: Site) -> str | None:
    """Who a site's mail is from where its site.toml does not say."""
    if settings.mail_from or settings.smtp_url:
        return settings.mail_from
    # The built-in mailbox needs no real sender; a relay does.
    return f'"{quote(one.title)}" <noreply@localhost>'


def _dead_links(one: Site, published: Published) -> list[str]:
    """Pages that the site's site.toml sends visitors to, and that are not there."""
    named = {"signup.thanks": [one.signup.thanks or ""], "signup.next": one.signup.next}
    return [
        f"{one.folder / 'site.toml'}: {key}: there is no page {path} in {one.public}"
        for key, paths in named.items()
        for path in paths
        if path and "://" not in path and f"/{one.slug}/{path}".encode() not in published.default.entries
    ]


def _own_files(reloads: bool) -> Source:
    """What the server ships for pages."""
    ours = {file.name: file for file in STATIC.iterdir() if reloads or file.name != live.SCRIPT}
    script = STATIC / words.SCRIPT
    spoken = Content(encoded(words.translated(script.read_bytes())), script.stat().st_mtime)
    # After an update pages must not go on with the script of before.
    headers = hosting.headers("/*\n  Cache-Control: no-cache", STATIC)
    return Source("_doorbell", ours, headers=headers, composed={script: spoken})


def _docs_files() -> Source:
    """Swagger UI, from its package. For the operator alone, who is near: compressing it would take seconds."""
    swagger = Path(str(files("fastapi_swagger") / "resources"))
    names = ("swagger-ui-bundle.js", "swagger-ui.css")
    return Source("_doorbell/docs", {name: swagger / name for name in names}, compressed=False)


def _reloading(source: Source, version: str) -> Source:
    """The source as `serve --reload` has it: its pages reload themselves, and no browser keeps a file unasked."""
    fresh = hosting.headers("/*\n  ! Cache-Control\n  Cache-Control: no-cache", STATIC)
    return replace(source, script=live.element(version), headers=(*source.headers, *fresh))


def _version(found: Iterable[Site], sources: Iterable[Source]) -> str:
    """Of the files that all was made from."""
    read = [file for source in sources for file in source.files.values()]
    for one in found:
        read += [one.folder / "site.toml", one.public / "_redirects", one.public / "_headers"]
        read += [*one.parts.rglob("*"), *one.emails.glob("*")]
    return live.version(read)


def create_app(settings: Settings, *, reloads: bool = False) -> FastAPI:
    """The application. Nothing is opened before its lifespan begins.

    With `reloads`, a change below the sites folder is served at once, and open pages reload themselves.
    """
    pages = Live() if reloads else None
    current = Current(settings, pages)
    runtime = Runtime(settings, lambda: current.sites.receptions, _courier(settings))

    def open_keys() -> None:
        keys = Keys(settings.secret_key or kept(settings.data_dir / "secret.key"))
        current.keys = app.state.keys = keys
        app.state.gate = Gate(keys, settings.limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if pages is not None:  # before the first load: what changes while it reads is not missed
                await stack.enter_async_context(live.watching(settings.sites_dir, pages, current.reload))
            steps = [Step("secret key", open_keys), Step("sites", current.load), *runtime.steps()]
            await stack.enter_async_context(opened(steps))
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
            Middleware(Cors, sharing=current),
            Middleware(SecurityHeaders),
            Middleware(Unexpected),
        ],
        # The built-in ones load their assets from elsewhere, with inline script.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        telemetry=NO_TELEMETRY,
        # A redirect of the router's would repeat the Host header.
        redirect_slashes=False,
    )
    app.state.current = current
    app.state.runtime = runtime
    app.state.wake = runtime.wake
    app.state.proxies = Proxies(settings.trusted_proxies)
    app.state.ops = settings.ops
    app.state.index = settings.index
    for routes in (signup_routes.router, script.router, consent.router, operate.probes, operate.router, mailbox.router):
        app.include_router(routes)
    if pages is not None:
        app.state.live = pages
        app.include_router(live.router)
    for failure in problems.FAILURES:
        app.add_exception_handler(failure, problems.handle)
    return app


def _courier(settings: Settings) -> Courier | None:
    """Who tells the workers, where there are some."""
    if settings.broker_url is None:
        return None
    from server.tasks import Broker  # needs Celery, which only those have who use it

    return Broker(settings.broker_url)


def create_ops(settings: Settings, runtime: Runtime) -> FastAPI:
    """What an operator asks of a process that serves no sites, over what is open already."""
    app = FastAPI(
        title="Doorbell", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, telemetry=NO_TELEMETRY
    )
    app.state.runtime = runtime
    app.state.ops = settings.ops
    app.include_router(operate.probes)
    for failure in problems.FAILURES:
        app.add_exception_handler(failure, problems.handle)
    return app
