"""Requests that came before are answered without the parser: as the parser would have, and only where one begins."""

import asyncio
import logging
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.hosting import Published
from server.hosting.lane import _SLICE
from server.hosting.seen import _BYTES, _ONCE, Known, Seen
from tests.hosting.conftest import Both, Client, Reply, alike, bikes, both, read_reply, serving
from tests.hosting.conftest import Served as At

A = b"GET /bikes/a.txt HTTP/1.1\r\nHost: x\r\n\r\n"
B = b"GET /bikes/b.txt HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n"
BIG = b"GET /bikes/big.bin HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"HEAD /bikes/a.txt HTTP/1.1\r\nHost: x\r\n\r\n"
MISS = b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n"
# Their bodies are requests that were seen before.
POST = b"POST /elsewhere HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(A), A)
ENDS = b"POST /elsewhere HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n\r\n\r\n"  # as a head does
CHUNKED = b"POST /elsewhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (
    len(A),
    A,
)
FILES: dict[str, str | bytes] = {"a.txt": "a" * 100, "b.txt": "b" * 100, "big.bin": b"\0" * 100_000}


class Forgetful(Seen):
    """So that the parser does all the work."""

    def note(self, request: bytes, answer: Known) -> None:
        pass


def forgetful(published: Published) -> Published:
    object.__setattr__(published, "seen", Forgetful())
    return published


async def talk(port: int, pieces: list[bytes], methods: list[bytes]) -> list[Reply]:
    """The answers to requests that are sent in these pieces."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.002)
        return [await asyncio.wait_for(read_reply(reader, method), 20) for method in methods]
    finally:
        writer.close()


async def learn(port: int, *requests: bytes) -> None:
    """Asks until the answers are known."""
    for request in requests:
        method = request.split()[0]
        await talk(port, [request, request, request], [method] * 3)


@pytest.mark.parametrize("request_", [A, B, BIG, HEAD], ids=["a", "b", "big", "head"])
async def test_known_from_the_second_time_on(tmp_path: Path, request_: bytes) -> None:
    at = At(bikes(tmp_path, FILES))
    async with serving(at, "lane") as port:
        method = request_.split()[0]
        first = (await talk(port, [request_], [method]))[0]
        assert request_ not in at.published.seen
        await talk(port, [request_], [method])
        assert request_ in at.published.seen
        assert alike((await talk(port, [request_] * 2, [method] * 2))[1]) == alike(first)


@pytest.mark.parametrize(
    "request_",
    [
        A.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        A.replace(b"1.1", b"1.0"),
        BIG.replace(b"\r\n\r\n", b"\r\nRange: bytes=0-1,5-6\r\n\r\n"),
        A.replace(b"\r\n\r\n", b"\r\nX: %s\r\n\r\n" % (b"x" * 3000)),
        A + B,
        MISS,
        b"\r\n" + A,
    ],
    ids=["close", "1.0", "ranges", "long", "two", "miss", "blank line before"],
)
async def test_not_kept(tmp_path: Path, request_: bytes) -> None:
    at = At(bikes(tmp_path, FILES))
    async with serving(at, "lane") as port:
        for _ in range(4):
            await talk(port, [request_], [b"GET"])
    assert [key for key in at.published.seen if key != b"\r\n" + A] == []


async def test_swapped_sites_answer_anew(tmp_path: Path) -> None:
    at = At(bikes(tmp_path / "1", FILES))
    async with serving(at, "lane") as port:
        await learn(port, A)
        at.published = bikes(tmp_path / "2", {"a.txt": "new"})
        assert (await talk(port, [A], [b"GET"]))[0].body == b"new"


async def test_date_goes_on(tmp_path: Path) -> None:
    async with serving(At(bikes(tmp_path, FILES)), "lane") as port:
        await learn(port, A)
        dates: set[str] = set()
        async with asyncio.timeout(10):
            while len(dates) < 2:
                reply = (await talk(port, [A] * 2, [b"GET"] * 2))[1]
                dates.add(reply["date"])
                assert float(reply["x-process-time"]) < 1


async def test_access_log_has_every_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With it nothing is kept: a line needs what the parser knows. Servers without it have switched it off before.
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "propagate", True)
    caplog.set_level(logging.INFO, "uvicorn.access")
    at = At(bikes(tmp_path, FILES))
    async with serving(at, "lane", access_log=True) as port:
        await learn(port, A)
        await talk(port, [A], [b"GET"])
    assert not at.published.seen
    lines = {id(record) for record in caplog.records if "/bikes/a.txt" in record.getMessage()}
    assert len(lines) == 4


@pytest.mark.parametrize("cover", [POST, CHUNKED], ids=["length", "chunked"])
async def test_body_that_looks_like_a_request_is_a_body(tmp_path: Path, cover: bytes) -> None:
    async with serving(At(bikes(tmp_path, FILES)), "lane") as port:
        await learn(port, A)
        at = cover.index(A)
        pieces = [A, cover[:at], A, cover[at + len(A) :], B]
        replies = await talk(port, [piece for piece in pieces if piece], [b"GET"] * 3)
        assert [reply.body[:5] for reply in replies] == [b"aaaaa", b"app /", b"bbbbb"]


@pytest.mark.parametrize(
    "start", [b"G", b"GET /bikes/b.txt HTTP/1.1\r\n", b"GET /bikes/b.txt HTTP/1.1\r\nHost: x\r\nX: "]
)
async def test_known_request_in_the_midst_of_another_is_part_of_it(tmp_path: Path, start: bytes) -> None:
    async with serving(At(bikes(tmp_path, FILES)), "lane") as port:
        await learn(port, A)
        (reply,) = await talk(port, [start, A], [b"GET"])
        assert reply.body[:5] != b"aaaaa"


@pytest.mark.parametrize("before", [MISS, BIG, ENDS])
async def test_known_request_waits_for_what_came_in_one_piece_with_a_hit(tmp_path: Path, before: bytes) -> None:
    # `big.bin` is read from the disk here. A hit and it fill what the parser gets at a time, so that the next request,
    # which is known, is looked at before the answer can have begun.
    padding = b"x" * (_SLICE - len(A) - len(before) - len(b"X: \r\n"))
    hit = A.replace(b"\r\n\r\n", b"\r\nX: %s\r\n\r\n" % padding)
    async with serving(At(bikes(tmp_path, FILES, budget=1000)), "lane") as port:
        await learn(port, A, B)
        replies = await talk(port, [hit + before + A], [b"GET"] * 3)
        first = b"\0\0\0" if before == BIG else b"app"
        assert [reply.body[:3] for reply in replies] == [b"aaa", first, b"aaa"]


async def test_known_request_waits_for_the_answer_before_it(tmp_path: Path) -> None:
    async with serving(At(bikes(tmp_path, FILES)), "lane") as port:
        await learn(port, A)
        replies = await talk(port, [A, MISS, A, A], [b"GET"] * 4)
        assert [reply.body[:3] for reply in replies] == [b"aaa", b"app", b"aaa", b"aaa"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Both, Both]]:
    """A server that remembers, and one that does not."""
    with (
        both(bikes(tmp_path_factory.mktemp("one"), FILES, budget=1000)) as one,
        both(forgetful(bikes(tmp_path_factory.mktemp("two"), FILES, budget=1000))) as two,
    ):
        yield one, two


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from([A, A, B, BIG, HEAD, MISS, POST, ENDS, CHUNKED]), min_size=1, max_size=8),
    st.lists(st.integers(0, 100_000), max_size=6),
)
def test_any_sequence_in_any_pieces_is_answered_as_the_parser_has_it(
    pairs: tuple[Both, Both], requests: list[bytes], cuts: list[int]
) -> None:
    data = b"".join(requests)
    ends = [sum(map(len, requests[: count + 1])) for count in range(len(requests))]
    # Cut anywhere, and between some of the requests.
    anywhere, between = (cut % len(data) for cut in cuts[::2]), (ends[cut % len(ends)] for cut in cuts[1::2])
    at = sorted({0, len(data), *anywhere, *between})
    pieces = [data[start:stop] for start, stop in pairwise(at)]
    methods = [one.split()[0] for one in requests]
    answers = []
    for pair in pairs:
        replies = pair.run(talk(pair.ports["lane"], pieces, methods))
        answers.append([(reply.status, reply["content-length"], reply.body) for reply in replies])
    assert answers[0] == answers[1]


# -- the table -------------------------------------------------------------------------------------------------------


def test_no_more_than_some_megabytes() -> None:
    seen = Seen()
    size = 0
    for number in range(20_000):
        request = b"%d" % number * 50
        answer = Known(b"h" * 500, b"b" * 500, [0])
        answer.renew(b"date", 0)
        for _ in range(2):
            seen.note(request, answer)
        size = max(size, sum(len(key) + len(known.first) for key, known in seen.items()) if number % 500 == 0 else 0)
    assert 0 < size < _BYTES


def test_requests_that_came_once_are_not_kept() -> None:
    seen = Seen()
    for number in range(2 * _ONCE):
        seen.note(b"%d" % number, Known(b"", b"", [0]))
    assert not seen and len(seen._once) <= _ONCE


async def test_client_is_still_asked_for_its_host(tmp_path: Path) -> None:
    async with serving(At(bikes(tmp_path, FILES, hosts=("bikes.example",))), "lane") as port:
        await learn(port, A)
        assert (await Client(port).ask("/a.txt", host="bikes.example")).body == b"a" * 100
        assert (await Client(port).ask("/bikes/a.txt", host="bikes.example")).status == 404
