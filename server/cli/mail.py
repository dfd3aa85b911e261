"""`mail test`: the way that mail takes, tried out. The other commands of `mail` are in `outbox`."""

import asyncio
from contextlib import AsyncExitStack
from email.utils import parseaddr
from typing import Annotated

import typer

from server import runtime, site
from server.cli import environment
from server.mail.connection import Connection, Relay
from server.mail.errors import Deferred, Held, MailError, Refused, Stage, Uncertain
from server.mail.mailbox import Mailbox, catching
from server.mail.message import Content, compose
from server.settings import Settings

app = typer.Typer(help="See what became of mails, act on them, and test the way that they take.", no_args_is_help=True)

_MEANING: dict[type[MailError], str] = {
    Refused: "The relay took the connection but refused this mail. Is the address right?",
    Deferred: "The relay asks to try again later. The server would do so by itself.",
    Held: "The relay cannot be used like this. Check DOORBELL_SMTP_URL and the sender; mails wait till then.",
    Uncertain: "The connection was cut after the message was sent: it may or may not have been accepted.",
}
_STEPS = {Stage.CONNECT: "connection", Stage.MAIL: "sender", Stage.RCPT: "recipient", Stage.CONTENT: "message"}


@app.command()
def test(address: Annotated[str, typer.Argument(help="Who the test mail goes to.")]) -> None:
    """Sends one mail to ADDRESS right now and shows what the relay answered at each step."""
    settings = environment.settings()
    try:
        recipient = site.address(address)
        sender = _sender(settings)
    except ValueError as error:
        raise environment.fail("The test mail cannot be sent:", [str(error)]) from None
    try:
        asyncio.run(_send(settings, sender, recipient))
    except MailError as error:
        _say(error.stage, f"{error.code or ''} {error.reply}".strip())
        raise environment.fail("Not accepted.", [_MEANING[type(error)]]) from None
    except OSError as error:
        raise environment.fail("The built-in mailbox cannot be used:", [str(error)]) from None
    where = "the built-in mailbox: see /_mailbox/" if settings.smtp_url is None else "the relay"
    typer.secho(f"Accepted by {where}.", fg=typer.colors.GREEN)


def _sender(settings: Settings) -> str:
    """Who the test mail is from: DOORBELL_MAIL_FROM, else the first site that names a sender."""
    found, _ = site.load_all(settings.sites_dir)
    named = [one.mail.sender for one in found.values() if one.mail.sender]
    fallback = [] if settings.smtp_url else ["Doorbell <noreply@localhost>"]
    if settings.mail_from:
        try:
            return site.mailbox(settings.mail_from)
        except ValueError as error:
            raise ValueError(f"DOORBELL_MAIL_FROM: {error}") from None
    if not (senders := named + fallback):
        raise ValueError("DOORBELL_MAIL_FROM is not set, and no site names a sender (mail.from)")
    return senders[0]


async def _send(settings: Settings, sender: str, recipient: str) -> None:
    content = Content(
        "A test from Doorbell",
        "This mail was sent by `doorbell mail test`. If you read it, mail works.",
        "<p>This mail was sent by <code>doorbell mail test</code>. If you read it, mail works.</p>",
    )
    message = compose(content, sender=sender, recipient=recipient, domain=parseaddr(sender)[1].rpartition("@")[2])
    async with AsyncExitStack() as stack:
        connection = Connection(await _relay(settings, stack))
        try:
            greeting = await connection.open()
            _say(greeting.stage, f"{greeting} ({connection.encryption or 'not encrypted'})")
            replies = await connection.send(message.sender, message.recipient, message.data)
        finally:
            await connection.quit()
    for reply in replies:
        _say(reply.stage, str(reply))


async def _relay(settings: Settings, stack: AsyncExitStack) -> Relay:
    port = 0
    if settings.smtp_url is None:
        mailbox = Mailbox(settings.data_dir / "mailbox")
        await mailbox.open()
        port = await stack.enter_async_context(catching(mailbox))
    relay = runtime.relay(settings, port)
    typer.echo(f"{'server':<12}{relay.host}:{relay.port}")
    return relay


def _say(stage: Stage, words: str) -> None:
    typer.echo(f"{_STEPS.get(stage, str(stage)):<12}{words}")
