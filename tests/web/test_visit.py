"""What a post tells besides its fields: how fast it was, whether a machine filled it in, whether it comes again."""

from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from server.settings import Settings
from tests.conftest import keeping, rows

FORM = {"site": "bikes", "email": "a@example.com", "colour": "Red"}
Stamped = Callable[[str, str, float], str]

# -- the form's token ----------------------------------------------------------------------------------------------


@pytest.fixture
def environ(environ: dict[str, str], database_url: str) -> dict[str, str]:
    return keeping(environ, database_url)


async def test_token_is_fresh_each_time_and_names_what_is_asked_for(client: httpx.AsyncClient, app: FastAPI) -> None:
    answer = await client.get("/_doorbell/token/bikes")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.json() == {"token": answer.json()["token"], "proof": False}
    value, age = app.state.keys.read_stamped("form", answer.json()["token"])
    assert (value, age < 60) == ("bikes", True)
    assert (await client.head("/_doorbell/token/bikes")).status_code == 200


@pytest.mark.parametrize("name", ["token", "challenge"])
async def test_token_of_no_site(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get(f"/_doorbell/{name}/none")
    assert (answer.status_code, answer.json()["detail"]) == (404, "There is no such site here.")
    assert (await client.get(f"/_doorbell/{name}/")).status_code == 404
    assert (await client.post(f"/_doorbell/{name}/bikes")).status_code == 405


async def test_what_was_sent_too_fast_or_by_a_machine_is_answered_like_all_else(
    client: httpx.AsyncClient, settings: Settings, stamped: Stamped
) -> None:
    async def post(email: str, **more: str) -> list[tuple[object, ...]]:
        answers = [
            await client.post("/signup", json={**FORM, "email": email, **more}),
            await client.post("/signup", data={**FORM, "email": email, **more}),
        ]
        changing = {"x-process-time", "x-request-id", "date"}
        return [
            (
                answer.status_code,
                answer.content,
                [field for field in answer.headers.items() if field[0] not in changing],
            )
            for answer in answers
        ]

    good = await post("new@example.com", _token=stamped("form", "bikes", 3))
    assert [answer[0] for answer in good] == [202, 303]
    assert await post("new@example.com") == good  # known
    assert await post("honey@example.com", website="https://spam.example") == good
    assert await post("fast@example.com", _token=stamped("form", "bikes", 0)) == good
    assert await post("both@example.com", _token=stamped("form", "bikes", 0), website="x") == good
    assert rows(settings, "SELECT DISTINCT email, spam FROM signups ORDER BY email") == [
        ("both@example.com", "honeypot"),
        ("fast@example.com", "too fast"),
        ("honey@example.com", "honeypot"),
        ("new@example.com", None),
    ]
    await client.post("/unsubscribe/" + _unsubscribe_token(settings, client))
    assert await post("new@example.com") == good  # suppressed


def _unsubscribe_token(settings: Settings, client: httpx.AsyncClient) -> str:
    ((hashed,),) = rows(settings, "SELECT DISTINCT recipient_hash FROM signups WHERE email = 'new@example.com'")
    app = client._transport.app  # type: ignore[attr-defined]
    token: str = app.state.keys.sign("unsubscribe", f"bikes.{hashed}")
    return token


async def test_token_that_does_not_count_is_no_spam(
    client: httpx.AsyncClient, settings: Settings, stamped: Stamped
) -> None:
    """Pages are cached, clocks are wrong, scripts are blocked: that is nobody's fault."""
    good = stamped("form", "bikes", 3)
    others: list[object] = [
        None, "", "x", good[:-1], good + "xx", "\N{SNOWMAN}", "a" * 5000, 7, ["x"], {"a": [[[]]]},
        stamped("form", "lamps", 0),
        stamped("confirm", "bikes", 0),
        stamped("form", "bikes", 25 * 3600),
        stamped("form", "bikes", -100),
    ]  # fmt: skip
    for token in others:
        assert (await client.post("/signup", json={**FORM, "_token": token})).status_code == 202
    assert rows(settings, "SELECT count(*), count(spam) FROM signups") == [(len(others), 0)]
    # Which of them count shows in the limits for those that have none.
    counted = "SELECT count FROM counters WHERE key LIKE '%untokened%'"
    assert rows(settings, counted) == [(len(others),)]
    for seconds in (2, 23 * 3600):
        await client.post("/signup", json={**FORM, "_token": stamped("form", "bikes", seconds)})
    assert rows(settings, counted) == [(len(others),)]


# -- Idempotency-Key -----------------------------------------------------------------------------------------------


async def post(client: httpx.AsyncClient, *keys: str, **more: object) -> httpx.Response:
    headers = [("idempotency-key", key) for key in keys]
    return await client.post("/signup", json={**FORM, **more}, headers=headers)


async def test_same_key_and_form_are_one_signup(
    client: httpx.AsyncClient, settings: Settings, stamped: Stamped
) -> None:
    for _ in range(3):
        assert (await post(client, '"8e03978e-40d5"')).status_code == 202
    assert (await post(client, "8e03978e-40d5")).status_code == 202  # bare, it is the same
    # Token and proof are others each time, and no part of what was entered.
    assert (await post(client, "8e03978e-40d5", _token=stamped("form", "bikes", 9), altcha="x")).status_code == 202
    form = await client.post("/signup", data=FORM, headers={"idempotency-key": "8e03978e-40d5"})
    assert (form.status_code, form.headers["location"]) == (303, "/thanks/bikes")
    assert rows(settings, "SELECT (SELECT count(*) FROM signups), (SELECT count(*) FROM outbox)") == [(1, 2)]
    await post(client, '"another"')
    await post(client)
    assert rows(settings, "SELECT count(*) FROM signups") == [(3,)]


async def test_same_key_with_another_form(client: httpx.AsyncClient, settings: Settings) -> None:
    await post(client, '"k"')
    answer = await post(client, '"k"', colour="Green")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert "Idempotency-Key" in answer.json()["detail"]
    assert rows(settings, "SELECT count(*) FROM signups") == [(1,)]


async def test_keys_that_are_none(client: httpx.AsyncClient, settings: Settings) -> None:
    wrong = [
        "",
        '""',
        '"',
        '"a',
        'a"',
        '"a"b"',
        '"\\a"',
        "a b",
        "a,b",
        '"a", "b"',
        '"a";x=1',
        "a" * 256,
        f'"{"a" * 256}"',
    ]
    for key in wrong:
        answer = await post(client, key)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json"), key
    assert (await post(client, "a", "a")).status_code == 400
    beyond = await client.post("/signup", json=FORM, headers=[(b"idempotency-key", "é".encode())])
    assert beyond.status_code == 400
    assert rows(settings, "SELECT count(*) FROM signups") == [(0,)]


async def test_keys_that_are_some(client: httpx.AsyncClient, settings: Settings) -> None:
    right = ["a", "!#$%&'()*+-./:;<=>?@[]^_`{|}~", '"a b"', r'"a\"b\\c"', "a" * 255, f'"{"b" * 255}"', "??", "{x}"]
    assert [(await post(client, key)).status_code for key in right] == [202] * len(right)
    assert rows(settings, "SELECT count(*) FROM signups") == [(len(right),)]
    assert (await post(client, '"a"')).status_code == 202  # the first again
    assert rows(settings, "SELECT count(*) FROM signups") == [(len(right),)]
