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
"""A state that only an operator reports: the node's agent is silent."""
UNBELIEVED_SECONDS = 15.0
"""An agent that has not confirmed a read for so many seconds waits for another one."""


class Said(Value):
    """The state of a node, as people see it."""

    state: str
    text: str
    remedy: str = ""

    @property
    def is_problem(self) -> bool:
        """Whether it is a problem to report."""
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
    """The state to report while nothing is done."""
    lasts: float = 0.0
    """Seconds for which the node has addresses, if pods go on arriving as they do."""
    adds: int = 0
    """Addresses that are to be added."""


class NodeRecord:
    """One node. Changed under the fleet's lock, or by the work on the node, of which there is one at most."""

    def __init__(self, node: AzvnetNode, now: float) -> None:
        self.node = node
        self.broken = ""
        """Why the resource is not valid."""
        self.seen_at = now
        self.renewed_at: float | None = None
        """When the agent last wrote its resource; None: not since this operator leads."""
        self.gone_since: float | None = None
        """Since when there is no Node with that name."""
        self.working = False
        self.queued_since: float | None = None
        self.failures = 0
        self.not_before = 0.0
        self.trouble: Said | None = None
        """Of the last attempt, if it failed."""
        self.surplus_since: float | None = None
        self.unlisted_since: float | None = None
        self.no_block_until = 0.0
        self.asked = 0
        """Addresses that were requested last."""
        self.target: NicTarget | None = None
        self.target_of: tuple[str, ...] = ()
        """The machine and NIC for which ``target`` was looked up."""
        self.read_due = now + _until_next_read(node)
        self.read_at: float | None = None
        """When the NIC was read; None: not since this operator leads."""
        self.is_another_machine = False
        """The node is now another machine, and the status is about the previous one."""
        status = node.status
        self.unsure = not status.revision or status.operation is not None or bool(status.releasing)
        """The NIC may have changed in a way that is not in the resource."""
        self.observed: tuple[str, ...] | None = None
        """``spec.releasing`` of the generation that was last written as observed."""
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
    def is_awaiting_read(self) -> bool:
        """Whether the agent ignores a status from before its start, and waits for another read."""
        if self.node.spec.seen or not self.node.status.revision:
            return False
        return self.read_at is None or self.last_heard > self.read_at + UNBELIEVED_SECONDS

    @property
    def last_heard(self) -> float:
        """When the agent last showed that it is alive."""
        return self.seen_at if self.renewed_at is None else self.renewed_at

    @property
    def identity(self) -> tuple[str, ...]:
        """Machine and NIC that the node claims."""
        machine = self.node.spec.machine
        return machine.resource_id.casefold(), machine.vm_id, machine.mac, self.node.spec.subnet

    def place(self) -> Placement | None:
        """Where the machine is in Azure; None: its id is not valid."""
        machine = self.node.spec.machine
        return placement_of(machine.resource_id, machine.environment)

    def region(self) -> Region:
        """The region whose budget it uses."""
        place = self.place()
        subscription = place.subscription.casefold() if place is not None else ""
        return Region(subscription, self.node.spec.machine.location.casefold())


def _number(version: str) -> int:
    """Versions of a resource rise ("Resource versions" in Kubernetes' API concepts, since 1.35)."""
    return int(version) if version.isdecimal() else 0


def _until_next_read(node: AzvnetNode) -> float:
    """Seconds until the NIC should be read again, from what the previous leader wrote."""
    try:
        age = time.time() - seconds_of(node.status.last_read_time)
    except ValueError:
        return 0.0
    return min(AT_REST_SECONDS, max(0.0, AT_REST_SECONDS - age))
