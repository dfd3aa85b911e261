"""Several processes that serve the same: uvicorn's supervisor, with a server of ours in each worker.

The parent starts workers, each with a socket of its own on the same port, replaces those that die, and hands signals
on. It serves nothing, and opens no database. What a worker must know goes to it through a pipe, never by its command
line. Not for Windows, which has neither SIGHUP nor sockets that share a port.
"""

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from multiprocessing import resource_tracker

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import SIGNALS, Multiprocess, Process

from server import log, metrics, site
from server.cli import listener
from server.settings import Settings

_log = log.get(__name__)

# A worker that does not answer its parent for so long hangs, and is replaced.
HANGING_SECONDS = 30
# One that was started less than this ago is not replaced sooner: what keeps workers from starting would keep on.
PAUSE_SECONDS = 10

# What the parent and its workers listen to; other signals do what they always do.
if sys.platform != "win32":
    _HEARD = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


class _Worker(Process):
    """One process that serves, and its parent's end of the pipe to it."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        # One that all accept from would give a burst of connections to whoever wakes first.
        self._socket = listener.bound(settings.host, settings.port, shared=True)
        super().__init__(config, [self._socket])
        self.begun_at = time.monotonic()
        self.buried = False
        self._settings = settings

    def start(self) -> None:
        # A signal that comes before the worker listens to it waits until it does.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            # The worker has its own. So nobody is left waiting at the socket of one that is dead, and who waits for its
            # answer is told of its end.
            for ours in (self._socket, self.child_conn):
                ours.close()

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """What the process does."""
        log.configure(self._settings.log_format, self._settings.log_level)
        # Before uvicorn's thread for pings asks for it: it would make another.
        self._server = server = listener.made(self._settings)
        server.hear()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        super().target(sockets)


def _end_with_parent() -> None:
    # Else the workers of a parent that was killed would keep its port.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


class Workers(Multiprocess):
    """The parent. `run` answers when all have ended; `failed` is then whether they could not start."""

    processes: list[_Worker]  # type: ignore[assignment]

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config, [])
        for number in SIGNALS.keys() - _HEARD:
            signal.signal(number, signal.SIG_DFL)
        self.failed = False
        self._settings = settings
        self._terminal = listener.Terminal()

    def run(self) -> None:
        # Begun with the first worker it would unblock signals just before that.
        resource_tracker.ensure_running()
        super().run()

    def init_processes(self) -> None:
        """The first alone: it migrates, makes the secret key, compresses, and says what is wrong, once."""
        for count in (1, self.processes_num - 1):
            self.processes += [self._started() for _ in range(count)]
            if not self._all_listen():
                return
        found, _ = site.load_all(self._settings.sites_dir)
        listener.greet(self._settings, found.values())

    def _started(self) -> _Worker:
        worker = _Worker(self.config, self._settings)
        worker.start()
        return worker

    def _all_listen(self) -> bool:
        """Waits until they do. False where one cannot, or they are told to stop."""
        while not all(worker.is_ready(timeout=0.5) for worker in self.processes):
            self.handle_signals()
            if not self.should_exit.is_set():
                self._look_for_failures()
            if self.should_exit.wait(0.1):
                return False
        return True

    def _look_for_failures(self) -> None:
        for worker in self.processes:
            if not worker.process.is_alive():
                self.failed = True
                self.should_exit.set()
                if worker.exitcode != STARTUP_FAILURE:  # then it has said why
                    _log.error("process.died", pid=worker.pid, status=worker.exitcode)

    def keep_subprocess_alive(self) -> None:
        """Puts a new worker in the place of each that died."""
        for place, worker in enumerate(self.processes):
            if self.should_exit.is_set() or self.signal_queue:
                return  # perhaps they die of the same signal
            if not worker.buried and not worker.is_alive(self.config.timeout_worker_healthcheck):
                self._bury(worker)
            if worker.buried and time.monotonic() - worker.begun_at > PAUSE_SECONDS:
                self.processes[place] = self._started()

    def _bury(self, worker: _Worker) -> None:
        worker.kill()  # it may only hang
        worker.join()
        worker.buried = True
        if worker.pid is not None:
            metrics.died(worker.pid)
        _log.error("process.died", pid=worker.pid, status=worker.exitcode)

    def handle_hup(self) -> None:
        """Each worker reloads its sites in place."""
        if self._terminal.closed:
            return self.handle_term()
        for worker in self.processes:
            if worker.process.is_alive() and worker.pid is not None:
                os.kill(worker.pid, signal.SIGHUP)


def run(settings: Settings) -> bool:
    """Serves with several workers until it is told to stop. False where they could not start: why is said."""
    listener.quieten()
    config = uvicorn.Config(
        "server.app:create_app",  # not loaded here: each worker makes its own
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=None,
        timeout_worker_healthcheck=HANGING_SECONDS,
    )
    try:
        # Else another's sockets could share the port with ours.
        listener.bound(settings.host, settings.port, shared=False).close()
    except OSError as error:
        _log.error("start.failed", step="port", reason=f"{settings.host}:{settings.port}: {error.strerror}")
        return False
    with metrics.sharing():
        workers = Workers(config, settings)
        workers.run()
    return not workers.failed
