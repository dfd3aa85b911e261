"""Pool and outbox as a state machine: post, send, cut, cancel, fail, stop, die, let leases run out, jump; in any order.

Afterwards, with a relay that works: every mail has ended as it should, none is lost, and the doubles are accounted for.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import func, select, text

from server.db import Database
from server.db.tables import attempts, outbox
from server.mail.pool import Limits, Pool
from server.outbox import dispatcher as module
from server.outbox.dispatcher import Dispatcher
from tests import postgresql, provision
from tests.conftest import eventually, skip_or_fail
from tests.outbox.conftest import add, run
from tests.smtpd import (
    Act,
    Smtpd,
    accept_and_close,
    accept_silently,
    close,
    cut_after,
    farewell,
    hang,
    reply,
    reset,
)

T = TypeVar("T")

SIZE = 2
FAULTS: list[tuple[str, Act]] = [
    ("greeting", close),
    ("greeting", reply(554)),
    ("mail", farewell()),
    ("mail", reply(454)),
    ("mail", hang),
    ("rcpt", reply(451, "4.7.1 greylisted")),
    ("rcpt", reset),
    ("rcpt", reply(550, "5.7.1 no")),
    ("data", close),
    ("data", reply(451)),
    ("body", cut_after(20)),
    ("dot", reply(554)),
    ("dot", close),
    ("dot", accept_silently),
    ("dot", accept_and_close),
    ("dot", hang),
]


class _Process:
    """A process's part in the delivery: an engine of its own on the shared database, a pool, a dispatcher."""

    def __init__(self, url: str, smtpd: Smtpd) -> None:
        self.database = Database(url)
        self.pool = Pool(smtpd.relay(timeout=0.3, content_timeout=0.3), Limits(size=SIZE, max_messages=5))
        self.dispatcher = Dispatcher(self.database, self.pool)
        for one in (self.dispatcher.breaker, self.dispatcher.window):
            one.first_seconds = one.longest_seconds = 0.02

    async def open(self) -> None:
        await self.pool.open(0.1)
        await self.dispatcher.open()

    async def close(self) -> None:
        await self.dispatcher.close(0.2)
        await self.pool.close()
        await self.database.close()

    async def die(self) -> int:
        """As by SIGKILL: nothing more is done, nothing given back. Answers how much was in flight."""
        dispatcher, in_flight = self.dispatcher, self.dispatcher.in_flight
        dispatcher._closing = True
        tasks = [*dispatcher._sending.values(), *dispatcher._settling.values(), *dispatcher._tasks]
        for connection in self.pool._leased:
            connection.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.pool.close()
        await self.database.close()
        return in_flight


@contextmanager
def _file() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield provision.database(Path(folder) / "outbox.db")


class Delivery(RuleBasedStateMachine):
    @initialize(pipelined=st.booleans())
    def begin(self, pipelined: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.lending = self.lent()
        self.url = self.lending.__enter__()
        self.smtpd = Smtpd(extensions=["PIPELINING"] if pipelined else [])
        self.processes: list[_Process] = []
        self.posted = 0
        self.died_with = 0
        self.poll, module.POLL_SECONDS = module.POLL_SECONDS, 0.02
        self.listening = self.smtpd.listening()
        self.do(self.listening.__aenter__())
        self.database = Database(self.url)

    def lent(self) -> AbstractContextManager[str]:
        return _file()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    # -- what can happen -----------------------------------------------------------------------------------------------

    @rule(number=st.integers(1, 6), domain=st.sampled_from(["x.example", "y.example"]))
    def post(self, number: int, domain: str) -> None:
        self.do(add(self.database, *(f"{self.posted + one}@{domain}" for one in range(number))))
        self.posted += number
        for process in self.processes:
            process.dispatcher.wake()

    @rule(fault=st.sampled_from(FAULTS), times=st.integers(1, 3))
    def misbehave(self, fault: tuple[str, Act], times: int) -> None:
        self.smtpd.on(*fault, times=times)

    @rule()
    def start(self) -> None:
        if len(self.processes) < 2:
            self.processes.append(_Process(self.url, self.smtpd))
            self.do(self.processes[-1].open())

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.05, 0.2]))
    def go_on(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    @rule()
    def stop(self) -> None:
        if self.processes:
            self.do(self.processes.pop(0).close())

    @rule()
    def die(self) -> None:
        if self.processes:
            self.died_with += self.do(self.processes.pop(0).die())

    @rule()
    def cancel_one_that_is_being_sent(self) -> None:
        for process in self.processes:
            for task in list(process.dispatcher._sending.values())[:1]:
                task.cancel()
        self.do(asyncio.sleep(0))

    @rule()
    def time_passes(self) -> None:
        self.do(run(self.database, "UPDATE outbox SET due_at = due_at - 40000, created_at = created_at - 40000"))

    @rule()
    def leases_of_the_dead_run_out(self) -> None:
        self.do(self._expire())

    async def _expire(self) -> None:
        alive = [process.dispatcher.owner for process in self.processes] or [""]
        names = ", ".join(f"'{owner}'" for owner in alive)
        await run(self.database, f"UPDATE outbox SET lease_until = 0 WHERE lease_owner NOT IN ({names})")

    # -- what always holds ---------------------------------------------------------------------------------------------

    @invariant()
    def no_pool_is_larger_than_it_may_be(self) -> None:
        for process in getattr(self, "processes", []):
            stats = process.pool.stats()
            assert stats["leased"] <= SIZE and stats["idle"] + stats["leased"] <= SIZE
            assert len(process.dispatcher._sending) <= SIZE
            assert process.dispatcher.in_flight <= SIZE + module.UNSETTLED * SIZE

    @invariant()
    def rows_and_the_log_agree(self) -> None:
        if not hasattr(self, "database"):
            return
        for row in self.rows():
            log = row.ends.split() if row.ends else []
            assert row.attempts == sum(end != "held" for end in log), (row, log)
            assert row.uncertain == log.count("uncertain")
            assert (row.state in ("sent", "failed")) == (row.settled_at is not None)
            assert (row.state == "sent") == ("sent" in log)
            assert row.state == "pending" or row.lease_owner is None

    def rows(self) -> list[Any]:
        ends = select(func.aggregate_strings(attempts.c.outcome, " ")).where(attempts.c.outbox_id == outbox.c.id)
        query = select(outbox, ends.scalar_subquery().label("ends"))
        return self.do(self.database.read(lambda connection: list(connection.execute(query))))

    # -- the end -------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "database"):
            return
        try:
            self._finish()
        finally:
            module.POLL_SECONDS = self.poll
            self.do(self.database.close())
            self.do(self.listening.__aexit__(None, None, None))
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            self.lending.__exit__(None, None, None)

    def _finish(self) -> None:
        for process in self.processes:
            self.do(process.close())
        self.processes.clear()
        self.smtpd.rules.clear()
        self.do(self._expire())
        last = _Process(self.url, self.smtpd)
        self.do(last.open())
        self.do(eventually(lambda: self._all_ended(last), 60))
        self.do(last.close())
        arrived = Counter(to for mail in self.smtpd.mails for to in mail.recipients)
        found = self.rows()
        assert len(found) == self.posted
        for row in found:
            assert row.state in ("sent", "failed") and row.lease_owner is None
            assert arrived[row.recipient] >= (row.state == "sent")
        # Each double was uncertain, or in flight when a process died.
        doubles = sum(arrived.values()) - len(arrived)
        assert doubles <= sum(row.uncertain for row in found) + self.died_with
        content = {(mail.recipients[0], mail.data) for mail in self.smtpd.mails}
        assert len(content) == len(arrived)

    async def _all_ended(self, last: _Process) -> bool:
        await run(self.database, "UPDATE outbox SET due_at = 0 WHERE state = 'pending'")
        last.dispatcher.wake()
        query = text("SELECT count(*) FROM outbox WHERE state = 'pending'")
        return bool(await self.database.read(lambda connection: connection.execute(query).scalar_one() == 0))


class SharedDelivery(Delivery):
    def lent(self) -> AbstractContextManager[str]:
        if reason := postgresql.missing():
            skip_or_fail(reason)
        return postgresql.lent()


TestDelivery = pytest.mark.soak(Delivery.TestCase)
TestSharedDelivery = pytest.mark.soak(SharedDelivery.TestCase)
if settings.get_current_profile_name() != "soak":
    TestDelivery.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)
    TestSharedDelivery.settings = settings(max_examples=6, stateful_step_count=25, deadline=None)
