"""How often requests are sent to Azure Resource Manager: this node's budget, and pauses after failures.

Network allows 1,000 writes and 10,000 reads in 5 minutes to all nodes of a subscription and region
("Throttling Resource Manager requests"). It must not know what is requested.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

WRITES, SECONDS_PER_WRITE = 4, 30.0
"""Burst, and seconds per write after that; more than demand needs, since each takes a minute anyway."""
READS, SECONDS_PER_READ = 20, 5.0
"""Burst, and seconds per read after that: polls are sent every 10 s."""
AT_REST_SECONDS = 600.0
"""Seconds after which a NIC is read again though it lacks nothing: an empty listing is never trusted, so all
may be gone without a sign."""
AGAIN_SECONDS = 60.0
"""The same while something differs: it may have been taken away."""
SCARCE_SECONDS = 600.0
"""Seconds for which it is remembered that a subnet was full, or had no free block."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 600.0
"""Seconds after the first failure, doubled with each, and at most."""


class Allowance(Protocol):
    """When a request may be sent."""

    def take(self) -> float:
        """Take a turn; seconds to wait before it may be used. May wait itself, and raise to give up."""


class Bucket:
    """Allows a burst of requests, then one every so many seconds.

    Args:
        size: how many at once.
        seconds: until one more is allowed.
        clock: seconds of a clock that does not jump.
    """

    def __init__(self, size: int, seconds: float, clock: Callable[[], float]) -> None:
        self._size = float(size)
        self._seconds = seconds
        self._clock = clock
        self._left, self._at = self._size, clock()

    def take(self) -> float:
        """Take one; how many seconds to wait before it may be used."""
        now = self._clock()
        self._left = min(self._size, self._left + (now - self._at) / self._seconds)
        self._at = now
        self._left -= 1
        return max(0.0, -self._left * self._seconds)


def chance() -> float:
    """In [0, 1): it spreads requests, and nobody has to be unable to guess it."""
    return random.random()  # noqa: S311 - see above


def pause(
    failures: int,
    retry_after: float,
    chance: float,
    *,
    first: float = FIRST_PAUSE,
    most: float = LONGEST_PAUSE,
) -> float:
    """Seconds until the next attempt after that many failures in a row: ``first``, doubled with each, and at
    ``most``.

    Never before ``retry_after`` is over. ``chance``, in [0, 1), spreads the nodes of a cluster, which all
    were refused at the same moment.
    """
    longest = min(most, first * 2.0 ** min(failures - 1, 16))
    return max(retry_after * (1 + chance / 4), longest * (1 + chance) / 2)
