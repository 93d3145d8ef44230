"""Subnets and virtual networks that the nodes share: which were full, and how much is left to each node.

The operator sees how many IP configurations the NICs of its nodes have in a virtual network. What else is in
there it can't know, nor how large a subnet is; that they are full shows when Azure refuses. From then on an
attempt of each node that lacks addresses would cost as many writes as there are nodes, and leave none for
those that could give some back. So nodes ask for what others have given back, and one of them from time to
time whether something else has. It must not know what a node does about it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ipam.azure_limits import BLOCK, VNET_CONFIGURATIONS
from ipam.operator.rounds import COUNT_SECONDS
from ipam.provision.exchange import GROWING
from ipam.provision.pace import SCARCE_SECONDS
from ipam.provision.refusals import FULL, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ipam.operator.record import NodeRecord
    from ipam.provision.exchange import AzvnetNode

PROBE_SECONDS = 60.0
"""Seconds after a single address or block was refused, until a node asks whether others gave some back."""


class _Full:
    """A network in which so many addresses were refused; ``least`` can be requested."""

    def __init__(self, refused: int, least: int, now: float) -> None:
        self.until = now + SCARCE_SECONDS
        """As long nodes take and keep as few as they can."""
        self.room = 0
        """Addresses that NICs have given back since, and no node has asked for yet."""
        self.most = max(1, refused // 2)
        """So many may be requested to find out whether there are others: a PUT is refused as a whole."""
        self.probe_at = now if refused > least else now + PROBE_SECONDS
        """When a node may find out; one at a time."""


class SharedNetworks:
    """Looked at and changed under the fleet's lock, but for ``share``, which is safe for threads.

    Args:
        records: all nodes.
    """

    def __init__(self, records: Callable[[], Iterable[NodeRecord]]) -> None:
        self._records = records
        self._full: dict[tuple[Kind, str], _Full] = {}
        self._counted: tuple[float, Mapping[str, int]] = (float("-inf"), {})
        """When the NICs were counted, and the share of a node in each virtual network."""

    def note_full(self, kind: Kind, record: NodeRecord, now: float) -> None:
        """Azure has refused to add what was requested last to the NIC: ``kind`` of ``FULL``. What was given
        back meanwhile stays.
        """
        least = BLOCK if record.node.spec.sizes.prefixes else 1
        before, after = self._full.get((kind, _network(kind, record))), _Full(record.asked, least, now)
        if before is not None and now < before.until:
            after.room, after.most = before.room, min(before.most, after.most)
        self._full[kind, _network(kind, record)] = after

    def full(self, record: NodeRecord, now: float) -> Kind | None:
        """Which of ``FULL`` was so some minutes ago where the NIC is."""
        for kind in FULL:
            found = self._full.get((kind, _network(kind, record)))
            if found is not None and now < found.until:
                return kind
        return None

    def room(self, record: NodeRecord, now: float) -> int | None:
        """How many addresses may be requested for the NIC now, if its network was full; None: any number.

        However long ago that was, the first one to ask is alone: all others would be refused with it.
        """
        found = [full.room or (full.most if now >= full.probe_at else 0) for _, full in self._of(record)]
        return min(found, default=None)

    def note_request(self, record: NodeRecord, addresses: int, now: float) -> None:
        """So many are about to be requested."""
        for _, full in self._of(record):
            if not full.room:
                full.probe_at = now + PROBE_SECONDS
            full.room = max(0, full.room - addresses)

    def note_added(self, record: NodeRecord, now: float) -> None:
        """Azure has added what was requested: there may be more."""
        for key, full in self._of(record):
            full.probe_at = now
            full.most *= 2
            if now >= full.until:
                del self._full[key]

    def note_room(self, record: NodeRecord, addresses: int) -> None:
        """So many are no longer on the NIC."""
        for _, full in self._of(record):
            full.room += addresses

    def _of(self, record: NodeRecord) -> list[tuple[tuple[Kind, str], _Full]]:
        keys = [(kind, _network(kind, record)) for kind in FULL]
        return [(key, self._full[key]) for key in keys if key in self._full]

    def share(self, record: NodeRecord, now: float) -> int:
        """IP configurations that the NIC may get for pods that are not there yet: what its virtual network
        has left, divided by its nodes.
        """
        at, shares = self._counted
        if now - at >= COUNT_SECONDS:
            shares = _shares(self._records())
            self._counted = now, shares
        return shares.get(_network(Kind.VNET_FULL, record), VNET_CONFIGURATIONS)


def _shares(records: Iterable[NodeRecord]) -> dict[str, int]:
    nodes: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for each in records:
        vnet = _network(Kind.VNET_FULL, each)
        nodes[vnet] += 1
        taken[vnet] += _configurations(each.node)
    return {vnet: share_of(taken[vnet], number) for vnet, number in nodes.items()}


def share_of(taken: int, nodes: int) -> int:
    """What a virtual network with so many IP configurations has left for each of its nodes."""
    return max(0, VNET_CONFIGURATIONS - taken) // nodes


def _configurations(node: AzvnetNode) -> int:
    """Of its NIC, and those that are being added."""
    operation = node.status.operation
    added = operation.addresses if operation is not None and operation.kind == GROWING else 0
    return len(node.status.configurations) + (added // BLOCK if node.spec.sizes.prefixes else added)


def _network(kind: Kind, record: NodeRecord) -> str:
    """The id of the subnet, or of its virtual network, in lower case; empty: the NIC has not been read."""
    subnet = record.node.status.nic.subnet.casefold()
    return subnet if kind is Kind.SUBNET_FULL else subnet.partition("/subnets/")[0]
