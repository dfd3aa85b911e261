"""`import`: signups from elsewhere into a site."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from server.cli import app
from server.jobs import intake
from tests.cli.conftest import Run
from tests.cli.desk import Desk

TABLE = "email,colour,note\nann@there.example,Red,x\nbob@there.example,Blue,\nc@there.example,Green,\nann,Red,\n"


@pytest.fixture
def table(tmp_path: Path) -> str:
    (tmp_path / "a.csv").write_text(TABLE, "utf-8")
    return "a.csv"


def emails(desk: Desk) -> list[str]:
    return [email for (email,) in desk.sql("SELECT email FROM signups ORDER BY id")]


def told(result: Result) -> list[str]:
    """What is said besides how far it is, which is said only where it takes long."""
    return [line for line in result.stderr.splitlines() if not line.startswith(("Importing ", "Imported "))]


def test_bad_rows_are_told_and_the_others_are_written(run: Run, desk: Desk, table: str) -> None:
    result = run("import", "bikes", table)
    assert result.exit_code == 1
    assert result.stdout == "2 imported, 0 were there already, 2 refused.\n"
    assert told(result) == [
        "line 3: colour: Input should be 'Red' or 'Green'",
        "line 5: email: This is not a valid e-mail address. An email address must have an @-sign.",
        "Not in the form, and kept: note.",
    ]
    assert emails(desk) == ["ann@there.example", "c@there.example"]
    assert desk.sql("SELECT count(*) FROM outbox") == [(0,)]


def test_again_writes_nothing(run: Run, desk: Desk, table: str) -> None:
    run("import", "bikes", table)
    assert run("import", "bikes", table).stdout == "0 imported, 2 were there already, 2 refused.\n"
    assert len(emails(desk)) == 2


def test_dry_run_writes_nothing_and_counts(run: Run, desk: Desk, table: str) -> None:
    result = run("import", "bikes", table, "--dry-run")
    assert result.exit_code == 1 and result.stdout == "2 would be imported, 0 were there already, 2 refused.\n"
    assert emails(desk) == []


def test_batches_are_many(run: Run, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "BATCH", 7)
    lines = "".join(f"v{number}@there.example,Red\n" for number in range(50))
    (tmp_path / "a.csv").write_text(f"email,colour\n{lines}", "utf-8")
    assert run("import", "bikes", "a.csv").stdout == "50 imported, 0 were there already, 0 refused.\n"
    assert emails(desk) == [f"v{number}@there.example" for number in range(50)]


def test_standard_input_and_names(environ: dict[str, str], run: Run, desk: Desk) -> None:
    given = ["import", "bikes", "-", "--map", "E-Mail=email", "--map", "Farbe=colour", "--map", "ip=", "--confirmed"]
    data = "E-Mail;Farbe;ip\nann@there.example;Red;192.0.2.1\n".encode("utf-16")
    result = CliRunner().invoke(app, given, input=data, env=environ)
    assert result.exit_code == 0 and told(result) == [], result.stderr
    [(status, fields)] = desk.sql("SELECT status, fields FROM signups")
    assert status == "confirmed" and "192.0.2.1" not in fields


def test_export_goes_to_a_site_of_another_name(run: Run, desk: Desk, sites: Path, tmp_path: Path) -> None:
    desk.sign_up("ann@there.example", message="=1")
    desk.sign_up("spam@there.example", spam="honeypot")
    shutil.copytree(sites / "bikes", sites / "cycles")
    for option in ("--json", "--csv"):
        run("export", "bikes", "--spam", option, "--out", "a")
        result = run("import", "cycles", "a")
        assert result.exit_code == 0, result.output
    rows = desk.sql("SELECT site, email, fields, status FROM signups ORDER BY id")
    assert rows[2:] == [("cycles", *row[1:]) for row in rows[:2]]


def test_suppressed_address_stays_so(run: Run, desk: Desk, table: str) -> None:
    desk.sql("INSERT INTO suppressions VALUES ('h', 'bikes', 'unsubscribed', NULL, 1)")
    before = desk.sql("SELECT * FROM suppressions")
    run("import", "bikes", table, "--confirmed")
    assert desk.sql("SELECT * FROM suppressions") == before


def failed(result: Result, why: str) -> None:
    assert result.exit_code == 1 and why in result.stderr, result.output
    assert "Traceback" not in result.output


def test_what_cannot_be_read(run: Run, desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "twice").write_text("email,email\n", "utf-8")
    failed(run("import", "bikes", "empty"), "empty: it is empty.")
    failed(run("import", "bikes", "twice"), "twice: line 1: there are two columns 'email'.")
    failed(run("import", "bikes", "absent"), "absent: cannot be read: No such file or directory.")
    failed(run("import", "bikes", "."), ".: cannot be read: Is a directory.")
    failed(run("import", "lanps", "empty"), "There is no site lanps")


def test_rows_before_a_break_are_counted(run: Run, desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"email": "ann@there.example", "colour": "Red"}\n{', "utf-8")
    result = run("import", "bikes", "a.json")
    failed(result, "a.json: line 2: is no JSON")
    assert result.stdout == "1 imported, 0 were there already, 0 refused.\n"
    assert emails(desk) == ["ann@there.example"]


def test_what_the_file_says_does_nothing_to_the_terminal(run: Run, desk: Desk, tmp_path: Path) -> None:
    names = ["\x1b[2J\nline 9", "x" * 100_000]
    rows = [{"email": "ann@there.example", "colour": "Red", name: []} for name in names]
    (tmp_path / "a.json").write_text(json.dumps(rows), "utf-8")
    result = run("import", "bikes", "a.json")
    first, second = told(result)
    assert first == "line 1: �[2J line 9: must be a text" and len(second) < 600


def test_no_database_is_made(run: Run, table: str, tmp_path: Path) -> None:
    failed(run("import", "bikes", table), "there is no database yet")
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("pair", ["email", "=email", ""])
def test_names_that_are_no_pair(run: Run, desk: Desk, table: str, pair: str) -> None:
    assert run("import", "bikes", table, "--map", pair).exit_code == 2
