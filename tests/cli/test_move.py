from pathlib import Path

import pytest

from tests import provision
from tests.cli.conftest import Run


@pytest.fixture
def there(postgresql_url: str) -> str:
    return postgresql_url


def test_installation_is_moved_and_what_is_next_is_said(run: Run, tmp_path: Path, there: str) -> None:
    here = provision.database(tmp_path / "one.db")
    provision.ask(here, "INSERT INTO suppressions VALUES ('hash', '', 'bounced', NULL, 1)")
    result = run("move", "--from", here, "--to", there)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "3 rows moved, and counted on both sides." in result.stdout and "DOORBELL_SECRET_KEY" in result.stdout
    assert provision.ask(there, "SELECT reason FROM suppressions") == [("bounced",)]
    again = run("move", "--from", here, "--to", there)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "1 in suppressions; give a new database" in again.stderr


@pytest.mark.parametrize(
    ("here", "to", "says"),
    [
        ("sqlite:///nowhere.db", "sqlite:///new.db", "there is no database yet"),
        ("mysql://x/y", "sqlite:///new.db", "--from is no database"),
        ("sqlite:///x.db", "postgresql://x/y", "--to is no database"),
    ],
)
def test_what_cannot_be_moved_is_said(run: Run, here: str, to: str, says: str) -> None:
    result = run("move", "--from", here, "--to", to)
    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr
