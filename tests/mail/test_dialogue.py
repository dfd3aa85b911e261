"""Replies, read in order whatever pieces they come in; and what is no reply ends the dialogue."""

import asyncio

import pytest
from aiosmtplib import SMTPReadTimeoutError, SMTPResponseException, SMTPServerDisconnected
from hypothesis import given
from hypothesis import strategies as st

from server.mail.dialogue import MOST_BYTES, Dialogue


class Wire(asyncio.Transport):
    """A transport that keeps what is written, and is closed by `abort`."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
REPLIES = st.lists(st.tuples(st.integers(200, 599), st.lists(TEXT, min_size=1, max_size=4)), min_size=1, max_size=6)


def spelled(code: int, lines: list[str]) -> bytes:
    marks = ["-"] * (len(lines) - 1) + [" "]
    return "".join(f"{code}{mark}{line}\r\n" for mark, line in zip(marks, lines, strict=True)).encode()


@given(REPLIES, st.data())
def test_replies_in_any_pieces_are_the_same_replies(replies: list[tuple[int, list[str]]], data: st.DataObject) -> None:
    stream = b"".join(spelled(code, lines) for code, lines in replies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))

    async def run() -> None:
        dialogue = Dialogue(Wire())
        dialogue.write(b"", len(replies))
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            dialogue.data_received(stream[begin:end])
        assert [await dialogue.read(5) for _ in replies] == [(code, "\n".join(lines)) for code, lines in replies]
        assert dialogue.in_step

    asyncio.run(run())


async def test_commands_that_go_together_are_answered_one_by_one() -> None:
    dialogue = Dialogue(wire := Wire())
    dialogue.write(b"MAIL\r\nRCPT\r\nDATA\r\n", 3)
    reading = asyncio.create_task(dialogue.read(5))
    await asyncio.sleep(0)
    dialogue.data_received(b"250 a\r\n550 b\r\n")
    assert (await reading, await dialogue.read(5)) == ((250, "a"), (550, "b"))
    assert not dialogue.in_step
    dialogue.data_received(b"554 c\r\n")
    assert not dialogue.in_step  # unread
    assert await dialogue.read(5) == (554, "c")
    assert dialogue.in_step and wire.written == b"MAIL\r\nRCPT\r\nDATA\r\n"


async def test_what_is_said_unasked_is_no_answer_to_the_next_command() -> None:
    dialogue = Dialogue(Wire())
    dialogue.data_received(b"421 idle for too long\r\n")
    assert not dialogue.in_step and not dialogue.open
    with pytest.raises(SMTPServerDisconnected, match="421 idle"):
        dialogue.write(b"MAIL\r\n", 1)


async def test_one_answer_too_many_ends_the_dialogue_after_the_others() -> None:
    dialogue = Dialogue(Wire())
    dialogue.write(b"NOOP\r\n", 1)
    dialogue.data_received(b"250 ok\r\n250 ok\r\n")
    assert await dialogue.read(5) == (250, "ok")
    assert not dialogue.in_step


@pytest.mark.parametrize(
    "line", [b"hello\r\n", b"25\r\n", b"25x no\r\n", b"250=no\r\n", b"\r\n", "２５０ ok\r\n".encode()]
)
async def test_what_is_no_reply_ends_the_dialogue(line: bytes) -> None:
    dialogue = Dialogue(Wire())
    dialogue.write(b"NOOP\r\n", 1)
    dialogue.data_received(line + b"250 ok\r\n")
    with pytest.raises(SMTPResponseException, match="Malformed"):
        await dialogue.read(5)
    assert not dialogue.in_step


@pytest.mark.parametrize("piece", [b"x" * 1000, b"250-and so on\r\n" * 50])
async def test_reply_without_an_end_does_not_fill_memory(piece: bytes) -> None:
    dialogue = Dialogue(Wire())
    dialogue.write(b"NOOP\r\n", 1)
    for _ in range(2 * MOST_BYTES // len(piece)):
        dialogue.data_received(piece)
    with pytest.raises(SMTPResponseException):
        await dialogue.read(5)
    assert len(dialogue._buffer) + sum(map(len, dialogue._lines)) < MOST_BYTES + 2 * len(piece)


@pytest.mark.parametrize("cut", [True, False])
async def test_connection_that_ends_ends_the_wait(cut: bool) -> None:
    dialogue = Dialogue(Wire())
    dialogue.write(b"NOOP\r\n", 1)
    reading = asyncio.create_task(dialogue.read(60))
    await asyncio.sleep(0)
    if cut:
        dialogue.connection_lost(ConnectionResetError())
    else:
        dialogue.eof_received()
    with pytest.raises(SMTPServerDisconnected):
        await reading
    assert not dialogue.open


async def test_silence_ends_in_a_timeout_and_nothing_is_read_later() -> None:
    dialogue = Dialogue(Wire())
    dialogue.write(b"NOOP\r\n", 1)
    for _ in range(2):
        with pytest.raises(SMTPReadTimeoutError):
            await dialogue.read(0.01)
    dialogue.data_received(b"250 late\r\n")
    assert not dialogue.in_step


async def test_cancelled_reader_leaves_the_dialogue_out_of_step() -> None:
    dialogue = Dialogue(Wire())
    dialogue.write(b"NOOP\r\n", 1)
    reading = asyncio.create_task(dialogue.read(60))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert not dialogue.in_step
    dialogue.data_received(b"250 late\r\n")
    assert not dialogue.in_step  # an answer that nobody read
