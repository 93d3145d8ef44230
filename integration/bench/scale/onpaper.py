"""The same cluster on paper: events in virtual time, with the product's planner, pauses and budgets.

Owns what a pod, a kubelet, a NIC and Azure's limits do to each other, as far as it costs time and requests;
how a node or the operator decides is in `independent` and `central`. Nothing runs, so a run takes seconds.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from integration.bench.scale.scenario import READS, WINDOW, WRITES, Scenario
from integration.fabric.armoperations import NETWORK, RECORDED_SECONDS
from ipam.provision.demand import WINDOW as RATE_WINDOW
from ipam.provision.plan import OPERATION_SECONDS, Counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from integration.bench.scale.scenario import Arrival

RETRY_SECONDS, RETRY_JITTER = 10.0, 5.0
"""A kubelet tries again after ``backOffPeriod``, and up to half of it later (pod_workers.go)."""


Pause = float | Callable[[Callable[[], None]], None]
Steps = Generator[Pause, None, None]
"""A piece of work. It yields the seconds for which it waits, or what calls it when it may go on."""


class Clock:
    """Virtual time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._number = count()

    def at(self, moment: float, do: Callable[[], object]) -> None:
        """Do something at a moment."""
        heapq.heappush(self._heap, (max(moment, self.now), next(self._number), do))

    def start(self, work: Steps) -> None:
        """Go on with a piece of work, whenever it has waited long enough, to its end."""

        def go_on() -> None:
            for pause in work:
                if callable(pause):
                    pause(go_on)
                else:
                    self.at(self.now + pause, go_on)
                return

        go_on()

    def run(self, until: Callable[[], bool]) -> None:
        """Let time pass until that is so, or nothing is left to happen."""
        while self._heap and not until():
            self.now, _, do = heapq.heappop(self._heap)
            do()


@dataclass(slots=True)
class Window:
    """What Microsoft.Network counts of one kind of requests."""

    allowed: int
    times: deque[float] = field(default_factory=deque)
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def ask(self, now: float) -> float:
        """One request. 0: it is within the limit; else Retry-After."""
        while self.times and self.times[0] <= now - WINDOW:
            self.times.popleft()
        if len(self.times) >= self.allowed:
            self.refused.append(now)
            return max(1.0, self.times[0] + WINDOW - now)
        self.times.append(now)
        self.answered.append(now)
        return 0.0


@dataclass(slots=True, eq=False)
class Node:
    """The pool of one NIC."""

    free: int
    held: int = 0
    in_flight: int = 0
    requested: int = 0
    """Addresses that a write adds which has not ended."""
    waiting: dict[int, float] = field(default_factory=dict)
    """Pods that found no address, and since when."""
    recent: deque[float] = field(default_factory=deque)
    """When pods were given an address."""
    busy: bool = False
    wake: Callable[[], None] = lambda: None
    """Something has changed that somebody may act on."""

    @property
    def configurations(self) -> int:
        """IP configurations of the NIC, with the primary one."""
        return 1 + self.free + self.held + self.in_flight

    def rate(self, now: float) -> float:
        """Pods per second, as `ipam.provision.demand` has it."""
        while self.recent and self.recent[0] < now - RATE_WINDOW:
            self.recent.popleft()
        return len(self.recent) / RATE_WINDOW

    def counts(self, now: float, write_seconds: float = OPERATION_SECONDS) -> Counts:
        """What the planner counts with."""
        return Counts(
            held=self.held,
            free=self.free,
            in_flight=self.in_flight,
            waiting=len(self.waiting),
            arrivals=self.rate(now),
            write_seconds=write_seconds,
            configurations=self.configurations,
        )


class Region:
    """Nodes, pods and Azure."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = Clock()
        self.chance = random.Random(scenario.seed)
        self.writes = Window(round(WRITES * scenario.part))
        self.reads = Window(round(READS * scenario.part))
        self.nodes = [Node(scenario.start) for _ in range(scenario.nodes)]
        self.waits: list[float] = []
        """Seconds until each pod had its address."""
        self.served: list[float] = []
        """When."""

    def come(self, arrivals: Sequence[Arrival]) -> None:
        """Let pods come, and time pass until the last one has an address."""
        for number, each in enumerate(arrivals):
            self.clock.at(each.at, self._asker(self.nodes[each.node], number, each.at))
        total = len(arrivals)
        self.clock.run(lambda: len(self.waits) >= total)

    def operation(self) -> float:
        """Seconds that a write takes."""
        return self.chance.choice(RECORDED_SECONDS[NETWORK])

    def deliver(self, node: Node, addresses: int) -> None:
        """An operation has ended: IMDS will list what it added."""
        node.in_flight += addresses

        def listed() -> None:
            node.in_flight -= addresses
            node.free += addresses
            node.wake()

        self.clock.at(self.clock.now + self.scenario.lag, listed)

    def _asker(self, node: Node, pod: int, came: float) -> Callable[[], None]:
        def ask() -> None:
            now = self.clock.now
            if not node.free:
                node.waiting.setdefault(pod, came)
                node.wake()
                again = RETRY_SECONDS + RETRY_JITTER * self.chance.random()
                self.clock.at(now + again, ask)
                return
            node.free -= 1
            node.held += 1
            node.recent.append(now)
            node.waiting.pop(pod, None)
            self.waits.append(now - came)
            self.served.append(now)
            node.wake()

        return ask
