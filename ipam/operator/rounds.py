"""How long a round takes: the time until every node that gets new pods has had a turn to write its NIC.

A step has to last until the node's next turn. If pods arrive on all nodes of a cluster evenly, all of
them need a turn at about the same time, and the queue shows that only when it is too late for larger
steps. Owns counting these nodes from time to time. It must not know what a step is.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ipam.operator.budget import WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ipam.operator.record import NodeRecord
    from ipam.operator.turns import Region

COUNT_SECONDS = 5.0
"""Seconds between two counts of all nodes."""


class Rounds:
    """Safe for threads.

    Args:
        records: all nodes.
        bound: pods that are bound to a node, per second.
    """

    def __init__(self, records: Callable[[], Iterable[NodeRecord]], bound: Callable[[str], float]) -> None:
        self._records = records
        self._bound = bound
        self._counted: tuple[float, Mapping[Region, int]] = (float("-inf"), {})

    def seconds(self, region: Region, allowed: int, now: float) -> float:
        """Seconds of a round in a region with so many writes in ``WINDOW`` seconds."""
        at, nodes = self._counted
        if now - at >= COUNT_SECONDS:
            nodes = Counter(each.region() for each in self._records() if self._has_arrivals(each))
            self._counted = now, nodes
        return nodes.get(region, 0) * WINDOW / allowed

    def _has_arrivals(self, record: NodeRecord) -> bool:
        return bool(record.node.spec.pool.arrivals_per_minute or self._bound(record.node.name))
