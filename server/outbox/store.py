"""The rows of the outbox: added, claimed under a lease, settled one by one. Every function is a statement or two.

A row is *pending* until it is *sent* or *failed*. A pending row whose lease has not run out belongs to its owner; one
whose lease has run out (its owner died) belongs to nobody. All times are the database's (see `db.tables.now`).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, Row, case, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server.db.tables import now, outbox
from server.mail.message import Message


class Outcome(StrEnum):
    """How an attempt ended (the design's table). The first two are final."""

    SENT = "sent"
    FAILED = "failed"
    DEFERRED = "deferred"
    HELD = "held"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True)
class Claimed:
    """A row that is ours to send until its lease runs out. `attempts` counts those before this one."""

    id: int
    site: str
    kind: str
    sender: str
    recipient: str
    message: bytes
    attempts: int
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits: how many rows, and the age of the oldest in seconds (None without any)."""

    pending: int
    oldest_seconds: float | None


async def add(
    connection: AsyncConnection, site: str, signup_id: int | None, mails: Iterable[tuple[str, Message]]
) -> None:
    """Writes each mail, of the kind it is given with, as a row that is due now."""
    rows = [
        {
            "signup_id": signup_id,
            "site": site,
            "kind": kind,
            "sender": mail.sender,
            "recipient": mail.recipient,
            "message_id": mail.message_id,
            "message": mail.data,
        }
        for kind, mail in mails
    ]
    if rows:
        fresh = {"state": "pending", "attempts": 0, "uncertain": 0, "due_at": now(), "created_at": now()}
        await connection.execute(insert(outbox).values(fresh), rows)


async def claim(connection: AsyncConnection, owner: str, limit: int, lease_seconds: float) -> list[Claimed]:
    """Takes up to `limit` due rows that no other owner holds, oldest due first, in one statement."""
    due = (
        select(outbox.c.id)
        .where(outbox.c.state == "pending", outbox.c.due_at <= now(), _unleased())
        .order_by(outbox.c.due_at, outbox.c.id)
        .limit(limit)
    )
    taken = await connection.execute(
        update(outbox)
        .where(outbox.c.id.in_(due))
        .values(lease_owner=owner, lease_until=now() + lease_seconds)
        .returning(
            outbox.c.id,
            outbox.c.site,
            outbox.c.kind,
            outbox.c.sender,
            outbox.c.recipient,
            outbox.c.message,
            outbox.c.attempts,
            (now() - outbox.c.created_at).label("age_seconds"),
        )
    )
    return sorted((_claimed(row) for row in taken), key=lambda row: row.id)


def _claimed(row: Row[tuple[object, ...]]) -> Claimed:
    return Claimed(**row._mapping)


def _unleased() -> ColumnElement[bool]:
    return or_(outbox.c.lease_until.is_(None), outbox.c.lease_until < now())


async def settle(
    connection: AsyncConnection, owner: str, id: int, outcome: Outcome, reply: str, retry_in: float | None
) -> bool:
    """Writes down how an attempt ended and gives the row back. `retry_in` seconds for what is to be tried again.

    False when the row is no longer the owner's: its lease ran out and another took it.
    """
    final = outcome in (Outcome.SENT, Outcome.FAILED)
    done = await connection.execute(
        update(outbox)
        .where(outbox.c.id == id, outbox.c.lease_owner == owner, outbox.c.state == "pending")
        .values(
            state=outcome.value if final else "pending",
            outcome=outcome.value,
            reply=reply,
            # held is nobody's attempt: the mail never had its chance
            attempts=outbox.c.attempts + (outcome is not Outcome.HELD),
            uncertain=outbox.c.uncertain + (outcome is Outcome.UNCERTAIN),
            due_at=outbox.c.due_at if retry_in is None else now() + retry_in,
            settled_at=now() if final else None,
            lease_owner=None,
            lease_until=None,
        )
    )
    return done.rowcount == 1


async def renew(connection: AsyncConnection, owner: str, ids: Collection[int], lease_seconds: float) -> None:
    """Extends the leases that `owner` has on these rows. What it holds besides is nobody's work: that runs out."""
    await connection.execute(
        update(outbox)
        .where(outbox.c.id.in_(ids), outbox.c.state == "pending", outbox.c.lease_owner == owner)
        .values(lease_until=now() + lease_seconds)
    )


async def release(connection: AsyncConnection, owner: str) -> None:
    """Gives back every row that `owner` still holds."""
    await connection.execute(
        update(outbox)
        .where(outbox.c.state == "pending", outbox.c.lease_owner == owner)
        .values(lease_owner=None, lease_until=None)
    )


async def next_due(connection: AsyncConnection) -> float | None:
    """Seconds until a pending row can be claimed (0 or less: now), None where nothing is pending."""
    ready = case((_unleased(), outbox.c.due_at), else_=outbox.c.lease_until)
    found = await connection.execute(select(func.min(ready) - now()).where(outbox.c.state == "pending"))
    seconds: float | None = found.scalar_one()
    return seconds


async def backlog(connection: AsyncConnection) -> Backlog:
    """What waits to be sent."""
    found = await connection.execute(
        select(func.count(), now() - func.min(outbox.c.created_at)).where(outbox.c.state == "pending")
    )
    count, oldest = found.one()
    return Backlog(count, oldest)
