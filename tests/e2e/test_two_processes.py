"""Two processes on one database: no mail is sent by both, and each takes over what the other leaves."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import ForkedServer, Server, wait_until
from tests.e2e.relay import CONNECTIONS, IN_FLIGHT, Gate, Place, placed, slow
from tests.e2e.visitors import Visitors
from tests.smtpd import Rule, Smtpd, accept, reply

pytestmark = pytest.mark.e2e


@pytest.fixture
def place(tmp_path: Path, keeps: dict[str, str]) -> Iterator[Place]:
    with placed(tmp_path, Smtpd(extensions=["SIZE 1000000", "PIPELINING"]), **keeps) as place:
        yield place


@pytest.fixture
def second(place: Place, tmp_path: Path) -> Iterator[Server]:
    """Another process with the same data, not started yet."""
    second = ForkedServer(place.environ, tmp_path / "second.log")
    yield second
    second.kill()


def stopped_at(place: Place, gate: Gate, *visitors: str) -> list[str]:
    """These sign up at the first server, whose connections stand at the gate then."""
    emails = place.sign_up(*visitors)
    wait_until(lambda: gate.stopped >= min(CONNECTIONS, 2 * len(visitors)))
    return emails


def test_one_is_stopped_under_load(place: Place, second: Server) -> None:
    pending = "SELECT count(*) FROM outbox WHERE state = 'pending'"
    leased = "SELECT count(*) FROM outbox WHERE lease_owner = $1"
    place.server.start()
    gate = Gate(accept)
    place.smtpd.on("dot", gate)
    accepted = stopped_at(place, gate, "only-one")
    ((first,),) = place.query("SELECT DISTINCT lease_owner FROM outbox")
    place.smtpd.rules = [Rule("dot", slow(0.02))]
    gate.open()
    second.start()

    here, there = Visitors(place.server.url, "here"), Visitors(second.url, "there")
    with here.posting(2), there.posting(2):
        wait_until(lambda: min(len(here.accepted), len(there.accepted)) >= 40)
        # so slow now that it has leased more than it can send while it stops
        place.smtpd.rules = [Rule("dot", slow(1.0))]
        wait_until(lambda: place.query(pending)[0][0] >= 100)
        assert place.server.end() == 0
        place.smtpd.rules = []
        assert place.query(leased, first) == [(0,)]  # it handed over, and at once
        so_far = len(there.accepted)
        wait_until(lambda: len(there.accepted) > so_far)
    place.check(accepted + here.accepted + there.accepted)
    assert place.doubles == 0
    assert second.end() == 0
    assert all("mail.sent" in log and "Traceback" not in log for log in (place.server.log, second.log))


def test_one_is_killed_under_load(place: Place, second: Server) -> None:
    place.server.launch()
    second.start()  # both at once: whoever comes first makes the database
    place.server.wait()
    visitors = Visitors(second.url)
    with visitors.posting(2):
        gate = Gate(reply(250, "ok"))
        rule = place.smtpd.on("rcpt", gate)
        accepted = stopped_at(place, gate, *"abcde")
        place.server.end(signal.SIGKILL)
        place.smtpd.rules.remove(rule)
        gate.open()
    place.check(accepted + visitors.accepted)  # the leases of the dead have run out by themselves
    assert place.doubles <= IN_FLIGHT
    assert second.end() == 0
    assert "Traceback" not in second.log
