"""The signals of a process with many threads, waited for in one place.

The kernel may deliver a signal to any thread. Python runs a handler in the main thread alone, and a main
thread that sleeps in a lock is not woken for it, so a SIGTERM would stay pending until something else
happens. So the main thread waits for a descriptor to which the interpreter's own handler, which runs in
whichever thread got the signal, writes its number (Python ``signal.set_wakeup_fd``).
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable
from types import FrameType

READ_BYTES = 64


class Signals:
    """Takes over these signals. Create it in the main thread."""

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self._read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, _noted)

    def wait(self, seconds: float | None) -> frozenset[int]:
        """The signals since the last call; waits at most so long for one (None: for ever)."""
        if not select.select([self._read], [], [], seconds)[0]:
            return frozenset()
        return frozenset(os.read(self._read, READ_BYTES))


def _noted(number: int, frame: FrameType | None) -> None:
    """Nothing: signals are handled where the descriptor is read."""
