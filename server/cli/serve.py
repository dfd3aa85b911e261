"""`serve`: the server, until it is told to stop."""

import logging
import signal
import socket
import sys
from typing import Annotated

import typer
import uvicorn

from server.app import create_app
from server.cli import environment
from server.hosting.lane import Watch
from server.settings import Settings

# Seconds that open requests get when the server stops; what is in flight in the outbox has its own grace time after.
REQUEST_GRACE = 5


class _Server(uvicorn.Server):
    """uvicorn's server, that says what to open once it listens."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._settings.log_format == "console":
            typer.echo(_greeting(self.config.app, self._settings))
            sys.stdout.flush()


def _greeting(app: object, settings: Settings) -> str:
    base = settings.base_url
    sites = app.state.current.sites.receptions.values()  # type: ignore[attr-defined]
    lines = ["", "  Doorbell is ready. Open:", "", f"    {base}/"]
    lines += [f"    {base}/{one.site.slug}/".ljust(48) + one.site.title for one in sites]
    if settings.smtp_url is None:
        lines.append(f"    {base}/_mailbox/".ljust(48) + "the mails: no DOORBELL_SMTP_URL is set, so none leaves")
    else:
        lines += ["", f"  Mail goes to {settings.smtp_url.host}:{settings.smtp_url.port}."]
    return "\n".join([*lines, "", "  Stop with Ctrl+C.", ""])


def _quiet(record: logging.LogRecord) -> bool:
    # The step that failed has said why, in one line; the traceback that the protocol hands on adds nothing to it.
    return not record.getMessage().startswith("Traceback")


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (DOORBELL_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (DOORBELL_PORT).")] = None,
) -> None:
    """Serves the sites, takes signups and sends their mail."""
    settings = environment.settings(host=host, port=port)
    logging.getLogger("uvicorn.error").addFilter(_quiet)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    app = create_app(settings)
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
        http=watch.protocol,  # type: ignore[arg-type]
        timeout_keep_alive=int(watch.limits.idle_seconds),
        ws="none",
    )
    server = _Server(config, settings)
    # uvicorn drains on the first signal and then raises it again, for whoever had a handler before. With its own one
    # the process ends with 0, and a signal that comes before uvicorn listens for it is not lost.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)
    try:
        server.run()
    except SystemExit:
        # uvicorn ends with a status of its own (3); ours is 1 for whatever keeps the server from starting
        raise typer.Exit(1) from None
