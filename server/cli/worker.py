"""`worker` and `beat`: what sends the mail where a broker is used, on as many machines as it takes."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

import typer
import uvicorn
from anyio.from_thread import start_blocking_portal

from server.app import create_ops, load_receptions
from server.cli import environment
from server.cli.listener import bound
from server.runtime import Runtime, StartupError, Step, opened
from server.settings import Settings

Sweeps = Annotated[bool, typer.Option("--beat", help="Ring every few seconds too, so that no `beat` is needed.")]
Port = Annotated[
    int | None, typer.Option(help="Answer /healthz, /readyz and /metrics here, at DOORBELL_HOST.", min=1, max=65535)
]


def worker(beat: Sweeps = False, port: Port = None) -> None:
    """Sends the mail that web processes take in: needs DOORBELL_BROKER_URL."""
    settings = environment.settings()
    tasks, url = _tasks(settings)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    runtime = Runtime(settings, lambda: load_receptions(settings))
    # One loop, and on it one pool, for the life of the worker; Celery's threads only ask it.
    with start_blocking_portal(backend_options={"use_uvloop": sys.platform != "win32"}) as portal:
        try:
            with portal.wrap_async_context_manager(_running(runtime, settings, port)):
                status: int = tasks.work(url, partial(portal.call, runtime.drain), sweeps=beat)
        except StartupError:
            raise typer.Exit(1) from None  # the step has said why
    raise typer.Exit(status)


def beat() -> None:
    """Rings every few seconds for the workers; one of it is enough for an installation, and several do no harm."""
    tasks, url = _tasks(environment.settings())
    tasks.sweep(url)


def _tasks(settings: Settings) -> tuple[Any, str]:
    if settings.broker_url is None:
        raise environment.fail("DOORBELL_BROKER_URL is not set: without a broker `serve` sends the mail itself.", [])
    from server import tasks  # needs Celery, which only those have who use it

    return tasks, settings.broker_url


class _Desk:
    """Answers operators at a port, on the worker's loop, between `open` and `close`."""

    def __init__(self, runtime: Runtime, settings: Settings, port: int) -> None:
        self._address = f"{settings.host}:{port}"
        self._config = uvicorn.Config(
            create_ops(settings, runtime),
            host=settings.host,
            port=port,
            lifespan="off",
            log_config=None,
            access_log=settings.access_log,
            ws="none",
        )

    async def open(self) -> None:
        # Not left to uvicorn: what keeps it from listening ends its thread, of which the process would not hear.
        try:
            self._socket = bound(self._config.host, self._config.port, shared=False)
        except OSError as error:
            raise OSError(f"{self._address}: {error.strerror}") from error
        self._server = uvicorn.Server(self._config)
        self._serving = asyncio.create_task(self._server.serve([self._socket]))

    async def close(self) -> None:
        self._server.should_exit = True
        await self._serving


@asynccontextmanager
async def _running(runtime: Runtime, settings: Settings, port: int | None) -> AsyncIterator[None]:
    # Read anew for each digest; here to refuse what is broken.
    steps = [Step("sites", lambda: load_receptions(settings)), *runtime.steps()]
    if port is not None:
        desk = _Desk(runtime, settings, port)
        steps.append(Step("port", desk.open, desk.close))
    async with opened(steps):
        yield
