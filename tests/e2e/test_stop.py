"""SIGTERM while mails are on their way: what the relay answers in time is written down; what it does not is told."""

from pathlib import Path

import pytest

from tests.e2e.conftest import wait_until
from tests.e2e.relay import CONNECTIONS, Gate, placed, slow
from tests.e2e.visitors import Visitors
from tests.smtpd import Smtpd, accept, late

pytestmark = pytest.mark.e2e


def test_slow_relay_under_load(tmp_path: Path) -> None:
    smtpd = Smtpd(extensions=["SIZE 1000000", "PIPELINING"])
    smtpd.on("rcpt", late(0.3, 250))
    smtpd.on("dot", slow(0.5))
    with placed(tmp_path, smtpd) as place:
        visitors = Visitors(place.server.url)
        place.server.start()
        with visitors.posting(3):
            wait_until(lambda: len(visitors.accepted) >= 20 and len(smtpd.mails) >= CONNECTIONS)
            assert place.server.end() == 0
        sent = {id for (id,) in place.query("SELECT message_id FROM outbox WHERE state = 'sent'")}
        assert sent == set(place.taken())
        assert place.query("SELECT count(*) FROM outbox WHERE lease_owner IS NOT NULL") == [(0,)]
        assert not place.settled()  # there was more to do
        smtpd.rules.clear()
        place.server.start()
        place.check(visitors.accepted)
        assert place.doubles == 0
        assert place.server.end() == 0
        assert "Traceback" not in place.server.log


def test_relay_that_answers_too_late(tmp_path: Path) -> None:
    with placed(tmp_path, Smtpd()) as place:
        place.server.start()
        gate = Gate(accept)
        rule = place.smtpd.on("dot", gate)
        accepted = place.sign_up("one", "two")
        wait_until(lambda: gate.stopped == CONNECTIONS)
        assert place.server.end() == 0  # after the grace time
        written = "state, outcome, attempts, uncertain, reply, lease_owner"
        assert place.query(f"SELECT DISTINCT {written} FROM outbox") == [
            ("pending", "uncertain", 1, 1, "content: stopped before the reply", None)
        ]
        place.smtpd.rules.remove(rule)
        gate.open()
        place.query("UPDATE outbox SET due_at = 0")
        place.server.start()
        place.check(accepted)
        assert list(place.taken().values()) == [2] * CONNECTIONS
        assert place.query("SELECT DISTINCT attempts, uncertain FROM outbox") == [(2, 1)]
        assert place.server.end() == 0
        assert "Traceback" not in place.server.log
