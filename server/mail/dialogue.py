"""The replies of one SMTP server, read in order, each for a command that was written (RFC 5321 section 4.2).

Takes a connection over once aiosmtplib has opened, secured and signed in on it: that library reads one reply a command,
and loses those to commands that were written together (PIPELINING, RFC 2920). Knows no mails.
"""

import asyncio
from collections import deque
from typing import cast

from aiosmtplib import SMTPReadTimeoutError, SMTPResponseException, SMTPServerDisconnected

# A reply line has 512 octets at most (RFC 5321 section 4.5.3.1.5), and few replies have ten lines.
MOST_BYTES = 32 * 1024
# What aiosmtplib says for a reply that is none.
_NO_REPLY = -1

Answer = tuple[int, str]


class Dialogue(asyncio.Protocol):
    """Commands out, replies in. `in_step`: every command had its reply, and nothing else was said."""

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance: uvloop's transports are of no asyncio class.
        self._transport = cast(asyncio.WriteTransport, transport)
        self._buffer = bytearray()
        self._lines: list[str] = []
        self._answers: deque[Answer] = deque()
        self._owed = 0
        self._fault: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        transport.set_protocol(self)

    @property
    def in_step(self) -> bool:
        return not (self._owed or self._answers or self._buffer or self._lines or self._fault) and self.open

    @property
    def open(self) -> bool:
        return self._fault is None and not self._transport.is_closing()

    def write(self, commands: bytes, replies: int) -> None:
        """Sends what asks for so many replies. Raises SMTPServerDisconnected."""
        if not self.open:
            raise self._fault or SMTPServerDisconnected("Connection lost")
        self._owed += replies
        self._transport.write(commands)

    async def read(self, timeout: float) -> Answer:
        """The next reply: its code and its lines. Raises SMTPServerDisconnected, SMTPReadTimeoutError after `timeout`
        seconds, SMTPResponseException for what is no reply. After any of them nothing more can be read."""
        if not self._answers:
            await self._arrival(timeout)
        return self._answers.popleft()

    async def _arrival(self, timeout: float) -> None:
        if self._fault is None:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            # Not asyncio.timeout(): that costs as much as all the rest here.
            timer = loop.call_later(timeout, self._time_out)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        if not self._answers:
            raise self._fault or SMTPServerDisconnected("Connection lost")

    def _time_out(self) -> None:
        self._end(SMTPReadTimeoutError("Timed out waiting for server response"))

    def abort(self) -> None:
        """Closes at once. close() would first wait for a peer that does not read."""
        self._transport.abort()

    # -- what the transport calls --------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._fault is not None:
            return  # whatever it is, nobody can tell what it answers
        self._buffer += data
        while self._fault is None and (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._line(line.decode("utf-8", "replace").rstrip("\r"))
        if len(self._buffer) + sum(map(len, self._lines)) > MOST_BYTES:
            self._end(SMTPResponseException(_NO_REPLY, "Response too long"))

    def _line(self, line: str) -> None:
        code, mark, text = line[:3], line[3:4], line[4:]
        if not (len(code) == 3 and code.isascii() and code.isdigit() and mark in ("", " ", "-")):
            self._end(SMTPResponseException(_NO_REPLY, f"Malformed SMTP response line: {line}"))
            return
        self._lines.append(text.strip())
        if mark == "-":
            return
        answer, self._lines = (int(code), "\n".join(self._lines)), []
        if not self._owed:
            # Said unasked, most often 421 before it closes: the next command must not read it as its own.
            self._end(SMTPServerDisconnected(f"{answer[0]} {answer[1]}"))
            return
        self._owed -= 1
        self._answers.append(answer)
        self._wake()

    def eof_received(self) -> bool:
        self._end(SMTPServerDisconnected("Unexpected EOF received"))
        return False  # closes the transport

    def connection_lost(self, exc: Exception | None) -> None:
        lost = SMTPServerDisconnected("Connection lost")
        lost.__cause__ = exc
        self._end(lost)

    def _end(self, fault: Exception) -> None:
        self._fault = self._fault or fault
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
