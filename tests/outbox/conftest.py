"""A database of its own, a scripted SMTP server, and an office that puts them, a pool and a dispatcher together."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from server.db import Database
from server.mail.message import Content, Message, compose
from server.mail.pool import Limits, Pool
from server.outbox import dispatcher, fairness, retry, store
from server.outbox.dispatcher import Dispatcher
from tests import provision
from tests.mail.loops import LOOPS, Factories
from tests.smtpd import Smtpd


def pytest_asyncio_loop_factories() -> Factories:
    return dict(list(LOOPS.items())[-1:])  # the one that the server runs on; the pool is tried on both


def mail(recipient: str, sender: str = "site@here.example") -> Message:
    content = Content(f"For {recipient}", "text", "<p>html</p>")
    return compose(content, sender=sender, recipient=recipient, domain="here.example")


@asynccontextmanager
async def opened(path: Path, migrate: bool = True) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{path}")
    if migrate:
        provision.database(path)
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "outbox.db") as database:
        yield database


@pytest.fixture
async def smtpd() -> AsyncIterator[Smtpd]:
    async with Smtpd().listening() as smtpd:
        yield smtpd


async def add(database: Database, *recipients: str, sender: str = "site@here.example") -> None:
    mails = [store.Mail("welcome", mail(recipient, sender), to_visitor=True) for recipient in recipients]
    await database.transact(store.add, [store.Addressed("bikes", None, mail) for mail in mails])


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
