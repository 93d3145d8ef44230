"""The best that any order of writes could do, on paper: an operator that knows in advance which pods arrive.

One write per node adds all that it will lack, in the order in which the nodes run out. Arrival rates need not
be measured, and the end of an operation need not be found out by polling. What remains is the budget and the
time that operations take, so no operator that keeps to the budget can be much faster.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from integration.bench.scale.onpaper import Region
from ipam.operator.budget import WRITES, Meter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from integration.bench.scale.scenario import Arrival, Scenario


def run(scenario: Scenario, arrivals: Sequence[Arrival]) -> Region:
    """All nodes, from the first pod to the last one that has an address."""
    region = Region(scenario)
    share = scenario.share * scenario.part
    _Writer(region, Meter(WRITES, share, 0.0), lacking(scenario.start, arrivals)).serve()
    region.come(arrivals)
    return region


def lacking(start: int, arrivals: Iterable[Arrival]) -> list[tuple[int, int]]:
    """Nodes that have too few addresses for all of their pods, and how many are lacking; the first to run out
    comes first.

    ``start``: addresses that each has beforehand.
    """
    pods: dict[int, int] = {}
    lacks: dict[int, int] = {}
    for each in sorted(arrivals):
        pods[each.node] = pods.get(each.node, 0) + 1
        if pods[each.node] > start:
            lacks[each.node] = pods[each.node] - start
    return list(lacks.items())


class _Writer:
    def __init__(self, region: Region, writes: Meter, wanted: Iterable[tuple[int, int]]) -> None:
        self._region, self._writes, self._wanted = region, writes, deque(wanted)

    def serve(self) -> None:
        """Write as far as the budget allows, and go on when it allows more."""
        region, clock = self._region, self._region.clock
        while self._wanted:
            if (wait := self._writes.wait(clock.now)) > 0:
                clock.at(clock.now + wait + 1e-6, self.serve)
                return
            self._writes.take(clock.now)
            region.writes.ask(clock.now)
            number, addresses = self._wanted.popleft()
            node = region.nodes[number]
            ends = clock.now + region.operation()
            clock.at(ends, lambda node=node, addresses=addresses: region.deliver(node, addresses))  # type: ignore[misc]
