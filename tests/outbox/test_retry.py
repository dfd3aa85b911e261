"""How long a mail waits, when it has had its chances, and the breaker of the relay."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.outbox import retry
from server.outbox.retry import Breaker, Window, delay, exhausted

DAY = 86400.0


@given(st.integers(0, 10_000))
def test_delay_lies_between_three_quarters_and_all_of_it(attempts: int) -> None:
    longest = min(60 * 2 ** min(attempts, 20), 6 * 3600)
    assert 0.75 * longest <= delay(attempts) <= longest


def test_delay_doubles_up_to_six_hours() -> None:
    longest = [max(delay(attempts) for _ in range(200)) for attempts in range(12)]
    assert all(1.7 < later / earlier < 2.3 for earlier, later in pairwise(longest[:8]))
    assert 5.8 * 3600 < longest[-1] <= 6 * 3600


def test_mails_that_failed_together_do_not_come_back_together() -> None:
    assert len({delay(3) for _ in range(20)}) == 20


@pytest.mark.parametrize(
    ("attempts", "days", "over"),
    [(1, 0, False), (30, 4.9, False), (30, 5.1, True), (1, 100, False), (11, 5.1, False), (12, 5.1, True)],
)
def test_chances_are_days_and_attempts(attempts: int, days: float, over: bool) -> None:
    assert exhausted(attempts, days * DAY) is over


def test_five_days_of_refusals_are_more_attempts_than_it_takes() -> None:
    waited, attempts = 0.0, 0
    while waited < retry.GIVE_UP_SECONDS:
        waited += delay(attempts)
        attempts += 1
    assert attempts > retry.GIVE_UP_ATTEMPTS


def test_breaker_opens_and_waits_longer_each_time() -> None:
    breaker = Breaker()
    assert not breaker.open and breaker.seconds_to_probe == 0
    waits = []
    for _ in range(10):
        breaker.failed()
        waits.append(breaker.seconds_to_probe)
    assert breaker.open
    assert 0.7 < waits[0] <= 1 and 1.4 < waits[1] <= 2 and 2.9 < waits[2] <= 4
    assert all(wait <= 60 for wait in waits) and waits[-1] > 44


def test_breaker_that_failed_for_years_still_counts() -> None:
    breaker = Breaker(failures=10**6)
    breaker.failed()
    assert 44 < breaker.seconds_to_probe <= 60


def test_breaker_that_recovered_begins_anew() -> None:
    breaker = Breaker()
    for _ in range(5):
        breaker.failed()
    breaker.recovered()
    assert not breaker.open
    breaker.failed()
    assert breaker.seconds_to_probe <= 1


def test_breaker_is_due_when_its_time_has_come() -> None:
    breaker = Breaker(first_seconds=0.0)
    breaker.failed()
    assert breaker.open and breaker.seconds_to_probe == 0


# -- greylisting and the window ----------------------------------------------------------------------------------------


def test_greylisted_mail_comes_back_after_minutes_and_not_for_ever() -> None:
    assert all(300 < retry.delay(attempts, greylisted=True) < 600 for attempts in range(retry.GREYLISTED_ATTEMPTS))
    assert retry.delay(retry.GREYLISTED_ATTEMPTS, greylisted=True) > 1000


def test_window_halves_at_each_sign_and_not_for_each_mail() -> None:
    window = Window(16)
    window.slow_down()
    window.slow_down()  # the others that were on their way
    assert window.allowed == 8 and 0 < window.pause <= window.first_seconds
    for _ in range(10):
        window.resume_at = 0
        window.slow_down()
    assert window.allowed == 1
    assert window.pause <= window.longest_seconds


def test_window_opens_by_one_for_each_round_that_went_well() -> None:
    window = Window(8)
    window.slow_down()
    assert window.allowed == 4
    for _ in range(4):
        window.went_well()
    assert 4.5 < window.allowed < 5.5
    for _ in range(100):
        window.went_well()
    assert window.allowed == 8


def test_window_pauses_longer_each_time_until_something_goes_well() -> None:
    window, pauses = Window(4), []
    for _ in range(5):
        window.resume_at = 0
        window.slow_down()
        pauses.append(window.pause)
    assert all(later > earlier for earlier, later in pairwise(pauses))
    window.went_well()
    window.resume_at = 0
    window.slow_down()
    assert window.pause <= window.first_seconds
