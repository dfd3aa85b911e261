"""`mail list|show|retry|cancel|purge`: a thin shell over the ledger and the purge. Works beside a running server."""

import asyncio
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer
from sqlalchemy import Connection

from server import progress
from server.cli import environment, view
from server.db import Database, DatabaseUnavailable
from server.jobs import purge as retention
from server.outbox import ledger
from server.outbox.dispatcher import POLL_SECONDS
from server.outbox.ledger import PENDING, WAITING, Filter, State, Verdict
from server.progress import Words
from server.settings import Settings

T = TypeVar("T")

# Rows a transaction: a signup may have to wait for one of these.
BATCH = 200


_STATES: dict[str, frozenset[State]] = {"pending": PENDING, **{state.value: frozenset({state}) for state in State}}


def _states(names: list[str] | None) -> frozenset[State]:
    for name in names or ():
        if name not in _STATES:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(_STATES)}", param_hint="--state")
    return frozenset().union(*(_STATES[name] for name in names or ()))


_SINCE = re.compile(r"(\d+)\s*(min|h|d)")
_UNITS = {"min": 60, "h": 3600, "d": 86400}


def _since(when: str) -> float:
    if found := _SINCE.fullmatch(when):
        return time.time() - int(found[1]) * _UNITS[found[2]]
    try:
        day = datetime.fromisoformat(when)
    except ValueError:
        raise typer.BadParameter("must look like 90min, 6h, 30d, 2026-05-01 or 2026-05-01T14:30") from None
    return (day if day.tzinfo else day.replace(tzinfo=UTC)).timestamp()


Ids = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="Which mails, by the ids that `list` shows.")]
States = Annotated[
    list[str] | None,
    typer.Option("--state", metavar="STATE", help=f"{', '.join(_STATES)}; may be given more than once."),
]
SiteName = Annotated[str | None, typer.Option("--site", help="The site's folder name.")]
Kind = Annotated[str | None, typer.Option("--kind", help="welcome, notice, ...")]
Recipient = Annotated[str | None, typer.Option("--to", metavar="ADDRESS", help="Who the mail is to.")]
Since = Annotated[
    float | None,
    typer.Option("--since", parser=_since, metavar="WHEN", help="Written since: 90min, 6h, 30d, 2026-05-01 (UTC)."),
]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
All = Annotated[bool, typer.Option("--all", help="Every mail that this can be done to.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


# -- looking -----------------------------------------------------------------------------------------------------------


def list_mails(
    state: States = None,
    site: SiteName = None,
    kind: Kind = None,
    to: Recipient = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: Json = False,
) -> None:
    """Lists mails, the newest first."""
    wanted = Filter(_states(state), site, kind, to, since)
    found = _ask(environment.settings(), lambda database: database.read(ledger.find, wanted, limit))
    if as_json:
        for entry in found:
            typer.echo(json.dumps(view.entry(entry)))
    elif found:
        view.table(found)
        if len(found) == limit:
            typer.echo(f"The newest {limit:,}; --limit shows more.")
    else:
        typer.echo("There are no such mails.")


def show(
    id: Annotated[int, typer.Argument(help="Which mail, by the id that `list` shows.")],
    raw: Annotated[bool, typer.Option("--raw", help="The message alone, as it is sent.")] = False,
    as_json: Json = False,
) -> None:
    """Shows one mail: how it stands, each attempt to send it, and what it says."""
    account = _ask(environment.settings(), lambda database: database.read(ledger.show, id))
    if account is None:
        raise environment.fail(f"There is no mail {id}.", [])
    if as_json:
        typer.echo(json.dumps(view.account(account)))
    elif not raw:
        typer.echo(view.page(account))
    elif account.message is None:
        raise environment.fail(f"The text of mail {id} was purged.", [])
    else:
        sys.stdout.buffer.write(account.message)


# -- doing -------------------------------------------------------------------------------------------------------------


def retry(
    ids: Ids = None,
    state: States = None,
    site: SiteName = None,
    kind: Kind = None,
    to: Recipient = None,
    since: Since = None,
    every: All = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Has mails sent now: those that wait, and those that failed, were cancelled or suppressed.

    A filter without --state means those that wait or failed.
    """
    settings = environment.settings()
    wanted = Filter(_states(state), site, kind, to, since)
    chosen = _chosen(settings, ids, wanted, every, WAITING | {State.FAILED}, None if yes else "Retry")
    verdicts = _each(settings, ledger.retry, chosen, Words("Retrying", "Retried", "mails"))
    note = f"A server that runs sends them within {POLL_SECONDS:.0f} seconds; else the next one that starts does."
    _tell(verdicts, "retried", note, as_json, named=bool(ids))


def cancel(
    ids: Ids = None,
    state: States = None,
    site: SiteName = None,
    kind: Kind = None,
    to: Recipient = None,
    since: Since = None,
    every: All = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Ends mails unsent. What is being sent just now is left.

    A filter without --state means all that are pending.
    """
    settings = environment.settings()
    wanted = Filter(_states(state), site, kind, to, since)
    chosen = _chosen(settings, ids, wanted, every, PENDING, None if yes else "Cancel")
    verdicts = _each(settings, ledger.cancel, chosen, Words("Cancelling", "Cancelled", "mails"))
    _tell(verdicts, "cancelled", "`retry` takes that back.", as_json, named=bool(ids))


def purge(
    older_than: Annotated[
        float | None,
        typer.Option(min=0, metavar="DAYS", help="In place of DOORBELL_MAIL_RETENTION_DAYS."),
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Removes the text of mails that ended long ago. The signups, and what became of each mail, are kept.

    The server does so every hour; with --older-than it is asked for once.
    """
    settings = environment.settings()
    days = older_than if older_than is not None else settings.mail_retention_days
    if older_than is None and not days:
        raise environment.fail("DOORBELL_MAIL_RETENTION_DAYS is 0: texts are kept. Say --older-than DAYS.", [])
    seconds = days * retention.DAY
    total = _ask(settings, lambda database: database.read(ledger.purgeable, seconds))
    if older_than is not None and not yes:
        _confirm(f"Remove the text of up to {total:,} mails?")
    removed = _ask(settings, lambda database: _purge(database, seconds, total))
    typer.echo(json.dumps({"purged": removed}) if as_json else f"{_mails(removed)} purged.")


async def _purge(database: Database, seconds: float, total: int) -> int:
    removed = 0
    with progress.on(sys.stderr, Words("Purging", "Purged", "mails"))(total) as report:
        async with aclosing(retention.batches(database, seconds)) as steps:
            async for count in steps:
                removed += count
                report(removed)
    return removed


# -- the way there -----------------------------------------------------------------------------------------------------


def _ask(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """What `work` answers with the database, which must be there. Exits with status 1 and a line where it is not."""

    async def run() -> T:
        database = Database(settings.database_url)
        try:
            await database.attach()
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except DatabaseUnavailable as error:
        raise environment.fail(str(error), []) from None


def _chosen(
    settings: Settings,
    ids: list[int] | None,
    wanted: Filter,
    every: bool,
    usual: frozenset[State],
    question: str | None,
) -> list[int]:
    """The ids that are named, or those that the filter finds; without --state, among the `usual` states.

    Who means every mail is asked first, unless there is no `question`.
    """
    narrowed = wanted != Filter()
    if [bool(ids), narrowed, every].count(True) != 1:
        raise typer.BadParameter("name either ids, or a filter (--state, --site, --kind, --to, --since), or --all")
    if ids:
        return ids
    wanted = Filter(wanted.states or usual, wanted.site, wanted.kind, wanted.recipient, wanted.since)
    found = _ask(settings, lambda database: database.read(ledger.ids, wanted))
    if every and found and question:
        _confirm(f"{question} all {_mails(len(found))}?")
    return found


def _confirm(question: str) -> None:
    """Goes on where a person says yes. Exits with status 1 else, and where nobody can be asked."""
    if not sys.stdin.isatty():
        raise environment.fail(f"{question} Nobody can be asked here: say --yes.", [])
    typer.confirm(question, abort=True, err=True)  # standard output is for JSON


def _each(
    settings: Settings, act: Callable[[Connection, Collection[int]], list[Verdict]], ids: list[int], words: Words
) -> list[Verdict]:
    async def run(database: Database) -> list[Verdict]:
        verdicts: list[Verdict] = []
        with progress.on(sys.stderr, words)(len(ids)) as report:
            for first in range(0, len(ids), BATCH):
                verdicts += await database.transact(act, ids[first : first + BATCH])
                report(len(verdicts))
        return verdicts

    return _ask(settings, run)


def _mails(count: int) -> str:
    return "1 mail" if count == 1 else f"{count:,} mails"


def _tell(verdicts: list[Verdict], done: str, note: str, as_json: bool, named: bool) -> None:
    """Says what came of it. Exits with status 1 where something was asked for by its id and not done."""
    left = [verdict for verdict in verdicts if verdict.refusal]
    count = len(verdicts) - len(left)
    if as_json:
        reasons = [{"id": verdict.id, "reason": verdict.refusal} for verdict in left]
        typer.echo(json.dumps({done: count, "left": reasons}))
    else:
        typer.echo(f"{_mails(count)} {done}. {note}" if count else f"No mail {done}.")
        for verdict in left[:20]:
            typer.echo(f"Mail {verdict.id}: {verdict.refusal}.", err=True)
        if len(left) > 20:
            typer.echo(f"... and {len(left) - 20:,} more that were left as they are.", err=True)
    if named and left:
        raise typer.Exit(1)
