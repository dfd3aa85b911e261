"""Programs that the bench starts: on a core of their own, watched, and ended. Ends nothing that it did not start."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TICK = os.sysconf("SC_CLK_TCK")
# A first start compresses a whole site.
_START_LIMIT = 1800.0
_RUN_LIMIT = 120.0


class ProcessError(Exception):
    """A program that does not start; the message says which, and the end of what it said."""


def cores() -> tuple[int, int]:
    """The core for servers and the one for wrk. Raises ProcessError on a machine with one."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise ProcessError("the bench needs two cores: one for the server, one for wrk")
    return allowed[-1], allowed[0]


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Process:
    """A running program and whatever it started itself: they share a session, whose id is that of the program."""

    name: str
    command: list[str]
    popen: subprocess.Popen[bytes]
    log: Path | None

    @property
    def session(self) -> int:
        return self.popen.pid

    def cpu_seconds(self) -> float:
        """Processor time used so far, user and system."""
        return sum(int(fields[11]) + int(fields[12]) for _, fields in _session(self.session)) / _TICK

    def resident_bytes(self) -> int:
        """Memory in RAM, shared pages counted for each process."""
        page = os.sysconf("SC_PAGE_SIZE")
        return sum(int(fields[21]) * page for _, fields in _session(self.session))

    def wait_for(self, port: int) -> None:
        """Returns when it accepts connections. Raises ProcessError when it ends before, or takes for ever."""
        limit = time.monotonic() + _START_LIMIT
        while time.monotonic() < limit:
            if self.popen.poll() is not None:
                raise ProcessError(f"{self.name} ended with {self.popen.returncode}: {self.last_words()}")
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.005)
        raise ProcessError(f"{self.name} did not listen within {_START_LIMIT:.0f} s: {self.last_words()}")

    def last_words(self) -> str:
        """The last lines of its log."""
        if self.log is None:
            return "(its output is thrown away)"
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:]) + f" (see {self.log})" if lines else "(it said nothing)"

    def stop(self) -> None:
        """Asks it to end, and after ten seconds ends it and what it left behind."""
        if self.popen.poll() is None:
            self.popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(10)
        for pid in [pid for pid, _ in _session(self.session)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.popen.wait()


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    core: int | None,
    log: Path | None,
) -> Iterator[Process]:
    """Starts `command` in `folder`, and ends it on the way out. `core` None: on any; `log` None: its output is lost."""
    pinned = ["taskset", "--cpu-list", str(core), *command] if core is not None else list(command)
    if log is None:
        output = os.open(os.devnull, os.O_WRONLY)
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        popen = subprocess.Popen(
            pinned,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    finally:
        os.close(output)
    process = Process(name, pinned, popen, log)
    try:
        yield process
    finally:
        process.stop()


def report(process: Process) -> dict[str, Any]:
    """What a program that ends by itself says on its line of JSON, which begins with BENCH. Raises ProcessError."""
    try:
        status = process.popen.wait(_RUN_LIMIT)
    except subprocess.TimeoutExpired:
        raise ProcessError(f"{process.name} took more than {_RUN_LIMIT:.0f} s") from None
    text = process.log.read_text(errors="replace") if process.log else ""
    line = next((line for line in text.splitlines() if line.startswith("BENCH ")), None)
    if status or line is None:
        raise ProcessError(f"{process.name} ended with {status}: {process.last_words()}")
    found: dict[str, Any] = json.loads(line.removeprefix("BENCH "))
    return found


def core_busy_seconds(core: int) -> float:
    """How long `core` has worked since the machine started, for whomever; time that the hypervisor took counts too."""
    with open("/proc/stat") as lines:
        for line in lines:
            if line.startswith(f"cpu{core} "):
                user, nice, system, _idle, _wait, irq, softirq, steal = map(int, line.split()[1:9])
                return (user + nice + system + irq + softirq + steal) / _TICK
    raise ProcessError(f"/proc/stat does not tell of core {core}")


def _session(session: int) -> Iterator[tuple[int, list[str]]]:
    """The processes of a session: id, and the fields of /proc/PID/stat from the third on."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            with open(f"/proc/{entry.name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # Zombies have nothing to count and nothing to end.
        if int(fields[3]) == session and fields[0] != "Z":
            yield int(entry.name), fields
