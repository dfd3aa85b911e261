"""WhiteNoise around a WSGI app that knows no page. The folder is in BENCH_FOLDER: WSGI servers pass no arguments."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from whitenoise import WhiteNoise


def _nothing(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("404 Not Found", [("content-length", "0")])
    return [b""]


application = WhiteNoise(_nothing, root=os.environ["BENCH_FOLDER"])
