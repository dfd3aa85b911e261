"""What a large site costs: its rate with many files, the time to start, and memory."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import material
from bench.peers import Launch, doorbell, nginx_command, nginx_config, program
from bench.process import Process, free_port, running
from bench.rounds import Plan, Results, run
from bench.scenarios import Cell
from bench.wire import WrongAnswer, check, fetch
from bench.wrk import Load, Sample

PAGES = 10_000
# More than a site of 12 KB pages and its variants need; the default is meant for one machine's usual sites.
_CACHE_MB = 1024
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds from exec to the first 200, start by start; `first` with an empty cache, where it was empty."""

    seconds: list[float]
    first: float | None


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: resident with the large and the empty site, and what of the large one is cached (files and variants)."""

    large: int
    empty: int
    cached: int

    @property
    def ratio(self) -> float:
        """What a cached byte costs."""
        return (self.large - self.empty) / self.cached


def many_key(count: int) -> str:
    """The scenario where all of `count` files are asked for in turn."""
    return f"many-{count}"


def one_key(count: int) -> str:
    """The scenario where one of `count` files is asked for."""
    return f"one-{count}"


def many(
    work: Path, counts: list[int], servers: list[str], plan: Plan, results: Results[Sample], say: Say, step: Say
) -> None:
    """The rate while one file of a site is asked for, and all in turn, for sites of several sizes."""
    with ExitStack() as stack:
        cells: list[Cell] = []
        for count in counts:
            say(f"a site of {count:,} files of 1 KB")
            public = material.many_site(work, count)
            if "lane" in servers:
                launch = _doorbell_many(work, count, say, stack)
                cells += _many_cells(count, "lane", *launch, "/bench/", plan, stack, work)
            if "nginx" in servers and program("nginx"):
                port = free_port()
                config = nginx_config(port, public, work / f"nginx-{count}")
                nginx = Launch(nginx_command(config))
                cells += _many_cells(count, "nginx", port, nginx, "/", plan, stack, work)
        run(cells, plan, results, step)


def _doorbell_many(work: Path, count: int, say: Say, stack: ExitStack) -> tuple[int, Launch]:
    port = free_port()
    data = work / "data" / f"many-{count}"
    launch = doorbell(port, work / "sites" / f"many-{count}", data, _CACHE_MB)
    if not (data / ".warm").exists():
        # Compressing takes all cores; afterwards the server itself is pinned to one.
        say("  Doorbell reads and compresses it for the first time")
        _start(work, launch, port, None, f"/bench/{material.many_name(0)}")
        (data / ".warm").touch()
    return port, launch


def _many_cells(
    count: int, server: str, port: int, launch: Launch, prefix: str, plan: Plan, stack: ExitStack, work: Path
) -> list[Cell]:
    process = stack.enter_context(started(work, f"{server}-{count}", launch, plan.server_core))
    process.wait_for(port)
    for number in (0, count // 2, count - 1):
        answer = fetch(port, prefix + material.many_name(number), {})
        check(answer, status=200, content=material.small(number), encoded=False)
    turns = ((one_key(count), 1), (many_key(count), count))
    return [
        Cell(key, server, process, Load(port, prefix, {}, answer.size, (str(asked), prefix)), body=len(answer.body))
        for key, asked in turns
    ]


def started(work: Path, name: str, launch: Launch, core: int | None) -> AbstractContextManager[Process]:
    """`launch`, running in the work folder (where there is no .env to read)."""
    folder = work / "cwd"
    folder.mkdir(parents=True, exist_ok=True)
    return running(
        name,
        launch.command,
        environment=launch.full_environment(),
        folder=folder,
        core=core,
        log=work / "logs" / f"{name}.log" if launch.logged else None,
    )


def _start(work: Path, launch: Launch, port: int, core: int | None, target: str) -> float:
    begun = time.perf_counter()
    with started(work, "doorbell-start", launch, core) as process:
        process.wait_for(port)
        status = fetch(port, target, {}).status
        took = time.perf_counter() - begun
        if status != 200:
            raise WrongAnswer(f"{target} answers {status} after the start")
    return took


def start_time(work: Path, times: int, say: Say, step: Say) -> Start:
    """Starts Doorbell with 10,000 pages, first to fill its cache, then to take the time. On any core, as it would."""
    data = work / "data" / f"pages-{PAGES}"
    port = free_port()
    material.pages_site(work, PAGES)
    launch = doorbell(port, work / "sites" / f"pages-{PAGES}", data, _CACHE_MB)
    first = None
    if not (data / ".warm").exists():
        say(f"a site of {PAGES:,} pages of 12 KB: Doorbell reads and compresses it for the first time")
        first = _start(work, launch, port, None, "/bench/")
        (data / ".warm").touch()
    seconds = []
    for _ in range(times):
        step("start")
        seconds.append(_start(work, launch, port, None, "/bench/"))
    return Start(seconds, first)


def memory(work: Path, times: int, step: Say) -> Memory:
    """Resident memory with 10,000 pages and with an empty site; medians. Call it after `start_time`."""
    material.empty_site(work)
    found: dict[str, int] = {}
    for name in (f"pages-{PAGES}", "empty"):
        step(f"memory {name}")
        sizes = [_resident(work, name) for _ in range(times)]
        found[name] = int(median(sizes))
    cached = _cached(work, f"pages-{PAGES}") - _cached(work, "empty")
    return Memory(found[f"pages-{PAGES}"], found["empty"], cached)


def _resident(work: Path, name: str) -> int:
    port = free_port()
    launch = doorbell(port, work / "sites" / name, work / "data" / name, _CACHE_MB)
    with started(work, f"doorbell-{name}", launch, None) as process:
        process.wait_for(port)
        fetch(port, "/bench/", {})
        _settled(process)
        return process.resident_bytes()


def _settled(process: Process) -> None:
    """Waits for what starts after the first answer, a second at most."""
    for _ in range(10):
        before = process.cpu_seconds()
        time.sleep(0.1)
        if process.cpu_seconds() - before < 0.01:
            return


def _cached(work: Path, name: str) -> int:
    """Bytes of a site's files and of their variants in Doorbell's cache."""
    folders = (work / "sites" / name / "bench" / "public", work / "data" / name / "cache")
    return sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())
