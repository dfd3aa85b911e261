"""How mails and signups look: a table and a page for people, dictionaries for JSON.

What strangers wrote cannot steer a terminal.
"""

import email
import email.policy
import sys
import unicodedata
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

from server import registry
from server.mail import mailbox
from server.outbox.ledger import WAITING, Account, Entry, State
from server.registry import Status

_HEADERS = ("From", "To", "Reply-To", "Subject", "Date", "Message-ID")
_STYLES: dict[str, str] = {
    State.SENT: "green",
    State.FAILED: "red",
    State.HELD: "red",
    State.DEFERRED: "yellow",
    State.UNCERTAIN: "yellow",
    State.SENDING: "cyan",
}
# The heads of columns, and how wide a terminal must be to have them; those that are cut off where room is short.
_COLUMNS = {"id": 0, "state": 0, "to": 0, "age": 50, "site": 60, "kind": 70, "tries": 80, "next": 90, "last reply": 110}
_CUT = ("to", "last reply")
_SIGNUP_STYLES: dict[str, str] = {Status.CONFIRMED: "green", Status.ACCEPTED: "green", Status.SPAM: "red"}
_SIGNUP_COLUMNS = {"id": 0, "status": 0, "e-mail": 0, "age": 50, "site": 60, "name": 80, "taken for spam": 110}
_SIGNUP_CUT = ("e-mail", "name")
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def printable(text: str) -> str:
    """The same without what would move a cursor, change a colour or turn the direction of writing."""
    return "".join(
        "�" if unicodedata.category(char) in ("Cc", "Cf", "Cs") and char not in "\n\t" else char for char in text
    )


def line(text: str) -> str:
    """The same in one line."""
    return " ".join(printable(text).split())


def duration(seconds: float) -> str:
    """`5 min`, `3 d`: one unit, for an age or a wait."""
    for size, unit in _UNITS:
        if seconds >= 2 * size or size == 1:
            return f"{max(seconds, 0) // size:.0f} {unit}"
    raise AssertionError


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(seconds: float | None) -> str | None:
    """ISO 8601, UTC, to the second."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _next(entry: Entry) -> str:
    if entry.state not in WAITING:
        return ""
    wait = entry.due_at - entry.read_at
    return f"in {duration(wait)}" if wait > 0 else "now"


# -- for people --------------------------------------------------------------------------------------------------------


def table(entries: list[Entry]) -> None:
    """Prints mails, a row each, with as many columns as the terminal has room for. Elsewhere nothing is cut off."""
    _table([_cells(entry) for entry in entries], _COLUMNS, _CUT, ("state", _STYLES))


def signup_table(entries: list[registry.Entry]) -> None:
    """The same of signups."""
    rows = [_signup_cells(entry) for entry in entries]
    _table(rows, _SIGNUP_COLUMNS, _SIGNUP_CUT, ("status", _SIGNUP_STYLES))


def _table(
    rows: list[dict[str, str]], heads: dict[str, int], cut: tuple[str, ...], styled: tuple[str, dict[str, str]]
) -> None:
    # Imported here: it takes as long as the rest of the command.
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 1000)
    columns = [name for name, width in heads.items() if console.width >= width]
    needed = {name: max(cell_len(row[name]) for row in [*rows, {name: name}]) for name in columns}
    widths = _fitted(needed, cut, console.width - 2 * len(columns))
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        justify: Literal["left", "right"] = "right" if name == "id" else "left"
        made.add_column(name, no_wrap=True, overflow="ellipsis", width=widths[name], justify=justify)
    word, styles = styled
    for row in rows:
        made.add_row(*(Text(row[name], styles.get(row[name], "") if name == word else "") for name in columns))
    console.print(made)


def _fitted(needed: dict[str, int], cut: tuple[str, ...], room: int) -> dict[str, int]:
    """The widths of the columns: each as wide as it must be, but for those that share what room is left."""
    widths = {name: width for name, width in needed.items() if name not in cut}
    left = room - sum(widths.values())
    shared = [name for name in cut if name in needed]
    for number, name in enumerate(shared):
        widths[name] = max(min(needed[name], left // (len(shared) - number)), 4)
        left -= widths[name]
    return widths


def _cells(entry: Entry) -> dict[str, str]:
    return {
        "id": str(entry.id),
        "state": entry.state.value,
        "to": line(entry.recipient),
        "age": duration(entry.read_at - entry.created_at),
        "site": entry.site,
        "kind": entry.kind,
        "tries": str(entry.attempts),
        "next": _next(entry),
        "last reply": line(entry.reply or ""),
    }


def _signup_cells(entry: registry.Entry) -> dict[str, str]:
    return {
        "id": str(entry.id),
        "status": entry.status.value,
        "e-mail": line(entry.email),
        "age": duration(entry.read_at - entry.created_at),
        "site": entry.site,
        "name": line(entry.name or ""),
        "taken for spam": line(entry.spam or ""),
    }


def page(account: Account) -> str:
    """Everything about a mail, as lines."""
    entry = account.entry
    wait = _next(entry)
    facts = {
        "state": f"{entry.state}, due {wait}" if wait else entry.state,
        "site": entry.site,
        "signup": entry.signup_id,
        "kind": entry.kind,
        "from": entry.sender,
        "to": entry.recipient,
        "message id": entry.message_id,
        "request id": entry.request_id,
        "written": f"{_time(entry.created_at)}, {duration(entry.read_at - entry.created_at)} ago",
        "ended": _time(entry.settled_at) if entry.settled_at is not None else None,
        "last reply": entry.reply,
        "uncertain": f"{entry.uncertain} times" if entry.uncertain else None,
        "suppressed": f"its recipient gets no mail: {account.suppressed}" if account.suppressed else None,
    }
    lines = [f"Mail {entry.id}", *(f"  {name:<12}{line(str(fact))}" for name, fact in facts.items() if fact)]
    lines += ["", "Attempts", *(_attempts(account) or ["  none yet"])]
    return "\n".join([*lines, "", *_message(account.message)])


def signup_page(account: registry.Account) -> str:
    """Everything about a signup, as lines."""
    one = account.entry
    facts = {
        "status": f"{one.status}: {one.spam}" if one.spam else one.status,
        "site": one.site,
        "e-mail": one.email,
        "name": one.name,
        "received": f"{_time(one.created_at)}, {duration(one.read_at - one.created_at)} ago",
        "confirmed": _time(one.confirmed_at) if one.confirmed_at is not None else None,
        "in a digest": _time(one.told_at) if one.told_at is not None else None,
        "suppressed": f"its address gets no mail: {account.suppressed}" if account.suppressed else None,
    }
    lines = [f"Signup {one.id}", *(f"  {name:<12}{line(str(fact))}" for name, fact in facts.items() if fact)]
    for title, pairs in (("Fields", one.fields), ("Consents", one.consents or {})):
        lines += ["", title, *(_pair(name, value) for name, value in pairs.items())] if pairs else []
    return "\n".join([*lines, "", "Mails", *(_mail(mail) for mail in account.mails)])


def _pair(name: str, value: object) -> str:
    shown = {None: "–", True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else str(value)
    return f"  {name}: " + "\n    ".join(printable(shown).splitlines())


def _mail(mail: Entry) -> str:
    why = f"  {line(mail.reply)}" if mail.reply else ""
    return f"  {mail.id}  {mail.kind}  to {line(mail.recipient)}  {mail.state}{why}"


def _attempts(account: Account) -> list[str]:
    return [
        f"  {_time(one.ended_at)}  {one.outcome:<9}  {one.seconds:.2f} s  {line(one.reply)}" for one in account.attempts
    ]


def _message(data: bytes | None) -> list[str]:
    if data is None:
        return ["Its text was purged."]
    said = _parsed(data)
    heads = [f"{name}: {line(value)}" for name, value in said["headers"].items()]
    return ["Message", *(f"  {line}" for line in [*heads, "", *printable(said["text"]).splitlines()])]


def _parsed(data: bytes) -> dict[str, Any]:
    parsed = email.message_from_bytes(data, policy=email.policy.default)
    headers = {name: value for name in _HEADERS if (value := mailbox.header(parsed, name))}
    return {"headers": headers, "text": (mailbox.body(parsed, "plain") or "").replace("\r\n", "\n")}


# -- for programs ------------------------------------------------------------------------------------------------------


def entry(entry: Entry) -> dict[str, Any]:
    """A mail as a JSON object; times in ISO 8601."""
    values = asdict(entry)
    del values["read_at"]
    return values | {name: iso(values[name]) for name in ("created_at", "due_at", "settled_at")}


def account(account: Account) -> dict[str, Any]:
    """The same with its attempts and its message (null where it was purged)."""
    return {
        **entry(account.entry),
        "suppressed": account.suppressed,
        "attempts": [asdict(one) | {"ended_at": iso(one.ended_at)} for one in account.attempts],
        "message": None if account.message is None else _parsed(account.message),
    }


def signup(entry: registry.Entry) -> dict[str, Any]:
    """A signup as a JSON object."""
    values = asdict(entry)
    del values["read_at"]
    return values | {name: iso(values[name]) for name in ("created_at", "confirmed_at", "told_at")}


def signup_account(account: registry.Account) -> dict[str, Any]:
    """The same with its mails."""
    mails = [entry(mail) for mail in account.mails]
    return {**signup(account.entry), "suppressed": account.suppressed, "mails": mails}
