"""A timed job runs when it is due, once in an installation, and again after whatever went wrong."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import select, text

from server.db import Database
from server.db.tables import jobs, now
from server.jobs import schedule
from server.jobs.schedule import Job, Schedule
from tests.conftest import eventually
from tests.metrics.conftest import value
from tests.outbox.conftest import opened

HOUR = 3600.0
FOREVER = 10**9


class Work:
    """A job that writes down that it ran; `does` is what it does then."""

    def __init__(self, does: Callable[[asyncio.Event], Awaitable[None]] | None = None) -> None:
        self.runs = 0
        self._does = does

    async def __call__(self, closing: asyncio.Event) -> None:
        self.runs += 1
        if self._does is not None:
            await self._does(closing)

    def job(self, every: float = HOUR) -> Job:
        return Job("purge", every, self)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "POLL_SECONDS", 0.05)


@asynccontextmanager
async def running(database: Database, *jobs: Job) -> AsyncIterator[Schedule]:
    made = Schedule(database, jobs)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def change(database: Database, values: str) -> None:
    await database.transact(lambda connection: connection.execute(text(f"UPDATE jobs SET {values}")))


async def row(database: Database) -> Any:
    query = select(jobs, (jobs.c.due_at - now()).label("due_in")).where(jobs.c.name == "purge")
    return await database.read(lambda connection: connection.execute(query).one())


async def looked_some_times() -> None:
    """As long as several looks at the table take."""
    await asyncio.sleep(0.3)


async def given_back(database: Database) -> bool:
    found = await row(database)
    return found.lease_owner is None and found.due_in > 0


async def test_due_job_runs_once_and_is_due_again_later(database: Database) -> None:
    work = Work()
    async with running(database, work.job()):
        await eventually(lambda: given_back(database))
        await looked_some_times()
    assert work.runs == 1
    assert HOUR - 60 < (await row(database)).due_in <= HOUR


async def test_job_runs_each_time_that_it_is_due(database: Database) -> None:
    work = Work()
    async with running(database, work.job(every=0.05)):
        await eventually(lambda: work.runs >= 3)


async def test_what_is_not_due_does_not_run(database: Database) -> None:
    await change(database, f"due_at = {time.time() + HOUR / 2}")
    work = Work()
    async with running(database, work.job()):
        await looked_some_times()
    assert work.runs == 0


async def test_job_without_a_row_does_not_run(database: Database) -> None:
    work = Work()
    async with running(database, Job("unheard of", HOUR, work)):
        await looked_some_times()
    assert work.runs == 0


async def test_several_processes_run_it_once(database_url: str, database: Database) -> None:
    async with opened(database_url) as other:
        works = [Work(lambda closing: asyncio.sleep(0.2)) for _ in range(4)]
        schedules = [Schedule(one, [work.job()]) for one, work in zip([database, other] * 2, works, strict=True)]
        for one in schedules:
            await one.open()
        await eventually(lambda: given_back(database))
        await looked_some_times()
        for one in schedules:
            await one.close()
    assert sum(work.runs for work in works) == 1


async def test_job_of_a_dead_process_is_taken_over_when_its_lease_has_run_out(database: Database) -> None:
    await change(database, f"lease_owner = 'dead', lease_until = {time.time() + 1}")
    work = Work()
    async with running(database, work.job()):
        await looked_some_times()
        assert work.runs == 0 or (await row(database)).lease_owner != "dead"
        await eventually(lambda: work.runs == 1)


async def test_long_job_keeps_its_lease(database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "LEASE_SECONDS", 3.0)
    done = asyncio.Event()

    async def until_done(closing: asyncio.Event) -> None:
        await done.wait()

    first, second = Work(until_done), Work()
    async with opened(database_url) as other, running(database, first.job()) as one:
        await eventually(lambda: first.runs == 1)
        async with running(other, second.job()):
            until = (await row(database)).lease_until

            async def outlived() -> bool:
                found = await row(database)
                assert found.lease_owner == one.owner
                return bool(found.lease_until > until + schedule.LEASE_SECONDS)

            await eventually(outlived)
            done.set()
            await eventually(lambda: given_back(database))
    assert second.runs == 0


async def test_clock_that_was_set_back_stops_nothing(database: Database) -> None:
    await change(database, f"due_at = {2 * FOREVER * 10}, lease_owner = 'dead', lease_until = {2 * FOREVER * 10}")
    work = Work()
    async with running(database, work.job()):
        await eventually(lambda: work.runs == 1)


async def test_job_that_fails_is_tried_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "RETRY_SECONDS", 0.05)

    async def fails(closing: asyncio.Event) -> None:
        raise ArithmeticError("one too many")

    work = Work(fails)
    async with running(database, work.job()):
        await eventually(lambda: work.runs >= 3)
    assert (await row(database)).lease_owner is None


async def test_job_that_fails_waits_a_while(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    async def fails(closing: asyncio.Event) -> None:
        raise ArithmeticError("one too many")

    work = Work(fails)
    async with running(database, work.job()):
        await eventually(lambda: given_back(database))
    assert work.runs == 1 and 0 < (await row(database)).due_in <= schedule.RETRY_SECONDS
    shown = "".join(capsys.readouterr())
    assert "jobs.failed" in shown and "one too many" in shown


@pytest.mark.parametrize("outcome", ["success", "failure"])
async def test_runs_are_counted_by_how_they_ended(database: Database, outcome: str) -> None:
    async def does(closing: asyncio.Event) -> None:
        if outcome == "failure":
            raise ArithmeticError("one too many")

    work = Work(does)
    async with running(database, work.job()):
        before = value("doorbell_job_runs_total", job="purge", outcome=outcome)  # there before the first run
        assert before is not None
        await eventually(lambda: given_back(database))
    assert value("doorbell_job_runs_total", job="purge", outcome=outcome) == before + 1


async def test_one_that_hangs_keeps_no_other_waiting(database: Database) -> None:
    await database.transact(
        lambda connection: connection.execute(text("INSERT INTO jobs (name, due_at) VALUES ('second', 0)"))
    )
    release = asyncio.Event()

    async def hangs(closing: asyncio.Event) -> None:
        await release.wait()

    slow, quick = Work(hangs), Work()
    async with running(database, slow.job(), Job("second", HOUR, quick)):
        await eventually(lambda: quick.runs == 1 and slow.runs == 1)
        release.set()


async def test_closing_waits_for_the_step_under_way_and_the_rest_is_still_due(database: Database) -> None:
    steps: list[str] = []
    begun = asyncio.Event()

    async def works(closing: asyncio.Event) -> None:
        begun.set()
        while not closing.is_set():
            steps.append("begin")
            await asyncio.sleep(0.05)
            steps.append("end")

    async with running(database, Work(works).job()):
        await begun.wait()
    assert steps and steps.count("begin") == steps.count("end")
    found = await row(database)
    assert found.due_in <= 0 and found.lease_owner is None


async def test_close_at_once(database: Database) -> None:
    work = Work()
    async with running(database, work.job()):
        pass
    async with running(database):
        pass
    assert (await row(database)).lease_owner is None


async def test_database_that_is_away_for_a_while(database: Database) -> None:
    def sql(statement: str) -> Callable[..., Any]:
        return lambda connection: connection.execute(text(statement))

    await database.transact(sql("ALTER TABLE jobs RENAME TO away"))
    work = Work()
    async with running(database, work.job()):
        await looked_some_times()
        assert work.runs == 0
        await database.transact(sql("ALTER TABLE away RENAME TO jobs"))
        await eventually(lambda: work.runs == 1)


async def test_whoever_waited_for_the_lock_sees_that_it_is_taken(database_url: str) -> None:
    """A statement's clock stands still while it waits, so what was written meanwhile lies further ahead than it may."""
    if database_url.startswith("sqlite"):
        return  # there nobody waits within a statement
    async with opened(database_url) as one, opened(database_url) as other:
        job = Work().job()
        has, go_on = asyncio.Event(), asyncio.Event()

        async def take_slowly() -> bool:
            async with one._engine._pool.begin() as connection:  # type: ignore[attr-defined]
                await connection.execute(select(jobs).with_for_update())
                has.set()
                await go_on.wait()
                return bool(await connection.run_sync(schedule._take, job, "A"))

        first = asyncio.create_task(take_slowly())
        await has.wait()
        second = asyncio.create_task(other.transact(schedule._take, job, "B"))
        await asyncio.sleep(0.3)
        go_on.set()
        assert (await first, await second) == (True, False)
