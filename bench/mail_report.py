"""What was found of the delivery: as one JSON value, as tables, and what it is to reach."""

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from bench import sheet
from bench.claims import BATCH, DUE, Claims
from bench.delivery import Delivery, Place, Sample, Scenario
from bench.goals import Ratio, ratios
from bench.mailers import CONNECTIONS, every, nodemailer_version
from bench.rounds import Key, Results
from bench.sheet import SATURATED, Found, Goal, Table

_PACKAGES = ("aiosmtplib", "fastapi-mail", "uvloop", "sqlalchemy", "aiosqlite")
_PROGRAMS = {"postconf": ["-h", "mail_version"], "node": ["--version"]}
BASE = "nodemailer"
_CLAIM = 0.9

_RATIOS: tuple[Ratio, ...] = (
    ("delivery / Nodemailer, pooled", ("direct", "doorbell"), ("direct", "nodemailer"), 3.0),
    ("delivery / fastapi-mail", ("direct", "doorbell"), ("direct", "fastapi-mail"), 8.0),
    ("with the default pool / Nodemailer, pooled", ("direct", "doorbell-pool"), ("direct", "nodemailer"), None),
    ("delivery / aiosmtplib, a connection each", ("direct", "doorbell"), ("direct", "aiosmtplib"), None),
    ("delivery / aiosmtplib with ready bytes, no rows", ("direct", "doorbell"), ("direct", "ready"), None),
    ("delivery / smtp-source", ("direct", "doorbell"), ("direct", "source"), None),
    ("10 ms: delivery / Nodemailer, pooled", ("10", "doorbell"), ("10", "nodemailer"), None),
    ("50 ms: delivery / Nodemailer, pooled", ("50", "doorbell"), ("50", "nodemailer"), None),
    ("50 ms: delivery / the same without PIPELINING", ("50", "doorbell"), ("50-plain", "doorbell"), None),
)


def summary(
    results: Results[Sample],
    cells: Mapping[Key, Delivery],
    scenarios: Mapping[Scenario, float | None],
    claims: Claims | None,
    place: Place,
    rounds: int,
    absent: Mapping[str, str],
    took: float,
) -> Found:
    """Everything, ready for JSON. `scenarios` have the round-trip time that was measured."""
    return {
        **sheet.heading("bench.mail", took),
        "settings": {
            "rounds": rounds,
            "seconds": place.seconds,
            "connections": CONNECTIONS,
            "sender_core": place.sender_core,
            "relay_core": place.relay_core,
        },
        "versions": sheet.versions(_PROGRAMS, _PACKAGES) | nodemailer_version(),
        "mailers": {mailer.key: mailer.title for mailer in every()},
        "absent": dict(absent),
        "scenarios": {
            scenario.key: {
                "title": scenario.title,
                "round_trip_ms": round_trip and round(round_trip, 3),
                "mailers": _cells(results, cells, scenario.key),
            }
            for scenario, round_trip in scenarios.items()
        },
        "claims": claims and claims.as_json(),
        "failures": [[*key, why] for key, why in results.failures.items()],
        "goals": [goal.as_json() for goal in (*ratios(results, _RATIOS), *_claims(claims))],
    }


def _cells(results: Results[Sample], cells: Mapping[Key, Delivery], scenario: str) -> Found:
    found = {}
    for mailer in every():
        samples = results.samples.get((scenario, mailer.key))
        if not samples:
            continue
        to_base = results.ratios((scenario, mailer.key), (scenario, BASE))
        found[mailer.key] = {
            "rate": round(median(sample.rate for sample in samples), 1),
            "ratio": round(median(to_base), 4) if to_base else None,
            "ratios": [round(ratio, 4) for ratio in to_base],
            "rates": [round(sample.rate, 1) for sample in samples],
            "cpu_microseconds": round(median(sample.cpu_microseconds for sample in samples), 2),
            "share": round(median(sample.share for sample in samples), 3),
            "disturbed": round(median(sample.disturbed for sample in samples), 3),
            "mails": samples[-1].mails,
            "command": cells[scenario, mailer.key].command,
        }
    return found


def _claims(claims: Claims | None) -> Iterator[Goal]:
    kinds = (
        ("claim", f"claims from many rows / claims from {DUE:,} rows", _CLAIM),
        ("look", f"a look where nothing is due, many rows / {DUE:,}", None),
    )
    for kind, what, least in kinds:
        wanted = "for comparison" if least is None else f"≥ {least:g}"
        if claims is None:
            yield Goal(what, wanted, "–", None)
            continue
        ratio = claims.ratio(kind)
        reached = None if least is None else ratio >= least
        yield Goal(what.replace("many", f"{claims.rows:,}"), wanted, f"{ratio:.2f}", reached)


def tables(found: Found) -> list[Table]:
    """The delivery, the same over longer ways, and claims."""
    scenarios = found["scenarios"]
    longer = {key: one for key, one in scenarios.items() if key != "direct"}
    return [*_direct(found, scenarios.get("direct")), *_longer(found, longer), *_claim_table(found["claims"])]


def _direct(found: Found, scenario: Found | None) -> Iterator[Table]:
    if scenario is None:
        return
    columns = ("mails a second", "to Nodemailer", "µs of processor time a mail", "of the core")
    rows = [
        [found["mailers"][key], _rate(one), _ratio(one), f"{one['cpu_microseconds']:.0f}", f"{one['share']:.0%}"]
        for key, one in scenario["mailers"].items()
    ]
    yield Table("Delivery", columns, rows)


def _longer(found: Found, scenarios: Mapping[str, Found]) -> Iterator[Table]:
    if not scenarios:
        return
    columns = [one["title"] for one in scenarios.values()]
    keys = [key for key in found["mailers"] if any(key in one["mailers"] for one in scenarios.values())]
    rows = [
        [
            found["mailers"][key],
            *(_both(one["mailers"][key]) if key in one["mailers"] else "–" for one in scenarios.values()),
        ]
        for key in keys
    ]
    yield Table("Mails a second over a longer way (ratio to Nodemailer)", columns, rows)


def _claim_table(claims: Found | None) -> Iterator[Table]:
    if claims is None:
        return
    rows = []
    kinds = (("claim", f"a claim of {BATCH} rows", BATCH), ("look", "a look where nothing is due", 1))
    for kind, title, times in kinds:
        small, large = (median(claims[which][kind]) * times for which in ("small", "large"))
        rows.append([title, f"{small:.0f}", f"{large:.0f}", f"{claims[f'{kind}_ratio']:.2f}"])
    columns = (f"{DUE:,} rows, all due", f"{claims['rows']:,} rows, {DUE:,} of them due", "ratio of rates")
    yield Table("Claims, in µs", columns, rows)


def _rate(one: Found) -> str:
    return sheet.number(one["rate"]) + ("*" if _held_up(one) else "")


def _ratio(one: Found) -> str:
    return "–" if one["ratio"] is None else f"{one['ratio']:.2f}"


def _both(one: Found) -> str:
    return sheet.number(one["rate"]) + ("" if one["ratio"] is None else f" ({one['ratio']:.2f})")


def _held_up(one: Found) -> bool:
    return bool(one["share"] + one["disturbed"] < SATURATED)


def notes(found: Found) -> list[str]:
    """What has to be said about the figures of this run."""
    direct: Found = found["scenarios"].get("direct", {"mailers": {}})
    lines = []
    if any(map(_held_up, direct["mailers"].values())):
        lines.append(f"* less than {SATURATED:.0%} of the core was busy: the sender waited for the relay, or the disk.")
    cells: list[dict[str, Any]] = [one for each in found["scenarios"].values() for one in each["mailers"].values()]
    lines += sheet.disturbances(cells, {"disturbed": "the sender's"})
    measured = [
        f"{one['title']} {one['round_trip_ms']:.1f} ms"
        for one in found["scenarios"].values()
        if one["round_trip_ms"] is not None
    ]
    if measured:
        lines.append(f"Round-trip time as measured: {', '.join(measured)}.")
    lines += [f"Without {found['mailers'][key]}: {why}" for key, why in found["absent"].items()]
    lines += [f"Left out: {found['mailers'].get(who, who)}, {key}: {why}" for key, who, why in found["failures"]]
    return lines


def how_long(found: Found) -> str:
    """How often and how long was measured."""
    return f"{found['settings']['rounds']} × about {found['settings']['seconds']:g} s each"
