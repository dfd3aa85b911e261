"""What is exposed, read as Prometheus reads it."""

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families as parse

from server import metrics
from server.metrics import Reading

READING = Reading({"new": 3, "sent": 40}, 12.5)


def scrape(reading: Reading = READING) -> dict[str, Metric]:
    """The families by name."""
    content, content_type = metrics.exposition(reading)
    assert content_type.startswith("text/plain; version=")
    return {family.name: family for family in parse(content.decode())}


def value(name: str, reading: Reading = READING, **labels: str) -> float | None:
    """A sample's value, None where there is none."""
    samples = [sample for family in scrape(reading).values() for sample in family.samples]
    found = [sample.value for sample in samples if sample.name == name and sample.labels == labels]
    assert len(found) <= 1
    return found[0] if found else None
