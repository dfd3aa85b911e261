"""The static host against its peers: one core for the server, one for wrk, rounds in turn, ratios of medians.

Run as `python -m bench.static`, or `make bench`; bench/README.md says what is measured and how to read it.
"""

import argparse
import getpass
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from bench import material, report, scale, sheet
from bench.peers import Folders, Peer, every, program
from bench.plot import plot
from bench.process import Process, ProcessError, cores, free_port
from bench.rounds import Plan, Results, run
from bench.scenarios import SCENARIOS, Scenario, cell
from bench.wire import WrongAnswer
from bench.wrk import Sample

_RESULTS = Path(__file__).with_name("results")
_README = Path(__file__).with_name("README.md")
_EXTRA = ("many", "start", "memory")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.static", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of one second, no site of 100,000 files")
    parser.add_argument("--rounds", type=int, help="rounds (5; with --quick 1)")
    parser.add_argument("--seconds", type=int, help="seconds a measurement (3; with --quick 1)")
    names = [scenario.key for scenario in SCENARIOS] + list(_EXTRA)
    parser.add_argument("--only", type=_list(names), default=names, help=f"of: {', '.join(names)}")
    keys = [peer.key for peer in every()]
    parser.add_argument("--servers", type=_list(keys), default=keys, help=f"of: {', '.join(keys)}")
    work = Path(tempfile.gettempdir()) / f"doorbell-bench-{getpass.getuser()}"
    parser.add_argument("--work", type=Path, default=work, help="where sites and caches are kept (%(default)s)")
    parser.add_argument(
        "--results",
        type=Path,
        help="where static.json and static.png go (bench/results; WORK/results"
        " for a run with --quick, --only or --servers)",
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown too")
    found = parser.parse_args()
    found.full = not found.quick and found.only == names and found.servers == keys
    found.rounds = max(1, found.rounds or (1 if found.quick else 5))
    found.seconds = max(1, found.seconds or (1 if found.quick else 3))
    found.results = found.results or (_RESULTS if found.full else found.work / "results")
    return found


def _list(known: list[str]) -> Callable[[str], list[str]]:
    def parse(value: str) -> list[str]:
        if unknown := set(value.split(",")) - set(known):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return [name for name in known if name in value.split(",")]

    return parse


class _Run:
    """One run: what was asked for, what has been found so far, and the progress that is shown."""

    def __init__(self, arguments: argparse.Namespace, console: Console, progress: Progress) -> None:
        server_core, wrk_core = cores()
        self.arguments = arguments
        self.plan = Plan(arguments.rounds, arguments.seconds, server_core, wrk_core)
        self.results: Results[Sample] = Results()
        self.absent: dict[str, str] = {}
        self._console = console
        self._progress = progress
        self._task = progress.add_task("prepares", total=None)

    def say(self, words: str) -> None:
        """A line that stays."""
        self._console.print(words, highlight=False)

    def step(self, words: str) -> None:
        """What is done right now."""
        self._progress.update(self._task, description=words)

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
                self.absent[peer.key] = peer.missing
                self.say(f"without {peer.title}: {peer.missing}")
                continue
            self.step(f"starts {peer.title}")
            port = free_port()
            process = stack.enter_context(
                scale.started(at.work, peer.key, peer.launch(port, at), self.plan.server_core)
            )
            try:
                process.wait_for(port)
                found.append((peer, process, port))
            except ProcessError as error:
                self.absent[peer.key] = str(error)
                self.say(f"without {peer.title}: {error}")
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

    def large_sites(self) -> tuple[scale.Start | None, scale.Memory | None]:
        """Many files, then start time and memory. What fails here is said, and costs nothing that was measured."""
        start = memory = None
        try:
            if "many" in self.arguments.only:
                self._many()
            if "lane" in self.arguments.servers and {"start", "memory"} & set(self.arguments.only):
                times = min(self.plan.rounds, 5)
                start = scale.start_time(self.arguments.work, times, self.say, self.step)
                if "memory" in self.arguments.only:
                    memory = scale.memory(self.arguments.work, min(times, 3), self.step)
        except (ProcessError, WrongAnswer) as error:
            self.results.failures["large sites", "lane"] = str(error)
        return start, memory

    def _many(self) -> None:
        counts = [10, 10_000] if self.arguments.quick else [10, 10_000, 100_000]
        arguments = self.arguments
        scale.many(arguments.work, counts, arguments.servers, self.plan, self.results, self.say, self.step)


def main() -> None:
    """Measures, prints, writes."""
    arguments = _arguments()
    console = Console()
    # Ended from outside, it still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if absent := [name for name in ("wrk", "taskset") if not program(name)]:
        sys.exit(f"The bench needs {' and '.join(absent)}: apt install wrk util-linux")
    arguments.work.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            bench = _Run(arguments, console, progress)
            bench.scenarios()
            start, memory = bench.large_sites()
    except ProcessError as error:
        sys.exit(f"The bench cannot run: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped.")
    found = report.summary(bench.results, bench.plan, bench.absent, start, memory, time.monotonic() - begun)
    tables, notes = report.tables(found), report.notes(found)
    sheet.show(tables, found, notes, console)
    sheet.write(found, arguments.results / "static.json", arguments.work)
    plot(found, arguments.results / "static.png")
    text = sheet.markdown(tables, found, notes, report.how_long(found))
    if arguments.markdown:
        print(text)
    if arguments.full:
        sheet.insert(text, "bench/static.py", _README)
    console.print(f"Written: {arguments.results}/static.json and static.png", highlight=False)


if __name__ == "__main__":
    main()
