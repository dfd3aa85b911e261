"""What the static host is to reach, and whether this run did."""

from collections.abc import Iterable, Iterator
from statistics import median

from bench.large import PAGES, Memory, Start, many_key, one_key
from bench.rounds import Key, Results, S
from bench.sheet import Goal
from bench.wrk import Sample

Ratio = tuple[str, Key, Key, float | None]

_RATIOS: tuple[Ratio, ...] = (
    ("12 KB page / nginx", ("page", "lane"), ("page", "nginx"), 1.2),
    ("12 KB page / StaticFiles", ("page", "lane"), ("page", "staticfiles"), 40.0),
    ("negotiated page / nginx", ("negotiated", "lane"), ("negotiated", "nginx"), 1.1),
    ("304 / nginx", ("304", "lane"), ("304", "nginx"), 0.9),
    ("80 KB image / nginx", ("image", "lane"), ("image", "nginx"), 1.0),
    ("5 MB file / nginx", ("film", "lane"), ("film", "nginx"), 1.2),
    ("1 KB range / nginx", ("range", "lane"), ("range", "nginx"), 1.0),
    ("hosting/asgi.py / constant bytes with the same header", ("page", "asgi"), ("page", "bare"), 0.85),
    ("hosting/asgi.py / constant bytes with two header fields", ("page", "asgi"), ("page", "bare-2"), None),
    ("a file of 100,000 / a file of 10", (one_key(100_000), "lane"), (one_key(10), "lane"), 0.9),
    ("each visitor with a cookie / nginx", ("visitors", "lane"), ("visitors", "nginx"), None),
    ("100,000 files in turn / nginx", (many_key(100_000), "lane"), (many_key(100_000), "nginx"), None),
    ("100,000 files in turn / 10 in turn", (many_key(100_000), "lane"), (many_key(10), "lane"), None),
    ("100,000 files in turn / 10 in turn, nginx", (many_key(100_000), "nginx"), (many_key(10), "nginx"), None),
)
_START, _MEMORY = 3.0, 1.2


def goals(results: Results[Sample], start: Start | None, memory: Memory | None) -> list[Goal]:
    """The whole list."""
    return [*ratios(results, _RATIOS), _start(start), _memory(memory)]


def ratios(results: Results[S], wanted_ratios: Iterable[Ratio]) -> Iterator[Goal]:
    """A line for each: what, one scenario and server, over another, and the least that is wanted, or None."""
    for what, above, below, least in wanted_ratios:
        ratio = results.ratio(above, below)
        wanted = "for comparison" if least is None else f"≥ {least:g}"
        reached = None if ratio is None or least is None else ratio >= least
        by_time = results.ratio_by_time(above, below)
        got = "–" if ratio is None or by_time is None else f"{ratio:.2f} (by processor time {by_time:.2f})"
        yield Goal(what, wanted, got, reached)


def _start(start: Start | None) -> Goal:
    what, wanted = f"start with {PAGES:,} files, warm cache", f"≤ {_START:g} s"
    if start is None:
        return Goal(what, wanted, "–", None)
    seconds = median(start.seconds)
    return Goal(what, wanted, f"{seconds:.2f} s", seconds <= _START)


def _memory(memory: Memory | None) -> Goal:
    what, wanted = f"memory with {PAGES:,} files / cached bytes", f"≤ {_MEMORY:g}"
    if memory is None:
        return Goal(what, wanted, "–", None)
    large, empty, cached = (round(size / 2**20) for size in (memory.large, memory.empty, memory.cached))
    got = f"{memory.ratio:.2f} ({large} - {empty} MB, for {cached} MB)"
    return Goal(what, wanted, got, memory.ratio <= _MEMORY)
