"""`export`: the signups of a site as CSV or JSON. Works beside a running server."""

import sys
from typing import Annotated, BinaryIO

import typer

from server import progress, registry, site
from server.cli import environment
from server.cli.options import Since
from server.cli.output import Out, written
from server.db import Database
from server.jobs import export as exporting
from server.jobs.export import Csv, Json
from server.progress import Words
from server.registry import WANTED, Filter, Status
from server.settings import Settings


def export(
    of_site: Annotated[str, typer.Argument(metavar="SITE", help="The site's folder name.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets; so it is without --json too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="An array, an object a line.")] = False,
    out: Out = None,
    since: Since = None,
    spam: Annotated[bool, typer.Option("--spam", help="Also what was taken for spam.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="CSV: what looks like a formula is not guarded.")] = False,
) -> None:
    """Writes the signups of a site, oldest first: all that were not taken for spam."""
    if as_csv and as_json:
        raise typer.BadParameter("choose one of --csv and --json")
    if raw and as_json:
        raise typer.BadParameter("--raw is for CSV: JSON is never guarded")
    settings = environment.settings()
    wanted = Filter(frozenset(Status) if spam else WANTED, of_site, since)
    declared = environment.ask(settings, lambda database: _declared(database, settings, of_site))
    with written(out) as file:
        count = environment.ask(
            settings, lambda database: _export(database, wanted, file, None if as_json else (declared, raw))
        )
    if raw:
        typer.echo("Not guarded (--raw): a cell that begins like a formula runs where it is opened.", err=True)
    if out is not None:
        typer.echo(f"{count:,} signups written to {out}.")


async def _declared(database: Database, settings: Settings, slug: str) -> list[str]:
    """The fields of the site's form today; none where the site is gone, and only its signups are left."""
    sites, _ = site.load_all(settings.sites_dir)
    if slug in sites:
        return list(sites[slug].signup.fields)
    if await database.read(exporting.known, slug):
        return []
    raise environment.fail(f"There is no site {slug}, and there are no signups of one.", [])


async def _export(database: Database, wanted: Filter, file: BinaryIO, csv: tuple[list[str], bool] | None) -> int:
    count, last = await database.read(registry.extent, wanted)
    form = Json() if csv is None else Csv(await exporting.columns(database, wanted, csv[0]), csv[1])
    done = 0
    with progress.on(sys.stderr, Words("Exporting", "Exported", "signups"))(count) as report:
        file.write(form.begin())
        async for entry in exporting.entries(database, wanted, last):
            file.write(form.row(entry, first=not done))
            done += 1
            report(done)
        file.write(form.end())
    return done
