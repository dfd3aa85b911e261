"""Timed jobs, each once in an installation: whoever takes the lease of a job's row in the table `jobs` does it.

A job whose process died is taken over when the lease has run out. All times are the database's.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Connection, Update, and_, or_, select, update

from server import log, metrics, tracing
from server.db import Database, DatabaseUnavailable
from server.db.tables import LATE_SECONDS, jobs, now

_log = log.get(__name__)

# A lease outlives its owner by this at most; renewed three times as often.
LEASE_SECONDS = 60.0
# Longest sleep without a look at the table: another process may have left a job undone.
POLL_SECONDS = 60.0
# How soon a job that failed is tried again.
RETRY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Job:
    """Work that is due again `every_seconds` after it ended. There is a row of its `name` in the table `jobs`.

    `run` is given an event; once that is set it must return soon, and is called again at the next start.
    """

    name: str
    every_seconds: float
    run: Callable[[asyncio.Event], Awaitable[None]]


class Schedule:
    """Runs jobs when they are due, between `open` and `close`."""

    def __init__(self, database: Database, jobs: Sequence[Job]) -> None:
        self.owner = str(uuid.uuid4())
        self._database = database
        self.jobs = jobs
        self._closing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Begins to look for what is due."""
        for job in self.jobs:
            metrics.scheduled(job.name)
        self._tasks = [asyncio.create_task(self._keep(job)) for job in self.jobs]

    async def close(self) -> None:
        """Begins no more, and waits until the job under way has come to where it can stop."""
        self._closing.set()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _keep(self, job: Job) -> None:
        while not self._closing.is_set():
            try:
                pause = await self._turn(job)
            except DatabaseUnavailable as error:
                _log.error("jobs.database_unavailable", job=job.name, reason=str(error))
                pause = POLL_SECONDS
            except Exception:
                # Whatever it was: the job must not wait for a restart.
                _log.exception("jobs.turn_failed", job=job.name)
                pause = POLL_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closing.wait()

    async def _turn(self, job: Job) -> float:
        """Does the job if it is due and nobody's; answers for how many seconds there is nothing to look at."""
        wait = await self._database.read(_seconds_to_wait, job)
        if wait > 0:
            return min(wait, POLL_SECONDS)
        if not await self._database.transact(_take, job, self.owner):
            return POLL_SECONDS  # another was faster
        renewing = asyncio.create_task(self._renew(job))
        try:
            next_in = await self._run(job)
        finally:
            renewing.cancel()
        await self._database.transact(_give_back, job.name, self.owner, next_in)
        return 0.0

    async def _run(self, job: Job) -> float | None:
        """Does it; answers in how many seconds it is due again, None where it is due still."""
        with tracing.span(f"job {job.name}") as span:
            try:
                await job.run(self._closing)
            except Exception as error:
                span.fail(type(error).__name__)
                _report(job, error)
                metrics.job_ended(job.name, well=False)
                return min(RETRY_SECONDS, job.every_seconds)
        if self._closing.is_set():
            return None  # perhaps not done
        metrics.job_ended(job.name, well=True)
        return job.every_seconds

    async def _renew(self, job: Job) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            with suppress(DatabaseUnavailable):  # the job meets that itself
                await self._database.transact(_extend, job.name, self.owner)


def _report(job: Job, error: Exception) -> None:
    if isinstance(error, DatabaseUnavailable):
        _log.error("jobs.failed", job=job.name, reason=str(error))
    else:
        _log.exception("jobs.failed", job=job.name)


# -- the table ---------------------------------------------------------------------------------------------------------


def _ours(name: str, owner: str) -> Update:
    return update(jobs).where(jobs.c.name == name, jobs.c.lease_owner == owner)


def _seconds_to_wait(connection: Connection, job: Job) -> float:
    """Until the job is due and nobody's; as long as there can be where it has no row."""
    row = connection.execute(
        select(jobs.c.due_at - now(), jobs.c.lease_until - now()).where(jobs.c.name == job.name)
    ).first()
    if row is None:
        return POLL_SECONDS
    due, lease = row
    # Further ahead than any that is ever written: the clock was set back.
    due = 0.0 if due > job.every_seconds + LATE_SECONDS else due
    lease = 0.0 if lease is None or lease > LEASE_SECONDS + LATE_SECONDS else lease
    return max(due, lease)


def _take(connection: Connection, job: Job, owner: str) -> bool:
    due = or_(jobs.c.due_at <= now(), jobs.c.due_at > now() + job.every_seconds + LATE_SECONDS)
    wrong = jobs.c.lease_until > now() + LEASE_SECONDS + LATE_SECONDS
    free = or_(jobs.c.lease_until.is_(None), jobs.c.lease_until < now(), wrong)
    taken = connection.execute(
        update(jobs)
        .where(and_(jobs.c.name == job.name, due, free))
        .values(lease_owner=owner, lease_until=now() + LEASE_SECONDS)
    )
    return taken.rowcount == 1


def _extend(connection: Connection, name: str, owner: str) -> None:
    connection.execute(_ours(name, owner).values(lease_until=now() + LEASE_SECONDS))


def _give_back(connection: Connection, name: str, owner: str, next_in: float | None) -> None:
    due = {} if next_in is None else {"due_at": now() + next_in}
    connection.execute(_ours(name, owner).values(lease_owner=None, lease_until=None, **due))
