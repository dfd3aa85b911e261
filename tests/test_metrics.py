"""What Prometheus reads: names with units, every state and outcome from the start, no address anywhere."""

import re

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from server import metrics
from server.metrics import Reading
from server.outbox import ledger
from server.outbox.store import Outcome

POOL = {"leased": 2, "idle": 1, "size": 4, "connects": 9}
READING = Reading({"new": 3, "sent": 40}, 12.5, POOL, breaker_open=True)


def scrape(reading: Reading = READING) -> dict[str, Metric]:
    content, content_type = metrics.exposition(reading)
    assert content_type.startswith("text/plain; version=")
    return {family.name: family for family in parse(content.decode())}


def value(name: str, reading: Reading = READING, **labels: str) -> float | None:
    """A sample's value, None where there is none."""
    samples = [sample for family in scrape(reading).values() for sample in family.samples]
    found = [sample.value for sample in samples if sample.name == name and sample.labels == labels]
    assert len(found) <= 1
    return found[0] if found else None


def test_reading_is_told() -> None:
    assert value("doorbell_outbox_mails", state="new") == 3
    assert value("doorbell_outbox_mails", state="sent") == 40
    assert value("doorbell_outbox_oldest_pending_seconds") == 12.5
    assert value("doorbell_smtp_pool_connections", state="leased") == 2
    assert value("doorbell_smtp_pool_connections", state="idle") == 1
    assert value("doorbell_smtp_pool_connections_max") == 4
    assert value("doorbell_smtp_pool_connects_total") == 9
    assert value("doorbell_smtp_breaker_open") == 1
    assert value("doorbell_database_up") == 1


def test_states_without_a_mail_are_zero() -> None:
    for state in metrics.STATES:
        assert value("doorbell_outbox_mails", Reading({}, None, POOL, False), state=state) == 0
    assert value("doorbell_outbox_oldest_pending_seconds", Reading({}, None, POOL, False)) == 0


def test_states_and_outcomes_are_those_of_the_outbox() -> None:
    assert set(metrics.STATES) == {state.value for state in ledger.State} - {"sending"}
    assert set(metrics.OUTCOMES) == {outcome.value for outcome in Outcome}


def test_database_that_is_away_is_told_and_what_it_knows_is_left_out() -> None:
    away = Reading(None, None, POOL, False)
    assert value("doorbell_database_up", away) == 0
    assert not {"doorbell_outbox_mails", "doorbell_outbox_oldest_pending_seconds"} & scrape(away).keys()
    assert value("doorbell_smtp_pool_connections_max", away) == 4


@pytest.mark.parametrize("outcome", Outcome)
def test_sends_are_counted_by_outcome(outcome: Outcome) -> None:
    before = value("doorbell_mail_sends_total", outcome=outcome.value)
    assert before is not None  # before the first of its kind
    metrics.sent(outcome)
    assert value("doorbell_mail_sends_total", outcome=outcome.value) == before + 1


def test_signups_are_counted_by_site() -> None:
    metrics.signed_up("a-new-site", 0)
    assert value("doorbell_signups_total", site="a-new-site") == 0
    metrics.signed_up("a-new-site")
    assert value("doorbell_signups_total", site="a-new-site") == 1


@pytest.mark.parametrize(
    ("seconds", "below", "above"), [(0.02, "0.025", "0.01"), (-5, "0.01", None), (200_000, "432000.0", "172800.0")]
)
def test_latency_falls_into_its_bucket(seconds: float, below: str, above: str | None) -> None:
    def bucket(limit: str | None) -> float:
        return value("doorbell_mail_latency_seconds_bucket", le=limit) or 0.0 if limit else 0.0

    before, over, total = bucket(below), bucket(above), value("doorbell_mail_latency_seconds_sum") or 0.0
    metrics.delivered(seconds)
    assert (bucket(below), bucket(above)) == (before + 1, over)
    assert value("doorbell_mail_latency_seconds_sum") == pytest.approx(total + max(seconds, 0))


def test_process_is_told_of_too() -> None:
    assert {"process_resident_memory_bytes", "process_open_fds", "python_info"} <= scrape().keys()


def test_further_counts_of_the_pool_are_told_where_it_has_them() -> None:
    more = Reading({}, None, POOL | {"waiting": 5, "connect_failures": 6, "unheard_of": 7}, False)
    assert value("doorbell_smtp_pool_waiting", more) == 5
    assert value("doorbell_smtp_pool_connect_failures_total", more) == 6
    assert value("doorbell_smtp_pool_waiting") is None


def test_every_metric_of_ours_has_a_text_and_a_proper_name() -> None:
    for name, family in scrape().items():
        if name.startswith("doorbell_") and not name.endswith("_created"):
            assert re.fullmatch(r"doorbell(_[a-z]+)+", name) and family.documentation.endswith("."), name


def test_openmetrics_where_it_is_asked_for() -> None:
    content, content_type = metrics.exposition(READING, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    families = list(parse_openmetrics(content.decode()))  # type: ignore[no-untyped-call]
    assert {"doorbell_outbox_mails", "doorbell_mail_sends"} <= {family.name for family in families}
