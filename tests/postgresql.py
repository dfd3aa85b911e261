"""Databases on the PostgreSQL server of this machine, made when they are asked for and lent from test to test.

`DOORBELL_TEST_POSTGRESQL` names another server. Each process of the tests makes its own, with the tables in them, and
empties them in between: that takes a hundredth of what making one does.
"""

import asyncio
import atexit
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import asyncpg

from server.db import Database
from server.db.tables import metadata

SERVER = os.environ.get("DOORBELL_TEST_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432")

_free: list[str] = []
_made: list[str] = []


@cache
def missing() -> str | None:
    """Why there is no server to test with; None where there is one."""
    try:
        _run(_ask("postgres", "SELECT 1"))
    except (OSError, asyncpg.PostgresError) as error:
        return f"no PostgreSQL at {SERVER}: {error}"
    return None


@contextmanager
def lent() -> Iterator[str]:
    """The URL of a database that has its tables, and no rows but those that a new one has."""
    name = _free.pop() if _free else _make()
    try:
        yield url(name)
    finally:
        _run(_empty(name))
        _free.append(name)


@contextmanager
def bare() -> Iterator[str]:
    """The URL of a database with nothing in it."""
    name = f"doorbell_{os.getpid()}_bare"
    _run(_ask("postgres", f"CREATE DATABASE {name}"))
    try:
        yield url(name)
    finally:
        _run(_ask("postgres", f"DROP DATABASE {name} WITH (FORCE)"))


def url(name: str) -> str:
    """As the server takes it."""
    return f"{SERVER}/{name}".replace("postgresql://", "postgresql+asyncpg://")


def ask(url: str, query: str, *values: object) -> list[tuple[Any, ...]]:
    """What this database says, asked past the server; from any thread, also where a loop runs."""
    return [tuple(row) for row in _run(_ask(url.rpartition("/")[2], query, *values))]


def _run(work: Any) -> Any:
    return _thread().submit(asyncio.run, work).result()


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="postgresql")


async def _ask(name: str, query: str, *values: object) -> Any:
    connection = await asyncpg.connect(f"{SERVER}/{name}", timeout=10)
    try:
        return await connection.fetch(query, *values)
    finally:
        await connection.close()


def _make() -> str:
    if not _made:
        atexit.register(_drop)
    name = f"doorbell_{os.getpid()}_{len(_made)}"
    _made.append(name)
    _run(_ask("postgres", f"CREATE DATABASE {name}"))
    _run(_migrate(url(name)))
    return name


async def _migrate(url: str) -> None:
    database = Database(url)
    await database.open()
    await database.close()


async def _empty(name: str) -> None:
    """As it was when it was new. Whoever is still connected was left behind by the test."""
    connection = await asyncpg.connect(f"{SERVER}/{name}", timeout=10, server_settings={"synchronous_commit": "off"})
    try:
        others = "FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
        await connection.execute(f"SELECT pg_terminate_backend(pid, 5000) {others}", name)
        tables = [table.name for table in metadata.sorted_tables if table.name != "jobs"]
        numbered = [f"ALTER SEQUENCE {name}_id_seq RESTART" for name in ("signups", "outbox", "attempts")]
        emptied = [f"DELETE FROM {name}" for name in reversed(tables)]
        jobs = "DELETE FROM jobs; INSERT INTO jobs (name, due_at) VALUES ('purge', 0), ('digest', 0)"
        await connection.execute(";".join([*emptied, *numbered, jobs]))
    finally:
        await connection.close()


def _drop() -> None:
    for name in _made:  # not in the thread: at the very end no thread takes work any more
        asyncio.run(_ask("postgres", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
