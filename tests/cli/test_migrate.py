import sqlite3
from pathlib import Path

from tests.cli.conftest import Run


def tables(file: Path) -> set[str]:
    connection = sqlite3.connect(file)
    try:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    finally:
        connection.close()


def test_database_is_made(run: Run, tmp_path: Path) -> None:
    result = run("migrate")
    assert (result.exit_code, result.stdout) == (0, "The database is up to date.\n")
    assert {"signups", "outbox", "alembic_version"} <= tables(tmp_path / "var" / "doorbell.db")


def test_again_changes_nothing(run: Run, tmp_path: Path) -> None:
    run("migrate")
    before = (tmp_path / "var" / "doorbell.db").read_bytes()
    result = run("migrate")
    assert (result.exit_code, (tmp_path / "var" / "doorbell.db").read_bytes()) == (0, before)


def test_sites_need_not_be_in_order(run: Run, sites: Path) -> None:
    (sites / "bikes" / "site.toml").write_text("nonsense")
    assert run("migrate").exit_code == 0


def test_file_that_is_no_database(run: Run, tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "doorbell.db").write_text("this is no database, but a long enough text" * 100)
    result = run("migrate")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "The database cannot be brought up to date:" in result.stderr and "doorbell.db" in result.stderr


def test_folder_that_cannot_be_made(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("migrate", DATA_DIR=str(tmp_path / "file" / "var"))
    assert (result.exit_code, str(tmp_path / "file") in result.stderr) == (1, True)
