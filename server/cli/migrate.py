"""`migrate`: brings the database up to date without starting the server."""

import asyncio

import typer

from server.cli import environment
from server.db import Database, DatabaseUnavailable


def migrate() -> None:
    """Creates or updates the database. `serve` does so too; safe while others do the same."""
    settings = environment.settings()

    async def run() -> None:
        database = Database(settings.database_url)
        try:
            await database.open()
        finally:
            await database.close()

    try:
        asyncio.run(run())
    except DatabaseUnavailable as error:
        raise environment.fail("The database cannot be brought up to date:", [str(error)]) from None
    typer.echo("The database is up to date.")
