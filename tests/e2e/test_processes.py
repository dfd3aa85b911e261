"""Several workers: one server from outside, whichever of them answers, whoever of them dies."""

import os
import re
import signal
import socket
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from tests.conftest import SITE_TOML, add_site
from tests.e2e.conftest import HTTP, Server, free_port, wait_until
from tests.e2e.test_process import delivered
from tests.e2e.test_reload import publish, reloaded_under_load
from tests.e2e.visitors import Visitors

pytestmark = pytest.mark.e2e

T = TypeVar("T")


class Pair(Server):
    """`serve --workers 2`."""

    command: tuple[str, ...] = ("serve", "--workers", "2")

    def start(self) -> None:
        """Waits until both listen."""
        process = self.launch()

        def up() -> bool:
            assert process.poll() is None, self.log
            return "Doorbell is ready" in self.log

        wait_until(up)

    @property
    def workers(self) -> list[int]:
        """Their process ids, the oldest first."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if "spawn_main" in line(int(pid))]

    @contextmanager
    def at(self, which: int) -> Iterator[httpx.Client]:
        """A client with a connection to this worker: which of them gets one is the kernel's choice."""
        while True:
            with httpx.Client(base_url=self.url) as client:
                stream = client.get("/healthz").extensions["network_stream"]
                if which in self.serving(stream.get_extra_info("client_addr")[1]):
                    yield client
                    return

    def _serves(self, pid: int, port: int) -> bool:
        """Whether this process has the connection that comes from `port`."""
        ends = (f":{self.port:04X}", f":{port:04X}")
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        inodes = [line[9] for line in lines if line[1].endswith(ends[0]) and line[2].endswith(ends[1])]
        held = {os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()}
        return any(f"socket:[{inode}]" in held for inode in inodes)

    def serving(self, port: int) -> list[int]:
        """Which workers have the connection that comes from `port`; none while it is not accepted."""
        return [which for which, pid in enumerate(self.workers) if self._serves(pid, port)]

    def by_each(self, ask: Callable[[httpx.Client], T]) -> list[T]:
        """What each of them answers."""
        answers = []
        for which in (0, 1):
            with self.at(which) as client:
                answers.append(ask(client))
        return answers

    def settled(self) -> bool:
        """Whether no mail waits."""
        return self.query("SELECT count(*) FROM outbox WHERE state = 'pending'") == [(0,)]

    def metrics(self, client: httpx.Client | None = None) -> dict[str, float]:
        """Every sample that `/metrics` tells."""
        lines = (client or HTTP).get(f"{self.url}/metrics").text.splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
        return {name: float(number) for name, number in pairs}

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.data / "doorbell.db", isolation_level=None, timeout=60)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()


def line(pid: int) -> str:
    """The command line of a process; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def gone(pid: int) -> bool:
    return not line(pid)  # nor is there one of a process that has ended and waits for its parent


@pytest.fixture
def pair(environ: dict[str, str], tmp_path: Path) -> Iterator[Pair]:
    """Not started yet; ended with the test."""
    pair = Pair(environ, tmp_path / "server.log")
    yield pair
    pair.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """One that runs, for tests that leave it as it was."""
    root = tmp_path_factory.mktemp("workers")
    add_site(root / "sites", "bikes", SITE_TOML)
    add_site(root / "sites", "few", 'title = "Few"\n[signup]\nclient_limit = "3 per hour"\n')
    pair = Pair({"DOORBELL_SITES_DIR": str(root / "sites"), "DOORBELL_DATA_DIR": str(root / "var")}, root / "log")
    pair.start()
    yield pair
    assert pair.end() == 0
    assert "Traceback" not in pair.log


# -- the start -----------------------------------------------------------------------------------------------------


def test_a_new_folder_is_made_once_and_greeted_once(shared: Pair) -> None:
    assert len(shared.workers) == 2
    assert [shared.log.count(once) for once in ("Doorbell is ready", "database.migrated")] == [1, 1]
    assert [file.name for file in shared.data.iterdir() if file.name.startswith("secret.key")] == ["secret.key"]
    assert shared.by_each(lambda client: client.get("/bikes/").text) == ["<!doctype html><title>bikes</title>"] * 2


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("DOORBELL_WORKERS", "0", "DOORBELL_WORKERS"),
        ("DOORBELL_DATABASE_URL", "sqlite:////dev/null/doorbell.db", "/dev/null"),
        ("DOORBELL_SITES_DIR", "/dev/null", "/dev/null"),
    ],
)
def test_what_is_wrong_is_said_once(pair: Pair, variable: str, value: str, says: str) -> None:
    pair._environ[variable] = value
    pair.command = ("serve",) if variable == "DOORBELL_WORKERS" else pair.command
    assert pair.launch().wait(timeout=60) == 1
    assert len([line for line in pair.log.splitlines() if says in line]) == 1
    assert "Traceback" not in pair.log


def test_a_broken_site_is_said_once(pair: Pair, sites: Path) -> None:
    add_site(sites, "typo", 'title = "Typo"\ncolour = "red"\n')
    assert pair.launch().wait(timeout=60) == 1
    assert pair.log.count("typo/site.toml: colour: unknown key") == 1
    assert "Traceback" not in pair.log and "ready" not in pair.log


def test_a_port_that_is_taken_is_said_once(shared: Pair, pair: Pair) -> None:
    pair._environ["DOORBELL_PORT"] = str(shared.port)
    assert pair.launch().wait(timeout=60) == 1
    assert pair.log.lower().count("address already in use") == 1
    assert "Traceback" not in pair.log


def test_a_worker_that_is_killed_while_it_starts_ends_the_command(pair: Pair) -> None:
    process = pair.launch()
    wait_until(lambda: bool(pair.workers))
    os.kill(pair.workers[0], signal.SIGKILL)
    assert process.wait(timeout=60) == 1
    assert len([line for line in pair.log.splitlines() if "process.died" in line and "status=-9" in line]) == 1
    assert "Traceback" not in pair.log


def test_reload_is_refused(pair: Pair) -> None:
    pair.command = ("serve", "--workers", "2", "--reload")
    assert pair.launch().wait(timeout=60) == 1
    assert "--reload is for one process" in pair.log
    assert "Traceback" not in pair.log


# -- one server, whichever answers ---------------------------------------------------------------------------------


def test_connections_that_come_at_once_are_shared(shared: Pair) -> None:
    with ExitStack() as stack:
        made = [stack.enter_context(socket.create_connection(("127.0.0.1", shared.port))) for _ in range(64)]
        ports = [connection.getsockname()[1] for connection in made]
        wait_until(lambda: all(shared.serving(port) for port in ports))
        assert {which for port in ports for which in shared.serving(port)} == {0, 1}


def test_limits_count_over_both(shared: Pair) -> None:
    def post(client: httpx.Client) -> int:
        form = {"site": "few", "email": "somebody@example.com"}
        return client.post("/signup", json=form).status_code

    with shared.at(0) as one, shared.at(1) as other:
        assert [post(client) for client in (one, one, other, other, one)] == [202, 202, 202, 429, 429]


def test_a_key_of_one_is_known_to_the_other(shared: Pair) -> None:
    def post(client: httpx.Client) -> int:
        form = {"site": "bikes", "email": "again@example.com", "colour": "Red"}
        return client.post("/signup", json=form, headers={"idempotency-key": "of-a-test"}).status_code

    assert shared.by_each(post) == [202, 202]
    assert shared.query("SELECT count(*) FROM signups WHERE email = 'again@example.com'") == [(1,)]


def test_each_mail_goes_once_and_either_shows_all(shared: Pair) -> None:
    visitors = Visitors(shared.url, "many")
    with visitors.posting(2):
        wait_until(lambda: len(visitors.accepted) >= 30)
    wait_until(shared.settled)
    caught = Counter(str(mail["Message-ID"]) for mail in shared.mails())
    assert max(caught.values()) == 1
    assert {id for (id,) in shared.query("SELECT message_id FROM outbox WHERE state = 'sent'")} == set(caught)
    shown = shared.by_each(lambda client: client.get("/_mailbox/").text)
    assert shown[0] == shown[1]
    assert re.search(rf"\b{len(caught)}\b", shown[0])


def test_metrics_and_readiness_are_those_of_both(shared: Pair) -> None:
    name = 'doorbell_http_requests_total{route="thanks",status="200"}'
    shared.by_each(lambda client: client.get("/thanks/bikes").status_code)
    shared.by_each(lambda client: client.get("/bikes/").status_code)
    files = 'doorbell_http_requests_total{route="files",status="200"}'
    wait_until(lambda: min(told[files] for told in shared.by_each(shared.metrics)) >= 2)  # published each second
    (posted,) = shared.query("SELECT count(*) FROM signups WHERE site = 'bikes'")[0]
    for told in shared.by_each(shared.metrics):
        assert told["doorbell_processes"] == 2
        assert told[name] == 2
        assert told["doorbell_smtp_pool_connections_max"] == 8
        assert told['doorbell_signups_total{site="bikes"}'] >= posted
    ready = shared.by_each(lambda client: client.get("/readyz").json())
    assert [(answer["ready"], answer["pool"]["size"]) for answer in ready] == [(True, 8), (True, 8)]


def test_relay_that_cannot_be_reached_is_told_by_both_and_secrets_by_none(pair: Pair) -> None:
    pair._environ["DOORBELL_SECRET_KEY"] = "a-secret-that-is-long"
    pair._environ["DOORBELL_SMTP_URL"] = f"smtp://me:pass-word@127.0.0.1:{free_port()}"
    pair.start()
    said = pair.log + "".join(map(line, pair.workers))
    assert "spawn_main" in said
    assert "a-secret-that" not in said and "pass-word" not in said

    def ready(client: httpx.Client) -> tuple[str, str]:
        answer = client.get("/readyz").json()
        return answer["smtp"], answer["breaker"]

    wait_until(lambda: pair.by_each(ready) == [("unavailable", "open")] * 2)
    assert [told["doorbell_smtp_breaker_open"] for told in pair.by_each(pair.metrics)] == [1, 1]
    assert pair.end() == 0


# -- signals -------------------------------------------------------------------------------------------------------


def test_sighup_under_load_drops_nothing_and_reaches_all(pair: Pair, sites: Path) -> None:
    publish(sites, 0)
    pair.start()
    assert pair.process is not None
    before = pair.workers
    assert reloaded_under_load(pair, sites, 5) == [[]] * 4

    def newest(client: httpx.Client) -> bool:
        return "generation 000005" in client.get("/bikes/").text

    wait_until(lambda: pair.by_each(newest) == [True, True])
    assert pair.workers == before  # in place
    (sites / "bikes" / "site.toml").write_text("title = ")
    pair.process.send_signal(signal.SIGHUP)
    wait_until(lambda: pair.log.count("sites.kept") == 2)
    assert pair.by_each(newest) == [True, True]
    assert pair.metrics()['doorbell_sites_loads_total{outcome="kept"}'] == 2
    assert pair.end() == 0
    assert "Traceback" not in pair.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_stop_when_told_so_under_load(pair: Pair, forked: Server, number: int) -> None:
    pair.start()
    assert pair.process is not None
    workers = pair.workers
    visitors = Visitors(pair.url, "first")
    with visitors.posting(3):
        wait_until(lambda: len(visitors.accepted) >= 20)
        for pid in workers if number == signal.SIGINT else []:
            os.kill(pid, number)  # Ctrl+C: the terminal signals all of them
        assert pair.end(number) == 0
    wait_until(lambda: all(map(gone, workers)))
    assert "Traceback" not in pair.log
    assert "process.died" not in pair.log
    forked.start()  # for what they have left
    wait_until(pair.settled)
    kept = {email for (email,) in pair.query("SELECT email FROM signups")}
    assert set(visitors.accepted) <= kept
    assert max(Counter(str(mail["Message-ID"]) for mail in pair.mails()).values()) == 1


# -- deaths --------------------------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_and_no_signup_is_lost(pair: Pair) -> None:
    pair.start()
    visitors = Visitors(pair.url, "some")
    victim, other = pair.workers
    with visitors.posting(3):
        wait_until(lambda: len(visitors.accepted) >= 20)
        os.kill(victim, signal.SIGKILL)
        so_far = len(visitors.accepted)
        wait_until(lambda: len(visitors.accepted) >= so_far + 20)  # the other goes on
        wait_until(lambda: len(pair.workers) == 2)
    assert other in pair.workers and victim not in pair.workers
    wait_until(lambda: pair.metrics()["doorbell_processes"] == 2)
    wait_until(lambda: _all_mailed(pair, visitors.accepted), seconds=100)
    assert pair.log.count("process.died") == 1
    assert pair.log.count("Doorbell is ready") == 1
    assert pair.metrics()['doorbell_signups_total{site="bikes"}'] >= len(visitors.accepted)  # what the dead one counted
    assert pair.end() == 0
    assert "Traceback" not in pair.log


def test_workers_that_cannot_start_again_are_tried_later_and_the_others_serve(pair: Pair, sites: Path) -> None:
    pair.start()
    victim, _ = pair.workers
    toml = sites / "bikes" / "site.toml"
    toml.write_text("title = ")
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: "start.failed" in pair.log)
    assert HTTP.get(f"{pair.url}/bikes/").status_code == 200
    toml.write_text(SITE_TOML)
    wait_until(lambda: pair.metrics()["doorbell_processes"] == 2)
    assert pair.end() == 0


def test_a_job_is_done_once_by_workers_that_start_together(pair: Pair) -> None:
    runs = 'doorbell_job_runs_total{job="digest",outcome="success"}'
    pair.start()
    wait_until(lambda: pair.metrics()[runs] == 1)
    pair.query("UPDATE jobs SET due_at = 0")
    before = pair.workers
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(pair.workers) == 2 and not set(pair.workers) & set(before))
    wait_until(pair.answers)
    wait_until(lambda: pair.metrics()["doorbell_processes"] == 2)
    wait_until(lambda: pair.query("SELECT count(*) FROM jobs WHERE due_at = 0") == [(0,)])
    assert pair.metrics()[runs] == 2
    assert pair.end() == 0


def test_workers_end_with_their_parent(pair: Pair) -> None:
    pair.start()
    workers = pair.workers
    assert pair.sign_up("visitor@example.com").status_code == 202
    pair.end(signal.SIGKILL)
    wait_until(lambda: all(map(gone, workers)))
    pair._log.write_text("")
    pair.start()  # the port is free
    wait_until(delivered(pair, ["visitor@example.com"]))
    assert pair.end() == 0


def _all_mailed(pair: Pair, accepted: list[str]) -> bool:
    sent = {email for (email,) in pair.query("SELECT recipient FROM outbox WHERE state = 'sent'")}
    return set(accepted) <= sent and pair.settled()
