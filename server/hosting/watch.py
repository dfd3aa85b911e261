"""What the connections of a process share: its sites, the limits, the date, and the clock that ends who keeps it
waiting."""

import asyncio
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Protocol

from server.hosting.origin import Serving


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may take: bytes of a request's head (and of what is between the pieces of its body) and target,
    and seconds. Bytes are counted as they come, so up to a slice of what was before them counts too."""

    head: int = 32 * 1024
    target: int = 8 * 1024
    head_seconds: float = 15
    body_seconds: float = 60
    idle_seconds: float = 75
    # In this time a client that is sent something must have taken at least so many bytes.
    stalled_seconds: float = 30
    stalled_bytes: int = 8 * 1024


class Connection(Protocol):
    """Who is watched."""

    loop: asyncio.AbstractEventLoop

    def overdue(self, now: float) -> bool:
        """Whether the client has had its time. Called each second; `now` is the loop's."""

    def cut_off(self) -> None:
        """Ends the connection."""


class Watch:
    """Ticks each second while there are connections. `date` is a line of a head."""

    def __init__(self, serving: Serving, limits: Limits | None = None) -> None:
        self.serving = serving
        self.limits = limits or Limits()
        self.date = b""
        self._connections: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, connection: Connection) -> None:
        """From now on it is watched."""
        self._connections.add(connection)
        if self._timer is None:
            self._tick(connection.loop)

    def leave(self, connection: Connection) -> None:
        """It has ended."""
        self._connections.discard(connection)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.time()
        self.date = b"date: %s\r\n" % formatdate(now, usegmt=True).encode()
        try:
            for connection in [one for one in self._connections if one.overdue(loop.time())]:
                connection.cut_off()
        finally:
            # On the second, so that the date is never behind.
            self._timer = loop.call_later(1 - now % 1, self._tick, loop) if self._connections else None
