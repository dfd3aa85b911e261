"""The server behind nginx, configured as docs/deploying.md says: who a visitor is, and what only operators see."""

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import trustme

from tests.e2e.conftest import ForkedServer, free_port, wait_until
from tests.test_deploy import example, program

pytestmark = pytest.mark.e2e

NAME = "www.example.com"
FOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True)
class Proxy:
    """nginx on this machine; `client` comes to it by the domain's name."""

    port: int
    trust: ssl.SSLContext
    client: httpx.Client


def here(folder: Path, upstream: int, port: int) -> str:
    """The example, with the ports and the certificate of a test."""
    text = example("nginx")
    for theirs, ours in {
        "listen 80;": f"listen 127.0.0.1:{free_port()};",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "    listen [::]:80;\n": "",
        "    listen [::]:443 ssl http2;\n": "",
        "server 127.0.0.1:8000;": f"server 127.0.0.1:{upstream};",
        "/etc/letsencrypt/live/www.example.com/fullchain.pem": f"{folder}/certificate.pem",
        "/etc/letsencrypt/live/www.example.com/privkey.pem": f"{folder}/certificate.pem",
    }.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    return text


def configured(folder: Path, upstream: int, port: int) -> list[str]:
    """How nginx is called; what it understands of the configuration is checked."""
    folders = "".join(f"{name}_temp_path {folder}/{name};\n" for name in FOLDERS)
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; {folders}{here(folder, upstream, port)}}}\n"
    )
    command = [program("nginx"), "-p", str(folder), "-c", str(file)]
    tested = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=60)
    assert tested.returncode == 0, tested.stderr
    return command


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[Proxy]:
    folder.mkdir()
    port, authority, trust = free_port(), trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trust)
    authority.issue_cert(NAME, "localhost").private_key_and_cert_chain_pem.write_to_path(
        str(folder / "certificate.pem")
    )
    process = subprocess.Popen(configured(folder, upstream, port), stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(verify=trust, base_url=f"https://localhost:{port}", headers={"host": NAME}) as client:
            wait_until((folder / "pid").exists)
            yield Proxy(port, trust, client)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def proxy(environ: dict[str, str], tmp_path: Path) -> Iterator[Proxy]:
    server = ForkedServer({**environ, "DOORBELL_TRUSTED_PROXIES": "127.0.0.1"}, tmp_path / "server.log")
    with nginx(tmp_path / "nginx", server.port) as proxy:
        server.start()
        yield proxy
        server.kill()


def sign_up(proxy: Proxy, number: int, **headers: str) -> int:
    form = {"site": "bikes", "email": f"visitor-{number}@{number}.example.com", "colour": "Red"}
    return proxy.client.post("/signup", json=form, headers=headers).status_code


def test_behind_nginx_a_visitor_cannot_choose_who_he_is(proxy: Proxy) -> None:
    answers = [sign_up(proxy, number, **{"x-forwarded-for": f"192.0.2.{number}"}) for number in range(62)]
    assert (answers[0], answers[-1]) == (202, 429)


def test_behind_nginx_pages_are_seen_and_the_operators_are_not(proxy: Proxy) -> None:
    assert proxy.client.get("/bikes/").status_code == 200
    assert sign_up(proxy, 1, origin=f"https://{NAME}") == 202
    assert {proxy.client.get(path).status_code for path in ("/readyz", "/metrics", "/docs", "/_mailbox/")} == {403}


def test_nginx_speaks_http_2(proxy: Proxy) -> None:
    proxy.trust.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as plain,
        proxy.trust.wrap_socket(plain, server_hostname="localhost") as safe,
    ):
        assert safe.selected_alpn_protocol() == "h2"
