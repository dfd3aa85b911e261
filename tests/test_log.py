import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server import log
from tests.conftest import plain_logs


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    plain_logs()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_line_has_event_level_time_and_ids(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    log.get("x").info("mail.sent", outbox_id=7)
    (line,) = lines(capsys)
    assert line.pop("timestamp")
    assert line == {"event": "mail.sent", "level": "info", "outbox_id": 7}


def test_json_line_of_a_library(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    logging.getLogger("some.library").warning("It is %s", 'new\n"line"')
    (line,) = lines(capsys)
    assert (line["event"], line["level"]) == ('It is new\n"line"', "warning")


def test_json_exception_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    try:
        raise ValueError("boom")
    except ValueError:
        log.get("x").exception("request.failed")
    (line,) = lines(capsys)
    assert "ValueError: boom" in str(line["exception"])


@pytest.mark.parametrize("form", ["console", "json"])
def test_exception_without_the_values_of_local_variables(form: log.Format, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(form)
    typed = "visitor" + chr(64) + "example.com"
    try:
        raise ValueError(len(typed))
    except ValueError:
        log.get("x").exception("request.failed")
    said = capsys.readouterr().err
    assert "ValueError: 19" in said
    assert typed not in said


def test_level(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "warning")
    log.get("x").info("quiet")
    log.get("x").warning("loud")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


def test_configured_twice_says_it_once(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    log.configure("json")
    log.get("x").info("once")
    assert len(lines(capsys)) == 1


@pytest.mark.parametrize("form", ["console", "json"])
def test_level_names_and_exceptions_look_alike_whoever_logs(
    form: log.Format, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(form)
    try:
        raise ValueError("boom")
    except ValueError:
        log.get("x").exception("it.failed")
        logging.getLogger("some.library").exception("it.failed")
    said = capsys.readouterr().err
    half = len(said.splitlines()) // 2
    ours, theirs = said.splitlines()[:half], said.splitlines()[half:]
    unique = r"20[0-9T:.-]+Z|line [0-9]+"
    assert [re.sub(unique, "", line) for line in ours] == [re.sub(unique, "", line) for line in theirs]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("form", ["console", "json"])
def test_log_that_cannot_be_written_fails_nothing(form: log.Format, monkeypatch: pytest.MonkeyPatch) -> None:
    went_on = False
    with pytest.raises(OSError, match="No space"), open("/dev/full", "w") as full:  # as it is closed
        monkeypatch.setattr(sys, "stderr", full)
        log.configure(form)
        log.get("x").warning("disk.full")
        went_on = True
    assert went_on


def test_log_that_is_closed_fails_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "log", "w") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
        log.configure("json")
    log.get("x").warning("too.late")


@pytest.mark.parametrize(
    ("target", "logged"),
    [
        ("/signup?email=visitor%40example.com", "/signup"),
        ("/confirm/abc.def?x=1", "/confirm/***"),
        ("/unsubscribe/bikes.0f/more", "/unsubscribe/***"),
        ("//confirm/abc", "//confirm/***"),
        ("/bikes/confirm/", "/bikes/confirm/"),
    ],
)
def test_access_log_without_query_and_token(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, target: str, logged: str
) -> None:
    # A server that ran in this process without access log has left it so.
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "propagate", True)
    log.configure("json")
    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", target, "1.1", 405)
    (line,) = lines(capsys)
    assert line["event"] == f'127.0.0.1:1 - "GET {logged} HTTP/1.1" 405'
