"""`mail list|show|retry|cancel|purge`, on a real database and, where it matters, on a real terminal."""

import asyncio
import fcntl
import json
import os
import pty
import re
import select
import sqlite3
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from server.db import Database
from server.mail.message import Content, compose
from server.outbox import store
from tests.cli.conftest import Run
from tests.conftest import REPOSITORY

DAY = 86400


class Outbox:
    """The database of a server that does not run just now, read and written past our own code."""

    def __init__(self, file: Path) -> None:
        self.file = file
        asyncio.run(self._open())

    async def _open(self, *mails: store.Addressed) -> list[int]:
        database = Database(f"sqlite:///{self.file}")
        await database.open()
        ids = await database.transact(store.add, mails)
        await database.close()
        return ids

    def add(self, change: str = "", recipient: str = "a@there.example", site: str = "bikes", text: str = "Hi") -> int:
        """A mail; `change` is SQL that sets its columns."""
        content = Content("Grüße", text, "<p>Hi</p>")
        message = compose(content, sender="s@here.example", recipient=recipient, domain="here.example")
        [id] = asyncio.run(self._open(store.Addressed(site, None, store.Mail("welcome", message, to_visitor=True))))
        if change:
            self.sql(f"UPDATE outbox SET {change} WHERE id = {id}")
        return id

    def sql(self, statement: str) -> list[Any]:
        connection = sqlite3.connect(self.file, isolation_level=None)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    def states(self) -> list[str]:
        return [state for (state,) in self.sql("SELECT state FROM outbox ORDER BY id")]


SENT = "state = 'sent', outcome = 'sent', attempts = 1, reply = '250 ok', settled_at = created_at"
FAILED = "state = 'failed', outcome = 'failed', attempts = 12, reply = '550 no such user', settled_at = created_at"
SENDING = "lease_owner = 'A', lease_until = created_at + 999"
DEFERRED = "outcome = 'deferred', attempts = 1, reply = '451 greylisted', due_at = due_at + 340"


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "var" / "doorbell.db")


def objects(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


# -- list --------------------------------------------------------------------------------------------------------------


def test_list_is_a_table_newest_first(run: Run, outbox: Outbox) -> None:
    outbox.add(SENT)
    outbox.add(DEFERRED, "b@there.example", "lamps")
    result = run("mail", "list")
    assert (result.exit_code, result.stderr) == (0, "")
    head, first, second = result.stdout.splitlines()
    assert " ".join(head.split()) == "id state to age site kind tries next last reply"
    assert re.fullmatch(
        r"2 +deferred +b@there\.example +\d+ s +lamps +welcome +1 +in 5 min +451 greylisted", first.strip()
    )
    assert re.fullmatch(r"1 +sent +a@there\.example +\d+ s +bikes +welcome +1 +250 ok", second.strip())


def test_list_says_that_there_is_more(run: Run, outbox: Outbox) -> None:
    for _ in range(3):
        outbox.add()
    assert "The newest 2; --limit shows more." in run("mail", "list", "--limit", "2").stdout
    assert "--limit" not in run("mail", "list").stdout
    assert run("mail", "list", "--site", "none").stdout == "There are no such mails.\n"


def test_list_for_programs_is_an_object_a_line(run: Run, outbox: Outbox) -> None:
    outbox.add(SENT)
    outbox.add(SENDING)
    sending, sent = objects(run("mail", "list", "--json"))
    assert (sending["id"], sending["state"], sending["settled_at"]) == (2, "sending", None)
    assert (sent["id"], sent["state"], sent["reply"], sent["attempts"]) == (1, "sent", "250 ok", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", sent["created_at"])
    assert objects(run("mail", "list", "--json", "--site", "none")) == []


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        (["--state", "failed"], [3]),
        (["--state", "failed", "--state", "sending"], [3, 2]),
        (["--state", "pending"], [4, 2]),
        (["--site", "lamps"], [4]),
        (["--site", "lamps", "--state", "sent"], []),
        (["--to", "B@there.example"], [4]),
        (["--kind", "notice"], []),
        (["--since", "2h"], [4, 3, 2]),
        (["--since", "2d"], [4, 3, 2, 1]),
        (["--since", "2000-01-01"], [4, 3, 2, 1]),
        (["--since", "2000-01-01T12:00+02:00"], [4, 3, 2, 1]),
        (["--since", "2999-01-01"], []),
    ],
)
def test_filters(run: Run, outbox: Outbox, filter: list[str], found: list[int]) -> None:
    outbox.add(f"{SENT}, created_at = created_at - {DAY}")
    outbox.add(SENDING)
    outbox.add(FAILED)
    outbox.add(DEFERRED, "b@there.example", "lamps")
    assert [entry["id"] for entry in objects(run("mail", "list", "--json", *filter))] == found


@pytest.mark.parametrize("options", [["--state", "lost"], ["--since", "yesterday"], ["--limit", "0"]])
def test_option_that_is_wrong(run: Run, outbox: Outbox, options: list[str]) -> None:
    result = run("mail", "list", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert options[0] in result.stderr


# -- show --------------------------------------------------------------------------------------------------------------


def test_show_for_a_person(run: Run, outbox: Outbox) -> None:
    id = outbox.add(DEFERRED, text="Dear visitor,\n\nthank you.")
    outbox.sql(
        f"INSERT INTO attempts (outbox_id, outcome, reply, seconds, ended_at) VALUES ({id}, 'deferred', '451', 2, 0)"
    )
    result = run("mail", "show", str(id))
    assert result.exit_code == 0
    for line in (
        "Mail 1",
        "  state       deferred, due in 5 min",
        "  to          a@there.example",
        "  1970-01-01 00:00:00 UTC  deferred   2.00 s  451",
        "  Subject: Grüße",
        "  Dear visitor,",
        "  thank you.",
    ):
        assert line in result.stdout.splitlines(), line


def test_show_for_programs(run: Run, outbox: Outbox) -> None:
    outbox.add(FAILED)
    outbox.sql("INSERT INTO attempts (outbox_id, outcome, reply, seconds, ended_at) VALUES (1, 'failed', '550', 2, 0)")
    [shown] = objects(run("mail", "show", "1", "--json"))
    assert (shown["state"], shown["suppressed"]) == ("failed", None)
    assert shown["attempts"] == [
        {"outcome": "failed", "reply": "550", "seconds": 2, "ended_at": "1970-01-01T00:00:00Z"}
    ]
    assert shown["message"]["headers"]["Subject"] == "Grüße"
    assert shown["message"]["text"].strip() == "Hi"


def test_show_tells_the_request_that_wrote_it(run: Run, outbox: Outbox) -> None:
    id = "5" * 32
    outbox.add(f"trace = '00-{id}-{id[:16]}-01'")
    outbox.add()
    assert f"  request id  {id}" in run("mail", "show", "1").stdout.splitlines()
    assert "request id" not in run("mail", "show", "2").stdout
    assert [objects(run("mail", "show", mail, "--json"))[0]["request_id"] for mail in "12"] == [id, None]


def test_show_raw_is_the_message_to_the_byte(run: Run, outbox: Outbox) -> None:
    outbox.add()
    [(data,)] = outbox.sql("SELECT data FROM messages")
    assert run("mail", "show", "1", "--raw").stdout_bytes == data


def test_purged_mail_is_shown_without_its_text(run: Run, outbox: Outbox) -> None:
    outbox.add(SENT)
    outbox.sql("DELETE FROM messages")
    assert run("mail", "show", "1").stdout.endswith("Its text was purged.\n")
    assert objects(run("mail", "show", "1", "--json"))[0]["message"] is None
    result = run("mail", "show", "1", "--raw")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "The text of mail 1 was purged.\n")


def test_what_strangers_wrote_cannot_steer_the_terminal(run: Run, outbox: Outbox) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\u202egnp.exe\u009b31m"
    id = outbox.add(DEFERRED, text=f"Hello {evil}[red]\nworld")
    outbox.sql(f"UPDATE outbox SET reply = '451 ' || char(27) || '[31m' || char(10) || '[bold]x' WHERE id = {id}")
    for command in (["list"], ["show", str(id)], ["list", "--json"], ["show", str(id), "--json"]):
        shown = run("mail", *command).stdout
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown), command
    assert "[bold]x" in run("mail", "list").stdout and "[red]" in run("mail", "show", str(id)).stdout


# -- retry and cancel --------------------------------------------------------------------------------------------------


def test_retry_says_when(run: Run, outbox: Outbox) -> None:
    ids = [str(outbox.add(change)) for change in (FAILED, DEFERRED)]
    result = run("mail", "retry", *ids)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("2 mails retried. ") and "within 15 seconds" in result.stdout
    assert outbox.states() == ["pending", "pending"]
    assert outbox.sql("SELECT count(*) FROM outbox WHERE due_at < (julianday('now') - 2440587.5) * 86400.0") == [(2,)]


def test_each_that_is_left_is_named(run: Run, outbox: Outbox) -> None:
    for change in (SENT, FAILED, SENDING):
        outbox.add(change)
    result = run("mail", "retry", "1", "2", "3", "99")
    assert result.exit_code == 1
    assert result.stdout.startswith("1 mail retried.")
    assert result.stderr.splitlines() == [
        "Mail 1: it was sent.",
        "Mail 3: it is being sent just now.",
        "Mail 99: there is no such mail.",
    ]


@pytest.mark.parametrize("command", [["show", "7"], ["retry", "7"], ["cancel", "7"], ["retry", "7", "--json"]])
def test_id_that_does_not_exist(run: Run, outbox: Outbox, command: list[str]) -> None:
    result = run("mail", *command)
    assert result.exit_code == 1
    assert "7" in result.stdout + result.stderr and "no " in result.stdout + result.stderr


def test_cancel(run: Run, outbox: Outbox) -> None:
    for change in (DEFERRED, SENDING, SENT):
        outbox.add(change)
    result = run("mail", "cancel", "--site", "bikes", "--json")
    assert objects(result) == [{"cancelled": 1, "left": [{"id": 2, "reason": "it is being sent just now"}]}]
    assert outbox.states() == ["cancelled", "pending", "sent"]


def test_filter_without_a_state_spares_what_was_ended_on_purpose(run: Run, outbox: Outbox) -> None:
    for change in (FAILED, "state = 'cancelled'", "state = 'suppressed'", SENT):
        outbox.add(change)
    assert objects(run("mail", "retry", "--site", "bikes", "--json")) == [{"retried": 1, "left": []}]
    assert outbox.states() == ["pending", "cancelled", "suppressed", "sent"]
    assert objects(run("mail", "retry", "--state", "cancelled", "--json")) == [{"retried": 1, "left": []}]


def test_filter_that_finds_nothing(run: Run, outbox: Outbox) -> None:
    result = run("mail", "retry", "--state", "failed")
    assert (result.exit_code, result.stdout) == (0, "No mail retried.\n")


@pytest.mark.parametrize("arguments", [[], ["1", "--site", "bikes"], ["1", "--all"], ["--all", "--state", "failed"]])
def test_one_way_to_choose(run: Run, outbox: Outbox, arguments: list[str]) -> None:
    outbox.add(FAILED)
    result = run("mail", "retry", *arguments)
    assert (result.exit_code, outbox.states()) == (2, ["failed"])


@pytest.mark.parametrize("command", ["retry", "cancel"])
def test_all_needs_a_yes_where_nobody_can_be_asked(run: Run, outbox: Outbox, command: str) -> None:
    outbox.add(DEFERRED)
    before = outbox.sql("SELECT * FROM outbox")
    result = run("mail", command, "--all")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "all 1 mail?" in result.stderr and "--yes" in result.stderr
    assert outbox.sql("SELECT * FROM outbox") == before
    assert run("mail", command, "--all", "--yes").exit_code == 0
    assert outbox.sql("SELECT * FROM outbox") != before


def test_more_than_a_batch(run: Run, outbox: Outbox) -> None:
    outbox.add(FAILED)
    columns = "site, kind, sender, recipient, domain, state, attempts, uncertain, due_at, created_at, settled_at"
    outbox.sql(
        "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 700) "
        f"INSERT INTO outbox (id, message_id, {columns}) "
        f"SELECT i, '<' || i || '@x>', {columns} FROM outbox, n WHERE id = 1"
    )
    outbox.sql("INSERT INTO messages SELECT id, x'00' FROM outbox WHERE id BETWEEN 2 AND 500")
    result = run("mail", "retry", "--state", "failed")
    assert (result.exit_code, result.stdout.split(".")[0]) == (0, "500 mails retried")
    assert "Mail 501: its text was purged" in result.stderr and "... and 180 more" in result.stderr
    assert outbox.states() == ["pending"] * 500 + ["failed"] * 200


# -- purge -------------------------------------------------------------------------------------------------------------


def old(days: int) -> str:
    return f"{SENT}, created_at = created_at - {days * DAY}, settled_at = created_at - {days * DAY}"


@pytest.fixture
def aged(outbox: Outbox) -> Outbox:
    for days in (100, 40, 20):
        outbox.add(old(days))
    return outbox


def kept(outbox: Outbox) -> list[int]:
    return [id for (id,) in outbox.sql("SELECT outbox_id FROM messages ORDER BY outbox_id")]


@pytest.mark.parametrize(("days", "left"), [("", [3]), ("90", [2, 3]), ("10", [])])
def test_purge_holds_to_the_setting(run: Run, aged: Outbox, days: str, left: list[int]) -> None:
    result = run("mail", "purge", MAIL_RETENTION_DAYS=days)
    assert (result.exit_code, kept(aged)) == (0, left)
    assert result.stdout == f"{3 - len(left)} mail{'s' if len(left) != 2 else ''} purged.\n"
    assert len(aged.states()) == 3


def test_purge_with_texts_kept_for_ever(run: Run, aged: Outbox) -> None:
    result = run("mail", "purge", MAIL_RETENTION_DAYS="0")
    assert (result.exit_code, kept(aged)) == (1, [1, 2, 3])
    assert "--older-than" in result.stderr


def test_purge_beyond_the_setting_needs_a_yes(run: Run, aged: Outbox) -> None:
    result = run("mail", "purge", "--older-than", "0.5")
    assert (result.exit_code, kept(aged)) == (1, [1, 2, 3])
    assert "up to 3 mails?" in result.stderr
    assert objects(run("mail", "purge", "--older-than", "0.5", "--yes", "--json")) == [{"purged": 3}]
    assert kept(aged) == []


# -- the database ------------------------------------------------------------------------------------------------------

COMMANDS = [["list"], ["show", "1"], ["retry", "1"], ["cancel", "--all"], ["purge"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_database_that_is_not_there_is_not_made(run: Run, tmp_path: Path, command: list[str]) -> None:
    result = run("mail", *command)
    assert (result.exit_code, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert "there is no database yet" in line and "doorbell.db" in line
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize(
    ("revision", "words"), [("'0001'", "is of an older version"), ("'9999'", "is of a newer version (9999)")]
)
def test_database_of_another_version_is_left_as_it_is(run: Run, outbox: Outbox, revision: str, words: str) -> None:
    outbox.sql(f"UPDATE alembic_version SET version_num = {revision}")
    for command in COMMANDS:
        result = run("mail", *command)
        assert (result.exit_code, result.stdout) == (1, "")
        [line] = result.stderr.splitlines()
        assert words in line
    assert outbox.sql("SELECT version_num FROM alembic_version") == [(revision.strip("'"),)]


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "holds no data"), (b"Dear Sir or Madam, " * 200, "not a database")]
)
def test_file_that_is_not_ours(run: Run, tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "doorbell.db").write_bytes(content)
    result = run("mail", "list")
    assert (result.exit_code, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert words in line


def test_reads_while_another_process_writes(run: Run, outbox: Outbox) -> None:
    outbox.add()
    writer = sqlite3.connect(outbox.file, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE outbox SET state = 'sent'")
    [entry] = objects(run("mail", "list", "--json"))
    assert entry["state"] == "new"
    assert run("mail", "show", "1").exit_code == 0
    writer.execute("COMMIT")
    writer.close()
    [entry] = objects(run("mail", "list", "--json"))
    assert entry["state"] == "sent"


# -- a terminal --------------------------------------------------------------------------------------------------------


class Terminal:
    """A command on a terminal so many columns wide, and somebody who types."""

    def __init__(self, environ: dict[str, str], columns: int, *arguments: str) -> None:
        clean = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "server", "mail", *arguments],
            cwd=REPOSITORY,
            env={**clean, **environ, "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.shown = ""

    def wait_for(self, words: str) -> None:
        while words not in self.shown:
            assert self._read(), self.shown

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def end(self) -> int:
        while self._read():
            pass
        return self.process.wait(timeout=60)

    def _read(self) -> bool:
        assert select.select([self.ours], [], [], 60)[0], self.shown
        try:
            data = os.read(self.ours, 65536)
        except OSError:  # Linux says so when nobody has the other end any more
            return False
        self.shown += data.decode("utf-8", "replace")
        return bool(data)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_table_fits_the_terminal(outbox: Outbox, environ: dict[str, str], columns: int) -> None:
    outbox.add(DEFERRED, "somebody.with.a.long.address@a.long.domain.example")
    terminal = Terminal(environ, columns, "list")
    status = terminal.end()
    terminal.close()
    head, row = re.sub(r"\x1b\[[0-9;]*m", "", terminal.shown).splitlines()[:2]
    assert status == 0
    assert max(len(head), len(row)) <= columns
    assert row.split()[:2] == ["1", "deferred"]
    assert ("welcome" in row, "in 5 min" in row) == (columns > 60, columns > 80)


@pytest.mark.parametrize(
    ("answer", "state", "status"), [("y", "cancelled", 0), ("n", "pending", 1), ("", "pending", 1)]
)
def test_all_is_asked_for_on_a_terminal(
    outbox: Outbox, environ: dict[str, str], answer: str, state: str, status: int
) -> None:
    outbox.add()
    terminal = Terminal(environ, 80, "cancel", "--all")
    terminal.wait_for("Cancel all 1 mail? [y/N]")
    assert outbox.states() == ["pending"]
    terminal.type(f"{answer}\n")
    assert (terminal.end(), outbox.states()) == (status, [state])
    terminal.close()
