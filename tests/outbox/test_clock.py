"""Clocks that jump, and a relay that is away for a day: the database's times are moved, as if the clock had been.

A clock that is set back by a day is the same as times that all lie a day later.
"""

import pytest

from server.db import Database
from server.outbox import dispatcher, fairness, retry, store
from tests.conftest import eventually
from tests.outbox.conftest import add, office, rows, run
from tests.smtpd import Smtpd, close, reply

DAY = 86400.0


async def jump(database: Database, seconds: float) -> None:
    """The clock is moved by so much: forward, so that all times lie further back; or back."""
    for column in ("due_at", "created_at", "lease_until"):
        await run(database, f"UPDATE outbox SET {column} = {column} - :by", by=seconds)


@pytest.mark.parametrize("seconds", [-DAY, -3600, -1, 1, 3600, DAY, 365 * DAY])
async def test_mail_that_waits_goes_after_a_jump(
    database: Database, smtpd: Smtpd, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "POLL_SECONDS", 0.05)
    await add(database, "a@x.example", "b@x.example")
    await jump(database, seconds)
    async with office(database, smtpd) as one:
        await eventually(lambda: one.all_are("sent"))


@pytest.mark.parametrize("seconds", [-DAY, DAY])
async def test_lease_of_the_dead_is_taken_over_after_a_jump(
    database: Database, smtpd: Smtpd, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "POLL_SECONDS", 0.05)
    await add(database, "a@x.example")
    await database.transact(store.claim, "dead", 1, dispatcher.LEASE_SECONDS)
    await jump(database, seconds)
    async with office(database, smtpd) as one:
        await eventually(lambda: one.all_are("sent"))


@pytest.mark.parametrize("seconds", [-DAY, -3600, -20])
async def test_retry_is_never_further_away_than_the_longest_after_a_jump_back(
    database: Database, seconds: float
) -> None:
    await add(database, "a@x.example")
    [row] = await database.transact(store.claim, "A", 1, 15.0)
    later = store.Settlement(row.id, "A", store.Outcome.DEFERRED, "450 later", 0.1, retry.LONGEST_SECONDS)
    await database.join(store.settle, later)
    await jump(database, seconds)
    await database.transact(store.mend_times, 15.0, retry.FARTHEST_SECONDS)
    due = await database.read(store.next_due)
    assert due is not None and due <= retry.FARTHEST_SECONDS


async def test_mending_leaves_alone_what_is_in_order(database: Database) -> None:
    await add(database, "a@x.example", "b@x.example", "c@x.example")
    first, second = await database.transact(store.claim, "A", 2, 15.0)
    later = store.Settlement(first.id, "A", store.Outcome.DEFERRED, "450 later", 0.1, 3000.0)
    await database.join(store.settle, later)
    before = await rows(database)
    await database.transact(store.mend_times, 15.0, retry.FARTHEST_SECONDS)
    assert await rows(database) == before
    assert (before[second.id - 1].lease_owner, before[first.id - 1].attempts) == ("A", 1)


async def test_clock_that_jumps_while_mail_is_on_its_way(database: Database, smtpd: Smtpd) -> None:
    """Our own lease seems to have run out: the mail is not sent a second time beside itself."""
    smtpd.on("rcpt", reply(250, "ok"))
    everybody = [f"a@{number}.example" for number in range(30)]
    await add(database, *everybody)
    async with office(database, smtpd) as one:
        await eventually(lambda: len(smtpd.mails) >= 5)
        for seconds in (DAY, -DAY, DAY):
            await jump(database, seconds)
            one.dispatcher.wake()
        await eventually(lambda: one.all_are("sent"))
    assert one.arrived() == sorted(everybody)


async def test_relay_that_is_away_for_a_day_costs_nothing_but_time(
    database: Database, smtpd: Smtpd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "POLL_SECONDS", 0.05)
    rule = smtpd.on("greeting", close)
    everybody = [f"a@{number}.example" for number in range(10)]
    async with office(database, smtpd) as one:
        for hour in range(24):
            if hour < 10:
                await one.post(everybody[hour])
            failures = one.dispatcher.breaker.failures
            await eventually(lambda before=failures: one.dispatcher.breaker.failures > before)
            await jump(database, 3600)
        assert {(row.state, row.attempts) for row in await rows(database)} == {("pending", 0)}
        smtpd.rules.remove(rule)
        await eventually(lambda: one.all_are("sent"))
    assert one.arrived() == everybody and {row.attempts for row in await rows(database)} == {1}
    assert smtpd.most_open <= 4


async def test_relay_that_defers_everything_for_a_day_fails_nothing(
    database: Database, smtpd: Smtpd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(fairness, "LONGEST_REST_SECONDS", 0.05)  # else a domain may begin to rest after the jump
    rule = smtpd.on("rcpt", reply(450, "4.3.0 not today"))
    everybody = [f"a@{number}.example" for number in range(4)]
    await add(database, *everybody)
    async with office(database, smtpd) as one:
        for tries in range(1, 9):
            await eventually(lambda least=4 * tries: smtpd.commands["RCPT"] >= least)
            await eventually(lambda: _all_settled(database))
            await jump(database, 3 * 3600 + 1800)
            one.dispatcher.wake()
        smtpd.rules.remove(rule)
        await jump(database, 6 * 3600)
        await eventually(lambda: one.all_are("sent"))
    assert len(smtpd.mails) == 4


async def _all_settled(database: Database) -> bool:
    return all(row.lease_owner is None for row in await rows(database))
