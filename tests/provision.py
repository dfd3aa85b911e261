"""What a first start makes: a database with its tables, and the repository's files compressed.

Made once in a process of the tests and copied from then on, for most tests are about something else.
"""

import asyncio
import atexit
import shutil
import sqlite3
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from server.app import load_sites
from server.db import Database
from server.hosting import Cache
from server.settings import load
from tests import postgresql

_SITES = Path(__file__).parent.parent / "sites"


def furnish(data: Path) -> None:
    """Makes a server's data folder as its first start would leave it."""
    data.mkdir(mode=0o700, parents=True)
    database(data / "doorbell.db")
    shutil.copytree(_cache(), data / "cache")


def database(file: Path) -> str:
    """Makes a database that has its tables, unless there is one; answers its URL."""
    if not file.exists():
        shutil.copyfile(_database(), file)
    return f"sqlite:///{file}"


def ask(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Reads or writes past our own code. In the statement values are $1, $2 ..."""
    if url.startswith("postgresql"):
        return postgresql.ask(url, statement, *values)
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=60)
    try:
        connection.execute("PRAGMA foreign_keys=ON")
        return connection.execute(statement, {str(place): value for place, value in enumerate(values, 1)}).fetchall()
    finally:
        connection.close()


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="doorbell-"))
    atexit.register(shutil.rmtree, folder)
    return folder


@cache
def _database() -> Path:
    async def make() -> None:
        made = Database(f"sqlite:///{_folder() / 'doorbell.db'}")
        await made.open()
        await made.close()

    with ThreadPoolExecutor(1) as thread:  # where it is asked for, a loop may run
        thread.submit(asyncio.run, make()).result()
    return _folder() / "doorbell.db"


@cache
def _cache() -> Path:
    settings = load({"DOORBELL_SITES_DIR": str(_SITES)}, env_file=None)
    load_sites(settings, Cache(_folder() / "cache"))
    return _folder() / "cache"
