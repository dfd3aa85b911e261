"""All that the benches know of Doorbell's outbox and pool: to fill it, to have it sent, to claim from it, to sign up.

When these change, this is the place that follows.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path

from sqlalchemy import Connection, insert, text

from bench import letter
from server import signup
from server.db import Database
from server.db.tables import now, outbox, signups
from server.form import Form
from server.mail.connection import Relay
from server.mail.message import Content, Message, compose
from server.mail.pool import Limits, Pool
from server.outbox import store
from server.outbox.dispatcher import LEASE_SECONDS, Dispatcher
from server.signup import Reception

DEFAULT_SIZE = Limits().size
_CONTENT = Content(letter.SUBJECT, letter.TEXT, letter.HTML)
_BATCH = 1000
# How often is looked whether all is sent: it is the error of the time, and must not be felt.
_LOOK_SECONDS = 0.005
_WAITS = "SELECT EXISTS (SELECT 1 FROM outbox WHERE state = 'pending')"


def mail(number: int) -> Message:
    """The mail, as Doorbell writes it."""
    return compose(_CONTENT, sender=letter.SENDER, recipient=letter.recipient(number), domain=letter.DOMAIN)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """The database there, made where it is missing."""
    made = Database(url)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


def database(file: Path) -> AbstractAsyncContextManager[Database]:
    """The database in `file`, made where it is missing."""
    return opened(f"sqlite:///{file}")


def _addressed(number: int) -> store.Addressed:
    return store.Addressed("bench", None, store.Mail("welcome", mail(number), to_visitor=True))


async def fill(file: Path, count: int) -> None:
    """Writes `count` mails into the outbox, all due."""
    async with database(file) as opened:
        for begin in range(0, count, _BATCH):
            mails = [_addressed(number) for number in range(begin, min(begin + _BATCH, count))]
            await opened.transact(store.add, mails)


async def add(database: Database, count: int) -> None:
    """Writes `count` mails at once: all are due at the same moment."""
    await database.transact(store.add, [_addressed(number) for number in range(count)])


def waiting(connection: Connection) -> bool:
    """Whether a mail is not yet sent, and not given up."""
    return bool(connection.execute(text(_WAITS)).scalar())


def add_others(file: Path, count: int) -> None:
    """Writes `count` rows past the server, of ten nine that are sent, and one for later years."""
    sent = {
        "state": "sent",
        "outcome": "sent",
        "reply": "250 2.0.0 Ok",
        "attempts": 1,
        "settled_at": 1.0,
        "due_at": 1.0,
    }
    later = {"state": "pending", "attempts": 0, "due_at": 1e11}
    template = dict.fromkeys([column.name for column in outbox.columns if column.name != "id"])
    template |= store._row(_addressed(0)) | {"uncertain": 0, "created_at": 1.0}

    def rows() -> Iterator[dict[str, object]]:
        for number in range(count):
            to = letter.recipient(number)
            own = {"message_id": f"<{number}@bench.example>", "recipient": to, "domain": to.partition("@")[2]}
            own["recipient_hash"] = store.recipient_hash(to)
            yield template | own | (sent if number % 10 else later)

    with closing(sqlite3.connect(file)) as connection:
        values = ", ".join(f":{name}" for name in template)
        connection.executemany(f"INSERT INTO outbox ({', '.join(template)}) VALUES ({values})", rows())
        # Short ones: what is not claimed is not read, and a million whole ones are 4 GB.
        connection.execute("INSERT INTO messages SELECT id, zeroblob(300) FROM outbox")
        connection.commit()


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
        while look.execute(_WAITS).fetchone()[0]:  # noqa: ASYNC110
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
    return len(await opened.transact(store.claim, owner, limit, LEASE_SECONDS))


async def look(opened: Database, owner: str) -> None:
    """What the dispatcher asks where nothing is due: what there is to claim, and when there will be."""
    await opened.transact(store.claim, owner, 1, LEASE_SECONDS)
    await opened.read(store.next_due)


async def release(opened: Database, owner: str) -> None:
    """Gives back what `owner` has claimed."""
    await opened.transact(store.release, owner)


def keep(connection: Connection, reception: Reception, form: Form, message: Message) -> None:
    """Writes a signup and its mail, in a transaction of somebody else's."""
    site = reception.site.slug
    row = {"site": site, "email": form.email, "name": form.name, "fields": form.answers}
    written = connection.execute(insert(signups).values(**row, created_at=now()).returning(signups.c.id))
    one = store.Mail("welcome", message, to_visitor=True)
    store.add(connection, [store.Addressed(site, written.scalar_one(), one)])


def welcome(reception: Reception, form: Form) -> Message:
    """The one mail of a signup, written as Doorbell does it."""
    return signup.to_visitor(reception, "welcome", form.email, store.recipient_hash(form.email))


def kept(file: Path) -> int:
    """How many signups there are."""
    with closing(sqlite3.connect(file)) as look:
        return int(look.execute("SELECT count(*) FROM signups").fetchone()[0])


def waits(file: Path) -> bool:
    """Whether a mail is not yet sent, and not given up."""
    with closing(sqlite3.connect(file)) as look:
        return bool(look.execute(_WAITS).fetchone()[0])
