"""What every bench says of a run: the machine, the versions, tables and goals, on a terminal, as JSON and as Markdown.

Knows no bench: each makes its own tables and writes its tables into its own place of the README.
"""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from bench.peers import ROOT, program

# How busy the core has to be for the figure to be one of the server, and not of whoever asks.
SATURATED = 0.93
_END = "<!-- /results -->"
Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A title, the names of the columns after the first, and rows that begin with their name."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Goal:
    """A line of the list. `reached` is None where it was not measured, or nothing is wanted."""

    what: str
    wanted: str
    got: str
    reached: bool | None

    def as_json(self) -> dict[str, Any]:
        """For the results."""
        return {"what": self.what, "wanted": self.wanted, "got": self.got, "reached": self.reached}


def heading(module: str, took: float) -> Found:
    """When, what, how long and where: the beginning of the results."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([f"python -m {module}", *sys.argv[1:]]),
        "took_seconds": round(took),
        "machine": _machine(),
    }


def _machine() -> Found:
    with open("/proc/cpuinfo") as lines:
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def versions(programs: Mapping[str, Sequence[str]], packages: Iterable[str]) -> dict[str, str]:
    """Doorbell's, that of each program (by the arguments that make it say so), and of each package that is there."""
    found = {"doorbell": said(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])}
    for name, arguments in programs.items():
        if path := program(name):
            line = said([path, *arguments])
            number = re.search(r"\d+\.\d[\w.+-]*", line)
            found[name] = number[0] if number else line
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def said(command: list[str]) -> str:
    """The first line that a program prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return "unknown"
    return ((done.stdout + done.stderr).strip().splitlines() or ["unknown"])[0]


def disturbances(cells: Iterable[Mapping[str, Any]], whose: Mapping[str, str]) -> list[str]:
    """What to say where other programs had a part of a core; `whose` names the core by the key of its share."""
    lines = []
    known = list(cells)
    for key, name in whose.items():
        if (others := max((one[key] for one in known), default=0)) > 0.05:
            lines.append(f"Other programs used up to {others:.0%} of {name} core: the ratios by time are the better.")
    return lines


def number(value: float) -> str:
    """A rate or a count, as short as a table wants it."""
    return f"{value / 1000:.1f} k" if value >= 1000 else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def show(tables: Iterable[Table], found: Found, notes: Iterable[str], console: Console) -> None:
    """The tables, for a terminal; wide enough for their figures where there is none."""
    wide = console if console.is_terminal else Console(width=max(console.width, 200))
    for one in tables:
        table = RichTable("", title=one.title)
        for column in one.columns:
            table.add_column(column, justify="right")
        for row in one.rows:
            table.add_row(*row)
        if table.row_count:
            wide.print(table)
    table = RichTable("", "wanted", "got", "reached", title="To reach")
    for goal in found["goals"]:
        table.add_row(goal["what"], goal["wanted"], goal["got"], _reached(goal))
    wide.print(table)
    for line in notes:
        wide.print(line, highlight=False)


def _reached(goal: Found) -> str:
    return {True: "yes", False: "no", None: ""}[goal["reached"]]


def markdown(tables: Iterable[Table], found: Found, notes: Iterable[str], how_long: str) -> str:
    """The tables as they stand in bench/README.md. `how_long` says how often and how long was measured."""
    machine = found["machine"]
    lines = [
        f"{found['date'][:10]}, `{found['command']}`: {how_long} on"
        f" {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}.",
        "",
        "| To reach | wanted | got | reached |",
        "|---|---|---|---|",
        *(f"| {goal['what']} | {goal['wanted']} | {goal['got']} | {_reached(goal)} |" for goal in found["goals"]),
        "",
    ]
    for table in tables:
        if not table.rows:
            continue
        lines += [f"{table.title}:", "", "| | " + " | ".join(table.columns) + " |"]
        lines.append("|---|" + "---:|" * len(table.columns))
        lines += ["| " + " | ".join(row).replace("*", r"\*") + " |" for row in table.rows]
        lines.append("")
    lines += ["- " + line.replace("*", r"\*") for line in notes]
    lines.append("- " + ", ".join(f"{name} {number}" for name, number in found["versions"].items()) + ".")
    return "\n".join(lines) + "\n"


def write(found: Found, file: Path, work: Path) -> None:
    """`file`, a JSON value. Its commands hold no paths of this machine: they begin at the repository, or WORK."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1).replace(str(work), "WORK").replace(str(ROOT), ".")
    file.write_text(text + "\n")


def insert(text: str, script: str, readme: Path) -> None:
    """Puts the tables into the README, between the two markers of `script`; without them nothing happens."""
    begin = f"<!-- results: written by {script} -->"
    whole = readme.read_text() if readme.is_file() else ""
    before, found, rest = whole.partition(begin)
    _, end, after = rest.partition(_END)
    if found and end:
        readme.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")
