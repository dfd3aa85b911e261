"""Group commit: writes that are asked for at the same time share one transaction, and so one wait for the disk.

A write that comes alone begins at once. Those that come while a transaction is under way wait for the next, together:
the disk sets the pace, no timer does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from sqlalchemy import Connection

from server import metrics
from server.db.errors import DatabaseUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")
Write = Callable[[Connection, Sequence[Item]], Sequence[Result]]

# Writes a transaction: more would keep the others waiting and win nothing.
MOST = 128


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    write: Write[Any, Any]
    item: Any
    result: asyncio.Future[Any]


class Group:
    """One queue of writes. `transact` runs a function of a connection and a batch in a transaction."""

    def __init__(self, transact: Callable[[Callable[..., list[Any]], list[_Asked]], Awaitable[list[Any]]]) -> None:
        self._transact = transact
        self._queue: list[_Asked] = []
        self._running: asyncio.Task[None] | None = None

    async def write(self, write: Write[Item, Result], item: Item) -> Result:
        """What `write` answers for `item`, once the transaction is committed.

        `write` is given the items of all who asked with it, and answers a result for each, in their order. If it fails,
        each item is written alone, so that one that cannot be written costs no other; then its error is raised here.
        It may run twice, but only one run is ever committed. Whoever is cancelled does not know whether the item was
        written.
        """
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append(_Asked(write, item, result))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await result

    async def close(self) -> None:
        """Waits for what was asked for."""
        while self._running is not None:
            await asyncio.wait({self._running})

    async def _run(self) -> None:
        try:
            while self._queue:
                batch, self._queue = self._queue[:MOST], self._queue[MOST:]
                await self._together(batch)
        finally:
            self._running = None

    async def _together(self, batch: list[_Asked]) -> None:
        # In every process the same, for they wait for one another's locks. Stable: those of one kind keep their order.
        batch.sort(key=lambda asked: f"{asked.write.__module__}.{asked.write.__qualname__}")
        try:
            results = await self._transact(_write_all, batch)
        except Exception as error:
            await self._apart(batch, error)
        else:
            metrics.committed(len(batch))
            for asked, result in zip(batch, results, strict=True):
                if not asked.result.done():  # cancelled meanwhile
                    asked.result.set_result(result)

    async def _apart(self, batch: list[_Asked], error: Exception) -> None:
        if isinstance(error, DatabaseUnavailable):
            # Those behind have waited as long already, and it would be the same for them.
            batch, self._queue = batch + self._queue, []
        elif len(batch) > 1:
            for asked in batch:
                await self._together([asked])
            return
        for asked in batch:
            if not asked.result.done():
                asked.result.set_exception(error)


def _write_all(connection: Connection, batch: list[_Asked]) -> list[Any]:
    results: list[Any] = []
    for write, asked in groupby(batch, key=lambda asked: asked.write):
        results += write(connection, [one.item for one in asked])
    return results
