"""The figures of a run: pure, from what was recorded or simulated."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from integration.bench.scale.scenario import READS, WINDOW, WRITES
from integration.fabric.armlog import POLL

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from integration.bench.scale.onpaper import Region
    from integration.bench.scale.run import Recorded
    from integration.bench.scale.scenario import Scenario

WAITED = 1.0
"""A pod that was refused no address had it sooner; seconds."""
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Figures:
    """The results of one run; times in seconds."""

    name: str
    how: str
    """What wrote the NICs, and whether it was measured or simulated."""
    last_address: float
    """From the first pod until the last one had its address."""
    pods: int
    waited: int
    """Pods that were refused an address at least once."""
    wait_50: float
    """Of those that waited, from when they were bound until they had one."""
    wait_99: float
    wait_most: float
    all_99: float
    """Of all pods."""
    writes: int
    writes_peak: float
    """In any 5 minutes, as a part of what Azure takes."""
    reads: int
    reads_peak: float
    throttled: int
    addresses: int
    """That the NICs have for pods at the end."""
    operator_seconds: float = 0.0
    """Processor seconds of the operator while the pods came."""
    operator_share: float = 0.0
    """Of one processor, on average."""
    operator_mib: float = 0.0
    """Its largest resident memory."""

    def document(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so many are not above; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def peak(moments: Iterable[float], seconds: float) -> int:
    """The most in any so many seconds."""
    ordered = sorted(moments)
    most = first = 0
    for last, moment in enumerate(ordered):
        while ordered[first] <= moment - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def of_paper(region: Region, how: str) -> Figures:
    """Of a run on paper."""
    scenario = region.scenario
    waits = [each for each in region.waits if each > WAITED]
    return Figures(
        name=scenario.name,
        how=how,
        last_address=max(region.served),
        pods=len(region.waits),
        waited=len(waits),
        wait_50=percentile(waits, 0.5),
        wait_99=percentile(waits, 0.99),
        wait_most=max(waits, default=0.0),
        all_99=percentile(region.waits, 0.99),
        writes=len(region.writes.answered),
        writes_peak=_part(region.writes.answered, WRITES, scenario),
        reads=len(region.reads.answered),
        reads_peak=_part(region.reads.answered, READS, scenario),
        throttled=len(region.writes.refused) + len(region.reads.refused),
        addresses=sum(node.configurations - 1 for node in region.nodes),
    )


def of_run(recorded: Recorded) -> Figures:
    """Of a run that was measured. Moments and waits are those of reality, whatever the speed was."""
    scenario = recorded.scenario
    speed = scenario.speed
    times = [
        (bound * speed, at * speed, refused) for _, bound, at, refused in recorded.pods if at is not None
    ]
    waits = [at - bound for bound, at, refused in times if refused]
    writes = [at * speed for at, kind, status in recorded.requests if kind == "PUT" and status < 400]
    reads = [at * speed for at, kind, status in recorded.requests if kind in {"GET", POLL} and status < 400]
    first, last = recorded.samples[0], recorded.samples[-1]
    used = last.processor["operator"] - first.processor["operator"]
    return Figures(
        name=scenario.name,
        how=f"operator, {scenario.nodes:,} nodes, measured",
        last_address=max(at for _, at, _ in times),
        pods=len(times),
        waited=len(waits),
        wait_50=percentile(waits, 0.5),
        wait_99=percentile(waits, 0.99),
        wait_most=max(waits, default=0.0),
        all_99=percentile([at - bound for bound, at, _ in times], 0.99),
        writes=len(writes),
        writes_peak=_part(writes, WRITES, scenario),
        reads=len(reads),
        reads_peak=_part(reads, READS, scenario),
        throttled=sum(status == 429 for _, _, status in recorded.requests),
        addresses=int(last.said["addresses"]),
        operator_seconds=used,
        operator_share=used / (last.at - first.at),
        operator_mib=last.memory["operator"] / MIB,
    )


def _part(moments: Iterable[float], allowed: int, scenario: Scenario) -> float:
    return peak(moments, WINDOW) / (allowed * scenario.part)


STEP = 10.0
"""Seconds between two points of a curve."""


def series(recorded: Recorded) -> dict[str, list[list[float]]]:
    """Curves over time, as points: pods with an address, pods that wait, writes in the last 5 minutes."""
    speed = recorded.scenario.speed
    times = [
        (bound * speed, at * speed, refused) for _, bound, at, refused in recorded.pods if at is not None
    ]
    writes = [at * speed for at, kind, status in recorded.requests if kind == "PUT" and status < 400]
    return curves(
        [at for _, at, _ in times],
        [(bound, at) for bound, at, refused in times if refused],
        writes,
    )


def series_of_paper(region: Region) -> dict[str, list[list[float]]]:
    """The same of a run on paper."""
    waits = [
        (at - waited, at) for at, waited in zip(region.served, region.waits, strict=True) if waited > WAITED
    ]
    return curves(region.served, waits, region.writes.answered)


def curves(
    served: Sequence[float], waits: Sequence[tuple[float, float]], writes: Sequence[float]
) -> dict[str, list[list[float]]]:
    """The same of moments: when pods had an address, from when until when they waited, when was written."""
    end = max(served)
    moments = [step * STEP for step in range(int(end / STEP) + 2)]
    return {
        "addressed": [[at, sum(each <= at for each in served)] for at in moments],
        "waiting": [[at, sum(begin <= at < until for begin, until in waits)] for at in moments],
        "writes": [[at, sum(at - WINDOW < each <= at for each in writes)] for at in moments],
    }
