"""Mail that workers send: web processes ring by a broker, on both databases and both brokers."""

import fcntl
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from kombu.connection import Connection

from server import tasks
from tests.conftest import skip_or_fail
from tests.e2e.conftest import HTTP, ForkedServer, free_port, wait_until
from tests.e2e.relay import IN_FLIGHT, Gate, Place, placed, slow
from tests.e2e.visitors import Visitors
from tests.smtpd import Smtpd, accept

# They wait for their turn too.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

# One queue for all: tests that use a broker take turns at it.
BROKERS = {
    "rabbitmq": os.environ.get("DOORBELL_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//"),
    "redis": os.environ.get("DOORBELL_TEST_REDIS", "redis://127.0.0.1:6379/15"),
}
# Each database and each broker, not each with each.
PAIRS = pytest.mark.parametrize(
    ("database_url", "broker"), [("postgresql", "rabbitmq"), ("sqlite", "redis")], indirect=True
)


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a broker that holds nothing for us."""
    url = BROKERS[request.param]
    with (Path(tempfile.gettempdir()) / f"doorbell-{request.param}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        try:
            with Connection(url, connect_timeout=5) as connection:  # type: ignore[no-untyped-call]
                connection.ensure_connection(max_retries=1)
                connection.default_channel.queue_delete("doorbell")
                if request.param == "redis":  # which keeps what is in a queue that is deleted
                    connection.default_channel.queue_purge("doorbell")
        except OSError as error:
            skip_or_fail(f"no broker at {url}: {error}")
        yield url


class Worker(ForkedServer):
    """`python -m server worker`, that answers an operator's questions."""

    def __init__(self, place: Place, name: str, *options: str) -> None:
        super().__init__(place.environ, place.server.data.parent / f"{name}.log")
        self.command = ("worker", "--port", str(self.port), *options)


@contextmanager
def shared(folder: Path, smtpd: Smtpd, keeps: dict[str, str], broker: str, **environ: str) -> Iterator[Place]:
    with placed(folder, smtpd, **keeps, BROKER_URL=broker, **environ) as place:
        yield place


@contextmanager
def workers(place: Place, *names: str, options: tuple[str, ...] = ()) -> Iterator[list[Worker]]:
    with ExitStack() as stack:
        made = [Worker(place, name, *options) for name in names]
        for worker in made:
            stack.callback(worker.kill)
            worker.launch()
        for worker in made:
            worker.wait()
        yield made


@PAIRS
def test_worker_sends_what_a_web_process_takes(tmp_path: Path, keeps: dict[str, str], broker: str) -> None:
    with (
        shared(tmp_path, Smtpd(), keeps, broker, LOG_LEVEL="debug") as place,
        workers(place, "worker") as (worker,),
    ):
        place.server.start()
        accepted = place.sign_up("ann", "bob")
        wait_until(lambda: "drain.done" in worker.log)
        place.check(accepted)
        assert place.doubles == 0
        assert (worker.log.count("mail.sent"), place.server.log.count("mail.sent")) == (4, 0)
        ready = HTTP.get(f"{place.server.url}/readyz").json()
        assert (ready["ready"], ready["database"], ready["broker"], ready["pending_mails"]) == (True, "ok", "ok", 0)
        ready = HTTP.get(f"{worker.url}/readyz").json()
        assert (ready["ready"], ready["smtp"], ready["breaker"]) == (True, "ok", "closed")
        assert 'doorbell_mail_sends_total{outcome="sent"} 4.0' in HTTP.get(f"{worker.url}/metrics").text
        assert (worker.end(), place.server.end()) == (0, 0)
        assert "Traceback" not in worker.log + place.server.log
        assert "delayed delivery" not in worker.log


@PAIRS
def test_killed_worker_loses_nothing(tmp_path: Path, keeps: dict[str, str], broker: str) -> None:
    smtpd = Smtpd()
    smtpd.on("dot", slow(0.05))
    with (
        shared(tmp_path, smtpd, keeps, broker) as place,
        workers(place, "one", "other", options=("--beat",)) as (one, other),
    ):
        place.server.start()
        visitors = Visitors(place.server.url)
        with visitors.posting(3):
            wait_until(lambda: len(visitors.accepted) > 30 and "mail.sent" in one.log and "mail.sent" in other.log)
            assert one.end(signal.SIGKILL) == -signal.SIGKILL
            killed_at = len(visitors.accepted)
            wait_until(lambda: len(visitors.accepted) > killed_at + 10)
        place.end_leases()
        place.check(visitors.accepted)
        assert place.doubles <= IN_FLIGHT
        assert other.end() == 0
        assert "Traceback" not in other.log + place.server.log


@PAIRS
def test_worker_that_is_told_to_stop_ends_what_it_sends(tmp_path: Path, keeps: dict[str, str], broker: str) -> None:
    smtpd, gate = Smtpd(), Gate(accept)
    smtpd.on("dot", gate)
    with shared(tmp_path, smtpd, keeps, broker) as place, workers(place, "worker") as (worker,):
        place.server.start()
        accepted = place.sign_up("ann")
        wait_until(lambda: gate.stopped == 2)
        assert worker.process is not None
        worker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not worker.answers())
        gate.open()
        assert worker.process.wait(60) == 0
        place.check(accepted)
        assert place.doubles == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_broker_that_is_away_stops_no_signup_and_no_mail(tmp_path: Path, keeps: dict[str, str]) -> None:
    nobody = f"amqp://127.0.0.1:{free_port()}//"
    with shared(tmp_path, Smtpd(), keeps, nobody) as place, workers(place, "worker") as (worker,):
        place.server.start()
        accepted = place.sign_up("ann")
        ready = HTTP.get(f"{place.server.url}/readyz").json()
        assert ready["ready"] and ready["broker"] != "ok"
        place.check(accepted)  # found by the worker's clock
        wait_until(lambda: "broker.unavailable" in place.server.log)
        assert (place.server.end(), worker.end()) == (0, 0)


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_beat_rings_for_what_nobody_rang_for(tmp_path: Path, keeps: dict[str, str], broker: str) -> None:
    with (
        shared(tmp_path, Smtpd(), keeps, broker, LOG_LEVEL="debug") as place,
        workers(place, "worker") as (worker,),
    ):
        beat = ForkedServer(place.environ, tmp_path / "beat.log")
        beat.command = ("beat",)
        beat.launch()
        try:
            wait_until(lambda: worker.log.count("drain.done") >= 2)
            assert beat.end() == 0, beat.log
        finally:
            beat.kill()


@pytest.mark.parametrize("command", ["worker", "beat"])
def test_without_a_broker_there_is_nothing_to_do(tmp_path: Path, command: str) -> None:
    with placed(tmp_path, Smtpd()) as place:
        place.server.command = (command,)
        process = place.server.launch()
        assert process.wait(60) == 1
        assert "DOORBELL_BROKER_URL is not set" in place.server.log


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_worker_whose_port_is_taken_ends_and_says_so(tmp_path: Path, keeps: dict[str, str]) -> None:
    nobody = f"amqp://127.0.0.1:{free_port()}//"
    with shared(tmp_path, Smtpd(), keeps, nobody) as place, socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        place.server.command = ("worker", "--port", str(port))
        assert place.server.launch().wait(60) == 1
        assert f"127.0.0.1:{port}: Address already in use" in place.server.log


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_queue_of_another_kind_is_told_of(tmp_path: Path, keeps: dict[str, str], broker: str) -> None:
    with Connection(broker) as connection:  # type: ignore[no-untyped-call]
        connection.default_channel.queue_declare("doorbell", durable=True, auto_delete=False)
        try:
            with shared(tmp_path, Smtpd(), keeps, broker) as place:
                worker = Worker(place, "worker")
                process = worker.launch()
                assert process.wait(60) == 1
                assert "queue doorbell of another kind: delete it" in worker.log and "Traceback" not in worker.log
                place.server.start()
                place.sign_up("ann")
                wait_until(lambda: HTTP.get(f"{place.server.url}/readyz").json()["broker"] == "PreconditionFailed")
        finally:
            connection.default_channel.queue_delete("doorbell")


@pytest.mark.parametrize("broker", ["rabbitmq", "redis"], indirect=True)
def test_rings_that_nobody_hears_do_not_pile_up(broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "MOST_WAITING", 5)
    celery = tasks.create(broker)
    bell = tasks.Bell(celery)
    try:
        for _ in range(20):
            bell.ring()
        assert bell.fault is None
        with celery.connection_for_write() as connection:
            # RabbitMQ counts a little late.
            wait_until(lambda: 5 <= tasks._waiting(celery, connection.default_channel) <= 20)
            so_far = tasks._waiting(celery, connection.default_channel)
            for _ in range(5):
                bell.ring()
            assert tasks._waiting(celery, connection.default_channel) == so_far
    finally:
        celery.close()
