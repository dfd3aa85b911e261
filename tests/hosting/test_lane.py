"""The lane's connections, on raw sockets: order, limits, slow clients, and the end of the server."""

import asyncio
import json
import logging
import re
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
import structlog.testing
import uvicorn
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server import hosting
from server.hosting import Hosting
from server.hosting.lane import Lane, protocol
from server.hosting.resource import Answer
from server.hosting.watch import Limits, Watch
from server.metrics import hits
from tests.conftest import eventually
from tests.hosting.conftest import Reply, Served, publish, read_reply, write

PAGE = b"<!doctype html><title>bikes</title>" + b"x" * 12_000
BIG = bytes(range(256)) * 20_000  # 5 MB
FILES: dict[str, str | bytes] = {"index.html": PAGE, "a.txt": "aaa", "big.bin": BIG}
HIT = b"GET /bikes/ HTTP/1.1\r\nHost: x\r\n\r\n"
ONE_LOOP = pytest.mark.parametrize("loop", ["uvloop"], indirect=True)
SHORT = b"GET /bikes/a.txt HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(params=["uvloop", "asyncio"], autouse=True, scope="module")
def loop(request: pytest.FixtureRequest) -> None:
    """Every test here is of a server on each of the loops that uvicorn may choose."""
    Server.loop = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}[request.param]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """What the lane hands over to: the path says what it does."""
    words = scope["path"].split("/")[2:] or [""]
    headers = [(b"content-type", b"text/plain")]
    if words[0] == "slow":
        await asyncio.sleep(float(words[1]))
    body = scope["path"].encode()
    if words[0] in ("echo", "sip"):
        body, more = b"", True
        while more:
            if words[0] == "sip":
                await asyncio.sleep(0.01)
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
    if words[0] == "scope":
        told = {"headers": [[n.decode(), v.decode()] for n, v in scope["headers"]], "path": scope["path"]}
        body = json.dumps(told | {"query": scope["query_string"].decode()}).encode()
    if words[0] == "close":
        headers.append((b"connection", b"close"))
    if words[0] in ("stream", "events"):  # how many pieces, and of how many bytes
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(int(words[1])):
            await send({"type": "http.response.body", "body": b"y" * int(words[2]), "more_body": True})
            await asyncio.sleep(0.05 if words[0] == "events" else 0)
        await send({"type": "http.response.body", "body": b""})
        return
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Server:
    """A server in a thread of its own, and what is inside."""

    loop: ClassVar[Any] = None

    port: int
    uvicorn: uvicorn.Server
    watch: Watch
    served: Served
    thread: threading.Thread

    @property
    def lanes(self) -> list[Lane]:
        return [connection for connection in self.watch._connections if isinstance(connection, Lane)]


def start(served: Served, limits: Limits | None = None, **config: Any) -> Server:
    watch = Watch(served, limits)
    listener = socket.create_server(("127.0.0.1", 0))
    http: Any = protocol(watch)
    options: dict[str, Any] = {"lifespan": "off", "log_config": None, "access_log": False, "server_header": False}
    server = uvicorn.Server(uvicorn.Config(Hosting(app, served), http=http, **(options | config)))
    factory = Server.loop

    def run() -> None:
        with listener, asyncio.Runner(loop_factory=factory) as runner:
            runner.run(server.serve(sockets=[listener]))

    thread = threading.Thread(target=run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    return Server(listener.getsockname()[1], server, watch, served, thread)


def stop(server: Server) -> None:
    server.uvicorn.should_exit = True
    server.thread.join(20)
    assert not server.thread.is_alive()


@asynccontextmanager
async def serve(served: Served, limits: Limits | None = None, **config: Any) -> AsyncIterator[Server]:
    """A server of a test's own."""
    server = start(served, limits, **config)
    try:
        yield server
    finally:
        await asyncio.to_thread(stop, server)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder = write(tmp_path_factory.mktemp("sites") / "bikes", FILES)
    own = write(tmp_path_factory.mktemp("sites") / "shed", {"index.html": "shed", "own.txt": "own"})
    return Served(publish(hosting.read("bikes", folder), hosting.read("shed", own, ("shed.example",))))


@pytest.fixture(scope="module")
def server(loop: None, served: Served) -> Iterator[Server]:
    """One server for all tests that leave it as it is."""
    running = start(served)
    yield running
    stop(running)


@dataclass
class Connection:
    """A client that says byte by byte what it is told to."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    replies: list[Reply] = field(default_factory=list)

    async def reply(self, method: bytes = b"GET") -> Reply:
        return await asyncio.wait_for(read_reply(self.reader, method), 20)

    async def ask(self, data: bytes, method: bytes = b"GET") -> Reply:
        self.writer.write(data)
        return await self.reply(method)

    async def rest(self) -> bytes:
        """What comes until the server closes; a reset counts as that too."""
        try:
            return await asyncio.wait_for(self.reader.read(), 20)
        except ConnectionResetError:
            return b""


@asynccontextmanager
async def connect(port: int, receives: int | None = None) -> AsyncIterator[Connection]:
    """A connection; with `receives` the kernel keeps about so many bytes for the client and no more."""
    sock = socket.socket()
    sock.setblocking(False)
    if receives is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=2**15)
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()


def post(path: str, body: bytes, more: bytes = b"") -> bytes:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n" % (path.encode(), more, len(body))
    return head + body


def get(path: str, more: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"GET %s HTTP/%s\r\nHost: x\r\n%s\r\n" % (path.encode(), version, more)


def chunked(path: str, *chunks: bytes, trailers: bytes = b"") -> bytes:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % path.encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailers + b"\r\n"


# -- many requests on a connection -------------------------------------------------------------------------------------


async def test_keep_alive(server: Server) -> None:
    before = hits(200)[0]
    async with connect(server.port) as client:
        for _ in range(50):
            reply = await client.ask(HIT)
            assert (reply.status, reply.body) == (200, PAGE)
            assert "connection" not in reply
        # Counted after the answer was written, in the server's thread.
        await eventually(lambda: hits(200)[0] == before + 50)
        assert (await client.ask(get("/app/x"))).body == b"/app/x"
        assert hits(200)[0] == before + 50  # not the lane's


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /bikes/ HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n\r\n", 304),
        (b"GET /bikes HTTP/1.1\r\nHost: x\r\n\r\n", 308),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET\r\n\r\n", 400),
    ],
)
async def test_answers_are_counted_by_status(server: Server, request_: bytes, status: int) -> None:
    before = hits(status)[0]
    async with connect(server.port) as client:
        assert (await client.ask(request_)).status == status
    await eventually(lambda: hits(status)[0] == before + 1)


async def test_a_request_byte_by_byte(server: Server) -> None:
    async with connect(server.port) as client:
        for request, body in [(HIT, PAGE), (get("/app/x"), b"/app/x"), (post("/app/echo", b"hello"), b"hello")]:
            for at in range(len(request)):
                client.writer.write(request[at : at + 1])
                await asyncio.sleep(0)
            assert (await client.reply()).body == body


@pytest.mark.parametrize("request_", [HIT, post("/app/echo", b"hello"), chunked("/app/echo", b"hel", b"lo")])
async def test_a_request_split_anywhere(server: Server, request_: bytes) -> None:
    async with connect(server.port) as client:
        client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(1, len(request_)):
            client.writer.write(request_[:at])
            await asyncio.sleep(0.001)
            reply = await client.ask(request_[at:])
            assert reply.body in (PAGE, b"hello"), at


async def test_two_in_one_packet(server: Server) -> None:
    async with connect(server.port) as client:
        client.writer.write(HIT + SHORT)
        assert [(await client.reply()).body for _ in range(2)] == [PAGE, b"aaa"]


MIXED: list[tuple[bytes, bytes]] = [
    (HIT, PAGE),
    (SHORT, b"aaa"),
    (get("/app/slow/0.2"), b"/app/slow/0.2"),
    (SHORT, b"aaa"),
    (post("/app/echo", b"body"), b"body"),
    (HIT, PAGE),
    (chunked("/app/echo", b"ab", b"cd", trailers=b"X-Trail: 1\r\n"), b"abcd"),
    (SHORT, b"aaa"),
    (post("/bikes/a.txt", b"z" * 9000), b"Only GET, HEAD and OPTIONS are answered here.\n"),
    (get("/app/x"), b"/app/x"),
    (get("/bikes/big.bin"), BIG),
    (SHORT, b"aaa"),
    (post("/app/sip", b"w" * 300_000), b"w" * 300_000),
    (HIT, PAGE),
]


async def test_pipelined_answers_come_in_order(server: Server) -> None:
    async with connect(server.port) as client:
        client.writer.write(b"".join(request for request, _ in MIXED))
        for _, body in MIXED:
            assert (await client.reply()).body == body


async def test_500_pipelined_in_one_write(server: Server) -> None:
    async with connect(server.port) as client:
        client.writer.write((HIT + SHORT) * 250)
        for _ in range(250):
            assert (await client.reply()).body == PAGE
            assert (await client.reply()).body == b"aaa"


async def test_500_pipelined_to_the_app(server: Server) -> None:
    async with connect(server.port) as client:
        client.writer.write(b"".join(get(f"/app/{number}") for number in range(500)))
        for number in range(500):
            assert (await client.reply()).body == b"/app/%d" % number


async def test_trailers_are_not_the_next_requests_headers(server: Server) -> None:
    async with connect(server.port) as client:
        client.writer.write(chunked("/app/echo", b"hi", trailers=b"Host: evil\r\nX-Leak: 1\r\n") + get("/app/scope"))
        assert (await client.reply()).body == b"hi"
        assert json.loads((await client.reply()).body)["headers"] == [["host", "x"]]
        client.writer.write(chunked("/app/scope", b"hi", trailers=b"X-Leak: 1\r\n") + SHORT)
        assert "x-leak" not in str(json.loads((await client.reply()).body)["headers"])
        assert (await client.reply()).body == b"aaa"


@pytest.mark.parametrize("form", [lambda body: post("/bikes/a.txt", body), lambda body: chunked("/bikes/a.txt", body)])
async def test_a_body_for_a_file_is_passed_over(server: Server, form: Callable[[bytes], bytes]) -> None:
    async with connect(server.port) as client:
        client.writer.write(form(b"GET / HTTP/1.1\r\n\r\n").replace(b"POST", b"GET", 1) + HIT)
        assert (await client.reply()).body == b"aaa"
        assert (await client.reply()).body == PAGE


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_split_of_any_sequence_gives_the_same_answers(server: Server, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from([one for one in MIXED if len(one[0]) < 20_000]), max_size=12))
    stream = b"".join(request for request, _ in chosen)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))

    async def run() -> None:
        async with connect(server.port) as client:
            for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
                client.writer.write(stream[start:stop])
                await asyncio.sleep(0.001)
            for _, body in chosen:
                assert (await client.reply()).body == body

    asyncio.run(run())


# -- the end of a connection -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/bikes/", "/app/x"])
@pytest.mark.parametrize(
    ("version", "more"),
    [(b"1.0", b""), (b"1.0", b"Connection: keep-alive\r\n"), (b"1.1", b"Connection: close\r\n")],
)
async def test_the_last_request(server: Server, path: str, version: bytes, more: bytes) -> None:
    """HTTP/1.0 is closed even where it asks to stay: both by the lane and by uvicorn."""
    async with connect(server.port) as client:
        client.writer.write(get(path, more, version) + SHORT + post("/app/echo", b"hello") + b"garbage")
        reply = await client.reply()
        assert (reply.status, reply["connection"]) == (200, "close")
        assert await client.rest() == b""


async def test_a_large_last_answer_is_complete(server: Server) -> None:
    async with connect(server.port, receives=4096) as client:
        client.writer.write(get("/bikes/big.bin", b"Connection: close\r\n") + SHORT + b"garbage\r\n\r\n")
        await asyncio.sleep(0.1)
        assert (await client.reply()).body == BIG
        assert await client.rest() == b""


async def test_after_an_answer_that_closes_nothing_is_answered(server: Server) -> None:
    async with connect(server.port) as client:
        client.writer.write(get("/app/close") + SHORT * 500)
        assert (await client.reply()).body == b"/app/close"
        assert await client.rest() == b""


@pytest.mark.parametrize("more", [b"Connection: Keep-Alive, foo\r\n", b"Connection: keep-alive\r\n", b"X: y\r\n"])
@pytest.mark.parametrize("path", ["/bikes/a.txt", "/app/x"])
async def test_a_connection_that_stays(server: Server, path: str, more: bytes) -> None:
    async with connect(server.port) as client:
        for _ in range(2):
            reply = await client.ask(get(path, more))
            assert reply.status == 200
            assert "connection" not in reply


async def test_head(server: Server) -> None:
    async with connect(server.port) as client:
        client.writer.write(HIT.replace(b"GET", b"HEAD") + HIT)
        reply = await client.reply(b"HEAD")
        assert (reply["content-length"], reply.body) == (str(len(PAGE)), b"")
        assert (await client.reply()).body == PAGE


# -- Expect, Upgrade, and other forms of a target ----------------------------------------------------------------------


async def test_expect(server: Server) -> None:
    async with connect(server.port) as client:
        expect = b"Expect: 100-continue\r\n"
        reply = await client.ask(post("/bikes/a.txt", b"", expect).replace(b"POST", b"GET"))
        assert (reply.status, reply.body) == (200, b"aaa")
        whole = post("/app/echo", b"hello", expect)
        assert (await client.ask(whole[:-5])).status == 100
        assert (await client.ask(b"hello")).body == b"hello"
        assert (await client.ask(HIT)).body == PAGE


async def test_before_http_1_1_nothing_is_expected(server: Server) -> None:
    async with connect(server.port) as client:
        request = post("/app/echo", b"hello", b"Expect: 100-continue\r\n").replace(b"HTTP/1.1", b"HTTP/1.0")
        client.writer.write(request[:-5])
        await asyncio.sleep(0.1)
        assert (await client.ask(b"hello")).body == b"hello"


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
@pytest.mark.parametrize(("path", "body"), [("/bikes/", PAGE), ("/app/x", b"/app/x"), ("/app/slow/0.2", None)])
async def test_upgrades_are_not_made(server: Server, protocol: bytes, path: str, body: bytes | None) -> None:
    more = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\nHTTP2-Settings: AAAA\r\n" % protocol
    more += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    async with connect(server.port) as client:
        client.writer.write(get(path, more) + b"\x81\x85\x00\x00\x00\x00hello" + SHORT)
        reply = await client.reply()
        assert (reply.status, reply.body) == (200, body or path.encode())
        client.writer.write(SHORT)
        assert await client.rest() == b""


@pytest.mark.parametrize("form", [post, lambda path, body, more: chunked(path, body).replace(b"Host", more + b"Host")])
async def test_a_body_with_an_upgrade_is_read(server: Server, form: Callable[[str, bytes, bytes], bytes]) -> None:
    """As `curl --http2 -d` sends it."""
    more = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    for size in (5, 200_000):
        async with connect(server.port) as client:
            whole = form("/app/sip", b"w" * size, more)
            client.writer.write(whole[:-3])
            await asyncio.sleep(0.05)
            client.writer.write(whole[-3:] + SHORT)
            assert (await client.reply()).body == b"w" * size
            assert await client.rest() == b""


async def test_connect(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    for before in (b"", get("/app/x"), get("/app/slow/0.1")):
        async with connect(server.port) as client:
            client.writer.write(before + get("/bikes/").replace(b"GET", b"CONNECT") + SHORT)
            if before:
                assert (await client.reply()).status == 200
            assert (await client.reply()).status == 405
            assert await client.rest() == b""
    assert not errors(caplog)


async def test_http_2_with_prior_knowledge(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async with connect(server.port) as client:
        assert (await client.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")).status == 400
        assert await client.rest() == b""
    assert not errors(caplog)


@pytest.mark.parametrize(
    ("target", "host", "body"),
    [
        ("http://shed.example/", "x", b"shed"),
        ("http://shed.example", "x", b"shed"),
        ("HTTP://SHED.example:8000?q=1", "x", b"shed"),
        ("https://shed.example/own.txt", "x", b"own"),
        ("http://x/shed/own.txt", "shed.example", b"own"),
        ("http://x/bikes/a.txt", "shed.example", b"aaa"),
    ],
)
async def test_absolute_form(server: Server, target: str, host: str, body: bytes) -> None:
    """RFC 9112 section 3.2.2: the target's authority, and not Host."""
    async with connect(server.port) as client:
        request = get(target).replace(b"Host: x", b"Host: " + host.encode())
        for _ in range(2):
            reply = await client.ask(request)
            assert (reply.status, reply.body) == (200, body)
        reply = await client.ask(request.replace(b"1.1", b"1.0").replace(b"Host", b"Not-Host"))
        assert (reply.status, reply.body) == (200, body)


async def test_absolute_form_is_handed_on_in_origin_form(server: Server) -> None:
    async with connect(server.port) as client:
        reply = await client.ask(get("http://elsewhere.example:81/app/scope?a=b", b"X: y\r\n"))
        told = {"headers": [["host", "elsewhere.example:81"], ["x", "y"]], "path": "/app/scope", "query": "a=b"}
        assert json.loads(reply.body) == told


@pytest.mark.parametrize("hosts", [b"", b"Host: a\r\nHost: b\r\n"])
async def test_absolute_form_without_one_host(server: Server, hosts: bytes) -> None:
    async with connect(server.port) as client:
        assert (await client.ask(b"GET http://shed.example/ HTTP/1.1\r\n%s\r\n" % hosts)).status == 400


async def test_the_whole_server(server: Server) -> None:
    async with connect(server.port) as client:
        for target in (b"*", b"http://x"):
            request = b"OPTIONS %s HTTP/1.1\r\nHost: x\r\n\r\n" % target
            client.writer.write(request)
            # What it is answered with is the app's.
            assert (await client.reply()).status < 500
        assert (await client.ask(SHORT)).body == b"aaa"


# -- what is refused ---------------------------------------------------------------------------------------------------


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


BAD = [
    b"garbage\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nNo colon\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\x00y\r\n\r\n",
    b"GET / HTTP/1.1\nHost: x\n\n",
    b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET x HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://user@shed.example/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http:///bikes/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /app/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /app/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcdef",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    b"\x00" * 5000,
]


@pytest.mark.parametrize("before", [b"", HIT, get("/app/slow/0.1"), HIT + get("/app/slow/0.1") * 2])
async def test_malformed(server: Server, caplog: pytest.LogCaptureFixture, before: bytes) -> None:
    """After what came before is answered."""
    for bad in BAD:
        async with connect(server.port) as client:
            client.writer.write(before + bad)
            for _ in range(before.count(b"GET")):
                assert (await client.reply()).status == 200, bad
            reply = await client.reply()
            assert (reply.status, reply.all("connection")) == (400, ["close"]), bad
            assert await client.rest() == b"", bad
    assert not errors(caplog)


def head_of(size: int) -> bytes:
    return HIT[:-2] + b"".join(b"X-%04d: %s\r\n" % (number, b"y" * 90) for number in range(size // 100)) + b"\r\n"


@pytest.mark.parametrize("before", [b"", HIT, get("/app/slow/0.1"), HIT * 3 + get("/app/slow/0.1") * 3 + HIT])
@pytest.mark.parametrize("piece", [700, 2**30])
async def test_a_head_too_large(server: Server, before: bytes, piece: int) -> None:
    async with connect(server.port) as client:
        whole = before + head_of(40_000) + SHORT * 10
        for at in range(0, len(whole), piece):
            client.writer.write(whole[at : at + piece])
            await asyncio.sleep(0.002)
        for _ in range(before.count(b"GET")):
            assert (await client.reply()).status == 200
        reply = await client.reply()
        assert (reply.status, reply["connection"]) == (431, "close")
        assert await client.rest() == b""


async def test_a_head_of_almost_the_limit(server: Server) -> None:
    async with connect(server.port) as client:
        for _ in range(3):
            assert (await client.ask(head_of(28_000))).body == PAGE


@pytest.mark.parametrize("more", [b"a:b\r\n" * 10_000, b"a" * 50_000, b"a: " + b"b" * 50_000, b"a:" + b" " * 50_000])
async def test_other_heads_too_large(server: Server, more: bytes) -> None:
    async with connect(server.port) as client:
        assert (await client.ask(HIT[:-2] + more)).status == 431
        assert await client.rest() == b""


@pytest.mark.parametrize("path", ["/app/", "/bikes/"])
async def test_a_target_too_long(server: Server, path: str) -> None:
    async with connect(server.port) as client:
        assert (await client.ask(get(path + "x" * 8000))).status in (200, 404)
        assert (await client.ask(get(path + "x" * 9000))).status == 414
        assert await client.rest() == b""


async def test_a_target_without_end(server: Server) -> None:
    async with connect(server.port) as client:
        assert (await client.ask(b"GET /" + b"x" * 50_000)).status in (414, 431)
        assert await client.rest() == b""


@pytest.mark.parametrize("path", ["/app/echo", "/app/x", "/app/slow/0.5"])
@pytest.mark.parametrize("endless", [b"5;" + b"x" * 100, b"0\r\nX" + b"x" * 100, b"0\r\n" + b"a:b\r\n" * 20])
@ONE_LOOP
async def test_chunks_without_end(server: Server, path: str, endless: bytes) -> None:
    """Extensions and trailers: of a request that is answered already, only the connection is left to end."""
    async with connect(server.port) as client:
        client.writer.write(chunked(path)[:-5] + endless)
        await asyncio.sleep(0.1)
        with pytest.raises((ConnectionError, TimeoutError)):
            async with asyncio.timeout(4):
                while True:
                    client.writer.write(endless[-100:] * 100)
                    await client.writer.drain()
                    assert all(len(lane._held) < 2**20 and lane._head_size < 40_000 for lane in server.lanes)
                    await asyncio.sleep(0.01)
        await eventually(lambda: not server.lanes)


async def test_a_refusal_is_read_by_a_client_that_still_sends(server: Server) -> None:
    async with connect(server.port) as client:
        for _ in range(200):
            client.writer.write(b"GET / HTTP/1.1\r\nX: " if _ == 0 else b"y" * 20_000)
            await asyncio.sleep(0)
        reply = await client.reply()
        assert (reply.status, reply.body) == (431, b"Request Header Fields Too Large.\n")


async def test_our_own_failure(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = server.served.published.find(b"/bikes/a.txt", {b"host": b"x"})[0]

    def broken(*_: object) -> Answer:
        raise ZeroDivisionError

    monkeypatch.setattr(type(entry), "respond", broken)
    with structlog.testing.capture_logs() as logs:
        async with connect(server.port) as client:
            assert (await client.ask(SHORT + HIT)).status == 500
            assert await client.rest() == b""
    assert [(line["event"], line["log_level"]) for line in logs] == [("request.failed", "error")]
    monkeypatch.undo()
    async with connect(server.port) as client:
        assert (await client.ask(SHORT)).body == b"aaa"


# -- slow clients ------------------------------------------------------------------------------------------------------

QUICK = Limits(head_seconds=1, body_seconds=1, idle_seconds=1, stalled_seconds=2)


async def dribble(client: Connection, data: bytes, every: float = 0.1) -> None:
    for at in range(len(data)):
        client.writer.write(data[at : at + 1])
        await asyncio.sleep(every)


@ONE_LOOP
async def test_a_head_byte_by_byte_is_cut_off(served: Served) -> None:
    async with serve(served, QUICK) as server, connect(server.port) as client:
        began = time.monotonic()
        sending = asyncio.create_task(dribble(client, b"GET / HTTP/1.1\r\nX: " + b"x" * 1000))
        reply = await client.reply()
        assert (reply.status, reply["connection"]) == (408, "close")
        assert 0.9 < time.monotonic() - began < 6
        sending.cancel()


@pytest.mark.parametrize("path", ["/app/echo", "/app/x"])
@pytest.mark.parametrize("head", [b"Content-Length: 5000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n1000\r\n"])
@ONE_LOOP
async def test_a_body_byte_by_byte_is_cut_off(served: Served, path: str, head: bytes) -> None:
    async with serve(served, QUICK) as server, connect(server.port) as client:
        request = b"POST %s HTTP/1.1\r\nHost: x\r\n%s" % (path.encode(), head)
        client.writer.write(request)
        sending = asyncio.create_task(dribble(client, b"x" * 4000))
        reply = await client.reply()
        assert reply.status == (408 if path == "/app/echo" else 200)
        await eventually(lambda: not server.lanes)
        sending.cancel()


@pytest.mark.parametrize("first", [b"", HIT, get("/app/x"), b"G"])
@ONE_LOOP
async def test_an_idle_connection_is_closed(served: Served, first: bytes) -> None:
    async with serve(served, QUICK) as server, connect(server.port) as client:
        if len(first) > 1:
            await client.ask(first)
        else:
            client.writer.write(first)
        began = time.monotonic()
        assert await client.rest() == b""
        assert 0.9 < time.monotonic() - began < 6


@ONE_LOOP
async def test_line_ends_without_end_are_idle(served: Served) -> None:
    async with serve(served, QUICK) as server, connect(server.port) as client:
        sending = asyncio.create_task(dribble(client, b"\r\n" * 1000, 0.02))
        await eventually(lambda: bool(server.lanes))
        await eventually(lambda: not server.lanes, 6)
        sending.cancel()


@pytest.mark.parametrize("path", ["/bikes/big.bin", "/app/stream/100/65536"])
async def test_a_client_that_never_reads_is_cut_off(served: Served, path: str) -> None:
    async with serve(served, QUICK) as server, connect(server.port, receives=4096) as client:
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        client.writer.write(get(path))
        await eventually(lambda: bool(server.lanes))
        await eventually(lambda: not server.lanes, 9)
        await eventually(lambda: not server.uvicorn.server_state.tasks)


@pytest.mark.parametrize("path", ["/bikes/big.bin", "/app/stream/80/65536", "/app/stream/1/200000"])
@ONE_LOOP
async def test_a_client_that_reads_slowly_is_served(served: Served, path: str) -> None:
    """Far longer than any limit, and always a little."""
    async with serve(served, QUICK) as server, connect(server.port, receives=4096) as client:
        client.writer.write(get(path, b"Connection: close\r\n"))
        got, ends = 0, time.monotonic() + 7
        while piece := await asyncio.wait_for(client.reader.read(8000), 10):
            got += len(piece)
            if time.monotonic() < ends:
                await asyncio.sleep(0.25)
        assert got > {"1": 200_000}.get(path.split("/")[-2], 5_000_000)


@ONE_LOOP
async def test_a_handler_that_takes_long_is_not_cut_off(served: Served) -> None:
    async with serve(served, QUICK) as server, connect(server.port) as client:
        assert (await client.ask(get("/app/slow/4"))).status == 200
        # It has not read its body, which the client has to hold back.
        assert (await client.ask(post("/app/slow/4", b"x" * 500_000))).status == 200


@ONE_LOOP
async def test_a_stream_of_events_is_not_cut_off(served: Served) -> None:
    async with serve(served, QUICK) as server, connect(server.port) as client:
        assert len((await client.ask(get("/app/events/80/10"))).body) == 800


# -- clients that ask and do not read ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "body", "count"),
    [(HIT, PAGE, 4000), (get("/bikes/big.bin"), BIG, 12), (get("/app/x"), b"/app/x", 4000)],
)
async def test_asking_without_reading_takes_no_memory(server: Server, request_: bytes, body: bytes, count: int) -> None:
    async with connect(server.port, receives=4096) as client:
        transport: Any = client.reader._transport  # type: ignore[attr-defined]
        transport.pause_reading()
        client.writer.write(request_ * count)
        await asyncio.sleep(0.7)
        port = client.writer.get_extra_info("sockname")[1]
        [lane] = [lane for lane in server.lanes if lane.client and lane.client[1] == port]
        if body != b"/app/x":  # those are small enough to be all in the kernel's buffers
            assert lane.flow.read_paused
        assert lane.transport.get_write_buffer_size() < len(body) + 2**20
        # A busy machine may just be in the middle of what it has taken in.
        await eventually(lambda: len(lane.pipeline) + len(server.uvicorn.server_state.tasks) < 250)
        assert len(lane._held) < 2**20
        transport.resume_reading()
        for _ in range(count):
            assert (await client.reply()).body == body
        assert (await client.ask(SHORT)).body == b"aaa"


async def test_a_large_body_for_an_app_that_reads_slowly(server: Server) -> None:
    async with connect(server.port) as client:
        body = bytes(range(256)) * 4096
        client.writer.write(post("/app/sip", body) + SHORT)
        assert (await client.reply()).body == body
        assert (await client.reply()).body == b"aaa"


# -- the server as a whole ---------------------------------------------------------------------------------------------


async def test_a_stop_completes_what_is_being_sent(served: Served) -> None:
    async with (
        serve(served) as server,
        connect(server.port, receives=4096) as client,
        connect(server.port) as idle,
    ):
        assert (await idle.ask(SHORT)).status == 200
        client.writer.write(get("/bikes/big.bin"))
        await asyncio.sleep(0.2)
        server.uvicorn.should_exit = True
        assert await idle.rest() == b""
        assert (await client.reply()).body == BIG
        assert await client.rest() == b""
        await asyncio.to_thread(server.thread.join, 10)
        assert not server.thread.is_alive()
        assert not server.lanes


@ONE_LOOP
async def test_the_watch_rests_without_connections(served: Served) -> None:
    async with serve(served) as server:
        async with connect(server.port) as client:
            assert (await client.ask(SHORT)).status == 200
            assert server.watch._timer is not None
        await eventually(lambda: server.watch._timer is None, 5)
        await asyncio.sleep(1.1)
        async with connect(server.port) as client:
            assert abs(parsedate_to_datetime((await client.ask(SHORT))["date"]).timestamp() - time.time()) < 2


@ONE_LOOP
async def test_the_date_goes_on(server: Server) -> None:
    seen = set()
    async with connect(server.port) as client:
        for _ in range(30):
            date = (await client.ask(SHORT))["date"]
            assert -0.1 < time.time() - parsedate_to_datetime(date).timestamp() < 2
            seen.add(date)
            await asyncio.sleep(0.1)
    assert len(seen) >= 3


async def test_x_process_time(server: Server) -> None:
    async with connect(server.port) as client:
        for request in (SHORT, HIT, get("/bikes/none")):
            assert re.fullmatch(r"\d+\.\d{6}", (await client.ask(request))["x-process-time"])


@pytest.fixture
def access_log() -> Any:
    logger = logging.getLogger("uvicorn.access")
    before = (logger.handlers, logger.propagate, logger.level)
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger.handlers = [Lines()]
    logger.setLevel(logging.INFO)
    yield lines
    logger.handlers, logger.propagate, _ = before
    logger.setLevel(before[2])


@pytest.mark.parametrize("target", ["/bikes/a.txt", "/bikes/a.txt?q=%20", "/bikes/%61.txt?", "/bikes/%22%7E"])
async def test_the_access_log_says_the_same_of_a_hit(served: Served, access_log: list[str], target: str) -> None:
    async with serve(served, access_log=True) as server, connect(server.port) as client:
        hit = await client.ask(get(target))
        assert (await client.ask(get(target, b"Expect: nothing\r\n"))).status == hit.status
        port = client.writer.get_extra_info("sockname")[1]
        lines = [line for line in access_log if f":{port} " in line]
        assert lines[0] == lines[1]
        assert re.fullmatch(r'127\.0\.0\.1:\d+ - "GET /bikes/\S+ HTTP/1\.1" (200|301|308|404)', lines[0])


async def test_the_access_log_is_off(served: Served, access_log: list[str]) -> None:
    async with serve(served) as server, connect(server.port) as client:
        await client.ask(HIT + get("/app/x"))
        await client.reply()
        port = client.writer.get_extra_info("sockname")[1]
    assert not [line for line in access_log if f":{port} " in line]


async def test_a_swap_under_load_drops_nothing(served: Served, tmp_path: Path) -> None:
    other = publish(hosting.read("bikes", write(tmp_path / "bikes", {"index.html": PAGE, "a.txt": "bbb"})))
    both = Served(served.published)
    async with serve(both) as server:

        async def load() -> set[bytes]:
            bodies = set()
            async with connect(server.port) as client:
                for _ in range(300):
                    reply = await client.ask(SHORT)
                    assert reply.status == 200
                    bodies.add(reply.body)
                    await asyncio.sleep(0)
            return bodies

        async def swap() -> None:
            for number in range(100):
                both.published = other if number % 2 else served.published
                await asyncio.sleep(0.002)

        *answers, _ = await asyncio.gather(*(load() for _ in range(8)), swap())
        assert all(bodies <= {b"aaa", b"bbb"} for bodies in answers if bodies)
        assert set().union(*(bodies for bodies in answers if bodies)) == {b"aaa", b"bbb"}


# -- clients that go away --------------------------------------------------------------------------------------------


async def test_a_pipelining_client_that_goes_away_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write(tmp_path / "public", {"index.html": "x", "big.bin": b"\0" * 8_000_000})
    served = Served(publish(hosting.read("bikes", folder), budget=1000))
    async with serve(served) as server:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(b"GET /bikes/big.bin HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
                await asyncio.sleep(0.2)
        await eventually(lambda: not server.lanes)
        await asyncio.sleep(0.2)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
