"""What can become of a mail that was not accepted. Each kind asks for another answer, so each is a class.

The foreign errors of aiosmtplib, ssl and the sockets end here, in `translate`.
"""

import re
import ssl
from enum import StrEnum

import aiosmtplib


class Stage(StrEnum):
    """Where in the dialogue it ended (RFC 5321 section 4.1.1)."""

    CONNECT = "connect"  # greeting, EHLO, STARTTLS and AUTH too
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"  # the command, before 354
    CONTENT = "content"  # from the first byte of the message to the reply after the final dot


class MailError(Exception):
    """A mail was not accepted. `code` is the SMTP reply code or None, `reply` the server's words or the fault's.

    `reply` may hold addresses: it is for the row and the operator, never for the log.
    """

    def __init__(self, stage: Stage, code: int | None, reply: str) -> None:
        super().__init__(stage, code, reply)
        self.stage = stage
        self.code = code
        self.reply = reply

    def __str__(self) -> str:
        return f"{self.stage}: {self.code or ''} {self.reply}".replace("  ", " ")


class Refused(MailError):
    """This mail, for good: a 5xx to RCPT, to DATA or to the message."""


class Deferred(MailError):
    """Not now: a 4xx, a timeout, or a cut before the message was under way."""


class Held(MailError):
    """The operator's to mend: the relay cannot be reached, or refuses us or our sender. No mail is to blame."""


class Uncertain(MailError):
    """Cut after the message was under way, before its reply: it may have been accepted."""


def clean(text: str) -> str:
    """A server's words as one printable line of at most 500 characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:500]


def translate(error: Exception, stage: Stage) -> MailError:
    """The one border: what `error`, raised at `stage`, means for the mail (the table of outcomes in the design)."""
    if isinstance(error, aiosmtplib.SMTPResponseException) and error.code > 0:
        return _by_code(error.code, clean(error.message), stage)
    words = clean(str(error) or type(error).__name__)
    if stage is Stage.CONNECT:
        return Held(stage, None, words)
    if isinstance(error, UnicodeEncodeError | ValueError | aiosmtplib.SMTPNotSupported):
        return Refused(stage, None, words)  # by its nature: no later attempt could differ
    return Uncertain(stage, None, words) if stage is Stage.CONTENT else Deferred(stage, None, words)


# Said at RCPT or later, and still about us: not signed in (RFC 4954 section 6), or not allowed to send through here,
# which many servers only tell once they know the recipient.
_NOT_SIGNED_IN = (530, 534, 535, 538)
_ABOUT_US = re.compile(
    r"5\.7\.(0|8|9|11)\b|relay(ing)? (access )?(denied|not permitted|prohibited)|not permitted to relay", re.I
)


def _by_code(code: int, words: str, stage: Stage) -> MailError:
    if 400 <= code < 500:
        return Deferred(stage, code, words)
    if stage in (Stage.CONNECT, Stage.MAIL) or code in _NOT_SIGNED_IN or _ABOUT_US.search(words):
        return Held(stage, code, words)
    if 500 <= code < 600:
        return Refused(stage, code, words)
    # A reply of another class is no answer (RFC 5321 section 4.2.1): the server is out of step.
    return Uncertain(stage, code, words) if stage is Stage.CONTENT else Deferred(stage, code, words)


def loggable(error: BaseException) -> str:
    """Why, without the server's words where it spoke: those may hold addresses."""
    if isinstance(error, MailError):
        return f"{error.stage} {error.code or error.reply}"
    return str(error) or type(error).__name__


# What a broken connection, a bad certificate or a missing server raise, besides MailError.
FAULTS = (aiosmtplib.SMTPException, ssl.SSLError, OSError, ValueError)
