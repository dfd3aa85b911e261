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


# What replies mean. Codes first, for they are for machines; words where servers give no code.
_STATUS = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?!\d)")
_GREYLISTED = re.compile(r"gr[ea]y-?list|postgrey|4\.7\.1\b.*(later|minute|second)|try again in \d", re.I)
_THROTTLED = re.compile(r"4\.3\.2\b|4\.7\.28\b|too many|too fast|rate.?limit|throttl", re.I)
# No such mailbox, no such domain, bad syntax, moved, a domain that takes no mail (RFC 3463, RFC 7505).
_DEAD = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"})
_NOBODY = re.compile(
    r"(no such|unknown|invalid|non-?existent) (user|recipient|mailbox|address|account)"
    r"|(user|recipient|mailbox|address|account) (is )?(unknown|not found|does not exist|doesn't exist|invalid)",
    re.I,
)


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

    @property
    def status(self) -> str | None:
        """The enhanced status code, such as 5.1.1 (RFC 3463), where the server gives one."""
        found = _STATUS.match(self.reply) if self.code else None
        return found[1] if found else None

    @property
    def greylisted(self) -> bool:
        """Not now, for we are new here: a mail that comes back after some minutes is taken (RFC 6647)."""
        return self.code in (450, 451, 452) and bool(_GREYLISTED.search(self.reply))

    @property
    def throttled(self) -> bool:
        """The server has more of us than it wants: fewer connections, and slower."""
        temporary = self.code is not None and 400 <= self.code < 500
        return self.code in (421, 454) or (temporary and bool(_THROTTLED.search(self.reply)))

    @property
    def no_such_mailbox(self) -> bool:
        """The address reaches nobody, and no later mail to it would."""
        if not isinstance(self, Refused) or self.stage is not Stage.RCPT or self.code is None:
            return False
        return self.status in _DEAD if self.status else bool(_NOBODY.search(self.reply))


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
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(text.split())[:500]


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
