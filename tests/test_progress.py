import io
import os
import pty
from collections.abc import Callable

import pytest

from server import progress
from server.progress import Words

COMPRESSING = Words("Compressing", "Compressed", "files")


class Clock:
    """Time that passes when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(stream: io.StringIO, seconds: list[float], stop: int | None = None) -> str:
    """What is shown of as many files as there are figures, each of which takes so many seconds."""
    clock = Clock()
    with progress.on(stream, COMPRESSING, clock)(len(seconds)) as report:
        for done, taken in enumerate(seconds[:stop], 1):
            clock.now += taken
            report(done)
    return stream.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_soon_over_shows_nothing(stream: Callable[[], io.StringIO]) -> None:
    assert work(stream(), [0.0001] * 9000) == ""


def test_lines_elsewhere_are_few_and_end_with_one() -> None:
    assert work(io.StringIO(), [0.01] * 1200) == (
        "Compressing 100 of 1,200 files\n"
        "Compressing 600 of 1,200 files\n"
        "Compressing 1,100 of 1,200 files\n"
        "Compressed 1,200 of 1,200 files in 12 s\n"
    )


def test_one_slow_file_is_reported_at_its_end_only() -> None:
    assert work(io.StringIO(), [8.0]) == "Compressed 1 of 1 files in 8 s\n"


def test_broken_off_says_how_far_it_came() -> None:
    assert work(io.StringIO(), [2.0] * 10, stop=1).endswith("Compressed 1 of 10 files in 2 s\n")


def test_silent_takes_reports() -> None:
    with progress.silent(3) as report:
        report(1)


def test_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert work(Terminal(), [2.0]) == "Compressed 1 of 1 files in 2 s\n"


def test_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    ours, theirs = pty.openpty()
    clock = Clock()
    with open(theirs, "w", encoding="utf-8") as stream:
        with progress.on(stream, COMPRESSING, clock)(10_000) as report:
            clock.now += 2
            report(132)
        shown = ""
        while "Compressing 132 of 10,000 files" not in shown:  # it comes in pieces
            shown += os.read(ours, 65536).decode()
    os.close(ours)


def test_nobody_knows_how_much_there_is() -> None:
    clock, stream = Clock(), io.StringIO()
    with progress.on(stream, COMPRESSING, clock)(None) as report:
        for done in (1, 2):
            clock.now += 2
            report(done)
    assert stream.getvalue() == "Compressing 1 files\nCompressed 2 files in 4 s\n"


def test_line_aside_takes_the_place_of_the_bar() -> None:
    for stream, shown in ((io.StringIO(), "one\n"), (Terminal(), "\r\x1b[Kone\n")):
        progress.aside(stream, "one")
        assert stream.getvalue() == shown
