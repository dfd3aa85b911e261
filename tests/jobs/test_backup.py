"""A backup is whole or not there, for its owner alone, and goes over nothing that is there."""

import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from server.jobs import backup
from server.jobs.backup import BackupError, Held
from server.progress import Report, silent
from tests import provision

FIELDS = "site, email, fields, created_at, key, recipient_hash"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a signup and a secret."""
    folder = tmp_path / "var"
    folder.mkdir()
    provision.database(folder / "doorbell.db")
    (folder / "secret.key").write_text("the secret of an installation")
    write(folder / "doorbell.db", f"INSERT INTO signups ({FIELDS}) VALUES ('bikes', 'a', '{{}}', 1, 'k', 'h')")
    return folder


def write(file: Path, statement: str) -> list[object]:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


def save(data: Path, to: Path) -> Held:
    return backup.save(data / "doorbell.db", data / "secret.key", to, silent)


def put_back(folder: Path, data: Path) -> Held:
    return backup.put_back(folder, data / "doorbell.db", data / "secret.key")


def test_goes_there_and_back(data: Path, tmp_path: Path) -> None:
    assert save(data, tmp_path / "saved") == put_back(tmp_path / "saved", tmp_path / "other") == Held(1, 0, True)
    for folder in (tmp_path / "saved", tmp_path / "other"):
        assert sorted(file.name for file in folder.iterdir()) == ["doorbell.db", "secret.key"]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
        assert write(folder / "doorbell.db", "SELECT email FROM signups") == [("a",)]
        assert (folder / "secret.key").read_text() == "the secret of an installation"


def test_what_is_only_in_the_log_of_writes_is_saved(data: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(data / "doorbell.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"INSERT INTO signups ({FIELDS}) VALUES ('bikes', 'b', '{{}}', 1, 'l', 'h')")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM signups")  # not committed: nobody else sees it, and nobody waits for it
        assert save(data, tmp_path / "saved").signups == 2
        connection.execute("ROLLBACK")


def test_what_was_deleted_is_not_in_it(data: Path, tmp_path: Path) -> None:
    word = "a word that was erased"
    with closing(sqlite3.connect(data / "doorbell.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = OFF")  # some systems have it on
        connection.execute("UPDATE signups SET name = ?", (word,))
        connection.execute("DELETE FROM signups")
    assert word.encode() in (data / "doorbell.db").read_bytes()
    save(data, tmp_path / "saved")
    assert word.encode() not in (tmp_path / "saved" / "doorbell.db").read_bytes()


def test_nothing_is_overwritten(data: Path, tmp_path: Path) -> None:
    save(data, tmp_path / "saved")
    with pytest.raises(BackupError, match="saved: is there already"):
        save(data, tmp_path / "saved")
    with pytest.raises(BackupError, match=r"doorbell\.db: is there already"):
        put_back(tmp_path / "saved", data)


@pytest.mark.parametrize("left", ["doorbell.db-wal", "doorbell.db-shm", "doorbell.db-journal"])
def test_log_of_another_database_is_in_the_way(data: Path, tmp_path: Path, left: str) -> None:
    save(data, tmp_path / "saved")
    (data / "doorbell.db").rename(data / left)
    with pytest.raises(BackupError, match=f"{left}: is there already"):
        put_back(tmp_path / "saved", data)
    assert not (data / "doorbell.db").exists()


def test_secret_that_is_another_is_in_the_way(data: Path, tmp_path: Path) -> None:
    save(data, tmp_path / "saved")
    (data / "doorbell.db").unlink()
    assert put_back(tmp_path / "saved", data).secret
    (data / "doorbell.db").unlink()
    (data / "secret.key").write_text("the secret of another one")
    with pytest.raises(BackupError, match=r"secret\.key: is there already"):
        put_back(tmp_path / "saved", data)
    assert not (data / "doorbell.db").exists()


def test_secret_from_outside(data: Path, tmp_path: Path) -> None:
    (data / "secret.key").unlink()
    assert save(data, tmp_path / "saved") == put_back(tmp_path / "saved", tmp_path / "other") == Held(1, 0, False)


def test_broken_off_leaves_nothing(data: Path, tmp_path: Path) -> None:
    @contextmanager
    def interrupted(total: int) -> Iterator[Report]:
        def report(done: int) -> None:
            raise KeyboardInterrupt

        yield report

    with pytest.raises(KeyboardInterrupt):
        backup.save(data / "doorbell.db", data / "secret.key", tmp_path / "saved", interrupted)
    assert [file.name for file in tmp_path.iterdir()] == ["var"]


def test_interrupted_in_the_middle_leaves_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "_LOOK", 1)
    seen = threading.Event()

    @contextmanager
    def interrupted(total: int) -> Iterator[Report]:
        def report(done: int) -> None:
            seen.set()
            raise KeyboardInterrupt

        yield report

    with pytest.raises(KeyboardInterrupt):
        backup.save(data / "doorbell.db", data / "secret.key", tmp_path / "saved", interrupted)
    assert seen.is_set() and [file.name for file in tmp_path.iterdir()] == ["var"]


@pytest.mark.parametrize("damage", ["no file", "no database", "torn", "of somebody else"])
def test_what_is_no_backup(data: Path, tmp_path: Path, damage: str) -> None:
    save(data, tmp_path / "saved")
    file = tmp_path / "saved" / "doorbell.db"
    if damage == "no file":
        file.unlink()
    elif damage == "no database":
        file.write_text("something else " * 1000)
    elif damage == "torn":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        file.unlink()
        write(file, "CREATE TABLE something (other TEXT)")
    with pytest.raises(BackupError, match="saved"):
        put_back(tmp_path / "saved", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_database_that_is_not_there_yet(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="no database yet"):
        save(tmp_path / "var", tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_postgresql_has_its_own() -> None:
    with pytest.raises(BackupError, match="pg_dump"):
        backup.file_of("postgresql+asyncpg://doorbell@localhost/doorbell")
    assert backup.file_of("sqlite:////var/lib/doorbell.db") == Path("/var/lib/doorbell.db")
