"""`serve`: the server, until it is told to stop."""

import sys
from typing import Annotated

import typer

from server.cli import environment, listener
from server.settings import Settings


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (DOORBELL_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (DOORBELL_PORT).")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that serve (DOORBELL_WORKERS).")] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="For whoever writes a site: an edit is served, and shown, at once.")
    ] = False,
) -> None:
    """Serves the sites, takes signups and sends their mail."""
    settings = environment.settings(host=host, port=port, workers=workers)
    try:
        started = _one(settings, reload) if settings.workers == 1 else _several(settings, reload)
    except SystemExit:
        # uvicorn ends with a status of its own (3); ours is 1 for whatever keeps the server from starting
        started = False
    if not started:
        raise typer.Exit(1)


def _one(settings: Settings, reload: bool) -> bool:
    server = listener.made(settings, reloads=reload, greets=True)
    server.hear()
    server.run()
    return True


def _several(settings: Settings, reload: bool) -> bool:
    count = f"DOORBELL_WORKERS (--workers) is {settings.workers}"
    if reload:
        raise environment.fail(f"--reload is for one process, and {count}. Say --workers 1 with it.", [])
    if sys.platform == "win32":
        raise environment.fail(f"Windows serves with one process, and {count}.", [])
    from server.cli import processes  # what it needs is not there on Windows

    return processes.run(settings)
