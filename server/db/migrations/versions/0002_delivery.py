"""Messages apart from their rows, an attempt log, suppressions, timed jobs, and the domain that a mail goes to."""

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    # Not at once into the table that refers to the outbox: to make that anew deletes what refers to it.
    op.execute("CREATE TABLE kept AS SELECT id, message FROM outbox")
    with op.batch_alter_table("outbox") as outbox:
        outbox.add_column(sa.Column("domain", sa.String(255), nullable=False, server_default=""))
        outbox.add_column(sa.Column("recipient_hash", sa.String(64)))
        outbox.drop_column("message")
    _fill(op.get_bind())
    with op.batch_alter_table("outbox") as outbox:
        outbox.alter_column("domain", existing_type=sa.String(255), server_default=None)
    op.create_table(
        "messages",
        sa.Column("outbox_id", _Id, autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("outbox_id", name="pk_messages"),
        sa.ForeignKeyConstraint(["outbox_id"], ["outbox.id"], name="fk_messages_outbox_id", ondelete="CASCADE"),
    )
    op.execute("INSERT INTO messages (outbox_id, data) SELECT id, message FROM kept")
    op.drop_table("kept")
    op.create_table(
        "attempts",
        sa.Column("id", _Id, nullable=False),
        sa.Column("outbox_id", _Id, nullable=False),
        sa.Column("outcome", sa.String(12), nullable=False),
        sa.Column("reply", sa.Text, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_attempts"),
        sa.ForeignKeyConstraint(["outbox_id"], ["outbox.id"], name="fk_attempts_outbox_id", ondelete="CASCADE"),
    )
    op.create_index("ix_attempts_outbox_id", "attempts", ["outbox_id"])
    op.create_table(
        "suppressions",
        sa.Column("recipient_hash", sa.String(64), nullable=False),
        sa.Column("reason", sa.String(12), nullable=False),
        sa.Column("reply", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("recipient_hash", name="pk_suppressions"),
    )
    jobs = op.create_table(
        "jobs",
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("due_at", sa.Double, nullable=False),
        sa.Column("lease_owner", sa.String(36)),
        sa.Column("lease_until", sa.Double),
        sa.PrimaryKeyConstraint("name", name="pk_jobs"),
    )
    op.bulk_insert(jobs, [{"name": "purge", "due_at": 0.0}])


def _fill(connection: sa.Connection) -> None:
    """The new columns of the rows that are there: what the store writes for new ones."""
    columns = ("id", "kind", "recipient", "domain", "recipient_hash")
    outbox = sa.table("outbox", *(sa.column(name) for name in columns))
    change = (
        sa.update(outbox)
        .where(outbox.c.id == sa.bindparam("row"))
        .values(domain=sa.bindparam("of"), recipient_hash=sa.bindparam("hashed"))
    )
    rows = connection.execute(sa.select(outbox.c.id, outbox.c.kind, outbox.c.recipient)).all()
    changes = [
        {
            "row": row.id,
            "of": row.recipient.rpartition("@")[2].lower(),
            "hashed": None if row.kind == "notice" else hashlib.sha256(row.recipient.lower().encode()).hexdigest(),
        }
        for row in rows
    ]
    if changes:
        connection.execute(change, changes)
