"""Doorbell as a process that begins where its imports are done: they take longer than most of what is tested here.

It is forked from a process that has imported the program and done nothing else. That one begins from nothing, as an
operator starts it, is for test_process.py and test_reload.py.
"""

import multiprocessing
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

_REPOSITORY = Path(__file__).parents[2]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["server.cli"])


class Forked:
    """`python -m server` with these arguments; told and asked as a `subprocess.Popen` is."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str], out: Path, errors: Path) -> None:
        files = (str(out), str(errors))
        self._process = _CONTEXT.Process(target=_main, args=(list(arguments), dict(environ), files), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (status := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired("server", timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _main(arguments: list[str], environ: dict[str, str], files: tuple[str, str]) -> None:
    for number, file in enumerate(files, start=1):
        opened = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(_REPOSITORY)
    sys.argv = ["doorbell", *arguments]
    warnings.simplefilter("error")
    # uvloop's on a connection that is being made just as the process ends. That none else is left is for tests/mail.
    warnings.filterwarnings("ignore", message="unclosed resource <TCPTransport")
    # Celery's word on root, who these tests may be run by.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser")
    from server.cli import main

    main()
