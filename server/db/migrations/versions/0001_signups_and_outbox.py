"""Signups, and the outbox of their mails."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "signups",
        sa.Column("id", _Id, nullable=False),
        sa.Column("site", sa.String(63), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("name", sa.String(100)),
        sa.Column("fields", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_signups"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", _Id, nullable=False),
        sa.Column("signup_id", _Id),
        sa.Column("site", sa.String(63), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("sender", sa.String(254), nullable=False),
        sa.Column("recipient", sa.String(254), nullable=False),
        sa.Column("message_id", sa.String(255), nullable=False),
        sa.Column("message", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("uncertain", sa.Integer, nullable=False),
        sa.Column("due_at", sa.Double, nullable=False),
        sa.Column("lease_owner", sa.String(36)),
        sa.Column("lease_until", sa.Double),
        sa.Column("outcome", sa.String(12)),
        sa.Column("reply", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("settled_at", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.ForeignKeyConstraint(["signup_id"], ["signups.id"], name="fk_outbox_signup_id", ondelete="CASCADE"),
        sa.UniqueConstraint("message_id"),
    )
    op.create_index("ix_outbox_signup_id", "outbox", ["signup_id"])
    op.create_index("ix_outbox_state_due_at", "outbox", ["state", "due_at"])
