"""The server of one process: uvicorn's, with our protocol, told what to do by signals.

Owns what a signal means to it. Knows nothing of other processes.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from types import FrameType

import typer
import uvicorn

from server.app import Current, create_app
from server.hosting import lane
from server.hosting.watch import Watch
from server.settings import Settings
from server.site import Site
from server.web.live import Live

# Seconds that open requests get when the server stops; what is in flight in the outbox has its own grace time after.
REQUEST_GRACE = 5

# Seconds that a thread gets which reads the sites while the server stops: it may have begun to compress a large file.
READING_GRACE = 1.5


class Terminal:
    """Where the process was started. SIGHUP says that it was closed, or, sent by somebody, to reload."""

    def __init__(self) -> None:
        self._is_one = sys.stderr.isatty()

    @property
    def closed(self) -> bool:
        """Whether it is gone: then nobody means a reload."""
        return self._is_one and not os.isatty(sys.stderr.fileno())


class Server(uvicorn.Server):
    """uvicorn's server, that reloads the sites on SIGHUP, and stops soon. With `greets` it says what to open once it
    listens."""

    def __init__(self, config: uvicorn.Config, settings: Settings, current: Current, *, greets: bool) -> None:
        super().__init__(config)
        self._settings = settings
        self._current = current
        self._greets = greets
        self._terminal = Terminal()
        self._asked = False
        self._reload: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def _live(self) -> Live | None:
        return getattr(self.config.app.state, "live", None)  # type: ignore[union-attr]

    def hear(self) -> None:
        """Listens to signals from now on; in the main thread.

        uvicorn drains on the first signal and then raises it again, for whoever had a handler before. With its own one
        the process ends with 0, and a signal that comes before uvicorn listens for it is not lost.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        if hasattr(signal, "SIGHUP"):  # not on Windows; early, for by default it ends the process
            signal.signal(signal.SIGHUP, self.handle_hangup)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.freeze()  # what is hosted is many objects that stay: no need to look through them again and again
        if self._greets and self.started and not self.should_exit:
            sites = [reception.site for reception in self._current.sites.receptions.values()]
            greet(self._settings, sites, reloads=self._live is not None)

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
        if self._terminal.closed:
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


def made(settings: Settings, *, reloads: bool = False, greets: bool = False) -> Server:
    """A server that is not started yet."""
    quieten()
    app = create_app(settings, reloads=reloads)
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
    return Server(config, settings, app.state.current, greets=greets)


def quieten() -> None:
    """Leaves of uvicorn's own log what an operator needs."""
    logging.getLogger("uvicorn.error").addFilter(_quiet)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    # It tells each burst of changes at INFO.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)


def _quiet(record: logging.LogRecord) -> bool:
    # The step that failed has said why, in one line; the traceback that the protocol hands on adds nothing to it.
    return not record.getMessage().startswith("Traceback")


def greet(settings: Settings, sites: Iterable[Site], *, reloads: bool = False) -> None:
    """Says what to open; to people."""
    if settings.log_format != "console":
        return
    typer.echo(_greeting(settings, sites, reloads))
    sys.stdout.flush()


def _greeting(settings: Settings, sites: Iterable[Site], reloads: bool) -> str:
    base = settings.base_url
    lines = ["", "  Doorbell is ready. Open:", "", f"    {base}/"]
    lines += [f"    {base}/{site.slug}/".ljust(48) + site.title for site in sites]
    if settings.smtp_url is None:
        lines.append(f"    {base}/_mailbox/".ljust(48) + "the mails: no DOORBELL_SMTP_URL is set, so none leaves")
    else:
        lines += ["", f"  Mail goes to {settings.smtp_url.host}:{settings.smtp_url.port}."]
    if reloads:
        lines += ["", f"  Pages reload themselves when something under {settings.sites_dir} changes."]
    return "\n".join([*lines, "", "  Stop with Ctrl+C.", ""])


def bound(host: str, port: int, *, shared: bool) -> socket.socket:
    """A socket on a port that does not listen yet; `shared` with others that say so too."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((host, port))
    except BaseException:
        made.close()
        raise
    return made
