"""Two transactions at the same time, on PostgreSQL: what one of them found is still so when it acts on it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from server import registry, signup
from server.db import Database
from server.jobs import people
from server.jobs.people import BeingSent
from server.outbox import store
from server.signup import Reception
from tests import postgresql
from tests.conftest import eventually
from tests.signups import DAY, GATE, change, sign_up

ANN = "ann@there.example"


@pytest.fixture
def database_url(postgresql_url: str) -> str:
    return postgresql_url


def waits(database: Database) -> bool:
    """Whether some transaction waits for another's lock."""
    here = database.url.render_as_string(hide_password=False)
    query = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(postgresql.ask(here, query))


@asynccontextmanager
async def under_way(database: Database, work: Callable[[Connection], object]) -> AsyncIterator[None]:
    """`work` is done and not committed; it is when something waits for it."""
    engine = create_async_engine(database.url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(work)
            yield
            await eventually(lambda: waits(database))
    finally:
        await engine.dispose()


async def test_mail_that_is_claimed_meanwhile_is_not_erased_under_way(database: Database, lamps: Reception) -> None:
    await sign_up(database, lamps, [ANN])
    async with under_way(database, lambda connection: store.claim(connection, "another", 10, 15)):
        erasing = asyncio.create_task(database.transact(people.erase, ANN))
    with pytest.raises(BeingSent):
        await erasing
    assert len(change(database, "SELECT * FROM signups")) == 1


@pytest.mark.parametrize("purge", [registry.purge, registry.purge_waiting])
async def test_signup_that_is_confirmed_meanwhile_keeps_its_mails(
    database: Database, lamps: Reception, purge: Callable[[Connection, float], object]
) -> None:
    await sign_up(database, lamps, [ANN], age=9 * DAY)
    change(database, "UPDATE signups SET told_at = created_at")
    change(database, "UPDATE outbox SET state = 'sent' WHERE kind = 'confirm'")
    ((key,),) = change(database, "SELECT key FROM signups")
    async with under_way(database, lambda connection: signup._confirm(connection, key, None)):
        purging = asyncio.create_task(database.transact(purge, DAY))
        await asyncio.sleep(0)
    await purging
    assert change(database, "SELECT kind, state FROM outbox WHERE state = 'pending'") == [("notice", "pending")]


async def test_link_of_a_signup_that_is_removed_meanwhile_is_one_to_nothing(
    database: Database, lamps: Reception
) -> None:
    await sign_up(database, lamps, [ANN])
    ((key,),) = change(database, "SELECT key FROM signups")
    async with under_way(database, lambda connection: people.erase(connection, ANN)):
        asking = asyncio.create_task(signup.ask_again(database, GATE, {"lamps": lamps}, key))
    assert not await asking
