"""Python servers that the benches start, a module each: `python -m bench.servers.<name> PORT FOLDER`."""

import sys
from pathlib import Path
from typing import Any, Literal

import uvicorn


def arguments() -> tuple[int, Path]:
    """The port to listen on and the folder to serve, from the command line."""
    return int(sys.argv[1]), Path(sys.argv[2])


def serve(app: Any, port: int, lifespan: Literal["on", "off"] = "off") -> None:
    """Runs an ASGI app the way `doorbell serve` runs its own: one process, uvloop, httptools, nothing in between."""
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan=lifespan,
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
    )
