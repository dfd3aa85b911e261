"""A backup of a server under load, put back after that server was killed."""

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import wait_until
from tests.e2e.fork import Forked
from tests.e2e.relay import CONNECTIONS, Gate, Place, placed
from tests.e2e.visitors import Visitors
from tests.smtpd import Smtpd, accept

pytestmark = pytest.mark.e2e


def command(place: Place, folder: Path, *arguments: str) -> str:
    """What a command says, which must succeed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DOORBELL_")}
    out, errors = folder / f"{arguments[0]}.out", folder / f"{arguments[0]}.errors"
    process = Forked(arguments, {**clean, **place.environ}, out, errors)
    assert process.wait(timeout=100) == 0, errors.read_text()
    return out.read_text()


def saved(folder: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(folder / "doorbell.db")) as connection:
        return [value for (value,) in connection.execute(query)]


def test_backup_has_all_that_was_answered_and_mails_that_went_stay_gone(tmp_path: Path) -> None:
    data, backup = tmp_path / "var", tmp_path / "backup"
    with placed(tmp_path, Smtpd()) as place:
        place.server.start()
        place.sign_up("first", "second")
        wait_until(place.settled)
        gate = Gate(accept)  # from now on mails wait at the relay, while signups come in
        rule = place.smtpd.on("dot", gate)
        visitors = Visitors(place.server.url)
        with visitors.posting(3):
            wait_until(lambda: gate.stopped == CONNECTIONS and len(visitors.accepted) > 20)
            answered = list(visitors.accepted)
            said = command(place, tmp_path, "backup", str(backup))
            so_far = len(visitors.accepted)
            wait_until(lambda: len(visitors.accepted) > so_far + 5)
        sent = saved(backup, "SELECT message_id FROM outbox WHERE state = 'sent'")
        pending = saved(backup, "SELECT message_id FROM outbox WHERE state = 'pending'")
        kept = set(saved(backup, "SELECT email FROM signups"))
        assert {*answered, "first@example.com", "second@example.com"} <= kept
        assert len(sent) == 4 and len(pending) >= 2 * len(answered)
        assert said == f"Saved in {backup}: {len(kept)} signups, {len(pending)} pending mails.\n"

        place.smtpd.rules.remove(rule)
        gate.open()
        wait_until(place.settled, seconds=100)
        assert place.server.end(signal.SIGKILL) == -signal.SIGKILL
        secret = (data / "secret.key").read_bytes()
        data.rename(tmp_path / "lost")
        command(place, tmp_path, "restore", str(backup))
        assert (data / "secret.key").read_bytes() == secret

        place.end_leases()
        place.server.start()
        wait_until(place.settled, seconds=100)
        assert {email for (email,) in place.query("SELECT email FROM signups")} == kept
        taken = place.taken()
        assert {taken[one] for one in sent} == {1}
        assert {taken[one] for one in pending} == {2}
        assert place.sign_up("later") and place.server.end() == 0
        assert "Traceback" not in place.server.log
