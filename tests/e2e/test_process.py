"""The promise, on the real process: a signup that got a 2xx is mailed, whatever happens to the process.

What is about a start, or about what only a process that began from nothing can have wrong, takes `server`.
"""

import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.conftest import add_site
from tests.e2e.conftest import HTTP, ForkedServer, Server, free_port, wait_until

pytestmark = pytest.mark.e2e


def recipients(server: Server) -> Counter[str]:
    """How many different mails each address was sent."""
    seen = {(str(mail["Delivered-To"]), str(mail["Message-ID"])) for mail in server.mails()}
    return Counter(recipient for recipient, _ in seen)


def delivered(server: Server, accepted: list[str]) -> Callable[[], bool]:
    """Whether each accepted address has its welcome, and the owner a notice for each."""
    return lambda: (
        recipients(server) == Counter({**dict.fromkeys(accepted, 1), "owner@bikeshed.example": len(accepted)})
    )


def post_until_it_stops(server: Server, accepted: list[str], prefix: str) -> None:
    """Posts signups one after the other while the server answers; notes those that got their 202."""
    with httpx.Client() as client:
        for number in range(2000):
            email = f"{prefix}-{number}@example.com"
            form = {"site": "bikes", "email": email, "colour": "Red"}
            try:
                answer = client.post(f"{server.url}/signup", json=form)
            except httpx.TransportError:
                return
            if answer.status_code == 202:
                accepted.append(email)


def under_load(server: Server, prefix: str, number: signal.Signals, after: int) -> list[str]:
    """Ends the server with a signal once `after` signups were accepted, while more come in; answers all accepted."""
    accepted: list[str] = []
    threads = [threading.Thread(target=post_until_it_stops, args=(server, accepted, f"{prefix}-{n}")) for n in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(accepted) >= after)
    status = server.end(number)
    for thread in threads:
        thread.join()
    assert status == (0 if number == signal.SIGTERM else -number)
    return accepted


def test_each_kind_of_body_reaches_the_mailbox(server: Server) -> None:
    server.start()
    form = {"site": "bikes", "colour": "Green"}
    assert server.sign_up("json@example.com").status_code == 202
    urlencoded = HTTP.post(f"{server.url}/signup", data={**form, "email": "form@example.com"})
    multipart = HTTP.post(
        f"{server.url}/signup",
        files={name: (None, value) for name, value in {**form, "email": "parts@example.com"}.items()},
    )
    assert (urlencoded.status_code, urlencoded.headers["location"]) == (303, "/thanks/bikes")
    assert (multipart.status_code, multipart.headers["location"]) == (303, "/thanks/bikes")
    wait_until(delivered(server, ["json@example.com", "form@example.com", "parts@example.com"]))
    assert "Bike Shed" in HTTP.get(f"{server.url}/_mailbox/").text


def test_killed_right_after_the_202(forked: Server) -> None:
    forked.start()
    assert forked.sign_up("visitor@example.com").status_code == 202
    forked.end(signal.SIGKILL)
    forked.start()
    wait_until(delivered(forked, ["visitor@example.com"]))


def test_stopped_by_sigterm_under_load(forked: Server) -> None:
    forked.start()
    accepted = under_load(forked, "first", signal.SIGTERM, after=20)
    forked.start()
    wait_until(delivered(forked, accepted))
    mails = Counter(str(mail["Message-ID"]) for mail in forked.mails())
    assert max(mails.values()) == 1  # in order, so nothing is sent twice
    assert "Traceback" not in forked.log


def test_starts_and_keeps_mail_while_the_relay_is_down(environ: dict[str, str], forked: Server, tmp_path: Path) -> None:
    dead = ForkedServer({**environ, "DOORBELL_SMTP_URL": f"smtp://127.0.0.1:{free_port()}"}, tmp_path / "dead.log")
    dead.start()
    assert dead.sign_up("visitor@example.com").status_code == 202
    ready = HTTP.get(f"{dead.url}/readyz").json()
    assert (ready["ready"], ready["smtp"], ready["pending_mails"]) == (True, "unavailable", 2)
    assert "smtp.unavailable" in dead.log
    assert dead.end() == 0
    forked.start()  # the same data, a relay that works
    wait_until(delivered(forked, ["visitor@example.com"]))


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("DOORBELL_PORT", "many", "DOORBELL_PORT"),
        ("DOORBELL_SMTP_ULR", "smtp://x", "did you mean DOORBELL_SMTP_URL?"),
        ("DOORBELL_DATABASE_URL", "sqlite:////dev/null/doorbell.db", "/dev/null"),
    ],
)
def test_refuses_to_start_with_a_wrong_setting(
    environ: dict[str, str], tmp_path: Path, variable: str, value: str, says: str
) -> None:
    wrong = ForkedServer(environ, tmp_path / "wrong.log")
    wrong._environ[variable] = value
    assert wrong.launch().wait(timeout=30) == 1
    assert says in wrong.log
    assert "Traceback" not in wrong.log


def test_refuses_to_start_with_a_broken_site(server: Server, sites: Path) -> None:
    add_site(sites, "typo", 'title = "Typo"\ncolour = "red"\n')
    assert server.launch().wait(timeout=30) == 1
    assert "typo/site.toml: colour: unknown key" in server.log
    assert "Traceback" not in server.log


def test_refuses_to_start_on_a_port_that_is_taken(forked: Server, environ: dict[str, str], tmp_path: Path) -> None:
    forked.start()
    second = Server(environ, tmp_path / "second.log")
    second._environ["DOORBELL_PORT"] = str(forked.port)
    assert second.launch().wait(timeout=30) == 1
    assert "address already in use" in second.log
    assert "Traceback" not in second.log


def test_a_third_site_is_a_folder(forked: Server, sites: Path) -> None:
    add_site(sites, "third", 'title = "The Third"\n')
    forked.start()
    assert HTTP.get(f"{forked.url}/third/").status_code == 200
    assert "The Third" in HTTP.get(forked.url).text
    form = {"site": "third", "email": "visitor@example.com"}
    assert HTTP.post(f"{forked.url}/signup", json=form).status_code == 202
    wait_until(lambda: recipients(forked) == Counter({"visitor@example.com": 1}))


@pytest.mark.soak
def test_stops_when_told_so_at_any_moment_of_its_start(server: Server, soak: bool) -> None:
    for tenth in range(1, 12, 1 if soak else 2):
        process = server.launch()
        time.sleep(tenth / 10)
        process.terminate()
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)


@pytest.mark.soak
def test_killed_at_any_moment_of_its_first_start(server: Server, soak: bool) -> None:
    for tenth in range(3, 12, 1 if soak else 2):
        process = server.launch()
        time.sleep(tenth / 10)
        process.kill()
        process.wait()
        if tenth % 3:
            shutil.rmtree(server.data, ignore_errors=True)  # else what was half made must do
    server.start()
    assert server.sign_up("visitor@example.com").status_code == 202
    wait_until(delivered(server, ["visitor@example.com"]))


def test_data_is_for_its_owner_only(server: Server) -> None:
    server.start()
    assert server.data.stat().st_mode & 0o077 == 0


def test_request_that_never_ends_does_not_hold_up_the_stop(forked: Server) -> None:
    forked.start()
    with socket.create_connection(("127.0.0.1", forked.port)) as slow:
        slow.sendall(b"POST /signup HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        slow.sendall(b"Content-Length: 100\r\n\r\n{")
        wait_until(lambda: HTTP.get(f"{forked.url}/healthz").status_code == 200)
        assert forked.end() == 0
        assert slow.recv(100).startswith(b"HTTP/1.1 503 ")
    assert "Traceback" not in forked.log
