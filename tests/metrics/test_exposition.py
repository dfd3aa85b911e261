"""What Prometheus reads: names with units, every state and outcome from the start, no address anywhere."""

import platform
import re

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from server import __version__, metrics
from server.metrics import Reading
from server.outbox import ledger
from server.outbox.store import Outcome
from tests.metrics.conftest import READING, scrape, value

# How a name may end, by what it is of (prometheus.io/docs/practices/naming): a unit, or what is counted.
UNITS = re.compile(r"_(seconds|bytes|timestamp_seconds)$")
COUNTED = {
    "doorbell_outbox_mails",
    "doorbell_smtp_pool_connections",
    "doorbell_smtp_pool_connections_max",
    "doorbell_smtp_pool_waiting",
    "doorbell_database_commit_writes",
    "doorbell_sites",
    "doorbell_processes",
    "process_open_fds",
    "process_max_fds",
}
YES_OR_NO = {"doorbell_build_info", "doorbell_database_up", "doorbell_smtp_breaker_open", "doorbell_smtp_fault"}


def test_reading_is_told() -> None:
    assert value("doorbell_outbox_mails", state="new") == 3
    assert value("doorbell_outbox_mails", state="sent") == 40
    assert value("doorbell_outbox_oldest_pending_seconds") == 12.5
    assert value("doorbell_database_up") == 1


def test_states_without_a_mail_are_zero() -> None:
    for state in metrics.STATES:
        assert value("doorbell_outbox_mails", Reading({}, None), state=state) == 0
    assert value("doorbell_outbox_oldest_pending_seconds", Reading({}, None)) == 0


def test_states_and_outcomes_are_those_of_the_outbox() -> None:
    assert set(metrics.STATES) == {state.value for state in ledger.State} - {"sending"}
    assert set(metrics.OUTCOMES) == {outcome.value for outcome in Outcome}


def test_database_that_is_away_is_told_and_what_it_knows_is_left_out() -> None:
    away = Reading(None, None)
    assert value("doorbell_database_up", away) == 0
    assert not {"doorbell_outbox_mails", "doorbell_outbox_oldest_pending_seconds"} & scrape(away).keys()
    assert value("doorbell_smtp_pool_waiting", away) is not None


def test_what_runs_is_told() -> None:
    assert value("doorbell_build_info", version=__version__, python=platform.python_version()) == 1


def test_names_follow_the_convention() -> None:
    for name, family in scrape().items():
        if name.endswith("_created"):
            continue
        assert re.fullmatch(r"(doorbell|process)(_[a-z]+)+", name), name
        assert family.documentation.endswith("."), name
        if family.type == "counter":  # the parser takes _total off, and there is none without it
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples), name
        else:
            assert UNITS.search(name) or name in COUNTED | YES_OR_NO, name
            assert not name.endswith("_total"), name


def test_openmetrics_where_it_is_asked_for() -> None:
    content, content_type = metrics.exposition(READING, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    families = list(parse_openmetrics(content.decode()))  # type: ignore[no-untyped-call]
    assert {"doorbell_outbox_mails", "doorbell_mail_sends"} <= {family.name for family in families}


def test_whoever_does_not_deliver_says_nothing_of_the_relay() -> None:
    there = {name for name in scrape() if name.startswith("doorbell_smtp_")}
    assert there and not there & scrape(Reading({}, None, delivers=False)).keys()
