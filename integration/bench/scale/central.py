"""The operator on paper: one budget for all NICs, an order, and steps that reach to a node's next turn.

The steps of `ipam.operator.fleet`, `turns` and `work` with the product's planner, meters and queue: for
trying settings within seconds, where a real run takes a quarter of an hour.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from integration.bench.scale.onpaper import Region
from integration.fabric.armoperations import POLL_AFTER
from ipam.azure_limits import VNET_CONFIGURATIONS
from ipam.operator.budget import READS, WINDOW, WRITES, Meter
from ipam.operator.decide import lasting
from ipam.operator.line import Line, Urgency
from ipam.operator.rounds import COUNT_SECONDS
from ipam.operator.settings import Settings
from ipam.operator.shared_networks import share_of
from ipam.operator.turns import MEAN_SECONDS
from ipam.provision.plan import OPERATION_SECONDS, plan
from ipam.value import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from integration.bench.scale.onpaper import Node, Steps
    from integration.bench.scale.scenario import Arrival, Scenario
    from ipam.provision.plan import Plan

LOOK_SECONDS = 5.0
"""Between two looks at all nodes."""
TOLD_SECONDS = 1.0
"""From a change on a node until the operator knows."""
SETTINGS = Settings.of({})


def run(scenario: Scenario, arrivals: Sequence[Arrival], settings: Settings = SETTINGS) -> Region:
    """All nodes, from the first pod to the last one that has an address."""
    region = Region(scenario)
    _Operator(region, settings.workers, settings.first_poll)
    region.come(arrivals)
    return region


class _Operator:
    def __init__(self, region: Region, workers: int, first_poll: float) -> None:
        scenario = region.scenario
        self._region, self._workers, self._first_poll = region, workers, first_poll
        share = scenario.share * scenario.part
        self._writes, self._reads = Meter(WRITES, share, 0.0), Meter(READS, share, 0.0)
        self._line: Line[int] = Line()
        self._readers: deque[Callable[[], None]] = deque()
        self._working = 0
        self._serves_at = self._estimated_at = -1.0
        self._wait = self._round = 0.0
        self._share = VNET_CONFIGURATIONS
        self._counted_at = float("-inf")
        for number, node in enumerate(region.nodes):
            node.wake = self._told(number, node)
        region.clock.at(LOOK_SECONDS, self._look_at_all)

    def _told(self, number: int, node: Node) -> Callable[[], None]:
        return lambda: self._region.clock.at(
            self._region.clock.now + TOLD_SECONDS, lambda: self._look(number, node)
        )

    def _look_at_all(self) -> None:
        self._region.clock.at(self._region.clock.now + LOOK_SECONDS, self._look_at_all)
        for number, node in enumerate(self._region.nodes):
            self._look(number, node)
        self._serve()

    def _look(self, number: int, node: Node) -> None:
        if node.busy:
            return
        if self._wanted(node).grows:
            urgent = len(node.waiting) > node.free
            now = self._region.clock.now
            if urgent:
                self._line.put(number, Urgency.WAITING, now)
            else:
                self._line.put(number, Urgency.GROWTH, now, lasting(node.counts(now)))
            self._serve()
        else:
            self._line.drop(number)

    def _wanted(self, node: Node) -> Plan:
        now = self._region.clock.now
        seconds = OPERATION_SECONDS + self._expected_wait(now)
        return plan(self._region.scenario.sizes, replace(node.counts(now, seconds), share=self._share))

    def _expected_wait(self, now: float) -> float:
        if now != self._estimated_at:
            self._estimated_at, self._wait = now, self._estimated_wait(now)
        return self._wait

    def _estimated_wait(self, now: float) -> float:
        ahead = self._line.ahead_of(Urgency.GROWTH)
        for_worker = max(0, self._working + ahead + 1 - self._workers) * MEAN_SECONDS / self._workers
        if now - self._counted_at >= COUNT_SECONDS:
            coming = sum(node.rate(now) > 0 for node in self._region.nodes)
            self._counted_at, self._round = now, coming * WINDOW / self._writes.allowed
            taken = sum(node.configurations + node.requested for node in self._region.nodes)
            self._share = share_of(taken, len(self._region.nodes))
        return max(self._writes.wait(now, ahead + 1), for_worker, self._round)

    def _serve(self) -> None:
        """Begin work as far as there are workers and writes."""
        clock = self._region.clock
        while self._working < self._workers and (found := self._line.first()) is not None:
            wait = self._writes.wait(clock.now)
            if wait > 0:
                if self._serves_at <= clock.now:
                    self._serves_at = clock.now + wait + 1e-6
                    clock.at(self._serves_at, self._serve)
                return
            number = found[1]
            self._line.drop(number)
            wanted = self._wanted(self._region.nodes[number])
            if wanted.grows:
                self._writes.take(clock.now)
                self._working += 1
                self._region.nodes[number].busy = True
                clock.start(self._write(self._region.nodes[number], wanted.add))

    def _write(self, node: Node, addresses: int) -> Steps:
        clock = self._region.clock
        node.requested = addresses
        yield from self._read()
        while (pause := self._region.writes.ask(clock.now)) > 0:
            yield pause
        ends = clock.now + self._region.operation()
        pause = max(self._first_poll, float(POLL_AFTER))
        while True:
            yield pause
            yield from self._read()
            if clock.now >= ends:
                break
            pause = float(POLL_AFTER)
        yield from self._read()
        node.busy, node.requested = False, 0
        self._working -= 1
        self._region.deliver(node, addresses)
        self._serve()

    def _read(self) -> Steps:
        """Wait for the turn of a read, and make it."""
        yield self._queue_read
        while (pause := self._region.reads.ask(self._region.clock.now)) > 0:
            yield pause

    def _queue_read(self, go_on: Callable[[], None]) -> None:
        self._readers.append(go_on)
        if len(self._readers) == 1:
            self._serve_reads()

    def _serve_reads(self) -> None:
        clock = self._region.clock
        while self._readers:
            wait = self._reads.wait(clock.now)
            if wait > 0:
                clock.at(clock.now + wait + 1e-6, self._serve_reads)
                return
            self._reads.take(clock.now)
            clock.at(clock.now, self._readers.popleft())
