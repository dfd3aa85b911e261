"""`backup` and `restore`: the database and its secret in a folder, beside a running server, and back from there."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from server import progress
from server.cli import environment
from server.jobs import backup as saving
from server.jobs.backup import BackupError, Held
from server.progress import Words
from server.settings import Settings

_Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The backup.")]


def backup(folder: _Folder) -> None:
    """Saves the database and the secret key into a new folder; the server may run and write meanwhile."""
    settings = environment.settings()
    shown = progress.on(sys.stderr, Words("Saving", "Saved", "KB"))
    held = _done(settings, folder, lambda file, secret: saving.save(file, secret, folder, shown))
    typer.echo(f"Saved in {folder}: {_words(held)}.")
    if not held.secret:
        typer.echo("There is no secret.key: where DOORBELL_SECRET_KEY sets the key, keep that too.", err=True)


def restore(folder: _Folder) -> None:
    """Puts a backup into an empty data folder. Do it before the server is started."""
    settings = environment.settings()
    held = _done(settings, folder, lambda file, secret: saving.put_back(folder, file, secret))
    typer.echo(f"Put back: {_words(held)}.")
    if held.pending:
        typer.echo(
            "The server sends the pending ones when it starts, also what was sent after the backup was made. "
            "Look at them (mail list --state pending), and end what is not to go (mail cancel).",
            err=True,
        )


def _done(settings: Settings, folder: Path, work: Callable[[Path, Path], Held]) -> Held:
    try:
        return work(saving.file_of(settings.database_url), settings.data_dir / saving.SECRET)
    except BackupError as error:
        raise environment.fail(f"{error}.", []) from None
    except OSError as error:
        raise environment.fail(f"{folder}: {error.strerror}.", []) from None


def _words(held: Held) -> str:
    return f"{held.signups:,} signups, {held.pending:,} pending mails"
