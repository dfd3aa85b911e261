"""The fault matrix: whatever a relay does, what becomes of the mail, how often it was tried, and what is remembered.

Each fault on a server that takes commands one by one and on one that takes them together (PIPELINING).
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text

from server.db import Database, DatabaseUnavailable
from server.mail.errors import Stage
from server.outbox import dispatcher as module
from server.outbox import store
from tests.conftest import eventually
from tests.outbox.conftest import Office, add, mail, office, opened, rows, run
from tests.smtpd import (
    Act,
    Certificates,
    Session,
    Smtpd,
    accept_and_close,
    accept_and_reset,
    accept_silently,
    close,
    cut_after,
    farewell,
    hang,
    late,
    reply,
    reset,
)

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture(params=[False, True], ids=["one-by-one", "pipelined"])
async def smtpd(request: pytest.FixtureRequest) -> AsyncIterator[Smtpd]:
    extensions = ["SIZE 100000", "8BITMIME", *(["PIPELINING"] if request.param else [])]
    async with Smtpd(extensions=extensions).listening() as smtpd:
        yield smtpd


async def attempts(database: Database) -> list[tuple[str, str]]:
    """The log of attempts: how each ended, and what was said."""
    query = text("SELECT outcome, reply FROM attempts ORDER BY id")
    return await database.read(lambda connection: [tuple(row) for row in connection.execute(query)])


@dataclass(frozen=True)
class Fault:
    """So many times this act at this step; then how the attempts ended, and how often the relay has the mail."""

    name: str
    step: str
    act: Act
    times: int
    outcomes: list[str]
    arrived: int = 1


def twice(outcome: str, last: str = "sent") -> list[str]:
    return [outcome, outcome, last]


FAULTS = [
    Fault("greylisting", "rcpt", reply(451, "4.7.1 Greylisted, come back later"), 2, twice("deferred")),
    Fault("throttle", "mail", reply(454, "4.7.0 Throttling"), 2, twice("deferred")),
    Fault("throttle at the end", "dot", reply(454, "4.7.0 Throttling"), 2, twice("deferred")),
    Fault("mailbox full", "rcpt", reply(452, "4.2.2 full"), 2, twice("deferred")),
    Fault("recipient refused", "rcpt", reply(550, "5.7.1 no"), 1, ["failed"], 0),
    Fault("command refused", "data", reply(554, "no"), 1, ["failed"], 0),
    Fault("message refused", "dot", reply(554, "5.6.0 spam"), 1, ["failed"], 0),
    Fault("421 on a reused connection", "mail", farewell(), 1, ["sent"]),
    Fault("closed while idle", "mail", close, 1, ["sent"]),
    Fault("reset while idle", "mail", reset, 1, ["sent"]),
    Fault("421 at the recipient", "rcpt", farewell(), 2, twice("deferred")),
    Fault("cut at the recipient", "rcpt", reset, 2, twice("deferred")),
    Fault("cut at the command", "data", close, 2, twice("deferred")),
    Fault("421 at the end", "dot", farewell(), 2, twice("deferred")),
    Fault("cut in the message", "body", cut_after(50), 2, twice("uncertain")),
    Fault("cut before the reply, not kept", "dot", close, 2, twice("uncertain")),
    Fault("cut before the reply, kept", "dot", accept_silently, 2, twice("uncertain"), 3),
    Fault("accepted, then closed", "dot", accept_and_close, 1, ["sent"]),
    Fault("accepted, then reset", "dot", accept_and_reset, 1, ["sent"]),
    Fault("silent at the sender", "mail", hang, 2, ["deferred", "sent"]),
    Fault("silent at the recipient", "rcpt", hang, 2, twice("deferred")),
    Fault("silent after DATA", "data", hang, 2, twice("deferred")),
    Fault("silent after the message", "dot", hang, 2, twice("uncertain")),
    Fault("tarpit", "rcpt", late(0.3, 250), 1, ["sent"]),
    Fault("tarpit at the end", "dot", late(1.5, 554), 1, ["uncertain", "sent"]),
    Fault("nonsense", "rcpt", reply(299, "?"), 2, twice("deferred")),
    Fault("nonsense at the end", "dot", reply(299, "?"), 2, twice("uncertain")),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
async def test_fault(database: Database, smtpd: Smtpd, fault: Fault) -> None:
    rule = smtpd.on(fault.step, fault.act, times=fault.times)
    async with office(database, smtpd, size=1, timeout=1, content_timeout=1) as one:
        await one.post("a@x.example")
        await eventually(lambda: _final(one), 60)
        await one.post("b@x.example")  # the queue goes on
        await eventually(lambda: _final(one), 60)
        assert one.dispatcher.fault is None and not one.dispatcher.breaker.open
    assert rule.times == 0
    first, second = await rows(database)
    log = await attempts(database)
    assert [outcome for outcome, _ in log] == [*fault.outcomes, "sent"]
    assert (first.state, first.outcome) == (fault.outcomes[-1],) * 2 and second.state == "sent"
    assert first.attempts == len(fault.outcomes) and first.uncertain == fault.outcomes.count("uncertain")
    assert first.reply == log[len(fault.outcomes) - 1][1] and first.lease_owner is None
    assert one.arrived() == ["a@x.example"] * fault.arrived + ["b@x.example"]
    assert len({mail.data for mail in smtpd.mails}) == len(set(one.arrived()))  # doubles are the same to the byte


async def _final(one: Office) -> bool:
    return "pending" not in await one.states()


# -- the operator's faults: everything waits, nothing fails ------------------------------------------------------------

HELD: list[tuple[str, str, Act]] = [
    ("refused greeting", "greeting", reply(554, "no service")),
    ("too many connections", "greeting", farewell(421, "4.7.0 too many connections")),
    ("closed at once", "greeting", close),
    ("reset at once", "greeting", reset),
    ("silent", "greeting", hang),
    ("refused EHLO", "ehlo", farewell(421)),
    ("wrong password", "auth", reply(535, "5.7.8 wrong")),
    ("sign-in throttled", "auth", reply(454, "4.7.0 later")),
]


@pytest.mark.parametrize(("step", "act"), [pytest.param(*rest, id=name.replace(" ", "-")) for name, *rest in HELD])
async def test_operators_fault_holds_everything_and_costs_no_attempt(
    database: Database, smtpd: Smtpd, step: str, act: Act
) -> None:
    smtpd.extensions.append("AUTH PLAIN")
    rule = smtpd.on(step, act)
    await add(database, *(f"a@{number}.example" for number in range(8)))
    async with office(database, smtpd, timeout=0.5, username="me", password="secret") as one:
        await eventually(lambda: one.dispatcher.breaker.failures >= 3, 60)
        assert one.dispatcher.fault is not None and one.dispatcher.fault.stage is Stage.CONNECT
        assert {(row.state, row.attempts) for row in await rows(database)} == {("pending", 0)}
        assert smtpd.begun == 0
        smtpd.rules.remove(rule)
        await eventually(lambda: one.all_are("sent"), 60)
        assert one.dispatcher.fault is None
    assert {row.attempts for row in await rows(database)} == {1} and len(smtpd.mails) == 8


@pytest.mark.parametrize("what", ["wrong certificate", "no STARTTLS", "STARTTLS refused"])
async def test_where_encryption_is_asked_for_nothing_is_said_in_the_clear(database: Database, what: str) -> None:
    ours, theirs = Certificates(), Certificates()
    smtpd = Smtpd(extensions=["STARTTLS", "AUTH PLAIN"], certificates=theirs if what == "wrong certificate" else ours)
    if what == "no STARTTLS":
        smtpd.extensions.remove("STARTTLS")
    if what == "STARTTLS refused":
        smtpd.on("starttls", reply(454, "TLS not available"))
    secure: dict[str, Any] = {"tls": "starttls", "tls_context": ours.client, "username": "me", "password": "secret"}
    async with smtpd.listening(), office(database, smtpd, **secure) as one:
        await one.post("a@x.example")
        await eventually(lambda: one.dispatcher.breaker.failures >= 2, 60)
        assert await one.all_are("pending")
    said = {line.removeprefix("clear: ").partition(" ")[0] for line in smtpd.lines if line.startswith("clear: ")}
    assert said <= {"EHLO", "STARTTLS", "QUIT"} and not smtpd.logins and not smtpd.mails


async def test_relay_that_stops_in_the_middle_of_a_burst(database: Database, smtpd: Smtpd) -> None:
    everybody = [f"a@{number}.example" for number in range(60)]
    await add(database, *everybody)
    async with office(database, smtpd) as one:
        await eventually(lambda: len(smtpd.mails) >= 10)
        rule = smtpd.on("greeting", close)
        await smtpd.stop()
        await eventually(lambda: one.dispatcher.breaker.open)
        smtpd.rules.remove(rule)
        await eventually(lambda: one.all_are("sent"), 60)
    unsure = sum(row.uncertain for row in await rows(database))
    assert set(one.arrived()) == set(everybody) and len(smtpd.mails) <= 60 + unsure


# -- mails that cannot be sent by their nature -------------------------------------------------------------------------

_DATA = "UPDATE messages SET data = :value WHERE outbox_id = 1"
NATURE: list[tuple[str, str, bytes | str | None, str]] = [
    ("too large", _DATA, bytes(100001), "takes 100000"),
    ("bare line feed", _DATA, b"a\n", "bare CR or LF"),
    ("SMTPUTF8 not offered", "UPDATE outbox SET recipient = :value WHERE id = 1", "zoë@x.example", "SMTPUTF8"),
    ("a line break", "UPDATE outbox SET sender = :value WHERE id = 1", "a@x\nb", "no address may hold"),
    ("a command", "UPDATE outbox SET recipient = :value WHERE id = 1", "a@x>\r\nDATA", "no address may hold"),
    ("purged", "DELETE FROM messages WHERE outbox_id = 1", None, "purged"),
]


@pytest.mark.parametrize(
    ("change", "value", "says"), [pytest.param(*rest, id=name.replace(" ", "-")) for name, *rest in NATURE]
)
async def test_mail_that_cannot_be_sent_fails_alone_and_says_why(
    database: Database, smtpd: Smtpd, change: str, value: bytes | str | None, says: str
) -> None:
    await add(database, *(f"{number}@x.example" for number in range(5)))
    await run(database, change, **({} if value is None else {"value": value}))
    async with office(database, smtpd, size=1) as one:
        await eventually(lambda: _final(one))
        assert one.dispatcher.fault is None
    found = await rows(database)
    assert [row.state for row in found] == ["failed"] + 4 * ["sent"]
    assert says in found[0].reply and len(smtpd.mails) == 4


# -- suppression -------------------------------------------------------------------------------------------------------


async def post_to_owner(database: Database, recipient: str) -> None:
    notice = store.Addressed("bikes", None, store.Mail("notice", mail(recipient), to_visitor=False))
    await database.transact(store.add, [notice])


async def test_address_that_does_not_exist_gets_no_more_mail(database: Database, smtpd: Smtpd) -> None:
    smtpd.on("rcpt", reply(550, "5.1.1 no such user"), when=lambda session: "gone" in session.recipients[-1].lower())
    async with office(database, smtpd) as one:
        await one.post("Gone@x.example")
        await eventually(lambda: one.all_are("failed"))
        await one.post("gone@X.EXAMPLE", "here@x.example", "gone@x.example")
        await eventually(lambda: _final(one))
    assert [row.state for row in await rows(database)] == ["failed", "suppressed", "sent", "suppressed"]
    assert smtpd.commands["RCPT"] == 2  # nobody asked again
    assert all(row.lease_owner is None and row.settled_at for row in await rows(database))
    query = text("SELECT recipient_hash FROM suppressions")
    [hashed] = await database.read(lambda connection: connection.execute(query).scalars().all())
    assert hashed == store.recipient_hash("gone@x.example") and "gone" not in hashed


@pytest.mark.parametrize("words", ["5.7.1 blocked", "5.2.2 mailbox full", "try another door"])
async def test_address_that_is_refused_for_another_reason_is_tried_again(
    database: Database, smtpd: Smtpd, words: str
) -> None:
    smtpd.on("rcpt", reply(550, words), times=1)
    async with office(database, smtpd) as one:
        await one.post("a@x.example")
        await eventually(lambda: one.all_are("failed"))
        await one.post("a@x.example")
        await eventually(lambda: _final(one))
    assert [row.state for row in await rows(database)] == ["failed", "sent"]


async def test_owner_is_never_suppressed(database: Database, smtpd: Smtpd) -> None:
    """A typing error in site.toml must go on being seen as a failure."""
    smtpd.on("rcpt", reply(550, "5.1.1 no such user"))
    async with office(database, smtpd) as one:
        for _ in range(2):
            await post_to_owner(database, "owner@x.example")
            one.dispatcher.wake()
            await eventually(lambda: _final(one))
    assert [row.state for row in await rows(database)] == ["failed", "failed"]


async def test_mail_that_waits_when_its_address_is_suppressed_is_not_sent(database: Database, smtpd: Smtpd) -> None:
    await add(database, "a@x.example", "b@x.example")
    await run(database, "UPDATE outbox SET due_at = due_at + 100")
    await database.transact(store.suppress, store.recipient_hash("a@x.example"), "bounced")
    await run(database, "UPDATE outbox SET due_at = due_at - 100")
    async with office(database, smtpd) as one:
        await eventually(lambda: _final(one))
    assert [row.state for row in await rows(database)] == ["suppressed", "sent"]


# -- leases that cannot be renewed -------------------------------------------------------------------------------------


async def test_mail_whose_lease_runs_out_is_let_go_before_another_sends_it(
    database_url: str, smtpd: Smtpd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two processes cannot reach the database for longer than the lease, in the middle of a mail."""
    monkeypatch.setattr(module, "LEASE_SECONDS", 3.0)

    async def fail(*args: object) -> object:
        raise DatabaseUnavailable("away")

    present: list[int] = []

    async def count(session: Session) -> None:
        present.append(smtpd.open)
        await session.say(250, "ok")

    smtpd.on("rcpt", hang, times=1)
    smtpd.on("rcpt", count)
    async with (
        opened(database_url) as first,
        opened(database_url) as second,
        office(first, smtpd, size=1, timeout=600) as one,
    ):
        await one.post("a@x.example")
        await eventually(lambda: smtpd.commands["RCPT"] == 1)
        with monkeypatch.context() as away:
            away.setattr(first, "transact", fail)
            away.setattr(first, "read", fail)
            async with office(second, smtpd, size=1) as other:
                await eventually(lambda: other.all_are("sent"))
    # Whoever sends in the end is not alone if the first has not gone: it has one connection, and the second one.
    assert present == [1] and len(smtpd.mails) == 1
