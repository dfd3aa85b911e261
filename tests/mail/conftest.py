"""A scripted SMTP server, and certificates."""

from collections.abc import AsyncIterator

import pytest

from tests.smtpd import Certificates, Smtpd


@pytest.fixture
async def smtpd() -> AsyncIterator[Smtpd]:
    async with Smtpd().listening() as smtpd:
        yield smtpd


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    return Certificates()
