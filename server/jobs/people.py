"""What is held about one person, who is known by an address: all of it shown, or all of it removed.

Capitals do not matter: rows are found by the hash of the address. Owners are not meant: their addresses are in
site.toml.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, or_, select, update

from server import registry
from server.db.across import alone
from server.db.tables import messages, now, outbox, signups, suppressions
from server.jobs import digest
from server.mail.mailbox import naming
from server.outbox import ledger
from server.outbox.ledger import State
from server.outbox.store import recipient_hash


class BeingSent(Exception):
    """Mails that concern the person are being sent just now, by these ids. Nothing was changed."""

    def __init__(self, ids: Sequence[int]) -> None:
        super().__init__(f"mails {', '.join(map(str, ids))} are being sent just now")
        self.ids = ids


@dataclass(frozen=True, slots=True)
class Suppression:
    """That the address gets no mail from `site` (empty: from none), why, and since when (seconds since 1970)."""

    site: str
    reason: str
    reply: str | None
    created_at: float


@dataclass(frozen=True, slots=True)
class Held:
    """What the database holds: signups, mails to the person or about them alone, digests in which they are among
    others, and whether they get no mail."""

    signups: list[registry.Entry]
    mails: list[ledger.Account]
    digests: list[ledger.Entry]
    suppressions: list[Suppression]


@dataclass(frozen=True, slots=True)
class Erased:
    """What was removed: how many signups and mails, and digests that lost their text, some of them `unsent`.

    `untold`: signups of others that were in those, and will be in the next. `message_ids`: of all those mails.
    """

    signups: int = 0
    mails: int = 0
    digests: int = 0
    unsent: int = 0
    untold: int = 0
    sites: list[str] = field(default_factory=list)
    message_ids: list[str] = field(default_factory=list)


def _theirs(hashed: str) -> ColumnElement[bool]:
    own = select(signups.c.id).where(signups.c.recipient_hash == hashed)
    return or_(outbox.c.signup_id.in_(own), outbox.c.recipient_hash == hashed)


def _digests(connection: Connection, address: str) -> list[ledger.Entry]:
    """Those that told of their signups, written at the same time to the millisecond; and whose text names them, as the
    recipient of a mail that failed."""
    told = and_(
        signups.c.recipient_hash == recipient_hash(address),
        signups.c.site == outbox.c.site,
        signups.c.told_at == outbox.c.created_at,
    )
    digests = and_(outbox.c.signup_id.is_(None), outbox.c.kind == "digest")
    kept = select(outbox.c.id, messages.c.data).join(messages, messages.c.outbox_id == outbox.c.id).where(digests)
    named = naming(address)
    # A few at a time: together they may be many. Without their heads, where the owner's address is.
    texts = connection.execute(kept.execution_options(yield_per=20))
    ids = [id for id, data in texts if named(data.partition(b"\r\n\r\n")[2])]
    return ledger.mails(connection, and_(digests, or_(select(signups.c.id).where(told).exists(), outbox.c.id.in_(ids))))


def held(connection: Connection, address: str) -> Held:
    """Everything about this address."""
    hashed = recipient_hash(address)
    accounts = [ledger.show(connection, mail.id) for mail in ledger.mails(connection, _theirs(hashed))]
    listed = select(suppressions.c.site, suppressions.c.reason, suppressions.c.reply, suppressions.c.created_at)
    rows = connection.execute(listed.where(suppressions.c.recipient_hash == hashed).order_by(suppressions.c.site))
    return Held(
        registry.of(connection, hashed),
        [account for account in accounts if account is not None],
        _digests(connection, address),
        [Suppression(*row) for row in rows],
    )


def erase(connection: Connection, address: str) -> Erased:
    """Removes everything about this address but its hash, which says that it gets no mail.

    Raises BeingSent: what is on its way cannot be called back.
    """
    if connection.dialect.name == "sqlite":
        # What is deleted is overwritten in the file.
        connection.exec_driver_sql("PRAGMA secure_delete = ON")
    alone(connection, "digest")
    hashed = recipient_hash(address)
    own = signups.c.recipient_hash == hashed
    connection.execute(select(signups.c.id).where(own).with_for_update())
    mails = _locked(connection, ledger.mails(connection, _theirs(hashed)))
    digests = _locked(connection, _digests(connection, address))
    if sending := [mail.id for mail in [*mails, *digests] if mail.state is State.SENDING]:
        raise BeingSent(sending)
    sites = list(connection.execute(select(signups.c.site).where(own).distinct().order_by(signups.c.site)).scalars())
    count = connection.execute(delete(signups).where(own)).rowcount
    connection.execute(delete(outbox).where(outbox.c.recipient_hash == hashed))  # those of no signup
    unsent, untold = _take_back(connection, digests)
    _suppress(connection, hashed, sites)
    names = [mail.message_id for mail in [*mails, *digests]]
    return Erased(count, len(mails), len(digests), unsent, untold, sites, names)


def _locked(connection: Connection, found: Sequence[ledger.Entry]) -> list[ledger.Entry]:
    """The same, as they are once nobody else can claim them: who does just now is waited for, and seen."""
    these = outbox.c.id.in_([mail.id for mail in found])
    connection.execute(select(outbox.c.id).where(these).with_for_update())
    return ledger.mails(connection, these)


def _take_back(connection: Connection, digests: Sequence[ledger.Entry]) -> tuple[int, int]:
    """Removes the texts of these digests. Those that wait are cancelled, and so those that reached nobody, for without
    their texts they never will; the signups and the failed mails in them will be told of again."""
    connection.execute(delete(messages).where(messages.c.outbox_id.in_([mail.id for mail in digests])))
    unsent = untold = 0
    for site, told_at in {(mail.site, mail.created_at) for mail in digests}:
        some = {mail.id: mail.state for mail in digests if (mail.site, mail.created_at) == (site, told_at)}
        states = set(some.values())
        if states & ledger.PENDING or State.SENT not in states:
            waiting = and_(outbox.c.id.in_(list(some)), outbox.c.state.in_(["pending", "failed"]))
            cancelled = update(outbox).where(waiting).values(state="cancelled", reply=digest.TAKEN_BACK)
            cancelled = cancelled.values(settled_at=now(), lease_owner=None, lease_until=None)
            unsent += connection.execute(cancelled).rowcount
            again = and_(signups.c.site == site, signups.c.told_at == told_at)
            untold += connection.execute(update(signups).where(again).values(told_at=None)).rowcount
    return unsent, untold


def _suppress(connection: Connection, hashed: str, sites: Sequence[str]) -> None:
    """Keeps the hash, and no word of a mail server, which may name the address."""
    listed = suppressions.c.recipient_hash == hashed
    connection.execute(delete(suppressions).where(listed, suppressions.c.site.in_(sites)))
    connection.execute(update(suppressions).where(listed).values(reply=None))
    rows: list[dict[str, Any]] = [{"recipient_hash": hashed, "site": site} for site in sites]
    if rows:
        connection.execute(insert(suppressions).values(reason="erased", created_at=now()), rows)
