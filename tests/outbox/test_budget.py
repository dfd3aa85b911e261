"""The mail budget: never more in an hour, over all processes; what waits is not lost."""

import pytest

from server.db import Database
from server.outbox import budget, store
from server.outbox.store import Outcome, Settlement
from tests.conftest import eventually
from tests.outbox.conftest import add, office, run
from tests.smtpd import Smtpd


async def claim(database: Database, owner: str, limit: int = 10, most: int = 5) -> list[int]:
    return [row.id for row in await database.transact(store.claim, owner, limit, 60.0, (), most)]


async def left(database: Database) -> int:
    return await database.transact(budget.left, 5)


async def test_claims_of_all_processes_together_stay_within_it(database: Database) -> None:
    await add(database, *(f"v{n}@example.com" for n in range(9)))
    assert [len(await claim(database, owner, 3)) for owner in "ABC"] == [3, 2, 0]
    wait = await database.read(store.next_due, (), 5)
    assert wait is not None and 3590 < wait <= 3600


async def test_window_ends_and_all_go(database: Database) -> None:
    await add(database, *(f"v{n}@example.com" for n in range(9)))
    await claim(database, "A")
    await run(database, "UPDATE counters SET until = until - 3600")
    assert len(await claim(database, "B")) == 4


async def test_clock_set_back_is_no_longer_a_window(database: Database) -> None:
    await add(database, *(f"v{n}@example.com" for n in range(9)))
    await claim(database, "A")
    await run(database, "UPDATE counters SET until = until + 7200")
    assert len(await claim(database, "B")) == 4


async def test_rows_that_are_given_back_cost_nothing(database: Database) -> None:
    await add(database, *(f"v{n}@example.com" for n in range(9)))
    claimed = await claim(database, "A")
    await database.transact(store.release, "A", claimed[:2])
    assert await left(database) == 2
    await database.transact(store.release, "A")
    assert await left(database) == 5


@pytest.mark.parametrize(("outcome", "back"), [(Outcome.HELD, 1), (Outcome.SENT, 0), (Outcome.DEFERRED, 0)])
async def test_only_what_never_reached_the_relay_costs_nothing(database: Database, outcome: Outcome, back: int) -> None:
    await add(database, "a@example.com", "b@example.com")
    claimed = await claim(database, "A")
    await database.transact(store.settle, [Settlement(claimed[0], "A", outcome, "said", 0.1, 60.0)])
    assert await left(database) == 3 + back


async def test_what_is_given_back_late_makes_no_more_than_there_is(database: Database) -> None:
    await database.transact(budget.take, 1)
    await database.transact(budget.give_back, 7)
    assert await left(database) == 5


async def test_suppressed_mails_cost_nothing(database: Database) -> None:
    await add(database, "a@example.com", "b@example.com")
    await database.transact(store.suppress, store.recipient_hash("a@example.com"), "bounced")
    assert len(await claim(database, "A")) == 1
    assert await left(database) == 4


async def test_dispatcher_sends_so_many_and_the_rest_when_the_window_is_over(
    database: Database, smtpd: Smtpd, impatient: None
) -> None:
    async with office(database, smtpd, budget=3) as sending:
        await sending.post(*(f"v{n}@example.com" for n in range(5)))
        await eventually(lambda: len(smtpd.mails) == 3)
        await eventually(lambda: sending.dispatcher.in_flight == 0)
        assert sorted(await sending.states()) == ["pending"] * 2 + ["sent"] * 3
        await run(database, "UPDATE counters SET until = until - 3600")
        await eventually(lambda: len(smtpd.mails) == 5)
    assert sending.arrived() == sorted(f"v{n}@example.com" for n in range(5))
