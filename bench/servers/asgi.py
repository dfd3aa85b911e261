"""Doorbell's `hosting/asgi.py` alone, without the app's middleware."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.servers import arguments, serve
from server import hosting
from server.web.middleware import SECURITY_HEADERS

_MEMORY = 256 * 2**20


@dataclass
class _Fixed:
    published: hosting.Published


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def application(folder: Path) -> Any:
    """The app that serves `folder` under /bench/. The one place that knows how Hosting is built."""
    with tempfile.TemporaryDirectory() as cache:
        shelf = hosting.Shelf(hosting.Cache(Path(cache)), _MEMORY)
        nobody: frozenset[str] = frozenset()
        published = hosting.publish(
            [hosting.read("bench", folder)], shelf, defaults=SECURITY_HEADERS, reserved=nobody, public=nobody
        )
    return hosting.Hosting(_nothing, _Fixed(published))


if __name__ == "__main__":
    port, folder = arguments()
    serve(application(folder), port)
