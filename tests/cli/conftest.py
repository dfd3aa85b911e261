"""The commands, run in this process with an environment of their own."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from server.cli import app
from tests.cli.desk import Desk
from tests.conftest import plain_logs

Run = Callable[..., Result]


@pytest.fixture
def run(environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a command in an empty folder; keyword arguments are further DOORBELL_ variables."""
    for name in [name for name in os.environ if name.startswith("DOORBELL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*arguments: str, **variables: str) -> Result:
        more = {f"DOORBELL_{name}": value for name, value in variables.items()}
        result = CliRunner().invoke(app, arguments, env={**environ, **more})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)
    plain_logs()


@pytest.fixture
def desk(sites: Path, tmp_path: Path) -> Desk:
    return Desk(sites, tmp_path / "var" / "doorbell.db")
