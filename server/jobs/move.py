"""Moves an installation from one database to another, of whatever kind: every row of every table, as it is.

Nothing may write to the source meanwhile; whether something did is looked at in the end. The target must be new.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select, text, tuple_
from sqlalchemy.exc import DBAPIError

from server.db import Database
from server.db.tables import metadata

# Of signups a moment's work, of messages a few megabytes.
BATCH = 500

Contents = dict[str, tuple[int, Any]]
"""For each table how many rows it has, and the greatest of its first key."""


class MoveError(Exception):
    """Why nothing can be moved, or what was moved is not what there was."""


@dataclass(frozen=True, slots=True)
class Step:
    """So many rows of a table were carried over."""

    table: str
    rows: int


def contents(connection: Connection) -> Contents:
    """What there is: the same before and after where nobody wrote."""
    found: Contents = {}
    for table in metadata.sorted_tables:
        query = select(func.count(), func.max(table.primary_key.columns[0])).select_from(table)
        count, greatest = connection.execute(query).one()
        found[table.name] = (count, greatest)
    return found


async def move(source: Database, target: Database) -> AsyncIterator[Step]:
    """Carries everything over. Raises MoveError, and DatabaseUnavailable.

    What breaks off leaves the target with a part; it is then no new one, and has to be made again.
    """
    if others := _rows(await target.read(contents), besides="jobs"):
        raise MoveError(f"there are rows already: {others}; give a new database")
    before = await source.read(contents)
    await target.transact(_empty, "jobs")  # which a new one has of its own
    for table in metadata.sorted_tables:
        after: Sequence[Any] | None = None
        # Up to what there was: where somebody writes on, there might be no end.
        last = before[table.name][1]
        while last is not None and (rows := await source.read(_following, table, after, last)):
            try:
                await target.transact(_add, table, rows)
            except DBAPIError as error:  # PostgreSQL is strict where SQLite takes what comes
                raise MoveError(
                    f"{table.name}: the new database does not take what is in a row: {error.orig}"
                ) from error
            after = [rows[-1][column.name] for column in table.primary_key]
            yield Step(table.name, len(rows))
    await target.transact(_count_on)
    if await source.read(contents) != before:
        raise MoveError("the source was written to meanwhile: stop every process that uses it, and begin again")
    # Not the greatest keys: what is great among texts, each database says for itself.
    for name, (count, _) in (await target.read(contents)).items():
        if count != before[name][0]:
            raise MoveError(f"of {before[name][0]:,} rows in {name} {count:,} arrived")


def _rows(found: Contents, besides: str) -> str:
    return ", ".join(f"{count:,} in {name}" for name, (count, _) in found.items() if count and name != besides)


def _following(connection: Connection, table: Table, after: Sequence[Any] | None, last: Any) -> list[dict[str, Any]]:
    keys = list(table.primary_key)
    query = select(table).where(keys[0] <= last).order_by(*keys).limit(BATCH)
    if after is not None:
        query = query.where(tuple_(*keys) > tuple_(*after))
    return [dict(row) for row in connection.execute(query).mappings()]


def _empty(connection: Connection, name: str) -> None:
    connection.execute(delete(metadata.tables[name]))


def _add(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    connection.execute(insert(table), rows)


def _count_on(connection: Connection) -> None:
    """PostgreSQL numbers new rows by sequences, which know nothing of rows that came with their numbers."""
    if connection.dialect.name != "postgresql":
        return
    for table in metadata.sorted_tables:
        key = table.autoincrement_column
        if key is not None:
            sequence = f"pg_get_serial_sequence('{table.name}', '{key.name}')"
            top = f"(SELECT max({key.name}) FROM {table.name})"
            connection.execute(text(f"SELECT setval({sequence}, coalesce({top}, 1), {top} IS NOT NULL)"))
