"""A site's signups as a file: CSV for spreadsheets, JSON for programs, row by row and so in little memory.

What visitors wrote must not run as a formula where the file is opened: cells that would are guarded.
"""

import csv
import io
import json
import unicodedata
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, exists, select

from server import registry
from server.db import Database
from server.db.tables import signups
from server.registry import Entry, Filter

BATCH = 1000
BOM = "\ufeff"

# Columns that every signup has. What the form asks follows, and the words of consents.
_FIRST = ("id", "received", "status", "confirmed", "email", "name")
_CONSENTS = "consents"
COLUMNS = frozenset({*_FIRST, _CONSENTS})
_PREFIX = "fields."
_FORMULA = frozenset("=+-@|%\u2212")


def known(connection: Connection, site: str) -> bool:
    """Whether there are signups of a site of this name."""
    return bool(connection.execute(select(exists().where(signups.c.site == site))).scalar())


async def columns(database: Database, wanted: Filter, declared: Sequence[str]) -> list[str]:
    """The names of the form's fields: those `declared` today in their order, then those that only older signups have.
    Goes over all that match."""
    names, after = dict.fromkeys(declared), 0
    while found := await database.read(registry.fields, wanted, after, BATCH):
        for id, answers in found:
            names.update(dict.fromkeys(answers))
            after = id
    return list(names)


async def entries(database: Database, wanted: Filter, last: int) -> AsyncIterator[Entry]:
    """All that match up to the id `last`, oldest first."""
    after = 0
    while found := await database.read(registry.following, wanted, after, BATCH):
        for entry in found:
            if entry.id > last:
                return
            yield entry
            after = entry.id


# -- CSV ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Csv:
    """RFC 4180, in UTF-8 behind the mark by which Excel knows it. `fields` are its columns besides those that every
    signup has. With `raw` no cell is guarded."""

    fields: Sequence[str]
    raw: bool = False

    def begin(self) -> bytes:
        names = [_PREFIX + name if name in COLUMNS or name.startswith(_PREFIX) else name for name in self.fields]
        return BOM.encode() + self._line([*_FIRST, *names, _CONSENTS])

    def row(self, entry: Entry, first: bool) -> bytes:
        answers = [cell(entry.fields.get(name)) for name in self.fields]
        times = (_iso(entry.created_at), entry.status.value, _iso(entry.confirmed_at))
        consents = json.dumps(entry.consents, ensure_ascii=False) if entry.consents else None
        return self._line([str(entry.id), *map(cell, (*times, entry.email, entry.name)), *answers, cell(consents)])

    def end(self) -> bytes:
        return b""

    def _line(self, cells: Sequence[str]) -> bytes:
        text = io.StringIO()
        csv.writer(text).writerow(cells if self.raw else [guarded(cell) for cell in cells])
        return text.getvalue().encode("utf-8", "replace")


def field(column: str) -> str:
    """The field that a column besides those holds."""
    return column.removeprefix(_PREFIX)


def cell(value: Any) -> str:
    """A field's value as a cell, before it is guarded."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def guarded(cell: str) -> str:
    """The cell, behind an apostrophe where a spreadsheet might run it (OWASP, CSV injection).

    One that looks guarded already gets another apostrophe: so taking one off always gives back what there was.
    """
    return f"'{cell}" if _runs(cell.lstrip("'")) else cell


def unguarded(cell: str) -> str:
    """What was guarded."""
    return cell[1:] if cell.startswith("'") and _runs(cell.lstrip("'")) else cell


def _runs(cell: str) -> bool:
    if cell[:1] in ("\t", "\r", "\n"):
        return True
    # Spreadsheets pass over spaces and unseen characters, and some take wide forms for the plain ones.
    for char in cell:
        if unicodedata.category(char)[0] not in "ZC":
            return unicodedata.normalize("NFKC", char)[0] in _FORMULA
    return False


# -- JSON --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Json:
    """One array, an object a line; times in ISO 8601."""

    def begin(self) -> bytes:
        return b"["

    def row(self, entry: Entry, first: bool) -> bytes:
        values = {
            "id": entry.id,
            "site": entry.site,
            "status": entry.status,
            "spam": entry.spam,
            "created_at": _iso(entry.created_at),
            "confirmed_at": _iso(entry.confirmed_at),
            "email": entry.email,
            "name": entry.name,
            "fields": entry.fields,
            "consents": entry.consents,
        }
        return (("\n" if first else ",\n") + json.dumps(values, ensure_ascii=False)).encode("utf-8", "replace")

    def end(self) -> bytes:
        return b"\n]\n"


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
