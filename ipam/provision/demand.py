"""How fast pods arrive, from repeated snapshots of who holds addresses: no I/O, no clock of its own.

It must not know what the rate is used for.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from ipam.model import Attachment

WINDOW = 60.0
"""Seconds over which arrivals are averaged: shorter than a write takes, so that a burst shows at once."""


class Arrivals:
    """New holders of addresses within the last ``WINDOW`` seconds.

    Those that are there at the first look arrived before, at an unknown time, and do not count.
    """

    def __init__(self) -> None:
        self._holders: frozenset[Attachment] | None = None
        self._at: deque[float] = deque()

    def note(self, holders: Collection[Attachment], now: float) -> None:
        """Look at who holds an address; ``now`` is in seconds of a clock that does not jump."""
        seen = frozenset(holders)
        if self._holders is not None:
            self._at.extend([now] * len(seen - self._holders))
        self._holders = seen
        self._forget(now)

    def per_second(self, now: float) -> float:
        """Pods per second, averaged over the window."""
        self._forget(now)
        return len(self._at) / WINDOW

    def _forget(self, now: float) -> None:
        while self._at and self._at[0] < now - WINDOW:
            self._at.popleft()
