"""A database of its own, a scripted SMTP server, and an office that puts them, a pool and a dispatcher together."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from server.db import Database, postgresql, sqlite
from server.mail.message import Content, Message, compose
from server.mail.pool import Limits, Pool
from server.outbox import dispatcher, fairness, retry, store
from server.outbox.dispatcher import Dispatcher
from tests.mail.loops import LOOPS, Factories
from tests.smtpd import Smtpd


def pytest_asyncio_loop_factories() -> Factories:
    return dict(list(LOOPS.items())[-1:])  # the one that the server runs on; the pool is tried on both


def mail(recipient: str, sender: str = "site@here.example") -> Message:
    content = Content(f"For {recipient}", "text", "<p>html</p>")
    return compose(content, sender=sender, recipient=recipient, domain="here.example")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def locked(database: Database) -> AsyncIterator[None]:
    """Another process writes, and does not end."""
    hold = _lock_file if database.url.get_backend_name() == "sqlite" else _lock_table
    async with hold(database):
        yield


@asynccontextmanager
async def _lock_file(database: Database) -> AsyncIterator[None]:
    connection = sqlite3.connect(str(database.url.database), isolation_level=None, timeout=0)
    try:
        while not connection.in_transaction:
            with suppress(sqlite3.OperationalError):
                connection.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(0.001)
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


@asynccontextmanager
async def _lock_table(database: Database) -> AsyncIterator[None]:
    connection = await asyncpg.connect(database.url.set(drivername="postgresql").render_as_string(hide_password=False))
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is opened from now on waits no time for a lock."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(postgresql, "LOCK_SECONDS", 0.05)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


@pytest.fixture
async def smtpd() -> AsyncIterator[Smtpd]:
    async with Smtpd().listening() as smtpd:
        yield smtpd


async def add(
    database: Database, *recipients: str, sender: str = "site@here.example", trace: str | None = None
) -> None:
    mails = [store.Mail("welcome", mail(recipient, sender), to_visitor=True) for recipient in recipients]
    await database.transact(store.add, [store.Addressed("bikes", None, mail, trace) for mail in mails])


async def run(database: Database, sql: str, **values: Any) -> None:
    await database.transact(lambda connection: connection.execute(text(sql), values))


async def rows(database: Database) -> list[Any]:
    """Every row of the outbox, as they were added."""
    query = text("SELECT outbox.*, data AS message FROM outbox LEFT JOIN messages ON outbox_id = outbox.id ORDER BY id")
    return await database.read(lambda connection: list(connection.execute(query)))


@dataclass
class Office:
    """A dispatcher that runs, and what it works with."""

    database: Database
    smtpd: Smtpd
    pool: Pool
    dispatcher: Dispatcher

    async def post(self, *recipients: str, sender: str = "site@here.example", wake: bool = True) -> None:
        await add(self.database, *recipients, sender=sender)
        if wake:
            self.dispatcher.wake()

    async def states(self) -> list[str]:
        """What became of each row."""
        return [row.state for row in await rows(self.database)]

    async def all_are(self, state: str) -> bool:
        return set(await self.states()) == {state}

    async def outcomes(self) -> dict[str, str | None]:
        """How the latest attempt ended, by recipient."""
        return {row.recipient: row.outcome for row in await rows(self.database)}

    def arrived(self) -> list[str]:
        """Whom the relay has mail for, once a mail."""
        return sorted(to for mail in self.smtpd.mails for to in mail.recipients)


@asynccontextmanager
async def office(
    database: Database, smtpd: Smtpd, size: int = 4, budget: int | None = None, **relay: Any
) -> AsyncIterator[Office]:
    async with AsyncExitStack() as stack:
        pool = Pool(smtpd.relay(**relay), Limits(size=size))
        await pool.open()
        stack.push_async_callback(pool.close)
        sending = Dispatcher(database, pool, budget)
        for one in (sending.breaker, sending.window):
            one.first_seconds = one.longest_seconds = 0.05
        await sending.open()
        stack.push_async_callback(sending.close, 5)
        yield Office(database, smtpd, pool, sending)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that are minutes and hours last milliseconds."""
    for name in ("FIRST_SECONDS", "LONGEST_SECONDS", "HELD_SECONDS", "GREYLISTED_SECONDS"):
        monkeypatch.setattr(retry, name, 0.05)
    monkeypatch.setattr(dispatcher, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(fairness, "REST_SECONDS", 0.05)
