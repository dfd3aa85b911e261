"""Turns: no domain holds up the others, no mail is forgotten, and a domain that takes nothing rests."""

import asyncio
from collections import Counter
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.db import Database
from server.outbox import fairness, retry
from server.outbox.fairness import LONGEST_REST_SECONDS, REMEMBERED, REST_AFTER, REST_SECONDS, Turns
from server.outbox.store import Claimed
from tests.conftest import eventually
from tests.outbox.conftest import add, office, rows
from tests.smtpd import Session, Smtpd, hang, reply

_numbers = count(1)


def claimed(domain: str) -> Claimed:
    return Claimed(
        b"", next(_numbers), "bikes", "welcome", "a@here.example", f"b@{domain}", domain, True, 0, 0.0, None, None
    )


def take(turns: Turns) -> str | None:
    row = turns.take()
    return row.domain if row else None


def test_domains_take_turns() -> None:
    turns = Turns(10)
    assert turns.add([claimed(domain) for domain in "aaabbc"]) == []
    assert [take(turns) for _ in range(7)] == ["a", "b", "c", "a", "b", "a", None]


def test_domain_that_nobody_knows_has_half_of_what_may_be_on_its_way() -> None:
    turns = Turns(4)
    turns.add(claimed("a") for _ in range(3))
    assert [take(turns) for _ in range(3)] == ["a", "a", None]
    turns.landed("a", None)  # says nothing
    assert [take(turns) for _ in range(2)] == ["a", None]


def test_domain_that_takes_mail_may_have_all() -> None:
    turns = Turns(4)
    turns.add(claimed("a") for _ in range(4))
    take(turns)
    turns.landed("a", True)
    assert turns.add([claimed("a") for _ in range(50)]) == []
    assert [take(turns) for _ in range(5)] == ["a", "a", "a", "a", None]
    assert turns.full() == []


def test_domain_after_a_fault_has_one() -> None:
    turns = Turns(4)
    turns.add(claimed("a") for _ in range(4))
    assert [take(turns) for _ in range(2)] == ["a", "a"]
    assert turns.landed("a", False) is None
    assert take(turns) is None
    turns.landed("a", False)
    assert [take(turns) for _ in range(2)] == ["a", None]


def test_what_waits_in_vain_is_given_back_and_asked_for_no_more() -> None:
    turns = Turns(4)
    mails = [claimed("dead") for _ in range(10)]
    surplus = turns.add([*mails, claimed("well")])
    assert {row.id for row in surplus} == {row.id for row in mails[4:]}
    assert turns.full() == ["dead"] and turns.waiting == 5


def test_domain_rests_after_faults_in_a_row_and_longer_each_time() -> None:
    turns, rests = Turns(4), []
    for _ in range(REST_AFTER + 6):
        turns.add([claimed("a")])
        take(turns)
        rests.append(turns.landed("a", False))
    assert rests[:REST_AFTER] == [None, None, REST_SECONDS]
    assert rests[REST_AFTER:] == [min(REST_SECONDS * 2**n, LONGEST_REST_SECONDS) for n in range(1, 7)]
    turns.add([claimed("a")])
    take(turns)
    assert turns.landed("a", True) is None
    turns.add([claimed("a")])
    take(turns)
    assert turns.landed("a", False) is None  # counted from new


def test_domains_that_anybody_made_up_do_not_fill_memory() -> None:
    turns = Turns(4)
    turns.add([claimed("waits")])
    for number in range(3 * REMEMBERED):
        turns.add([claimed(f"{number}.example")])
        while take(turns) not in (None, f"{number}.example"):
            turns.add([claimed("waits")])
            turns.landed("waits", None)
        turns.landed(f"{number}.example", False)
    assert len(turns._domains) <= REMEMBERED and turns.waiting


class Steps:
    add, take, land, dismiss, keep = "add", "take", "land", "dismiss", "keep"


STEPS = st.lists(
    st.tuples(
        st.sampled_from([Steps.add, Steps.take, Steps.take, Steps.land, Steps.dismiss, Steps.keep]),
        st.sampled_from("abc"),
        st.sampled_from([True, False, None]),
        st.integers(1, 12),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 8))
def test_every_mail_is_in_one_place(steps: list[tuple[str, str, bool | None, int]], most: int) -> None:
    turns, waiting, away = Turns(most), set[int](), Counter[str]()
    for step, domain, well, number in steps:
        if step == Steps.add:
            mails = [claimed(domain) for _ in range(number)]
            surplus = {row.id for row in turns.add(mails)}
            waiting = (waiting | {row.id for row in mails}) - surplus
        elif step == Steps.take and (row := turns.take()):
            waiting.remove(row.id)
            away[row.domain] += 1
        elif step == Steps.land and away[domain]:
            away[domain] -= 1
            turns.landed(domain, well)
        elif step == Steps.dismiss:
            gone = {row.id for row in turns.dismiss(domain)}
            assert gone <= waiting
            waiting -= gone
        elif step == Steps.keep:
            turns.keep(lambda id: id % 3 != 0)
            waiting = {id for id in waiting if id % 3}
        assert turns.waiting == len(waiting) and set(turns.ids()) == waiting
        assert all(number <= most for number in away.values())
    assert {row.id for row in turns.clear()} == waiting and turns.waiting == 0


# -- in the dispatcher -------------------------------------------------------------------------------------------------


def to_dead(session: Session) -> bool:
    return session.recipients[-1].endswith("@dead.example")


async def test_domain_that_hangs_does_not_hold_up_the_rest(database: Database, smtpd: Smtpd) -> None:
    smtpd.on("rcpt", hang, when=to_dead)
    await add(database, *(f"{number}@dead.example" for number in range(200)))
    await add(database, *(f"{number}@well.example" for number in range(50)))  # due after all of those
    async with office(database, smtpd, size=4, timeout=600) as one:
        await eventually(lambda: len(smtpd.mails) == 50)
        await eventually(lambda: 1 <= one.dispatcher.in_flight <= 2)  # the others are written down
        await one.dispatcher.close(0)


@pytest.mark.usefixtures("impatient")
async def test_domain_that_refuses_everything_for_now_rests(
    database: Database, smtpd: Smtpd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fairness, "REST_SECONDS", 1000.0)
    monkeypatch.setattr(retry, "FIRST_SECONDS", 1000.0)
    smtpd.on("rcpt", reply(450, "4.4.1 no route"), when=to_dead)
    await add(database, *(f"{number}@dead.example" for number in range(30)))
    async with office(database, smtpd, size=4) as one:
        await eventually(lambda: _rested(database))
        await one.post("a@well.example")
        await eventually(lambda: len(smtpd.mails) == 1)
        # three in a row, and those that were claimed or on their way meanwhile: not all thirty
        assert 3 <= smtpd.commands["RCPT"] <= 12


async def _rested(database: Database) -> bool:
    found = [row for row in await rows(database) if row.domain == "dead.example"]
    return len({row.due_at for row in found if not row.attempts}) == 1 and sum(row.attempts for row in found) >= 3


@pytest.mark.usefixtures("impatient")
async def test_domain_that_rested_is_sent_to_when_it_is_back(database: Database, smtpd: Smtpd) -> None:
    rule = smtpd.on("rcpt", reply(450, "4.4.1 no route"), when=to_dead)
    await add(database, *(f"{number}@dead.example" for number in range(30)))
    async with office(database, smtpd, size=4) as one:
        await eventually(lambda: smtpd.commands["RCPT"] >= 5)
        smtpd.rules.remove(rule)
        await eventually(lambda: one.all_are("sent"))
    assert len(smtpd.mails) == 30


@pytest.mark.usefixtures("impatient")
async def test_relay_that_has_too_much_of_us_gets_less(database: Database, smtpd: Smtpd) -> None:
    """It takes one connection, and refuses others with 421: no mail is lost, and the breaker stays closed."""
    await add(database, *(f"a@{number}.example" for number in range(40)))

    async def one_at_a_time(session: Session) -> None:
        await session.say(*((220, "hello") if smtpd.open == 1 else (421, "4.7.0 too many connections")))

    smtpd.on("greeting", one_at_a_time)
    async with office(database, smtpd, size=4) as one:
        await eventually(lambda: one.all_are("sent"))
        assert one.dispatcher.fault is None
        assert {row.attempts for row in await rows(database)} == {1}
    assert len(smtpd.mails) == 40


@pytest.mark.usefixtures("impatient")
async def test_throttled_mail_goes_later_and_the_window_opens_again(database: Database, smtpd: Smtpd) -> None:
    smtpd.on("mail", reply(454, "4.7.0 throttled"), times=6)
    await add(database, *(f"a@{number}.example" for number in range(40)))
    async with office(database, smtpd, size=4) as one:
        await eventually(lambda: one.dispatcher.window.allowed < 4)
        await eventually(lambda: one.all_are("sent"))
        assert one.dispatcher.window.allowed > 1
    assert len(smtpd.mails) == 40
    await asyncio.sleep(0)
