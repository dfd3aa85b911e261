"""Retention: texts go when their time has come, step by step, and nobody waits for it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from server import registry
from server.db import Database
from server.jobs import purge
from server.jobs.purge import Retention
from server.outbox import ledger, store
from server.outbox.ledger import Purged
from server.runtime import Runtime, opened
from server.settings import Settings
from server.signup import Reception
from tests.conftest import eventually
from tests.outbox.conftest import mail
from tests.signups import change, sign_up

OLD = 31 * purge.DAY
KEEP = Retention(texts=30, unconfirmed=30)


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
    await purge.job(database, KEEP).run(asyncio.Event())
    assert (await count(database, "messages"), await count(database, "outbox")) == (3, 503)
    shown = "".join(capsys.readouterr())
    assert "mail.purged" in shown and "500" in shown


async def test_nothing_to_purge_is_not_worth_a_word(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    await add_sent(database, 3, 0)
    await purge.job(database, KEEP).run(asyncio.Event())
    assert "mail.purged" not in "".join(capsys.readouterr())


async def test_stops_between_two_steps_when_the_server_does(database: Database) -> None:
    await add_sent(database, 1000, OLD)
    closing = asyncio.Event()
    closing.set()
    await purge.job(database, KEEP).run(closing)
    assert await count(database, "messages") == 800
    await purge.job(database, KEEP).run(asyncio.Event())
    assert await count(database, "messages") == 0


async def test_others_write_between_two_steps(database: Database) -> None:
    await add_sent(database, 1000, OLD)
    left = []
    async for _ in purge.batches(database, ledger.purge, 30 * purge.DAY):
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


async def test_zero_days_keep_things_for_ever(database: Database, lamps: Reception) -> None:
    await add_sent(database, 1, 9999 * purge.DAY)
    await sign_up(database, lamps, ["ann@there.example"], age=9999 * purge.DAY)
    change(database, "UPDATE signups SET status = 'confirmed'")
    change(database, "UPDATE outbox SET state = 'sent', settled_at = 1")
    await purge.job(database, Retention(texts=0, unconfirmed=30, signups=0)).run(asyncio.Event())
    assert (await count(database, "signups"), await count(database, "messages")) == (1, 3)


ENDED = "state = 'failed', settled_at = created_at"


async def purged(database: Database, site: Reception, signup: str, mails: str = ENDED, keep: Retention = KEEP) -> bool:
    """Whether a signup that is 31 days old, and then like this, is removed, and all that hangs on it."""
    await sign_up(database, site, ["ann@there.example"], age=OLD)
    change(database, f"UPDATE signups SET {signup}")
    change(database, f"UPDATE outbox SET {mails}")
    await purge.job(database, keep).run(asyncio.Event())
    left = [await count(database, table) for table in ("signups", "outbox", "messages")]
    assert left in ([0, 0, 0], [1, 2, 2], [1, 2, 0])
    return left[0] == 0


TOLD_LONG_AGO = "told_at = created_at"


@pytest.mark.parametrize(
    ("signup", "mails", "gone"),
    [
        (TOLD_LONG_AGO, ENDED, True),
        ("told_at = NULL", ENDED, False),
        ("told_at = created_at + 5 * 86400.0", ENDED, False),
        (TOLD_LONG_AGO, "state = 'pending'", False),
        (TOLD_LONG_AGO, "state = CASE kind WHEN 'notice' THEN 'awaiting' ELSE 'sent' END", True),
        (f"{TOLD_LONG_AGO}, status = 'confirmed'", ENDED, False),
        ("status = 'spam'", "state = 'awaiting'", True),
        ("status = 'spam', created_at = created_at + 5 * 86400.0", "state = 'awaiting'", False),
        ("status = 'accepted'", ENDED, False),
    ],
)
async def test_signups_go_when_nobody_waits_for_them(
    database: Database, lamps: Reception, signup: str, mails: str, gone: bool
) -> None:
    assert await purged(database, lamps, signup, mails) is gone


@pytest.mark.parametrize(
    ("signup", "mails", "gone"),
    [
        ("status = 'confirmed'", ENDED, True),
        ("status = 'accepted'", ENDED, True),
        ("told_at = NULL", ENDED, True),
        ("status = 'confirmed'", "state = CASE kind WHEN 'notice' THEN 'pending' ELSE 'sent' END", False),
        ("status = 'confirmed', created_at = created_at + 5 * 86400.0", ENDED, False),
    ],
)
async def test_every_signup_goes_where_the_operator_wants_it(
    database: Database, lamps: Reception, signup: str, mails: str, gone: bool
) -> None:
    assert await purged(database, lamps, signup, mails, Retention(texts=0, unconfirmed=99, signups=30)) is gone


async def test_all_that_is_old_goes_in_small_steps(
    database: Database, lamps: Reception, capsys: pytest.CaptureFixture[str]
) -> None:
    await sign_up(database, lamps, [f"v{number}@there.example" for number in range(7)], age=OLD)
    await sign_up(database, lamps, ["new@there.example"])
    change(database, f"UPDATE outbox SET {ENDED}")
    change(database, "UPDATE outbox SET state = 'pending' WHERE signup_id = 3")

    def two(connection: Connection, older_than: float, after: int) -> Purged:
        return registry.purge(connection, older_than, after, limit=2)

    steps = [step async for step in purge.batches(database, two, 30 * purge.DAY)]
    assert (steps, change(database, "SELECT id FROM signups ORDER BY id")) == ([2, 1, 2, 1, 0], [(3,), (8,)])


async def test_old_signups_that_were_imported_later_go_too(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, [f"v{number}@there.example" for number in range(5)])
    await sign_up(database, lamps, ["old@there.example"], age=OLD)
    change(database, f"UPDATE outbox SET {ENDED}")

    def two(connection: Connection, older_than: float, after: int) -> Purged:
        return registry.purge(connection, older_than, after, limit=2)

    assert sum([step async for step in purge.batches(database, two, 30 * purge.DAY)]) == 1
    assert await count(database, "signups") == 5


async def test_counts_and_repeated_posts_go_when_they_are_over(database: Database, lamps: Reception) -> None:
    [id] = await sign_up(database, lamps, ["ann@there.example"])
    for number in range(500):
        change(database, f"INSERT INTO counters VALUES ('old{number}', 1, 5), ('new{number}', 1, 9e12)")
    change(database, f"INSERT INTO idempotency VALUES ('old', 'b', {id}, 5), ('new', 'b', {id}, 9e12)")
    await purge.job(database, KEEP).run(asyncio.Event())
    assert await count(database, "counters") == 500
    assert change(database, "SELECT key FROM idempotency") == [("new",)]


async def test_each_job_of_the_server_has_its_row(settings: Settings, tmp_path: Path) -> None:
    made = Runtime(settings)
    async with opened(made.steps()):
        names = text("SELECT name FROM jobs")
        rows = await made.database.read(lambda connection: list(connection.execute(names).scalars()))
        assert {job.name for job in made.schedule.jobs} <= set(rows)
