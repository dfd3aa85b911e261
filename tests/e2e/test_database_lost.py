"""PostgreSQL goes and comes back under load: all that was accepted is delivered, and visitors hear of 503 at worst."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import HTTP, wait_until
from tests.e2e.relay import IN_FLIGHT, placed, slow
from tests.e2e.visitors import Visitors
from tests.smtpd import Smtpd
from tests.way import Way

pytestmark = pytest.mark.e2e


class Switch:
    """A way in a thread of its own."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self._loop: Future[asyncio.AbstractEventLoop] = Future()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()))
        self._thread.start()

    async def _live(self) -> None:
        await self.way.open()
        self._loop.set_result(asyncio.get_running_loop())
        await self._end.wait()
        await self.way.close()

    def on(self) -> None:
        asyncio.run_coroutine_threadsafe(self.way.open(), self._loop.result(20)).result(20)

    def off(self) -> None:
        asyncio.run_coroutine_threadsafe(self.way.close(), self._loop.result(20)).result(20)

    def end(self) -> None:
        self._loop.result(20).call_soon_threadsafe(self._end.set)
        self._thread.join()


@pytest.fixture
def url(postgresql_url: str) -> str:
    return postgresql_url


@contextmanager
def switched(url: str) -> Iterator[tuple[Switch, str]]:
    switch = Switch(Way(url))
    try:
        switch._loop.result(20)
        yield switch, switch.way.url
    finally:
        switch.end()


def test_database_goes_and_comes_back_under_load(tmp_path: Path, url: str) -> None:
    smtpd = Smtpd()
    smtpd.on("dot", slow(0.02))
    secret = {"SECRET_KEY": "a secret of some length"}
    with switched(url) as (switch, way), placed(tmp_path, smtpd, DATABASE_URL=way, **secret) as place:
        place.environ["DOORBELL_DATABASE_URL"] = url  # for us, who look at it past the way
        place.server.start()
        visitors = Visitors(place.server.url)
        with visitors.posting(3):
            for seconds in (0.2, 2.0, 8.0):  # the last is longer than anybody waits for it
                so_far = len(visitors.accepted)
                wait_until(lambda so_far=so_far: len(visitors.accepted) > so_far + 20)  # type: ignore[misc]
                switch.off()
                time.sleep(seconds)
                if seconds > 5:
                    away = HTTP.get(f"{place.server.url}/readyz", timeout=30)
                    assert (away.status_code, away.json()["ready"], away.json()["database"]) == (
                        503,
                        False,
                        "unavailable",
                    )
                switch.on()
            so_far = len(visitors.accepted)
            wait_until(lambda: len(visitors.accepted) > so_far + 20)
        assert set(visitors.refused) == {503}
        place.check(visitors.accepted)
        assert place.doubles <= 3 * IN_FLIGHT
        assert HTTP.get(f"{place.server.url}/readyz").json()["ready"] is True
        assert place.server.end() == 0
        assert "Traceback" not in place.server.log
