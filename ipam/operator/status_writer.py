"""Writing the status of nodes' resources, and Events about pods that can't be given an address.

A few threads write the status of idle nodes, so that none of these waits for the API server; work on a
node writes its status itself. It must not know what is done for a node.
"""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from ipam.operator import status_changes
from ipam.operator.errors import ClusterError, Conflict, NotThere
from ipam.operator.turns import Stopped
from ipam.provision.fields import FieldError
from ipam.provision.timestamps import rfc3339
from ipam.value import replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipam.operator.census import Nodes
    from ipam.operator.common import Common
    from ipam.operator.record import NodeRecord, Said
    from ipam.operator.turns import Turns
    from ipam.provision.exchange import NodeStatus

THREADS = 8


class StatusWriter:
    """Safe for threads. ``taken`` gets a node's resource as it is after a write, or after one that failed."""

    def __init__(
        self, common: Common, nodes: Nodes, turns: Turns, taken: Callable[[NodeRecord, dict[str, Any]], None]
    ) -> None:
        self._common = common
        self._nodes = nodes
        self._turns = turns
        self._taken = taken
        self._lock = threading.Lock()
        self._wanted: dict[str, tuple[NodeRecord, Said, bool]] = {}
        self._queue: SimpleQueue[str] = SimpleQueue()
        self.writes = 0
        self.events = 0

    def put(self, record: NodeRecord, said: Said, *, keep: bool) -> None:
        """Have this state written, unless the status already has it. ``keep``: what the agent
        was asked for stays.
        """
        node = record.node
        status = node.status
        same = (status.state, status.text, status.remedy) == (said.state, said.text, said.remedy)
        asked = bool(status.surplus) and not keep
        if same and not asked and not self._is_to_observe(record):
            return
        with self._lock:
            if node.name not in self._wanted:
                self._queue.put(node.name)
            self._wanted[node.name] = record, said, keep

    def run(self) -> None:
        """Write what is wanted until the end of the term."""
        while not self._common.over:
            name = self._queue.get()
            with self._lock:
                wanted = self._wanted.pop(name, None)
            if wanted is not None and not self._common.over:
                self._write(*wanted)

    def stop(self) -> None:
        """The term is over."""
        for _ in range(THREADS):
            self._queue.put("")

    def _write(self, record: NodeRecord, said: Said, keep: bool) -> None:  # noqa: FBT001 - as it was put there
        if record.working:
            return  # it writes its status itself

        def change(status: NodeStatus) -> NodeStatus:
            surplus = status.surplus if keep else 0
            return replace(status, state=said.state, text=said.text, remedy=said.remedy, surplus=surplus)

        try:
            self.publish(record, change)
            self._event(record, said)
        except (Conflict, NotThere, Stopped):
            return  # the change leads to another decision anyway
        except ClusterError as error:
            self._common.tell("debug", f"{record.node.name}: {error}")

    def publish(self, record: NodeRecord, change: Callable[[NodeStatus], NodeStatus]) -> None:
        """See ``work.Hands``."""
        self._turns.check()
        node = record.node
        # The status of the previous machine does not observe the generation that names another one.
        observed = node.status.observed_generation if record.is_another_machine else node.generation
        after = status_changes.with_condition(change(node.status), observed, rfc3339(time.time()))
        changed = status_changes.changes(node.status, after)
        if not changed:
            return
        try:
            document = self._common.cluster.write_status(node.name, changed, node.resource_version)
        except Conflict:
            self._take(record, self._common.cluster.read(node.name))
            raise
        self.writes += 1
        record.observed = node.spec.releasing
        self._take(record, document)

    def _take(self, record: NodeRecord, document: dict[str, Any]) -> None:
        try:
            self._taken(record, document)
        except FieldError as error:
            raise ClusterError(f"{record.node.name}: {error}") from error

    def _is_to_observe(self, record: NodeRecord) -> bool:
        """Whether the agent waits for confirmation that its withdrawal was seen."""
        if record.observed is None:
            return record.node.status.observed_generation < record.node.generation
        return record.observed != record.node.spec.releasing

    def _event(self, record: NodeRecord, said: Said) -> None:
        """An Event at the Node if its pods wait and can't be given an address; once for each state."""
        if not said.is_problem:
            record.told_event = ""
            return
        seen = self._nodes.get(record.node.name)
        if seen is None or not record.node.spec.pool.waiting or record.told_event == said.state:
            return
        record.told_event = said.state
        regarding = {"api_version": "v1", "kind": "Node", "name": seen.name, "uid": seen.uid}
        text = f"pods wait, and no addresses can be added to the NIC: {said.text}. {said.remedy}".rstrip()
        self._common.cluster.event(regarding, f"Addresses{status_changes.reason_of(said.state)}", text)
        self.events += 1
