"""Fixtures that every part shares: sites in a temporary folder, settings, a running app, and patience."""

import asyncio
import json
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
import structlog
import uvicorn
from fastapi import FastAPI

from server.app import create_app
from server.settings import Settings, load
from tests import postgresql, provision
from tests.provision import furnish

REPOSITORY = Path(__file__).parent.parent
CI = os.environ.get("CI") == "true"

SITE_TOML = """
title = "Bike Shed"
[mail]
from = "Bike Shed <hello@bikeshed.example>"
notify = ["owner@bikeshed.example"]
[signup]
double_opt_in = false
[signup.fields.colour]
type = "select"
label = "Which colour?"
required = true
choices = ["Red", "Green"]
[signup.fields.message]
type = "textarea"
max = 100
"""

# A site whose form has a field of every type, none of them required.
EVERY_FIELD = """
title = "Forms"
[mail]
from = "f@forms.example"
notify = ["o@forms.example"]
[signup]
double_opt_in = false
""" + "".join(
    f'[signup.fields.f_{kind}]\ntype = "{kind}"\n'
    for kind in ("text", "textarea", "email", "tel", "number", "date", "checkbox")
)
EVERY_FIELD += '[signup.fields.f_select]\ntype = "select"\nchoices = ["Red", "Dark green"]\n'


hypothesis.settings.register_profile("soak", max_examples=500, stateful_step_count=60, deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="the long form of the tests that have one")


def plain_logs() -> None:
    """What structlog does unasked, but for its tracebacks: drawn with every local variable, each takes seconds."""
    structlog.reset_defaults()
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])


def pytest_configure(config: pytest.Config) -> None:
    plain_logs()
    if config.getoption("--soak"):
        hypothesis.settings.load_profile("soak")


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether the long form is asked for."""
    return bool(request.config.getoption("--soak"))


def skip_or_fail(reason: str) -> None:
    """What a missing service or browser means: a skip on a user's machine, a failure in CI, which installs it."""
    if CI:
        pytest.fail(f"in CI this must be there: {reason}")
    pytest.skip(reason)


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    """A folder of sites with one in it, `bikes`."""
    add_site(tmp_path / "sites", "bikes", SITE_TOML)
    return tmp_path / "sites"


def add_site(sites: Path, slug: str, toml: str, files: dict[str, str] | None = None) -> Path:
    """Makes a site; `files` are those in public/, besides the first page."""
    folder = sites / slug
    (folder / "public").mkdir(parents=True)
    (folder / "site.toml").write_text(toml, encoding="utf-8")
    for name, text in {"index.html": f"<!doctype html><title>{slug}</title>", **(files or {})}.items():
        file = folder / "public" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def with_domains(sites: Path, domains: Mapping[str, Iterable[str]]) -> Path:
    """A copy of the repository's sites as `sites`, each with domains of its own."""
    shutil.copytree(REPOSITORY / "sites", sites)
    for slug, names in domains.items():
        toml = sites / slug / "site.toml"
        toml.write_text(f"hosts = {json.dumps(list(names))}\n{toml.read_text('utf-8')}", "utf-8")
    return sites


# For a test that is about SQLite's own ways.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def postgresql_url() -> Iterator[str]:
    """A PostgreSQL database of its own that has its tables."""
    if reason := postgresql.missing():
        skip_or_fail(reason)
    with postgresql.lent() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of its own that has its tables: whatever is asked of one must hold for both engines."""
    if request.param == "sqlite":
        yield provision.database(tmp_path / "doorbell.db")
        return
    yield request.getfixturevalue("postgresql_url")


@pytest.fixture
def environ(tmp_path: Path, sites: Path) -> dict[str, str]:
    """An environment for a server of its own; tests add to it."""
    return {"DOORBELL_SITES_DIR": str(sites), "DOORBELL_DATA_DIR": str(tmp_path / "var")}


def keeping(environ: dict[str, str], database_url: str) -> dict[str, str]:
    """The environment of a server that keeps its rows there."""
    return environ | {"DOORBELL_DATABASE_URL": database_url, "DOORBELL_SECRET_KEY": "a secret of some length"}


@pytest.fixture
def settings(environ: dict[str, str]) -> Settings:
    return load(environ, env_file=None)


@asynccontextmanager
async def running(app: FastAPI, peer: str = "127.0.0.1") -> AsyncIterator[httpx.AsyncClient]:
    """The app with its lifespan open, and a client whose requests come from `peer`."""
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(peer, 50000))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            yield client


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[int]:
    """The app under uvicorn on a port of its own, as `serve` runs it: for what a client library would tidy up."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan="on", log_config=None, http="httptools", ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await eventually(lambda: server.started or serving.done())
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await serving
        listener.close()


async def exchange(port: int, request: bytes) -> bytes:
    """What the server answers to these very bytes, until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def rows(settings: Settings, query: str) -> list[tuple[Any, ...]]:
    """What the database says, read past the server."""
    return provision.ask(settings.database_url, query)


async def alter(settings: Settings, statement: str) -> None:
    """Writes to the database past the server, which goes on meanwhile: it may hold the lock just now."""
    await asyncio.to_thread(rows, settings, statement)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app with the site `bikes` and the built-in mailbox."""
    furnish(settings.data_dir)
    async with running(create_app(settings)) as client:
        yield client


@contextmanager
def unprivileged() -> Iterator[Path]:
    """A folder of nobody's; inside, this process is nobody where it was root, to whom no file is locked."""
    nobody = 65534
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        if root:
            os.chown(folder, nobody, nobody)
            os.seteuid(nobody)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)


async def eventually(found: Callable[[], Awaitable[bool]] | Callable[[], bool], seconds: float = 20) -> None:
    """Waits until `found` answers True; fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while True:
            answer = found()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.02)
