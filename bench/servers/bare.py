"""The least that an ASGI app can do: constant bytes, with the header fields of `hosting/asgi.py` or only two of them.

The first tells what the look-up costs, for uvicorn checks and copies each header field; the second tells what the
header fields cost.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from bench.servers import arguments, serve
from bench.servers.asgi import application

Headers = list[tuple[bytes, bytes]]
_NEEDED = (b"content-type", b"content-length")


async def _answer(folder: Path) -> tuple[Headers, bytes]:
    """What hosting/asgi.py says to a plain request for the page."""
    app = application(folder)
    for target in ("/bench/page", "/bench/page.html"):
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any], into: list[dict[str, Any]] = sent) -> None:
            into.append(message)

        await app(_scope(target), receive, send)
        if sent[0]["status"] == 200:
            return list(sent[0]["headers"]), b"".join(message.get("body", b"") for message in sent[1:])
    raise SystemExit("hosting/asgi.py does not serve the page")


def _scope(target: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": target,
        "raw_path": target.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
        "state": {},
        "extensions": {},
    }


def constant(headers: Headers, body: bytes) -> Any:
    """An app that says the same to everything."""
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    end = {"type": "http.response.body", "body": body}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start)
        await send(end)

    return app


if __name__ == "__main__":
    port, folder = arguments()
    headers, body = asyncio.run(_answer(folder))
    if "--two-headers" in sys.argv:
        headers = [field for field in headers if field[0].lower() in _NEEDED]
    serve(constant(headers, body), port)
