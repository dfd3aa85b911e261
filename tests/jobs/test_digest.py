"""The digest: each signup nobody confirmed and each mail that failed is told of once, whatever happens in between."""

import asyncio
import email
import email.policy
import time
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import Connection, event
from structlog.testing import capture_logs

from server import registry
from server.db import Database
from server.jobs import digest, schedule
from server.mail.templates import LONGEST
from server.runtime import Runtime, opened
from server.settings import Settings
from server.signup import Reception
from tests.conftest import ON_SQLITE, add_site, eventually
from tests.signups import ASKING, DAY, HOUR, change, received, sign_up


async def run(database: Database, *receptions: Reception, closing: bool = False) -> None:
    stop = asyncio.Event()
    if closing:
        stop.set()
    await digest.job(database, lambda: {one.site.slug: one for one in receptions}).run(stop)


def digests(database: Database, part: str = "plain") -> list[str]:
    """What those say that were written."""
    query = "SELECT data FROM messages JOIN outbox ON id = outbox_id WHERE kind = 'digest' ORDER BY id"
    parsed = [email.message_from_bytes(data, policy=email.policy.default) for (data,) in change(database, query)]
    bodies = [mail.get_body((part,)) for mail in parsed]
    return [str(body.get_content()).replace("\r\n", "\n") for body in bodies if body is not None]


def fail(database: Database, which: str = "kind = 'confirm'", *, ago: float = HOUR, reply: str = "550 no") -> None:
    """These mails failed for good, so many seconds ago."""
    ended = f"state = 'failed', reply = '{reply}', settled_at = {time.time() - ago}"
    change(database, f"UPDATE outbox SET {ended} WHERE {which}")


def pass_time(database: Database, seconds: float) -> None:
    """All mails, and what became of them, are so much older."""
    change(database, f"UPDATE outbox SET created_at = created_at - {seconds}, settled_at = settled_at - {seconds}")
    change(database, f"UPDATE signups SET told_at = told_at - {seconds}")


def numbered(count: int) -> list[str]:
    return [f"v{number:03}@there.example" for number in range(count)]


async def test_owner_is_told_of_what_was_not_confirmed(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, ["ann@there.example"], age=7 * HOUR, name="Ann", message="two\nlines")
    await run(database, lamps)
    [text] = digests(database)
    assert "ann@there.example" in text and "Which colour?" in text and "two\n  lines" in text
    [row] = change(database, "SELECT recipient, state, recipient_hash, signup_id FROM outbox WHERE kind = 'digest'")
    assert row == ("owner@bikeshed.example", "pending", None, None)


async def test_mail_has_the_id_of_the_run_and_so_have_its_lines(
    database: Database, lamps: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "POLL_SECONDS", 0.05)
    await sign_up(database, lamps, ["ann@there.example"], age=7 * HOUR)
    made = schedule.Schedule(database, [digest.job(database, lambda: {"lamps": lamps})])
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as said:
        await made.open()
        await eventually(lambda: len(digests(database)) == 1 and "digest.written" in str(said))
        await made.close()
    [(trace,)] = change(database, "SELECT trace FROM outbox WHERE kind = 'digest'")
    [written] = [line for line in said if line["event"] == "digest.written"]
    assert trace[3:35] == written["request_id"]
    [(signups,)] = change(database, "SELECT trace FROM outbox WHERE kind = 'confirm'")
    assert signups != trace


async def test_is_told_once(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, ["ann@there.example"], age=7 * HOUR)
    await run(database, lamps)
    await run(database, lamps)
    assert len(digests(database)) == 1


@pytest.mark.parametrize(
    "instead",
    [
        "created_at = created_at + 7200",  # five hours old
        "status = 'confirmed'",
        "status = 'accepted'",
        "status = 'spam'",
        "site = 'chairs'",
        "told_at = 1",
    ],
)
async def test_nothing_to_tell(database: Database, lamps: Reception, instead: str) -> None:
    await sign_up(database, lamps, ["ann@there.example"], age=7 * HOUR)
    change(database, f"UPDATE signups SET {instead}")
    await run(database, lamps)
    assert digests(database) == []


async def test_each_owner_has_one_and_who_has_none_stays_untold(database: Database, sites: Path) -> None:
    notify = 'notify = ["owner@bikeshed.example"]'
    add_site(sites, "two", ASKING.replace(notify, 'notify = ["a@two.example", "b@two.example"]'))
    add_site(sites, "none", ASKING.replace(notify, ""))
    two, none = received(sites / "two"), received(sites / "none")
    await sign_up(database, two, ["ann@there.example"], age=7 * HOUR)
    await sign_up(database, none, ["bob@there.example"], age=7 * HOUR)
    await run(database, two, none)
    found = change(database, "SELECT recipient FROM outbox WHERE kind = 'digest' ORDER BY recipient")
    assert found == [("a@two.example",), ("b@two.example",)]
    assert change(database, "SELECT site FROM signups WHERE told_at IS NULL") == [("none",)]


async def test_many_come_in_several_mails_oldest_first(
    database: Database, lamps: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "MOST", 4)
    await sign_up(database, lamps, numbered(10), age=7 * HOUR)
    await run(database, lamps)
    texts = digests(database)
    assert [[address for address in numbered(10) if address in text] for text in texts] == [
        numbered(10)[:4],
        numbered(10)[4:8],
        numbered(10)[8:],
    ]
    assert ["6 more" in texts[0], "2 more" in texts[1], "more" in texts[2]] == [True, True, False]


async def test_flood_is_no_flood_of_mails_and_nothing_is_forgotten(
    database: Database, lamps: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "MOST", 2)
    monkeypatch.setattr(digest, "MAILS", 3)
    await sign_up(database, lamps, numbered(9), age=7 * HOUR)
    await run(database, lamps)
    assert len(digests(database)) == 3
    await run(database, lamps)
    assert len(digests(database)) == 5
    assert all("".join(digests(database)).count(address) == 1 for address in numbered(9))


async def test_one_who_confirms_while_it_is_written_is_not_told_of(
    database: Database, lamps: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sign_up(database, lamps, ["ann@there.example", "bob@there.example"], age=7 * HOUR)
    looked = digest.untold

    def and_then_ann_confirms(connection: Connection, site: str) -> digest.Untold:
        found = looked(connection, site)
        monkeypatch.setattr(digest, "untold", looked)
        change(database, "UPDATE signups SET status = 'confirmed' WHERE email = 'ann@there.example'")
        return found

    monkeypatch.setattr(digest, "untold", and_then_ann_confirms)
    await run(database, lamps)
    [text] = digests(database)
    assert "bob@" in text and "ann@" not in text


@ON_SQLITE  # for its triggers
async def test_crash_before_the_commit_tells_of_nothing(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, ["ann@there.example"], age=7 * HOUR)
    # What comes last in the transaction fails, as if the power had.
    change(database, "CREATE TRIGGER crash BEFORE UPDATE OF told_at ON signups BEGIN SELECT RAISE(ABORT, 'x'); END")
    with pytest.raises(Exception, match="x"):
        await run(database, lamps)
    assert digests(database) == []
    change(database, "DROP TRIGGER crash")
    await run(database, lamps)
    assert len(digests(database)) == 1


async def test_two_that_have_read_the_same_tell_once(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, ["ann@there.example"], age=7 * HOUR)
    await asyncio.gather(run(database, lamps), run(database, lamps))
    assert len(digests(database)) == 1


async def test_server_that_stops_begins_no_more(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, ["ann@there.example"], age=7 * HOUR)
    await run(database, lamps, closing=True)
    assert digests(database) == []


async def test_field_that_the_site_has_no_more_is_still_told(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, ["ann@there.example"], age=7 * HOUR)
    change(database, """UPDATE signups SET fields = '{"old": "Oak"}'""")
    await run(database, lamps)
    assert "old\n  Oak" in digests(database)[0]


async def test_server_tells_at_its_start(settings: Settings, lamps: Reception) -> None:
    made = Runtime(settings, lambda: {"lamps": lamps})
    async with opened(made.steps()):
        await sign_up(made.database, lamps, ["ann@there.example"], age=DAY)
        change(made.database, "UPDATE jobs SET due_at = 0")
    async with opened(made.steps()):
        await eventually(lambda: len(digests(made.database)) == 1)


# -- mails that failed -------------------------------------------------------------------------------------------------


async def test_owner_is_told_of_what_failed(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, ["ann@there.example"])
    fail(database, "kind = 'confirm'", reply="rcpt: 550 5.1.1\nnobody")
    fail(database, "kind = 'notice'", reply="gave up after 12 attempts")
    await run(database, lamps)
    [text] = digests(database)
    assert "ann@there.example\n  Request to confirm, 20" in text and "\n  rcpt: 550 5.1.1 nobody\n" in text
    assert "owner@bikeshed.example\n  Notice of a signup, 20" in text and "gave up after 12 attempts" in text
    assert "not follow the link" not in text


@pytest.mark.parametrize(
    "instead",
    [
        "state = 'sent'",
        "state = 'cancelled'",
        "state = 'suppressed'",
        "site = 'chairs'",
        f"settled_at = settled_at - {8 * DAY}",
        f"settled_at = settled_at + {HOUR}",  # just now: it is left to the next
    ],
)
async def test_nothing_that_failed_to_tell(database: Database, lamps: Reception, instead: str) -> None:
    await sign_up(database, lamps, ["ann@there.example"])
    fail(database)
    change(database, f"UPDATE outbox SET {instead} WHERE kind = 'confirm'")
    await run(database, lamps)
    assert digests(database) == []


async def test_what_failed_is_told_once_and_what_fails_later_in_the_next(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, ["ann@there.example", "bob@there.example"])
    fail(database, "kind = 'confirm' AND signup_id = 1")
    await run(database, lamps)
    await run(database, lamps)
    assert len(digests(database)) == 1
    # In the same moment as the digest, but its transaction was not committed yet when that looked.
    [(told_at,)] = change(database, "SELECT max(created_at) FROM outbox WHERE kind = 'digest'")
    fail(database, "kind = 'confirm' AND signup_id = 2", ago=time.time() - told_at + 0.01)
    pass_time(database, DAY)
    await run(database, lamps)
    await run(database, lamps)
    first, second = digests(database)
    assert ("ann@" in first, "bob@" in first) == (True, False) and ("ann@" in second, "bob@" in second) == (False, True)


async def test_digest_that_failed_is_no_reason_for_another(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, ["ann@there.example"])
    fail(database)
    await run(database, lamps)
    fail(database, "kind = 'digest'", ago=0)
    pass_time(database, DAY)
    await run(database, lamps)
    assert len(digests(database)) == 1


async def test_of_many_that_failed_some_are_listed_and_the_others_counted(
    database: Database, lamps: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "MOST_FAILED", 2)
    await sign_up(database, lamps, numbered(5))
    fail(database)
    await run(database, lamps)
    await run(database, lamps)
    [text] = digests(database)
    assert text.count("Request to confirm") == 2 and "3 more are not shown" in text


async def test_new_signups_are_counted_and_are_no_reason_for_a_digest(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, ["old@there.example"], age=8 * DAY)
    change(database, "UPDATE signups SET status = 'confirmed'")
    await sign_up(database, lamps, numbered(3), age=2 * HOUR)
    await sign_up(database, lamps, ["spam@there.example"], age=2 * HOUR, spam="honeypot")
    change(database, "UPDATE signups SET status = 'confirmed' WHERE id = 2")
    await run(database, lamps)
    assert digests(database) == []
    fail(database, "kind = 'confirm' AND signup_id = 3")
    await run(database, lamps)
    [text] = digests(database)
    assert "  Confirmed: 1\n  Not confirmed: 2\n  Taken for spam: 1\n" in text


async def test_what_was_imported_is_not_counted(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, ["ann@there.example"], age=2 * HOUR)
    for number, age in enumerate((2 * HOUR, 99 * DAY)):
        values = f"'lamps', '{number}@there.example', '{{}}', 'k{number}', {time.time() - age}"
        change(database, f"INSERT INTO signups (site, email, fields, key, created_at) VALUES ({values})")
    fail(database)
    await run(database, lamps)
    [text] = digests(database)
    assert "  Not confirmed: 1\n" in text and "Accepted" not in text


async def test_signups_before_the_last_digest_are_not_counted_again(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, numbered(3), age=2 * HOUR)
    fail(database, "kind = 'confirm' AND signup_id = 1", ago=2 * HOUR)
    await run(database, lamps)
    pass_time(database, HOUR)
    await sign_up(database, lamps, ["new@there.example"], age=HOUR / 2)
    fail(database, "kind = 'confirm' AND signup_id = 2", ago=HOUR / 2)
    await run(database, lamps)
    assert ["  Not confirmed: 3\n" in digests(database)[0], "  Not confirmed: 1\n" in digests(database)[1]] == [
        True
    ] * 2


async def test_one_that_is_sent_again_while_it_is_written_is_not_told_of(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, ["ann@there.example"])
    fail(database)
    found = await database.read(digest.untold, "lamps")
    told, content = digest._fitting(lamps, found, {})
    change(database, "UPDATE outbox SET state = 'pending', settled_at = NULL WHERE kind = 'confirm'")
    assert not await database.transact(digest.tell, "lamps", found, told, digest._mails(lamps, content))
    assert digests(database) == []


async def test_two_that_have_read_the_same_failure_tell_once(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, ["ann@there.example"])
    fail(database)
    found = [await database.read(digest.untold, "lamps") for _ in range(2)]
    writing = []
    for one in found:
        told, content = digest._fitting(lamps, one, {})
        writing.append(database.transact(digest.tell, "lamps", one, told, digest._mails(lamps, content)))
    assert sorted(await asyncio.gather(*writing)) == [False, True]
    assert len(digests(database)) == 1


@ON_SQLITE  # for its triggers
async def test_crash_before_the_commit_forgets_no_failure(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, ["ann@there.example"])
    fail(database)
    change(database, "CREATE TRIGGER crash BEFORE UPDATE OF created_at ON outbox BEGIN SELECT RAISE(ABORT, 'x'); END")
    with pytest.raises(Exception, match="x"):
        await run(database, lamps)
    assert digests(database) == []
    change(database, "DROP TRIGGER crash")
    await run(database, lamps)
    assert len(digests(database)) == 1


async def test_none_is_longer_than_mail_readers_show_and_none_is_left_out(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, numbered(20), age=7 * HOUR)
    change(database, f"""UPDATE signups SET fields = '{{"message": "{"<word> " * 600}"}}'""")
    fail(database, reply="&" * 5000)
    await run(database, lamps)
    texts = digests(database)
    assert len(texts) > 1 and all(len(html.encode()) <= LONGEST for html in digests(database, "html"))
    assert [sum(f"E-mail\n  {address}" in text for text in texts) for address in numbered(20)] == [1] * 20
    assert ["Request to confirm" in text for text in texts] == [True] + [False] * (len(texts) - 1)


@ON_SQLITE
async def test_what_is_confirmed_costs_the_look_nothing(database: Database) -> None:
    plans: list[str] = []

    def look(connection: Connection) -> None:
        @event.listens_for(connection, "before_cursor_execute")
        def explain(_: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
            raw = connection.connection.cursor()
            plans.extend(str(row) for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

        found = digest.untold(connection, "lamps")
        digest.arrived(connection, "lamps", found)
        registry.purge_waiting(connection, DAY)

    await database.read(look)
    assert len([plan for plan in plans if "ix_signups_waiting" in plan]) == 2
    assert not [plan for plan in plans if "SCAN signups'" in plan]
    # The one walk, which ends at the first that is too old.
    assert len([plan for plan in plans if "SCAN outbox'" in plan]) == 1
