"""Work that may hang, given up at a deadline.

The Azure SDK has a timeout for each read of a socket, not for a request: a server that trickles bytes blocks
it for ever. So its work runs in a separate thread, which is abandoned at the deadline; there is never more
than one of them.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class StillBusy(Exception):
    """The work of an earlier call that was given up has not ended yet."""


class OneAtATime(Generic[T]):
    """Runs pieces of work one after the other, each for a limited time. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Future[T] | None = None

    def run(self, work: Callable[[], T], until: float) -> T:
        """What ``work`` returns; what it raises is raised here. At ``until`` (``time.monotonic``) it is given
        up, and goes on in the background.

        Raises:
            TimeoutError: it has not ended in time.
            StillBusy: what was given up earlier has not ended until then.
        """
        with self._lock:
            before = [self._running] if self._running else []
            if wait(before, until - time.monotonic()).not_done:
                raise StillBusy
            mine = self._running = Future()
            # A daemon, which no executor has: the process must be able to end while it hangs.
            threading.Thread(target=_do, args=(work, mine), name="bounded", daemon=True).start()
        return mine.result(until - time.monotonic())


def _do(work: Callable[[], T], outcome: Future[T]) -> None:
    try:
        outcome.set_result(work())
    except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
        outcome.set_exception(error)
