"""What an operator sees of the outbox and does about it: find, show, retry, cancel, purge.

Functions of a connection, like the store's. Each state of a mail has one word for people (`State`): a pending mail is
called by how its last attempt ended. Knows no HTTP and no command line.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, delete, func, or_, select, update

from server import tracing
from server.db.across import announce
from server.db.tables import attempts, messages, now, outbox, suppressions


class State(StrEnum):
    """What a mail is doing. The first five are pending; one that is awaiting will be once its visitor confirms."""

    NEW = "new"
    DEFERRED = "deferred"
    HELD = "held"
    UNCERTAIN = "uncertain"
    SENDING = "sending"
    AWAITING = "awaiting"
    SENT = "sent"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPPRESSED = "suppressed"


WAITING = frozenset({State.NEW, State.DEFERRED, State.HELD, State.UNCERTAIN})
PENDING = WAITING | {State.SENDING}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which mails: each part narrows, an empty one does not. `since`: written at or after it, in seconds since 1970."""

    states: frozenset[State] = frozenset()
    site: str | None = None
    kind: str | None = None
    recipient: str | None = None
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A mail as it stands. Times are seconds since 1970; `read_at` is when this was so, by the same clock.

    `request_id` is that of the request, or of the run of a job, which wrote it.
    """

    id: int
    signup_id: int | None
    site: str
    kind: str
    sender: str
    recipient: str
    message_id: str
    request_id: str | None
    state: State
    attempts: int
    uncertain: int
    reply: str | None
    created_at: float
    due_at: float
    settled_at: float | None
    read_at: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One time that a mail was tried: how it ended, what the server said, how many seconds it took, and when."""

    outcome: str
    reply: str
    seconds: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class Account:
    """All that is known of a mail. `message` is None where it was purged; `suppressed`: why its recipient gets none."""

    entry: Entry
    attempts: list[Attempt]
    message: bytes | None
    suppressed: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one mail: `refusal` says why nothing was done, None that it was."""

    id: int
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Purged:
    """A step of a purge: how many bodies it removed, and the id to go on after; None at the end."""

    count: int
    after: int | None


# -- looking -----------------------------------------------------------------------------------------------------------

_in_flight = and_(outbox.c.lease_owner.is_not(None), outbox.c.lease_until >= now())
_state: ColumnElement[str] = case(
    (outbox.c.state != "pending", outbox.c.state),
    (_in_flight, State.SENDING.value),
    else_=func.coalesce(outbox.c.outcome, State.NEW.value),
)
_ended = outbox.c.state.not_in(["pending", "awaiting"])
_ENTRY = select(
    outbox.c.id,
    outbox.c.signup_id,
    outbox.c.site,
    outbox.c.kind,
    outbox.c.sender,
    outbox.c.recipient,
    outbox.c.message_id,
    outbox.c.trace,
    _state.label("word"),
    outbox.c.attempts,
    outbox.c.uncertain,
    outbox.c.reply,
    outbox.c.created_at,
    outbox.c.due_at,
    outbox.c.settled_at,
    now().label("read_at"),
)


def _entry(row: Row[Any]) -> Entry:
    values = row._asdict()
    return Entry(state=State(values.pop("word")), request_id=tracing.request_id(values.pop("trace")), **values)


def _matching(query: Select[Any], wanted: Filter) -> Select[Any]:
    # By the word, not the column: its index would have SQLite sort all that are sent, where a walk down the ids finds
    # the newest at once, and looks at a million rows in a tenth of a second.
    if wanted.states:
        query = query.where(_state.in_([state.value for state in wanted.states]))
    if wanted.site is not None:
        query = query.where(outbox.c.site == wanted.site)
    if wanted.kind is not None:
        query = query.where(outbox.c.kind == wanted.kind)
    if wanted.recipient is not None:
        query = query.where(func.lower(outbox.c.recipient) == wanted.recipient.lower())
    if wanted.since is not None:
        query = query.where(outbox.c.created_at >= wanted.since)
    return query


def find(connection: Connection, wanted: Filter, limit: int | None) -> list[Entry]:
    """The newest mails that match, newest first, `limit` of them at most."""
    query = _matching(_ENTRY, wanted).order_by(outbox.c.id.desc()).limit(limit)
    return [_entry(row) for row in connection.execute(query)]


def ids(connection: Connection, wanted: Filter) -> list[int]:
    """All that match, oldest first."""
    query = _matching(select(outbox.c.id), wanted).order_by(outbox.c.id)
    return [row.id for row in connection.execute(query)]


def mails(connection: Connection, condition: ColumnElement[bool]) -> list[Entry]:
    """All of which `condition` holds, oldest first."""
    return [_entry(row) for row in connection.execute(_ENTRY.where(condition).order_by(outbox.c.id))]


def show(connection: Connection, id: int) -> Account | None:
    """One mail; None where there is none of this id."""
    row = connection.execute(_ENTRY.where(outbox.c.id == id)).first()
    if row is None:
        return None
    entry = _entry(row)
    tries = select(attempts.c.outcome, attempts.c.reply, attempts.c.seconds, attempts.c.ended_at)
    log = connection.execute(tries.where(attempts.c.outbox_id == id).order_by(attempts.c.id))
    message = connection.execute(select(messages.c.data).where(messages.c.outbox_id == id)).scalar()
    listed = and_(
        suppressions.c.recipient_hash == outbox.c.recipient_hash,
        or_(suppressions.c.site == "", suppressions.c.site == outbox.c.site),
    )
    why = select(suppressions.c.reason).join(outbox, listed).where(outbox.c.id == id).order_by(suppressions.c.site)
    reason = connection.execute(why).scalar()
    return Account(entry, [Attempt(*one) for one in log], message, reason)


# -- doing -------------------------------------------------------------------------------------------------------------

_REFUSED_AT_ALL: dict[State, str] = {
    State.SENT: "it was sent",
    State.SENDING: "it is being sent just now",
    State.AWAITING: "its visitor has not confirmed yet",
}


def retry(connection: Connection, wanted: Collection[int]) -> list[Verdict]:
    """Has these mails tried again, now, with all their chances; recipients that bounced are suppressed no more.

    Leaves those that are sent, are being sent, or whose text was purged.
    """

    def refusal(row: Row[Any]) -> str | None:
        if reason := _REFUSED_AT_ALL.get(State(row.word)):
            return reason
        return None if row.kept else "its text was purged, so there is nothing left to send"

    verdicts, chosen = _judge(connection, wanted, refusal)
    ended = and_(outbox.c.id.in_(chosen), outbox.c.state != "pending")
    # What ended starts anew: with its old count the first "later" of a server would be the last.
    connection.execute(
        update(outbox).where(ended).values(state="pending", attempts=0, outcome=None, reply=None, settled_at=None)
    )
    connection.execute(
        update(outbox).where(outbox.c.id.in_(chosen)).values(due_at=now(), lease_owner=None, lease_until=None)
    )
    announce(connection)
    recipients = select(outbox.c.recipient_hash).where(outbox.c.id.in_(chosen), outbox.c.recipient_hash.is_not(None))
    # Only what a server said of an address: what its owner asked for holds, and the claim sees to it.
    bounced = and_(suppressions.c.reason == "bounced", suppressions.c.recipient_hash.in_(recipients))
    connection.execute(delete(suppressions).where(bounced))
    return verdicts


def cancel(connection: Connection, wanted: Collection[int]) -> list[Verdict]:
    """Ends these mails unsent. Leaves those that are being sent just now, and those that have ended."""

    def refusal(row: Row[Any]) -> str | None:
        state = State(row.word)
        ended = None if state in PENDING | {State.AWAITING} else f"it has ended already: {state}"
        return _REFUSED_AT_ALL.get(state, ended)

    verdicts, chosen = _judge(connection, wanted, refusal)
    connection.execute(
        update(outbox)
        .where(outbox.c.id.in_(chosen))
        .values(state="cancelled", settled_at=now(), lease_owner=None, lease_until=None)
    )
    return verdicts


def _judge(
    connection: Connection, wanted: Collection[int], refusal: Callable[[Row[Any]], str | None]
) -> tuple[list[Verdict], list[int]]:
    """A verdict on each, in the order asked, and the ids of those that nothing speaks against."""
    kept = select(messages.c.outbox_id).where(messages.c.outbox_id == outbox.c.id).exists()
    query = select(outbox.c.id, _state.label("word"), kept.label("kept")).where(outbox.c.id.in_(wanted))
    found = {row.id: row for row in connection.execute(query.with_for_update())}
    verdicts = [
        Verdict(id, refusal(found[id]) if id in found else "there is no such mail") for id in dict.fromkeys(wanted)
    ]
    return verdicts, [verdict.id for verdict in verdicts if verdict.refusal is None]


# -- retention ---------------------------------------------------------------------------------------------------------


def purge(connection: Connection, older_than: float, after: int = 0, limit: int = 200) -> Purged:
    """Removes the text of mails that ended more than `older_than` seconds ago, among the `limit` kept ones that follow
    the id `after`. The rows stay, and so do the signups.

    What follows was all written later, and so ended later: where nothing old enough is left, that is the end.
    """
    before = now() - older_than
    query = (
        select(
            outbox.c.id,
            and_(_ended, outbox.c.settled_at < before).label("over"),
            (outbox.c.created_at < before).label("old"),
        )
        .join(messages, messages.c.outbox_id == outbox.c.id)
        .where(messages.c.outbox_id > after)
        .order_by(messages.c.outbox_id)
        .limit(limit)
    )
    rows = connection.execute(query).all()
    # Locked, and looked at again: one that is retried just now needs its text.
    over = select(outbox.c.id).where(outbox.c.id.in_([row.id for row in rows if row.over]), _ended).with_for_update()
    ids = connection.execute(over).scalars().all()
    connection.execute(delete(messages).where(messages.c.outbox_id.in_(ids)))
    more = len(rows) == limit and any(row.old for row in rows)
    return Purged(len(ids), rows[-1].id if more else None)


def purgeable(connection: Connection, older_than: float) -> int:
    """How many mails such a purge would go over, at most."""
    first = select(func.min(messages.c.outbox_id)).scalar_subquery()
    query = select(func.count()).where(outbox.c.id >= first, _ended, outbox.c.settled_at < now() - older_than)
    return connection.execute(query).scalar_one()
