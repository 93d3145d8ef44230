"""What a test lets go wrong with writes: switches that the writing part of ARM looks at. No behaviour.

Faults of the transport (status, hang, garbage) are those of the surface ``arm``, see `faults`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from integration.fabric.allocation import NO_BLOCK, Scarcity

Edit = Callable[[dict[str, Any]], object]
"""Changes the document of a resource in place, as somebody does who reads and writes it back."""


@dataclass(slots=True)
class Throttle:
    """So many requests of a kind are answered 429."""

    times: int
    retry_after: int
    kinds: frozenset[str]
    by_gateway: bool


@dataclass(slots=True)
class WriteFaults:
    """The switches. All off at first."""

    full_subnets: set[str] = field(default_factory=set)
    """Names of subnets that have nothing to give, however much is free in them."""
    no_block: str = NO_BLOCK
    """The code for a subnet without room for a block."""
    busy_conflict: bool = False
    """A second write of a busy NIC gets 409 AnotherOperationInProgress instead of 429 RetryableError."""
    ignores_if_match: bool = False
    """If-Match means nothing for NICs; that Microsoft.Network compares it is recorded for other resources."""
    other_writers: deque[Edit] = field(default_factory=deque)
    """Each edits the NIC or instance of one PUT just before that PUT is looked at, the first one first."""
    _throttles: list[Throttle] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def throttle(
        self,
        times: int = 1,
        retry_after: int = 1,
        kinds: tuple[str, ...] = ("PUT", "GET", "poll"),
        *,
        by_gateway: bool = False,
    ) -> None:
        """Answer so many requests of these kinds with 429, of Microsoft.Network or of ARM itself."""
        with self._lock:
            self._throttles.append(Throttle(times, retry_after, frozenset(kinds), by_gateway))

    def throttled(self, kind: str) -> Throttle | None:
        """The throttle that takes this request, counted down."""
        with self._lock:
            for each in self._throttles:
                if each.times > 0 and kind in each.kinds:
                    each.times -= 1
                    return each
        return None

    def scarcity(self, subnet: str) -> Scarcity:
        """What is scarce in the subnet of that name."""
        return Scarcity(subnet in self.full_subnets, self.no_block)

    def clear(self) -> None:
        """Switch all off."""
        self.full_subnets.clear()
        self.no_block = NO_BLOCK
        self.busy_conflict = False
        self.ignores_if_match = False
        self.other_writers.clear()
        with self._lock:
            self._throttles.clear()
