"""The mail bench: every mailer sends what it says it sent, a longer way keeps the order, one failure is one failure."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from email import message_from_bytes
from pathlib import Path

import pytest

from bench import claims, command, letter, outbox, relay
from bench.delivery import Delivery, Place, Scenario, folder
from bench.mailers import Mailer, Order, every
from bench.peers import ROOT, no_module, program
from bench.process import ProcessError, cores, free_port
from bench.rounds import Rounds, turns
from bench.wire import WrongAnswer
from tests.conftest import eventually
from tests.smtpd import Smtpd, reply

pytest.importorskip("fastapi_mail", reason="for those who bench: make install-bench")

COUNT = 12


def needs_two_cores() -> None:
    """Skips where the bench cannot run."""
    if sys.platform != "linux" or not program("taskset"):
        pytest.skip("needs Linux and taskset")
    try:
        cores()
    except ProcessError as error:
        pytest.skip(str(error))


def on_disk(at: Path) -> Path:
    """Skips where the folder for tests is in memory: the bench refuses it."""
    if command.in_memory(at):
        pytest.skip("the folder for tests is in memory")
    return at


async def said(mailer: Mailer, order: Order, at: Path) -> dict[str, float]:
    """What a mailer says at its end."""
    launch = mailer.launch(order)
    process = await asyncio.create_subprocess_exec(
        *launch.command, cwd=at, env=launch.full_environment(), stdout=asyncio.subprocess.PIPE
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    lines = [line for line in out.decode().splitlines() if line.startswith("BENCH ")]
    found: dict[str, float] = json.loads(lines[0].removeprefix("BENCH "))
    return found


@pytest.mark.parametrize("mailer", every(), ids=lambda mailer: mailer.key)
async def test_a_mailer_sends_every_mail_once_with_both_parts(mailer: Mailer, tmp_path: Path) -> None:
    if mailer.missing:
        pytest.skip(mailer.missing)
    if mailer.has_rows:
        await outbox.fill(tmp_path / "rows.db", COUNT)
    (tmp_path / "letter.json").write_text(letter.as_json())
    async with Smtpd().listening() as smtpd:
        order = Order(smtpd.port, COUNT, tmp_path / "rows.db" if mailer.has_rows else None, tmp_path / "letter.json")
        found = await said(mailer, order, tmp_path)
        assert len(smtpd.mails) == COUNT + mailer.before(COUNT)
    assert found["accepted"] == COUNT
    assert min(found["cpu_seconds"], found["seconds"]) > 0
    # smtp-source numbers its recipients in its own way.
    assert len({mail.recipients[0] for mail in smtpd.mails}) == COUNT
    message = message_from_bytes(smtpd.mails[0].data)
    parts = {
        part.get_content_type(): part.get_payload(decode=True) for part in message.walk() if not part.is_multipart()
    }
    assert message["Subject"] == letter.SUBJECT
    for kind, text in (("text/plain", letter.TEXT), ("text/html", letter.HTML)):
        content = parts[kind]
        assert isinstance(content, bytes)
        assert content.decode().replace("\r\n", "\n").strip() == text.strip()


async def test_a_mail_that_is_refused_is_no_success(tmp_path: Path) -> None:
    ready = next(mailer for mailer in every() if mailer.key == "ready")
    async with Smtpd().listening() as smtpd:
        smtpd.on("dot", reply(550, "no"))
        launch = ready.launch(Order(smtpd.port, 1, None, tmp_path))
        done = await asyncio.create_subprocess_exec(
            *launch.command, env=launch.full_environment(), stderr=asyncio.subprocess.DEVNULL
        )
        assert await done.wait() != 0


async def test_the_letter_has_two_kilobytes() -> None:
    assert 1800 < len(outbox.mail(0).data) < 2300
    assert len({letter.recipient(number).partition("@")[2] for number in range(100)}) == 20


async def test_the_longer_way_keeps_the_order_and_is_as_long_as_it_should_be(tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port, target = free_port(), server.sockets[0].getsockname()[1]
    arguments = [sys.executable, "-m", "bench.delay", str(port), str(target), "40"]
    proxy = await asyncio.create_subprocess_exec(*arguments, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        await eventually(lambda: answers(port), seconds=30)
        whole = b"".join(b"%06d\n" % number for number in range(20_000))
        begun = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for place in range(0, len(whole), 7000):
            writer.write(whole[place : place + 7000])
            await asyncio.sleep(0.001)
        assert await reader.readexactly(len(whole)) == whole
        # A handshake, which loopback spares us, and there and back: two round trips.
        assert time.monotonic() - begun >= 0.075
        writer.close()
        await writer.wait_closed()
    finally:
        proxy.kill()
        await proxy.wait()
        server.close()


def answers(port: int) -> bool:
    """Whether somebody listens."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_of_the_large_outbox_what_is_due_and_nothing_else_is_claimed(tmp_path: Path) -> None:
    needs_two_cores()
    (tmp_path / "mail").mkdir()
    rows = claims.DUE + 500
    found = claims.measure(tmp_path, rows, 1, cores()[0], lambda _: None)
    [large] = tmp_path.glob("claims-*.db")
    assert outbox.states(large) == {"pending": claims.DUE + 50, "sent": 450}
    # A claim that found other rows, or too few, would have ended the run.
    assert len(found.large.claim) == len(found.small.claim) == claims.DUE // claims.BATCH
    assert found.ratio("claim") > 0 and found.ratio("look") > 0


def test_a_cell_that_fails_is_left_out_and_the_others_go_on() -> None:
    calls: list[str] = []

    def good(warm_up: bool) -> str:
        calls.append("warm" if warm_up else "timed")
        return "sample"

    def bad(warm_up: bool) -> str:
        if warm_up:
            return "sample"
        raise WrongAnswer("said no")

    rounds: Rounds[str] = Rounds()
    turns({("s", "good"): good, ("s", "bad"): bad}, 2, rounds, lambda _: None)
    assert calls == ["warm", "timed", "timed"]
    assert rounds.samples == {("s", "good"): ["sample", "sample"]}
    assert rounds.failures == {("s", "bad"): "said no"}


def test_the_sink_counts_what_came_and_the_warm_up_finds_how_many_to_send(tmp_path: Path) -> None:
    needs_two_cores()
    if relay.MISSING:
        pytest.skip(relay.MISSING)
    mailer = next(mailer for mailer in every() if mailer.key == "ready")
    delivery = Delivery(mailer, Scenario("way", "way", added=2.0), Place(tmp_path, *cores(), 0.2))
    with folder(tmp_path):
        warm = delivery(True)
        assert min(delivery.count, warm.mails) >= 64
        assert delivery(False).mails == delivery.count


def test_the_script_says_what_it_found(tmp_path: Path) -> None:
    needs_two_cores()
    if absent := relay.MISSING or no_module("matplotlib"):
        pytest.skip(absent)
    command_line = [sys.executable, "-m", "bench.mail", "--quick", "--seconds", "0.1", "--only", "direct"]
    done = subprocess.run(
        [*command_line, "--mailers", "doorbell,aiosmtplib", "--markdown", "--work", str(on_disk(tmp_path))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "| Doorbell |" in done.stdout and "Left out" not in done.stdout
    found = json.loads((tmp_path / "results" / "mail.json").read_text())
    assert set(found["scenarios"]["direct"]["mailers"]) == {"doorbell", "aiosmtplib"}
    assert str(tmp_path) not in json.dumps(found)
    assert (tmp_path / "results" / "mail.png").stat().st_size > 1000
