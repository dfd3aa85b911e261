"""fastapi-mail, which connects for each mail."""

from fastapi_mail import ConnectionConfig, FastMail, MessageSchema, MessageType, MultipartSubtypeEnum

from bench import letter
from bench.senders import Job, run


def _config(port: int) -> ConnectionConfig:
    return ConnectionConfig(
        MAIL_SERVER="127.0.0.1",
        MAIL_PORT=port,
        MAIL_USERNAME="",
        MAIL_PASSWORD="",
        MAIL_FROM=letter.ADDRESS,
        MAIL_FROM_NAME=letter.SENDER.partition(" <")[0],
        MAIL_STARTTLS=False,
        MAIL_SSL_TLS=False,
        USE_CREDENTIALS=False,
        LOCAL_HOSTNAME="localhost",
    )


async def _work(job: Job) -> None:
    fast_mail = FastMail(_config(job.port))
    for number in job.numbers:
        await fast_mail.send_message(
            MessageSchema(
                recipients=[letter.recipient(number)],
                subject=letter.SUBJECT,
                body=letter.HTML,
                alternative_body=letter.TEXT,
                subtype=MessageType.html,
                multipart_subtype=MultipartSubtypeEnum.alternative,
                # Its own would ask the resolver for this machine's name, mail by mail.
                headers={"message-id": f"<{number}@{letter.DOMAIN}>"},
            )
        )
        job.accepted += 1


if __name__ == "__main__":
    run(_work)
