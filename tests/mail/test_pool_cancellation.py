"""Whoever leases may be cancelled at any moment. Afterwards no slot is lost, no connection is out of step, and no mail
is mixed up with another."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest

from server.mail.pool import Limits, Pool
from tests.conftest import eventually
from tests.smtpd import Session, Smtpd, hang, reply

SIZE = 2


@pytest.fixture
async def pool(smtpd: Smtpd) -> AsyncIterator[Pool]:
    pool = Pool(smtpd.relay(), Limits(size=SIZE, wait_seconds=5))
    await pool.open()
    yield pool
    await pool.close()


async def send(pool: Pool, number: int) -> None:
    async with pool.lease() as smtp:
        await smtp.send("site@here.example", f"{number}@there.example", f"Subject: {number}\r\n\r\n".encode())


async def cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def assert_whole(pool: Pool, smtpd: Smtpd) -> None:
    """Every slot can be leased at once, and each connection sends what it is given."""
    assert pool.stats()["leased"] == 0
    smtpd.rules.clear()
    smtpd.mails.clear()
    await asyncio.gather(*(send(pool, number) for number in range(1000, 1000 + 3 * SIZE)))
    leases = [pool.lease() for _ in range(SIZE)]
    async with asyncio.timeout(5):
        for lease in leases:
            await lease.__aenter__()
    for lease in leases:
        await lease.__aexit__(None, None, None)
    assert sorted(numbers(smtpd)) == list(range(1000, 1000 + 3 * SIZE))


def numbers(smtpd: Smtpd) -> list[int]:
    """The mails that were accepted; fails where one has another's recipient."""
    found = []
    for mail in smtpd.mails:
        [recipient] = mail.recipients
        number = int(recipient.partition("@")[0])
        assert mail.data == f"Subject: {number}\r\n\r\n".encode()
        found.append(number)
    return found


async def test_cancelled_while_waiting_for_a_slot(pool: Pool, smtpd: Smtpd) -> None:
    async with pool.lease(), pool.lease():
        waiting = [asyncio.create_task(send(pool, number)) for number in range(5)]
        await asyncio.sleep(0.01)
        for task in waiting:
            await cancel(task)
    assert smtpd.mails == []
    await assert_whole(pool, smtpd)


async def test_cancelled_in_the_moment_a_slot_is_free(pool: Pool, smtpd: Smtpd) -> None:
    async with pool.lease():
        async with pool.lease():
            waiting = asyncio.create_task(send(pool, 1))
            await asyncio.sleep(0.01)
        await cancel(waiting)  # woken, but not yet run
    await assert_whole(pool, smtpd)


@pytest.mark.parametrize("step", ["greeting", "ehlo"])
async def test_cancelled_while_connecting(pool: Pool, smtpd: Smtpd, step: str) -> None:
    smtpd.on(step, hang)
    async with pool.lease():
        connecting = asyncio.create_task(send(pool, 1))
        await eventually(lambda: smtpd.connections == 2)
        await asyncio.sleep(0.01)
        assert pool.stats()["leased"] == 2
        await cancel(connecting)
        await eventually(lambda: smtpd.open == 1)
    await assert_whole(pool, smtpd)


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "body", "dot", "rset"])
async def test_cancelled_while_the_server_thinks(pool: Pool, smtpd: Smtpd, step: str) -> None:
    reached = asyncio.Event()

    async def think(session: Session) -> None:
        if step == "body":
            await session.reader.read(1)  # the client is past the 354
        reached.set()
        await hang(session)

    if step == "rset":
        smtpd.on("rcpt", reply(550))
    smtpd.on(step, think)
    sending = asyncio.create_task(send(pool, 1))
    await reached.wait()
    await cancel(sending)
    assert pool.stats()["leased"] == pool.stats()["idle"] == 0
    await eventually(lambda: smtpd.open == 0)
    await assert_whole(pool, smtpd)


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "dot"])
async def test_reply_that_comes_after_the_cancelling_is_nobody_elses(pool: Pool, smtpd: Smtpd, step: str) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def late(session: Session) -> None:
        reached.set()
        await go_on.wait()
        await session.say(550, "meant for the first mail")

    smtpd.on(step, late, times=1)
    sending = asyncio.create_task(send(pool, 1))
    await reached.wait()
    await cancel(sending)
    go_on.set()
    await asyncio.gather(*(send(pool, number) for number in range(2, 8)))
    assert sorted(numbers(smtpd)) == list(range(2, 8))
    await assert_whole(pool, smtpd)


async def test_cancelled_while_probing(pool: Pool, smtpd: Smtpd) -> None:
    smtpd.on("noop", hang)
    probing = asyncio.create_task(pool.probe())
    await eventually(lambda: smtpd.commands["NOOP"] == 2)  # the first was open()'s
    await cancel(probing)
    await assert_whole(pool, smtpd)


async def test_cancelled_while_others_say_goodbye(smtpd: Smtpd) -> None:
    smtpd.on("quit", hang)
    pool = Pool(smtpd.relay(), Limits(size=1, max_messages=1))
    await pool.open()
    await send(pool, 1)
    waiting = asyncio.create_task(send(pool, 2))
    await eventually(lambda: smtpd.commands["QUIT"] == 1)
    await cancel(waiting)
    await send(pool, 3)
    assert numbers(smtpd) == [1, 3]
    await pool.close()


async def test_open_that_is_cancelled_leaves_nothing_running(smtpd: Smtpd) -> None:
    smtpd.on("greeting", hang)
    pool = Pool(smtpd.relay())
    before = len(asyncio.all_tasks())
    opening = asyncio.create_task(pool.open(wait_seconds=60))
    await eventually(lambda: smtpd.connections == 1)
    await cancel(opening)
    await eventually(lambda: smtpd.open == 0)
    await eventually(lambda: len(asyncio.all_tasks()) <= before)
    assert "closed" in repr(pool)


@pytest.mark.parametrize("seed", range(10))
async def test_cancelled_at_any_moment(pool: Pool, smtpd: Smtpd, seed: int) -> None:
    random = Random(seed)
    tasks = []
    for number in range(60):
        tasks.append(task := asyncio.create_task(send(pool, number)))
        if random.random() < 0.5:
            asyncio.get_running_loop().call_later(random.random() * 0.03, task.cancel)
        await asyncio.sleep(random.random() * 0.002)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [end for end in ends if end is not None]
    assert all(isinstance(end, asyncio.CancelledError) for end in failed)
    accepted = numbers(smtpd)
    assert len(accepted) == len(set(accepted))
    assert {number for number, end in enumerate(ends) if end is None} <= set(accepted)
    assert smtpd.most_open <= SIZE + len(failed)  # a cut one may still be seen by the server
    await assert_whole(pool, smtpd)
