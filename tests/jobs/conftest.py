from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.db import Database
from tests.outbox.conftest import opened


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "jobs.db") as database:
        yield database
