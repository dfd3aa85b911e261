"""wrk: a measurement, and whether everything in it was in order."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.process import Process, core_busy_seconds
from bench.wire import WrongAnswer

CONNECTIONS = 32
_SCRIPT = Path(__file__).with_name("wrk.lua")


class NoAnswer(WrongAnswer):
    """A server that is so slow that nothing was complete."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement. Processor time is the server's; `share` is how much of its core the server used, `disturbed`
    how much of it others did, `wrk_disturbed` the same of wrk's core. `p50` and `p99` are milliseconds to an answer, as
    seen by clients that ask again when they have one."""

    rate: float
    cpu_microseconds: float
    share: float
    disturbed: float
    wrk_disturbed: float
    p50: float = 0.0
    p99: float = 0.0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk asks, over how many connections, and how many bytes a right answer has on the wire. `script` are
    arguments to wrk.lua."""

    port: int
    target: str
    fields: Mapping[str, str]
    size: int
    script: Sequence[str] = ()
    connections: int = CONNECTIONS

    def command(self, seconds: int, core: int) -> list[str]:
        """The command line: one thread, on a core of its own."""
        headers = [part for name, value in self.fields.items() for part in ("--header", f"{name}: {value}")]
        options = ["--threads", "1", "--connections", str(self.connections), "--duration", f"{seconds}s"]
        start = ["taskset", "--cpu-list", str(core), "wrk", *options, "--script", str(_SCRIPT), *headers]
        return [*start, f"http://127.0.0.1:{self.port}{self.target}", *(["--", *self.script] if self.script else [])]


def measure(load: Load, server: Process, seconds: int, server_core: int, wrk_core: int) -> Sample:
    """Runs wrk once. Raises WrongAnswer when any answer was an error, or they had not the right length."""
    before = _Clocks.read(server, server_core, wrk_core)
    command = load.command(seconds, wrk_core)
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    after = _Clocks.read(server, server_core, wrk_core)
    report = next((line for line in done.stdout.splitlines() if line.startswith("BENCH ")), None)
    if done.returncode or report is None:
        raise WrongAnswer(f"wrk failed: {(done.stderr or done.stdout).strip()[-500:]}")
    counts = json.loads(report.removeprefix("BENCH "))
    _judge(counts, load.size, load.connections)
    duration = counts["microseconds"] / 1e6
    if not counts["requests"]:
        raise NoAnswer(f"under load: no answer was complete after {duration:.0f} s, {counts['bytes']} bytes came")
    used = after.server - before.server
    return Sample(
        rate=counts["requests"] / duration,
        cpu_microseconds=used * 1e6 / counts["requests"],
        share=used / duration,
        disturbed=max(0.0, after.server_core - before.server_core - used) / duration,
        wrk_disturbed=max(0.0, after.wrk_core - before.wrk_core - (after.wrk - before.wrk)) / duration,
        p50=counts["p50"] / 1000,
        p99=counts["p99"] / 1000,
        requests=counts["requests"],
    )


@dataclass(frozen=True, slots=True)
class _Clocks:
    """Seconds of work so far: of the server, of all wrks, and of their cores."""

    server: float
    wrk: float
    server_core: float
    wrk_core: float

    @classmethod
    def read(cls, server: Process, server_core: int, wrk_core: int) -> "_Clocks":
        children = os.times()
        return cls(
            server.cpu_seconds(),
            children.children_user + children.children_system,
            core_busy_seconds(server_core),
            core_busy_seconds(wrk_core),
        )


def _judge(counts: Mapping[str, int], size: int, connections: int = CONNECTIONS) -> None:
    wrong = {name: counts[name] for name in ("refused", "connect", "read", "write", "timeout") if counts[name]}
    if wrong:
        raise WrongAnswer("under load: " + ", ".join(f"{number} x {name}" for name, number in wrong.items()))
    requests, got = counts["requests"], counts["bytes"]
    # The last answers are cut off by the end of the measurement; some header fields vary by a few bytes.
    if not 0.98 * size * requests <= got <= 1.02 * size * (requests + connections):
        raise WrongAnswer(f"under load: {got / max(1, requests):.0f} bytes an answer, not {size}")
