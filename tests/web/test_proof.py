"""Proof of work: ALTCHA's puzzle for scripts, a button to wait for without one. Each is good for one signup."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from fastapi import FastAPI
from itsdangerous import TimestampSigner

from server.app import create_app
from server.settings import Settings, load
from server.signing import Keys
from server.web import proof
from tests.conftest import add_site, rows, running
from tests.web.test_signup import HTML, Controls

KEYS = Keys(["a secret of some length"])
WORK = 'title = "Work"\n[signup]\nproof_of_work = true\n[signup.fields.message]\ntype = "textarea"\n'
FORM = {"site": "work", "email": "a@example.com"}


def solve(challenge: dict[str, Any]) -> dict[str, Any]:
    """The slow way, and nothing of the library's."""
    for number in range(challenge["maxnumber"] + 1):
        if hashlib.sha256(f"{challenge['salt']}{number}".encode()).hexdigest() == challenge["challenge"]:
            return {name: challenge[name] for name in ("algorithm", "challenge", "salt", "signature")} | {
                "number": number
            }
    raise AssertionError("there is no such number")


def packed(solution: object) -> str:
    return base64.b64encode(json.dumps(solution).encode()).decode()


@pytest.fixture(scope="module")
def solution() -> dict[str, Any]:
    """Of a puzzle for the site `work`."""
    return solve(proof.challenge(KEYS, "work"))


# -- the puzzle ----------------------------------------------------------------------------------------------------


def test_challenge_is_for_a_site_and_ten_minutes() -> None:
    made = proof.challenge(KEYS, "work")
    salt = str(made["salt"])
    assert salt.endswith("&")
    given = parse_qs(salt.partition("?")[2])
    assert given["site"] == ["work"]
    assert 590 < int(given["expires"][0]) - time() <= 600
    assert proof.challenge(KEYS, "work")["challenge"] != made["challenge"]


def test_solution_is_known_by_its_challenge(solution: dict[str, Any]) -> None:
    found = proof.solved(KEYS, "work", packed(solution))
    assert found is not None
    assert found == proof.solved(KEYS, "work", packed({**solution, "took": 1234, "test": True}))
    assert solution["challenge"] not in found


def test_solution_lives_through_a_restart_and_is_nothing_elsewhere(solution: dict[str, Any]) -> None:
    assert proof.solved(Keys(["a secret of some length"]), "work", packed(solution))
    assert proof.solved(Keys(["another secret of a length"]), "work", packed(solution)) is None
    assert proof.solved(KEYS, "bikes", packed(solution)) is None


def test_old_solution_is_none(solution: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for minutes, good in ((9, True), (11, False)):
        monkeypatch.setattr("altcha.v1.time.time", lambda minutes=minutes: time() + minutes * 60)
        assert bool(proof.solved(KEYS, "work", packed(solution))) == good


def spliced(solution: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What reads as another puzzle, and has the same hash and so the same signature (CVE-2025-68113)."""
    salt, number = solution["salt"], str(solution["number"])
    nonce, _, query = salt.partition("?")
    expires = query.split("&")[0]
    changed = {
        "a digit of the number goes to the salt": {"salt": salt + number[:1], "number": int(number[1:] or 0)},
        "no delimiter": {"salt": salt[:-1]},
        "an end in the far future": {"salt": f"{nonce}?{expires}9&site=work&"},
        "the number holds the site": {"salt": f"{nonce}?{expires}&", "number": f"site=work&{number}"},
        "the number holds all": {"salt": f"{nonce}?", "number": f"{query}{number}"},
        "another site before it": {"salt": salt.replace("?", "?site=bikes&")},
        "two questions": {"salt": f"{nonce}?site=work&?{query}"},
    }
    return {name: {**solution, **change} for name, change in changed.items()}


def test_spliced_solution_is_none(solution: dict[str, Any]) -> None:
    for name, forged in spliced(solution).items():
        for site in ("work", "bikes"):
            assert proof.solved(KEYS, site, packed(forged)) is None, name


def test_garbage_is_no_solution(solution: dict[str, Any]) -> None:
    wrong: list[object] = [None, 7, [], {}, "", "x", "=", "\N{SNOWMAN}", "\ud800", "a" * 60_000]
    others: list[object] = [None, [], {}, "x", solution["challenge"], [solution]]
    wrong += [packed(value) for value in others]
    wrong += [base64.b64encode(raw).decode() for raw in (b"\xff", b"[" * 5000, b'{"number":' + b"9" * 5000 + b"}")]
    changes = {
        "algorithm": ["SHA-1", "SHA-512", "MD5", None, ["SHA-256"]],
        "number": [solution["number"] + 1, -1, str(solution["number"]), float(solution["number"]), True, None, 10**400],
        "challenge": ["0" * 64, solution["challenge"].upper(), None],
        "signature": ["0" * 64, solution["signature"][:-1], solution["signature"] + "\n", None],
        "salt": [None, 7, "", "\ud800", solution["salt"] + "\n"],
    }
    wrong += [packed({**solution, name: value}) for name, values in changes.items() for value in values]
    wrong += [packed({key: value for key, value in solution.items() if key != name}) for name in changes]
    assert [payload for payload in wrong if proof.solved(KEYS, "work", payload) is not None] == []


# -- the button ----------------------------------------------------------------------------------------------------


def at(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """A signer's clock that is so many seconds behind."""
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda self: int(time() - seconds))


def test_button_is_good_after_a_while_and_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, early, good in (
        (0, True, False),
        (3, True, False),
        (6, False, True),
        (3500, False, True),
        (3700, False, False),
    ):
        at(monkeypatch, seconds)
        token = proof.button(KEYS, "work", "203.0.113.5")
        try:
            found = proof.waited(KEYS, "work", "203.0.113.5", token)
        except proof.Early:
            assert early, seconds
        else:
            assert (bool(found), early) == (good, False), seconds


def test_button_is_for_one_site_and_one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, 6)
    token = proof.button(KEYS, "work", "203.0.113.5")
    name = proof.waited(KEYS, "work", "203.0.113.5", token)
    assert name and "203" not in token
    assert proof.waited(KEYS, "bikes", "203.0.113.5", token) is None
    assert proof.waited(KEYS, "work", "203.0.113.6", token) is None
    assert proof.waited(KEYS, "work", "203.0.113.5", KEYS.stamp("form", "work")) is None
    assert proof.waited(KEYS, "work", "203.0.113.5", proof.button(KEYS, "work", "203.0.113.5")) != name


def test_one_button_has_one_name_however_its_signature_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, 6)
    token = proof.button(KEYS, "work", "n")
    names = set()
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        names.add(proof.waited(KEYS, "work", "n", token[:-1] + last))
    assert len(names - {None}) == 1


# -- asked for -----------------------------------------------------------------------------------------------------


@pytest.fixture
def sites(sites: Path) -> Path:
    add_site(sites, "work", WORK)
    return sites


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with running(app) as client:
        yield client


async def test_program_is_told_where_the_puzzle_is(client: httpx.AsyncClient, settings: Settings) -> None:
    assert (await client.get("/_doorbell/token/work")).json()["proof"] is True
    answer = await client.post("/signup", json=FORM)
    assert (answer.status_code, answer.headers["content-type"]) == (429, "application/problem+json")
    assert int(answer.headers["retry-after"]) > 0
    puzzle = await client.get(answer.json()["challenge"])
    assert (puzzle.status_code, puzzle.headers["cache-control"]) == (200, "no-store")
    payload = packed(solve(puzzle.json()))
    assert (await client.post("/signup", json={**FORM, "altcha": payload})).status_code == 202
    # good for one signup: not for another, and not for the same again
    again = await client.post("/signup", json={**FORM, "email": "b@example.com", "altcha": payload})
    assert (again.status_code, again.json()["challenge"]) == (429, "/_doorbell/challenge/work")
    assert rows(settings, "SELECT count(*) FROM signups") == [(1,)]


async def test_spam_is_asked_for_nothing(client: httpx.AsyncClient) -> None:
    assert (await client.post("/signup", json={**FORM, "website": "x"})).status_code == 202


TYPED = {**FORM, "name": 'Ann "<b>"', "message": "one\r\n\r\n<img src=x> & two", "_next": "somewhere"}


async def test_form_gets_a_button_that_keeps_what_was_typed(
    client: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await client.post("/signup", data={**TYPED, "foreign": "x"}, headers=HTML)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    kept = Controls(answer.text)
    token = kept.values.pop("_token")
    assert kept.values == TYPED
    assert "img" not in kept.tags and "script" not in kept.tags

    early = Controls((await client.post("/signup", data={**kept.values, "_token": token}, headers=HTML)).text)
    assert early.values == {**kept.values, "_token": token}  # the same, which will be good soon
    assert rows(settings, "SELECT count(*) FROM signups") == [(0,)]

    at(monkeypatch, 6)
    late = Controls((await client.post("/signup", data=kept.values, headers=HTML)).text).values
    assert late["_token"] != token
    assert (await client.post("/signup", data=late, headers=HTML)).headers["location"] == "/thanks/work"
    ((message,),) = rows(settings, "SELECT json_extract(fields, '$.message') FROM signups")
    assert message == "one\n\n<img src=x> & two"
    twice = await client.post("/signup", data=late, headers=HTML)
    assert twice.status_code == 429
    assert Controls(twice.text).values["_token"] != late["_token"]


async def test_page_says_that_the_button_was_pressed_too_early(client: httpx.AsyncClient) -> None:
    first = (await client.post("/signup", data=FORM, headers=HTML)).text
    assert "too soon" not in first
    assert "too soon" in (await client.post("/signup", data=Controls(first).values, headers=HTML)).text


async def test_program_that_sends_a_form_gets_no_page(client: httpx.AsyncClient) -> None:
    answer = await client.post("/signup", data=FORM, headers={"accept": "application/json"})
    assert (answer.status_code, answer.json()["challenge"]) == (429, "/_doorbell/challenge/work")


async def test_nothing_is_asked_for_where_limits_are_off(environ: dict[str, str], sites: Path) -> None:
    async with running(create_app(load({**environ, "DOORBELL_LIMITS": "off"}, env_file=None))) as client:
        assert (await client.post("/signup", json=FORM)).status_code == 202
