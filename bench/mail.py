"""Delivery from an outbox in SQLite against mailers that keep nothing: one core for the sender, one for the relay.

Run as `python -m bench.mail`, or `make bench`; bench/README.md says what is measured and how to read it.
"""

import argparse

from rich.console import Console

from bench import claims, command, delivery, mail_report, relay, sheet
from bench.claims import Claims
from bench.command import Display
from bench.delivery import Delivery, Place, Sample, Scenario
from bench.mail_plot import plot
from bench.mailers import Mailer, every
from bench.process import ProcessError, cores
from bench.rounds import Key, Results, turns
from server import log

_FAR = frozenset({"doorbell", "doorbell-pool", "nodemailer", "aiosmtplib", "ready", "source"})
# Of those that ask for it when it is offered, and the one that all are compared with.
_PLAIN = frozenset({"doorbell", "nodemailer"})
SCENARIOS = (
    Scenario("direct", "loopback"),
    *(Scenario(str(added), f"{added} ms", added, only=_FAR) for added in (0, 10, 50)),
    *(Scenario(f"{added}-plain", f"{added} ms, no PIPELINING", added, False, _PLAIN) for added in (0, 10, 50)),
)
_ROWS = 1_000_000


def _arguments() -> argparse.Namespace:
    lists = {
        "only": [scenario.key for scenario in SCENARIOS] + ["claims"],
        "mailers": [mailer.key for mailer in every()],
    }
    return command.parse("mail", __doc__ or "", lists, 4.0)


class _Run:
    """One run: what was asked for, what has been found so far, and what is shown of it."""

    def __init__(self, arguments: argparse.Namespace, display: Display) -> None:
        sender_core, relay_core = cores()
        self.arguments = arguments
        self.display = display
        self.place = Place(arguments.work, sender_core, relay_core, arguments.seconds)
        self.results: Results[Sample] = Results()
        self.cells: dict[Key, Delivery] = {}
        self.scenarios: dict[Scenario, float | None] = {}

    def deliveries(self) -> None:
        """All scenarios that were asked for, one after another."""
        mailers = [mailer for mailer in every() if mailer.key in self.arguments.mailers]
        for mailer in mailers:
            if mailer.missing:
                self.display.without(mailer.key, mailer.title, mailer.missing)
        there = [mailer for mailer in mailers if not mailer.missing]
        for scenario in SCENARIOS:
            if scenario.key in self.arguments.only:
                self._scenario(scenario, there)

    def _scenario(self, scenario: Scenario, mailers: list[Mailer]) -> None:
        self.scenarios[scenario] = self._round_trip(scenario)
        cells = {
            (scenario.key, mailer.key): Delivery(mailer, scenario, self.place)
            for mailer in mailers
            if not scenario.only or mailer.key in scenario.only
        }
        self.cells |= cells
        self.display.say(f"{scenario.title}: {len(cells)} mailers")
        turns(cells, self.arguments.rounds, self.results, self.display.step)
        for (key, mailer), why in self.results.failures.items():
            if key == scenario.key:
                self.display.say(f"  left out: {mailer} {why}")

    def _round_trip(self, scenario: Scenario) -> float | None:
        if scenario.added is None:
            return None
        with relay.relay(self.place.work, self.place.relay_core, added=scenario.added) as to:
            return relay.round_trip(to.port)

    def claims(self) -> Claims | None:
        """Claims from many rows and from few. What fails here is said, and costs nothing that was measured."""
        if "claims" not in self.arguments.only:
            return None
        rows = _ROWS // 10 if self.arguments.quick else _ROWS
        self.display.step("claims")
        try:
            return claims.measure(
                self.place.work, rows, self.arguments.rounds, self.place.sender_core, self.display.say
            )
        except ProcessError as error:
            self.results.failures["claims", "doorbell"] = str(error)
            return None


def main() -> None:
    """Measures, prints, writes."""
    arguments = _arguments()
    display = Display(Console())
    log.configure(level="warning")
    command.needs_disk(arguments.work)
    with display.measuring({"smtp-sink": "postfix", "taskset": "util-linux"}), delivery.folder(arguments.work):
        bench = _Run(arguments, display)
        bench.deliveries()
        found_claims = bench.claims()
    found = mail_report.summary(
        bench.results,
        bench.cells,
        bench.scenarios,
        found_claims,
        bench.place,
        arguments.rounds,
        display.absent,
        display.took(),
    )
    tables, notes = mail_report.tables(found), mail_report.notes(found)
    sheet.show(tables, found, notes, display.console)
    sheet.write(found, arguments.results / "mail.json", arguments.work)
    plot(found, arguments.results / "mail.png")
    text = sheet.markdown(tables, found, notes, mail_report.how_long(found))
    if arguments.markdown:
        print(text)
    if arguments.full:
        sheet.insert(text, "bench/mail.py", command.README)
    display.say(f"Written: {arguments.results}/mail.json and mail.png")


if __name__ == "__main__":
    main()
