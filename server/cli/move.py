"""`move`: carries an installation from one database to another. For when SQLite is outgrown, or the other way round."""

import asyncio
import sys
from typing import Annotated

import typer

from server import log, progress
from server.cli import environment
from server.db import Database, DatabaseUnavailable
from server.jobs import move as moving
from server.jobs.move import MoveError
from server.progress import Words
from server.settings import SettingsError, load

From = Annotated[str, typer.Option("--from", metavar="URL", help="Where the rows are. No server may run on it.")]
To = Annotated[str, typer.Option("--to", metavar="URL", help="An empty database. It gets the tables.")]


def move(source: From, target: To) -> None:
    """Copies every row from one database to another, and counts them. The first is left as it is."""
    log.configure("console", "warning")
    for option, url in (("--from", source), ("--to", target)):
        _check(option, url)
    try:
        count = asyncio.run(_move(source, target))
    except (MoveError, DatabaseUnavailable) as error:
        raise environment.fail("Nothing is moved for good.", [str(error)]) from None
    typer.echo(f"{count:,} rows moved, and counted on both sides. To go on with them set DOORBELL_DATABASE_URL, and")
    typer.echo("DOORBELL_SECRET_KEY to what is in secret.key in DOORBELL_DATA_DIR, so that links in mails stay good.")


def _check(option: str, url: str) -> None:
    """The same that is asked of the setting."""
    try:
        load({"DOORBELL_DATABASE_URL": url, "DOORBELL_SECRET_KEY": "x" * 16}, env_file=None)
    except SettingsError as error:
        raise environment.fail(f"{option} is no database:", error.problems) from None


async def _move(source: str, target: str) -> int:
    here, there = Database(source), Database(target)
    try:
        await here.attach()
        await there.open()
        total = sum(count for count, _ in (await here.read(moving.contents)).values())
        done = 0
        with progress.on(sys.stderr, Words("Moving", "Moved", "rows"))(total) as report:
            async for step in moving.move(here, there):
                done += step.rows
                report(done)
        return done
    finally:
        await here.close()
        await there.close()
