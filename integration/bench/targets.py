"""What has to be reached, and whether it was: pure.

Owns the numbers of the goals. It must not know how anything was measured or is shown.
"""

from __future__ import annotations

from dataclasses import dataclass

from integration.bench.contenders import AGENT, ALONE, BARE, REFERENCE
from integration.bench.samples import Samples

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """One goal and what was measured of it."""

    stage: str
    what: str
    value: float | None
    """None where it was not measured."""
    most: float
    unit: str

    @property
    def reached(self) -> bool | None:
        """None where it was not measured."""
        return None if self.value is None else self.value <= self.most


def verdicts(samples: Samples) -> list[Verdict]:
    """Every goal, in the order in which people ask for them."""
    return [*_alone(samples), *_agent(samples), *_flat(samples), *_resident(samples), _errors(samples)]


def _alone(samples: Samples) -> list[Verdict]:
    add = samples.ratio("ADD", ALONE, REFERENCE)
    return [
        _at_most("alone", "VERSION / bare interpreter", samples.ratio("VERSION", ALONE, BARE), 2.5),
        _at_most("alone", f"ADD / {REFERENCE}, first goal", add, 20),
        _at_most("alone", f"ADD / {REFERENCE}", add, 15),
    ]


def _agent(samples: Samples) -> list[Verdict]:
    goals = (
        ("ADD", 0.35),
        ("burst of ADDs", 0.4),
        ("DEL", 0.7),
        ("burst of DELs", 0.5),
        ("CHECK", 0.5),
        ("VERSION", 0.4),
        (CPU_PER_ADD, 0.5),
    )
    return [
        _at_most("agent", f"{what} / {REFERENCE}", samples.ratio(what, AGENT, REFERENCE), goal)
        for what, goal in goals
    ]


CPU_PER_ADD = "CPU per ADD of a burst"
FEW, MANY_PODS, MANY_ADDRESSES = "ADD, 10 pods, 16 addresses", "ADD, 250 pods", "ADD, 4000 addresses"


def _flat(samples: Samples) -> list[Verdict]:
    return [
        _at_most("agent", f"{many} / {FEW}", samples.ratio(many, AGENT, AGENT, FEW), 1.2)
        for many in (MANY_PODS, MANY_ADDRESSES)
    ]


def _resident(samples: Samples) -> list[Verdict]:
    usage, idle = samples.usage, samples.idle_share
    return [
        Verdict("agent", "resident memory", usage.peak / MIB if usage else None, 80, "MiB"),
        Verdict("agent", "idle CPU", idle * 100 if idle is not None else None, 0.1, "%"),
        Verdict("agent", "calls it did not take", float(usage.not_taken) if usage else None, 0, "calls"),
    ]


def _errors(samples: Samples) -> Verdict:
    return Verdict("all", "calls that failed", float(len(samples.problems)), 0, f"of {samples.calls}")


def _at_most(stage: str, what: str, value: float | None, most: float) -> Verdict:
    return Verdict(stage, what, value, most, "x")
