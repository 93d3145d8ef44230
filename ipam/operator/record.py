"""What the leading operator knows of one node: its resource, and the results of work on it.

The record ends with the term; the next leader finds what matters in the resource and on the NIC. It must
not know how anything is read or written.
"""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING

from ipam.operator.line import Urgency
from ipam.operator.turns import Region
from ipam.provision import progress
from ipam.provision.pace import AT_REST_SECONDS
from ipam.provision.timestamps import seconds_of
from ipam.sources.placement import Placement, placement_of
from ipam.value import Value

if TYPE_CHECKING:
    from ipam.provision.exchange import AzvnetNode
    from ipam.provision.nic_writer import NicTarget

STALE = "stale"
"""A state that only an operator tells: the node's agent does not say anything."""
UNBELIEVED_SECONDS = 15.0
"""An agent that has seen nothing so long after the NIC was read waits for another read."""


class Said(Value):
    """What people are told of a node."""

    state: str
    text: str
    remedy: str = ""

    @property
    def is_problem(self) -> bool:
        """Whether somebody should know."""
        return self.state not in progress.QUIET


class What(Enum):
    """What is to be done for a node."""

    NOTHING = "nothing"
    READ = "read"
    GROW = "grow"
    SHRINK = "shrink"
    LEAVE = "leave"
    """The node is gone: what we gave its NIC is taken away."""

    @property
    def writes(self) -> bool:
        """Whether it begins with a write to Azure."""
        return self in {What.GROW, What.SHRINK, What.LEAVE}


class Wish(Value):
    """What is to be done for a node, and how urgent that is."""

    what: What
    order: Urgency = Urgency.REST
    said: Said | None = None
    """What is told while it is at rest."""


class NodeRecord:
    """One node. Changed under the fleet's lock, or by the work on the node, of which there is one at most."""

    def __init__(self, node: AzvnetNode, now: float) -> None:
        self.node = node
        self.broken = ""
        """Why the resource can't be understood."""
        self.seen_at = now
        self.renewed_at: float | None = None
        """When the agent was last seen to write; None: not since this operator leads."""
        self.gone_since: float | None = None
        """Since when there is no Node of that name."""
        self.working = False
        self.queued_since: float | None = None
        self.failures = 0
        self.not_before = 0.0
        self.trouble: Said | None = None
        """Of the last attempt, if it failed."""
        self.surplus_since: float | None = None
        self.unlisted_since: float | None = None
        self.no_block_until = 0.0
        self.target: NicTarget | None = None
        self.target_of: tuple[str, ...] = ()
        """Machine and NIC that ``target`` was looked up for."""
        self.read_due = now + _until_next_read(node)
        self.read_at: float | None = None
        """When the NIC was read; None: not since this operator leads."""
        self.is_another_machine = False
        """The node has become another machine, and what the status says is of the one before."""
        status = node.status
        self.unsure = not status.revision or status.operation is not None or bool(status.releasing)
        """Something may have happened to the NIC that the resource does not say."""
        self.observed: tuple[str, ...] | None = None
        """``spec.releasing`` of the generation that was last told as observed."""
        self.told_event = ""

    def take(self, node: AzvnetNode, now: float) -> bool:
        """A newer state of the resource, or one that was seen before; whether it is newer."""
        if (
            _number(node.resource_version) <= _number(self.node.resource_version)
            and node.uid == self.node.uid
        ):
            return False
        if node.spec.renew_time != self.node.spec.renew_time:
            self.renewed_at = now
        before, self.node, self.broken = self.identity, node, ""
        if self.identity != before:
            self.is_another_machine = self.unsure = True
        return True

    @property
    def is_unbelieved(self) -> bool:
        """Whether the agent does not believe a status from before its time, and waits for another read."""
        if self.node.spec.seen or not self.node.status.revision:
            return False
        return self.read_at is None or self.last_heard > self.read_at + UNBELIEVED_SECONDS

    @property
    def last_heard(self) -> float:
        """When the agent was last known to be alive."""
        return self.seen_at if self.renewed_at is None else self.renewed_at

    @property
    def identity(self) -> tuple[str, ...]:
        """Machine and NIC that the node claims."""
        machine = self.node.spec.machine
        return machine.resource_id.casefold(), machine.vm_id, machine.mac, self.node.spec.subnet

    def place(self) -> Placement | None:
        """Where the machine is in Azure; None: its id is none."""
        machine = self.node.spec.machine
        return placement_of(machine.resource_id, machine.environment)

    def region(self) -> Region:
        """Whose budget it uses."""
        place = self.place()
        subscription = place.subscription.casefold() if place is not None else ""
        return Region(subscription, self.node.spec.machine.location.casefold())


def _number(version: str) -> int:
    """Versions of a resource rise ("Resource versions" in Kubernetes' API concepts, since 1.35)."""
    return int(version) if version.isdecimal() else 0


def _until_next_read(node: AzvnetNode) -> float:
    """Seconds until the NIC should be read again, by what the operator before us wrote."""
    try:
        age = time.time() - seconds_of(node.status.last_read_time)
    except ValueError:
        return 0.0
    return min(AT_REST_SECONDS, max(0.0, AT_REST_SECONDS - age))
