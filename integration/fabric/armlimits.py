"""How many requests ARM takes: its own token buckets, and the windows of Microsoft.Network behind them.

Source: Azure, request-limits-and-throttling. Both answer 429 with Retry-After; the gateway names itself in a
header, the resource provider in the code. Polls of operations count as reads.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from integration.fabric.armanswers import GATEWAY, SERVICE, error, network_error
from integration.fabric.web import Response

WINDOW = 300.0
"""Seconds in which Microsoft.Network counts, per subscription and region."""


class Bucket:
    """A token bucket: so many requests at once, so many more every second (ARM's request limits)."""

    def __init__(self, size: int = 250, per_second: float = 25.0) -> None:
        self.size = size
        self.per_second = per_second
        self._left = float(size)
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def take(self, speed: float = 1.0) -> int | None:
        """Take one; how many are left then, or None if there was none. Time passes so much faster."""
        with self._lock:
            now = time.monotonic()
            self._left = min(float(self.size), self._left + (now - self._at) * self.per_second * speed)
            self._at = now
            if self._left < 1:
                return None
            self._left -= 1
            return int(self._left)


class Window:
    """So many requests in any 5 minutes; None: any number."""

    def __init__(self, allowed: int | None) -> None:
        self.allowed = allowed
        self._times: deque[float] = deque()
        self._lock = threading.Lock()

    def wait(self, speed: float) -> float:
        """Count one request. 0 if it is within the limit, else the seconds until the next one is."""
        with self._lock:
            now, length = time.monotonic(), WINDOW / speed
            while self._times and self._times[0] <= now - length:
                self._times.popleft()
            if self.allowed is not None and len(self._times) >= self.allowed:
                return self._times[0] + length - now if self._times else length
            self._times.append(now)
            return 0.0


class InstanceBuckets:
    """Microsoft.Compute's limit on writes of one scale set instance: a bucket for each."""

    def __init__(self, size: int = 12, per_second: float = 4 / 60) -> None:
        self.size = size
        self.per_second = per_second
        self._buckets: dict[str, Bucket] = {}
        self._lock = threading.Lock()

    def take(self, instance: str, speed: float) -> int | None:
        """Take one of an instance's; see `Bucket.take`."""
        with self._lock:
            bucket = self._buckets.setdefault(instance.casefold(), Bucket(self.size, self.per_second))
        return bucket.take(speed)


def gateway_throttled(what: str, subscription: str, object_id: str, seconds: int) -> Response:
    """429 of ARM itself."""
    return error(
        429,
        f"Number of '{what}' requests for subscription '{subscription}' actor '{object_id}' exceeded. Please "
        f"try again after '{seconds}' seconds after additional tokens are available. Refer to "
        "https://aka.ms/arm-throttling for additional information.",
        "SubscriptionRequestsThrottled",
        ("Retry-After", str(seconds)),
        GATEWAY,
    )


def compute_throttled(seconds: int) -> Response:
    """429 of Microsoft.Compute."""
    message = (
        "The server rejected the request because too many requests have been received for this subscription."
    )
    return error(429, message, "OperationNotAllowed", ("Retry-After", str(seconds)), SERVICE)


def network_throttled(seconds: int) -> Response:
    """429 of Microsoft.Network."""
    message = (
        "The server rejected the request because too many requests have been received for this subscription."
    )
    return network_error(429, "TooManyRequests", message, ("Retry-After", str(seconds)), SERVICE)
