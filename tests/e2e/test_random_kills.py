"""SIGKILL at random moments while signups come in: what was accepted is delivered, and little of it twice."""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import wait_until
from tests.e2e.relay import IN_FLIGHT, Place, placed, slow
from tests.e2e.visitors import Visitors
from tests.smtpd import Smtpd

pytestmark = [pytest.mark.e2e, pytest.mark.soak]


@pytest.mark.timeout(7200)
def test_random_kills(tmp_path: Path, keeps: dict[str, str], soak: bool, capsys: pytest.CaptureFixture[str]) -> None:
    rounds = 60 if soak else 6
    chance = random.Random(rounds)
    smtpd = Smtpd(extensions=["SIZE 1000000", "PIPELINING"])
    smtpd.on("dot", slow(0.02))
    with placed(tmp_path, smtpd, **keeps) as place:
        visitors = Visitors(place.server.url)
        with visitors.posting(3):
            for number in range(rounds):
                kill_once(place, visitors, chance, while_it_starts=number % 5 == 4)
        place.server.start()
        if not soak:
            place.end_leases()
            visitors.accepted += place.sign_up("last")  # wakes it
        place.check(visitors.accepted)
        assert place.server.end() == 0
        assert "Traceback" not in place.server.log
        bound = rounds * IN_FLIGHT
        with capsys.disabled():
            print(
                f"\n{rounds} kills: {len(visitors.accepted)} signups accepted, {len(place.taken())} mails delivered, "
                f"{place.doubles} doubles of {bound} that there may be"
            )
        assert len(visitors.accepted) >= rounds
        assert place.doubles <= bound
        assert max(place.taken().values()) <= 1 + rounds


def kill_once(place: Place, visitors: Visitors, chance: random.Random, while_it_starts: bool) -> None:
    before = len(visitors.accepted)
    if while_it_starts:
        place.server.launch()
    else:
        place.server.start()
        wait_until(lambda: len(visitors.accepted) > before + chance.randrange(20))
    time.sleep(chance.uniform(0, 1))
    assert place.server.end(signal.SIGKILL) == -signal.SIGKILL
