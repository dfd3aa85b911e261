"""An import beside a running server, and one that is interrupted."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.jobs.intake import BATCH
from tests.conftest import REPOSITORY
from tests.e2e.conftest import Server, wait_until
from tests.e2e.test_operator import alter
from tests.provision import furnish

pytestmark = pytest.mark.e2e

ROWS = 2 * BATCH + 500


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    return {**environ, "DOORBELL_LIMITS": "off"}


def lines(count: int) -> bytes:
    return b"email,colour\n" + b"".join(b"imported-%d@example.com,Red\n" % number for number in range(count))


@contextmanager
def importing(environ: dict[str, str], out: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command, which waits for rows."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DOORBELL_")}
    command = [sys.executable, "-m", "server", "import", "bikes", "-", *options]
    with (
        out.open("wb") as output,
        out.with_suffix(".errors").open("wb") as errors,
        subprocess.Popen(
            command, cwd=REPOSITORY, env={**clean, **environ}, stdin=subprocess.PIPE, stdout=output, stderr=errors
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def imported(server: Server) -> int:
    [[count]] = alter(server, "SELECT count(*) FROM signups WHERE email LIKE 'imported-%'")
    return int(count)


def test_interrupted_leaves_whole_batches_and_goes_on_from_there(
    server: Server, environ: dict[str, str], tmp_path: Path
) -> None:
    furnish(server.data)
    out = tmp_path / "out"
    with importing(environ, out) as process:
        assert process.stdin is not None
        process.stdin.write(lines(ROWS))
        process.stdin.flush()
        # The last of them are not written: it waits for a batch to be full.
        wait_until(lambda: imported(server) == 2 * BATCH)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert out.read_text() == f"{2 * BATCH:,} imported, 0 were there already, 0 refused.\n"
    assert out.with_suffix(".errors").read_text().endswith("Interrupted: the same command goes on from there.\n")
    assert imported(server) == 2 * BATCH
    with importing(environ, out) as process:
        process.communicate(lines(ROWS), timeout=60)
        assert process.returncode == 0, out.read_text()
    assert out.read_text() == f"500 imported, {2 * BATCH:,} were there already, 0 refused.\n"
    assert imported(server) == ROWS


def test_killed_leaves_whole_batches(server: Server, environ: dict[str, str], tmp_path: Path) -> None:
    furnish(server.data)
    with importing(environ, tmp_path / "out") as process:
        assert process.stdin is not None
        process.stdin.write(lines(ROWS))
        process.stdin.flush()
        wait_until(lambda: imported(server) > 0)
        process.kill()
        process.wait(timeout=60)
    assert imported(server) % BATCH == 0


def test_signups_are_taken_meanwhile(forked: Server, environ: dict[str, str], tmp_path: Path) -> None:
    forked.start()
    answers: list[int] = []
    over = threading.Event()

    def post() -> None:
        while not over.is_set():
            answers.append(forked.sign_up(f"visitor-{len(answers)}@example.com").status_code)

    posting = threading.Thread(target=post)
    posting.start()
    try:
        with importing(environ, tmp_path / "out") as process:
            process.communicate(lines(10 * BATCH), timeout=100)
            assert process.returncode == 0, (tmp_path / "out").read_text()
    finally:
        over.set()
        posting.join()
    assert imported(forked) == 10 * BATCH and set(answers) == {202}
    [[visitors]] = alter(forked, "SELECT count(*) FROM signups WHERE email LIKE 'visitor-%'")
    assert visitors == len(answers)
