"""A mail as bytes: headers that the standard library encodes and we check once more, two bodies in quoted-printable.

What the mails of a sender share is a `Frame`, what they say a `Body`. Each is encoded and checked when it is made;
filling the one with the other is only joining.

Not `EmailMessage`: it decodes encoded words in what it is given, so that a subject such as
`=?utf-8?q?Hi=0D=0ABcc=3A_e=40x=2Ey?=` comes out as a Bcc header of its own (seen with Python 3.11.7).
"""

import re
import secrets
import time
import unicodedata
from binascii import b2a_qp
from collections.abc import Callable, Iterator, Mapping
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime
from email.charset import QP, Charset
from email.header import Header
from email.utils import format_datetime, parseaddr, quote
from functools import lru_cache
from html import unescape
from operator import itemgetter
from types import MappingProxyType
from urllib.parse import unquote

_UTF8 = Charset("utf-8")
_UTF8.header_encoding = QP

# Unquoted (RFC 5322 section 3.2.3): what a header reader takes for one address, and the same that the envelope has. Not
# longer than a mail server takes it (RFC 5321 section 4.5.3.1).
_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9.-]{1,255}")
_URL = re.compile(r"https?://[!-;=?-~]{1,900}")
_UNFIT = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"  # part of words in Persian and Hindi, and of emoji
# A line has at most 998 characters (RFC 5322 section 2.1.1), the name included.
_FOLDED = re.compile(r"[ -~]{0,900}(\r\n[ \t]+[!-~][ -~]{0,900})*")

# What quoted-printable leaves as it is, wherever it stands; a dot alone on a line would end the mail.
_SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")

# The same for every mail: "=_" cannot stand in quoted-printable, so no text can hold it.
_BOUNDARY = "=_doorbell_alternative"
_FIXED = (
    "Auto-Submitted: auto-generated\r\n"  # RFC 3834: keeps autoresponders from answering
    "MIME-Version: 1.0\r\n"
    f'Content-Type: multipart/alternative; boundary="{_BOUNDARY}"\r\n'
    "\r\n"
)
_PART = (
    f'--{_BOUNDARY}\r\nContent-Type: text/%b; charset="utf-8"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n'
).encode()
_PLAIN, _HTML, _END = _PART % b"plain", _PART % b"html", f"--{_BOUNDARY}--\r\n".encode()


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


@dataclass(frozen=True, slots=True)
class Body:
    """What a mail says, encoded: the line of its subject, and the two parts. One may go into any number of mails.

    `holes` has, by name, a sample of what each mail has its own of, always as long (the end of a link). Raises
    ValueError where a sample does not stand in both parts, also as something else (percent-encoded, in capitals), or
    where two overlap.
    """

    content: InitVar[Content]
    holes: InitVar[Mapping[str, str]] = MappingProxyType({})
    subject: str = field(init=False)
    lengths: Mapping[str, int] = field(init=False)
    _encoded: bytes = field(init=False)  # both parts; `%b` for each piece of a value
    _pieces: Callable[[bytes], tuple[bytes, ...]] = field(init=False)  # of all values in a row

    def __post_init__(self, content: Content, holes: Mapping[str, str]) -> None:
        for name, sample in holes.items():
            if not _SAFE.fullmatch(sample):
                raise ValueError(f"the {name} link must end in plain characters")
            for part, text in (("text", content.text), ("HTML", content.html)):
                _stands(name, sample, part, text)
        plain, html = _cut(_quoted(content.text), holes), _cut(_quoted(content.html), holes)
        cut = [_PLAIN, *plain, _HTML, *html, _END]
        object.__setattr__(self, "subject", _subject(content.subject))
        object.__setattr__(self, "lengths", {name: len(sample) for name, sample in holes.items()})
        if holes:
            whole = b"".join(b"%b" if isinstance(part, slice) else part.replace(b"%", b"%%") for part in cut)
            object.__setattr__(self, "_pieces", itemgetter(*(part for part in cut if isinstance(part, slice))))
        else:
            whole = b"".join(part for part in cut if isinstance(part, bytes))
        object.__setattr__(self, "_encoded", whole)

    def parts(self, holes: Mapping[str, str] = MappingProxyType({})) -> bytes:
        """Both parts, with these values in the holes. Raises ValueError for one that is missing, is of another length,
        or would have to be encoded."""
        if not self.lengths:
            return self._encoded
        values = ""
        for name, length in self.lengths.items():
            value = holes.get(name, "")
            if len(value) != length or not _SAFE.fullmatch(value):
                raise ValueError(f"the {name} link must end in {length} plain characters")
            values += value
        return self._encoded % self._pieces(values.encode("ascii"))


@dataclass(frozen=True, slots=True)
class Frame:
    """What the mails from one sender (`Name <address>` or an address) share; their Message-IDs are on `domain`.

    Raises ValueError for an address that is not plain ASCII, or would need quotes.
    """

    sender: InitVar[str]
    domain: str
    address: str = field(init=False)
    origin: str = field(init=False)

    def __post_init__(self, sender: str) -> None:
        # One line first: with a line break in the name, parseaddr finds the address in the wrong place.
        name, address = parseaddr(one_line(sender))
        object.__setattr__(self, "address", _address(address))
        object.__setattr__(self, "origin", _header("From", _mailbox(name, address)))
        _header("Message-ID", message_id(self.domain))

    def fill(
        self,
        body: Body,
        recipient: str,
        reply_to: str | None = None,
        date: datetime | None = None,
        holes: Mapping[str, str] = MappingProxyType({}),
        unsubscribe: str | None = None,
    ) -> Message:
        """The mail to one address, with a Message-ID of its own, and a link to unsubscribe with one click (RFC 8058).

        Raises ValueError like the frame itself and `Body.parts`.
        """
        identity = message_id(self.domain)
        lines = [
            self.origin,
            f"To: {_address(recipient)}\r\n",
            f"Reply-To: {_address(reply_to)}\r\n" if reply_to else "",
            body.subject,
            f"Date: {format_datetime(date) if date else _date(int(time.time()))}\r\n",
            f"Message-ID: {identity}\r\n",
            _unsubscribe(unsubscribe) if unsubscribe else "",
            _FIXED,
        ]
        return Message(self.address, recipient, identity, "".join(lines).encode("ascii") + body.parts(holes))


def compose(
    content: Content,
    *,
    sender: str,
    recipient: str,
    domain: str,
    reply_to: str | None = None,
    date: datetime | None = None,
) -> Message:
    """One mail, where there will be no second like it: see `Frame`."""
    return Frame(sender, domain).fill(Body(content), recipient, reply_to, date)


def message_id(domain: str) -> str:
    """A new Message-ID on `domain` (RFC 5322 section 3.6.4): the time, and 64 random bits.

    The time first: in an index that is kept by it, each new one comes after the last, and touches no other page.
    """
    return f"<{time.time_ns() // 1000:x}.{secrets.token_hex(8)}@{domain}>"


def one_line(text: str) -> str:
    """Text fit for a header: no control, format or separator characters but joiners, spaces collapsed, NFC."""
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(char) in _UNFIT and char not in _JOINERS else char for char in text)
    return unicodedata.normalize("NFC", " ".join(text.split()))


def _header(name: str, value: str) -> str:
    # The last gate: printable ASCII, and a line break only where a space and text follow it.
    if not _FOLDED.fullmatch(value):
        raise ValueError(f"{name} holds a character that no header may hold, or too many")
    return f"{name}: {value}\r\n"


def _unsubscribe(url: str) -> str:
    if not _URL.fullmatch(url):
        raise ValueError("not a URL that a header may hold")
    return _header("List-Unsubscribe", f"<{url}>") + _header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")


def _address(value: str) -> str:
    # Narrower than the gate above.
    if not _ADDRESS.fullmatch(value):
        raise ValueError("not a plain ASCII address")
    return value


@lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC))


def _mailbox(name: str, address: str) -> str:
    line = one_line(name)
    if not line:
        return _address(address)
    # A long one is encoded, not folded: inside quotes a fold is text, and without quotes a comma ends the address.
    encoded = f'"{quote(line)}"' if _plain(line) and len(line) <= 60 else _encoded("From", line, _UTF8)
    return f"{encoded} <{_address(address)}>"


# Many mails have the subject of the one before; encoding it costs more than all the rest.
@lru_cache(maxsize=64)
def _subject(text: str) -> str:
    line = one_line(text)
    return _header("Subject", _encoded("Subject", line, "us-ascii" if _plain(line) else _UTF8))


def _plain(line: str) -> bool:
    # What looks like an encoded word is encoded itself, so that a reader sees what was written and decodes no more.
    return line.isascii() and "=?" not in line and all(len(word) < 60 for word in line.split())


def _encoded(name: str, line: str, charset: Charset | str) -> str:
    return Header(line, charset, maxlinelen=76, header_name=name).encode(linesep="\r\n")


def _quoted(text: str) -> bytes:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"
    # Half a surrogate pair has no UTF-8.
    return b2a_qp(lines.encode("utf-8", "replace")).replace(b"\n", b"\r\n")


def _stands(name: str, sample: str, part: str, text: str) -> None:
    # Altered, it would not be found: each mail would have the sample's link there.
    plain = text.count(sample)
    if not plain:
        raise ValueError(f"the {name} link must stand in the {part} part as it is given")
    folded = sample.casefold()
    if max(read(text).casefold().count(folded) for read in (str, unquote, unescape)) > plain:
        raise ValueError(f"the {name} link stands in the {part} part in another spelling too")


def _broken(sample: str) -> re.Pattern[bytes]:
    """Finds `sample` in quoted-printable, also where a soft line break cuts it; not within what encodes another
    character."""
    return re.compile(b"(?<!=)(?<!=[0-9A-F])" + b"(?:=\r\n)?".join(re.escape(char.encode()) for char in sample))


def _cut(quoted: bytes, holes: Mapping[str, str]) -> Iterator[bytes | slice]:
    """A part: what is the same in every mail, and what is not: a slice of all values in a row for each stretch without
    a line break."""
    found, offset = [], 0
    for name, sample in holes.items():
        found += [(match.start(), match.end(), name, offset) for match in _broken(sample).finditer(quoted)]
        offset += len(sample)
    done = 0
    for start, end, name, seen in sorted(found):
        if start < done:
            raise ValueError(f"the {name} link lies within another")
        yield quoted[done:start]
        for piece in re.split(b"(=\r\n)", quoted[start:end]):
            if piece == b"=\r\n":
                yield piece
            elif piece:
                yield slice(seen, seen + len(piece))
                seen += len(piece)
        done = end
    yield quoted[done:]
