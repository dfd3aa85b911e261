"""Hosting as an application under any server, and in the whole program."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message

from server.app import create_app
from server.hosting import Hosting
from server.settings import load as load_settings
from tests.conftest import SITE_TOML, add_site, running
from tests.hosting.conftest import Served, bikes


async def asked(app: Hosting, scope: dict[str, Any]) -> list[Message]:
    """What the application sends."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("nothing of a request for a file is read")

    usual = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    await app({**usual, **scope}, receive, send)
    return sent


async def elsewhere(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "elsewhere", "of": scope["type"]})


@pytest.fixture
def app(tmp_path: Path) -> Hosting:
    return Hosting(elsewhere, Served(bikes(tmp_path, {"index.html": "Home", "é.txt": "x", "a%2fb.txt": "y"})))


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_what_is_no_request_is_passed_on(app: Hosting, kind: str) -> None:
    assert await asked(app, {"type": kind}) == [{"type": "elsewhere", "of": kind}]


async def test_what_is_not_hosted_is_passed_on(app: Hosting) -> None:
    assert await asked(app, {"path": "/signup", "raw_path": b"/signup"}) == [{"type": "elsewhere", "of": "http"}]


@pytest.mark.parametrize(
    "scope",
    [
        {"path": "/bikes/é.txt", "raw_path": b"/bikes/%C3%A9.txt"},
        {"path": "/bikes/é.txt", "raw_path": b"/bikes/%C3%A9.txt?x", "query_string": b"x"},
        {"path": "/bikes/é.txt", "raw_path": None},
        {"path": "/bikes/é.txt"},
        {"path": "/bikes/é.txt", "http_version": "2"},
        {"path": "/bikes/é.txt", "headers": [[b"host", b"localhost"]]},
    ],
)
async def test_path_as_servers_tell_it(app: Hosting, scope: dict[str, Any]) -> None:
    start, *bodies = await asked(app, scope)
    assert start["status"] == 200
    assert b"".join(message.get("body", b"") for message in bodies) == b"x"


async def test_path_without_its_raw_form_is_not_decoded_twice(app: Hosting) -> None:
    assert (await asked(app, {"path": "/bikes/a%2fb.txt"}))[0]["status"] == 200
    assert (await asked(app, {"path": "/bikes/%2e%2e/x"}))[0]["status"] == 404


@pytest.mark.parametrize("path", ["/bikes/\udcff", "/bikes/\ud800", "/bikes/?x", "/bikes/\0", "", "*", "bikes/"])
async def test_path_that_is_none(app: Hosting, path: str) -> None:
    (first, *_) = await asked(app, {"path": path})
    assert first.get("status", 404) == 404


async def test_query_of_a_redirect(app: Hosting) -> None:
    start, _ = await asked(app, {"path": "/bikes", "raw_path": b"/bikes", "query_string": b"a=%20"})
    assert (start["status"], dict(start["headers"])[b"location"]) == (308, b"./bikes/?a=%20")


async def test_header_fields_of_one_name_are_one_list(app: Hosting) -> None:
    headers = [(b"host", b"localhost"), (b"if-none-match", b'"x"'), (b"if-none-match", b"*")]
    assert (await asked(app, {"path": "/bikes/", "headers": headers}))[0]["status"] == 200
    etag = dict((await asked(app, {"path": "/bikes/"}))[0]["headers"])[b"etag"]
    headers[2] = (b"if-none-match", etag)
    assert (await asked(app, {"path": "/bikes/", "headers": headers}))[0]["status"] == 304


async def test_another_publication_is_answered_at_once(tmp_path: Path) -> None:
    served = Served(bikes(tmp_path, {"index.html": "one"}))
    transport = httpx.ASGITransport(Hosting(elsewhere, served))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/bikes/")).text == "one"
        published = bikes(tmp_path, {"index.html": "two"})
        assert (await client.get("/bikes/")).text == "one"
        served.published = published
        assert (await client.get("/bikes/")).text == "two"


# -- the whole program ---------------------------------------------------------------------------------------------


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    files = {"a/index.html": "A", "style.css": "b{}", ".env": "SECRET", "_headers": "# SECRET", "_redirects": "/b /a"}
    site = add_site(tmp_path / "sites", "bikes", SITE_TOML, files)
    (site / "emails").mkdir()
    (site / "emails" / "welcome.subject.txt").write_text("Hello")
    add_site(tmp_path / "sites", "lamps", 'title = "Lamps"', {"404.html": "No lamp here"})
    return tmp_path / "sites"


@pytest.mark.parametrize(
    "path",
    [
        "/bikes/none",
        "/bikes/site.toml",
        "/bikes/../site.toml",
        "/bikes/emails/welcome.subject.txt",
        "/bikes/.env",
        "/bikes/_headers",
        "/bikes/_redirects",
        "/bikes/index.html/",
        "/bikes/style.css/more",
        "/bikes/public/index.html",
        "/BIKES/",
        "/none/",
        "/site.toml",
    ],
)
async def test_nowhere(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 404
    assert "SECRET" not in answer.text and "Hello" not in answer.text


async def test_own_404_page_of_the_site_that_was_asked(client: httpx.AsyncClient) -> None:
    assert (await client.get("/lamps/none")).text == "No lamp here"
    assert "Not found" in (await client.get("/bikes/none")).text


async def test_every_answer_tells_its_time(client: httpx.AsyncClient) -> None:
    for path in ("/bikes/", "/bikes", "/bikes/none", "/none"):
        assert float((await client.get(path)).headers["x-process-time"]) >= 0


async def test_third_site_is_a_folder(sites: Path, environ: dict[str, str]) -> None:
    add_site(sites, "shoes", 'title = "Shoes & <Socks>"', {"404.html": "No shoe"})
    async with running(create_app(load_settings(environ, env_file=None))) as client:
        assert (await client.get("/shoes/")).text == "<!doctype html><title>shoes</title>"
        listed = (await client.get("/")).text
        assert [f'href="/{slug}/"' in listed for slug in ("bikes", "lamps", "shoes")] == [True] * 3
        assert "Shoes &amp; &lt;Socks&gt;" in listed


async def test_index_off(environ: dict[str, str]) -> None:
    settings = load_settings({**environ, "DOORBELL_INDEX": "off"}, env_file=None)
    async with running(create_app(settings)) as client:
        answer = await client.get("/")
        assert (answer.status_code, "bikes" in answer.text.lower()) == (404, False)
        assert (await client.get("/bikes/")).status_code == 200


async def test_no_sites_is_said(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    settings = load_settings({**environ, "DOORBELL_SITES_DIR": str(tmp_path / "empty")}, env_file=None)
    async with running(create_app(settings)) as client:
        assert "There are no sites yet" in (await client.get("/")).text
