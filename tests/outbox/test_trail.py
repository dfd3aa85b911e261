"""The trail of a mail: its lines in the log have the id of the request that wrote it, and what the server said."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from server.db import Database
from tests.conftest import eventually
from tests.outbox.conftest import add, office
from tests.smtpd import Act, Session, Smtpd, close, reply

pytestmark = pytest.mark.usefixtures("impatient")

A, B = "a" * 32, "b" * 32


@pytest.fixture
def said() -> Iterator[list[Any]]:
    """The lines of the log, as they come."""
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        yield lines


def trace(id: str) -> str:
    return f"00-{id}-{id[:16]}-00"


@pytest.mark.parametrize(
    ("step", "act", "event", "code"),
    [
        pytest.param("noop", reply(250, "ok"), "mail.sent", 250, id="sent"),
        pytest.param("rcpt", reply(550, "5.7.1 not for a@x.example"), "mail.failed", 550, id="failed"),
        pytest.param("rcpt", reply(451, "later, a@x.example"), "mail.deferred", 451, id="deferred"),
        pytest.param("mail", reply(553, "not from site@here.example"), "mail.held", 553, id="held"),
        pytest.param("dot", close, "mail.uncertain", None, id="uncertain"),
    ],
)
async def test_line_has_the_id_and_the_code_and_no_address(
    database: Database, smtpd: Smtpd, said: list[Any], step: str, act: Act, event: str, code: int | None
) -> None:
    smtpd.on(step, act, times=1)
    await add(database, "a@x.example", trace=trace(A))
    async with office(database, smtpd):
        await eventually(lambda: any(line["event"] == event for line in said))
    line = next(line for line in said if line["event"] == event)
    ids = {"outbox_id": 1, "site": "bikes", "kind": "welcome", "attempt": 1, "request_id": A}
    assert {name: line[name] for name in ids} == ids
    assert line.get("code") == code
    assert {line["request_id"] for line in said if line["event"].startswith("mail.")} == {A}
    assert "@" not in str(said)


async def test_mail_that_begins_where_another_ends_is_not_taken_for_a_part_of_it(
    database: Database, smtpd: Smtpd, said: list[Any]
) -> None:
    both_are_here = asyncio.Event()

    async def stay(session: Session) -> None:
        await both_are_here.wait()
        await session.say(250, "ok")

    smtpd.on("rcpt", stay, times=1)
    await add(database, "a@x.example", trace=trace(A))
    await add(database, "b@x.example")  # from before ids were kept
    async with office(database, smtpd, size=1) as one:
        await eventually(lambda: [line["event"] for line in said].count("mail.claimed") == 2)
        both_are_here.set()
        await eventually(lambda: one.all_are("sent"))
    assert [line["request_id"] for line in said if line["event"] == "mail.claimed"] == [A, None]
    first, second = [line["request_id"] for line in said if line["event"] == "mail.sent"]
    assert first == A
    assert len(second) == 32 and second != A  # its own, for the lines of this attempt


async def test_fault_that_nobody_foresaw_has_the_id_too(
    database: Database, smtpd: Smtpd, said: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(database, "a@x.example", trace=trace(A))
    async with office(database, smtpd) as one:
        await eventually(lambda: one.all_are("sent"))
        await add(database, "b@x.example", trace=trace(B))
        monkeypatch.setattr(one.pool, "lease", None)
        one.dispatcher.wake()
        await eventually(lambda: any(line["event"] == "mail.unexpected" for line in said))
    line = next(line for line in said if line["event"] == "mail.unexpected")
    assert (line["outbox_id"], line["request_id"]) == (2, B)
