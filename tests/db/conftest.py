"""Databases that nothing has opened yet."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgresql
from tests.conftest import skip_or_fail


@pytest.fixture(params=["sqlite", "postgresql"])
def bare_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with nothing in it."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'old.db'}"
        return
    if reason := postgresql.missing():
        skip_or_fail(reason)
    with postgresql.bare() as url:
        yield url
