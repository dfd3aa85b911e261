"""Rows: claimed by one owner at a time, settled by nobody else, and none ever forgotten."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from server.db import Database
from server.mail.message import Message
from server.outbox import store
from server.outbox.store import Claimed, Outcome, Settlement
from tests.outbox.conftest import add, mail, opened, rows, run

LEASE = 60.0


async def claim(database: Database, owner: str = "A", limit: int = 10, lease: float = LEASE) -> list[Claimed]:
    return await database.transact(store.claim, owner, limit, lease)


async def settle(database: Database, owner: str, id: int, outcome: Outcome, retry_in: float | None = None) -> bool:
    return await database.join(store.settle, Settlement(id, owner, outcome, "250 ok", 0.5, retry_in))


def addressed(message: Message) -> store.Addressed:
    return store.Addressed("bikes", None, store.Mail("welcome", message, to_visitor=True))


async def expire(database: Database) -> None:
    """Every lease has run out: the owners died."""
    await run(database, "UPDATE outbox SET lease_until = lease_until - 1000000 WHERE lease_until IS NOT NULL")


async def next_due(database: Database) -> float | None:
    return await database.transact(store.next_due)


# -- adding ------------------------------------------------------------------------------------------------------------


async def test_added_mail_is_pending_and_due(database: Database) -> None:
    message = mail("a@there.example")
    await database.transact(store.add, [addressed(message)])
    [row] = await rows(database)
    assert (row.state, row.attempts, row.uncertain, row.outcome, row.lease_owner) == ("pending", 0, 0, None, None)
    [claimed] = await claim(database)
    assert (claimed.site, claimed.kind, claimed.attempts) == ("bikes", "welcome", 0)
    assert (claimed.sender, claimed.recipient) == (message.sender, message.recipient)
    assert claimed.message == message.data and 0 <= claimed.age_seconds < 60


async def test_no_mails_are_no_rows(database: Database) -> None:
    await add(database)
    assert await rows(database) == []


async def test_same_message_cannot_be_added_twice(database: Database) -> None:
    message = mail("a@there.example")
    with pytest.raises(IntegrityError):
        await database.transact(store.add, [addressed(message), addressed(message)])
    assert await rows(database) == []


# -- claiming ----------------------------------------------------------------------------------------------------------


async def test_claimed_row_is_nobody_elses(database: Database) -> None:
    await add(database, "a@x.example", "b@x.example")
    assert len(await claim(database, "A", limit=1)) == 1
    [second] = await claim(database, "B")
    assert second.recipient == "b@x.example"
    assert await claim(database, "A") == await claim(database, "B") == []


async def test_limit_is_kept_and_the_oldest_due_come_first(database: Database) -> None:
    await add(database, *(f"{number}@x.example" for number in range(5)))
    await run(database, "UPDATE outbox SET due_at = due_at - 100 WHERE recipient IN ('3@x.example', '1@x.example')")
    assert {row.recipient for row in await claim(database, limit=2)} == {"1@x.example", "3@x.example"}
    assert [row.recipient for row in await claim(database)] == ["0@x.example", "2@x.example", "4@x.example"]


async def test_what_is_not_due_is_not_claimed(database: Database) -> None:
    await add(database, "a@x.example")
    await run(database, "UPDATE outbox SET due_at = due_at + 100")
    assert await claim(database) == []


@pytest.mark.parametrize("state", ["sent", "failed"])
async def test_what_has_ended_is_not_claimed(database: Database, state: str) -> None:
    await add(database, "a@x.example")
    await run(database, "UPDATE outbox SET state = :state", state=state)
    assert await claim(database) == []
    assert await next_due(database) is None


async def test_lease_of_a_dead_owner_is_taken_over(database: Database) -> None:
    await add(database, "a@x.example")
    [first] = await claim(database, "A")
    await expire(database)
    [second] = await claim(database, "B")
    assert second.id == first.id
    assert not await settle(database, "A", first.id, Outcome.FAILED)
    assert (await rows(database))[0].state == "pending"
    assert await settle(database, "B", first.id, Outcome.SENT)


async def test_renewed_lease_is_not_taken_over(database: Database) -> None:
    await add(database, "a@x.example", "b@x.example")
    first, _ = await claim(database, "A")
    await expire(database)
    assert await database.transact(store.renew, "A", [first.id], LEASE) == [first.id]
    assert await database.transact(store.renew, "B", [first.id], LEASE) == []  # nothing of B's
    assert [row.recipient for row in await claim(database, "B")] == ["b@x.example"]
    assert await settle(database, "A", first.id, Outcome.SENT)


async def test_released_rows_are_free_and_those_of_others_are_not(database: Database) -> None:
    await add(database, "a@x.example", "b@x.example")
    await claim(database, "A", limit=1)
    await claim(database, "B", limit=1)
    await database.transact(store.release, "A")
    assert [row.recipient for row in await claim(database, "C")] == ["a@x.example"]


async def test_many_owners_at_once_share_without_overlap(database_url: str) -> None:
    async with opened(database_url) as first, opened(database_url) as second:
        await add(first, *(f"{number}@x.example" for number in range(40)))
        claims = [claim(database, f"{owner}", limit=3) for owner in range(8) for database in (first, second)]
        taken = [row.id for claimed in await asyncio.gather(*claims) for row in claimed]
    assert len(taken) == len(set(taken)) == 40


# -- settling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "retry_in", "state", "attempts", "uncertain"),
    [
        (Outcome.SENT, None, "sent", 1, 0),
        (Outcome.FAILED, None, "failed", 1, 0),
        (Outcome.DEFERRED, 100.0, "pending", 1, 0),
        (Outcome.UNCERTAIN, 100.0, "pending", 1, 1),
        (Outcome.HELD, 100.0, "pending", 0, 0),
        (Outcome.HELD, None, "pending", 0, 0),
    ],
)
async def test_settled_row_tells_how_it_ended(
    database: Database, outcome: Outcome, retry_in: float | None, state: str, attempts: int, uncertain: int
) -> None:
    await add(database, "a@x.example")
    [claimed] = await claim(database)
    assert await settle(database, "A", claimed.id, outcome, retry_in)
    [row] = await rows(database)
    assert (row.state, row.outcome, row.attempts, row.uncertain) == (state, outcome, attempts, uncertain)
    assert (row.reply, row.lease_owner, row.lease_until) == ("250 ok", None, None)
    assert (row.settled_at is not None) == (state != "pending")
    due = await next_due(database)
    if retry_in is not None:
        assert due is not None and 90 < due <= 100
    else:
        assert (due is not None and due <= 0) if state == "pending" else due is None


async def test_row_is_settled_once(database: Database) -> None:
    await add(database, "a@x.example")
    [claimed] = await claim(database)
    assert await settle(database, "A", claimed.id, Outcome.SENT)
    assert not await settle(database, "A", claimed.id, Outcome.FAILED)
    assert (await rows(database))[0].state == "sent"


async def test_stranger_cannot_settle(database: Database) -> None:
    await add(database, "a@x.example")
    [claimed] = await claim(database, "A")
    for outcome in (Outcome.FAILED, Outcome.DEFERRED, Outcome.HELD, Outcome.UNCERTAIN):
        assert not await settle(database, "B", claimed.id, outcome)
    assert await settle(database, "A", claimed.id, Outcome.SENT)


async def test_accepted_mail_is_sent_whoever_holds_its_row(database: Database) -> None:
    await add(database, "a@x.example", "b@x.example")
    first, second = await claim(database, "A")
    await expire(database)
    assert len(await claim(database, "B")) == 2
    assert await settle(database, "A", first.id, Outcome.SENT)  # late, and true
    assert not await settle(database, "B", first.id, Outcome.FAILED)
    assert await settle(database, "B", second.id, Outcome.FAILED)
    assert await settle(database, "A", second.id, Outcome.SENT)
    assert [row.state for row in await rows(database)] == ["sent", "sent"]


@pytest.mark.parametrize("outcome", [Outcome.SENT, Outcome.DEFERRED, Outcome.HELD, Outcome.FAILED])
async def test_attempt_that_is_told_again_counts_once(database: Database, outcome: Outcome) -> None:
    """As after a commit whose answer got lost."""
    await add(database, "a@x.example")
    [claimed] = await claim(database, "A")
    told = Settlement(claimed.id, "A", outcome, "250 ok", 0.123456789, None if outcome in store.FINAL else 0.0)
    assert await database.transact(store.settle, [told]) == [True]
    before = [tuple(row) for row in await rows(database)]
    assert await database.transact(store.settle, [replace(told, again=True)]) == [True]
    assert [tuple(row) for row in await rows(database)] == before
    logged = text("SELECT count(*) FROM attempts")
    assert await database.read(lambda connection: connection.execute(logged).scalar_one()) == 1


async def test_attempt_that_is_told_again_and_was_not_written_is_written(database: Database) -> None:
    await add(database, "a@x.example")
    [claimed] = await claim(database, "A")
    told = Settlement(claimed.id, "A", Outcome.SENT, "250 ok", 0.5, again=True)
    assert await database.transact(store.settle, [told]) == [True]
    assert [row.state for row in await rows(database)] == ["sent"]


async def test_row_that_is_gone_cannot_be_settled(database: Database) -> None:
    assert not await settle(database, "A", 7, Outcome.SENT)


# -- what waits --------------------------------------------------------------------------------------------------------


async def test_next_due_is_the_earliest_of_due_times_and_lease_ends(database: Database) -> None:
    assert await next_due(database) is None
    await add(database, "a@x.example", "b@x.example")
    due = await next_due(database)
    assert due is not None and due <= 0
    await claim(database, lease=40)
    due = await next_due(database)
    assert due is not None and 30 < due <= 40
    await run(database, "UPDATE outbox SET lease_until = NULL, due_at = due_at + 20 WHERE recipient = 'b@x.example'")
    due = await next_due(database)
    assert due is not None and 10 < due <= 20


async def test_backlog_counts_what_is_pending_and_its_age(database: Database) -> None:
    assert await database.read(store.backlog) == store.Backlog(0, None)
    await add(database, "a@x.example", "b@x.example", "c@x.example")
    await run(database, "UPDATE outbox SET created_at = created_at - 100 WHERE recipient = 'b@x.example'")
    await run(database, "UPDATE outbox SET state = 'sent' WHERE recipient = 'c@x.example'")
    backlog = await database.read(store.backlog)
    assert backlog.pending == 2
    assert backlog.oldest_seconds is not None and 100 <= backlog.oldest_seconds < 160


# -- whatever happens --------------------------------------------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("claim"), st.sampled_from("AB"), st.integers(1, 3)),
    st.tuples(st.just("settle"), st.sampled_from("AB"), st.sampled_from(list(Outcome))),
    st.tuples(st.sampled_from(["expire", "release"]), st.sampled_from("AB"), st.none()),
)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=25))
def test_every_row_ends_once_or_can_still_be_claimed(
    runner: asyncio.Runner, database_url: str, steps: list[tuple[str, str, int | Outcome | None]]
) -> None:
    async def live() -> None:
        async with opened(database_url) as database:
            await run(database, "DELETE FROM outbox")
            await add(database, "a@x.example", "b@x.example", "c@x.example")
            await follow(database, steps)

    runner.run(live())


async def follow(database: Database, steps: list[tuple[str, str, int | Outcome | None]]) -> None:
    held: dict[str, set[int]] = {"A": set(), "B": set()}  # what each believes to have; some of it is lost
    attempts = {row.id: 0 for row in await rows(database)}
    ended: set[int] = set()
    for step, owner, what in steps:
        if step == "claim" and isinstance(what, int):
            taken = {row.id for row in await claim(database, owner, what)}
            assert len(taken) <= what and not taken & ended
            held[owner] |= taken
        elif step == "settle" and isinstance(what, Outcome) and held[owner]:
            id = held[owner].pop()
            if await settle(database, owner, id, what, None if what in (Outcome.SENT, Outcome.FAILED) else 0.0):
                assert id not in ended
                attempts[id] += what is not Outcome.HELD
                ended |= {id} if what in (Outcome.SENT, Outcome.FAILED) else set()
        elif step == "expire":
            await expire(database)
        elif step == "release":
            await database.transact(store.release, owner)
    assert {row.id: row.attempts for row in await rows(database)} == attempts
    await expire(database)
    assert {row.id for row in await claim(database, "C")} == set(attempts) - ended
