"""A scripted SMTP server, certificates, and each test on both event loops."""

from collections.abc import AsyncIterator

import pytest

from tests.mail.loops import LOOPS, Factories
from tests.smtpd import Certificates, Smtpd


def pytest_asyncio_loop_factories() -> Factories:
    return LOOPS


@pytest.fixture
async def smtpd() -> AsyncIterator[Smtpd]:
    async with Smtpd().listening() as smtpd:
        yield smtpd


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    return Certificates()
