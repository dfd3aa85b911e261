"""Every way a dialogue can end: the kind of error, whether the connection can go on, and what was said in the clear."""

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from socket import socket

import pytest

from server.mail.connection import Connection, Relay, dot_stuffed
from server.mail.errors import Deferred, Held, MailError, Refused, Stage, Uncertain
from tests.conftest import eventually
from tests.smtpd import (
    Act,
    Certificates,
    Session,
    Smtpd,
    accept_and_close,
    accept_and_reset,
    accept_silently,
    close,
    cut_after,
    deaf,
    dribble,
    drip,
    farewell,
    hang,
    late,
    reply,
    reset,
)
from tests.smtpd import reply as says

MESSAGE = b"Subject: Hello\r\n\r\nHow are you?\r\n"


@asynccontextmanager
async def connected(relay: Relay) -> AsyncIterator[Connection]:
    connection = Connection(relay)
    await connection.open()
    try:
        yield connection
    finally:
        await connection.quit()


async def send(connection: Connection, message: bytes = MESSAGE, to: str = "visitor@there.example") -> str:
    """Sends, and answers the last reply."""
    return str((await connection.send("site@here.example", to, message))[-1])


async def failure(connection: Connection) -> MailError:
    with pytest.raises(MailError) as caught:
        await send(connection)
    return caught.value


async def open_failure(relay: Relay) -> MailError:
    connection = Connection(relay)
    with pytest.raises(MailError) as caught:
        await connection.open()
    assert not connection.clean
    return caught.value


# -- what goes well --------------------------------------------------------------------------------------------------


async def test_accepted_mail_arrives_unchanged(smtpd: Smtpd) -> None:
    async with connected(smtpd.relay()) as connection:
        assert await send(connection) == "250 kept as 1"
        assert connection.clean
    [mail] = smtpd.mails
    assert (mail.sender, mail.recipients, mail.data) == ("site@here.example", ["visitor@there.example"], MESSAGE)


async def test_answers_the_reply_of_each_step(smtpd: Smtpd) -> None:
    async with connected(smtpd.relay()) as connection:
        replies = await connection.send("site@here.example", "visitor@there.example", MESSAGE)
    assert [reply.stage for reply in replies] == [Stage.MAIL, Stage.RCPT, Stage.CONTENT]


async def test_mails_share_a_connection(smtpd: Smtpd) -> None:
    async with connected(smtpd.relay()) as connection:
        for number in range(5):
            await send(connection, f"Subject: {number}\r\n\r\n".encode())
        assert connection.sent == 5
    assert [mail.data[9:10] for mail in smtpd.mails] == [b"0", b"1", b"2", b"3", b"4"]
    assert smtpd.connections == 1


async def test_quit_says_goodbye(smtpd: Smtpd) -> None:
    async with connected(smtpd.relay()) as connection:
        pass
    assert smtpd.commands["QUIT"] == 1
    assert not connection.clean


@pytest.mark.parametrize("step", ["greeting", "ehlo", "mail", "rcpt", "dot"])
async def test_replies_that_come_byte_by_byte_are_read(smtpd: Smtpd, step: str) -> None:
    smtpd.on(step, drip(220 if step == "greeting" else 250))
    async with connected(smtpd.relay()) as connection:
        assert (await send(connection)).startswith("250 ")
        assert connection.clean


async def test_size_is_told_only_where_it_is_offered(smtpd: Smtpd) -> None:
    async with connected(smtpd.relay()) as connection:
        await send(connection)
    smtpd.extensions.clear()
    async with connected(smtpd.relay()) as connection:
        await send(connection)
    told = [line for line in smtpd.lines if "MAIL" in line]
    assert [f"SIZE={len(MESSAGE)}" in line for line in told] == [True, False]


async def test_reply_is_kept_as_one_printable_line(smtpd: Smtpd) -> None:
    smtpd.on("rcpt", reply(550, "no \x1b[31msuch\x07", "user\u2028here " + "x" * 1000))
    async with connected(smtpd.relay()) as connection:
        error = await failure(connection)
    assert error.reply.startswith("no [31msuch user here xxx")
    assert error.reply.isprintable() and len(error.reply) == 500


# -- the table of outcomes -------------------------------------------------------------------------------------------

REPLIES: list[tuple[str, int, type[MailError]]] = [
    ("mail", 421, Deferred),
    ("mail", 451, Deferred),
    ("mail", 501, Held),
    ("mail", 530, Held),
    ("mail", 550, Held),
    ("mail", 552, Refused),  # SIZE (RFC 1870): this mail's fault, not the sender's
    ("rcpt", 421, Deferred),
    ("rcpt", 450, Deferred),
    ("rcpt", 452, Deferred),
    ("rcpt", 550, Refused),
    ("rcpt", 552, Refused),
    ("rcpt", 554, Refused),
    ("data", 421, Deferred),
    ("data", 451, Deferred),
    ("data", 550, Refused),
    ("data", 554, Refused),
    ("dot", 421, Deferred),
    ("dot", 451, Deferred),
    ("dot", 552, Refused),
    ("dot", 554, Refused),
    # No class of reply that can stand here: out of step.
    ("mail", 354, Held),
    ("rcpt", 354, Deferred),
    ("data", 250, Deferred),
    ("dot", 354, Uncertain),
    ("dot", 199, Uncertain),
]


@pytest.mark.parametrize(("step", "code", "kind"), REPLIES)
async def test_reply_decides_what_becomes_of_the_mail(
    smtpd: Smtpd, step: str, code: int, kind: type[MailError]
) -> None:
    smtpd.on(step, reply(code), times=1)
    async with connected(smtpd.relay()) as connection:
        error = await failure(connection)
        in_step = 400 <= code < 600 and code != 421
        assert connection.clean is in_step
        if in_step:
            await send(connection)
    assert type(error) is kind
    assert (error.stage, error.code) == ("content" if step == "dot" else step, code)
    assert len(smtpd.mails) == in_step
    assert smtpd.commands["RSET"] == in_step


CUTS: list[tuple[str, Act, type[MailError]]] = [
    ("mail", close, Deferred),
    ("mail", reset, Deferred),
    ("mail", farewell(), Deferred),
    ("mail", hang, Deferred),
    ("rcpt", close, Deferred),
    ("rcpt", reset, Deferred),
    ("rcpt", farewell(), Deferred),
    ("rcpt", hang, Deferred),
    ("rcpt", dribble, Deferred),
    ("data", close, Deferred),
    ("data", reset, Deferred),
    ("data", hang, Deferred),
    ("body", close, Uncertain),
    ("body", cut_after(10), Uncertain),
    ("body", hang, Uncertain),
    ("body", deaf, Uncertain),
    ("dot", farewell(), Deferred),
    ("dot", close, Uncertain),
    ("dot", hang, Uncertain),
    ("dot", dribble, Uncertain),
    ("dot", accept_silently, Uncertain),
]


def patience(act: Act) -> float:
    """Seconds that are waited for a server that does this: many, unless it is to be waited for in vain."""
    return 1.5 if act in (hang, deaf, dribble) else 20


@pytest.mark.parametrize(("step", "act", "kind"), CUTS)
async def test_cut_decides_what_becomes_of_the_mail(smtpd: Smtpd, step: str, act: Act, kind: type[MailError]) -> None:
    smtpd.on(step, act)
    async with connected(smtpd.relay(timeout=patience(act), content_timeout=patience(act))) as connection:
        error = await failure(connection)
        assert not connection.clean
    assert type(error) is kind
    assert "RSET" not in smtpd.commands


async def test_accepted_then_closed_is_sent_but_not_reused(smtpd: Smtpd) -> None:
    smtpd.on("dot", accept_and_close)
    async with connected(smtpd.relay()) as connection:
        assert await send(connection) == "250 kept as 1"
        await eventually(lambda: not connection.clean)


async def test_accepted_then_reset_is_sent_or_uncertain_never_lost(smtpd: Smtpd) -> None:
    smtpd.on("dot", accept_and_reset)
    async with connected(smtpd.relay()) as connection:
        try:
            assert await send(connection) == "250 kept as 1"
        except Uncertain:  # the reset overtook the reply
            assert not connection.clean
        await eventually(lambda: not connection.clean)


async def test_slow_scan_of_the_message_is_waited_for(smtpd: Smtpd) -> None:
    """Longer than a command may take."""
    smtpd.on("dot", late(1.5, 250))
    async with connected(smtpd.relay(timeout=1, content_timeout=60)) as connection:
        assert (await send(connection)).startswith("250 ")
        assert connection.clean


async def test_server_that_does_not_read_a_large_mail_is_let_go(smtpd: Smtpd) -> None:
    smtpd.extensions.clear()  # no SIZE
    smtpd.on("body", deaf)
    async with connected(smtpd.relay(content_timeout=0.3)) as connection:
        with pytest.raises(Uncertain):
            await send(connection, b"x" * 20_000_000 + b"\r\n")
        assert not connection.clean
        await eventually(lambda: smtpd.open == 0)


async def test_refusal_then_failing_reset_closes(smtpd: Smtpd) -> None:
    smtpd.on("rcpt", reply(550))
    smtpd.on("rset", reply(500))
    async with connected(smtpd.relay()) as connection:
        assert type(await failure(connection)) is Refused
        assert not connection.clean


async def test_after_a_refusal_nothing_of_the_refused_mail_is_left(smtpd: Smtpd) -> None:
    smtpd.on("rcpt", reply(550), when=lambda session: "nobody@there.example" in session.recipients)
    async with connected(smtpd.relay()) as connection:
        with pytest.raises(Refused):
            await send(connection, b"Subject: first\r\n\r\n", to="nobody@there.example")
        await send(connection, b"Subject: second\r\n\r\n")
    [mail] = smtpd.mails
    assert (mail.recipients, mail.data) == (["visitor@there.example"], b"Subject: second\r\n\r\n")
    assert smtpd.connections == 1


# -- opening -----------------------------------------------------------------------------------------------------------

GREETINGS: list[tuple[str, Act, type[MailError], int | None]] = [
    ("greeting", reply(554), Held, 554),
    ("greeting", farewell(), Deferred, 421),
    ("greeting", close, Held, None),
    ("greeting", reset, Held, None),
    ("greeting", hang, Held, None),
    ("greeting", dribble, Held, None),
    ("ehlo", farewell(), Deferred, 421),
    ("ehlo", close, Held, None),
    ("ehlo", hang, Held, None),
]


@pytest.mark.parametrize(("step", "act", "kind", "code"), GREETINGS)
async def test_connection_that_does_not_come_about(
    smtpd: Smtpd, step: str, act: Act, kind: type[MailError], code: int | None
) -> None:
    smtpd.on(step, act)
    error = await open_failure(smtpd.relay(timeout=patience(act)))
    assert (type(error), error.stage, error.code) == (kind, Stage.CONNECT, code)
    await eventually(lambda: smtpd.open == 0)


async def test_server_that_speaks_no_ehlo_and_no_helo_is_held(smtpd: Smtpd) -> None:
    smtpd.on("ehlo", reply(550))
    smtpd.on("helo", reply(550))
    error = await open_failure(smtpd.relay())
    assert (type(error), error.code) == (Held, 550)


async def test_nobody_listens_is_held() -> None:
    with socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = await open_failure(Relay("127.0.0.1", unused.getsockname()[1]))
    assert (type(error), error.stage) == (Held, Stage.CONNECT)


async def test_name_that_does_not_resolve_is_held() -> None:
    assert type(await open_failure(Relay("relay.invalid", 25))) is Held


async def test_server_that_dribbles_for_ever_has_one_limit_for_all_of_it(smtpd: Smtpd) -> None:
    smtpd.on("greeting", drip(220))
    smtpd.on("ehlo", dribble)
    assert type(await open_failure(smtpd.relay(timeout=0.5))) is Held


async def test_server_that_is_slow_at_every_step_has_one_limit_for_all_of_them(smtpd: Smtpd) -> None:
    smtpd.extensions.append("AUTH PLAIN")
    for step, code in (("greeting", 220), ("ehlo", 250), ("auth", 235)):
        smtpd.on(step, late(0.4, code))
    error = await open_failure(smtpd.relay(timeout=0.5, username="me", password="secret"))
    assert (type(error), error.code) == (Held, None)


async def test_open_that_is_refused_says_so_without_the_password(smtpd: Smtpd) -> None:
    relay = smtpd.relay(username="me", password="secret")
    assert "secret" not in repr(relay) and "secret" not in repr(Connection(relay))
    error = await open_failure(relay)  # AUTH is not offered
    assert type(error) is Held and "secret" not in str(error)


async def test_unanswered_noop_tells_that_the_server_is_gone(smtpd: Smtpd) -> None:
    smtpd.on("noop", farewell())
    async with connected(smtpd.relay()) as connection:
        with pytest.raises(Deferred) as caught:
            await connection.verify()
        assert (caught.value.stage, caught.value.code) == (Stage.CONNECT, 421)
        assert not connection.clean


async def test_quit_does_not_wait_for_a_server_that_hangs(smtpd: Smtpd) -> None:
    smtpd.on("quit", hang)
    async with connected(smtpd.relay(timeout=60)) as connection:
        pass
    assert not connection.clean


# -- safety of the way -------------------------------------------------------------------------------------------------


def secure(certificates: Certificates, *extensions: str) -> Smtpd:
    return Smtpd(extensions=["SIZE", *extensions], certificates=certificates)


def in_the_clear(smtpd: Smtpd) -> list[str]:
    return [line.removeprefix("clear: ").split()[0] for line in smtpd.lines if line.startswith("clear: ")]


async def test_starttls_encrypts_all_but_the_beginning(certificates: Certificates) -> None:
    async with (
        secure(certificates, "STARTTLS", "AUTH PLAIN").listening() as smtpd,
        connected(smtpd.relay(tls="starttls", username="me", password="secret")) as connection,
    ):
        await send(connection)
        assert connection.encryption in ("TLSv1.2", "TLSv1.3")
    assert in_the_clear(smtpd) == ["EHLO", "STARTTLS"]
    assert smtpd.logins == ["\0me\0secret"]
    assert len(smtpd.mails) == 1


async def test_starttls_required_and_not_offered_is_held_and_nothing_is_told(certificates: Certificates) -> None:
    async with secure(certificates, "AUTH PLAIN").listening() as smtpd:
        error = await open_failure(smtpd.relay(tls="starttls", username="me", password="secret"))
        await eventually(lambda: smtpd.open == 0)
    assert type(error) is Held
    assert in_the_clear(smtpd) == ["EHLO"]


@pytest.mark.parametrize("code", [454, 501])
async def test_starttls_refused_is_not_gone_without(certificates: Certificates, code: int) -> None:
    async with secure(certificates, "STARTTLS").listening() as smtpd:
        smtpd.on("starttls", reply(code))
        error = await open_failure(smtpd.relay(tls="starttls"))
        await eventually(lambda: smtpd.open == 0)
    assert (type(error), error.code) == (Deferred if code == 454 else Held, code)
    assert in_the_clear(smtpd) == ["EHLO", "STARTTLS"]


async def test_certificate_of_an_unknown_authority_is_held(certificates: Certificates) -> None:
    async with secure(certificates, "STARTTLS").listening() as smtpd:
        error = await open_failure(smtpd.relay(tls="starttls", tls_context=None))
        assert in_the_clear(smtpd) == ["EHLO", "STARTTLS"]
    assert type(error) is Held and "certificate" in error.reply.lower()


async def test_certificate_of_another_host_is_held() -> None:
    async with secure(Certificates("mail.example"), "STARTTLS").listening() as smtpd:
        error = await open_failure(smtpd.relay(tls="starttls"))
    assert type(error) is Held and "127.0.0.1" in error.reply


async def test_tls_from_the_first_byte(certificates: Certificates) -> None:
    smtpd = Smtpd(certificates=certificates, implicit_tls=True)
    async with smtpd.listening(), connected(smtpd.relay(tls="tls")) as connection:
        await send(connection)
        assert connection.encryption in ("TLSv1.2", "TLSv1.3")
    assert in_the_clear(smtpd) == []


async def test_tls_where_the_server_speaks_none_is_held(smtpd: Smtpd) -> None:
    assert type(await open_failure(smtpd.relay(tls="tls", timeout=1))) is Held
    await eventually(lambda: smtpd.open == 0)


async def test_hang_inside_tls_is_cut_without_a_long_goodbye(certificates: Certificates) -> None:
    async with secure(certificates, "STARTTLS").listening() as smtpd:
        smtpd.on("rcpt", hang)
        connection = Connection(smtpd.relay(tls="starttls", timeout=2))
        await connection.open()
        assert type(await failure(connection)) is Deferred
        await eventually(lambda: smtpd.open == 0, seconds=10)


@pytest.mark.parametrize(("code", "kind"), [(535, Held), (534, Held), (454, Deferred)])
async def test_sign_in_that_fails_is_not_gone_without(smtpd: Smtpd, code: int, kind: type[MailError]) -> None:
    smtpd.extensions.append("AUTH PLAIN")
    smtpd.on("auth", reply(code))
    error = await open_failure(smtpd.relay(username="me", password="wrong"))
    assert (type(error), error.code) == (kind, code)
    assert "MAIL" not in smtpd.commands


# -- bytes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b".\r\n", b"..\r\n", b".hidden\r\n", b"a\r\n.\r\nb\r\n", b"a\r\n..\r\n.b\r\n\r\n.", b"no end", b"\r\n\r\n", b""],
)
async def test_dots_at_the_beginning_of_lines_survive(smtpd: Smtpd, body: bytes) -> None:
    message = b"Subject: dots\r\n\r\n" + body
    async with connected(smtpd.relay()) as connection:
        await send(connection, message)
        assert connection.clean
    [mail] = smtpd.mails
    assert mail.data == (message if message.endswith(b"\r\n") else message + b"\r\n")


async def test_message_that_begins_with_a_dot_survives(smtpd: Smtpd) -> None:
    async with connected(smtpd.relay()) as connection:
        await send(connection, b".\r\n.\r\n")
    assert [mail.data for mail in smtpd.mails] == [b".\r\n.\r\n"]


@pytest.mark.parametrize("bytes_", [b"\n.\r\n", b"\r.\r\n", b"a\n", b"a\r", b"\r\r\n", b"\n\r\n", b"a\r\n.\rb\r\n"])
async def test_bare_line_breaks_never_leave_the_house(smtpd: Smtpd, bytes_: bytes) -> None:
    with pytest.raises(ValueError, match="bare"):
        dot_stuffed(bytes_)
    async with connected(smtpd.relay()) as connection:
        with pytest.raises(Refused):
            await send(connection, bytes_)
        assert connection.clean  # nothing was said
    assert smtpd.begun == 0


@pytest.mark.parametrize(
    "address", ["a@b.c>\r\nDATA", "a@b.c\r\nRCPT TO:<h@x>", "a@b.c\nRSET", "a@b.c\0", "ä@b.example", "\ud800@b.example"]
)
async def test_addresses_cannot_carry_commands(smtpd: Smtpd, address: str) -> None:
    for sender, recipient in ((address, "visitor@there.example"), ("site@here.example", address)):
        async with connected(smtpd.relay()) as connection:
            with suppress(Refused):  # or goes to the part that is an address, and nowhere else
                await connection.send(sender, recipient, MESSAGE)
    assert smtpd.commands["MAIL"] <= 2 and smtpd.commands["RCPT"] <= 2
    assert smtpd.commands["DATA"] == len(smtpd.mails)
    assert {to for mail in smtpd.mails for to in mail.recipients} <= {"a@b.c", "visitor@there.example"}


# -- together or one by one --------------------------------------------------------------------------------------------


async def test_commands_go_together_only_where_that_is_offered(smtpd: Smtpd) -> None:
    pipelined = "PIPELINING" in smtpd.extensions
    seen: list[int] = []

    async def count(session: Session) -> None:
        await asyncio.sleep(0.05)  # what is sent together has come by now
        seen.append(session.reader._buffer.count(b"\r\n"))  # type: ignore[attr-defined]
        await session.say(250, "ok")

    smtpd.on("mail", count)
    async with connected(smtpd.relay()) as connection:
        await send(connection)
    assert seen == [2 if pipelined else 0]
    assert len(smtpd.mails) == 1


async def test_server_that_wants_a_message_for_nobody_is_left(smtpd: Smtpd) -> None:
    """It refused the recipient and says 354 all the same: what is sent now could be taken for a mail."""

    async def accept_data(session: Session) -> None:
        await session.say(354, "go on")

    async def refuse(session: Session) -> None:
        await session.say(550, "5.1.1 no such user")
        session.recipients.append("so that it goes on")

    smtpd.on("rcpt", refuse)
    smtpd.on("data", accept_data)
    connection = Connection(smtpd.relay())
    await connection.open()
    error = await failure(connection)
    assert isinstance(error, Refused) and error.stage is Stage.RCPT and error.no_such_mailbox
    assert connection.clean == ("PIPELINING" not in smtpd.extensions)
    await connection.quit()
    assert smtpd.mails == []


@pytest.mark.parametrize("method", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_signs_in_with_what_the_server_offers(smtpd: Smtpd, method: str) -> None:
    smtpd.extensions.append(f"AUTH {method}")
    async with connected(smtpd.relay(username="me", password="p@ss wörd" if method != "CRAM-MD5" else "secret")) as one:
        await send(one)
    expected = {
        "PLAIN": "\0me\0p@ss wörd",
        "LOGIN": "\0me\0p@ss wörd",
        # RFC 2195: HMAC-MD5 of the challenge
        "CRAM-MD5": "me " + hmac.new(b"secret", b"<1896.697170952@smtpd>", "md5").hexdigest(),
    }
    assert smtpd.logins == [expected[method]]


async def test_message_larger_than_the_server_takes_is_not_begun(smtpd: Smtpd) -> None:
    smtpd.extensions[:] = [one.replace("1000000", "1000") for one in smtpd.extensions]
    async with connected(smtpd.relay()) as connection:
        with pytest.raises(Refused, match="1002 bytes, and the server takes 1000"):
            await send(connection, b"x" * 1000 + b"\r\n")
        assert connection.clean
        await send(connection, b"x" * 998 + b"\r\n")
    assert smtpd.begun == len(smtpd.mails) == 1


@pytest.mark.parametrize("offered", [True, False])
async def test_address_beyond_ascii_needs_smtputf8(smtpd: Smtpd, offered: bool) -> None:
    if offered:
        smtpd.extensions.append("SMTPUTF8")
    async with connected(smtpd.relay()) as connection:
        if offered:
            await send(connection, to="zoë@there.example")
        else:
            with pytest.raises(Refused, match="SMTPUTF8, which the server does not offer"):
                await send(connection, to="zoë@there.example")
        assert connection.clean
    assert sum("SMTPUTF8" in line for line in smtpd.lines) == len(smtpd.mails) == offered


@pytest.mark.parametrize(
    ("reply", "greylisted", "throttled", "dead"),
    [
        ((451, "4.7.1 Greylisting in action, please come back later"), True, False, False),
        ((450, "4.2.0 <a@b>: Recipient address rejected: Greylisted for 300 seconds"), True, False, False),
        ((421, "4.7.0 Try again later"), False, True, False),
        ((454, "Throttling failure: maximum sending rate exceeded"), False, True, False),
        ((451, "4.3.2 System not accepting messages"), False, True, False),
        ((450, "4.7.28 rate limit"), False, True, False),
        ((452, "4.2.2 mailbox full"), False, False, False),
        ((550, "5.1.1 <a@b>: user unknown"), False, False, True),
        ((550, "5.1.10 RECIPIENT NOT FOUND"), False, False, True),
        ((550, "No such user here"), False, False, True),
        ((550, "5.7.1 blocked, user unknown to our reputation service"), False, False, False),
        ((550, "5.2.2 mailbox full"), False, False, False),
        ((550, "go away"), False, False, False),
    ],
)
async def test_what_a_reply_means(
    smtpd: Smtpd, reply: tuple[int, str], greylisted: bool, throttled: bool, dead: bool
) -> None:
    code, words = reply
    smtpd.on("rcpt", farewell(code, words) if code == 421 else says(code, words))
    async with connected(smtpd.relay()) as connection:
        error = await failure(connection)
    assert (error.greylisted, error.throttled, error.no_such_mailbox) == (greylisted, throttled, dead)
