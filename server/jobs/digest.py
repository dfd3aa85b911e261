"""The digest: once a day owners are told of the signups that nobody confirmed, for a lead may be among them.

A signup is told of in the transaction that writes the mail: after a crash it is told of once, and never forgotten.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select, update

from server import log, tracing
from server.db import Database
from server.db.tables import now, outbox, signups
from server.jobs.schedule import Job
from server.mail.message import Body
from server.outbox import store
from server.registry import WAITING
from server.signup import Reception, digest_values, entry

_log = log.get(__name__)

EVERY_SECONDS = 86400.0
# How long a visitor has to confirm before the owner hears of it.
PATIENCE_SECONDS = 6 * 3600.0
# Signups a mail (some providers cut off what is longer than 102 KB), and mails a site at a time: a flood must not
# become one of mails. The rest is told of the next day.
MOST = 40
MAILS = 10


@dataclass(frozen=True, slots=True)
class Untold:
    """The oldest signups that no digest told of, and how many there are besides."""

    signups: Sequence[Row[*tuple[Any, ...]]]
    more: int


def job(database: Database, receptions: Callable[[], Mapping[str, Reception]]) -> Job:
    """Tells the owners of all sites, as they are then."""

    async def run(closing: asyncio.Event) -> None:
        for site, reception in receptions().items():
            told = await _tell_site(database, reception, closing) if reception.site.mail.notify else 0
            if told:
                _log.info("digest.written", site=site, signups=told)

    return Job("digest", EVERY_SECONDS, run)


async def _tell_site(database: Database, reception: Reception, closing: asyncio.Event) -> int:
    told = 0
    for _ in range(MAILS):
        found = await database.read(untold, reception.site.slug)
        if closing.is_set() or not found.signups:
            break
        mails = await asyncio.to_thread(_mails, reception, found)
        told += await database.transact(tell, [row.id for row in found.signups], mails)
    return told


def untold(connection: Connection, site: str) -> Untold:
    """What there is to tell of a site."""
    waiting = and_(
        WAITING,
        signups.c.status == "unconfirmed",
        signups.c.site == site,
        signups.c.created_at < now() - PATIENCE_SECONDS,
        signups.c.told_at.is_(None),
    )
    query = select(signups.c.id, signups.c.email, signups.c.name, signups.c.fields, signups.c.created_at)
    rows = connection.execute(query.where(waiting).order_by(signups.c.created_at, signups.c.id).limit(MOST)).all()
    total = len(rows) if len(rows) < MOST else connection.execute(select(func.count()).where(waiting)).scalar_one()
    return Untold(rows, total - len(rows))


def _mails(reception: Reception, found: Untold) -> list[store.Addressed]:
    entries = [entry(reception.site, row._asdict(), row.created_at) for row in found.signups]
    body = Body(reception.templates.render("digest", digest_values(reception.about, entries, found.more)))
    return [
        store.Addressed(reception.site.slug, None, store.Mail("digest", message, to_visitor=False), tracing.current())
        for message in (reception.frame.fill(body, owner) for owner in reception.site.mail.notify)
    ]


def tell(connection: Connection, ids: Sequence[int], mails: Sequence[store.Addressed]) -> int:
    """Writes the mails that tell of these signups; answers how many those are. None where one of them was confirmed,
    removed, or told of by another meanwhile: what was written down is not so any more."""
    still = and_(signups.c.id.in_(ids), signups.c.status == "unconfirmed", signups.c.told_at.is_(None))
    if len(connection.execute(select(signups.c.id).where(still).with_for_update()).all()) < len(ids):
        return 0
    # One time for both: by it a digest's signups are found again (see `jobs.people`).
    told_at = connection.execute(select(now())).scalar_one()
    written = store.add(connection, mails)
    connection.execute(update(outbox).where(outbox.c.id.in_(written)).values(created_at=told_at))
    connection.execute(update(signups).where(signups.c.id.in_(ids)).values(told_at=told_at))
    return len(ids)
