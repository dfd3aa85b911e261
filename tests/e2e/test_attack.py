"""The form under attack: thousands of hostile requests from many addresses, and honest visitors between them."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import httpx
import pytest

from tests.conftest import SITE_TOML, add_site
from tests.e2e import hostile
from tests.e2e.conftest import wait_until
from tests.e2e.relay import Place, placed
from tests.smtpd import Smtpd

pytestmark = [pytest.mark.e2e, pytest.mark.soak]

# Where the attack comes from: all of 127/8 is this machine.
ADDRESSES = [f"127.0.{n // 250 + 1}.{n % 250 + 1}" for n in range(40)]
HONEST = "127.0.0.2"
EACH_CONNECTION = 100
ATTACKERS = 8


def attack(port: int, count: int) -> Counter[int]:
    """Sends them all, some connections at a time; fails at the first answer that may not be."""

    async def everybody() -> Counter[int]:
        found: Counter[int] = Counter()
        source = hostile.requests(count, seed=count)
        await asyncio.gather(*(_attacker(port, source, found, place) for place in range(ATTACKERS)))
        return found

    return asyncio.run(everybody())


async def _attacker(port: int, source: Iterator[hostile.Hostile], found: Counter[int], place: int) -> None:
    turn = place
    while batch := [one for _, one in zip(range(EACH_CONNECTION), source, strict=False)]:
        turn += ATTACKERS
        address = ADDRESSES[turn % len(ADDRESSES)]
        while batch:
            batch = await _some(port, address, batch, found)


async def _some(port: int, address: str, batch: list[hostile.Hostile], found: Counter[int]) -> list[hostile.Hostile]:
    """Sends from one connection until the server closes it; answers what is left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        for number, (request, allowed) in enumerate(batch):
            writer.write(request)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            status = int(head.split()[1])
            assert status in allowed, (status, sorted(allowed), request[:600])
            fields = dict(line.split(b": ", 1) for line in head.lower().splitlines()[1:] if b": " in line)
            await reader.readexactly(int(fields[b"content-length"]))
            found[status] += 1
            if fields.get(b"connection") == b"close":
                return batch[number + 1 :]
        return []
    finally:
        writer.close()


class Honest:
    """Signs up, one after the other, and notes how long each took."""

    def __init__(self, place: Place) -> None:
        self.url = place.server.url.replace("localhost", "127.0.0.1")
        self.accepted: list[str] = []

    async def sign_up(self, count: int, kind: str, ended: asyncio.Event | None = None) -> float:
        """The median of the seconds that these took."""
        took = []
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(local_address=HONEST)) as client:
            for number in range(count):
                email = f"{kind}-{number}@honest.example"
                begun = time.perf_counter()
                answer = await client.post(f"{self.url}/signup", json={"site": "calm", "email": email, "colour": "Red"})
                took.append(time.perf_counter() - begun)
                assert answer.status_code == 202, answer.text
                self.accepted.append(email)
                if ended is not None and ended.is_set():
                    break
                await asyncio.sleep(0.02)
        return median(took)


def test_attack(tmp_path: Path, soak: bool, capsys: pytest.CaptureFixture[str]) -> None:
    count = 20_000 if soak else 500
    smtpd = Smtpd(extensions=["SIZE 1000000", "PIPELINING"])
    toml = SITE_TOML.replace("double_opt_in = false", 'client_limit = "1000 per hour"')
    with placed(tmp_path, smtpd, LIMITS="on") as place:
        add_site(tmp_path / "sites", "calm", toml.replace("Bike Shed", "Calm").replace("bikeshed", "calm"))
        (tmp_path / "sites" / "bikes" / "site.toml").write_text(SITE_TOML.replace("double_opt_in = false", ""))
        place.server.start()
        honest = Honest(place)

        async def under_attack() -> tuple[float, float, float, Counter[int], float]:
            usual = await honest.sign_up(20, "before")
            over, begun = asyncio.Event(), time.perf_counter()
            visitors = asyncio.create_task(honest.sign_up(80, "during", over))
            with ProcessPoolExecutor(1, get_context("spawn")) as other:  # its work is not to slow the visitors down
                loop = asyncio.get_running_loop()
                found = await loop.run_in_executor(other, attack, place.server.port, count)
            seconds = time.perf_counter() - begun
            over.set()
            return usual, await visitors, await honest.sign_up(20, "after"), found, seconds

        usual, during, after, found, seconds = asyncio.run(under_attack())
        assert sum(found.values()) == count
        wait_until(lambda: not place.query("SELECT 1 FROM outbox WHERE state = 'pending' LIMIT 1"))
        sent = Counter(to for mail in smtpd.mails for to in mail.recipients)
        attacked = Counter(hostile.victim(to) for to in sent.elements() if hostile.victim(to))
        with capsys.disabled():
            print(
                f"\n{count} hostile requests in {seconds:.0f} s: {dict(sorted(found.items()))}; honest signups "
                f"{usual * 1000:.1f} ms before, {during * 1000:.1f} ms meanwhile (x {during / usual:.2f}), "
                f"{after * 1000:.1f} ms after; "
                f"mails to nine victims {sum(attacked.values())}, at most {max(attacked.values())} each"
            )
        assert max(attacked.values()) <= 5  # DESIGN: a cooldown for each recipient, however it is spelt
        assert all(sent[email] == 1 for email in honest.accepted)
        assert not {to for to in sent if to.endswith("bikeshed.example")}  # nobody confirmed
        assert not [mail for mail in smtpd.mails if b"spam.example" in mail.data or b"\nbcc:" in mail.data.lower()]
        assert place.server.end() == 0
        assert "Traceback" not in place.server.log and "request.failed" not in place.server.log
