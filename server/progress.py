"""How far a long piece of work is: a bar on a terminal, plain lines elsewhere, nothing where it is soon over."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TextIO

Report = Callable[[int], None]
"""Takes how many are done so far; to be called about twice a second also where nothing has changed."""
Progress = Callable[[int], AbstractContextManager[Report]]
"""Takes how many there are to do; stands around the work."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Words:
    """What is done, while it is and when it was, and to what: `Words("Compressing", "Compressed", "files")`."""

    doing: str
    done: str
    things: str


_PATIENCE = 1.0  # seconds of work that nobody needs to hear of
_EVERY = 5.0  # seconds between two lines


@contextmanager
def silent(total: int) -> Iterator[Report]:
    """Progress that nobody sees."""
    yield lambda done: None


def on(
    stream: TextIO, words: Words, clock: Clock = time.monotonic
) -> Callable[[int | None], AbstractContextManager[Report]]:
    """Progress on `stream`, normally standard error: the bar where that is a terminal, else the lines. It also takes
    None, where nobody knows how many there are."""

    def progress(total: int | None) -> AbstractContextManager[Report]:
        return (_bar if _draws(stream) else _lines)(stream, words, clock, total)

    return progress


def aside(stream: TextIO, line: str) -> None:
    """Prints a line while there may be a bar: it takes the bar's place, and the bar is drawn again below."""
    print(f"\r\x1b[K{line}" if _draws(stream) else line, file=stream, flush=True)


def _draws(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _of(total: int | None) -> str:
    return "" if total is None else f" of {total:,}"


@contextmanager
def _lines(stream: TextIO, words: Words, clock: Clock, total: int | None) -> Iterator[Report]:
    started = clock()
    due = started + _PATIENCE
    seen = 0

    def report(done: int) -> None:
        nonlocal due, seen
        seen = done
        if (total is None or done < total) and clock() >= due:
            print(f"{words.doing} {done:,}{_of(total)} {words.things}", file=stream, flush=True)
            due = clock() + _EVERY

    yield report
    if clock() - started >= _PATIENCE:
        told = f"{words.done} {seen:,}{_of(total)} {words.things} in {clock() - started:.0f} s"
        print(told, file=stream, flush=True)


@contextmanager
def _bar(stream: TextIO, words: Words, clock: Clock, total: int | None) -> Iterator[Report]:
    due = clock() + _PATIENCE
    advance: Report | None = None

    with ExitStack() as shown:

        def report(done: int) -> None:
            nonlocal advance
            if advance is None and (total is None or done < total) and clock() >= due:
                advance = shown.enter_context(_rich(stream, words, total))
            if advance is not None:
                advance(done)

        yield report


@contextmanager
def _rich(stream: TextIO, words: Words, total: int | None) -> Iterator[Report]:
    # Imported here: it takes longer than a warm start's whole look into the cache, where no bar is shown.
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    text = TextColumn(f"{words.doing} {{task.completed:,.0f}}{_of(total)} {words.things}")
    # No redirection: it would exchange sys.stdout and sys.stderr under threads that are writing to them.
    columns = (text, BarColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(file=stream), redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)
