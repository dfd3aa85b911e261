"""One SMTP connection: opened, used for one mail at a time, closed.

aiosmtplib opens it (greeting, TLS, sign-in); the mails go through a `Dialogue`. It is fit for another mail only while
every command has had its complete reply: a cancelled call leaves one behind, and the next command would read it.
"""

import asyncio
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import aiosmtplib

from server.mail.dialogue import Dialogue
from server.mail.errors import FAULTS, Held, Refused, Stage, clean, translate

Tls = Literal["none", "starttls", "tls"]


@dataclass(frozen=True, slots=True)
class Relay:
    """Where mail goes: the server, how safe the way is, and as whom. `timeout` is in seconds, per command.

    `content_timeout` is for the reply to the message. RFC 5321 section 4.5.3.2.6 asks for ten minutes: a relay that
    scans takes its time, and who hangs up too early sends the mail again and again.
    """

    host: str
    port: int
    tls: Tls = "none"
    username: str | None = None
    password: str | None = None
    local_hostname: str = "localhost"
    timeout: float = 30
    content_timeout: float = 600
    tls_context: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"<Relay {self.host}:{self.port} tls={self.tls}>"


@dataclass(frozen=True, slots=True)
class Reply:
    """The server's answer to one step."""

    stage: Stage
    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


# What would end a command and begin another (aiosmtplib GHSA-v3q9-hj7j-63hq), or the address in it.
_NO_ADDRESS = re.compile(r"[\x00-\x20\x7f<>]")

_Command = tuple[Stage, bytes]
# 251 and 252: "will forward" and "will try" (RFC 5321 section 3.4)
_WELCOME = {Stage.MAIL: (250,), Stage.RCPT: (250, 251, 252), Stage.DATA: (354,), Stage.CONTENT: (250,)}


class Connection:
    """A dialogue with the relay. `clean` says that it can take another mail."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.sent = 0
        self.used_at = self.expires_at = 0.0
        self.reused = False
        """It has been idle since it was opened: the server may have closed it, and we not know yet."""
        self.under_way = False
        """The message is being sent and its reply not yet here: it may be accepted, whatever happens now."""
        self._dialogue: Dialogue | None = None
        self._extensions: dict[str, str] = {}
        self._smtp = aiosmtplib.SMTP(
            hostname=relay.host,
            port=relay.port,
            username=relay.username,
            password=relay.password,
            local_hostname=relay.local_hostname,
            timeout=relay.timeout,
            use_tls=relay.tls == "tls",
            # True, never None: None is opportunistic, and whoever sits in between can take the offer away.
            start_tls=relay.tls == "starttls",
            tls_context=relay.tls_context,
        )

    def __repr__(self) -> str:
        state = "clean" if self.clean else "open" if self.established else "closed"
        return f"<Connection {self.relay.host}:{self.relay.port} {state} sent={self.sent}>"

    @property
    def clean(self) -> bool:
        """Connected, and every command so far has had its complete reply."""
        return self._dialogue is not None and self._dialogue.in_step and not self.under_way

    @property
    def established(self) -> bool:
        """Opened, and not yet closed."""
        return self._dialogue is not None and self._dialogue.open

    @property
    def encryption(self) -> str | None:
        """The TLS version in use, or None."""
        ssl_object = self._smtp.get_transport_info("ssl_object") if self.established else None
        return ssl_object.version() if ssl_object else None

    async def open(self) -> Reply:
        """Connects, greets, secures and signs in. Raises Held or Deferred; the connection is then closed."""
        try:
            # One limit for the whole: a server that dribbles could spend the timeout on each line anew.
            async with asyncio.timeout(self.relay.timeout * 2):
                greeting = await self._smtp.connect()
                if self._smtp.is_ehlo_or_helo_needed:
                    await self._smtp.ehlo()
            if self._smtp.transport is None:
                raise aiosmtplib.SMTPServerDisconnected("Connection lost")
        except FAULTS as error:
            self.abort()
            raise translate(error, Stage.CONNECT) from error
        except BaseException:
            self.abort()
            raise
        self._extensions = dict(self._smtp.esmtp_extensions)
        self._dialogue = Dialogue(self._smtp.transport)
        return Reply(Stage.CONNECT, greeting.code, clean(greeting.message))

    async def send(self, sender: str, recipient: str, message: bytes) -> list[Reply]:
        """Sends one mail (CRLF lines, no dot-stuffing) and answers the replies to each step, the last one the 250.

        Where the server offers PIPELINING (RFC 2920), all commands go in one round trip.
        Raises Refused, Deferred, Held or Uncertain. After Refused the connection is reset and may be clean again.
        """
        self.under_way = False
        # First what needs no server: a mail that cannot be sent by its nature fails alone, and disturbs no connection.
        content = self._content(message)
        commands = self._commands(sender, recipient, len(message))
        stage = Stage.MAIL
        replies: list[Reply] = []
        groups = [commands] if "pipelining" in self._extensions else [[command] for command in commands]
        try:
            for group in groups:
                self._write(b"".join(line for _, line in group), len(group))
                for number, (stage, _) in enumerate(group):
                    replies.append(await self._reply(stage, self.relay.timeout, owed=group[number + 1 :]))
            stage, self.under_way = Stage.CONTENT, True
            self._write(content, 1)
            replies.append(await self._reply(stage, self.relay.content_timeout))
            self.under_way = False
        except FAULTS as error:
            await self._reset(error)
            failure = translate(error, stage)
            if failure.code == 552 and isinstance(failure, Held):  # SIZE: this mail is too large (RFC 1870)
                failure = Refused(stage, failure.code, failure.reply)
            raise failure from error
        self.sent += 1
        return [reply for reply in replies if reply.stage is not Stage.DATA]

    def _content(self, message: bytes) -> bytes:
        size = self._extensions.get("size", "")
        if re.fullmatch(r"[0-9]{1,18}", size) and 0 < int(size) < len(message):
            raise Refused(Stage.MAIL, None, f"the message has {len(message)} bytes, and the server takes {size}")
        try:
            return dot_stuffed(message)
        except ValueError as error:
            raise Refused(Stage.CONTENT, None, str(error)) from None

    def _commands(self, sender: str, recipient: str, size: int) -> list[_Command]:
        options = f" SIZE={size}" if "size" in self._extensions else ""
        for stage, address in ((Stage.MAIL, sender), (Stage.RCPT, recipient)):
            if _NO_ADDRESS.search(address):
                raise Refused(stage, None, "the address holds a character that no address may hold")
            if not address.isascii():
                if "smtputf8" not in self._extensions:
                    raise Refused(stage, None, "the address needs SMTPUTF8, which the server does not offer")
                options = options.removesuffix(" SMTPUTF8") + " SMTPUTF8"
        mail, rcpt = f"MAIL FROM:<{sender}>{options}\r\n", f"RCPT TO:<{recipient}>\r\n"
        return [
            (Stage.MAIL, mail.encode("utf-8", "replace")),
            (Stage.RCPT, rcpt.encode("utf-8", "replace")),
            (Stage.DATA, b"DATA\r\n"),
        ]

    def _write(self, data: bytes, replies: int) -> None:
        if self._dialogue is None:
            raise aiosmtplib.SMTPServerDisconnected("Not connected")
        self._dialogue.write(data, replies)

    async def _reply(self, stage: Stage, timeout: float, owed: list[_Command] | None = None) -> Reply:
        """The reply to this step. Raises SMTPResponseException where it is unwelcome, after those that are owed too."""
        if self._dialogue is None:
            raise aiosmtplib.SMTPServerDisconnected("Not connected")
        code, text = await self._dialogue.read(timeout)
        if code in _WELCOME[stage]:
            return Reply(stage, code, clean(text))
        with suppress(*FAULTS):
            for later, _ in owed or ():
                late, _ = await self._dialogue.read(timeout)
                if later is Stage.DATA and late == 354:
                    self.abort()  # it waits for a message, and has nobody to send it to
        raise aiosmtplib.SMTPResponseException(code, text)

    async def _reset(self, error: Exception) -> None:
        """After a complete but unwelcome reply the dialogue is in step: RSET, and the next mail can have it."""
        complete = isinstance(error, aiosmtplib.SMTPResponseException) and 400 <= error.code < 600
        self.under_way = False
        if not complete or getattr(error, "code", 0) == 421 or not self.clean:
            self.abort()
            return
        try:
            await self._command(b"RSET\r\n", self.relay.timeout)
        except FAULTS:
            self.abort()

    async def _command(self, line: bytes, timeout: float) -> None:
        self._write(line, 1)
        assert self._dialogue is not None
        code, text = await self._dialogue.read(timeout)
        if not 200 <= code < 300:
            raise aiosmtplib.SMTPResponseException(code, text)

    async def verify(self) -> None:
        """Asks whether the server is still there (NOOP). Raises Held or Deferred."""
        try:
            await self._command(b"NOOP\r\n", self.relay.timeout)
        except FAULTS as error:
            self.abort()
            raise translate(error, Stage.CONNECT) from error

    async def quit(self) -> None:
        """Says goodbye within a second or two where it can, and closes in any case."""
        try:
            if self.clean:
                with suppress(*FAULTS):
                    await self._command(b"QUIT\r\n", 2)
        finally:
            self.abort()

    def abort(self) -> None:
        """Closes at once, without a word: whatever is under way ends here."""
        if self._dialogue is not None:
            self._dialogue.abort()
        self._smtp.close()


def dot_stuffed(message: bytes) -> bytes:
    """The message as it goes over the wire: CRLF only, leading dots doubled, the final dot (RFC 5321 section 4.5.2).

    Raises ValueError for a bare CR or LF: servers disagree on what they end (SMTP smuggling, CVE-2023-51764).
    """
    if not message.count(b"\r\n") == message.count(b"\r") == message.count(b"\n"):
        raise ValueError("the message has a bare CR or LF")
    stuffed = message.replace(b"\r\n.", b"\r\n..")
    if stuffed.startswith(b"."):
        stuffed = b"." + stuffed
    return stuffed + (b".\r\n" if stuffed.endswith(b"\r\n") else b"\r\n.\r\n")
