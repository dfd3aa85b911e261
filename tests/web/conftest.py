"""The app behind the client, and tokens of another time."""

from collections.abc import AsyncIterator, Callable
from time import time

import httpx
import pytest
from fastapi import FastAPI
from itsdangerous import TimestampSigner

from server.app import create_app
from server.settings import Settings
from tests.conftest import running
from tests.provision import furnish


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Those of a server that was started before."""
    furnish(settings.data_dir)
    return settings


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app, which runs."""
    async with running(app) as client:
        yield client


@pytest.fixture
def stamped(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, float], str]:
    """Makes a token for a purpose and a value that is so many seconds old."""

    def make(purpose: str, value: str, seconds: float) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(TimestampSigner, "get_timestamp", lambda self: int(time() - seconds))
            token: str = app.state.keys.stamp(purpose, value)
        return token

    return make
