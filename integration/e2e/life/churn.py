"""Bad weather over two nodes: pods that come and go, beside pods that stay and must not notice anything.

Owns what has to hold of all pods whatever is done to azvnet and its nodes meanwhile. Must not know what
that is.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from integration import residue
from integration.e2e.life.monitor import Doubles, Line, Lines, addresses
from integration.e2e.life.storm import Storm, idle_pod
from integration.waiting import found_within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.cluster import Cluster
    from integration.cluster.api import Api
    from integration.fabric import Machine
    from integration.residue import Snapshot

ANCHORS = {"stays-a": "node1", "stays-b": "node1", "stays-c": "node2"}
"""Pods that stay, and their nodes."""
PATIENCE = 60.0
BY_US = 'plugin type="azvnet" failed'
"""How a runtime says that azvnet refused a call."""
OUTSIDE = "vm2"
"""A host of the virtual network that is no node."""


@dataclass(frozen=True)
class Anchor:
    """A pod that stays."""

    name: str
    machine: Machine
    address: str
    netns: str
    facts: tuple[Any, ...]
    """What must not change while it lives."""


class Weather:
    """The pods of one namespace: those that stay, and the storm."""

    def __init__(self, cluster: Cluster, api: Api, namespace: str) -> None:
        self.cluster = cluster
        self.api = api
        self.namespace = namespace
        self.pods = f"/api/v1/namespaces/{namespace}/pods"
        self.machines = {name: node.machine for name, node in cluster.nodes.items()}
        self.storm = Storm(api, namespace, self.machines)

    def let_anchors_down(self) -> list[Anchor]:
        """Create the pods that stay, and wait until they are Ready."""
        for name, node in ANCHORS.items():
            self.api.create(self.pods, idle_pod(name, node, app="stays"))
        self.cluster.kubectl(
            "wait",
            "pod",
            "--selector=app=stays",
            "--for=condition=Ready",
            f"-n{self.namespace}",
            "--timeout=60s",
        )
        return self.anchors()

    def anchors(self) -> list[Anchor]:
        """The pods that stay, as they are now."""
        found = self.api.get(self.pods, labelSelector="app=stays")["items"]
        return [self._anchor(each) for each in sorted(found, key=lambda each: str(each["metadata"]["name"]))]

    def lines(self, anchors: list[Anchor]) -> Lines:
        """Who pings whom: within a node, between nodes both ways, from and to a host that is no node."""
        outside = self.cluster.fabric.vnet_hosts[OUTSIDE]
        a, b, c = anchors
        pairs = [(a, b), (a, c), (c, b)]
        within = [Line(one.machine, other.address, one.netns) for one, other in pairs]
        inwards = [Line(outside, each.address) for each in anchors]
        return Lines([*within, *inwards, Line(c.machine, str(outside.primary_ip), c.netns)])

    def warnings(self) -> list[str]:
        """Events of these pods that no good day has, such as FailedCreatePodSandBox."""
        path = f"/api/v1/namespaces/{self.namespace}/events"
        events = self.api.get(path, fieldSelector="type=Warning")["items"]
        return [f"{e['involvedObject']['name']}: {e['reason']}: {e['message']}" for e in events]

    def _anchor(self, pod: dict[str, Any]) -> Anchor:
        status, machine = pod["status"], self.machines[pod["spec"]["nodeName"]]
        address = str(status.get("podIP"))
        paths = [path for path, found in addresses(machine).items() if found == address]
        facts = (
            pod["metadata"]["uid"],
            address,
            *(each["restartCount"] for each in status["containerStatuses"]),
            *paths,
        )
        return Anchor(pod["metadata"]["name"], machine, address, paths[0] if paths else "", facts)


@contextlib.contextmanager
def weather(cluster: Cluster, api: Api, namespace: str, *, interrupted: bool = False) -> Iterator[Weather]:
    """Let the storm blow while the block runs.

    Args:
        cluster: with azvnet on its nodes.
        api: of the cluster.
        namespace: for the pods.
        interrupted: the block ends programs of Kubernetes, so that some of their calls break off: only
            what azvnet itself refused is wrong then.

    Raises:
        AssertionError: a pod did not become Ready, was refused a sandbox, lost a packet or its address,
            or had another's; or something of them is left when all are gone.
    """
    made = Weather(cluster, api, namespace)
    before = {name: residue.snapshot(machine) for name, machine in made.machines.items()}
    anchors = made.let_anchors_down()
    lines, doubles = made.lines(anchors), Doubles(made.machines.values())
    try:
        with doubles, lines, made.storm:
            made.storm.await_more()
            yield made
            made.storm.await_more()
        warnings = [each for each in made.warnings() if not interrupted or BY_US in each]
        wrong = [*made.storm.failures, *doubles.failures, *lines.failures, *warnings]
        if changed := {each.facts for each in made.anchors()} ^ {each.facts for each in anchors}:
            wrong.append(f"pods that were to stay changed: {changed}")
    finally:
        api.delete(made.pods)
    wrong += _left_after(before, made.machines)
    if wrong:
        raise AssertionError("\n".join(wrong))


def _left_after(before: dict[str, Snapshot], machines: dict[str, Machine]) -> list[str]:
    """What is still there when all pods ought to be gone."""
    left: list[str] = []

    def nothing() -> bool:
        left[:] = [
            f"{name} still has: {fact}"
            for name, machine in machines.items()
            for fact in residue.snapshot(machine).added_to(before[name])
        ]
        return not left

    found_within(PATIENCE, nothing, pause=0.5)
    return left
