"""A backup: a folder with the database as it was at one moment, and the secret that its links were signed with.

`VACUUM INTO` makes the copy: one read transaction, so that it is consistent and holds up no writer. Unlike SQLite's
backup API it leaves out freed pages, and with them what was purged or erased, and need not begin again whenever
another process writes.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import make_url

from server.progress import Progress, Report

DATABASE, SECRET = "doorbell.db", "secret.key"
# Instructions of SQLite's machine between two looks at how far it is: some hundredths of a second.
_LOOK = 1_000_000


class BackupError(Exception):
    """Nothing was saved, or put back; the message says why."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a backup holds: how many signups, how many mails that are still to be sent, and whether the secret."""

    signups: int
    pending: int
    secret: bool


def file_of(url: str) -> Path:
    """The file of the database at `url`. Raises BackupError where it is none."""
    found = make_url(url)
    if found.get_backend_name() != "sqlite":
        raise BackupError("this is for SQLite; PostgreSQL has pg_dump and pg_restore (docs/operating.md shows how)")
    return Path(found.database or "")


def save(database: Path, secret: Path, to: Path, progress: Progress) -> Held:
    """Makes the folder `to`, which is there only when all is in it and on the disk, for its owner alone.

    `progress` is told KB. Raises BackupError and OSError.
    """
    if to.exists():
        raise BackupError(f"{to}: is there already")
    if not database.is_file():
        raise BackupError(f"{database}: there is no database yet; the server makes it")
    part = Path(tempfile.mkdtemp(prefix=f"{to.name}.", dir=to.parent))
    try:
        _copy_database(database, part / DATABASE, progress)
        if secret.exists():
            _copy(secret, part / SECRET)
        _sync(part)
        held = look(part)
        part.rename(to)
        _sync(to.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return held


def look(folder: Path) -> Held:
    """What the backup in `folder` holds. Raises BackupError where it is none, or not whole."""
    file = folder / DATABASE
    if not file.is_file():
        raise BackupError(f"{folder}: is no backup: there is no {DATABASE} in it")
    with _opened(file, "ro&immutable=1") as connection:
        if (problem := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise BackupError(f"{file}: is damaged: {problem}")
        [signups] = connection.execute("SELECT count(*) FROM signups").fetchone()
        [pending] = connection.execute("SELECT count(*) FROM outbox WHERE state = 'pending'").fetchone()
    return Held(signups, pending, (folder / SECRET).exists())


def put_back(folder: Path, database: Path, secret: Path) -> Held:
    """Puts the backup in `folder` where a server will find it, over nothing that is there.

    Raises BackupError and OSError.
    """
    held = look(folder)
    # A log that belongs to another database would be played into this one.
    for file in (database, *(database.with_name(database.name + end) for end in ("-wal", "-shm", "-journal"))):
        if file.exists():
            raise BackupError(f"{file}: is there already; move it away")
    if held.secret and secret.exists() and secret.read_bytes() != (folder / SECRET).read_bytes():
        raise BackupError(f"{secret}: is there already, and another; move it away")
    database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if held.secret and not secret.exists():
        secret.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _place(folder / SECRET, secret)
    _place(folder / DATABASE, database)
    return held


@contextmanager
def _opened(file: Path, mode: str) -> Iterator[sqlite3.Connection]:
    # Not made where it is missing.
    url = f"file:{quote(str(file.absolute()))}?mode={mode}"
    try:
        with closing(sqlite3.connect(url, uri=True, timeout=60, isolation_level=None)) as connection:
            yield connection
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            raise KeyboardInterrupt from None
        raise BackupError(f"{file}: {error}") from None


def _copy_database(database: Path, to: Path, progress: Progress) -> None:
    with _opened(database, "rw") as connection:
        [size] = connection.execute(
            "SELECT (page_count - freelist_count) * page_size"
            " FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        ).fetchone()
        with progress(size // 1024) as report:
            connection.set_progress_handler(_watch(to, report), _LOOK)
            connection.execute("VACUUM INTO ?", (str(to),))
            report(to.stat().st_size // 1024)
    to.chmod(0o600)
    _sync(to)


def _watch(file: Path, report: Report) -> Callable[[], int]:
    # Also where Ctrl+C is heard: an exception in here makes SQLite break off.
    def look() -> int:
        if file.exists():
            report(file.stat().st_size // 1024)
        return 0

    return look


def _place(file: Path, to: Path) -> None:
    """Copies a file to a place where it is whole or not at all."""
    with tempfile.TemporaryDirectory(prefix=f"{to.name}.", dir=to.parent) as folder:
        part = Path(folder) / to.name
        _copy(file, part)
        os.link(part, to)  # never over another's
    _sync(to.parent)


def _copy(file: Path, to: Path) -> None:
    shutil.copyfile(file, to)
    to.chmod(0o600)
    _sync(to)


def _sync(place: Path) -> None:
    opened = os.open(place, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
