"""The dispatcher: claims due rows, sends each over a leased connection, settles each alone and at once.

It lives on one event loop. `wake` is a hint and may be lost: what is due is found by the clock too.
"""

import asyncio
import uuid
from collections.abc import Collection
from contextlib import suppress
from functools import partial

from server import log
from server.db import Database, DatabaseUnavailable
from server.mail.connection import Reply
from server.mail.errors import Deferred, Held, MailError, Refused, Stage, Uncertain, clean, loggable
from server.mail.pool import Pool, PoolClosed
from server.outbox import retry, store
from server.outbox.retry import Breaker
from server.outbox.store import Claimed, Outcome

_log = log.get(__name__)

# A lease outlives its owner by this at most; renewed three times as often.
LEASE_SECONDS = 15.0
# Longest sleep without a look at the table: for what another process left, or a wake that was lost.
POLL_SECONDS = 15.0

_OUTCOMES: dict[type[MailError], Outcome] = {
    Refused: Outcome.FAILED,
    Deferred: Outcome.DEFERRED,
    Held: Outcome.HELD,
    Uncertain: Outcome.UNCERTAIN,
}


async def _cut(tasks: Collection[asyncio.Task[None]]) -> None:
    while tasks:
        for task in tasks:
            task.cancel()
        # Again if need be: wait_for of Python 3.11 loses a cancellation that comes together with its result.
        _, tasks = await asyncio.wait(tasks, timeout=1)


class Dispatcher:
    """Sends what is due, between `open` and `close`, with as many mails in flight as the pool has connections."""

    def __init__(self, database: Database, pool: Pool) -> None:
        self.owner = str(uuid.uuid4())
        self.breaker = Breaker()
        self._database = database
        self._pool = pool
        self._woken = asyncio.Event()
        self._closing = False
        self._in_flight: dict[int, asyncio.Task[None]] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._down: MailError | None = None
        self._refused: dict[str, MailError] = {}  # by the sender that the relay does not take

    def __repr__(self) -> str:
        state = "closing" if self._closing else "open" if self._tasks else "new"
        return (
            f"<Dispatcher {state} in_flight={len(self._in_flight)} breaker={'open' if self.breaker.open else 'closed'}>"
        )

    @property
    def fault(self) -> MailError | None:
        """Why mail is held; None while the relay takes it from every sender."""
        return self._down or next(iter(self._refused.values()), None)

    async def open(self) -> None:
        """Begins to send."""
        if self._pool.fault is not None:
            self._trip(self._pool.fault)
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._renew())]

    def wake(self) -> None:
        """Says that something is due."""
        self._woken.set()

    async def close(self, grace_seconds: float = 10) -> None:
        """Claims no more, lets what is in flight end within the grace time, gives back the rest."""
        self._closing = True
        self.wake()
        if self._in_flight:
            await asyncio.wait(self._in_flight.values(), timeout=grace_seconds)
        await _cut([*self._in_flight.values(), *self._tasks])
        if self._settling:
            # Before the leases go: a row that is no longer ours cannot be settled, and its mail would go twice.
            await asyncio.wait(self._settling)
        with suppress(DatabaseUnavailable):
            async with self._database.transaction() as connection:
                await store.release(connection, self.owner)

    # -- the loop ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._closing:
            self._woken.clear()
            try:
                pause = await self._turn()
            except DatabaseUnavailable as error:
                _log.error("outbox.database_unavailable", reason=str(error))
                pause = 1.0
            except Exception:
                # Whatever it was, the mails behind it must not wait for a restart.
                _log.exception("outbox.turn_failed")
                pause = 1.0
            if pause:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._woken.wait()

    async def _turn(self) -> float:
        """Does what can be done now; answers for how many seconds there is nothing more to do, unless woken."""
        if self.breaker.open:
            return self.breaker.seconds_to_probe or await self._probe()
        free = self._pool.limits.size - len(self._in_flight)
        if free <= 0:
            return POLL_SECONDS
        async with self._database.transaction() as connection:
            rows = await store.claim(connection, self.owner, free, LEASE_SECONDS)
            wait = None if rows else await store.next_due(connection)
        for row in rows:
            if self._closing or row.id in self._in_flight:
                continue  # the latter: our own lease ran out (the machine slept), the attempt is still under way
            task = asyncio.create_task(self._deliver(row))
            self._in_flight[row.id] = task
            task.add_done_callback(partial(self._landed, row.id))
        if rows:
            return 0.0
        return POLL_SECONDS if wait is None else min(max(wait, 0.05), POLL_SECONDS)

    def _landed(self, id: int, _: asyncio.Task[None]) -> None:
        self._in_flight.pop(id, None)
        self.wake()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            if not self._in_flight:
                continue
            try:
                async with self._database.transaction() as connection:
                    await store.renew(connection, self.owner, list(self._in_flight), LEASE_SECONDS)
            except DatabaseUnavailable as error:
                _log.error("outbox.renew_failed", reason=str(error))
            except Exception:
                # Without renewal every mail in flight would soon be another's to send.
                _log.exception("outbox.renew_failed")

    # -- the relay ---------------------------------------------------------------------------------------------------

    def _trip(self, error: MailError) -> None:
        if not self.breaker.open:
            _log.error("smtp.held", reason=loggable(error))
        self._down = error
        self.breaker.failed()

    async def _probe(self) -> float:
        try:
            await self._pool.probe()
        except (MailError, TimeoutError) as error:
            self._trip(error if isinstance(error, MailError) else Held(Stage.CONNECT, None, "no free connection"))
            return self.breaker.seconds_to_probe
        _log.info("smtp.recovered", failures=self.breaker.failures)
        self.breaker.recovered()
        self._down = None
        return 0.0

    # -- one mail ----------------------------------------------------------------------------------------------------

    async def _deliver(self, row: Claimed) -> None:
        try:
            outcome, reply, pause = Outcome.SENT, str(await self._send(row)), None
            self._refused.pop(row.sender, None)
        except MailError as error:
            outcome, reply, pause = self._judge(row, error)
        except (PoolClosed, TimeoutError) as error:
            outcome, reply, pause = Outcome.HELD, str(error) or "no free connection", 1.0
        except Exception as error:
            # Not foreseen, so not known to be the mail's fault: later, and loudly.
            _log.exception("mail.unexpected", outbox_id=row.id)
            outcome, reply, pause = self._later(row, Outcome.DEFERRED, clean(f"{type(error).__name__}: {error}"))
        # A task of its own: a reply that we have heard must not be forgotten because somebody stops waiting for it.
        settling = asyncio.create_task(self._settle(row, outcome, reply, pause))
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)
        await asyncio.shield(settling)

    async def _send(self, row: Claimed) -> Reply:
        while True:
            async with self._pool.lease() as smtp:
                reused = smtp.reused
                try:
                    return (await smtp.send(row.sender, row.recipient, row.message))[-1]
                except Deferred as error:
                    # Servers close what lay idle, often just as the next mail begins: that says nothing about the mail.
                    if not (reused and error.stage is Stage.MAIL and error.code in (None, 421)):
                        raise
                except asyncio.CancelledError:
                    # We are closing, and then it is known: the mail may have been accepted.
                    if not smtp.under_way:
                        raise
                    raise Uncertain(Stage.CONTENT, None, "stopped before the reply") from None

    def _judge(self, row: Claimed, error: MailError) -> tuple[Outcome, str, float | None]:
        if error.stage is Stage.CONNECT:
            # Whatever the code: the relay never saw this mail.
            if not self.breaker.open:  # those in flight fail together: that is one fault
                self._trip(error)
            return Outcome.HELD, str(error), None
        outcome = _OUTCOMES[type(error)]
        if error.stage is not Stage.MAIL:
            self._refused.pop(row.sender, None)
        if outcome is Outcome.HELD:
            self._refused[row.sender] = error
            return outcome, str(error), retry.HELD_SECONDS
        if outcome is Outcome.FAILED:
            return outcome, str(error), None
        return self._later(row, outcome, str(error))

    def _later(self, row: Claimed, outcome: Outcome, reply: str) -> tuple[Outcome, str, float | None]:
        attempts = row.attempts + 1
        if retry.exhausted(attempts, row.age_seconds):
            return Outcome.FAILED, f"gave up after {attempts} attempts; the last: {reply}", None
        return outcome, reply, retry.delay(row.attempts)

    async def _settle(self, row: Claimed, outcome: Outcome, reply: str, pause: float | None) -> None:
        while True:
            try:
                async with self._database.transaction() as connection:
                    ours = await store.settle(connection, self.owner, row.id, outcome, reply, pause)
                break
            except DatabaseUnavailable as error:
                _log.error("outbox.settle_failed", outbox_id=row.id, outcome=outcome, reason=str(error))
                if self._closing:
                    return  # the lease runs out, and the mail goes again: a duplicate, not a loss
                await asyncio.sleep(1)
            except Exception:
                # Not foreseen: the lease runs out, and the mail goes again.
                _log.exception("outbox.settle_failed", outbox_id=row.id, outcome=outcome)
                return
        say = _log.info if outcome is Outcome.SENT else _log.warning
        say(
            f"mail.{outcome}",
            outbox_id=row.id,
            site=row.site,
            kind=row.kind,
            attempt=row.attempts + 1,
            **({} if pause is None else {"retry_in": round(pause)}),
            **({} if ours else {"lease": "lost"}),
        )
