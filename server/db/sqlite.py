"""SQLite: one file, one line of transactions that write and one of those that read, each in a thread of its own."""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from server.db import migrate
from server.db.errors import DatabaseUnavailable

# How long a statement waits for another process that writes, and a transaction for its turn in this one. Together they
# stay well below what a visitor's browser waits.
BUSY_SECONDS = 5
TURN_SECONDS = 10

T = TypeVar("T")


class SQLite:
    """The engine of a file; see `engine.Engine`."""

    def __init__(self, url: URL) -> None:
        self._url = url
        # One writer, for SQLite has no more; a queue here is fair and wakes at once, where its own busy handler polls.
        # IMMEDIATE: a transaction that reads first and writes later could not wait for the lock (SQLITE_BUSY at once).
        self._writer = _Line("writer", _engine(url, "BEGIN IMMEDIATE"))
        self._reader = _Line("reader", _engine(url, "BEGIN"))

    async def migrate(self) -> migrate.Revisions:
        if self._url.database:
            folder = Path(self._url.database).parent
            try:
                # What visitors wrote is nobody else's to read.
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise DatabaseUnavailable(f"{folder}: cannot be made: {error.strerror}") from error
        return await self.transact(migrate.upgrade)

    def missing(self) -> str | None:
        there = Path(self._url.database or "").is_file()
        return None if there else "there is no database yet; the server makes it"

    async def transact(self, work: Callable[[Connection], T]) -> T:
        return await self._writer.run(work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """In a line of its own: it neither waits for what is being written nor holds it up."""
        return await self._reader.run(work)

    async def listen(self, heard: Callable[[], None]) -> Callable[[], Awaitable[None]]:
        """Nothing to listen to: who writes in another process is found by the clock."""

        async def stop() -> None:
            pass

        return stop

    async def close(self) -> None:
        await self._writer.close()
        await self._reader.close()


class _Line:
    """Transactions one after the other, in a thread that begins with the first of them."""

    def __init__(self, name: str, engine: Engine) -> None:
        self._name = name
        self._engine = engine
        self._thread = self._new_thread()

    def _new_thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix=f"database-{self._name}")

    def _transact(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except (IntegrityError, ProgrammingError):
            raise  # a mistake of ours, not a fault of the database
        except (DBAPIError, PoolTimeoutError, OSError) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            url = self._engine.url.render_as_string(hide_password=True)
            raise DatabaseUnavailable(f"{url}: {cause}") from error

    async def run(self, work: Callable[[Connection], T]) -> T:
        # A future of the thread's: it can be taken back until it has begun.
        job = self._thread.submit(self._transact, work)
        late = False

        def give_up() -> None:
            nonlocal late
            late = job.cancel()

        timer = asyncio.get_running_loop().call_later(TURN_SECONDS, give_up)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if late and not (task and task.cancelling()):
                raise DatabaseUnavailable(f"no turn in {TURN_SECONDS} seconds") from None
            raise
        finally:
            timer.cancel()

    async def close(self) -> None:
        thread, self._thread = self._thread, self._new_thread()
        await asyncio.to_thread(thread.shutdown)
        self._engine.dispose()


def _switch_to_wal(cursor: sqlite3.Cursor) -> None:
    # Of several processes that switch a new file at once, some get SQLITE_BUSY without any waiting.
    for pause in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        with suppress(sqlite3.OperationalError):
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        time.sleep(pause)
    cursor.execute("PRAGMA journal_mode=WAL")


def _engine(url: URL, begin: str) -> Engine:
    engine = create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        hide_parameters=True,  # the text of an error goes into the log, and an address must not
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, record: object) -> None:
        # The driver's own BEGIN comes late and skips DDL; we send ours below.
        connection.isolation_level = None
        cursor = connection.cursor()
        # FULL: a commit is on the disk before the visitor is told so. WAL alone would default to less.
        _switch_to_wal(cursor)
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
