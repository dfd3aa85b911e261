"""Four times as many signups take no more memory to export and to import."""

import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert

from server.db import Database
from server.db.tables import signups
from server.jobs import export, intake, rows
from server.jobs.export import Csv, Json
from server.jobs.intake import Intake
from server.jobs.rows import Source
from server.registry import Filter
from server.signup import Reception
from tests.conftest import ON_SQLITE

FEW, MANY = 400, 1600


def add(connection: Connection, first: int, last: int) -> None:
    message = "Good day to you all. " * 20
    values = [
        {
            "site": "lamps",
            "email": f"v{number}@there.example",
            "fields": {"colour": "Red", "message": f"{number} {message}"},
            "recipient_hash": str(number),
            "created_at": float(number),
        }
        for number in range(first, last)
    ]
    connection.execute(insert(signups), values)


async def peak(work: Awaitable[None]) -> int:
    """The most bytes that Python had meanwhile."""
    gc.collect()
    tracemalloc.start()
    try:
        await work
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def write(database: Database, form: Csv | Json, file: Path) -> None:
    with file.open("wb") as opened:
        opened.write(form.begin())
        async for entry in export.entries(database, Filter(site="lamps"), 2**40):
            opened.write(form.row(entry, first=entry.id == 1))
        opened.write(form.end())


async def take(database: Database, lamps: Reception, file: Path) -> None:
    taking = Intake(lamps.site, confirmed=False)
    with file.open("rb") as opened:
        records = rows.records(Source(opened), {})
        while not (batch := taking.batch(records)).ended:
            await database.transact(intake.add, "lamps", batch.rows)


@ON_SQLITE
@pytest.mark.parametrize("form", [Csv(["colour", "message"]), Json()])
async def test_memory_does_not_follow(
    database: Database, lamps: Reception, tmp_path: Path, form: Csv | Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (export, intake):
        monkeypatch.setattr(module, "BATCH", 40)
    file = tmp_path / "file"
    work: list[Callable[[], Awaitable[None]]] = [
        lambda: write(database, form, file),
        lambda: take(database, lamps, file),
    ]
    seen: list[list[int]] = []
    for first, last in ((0, 100), (100, FEW), (FEW, MANY)):  # the first is for what is made once
        await database.transact(add, first, last)
        seen.append([await peak(one()) for one in work])
    _, few, many = seen
    assert [large < 2 * small for small, large in zip(few, many, strict=True)] == [True, True], (few, many)
    assert file.stat().st_size > many[0]
