"""The operator's process: it tries to become the leader, and works while it is.

Owns its threads and when they begin and end. When it stops leading it discards everything that it knows,
which may be outdated by the time it leads again. It must not know signals, standard streams or HTTP.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from ipam.operator.common import Common
from ipam.operator.leader import Elector
from ipam.operator.term import Term

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipam.operator.cluster import ClusterApi
    from ipam.operator.settings import Settings

STOP_SECONDS = 5.0
LOOK_SECONDS = 0.2


def clock() -> float:
    """Seconds since boot, time that the machine slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Operator:
    """One process. ``tell`` writes to the log: level and text."""

    def __init__(
        self, settings: Settings, cluster: ClusterApi, identity: str, tell: Callable[[str, str], None]
    ) -> None:
        self.settings = settings
        self.identity = identity
        self._cluster = cluster
        self._tell = tell
        self._stopping = threading.Event()
        self.counters: Counter[str] = Counter()
        """Events since the start of the process, as ``ipam.nic_counts`` names them."""
        self.term: Term | None = None
        """The current term; None: another operator leads."""
        box = cluster.lease(settings.lease)
        self.elector = Elector(box, identity, settings.lease.seconds, clock, tell)
        self._electing = threading.Thread(
            target=self.elector.run, args=(self._stopping,), name="elector", daemon=True
        )
        self._leading = threading.Thread(target=self._lead, name="leader", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._electing.start()
        self._leading.start()

    def stop(self) -> None:
        """Stop, and let another one lead at once."""
        self._stopping.set()
        self._electing.join(STOP_SECONDS)
        self._leading.join(STOP_SECONDS)
        self.elector.release()

    def why_not_alive(self) -> str:
        """Why this process should be restarted; empty: it works."""
        ended = [each.name for each in (self._electing, self._leading) if not each.is_alive()]
        term = self.term
        ended += term.ended if term is not None else []
        return f"a thread has ended: {', '.join(ended)}" if ended else ""

    def why_not_ready(self) -> str:
        """Why it is not ready; empty: it leads and has listed the cluster, or another operator leads."""
        if not self.elector.holder:
            return "the lease has not been seen yet"
        term = self.term
        if term is not None and not term.is_complete:
            return "the cluster has not been listed completely yet"
        return ""

    def _lead(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            number = self.elector.term
            if not self.elector.leads:
                continue
            leads = partial(self._leads_in, number)
            self.term = Term(Common(self.settings, self._cluster, leads, clock, self._tell, self.counters))
            self.term.run(self._stopping)
            self.term = None
            if not self._stopping.is_set():
                self._tell("warning", "this operator no longer leads")

    def _leads_in(self, term: int) -> bool:
        return self.elector.leads and self.elector.term == term
