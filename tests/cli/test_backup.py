"""`backup` and `restore`, as an operator reads them."""

from pathlib import Path

from tests.cli.conftest import Run
from tests.cli.desk import Desk


def test_there_and_back(run: Run, desk: Desk, tmp_path: Path) -> None:
    desk.sign_up("ann@there.example")
    (tmp_path / "var" / "secret.key").write_text("the secret of an installation")
    result = run("backup", "saved")
    assert (result.exit_code, result.stdout) == (0, "Saved in saved: 1 signups, 2 pending mails.\n")
    assert "DOORBELL_SECRET_KEY" not in result.stderr
    result = run("restore", "saved", DATA_DIR="other")
    assert (result.exit_code, result.stdout) == (0, "Put back: 1 signups, 2 pending mails.\n")
    assert "mail cancel" in result.stderr
    assert "ann@there.example" in run("signups", "list", DATA_DIR="other").stdout


def test_secret_that_is_kept_elsewhere_is_spoken_of(run: Run, desk: Desk) -> None:
    assert "DOORBELL_SECRET_KEY" in run("backup", "saved").stderr


def test_what_cannot_be_done_is_said(run: Run, desk: Desk, tmp_path: Path) -> None:
    for command, folder, why in (
        ("backup", "var", "var: is there already."),
        ("backup", "absent/saved", "absent/saved: No such file or directory."),
        ("restore", "absent", "absent: is no backup: there is no doorbell.db in it."),
    ):
        result = run(command, folder)
        assert result.exit_code == 1 and result.stderr == f"{why}\n"


def test_postgresql_has_its_own(run: Run) -> None:
    url = "postgresql+asyncpg://doorbell@localhost/doorbell"
    for command in ("backup", "restore"):
        result = run(command, "saved", DATABASE_URL=url, SECRET_KEY="a secret of some length")
        assert result.exit_code == 1 and "pg_dump" in result.stderr
