"""Who may look at what the operator looks at, and what it says."""

import httpx
import pytest

from server.app import create_app
from server.settings import Settings, load
from tests.conftest import alter, running

OPERATOR = [
    "/readyz",
    "/metrics",
    "/docs",
    "/openapi.json",
    "/_mailbox/",
    "/_mailbox",
    "/_mailbox/x",
    "/_mailbox/x/source",
]
EVERYBODY = ["/healthz", "/", "/bikes/", "/_doorbell/form.js", "/thanks/bikes"]


async def seen(settings: Settings, path: str, peer: str = "127.0.0.1", headers: dict[str, str] | None = None) -> int:
    async with running(create_app(settings), peer) as client:
        return (await client.get(path, headers=headers)).status_code


@pytest.mark.parametrize("path", OPERATOR)
async def test_stranger_is_refused(settings: Settings, path: str) -> None:
    async with running(create_app(settings), "203.0.114.9") as client:
        answer = await client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
    assert "DOORBELL_OPS" in answer.json()["detail"]


@pytest.mark.parametrize("path", EVERYBODY)
async def test_everybody_is_answered(settings: Settings, path: str) -> None:
    assert await seen(settings, path, "203.0.114.9", {"host": "bikes.example", "x-forwarded-for": "1.2.3.4"}) == 200


@pytest.mark.parametrize(
    "peer", ["127.0.0.1", "127.8.8.8", "::1", "10.1.2.3", "172.18.0.1", "192.168.1.9", "fd00::1", "::ffff:192.168.1.9"]
)
async def test_private_peer_is_let_in(settings: Settings, peer: str) -> None:
    assert await seen(settings, "/readyz", peer) == 200


@pytest.mark.parametrize(
    "peer", ["8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "not an address.example"]
)
async def test_public_peer_is_refused(settings: Settings, peer: str) -> None:
    assert await seen(settings, "/readyz", peer) == 403


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8000",
        "LOCALHOST",
        "127.0.0.1:8000",
        "[::1]:8000",
        "192.168.1.9",
        "web:8000",
        "a.localhost",
    ],
)
async def test_local_host_is_let_in(settings: Settings, host: str) -> None:
    assert await seen(settings, "/readyz", headers={"host": host}) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "8.8.8.8",
        "",
        ":8000",
    ],
)
async def test_name_that_was_made_to_resolve_to_us_is_refused(settings: Settings, host: str) -> None:
    assert await seen(settings, "/readyz", headers={"host": host}) == 403


@pytest.mark.parametrize("host", ["localhost@evil.example", "[::1", "127.0.0.1, evil.example", "localhost/x"])
async def test_host_that_is_none_is_refused(settings: Settings, host: str) -> None:
    assert await seen(settings, "/readyz", headers={"host": host}) == 400


@pytest.mark.parametrize(
    "header", ["forwarded", "x-forwarded-for", "X-Forwarded-Host", "x-forwarded-proto", "x-real-ip"]
)
@pytest.mark.parametrize("value", ["127.0.0.1", ""])
async def test_proxied_request_is_refused(settings: Settings, header: str, value: str) -> None:
    assert await seen(settings, "/readyz", headers={header: value}) == 403


@pytest.mark.parametrize("path", ["/readyz", "/metrics", "/docs", "/openapi.json", "/_mailbox/"])
async def test_ops_public_opens(environ: dict[str, str], path: str) -> None:
    settings = load({**environ, "DOORBELL_OPS": "public"}, env_file=None)
    assert await seen(settings, path, "203.0.114.9", {"host": "bikes.example", "x-forwarded-for": "1.2.3.4"}) == 200


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/_mailbox/", "/", "/thanks/bikes"]
)
async def test_head_is_answered_like_get(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    answer = await client.post(path)
    assert (answer.status_code, sorted(answer.headers["allow"].split(", "))) == (405, ["GET", "HEAD"])


async def test_health(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}


async def test_ready(client: httpx.AsyncClient) -> None:
    health = (await client.get("/readyz")).json()
    assert {name: health[name] for name in ("ready", "database", "smtp", "smtp_fault", "breaker")} == {
        "ready": True,
        "database": "ok",
        "smtp": "mailbox",
        "smtp_fault": None,
        "breaker": "closed",
    }
    assert (health["pending_mails"], health["oldest_pending_seconds"]) == (0, None)
    assert health["pool"]["size"] == 4


async def test_not_ready_while_the_database_is_away(client: httpx.AsyncClient, settings: Settings) -> None:
    await alter(settings, "ALTER TABLE outbox RENAME TO away")
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["ready"], answer.json()["database"]) == (503, False, "unavailable")
    assert (await client.get("/healthz")).status_code == 200
    await alter(settings, "ALTER TABLE away RENAME TO outbox")
    assert (await client.get("/readyz")).status_code == 200


async def test_metrics(client: httpx.AsyncClient) -> None:
    form = {"site": "bikes", "email": "visitor@example.com", "colour": "Red"}
    before = (await client.get("/metrics")).text
    assert (await client.post("/signup", json=form)).status_code == 202
    answer = await client.get("/metrics")
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "text/plain")
    assert _sample(answer.text, 'doorbell_signups_total{site="bikes"}') == (
        _sample(before, 'doorbell_signups_total{site="bikes"}') + 1
    )
    mails = [line for line in answer.text.splitlines() if line.startswith("doorbell_outbox_mails{")]
    assert sum(float(line.split()[-1]) for line in mails) == 2
    assert _sample(answer.text, "doorbell_smtp_pool_connections_max") == 4
    assert _sample(answer.text, "doorbell_smtp_breaker_open") == 0
    assert "@" not in answer.text


async def test_requests_are_counted_by_route_and_status(client: httpx.AsyncClient) -> None:
    def sample(route: str, status: int) -> str:
        return f'doorbell_http_requests_total{{route="{route}",status="{status}"}}'

    asked = {
        ("/bikes/", "files", 200): "hosted",
        ("/bikes/none", "files", 404): "hosted, but not there",
        ("/thanks/bikes", "thanks", 200): "the server's own",
        ("/confirm/secret", "confirm", 404): "no more of a path than its first part",
        ("/_doorbell/none", "_doorbell", 404): "not there",
    }
    before = (await client.get("/metrics")).text
    for path, _, status in asked:
        assert (await client.get(path)).status_code == status
    after = (await client.get("/metrics")).text
    for _, route, status in asked:
        told = [
            _sample(text, sample(route, status)) if sample(route, status) in text else 0 for text in (before, after)
        ]
        assert told[1] == told[0] + 1, route
    assert "secret" not in after


async def test_metrics_while_the_database_is_away(client: httpx.AsyncClient, settings: Settings) -> None:
    await alter(settings, "ALTER TABLE outbox RENAME TO away")
    answer = await client.get("/metrics")
    assert (answer.status_code, _sample(answer.text, "doorbell_database_up")) == (200, 0)
    assert "doorbell_outbox" not in answer.text
    await alter(settings, "ALTER TABLE away RENAME TO outbox")
    assert _sample((await client.get("/metrics")).text, "doorbell_database_up") == 1


def _sample(text: str, name: str) -> float:
    [found] = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(found.split()[-1])


async def test_refusal_is_a_page_for_a_browser(settings: Settings) -> None:
    async with running(create_app(settings), "203.0.114.9") as client:
        answer = await client.get("/_mailbox/", headers={"accept": "text/html,*/*;q=0.8"})
    assert (answer.status_code, answer.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert "Back button" not in answer.text  # nothing was typed


async def test_list_of_sites(client: httpx.AsyncClient) -> None:
    answer = await client.get("/")
    assert '<a href="/bikes/">' in answer.text and "Bike Shed" in answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
