"""The dispatcher: claims due rows, sends each over a leased connection, settles each alone and at once.

It lives on one event loop. `wake` is a hint and may be lost: what is due is found by the clock too.
"""

import asyncio
import uuid
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, replace
from time import monotonic

from server import log, metrics, tracing
from server.db import Database, DatabaseUnavailable
from server.mail.connection import Reply
from server.mail.errors import Deferred, Held, MailError, Refused, Stage, Uncertain, clean, loggable
from server.mail.pool import Pool, PoolClosed
from server.outbox import retry, store
from server.outbox.fairness import Turns
from server.outbox.retry import Breaker, Window
from server.outbox.store import Claimed, Outcome, Settlement

_log = log.get(__name__)

# A lease outlives its owner by this at most; renewed three times as often.
LEASE_SECONDS = 15.0
# Longest sleep without a look at the table: for what another process left, or a wake that was lost.
POLL_SECONDS = 15.0
# Rows claimed at once: few, so that other processes have some; many, where few are gone in no time.
LARGEST_CLAIM = 256
# Mails whose outcome waits to be written down, for each connection. A crash doubles them, and those on their way.
UNSETTLED = 4

_OUTCOMES: dict[type[MailError], Outcome] = {
    Refused: Outcome.FAILED,
    Deferred: Outcome.DEFERRED,
    Held: Outcome.HELD,
    Uncertain: Outcome.UNCERTAIN,
}


@dataclass(frozen=True, slots=True)
class _End:
    """How an attempt ended. `code`: of the SMTP reply, None without one. `well`: what that says of the recipient's
    domain (see `Turns.landed`)."""

    outcome: Outcome
    reply: str
    retry_in: float | None = None
    suppress: bool = False
    well: bool | None = None
    code: int | None = None


@dataclass(slots=True)
class _Lease:
    """A row that is ours, in seconds of our own clock: until when, and since when there has been this mail."""

    until: float
    born: float


class Dispatcher:
    """Sends what is due, between `open` and `close`, with as many mails on their way as the pool has connections.

    `budget`: mails an hour, by all processes together; see `outbox.budget`.
    """

    def __init__(self, database: Database, pool: Pool, budget: int | None = None) -> None:
        self.owner = str(uuid.uuid4())
        self.breaker = Breaker()
        self.window = Window(pool.limits.size)
        self._database = database
        self._pool = pool
        self._budget = budget
        self._turns = Turns(pool.limits.size)
        self._woken = asyncio.Event()
        self._resting = asyncio.Event()  # nothing to do, and nothing on its way
        self._closing = False
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._settling: dict[int, asyncio.Task[None]] = {}
        self._leases: dict[int, _Lease] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._claim_size = pool.limits.size
        self._claimed_at = self._mended_at = self._renewed_at = 0.0
        self._down: MailError | None = None
        self._refused: dict[str, MailError] = {}  # by the sender that the relay does not take

    def __repr__(self) -> str:
        state = "closing" if self._closing else "open" if self._tasks else "new"
        breaker = "open" if self.breaker.open else "closed"
        return f"<Dispatcher {state} in_flight={self.in_flight} waiting={self._turns.waiting} breaker={breaker}>"

    @property
    def in_flight(self) -> int:
        """Mails that are being sent, or whose outcome is not on the disk yet: what a crash just now could double."""
        return len(self._sending.keys() | self._settling.keys())

    @property
    def fault(self) -> MailError | None:
        """Why mail is held; None while the relay takes it from every sender."""
        return self._down or next(iter(self._refused.values()), None)

    async def open(self) -> None:
        """Begins to send."""
        if self._pool.fault is not None:
            self._trip(self._pool.fault)
        self._spawn(self._run())
        self._spawn(self._keep_leases())

    def wake(self) -> None:
        """Says that something is due."""
        self._resting.clear()
        self._woken.set()

    async def drain(self, seconds: float) -> bool:
        """Sends what is due, for so many seconds at most; answers whether nothing is left that could be sent now."""
        self.wake()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._resting.wait()
        return self._resting.is_set()

    async def close(self, grace_seconds: float = 10) -> None:
        """Claims no more, lets what is on its way end within the grace time, gives back the rest."""
        self._closing = True
        self.wake()
        self._turns.clear()
        if self._sending:
            await asyncio.wait(self._sending.values(), timeout=grace_seconds)
        await _cut([*self._sending.values(), *self._tasks])
        if self._settling:
            # Before the leases go: a row that is no longer ours cannot be settled, and its mail would go twice.
            await asyncio.wait(self._settling.values())
        with suppress(DatabaseUnavailable):
            await self._database.transact(store.release, self.owner)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- claims --------------------------------------------------------------------------------------------------------

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
                if not self.in_flight and not self._woken.is_set():
                    self._resting.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._woken.wait()

    async def _turn(self) -> float:
        """Does what can be done now; answers for how many seconds there is nothing more to do, unless woken."""
        if self.breaker.open:
            return self.breaker.seconds_to_probe or await self._probe()
        if self.window.pause:
            return self.window.pause
        self._send_some()
        if self._turns.ready > self._claim_size // 2:
            return POLL_SECONDS
        if monotonic() - self._mended_at > POLL_SECONDS:
            await self._database.transact(store.mend_times, LEASE_SECONDS, retry.FARTHEST_SECONDS)
            self._mended_at = monotonic()
        if await self._claim():
            return 0.0
        wait = await self._database.read(store.next_due, self._turns.full(), self._budget)
        return POLL_SECONDS if wait is None else min(max(wait, 0.05), POLL_SECONDS)

    async def _claim(self) -> bool:
        """Whether there was something."""
        begun = monotonic()
        room = self._claim_size - self._turns.ready
        rows = await self._database.transact(
            store.claim, self.owner, room, LEASE_SECONDS, self._turns.full(), self._budget
        )
        self._fit_claim_size(len(rows) == room, begun)
        if self._closing:
            return False  # `close` gives them back
        # Ours already: our own lease ran out (the machine slept), the attempt is still under way.
        fresh = [row for row in rows if row.id not in self._leases]
        for row in fresh:
            _log.debug("mail.claimed", request_id=tracing.request_id(row.trace), **_facts(row))
        self._leases.update((row.id, _Lease(begun + LEASE_SECONDS, begun - row.age_seconds)) for row in rows)
        surplus = self._turns.add(fresh)
        self._forget(surplus)
        if surplus:
            await self._database.transact(store.release, self.owner, [row.id for row in surplus])
        self._send_some()
        return bool(fresh)

    def _fit_claim_size(self, full: bool, begun: float) -> None:
        since, self._claimed_at = begun - self._claimed_at, begun
        if full and since < 0.5:
            self._claim_size = min(self._claim_size * 2, LARGEST_CLAIM)
        elif since > 2.0:
            self._claim_size = max(self._claim_size // 2, self._pool.limits.size)

    def _forget(self, rows: Iterable[Claimed]) -> None:
        for row in rows:
            self._leases.pop(row.id, None)

    # -- leases --------------------------------------------------------------------------------------------------------

    async def _keep_leases(self) -> None:
        while True:
            renewal = asyncio.create_task(self._renew())
            # A database that is away must not keep us from seeing that our time runs out.
            while not renewal.done() or self._renewed_at + LEASE_SECONDS / 3 > monotonic():
                await asyncio.sleep(LEASE_SECONDS / 15)
                self._give_up_lost()

    async def _renew(self) -> None:
        begun, ids = monotonic(), list(self._leases)
        self._renewed_at = begun
        if not ids:
            return
        try:
            kept = await self._database.transact(store.renew, self.owner, ids, LEASE_SECONDS)
        except DatabaseUnavailable as error:
            _log.error("outbox.renew_failed", reason=str(error))
            return
        except Exception:
            # Without renewal every mail on its way would soon be another's to send.
            _log.exception("outbox.renew_failed")
            return
        ours = set(kept)
        for id in ids:
            if id in self._leases:  # else it was settled meanwhile
                self._leases[id].until = begun + LEASE_SECONDS if id in ours else 0.0

    def _give_up_lost(self) -> None:
        """A mail whose lease runs out will be another's: two must not send it at the same time."""
        soon = monotonic() + LEASE_SECONDS / 5
        lost = {id for id, lease in self._leases.items() if lease.until < soon}
        if not lost:
            return
        self._turns.keep(lambda id: id not in lost)
        for id in lost:
            if id in self._sending:
                self._sending[id].cancel()
            elif id not in self._settling:
                self._leases.pop(id)

    # -- the relay -----------------------------------------------------------------------------------------------------

    def _trip(self, error: MailError) -> None:
        if not self.breaker.open:
            _log.error("smtp.held", reason=loggable(error))
        self._down = error
        self.breaker.failed()
        self._give_back(self._turns.clear())

    def _give_back(self, rows: list[Claimed]) -> None:
        if rows:
            self._forget(rows)
            self._spawn(self._release([row.id for row in rows]))

    async def _release(self, ids: list[int]) -> None:
        with suppress(DatabaseUnavailable):  # then they run out
            await self._database.transact(store.release, self.owner, ids)

    async def _probe(self) -> float:
        try:
            await self._pool.probe()
        except (MailError, TimeoutError) as error:
            self._trip(error if isinstance(error, MailError) else Held(Stage.CONNECT, None, "no free connection"))
            return self.breaker.seconds_to_probe
        _log.info("smtp.recovered", failures=self.breaker.failures)
        self.breaker.recovered()
        self._down = None
        self.window.allowed = 1.0  # who was down is not to be stormed
        return 0.0

    # -- one mail ------------------------------------------------------------------------------------------------------

    def _send_some(self) -> None:
        """Begins as many mails as may be on their way."""
        while (
            len(self._sending) < int(self.window.allowed)
            and len(self._settling) < UNSETTLED * self._pool.limits.size
            and not (self._closing or self.breaker.open or self.window.pause)
            and (row := self._turns.take()) is not None
        ):
            # In a context of its own: where one ends the next begins, and must not pass for a part of what that was of.
            self._sending[row.id] = asyncio.create_task(self._deliver(row), context=Context())

    async def _deliver(self, row: Claimed) -> None:
        with tracing.span("mail.send", "client", row.trace, **_facts(row)) as span:
            await self._try(row, span)

    async def _try(self, row: Claimed, span: tracing.Span) -> None:
        begun, end = monotonic(), None
        try:
            end = await self._attempt(row)
        finally:
            # Here and not in a callback: what comes next begins in this very step of the loop.
            del self._sending[row.id]
            rest = self._turns.landed(row.domain, end.well if end else None)
            if end is None:
                self._leases.pop(row.id, None)  # cut off: `close` gives it back, or it is another's
            else:
                seconds = monotonic() - begun
                if end.outcome is Outcome.SENT and (lease := self._leases.get(row.id)):
                    metrics.delivered(monotonic() - lease.born)
                settlement = Settlement(row.id, self.owner, end.outcome, end.reply, seconds, end.retry_in, end.suppress)
                _note(span, end)
                # A task of its own: a reply that we have heard must not be forgotten because somebody stops waiting.
                self._settling[row.id] = asyncio.create_task(self._settle(row, settlement, end.code))
            if rest:
                self._rest(row.domain, rest)
            self._go_on()

    def _go_on(self) -> None:
        self._send_some()
        if self._turns.ready <= self._claim_size // 2:
            self.wake()

    def _rest(self, domain: str, seconds: float) -> None:
        _log.warning("outbox.domain_rests", seconds=round(seconds))
        rows = self._turns.dismiss(domain)
        self._forget(rows)
        self._spawn(self._put_off([row.id for row in rows], domain, seconds))

    async def _put_off(self, ids: list[int], domain: str, seconds: float) -> None:
        with suppress(DatabaseUnavailable):  # then they are tried, one after the other
            await self._database.transact(store.put_off, self.owner, ids, domain, seconds)

    async def _attempt(self, row: Claimed) -> _End:
        try:
            reply = await self._send(row)
        except MailError as error:
            return replace(self._judge(row, error), code=error.code)
        except (PoolClosed, TimeoutError) as error:
            return _End(Outcome.HELD, str(error) or "no free connection", 1.0)
        except Exception as error:
            # Not foreseen, so not known to be the mail's fault: later, and loudly.
            _log.exception("mail.unexpected", **_facts(row))
            return self._later(row, Outcome.DEFERRED, clean(f"{type(error).__name__}: {error}"))
        self._refused.pop(row.sender, None)
        self.window.went_well()
        return _End(Outcome.SENT, str(reply), well=True, code=reply.code)

    async def _send(self, row: Claimed) -> Reply:
        if row.message is None:
            raise Refused(Stage.CONTENT, None, "its message was purged")
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

    def _judge(self, row: Claimed, error: MailError) -> _End:
        if error.throttled:
            self.window.slow_down()
        if error.stage is Stage.CONNECT:
            return self._judge_connection(error)
        outcome = _OUTCOMES[type(error)]
        if error.stage is not Stage.MAIL:
            self._refused.pop(row.sender, None)
        if outcome is Outcome.HELD:
            self._refused[row.sender] = error
            return _End(outcome, str(error), retry.HELD_SECONDS)
        if outcome is Outcome.FAILED:
            return _End(outcome, str(error), suppress=row.to_visitor and error.no_such_mailbox)
        # A fault of the domain's, unless it was the relay's, or only asks for patience.
        well = None if error.stage is Stage.MAIL or error.throttled or error.greylisted else False
        return self._later(row, outcome, str(error), greylisted=error.greylisted, well=well)

    def _judge_connection(self, error: MailError) -> _End:
        """Whatever the code: the relay never saw this mail."""
        if error.throttled and self._pool.connected:
            return _End(Outcome.HELD, str(error), self.window.pause)  # it takes us, but not as often as this
        if not self.breaker.open:  # those on their way fail together: that is one fault
            self._trip(error)
        return _End(Outcome.HELD, str(error))

    def _later(
        self, row: Claimed, outcome: Outcome, reply: str, *, greylisted: bool = False, well: bool | None = None
    ) -> _End:
        attempts = row.attempts + 1
        if retry.exhausted(attempts, row.age_seconds):
            return _End(Outcome.FAILED, f"gave up after {attempts} attempts; the last: {reply}", well=well)
        return _End(outcome, reply, retry.delay(row.attempts, greylisted=greylisted), well=well)

    async def _settle(self, row: Claimed, settlement: Settlement, code: int | None) -> None:
        try:
            ours = await self._write_down(settlement)
        finally:
            del self._settling[row.id]
            self._leases.pop(row.id, None)
            self._go_on()
        metrics.sent(settlement.outcome)
        say = _log.info if settlement.outcome is Outcome.SENT else _log.warning
        say(
            f"mail.{settlement.outcome}",
            **_facts(row),
            **({} if code is None else {"code": code}),
            **({} if settlement.retry_in is None else {"retry_in": round(settlement.retry_in)}),
            **({} if ours else {"lease": "lost"}),
        )

    async def _write_down(self, settlement: Settlement) -> bool:
        """Whether the row is settled by it. While the database is away: again and again, for the lease is renewed."""
        while True:
            try:
                return await self._database.join(store.settle, settlement)
            except DatabaseUnavailable as error:
                reason = str(error)
            except Exception:
                # Not foreseen: the lease runs out, and the mail goes again.
                _log.exception("outbox.settle_failed", outbox_id=settlement.id, outcome=settlement.outcome)
                return False
            _log.error("outbox.settle_failed", outbox_id=settlement.id, outcome=settlement.outcome, reason=reason)
            settlement = replace(settlement, again=True)  # it may be committed
            if self._closing:
                return False  # the lease runs out, and the mail goes again: a duplicate, not a loss
            await asyncio.sleep(1)


def _facts(row: Claimed) -> dict[str, str | int]:
    """What a log line, or a span, tells of a mail."""
    signup = {} if row.signup_id is None else {"signup_id": row.signup_id}
    return {"outbox_id": row.id, **signup, "site": row.site, "kind": row.kind, "attempt": row.attempts + 1}


def _note(span: tracing.Span, end: _End) -> None:
    span.note(outcome=end.outcome.value, smtp_code=end.code)
    if end.outcome is not Outcome.SENT:
        span.fail(end.outcome.value)


async def _cut(tasks: list[asyncio.Task[None]]) -> None:
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        # Again if need be: wait_for of Python 3.11 loses a cancellation that comes together with its result.
        _, waiting = await asyncio.wait(waiting, timeout=1)
