"""The dispatcher with a real database, a real pool and a scripted relay: what becomes of each mail."""

import asyncio
import sqlite3
import time
from collections import Counter

import pytest

from server.db import Database
from server.mail.connection import Relay
from server.mail.errors import Held, Stage
from server.mail.pool import Limits, Pool
from server.outbox import dispatcher as module
from server.outbox import retry
from server.outbox.dispatcher import Dispatcher
from tests.conftest import ON_SQLITE, eventually
from tests.outbox.conftest import Office, add, locked, office, opened, rows, run
from tests.smtpd import (
    Act,
    Session,
    Smtpd,
    accept_silently,
    close,
    cut_after,
    farewell,
    hang,
    reply,
)

pytestmark = pytest.mark.usefixtures("impatient")


# -- outcomes ----------------------------------------------------------------------------------------------------------


async def test_accepted_mail_is_sent_once(database: Database, smtpd: Smtpd) -> None:
    async with office(database, smtpd) as one:
        await one.post("a@x.example")
        await eventually(lambda: one.all_are("sent"))
        [row] = await rows(database)
    assert (row.outcome, row.attempts, row.reply) == ("sent", 1, "250 kept as 1")
    [mail] = smtpd.mails
    assert (mail.sender, mail.recipients, mail.data) == ("site@here.example", ["a@x.example"], row.message)


async def test_what_waited_for_the_start_is_sent(database: Database, smtpd: Smtpd) -> None:
    await add(database, *(f"{number}@x.example" for number in range(20)))
    async with office(database, smtpd) as one:
        await eventually(lambda: one.all_are("sent"))
    assert len(smtpd.mails) == 20 and smtpd.connections <= 4


@pytest.mark.parametrize(("step", "code"), [("rcpt", 550), ("data", 554), ("dot", 554), ("mail", 552)])
async def test_refused_mail_has_failed_and_keeps_the_reply(
    database: Database, smtpd: Smtpd, step: str, code: int
) -> None:
    smtpd.on(step, reply(code, "no such user"), times=1)
    async with office(database, smtpd) as one:
        await one.post("a@x.example")
        await eventually(lambda: one.all_are("failed"))
        [row] = await rows(database)
        assert one.dispatcher.fault is None
    assert row.attempts == 1 and str(code) in row.reply and "no such user" in row.reply
    assert smtpd.mails == []


@pytest.mark.parametrize(
    ("step", "act"),
    [
        ("mail", reply(451)),
        ("rcpt", reply(450)),
        ("data", reply(451)),
        ("dot", reply(452)),
        ("rcpt", farewell()),
        ("rcpt", close),
        ("data", close),
    ],
)
async def test_deferred_mail_is_sent_later(database: Database, smtpd: Smtpd, step: str, act: Act) -> None:
    smtpd.on(step, act, times=2)
    async with office(database, smtpd) as one:
        await one.post("a@x.example")
        await eventually(lambda: one.all_are("sent"))
        [row] = await rows(database)
        assert not one.dispatcher.breaker.open
    assert (row.attempts, row.uncertain, one.arrived()) == (3, 0, ["a@x.example"])


@pytest.mark.parametrize("act", [close, farewell()])
async def test_idle_connection_that_closes_as_the_mail_begins_costs_it_nothing(
    database: Database, smtpd: Smtpd, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    monkeypatch.setattr(retry, "FIRST_SECONDS", 3600.0)
    smtpd.on("mail", act, when=lambda session: session.number == 1)  # the one that open() made
    async with office(database, smtpd) as one:
        await one.post("a@x.example")
        await eventually(lambda: one.all_are("sent"))
        [row] = await rows(database)
    assert row.attempts == 1 and smtpd.connections == 2


@pytest.mark.parametrize("act", [close, farewell()])
async def test_fresh_connection_that_closes_as_the_mail_begins_defers_it(
    database: Database, smtpd: Smtpd, act: Act
) -> None:
    smtpd.on("mail", act, times=4)
    async with office(database, smtpd, size=1) as one:
        await one.post("a@x.example")
        await eventually(lambda: one.all_are("sent"))
        [row] = await rows(database)
    assert row.attempts == 4  # only the first was on an idle one


@pytest.mark.parametrize("act", [accept_silently, close])
async def test_uncertain_mail_goes_again_with_the_same_message_id(database: Database, smtpd: Smtpd, act: Act) -> None:
    smtpd.on("dot", act, times=2)
    async with office(database, smtpd) as one:
        await one.post("a@x.example")
        await eventually(lambda: one.all_are("sent"))
        [row] = await rows(database)
    assert (row.attempts, row.uncertain) == (3, 2)
    assert len(smtpd.mails) == (3 if act is accept_silently else 1)
    assert {mail.data for mail in smtpd.mails} == {row.message}
    assert f"Message-ID: {row.message_id}\r\n".encode() in row.message


async def test_mail_cut_in_the_middle_goes_again(database: Database, smtpd: Smtpd) -> None:
    smtpd.on("body", cut_after(50), times=1)
    async with office(database, smtpd) as one:
        await one.post("a@x.example")
        await eventually(lambda: one.all_are("sent"))
        [row] = await rows(database)
    assert [mail.data for mail in smtpd.mails] == [row.message]


async def test_mail_is_given_up_after_its_days(database: Database, smtpd: Smtpd) -> None:
    smtpd.on("rcpt", reply(450, "later"))
    await add(database, "old@x.example")
    await run(database, "UPDATE outbox SET attempts = 25, created_at = created_at - 6 * 86400")
    async with office(database, smtpd) as one:
        await eventually(lambda: one.all_are("failed"))
        [row] = await rows(database)
    assert row.reply == "gave up after 26 attempts; the last: rcpt: 450 later"


async def test_mail_that_waited_for_a_relay_for_weeks_still_has_its_chances(database: Database, smtpd: Smtpd) -> None:
    smtpd.on("rcpt", reply(450, "greylisted"), times=2)
    await add(database, "old@x.example")
    await run(database, "UPDATE outbox SET created_at = created_at - 20 * 86400")
    async with office(database, smtpd) as one:
        await eventually(lambda: one.all_are("sent"))


async def test_one_bad_mail_does_not_hold_up_the_rest(database: Database, smtpd: Smtpd) -> None:
    await add(database, *(f"{number}@x.example" for number in range(10)))
    await run(database, "UPDATE messages SET data = :bytes WHERE outbox_id = 1", bytes=b"bare\nline\rbreaks")
    await run(database, "UPDATE outbox SET recipient = :address WHERE id = 2", address="nön-ascii@x.example")
    await run(database, "UPDATE messages SET data = :bytes WHERE outbox_id = 3", bytes=b"")
    async with office(database, smtpd, size=1) as one:
        await eventually(lambda: _ended(one))
    assert Counter(await one_states(database))["failed"] == 2
    assert len(smtpd.mails) == 8


async def one_states(database: Database) -> list[str]:
    return [row.state for row in await rows(database)]


async def _ended(one: Office) -> bool:
    return "pending" not in await one.states()


@ON_SQLITE  # the other would not keep that
async def test_fault_that_nobody_foresaw_defers_the_mail(database: Database, smtpd: Smtpd) -> None:
    await add(database, "a@x.example", "b@x.example")
    await run(database, "UPDATE messages SET data = 12345 WHERE outbox_id = 1")  # no bytes at all
    async with office(database, smtpd) as one:
        await eventually(lambda: _both(one))
        await run(database, "UPDATE messages SET data = :bytes WHERE outbox_id = 1", bytes=b"Subject: mended\r\n\r\n")
        await eventually(lambda: one.all_are("sent"))


async def _both(one: Office) -> bool:
    return await one.outcomes() == {"a@x.example": "deferred", "b@x.example": "sent"}


# -- the operator's faults ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "act", "code"),
    [
        ("greeting", reply(554), 554),
        ("greeting", close, None),
        ("greeting", farewell(), 421),
        ("ehlo", farewell(), 421),
        ("greeting", hang, None),
    ],
)
async def test_relay_that_does_not_take_us_holds_everything_and_fails_nothing(
    database: Database, smtpd: Smtpd, step: str, act: Act, code: int | None
) -> None:
    rule = smtpd.on(step, act)
    async with office(database, smtpd, timeout=0.2 if act is hang else 20) as one:
        await one.post("a@x.example", "b@x.example")
        await eventually(lambda: one.dispatcher.breaker.failures >= 3)
        fault = one.dispatcher.fault
        assert fault is not None and (fault.stage, fault.code) == (Stage.CONNECT, code)
        assert [(row.state, row.attempts) for row in await rows(database)] == [("pending", 0)] * 2
        assert "breaker=open" in repr(one.dispatcher)
        smtpd.rules.remove(rule)
        await eventually(lambda: one.all_are("sent"))
        assert one.dispatcher.fault is None and not one.dispatcher.breaker.open
        assert {row.attempts for row in await rows(database)} == {1}


async def test_sign_in_that_is_refused_holds_everything(database: Database, smtpd: Smtpd) -> None:
    smtpd.extensions.append("AUTH PLAIN")
    rule = smtpd.on("auth", reply(535))
    async with office(database, smtpd, username="me", password="wrong") as one:
        await one.post("a@x.example")
        await eventually(lambda: one.dispatcher.breaker.failures >= 2)
        assert await one.all_are("pending")
        smtpd.rules.remove(rule)
        await eventually(lambda: one.all_are("sent"))


@pytest.mark.parametrize("act", [close, farewell(), reply(554)])
async def test_relay_that_goes_away_between_two_mails(database: Database, smtpd: Smtpd, act: Act) -> None:
    async with office(database, smtpd) as one:
        await one.post("a@x.example")
        await eventually(lambda: one.all_are("sent"))
        rule = smtpd.on("greeting", act)
        await smtpd.stop()
        await one.post("b@x.example")
        await eventually(lambda: one.dispatcher.breaker.open)
        smtpd.rules.remove(rule)
        await eventually(lambda: one.all_are("sent"))
        assert one.arrived() == ["a@x.example", "b@x.example"]
        assert {row.attempts for row in await rows(database)} == {1}


async def test_relay_that_was_down_at_the_start_and_comes_up(database: Database) -> None:
    async with Smtpd().listening() as gone:
        pass
    smtpd = Smtpd(port=gone.port)
    async with office(database, smtpd) as one:
        await one.post("a@x.example")
        assert isinstance(one.dispatcher.fault, Held)
        async with smtpd.listening(gone.port):
            await eventually(lambda: one.all_are("sent"))


async def test_while_the_breaker_is_open_one_probe_at_a_time_knocks(database: Database, smtpd: Smtpd) -> None:
    smtpd.on("greeting", close)
    async with office(database, smtpd) as one:
        await one.post(*(f"{number}@x.example" for number in range(20)))
        await eventually(lambda: one.dispatcher.breaker.failures >= 5)
    assert smtpd.most_open == 1


async def test_sender_that_is_refused_holds_its_mails_and_no_others(database: Database, smtpd: Smtpd) -> None:
    rule = smtpd.on("mail", reply(553, "not yours"), when=lambda session: session.sender == "bad@here.example")
    async with office(database, smtpd) as one:
        await one.post("a@x.example", "b@x.example", sender="bad@here.example")
        await one.post("c@x.example", "d@x.example")
        await eventually(lambda: _held_and_sent(one))
        assert not one.dispatcher.breaker.open
        fault = one.dispatcher.fault
        assert fault is not None and (fault.stage, fault.code) == (Stage.MAIL, 553)
        assert {row.attempts for row in await rows(database) if row.state == "pending"} == {0}
        smtpd.rules.remove(rule)
        await eventually(lambda: one.all_are("sent"))
        assert one.dispatcher.fault is None


async def _held_and_sent(one: Office) -> bool:
    return Counter((await one.outcomes()).values()) == {"held": 2, "sent": 2}


# -- what may be lost on the way ---------------------------------------------------------------------------------------


async def test_wake_that_is_lost_does_not_lose_the_mail(database: Database, smtpd: Smtpd) -> None:
    async with office(database, smtpd) as one:
        await one.post("a@x.example", wake=False)
        await eventually(lambda: one.all_are("sent"))


async def test_wake_is_answered_at_once(database: Database, smtpd: Smtpd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 3600.0)
    async with office(database, smtpd) as one:
        for number in range(5):
            await one.post(f"{number}@x.example")
            await eventually(lambda: one.all_are("sent"))


async def test_retry_comes_without_a_wake(database: Database, smtpd: Smtpd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 3600.0)
    smtpd.on("rcpt", reply(450), times=3)
    async with office(database, smtpd) as one:
        await one.post("a@x.example")
        await eventually(lambda: one.all_are("sent"))


async def test_lease_of_a_process_that_died_is_taken_over(database: Database, smtpd: Smtpd) -> None:
    await add(database, "a@x.example")
    await run(database, "UPDATE outbox SET lease_owner = 'dead', lease_until = :soon", soon=time.time() + 2)
    async with office(database, smtpd) as one:
        await eventually(lambda: one.all_are("sent"))
    assert len(smtpd.mails) == 1


async def test_slow_mail_keeps_its_lease(database: Database, smtpd: Smtpd, monkeypatch: pytest.MonkeyPatch) -> None:
    """What two processes make of it: tests/e2e/test_two_processes.py."""
    monkeypatch.setattr(module, "LEASE_SECONDS", 9.0)
    go_on = asyncio.Event()

    async def slow(session: Session) -> None:
        await go_on.wait()
        await session.say(250, "at last")

    smtpd.on("rcpt", slow)
    async with office(database, smtpd, timeout=60) as one:
        await one.post("a@x.example")
        await eventually(lambda: smtpd.commands["RCPT"] == 1)
        [claimed] = await rows(database)

        async def renewed() -> bool:
            [row] = await rows(database)
            return bool(row.lease_owner == claimed.lease_owner and row.lease_until > claimed.lease_until + 2)

        await eventually(renewed, 60)
        go_on.set()
        await eventually(lambda: one.all_are("sent"))
    assert len(smtpd.mails) == 1


async def test_two_dispatchers_never_send_a_row_twice(database_url: str, smtpd: Smtpd) -> None:
    everybody = [f"{number}@x.example" for number in range(100)]
    async with opened(database_url) as first, opened(database_url) as second:
        await add(first, *everybody[:50])
        async with office(first, smtpd) as one, office(second, smtpd) as other:
            assert one.dispatcher.owner != other.dispatcher.owner
            for recipient in everybody[50:]:
                await one.post(recipient)
                other.dispatcher.wake()
            await eventually(lambda: one.all_are("sent"))
        assert one.arrived() == sorted(everybody)
        assert {row.attempts for row in await rows(first)} == {1}


async def test_database_that_is_away_for_a_while_delays_mail(
    database: Database, database_url: str, smtpd: Smtpd, hasty: None
) -> None:
    await add(database, "a@x.example")
    lock = locked(database)
    await lock.__aenter__()
    async with opened(database_url) as impatient, office(impatient, smtpd) as one:
        await asyncio.sleep(0.3)
        assert smtpd.mails == []
        await lock.__aexit__(None, None, None)
        await eventually(lambda: one.all_are("sent"))
    assert len(smtpd.mails) == 1


async def test_database_that_is_away_at_the_250_is_told_afterwards(
    database: Database, database_url: str, smtpd: Smtpd, hasty: None
) -> None:
    lock = locked(database)

    async def accept_and_lock(session: Session) -> None:
        session.keep()
        await lock.__aenter__()
        await session.say(250, "kept")

    smtpd.on("dot", accept_and_lock)
    async with opened(database_url) as impatient, office(impatient, smtpd) as one:
        await add(database, "a@x.example")
        one.dispatcher.wake()
        await eventually(lambda: len(smtpd.mails) == 1)
        await asyncio.sleep(0.3)  # the first attempts to settle fail
        await lock.__aexit__(None, None, None)
        await eventually(lambda: one.all_are("sent"))
    assert len(smtpd.mails) == 1


async def test_drain_answers_when_nothing_is_left_that_could_be_sent(database: Database, smtpd: Smtpd) -> None:
    go_on = asyncio.Event()

    async def slow(session: Session) -> None:
        await go_on.wait()
        await session.say(250, "at last")

    smtpd.on("rcpt", slow)
    async with office(database, smtpd, size=2, timeout=60) as one:
        assert await one.dispatcher.drain(20)
        await one.post("a@x.example", "b@x.example", "c@x.example", wake=False)
        assert not await one.dispatcher.drain(0.3)
        go_on.set()
        assert await one.dispatcher.drain(20)
        assert await one.all_are("sent")


async def test_drain_does_not_wait_for_a_relay_that_is_down(database: Database) -> None:
    async with Smtpd().listening() as smtpd:
        pass
    async with office(database, smtpd) as one:
        await one.post("a@x.example")
        assert await one.dispatcher.drain(20)
        assert await one.states() == ["pending"]


# -- closing -----------------------------------------------------------------------------------------------------------


async def test_close_waits_for_what_is_in_flight_and_begins_nothing(database: Database, smtpd: Smtpd) -> None:
    go_on = asyncio.Event()

    async def slow(session: Session) -> None:
        await go_on.wait()
        await session.say(250, "at last")

    smtpd.on("rcpt", slow)
    async with office(database, smtpd, size=2, timeout=60) as one:
        await one.post(*(f"a@{number}.example" for number in range(6)))
        await eventually(lambda: smtpd.commands["RCPT"] == 2)
        closing = asyncio.create_task(one.dispatcher.close(30))
        await asyncio.sleep(0.05)
        assert "closing" in repr(one.dispatcher)
        go_on.set()
        await closing
    assert Counter(await one_states(database)) == {"sent": 2, "pending": 4}
    assert len(smtpd.mails) == 2
    assert all(row.lease_owner is None for row in await rows(database))


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "body", "dot"])
async def test_close_with_a_relay_that_hangs_gives_the_leases_back(database: Database, smtpd: Smtpd, step: str) -> None:
    smtpd.on(step, hang)
    async with office(database, smtpd, timeout=600, content_timeout=600) as one:
        await one.post("a@x.example", "b@x.example")
        await eventually(lambda: smtpd.begun == 2)
        async with asyncio.timeout(15):
            await one.dispatcher.close(0.05)
    found = [(row.state, row.uncertain, row.lease_owner, row.lease_until) for row in await rows(database)]
    maybe = step in ("body", "dot")
    assert found == [("pending", maybe, None, None)] * 2


async def test_close_does_not_forget_a_250_that_was_heard(
    database: Database, database_url: str, smtpd: Smtpd, hasty: None
) -> None:
    """The grace time ends while the reply still waits to be written down."""
    lock = locked(database)

    async def accept_and_lock(session: Session) -> None:
        session.keep()
        await lock.__aenter__()
        await session.say(250, "kept")

    smtpd.on("dot", accept_and_lock)
    async with opened(database_url) as impatient, office(impatient, smtpd) as one:
        await add(database, "a@x.example")
        await eventually(lambda: len(smtpd.mails) == 1)
        await asyncio.sleep(0.3)  # the first attempt to settle fails
        await lock.__aexit__(None, None, None)
        await one.dispatcher.close(0.01)
        [row] = await rows(database)
    assert (row.state, row.reply) == ("sent", "250 kept")


@ON_SQLITE  # to have it wait for a lock
async def test_close_begins_nothing_that_was_just_claimed(database: Database, smtpd: Smtpd) -> None:
    go_on = asyncio.Event()

    async def slow(session: Session) -> None:
        await go_on.wait()
        await session.say(250, "at last")

    smtpd.on("rcpt", slow)
    assert database.url.database
    other = sqlite3.connect(database.url.database, isolation_level=None)
    await add(database, "later@x.example")
    await run(database, "UPDATE outbox SET due_at = due_at + 3600")
    async with office(database, smtpd, timeout=60) as one:
        await one.post("now@x.example")
        await eventually(lambda: smtpd.commands["RCPT"] == 1)
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE outbox SET due_at = 0 WHERE id = 1")
        one.dispatcher.wake()
        await asyncio.sleep(0.2)  # it waits for the lock, to claim
        closing = asyncio.create_task(one.dispatcher.close(30))
        await asyncio.sleep(0)
        other.execute("COMMIT")
        other.close()
        await asyncio.sleep(0.2)
        go_on.set()
        await closing
    assert await one.outcomes() == {"later@x.example": None, "now@x.example": "sent"}
    assert smtpd.commands["MAIL"] == 1


async def test_close_while_the_breaker_is_open_is_quick(database: Database, smtpd: Smtpd) -> None:
    smtpd.on("greeting", hang)
    await add(database, "a@x.example")
    pool = Pool(Relay("127.0.0.1", smtpd.port, timeout=600))
    await pool.open(wait_seconds=0.01)
    sending = Dispatcher(database, pool)
    await sending.open()
    await eventually(lambda: pool.stats()["leased"] > 0)
    async with asyncio.timeout(10):
        await sending.close()
        await pool.close()
    assert (await rows(database))[0].lease_owner is None


async def test_close_of_what_was_never_opened(database: Database) -> None:
    sending = Dispatcher(database, Pool(Relay("127.0.0.1", 1), Limits(size=1)))
    assert repr(sending) == "<Dispatcher new in_flight=0 waiting=0 breaker=closed>"
    await sending.close()


async def test_pool_that_closed_first_fails_no_mail(database: Database, smtpd: Smtpd) -> None:
    async with office(database, smtpd) as one:
        await one.pool.close()
        await one.post("a@x.example")
        await eventually(lambda: _is_held(one))
        assert await one.all_are("pending")
        await one.pool.open()
        await eventually(lambda: one.all_are("sent"))


async def _is_held(one: Office) -> bool:
    return await one.outcomes() == {"a@x.example": "held"}


@pytest.mark.parametrize("round", range(5))
async def test_restarts_lose_nothing_and_double_only_what_was_in_flight(
    database: Database, smtpd: Smtpd, round: int
) -> None:
    everybody = [f"{number}@x.example" for number in range(60)]
    await add(database, *everybody)
    for restart in range(6):
        async with office(database, smtpd, size=4) as one:
            await eventually(lambda at_least=10 * restart: len(smtpd.mails) >= at_least)
            await one.dispatcher.close(0)
    async with office(database, smtpd) as one:
        await eventually(lambda: one.all_are("sent"))
    arrived = Counter(one.arrived())
    assert set(arrived) == set(everybody)
    assert sum(arrived.values()) <= 60 + 6 * 4
