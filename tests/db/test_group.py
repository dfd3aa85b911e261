"""Group commit: who comes together shares a transaction, and nobody pays for another's mistake."""

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, text
from sqlalchemy.exc import IntegrityError

from server.db import Database, DatabaseUnavailable, sqlite
from server.db.group import MOST, Group
from server.db.tables import signups
from tests import provision
from tests.metrics.conftest import value

ROW = {"site": "bikes", "fields": {}, "created_at": 1.0}


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    provision.database(tmp_path / "doorbell.db")
    database = Database(f"sqlite:///{tmp_path / 'doorbell.db'}")
    yield database
    await database.close()


def add(connection: Connection, emails: Sequence[str | None]) -> list[str | None]:
    connection.execute(insert(signups), [{**ROW, "email": email} for email in emails])
    return list(emails)


def add_loudly(connection: Connection, emails: Sequence[str | None]) -> list[str]:
    return [f"{email}!" for email in add(connection, emails)]


class Counting:
    """A group whose transactions are counted, by how much is written in each."""

    def __init__(self, database: Database) -> None:
        self.batches: list[int] = []
        self._database = database
        self.group = Group(self._transact)

    async def _transact(self, work: Any, batch: Any) -> Any:
        self.batches.append(len(batch))
        return await self._database.transact(work, batch)


async def emails(database: Database) -> list[str]:
    found = await database.read(lambda connection: list(connection.execute(text("SELECT email FROM signups"))))
    return sorted(email for (email,) in found)


async def test_what_shares_a_transaction_is_counted(database: Database) -> None:
    def counted(what: str) -> float:
        return value(f"doorbell_database_commit_writes_{what}") or 0

    writes, commits = counted("sum"), counted("count")
    timed = value("doorbell_database_transaction_duration_seconds_count", kind="write") or 0
    await asyncio.gather(*(database.join(add, f"{number}@example.com") for number in range(5)))
    assert (counted("sum"), counted("count")) == (writes + 5, commits + 1)
    assert value("doorbell_database_transaction_duration_seconds_count", kind="write") == timed + 1


async def test_one_alone_begins_at_once(database: Database) -> None:
    counting = Counting(database)
    assert await counting.group.write(add, "a") == "a"
    assert counting.batches == [1]


async def test_those_who_come_meanwhile_share_the_next(database: Database) -> None:
    counting = Counting(database)
    answers = await asyncio.gather(*(counting.group.write(add, f"{number:03}") for number in range(100)))
    assert answers == await emails(database) == [f"{number:03}" for number in range(100)]
    assert len(counting.batches) <= 2 and sum(counting.batches) == 100


async def test_transaction_has_a_largest_size(database: Database) -> None:
    counting = Counting(database)
    await asyncio.gather(*(counting.group.write(add, str(number)) for number in range(2 * MOST + 10)))
    assert max(counting.batches) == MOST and sum(counting.batches) == 2 * MOST + 10


async def test_each_has_its_own_answer(database: Database) -> None:
    writes = [database.join(add_loudly if number % 3 else add, str(number)) for number in range(30)]
    assert await asyncio.gather(*writes) == [f"{number}!" if number % 3 else str(number) for number in range(30)]


async def test_one_that_cannot_be_written_costs_no_other(database: Database) -> None:
    items = ["a", "b", None, "c", None, "d"]
    answers = await asyncio.gather(*(database.join(add, item) for item in items), return_exceptions=True)
    assert [item for item in answers if isinstance(item, str)] == ["a", "b", "c", "d"]
    assert [type(item) for item in answers if not isinstance(item, str)] == [IntegrityError] * 2
    assert await emails(database) == ["a", "b", "c", "d"]


async def test_who_is_cancelled_costs_no_other(database: Database) -> None:
    tasks = [asyncio.create_task(database.join(add, str(number))) for number in range(10)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert ends[1::2] == ["1", "3", "5", "7", "9"]
    assert set(await emails(database)) >= {"1", "3", "5", "7", "9"}


async def test_database_that_is_away_is_told_to_all_and_keeps_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    impatient = Database(f"sqlite:///{tmp_path / 'doorbell.db'}")
    other = sqlite3.connect(tmp_path / "doorbell.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writes = (impatient.join(add, str(number)) for number in range(3 * MOST))
    ends = await asyncio.gather(*writes, return_exceptions=True)
    assert {type(end) for end in ends} == {DatabaseUnavailable}
    other.execute("ROLLBACK")
    other.close()
    assert await emails(database) == []
    assert await impatient.join(add, "a") == "a"
    await impatient.close()


async def test_closing_waits_for_what_was_asked_for(tmp_path: Path) -> None:
    provision.database(tmp_path / "doorbell.db")
    database = Database(f"sqlite:///{tmp_path / 'doorbell.db'}")
    tasks = [asyncio.create_task(database.join(add, str(number))) for number in range(300)]
    await asyncio.sleep(0)
    await database.close()
    assert all(task.done() for task in tasks) or len(await asyncio.gather(*tasks)) == 300
    assert len(await emails(database)) == 300
    await database.close()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([add, add_loudly]), st.sampled_from(["a", "b", None]), st.booleans()), max_size=20
    )
)
def test_whatever_comes_together_is_written_or_told(items: list[tuple[Any, str | None, bool]]) -> None:
    """Each item that was answered is there once, each that was refused is not, whoever came with it."""

    async def run(folder: str) -> None:
        provision.database(Path(folder, "doorbell.db"))
        database = Database(f"sqlite:///{folder}/doorbell.db")
        tasks = []
        for number, (write, item, cancelled) in enumerate(items):
            tasks.append(asyncio.create_task(database.join(write, item and f"{number:02}{item}")))
            if cancelled:
                await asyncio.sleep(0)
                tasks[-1].cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        found = await emails(database)
        await database.close()
        told = sorted(end.removesuffix("!") for end in ends if isinstance(end, str))
        maybe = {f"{n:02}{item}" for n, (_, item, cancelled) in enumerate(items) if item and cancelled}
        assert set(told) <= set(found) <= set(told) | maybe and len(found) == len(set(found))
        assert all(isinstance(end, str | IntegrityError | asyncio.CancelledError) for end in ends)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(folder))
