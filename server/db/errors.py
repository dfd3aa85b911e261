"""What a database can do to its callers."""


class DatabaseUnavailable(Exception):
    """The database cannot be reached, is locked, full or broken. Nothing was written."""
