"""The operator: it tries to lead, and works while it does.

Owns its threads and their beginning and end. Whoever stops leading forgets everything: what was seen by then
may be old when it leads again. It must not know signals, standard streams or HTTP.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ipam.operator.leader import Elector

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipam.operator.cluster import Cluster
    from ipam.operator.settings import Settings

STOP_SECONDS = 5.0


def clock() -> float:
    """Seconds since boot, time that the machine slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Operator:
    """One process. ``tell`` writes to the log: level and text."""

    def __init__(
        self, settings: Settings, cluster: Cluster, identity: str, tell: Callable[[str, str], None]
    ) -> None:
        self.settings = settings
        self.identity = identity
        self._stopping = threading.Event()
        box = cluster.lease(settings.lease)
        self.elector = Elector(box, identity, settings.lease.seconds, clock, tell)
        self._electing = threading.Thread(
            target=self.elector.run, args=(self._stopping,), name="elector", daemon=True
        )

    def start(self) -> None:
        """Begin."""
        self._electing.start()

    def stop(self) -> None:
        """Stop, and let another one lead at once."""
        self._stopping.set()
        self._electing.join(STOP_SECONDS)
        self.elector.release()

    def why_not_alive(self) -> str:
        """Why this process should be started again; empty: it works."""
        return "" if self._electing.is_alive() else "the election has ended"

    def why_not_ready(self) -> str:
        """Why it could not lead; empty: it leads, or sees that another one does."""
        return "" if self.elector.holder else "the lease has not been seen yet"
