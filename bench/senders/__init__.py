"""Programs that send mails as fast as they can, a module each: `python -m bench.senders.<name> PORT COUNT CONNECTIONS`.

Each says at the end on a line of JSON how many were accepted, and what the sending took: not its start, nor the making
of what was there before.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvloop


@dataclass(slots=True)
class Job:
    """What to do: how many mails, to which port, over how many connections. `accepted` counts those that the relay
    has taken; each library raises where it has not."""

    port: int
    count: int
    connections: int
    accepted: int = 0
    numbers: Iterator[int] = field(init=False)

    def __post_init__(self) -> None:
        self.numbers = iter(range(self.count))


@dataclass(frozen=True, slots=True)
class Clock:
    """Since when, and with how much processor time used before."""

    begun: float = field(default_factory=time.perf_counter)
    used: float = field(default_factory=time.process_time)

    def report(self, accepted: int) -> None:
        """Says what it took."""
        seconds, cpu = time.perf_counter() - self.begun, time.process_time() - self.used
        report(accepted, seconds, cpu)


def report(accepted: int, seconds: float, cpu: float) -> None:
    """The line that the bench reads."""
    print("BENCH " + json.dumps({"accepted": accepted, "seconds": seconds, "cpu_seconds": cpu}), flush=True)


def job() -> Job:
    """What the command line says."""
    return Job(*map(int, sys.argv[1:4]))


def rows() -> Path:
    """The file with the rows, for who sends rows: the fourth argument."""
    return Path(sys.argv[4])


def run(work: Callable[[Job], Awaitable[None]]) -> None:
    """Runs `work` once for each connection, side by side; together they take the numbers of the mails."""
    uvloop.run(_run(job(), work))


async def _run(given: Job, work: Callable[[Job], Awaitable[None]]) -> None:
    gc.freeze()  # as the server does: what was imported stays
    clock = Clock()
    await asyncio.gather(*(work(given) for _ in range(given.connections)))
    clock.report(given.accepted)
