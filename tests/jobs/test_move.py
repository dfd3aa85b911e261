"""An installation is moved: all that was there is there, and goes on."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from server.db import Database
from server.jobs import move as moving
from server.jobs.move import MoveError, contents, move
from server.signup import Reception
from tests import provision
from tests.outbox.conftest import add, rows
from tests.signups import change, sign_up


@pytest.fixture(params=["sqlite to postgresql", "postgresql to sqlite"])
def urls(request: pytest.FixtureRequest, tmp_path: Path, postgresql_url: str) -> tuple[str, str]:
    """Where from and where to: two that have their tables."""
    both = provision.database(tmp_path / "one.db"), postgresql_url
    return both if request.param.startswith("sqlite") else both[::-1]


@pytest.fixture
async def both(urls: tuple[str, str]) -> AsyncIterator[tuple[Database, Database]]:
    async with AsyncExitStack() as stack:
        made = [Database(url) for url in urls]
        for one in made:
            stack.push_async_callback(one.close)
        yield made[0], made[1]


async def carry(source: Database, target: Database) -> int:
    return sum([step.rows async for step in move(source, target)])


TABLES = ["signups", "outbox", "messages", "attempts", "suppressions", "counters", "idempotency", "jobs"]


async def everything(database: Database) -> dict[str, list[str]]:
    return {name: sorted(str(row) for row in change(database, f"SELECT * FROM {name}")) for name in TABLES}


async def test_every_row_arrives_as_it_was(
    both: tuple[Database, Database], lamps: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "BATCH", 3)
    source, target = both
    emails = [f"{number}@there.example" for number in range(10)]
    ids = await sign_up(source, lamps, emails, news=True, message="Grüße 🐕\n'\"\\")
    change(source, f"INSERT INTO idempotency VALUES ('k', 'b', {ids[3]}, 5.25)")
    change(source, "INSERT INTO suppressions VALUES ('h', '', 'bounced', '550 no', 1.5), ('h', 'x', 'erased', NULL, 2)")
    change(source, "INSERT INTO counters VALUES ('mail-budget', 7, 9e9)")
    change(source, "INSERT INTO attempts VALUES (5, 1, 'sent', '250 ok', 0.125, 3)")
    change(source, "UPDATE jobs SET due_at = 12345.5 WHERE name = 'purge'")
    before = await everything(source)
    assert all(before.values())
    assert await carry(source, target) == sum(map(len, before.values()))
    assert await everything(source) == before
    after = await everything(target)
    assert after == before
    assert [row.message for row in await rows(target)] == [row.message for row in await rows(source)]


async def test_new_rows_are_numbered_on(both: tuple[Database, Database], lamps: Reception) -> None:
    source, target = both
    ids = await sign_up(source, lamps, ["a@there.example", "b@there.example"])
    await carry(source, target)
    assert await sign_up(target, lamps, ["c@there.example"]) == [ids[-1] + 1]
    assert len({row.id for row in await rows(target)}) == 6


async def test_empty_one_is_moved_too(both: tuple[Database, Database], lamps: Reception) -> None:
    source, target = both
    await carry(source, target)
    assert await sign_up(target, lamps, ["a@there.example"]) == [1]


async def test_target_that_is_not_new_is_left_alone(both: tuple[Database, Database]) -> None:
    source, target = both
    await add(source, "a@x.example")
    await add(target, "b@x.example")
    before = await everything(target)
    with pytest.raises(MoveError, match=r"1 in outbox, 1 in messages"):
        await carry(source, target)
    assert await everything(target) == before


async def test_source_that_is_written_to_meanwhile_is_told(both: tuple[Database, Database]) -> None:
    source, target = both
    await add(source, "a@x.example")
    with pytest.raises(MoveError, match="written to meanwhile"):
        async for _ in move(source, target):
            await add(source, "b@x.example")


async def test_contents_tell_tables_apart(both: tuple[Database, Database]) -> None:
    source, _ = both
    await add(source, "a@x.example", "b@x.example")
    found = await source.read(contents)
    assert (found["outbox"], found["signups"], found["jobs"][0]) == ((2, 2), (0, None), 2)


@pytest.mark.parametrize("urls", ["sqlite to postgresql"], indirect=True)
async def test_row_that_the_target_cannot_hold_is_told_of(both: tuple[Database, Database]) -> None:
    source, target = both
    change(source, f"INSERT INTO counters VALUES ('{'k' * 201}', 1, 1)")
    with pytest.raises(MoveError, match=r"counters: .* value too long"):
        await carry(source, target)
