"""Sites on a real socket, both ways: through the lane, and through the ASGI application under plain uvicorn."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from server import hosting
from server.hosting import Cache, Hosting, Published, Shelf, Source
from server.hosting.lane import Limits, Watch
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
async def serving(served: Served, way: str, limits: Limits | None = None) -> AsyncIterator[int]:
    """A server on a port of its own. What is not hosted is answered by an app that says `app` and the path."""

    async def other(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse(f"app {scope['path']}")(scope, receive, send)

    http: Any = Watch(served, limits).protocol if way == "lane" else "httptools"
    app = Hosting(other, served)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, access_log=False, server_header=False, http=http, ws="none"
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
        raw = target if isinstance(target, bytes) else target.encode("latin-1")
        lines = [b"%s %s HTTP/1.1\r\nHost: %s\r\n" % (method.encode(), raw, host.encode())]
        for name, values in headers.items():
            for value in values if isinstance(values, list) else [values]:
                lines.append(b"%s: %s\r\n" % (name.replace("_", "-").encode(), value.encode("latin-1")))
        return await self.send(b"".join(lines) + b"\r\n", method.encode())

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
