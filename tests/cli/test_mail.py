import asyncio
import mailbox
from pathlib import Path

import pytest
from typer.testing import Result

from tests.cli.conftest import Run
from tests.conftest import add_site
from tests.smtpd import Smtpd, reply


def sent(smtpd: Smtpd, run: Run, *arguments: str, **variables: str) -> Result:
    """The test mail, sent to the scripted server."""

    async def both() -> Result:
        async with smtpd.listening():
            url = f"smtp://127.0.0.1:{smtpd.port}"
            return await asyncio.to_thread(run, "mail", "test", *arguments, SMTP_URL=url, **variables)

    return asyncio.run(both())


def test_each_step_is_shown(run: Run) -> None:
    smtpd = Smtpd()
    result = sent(smtpd, run, "a@example.com")
    assert (result.exit_code, result.stderr) == (0, "")
    words = [line.split()[0] for line in result.stdout.splitlines()]
    assert words == ["server", "connection", "sender", "recipient", "message", "Accepted"]
    (mail,) = smtpd.mails
    assert (mail.sender, mail.recipients) == ("hello@bikeshed.example", ["a@example.com"])
    assert b"Subject: A test from Doorbell\r\n" in mail.data


def test_sender_of_the_environment_comes_first(run: Run) -> None:
    smtpd = Smtpd()
    sent(smtpd, run, "a@example.com", MAIL_FROM='"Smith, Jones" <s@bikes.example>')
    (mail,) = smtpd.mails
    assert mail.sender == "s@bikes.example"
    assert b'From: "Smith, Jones" <s@bikes.example>\r\n' in mail.data


@pytest.mark.parametrize(
    ("step", "code", "word", "meaning"),
    [
        ("rcpt", 550, "recipient", "refused this mail"),
        ("rcpt", 451, "recipient", "try again later"),
        ("mail", 550, "sender", "cannot be used like this"),
        ("greeting", 554, "connection", "cannot be used like this"),
        ("dot", 554, "message", "refused this mail"),
    ],
)
def test_refusal_is_shown_with_its_step_and_meaning(run: Run, step: str, code: int, word: str, meaning: str) -> None:
    smtpd = Smtpd()
    smtpd.on(step, reply(code, "because of the weather"))
    result = sent(smtpd, run, "a@example.com")
    assert result.exit_code == 1
    last = result.stdout.splitlines()[-1]
    assert last.startswith(word) and f"{code}" in last and "because of the weather" in last
    assert meaning in result.stderr
    assert smtpd.mails == []


def test_relay_that_is_not_there(run: Run) -> None:
    result = run("mail", "test", "a@example.com", SMTP_URL="smtp://127.0.0.1:1")
    assert (result.exit_code, "Not accepted." in result.stderr) == (1, True)
    assert "DOORBELL_SMTP_URL" in result.stderr


def test_password_is_not_shown(run: Run) -> None:
    result = run("mail", "test", "a@example.com", SMTP_URL="smtp://me:hunter2@127.0.0.1:1")
    assert result.exit_code == 1
    assert "hunter2" not in result.output


def test_built_in_mailbox(run: Run, tmp_path: Path) -> None:
    result = run("mail", "test", "a@example.com")
    assert (result.exit_code, "/_mailbox/" in result.stdout) == (0, True)
    assert [mail["Delivered-To"] for mail in mailbox.Maildir(tmp_path / "var" / "mailbox")] == ["a@example.com"]


@pytest.mark.parametrize(
    "address", ["nobody", "a@localhost", "a@b.example, c@d.example", "a@example.com\r\nRCPT TO:<x>"]
)
def test_address_that_is_none(run: Run, address: str) -> None:
    result = run("mail", "test", address)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "The test mail cannot be sent:" in result.stderr


def test_sender_that_is_none(run: Run) -> None:
    result = run("mail", "test", "a@example.com", MAIL_FROM="nobody")
    assert (result.exit_code, "DOORBELL_MAIL_FROM: " in result.stderr) == (1, True)


def test_no_sender_at_all(run: Run, tmp_path: Path) -> None:
    add_site(tmp_path / "other", "lamps", 'title = "Lamps"')
    result = run("mail", "test", "a@example.com", SMTP_URL="smtp://127.0.0.1:1", SITES_DIR=str(tmp_path / "other"))
    assert (result.exit_code, "DOORBELL_MAIL_FROM is not set" in result.stderr) == (1, True)


def test_data_folder_that_cannot_be_made(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("mail", "test", "a@example.com", DATA_DIR=str(tmp_path / "file" / "var"))
    assert (result.exit_code, "The built-in mailbox cannot be used" in result.stderr) == (1, True)
