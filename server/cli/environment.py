"""Settings for a command: read and refused in one place, in words for a person."""

import typer

from server import log
from server.settings import Settings, SettingsError, load


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
