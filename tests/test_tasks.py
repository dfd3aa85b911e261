"""The web process's end of a broker: whatever that does, signups go on and the process can stop."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from server import tasks
from tests.conftest import eventually


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and says nothing, like one that vanished without a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
async def test_broker_that_says_nothing_is_told_of_and_keeps_no_thread(
    scheme: str, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tasks._REDIS, "socket_timeout", 0.2)
    broker = tasks.Broker(f"{scheme}://127.0.0.1:{silent}/0")
    await broker.open()
    broker.wake()
    async with asyncio.timeout(60):
        assert await broker.check() == "TimeoutError"
        await eventually(lambda: broker._bell.fault == "TimeoutError")
        await broker.close()
        await asyncio.get_running_loop().shutdown_default_executor()


def test_task_ends_when_nothing_is_left() -> None:
    rings: list[int] = []
    left = iter([False, False, True])
    tasks.drained(lambda seconds: next(left), lambda: rings.append(1), threading.Event())
    assert (rings, list(left)) == ([], [])


def test_task_that_takes_too_long_leaves_the_rest_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "BACK_SECONDS", 0.05)
    rings: list[int] = []
    asked: list[float] = []

    def send(seconds: float) -> bool:
        asked.append(seconds)
        time.sleep(0.02)
        return False

    tasks.drained(send, lambda: rings.append(1), threading.Event())
    assert rings == [1] and asked and tasks.EXPIRES_SECONDS <= 60


def test_task_of_a_worker_that_stops_leaves_the_rest_to_another() -> None:
    rings: list[int] = []
    stopping = threading.Event()
    stopping.set()
    tasks.drained(lambda seconds: False, lambda: rings.append(1), stopping)
    assert rings == [1]
