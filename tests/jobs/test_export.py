"""A signup comes out of a spreadsheet as it went into the form, and none of it runs there."""

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.db import Database
from server.jobs import export
from server.jobs.export import BOM, Csv, Json, guarded, unguarded
from server.registry import Entry, Filter, Status
from server.signup import Reception
from tests.outbox.conftest import opened
from tests.signups import sign_up

FORMULA = tuple("=+-@|%\t\r")
ENTRY = Entry(7, "bikes", Status.CONFIRMED, None, "a@b.example", None, {}, None, 0.0, 60.0, None, 0.0)

# What is usual, and what matters here.
TEXT = st.text(
    alphabet=st.one_of(st.sampled_from("=+-@|%\t\r\n' \"',;＝﹢\u200b\ufeff1A"), st.characters(codec="utf-8"))
)


def cells(entry: Entry, form: Csv) -> dict[str, str]:
    data = (form.begin() + form.row(entry, first=True) + form.end()).decode("utf-8")
    assert data.startswith(BOM) and data.endswith("\r\n")
    head, row = csv.reader(io.StringIO(data.removeprefix(BOM), newline=""))
    return dict(zip(head, row, strict=True))


@given(
    st.dictionaries(st.sampled_from(["a", "b", "id", "consents"]), TEXT), TEXT, st.dictionaries(TEXT, TEXT, max_size=2)
)
@settings(max_examples=50, deadline=None)
def test_reader_gets_back_every_value_and_no_cell_is_a_formula(
    fields: dict[str, str], name: str, consents: dict[str, str]
) -> None:
    entry = replace(ENTRY, name=name, fields=fields, consents=consents)
    found = cells(entry, Csv(list(fields)))
    assert not [cell for cell in found.values() if cell.lstrip().startswith(FORMULA) or cell.startswith(FORMULA)]
    named = {f"fields.{field}" if field in ("id", "consents") else field: value for field, value in fields.items()}
    assert {column: unguarded(found[column]) for column in named} == named
    assert unguarded(found["name"]) == name
    assert json.loads(unguarded(found["consents"]) or "{}") == consents


@pytest.mark.parametrize(
    "cell",
    [
        "=cmd|' /C calc'!A0",
        "+49 30 123",
        "-2+3",
        "@SUM(A1)",
        "|x",
        "%0A",
        "\t=1",
        "\r=1",
        "\n=1",
        "  =1",
        "\u00a0=1",
        "\u200b=1",
        "＝1",
        "﹢1",
        "＠x",
        "−1",
        "'=1",
        "''=1",
    ],
)
def test_what_would_run_is_guarded(cell: str) -> None:
    assert guarded(cell) == f"'{cell}"
    assert unguarded(guarded(cell)) == cell


@pytest.mark.parametrize("cell", ["", "a=b", "1-2", "'", "'tis", "“=1”", "(=1)", " ", "é", "1e5"])
def test_what_would_not_run_is_left(cell: str) -> None:
    assert guarded(cell) == unguarded(cell) == cell


def test_raw_leaves_everything() -> None:
    found = cells(
        replace(ENTRY, fields={"a": "=1", "b": False, "c": None, "d": True}), Csv(["a", "b", "c", "d"], raw=True)
    )
    assert found == {
        "id": "7",
        "received": "1970-01-01T00:00:00Z",
        "status": "confirmed",
        "confirmed": "1970-01-01T00:01:00Z",
        "email": "a@b.example",
        "name": "",
        "a": "=1",
        "b": "no",
        "c": "",
        "d": "yes",
        "consents": "",
    }


@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_is_one_array_with_an_object_a_line(count: int) -> None:
    form, rows = Json(), [replace(ENTRY, id=id, fields={"a": "=1\n"}) for id in range(count)]
    data = form.begin() + b"".join(form.row(row, first=not row.id) for row in rows) + form.end()
    found: list[dict[str, Any]] = json.loads(data)
    assert [one["id"] for one in found] == list(range(count))
    assert len(data.splitlines()) == count + 2
    assert all(one["fields"] == {"a": "=1\n"} for one in found)


async def test_nobody_waits_for_an_export(
    database: Database, database_url: str, lamps: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of it another process writes; and what comes meanwhile is not in it, or it might never end."""
    monkeypatch.setattr(export, "BATCH", 2)
    last = max(await sign_up(database, lamps, [f"v{number}@there.example" for number in range(5)]))
    found = []
    async with opened(database_url) as other:
        async for entry in export.entries(database, Filter(site="lamps"), last):
            found.append(entry.id)
            await sign_up(other, lamps, [f"w{entry.id}@there.example"])
    assert found == [last - 4, last - 3, last - 2, last - 1, last]
