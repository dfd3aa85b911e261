"""The rows of a file that somebody made, one by one and so in little memory: CSV, a JSON array, or an object a line.

Knows how files are broken, and in which line. Knows the columns of our own export, and not what may be in them.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TextIO

from server.jobs import export

# Characters that a row may have: it is the memory that a broken file costs.
ROW = 2**20
_CHUNK = 2**16
_SEPARATORS = ",;\t"

# What our own export calls them, and what they are.
_CSV = {name: name for name in export.COLUMNS} | {"received": "created_at", "confirmed": "confirmed_at"}
_OWN = ("id", "site", "status", "spam", "created_at", "confirmed_at", "email", "name", "consents")
_JSON = {name: name for name in _OWN}

_SPACE = re.compile(r"[ \t\r\n]*")
# Text that no database keeps: PostgreSQL refuses it, and half a surrogate pair is no character.
_UNFIT = re.compile("[\x00\ud800-\udfff]")


class Unreadable(Exception):
    """Nothing more of the file can be read, for a reason that a person understands."""


class _Broken(Exception):
    """This row cannot be read; the next one may."""


@dataclass(frozen=True, slots=True)
class Record:
    """A row: the columns that every signup has, by the names of the JSON export, and the fields. Or why it is none."""

    line: int
    own: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


class Source(io.RawIOBase):
    """The bytes of a file or a pipe. `begin` are the first four; `taken` counts what was read."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file
        self.begin = self._ahead = file.read(4)
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._ahead or self._file.read1(len(buffer))
        self._ahead = b""
        buffer[: len(data)] = data
        self.taken += len(data)
        return len(data)


def records(source: Source, rename: Mapping[str, str], raw: bool = False) -> Iterator[Record]:
    """All rows of the file. Columns that `rename` has are called what it says; an empty name leaves them out.

    Cells of CSV are taken out of their guards against formulas, unless they are `raw`. Raises Unreadable.
    """
    utf16 = source.begin.startswith((b"\xff\xfe", b"\xfe\xff"))
    encoding, errors = ("utf-16", "strict") if utf16 else ("utf-8-sig", "surrogateescape")
    text = io.TextIOWrapper(io.BufferedReader(source, _CHUNK), encoding, errors, newline="")
    try:
        first, number = _first(text)
        if first == "[":
            yield from _array(_Array(text, number), rename)
            return
        lines = _Lines(text, first, number)
        yield from _objects(lines, rename) if first == "{" else _table(lines, rename, raw)
    except UnicodeError:
        raise Unreadable("it is neither in UTF-8 nor in UTF-16") from None


def _first(text: TextIO) -> tuple[str, int]:
    """The first character that is not space, and the line it is in."""
    number = 1
    while char := text.read(1):
        if not char.isspace():
            return char, number
        number += char == "\n"
    raise Unreadable("it is empty")


class _Lines:
    """The lines of a text, with their line breaks; a row of several must not be longer than ROW."""

    def __init__(self, text: TextIO, ahead: str, number: int) -> None:
        self._text = text
        self._ahead = ahead
        self._room = ROW
        self.number = number - 1

    def begin(self) -> int:
        """A row begins; answers in which line."""
        self._room = ROW
        return self.number + 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._ahead + self._text.readline(self._room + 1)
        self._ahead = ""
        if not line:
            raise StopIteration
        self.number += 1
        self._room -= len(line)
        if self._room < 0:
            while line and not line.endswith(("\r", "\n")):
                line = self._text.readline(_CHUNK)
            raise _Broken(f"it is longer than {ROW:,} characters")
        return line


# -- CSV ---------------------------------------------------------------------------------------------------------------


def _table(lines: _Lines, rename: Mapping[str, str], raw: bool) -> Iterator[Record]:
    lines.begin()
    try:
        head = next(lines)
        rows = csv.reader(chain([head], lines), delimiter=_separator(head, rename, raw), strict=True)
        columns = _columns([_bare(cell, raw).strip() for cell in next(rows)], rename)
    except (csv.Error, _Broken) as error:
        raise Unreadable(f"line 1: the names of the columns cannot be read: {error}") from None
    while True:
        line = lines.begin()
        try:
            cells = next(rows)
        except StopIteration:
            return
        except (csv.Error, _Broken) as error:
            until = f" (up to line {lines.number:,})" if lines.number > line else ""
            yield Record(line, problem=f"cannot be read{until}: {error}")
            continue
        if cells:
            yield _row(line, cells, columns, raw)


def _separator(head: str, rename: Mapping[str, str], raw: bool) -> str:
    """What gives a column of addresses; without any, what there is most of."""
    for separator in _SEPARATORS:
        for cells in csv.reader([head], delimiter=separator):
            if "email" in (rename.get(name, name) for name in (_bare(cell, raw).strip() for cell in cells)):
                return separator
    return max(_SEPARATORS, key=head.count)


def _columns(names: list[str], rename: Mapping[str, str]) -> list[str]:
    """The names of the columns, as they are to be called."""
    if _UNFIT.search("".join(names)):
        raise Unreadable("line 1: the names of the columns are no text: it must be CSV or JSON, in UTF-8 or UTF-16")
    if unknown := sorted(rename.keys() - set(names)):
        raise Unreadable(f"there is no column {unknown[0]!r}; there are: {', '.join(names)}")
    renamed = [rename.get(name, name) for name in names]
    for number, (name, new) in enumerate(zip(names, renamed, strict=True), start=1):
        if not name:
            raise Unreadable(f"line 1: column {number} has no name")
        if new and renamed.count(new) > 1:
            raise Unreadable(f"line 1: there are two columns {new!r}")
    if "email" not in renamed:
        raise Unreadable(f"there is no column 'email'; there are: {', '.join(names)} (--map {names[0]}=email)")
    return renamed


def _row(line: int, cells: list[str], columns: list[str], raw: bool) -> Record:
    if len(cells) != len(columns):
        return Record(line, problem=f"has {len(cells)} cells, and there are {len(columns)} columns")
    # A table cannot tell an empty answer from none.
    pairs = ((name, _bare(cell, raw)) for name, cell in zip(columns, cells, strict=True) if name and cell)
    return _record(line, pairs, _CSV)


def _bare(cell: str, raw: bool) -> str:
    return cell if raw else export.unguarded(cell)


# -- JSON --------------------------------------------------------------------------------------------------------------


class _Twice(ValueError):
    """A name stands in an object twice, and parsers disagree on what that means."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    names = [name for name, _ in pairs]
    # Not a mapping of these names: it is told of where its row is.
    return {"": _Twice(next(name for name in names if names.count(name) > 1))}


# Numbers stay as they are written: an answer is text.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=str, parse_float=str, parse_constant=str)


def _objects(lines: _Lines, rename: Mapping[str, str]) -> Iterator[Record]:
    while True:
        line = lines.begin()
        try:
            text = next(lines)
            if text.strip():
                yield _from_json(line, _DECODER.decode(text), rename)
        except StopIteration:
            return
        except json.JSONDecodeError as error:
            yield Record(line, problem=f"is no JSON: {error.msg} (column {error.colno})")
        except RecursionError:
            yield Record(line, problem="is no JSON: it is nested too deeply")
        except _Broken as error:
            yield Record(line, problem=f"cannot be read: {error}")


def _array(array: "_Array", rename: Mapping[str, str]) -> Iterator[Record]:
    for line, value in array:
        yield _from_json(line, value, rename)


class _Array:
    """The elements of a JSON array, which may be all in one line, each with the line in which it begins."""

    def __init__(self, text: TextIO, line: int) -> None:
        self._text = text
        self._buffer = ""  # what follows the bracket
        self._place = 0
        self._line = line

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        sign = "" if self._peek() == "]" else ","
        while sign == ",":
            self._peek()
            yield self._line, self._value()
            if (sign := self._peek()) == ",":
                self._place += 1
        if sign not in ("", "]") or self._peek() != "]":
            raise self._wrong("a comma or the end of the array is missing")
        self._place += 1
        if self._peek():
            raise self._wrong("there is something behind the end of the array")

    def _wrong(self, why: str) -> Unreadable:
        return Unreadable(f"line {self._line:,}: is no JSON: {why}")

    def _more(self) -> bool:
        """Reads on; False at the end."""
        data = self._text.read(_CHUNK)
        self._buffer, self._place = self._buffer[self._place :] + data, 0
        return bool(data)

    def _go(self, place: int) -> None:
        self._line += self._buffer.count("\n", self._place, place)
        self._place = place

    def _peek(self) -> str:
        """The next character that is not space, empty at the end."""
        while True:
            if found := _SPACE.match(self._buffer, self._place):
                self._go(found.end())
            if self._place < len(self._buffer) or not self._more():
                return self._buffer[self._place : self._place + 1]

    def _value(self) -> Any:
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._place)
            except json.JSONDecodeError as error:  # it may be cut off, or no JSON at all
                if len(self._buffer) - self._place > ROW:
                    raise self._wrong(f"{error.msg}, or longer than {ROW:,} characters") from None
                if not self._more():
                    raise self._wrong(error.msg) from None
            except RecursionError:
                raise self._wrong("it is nested too deeply") from None
            else:
                self._go(end)
                return value


def _from_json(line: int, value: Any, rename: Mapping[str, str]) -> Record:
    if not isinstance(value, dict):
        return Record(line, problem="is no object")
    pairs: list[tuple[str, Any]] = []
    for column, content in value.items():
        if column == "fields" and isinstance(content, dict):
            pairs += ((f"fields.{name}", answer) for name, answer in content.items())
        elif name := rename.get(column, column if column else "fields."):
            pairs.append((name, content))
    return _record(line, pairs, _JSON)


# -- both --------------------------------------------------------------------------------------------------------------


def _record(line: int, pairs: Iterable[tuple[str, Any]], known: Mapping[str, str]) -> Record:
    own: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    for column, value in pairs:
        if isinstance(value, _Twice):
            return Record(line, problem=f"{value} is there twice")
        target, name = (own, known[column]) if column in known else (fields, export.field(column).strip())
        if not name:
            return Record(line, problem="a field has no name")
        if name in target:
            return Record(line, problem=f"{name} is there twice")
        if problem := _unfit(name, value):
            return Record(line, problem=problem)
        target[name] = value
    return Record(line, own, fields)


def _unfit(name: str, value: Any) -> str | None:
    """What is wrong with a value, whatever it is for. Only consents are an object."""
    parts = [name, value]
    if name == "consents" and isinstance(value, dict):
        parts = [name, *value, *value.values()]
    for part in parts:
        if not isinstance(part, str | bool | None):
            return f"{name}: must be a text"
        if isinstance(part, str) and _UNFIT.search(part):
            return f"{name}: holds a NUL, or what is not UTF-8"
    return None
