"""Chromium without a window, told what to do over a pipe (Chrome DevTools Protocol): pictures of a page."""

import base64
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars")
_SECONDS = 60.0  # for one answer


class ChromiumFailed(Exception):
    """It ended, did not answer, or refused a command."""


def find() -> str | None:
    """Where Chromium is on this machine. None also on Windows, which hands over no pipes."""
    if os.name != "posix":
        return None
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Chromium:
    """One page in a running Chromium."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._left, self._count = b"", 0
        self._session: dict[str, str] = {}
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        self._call("Page.enable")

    def picture(self, page: Path, width: int, dark: bool) -> bytes:
        """The whole of a page as PNG, two pixels for each of its `width`. Raises ChromiumFailed."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._resize(width, 400)
        self._call("Page.navigate", url=page.absolute().as_uri())
        self._await("method", "Page.loadEventFired")
        self._resize(width, self._call("Page.getLayoutMetrics")["cssContentSize"]["height"])
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def _resize(self, width: int, height: int) -> None:
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=False)

    def _call(self, method: str, **params: object) -> Any:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params, **self._session}
        try:
            os.write(self._write, json.dumps(message).encode() + b"\0")
        except OSError as error:
            raise ChromiumFailed(str(error)) from None
        answer = self._await("id", self._count)
        if "error" in answer:
            raise ChromiumFailed(f"{method}: {answer['error'].get('message')}")
        return answer["result"]

    def _await(self, key: str, value: object) -> Any:
        end = time.monotonic() + _SECONDS
        while True:
            one, found, self._left = self._left.partition(b"\0")
            if found:
                if (message := json.loads(one)).get(key) == value:
                    return message
                continue
            self._left = one
            if not select.select([self._read], [], [], end - time.monotonic() if end > time.monotonic() else 0)[0]:
                raise ChromiumFailed(f"no answer within {_SECONDS:.0f} seconds")
            if not (more := os.read(self._read, 1 << 16)):
                raise ChromiumFailed("it ended")
            self._left += more


@contextmanager
def running(path: str) -> Iterator[Chromium]:
    """Chromium with a profile of its own, which ends with the block. Raises ChromiumFailed."""
    from fcntl import F_DUPFD_CLOEXEC, fcntl  # not on Windows

    pipes = [*os.pipe(), *os.pipe()]
    # It reads at 3 and writes at 4. Ours lie higher, so that neither is taken away before it is handed over.
    theirs_in, ours_out, ours_in, theirs_out = (fcntl(one, F_DUPFD_CLOEXEC, 10) for one in pipes)
    for one in pipes:
        os.close(one)
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = os.posix_spawn(
            path,
            [path, *_FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}"],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, theirs_in, 3),
                (os.POSIX_SPAWN_DUP2, theirs_out, 4),
            ],
        )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            yield Chromium(ours_in, ours_out)
        finally:
            os.close(ours_out)  # it ends when nobody can tell it anything any more
            _reap(process)
            os.close(ours_in)


def _reap(process: int) -> None:
    end = time.monotonic() + 10
    while os.waitpid(process, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return
        time.sleep(0.05)
