"""What heavy work on the command line costs with many signups: `python -m bench.cargo [--rows 1000000]`.

Makes a database, exports it as CSV and as JSON, saves a backup, imports the CSV into an empty database and then once
more; first a tenth of the rows, then all: memory must not follow. Meanwhile somebody writes a signup every 20 ms, as a
server does, and notes how long each took.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from rich.console import Console
from rich.progress import Progress
from sqlalchemy import Connection, insert

from bench import command, outbox
from server import log
from server.db.tables import now, signups
from server.outbox.store import recipient_hash

SITE = """
title = "Cargo"
[signup.fields.colour]
type = "select"
choices = ["Red", "Green"]
[signup.fields.message]
type = "textarea"
[signup.fields.news]
type = "checkbox"
label = "Write to me."
consent = true
"""
_BATCH = 1000
_EVERY = 0.02
_IDLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Figure:
    """What a command did: how long it took, by the clock and of a processor, its greatest memory in bytes, and how long
    each write beside it took."""

    name: str
    rows: int
    seconds: float
    cpu: float
    peak: int
    writes: list[float]

    def line(self) -> str:
        """A row of the table."""
        waits = sorted(self.writes)
        worst = (statistics.median(waits), waits[len(waits) * 99 // 100], waits[-1])
        rates = [f"{self.rows / spent:,.0f}" if spent and self.peak else "" for spent in (self.seconds, self.cpu)]
        shown = " | ".join([*rates, f"{self.peak / 2**20:.0f}" if self.peak else ""])
        times = " | ".join(f"{1000 * seconds:.1f}" for seconds in worst)
        return f"| {self.name} | {self.rows:,} | {self.seconds:.1f} | {shown} | {times} |"


def row(number: int) -> dict[str, Any]:
    """A signup as the server writes it, with a message of usual length."""
    email = f"visitor-{number}@mail-{number % 5000}.example.com"
    fields = {"colour": "Red" if number % 2 else "Green", "message": f"Guten Tag, {number}! " * 8, "news": True}
    return {
        "site": "cargo",
        "email": email,
        "name": f"Visitor the {number}th",
        "fields": fields,
        "consents": {"news": "Write to me."},
        "key": token_hex(16),
        "recipient_hash": recipient_hash(email),
        "status": "confirmed",
        "created_at": 1_700_000_000.0 + number,
        "confirmed_at": 1_700_000_060.0 + number,
    }


def _add(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    connection.execute(insert(signups), rows)


def _add_one(connection: Connection, values: dict[str, Any]) -> None:
    connection.execute(insert(signups).values(**values | {"created_at": now()}))


async def _fill(file: Path, rows: int) -> None:
    async with outbox.database(file) as database:
        for begin in range(0, rows, _BATCH):
            await database.transact(_add, [row(number) for number in range(begin, min(begin + _BATCH, rows))])


async def _beside(file: Path, over: asyncio.Event) -> list[float]:
    """How long each write took, from when it was due."""
    taken: list[float] = []
    async with outbox.database(file) as database:
        due = time.monotonic()
        while not over.is_set():
            await database.transact(_add_one, row(-1) | {"key": token_hex(16), "site": "other"})
            taken.append(time.monotonic() - due)
            due = max(due + _EVERY, time.monotonic())
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), due - time.monotonic())
    return taken


async def _idle(file: Path, rows: int) -> Figure:
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(_IDLE_SECONDS, over.set)
    return Figure("nothing", rows, _IDLE_SECONDS, 0, 0, await _beside(file, over))


async def _measure(name: str, rows: int, data: Path, *arguments: str) -> Figure:
    """Runs a command of Doorbell's on the database in `data`."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DOORBELL_")}
    environ |= {"DOORBELL_DATA_DIR": str(data), "DOORBELL_SITES_DIR": str(data.parent / "sites")}
    over = asyncio.Event()
    writing = asyncio.create_task(_beside(data / "doorbell.db", over))
    begun = time.monotonic()
    status, cpu, peak = await asyncio.to_thread(_run, [sys.executable, "-m", "server", *arguments], environ)
    seconds = time.monotonic() - begun
    over.set()
    writes = await writing
    if status:
        sys.exit(f"{name}: ended with {status}")
    return Figure(name, rows, seconds, cpu, peak, writes)


def _run(arguments: list[str], environ: dict[str, str]) -> tuple[int, float, int]:
    """The exit status of a program, its processor time in seconds, and its greatest memory in bytes."""
    with subprocess.Popen(arguments, env=environ, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


async def _all(work: Path, rows: int, step: Callable[[str], None]) -> AsyncIterator[Figure]:
    """Everything, with so many rows; what it makes is removed again."""
    shutil.rmtree(work, ignore_errors=True)
    (work / "sites" / "cargo" / "public").mkdir(parents=True)
    (work / "sites" / "cargo" / "site.toml").write_text(SITE, "utf-8")
    (work / "sites" / "cargo" / "public" / "index.html").write_text("<!doctype html><title>Cargo</title>", "utf-8")
    full, empty, table = work / "full", work / "empty", work / "cargo.csv"
    step(f"{rows:,} rows: makes them")
    await _fill(full / "doorbell.db", rows)
    await _fill(empty / "doorbell.db", 0)
    step(f"{rows:,} rows: nothing but writes")
    yield await _idle(full / "doorbell.db", rows)
    for name, data, arguments in (
        ("export as CSV", full, ("export", "cargo", "--csv", "--out", str(table))),
        ("export as JSON", full, ("export", "cargo", "--json", "--out", str(work / "cargo.json"))),
        ("backup", full, ("backup", str(work / "saved"))),
        ("import of the CSV", empty, ("import", "cargo", str(table))),
        ("import of the JSON, all there", empty, ("import", "cargo", str(work / "cargo.json"))),
    ):
        step(f"{rows:,} rows: {name}")
        yield await _measure(name, rows, data, *arguments)
    shutil.rmtree(work)


async def _tell(work: Path, rows: int, step: Callable[[str], None]) -> None:
    async for figure in _all(work, rows, step):
        print(figure.line(), flush=True)


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.cargo", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="signups (%(default)s)")
    parser.add_argument("--work", type=Path, default=command.work() / "cargo", help="a folder on a disk (%(default)s)")
    given = parser.parse_args()
    command.needs_disk(given.work)
    log.configure("console", "warning")
    console = Console(stderr=True)
    print("| | rows | s | rows/s | rows per s of CPU | peak RSS, MB | a write beside it: p50, ms | p99 | longest |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        for rows in (given.rows // 10, given.rows):
            asyncio.run(_tell(given.work, rows, lambda words: progress.update(task, description=words)))


if __name__ == "__main__":
    main()
