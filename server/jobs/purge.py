"""Retention: the text of mails that ended long ago is removed, in batches so small that no signup waits for them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from server import log
from server.db import Database
from server.jobs.schedule import Job
from server.outbox import ledger

_log = log.get(__name__)

DAY = 86400.0
EVERY_SECONDS = 3600.0
# Between two batches: others that write, also in other processes, come first.
PAUSE_SECONDS = 0.01


async def batches(database: Database, older_than: float) -> AsyncGenerator[int, None]:
    """Purges what ended more than `older_than` seconds ago; yields after each batch how many texts it removed."""
    after: int | None = 0
    while after is not None:
        step = await database.transact(ledger.purge, older_than, after)
        after = step.after
        yield step.count
        await asyncio.sleep(PAUSE_SECONDS)


def job(database: Database, days: float) -> Job:
    """Purges every hour what ended more than `days` ago."""

    async def run(closing: asyncio.Event) -> None:
        removed = 0
        async with aclosing(batches(database, days * DAY)) as steps:
            async for count in steps:
                removed += count
                if closing.is_set():
                    break
        if removed:
            _log.info("mail.purged", mails=removed)

    return Job("purge", EVERY_SECONDS, run)
