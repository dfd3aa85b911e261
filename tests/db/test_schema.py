"""Migrations make exactly what tables.py says, and the database's clock is a clock."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, select

from server.db import Database, DatabaseUnavailable, migrate
from server.db.tables import metadata, now


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'doorbell.db'}")
    await database.open()
    yield database
    await database.close()


def differences(connection: Connection) -> list[object]:
    options = {"compare_type": True, "compare_server_default": True}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


async def test_migrations_make_what_the_tables_say(database: Database) -> None:
    async with database.transaction() as connection:
        assert await connection.run_sync(differences) == []


async def test_difference_would_be_noticed(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.exec_driver_sql("DROP INDEX ix_outbox_state_due_at")
        await connection.exec_driver_sql("ALTER TABLE signups ADD COLUMN surplus TEXT")
        assert len(await connection.run_sync(differences)) == 2


async def test_revisions_are_one_line(database: Database) -> None:
    scripts = ScriptDirectory.from_config(migrate.config())
    [head] = scripts.get_heads()
    async with database.transaction() as connection:
        assert await connection.run_sync(migrate.upgrade) == (head, head)


async def test_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """A table that is in the way of the second statement."""
    database = Database(f"sqlite:///{tmp_path / 'other.db'}")
    async with database.transaction() as connection:
        await connection.exec_driver_sql("CREATE TABLE outbox (somebody TEXT)")
    with pytest.raises(DatabaseUnavailable, match="already exists"):
        await database.open()
    async with database.transaction() as connection:
        found = await connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")
        assert [row.name for row in found] == ["outbox"]
    await database.close()


async def test_folder_with_a_percent_sign_is_no_trouble(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / '100%'}/doorbell.db")
    await database.open()
    await database.close()
    assert (tmp_path / "100%" / "doorbell.db").exists()


async def test_clock_is_that_of_the_wall(database: Database) -> None:
    async with database.transaction() as connection:
        before = time.time()
        told = (await connection.execute(select(now()))).scalar_one()
        after = time.time()
        assert before - 0.01 <= told <= after + 0.01
        await asyncio.sleep(0.05)
        assert (await connection.execute(select(now()))).scalar_one() > told  # also within a transaction


async def test_clock_stands_still_within_a_statement(database: Database) -> None:
    async with database.transaction() as connection:
        assert (await connection.execute(select(now() - now()))).scalar_one() == 0
