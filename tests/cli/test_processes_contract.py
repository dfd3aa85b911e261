"""What processes.py takes for granted of uvicorn's supervisor: an upgrade that changes it fails here, by name."""

import inspect
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from uvicorn._subprocess import get_subprocess
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import SIGNALS, Multiprocess, Process

from server.cli import processes
from server.settings import load


def arguments(method: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(method).parameters)


def source(method: Callable[..., Any]) -> str:
    return inspect.getsource(method)


@pytest.fixture
def config() -> Iterator[uvicorn.Config]:
    """One that is not run; signals are as before in the end."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield uvicorn.Config("server.app:create_app", workers=2, log_config=None, timeout_worker_healthcheck=7)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_version_is_the_one_that_was_read() -> None:
    assert uvicorn.__version__.split(".")[:2] == ["0", "54"]


@pytest.mark.parametrize(
    ("cls", "name", "expected"),
    [
        (Process, "__init__", ["config", "sockets"]),
        (Process, "start", []),
        (Process, "target", ["sockets"]),
        (Process, "is_ready", ["timeout"]),
        (Process, "is_alive", ["timeout"]),
        (Process, "kill", []),
        (Process, "join", []),
        (Process, "terminate", []),
        (Multiprocess, "__init__", ["config", "sockets"]),
        (Multiprocess, "init_processes", []),
        (Multiprocess, "keep_subprocess_alive", []),
        (Multiprocess, "handle_signals", []),
        (Multiprocess, "handle_hup", []),
        (Multiprocess, "handle_term", []),
        (Multiprocess, "handle_int", []),
        (Multiprocess, "run", []),
    ],
)
def test_methods(cls: type, name: str, expected: list[str]) -> None:
    assert arguments(getattr(cls, name)) == ["self", *expected]


def test_no_other_way_makes_a_process() -> None:
    """One of uvicorn's own would serve without our server."""
    makers = {
        name for name, method in inspect.getmembers(Multiprocess, inspect.isfunction) if "Process(" in source(method)
    }
    # A signal of ours replaces the third; the last two are for signals that we leave alone.
    assert makers == {"init_processes", "keep_subprocess_alive", "restart_all", "handle_ttin"}
    assert "restart_all" in source(Multiprocess.handle_hup)
    assert {"init_processes", "keep_subprocess_alive", "handle_hup"} <= vars(processes.Workers).keys()


def test_the_life_of_the_parent() -> None:
    steps = ["init_processes()", "should_exit.wait(", "handle_signals()", "keep_subprocess_alive()", "terminate_all()"]
    found = [source(Multiprocess.run).find(step) for step in [*steps, "join_all()"]]
    assert -1 not in found and found == sorted(found)


def test_attributes(config: uvicorn.Config) -> None:
    parent = Multiprocess(config, [])
    assert (parent.config, parent.sockets, parent.processes_num, parent.processes) == (config, [], 2, [])
    assert isinstance(parent.should_exit, threading.Event)
    assert parent.signal_queue == []
    assert parent.config.timeout_worker_healthcheck == 7


def test_signals_are_queued_and_handled_by_name(config: uvicorn.Config) -> None:
    parent = Multiprocess(config, [])
    signal.raise_signal(signal.SIGTERM)
    assert parent.signal_queue == [signal.SIGTERM]
    parent.handle_signals()
    assert parent.should_exit.is_set() and parent.signal_queue == []


def test_a_process_that_is_not_started(config: uvicorn.Config) -> None:
    process = Process(config, [])
    try:
        assert not process.process.is_alive()
        assert process._server is None  # then the property makes one of uvicorn's
        assert "self._server is None" in inspect.getsource(vars(Process)["server"].fget)
        assert "self.server.run(sockets)" in source(Process.target)
        assert process.process.name
    finally:
        process.parent_conn.close()
        process.child_conn.close()


def test_the_parents_end_of_the_pings_is_all_it_needs() -> None:
    """The other is closed once the worker has it: then the parent hears at once when a worker is gone."""
    used = {name for name, method in inspect.getmembers(Process, inspect.isfunction) if "child_conn" in source(method)}
    assert used == {"__init__", "pong", "terminate", "kill"}
    assert all("child_conn.close()" in source(getattr(Process, name)) for name in ("terminate", "kill"))
    assert "EOFError" in source(Process._healthcheck)


def test_a_server_that_cannot_start_ends_with_a_status_of_its_own() -> None:
    assert STARTUP_FAILURE == 3
    assert "sys.exit(STARTUP_FAILURE)" in source(uvicorn.Server.startup)


def test_processes_are_spawned() -> None:
    """One that is forked would have counted in the parent's memory, and its threads' locks."""
    assert "get_subprocess(config, self.target, sockets)" in source(Process.__init__)
    assert "spawn.Process" in source(get_subprocess)


def test_only_our_signals_are_taken(config: uvicorn.Config) -> None:
    processes.Workers(config, load({}, env_file=None))
    ours = {number for number in SIGNALS if callable(signal.getsignal(number))}
    assert ours == {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
