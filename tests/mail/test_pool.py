"""The pool's limits, what it reuses and what it does not, and that opening and closing never hang."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.mail.connection import Connection, Relay
from server.mail.errors import Deferred, Held, Refused, Stage
from server.mail.pool import Limits, Pool, PoolClosed
from tests.conftest import eventually
from tests.smtpd import Act, Certificates, Smtpd, accept_and_close, close, dribble, farewell, hang, reply

MESSAGE = b"Subject: Hello\r\n\r\nHow are you?\r\n"


@asynccontextmanager
async def pooled(relay: Relay, **limits: Any) -> AsyncIterator[Pool]:
    pool = Pool(relay, Limits(**limits))
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close()


async def send(pool: Pool, number: int = 0) -> None:
    async with pool.lease() as smtp:
        await smtp.send("site@here.example", f"visitor{number}@there.example", b"X-Number: %d\r\n" % number + MESSAGE)


def recipients(smtpd: Smtpd) -> set[str]:
    return {to for mail in smtpd.mails for to in mail.recipients}


# -- size ------------------------------------------------------------------------------------------------------------


async def test_size_is_never_exceeded(smtpd: Smtpd) -> None:
    async with pooled(smtpd.relay(), size=3) as pool:
        await asyncio.gather(*(send(pool, number) for number in range(60)))
        expected = {"leased": 0, "idle": 3, "size": 3, "waiting": 0, "connects": 3, "connect_failures": 0}
        assert pool.stats() == expected
    assert len(recipients(smtpd)) == len(smtpd.mails) == 60
    assert smtpd.most_open == 3


async def test_size_is_never_exceeded_while_others_say_goodbye(smtpd: Smtpd) -> None:
    async def slow_goodbye(session: Any) -> None:
        smtpd._present.add(session)  # still counts at the relay
        await asyncio.sleep(0.05)
        smtpd.leaves(session)
        await session.say(221, "bye")

    smtpd.on("quit", slow_goodbye)
    async with pooled(smtpd.relay(), size=2, max_messages=1) as pool:
        await asyncio.gather(*(send(pool, number) for number in range(12)))
    assert len(smtpd.mails) == 12
    assert smtpd.most_open == 2


async def test_size_is_never_exceeded_among_failures(smtpd: Smtpd) -> None:
    smtpd.on("mail", farewell(), when=lambda session: session.mail % 3 == 0)
    smtpd.on("rcpt", reply(550), when=lambda session: session.mail % 5 == 0)
    async with pooled(smtpd.relay(), size=2) as pool:
        ends = await asyncio.gather(*(send(pool, number) for number in range(40)), return_exceptions=True)
        assert repr(pool).endswith("open leased=0 idle=2 size=2>") or pool.stats()["idle"] < 2
        assert pool.stats()["leased"] == 0
    assert [type(end) for end in ends].count(Deferred) == 13
    assert [type(end) for end in ends].count(Refused) == 6
    assert len(smtpd.mails) == 21


async def test_who_waits_too_long_is_told(smtpd: Smtpd) -> None:
    async with pooled(smtpd.relay(), size=1, wait_seconds=0.05) as pool:
        async with pool.lease():
            with pytest.raises(TimeoutError):
                await send(pool)
        await send(pool)
    assert len(smtpd.mails) == 1


# -- rate ------------------------------------------------------------------------------------------------------------


async def test_rate_is_never_exceeded(smtpd: Smtpd) -> None:
    loop = asyncio.get_running_loop()
    async with pooled(smtpd.relay(), size=8, rate=20) as pool:
        begun = loop.time()
        await asyncio.gather(*(send(pool, number) for number in range(40)))
        assert loop.time() - begun >= 0.95  # the first twenty may come at once, the others twenty a second
    assert len(smtpd.mails) == 40


async def test_rate_below_one_a_second_lets_the_first_through(smtpd: Smtpd) -> None:
    async with pooled(smtpd.relay(), rate=0.01) as pool:
        await send(pool)
        await pool.probe()  # asks for no mail, and waits for no turn
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await send(pool)
        assert pool.stats()["leased"] == 0
    assert len(smtpd.mails) == 1


async def test_as_many_connections_as_wanted_are_ready_at_the_start(smtpd: Smtpd) -> None:
    async with pooled(smtpd.relay(), size=4, warm=3) as pool:
        assert pool.stats()["idle"] == 3 and smtpd.commands["NOOP"] == 3


async def test_who_waits_is_counted(smtpd: Smtpd) -> None:
    async with pooled(smtpd.relay(), size=1) as pool:
        async with pool.lease():
            waiting = [asyncio.create_task(send(pool, number)) for number in range(3)]
            await eventually(lambda: pool.stats()["waiting"] == 3)
        await asyncio.gather(*waiting)
        assert pool.stats()["waiting"] == 0


# -- reuse -----------------------------------------------------------------------------------------------------------


async def test_freshest_connection_is_used_first(smtpd: Smtpd) -> None:
    async with pooled(smtpd.relay(), size=3) as pool:
        async with pool.lease() as first:
            async with pool.lease() as second, pool.lease():
                pass
            async with pool.lease() as again:
                assert again is second  # left after the third
        async with pool.lease() as last:
            assert last is first
    assert smtpd.connections == 3


async def test_connection_ends_after_its_messages(smtpd: Smtpd) -> None:
    async with pooled(smtpd.relay(), size=1, max_messages=2) as pool:
        for number in range(5):
            await send(pool, number)
    assert [mail.connection for mail in smtpd.mails] == [1, 1, 2, 2, 3]
    assert smtpd.commands["QUIT"] == 3


async def test_idle_connection_is_closed_without_being_asked_for(smtpd: Smtpd) -> None:
    async with pooled(smtpd.relay(), idle_seconds=0.1) as pool:
        await send(pool)
        await eventually(lambda: pool.stats()["idle"] == 0)
        await eventually(lambda: smtpd.commands["QUIT"] == 1)
        await send(pool)
    assert smtpd.connections == 2


async def test_connection_ends_after_its_lifetime(smtpd: Smtpd) -> None:
    async with pooled(smtpd.relay(), lifetime_seconds=0.05) as pool:
        await asyncio.sleep(0.1)
        await send(pool)
    assert [mail.connection for mail in smtpd.mails] == [2]


async def test_lifetimes_differ(smtpd: Smtpd) -> None:
    async with pooled(smtpd.relay(), size=4, lifetime_seconds=1000) as pool:
        leases = [pool.lease() for _ in range(4)]
        connections = [await lease.__aenter__() for lease in leases]
        lives = {round(one.expires_at - one.used_at) for one in connections}
        for lease in leases:
            await lease.__aexit__(None, None, None)
    assert len(lives) > 1 and all(900 <= life <= 1100 for life in lives)


async def test_connection_that_the_server_closed_while_idle_is_not_handed_out(smtpd: Smtpd) -> None:
    async with pooled(smtpd.relay()) as pool:
        await send(pool, 1)
        await smtpd.stop()
        await eventually(lambda: not pool._idle[0].clean)
        await send(pool, 2)
    assert [mail.connection for mail in smtpd.mails] == [1, 2]


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "dot"])
async def test_connection_that_the_server_leaves_with_421_is_not_handed_out(smtpd: Smtpd, step: str) -> None:
    smtpd.on(step, farewell(), times=1)
    async with pooled(smtpd.relay()) as pool:
        with pytest.raises(Deferred):
            await send(pool, 1)
        assert pool.stats()["idle"] == 0
        await send(pool, 2)
    assert recipients(smtpd) == {"visitor2@there.example"}


async def test_connection_closed_after_the_250_is_not_handed_out(smtpd: Smtpd) -> None:
    smtpd.on("dot", accept_and_close)
    async with pooled(smtpd.relay(), size=1) as pool:
        for number in range(3):
            await send(pool, number)
            await eventually(lambda: not pool._idle or not pool._idle[0].clean)
    assert len(recipients(smtpd)) == 3 and smtpd.connections == 3


async def test_refused_mail_leaves_its_connection_to_the_next(smtpd: Smtpd) -> None:
    smtpd.on("rcpt", reply(550), times=1)
    async with pooled(smtpd.relay()) as pool:
        with pytest.raises(Refused):
            await send(pool, 1)
        await send(pool, 2)
    assert smtpd.connections == 1
    assert recipients(smtpd) == {"visitor2@there.example"}


async def test_exception_of_the_holder_gives_the_connection_back(smtpd: Smtpd) -> None:
    async with pooled(smtpd.relay(), size=1) as pool:
        with pytest.raises(LookupError):
            async with pool.lease():
                raise LookupError
        await send(pool)
    assert smtpd.connections == 1


# -- faults ------------------------------------------------------------------------------------------------------------


async def test_dead_relay_does_not_keep_the_pool_from_opening() -> None:
    async with pooled(Relay("127.0.0.1", 1)) as pool:
        assert isinstance(pool.fault, Held) and pool.fault.stage is Stage.CONNECT
        with pytest.raises(Held):
            await send(pool)
        assert repr(pool) == "<Pool 127.0.0.1:1 open leased=0 idle=0 size=4>"


@pytest.mark.parametrize("act", [hang, dribble])
async def test_black_hole_does_not_hang_open_nor_close(smtpd: Smtpd, act: Act) -> None:
    smtpd.on("greeting", act)
    pool = Pool(smtpd.relay(timeout=600))
    async with asyncio.timeout(10):
        await pool.open(wait_seconds=0.1)
        assert pool.stats()["leased"] == 1  # still at it
        await pool.close()
    await eventually(lambda: smtpd.open == 0)


async def test_fault_ends_with_the_first_connection_that_comes_about(smtpd: Smtpd) -> None:
    smtpd.on("greeting", close, times=2)
    async with pooled(smtpd.relay(), size=1) as pool:
        assert pool.fault is not None
        with pytest.raises(Held):
            await send(pool)
        await send(pool)
        assert pool.fault is None


async def test_failed_connects_use_up_no_slot(smtpd: Smtpd) -> None:
    smtpd.on("greeting", farewell(), times=6)
    async with pooled(smtpd.relay(), size=1, wait_seconds=1) as pool:
        for _ in range(5):
            with pytest.raises(Deferred):
                await send(pool)
        await send(pool)
        stats = pool.stats()
        assert (stats["leased"], stats["idle"], stats["connects"], stats["connect_failures"]) == (0, 1, 7, 6)


async def test_probe_asks_an_idle_connection(smtpd: Smtpd) -> None:
    async with pooled(smtpd.relay()) as pool:
        await pool.probe()
        assert smtpd.connections == 1
        smtpd.on("noop", farewell(), times=1)
        with pytest.raises(Deferred):
            await pool.probe()
        await pool.probe()
        assert smtpd.connections == 2


# -- opening and closing -----------------------------------------------------------------------------------------------


async def test_open_has_one_connection_ready(smtpd: Smtpd) -> None:
    pool = Pool(smtpd.relay())
    assert repr(pool) == f"<Pool 127.0.0.1:{smtpd.port} closed leased=0 idle=0 size=4>"
    assert smtpd.connections == 0
    await pool.open()
    assert repr(pool) == f"<Pool 127.0.0.1:{smtpd.port} open leased=0 idle=1 size=4>"
    await pool.close()
    assert repr(pool) == f"<Pool 127.0.0.1:{smtpd.port} closed leased=0 idle=0 size=4>"


async def test_close_says_goodbye_to_idle_connections(smtpd: Smtpd) -> None:
    async with pooled(smtpd.relay(), size=3) as pool, pool.lease(), pool.lease(), pool.lease():
        pass
    assert smtpd.commands["QUIT"] == 3
    await eventually(lambda: smtpd.open == 0)


async def test_close_cuts_who_still_sends(smtpd: Smtpd) -> None:
    smtpd.on("rcpt", hang)
    async with pooled(smtpd.relay(timeout=600)) as pool:
        sending = asyncio.create_task(send(pool))
        await eventually(lambda: smtpd.commands["RCPT"] == 1)
    with pytest.raises(Deferred):
        await sending
    assert pool.stats()["leased"] == 0
    await eventually(lambda: smtpd.open == 0)


async def test_closed_pool_gives_no_lease(smtpd: Smtpd) -> None:
    pool = Pool(smtpd.relay())
    with pytest.raises(PoolClosed):
        await send(pool)
    await pool.open()
    await pool.close()
    with pytest.raises(PoolClosed):
        await send(pool)


async def test_close_sends_those_away_who_wait(smtpd: Smtpd) -> None:
    async with pooled(smtpd.relay(), size=1) as pool:
        holder = pool.lease()
        await holder.__aenter__()
        waiting = asyncio.create_task(send(pool))
        await asyncio.sleep(0)
    await holder.__aexit__(None, None, None)
    with pytest.raises(PoolClosed):
        await waiting


async def test_connect_that_ends_after_close_leaves_nothing_open(smtpd: Smtpd) -> None:
    go_on = asyncio.Event()

    async def slow(session: Any) -> None:
        await go_on.wait()
        await session.say(220, "at last")

    pool = Pool(smtpd.relay())
    await pool.open()
    smtpd.on("greeting", slow)
    async with pool.lease():
        sending = asyncio.create_task(send(pool))
        await eventually(lambda: smtpd.connections == 2)
        await pool.close()
        go_on.set()
        with pytest.raises((PoolClosed, Held)):
            await sending
    await eventually(lambda: smtpd.open == 0)
    assert pool.stats()["leased"] == 0 and smtpd.mails == []


async def test_connection_that_the_kernel_made_and_that_comes_about_after_close(certificates: Certificates) -> None:
    """It cannot be cut before: until TLS is agreed there is nothing to cut."""
    smtpd = Smtpd(certificates=certificates)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        smtpd.port = listener.getsockname()[1]
        pool = Pool(smtpd.relay(tls="tls"))
        await pool.open(wait_seconds=0.01)
        sending = asyncio.create_task(send(pool))
        await eventually(lambda: pool.stats()["leased"] == 2)
        await asyncio.sleep(0.1)
        await pool.close()
        listener.setblocking(False)
        server = await asyncio.start_server(smtpd.serve, sock=listener, ssl=certificates.server)
        with pytest.raises(PoolClosed):
            await sending
        await eventually(lambda: smtpd.open == 0)
        server.close()
    assert smtpd.mails == []


async def test_close_does_not_wait_for_a_server_that_hangs(smtpd: Smtpd) -> None:
    smtpd.on("quit", hang)
    async with asyncio.timeout(10):
        async with pooled(smtpd.relay(timeout=600)) as pool, pool.lease(), pool.lease():
            pass
    assert [type(connection) for connection in pool._idle] == []


async def test_pool_can_be_opened_again(smtpd: Smtpd) -> None:
    pool = Pool(smtpd.relay(), Limits(size=1))
    for _ in range(2):
        await pool.open()
        await send(pool)
        await pool.close()
    assert len(smtpd.mails) == smtpd.connections == 2


async def test_connection_tells_its_state(smtpd: Smtpd) -> None:
    connection = Connection(smtpd.relay())
    where = f"<Connection 127.0.0.1:{smtpd.port}"
    assert repr(connection) == f"{where} closed sent=0>"
    await connection.open()
    assert repr(connection) == f"{where} clean sent=0>"
    await connection.quit()
    assert repr(connection) == f"{where} closed sent=0>"
