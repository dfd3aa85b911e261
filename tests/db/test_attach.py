"""Beside the server: a database is used as it is, never made or changed."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from server.db import Database, DatabaseUnavailable


async def attach(file: Path) -> None:
    database = Database(f"sqlite:///{file}")
    try:
        await database.attach()
    finally:
        await database.close()


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    database = Database(f"sqlite:///{tmp_path / 'doorbell.db'}")
    await database.open()
    await database.close()
    return tmp_path / "doorbell.db"


def set_version(file: Path, statement: str) -> None:
    connection = sqlite3.connect(file)
    with connection:
        connection.execute(statement)
    connection.close()


async def test_database_of_this_version_is_used(file: Path) -> None:
    await attach(file)


async def test_missing_one_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="there is no database yet"):
        await attach(tmp_path / "folder" / "doorbell.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE alembic_version SET version_num = '0001'", "of an older version; `migrate`"),
        ("UPDATE alembic_version SET version_num = 'x'", r"of a newer version \(x\)"),
        ("DROP TABLE alembic_version", "holds no data of ours"),
    ],
)
async def test_one_of_another_version_is_left_as_it_is(file: Path, statement: str, words: str) -> None:
    set_version(file, statement)
    before = file.read_bytes()
    with pytest.raises(DatabaseUnavailable, match=words):
        await attach(file)
    assert file.read_bytes() == before


async def test_writer_does_not_keep_it_waiting(file: Path) -> None:
    writer = sqlite3.connect(file, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    await attach(file)
    writer.execute("ROLLBACK")
    writer.close()


async def test_it_can_be_written_to(file: Path) -> None:
    database = Database(f"sqlite:///{file}")
    await database.attach()
    await database.transact(lambda connection: connection.execute(text("UPDATE jobs SET due_at = 7")))
    due = await database.read(lambda connection: connection.execute(text("SELECT max(due_at) FROM jobs")).scalar_one())
    await database.close()
    assert due == 7
