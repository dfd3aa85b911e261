"""What was found of the signup: as one JSON value, as tables, and what it is to reach."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from bench import sheet
from bench.goals import Ratio, ratios
from bench.intake import SERVERS, Intake, Open, Place, Sample
from bench.rounds import Key, Results
from bench.sheet import SATURATED, Found, Goal, Table
from bench.wrk import CONNECTIONS

_PACKAGES = ("uvicorn", "uvloop", "httptools", "fastapi", "pydantic", "sqlalchemy", "aiosqlite")
_PROGRAMS = {"wrk": ["-v"], "postconf": ["-h", "mail_version"]}
BASE = "nothing"
TITLES = {"signup": f"Signups, {CONNECTIONS} at a time", "lone": "A lone signup, one at a time"}

_RATIOS: tuple[Ratio, ...] = (
    ("signups / FastAPI that stores nothing (aim 1)", ("signup", "doorbell"), ("signup", "nothing"), 0.7),
    ("the same while its mail goes out", ("signup", "doorbell-mail"), ("signup", "nothing"), None),
    ("signups / FastAPI with a commit each", ("signup", "doorbell"), ("signup", "commit"), 3.0),
    ("signups / FastAPI with a commit and an EmailMessage each", ("signup", "doorbell"), ("signup", "library"), None),
)
# what, in which scenario, which percentile, of which server, over which, at most
_TIMES = (
    ("p99 of signups / of FastAPI that stores nothing", "signup", "p99", "doorbell", "nothing", 1.0),
    ("p50 of a lone signup / of FastAPI that stores nothing", "lone", "p50", "doorbell", "nothing", None),
    ("p50 of a lone signup / of FastAPI with a commit each", "lone", "p50", "doorbell", "commit", None),
)
_PAGES = 3.0
# From this share of the p99 on, that of the generator is said.
_LATE = 0.25


def summary(
    results: Results[Sample],
    pages: Sequence[Open],
    cells: Mapping[Key, Intake],
    place: Place,
    rounds: int,
    rates: Mapping[str, float],
    failures: Iterable[tuple[str, str, str]],
    absent: Mapping[str, str],
    took: float,
) -> Found:
    """Everything, ready for JSON. `rates` are those of the open loop."""
    return {
        **sheet.heading("bench.signup", took),
        "settings": {
            "rounds": rounds,
            "seconds": place.seconds,
            "connections": CONNECTIONS,
            "server_core": place.server_core,
            "load_core": place.load_core,
        },
        "versions": sheet.versions(_PROGRAMS, _PACKAGES),
        "servers": {server.key: server.title for server in SERVERS},
        "absent": dict(absent),
        "scenarios": {
            key: {"title": title, "servers": _cells(results, cells, key)}
            for key, title in TITLES.items()
            if any(scenario == key for scenario, _ in results.samples)
        },
        "pages": _pages(pages, rates),
        "failures": [list(one) for one in failures],
        "goals": [goal.as_json() for goal in (*ratios(results, _RATIOS), *_times(results), _of_pages(pages))],
    }


def _cells(results: Results[Sample], cells: Mapping[Key, Intake], scenario: str) -> Found:
    found = {}
    for server in SERVERS:
        samples = results.samples.get((scenario, server.key))
        if not samples:
            continue
        to_base = results.ratios((scenario, server.key), (scenario, BASE))
        found[server.key] = {
            name: _median(samples, name)
            for name in ("rate", "p50", "p99", "mails", "both", "cpu_microseconds", "share", "disturbed")
        } | {
            "wrk_disturbed": _median(samples, "wrk_disturbed"),
            "ratio": round(median(to_base), 4) if to_base else None,
            "ratios": [round(ratio, 4) for ratio in to_base],
            "rates": [round(sample.rate, 1) for sample in samples],
            "p99s": [round(sample.p99, 3) for sample in samples],
            "server": cells[scenario, server.key].command,
        }
    return found


def _median(samples: Sequence[Sample], name: str) -> float | None:
    values = [value for sample in samples if (value := getattr(sample, name)) is not None]
    return round(median(values), 3) if values else None


def _pages(pages: Sequence[Open], rates: Mapping[str, float]) -> Found | None:
    if not pages:
        return None
    return {
        "rates": {name: round(rate, 1) for name, rate in rates.items()},
        "ratio": median(one.ratio for one in pages),
        "rounds": [asdict(one) for one in pages],
    } | {
        which: {name: median(getattr(one, which)[name] for one in pages) for name in ("p50", "p99", "late_p99", "rate")}
        for which in ("alone", "busy", "signups")
    }


def _times(results: Results[Sample]) -> Iterator[Goal]:
    for what, scenario, percentile, above, below, most in _TIMES:
        wanted = "for comparison" if most is None else f"≤ {most:g}"
        pairs = list(
            zip(results.samples.get((scenario, above), []), results.samples.get((scenario, below), []), strict=False)
        )
        if not pairs:
            yield Goal(what, wanted, "–", None)
            continue
        ratio = median(getattr(one, percentile) / getattr(other, percentile) for one, other in pairs)
        yield Goal(what, wanted, f"{ratio:.2f}", None if most is None else ratio <= most)


def _of_pages(pages: Sequence[Open]) -> Goal:
    what, wanted = "p99 of a page beside signups and mail / alone", f"≤ {_PAGES:g}"
    if not pages:
        return Goal(what, wanted, "–", None)
    ratio = median(one.ratio for one in pages)
    return Goal(what, wanted, f"{ratio:.2f}", ratio <= _PAGES)


def tables(found: Found) -> list[Table]:
    """Signups, the lone one, and pages beside them."""
    scenarios = found["scenarios"]
    return [
        *(_table(found, scenarios[key], columns) for key, columns in _COLUMNS.items() if key in scenarios),
        *_page_table(found["pages"]),
    ]


Value = Callable[[Found], str]


def _table(found: Found, scenario: Found, columns: Mapping[str, Value]) -> Table:
    rows = [
        [found["servers"][key], *(place(one) for place in columns.values())] for key, one in scenario["servers"].items()
    ]
    return Table(scenario["title"], list(columns), rows)


def _number(name: str) -> Value:
    return lambda one: "–" if one[name] is None else sheet.number(one[name])


def _milliseconds(name: str) -> Value:
    return lambda one: f"{one[name]:.2f}"


def _ratio(one: Found) -> str:
    return "–" if one["ratio"] is None else f"{one['ratio']:.2f}"


def _rate(one: Found) -> str:
    return sheet.number(one["rate"]) + ("*" if _held_up(one) else "")


_COLUMNS: Mapping[str, Mapping[str, Value]] = {
    "signup": {
        "a second": _rate,
        "to storing nothing": _ratio,
        "p50, ms": _milliseconds("p50"),
        "p99, ms": _milliseconds("p99"),
        "µs of processor time each": _number("cpu_microseconds"),
        "mails a second meanwhile": _number("mails"),
        "a second, until the last mail": _number("both"),
    },
    "lone": {"p50, ms": _milliseconds("p50"), "p99, ms": _milliseconds("p99"), "a second": _number("rate")},
}


def _page_table(pages: Found | None) -> Iterator[Table]:
    if pages is None:
        return
    rates = pages["rates"]
    titles = {
        "alone": f"pages, {rates['pages']:,.0f} a second, alone",
        "busy": f"the same, beside {rates['signups']:,.0f} signups a second and their mail",
        "signups": "these signups",
    }
    rows = [
        [title, *(f"{pages[key][name]:.2f}" for name in ("p50", "p99", "late_p99"))] for key, title in titles.items()
    ]
    columns = ("p50, ms", "p99, ms", "of which the generator's, p99, ms")
    yield Table("A page of 12 KB on a schedule (open loop)", columns, rows)


def _held_up(one: Found) -> bool:
    return bool(one["share"] + one["disturbed"] < SATURATED)


def notes(found: Found) -> list[str]:
    """What has to be said about the figures of this run."""
    signups: Found = found["scenarios"].get("signup", {"servers": {}})
    lines = []
    if any(map(_held_up, signups["servers"].values())):
        lines.append(f"* less than {SATURATED:.0%} of the core was busy: the server waited for the disk, or for wrk.")
    cells: list[dict[str, Any]] = list(signups["servers"].values())
    lines += sheet.disturbances(cells, {"disturbed": "the server's", "wrk_disturbed": "wrk's"})
    if found["pages"]:
        sent = median(one["mails"] for one in found["pages"]["rounds"])
        lines.append(f"Beside the pages {sent:,.0f} mails a second went out.")
        if any(found["pages"][which]["late_p99"] > _LATE * found["pages"][which]["p99"] for which in ("alone", "busy")):
            lines.append("The generator of the pages was late itself: other programs had its core.")
    lines += [f"Without {found['servers'].get(key, key)}: {why}" for key, why in found["absent"].items()]
    lines += [f"Left out: {found['servers'].get(who, who)}, {key}: {why}" for key, who, why in found["failures"]]
    return lines


def how_long(found: Found) -> str:
    """How often and how long was measured."""
    return f"{found['settings']['rounds']} × {found['settings']['seconds']} s"
