"""Which content coding a client gets: Accept-Encoding (RFC 9110 section 12.5.3). Knows header values, no files."""

import re
from functools import lru_cache

IDENTITY = b"identity"

# Clients send a few dozen different values in all; what is longer is nobody's usual value and not worth the memory.
_CACHED = 1024
_LONGEST_CACHED = 512

# A token, and a weight of at most three decimals (sections 5.6.2 and 12.4.2), in lower case.
_member = re.compile(
    rb"([!#$%&'*+.^_`|~0-9a-z-]+)(?:[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?",
).fullmatch


def choose(accept: bytes | None, offered: tuple[bytes, ...]) -> bytes:
    """The content coding to answer with: one of `offered`, or b"identity" (RFC 9110 section 12.5.3).

    `accept` is the Accept-Encoding value, None without the field; `offered` has the codings there are besides identity,
    in lower case, smallest body first. The highest weight wins, and among equals the first offered, identity last. `*`
    stands for every coding that is not named. Identity that is not named, nor covered by `*`, is acceptable, but after
    all that is. Where nothing is acceptable it is identity all the same, as section 12.5.3 allows: a 406 helps nobody.

    A member that breaks the grammar is ignored, the rest counts: another parameter than q, q above 1 or with four
    decimals. Of a coding named twice (x-gzip is gzip, section 8.4.1.3) the lowest weight counts: one refusal refuses.
    """
    if accept is None:
        return IDENTITY
    if len(accept) > _LONGEST_CACHED:
        return _choose(accept, offered)
    return _choose_cached(accept, offered)


def _choose(accept: bytes, offered: tuple[bytes, ...]) -> bytes:
    weights = _weights(accept)
    rest = weights.get(b"*", 0)
    best = max((*offered, IDENTITY), key=lambda coding: weights.get(coding, rest))
    return best if weights.get(best, rest) else IDENTITY


_choose_cached = lru_cache(_CACHED)(_choose)


def _weights(accept: bytes) -> dict[bytes, int]:
    """The weights in thousandths, by coding."""
    weights: dict[bytes, int] = {}
    for text in accept.lower().split(b","):
        if found := _member(text.strip(b" \t")):
            coding, q = found.groups(b"1")
            coding = b"gzip" if coding == b"x-gzip" else coding
            weight = int(q.replace(b".", b"").ljust(4, b"0"))
            weights[coding] = min(weight, weights.get(coding, weight))
    return weights
