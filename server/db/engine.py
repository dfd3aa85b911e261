"""One database: opened with its schema up to date, one way to a transaction, one border for its errors."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from alembic.util import CommandError
from sqlalchemy import event, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from server import log
from server.db import migrate

_log = log.get(__name__)

# How long a statement waits for another process that writes, and a transaction for its turn in this one. Together they
# stay well below what a visitor's browser waits.
BUSY_SECONDS = 5
TURN_SECONDS = 10


class DatabaseUnavailable(Exception):
    """The database cannot be reached, is locked, full or broken. Nothing was written."""


class Database:
    """Rows, kept. `open` migrates; `transaction` is the only way to read or write."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self._engine: AsyncEngine = _sqlite_engine(url)

    async def open(self) -> None:
        """Creates the file where it is missing and brings the schema up to date, under the database's own lock.

        Raises DatabaseUnavailable that says what is wrong.
        """
        if self.url.database:
            folder = Path(self.url.database).parent
            try:
                # What visitors wrote is nobody else's to read.
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise DatabaseUnavailable(f"{folder}: cannot be made: {error.strerror}") from error
        try:
            async with self.transaction() as connection:
                before, after = await connection.run_sync(migrate.upgrade)
        except CommandError as error:  # a revision that we do not have
            raise DatabaseUnavailable(f"{self.url.database}: made by a newer version: {error}") from error
        if before != after:
            _log.info("database.migrated", before=before, after=after)

    async def close(self) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection inside a transaction that commits at the end, or rolls back on any exception.

        Raises DatabaseUnavailable in place of the driver's errors; after it nothing was written.
        """
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (IntegrityError, ProgrammingError):
            raise  # a mistake of ours, not a fault of the database
        except (DBAPIError, PoolTimeoutError, OSError) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise DatabaseUnavailable(f"{self.url.render_as_string(hide_password=True)}: {cause}") from error


def _switch_to_wal(cursor: Any) -> None:
    # Of several processes that switch a new file at once, some get SQLITE_BUSY without any waiting.
    for pause in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        with suppress(sqlite3.OperationalError):
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        await_only(asyncio.sleep(pause))
    cursor.execute("PRAGMA journal_mode=WAL")


def _sqlite_engine(url: str) -> AsyncEngine:
    # One connection: SQLite has one writer anyway, and a queue in the process is fair and wakes at once, where its
    # own busy handler polls.
    engine = create_async_engine(
        url,
        pool_size=1,
        max_overflow=0,
        pool_timeout=TURN_SECONDS,
        connect_args={"timeout": BUSY_SECONDS},
        hide_parameters=True,  # the text of an error goes into the log, and an address must not
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, record: object) -> None:
        # The driver's own BEGIN comes late and skips DDL; we send ours below.
        connection.isolation_level = None
        cursor = connection.cursor()
        # FULL: a commit is on the disk before the visitor is told so. WAL alone would default to less.
        _switch_to_wal(cursor)
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        # IMMEDIATE: a transaction that reads first and writes later could not wait for the lock (SQLITE_BUSY at once).
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    @event.listens_for(engine.sync_engine, "invalidate")
    def _roll_back(connection: Any, record: object, error: BaseException | None) -> None:
        # What a cancellation leaves is closed, but SQLite goes on holding the lock while a cursor is referred to.
        with suppress(sqlite3.Error):
            connection.rollback()

    return engine
