"""What was found: as one JSON value, as tables for a terminal, and as Markdown."""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.goals import goals
from bench.peers import ROOT, every, program
from bench.rounds import Plan, Results
from bench.scale import Memory, Start
from bench.scenarios import SCENARIOS
from bench.wrk import CONNECTIONS, Sample

# How busy the core has to be for the figure to be one of the server, and not of wrk.
SATURATED = 0.93
_BEGIN, _END = "<!-- results: written by bench/static.py -->", "<!-- /results -->"
_PACKAGES = ("uvicorn", "uvloop", "httptools", "starlette", "servestatic", "whitenoise", "gunicorn", "granian")
_PROGRAMS = {"nginx": ["-v"], "caddy": ["version"], "wrk": ["-v"]}
Found = dict[str, Any]


def titles() -> dict[str, str]:
    """The scenarios by key, those of large sites too."""
    counts = (10, 10_000, 100_000)
    one = {f"one-{count}": f"1 of {count:,} files" for count in counts}
    many = {f"many-{count}": f"{count:,} files in turn" for count in counts}
    return {scenario.key: scenario.title for scenario in SCENARIOS} | one | many


def summary(
    results: Results, plan: Plan, absent: Mapping[str, str], start: Start | None, memory: Memory | None, took: float
) -> Found:
    """Everything, ready for JSON."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m bench.static", *sys.argv[1:]]),
        "took_seconds": round(took),
        "settings": {
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "connections": CONNECTIONS,
            "server_core": plan.server_core,
            "wrk_core": plan.wrk_core,
        },
        "machine": _machine(),
        "versions": _versions(),
        "servers": {peer.key: peer.title for peer in every()},
        "absent": dict(absent),
        "scenarios": {
            key: {"title": title, "servers": _cells(results, key, plan)}
            for key, title in titles().items()
            if any(scenario == key for scenario, _ in results.samples)
        },
        "failures": [[*key, why] for key, why in results.failures.items()],
        "start": None if start is None else {"seconds": start.seconds, "first_seconds": start.first},
        "memory": None
        if memory is None
        else {"large": memory.large, "empty": memory.empty, "cached": memory.cached, "ratio": memory.ratio},
        "goals": [goal.as_json() for goal in goals(results, start, memory)],
    }


def _cells(results: Results, scenario: str, plan: Plan) -> Found:
    found = {}
    for peer in every():
        samples = results.samples.get((scenario, peer.key))
        if not samples:
            continue
        cell = results.cells[scenario, peer.key]
        ratios = results.ratios((scenario, peer.key), (scenario, "nginx"))
        found[peer.key] = {
            "rate": round(median(sample.rate for sample in samples), 1),
            "ratio": round(median(ratios), 4) if ratios else None,
            "ratios": [round(ratio, 4) for ratio in ratios],
            **_of_samples(samples),
            "encoding": cell.coding,
            "body_bytes": cell.body,
            "wire_bytes": cell.load.size,
            "server": cell.process.command,
            "wrk": cell.load.command(plan.seconds, plan.wrk_core),
        }
    return found


def _of_samples(samples: list[Sample]) -> Found:
    return {
        "rates": [round(sample.rate, 1) for sample in samples],
        "cpu_microseconds": round(median(sample.cpu_microseconds for sample in samples), 2),
        "share": round(median(sample.share for sample in samples), 3),
        "disturbed": round(median(sample.disturbed for sample in samples), 3),
        "wrk_disturbed": round(median(sample.wrk_disturbed for sample in samples), 3),
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


def _versions() -> dict[str, str]:
    found = {"doorbell": _said(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])}
    for name, arguments in _PROGRAMS.items():
        if path := program(name):
            said = _said([path, *arguments])
            number = re.search(r"\d+\.\d[\w.+-]*", said)
            found[name] = number[0] if number else said
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _said(command: list[str]) -> str:
    """The first line that a program prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return "unknown"
    return ((done.stdout + done.stderr).strip().splitlines() or ["unknown"])[0]


def write(found: Found, folder: Path, work: Path) -> None:
    """static.json in `folder`. Its commands hold no paths of this machine: they begin at the repository, or WORK."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1).replace(str(work), "WORK").replace(str(ROOT), ".")
    (folder / "static.json").write_text(text + "\n")


def _columns(found: Found) -> list[str]:
    return [key for key in found["servers"] if any(key in one["servers"] for one in found["scenarios"].values())]


def _rate(one: Found) -> str:
    rate = f"{one['rate'] / 1000:.1f} k" if one["rate"] >= 1000 else f"{one['rate']:.0f}"
    ratio = "" if one["ratio"] is None else f" ({one['ratio']:.2f})"
    return rate + ratio + ("*" if _held_up(one) else "")


def _cost(one: Found) -> str:
    return f"{one['cpu_microseconds']:.{1 if one['cpu_microseconds'] < 100 else 0}f}"


def _held_up(one: Found) -> bool:
    return bool(one["share"] + one["disturbed"] < SATURATED)


_TABLES: tuple[tuple[str, Callable[[Found], str]], ...] = (
    ("Requests a second (ratio to nginx)", _rate),
    ("Processor time of the server for one request, in µs", _cost),
)


def _rows(found: Found, place: Callable[[Found], str]) -> list[list[str]]:
    """A row for each server, with a place for each scenario."""
    scenarios = [scenario["servers"] for scenario in found["scenarios"].values()]
    return [
        [found["servers"][key], *(place(one[key]) if key in one else "–" for one in scenarios)]
        for key in _columns(found)
    ]


def show(found: Found, console: Console) -> None:
    """The tables, for a terminal; wide enough for their figures where there is none."""
    wide = console if console.is_terminal else Console(width=max(console.width, 200))
    for title, place in _TABLES:
        table = Table("server", title=title)
        for scenario in found["scenarios"].values():
            table.add_column(scenario["title"], justify="right")
        for row in _rows(found, place):
            table.add_row(*row)
        if table.row_count:
            wide.print(table)
    table = Table("", "wanted", "got", "reached", title="To reach")
    for goal in found["goals"]:
        table.add_row(goal["what"], goal["wanted"], goal["got"], _reached(goal))
    wide.print(table)
    for line in notes(found):
        wide.print(line, highlight=False)


def _reached(goal: Found) -> str:
    return {True: "yes", False: "no", None: ""}[goal["reached"]]


def notes(found: Found) -> list[str]:
    """What has to be said about the figures of this run."""
    cells = [one for scenario in found["scenarios"].values() for one in scenario["servers"].values()]
    lines = []
    if any(map(_held_up, cells)):
        lines.append(f"* less than {SATURATED:.0%} of the core was busy: wrk was the limit, the server can do more.")
    for key, whose in (("disturbed", "the server's"), ("wrk_disturbed", "wrk's")):
        if cells and (others := max(one[key] for one in cells)) > 0.05:
            lines.append(f"Other programs used up to {others:.0%} of {whose} core: the ratios by time are the better.")
    lines += [f"Without {found['servers'][key]}: {why}" for key, why in found["absent"].items()]
    lines += [f"Left out: {found['servers'][server]}, {key}: {why}" for key, server, why in found["failures"]]
    return lines


def markdown(found: Found) -> str:
    """The tables as they stand in bench/README.md."""
    machine, settings = found["machine"], found["settings"]
    titles = [scenario["title"] for scenario in found["scenarios"].values()]
    lines = [
        f"{found['date'][:10]}, `{found['command']}`: {settings['rounds']} × {settings['seconds']} s on"
        f" {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}.",
        "",
        "| To reach | wanted | got | reached |",
        "|---|---|---|---|",
        *(f"| {goal['what']} | {goal['wanted']} | {goal['got']} | {_reached(goal)} |" for goal in found["goals"]),
        "",
    ]
    for title, place in _TABLES:
        lines += [f"{title}:", "", "| | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
        lines += ["| " + " | ".join(row).replace("*", r"\*") + " |" for row in _rows(found, place)]
        lines.append("")
    lines += ["- " + line.replace("*", r"\*") for line in notes(found)]
    lines.append("- " + ", ".join(f"{name} {number}" for name, number in found["versions"].items()) + ".")
    return "\n".join(lines) + "\n"


def insert(found: Found, readme: Path) -> None:
    """Puts the tables into the README, between its two markers; without markers nothing happens."""
    text = readme.read_text() if readme.is_file() else ""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if begin and end:
        readme.write_text(f"{before}{begin}\n\n{markdown(found)}\n{end}{after}")
