"""PostgreSQL as an engine: what it undoes or cannot take is tried again, nothing is half done, and processes hear of
each other."""

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from server.db import Database, DatabaseUnavailable
from server.db import postgresql as engine
from server.db.across import alone, announce
from server.db.tables import counters
from server.settings import load
from tests import postgresql
from tests.conftest import eventually, skip_or_fail
from tests.way import Way


@pytest.fixture
def url(postgresql_url: str) -> str:
    return postgresql_url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    yield database
    await database.close()


def put(connection: Connection, key: str, count: int = 0) -> None:
    connection.execute(insert(counters).values(key=key, count=count, until=0))


def counted(connection: Connection) -> dict[str, int]:
    return {key: count for key, count in connection.execute(select(counters.c.key, counters.c.count))}


def step(connection: Connection, key: str) -> None:
    connection.execute(text("UPDATE counters SET count = count + 1 WHERE key = :key"), {"key": key})


def end_all(url: str) -> None:
    """As a restart of the server does: every connection is cut."""
    name = url.rpartition("/")[2]
    postgresql.ask(
        url,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
        name,
    )


@pytest.fixture
async def way(url: str) -> AsyncIterator[Way]:
    way = Way(url)
    await way.open()
    yield way
    await way.close()


@asynccontextmanager
async def by(way: Way) -> AsyncIterator[Database]:
    database = Database(way.url)
    yield database
    await database.close()


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql+asyncpg://postgres:hush@127.0.0.1:1/x", "Connect call failed"),
        ("postgresql+asyncpg://postgres:hush@127.0.0.1:5432/there_is_none", "does not exist"),
    ],
)
async def test_server_that_is_not_there_is_told_without_the_password(
    url: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := postgresql.missing():
        skip_or_fail(reason)
    monkeypatch.setattr(engine, "AGAIN_SECONDS", 0.2)
    database = Database(url)
    with pytest.raises(DatabaseUnavailable, match=says) as caught:
        await database.open()
    assert "hush" not in str(caught.value)
    await database.close()


async def test_connections_that_were_cut_while_they_lay_idle_cost_nothing(database: Database, url: str) -> None:
    await asyncio.gather(*(database.transact(put, f"before {number}") for number in range(5)))
    await asyncio.to_thread(end_all, url)
    await asyncio.gather(*(database.transact(put, f"after {number}") for number in range(5)))
    assert len(await database.read(counted)) == 10


async def test_connection_that_is_cut_in_the_midst_is_tried_again(database: Database, url: str) -> None:
    cut: list[bool] = []

    def work(connection: Connection) -> None:
        put(connection, "one")
        if not cut:
            cut.append(True)
            end_all(url)  # blocks the loop, as nothing else may; here it makes sure of the moment
        put(connection, "two")

    await database.transact(work)
    assert set(await database.read(counted)) == {"one", "two"}


async def test_connection_that_is_cut_before_the_commit_is_told_and_nothing_is_done_twice(
    database: Database, url: str
) -> None:
    """Whether it was committed cannot be known then: to try again could write everything twice."""
    runs: list[int] = []

    def work(connection: Connection) -> None:
        runs.append(len(runs))
        put(connection, f"run {len(runs)}")
        end_all(url)

    with pytest.raises(DatabaseUnavailable, match="the connection broke in a commit"):
        await database.transact(work)
    assert runs == [0]
    assert await database.read(counted) == {}


async def test_server_that_is_away_for_a_moment_is_waited_for(way: Way) -> None:
    async with by(way) as database:
        await database.transact(put, "before")
        await way.close()
        waiting = asyncio.create_task(database.transact(put, "meanwhile"))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await way.open()
        await waiting
        assert set(await database.read(counted)) == {"before", "meanwhile"}


async def test_server_that_stays_away_is_unavailable_and_then_is_not(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "AGAIN_SECONDS", 0.2)
    async with by(way) as database:
        await database.check()
        await way.close()
        with pytest.raises(DatabaseUnavailable):
            await database.check()
        await way.open()
        await database.check()


async def test_of_several_servers_the_one_that_is_left_is_taken(way: Way, url: str) -> None:
    other = Way(url)
    await other.open()
    hosts = "&".join(f"host=127.0.0.1:{one.port}" for one in (way, other))
    several = f"postgresql+asyncpg://postgres@/{url.rpartition('/')[2]}?{hosts}&target_session_attrs=primary"
    assert load({"DOORBELL_DATABASE_URL": several, "DOORBELL_SECRET_KEY": "x" * 16}, None).database_url == several
    database = Database(several)
    await database.transact(put, "before")
    await way.close()
    await database.transact(put, "after")
    assert set(await database.read(counted)) == {"before", "after"}
    await database.close()
    await other.close()


async def test_connections_that_a_network_lost_are_given_up_together(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "STATEMENT_SECONDS", 1)
    monkeypatch.setattr(engine, "AGAIN_SECONDS", 20)
    async with by(way) as database:
        await asyncio.gather(*(database.transact(put, f"before {number}") for number in range(5)))
        way.silence()
        async with asyncio.timeout(60):
            await database.transact(put, "after")
        assert len(await database.read(counted)) == 6


async def test_network_that_is_lost_in_the_midst_is_tried_again(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "STATEMENT_SECONDS", 1)
    monkeypatch.setattr(engine, "AGAIN_SECONDS", 20)
    lost: list[bool] = []

    def work(connection: Connection) -> None:
        put(connection, "one")
        if not lost:
            lost.append(True)
            way.silence()
        put(connection, "two")

    async with by(way) as database, asyncio.timeout(60):
        await database.transact(work)
        assert set(await database.read(counted)) == {"one", "two"}


async def test_schema_that_another_changes_meanwhile_costs_nothing(url: str) -> None:
    with postgresql.bare() as bare:
        database = Database(bare)
        await database.open()
        await database.transact(put, "one", 1)
        assert await database.read(counted) == {"one": 1}
        postgresql.ask(bare, "ALTER TABLE counters ALTER COLUMN count TYPE bigint")
        assert await database.read(counted) == {"one": 1}
        await database.close()


async def test_deadlock_is_resolved_by_trying_again(database: Database, url: str) -> None:
    for key in ("a", "b"):
        await database.transact(put, key)
    other = Database(url)

    def both(connection: Connection, first: str, second: str) -> None:
        step(connection, first)
        connection.execute(text("SELECT pg_sleep(0.2)"))
        step(connection, second)

    await asyncio.gather(database.transact(both, "a", "b"), other.transact(both, "b", "a"))
    assert await database.read(counted) == {"a": 2, "b": 2}
    await other.close()


async def test_row_that_another_wrote_meanwhile_is_seen_the_second_time(database: Database) -> None:
    def add_once(connection: Connection) -> bool:
        known = "one" in counted(connection)
        connection.execute(text("SELECT pg_sleep(0.2)"))
        if not known:
            put(connection, "one")
        return known

    assert sorted(await asyncio.gather(*(database.transact(add_once) for _ in range(2)))) == [False, True]


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("INSERT INTO counters VALUES ('a', 0, 0), ('a', 0, 0)", IntegrityError),
        ("INSERT INTO counters VALUES (NULL, 0, 0)", IntegrityError),
        ("SELECT nothing FROM nowhere", ProgrammingError),
    ],
)
async def test_mistake_of_ours_is_no_fault_of_the_database(
    database: Database, statement: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await database.transact(lambda connection: connection.execute(text(statement)))
    assert await database.read(counted) == {}


@pytest.mark.parametrize(
    ("key", "count"), [("a\0b", 0), ("a" * 201, 0), ("\ud800", 0), ("a", 2**31)], ids=["nul", "long", "half", "great"]
)
async def test_value_that_cannot_be_kept_costs_nobody_else(database: Database, key: str, count: int) -> None:
    def write(connection: Connection, items: Sequence[tuple[str, int]]) -> list[None]:
        for item in items:
            put(connection, *item)
        return [None] * len(items)

    good, bad = [("before", 0), ("after", 0)], (key, count)
    done = await asyncio.gather(
        *(database.join(write, item) for item in (good[0], bad, good[1])), return_exceptions=True
    )
    assert [type(result).__name__ for result in done] == ["NoneType", "DBAPIError", "NoneType"]
    assert set(await database.read(counted)) == {"before", "after"}


async def test_lock_is_not_waited_for_without_end(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "LOCK_SECONDS", 0.1)
    holder, other = Database(url), Database(url)
    go_on = asyncio.Event()
    await holder.transact(put, "a")

    async def hold() -> None:
        async with holder._engine._pool.begin() as connection:  # type: ignore[attr-defined]
            await connection.run_sync(step, "a")
            await go_on.wait()

    holding = asyncio.create_task(hold())
    await asyncio.sleep(0.1)
    with pytest.raises(DatabaseUnavailable, match="lock timeout"):
        await other.transact(step, "a")
    go_on.set()
    await holding
    for database in (holder, other):
        await database.close()


async def test_who_is_cancelled_leaves_nothing_half_done(database: Database) -> None:
    def slow(connection: Connection) -> None:
        put(connection, "one")
        connection.execute(text("SELECT pg_sleep(0.3)"))
        put(connection, "two")

    task = asyncio.create_task(database.transact(slow))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: whole(database))
    await database.transact(put, "three")


async def test_fault_that_nobody_waits_for_any_more_is_not_logged_as_a_mistake(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "AGAIN_SECONDS", 0.3)
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    async with by(way) as database:
        await way.close()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await database.read(counted)
    gc.collect()
    assert said == []


async def whole(database: Database) -> bool:
    found = await database.read(counted)
    assert len(found) in (0, 2)
    return len(found) == 2


async def test_close_waits_for_what_is_under_way(url: str) -> None:
    database = Database(url)

    def slow(connection: Connection) -> None:
        connection.execute(text("SELECT pg_sleep(0.2)"))
        put(connection, "one")

    task = asyncio.create_task(database.transact(slow))
    await asyncio.sleep(0.05)
    await database.close()
    await task
    assert await asyncio.to_thread(postgresql.ask, url, "SELECT key FROM counters") == [("one",)]


async def test_read_cannot_write(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "AGAIN_SECONDS", 0.1)  # a server that only reads may be one that was the standby
    with pytest.raises((DatabaseUnavailable, ProgrammingError), match="read-only"):
        await database.read(put, "one")


# -- across processes --------------------------------------------------------------------------------------------------


async def test_what_is_done_alone_is_done_one_after_the_other(database: Database, url: str) -> None:
    other = Database(url)
    inside: list[int] = []

    def count(connection: Connection) -> None:
        alone(connection, "counting")
        seen = counted(connection).get("n", 0)
        connection.execute(text("SELECT pg_sleep(0.01)"))
        connection.execute(text("DELETE FROM counters"))
        put(connection, "n", seen + 1)
        inside.append(seen)

    await asyncio.gather(*(one.transact(count) for _ in range(10) for one in (database, other)))
    assert inside == list(range(20))
    await other.close()


async def test_who_listens_hears_once_it_is_committed(database: Database, url: str) -> None:
    heard: list[Any] = []
    other = Database(url)
    stop = await other.listen(lambda: heard.append(len(heard)))
    await eventually(lambda: heard == [0])  # for what was said before

    def fail(connection: Connection) -> None:
        announce(connection)
        raise LookupError

    with pytest.raises(LookupError):
        await database.transact(fail)
    assert len(heard) == 1
    await database.transact(announce)
    await eventually(lambda: len(heard) == 2)
    await stop()
    await database.transact(announce)
    await database.read(counted)
    assert len(heard) == 2
    await other.close()


async def test_who_was_cut_off_listens_again_and_looks(way: Way, database: Database) -> None:
    heard: list[int] = []
    async with by(way) as other:
        stop = await other.listen(lambda: heard.append(1))
        await eventually(lambda: len(heard) == 1)
        await way.close()
        await database.transact(announce)
        await way.open()
        await eventually(lambda: len(heard) == 2)
        await database.transact(announce)
        await eventually(lambda: len(heard) == 3)
        await stop()


async def test_who_listens_to_a_network_that_lost_it_listens_again(
    way: Way, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "ALIVE_SECONDS", 0.2)
    monkeypatch.setattr(engine, "CONNECT_SECONDS", 2)
    heard: list[bool] = []
    async with by(way) as deaf:
        stop = await deaf.listen(lambda: heard.append(True))
        await eventually(lambda: len(heard) == 1)
        way.silence()
        await eventually(lambda: len(heard) == 2)
        await database.transact(announce)
        await eventually(lambda: len(heard) == 3)
        await stop()
