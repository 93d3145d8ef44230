"""How many requests Azure Resource Manager is sent: a share of what it allows. Pure: no clock of its own.

Two limits hold at the same time for a subscription in a region: the window of Microsoft.Network, 1,000 writes
and 10,000 reads in 5 minutes, and the buckets of Resource Manager itself for each identity, 200 writes and 10
more each second, 250 reads and 25 more each second ("Throttling Resource Manager requests"). Whether polls of
operations count is not documented; here they do. It must not know what a request is for.
"""

from __future__ import annotations

from collections import deque

from ipam.value import Value

WINDOW = 300.0
"""Seconds in which Microsoft.Network counts."""
UNTIL_MADE = 15.0
"""Seconds from a turn to its request, at most as a rule: a write comes after a read of what is written, which
waits for a turn of its own. A request counts for so much longer, since Azure counts from when it gets it."""
PAUSE = 10.0
"""Seconds without requests after one was throttled and no time was named."""


class Limits(Value):
    """What Azure allows of one kind of requests."""

    window: int
    """In any ``WINDOW`` seconds."""
    burst: int
    """At once."""
    per_second: float
    """After that."""


WRITES = Limits(1_000, 200, 10.0)
READS = Limits(10_000, 250, 25.0)


class Meter:
    """Requests of one kind in one subscription and region. Not for several threads.

    Args:
        limits: Azure's.
        share: of them, above 0 and at most 1.
        now: seconds of a clock that does not jump, as everywhere here.
    """

    def __init__(self, limits: Limits, share: float, now: float) -> None:
        self.allowed = max(1, int(limits.window * share))
        self._burst = max(1.0, limits.burst * share)
        self._per_second = limits.per_second * share
        self._level, self._at = self._burst, now
        self._times: deque[float] = deque()
        self._paused_until = now
        self.throttled = 0
        """How many times it was paused."""
        self.used = 0
        """Requests since the beginning."""

    def wait(self, now: float, number: int = 1) -> float:
        """Seconds until that many more requests have been allowed; 0: they are now."""
        self._settle(now)
        seconds = max(0.0, self._paused_until - now, (number - self._level) / self._per_second)
        beyond = len(self._times) + number - self.allowed
        if beyond > 0:
            rounds, at = divmod(beyond - 1, self.allowed)
            # Those that are not in the window yet will be made one window after those that are.
            first = self._times[min(at, len(self._times) - 1)] if self._times else now
            seconds = max(seconds, first + (rounds + 1) * (WINDOW + UNTIL_MADE) - now)
        return seconds

    def take(self, now: float) -> None:
        """Count one request, for which ``wait`` is 0."""
        self._settle(now)
        self._times.append(now)
        self._level -= 1
        self.used += 1

    def give_back(self, now: float) -> None:
        """The last one that was counted is not made after all."""
        self._settle(now)
        if self._times:
            self._times.pop()
            self._level = min(self._burst, self._level + 1)
            self.used -= 1

    def pause(self, now: float, seconds: float) -> None:
        """Azure throttled one: no request is made for so many seconds (0: it named no time)."""
        self.throttled += 1
        self._paused_until = max(self._paused_until, now + (seconds or PAUSE))

    def left(self, now: float) -> int:
        """Requests that could be made at this moment."""
        self._settle(now)
        if now < self._paused_until:
            return 0
        return max(0, min(int(self._level), self.allowed - len(self._times)))

    def _settle(self, now: float) -> None:
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._per_second)
        self._at = max(self._at, now)
        while self._times and self._times[0] <= now - WINDOW - UNTIL_MADE:
            self._times.popleft()
