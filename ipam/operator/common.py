"""What all parts of one term of leadership share: settings, API server, clock, log, whether it is over.

It must not know the parts.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ipam.operator.turns import Stopped

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping

    from ipam.operator.cluster import ClusterApi
    from ipam.operator.settings import Settings


class Common:
    """Safe for threads.

    Args:
        settings: the operator's.
        cluster: the API server.
        leads: whether this operator leads, still in the same term.
        clock: seconds of a clock that does not jump.
        tell: writes to the log: level and text.
        counters: of the process, as ``ipam.nic_counts`` names them.
    """

    def __init__(
        self,
        settings: Settings,
        cluster: ClusterApi,
        leads: Callable[[], bool],
        clock: Callable[[], float],
        tell: Callable[[str, str], None],
        counters: Counter[str],
    ) -> None:
        self.settings = settings
        self.cluster = cluster
        self.leads = leads
        self.clock = clock
        self.tell = tell
        self.ended = threading.Event()
        self._counters = counters
        self._counting = threading.Lock()

    @property
    def over(self) -> bool:
        """Whether the term has ended."""
        return self.ended.is_set()

    def wait(self, seconds: float) -> None:
        """Wait for so long. Raises Stopped: the term has ended, or is about to."""
        if self.ended.wait(seconds) or not self.leads():
            raise Stopped

    def count(self, events: Mapping[str, int]) -> None:
        """Add to counters."""
        with self._counting:
            self._counters.update(events)
