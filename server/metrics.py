"""What Prometheus is told: counters that other parts count up, and a reading of the rest at the time of the scrape.

A leaf: whoever counts calls a function here. Names have their unit in them; states and outcomes are labels, and no
label is ever an address.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

OUTCOMES = ("sent", "failed", "deferred", "held", "uncertain")
STATES = ("new", "deferred", "held", "uncertain", "sent", "failed", "cancelled", "suppressed", "awaiting")

# From a mail that leaves at once to one that a relay took after days: 10 ms to 5 days.
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_LATENCY_SECONDS = (
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    *(_MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, 6 * _HOUR, _DAY, 2 * _DAY, 5 * _DAY),
)

# What else the pool tells: its name there, and ours.
_POOL: dict[str, tuple[type[GaugeMetricFamily] | type[CounterMetricFamily], str, str]] = {
    "size": (GaugeMetricFamily, "connections_max", "SMTP connections at most."),
    "waiting": (GaugeMetricFamily, "waiting", "Mails that wait for a connection."),
    "connects": (CounterMetricFamily, "connects", "Attempts to connect to the relay."),
    "connect_failures": (CounterMetricFamily, "connect_failures", "Attempts to connect that failed."),
}

_registry = CollectorRegistry()
ProcessCollector(registry=_registry)
PlatformCollector(registry=_registry)
GCCollector(registry=_registry)

_signups = Counter("doorbell_signups", "Signups that were accepted.", ["site"], registry=_registry)
_refused = Counter(
    "doorbell_signups_refused",
    "Posts that a limit or a proof of work kept out.",
    ["site", "reason"],
    registry=_registry,
)
_spam = Counter(
    "doorbell_signups_spam", "Posts that were taken for spam, and kept as such.", ["site"], registry=_registry
)
_sends = Counter("doorbell_mail_sends", "Attempts to send a mail, by how they ended.", ["outcome"], registry=_registry)
_latency = Histogram(
    "doorbell_mail_latency_seconds",
    "From the answer to the signup to the relay's acceptance of the mail.",
    registry=_registry,
    buckets=_LATENCY_SECONDS,
)
# Made beforehand: a rate needs a zero to begin from.
_sends_by_outcome = {outcome: _sends.labels(outcome) for outcome in OUTCOMES}


def signed_up(site: str, count: int = 1) -> None:
    """Signups of `site` were accepted; 0 makes the site known."""
    _signups.labels(site).inc(count)


def refused(site: str, reason: str) -> None:
    """A post to `site` was not taken: `limit` or `proof`."""
    _refused.labels(site, reason).inc()


def spam(site: str) -> None:
    """A post to `site` was taken for spam."""
    _spam.labels(site).inc()


def sent(outcome: str) -> None:
    """An attempt to send a mail ended like this (one of `OUTCOMES`)."""
    _sends_by_outcome[outcome].inc()


def delivered(seconds: float) -> None:
    """The relay took a mail so long after its signup was answered."""
    _latency.observe(max(seconds, 0.0))  # the clock may have been set back


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read when somebody asks. `mails`, by state, is None where the database did not answer."""

    mails: Mapping[str, int] | None
    oldest_pending_seconds: float | None
    pool: Mapping[str, int]  # empty where others deliver
    breaker_open: bool | None


def exposition(reading: Reading, accept: str = "") -> tuple[bytes, str]:
    """Every metric, in the format that `accept` (the header) asks for, and the name of that format."""
    encode, content_type = choose_encoder(accept)
    return encode(_Scrape(reading)), content_type


class _Scrape:
    """The counters, and one reading."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        yield from _outbox(self._reading)
        if self._reading.breaker_open is not None:
            yield from _pool(self._reading.pool)
            text = "1 while mail is held because the relay is down."
            yield _gauge("doorbell_smtp_breaker_open", text, self._reading.breaker_open)
        yield from _registry.collect()


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, float(value))


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _outbox(reading: Reading) -> Iterator[Metric]:
    yield _gauge("doorbell_database_up", "1 where the database answers.", reading.mails is not None)
    if reading.mails is None:
        return  # left out: a zero would say that nothing waits
    mails = {**dict.fromkeys(STATES, 0), **reading.mails}
    yield _labelled("doorbell_outbox_mails", "Mails by state; the first four are pending.", "state", mails)
    oldest = reading.oldest_pending_seconds or 0.0
    yield _gauge("doorbell_outbox_oldest_pending_seconds", "Age of the oldest pending mail; 0 without one.", oldest)


def _pool(stats: Mapping[str, int]) -> Iterator[Metric]:
    connections = {state: stats[state] for state in ("leased", "idle")}
    yield _labelled("doorbell_smtp_pool_connections", "SMTP connections by what they do.", "state", connections)
    for key, (family, name, text) in _POOL.items():
        if key in stats:
            yield family(f"doorbell_smtp_pool_{name}", text, float(stats[key]))
