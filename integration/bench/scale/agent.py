"""One simulated node: the product's own agent side of the protocol, over a pool in memory.

Owns what of a node is simulated: which pods wait, when the source is read. What is said to the operator, and
what follows from what it says, is `ipam.provision.follower`. It must not know how requests are sent.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol, cast

from integration.bench.scale.pool import MemoryPool
from ipam.ipam import boottime
from ipam.provision import exchange
from ipam.provision.exchange import Machine
from ipam.provision.follower import Follower
from ipam.sources import imds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ipam.ipam import Ipam
    from ipam.model import IPAddress, Listing
    from ipam.provision.exchange import AzvnetNode, NodeSpec
    from ipam.provision.plan import Sizes

LOOK_SECONDS = 5.0
"""Between two looks of an agent (`cni_plugin.agent.provisioning`)."""
WAITING_SECONDS = 60.0
"""A pod that found no address so long ago counts as waiting (the same)."""
REFRESH_SECONDS, QUERY_SECONDS = 30.0, 10.0
"""Between two reads of the source at rest, and at least (the agent's settings, the netconf)."""


class Asks(Protocol):
    """How a node reaches others."""

    def metadata(self, node: str) -> bytes:
        """The network section of the node's instance metadata. Raises OSError."""

    def write(self, name: str, spec: NodeSpec, known: AzvnetNode | None) -> AzvnetNode | None:
        """Create or replace the node's half of its resource; None: somebody was faster."""


class SimulatedNode:
    """Safe for threads: one at a time works on it. ``wake`` is called when it has something to do at once."""

    def __init__(
        self,
        name: str,
        machine: Machine,
        sizes: Sizes,
        directory: Path,
        asks: Asks,
        wake: Callable[[SimulatedNode], None],
    ) -> None:
        self.name = name
        self.lock = threading.Lock()
        self.node: AzvnetNode | None = None
        """Its resource, as it was last seen."""
        self._asks = asks
        self._wake = wake
        self._pool = MemoryPool(directory)
        self._document = b""
        self._read_at = float("-inf")
        self._wants_refresh = True
        self._waiting: dict[str, float] = {}
        wanted = exchange.NodeSpec(machine=machine, sizes=sizes)
        self._follower = Follower(cast("Ipam", self._pool), self, time.time, wanted)

    # What the follower needs to know of the node

    def clock(self) -> float:
        """Seconds since boot."""
        return boottime()

    def cooldown(self) -> float:
        """No pod ends here."""
        return 0.0

    def carried(self) -> frozenset[IPAddress]:
        """A simulated host carries nothing."""
        return frozenset()

    def waiting(self) -> frozenset[str]:
        """Pods that found no address a moment ago."""
        since = self.clock() - WAITING_SECONDS
        return frozenset(pod for pod, at in self._waiting.items() if at >= since)

    def refresh(self) -> None:
        """Have the source read as soon as it may be."""
        self._wants_refresh = True

    def tell(self, level: str, text: str) -> None:
        """Nobody reads it."""

    # What happens on it

    def see(self, node: AzvnetNode) -> None:
        """Its resource has changed."""
        with self.lock:
            self.node = node
        self._wake(self)

    def add(self, namespace: str, pod: str) -> IPAddress | None:
        """An ADD: the pod's address, or None, and then it waits."""
        with self.lock:
            given = self._pool.give(namespace, pod)
            if given is None and self._read_if_due(QUERY_SECONDS):
                given = self._pool.give(namespace, pod)
            if given is None:
                self._waiting[f"{namespace}/{pod}"] = self.clock()
            else:
                self._waiting.pop(f"{namespace}/{pod}", None)
        if given is None:
            self._wake(self)
        return given

    def look(self) -> None:
        """One step of the agent."""
        with self.lock:
            self._read_if_due(QUERY_SECONDS if self._wants_refresh else REFRESH_SECONDS)
            spec = self._follower.step(self.node)
            if spec is None:
                return
            wrote = self._asks.write(self.name, spec, self.node)
            if wrote is not None:
                self.node = wrote
                self._follower.wrote(wrote)

    def _read_if_due(self, interval: float) -> bool:
        """Read the source unless that was done a moment ago; whether it lists something else now."""
        if self.clock() - self._read_at < interval:
            return False
        self._read_at = self.clock()
        self._wants_refresh = False
        document = self._asks.metadata(self.name)
        if document == self._document:
            return False
        self._document = document
        self._pool.list(_listing(document))
        return True


def _listing(document: bytes) -> Listing:
    return imds.parse(document, "imds")


def read(document: object) -> AzvnetNode:
    """A resource as the API server shows it."""
    return exchange.read(document)
