"""Migrations make exactly what tables.py says, and the database's clock is a clock."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, select

from server.db import Database, DatabaseUnavailable, migrate
from server.db.tables import metadata, now
from server.outbox.store import recipient_hash


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'doorbell.db'}")
    await database.open()
    yield database
    await database.close()


async def run(database: Database, sql: str) -> list[Any]:
    def work(connection: Connection) -> list[Any]:
        found = connection.exec_driver_sql(sql)
        return [tuple(row) for row in found] if found.returns_rows else []

    return await database.transact(work)


def differences(connection: Connection) -> list[object]:
    options = {"compare_type": True, "compare_server_default": True}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


async def test_migrations_make_what_the_tables_say(database: Database) -> None:
    assert await database.transact(differences) == []


async def test_difference_would_be_noticed(database: Database) -> None:
    for change in ("DROP INDEX ix_outbox_state_due_at", "ALTER TABLE signups ADD COLUMN surplus TEXT"):
        await run(database, change)
    assert len(await database.transact(differences)) == 2


async def test_revisions_are_one_line(database: Database) -> None:
    scripts = ScriptDirectory.from_config(migrate.config())
    [head] = scripts.get_heads()
    assert await database.transact(migrate.upgrade) == (head, head)


async def test_signups_and_mails_of_before_consent_are_kept(tmp_path: Path) -> None:
    """From 0002: each signup gets a key and a hash, no mail is lost on the way, a bounce holds for all sites."""

    def before(connection: Connection) -> None:
        made = migrate.config()
        made.attributes["connection"] = connection
        command.upgrade(made, "0002")

    database = Database(f"sqlite:///{tmp_path / 'old.db'}")
    await database.transact(before)
    for number in range(3):
        values = f"({number}, 'bikes', 'A{number}@example.com', '{{}}', 1)"
        await run(database, f"INSERT INTO signups (id, site, email, fields, created_at) VALUES {values}")
    columns = "id, signup_id, site, kind, sender, recipient, domain, message_id, state, attempts, uncertain, due_at"
    values = "5, 1, 'bikes', 'welcome', 's', 'r', 'd', 'm', 'sent', 1, 0, 1"
    await run(database, f"INSERT INTO outbox ({columns}, created_at) VALUES ({values}, 1)")
    await run(database, "INSERT INTO suppressions VALUES ('h', 'bounced', '550 no', 1)")
    await database.open()
    found = await run(database, "SELECT status, length(key), recipient_hash FROM signups ORDER BY id")
    assert found == [("accepted", 32, recipient_hash(f"a{number}@example.com")) for number in range(3)]
    assert await run(database, "SELECT id, signup_id FROM outbox") == [(5, 1)]
    assert await run(database, "SELECT recipient_hash, site, reason FROM suppressions") == [("h", "", "bounced")]
    assert await database.transact(differences) == []
    await database.close()


async def test_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """A table that is in the way of the second statement."""
    database = Database(f"sqlite:///{tmp_path / 'other.db'}")
    await run(database, "CREATE TABLE outbox (somebody TEXT)")
    with pytest.raises(DatabaseUnavailable, match="already exists"):
        await database.open()
    assert await run(database, "SELECT name FROM sqlite_master WHERE type = 'table'") == [("outbox",)]
    await database.close()


async def test_folder_with_a_percent_sign_is_no_trouble(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / '100%'}/doorbell.db")
    await database.open()
    await database.close()
    assert (tmp_path / "100%" / "doorbell.db").exists()


async def test_clock_is_that_of_the_wall_and_stands_still_within_a_statement(database: Database) -> None:
    def look(connection: Connection) -> None:
        before = time.time()
        told = connection.execute(select(now())).scalar_one()
        assert before - 0.01 <= told <= time.time() + 0.01
        time.sleep(0.05)
        assert connection.execute(select(now())).scalar_one() > told  # also within a transaction
        assert connection.execute(select(now() - now())).scalar_one() == 0  # but not within a statement

    await database.read(look)
