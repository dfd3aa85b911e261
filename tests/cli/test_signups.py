"""`signups list|show|release`, on a real database."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.cli.conftest import Run
from tests.cli.desk import Desk
from tests.signups import DAY

ANN, BOB = "ann@there.example", "bob@there.example"


def objects(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def table(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def test_list_is_a_table_newest_first_without_spam(run: Run, desk: Desk) -> None:
    desk.sign_up(ANN, name="Ann")
    desk.sign_up("spam@there.example", spam="honeypot")
    desk.sign_up(BOB, site="lamps")
    head, first, second = table(run("signups", "list"))
    assert head == "id status e-mail age site name taken for spam"
    assert first.startswith("3 unconfirmed bob@there.example ") and first.endswith(" s lamps")
    assert second.startswith("1 accepted ann@there.example ") and second.endswith(" s bikes Ann")


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ([], [4, 2, 1]),
        (["--spam"], [3]),
        (["--status", "spam"], [3]),
        (["--status", "accepted", "--status", "spam"], [3, 2, 1]),
        (["--site", "lamps"], [4]),
        (["--since", "2d"], [4, 2]),
        (["--limit", "1"], [4]),
    ],
)
def test_list_for_programs_with_filters(run: Run, desk: Desk, filter: list[str], found: list[int]) -> None:
    desk.sign_up(ANN, age=3 * DAY)
    desk.sign_up(BOB)
    desk.sign_up("spam@there.example", spam="too fast")
    desk.sign_up(ANN, site="lamps")
    assert [one["id"] for one in objects(run("signups", "list", "--json", *filter))] == found


def test_list_without_any(run: Run, desk: Desk) -> None:
    assert run("signups", "list").stdout == "There are no such signups.\n"
    assert run("signups", "list", "--status", "none").exit_code == 2


def test_show_says_everything(run: Run, desk: Desk) -> None:
    desk.sign_up(ANN, site="lamps", name="Ann", message="one\ntwo", news=True)
    shown = run("signups", "show", "1").stdout
    for part in (
        "unconfirmed",
        ANN,
        "  message: one\n    two\n",
        "  news: yes",
        "Write to me when there are new lamps.",
    ):
        assert part in shown
    assert "confirm  to ann@there.example  new" in shown and "notice  to owner@" in shown and "awaiting" in shown
    assert "key" not in shown


def test_show_for_programs(run: Run, desk: Desk) -> None:
    desk.sign_up(ANN, site="lamps", news=True)
    [one] = objects(run("signups", "show", "1", "--json"))
    assert one["consents"] == {"news": "Write to me when there are new lamps."}
    assert [(mail["kind"], mail["state"]) for mail in one["mails"]] == [("confirm", "new"), ("notice", "awaiting")]


def test_show_what_is_not_there(run: Run, desk: Desk) -> None:
    result = run("signups", "show", "1")
    assert (result.exit_code, result.stderr.strip()) == (1, "There is no signup 1.")


def standing(desk: Desk) -> list[tuple[str, str | None, list[str]]]:
    mails = desk.sql("SELECT signup_id, kind, state FROM outbox ORDER BY id")
    return [
        (status, spam, [f"{kind} {state}" for of, kind, state in mails if of == id])
        for id, status, spam in desk.sql("SELECT id, status, spam FROM signups ORDER BY id")
    ]


@pytest.mark.parametrize(
    ("site", "goes_on"),
    [
        ("bikes", ("accepted", None, ["welcome pending", "notice pending"])),
        ("lamps", ("unconfirmed", None, ["confirm pending", "notice awaiting"])),
    ],
)
def test_released_goes_on_like_any_other(run: Run, desk: Desk, site: str, goes_on: tuple[str, None, list[str]]) -> None:
    desk.sign_up(ANN, BOB, site=site, spam="honeypot")
    spam = standing(desk)[1]
    result = run("signups", "release", "1")
    assert (result.exit_code, result.stdout[:18]) == (0, "1 signup released.")
    assert standing(desk) == [goes_on, spam]


def test_released_of_one_who_has_confirmed_goes_to_the_owner(run: Run, desk: Desk) -> None:
    desk.sign_up(ANN, site="lamps")
    desk.sql("UPDATE signups SET status = 'confirmed'")
    desk.sign_up(ANN, site="lamps", spam="honeypot")
    assert run("signups", "release", "2").exit_code == 0
    assert standing(desk)[1] == ("confirmed", None, ["already pending", "notice pending"])


def test_what_cannot_be_released_is_said(run: Run, desk: Desk, sites: Path) -> None:
    desk.sign_up(ANN)
    desk.sign_up(BOB, site="lamps", spam="honeypot")
    shutil.rmtree(sites / "lamps")
    result = run("signups", "release", "1", "2", "3")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "Signup 1: it is not spam but accepted.",
        "Signup 2: there is no site lamps any more, so nothing says how it goes on.",
        "Signup 3: there is no such signup.",
    ]
    assert standing(desk)[1][:2] == ("spam", "honeypot")
    again = run("signups", "release", "3", "--json")
    assert (again.exit_code, json.loads(again.stdout)["released"]) == (1, 0)
