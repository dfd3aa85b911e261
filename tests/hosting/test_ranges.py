"""Byte ranges, against the slow and obvious way: the set of positions that are asked for."""

import re
from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.hosting.ranges import MAX_RANGES, multipart, parse

LONG = 64 * 1024
SIZE = 1000


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"bytes=0-0", (0, 1)),
        (b"bytes=0-499", (0, 500)),
        (b"bytes=500-", (500, 1000)),
        (b"bytes=0-", (0, 1000)),
        (b"bytes=999-999", (999, 1000)),
        (b"bytes=990-5000", (990, 1000)),
        (b"bytes=-1", (999, 1000)),
        (b"bytes=-500", (500, 1000)),
        (b"bytes=-99999999999", (0, 1000)),
        (b"bytes=-1000", (0, 1000)),
        (b"bytes=007-0008", (7, 9)),
        (b"BYTES=1-2", (1, 3)),
        (b"bytes= 1-2", (1, 3)),
        (b" bytes=1-2\t", (1, 3)),
    ],
)
def test_one_range(value: bytes, found: tuple[int, int]) -> None:
    assert parse(value, SIZE) == [found]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"bytes",
        b"bytes=",
        b"bytes=,",
        b"bytes= , ,",
        b"bytes=-",
        b"bytes=abc",
        b"bytes=5",
        b"bytes=5-4",
        b"bytes=5000-4000",
        b"bytes=0--1",
        b"bytes=--1",
        b"bytes=1-2-3",
        b"bytes=+1-2",
        b"bytes=1-+2",
        b"bytes=1_0-2_0",
        b"bytes=1 -2",
        b"bytes=1- 2",
        b"bytes=0x1-0x2",
        b"bytes=1.0-2",
        b"bytes=1-2;",
        b"bytes=1-2 3-4",
        "bytes=\u0661-\u0662".encode(),
        "bytes=\uff11-\uff12".encode(),
        b"bytes=\xb2-\xb3",
        b"bytes=1-2\xa0",
        b"bytes =1-2",
        b"bytes:1-2",
        b"bytes 1-2",
        b"bytes=bytes=1-2",
        b"byte=1-2",
        b"bytess=1-2",
        b"items=1-2",
        b"none",
        b"=1-2",
        b"1-2",
        b"bytes=" + b"9" * 40 + b"-" + b"8" * 40,
    ],
)
def test_malformed_or_unknown_is_ignored(value: bytes) -> None:
    assert parse(value, SIZE) is None
    assert parse(value, 0) is None


@pytest.mark.parametrize(
    "value", [b"bytes=0-1,5-4", b"bytes=abc,0-1", b"bytes=0-1,2", b"bytes=0-1;2-3", b"bytes=0-1,-"]
)
def test_one_malformed_member_spoils_the_set(value: bytes) -> None:
    assert parse(value, SIZE) is None


@pytest.mark.parametrize(
    "value",
    [b"bytes=-0", b"bytes=-00", b"bytes=1000-", b"bytes=1000-1000", b"bytes=9999-99999", b"bytes=1000-,-0,2000-"],
)
def test_nothing_satisfiable_is_a_416(value: bytes) -> None:
    assert parse(value, SIZE) == []


def test_empty_file_has_no_first_byte() -> None:
    for value in (b"bytes=0-", b"bytes=0-0", b"bytes=-0", b"bytes=5-9,7-"):
        assert parse(value, 0) == []


def test_suffix_of_an_empty_file_is_the_whole_of_it() -> None:
    for value in (b"bytes=-1", b"bytes=-99999999999", b"bytes=0-,-5", b"bytes=-" + b"9" * 5000):
        assert parse(value, 0) is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"bytes=0-9,20-29", [(0, 10), (20, 30)]),
        (b"bytes=20-29,0-9", [(20, 30), (0, 10)]),
        (b"bytes=-1,0-0", [(999, 1000), (0, 1)]),
        (b"bytes=0-9,5000-,-0", [(0, 10)]),
        (b"bytes= 0-9 ,\t20-29 , ,,", [(0, 10), (20, 30)]),
        (b"bytes=,0-0", [(0, 1)]),
    ],
)
def test_several_in_the_order_asked(value: bytes, found: list[tuple[int, int]]) -> None:
    assert parse(value, SIZE) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"bytes=0-9,5-14", [(0, 15)]),
        (b"bytes=0-9,10-19", [(0, 20)]),
        (b"bytes=10-19,0-9", [(0, 20)]),
        (b"bytes=0-99,10-19", [(0, 100)]),
        (b"bytes=500-,0-0,-600", [(0, 1), (400, 1000)]),
        (b"bytes=50-59,0-0,0-0", [(0, 1), (50, 60)]),
        (b"bytes=0-,0-,0-,-1000", [(0, 1000)]),
    ],
)
def test_overlapping_or_adjacent_are_coalesced(value: bytes, found: list[tuple[int, int]]) -> None:
    assert parse(value, SIZE) == found


def test_count_is_capped() -> None:
    at_most = [b"%d-%d" % (2 * number, 2 * number) for number in range(MAX_RANGES)]
    assert parse(b"bytes=" + b",".join(at_most), SIZE) == [(2 * n, 2 * n + 1) for n in range(MAX_RANGES)]
    assert parse(b"bytes=" + b",".join([*at_most, b"900-"]), SIZE) is None
    assert parse(b"bytes=" + b",".join([b"0-"] * (MAX_RANGES + 1)), SIZE) is None


def test_empty_members_do_not_count_up_to_a_reasonable_number() -> None:
    assert parse(b"bytes=" + b"," * 64 + b"0-1", SIZE) == [(0, 2)]
    assert parse(b"bytes=" + b"," * 65 + b"0-1", SIZE) is None
    assert parse(b"bytes=0-1" + b"," * 65, SIZE) is None


@pytest.mark.parametrize("digits", [18, 19, 40, 4300, 4301, LONG])
def test_very_long_numbers(digits: int) -> None:
    huge = b"9" * digits
    assert parse(b"bytes=5-" + huge, SIZE) == [(5, SIZE)]
    assert parse(b"bytes=-" + huge, SIZE) == [(0, SIZE)]
    assert parse(b"bytes=" + huge + b"-", SIZE) == []
    assert parse(b"bytes=" + huge + b"-" + huge, SIZE) == []
    assert parse(b"bytes=" + huge + b"-5", SIZE) is None
    assert parse(b"bytes=5-" + huge + b",1-1", SIZE) == [(5, SIZE), (1, 2)]


@pytest.mark.parametrize("zeros", [17, 18, 4301, LONG])
def test_leading_zeros_are_no_length(zeros: int) -> None:
    assert parse(b"bytes=" + b"0" * zeros + b"5-" + b"0" * zeros + b"6", SIZE) == [(5, 7)]
    assert parse(b"bytes=-" + b"0" * zeros, SIZE) == []


@pytest.mark.parametrize(
    "piece", [b"0-,", b"0-0,", b"-1,", b",", b" ", b"0", b"-", b"0-", b"0-0, ,", b"9", b"\xff", b"bytes=", b"=", b"\t,"]
)
def test_longest_header_is_read_in_time(piece: bytes) -> None:
    long = piece * (LONG // len(piece))
    for value in (long, b"bytes=" + long, b"bytes=0-" + long, b"bytes=" + long + b"0-0"):
        assert parse(value, SIZE) in (None, [], [(0, 1)], [(0, SIZE)])


# -- against an oracle ---------------------------------------------------------------------------------------------


def obvious(value: bytes, size: int) -> list[tuple[int, int]] | None:
    found = re.fullmatch(r"[ \t]*bytes=(.*?)[ \t]*", value.decode("latin-1"), re.IGNORECASE | re.ASCII)
    members = [member for text in found[1].split(",") if (member := text.strip(" \t"))] if found else []
    if not found or not 0 < len(members) <= 16 or found[1].count(",") > 64:
        return None
    satisfiable, asked = False, []
    for member in members:
        positions = re.fullmatch("([0-9]+)-([0-9]*)|-([0-9]+)", member)
        if not positions:
            return None
        first, last, suffix = (int(text) if text else None for text in positions.groups())
        if first is not None and last is not None and last < first:
            return None
        lowest = first if first is not None else size - (suffix or 0)
        asked.append({at for at in range(size) if at >= lowest and (last is None or at <= last)})
        satisfiable = satisfiable or bool(suffix) or (first is not None and first < size)
    return None if satisfiable and not size else pieces([each for each in asked if each])


def pieces(asked: list[set[int]]) -> list[tuple[int, int]]:
    touching = any(abs(a - b) <= 1 for one, other in combinations(asked, 2) for a in one for b in other)
    if not touching:
        return [(min(each), max(each) + 1) for each in asked]
    everything = set().union(*asked)
    starts = sorted(at for at in everything if at - 1 not in everything)
    stops = sorted(at + 1 for at in everything if at + 1 not in everything)
    return list(zip(starts, stops, strict=True))


OCTETS = [9, *range(0x20, 0x100)]
raw = st.lists(st.sampled_from(OCTETS), max_size=30).map(bytes)
likely = st.text("0123456789-, \tbyBs=+_", max_size=20).map(str.encode)
space = st.sampled_from([b"", b"", b"", b" ", b"\t", b" \t "])
small = st.integers(0, 24).map(lambda number: b"%d" % number)
number = st.one_of(small, small, small.map(lambda text: b"00" + text), st.sampled_from([b"9" * 18, b"1" + b"0" * 30]))
ordered = st.tuples(st.integers(0, 24), st.integers(0, 8)).map(lambda pair: b"%d-%d" % (pair[0], sum(pair)))
spec = st.one_of(
    ordered,
    ordered,
    number.map(lambda text: text + b"-"),
    number.map(lambda text: b"-" + text),
    st.tuples(number, number).map(b"-".join),
)
bad = st.sampled_from(
    [b"5-4", b"0--1", b"-", b"", b"", b"abc", b"1_0-2_0", b"+1-2", b"1-2-3", b"1 - 2", b"\xb2-\xb3", b"3"]
)
unit = st.sampled_from([b"bytes="] * 6 + [b"Bytes=", b"bytes= ", b"bytes =", b"items=", b"", b"="])


@st.composite
def sets(draw: st.DrawFn, member: st.SearchStrategy[bytes]) -> bytes:
    separator = draw(space) + b"," + draw(space)
    return draw(space) + draw(unit) + separator.join(draw(st.lists(member, min_size=1, max_size=6))) + draw(space)


@st.composite
def damaged(draw: st.DrawFn, values: st.SearchStrategy[bytes]) -> bytes:
    value = bytearray(draw(values))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(value)))
        value[place : place + draw(st.integers(0, 2))] = bytes(draw(st.lists(st.sampled_from(OCTETS), max_size=1)))
    return bytes(value)


well_formed = sets(spec)
values = st.one_of(
    well_formed,
    well_formed,
    sets(st.one_of(spec, spec, bad)),
    damaged(well_formed),
    likely.map(b"bytes=".__add__),
    likely,
    raw,
)


@given(values, st.integers(0, 30))
@example(b"bytes=-5", 0)
@example(b"bytes=0-", 0)
@example(b"bytes=1-1,0-0", 2)
@example(b"bytes=2-2,0-0", 3)
def test_parses_as_the_set_of_positions_says(value: bytes, size: int) -> None:
    assert parse(value, size) == obvious(value, size)


@given(values, st.integers(0, 10**15))
def test_every_range_lies_in_the_file(value: bytes, size: int) -> None:
    for start, stop in parse(value, size) or []:
        assert 0 <= start < stop <= size


# -- multipart/byteranges ------------------------------------------------------------------------------------------


def read_multipart(content: bytes, boundary: bytes) -> list[tuple[list[bytes], bytes]]:
    preamble, *parts, epilogue = (b"\r\n" + content).split(b"\r\n--" + boundary)
    assert (preamble, epilogue) == (b"", b"--\r\n")
    read = []
    for part in parts:
        head, _, body = part.partition(b"\r\n\r\n")
        first, *fields = head.split(b"\r\n")
        assert first == b""
        read.append((fields, body))
    return read


def assemble(body: bytes, ranges: list[tuple[int, int]]) -> tuple[bytes, int]:
    heads, length = multipart(ranges, len(body), b"text/html; charset=utf-8", b"b0undary")
    *heads, closing = heads
    parts = [head + body[start:stop] for head, (start, stop) in zip(heads, ranges, strict=True)]
    return b"".join(parts) + closing, length


def test_multipart_as_it_goes_over_the_wire() -> None:
    content, length = assemble(b"0123456789", [(8, 10), (0, 1)])
    assert content == (
        b"--b0undary\r\n"
        b"content-type: text/html; charset=utf-8\r\n"
        b"content-range: bytes 8-9/10\r\n"
        b"\r\n"
        b"89\r\n"
        b"--b0undary\r\n"
        b"content-type: text/html; charset=utf-8\r\n"
        b"content-range: bytes 0-0/10\r\n"
        b"\r\n"
        b"0\r\n"
        b"--b0undary--\r\n"
    )
    assert length == len(content)


@given(st.binary(min_size=1, max_size=60), st.data())
def test_multipart_carries_each_part_and_its_length(body: bytes, data: st.DataObject) -> None:
    positions = st.lists(st.integers(0, len(body)), min_size=2, max_size=2, unique=True)
    ranges = [(min(pair), max(pair)) for pair in data.draw(st.lists(positions, min_size=1, max_size=5))]
    content, length = assemble(body, ranges)
    assert length == len(content)
    assert read_multipart(content, b"b0undary") == [
        (
            [
                b"content-type: text/html; charset=utf-8",
                b"content-range: bytes %d-%d/%d" % (start, stop - 1, len(body)),
            ],
            body[start:stop],
        )
        for start, stop in ranges
    ]


def test_multipart_of_parts_that_no_memory_holds() -> None:
    heads, length = multipart([(0, 10**12), (2 * 10**12, 3 * 10**12)], 10**13, b"video/mp4", b"x")
    assert length == sum(map(len, heads)) + 2 * 10**12
