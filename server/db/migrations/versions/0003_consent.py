"""Consent: what a signup waits for, suppressions by site, and what limits and repeated posts are counted with."""

import hashlib
import secrets

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    # One by one, not by making the table anew: that would delete the mails, which refer to it.
    for column in (
        sa.Column("consents", sa.JSON),
        sa.Column("key", sa.String(32), nullable=False, server_default="-"),
        sa.Column("recipient_hash", sa.String(64), nullable=False, server_default="-"),
        sa.Column("status", sa.String(12), nullable=False, server_default="accepted"),
        sa.Column("spam", sa.String(20)),
        sa.Column("confirmed_at", sa.Double),
        sa.Column("told_at", sa.Double),
    ):
        op.add_column("signups", column)
    _fill(op.get_bind())
    op.create_index("ix_signups_key", "signups", ["key"], unique=True)
    op.create_index("ix_signups_recipient_hash", "signups", ["recipient_hash"])
    waiting = sa.text("status IN ('unconfirmed', 'spam')")
    op.create_index(
        "ix_signups_waiting", "signups", ["site", "created_at"], sqlite_where=waiting, postgresql_where=waiting
    )
    _suppressions()
    op.create_table(
        "counters",
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_counters"),
    )
    op.create_table(
        "idempotency",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("body", sa.String(64), nullable=False),
        sa.Column("signup_id", _Id, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_idempotency"),
        sa.ForeignKeyConstraint(["signup_id"], ["signups.id"], name="fk_idempotency_signup_id", ondelete="CASCADE"),
    )
    op.create_index("ix_idempotency_signup_id", "idempotency", ["signup_id"])
    jobs = sa.table("jobs", sa.column("name", sa.String), sa.column("due_at", sa.Double))
    op.bulk_insert(jobs, [{"name": "digest", "due_at": 0.0}])


def _suppressions() -> None:
    op.execute("CREATE TABLE kept AS SELECT recipient_hash, reason, reply, created_at FROM suppressions")
    op.drop_table("suppressions")
    op.create_table(
        "suppressions",
        sa.Column("recipient_hash", sa.String(64), nullable=False),
        sa.Column("site", sa.String(63), nullable=False),
        sa.Column("reason", sa.String(12), nullable=False),
        sa.Column("reply", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("recipient_hash", "site", name="pk_suppressions"),
    )
    op.execute(
        "INSERT INTO suppressions (recipient_hash, site, reason, reply, created_at) "
        "SELECT recipient_hash, '', reason, reply, created_at FROM kept"
    )
    op.drop_table("kept")


def _fill(connection: sa.Connection) -> None:
    """The keys and hashes of the signups that are there: what a new one is written with."""
    signups = sa.table("signups", *(sa.column(name) for name in ("id", "email", "key", "recipient_hash")))
    change = (
        sa.update(signups)
        .where(signups.c.id == sa.bindparam("row"))
        .values(key=sa.bindparam("made"), recipient_hash=sa.bindparam("hashed"))
    )
    last = -1
    while True:
        found = connection.execute(
            sa.select(signups.c.id, signups.c.email).where(signups.c.id > last).order_by(signups.c.id).limit(1000)
        ).all()
        if not found:
            return
        last = found[-1].id
        connection.execute(change, [_made(row.id, row.email) for row in found])


def _made(row: int, email: str) -> dict[str, object]:
    hashed = hashlib.sha256(email.lower().encode("utf-8", "replace")).hexdigest()
    return {"row": row, "made": secrets.token_hex(16), "hashed": hashed}
