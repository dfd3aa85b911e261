"""A scripted SMTP server, certificates, and each test on both event loops."""

from collections.abc import AsyncIterator

import pytest

from tests.mail.loops import LOOPS, Factories
from tests.smtpd import Certificates, Smtpd


def pytest_asyncio_loop_factories() -> Factories:
    return LOOPS


@pytest.fixture(params=[[], ["PIPELINING"]], ids=["one-by-one", "pipelined"])
async def smtpd(request: pytest.FixtureRequest) -> AsyncIterator[Smtpd]:
    async with Smtpd(extensions=["SIZE 1000000", "8BITMIME", *request.param]).listening() as smtpd:
        yield smtpd


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    return Certificates()
