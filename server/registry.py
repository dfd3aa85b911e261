"""What an operator sees of the signups and does about them: find, show, release what was no spam, remove what is old.

Functions of a connection, like the outbox's ledger. Knows no HTTP, no command line and no site.toml.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)

from server.db.across import announce
from server.db.tables import now, outbox, signups, suppressions
from server.outbox import ledger
from server.outbox.ledger import Purged, Verdict


class Status(StrEnum):
    """What a signup is. `unconfirmed`: its address has not answered; `accepted`: its site does not ask."""

    UNCONFIRMED = "unconfirmed"
    CONFIRMED = "confirmed"
    ACCEPTED = "accepted"
    SPAM = "spam"


WANTED = frozenset(Status) - {Status.SPAM}

# In words, not as parameters: only so does SQLite see that the index of those two is enough.
WAITING = signups.c.status.in_(bindparam("waiting", ["unconfirmed", "spam"], expanding=True, literal_execute=True))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which signups: each part narrows, an empty one does not. `since`: come at or after it, in seconds since 1970."""

    statuses: frozenset[Status] = frozenset()
    site: str | None = None
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A signup as it stands. Times are seconds since 1970; `read_at` is when this was so, by the same clock."""

    id: int
    site: str
    status: Status
    spam: str | None
    email: str
    name: str | None
    fields: Mapping[str, Any]
    consents: Mapping[str, str] | None
    created_at: float
    confirmed_at: float | None
    told_at: float | None
    read_at: float


@dataclass(frozen=True, slots=True)
class Account:
    """All that is known of a signup. `suppressed`: why its address gets no mail of the site, None where it does."""

    entry: Entry
    mails: list[ledger.Entry]
    suppressed: str | None


# -- looking -----------------------------------------------------------------------------------------------------------

_ENTRY = select(
    signups.c.id,
    signups.c.site,
    signups.c.status,
    signups.c.spam,
    signups.c.email,
    signups.c.name,
    signups.c.fields,
    signups.c.consents,
    signups.c.created_at,
    signups.c.confirmed_at,
    signups.c.told_at,
    now().label("read_at"),
)


def _entry(row: Row[*tuple[Any, ...]]) -> Entry:
    values = row._asdict()
    return Entry(status=Status(values.pop("status")), **values)


def _matching(wanted: Filter) -> ColumnElement[bool]:
    conditions = [
        signups.c.status.in_([status.value for status in wanted.statuses]) if wanted.statuses else None,
        signups.c.site == wanted.site if wanted.site is not None else None,
        signups.c.created_at >= wanted.since if wanted.since is not None else None,
    ]
    return and_(True, *(condition for condition in conditions if condition is not None))


def find(connection: Connection, wanted: Filter, limit: int) -> list[Entry]:
    """The newest that match, newest first, `limit` of them at most."""
    query = _ENTRY.where(_matching(wanted)).order_by(signups.c.id.desc()).limit(limit)
    return [_entry(row) for row in connection.execute(query)]


def following(connection: Connection, wanted: Filter, after: int, limit: int) -> list[Entry]:
    """The `limit` that match and follow the id `after`, oldest first."""
    query = _ENTRY.where(_matching(wanted), signups.c.id > after).order_by(signups.c.id).limit(limit)
    return [_entry(row) for row in connection.execute(query)]


def fields(connection: Connection, wanted: Filter, after: int, limit: int) -> list[tuple[int, Mapping[str, Any]]]:
    """The ids and the fields alone of the `limit` that match and follow the id `after`, oldest first."""
    query = select(signups.c.id, signups.c.fields).where(_matching(wanted), signups.c.id > after)
    return [(row.id, row.fields) for row in connection.execute(query.order_by(signups.c.id).limit(limit))]


def extent(connection: Connection, wanted: Filter) -> tuple[int, int]:
    """How many match, and the greatest id of them, 0 without any."""
    query = select(func.count(), func.coalesce(func.max(signups.c.id), 0)).where(_matching(wanted))
    count, last = connection.execute(query).one()
    return count, last


def of(connection: Connection, recipient_hash: str) -> list[Entry]:
    """All of one address (see `suppressions.recipient_hash`), oldest first."""
    query = _ENTRY.where(signups.c.recipient_hash == recipient_hash).order_by(signups.c.id)
    return [_entry(row) for row in connection.execute(query)]


def show(connection: Connection, id: int) -> Account | None:
    """One signup; None where there is none of this id."""
    row = connection.execute(_ENTRY.where(signups.c.id == id)).first()
    if row is None:
        return None
    listed = and_(
        suppressions.c.recipient_hash == signups.c.recipient_hash,
        or_(suppressions.c.site == signups.c.site, suppressions.c.site == ""),
    )
    reason = connection.execute(select(suppressions.c.reason).join(signups, listed).where(signups.c.id == id)).scalar()
    return Account(_entry(row), ledger.mails(connection, outbox.c.signup_id == id), reason)


# -- doing -------------------------------------------------------------------------------------------------------------


def release(connection: Connection, wanted: Collection[int], asks: Mapping[str, bool]) -> list[Verdict]:
    """Has these go on as what they would have been had nobody taken them for spam, and their mails go.

    `asks`: for each site, whether it wants addresses confirmed; the owner's notice then waits for that.
    """
    query = select(signups.c.id, signups.c.site, signups.c.status, outbox.c.kind)
    mail = and_(outbox.c.signup_id == signups.c.id, outbox.c.recipient_hash.is_not(None))
    query = query.outerjoin(outbox, mail).where(signups.c.id.in_(wanted)).with_for_update(of=signups)
    found = {row.id: row for row in connection.execute(query)}
    verdicts = [Verdict(id, _refusal(found.get(id), asks)) for id in dict.fromkeys(wanted)]
    chosen = [found[verdict.id] for verdict in verdicts if verdict.refusal is None]
    for status in WANTED:
        ids = [row.id for row in chosen if _status(row, asks) is status]
        connection.execute(update(signups).where(signups.c.id.in_(ids)).values(status=status.value, spam=None))
        ready = and_(outbox.c.signup_id.in_(ids), outbox.c.state == "awaiting")
        if status is Status.UNCONFIRMED:
            ready = and_(ready, outbox.c.recipient_hash.is_not(None))
        connection.execute(update(outbox).where(ready).values(state="pending", due_at=now()))
    announce(connection)
    return verdicts


def _refusal(row: Row[*tuple[Any, ...]] | None, asks: Mapping[str, bool]) -> str | None:
    if row is None:
        return "there is no such signup"
    if row.status != Status.SPAM:
        return f"it is not spam but {row.status}"
    return None if row.site in asks else f"there is no site {row.site} any more, so nothing says how it goes on"


def _status(row: Row[*tuple[Any, ...]], asks: Mapping[str, bool]) -> Status:
    """By the mail that was written for its visitor, too: without one that asks, nobody could confirm."""
    if not asks[row.site]:
        return Status.ACCEPTED
    return {"confirm": Status.UNCONFIRMED, "already": Status.CONFIRMED}.get(row.kind, Status.ACCEPTED)


# -- retention ---------------------------------------------------------------------------------------------------------

# A signup takes its mails along, and one that is to be sent must be.
_settled = ~exists().where(outbox.c.signup_id == signups.c.id, outbox.c.state == "pending")


def purge(connection: Connection, older_than: float, after: int = 0, limit: int = 200) -> Purged:
    """Removes signups that came more than `older_than` seconds ago, with their mails, among the `limit` that follow the
    id `after`; but none of which a mail is pending.

    All are looked at: what was imported is older than what stands before it.
    """
    over = and_(signups.c.created_at < now() - older_than, _settled)
    query = select(signups.c.id, over.label("over"))
    rows = connection.execute(query.where(signups.c.id > after).order_by(signups.c.id).limit(limit)).all()
    old = [row.id for row in rows if row.over]
    count = _remove(connection, select(signups.c.id).where(signups.c.id.in_(old))) if old else 0
    return Purged(count, rows[-1].id if len(rows) == limit else None)


def purge_waiting(connection: Connection, older_than: float, after: int = 0, limit: int = 200) -> Purged:
    """Removes up to `limit` of those that nobody confirmed, `older_than` seconds after the owner was told of them and
    never before, and of the spam that came so long ago; but none of which a mail is pending."""
    before = now() - older_than
    over = or_(
        and_(signups.c.status == Status.UNCONFIRMED.value, signups.c.told_at < before),
        and_(signups.c.status == Status.SPAM.value, signups.c.created_at < before),
    )
    count = _remove(connection, select(signups.c.id).where(WAITING, over, _settled).limit(limit))
    return Purged(count, after if count == limit else None)


def _remove(connection: Connection, chosen: Select[int]) -> int:
    # Locked first, looked at again then: who confirms one just now has mail on its way, which must not go with it.
    ids = connection.execute(chosen.with_for_update()).scalars().all()
    return connection.execute(delete(signups).where(signups.c.id.in_(ids), _settled)).rowcount
