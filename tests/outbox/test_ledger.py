"""What an operator sees is what is there, and what he does touches nothing else."""

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, event, text

from server.db import Database
from server.outbox import ledger, store
from server.outbox.ledger import Filter, Purged, State, Verdict
from server.outbox.store import Outcome, Settlement
from tests.conftest import ON_SQLITE
from tests.outbox.conftest import mail, opened

DAY = 86400.0

# How a row is in each state, for SQL.
ROWS: dict[State, str] = {
    State.NEW: "state = 'pending'",
    State.DEFERRED: "state = 'pending', outcome = 'deferred', attempts = 3, reply = '451 later', due_at = due_at + 999",
    State.HELD: "state = 'pending', outcome = 'held', reply = '535 who are you', due_at = due_at + 999",
    State.UNCERTAIN: "state = 'pending', outcome = 'uncertain', attempts = 1, uncertain = 1, due_at = due_at + 999",
    State.SENDING: "state = 'pending', outcome = 'deferred', lease_owner = 'A', lease_until = created_at + 999",
    State.AWAITING: "state = 'awaiting'",
    State.SENT: "state = 'sent', outcome = 'sent', attempts = 1, reply = '250 ok', settled_at = created_at",
    State.FAILED: "state = 'failed', outcome = 'failed', attempts = 12, reply = '550 no', settled_at = created_at",
    State.CANCELLED: "state = 'cancelled', outcome = 'deferred', attempts = 2, settled_at = created_at",
    State.SUPPRESSED: "state = 'suppressed', settled_at = created_at",
}
ENDED = [state for state in State if state not in ledger.PENDING | {State.AWAITING}]


async def run(database: Database, sql: str, **values: Any) -> None:
    await database.transact(lambda connection: connection.execute(text(sql), values))


async def query(database: Database, sql: str) -> list[Any]:
    return await database.read(lambda connection: list(connection.execute(text(sql))))


async def add(
    database: Database,
    state: State = State.NEW,
    recipient: str = "a@there.example",
    site: str = "bikes",
    kind: str = "welcome",
) -> int:
    """A mail in this state; answers its id."""
    one = store.Mail(kind, mail(recipient), to_visitor=kind == "welcome")
    [id] = await database.transact(store.add, [store.Addressed(site, None, one)])
    await run(database, f"UPDATE outbox SET {ROWS[state]} WHERE id = :id", id=id)
    return id


async def states(database: Database) -> dict[int, State]:
    return {entry.id: entry.state for entry in await database.read(ledger.find, Filter(), None)}


async def find(database: Database, limit: int | None = None, **parts: Any) -> list[int]:
    return [entry.id for entry in await database.read(ledger.find, Filter(**parts), limit)]


async def claim(database: Database) -> list[int]:
    return [row.id for row in await database.transact(store.claim, "B", 100, 60.0)]


async def texts(database: Database) -> list[int]:
    return [row.outbox_id for row in await query(database, "SELECT outbox_id FROM messages ORDER BY outbox_id")]


# -- finding -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
async def test_each_state_has_its_word(database: Database, state: State) -> None:
    id = await add(database, state)
    assert await states(database) == {id: state}
    for other in State:
        assert await find(database, states=frozenset({other})) == ([id] if other is state else [])


async def test_lease_that_ran_out_is_not_sending(database: Database) -> None:
    id = await add(database, State.SENDING)
    await run(database, "UPDATE outbox SET lease_until = created_at - 1")
    assert await states(database) == {id: State.DEFERRED}


async def test_newest_come_first_and_the_limit_is_kept(database: Database) -> None:
    ids = [await add(database) for _ in range(5)]
    assert await find(database) == ids[::-1]
    assert await find(database, limit=2) == [ids[4], ids[3]]
    assert await database.read(ledger.ids, Filter()) == ids


async def test_entry_tells_what_is_known(database: Database) -> None:
    await add(database, State.DEFERRED)
    [entry] = await database.read(ledger.find, Filter(), 10)
    assert (entry.site, entry.kind, entry.sender, entry.recipient) == (
        "bikes",
        "welcome",
        "site@here.example",
        "a@there.example",
    )
    assert (entry.attempts, entry.reply, entry.settled_at) == (3, "451 later", None)
    assert 0 <= entry.read_at - entry.created_at < 60 and 900 < entry.due_at - entry.read_at < 1000


async def test_address_is_found_whatever_its_capitals(database: Database) -> None:
    id = await add(database, recipient="Ann@There.example")
    await add(database, recipient="other@there.example")
    assert await find(database, recipient="ann@there.EXAMPLE") == [id]


async def test_since_counts_from_when_a_mail_was_written(database: Database) -> None:
    old, new = await add(database), await add(database)
    await run(database, "UPDATE outbox SET created_at = created_at - 1000 WHERE id = :id", id=old)
    assert await find(database, since=time.time() - 500) == [new]
    assert await find(database, since=time.time() - 1500) == [new, old]


SITES, KINDS, RECIPIENTS = ("bikes", "lamps"), ("welcome", "notice"), ("a@x.example", "b@x.example")


def or_none(values: Any) -> st.SearchStrategy[Any]:
    return st.none() | st.sampled_from(values)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wanted=st.builds(
        Filter,
        st.frozensets(st.sampled_from(State), max_size=3),
        or_none(SITES),
        or_none(KINDS),
        or_none(RECIPIENTS),
    )
)
async def test_filter_finds_what_has_every_part(database_url: str, wanted: Filter) -> None:
    async with opened(database_url) as database:
        if not await states(database):
            for number in range(len(State) * 8):
                state = list(State)[number % len(State)]
                await add(database, state, RECIPIENTS[number & 1], SITES[number >> 1 & 1], KINDS[number >> 2 & 1])
        everything = await database.read(ledger.find, Filter(), None)
        expected = [
            entry.id
            for entry in everything
            if (not wanted.states or entry.state in wanted.states)
            and all(
                part in (None, found)
                for part, found in (
                    (wanted.site, entry.site),
                    (wanted.kind, entry.kind),
                    (wanted.recipient, entry.recipient),
                )
            )
        ]
        assert [entry.id for entry in await database.read(ledger.find, wanted, None)] == expected
        assert await database.read(ledger.ids, wanted) == expected[::-1]


@ON_SQLITE
@pytest.mark.parametrize(
    "wanted",
    [Filter(), Filter(frozenset({State.SENT})), Filter(ledger.WAITING, "bikes", "welcome", "a@x.example", 1.0)],
)
async def test_list_walks_down_the_ids_and_sorts_nothing(database: Database, wanted: Filter) -> None:
    """On a million rows the newest are found at once, whatever the filter: nothing is gathered before."""

    def plan(connection: Connection) -> list[str]:
        asked: list[tuple[str, Any]] = []
        event.listen(connection, "before_cursor_execute", lambda *call: asked.append((call[2], call[3])))
        ledger.find(connection, wanted, 50)
        statement, values = asked[0]
        return [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]

    assert await database.read(plan) == ["SCAN outbox"]


@ON_SQLITE
async def test_depth_is_counted_from_the_index_alone_where_mails_have_ended(database: Database) -> None:
    plan = await query(database, f"EXPLAIN QUERY PLAN {store._ENDED.compile(compile_kwargs={'literal_binds': True})}")
    assert all("COVERING INDEX" in row.detail for row in plan)
    for state in State:
        await add(database, state)
    named = {state.value: 1 for state in State if state is not State.SENDING}
    assert await database.read(store.depth) == named | {"deferred": 2}


# -- showing -----------------------------------------------------------------------------------------------------------


async def test_mail_is_shown_with_its_attempts_and_its_message(database: Database) -> None:
    id = await add(database)
    for outcome, reply, pause in ((Outcome.DEFERRED, "451 later", 0.0), (Outcome.FAILED, "550 no such user", None)):
        assert await claim(database) == [id]
        settlement = Settlement(id, "B", outcome, reply, 0.25, pause, suppress=outcome is Outcome.FAILED)
        assert await database.transact(store.settle, [settlement]) == [True]
    account = await database.read(ledger.show, id)
    assert account is not None
    assert account.entry.state is State.FAILED
    assert [(one.outcome, one.reply, one.seconds) for one in account.attempts] == [
        ("deferred", "451 later", 0.25),
        ("failed", "550 no such user", 0.25),
    ]
    assert account.suppressed == "bounced"
    assert account.message is not None and account.message.startswith(b"From: site@here.example\r\n")


async def test_purged_message_is_shown_as_none(database: Database) -> None:
    id = await add(database, State.SENT)
    await run(database, "DELETE FROM messages")
    account = await database.read(ledger.show, id)
    assert account is not None and account.message is None and account.attempts == []


async def test_mail_that_is_not_there(database: Database) -> None:
    assert await database.read(ledger.show, 7) is None


# -- retrying ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [*sorted(ledger.WAITING), State.FAILED, State.CANCELLED, State.SUPPRESSED])
async def test_retried_mail_is_due_now(database: Database, state: State) -> None:
    id = await add(database, state)
    assert await database.transact(ledger.retry, [id]) == [Verdict(id)]
    assert await claim(database) == [id]


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED, State.SUPPRESSED])
async def test_what_had_ended_begins_anew(database: Database, state: State) -> None:
    """With its old count the first "later" of a server would be the last."""
    id = await add(database, state)
    await database.transact(ledger.retry, [id])
    [row] = await query(database, "SELECT state, attempts, outcome, reply, settled_at FROM outbox")
    assert tuple(row) == ("pending", 0, None, None, None)
    assert await states(database) == {id: State.NEW}


@pytest.mark.parametrize("state", sorted(ledger.WAITING))
async def test_what_waits_keeps_its_past(database: Database, state: State) -> None:
    id = await add(database, state)
    [before] = await query(database, "SELECT attempts, uncertain, outcome, reply FROM outbox")
    await database.transact(ledger.retry, [id])
    assert await query(database, "SELECT attempts, uncertain, outcome, reply FROM outbox") == [before]
    assert await states(database) == {id: state}


@pytest.mark.parametrize(("state", "reason"), [(State.SENT, "it was sent"), (State.SENDING, "being sent just now")])
async def test_retry_leaves_what_is_out_of_reach(database: Database, state: State, reason: str) -> None:
    await add(database, state)
    before = await query(database, "SELECT * FROM outbox")
    [verdict] = await database.transact(ledger.retry, [1])
    assert verdict.refusal is not None and reason in verdict.refusal
    assert await query(database, "SELECT * FROM outbox") == before


async def test_purged_mail_cannot_be_retried(database: Database) -> None:
    id = await add(database, State.FAILED)
    await run(database, "DELETE FROM messages")
    [verdict] = await database.transact(ledger.retry, [id])
    assert verdict.refusal is not None and "purged" in verdict.refusal
    assert await states(database) == {id: State.FAILED}


async def test_each_is_judged_alone_and_told_in_the_order_asked(database: Database) -> None:
    sent, failed, new = [await add(database, state) for state in (State.SENT, State.FAILED, State.NEW)]
    verdicts = await database.transact(ledger.retry, [99, failed, sent, failed, new])
    assert [(verdict.id, verdict.refusal) for verdict in verdicts] == [
        (99, "there is no such mail"),
        (failed, None),
        (sent, "it was sent"),
        (new, None),
    ]


async def test_retry_lifts_the_suppression_of_its_recipient_alone(database: Database) -> None:
    id = await add(database, State.SUPPRESSED, "Ann@there.example")
    for address in ("ann@there.example", "bob@there.example"):
        await database.transact(store.suppress, store.recipient_hash(address), "bounced", "550 no such user")
    await database.transact(ledger.retry, [id])
    [left] = await query(database, "SELECT recipient_hash FROM suppressions")
    assert left.recipient_hash == store.recipient_hash("bob@there.example")
    assert await claim(database) == [id]


async def test_retry_does_not_lift_what_a_recipient_asked_for(database: Database) -> None:
    id = await add(database, State.SUPPRESSED)
    await database.transact(store.suppress, store.recipient_hash("a@there.example"), "unsubscribed")
    await database.transact(ledger.retry, [id])
    assert await claim(database) == []
    assert await states(database) == {id: State.SUPPRESSED}


async def test_refused_retry_lifts_nothing(database: Database) -> None:
    id = await add(database, State.SENT)
    await database.transact(store.suppress, store.recipient_hash("a@there.example"), "bounced")
    await database.transact(ledger.retry, [id])
    assert len(await query(database, "SELECT * FROM suppressions")) == 1


# -- cancelling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(ledger.WAITING))
async def test_cancelled_mail_is_never_sent(database: Database, state: State) -> None:
    id = await add(database, state)
    assert await database.transact(ledger.cancel, [id]) == [Verdict(id)]
    await run(database, "UPDATE outbox SET due_at = 0")
    assert await claim(database) == []
    assert await states(database) == {id: State.CANCELLED}
    [row] = await query(database, "SELECT settled_at, created_at FROM outbox")
    assert row.settled_at >= row.created_at


@pytest.mark.parametrize("state", [State.SENDING, *sorted(ENDED)])
async def test_cancel_leaves_what_is_on_its_way_or_has_ended(database: Database, state: State) -> None:
    await add(database, state)
    before = await query(database, "SELECT * FROM outbox")
    [verdict] = await database.transact(ledger.cancel, [1])
    assert verdict.refusal is not None
    assert await query(database, "SELECT * FROM outbox") == before


async def test_mail_whose_sender_died_can_be_cancelled(database: Database) -> None:
    id = await add(database, State.SENDING)
    await run(database, "UPDATE outbox SET lease_until = created_at - 1")
    assert await database.transact(ledger.cancel, [id]) == [Verdict(id)]
    late = Settlement(id, "A", Outcome.DEFERRED, "451 later", 1.0, 60.0)
    assert await database.transact(store.settle, [late]) == [False]
    assert await states(database) == {id: State.CANCELLED}


async def test_cancel_and_retry_take_each_other_back(database: Database) -> None:
    id = await add(database)
    await database.transact(ledger.cancel, [id])
    await database.transact(ledger.retry, [id])
    assert await claim(database) == [id]


# -- purging -----------------------------------------------------------------------------------------------------------


async def purge(database: Database, days: float, limit: int = 200) -> list[Purged]:
    """Every step of a whole purge."""
    steps = [await database.transact(ledger.purge, days * DAY, 0, limit)]
    while (after := steps[-1].after) is not None:
        steps.append(await database.transact(ledger.purge, days * DAY, after, limit))
    return steps


async def age(database: Database, id: int, days: float) -> None:
    change = "created_at = created_at - :s, settled_at = settled_at - :s"
    await run(database, f"UPDATE outbox SET {change} WHERE id = :id", s=days * DAY, id=id)


@pytest.mark.parametrize("state", State)
async def test_only_what_has_ended_long_ago_is_purged(database: Database, state: State) -> None:
    old, young = await add(database, state), await add(database, state)
    await age(database, old, 31)
    await age(database, young, 29)
    before = await query(database, "SELECT * FROM outbox")
    [step] = await purge(database, 30)
    assert step.count == (1 if state in ENDED else 0)
    assert await texts(database) == ([young] if state in ENDED else [old, young])
    assert await query(database, "SELECT * FROM outbox") == before


async def test_old_mail_that_ended_lately_is_kept(database: Database) -> None:
    id = await add(database, State.SENT)
    await run(database, "UPDATE outbox SET created_at = created_at - :s", s=100 * DAY)
    assert [step.count for step in await purge(database, 30)] == [0]
    assert await texts(database) == [id]


async def test_purge_ends_where_all_that_follows_is_young(database: Database) -> None:
    for days in (40, 40, 40, 1, 1, 1, 1, 1):
        await age(database, await add(database, State.SENT), days)
    assert await purge(database, 30, limit=2) == [Purged(2, 2), Purged(1, 4), Purged(0, None)]
    assert await database.read(ledger.purgeable, 30 * DAY) == 0


async def test_purge_of_nothing(database: Database) -> None:
    assert await purge(database, 0) == [Purged(0, None)]
    assert await database.read(ledger.purgeable, 0.0) == 0


async def test_signups_are_never_purged(database: Database) -> None:
    await run(
        database,
        "INSERT INTO signups (id, site, email, fields, created_at) VALUES (7, 'bikes', 'a@there.example', '{}', 1)",
    )
    id = await add(database, State.SENT)
    await run(database, "UPDATE outbox SET signup_id = 7")
    await age(database, id, 1000)
    assert [step.count for step in await purge(database, 30)] == [1]
    assert len(await query(database, "SELECT * FROM signups")) == 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.sampled_from(State), st.integers(0, 60)), max_size=12),
    limit=st.integers(1, 5),
)
async def test_purge_in_steps_removes_what_one_would(
    database_url: str, rows: list[tuple[State, int]], limit: int
) -> None:
    async with opened(database_url) as database:
        await run(database, "DELETE FROM outbox")
        ids = []
        # Written one after the other: the first is the oldest.
        for state, days in sorted(rows, key=lambda row: -row[1]):
            ids.append(await add(database, state))
            await age(database, ids[-1], days + 0.5)
        kept = [
            id
            for id, (state, days) in zip(ids, sorted(rows, key=lambda row: -row[1]), strict=True)
            if state not in ENDED or days < 30
        ]
        assert await database.read(ledger.purgeable, 30 * DAY) == len(ids) - len(kept)
        steps = await purge(database, 30, limit)
        assert sum(step.count for step in steps) == len(ids) - len(kept)
        assert await texts(database) == kept
