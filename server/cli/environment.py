"""What a command works with, settings and database: had or refused in one place, in words for a person."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import typer

from server import log
from server.db import Database, DatabaseUnavailable
from server.settings import Settings, SettingsError, load

T = TypeVar("T")


def fail(title: str, problems: list[str]) -> typer.Exit:
    """Prints what is wrong, a line each, on standard error; to be raised."""
    typer.secho(title, fg=typer.colors.RED, bold=True, err=True)
    for problem in problems:
        typer.echo(f"  - {problem}", err=True)
    return typer.Exit(1)


def settings(**overrides: object) -> Settings:
    """The settings, with what the command line says in place of the environment; logs are set up by them.

    Exits with status 1 and a readable list when a variable is wrong.
    """
    try:
        found = load(overrides={name: str(value) for name, value in overrides.items() if value is not None})
    except SettingsError as error:
        raise fail("Doorbell cannot start: these settings are wrong.", error.problems) from None
    log.configure(found.log_format, found.log_level)
    return found


def ask(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """What `work` answers with the database, which must be there. Exits with status 1 and a line where it is not."""

    async def run() -> T:
        database = Database(settings.database_url)
        try:
            await database.attach()
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except DatabaseUnavailable as error:
        raise fail(str(error), []) from None


def confirm(question: str) -> None:
    """Goes on where a person says yes. Exits with status 1 else, and where nobody can be asked."""
    if not sys.stdin.isatty():
        raise fail(f"{question} Nobody can be asked here: say --yes.", [])
    typer.confirm(question, abort=True, err=True)  # standard output is for JSON
