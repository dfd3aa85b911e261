"""Alembic's entry: runs the revisions on the connection it is handed. See server/db/migrate.py."""

from alembic import context

from server.db.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
