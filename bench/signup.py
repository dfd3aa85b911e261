"""Signups that are kept, against FastAPI endpoints that keep nothing or commit each: one core for the server.

Run as `python -m bench.signup`, or `make bench`; bench/README.md says what is measured and how to read it.
"""

import argparse
from statistics import median

from rich.console import Console

from bench import command, relay, sheet, signup_report
from bench.command import Display
from bench.intake import SERVERS, Intake, Open, OpenLoop, Place, Sample
from bench.process import cores
from bench.rounds import Key, Results, Rounds, turns
from bench.signup_plot import plot
from bench.wrk import CONNECTIONS

_CONNECTIONS = {"signup": CONNECTIONS, "lone": 1}
_PAGES_A_SECOND = 1000.0


def _arguments() -> argparse.Namespace:
    lists = {"only": [*_CONNECTIONS, "pages"], "servers": [server.key for server in SERVERS]}
    return command.parse("signup", __doc__ or "", lists, 3)


class _Run:
    """One run: what was asked for, what has been found so far, and what is shown of it."""

    def __init__(self, arguments: argparse.Namespace, display: Display) -> None:
        server_core, load_core = cores()
        self.arguments = arguments
        self.display = display
        self.place = Place(arguments.work, server_core, load_core, arguments.seconds)
        self.results: Results[Sample] = Results()
        self.pages: Rounds[Open] = Rounds()
        self.cells: dict[Key, Intake] = {}
        self.rates: dict[str, float] = {}

    def signups(self) -> None:
        """Many at a time, then one."""
        chosen = [server for server in SERVERS if server.key in self.arguments.servers]
        for server in chosen:
            if server.missing:
                self.display.without(server.key, server.title, server.missing)
        there = [server for server in chosen if not server.missing]
        for key, connections in _CONNECTIONS.items():
            if key not in self.arguments.only:
                continue
            cells = {(key, server.key): Intake(server, self.place, connections) for server in there}
            self.cells |= cells
            self.display.say(f"{signup_report.TITLES[key]}: {len(cells)} servers")
            turns(cells, self.arguments.rounds, self.results, self.display.step)

    def beside_pages(self) -> None:
        """Pages on a schedule, alone and beside half of the signups and mails that the server can take."""
        if "pages" not in self.arguments.only or relay.MISSING:
            return
        self.rates = {"pages": _PAGES_A_SECOND, "signups": self._most() / 2}
        self.display.say(f"pages beside {self.rates['signups']:,.0f} signups a second")
        measure = OpenLoop(self.place, self.rates["pages"], self.rates["signups"])
        turns({("pages", "doorbell-mail"): measure}, self.arguments.rounds, self.pages, self.display.step)

    def _most(self) -> float:
        """Signups a second, each with its mail, that one core can take and send."""
        server = next(server for server in SERVERS if server.mails)
        samples = self.results.samples.get(("signup", server.key)) or [Intake(server, self.place)(True)]
        return median(sample.both or sample.rate for sample in samples)

    @property
    def opened(self) -> list[Open]:
        """What was found of the pages, round by round."""
        return next(iter(self.pages.samples.values()), [])

    def failures(self) -> list[tuple[str, str, str]]:
        """Scenario, server and why."""
        both = self.results.failures | self.pages.failures
        return [(*key, why) for key, why in both.items()]


def main() -> None:
    """Measures, prints, writes."""
    arguments = _arguments()
    display = Display(Console())
    command.needs_disk(arguments.work)
    with display.measuring({"wrk": "wrk", "taskset": "util-linux"}):
        bench = _Run(arguments, display)
        bench.signups()
        bench.beside_pages()
    found = signup_report.summary(
        bench.results,
        bench.opened,
        bench.cells,
        bench.place,
        arguments.rounds,
        bench.rates,
        bench.failures(),
        display.absent,
        display.took(),
    )
    tables, notes = signup_report.tables(found), signup_report.notes(found)
    sheet.show(tables, found, notes, display.console)
    sheet.write(found, arguments.results / "signup.json", arguments.work)
    plot(found, arguments.results / "signup.png")
    text = sheet.markdown(tables, found, notes, signup_report.how_long(found))
    if arguments.markdown:
        print(text)
    if arguments.full:
        sheet.insert(text, "bench/signup.py", command.README)
    display.say(f"Written: {arguments.results}/signup.json and signup.png")


if __name__ == "__main__":
    main()
