"""The database: engine, tables and migrations. Knows no HTTP and no mail."""

from server.db.engine import Database, DatabaseUnavailable

__all__ = ["Database", "DatabaseUnavailable"]
