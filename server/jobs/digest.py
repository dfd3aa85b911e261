"""The digest: once a day owners are told of the signups that nobody confirmed, for a lead may be among them, and of the
mails that failed for good; and then how many signups came since the last one.

What is told of is written down in the transaction that writes the mail: after a crash it is told of once, and never
forgotten. A signup has a column for that; mails that failed are those between two digests of the site.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select, update

from server import log, tracing
from server.db import Database
from server.db.across import alone
from server.db.tables import now, outbox, signups
from server.jobs.schedule import Job
from server.mail.message import Body, Content
from server.mail.templates import LONGEST
from server.outbox import store
from server.registry import WAITING
from server.signup import Reception, digest_values, entry, failure

_log = log.get(__name__)

EVERY_SECONDS = 86400.0
# How long a visitor has to confirm before the owner hears of it.
PATIENCE_SECONDS = 6 * 3600.0
# Signups and failed mails in a mail, and mails a site at a time: a flood must not become one of mails. The other
# signups are told of the next day; of the other failed mails their number is told.
MOST = 40
MOST_FAILED = 20
MAILS = 10
# How far the first digest of a site looks back: as long as the server may have been away since a mail failed.
FIRST_SECONDS = 7 * 86400.0
# What ended just now is left to the next digest: a transaction that is not committed yet may bear an earlier time, and
# who reads by time would never see it.
MARGIN_SECONDS = 60.0
# Why a digest is cancelled that told of somebody who was erased. What else it told of is told again.
TAKEN_BACK = "an address in it was erased"


@dataclass(frozen=True, slots=True)
class Untold:
    """The oldest signups and failed mails that no digest told of, and how many there are besides. Times are seconds
    since 1970: `since` is that of the last digest, `read_at` will be that of this one."""

    since: float
    read_at: float
    signups: Sequence[Row[*tuple[Any, ...]]]
    failed: Sequence[Row[*tuple[Any, ...]]]
    more: int = field(compare=False)
    more_failed: int = field(compare=False)

    def first(self, count: int) -> "Untold":
        """With no more signups than these."""
        return replace(self, signups=self.signups[:count], more=self.more + len(self.signups[count:]))


def job(database: Database, receptions: Callable[[], Mapping[str, Reception]]) -> Job:
    """Tells the owners of all sites, as they are then."""

    async def run(closing: asyncio.Event) -> None:
        for reception in receptions().values():
            if reception.site.mail.notify:
                await _tell_site(database, reception, closing)

    return Job("digest", EVERY_SECONDS, run)


async def _tell_site(database: Database, reception: Reception, closing: asyncio.Event) -> None:
    site = reception.site.slug
    for _ in range(MAILS):
        found = await database.read(untold, site)
        if closing.is_set() or not (found.signups or found.failed):
            break
        counts = await database.read(arrived, site, found)
        told, content = await asyncio.to_thread(_fitting, reception, found, counts)
        if await database.transact(tell, site, found, told, _mails(reception, content)):
            failed = len(told.failed) + told.more_failed
            _log.info("digest.written", site=site, signups=len(told.signups), failed=failed)


# -- what there is to tell ---------------------------------------------------------------------------------------------


def untold(connection: Connection, site: str, read_at: float | None = None) -> Untold:
    """What there is to tell of a site; or was, at `read_at`."""
    if read_at is None:
        read_at = connection.execute(select(now())).scalar_one()
    since = _since(connection, site, read_at)
    waiting, more = _waiting(connection, site, read_at)
    failed, more_failed = _failed(connection, site, since, read_at)
    return Untold(since, read_at, waiting, failed, more, more_failed)


def _since(connection: Connection, site: str, read_at: float) -> float:
    """When the last digest told of what there was then."""
    # None has a signup, and by that they are found among all mails.
    digests = and_(outbox.c.signup_id.is_(None), outbox.c.kind == "digest", outbox.c.site == site)
    times = select(func.max(outbox.c.created_at)).where(digests)
    last = connection.execute(times).scalar()
    back = None
    if last is not None:
        taken = and_(digests, outbox.c.state == "cancelled", outbox.c.reply == TAKEN_BACK, outbox.c.settled_at >= last)
        back = connection.execute(select(func.min(outbox.c.created_at)).where(taken)).scalar()
    if back is not None:
        last = connection.execute(times.where(outbox.c.created_at < back)).scalar()
    return (read_at if back is None else back) - FIRST_SECONDS if last is None else last


def _waiting(connection: Connection, site: str, read_at: float) -> tuple[Sequence[Row[*tuple[Any, ...]]], int]:
    waiting = and_(
        WAITING,
        signups.c.status == "unconfirmed",
        signups.c.site == site,
        signups.c.created_at < read_at - PATIENCE_SECONDS,
        signups.c.told_at.is_(None),
    )
    query = select(signups.c.id, signups.c.email, signups.c.name, signups.c.fields, signups.c.created_at)
    rows = connection.execute(query.where(waiting).order_by(signups.c.created_at, signups.c.id).limit(MOST)).all()
    total = len(rows) if len(rows) < MOST else connection.execute(select(func.count()).where(waiting)).scalar_one()
    return rows, total - len(rows)


def _failed(
    connection: Connection, site: str, since: float, read_at: float
) -> tuple[Sequence[Row[*tuple[Any, ...]]], int]:
    """No digest is among them, for it has no signup: one that fails must not be the reason for another."""
    failed = and_(
        outbox.c.state == "failed",
        outbox.c.site == site,
        outbox.c.signup_id.is_not(None),
        outbox.c.settled_at > since - MARGIN_SECONDS,
        outbox.c.settled_at <= read_at - MARGIN_SECONDS,
    )
    query = select(outbox.c.id, outbox.c.kind, outbox.c.recipient, outbox.c.reply, outbox.c.settled_at)
    rows = connection.execute(query.where(failed).order_by(outbox.c.settled_at, outbox.c.id).limit(MOST_FAILED)).all()
    total = (
        len(rows) if len(rows) < MOST_FAILED else connection.execute(select(func.count()).where(failed)).scalar_one()
    )
    return rows, total - len(rows)


def arrived(connection: Connection, site: str, found: Untold) -> dict[str, int]:
    """How many signups of each status came by the form since the last digest."""
    after, until = found.since - MARGIN_SECONDS, found.read_at - MARGIN_SECONDS
    # By their mails, which are in the order of time: a walk down to the first that is too old. What was imported has no
    # mails, and may be older than what has a smaller id.
    older = select(outbox.c.id).where(outbox.c.created_at <= after).order_by(outbox.c.id.desc()).limit(1)
    mailed = and_(outbox.c.id > func.coalesce(older.scalar_subquery(), 0), outbox.c.site == site)
    came = and_(
        signups.c.id.in_(select(outbox.c.signup_id).where(mailed)),
        signups.c.created_at > after,
        signups.c.created_at <= until,
    )
    rows = connection.execute(select(signups.c.status, func.count()).where(came).group_by(signups.c.status))
    return {status: count for status, count in rows}


# -- telling it --------------------------------------------------------------------------------------------------------


def _fitting(reception: Reception, found: Untold, counts: Mapping[str, int]) -> tuple[Untold, Content]:
    """The mail, and what it tells: fewer signups where it would be longer than what mail readers show."""
    site = reception.site
    entries = [entry(site, row._asdict(), row.created_at) for row in found.signups]
    failures = [failure(site, row.kind, row.recipient, row.reply, row.settled_at) for row in found.failed]
    while True:
        told = found.first(len(entries))
        values = digest_values(
            site, reception.about, entries, told.more, failures, told.more_failed, counts, told.since
        )
        content = reception.templates.render("digest", values)
        if len(entries) < 2 or len(content.html.encode("utf-8", "replace")) <= LONGEST:
            return told, content
        entries = entries[: len(entries) // 2]


def _mails(reception: Reception, content: Content) -> list[store.Addressed]:
    site, body = reception.site, Body(content)
    mails = [store.Mail("digest", reception.frame.fill(body, owner), to_visitor=False) for owner in site.mail.notify]
    return [store.Addressed(site.slug, None, mail, tracing.current()) for mail in mails]


def tell(connection: Connection, site: str, found: Untold, told: Untold, mails: Sequence[store.Addressed]) -> bool:
    """Writes the mails that tell of `told`, a part of `found`. Not where that was confirmed, removed, sent again, or
    told of by another meanwhile: what was written down is not so any more."""
    alone(connection, "digest")
    listed = signups.c.id.in_([row.id for row in found.signups])
    connection.execute(select(signups.c.id).where(listed).with_for_update())
    if untold(connection, site, found.read_at) != found:
        return False
    # One time for all: by it a digest's signups are found again (see `jobs.people`), and the next one goes on from it.
    written = store.add(connection, mails)
    connection.execute(update(outbox).where(outbox.c.id.in_(written)).values(created_at=found.read_at))
    ids = [row.id for row in told.signups]
    connection.execute(update(signups).where(signups.c.id.in_(ids)).values(told_at=found.read_at))
    return True
