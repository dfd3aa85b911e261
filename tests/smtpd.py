"""A scripted SMTP server on a real socket: it keeps the mails that it accepts, and misbehaves where it is told to.

A script is a list of rules: at this step, for these sessions, do this act instead of the ordinary one. Steps are
`greeting ehlo starttls auth mail rcpt data body dot rset noop quit`: `data` is the command, `body` the moment before
the message is read, `dot` the reply to it.
"""

import asyncio
import base64
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import trustme

from server.mail.connection import Relay

# Octets of a line or a message.
LARGEST = 2**22


@dataclass(frozen=True, slots=True)
class Mail:
    """What was accepted: the envelope, the bytes without dot-stuffing, and the number of the connection."""

    sender: str
    recipients: list[str]
    data: bytes
    connection: int


class Certificates:
    """An authority of our own: what a server shows, and what a client that trusts it uses."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.authority = trustme.CA()
        self.host = host

    @cached_property
    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(self.host).configure_cert(context)
        return context

    @cached_property
    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


class Cut(Exception):
    """The script ends the connection."""


class Session:
    """One connection. `number` counts from 1; `mail` is the number of its latest MAIL among all of the server."""

    def __init__(self, server: "Smtpd", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.number = server.connections
        self.encrypted = writer.get_extra_info("ssl_object") is not None
        self.code = 0
        self.mail = 0
        self.begun = False
        self.sender = ""
        self.recipients: list[str] = []
        self.data = b""

    async def say(self, code: int, *lines: str) -> None:
        """Answers, on several lines if there are several; `code` stays known as the last one."""
        self.code = code
        marks = ["-"] * (len(lines) - 1) + [" "]
        self.writer.write("".join(f"{code}{mark}{line}\r\n" for mark, line in zip(marks, lines, strict=True)).encode())
        await self.writer.drain()

    async def act(self, step: str, ordinary: "Act") -> None:
        for rule in self.server.rules:
            if rule.step == step and rule.times != 0 and rule.when(self):
                rule.times -= 1
                await rule.act(self)
                return
        await ordinary(self)

    def keep(self) -> None:
        self.server.mails.append(Mail(self.sender, list(self.recipients), self.data, self.number))

    # -- the dialogue ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        await self.act("greeting", reply(220, "smtpd"))
        while line := await self.reader.readline():
            command = line.decode("latin-1").rstrip("\r\n")
            verb, _, rest = command.partition(" ")
            self.server.lines.append(command if self.encrypted else f"clear: {command}")
            self.server.commands[verb] += 1
            handler = getattr(self, f"_{verb.lower()}", None)
            await (handler(rest) if handler else self.say(500, "what?"))

    async def _ehlo(self, name: str) -> None:
        extensions = [one for one in self.server.extensions if one != "STARTTLS" or not self.encrypted]
        await self.act("ehlo", reply(250, "smtpd", *extensions))

    async def _helo(self, name: str) -> None:
        await self.act("helo", reply(250, "smtpd"))

    async def _starttls(self, _: str) -> None:
        await self.act("starttls", _secure)

    async def _auth(self, rest: str) -> None:
        mechanism, _, initial = rest.partition(" ")
        if mechanism == "PLAIN":
            self.server.logins.append(base64.b64decode(initial).decode())
        elif mechanism == "LOGIN":
            name = base64.b64decode(initial).decode() if initial else await self.ask("VXNlcm5hbWU6")
            self.server.logins.append(f"\0{name}\0{await self.ask('UGFzc3dvcmQ6')}")
        elif mechanism == "CRAM-MD5":
            challenge = "<1896.697170952@smtpd>"
            self.server.logins.append(await self.ask(base64.b64encode(challenge.encode()).decode()))
        else:
            return await self.say(504, "unknown mechanism")
        await self.act("auth", reply(235, "welcome"))

    async def ask(self, challenge: str) -> str:
        """What the client answers to a step of a sign-in, decoded."""
        await self.say(334, challenge)
        return base64.b64decode(await self.reader.readline()).decode()

    async def _mail(self, rest: str) -> None:
        self.server.begun += 1
        self.mail = self.server.begun
        self.sender, self.recipients = _address(rest), []
        await self.act("mail", reply(250, "ok"))
        self.begun = self.code == 250

    async def _rcpt(self, rest: str) -> None:
        if not self.begun:  # commands that come together go on after a refusal (RFC 2920)
            return await self.say(503, "who from?")
        self.recipients.append(_address(rest))
        await self.act("rcpt", reply(250, "ok"))
        if self.code not in (250, 251, 252):
            self.recipients.pop()

    async def _data(self, _: str) -> None:
        if not self.recipients:
            return await self.say(554, "no valid recipients")
        await self.act("data", reply(354, "go on"))
        if self.code != 354:
            return
        await self.act("body", nothing)
        stuffed = b"\r\n" + await self.reader.readuntil(b"\r\n.\r\n")
        self.data = stuffed[2:-3].replace(b"\r\n..", b"\r\n.")
        if self.data.startswith(b".."):
            self.data = self.data[1:]
        await self.act("dot", accept)

    async def _rset(self, _: str) -> None:
        self.sender, self.recipients = "", []
        await self.act("rset", reply(250, "ok"))

    async def _noop(self, _: str) -> None:
        await self.act("noop", reply(250, "ok"))

    async def _quit(self, _: str) -> None:
        self.server.leaves(self)
        await self.act("quit", reply(221, "bye"))
        raise Cut


def _address(rest: str) -> str:
    return rest.partition("<")[2].partition(">")[0]


Act = Callable[[Session], Awaitable[None]]


def _always(_: Session) -> bool:
    return True


@dataclass
class Rule:
    """At `step` of the sessions that fit `when`, do `act`, so many `times` (-1: for ever)."""

    step: str
    act: Act
    when: Callable[[Session], bool] = _always
    times: int = -1


@dataclass
class Smtpd:
    """The server, its script, and what it saw. `lines` are the commands; those outside TLS begin with `clear: `."""

    extensions: list[str] = field(default_factory=lambda: ["SIZE 1000000", "8BITMIME", "PIPELINING"])
    certificates: Certificates | None = None
    implicit_tls: bool = False
    narrow: bool = False
    """Small buffers: no more than some kilobytes are on their way, and the rest waits in the client."""
    rules: list[Rule] = field(default_factory=list)
    mails: list[Mail] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    commands: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    begun: int = 0
    most_open: int = 0
    port: int = 0

    def __post_init__(self) -> None:
        self._present: set[Session] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def open(self) -> int:
        """How many connections there are that did not say QUIT."""
        return len(self._present)

    def on(self, step: str, act: Act, when: Callable[[Session], bool] = _always, times: int = -1) -> Rule:
        """Adds a rule; the earliest that fits wins."""
        self.rules.append(Rule(step, act, when, times))
        return self.rules[-1]

    def relay(self, **more: Any) -> Relay:
        """Where it listens, for a client that trusts its certificate; impatient, so that a hang is soon a timeout."""
        context = self.certificates.client if self.certificates else None
        return Relay("127.0.0.1", self.port, **{"timeout": 5, "content_timeout": 5, "tls_context": context, **more})

    def leaves(self, session: Session) -> None:
        self._present.discard(session)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(task := asyncio.ensure_future(self._serve(reader, writer)))
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        session = Session(self, reader, writer)
        self._present.add(session)
        self.most_open = max(self.most_open, self.open)
        try:
            with suppress(Cut, OSError, asyncio.IncompleteReadError):
                await session.run()
        finally:
            self.leaves(session)
            writer.close()
            with suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), 0.2)
            writer.transport.abort()

    async def stop(self) -> None:
        """Cuts every connection."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator["Smtpd"]:
        """Listens on `port`, or on a free one."""
        context = self.certificates.server if self.certificates and self.implicit_tls else None
        server = await asyncio.start_server(self.serve, "127.0.0.1", port, ssl=context, limit=LARGEST)
        self.port = server.sockets[0].getsockname()[1]
        if self.narrow:
            # By its largest segment the kernel also reckons how much a sender may leave with it.
            server.sockets[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            yield self
        finally:
            server.close()
            await self.stop()


# -- acts --------------------------------------------------------------------------------------------------------------


def reply(code: int, *lines: str) -> Act:
    """Says this, and goes on."""

    async def act(session: Session) -> None:
        await session.say(code, *(lines or ("so it is",)))

    return act


def farewell(code: int = 421, words: str = "closing") -> Act:
    """Says this and closes."""

    async def act(session: Session) -> None:
        await session.say(code, words)
        raise Cut

    return act


async def nothing(session: Session) -> None:
    """As if nothing had happened."""


async def accept(session: Session) -> None:
    """Keeps the mail and says so."""
    session.keep()
    await session.say(250, f"kept as {len(session.server.mails)}")


async def close(session: Session) -> None:
    """Closes without a word."""
    raise Cut


async def reset(session: Session) -> None:
    """Ends the connection with RST, as a firewall or a crashed host does."""
    sock: socket.socket = session.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    session.writer.transport.abort()
    raise Cut


async def hang(session: Session) -> None:
    """Says nothing more, until the client goes."""
    while await session.reader.read(65536):
        pass
    raise Cut


async def deaf(session: Session) -> None:
    """Reads nothing more and says nothing that ends, until the client has really gone."""
    transport = session.writer.transport
    transport.pause_reading()  # type: ignore[attr-defined]
    while not transport.is_closing():
        transport.write(b" ")  # only a write tells that nobody is there
        await asyncio.sleep(0.05)
    raise Cut


async def dribble(session: Session) -> None:
    """Says one byte after the other of an answer that never ends, until the client goes."""
    while True:
        for byte in b"250-and so on\r\n":
            session.writer.write(bytes([byte]))
            await session.writer.drain()
            await asyncio.sleep(0.01)


def drip(code: int) -> Act:
    """Says this one byte at a time."""

    async def act(session: Session) -> None:
        session.code = code
        for byte in f"{code}-first\r\n{code} last\r\n".encode():
            session.writer.write(bytes([byte]))
            await session.writer.drain()
            await asyncio.sleep(0.001)

    return act


def late(seconds: float, code: int) -> Act:
    """Says this after a while."""

    async def act(session: Session) -> None:
        await asyncio.sleep(seconds)
        await session.say(code, "at last", *(session.server.extensions if code == 250 else []))

    return act


def cut_after(size: int) -> Act:
    """At `body`: reads so many bytes of the message and ends the connection."""

    async def act(session: Session) -> None:
        await session.reader.readexactly(size)
        await reset(session)

    return act


async def accept_silently(session: Session) -> None:
    """Keeps the mail, and the connection is gone before the reply."""
    session.keep()
    await reset(session)


async def accept_and_close(session: Session) -> None:
    """Keeps the mail, says so, and closes at once."""
    await accept(session)
    raise Cut


async def accept_and_reset(session: Session) -> None:
    """Keeps the mail, says so, and ends the connection with RST."""
    await accept(session)
    await reset(session)


async def _secure(session: Session) -> None:
    assert session.server.certificates, "no certificate to offer STARTTLS with"
    await session.say(220, "go on")
    await session.writer.start_tls(session.server.certificates.server)
    session.encrypted = True
