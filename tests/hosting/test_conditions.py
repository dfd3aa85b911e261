"""Conditional requests, against the slow and obvious way through section 13.2.2."""

import calendar
import re
import time
from datetime import datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.hosting.conditions import evaluate, same

LONG = 64 * 1024
ETAG = b'"abc"'
MODIFIED = 784111777
FIXDATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
RFC850 = b"Sunday, 06-Nov-94 08:49:37 GMT"
ASCTIME = b"Sun Nov  6 08:49:37 1994"
EARLIER = b"Sun, 06 Nov 1994 08:49:36 GMT"
LATER = b"Sun, 06 Nov 1994 08:49:38 GMT"

GARBAGE_DATES = [
    b"",
    b" ",
    b"yesterday",
    b"0",
    b"784111777",
    b"9" * 5000,
    b"\xff" * 29,
    b"Sun, 06 Nov 0000 08:49:37 GMT",
    b"Sun, 06 Nov 99999 08:49:37 GMT",
    b"Sun, 06 Nov -994 08:49:37 GMT",
    b"Sun, 31 Nov 1994 08:49:37 GMT",
    b"Sun, 29 Feb 1995 08:49:37 GMT",
    b"Sun, 00 Nov 1994 08:49:37 GMT",
    b"Sun, 6 Nov 1994 08:49:37 GMT",
    b"Sun, 06 Nov 1994 24:00:00 GMT",
    b"Sun, 06 Nov 1994 08:60:37 GMT",
    b"Sun, 06 Nov 1994 08:49:61 GMT",
    b"Sun, 06 Nov 1994 08:49:37 UTC",
    b"Sun, 06 Nov 1994 08:49:37 +0000",
    b"Sun, 06 Nov 1994 08:49:37",
    b"Sun, 06 Nov 1994 08:49 GMT",
    b"06 Nov 1994 08:49:37 GMT",
    b"Xyz, 06 Nov 1994 08:49:37 GMT",
    b"Sun, 06 Xyz 1994 08:49:37 GMT",
    b"Sun, 06 nov 1994 08:49:37 GMT",
    b"Sun,  6 Nov 1994 08:49:37 GMT",
    b"Sun, 06 Nov 1994 08:49:37 GMT; length=5",
    b"Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
    b"Sun, \xb206 Nov 1994 08:49:37 GMT",
    "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT".encode(),
    b"Sunday, 06-Nov-1994 08:49:37 GMT",
    b"Sunday, 31-Feb-94 08:49:37 GMT",
    b"Sun, 06-Nov-94 08:49:37 GMT",
    b"Sun Nov 6 08:49:37 1994",
    b"Sun Nov  6 08:49:37 0000",
    b"Sun Nov  6 08:49:37 1994 GMT",
    b"1994-11-06T08:49:37Z",
    ETAG,
]


def condition(name: bytes, value: bytes, modified: int | None = MODIFIED) -> int | None:
    return evaluate({name: value}, ETAG, modified)


def test_no_condition() -> None:
    assert evaluate({}, ETAG, MODIFIED) is None
    assert evaluate({b"accept": b"*/*", b"range": b"bytes=0-0"}, ETAG, None) is None


# -- entity-tags ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        ETAG,
        b"*",
        b" * ",
        b' \t"abc"\t ',
        b'"x", "abc"',
        b'"abc","x"',
        b'"x" , "abc" , "y"',
        b',, "abc" ,',
        b'"a,b", "abc"',
        b'"a, b", "abc"',
        b'"a", b", "abc"',
        b'garbage, "abc"',
        b'"open, "abc"',
        b'x"y, "abc"',
        b'"sp ace", "abc"',
        b'"\xe9\xff", "abc"',
        b'W/"x", "abc"',
        b'"", "abc"',
    ],
)
def test_tag_is_listed(value: bytes) -> None:
    assert condition(b"if-none-match", value) == 304
    assert condition(b"if-match", value) is None


@pytest.mark.parametrize("value", [b'W/"abc"', b'"x", W/"abc"', b'W/"abc",W/"abc"', b' W/"abc" '])
def test_weak_tag_matches_only_weakly(value: bytes) -> None:
    assert condition(b"if-none-match", value) == 304
    assert condition(b"if-match", value) == 412


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b",",
        b"abc",
        b'"ab"',
        b'"abcd"',
        b'"ABC"',
        b"'abc'",
        b'"*"',
        b'"x", *',
        b"**",
        b"*,",
        b'"abc',
        b'abc"',
        b'""abc""',
        b'"abc"x',
        b'x"abc"',
        b'"abc" "abc"',
        b'"abc";q=1',
        b'w/"abc"',
        b'W/ "abc"',
        b'W"abc"',
        b'W/W/"abc"',
        b'"x\\"abc"',
        b'\xa0"abc"',
        b'"abc"\xa0',
        b'"x "abc"',
        FIXDATE,
    ],
)
def test_tag_is_not_listed(value: bytes) -> None:
    assert condition(b"if-none-match", value) is None
    assert condition(b"if-match", value) == 412


@pytest.mark.parametrize("etag", [b'"a,b"', b'"W/"', b'"\xe9\xff"', b'"*"', b'""', b'","', b'"a,W/"'])
def test_odd_tags_of_our_own(etag: bytes) -> None:
    for value in (etag, b"W/" + etag, b'"x",' + etag + b', "y"'):
        assert evaluate({b"if-none-match": value}, etag, None) == 304
    assert evaluate({b"if-none-match": b'"x", "y"'}, etag, None) is None


# -- dates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [FIXDATE, RFC850, ASCTIME, b" " + FIXDATE + b"\t", b"Mon, 06 Nov 1994 08:49:37 GMT"])
def test_date_in_any_format(value: bytes) -> None:
    assert condition(b"if-modified-since", value) == 304
    assert condition(b"if-modified-since", value, MODIFIED + 1) is None
    assert condition(b"if-unmodified-since", value) is None
    assert condition(b"if-unmodified-since", value, MODIFIED + 1) == 412
    assert same(value, ETAG, MODIFIED)
    assert not same(value, ETAG, MODIFIED + 1) and not same(value, ETAG, MODIFIED - 1)


def test_date_before_and_after() -> None:
    assert condition(b"if-modified-since", EARLIER) is None
    assert condition(b"if-modified-since", LATER) == 304
    assert condition(b"if-unmodified-since", EARLIER) == 412
    assert condition(b"if-unmodified-since", LATER) is None


@pytest.mark.parametrize("value", GARBAGE_DATES)
def test_garbage_date_is_ignored(value: bytes) -> None:
    for modified in (0, MODIFIED, 10**12):
        assert condition(b"if-modified-since", value, modified) is None
        assert condition(b"if-unmodified-since", value, modified) is None
        assert not same(value, b'"other"', modified)


@pytest.mark.parametrize("value", [FIXDATE, LATER, RFC850, ASCTIME, b"Mon, 01 Jan 1900 00:00:00 GMT"])
def test_file_without_a_date(value: bytes) -> None:
    assert condition(b"if-modified-since", value, None) is None
    assert condition(b"if-unmodified-since", value, None) is None
    assert not same(value, ETAG, None)


def test_leap_second() -> None:
    assert same(b"Sat, 31 Dec 2016 23:59:60 GMT", ETAG, 1483228800)


def test_first_and_last_years() -> None:
    assert condition(b"if-modified-since", b"Mon, 01 Jan 0001 00:00:00 GMT") is None
    assert condition(b"if-modified-since", b"Fri, 31 Dec 9999 23:59:60 GMT") == 304


@pytest.mark.parametrize(("days", "is_ahead"), [(-5, True), (5, False)])
def test_two_digit_year_is_at_most_fifty_years_ahead(days: int, is_ahead: bool) -> None:
    then = datetime(*time.gmtime()[:3]) + timedelta(days=days)
    then = then.replace(day=min(then.day, 28))  # a day that each year has
    value = f"Monday, {then:%d}-{MONTHS[then.month - 1]}-{(then.year + 50) % 100:02} 00:00:00 GMT"
    meant = then.replace(year=then.year + (50 if is_ahead else -50))
    assert same(value.encode(), ETAG, calendar.timegm(meant.timetuple()))


# -- order ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({b"if-none-match": b'"x"', b"if-modified-since": LATER}, None),
        ({b"if-none-match": b"", b"if-modified-since": LATER}, None),
        ({b"if-none-match": ETAG, b"if-modified-since": EARLIER}, 304),
        ({b"if-match": ETAG, b"if-unmodified-since": EARLIER}, None),
        ({b"if-match": b'"x"', b"if-unmodified-since": LATER}, 412),
        ({b"if-match": b'"x"', b"if-none-match": ETAG}, 412),
        ({b"if-match": ETAG, b"if-none-match": ETAG}, 304),
        ({b"if-match": b"*", b"if-none-match": b"*"}, 304),
        ({b"if-unmodified-since": EARLIER, b"if-none-match": ETAG}, 412),
        ({b"if-unmodified-since": LATER, b"if-none-match": ETAG}, 304),
        ({b"if-unmodified-since": FIXDATE, b"if-modified-since": FIXDATE}, 304),
        ({b"if-unmodified-since": b"garbage", b"if-modified-since": FIXDATE}, 304),
        ({b"if-match": ETAG, b"if-modified-since": FIXDATE}, 304),
    ],
)
def test_order_of_the_conditions(fields: dict[bytes, bytes], status: int | None) -> None:
    assert evaluate(fields, ETAG, MODIFIED) == status


# -- If-Range ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "is_same"),
    [
        (ETAG, True),
        (b' "abc"\t', True),
        (b'W/"abc"', False),
        (b'"x"', False),
        (b'"abc", "abc"', False),
        (b'"x", "abc"', False),
        (b"*", False),
        (b"abc", False),
        (b"", False),
        (FIXDATE, True),
        (EARLIER, False),
        (LATER, False),
        (FIXDATE + b", " + FIXDATE, False),
    ],
)
def test_range_only_of_the_same(value: bytes, is_same: bool) -> None:
    assert same(value, ETAG, MODIFIED) is is_same


@pytest.mark.parametrize(
    "piece",
    [
        b",",
        b'"',
        b'",',
        b',"',
        b'",",x',
        b'"a",',
        b'W/"a" ,',
        b"W/",
        b",W/",
        b" ",
        b", ",
        b'"a" ',
        b"a",
        b"\xff",
        b"*",
        b"0",
        b'"ab',
        b'"abc"x,',
        FIXDATE,
    ],
)
def test_longest_header_is_read_in_time(piece: bytes) -> None:
    long = piece * (LONG // len(piece))
    for value in (long, long + b"," + ETAG, b'"' + long + ETAG, b'"x"' + long + ETAG + b"x"):
        for name in (b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since"):
            assert condition(name, value) in (None, 304, 412)
        assert not same(value, ETAG, MODIFIED)


# -- against an oracle ---------------------------------------------------------------------------------------------

DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
LONG_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def obvious_tags(value: bytes) -> list[bytes]:
    """Member by member; one that is no tag ends at the next comma."""
    tags, at = [], 0
    while at < len(value):
        while value[at : at + 1] in (b" ", b"\t"):
            at += 1
        opening = at + 2 if value[at : at + 2] == b"W/" else at
        closing = value.find(b'"', opening + 1)
        rest = value[closing + 1 :].lstrip(b" \t")
        opaque = value[opening + 1 : closing]
        allowed = all(octet > 0x20 and octet != 0x7F for octet in opaque)
        if value[opening : opening + 1] == b'"' and closing > 0 and allowed and rest[:1] in (b"", b","):
            tags.append(value[at : closing + 1])
            at = closing + 1
        comma = value.find(b",", at)
        at = comma + 1 if comma >= 0 else len(value)
    return tags


def obvious_seconds(value: bytes) -> int | None:
    """What its numbers and its month can mean, if that, written out in one of the formats, is the same text again."""
    text = value.decode("latin-1").strip(" \t")
    numbers = [int(digits) for digits in re.findall("[0-9]+", text)]
    months = [place for place, name in enumerate(MONTHS, 1) if name in text]
    if len(numbers) != 5 or len(months) != 1:
        return None
    a, b, c, d, e = numbers
    for layout, names, day, year, clock in (
        ("{}, {day:02} {month} {year:04} {time} GMT", DAYS, a, b, (c, d, e)),
        ("{}, {day:02}-{month}-{year:02} {time} GMT", LONG_DAYS, a, b, (c, d, e)),
        ("{} {month} {day:02} {time} {year:04}", DAYS, a, e, (b, c, d)),
        ("{} {month} {day:>2} {time} {year:04}", DAYS, a, e, (b, c, d)),
    ):
        parts = {"month": MONTHS[months[0] - 1], "day": day, "year": year, "time": "{:02}:{:02}:{:02}".format(*clock)}
        if text in [layout.format(name, **parts) for name in names]:
            return moment(year if names == DAYS else nearest(year, months[0], day, clock), months[0], day, clock)
    return None


def moment(year: int, month: int, day: int, clock: tuple[int, int, int]) -> int | None:
    hour, minute, second = clock
    try:
        then = datetime(year, month, day, hour, minute, 59 if second == 60 else second)
    except (ValueError, OverflowError):
        return None
    return calendar.timegm(then.timetuple()) + (second == 60)


def nearest(two_digits: int, month: int, day: int, clock: tuple[int, int, int]) -> int:
    """The latest year that ends so and does not lie more than 50 years ahead; 0, which is none, for three digits."""
    now = time.gmtime()
    for year in range(now.tm_year + 50, 0, -1):
        if year % 100 == two_digits and (year - 50, month, day, *clock) <= now[:6]:
            return year
    return 0


def obvious(fields: dict[bytes, bytes], etag: bytes, modified: int | None) -> int | None:
    def date_of(name: bytes) -> int | None:
        return obvious_seconds(fields[name]) if name in fields and modified is not None else None

    any_of = {name: value.strip(b" \t") == b"*" for name, value in fields.items()}
    unmodified_since, modified_since = date_of(b"if-unmodified-since"), date_of(b"if-modified-since")
    if b"if-match" in fields:  # step 1
        if not any_of[b"if-match"] and etag not in obvious_tags(fields[b"if-match"]):
            return 412
    elif unmodified_since is not None and modified is not None and not modified <= unmodified_since:  # step 2
        return 412
    if b"if-none-match" in fields:  # step 3
        listed = [tag.removeprefix(b"W/") for tag in obvious_tags(fields[b"if-none-match"])]
        if any_of[b"if-none-match"] or etag in listed:
            return 304
    elif modified_since is not None and modified is not None and not modified > modified_since:  # step 4
        return 304
    return None


OCTETS = [9, *range(0x20, 0x100)]
raw = st.lists(st.sampled_from(OCTETS), max_size=40).map(bytes)
likely = st.text(' \t,"W/abc*\xe9', max_size=20).map(lambda text: text.encode("latin-1"))
opaque = st.sampled_from([b"abc", b"abc", b"a,b", b"", b"*", b"W/", b"\xe9", b"x"])
tag = st.tuples(st.sampled_from([b"", b"", b"W/"]), opaque).map(lambda pair: pair[0] + b'"' + pair[1] + b'"')
no_tag = st.sampled_from(
    [b"", b"abc", b'"abc', b'abc"', b'"a b"', b"*", b'w/"abc"', b'W/ "abc"', b'"abc""', b'"abc" "abc"']
)
space = st.sampled_from([b"", b"", b" ", b"\t", b" \t "])
moments = st.one_of(
    st.integers(MODIFIED - 1, MODIFIED + 1),
    st.integers(MODIFIED - 10**6, MODIFIED + 10**6),
    st.integers(-62135596800, 253402300799),
)


@st.composite
def lists(draw: st.DrawFn) -> bytes:
    members = draw(st.lists(st.one_of(tag, tag, tag, no_tag), max_size=5))
    return draw(space) + (draw(space) + b"," + draw(space)).join(members) + draw(space)


@st.composite
def dates(draw: st.DrawFn) -> bytes:
    then = datetime(1970, 1, 1) + timedelta(seconds=draw(moments))
    weekday, month = then.weekday(), MONTHS[then.month - 1]
    forms = [
        f"{DAYS[weekday]}, {then:%d} {month} {then.year:04} {then:%H:%M:%S} GMT",
        f"{LONG_DAYS[weekday]}, {then:%d}-{month}-{then.year % 100:02} {then:%H:%M:%S} GMT",
        f"{DAYS[weekday]} {month} {then.day:>2} {then:%H:%M:%S} {then.year:04}",
    ]
    return draw(st.sampled_from(forms)).encode()


@st.composite
def damaged(draw: st.DrawFn, values: st.SearchStrategy[bytes]) -> bytes:
    value = bytearray(draw(values))
    inserted = st.one_of(st.sampled_from(list(b'0123456789 ,:"WGMT')), st.sampled_from(OCTETS))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(value)))
        value[place : place + draw(st.integers(0, 2))] = bytes(draw(st.lists(inserted, max_size=1)))
    return bytes(value)


tags = st.one_of(lists(), lists(), damaged(lists()), likely, raw, st.just(b"*"))
times = st.one_of(dates(), dates(), damaged(dates()), raw)
requests = st.fixed_dictionaries(
    {}, optional={b"if-match": tags, b"if-none-match": tags, b"if-modified-since": times, b"if-unmodified-since": times}
)
etags = opaque.map(lambda content: b'"' + content + b'"')
modifieds = st.one_of(st.none(), st.integers(MODIFIED - 1, MODIFIED + 1), moments)


@given(requests, etags, modifieds)
@example({b"if-none-match": b'"a b,"abc"'}, ETAG, None)
@example({b"if-none-match": b'"x,"abc"'}, ETAG, None)
def test_evaluates_as_the_steps_say(fields: dict[bytes, bytes], etag: bytes, modified: int | None) -> None:
    assert evaluate(fields, etag, modified) == obvious(fields, etag, modified)


@given(tags, etags)
def test_lists_are_read_member_by_member(value: bytes, etag: bytes) -> None:
    for name in (b"if-match", b"if-none-match"):
        assert evaluate({name: value}, etag, None) == obvious({name: value}, etag, None)


@given(st.one_of(tags, times), etags, modifieds)
def test_same_is_one_strong_tag_or_one_date(value: bytes, etag: bytes, modified: int | None) -> None:
    by_date = modified is not None and obvious_seconds(value) == modified
    by_tag = obvious_tags(value) == [etag] and value.strip(b" \t") == etag
    assert same(value, etag, modified) == (by_tag or by_date)


@given(times, st.integers(-1, 1))
def test_dates_are_read_as_written(value: bytes, off: int) -> None:
    seconds = obvious_seconds(value)
    if seconds is None:
        assert condition(b"if-unmodified-since", value, 10**15) is None
    else:
        assert same(value, ETAG, seconds + off) is (off == 0)
