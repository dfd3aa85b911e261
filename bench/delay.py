"""A TCP proxy that makes the way longer: `python -m bench.delay PORT TARGET MILLISECONDS` of added round-trip time.

Half of it each way, and at the start what a handshake over such a way costs. The kernel could do it better, where it
has netem.
"""

import asyncio
import sys
from collections import deque

import uvloop


class _Way(asyncio.Protocol):
    """One end of a connection: what comes in here goes out at `other`, in order, after `delay` seconds."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.other: _Way | None = None
        self.transport: asyncio.Transport | None = None
        self._waiting: deque[bytes | None] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's are of no asyncio class

    def data_received(self, data: bytes) -> None:
        self._later(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._later(None)

    def _later(self, data: bytes | None) -> None:
        self._waiting.append(data)
        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, self.pass_on)
        else:
            self.pass_on()

    def pass_on(self) -> None:
        """Hands on the oldest that waits: timers of one millisecond may come in any order, bytes may not."""
        if self.other is None or self.other.transport is None:
            return  # the way out is not there yet, and takes all of it when it is
        if not self._waiting:
            return
        data = self._waiting.popleft()
        if data is None:
            self.other.transport.close()
        else:
            self.other.transport.write(data)

    def flush(self) -> None:
        """Hands on all that waits."""
        while self._waiting:
            self.pass_on()


class _Entrance(_Way):
    """The end at the client."""

    def __init__(self, delay: float, target: int) -> None:
        super().__init__(delay)
        self._target = target

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._task = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        # SYN, SYN-ACK and ACK have come when the server knows of the client: three ways of which loopback spares us.
        await asyncio.sleep(3 * self.delay)
        if self.transport is None or self.transport.is_closing():
            return
        exit_ = _Way(self.delay)
        exit_.other = self
        try:
            await asyncio.get_running_loop().create_connection(lambda: exit_, "127.0.0.1", self._target)
        except OSError:
            self.transport.close()
            return
        self.other = exit_
        self.flush()


async def _main(port: int, target: int, delay: float) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: _Entrance(delay, target), "127.0.0.1", port, backlog=512
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 2000))
