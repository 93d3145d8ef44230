"""How many requests a machine may make: a sliding second, and how many at once."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class RateLimit:
    """At most so many requests in any ``window`` seconds, per machine. None: no limit."""

    def __init__(self, allowed: int | None, window: float = 1.0) -> None:
        self.allowed = allowed
        self._window = window
        self._times: dict[str, deque[float]] = defaultdict(deque)
        self._lock = threading.Lock()

    def admits(self, machine: str) -> bool:
        """Count one request; whether it is within the limit. A refused one does not count."""
        now = time.monotonic()
        with self._lock:
            times = self._times[machine]
            while times and times[0] <= now - self._window:
                times.popleft()
            if self.allowed is not None and len(times) >= self.allowed:
                return False
            times.append(now)
            return True


class ConcurrencyLimit:
    """At most so many requests at once, per machine. None: no limit."""

    def __init__(self, allowed: int | None) -> None:
        self.allowed = allowed
        self._running: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()

    @contextmanager
    def entered(self, machine: str) -> Iterator[bool]:
        """Count one request as long as the block runs; yields whether it is within the limit."""
        with self._lock:
            self._running[machine] += 1
            within = self.allowed is None or self._running[machine] <= self.allowed
        try:
            yield within
        finally:
            with self._lock:
                self._running[machine] -= 1
