"""PostgreSQL, by asyncpg: a pool of connections on the event loop, and one that listens.

SQLAlchemy's `run_sync` has a plain function run on such a connection; where it waits, others go on. What the server
undoes, or cannot take just now, is tried again for a while: a restart or a failover costs a visitor seconds, no error.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from random import uniform
from time import monotonic
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import URL, Connection, ExceptionContext, NullPool, event
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncTransaction, create_async_engine

from server import log
from server.db import migrate
from server.db.across import CHANNEL
from server.db.errors import DatabaseUnavailable

_log = log.get(__name__)

# Connections of a process, besides the one that listens.
POOL_SIZE = 8
# How long a transaction waits for a connection, and for how long it is tried again. Together they stay below what a
# visitor's browser waits.
TURN_SECONDS = 10
AGAIN_SECONDS = 5.0
CONNECT_SECONDS = 3
# A server that vanished without a word must not keep a transaction for ever.
STATEMENT_SECONDS = 60
LOCK_SECONDS = 5
# Between two looks whether the connection that listens still lives.
ALIVE_SECONDS = 30.0

# SQLSTATEs after which the same transaction may succeed (PostgreSQL, appendix A): undone for another's sake, or for a
# statement that was prepared before the schema changed; the server goes, comes, or is the standby now; it has no
# connection left.
_UNDONE = frozenset({"40001", "40P01", "23505", "0A000"})
_AWAY = frozenset({"57P01", "57P02", "57P03", "25006", "53300"})
# Those of a value that a column cannot hold begin so.
_DATA = "22"
# A row that another wrote meanwhile is seen the next time; if it is not, it is our mistake.
_MOST_UNDONE = 5

T = TypeVar("T")

_Fault = (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, PoolTimeoutError, OSError)


class PostgreSQL:
    """The engine of a PostgreSQL database; see `engine.Engine`. It belongs to the loop that it is first used in."""

    def __init__(self, url: URL) -> None:
        self._url = url
        timeouts = {
            "lock_timeout": f"{LOCK_SECONDS}s",
            "idle_in_transaction_session_timeout": f"{STATEMENT_SECONDS}s",
        }
        self._pool = _engine(
            url,
            timeouts,
            command_timeout=STATEMENT_SECONDS,
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=TURN_SECONDS,
        )
        self._reader = self._pool.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        # Without those: to migrate may take long, to wait for another that migrates too, and to listen takes for ever.
        self._patient = _engine(url, {}, poolclass=NullPool)
        self._running: set[asyncio.Task[Any]] = set()

    async def migrate(self) -> migrate.Revisions:
        return await self._run(_persistently(self._patient, migrate.upgrade))

    def missing(self) -> str | None:
        return None

    async def transact(self, work: Callable[[Connection], T]) -> T:
        return await self._run(_persistently(self._pool, work))

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self._run(_persistently(self._reader, work))

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        # A task of its own: who stops waiting leaves nothing half done, and no connection that has to be thrown away.
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: where nobody waits for it any more, asyncio would log it with all it holds

    async def listen(self, heard: Callable[[], None]) -> Callable[[], Awaitable[None]]:
        listening = asyncio.create_task(self._listen(heard))

        async def stop() -> None:
            listening.cancel()
            await asyncio.wait({listening})

        return stop

    async def _listen(self, heard: Callable[[], None]) -> None:
        lost = False
        while True:
            try:
                async with self._patient.connect() as connection:
                    driver: asyncpg.Connection = (await connection.get_raw_connection()).driver_connection
                    await driver.add_listener(CHANNEL, lambda *_: heard())
                    if lost:
                        _log.info("database.listens_again")
                    lost = False
                    heard()  # while nobody listened, anything may have been said
                    await _until_lost(driver)
            except Exception as error:  # whatever it is, mail must not wait for the clock from now on
                if not lost:
                    _log.warning("database.listens_no_more", reason=_said(error))
                lost = True
            await asyncio.sleep(1)

    async def close(self) -> None:
        while self._running:
            await asyncio.wait(self._running)
        await self._pool.dispose()
        await self._patient.dispose()


def _engine(
    url: URL, server_settings: dict[str, str], command_timeout: float | None = None, **pool: Any
) -> AsyncEngine:
    engine = create_async_engine(
        url,
        connect_args={
            "timeout": CONNECT_SECONDS,
            "command_timeout": command_timeout,
            "server_settings": {"application_name": "doorbell", **server_settings},
        },
        hide_parameters=True,  # the text of an error goes into the log, and an address must not
        **pool,
    )
    event.listen(engine.sync_engine, "handle_error", _give_up_silent)
    return engine


def _give_up_silent(context: ExceptionContext) -> None:
    """Of a server that does not answer in time no connection is used again: a network that lost one has lost all."""
    if isinstance(context.original_exception, TimeoutError):
        context.is_disconnect = True
        if context.connection is not None:
            # Asked to close, it would wait for the answer that does not come.
            context.connection.connection.driver_connection.terminate()  # type: ignore[union-attr]


async def _until_lost(driver: asyncpg.Connection) -> None:
    lost = asyncio.Event()
    driver.add_termination_listener(lambda _: lost.set())
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(ALIVE_SECONDS):
                await lost.wait()
                return
        try:
            await driver.execute("SELECT 1", timeout=CONNECT_SECONDS)
        except TimeoutError:
            driver.terminate()  # asked to close, it would wait for the answer that does not come
            raise


async def _persistently(engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
    begun, undone = monotonic(), 0
    while True:
        try:
            return await _once(engine, work)
        except _Fault as error:
            undone += _code(error) in _UNDONE
            passes = _passes(error) and undone < _MOST_UNDONE and monotonic() - begun < AGAIN_SECONDS
            if not passes:
                if isinstance(error, (IntegrityError, ProgrammingError)) or _code(error).startswith(_DATA):
                    raise  # a mistake of ours, not a fault of the database
                where = engine.url.render_as_string(hide_password=True)
                raise DatabaseUnavailable(f"{where}: {_said(error)}") from error
        await asyncio.sleep(uniform(0.02, 0.1) * (1 + undone))


async def _once(engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
    async with engine.connect() as connection:
        transaction = await connection.begin()
        try:
            result = await connection.run_sync(work)
        except BaseException as error:
            with suppress(*_Fault):
                await transaction.rollback()
            if _code(error) in _AWAY:
                await connection.invalidate()  # the next one may lead to a server that takes it
            raise
        await _commit(engine, transaction)
        return result


async def _commit(engine: AsyncEngine, transaction: AsyncTransaction) -> None:
    try:
        await transaction.commit()
    except _Fault as error:
        if _code(error) in _UNDONE:
            raise
        # Perhaps it is committed: whoever did it again could do it twice.
        where = engine.url.render_as_string(hide_password=True)
        raise DatabaseUnavailable(f"{where}: the connection broke in a commit: {_said(error)}") from error


def _code(error: BaseException) -> str:
    # The driver's own error has it: SQLAlchemy's, which is raised from that, not always.
    cause = error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig else error
    return getattr(cause, "sqlstate", None) or ""


def _passes(error: BaseException) -> bool:
    """Whether the same may succeed soon."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    code = _code(error)
    return code in _UNDONE or code in _AWAY or code.startswith("08") or isinstance(error, OSError)


def _said(error: BaseException) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(cause) or type(cause).__name__
