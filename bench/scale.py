"""How delivery grows with workers: mails a second with 1, 2 and 4 of them on PostgreSQL, each with its own pool, to a
relay 20 ms away; and what a mail costs on PostgreSQL and on SQLite.

Run as `python -m bench.scale`; bench/README.md says what is measured and how to read it.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import asyncpg
from rich.console import Console

from bench import outbox, sheet
from bench.command import Display, needs_disk
from bench.large import started
from bench.peers import Launch
from bench.process import Process, free_port
from bench.relay import relay
from server import log, tasks
from server.db import Database

WORKERS = (1, 2, 4)
LATENCY_MS = 20
# Of linear, until a core is full.
WANTED = 0.85
_TICK = os.sysconf("SC_CLK_TCK")
_NAME = "doorbell_bench"
_LOOK_SECONDS = 0.02
_SITE = 'title = "Bench"\n[mail]\nfrom = "Bench <bench@bench.example>"\n'


@dataclass(frozen=True, slots=True)
class Case:
    """So many workers, on this kind of database, each with so many connections."""

    database: str
    workers: int
    size: int

    @property
    def title(self) -> str:
        return f"{self.database}, {self.workers} x {self.size} connections"


@dataclass(frozen=True, slots=True)
class Sample:
    """Mails a second, and processor time a mail in seconds: of the workers, and of PostgreSQL."""

    rate: float
    worker_cpu: float
    database_cpu: float
    seconds: float
    mails: int

    @property
    def worker_cores(self) -> float:
        """How many cores all workers together kept busy."""
        return self.worker_cpu * self.mails / self.seconds


@dataclass
class Bench:
    """What was asked for, and what was found."""

    arguments: argparse.Namespace
    display: Display
    samples: dict[Case, list[Sample]] = field(default_factory=dict)
    bell: tasks.Bell = field(init=False)

    def __post_init__(self) -> None:
        self.bell = tasks.Bell(tasks.create(self.arguments.broker))

    @property
    def work(self) -> Path:
        return Path(self.arguments.work)

    def run(self) -> None:
        """Every case once a round, so that what disturbs the machine disturbs all."""
        size = self.arguments.size
        cases = [Case("PostgreSQL", count, size) for count in WORKERS] + [Case("SQLite", 1, size)]
        for round_ in range(self.arguments.rounds):
            for case in cases:
                self.display.step(f"round {round_ + 1}: {case.title}")
                self.samples.setdefault(case, []).append(asyncio.run(self._measure(case)))

    async def _measure(self, case: Case) -> Sample:
        url = await self._fresh(case)
        with ExitStack() as stack:
            way = stack.enter_context(relay(self.work, 0, added=LATENCY_MS))
            workers = [self._worker(stack, number, url, way.port, case.size) for number in range(case.workers)]
            async with outbox.opened(url) as database:
                await self._send(database, case.workers * case.size)  # connections are open then
                count = self.arguments.mails * case.workers
                before = self._cpu(workers)
                seconds = await self._send(database, count)
                spent = [after - begun for after, begun in zip(self._cpu(workers), before, strict=True)]
        return Sample(count / seconds, spent[0] / count, spent[1] / count, seconds, count)

    def _cpu(self, workers: list[Process]) -> tuple[float, float]:
        return sum(one.cpu_seconds() for one in workers), _postgresql_seconds()

    async def _send(self, database: Database, count: int) -> float:
        await outbox.add(database, count)
        begun = time.perf_counter()
        self.bell.ring()  # as a web process does
        # Only the rows know when: there is no event to wait for.
        while await database.read(outbox.waiting):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        return time.perf_counter() - begun

    async def _fresh(self, case: Case) -> str:
        if case.database == "SQLite":
            for file in self.work.glob("scale.db*"):
                file.unlink()
            url = f"sqlite:///{self.work / 'scale.db'}"
        else:
            connection = await asyncpg.connect(f"{self.arguments.postgresql}/postgres")
            await connection.execute(f"DROP DATABASE IF EXISTS {_NAME} WITH (FORCE)")
            await connection.execute(f"CREATE DATABASE {_NAME}")
            await connection.close()
            url = f"{self.arguments.postgresql.replace('postgresql:', 'postgresql+asyncpg:')}/{_NAME}"
        database = Database(url)
        await database.open()
        await database.close()
        return url

    def _worker(self, stack: ExitStack, number: int, url: str, smtp_port: int, size: int) -> Process:
        port = free_port()
        environment = {
            "DOORBELL_DATABASE_URL": url,
            "DOORBELL_BROKER_URL": self.arguments.broker,
            "DOORBELL_SECRET_KEY": "a secret of some length",
            "DOORBELL_SMTP_URL": f"smtp://127.0.0.1:{smtp_port}",
            "DOORBELL_SMTP_POOL_SIZE": str(size),
            "DOORBELL_SMTP_MAX_MESSAGES": "100000",
            "DOORBELL_LIMITS": "off",
            "DOORBELL_SITES_DIR": str(self._sites()),
            "DOORBELL_LOG_LEVEL": "warning",
        }
        launch = Launch([sys.executable, "-m", "server", "worker", "--port", str(port)], environment)
        worker = stack.enter_context(started(self.work, f"worker-{number}", launch, None))
        worker.wait_for(port)
        return worker

    def _sites(self) -> Path:
        folder = self.work / "scale-sites" / "bench"
        (folder / "public").mkdir(parents=True, exist_ok=True)
        (folder / "public" / "index.html").write_text("<!doctype html><title>Bench</title>")
        (folder / "site.toml").write_text(_SITE)
        return folder.parent

    def table(self) -> str:
        """As it stands in the README."""
        rows = ["| | mails/s | of linear | worker cores | CPU ms a mail, worker | CPU ms a mail, PostgreSQL |"]
        rows.append("|---|--:|--:|--:|--:|--:|")
        one = next(iter(self.samples.values()))
        for case, samples in self.samples.items():
            rate = median(one.rate for one in samples)
            linear = rate / (case.workers * median(first.rate for first in one))
            f"{1000 * median(sample.database_cpu for sample in samples):.2f}"
            figures = (
                f"{rate:.0f}",
                f"{linear:.2f}" if case.database == "PostgreSQL" else "",
                f"{median(sample.worker_cores for sample in samples):.2f}",
                f"{1000 * median(sample.worker_cpu for sample in samples):.2f}",
                f"{1000 * median(sample.database_cpu for sample in samples):.2f}"
                if case.database == "PostgreSQL"
                else "",
            )
            rows.append(f"| {case.title} | {' | '.join(figures)} |")
        return "\n".join(rows)


def _postgresql_seconds() -> float:
    """Processor time of every process of PostgreSQL's; those that ended are counted with their parent."""
    return sum(_cpu(fields) for name, fields in _processes() if name == "postgres")


def _cpu(fields: list[str]) -> float:
    return sum(map(int, fields[11:15])) / _TICK


def _processes() -> Iterator[tuple[str, list[str]]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                with open(f"/proc/{entry.name}/stat") as file:
                    head, _, rest = file.read().rpartition(")")
            except (FileNotFoundError, ProcessLookupError):
                continue
            yield head.partition("(")[2], rest.split()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mails", type=int, default=1500, help="mails a worker (%(default)s)")
    parser.add_argument("--size", type=int, default=4, help="connections a worker (%(default)s)")
    parser.add_argument("--postgresql", default="postgresql://postgres@127.0.0.1:5432", help="the server (%(default)s)")
    parser.add_argument("--broker", default="amqp://guest:guest@127.0.0.1:5672//", help="the broker (%(default)s)")
    parser.add_argument(
        "--work", type=Path, default=Path("/var/tmp/doorbell-bench"), help="where files go (%(default)s)"
    )
    found = parser.parse_args()
    found.rounds = 1 if found.quick else found.rounds
    return found


def main() -> None:
    """Measures, and prints the table."""
    log.configure("console", "error")
    arguments = _arguments()
    needs_disk(arguments.work)
    display = Display(Console(stderr=True))
    bench = Bench(arguments, display)
    with display.measuring({"smtp-sink": "postfix"}):
        bench.run()
    found = sheet.heading("bench.scale", display.took())
    machine = found["machine"]
    print(f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {found['date']}\n")
    print(bench.table())


if __name__ == "__main__":
    main()
