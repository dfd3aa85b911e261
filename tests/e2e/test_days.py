"""A day goes by, or the clock says so: no mail is lost or late for it."""

import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import HTTP, free_port, wait_until
from tests.e2e.relay import CONNECTIONS, Gate, in_thread, placed
from tests.smtpd import Smtpd, accept, reply

pytestmark = pytest.mark.e2e

DAY = 86400.0


def test_relay_is_down_for_a_day(tmp_path: Path) -> None:
    port = free_port()
    with placed(tmp_path, Smtpd(), SMTP_URL=f"smtp://127.0.0.1:{port}") as place:
        place.server.start()
        accepted = place.sign_up("one", "two", "three")
        wait_until(lambda: "smtp.held" in place.server.log)
        ready = HTTP.get(f"{place.server.url}/readyz")
        assert (ready.status_code, ready.json()["smtp"], ready.json()["pending_mails"]) == (200, "unavailable", 6)
        assert place.server.end() == 0
        place.jump(-DAY)
        with in_thread(place.smtpd, port):
            place.server.start()
            accepted += place.sign_up("next-day")
            place.check(accepted)
            assert place.server.end() == 0
        assert place.doubles == 0
        assert place.query("SELECT DISTINCT attempts, uncertain FROM outbox") == [(1, 0)]  # to be held is no attempt
        assert "Traceback" not in place.server.log


@pytest.mark.parametrize("seconds", [DAY, -DAY], ids=["set back", "set forward"])
def test_clock_jumps(tmp_path: Path, seconds: float) -> None:
    with placed(tmp_path, Smtpd()) as place:
        place.server.start()
        running = Gate(accept)
        rule = place.smtpd.on("dot", running)
        accepted = place.sign_up("running-1", "running-2")
        wait_until(lambda: running.stopped == CONNECTIONS)
        place.jump(seconds)
        accepted += place.sign_up("running-3")  # it looks for what is due
        place.smtpd.rules.remove(rule)
        running.open()
        place.check(accepted)

        killed = Gate(reply(250, "ok"))
        place.smtpd.on("rcpt", killed)
        accepted += place.sign_up("killed-1", "killed-2")
        wait_until(lambda: killed.stopped == CONNECTIONS)
        place.server.end(signal.SIGKILL)
        place.smtpd.rules.clear()
        killed.open()
        place.jump(seconds)
        place.server.start()
        place.check(accepted)
        assert place.doubles == 0
        assert place.server.end() == 0
        assert "Traceback" not in place.server.log
