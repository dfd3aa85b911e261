"""The signup bench: what is on a schedule is timed from it, a signup that is not kept does not count."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import intake, openloop, outbox, relay
from bench.intake import SERVERS, Intake, OpenLoop, Place, Server
from bench.peers import ROOT, Launch, no_module, program
from bench.process import cores
from bench.wire import WrongAnswer, fetch
from tests.bench.test_mail import needs_two_cores, on_disk

pytest.importorskip("fastapi_mail", reason="for those who bench: make install-bench")

_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@contextmanager
def answering(answer: Callable[[int], bytes]) -> Iterator[int]:
    """A server that answers one request after another, over however many connections; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    numbers, turn, ended = iter(range(10**6)), threading.Lock(), threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            while connection.recv(65536):
                with turn:
                    connection.sendall(answer(next(numbers)))

    def accept() -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        ended.set()
        listener.close()


def test_while_the_server_stands_still_requests_fall_due_and_their_time_runs() -> None:
    def stalls(number: int) -> bytes:
        if number == 0:
            time.sleep(0.4)
        return _OK

    with answering(stalls) as port:
        found = openloop.run(port, [0.0, 0.1, 0.2, 0.3], openloop.pages(port), b"HTTP/1.1 200")
    assert len(found.answered) == 4
    for waited, at_least in zip(sorted(found.answered, reverse=True), (0.4, 0.3, 0.2, 0.1), strict=True):
        assert waited >= at_least - 0.01


def test_more_than_the_connections_can_carry_waits_its_turn() -> None:
    count = 3 * openloop.CONNECTIONS
    with answering(lambda number: _OK) as port:
        found = openloop.run(port, [0.0] * count, openloop.pages(port), b"HTTP/1.1 200")
    assert len(found.answered) == len(found.late) == count


def test_an_answer_in_pieces_is_one_answer() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = openloop.Connection(ours, b"HTTP/1.1 200")
        for piece in (_OK[:10], _OK[10:-1]):
            theirs.sendall(piece)
            assert not connection.read()
        theirs.sendall(_OK[-1:])
        assert connection.read()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_wrong_answer_ends_the_run(answer: bytes) -> None:
    with answering(lambda number: answer) as port, pytest.raises(openloop.Broken):
        openloop.run(port, [0.0], openloop.pages(port), b"HTTP/1.1 200")


def test_the_schedule_has_the_rate_and_is_the_same_each_time() -> None:
    due = openloop.schedule(1000, 10, seed=1)
    assert due == sorted(openloop.schedule(1000, 10, seed=1))
    assert 9_500 < len(due) < 10_500
    assert due[0] > 0 and due[-1] < 10


def test_percentiles_are_values_that_were_measured() -> None:
    values = [number / 1000 for number in range(1, 101)]
    found = openloop.Found(values, values).as_json(100, 10)
    assert (found["p50"], found["p99"], found["rate"]) == (51, 100, 10)


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.key)
def test_a_server_takes_a_signup_and_has_one_mail_of_it(server: Server, tmp_path: Path) -> None:
    needs_two_cores()
    if server.missing:
        pytest.skip(server.missing)
    with intake.running(server, Place(tmp_path, *cores(), 1)) as one:
        assert intake._first(one) > 100
        wrong = fetch(one.port, "/signup", {"Content-Type": "application/json"}, b'{"site":"bench","email":"nobody"}')
        assert wrong.status == 422
        assert one.kept() == (1 if one.file else 0)
        if one.file:
            one.drain() if server.mails else None
            assert outbox.states(one.file) == {"sent" if server.mails else "pending": 1}


def needs_wrk() -> None:
    """Skips where signups cannot be asked for."""
    needs_two_cores()
    if not program("wrk"):
        pytest.skip("no program wrk")


def test_a_signup_that_is_not_kept_does_not_count(tmp_path: Path) -> None:
    needs_two_cores()
    nothing = next(server for server in SERVERS if server.key == "nothing")

    def launch(port: int, sites: Path, folder: Path, smtp: int) -> Launch:
        asyncio.run(outbox.fill(folder / "empty.db", 0))  # and nobody writes into it
        return nothing.launch(port, sites, folder, smtp)

    forgetful = Server("forgetful", "forgets", launch, "empty.db")
    with pytest.raises(WrongAnswer, match="took one signup, and has 0"):
        Intake(forgetful, Place(tmp_path, *cores(), 1))(True)


def test_pages_are_asked_for_beside_signups(tmp_path: Path) -> None:
    needs_two_cores()
    if relay.MISSING:
        pytest.skip(relay.MISSING)
    found = OpenLoop(Place(tmp_path, *cores(), 1), pages=50, signups=10)(True)
    assert found.alone["answered"] == found.busy["answered"] > 0
    assert found.signups["answered"] > 0
    assert found.ratio > 0


def test_the_script_says_what_it_found(tmp_path: Path) -> None:
    needs_wrk()
    if absent := no_module("matplotlib"):
        pytest.skip(absent)
    options = ["--quick", "--only", "lone", "--servers", "doorbell", "--markdown", "--work", str(on_disk(tmp_path))]
    done = subprocess.run(
        [sys.executable, "-m", "bench.signup", *options], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "| Doorbell, the relay is down |" in done.stdout and "Left out" not in done.stdout
    found = json.loads((tmp_path / "results" / "signup.json").read_text())
    assert found["scenarios"]["lone"]["servers"]["doorbell"]["p50"] > 0
    assert str(tmp_path) not in json.dumps(found)
    assert (tmp_path / "results" / "signup.png").stat().st_size > 1000
