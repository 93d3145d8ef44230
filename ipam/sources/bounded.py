"""Work that may hang, given up at a deadline.

The Azure SDK has a timeout for each read of a socket, not for a request: a server that trickles bytes blocks
it for ever. So its work runs in a separate thread, which is abandoned at the deadline; there is never more
than one of them.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class StillBusy(Exception):
    """The work of an earlier call that was given up has not ended yet."""


class _Work(threading.Thread, Generic[T]):
    """One piece of work and its outcome."""

    def __init__(self, work: Callable[[], T]) -> None:
        # A daemon: the process must be able to end while it hangs.
        super().__init__(name="bounded", daemon=True)
        self._work = work
        self.outcome: T | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.outcome = self._work()
        except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
            self.error = error


class OneAtATime(Generic[T]):
    """Runs pieces of work one after the other, each for so long at most. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: _Work[T] | None = None

    def run(self, work: Callable[[], T], until: float) -> T:
        """What ``work`` returns; what it raises is raised here.

        Args:
            work: what to do.
            until: ``time.monotonic`` when it is given up; it goes on in the background then.

        Raises:
            TimeoutError: it has not ended in time.
            StillBusy: what was given up earlier has not ended until then.
        """
        with self._lock:
            before = self._running
            if before is not None:
                before.join(max(0.0, until - time.monotonic()))
                if before.is_alive():
                    raise StillBusy
            mine = self._running = _Work(work)
            mine.start()
        mine.join(max(0.0, until - time.monotonic()))
        if mine.is_alive():
            raise TimeoutError
        if mine.error is not None:
            raise mine.error
        outcome: T = mine.outcome  # type: ignore[assignment]  # it ended without an error
        return outcome
