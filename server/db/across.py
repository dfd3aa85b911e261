"""What the processes of one database owe each other: to write one at a time where it matters, and to say that there is
something to do.

SQLite has one writer anyway, and no way to tell other processes: there these do nothing.
"""

from zlib import crc32

from sqlalchemy import Connection, text

CHANNEL = "doorbell"
_NAMESPACE = 0x646F6F72

_LOCK = text("SELECT pg_advisory_xact_lock(:namespace, :key)")
_NOTIFY = text("SELECT pg_notify(:channel, '')")


def alone(connection: Connection, what: str) -> None:
    """No other transaction that does `what` is under way, from here to the end of this one.

    So what is read first and written later is still so: as in SQLite, where every transaction is alone.
    """
    if connection.dialect.name == "postgresql":
        key = crc32(what.encode()) - 2**31  # the lock's two numbers are signed
        connection.execute(_LOCK, {"namespace": _NAMESPACE, "key": key})


def announce(connection: Connection) -> None:
    """Once this is committed, who listens is told that mail is due. Several in one transaction are one."""
    if connection.dialect.name == "postgresql":
        connection.execute(_NOTIFY, {"channel": CHANNEL})
