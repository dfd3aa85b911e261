"""Who a request is from: what of X-Forwarded-For is believed, and from whom."""

import httpx
import pytest
import structlog
from starlette.requests import Request

from server.app import create_app
from server.settings import load
from server.web.client import Proxies
from tests.conftest import running

PROXIES = ("10.0.0.0/8", "192.0.2.9", "fd00::/8")
FORM = {"site": "bikes", "email": "a@example.com", "colour": "Red"}


def network(peer: str | None, *forwarded: str, trusted: tuple[str, ...] = PROXIES) -> str:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    client = None if peer is None else (peer, 50000)
    return Proxies(trusted).network(Request({"type": "http", "headers": headers, "client": client}))


@pytest.mark.parametrize(
    ("peer", "known"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a socket", ""),
        (None, ""),
    ],
)
def test_peer_without_a_proxy(peer: str | None, known: str) -> None:
    assert network(peer) == known


@pytest.mark.parametrize("peer", ["198.51.100.1", "127.0.0.1", "192.0.2.8", "::1"])
@pytest.mark.parametrize("trusted", [(), PROXIES])
def test_header_of_an_untrusted_peer_is_not_believed(peer: str, trusted: tuple[str, ...]) -> None:
    assert network(peer, "203.0.113.5", trusted=trusted) == network(peer)


@pytest.mark.parametrize(
    ("forwarded", "known"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("6.6.6.6, 203.0.113.5", "203.0.113.5"),  # the client wrote the first itself
        ("6.6.6.6, 10.0.0.7, 203.0.113.5", "203.0.113.5"),  # and the second
        ("203.0.113.5, 10.0.0.2", "203.0.113.5"),
        ("203.0.113.5,192.0.2.9 ,10.0.0.2", "203.0.113.5"),
        ("203.0.113.5:1234", "203.0.113.5"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2:3::4]", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2:3::4]:443", "2001:db8:1:2::/64"),
        ("203.0.113.5, fd00::1", "203.0.113.5"),
        ("10.0.0.3", "10.0.0.3"),  # a proxy itself asks
    ],
)
@pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1", "fd00::2"])
def test_last_hop_that_is_no_proxy_is_the_client(peer: str, forwarded: str, known: str) -> None:
    assert network(peer, forwarded) == known


@pytest.mark.parametrize(
    "garbage", ["", "unknown", "127.1", "1.2.3.4.5", "[::1", "::1]:80", "1.2.3.4:x", "%00", "0" * 9000]
)
def test_garbage_leaves_the_peer(garbage: str) -> None:
    assert network("10.0.0.1", garbage) == "10.0.0.1"
    assert network("10.0.0.1", f"203.0.113.5, {garbage}") == "10.0.0.1"
    assert network("10.0.0.1", f"{garbage}, 203.0.113.5") == "203.0.113.5"


def test_two_headers_are_one_list() -> None:
    assert network("10.0.0.1", "6.6.6.6", "203.0.113.5, 10.0.0.2") == "203.0.113.5"


def test_untrusted_proxy_near_by_is_warned_about_once() -> None:
    def ask(peer: str) -> None:
        proxies.network(Request({"type": "http", "headers": [(b"x-forwarded-for", b"6.6.6.6")], "client": (peer, 1)}))

    proxies = Proxies(["192.0.2.9"])
    with structlog.testing.capture_logs() as said:
        for peer in ("93.184.216.34", "192.0.2.9"):
            ask(peer)
        assert said == []  # a stranger may send what he likes, and a proxy does its work
        for peer in ("10.0.0.1", "127.0.0.1"):
            ask(peer)
    assert [(line["event"], line["peer"]) for line in said] == [("proxy.untrusted", "10.0.0.1")]


async def test_each_client_behind_a_trusted_proxy_has_limits_of_its_own(environ: dict[str, str]) -> None:
    settings = load({**environ, "DOORBELL_TRUSTED_PROXIES": "127.0.0.1"}, env_file=None)
    toml = settings.sites_dir / "bikes" / "site.toml"
    toml.write_text(toml.read_text().replace("[signup]", '[signup]\nclient_limit = "1 per hour"'))
    async with running(create_app(settings)) as client:

        async def statuses(*clients: str) -> list[int]:
            return [
                (await client.post("/signup", json=FORM, headers={"x-forwarded-for": one})).status_code
                for one in clients
            ]

        assert await statuses("203.0.113.5", "203.0.113.6", "203.0.113.5") == [202, 202, 429]
        assert await statuses("7.7.7.7, 203.0.113.6") == [429]
        assert await statuses("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1") == [202, 429, 202]


async def test_operator_is_never_behind_a_proxy(environ: dict[str, str]) -> None:
    settings = load({**environ, "DOORBELL_TRUSTED_PROXIES": "127.0.0.1,93.184.216.0/24"}, env_file=None)
    app = create_app(settings)
    async with running(app) as client:
        for forwarded in ("127.0.0.1", "203.0.113.5, 127.0.0.1", "localhost"):
            assert (await client.get("/readyz", headers={"x-forwarded-for": forwarded})).status_code == 403
        assert (await client.get("/readyz")).status_code == 200
        transport = httpx.ASGITransport(app, client=("93.184.216.34", 1))  # trusted about others is not near
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as far:
            assert (await far.get("/readyz", headers={"x-forwarded-for": "127.0.0.1"})).status_code == 403
            assert (await far.get("/readyz")).status_code == 403
