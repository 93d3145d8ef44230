"""What was measured, and the figures made of it: pure.

Owns medians, percentiles and ratios. It must not know how anything was measured or is shown.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median

from integration.bench.sandbox import Batch, Usage

ONE_AT_A_TIME = ("VERSION", "ADD", "CHECK", "DEL")
BURSTS = ("burst of ADDs", "burst of DELs")
MILLI = 1000.0


@dataclass(frozen=True, slots=True)
class Figures:
    """One contender's numbers for one measure, milliseconds."""

    median: float
    p90: float
    n: int


@dataclass(slots=True)
class Samples:
    """Everything measured in one run; seconds and bytes."""

    times: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    """By measure and contender."""
    problems: list[str] = field(default_factory=list)
    calls: int = 0
    usage: Usage | None = None
    idle_share: float | None = None
    """Processor time of the idle agent by wall time."""
    agent_missing: str = ""
    """Why there is no contender with an agent."""

    def take(self, measure: str, contender: str, batch: Batch) -> None:
        """Keep the times of single calls, and what they cost the processor."""
        for call in batch.calls:
            self.times[measure, contender].append(call.seconds)
            self.times[f"CPU of {measure}", contender].append(call.cpu)
        self.check(contender, batch)

    def take_burst(self, measure: str, contender: str, batch: Batch) -> None:
        """Keep the wall time of all calls together."""
        self.times[measure, contender].append(batch.wall)
        self.check(contender, batch)

    def check(self, contender: str, batch: Batch) -> None:
        """Count the calls and keep what was wrong with them."""
        self.calls += len(batch.calls)
        self.problems += [f"{contender}: {call.problem}" for call in batch.calls if call.problem]

    def add(self, measure: str, contender: str, seconds: float) -> None:
        """Keep one time."""
        self.times[measure, contender].append(seconds)

    def figures(self, measure: str, contender: str) -> Figures | None:
        """The numbers of a measure; None where it was not measured."""
        values = sorted(self.times.get((measure, contender), ()))
        if not values:
            return None
        p90 = values[min(len(values) - 1, round(0.9 * (len(values) - 1)))]
        return Figures(median(values) * MILLI, p90 * MILLI, len(values))

    def ratio(self, measure: str, contender: str, to: str, to_measure: str = "") -> float | None:
        """Median by median; None where one of them was not measured."""
        mine, other = self.figures(measure, contender), self.figures(to_measure or measure, to)
        return mine.median / other.median if mine and other and other.median else None
