"""The measuring: round after round over all cells of a group, so that what disturbs the machine hits all alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.scenarios import Cell
from bench.wire import WrongAnswer
from bench.wrk import NoAnswer, Sample, measure

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how often and where."""

    rounds: int
    seconds: int
    server_core: int
    wrk_core: int


@dataclass(frozen=True, slots=True)
class Results:
    """By scenario and server: the cell, its samples by round, and why there are none."""

    cells: dict[Key, Cell] = field(default_factory=dict)
    samples: dict[Key, list[Sample]] = field(default_factory=dict)
    failures: dict[Key, str] = field(default_factory=dict)

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


def run(cells: Sequence[Cell], plan: Plan, results: Results, step: Callable[[str], None]) -> None:
    """Measures `cells` and adds to `results`. A cell that answers wrongly is left out from there on."""
    alive = {(cell.scenario, cell.server): cell for cell in cells}
    results.cells.update(alive)
    for number in range(plan.rounds + 1):
        # Round 0 warms up. No cell comes after the same other one in each round.
        order = list(alive)
        for key in order[number % len(order) :] + order[: number % len(order)] if order else []:
            step(" ".join(key))
            seconds = plan.seconds if number else 1
            cell = alive[key]
            try:
                sample = measure(cell.load, cell.process, seconds, plan.server_core, plan.wrk_core)
            except WrongAnswer as wrong:
                if not number and isinstance(wrong, NoAnswer):
                    continue
                del alive[key]
                results.samples.pop(key, None)
                results.failures[key] = str(wrong)
                continue
            if number:
                results.samples.setdefault(key, []).append(sample)
