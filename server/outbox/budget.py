"""How many mails may be handed to the relay in an hour, by all processes together. What is beyond it waits.

A window begins with its first mail. Counted when rows are claimed, and given back for rows that never reached the
relay: so a crash can only make the number smaller. What was claimed when a window ended, and comes back in the next, is
what it can be exceeded by: 256 mails a process at most.
"""

from sqlalchemy import Connection, case, delete, insert, select, update

from server.db.tables import LATE_SECONDS, counters, now

WINDOW_SECONDS = 3600.0
_KEY = "mail-budget"

_ours = counters.c.key == _KEY
# An end that is further ahead was written before the clock was set back.
_SPENT = select(counters.c.count, counters.c.until - now()).where(
    _ours, counters.c.until > now(), counters.c.until <= now() + WINDOW_SECONDS + LATE_SECONDS
)


def left(connection: Connection, budget: int, hold: bool = False) -> int:
    """How many more may be claimed now. With `hold` nobody else claims any until the transaction ends."""
    row = connection.execute(_SPENT.with_for_update() if hold else _SPENT).first()
    return budget if row is None else max(budget - row[0], 0)


def seconds_to_wait(connection: Connection, budget: int) -> float:
    """Until there is some again; 0 while there is."""
    row = connection.execute(_SPENT).first()
    return 0.0 if row is None or row[0] < budget else float(row[1])


def take(connection: Connection, count: int) -> None:
    """So many were claimed."""
    changed = connection.execute(
        update(counters)
        .where(_ours, counters.c.until > now(), counters.c.until <= now() + WINDOW_SECONDS + LATE_SECONDS)
        .values(count=counters.c.count + count)
    )
    if not changed.rowcount:
        connection.execute(delete(counters).where(_ours))
        connection.execute(insert(counters).values(key=_KEY, count=count, until=now() + WINDOW_SECONDS))


def give_back(connection: Connection, count: int) -> None:
    """So many never reached the relay."""
    fewer = case((counters.c.count > count, counters.c.count - count), else_=0)
    connection.execute(update(counters).where(_ours).values(count=fewer))
