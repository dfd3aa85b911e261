from pathlib import Path

import httpx
import pytest

from server.app import create_app
from server.hosting import Hosting, load
from server.settings import load as load_settings
from tests.conftest import SITE_TOML, add_site, running

INDEX = "<!doctype html><title>bikes</title>"


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    files = {"a/index.html": "A", "style.css": "b{}", ".env": "SECRET", "_headers": "/*", "_redirects": "/a /b"}
    site = add_site(tmp_path / "sites", "bikes", SITE_TOML, files)
    (site / "emails").mkdir()
    (site / "emails" / "welcome.subject.txt").write_text("Hello")
    add_site(tmp_path / "sites", "lamps", 'title = "Lamps"', {"404.html": "No lamp here"})
    return tmp_path / "sites"


async def test_page(client: httpx.AsyncClient) -> None:
    answer = await client.get("/bikes/")
    assert (answer.status_code, answer.text) == (200, INDEX)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"


async def test_head_has_the_headers_and_no_body(client: httpx.AsyncClient) -> None:
    answer, got = await client.head("/bikes/"), await client.get("/bikes/")
    assert (answer.status_code, answer.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "cache-control"):
        assert answer.headers[name] == got.headers[name]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "FROB"])
@pytest.mark.parametrize("path", ["/bikes/", "/bikes/style.css", "/bikes"])
async def test_other_methods(client: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


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


async def test_404_page_is_as_long_for_head(client: httpx.AsyncClient) -> None:
    answer = await client.head("/lamps/none")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (404, "12", b"")


# -- redirects -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "location"),
    [
        ("/bikes", "./bikes/"),
        ("/bikes?a=1&b=%20", "./bikes/?a=1&b=%20"),
        ("/bikes/a", "./a/"),
        ("/bikes/a?x=//evil.example", "./a/?x=//evil.example"),
        ("/bikes?v=1%0d%0aInjected:%20yes", "./bikes/?v=1%0d%0aInjected:%20yes"),
    ],
)
async def test_missing_slash_is_added(client: httpx.AsyncClient, asked: str, location: str) -> None:
    answer = await client.get(asked, headers={"host": "evil.example"})
    assert (answer.status_code, answer.headers["location"]) == (308, location)
    assert "injected" not in answer.headers
    assert str(answer.next_request and answer.next_request.url).startswith("http://localhost:8000/bikes/")


# -- validators ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["{}", "W/{}", '"other", {}', '"other" ,W/{} , "x"', "*"])
async def test_unchanged(client: httpx.AsyncClient, pattern: str) -> None:
    etag = (await client.get("/bikes/")).headers["etag"]
    answer = await client.get("/bikes/", headers={"if-none-match": pattern.format(etag)})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert answer.headers["cache-control"] == "no-cache"
    assert "content-length" not in answer.headers  # it would be that of the 200 (RFC 9110 section 8.6)


async def test_unchanged_by_one_of_two_headers(client: httpx.AsyncClient) -> None:
    etag = (await client.get("/bikes/")).headers["etag"]
    answer = await client.get("/bikes/", headers=[("if-none-match", '"other"'), ("if-none-match", etag)])
    assert answer.status_code == 304


@pytest.mark.parametrize("value", ['"other"', "", "nonsense", '"*"', "\xff"])
async def test_changed(client: httpx.AsyncClient, value: str) -> None:
    headers = [(b"if-none-match", value.encode("latin-1"))]
    assert (await client.get("/bikes/", headers=headers)).status_code == 200


async def test_not_modified_is_for_get_and_head_only(client: httpx.AsyncClient) -> None:
    assert (await client.post("/bikes/", headers={"if-none-match": "*"})).status_code == 405
    assert (await client.head("/bikes/", headers={"if-none-match": "*"})).status_code == 304


# -- sites ---------------------------------------------------------------------------------------------------------


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


async def test_another_snapshot_is_answered_at_once(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("one")
    mounts = {"a": load(tmp_path)}
    transport = httpx.ASGITransport(Hosting(lambda: mounts))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/a/")).text == "one"
        (tmp_path / "index.html").write_text("two")
        assert (await client.get("/a/")).text == "one"
        mounts["a"] = load(tmp_path)
        assert (await client.get("/a/")).text == "two"
