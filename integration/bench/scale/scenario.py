"""What is measured: how many nodes and pods, how fast they come, with which settings. Values only."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import NamedTuple

from ipam.provision.plan import Sizes

AZURE_NODES = 1_000
"""Of so many nodes Azure's limits are the published ones; of fewer the same share of them."""
WRITES, READS = 1_000, 10_000
"""What Microsoft.Network takes in ``WINDOW`` seconds ("Throttling Resource Manager requests")."""
WINDOW = 300.0
OPERATION = 152.0
"""Seconds that a write takes at the 95th percentile: a waiting pod's 99th is to be no more."""


class Arrival(NamedTuple):
    """A pod that a node was given."""

    at: float
    """Seconds since the first one."""
    node: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run."""

    name: str = "defaults"
    nodes: int = 1_000
    pods: int = 30_000
    seconds: float = 600.0
    """In which the pods come, evenly."""
    start: int = 16
    """Addresses that each NIC has for pods before the first one comes."""
    sizes: Sizes = field(default_factory=Sizes)
    share: float = 0.5
    """Of Azure's limits that the operator may use."""
    lag: float = 5.0
    """Seconds from the end of an operation until IMDS lists its addresses."""
    speed: float = 1.0
    """How many times faster than reality Azure is."""
    heartbeats: bool = True
    """kwok renews each node's Lease, as a kubelet does, every ten seconds."""
    uneven: bool = False
    """On paper: each pod is given to a random node, which is closer to what a scheduler does."""
    seed: int = 1

    @property
    def part(self) -> float:
        """The part of Azure's limits that so many nodes get, so that fewer of them show the same."""
        return min(1.0, self.nodes / AZURE_NODES)


def arrivals(scenario: Scenario) -> list[Arrival]:
    """As a scheduler that prefers the emptiest node spreads them: in rounds, each in an order of its own.

    Uneven ones have no rounds: the number of pods of a node follows a Poisson distribution.
    """
    chance = random.Random(scenario.seed)
    order = list(range(scenario.nodes))
    found = []
    for number in range(scenario.pods):
        if number % scenario.nodes == 0:
            chance.shuffle(order)
        node = chance.randrange(scenario.nodes) if scenario.uneven else order[number % scenario.nodes]
        found.append(Arrival(number * scenario.seconds / scenario.pods, node))
    return found
