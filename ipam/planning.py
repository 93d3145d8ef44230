"""How many addresses a cluster takes in its subnet, which subnet is large enough, and when it is full.

Pure arithmetic on counts. It must not know where they come from, nor the clock: times are in days from now.
It counts every node as full: a subnet is not enlarged at the moment when its nodes fill up.

Sources: Azure networking limits (private addresses per NIC and per virtual network); virtual network FAQ
(five addresses of each subnet); "Assign private IP address prefixes to virtual machines" (/28 blocks).
"""

from __future__ import annotations

import math

from ipam.azure_limits import BLOCK, NIC_CONFIGURATIONS, VNET_CONFIGURATIONS
from ipam.errors import IpamError
from ipam.value import Value

RESERVED = 5
"""Addresses that Azure keeps of each subnet: network, gateway, two for DNS, broadcast."""
SMALLEST, LARGEST = 29, 8
"""Prefix lengths of a subnet."""
MOST_NODES = 10_000_000
"""No subnet holds as many: growth is not followed any further."""
MONTH = 365.25 / 12
"""Days."""
_ROUNDING = 1e-9
"""What floating-point arithmetic may add to a number of nodes that is whole, as a share of it."""


class CannotPlan(IpamError):
    """What is asked for is beyond a limit of Azure; says which, and what to do."""


class PerNode(Value):
    """What one node takes when as many pods run on it as may."""

    pods: int
    """Pods with an address of their own; those with ``hostNetwork`` have none."""
    addresses: int
    """Addresses for pods on its NIC; what pods don't use of them is lost to rounding."""
    blocks: int
    """How many /28 blocks these are; 0: they are single addresses."""

    @property
    def configurations(self) -> int:
        """IP configurations on the NIC, with the primary one."""
        return 1 + (self.blocks or self.addresses)

    @property
    def unused(self) -> int:
        """Addresses that it has beyond its pods, since they come in batches or blocks."""
        return self.addresses - self.pods

    @property
    def taken(self) -> int:
        """Addresses that it takes in the subnet. With blocks its primary address counts as a whole one: it
        keeps the /28 around it from becoming a block, and the next nodes' lie elsewhere once nodes come and
        go.
        """
        return BLOCK * (self.blocks + 1) if self.blocks else 1 + self.addresses


def per_node(max_pods: int, *, batch: int = 1, prefixes: bool = False) -> PerNode:
    """What a node takes: single addresses in multiples of ``batch``, or /28 blocks.

    Raises:
        CannotPlan: its NIC can't have as many.
    """
    secondaries = NIC_CONFIGURATIONS - 1
    if prefixes:
        blocks = -(-max_pods // BLOCK)
        if blocks > secondaries:
            raise CannotPlan(
                f"{max_pods:,} pods on a node need {blocks:,} blocks of {BLOCK}, and Azure allows a NIC "
                f"{NIC_CONFIGURATIONS} IP configurations: {secondaries} blocks with {secondaries * BLOCK:,} "
                "addresses",
                "Use more nodes with fewer pods.",
            )
        return PerNode(max_pods, blocks * BLOCK, blocks)
    if max_pods > secondaries:
        raise CannotPlan(
            f"{max_pods:,} pods on a node are too many for single addresses: Azure allows a NIC "
            f"{NIC_CONFIGURATIONS} IP configurations, the node's own and {secondaries} for pods",
            f"Use --prefixes (blocks of {BLOCK}), or at most --max-pods {secondaries}.",
        )
    return PerNode(max_pods, min(-(-max_pods // batch) * batch, secondaries), 0)


class Surge(Value):
    """How many nodes an upgrade adds before it removes others; a percentage is rounded up, as AKS does."""

    amount: int = 0
    percent: bool = False

    def of(self, nodes: int) -> int:
        """Nodes added to so many."""
        return -(-nodes * self.amount // 100) if self.percent else self.amount

    def nodes_within(self, room: int) -> int:
        """The most nodes that leave room for their surge, where there is room for so many; negative: none."""
        return room * 100 // (100 + self.amount) if self.percent else room - self.amount


class Growth(Value):
    """How a cluster grows: by ``amount`` in ``days``."""

    amount: float = 0.0
    unit: str = "nodes"
    """``nodes``; ``pods``, which need a node for each ``max_pods``; ``percent`` of the nodes, compound."""
    days: float = MONTH

    def nodes_after(self, days: float, nodes: int, max_pods: int) -> int:
        """The nodes after so many days, where there are ``nodes`` now."""
        periods = days / self.days
        if self.unit == "percent":
            factor = math.log1p(self.amount / 100) * periods
            grown = nodes * math.exp(min(factor, math.log(MOST_NODES)))
        else:
            grown = nodes + self._nodes_each_period(max_pods) * periods
        return min(math.ceil(grown * (1 - _ROUNDING)), max(nodes, MOST_NODES))

    def days_until_more_than(self, limit: int, nodes: int, max_pods: int) -> float | None:
        """After how many days there are more than ``limit`` nodes; 0: there are now; None: never."""
        if nodes > limit:
            return 0.0
        percent = self.unit == "percent"
        each_period = math.log1p(self.amount / 100) if percent else self._nodes_each_period(max_pods)
        if not each_period or (percent and not nodes):
            return None  # also where there is some growth, but less than a float can hold
        more = math.log(limit / nodes) if percent else limit - nodes
        return more / each_period * self.days

    def _nodes_each_period(self, max_pods: int) -> float:
        return self.amount / max_pods if self.unit == "pods" else self.amount


class Cluster(Value):
    """What a subnet has to hold."""

    nodes: int
    node: PerNode
    surge: Surge = Surge()
    growth: Growth = Growth()
    others: int = 0
    """Addresses of the subnet that something else has."""
    elsewhere: int = 0
    """IP configurations in other subnets of the virtual network."""

    def nodes_after(self, days: float) -> int:
        """Nodes, without a surge."""
        return self.growth.nodes_after(days, self.nodes, self.node.pods)

    def with_surge(self, nodes: int) -> int:
        """So many nodes and their surge."""
        return nodes + self.surge.of(nodes)

    def taken(self, nodes: int) -> int:
        """Addresses of the subnet that so many nodes and all others take."""
        return self.taken_by_others + nodes * self.node.taken

    @property
    def taken_by_others(self) -> int:
        """With blocks in whole ones, as if others' addresses lay side by side: a count does not say where."""
        return -(-self.others // BLOCK) * BLOCK if self.node.blocks else self.others

    def configurations(self, nodes: int) -> int:
        """IP configurations in the virtual network."""
        return self.elsewhere + self.others + nodes * self.node.configurations

    def capacity(self, length: int) -> int:
        """Addresses that may be taken in a subnet of that prefix length. No block is at its ends, since
        Azure has addresses of its own there.
        """
        size = subnet_size(length)
        return max(0, size - 2 * BLOCK) if self.node.blocks else size - RESERVED

    def room(self, length: int) -> int:
        """How many nodes such a subnet, and the virtual network around it, have room for."""
        in_subnet = (self.capacity(length) - self.taken_by_others) // self.node.taken
        in_vnet = (VNET_CONFIGURATIONS - self.configurations(0)) // self.node.configurations
        return max(0, min(in_subnet, in_vnet))

    def fits(self, length: int, nodes: int) -> bool:
        """Whether such a subnet holds so many nodes and all others."""
        return (
            self.taken(nodes) <= self.capacity(length) and self.configurations(nodes) <= VNET_CONFIGURATIONS
        )

    def surely_fits(self, length: int, nodes: int) -> bool:
        """The same wherever others' addresses lie: in the worst case each keeps a /28 from being a block."""
        spread = self.others * BLOCK if self.node.blocks else self.others
        return self.fits(length, nodes) and spread + nodes * self.node.taken <= self.capacity(length)

    def smallest(self, nodes: int) -> int | None:
        """Prefix length of the smallest subnet that holds so many nodes; None: no virtual network does."""
        return next((each for each in range(SMALLEST, LARGEST - 1, -1) if self.fits(each, nodes)), None)

    @property
    def largest_useful(self) -> int:
        """Prefix length beyond which a larger subnet has no more room: the virtual network is full first."""
        most = self.room(LARGEST)
        return next(each for each in range(SMALLEST, LARGEST - 1, -1) if self.room(each) == most)

    def smallest_in_order(self, nodes: int) -> int | None:
        """As ``smallest``, for as long as no node was replaced, so that the nodes' own addresses lie side
        by side and between Azure's. For single addresses it makes no difference.
        """
        if not self.node.blocks:
            return self.smallest(nodes)
        beside = 2 * BLOCK - RESERVED
        places = nodes * self.node.blocks - (-max(0, nodes + self.others - beside) // BLOCK)
        lengths = range(SMALLEST, LARGEST - 1, -1)
        found = next((each for each in lengths if places * BLOCK <= self.capacity(each)), None)
        return found if self.configurations(nodes) <= VNET_CONFIGURATIONS else None

    def upgrades_until(self, length: int) -> float | None:
        """Days until nodes and surge do not fit any more; 0: they do not now; None: they always do."""
        return self._days_until(self.surge.nodes_within(self.room(length)))

    def nodes_until(self, length: int) -> float | None:
        """Days until the nodes alone do not fit any more."""
        return self._days_until(self.room(length))

    def _days_until(self, most: int) -> float | None:
        return self.growth.days_until_more_than(most, self.nodes, self.node.pods)


def subnet_size(length: int) -> int:
    """Addresses in a subnet of that prefix length, Azure's own included."""
    return 1 << (32 - length)


class Uses(Value):
    """What becomes of a subnet's addresses; together they are all of them. ``missing`` is outside."""

    reserved: int
    others: int
    hosts: int
    """The nodes' own addresses."""
    pods: int
    rounding: int
    """Addresses of batches and blocks beyond the pods."""
    alignment: int
    """Addresses between blocks: the rest of a /28 that a single address is in."""
    surge: int
    """Everything that the nodes of an upgrade take."""
    growth: int
    """Everything that growth takes until the end of the plan, its larger surge included."""
    free: int
    missing: int = 0
    """What does not fit."""


def uses(cluster: Cluster, length: int, days: float) -> Uses:
    """The uses of a subnet of that prefix length by the cluster as it is now, and after so many days."""
    nodes, node = cluster.nodes, cluster.node
    now, peak = cluster.taken(nodes), cluster.taken(cluster.with_surge(nodes))
    later = cluster.taken(cluster.with_surge(cluster.nodes_after(days)))
    size = subnet_size(length)
    ends = min(2 * BLOCK, size) - RESERVED if node.blocks else 0
    alignment = ends + now - cluster.others - nodes * (1 + node.addresses)
    shares = {
        "reserved": RESERVED,
        "others": cluster.others,
        "hosts": nodes,
        "pods": nodes * node.pods,
        "rounding": nodes * node.unused,
        "alignment": alignment,
        "surge": peak - now,
        "growth": max(0, later - peak),
    }
    left = size
    for name, wanted in shares.items():
        shares[name] = min(wanted, left)
        left -= shares[name]
    missing = RESERVED + ends + max(peak, later) - size
    return Uses(**shares, free=left, missing=max(0, missing))
