"""Subnets and virtual networks that the nodes share: which were full, and how much is left to each node.

The operator sees how many IP configurations the NICs of its nodes have in a virtual network. What else is in
there it can't know, nor how large a subnet is; that they are full shows when Azure refuses. It must not know
what a node does about it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ipam.azure_limits import BLOCK, VNET_CONFIGURATIONS
from ipam.provision.exchange import GROWING
from ipam.provision.pace import SCARCE_SECONDS
from ipam.provision.refusals import FULL, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ipam.operator.record import NodeRecord
    from ipam.provision.exchange import AzvnetNode

COUNT_SECONDS = 5.0
"""Seconds between two counts of all nodes."""


class SharedNetworks:
    """Safe for threads.

    Args:
        records: all nodes.
    """

    def __init__(self, records: Callable[[], Iterable[NodeRecord]]) -> None:
        self._records = records
        self._full: dict[tuple[Kind, str], float] = {}
        """Until when a network counts as full."""
        self._counted: tuple[float, Mapping[str, int]] = (float("-inf"), {})
        """When the NICs were counted, and the share of a node in each virtual network."""

    def note_full(self, kind: Kind, record: NodeRecord, now: float) -> None:
        """Azure has refused to add to the NIC: ``kind`` of ``FULL``."""
        self._full[kind, _network(kind, record)] = now + SCARCE_SECONDS

    def full(self, record: NodeRecord, now: float) -> Kind | None:
        """Which of ``FULL`` was so some minutes ago where the NIC is."""
        for kind in FULL:
            if now < self._full.get((kind, _network(kind, record)), 0.0):
                return kind
        return None

    def share(self, record: NodeRecord, now: float) -> int:
        """IP configurations that the NIC may get for pods that are not there yet: what its virtual network
        has left, divided by its nodes.
        """
        at, shares = self._counted
        if now - at >= COUNT_SECONDS:
            shares = _shares(self._records())
            self._counted = now, shares
        return shares.get(_network(Kind.VNET_FULL, record), VNET_CONFIGURATIONS)

    def refused(self, record: NodeRecord) -> list[NodeRecord]:
        """Other nodes to which Azure refused addresses that this one's NIC may have had."""
        return [
            each
            for each in self._records()
            if each is not record
            and each.refused in FULL
            and _network(each.refused, each) == _network(each.refused, record)
        ]


def _shares(records: Iterable[NodeRecord]) -> dict[str, int]:
    nodes: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for each in records:
        vnet = _network(Kind.VNET_FULL, each)
        nodes[vnet] += 1
        taken[vnet] += _configurations(each.node)
    return {vnet: max(0, VNET_CONFIGURATIONS - taken[vnet]) // number for vnet, number in nodes.items()}


def _configurations(node: AzvnetNode) -> int:
    """Of its NIC, and those that are being added."""
    operation = node.status.operation
    added = operation.addresses if operation is not None and operation.kind == GROWING else 0
    return len(node.status.configurations) + (added // BLOCK if node.spec.sizes.prefixes else added)


def _network(kind: Kind, record: NodeRecord) -> str:
    """The id of the subnet, or of its virtual network, in lower case; empty: the NIC has not been read."""
    subnet = record.node.status.nic.subnet.casefold()
    return subnet if kind is Kind.SUBNET_FULL else subnet.partition("/subnets/")[0]
