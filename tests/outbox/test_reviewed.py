"""A domain whose server hangs: what that costs the other mails, and the database."""

import asyncio

from server.db import Database
from tests.conftest import eventually
from tests.outbox.conftest import office
from tests.smtpd import Smtpd, hang


async def test_domain_that_hangs_does_not_keep_later_mails_of_others_from_being_claimed(
    database: Database, smtpd: Smtpd
) -> None:
    smtpd.on("rcpt", hang, when=lambda session: session.recipients[-1].endswith("@tarpit.example"))
    async with office(database, smtpd, timeout=60) as o:
        await o.post(*(f"v{n}@tarpit.example" for n in range(10)))
        await eventually(lambda: smtpd.commands["RCPT"] == 2)
        for number in range(3):
            await asyncio.sleep(2.2)
            await o.post(f"good-{number}@fine.example")
            await eventually(lambda now=number + 1: len(smtpd.mails) == now, seconds=10)
        await smtpd.stop()


async def test_domain_that_hangs_does_not_make_it_look_all_the_time(database: Database, smtpd: Smtpd) -> None:
    smtpd.on("rcpt", hang, when=lambda session: session.recipients[-1].endswith("@tarpit.example"))
    async with office(database, smtpd, timeout=60) as o:
        await o.post(*(f"v{n}@tarpit.example" for n in range(10)))
        await eventually(lambda: smtpd.commands["RCPT"] == 2)
        turns = 0
        turn = o.dispatcher._turn

        async def counted() -> float:
            nonlocal turns
            turns += 1
            return await turn()

        o.dispatcher._turn = counted  # type: ignore[method-assign]
        await asyncio.sleep(1.5)
        o.dispatcher._turn = turn  # type: ignore[method-assign]
        await smtpd.stop()
        assert turns < 5
