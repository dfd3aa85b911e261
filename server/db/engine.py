"""One database: opened with its schema up to date, one way to a transaction, one border for its errors.

A transaction is a plain function of a connection. It runs as a whole in a thread of the database's own: the event loop
goes on meanwhile, and a cancellation leaves nothing half done.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, make_url, update
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from server import log
from server.db import migrate
from server.db.errors import DatabaseUnavailable
from server.db.group import Group, Item, Result, Write
from server.db.tables import jobs

_log = log.get(__name__)

# How long a statement waits for another process that writes, and a transaction for its turn in this one. Together they
# stay well below what a visitor's browser waits.
BUSY_SECONDS = 5
TURN_SECONDS = 10

P = ParamSpec("P")
T = TypeVar("T")
Work = Callable[Concatenate[Connection, P], T]


class Database:
    """Rows, kept. `open` migrates. `transact` writes, `join` shares a transaction with others, `read` only reads."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        # One writer, for SQLite has no more; a queue here is fair and wakes at once, where its own busy handler polls.
        # IMMEDIATE: a transaction that reads first and writes later could not wait for the lock (SQLITE_BUSY at once).
        self._writer = _Line("writer", _sqlite_engine(url, "BEGIN IMMEDIATE"))
        self._reader = _Line("reader", _sqlite_engine(url, "BEGIN"))
        self._group = Group(self.transact)

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
            before, after = await self.transact(migrate.upgrade)
        except CommandError as error:  # a revision that we do not have
            raise DatabaseUnavailable(f"{self.url.database}: made by a newer version: {error}") from error
        if before != after:
            _log.info("database.migrated", before=before, after=after)

    async def attach(self) -> None:
        """In place of `open`, for a command beside the server: makes nothing and changes nothing.

        Raises DatabaseUnavailable where there is no database yet, or one of another version.
        """
        if not Path(self.url.database or "").is_file():
            raise DatabaseUnavailable(f"{self.url.database}: there is no database yet; the server makes it")
        if problem := await self.read(migrate.difference):
            raise DatabaseUnavailable(f"{self.url.database}: {problem}")

    async def close(self) -> None:
        """Ends what was asked for, and closes."""
        await self._group.close()
        await self._writer.close()
        await self._reader.close()

    async def transact(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` answers, called with a connection and these arguments, inside a transaction that is then
        committed, or undone if it raised.

        Raises DatabaseUnavailable in place of the driver's errors; after it nothing was written. Who is cancelled does
        not know whether it was.
        """
        return await self._writer.run(work, *args, **kwargs)

    async def read(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for work that only reads. It neither waits for what is being written nor holds it up."""
        return await self._reader.run(work, *args, **kwargs)

    async def join(self, write: Write[Item, Result], item: Item) -> Result:
        """What `write` answers for `item`, committed together with what others write just now: see `Group.write`.

        Raises DatabaseUnavailable; then nothing was written.
        """
        return await self._group.write(write, item)

    async def check(self) -> None:
        """Raises DatabaseUnavailable unless a row can be written: a full disk still reads."""
        await self.transact(_write_something)


def _write_something(connection: Connection) -> None:
    connection.execute(update(jobs).values(name=jobs.c.name))


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

    async def run(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        # A future of the thread's: it can be taken back until it has begun.
        job = self._thread.submit(self._transact, lambda connection: work(connection, *args, **kwargs))
        late = False

        def give_up() -> None:
            nonlocal late
            late = job.cancel()

        timer = asyncio.get_running_loop().call_later(TURN_SECONDS, give_up)
        try:
            result: T = await asyncio.wrap_future(job)
            return result
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


def _sqlite_engine(url: str, begin: str) -> Engine:
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
