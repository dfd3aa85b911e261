"""What a server's words mean, where the code alone does not tell."""

import aiosmtplib
import pytest

from server.mail.errors import Held, MailError, Refused, Stage, translate

ABOUT_US = [
    (530, "5.7.0 Authentication required"),
    (535, "5.7.8 Authentication credentials invalid"),
    (550, "5.7.0 Must issue a STARTTLS command first"),
    (554, "5.7.1 <visitor@there.example>: Relay access denied"),
    (550, "5.7.1 Relaying denied"),
    (550, "5.7.1 Unable to relay. Relaying not permitted"),
    (553, "sorry, you are not permitted to relay through this server"),
]
ABOUT_THE_MAIL = [
    (550, "5.1.1 <visitor@there.example>: Recipient address rejected: User unknown in relay recipient table"),
    (554, "5.7.1 Message rejected as spam"),
    (550, "5.7.1 Our system has detected that this message is unsolicited"),
    (552, "5.2.2 Mailbox full"),
]


@pytest.mark.parametrize(("code", "words"), ABOUT_US)
@pytest.mark.parametrize("stage", [Stage.RCPT, Stage.DATA, Stage.CONTENT])
def test_refusal_of_ourselves_fails_no_mail(code: int, words: str, stage: Stage) -> None:
    assert type(seen(code, words, stage)) is Held


@pytest.mark.parametrize(("code", "words"), ABOUT_THE_MAIL)
@pytest.mark.parametrize("stage", [Stage.RCPT, Stage.CONTENT])
def test_refusal_of_the_mail_is_final(code: int, words: str, stage: Stage) -> None:
    assert type(seen(code, words, stage)) is Refused


def seen(code: int, words: str, stage: Stage) -> MailError:
    return translate(aiosmtplib.SMTPResponseException(code, words), stage)
