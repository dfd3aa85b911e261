"""A mail as bytes: headers that the standard library encodes and we check once more, two bodies in quoted-printable.

Not `EmailMessage`: it decodes encoded words in what it is given, so that a subject such as
`=?utf-8?q?Hi=0D=0ABcc=3A_e=40x=2Ey?=` comes out as a Bcc header of its own (seen with Python 3.11.7).
"""

import quopri
import re
import secrets
import unicodedata
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from email.charset import QP, Charset
from email.header import Header
from email.utils import format_datetime, parseaddr, quote

_UTF8 = Charset("utf-8")
_UTF8.header_encoding = QP

# Unquoted (RFC 5322 section 3.2.3): what a header reader takes for one address, and the same that the envelope has.
_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+")
_UNFIT = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"  # part of words in Persian and Hindi, and of emoji
_FOLDED = re.compile(r"[ -~]*(\r\n[ \t]+[!-~][ -~]*)*")


@dataclass(frozen=True, slots=True)
class Content:
    """What a mail says: one line of subject, and the same in plain text and in HTML."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class Message:
    """A mail ready to send: the envelope's two addresses, and the bytes with CRLF lines."""

    sender: str
    recipient: str
    message_id: str
    data: bytes


def message_id(domain: str) -> str:
    """A new Message-ID on `domain` (RFC 5322 section 3.6.4)."""
    return f"<{uuid.uuid4().hex}@{domain}>"


def compose(
    content: Content,
    *,
    sender: str,
    recipient: str,
    domain: str,
    reply_to: str | None = None,
    date: datetime | None = None,
) -> Message:
    """Builds a mail from `sender` (`Name <address>` or an address) to one address, with its Message-ID on `domain`.

    Raises ValueError for an address that is not plain ASCII, or would need quotes.
    """
    # One line first: with a line break in the name, parseaddr finds the address in the wrong place.
    name, address = parseaddr(one_line(sender))
    identity = message_id(domain)
    boundary = f"=_{secrets.token_hex(16)}"  # "=_" cannot stand in quoted-printable
    headers = [
        ("From", _mailbox(name, address)),
        ("To", _address(recipient)),
        *([("Reply-To", _address(reply_to))] if reply_to else []),
        ("Subject", _unstructured("Subject", content.subject)),
        ("Date", format_datetime(date or datetime.now(UTC))),
        ("Message-ID", identity),
        # RFC 3834: keeps autoresponders from answering
        ("Auto-Submitted", "auto-generated"),
        ("MIME-Version", "1.0"),
        ("Content-Type", f'multipart/alternative; boundary="{boundary}"'),
    ]
    parts = [_part("plain", content.text, boundary), _part("html", content.html, boundary)]
    data = b"".join([*(_header(*header) for header in headers), b"\r\n", *parts, f"--{boundary}--\r\n".encode()])
    return Message(_address(address), _address(recipient), identity, data)


def one_line(text: str) -> str:
    """Text fit for a header: no control, format or separator characters but joiners, spaces collapsed, NFC."""
    plain = "".join(" " if unicodedata.category(char) in _UNFIT and char not in _JOINERS else char for char in text)
    return unicodedata.normalize("NFC", " ".join(plain.split()))


def _header(name: str, value: str) -> bytes:
    # The last gate: printable ASCII, and a line break only where a space and text follow it.
    if not _FOLDED.fullmatch(value):
        raise ValueError(f"{name} holds a character that no header may hold")
    return f"{name}: {value}\r\n".encode("ascii")


def _address(value: str) -> str:
    if not _ADDRESS.fullmatch(value):
        raise ValueError("not a plain ASCII address")
    return value


def _mailbox(name: str, address: str) -> str:
    line = one_line(name)
    if not line:
        return _address(address)
    # A long one is encoded, not folded: inside quotes a fold is text, and without quotes a comma ends the address.
    encoded = f'"{quote(line)}"' if _plain(line) and len(line) <= 60 else _encoded("From", line, _UTF8)
    return f"{encoded} <{_address(address)}>"


def _unstructured(name: str, text: str) -> str:
    line = one_line(text)
    return _encoded(name, line, "us-ascii" if _plain(line) else _UTF8)


def _plain(line: str) -> bool:
    # What looks like an encoded word is encoded itself, so that a reader sees what was written and decodes no more.
    return line.isascii() and "=?" not in line and all(len(word) < 60 for word in line.split())


def _encoded(name: str, line: str, charset: Charset | str) -> str:
    return Header(line, charset, maxlinelen=76, header_name=name).encode(linesep="\r\n")


def _part(subtype: str, text: str, boundary: str) -> bytes:
    head = _header("Content-Type", f'text/{subtype}; charset="utf-8"')
    head += _header("Content-Transfer-Encoding", "quoted-printable")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"
    body = quopri.encodestring(lines.encode("utf-8", "replace"))  # half a surrogate pair has no UTF-8
    return f"--{boundary}\r\n".encode() + head + b"\r\n" + body.replace(b"\n", b"\r\n")
