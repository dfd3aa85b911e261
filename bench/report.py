"""What was found of the static host: as one JSON value, and as tables."""

from collections.abc import Callable, Mapping
from statistics import median

from bench import sheet
from bench.goals import goals
from bench.large import Memory, Start
from bench.peers import every
from bench.rounds import Plan, Results
from bench.scenarios import SCENARIOS
from bench.sheet import SATURATED, Found, Table
from bench.wrk import CONNECTIONS, Sample

_PACKAGES = ("uvicorn", "uvloop", "httptools", "starlette", "servestatic", "whitenoise", "gunicorn", "granian")
_PROGRAMS = {"nginx": ["-v"], "caddy": ["version"], "wrk": ["-v"]}


def titles() -> dict[str, str]:
    """The scenarios by key, those of large sites too."""
    counts = (10, 10_000, 100_000)
    one = {f"one-{count}": f"1 of {count:,} files" for count in counts}
    many = {f"many-{count}": f"{count:,} files in turn" for count in counts}
    return {scenario.key: scenario.title for scenario in SCENARIOS} | one | many


def summary(
    results: Results[Sample],
    plan: Plan,
    absent: Mapping[str, str],
    start: Start | None,
    memory: Memory | None,
    took: float,
) -> Found:
    """Everything, ready for JSON."""
    return {
        **sheet.heading("bench.static", took),
        "settings": {
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "connections": CONNECTIONS,
            "server_core": plan.server_core,
            "wrk_core": plan.wrk_core,
        },
        "versions": sheet.versions(_PROGRAMS, _PACKAGES),
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


def _cells(results: Results[Sample], scenario: str, plan: Plan) -> Found:
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


def tables(found: Found) -> list[Table]:
    """A row for each server, with a place for each scenario."""
    columns = [scenario["title"] for scenario in found["scenarios"].values()]
    return [Table(title, columns, _rows(found, place)) for title, place in _TABLES]


def notes(found: Found) -> list[str]:
    """What has to be said about the figures of this run."""
    cells = [one for scenario in found["scenarios"].values() for one in scenario["servers"].values()]
    lines = []
    if any(map(_held_up, cells)):
        lines.append(f"* less than {SATURATED:.0%} of the core was busy: wrk was the limit, the server can do more.")
    lines += sheet.disturbances(cells, {"disturbed": "the server's", "wrk_disturbed": "wrk's"})
    lines += [f"Without {found['servers'][key]}: {why}" for key, why in found["absent"].items()]
    lines += [f"Left out: {found['servers'][server]}, {key}: {why}" for key, server, why in found["failures"]]
    return lines


def how_long(found: Found) -> str:
    """How often and how long was measured."""
    return f"{found['settings']['rounds']} × {found['settings']['seconds']} s"
