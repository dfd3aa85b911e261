"""What the command of every bench has: its options, what it shows while it measures, and how it ends.

Knows no bench: each says which lists it can be narrowed down to.
"""

import argparse
import getpass
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from bench.peers import program
from bench.process import ProcessError

_RESULTS = Path(__file__).with_name("results")
README = Path(__file__).with_name("README.md")


def parse(name: str, summary: str, lists: Mapping[str, list[str]], seconds: float) -> argparse.Namespace:
    """The options of `bench.<name>`. `lists` are those that narrow it down, with all that they may name; `seconds` is
    how long a measurement takes."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=summary)
    parser.add_argument("--quick", action="store_true", help="one round of one second: rough")
    parser.add_argument("--rounds", type=int, help="rounds (5; with --quick 1)")
    whole = isinstance(seconds, int)
    parser.add_argument(
        "--seconds", type=int if whole else float, help=f"seconds a measurement ({seconds:g}; with --quick 1)"
    )
    for option, names in lists.items():
        parser.add_argument(f"--{option}", type=_list(names), default=names, help=f"of: {', '.join(names)}")
    parser.add_argument("--work", type=Path, default=work(), help="where what it needs is kept (%(default)s)")
    narrowed = "".join(f", --{option}" for option in lists)
    parser.add_argument(
        "--results",
        type=Path,
        help=f"where {name}.json and {name}.png go (bench/results; WORK/results for a run with --quick{narrowed})",
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown too")
    found = parser.parse_args()
    found.full = not found.quick and all(getattr(found, option) == names for option, names in lists.items())
    found.rounds = max(1, found.rounds or (1 if found.quick else 5))
    found.seconds = found.seconds or (1 if found.quick else seconds)
    found.work = found.work.absolute()
    found.results = found.results or (_RESULTS if found.full else found.work / "results")
    return found


def _list(known: list[str]) -> Callable[[str], list[str]]:
    def parse(value: str) -> list[str]:
        if unknown := set(value.split(",")) - set(known):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return [name for name in known if name in value.split(",")]

    return parse


def work() -> Path:
    """A folder of this user's for what a bench needs."""
    # A commit costs nothing in memory: where /tmp is such, what must be on a disk cannot be there.
    usual = Path(tempfile.gettempdir())
    return (Path("/var/tmp") if in_memory(usual) else usual) / f"doorbell-bench-{getpass.getuser()}"


def in_memory(folder: Path) -> bool:
    """Whether a folder's files are in memory alone."""
    found: dict[str, str] = {}
    with open("/proc/mounts") as lines:
        for line in lines:
            _, place, kind, *_ = line.split()
            found[place] = kind
    place = os.path.realpath(folder)
    while place not in found and place != "/":
        place = os.path.dirname(place)
    return found.get(place) in ("tmpfs", "ramfs")


@dataclass(slots=True)
class Display:
    """What a run says: lines that stay, and what is done right now. `absent` collects who does not take part."""

    console: Console
    absent: dict[str, str] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)
    _progress: Progress | None = None
    _task: TaskID | None = None

    def say(self, words: str) -> None:
        """A line that stays."""
        self.console.print(words, highlight=False)

    def step(self, words: str) -> None:
        """What is done right now."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=words)

    def without(self, key: str, title: str, why: str) -> None:
        """Somebody cannot take part."""
        self.absent[key] = why
        self.say(f"without {title}: {why}")

    def took(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.begun

    @contextmanager
    def measuring(self, needed: Mapping[str, str]) -> Iterator[None]:
        """Shows progress meanwhile, and ends the program in order, whatever happens. `needed` are programs without
        which nothing can be measured, and what to install."""
        # Ended from outside, it still ends what it started.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        if absent := [name for name in needed if not program(name)]:
            packages = dict.fromkeys(needed[name] for name in absent)
            sys.exit(f"The bench needs {' and '.join(absent)}: apt install {' '.join(packages)}")
        try:
            with Progress(console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
                self._progress, self._task = progress, progress.add_task("prepares", total=None)
                yield
        except ProcessError as error:
            sys.exit(f"The bench cannot run: {error}")
        except KeyboardInterrupt:
            sys.exit("Stopped.")


def needs_disk(work: Path) -> None:
    """Ends the program where commits would cost nothing."""
    work.mkdir(parents=True, exist_ok=True)
    if in_memory(work):
        sys.exit(f"{work} is in memory, where a commit costs nothing: --work names a folder on a disk")
