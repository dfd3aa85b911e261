"""The measuring: round after round over all cells of a group, so that what disturbs the machine hits all alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Generic, Protocol, TypeVar

from bench.process import ProcessError
from bench.scenarios import Cell
from bench.wire import WrongAnswer
from bench.wrk import NoAnswer, Sample, measure

Key = tuple[str, str]


class Measured(Protocol):
    """A sample: how many a second, and the server's processor time for one."""

    @property
    def rate(self) -> float: ...

    @property
    def cpu_microseconds(self) -> float: ...


T = TypeVar("T")
S = TypeVar("S", bound=Measured)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how often and where."""

    rounds: int
    seconds: int
    server_core: int
    wrk_core: int


@dataclass(frozen=True, slots=True)
class Rounds(Generic[T]):
    """By scenario and server: the samples by round, and why there are none."""

    samples: dict[Key, list[T]] = field(default_factory=dict)
    failures: dict[Key, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Results(Rounds[S]):
    """The same of samples that can be compared, and the cells that wrk asked."""

    cells: dict[Key, Cell] = field(default_factory=dict)

    def rate(self, scenario: str, server: str) -> float | None:
        """The median of requests a second."""
        samples = self.samples.get((scenario, server))
        return median(sample.rate for sample in samples) if samples else None

    def ratios(self, above: Key, below: Key) -> list[float]:
        """`above` over `below`, round by round; empty where one of them is not there."""
        pairs = zip(self.samples.get(above, []), self.samples.get(below, []), strict=False)
        return [one.rate / other.rate for one, other in pairs]

    def ratio_by_time(self, above: Key, below: Key) -> float | None:
        """The same by processor time for a request, which other programs on the machine touch little."""
        medians = [
            median(sample.cpu_microseconds for sample in found)
            for key in (above, below)
            if (found := self.samples.get(key))
        ]
        return medians[1] / medians[0] if len(medians) == 2 and medians[0] else None

    def ratio(self, above: Key, below: Key) -> float | None:
        """The median of `ratios`."""
        found = self.ratios(above, below)
        return median(found) if found else None


def run(cells: Sequence[Cell], plan: Plan, results: Results[Sample], step: Callable[[str], None]) -> None:
    """Measures `cells` with wrk and adds to `results`."""
    alive = {(cell.scenario, cell.server): cell for cell in cells}
    results.cells.update(alive)
    turns({key: partial(_asked, cell, plan) for key, cell in alive.items()}, plan.rounds, results, step)


def _asked(cell: Cell, plan: Plan, warm_up: bool) -> Sample:
    return measure(cell.load, cell.process, 1 if warm_up else plan.seconds, plan.server_core, plan.wrk_core)


def turns(
    measures: Mapping[Key, Callable[[bool], T]], rounds: int, results: Rounds[T], step: Callable[[str], None]
) -> None:
    """Calls each of `measures` once a round, with whether it only warms up, and adds to `results`.

    One that answers wrongly is left out from there on.
    """
    alive = dict(measures)
    for number in range(rounds + 1):
        # Round 0 warms up. No cell comes after the same other one in each round.
        order = list(alive)
        for key in order[number % len(order) :] + order[: number % len(order)] if order else []:
            step(" ".join(key))
            try:
                sample = alive[key](not number)
            except (WrongAnswer, ProcessError) as wrong:
                if not number and isinstance(wrong, NoAnswer):
                    continue
                del alive[key]
                results.samples.pop(key, None)
                results.failures[key] = str(wrong)
                continue
            if number:
                results.samples.setdefault(key, []).append(sample)
