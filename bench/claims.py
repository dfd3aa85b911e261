"""What it costs to claim from an outbox of a million rows, most of them sent, against one with nothing but what is due.

Both are asked in turn by one process: `python -m bench.claims SMALL LARGE ROUNDS`. The large one is kept in the work
folder for the next run; another schema makes another file.
"""

import asyncio
import gc
import hashlib
import json
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from bench import outbox
from bench.large import started
from bench.peers import Launch
from bench.process import report
from server.db import Database

BATCH = 32
DUE = 1000
_LOOKS = 5


@dataclass(frozen=True, slots=True)
class Times:
    """Microseconds: for a row of a claim, and for a look where nothing is due."""

    claim: list[float] = field(default_factory=list)
    look: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Claims:
    """The times of the small outbox, and of the large one, which has so many rows."""

    rows: int
    small: Times
    large: Times

    def ratio(self, kind: str) -> float:
        """How fast the large one is, the small one being 1."""
        small: list[float] = getattr(self.small, kind)
        large: list[float] = getattr(self.large, kind)
        return median(small) / median(large)

    def as_json(self) -> dict[str, Any]:
        """For the results."""
        return asdict(self) | {"claim_ratio": self.ratio("claim"), "look_ratio": self.ratio("look")}


def measure(work: Path, rows: int, rounds: int, core: int, say: Callable[[str], None]) -> Claims:
    """Makes what is missing, and measures on `core`."""
    small = work / "mail" / "due.db"
    asyncio.run(outbox.fill(small, DUE))
    large = _large(work, rows, _schema(small), say)
    launch = Launch([sys.executable, "-m", "bench.claims", str(small), str(large), str(rounds)])
    with started(work, "claims", launch, core) as process:
        found = report(process)
    return Claims(rows, Times(**found["small"]), Times(**found["large"]))


def _schema(file: Path) -> str:
    with closing(sqlite3.connect(file)) as look:
        return "\n".join(sql for (sql,) in look.execute("SELECT sql FROM sqlite_master ORDER BY name") if sql)


def _large(work: Path, rows: int, schema: str, say: Callable[[str], None]) -> Path:
    file = work / f"claims-{rows}-{hashlib.sha256(schema.encode()).hexdigest()[:12]}.db"
    if file.exists():
        return file
    say(f"an outbox of {rows:,} rows: made once")
    making = file.with_suffix(".new")
    for left in work.glob(f"{making.name}*"):
        left.unlink()
    asyncio.run(outbox.fill(making, 0))
    outbox.add_others(making, rows - DUE)
    asyncio.run(outbox.fill(making, DUE))
    making.rename(file)
    return file


async def _main(files: list[Path], rounds: int) -> None:
    times = [Times(), Times()]
    async with outbox.database(files[0]) as small, outbox.database(files[1]) as large:
        gc.freeze()
        for opened in (small, large):
            await outbox.release(opened, "bench")
        for number in range(rounds + 1):
            # Round 0 warms up.
            await _round([small, large], times if number else [Times(), Times()])
    print("BENCH " + json.dumps({"small": asdict(times[0]), "large": asdict(times[1])}))


async def _round(both: list[Database], times: list[Times]) -> None:
    for _ in range(DUE // BATCH):
        for opened, found in zip(both, times, strict=True):
            begun = time.perf_counter()
            claimed = await outbox.claim(opened, "bench", BATCH)
            took = time.perf_counter() - begun
            if claimed != BATCH:
                raise SystemExit(f"a claim found {claimed} rows, not {BATCH}")
            found.claim.append(took * 1e6 / claimed)
    for opened in both:
        await outbox.claim(opened, "bench", DUE)  # the rest
    for _ in range(_LOOKS):
        for opened, found in zip(both, times, strict=True):
            begun = time.perf_counter()
            await outbox.look(opened, "bench")
            found.look.append((time.perf_counter() - begun) * 1e6)
    for opened in both:
        await outbox.release(opened, "bench")


if __name__ == "__main__":
    uvloop.run(_main([Path(sys.argv[1]), Path(sys.argv[2])], int(sys.argv[3])))
