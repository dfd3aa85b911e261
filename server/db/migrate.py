"""Brings the schema up to date, with Alembic, inside a transaction that the caller holds."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from server.db.across import alone

Revisions = tuple[str | None, str | None]
"""Before and after."""


def config() -> Config:
    """Alembic's configuration, without a file of its own."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


def upgrade(connection: Connection) -> Revisions:
    """Applies what is missing, while nobody else does; answers the revisions before and after."""
    alone(connection, "migrate")
    context = MigrationContext.configure(connection)
    before = context.get_current_revision()
    made = config()
    made.attributes["connection"] = connection
    command.upgrade(made, "head")
    return before, context.get_current_revision()


def difference(connection: Connection) -> str | None:
    """In what the schema is not this version's, in words; None where it is. Changes nothing."""
    found = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory.from_config(config())
    if found == scripts.get_current_head():
        return None
    if found is None:
        return "holds no data of ours"
    ours = {script.revision for script in scripts.walk_revisions()}
    return "is of an older version; `migrate` updates it" if found in ours else f"is of a newer version ({found})"
