"""Conditional requests: may the answer be sent, and must it (RFC 9110 section 13). Knows header values, no files."""

import re
import time
from collections.abc import Mapping
from datetime import date
from functools import lru_cache

_CACHED = 1024
_EPOCH = date(1970, 1, 1).toordinal()

# A member of a list that is an entity-tag (section 8.8.3). Commas and W/ may stand in one, quotes and spaces not. As a
# tag ends at the next quote, a search reads no byte more than a few times; the possessive *+ keeps it from going back.
_tags = re.compile(rb'(?:\A|,)[ \t]*+((?:W/)?"[!#-~\x80-\xff]*+")(?=[ \t]*+(?:,|\Z))').findall

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_MONTH = rb"(?P<month>" + b"|".join(_MONTHS) + rb")"
_TIME = rb"(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|60)"
_DAY = rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY = rb"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"

# The three formats of section 5.6.7.
_fixdate = re.compile(_DAY + rb", (?P<day>[0-9]{2}) " + _MONTH + rb" (?P<year>[0-9]{4}) " + _TIME + rb" GMT").fullmatch
_rfc850 = re.compile(
    _LONG_DAY + rb", (?P<day>[0-9]{2})-" + _MONTH + rb"-(?P<year>[0-9]{2}) " + _TIME + rb" GMT"
).fullmatch
_asctime = re.compile(
    _DAY + rb" " + _MONTH + rb" (?P<day>[0-9]{2}| [0-9]) " + _TIME + rb" (?P<year>[0-9]{4})"
).fullmatch
_FIXDATE_LENGTH = 29


def evaluate(fields: Mapping[bytes, bytes], etag: bytes, modified: int | None) -> int | None:
    """304, 412, or None to go on, for GET and HEAD on something that exists, in the order of RFC 9110 section 13.2.2.

    `fields` by lower-case name, several of one name joined by ", ". `etag` is strong, with its quotes. `modified` is in
    Unix seconds, None where no date can be trusted: then no date is compared.

    If-Match compares strongly (13.1.1), If-None-Match weakly (13.1.2). `*` counts only alone. What is no entity-tag is
    skipped up to the next comma, so an If-Match of garbage is a 412. If-Unmodified-Since counts only without If-Match,
    If-Modified-Since only without If-None-Match, and neither where it is no date (13.1.4, 13.1.3).
    """
    if _refused(fields, etag, modified):
        return 412
    tags = fields.get(b"if-none-match")
    if tags is not None:
        return 304 if tags == etag or _listed(tags, (etag, b"W/" + etag)) else None
    since = fields.get(b"if-modified-since")
    if since is None or modified is None:
        return None
    seconds = _seconds(since)
    return 304 if seconds is not None and modified <= seconds else None


def same(value: bytes, etag: bytes, modified: int | None) -> bool:
    """True where an If-Range value names just this representation (RFC 9110 section 13.1.5): if not, no range is sent.

    Parameters as for `evaluate`. One entity-tag, compared strongly: a weak one never matches. Or one date, which must
    be `modified` to the second, in any format; section 8.8.2.2 says when such a date may be trusted.
    """
    value = value.strip(b" \t")
    return value == etag or (modified is not None and modified == _seconds(value))


def _refused(fields: Mapping[bytes, bytes], etag: bytes, modified: int | None) -> bool:
    tags = fields.get(b"if-match")
    if tags is not None:
        return not _listed(tags, (etag,))
    since = fields.get(b"if-unmodified-since")
    if since is None or modified is None:
        return False
    seconds = _seconds(since)
    return seconds is not None and modified > seconds


def _listed(value: bytes, etags: tuple[bytes, ...]) -> bool:
    """Whether the list in `value` has one of `etags`, the first of which is the strong one, or is `*`."""
    if etags[0] in value:
        return not set(etags).isdisjoint(_tags(value))
    return value.strip(b" \t") == b"*"


def _seconds(value: bytes) -> int | None:
    """Unix seconds of an HTTP-date in any of the three formats (RFC 9110 section 5.6.7), None if it is none.

    The weekday must be one, but not the right one. A leap second is the second after it.
    """
    value = value.strip(b" \t")
    if len(value) == _FIXDATE_LENGTH:  # the other formats never are
        return _fixdate_seconds(value)
    if found := _rfc850(value):
        return _of_two_digit_year(found)
    found = _asctime(value)
    return found and _of(found, int(found["year"]))


# Only of this format, as what a two-digit year means changes with time; and its length bounds the keys.
@lru_cache(_CACHED)
def _fixdate_seconds(value: bytes) -> int | None:
    found = _fixdate(value)
    return found and _of(found, int(found["year"]))


def _of_two_digit_year(found: re.Match[bytes]) -> int | None:
    """Unix seconds in the latest year that ends so and is at most 50 years ahead, to the second (section 5.6.7)."""
    now = time.gmtime()
    limit = now.tm_year + 50
    year = limit - (limit - int(found["year"])) % 100
    day = (_MONTHS.index(found["month"]) + 1, int(found["day"]))
    clock = (int(found["hour"]), int(found["minute"]), int(found["second"]))
    return _of(found, year - 100 if (year, *day, *clock) > (limit, *now[1:6]) else year)


def _of(found: re.Match[bytes], year: int) -> int | None:
    try:
        days = date(year, _MONTHS.index(found["month"]) + 1, int(found["day"])).toordinal() - _EPOCH
    except ValueError:  # the year 0, or the 31st of a short month
        return None
    return ((days * 24 + int(found["hour"])) * 60 + int(found["minute"])) * 60 + int(found["second"])
