"""One delivery: mails sent by a mailer on one core to a relay on the other, timed by the mailer, and counted."""

import asyncio
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import letter, outbox
from bench.large import started
from bench.mailers import Mailer, Order
from bench.process import core_busy_seconds, report
from bench.relay import relay
from bench.wire import WrongAnswer

# The warm-up sends more and more until it takes this long, and so finds how many a timed run can send.
_WARM_SECONDS = 0.5
_FIRST, _MOST = 64, 100_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """A way to the relay. `added` is round-trip time in milliseconds, None without the proxy that adds it; `only` are
    the mailers that take part, all where it is empty."""

    key: str
    title: str
    added: float | None = None
    pipelining: bool = True
    only: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Sample:
    """One delivery. Processor time is the mailer's; `share` is how much of its core it used while it sent, `disturbed`
    how much of it others did."""

    rate: float
    cpu_microseconds: float
    share: float
    disturbed: float
    mails: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run takes place: the work folder and the two cores, and for how long a timed delivery is to send."""

    work: Path
    sender_core: int
    relay_core: int
    seconds: float


@dataclass(slots=True)
class Delivery:
    """A cell of the table: a mailer in a scenario. Called, it measures; the warm-up finds how many mails are right."""

    mailer: Mailer
    scenario: Scenario
    place: Place
    count: int = _FIRST
    command: list[str] = field(default_factory=list)

    def __call__(self, warm_up: bool) -> Sample:
        """Raises ProcessError or WrongAnswer: it failed, or not every mail was accepted once."""
        if not warm_up:
            return self._measure(counts=False)
        while True:
            # Counted: here is proved that what this mailer says it sent is what comes.
            sample = self._measure(counts=True)
            seconds = sample.mails / sample.rate
            self.count = _round(min(_MOST, max(_FIRST, self.count * min(16, self.place.seconds / seconds))))
            if seconds >= min(_WARM_SECONDS, self.place.seconds / 2) or self.count == _MOST:
                return sample

    def _measure(self, *, counts: bool) -> Sample:
        place, scenario = self.place, self.scenario
        with relay(
            place.work, place.relay_core, added=scenario.added, pipelining=scenario.pipelining, counts=counts
        ) as to:
            sample = self._send(to.port)
            sent = self.count + self.mailer.before(self.count)
            if counts and (came := to.count()) != sent:
                raise WrongAnswer(f"sent {sent} mails, and {came} came")
        return sample

    def _send(self, port: int) -> Sample:
        place = self.place
        rows = _rows(place.work, self.count) if self.mailer.has_rows else None
        order = Order(port, self.count, rows, _letter(place.work))
        launch = self.mailer.launch(order)
        name = f"{self.mailer.key}-{self.scenario.key}"
        others = core_busy_seconds(place.sender_core)
        begun, used = time.monotonic(), _used_by_children()
        with started(place.work, name, launch, place.sender_core) as process:
            self.command = process.command
            said = report(process)
        whole = time.monotonic() - begun
        if said["accepted"] != self.count:
            raise WrongAnswer(f"{said['accepted']:.0f} of {self.count} mails were accepted")
        others = core_busy_seconds(place.sender_core) - others - (_used_by_children() - used)
        return Sample(
            rate=self.count / said["seconds"],
            cpu_microseconds=said["cpu_seconds"] * 1e6 / self.count,
            share=said["cpu_seconds"] / said["seconds"],
            disturbed=max(0.0, others / whole),
            mails=self.count,
        )


def _round(count: float) -> int:
    """To two digits: databases of the same size are made once."""
    step = 1
    while count >= 100 * step:
        step *= 10
    return int(count) // step * step


def _used_by_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


@contextmanager
def folder(work: Path) -> Iterator[None]:
    """The folder of the deliveries, with the letter in it, for as long as it is needed: databases are large."""
    made = work / "mail"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    _letter(work).write_text(letter.as_json())
    try:
        yield
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _letter(work: Path) -> Path:
    return work / "mail" / "letter.json"


def _rows(work: Path, count: int) -> Path:
    """A database with `count` mails that are due, on the disk. Each is made once a run, and copied."""
    made = work / "mail" / f"rows-{count}.db"
    if not made.exists():
        asyncio.run(outbox.fill(made, count))
    file = work / "mail" / "rows.db"
    for name in (file, file.with_name("rows.db-wal"), file.with_name("rows.db-shm")):
        name.unlink(missing_ok=True)
    shutil.copyfile(made, file)
    with file.open("rb+") as copied:
        # What is not written yet would be while it is timed.
        os.fsync(copied.fileno())
    return file
