"""Lighthouse, as on a phone: its scores and its layout shift. Knows how it is run; knows no sites."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.audit.conftest import module, program

CATEGORIES = ("performance", "accessibility", "best-practices", "seo")
# Nothing that Chromium does for itself shall disturb the measuring.
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-quic --no-first-run "
    "--disable-component-update --disable-sync --disable-extensions"
)


@dataclass(frozen=True, slots=True)
class Scores:
    """Of 100 each, by category; `shift` is the cumulative layout shift; `wrong` are the audits that cost points."""

    of: dict[str, int]
    shift: float
    wrong: tuple[str, ...]


def measured(url: str) -> Scores:
    """One run: the phone and the network that it simulates by default.

    Now and then it loses its own recording, and asks to be run again.
    """
    for _ in range(3):
        done = _run(url)
        if done.returncode == 0:
            return _scores(json.loads(done.stdout))
    raise AssertionError(done.stderr[-2000:])


def _run(url: str) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as profile:
        command = [
            *(program("node"), str(module("lighthouse/cli/index.js")), url, "--quiet", "--output=json"),
            *(f"--only-categories={','.join(CATEGORIES)}", f"--chrome-flags={_FLAGS} --user-data-dir={profile}"),
        ]
        environ = {**os.environ, "CHROME_PATH": program("chromium")}
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=180)


def worst(runs: list[Scores]) -> Scores:
    """The least of several runs, in each category."""
    of = {name: min(run.of[name] for run in runs) for name in CATEGORIES}
    wrong = tuple(dict.fromkeys(line for run in runs for line in run.wrong))
    return Scores(of, max(run.shift for run in runs), wrong)


def best(runs: Iterable[Scores], least: int) -> Scores:
    """The first of several runs whose performance is at least so good, else the best: no more are made than needed."""
    made: list[Scores] = []
    for run in runs:
        made.append(run)
        if run.of["performance"] >= least:
            return run
    return max(made, key=lambda run: run.of["performance"])


def _scores(report: dict[str, Any]) -> Scores:
    assert "runtimeError" not in report, report["runtimeError"]
    categories, audits = report["categories"], report["audits"]
    weighed = [ref["id"] for one in categories.values() for ref in one["auditRefs"] if ref["weight"]]
    wrong = [audits[name] for name in weighed if audits[name]["score"] not in (1, None)]
    return Scores(
        {name: round(100 * (categories[name]["score"] or 0)) for name in CATEGORIES},
        audits["cumulative-layout-shift"]["numericValue"],
        tuple(f"{one['id']} {one['score']} {one.get('displayValue', '')} {_items(one)}" for one in wrong),
    )


def _items(audit: dict[str, Any]) -> str:
    """Where it hurts: the elements and texts that a finding lists."""
    items = audit.get("details", {}).get("items", [])
    return "; ".join(str(item.get("node", {}).get("snippet") or item.get("description") or "") for item in items[:3])
