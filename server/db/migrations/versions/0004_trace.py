"""Which request, or run of a job, a mail came from."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    # Nullable and without a default, so that no row is touched: however many there are, it is done at once.
    op.add_column("outbox", sa.Column("trace", sa.String(55)))
