"""The static host against its peers: one core for the server, one for wrk, rounds in turn, ratios of medians.

Run as `python -m bench.static`, or `make bench`; bench/README.md says what is measured and how to read it.
"""

import argparse
import time
from contextlib import ExitStack

from rich.console import Console

from bench import command, large, material, report, sheet
from bench.command import Display
from bench.peers import Folders, Peer, every
from bench.plot import plot
from bench.process import Process, ProcessError, cores, free_port
from bench.rounds import Plan, Results, run
from bench.scenarios import SCENARIOS, Scenario, cell
from bench.wire import WrongAnswer
from bench.wrk import Sample

_EXTRA = ("many", "start", "memory")


def _arguments() -> argparse.Namespace:
    lists = {
        "only": [scenario.key for scenario in SCENARIOS] + list(_EXTRA),
        "servers": [peer.key for peer in every()],
    }
    return command.parse("static", __doc__ or "", lists, 3)


class _Run:
    """One run: what was asked for, what has been found so far, and what is shown of it."""

    def __init__(self, arguments: argparse.Namespace, display: Display) -> None:
        server_core, wrk_core = cores()
        self.arguments = arguments
        self.plan = Plan(arguments.rounds, arguments.seconds, server_core, wrk_core)
        self.results: Results[Sample] = Results()
        self.display = display
        self.say, self.step = display.say, display.step

    def scenarios(self) -> None:
        """All scenarios with the main site; its servers run side by side, and all but one are idle."""
        chosen = [scenario for scenario in SCENARIOS if scenario.key in self.arguments.only]
        if not chosen:
            return
        work = self.arguments.work
        public = material.main_site(work)
        at = Folders(work, work / "sites" / "main", public, material.document_root(work))
        with ExitStack() as stack:
            servers = self._servers(at, stack)
            self._idle([process for _, process, _ in servers])
            for scenario in chosen:
                self._scenario(scenario, servers)

    def _servers(self, at: Folders, stack: ExitStack) -> list[tuple[Peer, Process, int]]:
        found = []
        for peer in every():
            if peer.key not in self.arguments.servers:
                continue
            if peer.missing:
                self.display.without(peer.key, peer.title, peer.missing)
                continue
            self.step(f"starts {peer.title}")
            port = free_port()
            process = stack.enter_context(
                large.started(at.work, peer.key, peer.launch(port, at), self.plan.server_core)
            )
            try:
                process.wait_for(port)
                found.append((peer, process, port))
            except ProcessError as error:
                self.display.without(peer.key, peer.title, str(error))
        return found

    def _idle(self, processes: list[Process]) -> None:
        """Says which servers work while nobody asks: they would take time from the others."""
        time.sleep(1)
        before = [process.cpu_seconds() for process in processes]
        time.sleep(2)
        for process, then in zip(processes, before, strict=True):
            if (share := (process.cpu_seconds() - then) / 2) > 0.01:
                self.say(f"{process.name} uses {share:.0%} of its core while idle")

    def _scenario(self, scenario: Scenario, servers: list[tuple[Peer, Process, int]]) -> None:
        cells = []
        for peer, process, port in servers:
            if not scenario.asks(peer.key):
                continue
            try:
                cells.append(cell(scenario, peer, process, port))
            except WrongAnswer as wrong:
                self.results.failures[scenario.key, peer.key] = str(wrong)
        self.say(f"{scenario.title}: {len(cells)} servers")
        run(cells, self.plan, self.results, self.step)
        for (key, server), why in self.results.failures.items():
            if key == scenario.key:
                self.say(f"  left out: {server} {why}")

    def large_sites(self) -> tuple[large.Start | None, large.Memory | None]:
        """Many files, then start time and memory. What fails here is said, and costs nothing that was measured."""
        start = memory = None
        try:
            if "many" in self.arguments.only:
                self._many()
            if "lane" in self.arguments.servers and {"start", "memory"} & set(self.arguments.only):
                times = min(self.plan.rounds, 5)
                start = large.start_time(self.arguments.work, times, self.say, self.step)
                if "memory" in self.arguments.only:
                    memory = large.memory(self.arguments.work, min(times, 3), self.step)
        except (ProcessError, WrongAnswer) as error:
            self.results.failures["large sites", "lane"] = str(error)
        return start, memory

    def _many(self) -> None:
        counts = [10, 10_000] if self.arguments.quick else [10, 10_000, 100_000]
        arguments = self.arguments
        large.many(arguments.work, counts, arguments.servers, self.plan, self.results, self.say, self.step)


def main() -> None:
    """Measures, prints, writes."""
    arguments = _arguments()
    display = Display(Console())
    arguments.work.mkdir(parents=True, exist_ok=True)
    with display.measuring({"wrk": "wrk", "taskset": "util-linux"}):
        bench = _Run(arguments, display)
        bench.scenarios()
        start, memory = bench.large_sites()
    found = report.summary(bench.results, bench.plan, display.absent, start, memory, display.took())
    tables, notes = report.tables(found), report.notes(found)
    sheet.show(tables, found, notes, display.console)
    sheet.write(found, arguments.results / "static.json", arguments.work)
    plot(found, arguments.results / "static.png")
    text = sheet.markdown(tables, found, notes, report.how_long(found))
    if arguments.markdown:
        print(text)
    if arguments.full:
        sheet.insert(text, "bench/static.py", command.README)
    display.say(f"Written: {arguments.results}/static.json and static.png")


if __name__ == "__main__":
    main()
