"""What is counted when it happens: zero before the first of its kind, then as often as it came."""

import time
from collections.abc import Callable

import pytest

from server import metrics
from server.outbox.store import Outcome
from tests.metrics.conftest import value


@pytest.mark.parametrize("outcome", Outcome)
def test_sends_are_counted_by_outcome(outcome: Outcome) -> None:
    before = value("doorbell_mail_sends_total", outcome=outcome.value)
    assert before is not None  # before the first of its kind
    metrics.sent(outcome)
    assert value("doorbell_mail_sends_total", outcome=outcome.value) == before + 1


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("doorbell_signups_total", metrics.signed_up),
        ("doorbell_signups_spam_total", metrics.spam),
        ("doorbell_signups_confirmed_total", metrics.confirmed),
        ("doorbell_unsubscribes_total", metrics.unsubscribed),
    ],
)
def test_signups_are_counted_by_site(name: str, count: Callable[[str], None]) -> None:
    metrics.known(name)
    assert value(name, site=name) == 0
    count(name)
    assert value(name, site=name) == 1


def test_refusals_are_counted_by_reason() -> None:
    metrics.known("refusing")
    metrics.refused("refusing", "limit")
    assert value("doorbell_signups_refused_total", site="refusing", reason="limit") == 1
    assert value("doorbell_signups_refused_total", site="refusing", reason="proof") == 0


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


def test_requests_are_counted_by_route_and_status_and_timed_by_route() -> None:
    metrics.answered("of-a-test", 503, 0.3)
    metrics.answered("of-a-test", 200, 0.002)
    assert value("doorbell_http_requests_total", route="of-a-test", status="503") == 1
    assert value("doorbell_http_request_duration_seconds_bucket", route="of-a-test", le="0.0025") == 1
    assert value("doorbell_http_request_duration_seconds_count", route="of-a-test") == 2


def test_jobs_are_counted_and_the_last_that_went_well_is_dated() -> None:
    metrics.scheduled("of-a-test")
    assert value("doorbell_job_runs_total", job="of-a-test", outcome="failure") == 0
    metrics.job_ended("of-a-test", well=False)
    assert value("doorbell_job_runs_total", job="of-a-test", outcome="failure") == 1
    assert not value("doorbell_job_last_success_timestamp_seconds", job="of-a-test")
    begun = time.time()
    metrics.job_ended("of-a-test", well=True)
    assert value("doorbell_job_runs_total", job="of-a-test", outcome="success") == 1
    assert begun <= (value("doorbell_job_last_success_timestamp_seconds", job="of-a-test") or 0) <= time.time()
