"""What was exported comes back in whole, and nothing comes twice."""

import asyncio
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import Connection, Select, delete, insert, select

from server import registry, site
from server.db import Database
from server.db.tables import outbox, signups
from server.form import form_model
from server.jobs import export, intake, rows
from server.jobs.export import Csv, Json
from server.jobs.intake import Intake
from server.jobs.rows import Source
from server.outbox.store import recipient_hash
from server.registry import Filter, Status
from tests.conftest import add_site
from tests.jobs.test_export import TEXT
from tests.outbox.conftest import opened
from tests.signups import ASKING, received, sign_up

ALL = Filter(frozenset(Status), "lamps")
ANN = "ann@there.example"


@pytest.fixture
def lamps(tmp_path: Path) -> site.Site:
    return site.load(add_site(tmp_path / "sites", "lamps", ASKING))


async def take(database: Database, at: site.Site, data: bytes, **options: Any) -> tuple[int, list[str]]:
    """How many of a file were written, and what was refused."""
    taking = Intake(at, options.pop("confirmed", False))
    records = rows.records(Source(io.BytesIO(data)), {}, **options)
    count, refused = 0, []
    while True:
        batch = taking.batch(records)
        refused += [reason for _, reason in batch.refused] + ([batch.end] if batch.end else [])
        count += len(await database.transact(intake.add, at.slug, batch.rows))
        if batch.ended:
            return count, refused


async def exported(database: Database, at: site.Site, raw: bool | None) -> bytes:
    """All signups: as CSV, or as JSON where `raw` is None."""
    form = Json() if raw is None else Csv(await export.columns(database, ALL, list(at.signup.fields)), raw)
    data, first = form.begin(), True
    async for entry in export.entries(database, ALL, 2**40):
        data, first = data + form.row(entry, first), False
    return data + form.end()


def said(data: bytes, raw: bool | None) -> list[object]:
    """What an export holds but for the ids; a table cannot tell an empty answer from none."""
    if raw is None:
        return [{**one, "id": None} for one in json.loads(data)]
    head, *lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    return [[pair for pair in zip(head[1:], line[1:], strict=True) if pair[1]] for line in lines]


def remove(connection: Connection, ids: Select[int]) -> int:
    return connection.execute(delete(signups).where(signups.c.id.in_(ids))).rowcount


def entries(connection: Connection) -> list[registry.Entry]:
    return registry.following(connection, ALL, 0, 1000)


# -- the round trip ----------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["old", "id", "consents", "fields.id", "fields", "=1", "ä b"]) | st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=10
).map(str.strip).filter(bool)
ANSWERS = TEXT.filter(lambda text: text and "\0" not in text)


@st.composite
def signup(draw: st.DrawFn) -> dict[str, Any]:
    """A row as the server writes it, also one that was taken by a form of another time."""
    status = draw(st.sampled_from(Status))
    declared = {
        "colour": draw(st.sampled_from(["Red", "Green", "Blue of long ago", None])),
        "message": draw(st.sampled_from(["Grüße\n=1", "'=1", "no", None, "x" * 5000])),
        "news": draw(st.booleans()),
    }
    fields: dict[str, Any] = {name: value for name, value in declared.items() if draw(st.booleans())}
    fields |= draw(st.dictionaries(NAMES, ANSWERS | st.booleans() | st.none(), max_size=3))
    consents = draw(st.none() | st.dictionaries(NAMES, ANSWERS, min_size=1, max_size=2))
    email = draw(st.sampled_from([ANN, "Bob@there.example", "c@xn--bcher-kva.example"]))
    created = draw(st.sampled_from([0.0, 1_700_000_000.25, 1_700_000_000.75]) | st.floats(0, 1_790_000_000))
    return {
        "site": "lamps",
        "email": email,
        "name": draw(st.sampled_from(["Ann", "=Ann", "Zoë, the 2nd", None])),
        "fields": fields,
        "consents": consents,
        "recipient_hash": recipient_hash(email),
        "status": status.value,
        "spam": None,
        "created_at": created,
        "confirmed_at": draw(st.none() | st.just(created + 60)),
    }


@given(found=st.lists(signup(), max_size=8), twins=st.integers(1, 2), raw=st.sampled_from([False, True, None]))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_export_comes_back_in_whole(
    database_url: str, lamps: site.Site, found: list[dict[str, Any]], twins: int, raw: bool | None
) -> None:
    async def run(database: Database) -> None:
        await database.transact(lambda connection: connection.execute(delete(signups)))
        values = [dict(one) for one in sorted(found, key=lambda one: int(one["created_at"])) for _ in range(twins)]
        if values:
            await database.transact(lambda connection: connection.execute(insert(signups), values))
        before = await exported(database, lamps, raw)
        options = {} if raw is None else {"raw": raw}
        assert await take(database, lamps, before, **options) == (0, [])  # they are all there
        half = select(signups.c.id).where(signups.c.id % 2 == 0)
        for gone in (half, select(signups.c.id)):
            count = await database.transact(remove, gone)
            assert await take(database, lamps, before, **options) == (count, [])
        assert said(await exported(database, lamps, raw), raw) == said(before, raw)
        other = None if raw is False else False
        assert await take(database, lamps, await exported(database, lamps, other)) == (0, [])  # nor by the other way

    async def there_and_back() -> None:
        async with opened(database_url) as database:
            await run(database)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake, "BATCH", 3)
        asyncio.run(there_and_back())


async def test_what_came_by_the_form_is_known_again(database: Database, lamps: site.Site) -> None:
    at = received(lamps.folder)
    await sign_up(database, at, [ANN, ANN, "b@there.example"], message="Grüße", news=True)
    for raw in (False, None):
        assert await take(database, lamps, await exported(database, lamps, raw)) == (0, [])


# -- rows from elsewhere -----------------------------------------------------------------------------------------------

TABLE = b"email,colour,received\nann@there.example,Red,2026-01-31 12:00\nbob@there.example,Green,\n"


async def test_rows_are_written_once(database: Database, lamps: site.Site) -> None:
    assert await take(database, lamps, TABLE) == (2, [])
    assert await take(database, lamps, TABLE + b"c@there.example,Red,\n") == (1, [])
    ann, bob, _ = await database.read(entries)
    assert (ann.email, ann.created_at, ann.status, ann.name) == (ANN, 1769860800.0, Status.ACCEPTED, None)
    assert ann.fields == {"colour": "Red", "message": None, "news": False} and ann.consents is None
    assert bob.read_at - 60 < bob.created_at <= bob.read_at


async def test_who_signed_up_twice_is_there_twice_where_times_tell(database: Database, lamps: site.Site) -> None:
    ann = "ann@there.example,Red,2026-01-31 12:00:0"
    data = f"email,colour,received\n{ann}0\n{ann}0\n{ann}1\nann@there.example,Red,\nann@there.example,Red,\n".encode()
    assert await take(database, lamps, data) == (4, [])
    assert await take(database, lamps, data) == (0, [])


async def test_nobody_is_mailed_and_no_digest_tells(database: Database, lamps: site.Site) -> None:
    data = b"email,colour,status\na@b.example,Red,unconfirmed\nc@b.example,Red,confirmed\n"
    assert await take(database, lamps, data) == (2, [])
    assert await database.read(lambda connection: connection.execute(select(outbox)).all()) == []
    asked, answered = await database.read(entries)
    assert (asked.status, answered.status) == (Status.UNCONFIRMED, Status.CONFIRMED)
    assert asked.told_at is not None and answered.told_at is None


@pytest.mark.parametrize(
    ("columns", "cells", "confirmed", "status"),
    [
        ("colour", "Red", False, Status.ACCEPTED),
        ("colour", "Red", True, Status.CONFIRMED),
        ("colour,status", "Red,", True, Status.CONFIRMED),
        ("colour,status", "Red,accepted", True, Status.ACCEPTED),
        ("colour,confirmed", "Red,2026-01-31", False, Status.CONFIRMED),
    ],
)
async def test_status(
    database: Database, lamps: site.Site, columns: str, cells: str, confirmed: bool, status: Status
) -> None:
    data = f"email,{columns}\n{ANN},{cells}\n".encode()
    assert await take(database, lamps, data, confirmed=confirmed) == (1, [])
    [entry] = await database.read(entries)
    assert entry.status is status


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"email": "ann"}, "email: This is not a valid e-mail address"),
        ({"email": None}, "email: This field is required"),
        ({"email": True}, "email: "),
        ({"name": "x" * 101}, "name: This must have at most 100"),
        ({"name": "a\nb"}, "name: This must be one line"),
        ({"colour": "Blue"}, "colour: "),
        ({"colour": None}, "colour: This field is required"),
        ({"news": "perhaps"}, "news: "),
        ({"message": "x" * 101}, "message: "),
        ({"old": "x" * 20_001}, "old: must have at most"),
        ({"x" * 201: "a"}, "must have at most 200"),
        ({"status": "subscribed"}, "status: must be one of"),
        ({"status": True}, "status: must be one of"),
        ({"status": "confirmed", "email": "ann"}, "email: "),
        ({"status": "confirmed", "message": "x" * 20_001}, "message: must have at most"),
        ({"status": "spam", "spam": "x" * 21}, "spam: "),
        ({"created_at": "yesterday"}, "created_at: must be a time"),
        ({"created_at": "1769860800"}, "created_at: must be a time"),
        ({"created_at": True}, "created_at: must be a time"),
        ({"created_at": "2999-01-01"}, "created_at: lies in the future"),
        ({"created_at": "1969-12-31"}, "created_at: lies in the future, or before"),
        ({"created_at": "0001-01-01T00:00:00+14:00"}, "created_at: "),
        ({"confirmed_at": "9999-12-31T23:00:00-14:00"}, "confirmed_at: "),
        ({"consents": "yes"}, "consents: must be JSON"),
        ({"consents": "[" * 100_000}, "consents: must be JSON"),
        ({"consents": {"news": True}}, "consents: must be JSON"),
    ],
)
async def test_row_that_is_no_signup(database: Database, lamps: site.Site, row: dict[str, Any], why: str) -> None:
    data = "\n".join(
        json.dumps({"email": email, "colour": "Red"} | more) for email, more in [(ANN, row), ("b@b.example", {})]
    )
    count, [reason] = await take(database, lamps, data.encode())
    assert count == 1 and why in reason and len(reason) < 300


async def test_what_an_old_form_took_is_kept(database: Database, lamps: site.Site) -> None:
    row = {"email": ANN, "status": "accepted", "fields": {"colour": "Blue", "news": "maybe", "message": " x "}}
    assert await take(database, lamps, json.dumps([row]).encode()) == (1, [])
    [entry] = await database.read(entries)
    assert entry.fields == {"colour": "Blue", "news": "maybe", "message": "x"}


async def test_fields_that_the_form_does_not_have_are_kept_and_told(database: Database, lamps: site.Site) -> None:
    taking = Intake(lamps, confirmed=False)
    batch = taking.batch(rows.records(Source(io.BytesIO(b"email,colour,ip\na@b.example,Red,192.0.2.1\n")), {}))
    assert list(taking.strangers) == ["ip"] and batch.rows[0].values["fields"]["ip"] == "192.0.2.1"


async def test_rows_before_a_break_are_written(database: Database, lamps: site.Site) -> None:
    count, [reason] = await take(database, lamps, b'[{"email": "a@b.example", "colour": "Red"}, oh')
    assert count == 1 and "is no JSON" in reason


def test_form_is_as_strict_as_for_a_visitor(lamps: site.Site) -> None:
    with pytest.raises(ValidationError):
        form_model(lamps).model_validate({"email": ANN})
    assert Intake(lamps, False).batch(rows.records(Source(io.BytesIO(b"email\na@b.example\n")), {})).rows == []
