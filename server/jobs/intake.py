"""Signups from elsewhere: what a row of a file becomes, and how it is written, once however often it comes.

A row is known again by what it says, without its id: by the key that is made of it, and by signups that say the same
and came by the form. No mail is written, and nobody hears of them in a digest.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Boolean, Connection, Double, bindparam, case, func, insert, select

from server.db import across
from server.db.tables import now, signups
from server.form import Form, form_model
from server.jobs import export
from server.jobs.rows import Record, Unreadable
from server.outbox.store import recipient_hash
from server.registry import Status
from server.site import Site

BATCH = 1000
# What the longest field of a form may have, and more than any name of one.
_LONGEST, _LONGEST_NAME = 20_000, 200
_DAY = 86400.0


class Refused(Exception):
    """A row that is no signup, and why."""


@dataclass(frozen=True, slots=True)
class Row:
    """A signup as it will stand in the table."""

    key: str
    values: Mapping[str, Any]


@dataclass(slots=True)
class Batch:
    """What was made of some records: rows, and lines that were refused. `end`: none follow, and why if not for the end
    of the file."""

    rows: list[Row] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    ended: bool = False
    end: str | None = None


class Intake:
    """What records become at one site. `confirmed`: those that do not tell their status have confirmed.

    `strangers` collects the names of fields that the site's form does not have: they are kept.
    """

    def __init__(self, site: Site, confirmed: bool) -> None:
        self._site = site
        self._form = form_model(site)
        self._lenient = form_model(_nothing_required(site))
        self._status = Status.CONFIRMED if confirmed else Status.ACCEPTED
        self._twins: Counter[str] = Counter()
        self._second: int | None = None
        self.strangers: dict[str, None] = {}

    def batch(self, records: Iterator[Record]) -> Batch:
        """What becomes of the next BATCH records."""
        batch = Batch(ended=True)
        try:
            for record in islice(records, BATCH):
                batch.ended = False
                try:
                    batch.rows.append(self._row(record))
                except Refused as error:
                    batch.refused.append((record.line, str(error)))
        except Unreadable as error:
            batch.ended, batch.end = True, str(error)
        return batch

    def _row(self, record: Record) -> Row:
        if record.problem:
            raise Refused(record.problem)
        status = self._status_of(record.own)
        email, name, answers = self._answers(record)
        received = _seconds(record.own, "created_at")
        identity = _identity(email, name, answers, received)
        values = {
            "site": self._site.slug,
            "email": email,
            "name": name,
            "fields": answers,
            "consents": _consents(record.own.get("consents")),
            "recipient_hash": recipient_hash(email),
            "status": status.value,
            "spam": _reason(record.own.get("spam")) if status is Status.SPAM else None,
            "confirmed_at": _seconds(record.own, "confirmed_at"),
            "received": received,
            "told": status is Status.UNCONFIRMED,
        }
        return Row(_key(self._site.slug, identity, self._place(identity, received), received), values)

    def _place(self, identity: str, received: float | None) -> int:
        """How many that say the same came before in the same second: whoever pressed twice is there twice.

        Of those that tell no time there is one: whether they came twice, nobody knows.
        """
        second = None if received is None else int(received)
        if second is None or second != self._second:
            self._second = second
            self._twins.clear()
        self._twins[identity] += 1
        return self._twins[identity] - 1

    def _status_of(self, own: Mapping[str, Any]) -> Status:
        if own.get("status") is None:
            return Status.CONFIRMED if own.get("confirmed_at") else self._status
        try:
            return Status(own["status"])
        except ValueError:
            raise Refused(f"status: must be one of {', '.join(Status)}, or left out (--map status=)") from None

    def _answers(self, record: Record) -> tuple[str, str | None, dict[str, Any]]:
        """The address, the name, and the fields. What a row of our own says was taken by the form of its time, and is
        kept even where today's would not take it; any other has to pass the form."""
        who = {name: record.own.get(name) for name in ("email", "name")}
        declared = self._site.signup.fields
        given = {name: value for name, value in record.fields.items() if name in declared}
        form, wrong = self._validated(who, given, lenient=record.own.get("status") is not None)
        if record.own.get("status") is None:
            kept = {name: self._kept(name, value) for name, value in record.fields.items() if name not in declared}
            return form.email, form.name, form.answers | kept
        checked = {name: value for name, value in form.answers.items() if name not in wrong}
        answers = {
            name: checked[name] if name in checked and value is not None else self._kept(name, value)
            for name, value in record.fields.items()
        }
        return form.email, form.name, answers

    def _validated(self, who: Mapping[str, Any], given: Mapping[str, Any], lenient: bool) -> tuple[Form, set[str]]:
        model = self._lenient if lenient else self._form
        try:
            return model.model_validate({**given, **who}), set()
        except ValidationError as error:
            wrong = {str(item["loc"][0]) for item in error.errors(include_url=False)}
            if not lenient or wrong & who.keys():
                raise Refused(_words(error)) from None
        left = {name: value for name, value in given.items() if name not in wrong}
        return model.model_validate({**left, **who}), wrong

    def _kept(self, name: str, value: Any) -> str | bool | None:
        if name not in self._site.signup.fields and len(self.strangers) < _LONGEST_NAME:
            self.strangers[name] = None
        if len(name) > _LONGEST_NAME:
            raise Refused(f"{name[:40]}…: a field's name must have at most {_LONGEST_NAME} characters")
        if isinstance(value, str) and len(value) > _LONGEST:
            raise Refused(f"{name}: must have at most {_LONGEST:,} characters; it has {len(value):,}")
        kept: str | bool | None = value
        return kept


def _nothing_required(site: Site) -> Site:
    fields = {name: one.model_copy(update={"required": False}) for name, one in site.signup.fields.items()}
    return site.model_copy(update={"signup": site.signup.model_copy(update={"fields": fields})})


def _words(error: ValidationError) -> str:
    found: dict[str, str] = {}
    for item in error.errors(include_url=False):
        found.setdefault(str(item["loc"][0]), item["msg"].removeprefix("Value error, "))
    return "; ".join(f"{name}: {message}" for name, message in found.items())


def _consents(value: Any) -> dict[str, str] | None:
    if isinstance(value, str):  # in a table
        try:
            value = json.loads(value) if value else None
        except (ValueError, RecursionError):
            value = ()
    if value is None or value == {}:
        return None
    if not isinstance(value, dict) or not all(isinstance(words, str) for words in value.values()):
        raise Refused('consents: must be JSON like {"news": "the words of the box"}')
    return dict(value)


def _reason(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and len(value) <= 20):
        return value
    raise Refused("spam: must be a word")


def _seconds(own: Mapping[str, Any], name: str) -> float | None:
    value = own.get(name)
    if value is None or value == "":
        return None
    try:
        when = datetime.fromisoformat(value)
        seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        raise Refused(f"{name}: must be a time like 2026-01-31T14:30:00Z") from None
    if not 0 <= seconds <= time.time() + _DAY:
        raise Refused(f"{name}: lies in the future, or before 1970")
    return seconds


# -- knowing them again ------------------------------------------------------------------------------------------------


def _identity(email: str, name: str | None, answers: Mapping[str, Any], received: float | None) -> str:
    """What a signup says, the same from CSV and from JSON: by the second, and without answers that are none."""
    cells = {name: export.cell(value) for name, value in answers.items()}
    said = sorted((name, cell) for name, cell in cells.items() if cell not in ("", "no"))
    return json.dumps([email, name or "", said, None if received is None else int(received)])


def _key(site: str, identity: str, place: int, received: float | None) -> str:
    """As long as the table allows. Links carry a signature besides, so that who can work it out has won nothing.

    It begins with the time: with random ones each row would write a page of the index of its own.
    """
    digest = hashlib.sha256(f"{site} {place} {identity}".encode()).hexdigest()
    return f"{int(received or 0):08x}{digest[:24]}"


_SAME = select(signups.c.key, signups.c.email, signups.c.name, signups.c.fields, signups.c.created_at).where(
    signups.c.site == bindparam("of"), signups.c.recipient_hash.in_(bindparam("hashes", expanding=True))
)


def fresh(connection: Connection, site: str, rows: Sequence[Row]) -> list[Row]:
    """Those that are not there yet."""
    known: set[str] = set()
    places: Counter[str] = Counter()
    hashes = list({row.values["recipient_hash"] for row in rows})
    for found in connection.execute(_SAME, {"of": site, "hashes": hashes}):
        identity = _identity(found.email, found.name, found.fields, found.created_at)
        known |= {found.key, _key(site, identity, places[identity], found.created_at)}
        places[identity] += 1
    return _first_of_each(rows, known)


def _first_of_each(rows: Iterable[Row], known: set[str]) -> list[Row]:
    found = []
    for row in rows:
        if row.key not in known:
            known.add(row.key)
            found.append(row)
    return found


_ADD = insert(signups).values(
    created_at=func.coalesce(bindparam("received", type_=Double()), now()),
    # As if told of: what was imported causes no mail to the owner either.
    told_at=case((bindparam("told", type_=Boolean()), now())),
)


def add(connection: Connection, site: str, rows: Sequence[Row]) -> list[Row]:
    """Writes those that are not there yet, and answers which they were."""
    across.alone(connection, "import")
    if chosen := fresh(connection, site, rows):
        connection.execute(_ADD, [{"key": row.key, **row.values} for row in chosen])
    return chosen
