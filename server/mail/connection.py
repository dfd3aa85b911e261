"""One SMTP connection: opened, used for one mail at a time, closed. Knows aiosmtplib, so that nobody else must.

It is fit for another mail only while every command has had its complete reply: a cancelled call leaves one reply
behind, and the next command would read it as its own.
"""

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, cast

import aiosmtplib

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
        self._in_step = False
        self._transport: asyncio.BaseTransport | None = None
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
        state = "clean" if self.clean else "open" if self._smtp.is_connected else "closed"
        return f"<Connection {self.relay.host}:{self.relay.port} {state} sent={self.sent}>"

    @property
    def clean(self) -> bool:
        """Connected, and every command so far has had its complete reply."""
        return self._in_step and self._smtp.is_connected

    @property
    def encryption(self) -> str | None:
        """The TLS version in use, or None."""
        ssl_object = self._smtp.get_transport_info("ssl_object") if self._smtp.is_connected else None
        return ssl_object.version() if ssl_object else None

    async def open(self) -> Reply:
        """Connects, greets, secures and signs in. Raises Held or Deferred; the connection is then closed."""
        try:
            # One limit for the whole: a server that dribbles could spend the timeout on each line anew.
            async with asyncio.timeout(self.relay.timeout * 2):
                greeting = await self._smtp.connect()
                if self._smtp.is_ehlo_or_helo_needed:
                    await self._smtp.ehlo()
        except FAULTS as error:
            self.abort()
            raise translate(error, Stage.CONNECT) from error
        except BaseException:
            self.abort()
            raise
        self._in_step = True
        self._transport = self._smtp.transport
        return Reply(Stage.CONNECT, greeting.code, clean(greeting.message))

    async def send(self, sender: str, recipient: str, message: bytes) -> list[Reply]:
        """Sends one mail (CRLF lines, no dot-stuffing) and answers the replies to each step, the last one the 250.

        Raises Refused, Deferred, Held or Uncertain. After Refused the connection is reset and may be clean again.
        """
        self._in_step = self.under_way = False
        replies: list[Reply] = []
        stage = Stage.MAIL
        try:
            options = [f"SIZE={len(message)}"] if self._smtp.supports_extension("size") else []
            replies.append(self._heard(stage, await self._smtp.mail(sender, options=options)))
            stage = Stage.RCPT
            replies.append(self._heard(stage, await self._smtp.rcpt(recipient)))
            stage = Stage.DATA
            answer = await self._smtp.execute_command(b"DATA")
            if answer.code != 354:
                raise aiosmtplib.SMTPDataError(answer.code, answer.message)
            stage, self.under_way = Stage.CONTENT, True
            replies.append(self._heard(stage, await self._content(message)))
            self.under_way = False
        except FAULTS as error:
            await self._reset(error, stage)
            failure = translate(error, stage)
            if failure.code == 552 and isinstance(failure, Held):  # SIZE: this mail is too large (RFC 1870)
                failure = Refused(stage, failure.code, failure.reply)
            raise failure from error
        self.sent += 1
        self._in_step = True
        return replies

    @staticmethod
    def _heard(stage: Stage, response: aiosmtplib.SMTPResponse) -> Reply:
        return Reply(stage, response.code, clean(response.message))

    async def _content(self, message: bytes) -> aiosmtplib.SMTPResponse:
        # Not SMTP.data(): it sends command and message in one call, and a cut then does not tell whether the
        # message was under way. We own this connection alone, so its protocol is ours to write to.
        protocol = self._smtp.protocol
        if protocol is None:
            raise aiosmtplib.SMTPServerDisconnected("Connection lost")
        protocol.write(dot_stuffed(message))
        response = await protocol.read_response(timeout=self.relay.content_timeout)
        if response.code != 250:
            raise aiosmtplib.SMTPDataError(response.code, response.message)
        return response

    async def _reset(self, error: Exception, stage: Stage) -> None:
        """After a complete but unwelcome reply the dialogue is in step: RSET, and the next mail can have it."""
        complete = isinstance(error, aiosmtplib.SMTPResponseException) and 400 <= error.code < 600
        if not complete or getattr(error, "code", 0) == 421 or not self._smtp.is_connected:
            self.abort()
            return
        self.under_way = False
        try:
            await self._smtp.rset()
            self._in_step = True
        except FAULTS:
            self.abort()

    async def verify(self) -> None:
        """Asks whether the server is still there (NOOP). Raises Held or Deferred."""
        self._in_step = False
        try:
            await self._smtp.noop()
            self._in_step = True
        except FAULTS as error:
            self.abort()
            raise translate(error, Stage.CONNECT) from error

    async def quit(self) -> None:
        """Says goodbye within a second or two where it can, and closes in any case."""
        try:
            if self.clean:
                self._in_step = False
                with suppress(*FAULTS):
                    await self._smtp.quit(timeout=2)
        finally:
            self.abort()

    def abort(self) -> None:
        """Closes at once, without a word: whatever is under way ends here."""
        self._in_step = False
        # Ours as well: aiosmtplib forgets its own after a timeout.
        transport = self._smtp.transport or self._transport
        self._smtp.close()
        if transport is not None:
            # close() would first wait for a peer that does not read. No isinstance: uvloop's are of no asyncio class.
            cast(asyncio.WriteTransport, transport).abort()


def dot_stuffed(message: bytes) -> bytes:
    """The message as it goes over the wire: CRLF only, leading dots doubled, the final dot (RFC 5321 section 4.5.2).

    Raises ValueError for a bare CR or LF: servers disagree on what they end (SMTP smuggling, CVE-2023-51764).
    """
    if b"\r" in message.replace(b"\r\n", b"") or b"\n" in message.replace(b"\r\n", b""):
        raise ValueError("the message has a bare CR or LF")
    stuffed = message.replace(b"\r\n.", b"\r\n..")
    if stuffed.startswith(b"."):
        stuffed = b"." + stuffed
    return stuffed + (b".\r\n" if stuffed.endswith(b"\r\n") else b"\r\n.\r\n")
