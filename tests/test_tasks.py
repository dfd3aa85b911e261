"""The web process's end of a broker: whatever that does, signups go on and the process can stop."""

import asyncio
import socket
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
