"""The bench's own promises: only right answers count, and ratios are taken round by round."""

import gzip
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bench import material
from bench.process import Process, running
from bench.rounds import Results
from bench.wire import WrongAnswer, check, fetch
from bench.wrk import Sample, _judge


def says(answer: bytes) -> int:
    """The port of a server that says `answer` to one request."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def test_a_chunked_answer_is_put_together() -> None:
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    answer = fetch(says(whole), "/", {})
    assert (answer.status, answer.body, answer.size) == (200, b"abcde", len(whole))


def test_a_short_answer_is_wrong() -> None:
    with pytest.raises(WrongAnswer, match="closed in the middle"):
        fetch(says(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"), "/", {})


def test_an_encoded_answer_is_compared_decoded() -> None:
    packed = gzip.compress(b"page")
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
    answer = fetch(says(head + packed), "/", {})
    check(answer, status=200, content=b"page", encoded=True)
    with pytest.raises(WrongAnswer, match="not the right ones"):
        check(answer, status=200, content=b"other", encoded=True)
    with pytest.raises(WrongAnswer, match="in the encoding gzip"):
        check(answer, status=200, content=b"page", encoded=False)


@pytest.mark.parametrize("fault", [{"refused": 1}, {"timeout": 2}, {"bytes": 50_000}, {"bytes": 500_000}])
def test_a_measurement_with_a_fault_does_not_count(fault: dict[str, int]) -> None:
    counts = {"requests": 1000, "bytes": 100_500, "refused": 0, "connect": 0, "read": 0, "write": 0, "timeout": 0}
    _judge(counts, 100)
    with pytest.raises(WrongAnswer):
        _judge(counts | fault, 100)


def test_a_ratio_is_the_median_of_the_ratios_within_rounds() -> None:
    def samples(*rates: float) -> list[Sample]:
        return [Sample(rate, 1e6 / rate, 1, 0, 0) for rate in rates]

    results = Results(samples={("page", "a"): samples(10, 60, 30), ("page", "b"): samples(10, 20, 20)})
    assert results.ratio(("page", "a"), ("page", "b")) == 1.5
    assert results.ratio(("page", "a"), ("page", "c")) is None


def test_material_is_the_same_each_time_and_has_its_size() -> None:
    assert material.page(7) == material.page(7) != material.page(8)
    assert (len(material.page(7)), len(material.small(7))) == (12 * 1024, 1024)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_a_program_leaves_behind_is_ended_and_nothing_else(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "300"])
    try:
        with running(
            "left",
            ["sh", "-c", "sleep 300 & echo $! > child; exec sleep 300"],
            environment={"PATH": "/bin:/usr/bin"},
            folder=tmp_path,
            core=None,
            log=None,
        ) as process:
            child = _written(tmp_path / "child")
            assert isinstance(process, Process)
        assert _ends(child)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def _written(file: Path) -> int:
    for _ in range(200):
        if file.exists() and (text := file.read_text().strip()):
            return int(text)
        threading.Event().wait(0.02)
    raise AssertionError(f"{file} was not written")


def _ends(pid: int) -> bool:
    """It was sent its signal, and may take a moment to go."""
    for _ in range(500):
        if not _alive(pid):
            return True
        threading.Event().wait(0.02)
    return False


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
