"""Retention: what has had its time is removed, in batches so small that no signup waits for them.

Texts of mails that ended, signups that nobody confirmed, spam, and, where the operator wants it, every signup; and what
limits and repeated posts were counted with.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from sqlalchemy import Column, ColumnElement, Connection, delete, select

from server import log, registry
from server.db import Database
from server.db.tables import counters, idempotency, now
from server.jobs.schedule import Job
from server.outbox import ledger
from server.outbox.ledger import Purged

_log = log.get(__name__)

DAY = 86400.0
EVERY_SECONDS = 3600.0
# Between two batches: others that write, also in other processes, come first.
PAUSE_SECONDS = 0.01
BATCH = 200

Purge = Callable[[Connection, float, int], Purged]
"""Removes a batch of what is older than so many seconds, after so far as the last one came."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How many days things are kept; 0 days: for ever."""

    texts: float
    unconfirmed: float
    signups: float = 0


async def batches(database: Database, purge: Purge, older_than: float) -> AsyncGenerator[int, None]:
    """Purges what is older than so many seconds; yields after each batch how much it removed."""
    after: int | None = 0
    while after is not None:
        step = await database.transact(purge, older_than, after)
        after = step.after
        yield step.count
        await asyncio.sleep(PAUSE_SECONDS)


def job(database: Database, keep: Retention) -> Job:
    """Purges every hour what was kept long enough."""
    work: list[tuple[str, Purge, float]] = [
        ("mail.purged", ledger.purge, keep.texts),
        # Before the signups, which take them along one by one.
        ("posts.purged", _purge_posts, 1),
        ("signups.purged", registry.purge_waiting, keep.unconfirmed),
        ("signups.purged", registry.purge, keep.signups),
    ]

    async def run(closing: asyncio.Event) -> None:
        for event, purge, days in work:
            if days:
                await _all(database, event, purge, days * DAY, closing)
        await _all(database, "counters.purged", _purge_counters, 0, closing)

    return Job("purge", EVERY_SECONDS, run)


async def _all(database: Database, event: str, purge: Purge, older_than: float, closing: asyncio.Event) -> None:
    removed = 0
    async with aclosing(batches(database, purge, older_than)) as steps:
        async for count in steps:
            removed += count
            if closing.is_set():
                break
    if removed:
        _log.info(event, removed=removed)


def _purge_posts(connection: Connection, older_than: float, after: int) -> Purged:
    return _some(connection, idempotency.c.key, idempotency.c.created_at < now() - older_than)


def _purge_counters(connection: Connection, older_than: float, after: int) -> Purged:
    return _some(connection, counters.c.key, counters.c.until < now() - older_than)


def _some(connection: Connection, key: Column[str], over: ColumnElement[bool]) -> Purged:
    chosen = select(key).where(over).limit(BATCH)
    count = connection.execute(delete(key.table).where(key.in_(chosen))).rowcount
    return Purged(count, 0 if count == BATCH else None)
