"""What mail is sent to: smtp-sink (Postfix), alone or behind a longer way, on the core that is not the sender's."""

import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.large import started
from bench.peers import Launch, program
from bench.process import Process, free_port

MISSING = "" if program("smtp-sink") else "no program smtp-sink: apt install postfix (nothing needs to be configured)"


@dataclass(frozen=True, slots=True)
class Relay:
    """Where it listens. `sink` is the process that takes the mails; it counts them only where that was asked for."""

    port: int
    sink: Process

    def count(self) -> int:
        """How many mails have come. Only of a relay that counts."""
        log = self.sink.log
        text = log.read_bytes()[-200:].decode() if log else ""
        found = re.findall(r"mesg=(\d+)", text)
        return int(found[-1]) if found else 0


@contextmanager
def relay(
    work: Path, core: int, *, added: float | None = None, pipelining: bool = True, counts: bool = False
) -> Iterator[Relay]:
    """Starts one and ends it. `added` milliseconds of round-trip time: None is without the proxy that adds them.

    Counting costs the sink more than taking a mail does: it is not for runs that are timed.
    """
    with ExitStack() as stack:
        port = free_port()
        sink = stack.enter_context(started(work, "smtp-sink", _sink(port, pipelining, counts), core))
        sink.wait_for(port)
        if added is not None:
            target, port = port, free_port()
            launch = Launch([sys.executable, "-m", "bench.delay", str(port), str(target), str(added)])
            stack.enter_context(started(work, "delay", launch, core)).wait_for(port)
        yield Relay(port, sink)


def _sink(port: int, pipelining: bool, counts: bool) -> Launch:
    options = ["-c"] * counts + ["-p"] * (not pipelining)
    # It does not want to run as root, whose privileges it gives up for those of whomever it is told.
    options += ["-u", "nobody"] if os.geteuid() == 0 else []
    return Launch([program("smtp-sink") or "smtp-sink", *options, f"127.0.0.1:{port}", "512"])


def round_trip(port: int, times: int = 9) -> float:
    """Milliseconds from a command to its reply, the median: what the way really is."""
    found = []
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.recv(1000)
        for _ in range(times):
            begun = time.perf_counter()
            connection.sendall(b"NOOP\r\n")
            connection.recv(1000)
            found.append((time.perf_counter() - begun) * 1000)
        connection.sendall(b"QUIT\r\n")
    return median(found)
