"""A pool of SMTP connections on one event loop: leases, limits, and one decision function.

The pool never retries a mail: whoever leases has the clock and the row. A connection comes back only in step with its
server; anything else, a cancelled lease included, closes it.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiolimiter import AsyncLimiter

from server import log
from server.mail.connection import Connection, Relay
from server.mail.errors import MailError, loggable

_log = log.get(__name__)


class PoolClosed(Exception):
    """The pool was closed, or never opened."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a pool holds to: connections; mails a connection; seconds unused, alive, and waited for a lease; leases a
    second (None: as they come), of which as many may come at once; connections made at the start."""

    size: int = 4
    max_messages: int = 100
    idle_seconds: float = 30
    lifetime_seconds: float = 300
    wait_seconds: float = 60
    rate: float | None = None
    warm: int = 1


class Pool:
    """`async with pool.lease() as smtp: await smtp.send(…)`, between `open` and `close`."""

    def __init__(self, relay: Relay, limits: Limits = Limits()) -> None:
        self.relay = relay
        self.limits = limits
        self.fault: MailError | None = None
        """Why the last attempt to connect failed; None after one that did not."""
        self._slots = asyncio.Semaphore(limits.size)
        # A bucket holds one token at least, else none could ever be taken.
        burst = max(limits.rate or 1, 1)
        self._bucket = AsyncLimiter(burst, burst / limits.rate) if limits.rate else None
        self._idle: deque[Connection] = deque()  # the freshest at the right
        self._leased: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()  # those of them that say goodbye
        self._waiting = 0
        self._connects = 0
        self._connect_failures = 0
        self._running = False

    def __repr__(self) -> str:
        state = "open" if self._running else "closed"
        counts = f"leased={len(self._leased)} idle={len(self._idle)} size={self.limits.size}"
        return f"<Pool {self.relay.host}:{self.relay.port} {state} {counts}>"

    @property
    def connected(self) -> bool:
        """Whether there is a connection that works."""
        return any(connection.clean for connection in self._idle) or any(
            connection.established for connection in self._leased
        )

    def stats(self) -> dict[str, int]:
        """Gauges: connections leased (or being opened), idle and at most, and who waits for one. Counters since the
        start: attempts to connect, and those that failed."""
        return {
            "leased": len(self._leased),
            "idle": len(self._idle),
            "size": self.limits.size,
            "waiting": self._waiting,
            "connects": self._connects,
            "connect_failures": self._connect_failures,
        }

    async def open(self, wait_seconds: float = 2) -> None:
        """Opens the first connections; waits for them at most `wait_seconds`, then goes on in the background.

        A relay that is down is no error here: `fault` tells, and each lease tries again.
        """
        self._running = True
        first = {self._spawn(self._warm()) for _ in range(min(self.limits.warm, self.limits.size))}
        self._spawn(self._tidy())
        try:
            if first:
                await asyncio.wait(first, timeout=wait_seconds)
        except asyncio.CancelledError:
            await self.close()
            raise

    async def close(self) -> None:
        """Says goodbye to idle connections and cuts leased ones: whoever wants to drain waits for leases first."""
        self._running = False
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        for connection in self._leased:
            connection.abort()
        idle, self._idle = list(self._idle), deque()
        await asyncio.gather(*tasks, *(connection.quit() for connection in idle), return_exceptions=True)

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Connection]:
        """A connection for this block alone, fresh or used before, for one mail.

        Raises Held or Deferred when the relay cannot be had, TimeoutError after `wait_seconds` without a free one,
        PoolClosed. What the rate makes wait is not counted.
        """
        if self._bucket is not None:
            await self._bucket.acquire()
        async with self._slot() as connection:
            yield connection

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[Connection]:
        await self._turn()
        try:
            connection = await self._take()
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            self._slots.release()

    async def probe(self) -> None:
        """Makes sure that the relay takes us: connects, or asks an idle connection. Raises Held or Deferred."""
        async with self._slot() as connection:
            await connection.verify()

    async def _turn(self) -> None:
        if not self._slots.locked():
            await self._slots.acquire()
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(self.limits.wait_seconds):
                await self._slots.acquire()
        finally:
            self._waiting -= 1

    # -- decisions: no await, so nothing can come between ------------------------------------------------------------

    def _sort(self, now: float) -> list[Connection]:
        """Keeps what is fit for another mail; answers the rest, to be closed by the caller."""
        fit: deque[Connection] = deque()
        unfit: list[Connection] = []
        for connection in self._idle:
            (fit.append if self._fit(connection, now) else unfit.append)(connection)
        self._idle = fit
        return unfit

    def _fit(self, connection: Connection, now: float) -> bool:
        return (
            self._running
            and connection.clean
            and connection.sent < self.limits.max_messages
            and now < connection.expires_at
            and now - connection.used_at < self.limits.idle_seconds
        )

    def _give_back(self, connection: Connection) -> None:
        self._leased.discard(connection)
        connection.used_at = asyncio.get_running_loop().time()
        connection.reused = True  # not by comparing times: a loop's clock may stand still that long
        self._idle.append(connection)
        self._dismiss(self._sort(connection.used_at))

    # -- effects -----------------------------------------------------------------------------------------------------

    async def _take(self) -> Connection:
        while True:
            if not self._running:
                raise PoolClosed(repr(self))
            self._dismiss(self._sort(asyncio.get_running_loop().time()))
            if self._idle:
                connection = self._idle.pop()
                self._leased.add(connection)
                return connection
            if len(self._leased) + len(self._leaving) < self.limits.size:
                return await self._connect()
            # One that says goodbye still counts at the relay, which may refuse one more.
            await asyncio.wait(self._leaving, return_when=asyncio.FIRST_COMPLETED)

    async def _connect(self) -> Connection:
        connection = Connection(self.relay)
        self._leased.add(connection)  # from now on it counts
        self._connects += 1
        try:
            await connection.open()
            if not self._running:  # closed meanwhile
                raise PoolClosed(repr(self))
        except BaseException as error:
            self._leased.discard(connection)
            connection.abort()
            if isinstance(error, MailError):
                self.fault = error
                self._connect_failures += 1
            raise
        self.fault = None
        now = asyncio.get_running_loop().time()
        connection.used_at = now
        # Jitter: connections opened together must not all end together.
        connection.expires_at = now + self.limits.lifetime_seconds * random.uniform(0.9, 1.1)
        return connection

    def _dismiss(self, connections: list[Connection]) -> None:
        for connection in connections:
            if connection.clean and self._running:
                task = self._spawn(connection.quit())
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)
            else:
                connection.abort()

    async def _warm(self) -> None:
        try:
            await self.probe()
            _log.info("smtp.ready", host=self.relay.host, port=self.relay.port, tls=self.relay.tls)
        except (MailError, TimeoutError) as error:
            _log.warning("smtp.unavailable", host=self.relay.host, port=self.relay.port, reason=loggable(error))

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(max(self.limits.idle_seconds / 2, 0.05))
            self._dismiss(self._sort(asyncio.get_running_loop().time()))

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
