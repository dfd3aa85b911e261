"""What runs while the server does, and the start-up and shutdown hooks that open and close it, in order.

traces -> database -> mailbox (where there is no relay) -> SMTP pool -> dispatcher -> timed jobs; closed in reverse.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from sqlalchemy import Connection

from server import log, metrics, tracing
from server.db import Database, DatabaseUnavailable
from server.jobs import digest, purge
from server.jobs.purge import Retention
from server.jobs.schedule import Schedule
from server.mail.connection import Relay
from server.mail.mailbox import Mailbox, catching
from server.mail.pool import Limits, Pool
from server.outbox import budget, store
from server.outbox.dispatcher import Dispatcher
from server.settings import Settings
from server.signup import Reception

_log = log.get(__name__)

Hook = Callable[[], Awaitable[Any] | Any]


class StartupError(Exception):
    """A step could not open its thing; the message says which and why, for the operator."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Step:
    """A start-up hook and its shutdown hook, each a plain function or a coroutine function."""

    name: str
    open: Hook
    close: Hook | None = None


async def _call(hook: Hook) -> None:
    result = hook()
    if inspect.isawaitable(result):
        await result


@asynccontextmanager
async def opened(steps: Iterable[Step]) -> AsyncIterator[None]:
    """Opens each step in order and closes them in reverse, also when a later one failed, or a close did.

    Raises StartupError for a step that could not open.
    """
    async with AsyncExitStack() as stack:
        for step in steps:
            try:
                await _call(step.open)
            except Exception as error:
                reason = str(error) or type(error).__name__
                for line in reason.splitlines():
                    _log.error("start.failed", step=step.name, reason=line)
                raise StartupError(step.name, reason) from error
            stack.push_async_callback(_close, step)
        yield


async def _close(step: Step) -> None:
    if step.close is not None:
        try:
            await _call(step.close)
        except Exception:
            # The rest must still be closed.
            _log.exception("stop.failed", step=step.name)


class Courier(Protocol):
    """Tells those who deliver, in other processes."""

    async def open(self) -> None: ...

    def wake(self) -> None: ...

    async def check(self) -> str | None:
        """Why they cannot be told; None where they can."""

    async def close(self) -> None: ...


@dataclass
class Runtime:
    """The open things of one process. `receptions` answers the sites that are served now, by slug; `mailbox` is None
    where mail goes to a relay. With a `courier` others deliver: nothing is opened here that does."""

    settings: Settings
    receptions: Callable[[], Mapping[str, Reception]] = dict
    courier: Courier | None = None
    database: Database = field(init=False)
    mailbox: Mailbox | None = field(init=False, default=None)
    pool: Pool = field(init=False)
    dispatcher: Dispatcher = field(init=False)
    schedule: Schedule = field(init=False)
    _deaf: Callable[[], Awaitable[None]] = field(init=False)
    _mailbox_server: AsyncExitStack = field(init=False, default_factory=AsyncExitStack)
    _mailbox_port: int = field(init=False, default=0)
    _publishing: asyncio.Task[None] | None = field(init=False, default=None)

    def steps(self) -> list[Step]:
        """The hooks, in order."""
        traces = Step("traces", _open_traces, tracing.close)
        database = Step("database", self._open_database, lambda: self.database.close())
        told = Step("metrics", self._open_metrics, self._close_metrics)
        if self.courier is not None:
            return [traces, database, Step("broker", self.courier.open, self.courier.close), told]
        mailbox = [] if self.settings.smtp_url else [Step("mailbox", self._open_mailbox, self._mailbox_server.aclose)]
        return [
            traces,
            database,
            *mailbox,
            Step("smtp pool", self._open_pool, lambda: self.pool.close()),
            Step("dispatcher", self._open_dispatcher, self._close_dispatcher),
            Step("jobs", self._open_jobs, lambda: self.schedule.close()),
            told,
        ]

    async def _open_database(self) -> None:
        if not self.settings.limits:
            _log.warning("limits.off", reason="DOORBELL_LIMITS=off: whoever likes may post, and mail, without end")
        self.database = Database(self.settings.database_url)
        try:
            await self.database.open()
        except BaseException:
            await self.database.close()
            raise

    async def _open_mailbox(self) -> None:
        self.mailbox = Mailbox(self.settings.data_dir / "mailbox")
        await self.mailbox.open()
        self._mailbox_port = await self._mailbox_server.enter_async_context(catching(self.mailbox))
        if not _is_local(self.settings.base_url):
            _log.warning(
                "mailbox.in_use",
                reason="DOORBELL_SMTP_URL is not set: mails are kept in the built-in mailbox and reach nobody",
            )

    async def _open_pool(self) -> None:
        self.pool = Pool(relay(self.settings, self._mailbox_port), limits(self.settings))
        await self.pool.open()

    @property
    def _budget(self) -> int | None:
        return self.settings.mail_budget or None if self.settings.limits else None

    async def _open_dispatcher(self) -> None:
        self.dispatcher = Dispatcher(self.database, self.pool, self._budget)
        await self.dispatcher.open()
        self._deaf = await self.database.listen(self.dispatcher.wake)

    async def _close_dispatcher(self) -> None:
        await self._deaf()
        await self.dispatcher.close()

    async def _open_jobs(self) -> None:
        keep = Retention(
            texts=self.settings.mail_retention_days,
            unconfirmed=self.settings.unconfirmed_retention_days,
            signups=self.settings.signup_retention_days,
        )
        jobs = [purge.job(self.database, keep), digest.job(self.database, self.receptions)]
        self.schedule = Schedule(self.database, jobs)
        await self.schedule.open()

    def _open_metrics(self) -> None:
        self.publish()
        if metrics.is_shared():
            self._publishing = asyncio.create_task(self._publish())

    async def _publish(self) -> None:
        # Whoever is asked for metrics answers for all: this process must have said how it stands.
        while True:
            await asyncio.sleep(1)
            self.publish()

    async def _close_metrics(self) -> None:
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.wait([self._publishing])
        self.publish()

    def publish(self) -> None:
        """Says in the metrics how it stands in this process."""
        if self.courier is not None:
            return metrics.publish(metrics.Relay())
        fault = self.dispatcher.fault
        told = None if fault is None else (fault.stage.value, str(fault.code or ""))
        metrics.publish(metrics.Relay(self.pool.stats(), self.dispatcher.breaker.open, told))

    def wake(self) -> None:
        """Tells whoever delivers that something is due."""
        (self.courier or self.dispatcher).wake()

    async def drain(self, seconds: float) -> bool:
        """See `Dispatcher.drain`."""
        return await self.dispatcher.drain(seconds)

    async def health(self) -> dict[str, Any]:
        """What `/readyz` says. `ready` is whether a signup can be kept; a relay that is down only delays mail."""
        pending: int | None = None
        oldest: float | None = None
        left: int | None = None
        try:
            async with asyncio.timeout(5):
                await self.database.check()
                waiting = await self.database.read(store.backlog)
                if self._budget is not None:
                    left = await self.database.read(budget.left, self._budget)
            database, pending, oldest = "ok", waiting.pending, waiting.oldest_seconds
        except (DatabaseUnavailable, TimeoutError):
            database = "unavailable"
        return {
            "ready": database == "ok",
            "database": database,
            **await self._delivery(),
            "mail_budget_left": left,
            "pending_mails": pending,
            "oldest_pending_seconds": None if oldest is None else round(oldest, 1),
        }

    async def _delivery(self) -> dict[str, Any]:
        if self.courier is not None:
            return {"broker": await self.courier.check() or "ok"}
        self.publish()
        found = metrics.relays()
        return {
            "smtp": "mailbox" if self.mailbox else "unavailable" if found.fault else "ok",
            "smtp_fault": None if found.fault is None else _fault(*found.fault),
            "breaker": "open" if found.breaker_open else "closed",
            "pool": found.pool,
        }

    async def reading(self) -> metrics.Reading:
        """What `/metrics` tells besides what was counted."""
        mails: dict[str, int] | None = None
        oldest: float | None = None
        try:
            async with asyncio.timeout(5):
                mails, oldest = await self.database.read(_outbox)
        except (DatabaseUnavailable, TimeoutError):
            pass  # told as such
        self.publish()
        return metrics.Reading(mails, oldest, delivers=self.courier is None)


def _fault(stage: str, code: str) -> dict[str, str | int | None]:
    return {"stage": stage, "code": int(code) if code else None}


def _open_traces() -> None:
    if reason := tracing.open():
        _log.warning("traces.off", reason=reason)


def _outbox(connection: Connection) -> tuple[dict[str, int], float | None]:
    return store.depth(connection), store.backlog(connection).oldest_seconds


def relay(settings: Settings, mailbox_port: int = 0) -> Relay:
    """Where the settings send mail: to their relay, else to the mailbox that listens on `mailbox_port`."""
    smtp = settings.smtp_url
    if smtp is None:
        return Relay("127.0.0.1", mailbox_port)
    greeting = urlsplit(settings.base_url).hostname or "localhost"
    return Relay(smtp.host, smtp.port, smtp.tls, smtp.username, smtp.password, local_hostname=greeting)


def limits(settings: Settings) -> Limits:
    """What the settings let the pool hold."""
    return Limits(
        size=settings.smtp_pool_size,
        max_messages=settings.smtp_max_messages,
        idle_seconds=settings.smtp_idle_seconds,
        rate=settings.smtp_rate,
    )


def _is_local(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host in ("localhost", "127.0.0.1", "::1") or host.endswith(".localhost")
