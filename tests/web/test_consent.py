"""The pages behind the links in mails: a look changes nothing, a click acts, and twice is once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from server.settings import Settings
from tests.conftest import ON_SQLITE, add_site, alter, eventually, keeping, rows
from tests.web.test_signup import HTML, Controls

LAMPS = (
    'title = "Lamps"\nhosts = ["lamps.example"]\n[colors]\naccent = "#123456"\n[mail]\nnotify = ["o@lamps.example"]\n'
)
FORM = {"site": "lamps", "email": "ann@example.com"}
DAY = 86400
Stamped = Callable[[str, str, float], str]


@pytest.fixture
def environ(environ: dict[str, str], database_url: str) -> dict[str, str]:
    return keeping(environ, database_url)


@pytest.fixture
def sites(sites: Path) -> Path:
    add_site(sites, "lamps", LAMPS)
    return sites


@dataclass(frozen=True)
class Links:
    """The paths of the links in the mails about one signup."""

    confirm: str
    unsubscribe: str
    old: str


@pytest.fixture
async def links(client: httpx.AsyncClient, app: FastAPI, settings: Settings, stamped: Stamped) -> Links:
    assert (await client.post("/signup", json=FORM)).status_code == 202
    ((key, hashed),) = rows(settings, "SELECT key, recipient_hash FROM signups")
    keys = app.state.keys
    confirm, old = (f"/confirm/{stamped('confirm', key, days * DAY)}" for days in (6.9, 7.1))
    return Links(confirm, f"/unsubscribe/{keys.sign('unsubscribe', f'lamps.{hashed}')}", old)


def state(settings: Settings) -> list[tuple[object, ...]]:
    """What the database says of the signup and of its mails, but for when they were sent."""
    return [
        *rows(settings, "SELECT status FROM signups ORDER BY id"),
        *rows(settings, "SELECT kind, replace(state, 'sent', 'pending') FROM outbox ORDER BY id"),
        *rows(settings, "SELECT site, reason FROM suppressions"),
    ]


ASKED: list[tuple[object, ...]] = [("unconfirmed",), ("confirm", "pending"), ("notice", "awaiting")]
CONFIRMED: list[tuple[object, ...]] = [
    ("confirmed",),
    ("confirm", "pending"),
    ("notice", "pending"),
    ("welcome", "pending"),
]
UNSUBSCRIBED = ("lamps", "unsubscribed")


def heading(answer: httpx.Response) -> str:
    return answer.text.partition("<h1>")[2].partition("</h1>")[0]


def buttons(answer: httpx.Response) -> int:
    return Controls(answer.text).tags.count("button")


@pytest.mark.parametrize("host", ["localhost:8000", "lamps.example"])
async def test_look_changes_nothing_and_a_click_confirms(
    client: httpx.AsyncClient, settings: Settings, links: Links, host: str
) -> None:
    for method in ("GET", "HEAD", "GET"):
        page = await client.request(method, links.confirm, headers={"host": host})
        assert page.status_code == 200
    assert (heading(page), buttons(page)) == ("Please confirm your address", 1)
    assert "#123456" in page.text and "Lamps" in page.text
    assert "ann@" not in page.text  # who has only the link learns no address
    assert state(settings) == ASKED
    for _ in range(2):
        done = await client.post(links.confirm, headers={"host": host, "origin": "https://mail.example"})
        assert (done.status_code, heading(done), buttons(done)) == (200, "Thank you, that is confirmed", 0)
        assert state(settings) == CONFIRMED
    assert f'href="{"/" if host == "lamps.example" else "/lamps/"}"' in done.text


async def test_pages_are_secrets(client: httpx.AsyncClient, links: Links) -> None:
    for method, path in [
        ("GET", links.confirm),
        ("POST", links.confirm),
        ("GET", links.unsubscribe),
        ("GET", "/confirm/x"),
    ]:
        answer = await client.request(method, path, headers=HTML)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-robots-tag"] == "noindex"
        assert '<meta name="robots" content="noindex">' in answer.text
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "set-cookie" not in answer.headers
        assert path.rpartition("/")[2] not in answer.text or path == "/confirm/x"


async def test_old_link_offers_a_new_one(client: httpx.AsyncClient, settings: Settings, links: Links) -> None:
    page = await client.get(links.old)
    assert (page.status_code, heading(page), Controls(page.text).values) == (
        200,
        "This link is too old",
        {"again": "1"},
    )
    # not without being asked to
    assert heading(await client.post(links.old)) == "This link is too old"
    assert (
        heading(await client.post(links.old, content=b"\xff", headers={"content-type": "x/y"}))
        == "This link is too old"
    )
    assert state(settings) == ASKED
    answers = [await client.post(links.old, data={"again": "1"}) for _ in range(5)]
    assert {(answer.status_code, heading(answer)) for answer in answers} == {(200, "A new link is on its way")}
    assert len({answer.text.partition("<body>")[2] for answer in answers}) == 1
    # as many as limits allow, which shows in no answer
    assert rows(settings, "SELECT count(*) FROM outbox WHERE kind = 'confirm'") == [(3,)]
    assert rows(settings, "SELECT status FROM signups") == [("unconfirmed",)]


async def test_link_that_got_old_after_it_was_used(client: httpx.AsyncClient, settings: Settings, links: Links) -> None:
    await client.post(links.confirm)
    for answer in (
        await client.get(links.old),
        await client.post(links.old),
        await client.post(links.old, data={"again": "1"}),
    ):
        assert (
            answer.status_code,
            heading(answer) in ("Please confirm your address", "Thank you, that is confirmed"),
        ) == (200, True)
    assert state(settings) == CONFIRMED


async def test_signup_is_gone(client: httpx.AsyncClient, settings: Settings, links: Links) -> None:
    await alter(settings, "DELETE FROM signups")
    for method, path in [("GET", links.confirm), ("HEAD", links.confirm), ("POST", links.confirm), ("POST", links.old)]:
        answer = await client.request(method, path)
        assert answer.status_code == 410
    assert heading(answer) == "There is nothing left to confirm"
    assert 'class="button" href="/"' in answer.text  # the list of sites: which it was, nobody knows any more
    home = await client.get(links.confirm, headers={"host": "lamps.example"})
    assert 'class="button" href="/"' in home.text


async def test_tokens_that_are_none(
    client: httpx.AsyncClient, app: FastAPI, settings: Settings, links: Links, stamped: Stamped
) -> None:
    confirm, unsubscribe = links.confirm.rpartition("/")[2], links.unsubscribe.rpartition("/")[2]
    wrong = ["x", "a.b.c", "%00", "%ff", "%F0%9F%92%A9", "a" * 3000, confirm[:-1], unsubscribe[:-2]]
    wrong += [confirm.replace(".", "%20", 1), f"{confirm}%0a"]
    for path in ("/confirm/", "/unsubscribe/"):
        # each is good for one purpose
        others = [unsubscribe, stamped("form", "lamps", 9)] if path == "/confirm/" else [confirm]
        for token in wrong + others:
            for method in ("GET", "POST"):
                answer = await client.request(method, path + token, headers=HTML)
                assert (answer.status_code, heading(answer)) == (404, "This link is not complete"), path + token
        assert (await client.get(path)).status_code == (await client.get(f"{path}{confirm}/x")).status_code == 404
    assert state(settings) == ASKED


@pytest.mark.parametrize("path", ["confirm", "unsubscribe"])
async def test_other_methods(client: httpx.AsyncClient, links: Links, path: str) -> None:
    for method in ("PUT", "DELETE", "OPTIONS"):
        answer = await client.request(method, getattr(links, path))
        assert (answer.status_code, set(answer.headers["allow"].split(", "))) == (405, {"GET", "HEAD", "POST"})


# -- unsubscribing -------------------------------------------------------------------------------------------------


async def test_look_changes_nothing_and_a_click_unsubscribes(
    client: httpx.AsyncClient, settings: Settings, links: Links
) -> None:
    for method in ("GET", "HEAD", "GET"):
        page = await client.request(method, links.unsubscribe)
    assert (page.status_code, heading(page), buttons(page)) == (200, "No more e-mail?", 1)
    assert "#123456" in page.text and "ann@" not in page.text
    assert UNSUBSCRIBED not in state(settings)
    for _ in range(2):
        done = await client.post(links.unsubscribe, headers={**HTML, "origin": "null"})
        assert (done.status_code, heading(done), buttons(done)) == (200, "You are unsubscribed", 0)
        assert state(settings).count(UNSUBSCRIBED) == 1


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", b"List-Unsubscribe=One-Click"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n',
        ),
        # What a program gets wrong must not keep anybody from being left alone.
        ("multipart/form-data", b"List-Unsubscribe=One-Click"),
        ("text/plain", b"\xff" * 70_000),
        ("", b""),
    ],
)
async def test_one_click_of_a_mail_program(
    client: httpx.AsyncClient, settings: Settings, links: Links, content_type: str, body: bytes
) -> None:
    headers = {"content-type": content_type, "host": "lamps.example"}
    answer = await client.post(links.unsubscribe, content=body, headers=headers)
    assert (answer.status_code, answer.text) == (200, "Unsubscribed.\n")
    assert not {"location", "set-cookie"} & set(answer.headers)
    assert UNSUBSCRIBED in state(settings)


async def test_mail_that_is_written_already_does_not_go(
    client: httpx.AsyncClient, settings: Settings, links: Links
) -> None:
    kept = "SELECT state FROM outbox WHERE kind = 'confirm'"
    await eventually(lambda: rows(settings, kept) == [("sent",)])
    await alter(settings, "UPDATE outbox SET state = 'pending', due_at = due_at + 9000 WHERE kind = 'confirm'")
    await client.post(links.unsubscribe)
    assert rows(settings, kept) == [("cancelled",)]


async def test_unsubscribing_from_what_was_erased_long_ago(
    client: httpx.AsyncClient, settings: Settings, links: Links
) -> None:
    await alter(settings, "DELETE FROM signups")
    assert (await client.get(links.unsubscribe)).status_code == 200
    assert (await client.post(links.unsubscribe)).status_code == 200
    assert UNSUBSCRIBED in state(settings)


async def test_unsubscribing_from_a_site_that_is_gone(
    client: httpx.AsyncClient, app: FastAPI, settings: Settings
) -> None:
    path = "/unsubscribe/" + app.state.keys.sign("unsubscribe", f"closed.{'0' * 64}")
    page = await client.get(path)
    assert (page.status_code, heading(page), "<style" in page.text) == (200, "No more e-mail?", False)
    assert heading(await client.post(path, headers=HTML)) == "You are unsubscribed"
    assert rows(settings, "SELECT site, recipient_hash FROM suppressions") == [("closed", "0" * 64)]


@ON_SQLITE
async def test_database_away(client: httpx.AsyncClient, settings: Settings, links: Links) -> None:
    for table in ("signups", "suppressions"):
        await alter(settings, f"ALTER TABLE {table} RENAME TO {table}_away")
    for path in (links.confirm, links.unsubscribe):
        answer = await client.post(path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")


async def test_no_limit_of_clients_stands_in_the_way(client: httpx.AsyncClient, links: Links) -> None:
    assert {(await client.post(links.unsubscribe)).status_code for _ in range(150)} == {200}
