"""What Prometheus reads: all that was counted and published, and what the database says when it is asked."""

import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from server import __version__
from server.metrics.registry import collect

STATES = ("new", "deferred", "held", "uncertain", "sent", "failed", "cancelled", "suppressed", "awaiting")


@dataclass(frozen=True, slots=True)
class Reading:
    """What the database says. `mails`, by state, is None where it did not answer. Where this process does not deliver,
    what is said of the relay is left out."""

    mails: Mapping[str, int] | None
    oldest_pending_seconds: float | None
    delivers: bool = True


def exposition(reading: Reading, accept: str = "") -> tuple[bytes, str]:
    """Every metric, in the format that `accept` (the header) asks for, and the name of that format."""
    encode, content_type = choose_encoder(accept)
    return encode(_Scrape(reading)), content_type


class _Scrape:
    """All of it, as the library wants to have it."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        yield _labelled("doorbell_build_info", "1; what runs is in the labels.", _BUILD)
        yield from _outbox(self._reading)
        for family in collect():
            if self._reading.delivers or not family.name.startswith("doorbell_smtp_"):
                yield family


_BUILD = [({"version": __version__, "python": platform.python_version()}, 1.0)]


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, float(value))


def _labelled(name: str, text: str, values: Iterable[tuple[dict[str, str], float]]) -> Metric:
    family = Metric(name, text, "gauge")
    for labels, value in values:
        family.add_sample(name, labels, value)
    return family


def _outbox(reading: Reading) -> Iterator[Metric]:
    yield _gauge("doorbell_database_up", "1 where the database answers.", reading.mails is not None)
    if reading.mails is None:
        return  # left out: a zero would say that nothing waits
    mails = [({"state": state}, float(reading.mails.get(state, 0))) for state in STATES]
    yield _labelled("doorbell_outbox_mails", "Mails by state; the first four are pending.", mails)
    oldest = reading.oldest_pending_seconds or 0.0
    yield _gauge("doorbell_outbox_oldest_pending_seconds", "Age of the oldest pending mail; 0 without one.", oldest)
