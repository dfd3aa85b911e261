"""`export`: the signups of a site in a file."""

import csv
import io
import json
import shutil
import stat
from pathlib import Path

import pytest
from typer.testing import Result

from server.jobs import export
from tests.cli.conftest import Run
from tests.cli.desk import Desk
from tests.signups import DAY

ANN, BOB = "ann@there.example", "bob@there.example"


def table(result: Result) -> list[list[str]]:
    assert result.exit_code == 0, result.output
    return list(csv.reader(io.StringIO(result.stdout_bytes.decode("utf-8-sig"), newline="")))


@pytest.fixture
def some(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(export, "BATCH", 2)
    desk.sign_up(ANN, age=3 * DAY, message="=1+1")
    desk.sql("""UPDATE signups SET fields = '{"old": "Oak", "colour": "Red"}' WHERE id = 1""")
    desk.sign_up(BOB, "c@there.example", "d@there.example", message="Grüße\n=1")
    desk.sign_up("spam@there.example", spam="honeypot", message="=1")
    desk.sign_up(ANN, site="lamps", news=True)
    return desk


def test_csv_has_the_fields_of_today_then_old_ones(run: Run, some: Desk) -> None:
    result = run("export", "bikes", "--csv")
    head, *rows = table(result)
    assert head == ["id", "received", "status", "confirmed", "email", "name", "colour", "message", "old", "consents"]
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    assert rows[0][4:] == [ANN, "", "Red", "", "Oak", ""]
    assert rows[1][6:8] == ["Red", "Grüße\n=1"]
    assert result.stdout_bytes.startswith(b"\xef\xbb\xbfid,") and b"\r\nspam" not in result.stdout_bytes
    assert result.stderr == ""


def test_csv_is_guarded_and_raw_says_that_it_is_not(run: Run, some: Desk) -> None:
    assert table(run("export", "bikes", "--spam"))[-1][7] == "'=1"
    raw = run("export", "bikes", "--spam", "--raw")
    assert table(raw)[-1][7] == "=1"
    assert "Not guarded" in raw.stderr


def test_json_is_an_array(run: Run, some: Desk) -> None:
    found = json.loads(run("export", "lamps", "--json").stdout)
    assert [(one["id"], one["status"], one["fields"]["news"]) for one in found] == [(6, "unconfirmed", True)]
    assert found[0]["consents"] == {"news": "Write to me when there are new lamps."}
    assert json.loads(run("export", "bikes", "--json", "--since", "2999-01-01").stdout) == []
    assert [one["id"] for one in json.loads(run("export", "bikes", "--json", "--since", "2d").stdout)] == [2, 3, 4]


def test_file_is_nobody_elses(run: Run, some: Desk, tmp_path: Path) -> None:
    assert run("export", "bikes", "--out", "bikes.csv").stdout == "4 signups written to bikes.csv.\n"
    assert stat.S_IMODE((tmp_path / "bikes.csv").stat().st_mode) == 0o600
    assert (tmp_path / "bikes.csv").read_bytes() == run("export", "bikes").stdout_bytes


def test_site_that_is_gone_still_has_its_signups(run: Run, some: Desk, sites: Path) -> None:
    shutil.rmtree(sites / "lamps")
    head, row = table(run("export", "lamps"))
    assert head[6:] == ["colour", "message", "news", "consents"] and row[4] == ANN


def test_site_that_never_was(run: Run, some: Desk) -> None:
    result = run("export", "lanps")
    assert result.exit_code == 1 and "There is no site lanps" in result.stderr


@pytest.mark.parametrize("options", [["--csv", "--json"], ["--raw", "--json"]])
def test_what_cannot_be_had_together(run: Run, desk: Desk, options: list[str]) -> None:
    assert run("export", "bikes", *options).exit_code == 2
