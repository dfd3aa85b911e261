"""Bodies that no browser and no honest program sends: always one of the documented answers, and no memory for them."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as trying
from hypothesis import strategies as st

from server.app import create_app
from server.settings import Settings
from tests.conftest import EVERY_FIELD, add_site, eventually, listening, rows, running

GOOD = {"site": "bikes", "email": "a@example.com", "colour": "Red"}
URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=x"
DOCUMENTED = {202, 303, 400, 404, 413, 415, 422}


def part(name: str, value: str, more: str = "") -> str:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'


def parts(**more: str) -> str:
    return "".join(part(name, value) for name, value in {**GOOD, **more}.items())


async def status(client: httpx.AsyncClient, content_type: str, body: bytes | str) -> int:
    headers = [(b"content-type", content_type.encode("latin-1"))]
    answer = await client.post("/signup", content=body, headers=headers)
    return answer.status_code


# -- JSON ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "nonsense",
        "[]",
        '"text"',
        "null",
        "5",
        '{"site": "bikes", "site": "bikes"}',
        '{"site": "bikes", "message": {"a": 1, "a": 2}}',
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": ' + "9" * 5000 + "}",
        '{"a": ' + "[" * 30_000,
        '{"a":' * 10_000,
        "[" * 30_000 + "]" * 30_000,
        "\ufeff{}",
        "{}x",
        '{"a": "\x00"}',
    ],
    ids=lambda body: ascii(body)[:20],
)
async def test_malformed_json(client: httpx.AsyncClient, body: str) -> None:
    assert await status(client, "application/json", body) == 400


@pytest.mark.parametrize("body", [b'{"site": "\xff"}', json.dumps(GOOD).encode("utf-16")])
async def test_json_that_is_not_utf8(client: httpx.AsyncClient, body: bytes) -> None:
    assert await status(client, "application/json", body) == 400


ODD = ["\\ud800", "\\udfff\\ud800", "a\\u0000b", "a\\u2028b", "\\u0007", "a\\nb", "a" * 60_000]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: str(odd)[:20])
@pytest.mark.parametrize("field", ["email", "name", "colour"])
async def test_odd_text_in_a_line_is_refused_and_named(
    client: httpx.AsyncClient, settings: Settings, field: str, odd: str
) -> None:
    body = json.dumps({**GOOD, field: "!"}).replace("!", odd)
    answer = await client.post("/signup", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (422, [field])
    assert rows(settings, "SELECT * FROM signups") == []


@pytest.mark.parametrize("value", ["\\ud800", "\\u0000", "\\u001b[2J"])
async def test_odd_text_in_a_textarea_is_refused(client: httpx.AsyncClient, value: str) -> None:
    body = json.dumps({**GOOD, "message": "!"}).replace("!", value)
    assert await status(client, "application/json", body) == 422


async def test_odd_text_in_a_field_that_nobody_declared_is_dropped(client: httpx.AsyncClient) -> None:
    body = json.dumps({**GOOD, "x": "!", "!": 1}).replace("!", "\\ud800")
    assert await status(client, "application/json", body) == 202


@pytest.mark.parametrize("value", [1, 1.5, True, [], {}, [["x"]], {"a": "b"}, 10**300, 1e308])
@pytest.mark.parametrize("field", ["site", "email", "name", "colour", "message"])
async def test_value_of_another_type_is_named(client: httpx.AsyncClient, field: str, value: object) -> None:
    answer = await client.post("/signup", json={**GOOD, field: value})
    assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (422, [field])


# -- forms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "site=%ff",
        "site=%ed%a0%80",
        "a=1&" * 201,
        "&" * 60_000,
        "a" + "&a" * 30_000,
    ],
    ids=lambda body: str(body)[:20],
)
async def test_malformed_form(client: httpx.AsyncClient, body: str) -> None:
    assert await status(client, URLENCODED, body) == 400


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (URLENCODED, "site=none&site=bikes&email=no&email=a@example.com&utm=1&utm=2&colour=Red"),
        (MULTIPART, part("colour", "no") + parts() + "--x--\r\n"),
    ],
)
async def test_the_last_of_a_field_that_a_form_has_twice_counts(
    client: httpx.AsyncClient, content_type: str, body: str
) -> None:
    assert await status(client, content_type, body) == 303


@pytest.mark.parametrize("body", ["", "=", "%", "site", "site=%00", "a=b=c", "nonsense", ";", "+", "%zz=%"])
async def test_form_that_names_no_site(client: httpx.AsyncClient, body: str) -> None:
    assert await status(client, URLENCODED, body) in (404, 422)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", parts() + "--x--\r\n"),
        ("multipart/form-data; boundary=", parts() + "--x--\r\n"),
        ("multipart/form-data; boundary=y", parts() + "--x--\r\n"),
        (MULTIPART, "nonsense"),
        (MULTIPART, "--x\r\nContent-Disposition: form-data\r\n\r\nbikes\r\n--x--\r\n"),
        (MULTIPART, "--x\r\nContent-Disposition: attachment\r\n\r\nbikes\r\n--x--\r\n"),
        (MULTIPART, "--x\r\n\r\nbikes\r\n--x--\r\n"),
        (MULTIPART, parts() + part("f", "x", '; filename="a.txt"') + "--x--\r\n"),
        (MULTIPART, parts() + part("f", "", '; filename=""') + "--x--\r\n"),
        (MULTIPART, "".join(part(f"f{number}", "x") for number in range(201)) + "--x--\r\n"),
        (MULTIPART, "--x\r\n" + "A: b\r\n" * 5000),
        (MULTIPART, "--x\r\n" + "A" * 60_000),
    ],
    ids=range(12),
)
async def test_malformed_multipart(client: httpx.AsyncClient, content_type: str, body: str) -> None:
    assert await status(client, content_type, body) == 400


async def test_multipart_that_ends_early_is_no_signup(client: httpx.AsyncClient, settings: Settings) -> None:
    assert await status(client, MULTIPART, "") in (400, 422)
    assert await status(
        client, MULTIPART, part("site", "bikes") + '--x\r\nContent-Disposition: form-data; name="em'
    ) in (400, 422)
    assert rows(settings, "SELECT * FROM signups") == []


async def test_file_is_refused_in_words(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/signup", data=GOOD, files={"photo": ("a.png", b"\x89PNG")}, headers={"accept": "application/json"}
    )
    assert (answer.status_code, answer.json()["detail"]) == (400, 'The field "photo" is a file; files are not taken.')


@pytest.mark.parametrize(
    "charset", ["undefined", "utf-7", "unicode_escape", "idna", "punycode", "utf-16", "zlib", "latin-1", "no\\such"]
)
@pytest.mark.parametrize("content_type", ["application/json", URLENCODED, MULTIPART])
async def test_other_charset(client: httpx.AsyncClient, content_type: str, charset: str) -> None:
    body = parts(message="+2AA- \\ud800") + "--x--\r\n"
    assert await status(client, f"{content_type}; charset={charset}", body) == 415


async def test_charset_by_its_other_names(client: httpx.AsyncClient) -> None:
    for charset in ("utf-8", "UTF-8", '"utf-8"', "utf8"):
        assert await status(client, f"{MULTIPART}; charset={charset}", parts() + "--x--\r\n") == 303


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/xml", "application/jsonx", "nonsense", ";", "/"]
)
async def test_other_types(client: httpx.AsyncClient, content_type: str) -> None:
    answer = await client.post("/signup", content=json.dumps(GOOD), headers={"content-type": content_type})
    assert answer.status_code == 415
    assert answer.headers["accept-post"] == "application/json, application/x-www-form-urlencoded, multipart/form-data"


async def test_no_type_at_all(client: httpx.AsyncClient) -> None:
    assert (await client.post("/signup")).status_code == 415


# -- size ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("content_type", "head"), [("application/json", "{"), (URLENCODED, ""), (MULTIPART, parts())])
@pytest.mark.parametrize("declared", [True, False])
async def test_body_over_64_kib(client: httpx.AsyncClient, content_type: str, head: str, declared: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield head.encode() + part("message", "").removesuffix("\r\n").encode()
        for _ in range(70):
            yield b"a" * 1024

    body = b"".join([chunk async for chunk in chunks()]) if declared else chunks()
    answer = await client.post("/signup", content=body, headers={"content-type": content_type})
    assert answer.status_code == 413


async def test_body_of_just_64_kib(client: httpx.AsyncClient) -> None:
    body = json.dumps(GOOD).encode()
    headers = {"content-type": "application/json"}
    for size, code in ((65_536, 202), (65_537, 413)):
        answer = await client.post("/signup", content=body.ljust(size), headers=headers)
        assert answer.status_code == code


async def told_by_a_socket(port: int, head: str, chunk: bytes, times: int) -> bytes:
    """The status line of the answer to a body sent to the end, whatever is said meanwhile."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST /signup HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode())
    try:
        for _ in range(times):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        pass  # refused before the end: as good
    line = await reader.readline()
    writer.close()
    return line.strip()


@pytest.mark.parametrize(
    ("content_type", "chunk"),
    [
        (URLENCODED, b"a" * 65_536),
        (URLENCODED, b"a=1&" * 16_384),
        (MULTIPART, b"a" * 65_536),
        ("application/json", b"[" * 65_536),
    ],
    ids=["one field", "millions of fields", "multipart", "brackets"],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_50_mb_leave_no_trace_in_memory(
    settings: Settings, content_type: str, chunk: bytes, chunked: bool
) -> None:
    times = 800
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(chunk) * times}"
    framed = b"%x\r\n%s\r\n" % (len(chunk), chunk) if chunked else chunk
    async with listening(create_app(settings)) as port:
        tracemalloc.start()
        try:
            line = await told_by_a_socket(port, f"Content-Type: {content_type}\r\n{framing}", framed, times)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert line.startswith(b"HTTP/1.1 413 ")
    assert peak < 8 * 1024 * 1024


async def test_client_that_hangs_up_in_its_body_is_no_error(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    head = b"POST /signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    said = ""

    def noticed() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return "request." in said

    async with listening(create_app(settings)) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await eventually(noticed)
    assert "request.abandoned" in said
    assert "request.failed" not in said and "Traceback" not in said


# -- anything ------------------------------------------------------------------------------------------------------

tried = trying(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
text = st.text(st.characters(), max_size=20)
value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)
NAMES = [f"f_{kind}" for kind in ("text", "textarea", "email", "tel", "number", "date", "checkbox", "select")]
fields = st.fixed_dictionaries(
    {"site": st.just("forms") | text, "email": st.just("a@example.com") | value},
    optional={name: value for name in ["name", *NAMES]},
)


@pytest.fixture
def post(settings: Settings) -> Iterator[Callable[[str, bytes], int]]:
    """Posts a body of a type to one app for all examples, whose site `forms` has every field; answers the status."""
    add_site(settings.sites_dir, "forms", EVERY_FIELD)
    with asyncio.Runner() as runner:
        app = running(create_app(settings))
        client = runner.run(app.__aenter__())
        yield lambda content_type, body: runner.run(status(client, content_type, body))
        runner.run(app.__aexit__(None, None, None))


@tried
@given(body=fields | value)
def test_any_json(post: Callable[[str, bytes], int], body: object) -> None:
    assert post("application/json", json.dumps(body).encode()) in DOCUMENTED


@tried
@given(body=st.dictionaries(st.sampled_from(["email", "name", *NAMES]), text))
def test_any_form(post: Callable[[str, bytes], int], body: dict[str, str]) -> None:
    whole = {"site": "forms", "email": "a@example.com", **body}
    encoded = urlencode(whole, errors="surrogatepass").encode()
    multipart = "".join(part(name, typed) for name, typed in whole.items()) + "--x--\r\n"
    assert post(URLENCODED, encoded) in DOCUMENTED
    assert post(MULTIPART, multipart.encode("utf-8", "surrogatepass")) in DOCUMENTED


@tried
@given(body=st.binary(max_size=200), kind=st.sampled_from(["application/json", URLENCODED, MULTIPART]))
def test_any_bytes(post: Callable[[str, bytes], int], body: bytes, kind: str) -> None:
    head = part("site", "forms").encode() + b"--x\r\n" if kind == MULTIPART else b"site=forms&f_text="
    assert post(kind, body) in DOCUMENTED
    assert post(kind, head + body + b"\r\n--x--") in DOCUMENTED


@tried
@given(
    kind=st.sampled_from(["", "application/json;", f"{URLENCODED};", "multipart/form-data;", f"{MULTIPART};charset="]),
    odd=st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30),
)
def test_any_content_type(post: Callable[[str, bytes], int], kind: str, odd: str) -> None:
    assert post(kind + odd, parts().encode()) in DOCUMENTED
