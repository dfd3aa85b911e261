"""What the internet sends to a form that is open: requests of many shapes, each with the statuses that may answer it.

Made from a seed, so that a failure can be had again. Raw bytes: a client library would tidy them up.
"""

import json
import random
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

VICTIMS = [f"victim.{name}@gmail.com" for name in ("a", "b", "c", "d", "e", "f", "g", "h", "i")]
TAKEN = frozenset({202, 303, 429})
REFUSED = frozenset({400, 403, 404, 405, 413, 415, 422, 429, 431})

Hostile = tuple[bytes, frozenset[int]]
_PIECES = [
    "\ud800",
    "\u202e",
    "\u2028",
    "\x00",
    "\r\nBcc: x@y.example",
    "=?utf-8?q?a=0D=0ABcc=3A_x=40y=2Ez?=",
    "{{7*7}}",
]


def post(body: bytes, kind: str = "application/json", path: str = "/signup", **headers: str) -> bytes:
    """A POST as bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _form(**more: object) -> bytes:
    return json.dumps({"site": "bikes", "email": "nobody@example.com", "colour": "Red", **more}).encode()


def _spelling(chance: random.Random, address: str) -> str:
    local, _, domain = address.partition("@")
    local = "".join(char + chance.choice(["", "."]) for char in local.replace(".", "")).strip(".")
    return f"{chance.choice([local, local.upper()])}+{chance.randrange(10**6)}@{domain}"


def bombing(chance: random.Random) -> Hostile:
    """The same nine victims, in ever new spellings, from addresses that a header claims."""
    email = _spelling(chance, chance.choice(VICTIMS))
    claimed = f"198.51.100.{chance.randrange(256)}"
    return post(_form(email=email), X_Forwarded_For=claimed, Forwarded=f"for={claimed}"), TAKEN


def spam(chance: random.Random) -> Hostile:
    """The fields as carriers of an advertisement."""
    text = "Buy now https://spam.example " + chance.choice(_PIECES[4:])
    return post(_form(email=_spelling(chance, chance.choice(VICTIMS)), name=text[:99])), TAKEN | REFUSED


def honeypot(chance: random.Random) -> Hostile:
    fields = {"site": "bikes", "email": chance.choice(VICTIMS), "colour": "Red", "website": "https://x.example"}
    return post(urlencode(fields).encode(), "application/x-www-form-urlencoded"), TAKEN


def foreign(chance: random.Random) -> Hostile:
    origin = chance.choice(["https://evil.example", "null", "http://localhost.evil.example", "http://localhost:1"])
    return post(_form(), Origin=origin), frozenset({403})


def malformed(chance: random.Random) -> Hostile:
    body, kind = chance.choice(
        [
            (b"{" * 1000, "application/json"),
            (b"[" * 60_000, "application/json"),
            (b'{"site":"bikes","site":"boats"}', "application/json"),
            (b"\xff\xfe\x00", "application/json"),
            (b"&".join([b"a=b"] * 1000), "application/x-www-form-urlencoded"),
            (b'--x\r\nContent-Disposition: form-data; name="a"', "multipart/form-data; boundary=x"),
            (b"", "multipart/form-data"),
            (b"<xml/>", "text/xml"),
            (b"1" * 5000, "application/json"),
        ]
    )
    return post(body, kind), REFUSED


def poisoned(chance: random.Random) -> Hostile:
    """What must not get into a mail, a log or a header."""
    field = chance.choice(["name", "message", "email", "colour", "site"])
    return post(_form(**{field: f"a{chance.choice(_PIECES)}b"})), TAKEN | REFUSED


def large(chance: random.Random) -> Hostile:
    return post(_form(message="a" * chance.choice([101, 5_000, 60_000]))), REFUSED


def forged(chance: random.Random) -> Hostile:
    """Tokens and proofs that nobody made."""
    junk = "".join(chance.choices("abcdefghij0123456789.-_=", k=chance.randrange(1, 200)))
    if chance.random() < 0.5:
        return post(_form(email=chance.choice(VICTIMS), _token=junk, altcha=junk)), TAKEN
    page = chance.choice(["confirm", "unsubscribe"])
    return post(b"List-Unsubscribe=One-Click", "application/x-www-form-urlencoded", f"/{page}/{junk}"), frozenset({404})


def repeated(chance: random.Random) -> Hostile:
    """One Idempotency-Key with ever other bodies."""
    body = _form(email=chance.choice(VICTIMS), message=str(chance.random()))
    return post(body, Idempotency_Key='"the same"'), TAKEN | {422}


def elsewhere(chance: random.Random) -> Hostile:
    path = chance.choice(
        ["/signup/../..%2f", "/.env", "/confirm/", "/_doorbell/token/none", "/_doorbell/challenge/%00"]
    )
    return post(b"", path=path), REFUSED


SHAPES: list[Callable[[random.Random], Hostile]] = [
    bombing,
    bombing,
    spam,
    honeypot,
    foreign,
    malformed,
    poisoned,
    large,
    forged,
    repeated,
    elsewhere,
]


def requests(count: int, seed: int) -> Iterator[Hostile]:
    """So many, each of a shape that chance chooses."""
    chance = random.Random(seed)
    for _ in range(count):
        yield chance.choice(SHAPES)(chance)


def victim(address: str) -> str | None:
    """Whom of the nine this address reaches; None for anybody else."""
    local, _, domain = address.lower().partition("@")
    plain = local.partition("+")[0].replace(".", "")
    known = {one.partition("@")[0].replace(".", "") for one in VICTIMS}
    return plain if domain == "gmail.com" and plain in known else None
