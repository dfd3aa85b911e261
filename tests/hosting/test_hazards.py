"""Hostile requests, sent byte by byte: no byte from outside public/, no 5xx, and the server goes on."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server import hosting
from server.app import create_app
from server.settings import load
from tests.conftest import SITE_TOML, add_site
from tests.hosting.conftest import Both, Client, both, programs, publish, request, write

SECRET = "SECRET-5d1f"
LINES = "".join(f"line {n}\n" for n in range(300))


def surrounded(folder: Path) -> Path:
    """A folder of a site with secrets all around: above, beside, below a name that begins the same, and hidden."""
    site = folder / "sites" / "bikes"
    public = write(
        site / "public",
        {
            "index.html": "Home",
            "x.txt": "x",
            "a/index.html": "A",
            "style.css": LINES,
            "_headers": f"/*\n  ! Permissions-Policy\n# {SECRET}\n",
            "_redirects": f"/old/* /x.txt 302\n/to/* /:splat 302\n/app/* /index.html 200\n# {SECRET}\n",
            ".env": SECRET,
            ".git/config": SECRET,
            "a/.hidden/x.txt": SECRET,
        },
    )
    for place in (folder, folder / "sites", site, folder / "sites" / "bikes_secret", site / "public-old"):
        write(place, {name: SECRET for name in ("secret.txt", "x.txt", "site.toml", "secret.html", "index.html")})
    write(site / "emails", {"welcome.txt": SECRET})
    return public


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("hazards")
    source = hosting.read("bikes", surrounded(folder), hosts=("bikes.example",))
    with both(publish(source, cache=folder / "cache")) as pair:
        yield pair


# -- paths ---------------------------------------------------------------------------------------------------------

# Below the site's root.
OUTSIDE = [
    b"/../secret.txt",
    b"/../../secret.txt",
    b"/../../../secret.txt",
    b"/../bikes_secret/x.txt",
    b"/../site.toml",
    b"/../emails/welcome.txt",
    b"/../public-old/x.txt",
    b"/../public/x.txt",
    b"/..",
    b"/../",
    b"/a/../../secret.txt",
    b"/a/../x.txt",
    b"/./x.txt",
    b"/a/./index.html",
    b"/%2e%2e/secret.txt",
    b"/%2E%2E/secret.txt",
    b"/.%2e/secret.txt",
    b"/%2e./secret.txt",
    b"/%2E%2E%2Fsecret.txt",
    b"/..%2fsecret.txt",
    b"/..%2Fsecret.txt",
    b"/..%5csecret.txt",
    b"/..%5Csecret.txt",
    b"/..\\secret.txt",
    b"/a\\..\\..\\secret.txt",
    b"/a%5cindex.html",
    b"/a%2findex.html",
    b"/%252e%252e/secret.txt",
    b"/..%252fsecret.txt",
    b"/..%255csecret.txt",
    b"/%25252e%25252e/secret.txt",
    b"/....//secret.txt",
    b"/...//secret.txt",
    b"/..../secret.txt",
    b"/.../secret.txt",
    b"/..;/secret.txt",
    b"/..;x=1/secret.txt",
    b"/.%00./secret.txt",
    b"/..%00/secret.txt",
    b"/..%20/secret.txt",
    b"/..%09/secret.txt",
    b"/..%0a/secret.txt",
    b"/x.txt%00",
    b"/x.txt%00.html",
    b"/x.txt%0a",
    b"/x.txt%20",
    b"/x.txt.",
    b"/x.txt%2e",
    b"/%00",
    b"/a%00/index.html",
    b"/%c0%ae%c0%ae/secret.txt",
    b"/%c0%ae%c0%ae%c0%afsecret.txt",
    b"/%e0%80%ae%e0%80%ae/secret.txt",
    b"/%f0%80%80%ae%f0%80%80%ae/secret.txt",
    b"/%uff0e%uff0e/secret.txt",
    b"/%ef%bc%8e%ef%bc%8e/secret.txt",
    b"/%e2%80%a4%e2%80%a4/secret.txt",
    b"/..%e2%88%95secret.txt",
    b"/..%ef%bc%8fsecret.txt",
    b"/..%c0%afsecret.txt",
    b"/..%c1%9csecret.txt",
    b"/%ff",
    b"/%fe%ff",
    b"/%ed%a0%80",
    b"/%ed%b0%80",
    b"/%f4%90%80%80",
    b"/%",
    b"/%2",
    b"/%zz",
    b"/%x",
    b"/x.txt%",
    b"/" + b"a" * 300,
    b"/" + b"%61" * 300,
    b"/" + b"a/" * 300,
    b"/" + b"../" * 300 + b"etc/passwd",
    b"/" + b"%2e%2e/" * 300,
    b"/x.txt/more",
    b"/x.txt/",
    b"/x.txt/..",
    b"/x.txt/../x.txt",
    b"/x.txt/%2e%2e/x.txt",
    b"/style.css/..%2f..%2fsecret.txt",
    b"/X.TXT",
    b"/A/",
    b"/Index.html",
    b"//x.txt",
    b"/a//",
    b"/a//index.html",
    b"/.env",
    b"/%2eenv",
    b"/%2Eenv",
    b"/.git/config",
    b"/.git/",
    b"/.git",
    b"/.git%2fconfig",
    b"/a/.hidden/x.txt",
    b"/_headers",
    b"/_redirects",
    b"/%5fheaders",
    b"/_HEADERS",
    b"/site.toml",
    b"/style.css.gz",
    b"/style.css.br",
    b"/style.css.zst",
    b"/C:%5csecret.txt",
    b"/C:\\secret.txt",
    b"/C:/secret.txt",
    b"/c%3a/secret.txt",
    b"/file:///etc/passwd",
    b"/%2fetc/passwd",
    b"/%2f%2fetc/passwd",
    b"//etc/passwd",
    b"//host/share/x.txt",
    b"/\\\\host\\share\\x.txt",
    b"/%5c%5chost%5cshare",
    b"/~/secret.txt",
    b"/~root/.bashrc",
    b"/CON",
    b"/nul",
    b"/aux.txt",
    b"/COM1",
    b"/x.txt::$DATA",
    b"/x.txt:stream",
    b"/x.txt%3a%3a$DATA",
    b"/X~1.TXT",
    b"/proc/self/environ",
    b"/dev/zero",
    b"/${HOME}",
    b"/*",
]
ROOTS = [(b"localhost", b"/bikes"), (b"bikes.example", b"")]


@pytest.mark.parametrize(("name", "base"), ROOTS)
@pytest.mark.parametrize("path", OUTSIDE)
def test_path_that_is_none(host: Both, name: bytes, base: bytes, path: bytes) -> None:
    for accept in ("", "text/html", "gzip"):
        reply = host.ask(base + path, host=name.decode(), accept=accept, accept_encoding=accept)
        # "//x" below the root of all hosts is nobody's, and so the program's to refuse.
        assert reply.status in (400, 404) or (base, path[:2]) == (b"", b"//"), path
        assert SECRET.encode() not in reply.body and b"root:" not in reply.body


@pytest.mark.parametrize(
    "target",
    [
        b"/bikes_secret/x.txt",
        b"/bikes_secre/x.txt",
        b"/bikes../bikes_secret/x.txt",
        b"/bikes/../bikes_secret/x.txt",
        b"/bikesx",
        b"/bikes.txt",
        b"/bikes%00/x.txt",
        b"/bikes%2fx.txt",
        b"/bikes%5cx.txt",
        b"/bikes;/x.txt",
        b"/BIKES/x.txt",
        b"//bikes/x.txt",
        b"/.//bikes/x.txt",
        b"/./bikes/x.txt",
        b"/%2fbikes/x.txt",
        b"/%2e/bikes/x.txt",
        b"/x/../bikes/x.txt",
        b"/../sites/bikes/x.txt",
        b"/%ff/x.txt",
        b"/sites/bikes/public/x.txt",
    ],
)
def test_path_that_is_not_the_site_s(host: Both, target: bytes) -> None:
    reply = host.ask(target)
    assert reply.body.startswith(b"app ") or reply.status == 404
    assert SECRET.encode() not in reply.body


@pytest.mark.parametrize("way", ["path", "domain"])
@pytest.mark.parametrize(
    "target",
    [b"/\xff", b"/\xc3", b"/\xed\xa0\x80", b"/\xc0\xae\xc0\xae/secret.txt", b"/a b", b"/\x01", b"/\x7f", b"/\t"],
)
def test_raw_bytes_in_a_path(host: Both, way: str, target: bytes) -> None:
    name, base = ROOTS[way == "domain"]
    assert host.ask(base + target, host=name.decode()).status in (400, 404)


@pytest.mark.parametrize(
    "line",
    [
        b"GET bikes/x.txt HTTP/1.1",
        b"GET  /bikes/x.txt HTTP/1.1",
        b"GET * HTTP/1.1",
        b"GET ../secret.txt HTTP/1.1",
        b"GET /bikes/x.txt HTTP/9.9",
        b"GET /bikes/x.txt HTTP/1.1 x",
        b"GET /bikes/x.txt",
        b"GET",
        b" GET /bikes/x.txt HTTP/1.1",
        b"G\0T /bikes/x.txt HTTP/1.1",
        b"GET /bikes/\0 HTTP/1.1",
        b"GET ? HTTP/1.1",
        b"GET # HTTP/1.1",
        b"GET :// HTTP/1.1",
        b"GET http:// HTTP/1.1",
        b"GET http:///bikes/x.txt HTTP/1.1",
        b"GET http://[::1/bikes/x.txt HTTP/1.1",
        b"GET http://localhost:99999/bikes/../x.txt HTTP/1.1",
        b"GET file:///etc/passwd HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"CONNECT localhost:80 HTTP/1.1",
        b"CONNECT /bikes/x.txt HTTP/1.1",
        b"PRI * HTTP/2.0",
    ],
)
def test_first_line_that_is_none(host: Both, line: bytes) -> None:
    for answer in host.run(told(host, line + b"\r\nHost: localhost\r\n\r\n")):
        harmless(answer)


# -- the whole program ---------------------------------------------------------------------------------------------

OF_THE_PROGRAM = [
    b"/_doorbell/../secret.txt",
    b"/_doorbell/docs/..%2f..%2fpages.py",
    b"/_doorbell/docs/../../pages.py",
    b"/_doorbell/%2e%2e/pages.py",
    b"/_doorbell/..%5cpages.py",
    b"/_doorbell/form.js/",
    b"/_doorbell//form.js",
    b"/_mailbox/../secret.txt",
    b"/_mailbox/..%2fsecret.txt",
    b"/thanks/../bikes/x.txt",
    b"/thanks/..%2f..%2fsecret.txt",
    b"/site.toml",
    b"/%2e%2e/secret.txt",
    b"/etc/passwd",
    b"//etc/passwd",
    b"/none",
    b"/%00",
    b"/%ff",
    b"/" + b"a" * 3000,
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """The program as `serve` runs it, and the same application under plain uvicorn."""
    folder = tmp_path_factory.mktemp("program")
    add_site(folder / "sites", "bikes", SITE_TOML, {"a/index.html": "A", "x.txt": "x", ".env": SECRET})
    add_site(folder / "sites", "bikes_secret", f'title = "{SECRET}"', {"x.txt": "other"})
    for place in (folder, folder / "sites", folder / "sites" / "bikes"):
        write(place, {"secret.txt": SECRET})

    def environ(way: str) -> dict[str, str]:
        return {"DOORBELL_SITES_DIR": str(folder / "sites"), "DOORBELL_DATA_DIR": str(folder / way)}

    with programs(lambda way: create_app(load(environ(way), env_file=None))) as pair:
        yield pair


def test_path_that_is_none_in_the_whole_program(program: Both) -> None:
    for target in [b"/bikes" + path for path in OUTSIDE] + OF_THE_PROGRAM:
        for answer in program.run(told(program, request(target, host="evil.example", connection="close"))):
            assert answer[9:12] in (b"400", b"404"), (target, answer)
            harmless(answer)
            assert b"root:" not in answer
    for answer in program.run(told(program, request("/bikes/x.txt"))):
        assert answer.endswith(b"\r\n\r\nx")


def test_site_whose_name_begins_the_same_is_a_site_of_its_own(program: Both) -> None:
    assert program.ask("/bikes_secret/x.txt").body == b"other"


def test_redirects_of_the_whole_program_stay_on_the_host(program: Both) -> None:
    moved = 0
    paths = [b"//evil.example/dir", b"/%5cevil.example/dir", b"/\\evil.example", b"/bikes//evil.example/a", b"//bikes"]
    paths += [b"//bikes/a", b"/bikes", b"/bikes/a", b"/bikes?//evil.example", b"/_doorbell", b"/_mailbox"]
    for target in [*paths, b"http://evil.example/bikes", b"/thanks//evil.example"]:
        for answer in program.run(told(program, request(target, host="evil.example", connection="close"))):
            head = answer.lower().partition(b"\r\n\r\n")[0]
            if b"\r\nlocation: " in head:
                location = head.partition(b"\r\nlocation: ")[2].partition(b"\r\n")[0]
                assert b"evil" not in location.partition(b"?")[0] and not location.startswith((b"//", b"/\\", b"http"))
                moved += 1
    assert moved >= 8


# -- mutations -----------------------------------------------------------------------------------------------------

GOOD = [
    request("/bikes/"),
    request("/bikes/x.txt", accept_encoding="gzip, br"),
    request("/bikes/style.css", accept_encoding="br;q=0.5, gzip;q=0.9, *;q=0"),
    request("/bikes/style.css", range="bytes=0-9,20-29"),
    request("/bikes/style.css", range="bytes=5-", if_range='"0123456789abcdef01234567"'),
    request("/bikes/x.txt", if_none_match='"a", W/"b"', if_modified_since="Tue, 14 Nov 2023 22:13:20 GMT"),
    request("/bikes/x.txt", if_match="*", if_unmodified_since="Tue, 14 Nov 2023 22:13:20 GMT"),
    request("/bikes/a?x=1&y=%20", "HEAD"),
    request("/bikes/to/a/b?c"),
    request("/bikes/app/x", sec_fetch_mode="navigate", accept="text/html"),
    request("/bikes/none/at/all"),
    request("/bikes", "OPTIONS"),
    request("/x.txt", host="bikes.example:8000"),
    request("/", host="BIKES.example.", connection="close"),
    request("/bikes/x.txt", "POST", content_length="3") + b"a=b",
    request("/bikes/x.txt", "POST", transfer_encoding="chunked") + b"3\r\na=b\r\n0\r\n\r\n",
    request("/signup", "POST", content_length="3", expect="100-continue") + b"a=b",
    b"GET /bikes/x.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
]
# Bits that mean something to whoever reads a request.
IN_TARGETS = (
    r"../ ..%2f %2e%2e/ %5c \ // ; ? # % %00 %ff : @ , * = - .env _headers secret.txt site.toml bikes x.txt a / ."
)
IN_HEADS = """
" W/ Host: Range: bytes= bytes=-1 bytes=0- 0-0, If-Match: If-None-Match: If-Range: Accept-Encoding: identity;q=0 q=1.5
Content-Length: Transfer-Encoding: chunked Connection: close keep-alive Upgrade: websocket h2c Expect: 100-continue
0 1 99999999999999999999999999 HEAD POST CONNECT TRACE HTTP/1.0 HTTP/1.1 HTTP/2.0 HTTP/0.9
http://evil.example/ bikes.example localhost bikes_secret
"""
BITS = [*IN_TARGETS.split(), *IN_HEADS.split(), " ", "\0", "\t", "\r", "\n", "\r\n", "\r\n\r\n", "\xff", "\xa0", "é"]


def mutated(dice: random.Random, data: bytes) -> bytes:
    """A request with one to four changes."""
    for _ in range(dice.randint(1, 4)):
        at, end = sorted((dice.randrange(len(data) + 1), dice.randrange(len(data) + 1)))
        end = min(end, at + 20)
        bit = dice.choice(BITS).encode("latin-1")
        data = dice.choice(
            [
                data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :],
                data[:at] + bit + data[at:],
                data[:at] + bit + data[end:],
                data[:at] + data[end:],
                data[:end] + data[at:end] * dice.choice([1, 2, 50]) + data[end:],
                data.replace(b"\r\n", b"\r\n" + bit + b" " + bit + b"\r\n", 1),
                data.replace(b" /", b" /" + bit + b"/", 1),
                data.replace(b" HTTP", bit + b" HTTP", 1),
                data[: data.find(b" ")] + bit + data[data.find(b" ") :],
                data[:at] + data[at : at + 1] * dice.choice([2, 100, 5000]) + data[at + 1 :],
                data[:end],
            ]
        )
    return data


async def told(host: Both, data: bytes) -> list[bytes]:
    """All that each way says to these very bytes before and after the client has no more to say."""
    return await asyncio.gather(*(_answer(port, data) for port in host.ports.values()))


async def _answer(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    try:
        writer.write(data)
        try:
            async with asyncio.timeout(0.25):
                while piece := await reader.read(2**16):
                    got += piece
        except TimeoutError:  # the connection is kept, or the server waits for more
            writer.write_eof()
            async with asyncio.timeout(20):
                while piece := await reader.read(2**16):
                    got += piece
    except ConnectionError:
        pass  # closed before all was sent
    finally:
        writer.close()
    return got


def harmless(answer: bytes) -> None:
    """What was said is HTTP, without a failure of the server and without anything that is nobody's business."""
    assert SECRET.encode() not in answer
    if answer:
        assert answer.startswith(b"HTTP/1.1 ") and answer[9:12].isdigit(), answer[:100]
    # Only where an answer begins: what was asked may be repeated by the app.
    for head in (part.partition(b"\r\n")[0] for part in answer.split(b"HTTP/1.1 ")[1:]):
        assert not (head[:1] == b"5" and head[1:3].isdigit() and head[3:4] == b" "), answer


async def _all_harmless(host: Both, requests: list[bytes]) -> int:
    """Sends them, many at a time; how many were answered."""
    answered = 0
    for start in range(0, len(requests), 100):
        for data, answers in zip(
            requests[start : start + 100],
            await asyncio.gather(*(told(host, data) for data in requests[start : start + 100])),
            strict=True,
        ):
            for answer in answers:
                try:
                    harmless(answer)
                except AssertionError as error:
                    raise AssertionError(data) from error
                answered += bool(answer)
    return answered


def well(host: Both) -> None:
    """The server still answers a good request."""
    for port in host.ports.values():
        assert host.run(Client(port).get("/bikes/x.txt")).body == b"x"


def test_1000_mutations(host: Both) -> None:
    dice = random.Random(1000)
    requests = [mutated(dice, dice.choice(GOOD)) for _ in range(1000)]
    assert host.run(_all_harmless(host, requests)) > 1200
    well(host)


def test_requests_cut_short_at_every_byte(host: Both) -> None:
    data = GOOD[3]
    assert host.run(_all_harmless(host, [data[:end] for end in range(len(data) + 1)])) >= 2
    well(host)


def test_good_requests_are_answered(host: Both) -> None:
    assert host.run(_all_harmless(host, GOOD)) == 2 * len(GOOD)


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.integers(0, 20),
        st.sampled_from(BITS).map(lambda bit: bit.encode("latin-1")) | st.binary(max_size=4),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(GOOD), CHANGES), min_size=1, max_size=8))
def test_mutations_of_any_kind(host: Both, wanted: list[tuple[bytes, list[tuple[int, int, bytes]]]]) -> None:
    requests = []
    for data, changes in wanted:
        for at, length, bit in changes:
            data = data[:at] + bit + data[at + length :]
        requests.append(data)
    host.run(_all_harmless(host, requests))
    well(host)


TARGETS = st.lists(st.sampled_from(IN_TARGETS.split()), max_size=8).map("".join)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ROOTS), TARGETS)
def test_targets_of_any_kind_are_answered_alike(host: Both, root: tuple[bytes, bytes], target: str) -> None:
    name, base = root
    reply = host.ask(base + b"/" + target.encode("latin-1"), host=name.decode())
    assert reply.status in (200, 302, 308, 400, 404)
    assert SECRET.encode() not in reply.body
