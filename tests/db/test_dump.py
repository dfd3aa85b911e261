"""PostgreSQL's own tools save and restore an installation while it is written to, as docs/operating.md says."""

import asyncio
import shutil
import subprocess
from pathlib import Path

from server.db import Database
from server.db.tables import metadata
from server.signup import Reception
from tests import postgresql, provision
from tests.conftest import add_site, skip_or_fail
from tests.signups import ASKING, received, sign_up


def plain(url: str) -> str:
    return url.replace("+asyncpg", "")


async def test_dump_that_is_restored_is_whole_and_goes_on(tmp_path: Path) -> None:
    if reason := postgresql.missing() or (None if shutil.which("pg_dump") else "no program pg_dump"):
        skip_or_fail(reason)
    lamps = received(add_site(tmp_path, "lamps", ASKING))
    file = tmp_path / "doorbell.dump"
    with postgresql.lent() as here, postgresql.bare() as there:
        database = Database(here)
        before = await sign_up(database, lamps, [f"{number}@there.example" for number in range(20)])
        writing = asyncio.create_task(go_on(database, lamps))
        dump = ["pg_dump", "--format=custom", "--no-owner", f"--file={file}", plain(here)]
        await asyncio.to_thread(subprocess.run, dump, check=True, timeout=60)
        writing.cancel()
        await asyncio.wait({writing})
        await database.close()
        restore = ["pg_restore", "--no-owner", "--exit-on-error", "--single-transaction", f"--dbname={plain(there)}"]
        await asyncio.to_thread(subprocess.run, [*restore, str(file)], check=True, timeout=60)
        ids = [id for (id,) in provision.ask(there, "SELECT id FROM signups ORDER BY id")]
        assert ids[: len(before)] == before
        # Of one moment: no signup without its mails.
        mails = "SELECT signup_id FROM outbox GROUP BY 1 HAVING count(*) = 2 ORDER BY 1"
        assert [id for (id,) in provision.ask(there, mails)] == ids
        assert {name for (name,) in provision.ask(there, "SELECT name FROM jobs")} == {"purge", "digest"}
        restored = Database(there)
        await restored.attach()
        assert await sign_up(restored, lamps, ["new@there.example"]) > ids[-1:]
        await restored.close()
        assert set(metadata.tables) <= {name for (name,) in provision.ask(there, "SELECT tablename FROM pg_tables")}


async def go_on(database: Database, lamps: Reception) -> None:
    number = 0
    while True:
        number += 1
        await sign_up(database, lamps, [f"later-{number}@there.example"])
