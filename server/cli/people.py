"""`people export|erase`: what is held about one address, shown or removed. Works beside a running server."""

import asyncio
import json
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from server.cli import environment, view
from server.cli.options import Json, Yes
from server.cli.output import Out, written
from server.cli.verdicts import counted
from server.db import Database
from server.jobs import people
from server.jobs.people import BeingSent, Erased, Held
from server.mail.mailbox import Caught, Mailbox
from server.settings import Settings
from server.site import address

app = typer.Typer(no_args_is_help=True, help="Answers people who ask what is held about them, or want it gone.")

# How long a mail that is being sent is waited for, and how often it is looked at.
PATIENCE_SECONDS = 60
PAUSE_SECONDS = 0.5


def _address(value: str) -> str:
    try:
        return address(value.strip())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Email = Annotated[str, typer.Argument(parser=_address, metavar="EMAIL", help="Whose; capitals do not matter.")]


def _mailbox(settings: Settings) -> Mailbox:
    return Mailbox(settings.data_dir / "mailbox")


async def _look(database: Database, box: Mailbox, email: str) -> tuple[Held, list[Caught]]:
    found = await database.read(people.held, email)
    return found, await box.about(email, _message_ids(found))


def _message_ids(found: Held) -> list[str]:
    return [mail.entry.message_id for mail in found.mails] + [mail.message_id for mail in found.digests]


@app.command()
def export(email: Email, out: Out = None) -> None:
    """Writes everything that is held about an address, as JSON: signups, consents, mails, suppressions."""
    settings = environment.settings()
    held, caught = environment.ask(settings, lambda database: _look(database, _mailbox(settings), email))
    text = json.dumps(_document(email, held, caught), indent=2, ensure_ascii=False)
    with written(out) as file:
        file.write(f"{text}\n".encode("utf-8", "replace"))
    if out is not None:
        typer.echo(f"{_sum(held, caught)}: written to {out}.")


def _document(email: str, held: Held, caught: list[Caught]) -> dict[str, Any]:
    return {
        "email": email,
        "signups": [view.signup(entry) for entry in held.signups],
        "mails": [view.account(account) for account in held.mails],
        # Without their texts: these tell of other people too.
        "digests": [view.entry(entry) for entry in held.digests],
        "suppressions": [asdict(one) | {"created_at": view.iso(one.created_at)} for one in held.suppressions],
        "mailbox": [
            {"received": view.iso(one.received.timestamp()), "to": one.recipient, "subject": one.subject}
            for one in caught
        ],
    }


def _sum(held: Held, caught: list[Caught]) -> str:
    parts = [counted(len(held.signups), "signup"), counted(len(held.mails), "mail")]
    parts.append(counted(len(held.digests), "digest"))
    parts += [f"{counted(len(caught), 'mail')} in the built-in mailbox"] if caught else []
    return ", ".join(parts)


@app.command()
def erase(email: Email, yes: Yes = False, as_json: Json = False) -> None:
    """Removes everything that is held about an address, but for a hash that says to send it no mail."""
    settings = environment.settings()
    if not yes:
        held, caught = environment.ask(settings, lambda database: _look(database, _mailbox(settings), email))
        environment.confirm(f"Remove for good what is held about {email} ({_sum(held, caught)})?")
    try:
        erased, removed = environment.ask(settings, lambda database: _erase(database, _mailbox(settings), email))
    except BeingSent as error:
        reason = f"{str(error).capitalize()}, and cannot be called back. Nothing was removed; try again in a minute."
        raise environment.fail(reason, []) from None
    if as_json:
        values = asdict(erased) | {"mailbox": removed}
        typer.echo(json.dumps({name: value for name, value in values.items() if name != "message_ids"}))
    else:
        _tell(erased, removed)


async def _erase(database: Database, box: Mailbox, email: str) -> tuple[Erased, int]:
    erased = await _erase_rows(database, email)
    # After the rows: none of them is sent to the mailbox any more. What fails here is found by the address next time.
    caught = await box.about(email, erased.message_ids)
    await box.remove([one.key for one in caught])
    return erased, len(caught)


async def _erase_rows(database: Database, email: str) -> Erased:
    told = False
    for _ in range(int(PATIENCE_SECONDS / PAUSE_SECONDS)):
        try:
            return await database.transact(people.erase, email)
        except BeingSent as error:
            if not told:
                print(f"{str(error).capitalize()}; waiting for that ...", file=sys.stderr, flush=True)
            told = True
            await asyncio.sleep(PAUSE_SECONDS)
    return await database.transact(people.erase, email)


def _tell(erased: Erased, removed: int) -> None:
    if not (erased.signups or erased.mails or erased.digests or removed):
        typer.echo("Nothing is held about this address.")
        return
    typer.echo(f"Removed: {counted(erased.signups, 'signup')} and {counted(erased.mails, 'mail')}.")
    if erased.digests:
        note = f"; {erased.unsent:,} of them had not been sent" if erased.unsent else ""
        typer.echo(f"{counted(erased.digests, 'digest')} that told of them lost the text{note}.")
    if erased.untold:
        typer.echo(f"{counted(erased.untold, 'other signup')} in those will be in the next digest.")
    if removed:
        typer.echo(f"{counted(removed, 'mail')} removed from the built-in mailbox.")
    if erased.sites:
        typer.echo(f"Kept: a hash of the address, which gets no more mail from {', '.join(erased.sites)}.")
    typer.echo("Copies of the database, and what was sent, are elsewhere: see docs/privacy.md.")
