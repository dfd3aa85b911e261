"""The scripted relay in a thread of its own, for tests that wait for a process; and a place with a server in it."""

import asyncio
import random
import re
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.db.tables import metadata
from tests import provision
from tests.conftest import SITE_TOML, add_site
from tests.e2e.conftest import ForkedServer, Server, wait_until
from tests.smtpd import Act, Session, Smtpd, accept

# The pool's default size: as many mails are on their way at once.
CONNECTIONS = 4
# What may be doubled by one crash: those on their way, and those whose outcome waits to be written down.
IN_FLIGHT = CONNECTIONS + 4 * CONNECTIONS

_MESSAGE_ID = re.compile(rb"^message-id:\s*(<[^>]+>)", re.I | re.M)


class Gate:
    """An act: sessions stop here until it is opened, and then do what it says. `stopped` counts them."""

    def __init__(self, then: Act) -> None:
        self.stopped = 0
        self._then = then
        self._opened = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, session: Session) -> None:
        self._loop = asyncio.get_running_loop()
        self.stopped += 1
        await self._opened.wait()
        await self._then(session)

    def open(self) -> None:
        """From another thread than the relay's."""
        assert self._loop is not None, "nobody came"
        self._loop.call_soon_threadsafe(self._opened.set)


def slow(most_seconds: float) -> Act:
    """At `dot`: takes the mail after a moment of up to so many seconds, as a relay does; else next to nothing would be
    on its way when something happens."""

    async def act(session: Session) -> None:
        await asyncio.sleep(random.uniform(0, most_seconds))
        await accept(session)

    return act


@contextmanager
def in_thread(smtpd: Smtpd, port: int = 0) -> Iterator[Smtpd]:
    """Listens on `port`, or on a free one, while the test waits for something else."""
    listening: Future[asyncio.AbstractEventLoop] = Future()
    stop = asyncio.Event()

    async def listen() -> None:
        try:
            async with smtpd.listening(port):
                listening.set_result(asyncio.get_running_loop())
                await stop.wait()
        except OSError as error:
            listening.set_exception(error)

    thread = threading.Thread(target=asyncio.run, args=(listen(),))
    thread.start()
    try:
        loop = listening.result(timeout=60)
        yield smtpd
        loop.call_soon_threadsafe(stop.set)
    except BaseException:
        if listening.done() and not listening.exception():
            listening.result().call_soon_threadsafe(stop.set)
        raise
    finally:
        thread.join()


@dataclass
class Place:
    """A server, its relay and its database, looked at from outside."""

    server: Server
    smtpd: Smtpd
    database: Path
    environ: dict[str, str]

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """What the database says, past the server; or what it is told. Values are $1, $2 ..."""
        return provision.ask(self.environ.get("DOORBELL_DATABASE_URL", f"sqlite:///{self.database}"), sql, *values)

    @contextmanager
    def locked(self) -> Iterator[sqlite3.Connection]:
        """Nobody else can write; what is written here is committed at the end."""
        connection = sqlite3.connect(self.database, isolation_level=None, timeout=60)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        finally:
            connection.close()

    def sign_up(self, *visitors: str) -> list[str]:
        """Each of them is accepted; answers their addresses."""
        emails = [f"{visitor}@example.com" for visitor in visitors]
        for email in emails:
            assert self.server.sign_up(email).status_code == 202
        return emails

    def taken(self) -> Counter[str]:
        """How often the relay took each mail, by Message-ID."""
        return Counter(message_id(mail.data) for mail in list(self.smtpd.mails))

    @property
    def doubles(self) -> int:
        """What the relay took again."""
        return self.taken().total() - len(self.taken())

    def settled(self) -> bool:
        """Whether no mail waits."""
        return self.query("SELECT count(*) FROM outbox WHERE state = 'pending'") == [(0,)]

    def end_leases(self) -> None:
        """As if the owners' time were up: fifteen seconds a test are too long to wait."""
        self.query("UPDATE outbox SET lease_until = 0 WHERE lease_until IS NOT NULL")

    def jump(self, seconds: float) -> None:
        """As if the clock had been set so far back, or, below zero, forward: every time that is written down moves."""
        with self.locked() as connection:
            for table in metadata.sorted_tables:
                for column in table.columns:
                    if column.name.endswith(("_at", "_until")):
                        connection.execute(f"UPDATE {table.name} SET {column.name} = {column.name} + ?", (seconds,))

    def check(self, accepted: list[str]) -> None:
        """Everything is as promised: each accepted signup is there, whole, and each of its mails was taken."""
        wait_until(self.settled, seconds=100)
        kept = {email for (email,) in self.query("SELECT email FROM signups")}
        assert set(accepted) <= kept
        odd = self.query(
            "SELECT signups.id, count(outbox.id) FROM signups LEFT JOIN outbox ON signup_id = signups.id"
            " GROUP BY 1 HAVING count(outbox.id) != 2"
        )
        assert odd == []
        assert self.query("SELECT DISTINCT state, lease_owner, lease_until FROM outbox") == [("sent", None, None)]
        assert {id for (id,) in self.query("SELECT message_id FROM outbox")} == set(self.taken())
        # each has in its log that it was sent, once
        odd = self.query(
            "SELECT outbox.id, count(attempts.id) FROM outbox LEFT JOIN attempts"
            " ON outbox_id = outbox.id AND attempts.outcome = 'sent' GROUP BY 1 HAVING count(attempts.id) != 1"
        )
        assert odd == []


def message_id(data: bytes) -> str:
    """The Message-ID of a mail."""
    found = _MESSAGE_ID.search(data)
    assert found, data
    return found[1].decode()


@contextmanager
def placed(folder: Path, smtpd: Smtpd, **environ: str) -> Iterator[Place]:
    """A place whose server, not started yet, has `smtpd` for its relay; `environ` without the prefix."""
    add_site(folder / "sites", "bikes", SITE_TOML)
    database = folder / "var" / "doorbell.db"
    with in_thread(smtpd):
        # All signups of a test come from one address.
        own = {"SMTP_URL": f"smtp://127.0.0.1:{smtpd.port}", "LIMITS": "off", **environ}
        given = {"DOORBELL_SITES_DIR": str(folder / "sites"), "DOORBELL_DATA_DIR": str(folder / "var")}
        given |= {f"DOORBELL_{name}": value for name, value in own.items()}
        server = ForkedServer(given, folder / "server.log")
        try:
            yield Place(server, smtpd, database, given)
        finally:
            server.kill()
