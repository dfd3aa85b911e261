"""Which pages may send a form: Origin, Referer, Sec-Fetch-Site, and CORS for forms that stand elsewhere."""

from pathlib import Path

import httpx
import pytest

from server.settings import Settings
from tests.conftest import add_site, alter, rows
from tests.web.test_signup import HTML, Controls

HERE = "http://localhost:8000"
FRIEND = "https://friend.example"
LAMPS = (
    f'title = "Lamps"\nhosts = ["lamps.example"]\n[signup]\nallowed_origins = ["{FRIEND}", "http://dev.example:3000"]\n'
)
FORM = {"site": "lamps", "email": "a@example.com"}
BIKES = {"site": "bikes", "email": "a@example.com", "colour": "Red"}


@pytest.fixture
def sites(sites: Path) -> Path:
    add_site(sites, "lamps", LAMPS)
    return sites


OURS: list[dict[str, str]] = [
    {},  # a program
    {"origin": HERE},
    {"origin": HERE, "sec-fetch-site": "same-origin"},
    {"origin": "null", "sec-fetch-site": "same-origin"},  # a page with Referrer-Policy: no-referrer
    {"referer": f"{HERE}/lamps/", "sec-fetch-site": "same-origin"},
    {"origin": "https://LOCALHOST:8000"},  # a proxy ended TLS
    {"origin": FRIEND, "sec-fetch-site": "cross-site"},
    {"origin": "http://dev.example:3000"},
    {"origin": "https://lamps.example", "sec-fetch-site": "cross-site"},
    {"origin": "http://lamps.example"},
    {"origin": "https://other.example", "host": "other.example"},
]
NOT_OURS: list[dict[str, str]] = [
    {"origin": "null"},
    {"origin": "null", "sec-fetch-site": "cross-site"},
    {"origin": "https://evil.example"},
    {"origin": "https://evil.example", "referer": f"{HERE}/lamps/"},
    {"origin": "https://evil.example", "sec-fetch-site": "same-site"},
    {"origin": ""},
    {"referer": f"{HERE}/lamps/"},
    {"referer": ""},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "none"},
    {"origin": "http://localhost"},  # another port
    {"origin": "http://localhost:80000"},
    {"origin": "http://localhost:8000.evil.example"},
    {"origin": "http://localhost:8000@evil.example"},
    {"origin": "https://friend.example.evil.example"},
    {"origin": "https://evilfriend.example"},
    {"origin": "http://friend.example"},  # another scheme than the one that is allowed
    {"origin": "https://friend.example:444"},
    {"origin": "https://lamps.example:444"},
    {"origin": "https://www.lamps.example"},
    {"origin": f"{FRIEND}, {HERE}"},
    {"origin": "http://[::1"},
]


async def test_post_from_a_page_of_the_site(client: httpx.AsyncClient) -> None:
    answers = [await client.post("/signup", json=FORM, headers=headers) for headers in OURS]
    assert [headers for headers, answer in zip(OURS, answers, strict=True) if answer.status_code != 202] == []


async def test_post_from_elsewhere_is_refused_and_leaves_nothing(client: httpx.AsyncClient, settings: Settings) -> None:
    answers = [await client.post("/signup", json=FORM, headers=headers) for headers in NOT_OURS]
    assert [headers for headers, answer in zip(NOT_OURS, answers, strict=True) if answer.status_code != 403] == []
    assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}
    assert rows(settings, "SELECT count(*) FROM signups") == [(0,)]


async def test_origins_of_one_site_are_not_those_of_another(client: httpx.AsyncClient) -> None:
    for origin in (FRIEND, "https://lamps.example"):
        answer = await client.post("/signup", json=BIKES, headers={"origin": origin})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (403, origin)


async def test_form_from_elsewhere_gets_a_page_that_can_be_sent(client: httpx.AsyncClient) -> None:
    typed = {**BIKES, "name": "Ann", "message": "Hi"}
    answer = await client.post("/signup", data=typed, headers={**HTML, "origin": "https://evil.example"})
    assert (answer.status_code, Controls(answer.text).values) == (403, typed)
    again = await client.post("/signup", data=Controls(answer.text).values, headers={**HTML, "origin": HERE})
    assert again.status_code == 303


# -- CORS ----------------------------------------------------------------------------------------------------------


def shared(answer: httpx.Response) -> tuple[str | None, str]:
    return answer.headers.get("access-control-allow-origin"), answer.headers["vary"].rpartition(", ")[2]


@pytest.mark.parametrize(
    ("path", "method"), [("/signup", "POST"), ("/_doorbell/token/lamps", "GET"), ("/_doorbell/challenge/lamps", "GET")]
)
async def test_preflight_answers_for_all_sites(client: httpx.AsyncClient, path: str, method: str) -> None:
    asked = {"access-control-request-method": method, "access-control-request-headers": "content-type,idempotency-key"}
    for origin in (FRIEND, "http://dev.example:3000", "https://lamps.example"):
        answer = await client.options(path, headers={**asked, "origin": origin})
        assert (answer.status_code, answer.content) == (204, b"")
        assert shared(answer) == (origin, "Origin")
        assert answer.headers["access-control-allow-methods"] == method
        assert answer.headers["access-control-allow-headers"] == "Content-Type, Idempotency-Key"
        assert "access-control-allow-credentials" not in answer.headers


async def test_preflight_for_a_page_of_no_site(client: httpx.AsyncClient) -> None:
    for origin in ("https://evil.example", "null", HERE, "*"):
        answer = await client.options("/signup", headers={"origin": origin, "access-control-request-method": "POST"})
        assert (answer.status_code, shared(answer)) == (403, (None, "Origin"))


async def test_options_that_is_no_preflight(client: httpx.AsyncClient) -> None:
    for headers in ({}, {"origin": FRIEND}, {"access-control-request-method": "POST"}):
        answer = await client.options("/signup", headers=headers)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_nothing_else_is_shared(client: httpx.AsyncClient) -> None:
    asked = {"origin": FRIEND, "access-control-request-method": "GET"}
    for path in ("/readyz", "/healthz", "/thanks/lamps", "/confirm/x", "/signup/x", "/_doorbell/form.js"):
        for answer in (await client.options(path, headers=asked), await client.get(path, headers=asked)):
            assert not [name for name in answer.headers if name.startswith("access-control")], path


ANSWERS = [
    (202, "application/json", '{"site": "lamps", "email": "a@example.com"}'),
    (400, "application/json", "{"),
    (404, "application/json", '{"site": "none"}'),
    (413, "application/json", " " * 70_000),
    (415, "text/plain", ""),
    (422, "application/json", '{"site": "lamps"}'),
]


async def test_every_answer_can_be_read_where_the_form_stands(client: httpx.AsyncClient) -> None:
    for status, content_type, body in ANSWERS:
        headers = {"content-type": content_type, "origin": FRIEND}
        answer = await client.post("/signup", content=body, headers=headers)
        assert (answer.status_code, shared(answer)) == (status, (FRIEND, "Origin"))
        assert answer.headers["access-control-expose-headers"] == "Retry-After"
        for other in ({"content-type": content_type, "origin": "https://evil.example"}, {"content-type": content_type}):
            assert shared(await client.post("/signup", content=body, headers=other)) == (None, "Origin")


async def test_what_nobody_foresaw_can_be_read_too(client: httpx.AsyncClient, settings: Settings) -> None:
    await alter(settings, "CREATE TRIGGER full BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'full'); END")
    answer = await client.post("/signup", json=FORM, headers={"origin": FRIEND})
    assert (answer.status_code, shared(answer)) == (500, (FRIEND, "Origin"))


async def test_token_and_challenge_can_be_read(client: httpx.AsyncClient) -> None:
    for name, slug, status in [("token", "lamps", 200), ("challenge", "lamps", 200), ("token", "none", 404)]:
        answer = await client.get(f"/_doorbell/{name}/{slug}", headers={"origin": FRIEND})
        assert (answer.status_code, shared(answer)) == (status, (FRIEND, "Origin"))
