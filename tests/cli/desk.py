"""The database of a server that does not run just now, with signups in it."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

from server.db import Database
from server.jobs import digest
from tests import provision
from tests.conftest import add_site
from tests.signups import ASKING, received, sign_up


class Desk:
    """`bikes` takes signups at once, `lamps` has them confirmed."""

    def __init__(self, sites: Path, file: Path) -> None:
        self.file = file
        add_site(sites, "lamps", ASKING)
        self._site = cache(lambda slug: received(sites / slug))
        file.parent.mkdir(mode=0o700, exist_ok=True)
        provision.database(file)

    def _do(self, work: Callable[[Database], Awaitable[object]]) -> None:
        async def run() -> None:
            database = Database(f"sqlite:///{self.file}")
            try:
                await work(database)
            finally:
                await database.close()

        asyncio.run(run())

    def sign_up(self, *emails: str, site: str = "bikes", **more: Any) -> None:
        self._do(lambda database: sign_up(database, self._site(site), emails, **more))

    def digest(self) -> None:
        """Tells the owner of `lamps` of what is due."""
        sites = {"lamps": self._site("lamps")}
        self._do(lambda database: digest.job(database, lambda: sites).run(asyncio.Event()))

    def sql(self, statement: str) -> list[Any]:
        connection = sqlite3.connect(self.file, isolation_level=None)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()
