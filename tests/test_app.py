"""The program as a whole: the order of its middlewares, what every answer has, and what stops it from starting."""

import asyncio
import json
import logging
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import log
from server.app import create_app
from server.hosting import Hosting
from server.runtime import StartupError
from server.settings import Settings, load
from server.web.middleware import BodyLimit, RequestId, SecurityHeaders, Timing, Unexpected
from server.web.origin import Cors
from tests.conftest import SITE_TOML, add_site, eventually, exchange, listening, plain_logs, rows, running

GOOD = {"site": "bikes", "email": "a@example.com", "colour": "Red"}
EVERYWHERE = {
    "x-process-time",
    "x-request-id",
    "x-content-type-options",
    "referrer-policy",
    "x-frame-options",
    "cross-origin-opener-policy",
    "permissions-policy",
}


# -- middleware ----------------------------------------------------------------------------------------------------


class Probe:
    """Notes when a request passes it, and which headers the response has by then on its way back."""

    def __init__(self, app: ASGIApp, name: str, seen: list[tuple[str, str, frozenset[str]]]) -> None:
        self.app, self.name, self.seen = app, name, seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        ids = frozenset(structlog.contextvars.get_contextvars())
        self.seen.append(("in", self.name, ids))

        async def back(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = frozenset(name.decode().lower() for name, _ in message["headers"])
                self.seen.append(("out", self.name, names & EVERYWHERE))
            await send(message)

        await self.app(scope, receive, back)


def probed(settings: Settings) -> tuple[FastAPI, list[tuple[str, str, frozenset[str]]]]:
    """The app with a probe inside of each of its middlewares, named after it, and one outside of all."""
    seen: list[tuple[str, str, frozenset[str]]] = []
    app = create_app(settings)
    mixed = [Middleware(Probe, name="outside", seen=seen)]
    for one in app.user_middleware:
        mixed += [one, Middleware(Probe, name=getattr(one.cls, "__name__", "?"), seen=seen)]
    app.user_middleware = mixed
    return app, seen


def test_middlewares_are_listed_outermost_first(settings: Settings) -> None:
    listed: list[object] = [one.cls for one in create_app(settings).user_middleware]
    assert listed == [Timing, Hosting, RequestId, BodyLimit, Cors, SecurityHeaders, Unexpected]


async def test_request_passes_the_list_downwards_and_its_response_upwards(settings: Settings) -> None:
    app, seen = probed(settings)
    async with running(app) as client:
        await client.get("/healthz")
    names = ["outside", "Timing", "Hosting", "RequestId", "BodyLimit", "Cors", "SecurityHeaders", "Unexpected"]
    assert [(way, name) for way, name, _ in seen] == [("in", name) for name in names] + [
        ("out", name) for name in reversed(names)
    ]
    going = {name: what for way, name, what in seen if way == "in"}
    assert [name for name in names if "request_id" in going[name]] == names[3:]
    coming = {name: what for way, name, what in seen if way == "out"}
    assert coming["Unexpected"] == coming["SecurityHeaders"] == frozenset()
    assert (
        coming["Cors"] == coming["BodyLimit"] == coming["RequestId"] == EVERYWHERE - {"x-request-id", "x-process-time"}
    )
    assert coming["Hosting"] == coming["Timing"] == EVERYWHERE - {"x-process-time"}
    assert coming["outside"] == EVERYWHERE


async def test_what_is_hosted_passes_two_and_is_no_request_of_the_api(settings: Settings) -> None:
    app, seen = probed(settings)
    async with running(app) as client:
        await client.get("/bikes/")
    assert [(way, name) for way, name, _ in seen] == [
        ("in", "outside"),
        ("in", "Timing"),
        ("out", "Timing"),
        ("out", "outside"),
    ]
    assert seen[-1][2] == EVERYWHERE - {"x-request-id"}


async def boom() -> None:
    raise RuntimeError("the secret of the house")


def with_a_fault(settings: Settings) -> FastAPI:
    app = create_app(settings)
    app.add_api_route("/boom", boom, methods=["GET", "POST"])
    return app


@pytest.mark.parametrize(
    ("status", "method", "path", "more"),
    [
        (200, "GET", "/bikes/", {}),
        (200, "HEAD", "/bikes/", {}),
        (200, "GET", "/healthz", {}),
        (200, "GET", "/", {}),
        (202, "POST", "/signup", {"json": GOOD}),
        (303, "POST", "/signup", {"data": GOOD}),
        (304, "GET", "/bikes/", {"headers": {"if-none-match": "*"}}),
        (308, "GET", "/bikes", {}),
        (400, "POST", "/signup", {"content": "{", "headers": {"content-type": "application/json"}}),
        (403, "GET", "/readyz", {"headers": {"host": "doorbell.example"}}),
        (404, "GET", "/bikes/none", {}),
        (404, "GET", "/none", {}),
        (405, "POST", "/bikes/", {}),
        (405, "GET", "/signup", {}),
        (413, "POST", "/signup", {"content": b"a" * 70_000, "headers": {"content-type": "application/json"}}),
        (415, "POST", "/signup", {"content": "a", "headers": {"content-type": "text/plain"}}),
        (422, "POST", "/signup", {"json": {"site": "bikes"}}),
        (422, "POST", "/signup", {"data": {"site": "bikes"}, "headers": {"accept": "text/html"}}),
        (500, "GET", "/boom", {}),
    ],
)
async def test_every_answer_has_the_headers(
    settings: Settings, status: int, method: str, path: str, more: dict[str, object]
) -> None:
    async with running(with_a_fault(settings)) as client:
        answer = await client.request(method, path, **more)  # type: ignore[arg-type]
    assert answer.status_code == status
    # What is hosted is no request of the API.
    hosted = path.startswith("/bikes")
    assert EVERYWHERE - answer.headers.keys() == ({"x-request-id"} if hosted else set())
    assert len(answer.headers.get_list("x-process-time")) == 1
    assert len(answer.headers.get_list("x-request-id")) == (not hosted)
    assert re.fullmatch(r"\d+\.\d{6}", answer.headers["x-process-time"])
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "strict-origin-when-cross-origin"


async def test_process_time_is_in_seconds(settings: Settings) -> None:
    async def slow() -> None:
        await asyncio.sleep(0.2)

    app = create_app(settings)
    app.add_api_route("/slow", slow)
    async with running(app) as client:
        assert 0.2 <= float((await client.get("/slow")).headers["x-process-time"]) < 60


async def test_request_id_is_ours_and_new_each_time(client: httpx.AsyncClient) -> None:
    headers = {"x-request-id": "chosen by the client"}
    ids = {(await client.get("/healthz", headers=headers)).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in ids)


@pytest.mark.parametrize("declared", ["0x10", "-1", "1e9", "9" * 5000, " ", "٣"])
async def test_odd_content_length_is_too_large_or_malformed(client: httpx.AsyncClient, declared: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", declared.encode())]
    answer = await client.post("/signup", content=b"{}", headers=headers)
    assert answer.status_code == 413


async def test_fault_is_a_problem_that_tells_nothing(settings: Settings) -> None:
    async with running(with_a_fault(settings)) as client:
        for method in ("GET", "POST"):
            answer = await client.request(method, "/boom")
            assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
            assert answer.json() == {
                "type": "about:blank",
                "title": "Internal Server Error",
                "status": 500,
                "detail": "Something went wrong here. It was logged.",
            }


async def test_fault_after_the_answer_began_cuts_the_connection(settings: Settings) -> None:
    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("boom")

    app = create_app(settings)
    app.mount("/half", half)
    async with listening(app) as port:
        answer = await exchange(port, b"GET /half/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.endswith(b"\r\n\r\nhalf")
        assert (await exchange(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))[
            :12
        ] == b"HTTP/1.1 200"


# -- start ---------------------------------------------------------------------------------------------------------


async def refused(settings: Settings) -> str:
    """Why the app does not start."""
    with pytest.raises(StartupError) as caught:
        async with running(create_app(settings)):
            pass
    return str(caught.value)


async def test_nothing_is_answered_before_all_is_open(settings: Settings) -> None:
    """A start that hangs at a locked database takes no connection until it is done."""
    settings.data_dir.mkdir()
    connection = sqlite3.connect(settings.data_dir / "doorbell.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("BEGIN IMMEDIATE")
    app = create_app(settings)
    probes: list[str] = []

    async def probe() -> None:
        await eventually(lambda: hasattr(app.state.current, "sites"))  # the first step is done
        probes.append("sites are open")
        assert not hasattr(app.state.runtime, "dispatcher")
        connection.execute("COMMIT")

    probing = asyncio.create_task(probe())
    async with listening(app) as port:
        await probing
        assert probes == ["sites are open"]
        answer = await exchange(port, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
    connection.close()


async def test_unknown_key_in_site_toml(settings: Settings) -> None:
    add_site(settings.sites_dir, "lamps", 'title = "Lamps"\ncolour = "red"')
    assert await refused(settings) == f"sites: {settings.sites_dir / 'lamps' / 'site.toml'}: colour: unknown key"


async def test_broken_template(settings: Settings) -> None:
    emails = settings.sites_dir / "bikes" / "emails"
    emails.mkdir()
    (emails / "welcome.html").write_text("<p>{{ site.titel }}</p>")
    assert (await refused(settings)).startswith(f"sites: {emails / 'welcome.html'}:1: ")


async def test_link_that_leads_out_of_a_site(settings: Settings) -> None:
    public = settings.sites_dir / "bikes" / "public"
    (public / "up").symlink_to("../site.toml")
    assert await refused(settings) == f"sites: {public / 'up'}: is a link that leads out of the site"


async def test_every_problem_of_every_site_is_told(settings: Settings) -> None:
    add_site(settings.sites_dir, "lamps", 'title = "Lamps"\ncolour = "red"')
    add_site(settings.sites_dir, "metrics", 'title = "Metrics"')
    (settings.sites_dir / "bikes" / "public" / "up").symlink_to("/etc/passwd")
    told = await refused(settings)
    assert [word in told for word in ("colour: unknown key", "metrics: a site's folder", "leads out")] == [True] * 3


async def test_relay_without_a_sender(environ: dict[str, str], sites: Path) -> None:
    add_site(sites, "lamps", 'title = "Lamps"')
    settings = load({**environ, "DOORBELL_SMTP_URL": "smtp://127.0.0.1:1"}, env_file=None)
    assert "lamps/site.toml: mail.from is missing, and DOORBELL_MAIL_FROM is not set" in await refused(settings)


async def test_sender_of_the_environment_that_is_none(environ: dict[str, str], sites: Path) -> None:
    for slug in ("lamps", "shoes"):
        add_site(sites, slug, f'title = "{slug}"')
    settings = load({**environ, "DOORBELL_MAIL_FROM": "Smith, Jones <a@b.example>"}, env_file=None)
    told = await refused(settings)
    assert told.startswith("sites: DOORBELL_MAIL_FROM: must look like Name <name@example.com>")
    assert told.count("DOORBELL_MAIL_FROM") == 1


@pytest.mark.parametrize("content", [b"this is no database, but a long enough file of text" * 100])
async def test_broken_database(settings: Settings, content: bytes) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "doorbell.db").write_bytes(content)
    told = await refused(settings)
    assert told.startswith("database: ")
    assert str(settings.data_dir / "doorbell.db") in told


async def test_data_folder_that_cannot_be_made(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = load({**environ, "DOORBELL_DATA_DIR": str(tmp_path / "file" / "var")}, env_file=None)
    told = await refused(settings)
    assert told.startswith("secret key: ") and str(tmp_path / "file") in told


async def test_relay_that_is_dead_stops_nothing_and_is_named(environ: dict[str, str]) -> None:
    settings = load({**environ, "DOORBELL_SMTP_URL": "smtp://127.0.0.1:1"}, env_file=None)
    async with running(create_app(settings)) as client:
        assert (await client.post("/signup", json=GOOD)).status_code == 202

        async def named() -> bool:
            health = (await client.get("/readyz")).json()
            return bool(health["smtp"] == "unavailable" and health["pending_mails"] == 2)

        await eventually(named)
        answer = await client.get("/readyz")
        assert answer.status_code == 200
        assert answer.json() | {"pool": {}, "oldest_pending_seconds": 0} == {
            "ready": True,
            "database": "ok",
            "smtp": "unavailable",
            "smtp_fault": {"stage": "connect", "code": None},
            "breaker": "open",
            "pool": {},
            "mail_budget_left": answer.json()["mail_budget_left"],
            "pending_mails": 2,
            "oldest_pending_seconds": 0,
        }
    assert rows(settings, "SELECT kind, state FROM outbox ORDER BY id") == [
        ("welcome", "pending"),
        ("notice", "pending"),
    ]


@pytest.mark.parametrize("title", ["Smith, Jones & Co.", 'The "Best" (Ltd)', "a@b <c>", "Back\\slash", "Söhne; & 🐕"])
async def test_any_title_can_send_mail_with_the_built_in_mailbox(settings: Settings, title: str) -> None:
    add_site(settings.sites_dir, "lamps", f"title = {json.dumps(title, ensure_ascii=False)}")
    async with running(create_app(settings)) as client:
        answer = await client.post("/signup", json={"site": "lamps", "email": "a@example.com"})
        assert answer.status_code == 202


# -- logs ----------------------------------------------------------------------------------------------------------


@contextmanager
def logging_json() -> Iterator[StringIO]:
    """All logs as JSON lines in what this yields; logging is as it was afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with redirect_stderr(StringIO()) as said:
        log.configure("json", "debug")
        logging.getLogger("httpx").setLevel(logging.WARNING)
        try:
            yield said
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            plain_logs()


def lines(said: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.getvalue().splitlines()]


async def test_whole_signup_is_logged_by_ids_and_without_an_address(settings: Settings) -> None:
    marked = {**GOOD, "email": "marker-7c1@example.com", "name": "Marker Name", "message": "Marker Message"}
    with logging_json() as said:
        async with running(create_app(settings)) as client:
            answer = await client.post("/signup", json=marked)
            await client.post("/signup", json={**marked, "email": "marker-7c1@exa{mple.com"})
            await client.post("/signup", data={**marked, "site": "none"})
            await client.post("/signup", content=b"{marker-7c1", headers={"content-type": "application/json"})
            await client.post(
                "/signup", content=b"marker-7c1", headers={"content-type": "multipart/form-data; boundary=x"}
            )
            await eventually(lambda: rows(settings, "SELECT count(*) FROM outbox WHERE state = 'sent'") == [(2,)])
            await client.get("/_mailbox/")
    text = said.getvalue()
    assert "marker" not in text.lower() and "@" not in text and "Traceback" not in text
    (accepted,) = [line for line in lines(said) if line["event"] == "signup.accepted"]
    assert (accepted["signup_id"], accepted["site"]) == (1, "bikes")
    assert accepted["request_id"] == answer.headers["x-request-id"]
    sent = [line for line in lines(said) if line["event"] == "mail.sent"]
    assert sorted(line["outbox_id"] for line in sent) == [1, 2]
    assert {(line["signup_id"], line["request_id"], line["code"]) for line in sent} == {
        (1, accepted["request_id"], 250)
    }
    assert {line["level"] for line in lines(said)} <= {"debug", "info"}


async def test_fault_is_logged_once_with_its_id(settings: Settings) -> None:
    with logging_json() as said:
        async with running(with_a_fault(settings)) as client:
            answer = await client.get("/boom?email=marker-7c1@example.com")
    (line,) = [line for line in lines(said) if line["level"] == "error"]
    assert (line["event"], line["request_id"]) == ("request.failed", answer.headers["x-request-id"])
    assert "the secret of the house" in line["exception"]
    assert "marker" not in said.getvalue()


async def test_failed_start_has_a_line_for_each_reason(settings: Settings) -> None:
    (settings.sites_dir / "bikes" / "site.toml").write_text(SITE_TOML.replace("title", "titel"))
    with logging_json() as said:
        await refused(settings)
    found = [line for line in lines(said) if line["level"] == "error"]
    assert [(line["event"], line["step"]) for line in found] == [("start.failed", "sites")] * 2
    assert "title: Field required" in found[0]["reason"]
    assert "titel: unknown key" in found[1]["reason"]
