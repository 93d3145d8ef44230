"""One term: from the moment at which this operator leads until it does not any more.

Owns the parts and their threads: what watches the cluster, what decides, what serves turns, what tells.
With the end of the term all of it is thrown away. It must not know what a part does.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ipam.operator.arm_pipeline import Azure
from ipam.operator.census import Nodes
from ipam.operator.fleet import Fleet
from ipam.operator.status_writer import THREADS, StatusWriter
from ipam.operator.turns import Turns
from ipam.provision.bound_pods import BoundPods
from ipam.provision.watching import Watching

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ipam.operator.common import Common
    from ipam.operator.decide import Around
    from ipam.operator.record import NodeRecord
    from ipam.operator.turns import Sort
    from ipam.provision.exchange import NodeStatus

LOOK_SECONDS = 0.2


class Term:
    """``work.Hands``: what work on a node is done with."""

    def __init__(self, common: Common) -> None:
        self.common = common
        settings, cluster, clock = common.settings, common.cluster, common.clock
        self.nodes = Nodes(self._moved)
        self.pods = BoundPods(self._moved, clock)
        self.turns = Turns(settings.share, settings.workers, self._begin, common.leads, clock)
        self.azure = Azure(settings.arm, settings.workers, self.turns, common.wait, common.count, clock)
        self.status_writer = StatusWriter(common, self.nodes, self.turns, self._taken)
        self.fleet = Fleet(common, self)
        self._threads: list[threading.Thread] = []
        sinks: tuple[tuple[Any, Any], ...] = (
            (cluster.nodes, self.nodes),
            (cluster.azvnet_nodes, self.fleet),
            (cluster.pods, self.pods),
        )
        self._watches = tuple(
            Watching(kind.name, kind, sink, common.ended, common.tell) for kind, sink in sinks
        )

    @property
    def ended(self) -> list[str]:
        """Threads that have ended before the term."""
        return [] if self.common.over else [each.name for each in self._threads if not each.is_alive()]

    @property
    def is_complete(self) -> bool:
        """Whether everything has been listed once."""
        return all(each.is_complete for each in self._watches)

    def run(self, stop: threading.Event) -> None:
        """Lead until the lease is lost or ``stop`` is set."""
        targets: list[Callable[[], None]] = [each.run for each in self._watches]
        targets += [self.turns.run, self.fleet.run, *([self.status_writer.run] * THREADS)]
        threads = [threading.Thread(target=e, name=e.__qualname__, daemon=True) for e in targets]
        for each in threads:
            each.start()
        self._threads = threads
        while self.common.leads() and not stop.wait(LOOK_SECONDS):
            pass
        self.common.ended.set()
        self.turns.stop()
        self.status_writer.stop()
        self.fleet.wake()

    # What work on a node is done with: see ``work.Hands``

    def clock(self) -> float:
        """See there."""
        return self.common.clock()

    def wait(self, seconds: float) -> None:
        """See there."""
        self.common.wait(seconds)

    def around(self, record: NodeRecord) -> Around:
        """See there."""
        return self.fleet.around(record)

    def publish(self, record: NodeRecord, change: Callable[[NodeStatus], NodeStatus]) -> None:
        """See there."""
        self.status_writer.publish(record, change)

    def claimed_elsewhere(self, name: str) -> bool:
        """See there."""
        return bool(self.fleet.claims.others(name))

    def forget(self, record: NodeRecord) -> None:
        """See there."""
        self.turns.check()
        node = record.node
        self.common.cluster.delete(node.name, node.uid, node.resource_version)

    def note_room(self, record: NodeRecord, addresses: int) -> None:
        """See there."""
        self.fleet.note_room(record, addresses)

    def count(self, events: Mapping[str, int]) -> None:
        """See there."""
        self.common.count(events)

    def tell(self, level: str, text: str) -> None:
        """See there."""
        self.common.tell(level, text)

    # Between the parts

    def _moved(self, name: str) -> None:
        self.fleet.moved(name)

    def _begin(self, name: str, sort: Sort) -> None:
        self.fleet.begin(name, sort)

    def _taken(self, record: NodeRecord, document: dict[str, Any]) -> None:
        self.fleet.taken(record, document)
