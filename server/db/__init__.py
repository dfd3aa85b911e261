"""The database: engine, tables and migrations. Knows no HTTP and no mail."""

from server.db.engine import Database
from server.db.errors import DatabaseUnavailable

__all__ = ["Database", "DatabaseUnavailable"]
