"""What a process says of itself, and what it answers for all."""

from server import metrics
from server.metrics import Relay
from tests.metrics.conftest import value

POOL = {"leased": 2, "idle": 1, "size": 4, "waiting": 3, "connects": 9, "connect_failures": 5}


def test_relay_is_told() -> None:
    metrics.publish(Relay(POOL, breaker_open=True, fault=("connect", "421")))
    assert value("doorbell_smtp_pool_connections", state="leased") == 2
    assert value("doorbell_smtp_pool_connections", state="idle") == 1
    assert value("doorbell_smtp_pool_connections_max") == 4
    assert value("doorbell_smtp_pool_waiting") == 3
    assert value("doorbell_smtp_breaker_open") == 1
    assert value("doorbell_smtp_fault", stage="connect", code="421") == 1
    found = metrics.relays()
    assert (found.breaker_open, found.fault) == (True, ("connect", "421"))
    assert {name: found.pool[name] for name in ("leased", "idle", "size", "waiting")} == {
        "leased": 2,
        "idle": 1,
        "size": 4,
        "waiting": 3,
    }


def test_fault_that_is_over_is_zero() -> None:
    metrics.publish(Relay(POOL, breaker_open=True, fault=("mail", "")))
    metrics.publish(Relay(POOL))
    assert value("doorbell_smtp_fault", stage="mail", code="") == 0
    assert metrics.relays().fault is None
    assert not metrics.relays().breaker_open


def test_counters_of_the_pool_go_on_where_it_begins_anew() -> None:
    def connects() -> float:
        return value("doorbell_smtp_pool_connects_total") or 0

    metrics.publish(Relay(POOL))
    before = connects()
    metrics.publish(Relay({**POOL, "connects": 11}))
    assert connects() == before + 2
    metrics.publish(Relay({**POOL, "connects": 1}))
    assert connects() == before + 3


def test_hits_are_counted_once() -> None:
    def counted() -> float:
        return value("doorbell_http_requests_total", route=metrics.FILES, status="299") or 0

    metrics.hits(299)[0] += 7
    before = counted()
    metrics.publish(Relay(POOL))
    metrics.publish(Relay(POOL))
    assert counted() == before + 7


def test_process_is_told_of() -> None:
    metrics.publish(Relay(POOL))
    assert (value("process_resident_memory_bytes") or 0) > 10_000_000
    assert (value("process_open_fds") or 0) > 3
    assert (value("process_cpu_seconds_total") or 0) > 0
    assert value("doorbell_processes") == 1
