"""`mail list|show|retry|cancel|purge`: a thin shell over the ledger and the purge. Works beside a running server."""

import json
import sys
from contextlib import aclosing
from typing import Annotated

import typer

from server import progress
from server.cli import environment, view
from server.cli.options import Json, Since, SiteName, Yes
from server.cli.verdicts import counted, each, tell
from server.db import Database
from server.jobs import purge as retention
from server.outbox import ledger
from server.outbox.dispatcher import POLL_SECONDS
from server.outbox.ledger import PENDING, WAITING, Filter, State
from server.progress import Words
from server.settings import Settings

_STATES: dict[str, frozenset[State]] = {"pending": PENDING, **{state.value: frozenset({state}) for state in State}}


def _states(names: list[str] | None) -> frozenset[State]:
    for name in names or ():
        if name not in _STATES:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(_STATES)}", param_hint="--state")
    return frozenset().union(*(_STATES[name] for name in names or ()))


Ids = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="Which mails, by the ids that `list` shows.")]
States = Annotated[
    list[str] | None,
    typer.Option("--state", metavar="STATE", help=f"{', '.join(_STATES)}; may be given more than once."),
]
Kind = Annotated[str | None, typer.Option("--kind", help="confirm, already, welcome, notice, digest.")]
Recipient = Annotated[str | None, typer.Option("--to", metavar="ADDRESS", help="Who the mail is to.")]
All = Annotated[bool, typer.Option("--all", help="Every mail that this can be done to.")]


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
    found = environment.ask(environment.settings(), lambda database: database.read(ledger.find, wanted, limit))
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
    account = environment.ask(environment.settings(), lambda database: database.read(ledger.show, id))
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
    verdicts = each(settings, ledger.retry, chosen, Words("Retrying", "Retried", "mails"))
    note = f"A server that runs sends them within {POLL_SECONDS:.0f} seconds; else the next one that starts does."
    tell(verdicts, "mail", "retried", note, as_json, named=bool(ids))


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
    verdicts = each(settings, ledger.cancel, chosen, Words("Cancelling", "Cancelled", "mails"))
    tell(verdicts, "mail", "cancelled", "`retry` takes that back.", as_json, named=bool(ids))


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
    total = environment.ask(settings, lambda database: database.read(ledger.purgeable, seconds))
    if older_than is not None and not yes:
        environment.confirm(f"Remove the text of up to {total:,} mails?")
    removed = environment.ask(settings, lambda database: _purge(database, seconds, total))
    typer.echo(json.dumps({"purged": removed}) if as_json else f"{counted(removed, 'mail')} purged.")


async def _purge(database: Database, seconds: float, total: int) -> int:
    removed = 0
    with progress.on(sys.stderr, Words("Purging", "Purged", "mails"))(total) as report:
        async with aclosing(retention.batches(database, ledger.purge, seconds)) as steps:
            async for count in steps:
                removed += count
                report(removed)
    return removed


# -- the way there -----------------------------------------------------------------------------------------------------


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
    found = environment.ask(settings, lambda database: database.read(ledger.ids, wanted))
    if every and found and question:
        environment.confirm(f"{question} all {counted(len(found), 'mail')}?")
    return found
