"""`signups list|show|release`: a thin shell over the registry. Works beside a running server."""

import json
from typing import Annotated

import typer

from server import registry, site
from server.cli import environment, view
from server.cli.options import Json, Since, SiteName
from server.cli.verdicts import each, tell
from server.outbox.dispatcher import POLL_SECONDS
from server.progress import Words
from server.registry import WANTED, Filter, Status

app = typer.Typer(no_args_is_help=True, help="Looks at what visitors sent.")

Statuses = Annotated[list[Status] | None, typer.Option("--status", help="May be given more than once.")]


@app.command("list")
def list_signups(
    of_site: SiteName = None,
    status: Statuses = None,
    spam: Annotated[bool, typer.Option("--spam", help="What was taken for spam, which is left out else.")] = False,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: Json = False,
) -> None:
    """Lists signups, the newest first."""
    statuses = frozenset(status or ()) | ({Status.SPAM} if spam else set())
    wanted = Filter(statuses or WANTED, of_site, since)
    found = environment.ask(environment.settings(), lambda database: database.read(registry.find, wanted, limit))
    if as_json:
        for entry in found:
            typer.echo(json.dumps(view.signup(entry)))
    elif found:
        view.signup_table(found)
        if len(found) == limit:
            typer.echo(f"The newest {limit:,}; --limit shows more.")
    else:
        typer.echo("There are no such signups.")


@app.command()
def show(
    id: Annotated[int, typer.Argument(help="Which signup, by the id that `list` shows.")], as_json: Json = False
) -> None:
    """Shows one signup: what was sent, what was consented to, and how its mails stand."""
    account = environment.ask(environment.settings(), lambda database: database.read(registry.show, id))
    if account is None:
        raise environment.fail(f"There is no signup {id}.", [])
    typer.echo(json.dumps(view.signup_account(account)) if as_json else view.signup_page(account))


@app.command()
def release(
    ids: Annotated[list[int], typer.Argument(metavar="ID...", help="Which signups, by the ids that `list` shows.")],
    as_json: Json = False,
) -> None:
    """Says of signups that were taken for spam that they are none: they go on like any other, and their mails go."""
    settings = environment.settings()
    sites, problems = site.load_all(settings.sites_dir)
    for problem in problems:
        typer.echo(problem, err=True)
    asks = {slug: one.signup.double_opt_in for slug, one in sites.items()}
    words = Words("Releasing", "Released", "signups")
    verdicts = each(settings, lambda connection, some: registry.release(connection, some, asks), ids, words)
    note = f"Their mails go within {POLL_SECONDS:.0f} seconds where a server runs; else when one starts."
    tell(verdicts, "signup", "released", note, as_json, named=True)
