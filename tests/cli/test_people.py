"""`people export|erase`, on a real database and a real Maildir."""

import asyncio
import json
import stat
import threading
import time
from pathlib import Path

import pytest

from server.cli import people
from server.mail.mailbox import Mailbox
from tests.cli.conftest import Run
from tests.cli.desk import Desk
from tests.signups import HOUR

ANN, BOB = "ann@there.example", "bob@there.example"


@pytest.fixture
def box(desk: Desk) -> Mailbox:
    box = Mailbox(desk.file.parent / "mailbox")
    asyncio.run(box.open())
    for to in (ANN, BOB):
        asyncio.run(box.keep("s@here.example", [to], f"To: {to}\r\nSubject: Grüße\r\n\r\n".encode()))
    return box


def test_export_is_one_document(run: Run, desk: Desk, box: Mailbox) -> None:
    desk.sign_up(ANN, BOB, site="lamps", age=7 * HOUR, name="Zoë", news=True)
    desk.digest()
    result = run("people", "export", ANN.upper())
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert [(one["id"], one["name"], one["consents"]) for one in found["signups"]] == [
        (1, "Zoë", {"news": "Write to me when there are new lamps."})
    ]
    assert [(one["kind"], one["state"], one["attempts"]) for one in found["mails"]] == [
        ("confirm", "new", []),
        ("notice", "awaiting", []),
    ]
    assert ANN in found["mails"][1]["message"]["text"]
    assert [one["kind"] for one in found["digests"]] == ["digest"]
    assert [(one["to"], one["subject"]) for one in found["mailbox"]] == [(ANN, "Grüße")]
    assert BOB not in result.stdout


def test_export_into_a_file_that_is_nobody_elses(run: Run, desk: Desk, tmp_path: Path) -> None:
    desk.sign_up(ANN)
    result = run("people", "export", ANN, "--out", "ann.json")
    assert result.stdout == "1 signup, 2 mails, 0 digests: written to ann.json.\n"
    file = tmp_path / "ann.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text("utf-8"))["email"] == ANN
    assert list(tmp_path.glob("*.part")) == []


def test_export_where_no_file_can_be_made(run: Run, desk: Desk) -> None:
    result = run("people", "export", ANN, "--out", "no/such/folder/ann.json")
    assert result.exit_code == 1 and "cannot be written" in result.stderr


def test_erase_removes_all_and_says_what(run: Run, desk: Desk, box: Mailbox) -> None:
    desk.sign_up(ANN, BOB, site="lamps", age=7 * HOUR)
    desk.digest()
    result = run("people", "erase", ANN.title(), "--yes")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[:5] == [
        "Removed: 1 signup and 2 mails.",
        "1 digest that told of them lost the text; 1 of them had not been sent.",
        "1 other signup in those will be in the next digest.",
        "1 mail removed from the built-in mailbox.",
        "Kept: a hash of the address, which gets no more mail from lamps.",
    ]
    assert desk.sql("SELECT email FROM signups") == [(BOB,)]
    total, [left] = asyncio.run(box.newest(9))
    assert (total, left.recipient) == (1, BOB)
    assert json.loads(run("people", "export", ANN).stdout)["signups"] == []


def test_erase_again_finds_nothing(run: Run, desk: Desk) -> None:
    assert run("people", "erase", ANN, "--yes").stdout == "Nothing is held about this address.\n"
    told = json.loads(run("people", "erase", ANN, "--yes", "--json").stdout)
    assert (told["signups"], told["mailbox"]) == (0, 0)


def test_erase_asks_first(run: Run, desk: Desk) -> None:
    desk.sign_up(ANN)
    result = run("people", "erase", ANN)
    assert result.exit_code == 1 and "say --yes" in result.stderr and "1 signup, 2 mails" in result.stderr
    assert desk.sql("SELECT count(*) FROM signups") == [(1,)]


SENDING = "UPDATE outbox SET state = 'pending', lease_owner = 'A', lease_until = {} WHERE id = 1"


def test_erase_refuses_what_stays_on_its_way(run: Run, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "PATIENCE_SECONDS", 0.02)
    monkeypatch.setattr(people, "PAUSE_SECONDS", 0.01)
    desk.sign_up(ANN)
    desk.sql(SENDING.format("9e12"))
    result = run("people", "erase", ANN, "--yes")
    assert result.exit_code == 1
    assert "Mails 1 are being sent just now; waiting" in result.stderr and "Nothing was removed" in result.stderr
    assert desk.sql("SELECT count(*) FROM signups") == [(1,)]


def test_erase_waits_for_what_is_on_its_way(run: Run, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "PAUSE_SECONDS", 0.02)
    desk.sign_up(ANN)
    desk.sql(SENDING.format("9e12"))

    def end() -> None:
        time.sleep(0.3)
        desk.sql("UPDATE outbox SET state = 'sent', lease_owner = NULL, lease_until = NULL WHERE id = 1")

    sending = threading.Thread(target=end)
    sending.start()
    result = run("people", "erase", ANN, "--yes")
    sending.join()
    assert result.exit_code == 0 and desk.sql("SELECT count(*) FROM signups") == [(0,)]


@pytest.mark.parametrize("command", ["export", "erase"])
def test_what_is_no_address_is_refused(run: Run, desk: Desk, command: str) -> None:
    assert run("people", command, "nobody").exit_code == 2
