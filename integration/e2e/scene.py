"""The pods that all end-to-end tests share, and everybody who may talk to them.

Owns one namespace for a whole run. Must not know who ought to reach whom.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from integration.e2e import manifests
from integration.e2e.ends import End, Host, Pod
from integration.e2e.space import Space

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.cluster import Cluster

NAME = "scene"


@dataclass(frozen=True)
class Scene:
    """Who there is. ``here``, ``beside`` and ``host_pod`` are on node1, ``there`` is on node2."""

    space: Space
    here: Pod
    beside: Pod
    there: Pod
    host_pod: Pod
    """In node1's own network."""
    node1: Host
    node2: Host
    outside: Host
    """A host of the nodes' subnet that is no node; a server answers there too."""
    beyond: Host
    """A host of a peered virtual network; a server answers there as well."""

    @classmethod
    @contextlib.contextmanager
    def up(cls, cluster: Cluster) -> Iterator[Scene]:
        """Create the pods, and delete them in the end."""
        cluster.kubectl("create", "namespace", NAME)
        space = Space(cluster, NAME)
        wanted = [
            manifests.pod("here", "node1", labels={"group": "both"}),
            manifests.pod("beside", "node1"),
            manifests.pod("there", "node2", labels={"group": "both"}),
            manifests.host_pod("host", "node1", http=18080, udp=18081),
        ]
        try:
            here, beside, there, host_pod = space.ready(*wanted)
            node1, node2 = (Host.of(cluster.nodes[name].machine) for name in ("node1", "node2"))
            beyond = Host.of(cluster.fabric.vnet_hosts["peer1"])
            server = str(cluster.tools / "agnhost")
            with space.asker.serving(server) as outside, beyond.serving(server):
                yield cls(space, here, beside, there, host_pod, node1, node2, outside, beyond)
        finally:
            cluster.kubectl("delete", "namespace", NAME, "--wait=false")

    @property
    def pods(self) -> tuple[Pod, ...]:
        """The pods with addresses of their own."""
        return self.here, self.beside, self.there

    @property
    def askers(self) -> tuple[End, ...]:
        """Everybody who can ask."""
        return *self.pods, self.host_pod, self.node1, self.node2, self.outside, self.beyond

    @property
    def servers(self) -> tuple[End, ...]:
        """Everybody who answers."""
        return *self.pods, self.host_pod, self.outside, self.beyond


def dropped(cluster: Cluster) -> dict[str, int]:
    """What the fabric dropped because of a wrong source address, by machine and reason; empty: nothing."""
    counters = cluster.fabric.drop_counters()
    kinds = {"spoofed": counters.spoofed, "platform": counters.platform}
    return {f"{kind} by {name}": n for kind, by in kinds.items() for name, n in by.items() if n}
