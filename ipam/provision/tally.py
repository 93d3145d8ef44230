"""Counters of requests to Azure Resource Manager and of what they changed.

It must not know where counts are kept.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ipam import nic_counts as counts
from ipam.errors import IpamError
from ipam.provision.refusals import Kind, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class Tally:
    """Not for several threads.

    Args:
        count: adds to counters that survive the process; what it can't add is not worth an operation.
        clock: seconds of a clock that does not jump.
    """

    def __init__(self, count: Callable[[Mapping[str, int]], None], clock: Callable[[], float]) -> None:
        self._count = count
        self._clock = clock

    def add(self, events: Mapping[str, int]) -> None:
        """Add to these counters."""
        with contextlib.suppress(IpamError):
            self._count(events)

    def refused(self, refusal: Refusal) -> None:
        """Count what a request was refused for, if that is throttling."""
        if refusal.kind is Kind.THROTTLED:
            self.add({counts.THROTTLED: 1})

    @contextlib.contextmanager
    def write(self) -> Iterator[None]:
        """Count one write: how it ends, and how long that takes if it succeeds."""
        began = self._clock()
        try:
            yield
        except Refusal as refusal:
            self.add({counts.writes_ended(refusal.kind.value): 1})
            raise
        except Exception:
            self.add({counts.writes_ended(counts.INTERRUPTED): 1})
            raise
        seconds = self._clock() - began
        taken = {counts.bucket_of(seconds): 1, counts.WRITE_SECONDS: round(seconds)}
        self.add({counts.writes_ended(counts.OK): 1, **taken})
