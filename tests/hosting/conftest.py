"""Sites on a real socket, both ways: through the lane, and through the ASGI application under plain uvicorn."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from uvicorn.loops.auto import auto_loop_factory

from server import hosting
from server.hosting import Cache, Hosting, Published, Shelf, Source
from server.hosting.lane import protocol
from server.hosting.watch import Limits, Watch
from server.site import RESERVED_SLUGS
from server.web.middleware import SECURITY_HEADERS
from tests.conftest import eventually

PUBLIC = frozenset({"signup", "thanks", "confirm", "unsubscribe", "healthz", "_doorbell"})
WAYS = ["lane", "asgi"]

Files = dict[str, str | bytes]


def write(folder: Path, files: Files) -> Path:
    """Makes a folder of files."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def publish(*sources: Source, cache: Path | None = None, budget: int = 2**28) -> Published:
    """What the program would publish of these."""
    shelf = Shelf(None if cache is None else Cache(cache), budget)
    return hosting.publish(sources, shelf, defaults=SECURITY_HEADERS, reserved=RESERVED_SLUGS, public=PUBLIC)


@dataclass
class Served:
    """Stands where the program keeps its sites; `published` may be swapped."""

    published: Published


@asynccontextmanager
async def serving(
    served: Served, way: str, limits: Limits | None = None, *, access_log: bool = False
) -> AsyncIterator[int]:
    """A server on a port of its own. What is not hosted is answered by an app that says `app` and the path."""

    async def other(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse(f"app {scope['path']}")(scope, receive, send)

    http: Any = protocol(Watch(served, limits)) if way == "lane" else "httptools"
    app = Hosting(other, served)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, access_log=access_log, server_header=False, http=http, ws="none"
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await eventually(lambda: server.started or task.done())
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


@dataclass(frozen=True)
class Reply:
    """One response as it came over the wire. Header names in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str:
        """The one header of that name; raises KeyError if it is missing or there are several."""
        found = self.all(name)
        if len(found) != 1:
            raise KeyError(f"{name}: {found}")
        return found[0]

    def all(self, name: str) -> list[str]:
        return [value for other, value in self.headers if other == name]

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))


async def read_reply(reader: asyncio.StreamReader, method: bytes = b"GET") -> Reply:
    """The next response on a connection. Raises IncompleteReadError where it is cut off."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    assert first.startswith("HTTP/1.1 "), first
    status = int(first[9:12])
    headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
    reply = Reply(status, headers, b"")
    if method == b"HEAD" or status in (204, 304) or status < 200:
        return reply
    if "content-length" in reply:
        return Reply(status, headers, await reader.readexactly(int(reply["content-length"])))
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readline()
    return Reply(status, headers, body)


def request(target: str | bytes, method: str = "GET", host: str = "localhost", **headers: str | list[str]) -> bytes:
    """A request without a body, as it goes over the wire."""
    raw = target if isinstance(target, bytes) else target.encode("latin-1")
    lines = [b"%s %s HTTP/1.1\r\nHost: %s\r\n" % (method.encode(), raw, host.encode())]
    for name, values in headers.items():
        for value in values if isinstance(values, list) else [values]:
            lines.append(b"%s: %s\r\n" % (name.replace("_", "-").encode(), value.encode("latin-1")))
    return b"".join(lines) + b"\r\n"


@dataclass(frozen=True)
class Client:
    """Asks byte by byte what it is told to: a client library would tidy it up."""

    port: int

    async def send(self, data: bytes, method: bytes = b"GET") -> Reply:
        """The answer to these very bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            return await asyncio.wait_for(read_reply(reader, method), 30)
        finally:
            writer.close()

    async def ask(
        self, target: str | bytes, method: str = "GET", host: str = "localhost", **headers: str | list[str]
    ) -> Reply:
        """The answer to a request; `if_none_match="…"` is a header, a list is several of one name."""
        return await self.send(request(target, method, host, **headers), method.encode())

    get = ask


Start = Callable[..., Any]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Through the lane, or through the ASGI application alone: the answers are the same."""
    name: str = request.param
    return name


@asynccontextmanager
async def site(folder: Path, files: Files, way: str, **options: Any) -> AsyncIterator[Client]:
    """One site, `bikes`, with these files in public/, served at /bikes/ (and its `hosts`)."""
    cache = options.pop("cache", None)
    budget = options.pop("budget", 2**28)
    source = hosting.read("bikes", write(folder / "public", files), **options)
    async with serving(Served(publish(source, cache=cache, budget=budget)), way) as port:
        yield Client(port)


# -- both ways at once ---------------------------------------------------------------------------------------------

_T = TypeVar("_T")

# What may differ between the ways: the time, how long it took, and what is about the connection alone.
_OF_THE_WAY = frozenset({"date", "x-process-time", "connection"})
_BOUNDARY = re.compile("boundary=([0-9a-f]+)")


def alike(reply: Reply) -> Reply:
    """The reply without what may differ from way to way."""
    headers = [(name, value) for name, value in reply.headers if name not in _OF_THE_WAY]
    if found := _BOUNDARY.search(str(reply.all("content-type"))):
        headers = [(name, _BOUNDARY.sub("boundary=X", value)) for name, value in headers]
        return Reply(reply.status, headers, reply.body.replace(found[1].encode(), b"X"))
    return replace(reply, headers=headers)


class Both:
    """A server for each way, in a thread of its own, for tests that are no coroutines.

    What is asked is asked of both. The answer, which must be the very same, is the one of the lane.
    """

    def __init__(self, served: Served, loop: asyncio.AbstractEventLoop) -> None:
        self.served = served
        self.ports: dict[str, int] = {}
        self._loop = loop

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Does it where the servers are."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def send(self, data: bytes, method: bytes = b"GET") -> Reply:
        """The one answer to these very bytes."""

        async def ask() -> list[Reply]:
            return await asyncio.gather(*(Client(port).send(data, method) for port in self.ports.values()))

        lane, asgi = self.run(ask())
        # What the parser refuses is not told to an application.
        unread = asgi.status == 400 and asgi.body == b"Invalid HTTP request received."
        assert (lane.status == 400) if unread else (alike(lane) == alike(asgi)), (data, lane, asgi)
        return lane

    def ask(
        self, target: str | bytes, method: str = "GET", host: str = "localhost", **headers: str | list[str]
    ) -> Reply:
        """The one answer to a request, as `Client.ask` has it."""
        return self.send(request(target, method, host, **headers), method.encode())


@contextmanager
def both(published: Published) -> Iterator[Both]:
    """A server for each way. One pair does for many tests: it takes a third of a second to start and stop."""
    served = Served(published)
    with _pair(served, lambda way: serving(served, way)) as pair:
        yield pair


@contextmanager
def programs(app: Callable[[str], FastAPI]) -> Iterator[Both]:
    """The same with the whole program, made for each way."""
    with _pair(Served(publish()), lambda way: _program(app(way), way)) as pair:
        yield pair


@asynccontextmanager
async def _program(app: FastAPI, way: str) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    http: Any = protocol(Watch(app.state.current)) if way == "lane" else "httptools"
    config = uvicorn.Config(app, lifespan="on", log_config=None, server_header=False, http=http, ws="none")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await eventually(lambda: server.started or task.done())
        assert server.started, "the program did not start"
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


@contextmanager
def _pair(served: Served, server: Callable[[str], AbstractAsyncContextManager[int]]) -> Iterator[Both]:
    loop = auto_loop_factory()()
    thread = Thread(target=loop.run_forever)
    thread.start()
    servers = {way: AsyncExitStack() for way in WAYS}
    pair = Both(served, loop)

    async def stop() -> None:
        await asyncio.gather(*(stack.aclose() for stack in servers.values()))

    try:
        # One after the other: Alembic cannot migrate two databases at once in one process.
        for way, stack in servers.items():
            pair.ports[way] = pair.run(stack.enter_async_context(server(way)))
        yield pair
    finally:
        pair.run(stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def bikes(folder: Path, files: Files, **options: Any) -> Published:
    """What one site, `bikes`, publishes of these files in public/, with options of a source (`hosts`, `spa`), and
    `cache` and `budget`."""
    cache, budget = options.pop("cache", None), options.pop("budget", 2**28)
    return publish(hosting.read("bikes", write(folder / "public", files), **options), cache=cache, budget=budget)
