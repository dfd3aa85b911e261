"""RFC 9110 over the wire: methods, fields, validators, ranges, negotiation. Each request is asked of both ways."""

import asyncio
import os
import random
import re
import time
import zlib
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import brotli
import pytest
import zstandard

from server.hosting.pages import has_content_hash
from server.web.middleware import SECURITY_HEADERS
from tests.hosting.conftest import Both, Reply, alike, bikes, both, read_reply, request, write

MODIFIED = 1_700_000_000
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
EARLIER = "Tue, 14 Nov 2023 22:13:19 GMT"
LATER = "Tue, 14 Nov 2023 22:13:21 GMT"
POLICY = "default-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'; object-src 'none'"

PAGE = b"<!doctype html><title>Bikes</title>\n" + b"".join(b"<p>Line %d of many.</p>\n" % n for n in range(200))
STYLE = b"".join(b".a%d { color: #%06x }\n" % (n, n * 7919) for n in range(200))
PHOTO = random.Random(3).randbytes(50_000)
DIGITS = b"0123456789"
MISSING = b"<!doctype html><title>No bike here</title>\n" + b"<p>Look elsewhere.</p>\n" * 50
FILES: dict[str, str | bytes] = {
    "index.html": PAGE,
    "about.html": "About",
    "style.css": STYLE,
    "copy.css": STYLE,
    "app.3f2a91bc.js": "let a = 1;\n" * 200,
    "photo.png": PHOTO,
    "digits.png": DIGITS,
    "digits.txt": DIGITS,
    "empty.txt": "",
    "404.html": MISSING,
    "drawing.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>",
    "own/page.html": "Own",
    "own/script.js": "let b = 2;",
    "own/strange.html": "Strange",
    "_headers": """
/own/page
  Content-Security-Policy: default-src 'none'
  X-Frame-Options: DENY
  X-Extra: one
  Cache-Control: public, max-age=60
/own/script.js
  ! X-Frame-Options
  ! Referrer-Policy
  Content-Type: text/plain; charset=utf-8
/own/*
  X-Extra: two
/own/strange
  ! Content-Security-Policy
  ! Cache-Control
  Vary: Cookie
""",
}


def dated(folder: Path, seconds: float) -> Path:
    """Gives every file this time."""
    for file in folder.rglob("*"):
        os.utime(file, (seconds, seconds))
    return folder


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("semantics")
    dated(write(folder / "public", FILES), MODIFIED)
    with both(bikes(folder, {}, cache=folder / "cache")) as pair:
        yield pair


def fields(reply: Reply) -> dict[str, str]:
    """The header fields but for what differs each time. None comes twice."""
    found = alike(reply).headers
    assert len(dict(found)) == len(found)
    return dict(found)


# -- methods -------------------------------------------------------------------------------------------------------


def test_every_field_of_a_page(host: Both) -> None:
    reply = host.ask("/bikes/")
    assert (reply.status, reply.body) == (200, PAGE)
    assert re.fullmatch('"[0-9a-f]{24}"', reply["etag"])
    assert fields(reply) == SECURITY_HEADERS | {
        "content-type": "text/html; charset=utf-8",
        "content-length": str(len(PAGE)),
        "content-security-policy": POLICY,
        "cache-control": "no-cache",
        "vary": "accept-encoding",
        "accept-ranges": "bytes",
        "last-modified": DATE,
        "etag": reply["etag"],
    }


def test_every_field_of_an_image(host: Both) -> None:
    reply = host.ask("/bikes/photo.png", accept_encoding="gzip, br, zstd")
    assert (reply.status, reply.body) == (200, PHOTO)
    assert fields(reply) == SECURITY_HEADERS | {
        "content-type": "image/png",
        "content-length": str(len(PHOTO)),
        "cache-control": "public, max-age=3600",
        "accept-ranges": "bytes",
        "last-modified": DATE,
        "etag": reply["etag"],
    }


def test_date_is_now(host: Both) -> None:
    before = int(time.time())
    reply = host.ask("/bikes/")
    assert reply["date"] in {formatdate(second, usegmt=True) for second in range(before - 1, int(time.time()) + 1)}


@pytest.mark.parametrize("target", ["/bikes/", "/bikes/photo.png", "/bikes/none", "/bikes/about.html", "/bikes"])
@pytest.mark.parametrize("coding", ["identity", "br"])
def test_head_is_get_without_the_body(host: Both, target: str, coding: str) -> None:
    got = host.ask(target, accept_encoding=coding)
    asked = host.ask(target, "HEAD", accept_encoding=coding)
    assert asked.body == b""
    assert (asked.status, fields(asked)) == (got.status, fields(got))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "QUERY"])
@pytest.mark.parametrize("target", ["/bikes/", "/bikes/photo.png"])
def test_other_method_is_not_allowed(host: Both, method: str, target: str) -> None:
    reply = host.ask(target, method)
    assert (reply.status, reply["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert (reply["content-type"], reply["cache-control"]) == ("text/plain; charset=utf-8", "no-store")
    assert reply.body
    assert "etag" not in reply and "last-modified" not in reply


def test_other_method_with_a_body_and_conditions(host: Both) -> None:
    data = request("/bikes/", "POST", content_length="3", if_none_match="*", range="bytes=0-1") + b"a=b"
    assert host.send(data).status == 405


def test_options(host: Both) -> None:
    reply = host.ask("/bikes/photo.png", "OPTIONS")
    assert (reply.status, reply["allow"]) == (204, "GET, HEAD, OPTIONS")
    assert "content-length" not in reply and "content-type" not in reply


@pytest.mark.parametrize("method", ["get", "Get", "FROB"])
def test_method_that_is_none(host: Both, method: str) -> None:
    assert host.ask("/bikes/photo.png", method).status == 400


def test_answers_follow_one_another_on_one_connection(host: Both) -> None:
    etag = host.ask("/bikes/")["etag"]
    asked = [
        ("GET", request("/bikes/")),
        ("HEAD", request("/bikes/", "HEAD")),
        ("GET", request("/bikes/", if_none_match=etag)),
        ("GET", request("/bikes/photo.png", range="bytes=5-9")),
        ("GET", request("/bikes/photo.png", range="bytes=5-9,20-30")),
        ("GET", request("/bikes/photo.png", range="bytes=99999-")),
        ("HEAD", request("/bikes/none", "HEAD")),
        ("GET", request("/bikes/none")),
        ("OPTIONS", request("/bikes/", "OPTIONS")),
        ("GET", request("/bikes/", if_match='"other"')),
        ("HEAD", request("/bikes/", "HEAD", if_match='"other"')),
        ("GET", request("/bikes/about.html")),
        ("DELETE", request("/bikes/", "DELETE")),
        ("GET", request("/elsewhere")),
        ("GET", request("/bikes/digits.txt")),
    ]
    expected = [200, 200, 304, 206, 206, 416, 404, 404, 204, 412, 412, 308, 405, 200, 200]
    assert [reply.status for reply in host.run(_one_after_another(host, asked))] == expected


async def _one_after_another(host: Both, asked: list[tuple[str, bytes]]) -> list[Reply]:
    replies = []
    for port in host.ports.values():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.writelines([data for _, data in asked])
        replies.append([await read_reply(reader, method.encode()) for method, _ in asked])
        writer.write(request("/bikes/", connection="close"))
        await read_reply(reader)
        assert await reader.read() == b""
        writer.close()
    lane, asgi = replies
    assert list(map(alike, lane)) == list(map(alike, asgi))
    return lane


# -- every answer --------------------------------------------------------------------------------------------------

ANSWERS = [
    (200, "/bikes/", {}),
    (200, "/bikes/photo.png", {}),
    (200, "/bikes/style.css", {"accept_encoding": "br"}),
    (204, "/bikes/", {"method": "OPTIONS"}),
    (206, "/bikes/photo.png", {"range": "bytes=0-0"}),
    (206, "/bikes/photo.png", {"range": "bytes=0-0,9-9"}),
    (304, "/bikes/", {"if_none_match": "*"}),
    (308, "/bikes", {}),
    (308, "/bikes/about.html", {}),
    (404, "/bikes/none", {}),
    (404, "/bikes/%00", {}),
    (405, "/bikes/", {"method": "POST"}),
    (412, "/bikes/", {"if_match": '"x"'}),
    (416, "/bikes/photo.png", {"range": "bytes=99999-"}),
]


@pytest.mark.parametrize(("status", "target", "options"), ANSWERS)
def test_every_answer_is_guarded(host: Both, status: int, target: str, options: dict[str, str]) -> None:
    reply = host.ask(target, **options)
    assert reply.status == status
    assert SECURITY_HEADERS.items() <= fields(reply).items()
    assert "transfer-encoding" not in reply and "server" not in reply


def test_every_answer_of_a_page_has_its_policy(host: Both) -> None:
    for options in ({}, {"range": "bytes=0-5"}, {"range": "bytes=0-5,9-9"}, {"if_none_match": "*"}, {"if_match": '"'}):
        assert host.ask("/bikes/", **options)["content-security-policy"] == POLICY
    assert host.ask("/bikes/none")["content-security-policy"] == POLICY
    assert host.ask("/bikes/drawing.svg")["content-security-policy"] == POLICY
    assert "content-security-policy" not in host.ask("/bikes/style.css")


def test_every_field_of_a_redirect(host: Both) -> None:
    reply = host.ask("/bikes/about.html")
    assert (reply.status, reply.body) == (308, b"")
    assert fields(reply) == SECURITY_HEADERS | {
        "location": "./about",
        "cache-control": "public, max-age=3600",
        "content-length": "0",
    }


def test_every_field_of_a_missing_page(host: Both) -> None:
    reply = host.ask("/bikes/none/at/all")
    assert (reply.status, reply.body) == (404, MISSING)
    assert fields(reply) == SECURITY_HEADERS | {
        "content-type": "text/html; charset=utf-8",
        "content-length": str(len(MISSING)),
        "content-security-policy": POLICY,
        "cache-control": "no-cache",
        "vary": "accept-encoding",
    }


def test_missing_page_is_compressed_and_has_no_ranges(host: Both) -> None:
    reply = host.ask("/bikes/none", accept_encoding="gzip", range="bytes=0-5", if_none_match="*", if_match='"x"')
    assert (reply.status, zlib.decompress(reply.body, wbits=31)) == (404, MISSING)


def test_post_to_a_missing_page_is_404(host: Both) -> None:
    assert host.ask("/bikes/none", "POST").status == 404


# -- fields of _headers --------------------------------------------------------------------------------------------


def test_rule_replaces_what_is_usual(host: Both) -> None:
    reply = host.ask("/bikes/own/page")
    assert reply["content-security-policy"] == "default-src 'none'"
    assert reply["x-frame-options"] == "DENY"
    assert reply["cache-control"] == "public, max-age=60"
    assert reply["x-extra"] == "one, two"
    assert reply["x-content-type-options"] == "nosniff"


def test_rule_counts_for_304_206_and_errors_too(host: Both) -> None:
    for options in ({"if_none_match": "*"}, {"range": "bytes=0-0"}, {"if_match": '"x"'}, {"method": "POST"}):
        reply = host.ask("/bikes/own/page", **options)
        assert (reply["x-frame-options"], reply["x-extra"]) == ("DENY", "one, two")
    assert host.ask("/bikes/own/page", if_none_match="*")["cache-control"] == "public, max-age=60"


def test_rule_removes_what_is_usual(host: Both) -> None:
    reply = host.ask("/bikes/own/script.js")
    assert "x-frame-options" not in reply and "referrer-policy" not in reply
    assert reply["x-extra"] == "two"
    for options in ({"method": "POST"}, {"range": "bytes=99-"}, {"if_none_match": "*"}):
        assert "x-frame-options" not in host.ask("/bikes/own/script.js", **options)


def test_rule_sets_the_content_type(host: Both) -> None:
    reply = host.ask("/bikes/own/script.js")
    assert reply["content-type"] == "text/plain; charset=utf-8"
    parts = host.ask("/bikes/own/script.js", range="bytes=0-0,2-2").body
    assert parts.count(b"content-type: text/plain; charset=utf-8\r\n") == 2


def test_rule_removes_policy_and_caching_and_adds_to_vary(host: Both) -> None:
    reply = host.ask("/bikes/own/strange")
    assert "content-security-policy" not in reply and "cache-control" not in reply
    assert reply["vary"] == "accept-encoding, Cookie"


# -- validators ----------------------------------------------------------------------------------------------------


def test_each_coding_has_an_etag_of_its_own(host: Both) -> None:
    tags = [host.ask("/bikes/", accept_encoding=coding)["etag"] for coding in ("", "gzip", "br", "zstd")]
    assert len(set(tags)) == 4
    assert all(re.fullmatch('"[0-9a-f]{24}"', tag) for tag in tags)


def test_same_content_has_the_same_etag(host: Both) -> None:
    assert host.ask("/bikes/style.css")["etag"] == host.ask("/bikes/copy.css")["etag"]


@pytest.mark.parametrize("seconds", [0, 1, 315_532_800, 315_619_200])
def test_pinned_time_is_no_date(tmp_path: Path, seconds: int) -> None:
    dated(write(tmp_path / "public", {"a.txt": "a"}), seconds)
    with both(bikes(tmp_path, {})) as host:
        assert "last-modified" not in host.ask("/bikes/a.txt")
        assert host.ask("/bikes/a.txt", if_modified_since=formatdate(time.time(), usegmt=True)).status == 200
        assert host.ask("/bikes/a.txt", if_unmodified_since="Thu, 01 Jan 1970 00:00:00 GMT").status == 200
        assert host.ask("/bikes/a.txt", range="bytes=0-0", if_range=formatdate(seconds, usegmt=True)).status == 200


def test_time_to_come_is_not_sent(tmp_path: Path) -> None:
    dated(write(tmp_path / "public", {"a.txt": "a"}), time.time() + 86_400)
    with both(bikes(tmp_path, {})) as host:
        sent = host.ask("/bikes/a.txt")["last-modified"]
        assert sent in {formatdate(time.time() - ago, usegmt=True) for ago in range(20)}


CONDITIONS: list[tuple[dict[str, str | list[str]], int]] = [
    # If-Match
    ({"if_match": "{etag}"}, 200),
    ({"if_match": "*"}, 200),
    ({"if_match": '"other", {etag}'}, 200),
    ({"if_match": ['"other"', "{etag}"]}, 200),
    ({"if_match": "W/{etag}"}, 412),
    ({"if_match": '"other"'}, 412),
    ({"if_match": "garbage"}, 412),
    # If-Unmodified-Since
    ({"if_unmodified_since": DATE}, 200),
    ({"if_unmodified_since": LATER}, 200),
    ({"if_unmodified_since": EARLIER}, 412),
    ({"if_unmodified_since": "garbage"}, 200),
    # If-None-Match
    ({"if_none_match": "{etag}"}, 304),
    ({"if_none_match": "W/{etag}"}, 304),
    ({"if_none_match": "*"}, 304),
    ({"if_none_match": '"other" ,W/{etag} , "x"'}, 304),
    ({"if_none_match": ['"other"', "{etag}"]}, 304),
    ({"if_none_match": '"other"'}, 200),
    ({"if_none_match": '"*"'}, 200),
    ({"if_none_match": ""}, 200),
    ({"if_none_match": "nonsense"}, 200),
    ({"if_none_match": "\xff"}, 200),
    # If-Modified-Since
    ({"if_modified_since": DATE}, 304),
    ({"if_modified_since": LATER}, 304),
    ({"if_modified_since": "Tuesday, 14-Nov-23 22:13:20 GMT"}, 304),
    ({"if_modified_since": "Tue Nov 14 22:13:20 2023"}, 304),
    ({"if_modified_since": EARLIER}, 200),
    ({"if_modified_since": "garbage"}, 200),
    ({"if_modified_since": [DATE, DATE]}, 200),
    # the order of RFC 9110 section 13.2.2
    ({"if_match": "{etag}", "if_unmodified_since": EARLIER}, 200),
    ({"if_match": '"other"', "if_none_match": "{etag}"}, 412),
    ({"if_match": "{etag}", "if_none_match": "{etag}"}, 304),
    ({"if_unmodified_since": EARLIER, "if_none_match": "{etag}"}, 412),
    ({"if_unmodified_since": DATE, "if_modified_since": DATE}, 304),
    ({"if_none_match": '"other"', "if_modified_since": DATE}, 200),
    ({"if_none_match": "{etag}", "if_modified_since": EARLIER}, 304),
    ({"if_none_match": "{etag}", "range": "bytes=0-0"}, 304),
    ({"if_match": '"other"', "range": "bytes=0-0"}, 412),
    ({"if_match": "{etag}", "range": "bytes=0-0"}, 206),
    ({"if_none_match": '"other"', "range": "bytes=0-0"}, 206),
    ({"if_match": '"other"', "range": "bytes=99999-"}, 412),
    ({"if_none_match": "{etag}", "range": "bytes=99999-"}, 304),
]


def filled(conditions: dict[str, str | list[str]], etag: str) -> dict[str, Any]:
    """The header fields of a row, with the etag of the file in its place."""
    return {
        name: [one.replace("{etag}", etag) for one in ([value] if isinstance(value, str) else value)]
        for name, value in conditions.items()
    }


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("conditions", "status"), CONDITIONS)
def test_conditions(host: Both, method: str, conditions: dict[str, str | list[str]], status: int) -> None:
    etag = host.ask("/bikes/digits.png")["etag"]
    reply = host.ask("/bikes/digits.png", method, **filled(conditions, etag))
    assert reply.status == (200 if (status, method) == (206, "HEAD") else status)
    assert bool(reply.body) == (method == "GET" and status != 304)


def test_every_field_of_an_answer_that_is_not_modified(host: Both) -> None:
    etag = host.ask("/bikes/")["etag"]
    reply = host.ask("/bikes/", if_none_match=etag)
    assert (reply.status, reply.body) == (304, b"")
    assert fields(reply) == SECURITY_HEADERS | {
        "content-security-policy": POLICY,
        "cache-control": "no-cache",
        "vary": "accept-encoding",
        "etag": etag,
        "last-modified": DATE,
    }


def test_compressed_one_is_asked_for_by_its_own_etag(host: Both) -> None:
    plain, packed = host.ask("/bikes/")["etag"], host.ask("/bikes/", accept_encoding="br")["etag"]
    assert host.ask("/bikes/", accept_encoding="br", if_none_match=packed)["etag"] == packed
    assert host.ask("/bikes/", accept_encoding="br", if_none_match=packed).status == 304
    assert host.ask("/bikes/", accept_encoding="br", if_none_match=plain).status == 200
    assert host.ask("/bikes/", if_none_match=packed).status == 200
    assert host.ask("/bikes/", accept_encoding="br", if_match=packed).status == 200
    assert host.ask("/bikes/", accept_encoding="br", if_match=plain).status == 412


def test_every_field_of_a_failed_precondition(host: Both) -> None:
    reply = host.ask("/bikes/photo.png", if_match='"other"')
    assert (reply.status, bool(reply.body)) == (412, True)
    assert fields(reply) == SECURITY_HEADERS | {
        "content-type": "text/plain; charset=utf-8",
        "content-length": str(len(reply.body)),
        "cache-control": "no-store",
    }
    assert fields(host.ask("/bikes/photo.png", "HEAD", if_match='"other"')) == fields(reply)


def test_redirect_has_no_conditions(host: Both) -> None:
    assert host.ask("/bikes/about.html", if_none_match="*", if_match='"x"', range="bytes=0-0").status == 308


# -- ranges --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-9", 0, 10),
        ("bytes=9-", 9, 10),
        ("bytes=3-5", 3, 6),
        ("bytes=8-99", 8, 10),
        ("bytes=-1", 9, 10),
        ("bytes=-3", 7, 10),
        ("bytes=-99999999999", 0, 10),
        ("BYTES=1-2", 1, 3),
        ("bytes=1-2,2-4", 1, 5),
        ("bytes=1-2,99-100", 1, 3),
        ("bytes=0-,-1", 0, 10),
        ("bytes=0-" + "9" * 400, 0, 10),
    ],
)
def test_one_range(host: Both, value: str, start: int, stop: int) -> None:
    reply = host.ask("/bikes/digits.png", range=value)
    assert (reply.status, reply.body) == (206, DIGITS[start:stop])
    assert fields(reply) == SECURITY_HEADERS | {
        "content-type": "image/png",
        "content-length": str(stop - start),
        "content-range": f"bytes {start}-{stop - 1}/10",
        "cache-control": "public, max-age=3600",
        "accept-ranges": "bytes",
        "last-modified": DATE,
        "etag": reply["etag"],
    }


def test_several_ranges(host: Both) -> None:
    reply = host.ask("/bikes/photo.png", range="bytes=40000-40009, 0-0 ,-20000")
    boundary = reply["content-type"].removeprefix("multipart/byteranges; boundary=")
    assert reply.status == 206
    assert "content-range" not in reply
    assert _parts(reply.body, boundary) == [
        ("bytes 0-0/50000", PHOTO[:1]),
        ("bytes 30000-49999/50000", PHOTO[30000:]),
    ]
    assert fields(reply) == SECURITY_HEADERS | {
        "content-type": "multipart/byteranges; boundary=X",
        "content-length": str(len(reply.body)),
        "cache-control": "public, max-age=3600",
        "last-modified": DATE,
        "etag": reply["etag"],
    }


def test_several_ranges_in_the_order_asked(host: Both) -> None:
    reply = host.ask("/bikes/digits.png", range="bytes=7-8,0-1,4-4")
    boundary = reply["content-type"].removeprefix("multipart/byteranges; boundary=")
    assert [body for _, body in _parts(reply.body, boundary)] == [b"78", b"01", b"4"]


def test_ranges_in_two_lines_do_not_count(host: Both) -> None:
    assert host.ask("/bikes/digits.png", range=["bytes=0-0", "bytes=5-5"]).status == 200


def _parts(body: bytes, boundary: str) -> list[tuple[str, bytes]]:
    first, *parts, last = body.split(b"--" + boundary.encode())
    assert (first, last) == (b"", b"--\r\n")
    found = []
    for part in parts:
        head, _, content = part.partition(b"\r\n\r\n")
        assert b"\r\ncontent-type: image/png" in head
        found.append((head.decode().partition("content-range: ")[2], content.removesuffix(b"\r\n")))
    return found


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=abc",
        "bytes=5-4",
        "bytes=0--1",
        "bytes=+1-2",
        "bytes=1_0-2_0",
        "bytes=1-2,x",
        "bytes=\xb2-\xb3",
        "items=0-1",
        "bytes 0-1",
        "bytes=0-1;2-3",
        "bytes=0x1-0x2",
        "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 2000, 2)),
        "bytes=" + "0-," * 10_000,
    ],
)
def test_range_that_does_not_count(host: Both, value: str) -> None:
    reply = host.ask("/bikes/photo.png", range=value)
    assert (reply.status, reply.body) == (200, PHOTO)
    assert "content-range" not in reply


@pytest.mark.parametrize(
    "value", ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=99-,50-60", "bytes=" + "9" * 400 + "-"]
)
def test_no_such_range(host: Both, value: str) -> None:
    reply = host.ask("/bikes/digits.png", range=value)
    assert (reply.status, reply["content-range"]) == (416, "bytes */10")
    assert fields(reply) == SECURITY_HEADERS | {
        "content-type": "text/plain; charset=utf-8",
        "content-length": str(len(reply.body)),
        "content-range": "bytes */10",
        "cache-control": "no-store",
    }


def test_ranges_of_an_empty_file(host: Both) -> None:
    assert host.ask("/bikes/empty.txt").body == b""
    assert host.ask("/bikes/empty.txt", range="bytes=0-")["content-range"] == "bytes */0"
    assert host.ask("/bikes/empty.txt", range="bytes=-1").status == 200


@pytest.mark.parametrize("value", ["bytes=0-0", "bytes=0-0,5-5", "bytes=99-"])
def test_head_knows_no_ranges(host: Both, value: str) -> None:
    reply = host.ask("/bikes/digits.png", "HEAD", range=value)
    assert (reply.status, reply["content-length"]) == (200, "10")


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("{etag}", 206),
        (DATE, 206),
        ("Tuesday, 14-Nov-23 22:13:20 GMT", 206),
        ("W/{etag}", 200),
        ('"other"', 200),
        (LATER, 200),
        (EARLIER, 200),
        ("*", 200),
        ("garbage", 200),
        ("{etag}, {etag}", 200),
    ],
)
def test_range_only_if_it_is_the_same(host: Both, value: str, status: int) -> None:
    etag = host.ask("/bikes/digits.png")["etag"]
    reply = host.ask("/bikes/digits.png", range="bytes=0-0", if_range=value.replace("{etag}", etag))
    assert (reply.status, reply.body) == (status, b"0" if status == 206 else DIGITS)
    other = host.ask("/bikes/digits.png", range="bytes=99-", if_range=value.replace("{etag}", etag))
    assert other.status == (416 if status == 206 else 200)


def test_if_range_without_a_range_means_nothing(host: Both) -> None:
    assert host.ask("/bikes/digits.png", if_range='"other"').status == 200


def test_range_is_one_of_the_file_as_it_is(host: Both) -> None:
    plain, packed = host.ask("/bikes/"), host.ask("/bikes/", accept_encoding="br")
    reply = host.ask("/bikes/", accept_encoding="br", range="bytes=10-19")
    assert (reply.status, reply.body) == (206, PAGE[10:20])
    assert "content-encoding" not in reply
    assert (reply["etag"], reply["vary"]) == (plain["etag"], "accept-encoding")
    # A part of the compressed one cannot be had, so what has one of it gets all again.
    again = host.ask("/bikes/", accept_encoding="br", range="bytes=10-19", if_range=packed["etag"])
    assert (again.status, DECODERS[coding(again)](again.body)) == (200, PAGE)


def test_range_that_does_not_count_is_answered_compressed(host: Both) -> None:
    assert host.ask("/bikes/", accept_encoding="br", range="nonsense")["content-encoding"] == "br"


# -- negotiation ---------------------------------------------------------------------------------------------------

DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "br": brotli.decompress,
    "gzip": lambda body: zlib.decompress(body, wbits=31),
    "zstd": lambda body: zstandard.ZstdDecompressor().decompress(body),
    "": bytes,
}


def coding(reply: Reply) -> str:
    """The reply's content coding; "" for none."""
    return dict(reply.headers).get("content-encoding", "")


@pytest.mark.parametrize("name", ["br", "gzip", "zstd"])
@pytest.mark.parametrize(("target", "content"), [("/bikes/", PAGE), ("/bikes/style.css", STYLE)])
def test_each_coding_decodes_to_the_file(host: Both, name: str, target: str, content: bytes) -> None:
    reply = host.ask(target, accept_encoding=name)
    assert (reply.status, coding(reply), reply["vary"]) == (200, name, "accept-encoding")
    assert int(reply["content-length"]) == len(reply.body) < len(content)
    assert DECODERS[name](reply.body) == content


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("br;q=0.1,gzip;q=0.9", "gzip"),
        ("br;q=0.9, gzip;q=0.1", "br"),
        ("gzip;q=0", ""),
        ("gzip;q=0.000", ""),
        ("gzip;q=0, br", "br"),
        ("x-gzip-really", ""),
        ("", ""),
        ("identity", ""),
        ("*;q=0", ""),
        ("*;q=0, zstd", "zstd"),
        ("gzip;q=0.5, identity", ""),
        ("gzip, identity;q=0", "gzip"),
        ("identity;q=0", ""),
        ("identity;q=0, *;q=0", ""),
        ("gzip;q=2", ""),
        ("gzip;level=9", ""),
        ("deflate", ""),
        ("gzip\xff", ""),
    ],
)
def test_accept_encoding(host: Both, accept: str, chosen: str) -> None:
    reply = host.ask("/bikes/", accept_encoding=accept)
    assert (reply.status, coding(reply), reply["vary"]) == (200, chosen, "accept-encoding")
    assert DECODERS[coding(reply)](reply.body) == PAGE


def test_smallest_of_equals(host: Both) -> None:
    sizes = {name: len(host.ask("/bikes/", accept_encoding=name).body) for name in ("br", "gzip", "zstd")}
    for accept in ("gzip, deflate, br, zstd", "*", "zstd, br, gzip"):
        assert len(host.ask("/bikes/", accept_encoding=accept).body) == min(sizes.values())


def test_lines_of_accept_encoding_are_one_list(host: Both) -> None:
    assert coding(host.ask("/bikes/", accept_encoding=["gzip;q=0.5", "zstd"])) == "zstd"


def test_too_small_to_compress_still_varies(host: Both) -> None:
    reply = host.ask("/bikes/digits.txt", accept_encoding="br, gzip")
    assert (coding(reply), reply["vary"]) == ("", "accept-encoding")
    assert "vary" not in host.ask("/bikes/digits.png")


# -- caching -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "caching"),
    [
        ("/bikes/", "no-cache"),
        ("/bikes/about", "no-cache"),
        ("/bikes/style.css", "public, max-age=3600"),
        ("/bikes/drawing.svg", "public, max-age=3600"),
        ("/bikes/app.3f2a91bc.js", "public, max-age=31536000, immutable"),
    ],
)
def test_caching(host: Both, target: str, caching: str) -> None:
    for options in ({}, {"if_none_match": "*"}, {"range": "bytes=0-0"}):
        assert host.ask(target, **options)["cache-control"] == caching


@pytest.mark.parametrize(
    "name",
    [
        "app.3f2a91bc.js",
        "app-3f2a91bc.js",
        "main.3f2a91bc4d5e6f708192.chunk.css",
        "index-BkY3z_9d.css",
        "index-DhR4aZ2x.js",
        "logo.0a1b2c3d4e5f60718293a4b5c6d7e8f9.svg",
        "vendor.5f3a0c1e.min.js",
    ],
)
def test_name_with_a_hash(name: str) -> None:
    assert has_content_hash(name)


@pytest.mark.parametrize(
    "name",
    [
        "app.js",
        "photo.png",
        "report-20240115.pdf",
        "report.20240115.pdf",
        "2024-01-15.html",
        "IMG_20240115.jpg",
        "holiday-Photo123.jpg",
        "Photo123.jpg",
        "3f2a91bc.js",
        "deadbeef",
        "app.deadbeef.js",
        "app.12345678.js",
        "jquery-3.7.1.min.js",
        "font-awesome.min.css",
        "my-Document.pdf",
        "my-document.pdf",
        "app.3f2a91b.js",
        "README-Chapter12.txt",
        "screenshot-1920x1080.png",
        "my-iPhone12.jpg",
        "a.JavaScript.js",
        "photo-DSC_0123.jpg",
        "photo-IMG_1234.jpg",
        "case-iPhone4S.jpg",
        "report-20240115b.pdf",
        "menu-cafe2024.pdf",
    ],
)
def test_name_without_a_hash(name: str) -> None:
    assert not has_content_hash(name)
