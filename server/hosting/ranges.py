"""Byte ranges: the Range field and multipart/byteranges (RFC 9110 section 14). Knows numbers, no files."""

import re
from collections.abc import Sequence

Range = tuple[int, int]  # half-open: first byte, and the one after the last

MAX_RANGES = 16
# Merged header lines leave a few empty members behind (section 5.6.1.2); thousands are an attack.
_MAX_COMMAS = 4 * MAX_RANGES

# int() is quadratic in the digits and refuses more than 4,300 of them. No file has 10**18 bytes.
_MAX_DIGITS = 18
_HUGE = 10**_MAX_DIGITS

_single = re.compile(rb"(?i:bytes)=([0-9]{1,18})-([0-9]{0,18})").fullmatch


def parse(value: bytes, size: int) -> list[Range] | None:
    """The parts of a representation of `size` bytes that a Range value asks for; [] is a 416, None is to ignore it.

    Half-open (start, stop) pairs, 0 <= start < stop <= size, in the order asked (RFC 9110 section 15.3.7.2). If some
    overlap or touch they are coalesced, and all are in ascending order. Members that are not satisfiable are dropped.

    [] where none is satisfiable (sections 14.1.2 and 15.5.17). None where the field does not count (section 14.2):
    another unit than bytes (in letters of any case, section 14.1); a malformed member, which spoils the whole set
    (section 14.1.1); more than MAX_RANGES members, or 64 commas, as section 5.6.1.2 tolerates empty members in reason.
    Of an empty file bytes=0- is a 416, but bytes=-1 is satisfiable and no Content-Range can say so (14.4): None.
    """
    found = _single(value)
    if found is None:
        return _parse_set(value, size)
    first, last = found.groups()
    start, stop = int(first), int(last) + 1 if last else size
    if start < size:
        return [(start, min(stop, size))] if start < stop else None
    return None if last and stop <= start else []


def multipart(ranges: Sequence[Range], size: int, content_type: bytes, boundary: bytes) -> tuple[list[bytes], int]:
    """What stands around the bodies of a multipart/byteranges answer (RFC 9110 section 14.6), and its length in bytes.

    One head a range, to be sent before that range's bytes, then the closing delimiter; the length is that of them all
    and of the bytes. `ranges` are half-open, `size` is that of the whole representation, `content_type` its media type.
    The `boundary` must not occur in the bytes; 1 to 70 characters that need no quotes (RFC 2046 section 5.1.1).
    """
    heads = [
        b"\r\n--%s\r\ncontent-type: %s\r\ncontent-range: bytes %d-%d/%d\r\n\r\n"
        % (boundary, content_type, start, stop - 1, size)
        for start, stop in ranges
    ]
    heads[:1] = [head[2:] for head in heads[:1]]  # the line break ends the part before, and the first has none
    heads.append(b"\r\n--%s--\r\n" % boundary)
    return heads, sum(map(len, heads)) + sum(stop - start for start, stop in ranges)


def _parse_set(value: bytes, size: int) -> list[Range] | None:
    asked = []
    texts = _members(value)
    for text in texts:
        found = _range(text, size)
        if found is None:
            return None
        start, stop = found
        if start < size:
            asked.append((max(start, 0), min(stop, size)))
    if not texts or (asked and not size):
        return None
    return _coalesce(asked)


def _members(value: bytes) -> list[bytes]:
    """The members that are not empty, of a set of bytes; none where the field does not count."""
    unit, _, members = value.strip(b" \t").partition(b"=")
    if unit.lower() != b"bytes":
        return []
    # Commas above the limit stay in the last member and spoil it.
    texts = [text.strip(b" \t") for text in members.split(b",", _MAX_COMMAS)]
    texts = [text for text in texts if text]
    return texts if len(texts) <= MAX_RANGES else []


def _range(text: bytes, size: int) -> Range | None:
    """(start, stop), not yet cut to `size`; satisfiable where start < size, which holds for suffixes too. Or None."""
    first, dash, last = text.partition(b"-")
    if not dash or not (first + last).isdigit():
        return None
    first_digits, last_digits = first.lstrip(b"0"), last.lstrip(b"0")
    if not first:
        return size - _number(last_digits), size
    if not last:
        return _number(first_digits), size
    if (len(last_digits), last_digits) < (len(first_digits), first_digits):
        return None
    return _number(first_digits), _number(last_digits) + 1


def _number(digits: bytes) -> int:
    """What `digits`, without leading zeros, stand for; more than any size where there are too many."""
    return int(digits or b"0") if len(digits) <= _MAX_DIGITS else _HUGE


def _coalesce(asked: list[Range]) -> list[Range]:
    merged: list[Range] = []
    for start, stop in sorted(asked):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return merged if len(merged) < len(asked) else asked
