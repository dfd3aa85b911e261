"""The database: how it opens, what it promises, and how it says that it cannot."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from server.db import Database, DatabaseUnavailable, sqlite
from server.db.tables import messages, outbox, signups
from tests.conftest import eventually

SIGNUP = {"site": "bikes", "email": "somebody@private.example", "fields": {"colour": "Red"}, "created_at": 1.0}


def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(url(tmp_path / "doorbell.db"))
    await database.open()
    yield database
    await database.close()


def _rows(connection: Connection) -> list[Any]:
    return list(connection.execute(select(signups)))


def _insert(connection: Connection, /, **more: object) -> None:
    connection.execute(insert(signups), SIGNUP | more)


async def pragma(database: Database, name: str) -> object:
    return await database.transact(lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar())


async def count(database: Database) -> int:
    return len(await database.transact(_rows))


async def assert_closed(database: Database) -> None:
    """Closes it; its threads have ended."""
    await database.close()
    assert not any(thread.name.startswith("database-") for thread in threading.enumerate())


async def add(database: Database, **more: object) -> None:
    await database.transact(_insert, **more)


# -- opening -----------------------------------------------------------------------------------------------------------


async def test_opens_where_there_is_no_folder_yet(tmp_path: Path) -> None:
    database = Database(url(tmp_path / "a" / "b" / "doorbell.db"))
    await database.open()
    await count(database)
    await database.close()


async def test_opens_twice_and_keeps_what_is_there(database: Database) -> None:
    await add(database)
    await database.open()
    await database.close()
    await database.open()
    assert await count(database) == 1


def test_several_processes_open_a_new_database_at_once(bare_url: str) -> None:
    program = (
        "import asyncio, sys\n"
        "from server.db import Database\n"
        "async def main():\n"
        "    database = Database(sys.argv[1])\n"
        "    await database.open()\n"
        "    await database.close()\n"
        "sys.stdin.readline()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, bare_url]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in started:
        assert process.stdin
        process.stdin.write("go\n")  # they have imported everything, or soon will
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 4, errors


@pytest.mark.parametrize(
    ("name", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 1000 * sqlite.BUSY_SECONDS)],
)
async def test_setting_is_in_effect(database: Database, name: str, value: object) -> None:
    assert await pragma(database, name) == value
    await database.close()
    assert await pragma(database, name) == value  # on a new connection as well


# -- transactions ------------------------------------------------------------------------------------------------------


async def test_exception_undoes_everything(database: Database) -> None:
    def fail(connection: Connection) -> None:
        _insert(connection)
        raise LookupError

    with pytest.raises(LookupError):
        await database.transact(fail)
    assert await count(database) == 0


async def test_committed_rows_are_there_after_the_process_is_killed(tmp_path: Path) -> None:
    program = (
        "import asyncio, os, signal, sys\n"
        "from sqlalchemy import text\n"
        "from server.db import Database\n"
        "async def main():\n"
        "    database = Database(sys.argv[1])\n"
        "    await database.open()\n"
        "    await database.transact(lambda connection: connection.execute(text('''\n"
        "        INSERT INTO signups (site, email, fields, created_at) VALUES ('bikes', 'a@x.example', '{}', 1)''')))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    path = tmp_path / "killed.db"
    process = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program, url(path)], timeout=60)
    assert process.returncode < 0
    database = Database(url(path))
    await database.open()
    assert await count(database) == 1
    await database.close()


async def test_many_at_once_take_turns(database: Database) -> None:
    await asyncio.gather(*(add(database) for _ in range(50)))
    assert await count(database) == 50


async def test_reader_that_becomes_a_writer_waits_for_another_process(database: Database, tmp_path: Path) -> None:
    other = Database(url(tmp_path / "doorbell.db"))

    def increase(connection: Connection) -> None:
        _insert(connection, created_at=float(len(_rows(connection))))

    await asyncio.gather(*(one.transact(increase) for _ in range(20) for one in (database, other)))
    found = [row.created_at for row in await database.transact(_rows)]
    await other.close()
    assert sorted(found) == [float(number) for number in range(40)]


async def test_reader_neither_waits_for_a_writer_nor_holds_one_up(database: Database) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> int:
        found = len(_rows(connection))
        begun.set()
        assert go_on.wait(20)
        return found

    for first, second in ((database.transact, database.read), (database.read, database.transact)):
        begun.clear()
        go_on.clear()
        slowly = asyncio.create_task(first(slow))
        await eventually(begun.is_set)
        await second(_rows)
        go_on.set()
        await slowly


async def test_foreign_keys_are_kept_and_cascade(database: Database) -> None:
    row: dict[str, object] = {"signup_id": 7, "site": "b", "kind": "welcome", "sender": "a", "recipient": "b@c"}
    row |= {"domain": "c", "message_id": "<1@x>", "state": "pending", "attempts": 0, "uncertain": 0}
    row |= {"due_at": 0.0, "created_at": 0.0}
    with pytest.raises(IntegrityError):
        await database.transact(lambda connection: connection.execute(insert(outbox), row))

    def cascade(connection: Connection) -> list[Any]:
        _insert(connection, id=7)
        connection.execute(insert(outbox), row | {"id": 3})
        connection.execute(insert(messages), {"outbox_id": 3, "data": b"Hello"})
        connection.execute(text("DELETE FROM signups"))
        return [*connection.execute(select(outbox)), *connection.execute(select(messages))]

    assert await database.transact(cascade) == []


# -- cancellation ------------------------------------------------------------------------------------------------------


def write_and_read(connection: Connection) -> None:
    _insert(connection)
    _rows(connection)


@pytest.mark.parametrize("seed", range(3))
async def test_cancelled_at_any_moment_leaves_no_lock_and_nothing_half_done(database: Database, seed: int) -> None:
    random = Random(seed)

    def twice(connection: Connection) -> None:
        write_and_read(connection)
        write_and_read(connection)

    for _ in range(80):
        tasks = [asyncio.create_task(database.transact(twice)) for _ in range(random.randint(1, 3))]
        await asyncio.sleep(random.random() * 0.004)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError}
        assert await count(database) % 2 == 0  # raises where the lock is still held
    await assert_closed(database)


async def test_who_is_cancelled_before_the_turn_came_has_written_nothing(database: Database) -> None:
    go_on = threading.Event()
    first = asyncio.create_task(database.transact(lambda connection: go_on.wait(20)))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(add(database))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    go_on.set()
    assert await first
    assert await count(database) == 0


# -- what can go wrong -------------------------------------------------------------------------------------------------


async def test_locked_database_is_unavailable_and_then_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    database = Database(url(tmp_path / "locked.db"))
    await database.open()
    other = sqlite3.connect(tmp_path / "locked.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailable, match="locked"):
        await add(database)
    with pytest.raises(DatabaseUnavailable, match="locked"):
        await count(database)
    other.execute("ROLLBACK")
    other.close()
    await add(database)
    await assert_closed(database)


async def test_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam, " * 100)
    database = Database(url(tmp_path / "letter.txt"))
    with pytest.raises(DatabaseUnavailable, match=r"letter\.txt: file is not a database"):
        await database.open()
    await assert_closed(database)


async def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    database = Database(url(tmp_path / "file" / "data" / "doorbell.db"))
    with pytest.raises(DatabaseUnavailable, match="cannot be made"):
        await database.open()
    await assert_closed(database)


async def test_path_that_is_a_folder(tmp_path: Path) -> None:
    database = Database(url(tmp_path))
    with pytest.raises(DatabaseUnavailable, match="unable to open"):
        await database.open()
    await assert_closed(database)


async def test_full_disk_is_unavailable_and_loses_nothing_else(database: Database) -> None:
    await add(database)
    await database.check()
    pages = await pragma(database, "page_count")
    await pragma(database, f"max_page_count={pages}")
    with pytest.raises(DatabaseUnavailable, match="full"):
        await add(database, fields={"much": "x" * 100_000})
    assert await count(database) == 1


async def test_who_waits_too_long_for_a_turn_is_told_and_has_written_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "TURN_SECONDS", 0.1)
    go_on = threading.Event()
    slow = asyncio.create_task(database.transact(lambda connection: go_on.wait(20)))
    await asyncio.sleep(0.05)
    with pytest.raises(DatabaseUnavailable, match="no turn"):
        await add(database)
    go_on.set()
    assert await slow  # whoever has begun may go on
    assert await count(database) == 0


async def test_database_without_its_schema(tmp_path: Path) -> None:
    database = Database(url(tmp_path / "empty.db"))
    with pytest.raises(DatabaseUnavailable, match="no such table"):
        await count(database)
    await assert_closed(database)


async def test_mistakes_of_ours_are_not_the_databases(database: Database) -> None:
    with pytest.raises(IntegrityError):
        await add(database, email=None)
    with pytest.raises(ProgrammingError):
        await database.transact(lambda connection: connection.exec_driver_sql("SELECT ?", ("one", "two")))
    await add(database)


async def test_errors_do_not_tell_whose_row_it_was(database: Database) -> None:
    with pytest.raises(IntegrityError) as caught:
        await add(database, site=None)
    assert "somebody" not in str(caught.value)


async def test_process_ends_after_a_database_that_did_not_open(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam, " * 100)
    program = "import asyncio, sys\nfrom server.db import Database\nasyncio.run(Database(sys.argv[1]).open())\n"
    command = [sys.executable, "-c", program, url(tmp_path / "letter.txt")]
    environ = os.environ | {"PYTHONWARNINGS": "ignore"}
    process = await asyncio.to_thread(subprocess.run, command, timeout=60, env=environ, capture_output=True, text=True)
    assert process.returncode == 1 and "DatabaseUnavailable" in process.stderr
