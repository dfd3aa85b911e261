"""Pages and errors in the visitor's language, else the site's, word by word; and what a visitor typed is no markup."""

import json
import re
from asyncio import CancelledError
from collections.abc import AsyncIterator
from html import unescape

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from httpx import Response
from structlog.testing import capture_logs

from server.app import create_app
from server.db import DatabaseUnavailable
from server.form import _REASONS
from server.i18n import available
from server.settings import load
from server.web.pages import STATIC
from server.web.words import SCRIPT, translated
from tests.conftest import EVERY_FIELD, add_site

HTML = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
CHINESE = {"accept-language": "zh-CN,zh;q=0.9,en;q=0.8"}
ENGLISH = {"accept-language": "en-US,en;q=0.9"}
NEITHER = {"accept-language": "fr"}
GOOD = {"site": "forms", "email": "a@example.com"}
# What stays as it is: addresses, formats and names of programs.
NAMES = r"a@example\.com|nobody|JSON|HTML|UTF-8|KiB|POST|true|false|application/\S+|multipart/\S+|/\w+/|DOORBELL_\w+"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FastAPI]:
    """An app with a site in English and one in Chinese, for all tests: they write nothing."""
    folder = tmp_path_factory.mktemp("languages")
    add_site(folder / "sites", "forms", EVERY_FIELD)
    add_site(folder / "sites", "cha", 'title = "茶馆"\nlocale = "zh-CN"\n[mail]\nfrom = "cha@example.com"\n')
    environ = {"DOORBELL_SITES_DIR": str(folder / "sites"), "DOORBELL_DATA_DIR": str(folder / "var")}
    app = create_app(load(environ, env_file=None))
    async with app.router.lifespan_context(app):
        yield app


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
        yield client


def language(answer: Response) -> str:
    """The language of an answer, which says so everywhere."""
    assert "Accept-Language" in answer.headers["vary"]
    said = answer.headers["content-language"]
    if answer.headers["content-type"].startswith("text/html"):
        assert f'<html lang="{said}">' in answer.text
    return said


def words(page: str) -> str:
    """What there is to read on a page, but for what is in a language of its own."""
    ours = re.sub(r'<(\w+)[^>]* lang="en"[^>]*>.*?</\1>', "", page.partition("</head>")[2], flags=re.S)
    return unescape(re.sub(r"<textarea.*?</textarea>|<[^>]*>", " ", ours, flags=re.S))


def english(text: str) -> list[str]:
    """The words in it that are English."""
    return re.findall(r"[A-Za-z]{2,}", re.sub(NAMES, "", text))


# -- pages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "asked", "answered"),
    [
        ("/thanks/forms", CHINESE, "zh-Hans"),
        ("/thanks/forms", ENGLISH, "en"),
        ("/thanks/forms", NEITHER, "en"),
        ("/thanks/cha", NEITHER, "zh-Hans"),
        ("/thanks/cha", ENGLISH, "en"),
        ("/thanks/none", CHINESE, "zh-Hans"),
        ("/", CHINESE, "zh-Hans"),
        ("/", NEITHER, "en"),
        ("/signup", CHINESE, "zh-Hans"),  # 405
        ("/_mailbox/", CHINESE, "zh-Hans"),
        ("/_mailbox/none", CHINESE, "zh-Hans"),
    ],
)
async def test_page(client: httpx.AsyncClient, path: str, asked: dict[str, str], answered: str) -> None:
    answer = await client.get(path, headers={**HTML, **asked})
    assert language(answer) == answered
    if answered == "zh-Hans":
        assert english(words(answer.text)) == []


TYPED = {
    "site": "forms",
    "email": "nobody",
    "name": '{{7*7}} %(x)s {0} "quoted" <b>',
    "f_textarea": "</textarea><img src=x onerror=alert(1)> & last",
    "f_number": "<i>seven</i>",
}


async def test_form_again(client: httpx.AsyncClient) -> None:
    answer = await client.post("/signup", data=TYPED, headers={**HTML, **CHINESE})
    assert (answer.status_code, language(answer)) == (422, "zh-Hans")
    for said in ("还差一步", "已填写的内容都保留在下方。", "邮箱地址中需要有 @ 符号。", "请填写数字。", "（选填）"):
        assert said in answer.text
    assert english(words(answer.text)) == []
    assert "<img" not in answer.text and "<b>" not in answer.text and "<i>" not in answer.text


async def test_form_again_of_a_chinese_site_for_who_reads_neither(client: httpx.AsyncClient) -> None:
    answer = await client.post("/signup", data={"site": "cha", "email": ""}, headers={**HTML, **NEITHER})
    assert (answer.status_code, language(answer)) == (422, "zh-Hans")
    assert "请填写此项。" in answer.text


async def test_site_is_named_in_its_own_language(client: httpx.AsyncClient) -> None:
    page = (await client.get("/thanks/cha", headers=ENGLISH)).text
    assert '<p class="quiet" lang="zh-CN">茶馆</p>' in page


async def test_documentation_is_in_english(client: httpx.AsyncClient) -> None:
    answer = await client.get("/docs", headers=CHINESE)
    assert (answer.headers["content-language"], '<html lang="en">' in answer.text) == ("en", True)


# -- problems ------------------------------------------------------------------------------------------------------


JSON, URLENCODED = "application/json", "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (404, JSON, '{"site": "none"}'),
        (422, JSON, "{}"),
        (422, JSON, '{"site": "forms"}'),
        (400, JSON, "{"),
        (400, JSON, "[]"),
        (400, JSON, '{"a": 1, "a": 2}'),
        (400, URLENCODED, "site=%ff"),
        (400, URLENCODED, "a=&" * 300),
        (400, "multipart/form-data", "x"),
        (
            400,
            "multipart/form-data; boundary=x",
            '--x\r\ncontent-disposition: form-data; name="a"; filename="b"\r\n\r\n\r\n--x--\r\n',
        ),
        (413, URLENCODED, "a" * 70_000),
        (415, "text/plain", "x"),
        (415, "application/json; charset=latin-1", "{}"),
    ],
)
async def test_problem(client: httpx.AsyncClient, status: int, content_type: str, body: str) -> None:
    headers = {"content-type": content_type, "accept": JSON}
    answer = await client.post("/signup", content=body, headers={**headers, **CHINESE})
    told = answer.json()
    assert (answer.status_code, language(answer)) == (status, "zh-Hans")
    said = [told["detail"], *(error["message"] for error in told.get("errors", []))]
    assert [english(text) for text in said] == [[] for _ in said]
    plain = (await client.post("/signup", content=body, headers={**headers, **ENGLISH})).json()
    assert told["title"] == plain["title"]
    assert plain["detail"].isascii()


async def test_problem_is_told_in_the_language_of_its_site(client: httpx.AsyncClient) -> None:
    for site, said in (("cha", "请检查您填写的内容。"), ("forms", "Please check what you entered.")):
        answer = await client.post("/signup", json={"site": site, "email": "x"}, headers=NEITHER)
        assert answer.json()["detail"] == said


@pytest.mark.parametrize(
    ("error", "status"), [(DatabaseUnavailable("away"), 503), (RuntimeError("wrong"), 500), (CancelledError(), 503)]
)
async def test_failure_of_the_server(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int
) -> None:
    async def fails(*_: object) -> object:
        raise error

    monkeypatch.setattr(app.state.runtime.database, "join", fails)
    with capture_logs():  # a traceback is slow to print
        answer = await client.post("/signup", json=GOOD, headers=CHINESE)
    assert (answer.status_code, language(answer)) == (status, "zh-Hans")
    assert english(answer.json()["detail"]) == []


@pytest.mark.parametrize(
    ("field", "typed"),
    [
        ("email", ""),
        ("email", 5),
        ("email", "\ud800@example.com"),
        ("name", "a\x00b"),
        ("name", "x" * 101),
        ("f_textarea", "a\x00b"),
        ("f_tel", "none"),
        ("f_number", "seven"),
        ("f_date", "31.1.2026"),
        ("f_select", "Blue"),
        ("f_checkbox", "perhaps"),
        ("f_checkbox", []),
    ],
)
async def test_message_of_a_field(client: httpx.AsyncClient, field: str, typed: object) -> None:
    body = json.dumps({**GOOD, field: typed})
    answer = await client.post("/signup", content=body, headers={"content-type": JSON, **CHINESE})
    ((found, message),) = [(error["field"], error["message"]) for error in answer.json()["errors"]]
    assert (found, english(message)) == (field, [])


@pytest.mark.parametrize(
    "address",
    [
        "nobody",
        "@example.com",
        "a@",
        "a@example",
        "a..b@example.com",
        "a.@example.com",
        "a@.example.com",
        "a@example.com.",
        "a＠example.com",
        "a" * 300,
        "a b@example.com",  # of no reason that we have words for
        "<a@example.com> {0} %s",
    ],
)
async def test_reason_why_an_address_is_none(client: httpx.AsyncClient, address: str) -> None:
    def message(answer: Response) -> str:
        return str(answer.json()["errors"][0]["message"])

    chinese, plain = [
        message(await client.post("/signup", json={**GOOD, "email": address}, headers=asked))
        for asked in (CHINESE, ENGLISH)
    ]
    assert (chinese.startswith("邮箱地址无效"), english(chinese)) == (True, [])
    prefix = "This is not a valid e-mail address. "
    assert plain.startswith(prefix)
    known = plain.removeprefix(prefix) in _REASONS
    assert known is ("请检查是否有输入错误" not in chinese)
    assert known is (address not in ("a b@example.com", "<a@example.com> {0} %s"))


# -- form.js -------------------------------------------------------------------------------------------------------


async def test_script_has_the_words_of_every_catalogue(client: httpx.AsyncClient) -> None:
    script = (await client.get("/_doorbell/form.js")).text
    (line,) = re.findall(r"const TRANSLATIONS = (\{.*\});", script)
    texts = json.loads(line)
    assert len(texts) == len(available()) - 1
    assert texts["zh-Hans"]["Please check what you typed."] == "请检查您填写的内容。"
    (plural,) = [text for text in texts["zh-Hans"].values() if isinstance(text, dict)]
    assert (list(plural), "{count} 分钟" in plural["other"]) == (["other"], True)
    shipped = (STATIC / SCRIPT).read_text("utf-8")
    assert script == shipped.replace("const TRANSLATIONS = {};", f"const TRANSLATIONS = {line};")


async def test_script_without_a_place_for_its_words_is_refused() -> None:
    with pytest.raises(ValueError, match=r"form\.js must have one line const TRANSLATIONS"):
        translated(b"let x;")
