"""Signups taken: what each server is and how it is started, and a measurement of it, checked against its rows.

Every measurement has a server and a database of its own: what an earlier one left to send would disturb it.
"""

import itertools
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import material, outbox, relay
from bench.large import started
from bench.peers import Launch, doorbell, no_module
from bench.process import Process, free_port, report
from bench.wire import WrongAnswer, fetch
from bench.wrk import CONNECTIONS, Load, measure
from bench.wrk import Sample as Asked
from server.settings import Settings

# How long the mails of a measurement may take to go out.
_DRAIN_SECONDS = 120.0
_BODY = b'{"site":"bench","email":"first@example.com","name":"Robin Fell","kind":"Dog","message":"She is shy."}'
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Server:
    """What takes signups. `launch` gets port, sites, its folder, and the port of a relay; `file` is its database in
    that folder, or empty; with `mails` its mail goes out. `missing` says why it cannot be run here, or is empty."""

    key: str
    title: str
    launch: Callable[[int, Path, Path, int], Launch]
    file: str = ""
    mails: bool = False
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement; times in milliseconds. `mails` went out a second meanwhile; `both` is signups a second when the
    time runs until the last mail has gone."""

    rate: float
    cpu_microseconds: float
    share: float
    disturbed: float
    wrk_disturbed: float
    p50: float
    p99: float
    mails: float | None = None
    both: float | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """Pages asked for on a schedule, alone and with signups and their mail: what bench/openloop.py says."""

    alone: dict[str, float]
    busy: dict[str, float]
    signups: dict[str, float]
    mails: float

    @property
    def ratio(self) -> float:
        """How much longer a page takes beside signups, by its p99."""
        return self.busy["p99"] / self.alone["p99"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run takes place, and how long a measurement is."""

    work: Path
    server_core: int
    load_core: int
    seconds: int


def _doorbell(port: int, sites: Path, folder: Path, smtp: int) -> Launch:
    found = doorbell(port, sites, folder)
    own = {"DOORBELL_SMTP_URL": f"smtp://127.0.0.1:{smtp}"}
    if "limits" in Settings.model_fields:
        own["DOORBELL_LIMITS"] = "off"  # all signups come from one address
    return Launch(found.command, found.environment | own)


def _plain(*more: str) -> Callable[[int, Path, Path, int], Launch]:
    def launch(port: int, sites: Path, folder: Path, smtp: int) -> Launch:
        command = [sys.executable, "-m", "bench.servers.signups", str(port), str(sites)]
        return Launch([*command, *(str(folder / word) if word.endswith(".db") else word for word in more)])

    return launch


_NO_DRIVER = no_module("aiosqlite")
SERVERS = (
    Server("doorbell", "Doorbell, the relay is down", _doorbell, "doorbell.db"),
    Server("doorbell-mail", "Doorbell, its mail goes out", _doorbell, "doorbell.db", mails=True, missing=relay.MISSING),
    Server("nothing", "FastAPI, stores nothing", _plain()),
    Server("commit", "FastAPI, a commit each", _plain("plain.db"), "plain.db", missing=_NO_DRIVER),
    Server(
        "library",
        "FastAPI, a commit and an EmailMessage each",
        _plain("plain.db", "library"),
        "plain.db",
        missing=_NO_DRIVER,
    ),
)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs, with a database of its own."""

    server: Server
    process: Process
    port: int
    file: Path | None

    def kept(self) -> int:
        """How many signups it has written down."""
        return outbox.kept(self.file) if self.file else 0

    def sent(self) -> int:
        """How many mails have gone out."""
        return outbox.states(self.file).get("sent", 0) if self.file else 0

    def settle(self) -> None:
        """Waits until nothing more is written down: what a generator left under way when it ended is not ours."""
        before = -1
        while (kept := self.kept()) != before:
            before = kept
            time.sleep(0.2)

    def drain(self) -> None:
        """Waits until nothing is left to send. Raises WrongAnswer after a while."""
        limit = time.monotonic() + _DRAIN_SECONDS
        while self.file and outbox.waits(self.file):
            if time.monotonic() > limit:
                raise WrongAnswer(f"has not sent everything after {_DRAIN_SECONDS:.0f} s")
            time.sleep(0.02)


@contextmanager
def running(server: Server, place: Place) -> Iterator[Running]:
    """Starts it with nothing kept, and a relay where it is to have one."""
    folder = place.work / "signup" / server.key
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sites = material.signup_site(place.work).parents[1]
    with ExitStack() as stack:
        # Where nobody listens: the relay that is down.
        smtp = stack.enter_context(relay.relay(place.work, place.load_core)).port if server.mails else free_port()
        port = free_port()
        launch = server.launch(port, sites, folder, smtp)
        process = stack.enter_context(started(place.work, f"signup-{server.key}", launch, place.server_core))
        process.wait_for(port)
        yield Running(server, process, port, folder / server.file if server.file else None)


@dataclass(slots=True)
class Intake:
    """A cell of the table: a server, asked over so many connections at once. Called, it measures."""

    server: Server
    place: Place
    connections: int = CONNECTIONS
    command: list[str] = field(default_factory=list)

    def __call__(self, warm_up: bool) -> Sample:
        """Raises ProcessError or WrongAnswer: it failed, or what it said it took is not what it has."""
        with running(self.server, self.place) as one:
            self.command = one.process.command
            size = _first(one)
            self._wrk(one, size, 1)
            one.settle()
            if self.server.mails:
                one.drain()
            return self._timed(one, size, 1 if warm_up else self.place.seconds)

    def _timed(self, one: Running, size: int, seconds: int) -> Sample:
        kept, sent, begun = one.kept(), one.sent(), time.monotonic()
        found = self._wrk(one, size, seconds)
        took, went = time.monotonic() - begun, one.sent() - sent
        more = one.kept() - kept
        # What was under way at the end is kept too, though wrk has not heard of it.
        if one.file and not found.requests <= more <= found.requests + self.connections:
            raise WrongAnswer(f"said {found.requests} times that it took a signup, and has {more}")
        both = None
        if self.server.mails:
            one.drain()
            both = more / (time.monotonic() - begun)
        return Sample(
            rate=found.rate,
            cpu_microseconds=found.cpu_microseconds,
            share=found.share,
            disturbed=found.disturbed,
            wrk_disturbed=found.wrk_disturbed,
            p50=found.p50,
            p99=found.p99,
            mails=went / took if self.server.mails else None,
            both=both,
        )

    def _wrk(self, one: Running, size: int, seconds: int) -> Asked:
        script = ("signups", f"w{next(_numbers)}x")
        load = Load(one.port, "/signup", {}, size, script, self.connections)
        return measure(load, one.process, seconds, self.place.server_core, self.place.load_core)


def _first(one: Running) -> int:
    """Signs up once and looks closely; answers how long the answer is."""
    answer = fetch(one.port, "/signup", {"Content-Type": "application/json"}, _BODY)
    if answer.status != 202 or answer.body != b'{"status":"accepted"}':
        raise WrongAnswer(f"answers {answer.status}: {answer.body[:200]!r}")
    if one.file and one.kept() != 1:
        raise WrongAnswer(f"took one signup, and has {one.kept()}")
    return answer.size


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Pages at a rate, alone and then with signups at another. Called, it measures."""

    place: Place
    pages: float
    signups: float

    def __call__(self, warm_up: bool) -> Open:
        """Raises ProcessError or WrongAnswer."""
        server = next(server for server in SERVERS if server.mails)
        seconds = 1 if warm_up else 2 * self.place.seconds
        with running(server, self.place) as one:
            self._asked(one, seconds=1, signups=self.signups)
            one.drain()
            alone, _ = self._asked(one, seconds=seconds)
            sent = one.sent()
            busy, signups = self._asked(one, seconds=seconds, signups=self.signups)
            mails = (one.sent() - sent) / (seconds + 1)
            one.drain()
        return Open(alone, busy, signups or {}, mails)

    def _asked(
        self, one: Running, *, seconds: float, signups: float = 0.0
    ) -> tuple[dict[str, float], dict[str, float] | None]:
        kept = one.kept()
        with ExitStack() as stack:
            other = None
            if signups:
                # Half a second before and after, for the pages to be asked for only while signups come.
                other = stack.enter_context(self._generator(one, signups, seconds + 1, "signups"))
                time.sleep(0.5)
            pages = _whole(report(stack.enter_context(self._generator(one, self.pages, seconds, "pages"))))
            if other is None:
                return pages, None
            found = _whole(report(other))
        if one.kept() - kept != found["answered"]:
            raise WrongAnswer(f"said {found['answered']} times that it took a signup, and has {one.kept() - kept}")
        return pages, found

    def _generator(self, one: Running, rate: float, seconds: float, kind: str) -> AbstractContextManager[Process]:
        command = [sys.executable, "-m", "bench.openloop", str(one.port), f"{rate:.1f}", str(seconds), kind]
        return started(self.place.work, f"openloop-{kind}", Launch(command), self.place.load_core)


def _whole(found: dict[str, float]) -> dict[str, float]:
    if found["answered"] != found["due"]:
        raise WrongAnswer(f"answered {found['answered']:.0f} of {found['due']:.0f} requests")
    return found
