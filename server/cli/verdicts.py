"""What came of each thing that a command was asked to change: done in batches, told in a line or as JSON."""

import json
import sys
from collections.abc import Callable, Collection

import typer
from sqlalchemy import Connection

from server import progress
from server.cli import environment
from server.db import Database
from server.outbox.ledger import Verdict
from server.progress import Words
from server.settings import Settings

# Rows a transaction: a signup may have to wait for one of these.
BATCH = 200


def each(
    settings: Settings, act: Callable[[Connection, Collection[int]], list[Verdict]], ids: list[int], words: Words
) -> list[Verdict]:
    """Has `act` done to these ids, and answers what it said of each."""

    async def run(database: Database) -> list[Verdict]:
        verdicts: list[Verdict] = []
        with progress.on(sys.stderr, words)(len(ids)) as report:
            for first in range(0, len(ids), BATCH):
                verdicts += await database.transact(act, ids[first : first + BATCH])
                report(len(verdicts))
        return verdicts

    return environment.ask(settings, run)


def counted(count: int, thing: str) -> str:
    """`1 mail`, `2,000 mails`."""
    return f"1 {thing}" if count == 1 else f"{count:,} {thing}s"


def tell(verdicts: list[Verdict], thing: str, done: str, note: str, as_json: bool, named: bool) -> None:
    """Says what came of it. Exits with status 1 where something was asked for by its id and not done."""
    left = [verdict for verdict in verdicts if verdict.refusal]
    count = len(verdicts) - len(left)
    if as_json:
        reasons = [{"id": verdict.id, "reason": verdict.refusal} for verdict in left]
        typer.echo(json.dumps({done: count, "left": reasons}))
    else:
        typer.echo(f"{counted(count, thing)} {done}. {note}" if count else f"No {thing} {done}.")
        for verdict in left[:20]:
            typer.echo(f"{thing.capitalize()} {verdict.id}: {verdict.refusal}.", err=True)
        if len(left) > 20:
            typer.echo(f"... and {len(left) - 20:,} more that were left as they are.", err=True)
    if named and left:
        raise typer.Exit(1)
