"""Retention: texts go when their time has come, step by step, and nobody waits for it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from server.db import Database
from server.jobs import purge
from server.outbox import store
from server.runtime import Runtime, opened
from server.settings import Settings, load
from tests.conftest import eventually
from tests.outbox.conftest import mail

OLD = 31 * purge.DAY


async def run(database: Database, sql: str) -> Any:
    await database.transact(lambda connection: connection.execute(text(sql)))


async def count(database: Database, table: str) -> int:
    query = text(f"SELECT count(*) FROM {table}")
    return int(await database.read(lambda connection: connection.execute(query).scalar_one()))


async def add_sent(database: Database, number: int, age: float) -> None:
    mails = [store.Mail("welcome", mail(f"{n}@x.example"), to_visitor=True) for n in range(number)]
    ids = await database.transact(store.add, [store.Addressed("bikes", None, one) for one in mails])
    await run(
        database,
        f"UPDATE outbox SET state = 'sent', created_at = created_at - {age}, settled_at = created_at - {age}"
        f" WHERE id >= {min(ids)}",
    )


async def test_old_texts_are_purged_and_the_job_says_how_many(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    await add_sent(database, 500, OLD)
    await add_sent(database, 3, 0)
    await purge.job(database, days=30).run(asyncio.Event())
    assert (await count(database, "messages"), await count(database, "outbox")) == (3, 503)
    shown = "".join(capsys.readouterr())
    assert "mail.purged" in shown and "500" in shown


async def test_nothing_to_purge_is_not_worth_a_word(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    await add_sent(database, 3, 0)
    await purge.job(database, days=30).run(asyncio.Event())
    assert "mail.purged" not in "".join(capsys.readouterr())


async def test_stops_between_two_steps_when_the_server_does(database: Database) -> None:
    await add_sent(database, 1000, OLD)
    closing = asyncio.Event()
    closing.set()
    await purge.job(database, days=30).run(closing)
    assert await count(database, "messages") == 800
    await purge.job(database, days=30).run(asyncio.Event())
    assert await count(database, "messages") == 0


async def test_others_write_between_two_steps(database: Database) -> None:
    await add_sent(database, 1000, OLD)
    left = []
    async for _ in purge.batches(database, 30 * purge.DAY):
        await add_sent(database, 1, 0)
        left.append(await count(database, "messages"))
    assert left[:3] == [801, 602, 403]


async def test_server_purges_at_its_start(settings: Settings) -> None:
    made = Runtime(settings)
    async with opened(made.steps()):
        await add_sent(made.database, 1, OLD)
        await run(made.database, "UPDATE jobs SET due_at = 0")
    async with opened(made.steps()):

        async def purged() -> bool:
            return await count(made.database, "messages") == 0

        await eventually(purged)


@pytest.mark.parametrize(("days", "jobs"), [("0", 0), ("1", 1), ("", 1)])
async def test_zero_days_keep_texts_for_ever(environ: dict[str, str], days: str, jobs: int) -> None:
    made = Runtime(load({**environ, "DOORBELL_MAIL_RETENTION_DAYS": days}, env_file=None))
    async with opened(made.steps()):
        assert len(made.schedule.jobs) == jobs


async def test_each_job_of_the_server_has_its_row(settings: Settings, tmp_path: Path) -> None:
    made = Runtime(settings)
    async with opened(made.steps()):
        names = text("SELECT name FROM jobs")
        rows = await made.database.read(lambda connection: list(connection.execute(names).scalars()))
        assert {job.name for job in made.schedule.jobs} <= set(rows)
