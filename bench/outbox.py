"""All that the benches know of Doorbell's outbox and pool: to fill it, to have it sent, to claim from it, to sign up.

When these change, this is the place that follows.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from bench import letter
from server import signup
from server.db import Database
from server.db.tables import now, signups
from server.mail.connection import Relay
from server.mail.message import Content, Message, compose
from server.mail.pool import Limits, Pool
from server.outbox import store
from server.outbox.dispatcher import LEASE_SECONDS, Dispatcher
from server.signup import Form, Reception

DEFAULT_SIZE = Limits().size
_CONTENT = Content(letter.SUBJECT, letter.TEXT, letter.HTML)
_BATCH = 1000
# How often is looked whether all is sent: it is the error of the time, and must not be felt.
_LOOK_SECONDS = 0.005


def mail(number: int) -> Message:
    """The mail, as Doorbell writes it."""
    return compose(_CONTENT, sender=letter.SENDER, recipient=letter.recipient(number), domain="pets.example")


@asynccontextmanager
async def database(file: Path) -> AsyncIterator[Database]:
    """The database in `file`, made where it is missing."""
    opened = Database(f"sqlite+aiosqlite:///{file}")
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()


async def fill(file: Path, count: int) -> None:
    """Writes `count` mails into the outbox, all due."""
    async with database(file) as opened:
        for begin in range(0, count, _BATCH):
            mails = [("welcome", mail(number)) for number in range(begin, min(begin + _BATCH, count))]
            async with opened.transaction() as connection:
                await store.add(connection, "bench", None, mails)


async def deliver(opened: Database, file: Path, port: int, size: int) -> float:
    """Sends everything, and answers after how many seconds the last row was settled."""
    pool = Pool(Relay("127.0.0.1", port), Limits(size=size))
    dispatcher = Dispatcher(opened, pool)
    begun = time.perf_counter()
    await pool.open()
    await dispatcher.open()
    dispatcher.wake()
    with closing(sqlite3.connect(file)) as look:
        # Only the rows know when: there is no event to wait for.
        while look.execute("SELECT EXISTS (SELECT 1 FROM outbox WHERE state = 'pending')").fetchone()[0]:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
    took = time.perf_counter() - begun
    await dispatcher.close()
    await pool.close()
    return took


def states(file: Path) -> dict[str, int]:
    """How many mails there are in each state."""
    with closing(sqlite3.connect(file)) as look:
        return dict(look.execute("SELECT state, count(*) FROM outbox GROUP BY state"))


async def claim(opened: Database, owner: str, limit: int) -> int:
    """Claims once, as the dispatcher does; answers how many it got."""
    async with opened.transaction() as connection:
        return len(await store.claim(connection, owner, limit, LEASE_SECONDS))


async def look(opened: Database, owner: str) -> None:
    """What the dispatcher asks where nothing is due: what there is to claim, and when there will be."""
    async with opened.transaction() as connection:
        await store.claim(connection, owner, 1, LEASE_SECONDS)
        await store.next_due(connection)


async def release(opened: Database, owner: str) -> None:
    """Gives back what `owner` has claimed."""
    async with opened.transaction() as connection:
        await store.release(connection, owner)


async def keep(connection: AsyncConnection, reception: Reception, form: Form, message: Message) -> None:
    """Writes a signup and its mail, in a transaction of somebody else's."""
    row = {"site": reception.site.slug, "email": form.email, "name": form.name, "fields": form.answers}
    written = await connection.execute(insert(signups).values(**row, created_at=now()).returning(signups.c.id))
    await store.add(connection, reception.site.slug, written.scalar_one(), [("welcome", message)])


def welcome(reception: Reception, form: Form) -> Message:
    """The one mail of a signup, rendered and written as Doorbell does it."""
    (kind_and_mail,) = signup._mails(reception, form)
    return kind_and_mail[1]


def kept(file: Path) -> int:
    """How many signups there are."""
    with closing(sqlite3.connect(file)) as look:
        return int(look.execute("SELECT count(*) FROM signups").fetchone()[0])
