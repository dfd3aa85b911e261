"""One database: opened with its schema up to date, one way to a transaction, one border for its errors.

A transaction is a plain function of a connection. It runs as a whole, the event loop goes on meanwhile, and a
cancellation leaves nothing half done. Which engine keeps the rows is told by the URL, and is nobody else's business.
"""

from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from alembic.util import CommandError
from sqlalchemy import URL, Connection, make_url, update

from server import log, metrics
from server.db import migrate
from server.db.errors import DatabaseUnavailable
from server.db.group import Group, Item, Result, Write
from server.db.postgresql import PostgreSQL
from server.db.sqlite import SQLite
from server.db.tables import jobs

_log = log.get(__name__)

_WRITES, _READS = metrics.transactions("write"), metrics.transactions("read")

P = ParamSpec("P")
T = TypeVar("T")
Work = Callable[Concatenate[Connection, P], T]


class Engine(Protocol):
    """What keeps the rows. Every method raises DatabaseUnavailable in place of the driver's errors."""

    async def migrate(self) -> migrate.Revisions:
        """Makes the database where it can, and brings its schema up to date; others may do so at the same time."""

    def missing(self) -> str | None:
        """Why there can be nothing to attach to, in words."""

    async def transact(self, work: Callable[[Connection], T]) -> T:
        """What `work` answers, inside a transaction that is then committed, or undone if it raised."""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """The same for work that only reads, all of it at one moment."""

    async def listen(self, heard: Callable[[], None]) -> Callable[[], Awaitable[None]]:
        """Calls `heard` when another process announces something, until what it answers is called."""

    async def close(self) -> None:
        """Ends what was asked for, and closes."""


_ENGINES: dict[str, Callable[[URL], Engine]] = {"sqlite": SQLite, "postgresql": PostgreSQL}


class Database:
    """Rows, kept. `open` migrates. `transact` writes, `join` shares a transaction with others, `read` only reads."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self._engine = _ENGINES[self.url.get_backend_name()](self.url)
        self._group = Group(self.transact)

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    async def open(self) -> None:
        """Creates the database where it is missing and can be made, and brings the schema up to date, under the
        database's own lock.

        Raises DatabaseUnavailable that says what is wrong.
        """
        try:
            before, after = await self._engine.migrate()
        except CommandError as error:  # a revision that we do not have
            raise DatabaseUnavailable(f"{self}: made by a newer version: {error}") from error
        if before != after:
            _log.info("database.migrated", before=before, after=after)

    async def attach(self) -> None:
        """In place of `open`, for a command beside the server: makes nothing and changes nothing.

        Raises DatabaseUnavailable where there is no database yet, or one of another version.
        """
        if problem := self._engine.missing() or await self.read(migrate.difference):
            raise DatabaseUnavailable(f"{self}: {problem}")

    async def close(self) -> None:
        """Ends what was asked for, and closes."""
        await self._group.close()
        await self._engine.close()

    async def transact(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` answers, called with a connection and these arguments, inside a transaction that is then
        committed, or undone if it raised. It may be called again, where the database undid it.

        Raises DatabaseUnavailable in place of the driver's errors; after it nothing was written, unless the connection
        broke in the commit. Who is cancelled does not know whether it was.
        """
        with _WRITES.time():
            return await self._engine.transact(lambda connection: work(connection, *args, **kwargs))

    async def read(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for work that only reads. It neither waits for what is being written nor holds it up."""
        with _READS.time():
            return await self._engine.read(lambda connection: work(connection, *args, **kwargs))

    async def join(self, write: Write[Item, Result], item: Item) -> Result:
        """What `write` answers for `item`, committed together with what others write just now: see `Group.write`.

        Raises DatabaseUnavailable; then nothing was written (as for `transact`).
        """
        return await self._group.write(write, item)

    async def listen(self, heard: Callable[[], None]) -> Callable[[], Awaitable[None]]:
        """Calls `heard` whenever a transaction that called `across.announce` is committed, by whatever process, as far
        as the engine can tell; and when it may have missed one. Answers what ends that."""
        return await self._engine.listen(heard)

    async def check(self) -> None:
        """Raises DatabaseUnavailable unless a row can be written: a full disk still reads."""
        await self.transact(_write_something)


def _write_something(connection: Connection) -> None:
    connection.execute(update(jobs).values(name=jobs.c.name))
