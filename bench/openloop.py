"""Requests on a schedule, whether or not there are answers: `python -m bench.openloop PORT RATE SECONDS KIND`.

A generator that waits for answers asks less where the server is slow, and so sees less of it. This one takes the time
from the moment that a request was due. KIND is `pages`, or `signups` each with an address of its own.
"""

import contextlib
import json
import os
import random
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

CONNECTIONS = 32
# The kernel wakes us this late at worst: the rest is waited for awake.
_AWAKE_SECONDS = 0.0001
# How long answers are waited for at the end.
_PATIENCE_SECONDS = 10.0


class Broken(Exception):
    """An answer that is none, or says that something is wrong."""


@dataclass(slots=True)
class Connection:
    """A kept-alive connection. `due` is when the request that it carries should have been sent."""

    socket: socket.socket
    expected: bytes
    due: float = 0.0
    _data: bytearray = field(default_factory=bytearray)
    _whole: int = 0

    def send(self, request: bytes, due: float) -> None:
        """Sends a request, of which nothing may be left over: it fits into the socket's buffer."""
        self.due = due
        self.socket.sendall(request)

    def read(self) -> bool:
        """Reads what is there; whether the answer is complete. Raises Broken."""
        data = self.socket.recv(65536)
        if not data:
            raise Broken("the connection was closed")
        self._data += data
        if not self._whole:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return False
            self._whole = end + 4 + self._length(bytes(self._data[:end]))
        if len(self._data) < self._whole:
            return False
        self._data.clear()
        self._whole = 0
        return True

    def _length(self, head: bytes) -> int:
        if not head.startswith(self.expected):
            raise Broken(head.partition(b"\r\n")[0].decode("latin-1"))
        for line in head.split(b"\r\n"):
            if line[:15].lower() == b"content-length:":
                return int(line[15:])
        raise Broken("an answer without a length")


@dataclass(slots=True)
class Found:
    """Seconds: from when a request was due to its answer, and until the generator saw that it was due. That is part of
    the former, and not the server's fault."""

    answered: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)

    def as_json(self, due: int, seconds: float) -> dict[str, float]:
        """In milliseconds."""
        return {
            "due": due,
            "answered": len(self.answered),
            "rate": len(self.answered) / seconds,
            "p50": _percentile(self.answered, 0.5) * 1000,
            "p99": _percentile(self.answered, 0.99) * 1000,
            "p999": _percentile(self.answered, 0.999) * 1000,
            "late_p99": _percentile(self.late, 0.99) * 1000,
        }


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def schedule(rate: float, seconds: float, seed: int) -> list[float]:
    """When requests are due, in seconds from the start: as many visitors come who know nothing of each other."""
    chance = random.Random(seed)
    found, at = [], 0.0
    while (at := at + chance.expovariate(rate)) < seconds:
        found.append(at)
    return found


def run(port: int, due: list[float], request: Callable[[], bytes], expected: bytes) -> Found:
    """Sends everything when it is due; what finds no free connection waits, and its time runs. Raises Broken."""
    with contextlib.ExitStack() as stack:
        return _run([_connection(port, expected, stack) for _ in range(CONNECTIONS)], due, request)


def _run(free: list[Connection], due: list[float], request: Callable[[], bytes]) -> Found:
    connections = {one.socket.fileno(): one for one in free}
    waiting, found = deque[float](), Found()
    busy: set[int] = set()
    begun = time.perf_counter()
    coming = iter([begun + at for at in due])
    following = next(coming, None)
    while following is not None or waiting or busy:
        now = time.perf_counter()
        while following is not None and following <= now:
            waiting.append(following)
            found.late.append(now - following)
            following = next(coming, None)
        while waiting and free:
            connection, at = free.pop(), waiting.popleft()
            connection.send(request(), at)
            busy.add(connection.socket.fileno())
        if following is None and now - begun > (due[-1] if due else 0) + _PATIENCE_SECONDS:
            break
        for descriptor in _ready(busy, 0.05 if following is None else following - time.perf_counter()):
            connection = connections[descriptor]
            if connection.read():
                found.answered.append(time.perf_counter() - connection.due)
                busy.discard(descriptor)
                free.append(connection)
    return found


def _ready(busy: set[int], seconds: float) -> list[int]:
    # Not poll or epoll: their time is in milliseconds.
    return select.select(busy, (), (), max(0.0, seconds - _AWAKE_SECONDS))[0]


def _connection(port: int, expected: bytes, stack: contextlib.ExitStack) -> Connection:
    made = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Connection(made, expected)


def pages(port: int) -> Callable[[], bytes]:
    """The page of 12 KB."""
    whole = f"GET /bench/page HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    return lambda: whole


def signups(port: int, prefix: str) -> Callable[[], bytes]:
    """A signup, each time with another address."""
    number = count()
    head = f"POST /signup HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"

    def request() -> bytes:
        body = json.dumps(
            {
                "site": "bench",
                "email": f"{prefix}{next(number)}@example.com",
                "name": "Robin Fell",
                "kind": "Dog",
                "message": "She is shy at first.",
            }
        )
        return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()

    return request


def main() -> None:
    """Says on a line of JSON what was found."""
    port, rate, seconds, kind = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    if kind == "pages":
        # What shares the core with us must not be taken for the server's slowness.
        with contextlib.suppress(PermissionError):
            os.nice(-10)
    request, expected = (pages(port), b"HTTP/1.1 200") if kind == "pages" else (signups(port, "open"), b"HTTP/1.1 202")
    due = schedule(rate, seconds, seed=len(kind))
    found = run(port, due, request, expected)
    print("BENCH " + json.dumps(found.as_json(len(due), seconds)))


if __name__ == "__main__":
    main()
