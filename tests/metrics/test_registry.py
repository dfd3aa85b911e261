"""Processes that count together: counters add up and never fall, what a process says of itself ends with it."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families as parse

from server import metrics

# A process that counts, says how it stands, answers what all of them expose, and lives until it is told to end.
COUNTING = """
import sys
from server import metrics
metrics.known("bikes")
pool = {"leased": 1, "idle": 2, "size": 4, "waiting": 0, "connects": 3, "connect_failures": 0}
for line in sys.stdin:
    order, _, argument = line.strip().partition(" ")
    if order == "count":
        metrics.signed_up("bikes")
        metrics.answered("signup", 202, 0.02)
        metrics.hits(200)[0] += 10
        fault = ("connect", "") if argument == "down" else None
        metrics.publish(metrics.Relay(pool, breaker_open=argument == "down", fault=fault))
    elif order == "relays":
        print(metrics.relays())
    else:
        print(metrics.exposition(metrics.Reading(None, None))[0].decode())
    print("done", flush=True)
"""


class Counting:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COUNTING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, order: str) -> str:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        lines = []
        while (line := self.process.stdout.readline()) not in ("done\n", ""):
            lines.append(line)
        return "".join(lines)

    def end(self) -> None:
        self.process.communicate()


@pytest.fixture
def pair() -> Iterator[tuple[Counting, Counting]]:
    with metrics.sharing():
        pair = Counting(), Counting()
        yield pair
        for one in pair:
            one.end()


def told(counting: Counting) -> dict[tuple[str, ...], float]:
    families: list[Metric] = list(parse(counting.ask("tell")))
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}


def test_whoever_is_asked_answers_for_all(pair: tuple[Counting, Counting]) -> None:
    for one in pair:
        one.ask("count")
    assert told(pair[0]) == told(pair[1])
    found = told(pair[0])
    assert found["doorbell_signups_total", "bikes"] == 2
    assert found["doorbell_http_requests_total", "200", "files"] == 20
    assert found["doorbell_http_request_duration_seconds_bucket", "0.025", "signup"] == 2
    assert found["doorbell_processes",] == 2
    assert found["doorbell_smtp_pool_connections", "idle"] == 4
    assert found["doorbell_smtp_pool_connections_max",] == 8


def test_a_relay_that_one_of_them_cannot_reach_is_told_by_all(pair: tuple[Counting, Counting]) -> None:
    pair[0].ask("count down")
    pair[1].ask("count up")
    assert told(pair[1])["doorbell_smtp_breaker_open",] == 1
    assert told(pair[1])["doorbell_smtp_fault", "", "connect"] == 1
    assert "breaker_open=True, fault=('connect', '')" in pair[1].ask("relays")


def test_what_one_counted_stays_when_it_dies_and_what_it_was_goes(pair: tuple[Counting, Counting]) -> None:
    pair[0].ask("count down")
    pair[1].ask("count up")
    pair[0].process.kill()
    pair[0].process.wait()
    metrics.died(pair[0].process.pid)
    found = told(pair[1])
    assert found["doorbell_signups_total", "bikes"] == 2
    assert found["doorbell_smtp_pool_connects_total",] == 6
    assert found["doorbell_processes",] == 1
    assert found["doorbell_smtp_breaker_open",] == 0
    assert "fault=None" in pair[1].ask("relays")


def test_nothing_is_left_behind() -> None:
    assert not metrics.is_shared()
    with metrics.sharing():
        folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
        assert metrics.is_shared() and os.path.isdir(folder)
    assert not metrics.is_shared()
    assert not os.path.exists(folder)
