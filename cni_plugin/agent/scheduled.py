"""The pods that are scheduled to this node, followed in a thread of its own where the agent may ask for them.

Owns how long what is known counts, and the words for when nothing is known. It must not know what follows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cni_plugin.agent.cluster_access import LASTING_SECONDS, access, may_ask, node_name
from ipam.ipam import boottime
from ipam.provision.api_client import Trouble
from ipam.provision.bound_pods import BoundPods
from ipam.provision.own_node import OwnNode
from ipam.provision.progress import NO_API, Demand, Unseen
from ipam.provision.watching import Watching
from ipam.quoting import one_line

if TYPE_CHECKING:
    from cni_plugin.agent.settings import ProvisionSettings

FIRST_LIST_SECONDS = 20.0
"""For the first list, before anything is done without it."""
SETTLE_SECONDS, LONGEST_SETTLE = 1.0, 3.0
"""Seconds without a change after which a burst is over, and for which one is waited at most. A write takes a
minute, so one should be for all pods that are bound within moments."""
NOT_ASKED = Unseen("the agent has no access to the API server of a cluster")


class ScheduledPods:
    """One life of the thread. ``moved`` is called when a pod came, was given its address, or went.

    ``count`` is told each request, as ``api_client`` tells it.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        wanted: ProvisionSettings,
        moved: Callable[[], None],
        count: Callable[[str, str, str], None],
    ) -> None:
        self._moved = moved
        self._stopped = threading.Event()
        self._moved_at = -SETTLE_SECONDS
        self._node = node_name(environ, wanted)
        self._pods = BoundPods(self._note, boottime)
        self._asking: OwnNode | None = None
        if may_ask(environ, wanted):
            self._asking = OwnNode(access(environ, wanted), self._node, count)
            # What goes wrong is told as a state of the node, once.
            self._watching = Watching("pods", self._asking, self._pods, self._stopped, lambda *_: None)

    def start(self) -> None:
        """Begin, where the agent may ask."""
        if self._asking is not None:
            threading.Thread(target=self._watching.run, name="scheduled pods", daemon=True).start()

    def stop(self) -> None:
        """Stop. A watch ends with the next that it is told."""
        self._stopped.set()
        if self._asking is not None:
            self._asking.close()

    @property
    def provider_id(self) -> str:
        """Of this Node; empty: it has none, or it is not known."""
        return self._asking.provider_id if self._asking is not None else ""

    def first_list(self, wait: Callable[[float], None]) -> None:
        """Wait until they were listed once, or that did not succeed. ``wait`` may raise to give up."""
        if self._asking is None:
            return
        watching, until = self._watching, time.monotonic() + FIRST_LIST_SECONDS
        while not watching.is_complete and watching.trouble is None and time.monotonic() < until:
            wait(0.1)

    def settle(self, wait: Callable[[float], None]) -> None:
        """Wait a moment where pods have been bound a moment ago. ``wait`` may raise to give up."""
        until = time.monotonic() + LONGEST_SETTLE
        while (now := time.monotonic()) < min(until, self._moved_at + SETTLE_SECONDS):
            wait(min(until, self._moved_at + SETTLE_SECONDS) - now)

    def demand(self, held: int) -> Demand | None:
        """What is scheduled; None: it is not known. ``held``: addresses that pods of the node hold."""
        if self.unseen is not None:
            return None
        return Demand(self._pods.coming(self._node, held), self._pods.per_second(self._node))

    @property
    def unseen(self) -> Unseen | None:
        """Why it is not known what is scheduled; None: it is."""
        if self._asking is None:
            return NOT_ASKED
        trouble = self._watching.trouble
        if trouble is None:
            return None if self._watching.is_complete else Unseen("they have not been listed yet")
        phase, remedy = NO_API, "The agent tries again."
        if isinstance(trouble, Trouble):
            phase, remedy = trouble.phase, trouble.remedy
        # What was said before is not believed for ever: pods have come and gone since.
        lasts = phase != NO_API or time.monotonic() - self._watching.trouble_since >= LASTING_SECONDS
        if not lasts and self._watching.is_complete:
            return None
        return Unseen(one_line(str(trouble)), phase, remedy if lasts else "")

    def _note(self, node: str) -> None:
        del node  # others are not asked for
        self._moved_at = time.monotonic()
        self._moved()
