"""The built-in mailbox: real SMTP into the Maildir, and back from it."""

import asyncio
import shutil
from email.message import EmailMessage
from pathlib import Path

import pytest

from server.mail.connection import Connection, Relay
from server.mail.errors import Deferred, Refused
from server.mail.mailbox import Mailbox, catching
from server.mail.message import Content, compose


@pytest.fixture
async def box(tmp_path: Path) -> Mailbox:
    box = Mailbox(tmp_path / "var" / "mailbox")
    await box.open()
    return box


async def post(port: int, *messages: bytes) -> None:
    connection = Connection(Relay("127.0.0.1", port))
    await connection.open()
    try:
        for message in messages:
            await connection.send("hello@bikes.example", "visitor@there.example", message)
    finally:
        await connection.quit()


def mail(subject: str, text: str = "In plain text.", html: str = "<p>In HTML.</p>") -> bytes:
    content = Content(subject, text, html)
    return compose(
        content, sender="Bike Shed <hello@bikes.example>", recipient="visitor@there.example", domain="bikes.example"
    ).data


async def test_mail_that_is_sent_can_be_read(box: Mailbox) -> None:
    async with catching(box) as port:
        await post(port, mail("Grüße 👍", ".\n..\nÜber", "<p>Über</p>"))
    total, [caught] = await box.newest(10)
    assert total == 1
    assert (caught.subject, caught.sender, caught.recipient) == (
        "Grüße 👍",
        "Bike Shed <hello@bikes.example>",
        "visitor@there.example",
    )
    assert (caught.text, caught.html) == (".\r\n..\r\nÜber", "<p>Über</p>")
    assert caught.source.startswith("Return-Path: <hello@bikes.example>\r\nDelivered-To: visitor@there.example\r\n")
    assert await box.get(caught.key) == caught


async def test_newest_comes_first_and_in_pages(box: Mailbox) -> None:
    async with catching(box) as port:
        await post(port, *(mail(str(number)) for number in range(12)))
    total, first = await box.newest(5)
    _, last = await box.newest(5, offset=10)
    assert total == 12
    assert [caught.subject for caught in first] == ["11", "10", "9", "8", "7"]
    assert [caught.subject for caught in last] == ["1", "0"]


async def test_mails_survive_the_process(box: Mailbox) -> None:
    key = await box.keep("a@b.example", ["c@d.example"], mail("Hello"))
    again = Mailbox(box.folder)
    await again.open()
    found = await again.get(key)
    assert found is not None and found.subject == "Hello"


async def test_several_processes_worth_of_mailboxes_keep_every_mail(box: Mailbox) -> None:
    boxes = [Mailbox(box.folder) for _ in range(4)]
    await asyncio.gather(*(one.open() for one in boxes))
    keys = await asyncio.gather(
        *(one.keep("a@b.example", ["c@d.example"], mail(str(number))) for number in range(25) for one in boxes)
    )
    assert len(set(keys)) == 100
    total, found = await box.newest(200)
    assert total == len(found) == 100


@pytest.mark.parametrize("key", ["nothing", "", "../new", "../../etc/passwd", "/etc/passwd", "a\0b"])
async def test_key_that_is_none_finds_nothing(box: Mailbox, key: str) -> None:
    await box.keep("a@b.example", ["c@d.example"], mail("Hello"))
    assert await box.get(key) is None


async def test_empty_folder_that_is_there_already_is_used(tmp_path: Path) -> None:
    box = Mailbox(tmp_path)
    await box.open()
    await box.keep("a@b.example", ["c@d.example"], mail("Hello"))
    assert (await box.newest(1))[0] == 1


async def test_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError):
        await Mailbox(tmp_path / "file" / "mailbox").open()


async def test_disk_error_is_for_later_not_for_good(box: Mailbox) -> None:
    async with catching(box) as port:
        shutil.rmtree(box.folder / "tmp")
        (box.folder / "tmp").write_text("in the way")
        with pytest.raises(Deferred) as caught:
            await post(port, mail("Hello"))
        assert caught.value.code == 452
        (box.folder / "tmp").unlink()
        await box.open()
        await post(port, mail("Hello"))
    assert (await box.newest(1))[0] == 1


async def test_mail_that_is_too_large_is_refused(box: Mailbox) -> None:
    async with catching(box) as port:
        with pytest.raises(Refused) as caught:
            await post(port, b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n" * 17_000_000)
        assert "takes 33554432" in caught.value.reply  # it says so in EHLO


NO_MAILS = [
    b"",
    b"\r\n",
    b"no header at all\r\n",
    b"Subject: =?utf-8?q?=ff?=\r\n\r\n\xff\xfe\r\n",
    b"Content-Type: multipart/mixed\r\n\r\nno boundary\r\n",
    b"Content-Type: text/plain; charset=nonsense\r\n\r\n\xe4\r\n",
    b"From: @@@,,<<>>\r\nDelivered-To: \r\nContent-Transfer-Encoding: base64\r\n\r\n!!!\r\n",
]


@pytest.mark.parametrize("data", NO_MAILS)
async def test_what_is_hardly_a_mail_can_still_be_listed(box: Mailbox, data: bytes) -> None:
    await box.keep("", ["c@d.example"], data)
    total, [caught] = await box.newest(1)
    assert (total, caught.recipient) == (1, "c@d.example")


async def test_only_the_text_or_only_the_html(box: Mailbox) -> None:
    message = EmailMessage()
    message["Subject"] = "plain"
    message.set_content("alone")
    await box.keep("a@b.example", ["c@d.example"], message.as_bytes())
    _, [caught] = await box.newest(1)
    assert (caught.text, caught.html) == ("alone\n", None)


async def test_stranger_who_stays_connected_does_not_hold_up_the_end(box: Mailbox) -> None:
    async with asyncio.timeout(10):
        async with catching(box) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert (await reader.readline()).startswith(b"220 ")
        assert await reader.read() == b""
    writer.close()


async def test_mailbox_listens_on_loopback_alone(box: Mailbox) -> None:
    async with catching(box) as port:
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.2", port)
