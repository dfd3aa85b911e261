"""What an operator does while the server runs, each command a process of its own."""

import json
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import HTTP, Server, wait_until
from tests.e2e.fork import Forked

pytestmark = pytest.mark.e2e


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    """One client that posts all the time, which a server would soon refuse."""
    return {**environ, "DOORBELL_LIMITS": "off"}


@pytest.fixture
def doorbell(environ: dict[str, str], tmp_path: Path) -> Callable[..., Any]:
    """Runs a `mail` command, which must succeed; answers the JSON that it prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DOORBELL_")}

    def run(*arguments: str) -> Any:
        out, errors = tmp_path / "out", tmp_path / "errors"
        out.unlink(missing_ok=True)
        command = Forked(["mail", *arguments, "--json"], {**clean, **environ}, out, errors)
        assert command.wait(timeout=100) == 0, errors.read_text()
        objects = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
        return objects if arguments[0] == "list" else objects[0]

    return run


def alter(server: Server, statement: str) -> list[Any]:
    connection = sqlite3.connect(server.data / "doorbell.db", timeout=60)
    with connection:
        found = connection.execute(statement).fetchall()
    connection.close()
    return found


def count(server: Server, state: str) -> int:
    """How many mails are so, by the file: each command is a process, that takes its time to start."""
    [[found]] = alter(server, f"SELECT count(*) FROM outbox WHERE state = '{state}'")
    return int(found)


def sent(server: Server, mails: int) -> None:
    """Waits until so many are."""
    wait_until(lambda: count(server, "sent") == mails)


def test_failed_mail_is_retried_and_sent(forked: Server, doorbell: Callable[..., Any]) -> None:
    forked.start()
    forked.sign_up("visitor@example.com")
    sent(forked, 2)
    assert len(forked.mails()) == 2
    alter(forked, "UPDATE outbox SET state = 'failed', outcome = 'failed' WHERE kind = 'welcome'")
    [failed] = doorbell("list", "--state", "failed")
    assert doorbell("retry", str(failed["id"])) == {"retried": 1, "left": []}
    sent(forked, 2)
    assert [str(mail["Delivered-To"]) for mail in forked.mails()].count("visitor@example.com") == 2
    assert [one["outcome"] for one in doorbell("show", str(failed["id"]))["attempts"]] == ["sent", "sent"]


def test_cancelled_mail_is_not_sent(forked: Server, doorbell: Callable[..., Any]) -> None:
    forked.start()
    forked.sign_up("visitor@example.com")
    sent(forked, 2)
    alter(forked, "UPDATE outbox SET state = 'pending', outcome = NULL, due_at = due_at + 9999 WHERE kind = 'welcome'")
    assert doorbell("cancel", "--to", "visitor@example.com") == {"cancelled": 1, "left": []}
    alter(forked, "UPDATE outbox SET due_at = 0")
    assert forked.sign_up("other@example.com").status_code == 202
    sent(forked, 3)  # the server has looked at what is due
    assert [mail["state"] for mail in doorbell("list", "--to", "visitor@example.com")] == ["cancelled"]
    assert len(forked.mails()) == 4


def test_commands_hold_up_no_signup(forked: Server, doorbell: Callable[..., Any]) -> None:
    forked.start()
    answers: list[int] = []
    stop = threading.Event()

    def post() -> None:
        while not stop.wait(0.02):
            answers.append(forked.sign_up(f"visitor-{len(answers)}@example.com").status_code)

    posting = threading.Thread(target=post)
    posting.start()
    wait_until(lambda: count(forked, "sent") > 100)
    assert len(doorbell("list", "--limit", "1000")) > 100
    purged = doorbell("purge", "--older-than", "0", "--yes")["purged"]
    doorbell("cancel", "--all", "--yes")
    doorbell("retry", "--state", "cancelled")
    stop.set()
    posting.join()
    assert set(answers) == {202} and purged > 0
    wait_until(lambda: count(forked, "pending") == 0)
    assert {mail["state"] for mail in doorbell("list", "--limit", "100000")} == {"sent"}
    scraped = HTTP.get(f"{forked.url}/metrics").text
    assert f'doorbell_signups_total{{site="bikes"}} {len(answers)}.0\n' in scraped
    assert f'doorbell_outbox_mails{{state="sent"}} {2 * len(answers)}.0\n' in scraped


def test_what_was_purged_is_told_and_stays_so(forked: Server, doorbell: Callable[..., Any]) -> None:
    forked.start()
    forked.sign_up("visitor@example.com")
    sent(forked, 2)
    assert doorbell("purge", "--older-than", "0", "--yes") == {"purged": 2}
    assert doorbell("show", "1")["message"] is None
    alter(forked, "UPDATE outbox SET state = 'failed', outcome = 'failed' WHERE id = 1")
    result = doorbell("retry", "--state", "failed")
    assert result["retried"] == 0 and "purged" in result["left"][0]["reason"]
    assert [state["state"] for state in doorbell("list")] == ["sent", "failed"]
