"""The whole schema. A change here needs a revision in migrations/, and a test holds the two together.

Every time is in seconds since 1970 UTC, by the database's clock (see `now`).
"""

from secrets import token_hex

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only where the type is exactly INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")


def _new_key() -> str:
    return token_hex(16)


signups = Table(
    "signups",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("site", String(63), nullable=False),
    Column("email", String(254), nullable=False),
    Column("name", String(100)),
    Column("fields", JSON, nullable=False),
    # the boxes that were ticked to consent, with their words: {field: wording}
    Column("consents", JSON(none_as_null=True)),
    # what links in its mails name it by (the server's defaults are never used: a column that is added needs one)
    Column(
        "key", String(32), default=lambda: token_hex(16), nullable=False, unique=True, index=True, server_default="-"
    ),
    # see suppressions.recipient_hash
    Column("recipient_hash", String(64), nullable=False, index=True, server_default="-"),
    # unconfirmed | confirmed | accepted (where nobody asks) | spam
    Column("status", String(12), nullable=False, server_default="accepted"),
    # why it is taken for spam
    Column("spam", String(20)),
    Column("created_at", Double, nullable=False),
    Column("confirmed_at", Double),
    # when a digest told the owner of it
    Column("told_at", Double),
)
# Few: the rest, which is most, costs nothing.
_waiting = signups.c.status.in_(["unconfirmed", "spam"])
Index("ix_signups_waiting", signups.c.site, signups.c.created_at, sqlite_where=_waiting, postgresql_where=_waiting)

outbox = Table(
    "outbox",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("signup_id", _Id, ForeignKey("signups.id", ondelete="CASCADE"), index=True),
    Column("site", String(63), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("sender", String(254), nullable=False),
    Column("recipient", String(254), nullable=False),
    # of the recipient, in lower case
    Column("domain", String(255), nullable=False),
    # see suppressions.recipient_hash; None where the recipient is the owner, who is never suppressed
    Column("recipient_hash", String(64)),
    Column("message_id", String(255), nullable=False, unique=True),
    # awaiting (its visitor has not confirmed) | pending | sent | failed | cancelled | suppressed
    Column("state", String(12), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("uncertain", Integer, nullable=False),
    Column("due_at", Double, nullable=False),
    Column("lease_owner", String(36)),
    Column("lease_until", Double),
    # how the last attempt ended, and what the server said
    Column("outcome", String(12)),
    Column("reply", Text),
    Column("created_at", Double, nullable=False),
    Column("settled_at", Double),
    # what wrote it, as a traceparent (see server.tracing); None from before it was kept
    Column("trace", String(55)),
    Index(None, "state", "due_at"),
)

# Apart from its row, which changes often and would take it along each time. Gone once retention has purged it.
messages = Table(
    "messages",
    metadata,
    Column("outbox_id", _Id, ForeignKey("outbox.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

# One row for each time that a mail was tried.
attempts = Table(
    "attempts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("outbox_id", _Id, ForeignKey("outbox.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("outcome", String(12), nullable=False),
    Column("reply", Text, nullable=False),
    # how long it took
    Column("seconds", Double, nullable=False),
    Column("ended_at", Double, nullable=False),
)

# Visitors' addresses that get no mail.
suppressions = Table(
    "suppressions",
    metadata,
    # SHA-256 of the address in lower case, in hexadecimal: the list needs no address to do its work
    Column("recipient_hash", String(64), primary_key=True),
    # empty: from no site
    Column("site", String(63), primary_key=True),
    # bounced | unsubscribed | erased
    Column("reason", String(12), nullable=False),
    Column("reply", Text),
    Column("created_at", Double, nullable=False),
)

# What limits count: how often in the window that ends then.
counters = Table(
    "counters",
    metadata,
    Column("key", String(200), primary_key=True),
    Column("count", Integer, nullable=False),
    Column("until", Double, nullable=False),
)

# Posts that can be told from their repetition.
idempotency = Table(
    "idempotency",
    metadata,
    Column("key", String(64), primary_key=True),
    # what stands for the form that came with it
    Column("body", String(64), nullable=False),
    Column("signup_id", _Id, ForeignKey("signups.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", Double, nullable=False),
)

# Timed work: each once in an installation, however many processes there are.
jobs = Table(
    "jobs",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("due_at", Double, nullable=False),
    Column("lease_owner", String(36)),
    Column("lease_until", Double),
)


# What was written just now may lie so far ahead of a statement's clock: it began before, and waited for a lock. Only
# what lies further ahead was written by a clock that was set back since.
LATE_SECONDS = 60.0


class now(FunctionElement[float]):  # reads as the SQL function it is
    """The database's clock: seconds since 1970 UTC, to the millisecond. One clock, however many machines."""

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _sqlite_now(element: now, compiler: SQLCompiler, **kw: object) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _postgresql_now(element: now, compiler: SQLCompiler, **kw: object) -> str:
    # Of the statement: a transaction may have waited for a lock since it began; and no index would be used for a clock
    # that could change within a statement.
    return "EXTRACT(epoch FROM statement_timestamp())::double precision"
