"""The built-in mailbox: a real SMTP server on a loopback port, and the Maildir where it keeps what it is sent.

For trying out and for development. It answers 250 once a mail is safely on the disk, and delivers nothing further.
"""

import asyncio
import email
import email.message
import email.policy
import mailbox
import os
import re
from binascii import a2b_qp
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakSet

from aiosmtpd.smtp import SMTP, Envelope, Session

from server import log

_log = log.get(__name__)

MAX_BYTES = 32 * 1024 * 1024

# The standard library numbers a process's mails in one class attribute, whatever thread or Maildir they come from.
_numbering = Lock()


@dataclass(frozen=True, slots=True)
class Caught:
    """A mail in the mailbox. `text` and `html` are the decoded bodies, None where there is none."""

    key: str
    received: datetime
    sender: str
    recipient: str
    subject: str
    text: str | None
    html: str | None
    source: str


class Mailbox:
    """A Maildir: what was caught, newest first. Safe for several processes, as a Maildir is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def open(self) -> None:
        """Makes the folders. Raises OSError."""
        # Not Maildir's `create`: it leaves an empty folder as it is, and fails where another process makes it too.
        for name in ("tmp", "new", "cur"):
            (self.folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    async def keep(self, sender: str, recipients: list[str], data: bytes) -> str:
        """Puts a mail on the disk and answers its key. Raises OSError."""
        head = f"Return-Path: <{sender}>\r\n" + "".join(f"Delivered-To: {recipient}\r\n" for recipient in recipients)
        return await asyncio.to_thread(self._write, head.encode("utf-8", "replace") + data)

    def _write(self, data: bytes) -> str:
        with _numbering:
            key = mailbox.Maildir(self.folder).add(data)  # syncs the file, not the folder that names it
        descriptor = os.open(self.folder / "new", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return key

    async def newest(self, limit: int, offset: int = 0) -> tuple[int, list[Caught]]:
        """How many there are, and `limit` of them from `offset` on."""
        return await asyncio.to_thread(self._newest, limit, offset)

    def _newest(self, limit: int, offset: int) -> tuple[int, list[Caught]]:
        box = mailbox.Maildir(self.folder)
        keys = sorted(box.keys(), key=_order, reverse=True)
        return len(keys), [caught for key in keys[offset : offset + limit] if (caught := _read(box, key))]

    async def get(self, key: str) -> Caught | None:
        """One mail, or None."""
        return await asyncio.to_thread(lambda: _read(mailbox.Maildir(self.folder), key))

    async def about(self, address: str, message_ids: Collection[str] = ()) -> list[Caught]:
        """The mails that name this address anywhere, and those with these Message-IDs, oldest first; none where there
        is no mailbox. Capitals do not matter."""
        return await asyncio.to_thread(self._about, address, message_ids)

    def _about(self, address: str, message_ids: Collection[str]) -> list[Caught]:
        if not (self.folder / "new").is_dir():
            return []
        box = mailbox.Maildir(self.folder)
        named = naming(address)
        ids = [message_id.encode() for message_id in message_ids]
        found = []
        for key in sorted(box.keys(), key=_order):
            data = _bytes(box, key) or b""
            if named(data) or any(one in data for one in ids):
                found.append(_read(box, key))
        return [caught for caught in found if caught is not None]

    async def remove(self, keys: Collection[str]) -> None:
        """Removes these mails; what is gone already is fine. Raises OSError."""
        await asyncio.to_thread(self._remove, keys)

    def _remove(self, keys: Collection[str]) -> None:
        box = mailbox.Maildir(self.folder)
        for key in keys:
            box.discard(key)


def naming(address: str) -> Callable[[bytes], bool]:
    """Tells of mails in quoted-printable, as all of ours are, which name this address. Capitals do not matter."""
    # As a whole word: it is also the end, or the beginning, of other people's.
    name = re.compile(rb"(?<![\w.+-])" + re.escape(address.lower().encode()) + rb"(?![\w-]|\.\w)")
    return lambda data: name.search(a2b_qp(data).lower()) is not None


def _order(key: str) -> tuple[int, ...]:
    """A Maildir's names begin with seconds, then microseconds and a counter, none of them padded."""
    found = re.match(r"(\d+)\.M(\d+)P\d+Q(\d+)", key)
    return tuple(int(part) for part in found.groups()) if found else (0,)


def _bytes(box: "mailbox.Maildir", key: str) -> bytes | None:
    try:
        return box.get_bytes(key)
    except (KeyError, FileNotFoundError):  # the latter: removed since the folder was read
        return None


def _read(box: "mailbox.Maildir", key: str) -> Caught | None:
    if (data := _bytes(box, key)) is None:
        return None
    parsed = email.message_from_bytes(data, policy=email.policy.default)
    return Caught(
        key=key,
        received=datetime.fromtimestamp(_order(key)[0], UTC),
        sender=header(parsed, "From"),
        recipient=header(parsed, "Delivered-To"),
        subject=header(parsed, "Subject") or "(no subject)",
        text=body(parsed, "plain"),
        html=body(parsed, "html"),
        source=data.decode("utf-8", "replace"),
    )


def header(parsed: email.message.EmailMessage, name: str) -> str:
    """A header's decoded value; empty where there is none, or it cannot be read."""
    try:
        return str(parsed.get(name, ""))
    except Exception:  # the parser of the standard library raises many kinds on what is not a header
        return ""


def body(parsed: email.message.EmailMessage, kind: str) -> str | None:
    """The decoded body, `plain` or `html`; None where there is none, or it cannot be read."""
    try:
        part = parsed.get_body((kind,))
        return str(part.get_content()) if part is not None else None
    except Exception:
        return None


class _Handler:
    def __init__(self, box: Mailbox) -> None:
        self._box = box

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.content
        data = content if isinstance(content, bytes) else str(content).encode()
        try:
            await self._box.keep(envelope.mail_from or "", envelope.rcpt_tos, data)
        except (OSError, mailbox.Error) as error:
            _log.error("mailbox.full", reason=str(error))
            return "452 4.3.1 The mailbox cannot be written to"
        return "250 2.0.0 Kept in the built-in mailbox"


@asynccontextmanager
async def catching(box: Mailbox) -> AsyncIterator[int]:
    """Listens on a free loopback port, which it yields, and keeps what comes in `box`."""
    loop = asyncio.get_running_loop()
    sessions: WeakSet[Any] = WeakSet()

    def protocol() -> Any:
        session = SMTP(_Handler(box), data_size_limit=MAX_BYTES, enable_SMTPUTF8=True, hostname="localhost", loop=loop)
        sessions.add(session)
        return session

    server = await loop.create_server(protocol, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        # 3.12 and later wait for every connection, a stranger's too.
        for session in sessions:
            if session.transport is not None:
                session.transport.abort()
        await server.wait_closed()
