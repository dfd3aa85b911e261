"""Which coding an Accept-Encoding gets, against the slow and obvious way to read one."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.hosting.negotiation import choose

OFFERED = (b"br", b"zstd", b"gzip")
LONG = 64 * 1024


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (b"gzip, deflate, br, zstd", b"br"),
        (b"gzip, deflate", b"gzip"),
        (b"gzip", b"gzip"),
        (b"zstd,gzip", b"zstd"),
        (b"br;q=0.1,gzip;q=0.9", b"gzip"),
        (b"br;q=0.001,gzip;q=0.002", b"gzip"),
        (b"br;q=0.5;q=1, gzip;q=0.1", b"gzip"),
        (b"gzip;q=1.000, br;q=0.999", b"gzip"),
        (b"gzip;q=1., br;q=0.", b"gzip"),
        (b"gzip;q=0.3", b"gzip"),
        (b"gzip;q=0.499, br;q=0.5", b"br"),
        (b"gzip;q=0.5, br;q=0.499", b"gzip"),
        (b"gzip;q=0.500, br;q=0.5", b"br"),
    ],
)
def test_highest_weight_wins_then_the_smallest(accept: bytes, chosen: bytes) -> None:
    assert choose(accept, OFFERED) == chosen


@pytest.mark.parametrize("accept", [None, b"", b" ", b",", b" , ,\t", b"deflate", b"compress, deflate", b"identity"])
def test_no_coding_that_we_have_is_named(accept: bytes | None) -> None:
    assert choose(accept, OFFERED) == b"identity"


@pytest.mark.parametrize(
    "accept",
    [
        b"gzip;q=0",
        b"gzip;q=0.",
        b"gzip;q=0.0",
        b"gzip; q=0.000",
        b"gzip\t;\tQ=0",
        b"x-gzip;q=0",
        b"GZIP;q=0",
        b"*, gzip;q=0",
    ],
)
def test_refused_coding_is_not_sent(accept: bytes) -> None:
    assert choose(accept, (b"gzip",)) == b"identity"


@pytest.mark.parametrize("accept", [b"GZIP", b"x-gzip", b"X-GZip;Q=0.5", b"  gzip  ", b"\tgzip ;\tq=1\t"])
def test_gzip_by_other_spellings(accept: bytes) -> None:
    assert choose(accept, OFFERED) == b"gzip"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (b"*", b"br"),
        (b"*;q=0.5", b"br"),
        (b"*;q=0", b"identity"),
        (b"br;q=0, *", b"zstd"),
        (b"*;q=0.5, gzip", b"gzip"),
        (b"*;q=0, gzip;q=0.1", b"gzip"),
        (b"*;q=0.5, br;q=0.1, zstd;q=0.1, gzip;q=0.1", b"identity"),
        (b"*;q=0, identity", b"identity"),
        (b"*, identity;q=0.5", b"br"),
    ],
)
def test_star_stands_for_what_is_not_named(accept: bytes, chosen: bytes) -> None:
    assert choose(accept, OFFERED) == chosen


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (b"identity, gzip", b"gzip"),
        (b"identity, gzip;q=0.9", b"identity"),
        (b"identity;q=0.5, gzip;q=0.5", b"gzip"),
        (b"identity;q=0, gzip;q=0.001", b"gzip"),
        (b"identity;q=0", b"identity"),
        (b"identity;q=0, *;q=0", b"identity"),
        (b"br;q=0, zstd;q=0, gzip;q=0", b"identity"),
        (b"br;q=0, zstd;q=0, gzip;q=0, identity;q=0", b"identity"),
    ],
)
def test_identity_against_the_others(accept: bytes, chosen: bytes) -> None:
    assert choose(accept, OFFERED) == chosen


@pytest.mark.parametrize(
    "member",
    [
        b"x-gzip-really",
        b"gzip;q=2",
        b"gzip;q=1.2345",
        b"gzip;q=0.1234",
        b"gzip;q=1.001",
        b"gzip;q=.5",
        b"gzip;q=abc",
        b"gzip;q=",
        b"gzip;q",
        b"gzip;",
        b"gzip;q=-1",
        b"gzip;q=1e0",
        b"gzip;q=nan",
        b'gzip;q="1"',
        b"gzip;q =1",
        b"gzip;q= 1",
        b"gzip;foo=1",
        b"gzip;q=1;foo=1",
        b"gzip q=1",
        b"gzip gzip",
        b'"gzip"',
        b"gzip\xa0",
        b"gzip\x7f",
        b"gzip;q=\xb2",
        b"gzi",
        b"gzipp",
    ],
)
def test_malformed_member_is_ignored_and_the_rest_counts(member: bytes) -> None:
    assert choose(member, OFFERED) == b"identity"
    assert choose(member + b", br;q=0.1", OFFERED) == b"br"
    assert choose(b"zstd ,, " + member, OFFERED) == b"zstd"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (b"gzip, gzip;q=0", b"identity"),
        (b"gzip;q=0, gzip", b"identity"),
        (b"gzip, br, x-gzip;q=0", b"br"),
        (b"br;q=0.9, gzip;q=0.5, br;q=0.1", b"gzip"),
        (b"*, *;q=0", b"identity"),
    ],
)
def test_named_twice_counts_with_the_lowest_weight(accept: bytes, chosen: bytes) -> None:
    assert choose(accept, OFFERED) == chosen


def test_nothing_is_offered() -> None:
    assert choose(b"gzip, *;q=0.1, identity;q=0", ()) == b"identity"


def test_offer_decides_among_equals() -> None:
    assert choose(b"gzip, br", (b"gzip", b"br")) == b"gzip"
    assert choose(b"gzip, br", (b"br", b"gzip")) == b"br"


@pytest.mark.parametrize(
    "piece",
    [
        b"a,",
        b",",
        b"gzip;q=0.5,",
        b" ",
        b"gzip;",
        b";q=0",
        b"gzip ",
        b"*,",
        b"\xff",
        b"gzip; ",
        b"0",
        b"x-gzip,\t",
        b"q=0.",
    ],
)
def test_longest_header_is_read_in_time(piece: bytes) -> None:
    accept = piece * (LONG // len(piece))
    assert choose(accept, OFFERED) in (*OFFERED, b"identity")
    assert choose(b"gzip;q=0.1," + accept + b",br;q=0,zstd;q=0,identity;q=0", OFFERED) in (b"gzip", b"identity")


def test_weight_at_the_end_of_the_longest_header_counts() -> None:
    assert choose(b"a," * (LONG // 2) + b"zstd", OFFERED) == b"zstd"


# -- against an oracle ---------------------------------------------------------------------------------------------


def obvious(accept: bytes, offered: tuple[bytes, ...]) -> bytes:
    weights: dict[str, list[float]] = {}
    for member in accept.decode("latin-1").split(","):
        name, semicolon, weight = (part.strip(" \t") for part in member.partition(";"))
        q = re.fullmatch(r"[qQ]=(0(\.\d{0,3})?|1(\.0{0,3})?)", weight, re.ASCII)
        if re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name) and (q or not semicolon):
            name = {"x-gzip": "gzip"}.get(name.lower(), name.lower())
            weights.setdefault(name, []).append(float(q[1]) if q else 1.0)

    def weight_of(coding: bytes) -> float | None:
        named = weights.get(coding.decode()) or weights.get("*")
        return min(named) if named else None

    acceptable = [(weight_of(coding) or 0, -place, coding) for place, coding in enumerate(offered)]
    acceptable = [entry for entry in acceptable if entry[0] > 0]
    of_identity = weight_of(b"identity")
    if of_identity:
        acceptable.append((of_identity, -len(offered), b"identity"))
    return max(acceptable)[2] if acceptable else b"identity"


OCTETS = [9, *range(0x20, 0x100)]
raw = st.lists(st.sampled_from(OCTETS), max_size=40).map(bytes)
space = st.sampled_from([b"", b"", b"", b" ", b"\t", b" \t "])
name = st.sampled_from(
    [b"gzip", b"GZip", b"x-gzip", b"br", b"zstd", b"deflate", b"identity", b"*", b"gzi", b"", b"\xe9"]
)
good_weight = st.sampled_from(
    [b"0", b"1", b"0.", b"1.", b"0.5", b"0.50", b"0.500", b"0.499", b"0.001", b"1.000", b"0.0"]
)
bad_weight = st.sampled_from(
    [b"2", b"1.2345", b"1.001", b".5", b"abc", b"", b"-0", b"0,5", b"\xb2", b"0.5;q=1", b"nan", b"1e0"]
)


@st.composite
def members(draw: st.DrawFn) -> bytes:
    weight = draw(st.one_of(st.none(), good_weight, good_weight, bad_weight))
    coding = draw(space) + draw(name) + draw(space)
    if weight is None:
        return coding
    return (
        coding + b";" + draw(space) + draw(st.sampled_from([b"q=", b"q=", b"Q=", b"q =", b"s="])) + weight + draw(space)
    )


@st.composite
def damaged(draw: st.DrawFn, values: st.SearchStrategy[bytes]) -> bytes:
    value = bytearray(draw(values))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(value)))
        value[place : place + draw(st.integers(0, 2))] = bytes(draw(st.lists(st.sampled_from(OCTETS), max_size=1)))
    return bytes(value)


values = st.lists(members(), max_size=6).map(b",".join)
offers = st.lists(st.sampled_from([b"br", b"zstd", b"gzip"]), unique=True).map(tuple)


@given(st.one_of(values, damaged(values), raw), offers)
@example(b"gzip;q=0.000,*", OFFERED)
def test_chooses_as_the_grammar_says(accept: bytes, offered: tuple[bytes, ...]) -> None:
    assert choose(accept, offered) == obvious(accept, offered)


@given(values, offers)
def test_chooses_the_same_from_a_long_header(accept: bytes, offered: tuple[bytes, ...]) -> None:
    assert choose(accept + b"," * 600, offered) == choose(accept, offered)
