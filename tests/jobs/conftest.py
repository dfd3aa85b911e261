from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.db import Database
from server.signup import Reception
from tests.conftest import add_site
from tests.outbox.conftest import opened
from tests.signups import ASKING, received


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


@pytest.fixture
def lamps(sites: Path) -> Reception:
    """A site that wants addresses confirmed, and has one owner."""
    return received(add_site(sites, "lamps", ASKING))
