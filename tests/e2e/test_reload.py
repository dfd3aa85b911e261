"""New sites while the real process serves: on SIGHUP without a wrong answer, with `--reload` up to the open page."""

import gzip
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.conftest import REPOSITORY, SITE_TOML, add_site
from tests.e2e.conftest import HTTP, ForkedServer, Server, wait_until
from tests.e2e.fork import Forked

pytestmark = pytest.mark.e2e


class Reloading(ForkedServer):
    """`serve --reload`."""

    command = ("serve", "--reload")


@pytest.fixture
def reloading(environ: dict[str, str], tmp_path: Path) -> Iterator[Server]:
    """A server with --reload that is not started yet; ended with the test."""
    server = Reloading(environ, tmp_path / "server.log")
    yield server
    server.kill()


@dataclass
class Listener:
    """An open page as the server sees it: notes what it is told."""

    server: Server
    states: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        wait_until(lambda: bool(self.states))

    def _listen(self) -> None:
        with (
            suppress(httpx.TransportError),
            HTTP.stream("GET", f"{self.server.url}/_doorbell/reload", timeout=None) as answer,
        ):
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    self.states.append(json.loads(line[6:]))


def loads(server: Server) -> int:
    return server.log.count("sites.loaded")


def text(size: int, seed: int) -> str:
    """So many characters, quickly made, that take their time to compress."""
    return random.Random(seed).randbytes(size // 2).hex()


# -- serve --reload ------------------------------------------------------------------------------------------------


def test_edit_is_served_and_told(reloading: Server, sites: Path) -> None:
    toml, index = sites / "bikes" / "site.toml", sites / "bikes" / "public" / "index.html"
    reloading.start()
    page = Listener(reloading)

    index.write_text("<!doctype html><title>new</title>")
    wait_until(lambda: len(page.states) == 2)
    assert page.states[0]["version"] != page.states[1]["version"]
    assert "<title>new</title>" in HTTP.get(f"{reloading.url}/bikes/").text

    toml.write_text("title = ")
    wait_until(lambda: bool(page.states[-1]["problems"]))
    index.write_text("<!doctype html><title>newer</title>")
    wait_until(lambda: reloading.log.count("sites.kept") >= 2)
    assert page.states[-1]["version"] == page.states[1]["version"]
    assert str(toml) in page.states[-1]["problems"][0] and str(toml) in reloading.log
    assert "<title>new</title>" in HTTP.get(f"{reloading.url}/bikes/").text

    toml.write_text(SITE_TOML)
    wait_until(lambda: not page.states[-1]["problems"])
    assert "<title>newer</title>" in HTTP.get(f"{reloading.url}/bikes/").text
    assert reloading.end() == 0
    assert "Traceback" not in reloading.log


def test_edit_of_a_part_is_served_and_told(reloading: Server, sites: Path) -> None:
    part = sites / "bikes" / "parts" / "header.html"
    part.parent.mkdir()
    part.write_text("<p>first</p>")
    (sites / "bikes" / "public" / "index.html").write_text('<!doctype html><!--#include file="header.html" -->')
    reloading.start()
    page = Listener(reloading)

    part.write_text("<p>second</p>")
    wait_until(lambda: len(page.states) == 2)
    assert page.states[0]["version"] != page.states[1]["version"]
    assert "<p>second</p>" in HTTP.get(f"{reloading.url}/bikes/").text

    part.unlink()
    wait_until(lambda: bool(page.states[-1]["problems"]))
    assert "'header.html'" in page.states[-1]["problems"][0]
    assert "<p>second</p>" in HTTP.get(f"{reloading.url}/bikes/").text
    assert reloading.end() == 0


def test_restart_alone_is_no_new_version(reloading: Server, sites: Path) -> None:
    reloading.start()
    first = Listener(reloading).states[0]
    reloading.end()
    reloading.start()
    assert Listener(reloading).states[0] == first
    reloading.end()
    os.utime(sites / "bikes" / "public" / "index.html")
    reloading.start()
    assert Listener(reloading).states[0] != first


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_open_pages_do_not_hold_up_the_stop(reloading: Server, number: int) -> None:
    reloading.start()
    pages = [Listener(reloading) for _ in range(3)]
    began = time.monotonic()
    assert reloading.end(number) == 0
    assert time.monotonic() - began < 3
    assert all(pages) and "Traceback" not in reloading.log


# -- SIGHUP --------------------------------------------------------------------------------------------------------

PAGE, STYLE, LARGE = "/bikes/", "/bikes/style.css", "/bikes/photo.bin"


def publish(sites: Path, generation: int) -> None:
    """Writes every file of the site anew: each says in each of its lines which generation it is of."""
    line = f"generation {generation:06d}\n"
    for name, lines in (("index.html", 600), ("style.css", 50), ("photo.bin", 20_000)):
        file = sites / "bikes" / "public" / name
        (sites / name).write_text(line * lines)
        os.replace(sites / name, file)


def read_answer(stream: BinaryIO) -> tuple[int, bytes]:
    """The next answer of a connection. Raises EOFError where it is cut off."""
    status = int(stream.readline()[9:12] or b"0")
    length, coded = -1, False
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.lower().partition(b":")
        length = int(value) if name == b"content-length" else length
        coded = coded or name == b"content-encoding"
    body = stream.read(length)
    if not status or len(body) != length:
        raise EOFError(f"cut off: {status} {len(body)} of {length}")
    return status, gzip.decompress(body) if coded else body


@dataclass
class Client:
    """Asks on one connection, eight requests at a time, until it is told to end; notes every wrong answer."""

    port: int
    wrong: list[str] = field(default_factory=list)
    answers: int = 0
    newest: int = 0
    ended: bool = False

    def run(self) -> None:
        targets = [PAGE, "/healthz", STYLE, LARGE, PAGE, STYLE, "/", PAGE]
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
                stream = connection.makefile("rb")
                while not self.ended:
                    connection.sendall(b"".join(map(self._request, targets)))
                    for target in targets:
                        self._check(target, *read_answer(stream))
        except Exception as error:
            self.wrong.append(repr(error))

    def _request(self, target: str) -> bytes:
        coding = "gzip" if self.answers % 2 else "identity"
        return f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: {coding}\r\n\r\n".encode()

    def _check(self, target: str, status: int, body: bytes) -> None:
        self.answers += 1
        lines = set(body.splitlines())
        if status != 200 or (target in (PAGE, STYLE, LARGE) and len(lines) != 1):
            self.wrong.append(f"{target}: {status} {sorted(lines)[:3]}")
        elif target in (PAGE, STYLE, LARGE):
            generation = int(lines.pop().split()[1])
            if generation < self.newest:
                self.wrong.append(f"{target}: {generation} after {self.newest}")
            self.newest = generation


def reloaded_under_load(server: Server, sites: Path, generations: int) -> list[list[str]]:
    """What was wrong with the answers that four clients got while the site was replaced so often."""
    assert server.process is not None
    clients = [Client(server.port) for _ in range(4)]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    for generation in range(1, generations + 1):
        publish(sites, generation)
        server.process.send_signal(signal.SIGHUP)
        # All of them, so that each was in the midst of its requests at each swap, however slow the machine.
        wait_until(lambda now=generation: all(client.wrong or client.newest == now for client in clients))  # type: ignore[misc]
    for client in clients:
        client.ended = True
    for thread in threads:
        thread.join()
    return [client.wrong for client in clients]


def test_sighup_under_load_drops_nothing(forked: Server, sites: Path) -> None:
    (sites / "bikes" / "site.toml").write_text(SITE_TOML)
    publish(sites, 0)
    forked.start()
    assert reloaded_under_load(forked, sites, 10) == [[]] * 4
    wait_until(lambda: loads(forked) == 10)  # said after they were swapped
    assert forked.end() == 0
    assert "Traceback" not in forked.log


def test_signups_go_on_while_sites_are_swapped(forked: Server) -> None:
    forked.start()
    assert forked.process is not None
    with httpx.Client() as client:
        for number in range(60):
            if number % 10 == 0:
                forked.process.send_signal(signal.SIGHUP)
            form = {"site": "bikes", "email": f"visitor-{number}@example.com", "colour": "Red"}
            assert client.post(f"{forked.url}/signup", json=form).status_code == 202
    assert loads(forked) >= 1


def test_sighup_with_a_broken_site_keeps_the_old_ones(forked: Server, sites: Path) -> None:
    forked.start()
    assert forked.process is not None
    (sites / "bikes" / "public" / "index.html").write_text("new")
    broken = [
        add_site(sites, "typo", 'title = "Typo"\ncolour = "red"\n') / "site.toml",
        add_site(sites, "links", 'title = "Links"\n', {"_redirects": "/a\n"}) / "public" / "_redirects",
    ]
    forked.process.send_signal(signal.SIGHUP)
    wait_until(lambda: forked.log.count("sites.kept") == 2)
    assert all(str(file) in forked.log for file in broken)
    assert "<title>bikes</title>" in HTTP.get(f"{forked.url}/bikes/").text
    assert forked.sign_up("visitor@example.com").status_code == 202
    assert HTTP.get(f"{forked.url}/typo/").status_code == 404
    for file in broken:
        shutil.rmtree(sites / file.relative_to(sites).parts[0])
    forked.process.send_signal(signal.SIGHUP)
    wait_until(lambda: loads(forked) == 1)
    assert HTTP.get(f"{forked.url}/bikes/").text == "new"
    assert forked.end() == 0


def test_many_sighups_are_one_load_more(forked: Server, sites: Path) -> None:
    for number in range(20):
        (sites / "bikes" / "public" / f"{number}.txt").write_text(text(30_000, number))
    forked.start()
    assert forked.process is not None
    shutil.rmtree(forked.data / "cache")  # so that the first one takes a while
    forked.process.send_signal(signal.SIGHUP)
    wait_until((forked.data / "cache").exists)
    for number in range(30):
        (sites / "bikes" / "public" / "index.html").write_text(f"{number}")
        forked.process.send_signal(signal.SIGHUP)
    wait_until(lambda: HTTP.get(f"{forked.url}/bikes/").text == "29" and loads(forked) >= 2)
    time.sleep(0.5)
    assert loads(forked) < 10  # 2, unless the machine is so busy that the signals come in several lots


# -- the start -----------------------------------------------------------------------------------------------------


def starting(server: Server, sites: Path, files: int, size: int) -> subprocess.Popen[bytes] | Forked:
    """The server while it compresses: `files` texts of `size` characters."""
    for number in range(files):
        (sites / "bikes" / "public" / f"{number}.txt").write_text(text(size, number))
    process = server.launch()
    wait_until((server.data / "cache").exists)
    return process


@pytest.mark.parametrize(
    ("number", "files", "size"),
    [(signal.SIGINT, 300, 200_000), (signal.SIGTERM, 1, 40_000_000)],
    ids=["many files", "one large file"],
)
def test_long_start_can_be_stopped(server: Server, sites: Path, number: int, files: int, size: int) -> None:
    starting(server, sites, files, size)
    began = time.monotonic()
    assert server.end(number) == 0
    assert time.monotonic() - began < 3
    assert "Traceback" not in server.log and "Doorbell is ready" not in server.log


def test_long_reload_can_be_stopped(forked: Server, sites: Path) -> None:
    forked.start()
    assert forked.process is not None
    (sites / "bikes" / "public" / "large.txt").write_text(text(40_000_000, 1))
    forked.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "Compressing " in forked.log)
    assert forked.sign_up("visitor@example.com").status_code == 202
    began = time.monotonic()
    assert forked.end() == 0
    assert time.monotonic() - began < 5
    assert "Traceback" not in forked.log


def test_sighup_during_the_start_is_honoured_after_it(server: Server, sites: Path) -> None:
    process = starting(server, sites, 4, 200_000)
    (sites / "bikes" / "public" / "index.html").write_text("new")
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: loads(server) == 1)
    assert HTTP.get(f"{server.url}/bikes/").text == "new"
    assert server.end() == 0


def test_closed_terminal_ends_the_server(server: Server) -> None:
    """There SIGHUP means what it always did."""
    spawn = f"import pty; pty.spawn([{sys.executable!r}, '-m', 'server', 'serve'])"
    with subprocess.Popen(
        [sys.executable, "-c", spawn],
        cwd=REPOSITORY,
        env=server._environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as terminal:

        def up() -> bool:
            with suppress(httpx.TransportError):
                return HTTP.get(f"{server.url}/healthz").status_code == 200
            return False

        wait_until(up)
        terminal.kill()
        wait_until(lambda: not up(), seconds=5)


# -- in the browser ------------------------------------------------------------------------------------------------


@pytest.mark.browser
def test_page_reloads_itself_and_shows_what_is_wrong(browser: Browser, reloading: Server, sites: Path) -> None:
    toml, public = sites / "bikes" / "site.toml", sites / "bikes" / "public"
    head = '<!doctype html><link rel="icon" href="icon.svg"><link rel="stylesheet" href="style.css">'
    html = head + "<title>{0}</title><h1>{0}</h1>"
    (public / "index.html").write_text(html.format("Old"))
    (public / "icon.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    (public / "style.css").write_text("h1 { color: rgb(1, 2, 3) } div { display: none !important }")
    reloading.start()
    page = browser.new_context().new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(f"{reloading.url}/bikes/")
    expect(page.get_by_role("heading")).to_have_text("Old")

    (public / "index.html").write_text(html.format("New"))
    expect(page.get_by_role("heading")).to_have_text("New")
    (public / "style.css").write_text("h1 { color: rgb(4, 5, 6) }")
    expect(page.get_by_role("heading")).to_have_css("color", "rgb(4, 5, 6)")

    toml.write_text('title = "<img src=x>"\ncolour = 1\n[signup]\nnext = 3\n')
    banner = page.get_by_role("alert")
    expect(banner).to_contain_text(f"{toml}: colour: unknown key")
    expect(banner.locator("div")).to_have_count(3)  # a title, and a line for each problem
    page.goto(f"{reloading.url}/bikes/")  # a page that is opened now shows it too
    expect(banner).to_be_visible()
    toml.write_text(SITE_TOML)
    expect(banner).to_have_count(0)
    assert wrong == []  # the strict policy among other things


@pytest.mark.browser
def test_page_finds_a_server_that_was_restarted(browser: Browser, reloading: Server, sites: Path) -> None:
    index = sites / "bikes" / "public" / "index.html"
    index.write_text("<!doctype html><h1>Old</h1>")
    reloading.start()
    page = browser.new_context().new_page()
    page.goto(f"{reloading.url}/bikes/")
    page.evaluate("window.kept = true")
    reloading.end()
    reloading.start()
    time.sleep(3)
    assert page.evaluate("window.kept") is True
    reloading.end()
    index.write_text("<!doctype html><h1>New</h1>")
    reloading.start()
    expect(page.get_by_role("heading")).to_have_text("New", timeout=20_000)
