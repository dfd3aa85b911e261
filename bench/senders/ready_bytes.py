"""aiosmtplib with a connection each that is kept open, and bytes that are ready: what a pool without rows could do."""

import aiosmtplib

from bench import letter, outbox
from bench.senders import Job, run

_DATA = outbox.mail(0).data


async def _work(job: Job) -> None:
    smtp = aiosmtplib.SMTP(hostname="127.0.0.1", port=job.port, start_tls=False, local_hostname="localhost")
    async with smtp:
        for number in job.numbers:
            await smtp.sendmail(letter.ADDRESS, letter.recipient(number), _DATA)
            job.accepted += 1


if __name__ == "__main__":
    run(_work)
