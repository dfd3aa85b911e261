"""Paths sent byte by byte to the server as it runs: a client library would tidy them up."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
import pytest_asyncio

from server.app import create_app
from server.settings import Settings
from tests.conftest import SITE_TOML, add_site, exchange, listening

SECRET = "SECRET-5d1f"


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    """`bikes`, beside it a folder that its name begins, and above it files that are nobody's business."""
    add_site(tmp_path / "sites", "bikes", SITE_TOML, {"a/index.html": "A", "x.txt": "x", ".env": SECRET})
    add_site(tmp_path / "sites", "bikes_secret", f'title = "{SECRET}"', {"x.txt": "other"})
    for folder in (tmp_path, tmp_path / "sites", tmp_path / "sites" / "bikes"):
        (folder / "secret.txt").write_text(SECRET)
    return tmp_path / "sites"


@pytest_asyncio.fixture
async def port(settings: Settings) -> AsyncIterator[int]:
    async with listening(create_app(settings)) as port:
        yield port


async def ask(port: int, target: bytes, method: bytes = b"GET") -> tuple[int, str]:
    head = b"%s %s HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n" % (method, target)
    answer = (await exchange(port, head)).decode("latin-1")
    assert answer.startswith("HTTP/1.1 "), answer
    return int(answer[9:12]), answer


OUTSIDE = [
    b"/bikes/../secret.txt",
    b"/bikes/../../secret.txt",
    b"/bikes/../bikes_secret/x.txt",
    b"/bikes/../site.toml",
    b"/bikes/a/../../secret.txt",
    b"/bikes/%2e%2e/secret.txt",
    b"/bikes/%2E%2E%2Fsecret.txt",
    b"/bikes/..%2fsecret.txt",
    b"/bikes/..%5csecret.txt",
    b"/bikes/..\\secret.txt",
    b"/bikes/%252e%252e/secret.txt",
    b"/bikes/..%252fsecret.txt",
    b"/bikes/%25252e%25252e/secret.txt",
    b"/bikes/....//secret.txt",
    b"/bikes/..;/secret.txt",
    b"/bikes/.%00./secret.txt",
    b"/bikes/x.txt%00",
    b"/bikes/x.txt%00.html",
    b"/bikes/%00",
    b"/bikes%00/x.txt",
    b"/bikes/%c0%ae%c0%ae/secret.txt",
    b"/bikes/%e0%80%ae%e0%80%ae/secret.txt",
    b"/bikes/%uff0e%uff0e/secret.txt",
    b"/bikes/%ff",
    b"/bikes/%ed%a0%80",
    b"/%ff/x.txt",
    b"/bikes/%",
    b"/bikes/%zz",
    b"/bikes/" + b"a" * 300,
    b"/" + b"a" * 300 + b"/x.txt",
    b"/bikes/" + b"a/" * 300,
    b"/bikes/x.txt/more",
    b"/bikes/x.txt/",
    b"/bikes/.env",
    b"/bikes/%2eenv",
    b"/bikes//x.txt",
    b"/bikes/./x.txt",
    b"/bikes/C:%5csecret.txt",
    b"/bikes/C:/secret.txt",
    b"/bikes/%2fetc/passwd",
    b"//etc/passwd",
    b"//bikes/x.txt",
    b"/.//bikes/x.txt",
    b"/%2fbikes/x.txt",
    b"/bikes%2fx.txt",
    b"/bikes%5cx.txt",
    b"/bikes_secre/x.txt",
    b"/_doorbell/../secret.txt",
    b"/_doorbell/docs/..%2f..%2fpages.py",
    b"/_mailbox/../secret.txt",
]


async def test_path_that_is_none(port: int) -> None:
    for target in OUTSIDE:
        status, answer = await ask(port, target)
        assert status in (400, 404), target
        assert SECRET not in answer and "root:" not in answer, target
    status, answer = await ask(port, b"/bikes/x.txt")
    assert (status, answer.endswith("\r\n\r\nx")) == (200, True)


async def test_target_that_is_no_path(port: int) -> None:
    for target in (b"/bikes/\xff", b"/bikes/\xc3\xa9", b"/bikes/a b", b"bikes/x.txt", b"*", b"/bikes/\x01"):
        assert (await ask(port, target))[0] in (400, 404), target


async def test_sibling_whose_name_begins_the_same_is_a_site_of_its_own(port: int) -> None:
    assert (await ask(port, b"/bikes_secret/x.txt"))[1].endswith("\r\n\r\nother")


REDIRECTING = [
    b"//evil.example/dir",
    b"//evil.example",
    b"///evil.example/dir",
    b"/%5cevil.example/dir",
    b"/\\evil.example/dir",
    b"/%2fevil.example/dir",
    b"/bikes//evil.example/a",
    b"/bikes/%5cevil.example/a",
    b"//bikes",
    b"//bikes/a",
    b"/bikes",
    b"/bikes/a",
    b"/bikes?//evil.example",
    b"/_doorbell",
    b"/_mailbox",
    b"http://evil.example/bikes",
    b"http://evil.example/bikes/a",
]


async def test_location_never_leads_to_another_host(port: int) -> None:
    moved = 0
    for target in REDIRECTING:
        status, answer = await ask(port, target)
        if location := re.search(r"(?im)^location: (.*)\r$", answer):
            assert urlsplit(urljoin("http://localhost/bikes/a", location[1])).netloc == "localhost", target
            moved += 1
        else:
            assert status in (400, 403, 404), target
    assert moved >= 5


async def test_line_break_in_the_query_stays_encoded(port: int) -> None:
    status, answer = await ask(port, b"/bikes?v=1%0d%0aInjected:%20yes")
    assert (status, "\r\nlocation: ./bikes/?v=1%0d%0aInjected:%20yes\r\n" in answer) == (308, True)
    assert "\r\nInjected" not in answer


async def test_post_on_a_file(port: int) -> None:
    head = b"POST /bikes/x.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3\r\n\r\na=b"
    answer = await exchange(port, head)
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nallow: GET, HEAD\r\n" in answer
