"""`import`: signups from elsewhere into a site, from CSV or JSON. Works beside a running server."""

import io
import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import typer

from server import progress, site
from server.cli import environment, view
from server.db import Database
from server.jobs import intake, rows
from server.jobs.intake import Intake
from server.jobs.rows import Source
from server.progress import Words
from server.settings import Settings
from server.site import Site

_INTERRUPTED = 130  # as a shell has it for SIGINT


def _renamed(pairs: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        old, sign, new = pair.rpartition("=")
        if not sign or not old:
            raise typer.BadParameter(f"{pair}: must look like OLD=NEW, or OLD= to leave the column out")
        found[old] = new.strip()
    return found


def import_(
    of_site: Annotated[str, typer.Argument(metavar="SITE", help="The site's folder name.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", allow_dash=True, help="CSV or JSON; - is standard input.")],
    rename: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="OLD=NEW", help="A column's name; OLD= leaves it out. Also more than once."),
    ] = None,
    confirmed: Annotated[
        bool, typer.Option("--confirmed", help="Those whose status the file does not tell have confirmed.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="CSV that was exported with --raw.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Says what would be done, and writes nothing.")] = False,
) -> None:
    """Writes signups from a file, each once, however often it is imported. No mail is sent for them."""
    settings, renamed = environment.settings(), _renamed(rename or [])
    taking = Intake(_site(settings, of_site), confirmed)
    try:
        with _opened(file) as opened:
            source = Source(opened)
            work = _Work(taking, rows.records(source, renamed, raw), source, _kilobytes(opened), dry_run)
            environment.ask(settings, lambda database: work.run(database, of_site))
    except OSError as error:
        raise environment.fail(f"{_name(file)}: cannot be read: {error.strerror}.", []) from None
    work.tell(file)


def _site(settings: Settings, slug: str) -> Site:
    sites, problems = site.load_all(settings.sites_dir)
    if slug not in sites:
        raise environment.fail(f"There is no site {slug} whose form could be filled in.", problems)
    return sites[slug]


@contextmanager
def _opened(file: Path) -> Iterator[io.BufferedIOBase]:
    if str(file) == "-":
        yield cast(io.BufferedIOBase, sys.stdin.buffer)
        return
    with file.open("rb") as opened:
        yield opened


def _name(file: Path) -> str:
    return "standard input" if str(file) == "-" else str(file)


def _said(words: str) -> str:
    """What may quote the file, for a terminal."""
    return view.line(words)[:500]


def _kilobytes(file: io.BufferedIOBase) -> int | None:
    """How large it is; None for a pipe."""
    try:
        found = os.fstat(file.fileno())
    except OSError:
        return None
    return found.st_size // 1024 if stat.S_ISREG(found.st_mode) else None


class _Interrupt:
    """Ctrl+C: at once while rows are read, which may wait for input without end; after them while they are written."""

    def __init__(self) -> None:
        self.asked = False
        self._reading = False

    def _take(self, *_: object) -> None:
        self.asked = True
        if self._reading:
            raise KeyboardInterrupt

    @contextmanager
    def taken(self) -> Iterator[None]:
        before = signal.signal(signal.SIGINT, self._take)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def reading(self) -> Iterator[None]:
        self._reading = True
        try:
            if self.asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._reading = False


@dataclass
class _Work:
    """An import under way, and what came of it."""

    taking: Intake
    records: Iterator[rows.Record]
    source: Source
    kilobytes: int | None
    dry_run: bool
    imported: int = 0
    known: int = 0
    refused: int = 0
    end: str | None = None
    interrupted: bool = False

    async def run(self, database: Database, of_site: str) -> None:
        interrupt = _Interrupt()
        shown = progress.on(sys.stderr, Words("Importing", "Imported", "KB"))
        with interrupt.taken(), shown(self.kilobytes) as report:
            while True:
                try:
                    with interrupt.reading():
                        batch = self.taking.batch(self.records)
                except KeyboardInterrupt:
                    self.interrupted = True
                    return
                await self._write(database, of_site, batch)
                report(self.source.taken // 1024)
                if batch.ended:
                    self.end = batch.end
                    return

    async def _write(self, database: Database, of_site: str, batch: intake.Batch) -> None:
        for line, reason in batch.refused:
            progress.aside(sys.stderr, f"line {line:,}: {_said(reason)}")
        self.refused += len(batch.refused)
        if self.dry_run:
            written = await database.read(intake.fresh, of_site, batch.rows)
        else:
            written = await database.transact(intake.add, of_site, batch.rows)
        self.imported += len(written)
        self.known += len(batch.rows) - len(written)

    def tell(self, file: Path) -> None:
        """Says what came of it. Exits with status 1 where something was refused."""
        if strangers := list(self.taking.strangers):
            more = f" and {len(strangers) - 10} more" if len(strangers) > 10 else ""
            names = _said(", ".join(strangers[:10]))
            typer.echo(f"Not in the form, and kept: {names}{more}.", err=True)
        verb = "would be imported" if self.dry_run else "imported"
        counts = f"{self.imported:,} {verb}, {self.known:,} were there already, {self.refused:,} refused"
        typer.echo(f"{counts}.")
        if self.interrupted:
            typer.echo("Interrupted: the same command goes on from there.", err=True)
            raise typer.Exit(_INTERRUPTED)
        if self.end is not None:
            raise environment.fail(f"{_name(file)}: {_said(self.end)}.", [])
        if self.refused:
            raise typer.Exit(1)
