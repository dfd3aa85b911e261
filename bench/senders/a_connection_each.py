"""aiosmtplib as its documentation begins: an EmailMessage and `aiosmtplib.send`, which connects for each mail."""

from email.message import EmailMessage
from email.utils import formatdate, make_msgid

import aiosmtplib

from bench import letter
from bench.senders import Job, run


def message(number: int) -> EmailMessage:
    """The mail, as the standard library has it."""
    made = EmailMessage()
    made["From"] = letter.SENDER
    made["To"] = letter.recipient(number)
    made["Subject"] = letter.SUBJECT
    made["Date"] = formatdate()
    made["Message-ID"] = make_msgid(domain=letter.DOMAIN)
    made.set_content(letter.TEXT)
    made.add_alternative(letter.HTML, subtype="html")
    return made


async def _work(job: Job) -> None:
    for number in job.numbers:
        await aiosmtplib.send(
            message(number), hostname="127.0.0.1", port=job.port, start_tls=False, local_hostname="localhost"
        )
        job.accepted += 1


if __name__ == "__main__":
    run(_work)
