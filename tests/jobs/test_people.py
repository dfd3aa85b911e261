"""What is held about one address is shown whole and removed whole; nothing of anybody else is."""

from pathlib import Path

import pytest

from server.db import Database
from server.db.tables import metadata
from server.jobs import digest, people
from server.jobs.people import BeingSent
from server.mail.mailbox import Mailbox
from server.outbox.store import recipient_hash
from server.signup import Reception
from tests.conftest import ON_SQLITE
from tests.jobs.test_digest import digests, fail, pass_time, run
from tests.signups import HOUR, change, sign_up

ANN, BOB, CAT = "ann@there.example", "bob@there.example", "cat@there.example"


async def everything(database: Database) -> str:
    """All that the database says, in one text."""
    found = [row for table in metadata.tables for row in change(database, f"SELECT * FROM {table}")]
    return "\n".join(str(row) for row in found).replace("=\\r\\n", "").lower()


async def test_all_is_shown(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, [ANN, BOB, ANN.upper()], age=7 * HOUR, news=True)
    await run(database, lamps)
    held = await database.read(people.held, "aNN@There.example")
    assert [(one.id, one.consents) for one in held.signups] == [
        (1, {"news": "Write to me when there are new lamps."}),
        (3, {"news": "Write to me when there are new lamps."}),
    ]
    assert [(one.entry.signup_id, one.entry.kind) for one in held.mails] == [
        (id, kind) for id in (1, 3) for kind in ("confirm", "notice")
    ]
    assert all(one.message for one in held.mails)
    assert [(one.kind, one.state) for one in held.digests] == [("digest", "new")]


async def test_nothing_is_left_but_a_hash_and_others_keep_all(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, [ANN, BOB], age=7 * HOUR, name="Somebody")
    await run(database, lamps)
    change(database, "UPDATE outbox SET state = 'sent' WHERE kind = 'digest'")
    change(database, f"INSERT INTO suppressions VALUES ('{recipient_hash(ANN)}', '', 'bounced', '550 no {ANN}', 1)")
    before = len(change(database, "SELECT * FROM outbox WHERE signup_id = 2"))
    erased = await database.transact(people.erase, ANN.upper())
    assert (erased.signups, erased.mails, erased.digests, erased.unsent, erased.untold) == (1, 2, 1, 0, 0)
    left = await everything(database)
    assert ANN not in left and BOB in left
    assert len(change(database, "SELECT * FROM outbox WHERE signup_id = 2")) == before
    found = change(database, "SELECT recipient_hash, site, reason, reply FROM suppressions ORDER BY site")
    assert found == [(recipient_hash(ANN), "", "bounced", None), (recipient_hash(ANN), "lamps", "erased", None)]
    # Bob was told of, and is not again.
    await run(database, lamps)
    assert digests(database) == []


@pytest.mark.parametrize(
    ("states", "again"), [(["pending"], True), (["failed"], True), (["sent"], False), (["sent", "pending"], True)]
)
async def test_others_in_a_digest_that_was_not_sent_are_in_the_next(
    database: Database, lamps: Reception, states: list[str], again: bool
) -> None:
    await sign_up(database, lamps, [ANN, BOB], age=7 * HOUR)
    found = await database.read(digest.untold, "lamps")
    told, content = digest._fitting(lamps, found, {})
    mails = digest._mails(lamps, content) + digest._mails(lamps, content)
    assert await database.transact(digest.tell, "lamps", found, told, mails[: len(states)])
    for number, state in enumerate(states):
        change(database, f"UPDATE outbox SET state = '{state}' WHERE kind = 'digest' AND id = {5 + number}")
    erased = await database.transact(people.erase, ANN)
    unsent = len(states) - states.count("sent")
    assert (erased.unsent, erased.untold) == (unsent, int(again))
    ended = change(database, "SELECT state FROM outbox WHERE kind = 'digest' ORDER BY id")
    assert [state for (state,) in ended] == ["sent" if state == "sent" else "cancelled" for state in states]
    await run(database, lamps)
    assert [BOB in text and ANN not in text for text in digests(database)] == [True] * again


async def test_digest_that_names_them_as_the_recipient_of_a_failed_mail(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, [ANN, BOB])
    fail(database, reply=f"550 no {ANN.upper()}")
    await run(database, lamps)
    change(database, "UPDATE outbox SET state = 'sent' WHERE kind = 'digest'")
    # Their mail was sent again meanwhile: the digest names them still.
    change(database, "UPDATE outbox SET state = 'sent', reply = '', settled_at = 1 WHERE kind = 'confirm'")
    assert len((await database.read(people.held, ANN)).digests) == 1
    erased = await database.transact(people.erase, ANN)
    assert (erased.signups, erased.digests, erased.unsent, erased.untold) == (1, 1, 0, 0)
    assert ANN not in await everything(database)
    await run(database, lamps)
    assert digests(database) == []


@pytest.mark.parametrize("state", ["pending", "failed"])
async def test_other_failures_in_a_digest_that_was_not_sent_are_in_the_next(
    database: Database, lamps: Reception, state: str
) -> None:
    await sign_up(database, lamps, [ANN, BOB, CAT])
    fail(database, "kind = 'confirm' AND signup_id < 3")
    await run(database, lamps)
    pass_time(database, HOUR)
    fail(database, "kind = 'confirm' AND signup_id = 3", ago=HOUR / 2)
    await run(database, lamps)
    assert [(ANN in text, BOB in text, CAT in text) for text in digests(database)] == [
        (True, True, False),
        (False, False, True),
    ]
    change(database, f"UPDATE outbox SET state = '{state}' WHERE kind = 'digest'")
    assert (await database.transact(people.erase, ANN)).unsent == 1
    await run(database, lamps)
    await run(database, lamps)
    # The later one too, once more: rather than that one is missing.
    assert [(BOB in text, CAT in text) for text in digests(database)] == [(False, True), (True, True)]
    assert ANN not in await everything(database)


async def test_digests_are_not_theirs_for_their_owner_has_the_address(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, [BOB], age=7 * HOUR)
    await run(database, lamps)
    assert (await database.read(people.held, lamps.site.mail.notify[0])).digests == []


@pytest.mark.parametrize("kind", ["confirm", "notice", "digest"])
async def test_what_is_being_sent_is_waited_for(database: Database, lamps: Reception, kind: str) -> None:
    await sign_up(database, lamps, [ANN, BOB], age=7 * HOUR)
    await run(database, lamps)
    lease = "state = 'pending', lease_owner = 'A', lease_until = 9e12"
    change(database, f"UPDATE outbox SET {lease} WHERE kind = '{kind}' AND coalesce(signup_id, 1) = 1")
    before = await everything(database)
    with pytest.raises(BeingSent) as refused:
        await database.transact(people.erase, ANN)
    assert len(refused.value.ids) == 1
    assert await everything(database) == before
    change(database, "UPDATE outbox SET lease_until = 1")  # its owner died
    assert (await database.transact(people.erase, ANN)).signups == 1


async def test_who_is_not_known_changes_nothing(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, [BOB])
    before = await everything(database)
    erased = await database.transact(people.erase, ANN)
    assert (erased.signups, erased.mails, erased.sites) == (0, 0, [])
    assert await everything(database) == before


@ON_SQLITE
async def test_what_was_deleted_is_not_in_the_file(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, [ANN], message="a very private message")
    await database.transact(people.erase, ANN)
    change(database, "PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"very private" not in Path(database.url.database or "").read_bytes()


MAIL = b"From: s@here.example\r\nTo: %b\r\nSubject: s\r\nMessage-ID: %b\r\n\r\n%b\r\n"


@pytest.mark.parametrize(
    ("to", "identity", "text", "theirs"),
    [
        (ANN, "<1@x>", "", True),
        (ANN.upper(), "<1@x>", "", True),
        ("owner@here.example", "<1@x>", f"from {ANN}.", True),
        ("owner@here.example", "<1@x>", "from ann@there.ex=\r\nample", True),
        ("owner@here.example", "<known@x>", "a template that names nobody", True),
        ("jo" + ANN, "<1@x>", "", False),
        ("jo." + ANN, "<1@x>", "", False),
        (ANN + ".org", "<1@x>", "", False),
        (BOB, "<1@x>", "ann", False),
    ],
)
async def test_mails_in_the_built_in_mailbox(tmp_path: Path, to: str, identity: str, text: str, theirs: bool) -> None:
    box = Mailbox(tmp_path)
    await box.open()
    await box.keep("s@here.example", [to], MAIL % (to.encode(), identity.encode(), text.encode()))
    caught = await box.about(ANN, ["<known@x>"])
    await box.remove([one.key for one in caught])
    assert (len(caught), (await box.newest(9))[0]) == ((1, 0) if theirs else (0, 1))


async def test_no_mailbox_is_made_where_there_is_none(tmp_path: Path) -> None:
    assert await Mailbox(tmp_path / "mailbox").about(ANN) == []
    assert not (tmp_path / "mailbox").exists()
