"""POST /signup: what is accepted, what is written, and how each error is told."""

import json
import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from html.parser import HTMLParser

import httpx
import pytest
import structlog.testing
from sqlalchemy import Connection

from server.app import create_app
from server.runtime import StartupError
from server.settings import Settings
from tests.conftest import ON_SQLITE, add_site, alter, eventually, keeping, rows, running

GOOD = {"site": "bikes", "email": "a@example.com", "colour": "Red"}
HTML = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
JSON = {"accept": "application/json"}
ACCEPTED = (202, {"status": "accepted"})


@pytest.fixture
def environ(environ: dict[str, str], database_url: str) -> dict[str, str]:
    return keeping(environ, database_url)


class Controls(HTMLParser):
    """What the form on a page would send: the values of its controls by name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.values: dict[str, str | None] = {}
        self.tags: list[str] = []
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = dict(attrs)
        self.tags.append(tag)
        if tag == "input" and (has.get("type") != "checkbox" or "checked" in has):
            self.values[has["name"] or ""] = has.get("value")
        if tag in ("textarea", "select"):
            self._open = has["name"] or ""
            self.values[self._open] = ""
        if tag == "option":
            self._selected = "selected" in has

    def handle_data(self, data: str) -> None:
        if self.lasttag == "textarea" and self._open:
            self.values[self._open] = data.removeprefix("\n")
            self._open = ""
        if self.lasttag == "option" and self._selected and data.strip():
            self.values[self._open] = data


def told(answer: httpx.Response) -> dict[str, str]:
    """The errors of a problem by field."""
    return {error["field"]: error["message"] for error in answer.json()["errors"]}


# -- accepted ------------------------------------------------------------------------------------------------------


async def test_json(client: httpx.AsyncClient) -> None:
    answer = await client.post("/signup", json=GOOD)
    assert (answer.status_code, answer.json()) == ACCEPTED
    assert answer.headers["content-type"] == "application/json"


async def test_json_in_utf8_by_name(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "Application/JSON; charset=UTF-8"}
    answer = await client.post("/signup", content=json.dumps(GOOD), headers=headers)
    assert answer.status_code == 202


@pytest.mark.parametrize("multipart", [False, True])
async def test_form_is_sent_on_to_the_thank_you_page(client: httpx.AsyncClient, multipart: bool) -> None:
    files = {name: (None, value) for name, value in GOOD.items()}
    answer = await (client.post("/signup", files=files) if multipart else client.post("/signup", data=GOOD))
    assert (answer.status_code, answer.headers["location"]) == (303, "/thanks/bikes")
    thanks = await client.get(answer.headers["location"])
    assert (thanks.status_code, "Bike Shed" in thanks.text) == (200, True)


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("", 303),
        ("*/*", 303),
        ("text/html", 303),
        (HTML["accept"], 303),
        ("application/json", 202),
        ("application/json, text/plain, */*", 202),
        ("text/html;q=0.5, application/json", 202),
        ("application/json;q=0.5, text/html", 303),
        ("application/json;q=0", 303),
        ("application/*", 202),
    ],
)
async def test_form_whose_accept_ranks_json(client: httpx.AsyncClient, accept: str, status: int) -> None:
    answer = await client.post("/signup", data=GOOD, headers={"accept": accept})
    assert answer.status_code == status


async def test_own_thank_you_page(settings: Settings) -> None:
    toml = settings.sites_dir / "bikes" / "site.toml"
    toml.write_text(toml.read_text().replace("[signup]", '[signup]\nthanks = "merci/"'))
    with pytest.raises(StartupError, match=r"signup\.thanks: there is no page merci/"):
        async with running(create_app(settings)):
            pass
    page = settings.sites_dir / "bikes" / "public" / "merci" / "index.html"
    page.parent.mkdir()
    page.write_text("<!doctype html><title>Merci</title>")
    async with running(create_app(settings)) as client:
        assert (await client.post("/signup", data=GOOD)).headers["location"] == "/bikes/merci/"


NEXT = """
title = "Lamps"
hosts = ["lamps.example"]
[signup]
double_opt_in = false
next = ["danke/", "https://shop.example/cart?from=lamps#top"]
"""
HOSTILE = [
    "//evil.example", "/\\evil.example", "////evil.example", "https:evil.example", "/\t/evil.example",
    "\\\\evil.example", "https://lamps.example@evil.example", "https://shop.example@evil.example/cart?from=lamps#top",
    "javascript:alert(1)", "data:text/html,x", "*", "",
    "https://shop.example", "https://shop.example/cart", "https://shop.example/cart?from=lamps#top/../x",
    "HTTPS://shop.example/cart?from=lamps#top", "https://shop.example/cart?from=lamps#top\r\nSet-Cookie: a=b",
    "danke", "danke/ ", " danke/", "/danke/", "/lamps/danke/", "./danke/", "danke/../../bikes/",
]  # fmt: skip


@pytest.fixture
async def lamps(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    add_site(settings.sites_dir, "lamps", NEXT, {"danke/index.html": "Danke"})
    async with running(create_app(settings)) as client:
        yield client


async def test_form_leads_to_what_the_site_lists(lamps: httpx.AsyncClient) -> None:
    places: list[tuple[dict[str, str], str, str]] = [
        ({}, "danke/", "/lamps/danke/"),
        ({"host": "lamps.example"}, "danke/", "/danke/"),
        ({}, "https://shop.example/cart?from=lamps#top", "https://shop.example/cart?from=lamps#top"),
    ]
    for headers, wanted, location in places:
        form = {"site": "lamps", "email": "a@example.com", "_next": wanted}
        answer = await lamps.post("/signup", data=form, headers=headers)
        assert (answer.status_code, answer.headers["location"]) == (303, location)
    # a page that asks to mend something keeps it
    page = Controls((await lamps.post("/signup", data={**form, "email": "nobody"}, headers=HTML)).text)
    assert page.values["_next"] == "https://shop.example/cart?from=lamps#top"


async def test_form_leads_nowhere_else(lamps: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs() as said:
        for wanted in HOSTILE:
            form = {"site": "lamps", "email": "a@example.com", "_next": wanted}
            answer = await lamps.post("/signup", data=form)
            assert (answer.status_code, answer.headers["location"]) == (303, "/thanks/lamps"), wanted
    ignored = [line for line in said if line["event"] == "signup.next_ignored"]
    assert len(ignored) == len(HOSTILE) - 1
    assert "evil" not in str(said) and "shop" not in str(said)


async def test_program_is_led_nowhere(lamps: httpx.AsyncClient) -> None:
    for wanted in ("danke/", ["danke/"], {"a": 1}, 7):
        answer = await lamps.post("/signup", json={"site": "lamps", "email": "a@example.com", "_next": wanted})
        assert (answer.status_code, answer.json(), "location" in answer.headers) == (*ACCEPTED, False)


async def test_page_that_a_form_may_lead_to_must_be_there(settings: Settings) -> None:
    add_site(settings.sites_dir, "lamps", NEXT)
    with pytest.raises(StartupError, match=r"signup\.next: there is no page danke/ in"):
        async with running(create_app(settings)):
            pass


async def test_thank_you_page_of_no_site(client: httpx.AsyncClient) -> None:
    assert (await client.get("/thanks/none")).status_code == 404


async def test_signup_and_mails_are_in_the_database_when_it_is_answered(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    await client.post("/signup", json={**GOOD, "name": "Ann", "message": "Hi"})
    assert rows(settings, "SELECT id, site, email, name, CAST(fields AS TEXT) FROM signups") == [
        (1, "bikes", "a@example.com", "Ann", '{"colour": "Red", "message": "Hi"}')
    ]
    assert rows(settings, "SELECT signup_id, kind, recipient FROM outbox ORDER BY id") == [
        (1, "welcome", "a@example.com"),
        (1, "notice", "owner@bikeshed.example"),
    ]


async def test_mails_reach_the_mailbox(client: httpx.AsyncClient) -> None:
    await client.post("/signup", json=GOOD)

    async def both() -> bool:
        page = (await client.get("/_mailbox/")).text
        return "to a@example.com" in page and "to owner@bikeshed.example" in page

    await eventually(both)


async def test_dispatcher_is_woken_in_the_thread_it_waits_in(settings: Settings) -> None:
    app = create_app(settings)
    woken: list[threading.Thread] = []
    async with running(app) as client:
        app.state.wake = lambda: woken.append(threading.current_thread())
        assert (await client.post("/signup", json=GOOD)).status_code == 202
    assert woken == [threading.current_thread()]


async def test_same_address_again_is_answered_the_same_and_is_a_row_of_its_own(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    first, second = [await client.post("/signup", json=GOOD) for _ in range(2)]
    assert (first.status_code, first.content) == (second.status_code, second.content)
    assert first.headers.keys() == second.headers.keys()
    assert rows(settings, "SELECT count(*) FROM signups") == [(2,)]
    assert rows(settings, "SELECT count(*) FROM outbox") == [(4,)]


@pytest.mark.parametrize(
    ("field", "typed", "stored"),
    [
        ("name", "Seán O'Brien-Müller 🚲", "Seán O'Brien-Müller 🚲"),
        ("name", "O'); DROP TABLE signups;--", "O'); DROP TABLE signups;--"),
        ("email", " ann+bikes.o'neil@Example.COM ", "ann+bikes.o'neil@example.com"),
        ("email", "a@bücher.example", "a@xn--bcher-kva.example"),
    ],
)
async def test_honest_things_pass(
    client: httpx.AsyncClient, settings: Settings, field: str, typed: str, stored: str
) -> None:
    for form in ({"json": {**GOOD, field: typed}}, {"data": {**GOOD, field: typed}}):
        answer = await client.post("/signup", headers=JSON, **form)  # type: ignore[arg-type]
        assert answer.status_code == 202
    assert rows(settings, f"SELECT {field} FROM signups") == [(stored,), (stored,)]


async def test_longest_message_of_a_textarea_in_a_browser(client: httpx.AsyncClient, settings: Settings) -> None:
    typed = "ü\n" * 50  # 100 characters, as maxlength counts; sent as 250 bytes
    answer = await client.post("/signup", data={**GOOD, "message": typed[:-1].replace("\n", "\r\n") + "!"})
    assert answer.status_code == 303
    assert rows(settings, "SELECT length(fields ->> 'message') FROM signups") == [(100,)]


async def test_form_in_utf8_that_is_not_percent_encoded(client: httpx.AsyncClient, settings: Settings) -> None:
    body = "site=bikes&email=a@example.com&colour=Red&name=Jürgen+Groß"  # curl -d sends it so
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert (await client.post("/signup", content=body.encode(), headers=headers)).status_code == 303
    assert rows(settings, "SELECT name FROM signups") == [("Jürgen Groß",)]


# -- refused -------------------------------------------------------------------------------------------------------


async def test_fields_are_named(client: httpx.AsyncClient) -> None:
    answer = await client.post("/signup", json={"site": "bikes", "name": "x" * 101, "colour": "Blue"})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json() | {"errors": []} == {
        "type": "about:blank",
        "title": "Unprocessable Content",
        "status": 422,
        "detail": "Please check what you entered.",
        "errors": [],
    }
    assert told(answer) == {
        "email": "This field is required.",
        "name": "This must have at most 100 characters; it has 101.",
        "colour": "Choose one of: 'Red' or 'Green'.",
    }


async def test_without_site(client: httpx.AsyncClient) -> None:
    answer = await client.post("/signup", json={"email": "a@example.com"})
    assert (answer.status_code, list(told(answer))) == (422, ["site"])


async def test_unknown_site(client: httpx.AsyncClient) -> None:
    answer = await client.post("/signup", json={**GOOD, "site": "../bikes"})
    assert (answer.status_code, answer.json()["detail"]) == (404, "There is no such site here.")


@pytest.mark.parametrize("typed", ["a@exa{mple.com", "a@{error}.com", "a@}x.com", "{", "a@{0.__class__}"])
async def test_braces_in_an_address_are_only_braces(client: httpx.AsyncClient, typed: str) -> None:
    answer = await client.post("/signup", json={**GOOD, "email": typed})
    assert answer.status_code == 422
    assert "class" not in told(answer)["email"].replace("__class__", "")


async def test_refusal_of_a_long_address_is_short(client: httpx.AsyncClient) -> None:
    answer = await client.post("/signup", json={**GOOD, "email": '"' * 30_000 + "@x.com"})
    assert (answer.status_code, len(answer.content) < 1000) == (422, True)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods(client: httpx.AsyncClient, method: str) -> None:
    answer = await client.request(method, "/signup")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        assert answer.json()["detail"] == "This address takes POST only."


@pytest.mark.parametrize("path", ["/signup/", "/Signup", "/signup/x"])
async def test_other_paths(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.post(path, json=GOOD)).status_code == 404


async def test_address_opened_in_a_browser_is_a_page(client: httpx.AsyncClient) -> None:
    answer = await client.get("/signup", headers=HTML)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


@ON_SQLITE
async def test_database_away_is_told_with_retry_after(client: httpx.AsyncClient, settings: Settings) -> None:
    await alter(settings, "ALTER TABLE signups RENAME TO away")
    answer = await client.post("/signup", json=GOOD)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "signups" not in answer.text
    await alter(settings, "ALTER TABLE away RENAME TO signups")
    assert (await client.post("/signup", json=GOOD)).status_code == 202


@ON_SQLITE
async def test_second_insert_fails_and_nothing_is_kept(client: httpx.AsyncClient, settings: Settings) -> None:
    await alter(
        settings,
        "CREATE TRIGGER full BEFORE INSERT ON outbox WHEN NEW.kind = 'notice' BEGIN SELECT RAISE(ABORT, 'full'); END",
    )
    answer = await client.post("/signup", json=GOOD)
    assert answer.status_code == 500
    assert "full" not in answer.text and "Traceback" not in answer.text
    assert rows(settings, "SELECT (SELECT count(*) FROM signups), (SELECT count(*) FROM outbox)") == [(0, 0)]
    await alter(settings, "DROP TRIGGER full")
    assert (await client.post("/signup", json=GOOD)).status_code == 202


def _nearly_full(connection: Connection) -> None:
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")


@ON_SQLITE
async def test_disk_full_is_told_with_retry_after(settings: Settings) -> None:
    app = create_app(settings)
    async with running(app) as client:
        await app.state.runtime.database.transact(_nearly_full)
        answers = [await client.post("/signup", json={**GOOD, "message": os.urandom(40).hex()}) for _ in range(20)]
        assert {answer.status_code for answer in answers} <= {202, 503}
        assert answers[-1].status_code == 503
        kept = sum(answer.status_code == 202 for answer in answers)
        assert rows(settings, "SELECT (SELECT count(*) FROM signups), (SELECT count(*) FROM outbox)") == [
            (kept, 2 * kept)
        ]


def test_sqlite_knows_json_and_triggers() -> None:
    assert sqlite3.sqlite_version_info >= (3, 38)


# -- the page for a form -------------------------------------------------------------------------------------------


TYPED = {
    "site": "bikes",
    "email": "nobody",
    "name": '{{7*7}} "quoted" <b>',
    "colour": "Green",
    "message": "\n<img src=x onerror=alert(1)> & </textarea>\nlast",
}


async def test_page_keeps_what_was_typed(client: httpx.AsyncClient) -> None:
    answer = await client.post("/signup", data=TYPED, headers=HTML)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "text/html; charset=utf-8")
    assert Controls(answer.text).values == TYPED
    assert "This is not a valid e-mail address." in answer.text


async def test_page_can_be_sent_again(client: httpx.AsyncClient) -> None:
    page = Controls((await client.post("/signup", data=TYPED, headers=HTML)).text)
    answer = await client.post("/signup", data={**page.values, "email": "a@example.com"}, headers=HTML)
    assert answer.status_code == 303


async def test_page_shows_text_of_the_visitor_as_text(client: httpx.AsyncClient) -> None:
    answer = await client.post("/signup", data=TYPED, headers=HTML)
    assert "img" not in Controls(answer.text).tags
    assert "49" not in Controls(answer.text).values["name"]  # type: ignore[operator]
    assert "script" not in Controls(answer.text).tags


async def test_page_tells_a_screen_reader_which_field(client: httpx.AsyncClient) -> None:
    page = (await client.post("/signup", data=TYPED, headers=HTML)).text
    assert 'aria-invalid="true" aria-describedby="email-error"' in page
    assert '<p class="error" id="email-error">' in page
    assert page.count("aria-invalid") == 1


async def test_page_keeps_a_tick_and_what_is_no_number(settings: Settings) -> None:
    with (settings.sites_dir / "bikes" / "site.toml").open("a") as toml:
        toml.write('[signup.fields.news]\ntype = "checkbox"\n[signup.fields.age]\ntype = "number"\n')
        toml.write('[signup.fields.day]\ntype = "date"\n')
    async with running(create_app(settings)) as client:
        typed = {**GOOD, "news": "on", "age": "about 7", "day": "31.1.2026"}
        page = (await client.post("/signup", data=typed, headers=HTML)).text
        assert {name: Controls(page).values[name] for name in ("news", "age", "day")} == {
            "news": "on",
            "age": "about 7",
            "day": "31.1.2026",
        }
        # a browser would empty a number or a date that it cannot read
        assert 'type="number"' not in page and 'type="date"' not in page
        page = (await client.post("/signup", data={**typed, "age": "7", "news": ""}, headers=HTML)).text
        assert "news" not in Controls(page).values
        assert 'type="number"' in page


@ON_SQLITE
async def test_page_keeps_what_was_typed_while_the_database_is_away(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    await alter(settings, "ALTER TABLE signups RENAME TO away")
    typed = {**TYPED, "email": "a@example.com"}
    answer = await client.post("/signup", data=typed, headers=HTML)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert Controls(answer.text).values == typed


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (404, "application/x-www-form-urlencoded", b"site=none&email=a@example.com"),
        (422, "application/x-www-form-urlencoded", b"email=a@example.com"),
        (400, "application/x-www-form-urlencoded", b"site=%ff"),
        (413, "application/x-www-form-urlencoded", b"site=bikes&message=" + b"a" * 70_000),
        (400, "multipart/form-data", b"site=bikes"),
        (415, "text/plain", b"site=bikes"),
    ],
)
async def test_every_error_of_a_form_is_a_page(
    client: httpx.AsyncClient, status: int, content_type: str, body: bytes
) -> None:
    answer = await client.post("/signup", content=body, headers={**HTML, "content-type": content_type})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    program = await client.post("/signup", content=body, headers={**JSON, "content-type": content_type})
    assert (program.status_code, program.headers["content-type"]) == (status, "application/problem+json")
    assert program.json()["status"] == status


async def test_markup_in_a_slug_is_text_on_the_page(client: httpx.AsyncClient) -> None:
    answer = await client.post("/signup", data={**GOOD, "site": "<script>alert(1)</script>"}, headers=HTML)
    assert (answer.status_code, "<script" in answer.text) == (404, False)


async def test_page_has_no_inline_style_that_its_policy_forbids(client: httpx.AsyncClient) -> None:
    answer = await client.post("/signup", data=TYPED, headers=HTML)
    (nonce,) = [part for part in answer.headers["content-security-policy"].split("'") if part.startswith("nonce-")]
    assert answer.text.count("<style") == answer.text.count(f'<style nonce="{nonce.removeprefix("nonce-")}">') == 1
    assert " style=" not in answer.text
    again = await client.post("/signup", data=TYPED, headers=HTML)
    assert nonce not in again.headers["content-security-policy"]
