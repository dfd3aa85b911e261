"""`serve`: the server, until it is told to stop."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
from types import FrameType
from typing import Annotated

import typer
import uvicorn

from server.app import Current, create_app
from server.cli import environment
from server.hosting import lane
from server.hosting.watch import Watch
from server.settings import Settings
from server.web.live import Live

# Seconds that open requests get when the server stops; what is in flight in the outbox has its own grace time after.
REQUEST_GRACE = 5

# Seconds that a thread gets which reads the sites while the server stops: it may have begun to compress a large file.
READING_GRACE = 1.5


class _Server(uvicorn.Server):
    """uvicorn's server, that says what to open once it listens, reloads the sites on SIGHUP, and stops soon."""

    def __init__(self, config: uvicorn.Config, settings: Settings, current: Current, live: Live | None) -> None:
        super().__init__(config)
        self._settings = settings
        self._current = current
        self._live = live
        self._terminal = sys.stderr.isatty()
        self._asked = False
        self._reload: asyncio.Task[None] | None = None
        self._closed = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.freeze()  # what is hosted is many objects that stay: no need to look through them again and again
        if self.started and not self.should_exit and self._settings.log_format == "console":
            typer.echo(_greeting(self.config.app, self._settings))
            sys.stdout.flush()

    async def on_tick(self, counter: int) -> bool:
        # Asked for while one is under way: one more follows it, however often it was asked for.
        if self._asked and (self._reload is None or self._reload.done()):
            self._asked = False
            self._reload = asyncio.create_task(self._current.reload())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._live is not None:
            self._live.close()
        await super().shutdown(sockets)
        self._closed = True
        self._end_soon()

    def handle_hangup(self, number: int, frame: FrameType | None) -> None:
        """SIGHUP: reload, as soon as the server listens. But when the terminal was closed, nobody means that."""
        if self._terminal and not os.isatty(sys.stderr.fileno()):
            self.handle_exit(signal.SIGTERM, frame)
        else:
            self._asked = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._current.cancel()
        super().handle_exit(sig, frame)
        if not self.started:
            self._end_soon()

    def _end_soon(self) -> None:
        timer = threading.Timer(READING_GRACE, self._end)
        timer.daemon = True
        timer.start()

    def _end(self) -> None:
        # Nothing ends a thread that reads the sites, and the interpreter would wait for it. Before the server listens
        # nothing was taken in, and what a kill leaves on the disk is in order at any instant; later all is closed.
        if self._closed or not self.started:
            os._exit(0)


def _greeting(app: object, settings: Settings) -> str:
    base = settings.base_url
    sites = app.state.current.sites.receptions.values()  # type: ignore[attr-defined]
    lines = ["", "  Doorbell is ready. Open:", "", f"    {base}/"]
    lines += [f"    {base}/{one.site.slug}/".ljust(48) + one.site.title for one in sites]
    if settings.smtp_url is None:
        lines.append(f"    {base}/_mailbox/".ljust(48) + "the mails: no DOORBELL_SMTP_URL is set, so none leaves")
    else:
        lines += ["", f"  Mail goes to {settings.smtp_url.host}:{settings.smtp_url.port}."]
    if hasattr(app.state, "live"):  # type: ignore[attr-defined]
        lines += ["", f"  Pages reload themselves when something under {settings.sites_dir} changes."]
    return "\n".join([*lines, "", "  Stop with Ctrl+C.", ""])


def _quiet(record: logging.LogRecord) -> bool:
    # The step that failed has said why, in one line; the traceback that the protocol hands on adds nothing to it.
    return not record.getMessage().startswith("Traceback")


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (DOORBELL_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (DOORBELL_PORT).")] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="For whoever writes a site: an edit is served, and shown, at once.")
    ] = False,
) -> None:
    """Serves the sites, takes signups and sends their mail."""
    settings = environment.settings(host=host, port=port)
    logging.getLogger("uvicorn.error").addFilter(_quiet)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    # It tells each burst of changes at INFO.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    app = create_app(settings, reloads=reload)
    watch = Watch(app.state.current)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        lifespan="on",
        log_config=None,
        access_log=settings.access_log,
        server_header=False,
        # The peer is who it is; whom to believe about a client is decided elsewhere.
        proxy_headers=False,
        timeout_graceful_shutdown=REQUEST_GRACE,
        http=lane.protocol(watch),  # type: ignore[arg-type]
        timeout_keep_alive=int(watch.limits.idle_seconds),
        ws="none",
    )
    server = _Server(config, settings, app.state.current, getattr(app.state, "live", None))
    # uvicorn drains on the first signal and then raises it again, for whoever had a handler before. With its own one
    # the process ends with 0, and a signal that comes before uvicorn listens for it is not lost.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)
    if hasattr(signal, "SIGHUP"):  # not on Windows; early, for by default it ends the process
        signal.signal(signal.SIGHUP, server.handle_hangup)
    try:
        server.run()
    except SystemExit:
        # uvicorn ends with a status of its own (3); ours is 1 for whatever keeps the server from starting
        raise typer.Exit(1) from None
