"""The rows of the outbox: added, claimed under a lease, settled one by one. Every function is a statement or two.

A row is *pending* until it is *sent*, *failed*, *cancelled* or *suppressed*; before that it may be *awaiting* its
visitor's confirmation. A pending row whose lease has not run out
belongs to its owner; one whose lease has run out (its owner died) belongs to nobody. All times are the database's (see
`db.tables.now`).
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Double,
    Row,
    Select,
    Update,
    and_,
    bindparam,
    case,
    exists,
    func,
    insert,
    null,
    or_,
    select,
    update,
)

from server.db.across import announce
from server.db.tables import attempts, messages, now, outbox, suppressions
from server.mail.message import Message
from server.outbox import budget as budgets


class Outcome(StrEnum):
    """How an attempt ended (the design's table). The first two are final."""

    SENT = "sent"
    FAILED = "failed"
    DEFERRED = "deferred"
    HELD = "held"
    UNCERTAIN = "uncertain"


FINAL = frozenset({Outcome.SENT, Outcome.FAILED})


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to be sent. `to_visitor`: its recipient is who filled in the form, not the owner of the site.

    `state`: pending, awaiting, or suppressed where it is only kept, for the reason `reply`.
    """

    kind: str
    message: Message
    to_visitor: bool
    state: str = "pending"
    reply: str | None = None


@dataclass(frozen=True, slots=True)
class Addressed:
    """A mail, and the site and the signup that it is about. `trace`: the traceparent of what writes it."""

    site: str
    signup_id: int | None
    mail: Mail
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A row that is ours to send until its lease runs out. `attempts` counts those before this one.

    `message` is None where it was purged.
    """

    message: bytes | None
    id: int
    site: str
    kind: str
    sender: str
    recipient: str
    domain: str
    to_visitor: bool
    attempts: int
    age_seconds: float
    signup_id: int | None
    trace: str | None


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an attempt at the row `id` ended, as `owner` tells it: after `seconds`, to be tried again in `retry_in`.

    With `suppress` its recipient gets no mail any more. `again`: it was told before, and the answer got lost.
    """

    id: int
    owner: str
    outcome: Outcome
    reply: str
    seconds: float
    retry_in: float | None = None
    suppress: bool = False
    again: bool = False


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits: how many rows, and the age of the oldest in seconds (None without any)."""

    pending: int
    oldest_seconds: float | None


def recipient_hash(address: str) -> str:
    """What stands for an address where the address itself need not be known: SHA-256, capitals made small."""
    return hashlib.sha256(address.lower().encode("utf-8", "replace")).hexdigest()


def _row(one: Addressed) -> dict[str, object]:
    message = one.mail.message
    return {
        "signup_id": one.signup_id,
        "site": one.site,
        "kind": one.mail.kind,
        "sender": message.sender,
        "recipient": message.recipient,
        "domain": message.recipient.rpartition("@")[2].lower(),
        "recipient_hash": recipient_hash(message.recipient) if one.mail.to_visitor else None,
        "message_id": message.message_id,
        "state": one.mail.state,
        "reply": one.mail.reply,
        "ended": one.mail.state == "suppressed",
        "trace": one.trace,
    }


# By Message-ID and not in order: for that SQLite would be sent one row at a time.
_ADD = (
    insert(outbox)
    .values(
        attempts=0,
        uncertain=0,
        due_at=now(),
        created_at=now(),
        settled_at=case((bindparam("ended", type_=Boolean()), now())),
    )
    .returning(outbox.c.id, outbox.c.message_id)
)
_ADD_MESSAGES = insert(messages)


def add(connection: Connection, mails: Sequence[Addressed]) -> list[int]:
    """Writes mails, due now or as soon as they await nothing; answers the ids of their rows."""
    if not mails:
        return []
    by_message_id = {message_id: id for id, message_id in connection.execute(_ADD, [_row(one) for one in mails])}
    ids = [by_message_id[one.mail.message.message_id] for one in mails]
    data = [{"outbox_id": id, "data": one.mail.message.data} for id, one in zip(ids, mails, strict=True)]
    connection.execute(_ADD_MESSAGES, data)
    announce(connection)
    return ids


# -- claims ------------------------------------------------------------------------------------------------------------


def _unleased() -> ColumnElement[bool]:
    return or_(outbox.c.lease_until.is_(None), outbox.c.lease_until < now())


def _claim(besides: bool) -> Update:
    due = select(outbox.c.id).where(outbox.c.state == "pending", outbox.c.due_at <= now(), _unleased())
    if besides:
        due = due.where(outbox.c.domain.not_in(bindparam("besides", expanding=True)))
    due = due.order_by(outbox.c.due_at, outbox.c.id).limit(bindparam("most")).with_for_update(skip_locked=True)
    # A table of its own: PostgreSQL could run a mere subquery again for each row, and so take more than was asked.
    chosen = select(due.cte("due").c.id)
    # To somebody who wanted no more and signs up again, one kind may go: that which asks.
    listed = and_(
        suppressions.c.recipient_hash == outbox.c.recipient_hash,
        or_(suppressions.c.site == "", suppressions.c.site == outbox.c.site),
        or_(suppressions.c.reason == "bounced", outbox.c.kind != "confirm"),
    )
    suppressed = exists().where(listed).correlate(outbox)
    return (
        update(outbox)
        .where(outbox.c.id.in_(chosen))
        .values(
            state=case((suppressed, "suppressed"), else_="pending"),
            settled_at=case((suppressed, now())),
            lease_owner=case((suppressed, null()), else_=bindparam("owner")),
            lease_until=case((suppressed, null()), else_=now() + bindparam("lease", type_=Double())),
        )
        .returning(
            outbox.c.state,
            outbox.c.id,
            outbox.c.site,
            outbox.c.kind,
            outbox.c.sender,
            outbox.c.recipient,
            outbox.c.domain,
            outbox.c.recipient_hash.is_not(None).label("to_visitor"),
            outbox.c.attempts,
            (now() - outbox.c.created_at).label("age_seconds"),
            outbox.c.signup_id,
            outbox.c.trace,
        )
    )


# Made once: to build a statement costs more than to run it.
_CLAIM = {besides: _claim(besides) for besides in (False, True)}
_MESSAGES = select(messages).where(messages.c.outbox_id.in_(bindparam("ids", expanding=True)))


def claim(
    connection: Connection,
    owner: str,
    limit: int,
    lease_seconds: float,
    besides: Collection[str] = (),
    budget: int | None = None,
) -> list[Claimed]:
    """Takes up to `limit` due rows that no other owner holds, oldest due first, in one statement.

    None that goes to a domain of `besides`, and no more than there is of the `budget`. What goes to a suppressed
    address ends here, as suppressed.
    """
    if budget is not None and not (limit := min(limit, budgets.left(connection, budget, hold=True))):
        return []
    values = {"owner": owner, "most": limit, "lease": lease_seconds}
    if besides:
        values["besides"] = list(besides)
    taken = [row for row in connection.execute(_CLAIM[bool(besides)], values) if row.state == "pending"]
    found = connection.execute(_MESSAGES, {"ids": [row.id for row in taken]}) if taken else ()
    if budget is not None and taken:
        budgets.take(connection, len(taken))
    data = {id: message for id, message in found}
    return sorted((_claimed(row, data.get(row.id)) for row in taken), key=lambda row: row.id)


def _claimed(row: Any, message: bytes | None) -> Claimed:
    return Claimed(message, *row[1:])


def renew(connection: Connection, owner: str, ids: Collection[int], lease_seconds: float) -> list[int]:
    """Extends the leases that `owner` has on these rows, and answers which it has. What it holds besides is nobody's
    work: that runs out."""
    kept = connection.execute(
        update(outbox)
        .where(outbox.c.id.in_(ids), outbox.c.state == "pending", outbox.c.lease_owner == owner)
        .values(lease_until=now() + lease_seconds)
        .returning(outbox.c.id)
    )
    return list(kept.scalars())


def release(connection: Connection, owner: str, ids: Collection[int] | None = None) -> None:
    """Gives back these rows, or every row, that `owner` still holds."""
    ours = and_(outbox.c.state == "pending", outbox.c.lease_owner == owner)
    if ids is not None:
        ours = and_(ours, outbox.c.id.in_(ids))
    given = connection.execute(update(outbox).where(ours).values(lease_owner=None, lease_until=None))
    if given.rowcount:
        budgets.give_back(connection, given.rowcount)
        announce(connection)  # another may have them at once


def put_off(connection: Connection, owner: str, ids: Collection[int], domain: str, seconds: float) -> None:
    """Gives back these rows of the owner's, and lets what is due for their domain, and nobody's, wait so long."""
    release(connection, owner, ids)
    connection.execute(
        update(outbox)
        .where(outbox.c.state == "pending", outbox.c.domain == domain, outbox.c.due_at < now() + seconds, _unleased())
        .values(due_at=now() + seconds)
    )


def mend_times(connection: Connection, lease_seconds: float, longest_wait: float) -> None:
    """Undoes what a clock that was set back would do: times that lie further ahead than any that is ever written.

    A lease may end in `lease_seconds` at most, a retry be due in `longest_wait` at most; and a mail that was never
    tried is due from when it was written.
    """
    pending = outbox.c.state == "pending"
    never_tried = and_(outbox.c.outcome.is_(None), outbox.c.created_at > now())
    connection.execute(
        update(outbox)
        .where(pending, outbox.c.due_at > now(), or_(outbox.c.due_at > now() + longest_wait, never_tried))
        .values(due_at=now())
    )
    connection.execute(
        update(outbox)
        .where(pending, outbox.c.due_at <= now(), outbox.c.lease_until > now() + 2 * lease_seconds)
        .values(lease_owner=None, lease_until=None)
    )


# -- settling ----------------------------------------------------------------------------------------------------------

_SETTLE = (
    update(outbox)
    .where(outbox.c.id == bindparam("row"))
    .values(
        state=bindparam("next_state"),
        outcome=bindparam("ended"),
        reply=bindparam("said"),
        attempts=outbox.c.attempts + bindparam("tried"),
        uncertain=outbox.c.uncertain + bindparam("unsure"),
        due_at=case(
            (bindparam("pause", type_=Double()).is_(None), outbox.c.due_at),
            else_=now() + bindparam("pause", type_=Double()),
        ),
        settled_at=case((bindparam("next_state") != "pending", now())),
        lease_owner=None,
        lease_until=None,
    )
)
_SETTLED = (
    select(outbox.c.id, outbox.c.state, outbox.c.lease_owner, outbox.c.recipient_hash)
    .where(outbox.c.id.in_(bindparam("ids", expanding=True)))
    .with_for_update()
)
_LOG_ATTEMPT = insert(attempts).values(ended_at=now())


def settle(connection: Connection, settlements: Sequence[Settlement]) -> list[bool]:
    """Writes down how attempts ended and gives the rows back; answers which of them changed their rows.

    One whose lease ran out changes nothing, for another has the row by now; but a mail that was accepted is sent,
    whoever holds its row. Each attempt is kept in the log.
    """
    rows = {row.id: row for row in connection.execute(_SETTLED, {"ids": [one.id for one in settlements]})}
    written = {one.id for one in settlements if one.again and _is_logged(connection, one)}
    known = [one for one in settlements if one.id in rows and one.id not in written]
    ours = [one.id not in written and _is_ours(one, rows.get(one.id)) for one in settlements]
    if changes := [_change(one) for one, mine in zip(settlements, ours, strict=True) if mine]:
        connection.execute(_SETTLE, changes)
    if known:
        connection.execute(_LOG_ATTEMPT, [_attempt(one) for one in known])
    if held := sum(one.outcome is Outcome.HELD for one in known):
        budgets.give_back(connection, held)
    for one in known:
        if one.suppress and rows[one.id].recipient_hash is not None:
            suppress(connection, rows[one.id].recipient_hash, "bounced", one.reply)
    return [mine or one.id in written for one, mine in zip(settlements, ours, strict=True)]


def _is_logged(connection: Connection, one: Settlement) -> bool:
    """Whether this very attempt is in the log. No two of a mail took as long to the nanosecond."""
    same = and_(attempts.c.outbox_id == one.id, attempts.c.seconds == one.seconds)
    return connection.execute(select(attempts.c.id).where(same)).first() is not None


def _is_ours(one: Settlement, row: Row[*tuple[Any, ...]] | None) -> bool:
    if row is None:
        return False
    if one.outcome is Outcome.SENT:
        return bool(row.state != "sent")
    return bool(row.state == "pending" and row.lease_owner == one.owner)


def _change(one: Settlement) -> dict[str, object]:
    return {
        "row": one.id,
        "next_state": one.outcome.value if one.outcome in FINAL else "pending",
        "ended": one.outcome.value,
        "said": one.reply,
        # held is nobody's attempt: the mail never had its chance
        "tried": int(one.outcome is not Outcome.HELD),
        "unsure": int(one.outcome is Outcome.UNCERTAIN),
        "pause": one.retry_in,
    }


def _attempt(one: Settlement) -> dict[str, object]:
    return {"outbox_id": one.id, "outcome": one.outcome.value, "reply": one.reply, "seconds": one.seconds}


def suppress(connection: Connection, hashed: str, reason: str, reply: str | None = None, site: str = "") -> None:
    """From now on this recipient (see `recipient_hash`) gets no mail from `site`; empty: from none. One that is
    suppressed stays so."""
    listed = and_(suppressions.c.recipient_hash == hashed, suppressions.c.site == site)
    if connection.execute(select(suppressions.c.reason).where(listed)).first() is None:
        connection.execute(
            insert(suppressions).values(recipient_hash=hashed, site=site, reason=reason, reply=reply, created_at=now())
        )


# -- looking -----------------------------------------------------------------------------------------------------------


def _next_due(besides: bool) -> Select[float | None, float | None]:
    free = select(outbox.c.due_at).where(outbox.c.state == "pending", _unleased())
    if besides:
        free = free.where(outbox.c.domain.not_in(bindparam("besides", expanding=True)))
    free = free.order_by(outbox.c.due_at, outbox.c.id).limit(1)
    lease_end = select(func.min(outbox.c.lease_until)).where(
        outbox.c.state == "pending", outbox.c.due_at <= now(), outbox.c.lease_until >= now()
    )
    return select(free.scalar_subquery() - now(), lease_end.scalar_subquery() - now())


_NEXT_DUE = {besides: _next_due(besides) for besides in (False, True)}


def next_due(connection: Connection, besides: Collection[str] = (), budget: int | None = None) -> float | None:
    """Seconds until a pending row can be claimed (0 or less: now), None where there is none to wait for.

    None that goes to a domain of `besides` is counted.
    """
    times = connection.execute(_NEXT_DUE[bool(besides)], {"besides": list(besides)} if besides else {}).one()
    due: float | None = min((seconds for seconds in times if seconds is not None), default=None)
    if due is None or budget is None:
        return due
    return max(due, budgets.seconds_to_wait(connection, budget))


def backlog(connection: Connection) -> Backlog:
    """What waits to be sent."""
    found = connection.execute(
        select(func.count(), now() - func.min(outbox.c.created_at)).where(outbox.c.state == "pending")
    )
    count, oldest = found.one()
    return Backlog(count, oldest)


_ENDED = select(outbox.c.state, func.count()).where(outbox.c.state != "pending").group_by(outbox.c.state)
_WAITING = (
    select(func.coalesce(outbox.c.outcome, "new"), func.count())
    .where(outbox.c.state == "pending")
    .group_by(outbox.c.outcome)
)


def depth(connection: Connection) -> dict[str, int]:
    """How many rows there are in each state; of the pending ones, by how the last attempt ended (`new`: none yet)."""
    # Two questions: the index answers the first, so that of what has ended no row is looked at.
    return {state: count for query in (_ENDED, _WAITING) for state, count in connection.execute(query)}
