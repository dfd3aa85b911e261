"""A database of each revision that was ever released, with rows in it, under the server of today: what was pending is
sent, what had ended stays so, and every signup is shown."""

import mailbox
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, select

from server import registry
from server.app import create_app
from server.db import Database, migrate
from server.db.tables import outbox, signups
from server.outbox import ledger
from server.outbox.store import recipient_hash
from server.registry import Filter, Status
from server.settings import load
from tests.conftest import eventually, running
from tests.outbox.conftest import mail

OWNER = "owner@bikeshed.example"
# Lately: neither retention nor a digest has anything to do with them.
THEN = float(int(time.time())) - 3600
FIELDS = {"colour": "Red", "message": "Grüße\n=1", "old": None}


@dataclass(frozen=True)
class Mail:
    """A mail of an old server; `becomes` is its state under the new one."""

    signup: int | None
    kind: str
    recipient: str
    state: str
    becomes: str
    more: dict[str, Any]


def a_mail(signup: int | None, kind: str, to: str, state: str, becomes: str | None = None, **more: Any) -> Mail:
    return Mail(signup, kind, to, state, becomes or {"pending": "sent"}.get(state, state), more)


PEOPLE = {number: f"{name}@There{number}.example" for number, name in enumerate(["Ann", "Bob", "Carla"], start=1)}
FROM_0001 = [
    a_mail(1, "welcome", PEOPLE[1], "sent", attempts=1, outcome="sent", reply="250 ok", settled_at=THEN),
    a_mail(1, "notice", OWNER, "sent", attempts=1, outcome="sent", reply="250 ok", settled_at=THEN),
    a_mail(2, "welcome", PEOPLE[2], "pending", attempts=2, outcome="deferred", reply="451 later"),
    a_mail(2, "notice", OWNER, "pending", lease_owner="one that was killed", lease_until=THEN),
    a_mail(3, "welcome", PEOPLE[3], "failed", attempts=1, outcome="failed", reply="550 no", settled_at=THEN),
    a_mail(3, "notice", OWNER, "pending", attempts=1, uncertain=1, outcome="uncertain", reply="content: cut"),
    a_mail(None, "welcome", "nobody@there.example", "pending"),
]
FROM_0002 = [
    *FROM_0001,
    a_mail(3, "welcome", "bounced@there.example", "pending", "suppressed"),
    a_mail(3, "welcome", "cancelled@there.example", "cancelled", settled_at=THEN),
]
FROM_0003 = [
    *FROM_0002,
    a_mail(4, "confirm", "asked@there.example", "pending"),
    a_mail(4, "notice", OWNER, "awaiting"),
    a_mail(5, "confirm", "spam@there.example", "awaiting"),
]
FROM_0004 = [
    *FROM_0003,
    a_mail(4, "confirm", "again@there.example", "pending", trace=f"00-{'a' * 32}-{'b' * 16}-01"),
]
MAILS = {"0001": FROM_0001, "0002": FROM_0002, "0003": FROM_0003, "0004": FROM_0004}


def people(revision: str) -> dict[str, Status]:
    """Who signed up, and what the server of today says of it."""
    found = dict.fromkeys(PEOPLE.values(), Status.ACCEPTED)
    if revision >= "0003":
        found[PEOPLE[1]] = Status.CONFIRMED
        found |= {"asked@there.example": Status.UNCONFIRMED, "spam@there.example": Status.SPAM}
    return found


def write(connection: Connection, revision: str) -> dict[str, Mail]:
    """Makes the tables as they were, with rows as the server of that time wrote them; answers the mails by
    Message-ID."""
    made = migrate.config()
    made.attributes["connection"] = connection
    command.upgrade(made, revision)
    tables = MetaData()
    tables.reflect(connection)
    for number, (email, status) in enumerate(people(revision).items(), start=1):
        row = {"site": "bikes", "email": email, "name": "Zoë", "fields": FIELDS, "created_at": THEN}
        if revision >= "0003":
            row |= {"key": f"{number:032x}", "recipient_hash": recipient_hash(email), "status": status.value}
            row |= {"consents": {"news": "Write to me."}, "spam": "honeypot" if status is Status.SPAM else None}
        assert _insert(connection, tables, "signups", row) == number
    if revision >= "0002":
        listed = {"recipient_hash": recipient_hash("bounced@there.example"), "reason": "bounced", "created_at": THEN}
        site = {"site": ""} if revision >= "0003" else {}
        connection.execute(tables.tables["suppressions"].insert().values(**listed, **site))
    return dict(_write_mail(connection, tables, revision, one) for one in MAILS[revision])


def _insert(connection: Connection, tables: MetaData, name: str, row: dict[str, Any]) -> int:
    key = connection.execute(tables.tables[name].insert().values(row)).inserted_primary_key
    assert key is not None
    return int(key[0])


def _write_mail(connection: Connection, tables: MetaData, revision: str, one: Mail) -> tuple[str, Mail]:
    message = mail(one.recipient)
    row = {
        "signup_id": one.signup,
        "site": "bikes",
        "kind": one.kind,
        "sender": message.sender,
        "recipient": one.recipient,
        "message_id": message.message_id,
        "state": one.state,
        "attempts": 0,
        "uncertain": 0,
        "due_at": THEN,
        "created_at": THEN,
        **one.more,
    }
    if revision == "0001":
        row["message"] = message.data
    else:
        row["domain"] = one.recipient.rpartition("@")[2].lower()
        row["recipient_hash"] = None if one.kind == "notice" else recipient_hash(one.recipient)
    id = _insert(connection, tables, "outbox", row)
    if revision != "0001":
        connection.execute(tables.tables["messages"].insert().values(outbox_id=id, data=message.data))
    return message.message_id, one


def states(connection: Connection) -> dict[str, str]:
    """Of all but the digest, which a server writes when it comes to it."""
    query = select(outbox.c.message_id, outbox.c.state).where(outbox.c.kind != "digest")
    return {id: state for id, state in connection.execute(query)}


def caught(data: Path) -> Counter[str]:
    """How often the built-in mailbox has each mail."""
    return Counter(str(one["Message-ID"]) for one in mailbox.Maildir(data / "mailbox"))


def test_no_revision_is_left_out() -> None:
    """Whoever adds one says here what a database of it holds."""
    assert set(MAILS) == {script.revision for script in ScriptDirectory.from_config(migrate.config()).walk_revisions()}


@pytest.mark.parametrize("revision", MAILS)
async def test_upgraded_server_goes_on(revision: str, bare_url: str, environ: dict[str, str]) -> None:
    given = {"DOORBELL_DATABASE_URL": bare_url, "DOORBELL_SECRET_KEY": "a secret of some length"}
    settings = load({**environ, **given}, env_file=None)
    database = Database(bare_url)
    try:
        mails = await database.transact(write, revision)
        async with running(create_app(settings)) as client:

            async def done() -> bool:
                return "pending" not in (await database.read(states)).values()

            await eventually(done)
            assert await database.read(states) == {id: one.becomes for id, one in mails.items()}
            went = [id for id, one in mails.items() if one.state == "pending" and one.becomes == "sent"]
            assert Counter({id: caught(settings.data_dir)[id] for id in mails if id in went}) == Counter(went)
            found = {entry.email: entry for entry in await database.read(registry.find, Filter(), 100)}
            assert {email: entry.status for email, entry in found.items()} == people(revision)
            assert {entry.created_at for entry in found.values()} == {THEN}
            assert all(entry.fields == FIELDS and entry.name == "Zoë" for entry in found.values())
            account = await database.read(ledger.show, 3)
            assert account is not None and [one.outcome for one in account.attempts] == ["sent"]
            taken = {"site": "bikes", "email": PEOPLE[1], "colour": "Red"}
            assert (await client.post("/signup", json=taken)).status_code == 202
        # It is known that these are one person, whatever the capitals.
        hashes = select(signups.c.id).where(signups.c.recipient_hash == recipient_hash(PEOPLE[1].lower()))
        assert len(await database.read(lambda connection: connection.execute(hashes).all())) == 2
    finally:
        await database.close()
