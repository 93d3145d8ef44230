"""A thousand nodes that each write their own NIC, on paper: mode ``node``, without anybody who orders them.

The steps of `ipam.provision.provisioner` and `nic_writer` with the product's planner, budgets and pauses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.bench.scale.onpaper import Region
from integration.fabric.armoperations import POLL_AFTER
from ipam.provision import pace
from ipam.provision.plan import plan

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from integration.bench.scale.onpaper import Node, Window
    from integration.bench.scale.scenario import Arrival, Scenario
    from ipam.provision.plan import Plan

LOOK_SECONDS = 5.0
"""Between two looks of an agent at its pool."""


class Refused(Exception):
    """429."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


def run(scenario: Scenario, arrivals: Sequence[Arrival]) -> Region:
    """All nodes, from the first pod to the last one that has an address."""
    region = Region(scenario)
    for node in region.nodes:
        _Agent(region, node)
    region.come(arrivals)
    return region


class _Agent:
    """What one node does."""

    def __init__(self, region: Region, node: Node) -> None:
        self._region, self._node = region, node
        clock = region.clock
        self._writes = pace.Bucket(pace.WRITES, pace.SECONDS_PER_WRITE, lambda: clock.now)
        self._reads = pace.Bucket(pace.READS, pace.SECONDS_PER_READ, lambda: clock.now)
        self._failures = 0
        self._not_before = 0.0
        self._next_look = 0.0
        node.wake = self._look
        clock.at(region.chance.random() * LOOK_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._next_look = self._region.clock.now + LOOK_SECONDS
        self._region.clock.at(self._next_look, self._look_again)
        self._look()

    def _look(self) -> None:
        if not self._node.busy and self._region.clock.now >= self._not_before and self._wanted().grows:
            self._node.busy = True
            self._region.clock.start(self._grow())

    def _wanted(self) -> Plan:
        return plan(self._region.scenario.sizes, self._node.counts(self._region.clock.now))

    def _grow(self) -> Generator[float, None, None]:
        try:
            yield from self._ask(self._region.reads, self._reads)
            wanted = self._wanted().add
            if wanted:
                yield from self._write(wanted)
            self._failures = 0
        except Refused as refused:
            self._failures += 1
            seconds = pace.pause(self._failures, refused.retry_after, self._region.chance.random())
            self._not_before = self._region.clock.now + seconds
        self._node.busy = False

    def _write(self, addresses: int) -> Generator[float, None, None]:
        region = self._region
        yield from self._ask(region.reads, self._reads)  # the document that is written back, and its ETag
        yield from self._ask(region.writes, self._writes)
        ends = region.clock.now + region.operation()
        pause = float(POLL_AFTER)
        while region.clock.now < ends:
            yield pause
            try:
                yield from self._ask(region.reads, self._reads)
                pause = float(POLL_AFTER)
            except Refused as refused:
                pause = max(refused.retry_after, POLL_AFTER)
        yield from self._ask(region.reads, self._reads)
        region.deliver(self._node, addresses)

    def _ask(self, window: Window, bucket: pace.Bucket) -> Generator[float, None, None]:
        yield bucket.take()
        retry_after = window.ask(self._region.clock.now)
        if retry_after:
            raise Refused(retry_after)
