"""The disk is full, or another holds the database's lock: visitors are told to come back, nothing is half written, and
when it is over all goes on by itself."""

import resource
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import skip_or_fail
from tests.e2e.conftest import HTTP, wait_until
from tests.e2e.relay import CONNECTIONS, Gate, Place, placed
from tests.smtpd import Smtpd, accept

pytestmark = pytest.mark.e2e

FORM = {"site": "bikes", "email": "patient@example.com", "colour": "Red", "message": "Typed with care"}


def with_mail_on_its_way(place: Place) -> tuple[list[str], Gate]:
    """A server that runs, as many mails as it has connections on their way, and the gate where they stand."""
    gate = Gate(accept)
    place.smtpd.on("dot", gate)
    place.server.start()
    accepted = place.sign_up("before-1", "before-2")
    wait_until(lambda: gate.stopped == CONNECTIONS)
    return accepted, gate


def signups_until_refused(place: Place) -> tuple[list[str], httpx.Response]:
    """Signs up until the answer is another than 202: the database may have some room left in its files."""
    accepted: list[str] = []
    for _ in range(500):
        email = f"room-{time.monotonic_ns()}@example.com"
        answer = HTTP.post(f"{place.server.url}/signup", json={**FORM, "email": email}, timeout=60)
        if answer.status_code != 202:
            return accepted, answer
        accepted.append(email)
    raise AssertionError("there was room for all")


def check_that_visitors_are_told(place: Place, answer: httpx.Response) -> None:
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 503
    url = place.server.url
    with ThreadPoolExecutor() as at_once:  # each may wait for the lock as long as it can
        posting = at_once.submit(httpx.post, f"{url}/signup", data=FORM, headers={"Accept": "text/html"}, timeout=60)
        ready = at_once.submit(httpx.get, f"{url}/readyz", timeout=60).result()
        page = posting.result()
    assert page.status_code == 503
    assert int(page.headers["retry-after"]) > 0
    assert "Typed with care" in page.text and "patient@example.com" in page.text
    assert (ready.status_code, ready.json()["ready"], ready.json()["database"]) == (503, False, "unavailable")
    assert HTTP.get(f"{url}/healthz").status_code == 200
    assert "<title>bikes</title>" in HTTP.get(f"{url}/bikes/").text


def check_that_it_recovers(place: Place, accepted: list[str]) -> None:
    wait_until(lambda: HTTP.get(f"{place.server.url}/readyz", timeout=60).status_code == 200)
    place.check(accepted + place.sign_up("after"))
    assert place.query("SELECT count(*) FROM signups WHERE email = $1", FORM["email"]) == [(0,)]
    # No other process was there to take the rows over: what was on its way is written down, and not sent again.
    assert place.doubles == 0
    assert place.server.end() == 0
    assert "Traceback" not in place.server.log


@contextmanager
def tiny_disk(folder: Path) -> Iterator[None]:
    """A file system of its own with room for little more than an empty database."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        skip_or_fail(f"a small file system cannot be mounted: {getattr(error, 'stderr', error)}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def test_disk_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with (
        tiny_disk(disk),
        placed(tmp_path, Smtpd(), DATABASE_URL=f"sqlite:///{disk / 'doorbell.db'}") as place,
    ):
        place.database = disk / "doorbell.db"
        accepted, gate = with_mail_on_its_way(place)
        fill(disk / "ballast")
        more, answer = signups_until_refused(place)
        check_that_visitors_are_told(place, answer)
        gate.open()
        wait_until(lambda: len(place.smtpd.mails) >= CONNECTIONS)
        wait_until(lambda: "outbox.settle_failed" in place.server.log)
        again, answer = signups_until_refused(place)
        check_that_visitors_are_told(place, answer)
        (disk / "ballast").unlink()
        check_that_it_recovers(place, accepted + more + again)


def test_file_may_not_grow(tmp_path: Path) -> None:
    """The same by a limit of the process (EFBIG in place of ENOSPC), which needs no rights."""
    with placed(tmp_path, Smtpd()) as place:
        accepted, gate = with_mail_on_its_way(place)
        assert place.server.process is not None
        pid = place.server.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        log = place.database.with_name("doorbell.db-wal")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (log.stat().st_size, hard))
        more, answer = signups_until_refused(place)
        check_that_visitors_are_told(place, answer)
        gate.open()
        wait_until(lambda: len(place.smtpd.mails) >= CONNECTIONS)
        wait_until(lambda: "outbox.settle_failed" in place.server.log)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        check_that_it_recovers(place, accepted + more)


def test_locked_for_longer_than_it_waits(tmp_path: Path) -> None:
    with placed(tmp_path, Smtpd()) as place:
        accepted, gate = with_mail_on_its_way(place)
        with place.locked() as connection:
            gate.open()
            none, answer = signups_until_refused(place)
            assert none == []
            check_that_visitors_are_told(place, answer)
            wait_until(lambda: "outbox.settle_failed" in place.server.log)
            # as after a lock of minutes
            connection.execute("UPDATE outbox SET lease_until = 0 WHERE lease_until IS NOT NULL")
        check_that_it_recovers(place, accepted)
