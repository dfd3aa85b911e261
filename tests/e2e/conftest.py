"""The real process on a real port, to be posted to, told to stop, and killed."""

import mailbox
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from tests.conftest import REPOSITORY, skip_or_fail, with_domains
from tests.e2e.fork import Forked
from tests.provision import furnish

# For a single request: httpx.get would read every certificate of the machine for each. A server that was restarted has
# no connection left from before.
HTTP = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0))
SLUGS = ["interior_design", "pet_care"]


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until(found: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until `found` answers True; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not found():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {found}")
        time.sleep(0.05)


class Server:
    """`python -m server serve`, with data of its own that outlives it."""

    command: tuple[str, ...] = ("serve",)

    def __init__(self, environ: dict[str, str], log: Path) -> None:
        self.port = free_port()
        self.url = f"http://localhost:{self.port}"
        self.data = Path(environ["DOORBELL_DATA_DIR"])
        self._log = log
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DOORBELL_")}
        self._environ = {**clean, **environ, "DOORBELL_PORT": str(self.port), "PYTHONWARNINGS": "error"}
        self.process: subprocess.Popen[bytes] | Forked | None = None

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def launch(self) -> subprocess.Popen[bytes] | Forked:
        """Starts the process and waits for nothing."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "server", *self.command],
                cwd=REPOSITORY,
                env=self._environ,
                stdout=log,
                stderr=log,
            )
        return self.process

    def start(self) -> None:
        """Starts the process and waits until it answers."""
        self.launch()
        self.wait()

    def wait(self) -> None:
        """Waits until the process answers."""
        process = self.process
        assert process is not None

        def up() -> bool:
            assert process.poll() is None, self.log
            return self.answers()

        wait_until(up)

    def answers(self) -> bool:
        """Whether it takes requests."""
        try:
            return HTTP.get(f"{self.url}/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and answers the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        """Ends the process, if there is one, with what it cannot catch."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def sign_up(self, email: str, **fields: str) -> httpx.Response:
        return HTTP.post(f"{self.url}/signup", json={"site": "bikes", "email": email, "colour": "Red", **fields})

    def mails(self) -> list[EmailMessage]:
        """What the built-in mailbox has caught."""
        box = mailbox.Maildir(self.data / "mailbox")
        return [_parsed(box.get_bytes(key)) for key in box.keys()]  # noqa: SIM118 (iterating gives the mails)


class ForkedServer(Server):
    """The same, sooner: for whoever does not ask how it starts."""

    def launch(self) -> Forked:
        self.process = process = Forked(self.command, self._environ, self._log, self._log)
        return process


def _parsed(data: bytes) -> EmailMessage:
    return BytesParser(EmailMessage, policy=default).parsebytes(data)


@pytest.fixture
def server(environ: dict[str, str], tmp_path: Path) -> Iterator[Server]:
    """A server that is not started yet; ended with the test."""
    server = Server(environ, tmp_path / "server.log")
    yield server
    server.kill()


@pytest.fixture
def keeps(database_url: str) -> dict[str, str]:
    """What has a server keep its rows in a database of the test's; without the prefix."""
    return {"DATABASE_URL": database_url, "SECRET_KEY": "a secret of some length"}


@pytest.fixture
def forked(environ: dict[str, str], tmp_path: Path) -> Iterator[Server]:
    """The same, sooner started."""
    server = ForkedServer(environ, tmp_path / "server.log")
    yield server
    server.kill()


@pytest.fixture(scope="module")
def real_sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the repository's sites, each at a domain of its own too. Many tests share it: each writes as
    somebody else."""
    root = tmp_path_factory.mktemp("real")
    sites = with_domains(root / "sites", {slug: [f"{slug.replace('_', '-')}.localhost"] for slug in SLUGS})
    furnish(root / "var")
    server = ForkedServer(
        {"DOORBELL_SITES_DIR": str(sites), "DOORBELL_DATA_DIR": str(root / "var")}, root / "server.log"
    )
    server.start()
    yield server
    assert server.end() == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        skip_or_fail("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        expect.set_options(timeout=30_000)  # the form's script takes its time, and so may the machine
        yield browser
        browser.close()


@dataclass(frozen=True)
class Desk:
    """Opens pages in a browser, and closes them all in the end: what moves in them would go on moving."""

    browser: Browser
    contexts: list[BrowserContext] = field(default_factory=list)

    def page(self, javascript: bool = True, width: int = 1280) -> tuple[Page, list[str]]:
        """A new page, and what goes wrong in it."""
        context = self.browser.new_context(
            java_script_enabled=javascript, viewport={"width": width, "height": 800}, reduced_motion="reduce"
        )
        self.contexts.append(context)
        page = context.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)

        def failed(request: Request) -> None:
            if request.failure != "net::ERR_ABORTED":  # that is a page which was left before it had all
                wrong.append(f"{request.url}: {request.failure}")

        page.on("requestfailed", failed)
        return page, wrong


@pytest.fixture
def desk(browser: Browser) -> Iterator[Desk]:
    """Pages for one test."""
    desk = Desk(browser)
    yield desk
    for context in desk.contexts:
        context.close()
